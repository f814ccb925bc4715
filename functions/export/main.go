// Command export is the function that writes one segment of a backup.
package main

import (
	"context"

	"github.com/tablevault/tablevault/functions/internal/parts"
	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/vault"
)

func main() {
	parts.BoundMemory()
	function.Serve(function.Verbs{function.KindExport: export})
}

func export(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	id, err := parts.Table(inv, cmd.Table)
	if err != nil {
		return nil, err
	}
	var share parts.Units
	if err := parts.Settings(cmd, &share); err != nil {
		return nil, err
	}
	repo, err := parts.WriteOnly(ctx, inv)
	if err != nil {
		return parts.Fail(backup.ExportReply{}, err)
	}
	tables, err := parts.Tables(inv, id.Instance)
	if err != nil {
		return parts.Fail(backup.ExportReply{}, err)
	}
	work, err := parts.Work(inv)
	if err != nil {
		return nil, err
	}
	e := &backup.Exporter{Repo: repo, Tables: tables, Work: work, Log: inv.Log}
	reply, err := e.Export(ctx, parts.Run(inv), fanout.Work{
		Verb: fanout.VerbExport, Table: id, Backup: vault.BackupID(cmd.Backup), Segment: vault.SegmentID(cmd.Segment), Start: cmd.Start,
		ReadUnits: share.ReadUnits,
	})
	return parts.Fail(reply, err)
}
