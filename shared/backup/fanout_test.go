package backup_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/objectfault"
	"github.com/tablevault/tablevault/shared/object/objectmeter"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
)

// long is set by CI: larger runs of what the tests do anyway.
var long = flag.Bool("fanout.long", false, "run the fan-out tests at full size")

// cut is an instance that proposes the given split points.
type cut struct {
	table.Instance
	points []table.Key
}

func (c cut) SplitPoints(context.Context, string, table.Schema, int64) ([]table.Key, error) {
	return c.points, nil
}

// plan plans a full of the source, cut at the given keys.
func (w *world) plan(p *backup.Planner, settings vault.Settings, points ...table.Key) vault.Backup {
	w.t.Helper()
	p.Tables = cut{w.tables, points}
	plan, err := p.Plan(w.t.Context(), backup.PlanRequest{Table: sourceID, Kind: vault.Full, At: w.clock(), Trigger: "test", New: true, Settings: settings})
	if err != nil {
		w.t.Fatal(err)
	}
	return vault.Backup{Table: sourceID, ID: plan.Backup}
}

func (w *world) tickBackup(p *backup.Planner, b vault.Backup) backup.Progress {
	w.t.Helper()
	progress, err := p.Tick(w.t.Context(), w.run(), b)
	if err != nil {
		w.t.Fatal(err)
	}
	return progress
}

// sealed works and looks until the backup is sealed.
func (w *world) sealed(p *backup.Planner, b vault.Backup) *vault.Manifest {
	w.t.Helper()
	for range 200 {
		w.work()
		progress := w.tickBackup(p, b)
		if progress.State != backup.StateRunning {
			if progress.State != backup.StateSealed {
				w.t.Fatalf("%+v", progress)
			}
			return progress.Manifest
		}
		if progress.Dispatched == 0 {
			w.advance(11 * time.Minute)
		}
	}
	w.t.Fatal("the backup does not end")
	return nil
}

// export runs one invocation.
func (w *world) export(work fanout.Work) backup.ExportReply {
	w.t.Helper()
	reply, err := w.exporter().Export(w.t.Context(), w.run(), work)
	if err != nil {
		w.t.Fatal(err)
	}
	return reply
}

// lag is a backup of one segment whose worker has stored some parts and handed
// over, and which the planner has asked to be split since.
func (w *world) lag(p *backup.Planner, settings vault.Settings) (vault.Backup, fanout.Work) {
	w.t.Helper()
	w.hop = 20
	b := w.plan(p, settings)
	if progress := w.tickBackup(p, b); progress.Dispatched != 1 || progress.Segments != 1 {
		w.t.Fatalf("%+v", progress)
	}
	first, _ := w.take()
	if reply := w.export(first); !reply.Continued || reply.Parts == 0 {
		w.t.Fatalf("%+v", reply)
	}
	// Nobody is asked who has only just begun.
	if progress := w.tickBackup(p, b); progress.Asked != 0 || progress.Live != 1 {
		w.t.Fatalf("%+v", progress)
	}
	w.advance(2 * time.Minute)
	if progress := w.tickBackup(p, b); progress.Asked != 1 || progress.Live != 1 || progress.Dispatched != 0 {
		w.t.Fatalf("%+v", progress)
	}
	w.advance(time.Second)
	if progress := w.tickBackup(p, b); progress.Asked != 0 {
		w.t.Fatalf("asked twice: %+v", progress)
	}
	next, ok := w.take()
	if !ok || next.Start != 1 {
		w.t.Fatalf("%+v goes on", next)
	}
	w.hop = 0
	return b, next
}

// shares are the rows of each segment of a backup.
func (w *world) shares(m *vault.Manifest) map[vault.SegmentID]int64 {
	w.t.Helper()
	rows := map[vault.SegmentID]int64{}
	for g, err := range w.repo.Groups(w.t.Context(), m) {
		if err != nil {
			w.t.Fatal(err)
		}
		for _, s := range g.Segments {
			rows[s.Segment.ID] = 0
			for _, slot := range s.Slots {
				if slot.Part != nil {
					rows[s.Segment.ID] += slot.Part.Rows
				}
			}
		}
	}
	return rows
}

