// Command export is the function that writes one segment of a backup.
package main

import (
	"context"

	"github.com/tablevault/tablevault/functions/internal/parts"
	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/function/dispatch"
)

func main() {
	parts.BoundMemory()
	function.Serve(function.Verbs{function.KindExport: export})
}

func export(ctx context.Context, inv *function.Invocation, cmd function.Command) (any, error) {
	w, err := dispatch.Work(cmd, inv.TableRegion())
	if err != nil {
		return nil, err
	}
	repo, err := parts.WriteOnly(ctx, inv)
	if err != nil {
		return nil, err
	}
	tables, err := parts.Instances(inv)(w.Table.Instance)
	if err != nil {
		return nil, err
	}
	work, err := dispatch.To(inv)
	if err != nil {
		return nil, err
	}
	e := &backup.Exporter{Repo: repo, Tables: tables, Work: work, Log: inv.Log}
	return e.Export(ctx, inv.Run(), w)
}
