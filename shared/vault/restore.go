package vault

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/table"
)

// RestorePlan is what a restore sets out to write, and where.
type RestorePlan struct {
	Restore  RestoreID `json:"restore"`
	Created  time.Time `json:"created"`
	Command  string    `json:"command"`
	Backup   BackupID  `json:"backup"`
	Manifest Object    `json:"manifest"`
	Source   TableID   `json:"source"`
	Target   TableID   `json:"target"`
	Endpoint string    `json:"endpoint"`
	// RecoveryPoint is the backup's, Instant what a person asked for, of which that is
	// the newest; zero where none was.
	RecoveryPoint time.Time `json:"recovery_point,omitzero"`
	Instant       time.Time `json:"instant,omitzero"`
	// Definition is the table as it is to be when the restore is closed. While rows are
	// loaded, its options are wider.
	Definition table.Definition `json:"definition"`
	// Segments are all segments of the backup, by group: those that hold rows are loaded,
	// and the ranges of all are compared.
	Segments []RestoreSegment `json:"segments"`
	// Notes say where the restored table is not to be as the source was.
	Notes []string `json:"notes,omitempty"`
	// Replicas are the keys of replicas with copies of the backup, from which an object
	// is read that is damaged or gone here. Where they are, the policy of whoever reads
	// says.
	Replicas []string `json:"also,omitempty"`
	// Budget bounds what the restore asks of the target. Loaders is how many workers its
	// write units are divided over, and so the most that load at a time, Comparers the
	// same of its read units and of the workers that compare; 0 where there is no such
	// budget.
	Budget    Budget `json:"budget,omitzero"`
	Loaders   int    `json:"loaders,omitempty"`
	Comparers int    `json:"comparers,omitempty"`
}

// Budget is what may be asked of a table per second, for all workers together; 0 for as
// much as there is.
type Budget struct {
	ReadUnits  float64 `json:"read_units_per_second,omitempty"`
	WriteUnits float64 `json:"write_units_per_second,omitempty"`
}

// MaxUnits is the greatest budget, in capacity units per second.
const MaxUnits = 1 << 30

// Validate refuses a budget by which nothing would ever come to its end.
func (b Budget) Validate() error {
	for _, of := range []struct {
		what  string
		units float64
	}{{"read", b.ReadUnits}, {"write", b.WriteUnits}} {
		if of.units != 0 && !(of.units >= 1 && of.units <= MaxUnits) {
			return fmt.Errorf("a budget of %g %s units per second: want 1 to %d, or 0 for none", of.units, of.what, MaxUnits)
		}
	}
	return nil
}

// String is the budget for people.
func (b Budget) String() string {
	switch {
	case b.ReadUnits == 0 && b.WriteUnits == 0:
		return "no budget"
	case b.ReadUnits == 0:
		return fmt.Sprintf("a budget of %g write units/s", b.WriteUnits)
	case b.WriteUnits == 0:
		return fmt.Sprintf("a budget of %g read units/s", b.ReadUnits)
	}
	return fmt.Sprintf("a budget of %g write and %g read units/s", b.WriteUnits, b.ReadUnits)
}

// LoadShare is what each worker that loads may use of the budget, in write units per
// second, 0 for any number.
func (p *RestorePlan) LoadShare() float64 { return p.Budget.WriteUnits / float64(max(p.Loaders, 1)) }

// CompareShare is what each worker that compares may use of the budget, in read units per
// second, 0 for any number.
func (p *RestorePlan) CompareShare() float64 {
	return p.Budget.ReadUnits / float64(max(p.Comparers, 1))
}

// RestoreSegment is a segment of the backup with what a worker needs to restore it.
type RestoreSegment struct {
	ID    SegmentID `json:"id"`
	Group int       `json:"group"`
	Rows  int64     `json:"rows"`
}

func (*RestorePlan) kind() docKind { return docKind{name: "restore-plan", limit: MaxDocument} }

func (p *RestorePlan) clip() { p.Notes = clipNotes(p.Notes) }

