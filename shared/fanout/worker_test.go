package fanout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/objectfault"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

var began = time.Date(2026, 11, 20, 2, 14, 0, 0, time.UTC)

// crew is a vault with workers at three segments of one group.
type crew struct {
	t         *testing.T
	repo      *repository.Repository
	log       Log
	now       time.Time
	submitted []string
}

func newCrew(t *testing.T, store object.Store) *crew {
	t.Helper()
	repo, err := repository.Init(t.Context(), store, began)
	if err != nil {
		t.Fatal(err)
	}
	return &crew{t: t, repo: repo, log: NewLog(repo, vault.Restore{ID: vault.NewRestoreID(began, "x")}.Log()), now: began}
}

func (c *crew) run(request string, retry int) *Run {
	return &Run{Request: request, Retry: retry, Stop: began.Add(time.Minute), Until: began.Add(2 * time.Minute), Now: func() time.Time { return c.now }}
}

func (c *crew) worker(run *Run) *Worker {
	return &Worker{
		Log: c.log, Run: run, Groups: 1, What: func(s vault.SegmentID) string { return string(s) },
		Planned: func(int) []vault.SegmentID { return []vault.SegmentID{"000000", "000001", "000002"} },
		To:      c,
	}
}

// Submit notes what is submitted.
func (c *crew) Submit(_ context.Context, w Work) error {
	c.submitted = append(c.submitted, fmt.Sprintf("%s/%d", w.Segment, w.Start))
	return nil
}

// noted has a request note the first start of a segment.
func (c *crew) noted(request string, s vault.SegmentID) {
	c.t.Helper()
	if mine, err := c.log.Claim(c.t.Context(), vault.Note{Segment: s}, *c.run(request, 0)); err != nil || !mine {
		c.t.Fatal(mine, err)
	}
}

// TestGoOnTakesItsOwn gives an event again whose first delivery had gone on to a second
// segment, beside one of another worker: it takes its own up, and the free one, and not
// the other's. Where time is up it hands its own over, or leaves all.
func TestGoOnTakesItsOwn(t *testing.T) {
	for name, c := range map[string]struct {
		before    func(*crew, *Worker)
		one       func(*crew, *Worker)
		done      string
		submitted string
	}{
		"with time":               {nil, nil, "000001 own, 000002 free", ""},
		"time is up before":       {func(c *crew, _ *Worker) { c.now = began.Add(time.Hour) }, nil, "", "000001/1"},
		"time is up meanwhile":    {nil, func(c *crew, _ *Worker) { c.now = began.Add(time.Hour) }, "000001 own", "000002/0"},
		"over before":             {func(_ *crew, w *Worker) { w.Over = true }, nil, "", ""},
		"over meanwhile":          {nil, func(_ *crew, w *Worker) { w.Over = true }, "000001 own", ""},
		"nobody to submit to":     {func(_ *crew, w *Worker) { w.To = nil }, func(c *crew, _ *Worker) { c.now = began.Add(time.Hour) }, "000001 own", ""},
		"over, with two to go on": {func(c *crew, _ *Worker) { c.noted("mine", "000002") }, func(_ *crew, w *Worker) { w.Over = true }, "000001 own", ""},
	} {
		c2 := newCrew(t, &mem.Store{})
		c2.noted("mine", "000000")
		c2.noted("mine", "000001")
		c2.noted("another", "000003")
		w := c2.worker(c2.run("mine", 1))
		if c.before != nil {
			c.before(c2, w)
		}
		var done []string
		w.command = Work{Segment: "000000"}
		err := w.goOn(t.Context(), func(_ context.Context, s vault.SegmentID, _ int, claimed bool) error {
			done = append(done, string(s)+map[bool]string{true: " free", false: " own"}[claimed])
			if c.one != nil {
				c.one(c2, w)
			}
			return nil
		})
		if got := strings.Join(done, ", "); err != nil || got != c.done || strings.Join(c2.submitted, ", ") != c.submitted {
			t.Errorf("%s: worked on %q and handed over %q, %v; want %q and %q", name, got, c2.submitted, err, c.done, c.submitted)
		}
		if left := c2.now.After(began) && c.submitted != "000001/1"; left && !w.Over {
			t.Errorf("%s: the worker would take more", name)
		}
	}
}

