package fanout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/object"
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

// Add takes the next slot, if it goes on exactly where the log stands. A log
// that takes all its slots and has ended covers the segment, lane by lane,
// without a gap or an overlap.
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

// ReadLog reads a segment's slots, one by one from the first, until there is
// none: a read by name sees what a list may not yet show.
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
	parent, _, child := cutLast(string(id))
	if !child {
		i, err := strconv.Atoi(string(id))
		if err != nil || i >= len(plan.Segments) {
			return vault.Segment{}, fmt.Errorf("backup %s has no segment %s: it has %d", plan.Backup, id, len(plan.Segments))
		}
		return plan.Segments[i], nil
	}
	s, err := FindSegment(ctx, r, plan, log, vault.SegmentID(parent))
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

func cutLast(id string) (before, after string, found bool) {
	i := strings.LastIndexByte(id, '.')
	if i < 0 {
		return id, "", false
	}
	return id[:i], id[i+1:], true
}

// Begin notes the start of a segment and returns its number: the one that was
// asked for, or the first free one after it. A second delivery of one start has
// a number of its own; both may run. The error matches ErrNoStart if there was no
// start before the one that was asked for.
func Begin(ctx context.Context, r *repository.Repository, log vault.Log, n vault.Note, run Run) (int, error) {
	if n.Start > 0 {
		before, err := r.Exists(ctx, log.Start(n.Segment, n.Start-1))
		if err != nil {
			return n.Start, fmt.Errorf("look for the start before: %w", err)
		}
		if !before {
			return n.Start, noStart(n.Segment, n.Start)
		}
	}
	return beginFrom(ctx, r, log, n, run)
}

func noStart(s vault.SegmentID, start int) error {
	return fmt.Errorf("%w: start %d of segment %s follows no start %d", ErrNoStart, start, s, start-1)
}

// beginFrom notes a start under the first number that is free, from its own on.
func beginFrom(ctx context.Context, r *repository.Repository, log vault.Log, n vault.Note, run Run) (int, error) {
	for {
		mine, err := Claim(ctx, r, log, n, run)
		if err != nil || mine {
			return n.Start, err
		}
		n.Start++
	}
}

// Claim notes the start of a segment under its number, if that is free.
func Claim(ctx context.Context, r *repository.Repository, log vault.Log, n vault.Note, run Run) (mine bool, err error) {
	n.Request, n.Began, n.Until = run.Request, run.Now().UTC(), run.Until.UTC()
	if mine, err = r.Decide(ctx, log.Start(n.Segment, n.Start), &n); err != nil {
		err = fmt.Errorf("note the start of segment %s: %w", n.Segment, err)
	}
	return mine, err
}

// atWork says whether a start has been noted and may still be at work, by another
// event than run's.
func atWork(ctx context.Context, r *repository.Repository, log vault.Log, s vault.SegmentID, start int, run Run) (bool, error) {
	var n vault.Note
	_, err := r.Read(ctx, log.Start(s, start), &n)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if run.wrote(&n) || !n.Until.IsZero() && run.Now().After(n.Until) {
		return false, nil
	}
	failed, err := r.Exists(ctx, log.Failure(s, start))
	return !failed, err
}

// idleStarts counts the starts in a row, up to the one before start, that found the
// log with as many slots as there are now. Numbers have no gap: whoever asks who may
// still work reads the starts one after the other until there is none.
func idleStarts(ctx context.Context, r *repository.Repository, log vault.Log, s vault.SegmentID, start, slots int) (int, error) {
	if start == 0 {
		return 0, nil
	}
	var n vault.Note
	_, err := r.Read(ctx, log.Start(s, start-1), &n)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, noStart(s, start)
	}
	if err != nil && repository.Corrupt(err) {
		return 0, nil // it tells nothing, and keeps nobody from beginning
	}
	if err != nil || n.Slot != slots {
		return 0, err
	}
	return n.Idle + 1, nil
}

// InDoubt is an error of a start of which a request that it has sent may still be
// carried out: a note of it does not say that the start is over.
func InDoubt(err error) error { return &inDoubt{err} }

type inDoubt struct{ error }

func (d *inDoubt) Unwrap() error { return d.error }

// Fail notes what went wrong in a start. It returns cause in any case: a note
// that can't be written must not hide it. A start that there may not be leaves
// none, which would count as the segment's newest failure ever after.
func Fail(ctx context.Context, r *repository.Repository, log vault.Log, s vault.SegmentID, start int, run Run, permanent bool, cause error) error {
	if errors.Is(cause, ErrNoStart) {
		return cause
	}
	n := vault.Note{
		Segment: s, Start: start, Request: run.Request, Began: run.Now().UTC(), Until: run.Until.UTC(),
		Error: run.Text(cause), Permanent: permanent, Corrupt: errors.Is(cause, vault.ErrCorrupt), InDoubt: errors.As(cause, new(*inDoubt)),
	}
	_, err := r.Create(ctx, log.Failure(s, start), &n)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w; and noting it: %w", cause, err)
	}
	return cause
}

// Notes are a segment's starts, failures or slots, as a list tells them: how
// many, the greatest number, and the store's dates of the one that is listed
// first and of that with the greatest number.
type Notes struct {
	Count, Last int
	first, last time.Time
}

// With adds a note of a number and a date.
func (n Notes) With(number int, date time.Time) Notes {
	if n.Count == 0 {
		n.first = date
	}
	if n.Count == 0 || number >= n.Last {
		n.Last, n.last = number, date
	}
	n.Count++
	return n
}

// Over says whether the time of the start with the greatest number is up, by its note.
// Nothing works for longer than a day, whatever it has noted.
func (n Notes) Over(note *vault.Note, now time.Time) bool {
	return !note.Until.IsZero() && (now.After(note.Until) || now.Sub(n.last) > longest)
}

// countNotes counts the notes of each segment of a group.
func countNotes(ctx context.Context, r *repository.Repository, prefix string, name func(vault.SegmentID, int) string, group int) (map[vault.SegmentID]Notes, error) {
	numbers := map[vault.SegmentID]Notes{}
	for n, err := range InGroup(ctx, r, prefix, name, group) {
		if err != nil {
			return nil, err
		}
		numbers[n.segment] = numbers[n.segment].With(n.number, n.Modified)
	}
	return numbers, nil
}

// Listed is a start, a failure or a slot of a segment, as a list shows it.
type Listed struct {
	object.Info
	segment vault.SegmentID
	number  int
}

// InGroup yields the starts, failures, ends or slots of a group's segments, in one list
// over prefix, which is a folder of segments' folders. Of a name that is not as name
// makes them nothing could be read, nor gone on from its number: it counts for nothing.
func InGroup(ctx context.Context, r *repository.Repository, prefix string, name func(vault.SegmentID, int) string, group int) iter.Seq2[Listed, error] {
	return func(yield func(Listed, error) bool) {
		for info, err := range r.Store().List(ctx, prefix, prefix+string(vault.GroupID(group))) {
			if err != nil {
				yield(Listed{}, fmt.Errorf("list %s: %w", prefix, err))
				return
			}
			dir, file := path.Split(strings.TrimPrefix(info.Name, prefix))
			id, err := vault.ParseSegmentID(strings.TrimSuffix(dir, "/"))
			n, nerr := strconv.Atoi(strings.TrimSuffix(file, ".json"))
			if err != nil || nerr != nil || n < 0 || n > vault.MaxNumber || info.Name != name(id, n) {
				continue // not ours
			}
			if id.Group() > group || !yield(Listed{info, id, n}, nil) {
				return
			}
		}
	}
}
