package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/throttle"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vault/shard"
)

// partLoad is the making of one entry of a segment's log: some blocks of one
// part, read in their order and written side by side.
type partLoad struct {
	*loader
	mu sync.Mutex // guards what follows
	// next is the first block that is not written, sum is about those before it
	// that this entry wrote. Blocks after it wait in written: only what has no
	// gap can stand in the log.
	next    int64
	sum     blockLoad
	written map[int64]*blockLoad
	// What the service took and refused so far, in whatever block.
	took  int64           // rows and pieces of rows
	size  int             // of the refused, in bytes
	keys  map[string]bool // of the refused
	codes map[string]int  // how often each was given
}

// blockLoad is what became of a block.
type blockLoad struct {
	rows    int64 // that end in it, refused ones among them
	bytes   int64
	units   int64
	digest  table.Digest
	refused []vault.Refused
}

// numbered is a block on its way to a writer.
type numbered struct {
	n    int64
	rows *shard.Rows
}

// load writes the blocks of a part from where the log stands, and leaves in
// next how far it came. whole says that nothing is left, and that the stored
// bytes were the recorded ones.
func (w *partLoad) load(ctx context.Context, part *vault.Part) (whole bool, err error) {
	// A batch that does not get through must not take the time that is needed
	// to save what did.
	writing, cancel := w.run.InTime(ctx)
	defer cancel()
	writing = table.BeforeRetry(writing, w.again)
	err = w.blocks(writing, part, &whole)
	if err != nil && w.next > w.block && writing.Err() != nil && ctx.Err() == nil {
		return false, nil // time ran out, and there is something to save
	}
	return whole && err == nil, err
}

