package vault

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// DrillID names a drill, the rehearsal of a restore: of which table, and the instant of
// the schedule that it was due at. Whoever finds that instant due means the same drill.
type DrillID struct {
	Table TableID   `json:"table"`
	Due   time.Time `json:"due"`
}

// NewDrillID is the drill of a table that is due at an instant, to the second.
func NewDrillID(t TableID, due time.Time) DrillID {
	return DrillID{Table: t, Due: due.UTC().Truncate(time.Second)}
}

func (d DrillID) validate() error {
	switch {
	case d.Table == (TableID{}):
		return errors.New("no table")
	case d.Due.IsZero() || d.Due != NewDrillID(d.Table, d.Due).Due:
		return fmt.Errorf("due at %s: want an instant in UTC, in whole seconds", d.Due.Format(time.RFC3339Nano))
	}
	return nil
}

// Drills begins the names of the records of all drills.
const Drills = "drills/"

// DrillsOf begins the names of the records of a table's drills.
func DrillsOf(t TableID) string { return Drills + t.Path() + "/" }

// The records of a drill, by the last parts of their names.
const (
	DrillBegun   = "begun.json"
	DrillEnded   = "ended.json"
	DrillDropped = "dropped.json"
)

func (d DrillID) record(what string) string {
	return DrillsOf(d.Table) + d.Due.UTC().Format(idTime) + "/" + what
}

// Begun is the name of the drill's Drill.
func (d DrillID) Begun() string { return d.record(DrillBegun) }

// Ended is the name of the drill's DrillEnd.
func (d DrillID) Ended() string { return d.record(DrillEnded) }

// Dropped is the name of the drill's DrillDrop.
func (d DrillID) Dropped() string { return d.record(DrillDropped) }

// ParseDrillName finds out to which drill a record belongs, and which of them it is.
func ParseDrillName(name string) (d DrillID, what string, ok bool) {
	rest, found := strings.CutPrefix(name, Drills)
	parts := strings.Split(rest, "/")
	if !found || len(parts) != 5 || parts[0] == "" || parts[1] == "" || parts[2] == "" {
		return DrillID{}, "", false
	}
	due, err := time.Parse(idTime, parts[3])
	if err != nil {
		return DrillID{}, "", false
	}
	d, what = NewDrillID(TableID{parts[0], parts[1], parts[2]}, due), parts[4]
	switch what {
	case DrillBegun, DrillEnded, DrillDropped:
		return d, what, d.record(what) == name
	}
	return DrillID{}, "", false
}

// Request is the name of the drill's request.
func (d DrillID) Request() string {
	return DrillRequests + d.key()[:16] + "/" + d.Due.UTC().Format(idTime) + ".json"
}

// key tells the drill's table from all others.
func (d DrillID) key() string {
	sum := sha256.Sum256([]byte(d.Table.Path()))
	return hex.EncodeToString(sum[:])
}

// maxDrillSource is how much of the source's name stands in the name of a drill's table.
// Names of tables have at most 255 bytes, and those of a copy's indexes begin with them.
const maxDrillSource = 32

// Target is the name of the table that the drill restores into. It begins with to and an
// underscore, and is unlike that of every other drill.
func (d DrillID) Target(to string) string {
	source := d.Table.Table
	return to + "_" + source[:min(len(source), maxDrillSource)] + "_" + d.Due.UTC().Format(idTime) + "_" + d.key()[:12]
}

// Drill says that a drill was begun, and what it sets out to do.
type Drill struct {
	DrillID
	// Rule is the policy's that wants it.
	Rule string `json:"rule"`
	// Backup is what is restored, RecoveryPoint the instant that it brings back.
	Backup        BackupID  `json:"backup"`
	RecoveryPoint time.Time `json:"recovery_point"`
	// Target is the table restored into, which the drill's restore makes.
	Target TableID `json:"target"`
	// Request is the name of the request to restore.
	Request string `json:"request"`
	// Workers is how many workers its restore may have at a time.
	Workers int `json:"workers"`
	// Began and Until are by the planner's clock. A drill that has not ended by then has
	// failed.
	Began time.Time `json:"began"`
	Until time.Time `json:"until"`
}

func (*Drill) kind() docKind { return docKind{name: "drill", limit: shortDocument} }

func (d *Drill) validate(name string) error {
	c := d.checks()
	c.at(name, d.Begun())
	return c.err
}

