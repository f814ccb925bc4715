// Package plainbuffer walks and builds rows in PlainBuffer, the bytes in which Tablestore
// sends and takes rows.
//
// A block is the little-endian int32 0x75 followed by rows; zero bytes are a block with
// no rows. A row is
//
//	01 cell* [02 cell*] [08] [0B extension] 09 checksum
//
// with the primary key's cells in schema order after tag 01 and the attributes' cells
// after tag 02; tag 08 marks the deletion of the row. A cell is
//
//	03 04 len32 name [05 len32 value] [06 operation] [07 timestamp64] 0A checksum
//
// and a value is a type byte and its payload. Both checksums are CRC-8; together they
// cover names, values, timestamps, operations and the mark of a deletion, but not a
// stream record's extension.
//
// [Scanner] reads the rows of a block, verifies every checksum and allocates nothing per
// row: a [Row] is filled with slices of the block. [Builder] appends rows to a buffer.
// What Scanner accepts, Builder writes again byte for byte, unless the row says that it
// is Irregular.
//
//	s := plainbuffer.NewScanner(block)
//	var row plainbuffer.Row
//	for {
//		if err := s.Next(&row); err == io.EOF {
//			break
//		} else if err != nil {
//			return err
//		}
//		use(row.Key, row.Cells)
//	}
package plainbuffer

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Type is the type byte of a value.
type Type byte

// The types of values. The last three stand only in keys: two in the bounds of ranges,
// one where the service is to make the key.
const (
	Integer       Type = 0x00 // int64, little endian
	Double        Type = 0x01 // the bits of a float64, little endian
	Boolean       Type = 0x02 // one byte, 0 or 1
	String        Type = 0x03 // bytes; the service expects UTF-8
	Null          Type = 0x06
	Blob          Type = 0x07 // bytes
	InfMin        Type = 0x09 // less than every value
	InfMax        Type = 0x0A // greater than every value
	AutoIncrement Type = 0x0B
)

func (t Type) String() string {
	switch t {
	case Integer:
		return "integer"
	case Double:
		return "double"
	case Boolean:
		return "boolean"
	case String:
		return "string"
	case Null:
		return "null"
	case Blob:
		return "binary"
	case InfMin:
		return "-inf"
	case InfMax:
		return "+inf"
	case AutoIncrement:
		return "auto-increment"
	}
	return fmt.Sprintf("type 0x%02x", byte(t))
}

// Op is the operation byte of a cell; NoOp stands for a cell without one.
type Op byte

// The operations of cells in writes and in stream records.
const (
	NoOp      Op = 0
	DeleteAll Op = 1 // all versions of the column; no value
	DeleteOne Op = 3 // the version with the cell's timestamp; no value
	Increment Op = 4 // add the value
)

const (
	header = 0x75

	tagKey        = 0x01
	tagAttributes = 0x02
	tagCell       = 0x03
	tagName       = 0x04
	tagValue      = 0x05
	tagOp         = 0x06
	tagTimestamp  = 0x07
	tagDelete     = 0x08
	tagRowCRC     = 0x09
	tagCellCRC    = 0x0A
	tagExtension  = 0x0B
	tagSequence   = 0x0C
	tagEpoch      = 0x0D
	tagSeqTime    = 0x0E
	tagSeqRow     = 0x0F
)

// HeaderSize is the number of bytes before the first row of a block.
const HeaderSize = 4

// ErrCorrupt matches every error about bytes that are not PlainBuffer, or that a checksum
// contradicts.
var ErrCorrupt = errors.New("corrupt PlainBuffer")

// A Cell is one value, or one operation on a column, of a row. Name and Data are slices
// of the scanned block.
type Cell struct {
	Name      []byte
	Data      []byte // payload without type and length: 8, 8, 1 bytes, or the string's or blob's own
	Timestamp int64  // milliseconds, if HasTimestamp
	Type      Type   // if HasValue
	Op        Op
	// HasValue is false in a cell that deletes.
	HasValue     bool
	HasTimestamp bool
}

// Int returns the value of an Integer cell, 0 for any other.
func (c *Cell) Int() int64 {
	if c.Type != Integer || len(c.Data) != 8 {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(c.Data))
}

// Double returns the value of a Double cell, 0 for any other.
func (c *Cell) Double() float64 {
	if c.Type != Double || len(c.Data) != 8 {
		return 0
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(c.Data))
}

// Bool returns the value of a Boolean cell, false for any other.
func (c *Cell) Bool() bool {
	return c.Type == Boolean && len(c.Data) == 1 && c.Data[0] != 0
}

// Extension is the place of a stream record in its shard.
type Extension struct {
	Epoch     int32
	Timestamp int64 // microseconds
	RowIndex  int32
}

// A Row is one row of a block. Its slices are valid while the block is; Next overwrites
// them.
type Row struct {
	Raw          []byte // the row as it stands in the block, both checksums included
	Key          []Cell
	Cells        []Cell // attributes
	Extension    Extension
	HasExtension bool
	Delete       bool
	// Irregular says that Builder would write this row in other bytes: it has the
	// attributes' tag and no attribute.
	Irregular bool
	Checksum  byte // of the row
}

// CompareKeys orders two keys of one schema, column by column: InfMin before every value,
// InfMax after every value, integers by sign, strings and blobs by unsigned bytes. A key
// that is a prefix of the other comes first. Columns of different types, which no table
// has, are ordered by type.
func CompareKeys(a, b []Cell) int {
	for i := range min(len(a), len(b)) {
		if c := compareValues(&a[i], &b[i]); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}

func compareValues(a, b *Cell) int {
	if a.Type != b.Type {
		return cmp.Compare(rank(a.Type), rank(b.Type))
	}
	switch a.Type {
	case Integer:
		return cmp.Compare(a.Int(), b.Int())
	case InfMin, InfMax, AutoIncrement, Null:
		return 0
	}
	return bytes.Compare(a.Data, b.Data)
}

func rank(t Type) int {
	switch t {
	case InfMin:
		return -1
	case InfMax:
		return 0x100
	}
	return int(t)
}

// corrupt describes a fault at an offset of the block.
func corrupt(offset int, format string, args ...any) error {
	return fmt.Errorf("%w at byte %d: %s", ErrCorrupt, offset, fmt.Sprintf(format, args...))
}
