package restore

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// How a restore that is loaded is compared, and how it is known that nobody writes
// any more.
//
// A start that noted itself before the closing record stood may not have seen it, so
// that closing waits until each of those has ended. One that comes later notes itself
// first, then looks, and sees it. That would be a look at each start of each segment
// at once; but most of them can be looked at before. A start writes rows only if,
// after it has noted itself, it has seen that the slot it works for is free. Once a
// segment's log has ended, no slot is; so whoever looks at its starts after that sees
// each that may write, and if they have all ended, nobody writes this segment's rows
// again: it is settled. The workers that compare look at this, each for its segment,
// and roll-ups of their checks say which segments are not settled. Closing looks at
// those alone.

// groupsInFlight is how many groups of a restore are rolled up at a time, each with
// checksInFlight reads.
const (
	groupsInFlight = 4
	checksInFlight = repository.StatsInFlight
)

// loadingAtWork says which start of the restore's loading may still be at work, as far as
// lists tell, empty if none.
func (r records) loadingAtWork(ctx context.Context, run fanout.Run) (string, error) {
	groups := byGroup(r.plan, func(s vault.RestoreSegment) bool { return s.Rows > 0 })
	return first(ctx, fanout.LooksInFlight, groups, func(ctx context.Context, segments []vault.SegmentID) (string, error) {
		at, err := fanout.NewLog(r.repo, r.id().Log()).AtWork(ctx, segments[0].Group(), run)
		return waits(at), err
	})
}

// waits says of a start that may still write what comes of the wait, empty if there is
// none.
func waits(start string) string {
	if start == "" {
		return ""
	}
	return "it waits: " + start + "; after that the planner's timer goes on with it, and so does the same command if it is given again"
}

// working says which start of some segments of a restore may still write, empty if none.
// It goes by names, of which none is missed.
func (r records) working(ctx context.Context, run fanout.Run, segments []vault.SegmentID) (string, error) {
	return first(ctx, repository.StatsInFlight, segments, func(ctx context.Context, s vault.SegmentID) (string, error) {
		at, err := fanout.NewLog(r.repo, r.id().Log()).MayWork(ctx, s, run)
		return waits(at), err
	})
}

// unsettled are the segments of a restore, at whatever point it ended, of which it is not
// known that nobody writes them any more.
func (r records) unsettled(ctx context.Context) (segments []vault.SegmentID, err error) {
	rolled, err := r.rolledUp(ctx)
	if err != nil {
		return nil, err
	}
	for g := range rolled {
		var group vault.CheckedGroup
		if _, err := r.repo.Read(ctx, r.id().Group(g), &group); err != nil {
			return nil, err
		}
		segments = append(segments, group.Unsettled...)
	}
	for _, s := range r.plan.Segments {
		if s.Rows > 0 && !rolled[s.Group] {
			segments = append(segments, s.ID)
		}
	}
	return segments, nil
}

// first asks about each item, some at a time, and returns the first answer that is not
// empty.
func first[T any](ctx context.Context, atATime int, items []T, ask func(context.Context, T) (string, error)) (string, error) {
	answers := make([]string, len(items))
	group, gctx := guard.WithContext(ctx)
	group.SetLimit(atATime)
	for k, item := range items {
		group.Go(func() (err error) {
			answers[k], err = ask(gctx, item)
			return err
		})
	}
	err := group.Wait()
	for _, answer := range answers {
		if answer != "" {
			return answer, err
		}
	}
	return "", err
}

// rolledUp are the groups that a list shows as rolled up.
func (r records) rolledUp(ctx context.Context) (map[int]bool, error) {
	rolled := map[int]bool{}
	for info, err := range r.repo.Store().List(ctx, r.id().Groups(), "") {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", r.id().Groups(), err)
		}
		if g, err := strconv.Atoi(strings.TrimSuffix(path.Base(info.Name), ".json")); err == nil {
			rolled[g] = true
		}
	}
	return rolled, nil
}

// rollUp gathers the checks of groups whose segments are all compared, several groups at
// a time, until run says stop. It returns how many are left.
func (r records) rollUp(ctx context.Context, run fanout.Run, groups [][]vault.SegmentID) (left int, err error) {
	work, wctx := guard.WithContext(ctx)
	work.SetLimit(groupsInFlight)
	for k, segments := range groups {
		if run.Stopping() {
			left = len(groups) - k
			break
		}
		work.Go(func() error {
			group := &vault.CheckedGroup{Group: segments[0].Group()}
			// Not all checks at once: each may list a thousand differences.
			for some := range slices.Chunk(segments, checksInFlight) {
				checks := make([]vault.SegmentCheck, len(some))
				if err := r.readAll(wctx, len(some), func(k int) (string, vault.Document) { return r.id().Check(some[k]), &checks[k] }); err != nil {
					return err
				}
				for k := range checks {
					group.Add(&checks[k])
				}
			}
			_, err := r.repo.Win(wctx, r.id().Group(group.Group), group)
			return err
		})
	}
	return left, work.Wait()
}

// found adds up the roll-ups of all groups.
func (r records) found(ctx context.Context, groups [][]vault.SegmentID) (*vault.CheckedGroup, error) {
	all := new(vault.CheckedGroup)
	for some := range slices.Chunk(groups, checksInFlight) {
		read := make([]vault.CheckedGroup, len(some))
		if err := r.readAll(ctx, len(some), func(k int) (string, vault.Document) { return r.id().Group(some[k][0].Group()), &read[k] }); err != nil {
			return nil, err
		}
		for k := range read {
			all.Check.Add(read[k].Check)
			all.Usage.Add(read[k].Usage)
			if read[k].Latest.After(all.Latest) {
				all.Latest = read[k].Latest
			}
			all.Unsettled = append(all.Unsettled, read[k].Unsettled...)
		}
	}
	return all, nil
}

// readAll reads n documents side by side.
func (r records) readAll(ctx context.Context, n int, of func(k int) (name string, d vault.Document)) error {
	group, gctx := guard.WithContext(ctx)
	for k := range n {
		group.Go(func() error {
			name, d := of(k)
			_, err := r.repo.Read(gctx, name, d)
			return err
		})
	}
	return group.Wait()
}

// comparing says what held those back who have compared the last n segments, for those at
// work, who tell nothing before they come to an end or their time is up.
func (r records) comparing(ctx context.Context, done map[vault.SegmentID]time.Time, n int) (pace *fanout.Pace, err error) {
	last := slices.SortedFunc(maps.Keys(done), func(a, b vault.SegmentID) int {
		return cmp.Or(done[b].Compare(done[a]), cmp.Compare(a, b))
	})
	for _, s := range last[:min(n, len(last))] {
		var check vault.SegmentCheck
		if _, err := r.repo.Read(ctx, r.id().Check(s), &check); err != nil {
			return nil, err
		}
		pace = pace.Of(check.Pace)
	}
	return pace, nil
}
