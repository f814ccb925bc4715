package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tablevault/tablevault/shared/fanout"
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
// target, as the service describes it: it is not the one that the restore has made.
// open says that the restore has changed nothing of it since.
func stands(p *vault.RestorePlan, made *vault.Made, got table.Definition, open bool) error {
	refuse := func(format string, args ...any) error {
		return &another{fmt.Sprintf("%s is not the table that restore %s has made: %s; somebody has dropped that one and made another of its name, "+
			"into which nothing is written: restore to another name", p.Target, p.Restore, fmt.Sprintf(format, args...))}
	}
	switch {
	case got.Identity.Other(made.Identity):
		return refuse("this one is %s, that one was %s", got.Identity, made.Identity)
	case !slices.Equal(got.Schema, p.Definition.Schema):
		return refuse("its primary key is %v, that one's %v", got.Schema, p.Definition.Schema)
	case got.Identity.Known() && made.Identity.Known() || !open:
		return nil
	case got.Options != made.Options:
		// Where the service tells nothing, how the table looks has to do.
		return refuse("its options are %+v, that one had %+v", got.Options, made.Options)
	}
	return nil
}

// own compares the table that stands under the name of the restore's target with the
// one that the restore has made. The error is an *another if it is another one, or gone.
func (i *Importer) own(ctx context.Context, p *vault.RestorePlan, made *vault.Made, open bool) error {
	got, err := i.Tables.Describe(ctx, p.Target.Table)
	if errors.Is(err, table.ErrNotExist) {
		return &another{fmt.Sprintf("%s is gone, which restore %s has made: somebody has dropped it; restore again", p.Target, p.Restore)}
	}
	if err != nil {
		return fmt.Errorf("compare %s with the table that was made: %w", p.Target, err)
	}
	return stands(p, made, got, open)
}

// yield ends a restore that has found another table, so that none of its workers writes
// into it. It returns err, or what was in the way.
func (i *Importer) yield(ctx context.Context, run fanout.Run, id vault.RestoreID, err error) error {
	var found *another
	if errors.As(err, &found) {
		if _, gerr := i.GiveUp(ctx, run, id, found.reason); gerr != nil {
			return errors.Join(err, gerr)
		}
	}
	return err
}

// Made says whether the table that stands under the name of a restore's target is
// the one that the restore has made; that none stands there is no contradiction. If it
// died before it could note it, the table is taken to be its own if it is as restores
// make them, and nobody has written to it.
func (i *Importer) Made(ctx context.Context, p *vault.RestorePlan) (bool, error) {
	made, err := i.Repo.Made(ctx, p.Restore)
	if err != nil {
		return false, err
	}
	if made == nil {
		_, err := i.adopt(ctx, p.Target, loading(p.Definition))
		if errors.Is(err, table.ErrNotExist) || errors.Is(err, table.ErrExist) {
			return false, nil
		}
		return err == nil, err
	}
	got, err := i.Tables.Describe(ctx, p.Target.Table)
	if errors.Is(err, table.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return stands(p, made, got, false) == nil, nil
}

// ours compares the target with the one that the restore has made, or makes it, if the
// restore was about to when it died. Another table ends the restore. closed says that
// its rows were handed over before, so that there is nothing left to end.
func (i *Importer) ours(ctx context.Context, run fanout.Run, p *vault.RestorePlan, closed bool) (*vault.Made, error) {
	if closed {
		made, err := i.Repo.Made(ctx, p.Restore)
		if err == nil && made == nil {
			err = fmt.Errorf("%w: restore %s is closed, and %s is missing", vault.ErrCorrupt, p.Restore, vault.Restore{ID: p.Restore}.Created())
		}
		if err == nil {
			err = i.own(ctx, p, made, false)
		}
		return made, err
	}
	made, err := i.ready(ctx, run, p)
	switch {
	case err == nil:
		err = i.own(ctx, p, made, true)
	case errors.Is(err, table.ErrExist):
		err = &another{err.Error()}
	}
	return made, i.yield(ctx, run, p.Restore, err)
}
