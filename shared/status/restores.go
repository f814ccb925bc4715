package status

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/vault"
)

// Restores are what `tablevault list --restores` tells: restores, newest first, those
// that run and those that have ended.
type Restores struct {
	Restores []restore.Watched `json:"restores"`
	// Older is how many were left out.
	Older int `json:"older"`
}

// Damaged is how many restores have a record that is not as it was written.
func (l *Restores) Damaged() (n int) {
	for i := range l.Restores {
		if l.Restores[i].State == Unreadable && l.Restores[i].Corrupt {
			n++
		}
	}
	return n
}

// Unreadable is the state of a restore of which a record can't be read.
const Unreadable = "unreadable"

// restoresInFlight is how many restores are looked at at a time.
const restoresInFlight = 8

// ListRestores lists the newest restores, at most that many, or all if it is 0, and of
// these the ones of and into tables. One of which a record can't be read is among them.
func ListRestores(ctx context.Context, r *repository.Repository, of Tables, most int, now func() time.Time) (*Restores, error) {
	var refs []Ref
	for ref, err := range All(ctx, r, RestoreKind) {
		if err != nil {
			return nil, err
		}
		refs = append(refs, ref)
	}
	slices.SortFunc(refs, byNewest)
	var l Restores
	if most > 0 && len(refs) > most {
		refs, l.Older = refs[:most], len(refs)-most
	}
	l.Restores = make([]restore.Watched, len(refs))
	var looks guard.Group
	looks.SetLimit(restoresInFlight)
	for i, ref := range refs {
		looks.Go(func() (err error) {
			l.Restores[i], err = watched(ctx, r, vault.RestoreID(ref.ID), now)
			return err
		})
	}
	if err := looks.Wait(); err != nil {
		return nil, fmt.Errorf("look at the restores: %w", err)
	}
	// Whose table is not known may be what is looked for.
	l.Restores = slices.DeleteFunc(l.Restores, func(w restore.Watched) bool { return w.Target != "" && !of.Match(w.Source) && !of.Match(w.Target) })
	return &l, nil
}

// watched is how far a restore has come, or why that can't be told.
func watched(ctx context.Context, r *repository.Repository, id vault.RestoreID, now func() time.Time) (restore.Watched, error) {
	w, err := restore.Watch(r, id, now).Look(ctx)
	if err == nil || ctx.Err() != nil {
		return w, err
	}
	w = restore.Watched{
		Restore: id, State: Unreadable, LastError: err.Error(), Corrupt: repository.Corrupt(err),
		Begun: vault.BackupID(id).Time(), // its name tells
	}
	if plan, err := r.RestorePlan(ctx, id); err == nil {
		w.Backup, w.Source, w.Table, w.Target = plan.Backup, plan.Source.String(), plan.Target.String(), plan.Target.String()
	}
	return w, nil
}
