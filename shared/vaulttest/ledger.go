package vaulttest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/objectmeter"
	"github.com/tablevault/tablevault/shared/repository"
)

// Ledger is a store that writes down what each invocation asks of it. It counts by
// itself, without a meter.
type Ledger struct {
	Store object.Store
	// deaths, if there are any, says after how many requests the next invocation dies, 0
	// for never.
	Deaths func() int

	mu          sync.Mutex
	invocations []*Invocation
}

// Invocation is the store as one invocation has it.
type Invocation struct {
	*Ledger
	Kind  string
	left  int // requests until it dies, 0 for any number
	Asked []*Asked
}

// Asked is one request. Its bytes may still grow.
type Asked struct {
	object.Usage
	What, Name string
	stored     bool // it created the object
}

// Open opens the vault for an invocation, whose records tell of what it asks.
func (l *Ledger) Open(t testing.TB, kind string) *repository.Repository {
	t.Helper()
	in := &Invocation{Ledger: l, Kind: kind}
	l.mu.Lock()
	l.invocations = append(l.invocations, in)
	l.mu.Unlock()
	store := objectmeter.New(in)
	repo, err := repository.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	repo.Meter(store)
	if l.Deaths != nil {
		in.left = l.Deaths()
	}
	return repo
}

// ask writes a request down, and says whether the invocation still lives and whether it
// hears the answer.
func (in *Invocation) ask(what, name string, u object.Usage) (a *Asked, lives, hears bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	a = &Asked{Usage: u, What: what, Name: name}
	in.Asked = append(in.Asked, a)
	switch {
	case in.left == 0:
		return a, true, true
	case in.left > 1:
		in.left--
		return a, true, in.left > 1
	}
	return a, false, false
}

func (in *Invocation) Create(ctx context.Context, name string, r io.Reader) (object.Info, error) {
	a, lives, hears := in.ask("create", name, object.Usage{Create: 1})
	var content bytes.Buffer
	_, err := io.Copy(&content, r)
	in.mu.Lock()
	a.Written = int64(content.Len())
	in.mu.Unlock()
	if err != nil || !lives {
		return object.Info{}, errors.Join(err, ErrDead)
	}
	info, err := in.Store.Create(ctx, name, &content)
	in.mu.Lock()
	a.stored = err == nil
	in.mu.Unlock()
	if !hears {
		err = ErrDead // it may be stored, and nobody heard
	}
	return info, err
}

func (in *Invocation) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, object.Info, error) {
	what, u := "open", object.Usage{Open: 1}
	if n == 0 {
		what, u = "stat", object.Usage{Stat: 1}
	}
	a, lives, _ := in.ask(what, name, u)
	if !lives {
		return nil, object.Info{}, ErrDead
	}
	r, info, err := in.Store.Open(ctx, name, off, n)
	if err == nil && n != 0 {
		r = &witnessed{r, in, a}
	}
	return r, info, err
}

type witnessed struct {
	io.ReadCloser
	in *Invocation
	a  *Asked
}

func (w *witnessed) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	w.in.mu.Lock()
	defer w.in.mu.Unlock()
	w.a.Read += int64(n)
	return n, err
}

func (in *Invocation) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	if _, lives, _ := in.ask("list", prefix, object.Usage{List: 1}); !lives {
		return func(yield func(object.Info, error) bool) { yield(object.Info{}, ErrDead) }
	}
	return in.Store.List(ctx, prefix, after)
}

func (in *Invocation) Delete(context.Context, string) error {
	return errors.New("nothing is ever deleted")
}

// Take returns the invocations so far of some kinds, and forgets all.
func (l *Ledger) Take(kinds ...string) (of []*Invocation) {
	for _, in := range l.invocations {
		for _, kind := range kinds {
			if in.Kind == kind {
				of = append(of, in)
			}
		}
	}
	l.invocations = nil
	return of
}

// Told splits what an invocation asked for into what came before the last of its records
// that stands, from the first request for an object named from on, and what came with and
// after that.
func (in *Invocation) Told(from string, record func(name string) bool) (told object.Usage, after []*Asked) {
	last := -1
	for i, a := range in.Asked {
		if a.What == "create" && a.stored && record(a.Name) {
			last = i
		}
	}
	begun := from == ""
	for _, a := range in.Asked[:last+1] {
		if begun = begun || a.Name == from; begun && a != in.Asked[last] {
			told.Add(a.Usage)
		}
	}
	if last < 0 {
		return told, in.Asked
	}
	return told, in.Asked[last:]
}

// Well says whether an invocation neither died nor failed: one that finds no time left
// notes that, and has no record.
func (in *Invocation) Well() bool {
	return in.left == 0 && !slices.ContainsFunc(in.Asked, func(a *Asked) bool { return strings.Contains(a.Name, "failures/") })
}
