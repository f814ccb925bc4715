package vault

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/table"
)

// TableID says which table a backup is of: region / instance / table. Its region is
// "local" on one machine.
type TableID struct {
	Region, Instance, Table string
}

// Path is the table's place in names of objects.
func (t TableID) Path() string { return t.Region + "/" + t.Instance + "/" + t.Table }

// String is the table as commands name it: instance/table.
func (t TableID) String() string { return t.Instance + "/" + t.Table }

// MarshalText writes Path's form.
func (t TableID) MarshalText() ([]byte, error) { return []byte(t.Path()), nil }

// UnmarshalText reads Path's form.
func (t *TableID) UnmarshalText(text []byte) error {
	region, name, _ := strings.Cut(string(text), "/")
	id, err := ParseTable(region, name)
	if err != nil || region == "" {
		return fmt.Errorf("table id %q: want region/instance/table", text)
	}
	*t = id
	return nil
}

// ParseTable reads String's form, instance/table, of a table in a region.
func ParseTable(region, name string) (TableID, error) {
	instance, of, ok := strings.Cut(name, "/")
	if !ok || instance == "" || of == "" || strings.Contains(of, "/") {
		return TableID{}, table.Invalidf("table %q: want instance/table", name)
	}
	return TableID{Region: region, Instance: instance, Table: of}, nil
}

// BackupID names a backup. Ids sort by the time of what triggered them, and two
// deliveries of one trigger make the same id.
type BackupID string

// RestoreID names a restore.
type RestoreID string

// SegmentID names a segment of a backup: six digits, and for what a segment was split
// into, a dot and two digits more per generation.
type SegmentID string

