package multipart

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"
)

// bucket is one object of a bucket in memory, which notes what it is asked.
type bucket struct {
	mu       sync.Mutex
	object   []byte // nil: none
	put      bool
	parts    map[int][]byte
	begun    int
	aborted  int
	inFlight atomic.Int32
	most     atomic.Int32

	fail func(doing string, number int) error
	wait func(ctx context.Context) error
}

func (b *bucket) strike(doing string, number int) error {
	if b.fail == nil {
		return nil
	}
	return b.fail(doing, number)
}

func (b *bucket) Put(ctx context.Context, body *Body) error {
	if err := errors.Join(ctx.Err(), b.strike("put", 0)); err != nil {
		return err
	}
	content, err := io.ReadAll(body.Reader())
	b.object, b.put = append([]byte{}, content...), true
	return err
}

func (b *bucket) Begin(ctx context.Context) (string, error) {
	if err := errors.Join(ctx.Err(), b.strike("begin", 0)); err != nil {
		return "", err
	}
	b.begun++
	b.parts = map[int][]byte{}
	return "upload", nil
}

func (b *bucket) Part(ctx context.Context, upload string, number int, body *Body) (string, error) {
	now := b.inFlight.Add(1)
	defer b.inFlight.Add(-1)
	for most := b.most.Load(); now > most && !b.most.CompareAndSwap(most, now); most = b.most.Load() {
	}
	if b.wait != nil {
		if err := b.wait(ctx); err != nil {
			return "", err
		}
	}
	if err := b.strike("part", number); err != nil {
		return "", err
	}
	content, err := io.ReadAll(body.Reader())
	if err != nil || int64(len(content)) != body.Size() || upload != "upload" {
		return "", fmt.Errorf("%d bytes of %d for %s: %w", len(content), body.Size(), upload, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.parts[number] = content
	return fmt.Sprint("tag ", number), ctx.Err()
}

func (b *bucket) Complete(ctx context.Context, upload string, parts []Part) error {
	if err := errors.Join(ctx.Err(), b.strike("complete", 0)); err != nil {
		return err
	}
	content := []byte{}
	for i, p := range parts {
		if p.Number != i+1 || p.Tag != fmt.Sprint("tag ", p.Number) || p.Size != int64(len(b.parts[p.Number])) {
			return fmt.Errorf("part %d is %+v", i, p)
		}
		content = append(content, b.parts[p.Number]...)
	}
	b.object, b.parts = content, nil
	return nil
}

func (b *bucket) Abort(ctx context.Context, upload string) error {
	if b.inFlight.Load() > 0 {
		return errors.New("aborted while a part was on its way")
	}
	if err := errors.Join(ctx.Err(), b.strike("abort", 0)); err != nil {
		return err
	}
	b.aborted++
	b.parts = nil
	return nil
}

func content(size int) []byte {
	p := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(size)}).Read(p)
	return p
}

// Bodies of all lengths around the edges of chunks and parts come whole, however they are
// read.
func TestUpload(t *testing.T) {
	const part = 2*chunk + 100
	u := New(Config{PartSize: part, Parallel: 3})
	for _, size := range []int{0, 1, chunk - 1, chunk, chunk + 1, part - 1, part, part + 1, part + 511, part + 513, 2 * part, 2*part + 1, 7*part - 1, 9 * part} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"plain":             func(r io.Reader) io.Reader { return r },
			"end with the data": iotest.DataErrReader,
			"half":              iotest.HalfReader,
			"pipe": func(r io.Reader) io.Reader {
				pr, pw := io.Pipe()
				go func() { _, err := io.Copy(pw, r); pw.CloseWithError(err) }()
				return pr
			},
		} {
			b := &bucket{}
			want := content(size)
			got, err := u.Upload(t.Context(), wrap(bytes.NewReader(want)), b)
			if err != nil || got != int64(size) || !bytes.Equal(b.object, want) {
				t.Errorf("%d bytes, %s: %d uploaded, %d stored, %v", size, name, got, len(b.object), err)
			}
			if b.put != (size <= part) || b.aborted > 0 {
				t.Errorf("%d bytes, %s: stored in one request: %v, aborted %d times", size, name, b.put, b.aborted)
			}
		}
	}
}

