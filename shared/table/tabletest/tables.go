// Package tabletest is a Tablestore instance in memory, for tests of the verbs: a plain
// model behind the port table.Instance, with the clock, the faults and the refusals under
// the test's hand.
//
//	tables := tabletest.New()
//	tables.Make(def)
//	tables.Put("orders", tabletest.Row{
//		Key:   table.Key{table.Integer(1)},
//		Cells: []plainbuffer.Cell{tabletest.Cell("name", 1000, "ada")},
//	})
//
// It keeps what the service keeps (versions, timestamps, rows without cells) and refuses
// what the service refuses (timestamps outside the deviation window, explicit timestamps
// on an indexed table, keys of another schema, concrete values of an auto-increment
// column). It has no partitions, quotas, filters or change streams; a stream's setting is
// remembered and nothing else. What serves change streams is held to their contract by
// TestStreams.
package tabletest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tidwall/btree"
)

// Tables is one instance. Its exported fields are set while no call is under way.
type Tables struct {
	// Now is the server's clock.
	Now func() time.Time
	// PageRows bounds the rows of a page; 0 means the service's 5,000.
	PageRows int
	// HideExpired leaves out rows whose cells have all expired; without it they are
	// served as rows without cells. The service documents neither.
	HideExpired bool
	// Refuse is asked about every row that is written, if it is not nil; a code that is
	// not empty refuses the row for good.
	Refuse func(name string, row *plainbuffer.Row, op table.WriteOp) (code, message string)
	// Fault is asked before each call is carried out and again after it was, if it is not
	// nil; its error becomes the call's.
	Fault func(Call) error
	// Nameless makes tables without an identity.
	Nameless bool

	mu     sync.Mutex
	made   int64 // tables so far
	tables map[string]*content
	calls  map[string]int
}

// A Call is one call of the port.
type Call struct {
	// Name is the method's: "Describe", "Scan" for each page, "Write", and so on.
	Name  string
	Table string
	// N counts the calls of that name from 0.
	N int
	// After says that the call was carried out and its answer is about to be given.
	After bool
}

// A Row is a row as the model keeps it: cells by name, then the newest first.
type Row struct {
	Key   table.Key
	Cells []plainbuffer.Cell
}

// content is a table.
type content struct {
	def  table.Definition
	rows *btree.BTreeG[*Row]
}

// New returns an instance without tables whose clock is the machine's.
func New() *Tables {
	return &Tables{Now: time.Now, tables: map[string]*content{}, calls: map[string]int{}}
}

// Cell makes a cell of a Go value: int64, int, float64, bool, string, []byte. The
// timestamp is in milliseconds.
func Cell(name string, timestamp int64, value any) plainbuffer.Cell {
	c := plainbuffer.Cell{Name: []byte(name), Timestamp: timestamp, HasTimestamp: true, HasValue: true}
	switch v := value.(type) {
	case int:
		c.Type, c.Data = plainbuffer.Integer, binary.LittleEndian.AppendUint64(nil, uint64(v))
	case int64:
		c.Type, c.Data = plainbuffer.Integer, binary.LittleEndian.AppendUint64(nil, uint64(v))
	case float64:
		c.Type, c.Data = plainbuffer.Double, binary.LittleEndian.AppendUint64(nil, math.Float64bits(v))
	case bool:
		c.Type, c.Data = plainbuffer.Boolean, []byte{0}
		if v {
			c.Data[0] = 1
		}
	case string:
		c.Type, c.Data = plainbuffer.String, []byte(v)
	case []byte:
		c.Type, c.Data = plainbuffer.Blob, bytes.Clone(v)
	default:
		panic(fmt.Sprintf("tabletest: a cell of Go type %T", value))
	}
	return c
}

// Make makes a table as it is, with its indexes, and replaces one of its name.
func (t *Tables) Make(def table.Definition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tables[def.Name] = t.newContent(def)
}

