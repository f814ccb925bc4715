package repository

import (
	"context"

	"golang.org/x/time/rate"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/vault"
)

// What is still called by its name of before.

func (r *Repository) Decide(ctx context.Context, name string, d vault.Document) (bool, error) {
	return r.Win(ctx, name, d)
}
func (r *Repository) Tell(ctx context.Context, name string, d vault.Document, _ *object.Usage) (bool, error) {
	return r.Win(ctx, name, d)
}
func (r *Repository) Unmarked(ctx context.Context, b vault.Backup) error {
	return r.CheckNotMarked(ctx, b)
}
func (r *Repository) Also(all ...Twin)     { r.SetReplicas(all...) }
func (r *Repository) Add(t Twin)           { r.AddReplica(t) }
func (r *Repository) TwinErrors() []string { return r.ReplicaErrors() }
func (r *Repository) Stream(ctx context.Context, o vault.Object, to object.Store, limit *rate.Limiter) (object.Info, error) {
	return r.Replicate(ctx, o, to, limit)
}

type Twin = Replica
