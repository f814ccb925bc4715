package fanout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/vault"
)

// step is what a scripted job comes to at one slot.
type step struct {
	nothing bool  // to write into the slot
	lost    bool  // another start wins it
	last    bool  // the segment has ended with it
	err     error // beside what was done
	late    bool  // time is up after it
}

var errJob = errors.New("the job's error")

// script is a job that does as it is told.
type script struct {
	c     *crew
	w     *Worker
	found int // slots in the log
	ended bool
	read  error
	open  error // what Begun returns
	yield bool  // gives way to whoever wins a slot
	steps []step

	now   step
	slots int
	did   []string
}

func (j *script) note(format string, args ...any) {
	j.did = append(j.did, fmt.Sprintf(format, args...))
}

func (j *script) Read(_ context.Context, claimed bool) error {
	j.note("read %t", claimed)
	j.slots = j.found
	return j.read
}
func (j *script) Slots() int  { return j.slots }
func (j *script) Ended() bool { return j.ended }

func (j *script) Begun(_ context.Context, start, _ int) (rows, bytes int64, err error) {
	j.note("begun %d", start)
	return 0, 0, j.open
}

func (j *script) Next(ctx context.Context) (vault.Document, error) {
	if len(j.steps) == 0 {
		return nil, nil // time is up
	}
	j.now, j.steps = j.steps[0], j.steps[1:]
	j.note("slot %d", j.slots)
	if j.now.nothing {
		j.ended = j.now.last
		return nil, j.now.err
	}
	s := &vault.Loaded{Segment: j.w.At.Segment, Slot: j.slots, Start: j.w.At.Number}
	if j.now.lost {
		other := *s
		other.Rows = 7
		if _, err := j.c.repo.Win(ctx, j.c.log.names.Slot(s.Segment, s.Slot), &other); err != nil {
			return nil, err
		}
	}
	return s, j.now.err
}

func (j *script) Stored(_ context.Context, mine bool) (bool, error) {
	j.note("stored %t", mine)
	j.slots++
	j.ended = j.now.last
	if j.now.late {
		j.c.now = began.Add(time.Hour)
	}
	return mine || !j.yield, nil
}

func (j *script) End(context.Context) error {
	j.note("end")
	return nil
}

// TestSteps has a worker take the steps of a job on one segment, for each way that they
// may come to an end.
func TestSteps(t *testing.T) {
	for name, c := range map[string]struct {
		job        script
		before     func(*crew)
		doubt      bool
		did        string
		submitted  string
		superseded bool
		closed     bool
		marked     bool
		failed     string // what the note of a failure says
	}{
		"to the end": {
			job: script{steps: []step{{}, {last: true}}},
			did: "read false, begun 0, slot 0, stored true, slot 1, stored true, end", marked: true,
		},
		"ended before": {job: script{ended: true}, did: "read false, end"},
		"ended with nothing to write": {
			job: script{steps: []step{{nothing: true, last: true}}}, did: "read false, begun 0, slot 0, end", marked: true,
		},
		"goes on behind the log": {
			job: script{found: 3, steps: []step{{last: true}}}, did: "read false, begun 0, slot 3, stored true, end", marked: true,
		},
		"time is up after a slot": {
			job: script{steps: []step{{late: true}, {}}}, did: "read false, begun 0, slot 0, stored true", submitted: "000000/1", marked: true,
		},
		"time is up before anything is stored": {
			job: script{steps: []step{{last: true}}}, before: func(c *crew) { c.now = began.Add(90 * time.Second) },
			did: "read false, begun 0, slot 0, stored true, end", marked: true,
		},
		"the job has no time": {job: script{}, did: "read false, begun 0", submitted: "000000/1", marked: true},
		"a slot is lost, and it goes on": {
			job: script{steps: []step{{lost: true}, {last: true}}},
			did: "read false, begun 0, slot 0, stored false, slot 1, stored true, end", marked: true,
		},
		"a slot is lost, and time is up": {
			job: script{steps: []step{{lost: true, late: true}}}, did: "read false, begun 0, slot 0, stored false", superseded: true, marked: true,
		},
		"a slot is lost, and it gives way": {
			job: script{yield: true, steps: []step{{lost: true, err: errJob}}}, did: "read false, begun 0, slot 0, stored false", superseded: true, marked: true,
		},
		"the log can't be read": {job: script{read: errJob}, did: "read false", failed: "000000: the job's error"},
		"an error without anything to keep": {
			job: script{steps: []step{{nothing: true, err: errJob}}}, did: "read false, begun 0, slot 0", failed: "000000: the job's error",
		},
		"an error beside what is kept": {
			job: script{steps: []step{{err: errJob}, {}}}, did: "read false, begun 0, slot 0, stored true", failed: "000000: the job's error",
		},
		"an error in doubt": {
			job: script{steps: []step{{nothing: true, err: errJob}}}, doubt: true, did: "read false, begun 0, slot 0", failed: "000000: the job's error",
		},
		"an end in doubt": {
			job: script{steps: []step{{last: true}}}, doubt: true, did: "read false, begun 0, slot 0, stored true, end",
		},
		"closed when it is begun": {
			job: script{open: fmt.Errorf("look: %w", ErrClosed)}, did: "read false, begun 0", closed: true, marked: true,
		},
		"closed meanwhile": {
			job: script{steps: []step{{nothing: true, err: ErrClosed}}}, did: "read false, begun 0, slot 0", closed: true, marked: true,
		},
		"another has the start": {
			job: script{}, before: func(c *crew) { c.noted("another", "000000") }, did: "read false", superseded: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			crew := newCrew(t, &mem.Store{Now: func() time.Time { return began }})
			if c.before != nil {
				c.before(crew)
			}
			job := &c.job
			job.c, job.w = crew, crew.worker(crew.run("mine", 0))
			job.w.Open = func(context.Context, vault.SegmentID) (Job, error) { return job, nil }
			job.w.Doubt = func() bool { return c.doubt }
			err := job.w.one(t.Context(), "000000", 0, false)
			if errors.Is(err, errJob) != (c.failed != "") || c.failed == "" && err != nil {
				t.Errorf("%v", err)
			}
			if got := strings.Join(job.did, ", "); got != c.did {
				t.Errorf("it did %q, want %q", got, c.did)
			}
			if got := strings.Join(crew.submitted, ", "); got != c.submitted {
				t.Errorf("submitted is %q, want %q", got, c.submitted)
			}
			w := job.w
			if w.At != (Start{"000000", 0}) || w.Superseded != c.superseded || w.Closed != c.closed || w.Over != (c.closed || c.submitted != "") {
				t.Errorf("at %v, superseded %t, closed %t, over %t", w.At, w.Superseded, w.Closed, w.Over)
			}
			if there, err := crew.repo.Exists(t.Context(), crew.log.names.End("000000", 0)); there != c.marked || err != nil {
				t.Errorf("the end is marked: %t, %v", there, err)
			}
			var note vault.Note
			_, err = crew.repo.Read(t.Context(), crew.log.names.Failure("000000", 0), &note)
			if note.Error != c.failed || (err == nil) != (c.failed != "") || note.InDoubt != (c.doubt && c.failed != "") {
				t.Errorf("the note of a failure is %+v, %v", note, err)
			}
		})
	}
}

