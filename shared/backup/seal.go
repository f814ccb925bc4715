package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tablevault/tablevault/shared/backup/coverage"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// rollUp reads the logs of a group's segments and of all that they were split into,
// proves each of them, and asks the store for each object's size and checksum. It returns
// the segments that have not ended; if there are none, the group is complete.
func rollUp(ctx context.Context, r *repository.Repository, b vault.Backup, roots []vault.Segment, g int) (*vault.Group, []vault.Segment, error) {
	logs := make([][]*coverage.SegmentLog, len(roots))
	work, wctx := guard.WithContext(ctx)
	work.SetLimit(repository.StatsInFlight)
	for i, s := range roots {
		work.Go(func() (err error) {
			logs[i], err = readTree(wctx, r, b.Log(), s)
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return nil, nil, err
	}
	group := &vault.Group{Group: g, Segments: []vault.SegmentLog{}}
	var unfinished []vault.Segment
	for _, tree := range logs {
		for _, l := range tree {
			if !l.Ended {
				unfinished = append(unfinished, l.Segment)
			}
			group.Segments = append(group.Segments, vault.SegmentLog{Segment: l.Segment, Slots: l.Slots})
		}
	}
	if len(unfinished) > 0 {
		return nil, unfinished, nil
	}
	work, wctx = guard.WithContext(ctx)
	work.SetLimit(repository.StatsInFlight)
	for _, s := range group.Segments {
		for _, slot := range s.Slots {
			group.Usage.Add(slot.Usage)
			if slot.Part == nil {
				continue
			}
			group.Totals.AddPart(slot.Part)
			for _, o := range []vault.Object{slot.Part.Shard, slot.Part.Index} {
				work.Go(func() error { return r.Present(wctx, o) })
			}
		}
	}
	return group, nil, work.Wait()
}

// readTree reads the log of a segment and of all that it was split into.
func readTree(ctx context.Context, r *repository.Repository, log vault.Log, s vault.Segment) ([]*coverage.SegmentLog, error) {
	l, err := coverage.ReadLog(ctx, r, log, s)
	if err != nil {
		return nil, err
	}
	logs := []*coverage.SegmentLog{l}
	if l.Split == nil {
		return logs, nil
	}
	for _, c := range l.Split.Children {
		below, err := readTree(ctx, r, log, c)
		if err != nil {
			return nil, err
		}
		logs = append(logs, below...)
	}
	return logs, nil
}

// sealBackup writes the manifest of a backup whose groups are all rolled up.
func sealBackup(ctx context.Context, r *repository.Repository, b vault.Backup, plan *vault.Plan, planObject vault.Object, now time.Time) (*vault.Manifest, error) {
	objects := make([]vault.Object, plan.Groups())
	proof := coverage.Prover{Plan: plan}
	var usage object.Usage
	for g := range objects {
		var group vault.Group
		var err error
		if objects[g], err = r.Read(ctx, b.Group(g), &group); err != nil {
			return nil, err
		}
		if err := proof.Add(&group); err != nil {
			return nil, err
		}
		usage.Add(group.Usage)
	}
	totals, count, err := proof.End()
	if err != nil {
		return nil, err
	}
	// It would be the newest for ever.
	if totals.Latest.After(now.Add(vault.ClocksApart)) {
		return nil, fmt.Errorf("%w: its parts say that they were read up to %s, which is still to come", vault.ErrCorrupt, totals.Latest.Format(time.RFC3339))
	}
	m := &vault.Manifest{
		Backup: b.ID, Table: b.Table, Kind: plan.Kind, State: vault.Sealed, Sealed: now.UTC(),
		Plan: &planObject, Groups: objects, Totals: totals, Segments: count,
		// Without the changes that came in during the scan, it is no instant's
		// image.
		Fuzzy: true, Parent: plan.Parent, Usage: usage,
	}
	if _, err := r.Win(ctx, b.Manifest(), m); err != nil {
		return nil, err
	}
	return m, nil
}

// another says why a backup that was read to its end is not one of the table that was
// planned: the table was dropped meanwhile, and another one made of its name, so that a
// part of it may be of each. Where the table is gone, nothing speaks against what was
// read; nor does it where nobody has answered for a day.
func (p *Planner) another(ctx context.Context, plan *vault.Plan) (string, error) {
	planned := plan.Definition.Identity
	def, err := p.Tables.Describe(ctx, plan.Table.Table)
	switch {
	case err != nil && !errors.Is(err, table.ErrNotExist) && p.Now().Sub(plan.Created) < askFor:
		return "", err
	case err != nil:
		p.Log.Warn("sealed without another look at the table", "backup", plan.Backup, "table", plan.Table.String(), "error", err)
	case def.Identity.Other(planned):
		return fmt.Sprintf("%s was dropped while it was read, and another table made of its name: that one is %s, the one that was planned %s; "+
			"the backup may have rows of both and is not sealed: give the command again with --new", plan.Table, def.Identity, planned), nil
	}
	return "", nil
}

// askFor is for how long a backup that was read waits for an answer about its table.
const askFor = 24 * time.Hour

// Void gives a backup up: after it, none can seal it. It returns the manifest that
// stands, which is another's if the backup was sealed before.
func (p *Planner) Void(ctx context.Context, b vault.Backup, reason string) (*vault.Manifest, error) {
	plan, _, err := p.Repo.Plan(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("give up backup %s: %w", b.ID, err)
	}
	m := &vault.Manifest{Backup: b.ID, Table: b.Table, Kind: plan.Kind, State: vault.Void, Reason: reason, Sealed: p.Now().UTC()}
	if _, err := p.Repo.Win(ctx, b.Manifest(), m); err != nil {
		return nil, fmt.Errorf("give up backup %s: %w", b.ID, err)
	}
	return m, nil
}
