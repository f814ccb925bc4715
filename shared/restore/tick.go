package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/sealed"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/verify"
)

// Tick looks at a restore and does what is due: it dispatches the segments that nobody
// works on, first to load them, then to verify them; writes the closing record; gives the
// table its indexes and settings; and writes the proof. It may run at any time, twice,
// and beside itself.
func (p *Planner) Tick(ctx context.Context, run fanout.Run, id vault.RestoreID) (Progress, error) {
	t := &tick{planner: p, run: run, progress: Progress{Restore: id, Since: p.Since}}
	err := t.look(ctx)
	if err == nil && t.progress.over {
		err = p.Repo.Mark(ctx, vault.Restore{ID: id}.Restored())
	}
	if err != nil {
		return t.progress, fmt.Errorf("restore %s: %w", id, err)
	}
	return t.progress, nil
}

// tick is one look at a restore.
type tick struct {
	planner  *Planner
	run      fanout.Run
	plan     *vault.RestorePlan
	records  records
	progress Progress
}

// id names the restore's records.
func (t *tick) id() vault.Restore { return vault.Restore{ID: t.progress.Restore} }

// look does what is due, phase by phase, as far as that is possible by now.
func (t *tick) look(ctx context.Context) error {
	repo, id := t.planner.Repo, t.progress.Restore
	var err error
	if t.plan, err = repo.RestorePlan(ctx, id); err != nil {
		return err
	}
	t.records = records{repo: repo, plan: t.plan}
	t.progress.planned(t.plan)
	proof, err := repo.RestoreProof(ctx, id)
	if err == nil {
		err = proof.Of(t.plan, nil, vault.Object{})
	}
	if err == nil {
		t.progress.ended(proof)
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	closed, err := repo.Closed(ctx, id)
	if err != nil {
		return err
	}
	if closed != nil && closed.Reason != "" {
		t.progress.gaveUp(closed.Reason)
		return nil
	}
	made, err := t.planner.ours(ctx, t.run, t.plan, closed != nil)
	var found *another
	if errors.As(err, &found) {
		t.progress.gaveUp(found.reason)
		return nil
	}
	if err != nil {
		return err
	}
	if closed == nil {
		if done, err := t.load(ctx); err != nil || !done {
			return err
		}
	}
	checked, err := t.compare(ctx)
	if err != nil || checked == nil {
		return err
	}
	if err := t.hold(ctx, &checked.Check); err != nil {
		return err
	}
	if verdict := checked.Check.Verdict(); verdict != vault.OK && verdict != vault.Quarantined {
		return t.refuse(ctx, checked)
	}
	return t.close(ctx, closed, made, checked)
}

// load dispatches the segments that are not loaded and that nobody works on. It says
// whether all are loaded.
func (t *tick) load(ctx context.Context) (bool, error) {
	p := t.plan
	t.progress.State = StateLoading
	var open [][]vault.SegmentID
	var err error
	if open, t.progress.Loaded, t.progress.LoadedRows, err = t.records.toLoad(ctx); err != nil {
		return false, err
	}
	return len(open) == 0, t.dispatch(ctx, t.id().Log(), open, p.Loaders, loadingPace(t.planner.Repo), func(s vault.SegmentID, start int) fanout.Work {
		return fanout.Work{Verb: fanout.VerbImport, Table: p.Source, Backup: p.Backup, Restore: p.Restore, Segment: s, Start: start, WriteUnits: p.LoadShare(), Request: t.planner.Request}
	})
}

// compare dispatches the segments that are not compared and that nobody works on, and
// rolls up the groups of which all are. It returns what was found in all segments
// together, nil while that is open.
func (t *tick) compare(ctx context.Context) (*vault.CheckedGroup, error) {
	p, progress := t.plan, &t.progress
	progress.State, progress.Loaded, progress.LoadedRows = StateVerifying, len(p.Segments), progress.Rows
	rolled, err := t.records.rolledUp(ctx)
	if err != nil {
		return nil, err
	}
	groups := byGroup(p, func(vault.RestoreSegment) bool { return true })
	done := map[vault.SegmentID]time.Time{}
	if len(rolled) < len(groups) {
		if done, err = t.records.reported(ctx, t.id().Checks()); err != nil {
			return nil, err
		}
	}
	if len(done)+len(rolled) == 0 {
		// What is compared has no writer any more. Whether that is so for good, whoever
		// compares a segment finds out.
		if progress.Waiting, err = t.records.loadingAtWork(ctx, t.run); err != nil || progress.Waiting != "" {
			return nil, err
		}
	}
	open, checked, _ := splitEnded(p, func(s vault.RestoreSegment) bool {
		_, compared := done[s.ID]
		return compared || rolled[s.Group]
	})
	progress.Checked = checked
	if len(open) > 0 {
		err := t.dispatch(ctx, t.id().Verify(), open, p.Comparers, comparingPace(t.planner.Repo), func(s vault.SegmentID, start int) fanout.Work {
			return fanout.Work{Verb: fanout.VerbVerify, Table: p.Source, Backup: p.Backup, Restore: p.Restore, Segment: s, Start: start, ReadUnits: p.CompareShare(), Request: t.planner.Request}
		})
		if err == nil && progress.Pace == nil && progress.Live > 0 {
			progress.Pace, err = t.records.comparing(ctx, done, progress.Live)
		}
		if err != nil {
			return nil, err
		}
	}
	unfinished := map[int]bool{}
	for _, segments := range open {
		unfinished[segments[0].Group()] = true
	}
	complete := slices.DeleteFunc(slices.Clone(groups), func(segments []vault.SegmentID) bool { // and not rolled up
		g := segments[0].Group()
		return rolled[g] || unfinished[g]
	})
	left, err := t.records.rollUp(ctx, t.run, complete)
	if err != nil || len(open) > 0 {
		return nil, err
	}
	if left > 0 {
		progress.Waiting = fmt.Sprintf("time was up with %d groups of checks to gather: the next look goes on", left)
		return nil, nil
	}
	return t.records.found(ctx, groups)
}

// dispatch starts those of the open segments that nobody works on, so that no more than
// most are worked on at a time, if that is not zero. pace reads what held back who wrote
// a slot of the log.
func (t *tick) dispatch(ctx context.Context, log vault.Log, open [][]vault.SegmentID, most int,
	pace func(context.Context, string) (*vault.Pace, error), work func(vault.SegmentID, int) fanout.Work) error {
	p := t.planner
	if most == 0 || p.Workers > 0 && p.Workers < most {
		most = p.Workers
	}
	d := fanout.Dispatch{Log: fanout.NewLog(p.Repo, log), Since: p.Since, Most: most}
	for _, segments := range open {
		group := segments[0].Group()
		if err := d.Look(ctx, t.run, group, segments); err != nil {
			return err
		}
		if err := d.Paces(ctx, group, pace); err != nil {
			return err
		}
	}
	if t.progress.LastError, t.progress.Corrupt = d.Failure, d.Corrupt; d.Over {
		t.progress.State = StateFailed
	}
	room := math.MaxInt
	if most > 0 {
		room = max(0, most-d.Live)
	}
	err := d.Submit(ctx, p.Work, room, work)
	t.progress.Live, t.progress.Dispatched, t.progress.Pace, t.progress.Silent = d.Live, d.Submitted, d.Pace, d.Silent
	return err
}

// hold compares the sums of a restore's checks with the manifest that its plan pins, and
// those of both sides with each other: what is not so is a finding.
func (t *tick) hold(ctx context.Context, check *vault.Check) error {
	m, err := sealed.Pinned(ctx, t.planner.Repo, t.plan.Manifest)
	if repository.Corrupt(err) {
		check.Find(t.plan.Manifest.Name, err)
		return nil
	}
	if err != nil {
		return err
	}
	if check.Corrupted > 0 {
		return nil // what could not be read is missing from the sums
	}
	if err := check.Holds(&m.Totals); err != nil {
		check.Find(t.plan.Manifest.Name, err)
	} else if err := check.Agrees(); err != nil {
		check.Find(t.id().Checks(), err)
	}
	return nil
}

// refuse ends a restore whose table is not handed over; its proof says why.
func (t *tick) refuse(ctx context.Context, checked *vault.CheckedGroup) error {
	proof, err := t.prove(ctx, checked, time.Time{}, t.plan.Notes)
	if err != nil {
		return err
	}
	reason := "the restored rows are not the backup's: verdict " + string(checked.Check.Verdict())
	if _, err := GiveUp(ctx, t.planner.Repo, t.run, t.progress.Restore, reason); err != nil {
		return err
	}
	t.progress.ended(proof)
	return nil
}

// close writes the closing record, waits for whoever may still write, gives the table
// what it had at the source, and proves the restore.
func (t *tick) close(ctx context.Context, closed *vault.Closed, made *vault.Made, checked *vault.CheckedGroup) (err error) {
	t.progress.State = StateClosing
	if closed == nil {
		closed = &vault.Closed{Restore: t.progress.Restore, At: t.run.Now().UTC()}
		if _, err := t.planner.Repo.Win(ctx, t.id().Closed(), closed); err != nil {
			return err
		}
		if closed.Reason != "" {
			t.progress.gaveUp(closed.Reason)
			return nil
		}
	}
	if t.progress.Waiting, err = t.records.working(ctx, t.run, checked.Unsettled); err != nil || t.progress.Waiting != "" {
		return err
	}
	notes := slices.Clip(t.plan.Notes)
	if note := lapseNote(t.plan.Definition.Options.TTL, &checked.Check); note != "" {
		notes = append(notes, note)
	}
	found, waiting, err := t.planner.finish(ctx, t.plan, made)
	if t.progress.Waiting = waiting; err != nil || waiting != "" {
		return err
	}
	proof, err := t.prove(ctx, checked, closed.At, append(notes, found...))
	if err == nil {
		t.progress.ended(proof)
	}
	return err
}

// prove writes the restore's proof.
func (t *tick) prove(ctx context.Context, found *vault.CheckedGroup, closed time.Time, notes []string) (*vault.Proof, error) {
	repo, p := t.planner.Repo, t.plan
	notes = append(slices.Clip(notes), repository.ReplacedNotes(found.Check.Replaced, repo.Replaced())...)
	notes = append(notes, repo.ReplicaErrors()...)
	proof := &vault.Proof{
		Backup: p.Backup, Table: p.Source, Restore: p.Restore, Target: p.Target.String(), Depth: verify.DepthRows,
		At: t.run.Now().UTC(), Verdict: found.Check.Verdict(), Manifest: p.Manifest, Check: found.Check, Notes: notes,
		Usage: found.Usage, Compared: found.Latest, Closed: closed,
	}
	_, err := repo.Win(ctx, t.id().Proof(), proof)
	if err == nil {
		t.planner.Log.Info("restore proved", "restore", p.Restore, "verdict", proof.Verdict, "rows", proof.Check.Rows, "quarantined", proof.Check.Quarantined)
	}
	return proof, err
}
