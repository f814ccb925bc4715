package core_test

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
	"github.com/tablevault/tablevault/shared/verify"
)

// TestUsageIsTold backs up and restores through invocations that are cut short, some of
// which die, and holds what the records tell of their requests against a ledger of the
// store's, which says for each invocation what came before its last record.
func TestUsageIsTold(t *testing.T) {
	for _, c := range []struct {
		name string
		hop  int
		die  bool
	}{
		{"whole invocations", 0, false}, {"short invocations", 25, false}, {"invocations that die", 25, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			random := rand.New(rand.NewPCG(seed, 0))
			w := vaulttest.NewWorld(t)
			w.Quiet = true
			w.Fill(vaulttest.Definition(), 2000)
			w.Tables.PageRows = 50
			w.Ledger = &vaulttest.Ledger{Store: w.Store}
			working := func() {
				if c.die {
					w.Ledger.Deaths = func() int { return random.IntN(3) * (2 + random.IntN(30)) }
				}
				w.Hop = c.hop
				w.Work()
				w.Ledger.Deaths, w.Hop = nil, 0
			}

			plan, err := w.Planner().Plan(t.Context(), backup.PlanRequest{Table: vaulttest.SourceID, Kind: vault.Full, At: w.Clock(), Trigger: "test", Settings: vaulttest.Small})
			if err != nil {
				t.Fatal(err)
			}
			b := vault.Backup{Table: vaulttest.SourceID, ID: plan.Backup}
			var m *vault.Manifest
			for n := 0; m == nil; n++ {
				if n == 1000 {
					t.Fatal("the backup does not end")
				}
				// A planner's look that sees no end of a group has no record.
				progress, err := w.Planner().Tick(t.Context(), w.Run(), b)
				if err != nil {
					t.Fatal(err)
				}
				if m = progress.Manifest; progress.Dispatched == 0 {
					w.Advance(time.Minute)
				}
				working()
			}
			isRecord := func(name string) bool {
				return strings.Contains(name, "slots/") || strings.Contains(name, "groups/") || name == b.Manifest()
			}
			var want object.Usage
			invocations := w.Ledger.Take("plan", "export")
			for _, in := range invocations {
				from := ""
				if in.Kind == "plan" {
					from = b.Manifest() // where its look begins
				}
				told, after := in.Told(from, isRecord)
				want.Add(told)
				if in.Kind == "export" && in.Well() && told != (object.Usage{}) {
					onlyAfter(t, after, "create slots/", "create done/", "list starts/", "create starts/", "list done/")
				}
			}
			if m.Usage != want || want.Create < 3*m.Totals.Parts || want.Written < m.Totals.StoredBytes {
				t.Errorf("the manifest tells of %+v, the store saw %+v in %d invocations", m.Usage, want, len(invocations))
			}
			again, _, err := w.Repo.Manifest(t.Context(), b)
			if err != nil || again.Usage != m.Usage {
				t.Errorf("the manifest is read with %+v: %v", again.Usage, err)
			}
			watched, err := backup.Watch(w.Repo, b, w.Clock).Look(t.Context())
			if err != nil || watched.Usage != m.Usage {
				t.Errorf("a watcher says %+v: %v", watched.Usage, err)
			}

			planned := w.Begin(m)
			var proof *vault.Proof
			for n := 0; proof == nil; n++ {
				if n == 1000 {
					t.Fatal("the restore does not end")
				}
				progress, err := w.Restorer().Tick(t.Context(), w.Run(), planned.Restore)
				if err != nil || progress.State == backup.StateFailed {
					t.Fatalf("%+v: %v", progress, err)
				}
				if proof = progress.Proof; progress.Dispatched == 0 {
					w.Advance(time.Minute)
				}
				working()
			}
			want = object.Usage{}
			r := vault.Restore{ID: planned.Restore}
			for _, in := range w.Ledger.Take("import", "verify") {
				told, after := in.Told("", func(name string) bool {
					return strings.Contains(name, "slots/") || strings.Contains(name, "checks/") || name == r.Proof()
				})
				want.Add(told)
				if in.Well() && told != (object.Usage{}) {
					onlyAfter(t, after, "create slots/", "create done/", "create ends/", "create checks/", "list starts/", "create starts/", "create proofs/", "create restored/", "list done/", "list checks/")
				}
			}
			if proof.Verdict != vault.OK || proof.Usage != want || want.Create == 0 || want.Read < m.Totals.StoredBytes {
				t.Errorf("the proof, %s, tells of %+v, the store saw %+v", proof.Verdict, proof.Usage, want)
			}

			verified := w.Verify(m, verify.DepthRead)
			want = object.Usage{}
			for _, a := range w.Ledger.Take("verify")[0].Asked {
				want.Add(a.Usage)
			}
			if verified.Usage != want || want.Read < m.Totals.StoredBytes {
				t.Errorf("the proof of the backup tells of %+v, the store saw %+v", verified.Usage, want)
			}
		})
	}
}

