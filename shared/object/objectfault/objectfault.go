// Package objectfault makes chosen calls of an object store fail, hang or wait.
//
// EachCall fails each call of a piece of work in turn, before and after it took effect,
// until the work makes no more:
//
//	for fault := range objectfault.EachCall() {
//		inner := &mem.Store{}
//		err := work(ctx, objectfault.New(inner, fault))
//		if fault.Fired() && err == nil { … } // it was hidden, or retried
//		if err := work(ctx, inner); err != nil { … } // a second run completes
//	}
package objectfault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"sync"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/retry"
)

// Op is a method of object.Store.
type Op string

const (
	Create Op = "create"
	Open   Op = "open"
	List   Op = "list"
	Delete Op = "delete"
)

// When is the point of a call at which a fault strikes.
type When string

const (
	// Before the call has any effect: the store is not asked.
	Before When = "before"

	// Midway is after At bytes or names went through, or at their end if there are fewer.
	// Create then gets the error from the reader it was given, and stores nothing; what
	// was opened, or is listed, breaks off. A Delete has no such point.
	Midway When = "midway"

	// After the call took effect: the object is created, or deleted, and the caller is
	// told otherwise. What was opened, or is listed, comes whole, and then the error in
	// the place of the end. A call that failed by itself is left as it is.
	After When = "after"
)

// Every as a Call strikes every call.
const Every = -1

// ErrInjected is what a fault fails with if it has no other error.
var ErrInjected = errors.New("injected fault")

// Fault strikes one call of a method, or every call. An Open with n == 0 is struck as a
// whole, at each point. A use of a listing is one call.
type Fault struct {
	Op    Op
	Call  int                    // the number of the call, from 0 on, among those that match; or Every
	Match func(name string) bool // which names, or prefixes of listings, are meant; nil means all
	When  When
	At    int64 // bytes or names that go through before a fault strikes Midway

	// What it does: wait for Delay, then wait for the end of the context if Hang is set,
	// then fail with Err, or go on if only a Delay is set. With none of the three it
	// fails with ErrInjected.
	Delay time.Duration
	Hang  bool
	Err   error

	mu    sync.Mutex
	calls int
	fired bool
}

// Reached reports whether the call was made that the fault is to strike.
func (f *Fault) Reached() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls > max(f.Call, 0)
}

// Fired reports whether the fault struck. A Midway fault does not, although it is
// reached, if the bytes or names up to there are never asked for.
func (f *Fault) Fired() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired
}

// String tells a fault from the others that EachCall yields.
func (f *Fault) String() string {
	if f.Call == Every {
		return fmt.Sprintf("every %s, %s", f.Op, f.When)
	}
	return fmt.Sprintf("%s %d, %s", f.Op, f.Call, f.When)
}

// enters counts a call, and reports whether the fault strikes it.
func (f *Fault) enters(op Op, name string) bool {
	if f.Op != op || f.Match != nil && !f.Match(name) {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	return f.Call == Every || f.Call == f.calls-1
}

// strike does what the fault does, and returns the error that the call is to return, if
// any. No fault does nothing.
func (f *Fault) strike(ctx context.Context) error {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	f.fired = true
	f.mu.Unlock()
	if f.Delay > 0 {
		if err := retry.Sleep(ctx, f.Delay); err != nil {
			return fmt.Errorf("%v: %w", f, err)
		}
	}
	switch {
	case f.Hang:
		<-ctx.Done()
		return fmt.Errorf("%v: %w", f, ctx.Err())
	case f.Err != nil:
		return fmt.Errorf("%v: %w", f, f.Err)
	case f.Delay > 0:
		return nil
	default:
		return fmt.Errorf("%v: %w", f, ErrInjected)
	}
}

// EachCall yields faults, each for one run of the work: for each of the methods, or for
// all if none is named, and for each point, call 0, 1, 2 and so on, as long as the run
// before reached its fault.
func EachCall(ops ...Op) iter.Seq[*Fault] {
	if len(ops) == 0 {
		ops = []Op{Create, Open, List, Delete}
	}
	return func(yield func(*Fault) bool) {
		for _, op := range ops {
			for _, when := range []When{Before, Midway, After} {
				if op == Delete && when == Midway {
					continue
				}
				for call := 0; ; call++ {
					f := &Fault{Op: op, Call: call, When: when, At: 1}
					if !yield(f) {
						return
					}
					if !f.Reached() {
						break
					}
				}
			}
		}
	}
}

// Store is a store with faults, which also counts the calls made to it.
type Store struct {
	store  object.Store
	faults []*Fault

	mu    sync.Mutex
	calls map[Op]int
}

var _ object.Store = (*Store)(nil)

// New returns a store that does what the given one does, but for the faults. Of faults
// that strike the same call at the same point, the first does.
func New(store object.Store, faults ...*Fault) *Store {
	return &Store{store: store, faults: faults, calls: make(map[Op]int)}
}

// Calls returns how often a method was called.
func (s *Store) Calls(op Op) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[op]
}

