// Package status is what a vault tells people: which backup, restore or verification an
// id means that they have begun to type, and how those go that run.
package status

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// Kind is what an id is of.
type Kind string

// The kinds.
const (
	BackupKind       Kind = "backup"
	RestoreKind      Kind = "restore"
	VerificationKind Kind = "verification"
)

// Ref is what an id means.
type Ref struct {
	Kind Kind
	ID   string
	// Table is what was backed up, of a backup.
	Table vault.TableID
}

// Backup is the backup that is meant.
func (r Ref) Backup() vault.Backup {
	return vault.Backup{Table: r.Table, ID: vault.BackupID(r.ID)}
}

// Latest is the id of the newest; Latest and a colon before a table, instance/table, is
// that of the table's newest backup.
const Latest = "latest"

// ErrAmbiguous matches errors about ids that mean several, ErrForm those about texts that
// no id begins with.
var (
	ErrAmbiguous = errors.New("it means several")
	ErrForm      = errors.New("it is no id")
)

var partID = regexp.MustCompile(`^[0-9][0-9TZa-f-]{0,24}$`)

// IsWhole says whether a text is an id that is written out. Those of all kinds have one
// form.
func IsWhole(text string) bool {
	_, err := vault.ParseBackupID(text)
	return err == nil
}

// Find finds what an id of one of the kinds means: a whole one, the beginning of one, or
// Latest, which is about the first of the kinds. The error matches fs.ErrNotExist where
// there is no such thing, ErrAmbiguous, or ErrForm.
func Find(ctx context.Context, r *repository.Repository, text string, kinds ...Kind) (Ref, error) {
	what := string(kinds[0])
	for i, k := range kinds[1:] {
		if sep := ", "; i == len(kinds)-2 {
			what += " or " + string(k)
		} else {
			what += sep + string(k)
		}
	}
	latest, table, ofTable := strings.Cut(text, ":")
	if ofTable && latest != Latest || !ofTable && text != Latest && !partID.MatchString(text) {
		return Ref{}, fmt.Errorf("%s %q: %w: want the form 20261120T101400Z-0a1b2c3d, as `tablevault list` prints it, the beginning of one, %q, or %q", what, text, ErrForm, Latest, Latest+":INSTANCE/TABLE")
	}
	if ofTable && kinds[0] != BackupKind {
		return Ref{}, fmt.Errorf("%s %q: %w: a table's newest is that of its backups; want an id, the beginning of one, or %q", what, text, ErrForm, Latest)
	}
	if latest == Latest {
		kinds = kinds[:1]
	}
	var found []Ref
	for _, kind := range kinds {
		for ref, err := range All(ctx, r, kind) {
			if err != nil {
				return Ref{}, err
			}
			if latest == Latest || strings.HasPrefix(ref.ID, text) {
				found = append(found, ref)
			}
		}
	}
	if latest == Latest {
		return newest(ctx, r, found, what, table)
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0 && IsWhole(text) && slices.Contains(kinds, BackupKind):
		// A replica may have it.
		b, err := r.FindBackup(ctx, vault.BackupID(text))
		if err != nil {
			return Ref{}, err
		}
		return Ref{BackupKind, text, b.Table}, nil
	case len(found) == 0:
		return Ref{}, fmt.Errorf("there is no %s in this vault whose id begins with %s: `tablevault list` shows what there is: %w", what, text, fs.ErrNotExist)
	}
	slices.SortFunc(found, byNewest)
	ids := make([]string, 0, 4)
	for _, f := range found[:min(len(found), 4)] {
		ids = append(ids, fmt.Sprintf("%s (%s)", f.ID, f))
	}
	if len(found) > len(ids) {
		ids = append(ids, fmt.Sprintf("and %d more", len(found)-len(ids)))
	}
	return Ref{}, fmt.Errorf("%s %s: %w: %s", what, text, ErrAmbiguous, strings.Join(ids, ", "))
}

