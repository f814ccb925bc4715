package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tablevault/tablevault/shared/drill"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/vault"
)

// drillLine says in a sentence what came of a drill.
func drillLine(r *status.Drill, now time.Time) string {
	switch r.State {
	case status.DrillProved:
		return fmt.Sprintf("proved %s ago: %s rows back in %s (RTO), recovery point %s old (RPO)", span(now.Sub(r.Ended)), count(r.Rows), span(seconds(r.RTO)), span(seconds(r.RPO)))
	case status.DrillFailed:
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

// lateDrill is how long a drill may be due, or a table be there that was to be dropped,
// before that is something to be told.
const lateDrill = 24 * time.Hour

// drills looks at the newest drill of each table that the policy has rehearsed.
func (d *doctor) drills(ctx context.Context) {
	if d.repo == nil || !slices.ContainsFunc(d.known.Rules(), func(r *policy.Rule) bool { return r.Drill != nil }) {
		return
	}
	states, err := drill.Newest(ctx, d.repo, nil, time.Now())
	if err != nil {
		d.add("drill", "", status.Failure, err.Error(), fixAccess(err, "look at the object in the vault"))
		return
	}
	wanted := maps.Collect(d.known.Rehearsed())
	newest := map[vault.TableID]*drill.State{}
	for i := range states {
		s := &states[i]
		newest[s.Drill.Table] = s
		_, listed := d.known.Tables[s.Drill.Table.Instance]
		if s.Drill.Table.Region == d.known.Region && listed && wanted[s.Drill.Table] == nil && s.End != nil && !s.End.OK && s.Drop == nil {
			d.add("drill", s.Drill.Table.String(), status.Warning, fmt.Sprintf("no further drill of it is due, and the last one has failed: the table %s stays", s.Drill.Target), "examine it, and drop it by hand")
		}
	}
	now := d.now()
	for t, rule := range d.known.Rehearsed() {
		l, text, fix := d.drill(t, rule, newest[t], now)
		if s := newest[t]; s != nil && s.End != nil && s.End.OK {
			if why, err := status.Unproved(ctx, d.repo, s); err != nil {
				if l == status.Fine {
					l = status.Warning
				}
				text, fix = text+"; its proof can't be read: "+err.Error(), fixAccess(err, "look at the object in the vault")
			} else if why != "" {
				l, text, fix = status.Failure, text+"; but that is not proved: "+why, "look who may write under drills/ and restores/ in the vault (docs/operations.md), and restore by hand"
			}
		}
		d.add("drill", t.String(), l, text, fix)
	}
}

// drill says how it stands with the drills of a table, of which s is the newest, nil if
// there was none.
func (d *doctor) drill(t vault.TableID, r *policy.Rule, s *drill.State, now time.Time) (l status.Level, text, fix string) {
	const planner = "look at the planner: its timer, its log, and whether its role has docs/ram/drill-plan.json"
	due := r.Drill.Every.Due(now)
	if s == nil {
		if ids := d.known.Backups[t]; len(ids) > 0 && now.Sub(ids[0].Time()) > lateDrill && now.Sub(due) > lateDrill {
			return status.Warning, fmt.Sprintf("there was none yet, and one is due since %s", due.Format(time.RFC3339)), planner
		}
		return status.Fine, "there was none yet; the first begins when a backup is sealed", ""
	}
	result := status.OfDrill(s)
	text = drillLine(&result, now)
	switch {
	case s.End == nil && now.Sub(s.Drill.Until) > time.Hour:
		return status.Warning, text + ", and was to end by " + s.Drill.Until.UTC().Format(time.RFC3339), planner
	case s.End == nil:
		return status.Fine, text, ""
	case !s.End.OK:
		fix = fmt.Sprintf("look at what restore %s has left under restores/ in the vault, and at the import function's log", s.End.Restore)
		if s.Drop == nil {
			fix = fmt.Sprintf("examine %s; it stays until the next drill begins, due at %s; ", s.Drill.Target, r.Drill.Every.Next(now).Format(time.RFC3339)) + fix
		}
		return status.Failure, text, fix
	case s.Drill.Due.Before(due) && now.Sub(due) > lateDrill:
		return status.Warning, text + "; one more is due since " + due.Format(time.RFC3339), planner
	case s.Drop == nil && now.Sub(s.End.Ended) > time.Hour:
		return status.Warning, text + "; its table " + s.Drill.Target.String() + " is not dropped", planner
	case result.Left != "":
		return status.Warning, text + "; its table " + s.Drill.Target.String() + " was left: " + result.Left, "drop it by hand if nobody needs it"
	}
	return status.Fine, text, ""
}
