package repository

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	Name string
	// Open opens the store that it is in. It is called once, when something is
	// damaged or gone here, and never if nothing is.
	Open func(context.Context) (object.Store, error)
}

// twins are where a repository reads an object that is not as it was written.
type twins struct {
	all []*twin

	mu     sync.Mutex
	turned map[string]*turn
	count  int

	// notes are those about copies of the backups whose manifests were read.
	notes map[vault.Backup][]vault.CopyNote

	// copied is the last group's records of copies that were looked at.
	copied     map[string]string
	copiedName string
}

type twin struct {
	Twin
	opening sync.Mutex
	store   object.Store
	err     error // why it can't be read
}

// open opens the twin, once; that it can't be opened is final too, unless it
// was the caller who had no time.
func (t *twin) open(ctx context.Context) error {
	t.opening.Lock()
	defer t.opening.Unlock()
	if t.store != nil || t.err != nil {
		return t.err
	}
	store, err := t.Open(ctx)
	if err != nil && ctx.Err() != nil {
		return err
	}
	t.store, t.err = store, err
	return err
}

// turn says that an object is read from twin number at-1, since when, and why.
type turn struct {
	object    vault.Object
	at, count int
	why       error
	// healed says what became of the object in the vault itself.
	healed string
}

// Also names further vaults with copies of the backups in this one. An object
// of a backup that is gone or damaged here is read from the first of them in
// which it is not.
func (r *Repository) Also(all ...Twin) {
	r.twins.all, r.twins.turned = nil, nil
	for _, t := range all {
		r.Add(t)
	}
}

// Add names a further vault, which is read from after those that were named
// before.
func (r *Repository) Add(t Twin) { r.twins.all = append(r.twins.all, &twin{Twin: t}) }

// StoreOf is the store that an object is read from.
func (r *Repository) StoreOf(name string) object.Store {
	r.twins.mu.Lock()
	defer r.twins.mu.Unlock()
	if t := r.twins.turned[name]; t != nil {
		return r.twins.all[t.at-1].store
	}
	return r.store
}

// Turns is how often the repository has turned to a twin; a reader takes it
// before it reads.
func (r *Repository) Turns() int {
	r.twins.mu.Lock()
	defer r.twins.mu.Unlock()
	return r.twins.count
}

// Turn has an object that is not as it was written read from the next twin that
// can be opened, and reports whether there is one. If someone else has turned
// from it since the reader took its count, it is read as it stands.
func (r *Repository) Turn(ctx context.Context, o vault.Object, since int, why error) bool {
	at := 0
	for {
		r.twins.mu.Lock()
		t := r.twins.turned[o.Name]
		switch {
		case t != nil && t.count > since:
			r.twins.mu.Unlock()
			return true
		case t != nil:
			at = max(at, t.at)
		}
		if at == len(r.twins.all) {
			r.twins.mu.Unlock()
			return false
		}
		next := r.twins.all[at]
		r.twins.mu.Unlock()
		at++
		// It waits for the network, and others do not wait for it.
		if err := next.open(ctx); err != nil {
			if ctx.Err() != nil {
				return false
			}
			continue
		}
		r.twins.mu.Lock()
		if now := r.twins.turned[o.Name]; now == nil || now == t && now.count <= since {
			if r.twins.turned == nil {
				r.twins.turned = map[string]*turn{}
			}
			if now != nil {
				why = now.why // what is wrong here, not what is wrong there
			}
			r.twins.count++
			r.twins.turned[o.Name] = &turn{object: o, at: at, count: r.twins.count, why: why}
		}
		r.twins.mu.Unlock()
		return true
	}
}

// elsewhere has an object, of which reading failed, read from the next twin, and
// reports whether there is one: if it is not as it was written, or if it was in
// a twin that it could not be read.
func (r *Repository) elsewhere(ctx context.Context, o vault.Object, since int, err error) bool {
	if err == nil || ctx.Err() != nil || !Corrupt(err) && r.StoreOf(o.Name) == r.store {
		return false
	}
	return r.Turn(ctx, o, since, err)
}

