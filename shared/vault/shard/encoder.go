package shard

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"

	"github.com/klauspost/compress/zstd"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
)

// Options are what encoders of one shard have in common.
type Options struct {
	Schema table.Schema
	Seed   uint64
	// Level is the compression; zero means zstd.SpeedFastest.
	Level zstd.EncoderLevel
}

// maxGroups is how many lists of columns a block tells apart; rows with other
// lists go to the mixed arrays.
const maxGroups = 24

// An Encoder makes blocks of rows. It keeps its memory, some megabytes, from
// block to block, and serves one goroutine at a time.
type Encoder struct {
	schema table.Schema
	hasher *table.Hasher
	zstd   *zstd.Encoder
	seed   maphash.Seed

	lane   int
	flags  int64
	rows   int
	raw    int
	digest table.Digest
	first  table.Key
	last   []plainbuffer.Cell // the key of the last row; slices of the caller's block
	inRow  bool

	checksums []byte
	keys      []keyColumn
	order     array
	plain     bool // all rows so far are in group 0
	groups    []*group
	used      int // groups in use; those behind are kept for their memory
	byHash    map[uint64]int
	recent    *group
	mixed     mixed
	loose     array // raw rows

	record []byte
	block  Block
}

// A Block is a block of rows, compressed. It is valid until its encoder's next
// Flush.
type Block struct {
	Lane   int
	Rows   int // that end in the block
	Raw    int // size of the rows as PlainBuffer
	Digest table.Digest
	First  table.Key
	Last   table.Key
	flags  int64
	data   []byte
}

type keyColumn struct {
	integers array
	values   array
	last     int64
}

// group is the rows with one list of columns.
type group struct {
	rows     int
	times    array
	lastTime int64
	columns  []column
	used     int // columns in use
}

// column is one column of a group, or the values of one type of mixed rows.
type column struct {
	name     []byte
	typ      plainbuffer.Type
	counts   array
	single   bool // every row so far has one cell
	times    array
	together bool // every cell so far has the time of its row's first
	values   array
	last     int64
	n        int // cells of the row at hand
}

// mixed is the rows that share no list of columns.
type mixed struct {
	rows     int
	names    array
	places   map[string]int
	counts   array
	columns  array
	types    array
	times    array
	lastTime int64
	integers array
	last     []int64 // integer before, by place
	doubles  array
	booleans array
	values   array
}

// NewEncoder returns an encoder.
func NewEncoder(o Options) *Encoder {
	level := o.Level
	if level == 0 {
		level = zstd.SpeedFastest
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic("shard: options of zstd: " + err.Error()) // they are constants
	}
	e := &Encoder{
		schema: o.Schema, hasher: table.NewHasher(o.Seed), zstd: z, seed: maphash.MakeSeed(),
		keys: make([]keyColumn, len(o.Schema)), byHash: map[uint64]int{},
	}
	e.mixed.places = map[string]int{}
	e.clear()
	return e
}

// Reset begins a block of a lane and forgets what was added and not flushed.
func (e *Encoder) Reset(lane int) {
	e.lane, e.inRow = lane, false
	e.last = e.last[:0]
	e.clear()
}

func (e *Encoder) clear() {
	e.flags, e.rows, e.raw, e.digest, e.first = 0, 0, 0, table.Digest{}, nil
	e.checksums = e.checksums[:0]
	for i := range e.keys {
		k := &e.keys[i]
		k.integers.reset()
		k.values.reset()
		k.last = 0
	}
	e.order.reset()
	e.plain, e.used, e.recent = true, 0, nil
	clear(e.byHash)
	m := &e.mixed
	m.rows, m.lastTime = 0, 0
	clear(m.places)
	m.last = m.last[:0]
	for _, a := range []*array{&m.names, &m.counts, &m.columns, &m.types, &m.times, &m.integers, &m.doubles, &m.booleans, &m.values, &e.loose} {
		a.reset()
	}
}

