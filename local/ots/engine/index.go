package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/tablevault/tablevault/local/ots/kv"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// Phase is how far the build of an index is.
type Phase int8

// The phases.
const (
	PhaseFull Phase = 1 // base data is being indexed
	PhaseIncr Phase = 2 // the index is complete
)

// An Index is a secondary index of a table. It is read as a table of its own name, whose
// rows stand beside the table's in the same space.
type Index struct {
	Name     string
	Key      []string // indexed columns, then the rest of the table's key
	Given    int      // columns of Key that were asked for
	Columns  []string // attributes that it carries
	Local    bool
	Sync     bool
	Building bool  // base data is not all in it
	ReadyAt  int64 // microseconds: until then it is shown as being built, if base data goes into it
	Prefix   []byte
}

func (x *Index) phase(now time.Time) Phase {
	if x.Building || now.UnixMicro() < x.ReadyAt {
		return PhaseFull
	}
	return PhaseIncr
}

// indexPrefixSize is the bytes of every index's prefix.
const indexPrefixSize = 5

// check refuses an index that no table can have.
func (x *Index) check() *Error {
	if err := checkIndexName(x.Name); err != nil {
		return invalid("Invalid index name: '%s'.", x.Name)
	}
	if len(x.Key) == 0 || len(x.Key) > MaxKeyColumns {
		return invalid("The number of primary key columns must be in range: [1, %d] in index.", MaxKeyColumns)
	}
	if len(x.Columns) > MaxIndexColumns {
		return invalid("The number of attribute columns must be in range: [0, %d] in index.", MaxIndexColumns)
	}
	return nil
}

// checkIndex refuses an index that the table cannot have, and completes its key.
func (d *Definition) checkIndex(x *Index) *Error {
	if err := x.check(); err != nil {
		return err
	}
	if len(d.Indexes) >= MaxIndexes {
		return invalid("Number of index per table exceeds the quota:%d.", MaxIndexes)
	}
	if d.Base != "" {
		return invalid("Can't create index on index table.")
	}
	if d.Options.MaxVersions != 1 {
		return invalid("MaxVersions must be 1 on a table with index.")
	}
	if d.Options.TTL >= 0 && d.Options.AllowUpdate {
		return invalid("Don't support allow update operation on table with index and ttl")
	}
	for i, name := range x.Key {
		if slices.Contains(x.Key[:i], name) {
			return invalid("Duplicated primary key name: '%s' of index: '%s'.", name, x.Name)
		}
		column, ok := d.keyColumn(name)
		if !ok {
			return invalid("Primary key: '%s' of index: '%s' is neither primary key nor defined column.", name, x.Name)
		}
		if i == 0 && column.AutoIncrement {
			return invalid("The auto increment primary key: '%s' can't be the first primary key of index.", name)
		}
	}
	if x.Local {
		if x.Key[0] != d.Key[0].Name {
			return invalid("The first primary key of local index must be the first primary key of the table.")
		}
		if !x.Sync {
			return invalid("Local index must be updated synchronously.")
		}
	}
	for i, name := range x.Columns {
		if _, ok := d.defined(name); !ok {
			return invalid("Attribute column: '%s' of index: '%s' is not a defined column.", name, x.Name)
		}
		if slices.Contains(x.Columns[:i], name) || slices.Contains(x.Key, name) {
			return invalid("Duplicated column name: '%s' of index: '%s'.", name, x.Name)
		}
	}
	x.Key, x.Given = slices.Clone(x.Key), len(x.Key)
	for _, k := range d.Key {
		if !slices.Contains(x.Key, k.Name) {
			x.Key = append(x.Key, k.Name)
		}
	}
	return nil
}

// keyColumn is the column of that name as a key's: one of the table's key, or a defined
// column of a type that keys can have.
func (d *Definition) keyColumn(name string) (KeyColumn, bool) {
	for _, k := range d.Key {
		if k.Name == name {
			return k, true
		}
	}
	c, ok := d.defined(name)
	ok = ok && (c.Type == plainbuffer.Integer || c.Type == plainbuffer.String || c.Type == plainbuffer.Blob)
	return KeyColumn{Name: c.Name, Type: c.Type}, ok
}

// indexes says whether the attribute stands in the key of an index.
func (d *Definition) indexes(name []byte) bool {
	return slices.ContainsFunc(d.Indexes, func(x Index) bool {
		return slices.ContainsFunc(x.Key, func(k string) bool { return k == string(name) })
	})
}

