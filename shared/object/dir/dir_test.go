//go:build linux || darwin

package dir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/objecttest"
)

// TestMain runs the tests, or in a process that a test started, the part that is to be
// killed or confined.
func TestMain(m *testing.M) {
	if role := os.Getenv("OBJECT_DIR_TEST_ROLE"); role != "" {
		os.Exit(roles[role]())
	}
	os.Exit(m.Run())
}

// The contract holds with links, with renames where there are none, and with names
// folded.
func TestStore(t *testing.T) {
	t.Run("links", func(t *testing.T) {
		t.Parallel() // they mostly wait for the disk
		objecttest.Run(t, func(t *testing.T) object.Store { return open(t, t.TempDir()) })
	})
	t.Run("renames", func(t *testing.T) {
		t.Parallel() // they mostly wait for the disk
		objecttest.Run(t, func(t *testing.T) object.Store {
			s := open(t, memoryDir(t))
			if err := renameIn(s.tmp, "nothing", s.tmp, "nothing"); err != unix.ENOENT {
				t.Skipf("no rename that does not replace: %v", err)
			}
			s.linkless = true
			return s
		})
	})
	t.Run("folded names", func(t *testing.T) {
		t.Parallel() // they mostly wait for the disk
		objecttest.Run(t, func(t *testing.T) object.Store {
			s := &Store{dir: memoryDir(t)}
			if err := s.open(t.Context(), func(*os.File, string) bool { return true }); err != nil {
				t.Fatal(err)
			}
			if !s.names.folded {
				t.Fatal("the names are not folded")
			}
			return s
		})
	})
}

// memoryDir returns a directory in a file system in memory, if there is one: another
// kind, and a faster one.
func memoryDir(t *testing.T) string {
	t.Helper()
	path, err := os.MkdirTemp("/dev/shm", "object-dir-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(path) })
	return path
}

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func create(t *testing.T, s *Store, name, content string) object.Info {
	t.Helper()
	info, err := s.Create(t.Context(), name, strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func list(t *testing.T, s *Store) (names []string) {
	t.Helper()
	for info, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, info.Name)
	}
	return names
}

// files returns the temporary files of a store.
func (s *Store) files(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.dir, tmp))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Who looks into the directory finds the objects under their names, for the owner alone,
// and nothing else.
func TestLayout(t *testing.T) {
	s := open(t, t.TempDir())
	create(t, s, "vault.json", "{}")
	create(t, s, "manifests/local/prod/Orders/1.json", "a manifest")
	content, err := os.ReadFile(filepath.Join(s.dir, "manifests/local/prod/Orders/1.json"))
	if err != nil || string(content) != "a manifest" {
		t.Errorf("the file contains %q, %v", content, err)
	}
	modes := map[string]fs.FileMode{}
	err = filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if rel, _ := filepath.Rel(s.dir, path); rel != "." {
			modes[rel] = info.Mode()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	const folder, file = fs.ModeDir | 0o700, fs.FileMode(0o600)
	for path, want := range map[string]fs.FileMode{
		"%tmp": folder, "vault.json": file, "manifests": folder, "manifests/local": folder, "manifests/local/prod": folder,
		"manifests/local/prod/Orders": folder, "manifests/local/prod/Orders/1.json": file,
	} {
		if modes[path] != want {
			t.Errorf("%s has mode %v, want %v", path, modes[path], want)
		}
		delete(modes, path)
	}
	if len(modes) > 0 {
		t.Errorf("there is also %v", modes)
	}
	for _, name := range []string{"vault.json", "manifests/local/prod/Orders/1.json"} {
		if err := s.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir, "*")); len(left) != 1 {
		t.Errorf("after deleting all, there is %q, want the folder %s alone", left, tmp)
	}
}

func TestChecksum(t *testing.T) {
	s := open(t, t.TempDir())
	// The check value of CRC-32C.
	info := create(t, s, "check", "123456789")
	if info.Checksum != "crc32c:e3069283" {
		t.Errorf("checksum %s, want crc32c:e3069283", info.Checksum)
	}
	// Asking the store is asking the bytes: damage is seen, whatever was known before.
	if err := os.WriteFile(filepath.Join(s.dir, "check"), []byte("123456788"), 0o600); err != nil {
		t.Fatal(err)
	}
	if damaged, err := object.Stat(t.Context(), s, "check"); err != nil || damaged.Checksum == info.Checksum || damaged.Size != info.Size {
		t.Errorf("Stat of a damaged file: %+v, %v", damaged, err)
	}
}

