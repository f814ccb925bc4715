package drill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// maxRequest bounds the object that holds a request.
const maxRequest = 128 << 10

// look does what is to be done about a drill that was begun.
func (s *ticking) look(ctx context.Context, r *record) error {
	if r.ended {
		var end vault.DrillEnd
		_, err := s.Repo.Read(ctx, r.Ended(), &end)
		if err != nil || !end.OK {
			return err // what a failed one has left stays until the next begins
		}
		return s.drop(ctx, r, &end)
	}
	// Open until the contrary is recorded.
	s.open[r.Table] = true
	var d vault.Drill
	if _, err := s.Repo.Read(ctx, r.Begun(), &d); err != nil {
		return err
	}
	return s.goOn(ctx, r, &d)
}

// goOn has a drill's restore gone on with, or records how it ended.
func (s *ticking) goOn(ctx context.Context, r *record, d *vault.Drill) error {
	content, err := s.Request(d.Backup, d.Target)
	if err != nil {
		return err
	}
	stands, _, err := object.Decide(ctx, s.Repo.Store(), d.Request, content, maxRequest)
	if err != nil && !errors.Is(err, object.ErrTooLong) {
		return err
	}
	id, err := s.restoreOf(ctx, d)
	if err != nil {
		return err
	}
	now := s.run.Now().UTC()
	if !bytes.Equal(stands, content) {
		return s.end(ctx, r, &vault.DrillEnd{Drill: *d, Ended: now, Restore: id, Error: fmt.Sprintf("what lies under the name of its request, %s, is not what the drill asks for", d.Request)})
	}
	var answer vault.Answer
	_, err = s.Repo.Read(ctx, vault.AnswerName(d.Request), &answer)
	if err == nil {
		e, err := s.outcome(ctx, d, id, &answer)
		if err != nil {
			return err
		}
		return s.end(ctx, r, e)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if now.After(d.Until) {
		return s.end(ctx, r, &vault.DrillEnd{Drill: *d, Ended: now, Restore: id, Error: fmt.Sprintf("it had not ended by %s", d.Until.Format(time.RFC3339))})
	}
	// The tick's instant tells its look from that of another: two deliveries of one tick
	// make one look.
	return s.Work.Submit(ctx, fanout.Work{Verb: fanout.VerbRestore, Request: d.Request, Start: int(s.at.UnixNano())})
}

// outcome is what came of a drill whose request was answered. The answer only says that
// the restore has ended: that it is proved, and what was found, the restore's own proof
// says. The restore is the one that the request can only have, whatever the answer names.
// Rows that were refused are no difference to a restore, and are one to a rehearsal: they
// would be missing.
func (s *ticking) outcome(ctx context.Context, d *vault.Drill, id vault.RestoreID, a *vault.Answer) (*vault.DrillEnd, error) {
	e := &vault.DrillEnd{Drill: *d, Ended: a.At, Restore: id}
	proof, why, err := Proof(ctx, s.Repo, d, id)
	if err != nil {
		return nil, err
	}
	if proof != nil {
		e.Rows, e.Quarantined, e.Proof, e.Verdict, e.Notes = proof.Check.Target, proof.Check.Quarantined, vault.Restore{ID: id}.Proof(), proof.Verdict, proof.Notes
	}
	switch {
	case a.Request != d.Request || a.OK && a.Restore != id:
		e.Error = fmt.Sprintf("the answer under the name of its request is to the request %s about the restore %s, and the drill's is %s", a.Request, a.Restore, id)
	case !a.OK:
		// What stands behind is advice for people who ask for a restore.
		e.Error, _, _ = strings.Cut(a.Error, "; drop "+d.Target.String())
	case why != "":
		e.Error = "the answer to its request says that it is restored, and that is not proved: " + why
	case proof.Verdict != vault.OK:
		e.Error = fmt.Sprintf("verdict %s: the service refused %d rows for good", proof.Verdict, proof.Check.Quarantined)
	default:
		e.OK, e.Ended, e.Compared, e.Closed = true, proof.At, proof.Compared, proof.Closed
	}
	return e, nil
}

// Proof reads the proof of a drill's restore, and holds it against what the drill sets
// out to do, the restore's plan, and the backup. Without a proof of all that, it says why
// there is none; an error is about what could not be read for now.
func Proof(ctx context.Context, repo *repository.Repository, d *vault.Drill, id vault.RestoreID) (p *vault.Proof, why string, err error) {
	// not tells what is missing or damaged from what can't be read for now.
	not := func(err error) (*vault.Proof, string, error) {
		if errors.Is(err, fs.ErrNotExist) || repository.Corrupt(err) {
			return nil, err.Error(), nil
		}
		return nil, "", err
	}
	plan, err := repo.RestorePlan(ctx, id)
	if err != nil {
		return not(err)
	}
	if plan.Backup != d.Backup || plan.Source != d.Table || plan.Target != d.Target {
		return nil, fmt.Sprintf("restore %s is of backup %s to %s", id, plan.Backup, plan.Target), nil
	}
	if p, err = repo.RestoreProof(ctx, id); err != nil {
		return not(err)
	}
	m, named, err := repo.Manifest(ctx, vault.Backup{Table: d.Table, ID: d.Backup})
	if errors.Is(err, fs.ErrNotExist) {
		m = nil // its time was over, and it was deleted since
	} else if err != nil {
		return not(err)
	}
	if err := p.Of(plan, m, named); err != nil {
		return nil, err.Error(), nil
	}
	if p.At.Before(d.Began) {
		return nil, fmt.Sprintf("the proof of restore %s is of %s, before the drill began", id, p.At.UTC().Format(time.RFC3339)), nil
	}
	return p, "", nil
}

// end records how a drill ended. The restore of one that failed is closed before, so that
// nothing is written, nor made, for it any more.
func (s *ticking) end(ctx context.Context, r *record, e *vault.DrillEnd) error {
	if !e.OK {
		closed, err := restore.GiveUp(ctx, s.Repo, s.run, e.Restore, "its drill has failed: "+e.Error)
		if err != nil {
			return err
		}
		if closed.Reason == "" && e.Verdict == "" {
			e.Error += ", though the rows were loaded and compared: what was left is the table's indexes and settings, and the proof"
		}
	}
	mine, err := s.Repo.Win(ctx, r.Ended(), e)
	if err != nil {
		return err
	}
	r.ended = true
	delete(s.open, r.Table)
	if !e.OK {
		s.report(e.Drill.Rule, r.Table, "the drill of %s failed: %s; its table %s stays, to be examined, until the next begins", r.Due.Format(time.RFC3339), e.Error, e.Drill.Target)
		if mine {
			s.reply.Failed++
		}
		return nil
	}
	if mine {
		s.reply.Proved++
		s.Log.Info("drill proved", "table", r.Table.String(), "due", r.Due, "rows", e.Rows, "rto", e.RTO(), "rpo", e.RPO())
	}
	return s.drop(ctx, r, e)
}

// restoreOf is the id that the restore of a drill's request has, or will have if it is
// ever accepted: it derives from the request's date.
func (s *ticking) restoreOf(ctx context.Context, d *vault.Drill) (vault.RestoreID, error) {
	info, err := object.Stat(ctx, s.Repo.Store(), d.Request)
	if err != nil {
		return "", fmt.Errorf("ask for %s: %w", d.Request, err)
	}
	return vault.RestoreAsked(info.Modified, d.Backup, d.Target, false), nil
}

// drop drops the table that a drill's restore has made, and records that, or why there is
// nothing to drop.
func (s *ticking) drop(ctx context.Context, r *record, e *vault.DrillEnd) error {
	gone := &vault.DrillDrop{DrillID: r.DrillID, Target: e.Drill.Target, Restore: e.Restore, At: s.run.Now().UTC()}
	in, err := s.Open(e.Drill.Target.Instance)
	if err != nil {
		return err
	}
	if gone.Left, err = s.left(ctx, in, e); err != nil {
		return err
	}
	if gone.Left == "" {
		if err := in.DropTable(ctx, e.Drill.Target.Table); err != nil {
			return fmt.Errorf("drop %s: %w", e.Drill.Target, err)
		}
	}
	mine, err := s.Repo.Win(ctx, r.Dropped(), gone)
	if err != nil {
		return err
	}
	r.dropped = true
	if mine {
		s.reply.Dropped++
		s.Log.Info("drill's table dropped", "table", r.Table.String(), "due", r.Due, "target", gone.Target.String(), "left", gone.Left)
	}
	return nil
}

// left says why the table of a drill is not to be dropped; empty if it is. It is only
// where the plan of the drill's restore names it, the restore is known to have made it,
// no rule is about it, and what stands there has the key that it was made with.
func (s *ticking) left(ctx context.Context, in table.Catalog, e *vault.DrillEnd) (string, error) {
	target := e.Drill.Target
	plan, err := s.Repo.RestorePlan(ctx, e.Restore)
	if errors.Is(err, fs.ErrNotExist) {
		return "its restore was not begun, and has made no table", nil
	}
	if err != nil {
		return "", err
	}
	if plan.Target != target || plan.Backup != e.Drill.Backup {
		return fmt.Sprintf("restore %s is of backup %s to %s", plan.Restore, plan.Backup, plan.Target), nil
	}
	made, err := restore.Made(ctx, s.Repo, in, plan)
	if err != nil {
		return "", err
	}
	if !made {
		return "the table that stands under its name is not known to be the one that its restore has made", nil
	}
	if slices.ContainsFunc(s.Policy.Rules, func(r *policy.Rule) bool { return r.Match(target.Instance, target.Table) }) {
		return "a rule of the policy is about the table", nil
	}
	def, err := in.Describe(ctx, target.Table)
	switch {
	case errors.Is(err, table.ErrNotExist):
		return "", nil // as it is to be
	case err != nil:
		return "", err
	case !slices.Equal(def.Schema, plan.Definition.Schema):
		return "another table stands under its name, with another primary key", nil
	}
	return "", nil
}
