package shard

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/klauspost/compress/zstd"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
)

// Rows is what a block holds: rows of one lane as PlainBuffer, without a
// block's header, one after the other in Buf. Its memory is used again by the
// next block that is read into it.
type Rows struct {
	Lane int
	Buf  []byte
	// Ends are the positions in Buf after each row.
	Ends []int
	// Continues says that the rows are one piece of a row that began before,
	// Unfinished that they are one piece of a row that goes on after.
	Continues, Unfinished bool
	// Digest is of the rows that end in the block.
	Digest table.Digest
	// First and Last are the least and the greatest key.
	First, Last table.Key

	end *Summary // set for the end mark, which has no rows
}

// Len is the number of rows, or pieces.
func (r *Rows) Len() int { return len(r.Ends) }

// Row is the i-th row.
func (r *Rows) Row(i int) []byte {
	from := 0
	if i > 0 {
		from = r.Ends[i-1]
	}
	return r.Buf[from:r.Ends[i]:r.Ends[i]]
}

// A decoder turns records back into rows. It keeps its memory from record to
// record and serves one goroutine.
type decoder struct {
	schema table.Schema
	names  []plainbuffer.Name // of the key
	hasher *table.Hasher
	pieces map[int]*piecewise // rows in the making, by lane
	seed   uint64
	zstd   *zstd.Decoder

	record  []byte
	keys    []keyCursor
	groups  []groupCursor
	mixed   mixedCursor
	builder plainbuffer.Builder
	row     plainbuffer.Row
	last    []plainbuffer.Cell
	lastBuf []byte
	ints    []byte // the bytes of numbers, for the cells that are hashed
}

type piecewise struct {
	hasher *table.Hasher
	key    table.Key
	last   plainbuffer.Cell
}

type keyCursor struct {
	integers cursor
	values   cursor
	left     int // entries of values
	last     int64
	scratch  []byte
}

type groupCursor struct {
	rows    int
	times   cursor
	last    int64
	columns []columnCursor
}

type columnCursor struct {
	name     plainbuffer.Name
	named    bool // name is set
	typ      plainbuffer.Type
	single   bool
	together bool
	counts   cursor
	times    cursor
	values   cursor
	left     int
	last     int64
	scratch  []byte
}

type mixedCursor struct {
	names    []plainbuffer.Name
	last     []int64
	lastTime int64
	counts   cursor
	columns  cursor
	types    cursor
	times    cursor
	integers cursor
	doubles  cursor
	booleans cursor
	values   cursor
	left     int
	scratch  []byte
}

func newDecoder(s table.Schema, seed uint64) *decoder {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxRecord), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic("shard: options of zstd: " + err.Error()) // they are constants
	}
	d := &decoder{schema: s, hasher: table.NewHasher(seed), seed: seed, pieces: map[int]*piecewise{}, zstd: z, keys: make([]keyCursor, len(s))}
	for _, c := range s {
		d.names = append(d.names, plainbuffer.NewName([]byte(c.Name)))
	}
	return d
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

// decode reads one compressed record into rows. Records of a lane come in their
// order.
func (d *decoder) decode(data []byte, rows *Rows) error {
	record, err := d.zstd.DecodeAll(data, d.record[:0])
	if err != nil {
		return corrupt("a record that does not decompress: %v", err)
	}
	d.record = record
	rows.Buf, rows.Ends, rows.end = rows.Buf[:0], rows.Ends[:0], nil
	rows.First, rows.Last = nil, nil
	c := cursor{b: record}
	kind := c.int(kindRows, kindEnd)
	lane := c.int(0, math.MaxInt32)
	flags := int64(c.int(0, knownFlags))
	n := c.int(0, math.MaxInt64)
	blocks := c.int(0, math.MaxInt64)
	digest := c.take(16)
	checksums := c.bytes()
	if c.bad {
		return corrupt("a record cut short")
	}
	rows.Digest = table.DigestOf([16]byte(digest))
	if kind == kindEnd {
		if lane != 0 || flags != 0 || len(checksums) != 0 {
			return corrupt("an end mark with rows")
		}
		return d.end(&c, rows, int64(n), int64(blocks))
	}
	rows.Lane = lane
	rows.Continues, rows.Unfinished = flags&flagContinues != 0, flags&flagUnfinished != 0
	if blocks != 0 || n == 0 || n != len(checksums) || n > 1 && (rows.Continues || rows.Unfinished) {
		return corrupt("a record of %d rows with %d checksums, flags %d", n, len(checksums), flags)
	}
	return d.rows(&c, rows, checksums)
}

