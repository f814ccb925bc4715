package tablestore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/tablevault/tablevault/shared/table"
)

// Retry says for how long a call goes on. Zero fields mean the defaults.
type Retry struct {
	// First is the pause after the first failure, 50 ms; it doubles with each
	// until it is Longest, 10 s. Half of a pause is left to chance.
	First, Longest time.Duration
	// Total is for how long a call may go without success, 2 min.
	Total time.Duration
	// Unreachable is the same where nothing answers at the endpoint, 15 s.
	Unreachable time.Duration
	// Attempt is how long one request may take, 30 s.
	Attempt time.Duration
	// Window is for how long rows refused for their timestamps are sent again,
	// 10 s: a raised deviation takes its time to act.
	Window time.Duration
}

func (r Retry) withDefaults() Retry {
	set := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	set(&r.First, 50*time.Millisecond)
	set(&r.Longest, 10*time.Second)
	set(&r.Total, 2*time.Minute)
	set(&r.Unreachable, 15*time.Second)
	set(&r.Attempt, 30*time.Second)
	set(&r.Window, 10*time.Second)
	return r
}

// throttledFactor is how many times the first pause is made where the service
// wants fewer requests: it counts them by the second.
const throttledFactor = 10

// tries is the attempts of one call.
type tries struct {
	client *Client
	began  time.Time // of the call, or of its last success
	away   time.Time // since when nothing answers, zero if something does
	pause  time.Duration
	last   error // of the attempt before, nil at the first
	lost   bool  // an attempt may have been carried out though it failed
}

func (c *Client) tries() tries {
	return tries{client: c, began: time.Now(), pause: c.retry.First}
}

// success starts the time anew, for calls that succeed in parts. The next pause is
// no longer than the last: what is left takes as many more answers.
func (t *tries) success() {
	t.began, t.away, t.pause = time.Now(), time.Time{}, max(t.pause/2, t.client.retry.First)
}

// again waits before another attempt and returns nil, or returns the error that
// the call ends with.
func (t *tries) again(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil {
		if t.last != nil && errors.Is(err, ended) {
			err = t.last // which says more
		}
		return stopped(ctx, err)
	}
	t.last = err
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	now, retry := time.Now(), &t.client.retry
	since, limit := t.began, retry.Total
	switch e.behavior {
	case final:
		return err
	case throttling, busy:
		table.Throttled(ctx)
		t.pause = max(t.pause, min(retry.First*throttledFactor, retry.Longest))
		t.lost = t.lost || e.behavior == busy
	case unavailable:
		t.lost = true
	case unreachable:
		if t.away.IsZero() {
			t.away = now
		}
		since, limit = t.away, min(retry.Unreachable, retry.Total)
	}
	if e.behavior != unreachable {
		t.away = time.Time{}
	}
	left := limit - now.Sub(since)
	if left <= 0 {
		e.tried = now.Sub(since)
		return err
	}
	pause := min(t.pause/2+rand.N(t.pause/2+1), left)
	t.pause = min(2*t.pause, retry.Longest)
	level := slog.LevelDebug
	if pause > time.Second {
		level = slog.LevelWarn
	}
	t.client.log.LogAttrs(ctx, level, "trying again", slog.String("op", e.Op), slog.String("table", e.Table),
		slog.Duration("pause", pause), slog.Any("error", e))
	if err := wait(ctx, pause, err); err != nil {
		return err
	}
	return table.Retrying(ctx)
}

// stopped is the error of a call whose context ended, with what went wrong
// until then.
func stopped(ctx context.Context, err error) error {
	if ended := ctx.Err(); !errors.Is(err, ended) {
		return fmt.Errorf("%w (%w)", err, ended)
	}
	return err
}

// wait pauses; it returns err with the context's if that ends first.
func wait(ctx context.Context, d time.Duration, err error) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return stopped(ctx, err)
	}
}
