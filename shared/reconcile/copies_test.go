package reconcile_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/objectfault"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/reconcile"
	"github.com/tablevault/tablevault/shared/replica"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// TestTickCopies brings each backup of the policy into each replica, once, and none that
// a person has made.
func TestTickCopies(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 300)
	far, third := &mem.Store{}, &vaulttest.OtherKind{Store: &mem.Store{}}
	w.Replicas = map[string]object.Store{vaulttest.ReplicaAddress: far, "oss://third/vault": third}
	byHand := w.Backup(vaulttest.Small)
	w.Settle(vaulttest.Hourly)
	s := w.Tick(vaulttest.HourlyCopied)
	w.Work()
	if s.Copies.Pending != 2 || s.Copies.Dispatched != 2 {
		t.Fatalf("%+v", s.Copies)
	}
	w.Advance(time.Hour)
	w.Settle(vaulttest.HourlyCopied)
	w.Tick(vaulttest.HourlyCopied)
	w.Work()
	backups := w.Manifests("orders")
	if len(backups) != 3 {
		t.Fatalf("%d backups", len(backups))
	}
	for _, m := range backups {
		states, err := replica.States(t.Context(), w.Repo, m)
		if err != nil {
			t.Fatal(err)
		}
		if m.Backup == byHand.Backup {
			if len(states) != 0 {
				t.Errorf("what a person has made was copied: %+v", states)
			}
			continue
		}
		if len(states) != 2 || states[0].State != replica.StateCopied || states[1].Replica != vaulttest.ReplicaAddress || states[1].Bytes != m.Totals.StoredBytes {
			t.Errorf("%+v", states)
		}
		w.IsReplica(m, far)
		w.IsReplica(m, third)
	}
	if s := w.Tick(vaulttest.HourlyCopied); s.Copies != (reconcile.Copies{}) || len(w.Drain()) != 0 {
		t.Errorf("when all is copied: %+v", s.Copies)
	}
}

// TestForgedCopyNotes has what verify's role can create beside a copy: names that nobody
// makes, a start that can't be read, one that says that it works for ever, with all of
// the bandwidth, and one of the greatest number. None keeps another copy from being made,
// and all but the last not its own either.
func TestForgedCopyNotes(t *testing.T) {
	for what, forge := range map[string]func(w *vaulttest.World, log vault.Log){
		"a name":   func(w *vaulttest.World, log vault.Log) { put(t, w, log.Starts("000000")+"5.json", "{}") },
		"a folder": func(w *vaulttest.World, log vault.Log) { put(t, w, log.Start("000005", 0), "{}") },
		"damaged":  func(w *vaulttest.World, log vault.Log) { put(t, w, log.Start("000000", 0), "{}") },
		"for ever": func(w *vaulttest.World, log vault.Log) {
			_, err := w.Repo.Create(t.Context(), log.Start("000000", 0), &vault.Note{Segment: "000000", Began: w.Clock(), Until: w.Clock().AddDate(73, 0, 0)})
			if err != nil {
				t.Fatal(err)
			}
		},
		"the greatest": func(w *vaulttest.World, log vault.Log) { put(t, w, log.Start("000000", vault.MaxNumber), "{}") },
	} {
		w := vaulttest.NewWorld(t)
		w.Quiet = true
		w.Fill(vaulttest.Definition(), 60)
		w.Replicas = map[string]object.Store{vaulttest.ReplicaAddress: &mem.Store{}, "oss://third/vault": &mem.Store{}}
		w.Settle(vaulttest.Hourly)
		w.Advance(time.Hour)
		w.Settle(vaulttest.Hourly)
		all := w.Manifests("orders")
		key := place.Key(vaulttest.ReplicaAddress)
		newest := vaulttest.BackupOf(all[len(all)-1])
		forge(w, newest.Copying(key))
		w.Advance(25 * time.Hour)
		// A start after the greatest is none that a worker takes, and is not handed out.
		if said := vaulttest.Said(w.Tick(vaulttest.HourlyCopied), "there is a start 999999 of group 0"); said != (what == "the greatest") {
			t.Errorf("%s: that there is no start left is said: %t", what, said)
		}
		w.Work()
		w.Tick(vaulttest.HourlyCopied)
		w.Work()
		for _, m := range all {
			b := vaulttest.BackupOf(m)
			copied := w.Exists(b.CopyNote(key))
			if want := what != "the greatest" || b != newest; copied != want {
				t.Errorf("%s: %s is copied: %t", what, b.ID, copied)
			}
		}
	}
}

