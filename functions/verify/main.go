// Command verify is the function that proves backups and restores, and copies
// backups to further vaults: of the functions that touch no table, it is the one
// that reads shards anyway.
package main

import (
	"context"
	"fmt"
	"time"

	"github.com/tablevault/tablevault/functions/internal/parts"
	"github.com/tablevault/tablevault/shared/copies"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/vault"
)

func main() {
	parts.BoundMemory()
	function.Serve(function.Verbs{function.KindVerify: verify, function.KindCopy: copyBackup})
}

// settings are those of a verification.
type settings struct {
	parts.Units
	// Verification is the id under which it tells how far it has come, and leaves its
	// proof; empty for one that nobody watches.
	Verification string `json:"verification,omitempty"`
}

// verify proves a whole backup or restore, or one segment of a restore.
func verify(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	var units settings
	if err := parts.Settings(cmd, &units); err != nil {
		return nil, err
	}
	repo, err := parts.Repository(ctx, inv)
	if err != nil {
		return parts.Fail(vault.Proof{}, err)
	}
	v := &restore.Verifier{Repo: repo, Log: inv.Log, Now: time.Now}
	req := restore.VerifyRequest{Depth: restore.DepthRead, ReadUnits: units.ReadUnits}
	if cmd.Depth != "" {
		req.Depth = cmd.Depth
	}
	instance := ""
	switch {
	case cmd.Restore != "":
		plan, err := repo.RestorePlan(ctx, vault.RestoreID(cmd.Restore))
		if err != nil {
			return parts.Fail(vault.Proof{}, err)
		}
		parts.Also(inv, repo, plan.Also)
		req.Restore, instance = plan.Restore, plan.Target.Instance
		req.Backup = vault.Backup{Table: plan.Source, ID: plan.Backup}
		if cmd.Depth == "" {
			req.Depth = restore.DepthRows
		}
	case cmd.Backup != "":
		if req.Backup, err = parts.FindBackup(ctx, repo, cmd); err != nil {
			return parts.Fail(vault.Proof{}, function.Permanent(err))
		}
		instance = req.Backup.Table.Instance
	default:
		id, err := parts.Table(inv, cmd.Table)
		if err != nil {
			return nil, err
		}
		m, err := repo.Latest(ctx, id, cmd.At)
		if err != nil {
			return nil, function.Permanent(err)
		}
		req.Backup, instance = vault.Backup{Table: id, ID: m.Backup}, id.Instance
	}
	if cmd.Against != "" {
		id, err := parts.Table(inv, cmd.Against)
		if err != nil {
			return nil, err
		}
		req.Against, instance = &id, id.Instance
		if cmd.Depth == "" {
			req.Depth = restore.DepthRows
		}
	}
	if cmd.Target != "" {
		further, twin, err := parts.Further(ctx, inv, cmd.Target)
		if err != nil {
			return parts.Fail(vault.Proof{}, err)
		}
		proof, err := v.Compare(ctx, parts.Run(inv), req.Backup, further.To, twin)
		return parts.Fail(proof, err)
	}
	if v.Tables, err = parts.Tables(inv, instance); err != nil {
		return parts.Fail(vault.Proof{}, err)
	}
	if cmd.Segment != "" {
		if v.Work, err = parts.Work(inv); err != nil {
			return nil, err
		}
		reply, err := v.VerifySegment(ctx, parts.Run(inv), fanout.Work{
			Verb: fanout.VerbVerify, Restore: req.Restore, Segment: vault.SegmentID(cmd.Segment), Start: cmd.Start,
			ReadUnits: units.ReadUnits, Request: cmd.Request,
		})
		return parts.Fail(reply, err)
	}
	return watched(ctx, inv, repo, v, req, units.Verification)
}

// watched verifies, and leaves what it tells and its proof under an id, if it has one.
func watched(ctx context.Context, inv *function.Invocation, repo *repository.Repository, v *restore.Verifier, req restore.VerifyRequest, id string) (any, error) {
	if id == "" {
		proof, err := v.Verify(ctx, parts.Run(inv), req)
		return parts.Fail(proof, err)
	}
	name, err := vault.ParseVerificationID(id)
	if err != nil {
		return nil, function.Permanent(err)
	}
	of := vault.Verification{ID: name}
	// It is found by what it tells.
	if err := repo.Mark(ctx, vault.Told{}.Name(of.Progress())); err != nil {
		return parts.Fail(vault.Proof{}, err)
	}
	tell := fanout.NewTeller(ctx, repo, parts.Run(inv), of.Progress(), 0, 0, 0)
	defer tell.End()
	proof, err := v.Verify(tell.With(ctx), parts.Run(inv), req)
	if err != nil {
		return parts.Fail(proof, err)
	}
	if _, err := repo.Create(ctx, of.Proof(), proof); err != nil {
		inv.Log.Warn("the proof is told, and not kept", function.KeyError, err)
	}
	return proof, nil
}

// copyBackup copies a group of a backup to a further vault, or, without a
// segment, as much of the whole backup as there is time for; or back, to make anew
// in this vault what is gone.
func copyBackup(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	var settings copies.Settings
	if err := parts.Settings(cmd, &settings); err != nil {
		return nil, err
	}
	if settings.BytesPerSecond < 0 {
		return nil, function.Permanent(fmt.Errorf("bytes_per_second is %d", settings.BytesPerSecond))
	}
	here, err := parts.Store(ctx, inv)
	if err != nil {
		return parts.Fail(copies.Reply{}, err)
	}
	further, there, err := parts.Further(ctx, inv, cmd.Target)
	if err != nil {
		return parts.Fail(copies.Reply{}, err)
	}
	work, err := parts.Work(inv)
	if err != nil {
		return nil, err
	}
	from, c := here, &copies.Copier{Target: further.To, To: there, Work: work, Log: inv.Log}
	if settings.Back {
		from, c.Target, c.To, c.Back = there, inv.Env.Vault, here, true
	}
	if c.Repo, err = repository.Open(ctx, from); err != nil {
		return parts.Fail(copies.Reply{}, err)
	}
	b, err := parts.FindBackup(ctx, c.Repo, cmd)
	if err != nil {
		return parts.Fail(copies.Reply{}, function.Permanent(err))
	}
	if cmd.Segment != "" {
		reply, err := c.Copy(ctx, parts.Run(inv), fanout.Work{
			Verb: fanout.VerbCopy, Table: b.Table, Backup: b.ID, Segment: vault.SegmentID(cmd.Segment), Start: cmd.Start,
			Target: further.Key(), Rate: settings.BytesPerSecond,
		})
		return parts.Fail(reply, err)
	}
	reply, err := c.CopyAll(ctx, parts.Run(inv), b, settings.Next, settings.BytesPerSecond)
	return parts.Fail(reply, err)
}
