package main

import (
	"context"

	"github.com/tablevault/tablevault/functions/internal/parts"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/vault"
)

// restores has the restores of drills carried out by the function that restores.
type restores struct {
	inv  *function.Invocation
	repo *repository.Repository
	work fanout.Dispatcher
}

// Request is the command that a person would put into the vault.
func (r restores) Request(b vault.BackupID, to vault.TableID) ([]byte, error) {
	return function.Command{Kind: function.KindRestore, Backup: string(b), To: to.String()}.Encode()
}

func (r restores) Serve(ctx context.Context, request string, number int) error {
	return r.work.Submit(ctx, fanout.Work{Verb: fanout.VerbRestore, Request: request, Start: number})
}

func (r restores) GiveUp(ctx context.Context, id vault.RestoreID, reason string) (*vault.Closed, error) {
	return restore.GiveUp(ctx, r.repo, r.inv.Run(), id, reason)
}

func (r restores) Made(ctx context.Context, p *vault.RestorePlan) (bool, error) {
	tables, err := parts.Tables(r.inv, p.Target.Instance)
	if err != nil {
		return false, err
	}
	return (&restore.Planner{Repo: r.repo, Tables: tables, Log: r.inv.Log}).Made(ctx, p)
}
