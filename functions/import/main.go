// Command import is the function that restores: it makes a restore's plan and its table,
// loads one segment at a time, and closes.
package main

import (
	"context"

	"github.com/tablevault/tablevault/functions/internal/parts"
	"github.com/tablevault/tablevault/shared/drill"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/function/dispatch"
	"github.com/tablevault/tablevault/shared/restore"
)

func main() {
	parts.BoundMemory()
	function.Serve(function.Verbs{function.KindRestore: bringBack, function.KindImport: load, function.KindVoid: bringBack})
}

func requests(ctx context.Context, inv *function.Invocation) (*restore.Requests, error) {
	repo, err := parts.Repository(ctx, inv)
	if err != nil {
		return nil, err
	}
	work, err := dispatch.To(inv)
	if err != nil {
		return nil, err
	}
	open, wanted := parts.Instances(inv), inv.Wanted()
	return &restore.Requests{
		Repo: repo, Work: work, Log: inv.Log, Drills: drill.Workers(wanted), Parse: dispatch.Asks(inv), Open: open, Replicas: parts.ReplicasByKey(inv),
		Planner: func(instance string) (*restore.Planner, error) {
			tables, err := open(instance)
			return &restore.Planner{
				Repo: repo, Tables: tables, Endpoint: inv.Endpoint(instance), Work: work, Log: inv.Log, Workers: wanted.Workers.Most,
				Known: parts.Replicas(inv, wanted.Replicas()),
			}, err
		},
	}, nil
}

// bringBack begins a restore, goes on with one and does what is due, or gives it up.
func bringBack(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	asked, err := dispatch.Restore(inv, cmd)
	if err != nil {
		return nil, err
	}
	q, err := requests(ctx, inv)
	if err != nil {
		return nil, err
	}
	return q.Do(ctx, inv.Run(), asked)
}

// load loads one segment.
func load(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	w, err := dispatch.Work(cmd, inv.TableRegion())
	if err != nil {
		return nil, err
	}
	q, err := requests(ctx, inv)
	if err != nil {
		return nil, err
	}
	return q.Load(ctx, inv.Run(), w)
}
