// Package prune deletes backups whose time is over, and tells for each other one
// why it stays. It is all that deletes from a vault.
package prune

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// Pruner deletes backups whose time is over, in two steps that lie a grace apart:
// a run marks what is due, and a later one deletes what has been marked for as
// long as the grace, is still due, and is not claimed.
//
// A marked backup is no recovery point. So whoever begins to read one stops, and
// whoever has begun before is done when the grace is over, or holds a claim: a
// restore creates its own mark and then looks for prune's; prune creates its mark
// and then, in another run, looks for restores. One of the two sees the other.
//
// Runs may die at any point, overlap, and be repeated; each goes by what stands in
// the vault.
type Pruner struct {
	Repo *repository.Repository
	// Policy says how long backups are kept; nil for none.
	Policy *policy.Policy
	// Region is where the tables of the policy's rules are, and those of Tables.
	Region string
	// Tables are those that are looked at; none for all.
	Tables []policy.Pattern
	// Keep is for how long backups are kept, instead of what the policy says; 0
	// leaves it to the policy.
	Keep time.Duration
	// Grace is how long a backup is marked before it goes.
	Grace time.Duration
	// Settle outlives every delivery that might still write under a backup's name,
	// 0 for DefaultSettle.
	Settle time.Duration
	Now    func() time.Time
	Log    *slog.Logger
}

const (
	// DefaultGrace outlives every reader that holds no claim: verifications and
	// copies, which end with their function, in a day at most.
	DefaultGrace = 24 * time.Hour
	// MinGrace is the least grace that a person may ask for.
	MinGrace = time.Hour
	// DefaultSettle is a function's longest time, a day, and the longest time that
	// an event waits to be delivered, another.
	DefaultSettle = 48 * time.Hour
	// maxSkew is how far the clock here may be from the store's.
	maxSkew = 5 * time.Minute
	// maxPrune bounds a run, whose view of the vault is that of its beginning.
	maxPrune = 6 * time.Hour
	// deletesInFlight is how many objects are deleted at a time.
	deletesInFlight = 16
)

// Action is what prune does with a backup.
type Action string

// The actions.
const (
	// Keep leaves a backup as it is.
	Keep Action = "keep"
	// Mark marks a backup.
	Mark Action = "mark"
	// Wait leaves a marked backup until its time comes.
	Wait Action = "wait"
	// Delete deletes a backup, or what is left of one.
	Delete Action = "delete"
	// Forget removes the mark of a backup of which nothing has been left for
	// long.
	Forget Action = "forget"
)

// Report is what a run of prune did, or would do.
type Report struct {
	// Apply says that it was done.
	Apply  bool          `json:"apply"`
	At     time.Time     `json:"at"`
	Grace  string        `json:"grace"`
	Tables []TableReport `json:"tables"`
	// Marked and Deleted sum up what was, or would be, marked and deleted.
	Marked  Sum `json:"marked"`
	Deleted Sum `json:"deleted"`
	// Failures say what went wrong, and with what.
	Failures []string `json:"failures,omitempty"`
}

// Sum counts backups and what they hold.
type Sum struct {
	Backups int   `json:"backups"`
	Bytes   int64 `json:"bytes"`
}

// TableReport is a table in a run of prune.
type TableReport struct {
	Region string `json:"region"`
	Table  string `json:"table"` // instance/table
	// Keep is for how long its backups are kept; where several rules are about it,
	// one after the other.
	Keep string `json:"keep,omitempty"`
	// Untouched says why nothing of the table goes, if that is so.
	Untouched string `json:"untouched,omitempty"`
	// Backups are all backups of the table, oldest first.
	Backups []BackupReport `json:"backups"`
}

// BackupReport is a backup in a run of prune.
type BackupReport struct {
	Backup vault.BackupID `json:"backup"`
	// State is "sealed", "void", "open", or "gone" if it has no manifest any more.
	State string `json:"state"`
	// RecoveryPoint is that of a sealed backup.
	RecoveryPoint time.Time `json:"recovery_point,omitzero"`
	Action        Action    `json:"action"`
	// Done says that the action was carried out.
	Done   bool   `json:"done,omitempty"`
	Reason string `json:"reason"`
	// Marked is when it was marked, by the store's clock.
	Marked time.Time `json:"marked,omitzero"`
	// Objects and Bytes are what it holds, and, of one that is deleted, what was
	// deleted now.
	Objects int64  `json:"objects"`
	Bytes   int64  `json:"bytes"`
	Error   string `json:"error,omitempty"`
}