// String is the kind and, of a backup, its table.
func (r Ref) String() string {
	if r.Kind == BackupKind {
		return "backup of " + r.Table.String()
	}
	return string(r.Kind)
}

// newest is the newest of what was found; of backups, the recovery point that a restore
// would take.
func newest(ctx context.Context, r *repository.Repository, found []Ref, what, table string) (Ref, error) {
	tables := map[string]vault.TableID{}
	last := Ref{}
	for _, f := range found {
		if f.Kind == BackupKind {
			if name := f.Table.String(); table == "" || table == name {
				tables[name] = f.Table
			}
		}
		if f.ID > last.ID {
			last = f
		}
	}
	if table == "" && last.Kind != BackupKind && last.ID != "" {
		return last, nil
	}
	switch len(tables) {
	case 0:
		if table != "" {
			return Ref{}, fmt.Errorf("there is no backup of %s in this vault; %s: %w", table, backedUp(found), fs.ErrNotExist)
		}
		return Ref{}, fmt.Errorf("there is no %s in this vault: %w", what, fs.ErrNotExist)
	case 1:
		for _, t := range tables {
			m, err := r.Latest(ctx, t, time.Time{})
			if err != nil {
				return Ref{}, err
			}
			return Ref{BackupKind, string(m.Backup), t}, nil
		}
	}
	return Ref{}, fmt.Errorf("%s %s: %w: %s: name one, as in %s:%s", what, Latest, ErrAmbiguous, backedUp(found), Latest, last.Table)
}

// backedUp says of which tables there are backups, for people.
func backedUp(refs []Ref) string {
	var names []string
	for _, f := range refs {
		if f.Kind == BackupKind {
			names = append(names, f.Table.String())
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 0 {
		return "the vault has no backup"
	}
	if more := len(names) - 8; more > 0 {
		names = append(names[:8], fmt.Sprintf("and %d more", more))
	}
	return "the vault has backups of " + strings.Join(names, ", ")
}

// prefixes begin the names of what tells that one of a kind was begun. A verification has
// told how far it has come, once at least.
var prefixes = map[Kind]string{
	BackupKind: vault.OpenedPrefix, RestoreKind: vault.RestoringPrefix, VerificationKind: vault.VerificationProgress,
}

// All yields all of a kind that were ever begun, in the order of their names.
func All(ctx context.Context, r *repository.Repository, kind Kind) iter.Seq2[Ref, error] {
	return func(yield func(Ref, error) bool) {
		prefix, seen := prefixes[kind], Ref{}
		for info, err := range r.Store().List(ctx, prefix, "") {
			if err != nil {
				yield(Ref{}, fmt.Errorf("list %s: %w", prefix, err))
				return
			}
			ref := Ref{Kind: kind}
			if kind == BackupKind {
				b, _ := vault.ParseOpened(info.Name)
				ref.Table, ref.ID = b.Table, string(b.ID)
			} else {
				ref.ID, _, _ = strings.Cut(strings.TrimPrefix(info.Name, prefix), "/")
			}
			if ref == seen || !IsWhole(ref.ID) {
				continue // not ours, or one more object of it
			}
			if seen = ref; !yield(ref, nil) {
				return
			}
		}
	}
}

// Open yields the backups or the restores that have not ended.
func Open(ctx context.Context, r *repository.Repository, kind Kind) iter.Seq2[Ref, error] {
	return func(yield func(Ref, error) bool) {
		if kind == RestoreKind {
			r.Restoring(ctx)(func(id vault.RestoreID, err error) bool { return yield(Ref{Kind: kind, ID: string(id)}, err) })
			return
		}
		r.Open(ctx, nil)(func(b vault.Backup, err error) bool { return yield(Ref{kind, string(b.ID), b.Table}, err) })
	}
}

// byNewest orders the newest first.
func byNewest(a, b Ref) int { return cmp.Compare(b.ID, a.ID) }
