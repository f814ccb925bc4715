package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/prune"
)

// pruneOptions are what `tablevault prune` was asked for.
type pruneOptions struct {
	stack, policy, table, keep, grace string
	apply                             bool
}

func pruneCommand(s *streams) *cobra.Command {
	var o pruneOptions
	c := &cobra.Command{
		Use:   "prune [--table INSTANCE/PATTERN [--keep 72h]] [--apply]",
		Short: "Delete the backups that the policy keeps no longer; without --apply, say which",
		Long: "Delete backups whose time is over by the policy's `keep`, or, for the tables that --table names, by --keep.\n\n" +
			"Without --apply nothing is changed: each backup is listed with what would become of it, and why. With --apply those\n" +
			"that are due are marked, which ends their being recovery points; a run that comes a grace later deletes what is\n" +
			"marked, is still due, and is used by nothing. So prune is to be run again and again, by cron for example, with a key\n" +
			"that may do what docs/ram/prune.json says. The newest backup of a table stays, whatever its age, and so does the\n" +
			"newest one from before the time that is kept, so that all of that time can be restored.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := runPrune(cmd.Context(), s, o)
			if r == nil {
				return err
			}
			if perr := s.print(r, func(w io.Writer) { humanPrune(w, r) }); perr != nil {
				return errors.Join(err, perr)
			}
			if err == nil && len(r.Failures) > 0 {
				err = &exit{exitFailed, fmt.Errorf("%s went wrong: run prune again when that is mended, it goes on", counted(int64(len(r.Failures)), "thing"))}
			}
			return err
		},
	}
	siteFlags(c, &o.stack)
	c.Flags().StringVar(&o.policy, "policy", "", "the policy to go by; default that of the local stack, TABLEVAULT_POLICY, or tablevault.yaml here if there is one")
	c.Flags().StringVar(&o.table, "table", "", "only the backups of these tables: instance/table, with * and ? in the table's name")
	c.Flags().StringVar(&o.keep, "keep", "", "for how long backups are kept, such as 72h or '30 days', instead of what the policy says; goes with --table")
	c.Flags().StringVar(&o.grace, "grace", "24h", "how long a backup stays marked before it goes; at least 1h, longer than a verification or a copy takes")
	completeTables(c, &o.stack, "table", (*site).backedUp)
	c.Flags().BoolVar(&o.apply, "apply", false, "mark and delete; without it, say what would be")
	return c
}

