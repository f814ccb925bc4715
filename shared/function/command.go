package function

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/vault"
)

const (
	// Version is the version of the envelope that this program writes and the highest
	// that it reads.
	Version = 1

	// MaxCommand bounds an encoded command: an asynchronous event holds 128 KiB. Commands
	// hold references into the vault, never lists, and stay far below it.
	MaxCommand = 128 << 10
)

// Command is the envelope of everything a function is asked to do. All fields but Kind
// are optional in general and required by kind, as [Command.Validate] says.
type Command struct {
	// Version is the envelope's version; zero, as typed by hand, means [Version].
	Version int  `json:"v,omitempty"`
	Kind    Kind `json:"kind"`

	Table    string    `json:"table,omitempty"`   // instance/table: what is backed up, or what a restore goes back to
	Type     string    `json:"type,omitempty"`    // full or incremental
	At       time.Time `json:"at,omitzero"`       // the instant to restore, in UTC
	To       string    `json:"to,omitempty"`      // instance/table: the target of a restore
	Backup   string    `json:"backup,omitempty"`  // backup id
	Restore  string    `json:"restore,omitempty"` // restore id
	Segment  string    `json:"segment,omitempty"` // segment of the backup or restore
	Slot     int       `json:"slot,omitempty"`    // slot of the segment's log to go on from
	Start    int       `json:"start,omitempty"`   // number of this start of the segment
	Depth    string    `json:"depth,omitempty"`   // objects, read or rows
	Against  string    `json:"against,omitempty"` // instance/table to compare rows with
	New      bool      `json:"new,omitempty"`     // begin anew instead of resuming an unsealed plan
	Replicas []string  `json:"also,omitempty"`    // replicas with copies of the backup to restore
	Replica  string    `json:"target,omitempty"`  // the replica to copy to, or to compare with

	// Request is an object that holds the command to run: oss://bucket/key of an object
	// that landed in a bucket, or its name in the vault, requests/….json. The verb reads
	// it and decodes it with [ParseCommand]. To import and verify it is the request that
	// the restore was asked for by.
	Request string `json:"request,omitempty"`

	// Settings is a JSON object that the verb reads.
	Settings json.RawMessage `json:"settings,omitempty"`
}

// key is a key of the envelope, and what its value is read into.
type key struct {
	name string
	into any
}

// keys are the envelope's, in the order in which errors show them.
func (c *Command) keys() []key {
	return []key{
		{"v", &c.Version}, {"kind", &c.Kind}, {"table", &c.Table}, {"type", &c.Type}, {"at", (*instant)(&c.At)}, {"to", &c.To},
		{"backup", &c.Backup}, {"restore", &c.Restore}, {"segment", &c.Segment}, {"slot", &c.Slot}, {"start", &c.Start},
		{"depth", &c.Depth}, {"against", &c.Against}, {"new", &c.New}, {"also", &c.Replicas}, {"target", &c.Replica},
		{"request", &c.Request}, {"settings", (*compact)(&c.Settings)},
	}
}

// instant is one as people give it.
type instant time.Time

func (i *instant) UnmarshalJSON(value []byte) error {
	var text string
	if err := json.Unmarshal(value, &text); err != nil {
		return err
	}
	at, err := ParseInstant(text)
	*i = instant(at)
	return err
}

// compact is JSON without blanks between its tokens.
type compact json.RawMessage

func (c *compact) UnmarshalJSON(value []byte) error {
	var b bytes.Buffer
	err := json.Compact(&b, value)
	*c = b.Bytes()
	return err
}

// member is a key of a JSON object with its value.
type member struct {
	key   string
	value json.RawMessage
}

// members reads a JSON object, with nothing behind it.
func members(data []byte) (all []member, err error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	open, err := dec.Token()
	if err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if open != json.Delim('{') {
		return nil, fmt.Errorf("not a JSON object: it begins with %v", open)
	}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("not JSON: %w", err)
		}
		m := member{key: token.(string)} // a JSON object's keys are strings, or Token fails
		if err := dec.Decode(&m.value); err != nil {
			return nil, fmt.Errorf("not JSON: key %q: %w", m.key, err)
		}
		all = append(all, m)
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if len(bytes.TrimSpace(data[dec.InputOffset():])) > 0 {
		return nil, errors.New("followed by more data")
	}
	return all, nil
}

