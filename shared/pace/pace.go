// Package pace holds requests to a rate: to a share of a budget of capacity units,
// and below it to what the service can take.
package pace

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/tablevault/tablevault/shared/vault"
)

// Pacer holds the requests of one worker to a rate of capacity units: to the
// worker's share of the table's budget, and below it while the service throttles
// or answers slowly. What a request costs is known when its answer has come, so
// what those before it cost is set aside for it, and the rest is paid for by
// those after it.
type Pacer struct {
	budget float64 // units per second, 0 for none
	Writes bool    // the units are write units

	mu    sync.Mutex
	limit float64   // what the service makes of it, 0 for nothing
	why   string    // of limit
	top   float64   // the rate at which limit was last lowered
	cut   time.Time // when that was
	hit   time.Time // when a request was refused last
	grown time.Time // when it was last raised
	free  time.Time // when the next request may be sent
	cost  float64   // of a request, by those lately; 0 before the first
	// waiting are the turns of those that wait, woken is closed when they are to look
	// again; nil if none sleeps.
	waiting []int64
	woken   chan struct{}
	// sent counts the requests without an answer, window is how many there may be.
	sent   int
	window float64

	// The rate that was reached: units since, in a window of a second; the greatest
	// lately, which forgets, and the greatest ever.
	since        time.Time
	units        float64
	recent, best float64
	// How long answers take: the least for any and per unit, in seconds, and the
	// average of how many times as long they take, which forgets.
	least, perUnit, slowness float64
	answers                  int

	// What happened since take.
	reason    string
	waited    time.Duration
	throttled int64
}

// The pacer's idea of a service that is too busy.
const (
	rateWindow = time.Second
	// A cut holds for cutRest before the next, since answers to what was asked
	// before it still come in, and for calmRest before the rate grows again.
	cutRest, calmRest = 2 * time.Second, 5 * time.Second
	throttledCut      = 0.7
	slowCut           = 0.75
	// The rate grows by growth per rateWindow. Around the one that was too much for
	// the service it grows slowly: there it is as high as it can be.
	growth, nearGrowth   = 1.25, 1.02
	nearBelow, nearAbove = 0.9, 1.2
	// fade is what is left of the greatest rate lately, per rateWindow.
	fade = 0.9
	// Slow answers do not push the rate below this share of the best that was
	// reached: fewer pages at a time is all that can help.
	slowFloor = 0.125
	// leastSlow is the rate, in units per second, below which there is no load that
	// slow answers could come from.
	leastSlow = 100.0
	// Answers are slow if on average they take slowFactor times what those of
	// their size took at best in this invocation, and more than slowLeast.
	slowFactor = 4
	slowLeast  = 250 * time.Millisecond
	leastRate  = 1.0 // units per second
	// requestTime is the share of a second's units that a request aims at, so that
	// no second has many more than another; leastRequest is the least.
	requestTime  = 0.5
	leastRequest = 8 // units
	// budgetUse is the share of a budget that is used: ten seconds in a row, which may
	// begin and end with a request, then have no more than the budget.
	budgetUse = 1 - requestTime/10
	// Where a request was refused, those that wait for their turn do not try before
	// longestHold is over, or less where units come in faster.
	longestHold = 2 * time.Second
	// firstWindow is how many requests are sent before the first is answered.
	firstWindow = 2
	// firstBatch is the most units of the first firstBatches batches: all of a batch is
	// sent again where the service has no room for it.
	firstBatch, firstBatches = 50, 16
	// firstAnswers is how many answers make an average.
	firstAnswers = 8
)

// New returns a pacer that has earned nothing so far: where there is a budget,
// workers may follow each other at any time.
func New(budget float64) *Pacer {
	p := &Pacer{budget: budget, window: firstWindow}
	if budget > 0 {
		p.free = time.Now().Add(seconds(requestTime))
	}
	return p
}

// held is the rate that is to be kept, with its reason; 0 for none.
func (p *Pacer) held() (float64, string) {
	switch {
	case p.limit > 0 && (p.budget == 0 || p.limit < p.budget):
		return p.limit, p.why
	case p.budget > 0:
		return p.budget, vault.PacedByBudget
	}
	return 0, ""
}

