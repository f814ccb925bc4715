package backup_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/objectfault"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

var (
	ordersID = vault.TableID{Region: "local", Instance: "prod", Table: "orders"}
	began    = time.Date(2026, 11, 20, 2, 14, 0, 0, time.UTC)
	discard  = slog.New(slog.DiscardHandler)
)

// orders is a table with a binary, a string and an integer in its key, and rows of
// several kinds: versions, timestamp 0, no cells.
func orders(tables *tabletest.Tables, rows int) {
	def := table.Definition{
		Name: "orders",
		Schema: table.Schema{
			{Name: "b", Type: table.BinaryKey}, {Name: "s", Type: table.StringKey}, {Name: "i", Type: table.IntegerKey},
		},
		Options: table.Options{TTL: table.NoTTL, MaxVersions: 5, Deviation: table.WidestDeviation, AllowUpdate: true},
	}
	tables.Now = func() time.Time { return began }
	tables.Make(def)
	for i := range rows {
		r := tabletest.Row{Key: table.Key{table.Binary([]byte{byte(i >> 8), byte(i)}), table.String(fmt.Sprint("k", i%3)), table.Integer(int64(-i))}}
		if i%5 != 4 {
			for v := range 1 + i%3 {
				r.Cells = append(r.Cells, tabletest.Cell("amount", int64(1000-v), int64(i*v)))
			}
			r.Cells = append(r.Cells, tabletest.Cell("note", 0, strings.Repeat("text ", i%20)), tabletest.Cell("ok", int64(i), i%2 == 0))
		}
		tables.Put("orders", r)
	}
}

// runner plans a backup and runs its work in this process, one piece after the other.
type runner struct {
	store  object.Store
	tables table.Instance
	hop    time.Duration // how long an invocation works; 0 without end
	pages  time.Duration // how much time passes per look at the clock
	memory int64

	mu    sync.Mutex
	now   time.Time
	queue []fanout.Work
	runs  int
}

func (r *runner) Submit(_ context.Context, w fanout.Work) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.Verb == fanout.VerbExport { // the runner looks by itself
		r.queue = append(r.queue, w)
	}
	return nil
}

func (r *runner) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(r.pages)
	return r.now
}

func (r *runner) run() fanout.Run {
	run := fanout.Run{Request: fmt.Sprint("request ", vaulttest.Requests.Add(1)), Now: r.clock}
	if r.hop > 0 {
		run.Stop = r.clock().Add(r.hop)
		run.Until = run.Stop.Add(time.Second)
	}
	return run
}

func (r *runner) repo(t testing.TB) (*repository.Repository, error) {
	t.Helper()
	return repository.Init(t.Context(), r.store, began)
}

// backup plans and works until the backup is sealed, or an error comes up.
func (r *runner) backup(t testing.TB, settings vault.Settings) (*vault.Manifest, error) {
	t.Helper()
	repo, err := r.repo(t)
	if err != nil {
		return nil, err
	}
	p := &backup.Planner{Repo: repo, Tables: r.tables, Work: r, Log: discard, Now: r.clock, Stale: time.Nanosecond}
	plan, err := p.Plan(t.Context(), backup.PlanRequest{Table: ordersID, Kind: vault.Full, At: began, Trigger: "manual", Settings: settings})
	if err != nil {
		return nil, err
	}
	e := &backup.Exporter{Repo: repo, Tables: r.tables, Work: r, Log: discard, Memory: r.memory}
	b := vault.Backup{Table: ordersID, ID: plan.Backup}
	for range 1000 {
		progress, err := p.Tick(t.Context(), r.run(), b)
		if err != nil {
			return nil, err
		}
		if progress.Manifest != nil {
			return progress.Manifest, nil
		}
		for {
			r.mu.Lock()
			if len(r.queue) == 0 {
				r.mu.Unlock()
				break
			}
			w := r.queue[0]
			r.queue = r.queue[1:]
			r.runs++
			r.mu.Unlock()
			if _, err := e.Export(t.Context(), r.run(), w); err != nil {
				return nil, err
			}
		}
	}
	return nil, errors.New("a thousand ticks, and no manifest")
}

func live(tables *tabletest.Tables) map[string]string {
	rows := map[string]string{}
	for _, r := range tables.Rows("orders") {
		rows[r.Key.String()] = vaulttest.PrintCells(r.Cells)
	}
	return rows
}

