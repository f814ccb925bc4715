package plainbuffer

import (
	"encoding/binary"
	"math"
	"slices"
)

// AppendHeader begins a block.
func AppendHeader(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, header)
}

// A Name is a column's name prepared for building: its bytes on the wire and their
// checksum.
type Name struct {
	wire []byte // tags, length, name
	crc  byte
}

// NewName prepares name, which it copies.
func NewName(name []byte) Name {
	n := Name{wire: make([]byte, 0, 6+len(name))}
	n.Set(name)
	return n
}

// Set makes n another name, in the memory that it has.
func (n *Name) Set(name []byte) {
	w := append(n.wire[:0], tagCell, tagName)
	w = binary.LittleEndian.AppendUint32(w, uint32(len(name)))
	n.wire, n.crc = append(w, name...), Checksum(0, name)
}

// Bytes returns the name itself.
func (n *Name) Bytes() []byte { return n.wire[6:] }

// A Builder appends rows to Buf. Between Begin and End come the key's cells, then
// Attributes, then the other cells; Attributes is left out where there are none. The
// caller owns Buf between rows and may replace it.
type Builder struct {
	Buf []byte
	crc byte // of the row so far
	// tsCRC is the checksum of the timestamp ts. CRCs are linear: that of eight bytes
	// after others is the sum of both alone, the first moved by eight bytes.
	tsCRC byte
	ts    int64
}

// Begin starts a row.
func (b *Builder) Begin() {
	b.Buf = append(b.Buf, tagKey)
	b.crc = 0
}

// Attributes ends the key.
func (b *Builder) Attributes() { b.Buf = append(b.Buf, tagAttributes) }

// End finishes a row and returns its checksum. deleted writes the mark of a row's
// deletion.
func (b *Builder) End(deleted bool) byte {
	if deleted {
		b.Buf = append(b.Buf, tagDelete)
	}
	return b.end(deleted)
}

// EndRecord finishes the row of a stream record.
func (b *Builder) EndRecord(deleted bool, e Extension) byte {
	if deleted {
		b.Buf = append(b.Buf, tagDelete)
	}
	b.Buf = append(b.Buf, tagExtension)
	b.Buf = binary.LittleEndian.AppendUint32(b.Buf, extensionSize)
	b.Buf = append(b.Buf, tagSequence)
	b.Buf = binary.LittleEndian.AppendUint32(b.Buf, sequenceSize)
	b.Buf = append(b.Buf, tagEpoch)
	b.Buf = binary.LittleEndian.AppendUint32(b.Buf, uint32(e.Epoch))
	b.Buf = append(b.Buf, tagSeqTime)
	b.Buf = binary.LittleEndian.AppendUint64(b.Buf, uint64(e.Timestamp))
	b.Buf = append(b.Buf, tagSeqRow)
	b.Buf = binary.LittleEndian.AppendUint32(b.Buf, uint32(e.RowIndex))
	return b.end(deleted)
}

func (b *Builder) end(deleted bool) byte {
	mark := byte(0)
	if deleted {
		mark = 1
	}
	b.crc = checksum1(b.crc, mark)
	b.Buf = append(b.Buf, tagRowCRC, b.crc)
	return b.crc
}

// Cell appends c as it is: with the value, operation and timestamp it has.
func (b *Builder) Cell(c *Cell) {
	b.Buf = append(b.Buf, tagCell, tagName)
	b.Buf = binary.LittleEndian.AppendUint32(b.Buf, uint32(len(c.Name)))
	b.Buf = append(b.Buf, c.Name...)
	crc := Checksum(0, c.Name)
	if c.HasValue {
		crc = b.value(crc, c.Type, c.Data)
	}
	if c.Op != NoOp {
		b.Buf = append(b.Buf, tagOp, byte(c.Op))
	}
	if c.HasTimestamp {
		crc = b.timestamp(crc, c.Timestamp)
	}
	if c.Op != NoOp {
		crc = checksum1(crc, byte(c.Op))
	}
	b.endCell(crc)
}

// KeyInteger, KeyBytes and KeyBound append a key's cell: an integer, a string or blob, or
// one of InfMin, InfMax and AutoIncrement.
func (b *Builder) KeyInteger(n *Name, v int64) {
	p := b.extend(n, 16)
	p[0], p[1], p[2], p[3], p[4], p[5] = tagValue, 9, 0, 0, 0, byte(Integer)
	binary.LittleEndian.PutUint64(p[6:], uint64(v))
	b.seal(p[14:16], checksum8(checksum1(n.crc, byte(Integer)), uint64(v)))
}

// KeyBytes appends a key's cell of type String or Blob.
func (b *Builder) KeyBytes(n *Name, t Type, v []byte) {
	p := b.extend(n, 12+len(v))
	crc := putBytes(p, n.crc, t, v)
	b.seal(p[10+len(v):], crc)
}

// KeyBound appends a key's cell without payload.
func (b *Builder) KeyBound(n *Name, t Type) {
	b.Buf = append(b.Buf, n.wire...)
	b.Buf = append(b.Buf, tagValue, 1, 0, 0, 0, byte(t))
	b.endCell(checksum1(n.crc, byte(t)))
}

