// Package vault says what a vault holds: the names of its objects and the documents in
// them.
//
// A vault is a bucket and a prefix in which every object is written once. A backup is the
// set of objects that its manifest names. The plan says what is to be read and in which
// segments; each segment reports in a log of slots; roll-ups gather the segments of a
// group; the manifest seals the whole. The shards themselves are package shard's.
//
// The package is pure: it knows no network, no clock and no store.
package vault

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/table"
)

// Program is the version of the program, which documents record.
const Program = "0.1.0"

// ErrCorrupt matches errors about objects that are not what they should be.
var ErrCorrupt = errors.New("corrupt object")

// ErrVersion matches errors about objects of a version that this command does not know.
var ErrVersion = errors.New("unknown format version")

// Header is vault.json.
type Header struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	// Seed is the seed of every row digest in the vault.
	Seed Seed `json:"digest_seed"`
	// Signers are the public keys whose signatures count.
	Signers []string `json:"signers"`
}

func (*Header) kind() docKind { return docKind{name: "vault", limit: shortDocument} }

func (h *Header) validate(name string) error {
	var c checks
	c.at(name, HeaderName)
	c.that(vaultForm.MatchString(h.ID), "the vault's id is no 32 hexadecimal digits")
	c.instant("created", h.Created)
	c.that(h.Created.Nanosecond() == 0, "created: want whole seconds")
	c.that(len(h.Signers) <= maxSigners, "too many signers")
	for _, s := range h.Signers {
		c.that(s != "" && len(s) <= maxName, "a signer without a key")
	}
	return c.err
}

const maxSigners = 100

var vaultForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// Seed is a digest's seed; in documents sixteen hexadecimal digits.
type Seed uint64

// MarshalText writes sixteen hexadecimal digits.
func (s Seed) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%016x", uint64(s)), nil }

// UnmarshalText reads sixteen hexadecimal digits.
func (s *Seed) UnmarshalText(text []byte) error {
	var v uint64
	if n, err := fmt.Sscanf(string(text), "%016x", &v); n != 1 || err != nil || len(text) != 16 {
		return fmt.Errorf("seed %.40q: want 16 hexadecimal digits", text)
	}
	*s = Seed(v)
	return nil
}

// Kind is the kind of a backup.
type Kind string

// The kinds of backups.
const (
	Full Kind = "full"
)

// Encryption says how a backup's objects are encrypted and to whom.
type Encryption struct {
	// Mode is "none" or "age".
	Mode string `json:"mode"`
	// Control and Data are the fingerprints of the two identities.
	Control string `json:"control,omitempty"`
	Data    string `json:"data,omitempty"`
}

// Settings are what a plan fixes for the workers of a backup.
type Settings struct {
	// SegmentBytes is the size that segments were planned for, as the service counts it.
	SegmentBytes int64 `json:"segment_bytes"`
	// Lanes is the greatest number of lanes of a segment.
	Lanes int `json:"lanes"`
	// PartBytes is the size of a shard object at which its part ends.
	PartBytes int64 `json:"part_bytes"`
	// ReadUnits is the budget of the table in read units per second, for all workers of
	// the backup together, 0 for none.
	ReadUnits float64 `json:"read_units_per_second,omitempty"`
}

// Plan is what a backup sets out to read.
type Plan struct {
	Backup  BackupID  `json:"backup"`
	Table   TableID   `json:"table"`
	Kind    Kind      `json:"kind"`
	Created time.Time `json:"created"`
	// Trigger says what started the backup: "manual", or a timer's name.
	Trigger    string           `json:"trigger"`
	Command    string           `json:"command"` // version of the command that planned
	Endpoint   string           `json:"endpoint"`
	Account    string           `json:"account,omitempty"`
	Definition table.Definition `json:"definition"`
	Settings   Settings         `json:"settings"`
	Encryption Encryption       `json:"encryption"`
	Parent     *Parent          `json:"parent,omitempty"`
	// Workers is how many workers the budget of read units is divided over, and so the
	// most that work at a time; 0 where there is no budget.
	Workers  int       `json:"workers,omitempty"`
	Segments []Segment `json:"segments"`
}

