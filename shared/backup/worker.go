package backup

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// worker is one invocation at work on the segments of a backup or of a restore:
// it begins the one of its command, and goes on with others that nobody has begun
// for as long as there is time. So as many work as were dispatched, until nothing
// is left.
type worker struct {
	repo *repository.Repository
	log  vault.Log // of starts
	run  *Run
	// planned are the segments of a group of the plan that hold work, groups is how
	// many groups there are.
	planned func(group int) []vault.SegmentID
	groups  int
	// submit has a start of a segment worked on by another invocation; nil where that
	// is left to the next look.
	submit func(ctx context.Context, s vault.SegmentID, start int) error
	// what says what is done with a segment.
	what func(s vault.SegmentID) string
	// most bounds the starts of a segment, 0 for MaxStarts.
	most int

	// over says that this worker takes nothing more: somebody else goes on with
	// what it did, or nothing may be done.
	over bool
	// next is what the worker has claimed, children all that its segments were split
	// into.
	next     vault.SegmentID
	children []vault.SegmentID
	// begun are the segments that somebody has begun; full the groups in which all
	// were.
	begun map[vault.SegmentID]bool
	full  map[int]bool
}

// begun is a start of a segment that was noted.
type begun struct {
	start int
	// idle is how many starts before it came to nothing.
	idle int
	// superseded says that it was not noted, since another one is at work.
	superseded bool
}

// begin notes the start of a segment whose log has so many slots, under the first
// number that is free. It refuses after too many that came to nothing. A second
// delivery of a start, or a late one, gives way to the worker that has it, which
// may be one that found the segment by itself; the retry of a delivery that failed
// does not, since the note may be its own.
func (w *worker) begin(ctx context.Context, s vault.SegmentID, start, slots int) (b begun, err error) {
	b.start = start
	if b.idle, err = idleStarts(ctx, w.repo, w.log, s, start, slots); err != nil {
		return b, err
	}
	n := vault.Note{Segment: s, Start: start, Slot: slots, Idle: b.idle}
	if b.idle >= maxIdle {
		n.Idle = 0 // whoever has it started nevertheless gives it as many tries
	}
	mine, err := claimStart(ctx, w.repo, w.log, n, *w.run)
	if err == nil && !mine && w.run.Retry == 0 {
		b.superseded, err = atWork(ctx, w.repo, w.log, s, start, *w.run)
	}
	if err != nil || b.superseded {
		return b, err
	}
	if !mine {
		n.Start++
		if n.Start, err = beginStart(ctx, w.repo, w.log, n, *w.run); err != nil {
			return b, err
		}
	}
	b.start = n.Start
	if b.idle >= maxIdle {
		return b, fmt.Errorf("%w: %d in a row have died with %d parts stored, the last as start %d; look at the function's log for its end, and give it more memory or time",
			errIdle, b.idle, slots, start-1)
	}
	return b, nil
}

// handOver lets another invocation go on with a segment after a start of it.
func (w *worker) handOver(ctx context.Context, s vault.SegmentID, start int) error {
	most := cmp.Or(w.most, MaxStarts)
	if start+1 >= most {
		return fmt.Errorf("%w: %d, and the segment has not ended; give the function more time or plan smaller segments", errStarts, most)
	}
	if err := w.submit(ctx, s, start+1); err != nil {
		return fmt.Errorf("continue: %w", err)
	}
	w.over = true
	return nil
}

// goOn has one work on the segments that nobody has begun, after the last one that
// was worked on. They are claimed: their first start is noted.
func (w *worker) goOn(ctx context.Context, last vault.SegmentID, one func(context.Context, vault.SegmentID) error) error {
	for {
		next, err := w.pick(ctx, last)
		if err != nil {
			return fmt.Errorf("%s: find another segment: %w", w.what(last), err)
		}
		if next == "" {
			return nil
		}
		if err := one(ctx, next); err != nil {
			return err
		}
		last = next
	}
}

// The bounds of a search: a finished segment costs a list over its own group, and
// as many more where that has nothing left.
const (
	pickGroups = 4
	pickTries  = 4
)

// pick finds a segment that nobody has begun, and notes that this worker has. It
// returns none if there is none, if the worker takes no more, or if time is up;
// then it has the segment dispatched, if it may.
func (w *worker) pick(ctx context.Context, last vault.SegmentID) (vault.SegmentID, error) {
	if w.over {
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
	for i, looks := 0, 0; i < w.groups && looks < pickGroups; i++ {
		g := (last.Group() + i) % w.groups
		if w.full[g] {
			continue
		}
		if len(w.unbegun(g)) == 0 {
			w.full[g] = true
			continue
		}
		looks++
		starts, err := countNotes(ctx, w.repo, string(w.log)+"starts/", g)
		if err != nil {
			return "", err
		}
		for id := range starts {
			w.begun[id] = true
		}
		free := w.unbegun(g)
		if len(free) == 0 {
			w.full[g] = true
			continue
		}
		// Others that are done at the same time look at the same list.
		rand.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
		for _, s := range free[:min(pickTries, len(free))] {
			if w.run.stopping() {
				if w.over = true; w.submit == nil {
					return "", nil
				}
				return "", w.submit(ctx, s, 0)
			}
			mine, err := claimStart(ctx, w.repo, w.log, vault.Note{Segment: s}, *w.run)
			if err != nil {
				return "", err
			}
			if mine {
				return s, nil
			}
			w.begun[s] = true
		}
	}
	return "", nil
}

// unbegun are segments of a group that nobody has begun, as far as was seen: those
// that were split off, which is what the backup waits for, or else the plan's.
func (w *worker) unbegun(group int) (free []vault.SegmentID) {
	for _, s := range w.children {
		if s.Group() == group && !w.begun[s] {
			free = append(free, s)
		}
	}
	if len(free) > 0 {
		return free
	}
	for _, s := range w.planned(group) {
		if !w.begun[s] {
			free = append(free, s)
		}
	}
	return free
}

// split takes what the worker's segment was split into, and the claim on one of
// them, if it has any.
func (w *worker) split(children []vault.SegmentID, next vault.SegmentID) {
	w.children, w.next = children, next
	delete(w.full, children[0].Group())
}
