package drill_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/drill"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/objectfault"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/prune"
	"github.com/tablevault/tablevault/shared/reconcile"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
	"github.com/tablevault/tablevault/shared/verify"
)

// day is the hour at which every test begins.
var day = time.Date(2026, 11, 20, 2, 14, 0, 0, time.UTC)

// daily backs prod up by the hour, and rehearses a restore of each table by the day.
const daily = "tables: prod/*\nevery: hourly\nkeep: 72 hours\nlanes: 1\ndrill: {every: daily, to: staging/drill}\n"

// world is a vault, two instances and the functions, in one process.
type world struct {
	t             testing.TB
	store         object.Store
	repo          *repository.Repository
	prod, staging *tabletest.Tables
	// blind drops the looks that workers ask for who find nothing left to do, ticks
	// counts those at everything.
	blind bool
	ticks int

	mu    sync.Mutex
	now   time.Time
	queue []fanout.Work
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, prod: tabletest.New(), staging: tabletest.New(), now: day}
	w.prod.Now, w.staging.Now = w.clock, w.clock
	w.store = &mem.Store{Now: w.clock}
	var err error
	if w.repo, err = repository.Init(t.Context(), w.store, day); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// make makes a table of prod with some rows.
func (w *world) make(name string, rows int) {
	w.prod.Make(table.Definition{
		Name: name, Schema: table.Schema{{Name: "id", Type: table.IntegerKey}},
		DefinedColumns: []table.DefinedColumn{{Name: "n", Type: "integer"}},
		Indexes:        []table.Index{{Name: name + "_by_n", Key: []string{"n", "id"}, Type: "global", Ready: true}},
		Options:        table.Options{TTL: table.NoTTL, MaxVersions: 1, Deviation: 86400, AllowUpdate: true},
	})
	for i := range rows {
		w.prod.Put(name, tabletest.Row{Key: table.Key{table.Integer(int64(i))}, Cells: []plainbuffer.Cell{tabletest.Cell("n", day.UnixMilli(), i)}})
	}
}

func (w *world) Submit(_ context.Context, work fanout.Work) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = append(w.queue, work)
	return nil
}

func (w *world) take() (fanout.Work, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		return fanout.Work{}, false
	}
	work := w.queue[0]
	w.queue = w.queue[1:]
	return work, true
}

func (w *world) run() fanout.Run {
	return fanout.Run{Request: "request", Until: w.clock().Add(10 * time.Minute), Now: w.clock}
}

var quiet = slog.New(slog.DiscardHandler)

func (w *world) instance(name string) (*tabletest.Tables, error) {
	switch name {
	case "prod":
		return w.prod, nil
	case "staging":
		return w.staging, nil
	}
	return nil, fmt.Errorf("no instance %s", name)
}

func (w *world) importer(instance string) (*restore.Importer, error) {
	in, err := w.instance(instance)
	return &restore.Importer{Repo: w.repo, Tables: in, Work: w, Log: quiet, Memory: 4 << 20}, err
}

// work carries out what is queued, and what that queues.
func (w *world) work() {
	w.t.Helper()
	for {
		work, ok := w.take()
		if !ok {
			return
		}
		w.advance(time.Second)
		var err error
		switch work.Verb {
		case fanout.VerbExport:
			_, err = (&backup.Exporter{Repo: w.repo, Tables: w.prod, Work: w, Log: quiet, Memory: 4 << 20}).Export(w.t.Context(), w.run(), work)
		case fanout.VerbImport:
			i, _ := w.importer("staging")
			_, err = i.Import(w.t.Context(), w.run(), work)
		case fanout.VerbVerify:
			_, err = (&restore.Checker{Repo: w.repo, Tables: w.staging, Work: w, Log: quiet}).Check(w.t.Context(), w.run(), work)
		case fanout.VerbTick:
			w.ticks++
		case fanout.VerbRestore:
			if work.After != "" && w.blind {
				continue
			}
			if work.Request != "" {
				_, err = w.requests().Serve(w.t.Context(), w.run(), work.Request)
			} else {
				i, _ := w.importer("staging")
				_, err = i.Tick(w.t.Context(), w.run(), work.Restore)
			}
		}
		if err != nil {
			w.t.Logf("%s %s%s: %v", work.Verb, work.Segment, work.Request, err)
		}
	}
}

func (w *world) requests() *restore.Requests {
	return &restore.Requests{
		Repo: w.repo, Work: w, Log: quiet, Importer: w.importer,
		Parse: func(content []byte) (restore.Ask, error) {
			var ask struct {
				Backup vault.BackupID
				To     vault.TableID
			}
			err := json.Unmarshal(content, &ask)
			return restore.Ask{Backup: ask.Backup, Target: ask.To}, err
		},
	}
}

// restores is the world as it carries restores out.
type restores struct{ *world }

func (r restores) Request(b vault.BackupID, to vault.TableID) ([]byte, error) {
	return json.Marshal(map[string]any{"backup": b, "to": to})
}

func (r restores) Serve(ctx context.Context, request string, number int) error {
	return r.Submit(ctx, fanout.Work{Verb: fanout.VerbRestore, Request: request, Start: number})
}

func (r restores) GiveUp(ctx context.Context, id vault.RestoreID, reason string) (*vault.Closed, error) {
	return (&restore.Importer{Repo: r.repo, Log: quiet}).GiveUp(ctx, r.run(), id, reason)
}

func (r restores) Made(ctx context.Context, p *vault.RestorePlan) (bool, error) {
	i, err := r.importer(p.Target.Instance)
	if err != nil {
		return false, err
	}
	return i.Made(ctx, p)
}

