package fanout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// Whether a segment's starts have come to an end, which is when each of them has a
// mark of its end or a note of its failure, or when its time is over.
//
// A start of which a request may still be carried out though nobody waits for it (it
// has no answer, or was broken off) leaves no mark, and says so in a note of its
// failure: then its time has to be over.

// startMargin is how long after an invocation's end a request that it had sent may still
// be carried out.
const startMargin = 10 * time.Second

// MayWork says which start of a segment may still be at work, empty if none. It reads the
// starts by their names, one after the other, since a list might not show the last of
// them.
func (l Log) MayWork(ctx context.Context, s vault.SegmentID, run Run) (string, error) {
	for n := 0; ; n++ {
		found, err := l.mayWork(ctx, Start{s, n}, run, 0)
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		if err != nil || found != "" {
			return found, err
		}
	}
}

// AtWork says which start of a group's segments may still be at work, as far as lists
// tell, which may be late.
func (l Log) AtWork(ctx context.Context, group int, run Run) (string, error) {
	ended := map[Start]bool{}
	for n, err := range l.listed(ctx, l.names.Ends(""), l.names.End, group) {
		if err != nil {
			return "", err
		}
		ended[n.of] = true
	}
	for n, err := range l.listed(ctx, l.names.Starts(""), l.names.Start, group) {
		if err != nil {
			return "", err
		}
		if ended[n.of] {
			continue
		}
		if found, err := l.mayWork(ctx, n.of, run, 0); err != nil || found != "" {
			return found, err
		}
	}
	return "", nil
}

// mayWork says until when a start may be at work, empty if it is over. The error matches
// fs.ErrNotExist if there is no such start. One that is older than stale counts as dead,
// if that is not zero.
func (l Log) mayWork(ctx context.Context, at Start, run Run, stale time.Duration) (string, error) {
	var note vault.Note
	if _, err := l.repo.Read(ctx, l.names.Start(at.Segment, at.Number), &note); err != nil {
		return "", err
	}
	over := func(until time.Time) bool { return !until.IsZero() && run.Now().After(until.Add(startMargin)) }
	if over(note.Until) || stale > 0 && run.Now().Sub(note.Began) > stale {
		return "", nil
	}
	if over, err := l.repo.Exists(ctx, l.names.End(at.Segment, at.Number)); err != nil || over {
		return "", err
	}
	var failure vault.Note
	_, err := l.repo.Read(ctx, l.names.Failure(at.Segment, at.Number), &failure)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case repository.Corrupt(err):
		failure.InDoubt, failure.Began = true, run.Now() // as bad as it may be
	case err != nil || !failure.InDoubt:
		return "", err
	}
	what := "may write"
	if failure.InDoubt {
		what = "has failed, and a request that it had sent may still be carried out"
		if note.Until.IsZero() {
			note.Until = failure.Began
		}
		if over(note.Until) {
			return "", nil
		}
	}
	until := "until it ends"
	if !note.Until.IsZero() {
		until = "until " + note.Until.Add(startMargin).UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("start %d of segment %s (request %s) %s, %s", at.Number, at.Segment, note.Request, what, until), nil
}
