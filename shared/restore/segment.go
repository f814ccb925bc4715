package restore

import (
	"context"
	"errors"
	"fmt"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/sealed"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// segmentLoad is the loading of one segment: the job of a worker. Each slot of its log
// has an entry, which is about blocks of one part.
type segmentLoad struct {
	load  *load
	id    vault.SegmentID
	start int
	begun bool // this start brings the segment to its end, if it comes there
	// entries are the log, so far; at is where it stands, once that is held against the
	// backup's segment.
	entries []vault.Loaded
	source  *sealed.Segment
	at      position
	next    *vault.Loaded // what was worked for last
}

// Read reads what is loaded of the segment.
func (s *segmentLoad) Read(ctx context.Context, _ bool) error {
	for entry, err := range s.load.repo.Loading(ctx, s.load.restore, s.id, 0) {
		if err != nil {
			return err
		}
		if s.entries = append(s.entries, entry); entry.Last {
			return s.open(ctx)
		}
	}
	return nil
}

// Slots is how many entries the log has.
func (s *segmentLoad) Slots() int { return len(s.entries) }

// Ended says whether the segment is loaded.
func (s *segmentLoad) Ended() bool {
	return len(s.entries) > 0 && s.entries[len(s.entries)-1].Last || s.source != nil && len(s.at.parts) == 0
}

// Begun makes ready for the first slot. The start is noted before it is looked whether
// the restore is open: whoever closes it either sees the note, and waits, or has closed
// it before, and is seen.
func (s *segmentLoad) Begun(ctx context.Context, start, idle int) (rows, size int64, err error) {
	s.start, s.begun = start, true
	if err := s.open(ctx); err != nil {
		return 0, 0, err
	}
	if err := s.indexes(ctx); err != nil {
		return 0, 0, err
	}
	if n := len(s.entries); n > 0 && idle == 0 {
		s.load.target.throttle.Resume(s.entries[n-1].Pace)
	}
	return s.at.accepted + s.at.quarantined, s.at.bytes, nil
}

// open looks whether rows may be written, and holds the log against the backup's segment.
func (s *segmentLoad) open(ctx context.Context) (err error) {
	if closed, err := s.load.repo.Closed(ctx, s.load.restore.ID); err != nil {
		return err
	} else if closed != nil {
		return fanout.ErrClosed
	}
	if err := s.load.lease.check(ctx); err != nil {
		return err
	}
	if s.source, err = s.load.segments.Of(ctx, s.id); err != nil {
		return err
	}
	s.at = newPosition(s.source)
	for k := range s.entries {
		if err := s.at.add(&s.entries[k]); err != nil {
			return err
		}
	}
	return nil
}

// indexes finds out, before a row of the segment is written, that its indexes are as they
// were written. Nothing is loaded by them, but without them nothing is compared.
func (s *segmentLoad) indexes(ctx context.Context) error {
	if s.Ended() {
		return nil
	}
	var parts []*vault.Part
	for _, slot := range s.at.parts[s.at.part:] {
		parts = append(parts, slot.Part)
	}
	return sealed.HoldIndexes(ctx, s.load.repo, parts)
}

// Next loads blocks for the next entry. Where another start has won the slot meanwhile,
// it goes on behind what that has loaded.
func (s *segmentLoad) Next(ctx context.Context) (vault.Document, error) {
	for !s.Ended() {
		entry, broken := s.entry(ctx)
		switch {
		case errors.Is(broken, errObey):
			s.load.worker.Superseded = true
			if err := s.catchUp(ctx); err != nil || s.load.run.Stopping() {
				return nil, err
			}
		case entry == nil:
			return nil, broken
		default:
			s.next = entry
			return entry, broken
		}
	}
	return nil, nil
}

// catchUp takes the entries that others have added to the log.
func (s *segmentLoad) catchUp(ctx context.Context) error {
	for entry, err := range s.load.repo.Loading(ctx, s.load.restore, s.id, s.Slots()) {
		if err != nil {
			return err
		}
		if err := s.add(entry); err != nil || s.Ended() {
			return err
		}
	}
	return nil
}

func (s *segmentLoad) add(entry vault.Loaded) error {
	s.entries = append(s.entries, entry)
	return s.at.add(&entry)
}

// Stored takes the entry that stands in the slot. Whoever has written it, what it says is
// so: the same rows were written.
func (s *segmentLoad) Stored(_ context.Context, mine bool) (goesOn bool, err error) {
	if err := s.add(*s.next); err != nil {
		return false, err
	}
	if mine {
		reply := &s.load.reply
		reply.Rows += s.next.Rows
		reply.Bytes += s.next.Bytes
		reply.Quarantined += s.next.Quarantined
		reply.WriteUnits += s.next.WriteUnits
		reply.Pace = s.next.Pace
	}
	return true, nil
}

// End marks the segment as loaded.
func (s *segmentLoad) End(ctx context.Context) error {
	if err := s.load.repo.Mark(ctx, s.load.restore.Log().Done(s.id)); err != nil {
		return err
	}
	s.load.reply.Done = true
	if s.begun {
		s.load.reply.Ended++
	}
	return nil
}

// entry loads one part of the backup, or what of it can be loaded before run says stop or
// too many rows were refused to keep them, and returns what to write into the log: nil
// and an error if nothing can be kept, an entry and an error if writing broke off after
// some blocks.
func (s *segmentLoad) entry(ctx context.Context) (*vault.Loaded, error) {
	part := s.at.parts[s.at.part]
	s.load.lease.workFor(s.load.restore.Log().Slot(s.id, s.Slots()))
	var w *partLoad
	// What was written before damage was met is written again from the replica, to the
	// same effect.
	broken := s.load.repo.FailOver(ctx, func() error {
		w = &partLoad{run: s.load.run, pool: s.load.pool, from: s.at.block, account: newAccount(&s.at)}
		return w.load(table.BeforeRetry(ctx, s.load.lease.again), s.source, part.Part)
	})
	if broken != nil {
		broken = fmt.Errorf("part %d: %w", part.Slot, broken)
		if w.account.next == s.at.block || ctx.Err() != nil || fanout.Permanent(broken) || errors.Is(broken, fanout.ErrClosed) || errors.Is(broken, errObey) {
			return nil, broken
		}
	}
	sum := &w.account.sum
	refused := map[string]bool{}
	for _, r := range sum.refused {
		refused[r.Key.String()] = true
	}
	e := &vault.Loaded{
		Segment: s.id, Slot: s.Slots(), Start: s.start, Part: part.Slot, Block: w.account.next,
		Rows: sum.rows - int64(len(refused)), Bytes: sum.bytes, Digest: sum.digest,
		Quarantined: int64(len(refused)), WriteUnits: sum.units, Pace: s.load.target.throttle.Take(),
	}
	if w.whole {
		e.Block = 0
		if s.at.part+1 < len(s.at.parts) {
			e.Part = s.at.parts[s.at.part+1].Slot
		} else {
			e.Last = true
		}
	}
	if len(sum.refused) > 0 {
		name := s.load.restore.Quarantine(s.id, repository.RandomName())
		o, err := s.load.repo.Create(ctx, name, &vault.Quarantine{Segment: s.id, Rows: sum.refused})
		if err != nil {
			return nil, errors.Join(broken, err)
		}
		e.Quarantine = &o
	}
	return e, broken
}

// position is where the log of a segment's loading stands.
type position struct {
	segment vault.SegmentID
	parts   []vault.Slot // of the backup, those that hold rows
	total   int64        // rows in all of them
	slots   int
	part    int   // index in parts
	block   int64 // the first one of the part that is not loaded
	// What was accepted and refused so far.
	accepted, quarantined, bytes int64
}

// newPosition is the beginning of a segment.
func newPosition(source *sealed.Segment) position {
	p := position{segment: source.ID(), parts: source.Parts()}
	for _, slot := range p.parts {
		p.total += slot.Part.Rows
	}
	return p
}

// add takes the next entry of the log, if it goes on from where the log stands.
func (p *position) add(e *vault.Loaded) error {
	at := len(p.parts)
	for k := range p.parts {
		if p.parts[k].Slot == e.Part {
			at = k
		}
	}
	if e.Last {
		at = len(p.parts)
	}
	if at == len(p.parts) && !e.Last || at < p.part || at == p.part && e.Block <= p.block {
		return fmt.Errorf("%w: slot %d of segment %s: an entry up to block %d of part %d, the log stands at block %d of part %d",
			vault.ErrCorrupt, p.slots, p.segment, e.Block, e.Part, p.block, p.part)
	}
	p.slots++
	p.part, p.block = at, e.Block
	p.accepted += e.Rows
	p.quarantined += e.Quarantined
	p.bytes += e.Bytes
	return nil
}
