package deployment

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxDepth bounds nesting, in the file and through variables.
const maxDepth = 32

// node is a YAML value with its place. value is a string, int64, float64, bool, nil,
// []*node or *mapping.
type node struct {
	line  int
	value any
}

type mapping struct {
	keys   []string // in the order of the file
	values map[string]*node
}

func (n *node) mapping() *mapping {
	if n == nil {
		return nil
	}
	m, _ := n.value.(*mapping)
	return m
}

// kind names what the value is, for errors.
func (n *node) kind() string {
	switch n.value.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a number"
	case bool:
		return "a boolean"
	case []*node:
		return "a list"
	case *mapping:
		return "a mapping"
	}
	return "empty"
}

// parseYAML reads one document. Anchors, aliases, tags and merge keys are refused:
// variables and templates do what they would.
func parseYAML(file string, data []byte) (*node, error) {
	tree, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var bodies []ast.Node
	for _, doc := range tree.Docs {
		if doc != nil && doc.Body != nil && doc.Body.Type() != ast.CommentType {
			bodies = append(bodies, doc.Body)
		}
	}
	if len(bodies) != 1 {
		return nil, &Problem{File: file, Line: 1, Text: fmt.Sprintf("%d YAML documents, want one", len(bodies))}
	}
	return convert(file, bodies[0], 0)
}

func convert(file string, n ast.Node, depth int) (*node, error) {
	out := &node{line: line(n)}
	refuse := func(text string) (*node, error) {
		return nil, &Problem{File: file, Line: out.line, Text: text}
	}
	if depth > maxDepth {
		return refuse(fmt.Sprintf("nested deeper than %d", maxDepth))
	}
	switch n := n.(type) {
	case nil, *ast.NullNode:
	case *ast.StringNode:
		out.value = n.Value
	case *ast.LiteralNode:
		out.value = n.Value.Value
	case *ast.BoolNode:
		out.value = n.Value
	case *ast.FloatNode:
		out.value = n.Value
	case *ast.IntegerNode:
		switch v := n.Value.(type) {
		case int64:
			out.value = v
		case uint64:
			if v > 1<<62 {
				return refuse(fmt.Sprintf("%d is too large", v))
			}
			out.value = int64(v)
		default:
			return refuse("unreadable integer")
		}
	case *ast.SequenceNode:
		items := make([]*node, 0, len(n.Values))
		for _, v := range n.Values {
			item, err := convert(file, v, depth+1)
			if err != nil {
				return nil, err
			}
			items = append(items, item)
		}
		out.value = items
	case *ast.MappingNode:
		return convertMapping(file, out, n.Values, depth)
	case *ast.MappingValueNode:
		return convertMapping(file, out, []*ast.MappingValueNode{n}, depth)
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		return refuse("anchors and aliases are not read here: use vars or a template")
	default:
		return refuse(fmt.Sprintf("YAML of type %s is not read here", n.Type()))
	}
	return out, nil
}

func convertMapping(file string, out *node, values []*ast.MappingValueNode, depth int) (*node, error) {
	m := &mapping{values: make(map[string]*node, len(values))}
	for _, v := range values {
		key, ok := v.Key.(*ast.StringNode)
		if !ok {
			return nil, &Problem{File: file, Line: line(v.Key), Text: fmt.Sprintf("key %s is not a plain string", v.Key.String())}
		}
		if m.values[key.Value] != nil {
			return nil, &Problem{File: file, Line: line(key), Text: fmt.Sprintf("key %q stands twice", key.Value)}
		}
		value, err := convert(file, v.Value, depth+1)
		if err != nil {
			return nil, err
		}
		value.line = line(key)
		m.keys = append(m.keys, key.Value)
		m.values[key.Value] = value
	}
	out.value = m
	return out, nil
}

