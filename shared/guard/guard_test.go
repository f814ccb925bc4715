package guard_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/guard"
)

func index(n int) int { return slices.Repeat([]int{1}, 1)[n] }

func TestDo(t *testing.T) {
	some := errors.New("some")
	if err := guard.Do(func() error { return some }); err != some {
		t.Errorf("%v", err)
	}
	var p *guard.Panic
	err := guard.Do(func() error { _ = index(7); return nil })
	if !errors.As(err, &p) || !strings.Contains(err.Error(), "out of range [7]") || !strings.Contains(string(p.Stack), "guard_test.index") {
		t.Errorf("%v, %+v", err, p)
	}
	ended := make(chan error)
	guard.Go(func() error { panic("in a goroutine") }, func(err error) { ended <- err })
	if err := <-ended; !errors.As(err, &p) || err.Error() != "panic: in a goroutine" {
		t.Errorf("%v", err)
	}
}

// TestGroup has one of many panic: the others are told by the context, and Wait has the
// panic.
func TestGroup(t *testing.T) {
	group, ctx := guard.WithContext(t.Context())
	group.SetLimit(3)
	for i := range 10 {
		group.Go(func() error {
			if i == 2 {
				panic(i)
			}
			<-ctx.Done()
			return ctx.Err()
		})
	}
	var p *guard.Panic
	if err := group.Wait(); !errors.As(err, &p) || p.Value != 2 {
		t.Errorf("%v", err)
	}
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Error("the context goes on")
	}
	var zero guard.Group
	if err := zero.Wait(); err != nil {
		t.Error(err)
	}
	zero.Go(func() error { panic("zero") })
	if err := zero.Wait(); !errors.As(err, &p) {
		t.Errorf("%v", err)
	}
}
