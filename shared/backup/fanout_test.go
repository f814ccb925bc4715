package backup_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/objectfault"
	"github.com/tablevault/tablevault/shared/object/objectmeter"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// exportOnce runs one invocation.
func exportOnce(w *vaulttest.World, work fanout.Work) backup.ExportReply {
	w.T.Helper()
	reply, err := w.Exporter().Export(w.T.Context(), w.Run(), work)
	if err != nil {
		w.T.Fatal(err)
	}
	return reply
}

// lagging is a backup of one segment whose worker has stored some parts and handed over,
// and which the planner has asked to be split since.
func lagging(w *vaulttest.World, p *backup.Planner, settings vault.Settings) (vault.Backup, fanout.Work) {
	w.T.Helper()
	w.Hop = 20
	b := w.Plan(p, settings)
	if progress := vaulttest.TickBackup(w, p, b); progress.Dispatched != 1 || progress.Segments != 1 {
		w.T.Fatalf("%+v", progress)
	}
	first, _ := w.Take()
	if reply := exportOnce(w, first); !reply.Continued || reply.Parts == 0 {
		w.T.Fatalf("%+v", reply)
	}
	// Nobody is asked who has only just begun.
	if progress := vaulttest.TickBackup(w, p, b); progress.Asked != 0 || progress.Live != 1 {
		w.T.Fatalf("%+v", progress)
	}
	w.Advance(2 * time.Minute)
	if progress := vaulttest.TickBackup(w, p, b); progress.Asked != 1 || progress.Live != 1 || progress.Dispatched != 0 {
		w.T.Fatalf("%+v", progress)
	}
	w.Advance(time.Second)
	if progress := vaulttest.TickBackup(w, p, b); progress.Asked != 0 {
		w.T.Fatalf("asked twice: %+v", progress)
	}
	next, ok := w.Take()
	if !ok || next.Start != 1 {
		w.T.Fatalf("%+v goes on", next)
	}
	w.Hop = 0
	return b, next
}

