package backup_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/reconcile"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
)

// hourly backs everything of prod up.
const hourly = "tables: prod/*\nevery: hourly\nkeep: 72 hours\nsegment_size: 1 MiB\nlanes: 3"

func (w *world) requests() *restore.Requests {
	return &restore.Requests{
		Repo: w.repo, Log: w.log(), Importer: func(string) (*restore.Importer, error) { return w.importer(), nil },
		Parse: func(content []byte) (restore.Ask, error) {
			var ask struct{ Backup, Table, To string }
			if err := json.Unmarshal(content, &ask); err != nil {
				return restore.Ask{}, err
			}
			id := func(name string) vault.TableID {
				instance, table, _ := strings.Cut(name, "/")
				return vault.TableID{Region: "local", Instance: instance, Table: table}
			}
			return restore.Ask{Backup: vault.BackupID(ask.Backup), Table: id(ask.Table), Target: id(ask.To)}, nil
		},
	}
}

func (w *world) reconciler(text string) *reconcile.Reconciler {
	w.t.Helper()
	p := policy.Default()
	if text != "" {
		var err error
		if p, err = policy.Decode("tablevault.yaml", []byte(text)); err != nil {
			w.t.Fatal(err)
		}
	}
	return &reconcile.Reconciler{
		Repo: w.repo, Policy: p, Region: "local", Work: w, Log: w.log(),
		Open: func(instance string) (reconcile.Instance, string, error) {
			if instance != "prod" {
				return nil, "", fmt.Errorf("no instance %s", instance)
			}
			return w.tables, "http://prod", nil
		},
	}
}

// tick is one tick, at the world's time or at an instant of its own.
func (w *world) tick(text string, at ...time.Time) *reconcile.Sweep {
	w.t.Helper()
	instant := w.clock()
	if len(at) > 0 {
		instant = at[0]
	}
	sweep, err := w.reconciler(text).Tick(w.t.Context(), w.run(), instant)
	if err != nil {
		w.t.Fatal(err)
	}
	return sweep
}

// settle ticks and works until nothing is open.
func (w *world) settle(text string) {
	w.t.Helper()
	for range 100 {
		sweep := w.tick(text)
		w.work()
		if !slices.ContainsFunc(sweep.Backups, func(b reconcile.Backup) bool { return b.State == backup.StateRunning }) && sweep.Restores+sweep.Requests == 0 {
			return
		}
		w.advance(10 * time.Second)
	}
	w.t.Fatal("what is due does not end")
}

// begun are the backups of a table, by the instants of their ids, with their
// states.
func (w *world) begun(table string) []string {
	w.t.Helper()
	var ids []string
	id := vault.TableID{Region: "local", Instance: "prod", Table: table}
	for b, err := range w.repo.Begun(w.t.Context(), &id) {
		if err != nil {
			w.t.Fatal(err)
		}
		state := "open"
		if m, _, err := w.repo.Manifest(w.t.Context(), b.Backup); err == nil {
			state = string(m.State)
		} else if !errors.Is(err, fs.ErrNotExist) {
			w.t.Fatal(err)
		}
		if b.Ended != (state != "open") {
			w.t.Errorf("backup %s of %s is %s, the lists say ended: %t", b.ID, table, state, b.Ended)
		}
		ids = append(ids, b.ID.Time().Format("15:04")+" "+state)
	}
	return ids
}

