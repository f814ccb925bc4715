package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
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
	if reply.Start, err = i.Repo.begin(ctx, r.Log(), w.Segment, w.Start, run); err != nil {
		return reply, fmt.Errorf("%s: %w", what, err)
	}
	err = i.segment(ctx, run, plan, &reply)
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
			if reply.Start+1 >= maxStarts {
				return fmt.Errorf("%w: %d, and the segment is not loaded; give the function more time", errHops, maxStarts)
			}
			reply.Continued = !reply.Superseded
			return nil
		}
		entry, err := l.entry(ctx)
		if errors.Is(err, errObey) {
			reply.Superseded = true
			if err := l.readLog(ctx, reply.Segment); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		mine, err := i.Repo.decide(ctx, l.restore.Log().Slot(reply.Segment, entry.Slot), entry)
		if err != nil {
			return err
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
// write into the log.
func (l *loader) entry(ctx context.Context) (*vault.Loaded, error) {
	part := l.parts[l.part]
	w := &partLoad{loader: l, keys: map[string]bool{}, codes: map[string]int{}}
	next, whole, err := w.load(ctx, part.Part)
	if err != nil {
		return nil, fmt.Errorf("part %d, %s: %w", part.Slot, part.Part.Shard.Name, err)
	}
	refused := int64(len(w.keys))
	e := &vault.Loaded{
		Segment: l.segment, Slot: l.slots, Start: l.start, Part: part.Slot, Block: next,
		Rows: w.rows - refused, Bytes: w.bytes, Digest: w.digest, Quarantined: refused, WriteUnits: w.units,
	}
	if whole {
		e.Block = 0
		if l.part+1 < len(l.parts) {
			e.Part = l.parts[l.part+1].Slot
		} else {
			e.Last = true
		}
	}
	if len(w.refused) > 0 {
		o, err := l.quarantine(ctx, w.refused)
		if err != nil {
			return nil, err
		}
		e.Quarantine = &o
	}
	return e, nil
}

func (l *loader) quarantine(ctx context.Context, rows []vault.Refused) (vault.Object, error) {
	data, err := vault.Encode(&vault.Quarantine{Segment: l.segment, Rows: rows})
	if err != nil {
		return vault.Object{}, fmt.Errorf("quarantine: %w", err)
	}
	return l.importer.Repo.createData(ctx, l.restore.Quarantine(l.segment, randomName()), data)
}

// partLoad is what one entry of the log will say.
type partLoad struct {
	*loader
	mu      sync.Mutex // guards what follows
	rows    int64      // in the blocks that were gone through, refused ones among them
	bytes   int64
	units   int64
	took    int64 // rows and pieces of rows that the service accepted
	digest  table.Digest
	refused []vault.Refused
	size    int             // of refused, in bytes
	keys    map[string]bool // of the refused rows
	codes   map[string]int  // how often each was given
}

// load writes the blocks of a part from where the log stands. next is the
// number of the first block that is not written; whole says that there is none,
// and that the stored bytes were the recorded ones.
func (w *partLoad) load(ctx context.Context, part *vault.Part) (next int64, whole bool, err error) {
	stream, err := w.importer.Repo.openShard(ctx, w.source, w.segment, part)
	if err != nil {
		return 0, false, err
	}
	defer stream.close()
	// Blocks are read and decoded here, in their order, and written on the side.
	// What is being written is bounded in bytes, whatever the size of a block;
	// one more block is being read.
	for len(w.free) < cap(w.free) {
		w.free <- new(shard.Rows) // none so far, or the part before broke off
	}
	budget := semaphore.NewWeighted(w.memory)
	cost := func(rows *shard.Rows) int64 { return min(blockCopies*int64(len(rows.Buf)), w.memory) }
	blocks := make(chan *shard.Rows)
	group, ctx := errgroup.WithContext(ctx)
	for _, writer := range w.writers {
		group.Go(func() error {
			writer.begin(w)
			for rows := range blocks {
				held := cost(rows)
				if err := writer.block(ctx, rows); err != nil {
					return err
				}
				w.release(rows)
				budget.Release(held)
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(blocks)
		for next = 0; ; next++ {
			if next > w.block && (w.run.stopping() || w.full()) {
				return nil
			}
			var rows *shard.Rows
			select {
			case rows = <-w.free:
			case <-ctx.Done():
				return ctx.Err()
			}
			err := stream.next(rows)
			if err == io.EOF {
				w.release(rows)
				whole = true
				return nil
			}
			if err != nil {
				return err
			}
			if next < w.block {
				w.release(rows) // loaded before; read again for the hash
				continue
			}
			if err := budget.Acquire(ctx, cost(rows)); err != nil {
				return err
			}
			select {
			case blocks <- rows:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	err = group.Wait()
	return next, whole, err
}

// full says that the refused rows should be written down before more come.
func (w *partLoad) full() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.size >= quarantineBytes
}

// blockWriter writes blocks, one batch after the other. It keeps its memory
// from part to part.
type blockWriter struct {
	*partLoad
	batch   table.Batch
	pending []pendingRow // what is in batch
	row     plainbuffer.Row
	builder plainbuffer.Builder
}

func (w *blockWriter) begin(p *partLoad) { w.partLoad = p }

type pendingRow struct {
	raw []byte
	op  table.WriteOp
}

// block writes the rows of a block.
func (w *blockWriter) block(ctx context.Context, rows *shard.Rows) error {
	// A row in pieces, and one that no request can hold, is written by updates
	// alone: they add up to the same row in whatever order they arrive, and
	// however often. All other rows are put, each in one request.
	op := table.Put
	if rows.Continues || rows.Unfinished {
		op = table.Update
	}
	for k := range rows.Len() {
		if err := w.add(ctx, rows.Row(k), op); err != nil {
			return err
		}
	}
	if err := w.flush(ctx); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !rows.Unfinished {
		w.rows += int64(rows.Len())
	}
	w.bytes += int64(len(rows.Buf))
	w.digest.Add(rows.Digest)
	return nil
}

// add puts a row into the batch, writing what is in it if need be.
func (w *blockWriter) add(ctx context.Context, raw []byte, op table.WriteOp) error {
	if w.take(raw, op) {
		return nil
	}
	if err := w.flush(ctx); err != nil {
		return err
	}
	if w.take(raw, op) {
		return nil
	}
	return w.pieces(ctx, raw)
}

func (w *blockWriter) take(raw []byte, op table.WriteOp) bool {
	if !w.batch.Add(raw, op) {
		return false
	}
	w.pending = append(w.pending, pendingRow{raw, op})
	return true
}

// pieces writes a row that no request can hold, in as many as it takes. The
// batch is empty.
func (w *blockWriter) pieces(ctx context.Context, raw []byte) error {
	if _, err := plainbuffer.Scan(raw, &w.row); err != nil {
		return err
	}
	for cells := w.row.Cells; len(cells) > 0; {
		n := min(len(cells), pieceCells)
		size := 0
		for k := range n {
			size += len(cells[k].Name) + len(cells[k].Data) + 8
			if size > pieceBytes && k > 0 {
				n = k
				break
			}
		}
		w.builder.Buf = w.builder.Buf[:0]
		w.builder.Begin()
		for k := range w.row.Key {
			w.builder.Cell(&w.row.Key[k])
		}
		w.builder.Attributes()
		for k := range cells[:n] {
			w.builder.Cell(&cells[k])
		}
		w.builder.End(false)
		if !w.take(w.builder.Buf, table.Update) {
			return fmt.Errorf("row %v: a request can't hold %d of its cells, %d bytes", table.KeyOf(w.row.Key), n, size)
		}
		if err := w.flush(ctx); err != nil {
			return err
		}
		cells = cells[n:]
	}
	return nil
}

// What goes into one request of a row that needs several: well below the
// service's 1,024 cells and 4 MiB, since a cell has up to 2 MiB.
const (
	pieceCells = 1000
	pieceBytes = 1 << 20
)

// flush writes the batch and empties it.
func (w *blockWriter) flush(ctx context.Context) error {
	if len(w.pending) == 0 {
		return nil
	}
	err := w.write(ctx, w.batch, w.pending)
	w.batch.Reset()
	w.pending = w.pending[:0]
	return err
}

// write writes a batch that holds rows. Where the service refuses a request
// whole, halves of it find the rows that it is about.
func (w *blockWriter) write(ctx context.Context, batch table.Batch, rows []pendingRow) error {
	if err := w.gate.pass(ctx); err != nil {
		return err
	}
	result, err := w.importer.Tables.Write(ctx, w.plan.Target.Table, batch)
	switch {
	case err == nil:
	case !errors.Is(err, table.ErrInvalid):
		return fmt.Errorf("write to %s: %w", w.plan.Target, err)
	case len(rows) == 1:
		result.Refused = []table.Refusal{{Code: "OTSParameterInvalid", Message: err.Error()}}
	default:
		for _, half := range [][]pendingRow{rows[:len(rows)/2], rows[len(rows)/2:]} {
			batch := w.importer.Tables.NewBatch()
			for _, r := range half {
				if !batch.Add(r.raw, r.op) {
					return fmt.Errorf("half of a batch does not fit into a batch: %w", err)
				}
			}
			if err := w.write(ctx, batch, half); err != nil {
				return err
			}
		}
		return nil
	}
	return w.wrote(&result, rows)
}

// wrote takes account of a batch, and stops the restore if too much was
// refused.
func (w *partLoad) wrote(result *table.WriteResult, rows []pendingRow) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.units += result.WriteUnits
	w.took += int64(len(rows) - len(result.Refused))
	for _, f := range result.Refused {
		if f.Index < 0 || f.Index >= len(rows) {
			return fmt.Errorf("the service refused row %d of a batch of %d", f.Index, len(rows))
		}
		var row plainbuffer.Row
		raw := bytes.Clone(rows[f.Index].raw)
		if _, err := plainbuffer.Scan(raw, &row); err != nil {
			return err
		}
		key := table.KeyOf(row.Key)
		w.refused = append(w.refused, vault.Refused{Key: key, Row: raw, Code: f.Code, Reason: f.Message})
		w.size += len(raw) + len(f.Message)
		w.keys[key.String()] = true
		w.codes[f.Code]++
	}
	if len(result.Refused) == 0 {
		return nil
	}
	last := w.refused[len(w.refused)-1]
	count := w.quarantined + int64(len(w.keys))
	if w.accepted+w.took == 0 && len(w.codes) == 1 && count >= firstRefusals {
		return fmt.Errorf("the service refused the first %d rows and took none, for one reason: %s: %s (row %v): %w",
			count, last.Code, last.Reason, last.Key, table.ErrInvalid)
	}
	if most := max(maxQuarantined, w.total/maxQuarantinedShare); count > most {
		return fmt.Errorf("the service refused %d rows of this segment, more than %d; the last one %v for %s: %s: %w",
			count, most, last.Key, last.Code, last.Reason, table.ErrInvalid)
	}
	return nil
}

// gate lets writers pass while the rows that they hold may be written. Each
// passes on a look that began after it came: one look serves all that wait for
// it, so that looking costs one answer's time per batch and, with many writers,
// a fraction of a request.
type gate struct {
	look func(ctx context.Context) error
	turn sync.Mutex // held while looking

	mu   sync.Mutex
	next *looking
}

type looking struct {
	done chan struct{}
	err  error
}

func (g *gate) pass(ctx context.Context) error {
	g.mu.Lock()
	l := g.next
	if l != nil {
		g.mu.Unlock()
		select {
		case <-l.done:
			return l.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	l = &looking{done: make(chan struct{})}
	g.next = l
	g.mu.Unlock()

	g.turn.Lock()
	defer g.turn.Unlock()
	g.mu.Lock()
	g.next = nil // whoever comes from here on waits for the next look
	g.mu.Unlock()
	l.err = g.look(ctx)
	close(l.done)
	return l.err
}
