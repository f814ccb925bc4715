package throttle

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// A trial sends requests through a throttle, and notes when.
type trial struct {
	*testing.T
	*Throttle
	begun time.Time

	mu   sync.Mutex
	sent []time.Duration
	aims []int
}

// try runs a test on a clock of its own.
func try(t *testing.T, fresh func() *Throttle, test func(*trial)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		x := &trial{T: t, Throttle: fresh(), begun: time.Now()}
		test(x)
	})
}

// reads makes a throttle of reads with a budget, writes one of writes.
func reads(budget float64) func() *Throttle  { return func() *Throttle { return ForReads(budget) } }
func writes(budget float64) func() *Throttle { return func() *Throttle { return ForWrites(budget) } }

// send sends a request whose answer takes so long, after so many refusals that are each
// waited out for as long.
func (x *trial) send(q Request, units int64, takes time.Duration, refusals int) {
	x.Helper()
	err := x.Do(x.Context(), q, func(ctx context.Context, aim int) (int64, error) {
		x.mu.Lock()
		x.sent, x.aims = append(x.sent, time.Since(x.begun)), append(x.aims, aim)
		x.mu.Unlock()
		for range refusals {
			time.Sleep(takes)
			table.Throttled(ctx)
		}
		time.Sleep(takes)
		return units, nil
	})
	if err != nil {
		x.Error(err)
	}
}

// at checks when the requests were sent, to the millisecond.
func (x *trial) at(want ...time.Duration) {
	x.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	same := func(a, b time.Duration) bool { return (a - b).Abs() < time.Millisecond }
	if !slices.EqualFunc(x.sent, want, same) {
		x.Errorf("sent after %v, want %v", x.sent, want)
	}
}

const quick = time.Millisecond

// TestBudget sends requests that cost what they aim at: the first when it is earned, and
// never more in ten seconds than the budget.
func TestBudget(t *testing.T) {
	const budget = 100
	try(t, reads(budget), func(x *trial) {
		for range 4 {
			var lanes sync.WaitGroup
			for range 50 {
				lanes.Go(func() { x.send(Request{}, 50, quick, 0) })
			}
			lanes.Wait()
		}
		if x.sent[0] != 500*time.Millisecond || x.aims[0] != 50 {
			x.Errorf("the first after %v aims at %d units", x.sent[0], x.aims[0])
		}
		for i, first := range x.sent {
			units := 0
			for _, at := range x.sent[i:] {
				if at <= first+10*time.Second {
					units += 50
				}
			}
			if units > 10*budget {
				x.Fatalf("%d units in ten seconds from %v on", units, first)
			}
		}
		// 200 requests of 50 units, of which 95 a second are earned.
		if took, best := time.Since(x.begun), seconds(200*50/95.0); took < best-time.Second || took > best+time.Second {
			x.Errorf("it took %v, want %v", took, best)
		}
		if p := x.Take(); p == nil || p.Reason != vault.PacedByBudget || p.ReadUnits != budget || p.WriteUnits != 0 || p.WaitedMS == 0 || p.Throttled != 0 {
			x.Errorf("%+v", p)
		}
		if p := x.Take(); p != nil {
			x.Errorf("then %+v", p)
		}
	})
}

// TestCost has the next request pay for one that cost more than was expected, unless it
// has no time for that.
func TestCost(t *testing.T) {
	try(t, reads(100), func(x *trial) {
		x.send(Request{}, 950, quick, 0) // 50 are expected
		x.send(Request{Until: x.begun.Add(2 * time.Second)}, 1, quick, 0)
		x.send(Request{Until: x.begun.Add(time.Second)}, 1, quick, 0)
		x.send(Request{Cost: 95}, 95, quick, 0)
		x.send(Request{}, 1, quick, 0)
		// Ten seconds for the first, and a 95th for each of the two that went early.
		early := 2*time.Second + quick // at once
		paid := 500*time.Millisecond + 10*time.Second + 2*seconds(1/95.0)
		x.at(500*time.Millisecond, 2*time.Second, early, paid, paid+time.Second)
	})
}

