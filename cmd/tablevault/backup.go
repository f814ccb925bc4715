package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/function/dispatch"
	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/vault"
)

// backupOptions are what `tablevault backup` was asked for.
type backupOptions struct {
	stack    string
	table    string
	kind     string
	new      bool
	settings vault.Settings
}

func backupCommand(s *streams) *cobra.Command {
	var o backupOptions
	c := &cobra.Command{
		Use:   "backup --table INSTANCE/PATTERN",
		Short: "Back tables up, and wait until the backups are sealed",
		Example: "  tablevault backup --stack /tmp/stack --table local/orders\n" +
			"  tablevault backup --table 'prod/*'\n" +
			"  tablevault backup --table prod/events --segment-bytes 1GiB --lanes 16 --new",
		Long: "Back up every table that the pattern names. A backup of the same table and settings that is not sealed is\n" +
			"resumed, unless --new is given.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			made, failed := runBackup(cmd.Context(), s, o)
			if made == nil {
				return failed
			}
			// What one table has met takes nothing from what the others have come to.
			err := s.print(made, func(w io.Writer) {
				for _, r := range made.Backups {
					fmt.Fprintf(w, "sealed: %s of %s, %s as stored (%s in the table's own bytes) in %s: backup %s\n",
						counted(r.Rows, "row"), r.Table, size(r.Bytes), size(r.RawBytes), counted(r.Objects, "object"), r.ID)
					s.printUsage(w, r.Usage)
				}
			})
			return errors.Join(err, failed)
		},
	}
	siteFlags(c, &o.stack)
	c.Flags().StringVar(&o.table, "table", "", "what to back up: instance/table, with * and ? in the table's name")
	c.Flags().StringVar(&o.kind, "kind", "full", "full (incremental is not built into this version)")
	c.Flags().BoolVar(&o.new, "new", false, "begin anew instead of resuming an unsealed backup")
	sizeFlag(c, &o.settings.SegmentBytes, "segment-bytes", "size of a segment, as the service counts it, such as 1GiB (default 512MiB)")
	c.Flags().IntVar(&o.settings.Lanes, "lanes", 0, "ranges of a segment that are read side by side, 1 to 16 (0: as the functions are set)")
	sizeFlag(c, &o.settings.PartBytes, "part-bytes", "size of a shard object, such as 32MiB (default 64MiB)")
	completeTables(c, &o.stack, "table", (*site).live)
	return c
}

// backupsMade is the JSON of `tablevault backup`: what became of each table.
type backupsMade struct {
	Backups  []status.Backup `json:"backups"`
	Failures []tableFailure  `json:"failures,omitempty"`
}

// tableFailure is a table of which there is no backup, and why.
type tableFailure struct {
	Table string `json:"table"`
	Error string `json:"error"`
}

// runBackup backs tables up, each whatever became of the others. The error is of those
// that could not be; what is returned beside it is nil if nothing was tried.
func runBackup(ctx context.Context, s *streams, o backupOptions) (*backupsMade, error) {
	if o.table == "" {
		return nil, usage("--table is missing: name what to back up, for example --table prod/orders")
	}
	if o.kind != string(vault.Full) {
		return nil, usage("--kind %s: this version makes full backups only", o.kind)
	}
	if n := o.settings.SegmentBytes; n != 0 && n < backup.MinSegmentBytes {
		return nil, usage("--segment-bytes is %d bytes: want at least 1MiB, or none for the default", n)
	}
	if n := o.settings.Lanes; n < 0 || n > vault.MaxLanes {
		return nil, usage("--lanes %d: want 1 to %d, or 0 for what the functions are set to", n, vault.MaxLanes)
	}
	site, err := openSite(o.stack)
	if err != nil {
		return nil, err
	}
	tables, err := site.tables(ctx, o.table)
	if err != nil {
		return nil, err
	}
	all := &backupsMade{Backups: []status.Backup{}}
	var failures []error
	for _, name := range tables {
		m, err := backupTable(ctx, s, site, function.Command{
			Kind: function.KindBackup, Table: name, Type: o.kind, New: o.new, Settings: dispatch.Settings(o.settings),
		})
		if err != nil {
			all.Failures = append(all.Failures, tableFailure{name, err.Error()})
			if !strings.Contains(err.Error(), name) {
				err = fmt.Errorf("back up %s: %w", name, err)
			}
			failures = append(failures, err)
			continue
		}
		all.Backups = append(all.Backups, status.OfManifest(m, nil, time.Now()))
	}
	return all, errors.Join(failures...)
}

// backupTable begins a backup and looks at it until it is sealed.
func backupTable(ctx context.Context, s *streams, site *site, cmd function.Command) (*vault.Manifest, error) {
	var r backup.Reply
	if err := site.call(ctx, cmd, &r); err != nil {
		return nil, err
	}
	fmt.Fprintf(s.err, "backup %s of %s\n", r.Backup, r.Table)
	p := s.progress()
	defer p.end()
	watch := site.watchBackup(ctx, r)
	for {
		switch r.State {
		case backup.StateSealed:
			return r.Manifest, nil
		case backup.StateVoid:
			return nil, fmt.Errorf("backup %s was given up: %s", r.Backup, r.LastError)
		case backup.StateFailed:
			return nil, fmt.Errorf("backup %s can't go on: %s; mend that and give the same command again", r.Backup, r.LastError)
		}
		if p.due() {
			p.tell(watch(ctx, &r))
		}
		next := backup.Reply{}
		if err := site.lookAgain(ctx, function.Command{Kind: function.KindTick, Backup: string(r.Backup)}, r.Since, &next); err != nil {
			return nil, err
		}
		r = next
	}
}

// watchBackup returns what says how far a backup has come: by the vault's records, or
// where this key may not read them, by what the planner says.
func (s *site) watchBackup(ctx context.Context, begun backup.Reply) func(context.Context, *backup.Reply) string {
	var watcher *backup.Watcher
	if repo, err := s.repository(ctx); err == nil {
		if t, err := s.id(begun.Table); err == nil {
			watcher = backup.Watch(repo, vault.Backup{Table: t, ID: begun.Backup}, time.Now)
		}
	}
	return func(ctx context.Context, r *backup.Reply) string {
		w := backup.Watched{Backup: r.Backup, Table: r.Table, Progress: r.Progress}
		if watcher != nil {
			if seen, err := watcher.Look(ctx); err == nil {
				w = seen
			}
		}
		return backupLine(&w)
	}
}
