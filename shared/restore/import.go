package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/sealed"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/throttle"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vault/shard"
)

// Loader writes segments of backups into the tables of their restores.
type Loader struct {
	Repo *repository.Repository
	// Tables is the instance that the target is in.
	Tables table.Instance
	Work   fanout.Dispatcher
	Log    *slog.Logger
	// Memory bounds the rows in flight, in bytes; 0 means DefaultMemory.
	Memory int64
}

// LoadReply is what one invocation came to.
type LoadReply struct {
	Restore vault.RestoreID `json:"restore"`
	// Segment is the one that was worked on last, Start the number of its start,
	// Ended counts those that the invocation brought to their ends.
	Segment vault.SegmentID `json:"segment"`
	Start   int             `json:"start"`
	Ended   int             `json:"ended"`
	// Rows were written, Quarantined refused for good.
	Rows        int64 `json:"rows"`
	Bytes       int64 `json:"bytes"`
	Quarantined int64 `json:"quarantined"`
	WriteUnits  int64 `json:"write_units"`
	// Pace is what held the last entry back.
	Pace *vault.Pace `json:"pace,omitempty"`
	// Done says that the last segment is loaded, Continued that another invocation
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

// Load writes one segment of a backup into the target until it is loaded, or
// until run says stop; then it hands over to the next start. A part of the work
// is done when its slot exists; rows that were written without one are written
// again by whoever goes on, to the same effect.
//
// Like an export, a worker that is done with its segment goes on with others that
// nobody has begun, for as long as there is time and the restore is open.
func (l *Loader) Load(ctx context.Context, run fanout.Run, w fanout.Work) (LoadReply, error) {
	x := &importing{Loader: l, run: run, work: w, restore: vault.Restore{ID: w.Restore}, throttle: throttle.ForWrites(w.WriteUnits)}
	x.reply = LoadReply{Restore: w.Restore, Segment: w.Segment, Start: w.Start}
	err := x.all(ctx)
	x.reply.Replaced = l.Repo.Replaced()
	for _, f := range x.reply.Replaced {
		l.Log.Warn("damaged in the vault", "object", f.Object, "reason", f.Reason)
	}
	return x.reply, err
}

// importing is an invocation of a loader.
type importing struct {
	*Loader
	run      fanout.Run
	work     fanout.Work
	restore  vault.Restore
	plan     *vault.RestorePlan
	made     *vault.Made
	worker   fanout.Worker
	throttle *throttle.Throttle
	reply    LoadReply
	// owned is when the table was last seen to be the restore's own.
	owned instant

	segments sealed.Segments
	// Memory that is kept from segment to segment.
	memory  int64
	writers []*blockWriter
	free    chan *shard.Rows // as many as there are writers, and one that is being read
	// updates is set when the service has refused to put several versions of a
	// column: from then on, such rows are updated at once.
	updates atomic.Bool
	// doubt is set when a batch of the start at hand may be carried out though nobody
	// waits for its answer.
	doubt atomic.Bool
}

func (x *importing) what(s vault.SegmentID) string {
	if x.plan == nil {
		return fmt.Sprintf("import segment %s of restore %s", s, x.restore.ID)
	}
	return fmt.Sprintf("import segment %s of backup %s into %s", s, x.plan.Backup, x.plan.Target)
}

// all works on the segment of the command, and on what it finds after it.
func (x *importing) all(ctx context.Context) (err error) {
	if x.plan, err = x.Repo.RestorePlan(ctx, x.work.Restore); err != nil {
		return fmt.Errorf("%s: %w", x.what(x.work.Segment), err)
	}
	if err := planned(x.plan, x.work.Segment); err != nil {
		return fmt.Errorf("%s: %w", x.what(x.work.Segment), err)
	}
	if x.made, err = x.Repo.Made(ctx, x.plan.Restore); err != nil {
		return fmt.Errorf("%s: %w", x.what(x.work.Segment), err)
	}
	if x.made == nil {
		return fmt.Errorf("%s: the restore has not made the table yet: %w", x.what(x.work.Segment), table.ErrUnavailable)
	}
	x.makeWriters()
	x.segments = segmentsOf(x.Repo, x.plan)
	x.worker = fanout.Worker{Log: fanout.NewLog(x.Repo, x.restore.Log()), Run: &x.run, Submit: x.submit, What: x.what}
	x.worker.Planned, x.worker.Groups = plannedGroups(x.plan, func(s vault.RestoreSegment) bool { return s.Rows > 0 })
	if err := x.one(ctx, x.work.Segment, x.work.Start, false); err != nil {
		return err
	}
	if x.reply.Superseded && x.work.WriteUnits > 0 {
		return nil // one worker more would write beyond the restore's budget
	}
	err = x.worker.GoOn(ctx, x.work, x.one)
	x.reply.Continued = x.worker.Over && !x.reply.Closed
	if err == nil && !x.worker.Over {
		n := 0
		for _, s := range x.plan.Segments {
			if s.Rows > 0 {
				n++
			}
		}
		goesOn(ctx, x.Repo, x.Work, x.Log, x.work, fanout.Loading, x.restore.Log().AllDone(), n)
	}
	return err
}

func (x *importing) submit(ctx context.Context, s vault.SegmentID, start int) error {
	next := x.work
	next.Segment, next.Start = s, start
	return x.Work.Submit(ctx, next)
}

// one works on a segment, whose start may be claimed already, and notes what goes
// wrong, or that nothing is written any more.
func (x *importing) one(ctx context.Context, s vault.SegmentID, start int, claimed bool) error {
	x.reply.Segment, x.reply.Start = s, start
	x.reply.Done, x.reply.Superseded = false, false
	x.doubt.Store(false)
	noted, goesOn, err := x.segment(ctx, s, start, claimed)
	if errors.Is(err, errClosed) {
		x.reply.Closed, x.worker.Over, err = true, true, nil
	}
	if err == nil && noted && !x.doubt.Load() {
		err = x.Repo.Mark(ctx, x.restore.Log().End(s, x.reply.Start))
	}
	if err == nil && goesOn {
		err = x.worker.HandOver(ctx, s, x.reply.Start)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", x.what(s), err)
		if x.doubt.Load() {
			err = fanout.InDoubt(err)
		}
		err = fanout.NewLog(x.Repo, x.restore.Log()).Fail(ctx, fanout.Start{Segment: s, Number: x.reply.Start}, x.run, fanout.Permanent(err), err)
	}
	return err
}

// errClosed says that the restore is over, errObey that another start has won
// the slot that this one was working for.
var (
	errClosed = errors.New("the restore is closed")
	errObey   = errors.New("another start has won the slot")
)

// segment loads a segment, entry by entry. It says whether it has noted a start,
// and whether another invocation is to go on.
func (x *importing) segment(ctx context.Context, s vault.SegmentID, start int, claimed bool) (noted, goesOn bool, err error) {
	entries, err := x.readLog(ctx, s)
	if err != nil {
		return claimed, false, err
	}
	// The start is noted before it is looked whether the restore is open: whoever
	// closes it either sees the note, and waits, or has closed it before, and is
	// seen.
	idle := 0
	if !claimed && !loaded(entries) {
		b, err := x.worker.Begin(ctx, s, start, len(entries))
		x.reply.Start, x.reply.Superseded, idle = b.Start, b.Superseded, b.Idle
		if err != nil || b.Superseded {
			return false, false, err
		}
		claimed = true
	}
	if closed, err := x.Repo.Closed(ctx, x.restore.ID); err != nil {
		return claimed, false, err
	} else if closed != nil {
		return claimed, false, errClosed
	}
	if !x.owned.within(x.run.Now(), ownAgain) {
		if err := x.own(ctx); err != nil {
			return claimed, false, err
		}
	}
	l, err := x.loader(ctx, s)
	if err != nil {
		return claimed, false, err
	}
	for k := range entries {
		if err := l.add(&entries[k]); err != nil {
			return claimed, false, err
		}
	}
	if err := l.indexes(ctx); err != nil {
		return claimed, false, err
	}
	if n := len(entries); n > 0 && idle == 0 {
		x.throttle.Resume(entries[n-1].Pace)
	}
	rows, size := int64(0), int64(0)
	for k := range entries {
		rows, size = rows+entries[k].Rows+entries[k].Quarantined, size+entries[k].Bytes
	}
	tell := fanout.NewTeller(ctx, x.Repo, x.run, x.restore.Log().Progress(s), x.reply.Start, rows, size)
	defer tell.End()
	ctx = tell.With(ctx)
	for stored := 0; !l.ended; stored++ {
		if stored > 0 && x.run.Stopping() {
			return claimed, !x.reply.Superseded, nil
		}
		entry, broken := l.entry(ctx)
		if errors.Is(broken, errObey) {
			x.reply.Superseded = true
			if err := l.catchUp(ctx); err != nil {
				return claimed, false, err
			}
			continue
		}
		if entry == nil {
			return claimed, false, broken
		}
		// What was written before an error is as good as any: keep it, then
		// report.
		mine, err := x.Repo.Win(ctx, x.restore.Log().Slot(s, entry.Slot), entry)
		if err != nil {
			return claimed, false, errors.Join(broken, err)
		}
		// Whoever won, what the slot says is so: the same rows were written.
		if err := l.add(entry); err != nil {
			return claimed, false, err
		}
		if x.reply.Superseded = !mine; mine {
			x.reply.Rows += entry.Rows
			x.reply.Bytes += entry.Bytes
			x.reply.Quarantined += entry.Quarantined
			x.reply.WriteUnits += entry.WriteUnits
			x.reply.Pace = entry.Pace
		}
		if broken != nil {
			return claimed, false, broken
		}
	}
	if err := x.Repo.Mark(ctx, x.restore.Log().Done(s)); err != nil {
		return claimed, false, err
	}
	x.reply.Done = true
	if !loaded(entries) {
		x.reply.Ended++
	}
	return claimed, false, nil
}

// own compares the table with the one that the restore has made. Another one ends the
// restore.
func (x *importing) own(ctx context.Context) error {
	now := at(x.run.Now())
	err := yield(ctx, x.Repo, x.run, x.restore.ID, own(ctx, x.Tables, x.plan, x.made, true))
	if err == nil {
		x.owned = now
	}
	return err
}

// loaded says whether the log of a segment ends with its entries so far.
func loaded(entries []vault.Loaded) bool { return len(entries) > 0 && entries[len(entries)-1].Last }

// readLog reads what is loaded of a segment.
func (x *importing) readLog(ctx context.Context, s vault.SegmentID) (entries []vault.Loaded, err error) {
	for entry, err := range x.Repo.Loading(ctx, x.restore, s, 0) {
		if err != nil {
			return nil, err
		}
		if entries = append(entries, entry); entry.Last {
			break
		}
	}
	return entries, nil
}

// loader makes what loads a segment from its beginning.
func (x *importing) loader(ctx context.Context, s vault.SegmentID) (*loader, error) {
	source, err := x.segments.Of(ctx, s)
	if err != nil {
		return nil, err
	}
	l := &loader{importing: x, source: source, segment: s, parts: source.Parts()}
	for _, slot := range l.parts {
		l.total += slot.Part.Rows
	}
	l.gate = gate{look: l.look, now: x.run.Now}
	l.ended = len(l.parts) == 0
	return l, nil
}

// loader loads one segment.
type loader struct {
	*importing
	source  *sealed.Segment
	segment vault.SegmentID
	parts   []vault.Slot // of the backup, those that hold rows
	total   int64        // rows in all of them
	gate    gate

	// What the log says: how many slots it has, where to go on, and what was
	// accepted and refused.
	slots                 int
	part                  int // index in parts
	block                 int64
	accepted, quarantined int64
	ended                 bool
}

func (x *importing) makeWriters() {
	x.memory = cmp.Or(x.Memory, fanout.DefaultMemory)
	n := int(min(max(x.memory/(blockCopies*shard.BlockBytes), 1), writersInFlight))
	x.free = make(chan *shard.Rows, n+1)
	for range n {
		x.writers = append(x.writers, &blockWriter{batch: x.Tables.NewBatch()})
	}
}

// release takes back the memory of a block.
func (x *importing) release(rows *shard.Rows) {
	if cap(rows.Buf) > 2*shard.BlockBytes {
		rows = new(shard.Rows) // it held an uncommonly wide row
	}
	x.free <- rows
}

// catchUp takes the entries that others have added to the log.
func (l *loader) catchUp(ctx context.Context) error {
	for entry, err := range l.Repo.Loading(ctx, l.restore, l.segment, l.slots) {
		if err != nil {
			return err
		}
		if err := l.add(&entry); err != nil || l.ended {
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
	if at == len(l.parts) && !e.Last || at < l.part || at == l.part && e.Block <= l.block {
		return fmt.Errorf("%w: slot %d of segment %s: an entry up to block %d of part %d, the log stands at block %d of part %d",
			vault.ErrCorrupt, l.slots, l.segment, e.Block, e.Part, l.block, l.part)
	}
	l.slots++
	l.part, l.block, l.ended = at, e.Block, e.Last
	l.accepted += e.Rows
	l.quarantined += e.Quarantined
	return nil
}

// How long writers go by what was seen last.
const (
	// lookAgain is for how long a restore that was seen to be open, and a slot that was
	// seen to be free, are taken to be so.
	lookAgain = time.Second
	// ownAgain is the same of the table.
	ownAgain = 10 * time.Second
)

// look says whether rows may be written, for the slot that is being worked for, until
// lookAgain has passed since it began.
//
// It asks for the closing record: whoever gives a restore up writes nothing else that
// this worker could see. No list answers for it, since lists may be late. That it is
// seen a little late hurts nobody: the table, or its name, goes to somebody else only
// when each start that was noted before the record has come to its end, or its time
// has passed (see closing.go), and one that is noted later looks when it begins.
//
// The slot has to be asked for before the first batch for it, so that a start which was
// noted after the log's end writes nothing; then now and then, since what is written
// for a slot that another has won is the same rows once more, in vain. The table is
// asked for less often.
func (l *loader) look(ctx context.Context) error {
	for _, of := range []struct {
		name  string
		taken error
	}{
		{l.restore.Closed(), errClosed},
		{l.restore.Log().Slot(l.segment, l.slots), errObey},
	} {
		if there, err := l.Repo.Exists(ctx, of.name); err != nil || there {
			return cmp.Or(err, of.taken)
		}
	}
	if l.owned.within(l.run.Now(), ownAgain) {
		return nil
	}
	return l.own(ctx)
}

// again says whether a batch that has failed may be sent again: not before another look,
// since it may be long ago that it could be sent, nor if another table may have come in
// the place of the restore's, of which such an answer could be the first sign.
func (l *loader) again(ctx context.Context) error {
	l.gate.turn.Lock()
	if !l.owned.within(l.run.Now(), lookAgain) {
		l.owned = instant{}
		l.gate.shut()
	}
	l.gate.turn.Unlock()
	return l.gate.pass(ctx)
}

// entry loads one part of the backup, or what of it can be loaded before run
// says stop or too many rows were refused to keep them, and returns what to
// write into the log: nil and an error if nothing can be kept, an entry and an
// error if writing broke off after some blocks.
func (l *loader) entry(ctx context.Context) (*vault.Loaded, error) {
	part := l.parts[l.part]
	l.gate.shut() // it is another slot than before
	var w *partLoad
	var whole bool
	// What was written before damage was met is written again from the replica, to the
	// same effect.
	broken := l.Repo.FailOver(ctx, func() (err error) {
		w = &partLoad{
			loader: l, next: l.block, written: map[int64]*blockLoad{}, keys: map[string]bool{}, codes: map[string]int{},
		}
		whole, err = w.load(ctx, part.Part)
		return err
	})
	if broken != nil {
		broken = fmt.Errorf("part %d, %s: %w", part.Slot, part.Part.Shard.Name, broken)
		if w.next == l.block || ctx.Err() != nil || fanout.Permanent(broken) || errors.Is(broken, errClosed) || errors.Is(broken, errObey) {
			return nil, broken
		}
	}
	refused := map[string]bool{}
	for _, r := range w.sum.refused {
		refused[r.Key.String()] = true
	}
	e := &vault.Loaded{
		Segment: l.segment, Slot: l.slots, Start: l.reply.Start, Part: part.Slot, Block: w.next,
		Rows: w.sum.rows - int64(len(refused)), Bytes: w.sum.bytes, Digest: w.sum.digest,
		Quarantined: int64(len(refused)), WriteUnits: w.sum.units, Pace: l.throttle.Take(),
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
	name := l.restore.Quarantine(l.segment, repository.RandomName())
	return l.Repo.Create(ctx, name, &vault.Quarantine{Segment: l.segment, Rows: rows})
}

// indexes finds out, before a row of the segment is written, that its indexes are as
// they were written. Nothing is loaded by them, but without them nothing is compared.
func (l *loader) indexes(ctx context.Context) error {
	if l.ended {
		return nil
	}
	var parts []*vault.Part
	for k := range l.parts[l.part:] {
		parts = append(parts, l.parts[l.part+k].Part)
	}
	return sealed.HoldIndexes(ctx, l.Repo, parts)
}
