package backup_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
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
	"github.com/tablevault/tablevault/shared/object/objectmeter"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
)

// ledger is a store that writes down what each invocation asks of it. It counts
// by itself, without a meter.
type ledger struct {
	store object.Store
	// deaths, if there are any, says after how many requests the next invocation
	// dies, 0 for never.
	deaths func() int

	mu          sync.Mutex
	invocations []*invocation
}

// invocation is the store as one invocation has it.
type invocation struct {
	*ledger
	kind  string
	left  int // requests until it dies, 0 for any number
	asked []*asked
}

// asked is one request. Its bytes may still grow.
type asked struct {
	vault.Usage
	what, name string
	stored     bool // it created the object
}

// open opens the vault for an invocation, whose records tell of what it asks.
func (l *ledger) open(t testing.TB, kind string) *repository.Repository {
	t.Helper()
	in := &invocation{ledger: l, kind: kind}
	l.mu.Lock()
	l.invocations = append(l.invocations, in)
	l.mu.Unlock()
	store := objectmeter.New(in)
	repo, err := repository.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	repo.Meter(store)
	if l.deaths != nil {
		in.left = l.deaths()
	}
	return repo
}

// ask writes a request down, and says whether the invocation still lives and
// whether it hears the answer.
func (in *invocation) ask(what, name string, u vault.Usage) (a *asked, lives, hears bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	a = &asked{Usage: u, what: what, name: name}
	in.asked = append(in.asked, a)
	switch {
	case in.left == 0:
		return a, true, true
	case in.left > 1:
		in.left--
		return a, true, in.left > 1
	}
	return a, false, false
}

func (in *invocation) Create(ctx context.Context, name string, r io.Reader) (object.Info, error) {
	a, lives, hears := in.ask("create", name, vault.Usage{Create: 1})
	var content bytes.Buffer
	_, err := io.Copy(&content, r)
	in.mu.Lock()
	a.Written = int64(content.Len())
	in.mu.Unlock()
	if err != nil || !lives {
		return object.Info{}, errors.Join(err, errDead)
	}
	info, err := in.store.Create(ctx, name, &content)
	in.mu.Lock()
	a.stored = err == nil
	in.mu.Unlock()
	if !hears {
		err = errDead // it may be stored, and nobody heard
	}
	return info, err
}

func (in *invocation) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, object.Info, error) {
	what, u := "open", vault.Usage{Open: 1}
	if n == 0 {
		what, u = "stat", vault.Usage{Stat: 1}
	}
	a, lives, _ := in.ask(what, name, u)
	if !lives {
		return nil, object.Info{}, errDead
	}
	r, info, err := in.store.Open(ctx, name, off, n)
	if err == nil && n != 0 {
		r = &witnessed{r, in, a}
	}
	return r, info, err
}

type witnessed struct {
	io.ReadCloser
	in *invocation
	a  *asked
}

func (w *witnessed) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	w.in.mu.Lock()
	defer w.in.mu.Unlock()
	w.a.Read += int64(n)
	return n, err
}

func (in *invocation) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	if _, lives, _ := in.ask("list", prefix, vault.Usage{List: 1}); !lives {
		return func(yield func(object.Info, error) bool) { yield(object.Info{}, errDead) }
	}
	return in.store.List(ctx, prefix, after)
}

func (in *invocation) Delete(context.Context, string) error {
	return errors.New("nothing is ever deleted")
}

// take returns the invocations so far of some kinds, and forgets all.
func (l *ledger) take(kinds ...string) (of []*invocation) {
	for _, in := range l.invocations {
		for _, kind := range kinds {
			if in.kind == kind {
				of = append(of, in)
			}
		}
	}
	l.invocations = nil
	return of
}

// told splits what an invocation asked for into what came before the last of its
// records that stands, from the first request for an object named from on, and
// what came with and after that.
func (in *invocation) told(from string, record func(name string) bool) (told vault.Usage, after []*asked) {
	last := -1
	for i, a := range in.asked {
		if a.what == "create" && a.stored && record(a.name) {
			last = i
		}
	}
	begun := from == ""
	for _, a := range in.asked[:last+1] {
		if begun = begun || a.name == from; begun && a != in.asked[last] {
			told.Add(a.Usage)
		}
	}
	if last < 0 {
		return told, in.asked
	}
	return told, in.asked[last:]
}

