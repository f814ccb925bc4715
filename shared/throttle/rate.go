package throttle

import (
	"cmp"
	"time"

	"github.com/tablevault/tablevault/shared/vault"
)

const (
	// requestTime is the share of a second's units that a request aims at, so that no
	// second has many more than another; leastRequest is the least.
	requestTime  = 0.5
	leastRequest = 8 // units
	// budgetUse is the share of a budget that is used: ten seconds in a row, which may
	// begin and end with a request, then have no more than the budget.
	budgetUse = 1 - requestTime/10
	// Where a request was refused, those that wait for their turn do not try before
	// longestHold is over, or less where units come in faster.
	longestHold = 2 * time.Second
	// firstBatch is the most units of the first firstBatches batches: all of a batch is
	// sent again where the service has no room for it.
	firstBatch, firstBatches = 50, 16
	// firstAnswers is how many answers make an average.
	firstAnswers = 8
)

// rate is what requests are held to; the zero rate holds nothing.
type rate struct {
	units float64 // per second
	why   string  // one of vault's Paced constants
}

func (r rate) none() bool { return r.units == 0 }

// earning is how long it takes to earn so many units.
func (r rate) earning(units float64) time.Duration {
	perSecond := r.units
	if r.why == vault.PacedByBudget {
		perSecond *= budgetUse
	}
	return seconds(units / perSecond)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// budget is the rate that requests never exceed, in units per second; 0 for none. It is
// fixed.
type budget float64

func (b budget) rate() rate {
	if b <= 0 {
		return rate{}
	}
	return rate{float64(b), vault.PacedByBudget}
}

// account sets what requests cost against what a rate earns. What a request costs is
// known when its answer has come, so what those before it cost is set aside for it, and
// the rest is paid for by those after it.
type account struct {
	free time.Time // when the next request may be sent
	cost float64   // of a request, by those lately; 0 before the first
}

// setAside pays for a request whose cost is expected, 0 if it is not known, and returns
// what it has paid.
func (a *account) setAside(now time.Time, cost float64, r rate) float64 {
	if cost == 0 {
		cost = cmp.Or(a.cost, max(1, r.units*requestTime))
	}
	a.free = now.Add(r.earning(cost))
	return cost
}

// learn takes what a request did cost into the average.
func (a *account) learn(cost float64) {
	if a.cost == 0 {
		a.cost = cost
	}
	a.cost += (cost - a.cost) / firstAnswers
}

// settle pays for what a request did cost beyond what was set aside.
func (a *account) settle(now time.Time, aside, cost float64, r rate) {
	if r.none() {
		return
	}
	if aside == 0 && a.free.Before(now) {
		a.free = now
	}
	a.free = a.free.Add(r.earning(cost - aside))
}

// hold has the next request wait, since one was refused.
func (a *account) hold(now time.Time, r rate) {
	hold := longestHold
	if !r.none() {
		hold = min(hold, seconds(max(a.cost/r.units, requestTime)))
	}
	if free := now.Add(hold); a.free.Before(free) {
		a.free = free
	}
}
