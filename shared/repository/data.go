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
	"sync"

	"github.com/tablevault/tablevault/shared/crypt"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/vault"
)

// DataWriter is a shard or an index on its way to the store: sealed, hashed and counted
// while it is written. It ends with Finish or Abort.
type DataWriter struct {
	name   string
	plain  io.WriteCloser
	pipe   *io.PipeWriter
	sum    hash.Hash
	bytes  int64
	stored chan stored
}

// stored is what the store has to say of an object.
type stored struct {
	info object.Info
	err  error
}

// CreateData begins a shard or an index, sealed as its backup's plan says.
func (r *Repository) CreateData(ctx context.Context, name string, e vault.Encryption) (*DataWriter, error) {
	sealed, pipe := io.Pipe()
	w := &DataWriter{name: name, pipe: pipe, sum: sha256.New(), stored: make(chan stored, 1)}
	var info object.Info
	guard.Go(func() (err error) {
		info, err = r.store.Create(ctx, name, sealed)
		return err
	}, func(err error) {
		sealed.CloseWithError(err)
		w.stored <- stored{info, err}
	})
	var err error
	if w.plain, err = crypt.Seal(e, crypt.Data, sealedWriter{w}); err != nil {
		return nil, w.Abort(fmt.Errorf("write %s: %w", name, err))
	}
	return w, nil
}

// Write writes what is to be sealed.
func (w *DataWriter) Write(b []byte) (int, error) { return w.plain.Write(b) }

// sealedWriter takes what is stored.
type sealedWriter struct{ w *DataWriter }

func (s sealedWriter) Write(b []byte) (int, error) {
	s.w.sum.Write(b)
	s.w.bytes += int64(len(b))
	return s.w.pipe.Write(b)
}

// Finish ends the object and returns its record, with the checksum that the store has
// given it.
func (w *DataWriter) Finish() (vault.Object, error) {
	if err := w.plain.Close(); err != nil {
		return vault.Object{}, w.Abort(fmt.Errorf("write %s: %w", w.name, err))
	}
	w.pipe.Close()
	s := <-w.stored
	if s.err != nil {
		return vault.Object{}, fmt.Errorf("write %s: %w", w.name, s.err)
	}
	if s.info.Size != w.bytes {
		return vault.Object{}, fmt.Errorf("write %s: %d bytes were sent, the store has %d", w.name, w.bytes, s.info.Size)
	}
	return vault.Object{Name: w.name, Bytes: w.bytes, SHA256: hex.EncodeToString(w.sum.Sum(nil)), Checksum: s.info.Checksum}, nil
}

// Abort breaks the object off, so that nothing of it is stored, and returns the cause,
// with what the store had to say if the cause does not say it.
func (w *DataWriter) Abort(cause error) error {
	w.pipe.CloseWithError(cause)
	s := <-w.stored
	if s.err != nil && !errors.Is(s.err, cause) && !errors.Is(cause, s.err) {
		return errors.Join(cause, s.err)
	}
	return cause
}

// Data is a shard or an index, open for reading. It is read from the vault, or from the
// replica that it was failed over to; see Repository.FailOver.
type Data struct {
	sealed     sealedAt
	encryption vault.Encryption
	plain      func() (io.ReaderAt, error)
}

// OpenData opens a shard or an index, sealed as its backup's plan says. Nothing is asked
// of a store before something is read. ctx covers the reading.
func (r *Repository) OpenData(ctx context.Context, o vault.Object, e vault.Encryption) *Data {
	sealed := sealedAt{ctx, r, o}
	return &Data{sealed, e, sync.OnceValues(func() (io.ReaderAt, error) { return crypt.OpenAt(e, crypt.Data, sealed, o.Bytes) })}
}

// ReadAt reads from an offset of the plain text on, by one request. What it reads is not
// held against the object's record, which is about the whole: whoever reads a piece has
// to prove it, and returns a BadObject where it can't.
func (d *Data) ReadAt(p []byte, off int64) (int, error) {
	plain, err := d.plain()
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", d.sealed.object.Name, err)
	}
	return plain.ReadAt(p, off)
}

// sealedAt reads an object's stored bytes, at an offset.
type sealedAt struct {
	ctx    context.Context
	repo   *Repository
	object vault.Object
}

func (s sealedAt) ReadAt(p []byte, off int64) (n int, err error) {
	name := s.object.Name
	body, _, err := s.repo.storeOf(name).Open(s.ctx, name, off, int64(len(p)))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, object.ErrRange) {
		return 0, &BadObject{s.object, err}
	}
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	defer body.Close()
	for n < len(p) && err == nil {
		var m int
		m, err = body.Read(p[n:])
		n += m
	}
	switch {
	case n == len(p):
		return n, nil
	case err == io.EOF:
		return n, err
	}
	return n, fmt.Errorf("read %s: %w", name, err)
}

// Stream is a shard or an index that is read from its beginning. It counts and hashes the
// stored bytes, and at its end, End holds it against its record.
type Stream struct {
	want  vault.Object
	body  io.ReadCloser
	plain io.Reader // of body, opened
	sum   hash.Hash
	size  int64
	// err is the store's, which a format may take for the end of the object: a stream
	// that breaks off is no truncated object.
	err error
}

// Stream reads the whole from its beginning, by one request.
func (d *Data) Stream() (*Stream, error) {
	s, err := d.sealed.repo.stream(d.sealed.ctx, d.sealed.object)
	if err != nil {
		return nil, err
	}
	if s.plain, err = crypt.Open(d.encryption, crypt.Data, (*storedStream)(s)); err != nil {
		s.Close()
		return nil, s.Blame(err)
	}
	return s, nil
}

// stream opens an object of the vault, or of the replica that it is read from, for its
// stored bytes.
func (r *Repository) stream(ctx context.Context, o vault.Object) (*Stream, error) {
	body, _, err := r.storeOf(o.Name).Open(ctx, o.Name, 0, -1)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &BadObject{o, fmt.Errorf("%w: it is gone: %w", vault.ErrCorrupt, err)}
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", o.Name, err)
	}
	return &Stream{want: o, body: body, sum: sha256.New()}, nil
}

func (s *Stream) Read(p []byte) (int, error) { return s.plain.Read(p) }

// storedStream is a stream's stored bytes.
type storedStream Stream

func (s *storedStream) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	s.sum.Write(p[:n])
	s.size += int64(n)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// Close ends the reading, before the end too.
func (s *Stream) Close() { s.body.Close() }

// Blame tells what an error means that a format has returned while it was read from the
// stream: that the store failed, or that the object is bad.
func (s *Stream) Blame(err error) error {
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

// End holds the object against its record, once all of it was read.
func (s *Stream) End() error {
	if sum := hex.EncodeToString(s.sum.Sum(nil)); s.size != s.want.Bytes || sum != s.want.SHA256 {
		return &BadObject{s.want, fmt.Errorf("%w: %d bytes with sha256 %s, written were %d with %s", vault.ErrCorrupt, s.size, sum, s.want.Bytes, s.want.SHA256)}
	}
	return nil
}