// well says whether an invocation neither died nor failed: one that finds no time
// left notes that, and has no record.
func (in *invocation) well() bool {
	return in.left == 0 && !slices.ContainsFunc(in.asked, func(a *asked) bool { return strings.Contains(a.name, "/failures/") })
}

// TestUsageIsTold backs up and restores through invocations that are cut short,
// some of which die, and holds what the records tell of their requests against a
// ledger of the store's, which says for each invocation what came before its last
// record.
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
			w := newWorld(t)
			w.quiet = true
			w.fill(definition(), 2000)
			w.tables.PageRows = 50
			w.ledger = &ledger{store: w.store}
			working := func() {
				if c.die {
					w.ledger.deaths = func() int { return random.IntN(3) * (2 + random.IntN(30)) }
				}
				w.hop = c.hop
				w.work()
				w.ledger.deaths, w.hop = nil, 0
			}

			plan, err := w.planner().Plan(t.Context(), backup.PlanRequest{Table: sourceID, Kind: vault.Full, At: w.clock(), Trigger: "test", Settings: small})
			if err != nil {
				t.Fatal(err)
			}
			b := vault.Backup{Table: sourceID, ID: plan.Backup}
			var m *vault.Manifest
			for n := 0; m == nil; n++ {
				if n == 1000 {
					t.Fatal("the backup does not end")
				}
				// A planner's look that sees no end of a group has no record.
				progress, err := w.planner().Tick(t.Context(), w.run(), b)
				if err != nil {
					t.Fatal(err)
				}
				if m = progress.Manifest; progress.Dispatched == 0 {
					w.advance(time.Minute)
				}
				working()
			}
			isRecord := func(name string) bool {
				return strings.Contains(name, "/slots/") || strings.Contains(name, "/groups/") || name == b.Manifest()
			}
			var want vault.Usage
			invocations := w.ledger.take("plan", "export")
			for _, in := range invocations {
				from := ""
				if in.kind == "plan" {
					from = b.Manifest() // where its look begins
				}
				told, after := in.told(from, isRecord)
				want.Add(told)
				if in.kind == "export" && in.well() && told != (vault.Usage{}) {
					onlyAfter(t, after, "create /slots/", "create /done/", "list /starts/", "create /starts/")
				}
			}
			if m.Usage != want || want.Create < 3*m.Totals.Parts || want.Written < m.Totals.StoredBytes {
				t.Errorf("the manifest tells of %+v, the store saw %+v in %d invocations", m.Usage, want, len(invocations))
			}
			again, _, err := w.repo.Manifest(t.Context(), b)
			if err != nil || again.Usage != m.Usage {
				t.Errorf("the manifest is read with %+v: %v", again.Usage, err)
			}
			watched, err := backup.Watch(w.repo, b, w.clock).Look(t.Context())
			if err != nil || watched.Usage != m.Usage {
				t.Errorf("a watcher says %+v: %v", watched.Usage, err)
			}

			planned := w.begin(m)
			var proof *vault.Proof
			for n := 0; proof == nil; n++ {
				if n == 1000 {
					t.Fatal("the restore does not end")
				}
				progress, err := w.importer().Tick(t.Context(), w.run(), planned.Restore)
				if err != nil || progress.State == backup.StateFailed {
					t.Fatalf("%+v: %v", progress, err)
				}
				if proof = progress.Proof; progress.Dispatched == 0 {
					w.advance(time.Minute)
				}
				working()
			}
			want = vault.Usage{}
			r := vault.Restore{ID: planned.Restore}
			for _, in := range w.ledger.take("import", "verify") {
				told, after := in.told("", func(name string) bool {
					return strings.Contains(name, "/slots/") || strings.Contains(name, "/checks/") || name == r.Proof()
				})
				want.Add(told)
				if in.well() && told != (vault.Usage{}) {
					onlyAfter(t, after, "create /slots/", "create /done/", "create /ends/", "create /checks/", "list /starts/", "create /starts/", "create /proof.json", "create restored/")
				}
			}
			if proof.Verdict != vault.OK || proof.Usage != want || want.Create == 0 || want.Read < m.Totals.StoredBytes {
				t.Errorf("the proof, %s, tells of %+v, the store saw %+v", proof.Verdict, proof.Usage, want)
			}

			verified := w.verify(m, restore.DepthRead)
			want = vault.Usage{}
			for _, a := range w.ledger.take("verify")[0].asked {
				want.Add(a.Usage)
			}
			if verified.Usage != want || want.Read < m.Totals.StoredBytes {
				t.Errorf("the proof of the backup tells of %+v, the store saw %+v", verified.Usage, want)
			}
		})
	}
}

