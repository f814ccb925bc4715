// Package repository is a vault in a store: which backups and restores there are,
// and their documents and objects, read with what tells that they are as they
// were written, from further vaults where they are not, and written under names
// that one writer wins.
package repository

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/vault"
)

// Repository is a vault in a store.
type Repository struct {
	store  object.Store
	Header vault.Header
	// encryption is that of documents. A plan names its backup's own, for the
	// shards: an identity serves a vault for a period, not one backup.
	encryption vault.Encryption

	twins  twins
	untold untold
	// restore is the plan of a restore that was read last, which never changes: an
	// invocation works for one.
	restore atomic.Pointer[vault.RestorePlan]
}

// Store is the store that the vault is in.
func (r *Repository) Store() object.Store { return r.store }

func in(store object.Store) *Repository {
	return &Repository{store: store, encryption: vault.Encryption{Mode: "none"}}
}

// In is the same vault as it stands in another store, without its twins.
func (r *Repository) In(store object.Store) *Repository {
	return &Repository{store: store, encryption: r.encryption}
}

// Open opens the vault in a store. The error matches fs.ErrNotExist if there is none,
// and ErrHeaderLost if there was one.
func Open(ctx context.Context, store object.Store) (*Repository, error) {
	r := in(store)
	_, err := r.Read(ctx, vault.HeaderName, &r.Header)
	if errors.Is(err, fs.ErrNotExist) {
		lost := unused(ctx, store)
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

// Init opens the vault in a store, and makes it if there is none and nothing says
// that there was one. now is the date of its making.
func Init(ctx context.Context, store object.Store, now time.Time) (*Repository, error) {
	r, err := Open(ctx, store)
	if !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	if err := unused(ctx, store); err != nil {
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
	if _, err := r.Decide(ctx, vault.HeaderName, &r.Header); err != nil {
		return nil, fmt.Errorf("make the vault: %w", err)
	}
	return r, nil
}

// Meter has the records that are written from now on tell what was asked of the
// store since the one before, as meter counts it, who counts for this repository
// alone.
func (r *Repository) Meter(meter interface{ Usage() vault.Usage }) { r.untold.meter = meter }

// untold is what was asked of the store and stands in no record.
type untold struct {
	meter interface{ Usage() vault.Usage } // nil where nobody counts

	mu   sync.Mutex
	told vault.Usage
}

// take returns what is untold, and counts it as told.
func (u *untold) take() vault.Usage {
	if u.meter == nil {
		return vault.Usage{}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.meter.Usage()
	since := now.Sub(u.told)
	u.told = now
	return since
}

// TakeUsage returns what was asked of the store and stands in no record, and
// counts it as told.
func (r *Repository) TakeUsage() vault.Usage { return r.untold.take() }

// giveBack takes back what was to be told and has not been.
func (u *untold) giveBack(since vault.Usage) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.told = u.told.Sub(since)
}

// Tell decides as Decide does a document that tells, in usage, of what was asked
// of the store up to here and is untold. If another's stands, or none, it stays
// untold.
func (r *Repository) Tell(ctx context.Context, name string, d vault.Document, usage *vault.Usage) (mine bool, err error) {
	since := r.untold.take()
	usage.Add(since)
	if mine, err = r.Decide(ctx, name, d); !mine {
		r.untold.giveBack(since)
	}
	return mine, err
}

// Read reads a document and returns the object that it stands in.
func (r *Repository) Read(ctx context.Context, name string, d vault.Document) (vault.Object, error) {
	data, err := object.ReadAll(ctx, r.StoreOf(name), name, vault.Limit(d))
	if err != nil {
		return vault.Object{}, fmt.Errorf("read %s: %w", name, err)
	}
	if err := r.encryption.Unmarshal(name, data, d); err != nil {
		return vault.Object{}, fmt.Errorf("read %s: %w", name, err)
	}
	return objectOf(name, data), nil
}

// Decode decodes a document from the bytes of the object of a name.
func (r *Repository) Decode(name string, data []byte, d vault.Document) error {
	return r.encryption.Unmarshal(name, data, d)
}

// ReadExact reads a document that another one names, and compares its hash.
func (r *Repository) ReadExact(ctx context.Context, o vault.Object, d vault.Document) error {
	data, err := r.ReadBytes(ctx, o)
	if err != nil {
		return err
	}
	if err := r.encryption.Unmarshal(o.Name, data, d); err != nil {
		return fmt.Errorf("read %s: %w", o.Name, err)
	}
	return nil
}

// ReadBytes reads an object that a document names, and compares its hash.
func (r *Repository) ReadBytes(ctx context.Context, o vault.Object) ([]byte, error) {
	for {
		since := r.Turns()
		data, err := object.ReadAll(ctx, r.StoreOf(o.Name), o.Name, vault.MaxDocument)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("read %s: %w: it is gone: %w", o.Name, vault.ErrCorrupt, err) // what names it says that it was there
		} else if err != nil {
			err = fmt.Errorf("read %s: %w", o.Name, err)
		} else if got := objectOf(o.Name, data); got.SHA256 != o.SHA256 {
			err = fmt.Errorf("read %s: %w: its sha256 is %s, it was written with %s", o.Name, vault.ErrCorrupt, got.SHA256, o.SHA256)
		}
		if err == nil {
			return data, nil
		}
		if !r.elsewhere(ctx, o, since, err) {
			return nil, err
		}
	}
}

func objectOf(name string, data []byte) vault.Object {
	sum := sha256.Sum256(data)
	return vault.Object{Name: name, Bytes: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}
}

// Decide writes a document under a name that one writer wins, and reads into
// it what stands there in the end. mine says whether it is what was given.
func (r *Repository) Decide(ctx context.Context, name string, d vault.Document) (mine bool, err error) {
	data, err := r.encryption.Marshal(name, d)
	if err != nil {
		return false, fmt.Errorf("write %s: %w", name, err)
	}
	standing, mine, err := object.Decide(ctx, r.store, name, data, vault.Limit(d))
	if err != nil {
		return false, fmt.Errorf("write %s: %w", name, err)
	}
	if mine {
		return true, nil
	}
	if err := r.encryption.Unmarshal(name, standing, d); err != nil {
		return false, fmt.Errorf("read %s: %w", name, err)
	}
	return false, nil
}

// Mark creates an empty object; that it exists is all it says.
func (r *Repository) Mark(ctx context.Context, name string) error {
	_, _, err := object.Decide(ctx, r.store, name, nil, 1)
	if err != nil {
		return fmt.Errorf("mark %s: %w", name, err)
	}
	return nil
}

// Exists says whether there is an object of a name in the vault's own store.
func (r *Repository) Exists(ctx context.Context, name string) (bool, error) {
	_, err := object.Stat(ctx, r.store, name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Create writes a document under a name that nobody else writes.
func (r *Repository) Create(ctx context.Context, name string, d vault.Document) (vault.Object, error) {
	data, err := r.encryption.Marshal(name, d)
	if err != nil {
		return vault.Object{}, fmt.Errorf("write %s: %w", name, err)
	}
	info, err := r.store.Create(ctx, name, bytes.NewReader(data))
	if err != nil {
		return vault.Object{}, fmt.Errorf("write %s: %w", name, err)
	}
	o := objectOf(name, data)
	o.Checksum = info.Checksum
	if info.Size != o.Bytes {
		return vault.Object{}, fmt.Errorf("write %s: %d bytes were sent, the store has %d", name, o.Bytes, info.Size)
	}
	return o, nil
}

// RandomName is unlike every other, whoever makes it.
func RandomName() string {
	var b [12]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// StatsInFlight is how many objects the store is asked about at a time.
const StatsInFlight = 16