func (p *RestorePlan) validate(name string) error {
	var c checks
	c.restore(p.Restore)
	c.at(name, Restore{p.Restore}.Plan())
	c.instant("created", p.Created)
	c.text("command", p.Command)
	c.text("endpoint", p.Endpoint)
	c.backup(p.Backup)
	c.table("the source", p.Source)
	c.table("the target", p.Target)
	c.object(p.Manifest)
	c.named(p.Manifest.Name, ManifestName(p.Source, p.Backup))
	c.date("recovery_point", p.RecoveryPoint)
	c.date("instant", p.Instant)
	c.try(p.Definition.Validate())
	c.that(p.Definition.Name == p.Target.Table, "the definition is of another table")
	c.notes(p.Notes)
	c.try(p.Budget.Validate())
	c.count("loaders", int64(p.Loaders))
	c.count("comparers", int64(p.Comparers))
	c.that(len(p.Replicas) <= MaxReplicas, fmt.Sprintf("%d further vaults: want at most %d", len(p.Replicas), MaxReplicas))
	for _, key := range p.Replicas {
		c.that(place.IsKey(key), "a further vault without a key")
	}
	for i, s := range p.Segments {
		c.segment(s.ID)
		c.count("rows", s.Rows)
		if c.err == nil && (s.Group != s.ID.Group() || i > 0 && p.Segments[i-1].Group > s.Group) {
			c.err = fmt.Errorf("segment %s stands at place %d, in group %d", s.ID, i, s.Group)
		}
	}
	return c.err
}

// MaxReplicas bounds the replicas that a restore reads from.
const MaxReplicas = 16

// Loaded is one entry of the log of a restore's segment: the rows up to a position of the
// backup's segment are in the target.
type Loaded struct {
	Segment SegmentID `json:"segment"`
	Slot    int       `json:"slot"`
	Start   int       `json:"start"`
	// Part and Block are where to go on: the slot of the backup's part, and the number of
	// blocks of it that are loaded.
	Part  int   `json:"part"`
	Block int64 `json:"block"`
	// Rows were written by this entry, Quarantined were refused for good.
	Rows        int64        `json:"rows"`
	Bytes       int64        `json:"bytes"`
	Digest      table.Digest `json:"digest"`
	Quarantined int64        `json:"quarantined"`
	Quarantine  *Object      `json:"quarantine,omitempty"`
	WriteUnits  int64        `json:"write_units"`
	// Pace is what the worker was held back by, nil if by nothing.
	Pace *Pace `json:"pace,omitempty"`
	Last bool  `json:"last,omitempty"`
	// Usage is what the worker asked of the store since its last entry, or since it
	// began, up to where it wrote this one.
	Usage object.Usage `json:"usage,omitzero"`
}

func (*Loaded) kind() docKind { return docKind{name: "loaded", limit: shortDocument} }

func (l *Loaded) validate(name string) error {
	var c checks
	c.entry(l.Segment, l.Slot, l.Start)
	c.under(name, fmt.Sprintf("/%s/%06d.json", l.Segment, l.Slot))
	c.number("part", l.Part)
	c.count("block", l.Block)
	c.count("rows", l.Rows)
	c.count("bytes", l.Bytes)
	c.count("quarantined", l.Quarantined)
	c.count("write_units", l.WriteUnits)
	c.that((l.Quarantined > 0) == (l.Quarantine != nil), "rows in quarantine without an object, or an object without rows")
	if l.Quarantine != nil {
		c.object(*l.Quarantine)
	}
	c.pace(l.Pace)
	c.usage(l.Usage)
	return c.err
}

// Refused is a row that the service refuses for good.
type Refused struct {
	Key    table.Key `json:"key"`
	Row    []byte    `json:"row"` // PlainBuffer, without a block's header
	Code   string    `json:"code"`
	Reason string    `json:"reason"`
}

// Quarantine is a set of refused rows.
type Quarantine struct {
	Segment SegmentID `json:"segment"`
	Rows    []Refused `json:"rows"`
}

func (*Quarantine) kind() docKind { return docKind{name: "quarantine", limit: listDocument} }

func (q *Quarantine) clip() {
	for i := range q.Rows {
		q.Rows[i].Code, q.Rows[i].Reason = clipTo(q.Rows[i].Code, maxNote), clipTo(q.Rows[i].Reason, maxNote)
	}
}

