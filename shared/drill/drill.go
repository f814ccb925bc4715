// Package drill rehearses the restores that a policy asks for, and records what came of
// them.
//
// A drill restores the newest sealed backup of a table into a table of its own, by a
// request like anybody else's, so that what is rehearsed is what a restore does: import,
// comparison and proof are the usual ones. After a proof without a difference the table
// is dropped; after anything else it stays, to be examined, until the next drill of its
// source begins.
//
// A [Rehearser] remembers nothing. A drill is named by its source and by the instant that
// it was due at, all of its names derive from these two, and each of its records is
// written once: ticks that are missed, doubled, late or dead at any point are made up for
// by the next.
package drill

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

const (
	// Bound is how long a drill may take.
	Bound = 24 * time.Hour
	// AtOnce is how many drills may be under way.
	AtOnce = 4
	// share of a policy's workers is what each of them may use. All together take half as
	// many as backups may, so that with the default share of the account's instances
	// there is room for both.
	share = 2 * AtOnce
	// settle is how long the table of a failed drill stays at least. It outlives an
	// invocation that was about to make the table when its restore was closed.
	settle = time.Hour
)

// Workers is how many workers the restore of a drill may have.
func Workers(p *policy.Policy) int { return max(1, p.Workers.Most/share) }

// Rehearser holds the drills that a policy asks for. Requests to restore are carried out
// by the function that restores.
type Rehearser struct {
	Repo   *repository.Repository
	Policy *policy.Policy
	// Region is where the instances are.
	Region string
	Open   func(instance string) (table.Catalog, error)
	// Request is the content of a request to restore a backup into a table.
	Request func(b vault.BackupID, to vault.TableID) ([]byte, error)
	// Work has requests looked at.
	Work fanout.Dispatcher
	Log  *slog.Logger
}

// Tick is what one tick came to.
type Tick struct {
	// Open counts the drills that are under way, Waiting those that are due and for which
	// there was no room, or no time.
	Open    int `json:"open"`
	Waiting int `json:"waiting"`
	// Begun, Proved, Failed and Dropped count what this tick has recorded.
	Begun   int `json:"begun"`
	Proved  int `json:"proved"`
	Failed  int `json:"failed"`
	Dropped int `json:"dropped"`
	// Reports say what a person should know.
	Reports []policy.Report `json:"reports,omitempty"`
}

// ticking is a tick under way.
type ticking struct {
	*Rehearser
	run    fanout.Run
	at     time.Time
	reply  *Tick
	drills map[vault.TableID][]*record
	open   map[vault.TableID]bool
	names  map[string][]string // tables by instance
}

// due is a drill that is to be begun.
type due struct {
	vault.DrillID
	rule *policy.Rule
	last time.Time // when the newest that was begun was due; zero if there is none
}

// Tick goes on with the drills that are under way, and begins those that are due at the
// instant at. What goes wrong with one is reported and keeps no other from going on; the
// error is about what stopped the tick itself. Where the policy asks for no drills,
// nothing is looked at.
func (r *Rehearser) Tick(ctx context.Context, run fanout.Run, at time.Time) (*Tick, error) {
	at, _ = vault.Happened(at, run.Now())
	s := &ticking{Rehearser: r, run: run, at: at.UTC(), reply: &Tick{}, open: map[vault.TableID]bool{}, names: map[string][]string{}}
	if !slices.ContainsFunc(r.Policy.Rules, func(r *policy.Rule) bool { return r.Drill != nil }) {
		return s.reply, nil
	}
	var err error
	if s.drills, err = list(ctx, r.Repo, vault.Drills); err != nil {
		return s.reply, err
	}
	for _, t := range slices.SortedFunc(maps.Keys(s.drills), byPath) {
		for _, d := range s.drills[t] {
			if t.Region != r.Region || d.ended && d.dropped || d.ahead(s.run.Now()) || s.run.Stopping() {
				continue
			}
			if err := guard.Do(func() error { return s.look(ctx, d) }); err != nil {
				if ctx.Err() != nil {
					return s.reply, err
				}
				s.report("", t, "the drill of %s: %v", d.Due.Format(time.RFC3339), err)
			}
		}
	}
	all, err := s.due(ctx)
	if err != nil {
		return s.reply, err
	}
	for _, d := range all {
		if len(s.open) >= AtOnce || s.run.Stopping() {
			s.reply.Waiting++
			continue
		}
		if err := guard.Do(func() error { return s.begin(ctx, d) }); err != nil {
			if ctx.Err() != nil {
				return s.reply, err
			}
			s.report(d.rule.Name, d.Table, "the drill of %s can't be begun: %v", d.Due.Format(time.RFC3339), err)
		}
	}
	s.reply.Open = len(s.open)
	return s.reply, nil
}

func byPath(a, b vault.TableID) int { return strings.Compare(a.Path(), b.Path()) }