// keyed makes a table whose rows have the given keys, one short cell each.
func (w *world) keyed(schema table.Schema, keys iterKeys) int {
	w.t.Helper()
	def := definition()
	def.Schema = schema
	w.tables.Make(def)
	n := 0
	keys(func(k table.Key) {
		w.tables.Put(def.Name, tabletest.Row{Key: k, Cells: []plainbuffer.Cell{tabletest.Cell("c", 1, n)}})
		n++
	})
	return n
}

type iterKeys func(put func(table.Key))

// TestSplit splits a segment where its worker stands. The backup holds each row
// once, its coverage is proved, it can be restored, and the children have about
// as many rows, whatever the keys are made of.
func TestSplit(t *testing.T) {
	const rows = 1500
	text := func(form string) iterKeys {
		return func(put func(table.Key)) {
			for i := range rows {
				put(table.Key{table.String(fmt.Sprintf(form, i))})
			}
		}
	}
	random := rand.New(rand.NewPCG(1, 1))
	oneOf := func(kind table.KeyType) table.Schema { return table.Schema{{Name: "k", Type: kind}} }
	for _, test := range []struct {
		name   string
		schema table.Schema
		keys   iterKeys
		lanes  int
	}{
		{"integers", oneOf(table.IntegerKey), func(put func(table.Key)) {
			for i := range rows {
				put(table.Key{table.Integer(int64(i) - 100)})
			}
		}, 1},
		{"large integers", oneOf(table.IntegerKey), func(put func(table.Key)) {
			for i := range rows {
				put(table.Key{table.Integer(1_700_000_000_000 + int64(i)*1000)})
			}
		}, 1},
		{"numbers as text", oneOf(table.StringKey), text("order-%09d"), 1},
		{"hexadecimal", oneOf(table.StringKey), func(put func(table.Key)) {
			for range rows {
				put(table.Key{table.String(fmt.Sprintf("%016x", random.Uint64()))})
			}
		}, 1},
		{"a long common beginning", oneOf(table.StringKey), text(strings.Repeat("prefix/", 20) + "%06d"), 1},
		{"beyond ASCII", oneOf(table.StringKey), text("订单/é%06d"), 1},
		{"of another script", oneOf(table.StringKey), func(put func(table.Key)) {
			for range rows {
				put(table.Key{table.String(string([]rune{rune(0x4e00 + random.IntN(0x5000)), rune(0x4e00 + random.IntN(0x5000))}))})
			}
		}, 1},
		{"blobs", oneOf(table.BinaryKey), func(put func(table.Key)) {
			for i := range rows {
				put(table.Key{table.Binary([]byte{0xff, 0xfe, byte(i >> 8), byte(i), byte(i * 7)})})
			}
		}, 1},
		{"one partition key", table.Schema{{Name: "p", Type: table.StringKey}, {Name: "s", Type: table.IntegerKey}}, func(put func(table.Key)) {
			for i := range rows {
				put(table.Key{table.String("hot"), table.Integer(int64(i))})
			}
		}, 1},
		{"a hot partition key, and others after it", table.Schema{{Name: "p", Type: table.StringKey}, {Name: "s", Type: table.IntegerKey}}, func(put func(table.Key)) {
			for i := range rows {
				if i < rows*9/10 {
					put(table.Key{table.String("hot"), table.Integer(int64(i))})
				} else {
					put(table.Key{table.String(fmt.Sprint("later", i)), table.Integer(0)})
				}
			}
		}, 1},
		{"lanes", oneOf(table.IntegerKey), func(put func(table.Key)) {
			for i := range rows {
				put(table.Key{table.Integer(int64(i))})
			}
		}, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.tables.PageRows = 10
			n := w.keyed(test.schema, test.keys)
			p := w.planner()
			p.Workers = 8
			settings := vault.Settings{Lanes: test.lanes, PartBytes: 4 << 10}
			b, next := w.lag(p, settings)
			reply := w.export(next)
			if reply.Split != 1 || reply.Ended == 0 {
				t.Fatalf("%+v", reply)
			}
			m := w.sealed(p, b)
			same(t, contents(t, w.repo, m), rowsOf(w.tables))
			if m.Totals.Rows != int64(n) {
				t.Errorf("%d rows of %d", m.Totals.Rows, n)
			}
			shares := w.shares(m)
			root := shares["000000"]
			delete(shares, "000000")
			most := slices.Max(slices.Collect(maps.Values(shares)))
			t.Logf("%d rows before the split, then %d segments of at most %d", root, len(shares), most)
			if len(shares) < 8 || len(shares) != m.Segments-1 || root == 0 {
				t.Errorf("%d rows, then %d segments", root, len(shares))
			}
			// A level of the key before the last gets a share of the cuts, and text lies as
			// it likes: three quarters more than an even cut gives is even enough.
			if even := (int64(n) - root) / 8; most > even*7/4+40 {
				t.Errorf("a segment has %d rows of %d: %v", most, int64(n)-root, shares)
			}
			w.proved(w.restore(m), vault.OK)
		})
	}
}

