package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vault/shard"
)

// shardReader reads one part's shard from its beginning and believes nothing:
// at io.EOF, the stored bytes, the counts, the lanes and the digest were those
// of the part's record.
type shardReader struct {
	stored *repository.Download
	part   *vault.Part
	reader *shard.Reader
}

func openShard(ctx context.Context, r *repository.Repository, source *restoreSource, s vault.SegmentID, part *vault.Part) (*shardReader, error) {
	stored, err := r.Download(ctx, part.Shard)
	if err != nil {
		return nil, err
	}
	plain, err := source.plan.Encryption.Open(vault.Data, stored)
	if err == nil {
		var reader *shard.Reader
		if reader, err = shard.NewReader(plain); err == nil {
			if err = sameHeader(reader.Header, shardHeader(r, source, s)); err == nil {
				return &shardReader{stored, part, reader}, nil
			}
		}
	}
	stored.Close()
	return nil, stored.Blame(err)
}

// header is the header of every shard of a segment.
func shardHeader(r *repository.Repository, source *restoreSource, s vault.SegmentID) shard.Header {
	return shard.Header{
		Vault: r.Header.ID, Backup: string(source.backup.ID), Table: source.backup.Table.Path(), Segment: string(s),
		Schema: source.plan.Definition.Schema, Seed: uint64(r.Header.Seed),
	}
}

func sameHeader(got, want shard.Header) error {
	if got.Vault != want.Vault || got.Backup != want.Backup || got.Table != want.Table || got.Segment != want.Segment ||
		got.Seed != want.Seed || !slices.Equal(got.Schema, want.Schema) {
		return fmt.Errorf("%w: it says that it is segment %s of backup %s of %s in vault %s", vault.ErrCorrupt, got.Segment, got.Backup, got.Table, got.Vault)
	}
	return nil
}

func (s *shardReader) close() { s.stored.Close() }

// next reads the next block.
func (s *shardReader) next(rows *shard.Rows) error {
	err := s.reader.Next(rows)
	if err == io.EOF {
		if err := s.stored.End(); err != nil {
			return err
		}
		if err := s.agrees(); err != nil {
			return s.stored.Blame(err)
		}
		return io.EOF
	}
	if err != nil {
		return s.stored.Blame(err)
	}
	if rows.Lane >= len(s.part.Lanes) || s.part.Lanes[rows.Lane].From.Compare(rows.First) > 0 ||
		rows.Last.Compare(s.part.Lanes[rows.Lane].Next) >= 0 {
		return s.stored.Blame(fmt.Errorf("%w: the rows from %v to %v are outside of lane %d, as its part's record says", vault.ErrCorrupt, rows.First, rows.Last, rows.Lane))
	}
	return nil
}

// agrees holds the shard's totals against the part's record.
func (s *shardReader) agrees() error {
	sum := s.reader.Summary()
	if sum.Rows != s.part.Rows || sum.Digest != s.part.Digest || len(sum.Lanes) != len(s.part.Lanes) {
		return fmt.Errorf("%w: %d rows in %d lanes with digest %s, the part's record says %d in %d with %s",
			vault.ErrCorrupt, sum.Rows, len(sum.Lanes), sum.Digest, s.part.Rows, len(s.part.Lanes), s.part.Digest)
	}
	for i, l := range sum.Lanes {
		if w := s.part.Lanes[i]; l.Rows != w.Rows || !l.From.Equal(w.From) || !l.Next.Equal(w.Next) {
			return fmt.Errorf("%w: lane %d has %d rows in %v, the part's record says %d in %v",
				vault.ErrCorrupt, i, l.Rows, table.Range{Start: l.From, End: l.Next}, w.Rows, table.Range{Start: w.From, End: w.Next})
		}
	}
	return nil
}

// index reads the index object of a part's shard.
func readIndex(ctx context.Context, r *repository.Repository, source *restoreSource, s vault.SegmentID, part *vault.Part) ([]shard.Entry, error) {
	stored, err := r.Download(ctx, part.Index)
	if err != nil {
		return nil, err
	}
	defer stored.Close()
	plain, err := source.plan.Encryption.Open(vault.Data, stored)
	if err != nil {
		return nil, stored.Blame(err)
	}
	header, entries, err := shard.ReadIndex(plain)
	if err == nil {
		err = sameHeader(header, shardHeader(r, source, s))
	}
	if err != nil {
		return nil, stored.Blame(err)
	}
	return entries, stored.End()
}

// readSegment reads every shard of a segment and hands its rows to row, lane by
// lane in the order of their keys, with the lanes mixed; row may be nil. What
// is corrupt becomes a finding, and the next part is read. It returns the
// totals of the shards that are as they were written.
func readSegment(ctx context.Context, r *repository.Repository, source *restoreSource, log *fanout.SegmentLog, check *vault.Check,
	row func(lane int, b *block, row *plainbuffer.Row)) (set, error) {
	var total set
	for _, s := range log.Slots {
		if s.Part == nil {
			continue
		}
		sum, err := readPart(ctx, r, source, log.Segment.ID, s.Part, row)
		var bad *repository.BadObject
		switch {
		case errors.As(err, &bad):
			check.Find(bad.Object.Name, bad.Err)
		case err != nil:
			return total, err
		default:
			total = total.plus(sum)
		}
	}
	return total, nil
}

