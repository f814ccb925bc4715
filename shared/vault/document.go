// Package vault says what a vault holds: the names of its objects and the
// documents in them.
//
// A vault is a bucket and a prefix in which every object is written once. A
// backup is the set of objects that its manifest names. The plan says what is
// to be read and in which segments; each segment reports in a log of slots;
// roll-ups gather the segments of a group; the manifest seals the whole. The
// shards themselves are package shard's.
//
// The package is pure: it knows no network, no clock and no store.
package vault

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tablevault/tablevault/shared/table"
)

// Format is the version of the documents that this package writes and reads.
const Format = 2

// Program is the version of the program, which documents record.
const Program = "0.1.0"

// ErrCorrupt matches errors about objects that are not what they should be.
var ErrCorrupt = errors.New("corrupt object")

// ErrVersion matches errors about objects of a version that this command does
// not know.
var ErrVersion = errors.New("unknown format version")

// A Document is one of the vault's JSON objects.
type Document interface {
	doc() string
	validate() error
}

// envelope stands in front of every document.
type envelope struct {
	Document string          `json:"document"`
	Format   int             `json:"format"`
	Body     json.RawMessage `json:"body"`
}

// Encode writes a document. Equal documents have equal bytes.
func Encode(d Document) ([]byte, error) {
	if err := d.validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", d.doc(), err)
	}
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	err := e.Encode(struct {
		Document string `json:"document"`
		Format   int    `json:"format"`
		Body     any    `json:"body"`
	}{d.doc(), Format, d})
	return buf.Bytes(), err
}

// Decode reads a document strictly: a field that is not known, another
// document, and anything after it are corrupt; an unknown version is refused
// as such before anything else is looked at.
func Decode(data []byte, d Document) error {
	var e envelope
	if err := decodeJSON(data, &e, false); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, d.doc(), err)
	}
	if e.Format != Format {
		return fmt.Errorf("%w: a %s of %w", ErrVersion, d.doc(), Unreadable(e.Format))
	}
	if e.Document != d.doc() {
		return fmt.Errorf("%w: a document %q where a %s should be", ErrCorrupt, e.Document, d.doc())
	}
	if err := decodeJSON(e.Body, d, true); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, d.doc(), err)
	}
	if err := d.validate(); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, d.doc(), err)
	}
	return nil
}

// Unreadable says why a format is not read, and what to do.
func Unreadable(format int) error {
	switch {
	case format == 1:
		return errors.New("format 1, which was never released, and which no tablevault reads any more: begin a new vault with another prefix or folder, and delete this one")
	case format > Format:
		return fmt.Errorf("format %d, and this command reads format %d: use a newer tablevault", format, Format)
	}
	return fmt.Errorf("format %d, which there never was: the object is damaged", format)
}

func decodeJSON(data []byte, v any, strict bool) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if strict {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("bytes after the document")
	}
	return nil
}

// Header is vault.json.
type Header struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	// Seed is the seed of every row digest in the vault.
	Seed Seed `json:"digest_seed"`
	// Signers are the public keys whose signatures count.
	Signers []string `json:"signers"`
}

func (*Header) doc() string { return "vault" }

func (h *Header) validate() error {
	if h.ID == "" {
		return errors.New("no id")
	}
	return nil
}

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
	Full        Kind = "full"
	Incremental Kind = "incremental"
	Synthetic   Kind = "synthetic"
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
	// SegmentBytes is the size that segments were planned for, as the service
	// counts it.
	SegmentBytes int64 `json:"segment_bytes"`
	// Lanes is the greatest number of lanes of a segment.
	Lanes int `json:"lanes"`
	// PartBytes is the size of a shard object at which its part ends.
	PartBytes int64 `json:"part_bytes"`
	// ReadUnits is the budget of the table in read units per second, for all
	// workers of the backup together, 0 for none.
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
	// Workers is how many workers the budget of read units is divided over, and
	// so the most that work at a time; 0 where there is no budget.
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

// Segment is what one invocation at a time works on: adjoining ranges, the
// lanes, that are read side by side. Lane i goes from bound i to bound i+1.
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
	if _, err := ParseSegmentID(string(s.ID)); err != nil {
		return err
	}
	if n := len(s.Bounds); n < 2 || n > MaxLanes+1 {
		return fmt.Errorf("segment %s has %d bounds: want 2 to %d", s.ID, n, MaxLanes+1)
	}
	for _, lane := range s.Lanes() {
		if err := lane.Validate(schema); err != nil {
			return fmt.Errorf("segment %s: %w", s.ID, err)
		}
	}
	return nil
}