// rowsBySegment are the rows of each segment of a backup.
func rowsBySegment(w *vaulttest.World, m *vault.Manifest) map[vault.SegmentID]int64 {
	w.T.Helper()
	rows := map[vault.SegmentID]int64{}
	for g, err := range w.Repo.Groups(w.T.Context(), m) {
		if err != nil {
			w.T.Fatal(err)
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

// TestSplit splits a segment where its worker stands. The backup holds each row once, its
// coverage is proved, it can be restored, and the children have about as many rows,
// whatever the keys are made of.
func TestSplit(t *testing.T) {
	const rows = 1500
	text := func(form string) vaulttest.IterKeys {
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
		keys   vaulttest.IterKeys
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
			w := vaulttest.NewWorld(t)
			w.Tables.PageRows = 10
			n := w.Keyed(test.schema, test.keys)
			p := w.Planner()
			p.Workers = 8
			settings := vault.Settings{Lanes: test.lanes, PartBytes: 4 << 10}
			b, next := lagging(w, p, settings)
			reply := exportOnce(w, next)
			if reply.Split != 1 || reply.Ended == 0 {
				t.Fatalf("%+v", reply)
			}
			m := w.Sealed(p, b)
			vaulttest.Same(t, vaulttest.Contents(t, w.Repo, m), rowsOf(w.Tables))
			if m.Totals.Rows != int64(n) {
				t.Errorf("%d rows of %d", m.Totals.Rows, n)
			}
			shares := rowsBySegment(w, m)
			root := shares["000000"]
			delete(shares, "000000")
			most := slices.Max(slices.Collect(maps.Values(shares)))
			t.Logf("%d rows before the split, then %d segments of at most %d", root, len(shares), most)
			if len(shares) < 8 || len(shares) != m.Segments-1 || root == 0 {
				t.Errorf("%d rows, then %d segments", root, len(shares))
			}
			// A level of the key before the last gets a share of the cuts, and text lies
			// as it likes: three quarters more than an even cut gives is even enough.
			if even := (int64(n) - root) / 8; most > even*7/4+40 {
				t.Errorf("a segment has %d rows of %d: %v", most, int64(n)-root, shares)
			}
			w.Proved(w.Restore(m), vault.OK)
		})
	}
}

// rowsOf are the source's rows as contents prints them.
func rowsOf(tables *tabletest.Tables) map[string]string {
	rows := map[string]string{}
	for _, r := range tables.Rows(vaulttest.SourceID.Table) {
		rows[r.Key.String()] = vaulttest.PrintCells(r.Cells)
	}
	return rows
}

// TestSplitSurvives fails each call to the store while a segment is split, before and
// after its effect; whoever comes after completes the backup.
func TestSplitSurvives(t *testing.T) {
	tried, ops := 0, []objectfault.Op{objectfault.Create}
	if *vaulttest.Long {
		ops = append(ops, objectfault.Open, objectfault.List)
	}
	for fault := range objectfault.EachCall(ops...) {
		tried++
		w := vaulttest.NewWorld(t)
		w.Quiet = true
		w.Tables.PageRows = 5
		w.Keyed(vaulttest.IntKey, vaulttest.Ints(120))
		p := w.Planner()
		p.Workers = 2
		b, next := lagging(w, p, vault.Settings{Lanes: 1})
		broken, err := repository.Open(t.Context(), objectfault.New(w.Store, fault))
		if err == nil {
			e := w.Exporter()
			e.Repo = broken
			if _, err = e.Export(t.Context(), w.Run(), next); err != nil {
				w.Queue = append(w.Queue, next)
			}
		}
		if err != nil && !errors.Is(err, objectfault.ErrInjected) {
			t.Fatalf("%v: %v", fault, err)
		}
		vaulttest.Same(t, vaulttest.Contents(t, w.Repo, w.Sealed(p, b)), rowsOf(w.Tables))
	}
	if tried < 15 {
		t.Fatalf("only %d faults were tried", tried)
	}
	t.Logf("%d faults", tried)
}

// TestSplitOnce lets several deliveries split the same segment side by side: one of them
// wins the slot, the others obey.
func TestSplitOnce(t *testing.T) {
	for range 10 {
		w := vaulttest.NewWorld(t)
		w.Tables.PageRows = 10
		w.Keyed(vaulttest.IntKey, vaulttest.Ints(300))
		p := w.Planner()
		p.Workers = 4
		b, next := lagging(w, p, vault.Settings{Lanes: 1, PartBytes: 2 << 10})
		var all sync.WaitGroup
		for retry := range 3 {
			all.Go(func() {
				run := w.Run()
				run.Retry = retry // so that none takes itself for a second delivery
				if _, err := w.Exporter().Export(t.Context(), run, next); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		vaulttest.Same(t, vaulttest.Contents(t, w.Repo, w.Sealed(p, b)), rowsOf(w.Tables))
	}
}

// TestSplitAgain splits what came from a split, and does not split what can't be.
func TestSplitAgain(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Tables.PageRows = 10
	// Nearly all rows lie close together at the end of a wide span, so that even
	// cuts leave them in one segment.
	w.Keyed(vaulttest.IntKey, func(put func(table.Key)) {
		for i := range 2000 {
			put(table.Key{table.Integer(int64(i))})
		}
		put(table.Key{table.Integer(1 << 50)})
	})
	p := w.Planner()
	p.Workers = 4
	b, next := lagging(w, p, vault.Settings{Lanes: 1, PartBytes: 1 << 10})
	w.Hop = 60
	deepest := 0
	for range 400 {
		if _, err := w.Exporter().Export(t.Context(), w.Run(), next); err != nil {
			t.Fatal(err)
		}
		w.Advance(90 * time.Second)
		progress := vaulttest.TickBackup(w, p, b)
		if progress.Manifest != nil {
			for id := range rowsBySegment(w, progress.Manifest) {
				deepest = max(deepest, id.Generation())
			}
			break
		}
		var ok bool
		if next, ok = w.Take(); !ok {
			w.Advance(11 * time.Minute)
			vaulttest.TickBackup(w, p, b)
			if next, ok = w.Take(); !ok {
				t.Fatalf("nothing goes on: %+v", progress)
			}
		}
	}
	if deepest < 2 {
		t.Errorf("%d generations: what lags after a split is not split again", deepest)
	}
	vaulttest.Same(t, vaulttest.Contents(t, w.Repo, w.Sealed(p, b)), rowsOf(w.Tables))
}

// TestWorkersGoOn backs up a table of two groups with four workers and one tick: they
// work until nothing is left, at a list per segment.
func TestWorkersGoOn(t *testing.T) {
	const segments, rows = 300, 2
	w := vaulttest.NewWorld(t)
	meter := objectmeter.New(w.Store)
	var err error
	if w.Repo, err = repository.Open(t.Context(), meter); err != nil {
		t.Fatal(err)
	}
	w.Keyed(vaulttest.IntKey, vaulttest.Ints(segments*rows))
	p := w.Planner()
	p.Workers = 4
	var points []table.Key
	for i := 1; i < segments; i++ {
		points = append(points, table.Key{table.Integer(int64(i * rows))})
	}
	b := w.Plan(p, vault.Settings{Lanes: 1}, points...)
	if progress := vaulttest.TickBackup(w, p, b); progress.Dispatched != 4 || progress.Segments != segments {
		t.Fatalf("%+v", progress)
	}
	before := meter.Usage()
	ended := 0
	for _, work := range w.Drain() {
		ended += exportOnce(w, work).Ended
	}
	if ended != segments || len(w.Queue) > 0 {
		t.Errorf("%d of %d segments have ended, %d invocations are to come", ended, segments, len(w.Queue))
	}
	// Beside the lists by which they are found, a segment costs two reads of its
	// empty log and of its start, and five objects.
	used := meter.Usage().Sub(before)
	if used.List > segments+20 || used.Create > 5*segments+20 {
		t.Errorf("%d lists and %d objects for %d segments", used.List, used.Create, segments)
	}
	if m := w.Sealed(p, b); m.Totals.Rows != segments*rows {
		t.Errorf("%d rows", m.Totals.Rows)
	}
}

// TestWorkersGoOnSideBySide races many workers for few segments: each is begun once.
func TestWorkersGoOnSideBySide(t *testing.T) {
	const segments = 60
	w := vaulttest.NewWorld(t)
	w.Keyed(vaulttest.IntKey, vaulttest.Ints(segments))
	p := w.Planner()
	var points []table.Key
	for i := 1; i < segments; i++ {
		points = append(points, table.Key{table.Integer(int64(i))})
	}
	b := w.Plan(p, vault.Settings{Lanes: 1}, points...)
	p.Workers = 12
	vaulttest.TickBackup(w, p, b)
	var all sync.WaitGroup
	for _, work := range w.Drain() {
		all.Go(func() {
			if _, err := w.Exporter().Export(t.Context(), w.Run(), work); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i := range segments {
		for info, err := range w.Store.List(t.Context(), b.Log().Starts(vault.NewSegmentID(i)), "") {
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(info.Name, "000000.json") {
				t.Errorf("begun more than once: %s", info.Name)
			}
		}
	}
	w.Sealed(p, b)
}

// TestSecondDeliveryLeavesTheFirstAlone: a start that is at work is not begun again by a
// second delivery, but by a retry, and by anyone once it is over.
func TestSecondDeliveryLeavesTheFirstAlone(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 30)
	p := w.Planner()
	b := w.Plan(p, vault.Settings{})
	vaulttest.TickBackup(w, p, b)
	work, _ := w.Take()
	if err := vaulttest.BeginAndDie(w, work); err != nil {
		t.Fatal(err)
	}
	if reply := exportOnce(w, work); !reply.Superseded || reply.Parts != 0 {
		t.Fatalf("a second delivery: %+v", reply)
	}
	again := w.Run()
	again.Retry = 1
	if reply, err := w.Exporter().Export(t.Context(), again, work); err != nil || !reply.Done || reply.Start != 1 {
		t.Fatalf("a retry: %+v, %v", reply, err)
	}
	w.Sealed(p, b)
}

// mortal is a store that a worker loses when it dies.
type mortal struct {
	object.Store
	dead atomic.Bool
}

func (m *mortal) Create(ctx context.Context, name string, r io.Reader) (object.Info, error) {
	if m.dead.Load() {
		return object.Info{}, vaulttest.ErrDead
	}
	return m.Store.Create(ctx, name, r)
}

// TestDeliveredAgainAfterADeath kills a worker in the segment of its command, or in one
// that it went on to. The event comes again, with a retry count or without one, as from a
// platform that lost the instance and does not say so: the backup goes on at once, at no
// later time than it was.
func TestDeliveredAgainAfterADeath(t *testing.T) {
	for _, test := range []struct {
		name     string
		segments int
		first    int // of the command
		page     int // the one that it dies at
	}{
		{"in its own segment", 3, 0, 0}, {"in the next one", 3, 0, 1}, {"in the last one", 3, 0, 2},
		{"in another group", vault.GroupSize + 2, vault.GroupSize, 2},
	} {
		segments := test.segments
		for _, retry := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s, retry %d", test.name, retry), func(t *testing.T) {
				w := vaulttest.NewWorld(t)
				w.Keyed(vaulttest.IntKey, vaulttest.Ints(segments))
				p := w.Planner()
				b := w.Plan(p, vault.Settings{Lanes: 1}, vaulttest.Cuts(segments, segments)...)
				p.Workers = 1
				vaulttest.TickBackup(w, p, b)
				work, _ := w.Take()
				work.Segment = vault.NewSegmentID(test.first)
				store := &mortal{Store: w.Store}
				repo, err := repository.Open(t.Context(), store)
				if err != nil {
					t.Fatal(err)
				}
				pages := 0
				w.Tables.Fault = func(c tabletest.Call) error {
					if c.Name == "Scan" && !c.After {
						if pages++; pages > test.page {
							store.dead.Store(true)
							return vaulttest.ErrDead
						}
					}
					return nil
				}
				e := w.Exporter()
				e.Repo = repo
				run := w.Run()
				if _, err := e.Export(t.Context(), run, work); !errors.Is(err, vaulttest.ErrDead) {
					t.Fatalf("it did not die: %v", err)
				}
				if n := len(listed(t, w, b.Log().Starts(""))); n != test.page+1 {
					t.Fatalf("it has begun %d segments, want %d", n, test.page+1)
				}
				w.Tables.Fault = nil
				w.Advance(time.Second)
				run.Retry = retry
				if _, err := w.Exporter().Export(t.Context(), run, work); err != nil {
					t.Fatal(err)
				}
				if n := len(listed(t, w, b.Log().Starts(""))); n != segments+1 {
					t.Errorf("%d starts, want one of each segment, and one more of the one that it died in", n)
				}
				if progress := vaulttest.TickBackup(w, p, b); progress.State != backup.StateSealed {
					t.Errorf("%+v", progress)
				}
			})
		}
	}
}

// TestAnotherEventLeavesWhatIsBegun: a late dispatch of a segment that has ended takes
// nothing over from the worker that went on.
func TestAnotherEventLeavesWhatIsBegun(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Keyed(vaulttest.IntKey, vaulttest.Ints(2))
	p := w.Planner()
	b := w.Plan(p, vault.Settings{Lanes: 1}, vaulttest.Cuts(2, 2)...)
	p.Workers = 1
	vaulttest.TickBackup(w, p, b)
	work, _ := w.Take()
	calls := 0
	w.Tables.Fault = func(c tabletest.Call) error {
		if c.Name != "Scan" || c.After {
			return nil
		}
		if calls++; calls == 2 { // the worker is in the second segment
			if reply := exportOnce(w, work); !reply.Done || reply.Parts != 0 {
				t.Errorf("a late dispatch: %+v", reply)
			}
		}
		return nil
	}
	if reply := exportOnce(w, work); reply.Ended != 2 {
		t.Errorf("%+v", reply)
	}
	if n := len(listed(t, w, b.Log().Starts(""))); n != 2 {
		t.Errorf("%d starts", n)
	}
}

// listed are the names of the objects that begin so.
func listed(t *testing.T, w *vaulttest.World, prefix string) (names []string) {
	t.Helper()
	for info, err := range w.Store.List(t.Context(), prefix, "") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, info.Name)
	}
	return names
}

// TestStartsAreBounded ends a segment that needs too many starts with a failure that says
// so; until then, progress shows how many there were.
func TestStartsAreBounded(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Quiet = true
	w.Hop = 6
	w.Tables.PageRows = 5
	w.Keyed(vaulttest.IntKey, vaulttest.Ints(1000))
	p := w.Planner()
	b := w.Plan(p, vault.Settings{Lanes: 1, PartBytes: 1})
	vaulttest.TickBackup(w, p, b)
	seen := 0
	for {
		work, ok := w.Take()
		if !ok {
			break
		}
		e := w.Exporter()
		e.MaxStarts = 7
		if _, err := e.Export(t.Context(), w.Run(), work); err != nil {
			if !fanout.Permanent(err) || !strings.Contains(err.Error(), "too many starts: 7") {
				t.Fatal(err)
			}
			continue
		}
		seen = max(seen, vaulttest.TickBackup(w, p, b).Starts)
	}
	if seen != 6 {
		t.Errorf("progress has shown %d starts", seen)
	}
	if progress := vaulttest.TickBackup(w, p, b); progress.State != backup.StateFailed || progress.Starts != 7 || !strings.Contains(progress.LastError, "give the function more time") {
		t.Errorf("%+v", progress)
	}
}

// TestWorkersThatDie has a segment whose every worker dies without a word: each is seen,
// and after a number of them the segment has failed, with a record that says why. When
// the cause is mended, a person's command goes on.
func TestWorkersThatDie(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Quiet = true
	w.Keyed(vaulttest.IntKey, vaulttest.Ints(100))
	p := w.Planner()
	b := w.Plan(p, vault.Settings{Lanes: 1})
	deaths := 0
	var last backup.Progress
	for range 100 {
		if last = vaulttest.TickBackup(w, p, b); last.State == backup.StateFailed {
			break
		}
		if deaths > 0 && !strings.Contains(last.LastError, "left no word") {
			t.Fatalf("after %d deaths: %+v", deaths, last)
		}
		work, ok := w.Take()
		if !ok {
			t.Fatalf("%+v", last)
		}
		ctx, cancel := context.WithCancel(t.Context())
		w.Tables.Fault = func(c tabletest.Call) error {
			if c.Name == "Scan" {
				cancel() // nothing can be written any more
			}
			return nil
		}
		if _, err := w.Exporter().Export(ctx, w.Run(), work); err == nil {
			t.Fatal("it lives")
		} else if !errors.Is(err, context.Canceled) && !fanout.Permanent(err) {
			t.Fatal(err)
		}
		cancel()
		deaths++
		w.Advance(11 * time.Minute)
	}
	if last.State != backup.StateFailed || !strings.Contains(last.LastError, "20 in a row have died") || deaths != 21 {
		t.Fatalf("after %d deaths: %+v", deaths, last)
	}
	w.Tables.Fault = nil
	if reply := vaulttest.TickBackup(w, p, b); reply.Dispatched != 0 {
		t.Errorf("it is started again by itself: %+v", reply)
	}
	p.Stale = time.Second
	vaulttest.TickBackup(w, p, b)
	p.Stale = 0
	w.Sealed(p, b)
}

// TestGivenAgain has a segment fail for good. Ticks leave it alone; those that belong to
// a command that a person gave after that try it once more, and report its next failure.
func TestGivenAgain(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Quiet = true
	w.Keyed(vaulttest.IntKey, vaulttest.Ints(100))
	p := w.Planner()
	b := w.Plan(p, vault.Settings{Lanes: 1})
	tick := func(state string, dispatched int) {
		t.Helper()
		if progress := vaulttest.TickBackup(w, p, b); progress.State != state || progress.Dispatched != dispatched {
			t.Fatalf("want it %s, with %d dispatched: %+v", state, dispatched, progress)
		}
	}
	fail := func() {
		t.Helper()
		work, ok := w.Take()
		w.Drain()
		w.Tables.Fault = func(c tabletest.Call) error {
			if c.Name == "Scan" {
				return table.ErrPermission
			}
			return nil
		}
		if _, err := w.Exporter().Export(t.Context(), w.Run(), work); !ok || !errors.Is(err, table.ErrPermission) {
			t.Fatal(ok, err)
		}
		w.Tables.Fault = nil
		w.Advance(time.Minute)
	}
	tick(backup.StateRunning, 1)
	fail()
	tick(backup.StateFailed, 0)
	p.Since = w.Clock()
	tick(backup.StateRunning, 1)
	tick(backup.StateRunning, 1) // its worker has not begun yet
	w.Advance(time.Second)
	fail()
	tick(backup.StateFailed, 0)
	p.Since = w.Clock()
	tick(backup.StateRunning, 1)
	p.Since = time.Time{}
	w.Work()
	tick(backup.StateSealed, 0)
}

// TestBudgetIsDivided gives each worker its share of the table's read units, and never
// has more workers than it was divided over.
func TestBudgetIsDivided(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Keyed(vaulttest.IntKey, vaulttest.Ints(100))
	points := []table.Key{}
	for i := 1; i < 10; i++ {
		points = append(points, table.Key{table.Integer(int64(i * 10))})
	}
	p := w.Planner()
	p.Workers = 4
	b := w.Plan(p, vault.Settings{Lanes: 1, ReadUnits: 100}, points...)
	vaulttest.TickBackup(w, p, b)
	queue := w.Drain()
	if len(queue) != 4 {
		t.Fatalf("%d workers", len(queue))
	}
	for _, work := range queue {
		if work.ReadUnits != 25 {
			t.Errorf("a worker may read %g units per second", work.ReadUnits)
		}
		if err := vaulttest.BeginAndDie(w, work); err != nil {
			t.Fatal(err)
		}
	}
	// The policy allows more by now: the shares are what they are.
	p.Workers = 50
	if progress := vaulttest.TickBackup(w, p, b); progress.Live != 4 || progress.Dispatched != 0 {
		t.Errorf("%+v", progress)
	}
	w.Advance(11 * time.Minute)
	vaulttest.TickBackup(w, p, b)
	if queue = w.Drain(); len(queue) != 4 || queue[0].ReadUnits != 25 {
		t.Errorf("%+v", queue)
	}
	// A table of one segment has one worker, whose share is all, and goes on so
	// when it is split.
	one := w.Plan(w.Planner(), vault.Settings{Lanes: 1, ReadUnits: 100, PartBytes: 77})
	vaulttest.TickBackup(w, w.Planner(), one)
	if queue = w.Drain(); len(queue) != 1 || queue[0].ReadUnits != 100 {
		t.Errorf("%+v", queue)
	}
}

// TestPace measures how fast a worker reads, on a clock of its own: to its share, and
// slower while the service is busy. What held it back is in its parts and in the
// planner's progress.
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
			w := vaulttest.NewWorld(t)
			w.Store = &mem.Store{}
			var err error
			if w.Repo, err = repository.Init(t.Context(), w.Store, time.Now()); err != nil {
				t.Fatal(err)
			}
			w.Tables.PageRows = 1
			w.Tables.Now = time.Now
			w.Keyed(vaulttest.IntKey, vaulttest.Ints(pages))
			p := w.Planner()
			p.Now = time.Now
			// Two parts of half of the pages each, so that one is there before the
			// segment ends.
			b := w.Plan(p, vault.Settings{Lanes: 1})
			begun := time.Now()
			e := w.Exporter()
			e.Tables = vaulttest.Busy{Instance: w.Tables, Units: 10, Answer: func() (time.Duration, bool) { return answer(begun) }}
			clock := fanout.Run{Request: "r", Now: time.Now}
			work := fanout.Work{Verb: fanout.VerbExport, Table: vaulttest.SourceID, Backup: b.ID, Segment: "000000", ReadUnits: budget}
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
	// For its first ten seconds the service throttles what is above 200 units per second.
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
		w := vaulttest.NewWorld(t)
		w.Tables.PageRows = 5
		w.Keyed(vaulttest.IntKey, vaulttest.Ints(400))
		p := w.Planner()
		p.Workers = 2
		b := w.Plan(p, vault.Settings{Lanes: 1, PartBytes: 1, ReadUnits: 1000}, table.Key{table.Integer(200)})
		if progress := vaulttest.TickBackup(w, p, b); progress.Pace != nil {
			t.Errorf("before anyone reads: %v", progress.Pace)
		}
		w.Hop = 25
		for _, work := range w.Drain() {
			e := w.Exporter()
			e.Tables = vaulttest.Busy{Instance: w.Tables, Units: 500, Answer: func() (time.Duration, bool) { return 0, work.Segment == "000001" }}
			if reply, err := e.Export(t.Context(), w.Run(), work); err != nil || !reply.Continued {
				t.Fatalf("%+v: %v", reply, err)
			}
		}
		pace := vaulttest.TickBackup(w, p, b).Pace
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

// TestMargin measures what closing takes and keeps three times that, at least a second
// and at most a third of the time.
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
				w := vaulttest.NewWorld(t)
				w.Store = store
				var err error
				if w.Repo, err = repository.Init(t.Context(), store, time.Now()); err != nil {
					t.Fatal(err)
				}
				w.Tables.PageRows = 1
				w.Keyed(vaulttest.IntKey, vaulttest.Ints(1000))
				p := w.Planner()
				b := w.Plan(p, vault.Settings{Lanes: 1, PartBytes: 1 << 10})
				e := w.Exporter()
				e.Tables = vaulttest.Busy{Instance: w.Tables, Units: 1, Answer: func() (time.Duration, bool) { return 100 * time.Millisecond, false }}
				begun := time.Now()
				// What is configured is more than what the time allows.
				run := fanout.Run{Now: time.Now, Stop: begun.Add(test.timeout * 2 / 3), Until: begun.Add(test.timeout)}
				reply, err := e.Export(t.Context(), run, fanout.Work{Verb: fanout.VerbExport, Table: vaulttest.SourceID, Backup: b.ID, Segment: "000000"})
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
				next, _ := w.Take()
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

// TestUndatedTrigger delivers an event that tells no instant several times: it is one
// backup, named by when it was heard of first, and another one once nobody can deliver it
// any more.
func TestUndatedTrigger(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Keyed(vaulttest.IntKey, vaulttest.Ints(10))
	p := w.Planner()
	plan := func(trigger string) vault.BackupID {
		t.Helper()
		plan, err := p.Plan(t.Context(), backup.PlanRequest{
			Table: vaulttest.SourceID, Kind: vault.Full, At: w.Clock(), Trigger: trigger, Undated: true, New: true, Settings: vaulttest.Small,
		})
		if err != nil {
			t.Fatal(err)
		}
		return plan.Backup
	}
	first := plan("cloudevent/s/1")
	if at := first.Time(); w.Clock().Sub(at).Abs() > time.Minute {
		t.Errorf("%s is named by %s, it is %s", first, at, w.Clock())
	}
	w.Advance(3 * time.Hour)
	if again := plan("cloudevent/s/1"); again != first {
		t.Errorf("a second delivery makes %s beside %s", again, first)
	}
	if other := plan("cloudevent/s/2"); other == first {
		t.Error("two events make one backup")
	}
	w.Advance(72 * time.Hour)
	if later := plan("cloudevent/s/1"); later == first {
		t.Error("an event that nobody can deliver any more is taken for a former one")
	}
}

// TestSealedWithoutATick looks at a backup once: the last of its workers has the planner
// look again, and it is sealed, also where segments were split, in many invocations, and
// where the platform knows the tasks that it has had.
func TestSealedWithoutATick(t *testing.T) {
	for _, c := range []struct {
		name          string
		segments, hop int
		workers       int
		blind         bool
	}{
		{name: "one segment", segments: 1},
		{name: "many segments", segments: 7},
		{name: "by two workers", segments: 7, workers: 2},
		{name: "in many invocations", segments: 3, hop: 12},
		{name: "where nobody may look", segments: 3, blind: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := vaulttest.NewWorld(t)
			w.Keyed(vaulttest.IntKey, vaulttest.Ints(700))
			w.Tables.PageRows = 20
			p := w.Planner()
			p.Workers = c.workers
			b := w.Plan(p, vault.Settings{Lanes: 1, PartBytes: 1 << 10}, vaulttest.Cuts(700, c.segments)...)
			w.Once, w.Pokes, w.Hop = true, !c.blind, c.hop
			progress := vaulttest.TickBackup(w, p, b)
			if progress.Dispatched == 0 {
				t.Fatalf("%+v", progress)
			}
			w.Work()
			m, _, err := w.Repo.Manifest(t.Context(), b)
			if c.blind {
				if !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("sealed without a look: %+v, %v", m, err)
				}
				return
			}
			if err != nil || m.State != vault.Sealed || m.Totals.Rows != 700 {
				t.Fatalf("%+v, %v", m, err)
			}
		})
	}
}

// TestDamagedPlanKeepsNoOtherBack has an open backup whose plan can't be read: a person's
// command makes another one.
func TestDamagedPlanKeepsNoOtherBack(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Keyed(vaulttest.IntKey, vaulttest.Ints(10))
	p := w.Planner()
	b := w.Plan(p, vaulttest.Small)
	w.Store.(*mem.Store).Replace(b.Plan(), []byte("{"))
	w.Advance(time.Minute)
	plan, err := p.Plan(t.Context(), backup.PlanRequest{Table: vaulttest.SourceID, Kind: vault.Full, At: w.Clock(), Trigger: "manual", Settings: vaulttest.Small})
	if err != nil || plan.Backup == b.ID {
		t.Fatalf("%+v, %v", plan, err)
	}
	w.Sealed(p, vault.Backup{Table: vaulttest.SourceID, ID: plan.Backup})
}
