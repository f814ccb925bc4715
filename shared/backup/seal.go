package backup

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// rollUp reads the logs of a group's segments and of all that they were split
// into, proves each of them, and asks the store for each object's size and
// checksum. It returns the segments that have not ended; if there are none, the
// group is complete.
func rollUp(ctx context.Context, r *repository.Repository, b vault.Backup, roots []vault.Segment, g int) (*vault.Group, []vault.Segment, error) {
	logs := make([][]*segmentLog, len(roots))
	work, wctx := errgroup.WithContext(ctx)
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
			if !l.ended {
				unfinished = append(unfinished, l.segment)
			}
			group.Segments = append(group.Segments, vault.SegmentLog{Segment: l.segment, Slots: l.slots})
		}
	}
	if len(unfinished) > 0 {
		return nil, unfinished, nil
	}
	work, wctx = errgroup.WithContext(ctx)
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

// tree reads the log of a segment and of all that it was split into.
func readTree(ctx context.Context, r *repository.Repository, log vault.Log, s vault.Segment) ([]*segmentLog, error) {
	l, err := readLog(ctx, r, log, s)
	if err != nil {
		return nil, err
	}
	logs := []*segmentLog{l}
	if l.split == nil {
		return logs, nil
	}
	for _, c := range l.split.Children {
		below, err := readTree(ctx, r, log, c)
		if err != nil {
			return nil, err
		}
		logs = append(logs, below...)
	}
	return logs, nil
}

// Prove proves that the groups of a plan hold the whole table: that the tree of
// segments covers the key space with no gap and no overlap, that each log
// chains to its end in every lane, and that the counts agree. It returns the
// totals and the number of segments.
func Prove(plan *vault.Plan, groups []*vault.Group) (vault.Totals, int, error) {
	p := prover{plan: plan}
	for _, g := range groups {
		if err := p.add(g); err != nil {
			return vault.Totals{}, 0, err
		}
	}
	return p.end()
}

// prover takes the groups one after the other, so that they need not all be in
// memory.
type prover struct {
	plan    *vault.Plan
	groups  int
	covered []table.Range
	totals  vault.Totals
	count   int
}

// add proves the next group.
func (p *prover) add(group *vault.Group) error {
	g := p.groups
	p.groups++
	if group.Group != g {
		return fmt.Errorf("%w: the roll-up of group %d stands at place %d", vault.ErrCorrupt, group.Group, g)
	}
	logs := map[vault.SegmentID]*segmentLog{}
	var sum vault.Totals
	for _, s := range group.Segments {
		l := newSegmentLog(s.Segment)
		for i := range s.Slots {
			if err := l.add(&s.Slots[i]); err != nil {
				return err
			}
			if part := s.Slots[i].Part; part != nil {
				sum.AddPart(part)
			}
		}
		if !l.ended {
			return fmt.Errorf("%w: segment %s has not ended", vault.ErrCorrupt, s.Segment.ID)
		}
		if logs[s.Segment.ID] != nil {
			return fmt.Errorf("%w: segment %s stands twice", vault.ErrCorrupt, s.Segment.ID)
		}
		logs[s.Segment.ID] = l
	}
	if sum != group.Totals {
		return fmt.Errorf("%w: the parts of group %d sum up to %+v, its roll-up says %+v", vault.ErrCorrupt, g, sum, group.Totals)
	}
	// The plan's segments, then whatever they say that they were split into,
	// must be exactly what is there.
	first := min(g*vault.GroupSize, len(p.plan.Segments))
	todo := p.plan.Segments[first:min(first+vault.GroupSize, len(p.plan.Segments))]
	seen := 0
	for len(todo) > 0 {
		s := todo[0]
		todo = todo[1:]
		l := logs[s.ID]
		if l == nil {
			return fmt.Errorf("%w: segment %s is missing from group %d", vault.ErrCorrupt, s.ID, g)
		}
		if !sameBounds(l.segment, s) {
			return fmt.Errorf("%w: segment %s has other bounds in its log than in the plan", vault.ErrCorrupt, s.ID)
		}
		seen++
		if _, _, child := cutLast(string(s.ID)); !child {
			p.covered = append(p.covered, s.Range())
		}
		if l.split != nil {
			todo = append(l.split.Children[:len(l.split.Children):len(l.split.Children)], todo...)
		}
	}
	if seen != len(logs) {
		return fmt.Errorf("%w: group %d has %d segments, %d are accounted for", vault.ErrCorrupt, g, len(logs), seen)
	}
	p.count += seen
	p.totals.Add(sum)
	return nil
}

// end proves that the groups are all.
func (p *prover) end() (vault.Totals, int, error) {
	if p.groups != p.plan.Groups() {
		return vault.Totals{}, 0, fmt.Errorf("%w: %d groups, the plan has %d", vault.ErrCorrupt, p.groups, p.plan.Groups())
	}
	if err := table.Covers(p.plan.Definition.Schema.Whole(), p.covered); err != nil {
		return vault.Totals{}, 0, fmt.Errorf("%w: the segments do not cover the table: %w", vault.ErrCorrupt, err)
	}
	return p.totals, p.count, nil
}

func sameBounds(a, b vault.Segment) bool {
	if len(a.Bounds) != len(b.Bounds) {
		return false
	}
	for i := range a.Bounds {
		if !a.Bounds[i].Equal(b.Bounds[i]) {
			return false
		}
	}
	return true
}

// seal writes the manifest of a backup whose groups are all rolled up.
func sealBackup(ctx context.Context, r *repository.Repository, b vault.Backup, plan *vault.Plan, planObject vault.Object, now time.Time) (*vault.Manifest, error) {
	objects := make([]vault.Object, plan.Groups())
	proof := prover{plan: plan}
	var usage vault.Usage
	for g := range objects {
		var group vault.Group
		var err error
		if objects[g], err = r.Read(ctx, b.Group(g), &group); err != nil {
			return nil, err
		}
		if err := proof.add(&group); err != nil {
			return nil, err
		}
		usage.Add(group.Usage)
	}
	totals, count, err := proof.end()
	if err != nil {
		return nil, err
	}
	m := &vault.Manifest{
		Backup: b.ID, Table: b.Table, Kind: plan.Kind, State: vault.Sealed, Sealed: now.UTC(),
		Plan: &planObject, Groups: objects, Totals: totals, Segments: count,
		// Without the changes that came in during the scan, it is no instant's
		// image.
		Fuzzy: true, Parent: plan.Parent, Usage: usage,
	}
	if _, err := r.Tell(ctx, b.Manifest(), m, &m.Usage); err != nil {
		return nil, err
	}
	return m, nil
}
