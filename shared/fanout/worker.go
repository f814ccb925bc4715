package fanout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/vault"
)

// Worker is one invocation at work on the segments of a backup or of a restore: it begins
// the one of its command, and goes on with others that nobody has begun for as long as
// there is time. So as many work as were dispatched, until nothing is left.
type Worker struct {
	Log Log
	Run *Run
	// Planned are the segments of a group of the plan that hold work, groups is how many
	// groups there are.
	Planned func(group int) []vault.SegmentID
	Groups  int
	// To has other invocations work on segments; nil where that is left to the next look.
	To Dispatcher
	// What says what is done with a segment.
	What func(s vault.SegmentID) string
	// Most bounds the starts of a segment, 0 for MaxStarts.
	Most int
	// Open makes the job of a segment. An error of it leaves no note: there is no such
	// segment.
	Open func(ctx context.Context, s vault.SegmentID) (Job, error)
	// Margin says when to stop, nil if the run does.
	Margin *Margin
	// Doubt says whether a request of the start at hand may still be carried out though
	// nobody waits for it. It is nil where nothing waits for the ends of starts; else
	// each that leaves no doubt is marked.
	Doubt func() bool
	// Permanent says of errors beside those of the function Permanent that trying the
	// same again can't help; nil if there are none.
	Permanent func(error) bool

	// At is the start at hand, or the last one.
	At Start
	// Superseded says that another start is at work on its segment.
	Superseded bool
	// Closed says that a job has found that there is nothing to do any more.
	Closed bool
	// Over says that this worker takes nothing more: somebody else goes on with what it
	// did, or nothing may be done.
	Over bool
	// command is what the worker was begun by.
	command Work
	// noted says that the worker has come to note a start by itself.
	noted bool
	// next is what the worker has claimed, children all that its segments were split
	// into.
	next     vault.SegmentID
	children []vault.SegmentID
	// begun are the segments that somebody has begun; full the groups in which all were.
	begun map[vault.SegmentID]bool
	full  map[int]bool
}

// begin notes the start at hand, of a segment whose log has so many slots, under the
// first number that is free, and returns how many starts before it came to nothing. It
// refuses after too many of these. A late start, or one that was dispatched twice, gives
// way to the worker that has it, which may be one that found the segment by itself: it is
// superseded, and not noted. A delivery of the event that noted the start does not, nor
// does a retry: the one before may be dead, whether the platform says so or not. If it
// lives, whoever wins the next slot goes on, and the other gives way.
func (w *Worker) begin(ctx context.Context, slots int) (idle int, err error) {
	w.noted = true
	if idle, err = w.Log.idleStarts(ctx, w.At, slots); err != nil {
		return 0, err
	}
	n := vault.Note{Segment: w.At.Segment, Start: w.At.Number, Slot: slots, Idle: idle}
	if idle >= maxIdle {
		n.Idle = 0 // whoever has it started nevertheless gives it as many tries
	}
	mine, err := w.Log.Claim(ctx, n, *w.Run)
	if err == nil && !mine && w.Run.Retry == 0 {
		w.Superseded, err = w.Log.atWork(ctx, w.At, *w.Run)
	}
	if err != nil || w.Superseded {
		return idle, err
	}
	before := w.At.Number - 1
	if !mine {
		n.Start++
		if n.Start, err = w.Log.beginFrom(ctx, n, *w.Run); err != nil {
			return idle, err
		}
		w.At.Number = n.Start
	}
	if idle >= maxIdle {
		err = fmt.Errorf("%w: %d in a row have died with %d parts stored, the last as start %d; look at the function's log for its end, and give it more memory or time",
			errIdle, idle, slots, before)
	}
	return idle, err
}

// Submit has a start of a segment worked on by another invocation.
func (w *Worker) Submit(ctx context.Context, s vault.SegmentID, start int) error {
	next := w.command
	next.Segment, next.Start = s, start
	return w.To.Submit(ctx, next)
}

// handOver lets another invocation go on with a segment after a start of it, or leaves it
// to the next look.
func (w *Worker) handOver(ctx context.Context, s vault.SegmentID, start int) error {
	if w.To == nil {
		w.Over = true
		return nil
	}
	most := cmp.Or(w.Most, MaxStarts)
	if start+1 >= most {
		return fmt.Errorf("%w: %d, and the segment has not ended; give the function more time or plan smaller segments", ErrStarts, most)
	}
	if err := w.Submit(ctx, s, start+1); err != nil {
		return fmt.Errorf("continue: %w", err)
	}
	w.Over = true
	return nil
}

// goOn has one work on further segments, after the one of the command. Those that nobody
// has begun are claimed: their first start is noted. Before them come those that an
// earlier delivery of the event had begun.
func (w *Worker) goOn(ctx context.Context, one func(ctx context.Context, s vault.SegmentID, start int, claimed bool) error) error {
	last := w.command.Segment
	left, err := w.left(ctx)
	if err != nil {
		return fmt.Errorf("%s: find what an earlier delivery has begun: %w", w.What(last), err)
	}
	for _, r := range left {
		if w.Over {
			return nil
		}
		if w.Run.Stopping() && w.To != nil {
			return w.handOver(ctx, r.Segment, r.Number)
		}
		if err := one(ctx, r.Segment, r.Number, false); err != nil {
			return err
		}
		last = r.Segment
	}
	for {
		next, err := w.pick(ctx, last)
		if err != nil {
			return fmt.Errorf("%s: find another segment: %w", w.What(last), err)
		}
		if next == "" {
			return nil
		}
		if err := one(ctx, next, 0, true); err != nil {
			return err
		}
		last = next
	}
}

