package restore_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
	"github.com/tablevault/tablevault/shared/verify"
)

// liveKey is a row's that both the backup and the table that an application has made
// have.
var liveKey = table.Key{table.String("u000005"), table.Binary([]byte{5, 0xff}), table.Integer(-45)}

// dropAndMake drops the target and makes another table of its name, as an application
// does: with the same key, the usual options, and a row of its own.
func dropAndMake(w *vaulttest.World) {
	w.Tables.Drop(vaulttest.TargetID.Table)
	def := vaulttest.Definition()
	def.Name = vaulttest.TargetID.Table
	w.Tables.Make(def)
	w.Tables.Put(def.Name, tabletest.Row{Key: liveKey, Cells: []plainbuffer.Cell{tabletest.Cell("n", vaulttest.Day.UnixMilli(), "live")}})
}

// untouched fails the test unless the application's table is as it has made it.
func untouched(w *vaulttest.World) {
	w.T.Helper()
	rows := w.Tables.Rows(vaulttest.TargetID.Table)
	if len(rows) != 1 || !rows[0].Key.Equal(liveKey) || len(rows[0].Cells) != 1 || string(rows[0].Cells[0].Data) != "live" {
		w.T.Errorf("the application's table has %d rows: %v", len(rows), rows)
	}
	def, err := w.Tables.Describe(w.T.Context(), vaulttest.TargetID.Table)
	if want := vaulttest.Definition(); err != nil || def.Options != want.Options || len(def.Indexes) > 0 || def.Stream != nil {
		w.T.Errorf("the application's table is %+v, %v", def, err)
	}
}

// TestTableMadeAnew drops the target of a restore at every moment, and makes another
// table of its name: nothing is written into that, it is given no settings, and the
// restore ends and says why. With a service that tells no table from another of its name,
// the table's options tell.
func TestTableMadeAnew(t *testing.T) {
	for _, nameless := range []bool{false, true} {
		for _, at := range []struct {
			name string
			// before drives the restore to the moment.
			before func(w *vaulttest.World, id vault.RestoreID)
			proved bool // the rows were compared and the table was handed over
		}{
			{name: "after it was made", before: func(*vaulttest.World, vault.RestoreID) {}},
			{name: "when workers are dispatched", before: func(w *vaulttest.World, id vault.RestoreID) { w.Look(id) }},
			{name: "when all is loaded", before: func(w *vaulttest.World, id vault.RestoreID) {
				w.Look(id)
				w.Work()
			}},
			{name: "when comparisons are dispatched", before: func(w *vaulttest.World, id vault.RestoreID) {
				w.Look(id)
				w.Work()
				w.Look(id)
			}},
			{name: "when all is compared", before: func(w *vaulttest.World, id vault.RestoreID) {
				w.Look(id)
				w.Work()
				w.Look(id)
				w.Work()
			}},
			{name: "when the stream is to be enabled", proved: true, before: func(w *vaulttest.World, id vault.RestoreID) {
				w.Look(id)
				w.Work()
				w.Look(id)
				w.Work()
				stop := errors.New("not now")
				w.Tables.Fault = func(c tabletest.Call) error {
					if c.Name == "SetStream" {
						return stop
					}
					return nil
				}
				if _, err := w.Restorer().Tick(w.T.Context(), w.Run(), id); !errors.Is(err, stop) {
					w.T.Fatal(err)
				}
				w.Tables.Fault = nil
			}},
		} {
			if nameless && at.proved {
				continue // by then the table has its own options
			}
			t.Run(fmt.Sprintf("%s, nameless %t", at.name, nameless), func(t *testing.T) {
				w := vaulttest.NewWorld(t)
				w.Tables.Nameless, w.Quiet = nameless, true
				def := vaulttest.Definition()
				def.Stream = &table.Stream{ExpirationHours: 24}
				w.Fill(def, 200)
				w.Tables.PageRows = 50
				m := w.Backup(vaulttest.Small)
				plan := w.Begin(m)
				at.before(w, plan.Restore)
				dropAndMake(w)
				w.Work()
				p := w.Finish(plan.Restore)
				untouched(w)
				if p.State != restore.StateFailed || !strings.Contains(p.LastError, "prod/orders_copy is not the table that restore "+string(plan.Restore)+" has made") {
					t.Errorf("%+v", p)
				}
				if !w.Exists(vault.Restore{ID: plan.Restore}.Restored()) {
					t.Error("the planner goes on with it")
				}
				// A late delivery writes nothing either.
				for _, s := range plan.Segments {
					w.Loader().Load(t.Context(), w.Run(), fanout.Work{Verb: fanout.VerbImport, Restore: plan.Restore, Segment: s.ID})
				}
				untouched(w)
				// Nor does the same command, given again; under another name it works.
				w.Advance(time.Hour)
				if _, err := w.Restorer().Begin(t.Context(), w.Run(), w.Request(m)); !at.proved && !errors.Is(err, table.ErrExist) {
					t.Errorf("the same command again: %v", err)
				}
				untouched(w)
				elsewhere := w.Request(m)
				elsewhere.Target.Table = "elsewhere"
				again, err := w.Restorer().Begin(t.Context(), w.Run(), elsewhere)
				if err != nil {
					t.Fatal(err)
				}
				w.Proved(w.Finish(again.Restore), vault.OK)
			})
		}
	}
}

