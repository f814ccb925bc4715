package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vault/shard"
)

// badObject says which object of the vault is not what it should be. It
// matches vault.ErrCorrupt.
type badObject struct {
	object vault.Object
	err    error
}

func (e *badObject) Error() string        { return e.object.Name + ": " + e.err.Error() }
func (e *badObject) Unwrap() error        { return e.err }
func (e *badObject) Is(target error) bool { return target == vault.ErrCorrupt }

// corrupt says whether an error is about the bytes of the vault, not about
// getting at them.
func corrupt(err error) bool {
	for _, mark := range []error{
		vault.ErrCorrupt, vault.ErrVersion, shard.ErrCorrupt, shard.ErrVersion, plainbuffer.ErrCorrupt, fs.ErrNotExist, object.ErrTooLong,
	} {
		if errors.Is(err, mark) {
			return true
		}
	}
	return false
}

// download reads an object of the vault from its beginning and holds it against
// its record: how many bytes there are, and their sha256.
type download struct {
	want vault.Object
	body io.ReadCloser
	sum  hash.Hash
	size int64
	// err is what the store had to say, as opposed to what a format made of it:
	// a stream that breaks off is no truncated object.
	err error
}

func (r *Repository) open(ctx context.Context, o vault.Object) (*download, error) {
	body, _, err := r.from(o.Name).Open(ctx, o.Name, 0, -1)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &badObject{o, fmt.Errorf("it is gone: %w", err)}
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", o.Name, err)
	}
	return &download{want: o, body: body, sum: sha256.New()}, nil
}

