// Package engine is a Tablestore without a network: tables of rows with versions, their
// limits and options, conditions, filters, ranges and splits, over an ordered store. It
// answers what the service answers, errors in the service's own words.
//
//	e, err := engine.Open(kv.Memory(), engine.Config{})
//	…
//	err = e.CreateTable(&engine.Definition{Name: "t", Key: …, Options: …})
//	err = e.Write("t", &engine.Change{Op: engine.Put, Row: row})
//
// Rows go in and come out as PlainBuffer. A row is stored as the bytes in which it is
// sent, so that a range that wants everything is mostly a copy.
package engine

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tablevault/tablevault/local/ots/kv"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// Config is how an engine is set up.
type Config struct {
	// Now is the clock, the system's if nil.
	Now      func() time.Time
	Behavior Behavior
}

// An Engine is the tables of one instance. It is safe for concurrent use.
type Engine struct {
	store kv.Store
	clock func() time.Time
	knobs atomic.Pointer[Behavior]
	// ddl is held by operations on tables, one at a time.
	ddl       sync.Mutex
	mu        sync.RWMutex // of tables
	tables    map[string]*Table
	nextSpace int64
	// lastStream is the greatest number of a stream.
	lastStream int64
	recent     []time.Time // operations on tables in the last second
	builds     sync.WaitGroup
	sessions   sessions
	closing    atomic.Bool
}

// A Table is a table or an index.
type Table struct {
	engine *Engine
	// mu is held, shared, while a definition is being obeyed in a write.
	mu      sync.RWMutex
	current atomic.Pointer[Definition]
	gone    atomic.Bool
	// former are the options that UpdateTable replaced, in force until until.
	former  atomic.Pointer[formerOptions]
	readyAt atomic.Int64 // microseconds
	meter   meter
	// growth is the bytes written since partitions were last looked at.
	growth   atomic.Int64
	resizing atomic.Bool
	// trimDue is when, in microseconds, the stream's expired records are next removed.
	trimDue atomic.Int64
	// streamed counts the records of the stream, where some are late.
	streamed atomic.Int64
	past     past
}

type formerOptions struct {
	options Options
	until   time.Time
}

const (
	metaSpace = "meta"

	prefixCounter = 'a'
	prefixRow     = 'r'
	prefixStream  = 's'
	prefixTrimmed = 't'
	prefixIndex   = 'x'
)

// metadata is what the store keeps of the engine itself.
type metadata struct {
	NextSpace  int64
	LastStream int64
}

// Open returns the engine of a store, with the tables that it has.
func Open(store kv.Store, config Config) (*Engine, error) {
	e := &Engine{store: store, clock: config.Now, tables: map[string]*Table{}}
	if e.clock == nil {
		e.clock = time.Now
	}
	e.knobs.Store(&config.Behavior)
	err := store.View(metaSpace, func(r kv.Reader) error {
		var failed error
		r.Ascend(nil, func(key, value []byte) bool {
			if string(key) == "engine" {
				var m metadata
				failed = json.Unmarshal(value, &m)
				e.nextSpace, e.lastStream = m.NextSpace, m.LastStream
			} else if name, ok := bytes.CutPrefix(key, []byte("table/")); ok {
				d := new(Definition)
				if failed = json.Unmarshal(value, d); failed == nil {
					t := &Table{engine: e}
					t.current.Store(d)
					e.tables[string(name)] = t
				}
			}
			if failed != nil {
				failed = fmt.Errorf("read %s: %w", key, failed)
			}
			return failed == nil
		})
		return failed
	})
	if err != nil {
		return nil, fmt.Errorf("open the tables: %w", err)
	}
	var unfinished []func()
	for _, t := range e.tables {
		if t.definition().Base != "" {
			continue
		}
		if err := e.sweep(t); err != nil {
			return nil, fmt.Errorf("open table %s: %w", t.definition().Name, err)
		}
		for _, x := range t.definition().Indexes {
			if x.Building {
				unfinished = append(unfinished, func() { e.startBuild(t, x.Prefix) })
			}
		}
	}
	for _, start := range unfinished {
		start()
	}
	return e, nil
}

// Close ends what runs in the background and closes the store.
func (e *Engine) Close() error {
	e.closing.Store(true)
	e.builds.Wait()
	return e.store.Close()
}

// SetBehavior replaces the behavior; calls under way may still see the former.
func (e *Engine) SetBehavior(b Behavior) { e.knobs.Store(&b) }

