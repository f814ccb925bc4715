// Command import is the function that restores: it makes a restore's plan and
// its table, loads one segment at a time, and closes.
package main

import (
	"context"
	"errors"
	"time"

	"github.com/tablevault/tablevault/functions/internal/parts"
	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/vault"
)

func main() {
	parts.BoundMemory()
	function.Serve(function.Verbs{
		function.KindRestore: restore,
		function.KindImport:  load,
	})
}

func importer(inv *function.Invocation, repo *backup.Repository, instance string) (*backup.Importer, error) {
	tables, err := parts.Tables(inv, instance)
	if err != nil {
		return nil, err
	}
	work, err := parts.Work(inv)
	if err != nil {
		return nil, err
	}
	return &backup.Importer{Repo: repo, Tables: tables, Endpoint: parts.Endpoint(inv, instance), Work: work, Log: inv.Log}, nil
}

// restore begins a restore, or goes on with one, and does what is due.
func restore(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	if cmd.Request != "" {
		return nil, function.Permanent(errors.New("restore: requests in a bucket are not built into this version: send the command itself"))
	}
	repo, err := parts.Repository(ctx, inv)
	if err != nil {
		return parts.Fail(backup.RestoreProgress{}, err)
	}
	run := parts.Run(inv)
	if cmd.Restore != "" {
		id, err := vault.ParseRestoreID(cmd.Restore)
		if err != nil {
			return nil, function.Permanent(err)
		}
		plan, err := repo.RestorePlan(ctx, id)
		if err != nil {
			return parts.Fail(backup.RestoreProgress{}, err)
		}
		i, err := importer(inv, repo, plan.Target.Instance)
		if err != nil {
			return parts.Fail(backup.RestoreProgress{}, err)
		}
		progress, err := i.Tick(ctx, run, id)
		return parts.Fail(progress, err)
	}
	req := backup.RestoreRequest{At: time.Now(), New: cmd.New}
	if inv.Origin.Key() != "" {
		req.At = inv.Origin.Time
	}
	if req.Target, err = parts.Table(inv, cmd.To); err != nil {
		return nil, err
	}
	if req.Backup, err = source(ctx, inv, repo, cmd); err != nil {
		return parts.Fail(backup.RestoreProgress{}, err)
	}
	i, err := importer(inv, repo, req.Target.Instance)
	if err != nil {
		return parts.Fail(backup.RestoreProgress{}, err)
	}
	plan, err := i.Begin(ctx, run, req)
	if err != nil {
		return parts.Fail(backup.RestoreProgress{}, err)
	}
	progress, err := i.Tick(ctx, run, plan.Restore)
	return parts.Fail(progress, err)
}

// source finds the backup that a restore is to bring back.
func source(ctx context.Context, inv *function.Invocation, repo *backup.Repository, cmd function.Command) (vault.Backup, error) {
	if cmd.Backup != "" {
		id, err := vault.ParseBackupID(cmd.Backup)
		if err != nil {
			return vault.Backup{}, function.Permanent(err)
		}
		return repo.FindBackup(ctx, id)
	}
	id, err := parts.Table(inv, cmd.Table)
	if err != nil {
		return vault.Backup{}, err
	}
	m, err := repo.Latest(ctx, id, cmd.At)
	if err != nil {
		return vault.Backup{}, function.Permanent(err)
	}
	return vault.Backup{Table: id, ID: m.Backup}, nil
}

// load loads one segment.
func load(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	repo, err := parts.Repository(ctx, inv)
	if err != nil {
		return parts.Fail(backup.ImportReply{}, err)
	}
	plan, err := repo.RestorePlan(ctx, vault.RestoreID(cmd.Restore))
	if err != nil {
		return parts.Fail(backup.ImportReply{}, err)
	}
	i, err := importer(inv, repo, plan.Target.Instance)
	if err != nil {
		return parts.Fail(backup.ImportReply{}, err)
	}
	reply, err := i.Import(ctx, parts.Run(inv), backup.Work{
		Verb: backup.VerbImport, Restore: plan.Restore, Segment: vault.SegmentID(cmd.Segment), Start: cmd.Start,
	})
	return parts.Fail(reply, err)
}
