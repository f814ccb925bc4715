package ots_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// defined is the table of these tests: it has the key pk1, pk2 and defined columns of
// every type, named by it.
var defined = map[string]tablestore.DefinedColumnType{
	"str": tablestore.DefinedColumn_STRING, "int": tablestore.DefinedColumn_INTEGER, "bin": tablestore.DefinedColumn_BINARY,
	"dbl": tablestore.DefinedColumn_DOUBLE, "bool": tablestore.DefinedColumn_BOOLEAN,
}

func createDefined(t testing.TB, c *tablestore.TableStoreClient, with func(*tablestore.CreateTableRequest)) {
	t.Helper()
	createWith(t, c, "t", func(r *tablestore.CreateTableRequest) {
		for _, name := range slices.Sorted(maps.Keys(defined)) {
			r.TableMeta.AddDefinedColumn(name, defined[name])
		}
		if with != nil {
			with(r)
		}
	}, integer, integer)
}

func createIndex(c *tablestore.TableStoreClient, meta *tablestore.IndexMeta, base bool) error {
	_, err := c.CreateIndex(&tablestore.CreateIndexRequest{MainTableName: "t", IndexMeta: meta, IncludeBaseData: base})
	return err
}

func dropIndex(c *tablestore.TableStoreClient, name string) error {
	_, err := c.DeleteIndex(&tablestore.DeleteIndexRequest{MainTableName: "t", IndexName: name})
	return err
}

func indexMeta(name string, local bool, key, columns []string) *tablestore.IndexMeta {
	m := &tablestore.IndexMeta{IndexName: name, Primarykey: key, DefinedColumns: columns, IndexType: tablestore.IT_GLOBAL_INDEX}
	if local {
		m.SetAsLocalIndex()
	}
	return m
}

