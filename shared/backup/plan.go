// Package backup makes backups: it plans them, exports the segments, splits those
// that lag behind, and seals what is whole.
//
// Every step may run twice, at the same time, late, or die at any byte; the
// outcome is the same backup or a clear error. Steps meet in the vault alone: a
// segment's slots, a group's roll-up and the manifest are names that one writer
// wins, and whoever loses obeys what stands there.
//
// They reach the world through ports: [table.Instance] for Tablestore, an
// object.Store for the vault, [fanout.Dispatcher] for the functions that work.
package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tablevault/tablevault/shared/backup/coverage"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// Planner plans backups and drives them to their manifests.
type Planner struct {
	Repo *repository.Repository
	// Tables is the instance that the table is in, Endpoint its address.
	Tables   table.Instance
	Endpoint string
	Work     fanout.Dispatcher
	Log      *slog.Logger
	Now      func() time.Time
	// Stale is the age at which a start without a result counts as dead even
	// though the platform might let it run on; zero leaves it to the platform's
	// time limit. Work that is done twice is done once in effect.
	Stale time.Duration
	// Since is when a person gave the command anew: segments that failed for good
	// before it are tried again.
	Since time.Time
	// Workers is how many segments may be worked on at a time, 0 for any number.
	Workers int
	// Slow is the age below which no segment is asked to split, 0 for DefaultSlow.
	Slow time.Duration

	// watching keeps it from writing anything.
	watching bool
}

// The defaults of a plan's settings.
const (
	DefaultSegmentBytes = 512 << 20
	DefaultLanes        = 8
	DefaultPartBytes    = 64 << 20
)

// MinSegmentBytes is the least size that the service cuts tables by.
const MinSegmentBytes = 1 << 20

// MaxSegments bounds a plan, whose document is read whole.
const MaxSegments = 100_000

// PlanRequest says what is to be backed up and what asked for it.
type PlanRequest struct {
	Table vault.TableID
	Kind  vault.Kind
	// At and Trigger make the backup's id: two deliveries of one trigger make
	// one backup.
	At      time.Time
	Trigger string
	// Undated says that At is only when the trigger was heard of: a backup that it
	// has begun before, when it was heard of first, is the one.
	Undated bool
	// New begins a backup even if one of the same table, kind and settings is
	// open.
	New      bool
	Settings vault.Settings
}

func settle(s vault.Settings) (vault.Settings, error) {
	if s.SegmentBytes == 0 {
		s.SegmentBytes = DefaultSegmentBytes
	}
	if s.Lanes == 0 {
		s.Lanes = DefaultLanes
	}
	if s.PartBytes == 0 {
		s.PartBytes = DefaultPartBytes
	}
	switch {
	case s.Lanes < 1 || s.Lanes > vault.MaxLanes:
		return s, fmt.Errorf("settings: lanes is %d: want 1 to %d", s.Lanes, vault.MaxLanes)
	case s.SegmentBytes < MinSegmentBytes:
		return s, fmt.Errorf("settings: segment_bytes is %d: want at least %d", s.SegmentBytes, MinSegmentBytes)
	case s.PartBytes < 1:
		return s, fmt.Errorf("settings: part_bytes is %d: want at least 1", s.PartBytes)
	case s.ReadUnits < 0:
		return s, fmt.Errorf("settings: read_units_per_second is %g: want none or more", s.ReadUnits)
	}
	return s, nil
}

