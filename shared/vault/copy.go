package vault

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Copied stands in a vault that holds copies: it says of the objects of one
// group of a backup what the vault's own store answered when they came in. The
// bytes that came had the sha256 that the backup's own records name; so an
// object that still has the checksum here is the one that was copied.
type Copied struct {
	Backup BackupID `json:"backup"`
	Table  TableID  `json:"table"`
	Group  int      `json:"group"`
	// Manifest is the sha256 of the manifest that the group belongs to.
	Manifest string   `json:"manifest"`
	Objects  []Object `json:"objects"`
}

func (*Copied) doc() string { return "copied" }

func (c *Copied) validate() error {
	if _, err := ParseBackupID(string(c.Backup)); err != nil {
		return err
	}
	if c.Group < 0 {
		return fmt.Errorf("group %d", c.Group)
	}
	return nil
}

// CopyNote stands in the vault that a backup was copied from, and says that a
// whole copy of it was once complete elsewhere.
type CopyNote struct {
	Backup   BackupID  `json:"backup"`
	Table    TableID   `json:"table"`
	Target   string    `json:"target"` // the address of the other vault
	At       time.Time `json:"at"`
	Objects  int64     `json:"objects"`
	Bytes    int64     `json:"bytes"`
	Manifest string    `json:"manifest"`
}

func (*CopyNote) doc() string { return "copy-note" }

func (c *CopyNote) validate() error {
	if _, err := ParseBackupID(string(c.Backup)); err != nil {
		return err
	}
	if c.Target == "" {
		return errors.New("no target")
	}
	return nil
}

// CopiesPrefix begins the names of the records of what was copied into a vault,
// CopyNotesPrefix those of what was copied from it.
const (
	CopiesPrefix    = "copies/"
	CopyNotesPrefix = "copied/"
)

// Copied is the name of the record of a group that was copied into a vault.
func (b Backup) Copied(group int) string {
	return fmt.Sprintf("%s%s/%s/%06d.json", CopiesPrefix, b.Table.Path(), b.ID, group)
}

// CopyNotes begins the names of the notes about a backup's copies.
func (b Backup) CopyNotes() string {
	return CopyNotesPrefix + b.Table.Path() + "/" + string(b.ID) + "/"
}

// CopyNote is the name of the note about a copy; target is what tells its vault
// from others.
func (b Backup) CopyNote(target string) string { return b.CopyNotes() + target + ".json" }

// ParseShard finds out to which segment of which backup a shard or its index
// belongs, by its name.
func ParseShard(name string) (b Backup, s SegmentID, ok bool) {
	parts := strings.Split(name, "/")
	if len(parts) != 8 || parts[0]+"/" != Backups || parts[5] != "shards" || !idForm.MatchString(parts[4]) || !segmentForm.MatchString(parts[6]) {
		return Backup{}, "", false
	}
	return Backup{Table: TableID{parts[1], parts[2], parts[3]}, ID: BackupID(parts[4])}, SegmentID(parts[6]), true
}
