package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"github.com/tablevault/tablevault/shared/compare"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/sealed"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/throttle"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/verify"
)

// Checker compares the segments of restores with their tables.
type Checker struct {
	Repo *repository.Repository
	// Tables is the instance that the target is in.
	Tables table.Instance
	// Work goes on with the segments of a restore when time is up; nil leaves them to
	// the next look at the restore.
	Work fanout.Dispatcher
	Log  *slog.Logger
	// Memory bounds the pages in flight, in bytes; 0 means DefaultMemory.
	Memory int64
}

// CheckReply is what one invocation came to.
type CheckReply struct {
	Restore vault.RestoreID `json:"restore"`
	// Segment is the one that was compared last, Start the number of its start,
	// Ended counts those that the invocation compared.
	Segment vault.SegmentID `json:"segment"`
	Start   int             `json:"start"`
	Ended   int             `json:"ended"`
	// Verdict and Check are of all of them together, and of the command's segment if
	// that was compared before.
	Verdict vault.Verdict `json:"verdict"`
	Check   vault.Check   `json:"check"`
	// Pace is what held the last comparison back.
	Pace *vault.Pace `json:"pace,omitempty"`
	// Superseded says that another invocation compares the command's segment, Closed
	// that the restore was over before, and nothing was done.
	Superseded bool `json:"superseded,omitempty"`
	Closed     bool `json:"closed,omitempty"`
	// Continued says that time was up in the middle of the segment, and another
	// invocation goes on.
	Continued bool `json:"continued,omitempty"`
}

// Check compares one segment of a restore with the target, and writes
// down what it found. A worker that has time left for more goes on with others
// that nobody has begun.
func (v *Checker) Check(ctx context.Context, run fanout.Run, w fanout.Work) (CheckReply, error) {
	x := &checking{
		Checker: v, run: run, again: run, restore: vault.Restore{ID: w.Restore}, reads: throttle.ForReads(w.ReadUnits), told: map[string]bool{},
	}
	x.reply = CheckReply{Restore: w.Restore, Segment: w.Segment, Start: w.Start}
	err := x.all(ctx, w)
	return x.reply, err
}

// checking is an invocation that compares segments of a restore.
type checking struct {
	*Checker
	run fanout.Run
	// again is run with an earlier stop: a comparison that is begun late is cut short,
	// and the lanes that it has not come to the end of are read again.
	again    fanout.Run
	longest  time.Duration // that a segment took
	restore  vault.Restore
	plan     *vault.RestorePlan
	worker   fanout.Worker
	segments sealed.Segments
	reads    *throttle.Throttle
	comparer *compare.Comparer
	// told are the objects that were read elsewhere and stand in a check.
	told  map[string]bool
	reply CheckReply
}

// errNoLane says that an invocation has come no further.
var errNoLane = errors.New("none of its ranges was read to its end")

func (x *checking) what(s vault.SegmentID) string {
	return fmt.Sprintf("verify segment %s of restore %s", s, x.restore.ID)
}

// all compares the segment of the command, and what it finds after it.
func (x *checking) all(ctx context.Context, w fanout.Work) (err error) {
	if x.plan, err = x.Repo.RestorePlan(ctx, w.Restore); err != nil {
		return fmt.Errorf("%s: %w", x.what(w.Segment), err)
	}
	if err := planned(x.plan, w.Segment); err != nil {
		return fmt.Errorf("%s: %w", x.what(w.Segment), err)
	}
	x.segments = segmentsOf(x.Repo, x.plan)
	x.worker = fanout.Worker{Log: fanout.NewLog(x.Repo, x.restore.Verify()), Run: &x.again, What: x.what}
	x.worker.Planned, x.worker.Groups = plannedGroups(x.plan, func(vault.RestoreSegment) bool { return true })
	if x.Work != nil {
		x.worker.Submit = func(ctx context.Context, s vault.SegmentID, start int) error {
			next := w
			next.Segment, next.Start = s, start
			return x.Work.Submit(ctx, next)
		}
	}
	if err := x.one(ctx, w.Segment, w.Start, false); err != nil {
		return err
	}
	if x.reply.Superseded && w.ReadUnits > 0 {
		return nil // one worker more would read beyond the restore's budget
	}
	err = x.worker.GoOn(ctx, w, x.one)
	if err == nil && !x.worker.Over {
		goesOn(ctx, x.Repo, x.Work, x.Log, w, fanout.Comparing, x.restore.Checks(), len(x.plan.Segments))
	}
	return err
}

