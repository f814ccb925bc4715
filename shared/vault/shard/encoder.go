package shard

import (
	"encoding/binary"
	"errors"
	"fmt"
	mathbits "math/bits"

	"github.com/klauspost/compress/zstd"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
)

// Options are what encoders of one shard have in common.
type Options struct {
	Schema table.Schema
	Seed   uint64
	// Unproved leaves out reading blocks back. It is for measuring what that costs.
	Unproved bool
}

// keptMemory is how much of its memory an encoder keeps for the next block; an ordinary
// block needs less, one with a long row gives its own back.
const keptMemory = 6 << 20

// An Encoder makes blocks of rows. Each block has been read back when Flush returns it: a
// reader gives out the rows that were added, byte for byte. An Encoder keeps its memory,
// some megabytes, from block to block, and serves one goroutine at a time.
type Encoder struct {
	schema table.Schema
	hasher *table.Hasher
	zstd   *zstd.Encoder

	lane    int
	flags   int64
	rows    int
	raw     int
	digest  table.Digest
	first   table.Key
	last    []plainbuffer.Cell // the key of the last row; slices of the caller's block, or of lastBuf
	lastBuf []byte
	wide    *wideRow // the row that is added in pieces
	proof   *proof   // nil if blocks are not read back

	checksums []byte
	keys      []keyColumn
	order     array
	plain     bool // all rows so far are in group 0
	groups    []*group
	used      int // groups in use; those behind are kept for their memory
	columns   int // of all groups
	spare     []*column
	lists     map[uint64]int // where rows with a list of columns stand
	recent    *group
	strangers int // rows since the last that found or made a group
	mixed     mixed
	loose     array  // raw rows
	form      []byte // canonical form of the row at hand

	record []byte
	block  Block
}

// A Block is a block of rows, compressed. It is valid until its encoder's next Flush.
type Block struct {
	Lane   int
	Rows   int // that end in the block
	Digest table.Digest
	First  table.Key
	Last   table.Key
	flags  int64
	data   []byte
}

// account is what a ledger takes of the block.
func (b *Block) account() account {
	return account{b.Lane, b.Rows, b.First, b.Last, b.flags&flagContinues != 0, b.flags&flagUnfinished != 0, b.Digest}
}

// keyColumn is one column of the keys.
type keyColumn struct {
	name     string
	typ      plainbuffer.Type
	integers array
	last     int64
	shared   array
	apart    bool // no value so far shares anything, and shared is left out
	values   array
	before   []byte // the value before; a slice of the rows
	n        int    // values so far
}

// NewEncoder returns an encoder.
func NewEncoder(o Options) *Encoder {
	e := &Encoder{
		schema: o.Schema, hasher: table.NewHasher(o.Seed), zstd: newCompressor(zstd.SpeedFastest), wide: newWideRow(o.Seed),
		keys: make([]keyColumn, len(o.Schema)), lists: map[uint64]int{},
	}
	if !o.Unproved {
		e.proof = newProof(o)
	}
	for i, c := range o.Schema {
		e.keys[i].name, e.keys[i].typ = c.Name, c.Type.Wire()
	}
	e.clear()
	return e
}

// newCompressor returns what compresses records. The checksum in the frames makes a
// changed lane, flag or bound as evident as a changed row, to any reader. Frames of a
// single segment tell the size of their content however small it is, which some readers
// go by.
func newCompressor(level zstd.EncoderLevel) *zstd.Encoder {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(true), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true), zstd.WithSingleSegment(true))
	if err != nil {
		panic("shard: options of zstd: " + err.Error()) // they are constants
	}
	return z
}

// Reset begins a block of a lane and forgets what was added and not flushed.
func (e *Encoder) Reset(lane int) {
	e.lane, e.wide.open = lane, false
	e.last = e.last[:0]
	e.clear()
	if e.proof != nil {
		e.proof.reset()
		e.proof.clear()
	}
}

// clear makes the encoder empty.
func (e *Encoder) clear() {
	e.flags, e.rows, e.raw, e.digest, e.first = 0, 0, 0, table.Digest{}, nil
	e.checksums = e.checksums[:0]
	kept := cap(e.record) + cap(e.block.data) + cap(e.loose.items) + cap(e.form)
	for i := range e.keys {
		k := &e.keys[i]
		k.integers.reset()
		k.shared.reset()
		k.values.reset()
		k.last, k.before, k.apart, k.n = 0, nil, true, 0
	}
	for _, g := range e.groups[:e.used] {
		e.spare = append(e.spare, g.columns...)
		clear(g.columns)
		g.columns = g.columns[:0]
	}
	for _, c := range e.spare {
		kept += c.memory()
		c.name = nil // it would keep a page from being freed
	}
	for _, a := range e.mixed.arrays() {
		kept += cap(a.items)
	}
	e.order.reset()
	e.loose.reset()
	e.mixed.reset()
	e.plain, e.used, e.columns, e.recent, e.strangers = true, 0, 0, nil, 0
	clear(e.lists)
	if kept > keptMemory {
		clear(e.spare)
		e.spare, e.groups, e.mixed = e.spare[:0], nil, mixed{}
		e.loose, e.form, e.record = array{}, nil, nil
	}
}

