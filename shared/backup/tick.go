package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/vault"
)

// Progress is how far a backup has come.
type Progress struct {
	// State is "running", "sealed", "void" or "failed".
	State    string       `json:"state"`
	Segments int          `json:"segments"` // those from splits included
	Done     int          `json:"done"`
	Totals   vault.Totals `json:"totals"` // of an ended backup
	// Usage is what was asked of the store for an ended backup.
	Usage object.Usage `json:"usage,omitzero"`
	// Live counts the segments that are being worked on, Dispatched those that this tick
	// started, Asked those whose workers are asked to split them.
	Live       int `json:"live"`
	Dispatched int `json:"dispatched"`
	Asked      int `json:"asked,omitempty"`
	// Starts is the greatest number of starts that an open segment has had, of at most
	// MaxStarts: one for each continuation, and for each that died.
	Starts int `json:"starts,omitempty"`
	// Pace says what holds the live workers back, nil if nothing does.
	Pace *fanout.Pace `json:"pace,omitempty"`
	// Silent says which of the live workers nothing was heard of for a while.
	Silent    string          `json:"silent,omitempty"`
	Manifest  *vault.Manifest `json:"manifest,omitempty"`
	LastError string          `json:"last_error,omitempty"`
	// Since is the planner's, for the ticks that follow a person's command.
	Since time.Time `json:"since,omitzero"`
}

// The states of a backup's progress.
const (
	StateRunning = "running"
	StateSealed  = "sealed"
	StateVoid    = "void"
	StateFailed  = "failed"
)

// Tick looks at a backup and does what is due: it dispatches the segments that nobody
// works on, rolls up the groups that are complete, and seals. It may run at any time,
// twice, and beside itself.
func (p *Planner) Tick(ctx context.Context, run fanout.Run, b vault.Backup) (Progress, error) {
	s, err := p.Survey(ctx, run, b)
	if err != nil {
		return s.Progress, err
	}
	room := math.MaxInt
	if p.Workers > 0 {
		room = max(0, p.Workers-s.Live)
	}
	progress, err := p.Start(ctx, s, room)
	if err != nil {
		return progress, err
	}
	_, err = p.Ask(ctx, run, s, room-s.Submitted)
	return s.Progress, err
}

// Survey is what a look at a backup found.
type Survey struct {
	Backup   vault.Backup
	plan     *vault.Plan // nil if the backup has ended
	Progress Progress
	rolled   map[int]bool // the groups that are rolled up
	fanout.Dispatch
	// lagging are the live segments that are far behind their siblings, the slowest
	// first.
	lagging []lagging
}

// room is how many of n workers the backup may still be given: where there is a budget of
// read units, no more than it was divided over.
func (s *Survey) room(n int) int {
	if s.plan != nil && s.plan.Workers > 0 {
		n = min(n, s.plan.Workers-s.Live-s.Submitted)
	}
	return max(0, n)
}

// Survey looks at a backup, rolls up what is complete and seals; it starts nothing. Its
// cost is a list of the roll-ups; for each group that is not rolled up three lists, four
// if it has live segments, and two reads for each of these.
func (p *Planner) Survey(ctx context.Context, run fanout.Run, b vault.Backup) (*Survey, error) {
	s := &Survey{Backup: b, Dispatch: p.dispatch(b)}
	p.Repo.TakeUsage() // what was asked before is not about this backup alone
	what := func(err error) error { return fmt.Errorf("backup %s of %s: %w", b.ID, b.Table, err) }
	m, _, err := p.Repo.Manifest(ctx, b)
	if err == nil {
		s.Progress = ended(m)
		return s, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return s, what(err)
	}
	// Its manifest may be gone because all of it goes.
	if err := p.Repo.CheckNotMarked(ctx, b); err != nil {
		return s, what(err)
	}
	plan, planObject, err := p.Repo.Plan(ctx, b)
	if err != nil {
		return s, err
	}
	s.plan, s.Progress = plan, Progress{State: StateRunning, Since: p.Since}
	complete, err := s.groups(ctx, p, run)
	if err != nil {
		return s, what(err)
	}
	if !complete || p.watching {
		return s, nil
	}
	if s.Progress.LastError, err = p.another(ctx, plan); err != nil {
		return s, what(err)
	}
	if s.Progress.LastError != "" {
		s.Progress.State = StateFailed
		return s, nil
	}
	if m, err = sealBackup(ctx, p.Repo, b, plan, planObject, p.Now()); err != nil {
		return s, fmt.Errorf("seal backup %s of %s: %w", b.ID, b.Table, err)
	}
	p.Log.Info("sealed", "backup", b.ID, "table", b.Table.String(), "rows", m.Totals.Rows, "stored_bytes", m.Totals.StoredBytes)
	s.Progress = ended(m)
	return s, nil
}