// fullKey is the key of an index's rows: its own columns and then the rest of the
// table's.
func fullKey(m *tablestore.IndexMeta) []string {
	out := slices.Clone(m.Primarykey)
	for _, k := range []string{"pk1", "pk2"} {
		if !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out
}

// scanAll reads every row of a table or an index over the wire, in small pages.
func scanAll(c *tablestore.TableStoreClient, name string, key []string) ([]*tablestore.Row, error) {
	var all []*tablestore.Row
	from, to := bounds(lowest, key...), bounds(highest, key...)
	for from != nil {
		p, err := tryPage(c, from, to, func(q *tablestore.RangeRowQueryCriteria) { q.TableName, q.MaxVersion, q.Limit = name, 1, 37 })
		if err != nil {
			return nil, err
		}
		all = append(all, p.Rows...)
		from = p.NextStartPrimaryKey
	}
	return all, nil
}

// entries is what an index is to hold of the rows of its table.
func entries(m *tablestore.IndexMeta, rows []*tablestore.Row, member func(pk string) bool) []string {
	var out []string
	for _, r := range rows {
		if !member(keyText(r.PrimaryKey)) {
			continue
		}
		values := map[string]any{}
		for _, k := range r.PrimaryKey.PrimaryKeys {
			values[k.ColumnName] = k.Value
		}
		for _, c := range r.Columns {
			values[c.ColumnName] = c.Value
		}
		pk := &tablestore.PrimaryKey{}
		whole := true
		for _, k := range fullKey(m) {
			v, ok := values[k]
			whole = whole && ok
			if ok {
				pk.AddPrimaryKeyColumn(k, v)
			}
		}
		if !whole {
			continue
		}
		var carried []cell
		for _, c := range cellsOf(r.Columns) {
			if slices.Contains(m.DefinedColumns, c.Name) {
				carried = append(carried, c)
			}
		}
		out = append(out, fmt.Sprint(keyText(pk), carried))
	}
	slices.Sort(out)
	return out
}

// compareIndexes holds each index against the rows of the table, and returns the number
// of entries compared.
func compareIndexes(t testing.TB, c *tablestore.TableStoreClient, metas []*tablestore.IndexMeta, member func(index, pk string) bool) int {
	t.Helper()
	rows, err := scanAll(c, "t", []string{"pk1", "pk2"})
	ok(t, err)
	compared := 0
	for _, m := range metas {
		want := entries(m, rows, func(pk string) bool { return member(m.IndexName, pk) })
		found, err := scanAll(c, m.IndexName, fullKey(m))
		ok(t, err)
		var got []string
		for i, r := range found {
			got = append(got, fmt.Sprint(keyText(r.PrimaryKey), cellsOf(r.Columns)))
			if i > 0 && compareKeys(found[i-1].PrimaryKey, r.PrimaryKey) >= 0 {
				t.Errorf("index %s: key %s before %s", m.IndexName, keyText(found[i-1].PrimaryKey), keyText(r.PrimaryKey))
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("index %s on %v has %d rows, the table makes %d:\n%s\nwant\n%s", m.IndexName, m.Primarykey, len(got), len(want), strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		compared += len(want)
	}
	return compared
}

func compareKeys(a, b *tablestore.PrimaryKey) int {
	for i := range a.PrimaryKeys {
		c := 0
		switch v := a.PrimaryKeys[i].Value.(type) {
		case int64:
			w := b.PrimaryKeys[i].Value.(int64)
			c = map[bool]int{v < w: -1, v > w: 1}[true]
		case string:
			c = strings.Compare(v, b.PrimaryKeys[i].Value.(string))
		case []byte:
			c = strings.Compare(string(v), string(b.PrimaryKeys[i].Value.([]byte)))
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

// awaitIndexes waits until all indexes of the table are built.
func awaitIndexes(t testing.TB, s *ots.Server) {
	t.Helper()
	await(t, "all indexes are built", func() bool {
		d, err := s.Engine().DescribeTable("t")
		ok(t, engineError(err))
		return !slices.Contains(d.IndexPhases, engine.PhaseFull)
	})
}

// An indexer writes random rows of its own partition key.
type indexer struct {
	c       *tablestore.TableStoreClient
	id      int
	rng     *rand.Rand
	updates bool // the table takes updates
	written map[string]bool
}

func (w *indexer) cells(update bool) []cell {
	var out []cell
	for _, name := range slices.Sorted(maps.Keys(defined)) {
		if w.rng.IntN(3) == 0 {
			continue
		}
		if update && w.rng.IntN(4) == 0 {
			out = append(out, cell{name, deleteAll, 0})
			continue
		}
		var v any
		switch n := w.rng.IntN(4); name {
		case "str":
			v = strings.Repeat("s\x00", n)
		case "int":
			v = int64(n - 2)
		case "bin":
			v = []byte("\x00\xFF\x01b")[:n]
		case "dbl":
			v = float64(n) / 2
		default:
			v = n == 0
		}
		out = append(out, cell{name, v, -1})
	}
	if w.rng.IntN(4) == 0 {
		out = append(out, cell{"free", int64(w.rng.IntN(9)), -1})
	}
	return out
}

// step does one thing. It remembers which rows it may have written.
func (w *indexer) step() error {
	pk := func() *tablestore.PrimaryKey {
		k := key(w.id, w.rng.IntN(40))
		w.written[keyText(k)] = true
		return k
	}
	switch n := w.rng.IntN(10); {
	case n < 3:
		return put(w.c, pk(), w.cells(false)...)
	case n < 5 && w.updates:
		if cells := w.cells(true); len(cells) > 0 {
			// Only what sets a cell makes a row, and so an entry.
			k := key(w.id, w.rng.IntN(40))
			if slices.ContainsFunc(cells, func(c cell) bool { return c.Value != deleteAll }) {
				w.written[keyText(k)] = true
			} else {
				k = pk()
			}
			return update(w.c, k, cells...)
		}
		return nil
	case n < 6 && w.updates:
		change := updateChange(pk())
		change.IncrementColumn("int", 1)
		_, err := w.c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: change})
		return err
	case n < 7:
		return remove(w.c, pk())
	case n < 9:
		batch := &tablestore.BatchWriteRowRequest{IsAtomic: w.rng.IntN(2) == 0}
		for _, row := range w.rng.Perm(40)[:1+w.rng.IntN(6)] {
			k := key(w.id, row)
			w.written[keyText(k)] = true
			if w.rng.IntN(3) == 0 {
				batch.AddRowChange(deleteChange(k))
			} else {
				batch.AddRowChange(putChange(k, w.cells(false)...))
			}
		}
		res, err := w.c.BatchWriteRow(batch)
		if err != nil {
			return err
		}
		for _, r := range res.TableToRowsResult["t"] {
			if !r.IsSucceed {
				return fmt.Errorf("row of a batch: %s", r.Error.Message)
			}
		}
		return nil
	default:
		res, err := w.c.StartLocalTransaction(&tablestore.StartLocalTransactionRequest{TableName: "t", PrimaryKey: key(w.id)})
		if err != nil {
			return err
		}
		for range w.rng.IntN(4) {
			if w.rng.IntN(3) == 0 {
				err = errors.Join(err, removeIn(w.c, *res.TransactionId, pk()))
			} else {
				err = errors.Join(err, putIn(w.c, *res.TransactionId, pk(), w.cells(false)...))
			}
		}
		return errors.Join(err, commit(w.c, *res.TransactionId))
	}
}

// TestIndexModel writes at random, by every operation and from several clients, while
// indexes of both kinds are made and dropped, with the rows that are there and without.
// After each round every index has exactly what a scan of the table says: of those made
// without, for the rows written since. The servers in files are opened anew between
// rounds, at times in the middle of a build.
func TestIndexModel(t *testing.T) {
	for _, test := range []struct {
		name   string
		file   bool
		ttl    int
		rounds int
	}{{"memory", false, -1, 25}, {"file", true, -1, 5}, {"expiring", false, 100, 25}, {"expiring file", true, 100, 4}} {
		t.Run(test.name, func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			rng := rand.New(rand.NewPCG(seed, 0))
			now := newClock(time.UnixMilli(1_700_000_000_000))
			config := ots.Config{Now: now.now}
			if test.file {
				config.Dir = t.TempDir()
			}
			s, err := ots.New(config)
			ok(t, err)
			defer func() { ok(t, s.Close()) }()
			shapes := []*tablestore.IndexMeta{
				indexMeta("", false, []string{"str"}, []string{"int"}),
				indexMeta("", false, []string{"int", "bin"}, nil),
				indexMeta("", false, []string{"pk2"}, []string{"dbl", "bool"}),
				indexMeta("", false, []string{"bin", "pk1", "pk2"}, []string{"str", "int", "dbl", "bool"}),
				indexMeta("", true, []string{"pk1", "int"}, []string{"str"}),
				indexMeta("", true, []string{"pk1", "pk2", "str"}, []string{"bool"}),
				indexMeta("", true, []string{"pk1", "bin", "str", "int"}, nil),
			}
			made := 0
			shape := func() *tablestore.IndexMeta {
				m := *shapes[rng.IntN(len(shapes))]
				// Names come back.
				m.IndexName = fmt.Sprint("i", made%6)
				made++
				return &m
			}
			first := shape()
			createDefined(t, inProcess(s), func(r *tablestore.CreateTableRequest) {
				r.TableOption.TimeToAlive, r.TableOption.AllowUpdate = test.ttl, new(bool)
				*r.TableOption.AllowUpdate = test.ttl < 0
				r.IndexMetas = []*tablestore.IndexMeta{first}
			})
			metas := []*tablestore.IndexMeta{first}
			members := map[string]map[string]bool{} // of indexes made without base data
			compared, partial := 0, 0
			for round := range test.rounds {
				var wg sync.WaitGroup
				workers := make([]*indexer, 3)
				for i := range workers {
					w := &indexer{c: inProcess(s), id: i, rng: rand.New(rand.NewPCG(seed, uint64(round*10+i+1))), updates: test.ttl < 0, written: map[string]bool{}}
					workers[i] = w
					wg.Go(func() {
						for range 40 {
							if err := w.step(); err != nil {
								t.Errorf("client %d: %v", w.id, err)
							}
						}
					})
				}
				// An index is made beside the writers, another without the rows
				// that are there when nobody writes.
				if m := shape(); len(metas) < 5 && !slices.ContainsFunc(metas, func(x *tablestore.IndexMeta) bool { return x.IndexName == m.IndexName }) {
					ok(t, createIndex(inProcess(s), m, true))
					metas = append(metas, m)
				}
				wg.Wait()
				if t.Failed() {
					return
				}
				for _, w := range workers {
					for _, m := range members {
						maps.Copy(m, w.written)
					}
				}
				if test.file && round%2 == 0 {
					ok(t, s.Close())
					s, err = ots.New(config)
					ok(t, err)
				}
				awaitIndexes(t, s)
				compared += compareIndexes(t, inProcess(s), metas, func(index, pk string) bool {
					return members[index] == nil || members[index][pk]
				})
				for _, m := range members {
					partial += len(m)
				}
				if t.Failed() {
					return
				}
				now.advance(time.Duration(rng.IntN(60_000)) * time.Millisecond)
				if len(metas) == 5 || rng.IntN(3) == 0 {
					at := rng.IntN(len(metas))
					ok(t, dropIndex(inProcess(s), metas[at].IndexName))
					delete(members, metas[at].IndexName)
					metas = slices.Delete(metas, at, at+1)
				}
				if m := shape(); len(metas) < 5 && !slices.ContainsFunc(metas, func(x *tablestore.IndexMeta) bool { return x.IndexName == m.IndexName }) {
					ok(t, createIndex(inProcess(s), m, false))
					metas = append(metas, m)
					members[m.IndexName] = map[string]bool{}
				}
			}
			t.Logf("%d entries compared, %d indexes made", compared, made)
			if compared < 50*test.rounds || partial == 0 {
				t.Errorf("too little was compared: %d entries, %d rows of indexes without base data", compared, partial)
			}
		})
	}
}

// TestKillIndexes kills a server while rows are written and indexes are made and dropped.
// When it is opened again, each index has what the table has.
func TestKillIndexes(t *testing.T) {
	dir := t.TempDir()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	compared, rounds, least := 0, 4, int64(60)
	if *longKills {
		rounds, least = 20, 600
	}
	for round := range rounds {
		p := startProcess(t, dir)
		c := connectTo(p.url)
		if round == 0 {
			createDefined(t, c, func(r *tablestore.CreateTableRequest) {
				r.IndexMetas = []*tablestore.IndexMeta{indexMeta("g", false, []string{"str"}, []string{"int"}), indexMeta("l", true, []string{"pk1", "int"}, []string{"str"})}
			})
		}
		var wg sync.WaitGroup
		var steps, made atomic.Int64
		var over atomic.Bool
		rng := rand.New(rand.NewPCG(seed, uint64(round*10+9)))
		for i := range 4 {
			w := &indexer{c: c, id: i, rng: rand.New(rand.NewPCG(seed, uint64(round*10+i))), updates: true, written: map[string]bool{}}
			wg.Go(func() {
				for w.step() == nil {
					steps.Add(1)
				}
			})
		}
		wg.Go(func() {
			for {
				// The first fails where the former round was killed in between.
				_ = dropIndex(c, "made")
				if createIndex(c, indexMeta("made", round%2 == 0, []string{"pk1", "bin"}, []string{"dbl"}), true) != nil {
					return
				}
				made.Add(1)
				// The next comes when this one is built, half built or hardly begun.
				for until := steps.Load() + rng.Int64N(20); steps.Load() < until && !over.Load(); {
					time.Sleep(100 * time.Microsecond)
				}
			}
		})
		await(t, "enough is written", func() bool { return steps.Load() >= least })
		await(t, "enough indexes are made", func() bool { return made.Load() >= 3 })
		over.Store(true)
		p.kill(t)
		wg.Wait()

		s, err := ots.New(ots.Config{Dir: dir})
		ok(t, err)
		awaitIndexes(t, s)
		d := describe(t, inProcess(s), "t")
		compared += compareIndexes(t, inProcess(s), d.IndexMetas, func(string, string) bool { return true })
		ok(t, s.Close())
	}
	t.Logf("%d entries compared", compared)
	if compared < 50 {
		t.Errorf("%d entries compared", compared)
	}
}

// TestIndexDefinitions holds an index against what a table can have.
func TestIndexDefinitions(t *testing.T) {
	c := connect(otstest.Run(t, ots.Config{}))
	createDefined(t, c, func(r *tablestore.CreateTableRequest) {
		r.TableMeta.SchemaEntry = nil
		r.TableMeta.AddPrimaryKeyColumn("pk1", integer)
		r.TableMeta.AddPrimaryKeyColumnOption("pk2", integer, tablestore.AUTO_INCREMENT)
	})
	const count = "The number of primary key columns must be in range: [1, 4] in index."
	many := make([]string, 33)
	for i := range many {
		many[i] = fmt.Sprint("d", i)
	}
	async := indexMeta("i", true, []string{"pk1", "int"}, nil)
	for _, test := range []struct {
		name string
		meta *tablestore.IndexMeta
		text string
	}{
		{"no key", indexMeta("i", false, nil, []string{"int"}), count},
		{"a long key", indexMeta("i", false, []string{"int", "str", "bin", "pk1", "pk2"}, nil), count},
		{"many columns", indexMeta("i", false, []string{"pk1"}, many), "The number of attribute columns must be in range: [0, 32] in index."},
		{"a name that is none", indexMeta("1i", false, []string{"int"}, nil), "Invalid index name: '1i'."},
		{"no name", indexMeta("", false, []string{"int"}, nil), "Invalid index name: ''."},
		{"a column twice", indexMeta("i", false, []string{"int", "int"}, nil), "Duplicated primary key name: 'int' of index: 'i'."},
		{"a column in both", indexMeta("i", false, []string{"int"}, []string{"int"}), "Duplicated column name: 'int' of index: 'i'."},
		{"a column that is not defined", indexMeta("i", false, []string{"none"}, nil), "Primary key: 'none' of index: 'i' is neither primary key nor defined column."},
		{"a type that no key has", indexMeta("i", false, []string{"dbl"}, nil), "Primary key: 'dbl' of index: 'i' is neither primary key nor defined column."},
		{"carries what is not defined", indexMeta("i", false, []string{"int"}, []string{"none"}), "Attribute column: 'none' of index: 'i' is not a defined column."},
		{"made keys first", indexMeta("i", false, []string{"pk2"}, nil), "The auto increment primary key: 'pk2' can't be the first primary key of index."},
		{"local of another partition", indexMeta("i", true, []string{"int", "pk1"}, nil), "The first primary key of local index must be the first primary key of the table."},
	} {
		t.Run(test.name, func(t *testing.T) {
			want(t, createIndex(c, test.meta, false), 400, badParameter, test.text)
			want(t, createIndex(c, test.meta, true), 400, badParameter, test.text)
		})
	}
	ok(t, createIndex(c, async, true))
	want(t, createIndex(c, async, true), 409, "OTSObjectAlreadyExist", "Requested table already exists.")
	want(t, createIndex(c, indexMeta("t", false, []string{"int"}, nil), true), 409, "OTSObjectAlreadyExist", "Requested table already exists.")
	_, err := c.CreateIndex(&tablestore.CreateIndexRequest{MainTableName: "none", IndexMeta: indexMeta("j", false, []string{"int"}, nil)})
	want(t, err, 404, "OTSObjectNotExist", "Requested table does not exist.")
	_, err = c.CreateIndex(&tablestore.CreateIndexRequest{MainTableName: "i", IndexMeta: indexMeta("j", false, []string{"pk1"}, nil)})
	want(t, err, 400, badParameter, "Can't create index on index table.")
	want(t, dropIndex(c, "none"), 404, "OTSObjectNotExist", "Requested index does not exist.")
	for what, change := range map[string]func() error{
		"Can't delete index table directly.": func() error {
			_, err := c.DeleteTable(&tablestore.DeleteTableRequest{TableName: "i"})
			return err
		},
		"Can't update index table directly.": func() error {
			_, err := c.UpdateTable(&tablestore.UpdateTableRequest{TableName: "i", TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1}})
			return err
		},
		"Defined column: 'int' is used by index: 'i'.": func() error {
			_, err := c.DeleteDefinedColumn(&tablestore.DeleteDefinedColumnRequest{TableName: "t", DefinedColumns: []string{"int"}})
			return err
		},
		"MaxVersions must be 1 on a table with index.": func() error {
			_, err := c.UpdateTable(&tablestore.UpdateTableRequest{TableName: "t", TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 2}})
			return err
		},
		"Don't support allow update operation on table with index and ttl": func() error {
			_, err := c.UpdateTable(&tablestore.UpdateTableRequest{TableName: "t", TableOption: &tablestore.TableOption{TimeToAlive: 86400, MaxVersion: 1}})
			return err
		},
	} {
		want(t, change(), 400, badParameter, what)
	}
	// Tables that can't have an index, and too many in the request that makes
	// the table.
	for what, with := range map[string]func(*tablestore.CreateTableRequest){
		"MaxVersions must be 1 on a table with index.":                     func(r *tablestore.CreateTableRequest) { r.TableOption.MaxVersion = 2 },
		"Don't support allow update operation on table with index and ttl": func(r *tablestore.CreateTableRequest) { r.TableOption.TimeToAlive = 86400 },
		"Number of index per table exceeds the quota:5.": func(r *tablestore.CreateTableRequest) {
			for i := range 6 {
				r.IndexMetas = append(r.IndexMetas, indexMeta(fmt.Sprint("u", i), false, []string{"int"}, nil))
			}
		},
	} {
		r := &tablestore.CreateTableRequest{TableMeta: &tablestore.TableMeta{TableName: "u"}, TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1}, ReservedThroughput: &tablestore.ReservedThroughput{},
			IndexMetas: []*tablestore.IndexMeta{indexMeta("ui", false, []string{"int"}, nil)}}
		r.TableMeta.AddPrimaryKeyColumn("pk1", integer)
		r.TableMeta.AddDefinedColumn("int", tablestore.DefinedColumn_INTEGER)
		with(r)
		_, err := c.CreateTable(r)
		want(t, err, 400, badParameter, what)
	}
	names, err := c.ListTable()
	ok(t, err)
	equal(t, "tables", names.TableNames, []string{"t"})
}

// TestIndexQuota counts indexes among an instance's tables, and those of a table.
func TestIndexQuota(t *testing.T) {
	c := connect(otstest.Run(t, ots.Config{Behavior: engine.Behavior{Tables: engine.TableBehavior{Max: 2}}}))
	createDefined(t, c, nil)
	ok(t, createIndex(c, indexMeta("i", false, []string{"int"}, nil), false))
	want(t, createIndex(c, indexMeta("j", false, []string{"int"}, nil), false), 403, "OTSQuotaExhausted", "Number of tables exceeds the quota:2.")

	c = connect(otstest.Run(t, ots.Config{}))
	createDefined(t, c, nil)
	for i := range 5 {
		ok(t, createIndex(c, indexMeta(fmt.Sprint("i", i), false, []string{"str"}, nil), false))
	}
	want(t, createIndex(c, indexMeta("i5", false, []string{"str"}, nil), false), 400, badParameter, "Number of index per table exceeds the quota:5.")
}

// TestSecondaryIndexes follows the entries of an index through changes of its table, to
// its drop. What it may be is in TestIndexDefinitions, how it is built in
// TestIndexPhases, and how it is described in TestDescribedIndexKeys.
func TestSecondaryIndexes(t *testing.T) {
	t.Parallel()
	now := newClock(time.UnixMilli(1_700_000_000_000))
	s := otstest.Run(t, ots.Config{Now: now.now})
	c := connect(s)
	meta := &tablestore.TableMeta{TableName: "t"}
	meta.AddPrimaryKeyColumn("pk1", text)
	meta.AddPrimaryKeyColumn("pk2", integer)
	meta.AddDefinedColumn("city", tablestore.DefinedColumn_STRING)
	meta.AddDefinedColumn("age", tablestore.DefinedColumn_INTEGER)
	_, err := c.CreateTable(&tablestore.CreateTableRequest{TableMeta: meta, TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1}, ReservedThroughput: &tablestore.ReservedThroughput{}})
	ok(t, err)
	person := func(name string, n int64, city string, age int64) {
		t.Helper()
		ok(t, put(c, key(name, n), cell{"city", city, -1}, cell{"age", age, -1}, cell{"other", "x", -1}))
	}
	person("ann", 1, "rome", 40)
	person("bob", 1, "bern", 50)
	ok(t, put(c, key("cid", 1), cell{"age", int64(1), -1}))

	index := &tablestore.IndexMeta{IndexName: "by-city", Primarykey: []string{"city"}, DefinedColumns: []string{"age"}, IndexType: tablestore.IT_GLOBAL_INDEX}
	ok(t, createIndex(c, index, true))
	indexed := func() string {
		t.Helper()
		res, err := c.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: &tablestore.RangeRowQueryCriteria{
			TableName: "by-city", MaxVersion: 1, Direction: tablestore.FORWARD,
			StartPrimaryKey: bounds(lowest, "city", "pk1", "pk2"), EndPrimaryKey: bounds(highest, "city", "pk1", "pk2"),
		}})
		if err != nil {
			return err.Error()
		}
		var all []string
		for _, r := range res.Rows {
			all = append(all, keyText(r.PrimaryKey)+fmt.Sprint(cellValues(r.Columns)))
		}
		return strings.Join(all, " ")
	}
	d := describe(t, c, "t").IndexMetas
	if len(d) != 1 || d[0].IndexName != "by-city" || fmt.Sprint(d[0].Primarykey, d[0].DefinedColumns) != "[city] [age]" {
		t.Errorf("index %+v", d)
	}
	awaitIndexes(t, s)
	for _, step := range []struct {
		name string
		do   func() error
		want string
	}{
		{"base data", func() error { return nil }, "bern,bob,1[50] rome,ann,1[40]"},
		{"a new row", func() error {
			return put(c, key("dan", 2), cell{"city", "bern", -1})
		}, "bern,bob,1[50] bern,dan,2[] rome,ann,1[40]"},
		{"a row moves", func() error { return update(c, key("ann", 1), cell{"city", "aachen", -1}) }, "aachen,ann,1[40] bern,bob,1[50] bern,dan,2[]"},
		{"a carried column", func() error { return update(c, key("dan", 2), cell{"age", int64(3), -1}) }, "aachen,ann,1[40] bern,bob,1[50] bern,dan,2[3]"},
		{"the indexed column goes", func() error { return update(c, key("bob", 1), cell{"city", deleteAll, 0}) }, "aachen,ann,1[40] bern,dan,2[3]"},
		{"the row goes", func() error { return remove(c, key("ann", 1)) }, "bern,dan,2[3]"},
		{"the row is replaced", func() error { return put(c, key("dan", 2), cell{"city", "bern", -1}) }, "bern,dan,2[]"},
	} {
		ok(t, step.do())
		if got := indexed(); got != step.want {
			t.Errorf("%s: %q, want %q", step.name, got, step.want)
		}
	}
	change := putChange(key("x", 1), cell{"c", "v", now.millis()})
	_, err = c.PutRow(&tablestore.PutRowRequest{PutRowChange: change})
	want(t, err, 400, badParameter, fmt.Sprintf("Timestamp is not allowed on a table with index. Cell:c. Timestamp:%d.", now.millis()))
	batch := &tablestore.BatchWriteRowRequest{}
	batch.AddRowChange(putChange(key("x", 1), cell{"c", "v", -1}))
	batch.AddRowChange(putChange(key("x", 1), cell{"c", "w", -1}))
	res, err := c.BatchWriteRow(batch)
	ok(t, err)
	for _, r := range res.TableToRowsResult["t"] {
		if r.IsSucceed {
			t.Error("a repeated row is written to a table with an index")
		}
	}
	direct := &tablestore.PutRowChange{TableName: "by-city", PrimaryKey: &tablestore.PrimaryKey{}}
	direct.PrimaryKey.AddPrimaryKeyColumn("city", "x")
	direct.SetCondition(ignore)
	_, err = c.PutRow(&tablestore.PutRowRequest{PutRowChange: direct})
	want(t, err, 400, badParameter, "Can't write index table directly.")
	names, err := c.ListTable()
	ok(t, err)
	equal(t, "tables", names.TableNames, []string{"t"})
	s.Engine().SetBehavior(engine.Behavior{Indexes: engine.IndexBehavior{Listed: true}})
	names, err = c.ListTable()
	ok(t, err)
	equal(t, "tables", names.TableNames, []string{"by-city", "t"})
	_, err = c.DeleteIndex(&tablestore.DeleteIndexRequest{MainTableName: "t", IndexName: "by-city"})
	ok(t, err)
	if got := indexed(); !strings.Contains(got, "OTSObjectNotExist") {
		t.Errorf("a read after it is dropped: %s", got)
	}
	ok(t, put(c, key("x", 1), cell{"c", "v", now.millis()}))
}

