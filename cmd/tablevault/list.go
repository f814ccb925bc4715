package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/vault"
)

// listOptions are what `tablevault list` was asked for.
type listOptions struct {
	stack, table     string
	latest, restores bool
	limit            int
}

func listCommand(s *streams) *cobra.Command {
	var o listOptions
	c := &cobra.Command{
		Use:   "list [--table INSTANCE/PATTERN] [--latest | --restores]",
		Short: "List the recovery points in the vault, newest first, and the newest drill of each table; or the restores",
		Example: "  tablevault list --stack /tmp/stack\n" +
			"  tablevault list --table 'prod/*' --latest     # the newest recovery point of each table\n" +
			"  tablevault list --restores",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.restores && o.latest {
				return usage("--latest is about backups, and --restores about restores: take one of the two away")
			}
			if o.limit < 0 || cmd.Flags().Changed("limit") && !o.restores {
				return usage("--limit goes with --restores: want how many of the newest are shown, or 0 for all")
			}
			if o.restores {
				return listRestores(cmd.Context(), s, o)
			}
			l, err := runList(cmd.Context(), o)
			if err != nil {
				return err
			}
			if err := s.print(l, func(w io.Writer) { l.human(w, time.Now()) }); err != nil {
				return err
			}
			return l.damage()
		},
	}
	siteFlags(c, &o.stack)
	c.Flags().StringVar(&o.table, "table", "", "only of these tables: instance/table, with * and ? in the table's name")
	c.Flags().BoolVar(&o.latest, "latest", false, "only the newest recovery point of each table")
	c.Flags().BoolVar(&o.restores, "restores", false, "list restores instead, those that run and those that have ended")
	c.Flags().IntVar(&o.limit, "limit", 50, "with --restores: how many of the newest; 0 for all")
	completeTables(c, &o.stack, "table")
	return c
}

// human prints the backups, newest first, and the drills.
func (l *listing) human(w io.Writer, now time.Time) {
	if len(l.Backups)+len(l.Running) == 0 {
		fmt.Fprintln(w, "There is no backup yet: `tablevault backup --table INSTANCE/TABLE` makes one.")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "BACKUP\tTABLE\tKIND\tSTATE\tROWS\tSTORED\tAGE\tTOOK\tRECOVERY POINT")
	for i := range l.Running {
		r := &l.Running[i]
		fmt.Fprintf(t, "%s\t%s\t\t%s\t%s\t%s\t\t%s\tnot yet: %d of %s%s\n", r.Backup, r.Table, r.State, count(r.Totals.Rows), size(r.Totals.StoredBytes),
			span(now.Sub(r.Begun)), r.Done, counted(int64(r.Segments), "segment"), pacing(r.RowsPerSecond, r.Left, 0, nil, "", r.LastError))
	}
	for _, r := range l.Backups {
		age, took := "", ""
		if r.RecoveryPoint != nil {
			age = span(now.Sub(*r.RecoveryPoint))
		}
		if !r.Sealed.IsZero() {
			took = span(r.took())
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.Table, r.Kind, r.State, count(r.Rows), size(r.Bytes), age, took, recoveryPoint(r))
	}
	t.Flush()
	if len(l.Drills) > 0 {
		fmt.Fprintln(t, "\nTABLE\tDUE\tNEWEST DRILL")
		fmt.Fprint(t, drillLines(l.Drills, now))
		t.Flush()
	}
}

// restoreListing is the JSON of `tablevault list --restores`.
type restoreListing struct {
	Restores []status.Restore `json:"restores"`
	// Older is how many were left out.
	Older int `json:"older"`
}

func listRestores(ctx context.Context, s *streams, o listOptions) error {
	match, err := tableMatch(o.table)
	if err != nil {
		return err
	}
	_, repo, err := openVault(ctx, o.stack)
	if err != nil {
		return err
	}
	var l restoreListing
	if l.Restores, l.Older, err = status.Restores(ctx, repo, o.limit, time.Now); err != nil {
		return err
	}
	if o.table != "" {
		// Whose table is not known may be what is looked for.
		l.Restores = slices.DeleteFunc(l.Restores, func(r status.Restore) bool { return r.Target != "" && !match(r.Source) && !match(r.Target) })
	}
	if err := s.print(l, func(w io.Writer) { l.human(w, o.table) }); err != nil {
		return err
	}
	return l.damage()
}

