package backup_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/vault"
)

// TestLatest: the newest backup that counts is found from the newest back. Those
// before it are not read, and may be damaged.
func TestLatest(t *testing.T) {
	w := newWorld(t)
	w.fill(definition(), 20)
	var made []*vault.Manifest
	for range 4 {
		w.advance(time.Hour)
		made = append(made, w.backup(small))
	}
	table := made[0].Table
	damaged := of(made[0])
	if err := w.store.Delete(t.Context(), damaged.Manifest()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Create(t.Context(), damaged.Manifest(), strings.NewReader("{")); err != nil {
		t.Fatal(err)
	}
	w.markIn(w.store, of(made[3]))
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
			w.ledger = &ledger{store: w.store}
			repo := w.ledger.open(t, "import")
			got, err := repo.Latest(t.Context(), table, c.at)
			if err != nil || got.Backup != c.want.Backup {
				t.Fatalf("%+v, %v, want %s", got, err, c.want.Backup)
			}
			read := 0
			for _, a := range w.ledger.take("import")[0].asked {
				if a.what == "open" && strings.HasPrefix(a.name, vault.ManifestPrefix) {
					read++
				}
			}
			if read != c.read {
				t.Errorf("%d manifests were read, want %d", read, c.read)
			}
		})
	}
	w.ledger = nil
	if _, err := w.repo.Latest(t.Context(), table, made[1].RecoveryPoint().Add(-time.Nanosecond)); !errors.Is(err, vault.ErrCorrupt) {
		t.Errorf("where only a damaged one is left: %v", err)
	}
	if _, err := w.repo.Latest(t.Context(), vault.TableID{Region: table.Region, Instance: table.Instance, Table: "other"}, time.Time{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a table without backups: %v", err)
	}
}
