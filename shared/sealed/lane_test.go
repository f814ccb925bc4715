package sealed_test

import (
	"errors"
	"io"
	"testing"

	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/sealed"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// rowsByLane reads the lanes of a backup's segments, and counts their rows.
func rowsByLane(t *testing.T, repo *repository.Repository, m *vault.Manifest) (rows int64, err error) {
	t.Helper()
	b := vaulttest.BackupOf(m)
	_, o, err := repo.Manifest(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	segments := sealed.Segments{Repo: repo, ID: b, Manifest: o}
	for g, err := range repo.Groups(t.Context(), m) {
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range g.Segments {
			segment, err := segments.Of(t.Context(), s.Segment.ID)
			if err != nil {
				t.Fatal(err)
			}
			for i := range segment.Lanes() {
				lane := segment.Lane(i)
				for {
					block, err := lane.Next(t.Context())
					if err == io.EOF {
						break
					}
					if err != nil {
						return rows, err
					}
					rows += int64(block.Len())
				}
			}
		}
	}
	return rows, nil
}

// TestLaneFailsOver reads lanes of a backup of which a shard, or an index, is gone, cut
// or has a bit turned: block by block from a replica, or not at all.
func TestLaneFailsOver(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 900)
	far := &mem.Store{}
	w.CopyAll(m, far)
	store := w.Store.(*mem.Store)
	tried := 0
	for _, o := range w.Parts(m) {
		if _, _, ok := vault.ParseShard(o.Name); !ok || tried == 4 {
			continue
		}
		tried++
		content := []byte(vaulttest.ContentOf(t, store, o.Name)[o.Name])
		flipped := []byte(vaulttest.ContentOf(t, store, o.Name)[o.Name])
		flipped[len(flipped)/2] ^= 1
		for how, damage := range map[string]func(){
			"as it was": func() {}, "gone": func() { w.Remove(o.Name) }, "flipped": func() { store.Replace(o.Name, flipped) },
			"cut in a block": func() { store.Replace(o.Name, content[:len(content)/2]) }, "cut to its beginning": func() { store.Replace(o.Name, content[:8]) },
		} {
			damage()
			repo, err := repository.Open(t.Context(), store)
			if err != nil {
				t.Fatal(err)
			}
			var bad *repository.BadObject
			if _, err := rowsByLane(t, repo, m); errors.As(err, &bad) != (how != "as it was") || bad != nil && bad.Object != o {
				t.Errorf("%s, %s: %v", o.Name, how, err)
			}
			repo.SetReplicas(vaulttest.ReplicaAt(far))
			rows, err := rowsByLane(t, repo, m)
			if err != nil || rows != m.Totals.Rows || (len(repo.Replaced(o.Name)) == 1) != (how != "as it was") {
				t.Errorf("%s, %s, with a replica: %d rows, %v, %+v", o.Name, how, rows, err, repo.Replaced())
			}
			store.Replace(o.Name, content)
		}
	}
}
