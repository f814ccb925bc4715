// Package reconcile does what a policy asks for: it compares that with what the vault
// holds, goes on with what was begun, and begins what is due.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// Reconciler compares what the policy wants with what the vault holds, and does what is
// due. It remembers nothing: which backups a rule has made, their names tell, since their
// ids derive from the rule and from the instant that was due. So a tick that never came,
// came twice, late, or beside another is made up for by the next.
type Reconciler struct {
	Repo *repository.Repository
	// Policy is what is wanted, policy.Default for nothing. Unread is why it is the
	// default where it can't be read.
	Policy *policy.Policy
	Unread error
	// Region is where the instances are.
	Region string
	// Open reaches an instance, of which Endpoint is the address.
	Open     func(instance string) (table.Catalog, error)
	Endpoint func(instance string) string
	Work     fanout.Dispatcher
	// Request is the rehearser's of that name.
	Request func(b vault.BackupID, to vault.TableID) ([]byte, error)
	Log     *slog.Logger
	// Slow is the planners' of that name.
	Slow time.Duration
}

// Tick is what one tick came to.
type Tick struct {
	// At is the instant for which the tick looked at what is due.
	At time.Time `json:"at"`
	// Backups are those that were open, or that were begun by the tick.
	Backups []Backup `json:"backups"`
	// Restores counts those that are under way, Requests those that are not answered yet;
	// each was handed to its function.
	Restores int `json:"restores"`
	Requests int `json:"requests"`
	// Live and Dispatched count workers of backups: those at work before the tick, and
	// those that it started, at most Most together.
	Live       int `json:"live"`
	Dispatched int `json:"dispatched"`
	Most       int `json:"most"`
	// Copies are those to replicas.
	Copies Copies `json:"copies"`
	// Reports say what a person should know.
	Reports []policy.Report `json:"reports,omitempty"`
}

// Backup is a backup as a tick left it.
type Backup struct {
	Backup vault.BackupID `json:"backup"`
	Table  string         `json:"table"`
	Rule   string         `json:"rule,omitempty"`
	// Begun says that this tick began it.
	Begun bool `json:"begun,omitempty"`
	backup.Progress
}

// ticking is a tick under way.
type ticking struct {
	*Reconciler
	run       fanout.Run
	now       time.Time // when it began
	reply     *Tick
	surveys   []*backup.Survey
	instances map[string]*openInstance // by name
	// last is the newest instant for which a rule has begun a backup of a table.
	last map[position]time.Time
	// failed and running are the open backups by rule and table.
	failed, running map[position]*backup.Survey
	// known are the tables that the vault has backups of.
	known []vault.TableID
	// toCopy are the ended backups of rules with replicas.
	toCopy []toCopy
	// late are the surveys, by their place, that took longer than their share of time.
	late []int
}

type position struct {
	rule  string
	table vault.TableID
}

// openInstance is an instance in a tick.
type openInstance struct {
	tables  table.Catalog
	planner *backup.Planner
	names   []string // of its tables, once they were listed
	err     error
}

// Tick looks at everything at once: it goes on with each open backup, begins those that
// are due at the instant at, spreads the workers that the policy allows over the backups,
// and hands restores, their requests and copies to the functions that do them. An instant
// that is still to come, or none, means now.
//
// What goes wrong with one table, backup, copy or request is reported and keeps no other
// from going on; nor does one that takes all the time that it is given. The error is
// about what stopped a part of the tick. Requests, which others write, come after
// backups, which are made whatever stands there.
func (r *Reconciler) Tick(ctx context.Context, run fanout.Run, at time.Time) (*Tick, error) {
	now := run.Now()
	instant, told := vault.Happened(at, now)
	s := &ticking{
		Reconciler: r, run: run, now: now, reply: &Tick{At: instant.UTC(), Backups: []Backup{}, Most: r.Policy.Workers.Most},
		instances: map[string]*openInstance{}, last: map[position]time.Time{},
		failed: map[position]*backup.Survey{}, running: map[position]*backup.Survey{},
	}
	if !told && !at.IsZero() {
		s.report("", "", "the tick's event is of %s, which is still to come: it is taken for now", at.UTC().Format(time.RFC3339))
	}
	var errs []error
	for _, part := range []func(context.Context) error{s.backups, s.restores, s.copies} {
		errs = append(errs, guard.Do(func() error { return part(ctx) }))
		if ctx.Err() != nil {
			break
		}
	}
	return s.reply, errors.Join(errs...)
}

