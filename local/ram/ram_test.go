package ram

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func parse(t *testing.T, text string) *Policy {
	t.Helper()
	p, err := ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const reader = `{"Version":"1","Statement":[
	{"Effect":"Allow","Action":["ots:GetRange","ots:Describe*"],"Resource":"acs:ots:*:*:instance/*/table/*"},
	{"Effect":"Allow","Action":"oss:ListObjects","Resource":"acs:oss:*:*:bucket","Condition":{"StringLike":{"oss:Prefix":["vault/*"]}}},
	{"Effect":"Allow","Action":"oss:*","Resource":"acs:oss:*:*:bucket/vault/*"},
	{"Effect":"Deny","Action":"oss:DeleteObject","Resource":"*"}]}`

func TestAuthorize(t *testing.T) {
	a := New(Config{Owner: Key{ID: "owner", Secret: "s"}})
	a.SetPolicies("reader", parse(t, reader))
	a.Record()
	key := a.Assume("reader", time.Hour).ID
	free := a.Assume("free", time.Hour).ID
	for name, test := range map[string]struct {
		key, action, resource string
		facts                 map[string]string
		want                  bool
	}{
		"named":              {key, "ots:GetRange", "acs:ots:cn:1:instance/i/table/t", nil, true},
		"case of an action":  {key, "OTS:getrange", "acs:ots:cn:1:instance/i/table/t", nil, true},
		"by pattern":         {key, "ots:DescribeTable", "acs:ots:cn:1:instance/i/table/t", nil, true},
		"not named":          {key, "ots:PutRow", "acs:ots:cn:1:instance/i/table/t", nil, false},
		"the instance alone": {key, "ots:GetRange", "acs:ots:cn:1:instance/i", nil, false},
		"under the prefix":   {key, "oss:PutObject", "acs:oss:cn:1:bucket/vault/a/b", nil, true},
		"beside the prefix":  {key, "oss:PutObject", "acs:oss:cn:1:bucket/vaults/a", nil, false},
		"denied":             {key, "oss:DeleteObject", "acs:oss:cn:1:bucket/vault/a", nil, false},
		"condition holds":    {key, "oss:ListObjects", "acs:oss:cn:1:bucket", map[string]string{"oss:Prefix": "vault/x"}, true},
		"condition fails":    {key, "oss:ListObjects", "acs:oss:cn:1:bucket", map[string]string{"oss:Prefix": ""}, false},
		"condition unknown":  {key, "oss:ListObjects", "acs:oss:cn:1:bucket", nil, false},
		"owner":              {"owner", "ots:DeleteTable", "acs:ots:cn:1:instance/i/table/t", nil, true},
		"role without any":   {free, "ots:DeleteTable", "acs:ots:cn:1:instance/i/table/t", nil, true},
		"nobody":             {"STS.x", "ots:GetRange", "acs:ots:cn:1:instance/i/table/t", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := a.Authorize(test.key, test.action, test.resource, test.facts)
			if (err == nil) != test.want {
				t.Errorf("%v", err)
			}
			var d *Denied
			if err != nil && test.key == key && (!errors.As(err, &d) || d.Role != "reader") {
				t.Errorf("%T %v", err, err)
			}
		})
	}
	calls, counts := a.Calls()
	if len(calls) == 0 || counts[Call{"reader", "ots:PutRow", "acs:ots:cn:1:instance/i/table/t", false}] != 1 {
		t.Errorf("%v", counts)
	}
}

// TestKeysEnd: a temporary key is found after its end, and allows nothing.
func TestKeysEnd(t *testing.T) {
	now := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	a := New(Config{Owner: Key{ID: "owner"}, Now: func() time.Time { return now }})
	k, other := a.Assume("r", time.Hour), a.Assume("other", time.Hour)
	if k.ID == other.ID || !strings.HasPrefix(k.ID, "STS.") || k.Token == "" {
		t.Errorf("%v %v", k, other)
	}
	may := func(k Key) bool { return a.Authorize(k.ID, "x:Y", "acs:x:::y", nil) == nil }
	if !may(k) {
		t.Error("a fresh key is refused")
	}
	a.Expire("r")
	if may(k) || !may(other) {
		t.Error("the wrong keys have expired")
	}
	now = now.Add(2 * time.Hour)
	if got, ok := a.Lookup(other.ID); !ok || !got.Expires.Before(now) || may(other) {
		t.Errorf("%v, %v", got, ok)
	}
	now = now.Add(2 * time.Hour)
	a.Assume("r", time.Hour)
	if _, ok := a.Lookup(other.ID); ok {
		t.Error("an old key is kept for ever")
	}
	if s := fmt.Sprintf("%v %+v %#v", k, k, k); strings.Contains(s, k.Secret) || strings.Contains(s, k.Token) {
		t.Error(s)
	}
}