// groups looks at the groups of the plan, several at a time, and says whether all are
// rolled up.
func (s *Survey) groups(ctx context.Context, p *Planner, run fanout.Run) (complete bool, err error) {
	if s.rolled, err = p.rolledUp(ctx, s.Backup); err != nil {
		return false, err
	}
	groups := make([]*groupLook, s.plan.Groups())
	looks, lctx := guard.WithContext(ctx)
	looks.SetLimit(fanout.LooksInFlight)
	var rollUps sync.Mutex // each reads many logs at a time
	for g := range groups {
		look := &groupLook{planner: p, run: run, backup: s.Backup, plan: s.plan, rollUps: &rollUps, number: g, dispatch: p.dispatch(s.Backup)}
		look.roots = s.plan.Segments[g*vault.GroupSize : min((g+1)*vault.GroupSize, len(s.plan.Segments))]
		groups[g] = look
		if s.rolled[g] {
			look.over, look.segments, look.done = true, len(look.roots), len(look.roots)
			continue
		}
		looks.Go(func() error { return look.look(lctx) })
	}
	if err := looks.Wait(); err != nil {
		return false, err
	}
	complete = true
	for _, look := range groups {
		complete = complete && look.over
		s.Progress.Segments += look.segments
		s.Progress.Done += look.done
		s.lagging = append(s.lagging, look.lagging...)
		s.Dispatch.Add(&look.dispatch)
	}
	slices.SortStableFunc(s.lagging, func(a, b lagging) int { return cmp.Compare(b.age, a.age) })
	s.Progress.Live, s.Progress.Starts, s.Progress.Pace = s.Live, s.Starts, s.Pace
	s.Progress.Silent = s.Silent
	if s.Progress.LastError = s.Failure; s.Over {
		s.Progress.State = StateFailed
	}
	return complete, nil
}

func (p *Planner) dispatch(b vault.Backup) fanout.Dispatch {
	return fanout.Dispatch{Log: fanout.NewLog(p.Repo, b.Log()), Stale: p.Stale, Since: p.Since, Most: p.Workers}
}

// Start dispatches at most n of the segments that nobody works on.
func (p *Planner) Start(ctx context.Context, s *Survey, n int) (Progress, error) {
	err := s.Submit(ctx, p.Work, s.room(n), func(id vault.SegmentID, start int) fanout.Work {
		return fanout.Work{Verb: fanout.VerbExport, Table: s.Backup.Table, Backup: s.Backup.ID, Segment: id, Start: start, ReadUnits: s.plan.Share()}
	})
	s.Progress.Dispatched = s.Submitted
	if err != nil {
		err = fmt.Errorf("backup %s of %s: %w", s.Backup.ID, s.Backup.Table, err)
	}
	return s.Progress, err
}

// rolledUp are the groups that a list shows as rolled up.
func (p *Planner) rolledUp(ctx context.Context, b vault.Backup) (map[int]bool, error) {
	rolled := map[int]bool{}
	for info, err := range p.Repo.Store().List(ctx, b.Groups(), "") {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", b.Groups(), err)
		}
		if g, err := strconv.Atoi(strings.TrimSuffix(path.Base(info.Name), ".json")); err == nil {
			rolled[g] = true
		}
	}
	return rolled, nil
}

func ended(m *vault.Manifest) Progress {
	return Progress{State: string(m.State), Segments: m.Segments, Done: m.Segments, Totals: m.Totals, Usage: m.Usage, Manifest: m, LastError: m.Reason}
}
