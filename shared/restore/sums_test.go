package restore_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object/objectmeter"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// other is a digest that is not d.
func other(d table.Digest) table.Digest {
	d.Add(d)
	return d
}

// TestRestoreIsTheManifests has the checks of a restore tell of other rows than the
// manifest, though none of them tells of a difference: the restore does not say ok.
func TestRestoreIsTheManifests(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*vault.SegmentCheck)
		said   string // empty if the restore is proved
	}{
		{"as they are", func(*vault.SegmentCheck) {}, ""},
		{"a row less on both sides", func(c *vault.SegmentCheck) { c.Check.Rows--; c.Check.Target-- }, "the manifest says 205 with"},
		{"a row more on both sides", func(c *vault.SegmentCheck) { c.Check.Rows++; c.Check.Target++ }, "the manifest says 205 with"},
		{"another digest on both sides", func(c *vault.SegmentCheck) {
			c.Check.Digest, c.Check.TargetDigest = other(c.Check.Digest), other(c.Check.TargetDigest)
		}, "the manifest says 205 with"},
		{"nothing", func(c *vault.SegmentCheck) { c.Check = vault.Check{} }, "the manifest says 205 with"},
		{"a row less in the table", func(c *vault.SegmentCheck) { c.Check.Target-- }, "the table has 204 rows"},
		{"another digest of the table", func(c *vault.SegmentCheck) { c.Check.TargetDigest = other(c.Check.TargetDigest) }, "no row differs, and the table's digest is"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := vaulttest.NewWorld(t)
			w.Fill(vaulttest.Definition(), 200)
			w.Tables.PageRows = 20
			plan := w.Begin(w.Backup(vaulttest.Small))
			w.Look(plan.Restore)
			w.Work()
			w.Look(plan.Restore)
			w.Work()
			rewrite(w, vault.Restore{ID: plan.Restore}.Check("000000"), c.change)
			p, err := w.Restorer().Tick(t.Context(), w.Run(), plan.Restore)
			if err != nil {
				if c.said == "" || !strings.Contains(err.Error(), c.said) {
					t.Fatal(err)
				}
				return
			}
			if c.said == "" {
				w.Proved(p, vault.OK)
				return
			}
			w.Proved(p, vault.Corrupt)
			if p.State != restore.StateFailed || len(p.Proof.Check.Findings) != 1 || !strings.Contains(p.Proof.Check.Findings[0].Reason, c.said) {
				t.Errorf("%+v; %+v", p, p.Proof.Check.Findings)
			}
			if closed, err := w.Repo.Closed(t.Context(), plan.Restore); err != nil || closed.Reason == "" {
				t.Errorf("the table is handed over: %+v, %v", closed, err)
			}
		})
	}
}

// TestManifestIsPinned puts another manifest in the place of the one that a restore was
// planned from: it is as good as a damaged one, at every step.
func TestManifestIsPinned(t *testing.T) {
	for steps := range 3 {
		t.Run(fmt.Sprintf("after %d phases", steps), func(t *testing.T) {
			w := vaulttest.NewWorld(t)
			w.Quiet = true
			w.Fill(vaulttest.Definition(), 200)
			m := w.Backup(vaulttest.Small)
			plan := w.Begin(m)
			for range steps {
				w.Look(plan.Restore)
				w.Work()
			}
			rewrite(w, vaulttest.BackupOf(m).Manifest(), func(m *vault.Manifest) { m.Sealed = m.Sealed.Add(time.Second) })
			p := w.Finish(plan.Restore)
			if p.State != restore.StateFailed || !strings.Contains(p.LastError, "sha256") && (p.Proof == nil || !strings.Contains(p.Proof.Check.Findings[0].Reason, "sha256")) {
				t.Errorf("%+v", p)
			}
		})
	}
}

// TestLooksBySeconds counts what writers ask of the store before they write: two looks
// for each second and each entry, however many batches there are.
func TestLooksBySeconds(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 3000)
	w.Tables.PageRows = 20
	plan := w.Begin(w.Backup(vault.Settings{}))
	began := w.Clock()
	w.Tables.Fault = func(c tabletest.Call) error {
		if c.Name == "Write" && !c.After {
			w.Advance(100 * time.Millisecond)
		}
		return nil
	}
	meter, described := objectmeter.New(w.Store), int64(w.Tables.Calls("Describe"))
	l := w.Loader()
	var err error
	if l.Repo, err = repository.Open(t.Context(), meter); err != nil {
		t.Fatal(err)
	}
	reply, err := l.Load(t.Context(), w.Run(), fanout.Work{Verb: fanout.VerbImport, Restore: plan.Restore, Segment: plan.Segments[0].ID})
	if err != nil || !reply.Done {
		t.Fatalf("%+v, %v", reply, err)
	}
	batches, seconds := int64(w.Tables.Calls("Write")), int64(w.Clock().Sub(began)/time.Second)
	if looks := meter.Usage().Stat; batches < 100 || looks > 2*(seconds+2)+4 || looks < seconds {
		t.Errorf("%d looks for %d batches in %d s", looks, batches, seconds)
	}
	if n := int64(w.Tables.Calls("Describe")) - described; n < seconds/10 || n > seconds/10+2 {
		t.Errorf("the table was compared %d times in %d s", n, seconds)
	}
}

