package restore

import (
	"context"
	"log/slog"
	"slices"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/sealed"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// segmentsOf reads the segments of the backup that a restore's plan pins.
func segmentsOf(r *repository.Repository, p *vault.RestorePlan) sealed.Segments {
	return sealed.Segments{Repo: r, ID: vault.Backup{Table: p.Source, ID: p.Backup}, Manifest: p.Manifest}
}

// planned refuses a segment that a restore does not have, before anything is noted of it.
func planned(p *vault.RestorePlan, id vault.SegmentID) error {
	if !slices.ContainsFunc(p.Segments, func(s vault.RestoreSegment) bool { return s.ID == id }) {
		return table.Invalidf("backup %s has no segment %q: restore %s has %d segments", p.Backup, id, p.Restore, len(p.Segments))
	}
	return nil
}

// goesOn has a restore looked at, by its request if one has asked for it, when all
// segments with rows, or all, have their object under prefix: a phase is over. Several
// workers may find that at the same time; the number of each one's task is its own, since
// the look of one of them might come before another has ended. What goes wrong costs time
// only: the planner's next tick has the restore looked at too.
func goesOn(ctx context.Context, repo *repository.Repository, work fanout.Dispatcher, log *slog.Logger, of fanout.Work, after fanout.Phase, prefix string, segments int) {
	if work == nil {
		return
	}
	n := 0
	var err error
	for _, lerr := range repo.Store().List(ctx, prefix, "") {
		if err = lerr; err != nil {
			break
		}
		n++
	}
	if err == nil && n >= segments {
		look := fanout.Work{Verb: fanout.VerbRestore, Restore: of.Restore, Segment: of.Segment, Start: of.Start, After: after}
		if of.Request != "" {
			look.Request, look.Restore = of.Request, ""
		}
		err = work.Submit(ctx, look)
	}
	if err != nil {
		log.Warn("the restore is looked at by the next tick only", "restore", of.Restore, "request", of.Request, "error", err)
	}
}

// count is how many of the plan's segments are such.
func count(p *vault.RestorePlan, such func(vault.RestoreSegment) bool) (n int) {
	for _, s := range p.Segments {
		if such(s) {
			n++
		}
	}
	return n
}
