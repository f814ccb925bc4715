package reconcile_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/objectfault"
	"github.com/tablevault/tablevault/shared/reconcile"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

func put(t *testing.T, w *vaulttest.World, name, content string) {
	t.Helper()
	if _, err := w.Store.Create(t.Context(), name, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

// throughFaults is a reconciler whose store is struck by faults.
func throughFaults(t *testing.T, w *vaulttest.World, policy string, faults ...*objectfault.Fault) *reconcile.Reconciler {
	t.Helper()
	r := w.Reconciler(policy)
	var store object.Store = w.Store
	for _, f := range faults {
		store = objectfault.New(store, f)
	}
	repo, err := repository.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	r.Repo = repo
	return r
}

// threeTables is a world with the tables aaa, mmm and orders, whose backups of the hour
// are begun and not worked on.
func threeTables(t *testing.T) *vaulttest.World {
	w := vaulttest.NewWorld(t)
	w.Quiet = true
	for _, name := range []string{"aaa", "mmm", "orders"} {
		def := vaulttest.Definition()
		def.Name = name
		w.Fill(def, 60)
	}
	if s := w.Tick(vaulttest.Hourly); len(s.Backups) != 3 {
		t.Fatalf("%+v", s.Backups)
	}
	w.Drain()
	return w
}

func stateOf(t *testing.T, s *reconcile.Tick, table string) reconcile.Backup {
	t.Helper()
	i := slices.IndexFunc(s.Backups, func(b reconcile.Backup) bool { return b.Table == "prod/"+table })
	if i < 0 {
		t.Fatalf("the tick has no backup of %s: %+v", table, s.Backups)
	}
	return s.Backups[i]
}

// TestPoisonedRequests has everything under requests/ be nonsense: backups are made as
// ever, other requests are answered, and each piece of nonsense is reported.
func TestPoisonedRequests(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Quiet = true
	w.Fill(vaulttest.Definition(), 60)
	w.Settle(vaulttest.Hourly)
	put(t, w, "requests/x.json", "{}")
	put(t, w, vault.AcceptedName("requests/x.json"), "not json")
	put(t, w, "requests/y.json", `{"table":"prod/orders","to":"prod/copy"}`)
	s := w.Tick(vaulttest.Hourly)
	if s.Requests != 2 || !vaulttest.Said(s, "requests/x.json can't be read") {
		t.Errorf("%d requests; %+v", s.Requests, s.Reports)
	}
	w.Work()
	for range 3 {
		w.Advance(time.Hour)
		w.Settle(vaulttest.Hourly)
	}
	want(t, begunOf(w, "orders"), []string{"02:00 sealed", "03:00 sealed", "04:00 sealed", "05:00 sealed"})
	for name, ok := range map[string]bool{"requests/x.json": false, "requests/y.json": true} {
		var a vault.Answer
		if _, err := w.Repo.Read(t.Context(), vault.AnswerName(name), &a); err != nil || a.OK != ok {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}

// TestManyRequests bounds what a tick hands on, and each has its turn.
func TestManyRequests(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 20)
	w.Settle(vaulttest.Hourly)
	const n = 1000
	for i := range n {
		put(t, w, fmt.Sprintf("requests/%04d.json", i), "{}")
	}
	handed := map[string]bool{}
	for range 25 {
		s := w.Tick(vaulttest.Hourly)
		if s.Requests != n || !vaulttest.Said(s, "1000 requests are not answered") {
			t.Fatalf("%d requests; %+v", s.Requests, s.Reports)
		}
		this := 0
		for _, work := range w.Drain() {
			if work.Request != "" {
				handed[work.Request] = true
				this++
			}
		}
		if this != 100 {
			t.Fatalf("%d were handed on", this)
		}
		w.Advance(5 * time.Minute)
	}
	if len(handed) != n {
		t.Errorf("in 25 ticks %d of %d had their turn", len(handed), n)
	}
}

// TestAncientTick has a tick of an instant before 1970, which many requests wait for: it
// hands as many on as any other.
func TestAncientTick(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 20)
	w.Settle(vaulttest.Hourly)
	for i := range 101 {
		put(t, w, fmt.Sprintf("requests/%04d.json", i), "{}")
	}
	for _, at := range []time.Time{time.Unix(-3600, 0), time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC)} {
		if _, err := w.Reconciler(vaulttest.Hourly).Tick(t.Context(), w.Run(), at); err != nil {
			t.Errorf("%s: %v", at, err)
		}
		if handed := len(w.Drain()); handed != 100 {
			t.Errorf("%s: %d were handed on", at, handed)
		}
	}
}

// TestFutureTick has an event with a date in the far future, or none: it is one of now,
// and the rule goes on.
func TestFutureTick(t *testing.T) {
	for _, at := range []time.Time{time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC), {}, vaulttest.Day.Add(time.Hour)} {
		w := vaulttest.NewWorld(t)
		w.Fill(vaulttest.Definition(), 60)
		s := w.Tick(vaulttest.Hourly, at)
		if !s.At.Equal(vaulttest.Day) || !at.IsZero() != vaulttest.Said(s, "still to come") {
			t.Errorf("%s: %+v", at, s)
		}
		w.Work()
		for range 2 {
			w.Advance(time.Hour)
			w.Settle(vaulttest.Hourly)
		}
		want(t, begunOf(w, "orders"), []string{"02:00 sealed", "03:00 sealed", "04:00 sealed"})
	}
}

