package shard

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
)

// choices are what a fuzzer's bytes decide, one after the other; zeros after the last.
type choices struct{ b []byte }

func (c *choices) next() int {
	if len(c.b) == 0 {
		return 0
	}
	v := c.b[0]
	c.b = c.b[1:]
	return int(v)
}

// of is a number below n.
func (c *choices) of(n int) int {
	v := c.next()
	if n > 256 {
		v = v<<8 | c.next()
	}
	return v % n
}

// lengths are those of names and values at which something changes.
var lengths = []int{0, 1, 7, 8, 9, 60, 255, 256, 1023, 1024, maxName - 1, maxName, maxName + 1, 70_000, chunk - 1, chunk, chunk + 1, 2 * chunk}

// text is bytes of a length from lengths, the long ones seldom.
func (c *choices) text(most int) []byte {
	n := lengths[min(c.of(24), len(lengths)-1)]
	if n > maxName+1 && c.of(8) > 0 {
		n = c.of(20)
	}
	b := bytes.Repeat([]byte{byte("kn\x00\xff\x80"[c.of(5)])}, min(n, most))
	if len(b) > 0 {
		b[len(b)-1] ^= byte(c.next())
	}
	return b
}

// cell is a cell of whatever kind.
func (c *choices) cell(ordinary bool) plainbuffer.Cell {
	cell := plainbuffer.Cell{
		Name: fmt.Appendf(nil, "c%d", c.of(12)), HasValue: true, HasTimestamp: true, Type: types[c.of(len(types))],
		Timestamp: []int64{0, 1, math.MaxInt64, -1, 1_700_000_000_000, int64(c.next())}[c.of(6)],
	}
	if c.of(16) == 0 {
		cell.Name = c.text(1 << 20)
	}
	if c.of(4) == 0 {
		cell.Name = fmt.Appendf(nil, "column %d", c.of(1<<12))
	}
	switch cell.Type {
	case plainbuffer.Integer, plainbuffer.Double:
		bits := []uint64{0, 1, 1 << 63, math.MaxUint64, math.Float64bits(math.NaN()), 0x7ff0_0000_0000_0001, uint64(c.next())}[c.of(7)]
		cell.Data = appendBits(nil, bits)
	case plainbuffer.Boolean:
		cell.Data = []byte{byte(c.of(2))}
	default:
		cell.Data = c.text(2 << 20)
	}
	if ordinary || c.of(16) > 0 {
		return cell
	}
	switch c.of(5) {
	case 0:
		cell.HasTimestamp, cell.Timestamp = false, 0
	case 1:
		cell.Type, cell.Data = plainbuffer.Null, nil
	case 2:
		cell.HasValue, cell.Type, cell.Data, cell.Op = false, 0, nil, plainbuffer.DeleteOne
	case 3:
		cell.Op = plainbuffer.Increment
	case 4:
		cell.HasValue, cell.Type, cell.Data = false, 0, nil
	}
	return cell
}

func appendBits(b []byte, v uint64) []byte {
	for range 8 {
		b = append(b, byte(v))
		v >>= 8
	}
	return b
}

// cells are a row's, which take no more than so many bytes.
func (c *choices) cells(ordinary bool, most int) (cells []plainbuffer.Cell) {
	n := c.of(12)
	if c.of(40) == 0 {
		n = c.of(1000)
	}
	for range n {
		cell := c.cell(ordinary)
		if most -= len(cell.Name) + len(cell.Data) + 60; most < 0 {
			break
		}
		cells = append(cells, cell)
	}
	if ordinary || c.of(4) > 0 {
		slices.SortStableFunc(cells, func(a, b plainbuffer.Cell) int { return table.CompareCells(&a, &b) })
	}
	return cells
}

// A fuzzedRow is one as it was encoded, whole or in pieces.
type fuzzedRow struct {
	pieces [][]byte // one, of a whole row
	whole  bool     // as Tablestore sent it
	lane   int
}