// Behavior returns the behavior in force.
func (e *Engine) Behavior() Behavior { return *e.knobs.Load() }

func (e *Engine) behavior() *Behavior { return e.knobs.Load() }

func (e *Engine) now() time.Time { return e.clock() }

func (e *Engine) pageRows() int {
	if n := e.behavior().Reads.PageRows; n > 0 {
		return min(n, MaxPageRows)
	}
	return MaxPageRows
}

func (e *Engine) pageSize() int {
	if n := e.behavior().Reads.PageSize; n > 0 {
		return min(n, MaxPageSize)
	}
	return MaxPageSize
}

func (e *Engine) find(name string) *Table {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.tables[name]
}

// named returns the table that an operation on tables names.
func (e *Engine) named(name string) (*Table, *Error) {
	if t := e.find(name); t != nil {
		return t, nil
	}
	if err := checkTableName(name); err != nil {
		return nil, err
	}
	return nil, errNoTable
}

// ready returns a table that serves reads and writes.
func (e *Engine) ready(name string) (*Table, *Error) {
	t := e.find(name)
	if t == nil {
		if err := CheckTableName(name); err != nil {
			return nil, err
		}
		return nil, errNoTable
	}
	if at := t.readyAt.Load(); at != 0 && e.now().UnixMicro() < at {
		return nil, Refusal(cmp.Or(e.behavior().Tables.ReadyCode, CodeTableNotReady))
	}
	return t, nil
}

func (t *Table) definition() *Definition { return t.current.Load() }

// mark says whether the table is gone, between writes.
func (t *Table) mark(gone bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gone.Store(gone)
}

// options are the table's at the time.
func (t *Table) options(d *Definition, now time.Time) Options {
	if f := t.former.Load(); f != nil && now.Before(f.until) {
		return f.options
	}
	return d.Options
}

// readable refuses to read an index that is being built.
func (t *Table) readable(d *Definition) *Error {
	if d.Base == "" {
		return nil
	}
	if base := t.engine.find(d.Base); base != nil {
		for i := range base.definition().Indexes {
			x := &base.definition().Indexes[i]
			if x.Name == d.Name && x.phase(t.engine.now()) == PhaseFull {
				return invalid("Disallow read index table in building base state")
			}
		}
	}
	return nil
}

// limitOperations counts an operation on tables.
func (e *Engine) limitOperations() *Error {
	limit := e.behavior().Tables.Operations
	if limit <= 0 {
		return nil
	}
	now := e.now()
	e.recent = slices.DeleteFunc(e.recent, func(t time.Time) bool { return now.Sub(t) >= time.Second })
	if len(e.recent) >= limit {
		return Refusal(CodeQuotaExhausted)
	}
	e.recent = append(e.recent, now)
	return nil
}

// ListTables returns the names in order.
func (e *Engine) ListTables() ([]string, *Error) {
	e.ddl.Lock()
	defer e.ddl.Unlock()
	if err := e.limitOperations(); err != nil {
		return nil, err
	}
	indexes := e.behavior().Indexes.Listed
	e.mu.RLock()
	defer e.mu.RUnlock()
	names := make([]string, 0, len(e.tables))
	for name, t := range e.tables {
		if !indexes && t.definition().Base != "" {
			continue
		}
		names = append(names, name)
	}
	sort.Strings(names)
	return names, nil
}

// CreateTable makes a table and, with d.Indexes, its indexes. It fills in what the engine
// decides.
func (e *Engine) CreateTable(d *Definition) *Error {
	e.ddl.Lock()
	defer e.ddl.Unlock()
	if err := e.limitOperations(); err != nil {
		return err
	}
	if err := d.check(); err != nil {
		return err
	}
	if err := e.checkReserve(nil, d); err != nil {
		return err
	}
	if err := e.checkTTL(&d.Options); err != nil {
		return err
	}
	if e.find(d.Name) != nil {
		return Refusal(CodeObjectAlreadyExist)
	}
	indexes := d.Indexes
	d.Indexes = nil
	if err := e.checkQuota(1 + len(indexes)); err != nil {
		return err
	}
	now := e.now()
	d.Created = now.UnixMicro()
	d.Throughput.LastIncrease = now.Unix()
	if d.Stream.Enabled {
		if err := e.enable(&d.Stream, d, now); err != nil {
			return err
		}
	}
	e.nextSpace++
	d.Space = fmt.Sprintf("t%08d", e.nextSpace)
	d.Prefix = []byte{prefixRow}
	t := &Table{engine: e}
	if delay := e.behavior().Tables.ReadyDelay; delay > 0 {
		t.readyAt.Store(now.Add(delay).UnixMicro())
	}
	made := []*Table{t}
	for _, x := range indexes {
		table, err := e.addIndex(d, x, now)
		if err != nil {
			return err
		}
		made = append(made, table)
	}
	t.current.Store(d)
	return e.save(made, nil)
}