// one compares a segment, whose start may be claimed already, and notes what goes
// wrong.
func (x *checking) one(ctx context.Context, s vault.SegmentID, start int, claimed bool) error {
	x.reply.Segment, x.reply.Start = s, start
	began := x.run.Now()
	comparing, cancel := x.run.InTime(ctx)
	defer cancel()
	if err := x.segment(ctx, comparing, s, start, claimed); err != nil {
		if errors.Is(err, errNoLane) || comparing.Err() != nil && ctx.Err() == nil {
			err = fmt.Errorf("the segment can't be compared in the function's time; give verify a longer timeout, or the restore a larger budget of read units: %w", err)
		}
		return fanout.NewLog(x.Repo, x.restore.Verify()).Fail(ctx, fanout.Start{Segment: s, Number: x.reply.Start}, x.run, fanout.Permanent(err), fmt.Errorf("%s: %w", x.what(s), err))
	}
	x.longest = max(x.longest, x.run.Now().Sub(began))
	if !x.run.Stop.IsZero() {
		x.again.Stop = x.run.Stop.Add(-2 * x.longest)
	}
	return nil
}

// segment compares a segment, or as many of its lanes as comparing, which ends before
// ctx, has time for.
func (x *checking) segment(ctx, comparing context.Context, s vault.SegmentID, start int, claimed bool) error {
	found := vault.SegmentCheck{Segment: s}
	_, err := x.Repo.Read(ctx, x.restore.Check(s), &found)
	if err == nil {
		x.add(found.Check)
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var before vault.Compared
	slots := 0
	if !claimed {
		if before, slots, err = x.before(ctx, s); err != nil {
			return err
		}
		b, err := x.worker.Begin(ctx, s, start, slots)
		x.reply.Start, x.reply.Superseded = b.Start, b.Superseded
		if err != nil || b.Superseded {
			return err
		}
	}
	closed, err := x.Repo.Closed(ctx, x.plan.Restore)
	if err != nil || closed != nil {
		x.reply.Closed, x.worker.Over = closed != nil, closed != nil
		return err
	}
	segment, err := x.segments.Of(ctx, s)
	if err != nil {
		return err
	}
	found = vault.SegmentCheck{Segment: s}
	loaded, err := verify.ReadLoading(ctx, x.Repo, x.restore, s, &found.Check)
	if err != nil {
		return err
	}
	found.Usage = loaded.Usage
	if found.Settled, err = x.settled(ctx, segment, loaded); err != nil {
		return err
	}
	if x.comparer == nil {
		if x.comparer, err = x.newComparer(ctx, segment.Backup); err != nil {
			return err
		}
	}
	c := &compare.Comparison{Segment: segment, Quarantined: loaded.Quarantined, Run: x.run, Before: map[int]bool{}}
	for _, lane := range before.Compared {
		if lanes := len(segment.Lanes()); lane >= lanes {
			return fmt.Errorf("%s: %w: lane %d is compared, and there are %d", x.restore.Verify().Slots(s), vault.ErrCorrupt, lane, lanes)
		}
		c.Before[lane] = true
	}
	tell := fanout.NewTeller(ctx, x.Repo, x.run, x.restore.Verify().Progress(s), x.reply.Start, before.Check.Target, 0)
	defer tell.End()
	if err := verify.Segment(tell.With(comparing), verify.DepthRows, x.comparer, c, &found.Check); err != nil {
		return err
	}
	if c.Cut {
		return x.handOver(ctx, s, slots, c)
	}
	found.Check.Add(before.Check)
	found.Usage.Add(before.Usage)
	// Among what was read elsewhere are documents too. The comparison has proved
	// what was read: where it is gone from here, it is put back.
	x.Repo.Heal(ctx, segment.Backup.ID)
	found.Check.Replaced = nil
	found.Check.Replace(x.untold())
	found.Pace = x.reads.Take()
	x.reply.Pace = found.Pace
	found.At = x.run.Now().UTC()
	if _, err := x.Repo.Win(ctx, x.restore.Check(s), &found); err != nil {
		return err
	}
	x.add(found.Check)
	x.reply.Ended++
	return nil
}

// newComparer compares with the restore's target, which has to be the table that the
// restore has made.
func (x *checking) newComparer(ctx context.Context, backup *sealed.Backup) (*compare.Comparer, error) {
	made, err := x.Repo.Made(ctx, x.restore.ID)
	if err != nil {
		return nil, err
	}
	def, err := x.Tables.Describe(ctx, x.plan.Target.Table)
	if err != nil {
		return nil, fmt.Errorf("compare with %s: %w", x.plan.Target, err)
	}
	if made == nil {
		return nil, table.Invalidf("compare with %s: restore %s has not made it", x.plan.Target, x.restore.ID)
	}
	if err := stands(x.plan, made, def, true); err != nil {
		return nil, err
	}
	c, err := compare.New(backup.Plan.Definition.Schema, x.Tables, def, x.Memory, x.reads)
	if err == nil {
		c.TTL = max(0, x.plan.Definition.Options.TTL)
	}
	return c, err
}

// before sums up what earlier starts have compared of a segment, and counts the entries
// of its log.
func (x *checking) before(ctx context.Context, s vault.SegmentID) (sum vault.Compared, slots int, err error) {
	for ; ; slots++ {
		var entry vault.Compared
		_, err := x.Repo.Read(ctx, x.restore.Verify().Slot(s, slots), &entry)
		if errors.Is(err, fs.ErrNotExist) {
			return sum, slots, nil
		}
		if err != nil {
			return sum, slots, err
		}
		if len(entry.Compared) == 0 || slices.ContainsFunc(entry.Compared, func(lane int) bool { return slices.Contains(sum.Compared, lane) }) {
			return sum, slots, fmt.Errorf("read %s: %w: it compares lanes %v, compared before it are %v", x.restore.Verify().Slot(s, slots), vault.ErrCorrupt, entry.Compared, sum.Compared)
		}
		sum.Compared = append(sum.Compared, entry.Compared...)
		sum.Check.Add(entry.Check)
		sum.Usage.Add(entry.Usage)
	}
}

// handOver writes down what was compared of a segment before time was up, and lets
// another invocation go on, or the next look at the restore where none can be called.
// If another start was faster, its word stands.
func (x *checking) handOver(ctx context.Context, s vault.SegmentID, slot int, c *compare.Comparison) error {
	x.worker.Over = true
	if len(c.Done) == 0 {
		return errNoLane
	}
	entry := &vault.Compared{Segment: s, Slot: slot, Start: x.reply.Start, Compared: c.Done, Check: c.Rows, Pace: x.reads.Take()}
	x.reply.Pace = entry.Pace
	x.add(entry.Check)
	if _, err := x.Repo.Win(ctx, x.restore.Verify().Slot(s, slot), entry); err != nil {
		return err
	}
	if x.worker.Submit == nil {
		return nil
	}
	x.reply.Continued = true
	return x.worker.HandOver(ctx, s, x.reply.Start)
}

func (x *checking) add(check vault.Check) {
	x.reply.Check.Add(check)
	x.reply.Verdict = x.reply.Check.Verdict()
}

// untold are the objects that were read elsewhere and stand in no check of this
// invocation's.
func (x *checking) untold() (found []vault.Finding) {
	for _, f := range x.Repo.Replaced() {
		if !x.told[f.Object] {
			x.told[f.Object] = true
			found = append(found, f)
		}
	}
	return found
}

// settled says whether nobody writes the rows of a segment any more, the log of whose
// loading was read: see records.working. It is looked at before the rows are compared.
func (x *checking) settled(ctx context.Context, segment *sealed.Segment, loaded verify.Loading) (bool, error) {
	if !loaded.Ended {
		// Of a segment without rows, nothing is loaded.
		return !slices.ContainsFunc(segment.Parts(), func(s vault.Slot) bool { return s.Part.Rows > 0 }), nil
	}
	working, err := fanout.NewLog(x.Repo, x.restore.Log()).MayWork(ctx, segment.ID(), x.run, 0)
	return working == "", err
}