// TestTableMadeAnewBesideWriters drops the target while a worker writes, and makes
// another table of its name: the worker notices after ten seconds at most, or at once
// where a batch is not taken, as by a table that is just being made.
func TestTableMadeAnewBesideWriters(t *testing.T) {
	for _, refused := range []bool{false, true} {
		t.Run(fmt.Sprintf("a batch is refused: %t", refused), func(t *testing.T) {
			w := vaulttest.NewWorld(t)
			w.Fill(vaulttest.Definition(), 3000)
			w.Tables.PageRows = 50
			plan := w.Begin(w.Backup(vault.Settings{}))
			var late atomic.Int64
			w.Tables.Fault = func(c tabletest.Call) error {
				if c.Name != "Write" || c.After {
					return nil
				}
				switch {
				case c.N == 5:
					dropAndMake(w)
					if refused {
						w.Advance(time.Second)
					}
				case c.N > 5:
					late.Add(1)
					w.Advance(4 * time.Second)
				}
				return nil
			}
			l := w.Loader()
			l.Memory = 1 // one writer
			if refused {
				l.Tables = &unready{Instance: w.Tables, at: 5}
			}
			_, err := l.Load(t.Context(), w.Run(), fanout.Work{Verb: fanout.VerbImport, Restore: plan.Restore, Segment: plan.Segments[0].ID})
			if !errors.Is(err, table.ErrExist) || !fanout.Permanent(err) || !strings.Contains(err.Error(), "is not the table that restore") {
				t.Errorf("%v", err)
			}
			most := int64(3)
			if refused {
				most = 0
				untouched(w)
			}
			if n := late.Load(); n > most {
				t.Errorf("%d batches were written into another table, want at most %d", n, most)
			}
			if p := w.Finish(plan.Restore); p.State != restore.StateFailed || !strings.Contains(p.LastError, "somebody has dropped that one") {
				t.Errorf("%+v", p)
			}
		})
	}
}

// unready refuses one batch once, after what happens before it, and tries it again.
type unready struct {
	table.Instance
	at, n int
}

func (u *unready) Write(ctx context.Context, name string, b table.Batch) (table.WriteResult, error) {
	if u.n++; u.n == u.at+1 {
		fault := u.Instance.(*tabletest.Tables).Fault
		if err := fault(tabletest.Call{Name: "Write", Table: name, N: u.at}); err != nil {
			return table.WriteResult{}, err
		}
		if err := table.Retrying(ctx); err != nil {
			return table.WriteResult{}, err
		}
	}
	return u.Instance.Write(ctx, name, b)
}

