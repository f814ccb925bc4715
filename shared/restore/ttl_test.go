package restore_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// TestExpiredRowsAreCounted restores a table with a TTL that some of its rows are past by
// then: that is said before a row is loaded, and the proof counts what is gone, and what
// will be within a day.
func TestExpiredRowsAreCounted(t *testing.T) {
	w := vaulttest.NewWorld(t)
	def := vaulttest.Definition()
	def.Options.TTL = 2 * 86400
	w.Tables.Make(def)
	n := 0
	put := func(rows int, cells ...plainbuffer.Cell) {
		for range rows {
			w.Tables.Put(def.Name, tabletest.Row{Key: table.Key{table.String("u"), table.Binary(nil), table.Integer(int64(n))}, Cells: cells})
			n++
		}
	}
	hours := func(name string, ago int) plainbuffer.Cell {
		return tabletest.Cell(name, vaulttest.Day.Add(-time.Duration(ago)*time.Hour).UnixMilli(), strings.Repeat("v", 40))
	}
	const later = 20                                       // hours, after which the backup is restored
	put(10, hours("a", 47), hours("b", 40))                // past 48 hours
	put(7, hours("a", 47), hours("b", 20))                 // within a day
	put(5, hours("a", 20))                                 // within a day
	put(3, hours("a", 47), hours("b", 2))                  // a cell stays
	put(2, hours("a", 2), tabletest.Cell("b", 1<<45, "v")) // stays
	put(4)                                                 // rows without cells
	wide := vaulttest.WideRow()                            // in pieces
	for i := range wide.Cells {
		wide.Cells[i].Timestamp = vaulttest.Day.Add(-46 * time.Hour).UnixMilli()
	}
	w.Tables.Put(def.Name, wide)
	n++
	m := w.Backup(vault.Settings{})
	w.Advance(later * time.Hour)
	plan := w.Begin(m)
	if notes := strings.Join(plan.Notes, "\n"); !strings.Contains(notes, "a TTL of 2 days") || !strings.Contains(notes, "written before 2026-11-18T22:14:00Z have expired") ||
		!strings.Contains(notes, "20h0m0s ago") || strings.Contains(notes, "within a day") || strings.Contains(notes, "will be empty") {
		t.Errorf("when it begins, the notes say:\n%s", notes)
	}
	if p := w.Look(plan.Restore); len(p.Notes) != len(plan.Notes) {
		t.Errorf("the progress has the notes %q, the plan %q", p.Notes, plan.Notes)
	}
	p := w.Finish(plan.Restore)
	w.Proved(p, vault.OK)
	c := p.Proof.Check
	if want := (vault.Lapse{Rows: 10 + 1, Cells: 10*2 + 7 + 3 + int64(len(wide.Cells))}); c.Lapsed != want {
		t.Errorf("%+v expired, want %+v", c.Lapsed, want)
	}
	if want := (vault.Lapse{Rows: 7 + 5, Cells: 7 + 5}); c.Lapsing != want {
		t.Errorf("%+v will within a day, want %+v", c.Lapsing, want)
	}
	want := fmt.Sprintf("of %d rows, 11 rows with all their cells, %d cells in all, were past the table's TTL of 2 days", n, c.Lapsed.Cells)
	if notes := strings.Join(p.Proof.Notes, "\n"); !strings.Contains(notes, want) || !strings.Contains(notes, "12 more rows with all their cells, 12 more cells in all, will be within a day") {
		t.Errorf("the proof's notes do not say %q:\n%s", want, notes)
	}
}

// TestAllRowsExpired restores a table whose TTL is shorter than the backup is old: it is
// proved, and says before and after that nothing of it will be seen.
func TestAllRowsExpired(t *testing.T) {
	for _, c := range []struct {
		later      time.Duration
		before     string
		past, soon int64
	}{
		{20 * time.Second, "will be empty", 50, 0},
		{10 * time.Second, "within a day all cells", 0, 50},
	} {
		w := vaulttest.NewWorld(t)
		def := vaulttest.Definition()
		def.Options.TTL = 15
		w.Tables.Make(def)
		for i := range 50 {
			w.Tables.Put(def.Name, tabletest.Row{
				Key: table.Key{table.String("u"), table.Binary(nil), table.Integer(int64(i))}, Cells: []plainbuffer.Cell{tabletest.Cell("n", vaulttest.Day.UnixMilli(), i)},
			})
		}
		m := w.Backup(vault.Settings{})
		w.Advance(c.later)
		plan := w.Begin(m)
		if notes := strings.Join(plan.Notes, "\n"); !strings.Contains(notes, c.before) {
			t.Errorf("after %s: when it begins, the notes do not say %q:\n%s", c.later, c.before, notes)
		}
		p := w.Finish(plan.Restore)
		w.Proved(p, vault.OK)
		if l, soon := p.Proof.Check.Lapsed, p.Proof.Check.Lapsing; l != (vault.Lapse{Rows: c.past, Cells: c.past}) || soon != (vault.Lapse{Rows: c.soon, Cells: c.soon}) {
			t.Errorf("after %s: %+v expired, %+v will", c.later, l, soon)
		}
	}
}
