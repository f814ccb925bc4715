package backup_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/object/objectmeter"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
)

// cutInto backs up a table of so many segments of so many rows each.
func (w *world) cutInto(segments, rows int) *vault.Manifest {
	w.t.Helper()
	w.keyed(intKey, ints(segments*rows))
	p := w.planner()
	m := w.sealed(p, w.plan(p, vault.Settings{Lanes: 1}, cuts(segments*rows, segments)...))
	if m.Segments != segments {
		w.t.Fatalf("%d segments", m.Segments)
	}
	return m
}

// look looks at a restore.
func (w *world) look(id vault.RestoreID) restore.Progress {
	w.t.Helper()
	p, err := w.importer().Tick(w.t.Context(), w.run(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// starts are the names of the notes of the starts of a restore's segments.
func (w *world) starts(id vault.RestoreID) (names []string) {
	w.t.Helper()
	for info, err := range w.store.List(w.t.Context(), string(vault.Restore{ID: id}.Log())+"starts/", "") {
		if err != nil {
			w.t.Fatal(err)
		}
		names = append(names, info.Name)
	}
	return names
}

// TestImportersGoOn restores a table of two groups with four workers and one
// look: they work until nothing is left, at a list per segment, and each segment
// is begun once.
func TestImportersGoOn(t *testing.T) {
	const segments, rows, workers = 300, 2, 4
	w := newWorld(t)
	m := w.cutInto(segments, rows)
	plan := w.begin(m)
	meter := objectmeter.New(w.store)
	var err error
	if w.repo, err = repository.Open(t.Context(), meter); err != nil {
		t.Fatal(err)
	}
	w.workers = workers
	if p := w.look(plan.Restore); p.Dispatched != workers || p.Segments != segments {
		t.Fatalf("%+v", p)
	}
	before := meter.Usage()
	ended := 0
	for _, work := range w.drain() {
		reply, err := w.importer().Import(t.Context(), w.run(), work)
		if err != nil || reply.Continued {
			t.Fatalf("%+v, %v", reply, err)
		}
		ended += reply.Ended
	}
	if ended != segments || len(w.queue) > 0 {
		t.Errorf("%d of %d segments have ended, %d invocations are to come", ended, segments, len(w.queue))
	}
	if n := len(w.starts(plan.Restore)); n != segments {
		t.Errorf("%d starts of %d segments", n, segments)
	}
	// Beside the list by which it is found, a segment of one part and one batch costs
	// four objects: start, slot, and the marks that it is loaded and that the start
	// is over. It reads where its log ends, whether the restore is open, twice, the
	// slot that it works for, and the shard.
	used := meter.Usage().Sub(before)
	t.Logf("%d segments: %+v", segments, used)
	if used.List > segments+20 || used.Create > 4*segments+20 || used.Open+used.Stat > 5*segments+40 {
		t.Errorf("%d lists, %d objects, %d reads for %d segments", used.List, used.Create, used.Open+used.Stat, segments)
	}
	w.proved(w.finish(plan.Restore), vault.OK)
	w.same(sourceID.Table, targetID.Table)
}

// TestImportersGoOnSideBySide races many workers for few segments: each is begun
// once, and whoever comes again leaves it alone.
func TestImportersGoOnSideBySide(t *testing.T) {
	const segments = 60
	w := newWorld(t)
	m := w.cutInto(segments, 3)
	plan := w.begin(m)
	w.workers = 12
	w.look(plan.Restore)
	queue := w.drain()
	var all sync.WaitGroup
	for _, work := range append(queue, queue...) {
		all.Go(func() {
			if _, err := w.importer().Import(t.Context(), w.run(), work); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, name := range w.starts(plan.Restore) {
		if !strings.HasSuffix(name, "000000.json") {
			t.Errorf("begun more than once: %s", name)
		}
	}
	if n := len(w.starts(plan.Restore)); n != segments {
		t.Errorf("%d starts of %d segments", n, segments)
	}
	w.proved(w.finish(plan.Restore), vault.OK)
	w.same(sourceID.Table, targetID.Table)
}

// TestImportersGoOnInTheNextInvocation ends each invocation after a segment or
// two: what it finds then goes to the next, without a look of the planner.
func TestImportersGoOnInTheNextInvocation(t *testing.T) {
	const segments = 40
	w := newWorld(t)
	m := w.cutInto(segments, 3)
	plan := w.begin(m)
	w.workers, w.hop = 1, 12
	w.look(plan.Restore)
	w.work()
	w.hop = 0
	p := w.look(plan.Restore)
	if p.Loaded != segments || p.State != restore.StateVerifying {
		t.Errorf("%+v", p)
	}
	w.proved(w.finish(plan.Restore), vault.OK)
	w.same(sourceID.Table, targetID.Table)
}

// TestClosingStopsWhoGoesOn closes a restore while a worker is between two of its
// segments: it begins the next, sees that the restore is over, and writes nothing
// any more; and so does each delivery of every segment after that.
func TestClosingStopsWhoGoesOn(t *testing.T) {
	const segments = 10
	w := newWorld(t)
	m := w.cutInto(segments, 3)
	plan := w.begin(m)
	w.workers = 1
	w.look(plan.Restore)
	w.tables.Fault = func(c tabletest.Call) error {
		if c.Name == "Write" && c.N == 3 && c.After {
			if _, err := w.importer().GiveUp(t.Context(), w.run(), plan.Restore, "enough"); err != nil {
				t.Error(err)
			}
		}
		return nil
	}
	work, _ := w.take()
	reply, err := w.importer().Import(t.Context(), w.run(), work)
	if err != nil || !reply.Closed || reply.Continued || reply.Ended != 4 {
		t.Fatalf("%+v, %v", reply, err)
	}
	if n := w.tables.Calls("Write"); n != 4 {
		t.Errorf("%d batches were written, want the 4 that had begun", n)
	}
	for _, s := range plan.Segments {
		work.Segment = s.ID
		if reply, err := w.importer().Import(t.Context(), w.run(), work); err != nil || !reply.Closed && !reply.Superseded {
			t.Errorf("a late delivery of segment %s: %+v, %v", s.ID, reply, err)
		}
	}
	if n := w.tables.Calls("Write"); n != 4 || len(w.queue) > 0 {
		t.Errorf("%d batches were written, and %d more are to come", n, len(w.queue))
	}
	if p := w.finish(plan.Restore); p.State != backup.StateFailed || p.LastError != "enough" {
		t.Errorf("%+v", p)
	}
}
