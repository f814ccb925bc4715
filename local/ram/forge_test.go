package ram_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/local/ram"
	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/prune"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
	"github.com/tablevault/tablevault/shared/verify"
)

// These tests put the key of one role after the other into a thief's hand. What he
// creates goes through the role's policy of docs/ram, so that he fakes what the role may,
// and nothing else. Of each forgery they say whether it is noticed, and when; what is not
// stands in docs/operations.md, under "What a stolen key can fake".

// held is a store as the key of a role has it: it creates what the policy allows, and
// overwrites and deletes nothing.
type held struct {
	object.Store
	role      string
	authority *ram.Authority
}

func stolen(t *testing.T, store object.Store, role string) *held {
	t.Helper()
	a := ram.New(ram.Config{})
	a.SetPolicies(role, rolesIn(t)[role])
	return &held{store, role, a}
}

func (h *held) Create(ctx context.Context, name string, r io.Reader) (object.Info, error) {
	if err := h.authority.AuthorizeRole(h.role, "oss:PutObject", "acs:oss:oss-cn:1:b/v/"+name, nil); err != nil {
		return object.Info{}, err
	}
	return h.Store.Create(ctx, name, r)
}

func (h *held) Delete(context.Context, string) error {
	return errors.New("no role of a function deletes")
}

// put creates a forged document.
func (h *held) put(t *testing.T, name string, d vault.Document) {
	t.Helper()
	if _, err := h.Create(t.Context(), name, bytes.NewReader(vaulttest.Forge(name, d))); err != nil {
		t.Fatal(err)
	}
}

// refused fails the test unless the role may not create a name.
func (h *held) refused(t *testing.T, name string) {
	t.Helper()
	if _, err := h.Create(t.Context(), name, strings.NewReader("x")); err == nil {
		t.Errorf("%s creates %s", h.role, name)
	}
}

// filled is a world with a table of so many rows.
func filled(t *testing.T, rows int) *vaulttest.World {
	w := vaulttest.NewWorld(t)
	w.Quiet = true
	w.Fill(vaulttest.Definition(), rows)
	return w
}

// ends ticks and works at a backup, and returns its manifest, nil if it comes to none.
func ends(t *testing.T, w *vaulttest.World, b vault.Backup) *vault.Manifest {
	t.Helper()
	for range 30 {
		p, err := w.Planner().Tick(t.Context(), w.Run(), b)
		if err == nil && p.Manifest != nil {
			return p.Manifest
		}
		w.Work()
		w.Advance(11 * time.Minute)
	}
	return nil
}

// planned begins a backup whose workers have not begun.
func planned(t *testing.T, w *vaulttest.World) vault.Backup {
	t.Helper()
	plan, err := w.Planner().Plan(t.Context(), backup.PlanRequest{Table: vaulttest.SourceID, Kind: vault.Full, At: w.Clock(), Trigger: "test", New: true})
	if err != nil {
		t.Fatal(err)
	}
	return vault.Backup{Table: vaulttest.SourceID, ID: plan.Backup}
}