// left are the segments whose newest start was noted by an earlier delivery of this
// event, in the groups in which it has looked. A worker works on one segment at a time,
// so if the command's is still open, it died there, and has left no other.
func (w *Worker) left(ctx context.Context) ([]Start, error) {
	if w.Over || w.noted {
		return nil, nil
	}
	if w.Run.Retry == 0 {
		var n vault.Note
		_, err := w.Log.repo.Read(ctx, w.Log.names.Start(w.command.Segment, w.command.Start), &n)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !w.Run.wrote(&n) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
	}
	var left []Start
	for i := range min(w.Groups, pickGroups) {
		of, err := w.leftIn(ctx, (w.command.Segment.Group()+i)%w.Groups)
		if err != nil {
			return nil, err
		}
		left = append(left, of...)
	}
	return slices.DeleteFunc(left, func(r Start) bool { return r.Segment == w.command.Segment }), nil
}

// leftIn are those of a group.
func (w *Worker) leftIn(ctx context.Context, group int) ([]Start, error) {
	starts, err := w.Log.starts(ctx, group)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var left []Start
	looks, ctx := guard.WithContext(ctx)
	looks.SetLimit(LooksInFlight)
	for id, s := range starts {
		looks.Go(func() error {
			var n vault.Note
			_, err := w.Log.repo.Read(ctx, w.Log.names.Start(id, s.Last), &n)
			if errors.Is(err, fs.ErrNotExist) || err == nil && !w.Run.wrote(&n) {
				return nil
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			left = append(left, Start{id, s.Last})
			return nil
		})
	}
	err = looks.Wait()
	slices.SortFunc(left, func(a, b Start) int { return cmp.Compare(a.Segment, b.Segment) })
	return left, err
}

// The bounds of a search: a finished segment costs a list over its own group, and as many
// more where that has nothing left.
const (
	pickGroups = 4
	pickTries  = 4
)

// pick finds a segment that nobody has begun, and notes that this worker has. It returns
// none if there is none, if the worker takes no more, or if time is up; then it has the
// segment dispatched, if it may.
func (w *Worker) pick(ctx context.Context, last vault.SegmentID) (vault.SegmentID, error) {
	if w.Over {
		return "", nil
	}
	if next := w.next; next != "" {
		w.next = ""
		return next, nil
	}
	if w.begun == nil {
		w.begun, w.full = map[vault.SegmentID]bool{}, map[int]bool{}
	}
	w.begun[last] = true
	for i, looks := 0, 0; i < w.Groups && looks < pickGroups && !w.Over; i++ {
		g := (last.Group() + i) % w.Groups
		if w.full[g] = w.full[g] || len(w.unbegun(g)) == 0; w.full[g] {
			continue
		}
		looks++
		if s, err := w.pickIn(ctx, g); err != nil || s != "" {
			return s, err
		}
	}
	return "", nil
}

// pickIn does the same in a group.
func (w *Worker) pickIn(ctx context.Context, group int) (vault.SegmentID, error) {
	starts, err := w.Log.starts(ctx, group)
	if err != nil {
		return "", err
	}
	for id := range starts {
		w.begun[id] = true
	}
	free := w.unbegun(group)
	w.full[group] = len(free) == 0
	// Others that are done at the same time look at the same list.
	rand.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
	for _, s := range free[:min(pickTries, len(free))] {
		if w.Run.Stopping() {
			if w.Over = true; w.To == nil {
				return "", nil
			}
			return "", w.Submit(ctx, s, 0)
		}
		mine, err := w.Log.Claim(ctx, vault.Note{Segment: s}, *w.Run)
		if err != nil {
			return "", err
		}
		if mine {
			return s, nil
		}
		w.begun[s] = true
	}
	return "", nil
}

// unbegun are segments of a group that nobody has begun, as far as was seen: those that
// were split off, which is what the backup waits for, or else the plan's.
func (w *Worker) unbegun(group int) (free []vault.SegmentID) {
	for _, s := range w.children {
		if s.Group() == group && !w.begun[s] {
			free = append(free, s)
		}
	}
	if len(free) > 0 {
		return free
	}
	for _, s := range w.Planned(group) {
		if !w.begun[s] {
			free = append(free, s)
		}
	}
	return free
}

// Split takes what the worker's segment was split into, and the claim on one of them, if
// it has any.
func (w *Worker) Split(children []vault.SegmentID, next vault.SegmentID) {
	w.children, w.next = children, next
	delete(w.full, children[0].Group())
}

// MaxStarts bounds the starts of a segment: work that needs more commits too little in
// each. Progress shows how many there were.
const MaxStarts = 10_000

// maxIdle is how many starts in a row may come to nothing, without a word, before a
// segment counts as failed.
const maxIdle = 20

// DefaultMemory is the share of pages in flight of an export, and of rows in flight of an
// import: with the encoders and the runtime beside it, a function stays below 64 MiB.
const DefaultMemory = 24 << 20
