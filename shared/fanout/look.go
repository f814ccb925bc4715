package fanout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// look is a look at the open segments of a group.
type look struct {
	dispatch *Dispatch
	run      Run
	group    int
	heard    map[Start]time.Time // when starts were last heard of; nil until it is asked for
}

// ready says whether another start of a segment is to be made that has starts, and maybe
// failures.
func (l *look) ready(ctx context.Context, id vault.SegmentID, starts, failures Notes) (bool, error) {
	newest := Start{id, starts.Last}
	switch {
	case newest.Number >= vault.MaxNumber:
		l.dispatch.failed(fmt.Sprintf("segment %s: %v: there is a start %d", id, ErrStarts, newest.Number), true)
		return false, nil
	case failures.Count > 0 && failures.Last >= newest.Number:
		return l.failed(ctx, id, failures)
	}
	return l.dead(ctx, newest, starts)
}

// failed says whether a segment whose newest start has failed is to be tried again.
func (l *look) failed(ctx context.Context, id vault.SegmentID, failures Notes) (bool, error) {
	d := l.dispatch
	note, err := l.note(ctx, d.Log.names.Failure(id, failures.Last))
	if err != nil {
		return false, err
	}
	over := (note.Permanent || failures.Count >= MaxFailures) && d.Stale == 0 && !note.Began.Before(d.Since)
	d.failedBy(note, over)
	return !over, nil
}

// dead says whether the newest start of a segment is over, or counts as that, though it
// has left no word.
func (l *look) dead(ctx context.Context, newest Start, starts Notes) (bool, error) {
	d, now := l.dispatch, l.run.Now()
	note, err := l.note(ctx, d.Log.names.Start(newest.Segment, newest.Number))
	if err != nil {
		return false, err
	}
	switch {
	case note.Error != "": // it can't be read
		d.failedBy(note, false)
		return true, nil
	case starts.Over(&note, now):
		d.failed(fmt.Sprintf("start %d of segment %s (request %s) had until %s and left no word: it was killed, ran out of memory or of time; it is started again",
			newest.Number, newest.Segment, note.Request, note.Until.UTC().Format(time.RFC3339)), false)
		return true, nil
	case d.Stale > 0 && now.Sub(note.Began) > d.Stale:
		return true, nil
	}
	silent, err := l.silent(ctx, &note)
	if err == nil && !silent {
		d.Live++
		d.Working = append(d.Working, newest)
	}
	return silent, err
}

const (
	// quietAfter is after how long without a word a start is named in the progress.
	quietAfter = tellAtLeast + tellAtMost
	// silentAfter is after how long it counts as dead, as far as another one is begun.
	silentAfter = 3 * time.Minute
)

// silent says whether a live start is to be left alone, and another one begun: it has
// told something, so that it can, and then nothing for a while. Since dates of a store
// and clocks may differ, no third one is begun while two are live.
func (l *look) silent(ctx context.Context, note *vault.Note) (bool, error) {
	d, run := l.dispatch, l.run
	if run.Now().Sub(note.Began) < quietAfter {
		return false, nil
	}
	if l.heard == nil {
		var err error
		l.heard, err = d.Log.heardIn(ctx, l.group)
		if err != nil && !errors.Is(err, fs.ErrPermission) { // who may not hear waits
			return false, err
		}
	}
	last := l.heard[Start{note.Segment, note.Start}]
	quiet := run.Now().Sub(last)
	if last.IsZero() || quiet < quietAfter {
		return false, nil
	}
	until := "until it ends"
	if !note.Until.IsZero() {
		until = "until " + note.Until.UTC().Format(time.RFC3339)
	}
	said := fmt.Sprintf("start %d of segment %s (request %s) was last heard of at %s and may be at work %s",
		note.Start, note.Segment, note.Request, last.UTC().Format(time.RFC3339), until)
	beside := ""
	if note.Start > 0 {
		var err error
		beside, err = d.Log.mayWork(ctx, Start{note.Segment, note.Start - 1}, run, d.Stale)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	if quiet < silentAfter || beside != "" {
		d.Silent = cmp.Or(d.Silent, said)
		return false, nil
	}
	d.failed(said+": it was killed, or hangs; another one is begun beside it", false)
	return true, nil
}

// longest is for how long an invocation works at most, whatever its note says.
const longest = 24 * time.Hour

// note reads what a start or a failure has left. One that is damaged is as good as a
// failure that says so: the segment is begun again, and nothing but the log of its slots
// decides what of it there is.
func (l *look) note(ctx context.Context, name string) (vault.Note, error) {
	var note vault.Note
	_, err := l.dispatch.Log.repo.Read(ctx, name, &note)
	if err != nil && repository.Corrupt(err) {
		return vault.Note{Error: err.Error(), Corrupt: true}, nil
	}
	return note, err
}
