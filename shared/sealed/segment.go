package sealed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/tablevault/tablevault/shared/backup/coverage"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vault/shard"
)

// Segment is a segment of a sealed backup, whose log is proved.
type Segment struct {
	Backup *Backup
	Log    *coverage.SegmentLog
}

// ID is the segment's id.
func (s *Segment) ID() vault.SegmentID { return s.Log.Segment.ID }

// Lanes are the ranges that the segment's own parts hold: its lanes, as far as it came
// before it was split.
func (s *Segment) Lanes() []table.Range {
	lanes := s.Log.Segment.Lanes()
	for i := range lanes {
		lanes[i].End = s.Log.Next[i]
	}
	return lanes
}

// Parts are the slots of the segment's log that hold rows.
func (s *Segment) Parts() []vault.Slot {
	return slices.DeleteFunc(slices.Clone(s.Log.Slots), func(slot vault.Slot) bool { return slot.Part == nil })
}

// Sum is a number of rows and their digest.
type Sum struct {
	Rows   int64
	Digest table.Digest
}

// Read reads every shard of the segment and hands its blocks to visit, lane by lane in
// the order of their keys, with the lanes mixed; visit may be nil, and what it can't read
// of a block is the shard's fault. What is corrupt becomes a finding, and the next part
// is read. It returns the totals of the shards that are as they were written.
func (s *Segment) Read(ctx context.Context, check *vault.Check, visit func(*shard.Rows) error) (Sum, error) {
	var total Sum
	for _, slot := range s.Parts() {
		err := s.readPart(ctx, slot.Part, visit)
		var bad *repository.BadObject
		switch {
		case errors.As(err, &bad):
			check.Find(bad.Object.Name, bad.Err)
		case err != nil:
			return total, err
		default:
			total.Rows += slot.Part.Rows
			total.Digest.Add(slot.Part.Digest)
		}
	}
	return total, nil
}

func (s *Segment) readPart(ctx context.Context, part *vault.Part, visit func(*shard.Rows) error) error {
	index, err := s.index(ctx, part)
	if err != nil {
		return err
	}
	stream, err := s.Open(ctx, part)
	if err != nil {
		return err
	}
	defer stream.Close()
	var rows shard.Rows
	blocks := 0
	for {
		err := stream.Next(&rows)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if blocks == len(index) || !about(&index[blocks], &rows, s.Backup.Plan.Definition.Schema) {
			return &repository.BadObject{Object: part.Index, Err: fmt.Errorf("%w: its entry for block %d is not about that block", vault.ErrCorrupt, blocks)}
		}
		blocks++
		if visit == nil {
			if !rows.Unfinished {
				fanout.Come(ctx, int64(rows.Len()), int64(len(rows.Buf)))
			}
		} else if err := visit(&rows); err != nil {
			return stream.stored.Blame(err)
		}
	}
	if blocks != len(index) {
		return &repository.BadObject{Object: part.Index, Err: fmt.Errorf("%w: %d entries, the shard has %d blocks", vault.ErrCorrupt, len(index), blocks)}
	}
	return nil
}

// Lane reads the rows of one lane of a segment, part by part, by means of the indexes.
type Lane struct {
	segment *Segment
	lane    int
	slots   []vault.Slot // that are not come to
	part    *vault.Part  // at hand
	shard   *repository.Data
	entries []shard.Entry
	reader  *shard.BlockReader
	frame   []byte // of a block, as it is stored
	rows    shard.Rows
}

// Lane begins to read a lane of the segment.
func (s *Segment) Lane(lane int) *Lane { return &Lane{segment: s, lane: lane, slots: s.Parts()} }

// Next reads the lane's next block, which is valid until the next call; io.EOF after the
// last.
func (l *Lane) Next(ctx context.Context) (*shard.Rows, error) {
	for len(l.entries) == 0 {
		if len(l.slots) == 0 {
			return nil, io.EOF
		}
		if l.part, l.slots = l.slots[0].Part, l.slots[1:]; l.part.Lanes[l.lane].Rows == 0 {
			continue
		}
		all, err := l.segment.index(ctx, l.part)
		if err != nil {
			return nil, err
		}
		l.entries = slices.DeleteFunc(all, func(e shard.Entry) bool { return e.Lane != l.lane })
		l.shard = l.segment.data(ctx, l.part.Shard)
		if l.reader, err = shard.NewBlockReader(l.segment.header()); err != nil {
			return nil, err
		}
	}
	e := l.entries[0]
	l.entries = l.entries[1:]
	if err := l.segment.Backup.Repo.FailOver(ctx, func() error { return l.block(e) }); err != nil {
		return nil, err
	}
	return &l.rows, nil
}

// block reads the block that an entry is about.
func (l *Lane) block(e shard.Entry) error {
	l.frame = slices.Grow(l.frame[:0], int(e.FrameSize()))[:e.FrameSize()]
	n, err := l.shard.ReadAt(l.frame, e.Offset)
	if err != nil && err != io.EOF { // a block that is cut off does not decode
		return err
	}
	if err := l.reader.Read(bytes.NewReader(l.frame[:n]), e, &l.rows); err != nil {
		return &repository.BadObject{Object: l.part.Shard, Err: fmt.Errorf("block at byte %d: %w", e.Offset, err)}
	}
	return nil
}
