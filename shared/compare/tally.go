package compare

import (
	"io"
	"time"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// set is a number of rows and their digest.
type set struct {
	n      int64
	digest table.Digest
}

func (s *set) add(d table.Digest) {
	s.n++
	s.digest.Add(d)
}

func (s set) plus(o set) set {
	s.n += o.n
	s.digest.Add(o.digest)
	return s
}

// tally sums up the rows of one range on one side.
type tally struct {
	options table.Options
	cutoff  int64
	hasher  *table.Hasher
	long    *table.Hasher // of the row that comes in pieces
	all     *table.Hasher // of the same with all of its cells, where some expire
	kept    []plainbuffer.Cell
	// full are the rows that have a cell, hollow those without any, ghosts those that had
	// some, all of them expired; whole are all, with all of their cells.
	full, hollow, ghosts, whole set
	expired                     int64
	latest                      time.Time // of the pages
	cells, left                 int64     // of the row in pieces: all, and not expired
	seed                        uint64
	lapses                      lapses
}

func newTally(seed uint64, o table.Options, cutoff int64) *tally {
	return &tally{options: o, cutoff: cutoff, hasher: table.NewHasher(seed), seed: seed}
}

func (t *tally) at(served time.Time) {
	if served.After(t.latest) {
		t.latest = served
	}
}

// block adds the rows of a block.
func (t *tally) block(b *block, scanner *plainbuffer.Scanner, row *plainbuffer.Row) error {
	b.scan(scanner)
	for {
		if err := scanner.Next(row); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		t.add(b, row)
	}
}

func (t *tally) add(b *block, row *plainbuffer.Row) {
	if t.lapses.ttl > 0 {
		t.lapses.add(b, row.Cells)
	}
	cells := t.keep(row.Cells)
	if !b.piece {
		kept := *row
		kept.Cells = cells
		d := t.hasher.Row(&kept)
		t.count(d, len(row.Cells) == 0, len(cells) == 0)
		if len(cells) < len(row.Cells) {
			d = t.hasher.Row(row)
		}
		t.whole.add(d)
		return
	}
	if b.first {
		if t.long == nil {
			t.long, t.all = table.NewHasher(t.seed), table.NewHasher(t.seed)
		}
		t.long.Begin(row.Key)
		if t.cutoff != 0 {
			t.all.Begin(row.Key)
		}
		t.cells, t.left = 0, 0
	}
	t.long.Cells(cells)
	if t.cutoff != 0 {
		t.all.Cells(row.Cells)
	}
	t.cells += int64(len(row.Cells))
	t.left += int64(len(cells))
	if b.last {
		d := t.long.End()
		t.count(d, t.cells == 0, t.left == 0)
		if t.cutoff != 0 {
			d = t.all.End()
		}
		t.whole.add(d)
	}
}

func (t *tally) count(d table.Digest, hollow, empty bool) {
	switch {
	case hollow:
		t.hollow.add(d)
	case empty:
		t.ghosts.add(d)
	default:
		t.full.add(d)
	}
}

// keep returns the cells that do not expire before the cutoff.
func (t *tally) keep(cells []plainbuffer.Cell) []plainbuffer.Cell {
	if t.cutoff == 0 {
		return cells
	}
	for i := range cells {
		if !t.options.Expired(cells[i].Timestamp, t.cutoff) {
			continue
		}
		t.kept = append(t.kept[:0], cells[:i]...)
		for _, c := range cells[i:] {
			if !t.options.Expired(c.Timestamp, t.cutoff) {
				t.kept = append(t.kept, c)
			}
		}
		t.expired += int64(len(cells) - len(t.kept))
		return t.kept
	}
	return cells
}

// lapses counts what a table loses by the TTL that it is to get, at the date of each
// page.
type lapses struct {
	ttl        int64 // in milliseconds, 0 for none
	past, soon vault.Lapse
	// Of the row at hand, of whose cells that many are past, or will be soon.
	cells, lapsed, lapsing int64
}

// LapsesSoon is how far ahead is looked for what a TTL will take.
const LapsesSoon = 24 * time.Hour

func (l *lapses) add(b *block, cells []plainbuffer.Cell) {
	if !b.piece || b.first {
		l.cells, l.lapsed, l.lapsing = 0, 0, 0
	}
	oldest := b.served.UnixMilli() - l.ttl
	for i := range cells {
		switch at := cells[i].Timestamp; {
		case at < oldest:
			l.lapsed++
		case at < oldest+LapsesSoon.Milliseconds():
			l.lapsing++
		}
	}
	if l.cells += int64(len(cells)); b.piece && !b.last {
		return
	}
	l.past.Cells, l.soon.Cells = l.past.Cells+l.lapsed, l.soon.Cells+l.lapsing
	switch {
	case l.cells == 0:
	case l.lapsed == l.cells:
		l.past.Rows++
	case l.lapsed+l.lapsing == l.cells:
		l.soon.Rows++
	}
}

func (t *tally) sum() table.Digest { return t.full.plus(t.hollow).digest }

// equals says whether the table's sums are the backup's. Rows all of whose cells have
// expired may be served as rows without cells, or not at all.
func (t *tally) equals(live *tally, cutoff int64) bool {
	if cutoff != 0 && live.latest.Add(serverMargin).UnixMilli() >= cutoff {
		return false
	}
	bare := live.hollow.plus(live.ghosts)
	return t.full == live.full && (bare == t.hollow || bare == t.hollow.plus(t.ghosts))
}