// rows makes rows in the order of their keys, lane by lane.
func (c *choices) rows() (rows []fuzzedRow) {
	names := []plainbuffer.Name{plainbuffer.NewName([]byte("p")), plainbuffer.NewName([]byte("q")), plainbuffer.NewName([]byte("r"))}
	budget := 6 << 20
	for lane := range 1 + c.of(3) {
		var before table.Key
		for range c.of(20) {
			next := table.Key{table.String(string(c.text(maxName + 10))), table.Integer(int64(c.next())), table.Binary(c.text(maxName + 10))}
			if before != nil && next.Compare(before) <= 0 {
				next = before.Clone()
				switch c.of(3) {
				case 0:
					next[2] = table.Binary(append(next[2].Bytes, byte(c.next())))
				case 1:
					next[1].Int++
				case 2:
					next[0] = table.String(string(next[0].Bytes) + "\x00")
				}
				if next.Compare(before) <= 0 {
					break // the greatest integer has no next
				}
			}
			before = next
			build := func(cells []plainbuffer.Cell, tag, deleted bool) []byte {
				w := plainbuffer.Builder{}
				w.Begin()
				w.KeyBytes(&names[0], plainbuffer.String, next[0].Bytes)
				w.KeyInteger(&names[1], next[1].Int)
				w.KeyBytes(&names[2], plainbuffer.Blob, next[2].Bytes)
				if len(cells) > 0 || tag {
					w.Attributes()
				}
				for i := range cells {
					w.Cell(&cells[i])
				}
				w.End(deleted)
				budget -= len(w.Buf)
				return w.Buf
			}
			if budget < 0 {
				return rows
			}
			if c.of(4) > 0 {
				rows = append(rows, fuzzedRow{[][]byte{build(c.cells(false, min(budget, 3<<20)), c.of(30) == 0, c.of(30) == 0)}, true, lane})
				continue
			}
			cells := c.cells(true, min(budget, 3<<20))
			cells = slices.CompactFunc(cells, func(a, b plainbuffer.Cell) bool { return table.CompareCells(&a, &b) == 0 })
			row := fuzzedRow{lane: lane}
			for len(cells) > 0 {
				n := 1 + c.of(len(cells))
				row.pieces = append(row.pieces, build(cells[:n], false, false))
				cells = cells[n:]
			}
			if len(row.pieces) == 0 || c.of(4) == 0 {
				row.pieces = append(row.pieces, build(nil, c.of(2) == 0, false))
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// FuzzRows: whatever rows there are, whole and in pieces, the encoder takes them, a
// reader gives them back byte for byte, in the file's order and by the index, and counts
// and digests are those of the whole rows.
func FuzzRows(f *testing.F) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		b := make([]byte, 50<<(seed%6))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		f.Add(b)
	}
	// One encoder for all, so that whatever it keeps from one shard shows in the next.
	e := NewEncoder(Options{Schema: testSchema, Seed: testHeader.Seed})
	hasher := table.NewHasher(testHeader.Seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &choices{b}
		rows := c.rows()
		var out, ix bytes.Buffer
		w, err := NewWriter(&out, testHeader)
		if err != nil {
			t.Fatal(err)
		}
		whole := testSchema.Whole()
		var lanes []Lane
		var digest table.Digest
		want := map[int][]byte{}
		flush := func() {
			t.Helper()
			b, err := e.Flush()
			if err == nil && b != nil {
				err = w.Append(b)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, r := range rows {
			for r.lane >= len(lanes) {
				flush()
				e.Reset(len(lanes))
				lanes = append(lanes, Lane{From: whole.Start, Next: whole.End})
			}
			lanes[r.lane].Rows++
			var all plainbuffer.Row
			for p, raw := range r.pieces {
				var row plainbuffer.Row
				if n, err := plainbuffer.Scan(raw, &row); err != nil || n != len(raw) {
					t.Fatal(err)
				}
				all.Key, all.Cells = row.Key, append(all.Cells, row.Cells...)
				full := false
				if r.whole {
					full, err = e.Add(&row)
				} else {
					flush()
					full, err = e.AddPiece(&row, p == 0, p == len(r.pieces)-1)
				}
				if err != nil {
					t.Fatal(err)
				}
				want[r.lane] = append(want[r.lane], raw...)
				if full || c.of(16) == 0 {
					flush()
				}
			}
			if !r.whole {
				flush()
			}
			digest.Add(hasher.Row(&all))
		}
		flush()
		sum, err := w.Finish(lanes)
		if err != nil {
			t.Fatal(err)
		}
		if sum.Digest != digest || sum.Rows != int64(len(rows)) {
			t.Fatalf("%d rows with the digest %v, want %d with %v", sum.Rows, sum.Digest, len(rows), digest)
		}
		if err := w.WriteIndex(&ix); err != nil {
			t.Fatal(err)
		}
		got, read, err := read(out.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if !read.equal(&sum) || len(got) != len(want) {
			t.Fatalf("%+v are read in %d lanes, %+v were written in %d", read, len(got), sum, len(want))
		}
		h, entries, err := ReadIndex(&ix)
		if err != nil {
			t.Fatal(err)
		}
		blocks, err := NewBlockReader(h)
		if err != nil {
			t.Fatal(err)
		}
		indexed := map[int][]byte{}
		var block Rows
		for _, entry := range entries {
			if err := blocks.Read(bytes.NewReader(out.Bytes()[entry.Offset:]), entry, &block); err != nil {
				t.Fatal(err)
			}
			indexed[entry.Lane] = append(indexed[entry.Lane], block.Buf...)
		}
		for lane, rows := range want {
			if !bytes.Equal(got[lane], rows) || !bytes.Equal(indexed[lane], rows) {
				t.Fatalf("lane %d is not read as it was written", lane)
			}
		}
	})
}