func TestBackupHoldsTheTable(t *testing.T) {
	cases := []struct {
		name     string
		rows     int
		page     int
		settings vault.Settings
		hop      time.Duration
		memory   int64
	}{
		{name: "no rows"},
		{name: "one row", rows: 1},
		{name: "one segment", rows: 3000},
		{name: "one lane", rows: 500, settings: vault.Settings{Lanes: 1}},
		{name: "many parts", rows: 3000, page: 100, settings: vault.Settings{PartBytes: 1, Lanes: 4}},
		{name: "many hops", rows: 3000, page: 100, hop: 3 * time.Second, settings: vault.Settings{Lanes: 3}},
		{name: "short pages", rows: 300, page: 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			tables := tabletest.New()
			tables.PageRows = c.page
			orders(tables, c.rows)
			r := &runner{store: &mem.Store{}, tables: tables, now: began, hop: c.hop, pages: time.Second, memory: c.memory}
			m, err := r.backup(t, c.settings)
			if err != nil {
				t.Fatal(err)
			}
			repo, err := r.repo(t)
			if err != nil {
				t.Fatal(err)
			}
			want := live(tables)
			vaulttest.Same(t, vaulttest.Contents(t, repo, m), want)
			if m.State != vault.Sealed || m.Totals.Rows != int64(len(want)) || m.Totals.Walked != m.Totals.Rows {
				t.Errorf("manifest: %s, %d rows, %d walked", m.State, m.Totals.Rows, m.Totals.Walked)
			}
			if c.hop > 0 && r.runs < 5 {
				t.Errorf("%d invocations: the deadline was not felt", r.runs)
			}
		})
	}
}

