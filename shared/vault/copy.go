package vault

import (
	"fmt"
	"time"

	"github.com/tablevault/tablevault/shared/object/place"
)

// Copied stands in the vault that a backup was copied into, as a rule a replica. It tells
// the checksums that the vault's store answered when objects of one group came in, whose
// bytes had the sha256 of the backup's own records. So an object that still has its
// checksum is the one that was copied.
type Copied struct {
	Backup BackupID `json:"backup"`
	Table  TableID  `json:"table"`
	Group  int      `json:"group"`
	// Record numbers the records of a group.
	Record int `json:"record"`
	// Manifest is the sha256 of the manifest that the group belongs to.
	Manifest string   `json:"manifest"`
	Objects  []Object `json:"objects"`
	// Last says that with this record and those before it the group is whole.
	Last bool `json:"last,omitempty"`
}

func (*Copied) kind() docKind { return listing("copied", listDocument) }

func (d *Copied) validate(name string) error {
	var c checks
	c.backup(d.Backup)
	c.table("the source", d.Table)
	c.number("group", d.Group)
	c.number("record", d.Record)
	c.at(name, Backup{d.Table, d.Backup}.Copied(d.Group, d.Record))
	c.digest("the manifest", d.Manifest)
	for _, o := range d.Objects {
		c.object(o)
		if c.err == nil && o.Checksum == "" {
			c.err = fmt.Errorf("%.200q has no checksum", o.Name)
		}
	}
	return c.err
}

// CopyNote stands in the vault that a backup was copied from, and says that a copy was
// once complete in a replica.
type CopyNote struct {
	Backup   BackupID  `json:"backup"`
	Table    TableID   `json:"table"`
	Replica  string    `json:"target"` // the address of the replica
	At       time.Time `json:"at"`
	Objects  int64     `json:"objects"`
	Bytes    int64     `json:"bytes"`
	Manifest string    `json:"manifest"` // its sha256
}

func (*CopyNote) kind() docKind { return docKind{name: "copy-note", limit: shortDocument} }

func (d *CopyNote) validate(name string) error {
	var c checks
	c.backup(d.Backup)
	c.table("the source", d.Table)
	c.that(d.Replica != "", "no target")
	c.at(name, Backup{d.Table, d.Backup}.CopyNote(place.Key(d.Replica)))
	c.text("target", d.Replica)
	c.instant("at", d.At)
	c.count("objects", d.Objects)
	c.count("bytes", d.Bytes)
	c.digest("the manifest", d.Manifest)
	return c.err
}

// The prefixes of names about copies: CopiesPrefix of the records in a replica,
// CopyNotesPrefix of the notes about complete copies, which stand in the vault that was
// copied from, and CopyingPrefix of the log of the copying, which stands there too.
const (
	CopiesPrefix    = "copies/"
	CopyNotesPrefix = "copied/"
	CopyingPrefix   = "copying/"
)

// Copied is the name of a record of a group that was copied into a vault.
func (b Backup) Copied(group, record int) string {
	return fmt.Sprintf("%s%06d/%06d.json", b.Copies(), group, record)
}

// ProbePrefix begins the names of objects that a replica is asked for, to find out that
// it is another place than this vault.
const ProbePrefix = "probes/"

// ProbeName is the name of such an object, of a replica by its key.
func ProbeName(key, name string) string { return ProbePrefix + key + "/" + name }

// CopyNotes begins the names of the notes about a backup's copies.
func (b Backup) CopyNotes() string {
	return CopyNotesPrefix + b.place() + "/"
}

// CopyNote is the name of the note about a copy; key is its replica's, see place.Key.
func (b Backup) CopyNote(key string) string { return b.CopyNotes() + key + ".json" }

// ParseCopyNote is CopyNote's inverse.
func ParseCopyNote(name string) (b Backup, key string, ok bool) {
	b, after, ok := cutPlace(name, CopyNotesPrefix, ".json", 1)
	if !ok {
		return Backup{}, "", false
	}
	return b, after[0], true
}

// Copying is the log of the copying of the backup to a replica, by the replica's key.
// What its names call a segment is a group, by the id of its first segment.
func (b Backup) Copying(key string) Log {
	return Log{root: b.Copyings() + key + "/"}
}

// GroupID is the id of a group's first segment, which stands for the group in the log of
// its copying.
func GroupID(group int) SegmentID { return NewSegmentID(group * GroupSize) }

// ParseShard tells of a shard or an index to which segment of which backup it belongs.
func ParseShard(name string) (b Backup, s SegmentID, ok bool) {
	b, after, ok := cutPlace(name, ShardPrefix, "", 2)
	if !ok || !segmentForm.MatchString(after[0]) {
		return Backup{}, "", false
	}
	return b, SegmentID(after[0]), true
}
