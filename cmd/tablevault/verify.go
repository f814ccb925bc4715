package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/vault"
)

// verifyOptions are what `tablevault verify` was asked for.
type verifyOptions struct {
	stack, backup, restore, against, depth, twin string
	readUnits                                    float64
}

// verifyResult is the JSON of `tablevault verify`.
type verifyResult struct {
	Verdict      vault.Verdict      `json:"verdict"`
	Backup       vault.BackupID     `json:"backup"`
	Table        string             `json:"table"`
	Against      string             `json:"against,omitempty"`
	Depth        string             `json:"depth"`
	Rows         int64              `json:"rows"`
	Missing      int64              `json:"missing"`
	Extra        int64              `json:"extra"`
	Changed      int64              `json:"changed"`
	Expired      int64              `json:"expired"`
	ChangedSince int64              `json:"changed_since"`
	Quarantined  int64              `json:"quarantined"`
	Objects      int64              `json:"objects"`
	Bytes        int64              `json:"bytes"`
	Corrupted    int64              `json:"corrupted"`
	Differences  []vault.Difference `json:"differences,omitempty"`
	Findings     []vault.Finding    `json:"findings,omitempty"`
	Notes        []string           `json:"notes,omitempty"`
	// Pace is what held back the reads of the table, if anything did.
	Pace *vault.Pace `json:"pace,omitempty"`
	// Usage is what the verification asked of the vault's store.
	Usage vault.Usage `json:"usage,omitzero"`
}

func verifyCommand(s *streams) *cobra.Command {
	var o verifyOptions
	c := &cobra.Command{
		Use:   "verify (--backup ID | --restore ID) [--against INSTANCE/TABLE] [--depth objects|read|rows] [--twin VAULT]",
		Short: "Prove a backup, or compare it with a live table row by row",
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := runVerify(cmd.Context(), o)
			if err != nil {
				return err
			}
			if err := s.print(r, func(w io.Writer) { r.human(w) }); err != nil {
				return err
			}
			return verdictCode(r.Verdict)
		},
	}
	siteFlags(c, &o.stack)
	c.Flags().StringVar(&o.backup, "backup", "", "the backup to prove, by its id")
	c.Flags().StringVar(&o.restore, "restore", "", "the restore to prove, by its id")
	c.Flags().StringVar(&o.against, "against", "", "the table to compare rows with, instance/table")
	c.Flags().StringVar(&o.twin, "twin", "", "a destination of the policy, by its name, its key or its address: say whether the backup's copy there is the same, by sizes and checksums, reading no shard")
	c.Flags().StringVar(&o.depth, "depth", "", "objects: present, size, checksum; read: every row and checksum; rows: against a table (the default with --against or --restore, else read)")
	c.Flags().Float64Var(&o.readUnits, "read-units", 0, "budget of read units per second for the reads of the table (default: as many as the service gives)")
	return c
}

func runVerify(ctx context.Context, o verifyOptions) (*verifyResult, error) {
	if (o.backup == "") == (o.restore == "") {
		return nil, usage("say what to verify: either --backup or --restore")
	}
	if o.twin != "" && (o.backup == "" || o.against != "" || o.depth != "") {
		return nil, usage("--twin goes with --backup alone: documents are read there, and of shards sizes and checksums are compared")
	}
	names := further{}
	twin, err := names.name("twin", o.twin)
	if err != nil {
		return nil, err
	}
	cmd := function.Command{Kind: function.KindVerify, Backup: o.backup, Restore: o.restore, Against: o.against, Depth: o.depth, Target: twin}
	if o.readUnits != 0 {
		budget := vault.Budget{ReadUnits: o.readUnits}
		if err := budget.Validate(); err != nil {
			return nil, &exit{exitUsage, fmt.Errorf("--read-units: %w", err)}
		}
		if o.against == "" && o.restore == "" && o.depth != restore.DepthRows {
			return nil, usage("--read-units goes with a table that is read: --against, --restore or --depth rows")
		}
		cmd.Settings = unitSettings(budget)
	}
	if err := validate(cmd); err != nil {
		return nil, err
	}
	site, err := openSite(o.stack)
	if err != nil {
		return nil, err
	}
	r, err := verifyAt(ctx, site, cmd)
	return r, names.explain(err)
}

func verifyAt(ctx context.Context, site *site, cmd function.Command) (*verifyResult, error) {
	var p vault.Proof
	if err := site.call(ctx, cmd, &p); err != nil {
		return nil, err
	}
	return &verifyResult{
		Verdict: p.Verdict, Backup: p.Backup, Table: p.Table.String(), Against: p.Target, Depth: p.Depth, Rows: p.Check.Rows,
		Missing: p.Check.Missing, Extra: p.Check.Extra, Changed: p.Check.Changed, Expired: p.Check.Expired,
		Quarantined: p.Check.Quarantined, Objects: p.Check.Objects, Bytes: p.Check.Bytes, Corrupted: p.Check.Corrupted,
		Differences: p.Check.Differences, Findings: p.Check.Findings, Notes: p.Notes, Pace: p.Pace, Usage: p.Usage,
	}, nil
}

// maxPrinted is how many differences people are shown.
const maxPrinted = 20

func (r *verifyResult) human(w io.Writer) {
	fmt.Fprintf(w, "%s: backup %s of %s, %s rows", r.Verdict, r.Backup, r.Table, count(r.Rows))
	if r.Against != "" {
		fmt.Fprintf(w, ", against %s: %d missing, %d extra, %d changed", r.Against, r.Missing, r.Extra, r.Changed)
	}
	fmt.Fprintln(w)
	for i, d := range r.Differences {
		if i == maxPrinted {
			fmt.Fprintf(w, "  … and more; --json lists up to %d\n", vault.MaxListed)
			break
		}
		fmt.Fprintf(w, "  %-8s %v", d.Kind, d.Key)
		if len(d.Columns) > 0 {
			fmt.Fprintf(w, "  in %q", d.Columns)
		}
		fmt.Fprintln(w)
	}
	for i, f := range r.Findings {
		if i == maxPrinted {
			fmt.Fprintln(w, "  …")
			break
		}
		fmt.Fprintf(w, "  corrupt  %s: %s\n", f.Object, f.Reason)
	}
	for _, n := range r.Notes {
		fmt.Fprintln(w, "  note:", n)
	}
	printUsage(w, r.Usage)
}
