// Command verify is the function that proves backups and restores, and copies
// backups to replicas: of the functions that touch no table, it is the one
// that reads shards anyway.
package main

import (
	"context"
	"fmt"
	"time"

	"github.com/tablevault/tablevault/functions/internal/parts"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/function/dispatch"
	"github.com/tablevault/tablevault/shared/replica"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/verify"
)

func main() {
	parts.BoundMemory()
	function.Serve(function.Verbs{function.KindVerify: prove, function.KindCopy: copyBackup})
}

// prove proves a whole backup or restore, or one segment of a restore.
func prove(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	var settings dispatch.Verification
	if err := cmd.ReadSettings(&settings); err != nil {
		return nil, err
	}
	repo, err := parts.Repository(ctx, inv)
	if err != nil {
		return nil, err
	}
	v := &verify.Verifier{Repo: repo, Log: inv.Log, Now: time.Now}
	req := verify.Request{Depth: verify.DepthRead, ReadUnits: settings.ReadUnits}
	if cmd.Depth != "" {
		req.Depth = cmd.Depth
	}
	instance := ""
	switch {
	case cmd.Restore != "":
		plan, err := repo.RestorePlan(ctx, vault.RestoreID(cmd.Restore))
		if err != nil {
			return nil, err
		}
		repo.SetReplicas(parts.ReplicasByKey(inv)(plan.Replicas)...)
		req.Restore, instance = plan.Restore, plan.Target.Instance
		req.Backup = vault.Backup{Table: plan.Source, ID: plan.Backup}
		if cmd.Depth == "" {
			req.Depth = verify.DepthRows
		}
	default:
		if req.Backup, err = named(ctx, inv, repo, cmd); err != nil {
			return nil, err
		}
		instance = req.Backup.Table.Instance
	}
	if cmd.Against != "" {
		id, err := inv.Table(cmd.Against)
		if err != nil {
			return nil, err
		}
		req.Against, instance = &id, id.Instance
		if cmd.Depth == "" {
			req.Depth = verify.DepthRows
		}
	}
	if cmd.Replica != "" {
		to, there, err := parts.NamedReplica(ctx, inv, cmd.Replica)
		if err != nil {
			return nil, err
		}
		return v.Compare(ctx, req.Backup, to.To, there)
	}
	if v.Tables, err = parts.Instances(inv)(instance); err != nil {
		return nil, err
	}
	if cmd.Segment != "" {
		c := &restore.Checker{Repo: repo, Tables: v.Tables, Log: inv.Log}
		if c.Work, err = dispatch.To(inv); err != nil {
			return nil, err
		}
		w, err := dispatch.Work(cmd, inv.TableRegion())
		if err != nil {
			return nil, err
		}
		return c.Check(ctx, inv.Run(), w)
	}
	return watched(ctx, inv, repo, v, req, settings.ID)
}

// named finds the backup that a command names.
func named(ctx context.Context, inv *function.Invocation, repo *repository.Repository, cmd function.Command) (vault.Backup, error) {
	a, err := dispatch.Asked(inv, cmd)
	if err != nil {
		return vault.Backup{}, err
	}
	b, err := repo.Named(ctx, a.Backup, a.Table, cmd.At)
	return b, function.Permanent(err)
}

// watched verifies, and leaves what it tells and its proof under an id, if it has one.
func watched(ctx context.Context, inv *function.Invocation, repo *repository.Repository, v *verify.Verifier, req verify.Request, id vault.VerificationID) (any, error) {
	if id == "" {
		return v.Verify(ctx, req)
	}
	name, err := vault.ParseVerificationID(string(id))
	if err != nil {
		return nil, function.Permanent(err)
	}
	of := vault.Verification{ID: name}
	// It is found by what it tells.
	if err := repo.Mark(ctx, vault.Told{}.Name(of.Progress())); err != nil {
		return nil, err
	}
	tell := fanout.NewTeller(ctx, repo, inv.Run(), of.Progress(), 0, 0, 0)
	defer tell.End()
	proof, err := v.Verify(tell.With(ctx), req)
	if err != nil {
		return proof, err
	}
	if _, err := repo.Create(ctx, of.Proof(), proof); err != nil {
		inv.Log.Warn("the proof is told, and not kept", function.KeyError, err)
	}
	return proof, nil
}

// copyBackup copies a group of a backup to a replica, or, without a
// segment, as much of the whole backup as there is time for; or back, to make anew
// in this vault what is gone.
func copyBackup(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	var settings replica.Settings
	if err := cmd.ReadSettings(&settings); err != nil {
		return nil, err
	}
	if settings.BytesPerSecond < 0 {
		return nil, function.Permanent(fmt.Errorf("bytes_per_second is %d", settings.BytesPerSecond))
	}
	here, err := parts.Store(ctx, inv)
	if err != nil {
		return nil, err
	}
	to, there, err := parts.NamedReplica(ctx, inv, cmd.Replica)
	if err != nil {
		return nil, err
	}
	work, err := dispatch.To(inv)
	if err != nil {
		return nil, err
	}
	from, c := here, &replica.Replicator{Address: to.To, Store: there, Work: work, Log: inv.Log}
	if settings.Back {
		from, c.Address, c.Store, c.Back = there, inv.Env.Vault, here, true
	}
	if c.Repo, err = repository.Open(ctx, from); err != nil {
		return nil, err
	}
	b, err := named(ctx, inv, c.Repo, cmd)
	if err != nil {
		return nil, err
	}
	if cmd.Segment != "" {
		w, err := dispatch.Work(cmd, inv.TableRegion())
		if err != nil {
			return nil, err
		}
		w.Table, w.Replica = b.Table, to.Key()
		return c.Copy(ctx, inv.Run(), w)
	}
	return c.CopyAll(ctx, inv.Run(), b, settings.Next, settings.BytesPerSecond)
}
