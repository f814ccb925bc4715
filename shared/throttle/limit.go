package throttle

import (
	"time"

	"github.com/tablevault/tablevault/shared/vault"
)

// How the limit follows a service that is too busy.
const (
	rateWindow = time.Second
	// A cut holds for cutRest before the next, since answers to what was asked before it
	// still come in, and for calmRest before the rate grows again.
	cutRest, calmRest = 2 * time.Second, 5 * time.Second
	throttledCut      = 0.7
	slowCut           = 0.75
	// The rate grows by growth per rateWindow. Around the one that was too much for the
	// service it grows slowly: there it is as high as it can be.
	growth, nearGrowth   = 1.25, 1.02
	nearBelow, nearAbove = 0.9, 1.2
	// fade is what is left of the greatest rate lately, per rateWindow.
	fade = 0.9
	// Slow answers do not push the rate below this share of the best that was reached:
	// fewer pages at a time is all that can help.
	slowFloor = 0.125
	// leastSlow is the rate, in units per second, below which there is no load that slow
	// answers could come from.
	leastSlow = 100.0
	// Answers are slow if on average they take slowFactor times what those of their size
	// took at best in this invocation, and more than slowLeast.
	slowFactor = 4
	slowLeast  = 250 * time.Millisecond
	leastRate  = 1.0 // units per second
)

// limit is the rate that the service can take, as far as it has shown: none, until it
// refuses requests or answers them slowly.
type limit struct {
	rate
	top     float64   // the rate that was reached when it was last lowered
	cut     time.Time // when that was
	grown   time.Time // when it was last raised
	reached reached
	answers answers
}

// rested says whether the last cut is long enough ago for another one.
func (l *limit) rested(now time.Time) bool { return now.Sub(l.cut) >= cutRest }

// resume begins at a rate, unless there is a limit.
func (l *limit) resume(now time.Time, at rate) {
	if at.none() || l.units > 0 {
		return
	}
	l.rate = at
	l.top, l.grown = at.units/nearBelow, now.Add(calmRest-rateWindow)
}

// lower cuts the rate to a share of what was reached, at most of what was held. It says
// whether it did: before the first window is over there is no rate to go by.
func (l *limit) lower(now time.Time, share float64, why string, held rate) bool {
	reached := l.reached.lately
	if reached == 0 {
		return false
	}
	if !held.none() {
		reached = min(reached, held.units)
	}
	l.rate, l.top = rate{max(leastRate, reached*share), why}, reached
	if why == vault.PacedByLatency {
		l.units = max(l.units, slowFloor*l.reached.best, leastSlow)
	}
	l.cut, l.grown = now, now.Add(calmRest-rateWindow)
	return true
}

// raise lets the rate grow after a calm time, until nothing holds it any more: it is at
// the budget, or far above what is asked for.
func (l *limit) raise(now time.Time, b budget) {
	if l.none() {
		return
	}
	for ; now.Sub(l.grown) >= rateWindow; l.grown = l.grown.Add(rateWindow) {
		if l.why == vault.PacedByService && l.units > nearBelow*l.top && l.units < nearAbove*l.top {
			l.units *= nearGrowth
		} else {
			l.units *= growth
		}
		if b > 0 && l.units >= float64(b) || b == 0 && l.reached.lately > 0 && l.units > 4*l.reached.lately {
			l.rate = rate{}
			return
		}
	}
}

// reached is the rate that was reached.
type reached struct {
	since        time.Time // when the window began
	units        float64   // in it
	lately, best float64   // the greatest lately, which forgets, and the greatest ever
}

// add takes an answer and its cost into the window.
func (r *reached) add(now time.Time, answer time.Duration, cost float64) {
	if r.since.IsZero() {
		r.since = now.Add(-answer)
	}
	r.units += cost
	if took := now.Sub(r.since); took >= rateWindow {
		rate := r.units / took.Seconds()
		r.lately = max(rate, r.lately*fade)
		r.best = max(r.best, rate)
		r.since, r.units = now, 0
	}
}

// answers is how long answers take.
type answers struct {
	n              int
	least, perUnit float64 // the least for any, and per unit, in seconds
	slowness       float64 // how many times as long they take on average, which forgets
}

// slow takes an answer's time into the average, and says whether answers take too long
// for their size.
func (a *answers) slow(answer time.Duration, cost float64) bool {
	took := max(answer.Seconds(), 1e-6)
	if a.n == 0 {
		a.least, a.perUnit, a.slowness = took, took/cost, 1
	}
	a.n++
	a.least, a.perUnit = min(a.least, took), min(a.perUnit, took/cost)
	a.slowness += (took/(a.least+a.perUnit*cost) - a.slowness) / firstAnswers
	return a.n > firstAnswers && answer > slowLeast && a.slowness > slowFactor
}