// onlyAfter holds what an invocation asked for with its last record and after it
// against what may come there.
func onlyAfter(t *testing.T, after []*asked, allowed ...string) {
	t.Helper()
	for _, a := range after {
		ok := false
		for _, s := range allowed {
			what, in, _ := strings.Cut(s, " ")
			ok = ok || a.what == what && strings.Contains(a.name, in)
		}
		if !ok {
			t.Errorf("%s %s is in no record", a.what, a.name)
		}
	}
}

// TestLostSlotKeepsItsUsage lets another execution win each slot that an import
// works for: what the loser asked for stands in its next record.
func TestLostSlotKeepsItsUsage(t *testing.T) {
	w := newWorld(t)
	w.fill(definition(), 2000)
	w.tables.PageRows = 50
	m := w.backup(vault.Settings{SegmentBytes: 64 << 20, Lanes: 3, PartBytes: 40 << 10})
	plan := w.begin(m)
	w.ledger = &ledger{store: w.store}
	work := fanout.Work{Verb: fanout.VerbImport, Restore: plan.Restore, Segment: plan.Segments[0].ID}
	var inside atomic.Bool
	w.tables.Fault = func(c tabletest.Call) error {
		if c.Name == "Write" && !c.After && inside.CompareAndSwap(false, true) {
			run := w.run()
			run.Stop = run.Now() // one entry, then stop
			if _, err := w.importer().Import(t.Context(), run, work); err != nil {
				t.Error(err)
			}
		}
		return nil
	}
	if reply, err := w.importer().Import(t.Context(), w.run(), work); err != nil || !reply.Done {
		t.Fatalf("%+v, %v", reply, err)
	}
	w.tables.Fault = nil
	var want, got vault.Usage
	for _, in := range w.ledger.take("import") {
		told, _ := in.told("", func(name string) bool { return strings.Contains(name, "/slots/") })
		want.Add(told)
	}
	entries := 0
	for {
		var entry vault.Loaded
		data, err := object.ReadAll(t.Context(), w.store, vault.Restore{ID: plan.Restore}.Log().Slot(work.Segment, entries), 1<<20)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err == nil {
			err = vault.Decode(data, &entry)
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

// TestReadOnce: an invocation reads a restore's plan once, and the notes about
// copies of a backup, however often it needs them.
func TestReadOnce(t *testing.T) {
	w := newWorld(t)
	w.fill(definition(), 200)
	m := w.backup(small)
	plan := w.begin(m)
	w.ledger = &ledger{store: w.store}
	repo := w.ledger.open(t, "import")
	repo.Also(repository.Twin{Name: "file:///twin", Open: func(context.Context) (object.Store, error) { return nil, errors.New("it is not needed") }})
	if _, err := repo.RestorePlan(t.Context(), plan.Restore); err != nil {
		t.Fatal(err)
	}
	i := &restore.Importer{Repo: repo, Tables: w.tables, Work: w, Log: w.log()}
	if _, err := i.Import(t.Context(), w.run(), fanout.Work{Verb: fanout.VerbImport, Restore: plan.Restore, Segment: plan.Segments[0].ID}); err != nil {
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
	for _, a := range w.ledger.take("import")[0].asked {
		times[a.what+" "+a.name]++
	}
	for _, once := range []string{"open " + vault.Restore{ID: plan.Restore}.Plan(), "list " + b.CopyNotes()} {
		if times[once] != 1 {
			t.Errorf("%s: %d times", once, times[once])
		}
	}
}
