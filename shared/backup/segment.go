package backup

import (
	"context"
	"fmt"
	"time"

	"github.com/tablevault/tablevault/shared/backup/coverage"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/vault"
)

// segmentRun is what one start does with a segment: each slot of its log is a part, but
// for a last one that may be a split.
type segmentRun struct {
	export *export
	log    *coverage.SegmentLog
	ask    asking
	start  int
	parts  int         // stored by this start
	slot   *vault.Slot // to be stored
}

// segment finds a segment of the plan, or one that was split off.
func (x *export) segment(ctx context.Context, id vault.SegmentID) (fanout.Job, error) {
	x.reply.Done = false
	s, split := x.children[id]
	if !split {
		var err error
		if s, err = coverage.FindSegment(ctx, x.exporter.Repo, x.plan, x.backup.Log(), id); err != nil {
			return nil, err
		}
	}
	return &segmentRun{export: x, log: coverage.NewSegmentLog(s)}, nil
}

// Read reads the segment's log.
func (r *segmentRun) Read(ctx context.Context, _ bool) (err error) {
	r.log, err = coverage.ReadLog(ctx, r.export.exporter.Repo, r.export.backup.Log(), r.log.Segment)
	return err
}

// Slots is how many slots the log has.
func (r *segmentRun) Slots() int { return len(r.log.Slots) }

// Ended says whether the log has come to the ends of its lanes, or to a split.
func (r *segmentRun) Ended() bool { return r.log.Ended }

// Begun goes on as the last part has left off.
func (r *segmentRun) Begun(_ context.Context, start, idle int) (rows, raw int64, err error) {
	x := r.export
	last := r.log.LastPart()
	if last != nil {
		x.throttle.Resume(last.Pace)
	}
	if idle > 0 {
		x.margin.Widen()
	} else if last != nil {
		x.margin.Closed(closing(last))
	}
	r.start = start
	r.ask.reset(start > 0)
	for i := range r.log.Slots {
		if p := r.log.Slots[i].Part; p != nil {
			rows, raw = rows+p.Rows, raw+p.RawBytes
		}
	}
	return rows, raw, nil
}

// closing is how long it took to close a part.
func closing(p *vault.Part) time.Duration { return time.Duration(p.ClosingMS) * time.Millisecond }

// Next reads a part, or splits the segment if that was asked for.
func (r *segmentRun) Next(ctx context.Context) (vault.Document, error) {
	// An invocation that has stored something has come further, whatever becomes of
	// the split.
	if r.parts > 0 {
		split, err := r.splitIfAsked(ctx)
		if err != nil {
			return nil, err
		}
		if split != nil {
			return r.next(&vault.Slot{Split: split}), nil
		}
		if r.export.run.Stopping() {
			return nil, nil
		}
	}
	part, err := r.part(ctx)
	if part == nil {
		return nil, err
	}
	return r.next(&vault.Slot{Part: part}), err
}

// next makes a slot the next one of the log.
func (r *segmentRun) next(slot *vault.Slot) *vault.Slot {
	slot.Segment, slot.Slot, slot.Start = r.log.Segment.ID, len(r.log.Slots), r.start
	r.slot = slot
	return slot
}

// Stored gives way to whoever has won the slot.
func (r *segmentRun) Stored(_ context.Context, mine bool) (goesOn bool, err error) {
	if !mine {
		return false, nil
	}
	if err := r.log.Add(r.slot); err != nil {
		return false, err
	}
	x, part := r.export, r.slot.Part
	if part == nil {
		x.exporter.Log.Info("split", "backup", x.backup.ID, "segment", r.log.Segment.ID, "children", len(r.slot.Split.Children), "parts", len(r.log.Slots)-1)
		x.reply.Split++
		return true, nil
	}
	r.parts++
	x.margin.Closed(closing(part))
	x.reply.Parts++
	x.reply.Rows += part.Rows
	x.reply.RawBytes += part.RawBytes
	x.reply.StoredBytes += part.Shard.Bytes
	x.reply.Pace = part.Pace
	if r.log.Ended {
		x.reply.Ended++
	}
	return true, nil
}

// End marks the segment as ended, and has what it was split into worked on.
func (r *segmentRun) End(ctx context.Context) error {
	x, id := r.export, r.log.Segment.ID
	x.reply.Done = true
	if r.log.Split == nil {
		return x.exporter.Repo.Mark(ctx, x.backup.Log().Done(id))
	}
	children := r.log.Split.Children
	if err := x.exporter.Repo.Mark(ctx, x.backup.Log().Split(id, len(children))); err != nil {
		return err
	}
	// This worker goes on with the first, unless somebody has it. Those for which no
	// worker is planned wait for one that is done, or for the planner.
	ids := make([]vault.SegmentID, len(children))
	x.children = make(map[vault.SegmentID]vault.Segment, len(children))
	for i, c := range children {
		ids[i], x.children[c.ID] = c.ID, c
	}
	mine, err := x.worker.Log.Claim(ctx, vault.Note{Segment: ids[0]}, x.run)
	if err != nil {
		return err
	}
	next := vault.SegmentID("")
	if mine {
		next = ids[0]
	}
	x.worker.Split(ids, next)
	var a vault.Ask
	if _, err := x.exporter.Repo.Read(ctx, x.backup.Log().Ask(id), &a); err != nil {
		return err
	}
	for _, c := range children[1:min(len(children), a.Children)] {
		if err := x.worker.Submit(ctx, c.ID, 0); err != nil {
			return fmt.Errorf("dispatch segment %s: %w", c.ID, err)
		}
	}
	return nil
}