// runPrune returns what was found and done also where an error ended the run.
func runPrune(ctx context.Context, s *streams, o pruneOptions) (*prune.Report, error) {
	p := &prune.Pruner{Now: time.Now, Log: slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	duration := func(flag, text string) (time.Duration, error) {
		d, err := policy.ParseDuration(text)
		if err != nil {
			return 0, usage("--%s: %v", flag, err)
		}
		return d, nil
	}
	var err error
	if p.Grace, err = duration("grace", o.grace); err != nil {
		return nil, err
	}
	if p.Grace < prune.MinGrace {
		return nil, usage("--grace %s: want at least 1h, since what reads a backup without holding it, a verification or a copy, must have ended by then", o.grace)
	}
	if o.keep != "" {
		if o.table == "" {
			return nil, usage("--keep goes with --table: name the tables whose backups are kept for no longer than %s", o.keep)
		}
		if p.Keep, err = duration("keep", o.keep); err != nil {
			return nil, err
		}
	}
	if o.table != "" {
		pattern, err := tablePattern(o.table)
		if err != nil {
			return nil, err
		}
		p.Tables = []policy.Pattern{pattern}
	}
	site, err := openSite(o.stack)
	if err != nil {
		return nil, err
	}
	if p.Region = site.env.Region; p.Region == "" {
		return nil, errors.New("which region's tables are meant is not known: set TABLEVAULT_REGION, such as cn-hangzhou; or name a local stack with --stack DIR")
	}
	if p.Policy, err = site.policyToPrune(o.policy); err != nil {
		return nil, err
	}
	if p.Policy == nil && p.Keep == 0 {
		return nil, usage("there is no policy that says how long backups are kept: name one with --policy, or give --table and --keep")
	}
	if p.Repo, err = site.repository(ctx); err != nil {
		return nil, err
	}
	return p.Prune(ctx, o.apply)
}

// tablePattern reads instance/table, with * and ? in the table's name.
func tablePattern(text string) (policy.Pattern, error) {
	instance, glob, err := cutPattern(text)
	if err != nil {
		return policy.Pattern{}, err
	}
	if strings.ContainsAny(instance, "*?[") {
		return policy.Pattern{}, usage("table %q: want instance/table, for example prod/orders or 'prod/*'", text)
	}
	return policy.Pattern{Instance: instance, Table: glob}, nil
}

// policyToPrune reads the policy, nil if there is none and none was named. One that is
// for another vault is refused, but for the one that a local stack goes by, whose
// functions have the stack's vault whatever it names.
func (s *site) policyToPrune(file string) (*policy.Policy, error) {
	stacks := file == "" && s.dir != "" && s.env.PolicyNamed
	file, p, err := s.readPolicy(file)
	if err != nil || p == nil || stacks {
		return p, err
	}
	if p.Vault != "" && !place.Same(p.Vault, s.env.Vault) {
		return nil, fmt.Errorf("the policy %s is for the vault %s, and %s is to be pruned: name the vault's own with --policy", file, place.Plain(p.Vault), place.Plain(s.env.Vault))
	}
	return p, nil
}

// did is what an action is called once it is done.
var did = map[prune.Action]string{
	prune.Keep: "kept", prune.Wait: "waits", prune.Mark: "marked", prune.Delete: "deleted", prune.Forget: "mark removed",
}

// humanPrune prints a run for people. Backups that follow each other and are alike are
// one line.
func humanPrune(w io.Writer, r *prune.Report) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, table := range r.Tables {
		name := table.Table
		if table.Untouched != "" {
			fmt.Fprintf(t, "%s: %s\n", name, table.Untouched)
		} else {
			fmt.Fprintf(t, "%s: kept %s\n", name, table.Keep)
		}
		for i := 0; i < len(table.Backups); {
			first := table.Backups[i]
			last, n, bytes := first, 0, int64(0)
			for ; i < len(table.Backups) && alike(first, table.Backups[i]); i++ {
				last = table.Backups[i]
				n, bytes = n+1, bytes+last.Bytes
			}
			what := string(first.Action)
			if first.Done || r.Apply && (first.Action == prune.Keep || first.Action == prune.Wait) {
				what = did[first.Action]
			}
			ids := string(first.Backup)
			if n > 1 {
				ids = fmt.Sprintf("%s to %s, %s", first.Backup, last.Backup, counted(int64(n), "backup"))
			}
			fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", what, ids, size(bytes), first.Reason)
			if first.Error != "" {
				fmt.Fprintf(t, "  \t→ %s\n", first.Error)
			}
		}
	}
	t.Flush()
	for _, f := range r.Failures {
		fmt.Fprintf(w, "failed: %s\n", f)
	}
	sum := func(s prune.Sum) string {
		return fmt.Sprintf("%s (%s)", counted(int64(s.Backups), "backup"), size(s.Bytes))
	}
	if r.Apply {
		fmt.Fprintf(w, "%s marked, %s deleted.\n", sum(r.Marked), sum(r.Deleted))
		return
	}
	fmt.Fprintf(w, "Nothing was changed. With --apply %s would be marked, and %s, marked before, deleted.\n", sum(r.Marked), sum(r.Deleted))
}

func alike(a, b prune.BackupReport) bool {
	return a.Action == b.Action && a.Done == b.Done && a.Reason == b.Reason && a.Error == "" && b.Error == "" || a.Backup == b.Backup
}
