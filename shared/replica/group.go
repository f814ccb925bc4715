package replica

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// copiedObjects are the objects of a group as they come into the replica.
type copiedObjects struct {
	s     *copying
	group int

	records repository.CopiedGroup
	pending []vault.Object // without a record
	size    int64          // of those
	brought []bool         // by place in the group
	any     bool           // was brought by this invocation
	missing int            // damaged, and left out
}

// object brings one object into the replica under ctx. When that has enough of them, it
// writes a record under saving, which outlives ctx.
func (w *copiedObjects) object(ctx, saving context.Context, i int, o vault.Object) error {
	checksum, copied, err := w.bring(ctx, o)
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	var bad *repository.BadObject
	switch {
	case errors.As(err, &bad), errors.Is(err, errTaken):
		// The others are copied all the same.
		if w.s.damaged++; w.s.damaged == 1 {
			w.s.why = err
		}
		w.missing++
		w.brought[i] = true
		return nil
	case err != nil:
		return err
	case copied:
		w.s.reply.Objects++
		w.s.reply.Bytes += o.Bytes
	default:
		w.s.reply.Found++
	}
	w.brought[i], w.any = true, true
	if w.records.Checksums[repository.Identity(o)] == checksum || w.s.Back && o.Checksum == checksum {
		return nil
	}
	o.Checksum = checksum
	w.pending = append(w.pending, o)
	w.size += o.Bytes
	if len(w.pending) < recordObjects && w.size < recordBytes {
		return nil
	}
	return w.write(saving, false)
}

// record writes a record of the objects that have none, and says there that it is the
// last if the group is whole.
func (w *copiedObjects) record(ctx context.Context, last bool) error {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	last = last && w.missing == 0 && !w.s.Back
	if len(w.pending) == 0 && !last {
		return nil
	}
	return w.write(ctx, last)
}

// write writes a record; the caller holds mu.
func (w *copiedObjects) write(ctx context.Context, last bool) error {
	slices.SortFunc(w.pending, func(a, b vault.Object) int { return strings.Compare(a.Name, b.Name) })
	for {
		c := &vault.Copied{
			Backup: w.s.backup.ID, Table: w.s.backup.Table, Group: w.group, Record: w.records.Records,
			Manifest: w.s.named.SHA256, Objects: w.pending, Last: last,
		}
		won, err := w.s.to.Win(ctx, w.s.backup.Copied(w.group, c.Record), c)
		if err != nil {
			return fmt.Errorf("in the target: %w", err)
		}
		w.records.Records++
		if won {
			w.pending, w.size = nil, 0
			return nil
		}
		// Another replicator's: go on behind it.
	}
}

// bring makes sure that an object stands in the replica as it was written, and returns
// the checksum that it has there.
func (w *copiedObjects) bring(ctx context.Context, o vault.Object) (checksum string, copied bool, err error) {
	info, err := object.Stat(ctx, w.s.Store, o.Name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := w.s.streams.Acquire(ctx, 1); err != nil {
			return "", false, err
		}
		info, err = w.s.Repo.Replicate(ctx, o, w.s.Store, w.s.limit)
		w.s.streams.Release(1)
		if err == nil {
			return info.Checksum, true, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", false, err
		}
		// Another replicator was faster, or an answer was lost.
		info, err = object.Stat(ctx, w.s.Store, o.Name)
	}
	if err != nil {
		return "", false, fmt.Errorf("ask the target for %s: %w", o.Name, err)
	}
	other := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s there is not what was written here: %s; nothing is written over: delete it there, and copy again",
			errTaken, o.Name, fmt.Sprintf(format, args...))
	}
	known := w.records.Checksums[repository.Identity(o)]
	switch {
	case info.Size != o.Bytes:
		return "", false, other("%d bytes, not %d", info.Size, o.Bytes)
	case repository.SameKind(info.Checksum, o.Checksum) && info.Checksum != o.Checksum:
		return "", false, other("the checksum %s, not %s", info.Checksum, o.Checksum)
	case repository.SameKind(info.Checksum, o.Checksum), known == info.Checksum:
		return info.Checksum, false, nil
	}
	// No record tells its checksum, so that only its bytes can tell what it is.
	if err := w.s.streams.Acquire(ctx, 1); err != nil {
		return "", false, err
	}
	defer w.s.streams.Release(1)
	if err := w.s.to.Check(ctx, o, w.s.limit); err != nil {
		var bad *repository.BadObject
		if errors.As(err, &bad) {
			return "", false, other("%v", bad.Err)
		}
		return "", false, fmt.Errorf("in the target: %w", err)
	}
	return info.Checksum, false, nil
}
