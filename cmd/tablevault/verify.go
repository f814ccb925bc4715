package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/function/dispatch"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/verify"
)

// verifyOptions are what `tablevault verify` was asked for.
type verifyOptions struct {
	stack, backup, restore, against, depth, replica string
	readUnits                                       float64
}

// verifyResult is the JSON of `tablevault verify`.
type verifyResult struct {
	Verdict vault.Verdict `json:"verdict"`
	// Verification is the id under which its proof stands in the vault, empty for a
	// comparison with a replica.
	Verification vault.VerificationID `json:"verification,omitempty"`
	Restore      vault.RestoreID      `json:"restore,omitempty"`
	Backup       vault.BackupID       `json:"backup"`
	Table        string               `json:"table"`
	Against      string               `json:"against,omitempty"`
	Depth        string               `json:"depth"`
	Rows         int64                `json:"rows"`
	Missing      int64                `json:"missing"`
	Extra        int64                `json:"extra"`
	Changed      int64                `json:"changed"`
	Expired      int64                `json:"expired"`
	ChangedSince int64                `json:"changed_since"`
	Quarantined  int64                `json:"quarantined"`
	Objects      int64                `json:"objects"`
	Bytes        int64                `json:"bytes"`
	Corrupted    int64                `json:"corrupted"`
	Differences  []vault.Difference   `json:"differences,omitempty"`
	Findings     []vault.Finding      `json:"findings,omitempty"`
	Notes        []string             `json:"notes,omitempty"`
	// Pace is what held back the reads of the table, if anything did.
	Pace *vault.Pace `json:"pace,omitempty"`
	// Usage is what the verification asked of the vault's store.
	Usage object.Usage `json:"usage,omitzero"`

	check vault.Check
}

func verifyCommand(s *streams) *cobra.Command {
	var o verifyOptions
	c := &cobra.Command{
		Use:   "verify (--backup ID | --restore ID) [--against INSTANCE/TABLE] [--depth objects|read|rows] [--twin VAULT]",
		Short: "Prove a backup, or compare it with a live table row by row",
		Example: "  tablevault verify --backup latest:prod/orders\n" +
			"  tablevault verify --backup 20261120T1014 --against prod/orders_copy     # as much of the id as no other has\n" +
			"  tablevault verify --restore latest\n" +
			"  tablevault verify --backup latest:prod/orders --depth objects     # sizes and checksums only",
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := runVerify(cmd.Context(), s, o)
			if err != nil {
				return err
			}
			return s.proved(r, r.human, r.Usage, r.Verdict)
		},
	}
	siteFlags(c, &o.stack)
	c.Flags().StringVar(&o.backup, "backup", "", "the backup to prove: its id, the beginning of it, or latest:INSTANCE/TABLE")
	c.Flags().StringVar(&o.restore, "restore", "", "the restore to prove: its id, the beginning of it, or latest")
	c.Flags().StringVar(&o.against, "against", "", "the table to compare rows with, instance/table")
	c.Flags().StringVar(&o.replica, "twin", "", "a destination of the policy, by its name, its key or its address: say whether the backup's copy there is the same, by sizes and checksums, reading no shard")
	c.Flags().StringVar(&o.depth, "depth", "", "objects: present, size, checksum; read: every row and checksum; rows: against a table (the default with --against or --restore, else read)")
	c.Flags().Float64Var(&o.readUnits, "read-units", 0, "budget of read units per second for the reads of the table (default: as many as the service gives)")
	completeTables(c, &o.stack, "against", (*site).live)
	completeWords(c, "depth", verify.DepthObjects, verify.DepthRead, verify.DepthRows)
	completeID(c, &o.stack, "backup", status.BackupKind)
	completeID(c, &o.stack, "restore", status.RestoreKind)
	return c
}

