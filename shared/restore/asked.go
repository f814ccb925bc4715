package restore

import (
	"context"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/vault"
)

// Asked is what a command asks for: that a request be looked at, that a restore go on or
// be given up, or else a new one.
type Asked struct {
	// Request is the name of a request that lies in the vault.
	Request string
	// Restore is given up for a Reason. Without one it goes on, and what had failed for
	// good before Since is tried again.
	Restore vault.RestoreID
	Since   time.Time
	Reason  string
	// Ask is what a person asks for who wants a new one, At when.
	Ask Ask
	At  time.Time
}

// Do does what a command asks for, and what is due then.
func (q *Requests) Do(ctx context.Context, run fanout.Run, a Asked) (any, error) {
	switch {
	case a.Request != "":
		return q.Serve(ctx, run, a.Request)
	case a.Restore == "":
		return q.begin(ctx, run, a.Ask, a.At)
	}
	plan, err := q.plan(ctx, a.Restore)
	if err != nil {
		return nil, err
	}
	if a.Reason != "" {
		return q.giveUp(ctx, run, plan, a.Reason)
	}
	return q.goOn(ctx, run, plan, a.Since)
}

// begin begins a restore that a person has asked for, or finds the one that is open.
func (q *Requests) begin(ctx context.Context, run fanout.Run, a Ask, at time.Time) (Progress, error) {
	q.Repo.SetReplicas(q.Replicas(a.Replicas)...)
	if err := NotAhead(a.At, run.Now()); err != nil {
		return Progress{}, err
	}
	b, err := q.Repo.Named(ctx, a.Backup, a.Table, a.At)
	if err != nil && a.Backup == "" {
		err = fanout.ForGood(err)
	}
	if err != nil {
		return Progress{}, err
	}
	p, err := q.Planner(a.Target.Instance)
	if err != nil {
		return Progress{}, err
	}
	plan, err := p.Begin(ctx, run, Request{
		Backup: b, Target: a.Target, At: at, Instant: a.At, New: a.New, Replicas: a.Replicas, Budget: a.Budget, LocalTransactions: a.LocalTransactions,
	})
	if err != nil {
		return Progress{}, err
	}
	p.Since = run.Now()
	return p.Tick(ctx, run, plan.Restore)
}

func (q *Requests) goOn(ctx context.Context, run fanout.Run, plan *vault.RestorePlan, since time.Time) (Progress, error) {
	p, err := q.Planner(plan.Target.Instance)
	if err != nil {
		return Progress{}, err
	}
	p.Since = since
	return p.Tick(ctx, run, plan.Restore)
}

// plan reads the plan of a restore, and has the vault read from the replicas that it
// names.
func (q *Requests) plan(ctx context.Context, id vault.RestoreID) (*vault.RestorePlan, error) {
	plan, err := q.Repo.RestorePlan(ctx, id)
	if err != nil {
		return nil, err
	}
	q.Repo.SetReplicas(q.Replicas(plan.Replicas)...)
	return plan, nil
}

// GivenUp is what became of a restore that was to be given up.
type GivenUp struct {
	// Closed is the record that stands: that of a restore which had come to its end
	// before has no reason.
	Closed *vault.Closed `json:"closed"`
	Progress
}

func (q *Requests) giveUp(ctx context.Context, run fanout.Run, plan *vault.RestorePlan, reason string) (reply GivenUp, err error) {
	if reply.Closed, err = GiveUp(ctx, q.Repo, run, plan.Restore, reason); err != nil {
		return reply, err
	}
	if reply.Closed.Reason != "" {
		// It is marked as ended. One that had come to its end is left to whoever goes on.
		reply.Progress, err = q.goOn(ctx, run, plan, time.Time{})
	}
	return reply, err
}

// Check compares one segment of a restore with its table, as a [Checker] does.
func (q *Requests) Check(ctx context.Context, run fanout.Run, w fanout.Work) (CheckReply, error) {
	plan, err := q.plan(ctx, w.Restore)
	if err != nil {
		return CheckReply{}, err
	}
	tables, err := q.Open(plan.Target.Instance)
	if err != nil {
		return CheckReply{}, err
	}
	return (&Checker{Repo: q.Repo, Tables: tables, Work: q.Work, Log: q.Log}).Check(ctx, run, w)
}

// Load loads one segment of a restore, as a [Loader] does.
func (q *Requests) Load(ctx context.Context, run fanout.Run, w fanout.Work) (LoadReply, error) {
	plan, err := q.plan(ctx, w.Restore)
	if err != nil {
		return LoadReply{}, err
	}
	tables, err := q.Open(plan.Target.Instance)
	if err != nil {
		return LoadReply{}, err
	}
	return (&Loader{Repo: q.Repo, Tables: tables, Work: q.Work, Log: q.Log}).Load(ctx, run, w)
}
