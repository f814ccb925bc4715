package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
)

var (
	sourceID = vault.TableID{Region: "local", Instance: "prod", Table: "orders"}
	targetID = vault.TableID{Region: "local", Instance: "prod", Table: "orders_copy"}
)

// day is the hour at which every test begins.
var day = time.Date(2026, 11, 20, 2, 14, 0, 0, time.UTC)

// world is a vault, an instance and the functions, in one process.
type world struct {
	t      testing.TB
	store  object.Store
	repo   *repository.Repository
	tables *tabletest.Tables
	// instance is what the functions work on, tables if it is nil.
	instance table.Instance
	// hop is how long an invocation works before it is to stop, counted in looks
	// at its clock; 0 for as long as it takes.
	hop int
	// workers is how many segments of a restore may be worked on at a time, 0 for
	// any number.
	workers int
	// quiet keeps failures of invocations out of the test's log.
	quiet    bool
	manifest *vault.Manifest
	// targets are the stores of further vaults, by their addresses.
	targets map[string]object.Store
	// ledger, if there is one, sees what each invocation asks of the store, and
	// the records tell of it.
	ledger *ledger

	mu    sync.Mutex
	now   time.Time
	queue []fanout.Work
	last  error // of the newest invocation that failed
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, tables: tabletest.New(), now: day}
	w.tables.Now = w.clock
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

// requests numbers the invocations.
var requests atomic.Int64

// run is an invocation with ten minutes to go.
func (w *world) run() fanout.Run {
	begin := w.clock()
	run := fanout.Run{Request: fmt.Sprint("request ", requests.Add(1)), Until: begin.Add(10 * time.Minute), Now: w.clock}
	if w.hop > 0 {
		looks := 0
		var mu sync.Mutex
		run.Stop, run.Until = begin.Add(9*time.Minute), begin.Add(9*time.Minute+time.Second)
		run.Now = func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			if looks++; looks > w.hop {
				return begin.Add(9 * time.Minute)
			}
			return begin
		}
	}
	return run
}

func (w *world) log() *slog.Logger { return slog.New(slog.DiscardHandler) }

// worked is the instance that the functions work on.
func (w *world) worked() table.Instance {
	if w.instance != nil {
		return w.instance
	}
	return w.tables
}

// opened is the vault as an invocation of a kind opens it.
func (w *world) opened(kind string) *repository.Repository {
	if w.ledger == nil {
		return w.repo
	}
	return w.ledger.open(w.t, kind)
}

func (w *world) planner() *backup.Planner {
	return &backup.Planner{Repo: w.opened("plan"), Tables: w.worked(), Work: w, Log: w.log(), Now: w.clock}
}

func (w *world) exporter() *backup.Exporter {
	return &backup.Exporter{Repo: w.opened("export"), Tables: w.worked(), Work: w, Log: w.log()}
}

func (w *world) importer() *restore.Importer {
	return &restore.Importer{Repo: w.opened("import"), Tables: w.worked(), Work: w, Log: w.log(), Workers: w.workers}
}

func (w *world) verifier() *restore.Verifier {
	return &restore.Verifier{Repo: w.opened("verify"), Tables: w.worked(), Log: w.log(), Now: w.clock}
}

// work carries out what is queued, and what that queues.
func (w *world) work() {
	w.t.Helper()
	for n := 0; ; n++ {
		work, ok := w.take()
		if !ok {
			return
		}
		if n > 10_000 {
			w.t.Fatal("the work does not end")
		}
		var err error
		switch work.Verb {
		case fanout.VerbExport:
			_, err = w.exporter().Export(w.t.Context(), w.run(), work)
		case fanout.VerbImport:
			_, err = w.importer().Import(w.t.Context(), w.run(), work)
		case fanout.VerbVerify:
			_, err = w.verifier().VerifySegment(w.t.Context(), w.run(), work)
		case fanout.VerbCopy:
			c := w.copier(w.targets[work.Target])
			c.Target = work.Target
			_, err = c.Copy(w.t.Context(), w.run(), work)
		case fanout.VerbRestore:
			if work.Request != "" {
				_, err = w.requests().Serve(w.t.Context(), w.run(), work.Request)
			} else {
				_, err = w.importer().Tick(w.t.Context(), w.run(), work.Restore)
			}
		}
		if err != nil {
			if !w.quiet {
				w.t.Logf("%s %s start %d: %v", work.Verb, work.Segment, work.Start, err)
			}
			w.last = err
		}
	}
}

