package tablestore

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
)

// The service's limits of one write.
const (
	maxBatchRows  = 200
	maxBatchBytes = 4 << 20   // of names and values
	maxRowCells   = 1024      // attributes
	maxBody       = 4_980_000 // the service takes 5 MB; a detour of small rows adds to them
)

// NewBatch returns a batch for [Client.Write]. It is used again after Reset.
func (c *Client) NewBatch() table.Batch { return new(batch) }

// batch is the rows of a BatchWriteRowRequest.
type batch struct {
	rows []batchRow
	data int // bytes as the service counts them
	wire int // bytes on the wire, at most

	// Of Write: the rows that are not decided yet, the request and the answer.
	pending, undecided []int
	body, answer       []byte
}

type batchRow struct {
	raw []byte
	op  table.WriteOp
	// bare says that the row has no attributes; step is how far the detour is that such a
	// row takes where it is refused.
	bare bool
	step step
}

func (b *batch) Len() int { return len(b.rows) }

func (b *batch) Reset() {
	clear(b.rows)
	b.rows = b.rows[:0]
	b.data, b.wire = 0, 0
}

// Add takes a row if the limits allow. A row that is no PlainBuffer is not taken either.
func (b *batch) Add(row []byte, op table.WriteOp) bool {
	if len(b.rows) == maxBatchRows {
		return false
	}
	e, err := plainbuffer.Measure(row)
	if err != nil || e.Bytes != len(row) || e.Cells > maxRowCells {
		return false
	}
	wire := len(row) + rowOverhead
	if b.data+e.Data > maxBatchBytes || b.wire+wire+tableOverhead > maxBody {
		return false
	}
	b.rows = append(b.rows, batchRow{raw: row, op: op, bare: e.Cells == 0})
	b.data, b.wire = b.data+e.Data, b.wire+wire
	return true
}

const (
	// rowOverhead bounds what a row has around it: the tags and lengths of the row and
	// its change, the operation, the condition and the header.
	rowOverhead = 1 + 5 + 2 + 1 + 5 + plainbuffer.HeaderSize + len(ignoreExistence)
	// tableOverhead bounds what a table's rows have around them, with a name of 255
	// bytes.
	tableOverhead = 300

	ignoreExistence = "\x1a\x02\x08\x00" // field 3: Condition{row_existence: IGNORE}
)

// Operations as RowInBatchWriteRowRequest.type has them.
const (
	typePut    = 1
	typeUpdate = 2
	typeDelete = 3
)

// encode writes BatchWriteRowRequest for the pending rows into b.body.
func (b *batch) encode(name string) {
	size := 1 + protowire.SizeBytes(len(name))
	for _, i := range b.pending {
		_, block := b.change(i)
		size += 1 + protowire.SizeBytes(changeSize(block))
	}
	body := protowire.AppendTag(b.body[:0], 1, protowire.BytesType)
	body = protowire.AppendVarint(body, uint64(size))
	body = appendString(body, 1, name)
	for _, i := range b.pending {
		kind, row := b.change(i)
		body = protowire.AppendTag(body, 2, protowire.BytesType)
		body = protowire.AppendVarint(body, uint64(changeSize(row)))
		body = appendVarint(body, 1, kind)
		body = protowire.AppendTag(body, 2, protowire.BytesType)
		body = protowire.AppendVarint(body, uint64(plainbuffer.HeaderSize+len(row)))
		body = plainbuffer.AppendHeader(body)
		body = append(body, row...)
		body = append(body, ignoreExistence...)
	}
	b.body = body
}

// changeSize is the size of RowInBatchWriteRowRequest.
func changeSize(row []byte) int {
	return 2 + 1 + protowire.SizeBytes(plainbuffer.HeaderSize+len(row)) + len(ignoreExistence)
}

// change is what is sent of a row.
func (b *batch) change(i int) (kind uint64, row []byte) {
	r := &b.rows[i]
	switch {
	case r.step != asItIs:
		return r.step.change(r.raw)
	case r.op == table.Update:
		return typeUpdate, r.raw
	}
	return typePut, r.raw
}
