package sealed

import (
	"context"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vault/shard"
)

// index reads the index object of a part's shard.
func (s *Segment) index(ctx context.Context, part *vault.Part) (entries []shard.Entry, err error) {
	data := s.data(ctx, part.Index)
	err = s.Backup.Repo.FailOver(ctx, func() (err error) {
		entries, err = s.readIndex(data)
		return err
	})
	return entries, err
}

func (s *Segment) readIndex(data *repository.Data) ([]shard.Entry, error) {
	stored, err := data.Stream()
	if err != nil {
		return nil, err
	}
	defer stored.Close()
	header, entries, err := shard.ReadIndex(stored)
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
// that is damaged is read from a replica from then on.
func HoldIndexes(ctx context.Context, r *repository.Repository, parts []*vault.Part) error {
	group, gctx := guard.WithContext(ctx)
	group.SetLimit(fanout.LooksInFlight)
	for _, part := range parts {
		group.Go(func() error { return r.Check(gctx, part.Index, nil) })
	}
	return group.Wait()
}
