// Package multipart streams a body of unknown length into a bucket, in one request if it
// is short and in parts if it is long, whole or not at all and in bounded memory.
//
//	uploads := multipart.New(multipart.Config{})   // one for all uploads of a store
//	size, err := uploads.Upload(ctx, r, creation) // creation is one object of some bucket
//
// A [Creation] says what a bucket does with one object; each of its methods is one
// request with its retries. Parts are sent side by side while the next is read. A call
// owns the memory of one part, so that it always gets on, whatever other calls do; more
// parts on their way take memory from a budget that all calls share. A short body takes
// no more memory than its length, rounded up to a chunk.
//
// The promises of object.Store.Create that this package keeps: nothing is sent that
// completes the object before r came to its end, with ctx not done; an upload that was
// begun and not completed is aborted, with a context of its own, after the last of its
// parts has returned; r is read by the calling goroutine alone, and not touched after the
// return. What remains for the creation is that Put and Complete take effect once and
// only if the name is free, and to find out after a lost answer whether they did.
package multipart

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Creation is one object that is being created in a bucket. Part is called from several
// goroutines at once, the other methods one at a time.
//
// A Body is valid until the method that it was given to returns.
type Creation interface {
	// Put stores the whole object in one request.
	Put(ctx context.Context, body *Body) error

	// Begin begins an upload in parts and returns its id. After an error there is no
	// upload.
	Begin(ctx context.Context) (upload string, err error)

	// Part stores one part; the numbers begin at 1. It returns what the bucket calls the
	// part, its ETag.
	Part(ctx context.Context, upload string, number int, body *Body) (tag string, err error)

	// Complete makes the parts the object. They come in the order of their numbers,
	// without a gap.
	Complete(ctx context.Context, upload string, parts []Part) error

	// Abort gives an upload up with all of its parts, and succeeds if there is no such
	// upload any more. It is called once after an error of Part or Complete, or when the
	// body ended in an error. The context lasts for AbortTimeout, also when the caller's
	// has ended.
	Abort(ctx context.Context, upload string) error
}

// Part is a part that a bucket has taken.
type Part struct {
	Number int
	Size   int64
	Tag    string
}

// Config says how uploads are cut. Zero values have defaults.
type Config struct {
	// PartSize is the length in bytes of every part but the last, and of the longest body
	// that is sent in one request. Default 5 MiB, the least that S3 takes; OSS takes 100
	// KiB.
	PartSize int64

	// Parallel is the number of parts that are sent or filled at the same time, if there
	// is one upload only; all uploads together have as many parts as there are uploads,
	// and Parallel-1 more. Default 4.
	Parallel int

	// MaxParts is the number of parts that a bucket takes. Default 10000.
	MaxParts int

	// AbortTimeout is the time that Abort has. Default 10 s.
	AbortTimeout time.Duration
}

// chunk is the unit in which memory is taken, so that short bodies take little.
const chunk = 256 << 10

// Uploads does uploads that share a budget of memory.
type Uploads struct {
	config Config
	shared chan struct{} // holds a token for each part in memory beyond the one that each call owns
	chunks sync.Pool     // of *[chunk]byte
}

// New returns a place for the uploads of one store.
func New(c Config) *Uploads {
	if c.PartSize <= 0 {
		c.PartSize = 5 << 20
	}
	if c.Parallel <= 0 {
		c.Parallel = 4
	}
	if c.MaxParts <= 0 {
		c.MaxParts = 10000
	}
	if c.AbortTimeout <= 0 {
		c.AbortTimeout = 10 * time.Second
	}
	u := &Uploads{config: c, shared: make(chan struct{}, c.Parallel-1)}
	u.chunks.New = func() any { return new([chunk]byte) }
	return u
}

// ErrTooLong is matched by the error about a body that has more parts than the bucket
// takes.
var ErrTooLong = errors.New("body is longer than its parts can hold")