func (d *decoder) end(c *cursor, rows *Rows, n, blocks int64) error {
	for range 13 {
		if c.long() != 0 {
			return corrupt("an end mark with rows")
		}
	}
	s := &Summary{Rows: n, Blocks: blocks, Digest: rows.Digest}
	count, items := c.array()
	var sum int64
	for range count {
		var l Lane
		var err error
		if l.From, err = d.schema.ParseKey(items.bytes()); err != nil {
			return corrupt("the end mark's lanes: %v", err)
		}
		if l.Next, err = d.schema.ParseKey(items.bytes()); err != nil {
			return corrupt("the end mark's lanes: %v", err)
		}
		l.Rows = int64(items.int(0, math.MaxInt64))
		sum += l.Rows
		s.Lanes = append(s.Lanes, l)
	}
	if !items.done() || !c.done() || sum != n {
		return corrupt("an end mark whose lanes do not add up")
	}
	rows.end = s
	return nil
}

// rows reads the arrays, then puts the rows together in their order.
func (d *decoder) rows(c *cursor, rows *Rows, checksums []byte) error {
	n := len(checksums)
	count, items := c.array()
	if count != len(d.keys) {
		return corrupt("a key of %d columns, the table has %d", count, len(d.keys))
	}
	for i := range d.keys {
		k := &d.keys[i]
		_, k.integers = items.array()
		k.left, k.values = items.array()
		k.last = 0
	}
	if !items.done() {
		return corrupt("the keys")
	}
	ordered, order := c.array()
	if ordered != 0 && ordered != n {
		return corrupt("an order of %d rows, there are %d", ordered, n)
	}
	if err := d.readGroups(c); err != nil {
		return err
	}
	if err := d.readMixed(c); err != nil {
		return err
	}
	loose, raw := c.array()
	if c.long() != 0 || !c.done() {
		return corrupt("bytes after the rows")
	}
	var scratch []byte
	var sum table.Digest
	d.builder.Buf = rows.Buf
	d.last = d.last[:0]
	for i := range n {
		place := 0
		if ordered > 0 {
			place = order.int(inRaw, int64(len(d.groups)))
		}
		start := len(d.builder.Buf)
		d.row.Key, d.row.Cells = d.row.Key[:0], d.row.Cells[:0]
		d.ints = d.ints[:0]
		var checksum byte
		switch {
		case place == inRaw:
			b := raw.value(&loose, &scratch)
			size, err := plainbuffer.Scan(b, &d.row)
			if err != nil || size != len(b) {
				return corrupt("row %d: %v", i, err)
			}
			d.builder.Buf = append(d.builder.Buf, b...)
			checksum = d.row.Checksum
		default:
			d.builder.Begin()
			if err := d.key(); err != nil {
				return err
			}
			ok := false
			if place == inMixed {
				ok = d.mixed.next(d)
			} else if place < len(d.groups) {
				ok = d.groups[place].next(d)
			}
			if !ok {
				return corrupt("row %d can't be put together", i)
			}
			checksum = d.builder.End(false)
		}
		if checksum != checksums[i] {
			return corrupt("row %d has the checksum 0x%02x, Tablestore sent 0x%02x", i, checksum, checksums[i])
		}
		if len(d.builder.Buf) > maxRaw {
			return corrupt("a block of more than %d bytes", maxRaw)
		}
		d.row.Raw = d.builder.Buf[start:]
		if i > 0 && plainbuffer.CompareKeys(d.last, d.row.Key) >= 0 {
			return corrupt("row %d is not in order", i)
		}
		if i == 0 {
			rows.First = table.KeyOf(d.row.Key)
		}
		if i == n-1 {
			rows.Last = table.KeyOf(d.row.Key)
		}
		d.keep()
		digest, err := d.digest(rows)
		if err != nil {
			return err
		}
		sum.Add(digest)
		rows.Ends = append(rows.Ends, len(d.builder.Buf))
	}
	rows.Buf = d.builder.Buf
	if sum != rows.Digest {
		return corrupt("the rows have the digest %v, the record says %v", sum, rows.Digest)
	}
	if !d.spent(&order, &raw, loose) {
		return corrupt("arrays with more items than the rows have")
	}
	return nil
}

// keep copies the key of the row at hand, to compare the next with.
func (d *decoder) keep() {
	d.last = append(d.last[:0], d.row.Key...)
	d.lastBuf = d.lastBuf[:0]
	for i := range d.last {
		at := len(d.lastBuf)
		d.lastBuf = append(d.lastBuf, d.last[i].Data...)
		d.last[i].Data = d.lastBuf[at:len(d.lastBuf):len(d.lastBuf)]
	}
}

