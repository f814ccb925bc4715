package table

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"slices"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/zeebo/xxh3"
)

// A Digest stands for a set of rows: the sum modulo 2^128 of one XXH3-128 hash per row.
// Sums of equal sets are equal, whatever the order and however the sets were cut. It
// finds accidents, not forgeries.
type Digest struct{ hi, lo uint64 }

// Add adds the digest of a disjoint set.
func (d *Digest) Add(e Digest) {
	var carry uint64
	d.lo, carry = bits.Add64(d.lo, e.lo, 0)
	d.hi, _ = bits.Add64(d.hi, e.hi, carry)
}

// String is the digest as 32 hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d.Append(nil)) }

// Append appends the digest's 16 bytes, the most significant first.
func (d Digest) Append(b []byte) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, d.hi), d.lo)
}

// DigestOf reads the 16 bytes that Append writes.
func DigestOf(b [16]byte) Digest {
	return Digest{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// MarshalText writes String's form.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads String's form.
func (d *Digest) UnmarshalText(text []byte) error {
	var b [16]byte
	if len(text) != 32 {
		return fmt.Errorf("digest %.40q: want 32 hexadecimal digits", text)
	}
	if _, err := hex.Decode(b[:], text); err != nil {
		return fmt.Errorf("digest %q: %w", text, err)
	}
	*d = DigestOf(b)
	return nil
}

// A Hasher makes digests of rows. The hash of a row is XXH3-128, with the hasher's seed,
// over the row's canonical form, which has neither checksums nor markers:
//
//	per key column:  type byte, length uint32, value
//	per cell:        length of the name uint32 with the top bit set, name,
//	                 type byte, flags byte, timestamp int64, length uint32, value
//
// Numbers are little endian, integers and doubles are values of 8 bytes. Cells stand by
// name, ascending by bytes, then by timestamp, descending. The flags are 1 for a value, 2
// for a timestamp, and the operation times 16; what is absent is zero. The first key
// length has its top bit clear, so that the two lists cannot be taken for each other.
//
// A Hasher keeps scratch memory and serves one goroutine. Other rows may be hashed
// between the pieces of one.
type Hasher struct {
	seed  uint64
	buf   []byte
	order []plainbuffer.Cell
	// A row that is hashed in pieces, and what of it is not hashed yet.
	long    *xxh3.Hasher
	pending []byte
}

// NewHasher returns a hasher with a vault's seed.
func NewHasher(seed uint64) *Hasher { return &Hasher{seed: seed} }

// Form returns the digest of a row whose canonical form the caller has put together, the
// same as Row's of that row.
func (h *Hasher) Form(form []byte) Digest {
	sum := xxh3.Hash128Seed(form, h.seed)
	return Digest{sum.Hi, sum.Lo}
}

// AppendFormKey appends what a key's column is in the canonical form.
func AppendFormKey(b []byte, t plainbuffer.Type, value []byte) []byte {
	b = append(b, byte(t))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(value)))
	return append(b, value...)
}

// AppendFormColumn appends how a cell with a value, a timestamp and no operation begins
// in the canonical form: all but timestamp, length and value.
func AppendFormColumn(b, name []byte, t plainbuffer.Type) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(name))|1<<31)
	b = append(b, name...)
	return append(b, byte(t), 1|2)
}

// AppendFormCell appends such a cell: its column as AppendFormColumn makes it, then
// timestamp, length and value.
func AppendFormCell(b, column []byte, timestamp int64, value []byte) []byte {
	at := len(b)
	need := len(column) + 12 + len(value)
	if cap(b)-at < need {
		b = slices.Grow(b, need)
	}
	b = b[:at+need]
	p := b[at+copy(b[at:], column):]
	binary.LittleEndian.PutUint64(p, uint64(timestamp))
	binary.LittleEndian.PutUint32(p[8:], uint32(len(value)))
	if len(value) == 8 {
		binary.LittleEndian.PutUint64(p[12:], binary.LittleEndian.Uint64(value))
	} else {
		copy(p[12:], value)
	}
	return b
}

