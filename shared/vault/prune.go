package vault

import (
	"strings"
	"time"
)

// Mark says that a backup is to be deleted. It stands before anything of the backup goes
// and until long after all of it is gone; as long as it does, the backup is no recovery
// point, whatever its manifest says.
type Mark struct {
	Backup  BackupID  `json:"backup"`
	Table   TableID   `json:"table"`
	At      time.Time `json:"at"`
	Command string    `json:"command"` // version of the command that marked
	// Reason says why its time is over.
	Reason string `json:"reason"`
}

func (*Mark) kind() docKind { return docKind{name: "mark", limit: shortDocument} }

func (m *Mark) clip() { m.Reason = clip(m.Reason) }

func (m *Mark) validate(name string) error {
	var c checks
	c.backup(m.Backup)
	c.table("the source", m.Table)
	c.at(name, Backup{m.Table, m.Backup}.Mark())
	c.instant("at", m.At)
	c.text("command", m.Command)
	c.text("reason", m.Reason)
	return c.err
}

// MarkPrefix begins the names of all marks, ClockPrefix of objects that are made and
// removed to learn the store's date.
const (
	MarkPrefix  = "marks/"
	ClockPrefix = "clock/"
)

const (
	markSuffix = ".json"
	goneSuffix = ".gone"
)

// Mark is the name of the backup's mark.
func (b Backup) Mark() string { return MarkPrefix + b.place() + markSuffix }

// Gone is the name, beside the backup's mark, of an empty object that says since when
// nothing of the backup is left.
func (b Backup) Gone() string { return MarkPrefix + b.place() + goneSuffix }

// ParseMark is the inverse of Mark, and of Gone, with gone set.
func ParseMark(name string) (b Backup, gone, ok bool) {
	if b, _, ok = cutPlace(name, MarkPrefix, markSuffix, 0); ok {
		return b, false, true
	}
	b, _, ok = cutPlace(name, MarkPrefix, goneSuffix, 0)
	return b, ok, ok
}

// Copies begins the names of the records of a backup that was copied into a vault.
func (b Backup) Copies() string { return CopiesPrefix + b.place() + "/" }

// ParseCopying tells of an object of a log of copying to which backup it belongs, and to
// which replica, by its key.
func ParseCopying(name string) (b Backup, key string, ok bool) {
	rest, found := strings.CutPrefix(name, CopyingPrefix)
	parts := strings.SplitN(rest, "/", 6)
	if !found || len(parts) != 6 || !idForm.MatchString(parts[3]) {
		return Backup{}, "", false
	}
	return Backup{Table: TableID{parts[0], parts[1], parts[2]}, ID: BackupID(parts[3])}, parts[4], true
}

// Copyings begins the names of the objects by which all copies of the backup are
// reported.
func (b Backup) Copyings() string { return CopyingPrefix + b.place() + "/" }
