package shard

import (
	"encoding/binary"
	"math"
)

// array is an Avro array in the making: its items, encoded, and their number.
type array struct {
	items []byte
	n     int
}

func (a *array) reset() { a.items, a.n = a.items[:0], 0 }

func (a *array) long(v int64) {
	a.items = appendLong(a.items, v)
	a.n++
}

// repeat adds v, a number of one byte, n times.
func (a *array) repeat(v int64, n int) {
	for range n {
		a.items = append(a.items, byte(v<<1))
	}
	a.n += n
}

func (a *array) double(bits []byte) {
	a.items = append(a.items, bits...)
	a.n++
}

func (a *array) boolean(v byte) {
	a.items = append(a.items, v)
	a.n++
}

// bytes adds a value, in several entries if it is long: one of exactly chunk bytes goes
// on in the next, which may be empty.
func (a *array) bytes(v []byte) {
	for len(v) >= chunk {
		a.items = appendBytes(a.items, v[:chunk])
		a.n++
		v = v[chunk:]
	}
	a.items = appendBytes(a.items, v)
	a.n++
}

// size is the number of bytes that appendTo appends.
func (a *array) size() int { return arraySize(a.n, len(a.items)) }

// appendTo appends the array in one block with its size in bytes, so that a reader can
// step over it.
func (a *array) appendTo(b []byte) []byte {
	if a.n == 0 {
		return append(b, 0)
	}
	return append(append(beginArray(b, a.n, len(a.items)), a.items...), 0)
}

// beginArray begins an array whose n items, at least one, take size bytes; the items
// follow, and a zero.
func beginArray(b []byte, n, size int) []byte {
	return appendLong(appendLong(b, -int64(n)), int64(size))
}

func arraySize(n, size int) int {
	if n == 0 {
		return 1
	}
	return longSize(-int64(n)) + longSize(int64(size)) + size + 1
}

// cursor reads a record, strictly. After the first fault every read returns zero, and bad
// stays set.
type cursor struct {
	b   []byte
	at  int
	bad bool
}

func (c *cursor) fail() { c.b, c.at, c.bad = nil, 0, true }

// long reads a zigzag number in its shortest form.
func (c *cursor) long() int64 {
	if c.at < len(c.b) {
		if v := c.b[c.at]; v < 0x80 {
			c.at++
			return int64(v>>1) ^ -int64(v&1)
		}
	}
	return c.longer()
}

func (c *cursor) longer() int64 {
	if b := c.b[c.at:]; len(b) >= 3 {
		switch {
		case b[1]-1 < 0x7f: // 1 to 0x7f: the last of two
			c.at += 2
			v := uint64(b[0]&0x7f) | uint64(b[1])<<7
			return int64(v>>1) ^ -int64(v&1)
		case b[1] >= 0x80 && b[2]-1 < 0x7f:
			c.at += 3
			v := uint64(b[0]&0x7f) | uint64(b[1]&0x7f)<<7 | uint64(b[2])<<14
			return int64(v>>1) ^ -int64(v&1)
		}
	}
	v, n := binary.Uvarint(c.b[c.at:])
	if n <= 0 || n > 1 && c.b[c.at+n-1] == 0 {
		c.fail()
		return 0
	}
	c.at += n
	return int64(v>>1) ^ -int64(v&1)
}

// int reads a number from least to most.
func (c *cursor) int(least, most int64) int {
	v := c.long()
	if v < least || v > most {
		c.fail()
		return int(least)
	}
	return int(v)
}

func (c *cursor) take(n int) []byte {
	if n < 0 || n > len(c.b)-c.at {
		c.fail()
		return nil
	}
	v := c.b[c.at : c.at+n : c.at+n]
	c.at += n
	return v
}

// bytes reads a value that stands in one piece.
func (c *cursor) bytes() []byte { return c.take(c.int(0, chunk)) }

func (c *cursor) boolean() bool {
	v := c.take(1)
	if v == nil || v[0] > 1 {
		c.fail()
		return false
	}
	return v[0] == 1
}

// values is the entries of an array of bytes.
type values struct {
	cursor
	left    int    // entries
	scratch []byte // where a long value is joined
}

// next reads a value, which is valid until the next one is read.
func (v *values) next() []byte {
	e := v.entry()
	if len(e) < chunk {
		return e
	}
	v.scratch = append(v.scratch[:0], e...)
	for len(e) == chunk {
		e = v.entry()
		if v.bad || len(v.scratch) > MaxRow {
			v.fail()
			return nil
		}
		v.scratch = append(v.scratch, e...)
	}
	return v.scratch
}

func (v *values) entry() []byte {
	if v.left == 0 {
		v.fail()
		return nil
	}
	v.left--
	return v.bytes()
}

func (v *values) done() bool { return v.left == 0 && v.cursor.done() }

// array reads an array's beginning and end and returns its number of items and a cursor
// over them. An item takes at least a byte.
func (c *cursor) array() (int, cursor) {
	n := c.long()
	if n == 0 {
		return 0, cursor{bad: c.bad}
	}
	size := c.long()
	if n > 0 || n < -math.MaxInt32 || size < -n || size > int64(len(c.b)-c.at) {
		c.fail()
		return 0, cursor{bad: true}
	}
	items := c.take(int(size))
	if c.long() != 0 {
		c.fail()
	}
	return int(-n), cursor{b: items, bad: c.bad}
}

// values reads an array of bytes into v.
func (c *cursor) values(v *values) { v.left, v.cursor = c.array() }

// done says whether the cursor has read all there is, without a fault.
func (c *cursor) done() bool { return !c.bad && c.at == len(c.b) }