// Row returns the digest of one whole row.
func (h *Hasher) Row(row *plainbuffer.Row) Digest {
	h.buf = appendKey(h.buf[:0], row.Key)
	h.buf = h.appendCells(h.buf, row.Cells)
	sum := xxh3.Hash128Seed(h.buf, h.seed)
	return Digest{sum.Hi, sum.Lo}
}

// Begin starts a row that comes in pieces; Cells adds its cells, which must follow each
// other in canonical order over all the pieces; End returns the digest, the same as Row's
// of the whole.
func (h *Hasher) Begin(key []plainbuffer.Cell) {
	if h.long == nil {
		h.long = xxh3.NewSeed(h.seed)
	}
	h.long.Reset()
	h.pending = appendKey(h.pending[:0], key)
}

// Cells adds cells to the row that was begun.
func (h *Hasher) Cells(cells []plainbuffer.Cell) {
	for i := range cells {
		c := &cells[i]
		h.pending = appendCellHead(h.pending, c)
		if len(c.Data) < pendingBytes {
			h.pending = append(h.pending, c.Data...)
		}
		if len(h.pending) >= pendingBytes || len(c.Data) >= pendingBytes {
			h.long.Write(h.pending)
			h.pending = h.pending[:0]
		}
		if len(c.Data) >= pendingBytes {
			h.long.Write(c.Data)
		}
	}
}

// pendingBytes is how much of a row in pieces is gathered before it is hashed.
const pendingBytes = 16 << 10

// End returns the digest of the row that was begun.
func (h *Hasher) End() Digest {
	h.long.Write(h.pending)
	h.pending = h.pending[:0]
	sum := h.long.Sum128()
	return Digest{sum.Hi, sum.Lo}
}

func appendKey(b []byte, key []plainbuffer.Cell) []byte {
	for i := range key {
		b = AppendFormKey(b, key[i].Type, key[i].Data)
	}
	return b
}

func (h *Hasher) appendCells(b []byte, cells []plainbuffer.Cell) []byte {
	if !Canonical(cells) {
		h.order = append(h.order[:0], cells...)
		slices.SortStableFunc(h.order, func(x, y plainbuffer.Cell) int { return CompareCells(&x, &y) })
		cells = h.order
	}
	for i := range cells {
		b = append(appendCellHead(b, &cells[i]), cells[i].Data...)
	}
	clear(h.order) // its slices would keep a page from being freed
	h.order = h.order[:0]
	return b
}

// appendCellHead appends what a cell is in the canonical form, but for its value.
func appendCellHead(b []byte, c *plainbuffer.Cell) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(c.Name))|1<<31)
	b = append(b, c.Name...)
	flags := byte(c.Op) << 4
	if c.HasValue {
		flags |= 1
	}
	if c.HasTimestamp {
		flags |= 2
	}
	b = append(b, byte(c.Type), flags)
	b = binary.LittleEndian.AppendUint64(b, uint64(c.Timestamp))
	return binary.LittleEndian.AppendUint32(b, uint32(len(c.Data)))
}

// Canonical says whether cells stand by name and, within a name, from the newest version
// to the oldest, as Tablestore sends them.
func Canonical(cells []plainbuffer.Cell) bool {
	for i := 1; i < len(cells); i++ {
		if CompareCells(&cells[i-1], &cells[i]) > 0 {
			return false
		}
	}
	return true
}

// CompareCells orders the cells of a row: by name, then the newest first.
func CompareCells(x, y *plainbuffer.Cell) int {
	if c := bytes.Compare(x.Name, y.Name); c != 0 {
		return c
	}
	switch {
	case x.Timestamp > y.Timestamp:
		return -1
	case x.Timestamp < y.Timestamp:
		return 1
	}
	return 0
}
