// Command verify is the function that proves backups and restores, and copies backups to
// replicas: of the functions that touch no table, it is the one that reads shards anyway.
package main

import (
	"context"

	"github.com/tablevault/tablevault/functions/internal/parts"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/function/dispatch"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/replica"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/verify"
)

func main() {
	parts.BoundMemory()
	function.Serve(function.Verbs{function.KindVerify: prove, function.KindCopy: copyBackup})
}

// prove proves a whole backup or restore, or one segment of a restore.
func prove(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	if cmd.Segment != "" {
		return check(ctx, inv, cmd)
	}
	asked, err := dispatch.Verify(inv, cmd)
	if err != nil {
		return nil, err
	}
	c := &verify.Commands{
		Open: parts.Instances(inv), Replicas: parts.ReplicasByKey(inv), Log: inv.Log,
		Replica: func(ctx context.Context, name string) (string, object.Store, error) {
			there, err := parts.NamedReplica(ctx, inv, name)
			return there.Address, there.Store, err
		},
	}
	if c.Repo, err = parts.Repository(ctx, inv); err != nil {
		return nil, err
	}
	return c.Do(ctx, inv.Run(), asked)
}

// check compares one segment of a restore.
func check(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	w, err := dispatch.Work(cmd, inv.TableRegion())
	if err != nil {
		return nil, err
	}
	q := &restore.Requests{Open: parts.Instances(inv), Replicas: parts.ReplicasByKey(inv), Log: inv.Log}
	if q.Repo, err = parts.Repository(ctx, inv); err != nil {
		return nil, err
	}
	if q.Work, err = dispatch.To(inv); err != nil {
		return nil, err
	}
	return q.Check(ctx, inv.Run(), w)
}

// copyBackup copies a group of a backup to a replica, or the whole, or back.
func copyBackup(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	asked, err := dispatch.Copy(inv, cmd)
	if err != nil {
		return nil, err
	}
	c := &replica.Commands{Log: inv.Log, Replica: func(ctx context.Context, name string) (replica.Place, error) {
		return parts.NamedReplica(ctx, inv, name)
	}}
	if c.Vault, err = parts.Place(ctx, inv); err != nil {
		return nil, err
	}
	if c.Work, err = dispatch.To(inv); err != nil {
		return nil, err
	}
	return c.Do(ctx, inv.Run(), asked)
}
