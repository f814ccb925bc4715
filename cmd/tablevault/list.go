package main

import (
	"context"
	"fmt"
	"io"
	"path"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

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
			if err := s.print(l, func(w io.Writer) { humanBackups(w, l, time.Now()) }); err != nil {
				return err
			}
			if n := l.Damaged(); n > 0 {
				return &exit{exitDiffers, fmt.Errorf("%s of %s can't be restored: `tablevault doctor` says what to do", count(int64(n)), counted(int64(len(l.Backups)), "backup"))}
			}
			return nil
		},
	}
	siteFlags(c, &o.stack)
	c.Flags().StringVar(&o.table, "table", "", "only of these tables: instance/table, with * and ? in the table's name")
	c.Flags().BoolVar(&o.latest, "latest", false, "only the newest recovery point of each table")
	c.Flags().BoolVar(&o.restores, "restores", false, "list restores instead, those that run and those that have ended")
	c.Flags().IntVar(&o.limit, "limit", 50, "with --restores: how many of the newest; 0 for all")
	completeTables(c, &o.stack, "table", (*site).backedUp)
	return c
}

// humanBackups prints the backups, newest first, and the drills.
func humanBackups(w io.Writer, l *status.Backups, now time.Time) {
	if len(l.Backups)+len(l.Running) == 0 {
		fmt.Fprintln(w, "There is no backup yet: `tablevault backup --table INSTANCE/TABLE` makes one.")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "BACKUP\tTABLE\tKIND\tSTATE\tROWS\tSTORED\tAGE\tTOOK\tRECOVERY POINT")
	for i := range l.Running {
		r := &l.Running[i]
		fmt.Fprintf(t, "%s\t%s\t\t%s\t%s\t%s\t\t%s\tnot yet: %d of %s%s\n", r.Backup, r.Table, r.State, count(r.Totals.Rows), size(r.Totals.StoredBytes),
			span(now.Sub(r.Begun)), r.Done, counted(int64(r.Segments), "segment"), going{rowsPerSecond: r.RowsPerSecond, left: r.Left, lastError: r.LastError})
	}
	for i := range l.Backups {
		r := &l.Backups[i]
		age, took := "", ""
		if r.RecoveryPoint != nil {
			age = span(now.Sub(*r.RecoveryPoint))
		}
		if !r.Sealed.IsZero() {
			took = span(r.Took())
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.Table, r.Kind, r.State, count(r.Rows), size(r.Bytes), age, took, recoveryPoint(r))
	}
	t.Flush()
	if len(l.Drills) > 0 {
		fmt.Fprintln(t, "\nTABLE\tDUE\tNEWEST DRILL")
		for i := range l.Drills {
			d := &l.Drills[i]
			fmt.Fprintf(t, "%s\t%s\t%s\n", d.Table, d.Due.UTC().Format(time.RFC3339), drillLine(d, now))
		}
		t.Flush()
	}
}

func listRestores(ctx context.Context, s *streams, o listOptions) error {
	tables, err := tablesOf(o.table)
	if err != nil {
		return err
	}
	_, repo, err := openVault(ctx, o.stack)
	if err != nil {
		return err
	}
	l, err := status.ListRestores(ctx, repo, tables, o.limit, time.Now)
	if err != nil {
		return err
	}
	if err := s.print(l, func(w io.Writer) { humanRestores(w, l, o.table) }); err != nil {
		return err
	}
	if n := l.Damaged(); n > 0 {
		return &exit{exitDiffers, fmt.Errorf("the records of %s can't be read", counted(int64(n), "restore"))}
	}
	return nil
}

// humanRestores prints the restores, newest first, which are those of a table if it is
// given.
func humanRestores(w io.Writer, l *status.Restores, table string) {
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
			what = restoreLine(r, "")
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

// tablesOf are the tables that a pattern means; all if it is empty.
func tablesOf(pattern string) (status.Tables, error) {
	if pattern == "" {
		return status.Tables{Match: func(string) bool { return true }}, nil
	}
	instance, glob, err := cutPattern(pattern)
	return status.Tables{Text: pattern, Match: func(name string) bool {
		id, err := vault.ParseTable("", name)
		match, _ := path.Match(glob, id.Table)
		return err == nil && id.Instance == instance && match
	}}, err
}

func recoveryPoint(r *status.Backup) string {
	point := pointOf(r)
	if r.Ahead {
		point += "; its name is of an instant that is still to come"
	}
	return point
}

func pointOf(r *status.Backup) string {
	switch {
	case r.State == status.Corrupt:
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

func runList(ctx context.Context, o listOptions) (*status.Backups, error) {
	tables, err := tablesOf(o.table)
	if err != nil {
		return nil, err
	}
	site, err := openSite(o.stack)
	if err != nil {
		return nil, err
	}
	// Without a region the tables of all regions are looked through.
	if o.table != "" && site.env.Region != "" && !strings.ContainsAny(o.table, `*?[\`) {
		id, err := site.id(o.table)
		if err != nil {
			return nil, err
		}
		tables.Only = &id
	}
	repo, err := site.repository(ctx)
	if err != nil {
		return nil, err
	}
	return status.ListBackups(ctx, repo, tables, o.latest, time.Now)
}
