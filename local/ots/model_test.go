package ots_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/otstest"
)

// The model of a table: rows by key, of cells by name and timestamp. It applies the rules
// as a reader of the documentation would, with no thought of bytes.
type model struct {
	rows     map[int]map[string]map[int64]any
	versions int
	ttl      int64 // seconds
}

func (m *model) expired(ts, now int64) bool { return ts/1000+m.ttl < now/1000 }

// visible is the row as a read of n versions sees it, in order.
func (m *model) visible(row int, now int64, n int) []cell {
	var out []cell
	for _, name := range slices.Sorted(keys(m.rows[row])) {
		times := slices.Collect(keys(m.rows[row][name]))
		slices.SortFunc(times, func(a, b int64) int { return cmp.Compare(b, a) })
		for i, ts := range times {
			if i < n && i < m.versions && !m.expired(ts, now) {
				out = append(out, cell{name, m.rows[row][name][ts], ts})
			}
		}
	}
	return out
}

func keys[K comparable, V any](m map[K]V) func(func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// settle forgets, after a write, what the write may drop for good.
func (m *model) settle(row int, now int64) {
	seen := m.visible(row, now, m.versions)
	if m.rows[row] == nil {
		return
	}
	clear(m.rows[row])
	for _, c := range seen {
		m.set(row, c)
	}
}

func (m *model) set(row int, c cell) {
	if m.rows[row] == nil {
		m.rows[row] = map[string]map[int64]any{}
	}
	if m.rows[row][c.Name] == nil {
		m.rows[row][c.Name] = map[int64]any{}
	}
	m.rows[row][c.Name][c.Time] = c.Value
}

func (m *model) put(row int, cells []cell, now int64) {
	m.rows[row] = map[string]map[int64]any{}
	for _, c := range cells {
		m.set(row, c)
	}
	m.settle(row, now)
}

func (m *model) update(row int, cells []cell, now int64) {
	m.settle(row, now)
	for _, c := range cells {
		switch {
		case c.Value == deleteAll:
			delete(m.rows[row], c.Name)
		case c.Value == deleteOne:
			delete(m.rows[row][c.Name], c.Time)
		default:
			m.set(row, c)
		}
	}
	m.settle(row, now)
}

// TestModel makes random operations from several clients at a time, each on keys of its
// own, and compares every read with the model. Between rounds the clock moves on, so that
// cells expire.
func TestModel(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]struct {
		dir    bool
		rounds int
	}{"memory": {false, 40}, "file": {true, 4}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			now := newClock(time.UnixMilli(1_700_000_000_000))
			options := ots.Config{Now: now.now}
			if config.dir {
				options.Dir = t.TempDir()
			}
			s := otstest.New(t, options)
			const versions, ttl, clients = 3, 1000, 4
			create(t, inProcess(s), tablestore.TableOption{MaxVersion: versions, TimeToAlive: ttl, DeviationCellVersionInSec: ttl}, integer, integer)
			walkers := make([]*walker, clients)
			for i := range walkers {
				walkers[i] = &walker{
					t: t, c: inProcess(s), id: i, now: now,
					rng: rand.New(rand.NewPCG(seed, uint64(i))),
					m:   &model{rows: map[int]map[string]map[int64]any{}, versions: versions, ttl: ttl},
				}
			}
			for range config.rounds {
				var wg sync.WaitGroup
				for _, w := range walkers {
					wg.Go(func() {
						for range 150 {
							w.step()
						}
					})
				}
				wg.Wait()
				if t.Failed() {
					return
				}
				now.advance(time.Duration(walkers[0].rng.IntN(200_000)) * time.Millisecond)
			}
			reads, found := 0, 0
			for _, w := range walkers {
				reads, found = reads+w.reads, found+w.found
			}
			t.Logf("%d operations, %d rows compared, %d of them with cells", config.rounds*clients*150, reads, found)
			if found < reads/10 || reads == 0 {
				t.Error("too little was compared")
			}
		})
	}
}

// inProcess is a client that calls the server directly.
func inProcess(s *ots.Server) *tablestore.TableStoreClient {
	config := tablestore.NewDefaultTableStoreConfig()
	config.RetryTimes = 0
	config.Transport = s
	return tablestore.NewClientWithConfig("http://in-process", "local", ots.DefaultKeyID, ots.DefaultKeySecret, "", config)
}

type walker struct {
	t     *testing.T
	c     *tablestore.TableStoreClient
	id    int
	now   *clock
	rng   *rand.Rand
	m     *model
	reads int
	found int
}

const modelRows = 30

func (w *walker) cells(update bool) []cell {
	var out []cell
	seen := map[string]bool{}
	for range w.rng.IntN(6) {
		name := fmt.Sprintf("c%d", w.rng.IntN(5))
		// Timestamps are multiples of ten, so that they meet.
		ts := w.now.millis() - w.now.millis()%10 - int64(w.rng.IntN(99))*10_000
		if ts > w.now.millis() {
			ts = w.now.millis()
		}
		if update && w.rng.IntN(4) == 0 {
			op := deleteAll
			if w.rng.IntN(2) == 0 {
				op = deleteOne
			}
			out = append(out, cell{name, op, ts})
			continue
		}
		if id := fmt.Sprint(name, ts); seen[id] {
			continue
		} else {
			seen[id] = true
		}
		var v any
		switch w.rng.IntN(5) {
		case 0:
			v = int64(w.rng.Uint64())
		case 1:
			v = w.rng.Float64()
		case 2:
			v = w.rng.IntN(2) == 0
		case 3:
			v = strings.Repeat("x", w.rng.IntN(200))
		default:
			v = []byte{byte(w.rng.Uint32()), 0}
		}
		out = append(out, cell{name, v, ts})
	}
	return out
}

