package repository_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
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
	replica := &mem.Store{}
	w.CopyAll(m, replica)
	b := vaulttest.BackupOf(m)
	forged := *m
	forged.Sealed = m.Sealed.Add(time.Second)
	w.Store.(*mem.Store).Replace(b.Manifest(), vaulttest.Forge(b.Manifest(), &forged))
	open := func(store object.Store, replica repository.Replica) *repository.Repository {
		t.Helper()
		repo, err := repository.Open(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		repo.SetReplicas(replica)
		return repo
	}
	repo := open(w.Store, vaulttest.ReplicaAt(replica))
	got, _, err := repo.Manifest(t.Context(), b)
	if err != nil || !got.Sealed.Equal(m.Sealed) {
		t.Errorf("%+v, %v", got, err)
	}
	if found := repo.Replaced(b.Manifest()); len(found) != 1 || !strings.Contains(found[0].Reason, "sha256") {
		t.Errorf("%+v", found)
	}
	away := repository.Replica{Name: vaulttest.ReplicaAddress, Open: func(context.Context) (object.Store, error) { return nil, errors.New("away") }}
	if _, _, err := open(w.Store, away).Manifest(t.Context(), b); !errors.Is(err, vault.ErrCorrupt) {
		t.Errorf("where the copy can't be had: %v", err)
	}
	// Where the notes can't be had for now, nothing is known of the manifest.
	store := objectfault.New(w.Store, &objectfault.Fault{Op: objectfault.List, When: objectfault.Before, Match: func(name string) bool { return strings.HasPrefix(name, vault.CopyNotesPrefix) }})
	repo = open(store, vaulttest.ReplicaAt(replica))
	if _, _, err := repo.Manifest(t.Context(), b); err == nil || repository.Corrupt(err) || len(repo.Replaced()) > 0 {
		t.Errorf("where the notes can't be listed: %v, with %+v", err, repo.Replaced())
	}
	if got, _, err := repo.Manifest(t.Context(), b); err != nil || !got.Sealed.Equal(m.Sealed) {
		t.Errorf("where they can be listed again: %+v, %v", got, err)
	}
}

// TestReplicaIsForDamage has a store not answer: that is no damage, and nothing is read
// from a replica, which may cost money, and be older.
func TestReplicaIsForDamage(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 900)
	replica := &mem.Store{}
	w.CopyAll(m, replica)
	store := objectfault.New(w.Store, &objectfault.Fault{Op: objectfault.Open, When: objectfault.Before, Match: func(name string) bool { return name == m.Plan.Name }})
	repo, err := repository.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	repo.SetReplicas(vaulttest.ReplicaAt(replica))
	if _, err := repo.PlanOf(t.Context(), m); err == nil || repository.Corrupt(err) || len(repo.Replaced()) > 0 {
		t.Errorf("%v, with %+v", err, repo.Replaced())
	}
	if _, err := repo.PlanOf(t.Context(), m); err != nil {
		t.Error(err)
	}
}

// failedOver says whether an object that is found to be bad is read elsewhere.
func failedOver(ctx context.Context, repo *repository.Repository, o vault.Object) bool {
	runs := 0
	return repo.FailOver(ctx, func() error {
		if runs++; runs > 1 {
			return nil
		}
		return &repository.BadObject{Object: o, Err: vault.ErrCorrupt}
	}) == nil
}

// TestReplicaIsOpenedOnce: a replica is opened once, whether that succeeds or not, but if
// it is for want of time that it did not, it is opened again.
func TestReplicaIsOpenedOnce(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 900)
	replica := &mem.Store{}
	w.CopyAll(m, replica)
	parts := w.Parts(m)
	w.Remove(parts[0].Name, parts[1].Name)
	for name, fails := range map[string]error{"there": nil, "away": errors.New("away")} {
		opened := 0
		w.Repo.SetReplicas(repository.Replica{Name: vaulttest.ReplicaAddress, Open: func(ctx context.Context) (object.Store, error) {
			opened++
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return replica, fails
		}})
		late, cancel := context.WithCancel(t.Context())
		cancel()
		if failedOver(late, w.Repo, parts[0]) || opened != 1 {
			t.Errorf("%s: failed over without time, opened %d times", name, opened)
		}
		for _, o := range parts[:2] {
			if got := failedOver(t.Context(), w.Repo, o); got != (fails == nil) {
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

// TestFailOver reads two objects that are bad, beside one that is good and one that is
// bad everywhere: the bad ones are read from the replica next time, and in the end the
// error names what could not be had anywhere.
func TestFailOver(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 900)
	replica := &mem.Store{}
	w.CopyAll(m, replica)
	parts := w.Parts(m)[:4]
	w.Remove(parts[0].Name, parts[1].Name, parts[3].Name)
	if err := replica.Delete(t.Context(), parts[3].Name); err != nil {
		t.Fatal(err)
	}
	w.Repo.SetReplicas(vaulttest.ReplicaAt(replica))
	none := vault.Encryption{Mode: "none"}
	runs := 0
	err := w.Repo.FailOver(t.Context(), func() error {
		runs++
		var all []error
		for _, o := range parts {
			_, err := w.Repo.OpenData(t.Context(), o, none).ReadAt(make([]byte, 1), 0)
			all = append(all, err)
		}
		return fmt.Errorf("read them: %w", errors.Join(all...))
	})
	var bad *repository.BadObject
	if !errors.As(err, &bad) || bad.Object != parts[3] || strings.Contains(err.Error(), parts[0].Name) || runs != 2 {
		t.Errorf("%v, after %d runs", err, runs)
	}
	if found := w.Repo.Replaced(); len(found) != 3 {
		t.Errorf("%+v", found)
	}
}

// TestFailOverTogether has two readers find the same object bad at the same time: the one
// that comes to fail it over last reads it from the replica that the other has turned to,
// and not from the next, which does not have it.
func TestFailOverTogether(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 900)
	replica := &mem.Store{}
	w.CopyAll(m, replica)
	o := shardOf(t, w, m)
	w.Remove(o.Name)
	empty := repository.Replica{Name: "oss://empty", Open: func(context.Context) (object.Store, error) { return &mem.Store{}, nil }}
	w.Repo.SetReplicas(vaulttest.ReplicaAt(replica), empty)
	var found, read sync.WaitGroup
	found.Add(2)
	for range 2 {
		read.Go(func() {
			runs := 0
			err := w.Repo.FailOver(t.Context(), func() error {
				_, err := w.Repo.OpenData(t.Context(), o, vault.Encryption{Mode: "none"}).ReadAt(make([]byte, 1), 0)
				if runs++; runs == 1 {
					found.Done()
					found.Wait()
				}
				return err
			})
			if err != nil || runs != 2 {
				t.Errorf("%v, after %d runs", err, runs)
			}
		})
	}
	read.Wait()
	if all := w.Repo.Replaced(); len(all) != 1 || !strings.Contains(all[0].Reason, "read from "+vaulttest.ReplicaAddress) {
		t.Errorf("%+v", all)
	}
}
