package deployment

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Pattern says which events of a bus are meant: those of which each field that it names
// fits one of the field's tests.
type Pattern struct {
	fields []fieldPattern
}

type fieldPattern struct {
	field string
	tests []textTest
}

// textTest fits the texts that begin and end so, or are equal to exact.
type textTest struct {
	exact          string
	prefix, suffix string
	open           bool // by prefix or suffix
}

// ParsePattern reads an eventRuleFilterPattern: a JSON object whose keys are source, type
// or subject, and whose values are lists of texts or of {"prefix":…} or {"suffix":…}.
func ParsePattern(text string) (Pattern, error) {
	var raw map[string][]json.RawMessage
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		return Pattern{}, fmt.Errorf("%q: want a JSON object of lists: %w", text, err)
	}
	if len(raw) == 0 {
		return Pattern{}, errors.New("an empty pattern takes every event of the account, the functions' own among them")
	}
	var p Pattern
	for field, tests := range raw {
		if !slices.Contains([]string{"source", "type", "subject"}, field) {
			return Pattern{}, fmt.Errorf("the field %q is not read here: use source, type and subject", field)
		}
		if len(tests) == 0 {
			return Pattern{}, fmt.Errorf("the field %q has no test", field)
		}
		f := fieldPattern{field: field}
		for _, data := range tests {
			var t textTest
			var open map[string]string
			switch {
			case json.Unmarshal(data, &t.exact) == nil:
			case json.Unmarshal(data, &open) == nil && len(open) == 1 && (open["prefix"] != "" || open["suffix"] != ""):
				t = textTest{prefix: open["prefix"], suffix: open["suffix"], open: true}
			default:
				return Pattern{}, fmt.Errorf("the field %q: %s: want a text, {\"prefix\":…} or {\"suffix\":…}", field, data)
			}
			f.tests = append(f.tests, t)
		}
		p.fields = append(p.fields, f)
	}
	slices.SortFunc(p.fields, func(a, b fieldPattern) int { return strings.Compare(a.field, b.field) })
	return p, nil
}

// Fits reports whether an event with these fields is meant.
func (p Pattern) Fits(event map[string]string) bool {
	for _, f := range p.fields {
		value := event[f.field]
		if !slices.ContainsFunc(f.tests, func(t textTest) bool {
			if t.open {
				return strings.HasPrefix(value, t.prefix) && strings.HasSuffix(value, t.suffix)
			}
			return value == t.exact
		}) {
			return false
		}
	}
	return true
}

// eventTrigger reads an EventBridge trigger on the account's default bus, one event at a
// time. Batches and other sources change the form of what the function gets, and are left
// out.
func (r *reader) eventTrigger(t object, at, name string) EventTrigger {
	out := EventTrigger{Name: name}
	at += ".triggerConfig"
	c := r.mapping(t.values["triggerConfig"], at, "triggerEnable", "asyncInvocationType", "eventRuleFilterPattern", "eventSourceConfig")
	out.Enabled = r.boolean(c, at, "triggerEnable", true)
	r.boolean(c, at, "asyncInvocationType", false)
	if text := r.text(c, at, "eventRuleFilterPattern", true); text != "" {
		var err error
		if out.Pattern, err = ParsePattern(text); err != nil {
			r.problem(c.values["eventRuleFilterPattern"], at+".eventRuleFilterPattern", "%v", err)
		}
	}
	source := r.mapping(c.values["eventSourceConfig"], at+".eventSourceConfig", "eventSourceType")
	if c.values["eventSourceConfig"] == nil {
		r.problem(t.values["triggerConfig"], at+".eventSourceConfig", "is missing")
	} else if kind := r.text(source, at+".eventSourceConfig", "eventSourceType", true); kind != "" && kind != "Default" {
		r.problem(source.values["eventSourceType"], at+".eventSourceConfig.eventSourceType", "%q: only Default, the account's own bus, is read here", kind)
	}
	return out
}