// TestIndexBuildBesideWriters proves that an index that is built while rows are written
// has exactly what the table has.
func TestIndexBuildBesideWriters(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	meta := &tablestore.TableMeta{TableName: "t"}
	meta.AddPrimaryKeyColumn("pk1", integer)
	meta.AddDefinedColumn("v", tablestore.DefinedColumn_INTEGER)
	_, err := c.CreateTable(&tablestore.CreateTableRequest{TableMeta: meta, TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1}, ReservedThroughput: &tablestore.ReservedThroughput{}})
	ok(t, err)
	for i := 0; i < 4000; i += 200 {
		batch := &tablestore.BatchWriteRowRequest{}
		for j := range 200 {
			batch.AddRowChange(putChange(key(i+j), cell{"v", int64(i), -1}))
		}
		_, err := c.BatchWriteRow(batch)
		ok(t, err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		rng := rand.New(rand.NewPCG(3, 4))
		for range 600 {
			n := key(rng.IntN(5000))
			if rng.IntN(3) == 0 {
				if err := remove(c, n); err != nil {
					t.Error(err)
				}
			} else if err := put(c, n, cell{"v", int64(rng.IntN(100)), -1}); err != nil {
				t.Error(err)
			}
		}
	}()
	_, err = c.CreateIndex(&tablestore.CreateIndexRequest{MainTableName: "t", IncludeBaseData: true, IndexMeta: &tablestore.IndexMeta{IndexName: "by_v", Primarykey: []string{"v"}}})
	ok(t, err)
	<-done
	awaitIndexes(t, s)
	collect := func(table string, key, value func(r *plainbuffer.Row) string) []string {
		var out []string
		err := s.Engine().Rows(table, func(raw []byte) bool {
			var r plainbuffer.Row
			if _, err := plainbuffer.Scan(raw, &r); err != nil {
				t.Error(err)
			}
			out = append(out, key(&r)+"="+value(&r))
			return true
		})
		ok(t, engineError(err))
		slices.Sort(out)
		return out
	}
	rows := collect("t", func(r *plainbuffer.Row) string { return fmt.Sprint(r.Key[0].Int()) }, func(r *plainbuffer.Row) string { return fmt.Sprint(r.Cells[0].Int()) })
	entries := collect("by_v", func(r *plainbuffer.Row) string { return fmt.Sprint(r.Key[1].Int()) }, func(r *plainbuffer.Row) string { return fmt.Sprint(r.Key[0].Int()) })
	if len(rows) < 3000 || !slices.Equal(rows, entries) {
		t.Errorf("the table has %d rows, the index %d, or they differ", len(rows), len(entries))
	}
}