// Upload stores all of r as the object and returns its length, or stores nothing and
// returns an error. An error of r is wrapped; so are those of the creation, of which that
// of Put or Complete leaves open whether the object exists.
func (u *Uploads) Upload(ctx context.Context, r io.Reader, t Creation) (size int64, err error) {
	in := &source{ctx: ctx, r: r}
	first := u.newBody()
	err = in.fill(first, u.config.PartSize)
	if err == nil {
		// The body may end just here.
		err = in.peek()
	}
	if err != nil {
		first.free()
		return 0, cause(ctx, ctx, err)
	}
	if in.ended() {
		defer first.free()
		if err := t.Put(ctx, first); err != nil {
			return 0, err
		}
		return first.size, nil
	}
	upload, err := t.Begin(ctx)
	if err != nil {
		first.free()
		return 0, err
	}
	parts, size, err := u.parts(ctx, in, t, upload, first)
	if err == nil {
		err = t.Complete(ctx, upload, parts)
	}
	if err == nil {
		return size, nil
	}
	abort, cancel := context.WithTimeout(context.WithoutCancel(ctx), u.config.AbortTimeout)
	defer cancel()
	if aerr := t.Abort(abort, upload); aerr != nil {
		err = fmt.Errorf("%w; and its parts may be left behind: abort upload %s: %w", err, upload, aerr)
	}
	return 0, err
}