// Share is the budget of each worker in read units per second, 0 for none.
func (p *Plan) Share() float64 { return p.Settings.ReadUnits / float64(max(p.Workers, 1)) }

// Parent names the manifest that a backup continues.
type Parent struct {
	Backup BackupID `json:"backup"`
	SHA256 string   `json:"sha256"`
}

// Segment is what one invocation at a time works on: adjoining ranges, the lanes, that
// are read side by side. Lane i goes from bound i to bound i+1.
type Segment struct {
	ID     SegmentID   `json:"id"`
	Bounds []table.Key `json:"bounds"`
}

// Lanes are the segment's ranges.
func (s Segment) Lanes() []table.Range {
	lanes := make([]table.Range, len(s.Bounds)-1)
	for i := range lanes {
		lanes[i] = table.Range{Start: s.Bounds[i], End: s.Bounds[i+1]}
	}
	return lanes
}

// Range is all of the segment.
func (s Segment) Range() table.Range {
	return table.Range{Start: s.Bounds[0], End: s.Bounds[len(s.Bounds)-1]}
}

// MaxLanes is the greatest number of lanes of a segment.
const MaxLanes = 16

func (s Segment) validate(schema table.Schema) error {
	var c checks
	c.bounds(s)
	if c.err != nil {
		return c.err
	}
	for _, lane := range s.Lanes() {
		if err := lane.Validate(schema); err != nil {
			return fmt.Errorf("segment %s: %w", s.ID, err)
		}
	}
	return nil
}

func (*Plan) kind() docKind { return docKind{name: "plan", limit: MaxDocument} }

func (p *Plan) validate(name string) error {
	var c checks
	c.backup(p.Backup)
	c.table("the source", p.Table)
	c.at(name, Backup{p.Table, p.Backup}.Plan())
	c.that(p.Kind == Full, fmt.Sprintf("a backup of kind %.80q: this version knows %q", p.Kind, Full))
	c.instant("created", p.Created)
	for _, s := range []string{p.Trigger, p.Command, p.Endpoint, p.Account} {
		c.text("a text", s)
	}
	c.try(p.Definition.Validate())
	c.that(p.Definition.Name == p.Table.Table, "the definition is of another table")
	c.try(p.Encryption.Validate())
	c.parent(p.Parent)
	c.that(p.Settings.Lanes >= 0 && p.Settings.Lanes <= MaxLanes, fmt.Sprintf("%d lanes: want at most %d", p.Settings.Lanes, MaxLanes))
	c.count("segment_bytes", p.Settings.SegmentBytes)
	c.count("part_bytes", p.Settings.PartBytes)
	c.rate("read_units_per_second", p.Settings.ReadUnits)
	c.count("workers", int64(p.Workers))
	ranges := make([]table.Range, 0, len(p.Segments))
	for i, s := range p.Segments {
		if c.err != nil {
			return c.err
		}
		c.try(s.validate(p.Definition.Schema))
		if c.err == nil && s.ID != NewSegmentID(i) {
			c.err = fmt.Errorf("segment %s stands at place %d", s.ID, i)
		}
		if c.err == nil {
			ranges = append(ranges, s.Range())
		}
	}
	if c.err != nil {
		return c.err
	}
	if err := table.Covers(p.Definition.Schema.Whole(), ranges); err != nil {
		return fmt.Errorf("the segments do not cover the table: %w", err)
	}
	return nil
}

func (c *checks) parent(p *Parent) {
	if p != nil {
		c.backup(p.Backup)
		c.digest("the parent", p.SHA256)
	}
}

// Validate returns nil if this version can seal and open what is encrypted so.
func (e Encryption) Validate() error {
	switch e.Mode {
	case "none":
		return nil
	case "age":
		return errors.New("encryption \"age\" is not built into this version: use \"none\"")
	}
	return fmt.Errorf("encryption %q: want none or age", e.Mode)
}

