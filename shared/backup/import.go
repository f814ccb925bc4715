package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"

	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vault/shard"
)

// ImportReply is what one invocation came to.
type ImportReply struct {
	Restore vault.RestoreID `json:"restore"`
	Segment vault.SegmentID `json:"segment"`
	Start   int             `json:"start"`
	// Rows were written, Quarantined refused for good.
	Rows        int64 `json:"rows"`
	Bytes       int64 `json:"bytes"`
	Quarantined int64 `json:"quarantined"`
	WriteUnits  int64 `json:"write_units"`
	// Done says that the segment is loaded, Continued that another invocation
	// goes on, Superseded that another one already does, Closed that the restore
	// is over and nothing was written after that.
	Done       bool `json:"done"`
	Continued  bool `json:"continued,omitempty"`
	Superseded bool `json:"superseded,omitempty"`
	Closed     bool `json:"closed,omitempty"`
	// Replaced are the objects that were damaged or gone in the vault, and were
	// read from another one.
	Replaced []vault.Finding `json:"replaced,omitempty"`
}

// writersInFlight is how many batches of a segment are on their way at a time,
// if memory allows: one waits for the network while others are encoded.
const writersInFlight = 16

// blockCopies is how many times a block's rows are in memory on their way from
// the shard to the service: decoded, and encoded into a request.
const blockCopies = 2

// The bounds of quarantine. A restore of which more is refused has another
// cause than single bad rows, and stops.
const (
	// firstRefusals is how many rows must be refused with one code, and none
	// accepted, for that to be the fate of all.
	firstRefusals = 20
	// maxQuarantined and one row in maxQuarantinedShare, whichever is more, may
	// be refused in a segment.
	maxQuarantined      = 1000
	maxQuarantinedShare = 100
	// quarantineBytes is the size of refused rows at which they are written
	// down, so that they need not be kept.
	quarantineBytes = 4 << 20
)

// Import writes one segment of a backup into the target until it is loaded, or
// until run says stop; then it hands over to the next start. A part of the work
// is done when its slot exists; rows that were written without one are written
// again by whoever goes on, to the same effect.
func (i *Importer) Import(ctx context.Context, run Run, w Work) (ImportReply, error) {
	reply := ImportReply{Restore: w.Restore, Segment: w.Segment, Start: w.Start}
	what := fmt.Sprintf("import segment %s of restore %s", w.Segment, w.Restore)
	r := vault.Restore{ID: w.Restore}
	plan, err := i.Repo.RestorePlan(ctx, w.Restore)
	if err != nil {
		return reply, fmt.Errorf("%s: %w", what, err)
	}
	what = fmt.Sprintf("import segment %s of backup %s into %s", w.Segment, plan.Backup, plan.Target)
	// The start is noted before anything is looked at: whoever closes the
	// restore either sees the note, and waits, or has closed it before, and is
	// seen.
	if reply.Start, err = i.Repo.begin(ctx, r.Log(), vault.Note{Segment: w.Segment, Start: w.Start}, run); err != nil {
		return reply, fmt.Errorf("%s: %w", what, err)
	}
	err = i.segment(ctx, run, plan, &reply)
	reply.Replaced = i.Repo.replaced()
	for _, f := range reply.Replaced {
		i.Log.Warn("damaged in the vault", "object", f.Object, "reason", f.Reason)
	}
	if errors.Is(err, errClosed) {
		reply.Closed, err = true, nil
	}
	if err == nil {
		err = i.Repo.mark(ctx, r.Log().End(w.Segment, reply.Start))
	}
	if err == nil && reply.Continued {
		next := w
		next.Start = reply.Start + 1
		err = i.Work.Submit(ctx, next)
		if err != nil {
			reply.Continued = false
			err = fmt.Errorf("continue: %w", err)
		}
	}
	if err != nil {
		err = i.Repo.fail(ctx, r.Log(), w.Segment, reply.Start, run, permanent(err), fmt.Errorf("%s: %w", what, err))
	}
	return reply, err
}

// inTime is ctx with an end half way from when run says stop to when the
// platform ends the invocation: late enough for what is under way, early enough
// to save, or to say what happened.
func (r Run) inTime(ctx context.Context) (context.Context, context.CancelFunc) {
	if r.Stop.IsZero() {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, r.Stop.Sub(r.Now())+r.Until.Sub(r.Stop)/2)
}

