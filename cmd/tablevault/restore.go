package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/function/dispatch"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/verify"
)

// restoreOptions are what `tablevault restore` was asked for.
type restoreOptions struct {
	stack, table, at, backup, to string
	new, transactions            bool
	replicas                     []string
	budget                       vault.Budget
}

// restoreResult is the JSON of `tablevault restore`.
type restoreResult struct {
	Restore vault.RestoreID `json:"restore"`
	Backup  vault.BackupID  `json:"backup"`
	// Table is the one that was made, which Target says again; Source was backed up.
	Table  string `json:"table"`
	Target string `json:"target"`
	Source string `json:"source"`
	// RecoveryPoint is the backup's. Where --at was given, At repeats it, and Earlier is
	// by how many seconds the recovery point is before it.
	RecoveryPoint time.Time     `json:"recovery_point,omitzero"`
	At            time.Time     `json:"at,omitzero"`
	Earlier       *float64      `json:"earlier_seconds,omitempty"`
	Rows          int64         `json:"rows"`
	Quarantined   int64         `json:"quarantined"`
	Verdict       vault.Verdict `json:"verdict"`
	// Expired rows, which have no cell left, and cells were past the TTL that the table
	// has now when they were compared; Expiring ones will be within a day of that.
	ExpiredRows   int64    `json:"expired_rows"`
	ExpiredCells  int64    `json:"expired_cells"`
	ExpiringRows  int64    `json:"expiring_rows"`
	ExpiringCells int64    `json:"expiring_cells"`
	Notes         []string `json:"notes,omitempty"`
	Proof         string   `json:"proof"`
	// Proved is when it was; Before says that it was before this command, which did
	// nothing.
	Proved time.Time `json:"proved"`
	Before bool      `json:"before,omitempty"`
	// Usage is what was asked of the vault's store, as far as records tell.
	Usage object.Usage `json:"usage,omitzero"`

	check vault.Check
}

func restoreCommand(s *streams) *cobra.Command {
	var o restoreOptions
	c := &cobra.Command{
		Use:   "restore (--table INSTANCE/TABLE [--at TIME] | --backup ID) --to INSTANCE/TABLE",
		Short: "Restore a backup into a new table, and prove the copy",
		Example: "  tablevault restore --stack /tmp/stack --table local/orders --to local/orders_copy\n" +
			"  tablevault restore --table prod/orders --at 2026-11-20T10:14:00+08:00 --to prod/orders_copy\n" +
			"  tablevault restore --backup 20261120T1014 --to staging/orders     # as much of the id as no other has",
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := runRestore(cmd.Context(), s, o)
			if err != nil {
				return err
			}
			return s.proved(r, r.human, r.Usage, r.Verdict)
		},
	}
	siteFlags(c, &o.stack)
	c.Flags().StringVar(&o.table, "table", "", "the table that was backed up: its newest backup, or with --at the newest until then")
	c.Flags().StringVar(&o.at, "at", "", "an instant with its offset, such as 2026-11-20T10:14:00+08:00")
	c.Flags().StringVar(&o.backup, "backup", "", "the backup to restore: its id, the beginning of it, or latest:INSTANCE/TABLE")
	c.Flags().StringVar(&o.to, "to", "", "the table to make, instance/table; it must not exist")
	c.Flags().StringArrayVar(&o.replicas, "also", nil, "a destination of the policy with a copy of the backup, by its name, its key or its address, from which damaged or missing objects are read; may be given several times")
	c.Flags().BoolVar(&o.new, "new", false, "begin anew instead of resuming a restore that has not ended")
	c.Flags().Float64Var(&o.budget.WriteUnits, "write-units", 0, "budget of write units per second, for all workers that load together (default: as many as the service gives)")
	c.Flags().Float64Var(&o.budget.ReadUnits, "read-units", 0, "budget of read units per second, for all workers that compare the rows together (default: as many as the service gives)")
	c.Flags().BoolVar(&o.transactions, "local-transactions", false, "make a table that takes local transactions; whether the source does, the service does not tell")
	completeTables(c, &o.stack, "table", (*site).backedUp)
	completeTables(c, &o.stack, "to", (*site).backedUp)
	completeID(c, &o.stack, "backup", status.BackupKind)
	return c
}

