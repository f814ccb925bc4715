package replica

import (
	"context"
	"log/slog"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/repository"
)

// Asked is what a command asks to be copied: a group of a backup, which the work's
// segment is the first of, or, without a segment, as much of the whole backup as there is
// time for; or back, to make anew in the vault what is gone.
type Asked struct {
	// Work names the replica by its name or its key. Its table, if it has one, must be
	// the backup's.
	Work fanout.Work
	Settings
}

// Place is where a vault is.
type Place struct {
	Address string
	Store   object.Store
}

// Commands copies what commands ask for.
type Commands struct {
	// Vault is the vault's place, Replica opens a replica.
	Vault   Place
	Replica func(ctx context.Context, name string) (Place, error)
	Work    fanout.Dispatcher
	Log     *slog.Logger
}

// Do copies what is asked for.
func (c *Commands) Do(ctx context.Context, run fanout.Run, a Asked) (Reply, error) {
	there, err := c.Replica(ctx, a.Work.Replica)
	if err != nil {
		return Reply{}, err
	}
	from, to := c.Vault, there
	if a.Back {
		from, to = to, from
	}
	r := &Replicator{Address: to.Address, Store: to.Store, Work: c.Work, Log: c.Log, Back: a.Back}
	if r.Repo, err = repository.Open(ctx, from.Store); err != nil {
		return Reply{}, err
	}
	b, err := r.Repo.Named(ctx, a.Work.Backup, a.Work.Table, time.Time{})
	if err != nil {
		return Reply{}, fanout.ForGood(err)
	}
	if a.Work.Segment == "" {
		return r.CopyAll(ctx, run, b, a.Next, a.BytesPerSecond)
	}
	w := a.Work
	w.Table, w.Replica = b.Table, place.Key(there.Address)
	return r.Copy(ctx, run, w)
}
