package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// loading is the table as it is while rows are written: it takes every timestamp, expires
// nothing, takes updates, and has no index beside which timestamps would be refused.
func loading(def table.Definition) table.Definition {
	def.DefinedColumns, def.Indexes, def.SearchIndexes, def.Stream = nil, nil, nil, nil
	def.Options.TTL = table.NoTTL
	def.Options.Deviation = table.WidestDeviation
	def.Options.AllowUpdate = true
	return def
}

// make makes the target, which this restore has not made yet, and notes by what it is
// told from any other table.
func (p *Planner) make(ctx context.Context, plan *vault.RestorePlan) (*vault.Made, error) {
	got, err := p.create(ctx, plan)
	if errors.Is(err, table.ErrExist) {
		// Another delivery of this restore may have noted it meanwhile, and others may
		// write rows by now.
		if made, merr := p.Repo.Made(ctx, plan.Restore); merr != nil || made != nil {
			return made, merr
		}
	}
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", plan.Target, err)
	}
	made := &vault.Made{Restore: plan.Restore, Target: plan.Target, Identity: got.Identity, Options: got.Options}
	_, err = p.Repo.Win(ctx, vault.Restore{ID: plan.Restore}.Created(), made)
	return made, err
}

// create creates the target and describes it.
func (p *Planner) create(ctx context.Context, plan *vault.RestorePlan) (got table.Definition, err error) {
	want := loading(plan.Definition)
	err = p.Tables.Create(ctx, want)
	switch {
	case err == nil:
		if got, err = p.Tables.Describe(ctx, plan.Target.Table); err == nil && !slices.Equal(got.Schema, want.Schema) {
			err = notMine(plan.Target) // it has come in the place of the restore's by now
		}
	case errors.Is(err, table.ErrExist):
		// The answer of an earlier try may have been lost: then the table is as it was
		// asked for, and nothing has been written. A table of anyone else is refused.
		got, err = adopt(ctx, p.Tables, plan.Target, want)
	}
	if errors.Is(err, table.ErrNotExist) {
		// It was just made, by another delivery of this very restore perhaps, and
		// can't be used yet.
		err = fmt.Errorf("%w: it is being loaded, look again later", table.ErrUnavailable)
	}
	return got, err
}

func notMine(t vault.TableID) error {
	return fmt.Errorf("%w: %s, and not by this restore; restore to another name, or drop it first", table.ErrExist, t)
}

// adopt takes a table that stands under the name of the target for the restore's own, and
// describes it: it is as restores make them, and empty.
func adopt(ctx context.Context, tables table.Instance, t vault.TableID, want table.Definition) (table.Definition, error) {
	got, err := tables.Describe(ctx, t.Table)
	if err != nil {
		return got, err
	}
	if !slices.Equal(got.Schema, want.Schema) || got.Options != want.Options ||
		len(got.DefinedColumns)+len(got.Indexes)+len(got.SearchIndexes) > 0 || got.Stream != nil {
		return got, notMine(t)
	}
	scan := tables.Scan(t.Table, want.Schema, want.Schema.Whole())
	buf := make([]byte, table.MinPage)
	for {
		page, err := scan.Next(ctx, buf)
		if err == io.EOF {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		if len(page.Block) > 0 {
			return got, notMine(t)
		}
	}
}
