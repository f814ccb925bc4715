package status

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// Level is how a check came out.
type Level string

// The levels.
const (
	Fine    Level = "ok"
	Warning Level = "warning"
	Failure Level = "failure"
)

// Finding is one line of `tablevault doctor`.
type Finding struct {
	// Check is what was looked at: a word that stays the same. About is the one of
	// several.
	Check string `json:"check"`
	About string `json:"about,omitempty"`
	Level Level  `json:"level"`
	Text  string `json:"text"`
	// Fix is what to do about it; empty if all is well.
	Fix string `json:"fix,omitempty"`
}

// Diagnosis is what `tablevault doctor` tells.
type Diagnosis struct {
	Checks []Finding `json:"checks"`
	OK     bool      `json:"ok"` // none of them is a failure
}

// Known is what is known of the tables that a vault is for, and of the backups in it.
type Known struct {
	Region string
	Policy *policy.Policy // nil without one
	// Tables are those of each instance that could be listed.
	Tables map[string][]string
	// Backups are those of each table that have a manifest, oldest first.
	Backups map[vault.TableID][]vault.BackupID
}

// Ended lists the backups that have a manifest, by their tables, oldest first. It reads
// no manifest.
func Ended(ctx context.Context, store object.Store) (map[vault.TableID][]vault.BackupID, error) {
	ended := map[vault.TableID][]vault.BackupID{}
	for info, err := range store.List(ctx, vault.ManifestPrefix, "") {
		if err != nil {
			return ended, err
		}
		if b, ok := vault.ParseManifestName(info.Name); ok {
			ended[b.Table] = append(ended[b.Table], b.ID)
		}
	}
	return ended, nil
}

// Rules are those of the policy, none without one.
func (k *Known) Rules() []*policy.Rule {
	if k.Policy == nil {
		return nil
	}
	return k.Policy.Rules
}

