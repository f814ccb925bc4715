package replica_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/backup/coverage"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/objectfault"
	"github.com/tablevault/tablevault/shared/object/objectmeter"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/replica"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
	"github.com/tablevault/tablevault/shared/verify"
)

// creations are the names that were created in a store, in their order.
type creations struct {
	object.Store
	mu    sync.Mutex
	names []string
}

func (c *creations) Create(ctx context.Context, name string, r io.Reader) (object.Info, error) {
	info, err := c.Store.Create(ctx, name, r)
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.names = append(c.names, name)
	}
	return info, err
}

// TestCopy copies a backup into an empty place, which is then a vault of its own: the
// manifest comes last, and a second copy finds everything there.
func TestCopy(t *testing.T) {
	for name, far := range map[string]object.Store{"one kind of checksum": &mem.Store{}, "another kind": &vaulttest.OtherKind{Store: &mem.Store{}}} {
		t.Run(name, func(t *testing.T) {
			w, m := vaulttest.CopyWorld(t, 1500)
			order := &creations{Store: far}
			reply := w.CopyAll(m, order)
			if !reply.Done || reply.Objects != m.Totals.Objects || reply.Bytes != m.Totals.StoredBytes || reply.Copied != len(m.Groups) {
				t.Fatalf("%+v, of %+v", reply, m.Totals)
			}
			w.IsReplica(m, far)
			n := len(order.names)
			if n < 2 || order.names[0] != vault.HeaderName || order.names[n-2] != vaulttest.BackupOf(m).Manifest() || order.names[n-1] != vault.Opened(m.Table, m.Backup) {
				t.Errorf("the order of what was created is %v", order.names)
			}
			notes, err := w.Repo.CopyNotes(t.Context(), vaulttest.BackupOf(m))
			if err != nil || len(notes) != 1 || notes[0].Replica != vaulttest.ReplicaAddress || notes[0].Bytes != m.Totals.StoredBytes {
				t.Errorf("notes %+v, %v", notes, err)
			}
			if again := w.CopyAll(m, order); !again.Done || again.Objects+again.Found != 0 || len(order.names) != n {
				t.Errorf("again: %+v, and %v was created", again, order.names[n:])
			}
			all, err := w.Replicator(order).CopyAll(t.Context(), w.Run(), vaulttest.BackupOf(m), replica.Point{}, 0)
			if err != nil || !all.Done || all.Objects != 0 || all.Found != m.Totals.Objects || len(order.names) != n {
				t.Errorf("all again: %+v, %v, and %v was created", all, err, order.names[n:])
			}
		})
	}
}

// TestCopyMakesAnew deletes each object of a copy: a comparison finds it gone, and
// copying by hand brings it back.
func TestCopyMakesAnew(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 1500)
	far := &mem.Store{}
	w.CopyAll(m, far)
	deleted := 0
	for _, o := range append(w.Parts(m), vault.Object{Name: vaulttest.BackupOf(m).Manifest()}) {
		if err := far.Delete(t.Context(), o.Name); err != nil {
			t.Fatal(err)
		}
		proof, err := w.Verifier().Compare(t.Context(), vaulttest.BackupOf(m), vaulttest.ReplicaAddress, far)
		if err != nil || proof.Verdict != vault.Corrupt || len(proof.Check.Findings) == 0 || proof.Check.Findings[0].Object != o.Name {
			t.Fatalf("without %s: %+v, %v", o.Name, proof, err)
		}
		if _, err := w.Replicator(far).CopyAll(t.Context(), w.Run(), vaulttest.BackupOf(m), replica.Point{}, 0); err != nil {
			t.Fatal(err)
		}
		w.IsReplica(m, far)
		deleted++
	}
	if deleted < 8 {
		t.Errorf("only %d objects were deleted", deleted)
	}
}

