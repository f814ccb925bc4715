package fanout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// Pace says what holds workers back.
type Pace struct {
	// Reason is one of the Paced constants of package vault; where workers have
	// several, the one that is least of their own making.
	Reason string `json:"reason"`
	// Workers is how many are held back, ReadUnits the rate that they are held
	// to together, in read units per second; WriteUnits the same of a restore's.
	Workers    int     `json:"workers"`
	ReadUnits  float64 `json:"read_units_per_second,omitempty"`
	WriteUnits float64 `json:"write_units_per_second,omitempty"`
	// Throttled counts the answers, for the newest parts, by which the service
	// wanted fewer requests.
	Throttled int64 `json:"throttled,omitempty"`
}

// String is the pace for people.
func (p *Pace) String() string {
	if p == nil {
		return ""
	}
	rate, units := p.ReadUnits, "read"
	if p.WriteUnits > 0 {
		rate, units = p.WriteUnits, "write"
	}
	why := map[string]string{
		vault.PacedByBudget: "the budget of " + units + " units", vault.PacedByService: "the service's throttling", vault.PacedByLatency: "slow answers",
	}[p.Reason]
	if rate == 0 {
		return fmt.Sprintf("%d workers were held back by %s", p.Workers, cmp.Or(why, p.Reason))
	}
	return fmt.Sprintf("%d workers are held to %.0f %s units/s by %s", p.Workers, rate, units, cmp.Or(why, p.Reason))
}

// Of adds the pace of a worker; either may be nil.
func (p *Pace) Of(worker *vault.Pace) *Pace {
	if worker == nil {
		return p
	}
	return p.add(&Pace{Reason: worker.Reason, Workers: 1, ReadUnits: worker.ReadUnits, WriteUnits: worker.WriteUnits, Throttled: worker.Throttled})
}

// add adds another pace; either may be nil.
func (p *Pace) add(o *Pace) *Pace {
	if p == nil || o == nil {
		return cmp.Or(p, o)
	}
	order := []string{vault.PacedByBudget, vault.PacedByLatency, vault.PacedByService}
	sum := &Pace{Reason: p.Reason, Workers: p.Workers + o.Workers, ReadUnits: p.ReadUnits + o.ReadUnits,
		WriteUnits: p.WriteUnits + o.WriteUnits, Throttled: p.Throttled + o.Throttled}
	if slices.Index(order, o.Reason) > slices.Index(order, p.Reason) {
		sum.Reason = o.Reason
	}
	return sum
}

// LooksInFlight is how many groups are looked at at a time.
const LooksInFlight = 8

// MaxFailures is how often a segment may fail before only a person's command
// starts it again.
const MaxFailures = 10

// Dispatch finds out which segments of a backup or of a restore are to be
// started, and starts them.
type Dispatch struct {
	Log   Log
	Stale time.Duration
	Since time.Time
	// Most is how many segments are kept ready, 0 for all.
	Most int

	Live      int     // segments with a live start
	Working   []Start // those of the last look
	Ready     []Start // those to be made
	Submitted int
	Starts    int // the most starts of an open segment
	Pace      *Pace
	Silent    string                        // which of the live ones has been silent for a while
	Failure   string                        // what went wrong last in a segment that is open
	Corrupt   bool                          // it is about an object that is not as it was written
	Over      bool                          // it is for good
	Begun     map[vault.SegmentID]time.Time // first starts, by the store's clock
}

// Add takes over what another look has found.
func (d *Dispatch) Add(o *Dispatch) {
	d.Live += o.Live
	d.Starts = max(d.Starts, o.Starts)
	d.Pace = d.Pace.add(o.Pace)
	d.Silent = cmp.Or(d.Silent, o.Silent)
	if o.Failure != "" && (o.Over || !d.Over) {
		d.Failure, d.Corrupt = o.Failure, o.Corrupt
	}
	d.Over = d.Over || o.Over
	for _, s := range o.Ready {
		d.keep(s)
	}
}

func (d *Dispatch) keep(s Start) {
	if d.Most == 0 || len(d.Ready) < d.Most {
		d.Ready = append(d.Ready, s)
	}
}

// failed notes what went wrong in a segment, and whether that is for good.
func (d *Dispatch) failed(reason string, over bool) { d.failedBy(vault.Note{Error: reason}, over) }

// failedBy does the same by the note of a failure.
func (d *Dispatch) failedBy(note vault.Note, over bool) {
	if over || !d.Over {
		d.Failure, d.Corrupt = note.Error, note.Corrupt
	}
	d.Over = d.Over || over
}