// RawBytes is the size of the rows that were added since the last flush.
func (e *Encoder) RawBytes() int { return e.raw }

// ErrRowTooLong is a row, or a piece of one, of more than MaxRow bytes.
var ErrRowTooLong = errors.New("the row is too long for one piece")

// Add adds a whole row, whose bytes must stay as they are until the next Flush.
// Rows come in ascending order of their keys. full says that the block should
// be flushed.
func (e *Encoder) Add(row *plainbuffer.Row) (full bool, err error) {
	if e.inRow || e.flags != 0 {
		return false, errors.New("shard: a whole row among the pieces of another")
	}
	if err := e.admit(row, false); err != nil {
		return false, err
	}
	e.digest.Add(e.hasher.Row(row))
	e.put(row)
	return e.raw >= BlockBytes, nil
}

// AddPiece adds one piece of a row: its key and the next of its cells in
// canonical order. A piece is a block of its own: flush before and after.
func (e *Encoder) AddPiece(row *plainbuffer.Row, first, last bool) (full bool, err error) {
	if e.rows > 0 || first == e.inRow {
		return false, errors.New("shard: a piece of a row out of place")
	}
	if err := e.admit(row, !first); err != nil {
		return false, err
	}
	e.flags = flagCanonical
	if first {
		e.hasher.Begin(row.Key)
	} else {
		e.flags |= flagContinues
	}
	e.hasher.Cells(row.Cells)
	if last {
		e.digest.Add(e.hasher.End())
	} else {
		e.flags |= flagUnfinished
	}
	e.inRow = !last
	e.put(row)
	return true, nil
}

