package repository_test

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// TestLatest: the newest backup that counts is found from the one that was written last
// back. Those before it are read no further than clocks may be apart, and may be damaged.
func TestLatest(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 20)
	var made []*vault.Manifest
	for range 4 {
		w.Advance(time.Hour)
		made = append(made, w.Backup(vaulttest.Small))
	}
	table := made[0].Table
	damaged := vaulttest.BackupOf(made[0])
	if err := w.Store.Delete(t.Context(), damaged.Manifest()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Store.Create(t.Context(), damaged.Manifest(), strings.NewReader("{")); err != nil {
		t.Fatal(err)
	}
	w.MarkIn(w.Store, vaulttest.BackupOf(made[3]))
	for _, c := range []struct {
		name string
		at   time.Time
		want *vault.Manifest
		read int
	}{
		{"now, the last being marked", time.Time{}, made[2], 3},
		{"at a recovery point", made[1].RecoveryPoint(), made[1], 4},
		{"before one", made[2].RecoveryPoint().Add(-time.Nanosecond), made[1], 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.Ledger = &vaulttest.Ledger{Store: w.Store}
			repo := w.Ledger.Open(t, "import")
			got, err := repo.Latest(t.Context(), table, c.at)
			if err != nil || got.Backup != c.want.Backup {
				t.Fatalf("%+v, %v, want %s", got, err, c.want.Backup)
			}
			read := 0
			for _, a := range w.Ledger.Take("import")[0].Asked {
				if a.What == "open" && strings.HasPrefix(a.Name, vault.ManifestPrefix) {
					read++
				}
			}
			if read != c.read {
				t.Errorf("%d manifests were read, want %d", read, c.read)
			}
		})
	}
	w.Ledger = nil
	if _, err := w.Repo.Latest(t.Context(), table, made[1].RecoveryPoint().Add(-time.Nanosecond)); !errors.Is(err, vault.ErrCorrupt) {
		t.Errorf("where only a damaged one is left: %v", err)
	}
	if _, err := w.Repo.Latest(t.Context(), vault.TableID{Region: table.Region, Instance: table.Instance, Table: "other"}, time.Time{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a table without backups: %v", err)
	}
}

// TestFindBackup finds a backup that runs, and one that has lost the mark of its
// beginning.
func TestFindBackup(t *testing.T) {
	w := vaulttest.NewWorld(t)
	open := vault.Backup{Table: vaulttest.SourceID, ID: "20261120T021400Z-0a1b2c3d"}
	w.Store.(*mem.Store).Replace(vault.Opened(open.Table, open.ID), nil)
	sealed := vault.Backup{Table: vaulttest.SourceID, ID: "20261120T031400Z-0a1b2c3d"}
	if _, err := w.Repo.Create(t.Context(), sealed.Manifest(), vaulttest.SealedAt(sealed, vaulttest.Day, vaulttest.Day)); err != nil {
		t.Fatal(err)
	}
	for _, b := range []vault.Backup{open, sealed} {
		if found, err := w.Repo.FindBackup(t.Context(), b.ID); err != nil || found != b {
			t.Errorf("%s is found as %+v, %v", b.ID, found, err)
		}
	}
	if found, err := w.Repo.FindBackup(t.Context(), "20261120T041400Z-0a1b2c3d"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("one that there is not is found as %+v, %v", found, err)
	}
}

// TestLatestGoesByRecoveryPoint has a backup whose name is of 2099: it is the newest for
// as long as nothing newer was read from the table, and no longer.
func TestLatestGoesByRecoveryPoint(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 20)
	p := w.Planner()
	plan, err := p.Plan(t.Context(), backup.PlanRequest{
		Table: vaulttest.SourceID, Kind: vault.Full, At: time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC), Trigger: "forged", New: true, Settings: vaulttest.Small,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Advance(time.Hour)
	forged := w.Sealed(p, vault.Backup{Table: vaulttest.SourceID, ID: plan.Backup})
	latest := func(at time.Time) vault.BackupID {
		t.Helper()
		m, err := w.Repo.Latest(t.Context(), vaulttest.SourceID, at)
		if err != nil {
			t.Fatal(err)
		}
		return m.Backup
	}
	if got := latest(time.Time{}); got != forged.Backup {
		t.Errorf("%s is the newest, want the only one, %s", got, forged.Backup)
	}
	w.Advance(10 * time.Minute)
	m := w.Backup(vaulttest.Small)
	if got := latest(time.Time{}); got != m.Backup {
		t.Errorf("%s is the newest, want %s", got, m.Backup)
	}
	if got := latest(m.RecoveryPoint().Add(-time.Second)); got != forged.Backup {
		t.Errorf("%s was the newest a second before, want %s", got, forged.Backup)
	}
}

