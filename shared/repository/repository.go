// Package repository is a vault in a store: which backups and restores there are, their
// documents, and their shards and indexes. All are proved to be as they were written when
// they are read, and read from a replica where they are not.
//
// A document is written by Win under a name that several may write and one wins, by
// Create under a name that nobody else writes, and by Mark if its name says all. It is
// read by Read, or by ReadExact where another document tells its hash. Shards and indexes
// are written by CreateData and read by OpenData, and by nobody else.
package repository

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/vault"
)

// Repository is a vault in a store.
type Repository struct {
	store  object.Store
	Header vault.Header
	// encryption is that of documents. Shards and indexes have that of their backup's
	// plan: an identity serves a vault for a period.
	encryption vault.Encryption

	replicas replicas
	untold   untold
	// restore is the plan of a restore that was read last: it never changes, and an
	// invocation works for one restore.
	restore atomic.Pointer[vault.RestorePlan]
}

// Store is the store that the vault is in.
func (r *Repository) Store() object.Store { return r.store }

func in(store object.Store) *Repository {
	return &Repository{store: store, encryption: vault.Encryption{Mode: "none"}, replicas: newReplicas()}
}

// In is the same vault as it stands in another store, without its replicas.
func (r *Repository) In(store object.Store) *Repository {
	return &Repository{store: store, encryption: r.encryption, replicas: newReplicas()}
}

// Open opens the vault in a store. The error matches fs.ErrNotExist if there is none, and
// ErrHeaderLost if there was one.
func Open(ctx context.Context, store object.Store) (*Repository, error) {
	r := in(store)
	_, err := r.Read(ctx, vault.HeaderName, &r.Header)
	if errors.Is(err, fs.ErrNotExist) {
		lost := checkUnused(ctx, store)
		if errors.Is(lost, ErrHeaderLost) {
			// Somebody may have made the vault, and a backup in it, between two looks.
			if _, err := r.Read(ctx, vault.HeaderName, &r.Header); err == nil {
				return r, nil
			}
		}
		if lost != nil && !errors.Is(lost, fs.ErrPermission) {
			return nil, lost
		}
		return nil, fmt.Errorf("there is no vault here (%s is missing): the first backup makes one: %w", vault.HeaderName, err)
	}
	if Corrupt(err) {
		return nil, fmt.Errorf("open the vault: %w; `tablevault doctor` says how to put it back", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open the vault: %w", err)
	}
	return r, nil
}

// Init opens the vault in a store, and makes it if there is none and nothing says that
// there was one. now is the date of its making.
func Init(ctx context.Context, store object.Store, now time.Time) (*Repository, error) {
	r, err := Open(ctx, store)
	if !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	if err := checkUnused(ctx, store); err != nil {
		return nil, err // whoever can't tell makes none
	}
	var b [24]byte
	rand.Read(b[:])
	r = in(store)
	r.Header = vault.Header{
		ID:      hex.EncodeToString(b[:16]),
		Created: now.UTC().Truncate(time.Second),
		Seed:    vault.Seed(binary.BigEndian.Uint64(b[16:])),
		Signers: []string{},
	}
	if _, err := r.Win(ctx, vault.HeaderName, &r.Header); err != nil {
		return nil, fmt.Errorf("make the vault: %w", err)
	}
	return r, nil
}
