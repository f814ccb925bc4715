package repository_test

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// kinds are all documents, empty.
func kinds() map[string]func() vault.Document {
	all := map[string]func() vault.Document{}
	for _, d := range []func() vault.Document{
		func() vault.Document { return new(vault.Header) }, func() vault.Document { return new(vault.Plan) }, func() vault.Document { return new(vault.Slot) },
		func() vault.Document { return new(vault.Note) }, func() vault.Document { return new(vault.Ask) }, func() vault.Document { return new(vault.Group) },
		func() vault.Document { return new(vault.Manifest) }, func() vault.Document { return new(vault.RestorePlan) }, func() vault.Document { return new(vault.Loaded) },
		func() vault.Document { return new(vault.Quarantine) }, func() vault.Document { return new(vault.Closed) }, func() vault.Document { return new(vault.Claim) },
		func() vault.Document { return new(vault.Made) }, func() vault.Document { return new(vault.Proof) }, func() vault.Document { return new(vault.SegmentCheck) },
		func() vault.Document { return new(vault.Compared) }, func() vault.Document { return new(vault.CheckedGroup) }, func() vault.Document { return new(vault.Copied) },
		func() vault.Document { return new(vault.CopyNote) }, func() vault.Document { return new(vault.Mark) }, func() vault.Document { return new(vault.Accepted) },
		func() vault.Document { return new(vault.Answer) }, func() vault.Document { return new(vault.Drill) }, func() vault.Document { return new(vault.DrillEnd) },
		func() vault.Document { return new(vault.DrillDrop) },
	} {
		all[vault.KindOf(d())] = d
	}
	return all
}

var documentForm = regexp.MustCompile(`^\{"document":"([a-z-]+)"`)

// document is one that stands in the vault of a test.
type document struct {
	kind, name string
	data       []byte
}

// documents are those in a store, of each kind the shortest, or all.
func documents(t *testing.T, store object.Store, all bool) []document {
	t.Helper()
	var found []document
	at := map[string]int{}
	for name, content := range vaulttest.ContentOf(t, store, "") {
		kind := documentForm.FindStringSubmatch(content)
		if kind == nil {
			continue
		}
		d := document{kind[1], name, []byte(content)}
		i, known := at[d.kind]
		switch {
		case all || !known:
			at[d.kind] = len(found)
			found = append(found, d)
		case len(d.data) < len(found[i].data):
			found[i] = d
		}
	}
	return found
}

