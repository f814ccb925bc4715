package ots

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// scanRow reads a block of exactly one row.
func (c *call) scanRow(block []byte, row *plainbuffer.Row) *engine.Error {
	s := &c.frame.scanner
	s.Continue(block)
	err := s.Next(row)
	if errors.Is(err, io.EOF) {
		return invalid("Cell data broken, the row is missing.")
	}
	if err != nil {
		return invalid("Cell data broken, %v.", err)
	}
	// The Node SDK leaves zeros after the row of an update.
	for _, b := range block[s.Offset():] {
		if b != 0 {
			return invalid("Cell data broken, there are bytes after the row.")
		}
	}
	if row.HasExtension {
		return invalid("Cell data broken, a row of a request has no extension.")
	}
	return nil
}

// scanKey reads a block of one row that is a key.
func (c *call) scanKey(block []byte, row *plainbuffer.Row) *engine.Error {
	if err := c.scanRow(block, row); err != nil {
		return err
	}
	if len(row.Cells) > 0 {
		return invalid("Attribute column cannot be given while reading data.")
	}
	if row.Delete {
		return invalid("Delete marker cannot be given.")
	}
	return nil
}

// fill makes the change that a row of a request asks for.
func (c *call) fill(change *engine.Change, r *batchRow) *engine.Error {
	change.Op, change.Existence = r.op, r.existence
	change.Return, change.ReturnColumns = r.returns, r.columns
	if !c.frame.survey.Read(change, r.block) {
		if err := c.scanRow(r.block, &change.Row); err != nil {
			return err
		}
	}
	if deletes := r.op == engine.Delete; deletes != change.Row.Delete {
		if deletes {
			return invalid("Invalid request of delete row: missing RowDeleteMarker in request.")
		}
		return invalid("Invalid request of put/update row: unexpected RowDeleteMarker in request.")
	}
	if r.op == engine.Delete && len(change.Row.Cells) > 0 {
		return invalid("Invalid delete row request: unexpected cells in request.")
	}
	var err *engine.Error
	if change.Filter, err = parseFilter(r.filter); err != nil {
		return err
	}
	if change.Filter.HasPage() {
		return invalid("ColumnPaginationFilter can't be a condition.")
	}
	return nil
}

func (c *call) putRow() *engine.Error {
	var req otsprotocol.PutRowRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	return c.write(req.GetTableName(), req.GetTransactionId(), engine.Put, req.Row, req.Condition, req.ReturnContent)
}

func (c *call) updateRow() *engine.Error {
	var req otsprotocol.UpdateRowRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	return c.write(req.GetTableName(), req.GetTransactionId(), engine.Update, req.RowChange, req.Condition, req.ReturnContent)
}

func (c *call) deleteRow() *engine.Error {
	var req otsprotocol.DeleteRowRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	return c.write(req.GetTableName(), req.GetTransactionId(), engine.Delete, req.PrimaryKey, req.Condition, req.ReturnContent)
}

func (c *call) write(table, transaction string, op engine.Op, block []byte, condition *otsprotocol.Condition, content *otsprotocol.ReturnContent) *engine.Error {
	if err := c.enter(table); err != nil {
		return err
	}
	change := &c.changes(1)[0]
	err := c.fill(change, &batchRow{
		op:        op,
		block:     block,
		existence: engine.Existence(condition.GetRowExistence()),
		filter:    condition.GetColumnCondition(),
		returns:   engine.Return(content.GetReturnType()),
		columns:   content.GetReturnColumnNames(),
	})
	if err != nil {
		return err
	}
	if err := c.server.engine.WriteIn(transaction, table, change); err != nil {
		return err
	}
	// PutRow, UpdateRow and DeleteRow have the same answer.
	c.answer = appendConsumed(c.answer, 1, change.Outcome.Read, change.Outcome.Write)
	if change.Outcome.Row != nil {
		c.answer = appendBytes(c.answer, 2, change.Outcome.Row)
	}
	return nil
}

// changes returns n changes to fill, whose memory is of earlier calls.
func (c *call) changes(n int) []engine.Change {
	f := c.frame
	f.survey.Reset()
	f.changes = slices.Grow(f.changes[:0], n)[:n]
	return f.changes
}