func line(n ast.Node) int {
	if n == nil {
		return 1
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 1
}

// evaluate returns the tree with every expression replaced and every template merged in.
// What is wrong goes to the reader's problems.
func (r *reader) evaluate(root *node, env map[string]string) *node {
	e := &evaluator{reader: r, env: env}
	if m := root.mapping(); m != nil {
		e.vars = m.values["vars"]
	}
	root = e.walk(root, "", 0)
	m := root.mapping()
	if m == nil {
		return root
	}
	resources := m.values["resources"].mapping()
	if resources == nil {
		return root
	}
	for _, key := range resources.keys {
		r.inherit(m.values["template"].mapping(), resources.values[key], "resources."+key)
	}
	return root
}

// maxValues bounds how many values a file may have after evaluation: a few variables that
// each use the next twice would else fill the memory.
const maxValues = 20_000

type evaluator struct {
	*reader
	env    map[string]string
	vars   *node
	values int
}

func (e *evaluator) walk(n *node, path string, depth int) *node {
	e.values++
	switch {
	case e.values == maxValues:
		e.problem(n, path, "more than %d values after evaluation", maxValues)
		fallthrough
	case e.values > maxValues:
		return &node{line: n.line}
	case depth > maxDepth:
		e.problem(n, path, "variables refer to each other, or nest deeper than %d", maxDepth)
		return &node{line: n.line}
	}
	switch v := n.value.(type) {
	case string:
		return e.interpolate(n, v, path, depth)
	case []*node:
		items := make([]*node, len(v))
		for i, item := range v {
			items[i] = e.walk(item, fmt.Sprintf("%s[%d]", path, i), depth+1)
		}
		return &node{line: n.line, value: items}
	case *mapping:
		m := &mapping{keys: slices.Clone(v.keys), values: make(map[string]*node, len(v.values))}
		for _, key := range v.keys {
			m.values[key] = e.walk(v.values[key], join(path, key), depth+1)
		}
		return &node{line: n.line, value: m}
	}
	return n
}

// interpolate replaces the expressions of one string. A string that is nothing but one
// ${vars.…} becomes the variable, whatever its type.
func (e *evaluator) interpolate(n *node, text, path string, depth int) *node {
	var out strings.Builder
	rest := text
	for {
		before, after, found := strings.Cut(rest, "${")
		out.WriteString(before)
		if !found {
			return &node{line: n.line, value: out.String()}
		}
		expression, tail, err := parseExpression(after)
		if err != nil {
			e.problem(n, path, "%q: %v", text, err)
			return &node{line: n.line, value: ""}
		}
		rest = tail
		value, err := e.value(expression, depth)
		if err != nil {
			e.problem(n, path, "%q: %v", text, err)
			return &node{line: n.line, value: ""}
		}
		if out.Len() == 0 && tail == "" {
			return &node{line: n.line, value: value.value}
		}
		switch v := value.value.(type) {
		case string, int64, bool:
			fmt.Fprint(&out, v)
		default:
			e.problem(n, path, "%q: ${%s} is %s and stands within a text", text, expression.source, value.kind())
			return &node{line: n.line, value: ""}
		}
	}
}

// expression is a call of env or a path into vars.
type expression struct {
	source   string // between the braces
	env      string
	fallback *string // the second argument of env
	vars     []string
}

// parseExpression reads what follows "${" up to its "}", and returns what follows that.
func parseExpression(text string) (expression, string, error) {
	end := strings.IndexByte(text, '}')
	if end < 0 {
		return expression{}, "", errors.New("an expression without an end")
	}
	source, tail := strings.TrimSpace(text[:end]), text[end+1:]
	unknown := fmt.Errorf("the expression ${%s} is not read here; those that are: ${env('NAME')}, ${env('NAME', 'default')}, ${vars.name}", source)
	if path, ok := strings.CutPrefix(source, "vars."); ok {
		names := strings.Split(path, ".")
		if slices.ContainsFunc(names, func(s string) bool { return !isName(s) }) {
			return expression{}, "", unknown
		}
		return expression{source: source, vars: names}, tail, nil
	}
	rest, ok := strings.CutPrefix(source, "env(")
	if !ok {
		return expression{}, "", unknown
	}
	name, rest, err := parseQuoted(rest)
	if err != nil || !isName(name) {
		return expression{}, "", unknown
	}
	out := expression{source: source, env: name}
	if after, ok := strings.CutPrefix(rest, ","); ok {
		fallback, after, err := parseQuoted(strings.TrimSpace(after))
		if err != nil {
			// The vendor's tool ends the expression at the first brace, quoted or not.
			if strings.Contains(source, "{") {
				return expression{}, "", fmt.Errorf("the default of %s has a brace, which the deploying tool cannot read", name)
			}
			return expression{}, "", unknown
		}
		if strings.Contains(fallback, "{") {
			return expression{}, "", fmt.Errorf("the default of %s has a brace, which the deploying tool cannot read", name)
		}
		out.fallback, rest = &fallback, after
	}
	if rest != ")" {
		return expression{}, "", unknown
	}
	return out, tail, nil
}

// parseQuoted reads a quoted text without escapes, and returns what follows it and any
// blanks.
func parseQuoted(text string) (value, rest string, err error) {
	if text == "" || text[0] != '\'' && text[0] != '"' {
		return "", "", errors.New("want a quoted text")
	}
	end := strings.IndexByte(text[1:], text[0])
	if end < 0 || strings.Contains(text[1:1+end], `\`) {
		return "", "", errors.New("want a quoted text without escapes")
	}
	return text[1 : 1+end], strings.TrimSpace(text[end+2:]), nil
}

func (e *evaluator) value(x expression, depth int) (*node, error) {
	if x.env != "" {
		if value, ok := e.env[x.env]; ok {
			return &node{value: value}, nil
		}
		if x.fallback != nil {
			return &node{value: *x.fallback}, nil
		}
		return nil, fmt.Errorf("the environment variable %s is not set and has no default", x.env)
	}
	n := e.vars
	for i, name := range x.vars {
		m := n.mapping()
		if m == nil || m.values[name] == nil {
			return nil, fmt.Errorf("there is no vars.%s", strings.Join(x.vars[:i+1], "."))
		}
		n = m.values[name]
	}
	return e.walk(n, "vars."+strings.Join(x.vars, "."), depth+1), nil
}

// inherit merges the template that a resource extends under its props.
func (r *reader) inherit(templates *mapping, resource *node, path string) {
	m := resource.mapping()
	if m == nil || m.values["extend"] == nil {
		return
	}
	extend := m.values["extend"]
	em := r.mapping(extend, path+".extend", "name")
	name := r.text(em, path+".extend", "name", true)
	if name == "" {
		return
	}
	if templates == nil || templates.values[name] == nil {
		r.problem(extend, path+".extend.name", "there is no template %q", name)
		return
	}
	props := m.values["props"]
	if props == nil {
		props = &node{line: resource.line, value: &mapping{values: map[string]*node{}}}
		m.keys = append(m.keys, "props")
	}
	m.values["props"] = r.merge(templates.values[name], props, path+".props")
}

// merge lays over upon under: mappings key by key, anything else replaced. Lists in both
// are refused, since the vendor's tool merges them element by element.
func (r *reader) merge(under, over *node, path string) *node {
	u, o := under.mapping(), over.mapping()
	if u == nil || o == nil {
		_, underList := under.value.([]*node)
		_, overList := over.value.([]*node)
		if underList && overList {
			r.problem(over, path, "the template has a list here, too: lists are not merged")
		}
		return over
	}
	m := &mapping{keys: slices.Clone(u.keys), values: make(map[string]*node)}
	for _, key := range u.keys {
		m.values[key] = u.values[key]
	}
	for _, key := range o.keys {
		if below := m.values[key]; below != nil {
			m.values[key] = r.merge(below, o.values[key], join(path, key))
			continue
		}
		m.keys = append(m.keys, key)
		m.values[key] = o.values[key]
	}
	return &node{line: over.line, value: m}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func isName(s string) bool {
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '-') {
			return false
		}
	}
	return s != ""
}