// grouped makes a sealed backup of many segments by hand, of which the shards hold
// anything but rows: copying does not ask what they hold.
func grouped(w *vaulttest.World, segments int) *vault.Manifest {
	w.T.Helper()
	b := vault.Backup{Table: vaulttest.SourceID, ID: vault.NewBackupID(vaulttest.Day, "grouped")}
	put := func(name string, content []byte) vault.Object {
		info, err := w.Store.Create(w.T.Context(), name, bytes.NewReader(content))
		if err != nil {
			w.T.Fatal(err)
		}
		return vault.Object{Name: name, Bytes: info.Size, SHA256: fmt.Sprintf("%x", sha256.Sum256(content)), Checksum: info.Checksum}
	}
	document := func(name string, d vault.Document) *vault.Object {
		data, err := vault.Encode(name, d)
		if err != nil {
			w.T.Fatal(err)
		}
		o := put(name, data)
		o.Checksum = ""
		return &o
	}
	whole := vaulttest.Definition().Schema.Whole()
	plan := &vault.Plan{Backup: b.ID, Table: b.Table, Kind: vault.Full, Created: vaulttest.Day, Definition: vaulttest.Definition(), Encryption: vault.Encryption{Mode: "none"}}
	bound := func(i int) table.Key {
		switch i {
		case 0:
			return whole.Start
		case segments:
			return whole.End
		}
		return table.Key{table.String(fmt.Sprintf("%06d", i)), table.Min(), table.Min()}
	}
	groups := make([]*vault.Group, (segments+vault.GroupSize-1)/vault.GroupSize)
	for i := range segments {
		s := vault.Segment{ID: vault.NewSegmentID(i), Bounds: []table.Key{bound(i), bound(i + 1)}}
		plan.Segments = append(plan.Segments, s)
		g := i / vault.GroupSize
		if groups[g] == nil {
			groups[g] = &vault.Group{Group: g}
		}
		name := b.Shard(s.ID, "aa")
		part := &vault.Part{
			Shard: put(name, fmt.Appendf(nil, "shard %d", i)), Index: put(vault.Index(name), fmt.Appendf(nil, "index %d", i)),
			Lanes: []vault.Lane{{From: s.Bounds[0], Next: s.Bounds[1]}}, First: vaulttest.Day, Latest: vaulttest.Day, Last: true,
		}
		groups[g].Segments = append(groups[g].Segments, vault.SegmentLog{Segment: s, Slots: []vault.Slot{{Segment: s.ID, Part: part}}})
		groups[g].Totals.AddPart(part)
	}
	totals, n, err := coverage.Prove(plan, groups)
	if err != nil {
		w.T.Fatal(err)
	}
	m := &vault.Manifest{Backup: b.ID, Table: b.Table, Kind: vault.Full, State: vault.Sealed, Sealed: vaulttest.Day, Fuzzy: true, Totals: totals, Segments: n}
	m.Plan = document(b.Plan(), plan)
	for g, group := range groups {
		m.Groups = append(m.Groups, *document(b.Group(g), group))
	}
	document(b.Manifest(), m)
	put(vault.Opened(b.Table, b.ID), nil)
	return m
}

// TestCopyBack deletes and flips objects of the vault itself. What is gone is made anew
// out of the copy, from which nothing but reading is asked; what is flipped keeps nothing
// else from being put back.
func TestCopyBack(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 1000)
	here := w.Store.(*mem.Store)
	inner := &vaulttest.OtherKind{Store: &mem.Store{}}
	w.CopyAll(m, inner)
	before := vaulttest.ContentOf(t, here, "")
	far := objectfault.New(inner, &objectfault.Fault{Op: objectfault.Create, Call: objectfault.Every, When: objectfault.Before})
	repo, err := repository.Open(t.Context(), far)
	if err != nil {
		t.Fatal(err)
	}
	back := &replica.Replicator{Repo: repo, Address: "oss://first/vault", Store: here, Log: w.Log(), Back: true}
	parts := append(w.Parts(m), vault.Object{Name: vaulttest.BackupOf(m).Manifest()}, vault.Object{Name: vault.Opened(m.Table, m.Backup)})
	for _, o := range parts {
		if err := here.Delete(t.Context(), o.Name); err != nil {
			t.Fatal(err)
		}
	}
	reply, err := back.CopyAll(t.Context(), w.Run(), vaulttest.BackupOf(m), replica.Point{}, 0)
	if err != nil || !reply.Done || reply.Objects != m.Totals.Objects {
		t.Fatalf("%+v, %v", reply, err)
	}
	probe := func(name, _ string) bool { return strings.HasPrefix(name, vault.ProbePrefix) }
	maps.DeleteFunc(before, probe)
	after := vaulttest.ContentOf(t, here, "")
	if maps.DeleteFunc(after, probe); !maps.Equal(after, before) {
		t.Errorf("the vault has other objects than before: %d, of %d", len(after), len(before))
	}
	flipped, gone := parts[2], parts[5]
	content := []byte(before[flipped.Name])
	content[0] ^= 1
	here.Replace(flipped.Name, content)
	if err := here.Delete(t.Context(), gone.Name); err != nil {
		t.Fatal(err)
	}
	if _, err := back.CopyAll(t.Context(), w.Run(), vaulttest.BackupOf(m), replica.Point{}, 0); err == nil || !strings.Contains(err.Error(), flipped.Name) {
		t.Errorf("%v", err)
	}
	if now, err := object.ReadAll(t.Context(), here, gone.Name, 1<<30); err != nil || string(now) != before[gone.Name] {
		t.Errorf("%s is not there again: %v", gone.Name, err)
	}
}