// parts sends a body in parts, the first of which is filled, and returns when all have
// been answered.
func (u *Uploads) parts(callers context.Context, in *source, t Creation, upload string, first *Body) ([]Part, int64, error) {
	ctx, cancel := context.WithCancelCause(callers)
	defer cancel(nil)
	var (
		all  sync.WaitGroup
		mu   sync.Mutex
		sent []Part
		size int64
		own  = make(chan struct{}, 1) // has a token while the part that this call owns is free
	)
	defer all.Wait()

	// send sends a part beside the reading of the next. Its memory goes back to where it
	// came from.
	send := func(number int, body *Body, owned bool) {
		sent = append(sent, Part{Number: number, Size: body.size})
		size += body.size
		all.Go(func() {
			defer func() {
				body.free()
				if owned {
					own <- struct{}{}
				} else {
					<-u.shared
				}
			}()
			tag, err := t.Part(ctx, upload, number, body)
			if err != nil {
				cancel(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			sent[number-1].Tag = tag
		})
	}
	fail := func(err error) ([]Part, int64, error) {
		cancel(err)
		all.Wait()
		// What broke first is the cause of the rest.
		return nil, 0, cause(callers, ctx, err)
	}

	in.ctx = ctx
	send(1, first, true)
	for number := 2; !in.ended(); number++ {
		if number > u.config.MaxParts {
			return fail(fmt.Errorf("%w: more than %d parts of %d bytes; use larger parts", ErrTooLong, u.config.MaxParts, u.config.PartSize))
		}
		owned, err := u.take(ctx, own)
		if err != nil {
			return fail(err)
		}
		body := u.newBody()
		err = in.fill(body, u.config.PartSize)
		if err != nil || body.size == 0 {
			body.free()
			if !owned {
				<-u.shared
			}
			if err != nil {
				return fail(err)
			}
			break
		}
		mu.Lock() // sent may move
		send(number, body, owned)
		mu.Unlock()
	}
	all.Wait()
	if ctx.Err() != nil {
		return nil, 0, cause(callers, ctx, ctx.Err())
	}
	return sent, size, nil
}

// take waits for memory for one more part, that which the call owns or some of the
// shared.
func (u *Uploads) take(ctx context.Context, own <-chan struct{}) (owned bool, err error) {
	select {
	case <-own:
		return true, nil
	default:
	}
	select {
	case <-own:
		return true, nil
	case u.shared <- struct{}{}:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// cause returns why a context that was derived from the caller's ended, matching the
// error of the caller's if that ended first; or err if it did not end.
func cause(callers, ctx context.Context, err error) error {
	switch why := context.Cause(ctx); {
	case why == nil:
		return err
	case callers.Err() != nil && why == context.Cause(callers):
		return callers.Err()
	default:
		return why
	}
}

// source reads a body until its end, or that of a context.
type source struct {
	ctx   context.Context
	r     io.Reader
	ahead []byte // read and not yet in a part
	eof   bool
}

// ended reports whether all of the body is in parts.
func (s *source) ended() bool { return s.eof && len(s.ahead) == 0 }

// read reads at least a byte, or to the end.
func (s *source) read(p []byte) (int, error) {
	for empty := 0; empty < 100; {
		if err := s.ctx.Err(); err != nil {
			return 0, err
		}
		n, err := s.r.Read(p)
		switch {
		case err == io.EOF:
			s.eof = true
			// The end counts only if the context lasted until it.
			return n, s.ctx.Err()
		case err != nil:
			return 0, fmt.Errorf("read its content: %w", err)
		case n > 0:
			return n, nil
		}
		empty++
	}
	return 0, fmt.Errorf("read its content: %w", io.ErrNoProgress)
}

// peek finds out whether the body goes on.
func (s *source) peek() error {
	if s.eof {
		return nil
	}
	p := make([]byte, 512)
	n, err := s.read(p)
	s.ahead = p[:n]
	return err
}

// fill reads into a body until it has size bytes or the source ends.
func (s *source) fill(b *Body, size int64) error {
	for b.size < size && !s.ended() {
		room := b.room(size)
		if len(s.ahead) > 0 {
			n := copy(room, s.ahead)
			s.ahead = s.ahead[n:]
			b.size += int64(n)
			continue
		}
		n, err := s.read(room)
		if err != nil {
			return err
		}
		b.size += int64(n)
	}
	return nil
}

// Body is the content of a request, held in memory.
type Body struct {
	uploads *Uploads
	chunks  []*[chunk]byte
	size    int64
	freed   sync.RWMutex // held for reading while a reader copies
	gone    bool
}

func (u *Uploads) newBody() *Body { return &Body{uploads: u} }

// room returns where the next bytes of a body of at most size bytes go.
func (b *Body) room(size int64) []byte {
	at := b.size % chunk
	if int64(len(b.chunks))*chunk == b.size {
		b.chunks = append(b.chunks, b.uploads.chunks.Get().(*[chunk]byte))
	}
	room := b.chunks[len(b.chunks)-1][at:]
	if left := size - b.size; int64(len(room)) > left {
		room = room[:left]
	}
	return room
}

// free gives the memory back. A reader that is still held by someone, such as the
// connection of a request that was given up, reads no more of it.
func (b *Body) free() {
	b.freed.Lock()
	defer b.freed.Unlock()
	for _, c := range b.chunks {
		b.uploads.chunks.Put(c)
	}
	b.chunks, b.gone = nil, true
}

// Size is the length in bytes.
func (b *Body) Size() int64 { return b.size }

// WriteTo writes the content to w, a hash for example.
func (b *Body) WriteTo(w io.Writer) (int64, error) {
	left := b.size
	for _, c := range b.chunks {
		n, err := w.Write(c[:min(left, chunk)])
		left -= int64(n)
		if err != nil {
			return b.size - left, err
		}
	}
	return b.size, nil
}

// Reader returns a new reader of the content from its beginning. Each try of a request
// takes its own, since the connection of an earlier one may go on reading for a while.
// After the body's time a reader fails.
func (b *Body) Reader() io.ReadSeeker { return &reader{body: b} }

type reader struct {
	body *Body
	pos  int64
}

var errFreed = errors.New("multipart: the request that this body belongs to is over")

func (r *reader) Read(p []byte) (int, error) {
	b := r.body
	b.freed.RLock()
	defer b.freed.RUnlock()
	if b.gone {
		return 0, errFreed
	}
	if r.pos >= b.size {
		return 0, io.EOF
	}
	n := 0
	for n < len(p) && r.pos < b.size {
		c := b.chunks[r.pos/chunk]
		at := r.pos % chunk
		m := copy(p[n:], c[at:min(chunk, at+b.size-r.pos)])
		n += m
		r.pos += int64(m)
	}
	return n, nil
}

// WriteTo writes what is left to w, chunk by chunk, so that hashing needs no copy.
func (r *reader) WriteTo(w io.Writer) (int64, error) {
	begin := r.pos
	for {
		more, err := r.writeChunk(w)
		if err != nil || !more {
			return r.pos - begin, err
		}
	}
}

// writeChunk writes what is left of a chunk, and reports whether it may not be the last.
func (r *reader) writeChunk(w io.Writer) (more bool, err error) {
	b := r.body
	b.freed.RLock()
	defer b.freed.RUnlock()
	if b.gone {
		return false, errFreed
	}
	if r.pos >= b.size {
		return false, nil
	}
	at := r.pos % chunk
	n, err := w.Write(b.chunks[r.pos/chunk][at:min(chunk, at+b.size-r.pos)])
	r.pos += int64(n)
	return true, err
}

func (r *reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.body.size
	}
	if offset < 0 {
		return 0, errors.New("multipart: seek before the beginning of a body")
	}
	r.pos = offset
	return offset, nil
}