// backup backs the source up.
func (w *world) backup(s vault.Settings) *vault.Manifest {
	w.t.Helper()
	plan, err := w.planner().Plan(w.t.Context(), backup.PlanRequest{Table: sourceID, Kind: vault.Full, At: w.clock(), Trigger: "test", New: true, Settings: s})
	if err != nil {
		w.t.Fatal(err)
	}
	for range 100 {
		progress, err := w.planner().Tick(w.t.Context(), w.run(), vault.Backup{Table: plan.Table, ID: plan.Backup})
		if err != nil {
			w.t.Fatal(err)
		}
		if progress.Manifest != nil {
			return progress.Manifest
		}
		w.work()
	}
	w.t.Fatal("the backup does not end")
	return nil
}

func (w *world) request(m *vault.Manifest) restore.Request {
	return restore.Request{Backup: vault.Backup{Table: m.Table, ID: m.Backup}, Target: targetID, At: w.clock()}
}

func (w *world) begin(m *vault.Manifest) *vault.RestorePlan {
	w.t.Helper()
	plan, err := w.importer().Begin(w.t.Context(), w.run(), w.request(m))
	if err != nil {
		w.t.Fatal(err)
	}
	return plan
}

// finish drives a restore until it is done or has failed for good.
func (w *world) finish(id vault.RestoreID) restore.Progress {
	w.t.Helper()
	for range 200 {
		progress, err := w.importer().Tick(w.t.Context(), w.run(), id)
		if err != nil {
			w.t.Fatal(err)
		}
		if progress.State == restore.StateDone || progress.State == backup.StateFailed {
			return progress
		}
		if progress.Dispatched == 0 {
			w.advance(time.Minute)
		}
		w.work()
	}
	w.t.Fatal("the restore does not end")
	return restore.Progress{}
}

func (w *world) restore(m *vault.Manifest) restore.Progress {
	w.t.Helper()
	return w.finish(w.begin(m).Restore)
}

// small are settings by which a few hundred rows make several segments, each
// of several lanes and parts.
var small = vault.Settings{SegmentBytes: 1 << 20, Lanes: 3, PartBytes: 40 << 10}

func definition() table.Definition {
	return table.Definition{
		Name: sourceID.Table,
		Schema: table.Schema{
			{Name: "user", Type: table.StringKey}, {Name: "blob", Type: table.BinaryKey}, {Name: "id", Type: table.IntegerKey},
		},
		Options: table.Options{TTL: table.NoTTL, MaxVersions: 5, Deviation: 86400, AllowUpdate: true},
	}
}

// fill makes the source: n rows of every type of value, some with several
// versions, some without cells, a wide one, and keys at every extreme.
func (w *world) fill(def table.Definition, n int) {
	w.t.Helper()
	w.tables.Make(def)
	seed := rand.Uint64()
	w.t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	text := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = 'a' + byte(random.IntN(26))
		}
		return string(b)
	}
	// Timestamps from 1970 to a year ahead: only a table that is wide open
	// takes them.
	stamp := func() int64 {
		return []int64{0, 1, day.UnixMilli(), day.UnixMilli() - random.Int64N(1<<40), day.AddDate(1, 0, 0).UnixMilli()}[random.IntN(5)]
	}
	for i := range n {
		r := tabletest.Row{Key: table.Key{table.String(fmt.Sprintf("u%06d", i)), table.Binary([]byte{byte(i), 0xff}), table.Integer(int64(i) - 50)}}
		if i%17 != 0 {
			r.Cells = append(r.Cells,
				tabletest.Cell("count", stamp(), int64(i)), tabletest.Cell("price", stamp(), random.Float64()),
				tabletest.Cell("paid", stamp(), i%2 == 0), tabletest.Cell("name", stamp(), text(random.IntN(200))),
				tabletest.Cell("raw", stamp(), []byte(text(random.IntN(100)))))
		}
		if i%5 == 0 {
			for v := range random.IntN(5) {
				r.Cells = append(r.Cells, tabletest.Cell("state", int64(v), text(5)))
			}
		}
		if i%7 == 0 {
			r.Cells = append(r.Cells, tabletest.Cell("only"+text(8), stamp(), ""), tabletest.Cell("公司 \n.", stamp(), "x"))
		}
		w.tables.Put(def.Name, r)
	}
	longest := strings.Repeat("\xf4\x8f\xbf\xbf", 256)
	for _, k := range []table.Key{
		{table.String(""), table.Binary([]byte{}), table.Integer(math.MinInt64)},
		{table.String("\x00"), table.Binary([]byte{0}), table.Integer(0)},
		{table.String(longest), table.Binary(bytes.Repeat([]byte{0xff}, 1024)), table.Integer(math.MaxInt64)},
	} {
		w.tables.Put(def.Name, tabletest.Row{Key: k})
	}
	for _, k := range []table.Key{
		{table.String(""), table.Binary([]byte{}), table.Integer(math.MinInt64 + 1)},
		{table.String(longest), table.Binary(bytes.Repeat([]byte{0xff}, 1024)), table.Integer(math.MaxInt64 - 1)},
	} {
		w.tables.Put(def.Name, tabletest.Row{Key: k, Cells: []plainbuffer.Cell{tabletest.Cell("a", 5, "b")}})
	}
}