// Integer appends an attribute's cell.
func (b *Builder) Integer(n *Name, v int64, ts int64) { b.number(n, Integer, uint64(v), ts) }

// Double appends an attribute's cell.
func (b *Builder) Double(n *Name, v float64, ts int64) { b.number(n, Double, math.Float64bits(v), ts) }

func (b *Builder) number(n *Name, t Type, bits uint64, ts int64) {
	p := b.extend(n, 25)
	p[0], p[1], p[2], p[3], p[4], p[5] = tagValue, 9, 0, 0, 0, byte(t)
	binary.LittleEndian.PutUint64(p[6:], bits)
	b.stamp(p[14:25], checksum8(checksum1(n.crc, byte(t)), bits), ts)
}

// Boolean appends an attribute's cell.
func (b *Builder) Boolean(n *Name, v bool, ts int64) {
	bit := byte(0)
	if v {
		bit = 1
	}
	p := b.extend(n, 18)
	p[0], p[1], p[2], p[3], p[4], p[5], p[6] = tagValue, 2, 0, 0, 0, byte(Boolean), bit
	b.stamp(p[7:18], checksum1(checksum1(n.crc, byte(Boolean)), bit), ts)
}

// Bytes appends an attribute's cell of type String or Blob.
func (b *Builder) Bytes(n *Name, t Type, v []byte, ts int64) {
	p := b.extend(n, 21+len(v))
	crc := putBytes(p, n.crc, t, v)
	b.stamp(p[10+len(v):], crc, ts)
}

// extend appends a cell's name and size bytes to be filled, which it returns.
func (b *Builder) extend(n *Name, size int) []byte {
	at := len(b.Buf)
	need := len(n.wire) + size
	if cap(b.Buf)-at < need {
		b.Buf = slices.Grow(b.Buf, need)
	}
	b.Buf = b.Buf[:at+need]
	p := b.Buf[at:]
	copy(p, n.wire)
	return p[len(n.wire):]
}

// putBytes writes the value of a string or blob and continues crc.
func putBytes(p []byte, crc byte, t Type, v []byte) byte {
	n := uint32(len(v))
	_ = p[9]
	p[0], p[5] = tagValue, byte(t)
	binary.LittleEndian.PutUint32(p[1:], n+5)
	binary.LittleEndian.PutUint32(p[6:], n)
	copy(p[10:], v)
	return Checksum(checksum4(checksum1(crc, byte(t)), n), v)
}

// stamp writes the end of a cell, 11 bytes, from its timestamp on. The cells of a row
// often have one timestamp; what it adds to their checksums is kept.
func (b *Builder) stamp(p []byte, crc byte, ts int64) {
	if ts != b.ts {
		b.ts, b.tsCRC = ts, checksum8(0, uint64(ts))
	}
	_ = p[10]
	p[0] = tagTimestamp
	binary.LittleEndian.PutUint64(p[1:], uint64(ts))
	b.seal(p[9:], tables[7][crc]^b.tsCRC)
}

// seal writes a cell's checksum, 2 bytes.
func (b *Builder) seal(p []byte, crc byte) {
	p[0], p[1] = tagCellCRC, crc
	b.crc = checksum1(b.crc, crc)
}

func (b *Builder) value(crc byte, t Type, data []byte) byte {
	switch t {
	case Integer, Double:
		return b.fixed(crc, t, binary.LittleEndian.Uint64(data))
	case String, Blob:
		return b.bytes(crc, t, data)
	}
	b.Buf = append(b.Buf, tagValue)
	b.Buf = binary.LittleEndian.AppendUint32(b.Buf, uint32(1+len(data)))
	b.Buf = append(b.Buf, byte(t))
	b.Buf = append(b.Buf, data...)
	return Checksum(checksum1(crc, byte(t)), data)
}

func (b *Builder) fixed(crc byte, t Type, bits uint64) byte {
	b.Buf = append(b.Buf, tagValue, 9, 0, 0, 0, byte(t))
	b.Buf = binary.LittleEndian.AppendUint64(b.Buf, bits)
	return checksum8(checksum1(crc, byte(t)), bits)
}

func (b *Builder) bytes(crc byte, t Type, v []byte) byte {
	n := uint32(len(v))
	b.Buf = append(b.Buf, tagValue)
	b.Buf = binary.LittleEndian.AppendUint32(b.Buf, n+5)
	b.Buf = append(b.Buf, byte(t))
	b.Buf = binary.LittleEndian.AppendUint32(b.Buf, n)
	b.Buf = append(b.Buf, v...)
	return Checksum(checksum4(checksum1(crc, byte(t)), n), v)
}

func (b *Builder) timestamp(crc byte, ts int64) byte {
	b.Buf = append(b.Buf, tagTimestamp)
	b.Buf = binary.LittleEndian.AppendUint64(b.Buf, uint64(ts))
	return checksum8(crc, uint64(ts))
}

func (b *Builder) endCell(crc byte) {
	b.Buf = append(b.Buf, tagCellCRC, crc)
	b.crc = checksum1(b.crc, crc)
}
