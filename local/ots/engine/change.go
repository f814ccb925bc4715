package engine

import (
	"bytes"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// Op is what a change does to its row.
type Op int8

// The operations on rows.
const (
	Put    Op = 1 // the row becomes what the change says
	Update Op = 2 // cells are set, deleted and incremented
	Delete Op = 3
)

// Existence is what a change expects of its row.
type Existence int8

// The expectations.
const (
	Ignore         Existence = 0
	ExpectExist    Existence = 1
	ExpectNotExist Existence = 2
)

func (e Existence) String() string {
	switch e {
	case ExpectExist:
		return "EXPECT_EXIST"
	case ExpectNotExist:
		return "EXPECT_NOT_EXIST"
	}
	return "IGNORE"
}

// Return is what a change wants to hear of its row.
type Return int8

// What a change can ask for.
const (
	ReturnNone  Return = 0
	ReturnKey   Return = 1
	ReturnAfter Return = 2 // the newest versions of ReturnColumns
)

// A Change is one write of one row, and what became of it.
type Change struct {
	Op            Op
	Row           plainbuffer.Row
	Existence     Existence
	Filter        *Filter // nil for none
	Return        Return
	ReturnColumns []string

	Outcome Outcome

	key    []byte // as stored
	record []byte // of a put whose key is known
	size   int    // in limits and capacity units
	auto   bool   // the key is to be made
	// unstamped says that there are cells without a timestamp.
	unstamped bool
	// usual says that a Survey read the row, and summary what it found: the row's cells
	// are made where they are needed.
	usual   bool
	summary summary
	// given are the cells of a put of which some are not kept, evicted those that the
	// change makes go, as a stream tells of them.
	given, evicted []plainbuffer.Cell
}

// An Outcome is what became of one row of a request.
type Outcome struct {
	Err         *Error
	Read, Write int    // capacity units
	Row         []byte // a PlainBuffer block, if one was asked for
}

// A Group is the changes of one table in a batch.
type Group struct {
	Table   string
	Changes []Change
}

// checkChange refuses what no table would take, and sizes the change.
func (e *Engine) checkChange(c *Change) *Error {
	c.Outcome, c.given, c.evicted = Outcome{}, nil, nil
	key := c.Row.Key
	if err := checkKeyValues(key, MaxKeyColumns, false); err != nil {
		return err
	}
	c.size = keySize(key)
	if err := c.checkReturn(); err != nil {
		return err
	}
	if c.Op == Delete {
		return nil
	}
	b := e.behavior()
	if len(c.Row.Cells) == 0 && !c.usual {
		if c.Op == Update {
			return invalid("Invalid update row request: missing cells in request.")
		}
		if b.Writes.RefuseEmptyPut {
			return errNoColumns
		}
	}
	if c.usual && !b.Writes.RequireUTF8 && !(b.Writes.RefusePutVersions && c.summary.versions > 1) {
		c.size += c.summary.data + 8*c.summary.cells
	} else {
		if c.usual {
			if err := c.scan(); err != nil {
				return err
			}
		}
		if err := c.checkCells(b); err != nil {
			return err
		}
	}
	if c.size > MaxRowWrite {
		return invalid("The total data size of %s request exceeds the limit, limit size: %d, data size: %d.", c.Op.request(), MaxRowWrite, c.size)
	}
	return nil
}

// checkCells checks each cell and adds it to the size.
func (c *Change) checkCells(b *Behavior) *Error {
	key, cells := c.Row.Key, c.Row.Cells
	if err := c.checkColumns(b); err != nil {
		return err
	}
	for i := range cells {
		cell := &cells[i]
		// Rows mostly carry the same few names; a name is checked again only
		// where it differs from its neighbour's.
		if i == 0 || !bytes.Equal(cell.Name, cells[i-1].Name) {
			if err := checkColumnName(cell.Name); err != nil {
				return err
			}
			for k := range key {
				if bytes.Equal(key[k].Name, cell.Name) {
					return invalid("Duplicated attribute column name with primary key column: '%s' while %s row.", cell.Name, c.Op.doing())
				}
			}
		}
		if err := checkCell(c.Op, cell); err != nil {
			return err
		}
		if b.Writes.RequireUTF8 && cell.Type == plainbuffer.String && !utf8.Valid(cell.Data) {
			return invalid("Value of column '%s' must be UTF8 encoding.", cell.Name)
		}
		c.size += len(cell.Name) + len(cell.Data)
		if cell.HasTimestamp {
			c.size += 8
		}
	}
	return nil
}

// checkColumns holds the number of columns against the limit, and a put's versions
// against what is allowed of them.
func (c *Change) checkColumns(b *Behavior) *Error {
	cells := c.Row.Cells
	n := len(cells)
	if b.Writes.CountColumns && n > MaxWriteColumns || b.Writes.RefusePutVersions && c.Op == Put && n > 1 {
		columns := make(map[string]struct{}, n)
		for i := range cells {
			columns[string(cells[i].Name)] = struct{}{}
		}
		if b.Writes.RefusePutVersions && c.Op == Put && len(columns) < n {
			return invalid("Duplicated attribute column name while putting row.")
		}
		if b.Writes.CountColumns {
			n = len(columns)
		}
	}
	if n > MaxWriteColumns {
		return invalid("The number of attribute columns exceeds the limit, limit count: %d, column count: %d.", MaxWriteColumns, n)
	}
	return nil
}

// stored is what the change's key and cells take where rows are kept: a version costs
// eight bytes where the table has several or lets them expire.
func (c *Change) stored(o *Options) int {
	n := keySize(c.Row.Key)
	for i := range c.Row.Cells {
		cell := &c.Row.Cells[i]
		n += len(cell.Name) + len(cell.Data)
		if cell.HasValue && o.keepsVersions() {
			n += 8
		}
	}
	return n
}

// checkReturn refuses a wish for columns that the change does not increment.
func (c *Change) checkReturn() *Error {
	if c.Return != ReturnAfter {
		if len(c.ReturnColumns) > 0 {
			return invalid("Return columns can only be set with RT_AFTER_MODIFY.")
		}
		return nil
	}
	for _, name := range c.ReturnColumns {
		incremented := slices.ContainsFunc(c.Row.Cells, func(cell plainbuffer.Cell) bool {
			return cell.Op == plainbuffer.Increment && string(cell.Name) == name
		})
		if !incremented {
			return invalid("Return column: '%s' is not incremented by the request.", name)
		}
	}
	return nil
}

func (o Op) doing() string {
	if o == Put {
		return "putting"
	}
	return "updating"
}

func (o Op) request() string {
	switch o {
	case Put:
		return "PutRow"
	case Update:
		return "UpdateRow"
	}
	return "DeleteRow"
}

func checkCell(op Op, c *plainbuffer.Cell) *Error {
	if c.HasTimestamp && (c.Timestamp < 0 || c.Timestamp >= maxTimestamp) {
		return invalid("Timestamp must be in range [0, INT64_MAX/1000).")
	}
	switch c.Op {
	case plainbuffer.DeleteAll, plainbuffer.DeleteOne:
		if op != Update {
			return invalid("OpType cannot be given for column name:%s in PutRow.", c.Name)
		}
		if c.HasValue {
			return invalid("Column value cannot be given when type is DELETE_ONE_VERSION,DELETE_ALL_VERSION.")
		}
		if c.Op == plainbuffer.DeleteOne && !c.HasTimestamp {
			return invalid("Timestamp must be given when type is DELETE_ONE_VERSION.")
		}
		if c.Op == plainbuffer.DeleteAll && c.HasTimestamp {
			return invalid("Timestamp cannot be given when type is DELETE_ALL_VERSION.")
		}
		return nil
	case plainbuffer.Increment:
		if op != Update {
			return invalid("OpType cannot be given for column name:%s in PutRow.", c.Name)
		}
		if !c.HasValue || c.Type != plainbuffer.Integer {
			return invalid("Increment of column '%s' must be VT_INTEGER.", c.Name)
		}
		return nil
	}
	if !c.HasValue {
		return invalid("Invalid cell: %s. Reason: missing value.", c.Name)
	}
	switch c.Type {
	case plainbuffer.String, plainbuffer.Blob:
		if len(c.Data) > MaxValueLength {
			return invalid("The length of attribute column: '%s' exceeds the MaxLength:%d with CurrentLength:%d.", c.Name, MaxValueLength, len(c.Data))
		}
	case plainbuffer.Double:
		switch v := c.Double(); {
		case math.IsNaN(v):
			return invalid("NaN can't be set to double value.")
		case math.IsInf(v, 0):
			return invalid("Infinity can't be set to double value.")
		}
	case plainbuffer.Integer, plainbuffer.Boolean:
	default:
		return invalid("%s is an invalid type for the attribute column.", wireType(c.Type))
	}
	return nil
}
