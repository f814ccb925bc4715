package backup

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/tablevault/tablevault/shared/vault"
)

// pacer holds the lanes of one worker to a rate of read units: to the worker's
// share of the table's budget, and below it while the service throttles or
// answers slowly. What a page costs is known when it has come, so that a page is
// paid for by those after it.
type pacer struct {
	budget float64 // read units per second, 0 for none

	mu    sync.Mutex
	limit float64   // what the service makes of it, 0 for nothing
	why   string    // of limit
	cut   time.Time // when limit was last lowered
	grown time.Time // when it was last raised
	free  time.Time // when the next page may be asked for

	// The rate that was reached lately: units since, in a window of a second.
	since time.Time
	units float64
	rate  float64
	best  float64
	// How long answers take: the least for any page and per read unit, in seconds,
	// and the average of how many times as long they take, which forgets.
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
	throttledCut      = 0.5
	slowCut           = 0.75
	growth            = 1.25 // per rateWindow
	// Slow answers do not push the rate below this share of the best that was
	// reached: fewer pages at a time is all that can help.
	slowFloor = 0.125
	// leastSlow is the rate, in read units per second, below which reading is no
	// load that slow answers could come from.
	leastSlow = 100.0
	// Answers are slow if on average they take slowFactor times what pages of
	// their size took at best in this invocation, and more than slowLeast.
	slowFactor = 4
	slowLeast  = 250 * time.Millisecond
	leastRate  = 1.0 // read units per second
	// burst is the time for which a pause that was longer than needed is made up.
	burst = time.Second
	// firstAnswers is how many answers make an average.
	firstAnswers = 8
)

// held is the rate that is to be kept, with its reason; 0 for none.
func (p *pacer) held() (float64, string) {
	switch {
	case p.limit > 0 && (p.budget == 0 || p.limit < p.budget):
		return p.limit, p.why
	case p.budget > 0:
		return p.budget, vault.PacedByBudget
	}
	return 0, ""
}

// wait waits until a page may be asked for, but not beyond until, if that is not
// zero. It returns an error if ctx ends first.
func (p *pacer) wait(ctx context.Context, until time.Time) error {
	p.mu.Lock()
	pause := time.Until(p.free)
	if pause > 0 {
		_, p.reason = p.held()
		p.waited += pause
	}
	p.mu.Unlock()
	if !until.IsZero() {
		pause = min(pause, time.Until(until))
	}
	if pause <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// took accounts for a page: its cost, how long its answer took, and whether the
// service made it wait.
func (p *pacer) took(units int64, answer time.Duration, throttled bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	cost := float64(max(units, 1))
	p.measure(now, answer, cost)
	rested := now.Sub(p.cut) >= cutRest
	if throttled {
		p.throttled++
		if rested {
			p.lower(now, throttledCut, vault.PacedByService)
		}
	} else if p.slow(answer, cost) && rested {
		p.lower(now, slowCut, vault.PacedByLatency)
	}
	p.raise(now)
	rate, _ := p.held()
	if rate == 0 {
		p.free = time.Time{}
		return
	}
	if late := now.Add(-burst); p.free.Before(late) {
		p.free = late
	}
	p.free = p.free.Add(time.Duration(cost / rate * float64(time.Second)))
}

// measure keeps the rate of the last window.
func (p *pacer) measure(now time.Time, answer time.Duration, cost float64) {
	if p.since.IsZero() {
		p.since = now.Add(-answer)
	}
	p.units += cost
	if took := now.Sub(p.since); took >= rateWindow {
		p.rate = p.units / took.Seconds()
		p.best = max(p.best, p.rate)
		p.since, p.units = now, 0
	}
}

// slow takes an answer's time into the average, and says whether answers take
// too long for their size.
func (p *pacer) slow(answer time.Duration, cost float64) bool {
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
func (p *pacer) lower(now time.Time, share float64, why string) {
	reached := p.rate
	if reached == 0 {
		// The first window is not over.
		reached = p.units / max(now.Sub(p.since).Seconds(), 1e-3)
	}
	if held, _ := p.held(); held > 0 {
		reached = min(reached, held)
	}
	p.limit, p.why = max(leastRate, reached*share), why
	if why == vault.PacedByLatency {
		p.limit = max(p.limit, slowFloor*p.best, leastSlow)
	}
	p.reason = why
	p.cut, p.grown = now, now.Add(calmRest-rateWindow)
}

// raise lets the rate grow after a calm time, until nothing holds it any more:
// it is at the budget, or far above what is asked for.
func (p *pacer) raise(now time.Time) {
	if p.limit == 0 || now.Sub(p.grown) < rateWindow {
		return
	}
	p.limit *= math.Pow(growth, math.Floor(now.Sub(p.grown).Seconds()))
	p.grown = now
	if p.budget > 0 && p.limit >= p.budget || p.budget == 0 && p.rate > 0 && p.limit > 4*p.rate {
		p.limit = 0
	}
}

// take returns what the lanes were held back by since the last call, nil if by
// nothing.
func (p *pacer) take() *vault.Pace {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reason == "" && p.throttled == 0 {
		return nil
	}
	rate, _ := p.held()
	pace := &vault.Pace{Reason: p.reason, ReadUnits: math.Round(rate*10) / 10, WaitedMS: p.waited.Milliseconds(), Throttled: p.throttled}
	if pace.Reason == "" {
		pace.Reason = vault.PacedByService
	}
	p.reason, p.waited, p.throttled = "", 0, 0
	return pace
}