// TestIndexPhases follows an index from FULL to INCR; one without base data has nothing
// to build.
func TestIndexPhases(t *testing.T) {
	now := newClock(time.UnixMilli(1_700_000_000_000))
	s := otstest.Run(t, ots.Config{Now: now.now, Behavior: engine.Behavior{Indexes: engine.IndexBehavior{Delay: time.Minute}}})
	c := connect(s)
	createDefined(t, c, func(r *tablestore.CreateTableRequest) {
		r.IndexMetas = []*tablestore.IndexMeta{indexMeta("at-once", false, []string{"str"}, nil)}
	})
	ok(t, put(c, key(1, 1), cell{"str", "x", -1}, cell{"int", int64(1), -1}))
	ok(t, createIndex(c, indexMeta("with", false, []string{"int"}, nil), true))
	ok(t, createIndex(c, indexMeta("without", false, []string{"int"}, nil), false))
	phases := func() (out []string) {
		for _, m := range describeRaw(t, s, "t").IndexMetas {
			out = append(out, m.GetName()+" "+m.GetIndexSyncPhase().String())
		}
		return out
	}
	const full, incr = " ISP_FULL", " ISP_INCR"
	equal(t, "phases", phases(), []string{"at-once" + incr, "with" + full, "without" + incr})
	for index, rows := range map[string]int{"at-once": 1, "without": 0} {
		if found, err := scanAll(c, index, []string{map[string]string{"at-once": "str", "without": "int"}[index], "pk1", "pk2"}); err != nil || len(found) != rows {
			t.Errorf("index %s has %d rows, %v, want %d", index, len(found), err, rows)
		}
	}
	_, err := scanAll(c, "with", []string{"int", "pk1", "pk2"})
	want(t, err, 400, badParameter, "Disallow read index table in building base state")
	_, err = c.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: &tablestore.SingleRowQueryCriteria{TableName: "with", MaxVersion: 1, PrimaryKey: &tablestore.PrimaryKey{PrimaryKeys: []*tablestore.PrimaryKeyColumn{
		{ColumnName: "int", Value: int64(1)}, {ColumnName: "pk1", Value: int64(1)}, {ColumnName: "pk2", Value: int64(1)}}}}})
	want(t, err, 400, badParameter, "Disallow read index table in building base state")
	now.advance(time.Minute)
	awaitIndexes(t, s)
	equal(t, "phases", phases(), []string{"at-once" + incr, "with" + incr, "without" + incr})
	rows, err := scanAll(c, "with", []string{"int", "pk1", "pk2"})
	ok(t, err)
	if keysOf(rows) != "1,1,1" {
		t.Errorf("the index has %s", keysOf(rows))
	}
	// An update of a row that is older than the index makes its entry.
	ok(t, update(c, key(1, 1), cell{"free", "x", -1}))
	rows, err = scanAll(c, "without", []string{"int", "pk1", "pk2"})
	ok(t, err)
	if keysOf(rows) != "1,1,1" {
		t.Errorf("the index without base data has %s", keysOf(rows))
	}
}

