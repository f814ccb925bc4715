// Command plan is the function that plans backups, starts their workers and
// seals them.
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
	function.Serve(function.Verbs{
		function.KindBackup: begin,
		function.KindTick:   tick,
		function.KindSeal:   tick,
		function.KindVoid:   void,
	})
}

// reply is what the planner knows of one backup.
type reply struct {
	Backup vault.BackupID `json:"backup"`
	Table  string         `json:"table"`
	backup.Progress
}

func planner(inv *function.Invocation, repo *backup.Repository, instance string) (*backup.Planner, error) {
	tables, err := parts.Tables(inv, instance)
	if err != nil {
		return nil, err
	}
	work, err := parts.Work(inv)
	if err != nil {
		return nil, err
	}
	return &backup.Planner{
		Repo: repo, Tables: tables, Endpoint: parts.Endpoint(inv, instance), Work: work, Log: inv.Log, Now: time.Now,
	}, nil
}

// begin plans a backup, or finds the one that is open, and starts its workers.
func begin(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	var settings vault.Settings
	if err := parts.Settings(cmd, &settings); err != nil {
		return nil, err
	}
	if settings.Lanes == 0 {
		settings.Lanes = inv.Env.Lanes
	}
	id, err := parts.Table(inv, cmd.Table)
	if err != nil {
		return nil, err
	}
	store, err := parts.Store(ctx, inv)
	if err != nil {
		return parts.Fail(reply{}, err)
	}
	repo, err := backup.Init(ctx, store, time.Now())
	if err != nil {
		return parts.Fail(reply{}, err)
	}
	p, err := planner(inv, repo, id.Instance)
	if err != nil {
		return parts.Fail(reply{}, err)
	}
	req := backup.PlanRequest{Table: id, Kind: vault.Full, At: time.Now(), Trigger: inv.RequestID, New: cmd.New, Settings: settings}
	if cmd.Type != "" {
		req.Kind = vault.Kind(cmd.Type)
	}
	if key := inv.Origin.Key(); key != "" {
		req.At, req.Trigger = inv.Origin.Time, key
	}
	plan, err := p.Plan(ctx, req)
	if err != nil {
		return parts.Fail(reply{}, err)
	}
	if time.Since(plan.Created) > parts.Resumed {
		p.Stale = parts.Resumed
	}
	b := vault.Backup{Table: id, ID: plan.Backup}
	progress, err := p.Tick(ctx, parts.Run(inv), b)
	return parts.Fail(reply{plan.Backup, id.String(), progress}, err)
}

// tick looks at one backup, or at all that are open.
func tick(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	repo, err := parts.Repository(ctx, inv)
	if err != nil {
		return parts.Fail(reply{}, err)
	}
	one := func(b vault.Backup) (reply, error) {
		p, err := planner(inv, repo, b.Table.Instance)
		if err != nil {
			return reply{}, err
		}
		progress, err := p.Tick(ctx, parts.Run(inv), b)
		return reply{b.ID, b.Table.String(), progress}, err
	}
	if cmd.Backup != "" {
		b, err := find(ctx, repo, cmd)
		if err != nil {
			return parts.Fail(reply{}, err)
		}
		r, err := one(b)
		return parts.Fail(r, err)
	}
	var replies []reply
	for b, err := range repo.Open(ctx, nil) {
		if err != nil {
			return parts.Fail(replies, err)
		}
		r, err := one(b)
		if err != nil {
			// One backup that can't go on must not keep the others from it.
			inv.Log.Error("tick", function.KeyBackup, b.ID, function.KeyError, err)
			r = reply{b.ID, b.Table.String(), backup.Progress{State: backup.StateFailed, LastError: err.Error()}}
		}
		replies = append(replies, r)
	}
	return replies, nil
}

func find(ctx context.Context, repo *backup.Repository, cmd function.Command) (vault.Backup, error) {
	id, err := vault.ParseBackupID(cmd.Backup)
	if err != nil {
		return vault.Backup{}, function.Permanent(err)
	}
	return repo.FindBackup(ctx, id)
}

// void gives a backup up.
func void(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	var settings struct {
		Reason string `json:"reason"`
	}
	if err := parts.Settings(cmd, &settings); err != nil {
		return nil, err
	}
	repo, err := parts.Repository(ctx, inv)
	if err != nil {
		return parts.Fail(reply{}, err)
	}
	b, err := find(ctx, repo, cmd)
	if err != nil {
		return parts.Fail(reply{}, err)
	}
	p, err := planner(inv, repo, b.Table.Instance)
	if err != nil {
		return parts.Fail(reply{}, err)
	}
	m, err := p.Void(ctx, b, settings.Reason)
	return parts.Fail(m, err)
}
