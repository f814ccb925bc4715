package backup_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/copies"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/objectfault"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/reconcile"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
)

// copied is a policy that backs everything of prod up, to two further vaults.
const copied = hourly + "\ndestinations: [" + twinAddress + ", oss://third/vault]"

// manifests are the sealed backups of a table, oldest first.
func (w *world) manifests(name string) []*vault.Manifest {
	w.t.Helper()
	var all []*vault.Manifest
	for m, err := range w.repo.Manifests(w.t.Context(), &vault.TableID{Region: "local", Instance: "prod", Table: name}) {
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

// TestTickCopies brings each backup of the policy into each destination, once,
// and none that a person has made.
func TestTickCopies(t *testing.T) {
	w := newWorld(t)
	w.fill(definition(), 300)
	twin, third := &mem.Store{}, &otherKind{&mem.Store{}}
	w.targets = map[string]object.Store{twinAddress: twin, "oss://third/vault": third}
	byHand := w.backup(small)
	w.settle(hourly)
	s := w.tick(copied)
	w.work()
	if s.Copies.Pending != 2 || s.Copies.Dispatched != 2 {
		t.Fatalf("%+v", s.Copies)
	}
	w.advance(time.Hour)
	w.settle(copied)
	w.tick(copied)
	w.work()
	backups := w.manifests("orders")
	if len(backups) != 3 {
		t.Fatalf("%d backups", len(backups))
	}
	for _, m := range backups {
		states, err := copies.States(t.Context(), w.repo, m)
		if err != nil {
			t.Fatal(err)
		}
		if m.Backup == byHand.Backup {
			if len(states) != 0 {
				t.Errorf("what a person has made was copied: %+v", states)
			}
			continue
		}
		if len(states) != 2 || states[0].State != copies.StateCopied || states[1].Target != twinAddress || states[1].Bytes != m.Totals.StoredBytes {
			t.Errorf("%+v", states)
		}
		w.isTwin(m, twin)
		w.isTwin(m, third)
	}
	if s := w.tick(copied); s.Copies != (reconcile.Copies{}) || len(w.drain()) != 0 {
		t.Errorf("when all is copied: %+v", s.Copies)
	}
}

// TestTickReportsCopies has a target that fails: it is reported, tried again, and
// keeps neither backups nor other copies from being made.
func TestTickReportsCopies(t *testing.T) {
	w := newWorld(t)
	w.quiet = true
	w.fill(definition(), 300)
	third := &mem.Store{}
	broken := objectfault.New(&mem.Store{}, &objectfault.Fault{Op: objectfault.Create, Call: objectfault.Every, When: objectfault.Before})
	w.targets = map[string]object.Store{twinAddress: broken, "oss://third/vault": third}
	w.settle(hourly)
	tick := func() *reconcile.Sweep {
		t.Helper()
		s := w.tick(copied)
		w.work()
		return s
	}
	tick()
	m := w.manifests("orders")[0]
	w.isTwin(m, third)
	for n := range 9 {
		if s := tick(); !said(s, "injected") || s.Copies.Dispatched != 1 {
			t.Fatalf("tick %d: %+v", n, s)
		}
	}
	states, err := copies.States(t.Context(), w.repo, m)
	if err != nil || len(states) != 2 || states[1].State != backup.StateFailed || !strings.Contains(states[1].Error, "injected") || states[1].Copied != 0 {
		t.Errorf("%+v, %v", states, err)
	}
	if s := tick(); !said(s, "tablevault copy "+string(m.Backup)) || s.Copies.Dispatched != 0 || s.Copies.Pending != 1 {
		t.Errorf("after ten failures: %+v", s)
	}
	// The next hour's backup is made all the same.
	w.advance(time.Hour)
	w.settle(copied)
	if n := len(w.manifests("orders")); n != 2 {
		t.Errorf("%d backups", n)
	}
	// A person mends the target and gives the command.
	mended := &mem.Store{}
	w.targets[twinAddress] = mended
	if _, err := w.copier(mended).CopyAll(t.Context(), w.run(), of(m), copies.Point{}, 0); err != nil {
		t.Fatal(err)
	}
	tick()
	if s := tick(); s.Copies.Pending != 0 {
		t.Errorf("%+v", s)
	}
	for _, m := range w.manifests("orders") {
		w.isTwin(m, mended)
	}
}

// TestTickCopiesWhatIsKept leaves out what the policy keeps no longer, but for
// the newest.
func TestTickCopiesWhatIsKept(t *testing.T) {
	w := newWorld(t)
	w.fill(definition(), 30)
	for range 6 {
		w.settle(hourly)
		w.advance(time.Hour)
	}
	backups := w.manifests("orders")
	policy := strings.Replace(copied, "keep: 72 hours", "keep: {for: 1 hours, at_least: 3}", 1)
	w.advance(2 * time.Hour)
	w.settle(hourly)
	s := w.tick(policy)
	var ids []vault.BackupID
	for _, work := range w.drain() {
		if work.Verb == fanout.VerbCopy && work.Target == twinAddress {
			ids = append(ids, work.Backup)
		}
	}
	all := w.manifests("orders")
	if len(all) != len(backups)+1 || s.Copies.Pending != 6 {
		t.Fatalf("%d backups, %+v", len(all), s.Copies)
	}
	slices.Reverse(all)
	if want := []vault.BackupID{all[0].Backup, all[1].Backup, all[2].Backup}; !slices.Equal(ids, want) {
		t.Errorf("%v are copied, want the newest first: %v", ids, want)
	}
}

// TestBudgetIsShared gives the copies that run at a time, those of former ticks
// among them, no more than the destination's bandwidth, the greater ones more of
// it.
func TestBudgetIsShared(t *testing.T) {
	w := newWorld(t)
	for i := range 12 {
		def := definition()
		def.Name = fmt.Sprintf("t%02d", i)
		w.tables.Make(def)
		for k := range int64(i*200 + 1) {
			w.tables.Put(def.Name, tabletest.Row{
				Key:   table.Key{table.String("k"), table.Binary(nil), table.Integer(k)},
				Cells: []plainbuffer.Cell{tabletest.Cell("c", 1, fmt.Sprint(k*k*7919))},
			})
		}
	}
	twin := &mem.Store{}
	w.targets = map[string]object.Store{twinAddress: twin}
	w.settle(hourly)
	const budget = 10 << 20
	limited := hourly + "\ndestinations: {to: " + twinAddress + ", bandwidth: 10 MiB/s}"
	s := w.tick(limited)
	queue := w.drain()
	if s.Copies.Pending != 12 || s.Copies.Dispatched != 10 || len(queue) != 10 {
		t.Fatalf("%+v", s.Copies)
	}
	sum, rates := int64(0), map[string]int64{}
	for _, work := range queue {
		if work.Rate < 1<<20 {
			t.Errorf("%s gets %d", work.Table, work.Rate)
		}
		sum += work.Rate
		rates[work.Table.Table] = work.Rate
	}
	if sum > budget || sum < budget-100 {
		t.Errorf("together they get %d of %d", sum, budget)
	}
	// Two are at work: what they have is not given out again.
	used := int64(0)
	for _, work := range queue[:2] {
		used += work.Rate
		w.noteCopy(work)
	}
	s = w.tick(limited)
	sum = 0
	for _, work := range w.drain() {
		sum += work.Rate
	}
	if s.Copies.Live != 2 || sum+used > budget {
		t.Errorf("%d are at work with %d, and %d is given to %d others", s.Copies.Live, used, sum, s.Copies.Dispatched)
	}
	// When they are over, the rest is copied, and the greatest gets the most.
	w.advance(11 * time.Minute)
	for range 5 {
		s = w.tick(limited)
		w.work()
	}
	if s.Copies.Pending != 0 {
		t.Fatalf("%+v", s)
	}
	wide := strings.Replace(limited, "10 MiB", "100 MiB", 1)
	w.advance(time.Hour)
	w.settle(hourly)
	w.tick(wide)
	rates = map[string]int64{}
	for _, work := range w.drain() {
		rates[work.Table.Table] = work.Rate
	}
	if len(rates) != 12 || rates["t11"] <= rates["t05"] || rates["t05"] <= rates["t00"] {
		t.Errorf("the shares are %v", rates)
	}
}

// noteCopy notes a start as a copier does, and nothing else.
func (w *world) noteCopy(work fanout.Work) {
	w.t.Helper()
	slow := objectfault.New(w.targets[work.Target], &objectfault.Fault{Op: objectfault.Open, Call: objectfault.Every, When: objectfault.Before})
	failing := objectfault.New(w.store, &objectfault.Fault{Op: objectfault.Create, Call: objectfault.Every, When: objectfault.Before,
		Match: func(name string) bool { return strings.Contains(name, "/failures/") }})
	repo, err := repository.Open(w.t.Context(), failing)
	if err != nil {
		w.t.Fatal(err)
	}
	c := w.copier(slow)
	c.Repo = repo
	if _, err := c.Copy(w.t.Context(), w.run(), work); err == nil {
		w.t.Fatal("it did not die")
	}
}