// digest is the digest of the row at hand, if it ends here.
func (d *decoder) digest(rows *Rows) (table.Digest, error) {
	p := d.pieces[rows.Lane]
	switch {
	case rows.Continues != (p != nil):
		return table.Digest{}, corrupt("a piece of a row out of place")
	case p == nil && !rows.Unfinished:
		return d.hasher.Row(&d.row), nil
	case p == nil:
		p = &piecewise{hasher: table.NewHasher(d.seed), key: table.KeyOf(d.row.Key)}
		d.pieces[rows.Lane] = p
		p.hasher.Begin(d.row.Key)
	case p.key.CompareCells(d.row.Key) != 0:
		return table.Digest{}, corrupt("a row %v whose pieces have another key, %v", p.key, table.KeyOf(d.row.Key))
	}
	if !table.Canonical(d.row.Cells) || len(d.row.Cells) == 0 || p.last.Name != nil && table.CompareCells(&p.last, &d.row.Cells[0]) >= 0 {
		return table.Digest{}, corrupt("a row %v whose cells are not in order", p.key)
	}
	end := d.row.Cells[len(d.row.Cells)-1]
	p.last = plainbuffer.Cell{Name: append([]byte{}, end.Name...), Timestamp: end.Timestamp}
	p.hasher.Cells(d.row.Cells)
	if rows.Unfinished {
		return table.Digest{}, nil
	}
	delete(d.pieces, rows.Lane)
	return p.hasher.End(), nil
}

func (d *decoder) spent(order, raw *cursor, loose int) bool {
	ok := order.done() && raw.done() && loose == 0
	for i := range d.keys {
		ok = ok && d.keys[i].integers.done() && d.keys[i].values.done()
	}
	for i := range d.groups {
		g := &d.groups[i]
		ok = ok && g.times.done() && g.rows == 0
		for j := range g.columns {
			c := &g.columns[j]
			ok = ok && c.counts.done() && c.times.done() && c.values.done()
		}
	}
	m := &d.mixed
	for _, c := range []*cursor{&m.counts, &m.columns, &m.types, &m.times, &m.integers, &m.doubles, &m.booleans, &m.values} {
		ok = ok && c.done()
	}
	return ok
}

// key builds the key of the next row.
func (d *decoder) key() error {
	for i := range d.keys {
		k := &d.keys[i]
		t := d.schema[i].Type.Wire()
		cell := plainbuffer.Cell{Type: t, HasValue: true}
		if t == plainbuffer.Integer {
			k.last += k.integers.long()
			d.builder.KeyInteger(&d.names[i], k.last)
			cell.Data = d.number(uint64(k.last))
		} else {
			cell.Data = k.values.value(&k.left, &k.scratch)
			d.builder.KeyBytes(&d.names[i], t, cell.Data)
		}
		if k.integers.bad || k.values.bad {
			return corrupt("a key cut short")
		}
		d.row.Key = append(d.row.Key, cell)
	}
	return nil
}

// number keeps the bytes of a number while the row at hand is.
func (d *decoder) number(v uint64) []byte {
	at := len(d.ints)
	d.ints = binary.LittleEndian.AppendUint64(d.ints, v)
	return d.ints[at:len(d.ints):len(d.ints)]
}

func (d *decoder) readGroups(c *cursor) error {
	count, items := c.array()
	if count > 1<<16 {
		return corrupt("%d groups", count)
	}
	for len(d.groups) < count {
		d.groups = append(d.groups, groupCursor{})
	}
	d.groups = d.groups[:count]
	for i := range d.groups {
		g := &d.groups[i]
		g.rows = items.int(1, maxRaw)
		g.last = 0
		_, g.times = items.array()
		n, columns := items.array()
		if n > maxRaw/8 {
			return corrupt("a group of %d columns", n)
		}
		for len(g.columns) < n {
			g.columns = append(g.columns, columnCursor{})
		}
		g.columns = g.columns[:n]
		for j := range g.columns {
			if err := g.columns[j].read(&columns); err != nil {
				return err
			}
		}
		if !columns.done() {
			return corrupt("the columns of group %d", i)
		}
	}
	if !items.done() {
		return corrupt("the groups")
	}
	return nil
}

func (col *columnCursor) read(c *cursor) error {
	name := c.bytes()
	if !col.named || string(name) != string(col.name.Bytes()) {
		col.name, col.named = plainbuffer.NewName(name), true
	}
	col.typ = plainbuffer.Type(c.int(0, math.MaxUint8))
	var n int
	n, col.counts = c.array()
	col.single = n == 0
	n, col.times = c.array()
	col.together = n == 0
	col.values, col.left, col.last = cursor{}, 0, 0
	for i := range 4 {
		n, items := c.array()
		if n == 0 {
			continue
		}
		if i != slot(col.typ) {
			return corrupt("column %.64q of type %s has values of another", name, col.typ)
		}
		col.values, col.left = items, n
	}
	if c.bad || slot(col.typ) < 0 {
		return corrupt("column %.64q of type %s", name, col.typ)
	}
	return nil
}

// slot says which of the four arrays of values a type has; -1 for none.
func slot(t plainbuffer.Type) int {
	switch t {
	case plainbuffer.Integer:
		return 0
	case plainbuffer.Double:
		return 1
	case plainbuffer.Boolean:
		return 2
	case plainbuffer.String, plainbuffer.Blob:
		return 3
	}
	return -1
}

