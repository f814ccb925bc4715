package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// What becomes of a command that is given again, and of a backup that is seen to be
// damaged before anything is made of it.

// fixed refuses what a command asks of a restore that goes on, where its plan has fixed
// something else. asked are the replicas that the command names.
func fixed(req Request, asked []string, plan *vault.RestorePlan) error {
	if req.Budget != (vault.Budget{}) && req.Budget != plan.Budget {
		return table.Invalidf("restore %s into that table goes on with %s, which its plan fixes, not with %s: ask without a budget, or drop the table and begin anew",
			plan.Restore, plan.Budget, req.Budget)
	}
	if req.LocalTransactions && !plan.Definition.LocalTransactions {
		return table.Invalidf("restore %s goes on with %s, which does not take local transactions: drop it, if it is there, and give the same command with --new beside --local-transactions",
			plan.Restore, plan.Target)
	}
	for _, key := range asked {
		if slices.Contains(plan.Replicas, key) {
			continue
		}
		has := "no further vault"
		if len(plan.Replicas) > 0 {
			has = "no further vault but " + strings.Join(plan.Replicas, ", ")
		}
		return table.Invalidf("restore %s into that table goes on with %s, as its plan fixes, and can't be given %s: drop %s, if it is there, and give the same command with --new beside --also",
			plan.Restore, has, key, plan.Target)
	}
	return nil
}

// after says what becomes of a request when the target has a claim already: true goes on
// with the claim's restore, false lets a new claim follow.
func (p *Planner) after(ctx context.Context, run fanout.Run, req Request, last *vault.Claim) (goOn bool, err error) {
	proof, err := p.Repo.RestoreProof(ctx, last.Restore)
	if errors.Is(err, fs.ErrNotExist) {
		proof = nil
	} else if err != nil {
		return false, err
	}
	closed, err := p.Repo.Closed(ctx, last.Restore)
	if err != nil {
		return false, err
	}
	switch {
	case proof != nil, closed != nil && closed.Reason != "":
		// It has ended; its late starts obey its closing record.
		if goOn, err := p.ended(ctx, req, last, proof, closed); err != nil || goOn {
			return goOn, err
		}
	case !req.New && !req.Own && last.Backup == req.Backup.ID:
		return true, nil
	case !req.New:
		return false, fmt.Errorf("restore %s is loading backup %s into that table: wait for it, or name another table", last.Restore, last.Backup)
	default:
		// Only a restore whose table is gone is given up for a new one.
		if err := p.absent(ctx, req.Target); err != nil {
			return false, err
		}
		if closed == nil {
			if _, err := GiveUp(ctx, p.Repo, run, last.Restore, "a new restore into "+req.Target.String()+" was asked for"); err != nil {
				return false, err
			}
		}
	}
	plan, err := p.Repo.RestorePlan(ctx, last.Restore)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	known := records{repo: p.Repo, plan: plan}
	segments, err := known.unsettled(ctx)
	if err != nil {
		return false, err
	}
	if waiting, err := known.working(ctx, run, segments); err != nil || waiting != "" {
		if err == nil {
			err = fmt.Errorf("restore %s into that table has ended, and still %s: try again after that", last.Restore, waiting)
		}
		return false, err
	}
	return false, nil
}

// ended says what becomes of a request whose target's newest claim is that of a restore
// which has ended: true if that has done what is asked for, and its table still stands;
// false if no table stands there any more, so that a new restore may follow. Any other
// table is in the way, and the error says what it is. proof and closed are the restore's,
// nil if it has none.
func (p *Planner) ended(ctx context.Context, req Request, last *vault.Claim, proof *vault.Proof, closed *vault.Closed) (done bool, err error) {
	got, err := p.Tables.Describe(ctx, req.Target.Table)
	if errors.Is(err, table.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for %s: %w", req.Target, err)
	}
	exists := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s; "+format, slices.Concat([]any{table.ErrExist, req.Target}, args)...)
	}
	plan, err := p.Repo.RestorePlan(ctx, last.Restore)
	if errors.Is(err, fs.ErrNotExist) {
		return false, exists("restore to another name, or drop it first")
	}
	if err != nil {
		return false, err
	}
	made, err := p.Repo.Made(ctx, last.Restore)
	if err != nil {
		return false, err
	}
	if made == nil || stands(plan, made, got, false) != nil {
		return false, exists("it is not the one that restore %s has made: restore to another name, or drop it first", last.Restore)
	}
	switch {
	case proof == nil:
		return false, exists("restore %s has made it, and was given up: %s; drop it and give the same command again, or restore to another name", last.Restore, closed.Reason)
	case proof.Verdict == vault.Corrupt:
		what := ""
		if len(proof.Check.Findings) > 0 {
			f := proof.Check.Findings[0]
			what = fmt.Sprintf(", such as %s: %s", f.Object, f.Reason)
		}
		return false, exists("restore %s has made it, and found %s of backup %s damaged%s (%w); it is not handed over: drop it, and restore another backup, or the same with --also and a destination that has a copy",
			last.Restore, many(proof.Check.Damaged(), "object"), last.Backup, what, vault.ErrCorrupt)
	case proof.Verdict != vault.OK && proof.Verdict != vault.Quarantined:
		return false, exists("restore %s has made it, and its rows are not those of backup %s: %d missing, %d extra, %d changed; it is not handed over: drop it and give the same command again",
			last.Restore, last.Backup, proof.Check.Missing, proof.Check.Extra, proof.Check.Changed)
	case last.Backup != req.Backup.ID:
		return false, exists("restore %s has made it of backup %s, and this command asks for backup %s: restore to another name, or drop it first", last.Restore, last.Backup, req.Backup.ID)
	case req.LocalTransactions && !plan.Definition.LocalTransactions:
		return false, exists("restore %s has made it of that backup, without local transactions: drop it and give the same command again, or restore to another name", last.Restore)
	case req.New, req.Own:
		return false, exists("restore %s has made it of that backup, and proved it at %s: restore to another name, or drop it first", last.Restore, proof.At.UTC().Format(time.RFC3339))
	case !got.Identity.Known() || !made.Identity.Known():
		return false, exists("restore %s has made one of that name, and proved it at %s; whether it is this one, the service does not tell: restore to another name, or drop it first",
			last.Restore, proof.At.UTC().Format(time.RFC3339))
	}
	return true, nil
}
