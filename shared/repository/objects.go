package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/time/rate"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vault/shard"
)

// BadObject says which object of the vault is not what it should be. It matches
// vault.ErrCorrupt.
type BadObject struct {
	Object vault.Object
	Err    error
}

func (e *BadObject) Error() string { return e.Object.Name + ": " + e.Err.Error() }

func (e *BadObject) Unwrap() error { return e.Err }

func (e *BadObject) Is(target error) bool { return target == vault.ErrCorrupt }

// Corrupt says whether an error is about what stands in the vault, and not about the way
// there.
func Corrupt(err error) bool {
	for _, mark := range []error{
		vault.ErrCorrupt, vault.ErrVersion, shard.ErrCorrupt, shard.ErrVersion, plainbuffer.ErrCorrupt, fs.ErrNotExist, object.ErrTooLong,
	} {
		if errors.Is(err, mark) {
			return true
		}
	}
	return false
}

// Present asks the store whether it holds an object as it was written.
func (r *Repository) Present(ctx context.Context, o vault.Object) error {
	sizeOnly, err := r.presentIn(ctx, r.store, o)
	if err == nil && sizeOnly {
		err = fmt.Errorf("%w: the checksum of %s was recorded as %q, which is not of this store", vault.ErrCorrupt, o.Name, o.Checksum)
	}
	return err
}

// presentIn asks a store whether it holds an object as it was written, by its size and
// its checksum. Where the store keeps another kind of checksums than the recorded one,
// what counts is the checksum that the object had when it was copied there. sizeOnly says
// that no record tells that one, so that only the size was compared.
func (r *Repository) presentIn(ctx context.Context, store object.Store, o vault.Object) (sizeOnly bool, err error) {
	info, err := object.Stat(ctx, store, o.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("%w: %s is gone", vault.ErrCorrupt, o.Name)
	case err != nil:
		return false, fmt.Errorf("ask for %s: %w", o.Name, err)
	case info.Size != o.Bytes:
		return false, fmt.Errorf("%w: %s has %d bytes in the store, %d were written", vault.ErrCorrupt, o.Name, info.Size, o.Bytes)
	case SameKind(info.Checksum, o.Checksum):
		if info.Checksum != o.Checksum {
			return false, fmt.Errorf("%w: %s has the checksum %s in the store, it was written with %s", vault.ErrCorrupt, o.Name, info.Checksum, o.Checksum)
		}
		return false, nil
	}
	copied, err := r.copiedChecksum(ctx, store, o)
	if err != nil {
		return false, fmt.Errorf("ask how %s was copied: %w", o.Name, err)
	}
	if copied != "" && copied != info.Checksum {
		return false, fmt.Errorf("%w: %s has the checksum %s in the store, it was copied with %s", vault.ErrCorrupt, o.Name, info.Checksum, copied)
	}
	return copied == "", nil
}

// PresentAnywhere asks the vault's store, and then those of its replicas, until one holds
// an object as it was written.
func (r *Repository) PresentAnywhere(ctx context.Context, o vault.Object) (sizeOnly bool, err error) {
	err = r.reading(ctx, o, func() (err error) {
		sizeOnly, err = r.presentIn(ctx, r.storeOf(o.Name), o)
		return err
	})
	return sizeOnly, err
}

// ErrTime says that time is up.
var ErrTime = errors.New("time is up")

// Replicate creates an object of this vault in another store: with the bytes that its
// record is about, or not at all.
func (r *Repository) Replicate(ctx context.Context, o vault.Object, to object.Store, limit *rate.Limiter) (info object.Info, err error) {
	err = r.FailOver(ctx, func() (err error) {
		info, err = r.replicate(ctx, o, to, limit)
		return err
	})
	return info, err
}

func (r *Repository) replicate(ctx context.Context, o vault.Object, to object.Store, limit *rate.Limiter) (object.Info, error) {
	from, err := r.stream(ctx, o)
	if err != nil {
		return object.Info{}, err
	}
	defer from.Close()
	info, err := to.Create(ctx, o.Name, &checkedReader{ctx, from, limit})
	if err != nil {
		return object.Info{}, fmt.Errorf("copy %s: %w", o.Name, err)
	}
	if info.Size != o.Bytes {
		return object.Info{}, fmt.Errorf("copy %s: %d bytes were sent, the store has %d", o.Name, o.Bytes, info.Size)
	}
	return info, nil
}

// Check reads an object to its end, and compares it with its record.
func (r *Repository) Check(ctx context.Context, o vault.Object, limit *rate.Limiter) error {
	return r.FailOver(ctx, func() error {
		from, err := r.stream(ctx, o)
		if err != nil {
			return err
		}
		defer from.Close()
		_, err = io.Copy(io.Discard, &checkedReader{ctx, from, limit})
		var bad *BadObject
		if err != nil && !errors.As(err, &bad) {
			return fmt.Errorf("read %s: %w", o.Name, err)
		}
		return err
	})
}

// checkedReader reads an object, within a budget if there is one. It returns io.EOF only
// if the bytes were those that were written.
type checkedReader struct {
	ctx   context.Context
	from  *Stream
	limit *rate.Limiter
}

func (c *checkedReader) Read(p []byte) (int, error) {
	if c.limit != nil {
		p = p[:min(len(p), c.limit.Burst())]
	}
	n, err := (*storedStream)(c.from).Read(p)
	if c.limit != nil && n > 0 {
		if werr := c.limit.WaitN(c.ctx, n); werr != nil {
			return n, fmt.Errorf("%w: %w", ErrTime, werr)
		}
	}
	if err == io.EOF || c.from.size > c.from.want.Bytes {
		if bad := c.from.End(); bad != nil {
			return n, bad
		}
	}
	return n, err
}
