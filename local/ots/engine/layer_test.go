package engine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tablevault/tablevault/local/ots/kv"
)

// TestLayer makes random changes in a layer and compares it, read in both directions from
// any key, with a store that has the changes; and then the store below, into which the
// draft is written.
func TestLayer(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	compared := 0
	for range 200 {
		below, model := kv.Memory(), kv.Memory()
		key := func() []byte { return fmt.Appendf(nil, "k%02d", rng.IntN(30)) }
		update := func(s kv.Store, fn func(kv.Writer)) {
			if err := s.Update("s", func(w kv.Writer) error { fn(w); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		for range rng.IntN(20) {
			k, v := key(), []byte{byte(rng.Uint32())}
			update(below, func(w kv.Writer) { w.Put(k, v) })
			update(model, func(w kv.Writer) { w.Put(k, v) })
		}
		var d draft
		update(below, func(w kv.Writer) {
			l := layer{below: w, draft: &d}
			for range rng.IntN(25) {
				k, v := key(), []byte{byte(rng.Uint32())}[:rng.IntN(2)]
				if rng.IntN(3) == 0 {
					l.Delete(k)
					update(model, func(m kv.Writer) { m.Delete(k) })
				} else {
					l.Put(k, v)
					update(model, func(m kv.Writer) { m.Put(k, v) })
				}
			}
			update(model, func(m kv.Writer) {
				for range 20 {
					compared++
					compareReaders(t, rng, l, m)
				}
			})
			d.write(w)
			update(model, func(m kv.Writer) { compareReaders(t, rng, w, m) })
		})
		if t.Failed() {
			return
		}
	}
	if compared == 0 {
		t.Error("nothing was compared")
	}
}

// compareReaders reads both from a random key on, up to a random number of keys.
func compareReaders(t *testing.T, rng *rand.Rand, got, want kv.Reader) {
	t.Helper()
	from := fmt.Appendf(nil, "k%02d", rng.IntN(31))
	if rng.IntN(8) == 0 {
		from = nil
	}
	limit := rng.IntN(31)
	list := func(walk func([]byte, func(k, v []byte) bool)) (out []string) {
		walk(from, func(k, v []byte) bool {
			out = append(out, fmt.Sprintf("%s=%x", k, v))
			return len(out) < limit
		})
		return out
	}
	for name, pair := range map[string][2][]string{
		"ascend":  {list(got.Ascend), list(want.Ascend)},
		"descend": {list(got.Descend), list(want.Descend)},
	} {
		if !slices.Equal(pair[0], pair[1]) {
			t.Errorf("%s from %q, %d keys:\n%v\nwant\n%v", name, from, limit, pair[0], pair[1])
		}
	}
	if k := fmt.Appendf(nil, "k%02d", rng.IntN(30)); string(got.Get(k)) != string(want.Get(k)) || (got.Get(k) == nil) != (want.Get(k) == nil) {
		t.Errorf("get %s: %x, want %x", k, got.Get(k), want.Get(k))
	}
}
