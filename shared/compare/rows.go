package compare

import (
	"bytes"
	"context"
	"time"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// differ takes account of rows that are compared one by one.
type differ struct {
	*Comparer
	check       *vault.Check
	quarantined map[string]bool
}

func (d *differ) expired(cell *plainbuffer.Cell, served time.Time) bool {
	return d.def.Options.Expired(cell.Timestamp, served.Add(serverMargin).UnixMilli())
}

// alone takes a row that only one side has. A row that has lost its last cell
// to its TTL may well be gone from the other side.
func (d *differ) alone(ctx context.Context, rows *cursor, served time.Time, kind string) error {
	key := rows.key.Clone()
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
		if d.expired(cell, served) {
			expired++
		}
	}
	if kind == "missing" {
		d.check.Expired += expired
	}
	if cells > 0 && expired == cells {
		return nil
	}
	d.add(vault.Difference{Kind: kind, Key: key})
	return nil
}

// both takes a row that both sides have.
func (d *differ) both(ctx context.Context, ours, theirs *cursor) error {
	served := theirs.served
	// live is a side's next cell that has not expired.
	live := func(rows *cursor, count *int64) (*plainbuffer.Cell, error) {
		for {
			cell, err := rows.cell(ctx)
			if err != nil || cell == nil || !d.expired(cell, served) {
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
	a, err := live(ours, &d.check.Expired)
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
			if a, err = live(ours, &d.check.Expired); err != nil {
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
		d.add(vault.Difference{Kind: "changed", Key: key.Clone(), Columns: columns})
	}
	return nil
}

// maxColumns is how many columns of a changed row are named.
const maxColumns = 16

func (d *differ) add(difference vault.Difference) {
	switch difference.Kind {
	case "missing":
		d.check.Missing++
	case "extra":
		d.check.Extra++
	case "changed":
		d.check.Changed++
	}
	if difference.Kind != "extra" && d.quarantined[difference.Key.String()] {
		d.check.Quarantined++
	}
	if len(d.check.Differences) < vault.MaxListed {
		d.check.Differences = append(d.check.Differences, difference)
	}
}
