package objectfault_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/objectfault"
	"github.com/tablevault/tablevault/shared/object/objecttest"
)

// Without faults, or with faults that only wait, the store is as any other.
func TestStore(t *testing.T) {
	objecttest.Run(t, func(t *testing.T) object.Store { return objectfault.New(&mem.Store{}) })
	t.Run("slow", func(t *testing.T) {
		objecttest.Run(t, func(t *testing.T) object.Store {
			var faults []*objectfault.Fault
			for _, op := range []objectfault.Op{objectfault.Create, objectfault.Open, objectfault.List, objectfault.Delete} {
				for _, when := range []objectfault.When{objectfault.Before, objectfault.Midway, objectfault.After} {
					faults = append(faults, &objectfault.Fault{Op: op, Call: objectfault.Every, When: when, At: 3, Delay: 1})
				}
			}
			return objectfault.New(&mem.Store{}, faults...)
		})
	})
}

// The point decides what the store has done when the caller is told of the fault.
func TestPoints(t *testing.T) {
	cause := errors.New("the line broke")
	for _, c := range []struct {
		op     objectfault.Op
		when   objectfault.When
		effect bool   // of a Create or Delete
		came   string // of an Open or List
	}{
		{objectfault.Create, objectfault.Before, false, ""},
		{objectfault.Create, objectfault.Midway, false, ""},
		{objectfault.Create, objectfault.After, true, ""},
		{objectfault.Open, objectfault.Before, false, ""},
		{objectfault.Open, objectfault.Midway, false, "co"},
		{objectfault.Open, objectfault.After, false, "content"},
		{objectfault.List, objectfault.Before, false, ""},
		{objectfault.List, objectfault.Midway, false, "ab"},
		{objectfault.List, objectfault.After, false, "abcd"},
		{objectfault.Delete, objectfault.Before, false, ""},
		{objectfault.Delete, objectfault.After, true, ""},
	} {
		t.Run(fmt.Sprintf("%s %s", c.op, c.when), func(t *testing.T) {
			inner := &mem.Store{}
			for _, name := range []string{"a", "b", "c", "d"} {
				inner.Replace(name, []byte("content"))
			}
			fault := &objectfault.Fault{Op: c.op, Call: 1, When: c.when, At: 2, Err: cause}
			s := objectfault.New(inner, fault)
			call := func(n int) (came string, err error) {
				switch c.op {
				case objectfault.Create:
					_, err = s.Create(t.Context(), fmt.Sprint(n), strings.NewReader("content"))
				case objectfault.Open:
					var r io.ReadCloser
					if r, _, err = s.Open(t.Context(), "a", 0, -1); err == nil {
						var all []byte
						all, err = io.ReadAll(r)
						came = string(all)
					}
				case objectfault.List:
					for info, listErr := range s.List(t.Context(), "", "") {
						came += info.Name
						err = listErr
					}
				case objectfault.Delete:
					err = s.Delete(t.Context(), "abcd"[n:n+1])
				}
				return came, err
			}
			for n := range 3 {
				if fault.Reached() != (n > 1) || fault.Fired() != (n > 1) {
					t.Errorf("before call %d, the fault for call 1 is reached: %v, fired: %v", n, fault.Reached(), fault.Fired())
				}
				came, err := call(n)
				if (n == 1) != (err != nil) || n == 1 && !errors.Is(err, cause) {
					t.Errorf("call %d: %v", n, err)
				}
				if n == 1 && came != c.came {
					t.Errorf("%q came before the error, want %q", came, c.came)
				}
			}
			if got := s.Calls(c.op); got != 3 {
				t.Errorf("%d calls counted, want 3", got)
			}
			switch _, err := object.Stat(t.Context(), inner, "1"); {
			case c.op == objectfault.Create && (err == nil) != c.effect:
				t.Errorf("the object of the failed call: %v", err)
			}
			switch _, err := object.Stat(t.Context(), inner, "b"); {
			case c.op == objectfault.Delete && (err != nil) != c.effect:
				t.Errorf("the object that the failed call was to delete: %v", err)
			}
		})
	}
}

// An Open that reads nothing fails as a whole, whatever the point.
func TestStat(t *testing.T) {
	inner := &mem.Store{}
	inner.Replace("a", nil)
	for _, when := range []objectfault.When{objectfault.Before, objectfault.Midway, objectfault.After} {
		s := objectfault.New(inner, &objectfault.Fault{Op: objectfault.Open, When: when, At: 5})
		if _, err := object.Stat(t.Context(), s, "a"); !errors.Is(err, objectfault.ErrInjected) {
			t.Errorf("%s: %v", when, err)
		}
		if _, err := object.Stat(t.Context(), s, "a"); err != nil {
			t.Errorf("the call after %s: %v", when, err)
		}
	}
}

