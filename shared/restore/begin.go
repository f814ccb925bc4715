package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// Begin makes a restore's plan and its target table, or finds those of the open restore
// of the same backup into the same table. It dispatches nothing. A target that exists and
// is not this restore's own is refused.
func (p *Planner) Begin(ctx context.Context, run fanout.Run, req Request) (*vault.RestorePlan, error) {
	plan, err := p.begin(ctx, run, req)
	if err != nil {
		return nil, fmt.Errorf("restore backup %s of %s to %s: %w", req.Backup.ID, req.Backup.Table, req.Target, err)
	}
	return plan, nil
}

// clocksApart is by how much the clocks may differ of those who ask for what was there
// just now, and of those who do it.
const clocksApart = time.Minute

// NotAhead refuses an instant, if there is one, that is still to come: nobody has backed
// up what will be there by then.
func NotAhead(instant, now time.Time) error {
	if !instant.After(now.Add(clocksApart)) {
		return nil
	}
	return table.Invalidf("the instant %s is still to come, in %s: name one that is past, or none for the newest backup",
		instant.UTC().Format(time.RFC3339), instant.Sub(now).Round(time.Second))
}

func (p *Planner) begin(ctx context.Context, run fanout.Run, req Request) (*vault.RestorePlan, error) {
	if err := req.Budget.Validate(); err != nil {
		return nil, table.Invalidf("%w", err)
	}
	if !req.Instant.IsZero() {
		if err := NotAhead(req.Instant, run.Now()); err != nil {
			return nil, err
		}
	}
	asked := req.Replicas
	if err := p.addReplicas(ctx, &req); err != nil {
		return nil, err
	}
	manifest, object, err := p.Repo.Manifest(ctx, req.Backup)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the backup is not sealed, or not in this vault: `tablevault list` shows those that are: %w", err)
	}
	if err != nil {
		return nil, err
	}
	if manifest.State != vault.Sealed {
		return nil, fmt.Errorf("the backup was given up (%s): `tablevault list` shows those that can be restored", manifest.Reason)
	}
	id, err := p.claim(ctx, run, req, manifest)
	if err != nil {
		return nil, err
	}
	plan, err := p.agree(ctx, run, req, id, manifest, object)
	if err != nil {
		return nil, err
	}
	if plan.Backup != req.Backup.ID || plan.Target != req.Target {
		return nil, fmt.Errorf("restore %s is of backup %s to %s: ask again, for a new id", id, plan.Backup, plan.Target)
	}
	over, err := p.Repo.Closed(ctx, id)
	if err != nil {
		return nil, err
	}
	if over != nil {
		return plan, nil // Tick goes on, or says how it ended
	}
	if err := fixed(req, asked, plan); err != nil {
		return nil, err
	}
	// The planner finds it by this mark, and has it gone on with.
	if err := p.Repo.Mark(ctx, vault.Restore{ID: id}.Restoring()); err != nil {
		return nil, err
	}
	_, err = p.ready(ctx, run, plan)
	return plan, err
}

// addReplicas adds to a request those of the known replicas that have a copy of its
// backup.
func (p *Planner) addReplicas(ctx context.Context, req *Request) error {
	for _, t := range p.Known {
		key := place.Key(t.Name)
		copied, err := p.Repo.Exists(ctx, req.Backup.CopyNote(key))
		if errors.Is(err, fs.ErrPermission) {
			p.Log.Warn("without the policy's further vaults", "error", err)
			return nil
		}
		if err != nil {
			return err
		}
		if copied && !slices.Contains(req.Replicas, key) {
			req.Replicas = append(slices.Clip(req.Replicas), key)
			p.Repo.AddReplica(t)
		}
	}
	return nil
}

// agree reads a restore's plan, or makes it. One that can't be made ends the restore.
func (p *Planner) agree(ctx context.Context, run fanout.Run, req Request, id vault.RestoreID, m *vault.Manifest, manifest vault.Object) (*vault.RestorePlan, error) {
	plan, err := p.Repo.RestorePlan(ctx, id)
	if !errors.Is(err, fs.ErrNotExist) {
		return plan, err
	}
	plan, err = p.plan(ctx, run, req, id, m, manifest)
	if errors.Is(err, table.ErrInvalid) {
		// Nobody goes on with it: the target is free for another.
		_, gerr := GiveUp(ctx, p.Repo, run, id, err.Error())
		err = errors.Join(err, gerr)
	}
	if err != nil {
		return nil, err
	}
	mine, err := p.Repo.Win(ctx, vault.Restore{ID: id}.Plan(), plan)
	if mine {
		p.Log.Info("restore planned", "restore", id, "backup", plan.Backup, "target", plan.Target.String(), "segments", len(plan.Segments))
	}
	return plan, err
}

// ready makes the target, unless the restore has, and says what it has noted about it.
func (p *Planner) ready(ctx context.Context, run fanout.Run, plan *vault.RestorePlan) (*vault.Made, error) {
	made, err := p.Repo.Made(ctx, plan.Restore)
	if err != nil || made != nil {
		return made, err
	}
	if err := p.checkNotMarked(ctx, run, plan); err != nil {
		return nil, err
	}
	return p.make(ctx, plan)
}

// checkNotMarked refuses a restore whose backup is marked for deletion, and gives it up.
// The restore's own mark stands before it looks: prune, which marks before it looks for
// restores, then leaves the backup alone, or is seen here. A restore that has made its
// table has passed this.
func (p *Planner) checkNotMarked(ctx context.Context, run fanout.Run, plan *vault.RestorePlan) error {
	err := p.Repo.CheckNotMarked(ctx, vault.Backup{Table: plan.Source, ID: plan.Backup})
	if !errors.Is(err, repository.ErrMarked) {
		return err
	}
	if _, cerr := GiveUp(ctx, p.Repo, run, plan.Restore, err.Error()); cerr != nil {
		return errors.Join(err, cerr)
	}
	if merr := p.Repo.Mark(ctx, vault.Restore{ID: plan.Restore}.Restored()); merr != nil {
		return errors.Join(err, merr)
	}
	return err
}