var (
	idForm      = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}$`)
	segmentForm = regexp.MustCompile(`^[0-9]{6}(\.[0-9]{2})*$`)
)

const idTime = "20060102T150405Z"

// NewBackupID derives an id from the instant of a trigger and from what else tells this
// backup from others of that instant: trigger name, table, kind.
func NewBackupID(at time.Time, parts ...string) BackupID { return BackupID(newID(at, parts)) }

// NewRestoreID derives an id as NewBackupID does.
func NewRestoreID(at time.Time, parts ...string) RestoreID { return RestoreID(newID(at, parts)) }

// RestoreAsked is the id of the restore of a backup into a target that was asked for at
// an instant: all who know of the request derive it, and agree. What asks in the same
// second for a table that takes local transactions is another request.
func RestoreAsked(at time.Time, b BackupID, target TableID, transactions bool) RestoreID {
	parts := []string{string(b), target.Path()}
	if transactions {
		parts = append(parts, "local transactions")
	}
	return NewRestoreID(at, parts...)
}

func newID(at time.Time, parts []string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return at.UTC().Format(idTime) + "-" + hex.EncodeToString(sum[:4])
}

// Time is the instant of what triggered the backup, to the second; zero if the id is not
// one.
func (b BackupID) Time() time.Time {
	if !idForm.MatchString(string(b)) {
		return time.Time{}
	}
	at, err := time.Parse(idTime, string(b[:len(idTime)]))
	if err != nil {
		return time.Time{}
	}
	return at
}

// ParseBackupID checks an id that was given from outside.
func ParseBackupID(s string) (BackupID, error) {
	if !idForm.MatchString(s) {
		return "", fmt.Errorf("backup id %q: want the form 20261120T101400Z-0a1b2c3d, as `tablevault list` prints it", s)
	}
	return BackupID(s), nil
}

// ParseRestoreID checks an id that was given from outside.
func ParseRestoreID(s string) (RestoreID, error) {
	if !idForm.MatchString(s) {
		return "", fmt.Errorf("restore id %q: want the form 20261120T101400Z-0a1b2c3d", s)
	}
	return RestoreID(s), nil
}

// ParseSegmentID checks an id that was given from outside.
func ParseSegmentID(s string) (SegmentID, error) {
	if !segmentForm.MatchString(s) {
		return "", fmt.Errorf("segment id %q: want six digits, and .NN per split", s)
	}
	return SegmentID(s), nil
}

// NewSegmentID is the id of the i-th segment of a plan.
func NewSegmentID(i int) SegmentID { return SegmentID(fmt.Sprintf("%06d", i)) }

// Child is the id of the i-th of those that s was split into.
func (s SegmentID) Child(i int) SegmentID { return SegmentID(fmt.Sprintf("%s.%02d", s, i)) }

// GroupSize is how many of a plan's segments make a group. A finished segment costs at
// most one list over its group, whatever the size of the backup.
const GroupSize = 256

// MaxChildren is the greatest number of segments that one is split into.
const MaxChildren = 99

// Generation is how many splits a segment comes from.
func (s SegmentID) Generation() int { return strings.Count(string(s), ".") }

// Group is the group of a segment and of all that it was split into.
func (s SegmentID) Group() int {
	n := 0
	for _, d := range []byte(s[:min(6, len(s))]) {
		n = n*10 + int(d-'0')
	}
	return n / GroupSize
}

// HeaderName is the object that makes a bucket and prefix a vault.
const HeaderName = "vault.json"

// ManifestPrefix begins the names of the manifests of all tables.
const ManifestPrefix = "manifests/"

// ManifestsOf begins the names of a table's manifests.
func ManifestsOf(t TableID) string { return ManifestPrefix + t.Path() + "/" }

// ManifestName is the name that seals a backup, or gives it up.
func ManifestName(t TableID, b BackupID) string { return ManifestsOf(t) + string(b) + ".json" }

// ParseManifestName is ManifestName's inverse; ok is false for other names, a signature's
// among them.
func ParseManifestName(name string) (b Backup, ok bool) {
	b, _, ok = cutPlace(name, ManifestPrefix, ".json", 0)
	return b, ok
}

// SignatureName is the name of an object's detached signature.
func SignatureName(name string) string { return strings.TrimSuffix(name, ".json") + ".sig" }

// Kinds come before tables in names, and before ids: policies of object stores
// know a star that stands for any text, slashes too, so that a grant on what
// begins with a kind is about that kind, whatever a table, a backup, a restore
// or a request is called.

// The first parts of the names of a backup's objects, by their kind. Manifests and the
// marks that backups were begun have ManifestPrefix and OpenedPrefix.
const (
	PlanPrefix  = "plans/"
	ShardPrefix = "shards/"
	GroupPrefix = "groups/"
)

// The kinds of the objects of a log.
const (
	slotsKind    = "slots/"
	doneKind     = "done/"
	asksKind     = "asks/"
	startsKind   = "starts/"
	failuresKind = "failures/"
	endsKind     = "ends/"
	progressKind = "progress/"
)

// Backup names the objects of one backup.
type Backup struct {
	Table TableID
	ID    BackupID
}

// Of is an error if a table, instance/table, is not the backup's, for whoever names both.
func (b Backup) Of(name string) error {
	if name == b.Table.String() {
		return nil
	}
	return table.Invalidf("backup %s is of %s, not of %s: name the backup alone, or the table alone for its newest backup", b.ID, b.Table, name)
}

// place is what follows the kind in the names of the backup's objects.
func (b Backup) place() string { return b.Table.Path() + "/" + string(b.ID) }

// cutPlace is place's inverse, in a name that begins with a kind and ends with a suffix.
// In after are the parts, so many as more says, that follow the backup's place.
func cutPlace(name, kind, suffix string, more int) (b Backup, after []string, ok bool) {
	rest, begins := strings.CutPrefix(name, kind)
	rest, ends := strings.CutSuffix(rest, suffix)
	parts := strings.Split(rest, "/")
	if !begins || !ends || len(parts) != 4+more || !idForm.MatchString(parts[3]) {
		return Backup{}, nil, false
	}
	return Backup{Table: TableID{parts[0], parts[1], parts[2]}, ID: BackupID(parts[3])}, parts[4:], true
}

// Plan is the name of the backup's plan.
func (b Backup) Plan() string { return PlanPrefix + b.place() + ".json" }

// Manifest is the name of the backup's manifest.
func (b Backup) Manifest() string { return ManifestName(b.Table, b.ID) }

// IsShard says whether an object is a shard or its index. These are most of a vault's
// bytes and are read in a restore only, whereas every run reads documents.
func IsShard(name string) bool { return strings.HasPrefix(name, ShardPrefix) }

// Shards begins the names of the backup's shards and their indexes.
func (b Backup) Shards() string { return ShardPrefix + b.place() + "/" }

// Shard is the name of a data object; random is new for each execution.
func (b Backup) Shard(s SegmentID, random string) string {
	return b.Shards() + string(s) + "/" + random + ".shard"
}

// Index is the name of the index object of a shard.
func Index(shard string) string { return strings.TrimSuffix(shard, ".shard") + ".index" }

// Group is the name of a group's roll-up.
func (b Backup) Group(g int) string { return fmt.Sprintf("%s%06d.json", b.Groups(), g) }

// Groups begins the names of the backup's roll-ups.
func (b Backup) Groups() string { return GroupPrefix + b.place() + "/" }

// Log names the objects of the backup's segments.
func (b Backup) Log() Log { return Log{of: b.place() + "/"} }

// Folders begin the names of all that belongs to the backup in the vault that it was made
// in, but the plan, the manifest and the mark that it was begun.
func (b Backup) Folders() []string {
	l := b.Log()
	return []string{b.Shards(), b.Groups(), l.Slots(""), l.AllDone(), l.Asks(), l.Starts(""), l.Failures(""), l.Progress("")}
}

// Restores begins the names of all restores.
const Restores = "restores/"

// Restore names the objects of one restore.
type Restore struct {
	ID RestoreID
}

// named is the name, or what begins the names, of the restore's objects of a kind.
func (r Restore) named(kind, rest string) string { return Restores + kind + "/" + string(r.ID) + rest }

// Plan is the name of the restore's plan.
func (r Restore) Plan() string { return r.named("plans", ".json") }

// Closed is the name of the record after which no row is written.
func (r Restore) Closed() string { return r.named("closed", ".json") }

// Proof is the name of the restore's proof.
func (r Restore) Proof() string { return r.named("proofs", ".json") }

// Quarantine is the name of an object with rows that the service refused.
func (r Restore) Quarantine(s SegmentID, random string) string {
	return r.named("quarantine", "/"+string(s)+"/"+random+".json")
}

// Check is the name of what verify found in a segment of the restore.
func (r Restore) Check(s SegmentID) string { return r.Checks() + string(s) + ".json" }

// Checks begins the names of what verify found in the restore's segments.
func (r Restore) Checks() string { return r.named("checks", "/") }

// Log names the objects of the restore's segments.
func (r Restore) Log() Log { return Log{root: Restores, of: string(r.ID) + "/"} }

// Log names the objects by which the segments of a backup, of a restore or of its
// verification report, or the groups of a copy. Their kind stands between root and of.
type Log struct {
	root, of string
}

// folder begins the names of the log's objects of a kind.
func (l Log) folder(kind string) string { return l.root + kind + l.of }

// MaxNumber is the greatest number of a slot, a start or a failure: it has six digits.
const MaxNumber = 999_999

// Slot is the name of the n-th slot of a segment's log.
func (l Log) Slot(s SegmentID, n int) string { return fmt.Sprintf("%s%06d.json", l.Slots(s), n) }

// Slots begins the names of a segment's slots; without a segment, of all.
func (l Log) Slots(s SegmentID) string { return within(l.folder(slotsKind), s) }

// Done is the name of the mark that a segment has ended, under its group.
func (l Log) Done(s SegmentID) string { return l.DoneIn(s.Group()) + string(s) }

// Split is the name of the mark that a segment has ended by a split into so many
// children, under its group.
func (l Log) Split(s SegmentID, children int) string {
	return fmt.Sprintf("%s-%02d", l.Done(s), children)
}

// ParseDone reads the last part of a name that Done or Split has made. Children is 0 for
// a segment whose lanes have come to their ends.
func ParseDone(base string) (s SegmentID, children int, ok bool) {
	id, n, split := strings.Cut(base, "-")
	if split {
		var err error
		if children, err = strconv.Atoi(n); err != nil || children < 1 || children > MaxChildren || len(n) != 2 {
			return "", 0, false
		}
	}
	return SegmentID(id), children, segmentForm.MatchString(id)
}

// Ask is the name of the planner's request to split a segment.
func (l Log) Ask(s SegmentID) string { return l.Asks() + string(s) + ".json" }

// Asks begins the names of the planner's requests to split segments.
func (l Log) Asks() string { return l.folder(asksKind) }

// DoneIn begins the names of the marks of a group.
func (l Log) DoneIn(group int) string { return fmt.Sprintf("%s%06d/", l.AllDone(), group) }

// AllDone begins the names of the marks of all groups.
func (l Log) AllDone() string { return l.folder(doneKind) }

// Start is the name of the n-th start of a segment.
func (l Log) Start(s SegmentID, n int) string { return fmt.Sprintf("%s%06d.json", l.Starts(s), n) }

// Starts begins the names of a segment's starts; without a segment, of all.
func (l Log) Starts(s SegmentID) string { return within(l.folder(startsKind), s) }

// Failure is the name of the n-th note of what went wrong in a segment.
func (l Log) Failure(s SegmentID, n int) string { return fmt.Sprintf("%s%06d.json", l.Failures(s), n) }

// Failures begins the names of a segment's failures; without a segment, of all.
func (l Log) Failures(s SegmentID) string { return within(l.folder(failuresKind), s) }

// within is a segment's folder in dir, or dir without one.
func within(dir string, s SegmentID) string {
	if s == "" {
		return dir
	}
	return dir + string(s) + "/"
}

// Opened is the mark that a backup was begun. It stands apart from the data, so that one
// list page finds a thousand of them; those without a manifest are open.
func Opened(t TableID, b BackupID) string { return OpenedOf(t) + string(b) }

// OpenedOf begins the names of the marks of a table's backups.
func OpenedOf(t TableID) string { return OpenedPrefix + t.Path() + "/" }

// OpenedPrefix begins the names of the marks of all backups.
const OpenedPrefix = "opened/"

// ParseOpened is Opened's inverse.
func ParseOpened(name string) (b Backup, ok bool) {
	b, _, ok = cutPlace(name, OpenedPrefix, "", 0)
	return b, ok
}
