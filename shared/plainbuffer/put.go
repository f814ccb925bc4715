package plainbuffer

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math"
)

// A PutScanner reads rows of the form that nearly all rows of puts have, and makes no
// value of an attribute: of such a row it is enough to know that it is right, what its
// key is, and how large and how old its cells are. It is as strict as a Scanner, to which
// rows of every other form are left.
//
// The form is: a key of integers, strings and blobs; at least one attribute, each with a
// timestamp and a value, of a type other than null and no infinite number; names in
// ascending order, and of one name the newest cell first; neither an operation, nor a
// deletion, nor an extension.
type PutScanner struct {
	// ValidName says whether an attribute may have a name, of which it is asked once for
	// many cells.
	ValidName func(name []byte) bool

	keys []knownHead // of the key's columns in the row before
	// known are the attributes' names, and table where each is by its hash. The first is
	// none: in front of a row's first cell.
	known []knownHead
	table [tableSize]uint16
	seed  maphash.Seed
	// order is the names of the row before, cell by cell.
	order []uint16

	timestamp    uint64
	timestampCRC byte
}

// A knownHead is how a cell with a name begins.
type knownHead struct {
	bytes []byte // the cell's tag, the name with its tag and length, the tag of a value
	// The first and the last eight of bytes, which are never fewer: mostly they are all.
	first, last uint64
	next        uint16 // the first in order of the names that came after it; 0 for none
	crc         byte   // of the name
}

const (
	tableSize = 1 << 10
	// maxKnown bounds the memory of names. The row that comes with one more is left to a
	// Scanner, and all are forgotten.
	maxKnown = 1 << 12

	// headSize is what a cell has before its name, and headEnd what it has behind it up
	// to its value's size.
	headSize = 6
	headEnd  = 1
)

func newKnownHead(head []byte) knownHead {
	k := knownHead{bytes: head, first: binary.LittleEndian.Uint64(head), last: binary.LittleEndian.Uint64(head[len(head)-8:])}
	k.crc = Checksum(0, k.name())
	return k
}

// begins says whether b begins with k.
func (k *knownHead) begins(b []byte) bool {
	n := len(k.bytes)
	return len(b) > n && binary.LittleEndian.Uint64(b) == k.first && binary.LittleEndian.Uint64(b[n-8:]) == k.last &&
		(n <= 16 || string(b[8:n-8]) == string(k.bytes[8:n-8]))
}

func (k *knownHead) name() []byte { return k.bytes[headSize : len(k.bytes)-headEnd] }

// A Summary is what a PutScanner tells of a row's attributes.
type Summary struct {
	Cells          int
	Data           int // bytes of names and values
	Versions       int // of the column that has most
	Longest        int // bytes of a string or a blob
	Oldest, Newest int64
}

// Reset forgets the names, whose memory is that of the blocks that were scanned.
func (s *PutScanner) Reset() { s.forget(s.keys[:0]) }

// forget is Reset but for the names of the key's columns, which it sets.
func (s *PutScanner) forget(keys []knownHead) {
	if len(s.known) > 1 {
		clear(s.table[:])
	}
	s.keys, s.known, s.order = keys, s.known[:0], s.order[:0]
}

// Scan reads a block of one row, beside those since the last Reset, all of which stay as
// they are. It returns false if the row has another form or is wrong; row and sum have no
// meaning then. Otherwise row has no attributes but in Raw.
func (s *PutScanner) Scan(block []byte, row *Row, sum *Summary) bool {
	if len(block) <= HeaderSize || binary.LittleEndian.Uint32(block) != header || block[HeaderSize] != tagKey {
		return false
	}
	var crc byte
	pos := s.key(block, HeaderSize+1, row, &crc)
	if pos == 0 || pos >= len(block) || block[pos] != tagAttributes {
		return false
	}
	pos = s.cells(block, pos+1, row.Key, sum, &crc)
	if len(s.known) == maxKnown {
		s.forget(s.keys)
	}
	crc = checksum1(crc, 0)
	if pos == 0 || len(block)-pos != 2 || block[pos] != tagRowCRC || block[pos+1] != crc {
		return false
	}
	row.Raw, row.Cells, row.Checksum = block[HeaderSize:], row.Cells[:0], crc
	row.Delete, row.Irregular, row.HasExtension, row.Extension = false, false, false, Extension{}
	return true
}