// Plan writes the plan of a backup, or finds the one that is open: the newest
// unsealed plan of the same table, kind and settings. It dispatches nothing.
func (p *Planner) Plan(ctx context.Context, req PlanRequest) (*vault.Plan, error) {
	if req.Kind != vault.Full {
		return nil, fmt.Errorf("plan %s: a backup of kind %q is not built into this version: want %q", req.Table, req.Kind, vault.Full)
	}
	settings, err := settle(req.Settings)
	if err != nil {
		return nil, fmt.Errorf("plan %s: %w", req.Table, err)
	}
	if !req.New {
		open, err := p.open(ctx, req, settings)
		if err != nil || open != nil {
			return open, err
		}
	}
	def, err := p.Tables.Describe(ctx, req.Table.Table)
	if err != nil {
		return nil, fmt.Errorf("plan %s: %w", req.Table, err)
	}
	segments, err := p.segments(ctx, def, settings)
	if err != nil {
		return nil, fmt.Errorf("plan %s: %w", req.Table, err)
	}
	b, err := p.named(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("plan %s: %w", req.Table, err)
	}
	plan := &vault.Plan{
		Backup: b.ID, Table: b.Table, Kind: req.Kind, Created: p.Now().UTC(), Trigger: req.Trigger, Command: vault.Program,
		Endpoint: p.Endpoint, Definition: def, Settings: settings,
		Encryption: vault.Encryption{Mode: "none"}, Segments: segments,
	}
	if settings.ReadUnits > 0 {
		if plan.Workers = len(segments); p.Workers > 0 {
			plan.Workers = min(plan.Workers, p.Workers)
		}
	}
	if err := p.Repo.CheckNotMarked(ctx, b); err != nil {
		return nil, fmt.Errorf("plan %s: %w", req.Table, err)
	}
	if err := p.Repo.Mark(ctx, vault.Opened(b.Table, b.ID)); err != nil {
		return nil, fmt.Errorf("plan %s: %w", req.Table, err)
	}
	mine, err := p.Repo.Win(ctx, b.Plan(), plan)
	if err != nil {
		return nil, fmt.Errorf("plan %s: %w", req.Table, err)
	}
	if mine {
		p.Log.Info("planned", "backup", b.ID, "table", b.Table.String(), "segments", len(plan.Segments))
	}
	return plan, nil
}

// heard is for how long a trigger is heard of again: the longest that an event
// waits, and a function's longest time.
const heard = 48 * time.Hour

// named is the backup that a request is for. The instant of a trigger that has not
// told it is when it was heard of, to the minute, so that deliveries beside each
// other agree; those after each other find what the first has begun.
func (p *Planner) named(ctx context.Context, req PlanRequest) (vault.Backup, error) {
	of := func(at time.Time) vault.Backup {
		return vault.Backup{Table: req.Table, ID: vault.NewBackupID(at, req.Trigger, req.Table.Path(), string(req.Kind))}
	}
	if !req.Undated {
		return of(req.At), nil
	}
	at := req.At.Truncate(time.Minute)
	for b, err := range p.Repo.Begun(ctx, &req.Table) {
		if err != nil {
			return vault.Backup{}, err
		}
		if age := req.At.Sub(b.ID.Time()); age >= 0 && age < heard && of(b.ID.Time()) == b.Backup {
			at = b.ID.Time()
		}
	}
	return of(at), nil
}

func (p *Planner) open(ctx context.Context, req PlanRequest, settings vault.Settings) (*vault.Plan, error) {
	var newest *vault.Plan
	for b, err := range p.Repo.Open(ctx, &req.Table) {
		if err != nil {
			return nil, fmt.Errorf("look for an open backup of %s: %w", req.Table, err)
		}
		plan, _, err := p.Repo.Plan(ctx, b)
		if errors.Is(err, fs.ErrNotExist) {
			continue // whoever marked it died before it planned
		}
		if err != nil && repository.Corrupt(err) {
			p.Log.Warn("an open backup can't be gone on with", "backup", b.ID, "table", b.Table.String(), "error", err)
			continue // nor does it keep another from being made
		}
		over := false
		if err == nil {
			over, err = p.Repo.Exists(ctx, b.Manifest()) // the list may be late
		}
		if err != nil {
			return nil, fmt.Errorf("look for an open backup of %s: %w", req.Table, err)
		}
		if !over && plan.Kind == req.Kind && plan.Settings == settings {
			newest = plan
		}
	}
	return newest, nil
}

// segments cuts a table into ranges of about equal size, and puts adjoining
// ranges together as the lanes of a segment.
func (p *Planner) segments(ctx context.Context, def table.Definition, s vault.Settings) ([]vault.Segment, error) {
	size := max(s.SegmentBytes/int64(s.Lanes), MinSegmentBytes)
	points, err := p.Tables.SplitPoints(ctx, def.Name, def.Schema, size)
	if err != nil && !errors.Is(err, table.ErrInvalid) {
		return nil, fmt.Errorf("split: %w", err)
	}
	if len(points) == 0 {
		// A table in which nothing was split is small, or its size is not known
		// yet, or the service does not split it. Lanes cost nothing, so cut it
		// by its keys.
		if points, err = p.sample(ctx, def, s.Lanes); err != nil && !errors.Is(err, table.ErrInvalid) {
			return nil, fmt.Errorf("split by keys: %w", err)
		}
	}
	whole := def.Schema.Whole()
	bounds := []table.Key{whole.Start}
	for _, k := range points {
		if k.Compare(bounds[len(bounds)-1]) > 0 && k.Compare(whole.End) < 0 {
			bounds = append(bounds, k)
		}
	}
	bounds = append(bounds, whole.End)
	// Split points of a table that is small beside its lanes would make many
	// short segments: spread them evenly instead.
	ranges := len(bounds) - 1
	n := (ranges + s.Lanes - 1) / s.Lanes
	if n > MaxSegments {
		return nil, fmt.Errorf("%d segments of %d bytes: want at most %d; raise segment_bytes", n, s.SegmentBytes, MaxSegments)
	}
	segments := make([]vault.Segment, n)
	for i := range segments {
		from, to := i*ranges/n, (i+1)*ranges/n
		segments[i] = vault.Segment{ID: vault.NewSegmentID(i), Bounds: bounds[from : to+1]}
	}
	return segments, nil
}

