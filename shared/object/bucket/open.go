package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"time"

	"github.com/tablevault/tablevault/shared/object"
)

// Source is a bucket that is read.
type Source interface {
	// Head asks for an object's records. The error matches fs.ErrNotExist if there is
	// none. The checksum is empty if the bucket has none of the whole object.
	Head(ctx context.Context, name string) (object.Info, error)

	// Get asks for n bytes from off on, or for all to the end if n < 0, of the object
	// that has a tag, or of any if the tag is empty, and returns the object's tag. The
	// error matches ErrRange if nothing begins there, ErrChanged if the object has
	// another tag, and fs.ErrNotExist if there is none. The body ends with ctx.
	Get(ctx context.Context, name string, off, n int64, tag string) (body io.ReadCloser, info object.Info, is string, err error)
}

// What Get says of an object.
var (
	ErrRange   = errors.New("the store has nothing there")
	ErrChanged = errors.New("the object is not what it was")
)

// Open opens an object as object.Store.Open does, but that the Info has no checksum, with
// n being 0, where the bucket has none. A stream that breaks off is taken up again where
// it broke, until so many in a row broke before they delivered anything.
func Open(ctx context.Context, s Source, name string, off, n int64, attempts int) (io.ReadCloser, object.Info, error) {
	if n == 0 || off < 0 {
		info, err := s.Head(ctx, name)
		if err == nil && (off < 0 || off > info.Size) {
			err = outside(off, info.Size)
		}
		return http.NoBody, info, err
	}
	body, info, tag, err := s.Get(ctx, name, off, n, "")
	if errors.Is(err, ErrRange) {
		// Nothing begins there: the object ends there, or before.
		info, err := s.Head(ctx, name)
		switch {
		case err != nil:
		case off > info.Size:
			err = outside(off, info.Size)
		case off < info.Size:
			err = fmt.Errorf("the store refused to read from byte %d of %d", off, info.Size)
		}
		return http.NoBody, info, err
	}
	if err != nil {
		return nil, info, err
	}
	left := info.Size - off
	if n > 0 {
		left = min(left, n)
	}
	return &stream{source: s, ctx: ctx, name: name, off: off, left: left, tag: tag, body: body, attempts: attempts}, info, nil
}

func outside(off, size int64) error {
	return fmt.Errorf("%w: %d of %d bytes", object.ErrRange, off, size)
}

// stream reads a part of an object, and asks for the rest when it breaks off.
type stream struct {
	source Source
	ctx    context.Context
	name   string
	off    int64
	left   int64
	tag    string
	body   io.ReadCloser // nil after it broke
	// broken counts the streams in a row that broke before they delivered anything.
	broken, attempts int
	err              error
}

func (r *stream) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if err := r.ctx.Err(); err != nil {
		r.err = fmt.Errorf("read %s: %w", r.name, err)
		return 0, r.err
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	if r.body == nil {
		body, _, _, err := r.source.Get(r.ctx, r.name, r.off, r.left, r.tag)
		if err != nil {
			r.err = fmt.Errorf("read %s from byte %d on: %w", r.name, r.off, gone(err))
			return 0, r.err
		}
		r.body = body
	}
	n, err := r.body.Read(p[:min(int64(len(p)), r.left)])
	r.off += int64(n)
	r.left -= int64(n)
	if n > 0 {
		r.broken = 0
	}
	if r.left == 0 || err == nil {
		return n, nil
	}
	// It broke off. What was delivered is right; the rest is asked for with the next
	// Read.
	r.body.Close()
	r.body = nil
	if cause := r.ctx.Err(); cause != nil {
		r.err = fmt.Errorf("read %s: %w", r.name, cause)
		return n, r.err
	}
	if r.broken++; r.broken >= r.attempts {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		r.err = fmt.Errorf("read %s from byte %d on: %d streams broke off: %w", r.name, r.off, r.broken, err)
		return n, r.err
	}
	return n, nil
}

// gone says that what is asked for anew is not what was opened.
func gone(err error) error {
	if errors.Is(err, ErrChanged) || errors.Is(err, ErrRange) || errors.Is(err, fs.ErrNotExist) {
		return errors.New("the object was deleted meanwhile")
	}
	return err
}

func (r *stream) Close() error {
	if r.err == nil {
		r.err = fmt.Errorf("read %s: %w", r.name, fs.ErrClosed)
	}
	if r.body == nil {
		return nil
	}
	body := r.body
	r.body = nil
	// What the store still says, having been hung up on, does not matter any more.
	body.Close()
	return nil
}

// stallLimit is how long a body may deliver nothing before it counts as broken.
const stallLimit = time.Minute

// Body is the body of an answer, whose request ends with cancel: when it is closed, and
// when it delivers nothing for too long.
func Body(answer io.ReadCloser, cancel context.CancelFunc) io.ReadCloser {
	return &body{answer, cancel, stallLimit}
}

type body struct {
	answer io.ReadCloser
	cancel context.CancelFunc
	limit  time.Duration
}

func (b *body) Read(p []byte) (int, error) {
	timer := time.AfterFunc(b.limit, b.cancel)
	defer timer.Stop()
	return b.answer.Read(p)
}

func (b *body) Close() error {
	b.cancel()
	return b.answer.Close()
}
