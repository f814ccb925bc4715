package backup_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// TestSealedWithoutAnAnswer can't ask for the table of a backup that was read: it waits,
// for a day.
func TestSealedWithoutAnAnswer(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Keyed(vaulttest.IntKey, vaulttest.Ints(100))
	p := w.Planner()
	b := w.Plan(p, vault.Settings{Lanes: 1})
	vaulttest.TickBackup(w, p, b)
	w.Work()
	away := errors.New("away")
	w.Tables.Fault = func(c tabletest.Call) error {
		if c.Name == "Describe" {
			return away
		}
		return nil
	}
	if _, err := p.Tick(t.Context(), w.Run(), b); !errors.Is(err, away) {
		t.Errorf("%v", err)
	}
	w.Advance(24 * time.Hour)
	if progress := vaulttest.TickBackup(w, p, b); progress.State != backup.StateSealed {
		t.Errorf("%+v", progress)
	}
}

// TestTableMadeAnewWhileRead drops the table of a backup while it is read. Where another
// one is made of its name, the backup is not sealed, and says why; one that is gone was
// there while it was read.
func TestTableMadeAnewWhileRead(t *testing.T) {
	for _, anew := range []bool{false, true} {
		w := vaulttest.NewWorld(t)
		w.Keyed(vaulttest.IntKey, vaulttest.Ints(100))
		p := w.Planner()
		b := w.Plan(p, vault.Settings{Lanes: 1}, vaulttest.Cuts(100, 4)...)
		vaulttest.TickBackup(w, p, b)
		reads := 0
		w.Tables.Fault = func(c tabletest.Call) error {
			if c.Name != "Scan" || c.After {
				return nil
			}
			if reads++; reads == 3 && anew {
				w.Tables.Drop(vaulttest.SourceID.Table)
				w.Keyed(vaulttest.IntKey, vaulttest.Ints(50))
			}
			return nil
		}
		w.Work()
		if reads < 4 {
			t.Fatalf("%d pages", reads)
		}
		if !anew {
			w.Tables.Drop(vaulttest.SourceID.Table)
		}
		progress := vaulttest.TickBackup(w, p, b)
		m, _, err := w.Repo.Manifest(t.Context(), b)
		if !anew {
			if err != nil || m.State != vault.Sealed || m.Totals.Rows != 100 {
				t.Errorf("of a table that is gone: %+v, %v", m, err)
			}
			continue
		}
		if progress.State != backup.StateFailed || !strings.Contains(progress.LastError, "prod/orders was dropped while it was read") || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%+v; %+v, %v", progress, m, err)
		}
	}
}