// errClosed says that the restore is over, errObey that another start has won
// the slot that this one was working for.
var (
	errClosed = errors.New("the restore is closed")
	errObey   = errors.New("another start has won the slot")
)

// segment loads a segment, entry by entry.
func (i *Importer) segment(ctx context.Context, run Run, p *vault.RestorePlan, reply *ImportReply) error {
	if closed, err := i.Repo.closed(ctx, p.Restore); err != nil {
		return err
	} else if closed != nil {
		return errClosed
	}
	src, err := i.Repo.restoreSource(ctx, p)
	if err != nil {
		return err
	}
	source, err := i.Repo.sealedLog(ctx, src.manifest, reply.Segment)
	if err != nil {
		return err
	}
	l := &loader{importer: i, run: run, plan: p, source: src, restore: vault.Restore{ID: p.Restore}, start: reply.Start}
	for _, s := range source.slots {
		if s.Part != nil {
			l.parts = append(l.parts, s)
			l.total += s.Part.Rows
		}
	}
	l.gate.look = l.look
	l.makeWriters()
	if err := l.readLog(ctx, reply.Segment); err != nil {
		return err
	}
	for entries := 0; !l.ended; entries++ {
		if entries > 0 && run.stopping() {
			if reply.Start+1 >= MaxStarts {
				return fmt.Errorf("%w: %d, and the segment is not loaded; give the function more time", errStarts, MaxStarts)
			}
			reply.Continued = !reply.Superseded
			return nil
		}
		entry, broken := l.entry(ctx)
		if errors.Is(broken, errObey) {
			reply.Superseded = true
			if err := l.readLog(ctx, reply.Segment); err != nil {
				return err
			}
			continue
		}
		if entry == nil {
			return broken
		}
		// What was written before an error is as good as any: keep it, then
		// report.
		mine, err := i.Repo.tell(ctx, l.restore.Log().Slot(reply.Segment, entry.Slot), entry, &entry.Usage)
		if err != nil {
			return errors.Join(broken, err)
		}
		// Whoever won, what the slot says is so: the same rows were written.
		if err := l.add(entry); err != nil {
			return err
		}
		if reply.Superseded = !mine; mine {
			reply.Rows += entry.Rows
			reply.Bytes += entry.Bytes
			reply.Quarantined += entry.Quarantined
			reply.WriteUnits += entry.WriteUnits
		}
		if broken != nil {
			return broken
		}
	}
	if err := i.Repo.mark(ctx, l.restore.Log().Done(reply.Segment)); err != nil {
		return err
	}
	reply.Done = true
	return nil
}

// loader loads one segment.
type loader struct {
	importer *Importer
	run      Run
	plan     *vault.RestorePlan
	source   *restoreSource
	restore  vault.Restore
	start    int
	parts    []vault.Slot // of the backup, those that hold rows
	total    int64        // rows in all of them
	gate     gate
	memory   int64
	writers  []*blockWriter
	free     chan *shard.Rows // as many as there are writers, and one that is being read
	// updates is set when the service has refused to put several versions of a
	// column: from then on, such rows are updated at once.
	updates atomic.Bool

	// What the log says: how many slots it has, where to go on, and what was
	// accepted and refused.
	segment               vault.SegmentID
	slots                 int
	part                  int // index in parts
	block                 int64
	accepted, quarantined int64
	ended                 bool
}

func (l *loader) makeWriters() {
	l.memory = l.importer.Memory
	if l.memory == 0 {
		l.memory = DefaultMemory
	}
	n := int(min(max(l.memory/(blockCopies*shard.BlockBytes), 1), writersInFlight))
	l.free = make(chan *shard.Rows, n+1)
	for range n {
		l.writers = append(l.writers, &blockWriter{batch: l.importer.Tables.NewBatch()})
	}
}

// release takes back the memory of a block.
func (l *loader) release(rows *shard.Rows) {
	if cap(rows.Buf) > 2*shard.BlockBytes {
		rows = new(shard.Rows) // it held an uncommonly wide row
	}
	l.free <- rows
}

