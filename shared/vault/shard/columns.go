package shard

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/zeebo/xxh3"
)

// How rows are put together is the writer's own business; readers take any grouping. A
// row joins a group whose columns are all it has. A row that lacks some of them, or
// brings new ones, joins where the two have much in common and the group does not become
// too thin; otherwise it begins a group of its own. When there are enough groups, rows
// with other columns go to the mixed arrays.
const (
	// maxGroups is how many groups a block has. Each costs some bytes a column.
	maxGroups = 24
	// fewGroups is how many a block has before rows join a group with which they have
	// little in common: by then their columns look random.
	fewGroups = 8
	// patience is after how many rows that fit nowhere only some are tried.
	patience = 16
	// maxThin is how many absent cells a group may note for each one it has. Each is a
	// byte before compression, and most are gone after it.
	maxThin = 20
)

// group is rows that share columns.
type group struct {
	index    int
	rows     int
	times    array
	lastTime int64
	columns  []*column
	// ascending says that the columns stand by name, then type, each once: only to such a
	// list others can be added.
	ascending bool
	optional  bool // some rows lack some columns
	cells     int
	absent    int // cells that rows lack
}

// column is one column of a group.
type column struct {
	name []byte // a slice of the rows
	typ  plainbuffer.Type
	rank int    // equal for columns with one name that stand side by side
	form []byte // how its cells begin in the canonical form of a row

	counts   array
	single   bool // every row so far has one cell, and counts is left out
	times    array
	together bool // every cell so far has the time of its row's first, and times is left out
	cells    int
	values   array
	last     int64 // integer before
	n        int   // cells of the row at hand
}

func (c *column) begin(cell *plainbuffer.Cell) {
	c.name, c.typ = cell.Name, cell.Type
	c.form = table.AppendFormColumn(c.form[:0], cell.Name, cell.Type)
	c.counts.reset()
	c.times.reset()
	c.values.reset()
	c.single, c.together, c.cells, c.last = true, true, 0, 0
}

func (c *column) memory() int {
	return cap(c.form) + cap(c.counts.items) + cap(c.times.items) + cap(c.values.items)
}

func (c *column) is(cell *plainbuffer.Cell) bool {
	return c.typ == cell.Type && bytes.Equal(c.name, cell.Name)
}

// compare orders columns by name, then by type.
func (c *column) compare(cell *plainbuffer.Cell) int {
	if r := bytes.Compare(c.name, cell.Name); r != 0 {
		return r
	}
	return cmp.Compare(c.typ, cell.Type)
}

// match counts, for each of the group's columns, the row's cells, and returns how many
// columns have none. It is false if the row has other columns, or in another order.
func (g *group) match(cells []plainbuffer.Cell) (absent int, ok bool) {
	at := 0
	for _, c := range g.columns {
		n := at
		for n < len(cells) && c.is(&cells[n]) {
			n++
		}
		c.n = n - at
		if c.n == 0 {
			absent++
		}
		at = n
	}
	return absent, at == len(cells)
}

// add adds the row that match has counted. It appends the cells' canonical form to form,
// unless they are a piece of a row, of which nobody needs it, and says whether they stand
// in canonical order.
func (g *group) add(cells []plainbuffer.Cell, form []byte, piece bool) ([]byte, bool) {
	base := g.lastTime
	if len(cells) > 0 {
		base = cells[0].Timestamp
	}
	g.times.long(base - g.lastTime)
	g.lastTime = base
	canonical := g.ascending
	rank, before := -1, int64(0)
	at := 0
	for _, c := range g.columns {
		n := c.n
		if !c.single {
			c.counts.long(int64(n))
		} else if n != 1 {
			c.counts.repeat(1, g.rows)
			c.counts.long(int64(n))
			c.single = false
		}
		for ; n > 0; n-- {
			cell := &cells[at]
			at++
			ts := cell.Timestamp
			if c.rank == rank && ts > before {
				canonical = false
			}
			rank, before = c.rank, ts
			if !c.together {
				c.times.long(ts - base)
			} else if ts != base {
				c.times.repeat(0, c.cells)
				c.times.long(ts - base)
				c.together = false
			}
			c.cells++
			switch c.typ {
			case plainbuffer.Integer:
				v := cell.Int()
				c.values.long(v - c.last)
				c.last = v
			case plainbuffer.Double:
				c.values.double(cell.Data)
			case plainbuffer.Boolean:
				c.values.boolean(cell.Data[0])
			default:
				c.values.bytes(cell.Data)
			}
			if !piece {
				form = table.AppendFormCell(form, c.form, ts, cell.Data)
			}
		}
	}
	g.rows++
	g.cells += len(cells)
	return form, canonical
}

// rank numbers the columns by name and finds out whether they ascend.
func (g *group) rank() {
	g.ascending = true
	rank := 0
	for i, c := range g.columns {
		if i > 0 {
			p := g.columns[i-1]
			r := bytes.Compare(p.name, c.name)
			if r != 0 {
				rank++
			}
			if r > 0 || r == 0 && p.typ >= c.typ {
				g.ascending = false
			}
		}
		c.rank = rank
	}
}