// Whatever breaks, nothing is stored, the upload is aborted once all parts are back, and
// the error says what broke.
func TestFailures(t *testing.T) {
	const part = chunk
	broken := errors.New("it broke")
	u := New(Config{PartSize: part, Parallel: 3, MaxParts: 8})
	for name, c := range map[string]struct {
		size  int
		fail  func(doing string, number int) error
		wrap  func(io.Reader) io.Reader
		want  error
		begun bool
	}{
		"put":            {size: 10, fail: func(doing string, _ int) error { return map[string]error{"put": broken}[doing] }, want: broken},
		"begin":          {size: 5 * part, fail: func(doing string, _ int) error { return map[string]error{"begin": broken}[doing] }, want: broken},
		"first part":     {size: 5 * part, fail: at("part", 1, broken), want: broken, begun: true},
		"last part":      {size: 5 * part, fail: at("part", 5, broken), want: broken, begun: true},
		"complete":       {size: 5 * part, fail: at("complete", 0, broken), want: broken, begun: true},
		"too long":       {size: 9 * part, want: ErrTooLong, begun: true},
		"reader at once": {wrap: func(io.Reader) io.Reader { return iotest.ErrReader(broken) }, want: broken},
		"reader later": {size: 3*part + 5, want: broken, begun: true,
			wrap: func(r io.Reader) io.Reader { return io.MultiReader(r, iotest.ErrReader(broken)) }},
		"reader at the edge": {size: part, want: broken,
			wrap: func(r io.Reader) io.Reader { return io.MultiReader(r, iotest.ErrReader(broken)) }},
		"reader without progress": {wrap: func(io.Reader) io.Reader { return idle{} }, want: io.ErrNoProgress},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bucket{fail: c.fail}
			var r io.Reader = bytes.NewReader(content(c.size))
			if c.wrap != nil {
				r = c.wrap(r)
			}
			if _, err := u.Upload(t.Context(), r, b); !errors.Is(err, c.want) {
				t.Errorf("Upload: %v, want %v", err, c.want)
			}
			if b.object != nil || b.parts != nil || (b.begun > 0) != c.begun || b.aborted != b.begun {
				t.Errorf("object of %d bytes, %d parts, %d begun, %d aborted", len(b.object), len(b.parts), b.begun, b.aborted)
			}
		})
	}
	if len(u.shared) > 0 {
		t.Errorf("%d parts of the shared budget were not given back", len(u.shared))
	}
}