func (c *call) batchWriteRow() *engine.Error {
	req := &c.frame.batch
	if err := req.parse(c.body); err != nil {
		return invalid("Failed to parse the protobuf of the request: %v.", err)
	}
	names := make([]string, len(req.tables))
	for i := range req.tables {
		names[i] = req.tables[i].name
	}
	if err := c.enter(names...); err != nil {
		return err
	}
	n := len(req.rows)
	if n > engine.MaxBatchRows {
		return invalid("Rows count exceeds the upper limit: %d.", engine.MaxBatchRows)
	}
	// Rows that a fault takes out before the work are left out of it.
	skipped := c.skippedRows()
	rest := c.changes(n)
	groups := c.frame.groups[:0]
	at := 0
	for i := range req.tables {
		t := &req.tables[i]
		mine := rest[:0:len(t.rows)]
		rest = rest[len(t.rows):]
		for j := range t.rows {
			if at++; skipped[at-1] != nil {
				continue
			}
			mine = mine[:len(mine)+1]
			if err := c.fill(&mine[len(mine)-1], &t.rows[j]); err != nil {
				return err
			}
		}
		if len(mine) > 0 || len(t.rows) == 0 {
			groups = append(groups, engine.Group{Table: t.name, Changes: mine})
		}
	}
	c.frame.groups = groups
	if len(groups) > 0 || n == 0 {
		if err := c.server.engine.BatchWriteIn(req.transaction, groups, req.atomic); err != nil {
			return err
		}
	}
	c.answerBatch(req, groups)
	return nil
}

// skippedRows are the rows that a fault refuses before the work is done.
func (c *call) skippedRows() map[int]*engine.Error {
	if c.fault == nil || c.fault.After {
		return nil
	}
	return c.fault.Rows
}

// answerBatch answers row by row, in the order of the request.
func (c *call) answerBatch(req *batchRequest, groups []engine.Group) {
	skipped := c.skippedRows()
	table, row := c.frame.table, c.frame.row
	at, g, i := 0, 0, 0
	for t := range req.tables {
		table = appendString(table[:0], 1, req.tables[t].name)
		for range req.tables[t].rows {
			failed := c.rowFault(at)
			var o *engine.Outcome
			if skipped[at] == nil {
				for i == len(groups[g].Changes) {
					g, i = g+1, 0
				}
				o = &groups[g].Changes[i].Outcome
				i++
			}
			at++
			if failed == nil && o.Err != nil {
				failed = o.Err
			}
			row = row[:0]
			if failed != nil {
				row = appendVarint(row, 1, 0)
				row = appendBytes(row, 2, appendError(nil, failed))
			} else {
				row = appendVarint(row, 1, 1)
				row = appendConsumed(row, 3, o.Read, o.Write)
				if o.Row != nil {
					row = appendBytes(row, 4, o.Row)
				}
			}
			table = appendBytes(table, 2, row)
		}
		c.answer = appendBytes(c.answer, 1, table)
	}
	c.frame.table, c.frame.row = table, row
}

// rowFault is the answer that a fault has for a row of a batch.
func (c *call) rowFault(at int) *engine.Error {
	if c.fault == nil {
		return nil
	}
	return c.fault.Rows[at]
}