// ParseCommand reads one envelope and validates it. It is strict: an unknown or repeated
// key, a version above [Version], an instant without an offset and trailing bytes are
// errors that name what is wrong.
func ParseCommand(data []byte) (Command, error) {
	if err := checkLength(data); err != nil {
		return Command{}, err
	}
	all, err := members(data)
	if err != nil {
		return Command{}, fmt.Errorf("command is %w", err)
	}
	return commandOf(all)
}

func checkLength(data []byte) error {
	if len(data) > MaxCommand {
		return fmt.Errorf("command of %d bytes exceeds %d: pass references, not lists", len(data), MaxCommand)
	}
	return nil
}

// commandOf is the command that an object's members are.
func commandOf(all []member) (Command, error) {
	var cmd Command
	keys := cmd.keys()
	seen := make(map[string]bool)
	for _, m := range all {
		if seen[m.key] {
			return Command{}, fmt.Errorf("command has the key %q twice", m.key)
		}
		seen[m.key] = true
		i := slices.IndexFunc(keys, func(k key) bool { return k.name == m.key })
		if i < 0 {
			names := make([]string, len(keys))
			for i, k := range keys {
				names[i] = k.name
			}
			return Command{}, fmt.Errorf("command has the unknown key %q; the keys are %s", m.key, strings.Join(names, ", "))
		}
		// A null says nothing, as leaving the key out does.
		if string(m.value) == "null" {
			return Command{}, fmt.Errorf("command key %q is null: leave it out", m.key)
		}
		if err := json.Unmarshal(m.value, keys[i].into); err != nil {
			return Command{}, fmt.Errorf("command key %q: %w", m.key, err)
		}
	}
	if err := cmd.Validate(); err != nil {
		return Command{}, err
	}
	cmd.Version = Version
	return cmd, nil
}

// ParseInstant reads an instant given by a person: RFC 3339 with an offset. It returns it
// in UTC.
func ParseInstant(text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, text)
	if err == nil && (at.UTC().Year() < 1 || at.UTC().Year() > 9999) {
		err = errors.New("year outside 1 to 9999")
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no instant with an offset such as 2026-11-20T10:14:00+08:00 or 2026-11-20T02:14:00Z", text)
	}
	return at.UTC(), nil
}

// Validate reports what makes c no command: an unknown kind or version, a value outside
// its range, or a reference that its kind needs and that is not there.
func (c Command) Validate() error {
	if c.Version > Version {
		return fmt.Errorf("command has version %d and this program reads up to %d: deploy the newer functions", c.Version, Version)
	}
	if c.Version < 0 {
		return fmt.Errorf("command has version %d", c.Version)
	}
	if c.Kind == "" {
		return fmt.Errorf("command has no kind; kinds are %s", joined(Kinds()))
	}
	if !slices.Contains(Kinds(), c.Kind) {
		return fmt.Errorf("command has the unknown kind %q; kinds are %s", string(c.Kind), joined(Kinds()))
	}
	for _, t := range []struct{ key, value string }{{"table", c.Table}, {"to", c.To}, {"against", c.Against}} {
		if t.value != "" && !tableForm.MatchString(t.value) {
			return fmt.Errorf("command key %q: %.300q is not instance/table: an instance has letters, digits and hyphens, a table letters, digits and underscores", t.key, t.value)
		}
	}
	if c.Type != "" && c.Type != "full" && c.Type != "incremental" {
		return fmt.Errorf("command key %q: %q is neither full nor incremental", "type", c.Type)
	}
	if c.Depth != "" && !slices.Contains([]string{"objects", "read", "rows"}, c.Depth) {
		return fmt.Errorf("command key %q: %q is none of objects, read, rows", "depth", c.Depth)
	}
	if err := c.references(); err != nil {
		return err
	}
	if len(c.Replicas) > vault.MaxReplicas {
		return fmt.Errorf("command key %q: %d further vaults: want at most %d", "also", len(c.Replicas), vault.MaxReplicas)
	}
	for _, name := range c.Replicas {
		if err := checkReplica(name); err != nil {
			return fmt.Errorf("command key %q: %w", "also", err)
		}
	}
	if c.Replica != "" {
		if err := checkReplica(c.Replica); err != nil {
			return fmt.Errorf("command key %q: %w", "target", err)
		}
	}
	if c.Request != "" {
		err := vault.ParseRequestName(c.Request)
		if !vault.IsRequest(c.Request) {
			err = checkRequest(c.Request)
		}
		if err != nil {
			return fmt.Errorf("command key %q: %w", "request", err)
		}
	}
	if s := bytes.TrimSpace(c.Settings); len(s) > 0 && (s[0] != '{' || !json.Valid(s)) {
		return fmt.Errorf("command key %q is not a JSON object", "settings")
	}
	if need := c.missing(); need != "" {
		return fmt.Errorf("command of kind %s needs %s", c.Kind, need)
	}
	return nil
}

