// Package objectmeter counts what is asked of an object store, as a bucket bills it.
//
//	metered := objectmeter.New(store)
//	before := metered.Usage()
//	seal(ctx, metered)
//	cost := metered.Usage().Sub(before)
package objectmeter

import (
	"context"
	"io"
	"iter"
	"sync"

	"github.com/tablevault/tablevault/shared/object"
)

// Page is the number of names in one answer to a request to list.
const Page = 1000

// Usage is what was asked of a store, by kind. Failed calls count as well.
type Usage struct {
	Create, Open, Stat, List, Delete Count
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

// Store is a store that counts.
type Store struct {
	store object.Store

	mu    sync.Mutex
	usage Usage
}

var _ object.Store = (*Store)(nil)

// New returns a store that does what the given one does, and counts it.
func New(store object.Store) *Store {
	return &Store{store: store}
}

// Usage returns what was asked so far.
func (s *Store) Usage() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.usage
}

// add adds to one of the counts in s.usage.
func (s *Store) add(count *Count, requests, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	count.Requests += requests
	count.Bytes += bytes
}

// Create creates an object.
func (s *Store) Create(ctx context.Context, name string, r io.Reader) (object.Info, error) {
	s.add(&s.usage.Create, 1, 0)
	return s.store.Create(ctx, name, reader{s, &s.usage.Create, r})
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
	return struct {
		io.Reader
		io.Closer
	}{reader{s, &s.usage.Open, r}, r}, info, nil
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
	store *Store
	count *Count
	r     io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.store.add(r.count, 0, int64(n))
	return n, err
}