func runVerify(ctx context.Context, s *streams, o verifyOptions) (*verifyResult, error) {
	if (o.backup == "") == (o.restore == "") {
		return nil, usage("say what to verify: either --backup or --restore")
	}
	if o.replica != "" && (o.backup == "" || o.against != "" || o.depth != "") {
		return nil, usage("--twin goes with --backup alone: documents are read there, and of shards sizes and checksums are compared")
	}
	if o.against != "" && o.depth != "" && o.depth != verify.DepthRows {
		return nil, usage("--depth %s reads no table, and --against %s names one: take one of the two away, or give --depth rows", o.depth, o.against)
	}
	names := replicaNames{}
	replica, err := names.name("twin", o.replica)
	if err != nil {
		return nil, err
	}
	cmd := function.Command{Kind: function.KindVerify, Backup: o.backup, Restore: o.restore, Against: o.against, Depth: o.depth, Replica: replica}
	if o.readUnits != 0 {
		if err := (vault.Budget{ReadUnits: o.readUnits}).Validate(); err != nil {
			return nil, &exit{exitUsage, fmt.Errorf("--read-units: %w", err)}
		}
		if o.against == "" && (o.restore == "" || o.depth != "") && o.depth != verify.DepthRows {
			return nil, usage("--read-units goes with a table that is read: --against, --restore or --depth rows")
		}
	}
	site, cmd, err := openFor(ctx, o.stack, cmd)
	if err != nil {
		return nil, err
	}
	r, err := verifyAt(ctx, s, site, cmd, o.readUnits)
	return r, names.explain(err)
}

// verifyAt has a backup or a restore verified, and tells how far that has come.
func verifyAt(ctx context.Context, s *streams, site *site, cmd function.Command, readUnits float64) (*verifyResult, error) {
	var id vault.VerificationID            // of one that leaves what it tells, and a proof: a comparison with a replica does not
	var watch func(context.Context) string // nil where there is nothing to tell
	if cmd.Replica == "" {
		id = vault.VerificationID(vault.NewBackupID(time.Now(), rand.Text()))
		cmd.Settings = dispatch.Settings(dispatch.VerifySettings{Units: dispatch.Units{ReadUnits: readUnits}, ID: id})
		what := "backup " + cmd.Backup
		if cmd.Restore != "" {
			what = "restore " + cmd.Restore
		}
		fmt.Fprintf(s.err, "verification %s of %s\n", id, what)
		watch = site.watchVerification(ctx, id, cmd)
	}
	p := s.progress()
	defer p.end()
	var proof vault.Proof
	done := make(chan error, 1)
	guard.Go(func() error { return site.call(ctx, cmd, &proof) }, func(err error) { done <- err })
	for look := time.NewTicker(lookEvery); ; {
		select {
		case err := <-done:
			look.Stop()
			if err != nil && ctx.Err() != nil {
				return nil, site.broken(id)
			}
			if err != nil {
				return nil, err
			}
			return verified(id, &proof), nil
		case <-look.C:
			if watch == nil || !p.due() {
				continue
			}
			if line := watch(ctx); line != "" {
				p.tell(line)
			}
		}
	}
}

// broken is the error of a command that was interrupted while a verification was at work.
func (s *site) broken(id vault.VerificationID) error {
	if id == "" {
		return errors.New("interrupted; nothing is left behind: a comparison with a copy writes nothing, and the same command compares anew")
	}
	return fmt.Errorf("interrupted; nobody waits for the verification %s any more: a function that is at it ends it, and `tablevault show %s --watch%s` says how far it is, or what came of it; the same command verifies anew",
		id, id, s.stackFlag())
}

// watchVerification returns what says how far a verification has come; nil, or nothing,
// where that can't be told.
func (s *site) watchVerification(ctx context.Context, id vault.VerificationID, cmd function.Command) func(context.Context) string {
	repo, err := s.repository(ctx)
	if err != nil {
		return nil
	}
	of := status.Ref{Kind: status.BackupKind, ID: cmd.Backup}
	if cmd.Restore != "" {
		of = status.Ref{Kind: status.RestoreKind, ID: cmd.Restore}
	}
	rows := status.Rows(ctx, repo, of)
	watcher := status.WatchVerification(repo, id, time.Now)
	return func(ctx context.Context) string {
		v, err := watcher.Look(ctx)
		if err != nil {
			return ""
		}
		return verificationLine(&v, rows)
	}
}

