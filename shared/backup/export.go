package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/throttle"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vault/shard"
)

// Exporter reads the segments of backups into shards.
type Exporter struct {
	Repo   *repository.Repository
	Tables table.Instance
	Work   fanout.Dispatcher
	Log    *slog.Logger
	// Memory bounds the pages in flight, in bytes; 0 means DefaultMemory.
	Memory int64
	// Encoders is how many pages are encoded at a time, 0 for one per processor.
	Encoders int
	// MaxStarts bounds the starts of a segment, 0 for MaxStarts.
	MaxStarts int
	// Unproved leaves out reading back what was encoded. It is for measuring what that
	// costs.
	Unproved bool
	// pages are the buffers of lanes, kept from one part to the next.
	pages table.Pages
	// flush is (*shard.Encoder).Flush, if it is nil.
	flush func(*shard.Encoder) (*shard.Block, error)
}

// ExportReply is what one invocation came to.
type ExportReply struct {
	// Segment is the one that was worked on last, Start the number of its start.
	Segment vault.SegmentID `json:"segment"`
	Start   int             `json:"start"`
	// Ended counts the segments that the invocation brought to their ends, Split those
	// that it split.
	Ended int   `json:"ended"`
	Split int   `json:"split,omitempty"`
	Parts int   `json:"parts"`
	Rows  int64 `json:"rows"`
	// RawBytes is the size of the rows as PlainBuffer, StoredBytes of the shards.
	RawBytes    int64 `json:"raw_bytes"`
	StoredBytes int64 `json:"stored_bytes"`
	// MarginMS is what was kept for closing in the end, in milliseconds.
	MarginMS int64 `json:"margin_ms,omitempty"`
	// Pace is what held the last part back.
	Pace *vault.Pace `json:"pace,omitempty"`
	// Done says that the last segment has ended, Continued that another invocation goes
	// on, Superseded that another one already does.
	Done       bool `json:"done"`
	Continued  bool `json:"continued,omitempty"`
	Superseded bool `json:"superseded,omitempty"`
}

// Export works on one segment: part by part until its lanes have come to their ends, or
// until run says stop; then it hands over to the next start. A part exists when its slot
// does. If another execution wins a slot, this one's shard is an orphan and the other
// goes on.
//
// A worker that is done with its segment goes on with others of its group, and of the
// groups after it, that nobody has begun, for as long as there is time: so as many work
// as were dispatched, until nothing is left.
func (e *Exporter) Export(ctx context.Context, run fanout.Run, w fanout.Work) (ExportReply, error) {
	x := &export{
		exporter: e, run: run, backup: vault.Backup{Table: w.Table, ID: w.Backup}, work: w,
		margin: fanout.NewMargin(run), throttle: throttle.ForReads(w.ReadUnits),
	}
	x.reply = ExportReply{Segment: w.Segment, Start: w.Start}
	err := x.all(ctx)
	if !x.run.Stop.IsZero() {
		x.reply.MarginMS = x.run.Until.Sub(x.run.Stop).Milliseconds()
	}
	return x.reply, err
}

// export is an invocation of an exporter: it works on segments, one after the other.
type export struct {
	exporter *Exporter
	run      fanout.Run
	backup   vault.Backup
	work     fanout.Work
	plan     *vault.Plan
	encoders chan *shard.Encoder
	margin   fanout.Margin
	throttle *throttle.Throttle
	worker   fanout.Worker
	// children are the segments that this invocation has split off.
	children map[vault.SegmentID]vault.Segment
	open     int // lanes of the part that was read last
	reply    ExportReply
}

func (x *export) what(s vault.SegmentID) string {
	return fmt.Sprintf("export segment %s of backup %s of %s", s, x.backup.ID, x.backup.Table)
}

