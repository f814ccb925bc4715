package engine

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// A record is how a row is stored: a header with what decides whether the row can be
// handed out as it is, and then the row in PlainBuffer, ready to be sent, with its cells
// in the order of names and, within one, newest first.
//
//	int64   least timestamp    MaxInt64 in a row without cells
//	int64   greatest timestamp MinInt64 in a row without cells
//	uint32  cells
//	uint32  bytes of the cells' names and values
//	uint16  bytes of the key's names and values
//	uint16  greatest number of versions of one column, at most 65535
type record []byte

const recordHeader = 28

func (r record) oldest() int64 { return int64(binary.LittleEndian.Uint64(r)) }
func (r record) newest() int64 { return int64(binary.LittleEndian.Uint64(r[8:])) }
func (r record) cells() int    { return int(binary.LittleEndian.Uint32(r[16:])) }
func (r record) data() int     { return int(binary.LittleEndian.Uint32(r[20:])) }
func (r record) key() int      { return int(binary.LittleEndian.Uint16(r[24:])) }
func (r record) versions() int { return int(binary.LittleEndian.Uint16(r[26:])) }
func (r record) row() []byte   { return r[recordHeader:] }

// size is what the row counts in limits of reads.
func (r record) size() int { return r.key() + r.data() }

// stored is what the row takes on disk: a version costs eight bytes where the table has
// several or lets them expire.
func (r record) stored(o *Options) int {
	n := r.size()
	if o.keepsVersions() {
		n += 8 * r.cells()
	}
	return n
}

// whole says whether the row is visible as it stands.
func (r record) whole(versions int32, expiry int64) bool {
	n := r.versions()
	return n < math.MaxUint16 && int64(n) <= int64(versions) && r.oldest() >= expiry
}

// gone says whether the row had cells and all have expired.
func (r record) gone(expiry int64) bool { return r.cells() > 0 && r.newest() < expiry }

// compareCells orders cells as they stand in a row.
func compareCells(a, b *plainbuffer.Cell) int {
	if c := bytes.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	return cmp.Compare(b.Timestamp, a.Timestamp)
}

// summary counts what a record's header says.
type summary struct {
	oldest, newest  int64
	cells, data     int
	versions, named int
}

func newSummary() summary { return summary{oldest: math.MaxInt64, newest: math.MinInt64} }

// add counts c, which follows previous or is the first.
func (s *summary) add(c, previous *plainbuffer.Cell) {
	s.cells++
	s.data += len(c.Name) + len(c.Data)
	s.oldest = min(s.oldest, c.Timestamp)
	s.newest = max(s.newest, c.Timestamp)
	if previous != nil && bytes.Equal(previous.Name, c.Name) {
		s.named++
	} else {
		s.named = 1
	}
	s.versions = max(s.versions, s.named)
}

// put writes the header over the first bytes of b.
func (s *summary) put(b []byte, key int) {
	binary.LittleEndian.PutUint64(b, uint64(s.oldest))
	binary.LittleEndian.PutUint64(b[8:], uint64(s.newest))
	binary.LittleEndian.PutUint32(b[16:], uint32(s.cells))
	binary.LittleEndian.PutUint32(b[20:], uint32(s.data))
	binary.LittleEndian.PutUint16(b[24:], uint16(min(key, math.MaxUint16)))
	binary.LittleEndian.PutUint16(b[26:], uint16(min(s.versions, math.MaxUint16)))
}

// appendRecord appends the record of a key and of cells, which are in order and have
// timestamps.
func appendRecord(b []byte, key, cells []plainbuffer.Cell) []byte {
	start := len(b)
	var zero [recordHeader]byte
	w := plainbuffer.Builder{Buf: append(b, zero[:]...)}
	s := newSummary()
	w.Begin()
	for i := range key {
		w.Cell(&key[i])
	}
	if len(cells) > 0 {
		w.Attributes()
	}
	var previous *plainbuffer.Cell
	for i := range cells {
		w.Cell(&cells[i])
		s.add(&cells[i], previous)
		previous = &cells[i]
	}
	w.End(false)
	s.put(w.Buf[start:], keySize(key))
	return w.Buf
}

// newest is a block of a row's key and of the newest versions of some columns, as far as
// they are from since or later.
func newest(row *plainbuffer.Row, columns []string, since int64) []byte {
	b := plainbuffer.Builder{Buf: plainbuffer.AppendHeader(nil)}
	b.Begin()
	for i := range row.Key {
		b.Cell(&row.Key[i])
	}
	marked := false
	for i := range row.Cells {
		cell := &row.Cells[i]
		if i > 0 && bytes.Equal(cell.Name, row.Cells[i-1].Name) || cell.Timestamp < since || !slices.Contains(columns, string(cell.Name)) {
			continue
		}
		if !marked {
			b.Attributes()
			marked = true
		}
		b.Cell(cell)
	}
	b.End(false)
	return b.Buf
}
