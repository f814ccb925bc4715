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

// Replica is another vault that holds copies of backups, under the same names and
// with the same bytes.
type Replica struct {
	// Name is the vault's address, for people.
	Name string
	// Open opens the store that it is in. It is called once, when something is
	// damaged or gone here, and never if nothing is.
	Open func(context.Context) (object.Store, error)
}

// replicas are where a repository reads an object that is not as it was written.
type replicas struct {
	all []*replica

	mu     sync.Mutex
	failed map[string]*failover // by the object's name
	count  int                  // of all failovers

	// notes are those about copies of the backups whose manifests were read.
	notes map[vault.Backup][]vault.CopyNote

	// copied is the last group's records of copies that were looked at.
	copied     map[string]string
	copiedName string
}

type replica struct {
	Replica
	opening sync.Mutex
	store   object.Store
	err     error // why it can't be read
}

// open opens the replica, once; that it can't be opened is final too, unless it
// was the caller who had no time.
func (p *replica) open(ctx context.Context) error {
	p.opening.Lock()
	defer p.opening.Unlock()
	if p.store != nil || p.err != nil {
		return p.err
	}
	store, err := p.Open(ctx)
	if err != nil && ctx.Err() != nil {
		return err
	}
	p.store, p.err = store, err
	return err
}

// failover says that an object is read from replica number at-1, since when, and why.
type failover struct {
	object    vault.Object
	at, count int
	why       error
	// healed says what became of the object in the vault itself.
	healed string
}

// SetReplicas names the replicas of the backups in this vault. An object of a backup
// that is gone or damaged here is read from the first of them in which it is not.
func (r *Repository) SetReplicas(all ...Replica) {
	r.replicas.all, r.replicas.failed = nil, nil
	for _, p := range all {
		r.AddReplica(p)
	}
}

// AddReplica names a replica that is read from after those that were named before.
func (r *Repository) AddReplica(p Replica) {
	r.replicas.all = append(r.replicas.all, &replica{Replica: p})
}

// storeOf is the store that an object is read from.
func (r *Repository) storeOf(name string) object.Store {
	r.replicas.mu.Lock()
	defer r.replicas.mu.Unlock()
	if f := r.replicas.failed[name]; f != nil {
		return r.replicas.all[f.at-1].store
	}
	return r.store
}

// FailOver runs read. Each object that its error names as a BadObject is read from the
// next replica from then on; if there is one for any of them, read is run again, from its
// beginning.
func (r *Repository) FailOver(ctx context.Context, read func() error) error {
	return r.failingOver(ctx, read, badObjects)
}