// Aim is how many units a request should cost at most, 0 for any number.
func (p *Pacer) Aim() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	rate, _ := p.held()
	if rate == 0 {
		if p.Writes && p.answers < firstBatches {
			return firstBatch
		}
		return 0
	}
	return max(leastRequest, int(rate*requestTime))
}

// Wait waits until a request of an expected cost, 0 if that is not known, may be
// sent, but not beyond until, if that is not zero. While there is a rate to keep,
// requests of a lower turn go before those of a higher one. It returns what was set
// aside for the request, which took takes, and an error if ctx ends first.
func (p *Pacer) Wait(ctx context.Context, until time.Time, turn int64, cost float64) (aside float64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = append(p.waiting, turn)
	defer func() {
		p.waiting = slices.Delete(p.waiting, slices.Index(p.waiting, turn), slices.Index(p.waiting, turn)+1)
		p.wake()
	}()
	for {
		now := time.Now()
		pause := p.free.Sub(now)
		rate, why := p.held()
		switch {
		case pause > 0:
			if !until.IsZero() {
				if pause = min(pause, until.Sub(now)); pause <= 0 {
					p.sent++
					return 0, nil
				}
			}
			p.reason = cmp.Or(why, p.reason)
		case p.sent >= int(p.window):
		case rate == 0:
			p.sent++
			return 0, nil
		case turn <= slices.Min(p.waiting):
			if cost == 0 {
				cost = cmp.Or(p.cost, max(1, rate*requestTime))
			}
			p.free = now.Add(earning(cost, rate, why))
			p.sent++
			return cost, nil
		}
		// Those for which there is no room are woken when an answer comes, those whose
		// turn is later when an earlier one has gone.
		err := p.sleep(ctx, pause)
		if rate > 0 {
			p.waited += time.Since(now)
		}
		if err != nil {
			return 0, err
		}
	}
}

// sleep sleeps for a pause, if that is above 0, or until it is woken, or ctx ends,
// whatever comes first. The lock is held before and after it.
func (p *Pacer) sleep(ctx context.Context, pause time.Duration) error {
	if p.woken == nil {
		p.woken = make(chan struct{})
	}
	woken := p.woken
	p.mu.Unlock()
	defer p.mu.Lock()
	var over <-chan time.Time
	if pause > 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-over:
	case <-woken:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// wake has all that wait look again.
func (p *Pacer) wake() {
	if p.woken != nil {
		close(p.woken)
		p.woken = nil
	}
}

// earning is how long it takes to earn so many units at a rate.
func earning(units, rate float64, why string) time.Duration {
	if why == vault.PacedByBudget {
		rate *= budgetUse
	}
	return seconds(units / rate)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// Failed accounts for a request that wait has let through and that has no answer.
func (p *Pacer) Failed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent--
	p.wake()
}

// Took accounts for a request for which so much was set aside: its cost, and how
// long its answer took.
func (p *Pacer) Took(aside float64, units int64, answer time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.sent--
	defer p.wake()
	refused := !p.hit.Before(now.Add(-answer))
	switch {
	case refused:
	case p.hit.IsZero():
		p.window++ // so that it doubles with each round
	default:
		p.window += 1 / p.window
	}
	cost := float64(max(units, 1))
	if p.cost == 0 {
		p.cost = cost
	}
	p.cost += (cost - p.cost) / firstAnswers
	p.measure(now, answer, cost)
	// How long an answer took that was refused before says nothing.
	if !refused && p.slow(answer, cost) && now.Sub(p.cut) >= cutRest {
		p.lower(now, slowCut, vault.PacedByLatency)
	}
	p.raise(now)
	rate, why := p.held()
	if rate == 0 {
		return
	}
	if aside == 0 && p.free.Before(now) {
		p.free = now
	}
	p.free = p.free.Add(earning(cost-aside, rate, why))
}

// Refused takes into account that the service wants fewer requests. It is called
// while the one that was refused waits to be sent again; the others wait, too.
func (p *Pacer) Refused() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.hit = now
	p.throttled++
	p.reason = vault.PacedByService
	if now.Sub(p.cut) >= cutRest {
		p.window = max(1, min(p.window, float64(p.sent))/2)
		p.lower(now, throttledCut, vault.PacedByService)
	}
	hold := longestHold
	if rate, _ := p.held(); rate > 0 {
		hold = min(hold, seconds(max(p.cost/rate, requestTime)))
	}
	if free := now.Add(hold); p.free.Before(free) {
		p.free = free
	}
}

