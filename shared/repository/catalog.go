package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/vault"
)

// Damaged is a backup whose manifest stands and can't be read. It wraps the error by
// which it can't.
type Damaged struct {
	Backup vault.Backup
	// Written is when the manifest was written, by the store's clock.
	Written time.Time
	Err     error
}

func (d *Damaged) Error() string { return d.Err.Error() }

func (d *Damaged) Unwrap() error { return d.Err }

// Manifests yields the manifests of a table, or of all tables if t is nil, in the order
// of their names: table by table, oldest first. In the place of one that is damaged it
// yields an error of type *Damaged, and goes on. Any other error ends it.
func (r *Repository) Manifests(ctx context.Context, t *vault.TableID) iter.Seq2[*vault.Manifest, error] {
	prefix := vault.ManifestPrefix
	if t != nil {
		prefix = vault.ManifestsOf(*t)
	}
	return func(yield func(*vault.Manifest, error) bool) {
		var some []named
		for info, err := range r.store.List(ctx, prefix, "") {
			if err != nil {
				yield(nil, fmt.Errorf("list %s: %w", prefix, err))
				return
			}
			if b, ok := vault.ParseManifestName(info.Name); ok {
				some = append(some, named{Backup: b, written: info.Modified})
			}
			if len(some) == StatsInFlight {
				if !r.yieldManifests(ctx, some, yield) {
					return
				}
				some = some[:0]
			}
		}
		r.yieldManifests(ctx, some, yield)
	}
}

// ManifestsOf yields the manifests of some backups as Manifests does.
func (r *Repository) ManifestsOf(ctx context.Context, backups []vault.Backup) iter.Seq2[*vault.Manifest, error] {
	return func(yield func(*vault.Manifest, error) bool) {
		for some := range slices.Chunk(backups, StatsInFlight) {
			all := make([]named, len(some))
			for i, b := range some {
				all[i].Backup = b
			}
			if !r.yieldManifests(ctx, all, yield) {
				return
			}
		}
	}
}

func (r *Repository) yieldManifests(ctx context.Context, some []named, yield func(*vault.Manifest, error) bool) bool {
	r.readManifests(ctx, some)
	for _, n := range some {
		switch {
		case errors.Is(n.err, fs.ErrNotExist): // it was deleted since
		case n.err == nil:
			if !yield(n.manifest, nil) {
				return false
			}
		case Corrupt(n.err):
			if !yield(nil, &Damaged{n.Backup, n.written, n.err}) {
				return false
			}
		default:
			yield(nil, n.err)
			return false
		}
	}
	return true
}

// named is a backup whose manifest a list has shown, and the manifest, once it is read.
type named struct {
	vault.Backup
	written  time.Time
	manifest *vault.Manifest
	err      error
}

// readManifests reads some manifests side by side.
func (r *Repository) readManifests(ctx context.Context, some []named) {
	var reads guard.Group
	for i := range some {
		n := &some[i]
		reads.Go(func() error {
			n.err = guard.Do(func() (err error) {
				n.manifest, _, err = r.Manifest(ctx, n.Backup)
				return err
			})
			return nil
		})
	}
	reads.Wait()
}

