package repository_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// TestLists has readers of each list stop at its first entry, which an iterator that does
// not notice panics at, and puts names into the folders that nobody of the vault gives.
func TestLists(t *testing.T) {
	w := vaulttest.NewWorld(t)
	store := w.Store.(*mem.Store)
	var all []vault.Backup
	for i := range repository.StatsInFlight + 6 {
		at := vaulttest.Day.Add(time.Duration(i) * time.Hour)
		b := vault.Backup{Table: vaulttest.SourceID, ID: vault.BackupID(at.UTC().Format("20060102T150405Z") + "-0a1b2c3d")}
		if _, err := w.Repo.Create(t.Context(), b.Manifest(), vaulttest.SealedAt(b, at, at)); err != nil {
			t.Fatal(err)
		}
		store.Replace(vault.Opened(b.Table, b.ID), nil)
		all = append(all, b)
	}
	open := all[len(all)-2]
	w.Remove(open.Manifest(), all[len(all)-1].Manifest())
	marked := all[len(all)-3]
	w.MarkIn(w.Store, marked)
	w.Remove(marked.Manifest())
	all = all[:len(all)-3]
	for _, name := range []string{"opened/x", "opened/local/prod/orders/1", "manifests/local/prod/orders/1", "restoring/1", "copied/" + vaulttest.SourceID.Path() + "/" + string(all[0].ID) + "/x"} {
		store.Replace(name, nil)
	}
	restores := []vault.RestoreID{"20261120T021400Z-0a1b2c3d", "20261120T021400Z-0a1b2c3e"}
	for _, id := range restores {
		store.Replace(vault.RestoringPrefix+string(id), nil)
	}
	r, s := vault.Restore{ID: restores[0]}, vault.SegmentID("000000")
	for i := range 2 {
		if _, err := w.Repo.Create(t.Context(), r.Log().Slot(s, i), &vault.Loaded{Segment: s, Slot: i, Part: i, Block: 1}); err != nil {
			t.Fatal(err)
		}
	}

	manifests := func(yield func(string, error) bool) {
		for m, err := range w.Repo.Manifests(t.Context(), nil) {
			if !yield(string(m.Backup), err) {
				return
			}
		}
	}
	named := func(yield func(string, error) bool) {
		for m, err := range w.Repo.ManifestsOf(t.Context(), all) {
			if !yield(string(m.Backup), err) {
				return
			}
		}
	}
	begun := func(yield func(string, error) bool) {
		for b, err := range w.Repo.Begun(t.Context(), nil) {
			if !yield(string(b.ID), err) {
				return
			}
		}
	}
	unsealed := func(yield func(string, error) bool) {
		for b, err := range w.Repo.Open(t.Context(), nil) {
			if !yield(string(b.ID), err) {
				return
			}
		}
	}
	restoring := func(yield func(string, error) bool) {
		for id, err := range w.Repo.Restoring(t.Context()) {
			if !yield(string(id), err) {
				return
			}
		}
	}
	loading := func(yield func(string, error) bool) {
		for l, err := range w.Repo.Loading(t.Context(), r, s, 0) {
			if !yield(fmt.Sprint(l.Part), err) {
				return
			}
		}
	}
	for name, c := range map[string]struct {
		list  func(func(string, error) bool)
		first string
		want  int
	}{
		"Manifests":   {manifests, string(all[0].ID), len(all)},
		"ManifestsOf": {named, string(all[0].ID), len(all)},
		"Begun":       {begun, string(all[0].ID), len(all) + 3},
		"Open":        {unsealed, string(open.ID), 2},
		"Restoring":   {restoring, string(restores[0]), len(restores)},
		"Loading":     {loading, "0", 2},
	} {
		n := 0
		for _, err := range c.list {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			n++
		}
		if n != c.want {
			t.Errorf("%s: %d entries, want %d", name, n, c.want)
		}
		for got, err := range c.list {
			if got != c.first || err != nil {
				t.Errorf("%s begins with %q, %v, want %q", name, got, err, c.first)
			}
			break
		}
	}
	if notes, err := w.Repo.CopyNotes(t.Context(), all[0]); len(notes) > 0 || err != nil {
		t.Errorf("copies: %v, %v", notes, err)
	}

	// One that is damaged is where a reader may stop too.
	store.Replace(all[0].Manifest(), []byte("{"))
	for _, err := range w.Repo.Manifests(t.Context(), nil) {
		var d *repository.Damaged
		if !errors.As(err, &d) {
			t.Error(err)
		}
		break
	}
}

// TestNothingThere asks for what there is not.
func TestNothingThere(t *testing.T) {
	w := vaulttest.NewWorld(t)
	b := vault.Backup{Table: vaulttest.SourceID, ID: "20261120T021400Z-0a1b2c3d"}
	if _, _, err := w.Repo.Plan(t.Context(), b); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "has no plan") {
		t.Errorf("a plan: %v", err)
	}
	if _, err := w.Repo.RestorePlan(t.Context(), "20261120T021400Z-0a1b2c3d"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "there is no restore") {
		t.Errorf("a restore: %v", err)
	}
	if id, err := w.Repo.RestoreOf(t.Context(), "requests/a.json"); id != "" || err != nil {
		t.Errorf("the restore of a request: %q, %v", id, err)
	}
	void := &vault.Manifest{Backup: b.ID, Table: b.Table, Kind: vault.Full, State: vault.Void, Reason: "test", Sealed: vaulttest.Day}
	if _, err := w.Repo.PlanOf(t.Context(), void); err == nil || !strings.Contains(err.Error(), "no rows to restore") {
		t.Errorf("the plan of a backup that was given up: %v", err)
	}
	n := 0
	for _, err := range w.Repo.Groups(t.Context(), &vault.Manifest{Groups: []vault.Object{vaulttest.Named(b.Group(0)), vaulttest.Named(b.Group(1))}}) {
		if n++; !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a roll-up: %v", err)
		}
	}
	if n != 1 {
		t.Errorf("after a roll-up that can't be read %d more were", n-1)
	}
}