func want(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func said(s *reconcile.Sweep, text string) bool {
	return slices.ContainsFunc(s.Reports, func(r reconcile.Report) bool { return strings.Contains(r.Text, text) })
}

// TestTickBeginsWhatIsDue makes one backup per hour and table, of all tables
// that are there when the tick runs, and none twice.
func TestTickBeginsWhatIsDue(t *testing.T) {
	w := newWorld(t)
	w.fill(definition(), 60)
	w.settle(hourly)
	w.advance(10 * time.Minute)
	w.settle(hourly)
	want(t, w.begun("orders"), []string{"02:00 sealed"})

	// A new table is picked up, by the same instant.
	other := definition()
	other.Name = "events"
	w.tables.Make(other)
	w.settle(hourly)
	want(t, w.begun("events"), []string{"02:00 sealed"})
	want(t, w.begun("orders"), []string{"02:00 sealed"})

	// A dropped one is reported, and its backups stay.
	w.tables.Drop("events")
	w.advance(time.Hour)
	if s := w.tick(hourly); !said(s, "the table is gone") {
		t.Errorf("%+v", s.Reports)
	}
	w.settle(hourly)
	want(t, w.begun("events"), []string{"02:00 sealed"})
	want(t, w.begun("orders"), []string{"02:00 sealed", "03:00 sealed"})
}

// TestMissedTicks switches the timer off for hours and on again: one backup
// makes up for all that was missed.
func TestMissedTicks(t *testing.T) {
	w := newWorld(t)
	w.fill(definition(), 30)
	w.settle(hourly)
	w.advance(5 * time.Hour)
	if s := w.tick(hourly); !said(s, "4 backups were due since 2026-11-20T02:00:00Z") {
		t.Errorf("%+v", s.Reports)
	}
	w.settle(hourly)
	want(t, w.begun("orders"), []string{"02:00 sealed", "07:00 sealed"})

	// A tick of the past that is delivered now begins nothing, nor does one of
	// a clock that is ahead twice.
	w.tick(hourly, day.Add(2*time.Hour))
	w.settle(hourly)
	want(t, w.begun("orders"), []string{"02:00 sealed", "07:00 sealed"})
}

// TestOverlappingTicks runs ticks at the same moment, again and again, with all
// of their work doubled: they agree on what they begin.
func TestOverlappingTicks(t *testing.T) {
	w := newWorld(t)
	w.quiet = true
	w.fill(definition(), 200)
	for range 20 {
		var ticks sync.WaitGroup
		for i := range 3 {
			ticks.Add(1)
			go func() {
				defer ticks.Done()
				if _, err := w.reconciler(hourly).Tick(t.Context(), w.run(), w.clock().Add(time.Duration(i)*time.Second)); err != nil {
					t.Error(err)
				}
			}()
		}
		ticks.Wait()
		w.work()
		w.advance(time.Second)
	}
	want(t, w.begun("orders"), []string{"02:00 sealed"})
}

// TestLostWork loses every dispatch of an hour: the segments are dispatched
// again, under the numbers of their starts, until they are at work.
func TestLostWork(t *testing.T) {
	w := newWorld(t)
	w.fill(definition(), 100)
	first := w.tick(hourly)
	lost := w.drain()
	if first.Dispatched == 0 || len(lost) != first.Dispatched {
		t.Fatalf("%d dispatched, %d queued", first.Dispatched, len(lost))
	}
	again := w.tick(hourly)
	if same := w.drain(); !slices.Equal(same, lost) || again.Dispatched != first.Dispatched {
		t.Errorf("%v is dispatched after %v", same, lost)
	}
	// One begins and dies: nothing happens until the platform would have ended
	// it, and then it has a new number.
	dead := lost[0]
	w.tables.Fault = nil
	if err := beginAndDie(w, dead); err != nil {
		t.Fatal(err)
	}
	if s := w.tick(hourly); s.Live != 1 || slices.ContainsFunc(w.drain(), func(x fanout.Work) bool { return x.Segment == dead.Segment }) {
		t.Errorf("a segment that is at work is dispatched: %+v", s)
	}
	w.advance(11 * time.Minute)
	w.tick(hourly)
	if !slices.ContainsFunc(w.drain(), func(x fanout.Work) bool { return x.Segment == dead.Segment && x.Start == 1 }) {
		t.Error("the segment of a dead worker is not dispatched again")
	}
	w.settle(hourly)
	want(t, w.begun("orders"), []string{"02:00 sealed"})
}

func (w *world) drain() []fanout.Work {
	w.mu.Lock()
	defer w.mu.Unlock()
	queue := w.queue
	w.queue = nil
	return queue
}

// beginAndDie notes a start as a worker does, and nothing else.
func beginAndDie(w *world, work fanout.Work) error {
	run := w.run()
	n := vault.Note{Segment: work.Segment, Start: work.Start, Request: "dead", Began: run.Now(), Until: run.Until}
	data, err := vault.Encode(&n)
	if err != nil {
		return err
	}
	log := vault.Backup{Table: work.Table, ID: work.Backup}.Log()
	if work.Restore != "" {
		log = vault.Restore{ID: work.Restore}.Log()
	}
	_, _, err = object.Decide(w.t.Context(), w.store, log.Start(work.Segment, work.Start), data, 1<<20)
	return err
}

// TestWorkersAreBounded never has more workers than the policy allows, over all
// backups, and gives each backup some.
func TestWorkersAreBounded(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"orders", "other"} {
		def := definition()
		def.Name = name
		w.tables.Make(def)
		for i := range 8 {
			w.tables.Put(name, tabletest.Row{
				Key:   table.Key{table.String(fmt.Sprint("k", i)), table.Binary(nil), table.Integer(1)},
				Cells: []plainbuffer.Cell{tabletest.Cell("c", 1, make([]byte, 1<<20))},
			})
		}
	}
	limited := strings.Replace(hourly, "lanes: 3", "lanes: 1", 1) + "\nworkers: 4"
	s := w.tick(limited)
	if s.Dispatched != 4 || s.Most != 4 || len(s.Backups) != 2 {
		t.Fatalf("%+v", s)
	}
	queue := w.drain()
	tables := map[string]int{}
	for _, x := range queue {
		tables[x.Table.Table]++
		if err := beginAndDie(w, x); err != nil {
			t.Fatal(err)
		}
	}
	if tables["orders"] != 2 || tables["other"] != 2 {
		t.Errorf("%v: each backup gets its share", tables)
	}
	if s := w.tick(limited); s.Live != 4 || s.Dispatched != 0 {
		t.Errorf("with 4 at work, %d are started", s.Dispatched)
	}
	w.advance(11 * time.Minute)
	w.settle(limited)
	want(t, w.begun("orders"), []string{"02:00 sealed"})
	want(t, w.begun("other"), []string{"02:00 sealed"})
}