// checks are those of a drill, alone or in the record of its end.
func (d *Drill) checks() *checks {
	c := new(checks)
	c.drill(d.DrillID)
	c.text("rule", d.Rule)
	c.backup(d.Backup)
	c.instant("recovery_point", d.RecoveryPoint)
	c.table("the target", d.Target)
	c.that(d.Target != d.Table, "it restores the table into itself")
	c.named(d.Request, d.DrillID.Request())
	c.that(d.Workers >= 1, fmt.Sprintf("a restore by %d workers", d.Workers))
	c.instant("began", d.Began)
	c.instant("until", d.Until)
	return c
}

// drill is what names a drill.
func (c *checks) drill(d DrillID) {
	c.table("the source", d.Table)
	c.try(d.validate())
}

// DrillEnd is what came of a drill.
type DrillEnd struct {
	Drill Drill     `json:"drill"`
	Ended time.Time `json:"ended"`
	// Compared is when the last of the rows were compared, Closed when the table began to
	// be given its indexes and settings, as the restore's proof tells.
	Compared time.Time `json:"compared,omitzero"`
	Closed   time.Time `json:"closed,omitzero"`
	// OK says that the restored table was compared with the backup, row by row and
	// without a difference; Error, if not, why.
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
	// What follows is empty as far as the drill did not come. Proof is the name of the
	// restore's proof.
	Restore     RestoreID `json:"restore,omitempty"`
	Rows        int64     `json:"rows"`
	Quarantined int64     `json:"quarantined"`
	Proof       string    `json:"proof,omitempty"`
	Verdict     Verdict   `json:"verdict,omitempty"`
	Notes       []string  `json:"notes,omitempty"`
}

// RTO is how long it took from the drill's begin until the table was restored and proved:
// until the rows were compared, and from when the table began to be given its settings.
// Between the two nothing is done but to notice that all are compared.
func (e *DrillEnd) RTO() time.Duration {
	if e.Compared.Before(e.Drill.Began) || e.Closed.Before(e.Compared) || e.Ended.Before(e.Closed) {
		return e.Ended.Sub(e.Drill.Began) // clocks that differ, or a drill that has failed
	}
	return e.Compared.Sub(e.Drill.Began) + e.Ended.Sub(e.Closed)
}

// RPO is how old the recovery point was when the drill began.
func (e *DrillEnd) RPO() time.Duration { return e.Drill.Began.Sub(e.Drill.RecoveryPoint) }

func (*DrillEnd) kind() docKind { return docKind{name: "drill-end", limit: notedDocument} }

func (e *DrillEnd) clip() { e.Error, e.Notes = clip(e.Error), clipNotes(e.Notes) }

func (e *DrillEnd) validate(name string) error {
	c := e.Drill.checks()
	c.at(name, e.Drill.Ended())
	c.instant("ended", e.Ended)
	c.that(e.OK != (e.Error != ""), "a drill is ok, or says what went wrong")
	c.text("error", e.Error)
	if c.err == nil && e.OK && (e.Verdict != OK || e.Proof == "" || e.Restore == "") {
		c.err = fmt.Errorf("a drill is ok with the verdict %q of the proof %q", e.Verdict, e.Proof)
	}
	if e.Restore != "" {
		c.restore(e.Restore)
	}
	c.outcome(e.Restore, e.Rows, e.Quarantined, e.Verdict, e.Proof)
	c.notes(e.Notes)
	return c.err
}

// DrillDrop says that a drill's table is gone, or why it was left where it is.
type DrillDrop struct {
	DrillID
	Target  TableID   `json:"target"`
	Restore RestoreID `json:"restore,omitempty"`
	At      time.Time `json:"at"`
	// Left says why nothing was dropped: the drill's restore has made no table, or what
	// stands there is another.
	Left string `json:"left,omitempty"`
}

func (*DrillDrop) kind() docKind { return docKind{name: "drill-drop", limit: shortDocument} }

func (d *DrillDrop) clip() { d.Left = clip(d.Left) }

func (d *DrillDrop) validate(name string) error {
	var c checks
	c.drill(d.DrillID)
	c.at(name, d.Dropped())
	c.table("the target", d.Target)
	if d.Restore != "" {
		c.restore(d.Restore)
	}
	c.instant("at", d.At)
	c.text("left", d.Left)
	return c.err
}