// all works on the segment of the command, and on what it finds after it.
func (x *export) all(ctx context.Context) error {
	over, err := x.exporter.Repo.Exists(ctx, x.backup.Manifest())
	if err != nil {
		return fmt.Errorf("%s: %w", x.what(x.work.Segment), err)
	}
	if over {
		x.reply.Superseded = true
		return nil
	}
	if x.plan, _, err = x.exporter.Repo.Plan(ctx, x.backup); err != nil {
		return fmt.Errorf("%s: %w", x.what(x.work.Segment), err)
	}
	x.encoders = x.exporter.newEncoders(x.plan)
	x.worker = fanout.Worker{
		Log: fanout.NewLog(x.exporter.Repo, x.backup.Log()), Run: &x.run, Margin: &x.margin,
		Groups: x.plan.Groups(), Planned: x.planned, Open: x.segment, To: x.exporter.Work, What: x.what, Most: x.exporter.MaxStarts,
		Permanent: func(err error) bool { return errors.Is(err, shard.ErrReadBack) },
	}
	through, err := x.worker.Work(ctx, x.work)
	x.reply.Segment, x.reply.Start = x.worker.At.Segment, x.worker.At.Number
	x.reply.Superseded, x.reply.Continued = x.worker.Superseded, x.worker.Over
	if through {
		x.poke(ctx)
	}
	return err
}

// poke has the planner look at the backup, if all of its segments have ended as far as a
// list shows. Several workers may find that at the same time, and each look has a task of
// its own, since that of one might come before another has ended. What goes wrong costs
// time only: the planner's next tick looks, too.
func (x *export) poke(ctx context.Context) {
	over, err := x.over(ctx)
	if err == nil && over {
		err = x.exporter.Work.Submit(ctx, fanout.Work{
			Verb: fanout.VerbSeal, Table: x.backup.Table, Backup: x.backup.ID, Segment: x.reply.Segment, Start: x.reply.Start, After: fanout.Exporting,
		})
	}
	if err != nil {
		x.exporter.Log.Warn("the backup is sealed by the next tick only", "backup", x.backup.ID, "error", err)
	}
}

// over says whether each of the plan's segments has ended, and all that those were split
// into.
func (x *export) over(ctx context.Context) (bool, error) {
	ends, err := endMarks(ctx, x.exporter.Repo, x.backup.Log(), x.backup.Log().AllDone())
	if err != nil {
		return false, err
	}
	var ended func(vault.SegmentID) bool
	ended = func(id vault.SegmentID) bool {
		end, ok := ends[id]
		for i := 0; i < end.children && ok; i++ {
			ok = ended(id.Child(i))
		}
		return ok
	}
	for _, s := range x.plan.Segments {
		if !ended(s.ID) {
			return false, nil
		}
	}
	return true, nil
}

// planned are the segments of a group as they were planned.
func (x *export) planned(group int) []vault.SegmentID {
	all := x.plan.Segments[group*vault.GroupSize : min((group+1)*vault.GroupSize, len(x.plan.Segments))]
	ids := make([]vault.SegmentID, len(all))
	for i := range all {
		ids[i] = all[i].ID
	}
	return ids
}

func (e *Exporter) memory() int64 { return cmp.Or(e.Memory, fanout.DefaultMemory) }

// pageSize is the room for a page of each of the lanes that are open.
func (x *export) pageSize() int {
	return int(min(max(x.exporter.memory()/int64(max(x.open, 1)), table.MinPage), table.MaxPage))
}

// readers is for how many pages at a time there is memory.
func (x *export) readers() int { return max(1, int(x.exporter.memory()/int64(x.pageSize()))) }

// newEncoders makes what turns pages into blocks: as many as work at a time.
func (e *Exporter) newEncoders(plan *vault.Plan) chan *shard.Encoder {
	n := e.Encoders
	if n == 0 {
		n = runtime.GOMAXPROCS(0)
	}
	encoders := make(chan *shard.Encoder, n)
	for range n {
		encoders <- shard.NewEncoder(shard.Options{Schema: plan.Definition.Schema, Seed: uint64(e.Repo.Header.Seed), Unproved: e.Unproved})
	}
	return encoders
}
