// Command import is the function that restores: it makes a restore's plan and
// its table, loads one segment at a time, and closes.
package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/tablevault/tablevault/functions/internal/parts"
	"github.com/tablevault/tablevault/shared/drill"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/vault"
)

func main() {
	parts.BoundMemory()
	function.Serve(function.Verbs{
		function.KindRestore: bringBack,
		function.KindImport:  load,
		function.KindVoid:    giveUp,
	})
}

func importer(inv *function.Invocation, repo *repository.Repository, instance string) (*restore.Importer, error) {
	tables, err := parts.Tables(inv, instance)
	if err != nil {
		return nil, err
	}
	work, err := parts.Work(inv)
	if err != nil {
		return nil, err
	}
	wanted := wantedBy(inv)
	return &restore.Importer{
		Repo: repo, Tables: tables, Endpoint: parts.Endpoint(inv, instance), Work: work, Log: inv.Log, Workers: wanted.Workers.Most,
		Known: parts.Twins(inv, wanted.Destinations()),
	}, nil
}

// wantedBy is the policy, or the default where it can't be read.
func wantedBy(inv *function.Invocation) *policy.Policy {
	wanted, err := parts.Policy(inv)
	if err != nil {
		inv.Log.Warn("without the policy", function.KeyError, err)
	}
	return wanted
}

// bringBack begins a restore, or goes on with one, and does what is due.
func bringBack(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	repo, err := parts.Repository(ctx, inv)
	if err != nil {
		return parts.Fail(restore.Progress{}, err)
	}
	run := parts.Run(inv)
	if cmd.Request != "" {
		return request(ctx, inv, repo, run, cmd.Request)
	}
	if cmd.Restore != "" {
		id, err := vault.ParseRestoreID(cmd.Restore)
		if err != nil {
			return nil, function.Permanent(err)
		}
		plan, err := repo.RestorePlan(ctx, id)
		if err != nil {
			return parts.Fail(restore.Progress{}, err)
		}
		parts.Also(inv, repo, plan.Also)
		i, err := importer(inv, repo, plan.Target.Instance)
		if err != nil {
			return parts.Fail(restore.Progress{}, err)
		}
		if i.Since, err = parts.Since(cmd); err != nil {
			return nil, err
		}
		progress, err := i.Tick(ctx, run, id)
		return parts.Fail(progress, err)
	}
	also, err := parts.Keys(inv, cmd.Also)
	if err != nil {
		return nil, err
	}
	parts.Also(inv, repo, also)
	req := restore.Request{At: time.Now(), New: cmd.New, Also: also}
	if inv.Origin.Key() != "" {
		req.At, _ = inv.Origin.Instant(req.At)
	}
	asked, err := parts.RestoreSettings(cmd)
	if err != nil {
		return nil, err
	}
	req.Budget, req.LocalTransactions = asked.Budget(), asked.LocalTransactions
	if req.Target, err = parts.Table(inv, cmd.To); err != nil {
		return nil, err
	}
	if err := restore.NotAhead(cmd.At, time.Now()); err != nil {
		return parts.Fail(restore.Progress{}, err)
	}
	req.Instant = cmd.At
	if req.Backup, err = source(ctx, inv, repo, cmd); err != nil {
		return parts.Fail(restore.Progress{}, err)
	}
	i, err := importer(inv, repo, req.Target.Instance)
	if err != nil {
		return parts.Fail(restore.Progress{}, err)
	}
	plan, err := i.Begin(ctx, run, req)
	if err != nil {
		return parts.Fail(restore.Progress{}, err)
	}
	i.Since = time.Now()
	progress, err := i.Tick(ctx, run, plan.Restore)
	return parts.Fail(progress, err)
}

// request looks at a request that lies in the vault.
func request(ctx context.Context, inv *function.Invocation, repo *repository.Repository, run fanout.Run, name string) (any, error) {
	name, err := restore.RequestName(inv.Env.Vault, name)
	if err != nil {
		return nil, function.Permanent(err)
	}
	work, err := parts.Work(inv)
	if err != nil {
		return nil, err
	}
	q := &restore.Requests{
		Repo: repo, Work: work, Log: inv.Log,
		Parse: func(content []byte) (restore.Ask, error) { return ask(inv, content) },
		Importer: func(instance string) (*restore.Importer, error) {
			i, err := importer(inv, repo, instance)
			if err == nil && strings.HasPrefix(name, vault.DrillRequests) {
				i.Workers = drill.Workers(wantedBy(inv))
			}
			return i, err
		},
	}
	progress, err := q.Serve(ctx, run, name)
	return parts.Fail(progress, err)
}

