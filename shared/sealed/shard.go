package sealed

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vault/shard"
)

// Shard is one part's shard, which is read from its beginning.
type Shard struct {
	stored *repository.Stream
	part   *vault.Part
	reader *shard.Reader
}

// Open opens the shard of a part of the segment.
func (s *Segment) Open(ctx context.Context, part *vault.Part) (*Shard, error) {
	stored, err := s.data(ctx, part.Shard).Stream()
	if err != nil {
		return nil, err
	}
	reader, err := shard.NewReader(stored)
	if err == nil {
		err = sameHeader(reader.Header, s.header())
	}
	if err != nil {
		stored.Close()
		return nil, stored.Blame(err)
	}
	return &Shard{stored, part, reader}, nil
}

// data is a shard or an index of the segment.
func (s *Segment) data(ctx context.Context, o vault.Object) *repository.Data {
	return s.Backup.Repo.OpenData(ctx, o, s.Backup.Plan.Encryption)
}

// header is the header of every shard of the segment.
func (s *Segment) header() shard.Header {
	b := s.Backup
	return shard.Header{
		Vault: b.Repo.Header.ID, Backup: string(b.ID.ID), Table: b.ID.Table.Path(), Segment: string(s.ID()),
		Schema: b.Plan.Definition.Schema, Seed: uint64(b.Repo.Header.Seed),
	}
}

func sameHeader(got, want shard.Header) error {
	if got.Vault != want.Vault || got.Backup != want.Backup || got.Table != want.Table || got.Segment != want.Segment ||
		got.Seed != want.Seed || !slices.Equal(got.Schema, want.Schema) {
		return fmt.Errorf("%w: it says that it is segment %s of backup %s of %s in vault %s", vault.ErrCorrupt, got.Segment, got.Backup, got.Table, got.Vault)
	}
	return nil
}

// Close gives up what the shard is read from.
func (s *Shard) Close() { s.stored.Close() }

// Next reads the next block. At io.EOF, the stored bytes, the counts, the lanes and the
// digest were those of the part's record.
func (s *Shard) Next(rows *shard.Rows) error {
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
func (s *Shard) agrees() error {
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