// TestIndexDroppedInBuild drops an index while it is built and makes another of its name,
// again and again: what is left has the table's rows and no others.
func TestIndexDroppedInBuild(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := inProcess(s)
	createDefined(t, c, nil)
	for i := 0; i < 3000; i += 200 {
		batch := &tablestore.BatchWriteRowRequest{}
		for j := range 200 {
			batch.AddRowChange(putChange(key(i+j, 0), cell{"int", int64(j % 7), -1}, cell{"str", fmt.Sprint(j % 3), -1}))
		}
		_, err := c.BatchWriteRow(batch)
		ok(t, err)
	}
	last := indexMeta("i", false, []string{"int"}, nil)
	for round := range 20 {
		last = indexMeta("i", false, []string{[]string{"int", "str"}[round%2]}, nil)
		ok(t, createIndex(c, last, true))
		if round < 19 {
			ok(t, dropIndex(c, "i"))
		}
	}
	awaitIndexes(t, s)
	if n := compareIndexes(t, c, []*tablestore.IndexMeta{last}, func(string, string) bool { return true }); n != 3000 {
		t.Errorf("%d entries", n)
	}
}

// TestIndexedValues shows what of a row's values can't be indexed: too long ones and
// those of other types, which come from before their column was defined.
func TestIndexedValues(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	create(t, c, tablestore.TableOption{DeviationCellVersionInSec: anyTime}, integer, integer)
	long := strings.Repeat("x", 1025)
	for i, v := range []any{"fits", long[:1024], long, int64(1), []byte("b"), true} {
		ok(t, put(c, key(i, 0), cell{"str", v, 5}))
	}
	_, err := c.AddDefinedColumn(&tablestore.AddDefinedColumnRequest{TableName: "t", DefinedColumns: []*tablestore.DefinedColumnSchema{{Name: "str", ColumnType: tablestore.DefinedColumn_STRING}}})
	ok(t, err)
	ok(t, createIndex(c, indexMeta("i", false, []string{"str"}, nil), true))
	awaitIndexes(t, s)
	rows, err := scanAll(c, "i", []string{"str", "pk1", "pk2"})
	ok(t, err)
	if got, want := keysOf(rows), "fits,0,0 "+long[:1024]+",1,0"; got != want {
		t.Errorf("the index has %.200s", got)
	}
	const tooLong = "The length of primary key column: 'str' exceeds the MaxLength:1024 with CurrentLength:1025."
	want(t, put(c, key(9, 0), cell{"str", long, -1}), 400, badParameter, tooLong)
	want(t, update(c, key(9, 0), cell{"str", long, -1}), 400, badParameter, tooLong)
	want(t, put(c, key(9, 0), cell{"str", int64(1), -1}), 400, badParameter, "Invalid column type for column str expect VT_STRING actual VT_INTEGER")
	ok(t, put(c, key(9, 0), cell{"free", long, -1}))
	// What is not indexed can be changed to what is, and removed.
	ok(t, put(c, key(2, 0), cell{"str", "now", -1}))
	for i := range 6 {
		if i != 2 {
			ok(t, remove(c, key(i, 0)))
		}
	}
	rows, err = scanAll(c, "i", []string{"str", "pk1", "pk2"})
	ok(t, err)
	if got := keysOf(rows); got != "now,2,0" {
		t.Errorf("the index has %s", got)
	}
}