func (s *ticking) report(rule string, t vault.TableID, format string, args ...any) {
	report := policy.Report{Rule: rule, Table: t.String(), Text: fmt.Sprintf(format, args...)}
	s.Log.Warn(report.Text, "rule", rule, "table", report.Table)
	s.reply.Reports = append(s.reply.Reports, report)
}

// due are the drills that are to be begun, first those of the tables that have waited
// longest. Where several rules want one of a table, any of them is done justice by it.
func (s *ticking) due(ctx context.Context) ([]due, error) {
	var all []due
	seen := map[vault.TableID]bool{}
	for _, r := range s.Policy.Rules {
		if r.Drill == nil {
			continue
		}
		at := r.Drill.Every.Due(s.at)
		if at.IsZero() {
			continue
		}
		for _, instance := range r.Instances() {
			names, err := s.tables(ctx, instance)
			if err != nil {
				if ctx.Err() != nil {
					return nil, err
				}
				s.report(r.Name, vault.TableID{Instance: instance, Table: "*"}, "the tables can't be listed: %v", err)
				continue
			}
			for _, name := range names {
				d := due{DrillID: vault.NewDrillID(vault.TableID{Region: s.Region, Instance: instance, Table: name}, at), rule: r}
				if seen[d.Table] || !r.Match(instance, name) {
					continue
				}
				d.last = s.last(r, d.Table)
				if !d.last.Before(d.Due) {
					continue
				}
				seen[d.Table] = true
				if s.open[d.Table] {
					s.report(r.Name, d.Table, "a drill is due since %s, and that of %s still runs", d.Due.Format(time.RFC3339), d.last.Format(time.RFC3339))
					continue
				}
				all = append(all, d)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b due) int { return cmp.Or(a.last.Compare(b.last), byPath(a.Table, b.Table)) })
	return all, nil
}

// last is when the newest drill of a table that was begun was due. One that is named by
// an instant which is still to come says nothing about that, and is reported.
func (s *ticking) last(r *policy.Rule, t vault.TableID) time.Time {
	for _, d := range slices.Backward(s.drills[t]) {
		if !d.ahead(s.run.Now()) {
			return d.Due
		}
		s.report(r.Name, t, "a drill is named by an instant that is still to come, %s: it does not count", d.Due.Format(time.RFC3339))
	}
	return time.Time{}
}

// tables lists an instance's tables, once per tick.
func (s *ticking) tables(ctx context.Context, instance string) ([]string, error) {
	if names, known := s.names[instance]; known {
		return names, nil
	}
	in, err := s.Open(instance)
	if err != nil {
		return nil, err
	}
	names, err := in.Tables(ctx)
	if err == nil {
		s.names[instance] = names
	}
	return names, err
}

// begin begins a drill, unless there is nothing to rehearse with, or what an earlier one
// has left can't be taken away.
func (s *ticking) begin(ctx context.Context, due due) error {
	m, err := s.Repo.Latest(ctx, due.Table, time.Time{})
	if errors.Is(err, fs.ErrNotExist) {
		s.report(due.rule.Name, due.Table, "a drill is due since %s, and waits for the first sealed backup of the table", due.Due.Format(time.RFC3339))
		return nil
	}
	if err != nil {
		return err
	}
	for _, d := range happened(s.drills[due.Table], s.run.Now()) {
		if d.dropped {
			continue
		}
		var end vault.DrillEnd
		if _, err := s.Repo.Read(ctx, d.Ended(), &end); err != nil {
			return err
		}
		if until := end.Ended.Add(settle); !end.OK && s.run.Now().Before(until) {
			s.report(due.rule.Name, due.Table, "a drill is due since %s, and waits until %s: so long the table %s of the one that failed stays",
				due.Due.Format(time.RFC3339), until.UTC().Format(time.RFC3339), end.Drill.Target)
			return nil
		}
		if err := s.drop(ctx, d, &end); err != nil {
			return err
		}
	}
	instance, name := due.rule.Drill.Place()
	now := s.run.Now().UTC()
	d := &vault.Drill{
		DrillID: due.DrillID, Rule: due.rule.Name, Backup: m.Backup, RecoveryPoint: m.RecoveryPoint().UTC(),
		Target:  vault.TableID{Region: s.Region, Instance: instance, Table: due.Target(name)},
		Request: due.Request(), Workers: Workers(s.Policy), Began: now, Until: now.Add(Bound),
	}
	mine, err := s.Repo.Win(ctx, due.Begun(), d)
	if err != nil {
		return err
	}
	if mine {
		s.reply.Begun++
		s.Log.Info("drill begun", "table", d.Table.String(), "due", d.Due, "backup", d.Backup, "target", d.Target.String())
	}
	s.open[d.Table] = true
	return s.goOn(ctx, &record{DrillID: d.DrillID}, d)
}