// Manifest reads the manifest of a backup. The error matches fs.ErrNotExist if the backup
// is not sealed, nor given up.
func (r *Repository) Manifest(ctx context.Context, b vault.Backup) (*vault.Manifest, vault.Object, error) {
	var first error // what is wrong here, not that it is gone there
	var m *vault.Manifest
	var o vault.Object
	err := r.reading(ctx, vault.Object{Name: b.Manifest()}, func() (err error) {
		m = new(vault.Manifest)
		o, err = r.Read(ctx, b.Manifest(), m)
		if err == nil && len(r.replicas.all) > 0 {
			err = r.CheckAsCopied(ctx, b, o)
		}
		first = cmp.Or(first, err)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = first
	}
	if err != nil {
		return nil, o, err
	}
	return m, o, nil
}

// CheckAsCopied holds a manifest against the notes about the backup's copies: no other
// document tells a manifest's hash. Without the right to read the notes, nothing is held
// against them. They are read once, since what they say of a manifest does not change.
func (r *Repository) CheckAsCopied(ctx context.Context, b vault.Backup, o vault.Object) error {
	r.replicas.mu.Lock()
	notes, known := r.replicas.notes[b]
	r.replicas.mu.Unlock()
	if !known {
		var err error
		notes, err = r.CopyNotes(ctx, b)
		if err != nil && !Corrupt(err) && !errors.Is(err, fs.ErrPermission) {
			return err
		}
		r.replicas.mu.Lock()
		r.replicas.notes[b] = notes
		r.replicas.mu.Unlock()
	}
	for _, n := range notes {
		if n.Manifest != o.SHA256 {
			return fmt.Errorf("read %s: %w: its sha256 is %s, it was %s when it was copied to %s", o.Name, vault.ErrCorrupt, o.SHA256, n.Manifest, n.Replica)
		}
	}
	return nil
}

// PlanOf reads the plan that a sealed manifest names.
func (r *Repository) PlanOf(ctx context.Context, m *vault.Manifest) (*vault.Plan, error) {
	if m.Plan == nil {
		return nil, fmt.Errorf("backup %s is %s: it has no rows to restore", m.Backup, m.State)
	}
	var p vault.Plan
	if err := r.ReadExact(ctx, *m.Plan, &p); err != nil {
		return nil, err
	}
	return &p, nil
}

// Groups reads the roll-ups that a sealed manifest names.
func (r *Repository) Groups(ctx context.Context, m *vault.Manifest) iter.Seq2[*vault.Group, error] {
	return func(yield func(*vault.Group, error) bool) {
		for _, o := range m.Groups {
			var g vault.Group
			err := r.ReadExact(ctx, o, &g)
			if !yield(&g, err) || err != nil {
				return
			}
		}
	}
}

// FindBackup finds a backup by its id alone, sealed or not: in this vault, and if it is
// not there, in its replicas.
func (r *Repository) FindBackup(ctx context.Context, id vault.BackupID) (vault.Backup, error) {
	in := func(store object.Store, prefix string, parse func(string) (vault.Backup, bool)) (b vault.Backup, found bool, err error) {
		for info, err := range store.List(ctx, prefix, "") {
			if err != nil {
				return b, false, fmt.Errorf("look for backup %s: %w", id, err)
			}
			if b, ok := parse(info.Name); ok && b.ID == id {
				return b, true, nil
			}
		}
		return b, false, nil
	}
	look := func(store object.Store) (vault.Backup, bool, error) {
		b, found, err := in(store, vault.OpenedPrefix, vault.ParseOpened)
		if found || err != nil {
			return b, found, err
		}
		// One that has lost the mark of its beginning has its manifest.
		b, found, err = in(store, vault.ManifestPrefix, vault.ParseManifestName)
		if errors.Is(err, fs.ErrPermission) {
			err = nil // who may not list manifests goes by the marks
		}
		return b, found, err
	}
	b, found, err := look(r.store)
	if found || err != nil {
		return b, err
	}
	for _, replica := range r.replicas.all {
		if replica.open(ctx) == nil {
			if b, found, _ := look(replica.store); found {
				return b, nil
			}
		}
	}
	return vault.Backup{}, fmt.Errorf("there is no backup %s in this vault: `tablevault list` shows what there is: %w", id, fs.ErrNotExist)
}

// Named finds the backup that somebody has named: by its id, which must be that of the
// table if one is named beside it, or as the [Repository.Latest] of a table.
func (r *Repository) Named(ctx context.Context, id vault.BackupID, t vault.TableID, at time.Time) (vault.Backup, error) {
	if id == "" {
		m, err := r.Latest(ctx, t, at)
		if err != nil {
			return vault.Backup{}, err
		}
		return vault.Backup{Table: t, ID: m.Backup}, nil
	}
	b, err := r.FindBackup(ctx, id)
	if err == nil && t.Table != "" {
		err = b.Of(t.String())
	}
	return b, err
}

// Latest is the sealed backup of a table with the newest recovery point that is not after
// at; a zero at means now. Recovery points count, and not the instants in ids, which
// triggers have told. A backup whose manifest is gone here, and stands in a replica,
// counts; one that is marked for deletion does not.
//
// The error matches fs.ErrNotExist if there is no such backup. It matches
// vault.ErrCorrupt if one that might be the newest is damaged, and then names the newest
// of the others.
//
// No manifest was written before its recovery point. So they are read from the one that
// was written last, until no other can have a newer point: most often one or two.
func (r *Repository) Latest(ctx context.Context, t vault.TableID, at time.Time) (*vault.Manifest, error) {
	all, err := r.listManifests(ctx, t)
	if err != nil {
		return nil, err
	}
	var best *vault.Manifest
	var damaged []*Damaged
	after := func(n named) bool { return best == nil || n.written.Add(vault.ClocksApart).After(best.RecoveryPoint()) }
	for some := 1; len(all) > 0 && after(all[0]); some = min(2*some, StatsInFlight) {
		now := all[:min(some, len(all))]
		all = all[len(now):]
		r.readManifests(ctx, now)
		for _, n := range now {
			bad := n.err != nil && Corrupt(n.err)
			switch {
			case errors.Is(n.err, fs.ErrNotExist):
				continue // it was deleted since
			case n.err != nil && !bad:
				return nil, n.err
			case bad && !at.IsZero() && n.ID.Time().After(at):
				continue // what it would say is of later
			case !bad && (n.manifest.State != vault.Sealed || !at.IsZero() && n.manifest.RecoveryPoint().After(at) || best != nil && !newer(n.manifest, best)):
				continue
			}
			if err := r.CheckNotMarked(ctx, n.Backup); errors.Is(err, ErrMarked) {
				continue
			} else if err != nil {
				return nil, err
			}
			if bad {
				damaged = append(damaged, &Damaged{n.Backup, n.written, n.err})
			} else {
				best = n.manifest
			}
		}
	}
	damaged = slices.DeleteFunc(damaged, func(d *Damaged) bool { return best != nil && older(d, best) })
	switch {
	case len(damaged) > 0:
		return nil, insteadOf(damaged[0], best)
	case best != nil:
		return best, nil
	}
	until := ""
	if !at.IsZero() {
		until = " not later than " + at.UTC().Format(time.RFC3339)
	}
	return nil, fmt.Errorf("there is no sealed backup of %s%s: `tablevault list` shows what there is: %w", t, until, fs.ErrNotExist)
}

// older says whether a damaged backup is surely older than another, by its id and by the
// date of its manifest.
func older(d *Damaged, than *vault.Manifest) bool {
	begun := than.Backup.Time()
	if begun.After(than.RecoveryPoint()) {
		begun = than.RecoveryPoint() // the name tells an instant that was still to come
	}
	return d.Backup.ID.Time().Before(begun) || d.Written.Add(vault.ClocksApart).Before(than.RecoveryPoint())
}

// insteadOf is the error about a damaged backup. It names the one that could be taken
// instead, which is best, if there is any: whoever takes an older one has to ask for it.
func insteadOf(d *Damaged, best *vault.Manifest) error {
	if best == nil {
		return fmt.Errorf("backup %s can't be restored, and there is no other: %w", d.Backup.ID, d.Err)
	}
	return fmt.Errorf("backup %s, which may be the newest, can't be restored: %w; the next older one is %s, whose recovery point is %s: name it (--backup %s) to take that",
		d.Backup.ID, d.Err, best.Backup, best.RecoveryPoint().UTC().Format(time.RFC3339), best.Backup)
}

// newer says whether a backup is newer than another. Where both are of one instant, names
// decide, so that everyone takes the same.
func newer(a, b *vault.Manifest) bool {
	return cmp.Or(a.RecoveryPoint().Compare(b.RecoveryPoint()), strings.Compare(string(a.Backup), string(b.Backup))) > 0
}

// listManifests lists the backups of a table that have a manifest, here or in a replica.
// The one whose manifest was written last comes first.
func (r *Repository) listManifests(ctx context.Context, t vault.TableID) ([]named, error) {
	written := map[vault.Backup]time.Time{}
	list := func(store object.Store) error {
		for info, err := range store.List(ctx, vault.ManifestsOf(t), "") {
			if err != nil {
				return fmt.Errorf("list %s: %w", vault.ManifestsOf(t), err)
			}
			if b, ok := vault.ParseManifestName(info.Name); ok && !info.Modified.Before(written[b]) {
				written[b] = info.Modified
			}
		}
		return nil
	}
	if err := list(r.store); err != nil {
		return nil, err
	}
	for _, replica := range r.replicas.all {
		if replica.open(ctx) == nil {
			_ = list(replica.store) // what it might have is not needed for what is here
		}
	}
	all := make([]named, 0, len(written))
	for b, at := range written {
		all = append(all, named{Backup: b, written: at})
	}
	slices.SortFunc(all, func(a, b named) int {
		return cmp.Or(b.written.Compare(a.written), strings.Compare(string(b.ID), string(a.ID)))
	})
	return all, nil
}

// Begun is a backup that was begun, and whether a list shows that it has ended: that it
// is sealed or given up. Since a list may be late, it may have ended although none shows
// it.
type Begun struct {
	vault.Backup
	Ended bool
}

// Begun yields the backups of a table, or of all tables if t is nil, that were ever
// begun, in the order of their names: table by table, oldest first. It takes two lists,
// each of them a request for every thousand backups.
func (r *Repository) Begun(ctx context.Context, t *vault.TableID) iter.Seq2[Begun, error] {
	opened, manifests := vault.OpenedPrefix, vault.ManifestPrefix
	if t != nil {
		opened, manifests = vault.OpenedOf(*t), vault.ManifestsOf(*t)
	}
	return func(yield func(Begun, error) bool) {
		next, stop := iter.Pull2(r.store.List(ctx, manifests, ""))
		defer stop()
		ended, more := "", true
		advance := func() error {
			for more {
				var info object.Info
				var err error
				if info, err, more = next(); err != nil {
					return fmt.Errorf("list %s: %w", manifests, err)
				}
				if b, ok := vault.ParseManifestName(info.Name); more && ok {
					ended = vault.Opened(b.Table, b.ID)
					return nil
				}
			}
			return nil
		}
		if err := advance(); err != nil {
			yield(Begun{}, err)
			return
		}
		for info, err := range r.store.List(ctx, opened, "") {
			if err != nil {
				yield(Begun{}, fmt.Errorf("list %s: %w", opened, err))
				return
			}
			b, ok := vault.ParseOpened(info.Name)
			if !ok {
				continue
			}
			for more && ended < info.Name {
				if err := advance(); err != nil {
					yield(Begun{}, err)
					return
				}
			}
			if !yield(Begun{b, more && ended == info.Name}, nil) {
				return
			}
		}
	}
}

// Open yields the backups of a table, or of all tables if t is nil, that were begun and
// have not ended, as far as lists show. One that is marked for deletion has ended.
func (r *Repository) Open(ctx context.Context, t *vault.TableID) iter.Seq2[vault.Backup, error] {
	return func(yield func(vault.Backup, error) bool) {
		marks, err := r.Marks(ctx, t)
		if err != nil {
			yield(vault.Backup{}, err)
			return
		}
		for b, err := range r.Begun(ctx, t) {
			if _, marked := marks[b.Backup]; marked && err == nil {
				continue
			}
			if (err != nil || !b.Ended) && !yield(b.Backup, err) || err != nil {
				return
			}
		}
	}
}

// Plan reads the plan of a backup that is not sealed yet.
func (r *Repository) Plan(ctx context.Context, b vault.Backup) (*vault.Plan, vault.Object, error) {
	var p vault.Plan
	o, err := r.Read(ctx, b.Plan(), &p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, o, fmt.Errorf("backup %s of %s has no plan: %w", b.ID, b.Table, err)
	}
	if err != nil {
		return nil, o, err
	}
	return &p, o, nil
}

// CopyNotes are the notes about complete copies of a backup, in the order of their
// replicas' keys. Where some are damaged, or about something else than their names say,
// the error matches vault.ErrCorrupt, and the others are returned beside it.
func (r *Repository) CopyNotes(ctx context.Context, b vault.Backup) ([]vault.CopyNote, error) {
	var notes []vault.CopyNote
	var damaged []error
	for info, err := range r.store.List(ctx, b.CopyNotes(), "") {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", b.CopyNotes(), err)
		}
		if _, _, ok := vault.ParseCopyNote(info.Name); !ok {
			continue
		}
		var n vault.CopyNote
		_, err := r.Read(ctx, info.Name, &n)
		switch {
		case err == nil:
			notes = append(notes, n)
		case Corrupt(err):
			damaged = append(damaged, err)
		default:
			return nil, err
		}
	}
	return notes, errors.Join(damaged...)
}
