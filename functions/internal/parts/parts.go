// Package parts is what the four functions are put together from: it turns an
// invocation into the ports of package backup.
package parts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/address"
	"github.com/tablevault/tablevault/shared/object/objectmeter"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/tablestore"
	"github.com/tablevault/tablevault/shared/vault"
)

// Store opens the store that the vault is in, with the invocation's credentials if it is a bucket of OSS, and with those
// of the environment if it is one of S3, which the platform knows nothing of. What is asked of it is counted, and stands in
// the last line that the invocation logs.
func Store(ctx context.Context, inv *function.Invocation) (object.Store, error) {
	store, _, err := open(ctx, inv, inv.Env.Vault, function.KeyStore, nil)
	return store, err
}

func open(ctx context.Context, inv *function.Invocation, at, counted string, unread func(name string) bool) (object.Store, *objectmeter.Meter, error) {
	meter := new(objectmeter.Meter)
	inv.Count(counted, meter)
	store, err := address.Open(ctx, at, address.Config{
		Credentials: inv.Credentials.Provider(),
		S3:          inv.Env.S3.Provider(),
		Meter:       meter,
		Cold:        vault.IsShard,
		Unread:      unread,
	})
	return store, meter, err
}

// Repository opens the vault. What the invocation asks of its store stands in the records that it writes.
func Repository(ctx context.Context, inv *function.Invocation) (*repository.Repository, error) {
	return openWith(ctx, inv, nil, repository.Open)
}

// FindBackup finds the backup that a command names, by its id. Where the command names
// a table beside it, that is the backup's.
func FindBackup(ctx context.Context, repo *repository.Repository, cmd function.Command) (vault.Backup, error) {
	id, err := vault.ParseBackupID(cmd.Backup)
	if err != nil {
		return vault.Backup{}, function.Permanent(err)
	}
	b, err := repo.FindBackup(ctx, id)
	if err != nil {
		return b, err
	}
	if cmd.Table != "" {
		err = function.Permanent(b.Of(cmd.Table))
	}
	return b, err
}

// WriteOnly opens the vault as Repository does, for a role that creates shards and may not read them.
func WriteOnly(ctx context.Context, inv *function.Invocation) (*repository.Repository, error) {
	return openWith(ctx, inv, vault.IsShard, repository.Open)
}

// NewRepository opens the vault as Repository does, and makes it if there is none.
func NewRepository(ctx context.Context, inv *function.Invocation) (*repository.Repository, error) {
	return openWith(ctx, inv, nil, func(ctx context.Context, store object.Store) (*repository.Repository, error) {
		return repository.Init(ctx, store, time.Now())
	})
}

func openWith(ctx context.Context, inv *function.Invocation, unread func(name string) bool,
	openIn func(context.Context, object.Store) (*repository.Repository, error)) (*repository.Repository, error) {
	store, meter, err := open(ctx, inv, inv.Env.Vault, function.KeyStore, unread)
	if err != nil {
		return nil, err
	}
	repo, err := openIn(ctx, store)
	if err != nil {
		return nil, err
	}
	repo.Meter(meter)
	return repo, nil
}

// SetReplicas has a repository read what is damaged in its own vault from replicas, which the plan of a restore names by
// their keys. They are opened when that is needed. Of one that the policy has no more it is told when it is wanted.
func SetReplicas(inv *function.Invocation, repo *repository.Repository, keys []string) {
	var replicas []repository.Replica
	for _, key := range keys {
		d, err := findReplica(inv, key)
		if err != nil {
			replicas = append(replicas, repository.Replica{Name: "the further vault " + key, Open: func(context.Context) (object.Store, error) { return nil, err }})
			continue
		}
		replicas = append(replicas, Replicas(inv, []policy.Replica{d})...)
	}
	repo.SetReplicas(replicas...)
}