// admit checks a row and takes its key.
func (e *Encoder) admit(row *plainbuffer.Row, same bool) error {
	if len(row.Raw) > MaxRow {
		return fmt.Errorf("%w: %d bytes, want at most %d", ErrRowTooLong, len(row.Raw), MaxRow)
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

// put files the row where it belongs.
func (e *Encoder) put(row *plainbuffer.Row) {
	place := e.place(row)
	if place != 0 && e.plain {
		for range e.rows {
			e.order.long(0)
		}
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
		return
	}
	for i := range row.Key {
		k, c := &e.keys[i], &row.Key[i]
		if c.Type == plainbuffer.Integer {
			v := c.Int()
			k.integers.long(v - k.last)
			k.last = v
		} else {
			k.values.bytes(c.Data)
		}
	}
	if place == inMixed {
		e.mixed.add(row)
	} else {
		e.groups[place].add(row)
	}
}

// place says where a row is to stand, and makes the group if it needs one.
func (e *Encoder) place(row *plainbuffer.Row) int {
	if !e.regular(row) {
		return inRaw
	}
	if e.recent != nil && e.recent.match(row.Cells) {
		return e.indexOf(e.recent)
	}
	sum := e.signature(row.Cells)
	if i, ok := e.byHash[sum]; ok {
		if g := e.groups[i]; g.match(row.Cells) {
			e.recent = g
			return i
		}
		return inMixed // another list with the same hash
	}
	if e.used == maxGroups {
		return inMixed
	}
	if e.used == len(e.groups) {
		e.groups = append(e.groups, new(group))
	}
	g := e.groups[e.used]
	g.begin(row.Cells)
	g.match(row.Cells)
	e.byHash[sum] = e.used
	e.recent = g
	e.used++
	return e.used - 1
}

func (e *Encoder) indexOf(g *group) int {
	for i, h := range e.groups[:e.used] {
		if h == g {
			return i
		}
	}
	panic("shard: a group that is not in use")
}

// regular says whether a row can be told in columns: a key of the schema, and
// cells with a value and a timestamp, as a range is answered.
func (e *Encoder) regular(row *plainbuffer.Row) bool {
	if row.Irregular || row.Delete || row.HasExtension {
		return false
	}
	for i := range row.Key {
		c := &row.Key[i]
		if c.Type != e.schema[i].Type.Wire() || string(c.Name) != e.schema[i].Name || !c.HasValue || c.HasTimestamp || c.Op != plainbuffer.NoOp {
			return false
		}
	}
	for i := range row.Cells {
		c := &row.Cells[i]
		if !c.HasValue || !c.HasTimestamp || c.Op != plainbuffer.NoOp {
			return false
		}
		switch c.Type {
		case plainbuffer.Integer, plainbuffer.Double, plainbuffer.Boolean, plainbuffer.String, plainbuffer.Blob:
		default:
			return false
		}
	}
	return true
}

func sameColumn(c *plainbuffer.Cell, name []byte, t plainbuffer.Type) bool {
	return c.Type == t && bytes.Equal(c.Name, name)
}

// signature hashes a row's list of columns, versions of one counted once.
func (e *Encoder) signature(cells []plainbuffer.Cell) uint64 {
	var h maphash.Hash
	h.SetSeed(e.seed)
	for i := range cells {
		c := &cells[i]
		if i > 0 && sameColumn(c, cells[i-1].Name, cells[i-1].Type) {
			continue
		}
		h.WriteByte(byte(c.Type))
		h.Write(c.Name)
		h.WriteByte(0)
	}
	return h.Sum64()
}

func (g *group) begin(cells []plainbuffer.Cell) {
	g.rows, g.lastTime, g.used = 0, 0, 0
	g.times.reset()
	for i := range cells {
		c := &cells[i]
		if i > 0 && sameColumn(c, cells[i-1].Name, cells[i-1].Type) {
			continue
		}
		if g.used == len(g.columns) {
			g.columns = append(g.columns, column{})
		}
		col := &g.columns[g.used]
		g.used++
		col.name = append(col.name[:0], c.Name...)
		col.typ, col.single, col.together, col.last = c.Type, true, true, 0
		col.counts.reset()
		col.times.reset()
		col.values.reset()
	}
}

// match says whether a row has the group's list of columns, and counts the
// cells of each.
func (g *group) match(cells []plainbuffer.Cell) bool {
	at := 0
	for i := range g.used {
		col := &g.columns[i]
		col.n = 0
		for at < len(cells) && sameColumn(&cells[at], col.name, col.typ) {
			at++
			col.n++
		}
		if col.n == 0 {
			return false
		}
	}
	return at == len(cells)
}

// add adds a row that match has just counted.
func (g *group) add(row *plainbuffer.Row) {
	var base int64
	if len(row.Cells) > 0 {
		base = row.Cells[0].Timestamp
	}
	g.times.long(base - g.lastTime)
	g.lastTime = base
	at := 0
	for i := range g.used {
		col := &g.columns[i]
		if col.n != 1 && col.single {
			for range g.rows {
				col.counts.long(1)
			}
			col.single = false
		}
		if !col.single {
			col.counts.long(int64(col.n))
		}
		for range col.n {
			c := &row.Cells[at]
			at++
			delta := c.Timestamp - base
			col.times.long(delta)
			col.together = col.together && delta == 0
			switch col.typ {
			case plainbuffer.Integer:
				v := c.Int()
				col.values.long(v - col.last)
				col.last = v
			case plainbuffer.Double:
				col.values.double(bits(c))
			case plainbuffer.Boolean:
				col.values.boolean(c.Data[0])
			default:
				col.values.bytes(c.Data)
			}
		}
	}
	g.rows++
}

func (m *mixed) add(row *plainbuffer.Row) {
	m.rows++
	m.counts.long(int64(len(row.Cells)))
	for i := range row.Cells {
		c := &row.Cells[i]
		place, ok := m.places[string(c.Name)]
		if !ok {
			place = len(m.places)
			m.places[string(c.Name)] = place
			m.names.bytes(c.Name)
			m.last = append(m.last, 0)
		}
		m.columns.long(int64(place))
		m.types.long(int64(c.Type))
		m.times.long(c.Timestamp - m.lastTime)
		m.lastTime = c.Timestamp
		switch c.Type {
		case plainbuffer.Integer:
			v := c.Int()
			m.integers.long(v - m.last[place])
			m.last[place] = v
		case plainbuffer.Double:
			m.doubles.double(bits(c))
		case plainbuffer.Boolean:
			m.booleans.boolean(c.Data[0])
		default:
			m.values.bytes(c.Data)
		}
	}
}

// Flush compresses what was added since the last flush; it returns nil if that
// is nothing. The block is valid until the next Flush.
func (e *Encoder) Flush() (*Block, error) {
	if e.rows == 0 {
		return nil, nil
	}
	b := appendLong(e.record[:0], kindRows)
	b = appendLong(b, int64(e.lane))
	b = appendLong(b, e.flags)
	b = appendLong(b, int64(e.rows))
	b = appendLong(b, 0)
	b = e.digest.Append(b)
	b = appendBytes(b, e.checksums)
	b = e.appendKeys(b)
	b = e.order.appendTo(b)
	b = e.appendGroups(b)
	b = e.mixed.appendTo(b)
	b = e.loose.appendTo(b)
	b = appendLong(b, 0) // lanes
	e.record = b
	if len(b) > maxRecord {
		return nil, fmt.Errorf("shard: a block of %d bytes for %d bytes of rows", len(b), e.raw)
	}
	rows := e.rows
	if e.flags&flagUnfinished != 0 {
		rows = 0
	}
	e.block = Block{
		Lane: e.lane, Rows: rows, Raw: e.raw, Digest: e.digest, First: e.first, Last: table.KeyOf(e.last),
		flags: e.flags, data: e.zstd.EncodeAll(b, e.block.data[:0]),
	}
	e.clear()
	return &e.block, nil
}

// sized appends n items with the size of what add appends.
func sized(b []byte, n int, add func([]byte) []byte) []byte {
	if n == 0 {
		return appendLong(b, 0)
	}
	b = appendLong(b, -int64(n))
	// The size stands before the items, and its length depends on it: leave
	// room for the longest and move what follows down.
	const room = 5
	at := len(b)
	b = append(b, make([]byte, room)...)
	b = add(b)
	size := appendLong(nil, int64(len(b)-at-room))
	copy(b[at:], size)
	b = append(b[:at+len(size)], b[at+room:]...)
	return appendLong(b, 0)
}

func (e *Encoder) appendKeys(b []byte) []byte {
	return sized(b, len(e.keys), func(b []byte) []byte {
		for i := range e.keys {
			b = e.keys[i].integers.appendTo(b)
			b = e.keys[i].values.appendTo(b)
		}
		return b
	})
}

func (e *Encoder) appendGroups(b []byte) []byte {
	return sized(b, e.used, func(b []byte) []byte {
		for _, g := range e.groups[:e.used] {
			b = appendLong(b, int64(g.rows))
			b = g.times.appendTo(b)
			b = sized(b, g.used, func(b []byte) []byte {
				for i := range g.used {
					b = g.columns[i].appendTo(b)
				}
				return b
			})
		}
		return b
	})
}

func (c *column) appendTo(b []byte) []byte {
	b = appendBytes(b, c.name)
	b = appendLong(b, int64(c.typ))
	b = c.counts.appendTo(b)
	if c.together {
		b = appendLong(b, 0)
	} else {
		b = c.times.appendTo(b)
	}
	var none array
	for _, t := range []plainbuffer.Type{plainbuffer.Integer, plainbuffer.Double, plainbuffer.Boolean, plainbuffer.String} {
		values := &none
		if c.typ == t || t == plainbuffer.String && c.typ == plainbuffer.Blob {
			values = &c.values
		}
		b = values.appendTo(b)
	}
	return b
}

func (m *mixed) appendTo(b []byte) []byte {
	for _, a := range []*array{&m.names, &m.counts, &m.columns, &m.types, &m.times, &m.integers, &m.doubles, &m.booleans, &m.values} {
		b = a.appendTo(b)
	}
	return b
}