// TestTableGone drops the target of a restore: it ends, and the same command begins
// another.
func TestTableGone(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Quiet = true
	w.Fill(vaulttest.Definition(), 200)
	w.Tables.PageRows = 50
	m := w.Backup(vaulttest.Small)
	plan := w.Begin(m)
	w.Look(plan.Restore)
	w.Tables.Drop(vaulttest.TargetID.Table)
	w.Work()
	if p := w.Finish(plan.Restore); p.State != restore.StateFailed || !strings.Contains(p.LastError, "somebody has dropped it; restore again") {
		t.Errorf("%+v", p)
	}
	w.Advance(time.Hour)
	again := w.Begin(m)
	if again.Restore == plan.Restore {
		t.Fatal("the same restore goes on")
	}
	w.Proved(w.Finish(again.Restore), vault.OK)
	w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
}

// TestTickMakesTheTable has a restore die before it makes its table: the planner's tick
// has it gone on with, which makes it; or leaves alone what an application has made by
// then, and ends the restore.
func TestTickMakesTheTable(t *testing.T) {
	for _, taken := range []bool{false, true} {
		t.Run(fmt.Sprintf("taken: %t", taken), func(t *testing.T) {
			w := vaulttest.NewWorld(t)
			w.Fill(vaulttest.Definition(), 200)
			m := w.Backup(vaulttest.Small)
			dead := errors.New("dead")
			w.Tables.Fault = func(c tabletest.Call) error {
				if c.Name == "Create" {
					return dead
				}
				return nil
			}
			if _, err := w.Restorer().Begin(t.Context(), w.Run(), w.Request(m)); !errors.Is(err, dead) {
				t.Fatal(err)
			}
			w.Tables.Fault = nil
			if taken {
				dropAndMake(w)
			}
			for range 100 {
				w.Tick("")
				w.Work()
				w.Advance(time.Minute)
			}
			var proof *vault.Proof
			for id, err := range w.Repo.Restoring(t.Context()) {
				t.Errorf("%s has not ended: %v", id, err)
			}
			id := vault.NewRestoreID(vaulttest.Day, string(m.Backup), vaulttest.TargetID.Path())
			proof, err := w.Repo.RestoreProof(t.Context(), id)
			if !taken {
				if err != nil || proof.Verdict != vault.OK {
					t.Fatalf("%+v, %v", proof, err)
				}
				w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
				return
			}
			untouched(w)
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%+v, %v", proof, err)
			}
			if closed, err := w.Repo.Closed(t.Context(), id); err != nil || closed == nil || !strings.Contains(closed.Reason, "not by this restore") {
				t.Errorf("%+v, %v", closed, err)
			}
		})
	}
}

// TestVerifySaysThatTheTableIsAnother verifies a restore whose table was replaced after
// the hand-over.
func TestVerifySaysThatTheTableIsAnother(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 50)
	plan := w.Begin(w.Backup(vault.Settings{}))
	w.Proved(w.Finish(plan.Restore), vault.OK)
	for _, replaced := range []bool{false, true} {
		if replaced {
			dropAndMake(w)
		}
		proof, err := w.Verifier().Verify(t.Context(), verify.Request{Restore: plan.Restore, Depth: verify.DepthRows})
		if err != nil {
			t.Fatal(err)
		}
		if said := strings.Contains(strings.Join(proof.Notes, "\n"), "another table than the one that the restore has made"); said != replaced || (proof.Verdict == vault.OK) == replaced {
			t.Errorf("replaced: %t, verdict %s, notes %q", replaced, proof.Verdict, proof.Notes)
		}
	}
}

// TestNamelessGoesOn has a service that tells no table from another: a restore that has
// given its table some of its settings, and dies, goes on.
func TestNamelessGoesOn(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Tables.Nameless = true
	def := vaulttest.Definition()
	def.Stream = &table.Stream{ExpirationHours: 24}
	w.Fill(def, 50)
	plan := w.Begin(w.Backup(vault.Settings{}))
	stop := errors.New("not now")
	w.Tables.Fault = func(c tabletest.Call) error {
		if c.Name == "SetStream" {
			return stop
		}
		return nil
	}
	var err error
	for n := 0; err == nil && n < 100; n++ {
		_, err = w.Restorer().Tick(t.Context(), w.Run(), plan.Restore)
		w.Work()
	}
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	w.Tables.Fault = nil
	if got, err := w.Tables.Describe(t.Context(), vaulttest.TargetID.Table); err != nil || got.Options != def.Options || got.Stream != nil {
		t.Fatalf("%+v, %v", got, err)
	}
	w.Proved(w.Finish(plan.Restore), vault.OK)
	w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
}

