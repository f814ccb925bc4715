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

func (a *array) double(bits uint64) {
	a.items = binary.LittleEndian.AppendUint64(a.items, bits)
	a.n++
}

func (a *array) boolean(v byte) {
	a.items = append(a.items, v)
	a.n++
}

// bytes adds a value, in several entries if it is long: one of exactly chunk
// bytes goes on in the next, which may be empty.
func (a *array) bytes(v []byte) {
	for len(v) >= chunk {
		a.items = appendBytes(a.items, v[:chunk])
		a.n++
		v = v[chunk:]
	}
	a.items = appendBytes(a.items, v)
	a.n++
}

// appendTo appends the array in one block with its size in bytes, so that a
// reader can step over it.
func (a *array) appendTo(b []byte) []byte { return appendArray(b, a.items, a.n) }

func appendArray(b, items []byte, n int) []byte {
	if n > 0 {
		b = appendLong(b, -int64(n))
		b = appendLong(b, int64(len(items)))
		b = append(b, items...)
	}
	return appendLong(b, 0)
}

// cursor reads a record, strictly. After the first fault every read returns
// zero, and bad stays set.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) fail() { c.b, c.bad = nil, true }

// long reads a zigzag number in its shortest form.
func (c *cursor) long() int64 {
	if len(c.b) > 0 && c.b[0] < 0x80 {
		v := c.b[0]
		c.b = c.b[1:]
		return int64(v>>1) ^ -int64(v&1)
	}
	v, n := binary.Uvarint(c.b)
	if n <= 0 || n > 1 && c.b[n-1] == 0 {
		c.fail()
		return 0
	}
	c.b = c.b[n:]
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
	if n < 0 || n > len(c.b) {
		c.fail()
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) bytes() []byte { return c.take(c.int(0, math.MaxInt32)) }

func (c *cursor) double() uint64 {
	v := c.take(8)
	if v == nil {
		return 0
	}
	return binary.LittleEndian.Uint64(v)
}

func (c *cursor) boolean() bool {
	v := c.take(1)
	if v == nil || v[0] > 1 {
		c.fail()
		return false
	}
	return v[0] == 1
}

// value reads a value that may go on over several entries, which are joined in
// scratch. left is the number of entries of the array.
func (c *cursor) value(left *int, scratch *[]byte) []byte {
	v := c.entry(left)
	if len(v) < chunk {
		return v
	}
	*scratch = append((*scratch)[:0], v...)
	for len(v) == chunk {
		v = c.entry(left)
		if c.bad || len(*scratch) > MaxRow {
			c.fail()
			return nil
		}
		*scratch = append(*scratch, v...)
	}
	return *scratch
}

func (c *cursor) entry(left *int) []byte {
	if *left == 0 {
		c.fail()
		return nil
	}
	*left--
	v := c.bytes()
	if len(v) > chunk {
		c.fail()
	}
	return v
}

// array reads an array's header and returns its number of items and a cursor
// over them. An item takes at least a byte.
func (c *cursor) array() (int, cursor) {
	n := c.long()
	if n == 0 {
		return 0, cursor{bad: c.bad}
	}
	size := c.long()
	if n > 0 || n == math.MinInt64 || size <= 0 || -n > size {
		c.fail()
		return 0, cursor{bad: true}
	}
	if size > int64(len(c.b)) {
		c.fail()
		return 0, cursor{bad: true}
	}
	items := c.take(int(size))
	if c.long() != 0 {
		c.fail()
	}
	return int(-n), cursor{b: items, bad: c.bad}
}

// done says whether the cursor has read all there is, without a fault.
func (c *cursor) done() bool { return !c.bad && len(c.b) == 0 }