// TestIndexReads reads an index in the ways that tables are read.
func TestIndexReads(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	createDefined(t, c, func(r *tablestore.CreateTableRequest) {
		r.IndexMetas = []*tablestore.IndexMeta{indexMeta("i", false, []string{"str", "int"}, []string{"dbl", "bool"})}
	})
	for i := range 20 {
		ok(t, put(c, key(i, 0), cell{"str", fmt.Sprint("s", i%3), -1}, cell{"int", int64(i), -1}, cell{"dbl", float64(i), -1}, cell{"bool", i%2 == 0, -1}, cell{"free", "x", -1}))
	}
	pk := func(str string, n int64) *tablestore.PrimaryKey {
		p := &tablestore.PrimaryKey{}
		p.AddPrimaryKeyColumn("str", str)
		p.AddPrimaryKeyColumn("int", n)
		p.AddPrimaryKeyColumn("pk1", n)
		p.AddPrimaryKeyColumn("pk2", int64(0))
		return p
	}
	res, err := c.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: &tablestore.SingleRowQueryCriteria{TableName: "i", PrimaryKey: pk("s1", 4), MaxVersion: 1}})
	ok(t, err)
	if got := fmt.Sprint(keyText(&res.PrimaryKey), cellValues(res.Columns)); got != "s1,4,4,0[true 4]" {
		t.Errorf("the row is %s", got)
	}
	p, err := tryPage(c, pk("s2", 5), pk("s1", 5), func(q *tablestore.RangeRowQueryCriteria) {
		q.TableName, q.Direction, q.ColumnsToGet, q.Limit = "i", tablestore.BACKWARD, []string{"bool"}, 3
		q.Filter = tablestore.NewSingleColumnCondition("bool", tablestore.CT_EQUAL, true)
	})
	ok(t, err)
	if got := keysOf(p.Rows); got != "s2,2,2,0 s1,16,16,0 s1,10,10,0" || len(p.Rows[0].Columns) != 1 {
		t.Errorf("backward it has %s", got)
	}
	split, err := c.ComputeSplitPointsBySize(&tablestore.ComputeSplitPointsBySizeRequest{TableName: "i", SplitSize: 1})
	ok(t, err)
	if len(split.Splits) != 1 || len(split.Splits[0].LowerBound.PrimaryKeys) != 4 {
		t.Errorf("splits %+v", split)
	}
	meta := describeRaw(t, s, "i").TableMeta
	var names []string
	for _, k := range meta.PrimaryKey {
		names = append(names, k.GetName())
	}
	equal(t, "key of the index", names, []string{"str", "int", "pk1", "pk2"})
	batch := &tablestore.MultiRowQueryCriteria{TableName: "i", MaxVersion: 1}
	batch.AddRow(pk("s0", 0))
	batch.AddRow(pk("s0", 1))
	several, err := c.BatchGetRow(&tablestore.BatchGetRowRequest{MultiRowQueryCriteria: []*tablestore.MultiRowQueryCriteria{batch}})
	ok(t, err)
	if r := several.TableToRowsResult["i"]; len(r[0].Columns) != 2 || len(r[1].Columns) != 0 {
		t.Errorf("a batch reads %+v", r)
	}
}

