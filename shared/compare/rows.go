package compare

import (
	"bytes"
	"context"
	"time"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// pair compares the rows of one lane, one by one: ours of the backup, and theirs of the
// table.
type pair struct {
	ours, theirs *cursor
	options      table.Options // of the table
	found        *vault.Check
	sink         Sink
}

func (p *pair) compare(ctx context.Context) error {
	ours, theirs := p.ours, p.theirs
	if err := ours.next(ctx); err != nil {
		return err
	}
	if err := theirs.next(ctx); err != nil {
		return err
	}
	for ours.any || theirs.any {
		order := 0
		switch {
		case !theirs.any:
			order = -1
		case !ours.any:
			order = 1
		default:
			order = ours.key.Compare(theirs.key)
		}
		var err error
		switch {
		case order < 0:
			err = p.alone(ctx, ours, "missing")
		case order > 0:
			err = p.alone(ctx, theirs, "extra")
		default:
			err = p.both(ctx)
		}
		if err == nil && order <= 0 {
			err = ours.next(ctx)
		}
		if err == nil && order >= 0 {
			err = theirs.next(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// expired says whether a cell is past its TTL, by the date of the newest page.
func (p *pair) expired(cell *plainbuffer.Cell, served time.Time) bool {
	return p.options.Expired(cell.Timestamp, served.Add(serverMargin).UnixMilli())
}

// alone takes a row that only one side has. A row that has lost its last cell to its TTL
// may well be gone from the other side.
func (p *pair) alone(ctx context.Context, rows *cursor, kind string) error {
	key, served := rows.key.Clone(), p.theirs.served
	var cells, expired int64
	for {
		cell, err := rows.cell(ctx)
		if err != nil {
			return err
		}
		if cell == nil {
			break
		}
		cells++
		if p.expired(cell, served) {
			expired++
		}
	}
	if kind == "missing" {
		p.found.Expired += expired
	}
	if cells > 0 && expired == cells {
		return nil
	}
	p.sink(p.found, vault.Difference{Kind: kind, Key: key})
	return nil
}

// both takes a row that both sides have.
func (p *pair) both(ctx context.Context) error {
	ours, theirs, served := p.ours, p.theirs, p.theirs.served
	// live is a side's next cell that has not expired.
	live := func(rows *cursor, count *int64) (*plainbuffer.Cell, error) {
		for {
			cell, err := rows.cell(ctx)
			if err != nil || cell == nil || !p.expired(cell, served) {
				return cell, err
			}
			*count++
		}
	}
	key := ours.key
	var columns []string
	changed, ignored := false, int64(0)
	name := func(cell *plainbuffer.Cell) {
		changed = true
		if n := string(cell.Name); len(columns) < maxColumns && (len(columns) == 0 || columns[len(columns)-1] != n) {
			columns = append(columns, n)
		}
	}
	a, err := live(ours, &p.found.Expired)
	if err != nil {
		return err
	}
	b, err := live(theirs, &ignored)
	if err != nil {
		return err
	}
	for a != nil || b != nil {
		order := 0
		switch {
		case b == nil:
			order = -1
		case a == nil:
			order = 1
		default:
			order = table.CompareCells(a, b)
		}
		switch {
		case order < 0:
			name(a)
		case order > 0:
			name(b)
		case a.Type != b.Type || !bytes.Equal(a.Data, b.Data):
			name(a)
		}
		if order <= 0 {
			if a, err = live(ours, &p.found.Expired); err != nil {
				return err
			}
		}
		if order >= 0 {
			if b, err = live(theirs, &ignored); err != nil {
				return err
			}
		}
	}
	if changed {
		p.sink(p.found, vault.Difference{Kind: "changed", Key: key.Clone(), Columns: columns})
	}
	return nil
}

// maxColumns is how many columns of a changed row are named.
const maxColumns = 16