// human prints the restores, newest first, which are those of a table if it is given.
func (l *restoreListing) human(w io.Writer, table string) {
	if len(l.Restores) == 0 {
		none := "There is no restore yet."
		if table != "" {
			none = "There is no restore of or into " + table + "."
		}
		fmt.Fprintln(w, none)
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "RESTORE\tBACKUP\tOF\tINTO\tSTATE\tROWS\tAGE\tTOOK\tRESULT")
	for i := range l.Restores {
		r := &l.Restores[i]
		took, what := span(time.Since(r.Begun)), r.LastError
		switch {
		case r.State == status.Unreadable:
			took = ""
		case !r.Ended.IsZero():
			took = span(r.Ended.Sub(r.Begun))
		case r.State != restore.StateDone && r.State != restore.StateFailed:
			what = restoreLine(&r.Watched, "")
		}
		if r.Verdict != "" && r.LastError == "" {
			what = string(r.Verdict)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Restore, r.Backup, r.Source, r.Target, r.State, count(r.Rows), span(time.Since(r.Begun)), took, what)
	}
	t.Flush()
	if l.Older > 0 {
		fmt.Fprintf(w, "%s more: --limit 0 shows all.\n", count(int64(l.Older)))
	}
}

// damage is an error with the exit code of corruption if a restore's records are damaged.
func (l *restoreListing) damage() error {
	n := 0
	for i := range l.Restores {
		if l.Restores[i].Corrupt {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return &exit{exitDiffers, fmt.Errorf("the records of %s can't be read", counted(int64(n), "restore"))}
}

// tableMatch says which tables, as instance/table, a pattern means; all if it is empty.
func tableMatch(pattern string) (func(name string) bool, error) {
	if pattern == "" {
		return func(string) bool { return true }, nil
	}
	instance, glob, err := cutPattern(pattern)
	if err != nil {
		return nil, err
	}
	return func(name string) bool {
		i, t, _ := strings.Cut(name, "/")
		match, _ := path.Match(glob, t)
		return i == instance && match
	}, nil
}

// stateCorrupt is that of a backup whose manifest can't be read.
const stateCorrupt vault.State = "corrupt"

// damage is an error with the exit code of corruption if a backup is damaged.
func (l *listing) damage() error {
	n := 0
	for _, r := range l.Backups {
		if r.State == stateCorrupt {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return &exit{exitDiffers, fmt.Errorf("%s of %s can't be restored: `tablevault doctor` says what to do", count(int64(n)), counted(int64(len(l.Backups)), "backup"))}
}

func recoveryPoint(r backupResult) string {
	point := pointOf(r)
	if r.Ahead {
		point += "; its name is of an instant that is still to come"
	}
	return point
}

func pointOf(r backupResult) string {
	switch {
	case r.State == stateCorrupt:
		return "none: " + r.Error
	case r.State == vault.Void:
		return "none: given up"
	case r.Marked != nil:
		return "none: marked for deletion since " + r.Marked.UTC().Format(time.RFC3339)
	case r.ConsistentAt != nil:
		return r.ConsistentAt.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("%s (read from %s on, no change stream)", r.To.UTC().Format(time.RFC3339), r.From.UTC().Format(time.RFC3339))
}

// markedResult is a backup's result that knows of its mark.
func markedResult(m *vault.Manifest, marks map[vault.Backup]object.Info) backupResult {
	r := resultOf(m)
	r.Ahead = m.Backup.Ahead(time.Now())
	if m.State == vault.Sealed {
		at := m.RecoveryPoint().UTC()
		r.RecoveryPoint = &at
	}
	if mark, marked := marks[vault.Backup{Table: m.Table, ID: m.Backup}]; marked {
		at := mark.Modified.UTC()
		r.Marked, r.RecoveryPoint = &at, nil
	}
	return r
}

// listing is what `tablevault list` knows: the backups that have ended, those that
// run, and the newest drill of each table.
type listing struct {
	Backups []backupResult   `json:"backups"`
	Running []backup.Watched `json:"running"`
	Drills  []drillResult    `json:"drills"`
}

func runList(ctx context.Context, o listOptions) (*listing, error) {
	match, err := tableMatch(o.table)
	if err != nil {
		return nil, err
	}
	site, err := openSite(o.stack)
	if err != nil {
		return nil, err
	}
	var only *vault.TableID
	// Without a region the tables of all regions are looked through.
	if o.table != "" && site.region != "" && !strings.ContainsAny(o.table, `*?[\`) {
		id, err := site.id(o.table)
		if err != nil {
			return nil, err
		}
		only = &id
	}
	repo, err := site.repository(ctx)
	if err != nil {
		return nil, err
	}
	marks, err := repo.Marks(ctx, only)
	if err != nil {
		return nil, err
	}
	results := []backupResult{}
	for m, err := range repo.Manifests(ctx, only) {
		var bad *repository.Damaged
		if errors.As(err, &bad) {
			results = append(results, backupResult{ID: bad.Backup.ID, Backup: bad.Backup.ID, Table: bad.Backup.Table.String(), Region: bad.Backup.Table.Region,
				State: stateCorrupt, Error: err.Error(), Ahead: bad.Backup.ID.Ahead(time.Now())})
			continue
		}
		if err != nil {
			return nil, err
		}
		results = append(results, markedResult(m, marks))
	}
	results = slices.DeleteFunc(results, func(r backupResult) bool { return !match(r.Table) })
	var open []*backup.Watcher
	for b, err := range repo.Open(ctx, only) {
		if err != nil {
			return nil, err
		}
		// What a late list of manifests does not show is among the results by now.
		if match(b.Table.String()) && !slices.ContainsFunc(results, func(r backupResult) bool { return r.ID == b.ID }) {
			open = append(open, backup.Watch(repo, b, time.Now))
		}
	}
	l, err := lookAt(ctx, open)
	if err != nil {
		return nil, err
	}
	if len(results)+len(l.Backups) == 0 && o.table != "" {
		var refs []status.Ref
		for ref, err := range status.All(ctx, repo, status.BackupKind) {
			if err != nil {
				return nil, err
			}
			refs = append(refs, ref)
		}
		return nil, fmt.Errorf("there is no backup of %s; %s", o.table, status.Tables(refs))
	}
	slices.SortStableFunc(results, func(a, b backupResult) int { return cmp.Or(b.instant().Compare(a.instant()), cmp.Compare(b.ID, a.ID)) })
	slices.SortStableFunc(l.Backups, func(a, b backup.Watched) int { return cmp.Compare(b.Backup, a.Backup) })
	if o.latest {
		results, l.Backups = latest(results), []backup.Watched{}
	}
	drills, err := newestDrills(ctx, repo, only)
	drills = slices.DeleteFunc(drills, func(d drillResult) bool { return !match(d.Table) })
	return &listing{results, l.Backups, drills}, err
}

// instant is what a backup is newer than another one by.
func (r *backupResult) instant() time.Time {
	if r.RecoveryPoint != nil {
		return *r.RecoveryPoint
	}
	return r.ID.Time()
}

// latest are, of backups, the newest recovery points of each table, and what is damaged:
// nobody shall take that for not there.
func latest(results []backupResult) []backupResult {
	newest := map[string]*backupResult{}
	for i := range results {
		r := &results[i]
		table := r.Region + "/" + r.Table
		if before := newest[table]; r.RecoveryPoint != nil && (before == nil || r.RecoveryPoint.After(*before.RecoveryPoint)) {
			newest[table] = r
		}
	}
	kept := []backupResult{}
	for i := range results {
		if r := &results[i]; r.State == stateCorrupt || newest[r.Region+"/"+r.Table] == r {
			kept = append(kept, *r)
		}
	}
	return kept
}