// checkReserve refuses capacity that the instance does not reserve, of a new table or of
// one that was old before.
func (e *Engine) checkReserve(old, d *Definition) *Error {
	b := e.behavior()
	if b.Capacity.Reserve != ReserveGranted && (d.Throughput.Read > 0 || d.Throughput.Write > 0) {
		switch {
		case old != nil || b.Capacity.Reserve == ReserveForbidden:
			return Refusal(CodeForbiddenCapacity)
		case d.Throughput.Read > 0:
			return invalid("Can not reserve read capacity unit on capacity cluster.")
		}
		return invalid("Can not reserve write capacity unit on capacity cluster.")
	}
	if old == nil || b.Capacity.ReserveInterval <= 0 || old.Throughput.Read == d.Throughput.Read && old.Throughput.Write == d.Throughput.Write {
		return nil
	}
	last := time.Unix(max(old.Throughput.LastIncrease, old.Throughput.LastDecrease), 0)
	if e.now().Sub(last) < b.Capacity.ReserveInterval {
		return Refusal(CodeThroughputTooOften)
	}
	return nil
}

func (e *Engine) checkTTL(o *Options) *Error {
	if least := e.behavior().Tables.MinTTL; o.TTL > 0 && o.TTL < least {
		return invalid("TimeToLive must be -1 or not less than %d.", least)
	}
	return nil
}

func (e *Engine) checkQuota(more int) *Error {
	quota := e.behavior().Tables.Max
	if quota == 0 {
		quota = MaxTables
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	if len(e.tables)+more > quota {
		return refuse(CodeQuotaExhausted, "Number of tables exceeds the quota:%d.", quota)
	}
	return nil
}

// save stores the definitions of new tables, forgets the removed, and shows both to other
// calls.
func (e *Engine) save(made []*Table, removed []*Table) *Error {
	definitions := make([]*Definition, len(made))
	for i, t := range made {
		definitions[i] = t.definition()
	}
	if err := e.keep(definitions, removed); err != nil {
		return err
	}
	e.show(made, removed)
	return nil
}

// show makes tables known to other calls, and the removed unknown.
func (e *Engine) show(made, removed []*Table) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range made {
		e.tables[t.definition().Name] = t
	}
	for _, t := range removed {
		delete(e.tables, t.definition().Name)
	}
}

// keep stores definitions and removes those of tables.
func (e *Engine) keep(definitions []*Definition, removed []*Table) *Error {
	m, err := json.Marshal(metadata{NextSpace: e.nextSpace, LastStream: e.lastStream})
	if err != nil {
		return AsError(err)
	}
	documents := make([][]byte, len(definitions))
	for i, d := range definitions {
		if documents[i], err = json.Marshal(d); err != nil {
			return AsError(err)
		}
	}
	return AsError(e.store.Update(metaSpace, func(w kv.Writer) error {
		w.Put([]byte("engine"), m)
		for i, d := range definitions {
			w.Put([]byte("table/"+d.Name), documents[i])
		}
		for _, t := range removed {
			w.Delete([]byte("table/" + t.definition().Name))
		}
		return nil
	}))
}