// query turns the read options, which all reads have, into the engine's.
func query(columns []string, t *otsprotocol.TimeRange, versions *int32, filter []byte, start, end *string, token []byte) (engine.Query, *engine.Error) {
	q := engine.Query{Columns: columns}
	if versions != nil {
		if *versions <= 0 {
			return q, invalid("Invalid max versions: %d. Reason: Max versions must be positive.", *versions)
		}
		q.MaxVersions = *versions
	}
	if t != nil {
		q.HasTime = true
		switch {
		case t.SpecificTime != nil && (t.StartTime != nil || t.EndTime != nil) && versions != nil:
			return q, invalid("Specific timestamp, time range and max versions cannot be given at the same time.")
		case t.SpecificTime != nil && (t.StartTime != nil || t.EndTime != nil):
			return q, invalid("Specific tiemstamp and time range cannot be given at the same time.")
		case t.SpecificTime != nil && versions != nil:
			return q, invalid("Specific tiemstamp and max versions cannot be given at the same time.")
		case t.GetSpecificTime() < 0:
			return q, invalid("Specific timestamp cannot be less than 0.")
		case t.SpecificTime != nil:
			q.From, q.To = t.GetSpecificTime(), t.GetSpecificTime()+1
		case t.StartTime == nil || t.EndTime == nil:
			return q, invalid("Start and end time must be given at the same time.")
		default:
			q.From, q.To = t.GetStartTime(), t.GetEndTime()
		}
		if q.From < 0 || q.To <= q.From {
			return q, invalid("Invalid time range: [%d, %d).", q.From, q.To)
		}
	}
	var err *engine.Error
	if q.Filter, err = parseFilter(filter); err != nil {
		return q, err
	}
	if start != nil && *start != "" {
		q.StartColumn = []byte(*start)
	}
	if end != nil && *end != "" {
		q.EndColumn = []byte(*end)
	}
	if len(token) > 0 {
		q.Token = token
	}
	return q, nil
}

// blockGap is room before a block in the answer for the tag and the length of its field.
const blockGap = 16

// beginBlock leaves room for the head of a field and begins a PlainBuffer block; endBlock
// writes the head right before it and cuts off the rest of the room, so that rows are
// never moved. The field is the first of the answer.
func (c *call) beginBlock() {
	var gap [blockGap]byte
	c.answer = plainbuffer.AppendHeader(append(c.answer, gap[:]...))
}

func (c *call) endBlock(field int) {
	n := len(c.answer) - blockGap
	if n == plainbuffer.HeaderSize {
		// No rows are no bytes.
		c.answer, n = c.answer[:blockGap], 0
	}
	var head [blockGap]byte
	h := binary.AppendUvarint(appendTag(head[:0], field, 2), uint64(n))
	c.start = blockGap - len(h)
	copy(c.answer[c.start:], h)
}

func (c *call) getRow() *engine.Error {
	var req otsprotocol.GetRowRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enter(req.GetTableName()); err != nil {
		return err
	}
	var row plainbuffer.Row
	if err := c.scanKey(req.PrimaryKey, &row); err != nil {
		return err
	}
	q, err := query(req.ColumnsToGet, req.TimeRange, req.MaxVersions, req.Filter, req.StartColumn, req.EndColumn, req.Token)
	if err != nil {
		return err
	}
	q.Transaction = req.GetTransactionId()
	c.beginBlock()
	var page engine.Page
	if c.answer, page, err = c.server.engine.Get(req.GetTableName(), row.Key, &q, c.answer); err != nil {
		return err
	}
	c.endBlock(2)
	c.answer = appendConsumed(c.answer, 1, page.Read, 0)
	if page.Token != nil {
		c.answer = appendBytes(c.answer, 3, page.Token)
	}
	return nil
}

func (c *call) getRange() *engine.Error {
	var req otsprotocol.GetRangeRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := c.enter(req.GetTableName()); err != nil {
		return err
	}
	var start, end plainbuffer.Row
	if err := c.scanKey(req.InclusiveStartPrimaryKey, &start); err != nil {
		return err
	}
	if err := c.scanKey(req.ExclusiveEndPrimaryKey, &end); err != nil {
		return err
	}
	q := engine.RangeQuery{Start: start.Key, End: end.Key, Backward: req.GetDirection() == otsprotocol.Direction_BACKWARD}
	if req.Limit != nil {
		if req.GetLimit() <= 0 {
			return invalid("The limit must be greater than 0.")
		}
		q.Limit = int(req.GetLimit())
	}
	var err *engine.Error
	if q.Query, err = query(req.ColumnsToGet, req.TimeRange, req.MaxVersions, req.Filter, req.StartColumn, req.EndColumn, req.Token); err != nil {
		return err
	}
	q.Transaction = req.GetTransactionId()
	if req.GetDataBlockTypeHint() == otsprotocol.DataBlockType_DBT_SIMPLE_ROW_MATRIX && len(req.ColumnsToGet) == 0 {
		return invalid("DBT_SIMPLE_ROW_MATRIX need at least one column to get.")
	}
	c.beginBlock()
	var page engine.Page
	if c.answer, page, err = c.server.engine.Range(req.GetTableName(), &q, c.answer); err != nil {
		return err
	}
	kind := otsprotocol.DataBlockType_DBT_PLAIN_BUFFER
	if req.GetDataBlockTypeHint() == otsprotocol.DataBlockType_DBT_SIMPLE_ROW_MATRIX && page.Token == nil && q.Token == nil {
		kind = otsprotocol.DataBlockType_DBT_SIMPLE_ROW_MATRIX
		if err := c.matrixAnswer(req.GetTableName(), req.ColumnsToGet); err != nil {
			return err
		}
	}
	c.endBlock(2)
	c.answer = appendConsumed(c.answer, 1, page.Read, 0)
	if page.Next != nil {
		c.answer = appendBytes(c.answer, 3, page.Next)
	}
	if page.Token != nil {
		c.answer = appendBytes(c.answer, 4, page.Token)
	}
	c.answer = appendVarint(c.answer, 5, uint64(kind))
	c.answer = appendVarint(c.answer, 6, uint64(otsprotocol.CompressType_CPT_NONE))
	return nil
}

