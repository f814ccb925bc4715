package tablestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tablevault/tablevault/shared/retry"
	"github.com/tablevault/tablevault/shared/table"
)

// Retry says for how long a call goes on. Zero fields mean the defaults.
type Retry struct {
	// First is the pause after the first failure, 50 ms; it doubles with each until it is
	// Longest, 10 s. Half of a pause is left to chance.
	First, Longest time.Duration
	// Total is for how long a call may go without success, 2 min.
	Total time.Duration
	// Unreachable is the same where nothing answers at the endpoint, 15 s.
	Unreachable time.Duration
	// Attempt is how long one request may take, 30 s.
	Attempt time.Duration
	// Window is for how long rows refused for their timestamps are sent again, 10 s: a
	// raised deviation takes its time to act.
	Window time.Duration
}

func (r Retry) withDefaults() Retry {
	r.First = cmp.Or(r.First, 50*time.Millisecond)
	r.Longest = cmp.Or(r.Longest, 10*time.Second)
	r.Total = cmp.Or(r.Total, 2*time.Minute)
	r.Unreachable = cmp.Or(r.Unreachable, 15*time.Second)
	r.Attempt = cmp.Or(r.Attempt, 30*time.Second)
	r.Window = cmp.Or(r.Window, 10*time.Second)
	return r
}

func (r Retry) policy() retry.Policy {
	return retry.Policy{First: r.First, Most: r.Longest, Total: r.Total, Away: r.Unreachable}
}

// do makes attempts of one call until one succeeds or none can, and returns what the call
// ends with. doubt says that an attempt may have been carried out though it failed.
func (c *Client) do(ctx context.Context, attempt func(*retry.Call) error) (doubt bool, err error) {
	var last error // that was judged
	call := retry.Call{Policy: c.config.Retry.policy(), Resume: table.Retrying}
	call.Judge = func(err error, _ int) retry.Verdict {
		last = err
		var e *Error
		if !errors.As(err, &e) {
			return final
		}
		if e.verdict.Has(retry.Slower) {
			table.Throttled(ctx)
		}
		return e.verdict
	}
	call.Pausing = func(err error, pause time.Duration) { c.logPause(ctx, err, pause) }
	end := call.Do(ctx, func(context.Context) error { return attempt(&call) })
	var e *Error
	switch {
	case end.Stopped != nil && last != nil && errors.Is(end.Err, end.Stopped):
		return end.Doubt, stopped(ctx, last) // which says more
	case end.Stopped != nil:
		return end.Doubt, stopped(ctx, end.Err)
	case end.Tried > 0 && errors.As(end.Err, &e):
		e.tried = end.Tried
	}
	return end.Doubt, end.Err
}

func (c *Client) logPause(ctx context.Context, err error, pause time.Duration) {
	level := slog.LevelDebug
	if pause > time.Second {
		level = slog.LevelWarn
	}
	var e *Error
	if errors.As(err, &e) {
		c.config.Log.LogAttrs(ctx, level, "trying again", slog.String("op", e.Op), slog.String("table", e.Table),
			slog.Duration("pause", pause), slog.Any("error", e))
	}
}

// stopped is the error of a call whose context ended, with what went wrong until then.
func stopped(ctx context.Context, err error) error {
	if ended := ctx.Err(); !errors.Is(err, ended) {
		return fmt.Errorf("%w (%w)", err, ended)
	}
	return err
}

// wait pauses; it returns err with the context's if that ends first.
func wait(ctx context.Context, d time.Duration, err error) error {
	if retry.Sleep(ctx, d) != nil {
		return stopped(ctx, err)
	}
	return nil
}