func (s *download) Read(b []byte) (int, error) {
	n, err := s.body.Read(b)
	s.sum.Write(b[:n])
	s.size += int64(n)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// blame says whose an error of a format is: the store's, or the object's.
func (s *download) blame(err error) error {
	switch {
	case err == nil:
		return nil
	case s.err != nil:
		return fmt.Errorf("read %s: %w", s.want.Name, s.err)
	case corrupt(err):
		return &badObject{s.want, err}
	}
	return fmt.Errorf("read %s: %w", s.want.Name, err)
}

// end holds what was read, which is all of it, against the record.
func (s *download) end() error {
	if sum := hex.EncodeToString(s.sum.Sum(nil)); s.size != s.want.Bytes || sum != s.want.SHA256 {
		return &badObject{s.want, fmt.Errorf("%w: %d bytes with sha256 %s, written were %d with %s", vault.ErrCorrupt, s.size, sum, s.want.Bytes, s.want.SHA256)}
	}
	return nil
}

// shardReader reads one part's shard from its beginning and believes nothing:
// at io.EOF, the stored bytes, the counts, the lanes and the digest were those
// of the part's record.
type shardReader struct {
	stored *download
	part   *vault.Part
	reader *shard.Reader
}

func (r *Repository) openShard(ctx context.Context, source *restoreSource, s vault.SegmentID, part *vault.Part) (*shardReader, error) {
	stored, err := r.open(ctx, part.Shard)
	if err != nil {
		return nil, err
	}
	plain, err := source.plan.Encryption.Open(vault.Data, stored)
	if err == nil {
		var reader *shard.Reader
		if reader, err = shard.NewReader(plain); err == nil {
			if err = sameHeader(reader.Header, r.header(source, s)); err == nil {
				return &shardReader{stored, part, reader}, nil
			}
		}
	}
	stored.body.Close()
	return nil, stored.blame(err)
}

// header is the header of every shard of a segment.
func (r *Repository) header(source *restoreSource, s vault.SegmentID) shard.Header {
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

func (s *shardReader) close() { s.stored.body.Close() }

// next reads the next block.
func (s *shardReader) next(rows *shard.Rows) error {
	err := s.reader.Next(rows)
	if err == io.EOF {
		if err := s.stored.end(); err != nil {
			return err
		}
		if err := s.agrees(); err != nil {
			return s.stored.blame(err)
		}
		return io.EOF
	}
	if err != nil {
		return s.stored.blame(err)
	}
	if rows.Lane >= len(s.part.Lanes) || s.part.Lanes[rows.Lane].From.Compare(rows.First) > 0 ||
		rows.Last.Compare(s.part.Lanes[rows.Lane].Next) >= 0 {
		return s.stored.blame(fmt.Errorf("%w: the rows from %v to %v are outside of lane %d, as its part's record says", vault.ErrCorrupt, rows.First, rows.Last, rows.Lane))
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
func (r *Repository) index(ctx context.Context, source *restoreSource, s vault.SegmentID, part *vault.Part) ([]shard.Entry, error) {
	stored, err := r.open(ctx, part.Index)
	if err != nil {
		return nil, err
	}
	defer stored.body.Close()
	plain, err := source.plan.Encryption.Open(vault.Data, stored)
	if err != nil {
		return nil, stored.blame(err)
	}
	header, entries, err := shard.ReadIndex(plain)
	if err == nil {
		err = sameHeader(header, r.header(source, s))
	}
	if err != nil {
		return nil, stored.blame(err)
	}
	return entries, stored.end()
}

// readSegment reads every shard of a segment and hands its rows to row, lane by
// lane in the order of their keys, with the lanes mixed; row may be nil. What
// is corrupt becomes a finding, and the next part is read. It returns the
// totals of the shards that are as they were written.
func (r *Repository) readSegment(ctx context.Context, source *restoreSource, log *segmentLog, check *vault.Check,
	row func(lane int, b *block, row *plainbuffer.Row)) (set, error) {
	var total set
	for _, s := range log.slots {
		if s.Part == nil {
			continue
		}
		sum, err := r.readPart(ctx, source, log.segment.ID, s.Part, row)
		var bad *badObject
		switch {
		case errors.As(err, &bad):
			check.Find(bad.object.Name, bad.err)
		case err != nil:
			return total, err
		default:
			total = total.plus(sum)
		}
	}
	return total, nil
}

func (r *Repository) readPart(ctx context.Context, source *restoreSource, s vault.SegmentID, part *vault.Part,
	row func(lane int, b *block, row *plainbuffer.Row)) (set, error) {
	index, err := r.index(ctx, source, s, part)
	if err != nil {
		return set{}, err
	}
	stream, err := r.openShard(ctx, source, s, part)
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
			return set{}, &badObject{part.Index, fmt.Errorf("%w: its entry for block %d is not about that block", vault.ErrCorrupt, blocks)}
		}
		blocks++
		if row == nil {
			continue
		}
		b := blockOf(&rows)
		scanner.ResetRows(rows.Buf)
		for {
			if err := scanner.Next(&scanned); err == io.EOF {
				break
			} else if err != nil {
				return set{}, stream.stored.blame(err)
			}
			row(rows.Lane, b, &scanned)
		}
	}
	if blocks != len(index) {
		return set{}, &badObject{part.Index, fmt.Errorf("%w: %d entries, the shard has %d blocks", vault.ErrCorrupt, len(index), blocks)}
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
func (r *Repository) laneBlocks(source *restoreSource, log *segmentLog, lane int) blocks {
	var rows shard.Rows
	var entries []shard.Entry
	var reader *shard.BlockReader
	var part *vault.Part
	slots := log.slots
	return func(ctx context.Context) (*block, error) {
		for len(entries) == 0 {
			if len(slots) == 0 {
				return nil, io.EOF
			}
			if part, slots = slots[0].Part, slots[1:]; part == nil || part.Lanes[lane].Rows == 0 {
				continue
			}
			all, err := r.index(ctx, source, log.segment.ID, part)
			if err != nil {
				return nil, err
			}
			entries = slices.DeleteFunc(all, func(e shard.Entry) bool { return e.Lane != lane })
			if reader, err = shard.NewBlockReader(r.header(source, log.segment.ID)); err != nil {
				return nil, err
			}
		}
		e := entries[0]
		entries = entries[1:]
		body, _, err := r.from(part.Shard.Name).Open(ctx, part.Shard.Name, e.Offset, e.FrameSize())
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, object.ErrRange) {
			return nil, &badObject{part.Shard, err}
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
			return nil, &badObject{part.Shard, fmt.Errorf("block at byte %d: %w", e.Offset, err)}
		}
		return blockOf(&rows), nil
	}
}