func (*Plan) doc() string { return "plan" }

func (p *Plan) validate() error {
	if _, err := ParseBackupID(string(p.Backup)); err != nil {
		return err
	}
	if p.Kind != Full {
		return fmt.Errorf("a backup of kind %q: this version knows %q", p.Kind, Full)
	}
	if err := p.Definition.Validate(); err != nil {
		return err
	}
	if err := p.Encryption.validate(); err != nil {
		return err
	}
	var ranges []table.Range
	for i, s := range p.Segments {
		if err := s.validate(p.Definition.Schema); err != nil {
			return err
		}
		if s.ID != NewSegmentID(i) {
			return fmt.Errorf("segment %s stands at place %d", s.ID, i)
		}
		ranges = append(ranges, s.Range())
	}
	if err := table.Covers(p.Definition.Schema.Whole(), ranges); err != nil {
		return fmt.Errorf("the segments do not cover the table: %w", err)
	}
	return nil
}

func (e Encryption) validate() error {
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
	// Checksum is what the store answered, in the store's own form; empty
	// where a document is named by another.
	Checksum string `json:"checksum,omitempty"`
}

// Slot is one entry of a segment's log: a part, or a split.
type Slot struct {
	Segment SegmentID `json:"segment"`
	Slot    int       `json:"slot"`
	Start   int       `json:"start"` // number of the start that wrote it
	Part    *Part     `json:"part,omitempty"`
	Split   *Split    `json:"split,omitempty"`
	// Usage is what the worker asked of the store since its last slot, or since
	// it began, up to where it wrote this one.
	Usage Usage `json:"usage,omitzero"`
}

// Part says what one shard holds.
type Part struct {
	Shard Object `json:"shard"`
	Index Object `json:"index"`
	// Rows is the number of rows in the shard, Walked the number that the pages
	// held, RawBytes the size of the rows as PlainBuffer.
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
	// ClosingMS is how long it took to store the part once its last page was
	// read, in milliseconds.
	ClosingMS int64 `json:"closing_ms,omitempty"`
	// Pace is what the worker was held back by, nil if by nothing.
	Pace *Pace `json:"pace,omitempty"`
}

