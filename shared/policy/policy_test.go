package policy_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/vault"
)

const short = `vault: oss://acme-backups/tablevault
tables: prod/*
every: hourly
keep: 72 hours
`

func decode(t *testing.T, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Decode("tablevault.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestShortestPolicy(t *testing.T) {
	p := decode(t, short)
	if p.Vault != "oss://acme-backups/tablevault" || len(p.Rules) != 1 || p.Workers.Most != 60 {
		t.Fatalf("%+v", p)
	}
	r := p.Rules[0]
	if r.Name != "default" || r.Kind != vault.Full || r.Keep.For != 72*time.Hour || r.Keep.String() != "72 hours" || r.Every.String() != "hourly" {
		t.Fatalf("%+v", r)
	}
	if !r.Match("prod", "orders") || r.Match("dev", "orders") {
		t.Error("prod/* is about prod's tables")
	}
}

func TestRulesInherit(t *testing.T) {
	p := decode(t, `
version: 1
workers: 25%
account_instances: 300
every: daily
keep: {for: 30 days, at_least: 3}
read_units: 2000
rules:
  - name: orders
    tables: [prod/orders, "prod/order_?"]
    every: 15 minutes
    segment_size: 1 GiB
  - name: rest
    tables: [prod/*, "!prod/tmp_*", prod/tmp_kept]
    read_units: 10
    destinations: s3://second/vault
    drill: {every: weekly, to: staging/drill}
`)
	if p.Workers.Most != 75 || len(p.Rules) != 2 {
		t.Fatalf("%+v", p)
	}
	orders, rest := p.Rules[0], p.Rules[1]
	if orders.Every.String() != "15 minutes" || rest.Every.String() != "daily" || orders.Settings.ReadUnits != 2000 || rest.Settings.ReadUnits != 10 ||
		orders.Settings.SegmentBytes != 1<<30 || rest.Keep.AtLeast != 3 || rest.Replicas[0].To != "s3://second/vault" || rest.Drill.To != "staging/drill" {
		t.Fatalf("%+v\n%+v", orders, rest)
	}
	for name, want := range map[string]bool{"orders": true, "tmp_x": false, "tmp_kept": true} {
		if rest.Match("prod", name) != want {
			t.Errorf("rest matches prod/%s: %t", name, !want)
		}
	}
	if orders.Match("prod", "order_12") || !orders.Match("prod", "order_1") {
		t.Error("? is one character")
	}
}

func TestReplicas(t *testing.T) {
	p := decode(t, `
every: daily
destinations: {to: s3://second/vault, bandwidth: 20 MiB/s}
rules:
  - name: orders
    tables: prod/orders
  - name: rest
    tables: prod/*
    destinations: [oss://third/vault, {name: dr, to: s3://second/vault/, bandwidth: 20 MiB / s}]
`)
	third := place.Key("oss://third/vault")
	want := []policy.Replica{{Name: "dr", To: "s3://second/vault", Bandwidth: 20 << 20}, {Name: third, To: "oss://third/vault"}}
	if got := p.Replicas(); !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if len(p.Rules[0].Replicas) != 1 || len(p.Rules[1].Replicas) != 2 {
		t.Errorf("%+v", p.Rules)
	}
	for _, name := range []string{"dr", place.Key("s3://second/vault")} {
		if d, err := p.Replica(name); err != nil || d != want[0] {
			t.Errorf("%s is %+v, %v", name, d, err)
		}
	}
	if d, err := p.Replica(third); err != nil || d != want[1] {
		t.Errorf("%+v, %v", d, err)
	}
	for _, name := range []string{"", "DR", "oss://third/vault", "s3://second/vault", place.Key("s3://second/vault?endpoint=evil.example")} {
		if d, err := p.Replica(name); err == nil || !strings.Contains(err.Error(), "dr (s3://second/vault), "+third) {
			t.Errorf("%q is %+v, %v", name, d, err)
		}
	}
}

// TestProblems names each problem with its line, all of a file at once.
func TestProblems(t *testing.T) {
	cases := []struct{ name, text, want string }{
		{"empty", "", "1: 0 YAML documents: want one; `tablevault init` writes a first policy"},
		{"no YAML", "tables: [", "1: no YAML"},
		{"a list", "- a", "1: the policy: want a mapping"},
		{"misspelt key", "tables: prod/*\nevrey: hourly\n", `2: unknown key "evrey" in the policy: did you mean "every"?`},
		{"unknown key", "tables: prod/*\nevery: hourly\ncolour: red\n", `3: unknown key "colour" in the policy; those known are version, vault`},
		{"twice", short + "every: daily\n", `5: no YAML: mapping key "every" already defined`},
		{"no value", "tables:\nevery: hourly", "1: tables has no value"},
		{"no tables", "every: hourly", `1: rule "default" names no tables`},
		{"no schedule", "tables: prod/*", `1: rule "default" does not say how often`},
		{"incremental", short + "kind: incremental", "5: kind incremental is not built into this version, which reads no change stream"},
		{"misspelt kind", short + "kind: ful", `5: kind "ful": want full: did you mean "full"?`},
		{"misspelt schedule", "tables: prod/*\nevery: houry", `2: every: "houry" is no schedule`},
		{"too often", "tables: prod/*\nevery: 1 minute", `2: every: "1 minute" is too often: the planner looks every 5 minutes`},
		{"cron of five fields", "tables: prod/*\nevery: '0 2 * * *'", "2: every: cron expression \"0 2 * * *\": 5 fields"},
		{"cron too often", "tables: prod/*\nevery: '0 * * * * *'", `minute "*": want numbers`},
		{"cron weekday", "tables: prod/*\nevery: '0 0 0 * * 1'", `weekday "1": want names`},
		{"cron zone", "tables: prod/*\nevery: 'CRON_TZ=Mars/Base 0 0 0 * * *'", "Mars/Base"},
		{"cron never", "tables: prod/*\nevery: '0 0 0 30 2 *'", "there is no such day"},
		{"bad duration", short[:strings.Index(short, "keep")] + "keep: 72 huors", `4: keep: "72 huors" is no duration`},
		{"keep without a time", "tables: prod/*\nevery: hourly\nkeep: {at_least: 3}", "3: keep says no time"},
		{"no time", "tables: prod/*\nevery: hourly\nkeep: 0 hours", "a duration of nothing"},
		{"bare bucket", "vault: acme\n" + short[strings.Index(short, "tables"):], "1: vault: want oss://bucket/prefix?region=…, s3://bucket/prefix?region=… or file:///folder; oss:// or another scheme comes first"},
		{"bad pattern", "tables: orders\nevery: hourly", `1: tables "orders": want instance/table`},
		{"pattern of instances", "tables: '*/orders'\nevery: hourly", `1: tables "*/orders"`},
		{"only left out", "tables: '!prod/x'\nevery: hourly", "every pattern leaves tables out"},
		{"lanes", short + "lanes: 17", `5: lanes "17": want a number from 1 to 16`},
		{"lanes as text", short + "lanes: '8'", `5: lanes "8": want a number`},
		{"small segments", short + "segment_size: 10 kB", `5: segment_size "10 kB": want at least 1 MiB`},
		{"huge segments", short + "segment_size: 999999999999 TiB", "segment_size"},
		{"workers", short + "workers: 120%", `5: workers "120%": want a number of instances, or a share`},
		{"more workers than instances", short + "workers: 200", "5: workers 200: the account has 100 instances"},
		{"newer", "version: 2\n" + short, "1: version 2: this tablevault reads version 1"},
		{"rule without a name", "every: hourly\nrules:\n  - tables: prod/*\n", "3: a rule without a name"},
		{"rules alike", "every: hourly\ntables: p/t\nrules:\n  - name: a\n  - name: a\n", `5: name "a" stands twice`},
		{"rule's key", "every: hourly\nrules:\n  - name: a\n    table: prod/*\n", `4: unknown key "table" in a rule: did you mean "tables"?`},
		{"drill", short + "drill: {every: weekly}", "5: drill does not say where"},
		{"a drill's pattern", short + "drill: {every: weekly, to: 'staging/*'}", "5: drill.to \"staging/*\": want instance/name"},
		{"a drill's digit", short + "drill: {every: weekly, to: staging/1st}", "5: drill.to \"staging/1st\": want instance/name"},
		{"a drill's long name", short + "drill: {every: weekly, to: staging/" + strings.Repeat("d", 65) + "}", "5: drill.to \"staging/dd"},
		{"a drill of drills", short + "drill: {every: weekly, to: prod/drill}", "5: drill.to \"prod/drill\": tables of drills would be backed up themselves, since the rule \"default\" has the pattern prod/*"},
		{"anchors", "tables: &x prod/*\nevery: hourly", "1: tables: want text, not an anchor"},
		{"destination without a place", short + "destinations: {bandwidth: 2 MiB/s}", "5: a destination names no vault"},
		{"destination's key", short + "destinations: [{to: s3://b, bandwith: 2 MiB/s}]", `unknown key "bandwith" in a destination: did you mean "bandwidth"?`},
		{"destination that is no address", short + "destinations: [{to: bucket}]", "5: destinations.to: want oss://"},
		{"destination with a key in it", short + "destinations: 's3://AKIA:secret@b'", "5: destinations: it has a user or a key before an @"},
		{"destination with an unknown parameter", short + "destinations: oss://b?regoin=x", `unknown parameter "regoin"`},
		{"destination in the vault", short + "destinations: oss://acme-backups/tablevault/dr", "one inside the other"},
		{"destination that is named like a key", short + "destinations: {name: 0123456789abcdef, to: s3://b}", "destinations.name"},
		{"destination without a fit name", short + "destinations: {name: 'd/r', to: s3://b}", "destinations.name"},
		{"two of one name", short + "destinations: [{name: dr, to: s3://b}, {name: dr, to: s3://c}]", `the name "dr" of destination s3://c is that of another`},
		{"two names of one", "every: daily\nrules:\n- {name: a, tables: a/b, destinations: {name: x, to: s3://b}}\n- {name: b, tables: a/c, destinations: {name: y, to: s3://b}}\n",
			`destination s3://b is named "y" here and "x" before`},
		{"bandwidth of what", short + "destinations: [{to: s3://b, bandwidth: 2 MiB}]", `5: bandwidth "2 MiB": want bytes per second, such as 20 MiB/s`},
		{"too little bandwidth", short + "destinations: [{to: s3://b, bandwidth: 900 kB/s}]", "want at least 1 MiB"},
		{"destination is the vault", short + "destinations: oss://acme-backups/tablevault/?region=x", "is the vault itself"},
		{"two bandwidths", "every: daily\nrules:\n- {name: a, tables: a/b, destinations: {to: s3://b, bandwidth: 2 MB/s}}\n- {name: b, tables: a/c, destinations: s3://b}\n",
			"4: destination s3://b has another bandwidth than before"},
		{"destination twice", short + "destinations: [s3://b/c, s3://b/c]", "destination s3://b/c stands twice"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := policy.Decode("f", []byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v\nwant %s", err, c.want)
			}
			var problems policy.Problems
			if !errors.As(err, &problems) || !strings.HasPrefix(err.Error(), "f:") {
				t.Fatalf("%T %v", err, err)
			}
		})
	}
	_, err := policy.Decode("f", []byte("evrey: hourly\nkeep: nothing\nlanes: 0\n"))
	if lines := strings.Count(err.Error(), "\n"); lines < 4 {
		t.Errorf("not all at once:\n%v", err)
	}
}