func (l *loader) readLog(ctx context.Context, s vault.SegmentID) error {
	if l.segment == "" {
		l.segment = s
		l.ended = len(l.parts) == 0
	}
	for !l.ended {
		var entry vault.Loaded
		_, err := l.importer.Repo.read(ctx, l.restore.Log().Slot(s, l.slots), &entry)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := l.add(&entry); err != nil {
			return err
		}
	}
	return nil
}

// add takes the next entry of the log, if it goes on from where the log stands.
func (l *loader) add(e *vault.Loaded) error {
	at := len(l.parts)
	for k := range l.parts {
		if l.parts[k].Slot == e.Part {
			at = k
		}
	}
	if e.Last {
		at = len(l.parts)
	}
	if e.Segment != l.segment || e.Slot != l.slots || at == len(l.parts) && !e.Last ||
		at < l.part || at == l.part && e.Block <= l.block {
		return fmt.Errorf("%w: slot %d of segment %s: an entry for slot %d of %s up to block %d of part %d, the log stands at block %d of part %d",
			vault.ErrCorrupt, l.slots, l.segment, e.Slot, e.Segment, e.Block, e.Part, l.block, l.part)
	}
	l.slots++
	l.part, l.block, l.ended = at, e.Block, e.Last
	l.accepted += e.Rows
	l.quarantined += e.Quarantined
	return nil
}

// look says whether rows may still be written for the slot that is being
// worked for.
func (l *loader) look(ctx context.Context) error {
	over, err := l.importer.Repo.exists(ctx, l.restore.Closed())
	if err != nil {
		return err
	}
	if over {
		return errClosed
	}
	if over, err = l.importer.Repo.exists(ctx, l.restore.Log().Slot(l.segment, l.slots)); err == nil && over {
		err = errObey
	}
	return err
}

// entry loads one part of the backup, or what of it can be loaded before run
// says stop or too many rows were refused to keep them, and returns what to
// write into the log: nil and an error if nothing can be kept, an entry and an
// error if writing broke off after some blocks.
func (l *loader) entry(ctx context.Context) (*vault.Loaded, error) {
	part := l.parts[l.part]
	var w *partLoad
	var whole bool
	var broken error
	for {
		w = &partLoad{
			loader: l, next: l.block, written: map[int64]*blockLoad{}, keys: map[string]bool{}, codes: map[string]int{},
		}
		since := l.importer.Repo.turns()
		whole, broken = w.load(ctx, part.Part)
		// What was written before the damage is written again from the twin, to
		// the same effect.
		var bad *badObject
		if !errors.As(broken, &bad) || !l.importer.Repo.turn(ctx, bad.object, since, bad.err) {
			break
		}
	}
	if broken != nil {
		broken = fmt.Errorf("part %d, %s: %w", part.Slot, part.Part.Shard.Name, broken)
		if w.next == l.block || ctx.Err() != nil || permanent(broken) || errors.Is(broken, errClosed) || errors.Is(broken, errObey) {
			return nil, broken
		}
	}
	refused := map[string]bool{}
	for _, r := range w.sum.refused {
		refused[r.Key.String()] = true
	}
	e := &vault.Loaded{
		Segment: l.segment, Slot: l.slots, Start: l.start, Part: part.Slot, Block: w.next,
		Rows: w.sum.rows - int64(len(refused)), Bytes: w.sum.bytes, Digest: w.sum.digest,
		Quarantined: int64(len(refused)), WriteUnits: w.sum.units,
	}
	if whole {
		e.Block = 0
		if l.part+1 < len(l.parts) {
			e.Part = l.parts[l.part+1].Slot
		} else {
			e.Last = true
		}
	}
	if len(w.sum.refused) > 0 {
		o, err := l.quarantine(ctx, w.sum.refused)
		if err != nil {
			return nil, errors.Join(broken, err)
		}
		e.Quarantine = &o
	}
	return e, broken
}

func (l *loader) quarantine(ctx context.Context, rows []vault.Refused) (vault.Object, error) {
	name := l.restore.Quarantine(l.segment, randomName())
	return l.importer.Repo.create(ctx, name, &vault.Quarantine{Segment: l.segment, Rows: rows})
}
