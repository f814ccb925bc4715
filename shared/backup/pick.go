package backup

import (
	"context"
	"math/rand/v2"

	"github.com/tablevault/tablevault/shared/vault"
)

// picker finds another segment for a worker that is done with its own.
type picker struct {
	// next is what the worker has claimed, children all that its segment was split
	// into.
	next     *vault.Segment
	children []vault.Segment
	// begun are the segments, by id, that somebody has begun; groups those in
	// which everything has been.
	begun  map[vault.SegmentID]bool
	groups map[int]bool
}

// The bounds of a search: a finished segment costs a list over its own group, and
// as many more where that has nothing left.
const (
	pickGroups = 4
	pickTries  = 4
)

// pick finds a segment that nobody has begun, and notes that this worker has. It
// returns nil if there is none, if somebody else goes on with what this worker
// did, or if time is up; then it has the segment dispatched.
func (x *export) pick(ctx context.Context, last vault.Segment) (*vault.Segment, error) {
	p := &x.picker
	if x.reply.Continued || len(x.plan.Segments) == 1 && len(p.children) == 0 {
		return nil, nil
	}
	if p.begun == nil {
		p.begun, p.groups = map[vault.SegmentID]bool{}, map[int]bool{}
	}
	if next := p.next; next != nil {
		p.next = nil
		return next, nil
	}
	p.begun[last.ID] = true
	first, groups := last.ID.Group(), x.plan.Groups()
	for i := range min(pickGroups, groups) {
		g := (first + i) % groups
		if p.groups[g] {
			continue
		}
		starts, err := x.Repo.notes(ctx, string(x.backup.Log())+"starts/", g)
		if err != nil {
			return nil, err
		}
		for id := range starts {
			p.begun[id] = true
		}
		var free []vault.Segment
		roots := x.plan.Segments[g*vault.GroupSize : min((g+1)*vault.GroupSize, len(x.plan.Segments))]
		for _, from := range [][]vault.Segment{p.children, roots} {
			for _, s := range from {
				if s.ID.Group() == g && !p.begun[s.ID] {
					free = append(free, s)
				}
			}
			if len(free) > 0 {
				break // what was split off first: it is what the backup waits for
			}
		}
		if len(free) == 0 {
			p.groups[g] = true
			continue
		}
		// Others that are done at the same time look at the same list.
		rand.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
		for _, s := range free[:min(pickTries, len(free))] {
			if x.run.stopping() {
				x.reply.Continued = true
				return nil, x.submit(ctx, s.ID, 0)
			}
			mine, err := x.Repo.claim(ctx, x.backup.Log(), vault.Note{Segment: s.ID}, x.run)
			if err != nil {
				return nil, err
			}
			if mine {
				return &s, nil
			}
			p.begun[s.ID] = true
		}
	}
	return nil, nil
}
