package backup

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/vault"
)

// Twin is a further vault that holds copies of backups, under the same names
// and with the same bytes.
type Twin struct {
	// Name is the vault's address, for people.
	Name  string
	Store object.Store
}

// twins are where a repository reads an object that is not as it was written.
type twins struct {
	all []Twin

	mu     sync.Mutex
	turned map[string]turn
	count  int
	// copied is the last record of a copied group that was looked at.
	copied     map[string]string
	copiedName string
}

// turn says that an object is read from twin number at-1, since when, and why.
type turn struct {
	at, count int
	why       error
}

// Also names further vaults with copies of the backups in this one. An object
// of a backup that is gone or damaged here is read from the first of them in
// which it is not.
func (r *Repository) Also(all ...Twin) { r.twins.all = all }

// from is the store that an object is read from.
func (r *Repository) from(name string) object.Store {
	r.twins.mu.Lock()
	defer r.twins.mu.Unlock()
	if t := r.twins.turned[name]; t.at > 0 {
		return r.twins.all[t.at-1].Store
	}
	return r.store
}

// turns is how often the repository has turned to a twin; a reader takes it
// before it reads.
func (r *Repository) turns() int {
	r.twins.mu.Lock()
	defer r.twins.mu.Unlock()
	return r.twins.count
}

// turn has an object that is not as it was written read from the next twin, and
// reports whether there is one. If someone else has turned from it since the
// reader took its count, it is read as it stands.
func (r *Repository) turn(name string, since int, why error) bool {
	r.twins.mu.Lock()
	defer r.twins.mu.Unlock()
	t := r.twins.turned[name]
	if t.at > 0 && t.count > since {
		return true
	}
	if t.at == len(r.twins.all) {
		return false
	}
	if r.twins.turned == nil {
		r.twins.turned = map[string]turn{}
	}
	r.twins.count++
	if t.at == 0 {
		t.why = why
	}
	t.at, t.count = t.at+1, r.twins.count
	r.twins.turned[name] = t
	return true
}

// replaced are the objects that were read from a twin, of all or of the named.
func (r *Repository) replaced(names ...string) []vault.Finding {
	r.twins.mu.Lock()
	defer r.twins.mu.Unlock()
	var found []vault.Finding
	for name, t := range r.twins.turned {
		if len(names) == 0 || slices.Contains(names, name) {
			found = append(found, vault.Finding{Object: name, Reason: fmt.Sprintf("%v; read from %s", t.why, r.twins.all[t.at-1].Name)})
		}
	}
	slices.SortFunc(found, func(a, b vault.Finding) int { return strings.Compare(a.Object, b.Object) })
	return found
}

// maxReplacedNotes is how many objects the notes of a proof name.
const maxReplacedNotes = 10

// replacedNotes say which objects were read from a twin.
func replacedNotes(all ...[]vault.Finding) (notes []string) {
	seen := map[string]bool{}
	for _, f := range slices.Concat(all...) {
		if seen[f.Object] {
			continue
		}
		seen[f.Object] = true
		if len(seen) <= maxReplacedNotes {
			notes = append(notes, fmt.Sprintf("damaged in the vault: %s: %s", f.Object, f.Reason))
		}
	}
	if more := len(seen) - maxReplacedNotes; more > 0 {
		notes = append(notes, fmt.Sprintf("damaged in the vault: %d more objects, read from a twin", more))
	}
	return notes
}

// sameKind says whether two checksums are of the same kind.
func sameKind(a, b string) bool {
	kind, _, ok := strings.Cut(a, ":")
	other, _, too := strings.Cut(b, ":")
	return ok && too && kind == other
}

// copiedChecksum is the checksum that an object had when it was copied into a
// store; empty if the store has no record of that.
func (r *Repository) copiedChecksum(ctx context.Context, store object.Store, o vault.Object) (string, error) {
	b, s, ok := vault.ParseShard(o.Name)
	if !ok {
		return "", nil
	}
	name := b.Copied(s.Group())
	key := fmt.Sprintf("%p %s", store, name)
	r.twins.mu.Lock()
	copied, known := r.twins.copied, r.twins.copiedName == key
	r.twins.mu.Unlock()
	if !known {
		var c vault.Copied
		other := &Repository{store: store, encryption: r.encryption}
		if _, err := other.read(ctx, name, &c); err != nil && !corrupt(err) {
			return "", err
		}
		copied = make(map[string]string, len(c.Objects))
		for _, o := range c.Objects {
			copied[o.Name+" "+o.SHA256] = o.Checksum
		}
		r.twins.mu.Lock()
		r.twins.copied, r.twins.copiedName = copied, key
		r.twins.mu.Unlock()
	}
	return copied[o.Name+" "+o.SHA256], nil
}