// TestIndexedTimestamps turns on what a newer service may allow.
func TestIndexedTimestamps(t *testing.T) {
	s := otstest.Run(t, ots.Config{Behavior: engine.Behavior{Writes: engine.WriteBehavior{IndexedTimestamps: true}}})
	c := connect(s)
	createDefined(t, c, func(r *tablestore.CreateTableRequest) {
		r.IndexMetas = []*tablestore.IndexMeta{indexMeta("i", false, []string{"int"}, []string{"str"})}
	})
	at := time.Now().UnixMilli()
	batch := &tablestore.BatchWriteRowRequest{}
	for i := range 3 {
		batch.AddRowChange(putChange(key(1, 1), cell{"int", int64(i), at + int64(i)}, cell{"str", fmt.Sprint(i), at}))
	}
	res, err := c.BatchWriteRow(batch)
	ok(t, err)
	for _, r := range res.TableToRowsResult["t"] {
		if !r.IsSucceed {
			t.Errorf("row %d: %s", r.Index, r.Error.Message)
		}
	}
	// An older version does not change what is indexed.
	ok(t, update(c, key(1, 1), cell{"int", int64(9), at}))
	if n := compareIndexes(t, c, []*tablestore.IndexMeta{indexMeta("i", false, []string{"int"}, []string{"str"})}, func(string, string) bool { return true }); n != 1 {
		t.Errorf("%d entries", n)
	}
	rows, err := scanAll(c, "i", []string{"int", "pk1", "pk2"})
	ok(t, err)
	if keysOf(rows) != "2,1,1" {
		t.Errorf("the index has %s", keysOf(rows))
	}
}