func (q *Quarantine) validate(name string) error {
	var c checks
	c.segment(q.Segment)
	c.that(strings.Contains(name, "/"+string(q.Segment)+"/"), "it tells of another segment")
	c.that(len(q.Rows) > 0, "no rows")
	for _, r := range q.Rows {
		c.key(r.Key, false)
		c.that(len(r.Row) > 0, "a row of no bytes")
		c.text("code", r.Code)
		c.text("reason", r.Reason)
	}
	return c.err
}

// Closed is the record after which no delivery of a restore writes a row.
type Closed struct {
	Restore RestoreID `json:"restore"`
	At      time.Time `json:"at"`
	// Reason says why a restore was given up; empty if its rows are loaded and verified.
	Reason string `json:"reason,omitempty"`
}

func (*Closed) kind() docKind { return docKind{name: "closed", limit: shortDocument} }

func (d *Closed) clip() { d.Reason = clip(d.Reason) }

func (d *Closed) validate(name string) error {
	var c checks
	c.restore(d.Restore)
	c.at(name, Restore{d.Restore}.Closed())
	c.instant("at", d.At)
	c.text("reason", d.Reason)
	return c.err
}

// Claim says which restore a target table belongs to. The claims on one name are
// numbered; a new one follows only when the restore of the one before it has ended.
type Claim struct {
	Restore RestoreID `json:"restore"`
	Backup  BackupID  `json:"backup"`
	At      time.Time `json:"at"`
}

func (*Claim) kind() docKind { return docKind{name: "claim", limit: shortDocument} }

func (d *Claim) validate(string) error {
	var c checks
	c.restore(d.Restore)
	c.backup(d.Backup)
	c.instant("at", d.At)
	return c.err
}

// ClaimsOn begins the names of the claims on a target.
func ClaimsOn(t TableID) string { return "leases/targets/" + t.Path() + "/" }

// ClaimName is the name of the n-th claim on a target.
func ClaimName(t TableID, n int) string { return fmt.Sprintf("%s%06d.json", ClaimsOn(t), n) }

// Made says that a restore has made its target, and by what the service tells that table
// from another one of its name.
type Made struct {
	Restore  RestoreID      `json:"restore"`
	Target   TableID        `json:"target"`
	Identity table.Identity `json:"identity"`
	// Options are those that the service told of it.
	Options table.Options `json:"options"`
}

func (*Made) kind() docKind { return docKind{name: "made", limit: shortDocument} }

func (m *Made) validate(name string) error {
	var c checks
	c.restore(m.Restore)
	c.at(name, Restore{m.Restore}.Created())
	c.table("the target", m.Target)
	c.text("id", m.Identity.ID)
	return c.err
}

// Created is the name of the note that the restore has made its target.
func (r Restore) Created() string { return r.named("created", ".json") }

// Verify names the starts and failures of the verification of the restore's segments.
func (r Restore) Verify() Log { return Log{root: Restores + "verify/", of: string(r.ID) + "/"} }

// End is the name of the mark that the n-th start of a segment is over, and writes
// nothing any more.
func (l Log) End(s SegmentID, n int) string { return fmt.Sprintf("%s%06d", l.Ends(s), n) }

// Ends begins the names of those marks of a segment; without a segment, of all.
func (l Log) Ends(s SegmentID) string { return within(l.folder(endsKind), s) }

// Verdict is what a verification comes to.
type Verdict string

// The verdicts.
const (
	OK          Verdict = "ok"
	Differs     Verdict = "differs"
	Quarantined Verdict = "quarantined" // what is missing or changed is exactly the quarantined rows
	Corrupt     Verdict = "corrupt"
)

// Difference is one row that is not the same in the backup and in the table.
type Difference struct {
	// Kind is "missing", "extra" or "changed".
	Kind string    `json:"kind"`
	Key  table.Key `json:"key"`
	// Columns names the columns of a changed row that differ; some of them if there are
	// many.
	Columns []string `json:"columns,omitempty"`
}

// Finding is one object or place that is not as it was written.
type Finding struct {
	Object string `json:"object"`
	Reason string `json:"reason"`
}