// replace changes a table's definition, makes others known that came with it and forgets
// those that went with the former. No write obeys the definition before it is stored:
// what a write leaves in a shard of a stream would be lost with the shard, and an index
// that is dropped would lack it if the drop is lost.
func (e *Engine) replace(t *Table, d *Definition, with, without []*Table) *Error {
	definitions := []*Definition{d}
	for _, other := range with {
		definitions = append(definitions, other.definition())
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := e.keep(definitions, without); err != nil {
		return err
	}
	t.current.Store(d)
	e.show(with, without)
	return nil
}

// DeleteTable removes a table with its rows and its indexes.
func (e *Engine) DeleteTable(name string) *Error {
	e.ddl.Lock()
	defer e.ddl.Unlock()
	if err := e.limitOperations(); err != nil {
		return err
	}
	t, err := e.named(name)
	if err != nil {
		return err
	}
	d := t.definition()
	if d.Base != "" {
		return invalid("Can't delete index table directly.")
	}
	if len(d.Searches) > 0 {
		return invalid("Table[%s] who has at least one search index cannot be deleted.", d.Name)
	}
	removed := []*Table{t}
	for _, x := range d.Indexes {
		removed = append(removed, e.find(x.Name))
	}
	// Marked first, between writes: none may bring the space back later.
	t.mark(true)
	if err := e.save(nil, removed); err != nil {
		t.mark(false)
		return err
	}
	e.forget(t)
	return AsError(e.store.Drop(d.Space))
}

// A Description is a table as DescribeTable shows it.
type Description struct {
	Definition
	Loading bool
	// Splits are the keys at which partitions begin.
	PartitionKeys [][]plainbuffer.Cell
	IndexPhases   []Phase
	Now           time.Time
}

// DescribeTable returns what is known of a table.
func (e *Engine) DescribeTable(name string) (*Description, *Error) {
	e.ddl.Lock()
	err := e.limitOperations()
	e.ddl.Unlock()
	if err != nil {
		return nil, err
	}
	t, err := e.named(name)
	if err != nil {
		return nil, err
	}
	return t.describe(), nil
}

// Definition returns what is known of a table, not to be changed. Unlike DescribeTable it
// is no operation of the service.
func (e *Engine) Definition(name string) (*Definition, *Error) {
	t := e.find(name)
	if t == nil {
		return nil, errNoTable
	}
	return t.definition(), nil
}

func (t *Table) describe() *Description {
	d := t.definition()
	now := t.engine.now()
	out := &Description{Definition: *d, Now: now, Loading: now.UnixMicro() < t.readyAt.Load()}
	out.Options = t.options(d, now)
	out.Indexes = slices.Clone(d.Indexes)
	for i := range out.Indexes {
		x := &out.Indexes[i]
		out.IndexPhases = append(out.IndexPhases, x.phase(now))
		if !t.engine.behavior().Indexes.FullKeys {
			x.Key = x.Key[:x.Given]
		}
	}
	for _, s := range d.Splits {
		out.PartitionKeys = append(out.PartitionKeys, d.decodeSplit(s))
	}
	return out
}

// OptionsChange is what UpdateTable changes; nil leaves a setting.
type OptionsChange struct {
	TTL, MaxVersions *int32
	Deviation        *int64
	AllowUpdate      *bool
	UpdateFullRow    *bool
	Read, Write      *int32
	Stream           *StreamSettings
}

// UpdateTable changes a table's settings.
func (e *Engine) UpdateTable(name string, c *OptionsChange) (*Description, *Error) {
	e.ddl.Lock()
	defer e.ddl.Unlock()
	if err := e.limitOperations(); err != nil {
		return nil, err
	}
	t, err := e.named(name)
	if err != nil {
		return nil, err
	}
	now := e.now()
	old := t.definition()
	if old.Base != "" {
		return nil, invalid("Can't update index table directly.")
	}
	if c.UpdateFullRow != nil {
		return nil, invalid("Invalid table options: contain updateFullRow.")
	}
	d := old.clone()
	o := &d.Options
	set(&o.TTL, c.TTL)
	set(&o.MaxVersions, c.MaxVersions)
	set(&o.Deviation, c.Deviation)
	set(&o.AllowUpdate, c.AllowUpdate)
	if err := o.check(); err != nil {
		return nil, err
	}
	if c.TTL != nil {
		if err := e.checkTTL(o); err != nil {
			return nil, err
		}
	}
	if len(d.Indexes) > 0 {
		if o.MaxVersions != 1 {
			return nil, invalid("MaxVersions must be 1 on a table with index.")
		}
		if o.TTL >= 0 && o.AllowUpdate {
			return nil, invalid("Don't support allow update operation on table with index and ttl")
		}
	}
	for i := range d.Searches {
		if err := e.checkSearch(&d.Searches[i], o); err != nil {
			return nil, err
		}
	}
	if c.Read != nil || c.Write != nil {
		set(&d.Throughput.Read, c.Read)
		set(&d.Throughput.Write, c.Write)
		if err := d.Throughput.check(); err != nil {
			return nil, err
		}
		if err := e.checkReserve(old, d); err != nil {
			return nil, err
		}
		if d.Throughput.Read > old.Throughput.Read || d.Throughput.Write > old.Throughput.Write {
			d.Throughput.LastIncrease = now.Unix()
		}
		if d.Throughput.Read < old.Throughput.Read || d.Throughput.Write < old.Throughput.Write {
			d.Throughput.LastDecrease = now.Unix()
		}
	}
	if c.Stream != nil {
		if err := e.updateStream(d, c.Stream, now); err != nil {
			return nil, err
		}
	}
	if d.Options != old.Options {
		var former *formerOptions
		if delay := e.behavior().Tables.OptionsDelay; delay > 0 {
			former = &formerOptions{options: t.options(old, now), until: now.Add(delay)}
		}
		t.former.Store(former)
	}
	if !old.Stream.Enabled && d.Stream.Enabled {
		// A former stream's records, if the engine ended while it removed them.
		if err := t.forgetStreams(d.Space); err != nil {
			return nil, err
		}
	}
	if err := e.replace(t, d, nil, nil); err != nil {
		return nil, err
	}
	if old.Stream.Enabled && !d.Stream.Enabled {
		if err := t.forgetStreams(d.Space); err != nil {
			return nil, err
		}
	}
	for i := range d.Indexes {
		shown := e.find(d.Indexes[i].Name)
		follow := shown.definition().clone()
		follow.Options = d.Options
		shown.former.Store(t.former.Load())
		if err := e.replace(shown, follow, nil, nil); err != nil {
			return nil, err
		}
	}
	return t.describe(), nil
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// AddDefinedColumns fixes the types of more attributes.
func (e *Engine) AddDefinedColumns(name string, columns []DefinedColumn) *Error {
	return e.change(name, func(d *Definition) *Error {
		if len(columns) == 0 {
			return invalid("No defined column is specified.")
		}
		for _, c := range columns {
			if have, ok := d.defined(c.Name); ok && have.Type != c.Type {
				return invalid("Defined column: '%s' exists with another type.", c.Name)
			}
		}
		all := slices.Clone(d.Defined)
		for _, c := range columns {
			if _, ok := d.defined(c.Name); !ok {
				all = append(all, c)
			}
		}
		if err := checkDefined(all, d.Key); err != nil {
			return err
		}
		d.Defined = all
		return nil
	})
}

// DeleteDefinedColumns frees attributes of their types.
func (e *Engine) DeleteDefinedColumns(name string, columns []string) *Error {
	return e.change(name, func(d *Definition) *Error {
		if len(columns) == 0 {
			return invalid("No defined column is specified.")
		}
		for _, c := range columns {
			if _, ok := d.defined(c); !ok {
				return invalid("Defined column: '%s' does not exist.", c)
			}
			for i := range d.Indexes {
				if slices.Contains(d.Indexes[i].Columns, c) || slices.Contains(d.Indexes[i].Key, c) {
					return invalid("Defined column: '%s' is used by index: '%s'.", c, d.Indexes[i].Name)
				}
			}
		}
		d.Defined = slices.DeleteFunc(slices.Clone(d.Defined), func(x DefinedColumn) bool { return slices.Contains(columns, x.Name) })
		return nil
	})
}

// change replaces the definition of a table by one that fn changed.
func (e *Engine) change(name string, fn func(*Definition) *Error) *Error {
	e.ddl.Lock()
	defer e.ddl.Unlock()
	if err := e.limitOperations(); err != nil {
		return err
	}
	t, err := e.named(name)
	if err != nil {
		return err
	}
	d := t.definition().clone()
	if err := fn(d); err != nil {
		return err
	}
	return e.replace(t, d, nil, nil)
}

// Rows calls fn with the stored bytes of each row of a table, in key order: the whole
// truth, with what no read would show. fn must not keep row.
func (e *Engine) Rows(table string, fn func(row []byte) bool) *Error {
	t := e.find(table)
	if t == nil {
		return errNoTable
	}
	d := t.definition()
	return AsError(e.store.View(d.Space, func(r kv.Reader) error {
		r.Ascend(d.Prefix, func(key, value []byte) bool {
			return bytes.HasPrefix(key, d.Prefix) && fn(record(value).row())
		})
		return nil
	}))
}

// display shows a key's value in messages.
func display(c *plainbuffer.Cell) string {
	switch c.Type {
	case plainbuffer.Integer:
		return fmt.Sprint(c.Int())
	case plainbuffer.InfMin, plainbuffer.InfMax:
		return wireType(c.Type)
	}
	return strings.ToValidUTF8(string(c.Data), "?")
}