// TestCopyGroups copies a backup of several groups, the last group first.
func TestCopyGroups(t *testing.T) {
	w := vaulttest.NewWorld(t)
	m := grouped(w, 2*vault.GroupSize+20)
	far := &vaulttest.OtherKind{Store: &mem.Store{}}
	for g := len(m.Groups) - 1; g >= 0; g-- {
		reply, err := w.Replicator(far).Copy(t.Context(), w.Run(), vaulttest.CopyWork(m, g))
		if err != nil || reply.Done != (g == 0) || reply.Copied != len(m.Groups)-g {
			t.Fatalf("group %d: %+v, %v", g, reply, err)
		}
		if _, err := object.Stat(t.Context(), far, vaulttest.BackupOf(m).Manifest()); (err == nil) != reply.Done {
			t.Fatalf("group %d: the manifest in the target: %v", g, err)
		}
	}
	proof, err := w.Verifier().Compare(t.Context(), vaulttest.BackupOf(m), vaulttest.ReplicaAddress, far)
	if err != nil || proof.Verdict != vault.OK || proof.Check.SizeOnly != 0 || proof.Check.Objects != m.Totals.Objects+5 {
		t.Fatalf("%+v, %v", proof, err)
	}
}

// TestCopyGoesOn stops a copy after each object, as a deadline does: the next invocation
// goes on, and no object is sent twice.
func TestCopyGoesOn(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 3000)
	meter := objectmeter.New(&vaulttest.OtherKind{Store: &mem.Store{}})
	w.Hop = 1
	w.Queue = append(w.Queue, vaulttest.CopyWork(m, 0))
	hops := 0
	for {
		work, ok := w.Take()
		if !ok {
			break
		}
		reply, err := w.Replicator(meter).Copy(t.Context(), w.Run(), work)
		if err != nil {
			t.Fatal(err)
		}
		if hops++; reply.Done == reply.Continued || work.Start != hops-1 {
			t.Fatalf("hop %d, start %d: %+v", hops, work.Start, reply)
		}
	}
	if int64(hops) < m.Totals.Objects/2 {
		t.Errorf("%d hops for %d objects", hops, m.Totals.Objects)
	}
	w.Hop = 0
	w.IsReplica(m, meter)
	// What is not a shard, an index or a record of a hop are six documents.
	if creates := meter.Usage().Create; creates > m.Totals.Objects+int64(hops)+int64(len(m.Groups))+6 {
		t.Errorf("%d creations for %d objects in %d hops", creates, m.Totals.Objects, hops)
	}

	// By hand, with the point to go on from.
	other := &mem.Store{}
	w.Hop = 1
	var point replica.Point
	for hops = 0; ; hops++ {
		reply, err := w.Replicator(other).CopyAll(t.Context(), w.Run(), vaulttest.BackupOf(m), point, 0)
		if err != nil {
			t.Fatal(err)
		}
		if reply.Done {
			break
		}
		if reply.Next == point {
			t.Fatalf("no progress at %+v", point)
		}
		point = reply.Next
	}
	w.Hop = 0
	w.IsReplica(m, other)
	if hops == 0 {
		t.Error("all in one hop")
	}
}

// TestCopyBesideItself runs several replicators at once, as double deliveries do.
func TestCopyBesideItself(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 2000)
	far := &vaulttest.OtherKind{Store: &mem.Store{}}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if _, err := w.Replicator(far).Copy(t.Context(), w.Run(), vaulttest.CopyWork(m, 0)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	w.IsReplica(m, far)
}

