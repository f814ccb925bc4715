package restore

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/sealed"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/throttle"
	"github.com/tablevault/tablevault/shared/vault"
)

// Loader writes segments of backups into the tables of their restores.
type Loader struct {
	Repo *repository.Repository
	// Tables is the instance that the target is in.
	Tables table.Instance
	Work   fanout.Dispatcher
	Log    *slog.Logger
	// Memory bounds the rows in flight, in bytes; 0 means DefaultMemory.
	Memory int64
}

// LoadReply is what one invocation came to.
type LoadReply struct {
	Restore vault.RestoreID `json:"restore"`
	// Segment is the one that was worked on last, Start the number of its start, Ended
	// counts those that the invocation brought to their ends.
	Segment vault.SegmentID `json:"segment"`
	Start   int             `json:"start"`
	Ended   int             `json:"ended"`
	// Rows were written, Quarantined refused for good.
	Rows        int64 `json:"rows"`
	Bytes       int64 `json:"bytes"`
	Quarantined int64 `json:"quarantined"`
	WriteUnits  int64 `json:"write_units"`
	// Pace is what held the last entry back.
	Pace *vault.Pace `json:"pace,omitempty"`
	// Done says that the last segment is loaded, Continued that another invocation goes
	// on, Superseded that another one already does, Closed that the restore is over and
	// nothing was written after that.
	Done       bool `json:"done"`
	Continued  bool `json:"continued,omitempty"`
	Superseded bool `json:"superseded,omitempty"`
	Closed     bool `json:"closed,omitempty"`
	// Replaced are the objects that were damaged or gone in the vault, and were read from
	// another one.
	Replaced []vault.Finding `json:"replaced,omitempty"`
}

// Load writes one segment of a backup into the target until it is loaded, or until run
// says stop; then it hands over to the next start. A part of the work is done when its
// slot exists; rows that were written without one are written again by whoever goes on,
// to the same effect.
//
// Like an export, a worker that is done with its segment goes on with others that nobody
// has begun, for as long as there is time and the restore is open.
func (l *Loader) Load(ctx context.Context, run fanout.Run, w fanout.Work) (LoadReply, error) {
	x := &load{loader: l, repo: l.Repo, run: run, command: w, restore: vault.Restore{ID: w.Restore}}
	x.reply = LoadReply{Restore: w.Restore, Segment: w.Segment, Start: w.Start}
	err := x.all(ctx)
	x.reply.Replaced = l.Repo.Replaced()
	for _, f := range x.reply.Replaced {
		l.Log.Warn("damaged in the vault", "object", f.Object, "reason", f.Reason)
	}
	return x.reply, err
}

// load is an invocation of a loader.
type load struct {
	loader   *Loader
	repo     *repository.Repository
	run      fanout.Run
	command  fanout.Work
	restore  vault.Restore
	plan     *vault.RestorePlan
	worker   fanout.Worker
	segments sealed.Segments
	target   *target
	lease    *lease
	pool     *pool
	reply    LoadReply
}

func (x *load) what(s vault.SegmentID) string {
	if x.plan == nil {
		return fmt.Sprintf("import segment %s of restore %s", s, x.restore.ID)
	}
	return fmt.Sprintf("import segment %s of backup %s into %s", s, x.plan.Backup, x.plan.Target)
}

// all loads the segment of the command, and what it finds after it.
func (x *load) all(ctx context.Context) error {
	if err := x.open(ctx); err != nil {
		return fmt.Errorf("%s: %w", x.what(x.command.Segment), err)
	}
	holdsRows := func(s vault.RestoreSegment) bool { return s.Rows > 0 }
	x.worker = fanout.Worker{
		Log: fanout.NewLog(x.repo, x.restore.Log()), Run: &x.run, Open: x.segment, To: x.loader.Work, What: x.what, Doubt: x.target.doubt.Load,
	}
	x.worker.Planned, x.worker.Groups = plannedGroups(x.plan, holdsRows)
	through, err := x.worker.Work(ctx, x.command)
	x.reply.Segment, x.reply.Start = x.worker.At.Segment, x.worker.At.Number
	x.reply.Superseded, x.reply.Closed = x.worker.Superseded, x.worker.Closed
	x.reply.Continued = x.worker.Over && !x.worker.Closed
	if through {
		goesOn(ctx, x.repo, x.loader.Work, x.loader.Log, x.command, fanout.Loading, x.restore.Log().AllDone(), count(x.plan, holdsRows))
	}
	return err
}

// open reads what the restore is, and makes what all of its segments are written with.
func (x *load) open(ctx context.Context) (err error) {
	if x.plan, err = x.repo.RestorePlan(ctx, x.command.Restore); err != nil {
		return err
	}
	if err := planned(x.plan, x.command.Segment); err != nil {
		return err
	}
	made, err := x.repo.Made(ctx, x.plan.Restore)
	if err != nil {
		return err
	}
	if made == nil {
		return fmt.Errorf("the restore has not made the table yet: %w", table.ErrUnavailable)
	}
	x.segments = segmentsOf(x.repo, x.plan)
	x.lease = &lease{repo: x.repo, closed: x.restore.Closed(), now: x.run.Now, own: func(ctx context.Context) error {
		return yield(ctx, x.repo, x.run, x.restore.ID, own(ctx, x.loader.Tables, x.plan, made, true))
	}}
	x.target = &target{tables: x.loader.Tables, table: x.plan.Target, run: x.run, throttle: throttle.ForWrites(x.command.WriteUnits), lease: x.lease}
	x.pool = newPool(x.loader.Memory, x.target)
	return nil
}

// segment is the loading of a segment, for the worker to take its steps.
func (x *load) segment(_ context.Context, s vault.SegmentID) (fanout.Job, error) {
	x.reply.Done = false
	x.target.doubt.Store(false)
	return &segmentLoad{load: x, id: s}, nil
}