// newContent is a new table. No two have the same identity, whatever the clock says.
func (t *Tables) newContent(def table.Definition) *content {
	t.made++
	def.Identity = table.Identity{}
	if !t.Nameless {
		def.Identity.Created = t.Now().UnixMicro() + t.made
	}
	return &content{def: def, rows: btree.NewBTreeGOptions(func(a, b *Row) bool { return a.Key.Compare(b.Key) < 0 },
		btree.Options{NoLocks: true})}
}

// Change changes a table's definition in place.
func (t *Tables) Change(name string, change func(*table.Definition)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change(&t.must(name).def)
}

// Put stores rows as they are: nothing is checked, refused or counted.
func (t *Tables) Put(name string, rows ...Row) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.must(name)
	for _, r := range rows {
		c.rows.Set(r.clone())
	}
}

// Delete removes a row.
func (t *Tables) Delete(name string, key table.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.must(name).rows.Delete(&Row{Key: key})
}

// Drop removes a table.
func (t *Tables) Drop(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.tables, name)
}

// Rows returns the rows of a table as a reader would be served them now.
func (t *Tables) Rows(name string) []Row {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, now := t.must(name), t.Now().UnixMilli()
	var rows []Row
	c.rows.Scan(func(r *Row) bool {
		if cells, ok := t.served(c, r, now); ok {
			rows = append(rows, *(&Row{Key: r.Key, Cells: cells}).clone())
		}
		return true
	})
	return rows
}

// Calls returns how often a method was called.
func (t *Tables) Calls(name string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.calls[name]
}

func (t *Tables) must(name string) *content {
	c := t.tables[name]
	if c == nil {
		panic("tabletest: no table " + name)
	}
	return c
}

func (r *Row) clone() *Row {
	n := &Row{Key: r.Key.Clone(), Cells: slices.Clone(r.Cells)}
	for i := range n.Cells {
		n.Cells[i].Name = bytes.Clone(n.Cells[i].Name)
		n.Cells[i].Data = bytes.Clone(n.Cells[i].Data)
	}
	slices.SortStableFunc(n.Cells, func(x, y plainbuffer.Cell) int { return table.CompareCells(&x, &y) })
	return n
}

// served is what a reader sees of a row: the newest versions that have not expired.
func (t *Tables) served(c *content, r *Row, now int64) (cells []plainbuffer.Cell, ok bool) {
	versions := int32(0)
	for i := range r.Cells {
		cell := &r.Cells[i]
		if i == 0 || !bytes.Equal(r.Cells[i-1].Name, cell.Name) {
			versions = 0
		}
		if c.def.Options.Expired(cell.Timestamp, now) || versions >= c.def.Options.MaxVersions {
			continue
		}
		versions++
		cells = append(cells, *cell)
	}
	return cells, len(cells) > 0 || len(r.Cells) == 0 || !t.HideExpired
}

// call carries out f as one call of the port, on a table that must exist unless f makes
// it.
func (t *Tables) call(ctx context.Context, method, name string, f func() error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", method, name, err)
	}
	t.mu.Lock()
	n := t.calls[method]
	t.calls[method]++
	t.mu.Unlock()
	if err := t.fault(Call{Name: method, Table: name, N: n}); err != nil {
		return fmt.Errorf("%s %s: %w", method, name, err)
	}
	t.mu.Lock()
	err := f()
	t.mu.Unlock()
	if err == nil {
		err = t.fault(Call{Name: method, Table: name, N: n, After: true})
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, name, err)
	}
	return nil
}

func (t *Tables) fault(c Call) error {
	if t.Fault == nil {
		return nil
	}
	return t.Fault(c)
}

// on is call with the table looked up.
func (t *Tables) on(ctx context.Context, method, name string, f func(c *content) error) error {
	return t.call(ctx, method, name, func() error {
		c := t.tables[name]
		if c == nil {
			return fmt.Errorf("OTSObjectNotExist: Requested table does not exist.: %w", table.ErrNotExist)
		}
		return f(c)
	})
}

