package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/function/dispatch"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/vault"
)

// cancelled is the JSON of `tablevault cancel`.
type cancelled struct {
	Backup  vault.BackupID  `json:"backup,omitempty"`
	Restore vault.RestoreID `json:"restore,omitempty"`
	// Table is what was backed up, or what the restore has made, which stays.
	Table  string `json:"table"`
	Reason string `json:"reason"`
	// Rows were loaded into the table of a restore.
	Rows int64 `json:"rows,omitempty"`
}

func cancelCommand(s *streams) *cobra.Command {
	var dir, reason string
	c := &cobra.Command{
		Use:   "cancel ID",
		Short: "Give up a backup or a restore that runs",
		Long: "Give up a backup or a restore that has not ended: nothing goes on with it, and it can't be taken back.\n\n" +
			"A backup that is given up is no recovery point, and prune removes what there is of it. Of a restore no row is\n" +
			"written after that; the table that it has made stays as it is, for you to drop.",
		Example: "  tablevault cancel 20261120T101400Z-0a1b2c3d --reason 'the wrong table'\n" +
			"  tablevault cancel 20261120T1014     # as much of the id as no other has",
		Args: oneID(1, "the backup or the restore to give up", "`tablevault list` and `tablevault list --restores` show which there are"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := runCancel(cmd.Context(), dir, args[0], reason)
			if err != nil {
				return err
			}
			return s.print(r, func(w io.Writer) {
				if r.Restore == "" {
					fmt.Fprintf(w, "backup %s of %s is given up; workers that are still at it notice when they come to store something.\n", r.Backup, r.Table)
					return
				}
				fmt.Fprintf(w, "restore %s is given up. The table %s stays as it is, with %s written: drop it before anything else is restored to that name.\n",
					r.Restore, r.Table, counted(r.Rows, "row"))
			})
		},
	}
	siteFlags(c, &dir)
	c.ValidArgsFunction = completeIDs(&dir, status.Open, status.BackupKind, status.RestoreKind)
	c.Flags().StringVar(&reason, "reason", "cancelled by a person", "why, for the records")
	return c
}

func runCancel(ctx context.Context, dir, id, reason string) (*cancelled, error) {
	if reason == "" {
		return nil, usage("--reason is empty: say why, for the records")
	}
	if id == status.Latest {
		return nil, usage("cancel takes an id, or the beginning of one, and not %q: `tablevault list` shows what runs", id)
	}
	site, repo, err := openVault(ctx, dir)
	if err != nil {
		return nil, err
	}
	ref, err := find(ctx, repo, id, status.BackupKind, status.RestoreKind)
	if err != nil {
		return nil, err
	}
	cmd := function.Command{Kind: function.KindVoid, Settings: dispatch.Settings(dispatch.Reason{Reason: reason})}
	if ref.Kind == status.BackupKind {
		cmd.Backup = ref.ID
		var m vault.Manifest
		if err := site.call(ctx, cmd, &m); err != nil {
			return nil, err
		}
		if m.State != vault.Void {
			return nil, fmt.Errorf("backup %s of %s is %s, and no longer to be given up: `tablevault prune` deletes backups", ref.ID, ref.Table, m.State)
		}
		return &cancelled{Backup: m.Backup, Table: ref.Table.String(), Reason: m.Reason}, nil
	}
	cmd.Restore = ref.ID
	var r restore.GivenUp
	if err := site.call(ctx, cmd, &r); err != nil {
		return nil, err
	}
	watched, err := restore.Watch(repo, vault.RestoreID(ref.ID), time.Now).Look(ctx)
	if err != nil {
		return nil, err
	}
	if r.Closed == nil || r.Closed.Reason == "" {
		return nil, fmt.Errorf("restore %s into %s is %s: its rows are loaded and proved, and there is nothing to give up", ref.ID, watched.Target, watched.State)
	}
	return &cancelled{Restore: watched.Restore, Table: watched.Target, Reason: r.Closed.Reason, Rows: watched.LoadedRows}, nil
}
