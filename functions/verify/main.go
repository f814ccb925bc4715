// Command verify is the function that proves backups and restores.
package main

import (
	"context"
	"time"

	"github.com/tablevault/tablevault/functions/internal/parts"
	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/vault"
)

func main() {
	parts.BoundMemory()
	function.Serve(function.Verbs{function.KindVerify: verify})
}

// verify proves a whole backup or restore, or one segment of a restore.
func verify(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	repo, err := parts.Repository(ctx, inv)
	if err != nil {
		return parts.Fail(vault.Proof{}, err)
	}
	v := &backup.Verifier{Repo: repo, Log: inv.Log, Now: time.Now}
	req := backup.VerifyRequest{Depth: backup.DepthRead}
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
		if err := parts.Also(ctx, inv, repo, plan.Also); err != nil {
			// It is missed only where something is damaged here.
			inv.Log.Warn("without the further vaults", function.KeyError, err)
		}
		req.Restore, instance = plan.Restore, plan.Target.Instance
		req.Backup = vault.Backup{Table: plan.Source, ID: plan.Backup}
		if cmd.Depth == "" {
			req.Depth = backup.DepthRows
		}
	case cmd.Backup != "":
		id, err := vault.ParseBackupID(cmd.Backup)
		if err != nil {
			return nil, function.Permanent(err)
		}
		if req.Backup, err = repo.FindBackup(ctx, id); err != nil {
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
			req.Depth = backup.DepthRows
		}
	}
	if v.Tables, err = parts.Tables(inv, instance); err != nil {
		return parts.Fail(vault.Proof{}, err)
	}
	if cmd.Segment != "" {
		reply, err := v.VerifySegment(ctx, parts.Run(inv), backup.Work{
			Verb: backup.VerbVerify, Restore: req.Restore, Segment: vault.SegmentID(cmd.Segment), Start: cmd.Start,
		})
		return parts.Fail(reply, err)
	}
	proof, err := v.Verify(ctx, parts.Run(inv), req)
	return parts.Fail(proof, err)
}
