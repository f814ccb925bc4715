package fanout

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/retry"
	"github.com/tablevault/tablevault/shared/vault"
)

// Teller tells how far the work on a segment has come, which may take minutes before a
// record says so: by empty objects whose names have the numbers, first after Run.Tell,
// then ever more rarely, and once a minute even if nothing was done. They are for people
// who watch, and tell that the worker lives: see Dispatch.Look. Nothing else goes by
// them, and one that can't be written is missed by nobody.
type Teller struct {
	rows, bytes atomic.Int64
	stop        context.CancelFunc
	done        chan struct{}
}

const (
	// tellAtMost is the longest pause between two.
	tellAtMost = 30 * time.Second
	// tellAtLeast is the same where nothing was done since.
	tellAtLeast = time.Minute
)

// NewTeller begins to tell under prefix, as the start of a number, on top of what its
// records say that the segment has. End ends it.
func NewTeller(ctx context.Context, r *repository.Repository, run Run, prefix string, start int, rows, size int64) *Teller {
	t := &Teller{done: make(chan struct{})}
	t.rows.Store(rows)
	t.bytes.Store(size)
	ctx, t.stop = context.WithCancel(ctx)
	if run.Tell <= 0 {
		close(t.done)
		return t
	}
	tell := func() error {
		told := vault.Told{Start: start, Rows: rows, Bytes: size}
		at := time.Now() // of the last
		for wait := run.Tell; ; wait = min(wait+wait/4, max(run.Tell, tellAtMost)) {
			if retry.Sleep(ctx, wait) != nil {
				return nil
			}
			rows, size := t.rows.Load(), t.bytes.Load()
			if rows == told.Rows && size == told.Bytes && time.Since(at) < tellAtLeast {
				continue
			}
			at = time.Now()
			told = vault.Told{Start: start, Number: told.Number + 1, Rows: rows, Bytes: size}
			_, _ = r.Store().Create(ctx, told.Name(prefix), bytes.NewReader(nil))
		}
	}
	guard.Go(tell, func(error) { close(t.done) })
	return t
}

// Add counts what has been worked on.
func (t *Teller) Add(rows, size int64) {
	t.rows.Add(rows)
	t.bytes.Add(size)
}

// End waits until nothing is written any more.
func (t *Teller) End() {
	t.stop()
	<-t.done
}

type tellerKey struct{}

// With is ctx with the teller that Come counts for.
func (t *Teller) With(ctx context.Context) context.Context {
	return context.WithValue(ctx, tellerKey{}, t)
}

// Come counts rows that were worked on, for the context's teller if it has one.
func Come(ctx context.Context, rows, size int64) {
	if t, ok := ctx.Value(tellerKey{}).(*Teller); ok {
		t.Add(rows, size)
	}
}

// heardIn is when the starts of a group's segments have told something last, by the
// store's dates, in one list.
func (l Log) heardIn(ctx context.Context, group int) (map[Start]time.Time, error) {
	heard := map[Start]time.Time{}
	err := l.eachTold(ctx, group, func(id vault.SegmentID, t vault.Told, at time.Time) {
		if start := (Start{id, t.Start}); at.After(heard[start]) {
			heard[start] = at
		}
	})
	return heard, err
}

// ToldIn is what was told last of each segment of a group, in one list.
func (l Log) ToldIn(ctx context.Context, group int) (map[vault.SegmentID]vault.Told, error) {
	told := map[vault.SegmentID]vault.Told{}
	// Names sort by starts, and those of one start by their numbers.
	err := l.eachTold(ctx, group, func(id vault.SegmentID, t vault.Told, _ time.Time) { told[id] = t })
	return told, err
}

// eachTold lists what was told of a group's segments, in the order of its names, with the
// store's dates.
func (l Log) eachTold(ctx context.Context, group int, do func(vault.SegmentID, vault.Told, time.Time)) error {
	prefix := l.names.Progress("")
	for info, err := range l.repo.Store().List(ctx, prefix, prefix+string(vault.GroupID(group))) {
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		dir, file := path.Split(strings.TrimPrefix(info.Name, prefix))
		id, err := vault.ParseSegmentID(strings.TrimSuffix(dir, "/"))
		if err != nil {
			continue
		}
		if id.Group() > group {
			return nil
		}
		if t, ok := vault.ParseTold(file); ok {
			do(id, t, info.Modified)
		}
	}
	return nil
}