// TestExportsKey: a slot that names no shard, a shard of another backup, or an end that
// was not reached keeps the backup from being sealed. Rows that never were in the table
// are sealed.
func TestExportsKey(t *testing.T) {
	segment := vault.NewSegmentID(0)
	slotOf := func(w *vaulttest.World, m *vault.Manifest) vault.Slot {
		var s vault.Slot
		if _, err := w.Repo.Read(t.Context(), vaulttest.BackupOf(m).Log().Slot(segment, 0), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	for name, forge := range map[string]func(w *vaulttest.World, h *held, m *vault.Manifest, b vault.Backup){
		"a slot of a shard that is not there": func(w *vaulttest.World, h *held, m *vault.Manifest, b vault.Backup) {
			s := slotOf(w, m)
			s.Part.Shard.Name = b.Shard(segment, "forged")
			s.Part.Index.Name = vault.Index(s.Part.Shard.Name)
			h.put(t, b.Log().Slot(segment, 0), &s)
		},
		"a slot of another backup's shard": func(w *vaulttest.World, h *held, m *vault.Manifest, b vault.Backup) {
			s := slotOf(w, m)
			h.put(t, b.Log().Slot(segment, 0), &s)
		},
		"an end that was not reached": func(w *vaulttest.World, h *held, m *vault.Manifest, b vault.Backup) {
			w.Drain()
			if _, err := h.Create(t.Context(), b.Log().Done(segment), strings.NewReader("")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := filled(t, 50)
			m := w.Backup(vault.Settings{})
			w.Advance(time.Hour)
			b := planned(t, w)
			forge(w, stolen(t, w.Store, "export"), m, b)
			sealed := ends(t, w, b)
			if sealed != nil {
				t.Errorf("it is sealed, with %d rows of %d", sealed.Totals.Rows, m.Totals.Rows)
			}
		})
	}
	t.Run("rows that never were", func(t *testing.T) {
		w := filled(t, 50)
		b := planned(t, w)
		lies := tabletest.New()
		lies.Now = w.Clock
		lies.Make(vaulttest.Definition())
		for i, row := range w.Tables.Rows(vaulttest.SourceID.Table) {
			if i%2 == 0 {
				row.Cells = []plainbuffer.Cell{tabletest.Cell("n", w.Clock().UnixMilli(), 666)}
				lies.Put(vaulttest.SourceID.Table, row)
			}
		}
		repo, err := repository.Open(t.Context(), stolen(t, w.Store, "export"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Planner().Tick(t.Context(), w.Run(), b); err != nil {
			t.Fatal(err)
		}
		for _, work := range w.Drain() {
			if _, err := (&backup.Exporter{Repo: repo, Tables: lies, Work: w, Log: w.Log()}).Export(t.Context(), w.Run(), work); err != nil {
				t.Fatal(err)
			}
		}
		m := ends(t, w, b)
		// Nothing tells who wrote a shard: this is what a signature would.
		if m == nil || m.Totals.Rows != int64(len(lies.Rows(vaulttest.SourceID.Table))) || w.Verify(m, verify.DepthRead).Verdict != vault.OK {
			t.Errorf("it is noticed now, so docs/operations.md says too much: %+v", m)
		}
		if w.Verify(m, verify.DepthRows).Verdict == vault.OK {
			t.Error("a comparison with the table does not notice it")
		}
	})
	h := stolen(t, &mem.Store{}, "export")
	b := vault.Backup{Table: vaulttest.SourceID, ID: exampleID}
	for _, name := range []string{b.Manifest(), b.Plan(), b.Group(0), vault.Opened(b.Table, b.ID), b.Mark(), b.CopyNote("x"), vault.HeaderName, vault.AnswerName("requests/x.json")} {
		h.refused(t, name)
	}
}

// TestPlansKey: a manifest of what is not there, or of another backup, is damaged to
// whoever reads it. One that gives a backup up ends it.
func TestPlansKey(t *testing.T) {
	w := filled(t, 50)
	m := w.Backup(vault.Settings{})
	h := stolen(t, w.Store, "plan")
	forged := vault.Backup{Table: m.Table, ID: vault.NewBackupID(w.Clock().Add(time.Second), "forged")}

	other := *m
	other.Backup = forged.ID
	h.put(t, forged.Manifest(), &other)
	if _, _, err := w.Repo.Manifest(t.Context(), forged); !errors.Is(err, vault.ErrCorrupt) {
		t.Errorf("a manifest that names another backup's objects: %v", err)
	}

	nothing := vault.Backup{Table: m.Table, ID: vault.NewBackupID(w.Clock().Add(2*time.Second), "nothing")}
	other.Backup = nothing.ID
	plan := *m.Plan
	plan.Name = nothing.Plan()
	other.Plan, other.Groups = &plan, nil
	for g, o := range m.Groups {
		o.Name = nothing.Group(g)
		other.Groups = append(other.Groups, o)
	}
	h.put(t, nothing.Manifest(), &other)
	if proof, err := w.Verifier().Verify(t.Context(), verify.Request{Backup: nothing, Depth: verify.DepthObjects}); err == nil && proof.Verdict == vault.OK {
		t.Error("a manifest of what is not there is proved")
	}
	if _, err := w.Restorer().Begin(t.Context(), w.Run(), restore.Request{Backup: nothing, Target: vaulttest.TargetID, At: w.Clock()}); err == nil {
		t.Error("it is restored")
	}

	w.Advance(time.Hour)
	b := planned(t, w)
	h.put(t, b.Manifest(), &vault.Manifest{Backup: b.ID, Table: b.Table, Kind: vault.Full, State: vault.Void, Sealed: w.Clock(), Reason: "forged"})
	if m := ends(t, w, b); m == nil || m.State != vault.Void {
		t.Errorf("a backup that was given up by a forgery: %+v", m)
	}
	for _, name := range []string{b.Shard("000000", "x"), b.Log().Slot("000000", 0), b.Mark(), b.CopyNote("x"), (vault.Restore{ID: exampleID}).Proof()} {
		h.refused(t, name)
	}
}

// TestVerifysKey: a check whose sums are not the backup's proves nothing. One with the
// right sums does, and a note about a copy that does not exist lets prune have the
// backup; a comparison finds both out.
func TestVerifysKey(t *testing.T) {
	t.Run("a check", func(t *testing.T) {
		for _, sums := range []bool{false, true} {
			w := filled(t, 50)
			m := w.Backup(vault.Settings{})
			h := stolen(t, w.Store, "verify")
			plan := w.Begin(m)
			r := vault.Restore{ID: plan.Restore}
			for range 20 { // until all is loaded
				if _, err := w.Restorer().Tick(t.Context(), w.Run(), plan.Restore); err != nil {
					t.Fatal(err)
				}
				work := w.Drain()
				if len(work) == 0 || work[0].Verb == "verify" {
					break
				}
				for _, one := range work {
					if err := w.Do(one); err != nil {
						t.Fatal(err)
					}
				}
			}
			w.Tables.Put(vaulttest.TargetID.Table, tabletest.Row{Key: w.Tables.Rows(vaulttest.TargetID.Table)[0].Key, Cells: []plainbuffer.Cell{tabletest.Cell("n", w.Clock().UnixMilli(), 666)}})
			for _, s := range plan.Segments {
				c := &vault.SegmentCheck{Segment: s.ID, Settled: true}
				if sums { // of one segment, they stand in the manifest
					c.Check = vault.Check{Rows: m.Totals.Rows, Target: m.Totals.Rows, Digest: m.Totals.Digest, TargetDigest: m.Totals.Digest}
				}
				h.put(t, r.Check(s.ID), c)
			}
			w.Drain()
			p, err := w.Restorer().Tick(t.Context(), w.Run(), plan.Restore)
			proved := err == nil && p.Proof != nil && p.Proof.Verdict == vault.OK
			if proved != sums {
				t.Errorf("with the sums of the backup: %t; proved: %t, %v", sums, proved, err)
			}
			proof, err := w.Verifier().Verify(t.Context(), verify.Request{Backup: vaulttest.BackupOf(m), Against: &vaulttest.TargetID, Depth: verify.DepthRows})
			if err != nil || proof.Verdict != vault.Differs {
				t.Errorf("a comparison says %+v, %v", proof, err)
			}
		}
	})
	t.Run("a note about a copy", func(t *testing.T) {
		w := filled(t, 50)
		p, err := policy.Decode("f", []byte(vaulttest.Hourly+"\ndestinations: "+vaulttest.ReplicaAddress))
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			w.Settle(vaulttest.Hourly)
			w.Advance(time.Hour)
		}
		b := vaulttest.BackupOf(w.Manifests("orders")[0])
		_, named, err := w.Repo.Manifest(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		pruned := func() prune.Action {
			report, err := (&prune.Pruner{Repo: w.Repo, Policy: p, Region: "local", Grace: prune.DefaultGrace, Now: w.Clock, Log: w.Log()}).Prune(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			return report.Tables[0].Backups[0].Action
		}
		if a := pruned(); a != prune.Keep {
			t.Fatalf("without a copy: %s", a)
		}
		stolen(t, w.Store, "verify").put(t, b.CopyNote(place.Key(vaulttest.ReplicaAddress)), &vault.CopyNote{Backup: b.ID, Table: b.Table, Replica: vaulttest.ReplicaAddress, At: w.Clock(), Manifest: named.SHA256})
		if a := pruned(); a != prune.Mark {
			t.Errorf("it is noticed now, so docs/operations.md says too much: %s", a)
		}
		if proof, err := w.Verifier().Compare(t.Context(), b, vaulttest.ReplicaAddress, &mem.Store{}); err == nil && proof.Verdict == vault.OK {
			t.Error("a comparison does not notice it")
		}
	})
	h := stolen(t, &mem.Store{}, "verify")
	b := vault.Backup{Table: vaulttest.SourceID, ID: exampleID}
	for _, name := range []string{b.Manifest(), b.Plan(), b.Shard("000000", "x"), b.Log().Slot("000000", 0), b.Mark(), (vault.Restore{ID: exampleID}).Proof(), (vault.Restore{ID: exampleID}).Plan(), vault.AnswerName("requests/x.json")} {
		h.refused(t, name)
	}
}

// TestImportsKey: a proof that is not of its restore's plan counts for nothing. One that
// is makes the restore done; a comparison finds it out.
func TestImportsKey(t *testing.T) {
	w := filled(t, 50)
	m := w.Backup(vault.Settings{})
	plan := w.Begin(m)
	h := stolen(t, w.Store, "import")
	check := vault.Check{Rows: m.Totals.Rows, Target: m.Totals.Rows, Digest: m.Totals.Digest, TargetDigest: m.Totals.Digest}
	good := &vault.Proof{Backup: m.Backup, Table: m.Table, Restore: plan.Restore, Target: plan.Target.String(), Depth: verify.DepthRows, At: w.Clock(), Verdict: vault.OK, Manifest: plan.Manifest, Check: check}
	h.put(t, vault.Restore{ID: plan.Restore}.Proof(), good)
	if p, err := w.Restorer().Tick(t.Context(), w.Run(), plan.Restore); err != nil || p.State != restore.StateDone {
		t.Errorf("it is noticed now, so docs/operations.md says too much: %+v, %v", p, err)
	}
	proof, err := w.Verifier().Verify(t.Context(), verify.Request{Backup: vaulttest.BackupOf(m), Against: &vaulttest.TargetID, Depth: verify.DepthRows})
	if err != nil || proof.Verdict != vault.Differs {
		t.Errorf("a comparison says %+v, %v", proof, err)
	}
	// A sloppy one, of another restore.
	other := vault.Restore{ID: vault.NewRestoreID(w.Clock(), "other")}
	bad := *plan
	bad.Restore = other.ID
	h.put(t, other.Plan(), &bad)
	h.put(t, other.Proof(), good)
	if p, err := w.Restorer().Tick(t.Context(), w.Run(), other.ID); !errors.Is(err, vault.ErrCorrupt) {
		t.Errorf("%+v, %v", p, err)
	}
	b := vaulttest.BackupOf(m)
	for _, name := range []string{b.Manifest(), b.Plan(), b.Shard("000000", "x"), b.Log().Slot("000000", 0), b.Mark(), b.CopyNote("x"), vault.NewDrillID(b.Table, w.Clock()).Ended(), "requests/x.json"} {
		h.refused(t, name)
	}
}

// TestPrunesKey: a mark takes a recovery point away. It holds up neither a restore that
// has begun, nor another backup.
func TestPrunesKey(t *testing.T) {
	w := filled(t, 50)
	m := w.Backup(vault.Settings{})
	b := vaulttest.BackupOf(m)
	plan := w.Begin(m)
	h := stolen(t, w.Store, "prune")
	h.put(t, b.Mark(), &vault.Mark{Backup: b.ID, Table: b.Table, At: w.Clock(), Reason: "forged"})
	if err := w.Repo.CheckNotMarked(t.Context(), b); !errors.Is(err, repository.ErrMarked) {
		t.Errorf("%v", err)
	}
	w.Proved(w.Finish(plan.Restore), vault.OK)
	w.Advance(time.Hour)
	if next := w.Backup(vault.Settings{}); next.Backup == m.Backup || w.Repo.CheckNotMarked(t.Context(), vaulttest.BackupOf(next)) != nil {
		t.Error("the next backup is marked too")
	}
	for _, name := range []string{b.Manifest(), b.Plan(), b.Shard("000000", "x"), b.CopyNote("x"), vault.HeaderName, (vault.Restore{ID: exampleID}).Restored()} {
		h.refused(t, name)
	}
}

// TestDrillsKey: what is added to plan's role for drills can neither prove one (package
// drill holds that) nor restore, and can end any restore.
func TestDrillsKey(t *testing.T) {
	w := filled(t, 50)
	plan := w.Begin(w.Backup(vault.Settings{}))
	h := stolen(t, w.Store, "drill-plan")
	h.put(t, vault.Restore{ID: plan.Restore}.Closed(), &vault.Closed{Restore: plan.Restore, At: w.Clock(), Reason: "forged"})
	p := w.Finish(plan.Restore)
	if p.State != backup.StateFailed || !strings.Contains(fmt.Sprint(p.LastError), "forged") {
		t.Errorf("%+v", p)
	}
	for _, name := range []string{(vault.Restore{ID: exampleID}).Proof(), (vault.Restore{ID: exampleID}).Plan(), vault.AnswerName(vault.NewDrillID(vaulttest.SourceID, w.Clock()).Request()), "requests/x.json", "restores/created/x"} {
		h.refused(t, name)
	}
}
