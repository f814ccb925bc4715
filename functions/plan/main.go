// Command plan is the function that plans backups, starts their workers and seals them,
// and that has restores rehearsed.
package main

import (
	"context"

	"github.com/tablevault/tablevault/functions/internal/parts"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/function/dispatch"
	"github.com/tablevault/tablevault/shared/reconcile"
)

func main() {
	function.Serve(function.Verbs{function.KindBackup: begin, function.KindTick: tick, function.KindVoid: about})
}

func reconciler(ctx context.Context, inv *function.Invocation, open parts.Vault) (*reconcile.Reconciler, error) {
	repo, err := open(ctx, inv)
	if err != nil {
		return nil, err
	}
	work, err := dispatch.To(inv)
	if err != nil {
		return nil, err
	}
	wanted, unread := inv.Policy()
	return &reconcile.Reconciler{
		Repo: repo, Policy: wanted, Unread: unread, Region: inv.TableRegion(), Open: parts.Instances(inv), Endpoint: inv.Endpoint,
		Work: work, Request: dispatch.Request, Log: inv.Log, Slow: inv.Env.SplitAfter,
	}, nil
}

// begin plans a backup, or finds the one that is open, and starts its workers.
func begin(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	req, err := dispatch.Backup(inv, cmd)
	if err != nil {
		return nil, err
	}
	r, err := reconciler(ctx, inv, parts.NewRepository)
	if err != nil {
		return nil, err
	}
	return r.Begin(ctx, inv.Run(), req)
}

// tick looks at one backup, or at everything.
func tick(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	if cmd.Backup != "" {
		return about(ctx, inv, cmd)
	}
	r, err := reconciler(ctx, inv, parts.NewRepository)
	if err != nil {
		return nil, err
	}
	return r.Everything(ctx, inv.Run(), inv.Instant())
}

// about looks at one backup, or gives it up.
func about(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	asked, err := dispatch.Asked(inv, cmd)
	if err != nil {
		return nil, err
	}
	r, err := reconciler(ctx, inv, parts.Repository)
	if err != nil {
		return nil, err
	}
	return r.Do(ctx, inv.Run(), asked)
}
