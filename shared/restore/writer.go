package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
)

// writer writes blocks, one batch after the other. It keeps its memory from part to part.
type writer struct {
	target  *target
	account *account   // of the entry that the block at hand belongs to
	n       int64      // of that block
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

// block writes the rows of a block.
func (w *writer) block(ctx context.Context, a *account, b numbered) error {
	rows := b.rows
	w.account, w.n, w.done = a, b.n, &blockLoad{bytes: int64(len(rows.Buf)), digest: rows.Digest}
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
		if op == table.Put && w.target.updates.Load() {
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
	a.finish(b.n, w.done)
	fanout.Come(ctx, w.done.rows, w.done.bytes)
	return nil
}

// add puts a row into the batch, writing what is in it if need be.
func (w *writer) add(ctx context.Context, raw []byte, op table.WriteOp) error {
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

func (w *writer) take(raw []byte, op table.WriteOp) bool {
	if len(w.pending) == 0 {
		w.units, w.aim = 0, w.target.throttle.Aim()
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

// pieces writes a row that no request can hold, in as many as it takes. The batch is
// empty.
func (w *writer) pieces(ctx context.Context, raw []byte) error {
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

// What goes into one request of a row that needs several: well below the service's 1,024
// cells and 4 MiB, since a cell has up to 2 MiB.
const (
	pieceCells = 1000
	pieceBytes = 1 << 20
)

// flush writes the batch and empties it.
func (w *writer) flush(ctx context.Context) error {
	if len(w.pending) == 0 {
		return nil
	}
	err := w.write(ctx, w.batch, w.pending)
	w.batch.Reset()
	w.pending = w.pending[:0]
	return err
}

// write writes a batch that holds rows. Rows that are refused as puts of several versions
// of a column are updated. Where the service refuses a request whole, halves of it find
// the rows that it is about.
func (w *writer) write(ctx context.Context, batch table.Batch, rows []pendingRow) error {
	cost := 0
	for i := range rows {
		cost += writeUnits(rows[i].raw)
	}
	result, answer, err := w.target.send(ctx, batch, w.n, cost)
	switch {
	case err != nil:
		return err
	case answer == nil:
		updates, err := w.updateRefused(&result, rows)
		if err != nil {
			return err
		}
		if err := w.account.wrote(w.done, &result, rows, len(rows)-len(updates)); err != nil {
			return err
		}
		return w.rewrite(ctx, updates)
	case !errors.Is(answer, table.ErrInvalid):
		return fmt.Errorf("write to %s: %w", w.target.table, answer)
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
		return w.account.wrote(w.done, &result, rows, 1)
	}
	if err := w.rewrite(ctx, rows[:len(rows)/2]); err != nil {
		return err
	}
	return w.rewrite(ctx, rows[len(rows)/2:])
}

// rewrite writes rows of a batch in one of their own.
func (w *writer) rewrite(ctx context.Context, rows []pendingRow) error {
	if len(rows) == 0 {
		return nil
	}
	batch := w.target.tables.NewBatch()
	for _, r := range rows {
		if !batch.Add(r.raw, r.op) {
			return fmt.Errorf("row %.100x of %d bytes fits into a batch, and not into another one", r.raw, len(r.raw))
		}
	}
	return w.write(ctx, batch, rows)
}

// update makes the put of several versions of a column an update, which is the same in a
// table that nobody else writes. The service documents only the latter. It says whether
// it did.
func (w *writer) update(r *pendingRow) (bool, error) {
	if r.op != table.Put {
		return false, nil
	}
	repeats, err := w.repeats(r.raw)
	if repeats {
		r.op = table.Update
		w.target.updates.Store(true)
	}
	return repeats, err
}

// updateRefused takes the rows that can be updated from those that were refused.
func (w *writer) updateRefused(result *table.WriteResult, rows []pendingRow) (updates []pendingRow, err error) {
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
func (w *writer) repeats(raw []byte) (bool, error) {
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