// Check is what a verification found in a part of its work.
type Check struct {
	Rows    int64 `json:"rows"`    // in the backup
	Target  int64 `json:"target"`  // in the table
	Missing int64 `json:"missing"` // in the backup only
	Extra   int64 `json:"extra"`   // in the table only
	Changed int64 `json:"changed"`
	// Expired counts cells that were left out on both sides, being past their TTL.
	Expired     int64 `json:"expired"`
	Quarantined int64 `json:"quarantined"`
	Objects     int64 `json:"objects"`
	Bytes       int64 `json:"bytes"`
	// Digest is of the backup's rows as they were stored, TargetDigest of the table's
	// without the cells that were left out.
	Digest       table.Digest `json:"digest"`
	TargetDigest table.Digest `json:"target_digest"`
	// Differences and Findings list the first of each; the counts are whole.
	Differences []Difference `json:"differences,omitempty"`
	Findings    []Finding    `json:"findings,omitempty"`
	// Corrupted counts all findings.
	Corrupted int64 `json:"corrupted"`
	// Replaced lists the first objects that were not as they were written, and were read
	// from another vault in which they are.
	Replaced []Finding `json:"replaced,omitempty"`
	// SizeOnly counts the objects of which only the size was compared, since the store's
	// checksums are of another kind than the recorded ones.
	SizeOnly int64 `json:"size_only,omitempty"`
	// Of a restore's rows, which are compared before the table has its TTL: Lapsed was
	// past it when it was compared, by the dates of the service's answers, and Lapsing
	// will be within a day of that.
	Lapsed  Lapse `json:"lapsed,omitzero"`
	Lapsing Lapse `json:"lapsing,omitzero"`
}

// Lapse counts what a TTL takes: cells, and rows of which it leaves none.
type Lapse struct {
	Rows  int64 `json:"rows"`
	Cells int64 `json:"cells"`
}

// Add adds another count.
func (l *Lapse) Add(o Lapse) { l.Rows, l.Cells = l.Rows+o.Rows, l.Cells+o.Cells }

// MaxListed is how many differences, and how many findings, a check lists.
const MaxListed = 1000

// Add adds another check.
func (c *Check) Add(o Check) {
	c.Rows += o.Rows
	c.Target += o.Target
	c.Missing += o.Missing
	c.Extra += o.Extra
	c.Changed += o.Changed
	c.Expired += o.Expired
	c.Quarantined += o.Quarantined
	c.Objects += o.Objects
	c.Bytes += o.Bytes
	c.Corrupted += o.Corrupted
	c.Digest.Add(o.Digest)
	c.TargetDigest.Add(o.TargetDigest)
	c.Differences = append(c.Differences, o.Differences[:min(len(o.Differences), MaxListed-len(c.Differences))]...)
	c.Findings = append(c.Findings, o.Findings[:min(len(o.Findings), MaxListed-len(c.Findings))]...)
	c.Replace(o.Replaced)
	c.SizeOnly += o.SizeOnly
	c.Lapsed.Add(o.Lapsed)
	c.Lapsing.Add(o.Lapsing)
}

// Differ adds a difference; quarantined says that the service refused the row when it was
// restored.
func (c *Check) Differ(d Difference, quarantined bool) {
	switch d.Kind {
	case "missing":
		c.Missing++
	case "extra":
		c.Extra++
	case "changed":
		c.Changed++
	}
	if quarantined && d.Kind != "extra" {
		c.Quarantined++
	}
	if len(c.Differences) < MaxListed {
		c.Differences = append(c.Differences, d)
	}
}

// Find adds a finding.
func (c *Check) Find(object string, reason error) {
	c.Corrupted++
	if len(c.Findings) < MaxListed {
		c.Findings = append(c.Findings, Finding{Object: object, Reason: reason.Error()})
	}
}

// Damaged is how many objects the findings are about: there may be several about one.
// Where not all of them are listed, it is how many findings there are.
func (c *Check) Damaged() int64 {
	if int64(len(c.Findings)) < c.Corrupted {
		return c.Corrupted
	}
	objects := map[string]bool{}
	for _, f := range c.Findings {
		objects[f.Object] = true
	}
	return int64(len(objects))
}