// TestCopyUnderFaults fails every call of a copy, to either store, before it took effect,
// midway and after. Nothing is in the replica before all of it is, and copying again
// completes it.
func TestCopyUnderFaults(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 700)
	before := vaulttest.ContentOf(t, w.Store, "")
	w.Quiet = true
	fired := map[string]int{}
	for _, faulty := range []string{"source", "target"} {
		for fault := range objectfault.EachCall(objectfault.Create, objectfault.Open, objectfault.List) {
			source := &mem.Store{}
			for name, content := range before {
				source.Replace(name, []byte(content))
			}
			inner := &vaulttest.OtherKind{Store: &mem.Store{}}
			w.Store = source
			var far object.Store = inner
			from := object.Store(source)
			if faulty == "source" {
				from = objectfault.New(source, fault)
			} else {
				far = objectfault.New(inner, fault)
			}
			repo, err := repository.Open(t.Context(), from)
			if err != nil {
				if !errors.Is(err, objectfault.ErrInjected) {
					t.Fatal(err)
				}
				continue
			}
			w.Repo = repo
			reply, err := w.Replicator(far).Copy(t.Context(), w.Run(), vaulttest.CopyWork(m, 0))
			if err == nil && !reply.Done {
				t.Fatalf("%s, %v: %+v", faulty, fault, reply)
			}
			if _, serr := object.Stat(t.Context(), inner, vaulttest.BackupOf(m).Manifest()); serr == nil {
				if w.Repo, err = repository.Open(t.Context(), source); err != nil {
					t.Fatal(err)
				}
				proof, err := w.Verifier().Compare(t.Context(), vaulttest.BackupOf(m), vaulttest.ReplicaAddress, inner)
				if err != nil || proof.Verdict != vault.OK {
					t.Fatalf("%s, %v: a manifest stands over %+v, %v", faulty, fault, proof, err)
				}
			}
			if w.Repo, err = repository.Open(t.Context(), source); err != nil {
				t.Fatal(err)
			}
			if reply, err = w.Replicator(inner).Copy(t.Context(), w.Run(), vaulttest.CopyWork(m, 0)); err != nil || !reply.Done {
				t.Fatalf("%s, %v: again: %+v, %v", faulty, fault, reply, err)
			}
			w.IsReplica(m, inner)
			if fault.Fired() {
				fired[faulty+" "+string(fault.Op)]++
			}
		}
	}
	for _, what := range []string{"source open", "source create", "source list", "target open", "target create"} {
		if fired[what] < 3 {
			t.Errorf("only %d faults struck: %s", fired[what], what)
		}
	}
}

// TestCopyOfDamaged damages each object of a backup in turn: none arrives in the target
// as a good one, and a copy of the rest is no backup. With a replica to take it from, the
// copy is complete.
func TestCopyOfDamaged(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 700)
	good := w.Store.(*mem.Store)
	far := &mem.Store{}
	w.CopyAll(m, far)
	damages := map[string]func(*mem.Store, string, []byte){
		"flipped": func(s *mem.Store, name string, b []byte) { b[len(b)/2] ^= 4; s.Replace(name, b) },
		"cut":     func(s *mem.Store, name string, b []byte) { s.Replace(name, b[:len(b)-1]) },
		"longer":  func(s *mem.Store, name string, b []byte) { s.Replace(name, append(b, 0)) },
		"gone": func(s *mem.Store, name string, _ []byte) {
			if err := s.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		},
	}
	tried := 0
	for how, damage := range damages {
		for _, o := range append(w.Parts(m), vault.Object{Name: vaulttest.BackupOf(m).Manifest()}) {
			damaged := &mem.Store{}
			for name, content := range vaulttest.ContentOf(t, good, "") {
				damaged.Replace(name, []byte(content))
			}
			content, err := object.ReadAll(t.Context(), damaged, o.Name, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			damage(damaged, o.Name, content)
			w.Repo, err = repository.Open(t.Context(), damaged)
			if err != nil {
				t.Fatal(err)
			}
			to := &mem.Store{}
			_, err = w.Replicator(to).Copy(t.Context(), w.Run(), vaulttest.CopyWork(m, 0))
			if err == nil || !fanout.Permanent(err) && !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("%s %s: %v", how, o.Name, err)
			}
			for _, name := range []string{o.Name, vaulttest.BackupOf(m).Manifest()} {
				if _, err := object.Stat(t.Context(), to, name); !errors.Is(err, fs.ErrNotExist) {
					t.Fatalf("%s %s: %s is in the target, %v", how, o.Name, name, err)
				}
			}
			w.Repo.SetReplicas(vaulttest.ReplicaAt(far))
			reply, err := w.Replicator(to).CopyAll(t.Context(), w.Run(), vaulttest.BackupOf(m), replica.Point{}, 0)
			if err != nil || !reply.Done {
				t.Fatalf("%s %s, with a twin: %+v, %v", how, o.Name, reply, err)
			}
			w.Store = far
			w.Repo, err = repository.Open(t.Context(), far)
			if err != nil {
				t.Fatal(err)
			}
			w.IsReplica(m, to)
			w.Store = good
			tried++
		}
	}
	if tried < 20 {
		t.Errorf("only %d damages", tried)
	}
}

