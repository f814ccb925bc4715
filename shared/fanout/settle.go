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

// startMargin is how long after an invocation's end a request that it had sent
// may still be carried out.
const startMargin = 10 * time.Second

// MayWork says which start of a segment may still be at work, empty if none. It reads
// the starts by their names, one after the other, since a list might not show the
// last of them. Those that are older than stale count as dead, if that is not zero.
func MayWork(ctx context.Context, r *repository.Repository, log vault.Log, s vault.SegmentID, run Run, stale time.Duration) (string, error) {
	for n := 0; ; n++ {
		found, err := mayWork(ctx, r, log, Ready{s, n}, run, stale)
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		if err != nil || found != "" {
			return found, err
		}
	}
}

// AtWork says which start of a group's segments may still be at work, as far as
// lists tell, which may be late.
func AtWork(ctx context.Context, r *repository.Repository, log vault.Log, group int, run Run, stale time.Duration) (string, error) {
	ended := map[Ready]bool{}
	for n, err := range InGroup(ctx, r, log.Ends(""), log.End, group) {
		if err != nil {
			return "", err
		}
		ended[Ready{n.segment, n.number}] = true
	}
	for n, err := range InGroup(ctx, r, log.Starts(""), log.Start, group) {
		if err != nil {
			return "", err
		}
		if ended[Ready{n.segment, n.number}] {
			continue
		}
		if found, err := mayWork(ctx, r, log, Ready{n.segment, n.number}, run, stale); err != nil || found != "" {
			return found, err
		}
	}
	return "", nil
}

// mayWork says until when a start may be at work, empty if it is over. The error
// matches fs.ErrNotExist if there is no such start.
func mayWork(ctx context.Context, r *repository.Repository, log vault.Log, at Ready, run Run, stale time.Duration) (string, error) {
	var note vault.Note
	if _, err := r.Read(ctx, log.Start(at.Segment, at.Start), &note); err != nil {
		return "", err
	}
	over := func(until time.Time) bool { return !until.IsZero() && run.Now().After(until.Add(startMargin)) }
	if over(note.Until) || stale > 0 && run.Now().Sub(note.Began) > stale {
		return "", nil
	}
	if over, err := r.Exists(ctx, log.End(at.Segment, at.Start)); err != nil || over {
		return "", err
	}
	var failure vault.Note
	_, err := r.Read(ctx, log.Failure(at.Segment, at.Start), &failure)
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
	return fmt.Sprintf("start %d of segment %s (request %s) %s, %s", at.Start, at.Segment, note.Request, what, until), nil
}
