package kv

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// smallRoom makes segments so small that a test fills many.
const smallRoom = 8 << 10

func open(t *testing.T, dir string) *file {
	t.Helper()
	f, err := openFile(dir, smallRoom)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// contents is all that a store has, by space and key.
func contents(f *file) map[string]string {
	all := map[string]string{}
	for space, tree := range f.spaces {
		(&view{file: f, tree: tree}).Ascend(nil, func(key, value []byte) bool {
			all[space+"/"+string(key)] = string(value)
			return true
		})
	}
	return all
}

func put(t *testing.T, f *file, space, key, value string) {
	t.Helper()
	if err := f.Update(space, func(w Writer) error { w.Put([]byte(key), []byte(value)); return nil }); err != nil {
		t.Fatal(err)
	}
}

// TestReopened makes random updates of some spaces through many segments, opens
// the folder again now and then, and compares all of it with a map. It sees that
// segments are freed, and that the count of what is in force is right.
func TestReopened(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	f := open(t, dir)
	model := map[string]string{}
	reopened := 0
	for round := range 1500 {
		space := fmt.Sprint("space", rng.IntN(3))
		switch rng.IntN(100) {
		case 0:
			if err := f.Drop(space); err != nil {
				t.Fatal(err)
			}
			maps.DeleteFunc(model, func(k, _ string) bool { return strings.HasPrefix(k, space+"/") })
		case 1, 2, 3:
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			f = open(t, dir)
			reopened++
		default:
			err := f.Update(space, func(w Writer) error {
				for range rng.IntN(10) {
					key := fmt.Sprintf("%04d", rng.IntN(200))
					if rng.IntN(4) == 0 {
						w.Delete([]byte(key))
						delete(model, space+"/"+key)
						continue
					}
					value := strings.Repeat(fmt.Sprint(round, " "), rng.IntN(40))
					if rng.IntN(200) == 0 {
						value = strings.Repeat("large", smallRoom/4)
					}
					w.Put([]byte(key), []byte(value))
					model[space+"/"+key] = value
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if round%10 != 0 {
			continue
		}
		if got := contents(f); !maps.Equal(got, model) {
			t.Fatalf("round %d: the store has %d entries, the model %d, or others", round, len(got), len(model))
		}
		live, want := 0, 0
		for _, s := range f.segments {
			live += s.live
		}
		for k, v := range model {
			_, key, _ := strings.Cut(k, "/")
			want += entryCost([]byte(key), len(v))
		}
		if live != want {
			t.Fatalf("round %d: %d bytes are in force, want %d", round, live, want)
		}
	}
	if f.first == 0 || reopened < 10 {
		t.Fatalf("%d segments were freed, %d times the store was opened again", f.first, reopened)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// copyFolder copies the files of a folder, one of them changed.
func copyFolder(t *testing.T, from, name string, change func([]byte) []byte) string {
	t.Helper()
	to := t.TempDir()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if e.Name() == name {
			b = change(b)
		}
		if err := os.WriteFile(filepath.Join(to, e.Name()), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// TestCutShort opens a log that ends after each of its bytes, and one that goes on
// with zeros. What was durable before the cut is there, each update whole or not
// at all, and more can be written.
func TestCutShort(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	var states []map[string]string
	var ends []int
	for i := range 6 {
		err := f.Update("space", func(w Writer) error {
			for k := range 3 {
				w.Put(fmt.Appendf(nil, "%d-%d", i, k), bytes.Repeat([]byte{byte('a' + i)}, 10*k))
			}
			w.Delete(fmt.Appendf(nil, "%d-0", i-1))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		states, ends = append(states, contents(f)), append(ends, f.active.size)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(segmentName(dir, 0))
	for cut := range ends[len(ends)-1] {
		for _, tail := range [][]byte{nil, make([]byte, 100)} {
			f := open(t, copyFolder(t, dir, name, func(b []byte) []byte { return append(b[:cut:cut], tail...) }))
			whole := 0
			for whole < len(ends) && ends[whole] <= cut {
				whole++
			}
			want := map[string]string{}
			if whole > 0 {
				want = maps.Clone(states[whole-1])
			}
			if got := contents(f); !maps.Equal(got, want) {
				t.Fatalf("cut at %d: %d entries, want %d", cut, len(got), len(want))
			}
			put(t, f, "space", "more", "value")
			want["space/more"] = "value"
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			f = open(t, f.dir)
			if got := contents(f); !maps.Equal(got, want) {
				t.Fatalf("cut at %d and written to: %d entries, want %d", cut, len(got), len(want))
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestDamaged opens a log of which a record that is not the last has a wrong byte,
// or that lacks one.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	for i := range 40 {
		put(t, f, "space", fmt.Sprint(i), strings.Repeat("x", 1000))
	}
	last := f.active.id
	if f.first != 0 || last < 3 || f.active.size < 2000 {
		t.Fatalf("segments %d to %d, which has %d bytes", f.first, last, f.active.size)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(dir string) error{
		"a wrong byte": func(dir string) error {
			name := segmentName(dir, 1)
			b, err := os.ReadFile(name)
			b[len(b)/2] ^= 1
			return errors.Join(err, os.WriteFile(name, b, 0o600))
		},
		"a wrong byte in the last segment": func(dir string) error {
			name := segmentName(dir, last)
			b, err := os.ReadFile(name)
			b[500] ^= 1
			return errors.Join(err, os.WriteFile(name, b, 0o600))
		},
		"a segment cut short": func(dir string) error { return os.Truncate(segmentName(dir, 1), 100) },
		"no segment":          func(dir string) error { return os.Remove(segmentName(dir, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			damaged := copyFolder(t, dir, "", nil)
			if err := change(damaged); err != nil {
				t.Fatal(err)
			}
			if _, err := openFile(damaged, smallRoom); !errors.Is(err, errDamaged) {
				t.Errorf("the store opens with %v", err)
			}
			if _, err := openFile(damaged, smallRoom); !errors.Is(err, errDamaged) {
				t.Errorf("the store opens the second time with %v", err)
			}
		})
	}
}

// FuzzSegment opens folders whose only segment has any bytes, and records whose
// payload does, with a checksum that agrees.
func FuzzSegment(f *testing.F) {
	var b []byte
	b = appendStep(b, stepSpace, []byte("space"))
	b, _ = appendPut(b, []byte("key"), []byte("value"))
	b = appendStep(b, stepDelete, []byte("key"))
	b = append(b, stepDrop)
	f.Add(b)
	f.Add([]byte{stepPut, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F})
	f.Add([]byte{stepPut, 1})
	f.Fuzz(func(t *testing.T, payload []byte) {
		end := 0
		err := steps(payload, func(s step) error {
			if s.at <= end || s.at+s.size > len(payload) {
				return fmt.Errorf("a value from %d to %d of %d behind %d", s.at, s.at+s.size, len(payload), end)
			}
			end = s.at + s.size
			return nil
		})
		if err == nil && end != len(payload) || err != nil && !errors.Is(err, errDamaged) {
			t.Fatalf("%d of %d bytes are steps: %v", end, len(payload), err)
		}
		dir := t.TempDir()
		s, err := createSegment(dir, 0, smallRoom+len(payload))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.write(append(make([]byte, recordHead), payload...), 3), s.end(), s.close()); err != nil {
			t.Fatal(err)
		}
		if opened, err := openFile(dir, smallRoom); err == nil {
			if err := opened.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(segmentName(dir, 0), payload, 0o600); err != nil {
			t.Fatal(err)
		}
		if opened, err := openFile(dir, smallRoom); err == nil {
			if err := opened.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestMovedNotFreed opens what a process leaves that dies after it wrote what is
// in force of a segment again, and before it removed the segment.
func TestMovedNotFreed(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	for i := range 200 {
		put(t, f, "space", fmt.Sprint(i%70), strings.Repeat(fmt.Sprint(i), 100))
		if i%9 == 0 {
			err := f.Update("space", func(w Writer) error { w.Delete(fmt.Append(nil, i%70)); return nil })
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	moved := 0
	for id, end := f.first, f.active.id; id < end; id++ {
		if s := f.segments[id]; s.live > 0 {
			moved += s.live
			if err := f.move(s); err != nil {
				t.Fatal(err)
			}
			if s.live != 0 {
				t.Fatalf("%d bytes are in force of a segment that was moved", s.live)
			}
		}
		left := open(t, copyFolder(t, dir, "", nil))
		if got, want := contents(left), contents(f); !maps.Equal(got, want) || len(got) == 0 {
			t.Fatalf("%d entries are left, want %d", len(got), len(want))
		}
		if err := left.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if moved == 0 {
		t.Fatal("nothing was moved")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRefusedBytes writes a record that the disk has no room for, and then one
// that it has.
func TestRefusedBytes(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	put(t, f, "space", "a", "before")
	// A file that can't be written to stands for a disk that is full.
	whole := f.active.file
	readOnly, err := os.Open(whole.Name())
	if err != nil {
		t.Fatal(err)
	}
	f.active.file = readOnly
	if err := f.Update("space", func(w Writer) error { w.Put([]byte("b"), []byte("lost")); return nil }); err == nil {
		t.Fatal("a record was written to a file that can't be written to")
	}
	f.active.file = whole
	if err := readOnly.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, f, "space", "c", "after")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f = open(t, dir)
	want := []string{"space/a", "space/c"}
	if got := slices.Sorted(maps.Keys(contents(f))); !slices.Equal(got, want) {
		t.Errorf("the store has %q, want %q", got, want)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