// TestNoPileUp does not begin a backup while the rule's former one still runs,
// and gives up one that can't go on when its successor begins.
func TestNoPileUp(t *testing.T) {
	w := newWorld(t)
	w.quiet = true
	w.fill(definition(), 50)
	w.tick(hourly)
	w.drain()
	w.advance(time.Hour)
	if s := w.tick(hourly); !said(s, "still runs") {
		t.Errorf("%+v", s.Reports)
	}
	want(t, w.begun("orders"), []string{"02:00 open"})

	// The table is replaced by one of another key: the backup can't go on.
	changed := definition()
	changed.Schema = changed.Schema[:2]
	w.tables.Make(changed)
	w.tables.Put("orders", row2())
	w.work()
	w.settle(hourly)
	want(t, w.begun("orders"), []string{"02:00 void", "03:00 sealed"})
}

// TestOneTableKeepsNoOtherBack goes on with all that can.
func TestOneTableKeepsNoOtherBack(t *testing.T) {
	w := newWorld(t)
	w.fill(definition(), 20)
	bad := definition()
	bad.Name = "bad"
	w.tables.Make(bad)
	w.tables.Fault = refuse("Describe", "bad")
	s := w.tick("tables: [dev/x, prod/*, prod/never]\nevery: hourly")
	for _, text := range []string{"instance dev can't be listed", "can't be planned", "there is no such table"} {
		if !said(s, text) {
			t.Errorf("%q is not reported: %+v", text, s.Reports)
		}
	}
	w.settle(hourly)
	want(t, w.begun("orders"), []string{"02:00 sealed"})
	want(t, w.begun("bad"), nil)
}