// next builds the cells of the group's next row.
func (g *groupCursor) next(d *decoder) bool {
	if g.rows == 0 {
		return false
	}
	g.rows--
	g.last += g.times.long()
	if len(g.columns) > 0 {
		d.builder.Attributes()
	}
	any := false
	for i := range g.columns {
		col := &g.columns[i]
		n := 1
		if !col.single {
			n = col.counts.int(0, maxRaw)
		}
		for range n {
			ts := g.last
			if !col.together {
				ts += col.times.long()
			}
			cell := plainbuffer.Cell{Name: col.name.Bytes(), Type: col.typ, HasValue: true, HasTimestamp: true, Timestamp: ts}
			switch col.typ {
			case plainbuffer.Integer:
				col.last += col.values.long()
				d.builder.Integer(&col.name, col.last, ts)
				cell.Data = d.number(uint64(col.last))
			case plainbuffer.Double:
				v := col.values.double()
				d.builder.Double(&col.name, math.Float64frombits(v), ts)
				cell.Data = d.number(v)
			case plainbuffer.Boolean:
				v := col.values.boolean()
				d.builder.Boolean(&col.name, v, ts)
				cell.Data = truth(v)
			default:
				cell.Data = col.values.value(&col.left, &col.scratch)
				d.builder.Bytes(&col.name, col.typ, cell.Data, ts)
				if n > 1 && len(cell.Data) >= chunk {
					cell.Data = append([]byte{}, cell.Data...) // the next version takes the scratch
				}
			}
			if col.values.bad || col.times.bad || len(d.builder.Buf) > maxRaw {
				return false
			}
			d.row.Cells = append(d.row.Cells, cell)
			any = true
		}
		if col.counts.bad {
			return false
		}
	}
	// A tag of attributes with none after it is not how rows are written.
	return !g.times.bad && (any || len(g.columns) == 0)
}

var truths = [2]byte{0, 1}

func truth(v bool) []byte {
	if v {
		return truths[1:2:2]
	}
	return truths[0:1:1]
}

func (d *decoder) readMixed(c *cursor) error {
	m := &d.mixed
	n, names := c.array()
	m.names, m.last, m.lastTime = m.names[:0], m.last[:0], 0
	var scratch []byte
	for n > 0 {
		name := names.value(&n, &scratch)
		if names.bad {
			break
		}
		m.names = append(m.names, plainbuffer.NewName(name))
		m.last = append(m.last, 0)
	}
	_, m.counts = c.array()
	_, m.columns = c.array()
	_, m.types = c.array()
	_, m.times = c.array()
	_, m.integers = c.array()
	_, m.doubles = c.array()
	_, m.booleans = c.array()
	m.left, m.values = c.array()
	if c.bad || !names.done() {
		return corrupt("the mixed rows")
	}
	return nil
}

// next builds the cells of the next mixed row.
func (m *mixedCursor) next(d *decoder) bool {
	n := m.counts.int(0, maxRaw)
	if n > 0 {
		d.builder.Attributes()
	}
	for range n {
		place := m.columns.int(0, math.MaxInt32)
		if m.columns.bad || place >= len(m.names) {
			return false
		}
		name := &m.names[place]
		m.lastTime += m.times.long()
		cell := plainbuffer.Cell{
			Name: name.Bytes(), Type: plainbuffer.Type(m.types.int(0, math.MaxUint8)),
			HasValue: true, HasTimestamp: true, Timestamp: m.lastTime,
		}
		switch cell.Type {
		case plainbuffer.Integer:
			m.last[place] += m.integers.long()
			d.builder.Integer(name, m.last[place], m.lastTime)
			cell.Data = d.number(uint64(m.last[place]))
		case plainbuffer.Double:
			v := m.doubles.double()
			d.builder.Double(name, math.Float64frombits(v), m.lastTime)
			cell.Data = d.number(v)
		case plainbuffer.Boolean:
			v := m.booleans.boolean()
			d.builder.Boolean(name, v, m.lastTime)
			cell.Data = truth(v)
		case plainbuffer.String, plainbuffer.Blob:
			cell.Data = m.values.value(&m.left, &m.scratch)
			d.builder.Bytes(name, cell.Type, cell.Data, m.lastTime)
			if len(cell.Data) >= chunk {
				cell.Data = append([]byte{}, cell.Data...) // the next long value takes the scratch
			}
		default:
			return false
		}
		if m.integers.bad || m.doubles.bad || m.booleans.bad || m.values.bad || m.times.bad || m.types.bad || len(d.builder.Buf) > maxRaw {
			return false
		}
		d.row.Cells = append(d.row.Cells, cell)
	}
	return !m.counts.bad
}