// rowsOf are the source's rows as contents prints them.
func rowsOf(tables *tabletest.Tables) map[string]string {
	rows := map[string]string{}
	for _, r := range tables.Rows(sourceID.Table) {
		rows[r.Key.String()] = print(r.Cells)
	}
	return rows
}

// ints makes a table of so many integers.
func ints(n int) iterKeys {
	return func(put func(table.Key)) {
		for i := range n {
			put(table.Key{table.Integer(int64(i))})
		}
	}
}

var intKey = table.Schema{{Name: "k", Type: table.IntegerKey}}

// TestSplitSurvives fails each call to the store while a segment is split, before
// and after its effect; whoever comes after completes the backup.
func TestSplitSurvives(t *testing.T) {
	swept, ops := 0, []objectfault.Op{objectfault.Create}
	if *long {
		ops = append(ops, objectfault.Open, objectfault.List)
	}
	for fault := range objectfault.Sweep(ops...) {
		swept++
		w := newWorld(t)
		w.quiet = true
		w.tables.PageRows = 5
		w.keyed(intKey, ints(120))
		p := w.planner()
		p.Workers = 2
		b, next := w.lag(p, vault.Settings{Lanes: 1})
		broken, err := repository.Open(t.Context(), objectfault.New(w.store, fault))
		if err == nil {
			e := w.exporter()
			e.Repo = broken
			if _, err = e.Export(t.Context(), w.run(), next); err != nil {
				w.queue = append(w.queue, next)
			}
		}
		if err != nil && !errors.Is(err, objectfault.ErrInjected) {
			t.Fatalf("%v: %v", fault, err)
		}
		same(t, contents(t, w.repo, w.sealed(p, b)), rowsOf(w.tables))
	}
	if swept < 15 {
		t.Fatalf("only %d faults were tried", swept)
	}
	t.Logf("%d faults", swept)
}

