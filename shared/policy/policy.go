// Package policy is what an operator wants backed up, how often, how fast and for how
// long: the file tablevault.yaml.
//
// The shortest policy names a vault, tables, an interval and a retention:
//
//	vault: oss://acme-backups/tablevault
//	tables: prod/*
//	every: hourly
//	keep: 72 hours
//
// What stands at the top holds for every rule; a file without rules is one rule called
// "default". Decoding is strict: a key that is not known, a value that cannot be meant
// and a setting that this version does not carry out are problems with their line, all of
// them at once.
//
// The package is pure: it reads bytes, and is given the time.
package policy

import (
	"cmp"
	_ "embed"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/vault"
)

// FileName is the name under which commands look for a policy.
const FileName = "tablevault.yaml"

// Schema is the JSON schema of the file, for editors.
//
//go:embed schema.json
var Schema []byte

//go:embed template.yaml
var template string

// First is the policy that `tablevault init` writes: the shortest one, with the other
// settings as comments. An empty vault stays a comment.
func First(vault, tables string) string {
	line := "vault: " + vault
	if vault == "" {
		line = "# vault: oss://bucket/prefix    # else TABLEVAULT_VAULT of the functions"
	}
	return strings.NewReplacer("vault: {{vault}}", line, "{{tables}}", tables).Replace(template)
}

// Policy is a decoded tablevault.yaml.
type Policy struct {
	// Vault is the address of the vault; empty leaves it to the functions' environment.
	Vault   string  `json:"vault,omitempty"`
	Workers Workers `json:"workers"`
	Rules   []*Rule `json:"rules"`
}

// Workers is how many function instances tablevault uses at a time.
type Workers struct {
	// Account is how many instances the account may run in the region.
	Account int `json:"account_instances"`
	// Most is tablevault's share of them, at least one.
	Most int `json:"most"`
}

// The defaults of Workers: a new account has a hundred instances, and what else runs
// there keeps the greater part of the rest.
const (
	DefaultAccount = 100
	DefaultShare   = 60 // per cent
)

// Default is what holds without a policy: nothing is due, and the default share of
// instances may work on what was asked for.
func Default() *Policy {
	return &Policy{Workers: Workers{Account: DefaultAccount, Most: DefaultAccount * DefaultShare / 100}}
}

// Rule says what is to be done with some tables.
type Rule struct {
	// Name is unique in the policy. Ids of backups derive from it: a rule with another
	// name starts anew.
	Name   string     `json:"name"`
	Tables []Pattern  `json:"tables"`
	Kind   vault.Kind `json:"kind"`
	Every  Schedule   `json:"every"`
	Keep   Keep       `json:"keep"`
	// Settings are those of the rule's plans; what is zero has a default.
	Settings vault.Settings `json:"settings"`
	// Replicas are those that sealed backups are copied to.
	Replicas []Replica `json:"destinations,omitempty"`
	Drill    *Drill    `json:"drill,omitempty"`
}

// Replica is another vault that sealed backups are copied to. The functions open none but
// those of their policy, whose author vouches for the address; commands, events and
// documents of the vault name them.
type Replica struct {
	// Name is what it is called; its Key if the policy gives it no name.
	Name string `json:"name"`
	// To is its address.
	To string `json:"to"`
	// Bandwidth is what all copies to it together may use, in bytes per second; 0 for any
	// number.
	Bandwidth int64 `json:"bandwidth,omitempty"`
}

// Key is what tells the replica from others in names of objects and in commands.
func (d Replica) Key() string { return place.Key(d.To) }

// MinBandwidth is the least bandwidth: with it, an object with rows of the default size
// comes through in a minute.
const MinBandwidth = 1 << 20

// Replicas are the replicas of all rules, each once, in the order in which they first
// stand.
func (p *Policy) Replicas() []Replica {
	var all []Replica
	for _, r := range p.Rules {
		for _, d := range r.Replicas {
			if !slices.ContainsFunc(all, func(o Replica) bool { return o.Key() == d.Key() }) {
				all = append(all, d)
			}
		}
	}
	return all
}

// Replica finds a replica by its name, or by its key.
func (p *Policy) Replica(name string) (Replica, error) {
	all := p.Replicas()
	for _, d := range all {
		if d.Name == name || d.Key() == name {
			return d, nil
		}
	}
	var has []string
	for _, d := range all {
		has = append(has, fmt.Sprintf("%s (%s)", d.Name, place.Plain(d.To)))
	}
	return Replica{}, fmt.Errorf("the functions' policy has no further vault %q; it has %s: put it under destinations of %s and deploy that with the functions, on one machine by `tablevault local --policy FILE`",
		name, cmp.Or(strings.Join(has, ", "), "none"), FileName)
}

// Trigger names the rule in plans and in the ids of backups.
func (r *Rule) Trigger() string { return "policy/" + r.Name }

// Backup is the backup of a table that the rule makes for one of its instants. All ticks
// that find the instant due agree on it.
func (r *Rule) Backup(t vault.TableID, due time.Time) vault.Backup {
	return vault.Backup{Table: t, ID: vault.NewBackupID(due, r.Trigger(), t.Path(), string(r.Kind))}
}

