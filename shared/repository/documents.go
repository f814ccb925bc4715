package repository

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/tablevault/tablevault/shared/crypt"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/vault"
)

// Read reads a document and returns the object that it stands in.
func (r *Repository) Read(ctx context.Context, name string, d vault.Document) (vault.Object, error) {
	data, err := object.ReadAll(ctx, r.storeOf(name), name, vault.Limit(d))
	if err != nil {
		return vault.Object{}, fmt.Errorf("read %s: %w", name, err)
	}
	if err := r.Decode(name, data, d); err != nil {
		return vault.Object{}, fmt.Errorf("read %s: %w", name, err)
	}
	return objectOf(name, data), nil
}

// encode encodes the document that is to stand under a name, and seals it for who may
// read it.
func (r *Repository) encode(name string, d vault.Document) ([]byte, error) {
	plain, err := vault.Encode(name, d)
	if err != nil {
		return nil, err
	}
	var sealed bytes.Buffer
	w, err := crypt.Seal(r.encryption, classOf(d), &sealed)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return sealed.Bytes(), nil
}

// Decode decodes a document from the bytes of the object of a name, as they are stored.
func (r *Repository) Decode(name string, data []byte, d vault.Document) error {
	sealed, err := crypt.Open(r.encryption, classOf(d), bytes.NewReader(data))
	if err != nil {
		return err
	}
	plain, err := io.ReadAll(sealed)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	return vault.Decode(name, plain, d)
}

// classOf is who may read a document.
func classOf(d vault.Document) crypt.Class {
	switch d.(type) {
	case *vault.Header, *vault.Proof, *vault.Answer, *vault.Drill, *vault.DrillEnd, *vault.DrillDrop:
		return crypt.Public
	case *vault.Quarantine:
		return crypt.Data
	}
	return crypt.Control
}

// ReadExact reads a document that another one names, and compares its hash.
func (r *Repository) ReadExact(ctx context.Context, o vault.Object, d vault.Document) error {
	data, err := r.ReadBytes(ctx, o)
	if err != nil {
		return err
	}
	if err := r.Decode(o.Name, data, d); err != nil {
		return fmt.Errorf("read %s: %w", o.Name, err)
	}
	return nil
}

// ReadBytes reads an object that a document names, and compares its hash.
func (r *Repository) ReadBytes(ctx context.Context, o vault.Object) (data []byte, err error) {
	err = r.reading(ctx, o, func() error {
		var err error
		data, err = object.ReadAll(ctx, r.storeOf(o.Name), o.Name, vault.MaxDocument)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read %s: %w: it is gone: %w", o.Name, vault.ErrCorrupt, err) // what names it says that it was there
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", o.Name, err)
		}
		if got := objectOf(o.Name, data); got.SHA256 != o.SHA256 {
			return fmt.Errorf("read %s: %w: its sha256 is %s, it was written with %s", o.Name, vault.ErrCorrupt, got.SHA256, o.SHA256)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return data, nil
}

func objectOf(name string, data []byte) vault.Object {
	sum := sha256.Sum256(data)
	return vault.Object{Name: name, Bytes: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}
}

// Win writes a document under a name that one writer wins. If another has won it, the
// document becomes what that one wrote.
//
// To a record Win adds what was asked of the store since the record before. If the name
// is not won, that is left for the next record.
func (r *Repository) Win(ctx context.Context, name string, d vault.Document) (won bool, err error) {
	if record, ok := d.(vault.Record); ok && record.Told() != nil {
		since := r.TakeUsage()
		record.Told().Add(since)
		defer func() {
			if !won {
				r.untold.giveBack(since)
			}
		}()
	}
	data, err := r.encode(name, d)
	if err != nil {
		return false, fmt.Errorf("write %s: %w", name, err)
	}
	standing, won, err := object.Decide(ctx, r.store, name, data, vault.Limit(d))
	if err != nil {
		return false, fmt.Errorf("write %s: %w", name, err)
	}
	if won {
		return true, nil
	}
	if err := r.Decode(name, standing, d); err != nil {
		return false, fmt.Errorf("read %s: %w", name, err)
	}
	return false, nil
}

// Mark creates an empty object, which says by its name alone what it has to say. It may
// be there already.
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
	data, err := r.encode(name, d)
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

// RandomName is a name that nobody else makes.
func RandomName() string {
	var b [12]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// StatsInFlight bounds how many objects the store is asked about at a time.
const StatsInFlight = 16
