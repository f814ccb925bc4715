package repository

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/vault"
)

// SameKind says whether two checksums are of the same kind.
func SameKind(a, b string) bool {
	kind, _, ok := strings.Cut(a, ":")
	other, _, too := strings.Cut(b, ":")
	return ok && too && kind == other
}

// copiedChecksum is the checksum that an object had when it was copied into a store. It
// is empty if no record in the store tells that.
func (r *Repository) copiedChecksum(ctx context.Context, store object.Store, o vault.Object) (string, error) {
	b, s, ok := vault.ParseShard(o.Name)
	if !ok {
		return "", nil
	}
	key := fmt.Sprintf("%p %s", store, b.Copied(s.Group(), 0))
	r.replicas.mu.Lock()
	copied, known := r.replicas.copied, r.replicas.copiedName == key
	r.replicas.mu.Unlock()
	if !known {
		records, err := r.In(store).Copied(ctx, b, s.Group())
		if err != nil {
			return "", err
		}
		copied = records.Checksums
		r.replicas.mu.Lock()
		r.replicas.copied, r.replicas.copiedName = copied, key
		r.replicas.mu.Unlock()
	}
	return copied[Identity(o)], nil
}

// Identity tells an object from all others, also from another of its name.
func Identity(o vault.Object) string { return o.Name + " " + o.SHA256 }

// CopiedGroup is what a replica's records say of a group.
type CopiedGroup struct {
	Checksums map[string]string // by identity
	Records   int
	Whole     bool
}

// Copied reads the records of a group that was copied into this vault. It leaves out
// those that are damaged: what they told is asked of the store again.
func (r *Repository) Copied(ctx context.Context, b vault.Backup, group int) (CopiedGroup, error) {
	g := CopiedGroup{Checksums: map[string]string{}}
	for {
		var c vault.Copied
		_, err := r.Read(ctx, b.Copied(group, g.Records), &c)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return g, nil
		case err != nil && !Corrupt(err):
			return g, err
		case err == nil:
			for _, o := range c.Objects {
				g.Checksums[Identity(o)] = o.Checksum
			}
			g.Whole = g.Whole || c.Last
		}
		g.Records++
	}
}