// Pace says why a worker read or wrote more slowly than it could.
type Pace struct {
	// Reason is what held it back in the end: one of the Paced constants.
	Reason string `json:"reason"`
	// ReadUnits is the rate in read units per second that it was held to, WriteUnits
	// the same of a worker that writes; both are 0 where nothing holds it any more.
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

// Lane says how far a part went in one lane: it holds the rows from From,
// inclusive, to Next, exclusive.
type Lane struct {
	From table.Key `json:"from"`
	Next table.Key `json:"next"`
	Rows int64     `json:"rows"`
}

// Split ends a segment's lanes where they stand and hands what is left over to
// children.
type Split struct {
	Closed   []table.Key `json:"closed"`
	Children []Segment   `json:"children"`
}

func (*Slot) doc() string { return "slot" }

func (s *Slot) validate() error {
	if _, err := ParseSegmentID(string(s.Segment)); err != nil {
		return err
	}
	if (s.Part == nil) == (s.Split == nil) {
		return fmt.Errorf("slot %d of segment %s: want a part or a split", s.Slot, s.Segment)
	}
	if p := s.Part; p != nil && (len(p.Lanes) == 0 || len(p.Lanes) > MaxLanes || p.Shard.Name == "" || len(p.Shard.SHA256) != 64) {
		return fmt.Errorf("slot %d of segment %s: an incomplete part", s.Slot, s.Segment)
	}
	if s.Split != nil && len(s.Split.Children) > MaxChildren {
		return fmt.Errorf("slot %d of segment %s: a split into %d: want at most %d", s.Slot, s.Segment, len(s.Split.Children), MaxChildren)
	}
	return nil
}

// Note is what a start or a failure leaves: who, when, until when, and why.
type Note struct {
	Segment SegmentID `json:"segment"`
	Start   int       `json:"start"`
	Request string    `json:"request,omitempty"` // the platform's id of the invocation
	Began   time.Time `json:"began"`
	// Until is when the platform ends the invocation.
	Until time.Time `json:"until"`
	// Slot is the number of slots that the segment's log had, and Idle how many
	// starts in a row before this one found it so and added nothing.
	Slot int `json:"slot,omitempty"`
	Idle int `json:"idle,omitempty"`
	// Target is the address of the vault that a start copies to, Rate what it may
	// use of the target's budget, in bytes per second.
	Target string `json:"target,omitempty"`
	Rate   int64  `json:"bytes_per_second,omitempty"`
	// Error and Permanent stand in failures only.
	Error     string `json:"error,omitempty"`
	Permanent bool   `json:"permanent,omitempty"`
	// InDoubt stands in failures only: a request that the start had sent may still be
	// carried out, so that the note does not say that it is over.
	InDoubt bool `json:"in_doubt,omitempty"`
}

func (*Note) doc() string { return "note" }

func (n *Note) validate() error { return nil }

// Ask is the planner's request to a segment's worker to split what is left of
// it, since workers are free and this one lags behind its siblings.
type Ask struct {
	Segment SegmentID `json:"segment"`
	// Children is how many workers could go on side by side.
	Children int       `json:"children"`
	At       time.Time `json:"at"`
}

func (*Ask) doc() string { return "ask" }

func (a *Ask) validate() error {
	if a.Children < 2 || a.Children > MaxChildren {
		return fmt.Errorf("a split of segment %s into %d: want 2 to %d", a.Segment, a.Children, MaxChildren)
	}
	_, err := ParseSegmentID(string(a.Segment))
	return err
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

// Group is the roll-up of a group: the logs of its segments, and of all that
// they were split into, in one object.
type Group struct {
	Group    int          `json:"group"`
	Segments []SegmentLog `json:"segments"`
	Totals   Totals       `json:"totals"`
	// Usage is that of the slots and of the planner's look that rolled them up.
	Usage Usage `json:"usage,omitzero"`
}

// SegmentLog is a segment with its whole log.
type SegmentLog struct {
	Segment Segment `json:"segment"`
	Slots   []Slot  `json:"slots"`
}

func (*Group) doc() string { return "group" }

func (g *Group) validate() error {
	for _, s := range g.Segments {
		if s.Segment.ID.Group() != g.Group {
			return fmt.Errorf("segment %s in the roll-up of group %d", s.Segment.ID, g.Group)
		}
		if len(s.Segment.Bounds) < 2 {
			return fmt.Errorf("segment %s without bounds", s.Segment.ID)
		}
	}
	return nil
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
	// Plan and Groups name the documents that the backup consists of; the
	// groups name the shards.
	Plan   *Object  `json:"plan,omitempty"`
	Groups []Object `json:"groups,omitempty"`
	Totals Totals   `json:"totals"`
	// Segments is the number of segments, those from splits included.
	Segments int `json:"segments"`
	// Fuzzy says that the rows were read one after the other from Totals.First
	// to Totals.Latest, with no change stream to bring them to one instant.
	Fuzzy bool `json:"fuzzy"`
	// ConsistentAt is the recovery point; nil in a fuzzy backup.
	ConsistentAt *time.Time `json:"consistent_at,omitempty"`
	Parent       *Parent    `json:"parent,omitempty"`
	// Usage is that of the groups and of the planner's look that sealed.
	Usage Usage `json:"usage,omitzero"`
}

func (*Manifest) doc() string { return "manifest" }

func (m *Manifest) validate() error {
	if _, err := ParseBackupID(string(m.Backup)); err != nil {
		return err
	}
	switch m.State {
	case Void:
		return nil
	case Sealed:
		if m.Plan == nil || len(m.Groups) == 0 {
			return errors.New("sealed without a plan or without groups")
		}
		return nil
	}
	return fmt.Errorf("state %q: want sealed or void", m.State)
}

// RecoveryPoint is the instant that a restore of the backup brings back: where
// the backup is exact that instant, where it is fuzzy the end of its scan, and where
// there was no page to tell of one, when it was sealed.
func (m *Manifest) RecoveryPoint() time.Time {
	switch {
	case m.ConsistentAt != nil:
		return *m.ConsistentAt
	case m.Totals.Latest.IsZero():
		return m.Sealed
	}
	return m.Totals.Latest
}