// onlyAfter holds what an invocation asked for with its last record and after it against
// what may come there.
func onlyAfter(t *testing.T, after []*vaulttest.Asked, allowed ...string) {
	t.Helper()
	for _, a := range after {
		ok := false
		for _, s := range allowed {
			what, in, _ := strings.Cut(s, " ")
			ok = ok || a.What == what && strings.Contains(a.Name, in)
		}
		if !ok {
			t.Errorf("%s %s is in no record", a.What, a.Name)
		}
	}
}

// TestLostSlotKeepsItsUsage lets another execution win each slot that an import works
// for: what the loser asked for stands in its next record.
func TestLostSlotKeepsItsUsage(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 2000)
	w.Tables.PageRows = 50
	m := w.Backup(vault.Settings{SegmentBytes: 64 << 20, Lanes: 3, PartBytes: 40 << 10})
	plan := w.Begin(m)
	w.Ledger = &vaulttest.Ledger{Store: w.Store}
	work := fanout.Work{Verb: fanout.VerbImport, Restore: plan.Restore, Segment: plan.Segments[0].ID}
	var inside atomic.Bool
	w.Tables.Fault = func(c tabletest.Call) error {
		if c.Name == "Write" && !c.After && inside.CompareAndSwap(false, true) {
			run := w.Run()
			run.Stop = run.Now() // one entry, then stop
			if _, err := w.Loader().Load(t.Context(), run, work); err != nil {
				t.Error(err)
			}
		}
		return nil
	}
	if reply, err := w.Loader().Load(t.Context(), w.Run(), work); err != nil || !reply.Done {
		t.Fatalf("%+v, %v", reply, err)
	}
	w.Tables.Fault = nil
	var want, got object.Usage
	for _, in := range w.Ledger.Take("import") {
		told, _ := in.Told("", func(name string) bool { return strings.Contains(name, "slots/") })
		want.Add(told)
	}
	entries := 0
	for {
		var entry vault.Loaded
		name := vault.Restore{ID: plan.Restore}.Log().Slot(work.Segment, entries)
		data, err := object.ReadAll(t.Context(), w.Store, name, 1<<20)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err == nil {
			err = vault.Decode(name, data, &entry)
		}
		if err != nil {
			t.Fatal(err)
		}
		got.Add(entry.Usage)
		entries++
	}
	if entries < 2 || got != want || want.Read == 0 {
		t.Errorf("%d entries tell of %+v, the store saw %+v", entries, got, want)
	}
}

// TestReadOnce: an invocation reads a restore's plan once, and the notes about copies of
// a backup, however often it needs them.
func TestReadOnce(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 200)
	m := w.Backup(vaulttest.Small)
	plan := w.Begin(m)
	w.Ledger = &vaulttest.Ledger{Store: w.Store}
	repo := w.Ledger.Open(t, "import")
	repo.SetReplicas(repository.Replica{Name: "file:///twin", Open: func(context.Context) (object.Store, error) { return nil, errors.New("it is not needed") }})
	if _, err := repo.RestorePlan(t.Context(), plan.Restore); err != nil {
		t.Fatal(err)
	}
	l := &restore.Loader{Repo: repo, Tables: w.Tables, Work: w, Log: w.Log()}
	if _, err := l.Load(t.Context(), w.Run(), fanout.Work{Verb: fanout.VerbImport, Restore: plan.Restore, Segment: plan.Segments[0].ID}); err != nil {
		t.Fatal(err)
	}
	b := vault.Backup{Table: m.Table, ID: m.Backup}
	if _, err := repo.Latest(t.Context(), m.Table, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := repo.Manifest(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	times := map[string]int{}
	for _, a := range w.Ledger.Take("import")[0].Asked {
		times[a.What+" "+a.Name]++
	}
	for _, once := range []string{"open " + vault.Restore{ID: plan.Restore}.Plan(), "list " + b.CopyNotes()} {
		if times[once] != 1 {
			t.Errorf("%s: %d times", once, times[once])
		}
	}
}
