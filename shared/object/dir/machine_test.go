//go:build linux || darwin

package dir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tablevault/tablevault/shared/object/objecttest"
)

// disk is what a machine finds again after its power was cut: of a file what it held when
// it was last synced, of a folder the names that it had when it was. A file that was
// never synced is empty, a folder too. No file system forgets more.
type disk struct {
	t     *testing.T
	root  string
	known map[uint64]*durable // by inode
	// at, if it is not nil, is called before each sync, and after it.
	at func(after bool)
}

// durable is a file or a folder. Its handle keeps others from getting its inode.
type durable struct {
	handle  *os.File
	content []byte
	names   map[string]uint64
}

func newDisk(t *testing.T, root string) *disk {
	t.Helper()
	return &disk{t: t, root: root, known: map[uint64]*durable{}}
}

// sync is the fsync of a store.
func (d *disk) sync(f *os.File) error {
	if at := d.at; at != nil {
		at(false)
		defer at(true)
	}
	st, err := statOf(f)
	if err != nil {
		return err
	}
	k := d.known[st.Ino]
	if k == nil {
		k = &durable{}
		if k.handle, err = openFileAgain(f); err != nil {
			return err
		}
		d.t.Cleanup(func() { k.handle.Close() })
		d.known[st.Ino] = k
	}
	if kind(st) == unix.S_IFREG {
		k.content = make([]byte, st.Size)
		_, err := k.handle.ReadAt(k.content, 0)
		return err
	}
	k.names = map[string]uint64{}
	entries, err := os.ReadDir(f.Name())
	if err != nil {
		return err
	}
	for _, e := range entries {
		in, err := statIn(f, e.Name())
		if err != nil {
			return err
		}
		k.names[e.Name()] = in.Ino
		if kind(in) == unix.S_IFDIR && d.known[in.Ino] == nil {
			// A folder that was named, and whose own names were not synced.
			opened, err := openFolderIn(f, e.Name())
			if err != nil {
				return err
			}
			d.t.Cleanup(func() { opened.Close() })
			d.known[in.Ino] = &durable{handle: opened, names: map[string]uint64{}}
		}
	}
	return nil
}

