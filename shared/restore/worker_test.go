package restore_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object/objectmeter"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// startsOf are the names of the notes of the starts of a restore's segments.
func startsOf(w *vaulttest.World, id vault.RestoreID) (names []string) {
	w.T.Helper()
	for info, err := range w.Store.List(w.T.Context(), vault.Restore{ID: id}.Log().Starts(""), "") {
		if err != nil {
			w.T.Fatal(err)
		}
		names = append(names, info.Name)
	}
	return names
}

// TestLoadersGoOn restores a table of two groups with four workers and one look: they
// work until nothing is left, at a list per segment, and each segment is begun once.
func TestLoadersGoOn(t *testing.T) {
	const segments, rows, workers = 300, 2, 4
	w := vaulttest.NewWorld(t)
	m := w.CutInto(segments, rows)
	plan := w.Begin(m)
	meter := objectmeter.New(w.Store)
	var err error
	if w.Repo, err = repository.Open(t.Context(), meter); err != nil {
		t.Fatal(err)
	}
	w.Workers = workers
	if p := w.Look(plan.Restore); p.Dispatched != workers || p.Segments != segments {
		t.Fatalf("%+v", p)
	}
	before := meter.Usage()
	ended := 0
	for _, work := range w.Drain() {
		reply, err := w.Loader().Load(t.Context(), w.Run(), work)
		if err != nil || reply.Continued {
			t.Fatalf("%+v, %v", reply, err)
		}
		ended += reply.Ended
	}
	if ended != segments || len(w.Queue) > 0 {
		t.Errorf("%d of %d segments have ended, %d invocations are to come", ended, segments, len(w.Queue))
	}
	if n := len(startsOf(w, plan.Restore)); n != segments {
		t.Errorf("%d starts of %d segments", n, segments)
	}
	// Beside the list by which it is found, a segment of one part and one batch costs
	// four objects: start, slot, and the marks that it is loaded and that the start
	// is over. It reads where its log ends, whether the restore is open, twice, the
	// slot that it works for, the shard and its index.
	used := meter.Usage().Sub(before)
	t.Logf("%d segments: %+v", segments, used)
	if used.List > segments+20 || used.Create > 4*segments+20 || used.Open+used.Stat > 6*segments+40 {
		t.Errorf("%d lists, %d objects, %d reads for %d segments", used.List, used.Create, used.Open+used.Stat, segments)
	}
	w.Proved(w.Finish(plan.Restore), vault.OK)
	w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
}

// TestLoadersGoOnSideBySide races many workers for few segments: each is begun once, and
// whoever comes again leaves it alone.
func TestLoadersGoOnSideBySide(t *testing.T) {
	const segments = 60
	w := vaulttest.NewWorld(t)
	m := w.CutInto(segments, 3)
	plan := w.Begin(m)
	w.Workers = 12
	w.Look(plan.Restore)
	queue := w.Drain()
	var all sync.WaitGroup
	for _, work := range append(queue, queue...) {
		all.Go(func() {
			if _, err := w.Loader().Load(t.Context(), w.Run(), work); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, name := range startsOf(w, plan.Restore) {
		if !strings.HasSuffix(name, "000000.json") {
			t.Errorf("begun more than once: %s", name)
		}
	}
	if n := len(startsOf(w, plan.Restore)); n != segments {
		t.Errorf("%d starts of %d segments", n, segments)
	}
	w.Proved(w.Finish(plan.Restore), vault.OK)
	w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
}

// TestLoadersGoOnInTheNextInvocation ends each invocation after a segment or two: what it
// finds then goes to the next, without a look of the planner.
func TestLoadersGoOnInTheNextInvocation(t *testing.T) {
	const segments = 40
	w := vaulttest.NewWorld(t)
	m := w.CutInto(segments, 3)
	plan := w.Begin(m)
	w.Workers, w.Hop = 1, 12
	w.Look(plan.Restore)
	w.Work()
	w.Hop = 0
	p := w.Look(plan.Restore)
	if p.Loaded != segments || p.State != restore.StateVerifying {
		t.Errorf("%+v", p)
	}
	w.Proved(w.Finish(plan.Restore), vault.OK)
	w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
}

// TestClosingStopsWhoGoesOn closes a restore while a worker is between two of its
// segments: it begins the next, sees that the restore is over, and writes nothing any
// more; and so does each delivery of every segment after that.
func TestClosingStopsWhoGoesOn(t *testing.T) {
	const segments = 10
	w := vaulttest.NewWorld(t)
	m := w.CutInto(segments, 3)
	plan := w.Begin(m)
	w.Workers = 1
	w.Look(plan.Restore)
	w.Tables.Fault = func(c tabletest.Call) error {
		if c.Name == "Write" && c.N == 3 && c.After {
			if _, err := restore.GiveUp(t.Context(), w.Repo, w.Run(), plan.Restore, "enough"); err != nil {
				t.Error(err)
			}
		}
		return nil
	}
	work, _ := w.Take()
	reply, err := w.Loader().Load(t.Context(), w.Run(), work)
	if err != nil || !reply.Closed || reply.Continued || reply.Ended != 4 {
		t.Fatalf("%+v, %v", reply, err)
	}
	if n := w.Tables.Calls("Write"); n != 4 {
		t.Errorf("%d batches were written, want the 4 that had begun", n)
	}
	for _, s := range plan.Segments {
		work.Segment = s.ID
		if reply, err := w.Loader().Load(t.Context(), w.Run(), work); err != nil || !reply.Closed && !reply.Superseded {
			t.Errorf("a late delivery of segment %s: %+v, %v", s.ID, reply, err)
		}
	}
	if n := w.Tables.Calls("Write"); n != 4 || len(w.Queue) > 0 {
		t.Errorf("%d batches were written, and %d more are to come", n, len(w.Queue))
	}
	if p := w.Finish(plan.Restore); p.State != backup.StateFailed || p.LastError != "enough" {
		t.Errorf("%+v", p)
	}
}

// TestSecondDeliveryKeepsToTheBudget delivers a start twice of a restore that has a
// budget: the second worker goes on with nothing else, since one worker more would use
// more than the budget; without a budget it helps.
func TestSecondDeliveryKeepsToTheBudget(t *testing.T) {
	for _, budget := range []vault.Budget{{}, {WriteUnits: 1000, ReadUnits: 1000}} {
		t.Run(budget.String(), func(t *testing.T) {
			w := vaulttest.NewWorld(t)
			req := w.Request(w.CutInto(3, 20))
			req.Budget = budget
			plan, err := w.Restorer().Begin(t.Context(), w.Run(), req)
			if err != nil {
				t.Fatal(err)
			}
			w.Look(plan.Restore)
			r := vault.Restore{ID: plan.Restore}
			for verb, log := range map[fanout.Verb]vault.Log{fanout.VerbImport: r.Log(), fanout.VerbVerify: r.Verify()} {
				work := fanout.Work{
					Verb: verb, Restore: plan.Restore, Segment: "000001", WriteUnits: plan.LoadShare(), ReadUnits: plan.CompareShare(),
				}
				if _, err := fanout.NewLog(w.Repo, log).Claim(t.Context(), vault.Note{Segment: work.Segment}, w.Run()); err != nil {
					t.Fatal(err)
				}
				if err := w.Do(work); err != nil {
					t.Fatal(err)
				}
				for _, other := range []vault.SegmentID{"000000", "000002"} {
					if begun := w.Exists(log.Start(other, 0)); begun != (budget == vault.Budget{}) {
						t.Errorf("%s: segment %s is begun: %t", verb, other, begun)
					}
				}
			}
		})
	}
}
