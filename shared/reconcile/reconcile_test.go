package reconcile_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// begunOf are the backups of a table, by the instants of their ids, with their states.
func begunOf(w *vaulttest.World, table string) []string {
	w.T.Helper()
	var ids []string
	id := vault.TableID{Region: "local", Instance: "prod", Table: table}
	for b, err := range w.Repo.Begun(w.T.Context(), &id) {
		if err != nil {
			w.T.Fatal(err)
		}
		state := "open"
		if m, _, err := w.Repo.Manifest(w.T.Context(), b.Backup); err == nil {
			state = string(m.State)
		} else if !errors.Is(err, fs.ErrNotExist) {
			w.T.Fatal(err)
		}
		if b.Ended != (state != "open") {
			w.T.Errorf("backup %s of %s is %s, the lists say ended: %t", b.ID, table, state, b.Ended)
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

// TestTickBeginsWhatIsDue makes one backup per hour and table, of all tables that are
// there when the tick runs, and none twice.
func TestTickBeginsWhatIsDue(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 60)
	w.Settle(vaulttest.Hourly)
	w.Advance(10 * time.Minute)
	w.Settle(vaulttest.Hourly)
	want(t, begunOf(w, "orders"), []string{"02:00 sealed"})

	// A new table is picked up, by the same instant.
	other := vaulttest.Definition()
	other.Name = "events"
	w.Tables.Make(other)
	w.Settle(vaulttest.Hourly)
	want(t, begunOf(w, "events"), []string{"02:00 sealed"})
	want(t, begunOf(w, "orders"), []string{"02:00 sealed"})

	// A dropped one is reported, and its backups stay.
	w.Tables.Drop("events")
	w.Advance(time.Hour)
	if s := w.Tick(vaulttest.Hourly); !vaulttest.Said(s, "the table is gone") {
		t.Errorf("%+v", s.Reports)
	}
	w.Settle(vaulttest.Hourly)
	want(t, begunOf(w, "events"), []string{"02:00 sealed"})
	want(t, begunOf(w, "orders"), []string{"02:00 sealed", "03:00 sealed"})
}

// TestMissedTicks switches the timer off for hours and on again: one backup makes up for
// all that was missed.
func TestMissedTicks(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 30)
	w.Settle(vaulttest.Hourly)
	w.Advance(5 * time.Hour)
	if s := w.Tick(vaulttest.Hourly); !vaulttest.Said(s, "4 backups were due since 2026-11-20T02:00:00Z") {
		t.Errorf("%+v", s.Reports)
	}
	w.Settle(vaulttest.Hourly)
	want(t, begunOf(w, "orders"), []string{"02:00 sealed", "07:00 sealed"})

	// A tick of the past that is delivered now begins nothing, nor does one of
	// a clock that is ahead twice.
	w.Tick(vaulttest.Hourly, vaulttest.Day.Add(2*time.Hour))
	w.Settle(vaulttest.Hourly)
	want(t, begunOf(w, "orders"), []string{"02:00 sealed", "07:00 sealed"})
}

// TestOverlappingTicks runs ticks at the same moment, again and again, with all of their
// work doubled: they agree on what they begin.
func TestOverlappingTicks(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Quiet = true
	w.Fill(vaulttest.Definition(), 200)
	for range 20 {
		var ticks sync.WaitGroup
		for i := range 3 {
			ticks.Add(1)
			go func() {
				defer ticks.Done()
				if _, err := w.Reconciler(vaulttest.Hourly).Tick(t.Context(), w.Run(), w.Clock().Add(time.Duration(i)*time.Second)); err != nil {
					t.Error(err)
				}
			}()
		}
		ticks.Wait()
		w.Work()
		w.Advance(time.Second)
	}
	want(t, begunOf(w, "orders"), []string{"02:00 sealed"})
}

// TestLostWork loses every dispatch of an hour: the segments are dispatched again, under
// the numbers of their starts, until they are at work.
func TestLostWork(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 100)
	first := w.Tick(vaulttest.Hourly)
	lost := w.Drain()
	if first.Dispatched == 0 || len(lost) != first.Dispatched {
		t.Fatalf("%d dispatched, %d queued", first.Dispatched, len(lost))
	}
	again := w.Tick(vaulttest.Hourly)
	if same := w.Drain(); !slices.Equal(same, lost) || again.Dispatched != first.Dispatched {
		t.Errorf("%v is dispatched after %v", same, lost)
	}
	// One begins and dies: nothing happens until the platform would have ended
	// it, and then it has a new number.
	dead := lost[0]
	w.Tables.Fault = nil
	if err := vaulttest.BeginAndDie(w, dead); err != nil {
		t.Fatal(err)
	}
	if s := w.Tick(vaulttest.Hourly); s.Live != 1 || slices.ContainsFunc(w.Drain(), func(x fanout.Work) bool { return x.Segment == dead.Segment }) {
		t.Errorf("a segment that is at work is dispatched: %+v", s)
	}
	w.Advance(11 * time.Minute)
	w.Tick(vaulttest.Hourly)
	if !slices.ContainsFunc(w.Drain(), func(x fanout.Work) bool { return x.Segment == dead.Segment && x.Start == 1 }) {
		t.Error("the segment of a dead worker is not dispatched again")
	}
	w.Settle(vaulttest.Hourly)
	want(t, begunOf(w, "orders"), []string{"02:00 sealed"})
}

