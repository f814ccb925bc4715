package shard

import (
	"bytes"
	"fmt"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
)

// A wideRow is a row whose pieces come one after the other. It says which of them make a
// row, to the encoder as to the decoder, and what the row's digest is.
//
// All pieces have one key. Their cells stand in canonical order, in a piece and from one
// to the next. Each has a cell, but for the last: where a row ends is known only once
// there is no more of it, so that may have the key alone.
type wideRow struct {
	hasher *table.Hasher
	open   bool // there was a first piece, and no last
	key    table.Key
	some   bool // a cell was seen: the last of them was
	name   []byte
	time   int64
}

func newWideRow(seed uint64) *wideRow { return &wideRow{hasher: table.NewHasher(seed)} }

// add takes a piece, not one that is the first and the last. It returns the row's digest
// after the last.
func (w *wideRow) add(row *plainbuffer.Row, first, last bool) (table.Digest, error) {
	if err := w.check(row, first, last); err != nil {
		return table.Digest{}, err
	}
	if first {
		w.open, w.some, w.key = true, false, table.KeyOf(row.Key)
		w.hasher.Begin(row.Key)
	}
	w.hasher.Cells(row.Cells)
	if n := len(row.Cells); n > 0 {
		end := &row.Cells[n-1]
		w.some, w.name, w.time = true, append(w.name[:0], end.Name...), end.Timestamp
	}
	if !last {
		return table.Digest{}, nil
	}
	w.open = false
	return w.hasher.End(), nil
}

func (w *wideRow) check(row *plainbuffer.Row, first, last bool) error {
	key := func() table.Key { return table.KeyOf(row.Key) }
	switch {
	case first == w.open || first && last:
		return fmt.Errorf("a piece of row %v out of place", key())
	case !first && w.key.CompareCells(row.Key) != 0:
		return fmt.Errorf("a row %v whose pieces have another key, %v", w.key, key())
	case row.Delete || row.HasExtension:
		return fmt.Errorf("a piece of row %v that is of a change", key())
	case !last && len(row.Cells) == 0:
		return fmt.Errorf("a piece of row %v without a cell, which is not its last", key())
	case !table.Canonical(row.Cells):
		return fmt.Errorf("a piece of row %v whose cells are not in order", key())
	}
	if first || !w.some || len(row.Cells) == 0 {
		return nil
	}
	head := &row.Cells[0]
	if table.CompareCells(&plainbuffer.Cell{Name: w.name, Timestamp: w.time}, head) >= 0 {
		return fmt.Errorf("a row %v whose cells are not in order: %q at %d after %q at %d", w.key, head.Name, head.Timestamp, w.name, w.time)
	}
	return nil
}

// A ledger adds up the blocks of a shard. It says in which order they may stand and what
// the end mark must tell of them, to the writer as to the reader.
type ledger struct {
	sum   Summary
	lanes map[int]*laneState
}

type laneState struct {
	first, last table.Key
	rows        int64
	inRow       bool
}

func newLedger() ledger { return ledger{lanes: map[int]*laneState{}} }

// An account is what a ledger takes of a block.
type account struct {
	lane                  int
	rows                  int // that end in it
	first, last           table.Key
	continues, unfinished bool
	digest                table.Digest
}

// add takes the next block.
func (l *ledger) add(b account) error {
	lane := l.lanes[b.lane]
	if lane == nil {
		lane = &laneState{first: b.first}
	}
	if b.continues != lane.inRow {
		return fmt.Errorf("lane %d has a piece of the row %v out of place", b.lane, b.first)
	}
	if lane.last != nil {
		if c := lane.last.Compare(b.first); c > 0 || (c == 0) != b.continues {
			return fmt.Errorf("the rows are not in order: lane %d has the row %v after %v", b.lane, b.first, lane.last)
		}
	}
	l.lanes[b.lane] = lane
	lane.last, lane.inRow = b.last, b.unfinished
	lane.rows += int64(b.rows)
	l.sum.Rows += int64(b.rows)
	l.sum.Blocks++
	l.sum.Digest.Add(b.digest)
	return nil
}

// ends holds an end mark against the blocks.
func (l *ledger) ends(mark *Summary) error {
	if mark.Rows != l.sum.Rows || mark.Blocks != l.sum.Blocks || mark.Digest != l.sum.Digest {
		return fmt.Errorf("there are %d rows in %d blocks, the end mark says %d in %d, or another digest",
			l.sum.Rows, l.sum.Blocks, mark.Rows, mark.Blocks)
	}
	for i, lane := range l.lanes {
		if lane.inRow {
			return fmt.Errorf("lane %d has a row, %v, without its last piece", i, lane.last)
		}
		if i >= len(mark.Lanes) || mark.Lanes[i].Rows != lane.rows {
			return fmt.Errorf("lane %d has %d rows, the end mark says otherwise", i, lane.rows)
		}
		if from, next := mark.Lanes[i].From, mark.Lanes[i].Next; from.Compare(lane.first) > 0 || next.Compare(lane.last) <= 0 {
			return fmt.Errorf("lane %d is %v, it holds rows from %v to %v", i, table.Range{Start: from, End: next}, lane.first, lane.last)
		}
	}
	for i, lane := range mark.Lanes {
		if l.lanes[i] == nil && lane.Rows != 0 {
			return fmt.Errorf("lane %d has no rows, the end mark says %d", i, lane.Rows)
		}
	}
	return nil
}

// equal says whether two summaries are the same.
func (s *Summary) equal(o *Summary) bool {
	if s.Rows != o.Rows || s.Blocks != o.Blocks || s.Digest != o.Digest || len(s.Lanes) != len(o.Lanes) {
		return false
	}
	for i, l := range s.Lanes {
		if m := o.Lanes[i]; l.Rows != m.Rows || !l.From.Equal(m.From) || !l.Next.Equal(m.Next) {
			return false
		}
	}
	return true
}

// equal says whether two entries of indexes are the same.
func (e *Entry) equal(o *Entry) bool {
	return e.Offset == o.Offset && e.Size == o.Size && e.Lane == o.Lane && e.Rows == o.Rows && e.CRC32C == o.CRC32C &&
		bytes.Equal(e.First, o.First) && bytes.Equal(e.Last, o.Last)
}