// TestFree sends requests at once where nothing holds them, few at first.
func TestFree(t *testing.T) {
	try(t, reads(0), func(x *trial) {
		var lanes sync.WaitGroup
		for range 14 {
			lanes.Go(func() { x.send(Request{}, 1000, quick, 0) })
		}
		lanes.Wait()
		want := []time.Duration{0, 0}
		for round, n := range []int{4, 8} {
			want = append(want, slices.Repeat([]time.Duration{time.Duration(round+1) * quick}, n)...)
		}
		x.at(want...)
		if p := x.Take(); p != nil || x.Aim() != 0 {
			x.Errorf("%+v, aims at %d", p, x.Aim())
		}
	})
}

// TestFirstBatches keeps the first writes small.
func TestFirstBatches(t *testing.T) {
	try(t, writes(0), func(x *trial) {
		for range firstBatches + 1 {
			x.send(Request{Cost: x.Aim()}, 1, quick, 0)
		}
		if want := append(slices.Repeat([]int{firstBatch}, firstBatches), 0); !slices.Equal(x.aims, want) {
			x.Errorf("they aim at %v", x.aims)
		}
	})
	try(t, writes(10), func(x *trial) {
		if x.Aim() != leastRequest {
			x.Errorf("with a small budget a batch aims at %d", x.Aim())
		}
	})
}

// TestRefused keeps others from asking while a request is refused, and cuts the rate that
// was reached.
func TestRefused(t *testing.T) {
	try(t, writes(0), func(x *trial) {
		for range 10 {
			x.send(Request{}, 100, 100*time.Millisecond, 0)
		}
		begun := time.Now() // 1000 units per second were reached
		x.sent = nil
		var lanes sync.WaitGroup
		lanes.Go(func() { x.send(Request{}, 100, time.Second, 1) })
		synctest.Wait()
		time.Sleep(time.Second)
		synctest.Wait() // it is refused
		if x.Aim() != 350 {
			x.Errorf("a batch aims at %d", x.Aim())
		}
		lanes.Go(func() { x.send(Request{}, 100, quick, 0) })
		lanes.Wait()
		after := begun.Sub(x.begun)
		// One at a time, since one was out when it was refused; and that is paid for.
		x.at(after, after+2*time.Second+seconds(100/700.0))
		if p := x.Take(); p == nil || p.Reason != vault.PacedByService || p.WriteUnits != 700 || p.ReadUnits != 0 || p.Throttled != 1 || p.WaitedMS != 1142 {
			x.Errorf("%+v", p)
		}
	})
}

// TestRefusedTwice cuts once for all that were sent before the cut.
func TestRefusedTwice(t *testing.T) {
	try(t, reads(0), func(x *trial) {
		for range 10 {
			x.send(Request{}, 100, 100*time.Millisecond, 0)
		}
		x.send(Request{}, 100, 100*time.Millisecond, 5)
		if p := x.Take(); p == nil || p.ReadUnits != 700 || p.Throttled != 5 {
			x.Errorf("%+v", p)
		}
		time.Sleep(2 * time.Second)
		x.send(Request{}, 100, 0, 1)
		if p := x.Take(); p == nil || p.ReadUnits != 490 || p.Throttled != 1 {
			x.Errorf("after a rest %+v", p)
		}
	})
}

// TestRefusedAtFirst has others wait after a refusal, also where no rate is known yet,
// and says so.
func TestRefusedAtFirst(t *testing.T) {
	try(t, reads(0), func(x *trial) {
		x.send(Request{}, 1, quick, 1)
		if p := x.Take(); p == nil || p.Reason != vault.PacedByService || p.ReadUnits != 0 || p.Throttled != 1 {
			t.Errorf("%+v", p)
		}
		var lanes sync.WaitGroup
		for range 8 {
			lanes.Go(func() { x.send(Request{}, 1, time.Minute, 0) })
		}
		lanes.Wait()
		// Two seconds after the refusal one goes out, and then one more with each round.
		held := quick + 2*time.Second
		round := func(n int) time.Duration { return held + time.Duration(n)*time.Minute }
		x.at(0, held, round(1), round(1), round(2), round(2), round(3), round(3), round(3))
	})
}

