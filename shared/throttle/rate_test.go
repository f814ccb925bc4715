package throttle

import (
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/vault"
)

// TestEarning uses all of a limit, and of a budget a little less.
func TestEarning(t *testing.T) {
	if got := (rate{100, vault.PacedByService}).earning(50); got != 500*time.Millisecond {
		t.Errorf("by the service: %v", got)
	}
	if got, want := budget(100).rate().earning(95), time.Second; got != want {
		t.Errorf("by a budget: %v, want %v", got, want)
	}
	if !budget(0).rate().none() {
		t.Error("no budget holds something")
	}
}

// TestAccount sets aside what requests are expected to cost, and settles with the next
// one.
func TestAccount(t *testing.T) {
	held := rate{100, vault.PacedByService}
	var a account
	check := func(what string, want time.Duration) {
		t.Helper()
		if got := a.free.Sub(start); got != want {
			t.Errorf("%s: the next may go after %v, want %v", what, got, want)
		}
	}
	if aside := a.setAside(start, 0, held); aside != 50 {
		t.Errorf("%v units are set aside for the first", aside)
	}
	check("half a second's units", 500*time.Millisecond)
	a.settle(start.Add(time.Millisecond), 50, 20, held)
	check("which were too many", 200*time.Millisecond)
	a.settle(start.Add(time.Millisecond), 50, 100, held)
	check("which were too few", 700*time.Millisecond)
	if aside := a.setAside(start, 30, held); aside != 30 {
		t.Errorf("%v of 30 units are set aside", aside)
	}
	check("a known cost", 300*time.Millisecond)
	// Nothing was set aside where there was no rate at that time.
	a.settle(start.Add(time.Second), 0, 20, held)
	check("nothing was set aside", 1200*time.Millisecond)
	a.settle(start.Add(time.Second), 0, 20, held)
	check("nor for another one", 1400*time.Millisecond)
	a.settle(start.Add(time.Hour), 0, 1e6, rate{})
	check("nothing holds", 1400*time.Millisecond)

	a = account{}
	a.learn(10)
	a.learn(90)
	if a.cost != 20 {
		t.Errorf("an average of %v", a.cost)
	}
	if aside := a.setAside(start, 0, held); aside != 20 {
		t.Errorf("%v units are set aside by the average", aside)
	}
}

// TestHold has those that wait try again after what a request takes to earn, or half a
// second, or two seconds where there is nothing to go by.
func TestHold(t *testing.T) {
	for _, test := range []struct {
		cost float64
		at   rate
		want time.Duration
	}{
		{20, rate{}, longestHold},
		{20, rate{1000, vault.PacedByService}, 500 * time.Millisecond},
		{20, rate{20, vault.PacedByService}, time.Second},
		{20, rate{1, vault.PacedByService}, longestHold},
	} {
		a := account{cost: test.cost}
		if a.hold(start, test.at); a.free.Sub(start) != test.want {
			t.Errorf("%+v: %v", test, a.free.Sub(start))
		}
	}
	a := account{free: start.Add(time.Minute)}
	if a.hold(start, rate{}); a.free != start.Add(time.Minute) {
		t.Errorf("what is later already: %v", a.free.Sub(start))
	}
}

// TestWindow lets few requests out at first, twice as many with each round until one is
// refused, and then one more per round.
func TestWindow(t *testing.T) {
	w := window{size: firstWindow}
	round := func(refused bool) int {
		t.Helper()
		n := 0
		for ; !w.full(); n++ {
			w.sent++
		}
		for range n {
			if w.answered(start) != refused {
				t.Errorf("%+v: want %v", w, refused)
			}
		}
		return n
	}
	for want := 2; want <= 16; want *= 2 {
		if n := round(false); n != want {
			t.Fatalf("%d requests in a round, want %d", n, want)
		}
	}
	w.refused = start // those that are out were sent then
	if n := round(true); n != 32 || w.size != 32 {
		t.Errorf("%d requests in a round, then %v", n, w.size)
	}
	w.sent = 10
	if w.halve(); w.size != 5 {
		t.Errorf("half of those that are out: %v", w.size)
	}
	w.sent, w.refused = 0, start.Add(-1)
	if n, then := round(false), round(false); n != 5 || then != 5 {
		t.Errorf("%d and %d requests in rounds", n, then)
	}
	if n := round(false); n != 6 {
		t.Errorf("%d requests after two rounds", n)
	}
	w = window{size: 1}
	if w.halve(); w.size != 1 {
		t.Errorf("less than one: %v", w.size)
	}
}
