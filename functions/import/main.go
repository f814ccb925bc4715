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
	"github.com/tablevault/tablevault/shared/function/dispatch"
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

// planner is what restores into an instance.
func planner(inv *function.Invocation, repo *repository.Repository, instance string) (*restore.Planner, error) {
	tables, err := parts.Tables(inv, instance)
	if err != nil {
		return nil, err
	}
	work, err := dispatch.To(inv)
	if err != nil {
		return nil, err
	}
	wanted := wantedBy(inv)
	return &restore.Planner{
		Repo: repo, Tables: tables, Endpoint: inv.Endpoint(instance), Work: work, Log: inv.Log, Workers: wanted.Workers.Most,
		Known: parts.Replicas(inv, wanted.Replicas()),
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
		return nil, err
	}
	run := inv.Run()
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
			return nil, err
		}
		parts.SetReplicas(inv, repo, plan.Replicas)
		p, err := planner(inv, repo, plan.Target.Instance)
		if err != nil {
			return nil, err
		}
		var since dispatch.Since
		if err := cmd.ReadSettings(&since); err != nil {
			return nil, err
		}
		p.Since = since.Since
		return p.Tick(ctx, run, id)
	}
	replica, err := parts.ReplicaKeys(inv, cmd.Replicas)
	if err != nil {
		return nil, err
	}
	parts.SetReplicas(inv, repo, replica)
	req := restore.Request{At: time.Now(), New: cmd.New, Replicas: replica}
	if inv.Origin.Key() != "" {
		req.At, _ = inv.Origin.Instant(req.At)
	}
	asked, err := dispatch.ReadRestore(cmd)
	if err != nil {
		return nil, err
	}
	req.Budget, req.LocalTransactions = asked.Budget(), asked.LocalTransactions
	if req.Target, err = inv.Table(cmd.To); err != nil {
		return nil, err
	}
	if err := restore.NotAhead(cmd.At, time.Now()); err != nil {
		return nil, err
	}
	req.Instant = cmd.At
	if req.Backup, err = source(ctx, inv, repo, cmd); err != nil {
		return nil, err
	}
	p, err := planner(inv, repo, req.Target.Instance)
	if err != nil {
		return nil, err
	}
	plan, err := p.Begin(ctx, run, req)
	if err != nil {
		return nil, err
	}
	p.Since = time.Now()
	return p.Tick(ctx, run, plan.Restore)
}

// request looks at a request that lies in the vault.
func request(ctx context.Context, inv *function.Invocation, repo *repository.Repository, run fanout.Run, name string) (any, error) {
	name, err := restore.RequestName(inv.Env.Vault, name)
	if err != nil {
		return nil, function.Permanent(err)
	}
	work, err := dispatch.To(inv)
	if err != nil {
		return nil, err
	}
	q := &restore.Requests{
		Repo: repo, Work: work, Log: inv.Log,
		Parse: func(content []byte) (restore.Ask, error) { return ask(inv, content) },
		Planner: func(instance string) (*restore.Planner, error) {
			p, err := planner(inv, repo, instance)
			if err == nil && strings.HasPrefix(name, vault.DrillRequests) {
				p.Workers = drill.Workers(wantedBy(inv))
			}
			return p, err
		},
	}
	return q.Serve(ctx, run, name)
}

// ask reads a request: the command that a person would give.
func ask(inv *function.Invocation, content []byte) (restore.Ask, error) {
	cmd, err := function.ParseCommand(content)
	if err != nil {
		return restore.Ask{}, err
	}
	if cmd.Kind != function.KindRestore || cmd.Restore != "" || cmd.Request != "" || cmd.New || len(cmd.Replicas) > 0 {
		return restore.Ask{}, errors.New(`a request asks for a new restore, such as {"kind":"restore","table":"prod/orders","at":"2026-11-20T10:14:00+08:00","to":"prod/orders_copy"}`)
	}
	a := restore.Ask{At: cmd.At}
	asked, err := dispatch.ReadRestore(cmd)
	if err != nil {
		return a, err
	}
	a.Budget, a.LocalTransactions = asked.Budget(), asked.LocalTransactions
	if a.Target, err = inv.Table(cmd.To); err != nil {
		return a, err
	}
	if cmd.Backup != "" {
		if a.Backup, err = vault.ParseBackupID(cmd.Backup); err != nil || cmd.Table == "" {
			return a, err
		}
	}
	a.Table, err = inv.Table(cmd.Table)
	return a, err
}

// source finds the backup that a restore is to bring back.
func source(ctx context.Context, inv *function.Invocation, repo *repository.Repository, cmd function.Command) (vault.Backup, error) {
	if cmd.Backup != "" {
		return parts.FindBackup(ctx, repo, cmd)
	}
	id, err := inv.Table(cmd.Table)
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
	var settings dispatch.Reason
	if err := cmd.ReadSettings(&settings); err != nil {
		return nil, err
	}
	if settings.Reason == "" {
		return nil, function.Permanent(errors.New(`settings: a restore is given up for a reason, such as {"reason":"the wrong backup"}`))
	}
	repo, err := parts.Repository(ctx, inv)
	if err != nil {
		return nil, err
	}
	plan, err := repo.RestorePlan(ctx, vault.RestoreID(cmd.Restore))
	if err != nil {
		return nil, err
	}
	p, err := planner(inv, repo, plan.Target.Instance)
	if err != nil {
		return nil, err
	}
	var reply givenUp
	if reply.Closed, err = restore.GiveUp(ctx, repo, inv.Run(), plan.Restore, settings.Reason); err != nil {
		return reply, err
	}
	if reply.Closed.Reason != "" {
		// It is marked as ended. One that had come to its end is left to whoever goes on.
		reply.Progress, err = p.Tick(ctx, inv.Run(), plan.Restore)
	}
	return reply, err
}

// load loads one segment.
func load(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	w, err := dispatch.Work(cmd, inv.TableRegion())
	if err != nil {
		return nil, err
	}
	repo, err := parts.Repository(ctx, inv)
	if err != nil {
		return nil, err
	}
	plan, err := repo.RestorePlan(ctx, w.Restore)
	if err != nil {
		return nil, err
	}
	parts.SetReplicas(inv, repo, plan.Replicas)
	l := &restore.Loader{Repo: repo, Log: inv.Log}
	if l.Tables, err = parts.Tables(inv, plan.Target.Instance); err != nil {
		return nil, err
	}
	if l.Work, err = dispatch.To(inv); err != nil {
		return nil, err
	}
	return l.Load(ctx, inv.Run(), w)
}
