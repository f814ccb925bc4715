package status_test

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// TestFind: what the beginning of an id means, of which kinds, and what it does not.
func TestFind(t *testing.T) {
	w := vaulttest.NewWorld(t)
	m := w.CutInto(2, 10)
	w.Advance(time.Hour)
	r := w.Restore(m)
	id := vault.VerificationID("20261120T040000Z-0a1b2c3d")
	if err := w.Repo.Mark(t.Context(), vault.Told{}.Name(vault.Verification{ID: id}.Progress())); err != nil {
		t.Fatal(err)
	}
	all := []status.Kind{status.BackupKind, status.RestoreKind, status.VerificationKind}
	for _, c := range []struct {
		text  string
		kinds []status.Kind
		want  string
		err   error
	}{
		{string(m.Backup), all, string(m.Backup), nil},
		{string(m.Backup)[:14], all, string(m.Backup), nil},
		{string(r.Restore)[:14], all, string(r.Restore), nil},
		{"20261120T04", all, string(id), nil},
		{"20261120T04", all[:2], "", fs.ErrNotExist},
		{"2026", all, "", status.ErrAmbiguous},
		{"latest", all, string(m.Backup), nil},
		{"latest", all[1:], string(r.Restore), nil},
		{"latest", all[2:], string(id), nil},
		{"latest:prod/orders", all, string(m.Backup), nil},
		{"latest:prod/others", all, "", fs.ErrNotExist},
		{"latest:prod/orders", all[1:], "", status.ErrForm},
		{"oldest", all, "", status.ErrForm},
		{"first:prod/orders", all, "", status.ErrForm},
		{"", all, "", status.ErrForm},
		{"../x", all, "", status.ErrForm},
		{"20200101T000000Z-00000000", all, "", fs.ErrNotExist},
	} {
		ref, err := status.Find(t.Context(), w.Repo, c.text, c.kinds...)
		if ref.ID != c.want || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%q among %v: %q, %v; want %q, %v", c.text, c.kinds, ref.ID, err, c.want, c.err)
		}
	}
}

// TestRestores: the newest come first, and one whose record is damaged is among them.
func TestRestores(t *testing.T) {
	w := vaulttest.NewWorld(t)
	m := w.CutInto(2, 10)
	first := w.Restore(m)
	w.Tables.Drop(vaulttest.TargetID.Table)
	w.Advance(time.Hour)
	second := w.Restore(m)
	all, older, err := status.Restores(t.Context(), w.Repo, 1, w.Clock)
	if err != nil || older != 1 || len(all) != 1 || all[0].Restore != second.Restore || all[0].State != restore.StateDone {
		t.Errorf("%+v, %d: %v", all, older, err)
	}
	name := vault.Restore{ID: first.Restore}.Plan()
	plan, err := object.ReadAll(t.Context(), w.Store, name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	bent, err := repository.Open(t.Context(), &vaulttest.Bent{Store: w.Store, Name: name, Bend: func([]byte) []byte { return bytes.Clone(plan[:len(plan)/2]) }})
	if err != nil {
		t.Fatal(err)
	}
	all, older, err = status.Restores(t.Context(), bent, 0, w.Clock)
	if err != nil || older != 0 || len(all) != 2 || all[0].Restore != second.Restore || all[1].Restore != first.Restore ||
		all[1].State != status.Unreadable || !all[1].Corrupt || all[1].Begun.Format("20060102T150405Z") != string(first.Restore)[:16] || !strings.Contains(all[1].LastError, name) {
		t.Errorf("%+v, %d: %v", all, older, err)
	}
}

// TestVerificationLost: one that says nothing for longer than a function works is lost,
// and one that never was is not there.
func TestVerificationLost(t *testing.T) {
	w := vaulttest.NewWorld(t)
	of := vault.Verification{ID: "20261120T021400Z-0a1b2c3d"}
	watch := status.Watch(w.Repo, of.ID, w.Clock)
	if _, err := watch.Look(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	for n, rows := range []int64{0, 500} {
		if err := w.Repo.Mark(t.Context(), vault.Told{Number: n, Rows: rows}.Name(of.Progress())); err != nil {
			t.Fatal(err)
		}
	}
	w.Advance(10 * time.Second)
	if v, err := watch.Look(t.Context()); err != nil || v.State != status.Running || v.Rows != 500 || v.RowsPerSecond != 50 {
		t.Errorf("%+v: %v", v, err)
	}
	w.Advance(20 * time.Minute)
	if v, err := watch.Look(t.Context()); err != nil || v.State != status.Lost {
		t.Errorf("%+v: %v", v, err)
	}
}