func runRestore(ctx context.Context, s *streams, o restoreOptions) (*restoreResult, error) {
	switch {
	case o.to == "":
		return nil, usage("--to is missing: name the table to make, for example --to prod/orders_copy")
	case (o.table == "") == (o.backup == ""):
		return nil, usage("say what to restore: either --table, with or without --at, or --backup")
	case o.at != "" && o.table == "":
		return nil, usage("--at goes with --table")
	}
	cmd := function.Command{Kind: function.KindRestore, Table: o.table, Backup: o.backup, To: o.to, New: o.new}
	names := replicaNames{}
	for _, given := range o.replicas {
		name, err := names.name("also", given)
		if err != nil {
			return nil, err
		}
		cmd.Replicas = append(cmd.Replicas, name)
	}
	if o.budget != (vault.Budget{}) {
		if err := o.budget.Validate(); err != nil {
			return nil, &exit{exitUsage, fmt.Errorf("--write-units, --read-units: %w", err)}
		}
	}
	if o.budget != (vault.Budget{}) || o.transactions {
		cmd.Settings = dispatch.Settings(dispatch.RestoreSettings{Units: dispatch.Units(o.budget), LocalTransactions: o.transactions})
	}
	if o.at != "" {
		at, err := function.ParseInstant(o.at)
		if err != nil {
			return nil, &exit{exitUsage, fmt.Errorf("--at: %w", err)}
		}
		if err := restore.NotAhead(at, time.Now()); err != nil {
			return nil, &exit{exitUsage, fmt.Errorf("--at: %w", err)}
		}
		cmd.At = at
		if !s.json {
			fmt.Fprintf(s.err, "restoring what was there at %s, %s ago\n", at.UTC().Format(time.RFC3339), max(0, time.Since(at)).Round(time.Second))
		}
	}
	site, cmd, err := openFor(ctx, o.stack, cmd)
	if err != nil {
		return nil, err
	}
	r, err := restoreTo(ctx, s, site, cmd)
	if r != nil && !cmd.At.IsZero() {
		r.asked(cmd.At)
	}
	return r, names.explain(err)
}

// restoreTo begins a restore and looks at it until it is done.
func restoreTo(ctx context.Context, s *streams, site *site, cmd function.Command) (*restoreResult, error) {
	var r restore.Progress
	if err := site.call(ctx, cmd, &r); err != nil {
		return nil, err
	}
	p := s.progress()
	defer p.end()
	// One that was proved before this command began has nothing left to do.
	before := r.State == restore.StateDone && r.Proof.At.Before(r.Since)
	watch := site.watchRestore(ctx, s, cmd.To, r)
	if r.Proof == nil { // which says them again
		for _, n := range r.Notes {
			fmt.Fprintln(s.err, "  note:", n)
		}
	}
	for {
		switch r.State {
		case restore.StateDone:
			done := restored(cmd.To, &r)
			done.Before = before
			return done, nil
		case backup.StateFailed:
			if r.Proof != nil {
				return restored(cmd.To, &r), nil // it is told by its verdict
			}
			if r.Corrupt && len(cmd.Replicas) > 0 {
				return nil, &exit{exitDiffers, fmt.Errorf("restore %s can't go on: %s; no destination of --also has it as it was written, either: restore another backup to another name, or drop %s and give the same command with --new and another --also",
					r.Restore, r.LastError, cmd.To)}
			}
			if r.Corrupt {
				return nil, &exit{exitDiffers, fmt.Errorf("restore %s can't go on: %s; restore another backup to another name, or drop %s and give the same command with --new, and with --also and a destination that has a copy of the backup",
					r.Restore, r.LastError, cmd.To)}
			}
			return nil, fmt.Errorf("restore %s can't go on: %s; mend that and give the same command again", r.Restore, r.LastError)
		}
		if p.due() {
			p.remark(r.Waiting)
			p.tell(watch(ctx, &r))
		}
		next := restore.Progress{}
		if err := site.lookAgain(ctx, function.Command{Kind: function.KindRestore, Restore: string(r.Restore)}, r.Since, &next); err != nil {
			return nil, err
		}
		r = next
	}
}