// Replicas are what a repository reads from, of replicas of the policy.
func Replicas(inv *function.Invocation, all []policy.Replica) []repository.Replica {
	replicas := make([]repository.Replica, len(all))
	for i, d := range all {
		replicas[i] = repository.Replica{Name: d.To, Open: func(ctx context.Context) (object.Store, error) { return openReplica(ctx, inv, d) }}
	}
	return replicas
}

// ReplicaKeys are the keys of the replicas that a command names.
func ReplicaKeys(inv *function.Invocation, names []string) ([]string, error) {
	keys := make([]string, len(names))
	for i, name := range names {
		d, err := findReplica(inv, name)
		if err != nil {
			return nil, err
		}
		keys[i] = d.Key()
	}
	return keys, nil
}

// NamedReplica opens the replica that a command names.
func NamedReplica(ctx context.Context, inv *function.Invocation, name string) (policy.Replica, object.Store, error) {
	d, err := findReplica(inv, name)
	if err != nil {
		return d, nil, err
	}
	store, err := openReplica(ctx, inv, d)
	return d, store, err
}

// findReplica finds a replica in the deployed policy by its name or its key. Nothing else says where one is: whoever
// may send a command, or write a plan into the vault, must not be able to have rows and tokens sent to him.
func findReplica(inv *function.Invocation, name string) (policy.Replica, error) {
	p, err := Policy(inv)
	if err != nil {
		return policy.Replica{}, fmt.Errorf("find the further vault %q: %w", name, err)
	}
	d, err := p.Replica(name)
	if err != nil {
		return policy.Replica{}, function.Permanent(err)
	}
	return d, nil
}

func openReplica(ctx context.Context, inv *function.Invocation, d policy.Replica) (object.Store, error) {
	if err := place.Apart(d.To, inv.Env.Vault); err != nil {
		return nil, function.Permanent(fmt.Errorf("a further vault: %w", err))
	}
	store, _, err := open(ctx, inv, d.To, function.KeyReplica, nil)
	if err != nil {
		return nil, fmt.Errorf("a further vault: %w", err)
	}
	return store, nil
}

// Policy reads the policy that is deployed beside the functions. Without one,
// nothing is due by itself. A policy that can't be read is an error, and the
// default is returned beside it: what is under way goes on.
func Policy(inv *function.Invocation) (*policy.Policy, error) {
	data, err := os.ReadFile(inv.Env.Policy)
	if errors.Is(err, fs.ErrNotExist) && !inv.Env.PolicyNamed {
		return policy.Default(), nil
	}
	if err != nil {
		var at *fs.PathError
		if errors.As(err, &at) {
			err = at.Err // what TABLEVAULT_POLICY says stays where it is
		}
		return policy.Default(), function.Permanent(fmt.Errorf("read the policy (TABLEVAULT_POLICY): %w", err))
	}
	p, err := policy.Decode(filepath.Base(inv.Env.Policy), data)
	if err != nil {
		return policy.Default(), fmt.Errorf("the policy: %w", err)
	}
	// On one machine the vault is the stack's own, and a policy can be tried.
	if p.Vault != "" && inv.TableRegion() != "local" && !place.Same(p.Vault, inv.Env.Vault) {
		return policy.Default(), function.Permanent(fmt.Errorf("the policy is for the vault %s, these functions write to %s (TABLEVAULT_VAULT): deploy them with one of the two", place.Plain(p.Vault), place.Plain(inv.Env.Vault)))
	}
	return p, nil
}

// Tables is an instance, reached with the invocation's credentials.
func Tables(inv *function.Invocation, instance string) (*tablestore.Client, error) {
	return tablestore.New(tablestore.Config{
		Endpoint:    inv.Endpoint(instance),
		Instance:    instance,
		Credentials: inv.Credentials.Provider(),
		Log:         inv.Log,
	})
}

// BoundMemory makes the garbage collector hold a worker to little more than
// what its buffers take.
func BoundMemory() {
	debug.SetGCPercent(10)
	debug.SetMemoryLimit(56 << 20)
}