func openFileAgain(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// crash lays out in a new directory what the machine finds, and opens it.
func (d *disk) crash() *Store {
	d.t.Helper()
	to := memoryDir(d.t)
	var root unix.Stat_t
	err := unix.Stat(d.root, &root)
	if err == nil {
		err = d.lay(root.Ino, to)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return open(d.t, to)
}

func (d *disk) lay(folder uint64, to string) error {
	k := d.known[folder]
	if k == nil {
		return nil
	}
	for name, ino := range k.names {
		path, of := filepath.Join(to, name), d.known[ino]
		if of != nil && of.names != nil {
			if err := os.MkdirAll(path, 0o700); err != nil {
				return err
			}
			if err := d.lay(ino, path); err != nil {
				return err
			}
			continue
		}
		var content []byte
		if of != nil {
			content = of.content
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// on opens a store of the disk, as a process does.
func (d *disk) on() *Store {
	d.t.Helper()
	s := &Store{dir: d.root, fsync: d.sync}
	if err := s.open(d.t.Context(), folds); err != nil {
		d.t.Fatal(err)
	}
	return s
}

// holds checks what is found after a crash now: each object of which somebody was told,
// none that was deleted, and no other that is not whole.
func (d *disk) holds(there, gone []string) {
	d.t.Helper()
	s := d.crash()
	listed := list(d.t, s)
	for _, name := range listed {
		wantNamedContent(d.t, s, name)
	}
	for _, name := range there {
		if !slices.Contains(listed, name) {
			d.t.Fatalf("%s was created, and is lost with the machine", name)
		}
	}
	for _, name := range gone {
		if slices.Contains(listed, name) {
			d.t.Fatalf("%s was deleted, and is back with the machine", name)
		}
	}
}

// TestMachineDies cuts the power before and after each sync: whatever Create has returned
// about is there and whole, whatever Delete has is gone, and nothing else is half there.
// Processes do not die so: what they wrote is the system's.
func TestMachineDies(t *testing.T) {
	for _, linkless := range []bool{false, true} {
		t.Run(fmt.Sprintf("linkless=%t", linkless), func(t *testing.T) {
			d := newDisk(t, memoryDir(t))
			s := d.on()
			s.linkless = linkless
			var there, gone []string
			syncs := 0
			d.at = func(bool) {
				syncs++
				d.holds(there, gone)
			}
			for i := range 12 {
				name := namedAfterSize(i%2, i, 300*i)
				if _, err := s.Create(t.Context(), name, bytes.NewReader(objecttest.Content(name, 300*i))); err != nil {
					t.Fatal(err)
				}
				there = append(there, name)
				d.holds(there, gone)
				if i%3 != 2 {
					continue
				}
				name, there = there[0], there[1:]
				if err := s.Delete(t.Context(), name); err != nil {
					t.Fatal(err)
				}
				gone = append(gone, name)
				d.holds(there, gone)
			}
			if syncs < 2*2*12 {
				t.Errorf("%d syncs for 12 objects", syncs/2)
			}
		})
	}
}

// TestMachineDiesBetweenTwo lets a process come in before each sync of another, which
// creates the same object, one beside it, or deletes: what it is told about is durable
// when it is told, though the other has not come so far.
func TestMachineDiesBetweenTwo(t *testing.T) {
	const size = 1000
	name, beside := namedAfterSize(1, 1, size), namedAfterSize(1, 4, size) // in one folder
	put := func(t *testing.T, s *Store, name string) error {
		_, err := s.Create(t.Context(), name, bytes.NewReader(objecttest.Content(name, size)))
		return err
	}
	for what, step := range map[string]struct {
		first  func(t *testing.T, s *Store) error
		second func(t *testing.T, s *Store) (there, gone []string, err error)
	}{
		"the same": {
			func(t *testing.T, s *Store) error { return put(t, s, name) },
			func(t *testing.T, s *Store) (there, gone []string, err error) {
				return []string{name}, nil, put(t, s, name)
			},
		},
		"one beside it": {
			func(t *testing.T, s *Store) error { return put(t, s, name) },
			func(t *testing.T, s *Store) (there, gone []string, err error) {
				return []string{beside}, nil, put(t, s, beside)
			},
		},
		"deleted by both": {
			func(t *testing.T, s *Store) error { return s.Delete(t.Context(), name) },
			func(t *testing.T, s *Store) (there, gone []string, err error) {
				return nil, []string{name}, s.Delete(t.Context(), name)
			},
		},
	} {
		t.Run(what, func(t *testing.T) {
			came := 0
			for n := 0; n <= came; n++ { // until there is no n-th sync to come in before
				d := newDisk(t, memoryDir(t))
				s := d.on()
				if strings.HasPrefix(what, "deleted") {
					if err := put(t, s, name); err != nil {
						t.Fatal(err)
					}
				}
				at := 0
				d.at = func(after bool) {
					if after {
						return
					}
					if at++; at != n+1 {
						return
					}
					came++
					d.at = nil
					there, gone, err := step.second(t, d.on())
					if err != nil && !errors.Is(err, fs.ErrExist) {
						t.Fatal(err)
					}
					d.holds(there, gone)
				}
				if err := step.first(t, s); err != nil && !errors.Is(err, fs.ErrExist) {
					t.Fatal(err)
				}
			}
			if came == 0 {
				t.Error("nothing was synced")
			}
			t.Logf("came in before each of %d syncs", came)
		})
	}
}

// TestSyncFails: a disk that can't sync what was written is an error, and no object.
func TestSyncFails(t *testing.T) {
	broken := errors.New("the disk is broken")
	for n := range 3 { // the content, the folder's name, the object's
		d := newDisk(t, memoryDir(t))
		at := 0
		s := &Store{dir: d.root, fsync: func(f *os.File) error {
			if at++; at == n+1 {
				return broken
			}
			return d.sync(f)
		}}
		if err := s.open(t.Context(), folds); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Create(context.Background(), "folder/name-5", strings.NewReader("other")); !errors.Is(err, broken) {
			t.Errorf("sync %d fails: %v", n, err)
		}
		if n < 2 && len(list(t, s)) > 0 {
			t.Errorf("sync %d failed, and the object is there", n)
		}
	}
}

// TestMachineDiesWithFoldedNames: a directory that was begun with folded names is one
// after a crash, too, or its objects would not be found.
func TestMachineDiesWithFoldedNames(t *testing.T) {
	d := newDisk(t, memoryDir(t))
	s := &Store{dir: d.root, fsync: d.sync}
	if err := s.open(t.Context(), func(*os.File, string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if !d.crash().names.folded {
		t.Error("its names are folded no more")
	}
}
