package verify

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// Asked is what a command asks to be verified.
type Asked struct {
	// Request is as far as the command tells it. Without a restore, its backup's id and
	// table and At name the backup, as [repository.Repository.Named] has them. An empty
	// depth is rows where a table is given to compare with, and to read everything where
	// none is.
	Request
	At time.Time
	// Replica is the name or the key of a replica whose copy is compared instead.
	Replica string
	// ID is that under which the verification tells how far it has come, and leaves its
	// proof; empty for one that nobody watches.
	ID vault.VerificationID
}

// Commands verifies what commands ask for.
type Commands struct {
	Repo *repository.Repository
	// Open reaches an instance.
	Open func(instance string) (table.Catalog, error)
	// Replicas are those with the keys that the plan of a restore names, and Replica
	// opens the one that a command names, and tells its address.
	Replicas func(keys []string) []repository.Replica
	Replica  func(ctx context.Context, name string) (address string, store object.Store, err error)
	Log      *slog.Logger
}

// Do verifies what is asked for.
func (c *Commands) Do(ctx context.Context, run fanout.Run, a Asked) (*vault.Proof, error) {
	v := &Verifier{Repo: c.Repo, Log: c.Log, Now: run.Now}
	req, instance, err := c.request(ctx, a.Request, a.At)
	if err != nil {
		return nil, err
	}
	if a.Replica != "" {
		address, store, err := c.Replica(ctx, a.Replica)
		if err != nil {
			return nil, err
		}
		return v.Compare(ctx, req.Backup, address, store)
	}
	if v.Tables, err = c.Open(instance); err != nil {
		return nil, err
	}
	if a.ID == "" {
		return v.Verify(ctx, req)
	}
	return c.watched(ctx, run, v, req, vault.Verification{ID: a.ID})
}

// request is what is asked for as a whole, with the instance of the table that is
// compared with.
func (c *Commands) request(ctx context.Context, req Request, at time.Time) (_ Request, instance string, err error) {
	if req.Restore == "" {
		if req.Backup, err = c.Repo.Named(ctx, req.Backup.ID, req.Backup.Table, at); err != nil {
			return req, "", fanout.ForGood(err)
		}
		instance = req.Backup.Table.Instance
	} else {
		plan, err := c.Repo.RestorePlan(ctx, req.Restore)
		if err != nil {
			return req, "", err
		}
		c.Repo.SetReplicas(c.Replicas(plan.Replicas)...)
		req.Backup, instance = vault.Backup{Table: plan.Source, ID: plan.Backup}, plan.Target.Instance
	}
	if req.Against != nil {
		instance = req.Against.Instance
	}
	if req.Restore != "" || req.Against != nil {
		req.Depth = cmp.Or(req.Depth, DepthRows)
	}
	req.Depth = cmp.Or(req.Depth, DepthRead)
	return req, instance, nil
}

// watched verifies, and leaves what it tells and its proof under an id.
func (c *Commands) watched(ctx context.Context, run fanout.Run, v *Verifier, req Request, of vault.Verification) (*vault.Proof, error) {
	// It is found by what it tells.
	if err := c.Repo.Mark(ctx, vault.Told{}.Name(of.Progress())); err != nil {
		return nil, err
	}
	tell := fanout.NewTeller(ctx, c.Repo, run, of.Progress(), 0, 0, 0)
	defer tell.End()
	proof, err := v.Verify(tell.With(ctx), req)
	if err != nil {
		return nil, err
	}
	if _, err := c.Repo.Create(ctx, of.Proof(), proof); err != nil {
		c.Log.Warn("the proof is told, and not kept", "error", err)
	}
	return proof, nil
}