// TestWorkersAreBounded never has more workers than the policy allows, over all backups,
// and gives each backup some.
func TestWorkersAreBounded(t *testing.T) {
	w := vaulttest.NewWorld(t)
	for _, name := range []string{"orders", "other"} {
		def := vaulttest.Definition()
		def.Name = name
		w.Tables.Make(def)
		for i := range 8 {
			w.Tables.Put(name, tabletest.Row{
				Key:   table.Key{table.String(fmt.Sprint("k", i)), table.Binary(nil), table.Integer(1)},
				Cells: []plainbuffer.Cell{tabletest.Cell("c", 1, make([]byte, 1<<20))},
			})
		}
	}
	limited := strings.Replace(vaulttest.Hourly, "lanes: 3", "lanes: 1", 1) + "\nworkers: 4"
	s := w.Tick(limited)
	if s.Dispatched != 4 || s.Most != 4 || len(s.Backups) != 2 {
		t.Fatalf("%+v", s)
	}
	queue := w.Drain()
	tables := map[string]int{}
	for _, x := range queue {
		tables[x.Table.Table]++
		if err := vaulttest.BeginAndDie(w, x); err != nil {
			t.Fatal(err)
		}
	}
	if tables["orders"] != 2 || tables["other"] != 2 {
		t.Errorf("%v: each backup gets its share", tables)
	}
	if s := w.Tick(limited); s.Live != 4 || s.Dispatched != 0 {
		t.Errorf("with 4 at work, %d are started", s.Dispatched)
	}
	w.Advance(11 * time.Minute)
	w.Settle(limited)
	want(t, begunOf(w, "orders"), []string{"02:00 sealed"})
	want(t, begunOf(w, "other"), []string{"02:00 sealed"})
}

// TestNoPileUp does not begin a backup while the rule's former one still runs, and gives
// up one that can't go on when its successor begins.
func TestNoPileUp(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Quiet = true
	w.Fill(vaulttest.Definition(), 50)
	w.Tick(vaulttest.Hourly)
	w.Drain()
	w.Advance(time.Hour)
	if s := w.Tick(vaulttest.Hourly); !vaulttest.Said(s, "still runs") {
		t.Errorf("%+v", s.Reports)
	}
	want(t, begunOf(w, "orders"), []string{"02:00 open"})

	// The table is replaced by one of another key: the backup can't go on.
	changed := vaulttest.Definition()
	changed.Schema = changed.Schema[:2]
	w.Tables.Make(changed)
	w.Tables.Put("orders", row2())
	w.Work()
	w.Settle(vaulttest.Hourly)
	want(t, begunOf(w, "orders"), []string{"02:00 void", "03:00 sealed"})
}

