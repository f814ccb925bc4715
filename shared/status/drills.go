package status

import (
	"context"
	"fmt"
	"time"

	"github.com/tablevault/tablevault/shared/drill"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// Drill is a rehearsal of a restore, in the JSON of commands.
type Drill struct {
	Region string    `json:"region"`
	Table  string    `json:"table"`
	Due    time.Time `json:"due"`
	// State is "running", "proved" or "failed".
	State         string         `json:"state"`
	Rule          string         `json:"rule"`
	Backup        vault.BackupID `json:"backup"`
	RecoveryPoint time.Time      `json:"recovery_point"`
	Target        string         `json:"target"`
	Began         time.Time      `json:"began"`
	Ended         time.Time      `json:"ended,omitzero"`
	Rows          int64          `json:"rows"`
	// RTO is how long it took until the table was restored and proved, of a drill that
	// was; RPO how old the recovery point was when it began. Both are seconds.
	RTO     float64         `json:"rto_seconds,omitempty"`
	RPO     float64         `json:"rpo_seconds"`
	Restore vault.RestoreID `json:"restore,omitempty"`
	Proof   string          `json:"proof,omitempty"`
	Verdict vault.Verdict   `json:"verdict,omitempty"`
	Notes   []string        `json:"notes,omitempty"`
	Error   string          `json:"error,omitempty"`
	// Dropped is when its table was, Left why it was not.
	Dropped time.Time `json:"dropped,omitzero"`
	Left    string    `json:"left,omitempty"`
}

// The states of a drill, beside Running.
const (
	DrillProved = "proved"
	DrillFailed = "failed"
)

// OfDrill describes a drill by its records.
func OfDrill(s *drill.State) Drill {
	d := Drill{
		Region: s.Drill.Table.Region, Table: s.Drill.Table.String(), Due: s.Drill.Due, State: Running, Rule: s.Drill.Rule, Backup: s.Drill.Backup, RecoveryPoint: s.Drill.RecoveryPoint,
		Target: s.Drill.Target.String(), Began: s.Drill.Began, RPO: s.Drill.Began.Sub(s.Drill.RecoveryPoint).Seconds(),
	}
	if e := s.End; e != nil {
		d.Ended, d.Rows, d.Restore, d.Proof, d.Verdict, d.Notes = e.Ended, e.Rows, e.Restore, e.Proof, e.Verdict, e.Notes
		if d.State, d.Error = DrillFailed, e.Error; e.OK {
			d.State, d.RTO = DrillProved, e.RTO().Seconds()
		}
	}
	if s.Drop != nil && s.Drop.Left == "" {
		d.Dropped = s.Drop.At
	} else if s.Drop != nil {
		d.Left = s.Drop.Left
	}
	return d
}

// Drills reads the newest drill of each table, or of one table if t is not nil.
func Drills(ctx context.Context, r *repository.Repository, t *vault.TableID, now time.Time) ([]Drill, error) {
	states, err := drill.Newest(ctx, r, t, now)
	if err != nil {
		return nil, err
	}
	all := []Drill{}
	for i := range states {
		all = append(all, OfDrill(&states[i]))
	}
	return all, nil
}

// shownDrills is how many drills of a table are looked at for those that have restored
// one backup.
const shownDrills = 50

// DrillsOf reads which of the newest drills of a backup's table have restored the backup,
// newest first.
func DrillsOf(ctx context.Context, r *repository.Repository, b vault.Backup, now time.Time) ([]Drill, error) {
	states, err := drill.Of(ctx, r, b.Table, shownDrills, now)
	if err != nil {
		return nil, err
	}
	var all []Drill
	for i := range states {
		if states[i].Drill.Backup == b.ID {
			all = append(all, OfDrill(&states[i]))
		}
	}
	return all, nil
}

// Unproved says why a drill that is recorded as proved is not, empty if it is. The
// planner writes the record, and who restored writes the proof.
func Unproved(ctx context.Context, r *repository.Repository, s *drill.State) (why string, err error) {
	proof, why, err := drill.Proof(ctx, r, &s.Drill, s.End.Restore)
	if err == nil && why == "" && (proof.Verdict != s.End.Verdict || proof.Check.Target != s.End.Rows) {
		why = fmt.Sprintf("the proof says %s with %d rows, and the record %s with %d", proof.Verdict, proof.Check.Target, s.End.Verdict, s.End.Rows)
	}
	return why, err
}