// blocks reads and decodes the blocks here, in their order; they are written on
// the side. What is being written is bounded in bytes, whatever the size of a
// block; one more block is being read.
func (w *partLoad) blocks(ctx context.Context, part *vault.Part, whole *bool) error {
	stream, err := w.source.Open(ctx, part)
	if err != nil {
		return err
	}
	defer stream.Close()
	for len(w.free) < cap(w.free) {
		w.free <- new(shard.Rows) // none so far, or the part before broke off
	}
	budget := semaphore.NewWeighted(w.memory)
	cost := func(rows *shard.Rows) int64 { return min(blockCopies*int64(len(rows.Buf)), w.memory) }
	blocks := make(chan numbered)
	group, ctx := guard.WithContext(ctx)
	for _, writer := range w.writers {
		group.Go(func() error {
			for b := range blocks {
				held := cost(b.rows)
				if err := writer.block(ctx, w, b); err != nil {
					return err
				}
				w.release(b.rows)
				budget.Release(held)
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(blocks)
		for n := int64(0); ; n++ {
			if n > w.block && (w.run.Stopping() || w.full()) {
				return nil
			}
			b := numbered{n: n}
			select {
			case b.rows = <-w.free:
			case <-ctx.Done():
				return ctx.Err()
			}
			err := stream.Next(b.rows)
			if err == io.EOF {
				w.release(b.rows)
				*whole = true
				return nil
			}
			if err != nil {
				return err
			}
			if n < w.block {
				w.release(b.rows) // loaded before; read again for the hash
				continue
			}
			if err := budget.Acquire(ctx, cost(b.rows)); err != nil {
				return err
			}
			select {
			case blocks <- b:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	return group.Wait()
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
	n       int64      // of the block at hand
	done    *blockLoad // of it
	batch   table.Batch
	pending []pendingRow // what is in batch
	units   int          // that it will cost
	aim     int          // that it should cost at most, 0 for any number
	row     plainbuffer.Row
	builder plainbuffer.Builder
}

type pendingRow struct {
	raw []byte
	op  table.WriteOp
}

// block writes the rows of a block of p.
func (w *blockWriter) block(ctx context.Context, p *partLoad, b numbered) error {
	rows := b.rows
	w.partLoad, w.n, w.done = p, b.n, &blockLoad{bytes: int64(len(rows.Buf)), digest: rows.Digest}
	if !rows.Unfinished {
		w.done.rows = int64(rows.Len())
	}
	// A row in pieces, and one that no request can hold, is written by updates
	// alone: they add up to the same row in whatever order they arrive, and
	// however often. All other rows are put, each in one request.
	op := table.Put
	if rows.Continues || rows.Unfinished {
		op = table.Update
	}
	for k := range rows.Len() {
		raw, op := rows.Row(k), op
		if rows.Continues {
			// The last piece of a row may hold its key alone, and an update needs
			// something to update.
			if _, err := plainbuffer.Scan(raw, &w.row); err != nil {
				return err
			}
			if len(w.row.Cells) == 0 {
				continue
			}
		}
		if op == table.Put && w.updates.Load() {
			repeats, err := w.repeats(raw)
			if err != nil {
				return err
			}
			if repeats {
				op = table.Update
			}
		}
		if err := w.add(ctx, raw, op); err != nil {
			return err
		}
	}
	if err := w.flush(ctx); err != nil {
		return err
	}
	p.finish(b.n, w.done)
	fanout.Come(ctx, w.done.rows, w.done.bytes)
	return nil
}

// finish takes account of a block that is written.
func (w *partLoad) finish(n int64, b *blockLoad) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.written[n] = b
	for b := w.written[w.next]; b != nil; b = w.written[w.next] {
		delete(w.written, w.next)
		w.next++
		w.sum.rows += b.rows
		w.sum.bytes += b.bytes
		w.sum.units += b.units
		w.sum.digest.Add(b.digest)
		w.sum.refused = append(w.sum.refused, b.refused...)
	}
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
	if len(w.pending) == 0 {
		w.units, w.aim = 0, w.throttle.Aim()
	}
	units := writeUnits(raw)
	if len(w.pending) > 0 && w.aim > 0 && w.units+units > w.aim || !w.batch.Add(raw, op) {
		return false
	}
	w.pending = append(w.pending, pendingRow{raw, op})
	w.units += units
	return true
}

// writeUnits is what the service counts for writing a row, give or take a unit.
func writeUnits(raw []byte) int { return max(1, (len(raw)+table.UnitBytes-1)/table.UnitBytes) }

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

// write writes a batch that holds rows. Rows that are refused as puts of several
// versions of a column are updated. Where the service refuses a request whole,
// halves of it find the rows that it is about.
func (w *blockWriter) write(ctx context.Context, batch table.Batch, rows []pendingRow) error {
	cost := 0
	for i := range rows {
		cost += writeUnits(rows[i].raw)
	}
	result, answer, err := w.send(ctx, batch, cost)
	switch {
	case err != nil:
		return err
	case answer == nil:
		updates, err := w.updateRefused(&result, rows)
		if err != nil {
			return err
		}
		if err := w.wrote(&result, rows, len(rows)-len(updates)); err != nil {
			return err
		}
		return w.rewrite(ctx, updates)
	case !errors.Is(answer, table.ErrInvalid):
		return fmt.Errorf("write to %s: %w", w.plan.Target, answer)
	}
	any := false
	for i := range rows {
		changed, err := w.update(&rows[i])
		if err != nil {
			return err
		}
		any = any || changed
	}
	switch {
	case any:
		return w.rewrite(ctx, rows)
	case len(rows) == 1:
		result.Refused = []table.Refusal{{Code: "OTSParameterInvalid", Message: answer.Error()}}
		return w.wrote(&result, rows, 1)
	}
	if err := w.rewrite(ctx, rows[:len(rows)/2]); err != nil {
		return err
	}
	return w.rewrite(ctx, rows[len(rows)/2:])
}

// send sends a batch when its turn comes, and returns what the service answers, as a
// result or an error. err says why it was not sent.
func (w *blockWriter) send(ctx context.Context, batch table.Batch, cost int) (result table.WriteResult, answer, err error) {
	// What comes first goes first: only blocks without a gap can stand in the log.
	q := throttle.Request{What: "write to " + w.plan.Target.String(), Turn: w.n, Cost: cost, Ready: w.ready}
	err = w.throttle.Do(ctx, q, func(ctx context.Context, _ int) (int64, error) {
		result, answer = w.Tables.Write(ctx, w.plan.Target.Table, batch)
		if result.InDoubt || answer != nil && !decided(answer) {
			w.doubt.Store(true)
		}
		return result.WriteUnits, answer
	})
	if answer != nil {
		err = nil
	}
	return result, answer, err
}

// ready says whether rows may still be written.
func (w *partLoad) ready(ctx context.Context) error {
	if err := w.gate.pass(ctx); err != nil {
		return err
	}
	if !w.run.Until.IsZero() && w.run.Now().After(w.run.Until) {
		// Whoever closes the restore does not wait any more.
		return fmt.Errorf("write to %s: the invocation's time was over at %s", w.plan.Target, w.run.Until.UTC().Format(time.RFC3339))
	}
	return nil
}

// decided says whether a batch that failed is known to come to nothing more: the
// service refuses it, or wants fewer requests. What a result says beside that holds
// nevertheless.
func decided(err error) bool {
	for _, condition := range []error{table.ErrInvalid, table.ErrNotExist, table.ErrPermission, table.ErrAuth, table.ErrThrottled} {
		if errors.Is(err, condition) {
			return true
		}
	}
	return false
}

// rewrite writes rows of a batch in one of their own.
func (w *blockWriter) rewrite(ctx context.Context, rows []pendingRow) error {
	if len(rows) == 0 {
		return nil
	}
	batch := w.Tables.NewBatch()
	for _, r := range rows {
		if !batch.Add(r.raw, r.op) {
			return fmt.Errorf("row %.100x of %d bytes fits into a batch, and not into another one", r.raw, len(r.raw))
		}
	}
	return w.write(ctx, batch, rows)
}

// update makes the put of several versions of a column an update, which is the
// same in a table that nobody else writes. The service documents only the
// latter. It says whether it did.
func (w *blockWriter) update(r *pendingRow) (bool, error) {
	if r.op != table.Put {
		return false, nil
	}
	repeats, err := w.repeats(r.raw)
	if repeats {
		r.op = table.Update
		w.updates.Store(true)
	}
	return repeats, err
}

// updateRefused takes the rows that can be updated from those that were refused.
func (w *blockWriter) updateRefused(result *table.WriteResult, rows []pendingRow) (updates []pendingRow, err error) {
	kept := result.Refused[:0]
	for _, f := range result.Refused {
		if f.Index >= 0 && f.Index < len(rows) {
			r := rows[f.Index]
			changed, err := w.update(&r)
			if err != nil {
				return nil, err
			}
			if changed {
				updates = append(updates, r)
				continue
			}
		}
		kept = append(kept, f)
	}
	result.Refused = kept
	return updates, nil
}

// repeats says whether a row has several versions of a column.
func (w *blockWriter) repeats(raw []byte) (bool, error) {
	if _, err := plainbuffer.Scan(raw, &w.row); err != nil {
		return false, err
	}
	cells := w.row.Cells
	for i := 1; i < len(cells); i++ {
		if bytes.Equal(cells[i].Name, cells[i-1].Name) {
			return true, nil
		}
	}
	return false, nil
}

// wrote takes account of a batch, of which so many rows were taken or refused,
// and stops the restore if too much was refused.
func (w *blockWriter) wrote(result *table.WriteResult, rows []pendingRow, decided int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done.units += result.WriteUnits
	w.took += int64(decided - len(result.Refused))
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
		w.done.refused = append(w.done.refused, vault.Refused{Key: key, Row: raw, Code: f.Code, Reason: f.Message})
		w.size += len(raw) + len(f.Message)
		w.keys[key.String()] = true
		w.codes[f.Code]++
	}
	if len(result.Refused) == 0 {
		return nil
	}
	last := w.done.refused[len(w.done.refused)-1]
	count := w.quarantined + int64(len(w.keys))
	if w.accepted+w.took == 0 && len(w.codes) == 1 && count >= firstRefusals {
		return table.Invalidf("the service refused the first %d rows and took none, for one reason: %s: %s (row %v)",
			count, last.Code, last.Reason, last.Key)
	}
	if most := max(maxQuarantined, w.total/maxQuarantinedShare); count > most {
		return table.Invalidf("the service refused %d rows of this segment, more than %d; the last one %v for %s: %s",
			count, most, last.Key, last.Code, last.Reason)
	}
	return nil
}

// gate lets writers pass while the rows that they hold may be written. They go by a
// look that began not longer ago than lookAgain, and all that come when that is over
// wait for one.
type gate struct {
	look func(ctx context.Context) error
	now  func() time.Time
	turn sync.Mutex // held while looking

	mu   sync.Mutex
	open instant // when the last look began that found nothing in the way
}

func (g *gate) pass(ctx context.Context) error {
	if g.isOpen() {
		return nil
	}
	g.turn.Lock()
	defer g.turn.Unlock()
	if g.isOpen() {
		return nil // somebody else has looked meanwhile
	}
	began := at(g.now())
	if err := g.look(ctx); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = began
	return nil
}

func (g *gate) isOpen() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open.within(g.now(), lookAgain)
}

// shut has the next writer look.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = instant{}
}

// instant is when something was seen. Time passes by the clock that people read as well
// as by the one that never goes back, which may stand still while a machine does.
type instant struct{ seen time.Time }

func at(t time.Time) instant { return instant{t} }

// within says whether less than d has passed since the instant, by both clocks.
func (i instant) within(now time.Time, d time.Duration) bool {
	if i.seen.IsZero() {
		return false
	}
	passed, read := now.Sub(i.seen), now.Round(0).Sub(i.seen.Round(0))
	return passed >= 0 && read >= 0 && passed < d && read < d
}
