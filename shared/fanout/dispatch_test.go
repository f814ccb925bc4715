package fanout

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// TestDamagedNotes has notes of starts and of failures that can't be read, or that say
// what can't be: their segments are begun again, and all others are left to themselves.
func TestDamagedNotes(t *testing.T) {
	now := time.Date(2026, 11, 20, 2, 14, 0, 0, time.UTC)
	store := &mem.Store{Now: func() time.Time { return now }}
	repo, err := repository.Init(t.Context(), store, now)
	if err != nil {
		t.Fatal(err)
	}
	run := Run{Now: func() time.Time { return now }, Until: now.Add(10 * time.Minute)}
	log := vault.Backup{Table: vault.TableID{Region: "local", Instance: "prod", Table: "orders"}, ID: "20261120T021400Z-0a1b2c3d"}.Log()
	begin := func(s vault.SegmentID, until time.Time) {
		t.Helper()
		if _, err := repo.Create(t.Context(), log.Start(s, 0), &vault.Note{Segment: s, Began: now, Until: until}); err != nil {
			t.Fatal(err)
		}
	}
	store.Replace(log.Start("000000", 0), []byte("{"))
	begin("000001", run.Until)
	begin("000002", run.Until)
	store.Replace(log.Failure("000002", 0), []byte("not even"))
	begin("000003", now.AddDate(73, 0, 0))
	open := []vault.SegmentID{"000000", "000001", "000002", "000003"}
	look := func() *Dispatch {
		t.Helper()
		d := &Dispatch{Log: NewLog(repo, log)}
		if err := d.Look(t.Context(), run, 0, open); err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := look()
	if want := []Start{{"000000", 1}, {"000002", 1}}; !slices.Equal(d.Ready, want) || d.Live != 2 || d.Over || !strings.Contains(d.Failure, "000000.json") {
		t.Errorf("ready are %v, want %v; %d live; %q", d.Ready, want, d.Live, d.Failure)
	}
	// The start after one that can't be read is begun as any other.
	w := &Worker{Log: NewLog(repo, log), Run: &run, At: Start{"000000", 1}}
	if _, err := w.begin(t.Context(), 0); err != nil || w.At.Number != 1 || w.Superseded {
		t.Errorf("%+v, %v", w.At, err)
	}
	// Nothing works for longer than a day, whatever it has said.
	now = now.Add(25 * time.Hour)
	if d := look(); !slices.Contains(d.Ready, Start{"000003", 1}) || d.Live != 0 {
		t.Errorf("ready are %v, %d live", d.Ready, d.Live)
	}
}

// TestFailuresOfLooks: of what several looks have found, a failure for good is told
// rather than one that may pass, and none hides one.
func TestFailuresOfLooks(t *testing.T) {
	for name, c := range map[string]struct {
		first, then Dispatch
		want        string
		over        bool
	}{
		"none, one":            {Dispatch{}, Dispatch{Failure: "b"}, "b", false},
		"one, none":            {Dispatch{Failure: "a"}, Dispatch{}, "a", false},
		"one, another":         {Dispatch{Failure: "a"}, Dispatch{Failure: "b"}, "b", false},
		"one, one for good":    {Dispatch{Failure: "a"}, Dispatch{Failure: "b", Over: true}, "b", true},
		"one for good, one":    {Dispatch{Failure: "a", Over: true}, Dispatch{Failure: "b"}, "a", true},
		"both for good":        {Dispatch{Failure: "a", Over: true}, Dispatch{Failure: "b", Over: true}, "b", true},
		"one for good, none":   {Dispatch{Failure: "a", Over: true}, Dispatch{}, "a", true},
		"none, one for good":   {Dispatch{}, Dispatch{Failure: "b", Over: true}, "b", true},
		"nothing at all, ever": {Dispatch{}, Dispatch{}, "", false},
	} {
		if c.first.Add(&c.then); c.first.Failure != c.want || c.first.Over != c.over {
			t.Errorf("%s: %q, over %t", name, c.first.Failure, c.first.Over)
		}
	}
}

// TestUntilWhen: a start that may be at work is told with the end of its time, if it has
// one.
func TestUntilWhen(t *testing.T) {
	now := time.Date(2026, 11, 20, 2, 14, 0, 0, time.UTC)
	for until, want := range map[time.Time]string{
		{}:                   "start 0 of segment 000000 (request r) may write, until it ends",
		now.Add(time.Minute): "start 0 of segment 000000 (request r) may write, until 2026-11-20T02:15:10Z",
	} {
		repo, err := repository.Init(t.Context(), &mem.Store{}, now)
		if err != nil {
			t.Fatal(err)
		}
		log := NewLog(repo, vault.Restore{ID: vault.NewRestoreID(now, "x")}.Log())
		run := Run{Request: "r", Until: until, Now: func() time.Time { return now }}
		if _, err := log.Claim(t.Context(), vault.Note{Segment: "000000"}, run); err != nil {
			t.Fatal(err)
		}
		if got, err := log.MayWork(t.Context(), "000000", run); got != want || err != nil {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
}