// backups goes on with those that are open, begins those that are due, and starts their
// workers.
func (s *ticking) backups(ctx context.Context) error {
	// What is there comes before what is new: a tick that runs out of time has
	// then lost nothing that is under way.
	if err := s.open(ctx); err != nil {
		return err
	}
	for _, r := range s.Policy.Rules {
		if err := s.rule(ctx, r); err != nil {
			return err
		}
	}
	s.again(ctx)
	return s.start(ctx)
}

// share is ctx with a share of the time that is left: as if so many others were to have
// as much, and as much again were for the rest of the tick.
func (s *ticking) share(ctx context.Context, others int) (context.Context, context.CancelFunc) {
	if s.run.Stop.IsZero() {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, max(0, s.run.Stop.Sub(s.run.Now()))/time.Duration(others+2))
}

func (s *ticking) report(rule, table, format string, args ...any) {
	report := policy.Report{Rule: rule, Table: table, Text: fmt.Sprintf(format, args...)}
	s.Log.Warn(report.Text, "rule", rule, "table", table)
	s.reply.Reports = append(s.reply.Reports, report)
}

// instance reaches an instance, once per tick.
func (s *ticking) instance(name string) (*backup.Planner, error) {
	in := s.instances[name]
	if in == nil {
		in = &openInstance{}
		s.instances[name] = in
		if in.tables, in.err = s.Open(name); in.err == nil {
			in.planner = s.planner(s.run, in.tables, name)
		}
	}
	return in.planner, in.err
}

// list lists an instance's tables, once per tick.
func (s *ticking) list(ctx context.Context, name string) ([]string, error) {
	_, err := s.instance(name)
	in := s.instances[name]
	if err == nil && in.names == nil {
		in.names, in.err = in.tables.Tables(ctx)
		if in.names == nil {
			in.names = []string{}
		}
	}
	return in.names, in.err
}

// open reads from the names of all backups how far the rules have come, and looks at
// those that have not ended.
func (s *ticking) open(ctx context.Context) error {
	marks, err := s.Repo.Marks(ctx, nil)
	if err != nil {
		return err
	}
	// What is being deleted was begun once, and nothing is to be done about it.
	for b := range marks {
		s.ruleOf(b)
	}
	var open []toCopy
	for b, err := range s.Repo.Begun(ctx, nil) {
		if err != nil {
			return err
		}
		if n := len(s.known); n == 0 || s.known[n-1] != b.Table {
			s.known = append(s.known, b.Table)
		}
		of := s.ruleOf(b.Backup)
		if _, marked := marks[b.Backup]; marked {
			continue
		}
		if b.ID.Ahead(s.now) {
			s.report("", b.Table.String(), "backup %s is named by an instant that is still to come: it counts neither for what is due nor for copies; look at who sends the planner events",
				b.ID)
		}
		switch {
		case !b.Ended:
			open = append(open, toCopy{b.Backup, of})
		case of != nil:
			s.toCopy = append(s.toCopy, toCopy{b.Backup, of})
		}
	}
	for i, b := range open {
		if s.run.Stopping() {
			s.report("", "", "time is up: the next tick looks at %d backups that are open", len(open)-i)
			break
		}
		if s.look(ctx, b.Backup, b.rule, false, len(open)-i-1) && b.rule != nil {
			s.toCopy = append(s.toCopy, b)
		}
	}
	return nil
}

// ruleOf is the rule that has made a backup, nil if none has, and remembers how far the
// rule has come. No rule has made one for an instant that is still to come.
func (s *ticking) ruleOf(b vault.Backup) (of *policy.Rule) {
	if b.ID.Ahead(s.now) {
		return nil
	}
	for _, r := range s.Policy.Rules {
		if !r.Made(s.Region, b) {
			continue
		}
		of = r
		if at := (position{r.Name, b.Table}); b.ID.Time().After(s.last[at]) {
			s.last[at] = b.ID.Time()
		}
	}
	return of
}

