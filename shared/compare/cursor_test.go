package compare

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
)

var schema = table.Schema{{Name: "k", Type: table.StringKey}}

// rowsOf is a block of rows with the keys, which have a cell each.
func rowsOf(keys ...string) *block {
	b := &block{bare: true}
	for _, k := range keys {
		b.rows = append(b.rows, tabletest.Encode(schema, tabletest.Row{Key: table.Key{table.String(k)}, Cells: []plainbuffer.Cell{tabletest.Cell("c", 1, "v")}})...)
	}
	return b
}

// piece is a block of a piece of a row.
func piece(key string, first, last bool) *block {
	b := rowsOf(key)
	b.piece, b.first, b.last = true, first, last
	return b
}

// TestCursorReadsRowsInTheirOrder reads rows, and pieces of rows, and refuses what are
// none: a row is between its first piece and its last, and stands after the one before.
func TestCursorReadsRowsInTheirOrder(t *testing.T) {
	for _, c := range []struct {
		name   string
		blocks []*block
		want   string // the keys, each as often as the row has cells
		said   string
	}{
		{"rows", []*block{rowsOf("a", "b"), rowsOf("c")}, "abc", ""},
		{"a row in pieces", []*block{rowsOf("a"), piece("b", true, false), piece("b", false, false), piece("b", false, true), rowsOf("c")}, "abbbc", ""},
		{"its middle only", []*block{piece("a", false, true)}, "", "begins in its middle"},
		{"a row twice", []*block{rowsOf("a", "a")}, "a", "stands after"},
		{"a row before another", []*block{rowsOf("b"), rowsOf("a")}, "b", "stands after"},
		{"another row in its middle", []*block{piece("a", true, false), rowsOf("b")}, "a", "does not end"},
		{"the same row in its middle", []*block{piece("a", true, false), rowsOf("a")}, "a", "does not end"},
		{"another row's piece in its middle", []*block{piece("a", true, false), piece("b", false, true)}, "a", "does not end"},
		{"a row begun again in its middle", []*block{piece("a", true, false), piece("a", true, true)}, "a", "does not end"},
		{"no end", []*block{piece("a", true, false)}, "a", "unexpected EOF"},
	} {
		rows, got := newCursor(func(context.Context) (*block, error) {
			if len(c.blocks) == 0 {
				return nil, io.EOF
			}
			b := c.blocks[0]
			c.blocks = c.blocks[1:]
			return b, nil
		}), ""
		err := rows.next(t.Context())
		for err == nil && rows.any {
			var cell *plainbuffer.Cell
			for cell, err = rows.cell(t.Context()); cell != nil && err == nil; cell, err = rows.cell(t.Context()) {
				got += string(rows.key[0].Bytes)
			}
			if err == nil {
				err = rows.next(t.Context())
			}
		}
		if got != c.want || (err == nil) != (c.said == "") || err != nil && (!strings.Contains(err.Error(), c.said) || !errors.Is(err, vault.ErrCorrupt) && !errors.Is(err, io.ErrUnexpectedEOF)) {
			t.Errorf("%s: %q, %v; want %q, %q", c.name, got, err, c.want, c.said)
		}
	}
}

// TestTallyLeavesOutWhatExpires sums up rows of which some cells expire before the
// cutoff.
func TestTallyLeavesOutWhatExpires(t *testing.T) {
	const cutoff = 10_000
	options := table.Options{TTL: 5} // what is older than 5000 expires before
	cells := func(stamps ...int64) (row plainbuffer.Row) {
		for i, at := range stamps {
			row.Cells = append(row.Cells, tabletest.Cell(string(rune('a'+i)), at, "v"))
		}
		return row
	}
	for _, c := range []struct {
		stamps  []int64
		expired int64
		kept    string
	}{
		{[]int64{9000, 8000}, 0, "ab"},
		{[]int64{1000, 9000, 2000, 8000}, 2, "bd"},
		{[]int64{9000, 1000}, 1, "a"},
		{[]int64{1000, 2000}, 2, ""},
	} {
		tally := newTally(1, options, cutoff)
		row, kept := cells(c.stamps...), ""
		for _, cell := range tally.keep(row.Cells) {
			kept += string(cell.Name)
		}
		if kept != c.kept || tally.expired != c.expired {
			t.Errorf("of %v, %q are kept and %d have expired; want %q, %d", c.stamps, kept, tally.expired, c.kept, c.expired)
		}
	}
	if row := cells(1000); len(newTally(1, options, 0).keep(row.Cells)) != 1 {
		t.Error("without a cutoff, a cell is left out")
	}
}

// TestSumsOfALateScan takes no sums for equal whose cutoff had passed when the table was
// read to its end: it may have left out cells that the other side has.
func TestSumsOfALateScan(t *testing.T) {
	cutoff := time.UnixMilli(1_000_000)
	for _, c := range []struct {
		latest time.Time
		cutoff int64
		equal  bool
	}{
		{cutoff.Add(-serverMargin - time.Millisecond), cutoff.UnixMilli(), true},
		{cutoff.Add(-serverMargin), cutoff.UnixMilli(), false},
		{cutoff.Add(time.Hour), cutoff.UnixMilli(), false},
		{cutoff.Add(time.Hour), 0, true},
	} {
		ours, theirs := newTally(1, table.Options{}, c.cutoff), newTally(1, table.Options{}, c.cutoff)
		theirs.at(c.latest)
		if equal := ours.equals(theirs, c.cutoff); equal != c.equal {
			t.Errorf("read until %s with the cutoff %d: equal: %t", c.latest, c.cutoff, equal)
		}
	}
}
