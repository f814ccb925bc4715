package bucket_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/bucket"
	"github.com/tablevault/tablevault/shared/retry"
)

// Errors of a store that knows three.
var (
	errLost = errors.New("lost") // the request may have been done
	errBusy = errors.New("busy") // it was not
	errBad  = errors.New("bad")  // nor will it be
)

type judge struct{}

func (judge) Judge(err error, _ int) retry.Verdict {
	switch {
	case errors.Is(err, errLost):
		return retry.Again | retry.Doubt
	case errors.Is(err, errBusy):
		return retry.Again
	}
	return 0
}
func (judge) Explain(err error, attempts int) error {
	return fmt.Errorf("%d attempts: %w", attempts, err)
}
func (judge) Brief(err error) error { return err }

// A request is repeated as long as that may help, with pauses that grow, and what is left
// in doubt is told.
func TestRetry(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers []error // the last one again and again
		cancel  time.Duration
		doubt   bool
		is      error
		calls   int
	}{
		{"done", []error{nil}, 0, false, nil, 1},
		{"busy, then done", []error{errBusy, errBusy, nil}, 0, false, nil, 3},
		{"lost, then done", []error{errLost, nil}, 0, true, nil, 2},
		{"refused", []error{errBad}, 0, false, errBad, 1},
		{"lost, then refused", []error{errLost, errBad}, 0, true, errBad, 2},
		{"always busy", []error{errBusy}, 0, false, errBusy, 8},
		{"cancelled in a pause", []error{errBusy}, 10 * time.Millisecond, false, context.Canceled, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.cancel > 0 {
					time.AfterFunc(c.cancel, cancel)
				}
				calls, begun := 0, time.Now()
				doubt, err := bucket.Do(ctx, bucket.DefaultRetry(), judge{}, func(context.Context) error {
					calls++
					return c.answers[min(calls, len(c.answers))-1]
				})
				if doubt != c.doubt || !errors.Is(err, c.is) || c.is == nil && err != nil || calls != c.calls {
					t.Errorf("doubt %v, %v after %d calls; want %v, %v after %d", doubt, err, calls, c.doubt, c.is, c.calls)
				}
				if took := time.Since(begun); calls == 8 && (took < 3*time.Second || took > 15*time.Second) {
					t.Errorf("eight attempts take %v", took)
				}
			})
		})
	}
}

// An attempt that hangs is given up, and counts as one that may have been done.
func TestRetryHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		doubt, err := bucket.Do(t.Context(), bucket.DefaultRetry(), judge{}, func(ctx context.Context) error {
			if calls++; calls == 1 {
				<-ctx.Done()
				return errLost
			}
			return nil
		})
		if !doubt || err != nil || calls != 2 {
			t.Errorf("doubt %v, %v after %d calls", doubt, err, calls)
		}
	})
}

// Who has a name is asked only where the answers leave it open.
func TestSettle(t *testing.T) {
	other := errors.New("the request")
	for _, c := range []struct {
		name  string
		doubt bool
		err   error
		has   string
		asked error
		want  error
		asks  bool
	}{
		{"done", true, nil, "", nil, nil, false},
		{"refused", false, other, "", nil, other, false},
		{"taken by its own", true, fs.ErrExist, "me", nil, nil, true},
		{"taken by another", true, fs.ErrExist, "you", nil, fs.ErrExist, true},
		{"lost, and done", true, other, "me", nil, nil, true},
		{"lost, and another's", true, other, "you", nil, fs.ErrExist, true},
		{"lost, and not there yet", true, other, "", fs.ErrNotExist, other, true},
	} {
		asks := false
		err := bucket.Settle(t.Context(), c.doubt, c.err, "me", func() (string, error) { asks = true; return c.has, c.asked })
		if !errors.Is(err, c.want) || c.want == nil && err != nil || asks != c.asks {
			t.Errorf("%s: %v, asked: %v", c.name, err, asks)
		}
	}
}

// text is a bucket of one object, whose streams break off after so many bytes.
type text struct {
	content string
	breaks  int
	gets    int
	changed bool
}

func (s *text) Head(context.Context, string) (object.Info, error) {
	return object.Info{Size: int64(len(s.content))}, nil
}

func (s *text) Get(_ context.Context, _ string, off, n int64, tag string) (io.ReadCloser, object.Info, string, error) {
	s.gets++
	if tag != "" && s.changed {
		return nil, object.Info{}, "", bucket.ErrChanged
	}
	if off >= int64(len(s.content)) {
		return nil, object.Info{}, "", bucket.ErrRange
	}
	rest := s.content[off:]
	if n >= 0 && n < int64(len(rest)) {
		rest = rest[:n]
	}
	return io.NopCloser(strings.NewReader(rest[:min(s.breaks, len(rest))])), object.Info{Size: int64(len(s.content))}, "tag", nil
}

// A stream that breaks off goes on where it broke, unless the object is another by then
// or nothing comes any more.
func TestOpen(t *testing.T) {
	const content = "0123456789"
	for _, c := range []struct {
		off, n  int64
		breaks  int
		changed bool
		want    string
		gets    int
		says    string
	}{
		{0, -1, 100, false, content, 1, ""},
		{0, -1, 3, false, content, 4, ""},
		{2, 5, 2, false, "23456", 3, ""},
		{10, -1, 100, false, "", 1, ""},
		{0, -1, 3, true, "012", 2, "deleted meanwhile"},
		{0, -1, 0, false, "", 3, "3 streams broke off"},
	} {
		s := &text{content: content, breaks: c.breaks, changed: c.changed}
		r, info, err := bucket.Open(t.Context(), s, "a", c.off, c.n, 3)
		if err != nil || info.Size != 10 {
			t.Fatalf("Open: %+v, %v", info, err)
		}
		got, err := io.ReadAll(r)
		if string(got) != c.want || s.gets != c.gets || c.says == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %q, %v after %d streams", c, got, err, s.gets)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, off := range []int64{-1, 11} {
		if _, _, err := bucket.Open(t.Context(), &text{content: content}, "a", off, -1, 3); !errors.Is(err, object.ErrRange) {
			t.Errorf("Open from %d on: %v, want ErrRange", off, err)
		}
	}
}