// Only calls that match are counted and struck.
func TestMatch(t *testing.T) {
	fault := &objectfault.Fault{
		Op: objectfault.Create, Call: 1, When: objectfault.Before,
		Match: func(name string) bool { return strings.HasPrefix(name, "slots/") },
	}
	s := objectfault.New(&mem.Store{}, fault)
	var failed []string
	for _, name := range []string{"shards/0", "slots/0", "shards/1", "slots/1", "slots/2", "shards/2"} {
		if _, err := s.Create(t.Context(), name, strings.NewReader("")); err != nil {
			failed = append(failed, name)
		}
	}
	if !slices.Equal(failed, []string{"slots/1"}) {
		t.Errorf("failed have %q, want slots/1", failed)
	}
}

// Hanging ends with the context, waiting with its time.
func TestHangAndDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := objectfault.New(&mem.Store{},
			&objectfault.Fault{Op: objectfault.Create, Call: 0, When: objectfault.After, Hang: true},
			&objectfault.Fault{Op: objectfault.Create, Call: 1, When: objectfault.Before, Delay: time.Hour},
			&objectfault.Fault{Op: objectfault.Create, Call: 2, When: objectfault.Before, Delay: time.Hour, Err: fs.ErrPermission},
		)
		for call, want := range []struct {
			took  time.Duration
			err   error
			there bool
		}{
			{3 * time.Hour, context.DeadlineExceeded, true},
			{time.Hour, nil, true},
			{time.Hour, fs.ErrPermission, false},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Hour)
			start := time.Now()
			_, err := s.Create(ctx, fmt.Sprint(call), strings.NewReader(""))
			if took := time.Since(start); took != want.took || !errors.Is(err, want.err) {
				t.Errorf("call %d took %v: %v, want %v: %v", call, took, err, want.took, want.err)
			}
			cancel()
			if _, err := object.Stat(t.Context(), s, fmt.Sprint(call)); (err == nil) != want.there {
				t.Errorf("call %d left: %v, want it there: %v", call, err, want.there)
			}
		}
	})
}

// work decides, reads, lists and deletes; run again after any failure, it comes to the
// same end.
func work(ctx context.Context, s object.Store) (string, error) {
	for i := range 3 {
		if _, _, err := object.Decide(ctx, s, fmt.Sprint("slots/", i), fmt.Append(nil, "content ", i), 100); err != nil {
			return "", err
		}
	}
	var result []string
	for info, err := range s.List(ctx, "slots/", "") {
		if err != nil {
			return "", err
		}
		content, err := object.ReadAll(ctx, s, info.Name, 100)
		if err != nil {
			return "", err
		}
		result = append(result, string(content))
	}
	return strings.Join(result, ", "), s.Delete(ctx, "leftover")
}

// EachCall comes to every call at every point, and ends.
func TestEachCall(t *testing.T) {
	const want = "content 0, content 1, content 2"
	fired := map[string]bool{}
	for fault := range objectfault.EachCall() {
		inner := &mem.Store{}
		inner.Replace("leftover", nil)
		result, err := work(t.Context(), objectfault.New(inner, fault))
		if fault.Fired() {
			fired[fault.String()] = true
		}
		if err != nil && (!fault.Fired() || !errors.Is(err, objectfault.ErrInjected)) || err == nil && result != want {
			t.Errorf("%v: %q, %v", fault, result, err)
		}
		// The answer to a Decide can be lost without harm; nothing else is made good by
		// anyone.
		if hidden := fault.Op == objectfault.Create && fault.When == objectfault.After; fault.Fired() && (err == nil) != hidden {
			t.Errorf("%v: %v", fault, err)
		}
		if result, err := work(t.Context(), inner); err != nil || result != want {
			t.Errorf("%v, second run: %q, %v", fault, result, err)
		}
	}
	// 3 creates, 3 opens and a list at three points, a delete at two.
	if len(fired) != 3*3+3*3+3+2 {
		t.Errorf("%d faults fired: %v", len(fired), fired)
	}
	for range objectfault.EachCall(objectfault.List) {
		return // it can be left
	}
	t.Error("EachCall yields nothing")
}

// A fault Midway breaks off a large object, from a reader as into one.
func TestMidwayOfLarge(t *testing.T) {
	content := objecttest.Content("large", 1<<20)
	for _, at := range []int64{0, 1, 1000, 1<<20 - 1, 1 << 20, 1 << 30} {
		inner := &mem.Store{}
		s := objectfault.New(inner,
			&objectfault.Fault{Op: objectfault.Create, When: objectfault.Midway, At: at},
			&objectfault.Fault{Op: objectfault.Open, When: objectfault.Midway, At: at})
		if _, err := s.Create(t.Context(), "large", bytes.NewReader(content)); !errors.Is(err, objectfault.ErrInjected) {
			t.Errorf("Create: %v", err)
		}
		if _, err := object.Stat(t.Context(), inner, "large"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a broken Create left: %v", err)
		}
		inner.Replace("large", content)
		r, _, err := s.Open(t.Context(), "large", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if want := content[:min(at, 1<<20)]; !errors.Is(err, objectfault.ErrInjected) || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v, want %d bytes and the fault", len(got), err, len(want))
		}
	}
}