// damagedWorld is a vault with two backups of one table, a restore, a copy of both and a
// mark, as the functions make them.
func damagedWorld(t *testing.T) *vaulttest.World {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 40)
	w.Proved(w.Restore(w.Backup(vault.Settings{Lanes: 2})), vault.OK)
	w.Backup(vault.Settings{Lanes: 2})
	if _, err := w.Store.Create(t.Context(), "requests/a.json", strings.NewReader(`{"table":"prod/orders","to":"prod/asked"}`)); err != nil {
		t.Fatal(err)
	}
	replica := &mem.Store{Now: w.Clock}
	w.Replicas = map[string]object.Store{vaulttest.ReplicaAddress: replica, "oss://third/vault": &mem.Store{Now: w.Clock}}
	w.Settle(vaulttest.HourlyCopied)
	m := w.Manifests("orders")[0]
	w.MarkIn(w.Store, vaulttest.BackupOf(m))
	for name, content := range vaulttest.ContentOf(t, replica, vault.CopiesPrefix) {
		if _, err := w.Store.Create(t.Context(), name, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// TestEveryBit turns every bit of a document of each kind around, the format's number
// among them, and cuts it at each length: nothing of that is read.
func TestEveryBit(t *testing.T) {
	w := damagedWorld(t)
	seen := 0
	for _, d := range documents(t, w.Store, false) {
		fresh := kinds()[d.kind]
		if fresh == nil {
			t.Errorf("%s is a %s, which this test doesn't know", d.name, d.kind)
			continue
		}
		seen++
		if err := w.Repo.Decode(d.name, d.data, fresh()); err != nil {
			t.Errorf("%s as it is: %v", d.name, err)
		}
		bad := bytes.Clone(d.data)
		for bit := range 8 * len(bad) {
			bad[bit/8] ^= 1 << (bit % 8)
			if err := w.Repo.Decode(d.name, bad, fresh()); !errors.Is(err, vault.ErrCorrupt) {
				t.Errorf("%s with bit %d of byte %d turned: %v", d.name, bit%8, bit/8, err)
			}
			bad[bit/8] ^= 1 << (bit % 8)
		}
		for n := range d.data {
			if err := w.Repo.Decode(d.name, d.data[:n], fresh()); !errors.Is(err, vault.ErrCorrupt) {
				t.Errorf("%s cut to %d bytes: %v", d.name, n, err)
			}
		}
		// The store tells of it by its name.
		w.Remove(d.name)
		bad[len(bad)/2] ^= 1
		if _, err := w.Store.Create(t.Context(), d.name, bytes.NewReader(bad)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Repo.Read(t.Context(), d.name, fresh()); !repository.Corrupt(err) || !strings.Contains(err.Error(), d.name) {
			t.Errorf("%s is read from the store: %v", d.name, err)
		}
	}
	if seen < 15 {
		t.Errorf("only %d kinds of documents", seen)
	}
}

// TestSwapped puts each document in the place of each other one of its kind: of another
// backup of the table, of another segment, of another start.
func TestSwapped(t *testing.T) {
	w := damagedWorld(t)
	all := documents(t, w.Store, true)
	swaps := map[string]int{}
	for _, a := range all {
		for _, b := range all {
			if a.kind != b.kind || a.name == b.name {
				continue
			}
			swaps[a.kind]++
			if err := w.Repo.Decode(a.name, b.data, kinds()[a.kind]()); !errors.Is(err, vault.ErrCorrupt) {
				t.Errorf("%s with what stands under %s: %v", a.name, b.name, err)
			}
		}
	}
	for _, kind := range []string{"plan", "slot", "group", "manifest", "note"} {
		if swaps[kind] == 0 {
			t.Errorf("no two documents of kind %s", kind)
		}
	}
}

// TestHeaderIsBlamed turns each bit of vault.json: it is what is said to be damaged, and
// not the shards, whose digests have the seed that it tells.
func TestHeaderIsBlamed(t *testing.T) {
	content := vaulttest.ContentOf(t, vaulttest.NewWorld(t).Store, vault.HeaderName)[vault.HeaderName]
	for bit := range 8 * len(content) {
		bad := []byte(content)
		bad[bit/8] ^= 1 << (bit % 8)
		store := &mem.Store{}
		if _, err := store.Create(t.Context(), vault.HeaderName, bytes.NewReader(bad)); err != nil {
			t.Fatal(err)
		}
		if _, err := repository.Open(t.Context(), store); !errors.Is(err, vault.ErrCorrupt) || !strings.Contains(err.Error(), vault.HeaderName) {
			t.Errorf("with bit %d of byte %d turned: %v", bit%8, bit/8, err)
		}
	}
}

// TestForgedNames: a manifest that was forged, checksum and all, names the plan or a
// roll-up of another backup, or an order of its own.
func TestForgedNames(t *testing.T) {
	w := damagedWorld(t)
	all := w.Manifests("orders")
	m, other := all[len(all)-1], all[len(all)-2]
	b := vaulttest.BackupOf(m)
	for what, change := range map[string]func(*vault.Manifest){
		"nothing":                  func(*vault.Manifest) {},
		"another backup's plan":    func(f *vault.Manifest) { f.Plan = other.Plan },
		"another backup's roll-up": func(f *vault.Manifest) { f.Groups = other.Groups },
		"a roll-up twice":          func(f *vault.Manifest) { f.Groups = append(f.Groups[:1:1], f.Groups[0]) },
		"a name outside":           func(f *vault.Manifest) { f.Groups = []vault.Object{vaulttest.Named("../../x")} },
		"no rows walked":           func(f *vault.Manifest) { f.Totals.Walked = 0 },
		"fewer than no rows":       func(f *vault.Manifest) { f.Totals.Rows, f.Totals.Walked = -1, -1 },
		"no digest":                func(f *vault.Manifest) { f.Plan.SHA256 = "" },
		"another kind":             func(f *vault.Manifest) { f.Kind = "gull" },
		"another state":            func(f *vault.Manifest) { f.State = "sealee" },
	} {
		forged := *m
		plan := *m.Plan
		forged.Plan = &plan
		change(&forged)
		w.Remove(b.Manifest())
		if _, err := w.Store.Create(t.Context(), b.Manifest(), bytes.NewReader(vaulttest.Forge(b.Manifest(), &forged))); err != nil {
			t.Fatal(err)
		}
		if _, _, err := w.Repo.Manifest(t.Context(), b); errors.Is(err, vault.ErrCorrupt) != (what != "nothing") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestLongDocuments puts objects of 100 MB where short documents stand, sparse ones,
// which take no memory: they are refused by their size.
func TestLongDocuments(t *testing.T) {
	w := damagedWorld(t)
	b := vaulttest.BackupOf(w.Manifests("orders")[0])
	for name, d := range map[string]vault.Document{
		b.Log().Failure("000000", 7): new(vault.Note), b.Log().Start("000000", 7): new(vault.Note), b.Log().Ask("000000"): new(vault.Ask),
		b.Mark() + ".json": new(vault.Mark),
	} {
		size := vault.Limit(d) + 1
		if _, err := w.Store.Create(t.Context(), name, bytes.NewReader(make([]byte, size))); err != nil {
			t.Fatal(err)
		}
		before := allocated()
		_, err := w.Repo.Read(t.Context(), name, d)
		if grew := allocated() - before; !errors.Is(err, object.ErrTooLong) || !repository.Corrupt(err) || grew > 1<<20 {
			t.Errorf("%s: %v, and %s were allocated", name, err, fmt.Sprint(grew))
		}
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// TestPinned exchanges what is named with a hash for something else that is well made:
// the plan and a roll-up, whose checksums are right, and a shard of the same length.
func TestPinned(t *testing.T) {
	w := damagedWorld(t)
	all := w.Manifests("orders")
	m := all[len(all)-1]
	b := vaulttest.BackupOf(m)
	exchange := func(name string, content []byte) {
		t.Helper()
		w.Remove(name)
		if _, err := w.Store.Create(t.Context(), name, bytes.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	named := func(err error, name string) {
		t.Helper()
		if !errors.Is(err, vault.ErrCorrupt) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "sha256") {
			t.Errorf("%s is another one: %v", name, err)
		}
	}
	shard := w.Parts(m)[0]
	for _, o := range w.Parts(m) {
		if _, _, ok := vault.ParseShard(o.Name); ok {
			shard = o
			break
		}
	}
	if err := w.Repo.Check(t.Context(), shard, nil); err != nil {
		t.Fatal(err)
	}
	content := []byte(vaulttest.ContentOf(t, w.Store, shard.Name)[shard.Name])
	content[len(content)/2] ^= 1
	exchange(shard.Name, content)
	named(w.Repo.Check(t.Context(), shard, nil), shard.Name)

	plan, err := w.Repo.PlanOf(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	plan.Trigger += "x"
	exchange(b.Plan(), vaulttest.Forge(b.Plan(), plan))
	if _, _, err := w.Repo.Plan(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	_, err = w.Repo.PlanOf(t.Context(), m)
	named(err, b.Plan())

	var group vault.Group
	for g, err := range w.Repo.Groups(t.Context(), m) {
		if err != nil {
			t.Fatal(err)
		}
		group = *g
	}
	group.Usage.Create++
	exchange(b.Group(0), vaulttest.Forge(b.Group(0), &group))
	for _, err := range w.Repo.Groups(t.Context(), m) {
		named(err, b.Group(0))
	}
}

// TestDocumentsOfOthers puts the documents of a restore, and the plan of a backup, where
// those of others stand, as whoever knows the format: each tells whose it is.
func TestDocumentsOfOthers(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 20)
	m := w.Backup(vaulttest.Small)
	done := w.Restore(m)
	own, other := vault.Restore{ID: done.Restore}, vault.Restore{ID: "20261120T021400Z-0a1b2c3d"}
	b, another := vaulttest.BackupOf(m), vault.Backup{Table: m.Table, ID: "20261120T021400Z-0a1b2c3d"}
	for _, c := range []struct {
		own, other string
		document   vault.Document
		read       func() error
	}{
		{own.Plan(), other.Plan(), new(vault.RestorePlan), func() error { _, err := w.Repo.RestorePlan(t.Context(), other.ID); return err }},
		{own.Created(), other.Created(), new(vault.Made), func() error { _, err := w.Repo.Made(t.Context(), other.ID); return err }},
		{own.Closed(), other.Closed(), new(vault.Closed), func() error { _, err := w.Repo.Closed(t.Context(), other.ID); return err }},
		{own.Proof(), other.Proof(), new(vault.Proof), func() error { _, err := w.Repo.RestoreProof(t.Context(), other.ID); return err }},
		{b.Plan(), another.Plan(), new(vault.Plan), func() error { _, _, err := w.Repo.Plan(t.Context(), another); return err }},
		{b.Manifest(), another.Manifest(), new(vault.Manifest), func() error { _, _, err := w.Repo.Manifest(t.Context(), another); return err }},
	} {
		if _, err := w.Repo.Read(t.Context(), c.own, c.document); err != nil {
			t.Fatal(err)
		}
		w.Store.(*mem.Store).Replace(c.other, vaulttest.Forge(c.other, c.document))
		if err := c.read(); !errors.Is(err, vault.ErrCorrupt) || !strings.Contains(err.Error(), c.other) {
			t.Errorf("what stands under %s, under %s: %v", c.own, c.other, err)
		}
	}
}
