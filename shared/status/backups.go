package status

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/replica"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// Backup is a backup that has ended, in the JSON of commands.
type Backup struct {
	// ID and Backup are the same: by the latter name ids of backups go in all documents.
	ID           vault.BackupID `json:"id"`
	Backup       vault.BackupID `json:"backup"`
	Region       string         `json:"region"`
	Table        string         `json:"table"`
	Kind         vault.Kind     `json:"kind"`
	State        vault.State    `json:"state"`
	Rows         int64          `json:"rows"`
	Bytes        int64          `json:"bytes"`
	RawBytes     int64          `json:"raw_bytes"`
	Objects      int64          `json:"objects"`
	ConsistentAt *time.Time     `json:"consistent_at"`
	Fuzzy        bool           `json:"fuzzy"`
	From         time.Time      `json:"from"`
	To           time.Time      `json:"to"`
	Sealed       time.Time      `json:"sealed,omitzero"`
	// RecoveryPoint is the instant that can be restored, nil if there is none.
	RecoveryPoint *time.Time `json:"recovery_point"`
	// Marked is since when it is marked for deletion, by the store's clock, and no
	// recovery point.
	Marked *time.Time `json:"marked,omitempty"`
	// Ahead says that its id names an instant that is still to come, by which nothing
	// goes.
	Ahead bool `json:"ahead,omitempty"`
	// Error says why its manifest can't be read, in the state Corrupt.
	Error string `json:"error,omitempty"`
	// Usage is what was asked of the vault's store, as far as records tell.
	Usage object.Usage `json:"usage,omitzero"`
}

// Corrupt is the state of a backup whose manifest can't be read.
const Corrupt vault.State = "corrupt"

// OfManifest describes the backup of a manifest. It has a recovery point unless it is
// among the marks of backups that are to be deleted.
func OfManifest(m *vault.Manifest, marks map[vault.Backup]object.Info, now time.Time) Backup {
	b := Backup{
		ID: m.Backup, Backup: m.Backup, Region: m.Table.Region, Sealed: m.Sealed, Table: m.Table.String(), Kind: m.Kind, State: m.State, Rows: m.Totals.Rows, Bytes: m.Totals.StoredBytes,
		RawBytes: m.Totals.RawBytes, Objects: m.Totals.Objects, ConsistentAt: m.ConsistentAt, Fuzzy: m.Fuzzy,
		From: m.Totals.First, To: m.Totals.Latest, Ahead: m.Backup.Ahead(now), Usage: m.Usage,
	}
	if mark, marked := marks[vault.Backup{Table: m.Table, ID: m.Backup}]; marked {
		at := mark.Modified.UTC()
		b.Marked = &at
	} else if m.State == vault.Sealed {
		at := m.RecoveryPoint().UTC()
		b.RecoveryPoint = &at
	}
	return b
}

// Took is how long it took from what asked for it until it was sealed, or given up.
func (b *Backup) Took() time.Duration { return b.Sealed.Sub(b.ID.Time()) }

// instant is what a backup is newer than another one by.
func (b *Backup) instant() time.Time {
	if b.RecoveryPoint != nil {
		return *b.RecoveryPoint
	}
	return b.ID.Time()
}

// Backups are what `tablevault list` tells: the backups that have ended, newest first,
// those that run, and the newest drill of each table.
type Backups struct {
	Backups []Backup         `json:"backups"`
	Running []backup.Watched `json:"running"`
	Drills  []Drill          `json:"drills"`
}

// Damaged is how many backups have a manifest that can't be read.
func (l *Backups) Damaged() (n int) {
	for i := range l.Backups {
		if l.Backups[i].State == Corrupt {
			n++
		}
	}
	return n
}

// Tables are those that a person asks about.
type Tables struct {
	// Text is what was typed, empty for all tables.
	Text string
	// Match says which are meant, as instance/table.
	Match func(table string) bool
	// Only is the table, if it is known to be one.
	Only *vault.TableID
}

// ListBackups lists the backups of tables; with latest, only the newest recovery point of
// each table and what is damaged. Where tables were named and none has a backup, the
// error says which tables have one.
func ListBackups(ctx context.Context, r *repository.Repository, of Tables, latest bool, now func() time.Time) (*Backups, error) {
	ended, err := ended(ctx, r, of, now())
	if err != nil {
		return nil, err
	}
	open := Watchers{now: now}
	for b, err := range r.Open(ctx, of.Only) {
		if err != nil {
			return nil, err
		}
		// What a late list of manifests does not show is among those that have ended by
		// now.
		if of.Match(b.Table.String()) && !slices.ContainsFunc(ended, func(e Backup) bool { return e.ID == b.ID }) {
			open.add(r, Ref{BackupKind, string(b.ID), b.Table})
		}
	}
	l, err := open.Look(ctx)
	if err != nil {
		return nil, err
	}
	if len(ended)+len(l.Backups) == 0 && of.Text != "" {
		return nil, none(ctx, r, of)
	}
	slices.SortStableFunc(ended, func(a, b Backup) int { return cmp.Or(b.instant().Compare(a.instant()), cmp.Compare(b.ID, a.ID)) })
	slices.SortStableFunc(l.Backups, func(a, b backup.Watched) int { return cmp.Compare(b.Backup, a.Backup) })
	if latest {
		ended, l.Backups = newestOfEach(ended), []backup.Watched{}
	}
	drills, err := Drills(ctx, r, of.Only, now())
	drills = slices.DeleteFunc(drills, func(d Drill) bool { return !of.Match(d.Table) })
	return &Backups{ended, l.Backups, drills}, err
}

