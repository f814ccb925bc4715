// Package objectmeter counts what is asked of object stores.
//
// A bucket is counted on the wire, request by request, as it is billed; a store without a
// wire by the calls of the port. There, a listing is a request for each page that was
// begun, and one if there is nothing to list, and an Open that reads nothing is counted
// as a Stat. What was opened counts as far as it was read.
//
//	var meter objectmeter.Meter
//	config.Transport = meter.Transport(bucket.Transport())   // of a bucket
//	store := meter.Store(directory)                          // of a directory
//	before := meter.Usage()
//	seal(ctx, store)
//	cost := meter.Usage().Sub(before)
package objectmeter

import (
	"context"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"sync"

	"github.com/tablevault/tablevault/shared/object"
)

// Page is the number of names in one answer to a request to list.
const Page = 1000

// Meter counts. Its zero value is ready to use, for any number of stores.
type Meter struct {
	mu    sync.Mutex
	usage object.Usage
}

// Usage returns what was asked so far.
func (m *Meter) Usage() object.Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.usage
}

// LogValue is that of the Usage at the moment.
func (m *Meter) LogValue() slog.Value { return m.Usage().LogValue() }

// add adds n to one of the counts in m.usage.
func (m *Meter) add(count *int64, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	*count += n
}

// Transport returns a transport that does what the given one does, and counts it:
// requests to a bucket of OSS or S3.
func (m *Meter) Transport(t http.RoundTripper) http.RoundTripper { return &transport{m, t} }

type transport struct {
	meter *Meter
	next  http.RoundTripper
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	used := &t.meter.usage
	count := t.meter.kind(r)
	t.meter.add(count, 1)
	if count == &used.Create && r.Body != nil && r.Body != http.NoBody {
		counted := *r
		counted.Body = body{reader{t.meter, &used.Written, r.Body}, r.Body}
		r = &counted
	}
	answer, err := t.next.RoundTrip(r)
	if err == nil && count == &used.Open && answer.StatusCode < 300 {
		answer.Body = body{reader{t.meter, &used.Read, answer.Body}, answer.Body}
	}
	return answer, err
}

// kind is where a request counts. OSS and S3 write them alike.
func (m *Meter) kind(r *http.Request) *int64 {
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodPut, r.Method == http.MethodPost:
		return &m.usage.Create
	case r.Method == http.MethodDelete:
		return &m.usage.Delete
	case r.Method != http.MethodGet, q.Has("versioning"), q.Has("worm"), q.Has("uploadId"):
		return &m.usage.Stat
	case q.Has("list-type"), q.Has("uploads"), q.Has("versions"):
		return &m.usage.List
	}
	return &m.usage.Open
}

// body is a body that counts.
type body struct {
	io.Reader
	io.Closer
}

// Store is a store that counts.
type Store struct {
	*Meter
	store object.Store
}

var _ object.Store = (*Store)(nil)

// New returns a store that does what the given one does, and counts it.
func New(store object.Store) *Store { return new(Meter).Store(store) }

// Store returns a store that does what the given one does, and counts it.
func (m *Meter) Store(store object.Store) *Store { return &Store{m, store} }

// Create creates an object.
func (s *Store) Create(ctx context.Context, name string, r io.Reader) (object.Info, error) {
	s.add(&s.usage.Create, 1)
	return s.store.Create(ctx, name, reader{s.Meter, &s.usage.Written, r})
}

// Open opens an object.
func (s *Store) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, object.Info, error) {
	if n == 0 {
		s.add(&s.usage.Stat, 1)
		return s.store.Open(ctx, name, off, 0)
	}
	s.add(&s.usage.Open, 1)
	r, info, err := s.store.Open(ctx, name, off, n)
	if err != nil {
		return nil, object.Info{}, err
	}
	return body{reader{s.Meter, &s.usage.Read, r}, r}, info, nil
}

// List lists objects.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		s.add(&s.usage.List, 1)
		listed := 0
		for info, err := range s.store.List(ctx, prefix, after) {
			if err == nil && listed > 0 && listed%Page == 0 {
				s.add(&s.usage.List, 1)
			}
			listed++
			if !yield(info, err) {
				return
			}
		}
	}
}

// Delete deletes an object.
func (s *Store) Delete(ctx context.Context, name string) error {
	s.add(&s.usage.Delete, 1)
	return s.store.Delete(ctx, name)
}

// reader counts the bytes that are read through it.
type reader struct {
	meter *Meter
	count *int64
	r     io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.meter.add(r.count, int64(n))
	return n, err
}
