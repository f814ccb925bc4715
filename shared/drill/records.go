package drill

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// State is a drill with all that is recorded of it.
type State struct {
	Drill vault.Drill
	// End and Drop are nil as long as they are not recorded.
	End  *vault.DrillEnd
	Drop *vault.DrillDrop
}

// Newest reads the newest drill of each table that one was ever begun of, or of one table
// if t is not nil, in the order of the tables' names. Drills whose instants are still to
// come at now count for nothing.
func Newest(ctx context.Context, repo *repository.Repository, t *vault.TableID, now time.Time) ([]State, error) {
	prefix := vault.Drills
	if t != nil {
		prefix = vault.DrillsOf(*t)
	}
	drills, err := list(ctx, repo, prefix)
	if err != nil {
		return nil, err
	}
	newest := make([]*record, 0, len(drills))
	for _, records := range drills {
		if records = happened(records, now); len(records) > 0 {
			newest = append(newest, records[len(records)-1])
		}
	}
	slices.SortFunc(newest, func(a, b *record) int { return byPath(a.Table, b.Table) })
	return states(ctx, repo, newest)
}

// Of reads the newest n drills of a table, newest first, of those whose instants are not
// still to come at now.
func Of(ctx context.Context, repo *repository.Repository, t vault.TableID, n int, now time.Time) ([]State, error) {
	drills, err := list(ctx, repo, vault.DrillsOf(t))
	if err != nil {
		return nil, err
	}
	newest := happened(drills[t], now)
	newest = slices.Clone(newest[max(0, len(newest)-n):])
	slices.Reverse(newest)
	return states(ctx, repo, newest)
}

// record is what a list tells of a drill.
type record struct {
	vault.DrillID
	ended, dropped bool
}

// ahead says whether the instant that names the drill is still to come: nobody has begun
// such a one.
func (r *record) ahead(now time.Time) bool {
	_, told := vault.Happened(r.Due, now)
	return !told
}

// happened leaves out drills that are ahead.
func happened(records []*record, now time.Time) []*record {
	return slices.DeleteFunc(slices.Clone(records), func(r *record) bool { return r.ahead(now) })
}

// list lists the drills whose records' names begin so, by their tables, oldest first. It
// costs a request for every thousand records.
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

// readsInFlight is how many drills are read at a time.
const readsInFlight = 16

// states reads the records of drills. One that is damaged is a drill that has failed:
// nothing is proved by it.
func states(ctx context.Context, repo *repository.Repository, drills []*record) ([]State, error) {
	all := make([]State, len(drills))
	group, ctx := guard.WithContext(ctx)
	group.SetLimit(readsInFlight)
	for i, r := range drills {
		group.Go(func() error {
			err := r.state(ctx, repo, &all[i])
			if err == nil || !repository.Corrupt(err) {
				return err
			}
			all[i] = State{
				Drill: vault.Drill{DrillID: r.DrillID, Began: r.Due}, Drop: &vault.DrillDrop{},
				End: &vault.DrillEnd{Ended: r.Due, Error: fmt.Sprintf("what it has recorded can't be read: %v", err)},
			}
			return nil
		})
	}
	return all, group.Wait()
}

func (r *record) state(ctx context.Context, repo *repository.Repository, s *State) error {
	if r.dropped {
		s.Drop = new(vault.DrillDrop)
		if _, err := repo.Read(ctx, r.Dropped(), s.Drop); err != nil {
			return err
		}
	}
	if !r.ended {
		_, err := repo.Read(ctx, r.Begun(), &s.Drill)
		return err
	}
	s.End = new(vault.DrillEnd)
	_, err := repo.Read(ctx, r.Ended(), s.End)
	s.Drill = s.End.Drill
	return err
}