// TestCopyWritesNothingOver copies to where something else stands.
func TestCopyWritesNothingOver(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 700)
	for _, o := range append(w.Parts(m), vault.Object{Name: vaulttest.BackupOf(m).Manifest()}) {
		for what, content := range map[string][]byte{"other": bytes.Repeat([]byte{1}, int(o.Bytes)), "short": {1}} {
			for _, far := range []interface {
				object.Store
				Replace(string, []byte)
			}{&mem.Store{}, &vaulttest.OtherKind{Store: &mem.Store{}}} {
				far.Replace(o.Name, content)
				_, err := w.Replicator(far).Copy(t.Context(), w.Run(), vaulttest.CopyWork(m, 0))
				if err == nil || !fanout.Permanent(err) || !strings.Contains(err.Error(), o.Name) {
					t.Fatalf("%s %s: %v", what, o.Name, err)
				}
				if now, err := object.ReadAll(t.Context(), far, o.Name, 1<<30); err != nil || !bytes.Equal(now, content) {
					t.Fatalf("%s %s was changed, %v", what, o.Name, err)
				}
			}
		}
	}
	other := &mem.Store{}
	if _, err := repository.Init(t.Context(), other, vaulttest.Day); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Replicator(other).Copy(t.Context(), w.Run(), vaulttest.CopyWork(m, 0)); err == nil || !strings.Contains(err.Error(), "another") {
		t.Errorf("into another vault: %v", err)
	}
}

// TestCopyOfUnsealed refuses what is no backup.
func TestCopyOfUnsealed(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 20)
	plan, err := w.Planner().Plan(t.Context(), backup.PlanRequest{Table: vaulttest.SourceID, Kind: vault.Full, At: vaulttest.Day, Trigger: "test"})
	if err != nil {
		t.Fatal(err)
	}
	b := vault.Backup{Table: plan.Table, ID: plan.Backup}
	far := &mem.Store{}
	if _, err := w.Replicator(far).CopyAll(t.Context(), w.Run(), b, replica.Point{}, 0); err == nil || !strings.Contains(err.Error(), "not sealed") {
		t.Errorf("unsealed: %v", err)
	}
	if _, err := w.Planner().Void(t.Context(), b, "enough"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Replicator(far).CopyAll(t.Context(), w.Run(), b, replica.Point{}, 0); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("void: %v", err)
	}
	if left := vaulttest.ContentOf(t, far, ""); len(left) > 0 {
		t.Errorf("in the target are %v", slices.Collect(maps.Keys(left)))
	}
}

// TestCopyKeepsToItsBudget counts a copy's bytes against a clock that is the test's: it
// takes as long as its bytes need, and is not begun where time does not suffice.
func TestCopyKeepsToItsBudget(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 3000)
	const perSecond = 100_000
	synctest.Test(t, func(t *testing.T) {
		for _, cut := range []time.Duration{0, 3 * time.Second} {
			far := &mem.Store{}
			begin := time.Now()
			point, hops := replica.Point{}, 0
			for done := false; !done; hops++ {
				run := fanout.Run{Request: "r", Now: time.Now}
				if cut > 0 {
					run.Stop = time.Now().Add(cut)
					run.Until = run.Stop.Add(time.Second)
				}
				since := time.Now()
				reply, err := w.Replicator(far).CopyAll(t.Context(), run, vaulttest.BackupOf(m), point, perSecond)
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(since); cut > 0 && took > cut {
					t.Errorf("a hop takes %s, it was to stop after %s", took, cut)
				}
				point, done = reply.Next, reply.Done
			}
			took := time.Since(begin)
			// What passes at once at the beginning of a hop is a chunk.
			burst := time.Duration(hops)*time.Second*64<<10/perSecond + time.Millisecond
			want := time.Duration(m.Totals.StoredBytes) * time.Second / perSecond
			if took < want-burst || took > want+time.Second {
				t.Errorf("%d bytes take %s in %d hops, want %s", m.Totals.StoredBytes, took, hops, want)
			}
			if (hops > 1) != (cut > 0) {
				t.Errorf("%d hops", hops)
			}
			w.IsReplica(m, far)
		}
		run := fanout.Run{Request: "r", Now: time.Now, Stop: time.Now().Add(time.Second), Until: time.Now().Add(2 * time.Second)}
		if _, err := w.Replicator(&mem.Store{}).CopyAll(t.Context(), run, vaulttest.BackupOf(m), replica.Point{}, 1); err == nil || !strings.Contains(err.Error(), "raise the bandwidth") {
			t.Errorf("with too little: %v", err)
		}
	})
}