// wideRow has more cells, and more bytes, than a request takes.
func wideRow() tabletest.Row {
	r := tabletest.Row{Key: table.Key{table.String("wide"), table.Binary(nil), table.Integer(0)}}
	for c := range 1200 {
		r.Cells = append(r.Cells, tabletest.Cell(fmt.Sprintf("column%04d", c), 7, strings.Repeat("w", 3600)))
	}
	return r
}

// same fails the test unless both tables have the same rows.
func (w *world) same(a, b string) {
	w.t.Helper()
	as, bs := w.tables.Rows(a), w.tables.Rows(b)
	if len(as) != len(bs) {
		w.t.Fatalf("%s has %d rows, %s has %d", a, len(as), b, len(bs))
	}
	if len(as) == 0 {
		w.t.Log("both tables are empty")
	}
	schema := definition().Schema
	for i := range as {
		if x, y := tabletest.Encode(schema, as[i]), tabletest.Encode(schema, bs[i]); !bytes.Equal(x, y) {
			w.t.Fatalf("row %d: %s has %v with %d cells, %s has %v with %d, or other ones", i, a, as[i].Key, len(as[i].Cells), b, bs[i].Key, len(bs[i].Cells))
		}
	}
}

func (w *world) proved(p restore.Progress, want vault.Verdict) {
	w.t.Helper()
	if p.Proof == nil {
		w.t.Fatalf("no proof: %+v; %v", p, w.last)
	}
	if p.Proof.Verdict != want {
		w.t.Fatalf("verdict %s, want %s: %+v", p.Proof.Verdict, want, p.Proof.Check)
	}
}

func TestRestoreBringsEveryRowBack(t *testing.T) {
	for _, test := range []struct {
		name     string
		rows     int
		wide     bool
		hop      int
		pageRows int
		settings vault.Settings
	}{
		{"many segments", 2000, false, 0, 100, small},
		{"one segment", 300, false, 0, 0, vault.Settings{}},
		{"a block per invocation", 800, false, 1, 50, small},
		{"a wide row", 50, true, 0, 7, vault.Settings{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.fill(definition(), test.rows)
			if test.wide {
				w.tables.Put(sourceID.Table, wideRow())
			}
			w.tables.PageRows, w.hop = test.pageRows, test.hop
			m := w.backup(test.settings)
			p := w.restore(m)
			w.proved(p, vault.OK)
			w.same(sourceID.Table, targetID.Table)
			if c := p.Proof.Check; c.Rows != m.Totals.Rows || c.Target != m.Totals.Rows || c.Digest != m.Totals.Digest || c.TargetDigest != m.Totals.Digest {
				t.Errorf("the proof counts %d and %d rows, digests %s and %s; the manifest %d, %s", c.Rows, c.Target, c.Digest, c.TargetDigest, m.Totals.Rows, m.Totals.Digest)
			}
		})
	}
}

func TestRestoreOfATableWithoutRows(t *testing.T) {
	w := newWorld(t)
	w.tables.Make(definition())
	p := w.restore(w.backup(vault.Settings{}))
	w.proved(p, vault.OK)
	w.same(sourceID.Table, targetID.Table)
}

func TestRestoreGivesTheTableItsSettings(t *testing.T) {
	def := definition()
	def.Schema[2].AutoIncrement = true
	def.DefinedColumns = []table.DefinedColumn{{Name: "name", Type: "string"}, {Name: "count", Type: "integer"}}
	def.Indexes = []table.Index{{Name: "by_name", Key: []string{"name", "user", "blob", "id"}, Columns: []string{"count"}, Type: "global", Ready: true}}
	def.SearchIndexes = []table.SearchIndex{{Name: "search", Schema: []byte{1, 2, 3}}}
	def.Stream = &table.Stream{ID: "s", ExpirationHours: 48}
	def.Throughput = table.Throughput{Read: 100, Write: 20}
	def.Options = table.Options{TTL: 86400 * 365, MaxVersions: 1, Deviation: 3600, AllowUpdate: false}
	w := newWorld(t)
	w.tables.Make(def)
	for i := range 100 {
		w.tables.Put(def.Name, tabletest.Row{
			Key:   table.Key{table.String("u"), table.Binary(nil), table.Integer(int64(i))},
			Cells: []plainbuffer.Cell{tabletest.Cell("name", day.UnixMilli()-int64(i), "n"), tabletest.Cell("count", day.UnixMilli(), i)},
		})
	}
	p := w.restore(w.backup(vault.Settings{}))
	w.proved(p, vault.OK)
	w.same(sourceID.Table, targetID.Table)
	got, err := w.tables.Describe(t.Context(), targetID.Table)
	if err != nil {
		t.Fatal(err)
	}
	if got.Options != def.Options {
		t.Errorf("options %+v, want %+v", got.Options, def.Options)
	}
	if got.Schema[2].AutoIncrement {
		t.Error("the copy's key column is auto-increment: its rows could not have kept their keys")
	}
	if !slices.Equal(got.DefinedColumns, def.DefinedColumns) || len(got.Indexes) != 1 || len(got.SearchIndexes) != 1 || got.Stream == nil || got.Stream.ExpirationHours != 48 {
		t.Errorf("the copy is %+v", got)
	}
	if got.Throughput != (table.Throughput{}) {
		t.Errorf("%+v is reserved for the copy, which costs by the hour", got.Throughput)
	}
	notes := strings.Join(p.Proof.Notes, "\n")
	for _, want := range []string{"had reserved 100 read and 20 write units", `key column "id" was auto-increment`, `index "by_name" is "orders_copy_by_name" here`} {
		if !strings.Contains(notes, want) {
			t.Errorf("the notes do not say %q:\n%s", want, notes)
		}
	}
}