// Progress is how far a backup has come.
type Progress struct {
	// State is "running", "sealed", "void" or "failed".
	State    string       `json:"state"`
	Segments int          `json:"segments"` // those from splits included
	Done     int          `json:"done"`
	Totals   vault.Totals `json:"totals"` // of an ended backup
	// Usage is what was asked of the store for an ended backup.
	Usage object.Usage `json:"usage,omitzero"`
	// Live counts the segments that are being worked on, Dispatched those that
	// this tick started, Asked those whose workers are asked to split them.
	Live       int `json:"live"`
	Dispatched int `json:"dispatched"`
	Asked      int `json:"asked,omitempty"`
	// Starts is the greatest number of starts that an open segment has had, of
	// at most MaxStarts: one for each continuation, and for each that died.
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

// Tick looks at a backup and does what is due: it dispatches the segments that
// nobody works on, rolls up the groups that are complete, and seals. It may
// run at any time, twice, and beside itself.
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
	// lagging are the live segments that are far behind their siblings, the
	// slowest first.
	lagging []lagging
}

type lagging struct {
	segment vault.SegmentID
	age     time.Duration
}

// room is how many of n workers the backup may still be given: where there is a
// budget of read units, no more than it was divided over.
func (s *Survey) room(n int) int {
	if s.plan != nil && s.plan.Workers > 0 {
		n = min(n, s.plan.Workers-s.Live-s.Submitted)
	}
	return max(0, n)
}

