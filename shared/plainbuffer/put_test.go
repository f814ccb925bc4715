package plainbuffer_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"testing"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/plainbuffer/plainbuffertest"
)

func validName(name []byte) bool { return len(name) > 0 && name[0] != '#' }

// summary is what a PutScanner has to find in a row, made out cell by cell; false if the
// row has another form.
func summary(row *plainbuffer.Row) (plainbuffer.Summary, bool) {
	s := plainbuffer.Summary{Oldest: math.MaxInt64, Newest: math.MinInt64}
	if row.Delete || row.HasExtension || len(row.Cells) == 0 {
		return s, false
	}
	for i := range row.Key {
		c := &row.Key[i]
		if !c.HasValue || c.HasTimestamp || c.Op != plainbuffer.NoOp {
			return s, false
		}
		switch c.Type {
		case plainbuffer.Integer, plainbuffer.String, plainbuffer.Blob:
		default:
			return s, false
		}
	}
	named := 0
	for i := range row.Cells {
		c := &row.Cells[i]
		if !validName(c.Name) || !c.HasValue || !c.HasTimestamp || c.Timestamp < 0 || c.Op != plainbuffer.NoOp {
			return s, false
		}
		for k := range row.Key {
			if bytes.Equal(row.Key[k].Name, c.Name) {
				return s, false
			}
		}
		switch c.Type {
		case plainbuffer.Integer, plainbuffer.String, plainbuffer.Blob, plainbuffer.Boolean:
		case plainbuffer.Double:
			if v := c.Double(); math.IsNaN(v) || math.IsInf(v, 0) {
				return s, false
			}
		default:
			return s, false
		}
		named++
		if i > 0 {
			switch previous := &row.Cells[i-1]; bytes.Compare(previous.Name, c.Name) {
			case 1:
				return s, false
			case 0:
				if previous.Timestamp <= c.Timestamp {
					return s, false
				}
			default:
				named = 1
			}
		}
		s.Cells++
		s.Data += len(c.Name) + len(c.Data)
		s.Versions = max(s.Versions, named)
		s.Longest = max(s.Longest, len(c.Data))
		s.Oldest, s.Newest = min(s.Oldest, c.Timestamp), max(s.Newest, c.Timestamp)
	}
	return s, true
}

// likeScanner fails the test if s says of a block anything else than a Scanner and
// summary do.
func likeScanner(t *testing.T, s *plainbuffer.PutScanner, block []byte) (took bool) {
	t.Helper()
	var row plainbuffer.Row
	var sum plainbuffer.Summary
	took = s.Scan(block, &row, &sum)
	list, err := rows(block)
	if err != nil || len(list) != 1 {
		if took {
			t.Fatalf("% x is taken; scanned it is %d rows, %v", block, len(list), err)
		}
		return false
	}
	want, right := summary(&list[0])
	if took != right {
		t.Fatalf("taken: %t of % x", took, block)
	}
	if !took {
		return false
	}
	// Longest is of strings and blobs, and numbers are up to eight bytes.
	if want.Longest <= 8 {
		sum.Longest, want.Longest = 0, 0
	}
	list[0].Cells = nil
	if len(row.Cells) > 0 || sum != want {
		t.Fatalf("%+v and %d cells, want %+v of % x", sum, len(row.Cells), want, block)
	}
	row.Cells = nil
	if !reflect.DeepEqual(row, list[0]) {
		t.Fatalf("row %+v, want %+v", row, list[0])
	}
	return true
}

// TestPutScanner reads the rows of every shape, as they stand, with each byte of some
// flipped, and cut short.
func TestPutScanner(t *testing.T) {
	for _, shape := range plainbuffertest.Shapes() {
		t.Run(shape.Name, func(t *testing.T) {
			s := plainbuffer.PutScanner{ValidName: validName}
			m := shape.Maker()
			count := 400
			if shape.Name == "wide" {
				count = 4
			}
			for i := range count {
				if i%100 == 0 {
					s.Reset()
				}
				w := plainbuffer.Builder{Buf: plainbuffer.AppendHeader(nil)}
				m.Append(&w)
				block := w.Buf
				if !likeScanner(t, &s, block) {
					t.Fatal("a row of the usual form is not taken")
				}
				if i != 2 {
					continue
				}
				step := len(block)/3000 + 1
				for at := 0; at < len(block); at += step {
					wrong := bytes.Clone(block)
					wrong[at] ^= 1 << (at % 8)
					if likeScanner(t, &s, wrong) {
						t.Fatalf("byte %d is flipped, and the row taken", at)
					}
					likeScanner(t, &s, block[:at])
					likeScanner(t, &s, block)
				}
				likeScanner(t, &s, append(bytes.Clone(block), 0))
			}
		})
	}
}

