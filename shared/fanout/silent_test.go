package fanout_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/objectfault"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// TestSilentStart kills a start that has told something: after a minute and a half the
// progress names it, with its request and its time, and after three another one is begun
// beside it, long before its time is over. One that never told anything may be of those
// who can't, and one beside which another is live already is left alone, whatever the
// clocks say.
func TestSilentStart(t *testing.T) {
	began := time.Date(2026, 11, 20, 2, 14, 0, 0, time.UTC)
	until := began.Add(15 * time.Minute)
	now := began
	clock := func() time.Time { return now }
	repo, err := repository.Init(t.Context(), &mem.Store{Now: clock}, began)
	if err != nil {
		t.Fatal(err)
	}
	log := vault.Restore{ID: vault.NewRestoreID(began, "x")}.Log()
	note := func(s vault.SegmentID, start int) {
		t.Helper()
		n := vault.Note{Segment: s, Start: start, Request: "r" + string(s), Began: now, Until: now.Add(15 * time.Minute)}
		if _, err := repo.Create(t.Context(), log.Start(s, start), &n); err != nil {
			t.Fatal(err)
		}
	}
	tell := func(s vault.SegmentID, start, n int) {
		t.Helper()
		if err := repo.Mark(t.Context(), vault.Told{Start: start, Number: n, Rows: int64(n)}.Name(log.Progress(s))); err != nil {
			t.Fatal(err)
		}
	}
	const killed, mute, alive = vault.SegmentID("000000"), vault.SegmentID("000001"), vault.SegmentID("000002")
	segments := []vault.SegmentID{killed, mute, alive}
	look := func() *fanout.Dispatch {
		t.Helper()
		d := &fanout.Dispatch{Log: fanout.NewLog(repo, log)}
		if err := d.Look(t.Context(), fanout.Run{Now: clock}, 0, segments); err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, s := range segments {
		note(s, 0)
	}
	tell(killed, 0, 1)
	said := "start 0 of segment 000000 (request r000000) was last heard of at " + began.Format(time.RFC3339) + " and may be at work until " + until.Format(time.RFC3339)
	for minute := 1; minute < 10; minute++ {
		now = began.Add(time.Duration(minute) * time.Minute)
		tell(alive, 0, minute)
		d := look()
		switch {
		case minute < 2:
			if d.Live != 3 || d.Silent != "" {
				t.Errorf("after a minute: %+v", d)
			}
		case minute < 3:
			if d.Live != 3 || d.Silent != said || d.Failure != "" {
				t.Errorf("after %d minutes: %+v", minute, d)
			}
		case minute == 3:
			if d.Live != 2 || len(d.Ready) != 1 || d.Ready[0] != (fanout.Start{Segment: killed, Number: 1}) || !strings.Contains(d.Failure, said) {
				t.Errorf("after %d minutes: %+v", minute, d)
			}
			note(killed, 1)
			tell(killed, 1, 1)
		default:
			// The second is silent as well, and the first still has its time.
			if d.Live != 3 || len(d.Ready) != 0 {
				t.Errorf("after %d minutes: %+v", minute, d)
			}
			if minute >= 6 && !strings.Contains(d.Silent, "start 1 of segment 000000") {
				t.Errorf("after %d minutes: %q", minute, d.Silent)
			}
		}
	}
	now = until.Add(time.Minute)
	tell(alive, 0, 10)
	if d := look(); len(d.Ready) != 3 || d.Ready[0] != (fanout.Start{Segment: killed, Number: 2}) {
		t.Errorf("after the first one's time: %+v", d)
	}
}

// TestSilentStartBesideOneThatCantBeRead: whether another start is live beside a silent
// one has to be known before a third is begun. One that left no note is not.
func TestSilentStartBesideOneThatCantBeRead(t *testing.T) {
	for name, want := range map[string]error{"no note": nil, "a note that can't be read now": objectfault.ErrInjected} {
		t.Run(name, func(t *testing.T) {
			began := time.Date(2026, 11, 20, 2, 14, 0, 0, time.UTC)
			store := &mem.Store{Now: func() time.Time { return began }}
			repo, err := repository.Init(t.Context(), store, began)
			if err != nil {
				t.Fatal(err)
			}
			names := vault.Restore{ID: vault.NewRestoreID(began, "x")}.Log()
			n := vault.Note{Segment: "000000", Start: 1, Began: began, Until: began.Add(15 * time.Minute)}
			if _, err := repo.Create(t.Context(), names.Start("000000", 1), &n); err != nil {
				t.Fatal(err)
			}
			if err := repo.Mark(t.Context(), vault.Told{Start: 1, Number: 1, Rows: 1}.Name(names.Progress("000000"))); err != nil {
				t.Fatal(err)
			}
			if want != nil {
				faulty := objectfault.New(store, &objectfault.Fault{Op: objectfault.Open, Call: objectfault.Every, When: objectfault.Before,
					Match: func(name string) bool { return name == names.Start("000000", 0) }})
				if repo, err = repository.Open(t.Context(), faulty); err != nil {
					t.Fatal(err)
				}
			}
			d := &fanout.Dispatch{Log: fanout.NewLog(repo, names)}
			err = d.Look(t.Context(), fanout.Run{Now: func() time.Time { return began.Add(5 * time.Minute) }}, 0, []vault.SegmentID{"000000"})
			if !errors.Is(err, want) || want == nil && (len(d.Ready) != 1 || d.Ready[0].Number != 2) {
				t.Errorf("ready are %v, %v", d.Ready, err)
			}
		})
	}
}