// TwinErrors say which twins could not be opened.
func (r *Repository) TwinErrors() (notes []string) {
	for _, t := range r.twins.all {
		t.opening.Lock()
		if t.err != nil {
			notes = append(notes, fmt.Sprintf("%s can't be read: %v", t.Name, t.err))
		}
		t.opening.Unlock()
	}
	return notes
}

// Replaced are the objects that were read from a twin, of all or of the named.
func (r *Repository) Replaced(names ...string) []vault.Finding {
	r.twins.mu.Lock()
	defer r.twins.mu.Unlock()
	var found []vault.Finding
	for name, t := range r.twins.turned {
		if len(names) == 0 || slices.Contains(names, name) {
			found = append(found, vault.Finding{Object: name, Reason: fmt.Sprintf("%v; read from %s%s", t.why, r.twins.all[t.at-1].Name, t.healed)})
		}
	}
	slices.SortFunc(found, func(a, b vault.Finding) int { return strings.Compare(a.Object, b.Object) })
	return found
}

// Heal makes what is gone from a backup in this vault, and was read from a twin,
// anew under its name, with the bytes that its record tells. What is damaged
// stays as it is, since nothing in a vault is ever written over; and a backup
// whose manifest is gone is none of this vault's any more. What became of each
// object stands in its finding; that one can't be healed is no error, since it
// was read all the same.
func (r *Repository) Heal(ctx context.Context, b vault.Backup) {
	if r.Turns() == 0 {
		return
	}
	_, err := object.Stat(ctx, r.store, b.Manifest())
	gone := errors.Is(err, fs.ErrNotExist)
	r.twins.mu.Lock()
	var all []*turn
	for _, t := range r.twins.turned {
		if t.healed == "" && t.object.SHA256 != "" {
			all = append(all, t)
		}
	}
	r.twins.mu.Unlock()
	for _, t := range all {
		said := ""
		_, err := object.Stat(ctx, r.store, t.object.Name)
		switch {
		case err == nil:
			said = "; it stays damaged here, since nothing is written over"
		case errors.Is(err, fs.ErrNotExist) && gone:
			said = "; not made anew here, where the backup has no manifest"
		case errors.Is(err, fs.ErrNotExist):
			said = "; made anew here"
			_, err := r.Stream(ctx, t.object, r.store, nil)
			if err != nil && !errors.Is(err, fs.ErrExist) {
				said = fmt.Sprintf("; making it anew here failed: %v", err)
			}
		default:
			said = fmt.Sprintf("; whether it can be made anew is not known: %v", err)
		}
		r.twins.mu.Lock()
		t.healed = said
		r.twins.mu.Unlock()
	}
}

// maxReplacedNotes is how many objects the notes of a proof name.
const maxReplacedNotes = 10

// ReplacedNotes say which objects were read from a twin.
func ReplacedNotes(all ...[]vault.Finding) (notes []string) {
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

// SameKind says whether two checksums are of the same kind.
func SameKind(a, b string) bool {
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
	key := fmt.Sprintf("%p %s", store, b.Copied(s.Group(), 0))
	r.twins.mu.Lock()
	copied, known := r.twins.copied, r.twins.copiedName == key
	r.twins.mu.Unlock()
	if !known {
		records, err := r.In(store).Copied(ctx, b, s.Group())
		if err != nil {
			return "", err
		}
		copied = records.Checksums
		r.twins.mu.Lock()
		r.twins.copied, r.twins.copiedName = copied, key
		r.twins.mu.Unlock()
	}
	return copied[Identity(o)], nil
}

// Identity is what tells the content of an object under its name from others.
func Identity(o vault.Object) string { return o.Name + " " + o.SHA256 }

// CopiedGroup is what the records of a group in a vault with copies say.
type CopiedGroup struct {
	Checksums map[string]string // by identity
	Records   int
	Whole     bool
}

// Copied reads the records of a group that was copied into this vault. One that
// is damaged is as if it had never been written: what it told is asked again.
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