// badObjects are those that an error names.
func badObjects(err error) []*BadObject {
	switch e := err.(type) {
	case *BadObject:
		return []*BadObject{e}
	case interface{ Unwrap() error }:
		return badObjects(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all []*BadObject
		for _, err := range e.Unwrap() {
			all = append(all, badObjects(err)...)
		}
		return all
	}
	return nil
}

// reading runs what reads one object, and runs it again as FailOver does: if the object
// is not as it was written, or if it was a replica that could not be read.
func (r *Repository) reading(ctx context.Context, o vault.Object, read func() error) error {
	return r.failingOver(ctx, read, func(err error) []*BadObject {
		if err == nil || ctx.Err() != nil || !Corrupt(err) && r.storeOf(o.Name) == r.store {
			return nil
		}
		return []*BadObject{{o, err}}
	})
}

// failingOver runs read until its error names no object that could be read elsewhere.
func (r *Repository) failingOver(ctx context.Context, read func() error, named func(error) []*BadObject) error {
	for {
		since := r.failovers()
		err := read()
		again := false
		for _, bad := range named(err) {
			again = r.failOver(ctx, bad, since) || again
		}
		if !again {
			return err
		}
	}
}

// failovers is how many objects were failed over so far, and how often.
func (r *Repository) failovers() int {
	r.replicas.mu.Lock()
	defer r.replicas.mu.Unlock()
	return r.replicas.count
}

// failOver has a bad object read from the next replica that can be opened, and reports
// whether there is one. If someone else has failed it over since the reader took its
// count of failovers, it is read as it stands.
func (r *Repository) failOver(ctx context.Context, bad *BadObject, since int) bool {
	name, why, at := bad.Object.Name, bad.Err, 0
	for {
		r.replicas.mu.Lock()
		f := r.replicas.failed[name]
		switch {
		case f != nil && f.count > since:
			r.replicas.mu.Unlock()
			return true
		case f != nil:
			at = max(at, f.at)
		}
		if at == len(r.replicas.all) {
			r.replicas.mu.Unlock()
			return false
		}
		next := r.replicas.all[at]
		r.replicas.mu.Unlock()
		at++
		// It waits for the network, and others do not wait for it.
		if err := next.open(ctx); err != nil {
			if ctx.Err() != nil {
				return false
			}
			continue
		}
		r.replicas.mu.Lock()
		if now := r.replicas.failed[name]; now == nil || now == f && now.count <= since {
			if r.replicas.failed == nil {
				r.replicas.failed = map[string]*failover{}
			}
			if now != nil {
				why = now.why // what is wrong here, not what is wrong there
			}
			r.replicas.count++
			r.replicas.failed[name] = &failover{object: bad.Object, at: at, count: r.replicas.count, why: why}
		}
		r.replicas.mu.Unlock()
		return true
	}
}

// ReplicaErrors say which replicas could not be opened.
func (r *Repository) ReplicaErrors() (notes []string) {
	for _, p := range r.replicas.all {
		p.opening.Lock()
		if p.err != nil {
			notes = append(notes, fmt.Sprintf("%s can't be read: %v", p.Name, p.err))
		}
		p.opening.Unlock()
	}
	return notes
}

// Replaced are the objects that were read from a replica, of all or of the named.
func (r *Repository) Replaced(names ...string) []vault.Finding {
	r.replicas.mu.Lock()
	defer r.replicas.mu.Unlock()
	var found []vault.Finding
	for name, f := range r.replicas.failed {
		if len(names) == 0 || slices.Contains(names, name) {
			found = append(found, vault.Finding{Object: name, Reason: fmt.Sprintf("%v; read from %s%s", f.why, r.replicas.all[f.at-1].Name, f.healed)})
		}
	}
	slices.SortFunc(found, func(a, b vault.Finding) int { return strings.Compare(a.Object, b.Object) })
	return found
}

// Heal makes what is gone from a backup in this vault, and was read from a replica,
// anew under its name, with the bytes that its record tells. What is damaged
// stays as it is, since nothing in a vault is ever written over; and a backup
// whose manifest is gone is none of this vault's any more. What became of each
// object stands in its finding; that one can't be healed is no error, since it
// was read all the same.
func (r *Repository) Heal(ctx context.Context, b vault.Backup) {
	if r.failovers() == 0 {
		return
	}
	_, err := object.Stat(ctx, r.store, b.Manifest())
	gone := errors.Is(err, fs.ErrNotExist)
	r.replicas.mu.Lock()
	var all []*failover
	for _, f := range r.replicas.failed {
		if f.healed == "" && f.object.SHA256 != "" {
			all = append(all, f)
		}
	}
	r.replicas.mu.Unlock()
	for _, f := range all {
		said := ""
		_, err := object.Stat(ctx, r.store, f.object.Name)
		switch {
		case err == nil:
			said = "; it stays damaged here, since nothing is written over"
		case errors.Is(err, fs.ErrNotExist) && gone:
			said = "; not made anew here, where the backup has no manifest"
		case errors.Is(err, fs.ErrNotExist):
			said = "; made anew here"
			_, err := r.Replicate(ctx, f.object, r.store, nil)
			if err != nil && !errors.Is(err, fs.ErrExist) {
				said = fmt.Sprintf("; making it anew here failed: %v", err)
			}
		default:
			said = fmt.Sprintf("; whether it can be made anew is not known: %v", err)
		}
		r.replicas.mu.Lock()
		f.healed = said
		r.replicas.mu.Unlock()
	}
}

// maxReplacedNotes is how many objects the notes of a proof name.
const maxReplacedNotes = 10

// ReplacedNotes say which objects were read from a replica.
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
