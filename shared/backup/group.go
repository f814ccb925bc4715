package backup

import (
	"context"
	"fmt"
	"path"
	"sync"
	"time"

	"github.com/tablevault/tablevault/shared/backup/coverage"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// groupLook is a look at one group, and what it found.
type groupLook struct {
	planner *Planner
	run     fanout.Run
	backup  vault.Backup
	plan    *vault.Plan
	rollUps *sync.Mutex // held by the one that rolls up
	number  int
	roots   []vault.Segment

	dispatch       fanout.Dispatch
	over           bool // rolled up
	segments, done int
	lagging        []lagging
}

// endMark says that a segment has ended: when, by the store's clock, and into how many it
// was split, 0 if its lanes have come to their ends.
type endMark struct {
	at       time.Time
	children int
}

// endMarks are the ended segments, as a list under a prefix shows them, which is that of
// one group or of all. A mark that stands elsewhere than a segment's own counts for
// nothing.
func endMarks(ctx context.Context, r *repository.Repository, log vault.Log, prefix string) (map[vault.SegmentID]endMark, error) {
	ends := map[vault.SegmentID]endMark{}
	for info, err := range r.Store().List(ctx, prefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list the ended segments %s: %w", prefix, err)
		}
		folder, base := path.Split(info.Name)
		if id, children, ok := vault.ParseDone(base); ok && folder == log.DoneIn(id.Group()) {
			ends[id] = endMark{info.Modified, children}
		}
	}
	return ends, nil
}

// look looks at the group, and rolls it up if it is complete.
func (l *groupLook) look(ctx context.Context) error {
	p := l.planner
	ends, err := endMarks(ctx, p.Repo, l.backup.Log(), l.backup.Log().DoneIn(l.number))
	if err != nil {
		return err
	}
	open := l.open(ends)
	if len(open) == 0 && (l.run.Stopping() || p.watching) {
		return nil // the next tick rolls it up
	}
	if len(open) == 0 {
		return l.rollUp(ctx)
	}
	if err := l.dispatch.Look(ctx, l.run, l.number, open); err != nil {
		return err
	}
	if err := l.splitsStand(ctx, ends); err != nil {
		return err
	}
	l.lag(ends)
	return l.dispatch.Paces(ctx, l.number, func(ctx context.Context, name string) (*vault.Pace, error) {
		var slot vault.Slot
		if _, err := p.Repo.Read(ctx, name, &slot); err != nil || slot.Part == nil {
			return nil, err
		}
		return slot.Part.Pace, nil
	})
}

// open counts the group's segments, those that were split off among them, and returns the
// ones that have not ended.
func (l *groupLook) open(ends map[vault.SegmentID]endMark) (open []vault.SegmentID) {
	var walk func(vault.SegmentID)
	walk = func(id vault.SegmentID) {
		l.segments++
		end, ended := ends[id]
		if !ended {
			open = append(open, id)
			return
		}
		l.done++
		for i := range end.children {
			walk(id.Child(i))
		}
	}
	for _, root := range l.roots {
		walk(root.ID)
	}
	return open
}

// rollUp writes the roll-up of a group whose segments are all marked as ended.
func (l *groupLook) rollUp(ctx context.Context) error {
	repo, name := l.planner.Repo, l.backup.Group(l.number)
	// The list of roll-ups may have been late, and a roll-up costs a read per record.
	over, err := repo.Exists(ctx, name)
	if err != nil || over {
		l.over = over
		return err
	}
	l.rollUps.Lock()
	defer l.rollUps.Unlock()
	group, unfinished, err := rollUp(ctx, repo, l.backup, l.roots, l.number)
	if err != nil {
		return err
	}
	if len(unfinished) > 0 {
		return fmt.Errorf("%w: segment %s is marked as ended, and its log has not", vault.ErrCorrupt, unfinished[0].ID)
	}
	_, err = repo.Win(ctx, name, group)
	l.over = err == nil
	return err
}

// childrenBegin is how long after a segment's split some child of it has begun, or the
// log is looked at: a worker that has split goes on with the first child at once.
const childrenBegin = 10 * time.Minute

// splitsStand holds marks of splits against the logs, where no child has begun long
// after: a mark that no log bears out names children that no worker finds, and the backup
// would wait for them for ever.
func (l *groupLook) splitsStand(ctx context.Context, ends map[vault.SegmentID]endMark) error {
	for id, end := range ends {
		if end.children == 0 || l.run.Now().Sub(end.at) < childrenBegin {
			continue
		}
		begun := false
		for i := range end.children {
			_, working := l.dispatch.Begun[id.Child(i)]
			_, ended := ends[id.Child(i)]
			begun = begun || working || ended
		}
		if begun {
			continue
		}
		s, err := coverage.FindSegment(ctx, l.planner.Repo, l.plan, l.backup.Log(), id)
		if err != nil {
			return err
		}
		log, err := coverage.ReadLog(ctx, l.planner.Repo, l.backup.Log(), s)
		if err != nil {
			return err
		}
		if log.Split == nil || len(log.Split.Children) != end.children {
			return fmt.Errorf("%w: segment %s is marked as split into %d, and its log is not", vault.ErrCorrupt, id, end.children)
		}
	}
	return nil
}