// TestClosedWithoutATable looks at a restore that is closed, and of which nothing says
// that it has made a table: nobody touches one.
func TestClosedWithoutATable(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 50)
	plan := w.Begin(w.Backup(vault.Settings{}))
	r := vault.Restore{ID: plan.Restore}
	if _, err := w.Repo.Create(t.Context(), r.Closed(), &vault.Closed{Restore: plan.Restore, At: w.Clock()}); err != nil {
		t.Fatal(err)
	}
	w.Remove(r.Created())
	if _, err := w.Restorer().Tick(t.Context(), w.Run(), plan.Restore); !errors.Is(err, vault.ErrCorrupt) || !strings.Contains(err.Error(), r.Created()) {
		t.Errorf("%v", err)
	}
}

// TestImportBeforeItsTable delivers segments of a restore that there is not, and of one
// that has not made its table: nothing is written, and the errors say so.
func TestImportBeforeItsTable(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 50)
	plan := w.Begin(w.Backup(vault.Settings{}))
	deliver := func(id vault.RestoreID) error {
		_, err := w.Loader().Load(t.Context(), w.Run(), fanout.Work{Verb: fanout.VerbImport, Restore: id, Segment: "000000"})
		return err
	}
	no := vault.NewRestoreID(vaulttest.Day, "no such")
	if err := deliver(no); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), string(no)) {
		t.Errorf("%v", err)
	}
	w.Remove(vault.Restore{ID: plan.Restore}.Created())
	if err := deliver(plan.Restore); !errors.Is(err, table.ErrUnavailable) || !strings.Contains(err.Error(), "has not made the table yet") {
		t.Errorf("%v", err)
	}
	if _, err := w.Checker().Check(t.Context(), w.Run(), fanout.Work{Verb: fanout.VerbVerify, Restore: plan.Restore, Segment: "000000"}); !errors.Is(err, table.ErrInvalid) {
		t.Errorf("%v", err)
	}
	if n := w.Tables.Calls("Write"); n != 0 {
		t.Errorf("%d batches were written", n)
	}
}

// TestNoLookBeforeTheEnd has a worker find nothing left to begin while others are at
// work: it asks for no look.
func TestNoLookBeforeTheEnd(t *testing.T) {
	w := vaulttest.NewWorld(t)
	plan := w.Begin(w.CutInto(2, 20))
	w.Look(plan.Restore)
	w.Pokes = true
	for _, verb := range []fanout.Verb{fanout.VerbImport, fanout.VerbVerify} {
		work := w.Drain()
		if len(work) != 2 || work[0].Verb != verb {
			t.Fatalf("%+v", work)
		}
		r := vault.Restore{ID: plan.Restore}
		log := map[fanout.Verb]vault.Log{fanout.VerbImport: r.Log(), fanout.VerbVerify: r.Verify()}[verb]
		run := w.Run()
		if _, err := fanout.NewLog(w.Repo, log).Claim(t.Context(), vault.Note{Segment: work[1].Segment}, run); err != nil {
			t.Fatal(err)
		}
		if err := w.Do(work[0]); err != nil {
			t.Fatal(err)
		}
		if asked := w.Drain(); len(asked) > 0 {
			t.Errorf("%s: %+v is asked for while a segment is open", verb, asked)
		}
		again := work[1]
		again.Start = 1
		if err := w.Do(again); err != nil {
			t.Fatal(err)
		}
		asked := w.Drain()
		if len(asked) != 1 || asked[0].Verb != fanout.VerbRestore || asked[0].Restore != plan.Restore {
			t.Fatalf("%s: %+v is asked for at the end", verb, asked)
		}
		w.Advance(11 * time.Minute) // the claim's
		w.Look(plan.Restore)
	}
}