// look surveys a backup and remembers what it found; so many others are to be looked at
// after it. It says whether the backup is sealed.
func (s *ticking) look(ctx context.Context, b vault.Backup, of *policy.Rule, begun bool, others int) (sealed bool) {
	looked := Backup{Backup: b.ID, Table: b.Table.String(), Begun: begun}
	if of != nil {
		looked.Rule = of.Name
	}
	found, late, err := s.survey(ctx, b, others)
	if errors.Is(err, fs.ErrNotExist) && !begun {
		// Whoever marked it died before it planned. Its rule plans it anew, under
		// the same name, as long as it is the newest.
		if of != nil && !s.last[position{of.Name, b.Table}].After(b.ID.Time()) {
			delete(s.last, position{of.Name, b.Table})
		}
		return false
	}
	if late {
		s.late = append(s.late, len(s.surveys))
	}
	looked.Progress = found.Progress
	s.reply.Live += found.Live
	s.reply.Backups = append(s.reply.Backups, looked)
	s.surveys = append(s.surveys, found)
	if err != nil {
		s.report(looked.Rule, looked.Table, "backup %s can't be looked at: %v", b.ID, err)
	}
	if of != nil {
		switch at := (position{of.Name, b.Table}); looked.State {
		case backup.StateFailed:
			s.failed[at] = found
		case backup.StateRunning:
			s.running[at] = found
		}
	}
	return looked.State == backup.StateSealed
}

// survey looks at a backup for no longer than its share of the tick. What it returns has
// a state also beside an error: a backup that may be looked at better by the next tick
// runs, one that can't be is failed.
func (s *ticking) survey(ctx context.Context, b vault.Backup, others int) (found *backup.Survey, late bool, err error) {
	sctx, cancel := s.share(ctx, others)
	defer cancel()
	begin := s.run.Now()
	err = guard.Do(func() error {
		p, err := s.instance(b.Table.Instance)
		if err == nil {
			found, err = p.Survey(sctx, s.run, b)
		}
		return err
	})
	if found == nil {
		found = &backup.Survey{Backup: b}
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return found, false, err
	}
	// One backup that can't go on must not keep the others from it.
	args := []any{"backup", b.ID, "table", b.Table.String(), "error", err}
	var bug *guard.Panic
	found.Progress.State = backup.StateRunning
	switch {
	case errors.As(err, &bug):
		args = append(args, "stack", string(bug.Stack))
		found.Progress.State = backup.StateFailed
	case sctx.Err() != nil && ctx.Err() == nil:
		late = true
		err = fmt.Errorf("it takes longer than its share of this tick, %s: %w", s.run.Now().Sub(begin).Round(time.Millisecond), err)
	case fanout.Permanent(err):
		found.Progress.State = backup.StateFailed
	}
	s.Log.Error("look at a backup", args...)
	found.Progress.LastError = err.Error()
	return found, late, err
}

// again looks once more, with what time is left, at the backups that took longer than
// their share, when all others have had theirs: one that is large needs it.
func (s *ticking) again(ctx context.Context) {
	for k, i := range s.late {
		if s.run.Stopping() || ctx.Err() != nil {
			return
		}
		before := s.surveys[i]
		found, _, err := s.survey(ctx, before.Backup, len(s.late)-k-1)
		if err != nil {
			s.report(s.reply.Backups[i].Rule, s.reply.Backups[i].Table, "backup %s can't be looked at: %v", before.Backup.ID, err)
			continue
		}
		s.reply.Live += found.Live - before.Live
		s.surveys[i], s.reply.Backups[i].Progress = found, found.Progress
	}
}

// rule begins what is due under a rule.
func (s *ticking) rule(ctx context.Context, r *policy.Rule) error {
	due := r.Every.Due(s.reply.At)
	if due.IsZero() {
		return nil
	}
	for _, instance := range r.Instances() {
		names, err := s.list(ctx, instance)
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			s.report(r.Name, instance, "the tables of instance %s can't be listed: %v", instance, err)
			continue
		}
		for _, name := range names {
			if !r.Match(instance, name) {
				continue
			}
			if s.run.Stopping() {
				s.report(r.Name, "", "time is up: the next tick begins what is left")
				return nil
			}
			if err := s.table(ctx, r, vault.TableID{Region: s.Region, Instance: instance, Table: name}, due); err != nil {
				return err
			}
		}
		s.gone(ctx, r, instance, names)
	}
	return nil
}