// size and appendTo are of the group as an Avro record.
func (g *group) size() int {
	n := longSize(int64(g.rows)) + g.times.size()
	return n + arraySize(len(g.columns), g.columnsSize())
}

func (g *group) columnsSize() int {
	n := 0
	for _, c := range g.columns {
		n += c.size()
	}
	return n
}

func (g *group) appendTo(b []byte) []byte {
	b = appendLong(b, int64(g.rows))
	b = g.times.appendTo(b)
	if len(g.columns) > 0 {
		b = beginArray(b, len(g.columns), g.columnsSize())
		for _, c := range g.columns {
			b = c.appendTo(b)
		}
	}
	return append(b, 0)
}

func (c *column) size() int {
	return longSize(int64(len(c.name))) + len(c.name) + longSize(int64(c.typ)) +
		c.counts.size() + c.times.size() + c.values.size() + 3
}

func (c *column) appendTo(b []byte) []byte {
	b = appendBytes(b, c.name)
	b = appendLong(b, int64(c.typ))
	b = c.counts.appendTo(b)
	b = c.times.appendTo(b)
	for i := range valueArrays {
		if i == valueArray(c.typ) {
			b = c.values.appendTo(b)
		} else {
			b = append(b, 0)
		}
	}
	return b
}

// valueArrays is the number of arrays that values stand in.
const valueArrays = 4

