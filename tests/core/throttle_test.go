package core_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// Tables have so many rows of so many bytes.
const rows, size = 6000, 2000

// throttled runs a test of a service that throttles, in each of the ways in which it says
// so.
func throttled(t *testing.T, test func(t *testing.T, s *service, code string)) {
	for _, code := range []string{engine.CodeNotEnoughCapacity, engine.CodeServerBusy} {
		t.Run(code, func(t *testing.T) {
			serve(t, func(t *testing.T, s *service) {
				s.keys(rows, size)
				test(t, s, code)
			})
		})
	}
}

// TestThrottledReads backs a table up whose server has fewer read units than the workers
// could use.
func TestThrottledReads(t *testing.T) {
	const capacity = 100
	throttled(t, func(t *testing.T, s *service, code string) {
		want := s.read(vaulttest.SourceID.Table)
		s.behave(engine.Behavior{Capacity: engine.CapacityBehavior{Read: capacity, ThrottleCode: code}})
		s.measure()
		m := s.backUp(4, vault.Settings{Lanes: 4, PartBytes: 128 << 10}, vaulttest.Cuts(rows, 16)...)
		s.behave(engine.Behavior{})
		reads := s.wire.of("GetRange")
		t.Logf("%v: %v", s.took, reads)
		reads.learnt(t)
		quick(t, s.took, 2*reads.best(capacity))
		s.heldBack(vault.PacedByService, false, 0)
		vaulttest.Same(t, vaulttest.Contents(t, s.Repo, m), want)
	})
}

// TestReadBudget backs a table up with a budget of read units, through short invocations
// and with more segments than workers: by the service's account no ten seconds in a row
// have more than the budget, and a single one no more than twice of it: requests come
// when they come.
func TestReadBudget(t *testing.T) {
	const rows, budget = 4000, 60
	serve(t, func(t *testing.T, s *service) {
		s.limit = 20 * time.Second
		s.keys(rows, size)
		want := s.read(vaulttest.SourceID.Table)
		s.measure()
		m := s.backUp(4, vault.Settings{Lanes: 4, PartBytes: 128 << 10, ReadUnits: budget}, vaulttest.Cuts(rows, 32)...)
		reads := s.wire.of("GetRange")
		t.Logf("%v in %d invocations: %v", s.took, s.replies, reads)
		reads.within(t, budget)
		quick(t, s.took, reads.best(budget)*3/2)
		s.heldBack(vault.PacedByBudget, false, budget)
		vaulttest.Same(t, vaulttest.Contents(t, s.Repo, m), want)
	})
}

// TestThrottledWrites restores a table whose server has fewer write units than the
// workers could use, and refuses some rows of batches that it takes otherwise.
func TestThrottledWrites(t *testing.T) {
	const capacity = 150
	throttled(t, func(t *testing.T, s *service, code string) {
		want := s.read(vaulttest.SourceID.Table)
		// Parts of a few dozen rows, so that looks see some of each segment.
		s.behave(engine.Behavior{Reads: engine.ReadBehavior{PageRows: 50}})
		m := s.backUp(4, vault.Settings{Lanes: 1, PartBytes: 64 << 10}, vaulttest.Cuts(rows, 12)...)
		s.behave(engine.Behavior{Capacity: engine.CapacityBehavior{Write: capacity, ThrottleCode: code}})
		s.refuse(code, 200, 3, func(n int) bool { return n%11 == 5 && time.Since(s.wire.since()) < learning })
		s.measure()
		p := s.bringBack(4, m, vault.Budget{})
		s.behave(engine.Behavior{})
		writes := s.wire.of("BatchWriteRow")
		t.Logf("%v: %v", s.loading, writes)
		// About one row in six is sent again, and later one in twelve; without a pace
		// it is two in three.
		if n := writes; n.rowsRefused == 0 || n.rowsRefused > n.rows/3 || n.rowsLate > n.rowsSettled/5 {
			t.Errorf("%d of %d rows were refused, %d of %d after %v", n.rowsRefused, n.rows, n.rowsLate, n.rowsSettled, learning)
		}
		quick(t, s.loading, 2*writes.best(capacity))
		proved(t, p, rows)
		s.heldBack(vault.PacedByService, true, 0)
		vaulttest.Same(t, s.read(vaulttest.TargetID.Table), want)
	})
}

