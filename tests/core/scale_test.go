package core_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/objectmeter"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// stub is an instance of a table with one row per range, made when it is read.
type stub struct {
	table.Instance
	ranges int
}

var stubSchema = table.Schema{{Name: "tenant", Type: table.StringKey}, {Name: "id", Type: table.IntegerKey}}

// stubKey begins range i.
func stubKey(i int) table.Key {
	return table.Key{table.String(fmt.Sprintf("tenant-%08d", i)), table.Integer(int64(i))}
}

func (s stub) Describe(context.Context, string) (table.Definition, error) {
	def := vaulttest.Definition()
	def.Schema = stubSchema
	return def, nil
}

func (s stub) SplitPoints(context.Context, string, table.Schema, int64) ([]table.Key, error) {
	points := make([]table.Key, s.ranges-1)
	for i := range points {
		points[i] = stubKey(i + 1)
	}
	return points, nil
}

func (s stub) Scan(_ string, schema table.Schema, r table.Range) table.Scan {
	return &stubScan{r: r, schema: schema}
}

type stubScan struct {
	r      table.Range
	schema table.Schema
	done   bool
}

func (s *stubScan) Aim(int) {}

func (s *stubScan) Next(_ context.Context, buf []byte) (table.Page, error) {
	if s.done {
		return table.Page{}, io.EOF
	}
	s.done = true
	key := s.r.Start
	if key[0].Type == plainbuffer.InfMin {
		key = stubKey(0)
	}
	block := append(plainbuffer.AppendHeader(buf[:0]), tabletest.Encode(s.schema, tabletest.Row{
		Key: key, Cells: []plainbuffer.Cell{tabletest.Cell("c", 1, "v")},
	})...)
	return table.Page{Block: block, ServerTime: vaulttest.Day, ReadUnits: 1}, nil
}

// fleet is functions that work while the planner looks: a bounded number at a time, each
// delivery in its turn.
type fleet struct {
	mu    sync.Mutex
	queue []fanout.Work
	total int
	// looks counts those that workers ask for who find nothing left to do.
	looks int
}

func (f *fleet) Submit(_ context.Context, w fanout.Work) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w.After != "" {
		f.looks++
		return nil
	}
	f.queue = append(f.queue, w)
	f.total++
	return nil
}