// TestDeliveredAgainWithoutACount gives an event again, and the platform does not say so:
// that the command's start is the event's own tells it.
func TestDeliveredAgainWithoutACount(t *testing.T) {
	for name, c := range map[string]struct {
		by   string // whom the command's start was noted by
		want string
	}{
		"its own":    {"mine", "000001 own"},
		"another's":  {"another", ""},
		"none noted": {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			crew := newCrew(t, &mem.Store{})
			if c.by != "" {
				crew.noted(c.by, "000000")
			}
			crew.noted("mine", "000001")
			w := crew.worker(crew.run("mine", 0))
			w.command = Work{Segment: "000000"}
			var done []string
			err := w.goOn(t.Context(), func(_ context.Context, s vault.SegmentID, _ int, claimed bool) error {
				if !claimed {
					done = append(done, string(s)+" own")
				}
				return nil
			})
			if got := strings.Join(done, ", "); got != c.want || err != nil {
				t.Errorf("took up %q, want %q, %v", got, c.want, err)
			}
		})
	}
}

// TestStartsInVain begins a segment until one start too many has come to nothing: that
// one fails, and whoever has it started nevertheless has as many tries again.
func TestStartsInVain(t *testing.T) {
	c := newCrew(t, &mem.Store{})
	for start := range maxIdle + 3 {
		w := c.worker(c.run(fmt.Sprint("r", start), 0))
		w.At = Start{"000000", start}
		idle, err := w.begin(t.Context(), 0)
		want := start
		if start > maxIdle {
			want = start - maxIdle
		}
		if failed := start == maxIdle; idle != want || errors.Is(err, errIdle) != failed || !failed && err != nil {
			t.Fatalf("start %d: %d before it in vain, %v", start, idle, err)
		}
	}
}

// TestNotes: whatever the order of a list, the first date is that of what is listed
// first, and the last that of the greatest number.
func TestNotes(t *testing.T) {
	at := func(n int) time.Time { return began.Add(time.Duration(n) * time.Second) }
	n := Notes{}.With(1, at(1)).With(0, at(2)).With(3, at(3)).With(2, at(4))
	if want := (Notes{Count: 4, Last: 3, first: at(1), last: at(3)}); n != want {
		t.Errorf("%+v, want %+v", n, want)
	}
}

// TestChildrenComeFirst: what a segment was split into is taken before what nobody has
// begun of the plan, since the backup waits for it.
func TestChildrenComeFirst(t *testing.T) {
	c := newCrew(t, &mem.Store{})
	w := c.worker(c.run("mine", 0))
	w.begun = map[vault.SegmentID]bool{}
	w.Split([]vault.SegmentID{"000000.00", "000000.01"}, "")
	if got := w.unbegun(0); !slices.Equal(got, []vault.SegmentID{"000000.00", "000000.01"}) {
		t.Errorf("%q", got)
	}
}

// TestStartsThatGetOn begins a segment more often than it may be in vain, each time with
// a part more: none of the starts came to nothing.
func TestStartsThatGetOn(t *testing.T) {
	c := newCrew(t, &mem.Store{})
	for start := range maxIdle + 3 {
		w := c.worker(c.run(fmt.Sprint("r", start), 0))
		w.At = Start{"000000", start}
		if idle, err := w.begin(t.Context(), start); err != nil || w.At.Number != start || idle != 0 {
			t.Fatalf("start %d: %+v, %d idle, %v", start, w.At, idle, err)
		}
	}
}

// TestMarginAfterStartsInVain: where starts have come to nothing a third of the time is
// kept for closing, however short the last closing was.
func TestMarginAfterStartsInVain(t *testing.T) {
	c := newCrew(t, &mem.Store{})
	run := c.run("mine", 0)
	for idle, want := range []time.Duration{time.Second, run.Until.Sub(began) / 3} {
		m := NewMargin(*run)
		if m.Closed(10 * time.Millisecond); idle > 0 {
			m.Widen()
		}
		if got := run.Until.Sub(m.Stop()); got != want {
			t.Errorf("after %d starts in vain: %s is kept, want %s", idle, got, want)
		}
	}
	m := NewMargin(Run{Now: run.Now})
	m.Closed(time.Hour)
	if !m.Stop().IsZero() {
		t.Errorf("a run without an end stops at %s", m.Stop())
	}
}

