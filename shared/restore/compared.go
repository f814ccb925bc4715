package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/tablevault/tablevault/shared/compare"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/sealed"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/verify"
)

// segmentCheck is the comparison of one segment: the job of a worker. What was compared
// before time was up stands in the slots of its log, and its check, which tells of all of
// it, beside them.
type segmentCheck struct {
	check *check
	id    vault.SegmentID
	began time.Time
	start int
	// before sums up the log, which has so many slots.
	before vault.Compared
	slots  int
	source *sealed.Segment
	sink   compare.Sink
	// found is the segment's check; stands says that somebody has written it, and ended
	// that it can be.
	found         vault.SegmentCheck
	stands, ended bool
	next          *vault.Compared // what was compared last
}

// errNoLane says that an invocation has come no further.
var errNoLane = errors.New("none of its ranges was read to its end")

// Read reads what earlier starts have compared.
func (s *segmentCheck) Read(ctx context.Context, claimed bool) error {
	_, err := s.check.repo.Read(ctx, s.check.restore.Check(s.id), &s.found)
	if s.stands = err == nil; s.stands || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for !claimed {
		var entry vault.Compared
		_, err := s.check.repo.Read(ctx, s.slot(), &entry)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			err = s.add(&entry)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// slot is the name of the next slot.
func (s *segmentCheck) slot() string { return s.check.restore.Verify().Slot(s.id, s.slots) }

// add takes the next entry of the log.
func (s *segmentCheck) add(entry *vault.Compared) error {
	before := &s.before
	if len(entry.Compared) == 0 || slices.ContainsFunc(entry.Compared, func(lane int) bool { return slices.Contains(before.Compared, lane) }) {
		return fmt.Errorf("read %s: %w: it compares lanes %v, compared before it are %v", s.slot(), vault.ErrCorrupt, entry.Compared, before.Compared)
	}
	before.Compared = append(before.Compared, entry.Compared...)
	before.Check.Add(entry.Check)
	before.Usage.Add(entry.Usage)
	s.slots++
	return nil
}

// Slots is how many entries the log has.
func (s *segmentCheck) Slots() int { return s.slots }

// Ended says whether the whole segment is compared.
func (s *segmentCheck) Ended() bool { return s.stands || s.ended }

// Begun makes ready to compare.
func (s *segmentCheck) Begun(ctx context.Context, start, _ int) (rows, size int64, err error) {
	x := s.check
	s.start = start
	if closed, err := x.repo.Closed(ctx, x.restore.ID); err != nil {
		return 0, 0, err
	} else if closed != nil {
		return 0, 0, fanout.ErrClosed
	}
	if s.source, err = x.segments.Of(ctx, s.id); err != nil {
		return 0, 0, err
	}
	s.found = vault.SegmentCheck{Segment: s.id}
	loaded, err := verify.ReadLoading(ctx, x.repo, x.restore, s.id, &s.found.Check)
	if err != nil {
		return 0, 0, err
	}
	s.sink, s.found.Usage = loaded.Count, loaded.Usage
	if s.found.Settled, err = s.settled(ctx, loaded); err != nil {
		return 0, 0, err
	}
	if x.comparer == nil {
		if x.comparer, err = x.newComparer(ctx, s.source.Backup); err != nil {
			return 0, 0, err
		}
	}
	lanes := len(s.source.Lanes())
	for _, lane := range s.before.Compared {
		if lane >= lanes {
			return 0, 0, fmt.Errorf("%s: %w: lane %d is compared, and there are %d", x.restore.Verify().Slots(s.id), vault.ErrCorrupt, lane, lanes)
		}
	}
	return s.before.Check.Target, 0, nil
}

// settled says whether nobody writes the rows of the segment any more, the log of whose
// loading was read: see records.working. It is looked at before the rows are compared.
func (s *segmentCheck) settled(ctx context.Context, loaded verify.Loading) (bool, error) {
	if !loaded.Ended {
		// Of a segment without rows, nothing is loaded.
		return !slices.ContainsFunc(s.source.Parts(), func(slot vault.Slot) bool { return slot.Part.Rows > 0 }), nil
	}
	working, err := fanout.NewLog(s.check.repo, s.check.restore.Log()).MayWork(ctx, s.id, s.check.run)
	return working == "", err
}

// Next compares the segment, or as many of its lanes as there is time for.
func (s *segmentCheck) Next(ctx context.Context) (vault.Document, error) {
	x := s.check
	comparing, cancel := x.run.InTime(ctx)
	defer cancel()
	c := &compare.Comparison{Segment: s.source, Sink: s.sink, Run: x.run, Before: map[int]bool{}}
	for _, lane := range s.before.Compared {
		c.Before[lane] = true
	}
	found := s.found.Check
	got, err := verify.Segment(comparing, verify.DepthRows, x.comparer, c, &found)
	if err == nil && got.Cut && len(got.Lanes) == 0 {
		err = errNoLane
	}
	if errors.Is(err, errNoLane) || err != nil && comparing.Err() != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("the segment can't be compared in the function's time; give verify a longer timeout, or the restore a larger budget of read units: %w", err)
	}
	if err != nil {
		return nil, err
	}
	if !got.Cut {
		s.found.Check, s.ended = found, true
		return nil, nil
	}
	s.next = &vault.Compared{Segment: s.id, Slot: s.slots, Start: s.start, Compared: got.Lanes, Check: got.Check, Pace: x.reads.Take()}
	return s.next, nil
}

// Stored takes what stands in the slot. If another start was faster, its word stands.
func (s *segmentCheck) Stored(context.Context, bool) (goesOn bool, err error) {
	s.check.reply.Pace = s.next.Pace
	s.check.add(s.next.Check)
	return true, s.add(s.next)
}

// End writes the segment's check, unless it stands.
func (s *segmentCheck) End(ctx context.Context) error {
	x := s.check
	if !s.stands {
		if err := s.write(ctx); err != nil {
			return err
		}
		x.reply.Ended++
	}
	x.add(s.found.Check)
	x.took(x.run.Now().Sub(s.began))
	return nil
}

// write writes the segment's check.
func (s *segmentCheck) write(ctx context.Context) error {
	x := s.check
	s.found.Check.Add(s.before.Check)
	s.found.Usage.Add(s.before.Usage)
	// Among what was read elsewhere are documents too. The comparison has proved
	// what was read: where it is gone from here, it is put back.
	x.repo.Heal(ctx, s.source.Backup.ID)
	s.found.Check.Replaced = nil
	s.found.Check.Replace(x.untold())
	s.found.Pace = x.reads.Take()
	x.reply.Pace = s.found.Pace
	s.found.At = x.run.Now().UTC()
	_, err := x.repo.Win(ctx, x.restore.Check(s.id), &s.found)
	return err
}
