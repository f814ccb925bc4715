package sealed

import (
	"context"
	"errors"
	"io"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vault/shard"
)

// index reads the index object of a part's shard.
func (s *Segment) index(ctx context.Context, part *vault.Part) ([]shard.Entry, error) {
	stored, err := s.Backup.Repo.Download(ctx, part.Index)
	if err != nil {
		return nil, err
	}
	defer stored.Close()
	plain, err := s.Backup.Plan.Encryption.Open(vault.Data, stored)
	if err != nil {
		return nil, stored.Blame(err)
	}
	header, entries, err := shard.ReadIndex(plain)
	if err == nil {
		err = sameHeader(header, s.header())
	}
	if err != nil {
		return nil, stored.Blame(err)
	}
	return entries, stored.End()
}

// about says whether an entry of an index is about a block.
func about(e *shard.Entry, rows *shard.Rows, schema table.Schema) bool {
	n := rows.Len()
	if rows.Unfinished {
		n = 0
	}
	first, last, err := e.Keys(schema)
	return err == nil && e.Lane == rows.Lane && e.Rows == n && first.Equal(rows.First) && last.Equal(rows.Last)
}

// HoldIndexes holds the indexes of parts against their records, several at a time. One
// that is damaged is read from a twin from then on.
func HoldIndexes(ctx context.Context, r *repository.Repository, parts []*vault.Part) error {
	group, gctx := guard.WithContext(ctx)
	group.SetLimit(fanout.LooksInFlight)
	for _, part := range parts {
		group.Go(func() error {
			for {
				since := r.Turns()
				err := held(gctx, r, part.Index)
				var bad *repository.BadObject
				if !errors.As(err, &bad) || !r.Turn(gctx, part.Index, since, bad.Err) {
					return err
				}
			}
		})
	}
	return group.Wait()
}

// held reads an object for its sum alone.
func held(ctx context.Context, r *repository.Repository, o vault.Object) error {
	stored, err := r.Download(ctx, o)
	if err != nil {
		return err
	}
	defer stored.Close()
	if _, err := io.Copy(io.Discard, stored); err != nil {
		return stored.Blame(err)
	}
	return stored.End()
}