// TestSplitOnce lets several deliveries split the same segment side by side: one
// of them wins the slot, the others obey.
func TestSplitOnce(t *testing.T) {
	for range 10 {
		w := newWorld(t)
		w.tables.PageRows = 10
		w.keyed(intKey, ints(300))
		p := w.planner()
		p.Workers = 4
		b, next := w.lag(p, vault.Settings{Lanes: 1, PartBytes: 2 << 10})
		var all sync.WaitGroup
		for retry := range 3 {
			all.Go(func() {
				run := w.run()
				run.Retry = retry // so that none takes itself for a second delivery
				if _, err := w.exporter().Export(t.Context(), run, next); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		same(t, contents(t, w.repo, w.sealed(p, b)), rowsOf(w.tables))
	}
}

// TestSplitAgain splits what came from a split, and does not split what can't be.
func TestSplitAgain(t *testing.T) {
	w := newWorld(t)
	w.tables.PageRows = 10
	// Nearly all rows lie close together at the end of a wide span, so that even
	// cuts leave them in one segment.
	w.keyed(intKey, func(put func(table.Key)) {
		for i := range 2000 {
			put(table.Key{table.Integer(int64(i))})
		}
		put(table.Key{table.Integer(1 << 50)})
	})
	p := w.planner()
	p.Workers = 4
	b, next := w.lag(p, vault.Settings{Lanes: 1, PartBytes: 1 << 10})
	w.hop = 60
	deepest := 0
	for range 400 {
		if _, err := w.exporter().Export(t.Context(), w.run(), next); err != nil {
			t.Fatal(err)
		}
		w.advance(90 * time.Second)
		progress := w.tickBackup(p, b)
		if progress.Manifest != nil {
			for id := range w.shares(progress.Manifest) {
				deepest = max(deepest, id.Generation())
			}
			break
		}
		var ok bool
		if next, ok = w.take(); !ok {
			w.advance(11 * time.Minute)
			w.tickBackup(p, b)
			if next, ok = w.take(); !ok {
				t.Fatalf("nothing goes on: %+v", progress)
			}
		}
	}
	if deepest < 2 {
		t.Errorf("%d generations: what lags after a split is not split again", deepest)
	}
	same(t, contents(t, w.repo, w.sealed(p, b)), rowsOf(w.tables))
}

// TestWorkersGoOn backs up a table of two groups with four workers and one
// tick: they work until nothing is left, at a list per segment.
func TestWorkersGoOn(t *testing.T) {
	const segments, rows = 300, 2
	w := newWorld(t)
	meter := objectmeter.New(w.store)
	var err error
	if w.repo, err = repository.Open(t.Context(), meter); err != nil {
		t.Fatal(err)
	}
	w.keyed(intKey, ints(segments*rows))
	p := w.planner()
	p.Workers = 4
	var points []table.Key
	for i := 1; i < segments; i++ {
		points = append(points, table.Key{table.Integer(int64(i * rows))})
	}
	b := w.plan(p, vault.Settings{Lanes: 1}, points...)
	if progress := w.tickBackup(p, b); progress.Dispatched != 4 || progress.Segments != segments {
		t.Fatalf("%+v", progress)
	}
	before := meter.Usage()
	ended := 0
	for _, work := range w.drain() {
		ended += w.export(work).Ended
	}
	if ended != segments || len(w.queue) > 0 {
		t.Errorf("%d of %d segments have ended, %d invocations are to come", ended, segments, len(w.queue))
	}
	// Beside the lists by which they are found, a segment costs two reads of its
	// empty log and of its start, and five objects.
	used := meter.Usage().Sub(before)
	if used.List > segments+20 || used.Create > 5*segments+20 {
		t.Errorf("%d lists and %d objects for %d segments", used.List, used.Create, segments)
	}
	if m := w.sealed(p, b); m.Totals.Rows != segments*rows {
		t.Errorf("%d rows", m.Totals.Rows)
	}
}

// TestWorkersGoOnSideBySide races many workers for few segments: each is begun
// once.
func TestWorkersGoOnSideBySide(t *testing.T) {
	const segments = 60
	w := newWorld(t)
	w.keyed(intKey, ints(segments))
	p := w.planner()
	var points []table.Key
	for i := 1; i < segments; i++ {
		points = append(points, table.Key{table.Integer(int64(i))})
	}
	b := w.plan(p, vault.Settings{Lanes: 1}, points...)
	p.Workers = 12
	w.tickBackup(p, b)
	var all sync.WaitGroup
	for _, work := range w.drain() {
		all.Go(func() {
			if _, err := w.exporter().Export(t.Context(), w.run(), work); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i := range segments {
		for info, err := range w.store.List(t.Context(), b.Log().Starts(vault.NewSegmentID(i)), "") {
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(info.Name, "000000.json") {
				t.Errorf("begun more than once: %s", info.Name)
			}
		}
	}
	w.sealed(p, b)
}

// TestSecondDeliveryLeavesTheFirstAlone: a start that is at work is not begun
// again by a second delivery, but by a retry, and by anyone once it is over.
func TestSecondDeliveryLeavesTheFirstAlone(t *testing.T) {
	w := newWorld(t)
	w.fill(definition(), 30)
	p := w.planner()
	b := w.plan(p, vault.Settings{})
	w.tickBackup(p, b)
	work, _ := w.take()
	if err := beginAndDie(w, work); err != nil {
		t.Fatal(err)
	}
	if reply := w.export(work); !reply.Superseded || reply.Parts != 0 {
		t.Fatalf("a second delivery: %+v", reply)
	}
	again := w.run()
	again.Retry = 1
	if reply, err := w.exporter().Export(t.Context(), again, work); err != nil || !reply.Done || reply.Start != 1 {
		t.Fatalf("a retry: %+v, %v", reply, err)
	}
	w.sealed(p, b)
}

// TestStartsAreBounded ends a segment that needs too many starts with a failure
// that says so; until then, progress shows how many there were.
func TestStartsAreBounded(t *testing.T) {
	w := newWorld(t)
	w.quiet = true
	w.hop = 6
	w.tables.PageRows = 5
	w.keyed(intKey, ints(1000))
	p := w.planner()
	b := w.plan(p, vault.Settings{Lanes: 1, PartBytes: 1})
	w.tickBackup(p, b)
	seen := 0
	for {
		work, ok := w.take()
		if !ok {
			break
		}
		e := w.exporter()
		e.MaxStarts = 7
		if _, err := e.Export(t.Context(), w.run(), work); err != nil {
			if !fanout.Permanent(err) || !strings.Contains(err.Error(), "too many starts: 7") {
				t.Fatal(err)
			}
			continue
		}
		seen = max(seen, w.tickBackup(p, b).Starts)
	}
	if seen != 6 {
		t.Errorf("progress has shown %d starts", seen)
	}
	if progress := w.tickBackup(p, b); progress.State != backup.StateFailed || progress.Starts != 7 || !strings.Contains(progress.LastError, "give the function more time") {
		t.Errorf("%+v", progress)
	}
}

// TestWorkersThatDie has a segment whose every worker dies without a word: each
// is seen, and after a number of them the segment has failed, with a record that
// says why. When the cause is mended, a person's command goes on.
func TestWorkersThatDie(t *testing.T) {
	w := newWorld(t)
	w.quiet = true
	w.keyed(intKey, ints(100))
	p := w.planner()
	b := w.plan(p, vault.Settings{Lanes: 1})
	deaths := 0
	var last backup.Progress
	for range 100 {
		if last = w.tickBackup(p, b); last.State == backup.StateFailed {
			break
		}
		if deaths > 0 && !strings.Contains(last.LastError, "left no word") {
			t.Fatalf("after %d deaths: %+v", deaths, last)
		}
		work, ok := w.take()
		if !ok {
			t.Fatalf("%+v", last)
		}
		ctx, cancel := context.WithCancel(t.Context())
		w.tables.Fault = func(c tabletest.Call) error {
			if c.Name == "Scan" {
				cancel() // nothing can be written any more
			}
			return nil
		}
		if _, err := w.exporter().Export(ctx, w.run(), work); err == nil {
			t.Fatal("it lives")
		} else if !errors.Is(err, context.Canceled) && !fanout.Permanent(err) {
			t.Fatal(err)
		}
		cancel()
		deaths++
		w.advance(11 * time.Minute)
	}
	if last.State != backup.StateFailed || !strings.Contains(last.LastError, "20 in a row have died") || deaths != 21 {
		t.Fatalf("after %d deaths: %+v", deaths, last)
	}
	w.tables.Fault = nil
	if reply := w.tickBackup(p, b); reply.Dispatched != 0 {
		t.Errorf("it is started again by itself: %+v", reply)
	}
	p.Stale = time.Second
	w.tickBackup(p, b)
	p.Stale = 0
	w.sealed(p, b)
}

// TestGivenAgain has a segment fail for good. Ticks leave it alone; those that
// belong to a command that a person gave after that try it once more, and report
// its next failure.
func TestGivenAgain(t *testing.T) {
	w := newWorld(t)
	w.quiet = true
	w.keyed(intKey, ints(100))
	p := w.planner()
	b := w.plan(p, vault.Settings{Lanes: 1})
	tick := func(state string, dispatched int) {
		t.Helper()
		if progress := w.tickBackup(p, b); progress.State != state || progress.Dispatched != dispatched {
			t.Fatalf("want it %s, with %d dispatched: %+v", state, dispatched, progress)
		}
	}
	fail := func() {
		t.Helper()
		work, ok := w.take()
		w.drain()
		w.tables.Fault = func(c tabletest.Call) error {
			if c.Name == "Scan" {
				return table.ErrPermission
			}
			return nil
		}
		if _, err := w.exporter().Export(t.Context(), w.run(), work); !ok || !errors.Is(err, table.ErrPermission) {
			t.Fatal(ok, err)
		}
		w.tables.Fault = nil
		w.advance(time.Minute)
	}
	tick(backup.StateRunning, 1)
	fail()
	tick(backup.StateFailed, 0)
	p.Since = w.clock()
	tick(backup.StateRunning, 1)
	tick(backup.StateRunning, 1) // its worker has not begun yet
	w.advance(time.Second)
	fail()
	tick(backup.StateFailed, 0)
	p.Since = w.clock()
	tick(backup.StateRunning, 1)
	p.Since = time.Time{}
	w.work()
	tick(backup.StateSealed, 0)
}

// TestBudgetIsDivided gives each worker its share of the table's read units, and
// never has more workers than it was divided over.
func TestBudgetIsDivided(t *testing.T) {
	w := newWorld(t)
	w.keyed(intKey, ints(100))
	points := []table.Key{}
	for i := 1; i < 10; i++ {
		points = append(points, table.Key{table.Integer(int64(i * 10))})
	}
	p := w.planner()
	p.Workers = 4
	b := w.plan(p, vault.Settings{Lanes: 1, ReadUnits: 100}, points...)
	w.tickBackup(p, b)
	queue := w.drain()
	if len(queue) != 4 {
		t.Fatalf("%d workers", len(queue))
	}
	for _, work := range queue {
		if work.ReadUnits != 25 {
			t.Errorf("a worker may read %g units per second", work.ReadUnits)
		}
		if err := beginAndDie(w, work); err != nil {
			t.Fatal(err)
		}
	}
	// The policy allows more by now: the shares are what they are.
	p.Workers = 50
	if progress := w.tickBackup(p, b); progress.Live != 4 || progress.Dispatched != 0 {
		t.Errorf("%+v", progress)
	}
	w.advance(11 * time.Minute)
	w.tickBackup(p, b)
	if queue = w.drain(); len(queue) != 4 || queue[0].ReadUnits != 25 {
		t.Errorf("%+v", queue)
	}
	// A table of one segment has one worker, whose share is all, and goes on so
	// when it is split.
	one := w.plan(w.planner(), vault.Settings{Lanes: 1, ReadUnits: 100, PartBytes: 77})
	w.tickBackup(w.planner(), one)
	if queue = w.drain(); len(queue) != 1 || queue[0].ReadUnits != 100 {
		t.Errorf("%+v", queue)
	}
}

// busy is an instance whose pages cost what they are said to, take their time,
// and may be throttled.
type busy struct {
	table.Instance
	units  int64
	answer func() (time.Duration, bool)
}

func (b busy) Scan(name string, schema table.Schema, r table.Range) table.Scan {
	return busyScan{b.Instance.Scan(name, schema, r), b}
}

type busyScan struct {
	table.Scan
	b busy
}

func (s busyScan) Next(ctx context.Context, buf []byte) (table.Page, error) {
	page, err := s.Scan.Next(ctx, buf)
	took, throttled := s.b.answer()
	time.Sleep(took)
	page.ReadUnits = s.b.units
	if throttled {
		table.Throttled(ctx)
	}
	return page, err
}

// TestPace measures how fast a worker reads, on a clock of its own: to its share,
// and slower while the service is busy. What held it back is in its parts and in
// the planner's progress.
func TestPace(t *testing.T) {
	const pages = 400
	type run struct {
		took time.Duration
		pace *vault.Pace
		seen *fanout.Pace
		rows int64
	}
	read := func(t *testing.T, budget float64, answer func(begun time.Time) (time.Duration, bool)) (r run) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.store = &mem.Store{}
			var err error
			if w.repo, err = repository.Init(t.Context(), w.store, time.Now()); err != nil {
				t.Fatal(err)
			}
			w.tables.PageRows = 1
			w.keyed(intKey, ints(pages))
			p := w.planner()
			p.Now = time.Now
			// Two parts of half of the pages each, so that one is there before the
			// segment ends.
			b := w.plan(p, vault.Settings{Lanes: 1})
			begun := time.Now()
			e := w.exporter()
			e.Tables = busy{w.tables, 10, func() (time.Duration, bool) { return answer(begun) }}
			clock := fanout.Run{Request: "r", Now: time.Now}
			work := fanout.Work{Verb: fanout.VerbExport, Table: sourceID, Backup: b.ID, Segment: "000000", ReadUnits: budget}
			reply, err := e.Export(t.Context(), clock, work)
			if err != nil {
				t.Fatal(err)
			}
			r = run{time.Since(begun), reply.Pace, nil, reply.Rows}
			if progress, err := p.Tick(t.Context(), clock, b); err != nil || progress.Manifest == nil || progress.Manifest.Totals.ReadUnits != 10*pages {
				t.Fatalf("%+v: %v", progress, err)
			}
		})
		return r
	}
	quick := func(time.Time) (time.Duration, bool) { return 10 * time.Millisecond, false }
	free := read(t, 0, quick)
	if free.pace != nil || free.took < 4*time.Second || free.took > 5*time.Second {
		t.Errorf("without a budget: %+v", free)
	}
	held := read(t, 100, quick) // 4,000 units, 95 per second
	if held.pace == nil || held.pace.Reason != vault.PacedByBudget || held.pace.ReadUnits != 100 || held.took < 40*time.Second || held.took > 44*time.Second {
		t.Errorf("with a budget: %v, %+v", held.took, held.pace)
	}
	// For its first ten seconds the service throttles what is above 200 units per
	// second.
	var last time.Time
	throttled := read(t, 0, func(begun time.Time) (time.Duration, bool) {
		now := time.Now()
		busy := now.Sub(begun) < 10*time.Second && now.Sub(last) < 50*time.Millisecond
		last = now
		return 10 * time.Millisecond, busy
	})
	if throttled.pace == nil || throttled.pace.Reason != vault.PacedByService || throttled.pace.Throttled == 0 || throttled.pace.Throttled > 300 ||
		throttled.took < 6*time.Second || throttled.took > 40*time.Second {
		t.Errorf("while the service throttles: %v, %+v", throttled.took, throttled.pace)
	}
	// From its second second to its eighth, answers take fifty times as long.
	slow := read(t, 0, func(begun time.Time) (time.Duration, bool) {
		if d := time.Since(begun); d > time.Second && d < 8*time.Second {
			return 500 * time.Millisecond, false
		}
		return 10 * time.Millisecond, false
	})
	if slow.pace == nil || slow.pace.Reason != vault.PacedByLatency || slow.pace.WaitedMS == 0 || slow.took > time.Minute {
		t.Errorf("while answers are slow: %v, %+v", slow.took, slow.pace)
	}
	t.Logf("free %v, held %v, throttled %v (%+v), slow %v (%+v)", free.took, held.took, throttled.took, *throttled.pace, slow.took, *slow.pace)
}

// TestPaceIsSeen shows in a backup's progress what holds its workers back.
func TestPaceIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tables.PageRows = 5
		w.keyed(intKey, ints(400))
		p := w.planner()
		p.Workers = 2
		b := w.plan(p, vault.Settings{Lanes: 1, PartBytes: 1, ReadUnits: 1000}, table.Key{table.Integer(200)})
		if progress := w.tickBackup(p, b); progress.Pace != nil {
			t.Errorf("before anyone reads: %v", progress.Pace)
		}
		w.hop = 25
		for _, work := range w.drain() {
			e := w.exporter()
			e.Tables = busy{w.tables, 500, func() (time.Duration, bool) { return 0, work.Segment == "000001" }}
			if reply, err := e.Export(t.Context(), w.run(), work); err != nil || !reply.Continued {
				t.Fatalf("%+v: %v", reply, err)
			}
		}
		pace := w.tickBackup(p, b).Pace
		if pace == nil || pace.Workers != 2 || pace.Reason != vault.PacedByService || pace.Throttled == 0 || pace.ReadUnits <= 0 || pace.ReadUnits > 1000 {
			t.Errorf("%+v", pace)
		}
		if s := pace.String(); !strings.Contains(s, "2 workers") || !strings.Contains(s, "throttling") {
			t.Error(s)
		}
	})
}

