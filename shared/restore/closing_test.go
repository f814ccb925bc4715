package restore_test

import (
	"context"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// watched is a store whose lists leave some names out, as if they were late, and which
// tells of objects before it creates them.
type watched struct {
	object.Store
	late   func(name string) bool
	before func(name string)
}

func (s watched) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		for info, err := range s.Store.List(ctx, prefix, after) {
			if err == nil && s.late != nil && s.late(info.Name) {
				continue
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

func (s watched) Create(ctx context.Context, name string, r io.Reader) (object.Info, error) {
	if s.before != nil {
		s.before(name)
	}
	return s.Store.Create(ctx, name, r)
}

func watch(w *vaulttest.World, s watched) *repository.Repository {
	w.T.Helper()
	s.Store = w.Store
	repo, err := repository.Open(w.T.Context(), s)
	if err != nil {
		w.T.Fatal(err)
	}
	return repo
}

// TestClosingSeesWhatListsDoNot has a writer at work that no list shows: its segment is
// compared, and does not count as settled, and the table is not handed over before the
// writer has ended.
func TestClosingSeesWhatListsDoNot(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 50)
	plan := w.Begin(w.Backup(vault.Settings{}))
	r := vault.Restore{ID: plan.Restore}
	tick := func() restore.Progress {
		t.Helper()
		p, err := w.Restorer().Tick(t.Context(), w.Run(), plan.Restore)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	tick()
	end := loadedBesideAWriter(w)
	plain := w.Repo
	w.Repo = watch(w, watched{late: func(name string) bool { return strings.HasPrefix(name, r.Log().Starts("")) }})
	if p := tick(); p.State != restore.StateVerifying || p.Waiting != "" || p.Dispatched != 1 {
		t.Fatalf("without the starts in lists: %+v", p)
	}
	w.Work()
	for range 2 {
		if p := tick(); p.State != restore.StateClosing || !strings.Contains(p.Waiting, "start 0 of segment 000000") {
			t.Fatalf("with a writer at work: %+v", p)
		}
	}
	var group vault.CheckedGroup
	if _, err := plain.Read(t.Context(), r.Group(0), &group); err != nil || !slices.Equal(group.Unsettled, []vault.SegmentID{"000000"}) {
		t.Errorf("%+v, %v", group, err)
	}
	if def, err := w.Tables.Describe(t.Context(), vaulttest.TargetID.Table); err != nil || def.Options == plan.Definition.Options {
		t.Errorf("the table has its options already: %+v, %v", def, err)
	}
	end()
	w.Proved(tick(), vault.OK)
	w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
}

// TestStartAfterTheEnd notes a start when the log of its segment, which it has read
// before, has ended meanwhile and the segment was compared and is settled: though the
// restore is open, it writes nothing.
func TestStartAfterTheEnd(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 2000)
	w.Tables.PageRows = 50
	plan := w.Begin(w.Backup(vault.Settings{PartBytes: 40 << 10}))
	r, s := vault.Restore{ID: plan.Restore}, plan.Segments[0].ID
	work := fanout.Work{Verb: fanout.VerbImport, Restore: plan.Restore, Segment: s}
	if err := vaulttest.BeginAndDie(w, work); err != nil {
		t.Fatal(err)
	}
	w.Advance(11 * time.Minute)
	writes := 0
	l := w.Loader()
	l.Repo = watch(w, watched{before: func(name string) {
		if name != r.Log().Start(s, 1) || writes > 0 {
			return
		}
		if reply, err := w.Loader().Load(t.Context(), w.Run(), work); err != nil || !reply.Done {
			t.Errorf("%+v, %v", reply, err)
		}
		compare := work
		compare.Verb = fanout.VerbVerify
		if reply, err := w.Checker().Check(t.Context(), w.Run(), compare); err != nil || reply.Verdict != vault.OK {
			t.Errorf("%+v, %v", reply, err)
		}
		var check vault.SegmentCheck
		if _, err := w.Repo.Read(t.Context(), r.Check(s), &check); err != nil || !check.Settled {
			t.Errorf("%+v, %v", check, err)
		}
		writes = w.Tables.Calls("Write")
	}})
	late, run := work, w.Run()
	late.Start, run.Retry = 1, 1
	if reply, err := l.Load(t.Context(), run, late); err != nil || !reply.Done || reply.Start != 2 || reply.Rows != 0 {
		t.Fatalf("%+v, %v", reply, err)
	}
	if n := w.Tables.Calls("Write") - writes; writes == 0 || n != 0 {
		t.Errorf("%d batches were written, and %d after the segment was settled", writes, n)
	}
	w.Proved(w.Finish(plan.Restore), vault.OK)
}

// TestUnsettled closes a restore whose checks do not tell that segments are settled, as
// those of an earlier version: it looks at each by name.
func TestUnsettled(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Keyed(vaulttest.IntKey, vaulttest.Ints(100))
	planner := w.Planner()
	plan := w.Begin(w.Sealed(planner, w.Plan(planner, vault.Settings{Lanes: 1}, vaulttest.Cuts(100, 5)...)))
	r := vault.Restore{ID: plan.Restore}
	segment := plan.Segments[len(plan.Segments)/2].ID
	tick := func() restore.Progress {
		t.Helper()
		p, err := w.Restorer().Tick(t.Context(), w.Run(), plan.Restore)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	tick()
	w.Work()
	tick()
	w.Work()
	if len(plan.Segments) != 5 {
		t.Fatalf("%d segments", len(plan.Segments))
	}
	for _, s := range plan.Segments {
		rewrite(w, r.Check(s.ID), func(c *vault.SegmentCheck) {
			if !c.Settled {
				t.Errorf("segment %s is not settled", s.ID)
			}
			c.Settled = false
		})
	}
	run := w.Run()
	note := vault.Note{Segment: segment, Start: 1, Began: run.Now(), Until: run.Until}
	if _, err := w.Repo.Create(t.Context(), r.Log().Start(segment, 1), &note); err != nil {
		t.Fatal(err)
	}
	if p := tick(); p.State != restore.StateClosing || !strings.Contains(p.Waiting, "start 1 of segment "+string(segment)) {
		t.Fatalf("%+v", p)
	}
	watchedWaiting(w, plan.Restore, "start 1 of segment "+string(segment))
	w.Advance(11 * time.Minute)
	w.Proved(tick(), vault.OK)
}

// watchedWaiting holds against a watcher's look, which is what people see, that it says
// which start the restore waits for, and what then happens; none if it is empty.
func watchedWaiting(w *vaulttest.World, id vault.RestoreID, start string) {
	w.T.Helper()
	seen, err := restore.Watch(w.Repo, id, w.Clock).Look(w.T.Context())
	if err != nil {
		w.T.Fatal(err)
	}
	for _, part := range []string{start, "until ", "planner's timer", "same command"} {
		if start == "" && seen.Waiting != "" || start != "" && !strings.Contains(seen.Waiting, part) {
			w.T.Errorf("the watcher says of waiting: %q, want %q", seen.Waiting, part)
		}
	}
}

// rewrite puts another document in the place of one.
func rewrite[T any, D interface {
	*T
	vault.Document
}](w *vaulttest.World, name string, change func(D)) {
	w.T.Helper()
	d := D(new(T))
	if _, err := w.Repo.Read(w.T.Context(), name, d); err != nil {
		w.T.Fatal(err)
	}
	change(d)
	w.Remove(name)
	if _, err := w.Repo.Create(w.T.Context(), name, d); err != nil {
		w.T.Fatal(err)
	}
}

// TestKilledComparison kills a worker that compares a segment, and has told that it does:
// the progress names it, and the restore goes on three minutes later, long before the
// invocation's time is over.
func TestKilledComparison(t *testing.T) {
	w := vaulttest.NewWorld(t)
	plan := w.Begin(w.CutInto(4, 20))
	w.Look(plan.Restore)
	w.Work()
	w.Look(plan.Restore)
	work, ok := w.Take()
	if !ok || work.Verb != fanout.VerbVerify {
		t.Fatalf("%+v", work)
	}
	r := vault.Restore{ID: plan.Restore}
	run := w.Run()
	if _, err := fanout.NewLog(w.Repo, r.Verify()).Claim(t.Context(), vault.Note{Segment: work.Segment}, run); err != nil {
		t.Fatal(err)
	}
	if err := w.Repo.Mark(t.Context(), vault.Told{Number: 1, Rows: 5}.Name(r.Verify().Progress(work.Segment))); err != nil {
		t.Fatal(err)
	}
	killed, named := w.Clock(), false
	w.Work()
	var p restore.Progress
	for p.State != restore.StateDone && w.Clock().Before(run.Until) {
		w.Advance(15 * time.Second)
		p = w.Look(plan.Restore)
		named = named || strings.Contains(p.Silent, "start 0 of segment "+string(work.Segment)+" (request "+run.Request+")")
		w.Work()
	}
	w.Proved(p, vault.OK)
	if took := w.Clock().Sub(killed); took > 4*time.Minute || !named {
		t.Errorf("it took %v; the progress named the start: %t", took, named)
	}
}

// TestGivenUpWhileClosing gives a restore up at the moment at which it is about to be
// closed: it has failed, and its table gets no settings and no proof.
func TestGivenUpWhileClosing(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 50)
	plan := w.Begin(w.Backup(vault.Settings{}))
	r := vault.Restore{ID: plan.Restore}
	for range 2 {
		w.Look(plan.Restore)
		w.Work()
	}
	planner := w.Restorer()
	given := false
	planner.Repo = watch(w, watched{before: func(name string) {
		if name != r.Closed() || given {
			return
		}
		given = true
		if _, err := restore.GiveUp(t.Context(), w.Repo, w.Run(), plan.Restore, "enough"); err != nil {
			t.Error(err)
		}
	}})
	p, err := planner.Tick(t.Context(), w.Run(), plan.Restore)
	if err != nil || !given || p.State != restore.StateFailed || p.LastError != "enough" || p.Proof != nil {
		t.Errorf("%+v, %v", p, err)
	}
	if w.Exists(r.Proof()) || !w.Exists(r.Restored()) {
		t.Error("it is proved, or goes on")
	}
	if def, err := w.Tables.Describe(t.Context(), vaulttest.TargetID.Table); err != nil || def.Options == plan.Definition.Options {
		t.Errorf("%+v, %v", def, err)
	}
}