func bounds(b bound, names ...string) *tablestore.PrimaryKey {
	pk := &tablestore.PrimaryKey{}
	for _, n := range names {
		if b == lowest {
			pk.AddPrimaryKeyColumnWithMinValue(n)
		} else {
			pk.AddPrimaryKeyColumnWithMaxValue(n)
		}
	}
	return pk
}

func cellValues(columns []*tablestore.AttributeColumn) (out []any) {
	for _, c := range columns {
		out = append(out, c.Value)
	}
	return out
}

// TestIndexLag has a global index, and a search index, show the table as it was a while
// ago, whatever is written meanwhile: row by row, in batches, in transactions and by an
// eviction. A local index, which is updated with its table, does not lag.
func TestIndexLag(t *testing.T) {
	const lag = 10 * time.Second
	now := newClock(time.UnixMilli(1_700_000_000_000))
	s := otstest.Run(t, ots.Config{Now: now.now})
	c := inProcess(s)
	yes := true
	createDefined(t, c, func(r *tablestore.CreateTableRequest) {
		r.EnableLocalTxn = &yes
		r.IndexMetas = []*tablestore.IndexMeta{indexMeta("g", false, []string{"int"}, nil), indexMeta("l", true, []string{"pk1", "int"}, nil)}
	})
	makeSearch(t, s, "s", searchField("int", otsprotocol.FieldType_LONG))
	shown := func(index string) string {
		var rows []*tablestore.Row
		var err error
		switch index {
		case "s":
			for _, row := range searchAll(t, s, "s") {
				rows = append(rows, &tablestore.Row{PrimaryKey: row.PrimaryKey})
			}
		case "g":
			rows, err = scanAll(c, "g", []string{"int", "pk1", "pk2"})
		default:
			rows, err = scanAll(c, "l", []string{"pk1", "int", "pk2"})
		}
		ok(t, err)
		return keysOf(rows)
	}
	set := func(second int, n int64) cell { return cell{"int", n, -1} }
	ok(t, put(c, key(1, 1), set(1, 5))) // before there is a lag
	s.Engine().SetBehavior(engine.Behavior{Indexes: engine.IndexBehavior{Lag: lag}})
	type states struct{ g, l, s string }
	history := []states{{"5,1,1", "1,5,1", "1,1"}}
	for _, step := range []struct {
		do   func() error
		then states
	}{
		{func() error { return put(c, key(1, 2), set(2, 3)) }, states{"3,1,2 5,1,1", "1,3,2 1,5,1", "1,1 1,2"}},
		{func() error { return update(c, key(1, 1), set(1, 1)) }, states{"1,1,1 3,1,2", "1,1,1 1,3,2", "1,1 1,2"}},
		{func() error { return remove(c, key(1, 2)) }, states{"1,1,1", "1,1,1", "1,1"}},
		{func() error {
			batch := batchOf(putChange(key(1, 3), set(3, 7)), putChange(key(1, 4), set(4, 6)))
			batch.IsAtomic = true
			return batchError(c.BatchWriteRow(batch))
		}, states{"1,1,1 6,1,4 7,1,3", "1,1,1 1,6,4 1,7,3", "1,1 1,3 1,4"}},
		{func() error {
			return inTransaction(c, key(1, 9), func(id *string) error { return putIn(c, *id, key(1, 9), set(9, 0)) })
		}, states{"0,1,9 1,1,1 6,1,4 7,1,3", "1,0,9 1,1,1 1,6,4 1,7,3", "1,1 1,3 1,4 1,9"}},
	} {
		now.advance(lag / 4)
		ok(t, step.do())
		now.advance(lag / 4)
		history = append(history, step.then)
		behind := history[max(0, len(history)-3)]
		if got := (states{shown("g"), shown("l"), shown("s")}); got != (states{behind.g, step.then.l, behind.s}) {
			t.Errorf("after step %d the indexes show %+v, want those of the step before %+v and at once %q", len(history)-1, got, behind, step.then.l)
		}
		if row, err := c.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: &tablestore.SingleRowQueryCriteria{TableName: "t", PrimaryKey: key(1, 1), MaxVersion: 1}}); err != nil || len(row.Columns) == 0 {
			t.Errorf("the table's own row is not there: %v", err)
		}
	}
	now.advance(lag)
	last := history[len(history)-1]
	if got := (states{shown("g"), shown("l"), shown("s")}); got != last {
		t.Errorf("in the end the indexes show %+v, want %+v", got, last)
	}
	// GetRow of an index goes by it, too.
	ok(t, put(c, key(2, 2), cell{"int", int64(2), -1}))
	entry := &tablestore.PrimaryKey{}
	for _, k := range []string{"int", "pk1", "pk2"} {
		entry.AddPrimaryKeyColumn(k, int64(2))
	}
	there := func() bool {
		res, err := c.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: &tablestore.SingleRowQueryCriteria{TableName: "g", PrimaryKey: entry, MaxVersion: 1}})
		ok(t, err)
		return len(res.PrimaryKey.PrimaryKeys) > 0
	}
	if there() {
		t.Error("an entry is there at once")
	}
	now.advance(lag)
	if !there() {
		t.Error("an entry is not there when it is due")
	}
}