// ask reads a request: the command that a person would give.
func ask(inv *function.Invocation, content []byte) (restore.Ask, error) {
	cmd, err := function.ParseCommand(content)
	if err != nil {
		return restore.Ask{}, err
	}
	if cmd.Kind != function.KindRestore || cmd.Restore != "" || cmd.Request != "" || cmd.New || len(cmd.Also) > 0 {
		return restore.Ask{}, errors.New(`a request asks for a new restore, such as {"kind":"restore","table":"prod/orders","at":"2026-11-20T10:14:00+08:00","to":"prod/orders_copy"}`)
	}
	a := restore.Ask{At: cmd.At}
	asked, err := parts.RestoreSettings(cmd)
	if err != nil {
		return a, err
	}
	a.Budget, a.LocalTransactions = asked.Budget(), asked.LocalTransactions
	if a.Target, err = parts.Table(inv, cmd.To); err != nil {
		return a, err
	}
	if cmd.Backup != "" {
		if a.Backup, err = vault.ParseBackupID(cmd.Backup); err != nil || cmd.Table == "" {
			return a, err
		}
	}
	a.Table, err = parts.Table(inv, cmd.Table)
	return a, err
}

// source finds the backup that a restore is to bring back.
func source(ctx context.Context, inv *function.Invocation, repo *repository.Repository, cmd function.Command) (vault.Backup, error) {
	if cmd.Backup != "" {
		return parts.FindBackup(ctx, repo, cmd)
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

// givenUp is what became of a restore that was to be given up.
type givenUp struct {
	// Closed is the record that stands: that of a restore which had come to its end
	// before has no reason.
	Closed *vault.Closed `json:"closed"`
	restore.Progress
}

// giveUp gives a restore up: nothing goes on with it, and nothing of it writes a row.
func giveUp(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	var settings struct {
		Reason string `json:"reason"`
	}
	if err := parts.Settings(cmd, &settings); err != nil {
		return nil, err
	}
	if settings.Reason == "" {
		return nil, function.Permanent(errors.New(`settings: a restore is given up for a reason, such as {"reason":"the wrong backup"}`))
	}
	repo, err := parts.Repository(ctx, inv)
	if err != nil {
		return parts.Fail(givenUp{}, err)
	}
	plan, err := repo.RestorePlan(ctx, vault.RestoreID(cmd.Restore))
	if err != nil {
		return parts.Fail(givenUp{}, err)
	}
	i, err := importer(inv, repo, plan.Target.Instance)
	if err != nil {
		return parts.Fail(givenUp{}, err)
	}
	var reply givenUp
	if reply.Closed, err = i.GiveUp(ctx, parts.Run(inv), plan.Restore, settings.Reason); err != nil {
		return parts.Fail(reply, err)
	}
	if reply.Closed.Reason != "" {
		// It is marked as ended. One that had come to its end is left to whoever goes on.
		reply.Progress, err = i.Tick(ctx, parts.Run(inv), plan.Restore)
	}
	return parts.Fail(reply, err)
}

// load loads one segment.
func load(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	var share parts.Units
	if err := parts.Settings(cmd, &share); err != nil {
		return nil, err
	}
	repo, err := parts.Repository(ctx, inv)
	if err != nil {
		return parts.Fail(restore.ImportReply{}, err)
	}
	plan, err := repo.RestorePlan(ctx, vault.RestoreID(cmd.Restore))
	if err != nil {
		return parts.Fail(restore.ImportReply{}, err)
	}
	parts.Also(inv, repo, plan.Also)
	i, err := importer(inv, repo, plan.Target.Instance)
	if err != nil {
		return parts.Fail(restore.ImportReply{}, err)
	}
	reply, err := i.Import(ctx, parts.Run(inv), fanout.Work{
		Verb: fanout.VerbImport, Restore: plan.Restore, Segment: vault.SegmentID(cmd.Segment), Start: cmd.Start,
		WriteUnits: share.WriteUnits, Request: cmd.Request,
	})
	return parts.Fail(reply, err)
}
