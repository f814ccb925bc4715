package engine

import (
	"encoding/binary"

	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// A key is stored so that the order of its bytes is the order of its values: column after
// column, each a mark and, for a value, its bytes. An integer is big endian with its sign
// turned; in a string or blob every zero is followed by FF and two zeros end it, so that
// no value's bytes begin another's.
const (
	markMin   = 0x00
	markValue = 0x02
	markMax   = 0xFF
)

func appendKeyValue(b []byte, c *plainbuffer.Cell) []byte {
	switch c.Type {
	case plainbuffer.InfMin:
		return append(b, markMin)
	case plainbuffer.InfMax:
		return append(b, markMax)
	case plainbuffer.Integer:
		b = append(b, markValue)
		return binary.BigEndian.AppendUint64(b, uint64(c.Int())^1<<63)
	}
	b = append(b, markValue)
	for _, v := range c.Data {
		b = append(b, v)
		if v == 0 {
			b = append(b, 0xFF)
		}
	}
	return append(b, 0, 0)
}

func appendKey(b []byte, cells []plainbuffer.Cell) []byte {
	for i := range cells {
		b = appendKeyValue(b, &cells[i])
	}
	return b
}

// keySize is what a key counts in limits and in capacity units: names and values, numbers
// at their eight bytes.
func keySize(cells []plainbuffer.Cell) int {
	n := 0
	for i := range cells {
		n += len(cells[i].Name) + len(cells[i].Data)
	}
	return n
}

// wireType names a type as the service's messages do.
func wireType(t plainbuffer.Type) string {
	switch t {
	case plainbuffer.Integer:
		return "VT_INTEGER"
	case plainbuffer.Double:
		return "VT_DOUBLE"
	case plainbuffer.Boolean:
		return "VT_BOOLEAN"
	case plainbuffer.String:
		return "VT_STRING"
	case plainbuffer.Null:
		return "VT_NULL"
	case plainbuffer.Blob:
		return "VT_BLOB"
	case plainbuffer.InfMin:
		return "VT_INF_MIN"
	case plainbuffer.InfMax:
		return "VT_INF_MAX"
	case plainbuffer.AutoIncrement:
		return "VT_AUTO_INCREMENT"
	}
	return t.String()
}

// checkKeyValues refuses what no key of so many columns can hold. Infinities are for the
// bounds of ranges, the placeholder of a key to be made for writes.
func checkKeyValues(cells []plainbuffer.Cell, columns int, infinities bool) *Error {
	if len(cells) == 0 || len(cells) > columns {
		return invalid("The number of primary key columns must be in range: [1, %d].", MaxKeyColumns)
	}
	for i := range cells {
		c := &cells[i]
		switch {
		case !c.HasValue:
			return invalid("No value is given for primary key name:%s.", c.Name)
		case c.HasTimestamp:
			return invalid("Timestamp cannot be given for primary key name:%s.", c.Name)
		case c.Op != plainbuffer.NoOp:
			return invalid("OpType cannot be given for primary key name :%s.", c.Name)
		}
		switch c.Type {
		case plainbuffer.Integer, plainbuffer.AutoIncrement:
		case plainbuffer.String, plainbuffer.Blob:
			if len(c.Data) > MaxKeyLength {
				return invalid("The length of primary key column: '%s' exceeds the MaxLength:%d with CurrentLength:%d.", c.Name, MaxKeyLength, len(c.Data))
			}
		case plainbuffer.InfMin, plainbuffer.InfMax:
			if !infinities {
				return invalid("%s is an invalid type for the primary key.", wireType(c.Type))
			}
		default:
			return invalid("%s is an invalid type for the primary key.", wireType(c.Type))
		}
	}
	return nil
}

// checkKey compares a key with the table's. Where no placeholder may stand, a reader
// wants one.
func (d *Definition) checkKey(cells []plainbuffer.Cell, write bool) *Error {
	if len(cells) != len(d.Key) {
		return refuse(CodeInvalidPK, "Validate PK size fail. Input: %d, Meta: %d.", len(cells), len(d.Key))
	}
	for i := range cells {
		c, k := &cells[i], &d.Key[i]
		if string(c.Name) != k.Name {
			return refuse(CodeInvalidPK, "Validate PK name fail. Input: %s, Meta: %s.", c.Name, k.Name)
		}
		switch c.Type {
		case k.Type, plainbuffer.InfMin, plainbuffer.InfMax:
		case plainbuffer.AutoIncrement:
			if !write {
				return invalid("PKAutoIncr can't be used for read operations.")
			}
			if !k.AutoIncrement {
				return refuse(CodeInvalidPK, "Validate PK type fail. Input: %s, Meta: %s.", wireType(c.Type), wireType(k.Type))
			}
		default:
			return refuse(CodeInvalidPK, "Validate PK type fail. Input: %s, Meta: %s.", wireType(c.Type), wireType(k.Type))
		}
	}
	return nil
}

// CheckKey refuses a key that no row of the table could have, whatever its columns are.
func (e *Engine) CheckKey(table string, cells []plainbuffer.Cell) *Error {
	return checkKeyValues(cells, e.keyColumns(table), false)
}

// keyColumns is the most columns that keys in reads of the table may have.
func (e *Engine) keyColumns(table string) int {
	if t := e.find(table); t != nil && t.definition().Base != "" {
		return maxIndexKey
	}
	return MaxKeyColumns
}

// KeyBlock is a key as a PlainBuffer block of one row.
func KeyBlock(cells []plainbuffer.Cell) []byte {
	b := plainbuffer.Builder{Buf: plainbuffer.AppendHeader(make([]byte, 0, 16+keySize(cells)+24*len(cells)))}
	b.Begin()
	for i := range cells {
		b.Cell(&cells[i])
	}
	b.End(false)
	return b.Buf
}