func verified(id vault.VerificationID, p *vault.Proof) *verifyResult {
	return &verifyResult{
		Verification: id, Restore: p.Restore, check: p.Check,
		Verdict: p.Verdict, Backup: p.Backup, Table: p.Table.String(), Against: p.Target, Depth: p.Depth, Rows: p.Check.Rows,
		Missing: p.Check.Missing, Extra: p.Check.Extra, Changed: p.Check.Changed, Expired: p.Check.Expired,
		Quarantined: p.Check.Quarantined, Objects: p.Check.Objects, Bytes: p.Check.Bytes, Corrupted: p.Check.Damaged(),
		Differences: p.Check.Differences, Findings: p.Check.Findings, Notes: p.Notes, Pace: p.Pace, Usage: p.Usage,
	}
}

// maxPrinted is how many differences people are shown.
const maxPrinted = 20

// human prints the verdict first.
func (r *verifyResult) human(w io.Writer) {
	fmt.Fprintln(w, verdictLine(r.Verdict, r.Depth, &r.check))
	fmt.Fprintf(w, "  backup %s of %s", r.Backup, r.Table)
	if r.Restore != "" {
		fmt.Fprintf(w, ", by restore %s", r.Restore)
	}
	if r.Against != "" {
		fmt.Fprintf(w, ", against %s", r.Against)
	}
	fmt.Fprintln(w)
	printDifferences(w, &r.check)
	for _, n := range r.Notes {
		fmt.Fprintln(w, "  note:", n)
	}
}

// proved prints the result of a command that proves something, and ends it by the
// verdict.
func (s *streams) proved(result any, human func(io.Writer), u object.Usage, v vault.Verdict) error {
	if err := s.print(result, func(w io.Writer) {
		human(w)
		s.printUsage(w, u)
	}); err != nil {
		return err
	}
	return verdictCode(v)
}

// verdictLine is what a verification comes to, in a line.
func verdictLine(v vault.Verdict, depth string, c *vault.Check) string {
	differ := c.Missing + c.Extra + c.Changed
	compared := counted(c.Rows, "row") + " compared"
	kinds := fmt.Sprintf("%s missing, %s extra, %s changed", count(c.Missing), count(c.Extra), count(c.Changed))
	switch {
	case v == vault.Corrupt:
		if c.Objects < c.Damaged() { // it came no further than to what says which there are
			return fmt.Sprintf("corrupt: %s damaged", counted(c.Damaged(), "object"))
		}
		return fmt.Sprintf("corrupt: %s of %s damaged", count(c.Damaged()), counted(c.Objects, "object"))
	case v == vault.Quarantined:
		return fmt.Sprintf("quarantined: %s, %s differ, which are those that the service refused: %s", compared, count(differ), kinds)
	case v == vault.Differs:
		return fmt.Sprintf("differs: %s, %s differ: %s", compared, count(differ), kinds)
	case depth == verify.DepthObjects:
		return fmt.Sprintf("%s present, rows not read", counted(c.Objects, "object"))
	case depth == verify.DepthRead:
		return fmt.Sprintf("proved: %s read, 0 damaged", counted(c.Rows, "row"))
	}
	expired := ""
	if c.Expired > 0 {
		expired = fmt.Sprintf("; %s past the table's TTL left out on both sides", counted(c.Expired, "cell"))
	}
	return fmt.Sprintf("proved: %s, 0 differ%s", compared, expired)
}

// printDifferences lists rows that differ, and objects that are damaged.
func printDifferences(w io.Writer, c *vault.Check) {
	for i, d := range c.Differences {
		if i == maxPrinted {
			fmt.Fprintf(w, "  … and more; --json lists up to %s\n", count(vault.MaxListed))
			break
		}
		fmt.Fprintf(w, "  %-8s %v", d.Kind, d.Key)
		if len(d.Columns) > 0 {
			fmt.Fprintf(w, "  in %q", d.Columns)
		}
		fmt.Fprintln(w)
	}
	for i, f := range c.Findings {
		if i == maxPrinted {
			fmt.Fprintln(w, "  …")
			break
		}
		fmt.Fprintf(w, "  corrupt  %s: %s\n", f.Object, f.Reason)
	}
}