// TestStepsOfFailures: what a worker says of an error beside the package's own stands in
// its note, and a segment that there is not leaves none.
func TestStepsOfFailures(t *testing.T) {
	c := newCrew(t, &mem.Store{Now: func() time.Time { return began }})
	w := c.worker(c.run("mine", 0))
	w.Open = func(context.Context, vault.SegmentID) (Job, error) { return nil, errJob }
	if err := w.one(t.Context(), "000009", 0, false); !errors.Is(err, errJob) {
		t.Errorf("%v", err)
	}
	if there, err := c.repo.Exists(t.Context(), c.log.names.Failure("000009", 0)); there || err != nil {
		t.Errorf("a note: %t, %v", there, err)
	}
	for s, permanent := range map[vault.SegmentID]func(error) bool{
		"000000": nil, "000001": func(err error) bool { return errors.Is(err, errJob) }, "000002": func(error) bool { return false },
	} {
		w := c.worker(c.run("mine", 0))
		w.Permanent = permanent
		w.Open = func(context.Context, vault.SegmentID) (Job, error) { return &script{c: c, w: w, read: errJob}, nil }
		if err := w.one(t.Context(), s, 0, false); !errors.Is(err, errJob) {
			t.Errorf("%v", err)
		}
		var note vault.Note
		if _, err := c.repo.Read(t.Context(), c.log.names.Failure(s, 0), &note); err != nil || note.Permanent != (s == "000001") {
			t.Errorf("segment %s: %+v, %v", s, note, err)
		}
	}
}

// TestStopIsMeasured: before each slot a worker stops by the margin as it is by then.
func TestStopIsMeasured(t *testing.T) {
	c := newCrew(t, &mem.Store{Now: func() time.Time { return began }})
	run := c.run("mine", 0)
	m := NewMargin(*run)
	job := &script{c: c, w: c.worker(run), steps: []step{{}, {}, {last: true}}}
	job.w.Margin = &m
	job.w.Open = func(context.Context, vault.SegmentID) (Job, error) { return job, nil }
	m.Closed(10 * time.Second)
	if err := job.w.one(t.Context(), "000000", 0, false); err != nil || !run.Stop.Equal(run.Until.Add(-30*time.Second)) {
		t.Errorf("it stops at %s, %v", run.Stop, err)
	}
}

// TestWorkGoesOn: after the segment of its command a worker goes on with what nobody has
// begun, unless another start is at work on that and there is a budget.
func TestWorkGoesOn(t *testing.T) {
	for name, c := range map[string]struct {
		command Work
		taken   bool // by another start
		late    bool
		worked  string
		through bool
	}{
		"all":                            {command: Work{}, worked: "000000 000001 000002", through: true},
		"another has it":                 {command: Work{}, taken: true, worked: "000000 000001 000002", through: true},
		"another has it, and reads":      {command: Work{ReadUnits: 1}, taken: true, worked: "000000"},
		"another has it, and writes":     {command: Work{WriteUnits: 1}, taken: true, worked: "000000"},
		"a budget, and nobody has it":    {command: Work{ReadUnits: 1}, worked: "000000 000001 000002", through: true},
		"time is up after the command's": {command: Work{}, late: true, worked: "000000"},
	} {
		t.Run(name, func(t *testing.T) {
			crew := newCrew(t, &mem.Store{Now: func() time.Time { return began }})
			if c.taken {
				crew.noted("another", "000000")
			}
			w := crew.worker(crew.run("mine", 0))
			var worked []string
			w.Open = func(_ context.Context, s vault.SegmentID) (Job, error) {
				worked = append(worked, string(s))
				return &script{c: crew, w: w, steps: []step{{last: true, late: c.late}}}, nil
			}
			c.command.Segment = "000000"
			through, err := w.Work(t.Context(), c.command)
			slices.Sort(worked)
			if got := strings.Join(worked, " "); got != c.worked || through != c.through || err != nil {
				t.Errorf("worked on %s, through %t, %v", got, through, err)
			}
		})
	}
}