// ended lists the backups of tables that have a manifest, readable or not.
func ended(ctx context.Context, r *repository.Repository, of Tables, now time.Time) ([]Backup, error) {
	marks, err := r.Marks(ctx, of.Only)
	if err != nil {
		return nil, err
	}
	all := []Backup{}
	for m, err := range r.Manifests(ctx, of.Only) {
		var bad *repository.Damaged
		switch {
		case errors.As(err, &bad):
			all = append(all, Backup{ID: bad.Backup.ID, Backup: bad.Backup.ID, Table: bad.Backup.Table.String(), Region: bad.Backup.Table.Region,
				State: Corrupt, Error: err.Error(), Ahead: bad.Backup.ID.Ahead(now)})
		case err != nil:
			return nil, err
		default:
			all = append(all, OfManifest(m, marks, now))
		}
	}
	return slices.DeleteFunc(all, func(b Backup) bool { return !of.Match(b.Table) }), nil
}

// none is the error that there is no backup of tables.
func none(ctx context.Context, r *repository.Repository, of Tables) error {
	var refs []Ref
	for ref, err := range All(ctx, r, BackupKind) {
		if err != nil {
			return err
		}
		refs = append(refs, ref)
	}
	return fmt.Errorf("there is no backup of %s; %s", of.Text, backedUp(refs))
}

// newestOfEach keeps of backups the newest recovery point of each table, and those that
// are damaged, so that nobody takes them for missing.
func newestOfEach(all []Backup) []Backup {
	newest := map[string]*Backup{}
	for i := range all {
		b := &all[i]
		table := b.Region + "/" + b.Table
		if before := newest[table]; b.RecoveryPoint != nil && (before == nil || b.RecoveryPoint.After(*before.RecoveryPoint)) {
			newest[table] = b
		}
	}
	kept := []Backup{}
	for i := range all {
		if b := &all[i]; b.State == Corrupt || newest[b.Region+"/"+b.Table] == b {
			kept = append(kept, *b)
		}
	}
	return kept
}

// Details are what `tablevault show` tells of a backup.
type Details struct {
	Backup
	Reason   string            `json:"reason,omitempty"`
	Segments int               `json:"segments"`
	Parts    int64             `json:"parts"`
	Digest   string            `json:"digest"`
	Settings *vault.Settings   `json:"settings,omitempty"`
	Key      []string          `json:"key,omitempty"`
	Indexes  []string          `json:"indexes,omitempty"`
	Encrypt  *vault.Encryption `json:"encryption,omitempty"`
	// Copies say how far the backup has come in replicas.
	Copies []replica.State `json:"copies,omitempty"`
	// Drills are the rehearsals that have restored it.
	Drills []Drill `json:"drills,omitempty"`
}

// Describe tells all of a backup that has ended.
func Describe(ctx context.Context, r *repository.Repository, b vault.Backup, now time.Time) (*Details, error) {
	m, _, err := r.Manifest(ctx, b)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("backup %s of %s is not sealed: `tablevault backup --table %s` goes on with it", b.ID, b.Table, b.Table)
	}
	if err != nil {
		return nil, err
	}
	marks, err := r.Marks(ctx, &b.Table)
	if err != nil {
		return nil, err
	}
	d := &Details{Backup: OfManifest(m, marks, now), Reason: m.Reason, Segments: m.Segments, Parts: m.Totals.Parts, Digest: m.Totals.Digest.String()}
	if m.State == vault.Void {
		return d, nil
	}
	if d.Drills, err = DrillsOf(ctx, r, b, now); err != nil {
		return nil, err
	}
	if d.Copies, err = replica.States(ctx, r, m); err != nil {
		return nil, err
	}
	plan, err := r.PlanOf(ctx, m)
	if err != nil {
		return nil, err
	}
	d.Settings, d.Encrypt = &plan.Settings, &plan.Encryption
	for _, c := range plan.Definition.Schema {
		d.Key = append(d.Key, c.Name+" "+string(c.Type))
	}
	for _, i := range plan.Definition.Indexes {
		d.Indexes = append(d.Indexes, i.Name)
	}
	for _, i := range plan.Definition.SearchIndexes {
		d.Indexes = append(d.Indexes, i.Name+" (search)")
	}
	return d, nil
}
