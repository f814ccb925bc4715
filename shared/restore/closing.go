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

// verify dispatches the segments that are not compared and that nobody works on, and
// rolls up the groups of which all are. It returns what was found in all segments
// together, nil while that is open.
func (i *Importer) verify(ctx context.Context, run fanout.Run, r vault.Restore, p *vault.RestorePlan, progress *Progress) (*vault.CheckedGroup, error) {
	progress.State, progress.Loaded, progress.LoadedRows = StateVerifying, len(p.Segments), progress.Rows
	rolled, err := i.rolledUp(ctx, r)
	if err != nil {
		return nil, err
	}
	groups := byGroup(p, func(vault.RestoreSegment) bool { return true })
	done := map[vault.SegmentID]time.Time{}
	if len(rolled) < len(groups) {
		if done, err = i.reported(ctx, r.Checks()); err != nil {
			return nil, err
		}
	}
	if len(done)+len(rolled) == 0 {
		// What is compared has no writer any more. Whether that is so for good, whoever
		// compares a segment finds out.
		if progress.Waiting, err = i.loadingAtWork(ctx, run, r, p); err != nil || progress.Waiting != "" {
			return nil, err
		}
	}
	var complete [][]vault.SegmentID // and not rolled up
	open, checked, _ := splitEnded(p, func(s vault.RestoreSegment) bool {
		_, compared := done[s.ID]
		return compared || rolled[s.Group]
	})
	progress.Checked = checked
	unfinished := map[int]bool{}
	for _, segments := range open {
		unfinished[segments[0].Group()] = true
	}
	for _, segments := range groups {
		if g := segments[0].Group(); !rolled[g] && !unfinished[g] {
			complete = append(complete, segments)
		}
	}
	if len(open) > 0 {
		err := i.dispatch(ctx, run, r.Verify(), open, p.Comparers, comparingPace(i.Repo), func(s vault.SegmentID, start int) fanout.Work {
			return fanout.Work{Verb: fanout.VerbVerify, Table: p.Source, Backup: p.Backup, Restore: p.Restore, Segment: s, Start: start, ReadUnits: p.CompareShare(), Request: i.Request}
		}, progress)
		if err == nil && progress.Pace == nil && progress.Live > 0 {
			progress.Pace, err = i.comparing(ctx, r, done, progress.Live)
		}
		if err != nil {
			return nil, err
		}
	}
	left, err := i.rollUp(ctx, run, r, complete)
	if err != nil || len(open) > 0 {
		return nil, err
	}
	if left > 0 {
		progress.Waiting = fmt.Sprintf("time was up with %d groups of checks to gather: the next look goes on", left)
		return nil, nil
	}
	return i.found(ctx, r, groups)
}

// loadingAtWork says which start of the restore's loading may still be at work, as
// far as lists tell, empty if none.
func (i *Importer) loadingAtWork(ctx context.Context, run fanout.Run, r vault.Restore, p *vault.RestorePlan) (string, error) {
	groups := byGroup(p, func(s vault.RestoreSegment) bool { return s.Rows > 0 })
	return first(ctx, fanout.LooksInFlight, groups, func(ctx context.Context, segments []vault.SegmentID) (string, error) {
		at, err := fanout.NewLog(i.Repo, r.Log()).AtWork(ctx, segments[0].Group(), run, i.Stale)
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

// working says which start of some segments of a restore may still write, empty if
// none. It goes by names, of which none is missed.
func (i *Importer) working(ctx context.Context, run fanout.Run, r vault.Restore, segments []vault.SegmentID) (string, error) {
	return first(ctx, repository.StatsInFlight, segments, func(ctx context.Context, s vault.SegmentID) (string, error) {
		at, err := fanout.NewLog(i.Repo, r.Log()).MayWork(ctx, s, run, i.Stale)
		return waits(at), err
	})
}

// unsettled are the segments of a restore, at whatever point it ended, of which it is
// not known that nobody writes them any more.
func (i *Importer) unsettled(ctx context.Context, p *vault.RestorePlan) (segments []vault.SegmentID, err error) {
	r := vault.Restore{ID: p.Restore}
	rolled, err := i.rolledUp(ctx, r)
	if err != nil {
		return nil, err
	}
	for g := range rolled {
		var group vault.CheckedGroup
		if _, err := i.Repo.Read(ctx, r.Group(g), &group); err != nil {
			return nil, err
		}
		segments = append(segments, group.Unsettled...)
	}
	for _, s := range p.Segments {
		if s.Rows > 0 && !rolled[s.Group] {
			segments = append(segments, s.ID)
		}
	}
	return segments, nil
}

// first asks about each item, some at a time, and returns the first answer that is
// not empty.
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
func (i *Importer) rolledUp(ctx context.Context, r vault.Restore) (map[int]bool, error) {
	rolled := map[int]bool{}
	for info, err := range i.Repo.Store().List(ctx, r.Groups(), "") {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", r.Groups(), err)
		}
		if g, err := strconv.Atoi(strings.TrimSuffix(path.Base(info.Name), ".json")); err == nil {
			rolled[g] = true
		}
	}
	return rolled, nil
}

// rollUp gathers the checks of groups whose segments are all compared, several groups
// at a time, until run says stop. It returns how many are left.
func (i *Importer) rollUp(ctx context.Context, run fanout.Run, r vault.Restore, groups [][]vault.SegmentID) (left int, err error) {
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
				if err := i.readAll(wctx, len(some), func(k int) (string, vault.Document) { return r.Check(some[k]), &checks[k] }); err != nil {
					return err
				}
				for k := range checks {
					group.Add(&checks[k])
				}
			}
			_, err := i.Repo.Win(wctx, r.Group(group.Group), group)
			return err
		})
	}
	return left, work.Wait()
}

// found adds up the roll-ups of all groups.
func (i *Importer) found(ctx context.Context, r vault.Restore, groups [][]vault.SegmentID) (*vault.CheckedGroup, error) {
	all := new(vault.CheckedGroup)
	for some := range slices.Chunk(groups, checksInFlight) {
		read := make([]vault.CheckedGroup, len(some))
		if err := i.readAll(ctx, len(some), func(k int) (string, vault.Document) { return r.Group(some[k][0].Group()), &read[k] }); err != nil {
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
func (i *Importer) readAll(ctx context.Context, n int, of func(k int) (name string, d vault.Document)) error {
	group, gctx := guard.WithContext(ctx)
	for k := range n {
		group.Go(func() error {
			name, d := of(k)
			_, err := i.Repo.Read(gctx, name, d)
			return err
		})
	}
	return group.Wait()
}

// comparing says what held those back who have compared the last n segments, for
// those at work, who tell nothing before they come to an end or their time is up.
func (i *Importer) comparing(ctx context.Context, r vault.Restore, done map[vault.SegmentID]time.Time, n int) (pace *fanout.Pace, err error) {
	last := slices.SortedFunc(maps.Keys(done), func(a, b vault.SegmentID) int {
		return cmp.Or(done[b].Compare(done[a]), cmp.Compare(a, b))
	})
	for _, s := range last[:min(n, len(last))] {
		var check vault.SegmentCheck
		if _, err := i.Repo.Read(ctx, r.Check(s), &check); err != nil {
			return nil, err
		}
		pace = pace.Of(check.Pace)
	}
	return pace, nil
}
