package drill_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object/objectfault"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
)

// TestAnyOrder lets anything happen, in any order: ticks that are lost, late, doubled or
// of the past, work that is lost or delivered late, calls that fail, rows that are
// refused, days that go by. At no time is there more than one table of drills for a
// source, and no other table is touched; when all is well again, the newest drill is
// proved and nothing is left.
func TestAnyOrder(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	begun := 0
	for round := range uint64(6) {
		random := rand.New(rand.NewPCG(seed, round))
		w := newWorld(t, 30)
		w.make("events", 30)
		sources := []string{"orders", "events"}
		theirs := w.inTheWay("theirs")
		likely := func(percent int) bool { return random.IntN(100) < percent }
		failing := 0
		fault := func(tabletest.Call) error {
			if likely(failing) {
				return fmt.Errorf("injected: %w", table.ErrUnavailable)
			}
			return nil
		}
		w.Tables.Fault, w.Staging.Fault = fault, fault
		store := w.Store
		var late []fanout.Work
		for range 60 {
			failing = random.IntN(2) * random.IntN(30)
			w.Staging.Refuse = nil
			if likely(30) {
				w.refuse()
			}
			for range random.IntN(3) {
				at := w.Clock()
				if likely(10) {
					at = at.Add(-time.Duration(random.IntN(72)) * time.Hour)
				}
				// A tick that fails half way is as good as one that dies.
				_, _ = w.Reconciler(seldom).Tick(t.Context(), w.Run(), at)
				faulty := objectfault.New(store, &objectfault.Fault{
					Op:   []objectfault.Op{objectfault.Create, objectfault.Open, objectfault.List}[random.IntN(3)],
					When: []objectfault.When{objectfault.Before, objectfault.After}[random.IntN(2)], Call: 1 + random.IntN(30),
				})
				repo, err := repository.Open(t.Context(), faulty)
				if err != nil {
					t.Fatal(err)
				}
				r := w.rehearser(seldom)
				r.Repo = repo
				_, _ = r.Tick(t.Context(), w.Run(), at)
			}
			switch {
			case likely(20):
				w.Drain()
			case likely(20):
				late = append(late, w.Drain()...)
			case likely(20):
				w.Queue, late = append(w.Queue, late...), nil
			}
			w.work()
			w.Advance([]time.Duration{time.Minute, 10 * time.Minute, time.Hour, 13 * time.Hour, 40 * time.Hour}[random.IntN(5)])

			failing = 0
			names, err := w.Staging.Tables(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, source := range sources {
				n := 0
				for _, name := range names {
					if strings.HasPrefix(name, "drill_"+source+"_") {
						n++
					}
				}
				if n > 1 {
					t.Fatalf("round %d: %q are there at once; the drills: %s", round, names, w.said(source))
				}
			}
		}
		failing, w.Staging.Refuse = 0, nil
		for range 3 {
			w.Advance(25 * time.Hour)
			w.settle(daily)
		}
		for _, source := range sources {
			said := w.said(source)
			begun += strings.Count(said, ",") + 1
			if !strings.HasSuffix(said, "proved dropped") || strings.Contains(said, "open") || strings.Count(said, "dropped")+strings.Count(said, "left") != strings.Count(said, ",")+1 {
				t.Errorf("round %d: the drills of %s: %s", round, source, said)
			}
		}
		w.left(theirs)
	}
	if begun < 40 {
		t.Errorf("only %d drills were begun", begun)
	}
	t.Logf("%d drills", begun)
}

// TestEveryCallFails fails each call of the store that the drills make, before and after
// it took effect, and each of their calls of the instances: the ticks after it make up
// for it, and the outcome is the same.
func TestEveryCallFails(t *testing.T) {
	// A drill that fails, and one that drops its table, are in each run.
	rounds := func(t *testing.T, w *world, tick func()) {
		t.Helper()
		w.refuse()
		for day := range 2 {
			for range 8 {
				w.Tick(seldom)
				tick()
				w.work()
				w.Advance(10 * time.Minute)
			}
			w.Staging.Refuse = nil
			if day == 0 {
				w.Advance(23 * time.Hour)
			}
		}
		w.is("20T00:00 failed dropped, 21T00:00 proved dropped")
		w.left()
	}
	t.Run("store", func(t *testing.T) {
		runs := 0
		for fault := range objectfault.EachCall() {
			runs++
			w := sealed(t, 6)
			faulty := objectfault.New(w.Store, fault)
			repo, err := repository.Open(t.Context(), faulty)
			if err != nil {
				if repo, err = repository.Open(t.Context(), faulty); err != nil {
					t.Fatal(err)
				}
			}
			failed := 0
			rounds(t, w, func() {
				r := w.rehearser(daily)
				r.Repo = repo
				if s, err := r.Tick(t.Context(), w.Run(), w.Clock()); err != nil || len(s.Reports) > 0 {
					failed++
				}
			})
			if t.Failed() {
				t.Fatalf("with %v, of which %d ticks told", fault, failed)
			}
		}
		if runs < 60 {
			t.Fatalf("%d calls failed", runs)
		}
		t.Logf("%d calls failed", runs)
	})
	t.Run("tables", func(t *testing.T) {
		runs := 0
		for _, method := range []string{"Tables", "Describe", "DropTable"} {
			for n := 0; ; n++ {
				reached := false
				for _, after := range []bool{false, true} {
					w := sealed(t, 6)
					ticking, calls := false, 0
					fault := func(c tabletest.Call) error {
						if !ticking || c.Name != method || c.After != after {
							return nil
						}
						if calls++; calls-1 != n {
							return nil
						}
						reached = true
						return fmt.Errorf("injected: %w", table.ErrUnavailable)
					}
					w.Tables.Fault, w.Staging.Fault = fault, fault
					rounds(t, w, func() {
						ticking = true
						defer func() { ticking = false }()
						if _, err := w.rehearser(daily).Tick(t.Context(), w.Run(), w.Clock()); err != nil {
							t.Error(err)
						}
					})
					if t.Failed() {
						t.Fatalf("with call %d of %s, after %t", n, method, after)
					}
				}
				if !reached {
					break
				}
				runs++
			}
		}
		if runs < 5 {
			t.Fatalf("%d calls failed", runs)
		}
		t.Logf("%d calls failed", runs)
	})
}
