// Command plan is the function that plans backups, starts their workers and
// seals them, and that has restores rehearsed.
package main

import (
	"context"
	"errors"
	"time"

	"github.com/tablevault/tablevault/functions/internal/parts"
	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/drill"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/function/dispatch"
	"github.com/tablevault/tablevault/shared/reconcile"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/tablestore"
	"github.com/tablevault/tablevault/shared/vault"
)

func main() {
	function.Serve(function.Verbs{
		function.KindBackup: begin,
		function.KindTick:   tick,
		function.KindVoid:   void,
	})
}

func planner(inv *function.Invocation, repo *repository.Repository, instance string) (*backup.Planner, error) {
	tables, err := parts.Tables(inv, instance)
	if err != nil {
		return nil, err
	}
	work, err := dispatch.To(inv)
	if err != nil {
		return nil, err
	}
	wanted, err := parts.Policy(inv)
	if err != nil {
		inv.Log.Warn("without the policy", function.KeyError, err)
	}
	return &backup.Planner{
		Repo: repo, Tables: tables, Endpoint: inv.Endpoint(instance), Work: work, Log: inv.Log, Now: time.Now, Workers: wanted.Workers.Most,
		Slow: inv.Env.SplitAfter,
	}, nil
}

// begin plans a backup, or finds the one that is open, and starts its workers.
func begin(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	req, err := dispatch.Backup(inv, cmd)
	if err != nil {
		return nil, err
	}
	repo, err := parts.NewRepository(ctx, inv)
	if err != nil {
		return nil, err
	}
	p, err := planner(inv, repo, req.Table.Instance)
	if err != nil {
		return nil, err
	}
	return p.Begin(ctx, inv.Run(), req)
}

// tick looks at one backup, or at everything: what is open goes on, what is due
// by the policy begins, backups and drills.
func tick(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	if cmd.Backup != "" {
		p, b, err := plannerOf(ctx, inv, cmd)
		if err != nil {
			return nil, err
		}
		var since dispatch.Since
		if err := cmd.ReadSettings(&since); err != nil {
			return nil, err
		}
		p.Since = since.Since
		return p.Look(ctx, inv.Run(), b)
	}
	repo, err := parts.NewRepository(ctx, inv)
	if err != nil {
		return nil, err
	}
	work, err := dispatch.To(inv)
	if err != nil {
		return nil, err
	}
	// A policy that can't be read keeps nothing from going on that has begun;
	// then the tick fails, so that someone hears of it.
	wanted, policyErr := parts.Policy(inv)
	clients := map[string]*tablestore.Client{}
	open := func(instance string) (*tablestore.Client, error) {
		if c := clients[instance]; c != nil {
			return c, nil
		}
		c, err := parts.Tables(inv, instance)
		if err == nil {
			clients[instance] = c
		}
		return c, err
	}
	r := &reconcile.Reconciler{
		Repo: repo, Policy: wanted, Region: inv.TableRegion(), Work: work, Log: inv.Log, Slow: inv.Env.SplitAfter,
		Open: func(instance string) (reconcile.Instance, string, error) {
			tables, err := open(instance)
			return tables, inv.Endpoint(instance), err
		},
	}
	at, told := inv.Origin.Instant(time.Now())
	if !told && !inv.Origin.Time.IsZero() {
		inv.Log.Warn("the event is of an instant that is still to come: this tick is for now", "time", inv.Origin.Time)
	}
	tick, err := r.Tick(ctx, inv.Run(), at)
	// Backups come first: drills have what time and room is left.
	d := &drill.Rehearser{
		Repo: repo, Policy: wanted, Region: inv.TableRegion(), Restores: restores{inv, repo, work}, Log: inv.Log,
		Now: time.Now, Stop: inv.Run().Stop,
		Open: func(instance string) (drill.Instance, error) { return open(instance) },
	}
	drills, drillErr := d.Tick(ctx, at)
	return looked{tick, drills}, errors.Join(err, drillErr, policyErr)
}

// looked is what a tick over everything came to.
type looked struct {
	*reconcile.Tick
	Drills *drill.Tick `json:"drills"`
}

// plannerOf finds the backup that a command names, and makes its planner.
func plannerOf(ctx context.Context, inv *function.Invocation, cmd function.Command) (*backup.Planner, vault.Backup, error) {
	repo, err := parts.Repository(ctx, inv)
	if err != nil {
		return nil, vault.Backup{}, err
	}
	b, err := parts.FindBackup(ctx, repo, cmd)
	if err != nil {
		return nil, b, err
	}
	p, err := planner(inv, repo, b.Table.Instance)
	return p, b, err
}

// void gives a backup up.
func void(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	var settings dispatch.Reason
	if err := cmd.ReadSettings(&settings); err != nil {
		return nil, err
	}
	p, b, err := plannerOf(ctx, inv, cmd)
	if err != nil {
		return nil, err
	}
	return p.Void(ctx, b, settings.Reason)
}
