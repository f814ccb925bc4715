package shard

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/klauspost/compress/zstd"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
)

// Rows is what a block holds: rows of one lane as PlainBuffer, without a block's header,
// one after the other in Buf. Its memory is used again by the next block that is read
// into it.
type Rows struct {
	Lane int
	Buf  []byte
	// Ends are the positions in Buf after each row.
	Ends []int
	// Continues says that the rows are one piece of a row that began before, Unfinished
	// that they are one piece of a row that goes on after.
	Continues, Unfinished bool
	// Canonical says that the rows were put together from several answers: they hold what
	// Tablestore does, in other bytes than it sent.
	Canonical bool
	// Digest is of the rows that end in the block.
	Digest table.Digest
	// First and Last are the least and the greatest key.
	First, Last table.Key

	end *Summary // set for the end mark, which has no rows
}

// Len is the number of rows, or pieces.
func (r *Rows) Len() int { return len(r.Ends) }

// account is what a ledger takes of the rows.
func (r *Rows) account() account {
	n := r.Len()
	if r.Unfinished {
		n = 0
	}
	return account{r.Lane, n, r.First, r.Last, r.Continues, r.Unfinished, r.Digest}
}

// Row is the i-th row.
func (r *Rows) Row(i int) []byte {
	from := 0
	if i > 0 {
		from = r.Ends[i-1]
	}
	return r.Buf[from:r.Ends[i]:r.Ends[i]]
}

// A decoder turns records back into rows. It keeps its memory from record to record and
// serves one goroutine.
type decoder struct {
	schema table.Schema
	seed   uint64
	hasher *table.Hasher
	pieces map[int]*wideRow // rows in the making, by lane
	zstd   *zstd.Decoder
	// sent, if it is not nil, are the rows that must come back; then none is kept.
	sent [][]byte

	record  []byte
	keys    []keyCursor
	order   cursor
	groups  []groupCursor
	mixed   mixedCursor
	loose   values
	builder plainbuffer.Builder
	form    []byte // canonical form of the row at hand; of a piece, nobody needs it
	piece   bool   // the row at hand is a piece

	// The row before, in the order of the record: its key as it stands in keys, or, after
	// a raw row, in rawKey.
	rawBefore bool
	rawKey    []plainbuffer.Cell
	rawBytes  []byte // of rawKey
	key       []plainbuffer.Cell
	numbers   [table.MaxKeyColumns][8]byte // of key
	row       plainbuffer.Row              // a row that was scanned
	scanner   plainbuffer.Scanner
}

type keyCursor struct {
	name     plainbuffer.Name
	typ      plainbuffer.Type
	integers cursor
	last     int64
	shared   cursor
	apart    bool
	values   values
	value    []byte
}

type groupCursor struct {
	rows      int
	times     cursor
	last      int64
	columns   []columnCursor
	ascending bool // by name
}

type columnCursor struct {
	name     plainbuffer.Name
	typ      plainbuffer.Type
	rank     int
	form     []byte
	single   bool
	together bool
	counts   cursor
	times    cursor
	values   values
	last     int64
}

type mixedCursor struct {
	dictionary []mixedName
	counts     cursor
	columns    cursor
	times      cursor
	lastTime   int64
	integers   cursor
	doubles    cursor
	booleans   cursor
	values     values
}

type mixedName struct {
	name plainbuffer.Name
	typ  plainbuffer.Type
	form []byte
	last int64
}

func newDecoder(s table.Schema, seed uint64) *decoder {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxRecord), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic("shard: options of zstd: " + err.Error()) // they are constants
	}
	d := &decoder{schema: s, seed: seed, hasher: table.NewHasher(seed), pieces: map[int]*wideRow{}, zstd: z, keys: make([]keyCursor, len(s))}
	for i, c := range s {
		d.keys[i].name, d.keys[i].typ = plainbuffer.NewName([]byte(c.Name)), c.Type.Wire()
	}
	return d
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

// decode reads one compressed record into rows. Records of a lane come in their order.
func (d *decoder) decode(data []byte, rows *Rows) error {
	record, err := d.zstd.DecodeAll(data, d.record[:0])
	if err != nil {
		return corrupt("a record that does not decompress: %v", err)
	}
	d.record = record
	return d.decodeRecord(record, rows)
}