// Groups is the number of groups of the plan's segments.
func (p *Plan) Groups() int { return (len(p.Segments) + GroupSize - 1) / GroupSize }

// Object is one object of the vault, as it was when it was written.
type Object struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
	// SHA256 is over the stored bytes, in hexadecimal digits.
	SHA256 string `json:"sha256"`
	// Checksum is what the store answered, in the store's own form; empty where a
	// document is named by another.
	Checksum string `json:"checksum,omitempty"`
}

// Slot is one entry of a segment's log: a part, or a split.
type Slot struct {
	Segment SegmentID `json:"segment"`
	Slot    int       `json:"slot"`
	Start   int       `json:"start"` // number of the start that wrote it
	Part    *Part     `json:"part,omitempty"`
	Split   *Split    `json:"split,omitempty"`
	// Usage is what the worker asked of the store since its last slot, or since it began,
	// up to where it wrote this one.
	Usage object.Usage `json:"usage,omitzero"`
}

// Part says what one shard holds.
type Part struct {
	Shard Object `json:"shard"`
	Index Object `json:"index"`
	// Rows is the number of rows in the shard, Walked the number that the pages held,
	// RawBytes the size of the rows as PlainBuffer.
	Rows      int64        `json:"rows"`
	Walked    int64        `json:"walked"`
	RawBytes  int64        `json:"raw_bytes"`
	ReadUnits int64        `json:"read_units"`
	Digest    table.Digest `json:"digest"`
	Lanes     []Lane       `json:"lanes"`
	// First and Latest are the server's dates of the first and last page.
	First  time.Time `json:"first"`
	Latest time.Time `json:"latest"`
	// Last says that each lane has come to its end.
	Last bool `json:"last,omitempty"`
	// ClosingMS is how long it took to store the part once its last page was read, in
	// milliseconds.
	ClosingMS int64 `json:"closing_ms,omitempty"`
	// Pace is what the worker was held back by, nil if by nothing.
	Pace *Pace `json:"pace,omitempty"`
}

// Pace says why a worker read or wrote more slowly than it could.
type Pace struct {
	// Reason is what held it back in the end: one of the Paced constants.
	Reason string `json:"reason"`
	// ReadUnits is the rate in read units per second that it was held to, WriteUnits the
	// same of a worker that writes; both are 0 where nothing holds it any more.
	ReadUnits  float64 `json:"read_units_per_second,omitempty"`
	WriteUnits float64 `json:"write_units_per_second,omitempty"`
	// WaitedMS is for how long its requests waited, summed up, in milliseconds.
	WaitedMS int64 `json:"waited_ms"`
	// Throttled counts the answers by which the service wanted fewer requests.
	Throttled int64 `json:"throttled,omitempty"`
}

// The reasons of a Pace.
const (
	PacedByBudget  = "budget"    // the table's, or the restore's, budget of units
	PacedByService = "throttled" // the service wanted fewer requests
	PacedByLatency = "latency"   // answers took several times as long as before
)

// Lane says how far a part went in one lane: it holds the rows from From, inclusive, to
// Next, exclusive.
type Lane struct {
	From table.Key `json:"from"`
	Next table.Key `json:"next"`
	Rows int64     `json:"rows"`
}

// Split ends a segment's lanes where they stand and hands what is left over to children.
type Split struct {
	Closed   []table.Key `json:"closed"`
	Children []Segment   `json:"children"`
}

func (*Slot) kind() docKind { return listing("slot", splitDocument) }

func (s *Slot) validate(name string) error {
	b, err := slotOf(name)
	if err != nil {
		return err
	}
	var c checks
	c.entry(s.Segment, s.Slot, s.Start)
	c.at(name, b.Log().Slot(s.Segment, s.Slot))
	c.slot(b, s)
	return c.err
}