// key reads the key's cells, which begin at pos, and returns where they end or 0.
func (s *PutScanner) key(b []byte, pos int, row *Row, rowCRC *byte) int {
	row.Key = row.Key[:0]
	for ; pos < len(b) && b[pos] == tagCell; pos += 2 {
		at := len(row.Key)
		if at == len(s.keys) || !s.keys[at].begins(b[pos:]) {
			head := cellHead(b[pos:])
			if head == nil {
				return 0
			}
			// The names of attributes were held against another key's.
			s.forget(append(s.keys[:at], newKnownHead(head)))
		}
		known := &s.keys[at]
		pos += len(known.bytes)
		size, data, crc := value(b[pos:], known.crc)
		pos += size
		if size == 0 || len(b)-pos < 2 || b[pos] != tagCellCRC || b[pos+1] != crc {
			return 0
		}
		row.Key = grow(row.Key)
		c := &row.Key[at]
		c.Name, c.Data, c.Type, c.HasValue = known.name(), b[pos-data:pos:pos], Type(b[pos-size+4]), true
		c.Op, c.HasTimestamp, c.Timestamp = NoOp, false, 0
		switch c.Type {
		case Integer, String, Blob:
		default:
			return 0
		}
		*rowCRC = checksum1(*rowCRC, crc)
	}
	if len(row.Key) == 0 {
		return 0
	}
	if len(row.Key) < len(s.keys) {
		s.forget(s.keys[:len(row.Key)])
	}
	return pos
}

// cells reads the attributes, which begin at pos, and returns where they end or 0.
func (s *PutScanner) cells(b []byte, pos int, key []Cell, sum *Summary, rowCRC *byte) int {
	if len(s.known) == 0 {
		s.known = append(s.known, knownHead{})
	}
	n, data, longest, named, versions := 0, 0, 0, 0, 0
	oldest, newest := int64(math.MaxInt64), int64(math.MinInt64)
	var before uint16 // the name of the cell before
	var last uint64   // its timestamp
	inStep := true    // all names so far are those of the row before
	for ; pos < len(b) && b[pos] == tagCell; pos += 11 {
		// The name is mostly the one that the row before had here, and in order then.
		var at uint16
		if inStep = inStep && n < len(s.order) && s.known[s.order[n]].begins(b[pos:]); inStep {
			at = s.order[n]
		} else {
			if at = s.find(b[pos:], before, key); at == 0 {
				return 0
			}
			s.order = append(s.order[:n], at)
		}
		known := &s.known[at]
		pos += len(known.bytes)
		size, payload, crc := value(b[pos:], known.crc)
		pos += size
		if size == 0 || len(b)-pos < 11 || b[pos] != tagTimestamp || b[pos+9] != tagCellCRC {
			return 0
		}
		ts := binary.LittleEndian.Uint64(b[pos+1:])
		if ts != s.timestamp {
			s.timestamp, s.timestampCRC = ts, checksum8(0, ts)
		}
		crc = tables[7][crc] ^ s.timestampCRC
		if b[pos+10] != crc || ts > math.MaxInt64 {
			return 0
		}
		*rowCRC = checksum1(*rowCRC, crc)
		if at != before {
			named = 0
		} else if ts >= last {
			return 0
		}
		named++
		versions = max(versions, named)
		before, last = at, ts
		n++
		data += len(known.bytes) - headSize - headEnd + payload
		longest = max(longest, payload)
		oldest, newest = min(oldest, int64(ts)), max(newest, int64(ts))
	}
	if n == 0 {
		return 0
	}
	*sum = Summary{Cells: n, Data: data, Versions: versions, Longest: longest, Oldest: oldest, Newest: newest}
	return pos
}

