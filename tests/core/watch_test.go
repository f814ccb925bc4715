package core_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// seenRows is what a look saw, and when.
type seenRows struct {
	rows, expected int64
	perSecond      float64
	left           *float64
}

// whileAtWork looks every five seconds as long as work goes on.
func whileAtWork(t *testing.T, work func(), look func() seenRows) (seen []seenRows) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		work()
	}()
	for {
		select {
		case <-done:
			return seen
		case <-time.After(5 * time.Second):
			seen = append(seen, look())
		}
	}
}

// grew fails the test unless rows came look by look, of rows that take about a minute,
// with the time that is left told rightly.
func grew(t *testing.T, seen []seenRows, rows int64) {
	t.Helper()
	if len(seen) < 8 {
		t.Fatalf("only %d looks", len(seen))
	}
	grew := 0
	for i, s := range seen {
		if s.rows > rows || i > 0 && s.rows < seen[i-1].rows {
			t.Errorf("look %d sees %d of %d rows, the one before %d", i, s.rows, rows, seen[max(0, i-1)].rows)
		}
		if i > 0 && s.rows > seen[i-1].rows {
			grew++
		}
		if s.left == nil {
			continue
		}
		// What is told is up to half as old as the work.
		if really := float64(len(seen)-i) * 5; *s.left < really/3-5 || *s.left > 3*really+10 {
			t.Errorf("look %d says %.0f s are left, there are %.0f", i, *s.left, really)
		}
	}
	if grew < 3 || seen[1].rows == 0 || seen[1].perSecond == 0 || seen[1].left == nil {
		t.Errorf("it grew %d times, after ten seconds it was %+v", grew, seen[1])
	}
}

// TestWatchedInside watches a backup and a restore of one segment that is one part: there
// is no record of it before its end, and yet rows are seen to come, and how long it will
// take.
func TestWatchedInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := vaulttest.NewWorld(t)
		w.Fill(vaulttest.Definition(), 3000)
		w.Tables.PageRows = 50
		w.Tell = time.Second
		one := vault.Settings{Lanes: 1}
		rows := w.Backup(one).Totals.Rows // what the next is held against
		w.Advance(time.Hour)
		begun := time.Now()
		day := w.Clock()
		clock := func() time.Time { return day.Add(time.Since(begun)) }
		w.Instance = vaulttest.Busy{Instance: w.Tables, Units: 1, Answer: func() (time.Duration, bool) { return time.Second, false }}

		plan, err := w.Planner().Plan(t.Context(), backup.PlanRequest{Table: vaulttest.SourceID, Kind: vault.Full, At: w.Clock(), Trigger: "again", New: true, Settings: one})
		if err != nil || len(plan.Segments) != 1 {
			t.Fatalf("%+v: %v", plan, err)
		}
		b := vault.Backup{Table: vaulttest.SourceID, ID: plan.Backup}
		if _, err := w.Planner().Tick(t.Context(), w.Run(), b); err != nil {
			t.Fatal(err)
		}
		watcher := backup.Watch(w.Repo, b, clock)
		seen := whileAtWork(t, w.Work, func() seenRows {
			s, err := watcher.Look(t.Context())
			if err != nil || s.State != backup.StateRunning || s.Expected != rows {
				t.Fatalf("%+v: %v", s, err)
			}
			return seenRows{s.Totals.Rows, s.Expected, s.RowsPerSecond, s.Left}
		})
		grew(t, seen, rows)
		m := w.Sealed(w.Planner(), b)
		if s, err := watcher.Look(t.Context()); err != nil || s.Totals.Rows != rows || s.State != backup.StateSealed || s.Left != nil || len(m.Groups) != 1 {
			t.Errorf("%+v: %v", s, err)
		}

		r := w.Begin(m)
		if _, err := w.Restorer().Tick(t.Context(), w.Run(), r.Restore); err != nil {
			t.Fatal(err)
		}
		w.Work()
		begun, day = time.Now(), w.Clock()
		if p, err := w.Restorer().Tick(t.Context(), w.Run(), r.Restore); err != nil || p.State != restore.StateVerifying || p.Dispatched != 1 {
			t.Fatalf("%+v: %v", p, err)
		}
		watching := restore.Watch(w.Repo, r.Restore, clock)
		seen = whileAtWork(t, w.Work, func() seenRows {
			s, err := watching.Look(t.Context())
			if err != nil || s.State != restore.StateVerifying || s.LoadedRows != rows || s.Live != 1 {
				t.Fatalf("%+v: %v", s, err)
			}
			return seenRows{s.CheckedRows, s.Rows, s.RowsPerSecond, s.Left}
		})
		grew(t, seen, rows)
		w.Proved(w.Finish(r.Restore), vault.OK)
		s, err := watching.Look(t.Context())
		if err != nil || s.State != restore.StateDone || s.CheckedRows != rows || s.Verdict != vault.OK || s.Target != "prod/orders_copy" || s.Proof == "" {
			t.Errorf("%+v: %v", s, err)
		}
	})
}

// TestWatchedRestore watches a restore from its plan to its end: what is loaded, what is
// compared, what goes wrong, and that it was given up.
func TestWatchedRestore(t *testing.T) {
	w := vaulttest.NewWorld(t)
	m := w.CutInto(5, 100)
	r := w.Begin(m)
	watcher := restore.Watch(w.Repo, r.Restore, w.Clock)
	look := func() restore.Watched {
		t.Helper()
		s, err := watcher.Look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := look(); s.State != restore.StateLoading || s.LoadedRows != 0 || s.Rows != m.Totals.Rows || s.Segments != 5 || s.Live != 0 || s.Backup != m.Backup {
		t.Errorf("%+v", s)
	}
	if _, err := w.Restorer().Tick(t.Context(), w.Run(), r.Restore); err != nil {
		t.Fatal(err)
	}
	of := vault.Restore{ID: r.Restore}
	if _, err := fanout.NewLog(w.Repo, of.Log()).Begin(t.Context(), vault.Note{Segment: "000001"}, w.Run()); err != nil {
		t.Fatal(err)
	}
	if err := w.Repo.Mark(t.Context(), vault.Told{Number: 1, Rows: 7, Bytes: 7}.Name(of.Log().Progress("000001"))); err != nil {
		t.Fatal(err)
	}
	if s := look(); s.Live != 1 || s.LoadedRows != 7 {
		t.Errorf("%+v", s)
	}
	w.Advance(time.Hour) // its time is up
	if s := look(); s.Live != 0 || s.LastError == "" {
		t.Errorf("%+v", s)
	}
	w.Work()
	if _, err := w.Restorer().Tick(t.Context(), w.Run(), r.Restore); err != nil {
		t.Fatal(err)
	}
	w.Work()
	if s := look(); s.LoadedRows != s.Rows {
		t.Errorf("%+v", s)
	}
	if _, err := restore.GiveUp(t.Context(), w.Repo, w.Run(), r.Restore, "it was the wrong one"); err != nil {
		t.Fatal(err)
	}
	if s := look(); s.State != restore.StateFailed || s.LastError != "it was the wrong one" || s.Ended.IsZero() {
		t.Errorf("%+v", s)
	}
	if _, err := restore.Watch(w.Repo, "20200101T000000Z-00000000", w.Clock).Look(t.Context()); err == nil {
		t.Error("a restore that never was is watched")
	}
}