// addIndex puts an index into d, the next definition of its table, and returns the table
// under which it is read.
func (e *Engine) addIndex(d *Definition, x Index, now time.Time) (*Table, *Error) {
	if err := d.checkIndex(&x); err != nil {
		return nil, err
	}
	if !x.Local && d.Stream.Enabled && e.behavior().Stream.NoGlobalIndexes {
		return nil, invalid("Global index is not supported on table with stream.")
	}
	if x.Name == d.Name || e.find(x.Name) != nil || slices.ContainsFunc(d.Indexes, func(y Index) bool { return y.Name == x.Name }) {
		return nil, Refusal(CodeObjectAlreadyExist)
	}
	e.nextSpace++
	x.Prefix = binary.BigEndian.AppendUint32([]byte{prefixIndex}, uint32(e.nextSpace)) // of indexPrefixSize
	if delay := e.behavior().Indexes.Delay; delay > 0 && x.Building {
		x.ReadyAt = now.Add(delay).UnixMicro()
	}
	shown := &Definition{
		Name:       x.Name,
		Base:       d.Name,
		Options:    d.Options,
		Throughput: Throughput{LastIncrease: now.Unix()},
		Created:    now.UnixMicro(),
		Space:      d.Space,
		Prefix:     x.Prefix,
	}
	for _, name := range x.Key {
		column, _ := d.keyColumn(name)
		column.AutoIncrement = false
		shown.Key = append(shown.Key, column)
	}
	for _, name := range x.Columns {
		column, _ := d.defined(name)
		shown.Defined = append(shown.Defined, column)
	}
	d.Indexes = append(slices.Clone(d.Indexes), x)
	t := &Table{engine: e}
	t.current.Store(shown)
	return t, nil
}

// CreateIndex makes an index of a table. With base it holds the rows that are there
// already once it is built, else only those written from now on.
func (e *Engine) CreateIndex(table string, x Index, base bool) *Error {
	e.ddl.Lock()
	defer e.ddl.Unlock()
	if err := e.limitOperations(); err != nil {
		return err
	}
	if err := x.check(); err != nil {
		return err
	}
	t := e.find(table)
	if t == nil {
		return errNoTable
	}
	if err := e.checkQuota(1); err != nil {
		return err
	}
	d := t.definition().clone()
	x.Building = base
	shown, err := e.addIndex(d, x, e.now())
	if err != nil {
		return err
	}
	if err := e.replace(t, d, []*Table{shown}, nil); err != nil {
		return err
	}
	if base {
		e.startBuild(t, d.Indexes[len(d.Indexes)-1].Prefix)
	}
	return nil
}

// DropIndex removes an index of a table.
func (e *Engine) DropIndex(table, name string) *Error {
	e.ddl.Lock()
	defer e.ddl.Unlock()
	if err := e.limitOperations(); err != nil {
		return err
	}
	t := e.find(table)
	if t == nil {
		return errNoTable
	}
	d := t.definition().clone()
	at := slices.IndexFunc(d.Indexes, func(x Index) bool { return x.Name == name })
	if at < 0 {
		return refuse(CodeObjectNotExist, "Requested index does not exist.")
	}
	x := d.Indexes[at]
	d.Indexes = slices.Delete(slices.Clone(d.Indexes), at, at+1)
	shown := e.find(name)
	if err := e.replace(t, d, nil, []*Table{shown}); err != nil {
		return err
	}
	shown.gone.Store(true)
	return AsError(t.purge(d.Space, x.Prefix))
}

// purge removes all keys with a prefix, in steps that let writers in.
func (t *Table) purge(space string, prefix []byte) error {
	for {
		var keys [][]byte
		err := t.engine.store.Update(space, func(w kv.Writer) error {
			keys = keys[:0]
			w.Ascend(prefix, func(key, _ []byte) bool {
				if !bytes.HasPrefix(key, prefix) {
					return false
				}
				keys = append(keys, bytes.Clone(key))
				return len(keys) < walkStep
			})
			for _, key := range keys {
				w.Delete(key)
			}
			return nil
		})
		if err != nil || len(keys) < walkStep {
			return err
		}
	}
}

// sweep removes what was left of indexes whose drop was cut short.
func (e *Engine) sweep(t *Table) error {
	d := t.definition()
	from := []byte{prefixIndex}
	for {
		var prefix []byte
		err := e.store.View(d.Space, func(r kv.Reader) error {
			r.Ascend(from, func(key, _ []byte) bool {
				if key[0] == prefixIndex && len(key) >= indexPrefixSize {
					prefix = bytes.Clone(key[:indexPrefixSize])
				}
				return false
			})
			return nil
		})
		if err != nil || prefix == nil {
			return err
		}
		if d.indexOf(prefix) < 0 {
			if err := t.purge(d.Space, prefix); err != nil {
				return err
			}
		}
		from = append(prefix, markMax)
	}
}

// indexOf is the place of the index of the prefix, or -1. Unlike its name, an index's
// prefix is never another's later.
func (d *Definition) indexOf(prefix []byte) int {
	return slices.IndexFunc(d.Indexes, func(x Index) bool { return bytes.Equal(x.Prefix, prefix) })
}

