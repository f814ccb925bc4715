package restore_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/replica"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
	"github.com/tablevault/tablevault/shared/verify"
)

// TestMarkedIsNoRecoveryPoint has every verb that takes a backup refuse a marked one, and
// leave nothing behind.
func TestMarkedIsNoRecoveryPoint(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 60)
	older := w.Backup(vaulttest.Small)
	w.Advance(time.Hour)
	m := w.Backup(vaulttest.Small)
	elsewhere := &mem.Store{}
	w.CopyAll(older, elsewhere)
	w.MarkIn(elsewhere, vaulttest.BackupOf(older))
	w.MarkIn(w.Store, vaulttest.BackupOf(m))

	if got, err := w.Repo.Latest(t.Context(), vaulttest.SourceID, time.Time{}); err != nil || got.Backup != older.Backup {
		t.Errorf("the latest is %+v, %v", got, err)
	}
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, repository.ErrMarked) || !fanout.Permanent(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := w.Restorer().Begin(t.Context(), w.Run(), w.Request(m))
	refused("restore", err)
	for prefix := range map[string]bool{"leases/": true, "restores/": true, vault.RestoringPrefix: true} {
		if left := vaulttest.ContentOf(t, w.Store, prefix); len(left) != 0 {
			t.Errorf("a refused restore leaves %v", left)
		}
	}
	_, err = w.Verifier().Verify(t.Context(), verify.Request{Backup: vaulttest.BackupOf(m), Depth: verify.DepthObjects})
	refused("verify", err)
	_, err = w.Verifier().Compare(t.Context(), vaulttest.BackupOf(m), vaulttest.ReplicaAddress, elsewhere)
	refused("compare", err)
	_, err = w.Verifier().Compare(t.Context(), vaulttest.BackupOf(older), vaulttest.ReplicaAddress, elsewhere)
	refused("compare with what is marked there", err)
	_, err = w.Replicator(elsewhere).Copy(t.Context(), w.Run(), vaulttest.CopyWork(m, 0))
	refused("copy", err)
	_, err = w.Replicator(elsewhere).CopyAll(t.Context(), w.Run(), vaulttest.BackupOf(older), replica.Point{}, 0)
	refused("copy to where it is marked", err)
	if _, err := w.Store.Create(t.Context(), "requests/a.json", strings.NewReader(`{"backup":"`+string(m.Backup)+`","to":"prod/orders_copy"}`)); err != nil {
		t.Fatal(err)
	}
	progress, err := w.Requests().Serve(t.Context(), w.Run(), "requests/a.json")
	if err != nil || progress.Answer == nil || progress.Answer.OK || !strings.Contains(progress.Answer.Error, "marked for deletion") {
		t.Errorf("request: %+v, %v", progress.Answer, err)
	}
	if p := w.Restore(older); p.State != restore.StateDone || p.Proof.Verdict != vault.OK {
		t.Errorf("the other backup: %+v", p)
	}
}

// TestRestoreUnderALaterMark: a restore that has passed the look for marks goes on, also
// when its command is given again, and its rows are compared.
func TestRestoreUnderALaterMark(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 60)
	m := w.Backup(vaulttest.Small)
	request := w.Request(m)
	plan, err := w.Restorer().Begin(t.Context(), w.Run(), request)
	if err != nil {
		t.Fatal(err)
	}
	w.MarkIn(w.Store, vaulttest.BackupOf(m))
	if again, err := w.Restorer().Begin(t.Context(), w.Run(), request); err != nil || again.Restore != plan.Restore {
		t.Fatalf("given again: %v", err)
	}
	if _, err := w.Verifier().Verify(t.Context(), verify.Request{Restore: plan.Restore, Depth: verify.DepthObjects}); err != nil {
		t.Errorf("verify while it goes on: %v", err)
	}
	if p := w.Finish(plan.Restore); p.State != restore.StateDone || p.Proof.Verdict != vault.OK {
		t.Errorf("%+v", p)
	}
	if _, err := w.Verifier().Verify(t.Context(), verify.Request{Restore: plan.Restore, Depth: verify.DepthObjects}); !errors.Is(err, repository.ErrMarked) {
		t.Errorf("verify when it has ended: %v", err)
	}
}

// TestMarkBeforeTheTable: a restore that came as far as its own mark, and finds prune's
// when it is gone on with, ends there and holds the backup no more.
func TestMarkBeforeTheTable(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 60)
	m := w.Backup(vaulttest.Small)
	request := w.Request(m)
	plan, err := w.Restorer().Begin(t.Context(), w.Run(), request)
	if err != nil {
		t.Fatal(err)
	}
	// As if it had died before it made the table.
	w.Remove(vault.Restore{ID: plan.Restore}.Created())
	w.Tables.Drop(vaulttest.TargetID.Table)
	w.MarkIn(w.Store, vaulttest.BackupOf(m))
	if _, err := w.Restorer().Begin(t.Context(), w.Run(), request); !errors.Is(err, repository.ErrMarked) {
		t.Fatal(err)
	}
	for id, err := range w.Repo.Restoring(t.Context()) {
		t.Errorf("restore %s goes on, %v", id, err)
	}
	if p, err := w.Restorer().Tick(t.Context(), w.Run(), plan.Restore); err != nil || p.State != backup.StateFailed || !strings.Contains(p.LastError, "marked") {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestTickLeavesMarkedAlone: the planner neither goes on with a backup of which only the
// data is left, nor begins it again under its name.
func TestTickLeavesMarkedAlone(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 60)
	w.Settle(vaulttest.Hourly)
	m := w.Manifests("orders")[0]
	w.MarkIn(w.Store, vaulttest.BackupOf(m))
	// First the manifest is gone, then what says that it was begun, too.
	for _, name := range []string{vaulttest.BackupOf(m).Manifest(), vault.Opened(m.Table, m.Backup)} {
		w.Remove(name)
		s := w.Tick(vaulttest.Hourly)
		if len(s.Backups) != 0 || len(w.Drain()) != 0 {
			t.Errorf("without %s: %+v", name, s.Backups)
		}
		if _, err := w.Planner().Tick(t.Context(), w.Run(), vaulttest.BackupOf(m)); !errors.Is(err, repository.ErrMarked) {
			t.Errorf("a tick of the backup: %v", err)
		}
		for b, err := range w.Repo.Open(t.Context(), nil) {
			t.Errorf("%s counts as open, %v", b.ID, err)
		}
	}
	_, err := w.Planner().Plan(t.Context(), backup.PlanRequest{Table: vaulttest.SourceID, Kind: vault.Full, At: m.Backup.Time(), Trigger: "policy/default", New: true})
	if !errors.Is(err, repository.ErrMarked) {
		t.Errorf("planned again: %v", err)
	}
	if w.Exists(vaulttest.BackupOf(m).Manifest()) || w.Exists(vault.Opened(m.Table, m.Backup)) {
		t.Error("it has come back")
	}
	w.Advance(time.Hour)
	w.Settle(vaulttest.Hourly)
	if n := len(w.Manifests("orders")); n != 1 {
		t.Errorf("the next hour has %d backups", n)
	}
}
