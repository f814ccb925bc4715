// Package sealed reads a sealed backup and believes nothing that it reads: the manifest
// and the plan, the logs of the segments, which prove what they cover, and the rows, part
// by part as they were written or lane by lane in the order of their keys.
package sealed

import (
	"context"
	"fmt"

	"github.com/tablevault/tablevault/shared/backup/coverage"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// Backup is a sealed backup: its manifest and its plan.
type Backup struct {
	Repo     *repository.Repository
	ID       vault.Backup
	Manifest *vault.Manifest
	Plan     *vault.Plan
}

// open reads the backup whose manifest is pinned by its hash.
func open(ctx context.Context, r *repository.Repository, id vault.Backup, manifest vault.Object) (*Backup, error) {
	m, err := Pinned(ctx, r, manifest)
	if err != nil {
		return nil, err
	}
	plan, err := r.PlanOf(ctx, m)
	return &Backup{Repo: r, ID: id, Manifest: m, Plan: plan}, err
}

// Pinned reads the manifest of a sealed backup, which is pinned by its hash.
func Pinned(ctx context.Context, r *repository.Repository, manifest vault.Object) (*vault.Manifest, error) {
	m := new(vault.Manifest)
	if err := r.ReadExact(ctx, manifest, m); err != nil {
		return nil, err
	}
	if m.State != vault.Sealed { // it is the backup's by its name, which whoever pins it holds
		return nil, fmt.Errorf("read %s: %w: it is the manifest of %s backup %s of %s", manifest.Name, vault.ErrCorrupt, m.State, m.Backup, m.Table)
	}
	return m, nil
}

// Segment is the segment of which a roll-up tells. The error says that its log does not
// cover it.
func (b *Backup) Segment(s *vault.SegmentLog) (*Segment, error) {
	l := coverage.NewSegmentLog(s.Segment)
	for i := range s.Slots {
		if err := l.Add(&s.Slots[i]); err != nil {
			return nil, err
		}
	}
	if !l.Ended {
		return nil, fmt.Errorf("%w: the log of segment %s does not end", vault.ErrCorrupt, s.Segment.ID)
	}
	return &Segment{Backup: b, Log: l}, nil
}

// Segments reads the segments of a backup from its roll-ups, by their ids. It keeps what
// it has read last.
type Segments struct {
	Repo *repository.Repository
	ID   vault.Backup
	// Manifest pins the backup's manifest by its hash.
	Manifest vault.Object
	// Both are nil before the first segment.
	backup *Backup
	group  *vault.Group
}

// Of reads the segment with an id.
func (l *Segments) Of(ctx context.Context, id vault.SegmentID) (*Segment, error) {
	if l.backup == nil {
		b, err := open(ctx, l.Repo, l.ID, l.Manifest)
		if err != nil {
			return nil, err
		}
		l.backup = b
	}
	m, g := l.backup.Manifest, id.Group()
	if g >= len(m.Groups) {
		return nil, fmt.Errorf("backup %s has no segment %s: it has %d groups", m.Backup, id, len(m.Groups))
	}
	if l.group == nil || l.group.Group != g {
		group := new(vault.Group)
		if err := l.Repo.ReadExact(ctx, m.Groups[g], group); err != nil {
			return nil, err
		}
		l.group = group
	}
	for i := range l.group.Segments {
		if l.group.Segments[i].Segment.ID == id {
			return l.backup.Segment(&l.group.Segments[i])
		}
	}
	return nil, fmt.Errorf("backup %s has no segment %s", m.Backup, id)
}