// TestScale plans, dispatches and seals a backup of many segments, and holds what it asks
// of the store against the formulae of docs/design.md: 600 segments, 10,000 at full size.
func TestScale(t *testing.T) {
	segments := 600
	switch {
	case *vaulttest.Long:
		segments = 10_000
	case testing.Short():
		segments = 300
	}
	const workers = 60
	store := objectmeter.New(&mem.Store{})
	repo, err := repository.Init(t.Context(), store, vaulttest.Day)
	if err != nil {
		t.Fatal(err)
	}
	work := &fleet{}
	tables := stub{ranges: segments}
	p := &backup.Planner{Repo: repo, Tables: tables, Work: work, Log: slog.New(slog.DiscardHandler), Now: time.Now, Workers: workers}
	run := fanout.Run{Request: "r", Now: time.Now, Until: time.Now().Add(time.Hour)}
	used := store.Usage()
	cost := func() object.Usage {
		now := store.Usage()
		defer func() { used = now }()
		return now.Sub(used)
	}

	begun := time.Now()
	plan, err := p.Plan(t.Context(), backup.PlanRequest{Table: vaulttest.SourceID, Kind: vault.Full, At: vaulttest.Day, Trigger: "t", New: true, Settings: vault.Settings{Lanes: 1}})
	if err != nil {
		t.Fatal(err)
	}
	planning := time.Since(begun)
	b := vault.Backup{Table: vaulttest.SourceID, ID: plan.Backup}
	if len(plan.Segments) != segments || planning > 30*time.Second {
		t.Errorf("%d segments planned in %v", len(plan.Segments), planning)
	}
	if c := cost(); c.Create != 2 || c.List+c.Open+c.Stat > 4 {
		t.Errorf("planning: %+v", c)
	}
	groups := int64(plan.Groups())

	// The first tick: nothing is there. Three reads (manifest, mark and plan), a list of
	// roll-ups, and for each group one of marks, of starts and of failures.
	progress, err := p.Tick(t.Context(), run, b)
	if err != nil || progress.Dispatched != workers {
		t.Fatalf("%+v: %v", progress, err)
	}
	if c := cost(); c.List != 1+3*groups || c.Open+c.Stat != 3 || c.Create != 0 {
		t.Errorf("the first tick: %+v, with %d groups", c, groups)
	}

	begun = time.Now()
	ended := 0
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, w := range work.queue {
		all.Go(func() {
			e := &backup.Exporter{Repo: repo, Tables: tables, Work: work, Log: slog.New(slog.DiscardHandler), Encoders: 1, Memory: 4 << 20}
			run := run
			run.Request = fmt.Sprint("request ", vaulttest.Requests.Add(1))
			reply, err := e.Export(t.Context(), run, w)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			ended += reply.Ended
		})
	}
	all.Wait()
	exporting := time.Since(begun)
	if ended != segments || work.total != workers || work.looks == 0 || work.looks > workers {
		t.Errorf("%d of %d segments have ended, through %d invocations, and had the planner look %d times", ended, segments, work.total, work.looks)
	}
	// A segment of one part is five objects: start, shard, index, slot, mark. It
	// is found by a list of at most its own group and, where that has nothing
	// left, of the next ones; and looked up twice, its log and its start.
	// Where workers meet at one, all but the first are refused a start: one in ten
	// segments, with sixty workers that are equally fast. Each worker lists all marks at
	// its end.
	n := int64(segments)
	c := cost()
	if c.Create < 5*n || c.Create > 5*n+n/4+5*workers*4 ||
		c.List > n+workers*(groups+5) || c.Open+c.Stat > 3*n+5*workers {
		t.Errorf("exporting: %+v, with %d segments in %d groups", c, segments, groups)
	}

	// The last tick: a list of marks and a look at the roll-up for each group, a
	// read for each slot, two looks for its objects, a roll-up for each group, and
	// its read when the whole is proved.
	begun = time.Now()
	progress, err = p.Tick(t.Context(), run, b)
	if err != nil || progress.State != backup.StateSealed || progress.Manifest.Totals.Rows != n {
		t.Fatalf("%+v: %v", progress, err)
	}
	sealing := time.Since(begun)
	c = cost()
	if c.List != 1+groups || c.Create != groups+1 || c.Open > n+2*groups+10 || c.Stat > 2*n+2*groups+10 {
		t.Errorf("sealing: %+v, with %d segments in %d groups", c, segments, groups)
	}
	t.Logf("%d segments: planned in %v, exported in %v by %d workers, sealed in %v", segments, planning.Round(time.Millisecond), exporting.Round(time.Millisecond), workers, sealing.Round(time.Millisecond))
}

// made is an instance into which a stub's table is restored: the target is there once it
// was made, takes every row, and then has what the stub has.
type made struct {
	stub
	there *atomic.Bool
}

func (m made) Describe(ctx context.Context, name string) (table.Definition, error) {
	if name == vaulttest.TargetID.Table && !m.there.Load() {
		return table.Definition{}, fmt.Errorf("no %s: %w", name, table.ErrNotExist)
	}
	def, err := m.stub.Describe(ctx, name)
	def.Name = name
	return def, err
}

func (m made) Create(context.Context, table.Definition) error {
	m.there.Store(true)
	return nil
}

func (m made) NewBatch() table.Batch { return new(taken) }

func (m made) Write(_ context.Context, _ string, b table.Batch) (table.WriteResult, error) {
	return table.WriteResult{ServerTime: vaulttest.Day, WriteUnits: int64(b.Len())}, nil
}

// taken is a batch of which only the size is kept.
type taken int

func (b *taken) Add([]byte, table.WriteOp) bool { *b++; return true }
func (b *taken) Len() int                       { return int(*b) }
func (b *taken) Reset()                         { *b = 0 }