// Replace adds findings about objects that were read from another vault.
func (c *Check) Replace(found []Finding) {
	c.Replaced = append(c.Replaced, found[:min(len(found), MaxListed-len(c.Replaced))]...)
}

// Holds says whether a check is about all rows of a backup, and as they were when it was
// sealed: a check of some of them finds no difference either.
func (c *Check) Holds(t *Totals) error {
	if c.Rows != t.Rows || c.Digest != t.Digest {
		return fmt.Errorf("%d rows with the digest %s were read, the manifest says %d with %s", c.Rows, c.Digest, t.Rows, t.Digest)
	}
	return nil
}

// Agrees says whether the counts and digests of both sides are what the differences
// between them make of each other. What has expired is left out on both sides, and leaves
// nothing to be said.
func (c *Check) Agrees() error {
	if c.Expired > 0 {
		return nil
	}
	if want := c.Rows - c.Missing + c.Extra; c.Target != want {
		return fmt.Errorf("the table has %d rows; the backup's %d, %d missing and %d more, are %d", c.Target, c.Rows, c.Missing, c.Extra, want)
	}
	if c.Missing+c.Extra+c.Changed == 0 && c.TargetDigest != c.Digest {
		return fmt.Errorf("no row differs, and the table's digest is %s, the backup's %s", c.TargetDigest, c.Digest)
	}
	return nil
}

// Verdict is what the check comes to.
func (c *Check) Verdict() Verdict {
	switch {
	case c.Corrupted > 0:
		return Corrupt
	case c.Missing == 0 && c.Extra == 0 && c.Changed == 0:
		return OK
	case c.Extra == 0 && c.Quarantined > 0 && c.Missing+c.Changed == c.Quarantined:
		return Quarantined
	}
	return Differs
}

// Proof is what verify attests of a backup or of a restore.
type Proof struct {
	Backup  BackupID  `json:"backup"`
	Table   TableID   `json:"table"`
	Restore RestoreID `json:"restore,omitempty"`
	Target  string    `json:"target,omitempty"` // the table compared with, instance/table
	// Depth is "objects", "read" or "rows".
	Depth    string    `json:"depth"`
	At       time.Time `json:"at"`
	Verdict  Verdict   `json:"verdict"`
	Manifest Object    `json:"manifest"`
	Check    Check     `json:"check"`
	// Of a restore's own proof, Compared is when the last of its segments was compared,
	// and Closed when the rows were handed over, after which come the table's settings.
	Compared time.Time `json:"compared,omitzero"`
	Closed   time.Time `json:"closed,omitzero"`
	// Notes say what the verdict cannot tell, and which settings of the table are not as
	// they were.
	Notes []string `json:"notes,omitempty"`
	// Pace is what the reads of the table were held back by, nil if by nothing; a
	// restore's own proof leaves that to its checks.
	Pace *Pace `json:"pace,omitempty"`
	// Usage is what was asked of the store: for a restore's own proof that of its
	// segments and of the invocation that proved, for any other that of the verification.
	Usage object.Usage `json:"usage,omitzero"`
}

func (*Proof) kind() docKind { return listing("proof", listDocument) }

func (p *Proof) clip() {
	p.Notes = clipNotes(p.Notes)
	p.Check.clip()
}

func (p *Proof) validate(name string) error {
	var c checks
	c.backup(p.Backup)
	c.table("the source", p.Table)
	c.proofOf(name, p)
	c.text("target", p.Target)
	switch p.Depth {
	case "objects", "read", "rows":
	default:
		c.try(fmt.Errorf("depth %.80q: want objects, read or rows", p.Depth))
	}
	c.instant("at", p.At)
	c.named(p.Manifest.Name, ManifestName(p.Table, p.Backup))
	if p.Manifest.SHA256 != "" || p.Verdict != Corrupt { // what is damaged may have none that is known
		c.object(p.Manifest)
	}
	c.check(&p.Check)
	if want := p.Check.Verdict(); c.err == nil && p.Verdict != want {
		c.err = fmt.Errorf("the verdict %.80q, where its check comes to %q", p.Verdict, want)
	}
	c.notes(p.Notes)
	c.pace(p.Pace)
	c.usage(p.Usage)
	return c.err
}