func (c *call) batchGetRow() *engine.Error {
	var req otsprotocol.BatchGetRowRequest
	if err := c.decode(&req); err != nil {
		return err
	}
	names := make([]string, len(req.Tables))
	n := 0
	for i, t := range req.Tables {
		names[i] = t.GetTableName()
		n += len(t.PrimaryKey)
	}
	if err := c.enter(names...); err != nil {
		return err
	}
	if len(req.Tables) == 0 {
		return invalid("No row specified in the request of BatchGetRow.")
	}
	if n > engine.MaxBatchReads {
		return invalid("Rows count exceeds the upper limit: %d.", engine.MaxBatchReads)
	}
	for i, t := range req.Tables {
		if err := engine.CheckTableName(t.GetTableName()); err != nil {
			return err
		}
		if slices.Contains(names[:i], names[i]) {
			return invalid("Duplicated table name: '%s'.", names[i])
		}
	}
	unique := c.server.engine.Behavior().Reads.RefuseRepeats
	var key plainbuffer.Row
	var table, row, block []byte
	at := 0
	for _, t := range req.Tables {
		q, err := query(t.ColumnsToGet, t.TimeRange, t.MaxVersions, t.Filter, t.StartColumn, t.EndColumn, nil)
		if err != nil {
			return err
		}
		q.Batch = true
		if err := c.server.engine.CheckQuery(&q); err != nil {
			return err
		}
		table = appendString(table[:0], 1, t.GetTableName())
		for i, pk := range t.PrimaryKey {
			if err := c.scanKey(pk, &key); err != nil {
				return err
			}
			if unique && slices.ContainsFunc(t.PrimaryKey[:i], func(other []byte) bool { return bytes.Equal(other, pk) }) {
				return invalid("Duplicate rows detected in MultiGet.")
			}
			q.Token = nil
			if i < len(t.Token) && len(t.Token[i]) > 0 {
				q.Token = t.Token[i]
			}
			failed := c.rowFault(at)
			at++
			var page engine.Page
			block = plainbuffer.AppendHeader(block[:0])
			if failed == nil {
				if failed = c.server.engine.CheckKey(t.GetTableName(), key.Key); failed != nil {
					return failed
				}
				block, page, failed = c.server.engine.Get(t.GetTableName(), key.Key, &q, block)
			}
			row = row[:0]
			if failed != nil {
				row = appendVarint(row, 1, 0)
				row = appendBytes(row, 2, appendError(nil, failed))
			} else {
				row = appendVarint(row, 1, 1)
				row = appendConsumed(row, 3, page.Read, 0)
				if page.Rows == 0 {
					block = block[:0]
				}
				row = appendBytes(row, 4, block)
				if page.Token != nil {
					row = appendBytes(row, 5, page.Token)
				}
			}
			table = appendBytes(table, 2, row)
		}
		c.answer = appendBytes(c.answer, 1, table)
	}
	return nil
}