// slowStore takes its time to store shards.
type slowStore struct {
	object.Store
	shards time.Duration
}

func (s *slowStore) Create(ctx context.Context, name string, r io.Reader) (object.Info, error) {
	info, err := s.Store.Create(ctx, name, r)
	if strings.HasSuffix(name, ".shard") {
		time.Sleep(s.shards)
	}
	return info, err
}

// TestMargin measures what closing takes and keeps three times that, at least a
// second and at most a third of the time.
func TestMargin(t *testing.T) {
	for _, test := range []struct {
		name        string
		store       time.Duration
		timeout     time.Duration
		least, most time.Duration
		parts       int // at least
	}{
		{"a quick store", 0, time.Minute, time.Second, time.Second, 10},
		{"a slow store", 2 * time.Second, time.Minute, 6 * time.Second, 7 * time.Second, 10},
		{"a store too slow for the time", 9 * time.Second, time.Minute, 20 * time.Second, 20 * time.Second, 2},
		{"three seconds", 100 * time.Millisecond, 3 * time.Second, time.Second, time.Second, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &slowStore{Store: &mem.Store{}, shards: test.store}
				w := newWorld(t)
				w.store = store
				var err error
				if w.repo, err = repository.Init(t.Context(), store, time.Now()); err != nil {
					t.Fatal(err)
				}
				w.tables.PageRows = 1
				w.keyed(intKey, ints(1000))
				p := w.planner()
				b := w.plan(p, vault.Settings{Lanes: 1, PartBytes: 1 << 10})
				e := w.exporter()
				e.Tables = busy{w.tables, 1, func() (time.Duration, bool) { return 100 * time.Millisecond, false }}
				begun := time.Now()
				// What is configured is more than what the time allows.
				run := fanout.Run{Now: time.Now, Stop: begun.Add(test.timeout * 2 / 3), Until: begun.Add(test.timeout)}
				reply, err := e.Export(t.Context(), run, fanout.Work{Verb: fanout.VerbExport, Table: sourceID, Backup: b.ID, Segment: "000000"})
				if err != nil || !reply.Continued || reply.Parts < test.parts {
					t.Fatalf("%+v: %v", reply, err)
				}
				if margin := time.Duration(reply.MarginMS) * time.Millisecond; margin < test.least || margin > test.most {
					t.Errorf("a margin of %v: want %v to %v", margin, test.least, test.most)
				}
				if took := time.Since(begun); took > test.timeout {
					t.Errorf("it took %v of %v", took, test.timeout)
				}
				// The next hop knows from the start.
				next, _ := w.take()
				begun = time.Now()
				run.Stop, run.Until = begun.Add(test.timeout*2/3), begun.Add(test.timeout)
				reply, err = e.Export(t.Context(), run, next)
				if margin := time.Duration(reply.MarginMS) * time.Millisecond; err != nil || margin < test.least || margin > test.most {
					t.Errorf("then a margin of %v: %v", margin, err)
				}
			})
		})
	}
}
