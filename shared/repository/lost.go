package repository

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vault/shard"
)

// ErrHeaderLost matches errors about a place that has a vault's objects and no
// vault.json. None is made there: a new one would have another id and another seed of
// digests, by which every backup of before would count as damaged. It matches
// vault.ErrCorrupt.
var ErrHeaderLost = fmt.Errorf("%w: %s is gone", vault.ErrCorrupt, vault.HeaderName)

// inUse are prefixes under which a vault that is used has objects, and which the planner
// may list. That of requests is left out: they may come before there is a vault.
var inUse = []string{vault.OpenedPrefix, vault.ManifestPrefix, vault.MarkPrefix, vault.RestoringPrefix, vault.CopyNotesPrefix}

// checkUnused returns an error matching ErrHeaderLost if a store, which has no
// vault.json, has objects of a vault.
func checkUnused(ctx context.Context, store object.Store) error {
	for _, prefix := range inUse {
		for info, err := range store.List(ctx, prefix, "") {
			if err != nil {
				return fmt.Errorf("look whether a vault was here: list %s: %w", prefix, err)
			}
			return fmt.Errorf("%w, and there is %s: nothing is made anew over what is here; `tablevault doctor` says how to put it back", ErrHeaderLost, info.Name)
		}
	}
	return nil
}

// maxHeaders bounds how many shards are read to find out what vault.json was.
const maxHeaders = 16

// LostHeader finds out from the shards of a vault what its vault.json said: each names
// the vault and the seed of its digests. Those that are read must agree. For Created it
// takes the date of the oldest of them, since nothing depends on it. The error matches
// fs.ErrNotExist if there is no shard.
func LostHeader(ctx context.Context, store object.Store) (*vault.Header, error) {
	var found *vault.Header
	read := 0
	for info, err := range store.List(ctx, vault.ShardPrefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", vault.ShardPrefix, err)
		}
		if !strings.HasSuffix(info.Name, ".shard") {
			continue
		}
		h, err := shardHeader(ctx, store, info.Name)
		if errors.Is(err, shard.ErrCorrupt) || errors.Is(err, shard.ErrVersion) {
			continue // another says it
		}
		if err != nil {
			return nil, err
		}
		now := &vault.Header{ID: h.Vault, Created: info.Modified.UTC().Truncate(time.Second), Seed: vault.Seed(h.Seed), Signers: []string{}}
		if found != nil && (found.ID != now.ID || found.Seed != now.Seed) {
			return nil, fmt.Errorf("%w: the shards are of several vaults, %s and %s", vault.ErrCorrupt, found.ID, now.ID)
		}
		if found == nil || now.Created.Before(found.Created) {
			found = now
		}
		if read++; read == maxHeaders {
			break
		}
	}
	if found == nil {
		return nil, fmt.Errorf("there is no shard that tells: %w", fs.ErrNotExist)
	}
	return found, nil
}

func shardHeader(ctx context.Context, store object.Store, name string) (shard.Header, error) {
	f, _, err := store.Open(ctx, name, 0, -1)
	if err != nil {
		return shard.Header{}, fmt.Errorf("read %s: %w", name, err)
	}
	defer f.Close()
	r, err := shard.NewReader(f)
	if err != nil {
		return shard.Header{}, fmt.Errorf("read %s: %w", name, err)
	}
	return r.Header, nil
}