// table begins the backup of a table that is due, unless it, or a later one, has been
// begun, or one before it still runs.
func (s *ticking) table(ctx context.Context, r *policy.Rule, t vault.TableID, due time.Time) error {
	at := position{r.Name, t}
	last, any := s.last[at]
	if any && !last.Before(due) {
		return nil
	}
	if running := s.running[at]; running != nil {
		s.report(r.Name, t.String(), "the backup of %s is due, and %s, begun for %s, still runs: it is made after that; a longer interval or more workers help",
			due.Format(time.RFC3339), running.Backup.ID, last.Format(time.RFC3339))
		return nil
	}
	if missed := s.missed(r, last, due); any && missed > 0 {
		s.report(r.Name, t.String(), "%d backups were due since %s and not begun: the one of %s makes up for them", missed, last.Format(time.RFC3339), due.Format(time.RFC3339))
	}
	plan, err := s.plan(ctx, backup.PlanRequest{Table: t, Kind: r.Kind, At: due, Trigger: r.Trigger(), New: true, Settings: r.Settings})
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		s.report(r.Name, t.String(), "the backup of %s can't be planned: %v", due.Format(time.RFC3339), err)
		return nil
	}
	if failed := s.failed[at]; failed != nil {
		s.void(ctx, failed, fmt.Sprintf("it could not go on (%s), and backup %s has been begun since", failed.Progress.LastError, plan.Backup))
	}
	s.look(ctx, vault.Backup{Table: t, ID: plan.Backup}, r, true, 0)
	return nil
}

// plan plans a backup in no more than its share of the tick.
func (s *ticking) plan(ctx context.Context, req backup.PlanRequest) (plan *vault.Plan, err error) {
	ctx, cancel := s.share(ctx, 0)
	defer cancel()
	err = guard.Do(func() error {
		p, err := s.instance(req.Table.Instance)
		if err == nil {
			plan, err = p.Plan(ctx, req)
		}
		return err
	})
	return plan, err
}

// missed counts the instants of a rule between two.
func (s *ticking) missed(r *policy.Rule, last, due time.Time) int {
	n := 0
	for at := r.Every.Next(last); at.Before(due) && n < 1000; at = r.Every.Next(at) {
		n++
	}
	return n
}

// gone reports the tables that a rule has backups of, and that are not there any more, as
// well as those that the rule names and that never were.
func (s *ticking) gone(ctx context.Context, r *policy.Rule, instance string, names []string) {
	for _, t := range s.known {
		at := position{r.Name, t}
		last, any := s.last[at]
		if !any || t.Instance != instance || slices.Contains(names, t.Table) {
			continue
		}
		s.report(r.Name, t.String(), "the table is gone; its backups stay, the newest is of %s", last.Format(time.RFC3339))
		if failed := s.failed[at]; failed != nil {
			s.void(ctx, failed, fmt.Sprintf("the table is gone, and it could not go on (%s)", failed.Progress.LastError))
		}
	}
	for _, p := range r.Tables {
		if p.Literal() && !p.Not && p.Instance == instance && !slices.Contains(names, p.Table) {
			if _, any := s.last[position{r.Name, vault.TableID{Region: s.Region, Instance: instance, Table: p.Table}}]; !any {
				s.report(r.Name, p.String(), "there is no such table")
			}
		}
	}
}

// void gives up a backup that a rule has begun and that can't go on.
func (s *ticking) void(ctx context.Context, failed *backup.Survey, reason string) {
	p, err := s.instance(failed.Backup.Table.Instance)
	if err == nil {
		_, err = p.Void(ctx, failed.Backup, reason)
	}
	if err != nil {
		s.report("", failed.Backup.Table.String(), "backup %s can't be given up: %v", failed.Backup.ID, err)
		return
	}
	failed.Ready = nil
	s.report("", failed.Backup.Table.String(), "backup %s is given up: %s", failed.Backup.ID, reason)
}