// tableForm is instance/table by the service's rules for names, of any length of the
// instance's that there was.
var tableForm = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}/[A-Za-z_][A-Za-z0-9_]{0,254}$`)

// references reports an id that is none, and a number outside its range.
func (c Command) references() error {
	_, backup := vault.ParseBackupID(clip([]byte(c.Backup), 128))
	_, restore := vault.ParseRestoreID(clip([]byte(c.Restore), 128))
	_, segment := vault.ParseSegmentID(clip([]byte(c.Segment), 128))
	for _, id := range []struct {
		key, value string
		err        error
	}{{"backup", c.Backup, backup}, {"restore", c.Restore, restore}, {"segment", c.Segment, segment}} {
		if id.value != "" && id.err != nil {
			return fmt.Errorf("command key %q: %w", id.key, id.err)
		}
	}
	for _, n := range []struct {
		key   string
		value int
	}{{"slot", c.Slot}, {"start", c.Start}} {
		if n.value < 0 || n.value > vault.MaxNumber {
			return fmt.Errorf("command key %q: %s %d: want 0 to %d", n.key, n.key, n.value, vault.MaxNumber)
		}
	}
	return nil
}

// checkReplica finds out whether a replica is named as one must be: where it is, the
// policy of the functions says and no command, so that none sends rows and tokens to an
// address that nobody who deploys has named. What was given instead may hold a key, and
// is not repeated.
func checkReplica(name string) error {
	if policy.IsName(name) {
		return nil
	}
	return errors.New("want the name of a destination of the functions' policy, or its key, and no address: put the vault under destinations of the policy and deploy that")
}

// Function is the function that the command is for.
func (c Command) Function() Name {
	if c.Kind == KindVoid && c.Restore != "" {
		return Import
	}
	return c.Kind.Function()
}

// missing says which references the kind needs and the command lacks.
func (c Command) missing() string {
	switch {
	case c.Kind == KindBackup && c.Table == "":
		return "a table"
	case c.Kind == KindVoid && c.Backup == "" && c.Restore == "":
		return "a backup or a restore"
	case c.Kind == KindExport && (c.Backup == "" || c.Segment == ""):
		return "a backup and a segment"
	case c.Kind == KindCopy && (c.Backup == "" || c.Replica == ""):
		return "a backup and a target"
	case c.Kind == KindImport && (c.Restore == "" || c.Segment == ""):
		return "a restore and a segment"
	case c.Kind == KindRestore && c.Request == "" && c.Restore == "" && (c.To == "" || c.Table == "" && c.Backup == ""):
		return "a target (to) with a table or a backup, or a request, or a restore to go on with"
	case c.Kind == KindRestore && !c.At.IsZero() && c.Table == "":
		return "a table whose backups an instant (at) chooses from, and no backup by its id"
	case c.Kind == KindRestore && !c.At.IsZero() && c.Backup != "":
		return "either a backup by its id, or an instant (at)"
	case c.Kind == KindVerify && c.Backup == "" && c.Restore == "" && c.Table == "":
		return "a backup, a restore or a table"
	}
	return ""
}

// ReadSettings reads the command's settings strictly.
func (c Command) ReadSettings(to any) error {
	if len(c.Settings) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(c.Settings))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return Permanent(fmt.Errorf("settings of a command of kind %s: %w", c.Kind, err))
	}
	return nil
}

// Encode returns c as JSON, at most [MaxCommand] bytes long, after validating it.
func (c Command) Encode() ([]byte, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c.Version = Version
	c.At = c.At.UTC()
	data, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode command of kind %s: %w", c.Kind, err)
	}
	if len(data) > MaxCommand {
		return nil, fmt.Errorf("command of kind %s has %d bytes, more than %d: pass references, not lists", c.Kind, len(data), MaxCommand)
	}
	return data, nil
}

// joined lists kinds for an error.
func joined(kinds []Kind) string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	return strings.Join(names, ", ")
}
