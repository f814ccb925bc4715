package function

import (
	"context"
	"errors"
	"time"
)

// ErrMargin is the cause of a work context that ended at the margin: there is
// no time to begin more, and time enough to save what is done.
var ErrMargin = errors.New("time for work is used up")

// Budget divides an invocation's time. Work ends at Deadline − Margin; what
// remains is for closing: flush, record, invoke the next.
//
// A verb gets the context that ends at the deadline. It reads under
// [Budget.Work]'s context, and when that ends with [ErrMargin] it saves where it
// is under the context it was given:
//
//	work, cancel := inv.Budget.Work(ctx)
//	defer cancel()
//	part, err := read(work)
//	if err != nil && !errors.Is(context.Cause(work), function.ErrMargin) {
//		return nil, err
//	}
//	return save(ctx, part)
type Budget struct {
	Deadline time.Time     // when the platform kills the invocation
	Margin   time.Duration // what is kept for closing
}

// NewBudget plans the time from start to deadline. The margin is what is wanted,
// but at most a third of the whole, so that a short function still works.
func NewBudget(start, deadline time.Time, margin time.Duration) Budget {
	return Budget{Deadline: deadline, Margin: max(0, min(margin, deadline.Sub(start)/3))}
}

// WorkEnds returns the instant at which work ends.
func (b Budget) WorkEnds() time.Time { return b.Deadline.Add(-b.Margin) }

// Work derives the context for work from the invocation's. It ends at
// [Budget.WorkEnds] with the cause [ErrMargin].
func (b Budget) Work(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithDeadlineCause(ctx, b.WorkEnds(), ErrMargin)
}
