package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/drill"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// drillResult is what commands tell of a drill.
type drillResult struct {
	Region string    `json:"region"`
	Table  string    `json:"table"`
	Due    time.Time `json:"due"`
	// State is "running", "proved" or "failed".
	State         string         `json:"state"`
	Rule          string         `json:"rule"`
	Backup        vault.BackupID `json:"backup"`
	RecoveryPoint time.Time      `json:"recovery_point"`
	Target        string         `json:"target"`
	Began         time.Time      `json:"began"`
	Ended         time.Time      `json:"ended,omitzero"`
	Rows          int64          `json:"rows"`
	// RTO is how long it took until the table was restored and proved, of a drill
	// that was; RPO how old the recovery point was when it began.
	RTO     float64         `json:"rto_seconds,omitempty"`
	RPO     float64         `json:"rpo_seconds"`
	Restore vault.RestoreID `json:"restore,omitempty"`
	Proof   string          `json:"proof,omitempty"`
	Verdict vault.Verdict   `json:"verdict,omitempty"`
	Notes   []string        `json:"notes,omitempty"`
	Error   string          `json:"error,omitempty"`
	// Dropped is when its table was, Left why it was not.
	Dropped time.Time `json:"dropped,omitzero"`
	Left    string    `json:"left,omitempty"`

	rto, rpo time.Duration
}

// The states of a drill.
const (
	drillRunning = "running"
	drillProved  = "proved"
	drillFailed  = "failed"
)

func drillOf(d *drill.State) drillResult {
	r := drillResult{
		Region: d.Table.Region, Table: d.Table.String(), Due: d.Due, State: drillRunning, Rule: d.Rule, Backup: d.Backup, RecoveryPoint: d.RecoveryPoint,
		Target: d.Target.String(), Began: d.Began, rpo: d.Began.Sub(d.RecoveryPoint),
	}
	r.RPO = r.rpo.Seconds()
	if e := d.End; e != nil {
		r.Ended, r.Rows, r.Restore, r.Proof, r.Verdict, r.Notes = e.Ended, e.Rows, e.Restore, e.Proof, e.Verdict, e.Notes
		if r.State, r.Error = drillFailed, e.Error; e.OK {
			r.State, r.rto = drillProved, e.RTO()
			r.RTO = r.rto.Seconds()
		}
	}
	if d.Drop != nil && d.Drop.Left == "" {
		r.Dropped = d.Drop.At
	} else if d.Drop != nil {
		r.Left = d.Drop.Left
	}
	return r
}

// line says in a sentence what came of a drill.
func (r *drillResult) line(now time.Time) string {
	switch r.State {
	case drillProved:
		return fmt.Sprintf("proved %s ago: %s rows back in %s (RTO), recovery point %s old (RPO)", span(now.Sub(r.Ended)), count(r.Rows), span(r.rto), span(r.rpo))
	case drillFailed:
		return fmt.Sprintf("failed %s ago: %s", span(now.Sub(r.Ended)), r.Error)
	}
	return fmt.Sprintf("under way for %s, into %s", span(now.Sub(r.Began)), r.Target)
}

// span prints a duration as people say it, in one or two units.
func span(d time.Duration) string {
	d = max(d, 0)
	switch day := 24 * time.Hour; {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Round(time.Second).Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 2*day && d%time.Hour < time.Minute:
		return fmt.Sprintf("%d h", int(d.Hours()))
	case d < 2*day:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%d days", int(d/day))
	}
}

// newestDrills are the newest drills of each table, or of one.
func newestDrills(ctx context.Context, repo *repository.Repository, t *vault.TableID) ([]drillResult, error) {
	states, err := drill.Newest(ctx, repo, t, time.Now())
	if err != nil {
		return nil, err
	}
	results := []drillResult{}
	for i := range states {
		results = append(results, drillOf(&states[i]))
	}
	return results, nil
}

// shownDrills is how many drills of a table are looked at for those that have
// restored one backup.
const shownDrills = 50

// drillsOf are those that have restored a backup, of the newest of its table,
// newest first.
func drillsOf(ctx context.Context, repo *repository.Repository, b vault.Backup) ([]drillResult, error) {
	states, err := drill.Of(ctx, repo, b.Table, shownDrills, time.Now())
	if err != nil {
		return nil, err
	}
	var results []drillResult
	for i := range states {
		if states[i].Backup == b.ID {
			results = append(results, drillOf(&states[i]))
		}
	}
	return results, nil
}

// lateDrill is how long a drill may be due, or a table be there that was to be
// dropped, before that is something to be told.
const lateDrill = 24 * time.Hour

