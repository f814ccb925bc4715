package fanout_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// TestMayWork asks which start may still be at work: one is over that has left a mark, or
// the note of a failure that leaves nothing in doubt, or whose time has passed with ten
// seconds more. What can't be read leaves everything in doubt.
func TestMayWork(t *testing.T) {
	began := time.Date(2026, 11, 20, 2, 14, 0, 0, time.UTC)
	const s = vault.SegmentID("000000")
	for _, c := range []struct {
		name string
		// left is what the start has left, under the log that it belongs to.
		left  func(*repository.Repository, vault.Log) error
		until time.Duration // of the start; 0 for never
		over  time.Duration // when it is over; less than 0 for never
	}{
		{name: "nothing", left: func(*repository.Repository, vault.Log) error { return nil }, until: time.Hour, over: time.Hour + 10*time.Second},
		{name: "nothing, and it has all the time", left: func(*repository.Repository, vault.Log) error { return nil }, over: -1},
		{name: "a mark", left: func(r *repository.Repository, log vault.Log) error { return r.Mark(t.Context(), log.End(s, 0)) }, until: time.Hour},
		{name: "a failure", left: func(r *repository.Repository, log vault.Log) error {
			return noted(fanout.NewLog(r, log).Fail(t.Context(), fanout.Start{Segment: s, Number: 0}, fanout.Run{Now: func() time.Time { return began }}, false, errFailed))
		}, until: time.Hour},
		{name: "a failure in doubt", left: func(r *repository.Repository, log vault.Log) error {
			return noted(fanout.NewLog(r, log).Fail(t.Context(), fanout.Start{Segment: s, Number: 0}, fanout.Run{Now: func() time.Time { return began }}, false, fanout.InDoubt(errFailed)))
		}, until: time.Hour, over: time.Hour + 10*time.Second},
		{name: "a failure in doubt of one that has all the time", left: func(r *repository.Repository, log vault.Log) error {
			return noted(fanout.NewLog(r, log).Fail(t.Context(), fanout.Start{Segment: s, Number: 0}, fanout.Run{Now: func() time.Time { return began }}, false, fanout.InDoubt(errFailed)))
		}, over: 10 * time.Second},
		{name: "a failure that can't be read", left: func(r *repository.Repository, log vault.Log) error {
			_, err := r.Store().Create(t.Context(), log.Failure(s, 0), strings.NewReader("?"))
			return err
		}, until: time.Hour, over: time.Hour + 10*time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			repo, err := repository.Init(t.Context(), &mem.Store{Now: func() time.Time { return began }}, began)
			if err != nil {
				t.Fatal(err)
			}
			log := vault.Restore{ID: vault.NewRestoreID(began, "x")}.Log()
			note := vault.Note{Segment: s, Request: "r", Began: began}
			if c.until > 0 {
				note.Until = began.Add(c.until)
			}
			if _, err := repo.Create(t.Context(), log.Start(s, 0), &note); err != nil {
				t.Fatal(err)
			}
			if err := c.left(repo, log); err != nil {
				t.Fatal(err)
			}
			for _, at := range []time.Duration{0, 10 * time.Second, 11 * time.Second, time.Hour + 10*time.Second, time.Hour + 11*time.Second, 30 * 24 * time.Hour} {
				run := fanout.Run{Now: func() time.Time { return began.Add(at) }}
				over := c.over >= 0 && (c.over == 0 || at > c.over)
				byName, err := fanout.NewLog(repo, log).MayWork(t.Context(), s, run)
				if err != nil {
					t.Fatal(err)
				}
				byList, err := fanout.NewLog(repo, log).AtWork(t.Context(), 0, run)
				if err != nil {
					t.Fatal(err)
				}
				if (byName == "") != over || byList != byName || byName != "" && !strings.Contains(byName, "start 0 of segment 000000 (request r)") {
					t.Errorf("after %v: %q by name, %q by list; is it over? %t", at, byName, byList, over)
				}
			}
		})
	}
}

var errFailed = errors.New("it has failed")

// noted says that the failure was noted, and nothing else went wrong.
func noted(err error) error {
	if errors.Is(err, errFailed) && !strings.Contains(err.Error(), "noting it") {
		return nil
	}
	return errors.Join(errors.New("not noted"), err)
}