// start spreads the workers that may be started over the backups: each gets an equal
// share, and what one does not need goes on to those after it.
func (s *ticking) start(ctx context.Context) error {
	room := max(0, s.reply.Most-s.reply.Live)
	for i, found := range s.surveys {
		left := len(s.surveys) - i
		p, err := s.instance(found.Backup.Table.Instance)
		if err != nil || len(found.Ready) == 0 {
			continue
		}
		progress, err := p.Start(ctx, found, (room+left-1)/left)
		room -= found.Submitted
		s.reply.Dispatched += found.Submitted
		looked := &s.reply.Backups[i]
		looked.Progress = progress
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			// What was not dispatched is, by the next tick.
			s.Log.Error("dispatch", "backup", looked.Backup, "table", looked.Table, "error", err)
			looked.LastError = err.Error()
		}
	}
	// Workers that nothing waits for could help those that lag behind.
	for i, found := range s.surveys {
		p, err := s.instance(found.Backup.Table.Instance)
		if err != nil || room == 0 {
			continue
		}
		asked, err := p.Ask(ctx, s.run, found, room)
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			s.Log.Error("ask for splits", "backup", found.Backup.ID, "error", err)
		}
		room -= asked
		s.reply.Backups[i].Asked = found.Progress.Asked
	}
	return nil
}

// restores hands the restores that have not ended, and the requests that are not
// answered, to the function that restores.
func (s *ticking) restores(ctx context.Context) error {
	// Where the requests can't be told, restores go on all the same.
	requests, driven, asked := s.requests(ctx)
	for id, err := range s.Repo.Restoring(ctx) {
		if err != nil {
			return errors.Join(asked, err)
		}
		s.reply.Restores++
		if !driven[id] {
			s.hand(ctx, fanout.Work{Verb: fanout.VerbRestore, Restore: id}, "restore "+string(id))
		}
	}
	for _, request := range requests {
		s.hand(ctx, fanout.Work{Verb: fanout.VerbRestore, Request: request}, "request "+request)
	}
	return errors.Join(asked, ctx.Err())
}

// maxRequests bounds how many requests a tick hands on. Those that mean nothing are
// answered, and then there are fewer.
const maxRequests = 100

// requests are those that are not answered, as many as a tick hands on, and the restores
// that they drive. They are what others write: however many there are, and whatever they
// say, finding out takes no more than its share of the tick.
func (s *ticking) requests(ctx context.Context) (open []string, driven map[vault.RestoreID]bool, err error) {
	ctx, cancel := s.share(ctx, 0)
	defer cancel()
	if open, err = s.Repo.Unanswered(ctx); err != nil {
		return nil, nil, err
	}
	s.reply.Requests = len(open)
	if len(open) > maxRequests {
		s.report("", "", "%d requests are not answered: each tick hands %d on", len(open), maxRequests)
		// Each tick goes on elsewhere, so that those in front keep none from its turn:
		// its own time is greater than that of the one before, whatever their events
		// tell.
		at := int(s.now.Unix() / tickSeconds * maxRequests % int64(len(open)))
		open = slices.Concat(open[at:], open[:at])[:maxRequests]
	}
	driven = map[vault.RestoreID]bool{}
	for _, request := range open {
		id, err := s.Repo.RestoreOf(ctx, request)
		switch {
		case ctx.Err() != nil:
			return open, driven, err
		case err != nil:
			s.report("", "", "the note about request %s can't be read: %v", request, err)
		case id != "":
			driven[id] = true
		}
	}
	return open, driven, nil
}

// tickSeconds is about how far ticks are apart.
const tickSeconds = int64(policy.MinInterval / time.Second)

// hand hands work on. That it can't be is reported, and the next tick does. The tick's
// instant tells its tasks from those of another: two deliveries of one tick make one
// task.
func (s *ticking) hand(ctx context.Context, work fanout.Work, what string) {
	if s.run.Stopping() || ctx.Err() != nil {
		return
	}
	work.Start = int(s.reply.At.UnixNano())
	if err := s.Work.Submit(ctx, work); err != nil {
		s.report("", "", "%s can't be handed on: %v", what, err)
	}
}