func TestSchedule(t *testing.T) {
	at := time.Date(2026, 11, 20, 10, 14, 35, 5, time.UTC) // a Friday
	cases := []struct{ text, due, next string }{
		{"hourly", "2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z"},
		{"daily", "2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z"},
		{"weekly", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"},
		{"15 minutes", "2026-11-20T10:00:00Z", "2026-11-20T10:15:00Z"},
		{"6h", "2026-11-20T06:00:00Z", "2026-11-20T12:00:00Z"},
		{"0 30 2 * * *", "2026-11-20T02:30:00Z", "2026-11-21T02:30:00Z"},
		{"CRON_TZ=Asia/Shanghai 0 30 2 * * *", "2026-11-19T18:30:00Z", "2026-11-20T18:30:00Z"},
		{"0 */10 * * * *", "2026-11-20T10:10:00Z", "2026-11-20T10:20:00Z"},
		{"0 0 0 1 JAN ?", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{"0 0 0 29 2 *", "2024-02-29T00:00:00Z", "2028-02-29T00:00:00Z"},
		{"0 0 12 ? * SUN", "2026-11-15T12:00:00Z", "2026-11-22T12:00:00Z"},
	}
	for _, c := range cases {
		s, err := policy.ParseSchedule(c.text)
		if err != nil {
			t.Fatal(err)
		}
		due, next := s.Due(at).Format(time.RFC3339Nano), s.Next(at).Format(time.RFC3339Nano)
		if due != c.due || next != c.next {
			t.Errorf("%s: due %s, next %s; want %s and %s", c.text, due, next, c.due, c.next)
		}
		// Whoever asks in between gets the same answer, and the instant itself
		// is due.
		for x := s.Due(at); x.Before(s.Next(at)); x = x.Add(s.Next(at).Sub(s.Due(at)) / 7) {
			if got := s.Due(x); !got.Equal(s.Due(at)) {
				t.Errorf("%s: due at %s is %s", c.text, x, got)
			}
		}
	}
}

// TestTicksAgree derives the id of a backup from the instant that was due and from
// nothing else.
func TestTicksAgree(t *testing.T) {
	r := decode(t, short).Rules[0]
	id := vault.TableID{Region: "cn", Instance: "prod", Table: "orders"}
	at := time.Date(2026, 11, 20, 10, 5, 0, 0, time.UTC)
	a, b := r.Backup(id, r.Every.Due(at)), r.Backup(id, r.Every.Due(at.Add(50*time.Minute)))
	if a != b || !strings.HasPrefix(string(a.ID), "20261120T100000Z-") {
		t.Errorf("%v and %v", a, b)
	}
	if c := r.Backup(id, r.Every.Due(at.Add(time.Hour))); c == a {
		t.Error("the next hour is another backup")
	}
}

// documents are policies in which all that schema and decoder could see differently
// appears; structure and single values, not what several say together.
var documents = []struct {
	text string
	good bool
}{
	{short, true},
	{"tables: prod/*\nevery: hourly", true},
	{"tables: [a/b, '!a/c']\nevery: '0 0 2 * * *'\nlanes: 16\nread_units: 5\nworkers: 7\nversion: 1", true},
	{"tables: a/b\nevery: 90 minutes\nkeep: {for: 2 weeks, at_least: 1}\ndrill: {every: weekly, to: a/b}", true},
	{"tables: a/b\nevery: 90m\nsegment_size: 2097152\npart_size: 64 MiB\ndestinations: [file:///x, s3://b]", true},
	{"every: daily\nrules: [{name: a, tables: a/b}, {name: b, tables: a/c, every: hourly, workers: 3}]", false},
	{"every: daily\nrules: [{name: a, tables: a/b}, {name: b, tables: a/c, every: hourly, keep: 1 year}]", true},
	{"every: daily\nrules: []", false},
	{"every: daily\nrules: [{tables: a/b}]", false},
	{"every: daily\nrules: [{name: 'a b', tables: a/b}]", false},
	{"tables: []\nevery: hourly", false},
	{"tables: 5\nevery: hourly", false},
	{"tables: a/b\nevery: 5", false},
	{"tables: a/b\nevery: [hourly]", false},
	{"tables: a/b\nevery: sometimes", false},
	{"tables: a\nevery: hourly", false},
	{"tables: a/b\nevery: hourly\nkind: incremental", false},
	{"tables: a/b\nevery: hourly\nkeep: 5", false},
	{"tables: a/b\nevery: hourly\nkeep: long", false},
	{"tables: a/b\nevery: hourly\nkeep: {}", false},
	{"tables: a/b\nevery: hourly\nkeep: {for: 1 day, forever: true}", false},
	{"tables: a/b\nevery: hourly\nlanes: 0", false},
	{"tables: a/b\nevery: hourly\nlanes: 17", false},
	{"tables: a/b\nevery: hourly\nlanes: 1.5", false},
	{"tables: a/b\nevery: hourly\nlanes: true", false},
	{"tables: a/b\nevery: hourly\nworkers: 0", false},
	{"tables: a/b\nevery: hourly\nworkers: 101%", false},
	{"tables: a/b\nevery: hourly\nworkers: 0%", false},
	{"tables: a/b\nevery: hourly\nworkers: 100%", true},
	{"tables: a/b\nevery: hourly\naccount_instances: 0", false},
	{"tables: a/b\nevery: hourly\nread_units: 0", false},
	{"tables: a/b\nevery: hourly\nsegment_size: big", false},
	{"tables: a/b\nevery: hourly\nsegment_size: 1000", false},
	{"tables: a/b\nevery: hourly\nvault: bucket", false},
	{"tables: a/b\nevery: hourly\nvault: http://bucket", false},
	{"tables: a/b\nevery: hourly\nvault: oss://bucket/x#y", false},
	{"tables: a/b\nevery: hourly\nvault: oss://bucket/x?region=cn-hangzhou", true},
	{"tables: a/b\nevery: hourly\ndestinations: bucket", false},
	{"tables: a/b\nevery: hourly\ndestinations: {to: s3://b, bandwidth: 20 MiB/s}", true},
	{"tables: a/b\nevery: hourly\ndestinations: [oss://a/b?region=c, {to: 's3://b/c', bandwidth: 2MB / s}, {to: s3://d}]", true},
	{"tables: a/b\nevery: hourly\ndestinations: {to: s3://b, bandwidth: fast}", false},
	{"tables: a/b\nevery: hourly\ndestinations: {to: s3://b, bandwidth: 20}", false},
	{"tables: a/b\nevery: hourly\ndestinations: {bandwidth: 20 MiB/s}", false},
	{"tables: a/b\nevery: hourly\ndestinations: {to: bucket}", false},
	{"tables: a/b\nevery: hourly\ndestinations: {to: s3://b, weight: 1}", false},
	{"tables: a/b\nevery: hourly\ndestinations: 5", false},
	{"tables: a/b\nevery: hourly\ndestinations: [[s3://b]]", false},
	{"tables: a/b\nevery: hourly\ndrill: {every: weekly}", false},
	{"tables: a/b\nevery: hourly\ndrill: {every: weekly, to: 'a/*'}", false},
	{"tables: a/b\nevery: hourly\ndrill: {every: weekly, to: a/1}", false},
	{"tables: a/b\nevery: hourly\ndrill: {every: weekly, to: a/b-c}", false},
	{"tables: a/b\nevery: hourly\ndrill: {every: sometimes, to: a/b}", false},
	{"tables: a/b\nevery: hourly\nversion: 2", false},
	{"tables: a/b\nevery: hourly\nVersion: 1", false},
	{"[]", false},
}

// TestSchemaAgrees holds the JSON schema against the decoder: the same keys in the same
// places, and the same verdict on each document.
func TestSchemaAgrees(t *testing.T) {
	var schema map[string]any
	if err := json.Unmarshal(policy.Schema, &schema); err != nil {
		t.Fatal(err)
	}
	for _, d := range documents {
		_, err := policy.Decode("f", []byte(d.text))
		if (err == nil) != d.good {
			t.Errorf("the decoder says %v to\n%s", err, d.text)
		}
		var value any
		if err := yaml.Unmarshal([]byte(d.text), &value); err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, &value); err != nil {
			t.Fatal(err)
		}
		if err := check(schema, schema, value); (err == nil) != d.good {
			t.Errorf("the schema says %v to\n%s", err, d.text)
		}
	}
	// Every key that the schema knows is one that the decoder knows, and none is
	// missing.
	_, err := policy.Decode("f", []byte("no-such-key: 1"))
	known := strings.Split(err.Error()[strings.Index(err.Error(), "those known are ")+len("those known are "):], "\n")[0]
	decoded := strings.Split(known, ", ")
	slices.Sort(decoded)
	if got := slices.Sorted(maps.Keys(schema["properties"].(map[string]any))); !slices.Equal(got, decoded) {
		t.Errorf("the schema has %v, the decoder %v", got, decoded)
	}
	_, err = policy.Decode("f", []byte("rules: [{no-such-key: 1}]"))
	known = strings.Split(err.Error()[strings.Index(err.Error(), "those known are ")+len("those known are "):], "\n")[0]
	decoded = strings.Split(known, ", ")
	slices.Sort(decoded)
	rule := schema["properties"].(map[string]any)["rules"].(map[string]any)["items"].(map[string]any)
	if got := slices.Sorted(maps.Keys(rule["properties"].(map[string]any))); !slices.Equal(got, decoded) {
		t.Errorf("the schema's rules have %v, the decoder's %v", got, decoded)
	}
}

// TestDrillClash says of some patterns whether one of their tables could be a drill's
// into staging/drill.
func TestDrillClash(t *testing.T) {
	for _, c := range []struct {
		tables string
		clash  bool
	}{
		{"prod/*", false},
		{"staging/*", true},
		{"staging/d*", true},
		{"staging/drill", false}, // the name alone is none of a drill's
		{"staging/drill_*", true},
		{"staging/drill_orders*", true},
		{"staging/drill?orders", true},
		{"staging/dr?ll_*_x", true},
		{"staging/*_x", true},
		{"staging/*l_*", true},
		{"staging/drilling*", false},
		{"staging/orders_*", false},
		{"staging/??", false},
		{"staging/???????????", true},
		{"[staging/*, '!staging/drill_*']", false},
		{"[staging/*, '!staging/d*']", false},
		{"[staging/*, '!staging/*_*']", false},
		{"[staging/*, '!staging/drill_*', 'staging/drill_x*']", true},
		{"['!staging/drill_*', staging/*]", true},
		{"[staging/*, '!staging/drill_?']", true},
		{"[staging/*, '!staging/drill_x*']", true},
		{"[staging/*, '!prod/drill_*']", true},
	} {
		_, err := policy.Decode("f", []byte("tables: "+c.tables+"\nevery: hourly\ndrill: {every: weekly, to: staging/drill}"))
		if got := err != nil && strings.Contains(err.Error(), "f:3: drill.to"); got != c.clash || !got && err != nil {
			t.Errorf("%s: %v, want a clash: %t", c.tables, err, c.clash)
		}
	}
	// Any rule counts, and what stands at the top is said once.
	_, err := policy.Decode("f", []byte("every: hourly\ndrill: {every: weekly, to: staging/drill}\nrules: [{name: a, tables: prod/*}, {name: b, tables: staging/*}]"))
	if err == nil || strings.Count(err.Error(), "drill.to") != 1 || !strings.Contains(err.Error(), `the rule "b"`) {
		t.Errorf("%v", err)
	}
}

// check is what of JSON schema the policy's uses.
func check(root, schema map[string]any, value any) error {
	for key, want := range schema {
		switch key {
		case "$ref":
			name := strings.TrimPrefix(want.(string), "#/definitions/")
			if err := check(root, root["definitions"].(map[string]any)[name].(map[string]any), value); err != nil {
				return err
			}
		case "anyOf":
			var errs []error
			for _, s := range want.([]any) {
				err := check(root, s.(map[string]any), value)
				if err == nil {
					errs = nil
					break
				}
				errs = append(errs, err)
			}
			if len(errs) > 0 {
				return errors.Join(errs...)
			}
		case "type":
			is := map[string]bool{}
			switch v := value.(type) {
			case string:
				is["string"] = true
			case float64:
				is["integer"] = v == float64(int64(v))
			case map[string]any:
				is["object"] = true
			case []any:
				is["array"] = true
			}
			if !is[want.(string)] {
				return fmt.Errorf("%v is no %s", value, want)
			}
		case "enum":
			if !slices.Contains(want.([]any), value) {
				return fmt.Errorf("%v is none of %v", value, want)
			}
		case "pattern":
			if s, ok := value.(string); ok && !regexp.MustCompile(want.(string)).MatchString(s) {
				return fmt.Errorf("%q does not match %s", s, want)
			}
		case "minimum", "maximum":
			if n, ok := value.(float64); ok && (key == "minimum" && n < want.(float64) || key == "maximum" && n > want.(float64)) {
				return fmt.Errorf("%v: %s is %v", n, key, want)
			}
		case "required":
			m, _ := value.(map[string]any)
			for _, k := range want.([]any) {
				if _, ok := m[k.(string)]; !ok && m != nil {
					return fmt.Errorf("%v is missing", k)
				}
			}
		case "properties":
			m, _ := value.(map[string]any)
			for k, v := range m {
				s, ok := want.(map[string]any)[k].(map[string]any)
				if !ok {
					return fmt.Errorf("unknown key %s", k)
				}
				if err := check(root, s, v); err != nil {
					return fmt.Errorf("%s: %w", k, err)
				}
			}
		case "items":
			list, _ := value.([]any)
			for _, v := range list {
				if err := check(root, want.(map[string]any), v); err != nil {
					return err
				}
			}
		case "minItems":
			if list, ok := value.([]any); ok && float64(len(list)) < want.(float64) {
				return fmt.Errorf("%d items", len(list))
			}
		case "$schema", "title", "description", "default", "definitions", "additionalProperties", "maxItems":
		default:
			return fmt.Errorf("the test does not know %q", key)
		}
	}
	return nil
}

// TestTemplate decodes what init writes, and each setting that it shows in a comment.
func TestTemplate(t *testing.T) {
	decode(t, policy.First("", "prod/*"))
	text := policy.First("oss://b/v", "prod/*")
	if p := decode(t, text); p.Vault != "oss://b/v" || p.Rules[0].Tables[0].String() != "prod/*" {
		t.Errorf("%+v", p)
	}
	var all []string
	for _, l := range strings.Split(text, "\n")[2:] {
		if rest, ok := strings.CutPrefix(l, "# "); ok && (strings.Contains(rest, ": ") || strings.HasPrefix(rest, "rules:")) && !strings.HasPrefix(rest, "Several") {
			l = rest
		}
		all = append(all, l)
	}
	p := decode(t, strings.Join(all, "\n"))
	if len(p.Rules) != 2 || p.Rules[0].Settings.ReadUnits != 2000 || p.Rules[1].Keep.AtLeast != 3 {
		t.Errorf("%+v", p)
	}
}

// FuzzDecode decodes anything without a panic: a policy whose rules are complete, or
// problems with lines.
func FuzzDecode(f *testing.F) {
	for _, d := range documents {
		f.Add([]byte(d.text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := policy.Decode("f", data)
		if err != nil {
			var problems policy.Problems
			if !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("%T %v", err, err)
			}
			for _, p := range problems {
				if p.Line < 1 || p.Line > strings.Count(string(data), "\n")+strings.Count(string(data), "\r")+1 {
					t.Fatalf("line %d: %v", p.Line, p)
				}
			}
			return
		}
		if len(p.Rules) == 0 || p.Workers.Most < 1 {
			t.Fatalf("%+v", p)
		}
		now := time.Date(2026, 11, 20, 10, 14, 35, 0, time.UTC)
		for _, r := range p.Rules {
			if len(r.Tables) == 0 || r.Every.IsZero() || r.Every.Due(now).After(now) {
				t.Fatalf("%+v", r)
			}
		}
	})
}
