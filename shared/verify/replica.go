package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// Compare says whether a backup's copy in another vault, at address, is the same as the
// backup here. The documents are read there and compared by hash; of shards and indexes
// the other store is asked for the size and the checksum, and none is read.
func (v *Verifier) Compare(ctx context.Context, b vault.Backup, address string, store object.Store) (*vault.Proof, error) {
	err := repository.CheckApart(ctx, v.Repo.Store(), store, place.Key(address))
	var proof *vault.Proof
	if err == nil {
		proof, err = v.compare(ctx, b, store)
	}
	if err != nil {
		return nil, fmt.Errorf("compare backup %s of %s with its copy in %s: %w", b.ID, b.Table, address, err)
	}
	proof.Verdict = proof.Check.Verdict()
	proof.Notes = append(proof.Notes, fmt.Sprintf("of the copy in %s; its shards were not read", address))
	return proof, nil
}

func (v *Verifier) compare(ctx context.Context, b vault.Backup, store object.Store) (*vault.Proof, error) {
	_, here, err := v.Repo.Manifest(ctx, b)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notSealed(err)
	}
	if err != nil {
		return nil, err
	}
	if err := v.Repo.CheckNotMarked(ctx, b); err != nil {
		return nil, err
	}
	other, err := repository.Open(ctx, store)
	if err != nil {
		return nil, err
	}
	if other.Header.ID != v.Repo.Header.ID {
		return nil, fmt.Errorf("that vault is another one, %s and not %s", other.Header.ID, v.Repo.Header.ID)
	}
	there := *v
	there.Repo = other
	proof, err := there.verify(ctx, Request{Backup: b, Depth: DepthObjects})
	if errors.Is(err, fs.ErrNotExist) {
		proof = &vault.Proof{Backup: b.ID, Table: b.Table, Depth: DepthObjects, At: v.Now().UTC(), Manifest: here}
		proof.Check.Find(here.Name, errors.New("it is not there: the copy is not complete"))
		return proof, nil
	}
	if err != nil {
		return nil, err
	}
	if proof.Manifest.SHA256 != "" && proof.Manifest.SHA256 != here.SHA256 {
		proof.Check.Find(here.Name, fmt.Errorf("its sha256 is %s there, %s here", proof.Manifest.SHA256, here.SHA256))
	}
	return proof, nil
}
