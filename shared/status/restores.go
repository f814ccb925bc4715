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

// Restore is how it stands with a restore, or why that can't be told.
type Restore struct{ restore.Watched }

// Unreadable is the state of a restore of which a record can't be read.
const Unreadable = "unreadable"

// restoresInFlight is how many restores are looked at at a time.
const restoresInFlight = 8

// Restores are the newest restores, newest first, at most that many, or all if it is 0.
// One of which a record can't be read is among them. Older says how many there are that
// were left out.
func Restores(ctx context.Context, r *repository.Repository, most int, now func() time.Time) (all []Restore, older int, err error) {
	var refs []Ref
	for ref, err := range All(ctx, r, RestoreKind) {
		if err != nil {
			return nil, 0, err
		}
		refs = append(refs, ref)
	}
	slices.SortFunc(refs, byNewest)
	if most > 0 && len(refs) > most {
		refs, older = refs[:most], len(refs)-most
	}
	all = make([]Restore, len(refs))
	var looks guard.Group
	looks.SetLimit(restoresInFlight)
	for i, ref := range refs {
		looks.Go(func() error {
			id := vault.RestoreID(ref.ID)
			var err error
			if all[i].Watched, err = restore.Watch(r, id, now).Look(ctx); err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			all[i] = Restore{restore.Watched{Corrupt: repository.Corrupt(err)}}
			all[i].Restore, all[i].State, all[i].LastError = id, Unreadable, err.Error()
			all[i].Begun = vault.BackupID(id).Time() // its name tells
			if plan, err := r.RestorePlan(ctx, id); err == nil {
				all[i].Backup, all[i].Source, all[i].Table, all[i].Target = plan.Backup, plan.Source.String(), plan.Target.String(), plan.Target.String()
			}
			return nil
		})
	}
	if err := looks.Wait(); err != nil {
		return nil, 0, fmt.Errorf("look at the restores: %w", err)
	}
	return all, older, nil
}