// Resume begins at the rate at which another invocation ended.
func (p *Pacer) Resume(of *vault.Pace) {
	if of == nil || of.Reason == vault.PacedByBudget || of.ReadUnits+of.WriteUnits == 0 || p.limit > 0 {
		return
	}
	now := time.Now()
	p.limit, p.why = of.ReadUnits+of.WriteUnits, of.Reason
	p.top, p.grown = p.limit/nearBelow, now.Add(calmRest-rateWindow)
}

// measure keeps the rate of the last window.
func (p *Pacer) measure(now time.Time, answer time.Duration, cost float64) {
	if p.since.IsZero() {
		p.since = now.Add(-answer)
	}
	p.units += cost
	if took := now.Sub(p.since); took >= rateWindow {
		rate := p.units / took.Seconds()
		p.recent = max(rate, p.recent*fade)
		p.best = max(p.best, rate)
		p.since, p.units = now, 0
	}
}

// slow takes an answer's time into the average, and says whether answers take
// too long for their size.
func (p *Pacer) slow(answer time.Duration, cost float64) bool {
	took := max(answer.Seconds(), 1e-6)
	if p.answers == 0 {
		p.least, p.perUnit, p.slowness = took, took/cost, 1
	}
	p.answers++
	p.least, p.perUnit = min(p.least, took), min(p.perUnit, took/cost)
	p.slowness += (took/(p.least+p.perUnit*cost) - p.slowness) / firstAnswers
	return p.answers > firstAnswers && answer > slowLeast && p.slowness > slowFactor
}

// lower cuts the rate to a share of what was reached.
func (p *Pacer) lower(now time.Time, share float64, why string) {
	reached := p.recent
	if reached == 0 {
		return // the first window is not over: there is no rate to go by
	}
	if held, _ := p.held(); held > 0 {
		reached = min(reached, held)
	}
	p.limit, p.why, p.top = max(leastRate, reached*share), why, reached
	if why == vault.PacedByLatency {
		p.limit = max(p.limit, slowFloor*p.best, leastSlow)
	}
	p.reason = why
	p.cut, p.grown = now, now.Add(calmRest-rateWindow)
}

// raise lets the rate grow after a calm time, until nothing holds it any more:
// it is at the budget, or far above what is asked for.
func (p *Pacer) raise(now time.Time) {
	if p.limit == 0 {
		return
	}
	for ; now.Sub(p.grown) >= rateWindow; p.grown = p.grown.Add(rateWindow) {
		if p.why == vault.PacedByService && p.limit > nearBelow*p.top && p.limit < nearAbove*p.top {
			p.limit *= nearGrowth
		} else {
			p.limit *= growth
		}
		if p.budget > 0 && p.limit >= p.budget || p.budget == 0 && p.recent > 0 && p.limit > 4*p.recent {
			p.limit = 0
			return
		}
	}
}

// Take returns what the requests were held back by since the last call, nil if by
// nothing.
func (p *Pacer) Take() *vault.Pace {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reason == "" {
		return nil
	}
	held, _ := p.held()
	rate := math.Round(held*10) / 10
	pace := &vault.Pace{Reason: p.reason, WaitedMS: p.waited.Milliseconds(), Throttled: p.throttled}
	if p.Writes {
		pace.WriteUnits = rate
	} else {
		pace.ReadUnits = rate
	}
	p.reason, p.waited, p.throttled = "", 0, 0
	return pace
}