// TestPutScannerRandom reads random rows one after the other, few of which are of the
// usual form, and all whose cells are put in order.
func TestPutScannerRandom(t *testing.T) {
	rng := plainbuffertest.Rand(t)
	s := plainbuffer.PutScanner{ValidName: validName}
	took := 0
	names := []string{"a", "b", "ba", "c", "k0", "k1", "#"}
	types := []plainbuffer.Type{plainbuffer.Integer, plainbuffer.Double, plainbuffer.Boolean, plainbuffer.String, plainbuffer.Blob}
	for range 20_000 {
		var row plainbuffer.Row
		for k := range 1 + rng.IntN(2) {
			c := plainbuffertest.Cell(rng, fmt.Sprint("k", k), plainbuffer.String, 0)
			c.HasTimestamp, c.Timestamp = false, 0
			row.Key = append(row.Key, c)
		}
		for _, name := range names[:len(names)-rng.IntN(4)] {
			for v := range rng.IntN(3) {
				row.Cells = append(row.Cells, plainbuffertest.Cell(rng, name, types[rng.IntN(len(types))], int64(5-v-rng.IntN(20)/19)))
			}
		}
		if likeScanner(t, &s, build(row)) {
			took++
		}
		if rng.IntN(30) == 0 {
			s.Reset()
		}
	}
	if took < 1000 || took > 19_000 {
		t.Fatalf("%d rows are of the usual form", took)
	}
}

// TestPutScannerNames reads more names than are remembered: few rows are left to a
// Scanner for it.
func TestPutScannerNames(t *testing.T) {
	s := plainbuffer.PutScanner{ValidName: validName}
	took := 0
	for i := range 6000 {
		c := plainbuffer.Cell{HasValue: true, Type: plainbuffer.Integer, Data: make([]byte, 8)}
		key, cell := c, c
		key.Name, cell.Name, cell.HasTimestamp = []byte("k"), fmt.Appendf(nil, "c%05d", i), true
		var row plainbuffer.Row
		var sum plainbuffer.Summary
		if s.Scan(build(plainbuffer.Row{Key: []plainbuffer.Cell{key}, Cells: []plainbuffer.Cell{cell}}), &row, &sum) {
			took++
		}
	}
	if took < 5990 {
		t.Errorf("%d of 6000 rows are taken", took)
	}
}

// FuzzPutScanner: whatever the blocks, whichever came before, a PutScanner takes one if a
// Scanner does and its row is of the usual form.
func FuzzPutScanner(f *testing.F) {
	join := func(blocks ...[]byte) (all []byte) {
		for _, b := range blocks {
			all = append(binary.LittleEndian.AppendUint16(all, uint16(len(b))), b...)
		}
		return all
	}
	for _, shape := range plainbuffertest.Shapes() {
		var blocks [][]byte
		m := shape.Maker()
		for range 3 {
			w := plainbuffer.Builder{Buf: plainbuffer.AppendHeader(nil)}
			if m.Append(&w); len(w.Buf) < 1<<16 {
				blocks = append(blocks, w.Buf)
			}
		}
		f.Add(join(blocks...))
	}
	for _, block := range samples() {
		f.Add(join(block, block))
	}
	f.Fuzz(func(t *testing.T, all []byte) {
		s := plainbuffer.PutScanner{ValidName: validName}
		for len(all) >= 2 {
			n := min(int(binary.LittleEndian.Uint16(all)), len(all)-2)
			likeScanner(t, &s, all[2:2+n:2+n])
			all = all[2+n:]
		}
	})
}
