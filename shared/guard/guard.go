// Package guard turns panics into errors where what is looked at was written by others: a
// document of the vault that nobody foresaw fails the look at its table, and not the
// process in which all other tables are looked at.
//
// A panic can be recovered from in its own goroutine only. So nothing that works on the
// vault starts one except through this package, which a test holds the tree to.
package guard

import (
	"context"
	"fmt"
	"runtime/debug"

	"golang.org/x/sync/errgroup"
)

// Panic is what a function has panicked with. It is a bug, in whatever has let the cause
// come so far; trying again does not mend it.
type Panic struct {
	Value any
	Stack []byte // of the goroutine that panicked
}

func (p *Panic) Error() string { return fmt.Sprintf("panic: %v", p.Value) }

// Do calls f, and returns its error, or a *Panic.
func Do(f func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &Panic{value, debug.Stack()}
		}
	}()
	return f()
}

// Go calls f in a goroutine of its own and then end with its error, or a *Panic.
func Go(f func() error, end func(error)) { go func() { end(Do(f)) }() }

// Group is an errgroup.Group in which a panic is an error as any other. The zero Group is
// ready.
type Group struct{ group *errgroup.Group }

// WithContext is a group, and a context that ends with its first error or when Wait
// returns.
func WithContext(ctx context.Context) (*Group, context.Context) {
	group, ctx := errgroup.WithContext(ctx)
	return &Group{group}, ctx
}

// SetLimit bounds how many goroutines of the group run at a time.
func (g *Group) SetLimit(n int) { g.inner().SetLimit(n) }

// Go calls f in a goroutine of its own, as soon as the limit allows.
func (g *Group) Go(f func() error) { g.inner().Go(func() error { return Do(f) }) }

// Wait waits for all goroutines, and returns the first error.
func (g *Group) Wait() error { return g.inner().Wait() }

// inner makes the zero Group one. Whoever starts goroutines is one goroutine.
func (g *Group) inner() *errgroup.Group {
	if g.group == nil {
		g.group = new(errgroup.Group)
	}
	return g.group
}
