// Package backup makes backups: it plans them, exports the segments, splits those that
// lag behind, and seals what is whole.
//
// Every step may run twice, at the same time, late, or die at any byte; the outcome is
// the same backup or a clear error. Steps meet in the vault alone: a segment's slots, a
// group's roll-up and the manifest are names that one writer wins, and whoever loses
// obeys what stands there.
//
// They reach the world through ports: [table.Instance] for Tablestore, an object.Store
// for the vault, [fanout.Dispatcher] for the functions that work.
package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
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
	// Stale is the age at which a start without a result counts as dead even though the
	// platform might let it run on; zero leaves it to the platform's time limit. Work
	// that is done twice is done once in effect.
	Stale time.Duration
	// Since is when a person gave the command anew: segments that failed for good before
	// it are tried again.
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
	// At and Trigger make the backup's id: two deliveries of one trigger make one backup.
	At      time.Time
	Trigger string
	// Undated says that At is only when the trigger was heard of: a backup that it has
	// begun before, when it was heard of first, is the one.
	Undated bool
	// New begins a backup even if one of the same table, kind and settings is open.
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

// Plan writes the plan of a backup, or finds the one that is open: the newest unsealed
// plan of the same table, kind and settings. It dispatches nothing.
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

// heard is for how long a trigger is heard of again: the longest that an event waits, and
// a function's longest time.
const heard = 48 * time.Hour

// named is the backup that a request is for. The instant of a trigger that has not told
// it is when it was heard of, to the minute, so that deliveries beside each other agree;
// those after each other find what the first has begun.
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

// segments cuts a table into ranges of about equal size, and puts adjoining ranges
// together as the lanes of a segment.
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
