package restore

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/tablevault/tablevault/shared/compare"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/sealed"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/throttle"
	"github.com/tablevault/tablevault/shared/vault"
)

// Checker compares segments of restores with their tables.
type Checker struct {
	Repo *repository.Repository
	// Tables is the instance that the target is in.
	Tables table.Instance
	// Work goes on with the segments of a restore when time is up; nil leaves them to the
	// next look at the restore.
	Work fanout.Dispatcher
	Log  *slog.Logger
	// Memory bounds the pages in flight, in bytes; 0 means DefaultMemory.
	Memory int64
}

// CheckReply is what one invocation came to.
type CheckReply struct {
	Restore vault.RestoreID `json:"restore"`
	// Segment is the one that was compared last, Start the number of its start, Ended
	// counts those that the invocation compared.
	Segment vault.SegmentID `json:"segment"`
	Start   int             `json:"start"`
	Ended   int             `json:"ended"`
	// Verdict and Check are of all of them together, and of the command's segment if that
	// was compared before.
	Verdict vault.Verdict `json:"verdict"`
	Check   vault.Check   `json:"check"`
	// Pace is what held the last comparison back.
	Pace *vault.Pace `json:"pace,omitempty"`
	// Superseded says that another invocation compares the command's segment, Closed that
	// the restore was over before, and nothing was done.
	Superseded bool `json:"superseded,omitempty"`
	Closed     bool `json:"closed,omitempty"`
	// Continued says that time was up in the middle of the segment, and another
	// invocation goes on.
	Continued bool `json:"continued,omitempty"`
}

// Check compares one segment of a restore with the target, and writes down what it found.
// A worker that has time left for more goes on with others that nobody has begun.
func (c *Checker) Check(ctx context.Context, run fanout.Run, w fanout.Work) (CheckReply, error) {
	x := &check{
		checker: c, repo: c.Repo, run: run, again: run, command: w, restore: vault.Restore{ID: w.Restore},
		reads: throttle.ForReads(w.ReadUnits), told: map[string]bool{},
	}
	x.reply = CheckReply{Restore: w.Restore, Segment: w.Segment, Start: w.Start}
	err := x.all(ctx)
	return x.reply, err
}

// check is an invocation of a checker.
type check struct {
	checker *Checker
	repo    *repository.Repository
	run     fanout.Run
	// again is run with an earlier stop: a comparison that is begun late is cut short,
	// and the lanes that it has not come to the end of are read again.
	again    fanout.Run
	longest  time.Duration // that a segment took
	command  fanout.Work
	restore  vault.Restore
	plan     *vault.RestorePlan
	worker   fanout.Worker
	segments sealed.Segments
	reads    *throttle.Throttle
	comparer *compare.Comparer // nil before the first comparison
	// told are the objects that were read elsewhere and stand in a check.
	told  map[string]bool
	reply CheckReply
}

func (x *check) what(s vault.SegmentID) string {
	return fmt.Sprintf("verify segment %s of restore %s", s, x.restore.ID)
}

// all compares the segment of the command, and what it finds after it.
func (x *check) all(ctx context.Context) (err error) {
	if x.plan, err = x.repo.RestorePlan(ctx, x.command.Restore); err == nil {
		err = planned(x.plan, x.command.Segment)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", x.what(x.command.Segment), err)
	}
	x.segments = segmentsOf(x.repo, x.plan)
	x.worker = fanout.Worker{Log: fanout.NewLog(x.repo, x.restore.Verify()), Run: &x.again, To: x.checker.Work, Open: x.segment, What: x.what}
	x.worker.Planned, x.worker.Groups = plannedGroups(x.plan, func(vault.RestoreSegment) bool { return true })
	through, err := x.worker.Work(ctx, x.command)
	x.reply.Segment, x.reply.Start = x.worker.At.Segment, x.worker.At.Number
	x.reply.Superseded, x.reply.Closed = x.worker.Superseded, x.worker.Closed
	x.reply.Continued = x.worker.Over && !x.worker.Closed && x.checker.Work != nil
	if through {
		goesOn(ctx, x.repo, x.checker.Work, x.checker.Log, x.command, fanout.Comparing, x.restore.Checks(), len(x.plan.Segments))
	}
	return err
}

// segment is the comparison of a segment, for the worker to take its steps.
func (x *check) segment(_ context.Context, s vault.SegmentID) (fanout.Job, error) {
	return &segmentCheck{check: x, id: s, began: x.run.Now()}, nil
}

// newComparer compares with the restore's target, which has to be the table that the
// restore has made.
func (x *check) newComparer(ctx context.Context, backup *sealed.Backup) (*compare.Comparer, error) {
	made, err := x.repo.Made(ctx, x.restore.ID)
	if err != nil {
		return nil, err
	}
	def, err := x.checker.Tables.Describe(ctx, x.plan.Target.Table)
	if err != nil {
		return nil, fmt.Errorf("compare with %s: %w", x.plan.Target, err)
	}
	if made == nil {
		return nil, table.Invalidf("compare with %s: restore %s has not made it", x.plan.Target, x.restore.ID)
	}
	if err := stands(x.plan, made, def, true); err != nil {
		return nil, err
	}
	c, err := compare.New(backup.Plan.Definition.Schema, x.checker.Tables, def, x.checker.Memory, x.reads)
	if err == nil {
		c.TTL = max(0, x.plan.Definition.Options.TTL)
	}
	return c, err
}

// add adds to the reply what was found.
func (x *check) add(found vault.Check) {
	x.reply.Check.Add(found)
	x.reply.Verdict = x.reply.Check.Verdict()
}

// took takes into account how long a segment has taken.
func (x *check) took(d time.Duration) {
	x.longest = max(x.longest, d)
	if !x.run.Stop.IsZero() {
		x.again.Stop = x.run.Stop.Add(-2 * x.longest)
	}
}

// untold are the objects that were read elsewhere and stand in no check of this
// invocation's.
func (x *check) untold() (found []vault.Finding) {
	for _, f := range x.repo.Replaced() {
		if !x.told[f.Object] {
			x.told[f.Object] = true
			found = append(found, f)
		}
	}
	return found
}