// A file that becomes shorter under a reader is an error, not an end.
func TestTruncatedWhileRead(t *testing.T) {
	s := open(t, t.TempDir())
	create(t, s, "short", strings.Repeat("x", 100_000))
	r, _, err := s.Open(t.Context(), "short", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := os.Truncate(filepath.Join(s.dir, "short"), 99_999); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != io.ErrUnexpectedEOF {
		t.Errorf("%d bytes, %v, want io.ErrUnexpectedEOF", len(got), err)
	}
}

func TestOpenRefuses(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(root, "missing")
	for path, wants := range map[string][]string{
		missing: {missing, "no such file or directory", "mkdir -p " + missing},
		file:    {file, "not a directory", "name the directory"},
	} {
		_, err := Open(t.Context(), path)
		if err == nil {
			t.Errorf("Open(%s) succeeds", path)
			continue
		}
		for _, want := range wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("Open(%s): %q does not say %q", path, err, want)
			}
		}
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(done, root); !errors.Is(err, context.Canceled) {
		t.Errorf("Open with a context that was done: %v", err)
	}
}

// A directory that is removed under a store is an error, and never a vault without
// objects.
func TestDirectoryRemoved(t *testing.T) {
	s := open(t, t.TempDir())
	create(t, s, "a/b", "b")
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	_, createErr := s.Create(t.Context(), "a/c", strings.NewReader("c"))
	_, _, openErr := s.Open(t.Context(), "a/b", 0, -1)
	var listErr error
	for _, listErr = range s.List(t.Context(), "", "") {
	}
	for call, err := range map[string]error{"Create": createErr, "Open": openErr, "List": listErr, "Delete": s.Delete(t.Context(), "a/b")} {
		if err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "removed") {
			t.Errorf("%s: %v, want an error that the directory was removed", call, err)
		}
	}
}

