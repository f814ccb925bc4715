package engine

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"testing"

	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// FuzzKeyOrder proves that stored keys are ordered as their values are, and that a stored
// key can be read back.
func FuzzKeyOrder(f *testing.F) {
	f.Add([]byte("a"), int64(1), []byte("a\x00"), int64(-1))
	f.Add([]byte{}, int64(0), []byte{0}, int64(0))
	f.Add([]byte{0, 0xFF}, int64(-1<<63), []byte{0, 0}, int64(1<<63-1))
	d := &Definition{Prefix: []byte{prefixRow}, Key: []KeyColumn{{Name: "a", Type: plainbuffer.Blob}, {Name: "b", Type: plainbuffer.Integer}}}
	makeKey := func(b []byte, n int64) []plainbuffer.Cell {
		return []plainbuffer.Cell{
			{Name: []byte("a"), Type: plainbuffer.Blob, Data: b, HasValue: true},
			{Name: []byte("b"), Type: plainbuffer.Integer, Data: binary.LittleEndian.AppendUint64(nil, uint64(n)), HasValue: true},
		}
	}
	f.Fuzz(func(t *testing.T, a []byte, n int64, b []byte, m int64) {
		x, y := makeKey(a, n), makeKey(b, m)
		stored := appendKey(nil, x)
		want := cmp.Or(bytes.Compare(a, b), cmp.Compare(n, m))
		if got := bytes.Compare(stored, appendKey(nil, y)); got != want {
			t.Errorf("(%x, %d) and (%x, %d) are stored in order %d, want %d", a, n, b, m, got, want)
		}
		for _, bound := range []plainbuffer.Type{plainbuffer.InfMin, plainbuffer.InfMax} {
			edge := appendKey(nil, []plainbuffer.Cell{x[0], {Type: bound, HasValue: true}})
			if got := bytes.Compare(stored, edge); (bound == plainbuffer.InfMin) != (got > 0) {
				t.Errorf("(%x, %d) and its bound %s are in order %d", a, n, bound, got)
			}
		}
		back := d.decodeSplit(append([]byte{prefixRow}, stored...))
		if len(back) != 2 || !bytes.Equal(back[0].Data, a) || back[1].Int() != n {
			t.Errorf("(%x, %d) is read back as %v", a, n, back)
		}
	})
}

// TestWindow holds the edges of the timestamps that are accepted.
func TestWindow(t *testing.T) {
	const now = 1_700_000_000_123
	for _, test := range []struct {
		name      string
		o         Options
		low, high int64
	}{
		{"a day", Options{TTL: -1, Deviation: 86400}, now - 86_400_000, now + 86_400_000},
		{"nothing", Options{TTL: -1, Deviation: 0}, now, now},
		{"a TTL that is shorter", Options{TTL: 10, Deviation: 86400}, now - 10_000, now + 86_400_000},
		{"a TTL that is longer", Options{TTL: 100_000, Deviation: 86400}, now - 86_400_000, now + 86_400_000},
		{"the greatest", Options{TTL: -1, Deviation: maxDeviation}, now - maxDeviation*1000, now + maxDeviation*1000},
	} {
		if low, high := test.o.window(now, false); low != test.low || high != test.high {
			t.Errorf("%s: [%d, %d), want [%d, %d)", test.name, low, high, test.low, test.high)
		}
	}
}