// slotOf is the backup of a slot, by its name.
func slotOf(name string) (Backup, error) {
	b, _, ok := cutPlace(name, slotsKind, "", 2)
	if !ok {
		return Backup{}, fmt.Errorf("%.300q is no name of a slot", name)
	}
	return b, nil
}

// entry is whose entry of a log a document is.
func (c *checks) entry(s SegmentID, slot, start int) {
	c.segment(s)
	c.number("slot", slot)
	c.number("start", start)
}

// slot is a slot of a backup, alone or in a roll-up.
func (c *checks) slot(b Backup, s *Slot) {
	c.that((s.Part == nil) != (s.Split == nil), "want a part or a split")
	c.usage(s.Usage)
	if c.err != nil {
		return
	}
	if s.Split != nil {
		c.split(s)
	} else {
		c.part(b, s.Segment, s.Part)
	}
	if c.err != nil {
		c.err = fmt.Errorf("slot %d of segment %s: %w", s.Slot, s.Segment, c.err)
	}
}

// part is a part whose shard lies where the backup has those of the segment, and whose
// counts can be.
func (c *checks) part(b Backup, segment SegmentID, p *Part) {
	c.object(p.Shard)
	c.object(p.Index)
	if of, s, ok := ParseShard(p.Shard.Name); c.err == nil && (!ok || of != b || s != segment || p.Index.Name != Index(p.Shard.Name) || p.Index == p.Shard) {
		c.err = fmt.Errorf("the shard %.300q with the index %.300q", p.Shard.Name, p.Index.Name)
	}
	c.count("rows", p.Rows)
	c.that(p.Rows == p.Walked, fmt.Sprintf("%d rows in the pages, %d in the shard", p.Walked, p.Rows))
	c.count("raw_bytes", p.RawBytes)
	c.count("read_units", p.ReadUnits)
	c.count("closing_ms", p.ClosingMS)
	c.span(p.First, p.Latest)
	c.pace(p.Pace)
	c.that(len(p.Lanes) > 0 && len(p.Lanes) <= MaxLanes, fmt.Sprintf("%d lanes: want 1 to %d", len(p.Lanes), MaxLanes))
	left := p.Rows
	for i, l := range p.Lanes {
		c.key(l.From, true)
		c.key(l.Next, true)
		if c.err != nil {
			return
		}
		switch {
		case len(l.From) != len(p.Lanes[0].From) || len(l.Next) != len(l.From) || l.From.Compare(l.Next) > 0:
			c.err = fmt.Errorf("lane %d goes from %v to %v", i, l.From, l.Next)
		case i > 0 && p.Lanes[i-1].Next.Compare(l.From) > 0:
			c.err = fmt.Errorf("lane %d begins at %v, within the lane before it", i, l.From)
		case l.Rows < 0 || l.Rows > left || l.Rows > 0 && l.From.Equal(l.Next):
			c.err = fmt.Errorf("lane %d has %d rows from %v to %v", i, l.Rows, l.From, l.Next)
		}
		left -= l.Rows
	}
	c.that(left == 0, "the lanes have other rows than the part")
}

// span is that of the server's dates, of which there are both or none.
func (c *checks) span(first, latest time.Time) {
	c.date("first", first)
	c.date("latest", latest)
	c.that(first.IsZero() == latest.IsZero() && !latest.Before(first), "its last answer came before its first")
}

