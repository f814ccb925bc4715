package plainbuffer

import "encoding/binary"

// An Extent is how large a row is.
type Extent struct {
	Bytes int // of the row as it stands
	Data  int // of names and values, and 8 for each timestamp, as the service's limits count
	Cells int // attributes
}

// Measure hops over one row, without a block's header, at the start of b. It looks at
// tags and lengths alone: it verifies no checksum and no value, and costs a small part of
// what Scan does. It allocates nothing but errors.
func Measure(b []byte) (Extent, error) {
	var e Extent
	if len(b) == 0 || b[0] != tagKey {
		return e, corrupt(0, "no row tag")
	}
	pos, err := e.cells(b, 1, new(int))
	if err != nil {
		return e, err
	}
	if pos < len(b) && b[pos] == tagAttributes {
		if pos, err = e.cells(b, pos+1, &e.Cells); err != nil {
			return e, err
		}
	}
	if pos < len(b) && b[pos] == tagDelete {
		pos++
	}
	if pos < len(b) && b[pos] == tagExtension {
		pos += 1 + 4 + extensionSize
	}
	if len(b)-pos < 2 || b[pos] != tagRowCRC {
		return e, corrupt(pos, "no checksum of the row")
	}
	e.Bytes = pos + 2
	return e, nil
}

// cells hops over the cells at pos and counts them.
func (e *Extent) cells(b []byte, pos int, count *int) (int, error) {
	for pos < len(b) && b[pos] == tagCell {
		start := pos
		pos++
		if len(b)-pos < 5 || b[pos] != tagName {
			return 0, corrupt(pos, "a cell without a name")
		}
		n := uint64(binary.LittleEndian.Uint32(b[pos+1:]))
		pos += 5
		if n > uint64(len(b)-pos) {
			return 0, corrupt(start, "a cell cut short")
		}
		pos += int(n)
		e.Data += int(n)
		if pos < len(b) && b[pos] == tagValue {
			if len(b)-pos < 6 {
				return 0, corrupt(start, "a cell cut short")
			}
			n := uint64(binary.LittleEndian.Uint32(b[pos+1:]))
			kind := Type(b[pos+5])
			pos += 5
			head := 1 // what is no data of the value: its type, and the length of strings
			if kind == String || kind == Blob {
				head = 5
			}
			if n < uint64(head) || n > uint64(len(b)-pos) {
				return 0, corrupt(start, "a value of %d bytes", n)
			}
			pos += int(n)
			e.Data += int(n) - head
		}
		if pos < len(b) && b[pos] == tagOp {
			pos += 2
		}
		if pos < len(b) && b[pos] == tagTimestamp {
			pos += 9
			e.Data += 8
		}
		if len(b)-pos < 2 || b[pos] != tagCellCRC {
			return 0, corrupt(start, "no checksum of the cell")
		}
		pos += 2
		*count++
	}
	return pos, nil
}
