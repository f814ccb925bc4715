package restore_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// A budgeted world has a backup of ten segments of a lane each, whose reads cost a
// thousand units a page.
type budgeted struct {
	*vaulttest.World
	m *vault.Manifest
}

func newBudgeted(t *testing.T) *budgeted {
	w := vaulttest.NewWorld(t)
	w.Keyed(vaulttest.IntKey, vaulttest.Ints(100))
	p := w.Planner()
	w.Instance = vaulttest.Busy{Instance: w.Tables, Units: 1000, Answer: func() (time.Duration, bool) { return 0, false }}
	m := w.Sealed(p, w.Plan(p, vault.Settings{Lanes: 1}, vaulttest.Cuts(100, 10)...))
	w.Instance = nil
	return &budgeted{w, m}
}

// begin begins a restore with a budget, or goes on with one.
func (w *budgeted) begin(b vault.Budget) (*vault.RestorePlan, error) {
	req := w.Request(w.m)
	req.Budget = b
	planner := w.Restorer()
	planner.Workers = 4
	return planner.Begin(w.T.Context(), w.Run(), req)
}

// TestRestoreBudgetIsRefused refuses a budget by which there would be no end, or that is
// not the restore's.
func TestRestoreBudgetIsRefused(t *testing.T) {
	w := newBudgeted(t)
	refused := func(b vault.Budget, says string) {
		t.Helper()
		if _, err := w.begin(b); !errors.Is(err, table.ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want an error that says %q", b, err, says)
		}
	}
	refused(vault.Budget{ReadUnits: -1}, "units per second")
	refused(vault.Budget{WriteUnits: 0.5}, "units per second")
	refused(vault.Budget{WriteUnits: math.NaN()}, "units per second")
	refused(vault.Budget{ReadUnits: math.Inf(1)}, "units per second")
	// No segment could be compared; the target is free for another restore.
	refused(vault.Budget{ReadUnits: 1}, "want at least 2")
	w.Advance(time.Second)
	plan, err := w.begin(vault.Budget{ReadUnits: 16, WriteUnits: 150})
	if err != nil {
		t.Fatal(err)
	}
	w.Advance(time.Second)
	if again, err := w.begin(vault.Budget{}); err != nil || again.Restore != plan.Restore {
		t.Errorf("without a budget: %+v, %v", again, err)
	}
	refused(vault.Budget{WriteUnits: 150}, "a budget of 150 write and 16 read units/s")
}

// TestRestoreBudgetIsDivided gives each worker of a restore its share, and has never more
// workers than that was divided over.
func TestRestoreBudgetIsDivided(t *testing.T) {
	w := newBudgeted(t)
	plan, err := w.begin(vault.Budget{ReadUnits: 16, WriteUnits: 150})
	if err != nil {
		t.Fatal(err)
	}
	if plan.Loaders != 3 || plan.Comparers != 2 {
		t.Errorf("%d workers load, %d compare", plan.Loaders, plan.Comparers)
	}
	w.Workers = 50 // by now, the policy allows more
	look := func(live, workers int, verb fanout.Verb, reads, writes float64) []fanout.Work {
		t.Helper()
		if p := w.Look(plan.Restore); p.Live != live || p.Dispatched != workers {
			t.Fatalf("%+v", p)
		}
		queue := w.Drain()
		for _, work := range queue {
			if work.Verb != verb || work.ReadUnits != reads || work.WriteUnits != writes {
				t.Errorf("%+v", work)
			}
		}
		return queue
	}
	for _, work := range look(0, 3, fanout.VerbImport, 0, 50) {
		if err := vaulttest.BeginAndDie(w.World, work); err != nil {
			t.Fatal(err)
		}
	}
	look(3, 0, "", 0, 0)
	w.Advance(11 * time.Minute)
	w.Queue = look(0, 3, fanout.VerbImport, 0, 50)
	w.Work()
	look(0, 2, fanout.VerbVerify, 8, 0)
}
