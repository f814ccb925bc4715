package fanout

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// LooksInFlight is how many groups are looked at at a time.
const LooksInFlight = 8

// MaxFailures is how often a segment may fail before only a person's command starts it
// again.
const MaxFailures = 10

// Dispatch finds out which segments of a backup or of a restore are to be started, and
// starts them.
type Dispatch struct {
	Log   Log
	Stale time.Duration
	Since time.Time
	// Most is how many segments are kept ready, 0 for all.
	Most int

	Live      int     // segments with a live start
	Working   []Start // those of the last look
	Ready     []Start // those to be made
	Submitted int
	Starts    int // the most starts of an open segment
	Pace      *Pace
	Silent    string                        // which of the live ones has been silent for a while
	Failure   string                        // what went wrong last in a segment that is open
	Corrupt   bool                          // it is about an object that is not as it was written
	Over      bool                          // it is for good
	Begun     map[vault.SegmentID]time.Time // first starts, by the store's clock
}

// Add takes over what another look has found.
func (d *Dispatch) Add(o *Dispatch) {
	d.Live += o.Live
	d.Starts = max(d.Starts, o.Starts)
	d.Pace = d.Pace.add(o.Pace)
	d.Silent = cmp.Or(d.Silent, o.Silent)
	if o.Failure != "" && (o.Over || !d.Over) {
		d.Failure, d.Corrupt = o.Failure, o.Corrupt
	}
	d.Over = d.Over || o.Over
	for _, s := range o.Ready {
		d.keep(s)
	}
}

func (d *Dispatch) keep(s Start) {
	if d.Most == 0 || len(d.Ready) < d.Most {
		d.Ready = append(d.Ready, s)
	}
}

// failed notes what went wrong in a segment, and whether that is for good.
func (d *Dispatch) failed(reason string, over bool) { d.failedBy(vault.Note{Error: reason}, over) }

// failedBy does the same by the note of a failure.
func (d *Dispatch) failedBy(note vault.Note, over bool) {
	if over || !d.Over {
		d.Failure, d.Corrupt = note.Error, note.Corrupt
	}
	d.Over = d.Over || over
}

// Look sorts the open segments of a group. A start is live until the platform ends it,
// unless a failure says that it is over. A segment whose newest start failed for good is
// reported and left alone, unless it failed before Since, or starts have gone stale by
// order of the caller. A live one that has told something, and then nothing for a while,
// was killed: another one is begun beside it, which hurts nobody if it was not. All
// others are ready.
func (d *Dispatch) Look(ctx context.Context, run Run, group int, open []vault.SegmentID) error {
	starts, err := d.Log.starts(ctx, group)
	if err != nil {
		return err
	}
	failures, err := d.Log.failures(ctx, group)
	if err != nil {
		return err
	}
	d.Working, d.Begun = nil, make(map[vault.SegmentID]time.Time, len(starts))
	for id, s := range starts {
		d.Begun[id] = s.first
	}
	l := look{dispatch: d, run: run, group: group}
	for _, id := range open {
		next := 0
		if s, begun := starts[id]; begun {
			next = s.Last + 1
			d.Starts = max(d.Starts, next)
			if ready, err := l.ready(ctx, id, s, failures[id]); err != nil {
				return err
			} else if !ready {
				continue
			}
		}
		d.keep(Start{id, next})
	}
	return nil
}

// Submit starts at most n of the segments that are ready.
func (d *Dispatch) Submit(ctx context.Context, to Dispatcher, n int, work func(vault.SegmentID, int) Work) error {
	for len(d.Ready) > 0 && n > 0 {
		s := d.Ready[0]
		if err := to.Submit(ctx, work(s.Segment, s.Number)); err != nil {
			return fmt.Errorf("dispatch segment %s: %w", s.Segment, err)
		}
		d.Ready = d.Ready[1:]
		d.Submitted++
		n--
	}
	return nil
}

// Paces reads from the newest slots of the segments that the last look found at work,
// which were a group's, what holds their workers back.
func (d *Dispatch) Paces(ctx context.Context, group int, read func(ctx context.Context, slot string) (*vault.Pace, error)) error {
	if len(d.Working) == 0 {
		return nil
	}
	slots, err := count(d.Log.Slots(ctx, group))
	if err != nil {
		return err
	}
	for _, at := range d.Working {
		if slots[at.Segment].Count == 0 {
			continue
		}
		of, err := read(ctx, d.Log.names.Slot(at.Segment, slots[at.Segment].Last))
		if err != nil && repository.Corrupt(err) {
			continue // whoever proves the log says so
		}
		if err != nil {
			return err
		}
		d.Pace = d.Pace.Of(of)
	}
	return nil
}