// TestGrowsAgain lets the rate grow while the service is calm, up to the budget.
func TestGrowsAgain(t *testing.T) {
	try(t, reads(200), func(x *trial) {
		x.Resume(&vault.Pace{Reason: vault.PacedByService, ReadUnits: 10})
		for time.Since(x.begun) < time.Minute {
			x.send(Request{}, int64(x.Aim()), quick, 0)
		}
		if first, last := x.aims[0], x.aims[len(x.aims)-1]; first != leastRequest || last != 100 {
			t.Errorf("requests aim at %d units at first, at %d in the end", first, last)
		}
		if p := x.Take(); p == nil || p.Reason != vault.PacedByBudget || p.ReadUnits != 200 {
			t.Errorf("%+v", p)
		}
	})
}

// TestSlowAnswers cuts the rate while answers take many times as long as before.
func TestSlowAnswers(t *testing.T) {
	try(t, reads(0), func(x *trial) {
		for range 100 {
			x.send(Request{}, 10, 10*time.Millisecond, 0)
		}
		if p := x.Take(); p != nil {
			x.Errorf("while they are quick: %+v", p)
		}
		for x.limit.none() { // nothing waits for it before
			x.send(Request{}, 10, 500*time.Millisecond, 0)
		}
		if p := x.Take(); p == nil || p.Reason != vault.PacedByLatency || p.ReadUnits != 675 {
			x.Errorf("while they are slow: %+v", p)
		}
	})
}

// TestTurns sends requests of a lower turn first while there is a rate to keep.
func TestTurns(t *testing.T) {
	try(t, reads(100), func(x *trial) {
		var lanes sync.WaitGroup
		var order []int64
		for _, turn := range []int64{3, 1, 2, 1, 0} {
			lanes.Go(func() {
				err := x.Do(x.Context(), Request{Turn: turn}, func(context.Context, int) (int64, error) {
					x.mu.Lock()
					defer x.mu.Unlock()
					order = append(order, turn)
					return 1, nil
				})
				if err != nil {
					x.Error(err)
				}
			})
			synctest.Wait()
		}
		lanes.Wait()
		if !slices.Equal(order, []int64{0, 1, 1, 2, 3}) {
			x.Errorf("sent in the order %v", order)
		}
	})
}

// TestTurnsGoOn does not have a request of a later turn wait for the answer to that of an
// earlier one.
func TestTurnsGoOn(t *testing.T) {
	try(t, reads(100), func(x *trial) {
		var lanes sync.WaitGroup
		for _, turn := range []int64{1, 0} {
			lanes.Go(func() { x.send(Request{Turn: turn, Cost: 19}, 19, time.Minute, 0) })
			synctest.Wait()
		}
		lanes.Wait()
		x.at(500*time.Millisecond, 700*time.Millisecond)
	})
}

// TestFullWindow has requests wait for an answer, or for a failure, where as many are out
// as may be, whatever the rate.
func TestFullWindow(t *testing.T) {
	for name, until := range map[string]time.Duration{"at their turn": time.Hour, "when time is up": 0} {
		t.Run(name, func(t *testing.T) {
			try(t, reads(1000), func(x *trial) {
				var lanes sync.WaitGroup
				lanes.Go(func() { x.send(Request{Cost: 1, Until: x.begun.Add(until)}, 1, time.Hour, 0) })
				lanes.Go(func() {
					time.Sleep(time.Second)
					_ = x.Do(x.Context(), Request{Cost: 1, Until: x.begun.Add(until)}, func(context.Context, int) (int64, error) {
						time.Sleep(time.Minute)
						return 0, errors.New("no answer")
					})
				})
				time.Sleep(2 * time.Second)
				lanes.Go(func() { x.send(Request{Cost: 1}, 1, quick, 0) })
				lanes.Wait()
				x.at(min(until, 500*time.Millisecond), time.Minute+time.Second)
			})
		})
	}
}

