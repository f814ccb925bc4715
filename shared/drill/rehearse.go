package drill

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// maxRequest bounds the object that holds a request.
const maxRequest = 128 << 10

// look does what is to be done about a drill that was begun.
func (s *sweep) look(ctx context.Context, r *record) error {
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
func (s *sweep) goOn(ctx context.Context, r *record, d *vault.Drill) error {
	var answer vault.Answer
	_, err := s.Repo.Read(ctx, vault.AnswerName(d.Request), &answer)
	if err == nil {
		return s.end(ctx, r, outcome(d, &answer))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	content, err := s.Restores.Request(d.Backup, d.Target)
	if err != nil {
		return err
	}
	if _, _, err := object.Decide(ctx, s.Repo.Store(), d.Request, content, maxRequest); err != nil {
		return err
	}
	if now := s.Now().UTC(); now.After(d.Until) {
		return s.end(ctx, r, &vault.DrillEnd{Drill: *d, Ended: now, Error: fmt.Sprintf("it had not ended by %s", d.Until.Format(time.RFC3339))})
	}
	return s.Restores.Serve(ctx, d.Request, int(s.at.Unix()))
}

// outcome is what the answer to a drill's request makes of the drill. Rows that
// were refused are no difference to a restore, and are one to a rehearsal: they
// would be missing.
func outcome(d *vault.Drill, a *vault.Answer) *vault.DrillEnd {
	e := &vault.DrillEnd{
		Drill: *d, Ended: a.At, Restore: a.Restore, Rows: a.Rows, Quarantined: a.Quarantined, Proof: a.Proof, Verdict: a.Verdict, Notes: a.Notes,
	}
	switch {
	case a.OK && (a.Backup != d.Backup || a.Target != d.Target.String()):
		e.Error = fmt.Sprintf("what lies under the name of its request has restored backup %s to %s", a.Backup, a.Target)
	case a.OK && a.Verdict == vault.OK:
		e.OK = true
	case a.OK:
		e.Error = fmt.Sprintf("verdict %s: the service refused %d rows for good", a.Verdict, a.Quarantined)
	default:
		// What stands behind is advice for people who ask for a restore.
		e.Error, _, _ = strings.Cut(a.Error, "; drop "+a.Target)
	}
	return e
}

// end records how a drill ended. The restore of one that failed is closed before,
// so that nothing is written, nor made, for it any more.
func (s *sweep) end(ctx context.Context, r *record, e *vault.DrillEnd) error {
	if !e.OK {
		if e.Restore == "" {
			id, err := s.restoreOf(ctx, &e.Drill)
			if err != nil {
				return err
			}
			e.Restore = id
		}
		closed, err := s.Restores.GiveUp(ctx, e.Restore, "its drill has failed: "+e.Error)
		if err != nil {
			return err
		}
		if closed.Reason == "" && e.Verdict == "" {
			e.Error += ", though the rows were loaded and compared: what was left is the table's indexes and settings, and the proof"
		}
	}
	mine, err := s.Repo.Decide(ctx, r.Ended(), e)
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

// restoreOf is the id that the restore of a drill's request has, or will have if it
// is ever accepted: it derives from the request's date.
func (s *sweep) restoreOf(ctx context.Context, d *vault.Drill) (vault.RestoreID, error) {
	info, err := object.Stat(ctx, s.Repo.Store(), d.Request)
	if err != nil {
		return "", fmt.Errorf("ask for %s: %w", d.Request, err)
	}
	return vault.NewRestoreID(info.Modified, string(d.Backup), d.Target.Path()), nil
}

// drop drops the table that a drill's restore has made, and records that, or why
// there is nothing to drop.
func (s *sweep) drop(ctx context.Context, r *record, e *vault.DrillEnd) error {
	gone := &vault.DrillDrop{DrillID: r.DrillID, Target: e.Drill.Target, Restore: e.Restore, At: s.Now().UTC()}
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
	mine, err := s.Repo.Decide(ctx, r.Dropped(), gone)
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

// left says why the table of a drill is not to be dropped; empty if it is. It is
// only where the plan of the drill's restore names it, the restore is known to have
// made it, no rule is about it, and what stands there has the key that it was made
// with.
func (s *sweep) left(ctx context.Context, in Instance, e *vault.DrillEnd) (string, error) {
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
	made, err := s.Restores.Made(ctx, plan)
	if err != nil {
		return "", err
	}
	if !made {
		return "the table that stands under its name is not known to be the one that its restore has made", nil
	}
	if slices.ContainsFunc(s.Policy.Rules, func(r policy.Rule) bool { return r.Match(target.Instance, target.Table) }) {
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