// TestBackupOfTheFuture has a backup of the rule stand in the vault whose name is of
// 2099, however it came there: it is reported, goes on, and stops nothing.
func TestBackupOfTheFuture(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 60)
	r := w.Reconciler(vaulttest.HourlyCopied)
	plan, err := w.Planner().Plan(t.Context(), backup.PlanRequest{
		Table: vaulttest.SourceID, Kind: vault.Full, At: time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC), Trigger: r.Policy.Rules[0].Trigger(), New: true,
		Settings: vaulttest.Small,
	})
	if err != nil {
		t.Fatal(err)
	}
	if b := (vault.Backup{Table: vaulttest.SourceID, ID: plan.Backup}); !r.Policy.Rules[0].Made("local", b) {
		t.Fatalf("%s is not one of the rule's", plan.Backup)
	}
	s := w.Tick(vaulttest.HourlyCopied)
	if !vaulttest.Said(s, "backup "+string(plan.Backup)+" is named by an instant that is still to come") {
		t.Errorf("%+v", s.Reports)
	}
	w.Work()
	for range 2 {
		w.Advance(time.Hour)
		w.Settle(vaulttest.Hourly)
	}
	want(t, begunOf(w, "orders"), []string{"02:00 sealed", "03:00 sealed", "04:00 sealed", "00:00 sealed"})
	w.Tick(vaulttest.HourlyCopied)
	for _, work := range w.Drain() {
		if work.Verb == fanout.VerbCopy && work.Backup == plan.Backup {
			t.Error("it is copied")
		}
	}
	// A restore of the newest goes by what was read, not by the name.
	if m, err := w.Repo.Latest(t.Context(), vaulttest.SourceID, time.Time{}); err != nil || m.Backup.Time().Hour() != 4 {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestDamageStaysAtItsTable damages the documents of one table in turn: what can be said
// of it is, and all other tables go on.
func TestDamageStaysAtItsTable(t *testing.T) {
	of := func(b vault.Backup) []string {
		return []string{b.Plan(), b.Manifest(), b.Log().Slot("000000", 0), b.Log().Start("000000", 0), b.Log().Failure("000000", 0)}
	}
	for i := range of(vault.Backup{}) {
		w := threeTables(t)
		b := w.Reconciler(vaulttest.Hourly).Policy.Rules[0].Backup(vault.TableID{Region: "local", Instance: "prod", Table: "aaa"}, vaulttest.Day.Truncate(time.Hour))
		name := of(b)[i]
		w.Store.(*mem.Store).Replace(name, []byte(`{"document":"nonsense`))
		if name == b.Log().Slot("000000", 0) {
			put(t, w, b.Log().Done("000000"), "") // so that it is read
		}
		if name == b.Log().Failure("000000", 0) {
			put(t, w, b.Log().Start("000000", 0), "{}")
		}
		for range 2 {
			w.Settle(vaulttest.Hourly)
			w.Advance(time.Hour)
		}
		for _, table := range []string{"mmm", "orders"} {
			want(t, begunOf(w, table), []string{"02:00 sealed", "03:00 sealed"})
		}
	}
}

// TestPanicStaysAtItsTable has the look at one table panic, in the goroutine that reads:
// it is that table's failure.
func TestPanicStaysAtItsTable(t *testing.T) {
	w := threeTables(t)
	panics := &objectfault.Fault{Op: objectfault.List, Match: func(name string) bool {
		if strings.Contains(name, "/aaa/") && strings.Contains(name, "starts/") {
			panic("nobody has foreseen this")
		}
		return false
	}}
	s, err := throughFaults(t, w, vaulttest.Hourly, panics).Tick(t.Context(), w.Run(), w.Clock())
	if err != nil {
		t.Fatal(err)
	}
	if b := stateOf(t, s, "aaa"); b.State != backup.StateFailed || !strings.Contains(b.LastError, "nobody has foreseen this") {
		t.Errorf("%+v", b)
	}
	for _, table := range []string{"mmm", "orders"} {
		if b := stateOf(t, s, table); b.State != backup.StateRunning || b.Dispatched == 0 {
			t.Errorf("%+v", b)
		}
	}
	// So for what is planned, and for the tables of other rules.
	w = vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 20)
	panics.Op, panics.Match = objectfault.Create, func(name string) bool { panic("nor this") }
	s, err = throughFaults(t, w, vaulttest.Hourly, panics).Tick(t.Context(), w.Run(), w.Clock())
	if err != nil || !vaulttest.Said(s, "can't be planned: panic: nor this") {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestSlowTableHasItsShare has the look at one table hang: it has its share of the tick,
// and all others theirs. Its backup goes on, and is not given up for another.
func TestSlowTableHasItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := threeTables(t)
		w.Advance(time.Hour) // the next backups are due
		begin := time.Now()
		now := func() time.Time { return w.Clock().Add(time.Since(begin)) }
		run := fanout.Run{Request: "r", Now: now, Stop: now().Add(4 * time.Minute), Until: now().Add(5 * time.Minute)}
		hang := &objectfault.Fault{Op: objectfault.Open, Call: objectfault.Every, Hang: true, When: objectfault.Before,
			Match: func(name string) bool { return strings.Contains(name, "/aaa/") }}
		s, err := throughFaults(t, w, vaulttest.Hourly, hang).Tick(t.Context(), run, now())
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 4*time.Minute || took < time.Minute {
			t.Errorf("the tick took %s", took)
		}
		if b := stateOf(t, s, "aaa"); b.State != backup.StateRunning || !strings.Contains(b.LastError, "longer than its share") {
			t.Errorf("%+v", b)
		}
		if !vaulttest.Said(s, "longer than its share") || !vaulttest.Said(s, "still runs") {
			t.Errorf("%+v", s.Reports)
		}
		for _, table := range []string{"mmm", "orders"} {
			if b := stateOf(t, s, table); b.Dispatched == 0 {
				t.Errorf("%+v", b)
			}
		}
	})
}