// restored is the result of a restore that was proved, or found not to be the backup.
func restored(to string, r *restore.Progress) *restoreResult {
	return &restoreResult{
		Restore: r.Restore, RecoveryPoint: r.RecoveryPoint, Backup: r.Proof.Backup, Table: to, Target: to, Source: r.Proof.Table.String(), Rows: r.Proof.Check.Target,
		Quarantined: r.Proof.Check.Quarantined, Verdict: r.Proof.Verdict, Notes: r.Proof.Notes,
		ExpiredRows: r.Proof.Check.Lapsed.Rows, ExpiredCells: r.Proof.Check.Lapsed.Cells,
		ExpiringRows: r.Proof.Check.Lapsing.Rows, ExpiringCells: r.Proof.Check.Lapsing.Cells,
		Proof: vault.Restore{ID: r.Restore}.Proof(), Proved: r.Proof.At, Usage: r.Proof.Usage, check: r.Proof.Check,
	}
}

// asked says which instant was asked for.
func (r *restoreResult) asked(at time.Time) {
	r.At = at.UTC()
	if !r.RecoveryPoint.IsZero() {
		earlier := at.Sub(r.RecoveryPoint).Seconds()
		r.Earlier = &earlier
	}
}

// human prints the verdict first.
func (r *restoreResult) human(w io.Writer) {
	fmt.Fprintln(w, verdictLine(r.Verdict, verify.DepthRows, &r.check))
	is := "is"
	if refuted(r.Verdict) {
		is = "is not"
	}
	fmt.Fprintf(w, "  restore %s: %s %s backup %s of %s\n", r.Restore, r.Table, is, r.Backup, r.Source)
	if r.Before {
		fmt.Fprintf(w, "  it was restored and proved before, at %s: the table still is the one that was made then, and nothing was done now\n", r.Proved.UTC().Format(time.RFC3339))
	}
	if r.Earlier != nil {
		fmt.Fprintf(w, "  its recovery point is %s, %s before the instant that was asked for\n",
			r.RecoveryPoint.Format(time.RFC3339), r.At.Sub(r.RecoveryPoint).Round(time.Second))
	}
	if refuted(r.Verdict) {
		fmt.Fprintf(w, "  the table is not handed over: drop %s, and restore again, or another backup\n", r.Table)
	}
	printDifferences(w, &r.check)
	for _, n := range r.Notes {
		fmt.Fprintln(w, "  note:", n)
	}
}

// watchRestore tells the id of a restore, and returns what says how far it has come: by
// the vault's records, or where this key may not read them, by what import says.
func (s *site) watchRestore(ctx context.Context, streams *streams, to string, begun restore.Progress) func(context.Context, *restore.Progress) string {
	var watcher *restore.Watcher
	of := ""
	if repo, err := s.repository(ctx); err == nil {
		watcher = restore.Watch(repo, begun.Restore, time.Now)
		if plan, err := repo.RestorePlan(ctx, begun.Restore); err == nil {
			of = fmt.Sprintf(" of backup %s of %s", plan.Backup, plan.Source)
		}
	}
	fmt.Fprintf(streams.err, "restore %s%s into %s\n", begun.Restore, of, to)
	return func(ctx context.Context, r *restore.Progress) string {
		w := restore.Watched{
			Restore: r.Restore, Target: to, State: r.State, Segments: r.Segments, Loaded: r.Loaded, Checked: r.Checked, Live: r.Live,
			LoadedRows: r.LoadedRows, Rows: r.Rows, Pace: r.Pace, LastError: r.LastError,
		}
		if watcher != nil {
			if seen, err := watcher.Look(ctx); err == nil && seen.State == r.State {
				w = seen
			}
		}
		return restoreLine(&w, cmp.Or(r.Waiting, r.Silent))
	}
}

// refuted says whether a table that was restored is not the backup.
func refuted(v vault.Verdict) bool { return v == vault.Differs || v == vault.Corrupt }

// verdictCode is the exit code of a verdict.
func verdictCode(v vault.Verdict) error {
	switch v {
	case vault.OK:
		return nil
	case vault.Quarantined:
		return &exit{code: exitQuarantined}
	}
	return &exit{code: exitDiffers}
}
