package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/copies"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

func listCommand(s *streams) *cobra.Command {
	var dir, table string
	c := &cobra.Command{
		Use:   "list",
		Short: "List the recovery points in the vault, and the newest drill of each table",
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := runList(cmd.Context(), dir, table)
			if err != nil {
				return err
			}
			if err := s.print(l, func(w io.Writer) {
				if len(l.Backups)+len(l.Running) == 0 {
					fmt.Fprintln(w, "There is no backup yet: `tablevault backup --table INSTANCE/TABLE` makes one.")
					return
				}
				t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				fmt.Fprintln(t, "BACKUP\tTABLE\tKIND\tSTATE\tROWS\tSTORED\tRECOVERY POINT")
				for _, r := range l.Backups {
					fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.Table, r.Kind, r.State, count(r.Rows), size(r.Bytes), recoveryPoint(r))
				}
				for _, r := range l.Running {
					fmt.Fprintf(t, "%s\t%s\t\t%s\t%s\t%s\tnot yet: %d of %d segments %s\n", r.Backup, r.Table, r.State, count(r.Totals.Rows), size(r.Totals.StoredBytes), r.Done, r.Segments, r.LastError)
				}
				t.Flush()
				if len(l.Drills) > 0 {
					fmt.Fprintln(t, "\nTABLE\tDUE\tNEWEST DRILL")
					fmt.Fprint(t, drillLines(l.Drills, time.Now()))
					t.Flush()
				}
			}); err != nil {
				return err
			}
			return l.damage()
		},
	}
	siteFlags(c, &dir)
	c.Flags().StringVar(&table, "table", "", "only the backups of instance/table")
	return c
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
	return &exit{exitDiffers, fmt.Errorf("%d of %d backups can't be restored: `tablevault doctor` says what to do", n, len(l.Backups))}
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
	if mark, marked := marks[vault.Backup{Table: m.Table, ID: m.Backup}]; marked {
		at := mark.Modified.UTC()
		r.Marked = &at
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

func runList(ctx context.Context, dir, table string) (*listing, error) {
	site, err := openSite(dir)
	if err != nil {
		return nil, err
	}
	var only *vault.TableID
	if table != "" {
		id, err := site.id(table)
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
			results = append(results, backupResult{ID: bad.Backup.ID, Table: bad.Backup.Table.String(), State: stateCorrupt, Error: err.Error(), Ahead: bad.Backup.ID.Ahead(time.Now())})
			continue
		}
		if err != nil {
			return nil, err
		}
		results = append(results, markedResult(m, marks))
	}
	var open []*backup.Watcher
	for b, err := range repo.Open(ctx, only) {
		if err != nil {
			return nil, err
		}
		// What a late list of manifests does not show is among the results by now.
		if !slices.ContainsFunc(results, func(r backupResult) bool { return r.ID == b.ID }) {
			open = append(open, backup.Watch(repo, b, time.Now))
		}
	}
	l, err := lookAt(ctx, open)
	if err != nil {
		return nil, err
	}
	drills, err := newestDrills(ctx, repo, only)
	return &listing{results, l.Backups, drills}, err
}

// shown is what `tablevault show` knows of a backup.
type shown struct {
	backupResult
	Sealed   time.Time         `json:"sealed"`
	Reason   string            `json:"reason,omitempty"`
	Segments int               `json:"segments"`
	Parts    int64             `json:"parts"`
	Digest   string            `json:"digest"`
	Settings *vault.Settings   `json:"settings,omitempty"`
	Key      []string          `json:"key,omitempty"`
	Indexes  []string          `json:"indexes,omitempty"`
	Encrypt  *vault.Encryption `json:"encryption,omitempty"`
	// Copies say how far the backup has come in further vaults.
	Copies []copies.State `json:"copies,omitempty"`
	// Drills are the rehearsals that have restored it.
	Drills []drillResult `json:"drills,omitempty"`
}

func showCommand(s *streams) *cobra.Command {
	var dir string
	var watch bool
	var every time.Duration
	c := &cobra.Command{
		Use:   "show BACKUP | show --watch [BACKUP]",
		Short: "Show one backup; or watch it, or all that run, until they have ended",
		Long: "Show one backup. With --watch, show how far it has come, from the vault's records, until it has ended; without a\n" +
			"backup, all that run. On a terminal there is a row for each backup; with --json, a line of JSON for each look.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if watch {
				return runWatch(cmd.Context(), s, dir, strings.Join(args, ""), every)
			}
			if len(args) == 0 {
				return usage("name a backup, or give --watch to see all that run")
			}
			r, err := runShow(cmd.Context(), dir, args[0])
			if err != nil {
				return err
			}
			return s.print(r, func(w io.Writer) {
				t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				line := func(name, value any) { fmt.Fprintf(t, "%v\t%v\n", name, value) }
				line("backup", r.ID)
				line("table", r.Table)
				line("kind", r.Kind)
				line("state", r.State)
				if r.Reason != "" {
					line("reason", r.Reason)
				}
				line("recovery point", recoveryPoint(r.backupResult))
				line("rows", count(r.Rows))
				line("stored", fmt.Sprintf("%s in %d objects, of %s", size(r.Bytes), r.Objects, size(r.RawBytes)))
				if r.Usage != (vault.Usage{}) {
					line("requests", requests(r.Usage))
				}
				line("segments", fmt.Sprintf("%d, in %d parts", r.Segments, r.Parts))
				line("digest", r.Digest)
				line("primary key", r.Key)
				if len(r.Indexes) > 0 {
					line("indexes", r.Indexes)
				}
				for _, c := range r.Copies {
					line("copy", copyLine(c))
				}
				for i := range r.Drills {
					line("drill", r.Drills[i].line(time.Now()))
				}
				t.Flush()
			})
		},
	}
	c.Flags().BoolVar(&watch, "watch", false, "look again and again until it has ended")
	c.Flags().DurationVar(&every, "every", 2*time.Second, "the pause between two looks")
	siteFlags(c, &dir)
	return c
}

