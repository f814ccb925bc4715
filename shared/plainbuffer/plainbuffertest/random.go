// Package plainbuffertest makes rows for tests and benchmarks: random ones that look for
// trouble, and ones of the shapes that real tables have.
package plainbuffertest

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// Rand returns a source of random numbers whose seed is new in each run and stands in the
// test's log.
func Rand(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// Types are the types that an attribute's value may have.
var Types = []plainbuffer.Type{
	plainbuffer.Integer, plainbuffer.Double, plainbuffer.Boolean, plainbuffer.String, plainbuffer.Blob,
}

// Data is a random value's payload: the extremes of its type often, else anything;
// strings and blobs are at most 60 bytes.
func Data(rng *rand.Rand, t plainbuffer.Type) []byte {
	switch t {
	case plainbuffer.Integer:
		v := int64(rng.Uint64())
		switch rng.IntN(4) {
		case 0:
			v = math.MinInt64
		case 1:
			v = math.MaxInt64
		case 2:
			v = rng.Int64N(100)
		}
		return binary.LittleEndian.AppendUint64(nil, uint64(v))
	case plainbuffer.Double:
		bits := rng.Uint64()
		if n := rng.IntN(7); n < 6 {
			bits = math.Float64bits([]float64{0, math.Copysign(0, -1), 1.5, math.MaxFloat64, math.SmallestNonzeroFloat64, math.Inf(-1)}[n])
		}
		return binary.LittleEndian.AppendUint64(nil, bits)
	case plainbuffer.Boolean:
		return []byte{byte(rng.IntN(2))}
	case plainbuffer.String, plainbuffer.Blob:
		b := make([]byte, rng.IntN(60))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	return nil
}

// Cell is a random cell of an attribute, as the service sends it.
func Cell(rng *rand.Rand, name string, t plainbuffer.Type, timestamp int64) plainbuffer.Cell {
	return plainbuffer.Cell{Name: []byte(name), HasValue: true, Type: t, Data: Data(rng, t), HasTimestamp: true, Timestamp: timestamp}
}

// Key is a random key of one to four columns.
func Key(rng *rand.Rand) []plainbuffer.Cell {
	types := []plainbuffer.Type{plainbuffer.Integer, plainbuffer.String, plainbuffer.Blob}
	var key []plainbuffer.Cell
	for i := range 1 + rng.IntN(4) {
		t := types[rng.IntN(len(types))]
		key = append(key, plainbuffer.Cell{Name: fmt.Appendf(nil, "key%d", i), HasValue: true, Type: t, Data: Data(rng, t)})
	}
	return key
}

// Row is a random row with a random key, and up to ten columns of some versions in the
// order in which the service sends them.
func Row(rng *rand.Rand) plainbuffer.Row {
	row := plainbuffer.Row{Key: Key(rng)}
	for c := range rng.IntN(11) {
		t, at := Types[rng.IntN(len(Types))], rng.Int64N(1<<41)
		for range 1 + rng.IntN(3) {
			row.Cells = append(row.Cells, Cell(rng, fmt.Sprintf("column%02d\xff", c), t, at))
			if at -= 1 + rng.Int64N(1000); at < 0 {
				break
			}
		}
	}
	return row
}

// Append builds a row from the cells that row has.
func Append(w *plainbuffer.Builder, row *plainbuffer.Row) {
	w.Begin()
	for i := range row.Key {
		w.Cell(&row.Key[i])
	}
	if len(row.Cells) > 0 {
		w.Attributes()
	}
	for i := range row.Cells {
		w.Cell(&row.Cells[i])
	}
	if row.HasExtension {
		w.EndRecord(row.Delete, row.Extension)
	} else {
		w.End(row.Delete)
	}
}
