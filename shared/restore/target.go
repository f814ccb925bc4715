package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// Whether the table that stands under the name of a restore's target is the one that
// the restore has made.
//
// Whoever drops the table while it is loaded, and makes another one of its name, must
// not find the restore's rows in it. The restore notes by what the service tells its
// table from any other one, as soon as it is made, and whoever works on it compares:
// each look at the restore, each worker when it begins, and while it writes now and
// then, and before a batch is sent again. A restore that finds another table is over.

// another says that another table stands where the restore's was.
type another struct{ reason string }

func (a *another) Error() string { return a.reason }

// Is makes it an error that trying again can't mend.
func (a *another) Is(target error) bool { return target == table.ErrExist }

// stands says what is wrong with the table that stands under the name of a restore's
// target, as the service describes it: it is not the one that the restore has made. open
// says that the restore has changed nothing of it since.
func stands(plan *vault.RestorePlan, made *vault.Made, got table.Definition, open bool) error {
	refuse := func(format string, args ...any) error {
		return &another{fmt.Sprintf("%s is not the table that restore %s has made: %s; somebody has dropped that one and made another of its name, "+
			"into which nothing is written: restore to another name", plan.Target, plan.Restore, fmt.Sprintf(format, args...))}
	}
	switch {
	case got.Identity.Other(made.Identity):
		return refuse("this one is %s, that one was %s", got.Identity, made.Identity)
	case !slices.Equal(got.Schema, plan.Definition.Schema):
		return refuse("its primary key is %v, that one's %v", got.Schema, plan.Definition.Schema)
	case got.Identity.Known() && made.Identity.Known() || !open:
		return nil
	case got.Options != made.Options:
		// Where the service tells nothing, how the table looks has to do.
		return refuse("its options are %+v, that one had %+v", got.Options, made.Options)
	}
	return nil
}

// own compares the table that stands under the name of the restore's target with the one
// that the restore has made. The error is an *another if it is another one, or gone.
func own(ctx context.Context, tables table.Instance, plan *vault.RestorePlan, made *vault.Made, open bool) error {
	got, err := tables.Describe(ctx, plan.Target.Table)
	if errors.Is(err, table.ErrNotExist) {
		return &another{fmt.Sprintf("%s is gone, which restore %s has made: somebody has dropped it; restore again", plan.Target, plan.Restore)}
	}
	if err != nil {
		return fmt.Errorf("compare %s with the table that was made: %w", plan.Target, err)
	}
	return stands(plan, made, got, open)
}

// yield ends a restore that has found another table, so that none of its workers writes
// into it. It returns err, or what was in the way.
func yield(ctx context.Context, repo *repository.Repository, run fanout.Run, id vault.RestoreID, err error) error {
	var found *another
	if errors.As(err, &found) {
		if _, gerr := GiveUp(ctx, repo, run, id, found.reason); gerr != nil {
			return errors.Join(err, gerr)
		}
	}
	return err
}

// Made says whether the table that stands under the name of a restore's target is the one
// that the restore has made; that none stands there is no contradiction. If it died
// before it could note it, the table is taken to be its own if it is as restores make
// them, and nobody has written to it.
func Made(ctx context.Context, repo *repository.Repository, tables table.Instance, plan *vault.RestorePlan) (bool, error) {
	made, err := repo.Made(ctx, plan.Restore)
	if err != nil {
		return false, err
	}
	if made == nil {
		_, err := adopt(ctx, tables, plan.Target, loading(plan.Definition))
		if errors.Is(err, table.ErrNotExist) || errors.Is(err, table.ErrExist) {
			return false, nil
		}
		return err == nil, err
	}
	got, err := tables.Describe(ctx, plan.Target.Table)
	if errors.Is(err, table.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return stands(plan, made, got, false) == nil, nil
}

// ours compares the target with the one that the restore has made, or makes it, if the
// restore was about to when it died. Another table ends the restore. closed says that its
// rows were handed over before, so that there is nothing left to end.
func (p *Planner) ours(ctx context.Context, run fanout.Run, plan *vault.RestorePlan, closed bool) (*vault.Made, error) {
	if closed {
		made, err := p.Repo.Made(ctx, plan.Restore)
		if err == nil && made == nil {
			err = fmt.Errorf("%w: restore %s is closed, and %s is missing", vault.ErrCorrupt, plan.Restore, vault.Restore{ID: plan.Restore}.Created())
		}
		if err == nil {
			err = own(ctx, p.Tables, plan, made, false)
		}
		return made, err
	}
	made, err := p.ready(ctx, run, plan)
	switch {
	case err == nil:
		err = own(ctx, p.Tables, plan, made, true)
	case errors.Is(err, table.ErrExist):
		err = &another{err.Error()}
	}
	return made, yield(ctx, p.Repo, run, plan.Restore, err)
}