// drills looks at the newest drill of each table that the policy has rehearsed.
func (d *doctor) drills(ctx context.Context) {
	if d.repo == nil || d.policy == nil {
		return
	}
	wanted := map[vault.TableID]*policy.Rule{}
	var tables []vault.TableID
	for i := range d.policy.Rules {
		r := &d.policy.Rules[i]
		if r.Drill == nil {
			continue
		}
		for _, instance := range r.Instances() {
			for _, name := range d.names[instance] {
				if t := (vault.TableID{Region: d.site.region, Instance: instance, Table: name}); r.Match(instance, name) && wanted[t] == nil {
					wanted[t], tables = r, append(tables, t)
				}
			}
		}
	}
	if !slices.ContainsFunc(d.policy.Rules, func(r policy.Rule) bool { return r.Drill != nil }) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*askFor)
	defer cancel()
	states, err := drill.Newest(ctx, d.repo, nil, time.Now())
	if err != nil {
		d.add("drill", "", failure, err.Error(), fixAccess(err, "look at the object in the vault"))
		return
	}
	newest := map[vault.TableID]*drill.State{}
	for i := range states {
		s := &states[i]
		newest[s.Table] = s
		_, listed := d.names[s.Table.Instance]
		if s.Table.Region == d.site.region && listed && wanted[s.Table] == nil && s.End != nil && !s.End.OK && s.Drop == nil {
			d.add("drill", s.Table.String(), warning, fmt.Sprintf("no further drill of it is due, and the last one has failed: the table %s stays", s.Target), "examine it, and drop it by hand")
		}
	}
	now := time.Now().Add(d.skew)
	for _, t := range tables {
		l, text, fix := d.drill(t, wanted[t], newest[t], now)
		if s := newest[t]; s != nil && s.End != nil && s.End.OK {
			// The record is the planner's word; the proof is of who restored.
			if why, err := unproved(ctx, d.repo, s); err != nil {
				if l == fine {
					l = warning
				}
				text, fix = text+"; its proof can't be read: "+err.Error(), fixAccess(err, "look at the object in the vault")
			} else if why != "" {
				l, text, fix = failure, text+"; but that is not proved: "+why, "look who may write under drills/ and restores/ in the vault (docs/operations.md), and restore by hand"
			}
		}
		d.add("drill", t.String(), l, text, fix)
	}
}

// unproved says why a drill that is recorded as proved is not.
func unproved(ctx context.Context, repo *repository.Repository, s *drill.State) (string, error) {
	proof, why, err := drill.Proof(ctx, repo, &s.Drill, s.End.Restore)
	if err == nil && why == "" && (proof.Verdict != s.End.Verdict || proof.Check.Target != s.End.Rows) {
		why = fmt.Sprintf("the proof says %s with %d rows, and the record %s with %d", proof.Verdict, proof.Check.Target, s.End.Verdict, s.End.Rows)
	}
	return why, err
}

// drill says how it stands with the drills of a table, of which s is the newest, nil
// if there was none.
func (d *doctor) drill(t vault.TableID, r *policy.Rule, s *drill.State, now time.Time) (l level, text, fix string) {
	const planner = "look at the planner: its timer, its log, and whether its role has docs/ram/drill-plan.json"
	due := r.Drill.Every.Due(now)
	if s == nil {
		text = "there was none yet; the first begins when a backup is sealed"
		if ids := d.listed[t]; len(ids) > 0 && now.Sub(ids[0].Time()) > lateDrill && now.Sub(due) > lateDrill {
			return warning, fmt.Sprintf("there was none yet, and one is due since %s", due.Format(time.RFC3339)), planner
		}
		return fine, text, ""
	}
	result := drillOf(s)
	text = result.line(now)
	switch {
	case s.End == nil && now.Sub(s.Until) > time.Hour:
		return warning, text + ", and was to end by " + s.Until.UTC().Format(time.RFC3339), planner
	case s.End == nil:
		return fine, text, ""
	case !s.End.OK:
		fix = fmt.Sprintf("look at what restore %s has left under restores/ in the vault, and at the import function's log", s.End.Restore)
		if s.Drop == nil {
			fix = fmt.Sprintf("examine %s; it stays until the next drill begins, due at %s; ", s.Target, r.Drill.Every.Next(now).Format(time.RFC3339)) + fix
		}
		return failure, text, fix
	case s.Due.Before(due) && now.Sub(due) > lateDrill:
		return warning, text + "; one more is due since " + due.Format(time.RFC3339), planner
	case s.Drop == nil && now.Sub(s.End.Ended) > time.Hour:
		return warning, text + "; its table " + s.Target.String() + " is not dropped", planner
	case result.Left != "":
		return warning, text + "; its table " + s.Target.String() + " was left: " + result.Left, "drop it by hand if nobody needs it"
	}
	return fine, text, ""
}

// drillLines prints the newest drills below a list of backups.
func drillLines(results []drillResult, now time.Time) string {
	var b strings.Builder
	for i := range results {
		fmt.Fprintf(&b, "%s\t%s\t%s\n", results[i].Table, results[i].Due.UTC().Format(time.RFC3339), results[i].line(now))
	}
	return b.String()
}