// split is one into children that can be what is left of lanes that were closed.
func (c *checks) split(s *Slot) {
	closed, children := s.Split.Closed, s.Split.Children
	c.that(len(closed) > 0 && len(closed) <= MaxLanes, fmt.Sprintf("a split of %d lanes: want 1 to %d", len(closed), MaxLanes))
	c.that(len(children) > 0 && len(children) <= MaxChildren, fmt.Sprintf("a split into %d: want 1 to %d", len(children), MaxChildren))
	for i, k := range closed {
		c.key(k, true)
		c.that(len(k) == len(closed[0]) && (i == 0 || closed[i-1].Compare(k) <= 0), "lanes closed out of order")
	}
	var last table.Key
	for i, child := range children {
		if c.err == nil && child.ID != s.Segment.Child(i) {
			c.err = fmt.Errorf("child %d is %.80q", i, child.ID)
		}
		c.bounds(child)
		if c.err != nil {
			return
		}
		c.that(len(child.Bounds[0]) == len(closed[0]) && (i == 0 || last.Compare(child.Bounds[0]) <= 0), fmt.Sprintf("child %d begins within the one before it", i))
		last = child.Bounds[len(child.Bounds)-1]
	}
}

// Note is what a start or a failure leaves: who, when, until when, and why.
type Note struct {
	Segment SegmentID `json:"segment"`
	Start   int       `json:"start"`
	Request string    `json:"request,omitempty"` // the platform's id of the invocation
	Began   time.Time `json:"began"`
	// Until is when the platform ends the invocation.
	Until time.Time `json:"until"`
	// Slot is the number of slots that the segment's log had, and Idle how many starts in
	// a row before this one found it so and added nothing.
	Slot int `json:"slot,omitempty"`
	Idle int `json:"idle,omitempty"`
	// Replica is the address of the vault that a start copies to, Rate what it may use of
	// that vault's budget, in bytes per second.
	Replica string `json:"target,omitempty"`
	Rate    int64  `json:"bytes_per_second,omitempty"`
	// Error and Permanent stand in failures only.
	Error     string `json:"error,omitempty"`
	Permanent bool   `json:"permanent,omitempty"`
	// Corrupt stands in failures only: the error is about an object of the vault that is
	// not as it was written.
	Corrupt bool `json:"corrupt,omitempty"`
	// InDoubt stands in failures only: a request that the start had sent may still be
	// carried out, so that the note does not say that it is over.
	InDoubt bool `json:"in_doubt,omitempty"`
}

func (*Note) kind() docKind { return docKind{name: "note", limit: shortDocument} }

func (n *Note) clip() { n.Error = clip(n.Error) }

func (n *Note) validate(name string) error {
	var c checks
	c.segment(n.Segment)
	c.number("start", n.Start)
	c.number("slot", n.Slot)
	c.number("idle", n.Idle)
	c.under(name, fmt.Sprintf("/%s/%06d.json", n.Segment, n.Start))
	c.text("request", n.Request)
	c.date("began", n.Began)
	c.date("until", n.Until)
	c.text("target", n.Replica)
	c.count("bytes_per_second", n.Rate)
	c.text("error", n.Error)
	return c.err
}

// Ask is the planner's request to a segment's worker to split what is left of it, since
// workers are free and this one lags behind its siblings.
type Ask struct {
	Segment SegmentID `json:"segment"`
	// Children is how many workers could go on side by side.
	Children int       `json:"children"`
	At       time.Time `json:"at"`
}

func (*Ask) kind() docKind { return docKind{name: "ask", limit: shortDocument} }

func (a *Ask) validate(name string) error {
	var c checks
	c.segment(a.Segment)
	c.under(name, "/"+string(a.Segment)+".json")
	c.that(a.Children >= 2 && a.Children <= MaxChildren, fmt.Sprintf("a split of segment %.80s into %d: want 2 to %d", a.Segment, a.Children, MaxChildren))
	c.instant("at", a.At)
	return c.err
}

// Totals are sums over parts.
type Totals struct {
	Rows        int64        `json:"rows"`
	Walked      int64        `json:"walked"`
	RawBytes    int64        `json:"raw_bytes"`
	StoredBytes int64        `json:"stored_bytes"`
	Objects     int64        `json:"objects"`
	Parts       int64        `json:"parts"`
	ReadUnits   int64        `json:"read_units"`
	Digest      table.Digest `json:"digest"`
	First       time.Time    `json:"first"`
	Latest      time.Time    `json:"latest"`
}