// prunedLine is a table with its backups, oldest first.
type prunedLine struct {
	table     vault.TableID
	rules     []*policy.Rule
	untouched string
	backups   []*candidate
}

// pruning is a run of prune.
type pruning struct {
	*Pruner
	apply bool
	// at is when the run began, by the clock here, store the same instant by the
	// store's clock; the clock here stands in for it until the store was asked.
	at, store time.Time
	lines     []*prunedLine
	leases    map[vault.Backup]vault.RestoreID
	wanted    map[string]string                     // the policy's destinations, by their keys
	noted     map[string]bool                       // copies that are complete, by the names of their notes
	copying   map[vault.Backup]map[string]time.Time // newest word about a copy, by target
	failures  []string
}

// Prune looks at the backups of all tables, or of those that were asked for, and
// with apply does what is due. What goes wrong with one backup is told in the
// reply and keeps no other from being looked at; the error is about what stopped
// the run itself.
func (p *Pruner) Prune(ctx context.Context, apply bool) (*Report, error) {
	s := &pruning{Pruner: p, apply: apply, at: p.Now()}
	s.store = s.at
	if err := s.load(ctx); err != nil {
		return nil, fmt.Errorf("prune: %w", err)
	}
	s.judge()
	if apply && s.due() {
		err := s.clock(ctx)
		if err == nil {
			s.judge()
			err = s.carryOut(ctx)
		}
		if err != nil {
			return s.reply(), fmt.Errorf("prune: %w", err)
		}
	} else if !apply {
		if err := s.measure(ctx); err != nil {
			return nil, fmt.Errorf("prune: %w", err)
		}
	}
	return s.reply(), nil
}

func (p *Pruner) settle() time.Duration { return cmp.Or(p.Settle, DefaultSettle) }

// measure counts what those that would be deleted hold.
func (s *pruning) measure(ctx context.Context) error {
	for _, l := range s.lines {
		for _, c := range l.backups {
			if c.action != Delete {
				continue
			}
			for _, prefix := range c.prefixes() {
				for info, err := range s.Repo.Store().List(ctx, prefix, "") {
					if err != nil {
						return fmt.Errorf("list %s: %w", prefix, err)
					}
					c.objects++
					c.bytes += info.Size
				}
			}
			for _, info := range []*object.Info{c.opened, c.ended} {
				if info != nil {
					c.objects++
					c.bytes += info.Size
				}
			}
		}
	}
	return nil
}

// reply tells what was found and done.
func (s *pruning) reply() *Report {
	r := &Report{Apply: s.apply, At: s.at.UTC(), Grace: s.Grace.String(), Tables: []TableReport{}, Failures: s.failures}
	for _, l := range s.lines {
		t := TableReport{Region: l.table.Region, Table: l.table.String(), Untouched: l.untouched, Backups: []BackupReport{}}
		if s.Keep > 0 {
			t.Keep = policy.Keep{For: s.Keep}.String()
		} else {
			var keeps []string
			for _, rule := range l.rules {
				if k := rule.Keep.String(); !slices.Contains(keeps, k) {
					keeps = append(keeps, k)
				}
			}
			t.Keep = strings.Join(keeps, "; ")
		}
		for _, c := range l.backups {
			b := BackupReport{Backup: c.ID, State: c.state(), Action: c.action, Done: c.done, Reason: c.reason, Objects: c.objects, Bytes: c.bytes}
			if c.sealed() {
				b.RecoveryPoint = c.point().UTC()
			}
			if c.sealed() && c.action != Delete {
				b.Objects, b.Bytes = c.manifest.Totals.Objects, c.manifest.Totals.StoredBytes
			}
			if c.mark != nil {
				b.Marked = c.mark.Modified.UTC()
			}
			if c.err != nil {
				b.Error = c.err.Error()
			}
			switch did := !s.apply || c.done; {
			case c.action == Mark && did:
				r.Marked.add(b.Bytes)
			case c.action == Delete && did:
				r.Deleted.add(b.Bytes)
			}
			t.Backups = append(t.Backups, b)
		}
		r.Tables = append(r.Tables, t)
	}
	return r
}

func (s *Sum) add(bytes int64) {
	s.Backups++
	s.Bytes += bytes
}