// find returns the place of the name of the cell at the start of b, or 0 if no attribute
// may have it after the one before. Where the columns of rows differ it is mostly one of
// the next in order.
func (s *PutScanner) find(b []byte, before uint16, key []Cell) uint16 {
	at := s.known[before].next
	for hops := 0; at != 0 && hops < 4; hops++ {
		known := &s.known[at]
		if known.begins(b) {
			return at
		}
		at = known.next
	}
	return s.learn(b, before, key)
}

// learn is find for any name, and remembers it.
func (s *PutScanner) learn(b []byte, before uint16, key []Cell) uint16 {
	// A name may be known twice, where another took its place in the table.
	if before != 0 && s.known[before].begins(b) {
		return before
	}
	head := cellHead(b)
	if head == nil {
		return 0
	}
	if s.seed == (maphash.Seed{}) {
		s.seed = maphash.MakeSeed()
	}
	place := &s.table[maphash.Bytes(s.seed, head)%tableSize]
	at := *place
	if at == 0 || !bytes.Equal(s.known[at].bytes, head) {
		known := newKnownHead(head)
		if !s.ValidName(known.name()) {
			return 0
		}
		for i := range key {
			if bytes.Equal(key[i].Name, known.name()) {
				return 0
			}
		}
		if at = uint16(len(s.known)); at == maxKnown {
			return 0
		}
		s.known = append(s.known, known)
		*place = at
	}
	name := s.known[at].name()
	if before != 0 && bytes.Compare(s.known[before].name(), name) >= 0 {
		return 0
	}
	if next := s.known[before].next; next == 0 || bytes.Compare(name, s.known[next].name()) < 0 {
		s.known[before].next = at
	}
	return at
}

// cellHead is how a cell at the start of b begins, up to the tag of its value; nil if it
// has no name, or an empty one, or no value.
func cellHead(b []byte) []byte {
	if len(b) < headSize || b[0] != tagCell || b[1] != tagName {
		return nil
	}
	n := uint64(binary.LittleEndian.Uint32(b[2:]))
	if n == 0 || n >= uint64(len(b)-headSize) || b[headSize+n] != tagValue {
		return nil
	}
	end := headSize + int(n) + headEnd
	return b[:end:end]
}

// value reads a value, from its size on, at the start of b. It returns how many bytes
// that are, 0 if it is none that an attribute of the form can have; how many of them, at
// the end, are its payload; and the checksum, continued over it.
func value(b []byte, crc byte) (size, payload int, sum byte) {
	if len(b) < 6 {
		return 0, 0, 0
	}
	n, kind := binary.LittleEndian.Uint32(b), Type(b[4])
	crc = checksum1(crc, byte(kind))
	switch kind {
	case String, Blob:
		if len(b) < 9 {
			return 0, 0, 0
		}
		length := binary.LittleEndian.Uint32(b[5:])
		if uint64(n) != uint64(length)+5 || uint64(length) > uint64(len(b)-9) {
			return 0, 0, 0
		}
		payload = int(length)
		return 9 + payload, payload, Checksum(checksum4(crc, length), b[9:9+payload])
	case Integer, Double:
		if n != 9 || len(b) < 13 {
			return 0, 0, 0
		}
		v := binary.LittleEndian.Uint64(b[5:])
		if kind == Double && v>>52&0x7FF == 0x7FF { // neither finite nor a number's
			return 0, 0, 0
		}
		return 13, 8, checksum8(crc, v)
	case Boolean:
		if n != 2 || b[5] > 1 {
			return 0, 0, 0
		}
		return 6, 1, checksum1(crc, b[5])
	}
	return 0, 0, 0
}
