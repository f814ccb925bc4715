package ram

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Policy is a RAM policy document.
type Policy struct {
	statements []statement
}

type statement struct {
	deny       bool
	actions    []string
	resources  []string
	conditions []condition
}

// condition is one key of an operator, with the values of which one must fit.
type condition struct {
	operator string
	key      string
	values   []string
}

// decision is what a policy says about a call.
type decision int

const (
	silent decision = iota
	allowed
	denied
)

// texts is a JSON string or a list of them.
type texts []string

func (t *texts) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*t = texts{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(t))
}

// document is a policy as it is written.
type document struct {
	Version   string
	Statement []written
}

type written struct {
	Effect    string
	Action    texts
	Resource  texts
	Condition map[string]map[string]texts `json:",omitempty"`
}

// Fill puts values in the places of a policy document that are left open: text in angle
// brackets, such as <bucket>. A resource or the value of a condition that has such a
// place stands there once for each of its values. An empty value takes a slash behind its
// place with it.
func Fill(policy []byte, values map[string][]string) ([]byte, error) {
	var d document
	if err := json.Unmarshal(policy, &d); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	fill := func(in texts) (texts, error) {
		for _, name := range slices.Sorted(maps.Keys(values)) {
			place, with := "<"+name+">", values[name]
			var out texts
			for _, t := range in {
				if !strings.Contains(t, place) {
					out = append(out, t)
					continue
				}
				for _, v := range with {
					if v == "" {
						t = strings.ReplaceAll(t, place+"/", "")
					}
					out = append(out, strings.ReplaceAll(t, place, v))
				}
			}
			in = out
		}
		for _, t := range in {
			if strings.ContainsAny(t, "<>") {
				return nil, fmt.Errorf("policy: nothing is given for %s", t)
			}
		}
		return in, nil
	}
	for i := range d.Statement {
		s := &d.Statement[i]
		var err error
		if s.Resource, err = fill(s.Resource); err != nil {
			return nil, err
		}
		for _, keys := range s.Condition {
			for key := range keys {
				if keys[key], err = fill(keys[key]); err != nil {
					return nil, err
				}
			}
		}
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(d)
	return out.Bytes(), err
}

// Grant is one thing that a policy allows: an action on a resource, as they are written
// in one of its statements.
type Grant struct {
	Statement        int
	Action, Resource string
}

// Grants returns all that the policy allows, each by itself.
func (p *Policy) Grants() []Grant {
	var out []Grant
	for i, s := range p.statements {
		if s.deny {
			continue
		}
		for _, a := range s.actions {
			for _, r := range s.resources {
				out = append(out, Grant{i, a, r})
			}
		}
	}
	return out
}

// Covers reports whether a grant is about a call.
func (g Grant) Covers(c Call) bool {
	return fits(strings.ToLower(g.Action), strings.ToLower(c.Action)) && fits(g.Resource, c.Resource)
}

// Without returns the policy less one grant.
func (p *Policy) Without(g Grant) *Policy {
	out := &Policy{}
	for i, s := range p.statements {
		if i != g.Statement {
			out.statements = append(out.statements, s)
			continue
		}
		others, rest := s, s
		others.actions = slices.DeleteFunc(slices.Clone(s.actions), func(a string) bool { return a == g.Action })
		rest.actions = []string{g.Action}
		rest.resources = slices.DeleteFunc(slices.Clone(s.resources), func(r string) bool { return r == g.Resource })
		out.statements = append(out.statements, others, rest)
	}
	return out
}

// ParsePolicy reads a policy document of version 1. It is strict: what it does not know
// it refuses, since a statement that is half understood allows too much or too little. Of
// conditions it knows StringEquals, StringLike and Bool.
func ParsePolicy(data []byte) (*Policy, error) {
	var document document
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&document); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("policy: more follows the document")
	}
	if document.Version != "1" {
		return nil, fmt.Errorf("policy: version %q: want \"1\"", document.Version)
	}
	if len(document.Statement) == 0 {
		return nil, errors.New("policy: there is no statement")
	}
	p := &Policy{}
	for i, s := range document.Statement {
		out := statement{actions: s.Action, resources: s.Resource}
		switch s.Effect {
		case "Allow":
		case "Deny":
			out.deny = true
		default:
			return nil, fmt.Errorf("policy: statement %d: effect %q: want Allow or Deny", i, s.Effect)
		}
		if len(s.Action) == 0 || len(s.Resource) == 0 {
			return nil, fmt.Errorf("policy: statement %d: it needs an Action and a Resource", i)
		}
		for _, a := range s.Action {
			if service, name, ok := strings.Cut(a, ":"); a != "*" && (!ok || service == "" || name == "") {
				return nil, fmt.Errorf("policy: statement %d: action %q: want service:Action", i, a)
			}
		}
		for _, r := range s.Resource {
			if r != "*" && (!strings.HasPrefix(r, "acs:") || strings.Count(r, ":") < 4) {
				return nil, fmt.Errorf("policy: statement %d: resource %q: want acs:service:region:account:name", i, r)
			}
		}
		for operator, keys := range s.Condition {
			if !slices.Contains([]string{"StringEquals", "StringLike", "Bool"}, operator) {
				return nil, fmt.Errorf("policy: statement %d: the condition %q is not read here: use StringEquals, StringLike or Bool", i, operator)
			}
			for key, values := range keys {
				if len(values) == 0 {
					return nil, fmt.Errorf("policy: statement %d: the condition on %q has no value", i, key)
				}
				out.conditions = append(out.conditions, condition{operator, key, values})
			}
		}
		p.statements = append(p.statements, out)
	}
	return p, nil
}

// Actions returns the actions that the policy allows, as they are written there, in order
// and each once.
func (p *Policy) Actions() []string {
	var out []string
	for _, s := range p.statements {
		if !s.deny {
			out = append(out, s.actions...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// decide says what the policy says about a call. A denial outweighs all else.
func (p *Policy) decide(action, resource string, facts map[string]string) decision {
	out := silent
	for _, s := range p.statements {
		if !s.covers(action, resource, facts) {
			continue
		}
		if s.deny {
			return denied
		}
		out = allowed
	}
	return out
}

func (s *statement) covers(action, resource string, facts map[string]string) bool {
	// Names of actions do not tell upper from lower case; those of resources do.
	anyFits := func(patterns []string, text string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return fits(p, text) })
	}
	if !slices.ContainsFunc(s.actions, func(p string) bool { return fits(strings.ToLower(p), strings.ToLower(action)) }) || !anyFits(s.resources, resource) {
		return false
	}
	for _, c := range s.conditions {
		value, known := facts[c.key]
		switch {
		case !known:
			return false
		case c.operator == "StringLike" && !anyFits(c.values, value),
			c.operator == "StringEquals" && !slices.Contains(c.values, value),
			c.operator == "Bool" && !slices.ContainsFunc(c.values, func(v string) bool { return strings.EqualFold(v, value) }):
			return false
		}
	}
	return true
}

// fits matches text against a pattern in which * stands for any characters and ? for one.
func fits(pattern, text string) bool {
	star, mark := -1, 0
	p, t := 0, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0:
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
