package policy

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// Problem is one thing that is wrong in a policy.
type Problem struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Text string `json:"text"`
}

func (p *Problem) Error() string { return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text) }

// Problems are all that is wrong in a policy, by line.
type Problems []*Problem

// Error has a line for each problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.Error()
	}
	return strings.Join(lines, "\n")
}

// Permanent says that reading the same file again will not help.
func (p Problems) Permanent() bool { return true }

// The bounds of what is read.
const (
	maxFile  = 256 << 10
	maxRules = 1000
	maxList  = 1000
)

// Decode reads a policy. file is its name in errors, which are Problems.
func Decode(file string, data []byte) (*Policy, error) {
	d := &decoder{file: file, bandwidths: map[string]int64{}, names: map[string]string{}}
	p := d.policy(data)
	if p != nil {
		d.clashes(p.Rules)
		d.name(p.Rules)
	}
	if len(d.problems) > 0 {
		slices.SortStableFunc(d.problems, func(a, b *Problem) int { return cmp.Compare(a.Line, b.Line) })
		return nil, d.problems
	}
	return p, nil
}

type decoder struct {
	file       string
	vault      string            // the policy's, if it names one
	bandwidths map[string]int64  // of replicas, by their keys
	names      map[string]string // keys of replicas, by their names
	drills     []readDrill
	problems   Problems
}

func (d *decoder) problem(n ast.Node, format string, args ...any) {
	d.at(line(n), format, args...)
}

func (d *decoder) at(line int, format string, args ...any) {
	d.problems = append(d.problems, &Problem{File: d.file, Line: line, Text: fmt.Sprintf(format, args...)})
}

func line(n ast.Node) int {
	if n != nil {
		if t := n.GetToken(); t != nil && t.Position != nil {
			return t.Position.Line
		}
	}
	return 1
}

// The keys of the file's mappings. Those of a rule may stand at the top as well, where
// they hold for every rule that does not say otherwise.
var (
	topKeys   = []string{"version", "vault", "account_instances", "workers", "rules"}
	ruleKeys  = []string{"tables", "kind", "every", "keep", "segment_size", "part_size", "lanes", "read_units", "destinations", "drill"}
	keepKeys  = []string{"for", "at_least"}
	drillKeys = []string{"every", "to"}
	placeKeys = []string{"name", "to", "bandwidth"}
)