// TestTransientErrorsFailNothing has a look at a backup that runs meet an error that the
// next look may not: it is not given up for the one that is due.
func TestTransientErrorsFailNothing(t *testing.T) {
	w := threeTables(t)
	w.Advance(time.Hour)
	broken := errors.New("connection reset")
	fault := &objectfault.Fault{Op: objectfault.Open, Call: objectfault.Every, When: objectfault.Before, Err: broken,
		Match: func(name string) bool { return strings.Contains(name, "/aaa/") }}
	s, err := throughFaults(t, w, vaulttest.Hourly, fault).Tick(t.Context(), w.Run(), w.Clock())
	if err != nil {
		t.Fatal(err)
	}
	if b := stateOf(t, s, "aaa"); b.State != backup.StateRunning || !strings.Contains(b.LastError, "connection reset") {
		t.Errorf("%+v", b)
	}
	w.Drain()
	want(t, begunOf(w, "aaa"), []string{"02:00 open"})
	w.Settle(vaulttest.Hourly)
	w.Settle(vaulttest.Hourly)
	want(t, begunOf(w, "aaa"), []string{"02:00 sealed", "03:00 sealed"})
}

// TestLogWithoutProgress has a log of parts that come no further, as long as somebody
// liked: the first of them is refused, and the rest is not read.
func TestLogWithoutProgress(t *testing.T) {
	w, b, plan := begun(t)
	s := plan.Segments[0]
	const n = 50
	for i := range n {
		name := b.Shard(s.ID, fmt.Sprint("x", i))
		o := vault.Object{Name: name, Bytes: 1, SHA256: strings.Repeat("0", 64), Checksum: "crc32c:00000000"}
		p := &vault.Part{Shard: o, Index: o, First: w.Clock(), Latest: w.Clock()}
		p.Index.Name = vault.Index(name)
		for _, l := range s.Lanes() {
			p.Lanes = append(p.Lanes, vault.Lane{From: l.Start, Next: l.Start})
		}
		if _, err := w.Repo.Create(t.Context(), b.Log().Slot(s.ID, i), &vault.Slot{Segment: s.ID, Slot: i, Part: p}); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range plan.Segments {
		put(t, w, b.Log().Done(s.ID), "")
	}
	reads := &objectfault.Fault{Op: objectfault.Open, Call: n, When: objectfault.Before, Match: func(name string) bool { return strings.Contains(name, "slots/") }}
	tick, err := throughFaults(t, w, vaulttest.Hourly, reads).Tick(t.Context(), w.Run(), w.Clock())
	if err != nil {
		t.Fatal(err)
	}
	if b := stateOf(t, tick, "orders"); b.State != backup.StateFailed || !strings.Contains(b.LastError, "no lane comes further") {
		t.Errorf("%+v", b)
	}
	if reads.Reached() {
		t.Errorf("%d slots were read", n)
	}
}

// TestLargeBackupHasWhatIsLeft has the look at one backup take longer than its share, and
// less than what is left when all others have had theirs.
func TestLargeBackupHasWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := threeTables(t)
		begin := time.Now()
		now := func() time.Time { return w.Clock().Add(time.Since(begin)) }
		run := fanout.Run{Request: "r", Now: now, Stop: now().Add(4 * time.Minute), Until: now().Add(5 * time.Minute)}
		slow := &objectfault.Fault{Op: objectfault.Open, Call: objectfault.Every, Delay: 25 * time.Second, When: objectfault.Before,
			Match: func(name string) bool { return strings.Contains(name, "/aaa/") && !strings.Contains(name, "/starts/") }}
		s, err := throughFaults(t, w, vaulttest.Hourly, slow).Tick(t.Context(), run, now())
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took < 75*time.Second || took > 4*time.Minute {
			t.Errorf("the tick took %s", took)
		}
		for _, table := range []string{"aaa", "mmm", "orders"} {
			if b := stateOf(t, s, table); b.LastError != "" || b.Dispatched == 0 {
				t.Errorf("%+v", b)
			}
		}
	})
}