func decoded(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Decode("tablevault.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (w *world) rehearser(text string) *drill.Rehearser {
	return &drill.Rehearser{
		Repo: w.repo, Restores: restores{w}, Policy: decoded(w.t, text), Region: "local", Log: quiet, Now: w.clock,
		Open: func(instance string) (drill.Instance, error) { return w.instance(instance) },
	}
}

// tick is one tick of the planner: backups first, then drills.
func (w *world) tick(text string) *drill.Tick {
	w.t.Helper()
	w.backups(text)
	s, err := w.rehearser(text).Tick(w.t.Context(), w.clock())
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) backups(text string) {
	w.t.Helper()
	if _, err := w.reconciler(text).Tick(w.t.Context(), w.run(), w.clock()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) reconciler(text string) *reconcile.Reconciler {
	return &reconcile.Reconciler{
		Repo: w.repo, Policy: decoded(w.t, text), Region: "local", Work: w, Log: quiet,
		Open: func(instance string) (reconcile.Instance, string, error) {
			in, err := w.instance(instance)
			return in, "http://" + instance, err
		},
	}
}

// settle ticks and works, a minute apart, until no drill is open and nothing is
// done about any.
func (w *world) settle(text string) {
	w.t.Helper()
	for n := range 100 {
		s := w.tick(text)
		w.work()
		if n > 2 && s.Open+s.Begun+s.Proved+s.Failed+s.Dropped == 0 {
			return
		}
		w.advance(time.Minute)
	}
	w.t.Fatal("the drills do not end")
}

// seal backs everything up that is due.
func (w *world) seal() {
	w.t.Helper()
	text := strings.Split(daily, "drill:")[0]
	for range 5 {
		w.backups(text)
		w.work()
	}
}

func id(name string) vault.TableID {
	return vault.TableID{Region: "local", Instance: "prod", Table: name}
}

// drills are those of a table, oldest first.
func (w *world) drills(name string) []drill.State {
	w.t.Helper()
	all, err := drill.Of(w.t.Context(), w.repo, id(name), 100, w.clock())
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Reverse(all)
	return all
}

// said is what the drills of a table have come to, a word each.
func (w *world) said(name string) string {
	w.t.Helper()
	var words []string
	for _, d := range w.drills(name) {
		word := d.Due.Format("02T15:04") + " "
		switch {
		case d.End == nil:
			word += "open"
		case d.End.OK:
			word += "proved"
		default:
			word += "failed"
		}
		if d.Drop != nil && d.Drop.Left == "" {
			word += " dropped"
		} else if d.Drop != nil {
			word += " left"
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

func (w *world) is(name, want string) {
	w.t.Helper()
	if got := w.said(name); got != want {
		w.t.Errorf("the drills of %s: %q, want %q", name, got, want)
	}
}

// left are the tables of staging.
func (w *world) left(want ...string) {
	w.t.Helper()
	names, err := w.staging.Tables(w.t.Context())
	if err != nil || !slices.Equal(names, want) && len(names)+len(want) > 0 {
		w.t.Errorf("staging has %q, %v, want %q", names, err, want)
	}
}

func reports(s *drill.Tick, text string) bool {
	return slices.ContainsFunc(s.Reports, func(r drill.Report) bool { return strings.Contains(r.Text, text) })
}

// TestDrill rehearses a restore by ticks alone: it waits for the first sealed
// backup, restores it into a table of its own, records what came of it, and leaves
// nothing behind.
func TestDrill(t *testing.T) {
	w := newWorld(t)
	w.make("orders", 40)
	if s := w.tick(daily); !reports(s, "waits for the first sealed backup") || s.Begun != 0 {
		t.Errorf("%+v", s)
	}
	w.is("orders", "")
	w.work()
	w.advance(10 * time.Minute)
	began := w.clock()
	if s := w.tick(daily); s.Begun != 1 || s.Open != 1 {
		t.Fatalf("%+v", s)
	}
	w.work()
	target := w.drills("orders")[0].Target
	if !strings.HasPrefix(target.Table, "drill_orders_20261120T000000Z_") || target.Instance != "staging" {
		t.Errorf("target %v", target)
	}
	w.left(target.Table)
	w.settle(daily)
	w.is("orders", "20T00:00 proved dropped")
	w.left()

	d := w.drills("orders")[0]
	m, err := w.repo.Latest(t.Context(), id("orders"), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	e := d.End
	if d.Backup != m.Backup || d.RecoveryPoint != m.RecoveryPoint().UTC() || d.Began != began || d.Rule != "default" || e.Rows != 40 || e.Verdict != vault.OK {
		t.Errorf("%+v\n%+v", d.Drill, e)
	}
	proof, err := w.repo.RestoreProof(t.Context(), e.Restore)
	if err != nil || proof.Verdict != vault.OK || proof.Target != target.String() || e.Proof != (vault.Restore{ID: e.Restore}).Proof() {
		t.Errorf("%+v, %v", proof, err)
	}
	if e.RTO() <= 0 || e.RTO() > 10*time.Minute || e.Ended != proof.At || e.RPO() != began.Sub(m.RecoveryPoint()) {
		t.Errorf("RTO %v, RPO %v", e.RTO(), e.RPO())
	}
	// Nothing more today, and one tomorrow, of a newer backup.
	w.settle(daily)
	w.is("orders", "20T00:00 proved dropped")
	w.advance(24 * time.Hour)
	w.seal()
	w.settle(daily)
	w.is("orders", "20T00:00 proved dropped, 21T00:00 proved dropped")
	if w.drills("orders")[1].Backup == d.Backup {
		t.Error("the same backup is restored again")
	}
}

func TestWorkers(t *testing.T) {
	for most, want := range map[int]int{1: 1, 7: 1, 8: 1, 60: 7, 800: 100} {
		p := policy.Default()
		p.Workers.Most = most
		if got := drill.Workers(p); got != want || got*drill.AtOnce > max(most/2, drill.AtOnce) {
			t.Errorf("of %d workers a drill has %d, want %d", most, got, want)
		}
	}
}

// TestNoDrill asks the vault and the instances for nothing where no drill is wanted.
func TestNoDrill(t *testing.T) {
	w := newWorld(t)
	w.make("orders", 1)
	w.seal()
	w.repo = nil
	before := w.prod.Calls("Tables")
	s, err := w.rehearser("tables: prod/*\nevery: hourly\n").Tick(t.Context(), w.clock())
	if err != nil || s.Open != 0 || w.prod.Calls("Tables") != before {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestMissedTicks switches the timer off for days: one drill makes up for all. A
// tick of the past that comes late begins nothing.
func TestMissedTicks(t *testing.T) {
	w := newWorld(t)
	w.make("orders", 5)
	w.settle(daily)
	w.advance(5 * 24 * time.Hour)
	w.settle(daily)
	w.is("orders", "20T00:00 proved dropped, 25T00:00 proved dropped")
	if _, err := w.rehearser(daily).Tick(t.Context(), day.Add(2*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	w.is("orders", "20T00:00 proved dropped, 25T00:00 proved dropped")
}

// TestDrillOfTheFuture has the record of a drill stand in the vault that is named by an
// instant which is still to come, ended or not, and has a tick be of one: drills go on,
// and whoever asks for the newest drill is told of one that was.
func TestDrillOfTheFuture(t *testing.T) {
	for _, over := range []bool{true, false} {
		w := newWorld(t)
		w.make("orders", 5)
		w.settle(daily)
		orders := vault.TableID{Region: "local", Instance: "prod", Table: "orders"}
		future := vault.NewDrillID(orders, time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC))
		d := vault.Drill{DrillID: future, Rule: "default", Backup: "20261120T020000Z-0a1b2c3d", Target: vault.TableID{Region: "local", Instance: "staging", Table: "drill_x"},
			Request: future.Request(), Workers: 1, RecoveryPoint: w.clock(), Began: w.clock(), Until: time.Date(2099, 1, 2, 0, 0, 0, 0, time.UTC)}
		records := map[string]vault.Document{future.Begun(): &d}
		if over {
			records[future.Ended()] = &vault.DrillEnd{Drill: d, Ended: w.clock(), Error: "it never was"}
			records[future.Dropped()] = &vault.DrillDrop{DrillID: future, Target: d.Target, At: w.clock()}
		}
		for name, d := range records {
			if _, err := w.repo.Create(t.Context(), name, d); err != nil {
				t.Fatal(err)
			}
		}
		w.advance(24 * time.Hour)
		s, err := w.rehearser(daily).Tick(t.Context(), time.Date(2099, 1, 2, 0, 0, 0, 0, time.UTC))
		if err != nil || s.Begun != 1 || s.Open != 1 || len(s.Reports) == 0 || !strings.Contains(s.Reports[0].Text, "still to come") {
			t.Errorf("over: %t: %+v, %v", over, s, err)
		}
		newest, err := drill.Newest(t.Context(), w.repo, &orders, w.clock())
		if err != nil || len(newest) != 1 || newest[0].Due.Year() != 2026 {
			t.Errorf("over: %t: the newest is %+v, %v", over, newest, err)
		}
		of, err := drill.Of(t.Context(), w.repo, orders, 1, w.clock())
		if err != nil || len(of) != 1 || of[0].Due.Year() != 2026 {
			t.Errorf("over: %t: the newest is %+v, %v", over, of, err)
		}
	}
}

// TestOverlappingTicks runs ticks side by side, with all of their work doubled.
func TestOverlappingTicks(t *testing.T) {
	w := newWorld(t)
	w.make("orders", 30)
	w.seal()
	for range 12 {
		var ticks sync.WaitGroup
		for i := range 3 {
			r := w.rehearser(daily)
			ticks.Add(1)
			go func() {
				defer ticks.Done()
				if _, err := r.Tick(t.Context(), w.clock().Add(time.Duration(i)*time.Second)); err != nil {
					t.Error(err)
				}
			}()
		}
		ticks.Wait()
		w.work()
		w.advance(time.Minute)
	}
	w.is("orders", "20T00:00 proved dropped")
	w.left()
	if n := w.staging.Calls("Create"); n > 2 {
		t.Errorf("%d tables were made", n)
	}
}

// TestAtOnce has several tables due: no more drills are under way than may be, and
// those that have waited longest come first.
func TestAtOnce(t *testing.T) {
	w := newWorld(t)
	var names []string
	for i := range 2*drill.AtOnce + 1 {
		names = append(names, fmt.Sprintf("t%d", i))
		w.make(names[i], i)
	}
	w.seal()
	s := w.tick(daily)
	if s.Open != drill.AtOnce || s.Waiting != drill.AtOnce+1 {
		t.Fatalf("%+v", s)
	}
	w.settle(daily)
	for _, name := range names {
		w.is(name, "20T00:00 proved dropped")
	}
	// One more table, and a new day: the new one comes first.
	w.make("zz", 1)
	w.advance(24 * time.Hour)
	w.seal()
	if w.tick(daily); w.said("zz") != "21T00:00 open" {
		t.Errorf("the table that was never rehearsed has %q", w.said("zz"))
	}
	w.settle(daily)
	w.is("t8", "20T00:00 proved dropped, 21T00:00 proved dropped")

	// When time is up, what is due waits.
	w.advance(24 * time.Hour)
	w.seal()
	r := w.rehearser(daily)
	r.Stop = w.clock()
	if s, err := r.Tick(t.Context(), w.clock()); err != nil || s.Waiting != len(names)+1 || s.Begun != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestSeveralRules has two rules want drills of one table: each is done justice by
// whichever drill comes first.
func TestSeveralRules(t *testing.T) {
	w := newWorld(t)
	w.make("orders", 3)
	const both = "every: hourly\nrules:\n- {name: a, tables: prod/*, drill: {every: weekly, to: staging/w}}\n" +
		"- {name: b, tables: prod/orders, drill: {every: daily, to: staging/d}}\n"
	w.settle(both)
	w.advance(3 * 24 * time.Hour) // Monday
	w.settle(both)
	w.advance(24 * time.Hour)
	w.settle(both)
	var got []string
	for _, d := range w.drills("orders") {
		got = append(got, d.Due.Format("Mon")+" "+d.Rule)
	}
	if want := []string{"Mon a", "Fri b", "Mon a", "Tue b"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	w.left()
}

// inTheWay makes a table of staging in the way of the next drill.
func (w *world) inTheWay(name string, due time.Time) string {
	target := vault.NewDrillID(id(name), due).Target("drill")
	w.staging.Make(table.Definition{Name: target, Schema: table.Schema{{Name: "other", Type: table.StringKey}},
		Options: table.Options{TTL: table.NoTTL, MaxVersions: 1, AllowUpdate: true}})
	return target
}

var today = day.Truncate(24 * time.Hour)

// TestTableInTheWay never restores into a table that is there, nor drops it.
func TestTableInTheWay(t *testing.T) {
	w := newWorld(t)
	w.make("orders", 3)
	target := w.inTheWay("orders", today)
	w.settle(daily)
	w.is("orders", "20T00:00 failed")
	if d := w.drills("orders")[0]; !strings.Contains(d.End.Error, "exists") {
		t.Errorf("%+v", d.End)
	}
	w.advance(24 * time.Hour)
	w.settle(daily)
	w.is("orders", "20T00:00 failed left, 21T00:00 proved dropped")
	w.left(target)
}

// TestRestoreFails keeps the table of a drill that failed, until the next drill
// begins.
func TestRestoreFails(t *testing.T) {
	w := newWorld(t)
	w.make("orders", 50)
	w.staging.Refuse = func(string, *plainbuffer.Row, table.WriteOp) (string, string) { return "OTSParameterInvalid", "no" }
	w.settle(daily)
	w.is("orders", "20T00:00 failed")
	target := w.drills("orders")[0].Target.Table
	w.left(target)
	if e := w.drills("orders")[0].End; !strings.Contains(e.Error, "OTSParameterInvalid") || strings.Contains(e.Error, "under another name") || e.Restore == "" {
		t.Errorf("%+v", e)
	}
	w.staging.Refuse = nil
	w.settle(daily)
	w.left(target)
	w.advance(24 * time.Hour)
	w.settle(daily)
	w.is("orders", "20T00:00 failed dropped, 21T00:00 proved dropped")
	w.left()
	// Its late deliveries find the restore closed.
	w.advance(time.Hour)
	w.work()
	w.left()
}

// TestVerdicts fails a drill whose table is not what the backup holds: other rows,
// and rows that are missing because the service refuses them.
func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		name    string
		verdict vault.Verdict
		spoil   func(w *world, target string)
	}{
		{"differs", vault.Differs, func(w *world, target string) {
			w.staging.Fault = func(c tabletest.Call) error {
				if c.Name == "Scan" && !c.After {
					w.staging.Put(target, tabletest.Row{Key: table.Key{table.Integer(1 << 40)}})
				}
				return nil
			}
		}},
		{"quarantined", vault.Quarantined, func(w *world, _ string) {
			w.staging.Refuse = func(_ string, row *plainbuffer.Row, _ table.WriteOp) (string, string) {
				if row.Key[0].Int() == 7 {
					return "OTSParameterInvalid", "no sevens"
				}
				return "", ""
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.make("orders", 200)
			w.seal()
			target := vault.NewDrillID(id("orders"), today).Target("drill")
			c.spoil(w, target)
			w.settle(daily)
			w.is("orders", "20T00:00 failed")
			w.left(target)
			if e := w.drills("orders")[0].End; e.Verdict != c.verdict || e.Proof == "" || e.OK || !strings.Contains(e.Error, string(c.verdict)) {
				t.Errorf("%+v", e)
			}
			w.staging.Fault, w.staging.Refuse = nil, nil
			w.advance(24 * time.Hour)
			w.settle(daily)
			w.is("orders", "20T00:00 failed dropped, 21T00:00 proved dropped")
			w.left()
		})
	}
}

// TestBound ends a drill whose restore comes to nothing, at each point at which it
// may be stuck, and lets none of its late deliveries make a table or write a row.
func TestBound(t *testing.T) {
	for _, looks := range []int{0, 1, 2} {
		w := newWorld(t)
		w.make("orders", 10)
		w.seal()
		w.tick(daily)
		request := w.drills("orders")[0].Request
		w.drain()
		for range looks {
			if _, err := w.requests().Serve(t.Context(), w.run(), request); err != nil {
				t.Fatal(err)
			}
		}
		late := w.drain()
		w.advance(23 * time.Hour)
		if s := w.tick(daily); s.Failed != 0 || s.Open != 1 {
			t.Fatalf("%+v", s)
		}
		late = append(late, w.drain()...)
		w.advance(2 * time.Hour)
		s := w.tick(daily)
		if s.Failed != 1 || !reports(s, "it had not ended by 2026-11-21T02:14") {
			t.Fatalf("after %d looks: %+v", looks, s)
		}
		w.mu.Lock()
		w.queue = append(w.queue, late...)
		w.mu.Unlock()
		w.work()
		if looks == 0 {
			w.left()
		} else if rows := w.staging.Rows(w.drills("orders")[0].Target.Table); len(rows) != 0 {
			t.Errorf("late deliveries have written %d rows", len(rows))
		}
		// The next one is due already, and waits until nothing is on its way.
		if s := w.tick(daily); s.Begun != 0 || !reports(s, "waits until 2026-11-21T04:14") {
			t.Errorf("%+v", s)
		}
		w.advance(2 * time.Hour)
		w.settle(daily)
		want := "20T00:00 failed dropped, 21T00:00 proved dropped"
		if looks == 0 {
			want = "20T00:00 failed left, 21T00:00 proved dropped"
		}
		w.is("orders", want)
		w.left()
	}
}

func (w *world) drain() []fanout.Work {
	w.mu.Lock()
	defer w.mu.Unlock()
	queue := w.queue
	w.queue = nil
	return queue
}

// TestDropFails tries again until the table is gone, and begins no other drill of
// the table before.
func TestDropFails(t *testing.T) {
	w := newWorld(t)
	w.make("orders", 4)
	denied := func(c tabletest.Call) error {
		if c.Name == "DropTable" && !c.After {
			return fmt.Errorf("denied: %w", table.ErrPermission)
		}
		return nil
	}
	w.staging.Fault = denied
	w.settle(daily)
	w.is("orders", "20T00:00 proved")
	if s := w.tick(daily); !reports(s, "denied") {
		t.Errorf("%+v", s)
	}
	w.advance(24 * time.Hour)
	w.settle(daily)
	w.is("orders", "20T00:00 proved")
	w.staging.Fault = nil
	w.settle(daily)
	w.is("orders", "20T00:00 proved dropped, 21T00:00 proved dropped")
	w.left()
}

// TestAnotherTable leaves a table alone that stands under a drill's name and is not
// the one that its restore made.
func TestAnotherTable(t *testing.T) {
	w := newWorld(t)
	w.make("orders", 4)
	w.staging.Fault = func(c tabletest.Call) error {
		if c.Name == "DropTable" && !c.After {
			return errors.New("not now")
		}
		return nil
	}
	w.settle(daily)
	w.staging.Fault = nil
	target := w.inTheWay("orders", today)
	w.settle(daily)
	w.is("orders", "20T00:00 proved left")
	w.left(target)
	if d := w.drills("orders")[0].Drop; !strings.Contains(d.Left, "not known to be the one") {
		t.Errorf("%+v", d)
	}
}

// TestUnnotedTable has a restore die between making its table and noting that: the
// table is the drill's, as long as it is as it was made.
func TestUnnotedTable(t *testing.T) {
	for _, written := range []bool{false, true} {
		w := newWorld(t)
		w.make("orders", 4)
		w.seal()
		dead := false
		w.staging.Fault = func(c tabletest.Call) error {
			if dead = dead || c.Name == "Create" && c.After; dead {
				return fmt.Errorf("denied: %w", table.ErrPermission)
			}
			return nil
		}
		w.settle(daily)
		w.is("orders", "20T00:00 failed")
		w.staging.Fault = nil
		target := w.drills("orders")[0].Target.Table
		w.left(target)
		want := "20T00:00 failed dropped, 21T00:00 proved dropped"
		if written {
			w.staging.Put(target, tabletest.Row{Key: table.Key{table.Integer(1)}})
			want = "20T00:00 failed left, 21T00:00 proved dropped"
		}
		w.advance(24 * time.Hour)
		w.settle(daily)
		w.is("orders", want)
		if written {
			w.left(target)
		} else {
			w.left()
		}
	}
}

// TestForeignRequest has another request lie where the drill's belongs: whatever it
// restores, nothing is proved by it, and its table stays.
func TestForeignRequest(t *testing.T) {
	w := newWorld(t)
	w.make("orders", 4)
	w.make("other", 4)
	w.seal()
	m, err := w.repo.Latest(t.Context(), id("other"), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	content, err := restores{w}.Request(m.Backup, vault.TableID{Region: "local", Instance: "staging", Table: "theirs"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Create(t.Context(), vault.NewDrillID(id("orders"), today).Request(), bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	const only = "tables: prod/orders\nevery: hourly\ndrill: {every: daily, to: staging/drill}\n"
	w.settle(only)
	w.is("orders", "20T00:00 failed")
	if e := w.drills("orders")[0].End; !strings.Contains(e.Error, "is not what the drill asks for") {
		t.Errorf("%+v", e)
	}
	// Who put it there is served, and nothing of his is closed.
	w.serve(vault.NewDrillID(id("orders"), today).Request())
	var answer vault.Answer
	if _, err := w.repo.Read(t.Context(), vault.AnswerName(vault.NewDrillID(id("orders"), today).Request()), &answer); err != nil || !answer.OK {
		t.Errorf("%+v, %v", answer, err)
	}
	w.advance(24 * time.Hour)
	w.settle(only)
	w.is("orders", "20T00:00 failed left, 21T00:00 proved dropped")
	w.left("theirs")
}

// serve looks at a request until it is answered.
func (w *world) serve(name string) {
	w.t.Helper()
	for range 20 {
		p, err := w.requests().Serve(w.t.Context(), w.run(), name)
		if err != nil {
			w.t.Fatal(err)
		}
		if p.Answer != nil {
			return
		}
		w.work()
	}
	w.t.Fatalf("%s is not answered", name)
}

// TestForgedAnswer has who may write requests, or answers, say that a drill's restore is proved: nothing is, unless the
// proof of that very restore says so.
func TestForgedAnswer(t *testing.T) {
	due, running := vault.NewDrillID(id("orders"), today), vault.NewRestoreID(day, "running")
	// forge writes an answer that says that all is well, changed by the case, under the name of the drill's.
	forge := func(w *world, of vault.RestoreID, change func(*vault.Answer)) {
		m, err := w.repo.Latest(t.Context(), id("orders"), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		a := &vault.Answer{
			Request: due.Request(), At: w.clock(), OK: true, Restore: of, Backup: m.Backup, Table: m.Table.String(), Target: "staging/" + due.Target("drill"),
			Rows: m.Totals.Rows, Verdict: vault.OK, Proof: vault.Restore{ID: of}.Proof(),
		}
		if change != nil {
			change(a)
		}
		w.put(vault.AnswerName(due.Request()), a)
	}
	// its is the id of the restore that the drill's request has.
	its := func(w *world) vault.RestoreID {
		w.tick(daily)
		info, err := object.Stat(t.Context(), w.store, due.Request())
		if err != nil {
			t.Fatal(err)
		}
		d := w.drills("orders")[0]
		return vault.NewRestoreID(info.Modified, string(d.Backup), d.Target.Path())
	}
	for name, c := range map[string]struct {
		forge func(w *world)
		says  string
	}{
		"before the drill": {func(w *world) { forge(w, vault.NewRestoreID(day, "x"), nil) }, "and the drill's is"},
		"of its restore":   {func(w *world) { forge(w, its(w), nil) }, "that is not proved"},
		"of another restore, which is proved": {func(w *world) {
			m, err := w.repo.Latest(t.Context(), id("orders"), time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			content, err := restores{w}.Request(m.Backup, vault.TableID{Region: "local", Instance: "staging", Table: "theirs"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.store.Create(t.Context(), "requests/theirs.json", bytes.NewReader(content)); err != nil {
				t.Fatal(err)
			}
			w.serve("requests/theirs.json")
			var theirs vault.Answer
			if _, err := w.repo.Read(t.Context(), vault.AnswerName("requests/theirs.json"), &theirs); err != nil || !theirs.OK {
				t.Fatal(theirs, err)
			}
			forge(w, theirs.Restore, nil)
		}, "and the drill's is"},
		"of a running restore, to have it closed": {func(w *world) {
			its(w)
			forge(w, running, func(a *vault.Answer) { a.OK, a.Error = false, "no" })
		}, "no"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.make("orders", 100)
			w.seal()
			c.forge(w)
			w.drain()
			w.settle(daily)
			e := w.drills("orders")[0].End
			if e == nil || e.OK || !strings.Contains(e.Error, c.says) {
				t.Errorf("%+v", e)
			}
			if closed, err := w.repo.Closed(t.Context(), running); closed != nil || err != nil {
				t.Errorf("the restore that the answer names was closed: %+v, %v", closed, err)
			}
		})
	}
}

// TestForgedProof has a proof beside the answer that is not of this drill's restore, or does not say what it comes to.
func TestForgedProof(t *testing.T) {
	due := vault.NewDrillID(id("orders"), today)
	for name, change := range map[string]func(*vault.Proof){
		"":                 func(*vault.Proof) {},
		"of another":       func(p *vault.Proof) { p.Restore = vault.NewRestoreID(day, "x") },
		"another backup":   func(p *vault.Proof) { p.Backup = vault.NewBackupID(day, "x") },
		"another table":    func(p *vault.Proof) { p.Table.Table = "other" },
		"another target":   func(p *vault.Proof) { p.Target = "staging/other" },
		"another manifest": func(p *vault.Proof) { p.Manifest.SHA256 = strings.Repeat("0", 64) },
		"another depth":    func(p *vault.Proof) { p.Depth = verify.DepthRead },
		"an old one":       func(p *vault.Proof) { p.At = day.Add(-time.Hour) },
		"rows missing":     func(p *vault.Proof) { p.Check.Missing = 1 },
		"fewer in target":  func(p *vault.Proof) { p.Check.Target-- },
		"fewer rows":       func(p *vault.Proof) { p.Check.Rows--; p.Check.Target-- },
		"other rows":       func(p *vault.Proof) { p.Check.TargetDigest.Add(p.Check.TargetDigest) },
		"rows of another": func(p *vault.Proof) {
			p.Check.Digest.Add(p.Check.Digest)
			p.Check.TargetDigest.Add(p.Check.TargetDigest)
		},
		"corrupt objects":   func(p *vault.Proof) { p.Check.Corrupted = 1 },
		"refused rows":      func(p *vault.Proof) { p.Check.Missing, p.Check.Quarantined, p.Verdict = 1, 1, vault.Quarantined },
		"verdict of others": func(p *vault.Proof) { p.Verdict = vault.Differs },
	} {
		t.Run(name, func(t *testing.T) {
			w, answer, p := rehearsed(t, due)
			change(p)
			proof := vault.Restore{ID: answer.Restore}.Proof()
			if err := w.store.Delete(t.Context(), proof); err != nil {
				t.Fatal(err)
			}
			w.put(proof, p)
			w.tick(daily)
			if e := w.drills("orders")[0].End; e == nil || e.OK != (name == "") {
				t.Errorf("%+v", e)
			}
		})
	}
}

// rehearsed is a world in which the restore of a drill of the table "orders" has ended,
// and no tick has seen it yet, with the restore's answer and proof.
func rehearsed(t *testing.T, due vault.DrillID) (*world, vault.Answer, *vault.Proof) {
	t.Helper()
	w := newWorld(t)
	w.make("orders", 100)
	w.seal()
	w.tick(daily)
	w.serve(due.Request())
	w.drain()
	var answer vault.Answer
	if _, err := w.repo.Read(t.Context(), vault.AnswerName(due.Request()), &answer); err != nil || !answer.OK {
		t.Fatal(answer, err)
	}
	proof, err := w.repo.RestoreProof(t.Context(), answer.Restore)
	if err != nil {
		t.Fatal(err)
	}
	return w, answer, proof
}

// TestForgedPlan has the plan of the drill's restore, and its proof, be about another table: that one is proved, and not the
// drill.
func TestForgedPlan(t *testing.T) {
	due := vault.NewDrillID(id("orders"), today)
	for name, change := range map[string]func(*vault.RestorePlan){
		"":               func(*vault.RestorePlan) {},
		"another target": func(p *vault.RestorePlan) { p.Target.Table = "theirs" },
		"another source": func(p *vault.RestorePlan) {
			p.Source.Table = "other"
			p.Manifest.Name = vault.Backup{Table: p.Source, ID: p.Backup}.Manifest()
		},
	} {
		w, answer, proof := rehearsed(t, due)
		was, err := w.repo.RestorePlan(t.Context(), answer.Restore)
		if err != nil {
			t.Fatal(err)
		}
		plan := *was
		change(&plan)
		plan.Definition.Name = plan.Target.Table
		proof.Target, proof.Table, proof.Manifest = plan.Target.String(), plan.Source, plan.Manifest
		r := vault.Restore{ID: answer.Restore}
		for name, d := range map[string]vault.Document{r.Plan(): &plan, r.Proof(): proof} {
			if err := w.store.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			w.put(name, d)
		}
		if w.repo, err = repository.Open(t.Context(), w.store); err != nil {
			t.Fatal(err)
		}
		w.tick(daily)
		if e := w.drills("orders")[0].End; e == nil || e.OK != (name == "") || name != "" && !strings.Contains(e.Error, "is of backup") {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// TestExpiring proves a restore of a table whose rows expire: what is left out on both sides is no difference.
func TestExpiring(t *testing.T) {
	w := newWorld(t)
	w.make("orders", 20)
	def, err := w.prod.Describe(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	def.Options.TTL, def.Indexes, def.Options.AllowUpdate = 86400, nil, false
	w.prod.Make(def)
	for i := range 20 {
		w.prod.Put("orders", tabletest.Row{Key: table.Key{table.Integer(int64(i))}, Cells: []plainbuffer.Cell{tabletest.Cell("n", day.Add(time.Duration(-i)*2*time.Hour).UnixMilli(), i)}})
	}
	w.seal()
	w.advance(20 * time.Hour)
	w.settle(daily)
	if e := w.drills("orders")[0].End; e == nil || !e.OK {
		t.Errorf("%+v", e)
	}
}

// put writes a document under a name that is free, whether it can be or not.
func (w *world) put(name string, d vault.Document) {
	w.t.Helper()
	data := vaulttest.Forge(name, d)
	if _, err := w.store.Create(w.t.Context(), name, bytes.NewReader(data)); err != nil {
		w.t.Fatal(err)
	}
}

// TestGoneTables rehearses no table that is gone, goes on with what was begun, and
// says which instances can't be asked.
func TestGoneTables(t *testing.T) {
	w := newWorld(t)
	w.make("orders", 4)
	w.seal()
	w.tick(daily)
	w.prod.Drop("orders")
	w.settle(daily)
	w.is("orders", "20T00:00 proved dropped")
	w.advance(24 * time.Hour)
	w.settle(daily)
	w.is("orders", "20T00:00 proved dropped")
	if s := w.tick("tables: [dev/*, prod/*]\nevery: hourly\ndrill: {every: daily, to: staging/drill}"); !reports(s, "can't be listed: no instance dev") {
		t.Errorf("%+v", s)
	}
}

// TestPrune deletes no backup that a drill under way restores, and the records of
// drills say what they said when their backups are gone.
func TestPrune(t *testing.T) {
	w := newWorld(t)
	w.make("orders", 20)
	w.seal()
	w.tick(daily)
	d := w.drills("orders")[0]
	// The restore is planned, and loads nothing for days.
	if _, err := w.requests().Serve(t.Context(), w.run(), d.Request); err != nil {
		t.Fatal(err)
	}
	late := w.drain()
	run := func() {
		t.Helper()
		p := &prune.Pruner{Repo: w.repo, Policy: decoded(t, strings.Replace(daily, "72", "2", 1)), Region: "local", Now: w.clock, Log: quiet, Grace: time.Hour}
		for range 3 {
			r, err := p.Prune(t.Context(), true)
			if err != nil || len(r.Failures) > 0 {
				t.Fatalf("%+v, %v", r, err)
			}
			w.advance(90 * time.Minute)
		}
	}
	for range 6 {
		w.advance(time.Hour)
		w.seal()
	}
	run()
	w.mu.Lock()
	w.queue = append(w.queue, late...)
	w.mu.Unlock()
	w.advance(time.Hour)
	w.settle(daily)
	w.is("orders", "20T00:00 proved dropped")
	for range 6 {
		w.advance(time.Hour)
		w.seal()
	}
	run()
	b := vault.Backup{Table: id("orders"), ID: d.Backup}
	if _, _, err := w.repo.Manifest(t.Context(), b); err == nil {
		t.Errorf("backup %s is still there: nothing was pruned", d.Backup)
	}
	w.is("orders", "20T00:00 proved dropped")
	if e := w.drills("orders")[0].End; e.Rows != 20 {
		t.Errorf("%+v", e)
	}
}

// TestAnyOrder lets anything happen, in any order: ticks that are lost, late, doubled
// or of the past, work that is lost or delivered late, calls that fail, rows that
// are refused, days that go by. At no time is there more than one table of drills
// for a source, and no other table is touched; when all is well again, the newest
// drill is proved and nothing is left.
func TestAnyOrder(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	begun := 0
	for round := range uint64(6) {
		random := rand.New(rand.NewPCG(seed, round))
		w := newWorld(t)
		sources := []string{"orders", "events"}
		for _, name := range sources {
			w.make(name, 30)
		}
		theirs := w.inTheWay("theirs", today)
		likely := func(percent int) bool { return random.IntN(100) < percent }
		failing := 0
		fault := func(tabletest.Call) error {
			if likely(failing) {
				return fmt.Errorf("injected: %w", table.ErrUnavailable)
			}
			return nil
		}
		w.prod.Fault, w.staging.Fault = fault, fault
		store := w.store
		var late []fanout.Work
		for range 60 {
			failing = random.IntN(2) * random.IntN(30)
			w.staging.Refuse = nil
			if likely(30) {
				w.staging.Refuse = func(string, *plainbuffer.Row, table.WriteOp) (string, string) { return "OTSParameterInvalid", "no" }
			}
			for range random.IntN(3) {
				at := w.clock()
				if likely(10) {
					at = at.Add(-time.Duration(random.IntN(72)) * time.Hour)
				}
				seldom := strings.Replace(daily, "hourly", "daily", 1)
				// A tick that fails half way is as good as one that dies.
				_, _ = w.reconciler(seldom).Tick(t.Context(), w.run(), at)
				faulty := objectfault.New(store, &objectfault.Fault{
					Op:   []objectfault.Op{objectfault.Create, objectfault.Open, objectfault.List}[random.IntN(3)],
					When: []objectfault.When{objectfault.Before, objectfault.After}[random.IntN(2)], Call: 1 + random.IntN(30),
				})
				repo, err := repository.Open(t.Context(), faulty)
				if err != nil {
					t.Fatal(err)
				}
				r := w.rehearser(seldom)
				r.Repo = repo
				_, _ = r.Tick(t.Context(), at)
			}
			switch {
			case likely(20):
				w.drain()
			case likely(20):
				late = append(late, w.drain()...)
			case likely(20):
				w.mu.Lock()
				w.queue, late = append(w.queue, late...), nil
				w.mu.Unlock()
			}
			w.work()
			w.advance([]time.Duration{time.Minute, 10 * time.Minute, time.Hour, 13 * time.Hour, 40 * time.Hour}[random.IntN(5)])

			failing = 0
			names, err := w.staging.Tables(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, source := range sources {
				n := 0
				for _, name := range names {
					if strings.HasPrefix(name, "drill_"+source+"_") {
						n++
					}
				}
				if n > 1 {
					t.Fatalf("round %d: %q are there at once; the drills: %s", round, names, w.said(source))
				}
			}
		}
		failing, w.staging.Refuse = 0, nil
		for range 3 {
			w.advance(25 * time.Hour)
			w.settle(daily)
		}
		for _, source := range sources {
			said := w.said(source)
			begun += strings.Count(said, ",") + 1
			if !strings.HasSuffix(said, "proved dropped") || strings.Contains(said, "open") || strings.Count(said, "dropped")+strings.Count(said, "left") != strings.Count(said, ",")+1 {
				t.Errorf("round %d: the drills of %s: %s", round, source, said)
			}
		}
		w.left(theirs)
	}
	if begun < 40 {
		t.Errorf("only %d drills were begun", begun)
	}
	t.Logf("%d drills", begun)
}

// TestEveryCallFails fails each call of the store that the drills make, before and
// after it took effect, and each of their calls of the instances: the ticks after
// it make up for it, and the outcome is the same.
func TestEveryCallFails(t *testing.T) {
	// A drill that fails, and one that drops its table, are in each run.
	scene := func(t *testing.T) *world {
		w := newWorld(t)
		w.make("orders", 6)
		w.seal()
		return w
	}
	seldom := strings.Replace(daily, "hourly", "daily", 1)
	rounds := func(t *testing.T, w *world, tick func()) {
		t.Helper()
		w.staging.Refuse = func(string, *plainbuffer.Row, table.WriteOp) (string, string) { return "OTSParameterInvalid", "no" }
		for day := range 2 {
			for range 8 {
				w.backups(seldom)
				tick()
				w.work()
				w.advance(10 * time.Minute)
			}
			w.staging.Refuse = nil
			if day == 0 {
				w.advance(23 * time.Hour)
			}
		}
		w.is("orders", "20T00:00 failed dropped, 21T00:00 proved dropped")
		w.left()
	}
	t.Run("store", func(t *testing.T) {
		runs := 0
		for fault := range objectfault.EachCall() {
			runs++
			w := scene(t)
			faulty := objectfault.New(w.store, fault)
			repo, err := repository.Open(t.Context(), faulty)
			if err != nil {
				if repo, err = repository.Open(t.Context(), faulty); err != nil {
					t.Fatal(err)
				}
			}
			failed := 0
			rounds(t, w, func() {
				r := w.rehearser(daily)
				r.Repo = repo
				if s, err := r.Tick(t.Context(), w.clock()); err != nil || len(s.Reports) > 0 {
					failed++
				}
			})
			if t.Failed() {
				t.Fatalf("with %v, of which %d ticks told", fault, failed)
			}
		}
		if runs < 60 {
			t.Fatalf("%d calls failed", runs)
		}
		t.Logf("%d calls failed", runs)
	})
	t.Run("tables", func(t *testing.T) {
		runs := 0
		for _, method := range []string{"Tables", "Describe", "DropTable"} {
			for n := 0; ; n++ {
				reached := false
				for _, after := range []bool{false, true} {
					w := scene(t)
					ticking, calls := false, 0
					fault := func(c tabletest.Call) error {
						if !ticking || c.Name != method || c.After != after {
							return nil
						}
						if calls++; calls-1 != n {
							return nil
						}
						reached = true
						return fmt.Errorf("injected: %w", table.ErrUnavailable)
					}
					w.prod.Fault, w.staging.Fault = fault, fault
					rounds(t, w, func() {
						ticking = true
						defer func() { ticking = false }()
						if _, err := w.rehearser(daily).Tick(t.Context(), w.clock()); err != nil {
							t.Error(err)
						}
					})
					if t.Failed() {
						t.Fatalf("with call %d of %s, after %t", n, method, after)
					}
				}
				if !reached {
					break
				}
				runs++
			}
		}
		if runs < 5 {
			t.Fatalf("%d calls failed", runs)
		}
		t.Logf("%d calls failed", runs)
	})
}

// TestRTO rehearses with ticks five minutes apart. The drill goes on from phase to phase
// by itself, and its answer has the planner look at once; where nobody tells that all is
// compared, a tick finds out. Either way, nobody's waiting counts.
func TestRTO(t *testing.T) {
	for _, blind := range []bool{false, true} {
		t.Run(fmt.Sprintf("blind: %t", blind), func(t *testing.T) {
			w := newWorld(t)
			w.make("orders", 40)
			w.seal()
			w.blind = blind
			began := w.clock()
			for n := 0; w.said("orders") != "20T00:00 proved dropped"; n++ {
				if n > 20 {
					t.Fatal(w.said("orders"))
				}
				w.tick(daily)
				w.work()
				if !blind && n == 0 && w.ticks != 1 {
					t.Errorf("the drill's answer had %d ticks follow", w.ticks)
				}
				w.advance(5 * time.Minute)
			}
			e := w.drills("orders")[0].End
			took, rto := e.Ended.Sub(e.Drill.Began), e.RTO()
			if blind == (took < 5*time.Minute) || e.Drill.Began.Before(began) {
				t.Errorf("it took %v, as ticks find out", took)
			}
			// Comparisons are begun by a tick, too, and that time counts: nothing is ready then.
			if most := map[bool]time.Duration{false: time.Minute, true: 6 * time.Minute}[blind]; rto <= 0 || rto > most || e.Compared.IsZero() {
				t.Errorf("RTO %v of %v: %+v", rto, took, e)
			}
		})
	}
}
