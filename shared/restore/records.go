package restore

import (
	"context"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// What the vault's records tell of a restore that has not ended: whoever goes on with it
// goes by them, and so does whoever only watches it.

// records are the vault's records of a restore.
type records struct {
	repo *repository.Repository
	plan *vault.RestorePlan
}

// id names the restore's records.
func (r records) id() vault.Restore { return vault.Restore{ID: r.plan.Restore} }

// toLoad are the segments that are not loaded, and of the others how many there are and
// how many rows they have.
func (r records) toLoad(ctx context.Context) (open [][]vault.SegmentID, loaded int, rows int64, err error) {
	done, err := r.reported(ctx, r.id().Log().AllDone())
	if err != nil {
		return nil, 0, 0, err
	}
	open, loaded, rows = splitEnded(r.plan, func(s vault.RestoreSegment) bool {
		_, ended := done[s.ID]
		return ended || s.Rows == 0
	})
	return open, loaded, rows, nil
}

// reported are the segments that have an object under prefix, with the store's date of
// it.
func (r records) reported(ctx context.Context, prefix string) (map[vault.SegmentID]time.Time, error) {
	done := map[vault.SegmentID]time.Time{}
	for info, err := range r.repo.Store().List(ctx, prefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, err)
		}
		done[vault.SegmentID(strings.TrimSuffix(path.Base(info.Name), ".json"))] = info.Modified
	}
	return done, nil
}

// byGroup are the plan's segments for which open says yes, those of one group together,
// in order.
func byGroup(p *vault.RestorePlan, open func(vault.RestoreSegment) bool) [][]vault.SegmentID {
	var groups [][]vault.SegmentID
	last := -1
	for _, s := range p.Segments {
		if !open(s) {
			continue
		}
		if s.Group != last {
			groups, last = append(groups, nil), s.Group
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], s.ID)
	}
	return groups
}

// splitEnded are the plan's segments that have not ended, by their groups, and of the
// others how many there are and how many rows they have.
func splitEnded(p *vault.RestorePlan, ended func(vault.RestoreSegment) bool) (open [][]vault.SegmentID, segments int, rows int64) {
	open = byGroup(p, func(s vault.RestoreSegment) bool {
		if !ended(s) {
			return true
		}
		segments++
		rows += s.Rows
		return false
	})
	return open, segments, rows
}

// plannedGroups are the plan's segments for which holds says yes, by their groups, and
// how many groups there are.
func plannedGroups(p *vault.RestorePlan, holds func(vault.RestoreSegment) bool) (planned func(group int) []vault.SegmentID, groups int) {
	all := map[int][]vault.SegmentID{}
	for _, group := range byGroup(p, holds) {
		all[group[0].Group()] = group
		groups = group[0].Group() + 1
	}
	return func(group int) []vault.SegmentID { return all[group] }, groups
}

// loadingPace reads what held back who wrote a slot of the log of loading.
func loadingPace(repo *repository.Repository) func(context.Context, string) (*vault.Pace, error) {
	return func(ctx context.Context, slot string) (*vault.Pace, error) {
		var entry vault.Loaded
		_, err := repo.Read(ctx, slot, &entry)
		return entry.Pace, err
	}
}

// comparingPace reads what held back who wrote a slot of the log of comparing.
func comparingPace(repo *repository.Repository) func(context.Context, string) (*vault.Pace, error) {
	return func(ctx context.Context, slot string) (*vault.Pace, error) {
		var entry vault.Compared
		_, err := repo.Read(ctx, slot, &entry)
		return entry.Pace, err
	}
}
