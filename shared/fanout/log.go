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
	"github.com/tablevault/tablevault/shared/vault"
)

// Log is what the starts of segments leave in a vault: notes of starts and of failures,
// slots that were won, marks of ends, and what was told meanwhile.
type Log struct {
	repo  *repository.Repository
	names vault.Log
}

// NewLog is the log that stands in a vault under names.
func NewLog(repo *repository.Repository, names vault.Log) Log { return Log{repo, names} }

// Start is a start of a segment, by its number.
type Start struct {
	Segment vault.SegmentID
	Number  int
}

// Begin notes the start of a segment and returns its number: the one that was asked for,
// or the first free one after it. A second delivery of one start has a number of its own;
// both may run. The error matches ErrNoStart if there was no start before the one that
// was asked for.
func (l Log) Begin(ctx context.Context, n vault.Note, run Run) (int, error) {
	if n.Start > 0 {
		before, err := l.repo.Exists(ctx, l.names.Start(n.Segment, n.Start-1))
		if err != nil {
			return n.Start, fmt.Errorf("look for the start before: %w", err)
		}
		if !before {
			return n.Start, noStart(Start{n.Segment, n.Start})
		}
	}
	return l.beginFrom(ctx, n, run)
}

func noStart(at Start) error {
	return fmt.Errorf("%w: start %d of segment %s follows no start %d", ErrNoStart, at.Number, at.Segment, at.Number-1)
}

// beginFrom notes a start under the first number that is free, from its own on.
func (l Log) beginFrom(ctx context.Context, n vault.Note, run Run) (int, error) {
	for {
		mine, err := l.Claim(ctx, n, run)
		if err != nil || mine {
			return n.Start, err
		}
		n.Start++
	}
}

// Claim notes the start of a segment under its number, if that is free.
func (l Log) Claim(ctx context.Context, n vault.Note, run Run) (mine bool, err error) {
	n.Request, n.Began, n.Until = run.Request, run.Now().UTC(), run.Until.UTC()
	if mine, err = l.repo.Win(ctx, l.names.Start(n.Segment, n.Start), &n); err != nil {
		err = fmt.Errorf("note the start of segment %s: %w", n.Segment, err)
	}
	return mine, err
}

// atWork says whether a start has been noted and may still be at work, by another event
// than run's.
func (l Log) atWork(ctx context.Context, at Start, run Run) (bool, error) {
	var n vault.Note
	_, err := l.repo.Read(ctx, l.names.Start(at.Segment, at.Number), &n)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if run.wrote(&n) || !n.Until.IsZero() && run.Now().After(n.Until) {
		return false, nil
	}
	failed, err := l.repo.Exists(ctx, l.names.Failure(at.Segment, at.Number))
	return !failed, err
}

// idleStarts counts the starts in a row, up to the one before at, that found the log with
// as many slots as there are now. Numbers have no gap: whoever asks who may still work
// reads the starts one after the other until there is none.
func (l Log) idleStarts(ctx context.Context, at Start, slots int) (int, error) {
	if at.Number == 0 {
		return 0, nil
	}
	var n vault.Note
	_, err := l.repo.Read(ctx, l.names.Start(at.Segment, at.Number-1), &n)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, noStart(at)
	}
	if err != nil && repository.Corrupt(err) {
		return 0, nil // it tells nothing, and keeps nobody from beginning
	}
	if err != nil || n.Slot != slots {
		return 0, err
	}
	return n.Idle + 1, nil
}

// InDoubt is an error of a start of which a request that it has sent may still be carried
// out: a note of it does not say that the start is over.
func InDoubt(err error) error { return &inDoubt{err} }

type inDoubt struct{ error }

func (d *inDoubt) Unwrap() error { return d.error }

// Fail notes what went wrong in a start. It returns cause in any case: a note that can't
// be written must not hide it. A start that there may not be leaves none, which would
// count as the segment's newest failure ever after.
func (l Log) Fail(ctx context.Context, at Start, run Run, permanent bool, cause error) error {
	if errors.Is(cause, ErrNoStart) {
		return cause
	}
	n := vault.Note{
		Segment: at.Segment, Start: at.Number, Request: run.Request, Began: run.Now().UTC(), Until: run.Until.UTC(),
		Error: run.Text(cause), Permanent: permanent, Corrupt: errors.Is(cause, vault.ErrCorrupt), InDoubt: errors.As(cause, new(*inDoubt)),
	}
	_, err := l.repo.Create(ctx, l.names.Failure(at.Segment, at.Number), &n)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w; and noting it: %w", cause, err)
	}
	return cause
}

// Notes are a segment's starts, failures or slots, as a list tells them: how many, the
// greatest number, and the store's dates of the one that is listed first and of that with
// the greatest number.
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

// starts counts the starts of each segment of a group.
func (l Log) starts(ctx context.Context, group int) (map[vault.SegmentID]Notes, error) {
	return count(l.listed(ctx, l.names.Starts(""), l.names.Start, group))
}

// failures counts the failures of each segment of a group.
func (l Log) failures(ctx context.Context, group int) (map[vault.SegmentID]Notes, error) {
	return count(l.listed(ctx, l.names.Failures(""), l.names.Failure, group))
}

func count(notes iter.Seq2[Listed, error]) (map[vault.SegmentID]Notes, error) {
	numbers := map[vault.SegmentID]Notes{}
	for n, err := range notes {
		if err != nil {
			return nil, err
		}
		numbers[n.of.Segment] = numbers[n.of.Segment].With(n.of.Number, n.Modified)
	}
	return numbers, nil
}

// Listed is a start, a failure, an end or a slot of a segment, as a list shows it.
type Listed struct {
	object.Info
	of Start // of a slot, its number
}

// Slots yields the slots of a group's segments, in one list.
func (l Log) Slots(ctx context.Context, group int) iter.Seq2[Listed, error] {
	return l.listed(ctx, l.names.Slots(""), l.names.Slot, group)
}

// listed yields the starts, failures, ends or slots of a group's segments, in one list
// over prefix, which is a folder of segments' folders. Of a name that is not as name
// makes them nothing could be read, nor gone on from its number: it counts for nothing.
func (l Log) listed(ctx context.Context, prefix string, name func(vault.SegmentID, int) string, group int) iter.Seq2[Listed, error] {
	return func(yield func(Listed, error) bool) {
		for info, err := range l.repo.Store().List(ctx, prefix, prefix+string(vault.GroupID(group))) {
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
			if id.Group() > group || !yield(Listed{info, Start{id, n}}, nil) {
				return
			}
		}
	}
}