// TestLatestIsDamaged: what may be the newest and is damaged is said, with the next older
// one; a restore of the newest never is one of an older without a word.
func TestLatestIsDamaged(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 20)
	store := w.Store.(*mem.Store)
	var made []*vault.Manifest
	for range 3 {
		w.Advance(time.Hour)
		made = append(made, w.Backup(vaulttest.Small))
	}
	newest, next := vaulttest.BackupOf(made[2]), vaulttest.BackupOf(made[1])
	content, err := object.ReadAll(t.Context(), store, newest.Manifest(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	store.Replace(newest.Manifest(), content[:len(content)/2])
	_, err = w.Repo.Latest(t.Context(), newest.Table, time.Time{})
	if !errors.Is(err, vault.ErrCorrupt) || !strings.Contains(err.Error(), newest.Manifest()) || !strings.Contains(err.Error(), "--backup "+string(next.ID)) {
		t.Errorf("%v", err)
	}
	// Those of before can be had by their instants, and the catalog has all three.
	if m, err := w.Repo.Latest(t.Context(), newest.Table, made[1].RecoveryPoint()); err != nil || m.Backup != next.ID {
		t.Errorf("%+v, %v", m, err)
	}
	var rows []string
	for m, err := range w.Repo.Manifests(t.Context(), &newest.Table) {
		var d *repository.Damaged
		if errors.As(err, &d) {
			rows = append(rows, "damaged "+string(d.Backup.ID))
		} else if err != nil {
			t.Fatal(err)
		} else {
			rows = append(rows, string(m.Backup))
		}
	}
	if want := []string{string(made[0].Backup), string(next.ID), "damaged " + string(newest.ID)}; !slices.Equal(rows, want) {
		t.Errorf("%v, want %v", rows, want)
	}
	// One that is being deleted anyway keeps nothing from being restored.
	w.MarkIn(w.Store, newest)
	if m, err := w.Repo.Latest(t.Context(), newest.Table, time.Time{}); err != nil || m.Backup != next.ID {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestLatestIsNotTheLastSealed has a backup be sealed after another one, of which all
// rows were read before: what counts is when they were.
func TestLatestIsNotTheLastSealed(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 20)
	p := w.Planner()
	slow := w.Plan(p, vaulttest.Small)
	vaulttest.TickBackup(w, p, slow)
	w.Work()
	w.Advance(10 * time.Minute)
	m := w.Backup(vaulttest.Small)
	w.Advance(10 * time.Minute)
	if sealed := w.Sealed(p, slow); !sealed.RecoveryPoint().Before(m.RecoveryPoint()) {
		t.Fatalf("%s and %s", sealed.RecoveryPoint(), m.RecoveryPoint())
	}
	if got, err := w.Repo.Latest(t.Context(), vaulttest.SourceID, time.Time{}); err != nil || got.Backup != m.Backup {
		t.Errorf("%+v, %v, want %s", got, err, m.Backup)
	}
}

// TestLoadingComesFurther reads a log of loading in which an entry comes no further than
// the one before it, as long as somebody likes.
func TestLoadingComesFurther(t *testing.T) {
	w := vaulttest.NewWorld(t)
	r, s := vault.Restore{ID: "20261120T021400Z-0a1b2c3d"}, vault.SegmentID("000000")
	for i, at := range []struct {
		part  int
		block int64
	}{{0, 1}, {0, 2}, {1, 1}, {1, 1}, {1, 1}} {
		if _, err := w.Repo.Create(t.Context(), r.Log().Slot(s, i), &vault.Loaded{Segment: s, Slot: i, Part: at.part, Block: at.block}); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for _, err := range w.Repo.Loading(t.Context(), r, s, 0) {
		if err != nil && (n != 3 || !errors.Is(err, vault.ErrCorrupt)) {
			t.Errorf("entry %d: %v", n, err)
		}
		if err == nil {
			n++
		}
	}
	if n != 3 {
		t.Errorf("%d entries were taken, want 3", n)
	}
}