// TestWideRow: a row that no buffer holds goes through in pieces.
func TestWideRow(t *testing.T) {
	tables := tabletest.New()
	orders(tables, 50)
	rng := rand.New(rand.NewPCG(1, 2))
	wide := tabletest.Row{Key: table.Key{table.Binary([]byte{0, 20, 1}), table.String("wide"), table.Integer(0)}}
	for i := range 3000 {
		wide.Cells = append(wide.Cells, tabletest.Cell(fmt.Sprintf("c%05d", i), 7, fmt.Sprintf("%0*x", 1000, rng.Uint64())))
	}
	tables.Put("orders", wide)
	r := &runner{store: &mem.Store{}, tables: tables, now: began, memory: 1 << 20}
	m, err := r.backup(t, vault.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	repo, err := r.repo(t)
	if err != nil {
		t.Fatal(err)
	}
	vaulttest.Same(t, vaulttest.Contents(t, repo, m), live(tables))
}

// TestStoreFaults fails every call to the store, before, in the middle of and after its
// effect. The backup fails, or succeeds; a second run completes it.
func TestStoreFaults(t *testing.T) {
	tried := 0
	for fault := range objectfault.EachCall(objectfault.Create, objectfault.Open, objectfault.List) {
		tried++
		tables := tabletest.New()
		tables.PageRows = 40
		orders(tables, 150)
		store := &mem.Store{}
		r := &runner{store: objectfault.New(store, fault), tables: tables, now: began}
		settings := vault.Settings{Lanes: 2, PartBytes: 1}
		_, err := r.backup(t, settings)
		// After an answer that was lost, or a read that was tried again, there
		// may be nothing to see; otherwise the error is the fault's.
		if err != nil && !errors.Is(err, objectfault.ErrInjected) {
			t.Fatalf("%v: %v", fault, err)
		}
		again := &runner{store: store, tables: tables, now: began.Add(time.Hour)}
		m, err := again.backup(t, settings)
		if err != nil {
			t.Fatalf("%v: the second run: %v", fault, err)
		}
		repo, err := again.repo(t)
		if err != nil {
			t.Fatal(err)
		}
		vaulttest.Same(t, vaulttest.Contents(t, repo, m), live(tables))
	}
	if tried < 20 {
		t.Fatalf("only %d faults were tried", tried)
	}
	t.Logf("%d faults", tried)
}

// TestTableFaults fails every call to the tables, before and after its effect.
func TestTableFaults(t *testing.T) {
	tried := 0
	for _, name := range []string{"Describe", "SplitPoints", "Scan"} {
		for _, after := range []bool{false, true} {
			for n := 0; ; n++ {
				tables := tabletest.New()
				tables.PageRows = 40
				orders(tables, 150)
				reached := false
				broken := errors.New("the connection broke")
				tables.Fault = func(c tabletest.Call) error {
					if c.Name == name && c.N == n && c.After == after {
						reached = true
						return broken
					}
					return nil
				}
				store := &mem.Store{}
				r := &runner{store: store, tables: tables, now: began}
				settings := vault.Settings{Lanes: 2}
				if _, err := r.backup(t, settings); reached && !errors.Is(err, broken) {
					t.Fatalf("%s %d: %v", name, n, err)
				}
				if !reached {
					break
				}
				tried++
				tables.Fault = nil
				again := &runner{store: store, tables: tables, now: began.Add(time.Hour)}
				m, err := again.backup(t, settings)
				if err != nil {
					t.Fatalf("%s %d: the second run: %v", name, n, err)
				}
				repo, err := again.repo(t)
				if err != nil {
					t.Fatal(err)
				}
				vaulttest.Same(t, vaulttest.Contents(t, repo, m), live(tables))
			}
		}
	}
	if tried < 8 {
		t.Fatalf("only %d faults were tried", tried)
	}
	t.Logf("%d faults", tried)
}

// TestTwice delivers each work twice, side by side: there is one log, and the rows stand
// in it once.
func TestTwice(t *testing.T) {
	tables := tabletest.New()
	tables.PageRows = 30
	orders(tables, 1000)
	r := &runner{store: &mem.Store{}, tables: tables, now: began}
	repo, err := r.repo(t)
	if err != nil {
		t.Fatal(err)
	}
	p := &backup.Planner{Repo: repo, Tables: tables, Work: r, Log: discard, Now: r.clock, Stale: time.Nanosecond}
	plan, err := p.Plan(t.Context(), backup.PlanRequest{Table: ordersID, Kind: vault.Full, At: began, Trigger: "t", Settings: vault.Settings{PartBytes: 2000}})
	if err != nil {
		t.Fatal(err)
	}
	b := vault.Backup{Table: ordersID, ID: plan.Backup}
	for range 100 {
		r.now = r.now.Add(time.Minute)
		progress, err := p.Tick(t.Context(), r.run(), b)
		if err != nil {
			t.Fatal(err)
		}
		if m := progress.Manifest; m != nil {
			vaulttest.Same(t, vaulttest.Contents(t, repo, m), live(tables))
			return
		}
		var both sync.WaitGroup
		for _, w := range append(r.queue, r.queue...) {
			both.Go(func() {
				e := &backup.Exporter{Repo: repo, Tables: tables, Work: r, Log: discard}
				if _, err := e.Export(t.Context(), fanout.Run{Now: r.clock}, w); err != nil {
					t.Error(err)
				}
			})
		}
		r.queue = nil
		both.Wait()
	}
	t.Fatal("a hundred ticks, and no manifest")
}

// TestVoid: a backup that was given up can't be sealed, and a late worker writes nothing.
func TestVoid(t *testing.T) {
	tables := tabletest.New()
	orders(tables, 10)
	r := &runner{store: &mem.Store{}, tables: tables, now: began}
	repo, err := r.repo(t)
	if err != nil {
		t.Fatal(err)
	}
	p := &backup.Planner{Repo: repo, Tables: tables, Work: r, Log: discard, Now: r.clock}
	req := backup.PlanRequest{Table: ordersID, Kind: vault.Full, At: began, Trigger: "t"}
	plan, err := p.Plan(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	b := vault.Backup{Table: ordersID, ID: plan.Backup}
	if _, err := p.Tick(t.Context(), r.run(), b); err != nil {
		t.Fatal(err)
	}
	if m, err := p.Void(t.Context(), b, "tired of it"); err != nil || m.State != vault.Void {
		t.Fatalf("%v: %v", m, err)
	}
	e := &backup.Exporter{Repo: repo, Tables: tables, Work: r, Log: discard}
	reply, err := e.Export(t.Context(), r.run(), r.queue[0])
	if err != nil || !reply.Superseded || reply.Rows != 0 {
		t.Errorf("a worker of a backup that was given up: %+v, %v", reply, err)
	}
	if progress, err := p.Tick(t.Context(), r.run(), b); err != nil || progress.State != backup.StateVoid {
		t.Errorf("a tick of a backup that was given up: %+v, %v", progress, err)
	}
	if _, err := repo.Latest(t.Context(), ordersID, time.Time{}); err == nil {
		t.Error("a backup that was given up is offered for a restore")
	}
	req.At = began.Add(time.Hour)
	if again, err := p.Plan(t.Context(), req); err != nil || again.Backup == plan.Backup {
		t.Errorf("the next backup resumes the one that was given up: %v", err)
	}
}

// TestPlanResumes: the same request finds the open plan, another one does not.
func TestPlanResumes(t *testing.T) {
	tables := tabletest.New()
	orders(tables, 10)
	r := &runner{store: &mem.Store{}, tables: tables, now: began}
	repo, err := r.repo(t)
	if err != nil {
		t.Fatal(err)
	}
	p := &backup.Planner{Repo: repo, Tables: tables, Work: r, Log: discard, Now: r.clock}
	plan := func(req backup.PlanRequest) vault.BackupID {
		t.Helper()
		req.Table, req.Kind, req.Trigger = ordersID, vault.Full, "manual"
		got, err := p.Plan(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return got.Backup
	}
	first := plan(backup.PlanRequest{At: began})
	if plan(backup.PlanRequest{At: began.Add(time.Hour)}) != first {
		t.Error("a later request does not resume the open plan")
	}
	if plan(backup.PlanRequest{At: began.Add(time.Hour), New: true}) == first {
		t.Error("a request for a new backup resumes the open plan")
	}
	if plan(backup.PlanRequest{At: began.Add(2 * time.Hour), Settings: vault.Settings{Lanes: 2}}) == first {
		t.Error("a request with other settings resumes the open plan")
	}
	for name, req := range map[string]backup.PlanRequest{
		"unknown table": {Table: vault.TableID{Region: "local", Instance: "prod", Table: "nothing"}, Kind: vault.Full, At: began},
		"unknown kind":  {Table: ordersID, Kind: "partial", At: began},
		"bad lanes":     {Table: ordersID, Kind: vault.Full, At: began, Settings: vault.Settings{Lanes: 17}},
	} {
		if _, err := p.Plan(t.Context(), req); err == nil || !strings.Contains(err.Error(), req.Table.String()) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