// TestFailureThatCantBeNoted: the cause is what a caller asks for, and that there is no
// note of it is said.
func TestFailureThatCantBeNoted(t *testing.T) {
	store := objectfault.New(&mem.Store{}, &objectfault.Fault{Op: objectfault.Create, Call: objectfault.Every, When: objectfault.Before,
		Match: func(name string) bool { return strings.HasPrefix(name, "restores/") }})
	c := newCrew(t, store)
	cause := errors.New("the cause")
	err := c.log.Fail(t.Context(), Start{"000000", 0}, *c.run("mine", 0), false, cause)
	if !errors.Is(err, cause) || !errors.Is(err, objectfault.ErrInjected) {
		t.Errorf("%v", err)
	}
}

// TestListsOfAGroup puts names beside the starts of a group that no worker gives, and
// starts and progress of the next group: neither counts.
func TestListsOfAGroup(t *testing.T) {
	store := &mem.Store{}
	c := newCrew(t, store)
	next := vault.GroupID(1)
	c.noted("mine", "000000")
	c.noted("mine", next)
	for _, name := range []string{"x/000000.json", "000000/x.json", "000000/readme"} {
		store.Replace(c.log.names.Starts("")+name, nil)
	}
	starts, err := c.log.starts(t.Context(), 0)
	if err != nil || len(starts) != 1 || starts["000000"].Count != 1 {
		t.Errorf("%+v, %v", starts, err)
	}
	for _, s := range []vault.SegmentID{"000000", next} {
		if err := c.repo.Mark(t.Context(), vault.Told{Number: 1, Rows: 7}.Name(c.log.names.Progress(s))); err != nil {
			t.Fatal(err)
		}
	}
	told, err := c.log.ToldIn(t.Context(), 0)
	if err != nil || len(told) != 1 || told["000000"].Rows != 7 {
		t.Errorf("%+v, %v", told, err)
	}
	heard, err := c.log.heardIn(t.Context(), 0)
	if err != nil || len(heard) != 1 {
		t.Errorf("%+v, %v", heard, err)
	}
}

// TestPaces: a slot that is damaged hides no other worker's pace, and one that can't be
// read now is an error.
func TestPaces(t *testing.T) {
	store := &mem.Store{}
	c := newCrew(t, store)
	d := &Dispatch{Log: c.log}
	for _, s := range []vault.SegmentID{"000000", "000001", "000002"} {
		d.Working = append(d.Working, Start{s, 0})
		if s != "000002" {
			store.Replace(c.log.names.Slot(s, 0), nil)
		}
	}
	away := errors.New("away")
	for _, fails := range []error{vault.ErrCorrupt, away} {
		d.Pace = nil
		err := d.Paces(t.Context(), 0, func(_ context.Context, slot string) (*vault.Pace, error) {
			if slot == c.log.names.Slot("000000", 0) {
				return nil, fails
			}
			return &vault.Pace{Reason: vault.PacedByService, ReadUnits: 5}, nil
		})
		if fails == away {
			if !errors.Is(err, away) {
				t.Errorf("%v", err)
			}
		} else if err != nil || d.Pace == nil || d.Pace.Workers != 1 {
			t.Errorf("%+v, %v", d.Pace, err)
		}
	}
}

// TestPaceForPeople: no pace is no words, and no rate no number.
func TestPaceForPeople(t *testing.T) {
	for want, p := range map[string]*Pace{
		"": nil,
		"2 workers were held back by slow answers":                          {Reason: vault.PacedByLatency, Workers: 2},
		"2 workers are held to 50 read units/s by the service's throttling": {Reason: vault.PacedByService, Workers: 2, ReadUnits: 50},
	} {
		if got := p.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestSpeedOfNothing has looks at one instant, and one that sees less than the one
// before: there is no speed, and no division by nothing.
func TestSpeedOfNothing(t *testing.T) {
	var s Speed
	for _, look := range []struct {
		at   time.Duration
		rows int64
	}{{0, 5}, {time.Second, 3}} {
		s.seen = []sample{{began, 4, 4}}
		if rows, bytes := s.Look(began, began.Add(look.at), look.rows, look.rows); rows != 0 || bytes != 0 {
			t.Errorf("after %s: %g rows and %g bytes per second", look.at, rows, bytes)
		}
	}
}