// RawBytes is the size of the rows that were added since the last flush.
func (e *Encoder) RawBytes() int { return e.raw }

// ErrRowTooLong is a row, or a piece of one, of more than MaxRow bytes.
var ErrRowTooLong = errors.New("the row is too long for one piece")

// Add adds a whole row, whose bytes must stay as they are until the next Flush. Rows come
// in ascending order of their keys. full says that the block should be flushed.
func (e *Encoder) Add(row *plainbuffer.Row) (full bool, err error) {
	if e.wide.open || e.flags != 0 {
		return false, errors.New("shard: a whole row among the pieces of another")
	}
	if err := e.admit(row, false); err != nil {
		return false, err
	}
	e.digest.Add(e.sum(row, e.put(row)))
	return e.raw >= BlockBytes, nil
}

// AddPiece adds one piece of a row: its key and the next of its cells in canonical order.
// Only the last may have no cell. A piece is a block of its own: flush before and after.
// A row that was put together whole, in other bytes than Tablestore's, is a first piece
// that is the last.
func (e *Encoder) AddPiece(row *plainbuffer.Row, first, last bool) (full bool, err error) {
	if e.rows > 0 || first && last && e.wide.open {
		return false, errors.New("shard: a piece of a row out of place")
	}
	if err := e.admit(row, !first); err != nil {
		return false, err
	}
	e.flags = flagCanonical
	if first && last {
		e.digest.Add(e.sum(row, e.put(row)))
		return true, nil
	}
	sum, err := e.wide.add(row, first, last)
	if err != nil {
		return false, fmt.Errorf("shard: %w", err)
	}
	e.digest.Add(sum)
	if !first {
		e.flags |= flagContinues
	}
	if !last {
		e.flags |= flagUnfinished
	}
	e.put(row) // it goes by the flags
	return true, nil
}

// admit checks a row and takes its key.
func (e *Encoder) admit(row *plainbuffer.Row, same bool) error {
	if len(row.Raw) > MaxRow {
		return fmt.Errorf("%w: %d bytes, want at most %d", ErrRowTooLong, len(row.Raw), MaxRow)
	}
	if e.raw >= BlockBytes {
		return errors.New("shard: a row for a block that is full")
	}
	if len(row.Key) != len(e.schema) {
		return fmt.Errorf("shard: a row with %d key columns, the table has %d", len(row.Key), len(e.schema))
	}
	if len(e.last) > 0 {
		c := plainbuffer.CompareKeys(e.last, row.Key)
		if c > 0 || c == 0 && !same || c < 0 && same {
			return fmt.Errorf("the rows are not in order: %v comes after %v", table.KeyOf(row.Key), table.KeyOf(e.last))
		}
	}
	e.last = append(e.last[:0], row.Key...)
	if e.rows == 0 {
		e.first = table.KeyOf(row.Key)
	}
	return nil
}

// put files the row where it belongs. It says whether e.form is the row's canonical form
// now.
func (e *Encoder) put(row *plainbuffer.Row) (formed bool) {
	if e.proof != nil {
		e.proof.sent = append(e.proof.sent, row.Raw)
	}
	place := inRaw
	if e.regular(row) {
		if place = e.place(row.Cells); place == inMixed && len(e.mixed.dictionary)+len(row.Cells) > maxMixed {
			place = inRaw
		}
	}
	if place != 0 && e.plain {
		e.order.repeat(0, e.rows)
		e.plain = false
	}
	if !e.plain {
		e.order.long(int64(place))
	}
	e.rows++
	e.raw += len(row.Raw)
	e.checksums = append(e.checksums, row.Checksum)
	if place == inRaw {
		e.loose.bytes(row.Raw)
		return false
	}
	e.form = e.form[:0]
	for i := range e.keys {
		c := &row.Key[i]
		e.keys[i].add(c)
		e.form = table.AppendFormKey(e.form, c.Type, c.Data)
	}
	if place == inMixed {
		e.mixed.add(row.Cells)
		return false
	}
	e.form, formed = e.groups[place].add(row.Cells, e.form, e.flags&(flagContinues|flagUnfinished) != 0)
	return formed
}

// sum is the digest of a whole row that was put.
func (e *Encoder) sum(row *plainbuffer.Row, formed bool) table.Digest {
	if formed {
		return e.hasher.Form(e.form)
	}
	return e.hasher.Row(row)
}