// proofOf is what a proof is of: a restore, whose own it is, or what a person has had
// verified.
func (c *checks) proofOf(name string, p *Proof) {
	id, asked := strings.CutPrefix(name, verificationProofs)
	if !asked || p.Restore != "" {
		c.restore(p.Restore)
	}
	if !asked {
		c.at(name, Restore{p.Restore}.Proof())
	} else if c.err == nil {
		_, c.err = ParseVerificationID(strings.TrimSuffix(id, ".json"))
	}
}

// SegmentCheck is what verify found in one segment of a restore.
type SegmentCheck struct {
	Segment SegmentID `json:"segment"`
	Check   Check     `json:"check"`
	// At is when the comparison had come to its end.
	At time.Time `json:"at,omitzero"`
	// Settled says that the segment's log had ended before the comparison and that, after
	// that, each of its starts that there were had come to an end: nobody writes its rows
	// any more, whoever starts.
	Settled bool `json:"settled,omitempty"`
	// Pace is what the reads of the table were held back by, nil if by nothing.
	Pace *Pace `json:"pace,omitempty"`
	// Usage is that of the entries by which the segment was loaded and of the worker that
	// compared it.
	Usage object.Usage `json:"usage,omitzero"`
}

func (*SegmentCheck) kind() docKind { return listing("check", listDocument) }

func (d *SegmentCheck) clip() { d.Check.clip() }

func (d *SegmentCheck) validate(name string) error {
	var c checks
	c.segment(d.Segment)
	c.under(name, "/"+string(d.Segment)+".json")
	c.check(&d.Check)
	c.pace(d.Pace)
	c.usage(d.Usage)
	return c.err
}

// Compared is one entry of the log of a segment's comparison, where that took several
// invocations: what was found in some of its lanes. The segment's check sums up all.
type Compared struct {
	Segment SegmentID `json:"segment"`
	Slot    int       `json:"slot"`
	Start   int       `json:"start"`
	// Compared are the lanes, by their numbers in the backup's segment.
	Compared []int `json:"compared"`
	// Check is about their rows alone.
	Check Check `json:"check"`
	// Pace is what the reads of the table were held back by, nil if by nothing.
	Pace  *Pace        `json:"pace,omitempty"`
	Usage object.Usage `json:"usage,omitzero"`
}

func (*Compared) kind() docKind { return listing("compared", listDocument) }

func (d *Compared) clip() { d.Check.clip() }

func (d *Compared) validate(name string) error {
	var c checks
	c.entry(d.Segment, d.Slot, d.Start)
	c.under(name, fmt.Sprintf("/%s/%06d.json", d.Segment, d.Slot))
	c.that(len(d.Compared) <= MaxLanes, "more lanes than a segment has")
	for _, lane := range d.Compared {
		c.that(lane >= 0 && lane < MaxLanes, fmt.Sprintf("lane %d: want 0 to %d", lane, MaxLanes-1))
	}
	c.check(&d.Check)
	c.pace(d.Pace)
	c.usage(d.Usage)
	return c.err
}

// CheckedGroup is the roll-up of the checks of a group's segments.
type CheckedGroup struct {
	Group int   `json:"group"`
	Check Check `json:"check"`
	// Latest is when the last of the segments was compared.
	Latest time.Time `json:"latest,omitzero"`
	// Unsettled are the segments whose starts had not all come to an end when they were
	// compared.
	Unsettled []SegmentID `json:"unsettled,omitempty"`
	// Usage is that of the checks, and of the look that rolled them up.
	Usage object.Usage `json:"usage,omitzero"`
}

func (*CheckedGroup) kind() docKind { return listing("checked-group", listDocument) }

func (g *CheckedGroup) clip() { g.Check.clip() }

func (g *CheckedGroup) validate(name string) error {
	var c checks
	c.number("group", g.Group)
	c.under(name, fmt.Sprintf("/%06d.json", g.Group))
	c.check(&g.Check)
	for _, s := range g.Unsettled {
		c.segment(s)
		if c.err == nil && s.Group() != g.Group {
			c.err = fmt.Errorf("segment %s is none of group %d", s, g.Group)
		}
	}
	c.usage(g.Usage)
	return c.err
}

