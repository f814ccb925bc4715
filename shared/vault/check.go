package vault

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
)

// checks collects the first thing that is wrong with a document. What a document says was
// written by someone, and is believed only as far as it can be.
type checks struct{ err error }

func (c *checks) try(err error) {
	if c.err == nil {
		c.err = err
	}
}

func (c *checks) that(ok bool, otherwise string) {
	if c.err == nil && !ok {
		c.err = errors.New(otherwise)
	}
}

// at holds the name that a document stands under against the one that it tells.
func (c *checks) at(name, want string) {
	if c.err == nil && name != want {
		c.err = fmt.Errorf("it tells of what stands under %.300q", want)
	}
}

// under holds the end of a name against what a document tells of it.
func (c *checks) under(name, want string) {
	if c.err == nil && !strings.HasSuffix(name, want) {
		c.err = fmt.Errorf("it tells of what stands under a name that ends in %.300q", want)
	}
}

func (c *checks) count(what string, n int64) {
	if c.err == nil && n < 0 {
		c.err = fmt.Errorf("%s: %d", what, n)
	}
}

// number is a count that stands as six digits in names.
func (c *checks) number(what string, n int) {
	if c.err == nil && (n < 0 || n > MaxNumber) {
		c.err = fmt.Errorf("%s %d: want 0 to %d", what, n, MaxNumber)
	}
}

// rate is a number of units per second, 0 where nothing bounds it.
func (c *checks) rate(what string, n float64) {
	if c.err == nil && !(n >= 0 && n <= 1<<40) {
		c.err = fmt.Errorf("%s: %g per second", what, n)
	}
}

// instant is one that has to be told.
func (c *checks) instant(what string, t time.Time) {
	if c.err == nil && t.IsZero() {
		c.err = fmt.Errorf("%s: no instant", what)
	}
	c.date(what, t)
}

// date is an instant, or none.
func (c *checks) date(what string, t time.Time) {
	if c.err != nil || t.IsZero() {
		return
	}
	if t.Location() != time.UTC || t.Year() < 1970 || t.Year() > 9999 {
		c.err = fmt.Errorf("%s: %s: want an instant since 1970, in UTC", what, t.Format(time.RFC3339Nano))
	}
}

func (c *checks) text(what, s string) {
	if c.err == nil && (len(s) > maxText || !utf8.ValidString(s)) {
		c.err = fmt.Errorf("%s: %d bytes of text: want at most %d, in UTF-8", what, len(s), maxText)
	}
}

func (c *checks) notes(all []string) {
	if c.err == nil && len(all) > maxNotes {
		c.err = fmt.Errorf("%d notes: want at most %d", len(all), maxNotes)
	}
	for _, n := range all {
		c.text("a note", n)
		c.that(len(n) <= maxNote, "a note is too long")
	}
}

func (c *checks) backup(b BackupID) {
	if c.err == nil {
		_, c.err = ParseBackupID(string(b))
	}
}

func (c *checks) restore(r RestoreID) {
	if c.err == nil {
		_, c.err = ParseRestoreID(string(r))
	}
}

func (c *checks) segment(s SegmentID) {
	if c.err == nil {
		_, c.err = ParseSegmentID(string(s))
	}
}

func (c *checks) table(what string, t TableID) {
	if c.err == nil && (t.Region == "" || t.Instance == "" || t.Table == "" || strings.Count(t.Path(), "/") != 2) {
		c.err = fmt.Errorf("%s: the table %.200q: want region/instance/table", what, t.Path())
	}
}

var (
	digestForm   = regexp.MustCompile(`^[0-9a-f]{64}$`)
	checksumForm = regexp.MustCompile(`^[a-z0-9]{1,20}:[0-9a-f]{1,128}$`)
)

func (c *checks) digest(what, sha256 string) {
	if c.err == nil && !digestForm.MatchString(sha256) {
		c.err = fmt.Errorf("%s: the sha256 %.80q: want 64 hexadecimal digits", what, sha256)
	}
}

// object is one of the vault's, by a name that stays in it.
func (c *checks) object(o Object) {
	if c.err != nil {
		return
	}
	if o.Name == "" || len(o.Name) > maxName || !utf8.ValidString(o.Name) {
		c.err = fmt.Errorf("an object of the name %.200q", o.Name)
	}
	for part := range strings.SplitSeq(o.Name, "/") {
		if c.err == nil && (part == "" || part == "." || part == "..") {
			c.err = fmt.Errorf("an object of the name %.200q", o.Name)
		}
	}
	c.count("the size of "+o.Name, o.Bytes)
	c.digest(o.Name, o.SHA256)
	if c.err == nil && o.Checksum != "" && !checksumForm.MatchString(o.Checksum) {
		c.err = fmt.Errorf("%s: the checksum %.80q", o.Name, o.Checksum)
	}
}

func (c *checks) usage(u object.Usage) {
	if c.err == nil && min(u.Create, u.Open, u.Stat, u.List, u.Delete, u.Written, u.Read) < 0 {
		c.err = fmt.Errorf("a usage of %+v", u)
	}
}

func (c *checks) pace(p *Pace) {
	if p == nil {
		return
	}
	switch p.Reason {
	case "", PacedByBudget, PacedByLatency, PacedByService:
	default:
		c.try(fmt.Errorf("held back by %.80q", p.Reason))
	}
	c.rate("read units", p.ReadUnits)
	c.rate("write units", p.WriteUnits)
	c.count("waited_ms", p.WaitedMS)
	c.count("throttled", p.Throttled)
}

// maxKeyValue bounds a value of a key. The service's are of 1,024 bytes; the key after
// one of those has a byte more.
const maxKeyValue = 1024 + 1

// key is a key whose schema is not known here; bounds may be infinite.
func (c *checks) key(k table.Key, bound bool) {
	if c.err != nil {
		return
	}
	if len(k) == 0 || len(k) > table.MaxKeyColumns {
		c.err = fmt.Errorf("a key of %d columns", len(k))
		return
	}
	for _, v := range k {
		infinite := v.Type == plainbuffer.InfMin || v.Type == plainbuffer.InfMax
		if len(v.Bytes) > maxKeyValue || infinite && !bound {
			c.err = fmt.Errorf("the key %.200s", k)
			return
		}
	}
}

// bounds are those of a segment's lanes: each lane holds keys, all of one schema.
func (c *checks) bounds(s Segment) {
	if c.err != nil {
		return
	}
	c.segment(s.ID)
	if n := len(s.Bounds); c.err == nil && (n < 2 || n > MaxLanes+1) {
		c.err = fmt.Errorf("segment %s has %d bounds: want 2 to %d", s.ID, n, MaxLanes+1)
	}
	for i, k := range s.Bounds {
		c.key(k, true)
		if c.err == nil && i > 0 && (len(k) != len(s.Bounds[0]) || s.Bounds[i-1].Compare(k) >= 0) {
			c.err = fmt.Errorf("segment %s: its bound %v follows %v", s.ID, k, s.Bounds[i-1])
		}
	}
}

// The bounds of notes, which there may be many of.
const (
	maxNote  = 2 << 10
	maxNotes = 1000
)

// clipNotes cuts notes to what a document may hold.
func clipNotes(notes []string) []string {
	if len(notes) > maxNotes {
		more := len(notes) - maxNotes + 1
		notes = append(notes[:maxNotes-1:maxNotes-1], fmt.Sprintf("%d more notes are left out", more))
	}
	for i := range notes {
		notes[i] = clipTo(notes[i], maxNote)
	}
	return notes
}
