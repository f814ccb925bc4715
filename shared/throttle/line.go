package throttle

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/tablevault/tablevault/shared/vault"
)

// firstWindow is how many requests are sent before the first is answered.
const firstWindow = 2

// window bounds the requests that have no answer yet. It grows with each answer: fast
// until the first refusal, then slowly.
type window struct {
	sent    int       // requests without an answer
	size    float64   // how many there may be
	refused time.Time // when a request was refused last
}

func (w *window) full() bool { return w.sent >= int(w.size) }

// answered takes the answer to a request that was sent at an instant, and says whether a
// request was refused since.
func (w *window) answered(sent time.Time) (refused bool) {
	w.sent--
	switch {
	case !w.refused.Before(sent):
		return true
	case w.refused.IsZero():
		w.size++ // so that it doubles with each round
	default:
		w.size += 1 / w.size
	}
	return false
}

func (w *window) halve() { w.size = max(1, min(w.size, float64(w.sent))/2) }

// line is where requests wait, by their turns.
type line struct {
	turns []int64
	moved chan struct{} // closed when they are to look again; nil if none sleeps
}

func (l *line) join(turn int64) { l.turns = append(l.turns, turn) }

func (l *line) leave(turn int64) {
	at := slices.Index(l.turns, turn)
	l.turns = slices.Delete(l.turns, at, at+1)
	l.wake()
}

// first is the lowest turn of those that wait.
func (l *line) first() int64 { return slices.Min(l.turns) }

// moves is closed when those that wait are to look again.
func (l *line) moves() <-chan struct{} {
	if l.moved == nil {
		l.moved = make(chan struct{})
	}
	return l.moved
}

// wake has all that wait look again.
func (l *line) wake() {
	if l.moved != nil {
		close(l.moved)
		l.moved = nil
	}
}

// sleep sleeps for a pause, if that is above 0, or until it is woken, or ctx ends,
// whatever comes first.
func sleep(ctx context.Context, pause time.Duration, woken <-chan struct{}) error {
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

// held is what requests were held back by.
type held struct {
	reason    string // the last, one of vault's Paced constants
	waited    time.Duration
	throttled int64 // refusals
}

// by notes the reason, if there is one.
func (h *held) by(why string) { h.reason = cmp.Or(why, h.reason) }

// take returns what is recorded of it, nil if there is nothing, and forgets it.
func (h *held) take(at rate, writes bool) *vault.Pace {
	if h.reason == "" {
		return nil
	}
	pace := &vault.Pace{Reason: h.reason, WaitedMS: h.waited.Milliseconds(), Throttled: h.throttled}
	units := math.Round(at.units*10) / 10
	if writes {
		pace.WriteUnits = units
	} else {
		pace.ReadUnits = units
	}
	*h = held{}
	return pace
}
