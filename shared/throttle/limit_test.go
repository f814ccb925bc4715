package throttle

import (
	"math"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/vault"
)

var start = time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(1, math.Abs(b)) }

// TestLower cuts the limit to a share of the rate that was reached.
func TestLower(t *testing.T) {
	for _, test := range []struct {
		name         string
		lately, best float64
		share        float64
		why          string
		held         rate
		want         float64 // 0: it is left alone
		top          float64
	}{
		{"before the first window is over", 0, 0, throttledCut, vault.PacedByService, rate{}, 0, 0},
		{"a refusal", 1000, 1000, throttledCut, vault.PacedByService, rate{}, 700, 1000},
		{"a refusal below a limit", 1000, 1000, throttledCut, vault.PacedByService, rate{400, vault.PacedByService}, 280, 400},
		{"a refusal below a budget", 1000, 1000, throttledCut, vault.PacedByService, rate{500, vault.PacedByBudget}, 350, 500},
		{"a refusal at the least", 1, 1000, throttledCut, vault.PacedByService, rate{}, leastRate, 1},
		{"slow answers", 1000, 1000, slowCut, vault.PacedByLatency, rate{}, 750, 1000},
		{"slow answers far below the best", 300, 4000, slowCut, vault.PacedByLatency, rate{}, 500, 300},
		{"slow answers without a load", 50, 50, slowCut, vault.PacedByLatency, rate{}, leastSlow, 50},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := limit{reached: reached{lately: test.lately, best: test.best}}
			if lowered := l.lower(start, test.share, test.why, test.held); lowered != (test.want > 0) || !near(l.units, test.want) || !near(l.top, test.top) {
				t.Errorf("%v: %+v", lowered, l)
			}
			if test.want > 0 && (l.why != test.why || l.rested(start.Add(cutRest-1)) || !l.rested(start.Add(cutRest))) {
				t.Errorf("%+v", l)
			}
		})
	}
}

// TestRaise has the limit grow after a calm time, slowly around what was too much for the
// service, until nothing holds it.
func TestRaise(t *testing.T) {
	lowered := func(why string, top float64) *limit {
		l := &limit{reached: reached{lately: top}}
		l.lower(start, throttledCut, why, rate{})
		l.reached.lately = 1e6 // so that it is never far above what is asked for
		return l
	}
	after := func(l *limit, d time.Duration, b budget) float64 {
		l.raise(start.Add(d), b)
		return l.units
	}
	l := lowered(vault.PacedByService, 1000)
	for _, step := range []struct {
		at   time.Duration
		want float64
	}{
		{calmRest - 1, 700},
		{calmRest, 700 * growth},
		{calmRest + rateWindow - 1, 700 * growth},
		{calmRest + rateWindow, 700 * growth * growth},
		{calmRest + 2*rateWindow, 700 * growth * growth * nearGrowth},
		{calmRest + 4*rateWindow, 700 * growth * growth * math.Pow(nearGrowth, 3)},
	} {
		if got := after(l, step.at, 0); !near(got, step.want) {
			t.Errorf("after %v: %v, want %v", step.at, got, step.want)
		}
	}
	// Above nearAbove it grows fast again: nothing was refused there.
	if after(l, 20*time.Second, 0); l.units < 2000 {
		t.Errorf("after 20 s: %v", l.units)
	}
	// Where answers were slow, there is no rate that is known to be too much.
	if l := lowered(vault.PacedByLatency, 1000); !near(after(l, calmRest+2*rateWindow, 0), 700*math.Pow(growth, 3)) {
		t.Errorf("after slow answers: %v", l.units)
	}
	if l := lowered(vault.PacedByLatency, 1000); after(l, calmRest, 876) == 0 || after(l, calmRest+rateWindow, 876) != 0 {
		t.Errorf("at the budget: %+v", l.rate)
	}
	if l := lowered(vault.PacedByLatency, 1000); after(l, time.Hour, 0) != 0 {
		t.Errorf("far above all that was ever asked for: %+v", l.rate)
	} else if after(l, 2*time.Hour, 0) != 0 {
		t.Errorf("then: %+v", l.rate)
	}
}

// TestResume begins where another invocation ended, unless there is a limit.
func TestResume(t *testing.T) {
	var l limit
	l.resume(start, rate{})
	if !l.none() {
		t.Errorf("from nothing: %+v", l.rate)
	}
	l.resume(start, rate{90, vault.PacedByService})
	if l.units != 90 || l.why != vault.PacedByService || !near(l.top, 100) {
		t.Errorf("%+v", l)
	}
	l.resume(start, rate{10, vault.PacedByLatency})
	if l.units != 90 {
		t.Errorf("a second time: %+v", l.rate)
	}
	if l.raise(start.Add(calmRest-1), 0); l.units != 90 {
		t.Errorf("before the calm time is over: %v", l.units)
	}
	if l.raise(start.Add(calmRest), 0); !near(l.units, 90*growth) {
		t.Errorf("after it: %v", l.units)
	}
}

// TestReached measures the rate over windows of a second, and forgets the greatest
// slowly.
func TestReached(t *testing.T) {
	var r reached
	add := func(at time.Duration, cost float64) { r.add(start.Add(at), 100*time.Millisecond, cost) }
	add(0, 50) // sent a tenth of a second before
	if r.lately != 0 {
		t.Errorf("before the window is over: %+v", r)
	}
	add(900*time.Millisecond, 50)
	if r.lately != 100 || r.best != 100 {
		t.Errorf("%+v", r)
	}
	add(1900*time.Millisecond, 10)
	if !near(r.lately, 90) || r.best != 100 {
		t.Errorf("after a slower one: %+v", r)
	}
	add(3900*time.Millisecond, 400)
	if r.lately != 200 || r.best != 200 {
		t.Errorf("after a faster one of two seconds: %+v", r)
	}
}

// TestSlow holds answers against the best of their size, and not against those of another
// one.
func TestSlow(t *testing.T) {
	slow := func(a *answers, n int, took time.Duration, cost float64) (slow bool) {
		for range n {
			slow = a.slow(took, cost)
		}
		return slow
	}
	var a answers
	if slow(&a, 8, time.Second, 1) {
		t.Error("answers that are all alike are slow")
	}
	if slow(&a, 100, 10*time.Millisecond, 1) {
		t.Error("quick answers are slow")
	}
	if slow(&a, 100, 240*time.Millisecond, 1) {
		t.Error("a quarter of a second is slow")
	}
	a = answers{}
	slow(&a, 100, 10*time.Millisecond, 1)
	if !slow(&a, 2, 500*time.Millisecond, 1) {
		t.Errorf("fifty times as long is not slow: %+v", a)
	}
	a = answers{}
	slow(&a, 100, 10*time.Millisecond, 1)
	if slow(&a, 100, 500*time.Millisecond, 50) {
		t.Errorf("a large answer is slow: %+v", a)
	}
	a = answers{}
	slow(&a, 1, time.Second, 1)
	slow(&a, 100, 10*time.Millisecond, 1)
	if !slow(&a, 2, 500*time.Millisecond, 1) {
		t.Errorf("fifty times as long as the best is not slow, since the first was: %+v", a)
	}
	a = answers{}
	slow(&a, firstAnswers-1, 10*time.Millisecond, 1)
	if slow(&a, 1, 10*time.Second, 1) {
		t.Error("one of the first is slow")
	}
}