// TestCopyKnowsWhatCameWithoutARecord kills a copy before it can write a record: the next
// one reads what it can't tell by a checksum, and sends nothing again.
func TestCopyKnowsWhatCameWithoutARecord(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 1500)
	inner := &vaulttest.OtherKind{Store: &mem.Store{}}
	killed := objectfault.New(inner, &objectfault.Fault{Op: objectfault.Create, Call: objectfault.Every, When: objectfault.Before,
		Match: func(name string) bool { return strings.HasPrefix(name, vault.CopiesPrefix) }})
	if _, err := w.Replicator(killed).Copy(t.Context(), w.Run(), vaulttest.CopyWork(m, 0)); !errors.Is(err, objectfault.ErrInjected) {
		t.Fatal(err)
	}
	meter := objectmeter.New(inner)
	reply, err := w.Replicator(meter).Copy(t.Context(), w.Run(), vaulttest.CopyWork(m, 0))
	if err != nil || !reply.Done || reply.Objects != 0 || reply.Found != m.Totals.Objects {
		t.Fatalf("%+v, %v", reply, err)
	}
	if read := meter.Usage().Read; read < m.Totals.StoredBytes {
		t.Errorf("%d bytes were read in the target, of %d", read, m.Totals.StoredBytes)
	}
	w.IsReplica(m, inner)
}

// TestRestoreReadsFromTheReplica deletes or flips each object of a backup in turn. The
// restore takes it from the replica and says so; what was gone is there again afterwards,
// and what was flipped is as it was.
func TestRestoreReadsFromTheReplica(t *testing.T) {
	for _, how := range []string{"gone", "flipped"} {
		t.Run(how, func(t *testing.T) {
			w, m := vaulttest.CopyWorld(t, 700)
			far := &vaulttest.OtherKind{Store: &mem.Store{}}
			w.CopyAll(m, far)
			good := vaulttest.ContentOf(t, w.Store, "")
			parts := append(w.Parts(m), vault.Object{Name: vaulttest.BackupOf(m).Manifest()})
			for i, o := range parts {
				damaged := &mem.Store{Now: w.Clock}
				for name, content := range good {
					damaged.Replace(name, []byte(content))
				}
				bytes := []byte(good[o.Name])
				bytes[len(bytes)/2] ^= 1
				damaged.Replace(o.Name, bytes)
				if how == "gone" {
					if err := damaged.Delete(t.Context(), o.Name); err != nil {
						t.Fatal(err)
					}
				}
				w.Store = damaged
				repo, err := repository.Open(t.Context(), damaged)
				if err != nil {
					t.Fatal(err)
				}
				repo.SetReplicas(vaulttest.ReplicaAt(far))
				w.Repo = repo
				p := w.Restore(m)
				w.Proved(p, vault.OK)
				w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
				said := strings.Join(p.Proof.Notes, "\n")
				if !strings.Contains(said, o.Name) || !strings.Contains(said, "read from "+vaulttest.ReplicaAddress) {
					t.Fatalf("%s %s: the proof says %q", how, o.Name, said)
				}
				now, err := object.ReadAll(t.Context(), damaged, o.Name, 1<<30)
				manifest := i == len(parts)-1
				switch {
				case how == "flipped":
					if err != nil || string(now) != string(bytes) || !strings.Contains(said, "stays damaged") && !manifest {
						t.Fatalf("flipped %s: %v, the proof says %q", o.Name, err, said)
					}
				case manifest:
					if !errors.Is(err, fs.ErrNotExist) {
						t.Fatalf("the manifest: %v", err)
					}
				case err != nil || string(now) != good[o.Name] || !strings.Contains(said, "made anew"):
					t.Fatalf("%s was not made anew: %v, the proof says %q", o.Name, err, said)
				}
				w.Tables.Drop(vaulttest.TargetID.Table)
			}
			if len(parts) < 8 {
				t.Errorf("only %d objects", len(parts))
			}
		})
	}
}

// TestReplicaIsAVault loses the first vault and goes on with the second, whose store
// keeps checksums of another kind: a restore, and a further backup.
func TestReplicaIsAVault(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 700)
	far := &vaulttest.OtherKind{Store: &mem.Store{Now: w.Clock}}
	w.CopyAll(m, far)
	repo, err := repository.Open(t.Context(), far)
	if err != nil {
		t.Fatal(err)
	}
	w.Store, w.Repo = far, repo
	for _, depth := range []string{verify.DepthObjects, verify.DepthRows} {
		if proof := w.Verify(m, depth); proof.Verdict != vault.OK || proof.Check.SizeOnly != 0 {
			t.Errorf("%s: %+v", depth, proof)
		}
	}
	w.Proved(w.Restore(m), vault.OK)
	w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
	w.Advance(time.Hour)
	if again := w.Backup(vaulttest.Small); again.Backup == m.Backup || w.Verify(again, verify.DepthRead).Verdict != vault.OK {
		t.Errorf("%+v", again)
	}
}

