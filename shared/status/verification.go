package status

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// Verification is how far a verification has come that was asked for by an id.
type Verification struct {
	Verification vault.VerificationID `json:"verification"`
	// State is "running", "done", or "lost", if nothing was heard of it for longer than a
	// function works.
	State string `json:"state"`
	Rows  int64  `json:"rows"`
	Bytes int64  `json:"bytes"`
	// Heard is when it last told how far it has come, by the store's clock.
	Heard         time.Time    `json:"heard"`
	RowsPerSecond float64      `json:"rows_per_second"`
	Proof         *vault.Proof `json:"proof,omitempty"`
}

// The states of a verification.
const (
	Running = "running"
	Done    = "done"
	Lost    = "lost"
)

// silence is after how long a verification counts as lost that says nothing: longer than
// a function works, and than it keeps silent while it does.
const silence = 20 * time.Minute

// VerificationWatcher tells again and again how far a verification has come.
type VerificationWatcher struct {
	repo  *repository.Repository
	id    vault.VerificationID
	now   func() time.Time
	speed fanout.Speed
}

// WatchVerification returns a watcher of a verification.
func WatchVerification(r *repository.Repository, id vault.VerificationID, now func() time.Time) *VerificationWatcher {
	return &VerificationWatcher{repo: r, id: id, now: now}
}

// Look looks how far it has come. The error matches fs.ErrNotExist if it has not begun.
func (w *VerificationWatcher) Look(ctx context.Context) (Verification, error) {
	out := Verification{Verification: w.id, State: Running}
	of := vault.Verification{ID: w.id}
	for info, err := range w.repo.Store().List(ctx, of.Progress(), "") {
		if err != nil {
			return out, fmt.Errorf("list %s: %w", of.Progress(), err)
		}
		if told, ok := vault.ParseTold(path.Base(info.Name)); ok {
			out.Rows, out.Bytes, out.Heard = told.Rows, told.Bytes, info.Modified.UTC()
		}
	}
	var proof vault.Proof
	_, err := w.repo.Read(ctx, of.Proof(), &proof)
	if err == nil {
		out.State, out.Proof, out.Rows = Done, &proof, proof.Check.Rows
		return out, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return out, err
	}
	if out.Heard.IsZero() {
		return out, fmt.Errorf("there is no verification %s in this vault: %w", w.id, fs.ErrNotExist)
	}
	now := w.now()
	if now.Sub(out.Heard) > silence {
		out.State = Lost
		return out, nil
	}
	began := vault.BackupID(w.id).Time() // its name tells
	if began.IsZero() {
		began = out.Heard
	}
	out.RowsPerSecond, _ = w.speed.Look(began, now, out.Rows, out.Bytes)
	return out, nil
}

// Rows is how many rows a backup has, or the backup that a restore is of; 0 where that
// can't be told.
func Rows(ctx context.Context, r *repository.Repository, of Ref) int64 {
	var b vault.Backup
	if of.Kind == RestoreKind {
		plan, err := r.RestorePlan(ctx, vault.RestoreID(of.ID))
		if err != nil {
			return 0
		}
		b = vault.Backup{Table: plan.Source, ID: plan.Backup}
	} else {
		var err error
		if b, err = r.FindBackup(ctx, vault.BackupID(of.ID)); err != nil {
			return 0
		}
	}
	m, _, err := r.Manifest(ctx, b)
	if err != nil {
		return 0
	}
	return m.Totals.Rows
}