func readPart(ctx context.Context, r *repository.Repository, source *restoreSource, s vault.SegmentID, part *vault.Part,
	row func(lane int, b *block, row *plainbuffer.Row)) (set, error) {
	index, err := readIndex(ctx, r, source, s, part)
	if err != nil {
		return set{}, err
	}
	stream, err := openShard(ctx, r, source, s, part)
	if err != nil {
		return set{}, err
	}
	defer stream.close()
	var rows shard.Rows
	var scanned plainbuffer.Row
	scanner := plainbuffer.NewScanner(nil)
	blocks := 0
	for {
		err := stream.next(&rows)
		if err == io.EOF {
			break
		}
		if err != nil {
			return set{}, err
		}
		if blocks == len(index) || !agrees(&index[blocks], &rows, source.plan.Definition.Schema) {
			return set{}, &repository.BadObject{Object: part.Index, Err: fmt.Errorf("%w: its entry for block %d is not about that block", vault.ErrCorrupt, blocks)}
		}
		blocks++
		if row == nil {
			if !rows.Unfinished {
				fanout.Come(ctx, int64(rows.Len()), int64(len(rows.Buf)))
			}
			continue
		}
		b := blockOf(&rows)
		scanner.ResetRows(rows.Buf)
		for {
			if err := scanner.Next(&scanned); err == io.EOF {
				break
			} else if err != nil {
				return set{}, stream.stored.Blame(err)
			}
			row(rows.Lane, b, &scanned)
		}
	}
	if blocks != len(index) {
		return set{}, &repository.BadObject{Object: part.Index, Err: fmt.Errorf("%w: %d entries, the shard has %d blocks", vault.ErrCorrupt, len(index), blocks)}
	}
	return set{part.Rows, part.Digest}, nil
}

// agrees says whether an entry of an index is about a block.
func agrees(e *shard.Entry, rows *shard.Rows, schema table.Schema) bool {
	n := rows.Len()
	if rows.Unfinished {
		n = 0
	}
	first, last, err := e.Keys(schema)
	return err == nil && e.Lane == rows.Lane && e.Rows == n && first.Equal(rows.First) && last.Equal(rows.Last)
}

// block is rows of one lane, or of one page of a table, in the order of their
// keys.
type block struct {
	rows []byte
	bare bool // rows stand without a block's header
	// piece says that the block is a single piece of one row, first and last
	// whether it is the row's first or last.
	piece, first, last bool
	served             time.Time // the date of a page
}

func blockOf(rows *shard.Rows) *block {
	return &block{rows: rows.Buf, bare: true, piece: rows.Continues || rows.Unfinished, first: !rows.Continues, last: !rows.Unfinished}
}

func (b *block) scan(s *plainbuffer.Scanner) {
	if b.bare {
		s.ResetRows(b.rows)
	} else {
		s.Reset(b.rows)
	}
}

// laneBlocks reads the rows of one lane of a segment, part by part, by means of
// the indexes.
func laneBlocks(r *repository.Repository, source *restoreSource, log *fanout.SegmentLog, lane int) blocks {
	var rows shard.Rows
	var entries []shard.Entry
	var reader *shard.BlockReader
	var part *vault.Part
	slots := log.Slots
	return func(ctx context.Context) (*block, error) {
		for len(entries) == 0 {
			if len(slots) == 0 {
				return nil, io.EOF
			}
			if part, slots = slots[0].Part, slots[1:]; part == nil || part.Lanes[lane].Rows == 0 {
				continue
			}
			all, err := readIndex(ctx, r, source, log.Segment.ID, part)
			if err != nil {
				return nil, err
			}
			entries = slices.DeleteFunc(all, func(e shard.Entry) bool { return e.Lane != lane })
			if reader, err = shard.NewBlockReader(shardHeader(r, source, log.Segment.ID)); err != nil {
				return nil, err
			}
		}
		e := entries[0]
		entries = entries[1:]
		body, _, err := r.StoreOf(part.Shard.Name).Open(ctx, part.Shard.Name, e.Offset, e.FrameSize())
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, object.ErrRange) {
			return nil, &repository.BadObject{Object: part.Shard, Err: err}
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", part.Shard.Name, err)
		}
		frame, err := io.ReadAll(body)
		body.Close()
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", part.Shard.Name, err)
		}
		if err := reader.Read(bytes.NewReader(frame), e, &rows); err != nil {
			return nil, &repository.BadObject{Object: part.Shard, Err: fmt.Errorf("block at byte %d: %w", e.Offset, err)}
		}
		return blockOf(&rows), nil
	}
}
