package repository_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// TestLatest: the newest backup that counts is found from the newest back. Those
// before it are not read, and may be damaged.
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
		{"now, the last being marked", time.Time{}, made[2], 2},
		{"at a recovery point", made[1].RecoveryPoint(), made[1], 3},
		{"before one", made[2].RecoveryPoint().Add(-time.Nanosecond), made[1], 3},
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
