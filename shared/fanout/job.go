package fanout

import (
	"context"
	"errors"
	"fmt"

	"github.com/tablevault/tablevault/shared/vault"
)

// Job is what a start does with one segment: it reads what others have left in the
// segment's log, works for the next slot, and hands what it has to the worker, which wins
// the slot. Where in the segment the log stands, a job alone knows.
type Job interface {
	// Read reads the segment's log. claimed says that this worker has made the segment's
	// first start.
	Read(ctx context.Context, claimed bool) error
	// Slots is how many slots the log has so far, and Ended whether the segment has come
	// to its end by them.
	Slots() int
	Ended() bool
	// Begun comes after the start is noted, and before the first Next. idle is how many
	// starts before it came to nothing. It says how many rows and bytes the log tells of.
	// An error that matches ErrClosed ends the worker.
	Begun(ctx context.Context, start, idle int) (rows, bytes int64, err error)
	// Next works for the next slot, and returns what is to stand in it; nil if there is
	// nothing to write, since the segment has ended, or time is up. What came before an
	// error is as good as any: a document beside an error is written, and the error
	// reported after it.
	Next(ctx context.Context) (vault.Document, error)
	// Stored takes into account what stands in the slot, which has been read into the
	// document: another start's unless it is mine. It says whether this start goes on
	// behind it.
	Stored(ctx context.Context, mine bool) (goesOn bool, err error)
	// End leaves what tells that the segment has ended.
	End(ctx context.Context) error
}

// ErrClosed says that there is nothing to do any more for any worker.
var ErrClosed = errors.New("it is closed")

// Work works on the segment of a command, and then, for as long as there is time, on
// others that nobody has begun. It says whether nothing was left to begin.
func (w *Worker) Work(ctx context.Context, command Work) (through bool, err error) {
	w.command = command
	if err := w.one(ctx, command.Segment, command.Start, false); err != nil {
		return false, err
	}
	if w.Superseded && (command.ReadUnits > 0 || command.WriteUnits > 0) {
		return false, nil // one worker more would go beyond the budget
	}
	err = w.goOn(ctx, w.one)
	return err == nil && !w.Over, err
}

// one works on a segment, whose start may be claimed already, and notes what goes wrong,
// or that nothing of it is under way any more.
func (w *Worker) one(ctx context.Context, s vault.SegmentID, start int, claimed bool) error {
	w.At, w.Superseded = Start{s, start}, false
	job, err := w.Open(ctx, s)
	if err != nil {
		return fmt.Errorf("%s: %w", w.What(s), err)
	}
	noted, goesOn, err := w.segment(ctx, job, claimed)
	if errors.Is(err, ErrClosed) {
		w.Closed, w.Over, err = true, true, nil
	}
	doubt := w.Doubt != nil && w.Doubt()
	if err == nil && noted && w.Doubt != nil && !doubt {
		err = w.Log.repo.Mark(ctx, w.Log.names.End(s, w.At.Number))
	}
	if err == nil && goesOn {
		err = w.handOver(ctx, s, w.At.Number)
	}
	if err == nil {
		return nil
	}
	if err = fmt.Errorf("%s: %w", w.What(s), err); doubt {
		err = InDoubt(err)
	}
	return w.Log.Fail(ctx, w.At, *w.Run, Permanent(err) || w.Permanent != nil && w.Permanent(err), err)
}

// segment takes the steps of a job until its segment has ended, or time is up. It says
// whether a start of it is noted, and whether another invocation is to go on.
func (w *Worker) segment(ctx context.Context, job Job, claimed bool) (noted, goesOn bool, err error) {
	if err := job.Read(ctx, claimed); err != nil {
		return claimed, false, err
	}
	if job.Ended() {
		return claimed, false, job.End(ctx)
	}
	idle := 0
	if !claimed {
		if idle, err = w.begin(ctx, job.Slots()); err != nil || w.Superseded {
			return false, false, err
		}
	}
	rows, size, err := job.Begun(ctx, w.At.Number, idle)
	if err != nil {
		return true, false, err
	}
	tell := NewTeller(ctx, w.Log.repo, *w.Run, w.Log.names.Progress(w.At.Segment), w.At.Number, rows, size)
	defer tell.End()
	goesOn, err = w.slots(tell.With(ctx), job)
	if err != nil || goesOn || !job.Ended() {
		return true, goesOn, err
	}
	return true, false, job.End(ctx)
}

// slots wins one slot of the segment's log after the other. It says whether another
// invocation is to go on.
func (w *Worker) slots(ctx context.Context, job Job) (goesOn bool, err error) {
	for stored := 0; !job.Ended(); stored++ {
		if w.Margin != nil {
			w.Run.Stop = w.Margin.Stop()
		}
		// A start that has stored something has come further, whatever it does next.
		if stored > 0 && w.Run.Stopping() {
			return !w.Superseded, nil
		}
		d, broken := job.Next(ctx)
		if d == nil {
			return broken == nil && !job.Ended() && !w.Superseded, broken
		}
		mine, err := w.Log.repo.Win(ctx, w.Log.names.Slot(w.At.Segment, job.Slots()), d)
		if err != nil {
			return false, errors.Join(broken, err)
		}
		w.Superseded = !mine
		if on, err := job.Stored(ctx, mine); err != nil || !on {
			return false, err
		}
		if broken != nil {
			return false, broken
		}
	}
	return false, nil
}