func (d *decoder) policy(data []byte) *Policy {
	if len(data) > maxFile {
		d.at(1, "%d bytes: want at most %d", len(data), maxFile)
		return nil
	}
	tree, err := parser.ParseBytes(data, 0)
	if err != nil {
		line, text := yamlError(err)
		d.at(line, "no YAML: %s", text)
		return nil
	}
	var bodies []ast.Node
	for _, doc := range tree.Docs {
		if doc != nil && doc.Body != nil && doc.Body.Type() != ast.CommentType {
			bodies = append(bodies, doc.Body)
		}
	}
	if len(bodies) != 1 {
		d.at(1, "%d YAML documents: want one; `tablevault init` writes a first policy", len(bodies))
		return nil
	}
	top := d.mapping(bodies[0], "the policy", append(slices.Clone(topKeys), ruleKeys...))
	if top == nil {
		return nil
	}
	p := Default()
	if v := top.get("version"); v != nil {
		if n, ok := d.integer(v, "version", 1<<30); ok && n != 1 {
			d.problem(v, "version %d: this tablevault reads version 1; use a newer one", n)
		}
	}
	if v := top.get("vault"); v != nil {
		p.Vault = d.address(v, "vault")
		d.vault = p.Vault
	}
	d.workers(top, &p.Workers)
	list := top.get("rules")
	if list == nil {
		p.Rules = []*Rule{d.rule(&mapping{line: top.line}, top, "default")}
		return p
	}
	items, ok := list.(*ast.SequenceNode)
	if !ok || len(items.Values) == 0 || len(items.Values) > maxRules {
		d.problem(list, "rules: want a list of 1 to %d rules, each with a name", maxRules)
		return nil
	}
	for _, item := range items.Values {
		m := d.mapping(item, "a rule", append([]string{"name"}, ruleKeys...))
		if m == nil {
			continue
		}
		name := ""
		if v := m.get("name"); v == nil {
			d.at(m.line, "a rule without a name: ids of backups derive from it")
		} else if name = d.text(v, "name"); !IsName(name) {
			d.problem(v, "name %q: want letters, digits, - and _, at most 64", name)
		} else if i := slices.IndexFunc(p.Rules, func(r *Rule) bool { return r.Name == name }); i >= 0 {
			d.problem(v, "name %q stands twice: ids of backups derive from it", name)
		}
		p.Rules = append(p.Rules, d.rule(m, top, name))
	}
	return p
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// IsName says whether a rule or a replica can have a name, which all keys of replicas
// are, too.
func IsName(text string) bool { return nameForm.MatchString(text) }

func (d *decoder) workers(top *mapping, w *Workers) {
	if v := top.get("account_instances"); v != nil {
		if n, ok := d.integer(v, "account_instances", 100_000); ok {
			w.Account = n
		}
	}
	w.Most = max(1, w.Account*DefaultShare/100)
	v := top.get("workers")
	if v == nil {
		return
	}
	text := d.scalar(v)
	share, percent := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(strings.TrimSpace(share))
	switch {
	case err != nil || n < 1 || percent && n > 100:
		d.problem(v, "workers %q: want a number of instances, or a share of the account's such as 60%%", text)
	case percent:
		w.Most = max(1, w.Account*n/100)
	case n > w.Account:
		d.problem(v, "workers %d: the account has %d instances; say account_instances if it has more", n, w.Account)
	default:
		w.Most = n
	}
}

// rule reads a rule, with what stands at the top for what it does not say.
func (d *decoder) rule(m, top *mapping, name string) *Rule {
	r := &Rule{Name: name, Kind: vault.Full}
	get := func(key string) ast.Node {
		if v := m.get(key); v != nil {
			return v
		}
		return top.get(key)
	}
	if v := get("tables"); v == nil {
		d.at(m.line, "rule %q names no tables: say tables: instance/pattern, such as prod/*", name)
	} else {
		r.Tables = d.patterns(v)
	}
	if v := get("kind"); v != nil {
		switch kind := d.text(v, "kind"); kind {
		case "full":
		case "incremental":
			d.problem(v, "kind incremental is not built into this version, which reads no change stream: say full")
		default:
			d.problem(v, "kind %q: want full%s", kind, suggest(kind, []string{"full", "incremental"}))
		}
	}
	if v := get("every"); v == nil {
		d.at(m.line, "rule %q does not say how often: say every: hourly", name)
	} else {
		r.Every = d.schedule(v, "every")
	}
	if v := get("keep"); v != nil {
		r.Keep = d.keep(v)
	}
	if v := get("segment_size"); v != nil {
		r.Settings.SegmentBytes = d.size(v, "segment_size", d.scalar(v), 1<<20)
	}
	if v := get("part_size"); v != nil {
		r.Settings.PartBytes = d.size(v, "part_size", d.scalar(v), 1<<20)
	}
	if v := get("lanes"); v != nil {
		r.Settings.Lanes, _ = d.integer(v, "lanes", vault.MaxLanes)
	}
	if v := get("read_units"); v != nil {
		n, _ := d.integer(v, "read_units", 1<<30)
		r.Settings.ReadUnits = float64(n)
	}
	if v := get("destinations"); v != nil {
		r.Replicas = d.replicas(v)
	}
	if v := get("drill"); v != nil {
		r.Drill = d.drill(v)
	}
	return r
}

// replicas reads replicas, each an address, or one with a bandwidth.
func (d *decoder) replicas(v ast.Node) []Replica {
	var all []Replica
	for _, item := range d.list(v, "destinations") {
		var to Replica
		if _, isText := item.(*ast.StringNode); isText {
			to.To = d.address(item, "destinations")
		} else if m := d.mapping(item, "a destination", placeKeys); m == nil {
			continue
		} else {
			if a := m.get("to"); a == nil {
				d.at(m.line, "a destination names no vault: say to: oss://bucket/prefix")
			} else {
				to.To = d.address(a, "destinations.to")
			}
			if n := m.get("name"); n != nil {
				to.Name = d.replicaName(n)
			}
			if b := m.get("bandwidth"); b != nil {
				to.Bandwidth = d.bandwidth(b)
			}
		}
		if to.To == "" {
			continue
		}
		key, is := to.Key(), place.Plain(to.To)
		switch before, any := d.bandwidths[key]; {
		case slices.ContainsFunc(all, func(o Replica) bool { return o.Key() == key }):
			d.problem(item, "destination %s stands twice", is)
			continue
		case d.vault != "" && place.CheckApart(to.To, d.vault) != nil:
			d.problem(item, "destination %v", place.CheckApart(to.To, d.vault))
		case any && before != to.Bandwidth:
			d.problem(item, "destination %s has another bandwidth than before: it is that of all rules together", is)
		default:
			d.bandwidths[key] = to.Bandwidth
		}
		if to.Name != "" {
			if other := d.names[to.Name]; other != "" && other != key {
				d.problem(item, "the name %q of destination %s is that of another", to.Name, is)
			}
			for name, other := range d.names {
				if other == key && name != to.Name {
					d.problem(item, "destination %s is named %q here and %q before: it has one name", is, to.Name, name)
				}
			}
			d.names[to.Name] = key
		}
		all = append(all, to)
	}
	return all
}

// replicaName reads the name of a replica. It can't be taken for a key.
func (d *decoder) replicaName(v ast.Node) string {
	name := d.text(v, "destinations.name")
	if name != "" && (!IsName(name) || place.IsKey(name)) {
		d.problem(v, "destinations.name %q: want letters, digits, - and _, at most 64, and not sixteen digits from 0 to f", name)
		return ""
	}
	return name
}

// name gives replicas the names that they have in other rules, or their keys.
func (d *decoder) name(rules []*Rule) {
	byKey := map[string]string{}
	for name, key := range d.names {
		byKey[key] = name
	}
	for _, r := range rules {
		for i, to := range r.Replicas {
			r.Replicas[i].Name = cmp.Or(byKey[to.Key()], to.Key())
		}
	}
}

var bandwidthForm = regexp.MustCompile(`^(.*[^ ]) ?/ ?s$`)

// bandwidth reads bytes per second: a size, with /s behind it.
func (d *decoder) bandwidth(v ast.Node) int64 {
	text := d.scalar(v)
	m := bandwidthForm.FindStringSubmatch(text)
	if m == nil {
		d.problem(v, "bandwidth %q: want bytes per second, such as 20 MiB/s", text)
		return 0
	}
	return d.size(v, "bandwidth", m[1], MinBandwidth)
}

func (d *decoder) patterns(v ast.Node) []Pattern {
	var patterns []Pattern
	for _, item := range d.list(v, "tables") {
		text := d.text(item, "tables")
		rest, not := strings.CutPrefix(text, "!")
		t, _ := vault.ParseTable("", rest)
		p := Pattern{Not: not, Instance: t.Instance, Table: t.Table}
		if !table.IsInstanceName(p.Instance) || !tableForm.MatchString(p.Table) {
			d.problem(item, "tables %q: want instance/table, with * and ? in the table's name only, such as prod/orders_*; ! in front leaves tables out", text)
			continue
		}
		patterns = append(patterns, p)
	}
	if len(patterns) > 0 && !slices.ContainsFunc(patterns, func(p Pattern) bool { return !p.Not }) {
		d.problem(v, "tables: every pattern leaves tables out, none names any")
	}
	return patterns
}

var tableForm = regexp.MustCompile(`^[A-Za-z0-9_*?]{1,255}$`)

func (d *decoder) schedule(v ast.Node, key string) Schedule {
	s, err := ParseSchedule(d.text(v, key))
	if err != nil {
		d.problem(v, "%s: %v", key, err)
	}
	return s
}

func (d *decoder) keep(v ast.Node) Keep {
	var k Keep
	if _, isText := v.(*ast.StringNode); isText {
		k.For = d.duration(v, "keep")
		return k
	}
	m := d.mapping(v, "keep", keepKeys)
	if m == nil {
		return k
	}
	if v := m.get("for"); v != nil {
		k.For = d.duration(v, "keep.for")
	} else {
		d.at(m.line, "keep says no time: want for: 72 hours")
	}
	if v := m.get("at_least"); v != nil {
		k.AtLeast, _ = d.integer(v, "keep.at_least", 1_000_000)
	}
	return k
}

func (d *decoder) duration(v ast.Node, key string) time.Duration {
	n, err := ParseDuration(d.text(v, key))
	if err != nil {
		d.problem(v, "%s: %v", key, err)
	}
	return n
}

func (d *decoder) drill(v ast.Node) *Drill {
	m := d.mapping(v, "drill", drillKeys)
	if m == nil {
		return nil
	}
	drill := &Drill{}
	if v := m.get("every"); v == nil {
		d.at(m.line, "drill does not say how often: say every: weekly")
	} else {
		drill.Every = d.schedule(v, "drill.every")
	}
	if v := m.get("to"); v == nil {
		d.at(m.line, "drill does not say where to restore: say to: instance/name, such as staging/drill")
	} else {
		drill.To = d.text(v, "drill.to")
		if instance, name := drill.Place(); !table.IsInstanceName(instance) || !drillForm.MatchString(name) {
			d.problem(v, "drill.to %q: want instance/name, such as staging/drill: letters, digits and _, no digit first, at most 64; names of tables begin with it", drill.To)
		} else {
			d.drills = append(d.drills, readDrill{v, drill})
		}
	}
	return drill
}

// drillForm is how names of tables may begin that drills make. What follows, and the
// names of their indexes, need the rest of the 255 bytes that a name has.
var drillForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// readDrill is a drill, and where it says to.
type readDrill struct {
	to ast.Node
	*Drill
}

// clashes finds the drills whose tables a rule would back up, and rehearse, in turn.
func (d *decoder) clashes(rules []*Rule) {
	seen := map[ast.Node]bool{} // one at the top is read for each rule
	for _, drill := range d.drills {
		if r, p := drill.clash(rules); r != nil && !seen[drill.to] {
			seen[drill.to] = true
			d.problem(drill.to, "drill.to %q: tables of drills would be backed up themselves, since the rule %q has the pattern %s: name another instance, or another beginning, or leave them out with \"!%s_*\" behind it",
				drill.To, r.Name, p, drill.To)
		}
	}
}

var sizeForm = regexp.MustCompile(`^([0-9]{1,12}) ?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)?$`)

func (d *decoder) size(v ast.Node, key, text string, least int64) int64 {
	m := sizeForm.FindStringSubmatch(text)
	if m == nil {
		d.problem(v, "%s %q: want a size such as 512 MiB", key, text)
		return 0
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	unit := map[string]int64{"": 1, "B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}[m[2]]
	if err != nil || n > maxSize/unit || n*unit < least {
		d.problem(v, "%s %q: want at least %d MiB", key, text, least>>20)
		return 0
	}
	return n * unit
}

// address reads the address of a vault. What it can't be read as is not repeated: a key
// may stand in it.
func (d *decoder) address(v ast.Node, key string) string {
	text := d.text(v, key)
	if text == "" {
		return ""
	}
	if _, err := place.Parse(text); err != nil {
		hint := ""
		if !strings.Contains(text, "://") {
			hint = "; oss:// or another scheme comes first"
		}
		d.problem(v, "%s: %v%s", key, err, hint)
		return ""
	}
	return text
}

// integer reads a whole number from 1 to most.
func (d *decoder) integer(v ast.Node, key string, most int) (int, bool) {
	text := d.scalar(v)
	n, err := strconv.Atoi(text)
	if _, quoted := v.(*ast.StringNode); quoted || err != nil || n < 1 || n > most {
		d.problem(v, "%s %q: want a number from 1 to %d", key, text, most)
		return 0, false
	}
	return n, true
}

// text reads a string.
func (d *decoder) text(v ast.Node, key string) string {
	if s, ok := v.(*ast.StringNode); ok && s.Value != "" {
		return s.Value
	}
	d.problem(v, "%s: want text, not %s", key, kind(v))
	return ""
}

// scalar is a scalar as it was written, and empty for anything else.
func (d *decoder) scalar(v ast.Node) string {
	switch v := v.(type) {
	case *ast.StringNode:
		return v.Value
	case *ast.IntegerNode, *ast.FloatNode:
		return v.GetToken().Value
	}
	return kind(v)
}

// list reads a list, or one value as a list of it.
func (d *decoder) list(v ast.Node, key string) []ast.Node {
	items, ok := v.(*ast.SequenceNode)
	if !ok {
		return []ast.Node{v}
	}
	if len(items.Values) == 0 || len(items.Values) > maxList {
		d.problem(v, "%s: want 1 to %d entries", key, maxList)
		return nil
	}
	return items.Values
}

func kind(v ast.Node) string {
	switch v := v.(type) {
	case nil, *ast.NullNode:
		return "nothing"
	case *ast.StringNode:
		return strconv.Quote(v.Value)
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return "the " + strings.ToLower(v.Type().String()) + " " + v.GetToken().Value
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		return "an anchor or alias"
	}
	return "YAML of type " + v.Type().String()
}

// mapping is a mapping's values by key.
type mapping struct {
	line   int
	values map[string]ast.Node
}

func (m *mapping) get(key string) ast.Node { return m.values[key] }

// mapping reads a mapping of known keys, each at most once and with a value.
func (d *decoder) mapping(v ast.Node, what string, keys []string) *mapping {
	var entries []*ast.MappingValueNode
	switch v := v.(type) {
	case *ast.MappingNode:
		entries = v.Values
	case *ast.MappingValueNode:
		entries = []*ast.MappingValueNode{v}
	default:
		d.problem(v, "%s: want a mapping with the keys %s, not %s", what, strings.Join(keys, ", "), kind(v))
		return nil
	}
	m := &mapping{line: line(v), values: map[string]ast.Node{}}
	if len(entries) > 0 {
		m.line = line(entries[0].Key)
	}
	for _, e := range entries {
		key, ok := e.Key.(*ast.StringNode)
		switch {
		case !ok:
			d.problem(e.Key, "key %s: want one of %s", kind(e.Key), strings.Join(keys, ", "))
		case !slices.Contains(keys, key.Value):
			d.problem(key, "unknown key %q in %s%s", key.Value, what, suggest(key.Value, keys))
		case m.values[key.Value] != nil:
			d.problem(key, "key %q stands twice", key.Value)
		case e.Value == nil || e.Value.Type() == ast.NullType:
			d.problem(key, "%s has no value", key.Value)
		default:
			m.values[key.Value] = e.Value
		}
	}
	return m
}

// suggest names the known word that is most like a wrong one, if one is alike; else all
// of them.
func suggest(word string, known []string) string {
	best, least := "", 3
	for _, k := range known {
		if n := distance(strings.ToLower(word), k); n < least {
			best, least = k, n
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf(": did you mean %q?", best)
	case len(known) > 3:
		return "; those known are " + strings.Join(known, ", ")
	}
	return ""
}

// distance is how many letters are to be added, dropped, changed or swapped with their
// neighbours to make one word of the other.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

var yamlPlace = regexp.MustCompile(`^\[(\d+):\d+\] ([^\n]*)`)

// yamlError takes an error of the YAML parser apart: its line and its text without the
// excerpt that follows.
func yamlError(err error) (line int, text string) {
	m := yamlPlace.FindStringSubmatch(err.Error())
	if m == nil {
		return 1, err.Error()
	}
	line, _ = strconv.Atoi(m[1])
	return max(line, 1), m[2]
}
