package plainbuffer

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
)

// A Scanner reads the rows of one block after the other, strictly: it takes only bytes
// that the grammar allows and whose checksums agree.
type Scanner struct {
	block []byte
	pos   int
	bare  bool // the rows stand without a block's header
	// names remembers, per position in the row, the last name and its checksum: in most
	// tables each row has the columns of the row before.
	names []knownName
	// The last timestamp and its checksum; that of 0 is 0.
	timestamp    uint64
	timestampCRC byte
}

type knownName struct {
	name []byte
	crc  byte
}

// NewScanner returns a scanner over block, which begins with the header or is empty.
func NewScanner(block []byte) *Scanner {
	s := new(Scanner)
	s.Reset(block)
	return s
}

// Reset makes s read block from its start. It keeps s's memory.
func (s *Scanner) Reset(block []byte) {
	s.reset(block, false)
}

// ResetRows makes s read rows that stand one after the other without a block's header. It
// keeps s's memory.
func (s *Scanner) ResetRows(rows []byte) { s.reset(rows, true) }

// Continue is Reset for a block beside the ones before, all of which stay as they are:
// the names that s knows stay known.
func (s *Scanner) Continue(block []byte) {
	s.block, s.pos, s.bare = block, 0, false
}

func (s *Scanner) reset(block []byte, bare bool) {
	s.block, s.pos, s.bare = block, 0, bare
	// The names are slices of the former block, whose memory may be in use for
	// something else by now.
	s.names = s.names[:0]
}

// Offset is the position in the block of the next row.
func (s *Scanner) Offset() int { return s.pos }

// Next reads the next row into row. It returns io.EOF after the last one, and an error
// that matches ErrCorrupt where the bytes are wrong; then row has no meaning and s stays
// where it is.
func (s *Scanner) Next(row *Row) error {
	if s.pos == 0 && !s.bare {
		if len(s.block) == 0 {
			return io.EOF
		}
		if len(s.block) < HeaderSize || binary.LittleEndian.Uint32(s.block) != header {
			return corrupt(0, "no header 0x75")
		}
		s.pos = HeaderSize
	}
	if s.pos == len(s.block) {
		return io.EOF
	}
	end, err := s.row(s.pos, row)
	if err != nil {
		return err
	}
	s.pos = end
	return nil
}

// Scan reads one row, without a block's header, from the start of b, and returns the
// number of bytes it takes.
func Scan(b []byte, row *Row) (int, error) {
	s := Scanner{block: b}
	return s.row(0, row)
}

// ScanKey reads a block of exactly one row that has a key and nothing else, as the bounds
// of ranges and split points are sent.
func ScanKey(block []byte, row *Row) error {
	s := Scanner{block: block}
	if err := s.Next(row); err == io.EOF {
		return corrupt(0, "no key")
	} else if err != nil {
		return err
	}
	if len(row.Cells) > 0 || row.HasExtension {
		return corrupt(HeaderSize, "a key with attributes")
	}
	if s.pos != len(block) {
		return corrupt(s.pos, "bytes after the key")
	}
	return nil
}

func (s *Scanner) row(pos int, row *Row) (int, error) {
	b, start := s.block, pos
	row.Key, row.Cells = row.Key[:0], row.Cells[:0]
	row.Delete, row.Irregular, row.HasExtension = false, false, false
	row.Extension = Extension{}
	if pos >= len(b) || b[pos] != tagKey {
		return 0, corrupt(pos, "no row tag")
	}
	pos++
	var rowCRC byte
	var err error
	at := 0
	for pos < len(b) && b[pos] == tagCell {
		row.Key = grow(row.Key)
		if pos, err = s.cell(pos, at, &row.Key[len(row.Key)-1], &rowCRC); err != nil {
			return 0, err
		}
		at++
	}
	if len(row.Key) == 0 {
		return 0, corrupt(start, "a row without a key")
	}
	if pos < len(b) && b[pos] == tagAttributes {
		pos++
		for pos < len(b) && b[pos] == tagCell {
			row.Cells = grow(row.Cells)
			if pos, err = s.cell(pos, at, &row.Cells[len(row.Cells)-1], &rowCRC); err != nil {
				return 0, err
			}
			at++
		}
		row.Irregular = len(row.Cells) == 0
	}
	if pos < len(b) && b[pos] == tagDelete {
		row.Delete = true
		rowCRC = checksum1(rowCRC, 1)
		pos++
	} else {
		rowCRC = checksum1(rowCRC, 0)
	}
	if pos < len(b) && b[pos] == tagExtension {
		if pos, err = s.extension(pos+1, &row.Extension); err != nil {
			return 0, err
		}
		row.HasExtension = true
	}
	if len(b)-pos < 2 || b[pos] != tagRowCRC {
		return 0, corrupt(pos, "no checksum of the row")
	}
	if b[pos+1] != rowCRC {
		return 0, corrupt(pos+1, "the row's checksum is 0x%02x, its cells give 0x%02x", b[pos+1], rowCRC)
	}
	pos += 2
	row.Checksum = rowCRC
	row.Raw = b[start:pos:pos]
	return pos, nil
}

// grow appends a cell without clearing it; cell sets every field.
func grow(cells []Cell) []Cell {
	if len(cells) < cap(cells) {
		return cells[:len(cells)+1]
	}
	return append(cells, Cell{})
}