// TestScaleOfRestores restores a backup of many segments of one part, and holds what that
// asks of the store against the formulae of docs/design.md: 600 segments, 10,000 at full
// size.
func TestScaleOfRestores(t *testing.T) {
	segments := 600
	switch {
	case *vaulttest.Long:
		segments = 10_000
	case testing.Short():
		segments = 300
	}
	const workers = 20
	w := vaulttest.NewWorld(t)
	w.Instance = made{stub{ranges: segments}, new(atomic.Bool)}
	meter := objectmeter.New(w.Store)
	var err error
	if w.Repo, err = repository.Open(t.Context(), meter); err != nil {
		t.Fatal(err)
	}
	p := w.Planner()
	p.Workers = workers
	plan, err := p.Plan(t.Context(), backup.PlanRequest{Table: vaulttest.SourceID, Kind: vault.Full, At: vaulttest.Day, Trigger: "t", New: true, Settings: vault.Settings{Lanes: 1}})
	if err != nil {
		t.Fatal(err)
	}
	m := w.Sealed(p, vault.Backup{Table: vaulttest.SourceID, ID: plan.Backup})
	if m.Segments != segments || m.Totals.Rows != int64(segments) {
		t.Fatalf("%d rows in %d segments", m.Totals.Rows, m.Segments)
	}
	n, groups := int64(segments), int64(len(m.Groups))
	used := meter.Usage()
	// within checks what was asked for since the last look: objects, lists, and reads.
	within := func(step string, objects, lists, reads int64) {
		t.Helper()
		now := meter.Usage()
		c := now.Sub(used)
		used = now
		lists += 2 * n / 1000 // further pages of what has a name for each segment
		t.Logf("%s: %d objects of %d, %d lists of %d, %d reads of %d", step, c.Create, objects, c.List, lists, c.Open+c.Stat, reads)
		if c.Create > objects || c.List > lists || c.Open+c.Stat > reads {
			t.Errorf("%s: %+v, with %d segments in %d groups: want at most %d objects, %d lists and %d reads", step, c, n, groups, objects, lists, reads)
		}
	}
	// Each invocation opens the vault anew, as functions do.
	open := func() *repository.Repository {
		repo, err := repository.Open(t.Context(), meter)
		if err != nil {
			t.Error(err)
		}
		return repo
	}
	w.Workers = workers
	planned := w.Begin(m)
	// The claim, the plan, and the marks that it is being restored and that the
	// target was made; a read for each roll-up, and for each of the first 256 indexes.
	within("planning", 4, 1, 2*groups+8+min(n, 256))
	progress := w.Look(planned.Restore)
	// A list of what is loaded; starts and failures of each group.
	within("the first tick", 0, 1+2*groups, 4)
	if progress.Dispatched != workers {
		t.Fatalf("%+v", progress)
	}
	work := func(do func(fanout.Work) (int, error)) (ended int) {
		t.Helper()
		var mu sync.Mutex
		var all sync.WaitGroup
		for _, of := range w.Drain() {
			all.Go(func() {
				n, err := do(of)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				ended += n
			})
		}
		all.Wait()
		if len(w.Queue) > 0 {
			t.Errorf("%d more invocations", len(w.Queue))
		}
		return ended
	}
	if ended := work(func(of fanout.Work) (int, error) {
		l := w.Loader()
		l.Repo, l.Memory = open(), 4<<20
		reply, err := l.Load(t.Context(), w.Run(), of)
		return reply.Ended, err
	}); ended != segments {
		t.Errorf("%d of %d segments are loaded", ended, segments)
	}
	// A segment of one part: start, slot, and the marks that it is loaded and that its
	// start is over; the end of its log, whether the restore is open, the shard and its
	// index, and a look before its batch, which are two. Where workers meet, all but one
	// are refused a start. A worker reads the header, the plans, the manifest and the
	// roll-ups of the groups that it comes to.
	meet, each := n/4+4*workers, 6+2*groups
	within("loading", 4*n+meet, n+workers*(groups+4), 6*n+meet+workers*each)
	progress = w.Look(planned.Restore)
	// The lists of what is loaded, of what is compared and of roll-ups; of each group's
	// starts and their ends, and of those of its comparison.
	within("the tick after it", 0, 3+4*groups, 4)
	if progress.State != restore.StateVerifying || progress.Dispatched != workers {
		t.Fatalf("%+v", progress)
	}
	if ended := work(func(of fanout.Work) (int, error) {
		c := w.Checker()
		c.Repo, c.Memory = open(), 4<<20
		reply, err := c.Check(t.Context(), w.Run(), of)
		return reply.Ended, err
	}); ended != segments {
		t.Errorf("%d of %d segments are compared", ended, segments)
	}
	// Start and check; whether there is a check, whether the restore is open, the log of
	// its loading, three for who may still write, two looks and a read for the shard and
	// its index, and the newest of its rows.
	within("comparing", 2*n+meet, n+workers*(groups+4), 10*n+meet+workers*each)
	// A look without time gathers nothing, and one with time for a group that.
	late := w.Run()
	late.Stop = w.Clock()
	if progress, err = w.Restorer().Tick(t.Context(), late, planned.Restore); err != nil || progress.State != restore.StateVerifying || progress.Waiting == "" {
		t.Errorf("%+v, %v", progress, err)
	}
	within("a look without time", 0, 3, 4)
	looks := 0
	late.Now = func() time.Time {
		if looks++; looks > 1 {
			return late.Stop
		}
		return late.Stop.Add(-1)
	}
	if progress, err = w.Restorer().Tick(t.Context(), late, planned.Restore); err != nil || progress.State != restore.StateVerifying || progress.Waiting == "" {
		t.Errorf("%+v, %v", progress, err)
	}
	within("a look with time for one group", 1, 3, vault.GroupSize+4)
	begun := time.Now()
	progress = w.Look(planned.Restore)
	t.Logf("closed in %v", time.Since(begun).Round(time.Millisecond))
	// A roll-up for each group but one, the closing record, the proof and the mark that
	// it is restored; the checks, and the roll-ups.
	within("closing", groups+2, 3, n-vault.GroupSize+groups+4)
	w.Proved(progress, vault.OK)
}

