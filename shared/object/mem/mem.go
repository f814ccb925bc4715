// Package mem keeps objects in memory: a complete store for tests and for runs that leave
// nothing behind.
//
//	store := &mem.Store{}
//
// It is as strict as the strictest of the other stores: it refuses a name that is a
// folder of another, and drops what Create read when the context ends at the last moment.
package mem

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tablevault/tablevault/shared/object"
)

// Store is an object store in memory. Its zero value is an empty store.
type Store struct {
	// Now is the store's clock, which dates the objects; nil means time.Now. It is set
	// before the first use.
	Now func() time.Time

	mu      sync.Mutex
	names   []string // sorted
	objects map[string]entry
}

// entry is an object: its content is never written to, so that readers need no lock.
type entry struct {
	info    object.Info
	content []byte
}

var _ object.Store = (*Store)(nil)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Create stores all of r under name.
func (s *Store) Create(ctx context.Context, name string, r io.Reader) (object.Info, error) {
	if err := object.Check(ctx, "create", name, ""); err != nil {
		return object.Info{}, err
	}
	content, err := io.ReadAll(contextReader{ctx, r})
	if err != nil {
		return object.Info{}, fmt.Errorf("create %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return object.Info{}, fmt.Errorf("create %s: %w", name, err)
	}
	if _, taken := s.objects[name]; taken {
		return object.Info{}, fmt.Errorf("create %s: %w", name, fs.ErrExist)
	}
	for i, c := range name {
		if _, taken := s.objects[name[:i]]; c == '/' && taken {
			return object.Info{}, fmt.Errorf("create %s: %s is an object, and can't be a folder as well", name, name[:i])
		}
	}
	i, _ := slices.BinarySearch(s.names, name+"/")
	if i < len(s.names) && strings.HasPrefix(s.names[i], name+"/") {
		return object.Info{}, fmt.Errorf("create %s: it is the folder of %s, and can't be an object as well", name, s.names[i])
	}
	return s.put(name, content), nil
}

// Replace puts content under name, whether or not there is an object, against the rules
// of a store: tests damage objects with it.
func (s *Store) Replace(name string, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(name, bytes.Clone(content))
}

// put files content under name. The caller holds mu.
func (s *Store) put(name string, content []byte) object.Info {
	now := time.Now
	if s.Now != nil {
		now = s.Now
	}
	info := object.Info{
		Name:     name,
		Size:     int64(len(content)),
		Checksum: fmt.Sprintf("crc32c:%08x", crc32.Checksum(content, castagnoli)),
		Modified: now(),
	}
	if s.objects == nil {
		s.objects = make(map[string]entry)
	}
	s.objects[name] = entry{info, content}
	if i, found := slices.BinarySearch(s.names, name); !found {
		s.names = slices.Insert(s.names, i, name)
	}
	return info
}

// Open reads n bytes of an object from byte off on.
func (s *Store) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, object.Info, error) {
	if err := object.Check(ctx, "open", name, ""); err != nil {
		return nil, object.Info{}, err
	}
	s.mu.Lock()
	e, ok := s.objects[name]
	s.mu.Unlock()
	if !ok {
		return nil, object.Info{}, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
	}
	if off < 0 || off > e.info.Size {
		return nil, object.Info{}, fmt.Errorf("open %s of %d bytes at %d: %w", name, e.info.Size, off, object.ErrRange)
	}
	wanted := e.content[off:]
	if n >= 0 && n < int64(len(wanted)) {
		wanted = wanted[:n]
	}
	return io.NopCloser(contextReader{ctx, bytes.NewReader(wanted)}), e.info, nil
}

// List yields the objects whose names begin with prefix and are greater than after, in
// order.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		for _, err := range []error{object.ValidPrefix(prefix), object.ValidPrefix(after)} {
			if err != nil {
				yield(object.Info{}, fmt.Errorf("list: %w", err))
				return
			}
		}
		// The lock is taken for each step, so that the loop body may use the store.
		for last := after; ; {
			if err := ctx.Err(); err != nil {
				yield(object.Info{}, fmt.Errorf("list %s: %w", prefix, err))
				return
			}
			info, ok := s.next(prefix, last)
			if !ok || !yield(info, nil) {
				return
			}
			last = info.Name
		}
	}
}

// next returns the first object with the prefix that comes after the name.
func (s *Store) next(prefix, after string) (object.Info, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := slices.BinarySearch(s.names, max(prefix, after))
	if found && s.names[i] == after {
		i++
	}
	if i == len(s.names) || !strings.HasPrefix(s.names[i], prefix) {
		return object.Info{}, false
	}
	return s.objects[s.names[i]].info, true
}

// Delete removes an object, if there is one.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := object.Check(ctx, "delete", name, ""); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, name)
	if i, found := slices.BinarySearch(s.names, name); found {
		s.names = slices.Delete(s.names, i, i+1)
	}
	return nil
}

// contextReader reads until its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
