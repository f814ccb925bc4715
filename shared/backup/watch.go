package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// Watcher tells again and again how far a backup has come, from the vault's
// records alone and without writing any. What it has read of them it remembers,
// since they never change: a look costs a planner's, and a read for each part and
// roll-up that is new.
type Watcher struct {
	repo   *repository.Repository
	backup vault.Backup
	now    func() time.Time

	plan   *vault.Plan
	slots  map[string]counted // by name
	groups map[int]counted
	before sample // of the look before
}

// counted is what a watcher remembers of a slot, or of a group that is rolled up.
type counted struct {
	group  int
	totals vault.Totals
	usage  vault.Usage
}

// add adds another.
func (c *counted) add(o counted) {
	c.totals.Add(o.totals)
	c.usage.Add(o.usage)
}

// sample is how much had been done at an instant.
type sample struct {
	at          time.Time
	rows, bytes int64
	done        float64 // of 1
}

// Watched is how far a backup has come.
type Watched struct {
	Backup vault.BackupID `json:"backup"`
	Table  string         `json:"table"`
	// Progress has, other than a tick's, the totals of what is stored so far, and
	// what that asked of the store.
	Progress
	Begun time.Time `json:"begun"`
	// Rows and Bytes, as the table counts them, were stored per second since the
	// look before, or since the backup was begun.
	RowsPerSecond  float64 `json:"rows_per_second"`
	BytesPerSecond float64 `json:"bytes_per_second"`
	// Left is how long it will go on, in seconds, by the share of segments that
	// have ended; nil if that can't be told.
	Left *float64 `json:"seconds_left,omitempty"`
}

// Watch returns a watcher of a backup.
func Watch(r *repository.Repository, b vault.Backup, now func() time.Time) *Watcher {
	return &Watcher{repo: r, backup: b, now: now, slots: map[string]counted{}, groups: map[int]counted{}}
}

// Look looks how far the backup has come. The error matches fs.ErrNotExist if it
// was begun and never planned.
func (w *Watcher) Look(ctx context.Context) (Watched, error) {
	out := Watched{Backup: w.backup.ID, Table: w.backup.Table.String(), Begun: w.backup.ID.Time()}
	if w.plan == nil {
		// A backup that has ended may have no plan any more.
		plan, _, err := w.repo.Plan(ctx, w.backup)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return out, err
		}
		w.plan = plan
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
	now := sample{at: w.now()}
	if s.plan != nil {
		sum, err := w.stored(ctx, s.rolled)
		if err != nil {
			return out, fmt.Errorf("backup %s of %s: %w", w.backup.ID, w.backup.Table, err)
		}
		out.Totals, out.Usage = sum.totals, sum.usage
		now.done = float64(out.Done) / math.Max(1, float64(out.Segments))
	}
	now.rows, now.bytes = out.Totals.Rows, out.Totals.RawBytes
	since := w.before
	if since.at.IsZero() {
		since.at = out.Begun
	}
	if d := now.at.Sub(since.at).Seconds(); d > 0 && out.State == StateRunning {
		out.RowsPerSecond, out.BytesPerSecond = float64(now.rows-since.rows)/d, float64(now.bytes-since.bytes)/d
	}
	if age := now.at.Sub(out.Begun).Seconds(); out.State == StateRunning && now.done > 0 && age > 0 {
		left := age/now.done - age
		out.Left = &left
	}
	w.before = now
	return out, nil
}

// watchReads is how many records a watcher reads at a time.
const watchReads = 16

// stored adds up what the parts hold that are recorded so far; rolled are the
// groups that are rolled up.
func (w *Watcher) stored(ctx context.Context, rolled map[int]bool) (counted, error) {
	var sum counted
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
				w.groups[g] = counted{g, group.Totals, group.Usage}
				return nil
			})
		default:
			if err := w.group(rctx, g, reads, &mu); err != nil {
				return sum, errors.Join(err, reads.Wait())
			}
		}
	}
	if err := reads.Wait(); err != nil {
		return sum, err
	}
	for name, part := range w.slots {
		if _, over := w.groups[part.group]; over {
			delete(w.slots, name) // its roll-up has it
			continue
		}
		sum.add(part)
	}
	for _, group := range w.groups {
		sum.add(group)
	}
	return sum, nil
}

// group reads the slots of a group that are new.
func (w *Watcher) group(ctx context.Context, g int, reads *guard.Group, mu *sync.Mutex) error {
	for n, err := range fanout.InGroup(ctx, w.repo, w.backup.Log().Slots(""), g) {
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
			p := counted{group: g, usage: slot.Usage}
			if slot.Part != nil {
				p.totals.AddPart(slot.Part)
			}
			mu.Lock()
			defer mu.Unlock()
			w.slots[n.Name] = p
			return nil
		})
	}
	return nil
}