// AddPart adds a part.
func (t *Totals) AddPart(p *Part) {
	t.Add(Totals{
		Rows: p.Rows, Walked: p.Walked, RawBytes: p.RawBytes, StoredBytes: p.Shard.Bytes + p.Index.Bytes,
		Objects: 2, Parts: 1, ReadUnits: p.ReadUnits, Digest: p.Digest, First: p.First, Latest: p.Latest,
	})
}

// Add adds other sums.
func (t *Totals) Add(o Totals) {
	t.Rows += o.Rows
	t.Walked += o.Walked
	t.RawBytes += o.RawBytes
	t.StoredBytes += o.StoredBytes
	t.Objects += o.Objects
	t.Parts += o.Parts
	t.ReadUnits += o.ReadUnits
	t.Digest.Add(o.Digest)
	if !o.First.IsZero() && (t.First.IsZero() || o.First.Before(t.First)) {
		t.First = o.First
	}
	if o.Latest.After(t.Latest) {
		t.Latest = o.Latest
	}
}

// Overflow says that a sum of counts was greater than a count can be, if that is asked
// after each that was added.
func (t *Totals) Overflow() bool {
	return min(t.Rows, t.Walked, t.RawBytes, t.StoredBytes, t.Objects, t.Parts, t.ReadUnits) < 0
}

// Group is the roll-up of a group: the logs of its segments, and of all that they were
// split into, in one object.
type Group struct {
	Group    int          `json:"group"`
	Segments []SegmentLog `json:"segments"`
	Totals   Totals       `json:"totals"`
	// Usage is that of the slots and of the planner's look that rolled them up.
	Usage object.Usage `json:"usage,omitzero"`
}

// SegmentLog is a segment with its whole log.
type SegmentLog struct {
	Segment Segment `json:"segment"`
	Slots   []Slot  `json:"slots"`
}

func (*Group) kind() docKind { return docKind{name: "group", limit: MaxDocument} }

func (g *Group) validate(name string) error {
	b, err := groupOf(name)
	if err != nil {
		return err
	}
	var c checks
	c.number("group", g.Group)
	c.at(name, b.Group(g.Group))
	c.usage(g.Usage)
	var sum Totals
	for i := range g.Segments {
		l := &g.Segments[i]
		c.bounds(l.Segment)
		if c.err == nil && l.Segment.ID.Group() != g.Group {
			c.err = fmt.Errorf("segment %s in the roll-up of group %d", l.Segment.ID, g.Group)
		}
		for n := range l.Slots {
			s := &l.Slots[n]
			if c.err == nil && (s.Segment != l.Segment.ID || s.Slot != n) {
				c.err = fmt.Errorf("slot %d of segment %s is slot %d of segment %.80q", n, l.Segment.ID, s.Slot, s.Segment)
			}
			c.number("start", s.Start)
			c.slot(b, s)
			if c.err != nil {
				return c.err
			}
			if s.Part != nil {
				sum.AddPart(s.Part)
			}
		}
	}
	if c.err == nil && sum != g.Totals {
		c.err = fmt.Errorf("its parts sum up to %+v, and it says %+v", sum, g.Totals)
	}
	return c.err
}

// groupOf is the backup of a roll-up, by its name.
func groupOf(name string) (Backup, error) {
	b, _, ok := cutPlace(name, GroupPrefix, "", 1)
	if !ok {
		return Backup{}, fmt.Errorf("%.300q is no name of a roll-up", name)
	}
	return b, nil
}

// State says whether a manifest seals a backup or gives it up.
type State string

// The states of manifests.
const (
	Sealed State = "sealed"
	Void   State = "void"
)

