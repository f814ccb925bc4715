package tabletest

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
)

// The service's limits on one batch.
const (
	batchRows  = 200
	batchBytes = 4 << 20
	rowCells   = 1024
	valueBytes = 2 << 20
)

// NewBatch returns an empty batch.
func (t *Tables) NewBatch() table.Batch { return &batch{} }

type batch struct {
	rows []write
	size int
	row  plainbuffer.Row
}

type write struct {
	row []byte
	op  table.WriteOp
}

func (b *batch) Add(row []byte, op table.WriteOp) bool {
	if len(b.rows) == batchRows {
		return false
	}
	if n, err := plainbuffer.Scan(row, &b.row); err != nil || n != len(row) {
		panic(fmt.Sprintf("tabletest: a batch was given %d bytes that are no row: %v", len(row), err))
	}
	size := 0
	for _, c := range b.row.Key {
		size += len(c.Name) + len(c.Data)
	}
	for _, c := range b.row.Cells {
		size += len(c.Name) + len(c.Data)
		if c.HasTimestamp {
			size += 8
		}
	}
	if b.size+size > batchBytes || len(b.row.Cells) > rowCells {
		return false
	}
	b.rows, b.size = append(b.rows, write{row, op}), b.size+size
	return true
}

func (b *batch) Len() int { return len(b.rows) }

func (b *batch) Reset() { b.rows, b.size = b.rows[:0], 0 }

// Write carries out a batch, row by row. A batch that was made by another instance is
// refused.
func (t *Tables) Write(ctx context.Context, name string, b table.Batch) (result table.WriteResult, err error) {
	err = t.on(ctx, "Write", name, func(c *content) error {
		rows := b.(*batch).rows
		if len(rows) == 0 {
			return fmt.Errorf("OTSParameterInvalid: No row is specified in BatchWriteRow.: %w", table.ErrInvalid)
		}
		result.ServerTime = t.Now()
		var row plainbuffer.Row
		seen := map[string]bool{}
		for i, w := range rows {
			if _, err := plainbuffer.Scan(w.row, &row); err != nil {
				return fmt.Errorf("OTSParameterInvalid: %w: %w", err, table.ErrInvalid)
			}
			if len(c.def.Indexes) > 0 {
				key := table.KeyOf(row.Key).String()
				if seen[key] {
					return fmt.Errorf("OTSParameterInvalid: a key stands twice in a batch for a table with an index: %w", table.ErrInvalid)
				}
				seen[key] = true
			}
			code, message := t.write(c, &row, w.op)
			if code != "" {
				result.Refused = append(result.Refused, table.Refusal{Index: i, Code: code, Message: message})
				continue
			}
			result.WriteUnits += int64(len(w.row)+4095) / 4096
		}
		return nil
	})
	return result, err
}

// write writes one row, or says why not.
func (t *Tables) write(c *content, row *plainbuffer.Row, op table.WriteOp) (code, message string) {
	now := t.Now().UnixMilli()
	if err := c.def.Schema.CheckKey(row.Key); err != nil {
		return "OTSInvalidPK", err.Error()
	}
	key := table.KeyOf(row.Key)
	old, exists := c.rows.Get(&Row{Key: key})
	if !exists && slices.ContainsFunc(c.def.Schema, func(k table.KeyColumn) bool { return k.AutoIncrement }) {
		return "OTSConditionCheckFail", "Condition check failed."
	}
	if op == table.Update && !c.def.Options.AllowUpdate {
		return "OTSParameterInvalid", "the table does not allow updates"
	}
	if len(row.Cells) > rowCells {
		return "OTSParameterInvalid", fmt.Sprintf("The number of attribute columns exceeds the limit, limit count: 1024, column count: %d.", len(row.Cells))
	}
	for i := range row.Cells {
		if code, message := checkCell(c, &row.Cells[i], now); code != "" {
			return code, message
		}
	}
	if t.Refuse != nil {
		if code, message := t.Refuse(c.def.Name, row, op); code != "" {
			return code, message
		}
	}
	fresh := (&Row{Key: key, Cells: row.Cells}).clone()
	for i := range fresh.Cells {
		if !fresh.Cells[i].HasTimestamp {
			fresh.Cells[i].Timestamp, fresh.Cells[i].HasTimestamp = now, true
		}
	}
	if op == table.Update && exists {
		fresh.Cells = merge(old.Cells, fresh.Cells)
	}
	c.rows.Set(fresh)
	return "", ""
}

// merge is the cells of both, each in order; where both have one of a name and a
// timestamp, it is b's.
func merge(a, b []plainbuffer.Cell) []plainbuffer.Cell {
	merged := make([]plainbuffer.Cell, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch order := table.CompareCells(&a[0], &b[0]); {
		case order < 0:
			merged, a = append(merged, a[0]), a[1:]
		case order > 0:
			merged, b = append(merged, b[0]), b[1:]
		default:
			a = a[1:]
		}
	}
	return append(append(merged, a...), b...)
}

func checkCell(c *content, cell *plainbuffer.Cell, now int64) (code, message string) {
	const invalid = "OTSParameterInvalid"
	o := c.def.Options
	switch {
	case len(cell.Name) == 0 || len(cell.Name) > 255 || cell.Name[0] == '#':
		return invalid, fmt.Sprintf("Invalid column name: '%s'.", cell.Name)
	case len(cell.Data) > valueBytes:
		return invalid, fmt.Sprintf("The length of attribute column: '%s' exceeds the MaxLength:%d with CurrentLength:%d.", cell.Name, valueBytes, len(cell.Data))
	case cell.Op != plainbuffer.NoOp || !cell.HasValue:
		return invalid, "the model knows no deletions of cells"
	case cell.Type == plainbuffer.Double && (math.IsNaN(cell.Double()) || math.IsInf(cell.Double(), 0)):
		return invalid, "a double that is no number"
	}
	for _, d := range c.def.DefinedColumns {
		if d.Name == string(cell.Name) && d.Type != cell.Type.String() {
			return invalid, fmt.Sprintf("Invalid column type for column %s expect %s actual %s", d.Name, d.Type, cell.Type)
		}
	}
	if !cell.HasTimestamp {
		return "", ""
	}
	if len(c.def.Indexes) > 0 {
		return invalid, "a timestamp on a table with an index"
	}
	least, greatest := int64(0), int64(math.MaxInt64/1000)
	if o.Deviation < now/1000 {
		least = now - o.Deviation*1000
	}
	if o.Deviation < math.MaxInt64/1_000_000-now/1000 {
		greatest = now + o.Deviation*1000
	}
	if o.TTL > 0 {
		least = max(least, now-int64(o.TTL)*1000)
	}
	if cell.Timestamp < least || cell.Timestamp >= greatest {
		return invalid, fmt.Sprintf("Invalid timestamp. Cell:%s. Timestamp:%d. MinTimestamp:%d. MaxTimestamp:%d.", cell.Name, cell.Timestamp, least, greatest)
	}
	return "", ""
}