// clip cuts what was found to what a document may hold.
func (c *Check) clip() {
	for _, all := range [][]Finding{c.Findings, c.Replaced} {
		for i := range all {
			all[i].Object, all[i].Reason = clipTo(all[i].Object, maxNote), clipTo(all[i].Reason, maxNote)
		}
	}
}

// check is what a verification found: counts that can be, and lists that are no longer
// than they say.
func (c *checks) check(d *Check) {
	if c.err == nil && min(d.Rows, d.Target, d.Missing, d.Extra, d.Changed, d.Expired, d.Quarantined, d.Objects, d.Bytes, d.Corrupted, d.SizeOnly,
		d.Lapsed.Rows, d.Lapsed.Cells, d.Lapsing.Rows, d.Lapsing.Cells) < 0 {
		c.err = errors.New("a check with a count below 0")
	}
	c.that(len(d.Differences) <= MaxListed && len(d.Findings) <= MaxListed && len(d.Replaced) <= MaxListed, "a check that lists too much")
	c.that(int64(len(d.Differences)) <= d.Missing+d.Extra+d.Changed && int64(len(d.Findings)) <= d.Corrupted, "a check that lists more than it counts")
	for _, diff := range d.Differences {
		switch diff.Kind {
		case "missing", "extra", "changed":
		default:
			c.try(fmt.Errorf("a difference of kind %.80q", diff.Kind))
		}
		c.key(diff.Key, false)
		c.that(len(diff.Columns) <= maxListedColumns, "a difference in too many columns")
		for _, name := range diff.Columns {
			c.text("a column's name", name)
		}
	}
	for _, all := range [][]Finding{d.Findings, d.Replaced} {
		for _, f := range all {
			c.that(len(f.Object) <= maxNote && len(f.Reason) <= maxNote, "a finding that is too long")
		}
	}
}

// maxListedColumns bounds the columns that a difference names.
const maxListedColumns = 64

// Add adds the check of a segment.
func (g *CheckedGroup) Add(c *SegmentCheck) {
	g.Check.Add(c.Check)
	g.Usage.Add(c.Usage)
	if c.At.After(g.Latest) {
		g.Latest = c.At
	}
	if !c.Settled {
		g.Unsettled = append(g.Unsettled, c.Segment)
	}
}

// Groups begins the names of the roll-ups of a restore's checks.
func (r Restore) Groups() string { return r.named("groups", "/") }

// Group is the name of the roll-up of a group's checks.
func (r Restore) Group(g int) string { return fmt.Sprintf("%s%06d.json", r.Groups(), g) }

// Of finds out whether a proof is that of a restore, by its plan, and of the backup that
// a manifest seals; that what it found comes to its verdict, decoding has made sure of.
// It is an error if not. Of a backup that was deleted since, m is nil: then the plan's
// word for the manifest has to do.
func (p *Proof) Of(r *RestorePlan, m *Manifest, named Object) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: the proof of restore %s: %s", ErrCorrupt, r.Restore, fmt.Sprintf(format, args...))
	}
	c := &p.Check
	switch {
	case p.Restore != r.Restore:
		return bad("it is of restore %q", p.Restore)
	case p.Backup != r.Backup || p.Table != r.Source:
		return bad("it is of backup %s of %s, and the restore is of %s of %s", p.Backup, p.Table, r.Backup, r.Source)
	case p.Target != r.Target.String():
		return bad("it is about the table %q, and the restore is to %s", p.Target, r.Target)
	case p.Manifest != r.Manifest:
		return bad("it names another manifest than the restore's plan")
	case m != nil && (p.Manifest.SHA256 != named.SHA256 || m.Backup != r.Backup || m.Table != r.Source || m.State != Sealed):
		return bad("it names another manifest than the backup has")
	case p.Depth != "rows":
		return bad("its depth is %q: rows were not compared", p.Depth)
	case p.Verdict != OK:
		return nil
	// While a restore compares, nothing in its table expires.
	case c.Target != c.Rows || c.TargetDigest != c.Digest:
		return bad("it is %s with %d rows of %d, or others", p.Verdict, c.Target, c.Rows)
	case m != nil:
		if err := c.Holds(&m.Totals); err != nil {
			return bad("%v", err)
		}
	}
	return nil
}
