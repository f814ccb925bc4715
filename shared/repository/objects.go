package repository

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"

	"golang.org/x/time/rate"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vault/shard"
)

// BadObject says which object of the vault is not what it should be. It
// matches vault.ErrCorrupt.
type BadObject struct {
	Object vault.Object
	Err    error
}

func (e *BadObject) Error() string { return e.Object.Name + ": " + e.Err.Error() }

func (e *BadObject) Unwrap() error { return e.Err }

func (e *BadObject) Is(target error) bool { return target == vault.ErrCorrupt }

// Corrupt says whether an error is about the bytes of the vault, not about
// getting at them.
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

// Download reads an object of the vault from its beginning and holds it against
// its record: how many bytes there are, and their sha256.
type Download struct {
	want vault.Object
	body io.ReadCloser
	sum  hash.Hash
	size int64
	// err is what the store had to say, as opposed to what a format made of it:
	// a stream that breaks off is no truncated object.
	err error
}

// Download opens an object of the vault, or of the twin that it is read from.
func (r *Repository) Download(ctx context.Context, o vault.Object) (*Download, error) {
	body, _, err := r.StoreOf(o.Name).Open(ctx, o.Name, 0, -1)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &BadObject{o, fmt.Errorf("%w: it is gone: %w", vault.ErrCorrupt, err)}
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", o.Name, err)
	}
	return &Download{want: o, body: body, sum: sha256.New()}, nil
}

// Close ends the reading, before the end too.
func (s *Download) Close() { s.body.Close() }

func (s *Download) Read(b []byte) (int, error) {
	n, err := s.body.Read(b)
	s.sum.Write(b[:n])
	s.size += int64(n)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// Blame says whose an error of a format is: the store's, or the object's.
func (s *Download) Blame(err error) error {
	switch {
	case err == nil:
		return nil
	case s.err != nil:
		return fmt.Errorf("read %s: %w", s.want.Name, s.err)
	case Corrupt(err):
		return &BadObject{s.want, err}
	}
	return fmt.Errorf("read %s: %w", s.want.Name, err)
}

// End holds what was read, which is all of it, against the record.
func (s *Download) End() error {
	if sum := hex.EncodeToString(s.sum.Sum(nil)); s.size != s.want.Bytes || sum != s.want.SHA256 {
		return &BadObject{s.want, fmt.Errorf("%w: %d bytes with sha256 %s, written were %d with %s", vault.ErrCorrupt, s.size, sum, s.want.Bytes, s.want.SHA256)}
	}
	return nil
}

// Present asks the store whether it holds an object as it was written.
func (r *Repository) Present(ctx context.Context, o vault.Object) error {
	sizeOnly, err := r.standing(ctx, r.store, o)
	if err == nil && sizeOnly {
		err = fmt.Errorf("%w: the checksum of %s was recorded as %q, which is not of this store", vault.ErrCorrupt, o.Name, o.Checksum)
	}
	return err
}

// standing asks a store whether it holds an object as it was written: its size,
// and its checksum. Where checksums of the store are of another kind than the
// recorded one, it has to be the one that the object was copied with; sizeOnly
// says that there is no record of that either.
func (r *Repository) standing(ctx context.Context, store object.Store, o vault.Object) (sizeOnly bool, err error) {
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

// StandingSomewhere asks the stores, one after the other, until one holds an
// object as it was written.
func (r *Repository) StandingSomewhere(ctx context.Context, o vault.Object) (sizeOnly bool, err error) {
	for {
		since := r.Turns()
		sizeOnly, err = r.standing(ctx, r.StoreOf(o.Name), o)
		if err == nil || !r.elsewhere(ctx, o, since, err) {
			return sizeOnly, err
		}
	}
}

// ErrTime says that time is up.
var ErrTime = errors.New("time is up")

// Stream creates an object of this vault in another store, with the bytes that
// its record tells or not at all. If it is damaged here, it is taken from a twin.
func (r *Repository) Stream(ctx context.Context, o vault.Object, to object.Store, limit *rate.Limiter) (object.Info, error) {
	for {
		since := r.Turns()
		info, err := r.streamOnce(ctx, o, to, limit)
		var bad *BadObject
		if !errors.As(err, &bad) || !r.Turn(ctx, o, since, bad.Err) {
			return info, err
		}
	}
}

func (r *Repository) streamOnce(ctx context.Context, o vault.Object, to object.Store, limit *rate.Limiter) (object.Info, error) {
	from, err := r.Download(ctx, o)
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
	from, err := r.Download(ctx, o)
	if err != nil {
		return err
	}
	defer from.Close()
	if _, err := io.Copy(io.Discard, &checkedReader{ctx, from, limit}); err != nil {
		return fmt.Errorf("read %s: %w", o.Name, err)
	}
	return nil
}

// checkedReader reads an object, and comes to io.EOF only if the bytes were those
// that were written. It keeps to a budget, if there is one.
type checkedReader struct {
	ctx   context.Context
	from  *Download
	limit *rate.Limiter
}

func (c *checkedReader) Read(p []byte) (int, error) {
	if c.limit != nil {
		p = p[:min(len(p), c.limit.Burst())]
	}
	n, err := c.from.Read(p)
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