// Tables lists the tables.
func (t *Tables) Tables(ctx context.Context) (names []string, err error) {
	err = t.call(ctx, "Tables", "", func() error {
		names = slices.Sorted(maps.Keys(t.tables))
		return nil
	})
	return names, err
}

// Describe returns a table's definition.
func (t *Tables) Describe(ctx context.Context, name string) (def table.Definition, err error) {
	err = t.on(ctx, "Describe", name, func(c *content) error {
		def = c.def
		def.Schema = slices.Clone(def.Schema)
		def.DefinedColumns = slices.Clone(def.DefinedColumns)
		def.Indexes = slices.Clone(def.Indexes)
		def.SearchIndexes = slices.Clone(def.SearchIndexes)
		return nil
	})
	return def, err
}

// SplitPoints cuts a table into ranges of about size bytes of PlainBuffer.
func (t *Tables) SplitPoints(ctx context.Context, name string, schema table.Schema, size int64) (points []table.Key, err error) {
	err = t.on(ctx, "SplitPoints", name, func(c *content) error {
		if size < 1 {
			return fmt.Errorf("OTSParameterInvalid: split size %d: %w", size, table.ErrInvalid)
		}
		var sum int64
		b := plainbuffer.Builder{}
		c.rows.Scan(func(r *Row) bool {
			if sum >= size {
				points, sum = append(points, r.Key.Clone()), 0
			}
			b.Buf = b.Buf[:0]
			appendRow(&b, c.def.Schema, r.Key, r.Cells)
			sum += int64(len(b.Buf))
			return true
		})
		return nil
	})
	return points, err
}

// Create makes a table without indexes.
func (t *Tables) Create(ctx context.Context, def table.Definition) error {
	return t.call(ctx, "Create", def.Name, func() error {
		if t.tables[def.Name] != nil {
			return fmt.Errorf("OTSObjectAlreadyExist: Requested table already exists.: %w", table.ErrExist)
		}
		if err := def.Validate(); err != nil {
			return fmt.Errorf("OTSParameterInvalid: %w: %w", err, table.ErrInvalid)
		}
		if err := checkOptions(def.Options); err != nil {
			return err
		}
		def.Indexes, def.SearchIndexes, def.Stream = nil, nil, nil
		t.tables[def.Name] = t.newContent(def)
		return nil
	})
}

func checkOptions(o table.Options) error {
	switch {
	case o.MaxVersions < 1, o.TTL == 0, o.TTL < table.NoTTL, o.Deviation < 0, o.Deviation > table.WidestDeviation:
		return fmt.Errorf("OTSParameterInvalid: options %+v: %w", o, table.ErrInvalid)
	}
	return nil
}

// DropTable removes a table with its indexes, if there is one of the name.
func (t *Tables) DropTable(ctx context.Context, name string) error {
	return t.call(ctx, "DropTable", name, func() error {
		delete(t.tables, name)
		return nil
	})
}

// SetOptions changes a table's options, all but UpdateFullRow.
func (t *Tables) SetOptions(ctx context.Context, name string, o table.Options) error {
	return t.on(ctx, "SetOptions", name, func(c *content) error {
		if err := checkOptions(o); err != nil {
			return err
		}
		if len(c.def.Indexes) > 0 && o.TTL > 0 && o.AllowUpdate {
			return fmt.Errorf("OTSParameterInvalid: Don't support allow update operation on table with index and ttl: %w", table.ErrInvalid)
		}
		if len(c.def.Indexes) > 0 && o.MaxVersions != 1 {
			return fmt.Errorf("OTSParameterInvalid: a table with an index has one version: %w", table.ErrInvalid)
		}
		o.UpdateFullRow = c.def.Options.UpdateFullRow
		c.def.Options = o
		return nil
	})
}

// SetStream turns the stream on.
func (t *Tables) SetStream(ctx context.Context, name string, s table.Stream) error {
	return t.on(ctx, "SetStream", name, func(c *content) error {
		if s.ExpirationHours < 1 {
			return fmt.Errorf("OTSParameterInvalid: a stream that expires after %d hours: %w", s.ExpirationHours, table.ErrInvalid)
		}
		s.ID = fmt.Sprintf("%s_%d", name, t.Now().UnixMicro())
		s.Enabled = t.Now().UnixMicro()
		c.def.Stream = &s
		return nil
	})
}

