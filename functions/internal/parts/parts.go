// Package parts opens what the four functions work with: the vault, its replicas and
// instances, by the credentials of an invocation.
package parts

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/address"
	"github.com/tablevault/tablevault/shared/object/objectmeter"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/replica"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/tablestore"
	"github.com/tablevault/tablevault/shared/vault"
)

// Place opens the store that the vault is in, with the invocation's credentials if it is
// a bucket of OSS, and with those of the environment if it is one of S3, which the
// platform knows nothing of. What is asked of it is counted, and stands in the last line
// that the invocation logs.
func Place(ctx context.Context, inv *function.Invocation) (replica.Place, error) {
	store, _, err := open(ctx, inv, inv.Env.Vault, function.KeyStore, nil)
	return replica.Place{Address: inv.Env.Vault, Store: store}, err
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

// Vault opens the vault for an invocation.
type Vault func(context.Context, *function.Invocation) (*repository.Repository, error)

// Repository opens the vault. What the invocation asks of its store stands in the records
// that it writes.
func Repository(ctx context.Context, inv *function.Invocation) (*repository.Repository, error) {
	return openWith(ctx, inv, nil, repository.Open)
}

// WriteOnly opens the vault as Repository does, for a role that creates shards and may
// not read them.
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

// ReplicasByKey are those from which what is damaged in a vault is read, and which the
// plan of a restore names by their keys. They are opened when that is needed. Of one that
// the policy has no more it is told when it is wanted.
func ReplicasByKey(inv *function.Invocation) func(keys []string) []repository.Replica {
	return func(keys []string) (replicas []repository.Replica) {
		for _, key := range keys {
			d, err := inv.Replica(key)
			if err != nil {
				replicas = append(replicas, repository.Replica{Name: "the further vault " + key, Open: func(context.Context) (object.Store, error) { return nil, err }})
				continue
			}
			replicas = append(replicas, Replicas(inv, []policy.Replica{d})...)
		}
		return replicas
	}
}

// Replicas are the policy's replicas as a repository reads from them: each is opened when
// that is needed.
func Replicas(inv *function.Invocation, all []policy.Replica) []repository.Replica {
	replicas := make([]repository.Replica, len(all))
	for i, d := range all {
		replicas[i] = repository.Replica{Name: d.To, Open: func(ctx context.Context) (object.Store, error) { return openReplica(ctx, inv, d) }}
	}
	return replicas
}

// NamedReplica opens the replica that a command names.
func NamedReplica(ctx context.Context, inv *function.Invocation, name string) (replica.Place, error) {
	d, err := inv.Replica(name)
	if err != nil {
		return replica.Place{}, err
	}
	store, err := openReplica(ctx, inv, d)
	return replica.Place{Address: d.To, Store: store}, err
}

func openReplica(ctx context.Context, inv *function.Invocation, d policy.Replica) (object.Store, error) {
	if err := place.CheckApart(d.To, inv.Env.Vault); err != nil {
		return nil, function.Permanent(fmt.Errorf("a further vault: %w", err))
	}
	store, _, err := open(ctx, inv, d.To, function.KeyReplica, nil)
	if err != nil {
		return nil, fmt.Errorf("a further vault: %w", err)
	}
	return store, nil
}

// Instances reaches instances with the invocation's credentials, each by one client.
func Instances(inv *function.Invocation) func(instance string) (table.Catalog, error) {
	clients := map[string]*tablestore.Client{}
	return func(instance string) (table.Catalog, error) {
		if c := clients[instance]; c != nil {
			return c, nil
		}
		c, err := tablestore.New(tablestore.Config{
			Endpoint: inv.Endpoint(instance), Instance: instance, Credentials: inv.Credentials.Provider(), Log: inv.Log,
		})
		if err == nil {
			clients[instance] = c
		}
		return c, err
	}
}

// BoundMemory makes the garbage collector hold a worker to little more than what its
// buffers take.
func BoundMemory() {
	debug.SetGCPercent(10)
	debug.SetMemoryLimit(56 << 20)
}