// Made says whether a backup is one that the rule makes for a table of a region.
func (r *Rule) Made(region string, b vault.Backup) bool {
	return b.Table.Region == region && r.Match(b.Table.Instance, b.Table.Table) && r.Backup(b.Table, b.ID.Time()) == b
}

// Instances are the instances that the rule's patterns name, in their order.
func (r *Rule) Instances() []string {
	var names []string
	for _, p := range r.Tables {
		if !p.Not && !slices.Contains(names, p.Instance) {
			names = append(names, p.Instance)
		}
	}
	return names
}

// Match says whether the rule is about a table: the last pattern that matches decides,
// and one that begins with an exclamation mark says no.
func (r *Rule) Match(instance, table string) bool {
	for _, p := range slices.Backward(r.Tables) {
		if p.match(instance, table) {
			return !p.Not
		}
	}
	return false
}

// Pattern names tables: instance/table, where * and ? in the table's name stand for any
// characters and for one.
type Pattern struct {
	Not             bool
	Instance, Table string
}

func (p Pattern) match(instance, table string) bool {
	ok, err := path.Match(p.Table, table)
	return p.Instance == instance && err == nil && ok
}

// reaches says whether the pattern matches some name that begins so. A pattern does if a
// part of it, from its beginning, matches the whole beginning: what is left of it matches
// some end.
func (p Pattern) reaches(beginning string) bool {
	for i := range len(p.Table) + 1 {
		if ok, err := path.Match(p.Table[:i], beginning); ok && err == nil {
			return true
		}
	}
	return false
}

// covers says whether the pattern, for all that is said here, matches every name that
// begins so: it matches the beginning, and ends with any characters.
func (p Pattern) covers(beginning string) bool {
	return strings.HasSuffix(p.Table, "*") && p.match(p.Instance, beginning)
}

// Literal says whether the pattern names one table.
func (p Pattern) Literal() bool { return !strings.ContainsAny(p.Table, "*?") }

// String is the pattern as a policy has it.
func (p Pattern) String() string {
	s := p.Instance + "/" + p.Table
	if p.Not {
		s = "!" + s
	}
	return s
}

// MarshalText writes String's form.
func (p Pattern) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Keep is a retention, which `tablevault prune` goes by.
type Keep struct {
	// For is the age up to which backups are kept; zero keeps all.
	For time.Duration
	// AtLeast is how many sealed backups of a table stay whatever their age.
	AtLeast int
}

// String is the retention as people say it.
func (k Keep) String() string {
	s := "for ever"
	if k.For > 0 {
		s = spell(k.For)
	}
	if k.AtLeast > 0 {
		s += fmt.Sprintf(", and the newest %d in any case", k.AtLeast)
	}
	return s
}

// MarshalText writes String's form.
func (k Keep) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Report is something that a person should know about a table or a rule.
type Report struct {
	Rule  string `json:"rule,omitempty"`
	Table string `json:"table,omitempty"`
	Text  string `json:"text"`
}

// Drill is how often a restore is rehearsed, and where.
type Drill struct {
	Every Schedule `json:"every"`
	// To says what the names of the tables begin with that are restored into, as
	// instance/name; an underscore and what tells them apart follow.
	To string `json:"to"`
}

// Place is the instance that a drill restores into, and what its tables' names begin
// with, without the underscore.
func (d *Drill) Place() (instance, name string) {
	t, _ := vault.ParseTable("", d.To) // empty if it is none, which decoding refuses
	return t.Instance, t.Table
}

// clash is the first of some rules that is about tables which a drill makes, with its
// pattern, nil if none is: these are neither to be backed up nor to be rehearsed
// themselves.
func (d *Drill) clash(rules []*Rule) (*Rule, Pattern) {
	instance, name := d.Place()
	for _, r := range rules {
		for i, p := range r.Tables {
			if p.Not || p.Instance != instance || !p.reaches(name+"_") {
				continue
			}
			// What leaves all of them out stands behind it.
			if !slices.ContainsFunc(r.Tables[i+1:], func(o Pattern) bool { return o.Not && o.Instance == instance && o.covers(name+"_") }) {
				return r, p
			}
		}
	}
	return nil, Pattern{}
}

// spell writes a duration in its greatest whole unit: "72 hours", "30 days".
func spell(d time.Duration) string {
	for _, u := range []struct {
		name string
		size time.Duration
	}{{"week", 7 * 24 * time.Hour}, {"day", 24 * time.Hour}, {"hour", time.Hour}, {"minute", time.Minute}} {
		// Three days are said as 72 hours, as backups are counted in hours.
		if n := d / u.size; d%u.size == 0 && n > 0 && (u.size <= time.Hour || n > 3) {
			if n == 1 {
				return "1 " + u.name
			}
			return fmt.Sprintf("%d %ss", n, u.name)
		}
	}
	return d.String()
}

// maxDuration bounds durations: a hundred years.
const maxDuration = 100 * 365 * 24 * time.Hour

// maxSize bounds sizes in bytes.
const maxSize = math.MaxInt64 >> 8