// TestOneTableKeepsNoOtherBack goes on with all that can.
func TestOneTableKeepsNoOtherBack(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 20)
	bad := vaulttest.Definition()
	bad.Name = "bad"
	w.Tables.Make(bad)
	w.Tables.Fault = refuse("Describe", "bad")
	s := w.Tick("tables: [dev/x, prod/*, prod/never]\nevery: hourly")
	for _, text := range []string{"instance dev can't be listed", "can't be planned", "there is no such table"} {
		if !vaulttest.Said(s, text) {
			t.Errorf("%q is not reported: %+v", text, s.Reports)
		}
	}
	w.Settle(vaulttest.Hourly)
	want(t, begunOf(w, "orders"), []string{"02:00 sealed"})
	want(t, begunOf(w, "bad"), nil)
}

// TestRestoreByRequest puts requests into the vault and waits for the answers.
func TestRestoreByRequest(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Quiet = true
	w.Fill(vaulttest.Definition(), 80)
	m := w.Backup(vaulttest.Small)
	put := func(name, content string) {
		t.Helper()
		if _, err := w.Store.Create(t.Context(), name, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	answer := func(name string) *vault.Answer {
		t.Helper()
		data, err := object.ReadAll(t.Context(), w.Store, vault.AnswerName(name), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		a := new(vault.Answer)
		if err := vault.Decode(vault.AnswerName(name), data, a); err != nil {
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
			if _, err := w.Requests().Serve(t.Context(), w.Run(), "requests/good.json"); err != nil && !strings.Contains(err.Error(), "loading") {
				t.Error(err)
			}
		}()
	}
	looks.Wait()
	w.Settle("")
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
		if got := len(w.Tables.Rows(target)); int64(got) != m.Totals.Rows {
			t.Errorf("%s has %d rows of %d", target, got, m.Totals.Rows)
		}
	}

	// Deliveries after the answer do nothing, also when the table is gone or
	// another's by then.
	w.Tables.Drop("copy")
	w.Advance(5 * time.Hour)
	progress, err := w.Requests().Serve(t.Context(), w.Run(), "requests/good.json")
	if err != nil || progress.Answer == nil || !progress.Answer.OK {
		t.Errorf("%+v: %v", progress, err)
	}
	if s := w.Tick(""); s.Requests != 0 || s.Restores != 0 {
		t.Errorf("%d requests and %d restores are open after all have ended", s.Requests, s.Restores)
	}
	w.Work()
	if _, err := w.Tables.Describe(t.Context(), "copy"); !errors.Is(err, table.ErrNotExist) {
		t.Errorf("a late delivery made the table again: %v", err)
	}
}

// TestRequestThatFails answers with the reason, and ends the restore so that no worker
// writes any more.
func TestRequestThatFails(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Quiet = true
	w.Fill(vaulttest.Definition(), 40)
	w.Backup(vaulttest.Small)
	if _, err := w.Store.Create(t.Context(), "requests/a.json", strings.NewReader(`{"table":"prod/orders","to":"prod/copy"}`)); err != nil {
		t.Fatal(err)
	}
	w.Tables.Fault = refuse("Write", "copy")
	for range 10 {
		w.Tick("")
		w.Work()
	}
	progress, err := w.Requests().Serve(t.Context(), w.Run(), "requests/a.json")
	if err != nil || progress.Answer == nil || progress.Answer.OK || !strings.Contains(progress.Answer.Error, "denied") {
		t.Fatalf("%+v: %v", progress.Answer, err)
	}
	if s := w.Tick(""); s.Requests+s.Restores != 0 {
		t.Errorf("%+v", s)
	}
}

// TestTickRestoresGoOn lets the planner go on with a restore whose command has gone away.
func TestTickRestoresGoOn(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 40)
	m := w.Backup(vaulttest.Small)
	plan := w.Begin(m)
	if s := w.Tick(""); s.Restores != 1 {
		t.Fatalf("%+v", s)
	}
	w.Settle("")
	proof, err := w.Repo.RestoreProof(t.Context(), plan.Restore)
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
		{"oss://b/v", "oss://b/v/answers/requests/a.json", ""},
		{"oss://b/v", "oss://b/v/drill-requests/a.json", "drill-requests/a.json"},
		{"oss://b/v", "oss://b/v/requests/../vault.json", ""},
		{"oss://b/v", "requests/.json", ""},
		// A directory stands for the bucket that the trigger names.
		{"file:///d/vault", "oss://b/requests/a.json", "requests/a.json"},
		{"file:///d/vault", "oss://b/vault/requests/a.json", ""},
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
