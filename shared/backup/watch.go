package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// Watcher tells again and again how far a backup has come, from the vault's records alone
// and without writing any. What it has read of them it remembers, since they never
// change: a look costs a planner's, and a read for each part and roll-up that is new.
type Watcher struct {
	repo   *repository.Repository
	backup vault.Backup
	now    func() time.Time

	plan   *vault.Plan
	slots  map[string]counted // by name
	groups map[int]counted
	speed  fanout.Speed
	// last is how many rows the table had when it was backed up last, 0 if that is not
	// known.
	last int64
}

// counted is what a watcher remembers of a slot, or of a group that is rolled up.
type counted struct {
	group   int
	segment vault.SegmentID // of a slot
	last    bool            // it has the segment's last
	totals  vault.Totals
	usage   object.Usage
}

// add adds another.
func (c *counted) add(o counted) {
	c.last = c.last || o.last
	c.totals.Add(o.totals)
	c.usage.Add(o.usage)
}

// Watched is how far a backup has come.
type Watched struct {
	Backup vault.BackupID `json:"backup"`
	Table  string         `json:"table"`
	// Progress has, other than a tick's, the totals of what is stored so far, and what
	// that asked of the store.
	Progress
	Begun time.Time `json:"begun"`
	// Rows and Bytes, as the table counts them, were read per second in the last half
	// minute, or since the backup was begun.
	RowsPerSecond  float64 `json:"rows_per_second"`
	BytesPerSecond float64 `json:"bytes_per_second"`
	// Expected is how many rows it will have: as many as the table had when it was backed
	// up last, or by what the segments have that have ended; 0 if there is nothing to go
	// by.
	Expected int64 `json:"expected_rows,omitempty"`
	// Left is how long it will go on, in seconds; nil if that can't be told.
	Left *float64 `json:"seconds_left,omitempty"`
}

// Watch returns a watcher of a backup.
func Watch(r *repository.Repository, b vault.Backup, now func() time.Time) *Watcher {
	return &Watcher{repo: r, backup: b, now: now, slots: map[string]counted{}, groups: map[int]counted{}}
}

// Look looks how far the backup has come. The error matches fs.ErrNotExist if it was
// begun and never planned.
func (w *Watcher) Look(ctx context.Context) (Watched, error) {
	out := Watched{Backup: w.backup.ID, Table: w.backup.Table.String(), Begun: w.backup.ID.Time()}
	if w.plan == nil {
		// A backup that has ended may have no plan any more.
		plan, _, err := w.repo.Plan(ctx, w.backup)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return out, err
		}
		w.plan = plan
		if m, err := w.repo.Latest(ctx, w.backup.Table, time.Time{}); err == nil && m.Backup < w.backup.ID {
			w.last = m.Totals.Rows
		}
	}
	if w.plan != nil {
		out.Begun = w.plan.Created
	}
	p := &Planner{Repo: w.repo, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: w.now, watching: true}
	s, err := p.Survey(ctx, fanout.Run{Now: w.now}, w.backup)
	if err != nil {
		return out, err
	}
	out.Progress = s.Progress
	if s.plan == nil {
		return out, nil
	}
	sum, ended, err := w.stored(ctx, s.rolled)
	if err != nil {
		return out, fmt.Errorf("backup %s of %s: %w", w.backup.ID, w.backup.Table, err)
	}
	out.Totals, out.Usage = sum.totals, sum.usage
	if out.State != StateRunning {
		return out, nil
	}
	out.RowsPerSecond, out.BytesPerSecond = w.speed.Look(out.Begun, w.now(), out.Totals.Rows, out.Totals.RawBytes)
	if out.Expected = w.last; w.last == 0 && out.Done > 0 {
		out.Expected = ended / int64(out.Done) * int64(out.Segments)
	}
	out.Left = fanout.Left(out.Expected, out.Totals.Rows, out.RowsPerSecond)
	return out, nil
}

// watchReads is how many records a watcher reads at a time.
const watchReads = 16

// stored adds up what the parts hold that are recorded so far, and what workers tell of
// those in the making; rolled are the groups that are rolled up. Ended is how many rows
// the segments have that have ended.
func (w *Watcher) stored(ctx context.Context, rolled map[int]bool) (sum counted, ended int64, err error) {
	told := map[vault.SegmentID]vault.Told{}
	reads, rctx := guard.WithContext(ctx)
	reads.SetLimit(watchReads)
	var mu sync.Mutex
	for g := range w.plan.Groups() {
		_, known := w.groups[g]
		switch {
		case known:
		case rolled[g]:
			reads.Go(func() error {
				var group vault.Group
				if _, err := w.repo.Read(rctx, w.backup.Group(g), &group); err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				w.groups[g] = counted{group: g, totals: group.Totals, usage: group.Usage}
				return nil
			})
		default:
			of, err := fanout.NewLog(w.repo, w.backup.Log()).ToldIn(rctx, g)
			if err == nil {
				maps.Copy(told, of)
				err = w.group(rctx, g, reads, &mu)
			}
			if err != nil {
				return sum, 0, errors.Join(err, reads.Wait())
			}
		}
	}
	if err := reads.Wait(); err != nil {
		return sum, 0, err
	}
	segments := map[vault.SegmentID]counted{}
	for name, part := range w.slots {
		if _, over := w.groups[part.group]; over {
			delete(w.slots, name) // its roll-up has it
			continue
		}
		sum.add(part)
		of := segments[part.segment]
		of.add(part)
		segments[part.segment] = of
	}
	for _, of := range segments {
		if of.last {
			ended += of.totals.Rows
		}
	}
	for id, t := range told {
		if of := segments[id]; t.Rows > of.totals.Rows && !of.last {
			sum.totals.Rows += t.Rows - of.totals.Rows
			sum.totals.RawBytes += max(0, t.Bytes-of.totals.RawBytes)
		}
	}
	for _, group := range w.groups {
		sum.add(group)
		ended += group.totals.Rows
	}
	return sum, ended, nil
}

// group reads the slots of a group that are new.
func (w *Watcher) group(ctx context.Context, g int, reads *guard.Group, mu *sync.Mutex) error {
	for n, err := range fanout.NewLog(w.repo, w.backup.Log()).Slots(ctx, g) {
		if err != nil {
			return err
		}
		mu.Lock()
		_, known := w.slots[n.Name]
		mu.Unlock()
		if known {
			continue
		}
		reads.Go(func() error {
			var slot vault.Slot
			if _, err := w.repo.Read(ctx, n.Name, &slot); err != nil {
				return err
			}
			p := counted{group: g, segment: slot.Segment, last: slot.Split != nil, usage: slot.Usage}
			if slot.Part != nil {
				p.totals.AddPart(slot.Part)
				p.last = slot.Part.Last
			}
			mu.Lock()
			defer mu.Unlock()
			w.slots[n.Name] = p
			return nil
		})
	}
	return nil
}