// Manifest ends a backup.
type Manifest struct {
	Backup BackupID `json:"backup"`
	Table  TableID  `json:"table"`
	Kind   Kind     `json:"kind"`
	State  State    `json:"state"`
	// Reason says why a backup was given up.
	Reason string    `json:"reason,omitempty"`
	Sealed time.Time `json:"sealed"`
	// Plan and Groups name the documents that the backup consists of; the groups name the
	// shards.
	Plan   *Object  `json:"plan,omitempty"`
	Groups []Object `json:"groups,omitempty"`
	Totals Totals   `json:"totals"`
	// Segments is the number of segments, those from splits included.
	Segments int `json:"segments"`
	// Fuzzy says that the rows were read one after the other from Totals.First to
	// Totals.Latest, with no change stream to bring them to one instant.
	Fuzzy bool `json:"fuzzy"`
	// ConsistentAt is the recovery point; nil in a fuzzy backup.
	ConsistentAt *time.Time `json:"consistent_at,omitempty"`
	Parent       *Parent    `json:"parent,omitempty"`
	// Usage is that of the groups and of the planner's look that sealed.
	Usage object.Usage `json:"usage,omitzero"`
}

func (*Manifest) kind() docKind { return listing("manifest", listDocument) }

func (m *Manifest) clip() { m.Reason = clip(m.Reason) }

func (m *Manifest) validate(name string) error {
	b := Backup{m.Table, m.Backup}
	var c checks
	c.backup(m.Backup)
	c.table("the source", m.Table)
	c.at(name, b.Manifest())
	c.that(m.Kind == Full, fmt.Sprintf("a backup of kind %.80q: this version knows %q", m.Kind, Full))
	c.text("reason", m.Reason)
	c.instant("sealed", m.Sealed)
	c.parent(m.Parent)
	c.usage(m.Usage)
	c.totals(m.Totals)
	c.count("segments", int64(m.Segments))
	switch m.State {
	case Void:
		c.that(m.Plan == nil && m.Groups == nil && m.Totals == Totals{} && m.Segments == 0 && m.ConsistentAt == nil && !m.Fuzzy, "given up, and it names what it holds")
	case Sealed:
		c.that(m.Reason == "", "sealed, with a reason to give it up")
		c.that(m.Fuzzy == (m.ConsistentAt == nil), "want a recovery point, or fuzzy")
		c.that(!m.RecoveryPoint().After(m.Sealed.Add(ClocksApart)), "its recovery point was still to come when it was sealed")
		c.that(m.Plan != nil && len(m.Groups) > 0 && m.Segments > 0, "sealed without a plan, without groups or without segments")
		c.holds(b, m)
	default:
		c.try(fmt.Errorf("state %.80q: want sealed or void", m.State))
	}
	return c.err
}

// holds is what a sealed manifest names: its backup's own plan and roll-ups, and all of
// these.
func (c *checks) holds(b Backup, m *Manifest) {
	if m.ConsistentAt != nil {
		c.instant("consistent_at", *m.ConsistentAt)
	}
	if m.Plan != nil {
		c.object(*m.Plan)
		c.named(m.Plan.Name, b.Plan())
	}
	for g, o := range m.Groups {
		c.object(o)
		c.named(o.Name, b.Group(g))
	}
}

// named holds a name that a document tells against the one that it must be.
func (c *checks) named(name, want string) {
	if c.err == nil && name != want {
		c.err = fmt.Errorf("it names %.300q for %q", name, want)
	}
}

// totals are sums that can be.
func (c *checks) totals(t Totals) {
	if c.err == nil && (t.Overflow() || t.Rows != t.Walked || t.Objects != 2*t.Parts || t.Rows > 0 && t.Parts == 0) {
		c.err = fmt.Errorf("totals of %+v", t)
	}
	c.span(t.First, t.Latest)
}

// RecoveryPoint is the instant that a restore of the backup brings back: where the backup
// is exact that instant, where it is fuzzy the end of its scan, and where there was no
// page to tell of one, when it was sealed.
func (m *Manifest) RecoveryPoint() time.Time {
	switch {
	case m.ConsistentAt != nil:
		return *m.ConsistentAt
	case m.Totals.Latest.IsZero():
		return m.Sealed
	}
	return m.Totals.Latest
}
