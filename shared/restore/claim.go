package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/sealed"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// claim wins the target's name for a restore, or finds the restore that is to be gone on
// with, and returns its id.
func (p *Planner) claim(ctx context.Context, run fanout.Run, req Request, m *vault.Manifest) (vault.RestoreID, error) {
	id := vault.RestoreAsked(req.At, req.Backup.ID, req.Target, req.LocalTransactions)
	for {
		n, last, err := p.lastClaim(ctx, req.Target)
		if err != nil {
			return "", err
		}
		if last != nil {
			if last.Restore == id {
				return id, nil
			}
			goOn, err := p.after(ctx, run, req, last)
			if err != nil || goOn {
				return last.Restore, err
			}
		}
		if err := p.absent(ctx, req.Target); err != nil {
			return "", err
		}
		// A mark that stands already costs no claim on the target.
		if err := p.Repo.CheckNotMarked(ctx, req.Backup); err != nil {
			return "", err
		}
		// Neither does what is seen to be damaged before anything is made.
		if err := p.readable(ctx, m); err != nil {
			return "", err
		}
		c := vault.Claim{Restore: id, Backup: req.Backup.ID, At: run.Now().UTC()}
		mine, err := p.Repo.Win(ctx, vault.ClaimName(req.Target, n), &c)
		if errors.Is(err, fs.ErrPermission) {
			return "", fmt.Errorf("a restore writes down in the vault what it does, and this vault may not be written: give import's role the rights of docs/ram/import.json, "+
				"or copy the vault's objects, vault.json with them, to a place that may be written, and restore from there: %w", err)
		}
		if err != nil {
			return "", err
		}
		if mine {
			return id, nil
		}
		// Someone else was faster: look again whose it is.
	}
}

// lastClaim returns the newest claim on a target, nil if there is none, and the number of
// the next.
func (p *Planner) lastClaim(ctx context.Context, t vault.TableID) (next int, last *vault.Claim, err error) {
	prefix := vault.ClaimsOn(t)
	for info, err := range p.Repo.Store().List(ctx, prefix, "") {
		if err != nil {
			return 0, nil, fmt.Errorf("list %s: %w", prefix, err)
		}
		if n, err := strconv.Atoi(strings.TrimSuffix(path.Base(info.Name), ".json")); err == nil {
			next = max(next, n+1)
		}
	}
	for { // a list may be stale, a read by name is not
		var c vault.Claim
		_, err := p.Repo.Read(ctx, vault.ClaimName(t, next), &c)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return 0, nil, err
		}
		next++
	}
	if next == 0 {
		return 0, nil, nil
	}
	last = new(vault.Claim)
	_, err = p.Repo.Read(ctx, vault.ClaimName(t, next-1), last)
	return next, last, err
}

func (p *Planner) absent(ctx context.Context, t vault.TableID) error {
	_, err := p.Tables.Describe(ctx, t.Table)
	switch {
	case err == nil:
		return fmt.Errorf("%w: %s; restore to another name, or drop it first", table.ErrExist, t)
	case errors.Is(err, table.ErrNotExist):
		return nil
	}
	return fmt.Errorf("look for %s: %w", t, err)
}

// earlyIndexes is how many indexes of a backup are read before anything is made: as many
// as take a second or two. Those of a larger backup are read by the workers, each for its
// segment.
const earlyIndexes = 256

// readable refuses a backup of which the plan, a roll-up or one of the first indexes is
// not as it was written, here and in each replica: then nothing is made, and nobody has
// to drop anything.
func (p *Planner) readable(ctx context.Context, m *vault.Manifest) error {
	_, err := p.Repo.PlanOf(ctx, m)
	var parts []*vault.Part
	if err == nil {
		parts, err = p.someParts(ctx, m)
	}
	if err == nil {
		err = sealed.HoldIndexes(ctx, p.Repo, parts)
	}
	if err != nil && repository.Corrupt(err) {
		return fmt.Errorf("the backup is damaged, and nothing was made: restore another one (`tablevault list` shows them), or name a destination that has a copy with --also: %w", err)
	}
	return err
}

// someParts are the first parts of a backup that hold rows.
func (p *Planner) someParts(ctx context.Context, m *vault.Manifest) (parts []*vault.Part, err error) {
	for g, err := range p.Repo.Groups(ctx, m) {
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
