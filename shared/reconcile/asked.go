package reconcile

import (
	"context"
	"errors"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/drill"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// Asked is a backup that a person's command is about.
type Asked struct {
	Backup vault.BackupID
	// Table is the backup's, zero if the command names none.
	Table vault.TableID
	// GiveUp says that it is given up, for a Reason, and else it is looked at. Since is
	// when the command was given: what had failed for good before is tried again.
	GiveUp bool
	Reason string
	Since  time.Time
}

// planner is what plans backups of an instance's tables.
func (r *Reconciler) planner(run fanout.Run, tables table.Instance, instance string) *backup.Planner {
	return &backup.Planner{
		Repo: r.Repo, Tables: tables, Endpoint: r.Endpoint(instance), Work: r.Work, Log: r.Log, Now: run.Now, Workers: r.Policy.Workers.Most, Slow: r.Slow,
	}
}

// plannerOf is the planner of an instance, also without the policy.
func (r *Reconciler) plannerOf(run fanout.Run, instance string) (*backup.Planner, error) {
	tables, err := r.Open(instance)
	if err != nil {
		return nil, err
	}
	if r.Unread != nil {
		r.Log.Warn("without the policy", "error", r.Unread)
	}
	return r.planner(run, tables, instance), nil
}

// Begin plans a backup that somebody has asked for, or finds the one that is open, and
// starts its workers.
func (r *Reconciler) Begin(ctx context.Context, run fanout.Run, req backup.PlanRequest) (backup.Reply, error) {
	p, err := r.plannerOf(run, req.Table.Instance)
	if err != nil {
		return backup.Reply{}, err
	}
	return p.Begin(ctx, run, req)
}

// Do looks at one backup and does what is due, or gives it up. It returns how far that
// has come, or the manifest that stands.
func (r *Reconciler) Do(ctx context.Context, run fanout.Run, a Asked) (any, error) {
	b, err := r.Repo.Named(ctx, a.Backup, a.Table, time.Time{})
	if err != nil {
		return nil, err
	}
	p, err := r.plannerOf(run, b.Table.Instance)
	if err != nil {
		return nil, err
	}
	if a.GiveUp {
		return p.Void(ctx, b, a.Reason)
	}
	p.Since = a.Since
	return p.Look(ctx, run, b)
}

// Everything is what a tick over backups and drills came to.
type Everything struct {
	*Tick
	Drills *drill.Tick `json:"drills"`
}

// Everything is one tick, and then that of the drills: backups come first, and drills
// have what time and room is left. A policy that can't be read keeps nothing from going
// on that has begun; then it fails, so that someone hears of it.
func (r *Reconciler) Everything(ctx context.Context, run fanout.Run, at time.Time) (Everything, error) {
	tick, err := r.Tick(ctx, run, at)
	d := &drill.Rehearser{Repo: r.Repo, Policy: r.Policy, Region: r.Region, Open: r.Open, Request: r.Request, Work: r.Work, Log: r.Log}
	drills, drillErr := d.Tick(ctx, run, at)
	return Everything{tick, drills}, errors.Join(err, drillErr, r.Unread)
}
