// Package prune deletes backups whose time is over, and tells for each other one why it
// stays. It is all that deletes from a vault.
package prune

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// Pruner deletes backups whose time is over, in two steps that lie a grace apart: a run
// marks what is due, and a later one deletes what has been marked for as long as the
// grace, is still due, and is not claimed.
//
// A marked backup is no recovery point. So whoever begins to read one stops, and whoever
// has begun before is done when the grace is over, or holds a claim: a restore creates
// its own mark and then looks for prune's; prune creates its mark and then, in another
// run, looks for restores. One of the two sees the other.
//
// Runs may die at any point, overlap, and be repeated; each goes by what stands in the
// vault.
type Pruner struct {
	Repo *repository.Repository
	// Policy says how long backups are kept; nil for none.
	Policy *policy.Policy
	// Region is where the tables of the policy's rules are, and those of Tables.
	Region string
	// Tables are those that are looked at; none for all.
	Tables []policy.Pattern
	// Keep is for how long backups are kept, instead of what the policy says; 0 leaves it
	// to the policy.
	Keep time.Duration
	// Grace is how long a backup is marked before it goes.
	Grace time.Duration
	// Settle outlives every delivery that might still write under a backup's name, 0 for
	// DefaultSettle.
	Settle time.Duration
	Now    func() time.Time
	Log    *slog.Logger
}

const (
	// DefaultGrace outlives every reader that holds no claim: verifications and copies,
	// which end with their function, in a day at most.
	DefaultGrace = 24 * time.Hour
	// MinGrace is the least grace that a person may ask for.
	MinGrace = time.Hour
	// DefaultSettle is a function's longest time, a day, and the longest time that an
	// event waits to be delivered, another.
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
	// Forget removes the mark of a backup of which nothing has been left for long.
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
	// Keep is for how long its backups are kept; where several rules are about it, one
	// after the other.
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
	// Objects and Bytes are what it holds, and, of one that is deleted, what was deleted
	// now.
	Objects int64  `json:"objects"`
	Bytes   int64  `json:"bytes"`
	Error   string `json:"error,omitempty"`
}

// Prune looks at the backups of all tables, or of those that were asked for, and with
// apply does what is due. What goes wrong with one backup is told in the reply and keeps
// no other from being looked at; the error is about what stopped the run itself.
func (p *Pruner) Prune(ctx context.Context, apply bool) (*Report, error) {
	f, err := p.find(ctx)
	if err != nil {
		return nil, fmt.Errorf("prune: %w", err)
	}
	// The clock here stands in for the store's until the store was asked.
	x := &execution{p: p, f: f, verdicts: p.judge(f, f.at), outcomes: map[vault.Backup]outcome{}}
	switch {
	case !apply:
		if err := x.measure(ctx); err != nil {
			return nil, fmt.Errorf("prune: %w", err)
		}
	case due(f, x.verdicts):
		store, err := p.clock(ctx)
		if err == nil {
			x.verdicts = p.judge(f, store)
			err = x.carryOut(ctx)
		}
		if err != nil {
			return x.report(apply), fmt.Errorf("prune: %w", err)
		}
	}
	return x.report(apply), nil
}

func (p *Pruner) settle() time.Duration { return cmp.Or(p.Settle, DefaultSettle) }

// keeps says for how long backups of a table are kept.
func (p *Pruner) keeps(t *foundTable) string {
	if p.Keep > 0 {
		return policy.Keep{For: p.Keep}.String()
	}
	var keeps []string
	for _, rule := range t.rules {
		if k := rule.Keep.String(); !slices.Contains(keeps, k) {
			keeps = append(keeps, k)
		}
	}
	return strings.Join(keeps, "; ")
}

// report tells what was found and done.
func (x *execution) report(apply bool) *Report {
	r := &Report{Apply: apply, At: x.f.at.UTC(), Grace: x.p.Grace.String(), Tables: []TableReport{}, Failures: slices.Concat(x.f.failures, x.failures)}
	for _, t := range x.f.tables {
		table := TableReport{Region: t.id.Region, Table: t.id.String(), Keep: x.p.keeps(t), Untouched: t.untouched, Backups: []BackupReport{}}
		for _, b := range t.backups {
			o := x.outcome(b)
			told := o.report(b)
			switch did := !apply || o.done; {
			case o.action == Mark && did:
				r.Marked.add(told.Bytes)
			case o.action == Delete && did:
				r.Deleted.add(told.Bytes)
			}
			table.Backups = append(table.Backups, told)
		}
		r.Tables = append(r.Tables, table)
	}
	return r
}

// report tells what became of a backup.
func (o outcome) report(b *found) BackupReport {
	r := BackupReport{Backup: b.ID, State: b.state(), Action: o.action, Done: o.done, Reason: o.reason, Objects: o.objects, Bytes: o.bytes}
	if b.sealed() {
		r.RecoveryPoint = b.point().UTC()
	}
	if b.sealed() && o.action != Delete {
		r.Objects, r.Bytes = b.manifest.Totals.Objects, b.manifest.Totals.StoredBytes
	}
	if b.mark != nil {
		r.Marked = b.mark.Modified.UTC()
	}
	if err := cmp.Or(o.err, b.unread); err != nil {
		r.Error = err.Error()
	}
	return r
}

func (s *Sum) add(bytes int64) {
	s.Backups++
	s.Bytes += bytes
}