// TestReplicasAreTriedInTurn has a first replica that can't be opened, and a second that
// lacks the object.
func TestReplicasAreTriedInTurn(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 700)
	far, poor := &mem.Store{}, &mem.Store{}
	w.CopyAll(m, far)
	shard := w.Parts(m)[2]
	for name, content := range vaulttest.ContentOf(t, far, "") {
		if name != shard.Name {
			poor.Replace(name, []byte(content))
		}
	}
	if err := w.Store.Delete(t.Context(), shard.Name); err != nil {
		t.Fatal(err)
	}
	opened := 0
	closed := repository.Replica{Name: "oss://closed", Open: func(context.Context) (object.Store, error) {
		opened++
		return nil, fs.ErrPermission
	}}
	w.Repo.SetReplicas(closed, repository.Replica{Name: "oss://poor", Open: func(context.Context) (object.Store, error) { return poor, nil }}, vaulttest.ReplicaAt(far))
	proof := w.Verify(m, verify.DepthRead)
	said := strings.Join(proof.Notes, "\n")
	if proof.Verdict != vault.OK || opened != 1 || !strings.Contains(said, "read from "+vaulttest.ReplicaAddress) || !strings.Contains(said, "oss://closed can't be read") {
		t.Errorf("%d openings, %s: %q", opened, proof.Verdict, said)
	}
	if _, err := object.Stat(t.Context(), w.Store, shard.Name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("verify made %s anew: %v", shard.Name, err)
	}
	w.Repo.SetReplicas(closed)
	if proof := w.Verify(m, verify.DepthRead); proof.Verdict != vault.Corrupt {
		t.Errorf("without a twin that has it: %s", proof.Verdict)
	}
}

// TestLostCatalog restores a backup whose marks and manifest are gone.
func TestLostCatalog(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 700)
	far := &mem.Store{}
	w.CopyAll(m, far)
	for _, name := range []string{vaulttest.BackupOf(m).Manifest(), vault.Opened(m.Table, m.Backup)} {
		if err := w.Store.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Repo.FindBackup(t.Context(), m.Backup); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	w.Repo.SetReplicas(vaulttest.ReplicaAt(far))
	if b, err := w.Repo.FindBackup(t.Context(), m.Backup); err != nil || b != vaulttest.BackupOf(m) {
		t.Errorf("%v, %v", b, err)
	}
	if newest, err := w.Repo.Latest(t.Context(), m.Table, time.Time{}); err != nil || newest.Backup != m.Backup {
		t.Errorf("%+v, %v", newest, err)
	}
}

// TestCopyOntoItself refuses to copy a vault to where it is, by whatever name, and notes
// no copy. A replica that was filled with all of the vault by other means is another
// place all the same.
func TestCopyOntoItself(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 700)
	b := vaulttest.BackupOf(m)
	none := func(err error) {
		t.Helper()
		if !errors.Is(err, repository.ErrSame) || !fanout.Permanent(err) {
			t.Errorf("not refused: %v", err)
		}
		if notes, err := w.Repo.CopyNotes(t.Context(), b); err != nil || len(notes) > 0 {
			t.Errorf("noted: %+v, %v", notes, err)
		}
		if names := vaulttest.ContentOf(t, w.Store, vault.CopiesPrefix); len(names) > 0 {
			t.Errorf("%d records of copies were written", len(names))
		}
	}
	_, err := w.Replicator(w.Store).CopyAll(t.Context(), w.Run(), b, replica.Point{}, 0)
	none(err)
	_, err = w.Replicator(w.Store).Copy(t.Context(), w.Run(), vaulttest.CopyWork(m, 0))
	none(err)
	_, err = w.Verifier().Compare(t.Context(), b, vaulttest.ReplicaAddress, w.Store)
	none(err)
	back := &replica.Replicator{Repo: w.Repo, Address: "oss://first/vault", Store: w.Store, Log: w.Log(), Back: true}
	_, err = back.CopyAll(t.Context(), w.Run(), b, replica.Point{}, 0)
	none(err)

	seeded := &mem.Store{}
	for name, content := range vaulttest.ContentOf(t, w.Store, "") {
		if !strings.HasPrefix(name, "slots/") && !strings.HasPrefix(name, "starts/") {
			seeded.Replace(name, []byte(content))
		}
	}
	if reply := w.CopyAll(m, seeded); !reply.Done || reply.Objects != 0 {
		t.Errorf("%+v", reply)
	}
	w.IsReplica(m, seeded)
}

// marking is a replica in which the backup is marked for deletion as soon as something of
// it has come.
type marking struct {
	*mem.Store
	once sync.Once
	mark func()
}

func (m *marking) Create(ctx context.Context, name string, r io.Reader) (object.Info, error) {
	info, err := m.Store.Create(ctx, name, r)
	if strings.HasPrefix(name, vault.ShardPrefix) {
		m.once.Do(m.mark)
	}
	return info, err
}