// Whatever moment a writer dies at, it leaves one of these states: none of them shows,
// and none is in the way.
func TestLeftByTheDead(t *testing.T) {
	s := open(t, t.TempDir())
	whole := create(t, s, "whole/object", "whole")
	for name, content := range map[string]string{"new-empty": "", "new-half": "ha", "new-placed": "whole"} {
		if err := os.WriteFile(filepath.Join(s.dir, tmp, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Placed, and not removed yet.
	if err := os.Remove(filepath.Join(s.dir, tmp, "new-placed")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(s.dir, "whole/object"), filepath.Join(s.dir, tmp, "new-placed")); err != nil {
		t.Fatal(err)
	}
	// Folders made, nothing placed in them.
	if err := os.MkdirAll(filepath.Join(s.dir, "to be an object"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "folder/in/folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	again := open(t, s.dir)
	if got := list(t, again); !slices.Equal(got, []string{"whole/object"}) {
		t.Errorf("listed are %q", got)
	}
	create(t, again, "to be an object", "is one")
	create(t, again, "folder/in/folder/object", "new")
	if _, err := again.Create(t.Context(), "whole/object", strings.NewReader("")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create of what was placed: %v", err)
	}
	if err := again.removeStale(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if left := again.files(t); len(left) > 0 {
		t.Errorf("removeStale left %q", left)
	}
	if now, err := object.Stat(t.Context(), again, "whole/object"); err != nil || now.Checksum != whole.Checksum {
		t.Errorf("after its other name was removed, the object is %+v, %v", now, err)
	}
}

// Opening removes temporary files that are old and in no process's hand, and no others.
func TestRemoveStale(t *testing.T) {
	s := open(t, t.TempDir())
	old := time.Now().Add(-2 * staleAge)
	age := func(name string) {
		t.Helper()
		if err := os.Chtimes(filepath.Join(s.dir, tmp, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	// A writer that has waited for its source for hours.
	source, feed := io.Pipe()
	created := make(chan error)
	go func() {
		_, err := s.Create(t.Context(), "slow", source)
		created <- err
	}()
	if _, err := feed.Write([]byte("first ")); err != nil {
		t.Fatal(err)
	}
	inUse := s.files(t)
	if len(inUse) != 1 {
		t.Fatalf("a writer has the files %q", inUse)
	}
	age(inUse[0])
	for _, name := range []string{"old", "fresh"} {
		if err := os.WriteFile(filepath.Join(s.dir, tmp, name), []byte("left"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	age("old")
	open(t, s.dir)
	if got, want := s.files(t), []string{"fresh", inUse[0]}; !slices.Equal(got, want) {
		t.Errorf("left are %q, want %q", got, want)
	}
	if _, err := feed.Write([]byte("last")); err != nil {
		t.Fatal(err)
	}
	feed.Close()
	if err := <-created; err != nil {
		t.Fatal(err)
	}
	if got, err := object.ReadAll(t.Context(), s, "slow", 100); err != nil || string(got) != "first last" {
		t.Errorf("the slow writer's object: %q, %v", got, err)
	}
}

// A writer whose temporary file is taken from it fails, and does not take that for
// something else.
func TestTemporaryRemoved(t *testing.T) {
	s := open(t, t.TempDir())
	for _, linkless := range []bool{false, true} {
		s.linkless = linkless
		r, w := io.Pipe()
		go func() {
			fmt.Fprint(w, "begun")
			for _, name := range s.files(t) {
				if err := os.Remove(filepath.Join(s.dir, tmp, name)); err != nil {
					t.Error(err)
				}
			}
			w.Close()
		}()
		_, err := s.Create(t.Context(), "a/b", r)
		if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
			t.Errorf("Create: %v", err)
		}
		if got := list(t, s); len(got) > 0 {
			t.Errorf("listed are %q", got)
		}
	}
}

// A repeated link whose first answer was lost is no competitor.
func TestOwnLinkAnsweredTaken(t *testing.T) {
	s := open(t, t.TempDir())
	file, err := s.newTemporary()
	if err != nil {
		t.Fatal(err)
	}
	defer file.remove()
	for range 2 {
		if err := s.place(t.Context(), file, "a/b"); err != nil {
			t.Errorf("place: %v", err)
		}
	}
	other, err := s.newTemporary()
	if err != nil {
		t.Fatal(err)
	}
	defer other.remove()
	if err := s.place(t.Context(), other, "a/b"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("place of another file: %v", err)
	}
}

// What a store did not put there is told by a listing that comes to it, and is neither
// read nor waited for.
func TestForeign(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"link":        func(path string) error { return os.Symlink("/etc/hostname", path) },
		"folder link": func(path string) error { return os.Symlink("/etc", path) },
		"pipe":        func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			create(t, s, "a", "a")
			create(t, s, "z/z", "z")
			if err := make(filepath.Join(s.dir, "m")); err != nil {
				t.Fatal(err)
			}
			wantForeign(t, s, "m")
			if _, _, err := s.Open(t.Context(), "m", 0, -1); err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Open: %v", err)
			}
			for _, name := range []string{"m", "m/x"} {
				if _, err := s.Create(t.Context(), name, strings.NewReader("")); err == nil || errors.Is(err, fs.ErrExist) {
					t.Errorf("Create(%s): %v", name, err)
				}
			}
		})
	}
	for _, file := range []string{"%", "%zz", "%41", "%2F", "a%+", "new\nline", "not\xffutf-8", "%25%+"} {
		t.Run(fmt.Sprintf("%q", file), func(t *testing.T) {
			s := open(t, t.TempDir())
			create(t, s, "a", "a")
			create(t, s, "z/z", "z")
			if err := os.WriteFile(filepath.Join(s.dir, file), nil, 0o600); err != nil {
				t.Skip(err)
			}
			wantForeign(t, s, file)
		})
	}
}

func wantForeign(t *testing.T, s *Store, file string) {
	t.Helper()
	var err error
	for _, err = range s.List(t.Context(), "", "") {
	}
	if quoted := fmt.Sprintf("%q", file); err == nil || !strings.Contains(err.Error(), quoted) && !strings.Contains(err.Error(), file) {
		t.Errorf("List: %v, want an error about %q", err, file)
	}
	for info, err := range s.List(t.Context(), "z/", "") {
		if err != nil || info.Name != "z/z" {
			t.Errorf("a listing that does not come to it: %+v, %v", info, err)
		}
	}
}

// A directory is one of folded names from its first use on such a file system, wherever
// it is copied; one with other names is refused there.
func TestFoldedNames(t *testing.T) {
	folding := func(*os.File, string) bool { return true }
	s := &Store{dir: t.TempDir()}
	for range 2 {
		if err := s.open(t.Context(), folding); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Create(t.Context(), "Orders/é", strings.NewReader("x")); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
	}
	elsewhere := open(t, s.dir)
	if got := list(t, elsewhere); !slices.Equal(got, []string{"Orders/é"}) {
		t.Errorf("where names are not folded, listed are %q", got)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "%4frders/%c3%a9")); err != nil {
		t.Error(err)
	}
	// Copied without the marker.
	if err := os.Remove(filepath.Join(s.dir, folded)); err != nil {
		t.Fatal(err)
	}
	wantForeign(t, open(t, s.dir), "%4frders")

	plain := open(t, t.TempDir())
	create(t, plain, "Orders/é", "x")
	if err := (&Store{dir: plain.dir}).open(t.Context(), folding); err == nil || !strings.Contains(err.Error(), "differ in case") {
		t.Errorf("open of other names where they are folded: %v", err)
	}
}

// Several stores on one directory are as one, also when one removes folders that another
// holds open.
func TestTwoStores(t *testing.T) {
	first := open(t, t.TempDir())
	stores := []*Store{first, open(t, first.dir), open(t, first.dir)}
	var all sync.WaitGroup
	for i, s := range stores {
		all.Go(func() {
			for round := range 80 {
				name := fmt.Sprintf("shared/%d/folder/%d", round%2, i)
				if _, err := s.Create(t.Context(), name, strings.NewReader(name)); err != nil {
					t.Errorf("Create: %v", err)
				}
				if got, err := object.ReadAll(t.Context(), stores[(i+1)%len(stores)], name, 100); err != nil || string(got) != name {
					t.Errorf("ReadAll: %q, %v", got, err)
				}
				if err := stores[round%len(stores)].Delete(t.Context(), name); err != nil {
					t.Errorf("Delete: %v", err)
				}
			}
		})
	}
	all.Wait()
	if got := list(t, first); len(got) > 0 {
		t.Errorf("left are %q", got)
	}
	if left := first.files(t); len(left) > 0 {
		t.Errorf("temporary files left: %q", left)
	}
}

// Of two writers of one name one wins, also with a body of several writes.
func TestTwoWriters(t *testing.T) {
	first := open(t, t.TempDir())
	objecttest.TwoWriters(t, [2]object.Store{first, open(t, first.dir)}, 300_000)
	if left := first.files(t); len(left) > 0 {
		t.Errorf("temporary files left: %q", left)
	}
}

// Streaming takes no memory to speak of.
func TestMemory(t *testing.T) {
	objecttest.Memory(t, open(t, t.TempDir()), 16<<20)
}

// The number of open files does not grow with the number of folders used.
func TestManyFolders(t *testing.T) {
	s := open(t, t.TempDir())
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			for i := range 2 * mostFolders {
				if _, err := s.Create(t.Context(), fmt.Sprintf("folders/%d/%d", i, w), strings.NewReader("x")); err != nil {
					t.Errorf("Create: %v", err)
				}
			}
		})
	}
	all.Wait()
	if len(s.folders.open) > mostFolders {
		t.Errorf("%d folders are held open, at most %d should be", len(s.folders.open), mostFolders)
	}
	held, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	in := 0
	for _, fd := range held {
		if target, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(target, s.dir) {
			in++
		}
	}
	if in == 0 || in > mostFolders+2 {
		t.Errorf("%d files are open in the directory, want 1 to %d", in, mostFolders+2)
	}
	if got := list(t, s); len(got) != 8*mostFolders {
		t.Errorf("%d objects listed, want %d", len(got), 8*mostFolders)
	}
}

// roles are what the processes do that tests start.
var roles = map[string]func() int{
	"create until killed": createUntilKilled,
	"fill":                fill,
	"read only":           readOnly,
}

// command returns a command that plays a role, with words for it.
func command(t *testing.T, role string, words ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe, words...)
	c.Env = append(os.Environ(), "OBJECT_DIR_TEST_ROLE="+role)
	return c
}

// sayf reports from a role to the test that started it.
func sayf(format string, args ...any) int {
	fmt.Printf(format+"\n", args...)
	return 1
}

// readOnly looks at a directory that its user may not write to, as the reader of a vault
// may.
func readOnly() int {
	s, err := Open(context.Background(), os.Args[1])
	if err != nil {
		return sayf("Open: %v", err)
	}
	content, err := object.ReadAll(context.Background(), s, "a/b", 100)
	if err != nil {
		return sayf("ReadAll: %v", err)
	}
	for info, err := range s.List(context.Background(), "", "") {
		if err != nil || info.Name != "a/b" {
			return sayf("List: %s, %v", info.Name, err)
		}
	}
	_, err = s.Create(context.Background(), "c", bytes.NewReader(nil))
	sayf("read %q; %v; %v", content, err, s.Delete(context.Background(), "a/b"))
	return 0
}

// A vault can be read by who may not write to it, and writing says why it can't.
func TestReadOnly(t *testing.T) {
	root, err := os.MkdirTemp("", "object-dir-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	s := open(t, root)
	create(t, s, "a/b", "content")
	c := command(t, "read only", root)
	modes := map[string]fs.FileMode{"": 0o555, "a": 0o555, "a/b": 0o444, tmp: 0o555}
	for path, mode := range modes {
		if err := os.Chmod(filepath.Join(root, path), mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for path := range modes {
			os.Chmod(filepath.Join(root, path), 0o700)
		}
	})
	if os.Geteuid() == 0 {
		// Nothing is forbidden to root: be nobody, with a copy of the test where nobody
		// may reach it.
		exe := filepath.Join(root, "..", filepath.Base(root)+".test")
		t.Cleanup(func() { os.Remove(exe) })
		binary, err := os.ReadFile(c.Path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(exe, binary, 0o755); err != nil {
			t.Fatal(err)
		}
		c.Path = exe
		c.Dir = "/"
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{`read "content"`, "create c in " + root, "reading only", "permission denied", "must be writable", "delete a/b in " + root} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q does not say %q", out, want)
		}
	}
}