// valueArray says which of them a type has: integers, doubles, booleans or values; -1 for
// none.
func valueArray(t plainbuffer.Type) int {
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

// place finds or makes the group of a regular row and counts the row's cells in it; it
// returns inMixed if there is none.
func (e *Encoder) place(cells []plainbuffer.Cell) int {
	if g := e.recent; g != nil {
		absent, ok := g.match(cells)
		if ok && (absent == 0 || g.optional && g.thin(absent, len(cells))) {
			g.absent += absent
			return g.index
		}
	}
	list := e.listOf(cells)
	if i, ok := e.lists[list]; ok {
		g := e.groups[i]
		if absent, ok := g.match(cells); ok && (absent == 0 || g.thin(absent, len(cells))) {
			g.absent += absent
			e.recent = g
			return i
		}
	}
	var g *group
	if e.strangers < patience || e.strangers%patience == 0 {
		g = e.join(cells)
	}
	if g == nil {
		g = e.open(cells)
	}
	if g == nil {
		e.strangers++
		return inMixed
	}
	e.strangers = 0
	e.lists[list] = g.index
	e.recent = g
	return g.index
}

func (g *group) thin(absent, cells int) bool {
	return g.absent+absent <= maxThin*(g.cells+cells)
}

// listOf hashes a row's list of columns, versions of one counted once.
func (e *Encoder) listOf(cells []plainbuffer.Cell) uint64 {
	h := uint64(len(e.schema))
	for i := range cells {
		c := &cells[i]
		if i > 0 && c.Type == cells[i-1].Type && bytes.Equal(c.Name, cells[i-1].Name) {
			continue
		}
		h = xxh3.HashSeed(c.Name, h+uint64(c.Type))
	}
	return h
}

// joinable is how many groups a row with new columns is held against.
const joinable = 4

// join adds a row's columns to a group that has many of them already.
func (e *Encoder) join(cells []plainbuffer.Cell) *group {
	tried := 0
	for i := e.used; i >= 0 && tried < joinable; i-- {
		g := e.recent
		if i < e.used {
			if g = e.groups[i]; g == e.recent {
				continue
			}
		}
		if g == nil || !g.ascending {
			continue
		}
		tried++
		if e.widen(g, cells) {
			return g
		}
	}
	return nil
}

// widen adds to g the columns of a row that it does not have, unless that would make it
// too thin, and counts the row's cells.
func (e *Encoder) widen(g *group, cells []plainbuffer.Cell) bool {
	// Columns that both have, and those that only the row has.
	common, others := 0, 0
	at := 0
	var last *plainbuffer.Cell
	for i := range cells {
		c := &cells[i]
		if last != nil {
			r := bytes.Compare(last.Name, c.Name)
			if r == 0 && last.Type == c.Type {
				continue
			}
			if r > 0 || r == 0 && last.Type > c.Type {
				return false
			}
		}
		last = c
		for at < len(g.columns) && g.columns[at].compare(c) < 0 {
			at++
		}
		if at < len(g.columns) && g.columns[at].is(c) {
			common++
			at++
		} else {
			others++
		}
	}
	absent := len(g.columns) - common + others*g.rows
	likeness := 3
	if e.used >= fewGroups {
		likeness = 10
	}
	if likeness*common < common+others || !g.thin(absent, len(cells)) || e.columns+others > maxColumns {
		return false
	}
	e.columns += others
	at = 0
	for i := range cells {
		c := &cells[i]
		for at < len(g.columns) && g.columns[at].compare(c) < 0 {
			at++
		}
		if at < len(g.columns) && g.columns[at].is(c) {
			continue
		}
		added := e.column(c)
		added.counts.repeat(0, g.rows)
		added.single = g.rows == 0
		g.columns = slices.Insert(g.columns, at, added)
	}
	g.rank()
	g.absent += absent
	g.optional = true
	g.match(cells)
	return true
}

// open makes a group with a row's list of columns, if there may be one more.
func (e *Encoder) open(cells []plainbuffer.Cell) *group {
	if e.used == maxGroups {
		return nil
	}
	n := 0
	for i := range cells {
		if i == 0 || cells[i].Type != cells[i-1].Type || !bytes.Equal(cells[i].Name, cells[i-1].Name) {
			n++
		}
	}
	if e.columns+n > maxColumns {
		return nil
	}
	e.columns += n
	if e.used == len(e.groups) {
		e.groups = append(e.groups, new(group))
	}
	g := e.groups[e.used]
	g.index = e.used
	e.used++
	g.rows, g.lastTime, g.cells, g.absent, g.optional = 0, 0, 0, 0, false
	g.times.reset()
	g.columns = g.columns[:0]
	for i := range cells {
		if i == 0 || !g.columns[len(g.columns)-1].is(&cells[i]) {
			g.columns = append(g.columns, e.column(&cells[i]))
		}
	}
	g.rank()
	g.match(cells)
	return g
}

// column takes a column from those that are kept for their memory.
func (e *Encoder) column(c *plainbuffer.Cell) *column {
	var col *column
	if n := len(e.spare); n > 0 {
		col = e.spare[n-1]
		e.spare = e.spare[:n-1]
	} else {
		col = new(column)
	}
	col.begin(c)
	return col
}

// mixed is the rows that share no columns.
type mixed struct {
	dictionary []mixedColumn
	slots      []int32 // of a hash table: places in the dictionary, plus one
	names      array
	types      array
	counts     array
	columns    array
	times      array
	lastTime   int64
	integers   array
	doubles    array
	booleans   array
	values     array
}

type mixedColumn struct {
	name []byte // a slice of the rows
	hash uint64
	last int64 // integer before
	typ  plainbuffer.Type
}

func (m *mixed) arrays() [9]*array {
	return [9]*array{&m.names, &m.types, &m.counts, &m.columns, &m.times, &m.integers, &m.doubles, &m.booleans, &m.values}
}

func (m *mixed) reset() {
	if len(m.dictionary) > 0 {
		clear(m.slots)
		clear(m.dictionary) // its names would keep a page from being freed
	}
	m.dictionary, m.lastTime = m.dictionary[:0], 0
	for _, a := range m.arrays() {
		a.reset()
	}
}

// lookup returns a column's place in the dictionary, where it adds it.
func (m *mixed) lookup(c *plainbuffer.Cell) int {
	if 4*len(m.dictionary) >= 3*len(m.slots) {
		m.slots = make([]int32, max(1<<8, 2*len(m.slots)))
		for i := range m.dictionary {
			at := m.dictionary[i].hash
			for m.slots[at&uint64(len(m.slots)-1)] != 0 {
				at++
			}
			m.slots[at&uint64(len(m.slots)-1)] = int32(i) + 1
		}
	}
	hash := xxh3.HashSeed(c.Name, uint64(c.Type))
	for at := hash; ; at++ {
		slot := &m.slots[at&uint64(len(m.slots)-1)]
		if *slot == 0 {
			m.dictionary = append(m.dictionary, mixedColumn{name: c.Name, hash: hash, typ: c.Type})
			m.names.bytes(c.Name)
			m.types.long(int64(c.Type))
			*slot = int32(len(m.dictionary))
			return len(m.dictionary) - 1
		}
		if d := &m.dictionary[*slot-1]; d.hash == hash && d.typ == c.Type && bytes.Equal(d.name, c.Name) {
			return int(*slot) - 1
		}
	}
}

func (m *mixed) add(cells []plainbuffer.Cell) {
	m.counts.long(int64(len(cells)))
	for i := range cells {
		c := &cells[i]
		place := m.lookup(c)
		m.columns.long(int64(place))
		m.times.long(c.Timestamp - m.lastTime)
		m.lastTime = c.Timestamp
		switch c.Type {
		case plainbuffer.Integer:
			v := c.Int()
			m.integers.long(v - m.dictionary[place].last)
			m.dictionary[place].last = v
		case plainbuffer.Double:
			m.doubles.double(c.Data)
		case plainbuffer.Boolean:
			m.booleans.boolean(c.Data[0])
		default:
			m.values.bytes(c.Data)
		}
	}
}

func (m *mixed) appendTo(b []byte) []byte {
	for _, a := range m.arrays() {
		b = a.appendTo(b)
	}
	return b
}