// TestRestoreBudgets restores a table with a budget of write units for loading and one of
// read units for comparing, through short invocations and with more segments than
// workers: by the service's account no ten seconds in a row have more.
func TestRestoreBudgets(t *testing.T) {
	const writes, reads, workers = 200, 80, 4
	serve(t, func(t *testing.T, s *service) {
		s.keys(rows, size)
		want := s.read(vaulttest.SourceID.Table)
		s.behave(engine.Behavior{Reads: engine.ReadBehavior{PageRows: 50}})
		m := s.backUp(workers, vault.Settings{Lanes: 2, PartBytes: 64 << 10}, vaulttest.Cuts(rows, 64)...)
		s.behave(engine.Behavior{})
		s.limit = 20 * time.Second
		s.measure()
		p := s.bringBack(workers, m, vault.Budget{ReadUnits: reads, WriteUnits: writes})
		w, r := s.wire.of("BatchWriteRow"), s.wire.of("GetRange")
		t.Logf("loaded in %v, all in %v, in %d invocations: %v; %v", s.loading, s.took, s.replies, w, r)
		w.within(t, writes)
		r.within(t, reads)
		quick(t, s.loading, w.best(writes)*3/2)
		quick(t, s.took-s.loading, r.best(reads)*3/2+10*time.Second)
		s.heldBack(vault.PacedByBudget, true, writes)
		s.heldBack(vault.PacedByBudget, false, reads)
		proved(t, p, rows)
		vaulttest.Same(t, s.read(vaulttest.TargetID.Table), want)
	})
}

// TestThrottledComparison compares a restored table whose server has fewer read units
// than the workers could use.
func TestThrottledComparison(t *testing.T) {
	const capacity = 100
	throttled(t, func(t *testing.T, s *service, code string) {
		m := s.backUp(4, vault.Settings{Lanes: 4, PartBytes: 128 << 10}, vaulttest.Cuts(rows, 64)...)
		s.behave(engine.Behavior{Capacity: engine.CapacityBehavior{Read: capacity, ThrottleCode: code}})
		s.measure()
		p := s.bringBack(4, m, vault.Budget{})
		reads := s.wire.of("GetRange")
		t.Logf("%v: %v", s.took-s.loading, reads)
		reads.learnt(t)
		quick(t, s.took-s.loading, 2*reads.best(capacity))
		s.heldBack(vault.PacedByService, false, 0)
		proved(t, p, rows)
	})
}

// TestComparisonGoesOn compares segments that no invocation could compare at the rate
// that the budget leaves, and one of which has lost rows: what each has come to the end
// of is kept, and the next goes on. Two that compare the same do not count it twice.
func TestComparisonGoesOn(t *testing.T) {
	const budget, workers = 100, 2
	for _, test := range []struct {
		name    string
		lost    int64
		twice   bool
		verdict vault.Verdict
	}{
		{"as it is", 0, false, vault.OK},
		{"rows lost", 3, false, vault.Quarantined},
		{"each twice", 0, true, vault.OK},
	} {
		t.Run(test.name, func(t *testing.T) {
			serve(t, func(t *testing.T, s *service) {
				s.keys(rows, size)
				m := s.backUp(workers, vault.Settings{Lanes: 8}, vaulttest.Cuts(rows, 24)...)
				if m.Segments != 3 {
					t.Fatalf("%d segments", m.Segments)
				}
				// A segment is a thousand units, a lane an eighth of it; a worker has ten
				// seconds of fifty units each.
				s.limit, s.twice = 20*time.Second, test.twice
				var once atomic.Bool
				s.refuse("OTSParameterInvalid", int(test.lost), 1, func(int) bool { return once.CompareAndSwap(false, true) })
				s.measure()
				p := s.bringBack(workers, m, vault.Budget{ReadUnits: budget})
				reads := s.wire.of("GetRange")
				t.Logf("loaded after %v, %d invocations: %v", s.loading, s.replies, reads)
				if !test.twice {
					reads.within(t, budget)
				}
				if s.replies < 9 {
					t.Errorf("%d invocations", s.replies)
				}
				if p.Proof == nil {
					t.Fatalf("%+v", p)
				}
				if c := p.Proof.Check; p.Proof.Verdict != test.verdict || c.Rows != rows || c.Target != rows-test.lost || c.Missing != test.lost {
					t.Errorf("%+v", p)
				}
				if c := p.Proof.Check; c.Digest != m.Totals.Digest || c.Objects != 2*int64(m.Totals.Parts) {
					t.Errorf("digest %s of %s, %d objects of %d parts", c.Digest, m.Totals.Digest, c.Objects, m.Totals.Parts)
				}
				s.heldBack(vault.PacedByBudget, false, budget)
				if n := s.documents(vault.Restore{ID: p.Restore}.Verify().Slots("")); n < 3 {
					t.Errorf("%d entries of comparisons", n)
				}
			})
		})
	}
}
