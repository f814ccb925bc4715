package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/replica"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/vault"
)

func showCommand(s *streams) *cobra.Command {
	var dir string
	var watch bool
	var every time.Duration
	c := &cobra.Command{
		Use:   "show ID | show --watch [ID]",
		Short: "Show a backup, a restore or a verification; or watch it, or all that run, until they have ended",
		Long: "Show a backup, a restore or a verification: by its id, by as much of the beginning as no other has, or, of a backup,\n" +
			"by latest:INSTANCE/TABLE. With --watch, show how far it has come, from the vault's records, until it has ended;\n" +
			"without an id, all backups and restores that run. On a terminal there is a row for each; with --json, a line of JSON\n" +
			"for each look.",
		Example: "  tablevault show latest:prod/orders\n" +
			"  tablevault show --watch\n" +
			"  tablevault show --watch 20261120T1014",
		Args: oneID(0, "a backup, a restore or a verification", "`tablevault list` shows which there are"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if watch {
				return runWatch(cmd.Context(), s, dir, strings.Join(args, ""), every)
			}
			if cmd.Flags().Changed("every") {
				return usage("--every goes with --watch")
			}
			if len(args) == 0 {
				return usage("name a backup, a restore or a verification, or give --watch to see all that run")
			}
			return runShow(cmd.Context(), s, dir, args[0])
		},
		ValidArgsFunction: completeIDs(&dir, status.All, status.BackupKind, status.RestoreKind, status.VerificationKind),
	}
	c.Flags().BoolVar(&watch, "watch", false, "look again and again until it has ended")
	c.Flags().DurationVar(&every, "every", 2*time.Second, "the pause between two looks")
	siteFlags(c, &dir)
	return c
}

// runShow shows what an id means.
func runShow(ctx context.Context, s *streams, dir, id string) error {
	_, repo, err := openVault(ctx, dir)
	if err != nil {
		return err
	}
	ref, err := find(ctx, repo, id, status.BackupKind, status.RestoreKind, status.VerificationKind)
	if err != nil {
		return err
	}
	switch ref.Kind {
	case status.RestoreKind:
		r, err := restore.Watch(repo, vault.RestoreID(ref.ID), time.Now).Look(ctx)
		if err != nil {
			return err
		}
		return s.print(r, func(w io.Writer) { showRestore(s, w, &r) })
	case status.VerificationKind:
		v, err := status.WatchVerification(repo, vault.VerificationID(ref.ID), time.Now).Look(ctx)
		if err != nil {
			return err
		}
		return s.print(v, func(w io.Writer) {
			if v.Proof == nil {
				fmt.Fprintf(w, "verification %s  %s: %s; it told so last at %s\n", v.Verification, v.State, verificationLine(&v, 0), v.Heard.Format(time.RFC3339))
				return
			}
			r := verified(v.Verification, v.Proof)
			r.human(w)
			s.printUsage(w, r.Usage)
		})
	}
	r, err := status.Describe(ctx, repo, ref.Backup(), time.Now())
	if err != nil {
		return err
	}
	return s.print(r, func(w io.Writer) { showBackup(s, w, r) })
}

// showRestore prints a restore for people.
func showRestore(s *streams, w io.Writer, r *restore.Watched) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, value any) { fmt.Fprintf(t, "%v\t%v\n", name, value) }
	line("restore", r.Restore)
	line("backup", fmt.Sprintf("%s of %s", r.Backup, r.Source))
	line("table", r.Target)
	state := r.State
	if r.State != restore.StateDone && r.State != restore.StateFailed {
		state += ": " + restoreLine(r, "")
	}
	line("state", state)
	if r.Verdict != "" {
		line("verdict", r.Verdict)
	}
	if r.LastError != "" {
		line("error", r.LastError)
	}
	line("rows", fmt.Sprintf("%s, of which %s loaded and %s compared", count(r.Rows), count(r.LoadedRows), count(r.CheckedRows)))
	if r.Quarantined > 0 {
		line("quarantined", count(r.Quarantined))
	}
	line("begun", instant(r.Begun))
	if !r.Ended.IsZero() {
		line("ended", fmt.Sprintf("%s, after %s", instant(r.Ended), span(r.Ended.Sub(r.Begun))))
	}
	if r.Proof != "" {
		line("proof", r.Proof)
	}
	if s.verbose && r.Usage != (object.Usage{}) {
		line("requests", requests(r.Usage))
	}
	for _, n := range r.Notes {
		line("note", n)
	}
	t.Flush()
}

// instant prints an instant, and how long ago it was.
func instant(at time.Time) string {
	return fmt.Sprintf("%s, %s ago", at.UTC().Format(time.RFC3339), span(time.Since(at)))
}

// showBackup prints a backup for people.
func showBackup(s *streams, w io.Writer, r *status.Details) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, value any) { fmt.Fprintf(t, "%v\t%v\n", name, value) }
	line("backup", r.ID)
	line("table", r.Table)
	line("kind", r.Kind)
	line("state", r.State)
	if r.Reason != "" {
		line("reason", r.Reason)
	}
	line("recovery point", recoveryPoint(&r.Backup))
	line("rows", count(r.Rows))
	line("stored", fmt.Sprintf("%s in %s, of %s", size(r.Bytes), counted(r.Objects, "object"), size(r.RawBytes)))
	line("sealed", fmt.Sprintf("%s, after %s", instant(r.Sealed), span(r.Took())))
	if s.verbose && r.Usage != (object.Usage{}) {
		line("requests", requests(r.Usage))
	}
	line("segments", fmt.Sprintf("%s, in %s", count(int64(r.Segments)), counted(r.Parts, "part")))
	line("digest", r.Digest)
	line("primary key", strings.Join(r.Key, ", "))
	if len(r.Indexes) > 0 {
		line("indexes", strings.Join(r.Indexes, ", "))
	}
	for _, c := range r.Copies {
		line("copy", copyLine(c))
	}
	for i := range r.Drills {
		line("drill", drillLine(&r.Drills[i], time.Now()))
	}
	t.Flush()
}

func copyLine(c replica.State) string {
	switch {
	case c.State == replica.StateCopied:
		return fmt.Sprintf("%s: whole since %s, %s", c.Replica, c.At.UTC().Format(time.RFC3339), size(c.Bytes))
	case c.Error != "":
		return fmt.Sprintf("%s: %d of %d groups; failed: %s", c.Replica, c.Copied, c.Groups, c.Error)
	}
	return fmt.Sprintf("%s: %d of %d groups", c.Replica, c.Copied, c.Groups)
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
func requests(u object.Usage) string {
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

// printUsage prints below a result what it asked of the store, if that was counted and
// somebody wants to know.
func (s *streams) printUsage(w io.Writer, u object.Usage) {
	if s.verbose && u != (object.Usage{}) {
		fmt.Fprintf(w, "  requests to the store: %s\n", requests(u))
	}
}
