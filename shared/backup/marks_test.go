package backup_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/copies"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/vault"
)

// markIn marks a backup in a store, as prune does.
func (w *world) markIn(store object.Store, b vault.Backup) {
	w.t.Helper()
	data, err := vault.Encode(&vault.Mark{Backup: b.ID, Table: b.Table, At: w.clock(), Command: vault.Program, Reason: "test"})
	if err == nil {
		_, err = store.Create(w.t.Context(), b.Mark(), strings.NewReader(string(data)))
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) remove(names ...string) {
	w.t.Helper()
	for _, name := range names {
		if err := w.store.Delete(w.t.Context(), name); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) exists(name string) bool {
	w.t.Helper()
	_, err := object.Stat(w.t.Context(), w.store, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.t.Fatal(err)
	}
	return err == nil
}

// TestMarkedIsNoRecoveryPoint has every verb that takes a backup refuse a marked
// one, and leave nothing behind.
func TestMarkedIsNoRecoveryPoint(t *testing.T) {
	w := newWorld(t)
	w.fill(definition(), 60)
	older := w.backup(small)
	w.advance(time.Hour)
	m := w.backup(small)
	elsewhere := &mem.Store{}
	w.copyAll(older, elsewhere)
	w.markIn(elsewhere, of(older))
	w.markIn(w.store, of(m))

	if got, err := w.repo.Latest(t.Context(), sourceID, time.Time{}); err != nil || got.Backup != older.Backup {
		t.Errorf("the latest is %+v, %v", got, err)
	}
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, repository.ErrMarked) || !fanout.Permanent(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := w.importer().Begin(t.Context(), w.run(), w.request(m))
	refused("restore", err)
	for prefix := range map[string]bool{"leases/": true, "restores/": true, vault.RestoringPrefix: true} {
		if left := contentOf(t, w.store, prefix); len(left) != 0 {
			t.Errorf("a refused restore leaves %v", left)
		}
	}
	_, err = w.verifier().Verify(t.Context(), w.run(), restore.VerifyRequest{Backup: of(m), Depth: restore.DepthObjects})
	refused("verify", err)
	_, err = w.verifier().Compare(t.Context(), w.run(), of(m), twinAddress, elsewhere)
	refused("compare", err)
	_, err = w.verifier().Compare(t.Context(), w.run(), of(older), twinAddress, elsewhere)
	refused("compare with what is marked there", err)
	_, err = w.copier(elsewhere).Copy(t.Context(), w.run(), copyWork(m, 0))
	refused("copy", err)
	_, err = w.copier(elsewhere).CopyAll(t.Context(), w.run(), of(older), copies.Point{}, 0)
	refused("copy to where it is marked", err)
	if _, err := w.store.Create(t.Context(), "requests/a.json", strings.NewReader(`{"backup":"`+string(m.Backup)+`","to":"prod/orders_copy"}`)); err != nil {
		t.Fatal(err)
	}
	progress, err := w.requests().Serve(t.Context(), w.run(), "requests/a.json")
	if err != nil || progress.Answer == nil || progress.Answer.OK || !strings.Contains(progress.Answer.Error, "marked for deletion") {
		t.Errorf("request: %+v, %v", progress.Answer, err)
	}
	if p := w.restore(older); p.State != restore.StateDone || p.Proof.Verdict != vault.OK {
		t.Errorf("the other backup: %+v", p)
	}
}

// TestRestoreUnderALaterMark: a restore that has passed the look for marks goes
// on, also when its command is given again, and its rows are compared.
func TestRestoreUnderALaterMark(t *testing.T) {
	w := newWorld(t)
	w.fill(definition(), 60)
	m := w.backup(small)
	request := w.request(m)
	plan, err := w.importer().Begin(t.Context(), w.run(), request)
	if err != nil {
		t.Fatal(err)
	}
	w.markIn(w.store, of(m))
	if again, err := w.importer().Begin(t.Context(), w.run(), request); err != nil || again.Restore != plan.Restore {
		t.Fatalf("given again: %v", err)
	}
	if _, err := w.verifier().Verify(t.Context(), w.run(), restore.VerifyRequest{Restore: plan.Restore, Depth: restore.DepthObjects}); err != nil {
		t.Errorf("verify while it goes on: %v", err)
	}
	if p := w.finish(plan.Restore); p.State != restore.StateDone || p.Proof.Verdict != vault.OK {
		t.Errorf("%+v", p)
	}
	if _, err := w.verifier().Verify(t.Context(), w.run(), restore.VerifyRequest{Restore: plan.Restore, Depth: restore.DepthObjects}); !errors.Is(err, repository.ErrMarked) {
		t.Errorf("verify when it has ended: %v", err)
	}
}

// TestMarkBeforeTheTable: a restore that came as far as its own mark, and finds
// prune's when it is gone on with, ends there and holds the backup no more.
func TestMarkBeforeTheTable(t *testing.T) {
	w := newWorld(t)
	w.fill(definition(), 60)
	m := w.backup(small)
	request := w.request(m)
	plan, err := w.importer().Begin(t.Context(), w.run(), request)
	if err != nil {
		t.Fatal(err)
	}
	// As if it had died before it made the table.
	w.remove(vault.Restore{ID: plan.Restore}.Created())
	w.tables.Drop(targetID.Table)
	w.markIn(w.store, of(m))
	if _, err := w.importer().Begin(t.Context(), w.run(), request); !errors.Is(err, repository.ErrMarked) {
		t.Fatal(err)
	}
	for id, err := range w.repo.Restoring(t.Context()) {
		t.Errorf("restore %s goes on, %v", id, err)
	}
	if p, err := w.importer().Tick(t.Context(), w.run(), plan.Restore); err != nil || p.State != backup.StateFailed || !strings.Contains(p.LastError, "marked") {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestTickLeavesMarkedAlone: the planner neither goes on with a backup of which
// only the data is left, nor begins it again under its name.
func TestTickLeavesMarkedAlone(t *testing.T) {
	w := newWorld(t)
	w.fill(definition(), 60)
	w.settle(hourly)
	m := w.manifests("orders")[0]
	w.markIn(w.store, of(m))
	// First the manifest is gone, then what says that it was begun, too.
	for _, name := range []string{of(m).Manifest(), vault.Opened(m.Table, m.Backup)} {
		w.remove(name)
		s := w.tick(hourly)
		if len(s.Backups) != 0 || len(w.drain()) != 0 {
			t.Errorf("without %s: %+v", name, s.Backups)
		}
		if _, err := w.planner().Tick(t.Context(), w.run(), of(m)); !errors.Is(err, repository.ErrMarked) {
			t.Errorf("a tick of the backup: %v", err)
		}
		for b, err := range w.repo.Open(t.Context(), nil) {
			t.Errorf("%s counts as open, %v", b.ID, err)
		}
	}
	_, err := w.planner().Plan(t.Context(), backup.PlanRequest{Table: sourceID, Kind: vault.Full, At: m.Backup.Time(), Trigger: "policy/default", New: true})
	if !errors.Is(err, repository.ErrMarked) {
		t.Errorf("planned again: %v", err)
	}
	if w.exists(of(m).Manifest()) || w.exists(vault.Opened(m.Table, m.Backup)) {
		t.Error("it has come back")
	}
	w.advance(time.Hour)
	w.settle(hourly)
	if n := len(w.manifests("orders")); n != 1 {
		t.Errorf("the next hour has %d backups", n)
	}
}