// TestMarkedMeanwhile marks the backup in the replica while it is copied: no manifest
// comes to stand there, and no copy is noted.
func TestMarkedMeanwhile(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 700)
	b := vaulttest.BackupOf(m)
	far := &marking{Store: &mem.Store{}}
	far.mark = func() {
		data, err := vault.Encode(b.Mark(), &vault.Mark{Backup: b.ID, Table: b.Table, At: w.Clock(), Reason: "test"})
		if err != nil {
			t.Error(err)
			return
		}
		far.Replace(b.Mark(), data)
	}
	if _, err := w.Replicator(far).CopyAll(t.Context(), w.Run(), b, replica.Point{}, 0); !errors.Is(err, repository.ErrMarked) {
		t.Errorf("copied to where it is marked: %v", err)
	}
	for _, name := range []string{b.Manifest(), vault.Opened(b.Table, b.ID)} {
		if _, err := object.Stat(t.Context(), far, name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s stands in the target: %v", name, err)
		}
	}
	if notes, err := w.Repo.CopyNotes(t.Context(), b); err != nil || len(notes) > 0 {
		t.Errorf("noted: %+v, %v", notes, err)
	}
}

// TestCopyOfNoGroup gives a segment that is not the first of a group: nothing is noted.
func TestCopyOfNoGroup(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Quiet = true
	w.Fill(vaulttest.Definition(), 50)
	m := w.Backup(vaulttest.Small)
	for _, id := range []vault.SegmentID{"000001", "000000.00", "-1", ""} {
		work := vaulttest.CopyWork(m, 0)
		work.Segment = id
		if _, err := w.Replicator(&mem.Store{}).Copy(t.Context(), w.Run(), work); !fanout.Permanent(err) {
			t.Errorf("%q: %v", id, err)
		}
	}
	for info, err := range w.Store.List(t.Context(), vault.CopyingPrefix, "") {
		t.Error(info.Name, err)
	}
}

// TestNotesOfOthers tells the notes that are about a backup's copies from those that are
// not, which hide none.
func TestNotesOfOthers(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 700)
	b := vaulttest.BackupOf(m)
	w.CopyAll(m, &mem.Store{})
	for address, n := range map[string]*vault.CopyNote{
		"oss://a/vault": {Backup: b.ID, Table: b.Table, Replica: "oss://evil/vault"},
		"oss://b/vault": {Backup: vault.NewBackupID(w.Clock(), "other"), Table: b.Table, Replica: "oss://b/vault"},
		"oss://c/vault": {Backup: b.ID, Table: vaulttest.TargetID, Replica: "oss://c/vault"},
	} {
		n.At, n.Manifest = w.Clock(), strings.Repeat("0", 64)
		own := vault.Backup{Table: n.Table, ID: n.Backup}
		data, err := vault.Encode(own.CopyNote(place.Key(n.Replica)), n)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Store.Create(t.Context(), b.CopyNote(place.Key(address)), bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	notes, err := w.Repo.CopyNotes(t.Context(), b)
	if !errors.Is(err, vault.ErrCorrupt) || len(notes) != 1 || notes[0].Replica != vaulttest.ReplicaAddress {
		t.Errorf("%+v, %v", notes, err)
	}
	// The manifest is held against the notes that are about it.
	w.Repo.SetReplicas(vaulttest.ReplicaAt(&mem.Store{}))
	if _, _, err := w.Repo.Manifest(t.Context(), b); err != nil {
		t.Error(err)
	}
	states, err := replica.States(t.Context(), w.Repo, m)
	if err != nil || len(states) != 2 || states[0].Replica != vaulttest.ReplicaAddress || states[0].State != replica.StateCopied || states[1].State != replica.StateFailed || !strings.Contains(states[1].Error, "written under another name") {
		t.Errorf("%+v, %v", states, err)
	}
}

// TestNoteOfAnotherManifest: where a note says that another manifest was copied, and
// there is none in the replica, it is told what the note says, not that the backup is
// gone.
func TestNoteOfAnotherManifest(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 1200)
	b := vaulttest.BackupOf(m)
	name := b.CopyNote(place.Key(vaulttest.ReplicaAddress))
	note := &vault.CopyNote{Backup: b.ID, Table: b.Table, Replica: vaulttest.ReplicaAddress, At: w.Clock(), Manifest: strings.Repeat("0", 64)}
	if _, err := w.Repo.Create(t.Context(), name, note); err != nil {
		t.Fatal(err)
	}
	p := w.Restorer()
	p.Known = []repository.Replica{vaulttest.ReplicaAt(&mem.Store{})}
	if _, err := p.Begin(t.Context(), w.Run(), w.Request(m)); !errors.Is(err, vault.ErrCorrupt) || !strings.Contains(err.Error(), "when it was copied to") {
		t.Errorf("%v", err)
	}
}
