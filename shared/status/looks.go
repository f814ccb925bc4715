package status

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/vault"
)

// Look is one look of `tablevault show --watch`: each backup, restore and verification,
// and all backups together.
type Look struct {
	At            time.Time         `json:"at"`
	Backups       []backup.Watched  `json:"backups"`
	Restores      []restore.Watched `json:"restores"`
	Verifications []Verification    `json:"verifications"`
	Total         Total             `json:"total"`
}

// Total sums backups up.
type Total struct {
	Segments       int      `json:"segments"`
	Done           int      `json:"done"`
	Live           int      `json:"live"`
	Rows           int64    `json:"rows"`
	Bytes          int64    `json:"raw_bytes"`
	Stored         int64    `json:"stored_bytes"`
	RowsPerSecond  float64  `json:"rows_per_second"`
	BytesPerSecond float64  `json:"bytes_per_second"`
	Left           *float64 `json:"seconds_left,omitempty"`

	Usage object.Usage `json:"usage,omitzero"`
}

// Add adds a backup. They run side by side: what is left is what is left of the slowest.
func (t *Total) Add(b *backup.Watched) {
	t.Segments, t.Done, t.Live = t.Segments+b.Segments, t.Done+b.Done, t.Live+b.Live
	t.Rows, t.Bytes, t.Stored = t.Rows+b.Totals.Rows, t.Bytes+b.Totals.RawBytes, t.Stored+b.Totals.StoredBytes
	t.Usage.Add(b.Usage)
	t.RowsPerSecond, t.BytesPerSecond = t.RowsPerSecond+b.RowsPerSecond, t.BytesPerSecond+b.BytesPerSecond
	if b.Left != nil && (t.Left == nil || *b.Left > *t.Left) {
		t.Left = b.Left
	}
}

// Running says whether anything of what was looked at has not ended.
func (l *Look) Running() bool {
	for i := range l.Backups {
		if l.Backups[i].State == backup.StateRunning {
			return true
		}
	}
	for i := range l.Restores {
		if s := l.Restores[i].State; s != restore.StateDone && s != restore.StateFailed {
			return true
		}
	}
	for i := range l.Verifications {
		if l.Verifications[i].State == Running {
			return true
		}
	}
	return false
}

// Watchers look again and again at what runs.
type Watchers struct {
	now           func() time.Time
	backups       []*backup.Watcher
	restores      []*restore.Watcher
	verifications []*VerificationWatcher
}

// WatchOne watches one thing.
func WatchOne(r *repository.Repository, ref Ref, now func() time.Time) *Watchers {
	w := &Watchers{now: now}
	w.add(r, ref)
	return w
}

func (w *Watchers) add(r *repository.Repository, ref Ref) {
	switch ref.Kind {
	case BackupKind:
		w.backups = append(w.backups, backup.Watch(r, ref.Backup(), w.now))
	case RestoreKind:
		w.restores = append(w.restores, restore.Watch(r, vault.RestoreID(ref.ID), w.now))
	case VerificationKind:
		w.verifications = append(w.verifications, WatchVerification(r, vault.VerificationID(ref.ID), w.now))
	}
}

// WatchAll watches all backups and restores that run. One that has failed stays open
// until a person gives it up or has it tried again; it is left out, so that an old
// failure is not told each time. No record says which verifications run.
func WatchAll(ctx context.Context, r *repository.Repository, now func() time.Time) (*Watchers, error) {
	w := &Watchers{now: now}
	for _, kind := range []Kind{BackupKind, RestoreKind} {
		for ref, err := range Open(ctx, r, kind) {
			if err != nil {
				return nil, err
			}
			// By a look of its own: the first that is shown goes by when it was begun.
			if failed, err := hasFailed(ctx, r, ref, now); err != nil {
				return nil, err
			} else if !failed {
				w.add(r, ref)
			}
		}
	}
	return w, nil
}

// hasFailed says whether a backup or a restore can't go on by itself. One that could not
// be looked at just now may.
func hasFailed(ctx context.Context, r *repository.Repository, ref Ref, now func() time.Time) (failed bool, err error) {
	if ref.Kind == BackupKind {
		var seen backup.Watched
		seen, err = backup.Watch(r, ref.Backup(), now).Look(ctx)
		failed = seen.State == backup.StateFailed
	} else {
		var seen restore.Watched
		seen, err = restore.Watch(r, vault.RestoreID(ref.ID), now).Look(ctx)
		failed = seen.State == restore.StateFailed
	}
	return err == nil && failed || repository.Corrupt(err), ctx.Err()
}

// Empty says whether there is nothing to look at.
func (w *Watchers) Empty() bool {
	return len(w.backups)+len(w.restores)+len(w.verifications) == 0
}

// Look looks how far each has come. What was marked as begun, by a worker that died
// before it planned, is left out.
func (w *Watchers) Look(ctx context.Context) (*Look, error) {
	l := &Look{At: w.now().UTC(), Backups: []backup.Watched{}, Restores: []restore.Watched{}, Verifications: []Verification{}}
	for _, of := range w.backups {
		b, err := of.Look(ctx)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil && ctx.Err() != nil {
			return nil, err
		}
		if err != nil {
			// One that can't be looked at hides no other.
			b.State, b.LastError = backup.StateFailed, err.Error()
		}
		b.Manifest = nil // Describe tells of it
		l.Backups = append(l.Backups, b)
		l.Total.Add(&b)
	}
	for _, of := range w.restores {
		r, err := of.Look(ctx)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		l.Restores = append(l.Restores, r)
	}
	for _, of := range w.verifications {
		v, err := of.Look(ctx)
		if err != nil {
			return nil, err
		}
		l.Verifications = append(l.Verifications, v)
	}
	return l, nil
}
