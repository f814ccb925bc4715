package verify

import (
	"context"
	"fmt"
	"sync"

	"github.com/tablevault/tablevault/shared/backup/coverage"
	"github.com/tablevault/tablevault/shared/compare"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/sealed"
	"github.com/tablevault/tablevault/shared/throttle"
	"github.com/tablevault/tablevault/shared/vault"
)

// segmentsInFlight is how many segments one process verifies at a time.
const segmentsInFlight = 4

// whole is the verification of a whole backup.
type whole struct {
	verifier *Verifier
	repo     *repository.Repository
	req      Request
	restore  *vault.RestorePlan
	target   vault.TableID
	backup   *sealed.Backup
	comparer *compare.Comparer
	reads    *throttle.Throttle // of the comparison
	notes    []string

	mu    sync.Mutex
	check *vault.Check
}

// run verifies the backup, and adds to the check what it finds.
func (w *whole) run(ctx context.Context, m *vault.Manifest) error {
	plan, err := w.repo.PlanOf(ctx, m)
	if repository.Corrupt(err) {
		// Without the plan's schema, no shard can be read.
		w.check.Find(m.Plan.Name, err)
		return nil
	}
	if err != nil {
		return err
	}
	w.check.Objects += 2 // the manifest and the plan
	w.check.Bytes += m.Plan.Bytes
	w.backup = &sealed.Backup{Repo: w.repo, ID: w.req.Backup, Manifest: m, Plan: plan}
	if w.req.Depth == DepthRows {
		if err := w.against(ctx); err != nil {
			return err
		}
	}
	groups, err := w.groups(ctx, m)
	if err != nil {
		return err
	}
	if len(groups) == len(m.Groups) {
		// That the ranges meet and cover the key space.
		totals, segments, err := coverage.Prove(plan, groups)
		if err == nil && (totals != m.Totals || segments != m.Segments) {
			err = fmt.Errorf("it says %d rows in %d segments, its parts have %d in %d, or other sums", m.Totals.Rows, m.Segments, totals.Rows, segments)
		}
		if err != nil {
			w.check.Find(w.req.Backup.Manifest(), err)
		}
	}
	work, wctx := guard.WithContext(ctx)
	work.SetLimit(segmentsInFlight)
	for _, g := range groups {
		for s := range g.Segments {
			log := &g.Segments[s]
			work.Go(func() error { return w.segment(wctx, log) })
		}
	}
	return work.Wait()
}

// groups reads the roll-ups one by one, since each can name tens of thousands of objects.
// What is damaged becomes a finding, and is left out.
func (w *whole) groups(ctx context.Context, m *vault.Manifest) ([]*vault.Group, error) {
	groups := make([]*vault.Group, 0, len(m.Groups))
	for _, o := range m.Groups {
		var g vault.Group
		if err := w.repo.ReadExact(ctx, o, &g); repository.Corrupt(err) {
			w.check.Find(o.Name, err)
			continue
		} else if err != nil {
			return nil, err
		}
		w.check.Objects++
		w.check.Bytes += o.Bytes
		groups = append(groups, &g)
	}
	return groups, nil
}

// against finds the table that is compared with.
func (w *whole) against(ctx context.Context) error {
	w.target = w.req.Backup.Table
	if w.restore != nil {
		w.target = w.restore.Target
	}
	if w.req.Against != nil {
		w.target = *w.req.Against
	}
	if w.verifier.Tables == nil {
		return fmt.Errorf("comparing with %s needs the instance's endpoint and credentials", w.target)
	}
	def, err := w.verifier.Tables.Describe(ctx, w.target.Table)
	if err != nil {
		return fmt.Errorf("compare with %s: %w", w.target, err)
	}
	if w.restore != nil && w.target == w.restore.Target {
		made, err := w.repo.Made(ctx, w.restore.Restore)
		if err != nil {
			return err
		}
		if made != nil && def.Identity.Other(made.Identity) {
			w.notes = append(w.notes, fmt.Sprintf("%s is another table than the one that the restore has made: this one is %s, that one was %s", w.target, def.Identity, made.Identity))
		}
	}
	w.reads = throttle.ForReads(w.req.ReadUnits)
	w.comparer, err = compare.New(w.backup.Plan.Definition.Schema, w.verifier.Tables, def, fanout.DefaultMemory/segmentsInFlight, w.reads)
	return err
}

// segment verifies a segment.
func (w *whole) segment(ctx context.Context, s *vault.SegmentLog) error {
	var check vault.Check
	segment, err := w.backup.Segment(s)
	if err != nil {
		check.Find(w.req.Backup.Group(s.Segment.ID.Group()), err)
		w.found(check)
		return nil
	}
	var loaded Loading
	if w.restore != nil && w.comparer != nil {
		if loaded, err = ReadLoading(ctx, w.repo, vault.Restore{ID: w.restore.Restore}, segment.ID(), &check); err != nil {
			return err
		}
	}
	if _, err := Segment(ctx, w.req.Depth, w.comparer, &compare.Comparison{Segment: segment, Sink: loaded.Count}, &check); err != nil {
		return fmt.Errorf("segment %s: %w", segment.ID(), err)
	}
	w.found(check)
	return nil
}

// found takes what was found in a segment.
func (w *whole) found(check vault.Check) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.check.Add(check)
}