func TestParsePolicyRefuses(t *testing.T) {
	for name, test := range map[string]struct{ old, new, want string }{
		"version":        {`"1"`, `"2"`, "version"},
		"unknown key":    {`"Effect":"Deny"`, `"Efect":"Deny"`, "Efect"},
		"effect":         {`"Deny"`, `"Refuse"`, "Refuse"},
		"no resource":    {`,"Resource":"*"`, ``, "needs"},
		"action":         {`"oss:*"`, `"oss"`, "service:Action"},
		"resource":       {`"acs:oss:*:*:bucket"`, `"bucket"`, "acs:service"},
		"operator":       {`StringLike`, `NumericEquals`, "NumericEquals"},
		"empty operator": {`["vault/*"]`, `[]`, "no value"},
		"more":           {`"Resource":"*"}]}`, `"Resource":"*"}]}{}`, "more"},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(reader, test.old) {
				t.Fatal("the edit's old text is not there")
			}
			_, err := ParsePolicy([]byte(strings.Replace(reader, test.old, test.new, 1)))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v does not mention %q", err, test.want)
			}
		})
	}
}

// FuzzFits: a pattern without wildcards matches itself alone, and one of stars matches
// everything.
func FuzzFits(f *testing.F) {
	f.Add("acs:ots:*:*:instance/*/table/*", "acs:ots:cn:1:instance/i/table/t")
	f.Add("a*b*c", "aXbXbc")
	f.Add("?", "")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		got := fits(pattern, text)
		if !strings.ContainsAny(pattern, "*?") && got != (pattern == text) {
			t.Errorf("%q and %q: %v", pattern, text, got)
		}
		if !fits("*", text) || !fits(text+"*", text) && !strings.ContainsAny(text, "*?") {
			t.Errorf("a star does not fit %q", text)
		}
	})
}

// TestFill: what is left open is filled in, as often as there are values, and nothing
// stays open.
func TestFill(t *testing.T) {
	const open = `{"Version":"1","Statement":[{"Effect":"Allow","Action":"oss:ListObjects","Resource":["acs:oss:*:*:<bucket>/<prefix>/a/*","acs:ots:*:*:instance/<instance>"],
		"Condition":{"StringLike":{"oss:Prefix":"<prefix>/a/*"}}}]}`
	for name, test := range map[string]struct {
		values map[string][]string
		want   []string
	}{
		"one": {map[string][]string{"bucket": {"b"}, "prefix": {"p/q"}, "instance": {"i"}},
			[]string{`"acs:oss:*:*:b/p/q/a/*"`, `"acs:ots:*:*:instance/i"`, `"oss:Prefix": [`, `"p/q/a/*"`}},
		"no prefix":     {map[string][]string{"bucket": {"b"}, "prefix": {""}, "instance": {"i"}}, []string{`"acs:oss:*:*:b/a/*"`, `"a/*"`}},
		"two instances": {map[string][]string{"bucket": {"b"}, "prefix": {"p"}, "instance": {"i", "j"}}, []string{`"acs:ots:*:*:instance/i"`, `"acs:ots:*:*:instance/j"`}},
		"left open":     {map[string][]string{"bucket": {"b"}, "prefix": {"p"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Fill([]byte(open), test.values)
			if test.want == nil {
				if err == nil || !strings.Contains(err.Error(), "<instance>") {
					t.Errorf("%s, %v", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range test.want {
				if !strings.Contains(string(got), w) {
					t.Errorf("it has no %s:\n%s", w, got)
				}
			}
			parse(t, string(got))
		})
	}
}

// TestGrants: a policy less one of its grants refuses what that alone allowed, and
// nothing else.
func TestGrants(t *testing.T) {
	p := parse(t, `{"Version":"1","Statement":[{"Effect":"Allow","Action":["x:A","x:B"],"Resource":["acs:x:::1","acs:x:::2"]},
		{"Effect":"Deny","Action":"x:C","Resource":"*"}]}`)
	grants := p.Grants()
	if len(grants) != 4 {
		t.Fatalf("%v", grants)
	}
	for _, gone := range grants {
		less := p.Without(gone)
		for _, g := range grants {
			c := Call{Action: g.Action, Resource: g.Resource}
			if gone.Covers(c) != (g == gone) {
				t.Errorf("%v covers %v", gone, c)
			}
			if want := g != gone; (less.decide(c.Action, c.Resource, nil) == allowed) != want {
				t.Errorf("without %v, %v is allowed: %t", gone, g, !want)
			}
		}
	}
}

// TestRefused: whoever asked to be told of refusals is, also about roles that act without
// a key.
func TestRefused(t *testing.T) {
	var told []string
	a := New(Config{Owner: Key{ID: "owner"}, Refused: func(d *Denied) { told = append(told, d.Error()) }})
	a.SetPolicies("reader", parse(t, reader))
	if err := a.AuthorizeRole("reader", "ots:GetRange", "acs:ots:cn:1:instance/i/table/t", nil); err != nil {
		t.Error(err)
	}
	if err := a.AuthorizeRole("reader", "ots:PutRow", "acs:ots:cn:1:instance/i/table/t", nil); err == nil {
		t.Error("it may put rows")
	}
	if want := "the role reader may not ots:PutRow on acs:ots:cn:1:instance/i/table/t"; len(told) != 1 || told[0] != want {
		t.Errorf("%q", told)
	}
	if calls, _ := a.Calls(); len(calls) != 0 {
		t.Errorf("recorded unasked: %v", calls)
	}
}