func at(doing string, number int, err error) func(string, int) error {
	return func(d string, n int) error {
		if d == doing && n == number {
			return err
		}
		return nil
	}
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

// A context that ends is what the error says, also if it ended for a reason of its own,
// and the abort has another.
func TestContext(t *testing.T) {
	reason := errors.New("the shift is over")
	u := New(Config{PartSize: chunk})
	for _, size := range []int{0, 100, chunk, 3 * chunk} {
		ctx, cancel := context.WithCancelCause(t.Context())
		b := &bucket{}
		r := io.MultiReader(bytes.NewReader(content(size)), readerFunc(func([]byte) (int, error) { cancel(reason); return 0, io.EOF }))
		if _, err := u.Upload(ctx, r, b); !errors.Is(err, context.Canceled) {
			t.Errorf("ended after %d bytes: %v", size, err)
		}
		if b.object != nil || b.aborted != b.begun || (b.begun > 0) != (size > chunk) {
			t.Errorf("ended after %d bytes: object %v, %d begun, %d aborted", size, b.object != nil, b.begun, b.aborted)
		}
	}
	// While all parts hang.
	ctx, cancel := context.WithCancel(t.Context())
	b := &bucket{wait: func(ctx context.Context) error { cancel(); <-ctx.Done(); return ctx.Err() }}
	if _, err := u.Upload(ctx, bytes.NewReader(content(20*chunk)), b); !errors.Is(err, context.Canceled) || b.aborted != 1 {
		t.Errorf("hanging parts: %v, %d aborted", err, b.aborted)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// An abort that fails is told beside what it was for.
func TestAbortFails(t *testing.T) {
	broken, worse := errors.New("it broke"), errors.New("and the abort, too")
	b := &bucket{fail: func(doing string, _ int) error {
		return map[string]error{"complete": broken, "abort": worse}[doing]
	}}
	_, err := New(Config{PartSize: chunk}).Upload(t.Context(), bytes.NewReader(content(2*chunk)), b)
	if !errors.Is(err, broken) || !errors.Is(err, worse) {
		t.Errorf("%v", err)
	}
}

// Uploads of which each is fed by one hand in turn all get on, however small the budget
// is.
func TestManyDependOnEachOther(t *testing.T) {
	const many, part = 6, chunk
	u := New(Config{PartSize: part, Parallel: 2})
	var all sync.WaitGroup
	writers := make([]*io.PipeWriter, many)
	buckets := make([]*bucket, many)
	for i := range many {
		r, w := io.Pipe()
		writers[i], buckets[i] = w, &bucket{}
		all.Go(func() {
			if _, err := u.Upload(t.Context(), r, buckets[i]); err != nil {
				t.Error(err)
			}
		})
	}
	piece := content(part/2 + 1)
	for range 8 {
		for _, w := range writers {
			w.Write(piece)
		}
	}
	for _, w := range writers {
		w.Close()
	}
	all.Wait()
	for _, b := range buckets {
		if !bytes.Equal(b.object, bytes.Repeat(piece, 8)) {
			t.Errorf("%d bytes", len(b.object))
		}
	}
}

// Parts go side by side as far as the budget lets them, and memory does not grow with the
// body.
func TestBudget(t *testing.T) {
	const part, parallel, size = 4 * chunk, 3, 400 * chunk
	u := New(Config{PartSize: part, Parallel: parallel})
	b := &sink{bucket: bucket{wait: func(context.Context) error { time.Sleep(100 * time.Microsecond); return nil }}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if n, err := u.Upload(t.Context(), io.LimitReader(zeros{}, size), b); err != nil || n != size {
		t.Fatal(n, err)
	}
	runtime.ReadMemStats(&after)
	if most := b.most.Load(); most < 2 || most > parallel {
		t.Errorf("%d parts at once, want 2 to %d", most, parallel)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > size/2 {
		t.Errorf("%d bytes allocated for %d", took, size)
	}
}

// sink forgets its parts.
type sink struct{ bucket }

func (s *sink) Part(ctx context.Context, upload string, number int, body *Body) (string, error) {
	now := s.inFlight.Add(1)
	defer s.inFlight.Add(-1)
	for most := s.most.Load(); now > most && !s.most.CompareAndSwap(most, now); most = s.most.Load() {
	}
	_, err := io.Copy(io.Discard, body.Reader())
	return "", errors.Join(err, s.wait(ctx))
}

func (s *sink) Complete(context.Context, string, []Part) error { return nil }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// Readers read what is there, from where they are put, and nothing after the body's time.
func TestBody(t *testing.T) {
	u := New(Config{})
	want := content(2*chunk + 1000)
	b := u.newBody()
	if err := (&source{ctx: t.Context(), r: bytes.NewReader(want)}).fill(b, 5<<20); err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(b.Reader(), want); err != nil {
		t.Error(err)
	}
	var hashed bytes.Buffer
	if n, err := b.WriteTo(&hashed); err != nil || n != b.Size() || !bytes.Equal(hashed.Bytes(), want) {
		t.Errorf("WriteTo: %d of %d bytes, %v", n, b.Size(), err)
	}
	for _, from := range []int64{0, 1, chunk - 1, chunk, 2*chunk + 999, b.Size(), b.Size() + 1} {
		r, rest := b.Reader(), want[min(from, b.Size()):]
		if _, err := r.Seek(from, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		hashed.Reset()
		if n, err := r.(io.WriterTo).WriteTo(&hashed); err != nil || n != int64(len(rest)) || !bytes.Equal(hashed.Bytes(), rest) {
			t.Errorf("a reader writes %d bytes from %d on, %v, want %d", n, from, err, len(rest))
		}
	}
	late := b.Reader()
	if _, err := io.ReadFull(late, make([]byte, 1000)); err != nil {
		t.Error(err)
	}
	b.free()
	if n, err := late.Read(make([]byte, 1000)); n > 0 || err == nil || err == io.EOF {
		t.Errorf("read after the body's time: %d bytes, %v", n, err)
	}
	if n, err := late.(io.WriterTo).WriteTo(io.Discard); n > 0 || err == nil {
		t.Errorf("write after the body's time: %d bytes, %v", n, err)
	}
}