// Instances are those that the policy and the vault know of.
func (k *Known) Instances() []string {
	var names []string
	for _, r := range k.Rules() {
		names = append(names, r.Instances()...)
		if r.Drill != nil {
			instance, _ := r.Drill.Place()
			names = append(names, instance)
		}
	}
	for t := range k.Backups {
		if t.Region == k.Region {
			names = append(names, t.Instance)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Wanted says whether a table is backed up by the policy.
func (k *Known) Wanted(instance, name string) bool {
	return slices.ContainsFunc(k.Rules(), func(r *policy.Rule) bool { return r.Match(instance, name) })
}

// BackedUp lists the tables that are to have a recovery point, in order: where the policy
// and the instance's tables are known, those that the policy wants, and else all that the
// vault has.
func (k *Known) BackedUp() []vault.TableID {
	tables := slices.Collect(maps.Keys(k.Backups))
	if k.Policy != nil {
		tables = slices.DeleteFunc(tables, func(t vault.TableID) bool {
			names, known := k.Tables[t.Instance]
			return t.Region == k.Region && !(k.Wanted(t.Instance, t.Table) && (!known || slices.Contains(names, t.Table)))
		})
		for instance, names := range k.Tables {
			for _, name := range names {
				if t := (vault.TableID{Region: k.Region, Instance: instance, Table: name}); k.Wanted(instance, name) && !slices.Contains(tables, t) {
					tables = append(tables, t)
				}
			}
		}
	}
	slices.SortFunc(tables, byPath)
	return tables
}

// Others lists the tables that the vault has backups of, and that are not among those, in
// order.
func (k *Known) Others(than []vault.TableID) []vault.TableID {
	tables := slices.DeleteFunc(slices.Collect(maps.Keys(k.Backups)), func(t vault.TableID) bool { return slices.Contains(than, t) })
	slices.SortFunc(tables, byPath)
	return tables
}

func byPath(a, b vault.TableID) int { return strings.Compare(a.Path(), b.Path()) }

// Rehearsed yields the tables that the policy has drills for, each with the first rule
// that says so.
func (k *Known) Rehearsed() iter.Seq2[vault.TableID, *policy.Rule] {
	return func(yield func(vault.TableID, *policy.Rule) bool) {
		seen := map[vault.TableID]bool{}
		for _, r := range k.Rules() {
			if r.Drill == nil {
				continue
			}
			for _, instance := range r.Instances() {
				for _, name := range k.Tables[instance] {
					t := vault.TableID{Region: k.Region, Instance: instance, Table: name}
					if !r.Match(instance, name) || seen[t] {
						continue
					}
					if seen[t] = true; !yield(t, r) {
						return
					}
				}
			}
		}
	}
}

// overdue is for how long backups may be due before it is asked whether prune is run at
// all: marking and deleting take a day and two runs.
const overdue = 48 * time.Hour

// Overdue counts, by their names, the backups whose time was over two days ago by the
// policy, and tells the instant of the oldest.
func (k *Known) Overdue(now time.Time) (count int, oldest time.Time) {
	for t, ids := range k.Backups {
		for _, r := range k.Rules() {
			if r.Keep.For == 0 {
				continue
			}
			limit := now.Add(-r.Keep.For - overdue)
			var old []time.Time
			for _, id := range ids {
				if at := id.Time(); at.Before(limit) && r.Made(k.Region, vault.Backup{Table: t, ID: id}) {
					old = append(old, at)
				}
			}
			// The newest stay whatever their age: where the window begins, and in any
			// case.
			if n := len(old) - max(2, r.Keep.AtLeast); n > 0 {
				count += n
				if oldest.IsZero() || old[0].Before(oldest) {
					oldest = old[0]
				}
			}
		}
	}
	return count, oldest
}

// Ahead are the ids of a table's backups that are named by an instant which is still to
// come.
func (k *Known) Ahead(t vault.TableID, now time.Time) (ids []string) {
	for _, id := range k.Backups[t] {
		if id.Ahead(now) {
			ids = append(ids, string(id))
		}
	}
	return ids
}

// Named is the newest instant in the names of a table's backups, zero if there is none. A
// name tells when the backup was asked for, and that is all that is known to a key that
// may list manifests but not read them.
func (k *Known) Named(t vault.TableID, now time.Time) time.Time {
	for _, id := range slices.Backward(k.Backups[t]) {
		if !id.Ahead(now) {
			return id.Time()
		}
	}
	return time.Time{}
}

// RecoveryPoint reads the newest recovery point of a table, zero if there is none; a
// backup that is marked for deletion is none. Damaged are the backups that can't be read
// and are not marked; those that were found are returned beside an error, too.
func (k *Known) RecoveryPoint(ctx context.Context, r *repository.Repository, t vault.TableID) (at time.Time, damaged []*repository.Damaged, err error) {
	var backups []vault.Backup
	for _, id := range k.Backups[t] {
		backups = append(backups, vault.Backup{Table: t, ID: id})
	}
	var sealed []*vault.Manifest
	for m, err := range r.ManifestsOf(ctx, backups) {
		var bad *repository.Damaged
		switch {
		case errors.As(err, &bad):
			err := r.CheckNotMarked(ctx, bad.Backup)
			if err == nil {
				damaged = append(damaged, bad)
			} else if !errors.Is(err, repository.ErrMarked) {
				return at, damaged, err
			}
		case err != nil:
			return at, damaged, err
		case m.State == vault.Sealed:
			sealed = append(sealed, m)
		}
	}
	slices.SortFunc(sealed, func(a, b *vault.Manifest) int { return b.RecoveryPoint().Compare(a.RecoveryPoint()) })
	for _, m := range sealed {
		err := r.CheckNotMarked(ctx, vault.Backup{Table: t, ID: m.Backup})
		if err == nil {
			return m.RecoveryPoint(), damaged, nil
		}
		if !errors.Is(err, repository.ErrMarked) {
			return at, damaged, err
		}
	}
	return at, damaged, nil
}