// TestTickReportsCopies has a replica that fails: it is reported, tried again, and keeps
// neither backups nor other copies from being made.
func TestTickReportsCopies(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Quiet = true
	w.Fill(vaulttest.Definition(), 300)
	third := &mem.Store{}
	broken := objectfault.New(&mem.Store{}, &objectfault.Fault{Op: objectfault.Create, Call: objectfault.Every, When: objectfault.Before})
	w.Replicas = map[string]object.Store{vaulttest.ReplicaAddress: broken, "oss://third/vault": third}
	w.Settle(vaulttest.Hourly)
	tick := func() *reconcile.Tick {
		t.Helper()
		s := w.Tick(vaulttest.HourlyCopied)
		w.Work()
		return s
	}
	tick()
	m := w.Manifests("orders")[0]
	w.IsReplica(m, third)
	for n := range 9 {
		if s := tick(); !vaulttest.Said(s, "injected") || s.Copies.Dispatched != 1 {
			t.Fatalf("tick %d: %+v", n, s)
		}
	}
	states, err := replica.States(t.Context(), w.Repo, m)
	if err != nil || len(states) != 2 || states[1].State != backup.StateFailed || !strings.Contains(states[1].Error, "injected") || states[1].Copied != 0 {
		t.Errorf("%+v, %v", states, err)
	}
	if s := tick(); !vaulttest.Said(s, "tablevault copy "+string(m.Backup)) || s.Copies.Dispatched != 0 || s.Copies.Pending != 1 {
		t.Errorf("after ten failures: %+v", s)
	}
	// The next hour's backup is made all the same.
	w.Advance(time.Hour)
	w.Settle(vaulttest.HourlyCopied)
	if n := len(w.Manifests("orders")); n != 2 {
		t.Errorf("%d backups", n)
	}
	// A person mends the replica and gives the command.
	mended := &mem.Store{}
	w.Replicas[vaulttest.ReplicaAddress] = mended
	if _, err := w.Replicator(mended).CopyAll(t.Context(), w.Run(), vaulttest.BackupOf(m), replica.Point{}, 0); err != nil {
		t.Fatal(err)
	}
	tick()
	if s := tick(); s.Copies.Pending != 0 {
		t.Errorf("%+v", s)
	}
	for _, m := range w.Manifests("orders") {
		w.IsReplica(m, mended)
	}
}

// TestTickCopiesWhatIsKept leaves out what the policy keeps no longer, but for the
// newest.
func TestTickCopiesWhatIsKept(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 30)
	for range 6 {
		w.Settle(vaulttest.Hourly)
		w.Advance(time.Hour)
	}
	backups := w.Manifests("orders")
	policy := strings.Replace(vaulttest.HourlyCopied, "keep: 72 hours", "keep: {for: 1 hours, at_least: 3}", 1)
	w.Advance(2 * time.Hour)
	w.Settle(vaulttest.Hourly)
	s := w.Tick(policy)
	var ids []vault.BackupID
	for _, work := range w.Drain() {
		if work.Verb == fanout.VerbCopy && work.Replica == place.Key(vaulttest.ReplicaAddress) {
			ids = append(ids, work.Backup)
		}
	}
	all := w.Manifests("orders")
	if len(all) != len(backups)+1 || s.Copies.Pending != 6 {
		t.Fatalf("%d backups, %+v", len(all), s.Copies)
	}
	slices.Reverse(all)
	if want := []vault.BackupID{all[0].Backup, all[1].Backup, all[2].Backup}; !slices.Equal(ids, want) {
		t.Errorf("%v are copied, want the newest first: %v", ids, want)
	}
}

// TestBudgetIsShared gives the copies that run at a time, those of former ticks among
// them, no more than the replica's bandwidth, the greater ones more of it.
func TestBudgetIsShared(t *testing.T) {
	w := vaulttest.NewWorld(t)
	for i := range 12 {
		def := vaulttest.Definition()
		def.Name = fmt.Sprintf("t%02d", i)
		w.Tables.Make(def)
		for k := range int64(i*200 + 1) {
			w.Tables.Put(def.Name, tabletest.Row{
				Key:   table.Key{table.String("k"), table.Binary(nil), table.Integer(k)},
				Cells: []plainbuffer.Cell{tabletest.Cell("c", 1, fmt.Sprint(k*k*7919))},
			})
		}
	}
	far := &mem.Store{}
	w.Replicas = map[string]object.Store{vaulttest.ReplicaAddress: far}
	w.Settle(vaulttest.Hourly)
	const budget = 10 << 20
	limited := vaulttest.Hourly + "\ndestinations: {to: " + vaulttest.ReplicaAddress + ", bandwidth: 10 MiB/s}"
	s := w.Tick(limited)
	queue := w.Drain()
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
		noteCopy(w, work)
	}
	s = w.Tick(limited)
	sum = 0
	for _, work := range w.Drain() {
		sum += work.Rate
	}
	if s.Copies.Live != 2 || sum+used > budget {
		t.Errorf("%d are at work with %d, and %d is given to %d others", s.Copies.Live, used, sum, s.Copies.Dispatched)
	}
	// When they are over, the rest is copied, and the greatest gets the most.
	w.Advance(11 * time.Minute)
	for range 5 {
		s = w.Tick(limited)
		w.Work()
	}
	if s.Copies.Pending != 0 {
		t.Fatalf("%+v", s)
	}
	wide := strings.Replace(limited, "10 MiB", "100 MiB", 1)
	w.Advance(time.Hour)
	w.Settle(vaulttest.Hourly)
	w.Tick(wide)
	rates = map[string]int64{}
	for _, work := range w.Drain() {
		rates[work.Table.Table] = work.Rate
	}
	if len(rates) != 12 || rates["t11"] <= rates["t05"] || rates["t05"] <= rates["t00"] {
		t.Errorf("the shares are %v", rates)
	}
}

// noteCopy notes a start as a replicator does, and nothing else.
func noteCopy(w *vaulttest.World, work fanout.Work) {
	w.T.Helper()
	slow := objectfault.New(w.Replicas[w.AddressOf(work.Replica)], &objectfault.Fault{Op: objectfault.Open, Call: objectfault.Every, When: objectfault.Before})
	failing := objectfault.New(w.Store, &objectfault.Fault{Op: objectfault.Create, Call: objectfault.Every, When: objectfault.Before,
		Match: func(name string) bool { return strings.Contains(name, "/failures/") }})
	repo, err := repository.Open(w.T.Context(), failing)
	if err != nil {
		w.T.Fatal(err)
	}
	c := w.Replicator(slow)
	c.Repo = repo
	if _, err := c.Copy(w.T.Context(), w.Run(), work); err == nil {
		w.T.Fatal("it did not die")
	}
}
