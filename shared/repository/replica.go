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

// Replica is another vault that holds copies of backups, under the same names and with
// the same bytes.
type Replica struct {
	// Name is the vault's address, for people.
	Name string
	// Open opens the store that it is in. It is called once, when something is damaged or
	// gone here, and never if nothing is.
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

func newReplicas() replicas {
	return replicas{failed: map[string]*failover{}, notes: map[vault.Backup][]vault.CopyNote{}}
}

type replica struct {
	Replica
	opening sync.Mutex
	store   object.Store
	err     error // why it can't be read
}

// open opens the replica, once. If that fails, it is not tried again, unless the caller's
// time was up.
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

// SetReplicas names the vault's replicas. An object that is gone or damaged here is read
// from the first of them that has it as it was written.
func (r *Repository) SetReplicas(all ...Replica) {
	r.replicas.all = nil
	clear(r.replicas.failed)
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

// FailOver runs read. If its error says by BadObject that objects are bad, it has each of
// them read from the next replica, and runs read again from its beginning. It ends when
// read does without such an error, or when no replica is left for any of the objects.
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

// reading runs read, which reads one object, as FailOver does. It fails over whatever the
// error, if that says that the object is not as it was written, or comes from a replica.
func (r *Repository) reading(ctx context.Context, o vault.Object, read func() error) error {
	return r.failingOver(ctx, read, func(err error) []*BadObject {
		if err == nil || ctx.Err() != nil || !Corrupt(err) && r.storeOf(o.Name) == r.store {
			return nil
		}
		return []*BadObject{{o, err}}
	})
}

// failingOver runs read, and has the objects that its error names read from their next
// replicas, until there is none.
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

// failovers counts the failovers so far.
func (r *Repository) failovers() int {
	r.replicas.mu.Lock()
	defer r.replicas.mu.Unlock()
	return r.replicas.count
}

// failOver has a bad object read from the next replica that can be opened, and reports
// whether there is one. since is the count of failovers when the reader began: if another
// reader has failed the object over since then, this one tries that replica first.
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
		// Opened without the lock: others do not wait for the network.
		if err := next.open(ctx); err != nil {
			if ctx.Err() != nil {
				return false
			}
			continue
		}
		r.replicas.mu.Lock()
		if now := r.replicas.failed[name]; now == nil || now == f && now.count <= since {
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

// Replaced are the objects that were read from a replica: of those that are named, or of
// all.
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

// Heal makes objects of a backup anew that are gone from this vault and were read from a
// replica, with the bytes that their records are about. It leaves what is damaged, since
// nothing in a vault is ever written over, and all of a backup without a manifest, which
// is this vault's no more. Replaced tells what became of each object. That one can't be
// made anew is no error, since it was read all the same.
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

// maxReplacedNotes bounds how many objects the notes of a proof name.
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
