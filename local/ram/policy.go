package ram

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// ParsePolicy reads a policy document of version 1. It is strict: what it does
// not know it refuses, since a statement that is half understood allows too much
// or too little. Of conditions it knows StringEquals, StringLike and Bool.
func ParsePolicy(data []byte) (*Policy, error) {
	var document struct {
		Version   string
		Statement []struct {
			Effect    string
			Action    texts
			Resource  texts
			Condition map[string]map[string]texts
		}
	}
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

// Actions returns the actions that the policy allows, as they are written there,
// in order and each once.
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

// fits matches text against a pattern in which * stands for any characters and ?
// for one.
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
