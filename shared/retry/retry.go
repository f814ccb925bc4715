// Package retry makes a request again where that may help: one back-off and one loop for
// all adapters to services.
//
// What an error means is for the adapter to say, by a [Verdict]. How an error is put that
// a call ends with is its matter, too: it makes it of the [End].
package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

// Policy says how soon a request is made again, and how often or for how long. Bounds
// that are zero do not hold.
type Policy struct {
	// First is the pause after the first failure; it doubles with each until it is Most.
	// Half of a pause is left to chance.
	First, Most time.Duration
	// Attempts is how many there are at most.
	Attempts int
	// Total is for how long a call may go without success, Away the same while nothing
	// answers. The last pause is shortened, so that the time is used up.
	Total, Away time.Duration
	// Limit is how long one attempt may take.
	Limit time.Duration
}

// A Verdict is what there is to know about the error of an attempt. Zero says that the
// same request fails again.
type Verdict uint8

const (
	// Again says that the same request may succeed.
	Again Verdict = 1 << iota
	// Doubt says that the request may have been carried out though it failed.
	Doubt
	// Slower says that the service wants fewer requests.
	Slower
	// Away says that nothing answers at the address.
	Away
)

// Has says whether a mark is among those of the verdict.
func (v Verdict) Has(mark Verdict) bool { return v&mark != 0 }

// slowerFactor is how many times the first pause is made where the service wants fewer
// requests: it counts them by the second.
const slowerFactor = 10

// A Call is a request that is made until it succeeds, or can't.
type Call struct {
	Policy Policy
	// Judge says what the error of an attempt means; the attempts are counted from 1 on.
	Judge func(err error, attempt int) Verdict
	// Pausing is told of each pause before it. Nobody is told if it is nil.
	Pausing func(err error, pause time.Duration)
	// Resume is asked after each pause whether the request may be made again. Its error
	// ends the call.
	Resume func(ctx context.Context) error

	began time.Time // the call, or its last success
	away  time.Time // since when nothing answers, zero if something does
	pause time.Duration
	doubt bool
}

// An End is how a call ended.
type End struct {
	Err      error // of the last attempt, or of Resume; nil if the call succeeded
	Attempts int
	Stopped  error         // the context's, if it ended before the call did
	Tried    time.Duration // how long it went without success, if that was for too long
	Doubt    bool          // an attempt that failed may have been carried out
}

// Do makes attempts, each with a context that ends with its time, until one succeeds,
// trying again can't help or is not allowed any more, or ctx ends.
func (c *Call) Do(ctx context.Context, attempt func(context.Context) error) End {
	c.began, c.pause = time.Now(), c.Policy.First
	for n := 1; ; n++ {
		err := c.try(ctx, attempt)
		if err == nil {
			return End{Attempts: n, Doubt: c.doubt}
		}
		if stopped := ctx.Err(); stopped != nil {
			return End{Err: err, Attempts: n, Stopped: stopped, Doubt: true}
		}
		v := c.Judge(err, n)
		c.doubt = c.doubt || v.Has(Doubt)
		if !v.Has(Again) || n == c.Policy.Attempts {
			return End{Err: err, Attempts: n, Doubt: c.doubt}
		}
		left, tried := c.left(v)
		if left <= 0 {
			return End{Err: err, Attempts: n, Tried: tried, Doubt: c.doubt}
		}
		pause := min(c.next(v), left)
		if c.Pausing != nil {
			c.Pausing(err, pause)
		}
		if stopped := Sleep(ctx, pause); stopped != nil {
			return End{Err: err, Attempts: n, Stopped: stopped, Doubt: c.doubt}
		}
		if c.Resume != nil {
			if err := c.Resume(ctx); err != nil {
				return End{Err: err, Attempts: n, Doubt: c.doubt}
			}
		}
	}
}

// try makes one attempt.
func (c *Call) try(ctx context.Context, attempt func(context.Context) error) error {
	if c.Policy.Limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Policy.Limit)
		defer cancel()
	}
	return attempt(ctx)
}

// left is how much longer a call may go without success, and how long it has gone so.
func (c *Call) left(v Verdict) (left, tried time.Duration) {
	now, since, limit := time.Now(), c.began, c.Policy.Total
	if !v.Has(Away) {
		c.away = time.Time{}
	} else if c.Policy.Away > 0 {
		if c.away.IsZero() {
			c.away = now
		}
		since = c.away
		if limit <= 0 || c.Policy.Away < limit {
			limit = c.Policy.Away
		}
	}
	tried = now.Sub(since)
	if limit <= 0 {
		return 1<<63 - 1, tried
	}
	return limit - tried, tried
}

// next is the pause before the next attempt.
func (c *Call) next(v Verdict) time.Duration {
	if v.Has(Slower) {
		c.pause = max(c.pause, min(c.Policy.First*slowerFactor, c.Policy.Most))
	}
	pause := c.pause/2 + rand.N(c.pause/2+1)
	c.pause = min(2*c.pause, c.Policy.Most)
	return pause
}

// Progress begins the time anew, for a call that succeeds in parts, from its attempts.
// The next pause is no longer than the last: what is left takes as many more answers.
func (c *Call) Progress() {
	c.began, c.away, c.pause = time.Now(), time.Time{}, max(c.pause/2, c.Policy.First)
}

// Sleep waits, and returns the error of ctx if that ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
