//go:build linux || darwin

package dir

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/objecttest"
)

// namedAfterSize returns a name from which the size, and so the content, of its object
// follows.
func namedAfterSize(folder, number, size int) string {
	return fmt.Sprintf("f%d/g%d/%06d-%d", folder, number%3, number, size)
}

func wantNamedContent(t *testing.T, s *Store, name string) {
	t.Helper()
	size := 0
	if _, err := fmt.Sscanf(name[strings.LastIndexByte(name, '-')+1:], "%d", &size); err != nil {
		t.Fatalf("listed is %s: %v", name, err)
	}
	got, err := object.ReadAll(t.Context(), s, name, 1<<20)
	if err != nil || !bytes.Equal(got, objecttest.Content(name, size)) {
		t.Fatalf("%s is not whole: %d bytes, %v", name, len(got), err)
	}
}

// createUntilKilled creates objects with several goroutines, deletes some, and prints the
// name of each that Create said is there to stay.
func createUntilKilled() int {
	s, err := Open(context.Background(), os.Args[1])
	if err != nil {
		return sayf("Open: %v", err)
	}
	failed := make(chan error)
	for w := range 4 {
		go func() {
			rnd := rand.New(rand.NewPCG(uint64(os.Getpid()), uint64(w)))
			for i := 0; ; i++ {
				size := rnd.IntN(400_000) >> rnd.IntN(16)
				name := namedAfterSize(os.Getpid()%4, i*4+w, size)
				_, err := s.Create(context.Background(), name, bytes.NewReader(objecttest.Content(name, size)))
				switch {
				case errors.Is(err, fs.ErrExist):
				case err != nil:
					failed <- err
				case i%5 == 4:
					if err := s.Delete(context.Background(), name); err != nil {
						failed <- err
					}
				default:
					os.Stdout.WriteString(name + "\n") // in one write, which is not cut
				}
			}
		}()
	}
	return sayf("error: %v", <-failed)
}

// A process that creates is killed at random moments, twenty-five times, each time on
// what the last one left. Every object listed is whole, each whose Create returned is
// listed, and creating goes on.
func TestKill(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	kills, leftTemporary := 0, 0
	kept := map[string]bool{}
	for range 25 {
		c := command(t, "create until killed", root)
		var out bytes.Buffer
		c.Stdout, c.Stderr = &out, &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		// Past the start of the process, so that most kills come while it creates.
		for before := len(s.files(t)); len(s.files(t)) == before; {
			time.Sleep(time.Millisecond)
			if c.Process.Signal(syscall.Signal(0)) != nil {
				break
			}
		}
		time.Sleep(rand.N(40 * time.Millisecond))
		c.Process.Kill()
		if err := c.Wait(); err == nil || c.ProcessState.ExitCode() != -1 {
			t.Fatalf("it ended by itself: %v: %s", err, &out)
		}
		kills++
		for scan := bufio.NewScanner(&out); scan.Scan(); {
			kept[scan.Text()] = true
		}
		leftTemporary += len(s.files(t))

		next := open(t, root)
		listed := list(t, next)
		for _, name := range listed {
			wantNamedContent(t, next, name)
		}
		for name := range kept {
			if _, found := slices.BinarySearch(listed, name); !found {
				t.Fatalf("%s was created, and is not listed", name)
			}
		}
		if err := next.removeStale(t.Context(), time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if left := next.files(t); len(left) > 0 {
			t.Fatalf("removeStale left %q", left)
		}
	}
	t.Logf("%d kills, %d objects kept, %d temporary files left on the way", kills, len(kept), leftTemporary)
	if kills < 25 || len(kept) < 25 || leftTemporary == 0 {
		t.Errorf("%d kills, %d objects and %d temporary files prove little", kills, len(kept), leftTemporary)
	}
}

// fill creates objects in a directory where only a small one has room, and reports what
// happened.
func fill() int {
	root, way := os.Args[1], os.Args[2]
	switch way {
	case "tmpfs":
		if err := mountSmall(root); err != nil {
			return sayf("skip: mount: %v", err)
		}
	case "limit":
		// The limit comes as a signal and an errno; without the signal, as on a full
		// disk, as an errno.
		signal.Ignore(syscall.SIGXFSZ)
		limit := unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
			return sayf("skip: setrlimit: %v", err)
		}
	}
	s, err := Open(context.Background(), root)
	if err != nil {
		return sayf("Open: %v", err)
	}
	if _, err := s.Create(context.Background(), "small/before", strings.NewReader("fits")); err != nil {
		return sayf("Create: %v", err)
	}
	for range 3 {
		_, err = s.Create(context.Background(), "large/object", bytes.NewReader(make([]byte, 3<<20)))
		if err == nil || errors.Is(err, fs.ErrExist) {
			return sayf("Create of what does not fit: %v", err)
		}
	}
	if _, err := s.Create(context.Background(), "small/after", strings.NewReader("fits")); err != nil {
		return sayf("Create when there is room again: %v", err)
	}
	var left []string
	filepath.WalkDir(root, func(path string, _ fs.DirEntry, _ error) error {
		left = append(left, strings.TrimPrefix(path, root))
		return nil
	})
	fmt.Printf("%q\n%v\n", left, err)
	return 0
}

// A full disk is an error that names the object, the directory and the way out; it leaves
// nothing, and passes.
func TestDiskFull(t *testing.T) {
	ran := 0
	for way, want := range map[string]string{"limit": "file too large", "tmpfs": "no space left on device; free some space"} {
		t.Run(way, func(t *testing.T) {
			root := t.TempDir()
			c := command(t, "fill", root, way)
			if way == "tmpfs" {
				confine(t, c)
			}
			out, err := c.CombinedOutput()
			if way == "tmpfs" && (c.ProcessState == nil || strings.HasPrefix(string(out), "skip:")) {
				t.Skipf("no file system to be had: %v: %s", err, out)
			}
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			ran++
			for _, want := range []string{`["" "/%tmp" "/small" "/small/after" "/small/before"]`, "create large/object in " + root, want} {
				if !strings.Contains(string(out), want) {
					t.Errorf("%s does not say %q", out, want)
				}
			}
		})
	}
	if ran == 0 {
		t.Error("no disk was full")
	}
}