// Look sorts the open segments of a group. A start is live until the platform
// ends it, unless a failure says that it is over. A segment whose newest start
// failed for good is reported and left alone, unless it failed before Since, or
// starts have gone stale by order of the caller. A live one that has told something,
// and then nothing for a while, was killed: another one is begun beside it, which
// hurts nobody if it was not. All others are ready.
func (d *Dispatch) Look(ctx context.Context, run Run, group int, open []vault.SegmentID) error {
	starts, err := d.Log.starts(ctx, group)
	if err != nil {
		return err
	}
	failures, err := d.Log.failures(ctx, group)
	if err != nil {
		return err
	}
	var heard map[Start]time.Time // nil until it is asked for
	d.Working, d.Begun = nil, make(map[vault.SegmentID]time.Time, len(starts))
	for id, s := range starts {
		d.Begun[id] = s.first
	}
	for _, id := range open {
		start, started := starts[id]
		next := 0
		if started {
			next = start.Last + 1
			d.Starts = max(d.Starts, next)
			if next > vault.MaxNumber {
				d.failed(fmt.Sprintf("segment %s: %v: there is a start %d", id, ErrStarts, start.Last), true)
				continue
			}
			if f := failures[id]; f.Count > 0 && f.Last >= start.Last {
				note, err := d.note(ctx, d.Log.names.Failure(id, f.Last))
				if err != nil {
					return err
				}
				over := (note.Permanent || f.Count >= MaxFailures) && d.Stale == 0 && !note.Began.Before(d.Since)
				if d.failedBy(note, over); over {
					continue
				}
			} else {
				note, err := d.note(ctx, d.Log.names.Start(id, start.Last))
				if err != nil {
					return err
				}
				over := note.Error != "" || start.Over(&note, run.Now())
				stale := d.Stale > 0 && run.Now().Sub(note.Began) > d.Stale
				silent := false
				if !over && !stale {
					if silent, err = d.silent(ctx, run, group, &note, &heard); err != nil {
						return err
					}
				}
				if !over && !stale && !silent {
					d.Live++
					d.Working = append(d.Working, Start{id, start.Last})
					continue
				}
				if over && note.Error != "" {
					d.failedBy(note, false)
				} else if over {
					d.failed(fmt.Sprintf("start %d of segment %s (request %s) had until %s and left no word: it was killed, ran out of memory or of time; it is started again",
						start.Last, id, note.Request, note.Until.UTC().Format(time.RFC3339)), false)
				}
			}
		}
		d.keep(Start{id, next})
	}
	return nil
}

const (
	// quietAfter is after how long without a word a start is named in the progress.
	quietAfter = tellAtLeast + tellAtMost
	// silentAfter is after how long it counts as dead, as far as another one is begun.
	silentAfter = 3 * time.Minute
)

// silent says whether a live start is to be left alone, and another one begun: it has
// told something, so that it can, and then nothing for a while. Since dates of a store
// and clocks may differ, no third one is begun while two are live.
func (d *Dispatch) silent(ctx context.Context, run Run, group int, note *vault.Note, heard *map[Start]time.Time) (bool, error) {
	if run.Now().Sub(note.Began) < quietAfter {
		return false, nil
	}
	if *heard == nil {
		var err error
		*heard, err = d.Log.heardIn(ctx, group)
		if err != nil && !errors.Is(err, fs.ErrPermission) { // who may not hear waits
			return false, err
		}
	}
	last := (*heard)[Start{note.Segment, note.Start}]
	quiet := run.Now().Sub(last)
	if last.IsZero() || quiet < quietAfter {
		return false, nil
	}
	until := "until it ends"
	if !note.Until.IsZero() {
		until = "until " + note.Until.UTC().Format(time.RFC3339)
	}
	said := fmt.Sprintf("start %d of segment %s (request %s) was last heard of at %s and may be at work %s",
		note.Start, note.Segment, note.Request, last.UTC().Format(time.RFC3339), until)
	beside := ""
	if note.Start > 0 {
		var err error
		beside, err = d.Log.mayWork(ctx, Start{note.Segment, note.Start - 1}, run, d.Stale)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	if quiet < silentAfter || beside != "" {
		d.Silent = cmp.Or(d.Silent, said)
		return false, nil
	}
	d.failed(said+": it was killed, or hangs; another one is begun beside it", false)
	return true, nil
}

// longest is for how long an invocation works at most, whatever its note says.
const longest = 24 * time.Hour

// note reads what a start or a failure has left. One that is damaged is as good as a
// failure that says so: the segment is begun again, and nothing but the log of its
// slots decides what of it there is.
func (d *Dispatch) note(ctx context.Context, name string) (vault.Note, error) {
	var note vault.Note
	_, err := d.Log.repo.Read(ctx, name, &note)
	if err != nil && repository.Corrupt(err) {
		return vault.Note{Error: err.Error(), Corrupt: true}, nil
	}
	return note, err
}

// Submit starts at most n of the segments that are ready.
func (d *Dispatch) Submit(ctx context.Context, to Dispatcher, n int, work func(vault.SegmentID, int) Work) error {
	for len(d.Ready) > 0 && n > 0 {
		s := d.Ready[0]
		if err := to.Submit(ctx, work(s.Segment, s.Number)); err != nil {
			return fmt.Errorf("dispatch segment %s: %w", s.Segment, err)
		}
		d.Ready = d.Ready[1:]
		d.Submitted++
		n--
	}
	return nil
}

// Paces reads from the newest slots of the segments that the last look found at
// work, which were a group's, what holds their workers back.
func (d *Dispatch) Paces(ctx context.Context, group int, read func(ctx context.Context, slot string) (*vault.Pace, error)) error {
	if len(d.Working) == 0 {
		return nil
	}
	slots, err := count(d.Log.Slots(ctx, group))
	if err != nil {
		return err
	}
	for _, at := range d.Working {
		if slots[at.Segment].Count == 0 {
			continue
		}
		of, err := read(ctx, d.Log.names.Slot(at.Segment, slots[at.Segment].Last))
		if err != nil && repository.Corrupt(err) {
			continue // whoever proves the log says so
		}
		if err != nil {
			return err
		}
		d.Pace = d.Pace.Of(of)
	}
	return nil
}