func (k *keyColumn) add(c *plainbuffer.Cell) {
	if k.typ == plainbuffer.Integer {
		v := c.Int()
		k.integers.long(v - k.last)
		k.last = v
		return
	}
	shared := commonPrefix(k.before, c.Data)
	if shared > 0 && k.apart {
		k.shared.repeat(0, k.n)
		k.apart = false
	}
	if !k.apart {
		k.shared.long(int64(shared))
	}
	k.values.bytes(c.Data[shared:])
	k.before = c.Data
	k.n++
}

// commonPrefix is how many bytes a and b begin with alike.
func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if d := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); d != 0 {
			return i + mathbits.TrailingZeros64(d)/8
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// regular says whether a row can be told in columns: a key of the schema, and cells with
// a value and a timestamp, as a range is answered.
func (e *Encoder) regular(row *plainbuffer.Row) bool {
	if row.Irregular || row.Delete || row.HasExtension {
		return false
	}
	for i := range row.Key {
		c, k := &row.Key[i], &e.keys[i]
		if c.Type != k.typ || string(c.Name) != k.name || !c.HasValue || c.HasTimestamp || c.Op != plainbuffer.NoOp || len(c.Data) > maxName {
			return false
		}
	}
	for i := range row.Cells {
		c := &row.Cells[i]
		if !c.HasValue || !c.HasTimestamp || c.Op != plainbuffer.NoOp || len(c.Name) > maxName || valueArray(c.Type) < 0 {
			return false
		}
	}
	return true
}

// Flush compresses what was added since the last flush and reads it back; it returns nil
// if that is nothing. The block is valid until the next Flush. The error matches
// ErrReadBack if the block is not what a reader takes for the rows that were added.
func (e *Encoder) Flush() (*Block, error) {
	if e.rows == 0 {
		return nil, nil
	}
	b := append(e.record[:0], kindRows<<1)
	b = appendLong(b, int64(e.lane))
	b = appendLong(b, e.flags)
	b = appendLong(b, int64(e.rows))
	b = append(b, 0) // blocks
	b = e.digest.Append(b)
	b = appendBytes(b, e.checksums)
	b = e.appendKeys(b)
	b = e.order.appendTo(b)
	b = e.appendGroups(b)
	b = e.mixed.appendTo(b)
	b = e.loose.appendTo(b)
	b = append(b, 0) // lanes
	e.record = b
	if len(b) > maxRecord {
		return nil, fmt.Errorf("shard: a block of %d bytes for %d bytes of rows", len(b), e.raw)
	}
	rows := e.rows
	if e.flags&flagUnfinished != 0 {
		rows = 0
	}
	data := e.block.data[:0]
	if cap(data) > keptMemory {
		data = nil
	}
	e.block = Block{
		Lane: e.lane, Rows: rows, Digest: e.digest, First: e.first, Last: table.KeyOf(e.last),
		flags: e.flags, data: e.zstd.EncodeAll(b, data),
	}
	// What a long row took is given back before it is read back, and its bytes may go
	// away after that.
	e.lastBuf = copyKey(e.last, e.lastBuf[:0])
	rows = e.rows
	e.clear()
	if e.proof != nil {
		if err := e.proof.read(&e.block); err != nil {
			return nil, fmt.Errorf("%d rows of lane %d from %v to %v: %w", rows, e.lane, e.block.First, e.block.Last, err)
		}
		e.proof.clear()
	}
	return &e.block, nil
}

// copyKey moves a key's values into buf.
func copyKey(key []plainbuffer.Cell, buf []byte) []byte {
	n := 0
	for i := range key {
		n += len(key[i].Data)
	}
	if cap(buf) < n {
		buf = make([]byte, 0, 2*n)
	}
	for i := range key {
		at := len(buf)
		buf = append(buf, key[i].Data...)
		key[i].Data = buf[at:len(buf):len(buf)]
		key[i].Name = nil
	}
	return buf
}

func (e *Encoder) appendKeys(b []byte) []byte {
	size := 0
	for i := range e.keys {
		k := &e.keys[i]
		size += k.integers.size() + k.shared.size() + k.values.size()
	}
	b = beginArray(b, len(e.keys), size)
	for i := range e.keys {
		k := &e.keys[i]
		b = k.integers.appendTo(b)
		b = k.shared.appendTo(b)
		b = k.values.appendTo(b)
	}
	return append(b, 0)
}

func (e *Encoder) appendGroups(b []byte) []byte {
	if e.used == 0 {
		return append(b, 0)
	}
	size := 0
	for _, g := range e.groups[:e.used] {
		size += g.size()
	}
	b = beginArray(b, e.used, size)
	for _, g := range e.groups[:e.used] {
		b = g.appendTo(b)
	}
	return append(b, 0)
}
