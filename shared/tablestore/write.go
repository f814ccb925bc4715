package tablestore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/retry"
	"github.com/tablevault/tablevault/shared/table"
)

// Write writes a batch that [Client.NewBatch] made. Rows that the service could not write
// at the time are sent again, alone. It returns an error if the service refuses the
// request as a whole, or does not get through with it; then any of the rows may be
// written.
func (c *Client) Write(ctx context.Context, name string, rows table.Batch) (table.WriteResult, error) {
	b, ok := rows.(*batch)
	if !ok {
		return table.WriteResult{}, fmt.Errorf("write to table %q: a batch of type %T, want one of the client's own", name, rows)
	}
	w := writing{client: c, table: name, batch: b}
	b.pending = b.pending[:0]
	for i := range b.rows {
		b.rows[i].step = asItIs
		b.pending = append(b.pending, i)
	}
	_, err := c.do(ctx, func(call *retry.Call) error {
		for len(b.pending) > 0 {
			err := w.attempt(ctx)
			w.result.InDoubt = w.result.InDoubt || inDoubt(err)
			if err == nil || w.detours(err) {
				continue
			}
			if w.progress {
				call.Progress()
			}
			return err
		}
		return nil
	})
	if err != nil {
		return w.result, err
	}
	slices.SortFunc(w.result.Refused, func(a, b table.Refusal) int { return a.Index - b.Index })
	return w.result, nil
}

// writing is a batch on its way.
type writing struct {
	client   *Client
	table    string
	batch    *batch
	result   table.WriteResult
	window   time.Time // until when timestamps may still be refused for a while
	progress bool      // the last attempt decided rows
}

// attempt sends the pending rows once and leaves those that are to be sent again. It
// returns nil if they can be sent at once.
func (w *writing) attempt(ctx context.Context) error {
	b, c := w.batch, w.client
	b.encode(w.table)
	w.progress = false
	a, err := c.attempt(ctx, "BatchWriteRow", w.table, b.body, b.answer[:0], maxAnswer)
	if err != nil {
		return err
	}
	b.answer, w.result.ServerTime = a.body, a.time
	b.undecided = b.undecided[:0]
	// What is to be waited for, and what ends the call.
	var later, fatal error
	rows, units, refused := 0, int64(0), w.result.Refused
	said := batchAnswer{tables: fields{rest: a.body}}
	for r := (rowAnswer{}); said.next(&r); rows++ {
		if rows == len(b.pending) {
			return c.broken("BatchWriteRow", w.table, fmt.Errorf("it is about more rows than the %d of the request", rows))
		}
		at := b.pending[rows]
		units += r.units
		if r.ok {
			if b.rows[at].advance() {
				b.undecided = append(b.undecided, at)
			}
			continue
		}
		e := &Error{Op: "BatchWriteRow", Table: w.table, Status: 200, Code: string(r.code), Message: string(r.message), endpoint: c.endpoint.String()}
		e.judgeRow()
		w.result.InDoubt = w.result.InDoubt || inDoubt(e)
		switch {
		case e.verdict != final:
			later = e
		case w.waits(e):
			e.verdict, later = unavailable, e
		case lacksAttributes(e) && b.rows[at].detour():
		case errors.Is(e, table.ErrInvalid):
			refused = append(refused, table.Refusal{Index: at, Code: e.Code, Message: e.Message})
			continue
		default:
			fatal = e
		}
		b.undecided = append(b.undecided, at)
	}
	if err := said.err(); err != nil {
		return c.broken("BatchWriteRow", w.table, err)
	}
	if rows != len(b.pending) {
		return c.broken("BatchWriteRow", w.table, fmt.Errorf("it is about %d rows, the request has %d", rows, len(b.pending)))
	}
	w.result.WriteUnits, w.result.Refused = w.result.WriteUnits+units, refused
	w.progress = len(b.undecided) < len(b.pending)
	b.pending, b.undecided = b.undecided, b.pending
	if fatal != nil {
		return fatal
	}
	return later
}

// judgeRow judges the error of a single row. A code that is not known means that the row
// is refused.
func (e *Error) judgeRow() {
	e.Status = 400
	e.judge()
	e.Status = 200
}

// waits says whether a refused timestamp may be taken a little later.
func (w *writing) waits(e *Error) bool {
	if e.Code != "OTSParameterInvalid" || !strings.HasPrefix(e.Message, textBadTimestamp) {
		return false
	}
	now := time.Now()
	if w.window.IsZero() {
		w.window = now.Add(w.client.config.Retry.Window)
	}
	return now.Before(w.window)
}

// step is where a row without attributes stands that the service does not take by itself:
// it is deleted, given a column, and the column is taken away again. What is left is a
// row that has its key alone.
type step int

const (
	asItIs step = iota
	deleteRow
	putScratch
	deleteScratch
)

// scratch is the name of the column that such a row has for a moment.
const scratch = "tablevault_scratch"

// lacksAttributes says whether a row was refused for having none. It is not documented
// whether that is a row's error or its request's, or happens at all.
func lacksAttributes(e *Error) bool {
	return e.Code == "OTSParameterInvalid" && (strings.Contains(e.Message, textNoAttributes) || strings.Contains(e.Message, textNoCells))
}

// detours sends the rows without attributes of a refused request on their detour, if they
// are what it was refused for.
func (w *writing) detours(err error) bool {
	var e *Error
	if !errors.As(err, &e) || !lacksAttributes(e) {
		return false
	}
	any := false
	for _, i := range w.batch.pending {
		any = w.batch.rows[i].detour() || any
	}
	return any
}

// detour starts the way around a refusal, if the row can take it.
func (r *batchRow) detour() bool {
	if r.step != asItIs || !r.bare || r.op != table.Put {
		return false
	}
	r.step = deleteRow
	return true
}

// advance takes the next step after one that was done, and says whether there is one.
func (r *batchRow) advance() bool {
	switch r.step {
	case deleteRow, putScratch:
		r.step++
		return true
	}
	return false
}

// change is the step's operation on the row.
func (s step) change(raw []byte) (kind uint64, row []byte) {
	var scanned plainbuffer.Row
	if _, err := plainbuffer.Scan(raw, &scanned); err != nil {
		return typePut, raw // Add took it, so it is a row
	}
	var w plainbuffer.Builder
	w.Begin()
	for i := range scanned.Key {
		w.Cell(&scanned.Key[i])
	}
	column := plainbuffer.Cell{Name: []byte(scratch)}
	switch s {
	case deleteRow:
		w.End(true)
		return typeDelete, w.Buf
	case putScratch:
		column.HasValue, column.Type, column.Data = true, plainbuffer.Boolean, []byte{0}
	default:
		column.Op = plainbuffer.DeleteAll
	}
	w.Attributes()
	w.Cell(&column)
	w.End(false)
	return typeUpdate, w.Buf
}
