package coverage

import (
	"fmt"

	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// Prove proves that the groups of a plan hold the whole table: that the tree of segments
// covers the key space with no gap and no overlap, that each log chains to its end in
// every lane, and that the counts agree. It returns the totals and the number of
// segments.
func Prove(plan *vault.Plan, groups []*vault.Group) (vault.Totals, int, error) {
	p := Prover{Plan: plan}
	for _, g := range groups {
		if err := p.Add(g); err != nil {
			return vault.Totals{}, 0, err
		}
	}
	return p.End()
}

// Prover takes the groups one after the other, so that they need not all be in memory.
type Prover struct {
	Plan    *vault.Plan
	groups  int
	covered []table.Range
	totals  vault.Totals
	count   int
}

// own proves that the objects of a part are called as those of its backup's segment are.
// Another backup's would go with that one.
func own(b vault.Backup, s *vault.Slot) error {
	p := s.Part
	if of, segment, ok := vault.ParseShard(p.Shard.Name); !ok || of != b || segment != s.Segment || p.Index.Name != vault.Index(p.Shard.Name) {
		return fmt.Errorf("%w: slot %d of segment %s of backup %s names %q and %q, which are not objects of its own",
			vault.ErrCorrupt, s.Slot, s.Segment, b.ID, p.Shard.Name, p.Index.Name)
	}
	return nil
}

// Add proves the next group.
func (p *Prover) Add(group *vault.Group) error {
	g := p.groups
	p.groups++
	if group.Group != g {
		return fmt.Errorf("%w: the roll-up of group %d stands at place %d", vault.ErrCorrupt, group.Group, g)
	}
	logs, sum, err := p.replay(group)
	if err != nil {
		return err
	}
	if sum != group.Totals {
		return fmt.Errorf("%w: the parts of group %d sum up to %+v, its roll-up says %+v", vault.ErrCorrupt, g, sum, group.Totals)
	}
	if err := p.account(g, logs); err != nil {
		return err
	}
	p.count += len(logs)
	if p.totals.Add(sum); p.totals.Overflow() {
		return fmt.Errorf("%w: the parts of %d groups sum up to more than there can be", vault.ErrCorrupt, p.groups)
	}
	return nil
}

// replay proves the logs of a group one by one, and sums up their parts.
func (p *Prover) replay(group *vault.Group) (logs map[vault.SegmentID]*SegmentLog, sum vault.Totals, err error) {
	logs = map[vault.SegmentID]*SegmentLog{}
	for _, s := range group.Segments {
		l := NewSegmentLog(s.Segment)
		for i := range s.Slots {
			if err := l.Add(&s.Slots[i]); err != nil {
				return nil, sum, err
			}
			if part := s.Slots[i].Part; part != nil {
				if err := own(vault.Backup{Table: p.Plan.Table, ID: p.Plan.Backup}, &s.Slots[i]); err != nil {
					return nil, sum, err
				}
				if sum.AddPart(part); sum.Overflow() {
					return nil, sum, fmt.Errorf("%w: the parts of group %d sum up to more than there can be", vault.ErrCorrupt, group.Group)
				}
			}
		}
		if !l.Ended {
			return nil, sum, fmt.Errorf("%w: segment %s has not ended", vault.ErrCorrupt, s.Segment.ID)
		}
		if logs[s.Segment.ID] != nil {
			return nil, sum, fmt.Errorf("%w: segment %s stands twice", vault.ErrCorrupt, s.Segment.ID)
		}
		logs[s.Segment.ID] = l
	}
	return logs, sum, nil
}

// account proves that the plan's segments of a group, and whatever they say that they
// were split into, are exactly what is there.
func (p *Prover) account(g int, logs map[vault.SegmentID]*SegmentLog) error {
	first := min(g*vault.GroupSize, len(p.Plan.Segments))
	todo := p.Plan.Segments[first:min(first+vault.GroupSize, len(p.Plan.Segments))]
	seen := 0
	for len(todo) > 0 {
		s := todo[0]
		todo = todo[1:]
		l := logs[s.ID]
		if l == nil {
			return fmt.Errorf("%w: segment %s is missing from group %d", vault.ErrCorrupt, s.ID, g)
		}
		if !sameBounds(l.Segment, s) {
			return fmt.Errorf("%w: segment %s has other bounds in its log than in the plan", vault.ErrCorrupt, s.ID)
		}
		seen++
		if s.ID.Generation() == 0 {
			p.covered = append(p.covered, s.Range())
		}
		if l.Split != nil {
			todo = append(l.Split.Children[:len(l.Split.Children):len(l.Split.Children)], todo...)
		}
	}
	if seen != len(logs) {
		return fmt.Errorf("%w: group %d has %d segments, %d are accounted for", vault.ErrCorrupt, g, len(logs), seen)
	}
	return nil
}

// End proves that the groups are all.
func (p *Prover) End() (vault.Totals, int, error) {
	if p.groups != p.Plan.Groups() {
		return vault.Totals{}, 0, fmt.Errorf("%w: %d groups, the plan has %d", vault.ErrCorrupt, p.groups, p.Plan.Groups())
	}
	if err := table.Covers(p.Plan.Definition.Schema.Whole(), p.covered); err != nil {
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