// cell reads the cell whose tag is at pos, the at-th of its row, and adds its checksum to
// the row's.
func (s *Scanner) cell(pos, at int, c *Cell, rowCRC *byte) (int, error) {
	b := s.block
	start := pos
	pos++ // tagCell
	if len(b)-pos < 5 || b[pos] != tagName {
		return 0, corrupt(pos, "a cell without a name")
	}
	n := binary.LittleEndian.Uint32(b[pos+1:])
	pos += 5
	if uint64(n) > uint64(len(b)-pos) {
		return 0, corrupt(pos-4, "a name of %d bytes, of which %d are there", n, len(b)-pos)
	}
	c.Name = b[pos : pos+int(n) : pos+int(n)]
	pos += int(n)
	crc := s.nameChecksum(at, c.Name)

	c.HasValue, c.Type, c.Data = false, 0, nil
	if pos < len(b) && b[pos] == tagValue {
		if len(b)-pos < 6 {
			return 0, corrupt(pos, "a value cut short")
		}
		size := binary.LittleEndian.Uint32(b[pos+1:])
		pos += 5
		if size == 0 || uint64(size) > uint64(len(b)-pos) {
			return 0, corrupt(pos-4, "a value of %d bytes, of which %d are there", size, len(b)-pos)
		}
		c.HasValue, c.Type = true, Type(b[pos])
		value := b[pos+1 : pos+int(size)]
		crc = checksum1(crc, byte(c.Type))
		switch c.Type {
		case Integer, Double:
			if len(value) != 8 {
				return 0, corrupt(pos, "a number of %d bytes", len(value))
			}
			crc = checksum8(crc, binary.LittleEndian.Uint64(value))
			c.Data = value[:8:8]
		case Boolean:
			if len(value) != 1 || value[0] > 1 {
				return 0, corrupt(pos, "a boolean of bytes % x", value[:min(len(value), 8)])
			}
			crc = checksum1(crc, value[0])
			c.Data = value[:1:1]
		case String, Blob:
			if len(value) < 4 || uint64(binary.LittleEndian.Uint32(value)) != uint64(len(value)-4) {
				return 0, corrupt(pos, "a %s whose two lengths differ", c.Type)
			}
			crc = checksum4(crc, uint32(len(value)-4))
			c.Data = value[4:len(value):len(value)]
			crc = Checksum(crc, c.Data)
		case Null, InfMin, InfMax, AutoIncrement:
			if len(value) != 0 {
				return 0, corrupt(pos, "a value %s with %d bytes", c.Type, len(value))
			}
		default:
			return 0, corrupt(pos, "unknown value type 0x%02x", byte(c.Type))
		}
		pos += int(size)
	}

	c.Op = NoOp
	if pos < len(b) && b[pos] == tagOp {
		if len(b)-pos < 2 {
			return 0, corrupt(pos, "an operation cut short")
		}
		c.Op = Op(b[pos+1])
		switch c.Op {
		case DeleteAll, DeleteOne, Increment:
		default:
			return 0, corrupt(pos, "unknown operation 0x%02x", b[pos+1])
		}
		pos += 2
	}

	c.HasTimestamp, c.Timestamp = false, 0
	if pos < len(b) && b[pos] == tagTimestamp {
		if len(b)-pos < 9 {
			return 0, corrupt(pos, "a timestamp cut short")
		}
		ts := binary.LittleEndian.Uint64(b[pos+1:])
		c.HasTimestamp, c.Timestamp = true, int64(ts)
		// A CRC is linear, and cells of a row mostly have one timestamp.
		if ts != s.timestamp {
			s.timestamp, s.timestampCRC = ts, checksum8(0, ts)
		}
		crc = tables[7][crc] ^ s.timestampCRC
		pos += 9
	}
	// On the wire the operation comes before the timestamp, in the checksum
	// after it.
	if c.Op != NoOp {
		crc = checksum1(crc, byte(c.Op))
	}
	if len(b)-pos < 2 || b[pos] != tagCellCRC {
		return 0, corrupt(pos, "no checksum of the cell")
	}
	if b[pos+1] != crc {
		return 0, corrupt(start, "the checksum of cell %.64q is 0x%02x, its bytes give 0x%02x", c.Name, b[pos+1], crc)
	}
	*rowCRC = checksum1(*rowCRC, crc)
	return pos + 2, nil
}

func (s *Scanner) nameChecksum(at int, name []byte) byte {
	if at < len(s.names) {
		known := &s.names[at]
		if bytes.Equal(known.name, name) {
			return known.crc
		}
		known.name, known.crc = name, Checksum(0, name)
		return known.crc
	}
	crc := Checksum(0, name)
	s.names = append(s.names, knownName{name, crc})
	return crc
}

// The two lengths of an extension: of all that follows it, and of the three numbers of
// the sequence.
const (
	sequenceSize  = 1 + 4 + 1 + 8 + 1 + 4
	extensionSize = 1 + 4 + sequenceSize
)

func (s *Scanner) extension(pos int, e *Extension) (int, error) {
	b := s.block
	if len(b)-pos < 4+extensionSize {
		return 0, corrupt(pos, "an extension cut short")
	}
	p := b[pos : pos+4+extensionSize]
	if binary.LittleEndian.Uint32(p) != extensionSize || p[4] != tagSequence ||
		binary.LittleEndian.Uint32(p[5:]) != sequenceSize ||
		p[9] != tagEpoch || p[14] != tagSeqTime || p[23] != tagSeqRow {
		return 0, corrupt(pos, "an unknown extension")
	}
	e.Epoch = int32(binary.LittleEndian.Uint32(p[10:]))
	ts := binary.LittleEndian.Uint64(p[15:])
	if ts > math.MaxInt64 {
		return 0, corrupt(pos+15, "a record before the epoch")
	}
	e.Timestamp = int64(ts)
	e.RowIndex = int32(binary.LittleEndian.Uint32(p[24:]))
	return pos + len(p), nil
}