// TestRestoreByRequest puts requests into the vault and waits for the answers.
func TestRestoreByRequest(t *testing.T) {
	w := newWorld(t)
	w.quiet = true
	w.fill(definition(), 80)
	m := w.backup(small)
	put := func(name, content string) {
		t.Helper()
		if _, err := w.store.Create(t.Context(), name, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	answer := func(name string) *vault.Answer {
		t.Helper()
		data, err := object.ReadAll(t.Context(), w.store, vault.AnswerName(name), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		a := new(vault.Answer)
		if err := vault.Decode(data, a); err != nil {
			t.Fatal(err)
		}
		return a
	}
	put("requests/good.json", `{"table":"prod/orders","to":"prod/copy"}`)
	put("requests/by/id.restore.json", fmt.Sprintf(`{"backup":"%s","to":"prod/copy2"}`, m.Backup))
	put("requests/taken.json", `{"table":"prod/orders","to":"prod/orders"}`)
	put("requests/none.json", `{"table":"prod/nothing","to":"prod/copy3"}`)
	put("requests/nonsense.json", `{`)
	put("requests/readme.txt", "not a request")

	// The event is delivered twice at the same time, and ticks run besides.
	var looks sync.WaitGroup
	for range 2 {
		looks.Add(1)
		go func() {
			defer looks.Done()
			if _, err := w.requests().Serve(t.Context(), w.run(), "requests/good.json"); err != nil && !strings.Contains(err.Error(), "loading") {
				t.Error(err)
			}
		}()
	}
	looks.Wait()
	w.settle("")
	for name, want := range map[string]string{
		"requests/taken.json": "exists", "requests/none.json": "there is no sealed backup", "requests/nonsense.json": "unexpected end",
	} {
		if a := answer(name); a.OK || !strings.Contains(a.Error, want) || a.Request != name {
			t.Errorf("%s: %+v", name, a)
		}
	}
	for name, target := range map[string]string{"requests/good.json": "copy", "requests/by/id.restore.json": "copy2"} {
		a := answer(name)
		if !a.OK || a.Verdict != vault.OK || a.Rows != m.Totals.Rows || a.Target != "prod/"+target || a.Backup != m.Backup || a.Proof == "" {
			t.Errorf("%s: %+v", name, a)
		}
		if got := len(w.tables.Rows(target)); int64(got) != m.Totals.Rows {
			t.Errorf("%s has %d rows of %d", target, got, m.Totals.Rows)
		}
	}

	// Deliveries after the answer do nothing, also when the table is gone or
	// another's by then.
	w.tables.Drop("copy")
	w.advance(5 * time.Hour)
	progress, err := w.requests().Serve(t.Context(), w.run(), "requests/good.json")
	if err != nil || progress.Answer == nil || !progress.Answer.OK {
		t.Errorf("%+v: %v", progress, err)
	}
	if s := w.tick(""); s.Requests != 0 || s.Restores != 0 {
		t.Errorf("%d requests and %d restores are open after all have ended", s.Requests, s.Restores)
	}
	w.work()
	if _, err := w.tables.Describe(t.Context(), "copy"); !errors.Is(err, table.ErrNotExist) {
		t.Errorf("a late delivery made the table again: %v", err)
	}
}

// TestRequestThatFails answers with the reason, and ends the restore so that no
// worker writes any more.
func TestRequestThatFails(t *testing.T) {
	w := newWorld(t)
	w.quiet = true
	w.fill(definition(), 40)
	w.backup(small)
	if _, err := w.store.Create(t.Context(), "requests/a.json", strings.NewReader(`{"table":"prod/orders","to":"prod/copy"}`)); err != nil {
		t.Fatal(err)
	}
	w.tables.Fault = refuse("Write", "copy")
	for range 10 {
		w.tick("")
		w.work()
	}
	progress, err := w.requests().Serve(t.Context(), w.run(), "requests/a.json")
	if err != nil || progress.Answer == nil || progress.Answer.OK || !strings.Contains(progress.Answer.Error, "denied") {
		t.Fatalf("%+v: %v", progress.Answer, err)
	}
	if s := w.tick(""); s.Requests+s.Restores != 0 {
		t.Errorf("%+v", s)
	}
}

// TestTickRestoresGoOn lets the planner go on with a restore whose command has
// gone away.
func TestTickRestoresGoOn(t *testing.T) {
	w := newWorld(t)
	w.fill(definition(), 40)
	m := w.backup(small)
	plan := w.begin(m)
	if s := w.tick(""); s.Restores != 1 {
		t.Fatalf("%+v", s)
	}
	w.settle("")
	proof, err := w.repo.RestoreProof(t.Context(), plan.Restore)
	if err != nil || proof.Verdict != vault.OK {
		t.Fatalf("%+v: %v", proof, err)
	}
}

func TestRequestName(t *testing.T) {
	for _, c := range []struct{ vault, request, want string }{
		{"oss://b/v", "oss://b/v/requests/a.json", "requests/a.json"},
		{"oss://b/v/?region=x", "oss://b/v/requests/a/b.restore.json", "requests/a/b.restore.json"},
		{"oss://b/v", "requests/a.json", "requests/a.json"},
		{"oss://b/v", "oss://b/requests/a.json", ""},
		{"oss://b/v", "oss://c/v/requests/a.json", ""},
		{"oss://b/v", "oss://b/v/backups/a.json", ""},
		{"oss://b/v", "oss://b/v/requests/a.answer.json", ""},
		{"oss://b/v", "oss://b/v/requests/../vault.json", ""},
		{"oss://b/v", "requests/.json", ""},
	} {
		got, err := restore.RequestName(c.vault, c.request)
		if (err == nil) != (c.want != "") || c.want != "" && got != c.want {
			t.Errorf("%s in %s: %q, %v", c.request, c.vault, got, err)
		}
	}
}

// row2 is a row of the first two columns of definition's key.
func row2() tabletest.Row {
	return tabletest.Row{Key: table.Key{table.String("a"), table.Binary([]byte{1})}, Cells: []plainbuffer.Cell{tabletest.Cell("c", 1, "v")}}
}

// refuse denies a call on a table, for good.
func refuse(call, name string) func(tabletest.Call) error {
	return func(c tabletest.Call) error {
		if c.Name == call && c.Table == name && !c.After {
			return fmt.Errorf("denied: %w", table.ErrPermission)
		}
		return nil
	}
}
