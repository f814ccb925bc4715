// Package throttle holds requests back: to a share of a budget of capacity units, which
// they never exceed, and below it to what the service can take.
package throttle

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// A Throttle holds back the requests of one worker, which may come side by side. It sends
// each when the worker's share of the budget, the rate that the service has shown it can
// take, and the requests that have no answer yet leave room for it.
type Throttle struct {
	writes bool // the units are write units

	mu      sync.Mutex
	budget  budget
	limit   limit
	account account
	window  window
	line    line
	held    held
}

// ForReads returns a throttle of requests that cost read units: so many per second at
// most, 0 for any number. It has earned nothing so far: where there is a budget, workers
// may follow each other at any time.
func ForReads(budget float64) *Throttle { return newThrottle(budget, false) }

// ForWrites returns a throttle of requests that cost write units, as ForReads does.
func ForWrites(budget float64) *Throttle { return newThrottle(budget, true) }

func newThrottle(units float64, writes bool) *Throttle {
	t := &Throttle{writes: writes, budget: budget(units), window: window{size: firstWindow}}
	if units > 0 {
		t.account.free = time.Now().Add(seconds(requestTime))
	}
	return t
}

// A Request is what Do is told of a request before its turn.
type Request struct {
	// What says in errors what the request is to do, as in "read orders".
	What string
	// Until is when it is not held to the rate any more; never, if that is zero.
	Until time.Time
	// Turn is its place: while there is a rate to keep, requests of a lower turn go
	// before those of a higher one.
	Turn int64
	// Cost is what it is expected to cost, in units; 0 if that is not known.
	Cost int
	// Ready is asked when its turn has come, unless it is nil. If it returns an error,
	// the request is not sent, and Do returns that error.
	Ready func(ctx context.Context) error
}

// Do sends a request when its turn has come. send is told how many units the request
// should cost at most, 0 for any number, and returns how many it did cost. Do measures
// how long that takes, and hears of each refusal that the call meets by the context that
// send is given. It returns the error of ctx, if that ends first, or what Ready or send
// return.
func (t *Throttle) Do(ctx context.Context, q Request, send func(ctx context.Context, aim int) (units int64, err error)) error {
	aside, err := t.wait(ctx, &q)
	if err != nil {
		return fmt.Errorf("wait to %s: %w", q.What, err)
	}
	if q.Ready != nil {
		if err := q.Ready(ctx); err != nil {
			t.failed()
			return err
		}
	}
	aim, sent := t.Aim(), time.Now()
	units, err := send(table.OnThrottled(ctx, t.refused), aim)
	if err != nil {
		t.failed()
		return err
	}
	t.took(aside, units, time.Since(sent))
	return nil
}

// Aim is how many units a request should cost at most, 0 for any number, if it has to be
// made before its turn comes.
func (t *Throttle) Aim() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rate()
	switch {
	case !r.none():
		return max(leastRequest, int(r.units*requestTime))
	case t.writes && t.limit.answers.n < firstBatches:
		return firstBatch
	}
	return 0
}

// Resume begins at the rate at which another invocation ended.
func (t *Throttle) Resume(of *vault.Pace) {
	if of == nil || of.Reason == vault.PacedByBudget {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.limit.resume(time.Now(), rate{of.ReadUnits + of.WriteUnits, of.Reason})
}

// Take returns what the requests were held back by since the last call, nil if by
// nothing.
func (t *Throttle) Take() *vault.Pace {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.held.take(t.rate(), t.writes)
}

// rate is the one that is to be kept: the lower of the limit and the budget.
func (t *Throttle) rate() rate {
	if b := t.budget.rate(); t.limit.none() || !b.none() && t.limit.units >= b.units {
		return b
	}
	return t.limit.rate
}

// wait waits until a request may be sent, and returns what was set aside for it.
func (t *Throttle) wait(ctx context.Context, q *Request) (aside float64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.line.join(q.Turn)
	defer t.line.leave(q.Turn)
	for {
		now := time.Now()
		pause := t.account.free.Sub(now)
		r := t.rate()
		switch {
		case pause > 0:
			if !q.Until.IsZero() {
				if pause = min(pause, q.Until.Sub(now)); pause <= 0 {
					t.window.sent++
					return 0, nil
				}
			}
			t.held.by(r.why)
		case t.window.full():
		case r.none():
			t.window.sent++
			return 0, nil
		case q.Turn <= t.line.first():
			t.window.sent++
			return t.account.setAside(now, float64(q.Cost), r), nil
		}
		// Those for which there is no room are woken when an answer comes, those whose
		// turn is later when an earlier one has gone.
		woken := t.line.moves()
		t.mu.Unlock()
		err := sleep(ctx, pause, woken)
		t.mu.Lock()
		if !r.none() {
			t.held.waited += time.Since(now)
		}
		if err != nil {
			return 0, err
		}
	}
}

// failed accounts for a request that has no answer.
func (t *Throttle) failed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.window.sent--
	t.line.wake()
}

// took accounts for a request for which so much was set aside: its cost, and how long its
// answer took.
func (t *Throttle) took(aside float64, units int64, answer time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.line.wake()
	now, cost := time.Now(), float64(max(units, 1))
	refused := t.window.answered(now.Add(-answer))
	t.account.learn(cost)
	t.limit.reached.add(now, answer, cost)
	// How long an answer took that was refused before says nothing.
	if !refused && t.limit.answers.slow(answer, cost) && t.limit.rested(now) {
		t.lower(now, slowCut, vault.PacedByLatency)
	}
	t.limit.raise(now, t.budget)
	t.account.settle(now, aside, cost, t.rate())
}

// refused takes into account that the service wants fewer requests. It is called while
// the one that was refused waits to be sent again; the others wait, too.
func (t *Throttle) refused() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.window.refused = now
	t.held.throttled++
	t.held.by(vault.PacedByService)
	if t.limit.rested(now) {
		t.window.halve()
		t.lower(now, throttledCut, vault.PacedByService)
	}
	t.account.hold(now, t.rate())
}

func (t *Throttle) lower(now time.Time, share float64, why string) {
	if t.limit.lower(now, share, why, t.rate()) {
		t.held.by(why)
	}
}
