// Package coverage proves that the logs of a backup's segments cover the key space of its
// table: each log chains to its end in every lane, what a segment was split into covers
// exactly what was left of it, and all segments together leave no gap and no overlap.
package coverage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// SegmentLog is a segment as its slots tell it.
type SegmentLog struct {
	Segment vault.Segment
	Slots   []vault.Slot
	// Next is where each lane goes on.
	Next []table.Key
	// Split is what the segment was split into, if its log ended so.
	Split *vault.Split
	Ended bool
}

// NewSegmentLog is the log of a segment that has no slots yet.
func NewSegmentLog(s vault.Segment) *SegmentLog {
	l := &SegmentLog{Segment: s}
	for _, lane := range s.Lanes() {
		l.Next = append(l.Next, lane.Start)
	}
	return l
}

// Add takes the next slot, if it goes on exactly where the log stands. A log that takes
// all its slots and has ended covers the segment, lane by lane, without a gap or an
// overlap.
func (l *SegmentLog) Add(s *vault.Slot) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: slot %d of segment %s: %s", vault.ErrCorrupt, len(l.Slots), l.Segment.ID, fmt.Sprintf(format, args...))
	}
	lanes := l.Segment.Lanes()
	switch {
	case s.Segment != l.Segment.ID || s.Slot != len(l.Slots):
		return bad("it says that it is slot %d of segment %s", s.Slot, s.Segment)
	case l.Ended:
		return bad("the log has ended before it")
	}
	if s.Split != nil {
		if err := l.checkSplit(s.Split, lanes); err != nil {
			return bad("%v", err)
		}
		l.Split, l.Ended = s.Split, true
		l.Slots = append(l.Slots, *s)
		return nil
	}
	p := s.Part
	if len(p.Lanes) != len(lanes) {
		return bad("%d lanes, the segment has %d", len(p.Lanes), len(lanes))
	}
	var rows int64
	ended, further := true, false
	for i, lane := range p.Lanes {
		switch {
		case !lane.From.Equal(l.Next[i]):
			return bad("lane %d begins at %v, the part before it ended at %v", i, lane.From, l.Next[i])
		case lane.Next.Compare(lane.From) < 0 || lane.Next.Compare(lanes[i].End) > 0:
			return bad("lane %d goes from %v to %v, its end is %v", i, lane.From, lane.Next, lanes[i].End)
		case lane.Rows < 0 || lane.Rows > 0 && lane.Next.Equal(lane.From):
			return bad("lane %d has %d rows in %v", i, lane.Rows, table.Range{Start: lane.From, End: lane.Next})
		}
		rows += lane.Rows
		further = further || lane.Next.Compare(lane.From) > 0
		ended = ended && lane.Next.Equal(lanes[i].End)
	}
	switch {
	case rows != p.Rows || p.Walked != p.Rows:
		return bad("%d rows in the pages, %d in the shard, %d in the lanes", p.Walked, p.Rows, rows)
	case !further:
		return bad("no lane comes further by it") // or a log could be of any length
	case ended != p.Last:
		return bad("it says last: %t, its lanes say %t", p.Last, ended)
	}
	for i, lane := range p.Lanes {
		l.Next[i] = lane.Next
	}
	l.Ended = ended
	l.Slots = append(l.Slots, *s)
	return nil
}

// LastPart is the part that the log ends with; nil if it has none, or ends with a split.
func (l *SegmentLog) LastPart() *vault.Part {
	if n := len(l.Slots); n > 0 {
		return l.Slots[n-1].Part
	}
	return nil
}

// checkSplit proves that a split's children cover exactly what was left over.
func (l *SegmentLog) checkSplit(s *vault.Split, lanes []table.Range) error {
	if len(s.Closed) != len(lanes) || len(s.Children) == 0 {
		return fmt.Errorf("a split of %d lanes into %d children", len(s.Closed), len(s.Children))
	}
	at := 0 // lane whose rest is being covered
	skip := func() {
		for at < len(lanes) && l.Next[at].Equal(lanes[at].End) {
			at++
		}
	}
	for i, key := range s.Closed {
		if !key.Equal(l.Next[i]) {
			return fmt.Errorf("a split that closes lane %d at %v, the part before it ended at %v", i, key, l.Next[i])
		}
	}
	var covered table.Key
	skip()
	for i, child := range s.Children {
		if child.ID != l.Segment.ID.Child(i) {
			return fmt.Errorf("child %d is %s", i, child.ID)
		}
		if n := len(child.Bounds); n < 2 || n > vault.MaxLanes+1 {
			return fmt.Errorf("child %s has %d bounds: want 2 to %d", child.ID, n, vault.MaxLanes+1)
		}
		for _, r := range child.Lanes() {
			if at == len(lanes) {
				return fmt.Errorf("child %s reads %v, of which nothing was left", child.ID, r)
			}
			if covered == nil {
				covered = l.Next[at]
			}
			if !r.Start.Equal(covered) || r.End.Compare(lanes[at].End) > 0 {
				return fmt.Errorf("child %s reads %v, left over is %v", child.ID, r, table.Range{Start: covered, End: lanes[at].End})
			}
			covered = r.End
			if covered.Equal(lanes[at].End) {
				at++
				covered = nil
				skip()
			}
		}
	}
	if at != len(lanes) {
		return fmt.Errorf("the children leave out lane %d", at)
	}
	return nil
}

// ReadLog reads a segment's slots, one by one from the first, until there is none: a read
// by name sees what a list may not yet show.
func ReadLog(ctx context.Context, r *repository.Repository, log vault.Log, s vault.Segment) (*SegmentLog, error) {
	l := NewSegmentLog(s)
	for {
		var slot vault.Slot
		_, err := r.Read(ctx, log.Slot(s.ID, len(l.Slots)), &slot)
		if errors.Is(err, fs.ErrNotExist) {
			return l, nil
		}
		if err != nil {
			return nil, err
		}
		if err := l.Add(&slot); err != nil {
			return nil, err
		}
		if l.Ended {
			return l, nil
		}
	}
}

// FindSegment finds a segment of a plan, or one that was split off.
func FindSegment(ctx context.Context, r *repository.Repository, plan *vault.Plan, log vault.Log, id vault.SegmentID) (vault.Segment, error) {
	if _, err := vault.ParseSegmentID(string(id)); err != nil {
		return vault.Segment{}, table.Invalidf("backup %s: %w", plan.Backup, err)
	}
	end := strings.LastIndexByte(string(id), '.')
	if end < 0 {
		i, err := strconv.Atoi(string(id))
		if err != nil || i >= len(plan.Segments) {
			return vault.Segment{}, fmt.Errorf("backup %s has no segment %s: it has %d", plan.Backup, id, len(plan.Segments))
		}
		return plan.Segments[i], nil
	}
	parent := id[:end]
	s, err := FindSegment(ctx, r, plan, log, parent)
	if err != nil {
		return vault.Segment{}, err
	}
	l, err := ReadLog(ctx, r, log, s)
	if err != nil {
		return vault.Segment{}, err
	}
	if l.Split != nil {
		for _, c := range l.Split.Children {
			if c.ID == id {
				return c, nil
			}
		}
	}
	return vault.Segment{}, fmt.Errorf("backup %s has no segment %s: %s was not split so", plan.Backup, id, parent)
}