// Survey looks at a backup, rolls up what is complete and seals; it starts
// nothing. Its cost is a list of the roll-ups; for each group that is not rolled
// up three lists, four if it has live segments, and two reads for each of these.
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
	if s.rolled, err = p.rolledUp(ctx, b); err != nil {
		return s, what(err)
	}
	groups := make([]*groupLook, plan.Groups())
	looks, lctx := guard.WithContext(ctx)
	looks.SetLimit(fanout.LooksInFlight)
	var rollUps sync.Mutex // each reads many logs at a time
	for g := range groups {
		look := &groupLook{Dispatch: p.dispatch(b), number: g, slow: cmp.Or(p.Slow, DefaultSlow)}
		look.roots = plan.Segments[g*vault.GroupSize : min((g+1)*vault.GroupSize, len(plan.Segments))]
		groups[g] = look
		if s.rolled[g] {
			look.over, look.segments, look.done = true, len(look.roots), len(look.roots)
			continue
		}
		looks.Go(func() error { return p.group(lctx, run, look, b, plan, &rollUps) })
	}
	if err := looks.Wait(); err != nil {
		return s, what(err)
	}
	complete := true
	for _, look := range groups {
		complete = complete && look.over
		s.Progress.Segments += look.segments
		s.Progress.Done += look.done
		s.lagging = append(s.lagging, look.lagging...)
		s.Dispatch.Add(&look.Dispatch)
	}
	slices.SortStableFunc(s.lagging, func(a, b lagging) int { return cmp.Compare(b.age, a.age) })
	s.Progress.Live, s.Progress.Starts, s.Progress.Pace = s.Live, s.Starts, s.Pace
	s.Progress.Silent = s.Silent
	if s.Progress.LastError = s.Failure; s.Over {
		s.Progress.State = StateFailed
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

// another says why a backup that was read to its end is not one of the table that was
// planned: the table was dropped meanwhile, and another one made of its name, so that a
// part of it may be of each. Where the table is gone, nothing speaks against what was
// read; nor does it where nobody has answered for a day.
func (p *Planner) another(ctx context.Context, plan *vault.Plan) (string, error) {
	planned := plan.Definition.Identity
	def, err := p.Tables.Describe(ctx, plan.Table.Table)
	switch {
	case err != nil && !errors.Is(err, table.ErrNotExist) && p.Now().Sub(plan.Created) < askFor:
		return "", err
	case err != nil:
		p.Log.Warn("sealed without another look at the table", "backup", plan.Backup, "table", plan.Table.String(), "error", err)
	case def.Identity.Other(planned):
		return fmt.Sprintf("%s was dropped while it was read, and another table made of its name: that one is %s, the one that was planned %s; "+
			"the backup may have rows of both and is not sealed: give the command again with --new", plan.Table, def.Identity, planned), nil
	}
	return "", nil
}

// askFor is for how long a backup that was read waits for an answer about its table.
const askFor = 24 * time.Hour

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

// Ask asks the workers of segments that lag behind to split them, if everything
// else has a worker and n could be started beside those that live. It returns for
// how many of them it found work.
func (p *Planner) Ask(ctx context.Context, run fanout.Run, s *Survey, n int) (used int, err error) {
	n = s.room(n)
	if len(s.Ready) > 0 {
		return 0, nil
	}
	for i, lag := range s.lagging {
		left := n - used
		if left == 0 {
			break
		}
		share := max(1, left/(len(s.lagging)-i))
		a := vault.Ask{Segment: lag.segment, Children: min(share, maxSplit-1) + 1, At: run.Now().UTC()}
		mine, err := p.Repo.Win(ctx, s.Backup.Log().Ask(lag.segment), &a)
		if err != nil {
			return used, fmt.Errorf("backup %s of %s: ask for a split of segment %s: %w", s.Backup.ID, s.Backup.Table, lag.segment, err)
		}
		if mine {
			p.Log.Info("asked to split", "backup", s.Backup.ID, "segment", lag.segment, "age", lag.age, "children", a.Children)
			s.Progress.Asked++
			used += a.Children - 1
		}
	}
	return used, nil
}

func ended(m *vault.Manifest) Progress {
	return Progress{State: string(m.State), Segments: m.Segments, Done: m.Segments, Totals: m.Totals, Usage: m.Usage, Manifest: m, LastError: m.Reason}
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

// groupLook is what a look at one group found.
type groupLook struct {
	fanout.Dispatch
	number         int
	roots          []vault.Segment
	slow           time.Duration
	over           bool // rolled up
	segments, done int
	lagging        []lagging
}

// endMark says that a segment has ended: when, by the store's clock, and into
// how many it was split, 0 if its lanes have come to their ends.
type endMark struct {
	at       time.Time
	children int
}

// endMarks are the ended segments, as a list under a prefix shows them, which is that
// of one group or of all. A mark that stands elsewhere than a segment's own counts for
// nothing.
func endMarks(ctx context.Context, r *repository.Repository, log vault.Log, prefix string) (map[vault.SegmentID]endMark, error) {
	ends := map[vault.SegmentID]endMark{}
	for info, err := range r.Store().List(ctx, prefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list the ended segments %s: %w", prefix, err)
		}
		folder, base := path.Split(info.Name)
		if id, children, ok := vault.ParseDone(base); ok && folder == log.DoneIn(id.Group()) {
			ends[id] = endMark{info.Modified, children}
		}
	}
	return ends, nil
}

// group looks at one group, and rolls it up if it is complete.
func (p *Planner) group(ctx context.Context, run fanout.Run, look *groupLook, b vault.Backup, plan *vault.Plan, rollUps *sync.Mutex) error {
	ends, err := endMarks(ctx, p.Repo, b.Log(), b.Log().DoneIn(look.number))
	if err != nil {
		return err
	}
	var open []vault.SegmentID
	var walk func(vault.SegmentID)
	walk = func(id vault.SegmentID) {
		look.segments++
		end, ended := ends[id]
		if !ended {
			open = append(open, id)
			return
		}
		look.done++
		for i := range end.children {
			walk(id.Child(i))
		}
	}
	for _, root := range look.roots {
		walk(root.ID)
	}
	if len(open) == 0 && (run.Stopping() || p.watching) {
		return nil // the next tick rolls it up
	}
	if len(open) == 0 {
		// The list of roll-ups may have been late, and a roll-up costs a read per
		// record.
		over, err := p.Repo.Exists(ctx, b.Group(look.number))
		if err != nil || over {
			look.over = over
			return err
		}
		rollUps.Lock()
		defer rollUps.Unlock()
		group, unfinished, err := rollUp(ctx, p.Repo, b, look.roots, look.number)
		if err != nil {
			return err
		}
		if len(unfinished) > 0 {
			return fmt.Errorf("%w: segment %s is marked as ended, and its log has not", vault.ErrCorrupt, unfinished[0].ID)
		}
		_, err = p.Repo.Win(ctx, b.Group(look.number), group)
		look.over = err == nil
		return err
	}
	if err := look.Look(ctx, run, look.number, open); err != nil {
		return err
	}
	if err := p.splitsStand(ctx, run, look, b, plan, ends); err != nil {
		return err
	}
	look.lag(run, ends)
	return look.Paces(ctx, look.number, func(ctx context.Context, name string) (*vault.Pace, error) {
		var slot vault.Slot
		if _, err := p.Repo.Read(ctx, name, &slot); err != nil || slot.Part == nil {
			return nil, err
		}
		return slot.Part.Pace, nil
	})
}

// childrenBegin is how long after a segment's split some child of it has begun, or the
// log is looked at: a worker that has split goes on with the first child at once.
const childrenBegin = 10 * time.Minute

// splitsStand holds marks of splits against the logs, where no child has begun long
// after: a mark that no log bears out names children that no worker finds, and the
// backup would wait for them for ever.
func (p *Planner) splitsStand(ctx context.Context, run fanout.Run, look *groupLook, b vault.Backup, plan *vault.Plan, ends map[vault.SegmentID]endMark) error {
	for id, end := range ends {
		if end.children == 0 || run.Now().Sub(end.at) < childrenBegin {
			continue
		}
		begun := false
		for i := range end.children {
			_, working := look.Begun[id.Child(i)]
			_, ended := ends[id.Child(i)]
			begun = begun || working || ended
		}
		if begun {
			continue
		}
		s, err := coverage.FindSegment(ctx, p.Repo, plan, b.Log(), id)
		if err != nil {
			return err
		}
		l, err := coverage.ReadLog(ctx, p.Repo, b.Log(), s)
		if err != nil {
			return err
		}
		if l.Split == nil || len(l.Split.Children) != end.children {
			return fmt.Errorf("%w: segment %s is marked as split into %d, and its log is not", vault.ErrCorrupt, id, end.children)
		}
	}
	return nil
}

// The planner's idea of a segment that lags behind.
const (
	// DefaultSlow is the least age of a segment that is asked to split: below it,
	// splitting costs more than it brings.
	DefaultSlow = time.Minute
	// lagFactor is how many times as long as the median of its ended siblings it
	// has been at work.
	lagFactor = 1.5
	// maxSplit is how many segments one is split into, maxGenerations how often
	// what came from a split is split again.
	maxSplit       = 16
	maxGenerations = 8
)

// lag finds the live segments that are far slower than their siblings were, once
// half of the group has ended. Ages are by the store's dates as far as they go.
func (l *groupLook) lag(run fanout.Run, ends map[vault.SegmentID]endMark) {
	if 2*l.done < l.segments && l.segments > 1 {
		return
	}
	var took []time.Duration
	for id, end := range ends {
		if first, ok := l.Begun[id]; ok {
			took = append(took, end.at.Sub(first))
		}
	}
	limit := l.slow
	if len(took) > 0 {
		slices.Sort(took)
		limit = max(limit, time.Duration(lagFactor*float64(took[len(took)/2])))
	}
	for _, at := range l.Working {
		if age := run.Now().Sub(l.Begun[at.Segment]); age >= limit && at.Segment.Generation() < maxGenerations {
			l.lagging = append(l.lagging, lagging{at.Segment, age})
		}
	}
}

// Void gives a backup up: after it, none can seal it. It returns the manifest
// that stands, which is another's if the backup was sealed before.
func (p *Planner) Void(ctx context.Context, b vault.Backup, reason string) (*vault.Manifest, error) {
	plan, _, err := p.Repo.Plan(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("give up backup %s: %w", b.ID, err)
	}
	m := &vault.Manifest{Backup: b.ID, Table: b.Table, Kind: plan.Kind, State: vault.Void, Reason: reason, Sealed: p.Now().UTC()}
	if _, err := p.Repo.Win(ctx, b.Manifest(), m); err != nil {
		return nil, fmt.Errorf("give up backup %s: %w", b.ID, err)
	}
	return m, nil
}
