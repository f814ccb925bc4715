package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// Planner plans backups and drives them to their manifests.
type Planner struct {
	Repo *Repository
	// Tables is the instance that the table is in, Endpoint its address.
	Tables   Tables
	Endpoint string
	Work     Dispatcher
	Log      *slog.Logger
	Now      func() time.Time
	// Stale is the age at which a start without a result counts as dead even
	// though the platform might let it run on; zero leaves it to the platform's
	// time limit. Work that is done twice is done once in effect.
	Stale time.Duration
	// Workers is how many segments may be worked on at a time, 0 for any number.
	Workers int
}

// The defaults of a plan's settings.
const (
	DefaultSegmentBytes = 512 << 20
	DefaultLanes        = 8
	DefaultPartBytes    = 64 << 20
)

// minSplit is the least size that the service cuts tables by.
const minSplit = 1 << 20

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
	case s.SegmentBytes < minSplit:
		return s, fmt.Errorf("settings: segment_bytes is %d: want at least %d", s.SegmentBytes, minSplit)
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
	b := vault.Backup{Table: req.Table, ID: vault.NewBackupID(req.At, req.Trigger, req.Table.Path(), string(req.Kind))}
	plan := &vault.Plan{
		Backup: b.ID, Table: b.Table, Kind: req.Kind, Created: p.Now().UTC(), Trigger: req.Trigger, Command: Version,
		Endpoint: p.Endpoint, Definition: def, Settings: settings,
		Encryption: vault.Encryption{Mode: "none"}, Segments: segments,
	}
	if err := p.Repo.mark(ctx, vault.Opened(b.Table, b.ID)); err != nil {
		return nil, fmt.Errorf("plan %s: %w", req.Table, err)
	}
	mine, err := p.Repo.decide(ctx, b.Plan(), plan)
	if err != nil {
		return nil, fmt.Errorf("plan %s: %w", req.Table, err)
	}
	if mine {
		p.Log.Info("planned", "backup", b.ID, "table", b.Table.String(), "segments", len(plan.Segments))
	}
	return plan, nil
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
		over := false
		if err == nil {
			over, err = p.Repo.exists(ctx, b.Manifest()) // the list may be late
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
	size := max(s.SegmentBytes/int64(s.Lanes), minSplit)
	points, err := p.Tables.SplitPoints(ctx, def.Name, def.Schema, size)
	if err != nil && !errors.Is(err, table.ErrInvalid) {
		return nil, fmt.Errorf("split: %w", err)
	}
	if len(points) == 0 {
		// A table in which nothing was split is small, or its size is not known
		// yet, or the service does not split it. Lanes cost nothing, so cut it
		// by its keys.
		if points, err = p.sample(ctx, def, s.Lanes); err != nil {
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
	Segments int          `json:"segments"`
	Done     int          `json:"done"`
	Totals   vault.Totals `json:"totals"` // of an ended backup; Watch adds up those that run
	// Live counts the segments that are being worked on, Dispatched those that
	// this tick started.
	Live       int             `json:"live"`
	Dispatched int             `json:"dispatched"`
	Manifest   *vault.Manifest `json:"manifest,omitempty"`
	LastError  string          `json:"last_error,omitempty"`
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
func (p *Planner) Tick(ctx context.Context, run Run, b vault.Backup) (Progress, error) {
	s, err := p.survey(ctx, run, b)
	if err != nil {
		return s.progress, err
	}
	return p.start(ctx, s, p.room(s.live))
}

// room is how many workers may be started beside those that live.
func (p *Planner) room(live int) int {
	if p.Workers == 0 {
		return math.MaxInt
	}
	return max(0, p.Workers-live)
}

// survey is what a look at a backup found.
type survey struct {
	backup   vault.Backup
	progress Progress
	dispatch
}

// survey looks at a backup, rolls up what is complete and seals; it starts
// nothing. Its cost is a list of the roll-ups, and for each group that is not
// rolled up three lists and a read for each segment at work.
func (p *Planner) survey(ctx context.Context, run Run, b vault.Backup) (*survey, error) {
	s := &survey{backup: b, dispatch: dispatch{Repo: p.Repo, Log: b.Log(), Stale: p.Stale, Most: p.Workers}}
	what := func(err error) error { return fmt.Errorf("backup %s of %s: %w", b.ID, b.Table, err) }
	m, _, err := p.Repo.Manifest(ctx, b)
	if err == nil {
		s.progress = ended(m)
		return s, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return s, what(err)
	}
	plan, planObject, err := p.Repo.Plan(ctx, b)
	if err != nil {
		return s, err
	}
	s.progress = Progress{State: StateRunning, Segments: len(plan.Segments)}
	s.failed = func(failure string, permanent bool) {
		s.progress.LastError = failure
		if permanent {
			s.progress.State = StateFailed
		}
	}
	rolled, err := p.rolledUp(ctx, b)
	if err != nil {
		return s, what(err)
	}
	complete := 0
	for g := range plan.Groups() {
		roots := plan.Segments[g*vault.GroupSize : min((g+1)*vault.GroupSize, len(plan.Segments))]
		over := rolled[g]
		if !over {
			if over, err = p.group(ctx, run, roots, g, s); err != nil {
				return s, what(err)
			}
		}
		if over {
			complete++
			s.progress.Done += len(roots)
		}
	}
	s.progress.Live = s.live
	if complete < plan.Groups() {
		return s, nil
	}
	if m, err = p.Repo.seal(ctx, b, plan, planObject, p.Now()); err != nil {
		return s, fmt.Errorf("seal backup %s of %s: %w", b.ID, b.Table, err)
	}
	p.Log.Info("sealed", "backup", b.ID, "table", b.Table.String(), "rows", m.Totals.Rows, "stored_bytes", m.Totals.StoredBytes)
	s.progress = ended(m)
	return s, nil
}

// start dispatches at most n of the segments that nobody works on.
func (p *Planner) start(ctx context.Context, s *survey, n int) (Progress, error) {
	err := s.submit(ctx, p.Work, n, func(id vault.SegmentID, start int) Work {
		return Work{Verb: VerbExport, Table: s.backup.Table, Backup: s.backup.ID, Segment: id, Start: start}
	})
	s.progress.Dispatched = s.submitted
	if err != nil {
		err = fmt.Errorf("backup %s of %s: %w", s.backup.ID, s.backup.Table, err)
	}
	return s.progress, err
}

func ended(m *vault.Manifest) Progress {
	return Progress{State: string(m.State), Segments: m.Segments, Done: m.Segments, Totals: m.Totals, Manifest: m, LastError: m.Reason}
}

// rolledUp are the groups that a list shows as rolled up.
func (p *Planner) rolledUp(ctx context.Context, b vault.Backup) (map[int]bool, error) {
	rolled := map[int]bool{}
	for info, err := range p.Repo.store.List(ctx, b.Groups(), "") {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", b.Groups(), err)
		}
		if g, err := strconv.Atoi(strings.TrimSuffix(path.Base(info.Name), ".json")); err == nil {
			rolled[g] = true
		}
	}
	return rolled, nil
}

// group looks at one group. It says whether the group is rolled up, which it is
// now if it is complete; if not, what is open goes into the survey.
func (p *Planner) group(ctx context.Context, run Run, roots []vault.Segment, g int, s *survey) (bool, error) {
	log := s.backup.Log()
	done := map[vault.SegmentID]bool{}
	for info, err := range p.Repo.store.List(ctx, log.DoneIn(g), "") {
		if err != nil {
			return false, fmt.Errorf("list the ended segments of group %d: %w", g, err)
		}
		done[vault.SegmentID(info.Name[len(log.DoneIn(g)):])] = true
	}
	var open []vault.Segment
	for _, root := range roots {
		if !done[root.ID] {
			open = append(open, root)
		}
	}
	if len(open) == 0 {
		// The list of roll-ups may have been late, and a roll-up costs a read per
		// record. Else only what was split off can still be open: the logs tell.
		if over, err := p.Repo.exists(ctx, s.backup.Group(g)); err != nil || over {
			return over, err
		}
		group, unfinished, err := p.Repo.rollUp(ctx, s.backup, roots, g)
		if err != nil {
			return false, err
		}
		if len(unfinished) == 0 {
			_, err := p.Repo.decide(ctx, s.backup.Group(g), group)
			return err == nil, err
		}
		s.progress.Segments += len(unfinished)
		open = unfinished
	}
	s.progress.Done += len(roots) - min(len(roots), len(open))
	return false, s.look(ctx, run, g, open)
}

// maxFailures is how often a segment may fail before only a person's command
// starts it again.
const maxFailures = 10

// dispatch finds out which segments of a backup or of a restore are to be
// started, and starts them.
type dispatch struct {
	Repo  *Repository
	Log   vault.Log
	Stale time.Duration
	// Most is how many segments are kept ready, 0 for all.
	Most int
	// failed is told what went wrong in a segment, and whether that is for good.
	failed func(reason string, permanent bool)

	live      int // segments with a live start
	ready     []ready
	submitted int
}

// ready is a segment to be started, with the number of the start.
type ready struct {
	segment vault.SegmentID
	start   int
}

// look sorts the open segments of a group. A start is live until the platform
// ends it, unless a failure says that it is over. A segment whose newest start
// failed for good is reported and, unless starts have gone stale by order of
// the caller, left alone. All others are ready.
func (d *dispatch) look(ctx context.Context, run Run, group int, open []vault.Segment) error {
	starts, err := d.Repo.notes(ctx, string(d.Log)+"starts/", group)
	if err != nil {
		return err
	}
	failures, err := d.Repo.notes(ctx, d.Log.Failures(""), group)
	if err != nil {
		return err
	}
	for _, s := range open {
		start, started := starts[s.ID]
		next := 0
		if started {
			next = start.last + 1
			if f := failures[s.ID]; f.count > 0 && f.last >= start.last {
				var note vault.Note
				if _, err := d.Repo.read(ctx, d.Log.Failure(s.ID, f.last), &note); err != nil {
					return err
				}
				over := (note.Permanent || f.count >= maxFailures) && d.Stale == 0
				d.failed(note.Error, over)
				if over {
					continue
				}
			} else {
				var note vault.Note
				if _, err := d.Repo.read(ctx, d.Log.Start(s.ID, start.last), &note); err != nil {
					return err
				}
				over := !note.Until.IsZero() && run.Now().After(note.Until)
				stale := d.Stale > 0 && run.Now().Sub(note.Began) > d.Stale
				if !over && !stale {
					d.live++
					continue
				}
			}
		}
		if d.Most == 0 || len(d.ready) < d.Most {
			d.ready = append(d.ready, ready{s.ID, next})
		}
	}
	return nil
}

// submit starts at most n of the segments that are ready.
func (d *dispatch) submit(ctx context.Context, to Dispatcher, n int, work func(vault.SegmentID, int) Work) error {
	for len(d.ready) > 0 && n > 0 {
		r := d.ready[0]
		if err := to.Submit(ctx, work(r.segment, r.start)); err != nil {
			return fmt.Errorf("dispatch segment %s: %w", r.segment, err)
		}
		d.ready = d.ready[1:]
		d.submitted++
		n--
	}
	return nil
}

// Void gives a backup up: after it, none can seal it. It returns the manifest
// that stands, which is another's if the backup was sealed before.
func (p *Planner) Void(ctx context.Context, b vault.Backup, reason string) (*vault.Manifest, error) {
	plan, _, err := p.Repo.Plan(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("give up backup %s: %w", b.ID, err)
	}
	m := &vault.Manifest{Backup: b.ID, Table: b.Table, Kind: plan.Kind, State: vault.Void, Reason: reason, Sealed: p.Now().UTC()}
	if _, err := p.Repo.decide(ctx, b.Manifest(), m); err != nil {
		return nil, fmt.Errorf("give up backup %s: %w", b.ID, err)
	}
	return m, nil
}
