package repository_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/objectfault"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// TestManifestAsCopied forges a manifest that nothing names, checksum and all: the notes
// about its copies tell what it was, and it is read from the copy.
func TestManifestAsCopied(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 900)
	twin := &mem.Store{}
	w.CopyAll(m, twin)
	b := vaulttest.BackupOf(m)
	forged := *m
	forged.Sealed = m.Sealed.Add(time.Second)
	w.Store.(*mem.Store).Replace(b.Manifest(), vaulttest.Forge(b.Manifest(), &forged))
	open := func(store object.Store, also repository.Twin) *repository.Repository {
		t.Helper()
		repo, err := repository.Open(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		repo.Also(also)
		return repo
	}
	repo := open(w.Store, vaulttest.TwinAt(twin))
	got, _, err := repo.Manifest(t.Context(), b)
	if err != nil || !got.Sealed.Equal(m.Sealed) {
		t.Errorf("%+v, %v", got, err)
	}
	if found := repo.Replaced(b.Manifest()); len(found) != 1 || !strings.Contains(found[0].Reason, "sha256") {
		t.Errorf("%+v", found)
	}
	away := repository.Twin{Name: vaulttest.TwinAddress, Open: func(context.Context) (object.Store, error) { return nil, errors.New("away") }}
	if _, _, err := open(w.Store, away).Manifest(t.Context(), b); !errors.Is(err, vault.ErrCorrupt) {
		t.Errorf("where the copy can't be had: %v", err)
	}
	// Where the notes can't be had for now, nothing is known of the manifest.
	store := objectfault.New(w.Store, &objectfault.Fault{Op: objectfault.List, When: objectfault.Before, Match: func(name string) bool { return strings.HasPrefix(name, vault.CopyNotesPrefix) }})
	repo = open(store, vaulttest.TwinAt(twin))
	if _, _, err := repo.Manifest(t.Context(), b); err == nil || repository.Corrupt(err) || repo.Turns() > 0 {
		t.Errorf("where the notes can't be listed: %v, after %d turns", err, repo.Turns())
	}
	if got, _, err := repo.Manifest(t.Context(), b); err != nil || !got.Sealed.Equal(m.Sealed) {
		t.Errorf("where they can be listed again: %+v, %v", got, err)
	}
}

// TestTwinIsForDamage has a store not answer: that is no damage, and nothing is read
// from a further vault, which may cost money, and be older.
func TestTwinIsForDamage(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 900)
	twin := &mem.Store{}
	w.CopyAll(m, twin)
	store := objectfault.New(w.Store, &objectfault.Fault{Op: objectfault.Open, When: objectfault.Before, Match: func(name string) bool { return name == m.Plan.Name }})
	repo, err := repository.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	repo.Also(vaulttest.TwinAt(twin))
	if _, err := repo.PlanOf(t.Context(), m); err == nil || repository.Corrupt(err) || repo.Turns() > 0 {
		t.Errorf("%v, after %d turns", err, repo.Turns())
	}
	if _, err := repo.PlanOf(t.Context(), m); err != nil {
		t.Error(err)
	}
}

// TestTwinIsOpenedOnce: a further vault is opened once, whether that succeeds or not,
// but if it is for want of time that it did not, it is opened again.
func TestTwinIsOpenedOnce(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 900)
	twin := &mem.Store{}
	w.CopyAll(m, twin)
	parts := w.Parts(m)
	w.Remove(parts[0].Name, parts[1].Name)
	for name, fails := range map[string]error{"there": nil, "away": errors.New("away")} {
		opened := 0
		w.Repo.Also(repository.Twin{Name: vaulttest.TwinAddress, Open: func(ctx context.Context) (object.Store, error) {
			opened++
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return twin, fails
		}})
		late, cancel := context.WithCancel(t.Context())
		cancel()
		if w.Repo.Turn(late, parts[0], w.Repo.Turns(), vault.ErrCorrupt) || opened != 1 {
			t.Errorf("%s: turned to without time, opened %d times", name, opened)
		}
		for _, o := range parts[:2] {
			if got := w.Repo.Turn(t.Context(), o, w.Repo.Turns(), vault.ErrCorrupt); got != (fails == nil) {
				t.Errorf("%s: %s: %t", name, o.Name, got)
			}
		}
		if opened != 2 {
			t.Errorf("%s: opened %d times", name, opened)
		}
		found := w.Repo.Replaced()
		if notes := repository.ReplacedNotes(found, found); len(notes) != len(found) || (len(found) == 2) != (fails == nil) {
			t.Errorf("%s: %q for %d objects", name, notes, len(found))
		}
	}
}