func (w *walker) step() {
	row, now := w.rng.IntN(modelRows), w.now.millis()
	pk := key(w.id, row)
	_, there := w.m.rows[row]
	switch w.rng.IntN(10) {
	case 0, 1:
		cells := w.cells(false)
		w.check(put(w.c, pk, cells...))
		w.m.put(row, cells, now)
	case 2, 3:
		cells := w.cells(true)
		if len(cells) == 0 {
			return
		}
		w.check(update(w.c, pk, cells...))
		if sets := slices.ContainsFunc(cells, func(c cell) bool { return c.Value != deleteAll && c.Value != deleteOne }); sets || there {
			if !there {
				w.m.rows[row] = map[string]map[int64]any{}
			}
			w.m.update(row, cells, now)
		}
	case 4:
		w.check(remove(w.c, pk))
		delete(w.m.rows, row)
	case 5:
		// A change with a condition on the row and one on a column.
		change := updateChange(pk, cell{"c0", "conditional", now})
		expectation := exist
		if w.rng.IntN(2) == 0 {
			expectation = absent
		}
		change.SetCondition(expectation)
		filter := tablestore.NewSingleColumnCondition("c1", tablestore.CT_EQUAL, true)
		filter.FilterIfMissing, filter.LatestVersionOnly = w.rng.IntN(2) == 0, w.rng.IntN(2) == 0
		change.SetColumnCondition(filter)
		meets := there == (expectation == exist) && w.matches(row, now, filter)
		_, err := w.c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: change})
		if meets != (err == nil) {
			w.t.Errorf("row %d of client %d: a condition that holds: %v, is answered %v", row, w.id, meets, err)
		}
		if meets {
			if !there {
				w.m.rows[row] = map[string]map[int64]any{}
			}
			w.m.update(row, []cell{{"c0", "conditional", now}}, now)
		}
	case 6:
		batch := &tablestore.BatchWriteRowRequest{}
		type made struct {
			row   int
			cells []cell
		}
		var all []made
		for range 1 + w.rng.IntN(8) {
			one := made{w.rng.IntN(modelRows), w.cells(false)}
			batch.AddRowChange(putChange(key(w.id, one.row), one.cells...))
			all = append(all, one)
		}
		res, err := w.c.BatchWriteRow(batch)
		w.check(err)
		for i, r := range res.TableToRowsResult["t"] {
			if !r.IsSucceed {
				w.t.Errorf("row %d of a batch: %+v", i, r.Error)
			}
			w.m.put(all[i].row, all[i].cells, now)
		}
	case 7:
		n := 1 + w.rng.IntN(4)
		got, found := get(w.t, w.c, pk, func(q *tablestore.SingleRowQueryCriteria) { q.MaxVersion = int32(n) })
		w.compare(row, found, got, w.m.visible(row, now, n))
	case 8:
		from := now - int64(w.rng.IntN(500_000))
		to := from + 1 + int64(w.rng.IntN(500_000))
		got, found := get(w.t, w.c, pk, func(q *tablestore.SingleRowQueryCriteria) {
			q.MaxVersion, q.TimeRange = 0, &tablestore.TimeRange{Start: from, End: to}
		})
		wanted := slices.DeleteFunc(w.m.visible(row, now, 100), func(c cell) bool { return c.Time < from || c.Time >= to })
		w.compare(row, found, got, wanted)
	default:
		w.scan(now)
	}
}

func (w *walker) matches(row int, now int64, f *tablestore.SingleColumnCondition) bool {
	cells := slices.DeleteFunc(w.m.visible(row, now, 100), func(c cell) bool { return c.Name != "c1" })
	if len(cells) == 0 {
		return !f.FilterIfMissing
	}
	if f.LatestVersionOnly {
		cells = cells[:1]
	}
	return slices.ContainsFunc(cells, func(c cell) bool { return c.Value == true })
}

// scan reads all of the client's rows, forward or backward, in pages.
func (w *walker) scan(now int64) {
	from, to := key(w.id, lowest), key(w.id, highest)
	rows := slices.Sorted(keys(w.m.rows))
	direction := tablestore.FORWARD
	if w.rng.IntN(2) == 0 {
		from, to, direction = to, from, tablestore.BACKWARD
		slices.Reverse(rows)
	}
	limit := int32(1 + w.rng.IntN(modelRows))
	for from != nil {
		p := page(w.t, w.c, from, to, func(q *tablestore.RangeRowQueryCriteria) { q.Direction, q.Limit = direction, limit })
		for _, r := range p.Rows {
			n := int(r.PrimaryKey.PrimaryKeys[1].Value.(int64))
			if len(rows) == 0 || rows[0] != n {
				w.t.Errorf("client %d: a range has row %d where %v are left", w.id, n, rows)
				return
			}
			rows = rows[1:]
			w.compare(n, true, cellsOf(r.Columns), w.m.visible(n, now, 100))
		}
		from = p.NextStartPrimaryKey
	}
	if len(rows) > 0 {
		w.t.Errorf("client %d: a range lacks rows %v", w.id, rows)
	}
}

func (w *walker) compare(row int, found bool, got, want []cell) {
	w.reads++
	_, there := w.m.rows[row]
	if found != there || fmt.Sprint(got) != fmt.Sprint(want) {
		w.t.Errorf("row %d of client %d: there %v, %v\nwant %v, %v", row, w.id, found, got, there, want)
	}
	if len(got) > 0 {
		w.found++
	}
}

func (w *walker) check(err error) {
	if err != nil {
		w.t.Errorf("client %d: %v", w.id, err)
	}
}