// TestAverage sets aside for a request what those before it cost.
func TestAverage(t *testing.T) {
	try(t, reads(100), func(x *trial) {
		x.send(Request{}, 19, 0, 0)
		var lanes sync.WaitGroup
		for range 3 {
			lanes.Go(func() { x.send(Request{}, 19, time.Minute, 0) })
		}
		lanes.Wait()
		x.at(500*time.Millisecond, 700*time.Millisecond, 900*time.Millisecond, 1100*time.Millisecond)
	})
}

// TestUnsent gives the place of a request that is not sent, or has no answer, to the
// next, and takes nothing from it.
func TestUnsent(t *testing.T) {
	cause := errors.New("cause")
	fail := func(context.Context, int) (int64, error) { return 1000, cause }
	try(t, reads(0), func(x *trial) {
		for range 3 * firstWindow {
			if err := x.Do(x.Context(), Request{}, fail); err != cause {
				x.Errorf("%v", err)
			}
			unready := Request{Ready: func(context.Context) error { return cause }}
			if err := x.Do(x.Context(), unready, func(context.Context, int) (int64, error) { panic("it is sent") }); err != cause {
				x.Errorf("not ready: %v", err)
			}
		}
		x.send(Request{}, 1, quick, 0)
		x.at(0)
	})
	try(t, reads(1), func(x *trial) {
		ctx, cancel := context.WithTimeout(x.Context(), 100*time.Millisecond)
		defer cancel()
		err := x.Do(ctx, Request{What: "read orders"}, fail)
		if !errors.Is(err, context.DeadlineExceeded) || err.Error() != "wait to read orders: context deadline exceeded" || time.Since(x.begun) != 100*time.Millisecond {
			x.Errorf("%v", err)
		}
		if p := x.Take(); p == nil || p.WaitedMS != 100 {
			x.Errorf("%+v", p)
		}
	})
}

// TestReady does not take the time of Ready for the service's.
func TestReady(t *testing.T) {
	try(t, reads(0), func(x *trial) {
		for i := range 200 {
			takes := time.Duration(0)
			if i > 100 {
				takes = time.Second
			}
			x.send(Request{Ready: func(context.Context) error { time.Sleep(takes); return nil }}, 10, 10*time.Millisecond, 0)
		}
		if p := x.Take(); p != nil {
			x.Errorf("%+v", p)
		}
	})
}

// TestResumed begins at the rate at which another invocation ended, if the service had
// held that.
func TestResumed(t *testing.T) {
	for _, test := range []struct {
		name   string
		budget float64
		of     *vault.Pace
		aim    int
	}{
		{"nothing", 0, nil, 0},
		{"a budget", 0, &vault.Pace{Reason: vault.PacedByBudget, ReadUnits: 100}, 0},
		{"no rate", 0, &vault.Pace{Reason: vault.PacedByService, Throttled: 1}, 0},
		{"reads", 0, &vault.Pace{Reason: vault.PacedByService, ReadUnits: 100}, 50},
		{"writes", 0, &vault.Pace{Reason: vault.PacedByLatency, WriteUnits: 100}, 50},
		{"above the budget", 60, &vault.Pace{Reason: vault.PacedByService, ReadUnits: 100}, 30},
		{"below the budget", 200, &vault.Pace{Reason: vault.PacedByService, ReadUnits: 100}, 50},
	} {
		t.Run(test.name, func(t *testing.T) {
			try(t, reads(test.budget), func(x *trial) {
				x.Resume(test.of)
				if x.Aim() != test.aim {
					x.Errorf("a request aims at %d units, want %d", x.Aim(), test.aim)
				}
			})
		})
	}
}