func TestRestoreRefusesWhatIsNotItsOwn(t *testing.T) {
	w := newWorld(t)
	w.fill(definition(), 20)
	m := w.backup(vault.Settings{})
	check := func(what string, want error, texts ...string) {
		t.Helper()
		_, err := w.importer().Begin(t.Context(), w.run(), w.request(m))
		if !errors.Is(err, want) {
			t.Fatalf("%s: %v, want %v", what, err, want)
		}
		if want == table.ErrExist && !fanout.Permanent(err) {
			t.Errorf("%s: trying again is said to help", what)
		}
		for _, text := range texts {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: the error does not say %q: %v", what, text, err)
			}
		}
	}
	def := definition()
	def.Name = targetID.Table
	w.tables.Make(def)
	check("a target that exists", table.ErrExist, "prod/orders_copy", "another name")
	w.tables.Drop(targetID.Table)

	// A target that comes to exist between the look and the making.
	w.tables.Fault = func(c tabletest.Call) error {
		if c.Name == "Create" && !c.After {
			w.tables.Make(def)
		}
		return nil
	}
	check("a target that another made meanwhile", table.ErrExist, "not by this restore")
	w.tables.Fault = nil
	w.tables.Drop(targetID.Table)

	m.Backup = vault.NewBackupID(day, "no such")
	check("a backup that is not there", fs.ErrNotExist, "tablevault list")
}

func TestRestoreAdoptsTheTableWhoseAnswerWasLost(t *testing.T) {
	w := newWorld(t)
	w.fill(definition(), 20)
	m := w.backup(vault.Settings{})
	lost := errors.New("connection reset")
	w.tables.Fault = func(c tabletest.Call) error {
		if c.Name == "Create" && c.After {
			return lost
		}
		return nil
	}
	if _, err := w.importer().Begin(t.Context(), w.run(), w.request(m)); !errors.Is(err, lost) {
		t.Fatal(err)
	}
	w.tables.Fault = nil
	w.advance(time.Hour) // a manual command that is given again has another time
	w.proved(w.restore(m), vault.OK)
	w.same(sourceID.Table, targetID.Table)
}

func TestOneRestorePerTarget(t *testing.T) {
	w := newWorld(t)
	w.fill(definition(), 20)
	m := w.backup(vault.Settings{})
	w.advance(time.Hour)
	other := w.backup(vault.Settings{})
	first := w.begin(m)
	w.advance(time.Minute)
	if again := w.begin(m); again.Restore != first.Restore {
		t.Errorf("the same command began %s beside %s", again.Restore, first.Restore)
	}
	if _, err := w.importer().Begin(t.Context(), w.run(), w.request(other)); err == nil || !strings.Contains(err.Error(), string(first.Restore)) {
		t.Errorf("another backup into a table that is being restored: %v", err)
	}
	fresh := w.request(m)
	fresh.New = true
	if _, err := w.importer().Begin(t.Context(), w.run(), fresh); !errors.Is(err, table.ErrExist) {
		t.Errorf("a new restore into a table that is being restored: %v", err)
	}
	w.tables.Drop(targetID.Table)
	second, err := w.importer().Begin(t.Context(), w.run(), fresh)
	if err != nil || second.Restore == first.Restore {
		t.Fatalf("a new restore after the table was dropped: %+v, %v", second, err)
	}
	if p := w.finish(first.Restore); p.State != backup.StateFailed || !strings.Contains(p.LastError, "new restore") {
		t.Errorf("the first restore: %+v", p)
	}
	w.proved(w.finish(second.Restore), vault.OK)
	w.same(sourceID.Table, targetID.Table)
}