// TestScaleOfPlans plans 100,000 ranges (10,000 in the short form), as eight lanes of
// 12,500 segments, and ticks through all states of their groups, on a store that counts:
// what it costs is in the groups and not in the ranges, and what is in memory is bounded.
func TestScaleOfPlans(t *testing.T) {
	ranges := 10_000
	if *vaulttest.Long {
		ranges = 100_000
	}
	store := objectmeter.New(&mem.Store{})
	repo, err := repository.Init(t.Context(), store, vaulttest.Day)
	if err != nil {
		t.Fatal(err)
	}
	work := &fleet{}
	p := &backup.Planner{Repo: repo, Tables: stub{ranges: ranges}, Work: work, Log: slog.New(slog.DiscardHandler), Now: time.Now, Workers: 60}
	run := fanout.Run{Request: "r", Now: time.Now, Until: time.Now().Add(time.Hour)}
	begun := time.Now()
	plan, err := p.Plan(t.Context(), backup.PlanRequest{Table: vaulttest.SourceID, Kind: vault.Full, At: vaulttest.Day, Trigger: "t", New: true})
	if err != nil {
		t.Fatal(err)
	}
	planning := time.Since(begun)
	segments := len(plan.Segments)
	b := vault.Backup{Table: vaulttest.SourceID, ID: plan.Backup}
	if segments != (ranges+7)/8 || planning > 30*time.Second {
		t.Errorf("%d segments in %v", segments, planning)
	}
	groups := int64(plan.Groups())
	_, size, err := store.Open(t.Context(), b.Plan(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	plan = nil
	// What a tick or an export keeps of a plan, over what it read.
	live := heap()
	read, _, err := repo.Plan(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	kept := heap() - live
	if kept > 6*size.Size {
		t.Errorf("a plan of %d bytes keeps %d in memory", size.Size, kept)
	}
	runtime.KeepAlive(read)
	before := store.Usage()
	begun = time.Now()
	progress, err := p.Tick(t.Context(), run, b)
	if err != nil || progress.Dispatched != 60 || progress.Segments != segments {
		t.Fatalf("%+v: %v", progress, err)
	}
	ticking := time.Since(begun)
	if c := store.Usage().Sub(before); c.List != 1+3*groups || c.Open+c.Stat != 3 {
		t.Errorf("a tick over %d groups: %+v", groups, c)
	}
	t.Logf("%d ranges in %d segments in %d groups: planned in %v, a plan of %.1f MB that takes %.1f MB in memory, a tick of %v and %d requests",
		ranges, segments, groups, planning.Round(time.Millisecond), float64(size.Size)/1e6, float64(kept)/1e6, ticking.Round(time.Millisecond), 4+3*groups)

	// All segments are begun and marked as ended, but for one in each group: a
	// tick costs a read for each of those, beside the lists.
	for i := range segments {
		id := vault.NewSegmentID(i)
		names := []string{b.Log().Start(id, 0)}
		content := ""
		if i%vault.GroupSize != 7 {
			names = append(names, b.Log().Done(id))
		} else {
			data, err := vault.Encode(b.Log().Start(id, 0), &vault.Note{Segment: id, Began: run.Now(), Until: run.Until})
			if err != nil {
				t.Fatal(err)
			}
			content = string(data)
		}
		for _, name := range names {
			if _, err := store.Create(t.Context(), name, strings.NewReader(content)); err != nil {
				t.Fatal(err)
			}
		}
	}
	before = store.Usage()
	if progress, err = p.Tick(t.Context(), run, b); err != nil || progress.Live != int(groups) || progress.Done != segments-int(groups) {
		t.Fatalf("%+v: %v", progress, err)
	}
	if c := store.Usage().Sub(before); c.List != 1+4*groups || c.Open+c.Stat != 3+groups {
		t.Errorf("a tick over %d groups with one live segment each: %+v", groups, c)
	}
}

// heap is what is in use after a collection.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