// AddDefinedColumns adds defined columns; a name that is there already is refused.
func (t *Tables) AddDefinedColumns(ctx context.Context, name string, columns []table.DefinedColumn) error {
	return t.on(ctx, "AddDefinedColumns", name, func(c *content) error {
		for _, column := range columns {
			if slices.ContainsFunc(c.def.DefinedColumns, func(d table.DefinedColumn) bool { return d.Name == column.Name }) {
				return fmt.Errorf("OTSParameterInvalid: defined column %q exists: %w", column.Name, table.ErrInvalid)
			}
		}
		c.def.DefinedColumns = append(slices.Clone(c.def.DefinedColumns), columns...)
		return nil
	})
}

// CreateIndex makes a secondary index.
func (t *Tables) CreateIndex(ctx context.Context, def table.Definition, index table.Index) error {
	return t.on(ctx, "CreateIndex", def.Name, func(c *content) error {
		if t.taken(index.Name) {
			return fmt.Errorf("OTSObjectAlreadyExist: index %q: %w", index.Name, table.ErrExist)
		}
		if c.def.Options.MaxVersions != 1 || c.def.Options.TTL > 0 && c.def.Options.AllowUpdate {
			return fmt.Errorf("OTSParameterInvalid: an index on a table with options %+v: %w", c.def.Options, table.ErrInvalid)
		}
		for _, name := range append(slices.Clone(index.Key), index.Columns...) {
			if !slices.ContainsFunc(c.def.Schema, func(k table.KeyColumn) bool { return k.Name == name }) &&
				!slices.ContainsFunc(c.def.DefinedColumns, func(d table.DefinedColumn) bool { return d.Name == name }) {
				return fmt.Errorf("OTSParameterInvalid: column %q of index %q is not defined: %w", name, index.Name, table.ErrInvalid)
			}
		}
		index.Ready = true
		c.def.Indexes = append(slices.Clone(c.def.Indexes), index)
		return nil
	})
}

// taken says whether the instance has a table, or an index, of a name: an index is a
// table to its readers.
func (t *Tables) taken(name string) bool {
	if t.tables[name] != nil {
		return true
	}
	for _, c := range t.tables {
		if slices.ContainsFunc(c.def.Indexes, func(i table.Index) bool { return i.Name == name }) {
			return true
		}
	}
	return false
}

// CreateSearchIndex makes a search index.
func (t *Tables) CreateSearchIndex(ctx context.Context, name string, index table.SearchIndex) error {
	return t.on(ctx, "CreateSearchIndex", name, func(c *content) error {
		if slices.ContainsFunc(c.def.SearchIndexes, func(i table.SearchIndex) bool { return i.Name == index.Name }) {
			return fmt.Errorf("OTSObjectAlreadyExist: search index %q: %w", index.Name, table.ErrExist)
		}
		c.def.SearchIndexes = append(slices.Clone(c.def.SearchIndexes), index)
		return nil
	})
}

// appendRow appends a row without a block's header.
func appendRow(b *plainbuffer.Builder, schema table.Schema, key table.Key, cells []plainbuffer.Cell) {
	b.Begin()
	for i, v := range key {
		name := plainbuffer.NewName([]byte(schema[i].Name))
		if v.Type == plainbuffer.Integer {
			b.KeyInteger(&name, v.Int)
		} else {
			b.KeyBytes(&name, v.Type, v.Bytes)
		}
	}
	if len(cells) > 0 {
		b.Attributes()
	}
	for i := range cells {
		b.Cell(&cells[i])
	}
	b.End(false)
}

// Encode returns a row of the schema as PlainBuffer, without a block's header.
func Encode(schema table.Schema, r Row) []byte {
	var b plainbuffer.Builder
	appendRow(&b, schema, r.Key, r.Cells)
	return b.Buf
}