func (d *decoder) decodeRecord(record []byte, rows *Rows) error {
	rows.Buf, rows.Ends, rows.end = rows.Buf[:0], rows.Ends[:0], nil
	rows.First, rows.Last = nil, nil
	c := cursor{b: record}
	kind := c.int(kindRows, kindEnd)
	lane := c.int(0, maxLanes-1)
	flags := c.int(0, knownFlags)
	n := c.int(0, math.MaxInt64)
	blocks := c.int(0, math.MaxInt64)
	digest := c.take(16)
	checksums := c.bytes()
	if c.bad {
		return corrupt("a record that is cut short, or is none")
	}
	rows.Lane, rows.Digest = lane, table.DigestOf([16]byte(digest))
	rows.Continues, rows.Unfinished, rows.Canonical = flags&flagContinues != 0, flags&flagUnfinished != 0, flags&flagCanonical != 0
	if kind == kindEnd {
		if lane != 0 || flags != 0 || len(checksums) != 0 {
			return corrupt("an end mark with rows")
		}
		return d.end(&c, rows, int64(n), int64(blocks))
	}
	if blocks != 0 || n == 0 || n != len(checksums) || n > 1 && flags != 0 {
		return corrupt("a record of %d rows with %d checksums and the flags %d", n, len(checksums), flags)
	}
	if (rows.Continues || rows.Unfinished) && !rows.Canonical {
		return corrupt("a piece of a row that is as Tablestore sent it")
	}
	if err := d.open(&c, n); err != nil {
		return err
	}
	return d.rows(rows, checksums)
}

// emptyArrays is how many arrays stand between an end mark's digest and its lanes, the
// checksums left out: keys, order, groups, the nine of mixed, raw.
const emptyArrays = 13

func (d *decoder) end(c *cursor, rows *Rows, n, blocks int64) error {
	for range emptyArrays {
		if c.long() != 0 {
			return corrupt("an end mark with rows")
		}
	}
	s := &Summary{Rows: n, Blocks: blocks, Digest: rows.Digest}
	count, items := c.array()
	if count > maxLanes {
		return corrupt("%d lanes, want at most %d", count, maxLanes)
	}
	left := n
	for i := range count {
		var l Lane
		var err error
		if l.From, err = d.schema.ParseKey(items.bytes()); err == nil {
			l.Next, err = d.schema.ParseKey(items.bytes())
		}
		if err != nil {
			return corrupt("lane %d in the end mark: %v", i, err)
		}
		if l.From.Compare(l.Next) > 0 {
			return corrupt("lane %d from %v to %v", i, l.From, l.Next)
		}
		l.Rows = int64(items.int(0, left))
		left -= l.Rows
		s.Lanes = append(s.Lanes, l)
	}
	if !items.done() || !c.done() || left != 0 {
		return corrupt("an end mark whose lanes do not add up")
	}
	rows.end = s
	return nil
}

// open finds the arrays of a record of n rows.
func (d *decoder) open(c *cursor, n int) error {
	count, items := c.array()
	if count != len(d.keys) {
		return corrupt("a key of %d columns, the table has %d", count, len(d.keys))
	}
	for i := range d.keys {
		k := &d.keys[i]
		_, k.integers = items.array()
		count, k.shared = items.array()
		items.values(&k.values)
		k.apart, k.last, k.value = count == 0, 0, k.value[:0]
	}
	if !items.done() {
		return corrupt("the keys")
	}
	if count, d.order = c.array(); count != 0 && count != n {
		return corrupt("an order of %d rows, there are %d", count, n)
	}
	if err := d.openGroups(c); err != nil {
		return err
	}
	if err := d.mixed.open(c); err != nil {
		return err
	}
	c.values(&d.loose)
	if c.long() != 0 || !c.done() {
		return corrupt("bytes after the rows")
	}
	return nil
}

// resize returns s with n elements; those that were there before, beyond its length too,
// keep their memory.
func resize[T any](s []T, n int) []T {
	if n <= cap(s) {
		return s[:n]
	}
	return append(s[:cap(s)], make([]T, n-cap(s))...)
}

