package repository_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// shardOf is a shard of a backup.
func shardOf(t *testing.T, w *vaulttest.World, m *vault.Manifest) vault.Object {
	t.Helper()
	for _, o := range w.Parts(m) {
		if _, _, ok := vault.ParseShard(o.Name); ok {
			return o
		}
	}
	t.Fatal("there is no shard")
	return vault.Object{}
}

// turned is the content of an object with one bit turned, so that its length stays.
func turned(t *testing.T, store object.Store, name string) []byte {
	t.Helper()
	content := []byte(vaulttest.ContentOf(t, store, name)[name])
	content[len(content)/2] ^= 1
	return content
}

// TestPresentAsksForTheChecksum: an object of the right length and with other bytes is
// not what was written, in the vault by the checksum that it was written with, and in a
// replica with checksums of another kind by the one that it was copied with.
func TestPresentAsksForTheChecksum(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 900)
	far := vaulttest.OtherKind{Store: &mem.Store{}}
	w.CopyAll(m, far)
	shard := shardOf(t, w, m)
	copied, err := repository.Open(t.Context(), far)
	if err != nil {
		t.Fatal(err)
	}
	there := func() error {
		// A repository keeps what the copy's records say, which stays as it is.
		sizeOnly, err := copied.PresentAnywhere(t.Context(), shard)
		if sizeOnly {
			t.Error("the copy's checksum was not compared")
		}
		return err
	}
	if err := errors.Join(w.Repo.Present(t.Context(), shard), there()); err != nil {
		t.Fatal(err)
	}
	w.Store.(*mem.Store).Replace(shard.Name, turned(t, w.Store, shard.Name))
	if err := w.Repo.Present(t.Context(), shard); !errors.Is(err, vault.ErrCorrupt) {
		t.Errorf("in the vault: %v", err)
	}
	if err := there(); err != nil {
		t.Errorf("the copy, which was left alone: %v", err)
	}
	far.Replace(shard.Name, turned(t, far.Store, shard.Name))
	if err := there(); !errors.Is(err, vault.ErrCorrupt) {
		t.Errorf("in the further vault: %v", err)
	}
}

// short is a store that says it has a byte less than it was sent.
type short struct{ object.Store }

func (s short) Create(ctx context.Context, name string, r io.Reader) (object.Info, error) {
	info, err := s.Store.Create(ctx, name, r)
	info.Size--
	return info, err
}

// TestStoreThatKeptLess has the store answer that it keeps fewer bytes than were sent:
// neither a document nor a copy counts as written.
func TestStoreThatKeptLess(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 20)
	m := w.Backup(vaulttest.Small)
	less := short{&mem.Store{}}
	if _, err := w.Repo.Replicate(t.Context(), shardOf(t, w, m), less, nil); err == nil {
		t.Error("a copy")
	}
	if o, err := w.Repo.In(less).Create(t.Context(), vault.HeaderName, &w.Repo.Header); err == nil {
		t.Errorf("a document: %+v", o)
	}
}

// TestBudgetThatTimeDoesNotAllow reads an object with a budget by which it takes longer
// than there is time: it ends at once, and says that it is time which is missing.
func TestBudgetThatTimeDoesNotAllow(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 20)
	shard := shardOf(t, w, w.Backup(vaulttest.Small))
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	err := w.Repo.Check(ctx, shard, rate.NewLimiter(1e-6, 16))
	if !errors.Is(err, repository.ErrTime) || repository.Corrupt(err) {
		t.Errorf("%v", err)
	}
}
