// Package objectmeter counts what is asked of object stores.
//
// A bucket is counted on the wire, request by request, as it is billed; a store without a wire by the calls of the port:
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

// Usage is what was asked of a store, by kind. Failed calls count as well.
type Usage struct {
	// Create is what writes: on the wire each part of an upload, its beginning and its end is a request of its own.
	Create Count
	// Open is what reads content, and Stat what asks about it or about the bucket.
	Open, Stat Count
	List       Count
	// Delete is what deletes an object, and on the wire what gives an upload up.
	Delete Count
}

// Count is the requests of a kind and the bytes of content that went to the store or came from it. What was opened counts
// as far as it was read. A listing is a request for each page that was begun, and one if there is nothing to list; an Open
// that reads nothing is counted as a Stat.
type Count struct {
	Requests, Bytes int64
}

// Sub returns what was used since before.
func (u Usage) Sub(before Usage) Usage {
	return Usage{
		Create: u.Create.sub(before.Create),
		Open:   u.Open.sub(before.Open),
		Stat:   u.Stat.sub(before.Stat),
		List:   u.List.sub(before.List),
		Delete: u.Delete.sub(before.Delete),
	}
}

func (c Count) sub(before Count) Count {
	return Count{c.Requests - before.Requests, c.Bytes - before.Bytes}
}

// LogValue has the requests of each kind, and the bytes of content that were written and read.
func (u Usage) LogValue() slog.Value {
	return slog.GroupValue(
		slog.Int64("create", u.Create.Requests), slog.Int64("open", u.Open.Requests), slog.Int64("stat", u.Stat.Requests),
		slog.Int64("list", u.List.Requests), slog.Int64("delete", u.Delete.Requests),
		slog.Int64("bytes_written", u.Create.Bytes), slog.Int64("bytes_read", u.Open.Bytes))
}

// Meter counts. Its zero value is ready to use, for any number of stores.
type Meter struct {
	mu    sync.Mutex
	usage Usage
}

// Usage returns what was asked so far.
func (m *Meter) Usage() Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.usage
}

// LogValue is that of the Usage at the moment.
func (m *Meter) LogValue() slog.Value { return m.Usage().LogValue() }

// add adds to one of the counts in m.usage.
func (m *Meter) add(count *Count, requests, bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	count.Requests += requests
	count.Bytes += bytes
}

// Transport returns a transport that does what the given one does, and counts it: requests to a bucket of OSS or S3.
func (m *Meter) Transport(t http.RoundTripper) http.RoundTripper { return &transport{m, t} }

type transport struct {
	meter *Meter
	next  http.RoundTripper
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	count := t.meter.kind(r)
	t.meter.add(count, 1, 0)
	if r.Body != nil && r.Body != http.NoBody {
		counted := *r
		counted.Body = body{reader{t.meter, count, r.Body}, r.Body}
		r = &counted
	}
	answer, err := t.next.RoundTrip(r)
	if err == nil && count == &t.meter.usage.Open && answer.StatusCode < 300 {
		answer.Body = body{reader{t.meter, count, answer.Body}, answer.Body}
	}
	return answer, err
}

// kind is where a request counts. OSS and S3 write them alike.
func (m *Meter) kind(r *http.Request) *Count {
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
	s.add(&s.usage.Create, 1, 0)
	return s.store.Create(ctx, name, reader{s.Meter, &s.usage.Create, r})
}

// Open opens an object.
func (s *Store) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, object.Info, error) {
	if n == 0 {
		s.add(&s.usage.Stat, 1, 0)
		return s.store.Open(ctx, name, off, 0)
	}
	s.add(&s.usage.Open, 1, 0)
	r, info, err := s.store.Open(ctx, name, off, n)
	if err != nil {
		return nil, object.Info{}, err
	}
	return body{reader{s.Meter, &s.usage.Open, r}, r}, info, nil
}

// List lists objects.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		s.add(&s.usage.List, 1, 0)
		listed := 0
		for info, err := range s.store.List(ctx, prefix, after) {
			if err == nil && listed > 0 && listed%Page == 0 {
				s.add(&s.usage.List, 1, 0)
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
	s.add(&s.usage.Delete, 1, 0)
	return s.store.Delete(ctx, name)
}

// reader counts the bytes that are read through it.
type reader struct {
	meter *Meter
	count *Count
	r     io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.meter.add(r.count, 0, int64(n))
	return n, err
}