func copyLine(c copies.State) string {
	switch {
	case c.State == copies.StateCopied:
		return fmt.Sprintf("%s: whole since %s, %s", c.Target, c.At.UTC().Format(time.RFC3339), size(c.Bytes))
	case c.Error != "":
		return fmt.Sprintf("%s: %d of %d groups; failed: %s", c.Target, c.Copied, c.Groups, c.Error)
	}
	return fmt.Sprintf("%s: %d of %d groups", c.Target, c.Copied, c.Groups)
}

func runShow(ctx context.Context, dir, id string) (*shown, error) {
	parsed, err := vault.ParseBackupID(id)
	if err != nil {
		return nil, &exit{exitUsage, err}
	}
	site, err := openSite(dir)
	if err != nil {
		return nil, err
	}
	repo, err := site.repository(ctx)
	if err != nil {
		return nil, err
	}
	b, err := repo.FindBackup(ctx, parsed)
	if err != nil {
		return nil, err
	}
	m, _, err := repo.Manifest(ctx, b)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("backup %s of %s is not sealed: `tablevault backup --table %s` goes on with it", b.ID, b.Table, b.Table)
	}
	if err != nil {
		return nil, err
	}
	marks, err := repo.Marks(ctx, &b.Table)
	if err != nil {
		return nil, err
	}
	r := &shown{backupResult: markedResult(m, marks), Sealed: m.Sealed, Reason: m.Reason, Segments: m.Segments, Parts: m.Totals.Parts, Digest: m.Totals.Digest.String()}
	if m.State == vault.Void {
		return r, nil
	}
	if r.Drills, err = drillsOf(ctx, repo, b); err != nil {
		return nil, err
	}
	if r.Copies, err = copies.States(ctx, repo, m); err != nil {
		return nil, err
	}
	plan, err := repo.PlanOf(ctx, m)
	if err != nil {
		return nil, err
	}
	r.Settings, r.Encrypt = &plan.Settings, &plan.Encryption
	for _, c := range plan.Definition.Schema {
		r.Key = append(r.Key, c.Name+" "+string(c.Type))
	}
	for _, i := range plan.Definition.Indexes {
		r.Indexes = append(r.Indexes, i.Name)
	}
	for _, i := range plan.Definition.SearchIndexes {
		r.Indexes = append(r.Indexes, i.Name+" (search)")
	}
	return r, nil
}

// count prints a number with its thousands apart.
func count(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// size prints a number of bytes.
func size(n int64) string {
	f := float64(n)
	for _, unit := range []string{"B", "kB", "MB", "GB", "TB"} {
		if f < 1000 || unit == "TB" {
			if unit == "B" {
				return fmt.Sprintf("%d B", n)
			}
			return fmt.Sprintf("%.1f %s", f, unit)
		}
		f /= 1000
	}
	panic("unreachable")
}

// requests prints what was asked of a store.
func requests(u vault.Usage) string {
	var kinds []string
	for _, k := range []struct {
		name string
		n    int64
	}{{"create", u.Create}, {"open", u.Open}, {"stat", u.Stat}, {"list", u.List}, {"delete", u.Delete}} {
		if k.n > 0 {
			kinds = append(kinds, count(k.n)+" "+k.name)
		}
	}
	return fmt.Sprintf("%s (%s), %s written, %s read", count(u.Requests()), strings.Join(kinds, ", "), size(u.Written), size(u.Read))
}

// printUsage prints below a result what it asked of the store, if that was counted.
func printUsage(w io.Writer, u vault.Usage) {
	if u != (vault.Usage{}) {
		fmt.Fprintf(w, "  requests to the store: %s\n", requests(u))
	}
}

// bar shows progress on a terminal, and nothing elsewhere.
type bar struct {
	bar *progressbar.ProgressBar
}

func (s *streams) progress(what string, steps int) *bar {
	f, ok := s.err.(*os.File)
	if s.json || !ok || !term.IsTerminal(int(f.Fd())) {
		return &bar{}
	}
	return &bar{progressbar.NewOptions(max(steps, 1), progressbar.OptionSetWriter(f), progressbar.OptionSetDescription(what),
		progressbar.OptionShowElapsedTimeOnFinish(), progressbar.OptionSetWidth(30), progressbar.OptionClearOnFinish())}
}

func (b *bar) set(done int, note string) {
	if b.bar != nil {
		b.bar.Describe(note)
		b.bar.Set(done)
	}
}

func (b *bar) close() {
	if b.bar != nil {
		b.bar.Finish()
	}
}
