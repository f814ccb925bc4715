package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/sealed"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// What becomes of a command that is given again, and of a backup that is seen to be
// damaged before anything is made of it.

// fixed refuses what a command asks of a restore that goes on, where its plan has fixed
// something else. asked are the further vaults that the command names.
func fixed(req Request, asked []string, p *vault.RestorePlan) error {
	if req.Budget != (vault.Budget{}) && req.Budget != p.Budget {
		return table.Invalidf("restore %s into that table goes on with %s, which its plan fixes, not with %s: ask without a budget, or drop the table and begin anew",
			p.Restore, p.Budget, req.Budget)
	}
	if req.LocalTransactions && !p.Definition.LocalTransactions {
		return table.Invalidf("restore %s goes on with %s, which does not take local transactions: drop it, if it is there, and give the same command with --new beside --local-transactions",
			p.Restore, p.Target)
	}
	for _, key := range asked {
		if slices.Contains(p.Also, key) {
			continue
		}
		has := "no further vault"
		if len(p.Also) > 0 {
			has = "no further vault but " + strings.Join(p.Also, ", ")
		}
		return table.Invalidf("restore %s into that table goes on with %s, as its plan fixes, and can't be given %s: drop %s, if it is there, and give the same command with --new beside --also",
			p.Restore, has, key, p.Target)
	}
	return nil
}

// ended says what becomes of a request whose target's newest claim is that of a restore
// which has ended: true if that has done what is asked for, and its table still stands;
// false if no table stands there any more, so that a new restore may follow. Any other
// table is in the way, and the error says what it is. proof and closed are the
// restore's, nil if it has none.
func (i *Importer) ended(ctx context.Context, req Request, last *vault.Claim, proof *vault.Proof, closed *vault.Closed) (done bool, err error) {
	got, err := i.Tables.Describe(ctx, req.Target.Table)
	if errors.Is(err, table.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for %s: %w", req.Target, err)
	}
	exists := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s; "+format, slices.Concat([]any{table.ErrExist, req.Target}, args)...)
	}
	plan, err := i.Repo.RestorePlan(ctx, last.Restore)
	if errors.Is(err, fs.ErrNotExist) {
		return false, exists("restore to another name, or drop it first")
	}
	if err != nil {
		return false, err
	}
	made, err := i.Repo.Made(ctx, last.Restore)
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

// earlyIndexes is how many indexes of a backup are read before anything is made: as
// many as take a second or two. Those of a larger backup are read by the workers, each
// for its segment.
const earlyIndexes = 256

// readable refuses a backup of which the plan, a roll-up or one of the first indexes is
// not as it was written, here and in each further vault: then nothing is made, and nobody
// has to drop anything.
func (i *Importer) readable(ctx context.Context, req Request, m *vault.Manifest) error {
	_, err := i.Repo.PlanOf(ctx, m)
	var parts []*vault.Part
	if err == nil {
		parts, err = i.someParts(ctx, m)
	}
	if err == nil {
		err = sealed.HoldIndexes(ctx, i.Repo, parts)
	}
	if err != nil && repository.Corrupt(err) {
		return fmt.Errorf("the backup is damaged, and nothing was made: restore another one (`tablevault list` shows them), or name a destination that has a copy with --also: %w", err)
	}
	return err
}

// someParts are the first parts of a backup that hold rows.
func (i *Importer) someParts(ctx context.Context, m *vault.Manifest) (parts []*vault.Part, err error) {
	for g, err := range i.Repo.Groups(ctx, m) {
		if err != nil {
			return nil, err
		}
		for s := range g.Segments {
			for k := range g.Segments[s].Slots {
				if p := g.Segments[s].Slots[k].Part; p != nil && len(parts) < earlyIndexes {
					parts = append(parts, p)
				}
			}
		}
		if len(parts) == earlyIndexes {
			break
		}
	}
	return parts, nil
}

// indexes finds out, before a row of the segment is written, that its indexes are as
// they were written. Nothing is loaded by them, but without them nothing is compared.
func (l *loader) indexes(ctx context.Context) error {
	if l.ended {
		return nil
	}
	var parts []*vault.Part
	for k := range l.parts[l.part:] {
		parts = append(parts, l.parts[l.part+k].Part)
	}
	return sealed.HoldIndexes(ctx, l.Repo, parts)
}