// TestPlanOfAnother has the plan of a restore name what is not the backup's that it is
// about: the manifest of another backup, of one that was given up, and a segment that the
// backup does not have. Nothing of it is written.
func TestPlanOfAnother(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(w *vaulttest.World, m *vault.Manifest, p *vault.RestorePlan) vault.SegmentID
		said   string
	}{
		{"another manifest", func(w *vaulttest.World, m *vault.Manifest, p *vault.RestorePlan) vault.SegmentID {
			w.Advance(time.Hour)
			other, o, err := w.Repo.Manifest(t.Context(), vaulttest.BackupOf(w.Backup(vaulttest.Small)))
			if err != nil || other.Backup == m.Backup {
				t.Fatal(err)
			}
			p.Manifest = o
			return p.Segments[0].ID
		}, "it is the manifest of"},
		{"a manifest that gives up", func(w *vaulttest.World, m *vault.Manifest, p *vault.RestorePlan) vault.SegmentID {
			w.Remove(p.Manifest.Name)
			void := &vault.Manifest{Backup: m.Backup, Table: m.Table, Kind: m.Kind, State: vault.Void, Reason: "test", Sealed: m.Sealed}
			o, err := w.Repo.Create(t.Context(), p.Manifest.Name, void)
			if err != nil {
				t.Fatal(err)
			}
			p.Manifest = o
			return p.Segments[0].ID
		}, "it is the manifest of void backup"},
		{"a segment of a group that there is not", func(w *vaulttest.World, m *vault.Manifest, p *vault.RestorePlan) vault.SegmentID {
			p.Segments = append(p.Segments, vault.RestoreSegment{ID: "002560", Group: 10, Rows: 1})
			return "002560"
		}, "has no segment 002560"},
		{"a segment of a group that there is", func(w *vaulttest.World, m *vault.Manifest, p *vault.RestorePlan) vault.SegmentID {
			p.Segments = append(p.Segments, vault.RestoreSegment{ID: "000099", Group: 0, Rows: 1})
			return "000099"
		}, "has no segment 000099"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := vaulttest.NewWorld(t)
			w.Fill(vaulttest.Definition(), 200)
			w.Tables.PageRows = 20
			m := w.Backup(vaulttest.Small)
			plan := w.Begin(m)
			var segment vault.SegmentID
			var refused error
			name := vault.Restore{ID: plan.Restore}.Plan()
			changed := *plan
			segment = c.change(w, m, &changed)
			w.Remove(name)
			if _, refused = w.Repo.Create(t.Context(), name, &changed); refused == nil {
				w.Repo = watch(w, watched{}) // it keeps no plan from before
				for _, verb := range []fanout.Verb{fanout.VerbImport, fanout.VerbVerify} {
					err := w.Do(fanout.Work{Verb: verb, Restore: plan.Restore, Segment: segment})
					if err == nil || !strings.Contains(err.Error(), c.said) {
						t.Errorf("%s: %v", verb, err)
					}
				}
			} else {
				t.Logf("not even written: %v", refused)
			}
			if n := w.Tables.Calls("Write"); n != 0 {
				t.Errorf("%d batches were written", n)
			}
		})
	}
}

func TestVerifyOfARestoreSeesWhatWasDoneToIt(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 100)
	m := w.Backup(vaulttest.Small)
	plan := w.Begin(m)
	stranger := tabletest.Row{Key: table.Key{table.String("stranger"), table.Binary(nil), table.Integer(1)}}
	w.Tables.Put(vaulttest.TargetID.Table, stranger)
	p := w.Finish(plan.Restore)
	if p.State != backup.StateFailed || !strings.Contains(p.LastError, "1 extra") {
		t.Fatalf("%+v", p)
	}
	w.Proved(p, vault.Differs)
	got, err := w.Tables.Describe(t.Context(), vaulttest.TargetID.Table)
	if err != nil {
		t.Fatal(err)
	}
	if got.Options.Deviation != table.WidestDeviation {
		t.Error("a table that is not what the backup holds was handed over")
	}
}