// startBuild fills an index with the rows that are there, in the background.
func (e *Engine) startBuild(t *Table, prefix []byte) {
	e.builds.Go(func() {
		if err := e.build(t, prefix); err != nil {
			// The store is broken or closed; the index stays in its phase and
			// is built again when the engine is next opened.
			return
		}
		e.ddl.Lock()
		defer e.ddl.Unlock()
		if t.gone.Load() {
			return
		}
		d := t.definition().clone()
		if at := d.indexOf(prefix); at >= 0 {
			d.Indexes = slices.Clone(d.Indexes)
			d.Indexes[at].Building = false
			_ = e.replace(t, d, nil, nil)
		}
	})
}

// buildStep is the number of rows that a build indexes before writers get their turn.
const buildStep = 500

func (e *Engine) build(t *Table, prefix []byte) error {
	space := t.definition().Space
	from := []byte{prefixRow}
	for from != nil {
		if e.closing.Load() {
			return errors.New("build of an index: the engine is closed")
		}
		err := e.store.Update(space, func(s kv.Writer) error {
			d := t.definition()
			at := d.indexOf(prefix)
			if at < 0 || t.gone.Load() {
				from = nil
				return nil
			}
			x := &d.Indexes[at]
			b := entries{base: d}
			n := 0
			var last []byte
			var failed error
			s.Ascend(from, func(key, value []byte) bool {
				if key[0] != prefixRow {
					return false
				}
				if failed = b.add(x, value); failed != nil {
					return false
				}
				n++
				last = append(append(last[:0], key...), 0)
				return n < buildStep
			})
			if from = nil; n == buildStep {
				from = last
			}
			b.write(s)
			return failed
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// entries collects rows of indexes that are to be written or removed. They are written at
// the end, since a write may move what the store handed out.
type entries struct {
	base  *Definition // of the table
	row   plainbuffer.Row
	cells []plainbuffer.Cell
	key   []plainbuffer.Cell
	puts  [][2][]byte
	drops [][]byte
}

// entry is the row of an index for a row of its table: none if the row lacks an indexed
// column, or has in it what no key can hold. Where columns of an entry's key are
// attributes of the row, the entry is gone when the first of them has expired: as its
// newest timestamp, the record has that one's.
func (b *entries) entry(x *Index, rec record) (key, value []byte, err error) {
	if _, err := plainbuffer.Scan(rec.row(), &b.row); err != nil {
		return nil, nil, err
	}
	b.key = b.key[:0]
	until := int64(math.MaxInt64)
	for _, name := range x.Key {
		c, ok := findCell(b.row.Key, name)
		if !ok {
			if c, ok = findCell(b.row.Cells, name); !ok {
				return nil, nil, nil
			}
			if d, _ := b.base.defined(name); c.Type != d.Type || len(c.Data) > MaxKeyLength {
				return nil, nil, nil
			}
			until = min(until, c.Timestamp)
			c.HasTimestamp, c.Timestamp = false, 0
		}
		b.key = append(b.key, c)
	}
	b.cells = b.cells[:0]
	for _, name := range x.Columns {
		if c, ok := findCell(b.row.Cells, name); ok {
			b.cells = append(b.cells, c)
		}
	}
	slices.SortFunc(b.cells, func(a, b plainbuffer.Cell) int { return compareCells(&a, &b) })
	key = appendKey(slices.Clone(x.Prefix), b.key)
	value = appendRecord(nil, b.key, b.cells)
	binary.LittleEndian.PutUint64(value[8:], uint64(until))
	return key, value, nil
}

// findCell is the newest version of a column.
func findCell(cells []plainbuffer.Cell, name string) (plainbuffer.Cell, bool) {
	for i := range cells {
		if string(cells[i].Name) == name {
			return cells[i], true
		}
	}
	return plainbuffer.Cell{}, false
}

func (b *entries) add(x *Index, rec record) error {
	key, value, err := b.entry(x, rec)
	if err == nil && key != nil {
		b.puts = append(b.puts, [2][]byte{key, value})
	}
	return err
}

// change follows a row from one state to the next; nil is none.
func (b *entries) change(x *Index, old, next record) error {
	var oldKey, newKey, value []byte
	var err error
	if old != nil {
		if oldKey, _, err = b.entry(x, old); err != nil {
			return err
		}
	}
	if next != nil {
		if newKey, value, err = b.entry(x, next); err != nil {
			return err
		}
	}
	if oldKey != nil && !bytes.Equal(oldKey, newKey) {
		b.drops = append(b.drops, oldKey)
	}
	if newKey != nil {
		b.puts = append(b.puts, [2][]byte{newKey, value})
	}
	return nil
}

func (b *entries) write(s kv.Writer) {
	for _, key := range b.drops {
		s.Delete(key)
	}
	for _, p := range b.puts {
		s.Put(p[0], p[1])
	}
}

// watched says whether a change of a row has consequences elsewhere.
func (d *Definition) watched() bool { return len(d.Indexes) > 0 }

// changed makes the indexes follow a change of a row.
func (d *Definition) changed(s kv.Writer, old, next record) error {
	b := entries{base: d}
	for i := range d.Indexes {
		if err := b.change(&d.Indexes[i], old, next); err != nil {
			return err
		}
	}
	b.write(s)
	return nil
}
