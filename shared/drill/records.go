package drill

import (
	"context"
	"fmt"
	"slices"

	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// State is a drill with all that is recorded of it.
type State struct {
	vault.Drill
	// End and Drop are nil as long as they are not recorded.
	End  *vault.DrillEnd
	Drop *vault.DrillDrop
}

// Newest reads the newest drill of each table that one was ever begun of, or of one
// table if t is not nil, in the order of the tables' names.
func Newest(ctx context.Context, repo *repository.Repository, t *vault.TableID) ([]State, error) {
	prefix := vault.Drills
	if t != nil {
		prefix = vault.DrillsOf(*t)
	}
	drills, err := list(ctx, repo, prefix)
	if err != nil {
		return nil, err
	}
	var all []State
	for _, records := range drills {
		state, err := records[len(records)-1].state(ctx, repo)
		if err != nil {
			return nil, err
		}
		all = append(all, *state)
	}
	slices.SortFunc(all, func(a, b State) int { return byPath(a.Table, b.Table) })
	return all, nil
}

// Of reads the newest n drills of a table, newest first.
func Of(ctx context.Context, repo *repository.Repository, t vault.TableID, n int) ([]State, error) {
	drills, err := list(ctx, repo, vault.DrillsOf(t))
	if err != nil {
		return nil, err
	}
	var all []State
	for _, r := range slices.Backward(drills[t]) {
		if len(all) == n {
			break
		}
		state, err := r.state(ctx, repo)
		if err != nil {
			return nil, err
		}
		all = append(all, *state)
	}
	return all, nil
}

// record is what a list tells of a drill.
type record struct {
	vault.DrillID
	ended, dropped bool
}

// list lists the drills whose records' names begin so, by their tables, oldest
// first. It costs a request for every thousand records.
func list(ctx context.Context, repo *repository.Repository, prefix string) (map[vault.TableID][]*record, error) {
	drills := map[vault.TableID][]*record{}
	for info, err := range repo.Store().List(ctx, prefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, err)
		}
		d, what, ok := vault.ParseDrillName(info.Name)
		if !ok {
			continue
		}
		// The records of a drill stand together.
		of := drills[d.Table]
		if n := len(of); n == 0 || of[n-1].DrillID != d {
			of = append(of, &record{DrillID: d})
			drills[d.Table] = of
		}
		switch r := of[len(of)-1]; what {
		case vault.DrillEnded:
			r.ended = true
		case vault.DrillDropped:
			r.dropped = true
		}
	}
	return drills, nil
}

func (r *record) state(ctx context.Context, repo *repository.Repository) (*State, error) {
	var s State
	if _, err := repo.Read(ctx, r.Begun(), &s.Drill); err != nil {
		return nil, err
	}
	if r.ended {
		s.End = new(vault.DrillEnd)
		if _, err := repo.Read(ctx, r.Ended(), s.End); err != nil {
			return nil, err
		}
	}
	if r.dropped {
		s.Drop = new(vault.DrillDrop)
		if _, err := repo.Read(ctx, r.Dropped(), s.Drop); err != nil {
			return nil, err
		}
	}
	return &s, nil
}
