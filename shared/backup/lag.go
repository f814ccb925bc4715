package backup

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/vault"
)

// The planner's idea of a segment that lags behind.
const (
	// DefaultSlow is the least age of a segment that is asked to split: below it,
	// splitting costs more than it brings.
	DefaultSlow = time.Minute
	// lagFactor is how many times as long as the median of its ended siblings it has been
	// at work.
	lagFactor = 1.5
	// maxSplit is how many segments one is split into, maxGenerations how often what came
	// from a split is split again.
	maxSplit       = 16
	maxGenerations = 8
)

type lagging struct {
	segment vault.SegmentID
	age     time.Duration
}

// lag finds the live segments that are far slower than their siblings were, once half of
// the group has ended. Ages are by the store's dates as far as they go.
func (l *groupLook) lag(ends map[vault.SegmentID]endMark) {
	if 2*l.done < l.segments && l.segments > 1 {
		return
	}
	var took []time.Duration
	for id, end := range ends {
		if first, ok := l.dispatch.Begun[id]; ok {
			took = append(took, end.at.Sub(first))
		}
	}
	limit := cmp.Or(l.planner.Slow, DefaultSlow)
	if len(took) > 0 {
		slices.Sort(took)
		limit = max(limit, time.Duration(lagFactor*float64(took[len(took)/2])))
	}
	for _, at := range l.dispatch.Working {
		if age := l.run.Now().Sub(l.dispatch.Begun[at.Segment]); age >= limit && at.Segment.Generation() < maxGenerations {
			l.lagging = append(l.lagging, lagging{at.Segment, age})
		}
	}
}

// Ask asks the workers of segments that lag behind to split them, if everything else has
// a worker and n could be started beside those that live. It returns for how many of them
// it found work.
func (p *Planner) Ask(ctx context.Context, run fanout.Run, s *Survey, n int) (used int, err error) {
	n = s.room(n)
	if len(s.Ready) > 0 {
		return 0, nil
	}
	for i, lag := range s.lagging {
		left := n - used
		if left == 0 {
			break
		}
		share := max(1, left/(len(s.lagging)-i))
		a := vault.Ask{Segment: lag.segment, Children: min(share, maxSplit-1) + 1, At: run.Now().UTC()}
		mine, err := p.Repo.Win(ctx, s.Backup.Log().Ask(lag.segment), &a)
		if err != nil {
			return used, fmt.Errorf("backup %s of %s: ask for a split of segment %s: %w", s.Backup.ID, s.Backup.Table, lag.segment, err)
		}
		if mine {
			p.Log.Info("asked to split", "backup", s.Backup.ID, "segment", lag.segment, "age", lag.age, "children", a.Children)
			s.Progress.Asked++
			used += a.Children - 1
		}
	}
	return used, nil
}
