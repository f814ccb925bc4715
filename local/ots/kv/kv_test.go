package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/tablevault/tablevault/local/ots/kv"
)

// stores runs a test with each kind of store.
func stores(t *testing.T, fn func(t *testing.T, s kv.Store)) {
	t.Helper()
	for name, open := range map[string]func(t *testing.T) (kv.Store, error){
		"memory": func(*testing.T) (kv.Store, error) { return kv.Memory(), nil },
		"file":   func(t *testing.T) (kv.Store, error) { return kv.Open(t.TempDir()) },
	} {
		t.Run(name, func(t *testing.T) {
			s, err := open(t)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
			fn(t, s)
		})
	}
}

// TestAgainstMap makes random writes of keys near each other and values of all sizes, and
// compares every way of reading with a sorted map.
func TestAgainstMap(t *testing.T) {
	stores(t, func(t *testing.T, s kv.Store) {
		seed := uint64(time.Now().UnixNano())
		t.Logf("seed %d", seed)
		rng := rand.New(rand.NewPCG(seed, 1))
		model := map[string][]byte{}
		value := func() []byte {
			n := rng.IntN(60)
			switch rng.IntN(50) {
			case 0:
				n = rng.IntN(100_000)
			case 1, 2, 3:
				n = rng.IntN(5_000)
			}
			v := make([]byte, n)
			for i := range v {
				v[i] = byte(rng.Uint32())
			}
			return v
		}
		next := 0
		for round := range 60 {
			err := s.Update("space", func(w kv.Writer) error {
				for range 100 {
					key := fmt.Appendf(nil, "%06d", rng.IntN(3000))
					switch rng.IntN(8) {
					case 0, 1:
						delete(model, string(key))
						w.Delete(key)
					case 2:
						// Keys that arrive in order.
						next++
						key = fmt.Appendf(nil, "x%06d", next)
						fallthrough
					default:
						v := value()
						model[string(key)] = v
						w.Put(key, v)
					}
					if got, want := w.Get(key), model[string(key)]; !bytes.Equal(got, want) || (got == nil) != (want == nil) {
						return fmt.Errorf("Get(%s) in the update = %d bytes, want %d", key, len(got), len(want))
					}
				}
				if round == 40 {
					// A long run goes, so that leaves and branches do.
					for i := range 2500 {
						key := fmt.Appendf(nil, "%06d", i)
						delete(model, string(key))
						w.Delete(key)
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			compare(t, s, model, rng)
		}
		if len(model) == 0 {
			t.Fatal("nothing was compared")
		}
	})
}

func compare(t *testing.T, s kv.Store, model map[string][]byte, rng *rand.Rand) {
	t.Helper()
	keys := slices.Sorted(maps.Keys(model))
	var from []byte
	if rng.IntN(4) > 0 {
		from = fmt.Appendf(nil, "%06d", rng.IntN(3000))
	}
	at := 0
	if from != nil {
		at, _ = slices.BinarySearch(keys, string(from))
	}
	limit := rng.IntN(len(keys) + 1)
	err := s.View("space", func(r kv.Reader) error {
		for i, key := range keys {
			if i%7 == 0 && !bytes.Equal(r.Get([]byte(key)), model[key]) {
				return fmt.Errorf("Get(%s) differs", key)
			}
		}
		want := keys[at:]
		want = want[:min(limit+1, len(want))]
		var got []string
		r.Ascend(from, func(k, v []byte) bool {
			if !bytes.Equal(v, model[string(k)]) {
				got = append(got, "wrong value")
			}
			got = append(got, string(k))
			return len(got) <= limit
		})
		if !slices.Equal(got, want) {
			return fmt.Errorf("Ascend(%q, %d) = %d keys, want %d", from, limit, len(got), len(want))
		}
		want = slices.Clone(keys)
		if from != nil {
			want = slices.Clone(keys[:at])
		}
		slices.Reverse(want)
		want = want[:min(limit+1, len(want))]
		got = got[:0]
		r.Descend(from, func(k, v []byte) bool {
			if !bytes.Equal(v, model[string(k)]) {
				got = append(got, "wrong value")
			}
			got = append(got, string(k))
			return len(got) <= limit
		})
		if !slices.Equal(got, want) {
			return fmt.Errorf("Descend(%q, %d) = %d keys, want %d", from, limit, len(got), len(want))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSpacesAreApart(t *testing.T) {
	stores(t, func(t *testing.T, s kv.Store) {
		put := func(space string) {
			if err := s.Update(space, func(w kv.Writer) error { w.Put([]byte("k"), []byte(space)); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		get := func(space string) (v string) {
			if err := s.View(space, func(r kv.Reader) error { v = string(r.Get([]byte("k"))); return nil }); err != nil {
				t.Fatal(err)
			}
			return v
		}
		put("a")
		put("b")
		if err := errors.Join(s.Drop("a"), s.Drop("never was")); err != nil {
			t.Fatal(err)
		}
		if a, b := get("a"), get("b"); a != "" || b != "b" {
			t.Errorf("after the drop of a: a holds %q, b holds %q", a, b)
		}
		put("a")
		if get("a") != "a" {
			t.Error("a dropped space cannot be written again")
		}
	})
}

// TestUpdatesAreApart proves that updates of one space, from many writers, follow one
// another, and that an error or panic in one is that one's alone.
func TestUpdatesAreApart(t *testing.T) {
	stores(t, func(t *testing.T, s kv.Store) {
		const writers, rounds = 8, 40
		wrong := errors.New("wrong")
		var wg sync.WaitGroup
		for n := range writers {
			wg.Go(func() {
				for i := range rounds {
					err := s.Update("space", func(w kv.Writer) error {
						if n == 0 && i%10 == 0 {
							return wrong
						}
						v := slices.Clone(w.Get([]byte("sum")))
						if len(v) == 0 {
							v = []byte{0, 0}
						}
						if v[1]++; v[1] == 0 {
							v[0]++
						}
						w.Put([]byte("sum"), v)
						return nil
					})
					if n == 0 && i%10 == 0 && errors.Is(err, wrong) {
						continue
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		err := s.View("space", func(r kv.Reader) error {
			v := r.Get([]byte("sum"))
			if got, want := int(v[0])<<8|int(v[1]), writers*rounds-rounds/10; got != want {
				return fmt.Errorf("%d updates took effect, want %d", got, want)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestOpenAgain(t *testing.T) {
	t.Parallel() // it waits for a lock
	dir := t.TempDir()
	s, err := kv.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Update("space", func(w kv.Writer) error { w.Put([]byte("k"), []byte("v")); return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Open(dir); err == nil {
		t.Fatal("a folder was opened twice")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = kv.Open(dir); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.View("space", func(r kv.Reader) error {
		if got := string(r.Get([]byte("k"))); got != "v" {
			return fmt.Errorf("k holds %q after opening again", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestOpenOtherPages opens a file whose pages have another size than those of new files.
func TestOpenOtherPages(t *testing.T) {
	dir := t.TempDir()
	db, err := bbolt.Open(filepath.Join(dir, "tablestore.db"), 0o600, &bbolt.Options{PageSize: 4 << 10})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("space"))
		if err != nil {
			return err
		}
		return b.Put([]byte("k"), []byte("old"))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	s, err := kv.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var got []byte
	err = s.Update("space", func(w kv.Writer) error {
		got = bytes.Clone(w.Get([]byte("k")))
		w.Put([]byte("long"), make([]byte, 100_000))
		return nil
	})
	if err != nil || string(got) != "old" {
		t.Fatalf("k holds %q, %v", got, err)
	}
	err = s.View("space", func(r kv.Reader) error {
		got = bytes.Clone(r.Get([]byte("long")))
		return nil
	})
	if err != nil || len(got) != 100_000 {
		t.Fatalf("long holds %d bytes, %v", len(got), err)
	}
}

func BenchmarkPut(b *testing.B) {
	for name, open := range map[string]func(b *testing.B) (kv.Store, error){
		"memory": func(*testing.B) (kv.Store, error) { return kv.Memory(), nil },
		"file":   func(b *testing.B) (kv.Store, error) { return kv.Open(b.TempDir()) },
	} {
		for _, order := range []string{"sorted", "random"} {
			b.Run(name+"/"+order, func(b *testing.B) {
				s, err := open(b)
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				rng := rand.New(rand.NewPCG(1, 2))
				value := make([]byte, 440)
				const batch = 200
				b.SetBytes(batch * int64(len(value)))
				n := uint64(0)
				for b.Loop() {
					err := s.Update("space", func(w kv.Writer) error {
						for range batch {
							n++
							key := n
							if order == "random" {
								key = rng.Uint64()
							}
							w.Put(fmt.Appendf(nil, "%020d", key), value)
						}
						return nil
					})
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