// points are the faults that strike one call.
type points struct {
	before, midway, after *Fault
}

// enter counts a call and returns its faults.
func (s *Store) enter(op Op, name string) (p points) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[op]++
	for _, f := range s.faults {
		if !f.enters(op, name) {
			continue
		}
		switch {
		case f.When == Before && p.before == nil:
			p.before = f
		case f.When == Midway && p.midway == nil:
			p.midway = f
		case f.When == After && p.after == nil:
			p.after = f
		}
	}
	return p
}

// Create creates an object, but for the faults.
func (s *Store) Create(ctx context.Context, name string, r io.Reader) (object.Info, error) {
	faults := s.enter(Create, name)
	if err := faults.before.strike(ctx); err != nil {
		return object.Info{}, fmt.Errorf("create %s: %w", name, err)
	}
	if faults.midway != nil {
		r = &reader{Reader: r, ctx: ctx, fault: faults.midway, left: faults.midway.At}
	}
	info, err := s.store.Create(ctx, name, r)
	if err != nil {
		return object.Info{}, err
	}
	if err := faults.after.strike(ctx); err != nil {
		return object.Info{}, fmt.Errorf("create %s: %w", name, err)
	}
	return info, nil
}

// Open opens an object, but for the faults.
func (s *Store) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, object.Info, error) {
	faults := s.enter(Open, name)
	if err := faults.before.strike(ctx); err != nil {
		return nil, object.Info{}, fmt.Errorf("open %s: %w", name, err)
	}
	r, info, err := s.store.Open(ctx, name, off, n)
	if err != nil {
		return nil, object.Info{}, err
	}
	if n == 0 {
		for _, f := range []*Fault{faults.midway, faults.after} {
			if err := f.strike(ctx); err != nil {
				r.Close()
				return nil, object.Info{}, fmt.Errorf("open %s: %w", name, err)
			}
		}
		return r, info, nil
	}
	var faulty io.Reader = r
	if faults.midway != nil {
		faulty = &reader{Reader: faulty, ctx: ctx, fault: faults.midway, left: faults.midway.At}
	}
	if faults.after != nil {
		faulty = &reader{Reader: faulty, ctx: ctx, fault: faults.after, left: math.MaxInt64}
	}
	return struct {
		io.Reader
		io.Closer
	}{faulty, r}, info, nil
}

// reader strikes once some bytes have gone through, or at the end if there are fewer.
type reader struct {
	io.Reader
	ctx   context.Context
	fault *Fault // nil once it struck and went on
	left  int64
	err   error
}

func (r *reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.fault == nil {
		return r.Reader.Read(p)
	}
	if r.left > 0 {
		if int64(len(p)) > r.left {
			p = p[:r.left]
		}
		n, err := r.Reader.Read(p)
		r.left -= int64(n)
		if err != io.EOF {
			return n, err
		}
		if r.err = r.fault.strike(r.ctx); r.err == nil {
			r.err = io.EOF
		}
		return n, r.err
	}
	r.err = r.fault.strike(r.ctx)
	r.fault = nil
	return 0, r.err
}

// List lists objects, but for the faults.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		faults := s.enter(List, prefix)
		// failed strikes, and hands the error on if there is one.
		failed := func(f *Fault) bool {
			err := f.strike(ctx)
			if err != nil {
				yield(object.Info{}, fmt.Errorf("list %s: %w", prefix, err))
			}
			return err != nil
		}
		if failed(faults.before) {
			return
		}
		count, midway := int64(0), faults.midway
		for info, err := range s.store.List(ctx, prefix, after) {
			if midway != nil && count == midway.At {
				if failed(midway) {
					return
				}
				midway = nil
			}
			count++
			if !yield(info, err) || err != nil {
				return
			}
		}
		if !failed(midway) {
			failed(faults.after)
		}
	}
}

// Delete deletes an object, but for the faults.
func (s *Store) Delete(ctx context.Context, name string) error {
	faults := s.enter(Delete, name)
	if err := faults.before.strike(ctx); err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	if err := s.store.Delete(ctx, name); err != nil {
		return err
	}
	if err := faults.after.strike(ctx); err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}