func (d *decoder) openGroups(c *cursor) error {
	count, items := c.array()
	if count > maxColumns {
		return corrupt("%d groups, want at most %d", count, maxColumns)
	}
	d.groups = resize(d.groups, count)
	total := 0
	for i := range d.groups {
		g := &d.groups[i]
		g.rows = items.int(1, maxRaw)
		g.last = 0
		_, g.times = items.array()
		n, columns := items.array()
		if total += n; total > maxColumns {
			return corrupt("more than %d columns", maxColumns)
		}
		g.columns = resize(g.columns, n)
		g.ascending = true
		rank := 0
		for j := range g.columns {
			col := &g.columns[j]
			if err := col.open(&columns); err != nil {
				return err
			}
			if j > 0 {
				r := bytes.Compare(g.columns[j-1].name.Bytes(), col.name.Bytes())
				if r != 0 {
					rank++
				}
				g.ascending = g.ascending && r <= 0
			}
			col.rank = rank
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

func (col *columnCursor) open(c *cursor) error {
	name := c.bytes()
	t := plainbuffer.Type(c.int(0, math.MaxUint8))
	var n int
	n, col.counts = c.array()
	col.single = n == 0
	n, col.times = c.array()
	col.together = n == 0
	col.last = 0
	array := valueArray(t)
	for i := range valueArrays {
		if i == array {
			c.values(&col.values)
		} else if c.long() != 0 {
			return corrupt("column %.64q of type %s has values of another", name, t)
		}
	}
	if c.bad || array < 0 || len(name) > maxName {
		return corrupt("column %.64q of type %s", name, t)
	}
	if len(col.form) == 0 || t != col.typ || !bytes.Equal(name, col.name.Bytes()) {
		col.typ = t
		col.name.Set(name)
		col.form = table.AppendFormColumn(col.form[:0], name, t)
	}
	return nil
}

func (m *mixedCursor) open(c *cursor) error {
	n, names := c.array()
	k, types := c.array()
	if n != k || n > maxMixed {
		return corrupt("a dictionary of %d names and %d types, want at most %d", n, k, maxMixed)
	}
	m.dictionary, m.lastTime = resize(m.dictionary, n), 0
	for i := range m.dictionary {
		e := &m.dictionary[i]
		name, t := names.bytes(), plainbuffer.Type(types.int(0, math.MaxUint8))
		if names.bad || types.bad || len(name) > maxName || valueArray(t) < 0 {
			return corrupt("column %.64q of type %s in the dictionary", name, t)
		}
		e.last = 0
		if len(e.form) == 0 || t != e.typ || !bytes.Equal(name, e.name.Bytes()) {
			e.typ = t
			e.name.Set(name)
			e.form = table.AppendFormColumn(e.form[:0], name, t)
		}
	}
	_, m.counts = c.array()
	_, m.columns = c.array()
	_, m.times = c.array()
	_, m.integers = c.array()
	_, m.doubles = c.array()
	_, m.booleans = c.array()
	c.values(&m.values)
	if c.bad || !names.done() || !types.done() {
		return corrupt("the mixed rows")
	}
	return nil
}

// rows puts the rows together in their order.
func (d *decoder) rows(rows *Rows, checksums []byte) error {
	d.piece = rows.Continues || rows.Unfinished
	if wide := d.pieces[rows.Lane]; (wide != nil) != rows.Continues {
		return corrupt("a piece of a row out of place")
	}
	size := 0
	ordered := len(d.order.b) > 0
	var sum table.Digest
	d.builder.Buf = rows.Buf
	for i := range checksums {
		place := 0
		if ordered {
			place = d.order.int(inRaw, int64(len(d.groups))-1)
			if d.order.bad {
				return corrupt("row %d stands in no group", i)
			}
		}
		start := len(d.builder.Buf)
		var checksum byte
		var inOrder, canonical bool
		if place == inRaw {
			b := d.loose.next()
			n, err := plainbuffer.Scan(b, &d.row)
			if err != nil || n != len(b) {
				return corrupt("row %d: %v", i, err)
			}
			d.builder.Buf = append(d.builder.Buf, b...)
			checksum = d.row.Checksum
			inOrder = i == 0 || plainbuffer.CompareKeys(d.before(), d.row.Key) < 0
			d.rawKey, d.rawBefore = append(d.rawKey[:0], d.row.Key...), true
			d.rawBytes = copyKey(d.rawKey, d.rawBytes[:0])
		} else {
			d.builder.Begin()
			d.form = d.form[:0]
			var order int
			var ok bool
			if order, ok = d.nextKey(i > 0 && d.rawBefore); !ok {
				return corrupt("row %d has no key", i)
			}
			inOrder = i == 0 || order < 0
			d.rawBefore = false
			switch {
			case place == inMixed:
				canonical, ok = d.mixed.next(d)
			case place < len(d.groups):
				canonical, ok = d.groups[place].next(d)
			default:
				ok = false
			}
			if !ok {
				return corrupt("row %d can't be put together", i)
			}
			checksum = d.builder.End(false)
		}
		if !inOrder {
			return corrupt("row %d is not in order", i)
		}
		if checksum != checksums[i] {
			return corrupt("row %d has the checksum 0x%02x, Tablestore sent 0x%02x", i, checksum, checksums[i])
		}
		if size += len(d.builder.Buf) - start; size > maxRaw {
			return corrupt("rows of more than %d bytes", maxRaw)
		}
		if i == 0 {
			rows.First = table.KeyOf(d.before())
		}
		if canonical && !d.piece {
			sum.Add(d.hasher.Form(d.form))
		} else {
			if place != inRaw {
				d.scanner.ResetRows(d.builder.Buf[start:])
				if err := d.scanner.Next(&d.row); err != nil {
					return corrupt("row %d: %v", i, err)
				}
			}
			digest, err := d.digest(rows, &d.row)
			if err != nil {
				return err
			}
			sum.Add(digest)
		}
		rows.Ends = append(rows.Ends, size)
		if d.sent != nil {
			if i >= len(d.sent) || !bytes.Equal(d.builder.Buf, d.sent[i]) {
				return corrupt("row %d is not the one that was sent", i)
			}
			d.builder.Buf = d.builder.Buf[:0]
		}
	}
	rows.Buf = d.builder.Buf
	rows.Last = table.KeyOf(d.before())
	if sum != rows.Digest {
		return corrupt("the rows have the digest %v, the record says %v", sum, rows.Digest)
	}
	if !d.spent() {
		return corrupt("arrays with more items than the rows have")
	}
	return nil
}

// before is the key of the row before.
func (d *decoder) before() []plainbuffer.Cell {
	if d.rawBefore {
		return d.rawKey
	}
	d.key = d.key[:0]
	for i := range d.keys {
		k := &d.keys[i]
		c := plainbuffer.Cell{Type: k.typ, HasValue: true, Data: k.value}
		if k.typ == plainbuffer.Integer {
			c.Data = d.numbers[i][:]
			binary.LittleEndian.PutUint64(c.Data, uint64(k.last))
		}
		d.key = append(d.key, c)
	}
	return d.key
}

// nextKey builds the key of the next row and compares it with the one before.
func (d *decoder) nextKey(rawBefore bool) (order int, ok bool) {
	var number [8]byte
	for i := range d.keys {
		k := &d.keys[i]
		if k.typ == plainbuffer.Integer {
			v := k.last + k.integers.long()
			if order == 0 {
				order = cmp.Compare(k.last, v)
			}
			k.last = v
			d.builder.KeyInteger(&k.name, v)
			binary.LittleEndian.PutUint64(number[:], uint64(v))
			d.form = table.AppendFormKey(d.form, k.typ, number[:])
		} else {
			shared := 0
			if !k.apart {
				shared = k.shared.int(0, int64(len(k.value)))
			}
			rest := k.values.next()
			if shared+len(rest) > maxName {
				return 0, false
			}
			if order == 0 {
				order = bytes.Compare(k.value[shared:], rest)
			}
			k.value = append(k.value[:shared], rest...)
			d.builder.KeyBytes(&k.name, k.typ, k.value)
			d.form = table.AppendFormKey(d.form, k.typ, k.value)
		}
		if k.integers.bad || k.shared.bad || k.values.bad {
			return 0, false
		}
	}
	if rawBefore {
		d.rawBefore = false
		order = plainbuffer.CompareKeys(d.rawKey, d.before())
	}
	return order, true
}

// next builds the cells of the group's next row and their canonical form; it says whether
// they stand in canonical order, and whether there was a row.
func (g *groupCursor) next(d *decoder) (canonical, ok bool) {
	if g.rows == 0 {
		return false, false
	}
	g.rows--
	g.last += g.times.long()
	base := g.last
	canonical = g.ascending
	rank, before := -1, int64(0)
	form := d.form
	var number [8]byte
	b := &d.builder
	for i := range g.columns {
		col := &g.columns[i]
		n := 1
		if !col.single {
			n = col.counts.int(0, maxRaw)
		}
		for ; n > 0; n-- {
			ts := base
			if !col.together {
				ts += col.times.long()
			}
			if rank != col.rank {
				if rank < 0 {
					b.Attributes()
				}
				rank = col.rank
			} else if ts > before {
				canonical = false
			}
			before = ts
			switch col.typ {
			case plainbuffer.Integer:
				col.last += col.values.long()
				b.Integer(&col.name, col.last, ts)
				binary.LittleEndian.PutUint64(number[:], uint64(col.last))
				form = table.AppendFormCell(form, col.form, ts, number[:])
			case plainbuffer.Double:
				v := col.values.take(8)
				if v == nil {
					return false, false
				}
				b.Double(&col.name, math.Float64frombits(binary.LittleEndian.Uint64(v)), ts)
				form = table.AppendFormCell(form, col.form, ts, v)
			case plainbuffer.Boolean:
				v := col.values.boolean()
				b.Boolean(&col.name, v, ts)
				form = table.AppendFormCell(form, col.form, ts, truth(v))
			default:
				v := col.values.next()
				b.Bytes(&col.name, col.typ, v, ts)
				form = table.AppendFormCell(form, col.form, ts, v)
			}
			if d.piece {
				form = form[:0]
			}
			if col.values.bad || col.times.bad || len(b.Buf) > maxRaw {
				return false, false
			}
		}
		if col.counts.bad {
			return false, false
		}
	}
	d.form = form
	return canonical, !g.times.bad
}

var truths = [2]byte{0, 1}

func truth(v bool) []byte {
	if v {
		return truths[1:2:2]
	}
	return truths[0:1:1]
}

// next builds the cells of the next mixed row, as a group's does.
func (m *mixedCursor) next(d *decoder) (canonical, ok bool) {
	n := m.counts.int(0, maxRaw)
	if n > 0 {
		if len(m.dictionary) == 0 {
			return false, false
		}
		d.builder.Attributes()
	}
	canonical = true
	var last *mixedName
	var number [8]byte
	b, form := &d.builder, d.form
	for range n {
		e := &m.dictionary[m.columns.int(0, int64(len(m.dictionary))-1)]
		before := m.lastTime
		m.lastTime += m.times.long()
		if last != nil && canonical {
			r := 0
			if e != last {
				r = bytes.Compare(last.name.Bytes(), e.name.Bytes())
			}
			canonical = r < 0 || r == 0 && m.lastTime <= before
		}
		last = e
		switch e.typ {
		case plainbuffer.Integer:
			e.last += m.integers.long()
			b.Integer(&e.name, e.last, m.lastTime)
			binary.LittleEndian.PutUint64(number[:], uint64(e.last))
			form = table.AppendFormCell(form, e.form, m.lastTime, number[:])
		case plainbuffer.Double:
			v := m.doubles.take(8)
			if v == nil {
				return false, false
			}
			b.Double(&e.name, math.Float64frombits(binary.LittleEndian.Uint64(v)), m.lastTime)
			form = table.AppendFormCell(form, e.form, m.lastTime, v)
		case plainbuffer.Boolean:
			v := m.booleans.boolean()
			b.Boolean(&e.name, v, m.lastTime)
			form = table.AppendFormCell(form, e.form, m.lastTime, truth(v))
		default:
			v := m.values.next()
			b.Bytes(&e.name, e.typ, v, m.lastTime)
			form = table.AppendFormCell(form, e.form, m.lastTime, v)
		}
		if d.piece {
			form = form[:0]
		}
		if m.columns.bad || m.times.bad || m.integers.bad || m.booleans.bad || m.values.bad || len(b.Buf) > maxRaw {
			return false, false
		}
	}
	d.form = form
	return canonical, !m.counts.bad
}

// digest is the digest of a row, or of the row whose last piece it is, or zero.
func (d *decoder) digest(rows *Rows, row *plainbuffer.Row) (table.Digest, error) {
	first, last := !rows.Continues, !rows.Unfinished
	if first && last {
		return d.hasher.Row(row), nil
	}
	wide := d.pieces[rows.Lane]
	if wide == nil {
		wide = newWideRow(d.seed)
		d.pieces[rows.Lane] = wide
	}
	digest, err := wide.add(row, first, last)
	if err != nil {
		return digest, corrupt("%v", err)
	}
	if last {
		delete(d.pieces, rows.Lane)
	}
	return digest, nil
}

// shrink gives back the memory that ordinary records do not need.
func (d *decoder) shrink(rows *Rows) {
	if cap(d.record)+cap(d.builder.Buf)+cap(d.form)+cap(rows.Buf) > keptMemory {
		d.record, d.builder.Buf, d.form, rows.Buf = nil, nil, nil, nil
		d.groups, d.mixed, d.loose = nil, mixedCursor{}, values{}
	}
}

// spent says whether the rows have used up all arrays.
func (d *decoder) spent() bool {
	ok := d.order.done() && d.loose.done()
	for i := range d.keys {
		k := &d.keys[i]
		ok = ok && k.integers.done() && k.shared.done() && k.values.done()
	}
	for i := range d.groups {
		g := &d.groups[i]
		ok = ok && g.times.done() && g.rows == 0
		for j := range g.columns {
			c := &g.columns[j]
			ok = ok && c.counts.done() && c.times.done() && c.values.cursor.done()
		}
	}
	m := &d.mixed
	ok = ok && m.values.done()
	for _, c := range []*cursor{&m.counts, &m.columns, &m.times, &m.integers, &m.doubles, &m.booleans} {
		ok = ok && c.done()
	}
	return ok
}
