package engine

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"math"
	"slices"

	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// A Field is a field of a search index, as queries use it: the attribute or key column of
// its name, if that has a value of the field's type.
type Field struct {
	Name string
	// Type is that of the values, if Comparable: else a query can only ask whether there
	// are some.
	Type       plainbuffer.Type
	Comparable bool
	// Array says that the column is the JSON of an array of values.
	Array bool
}

// MatchKind is what a Match asks of a row.
type MatchKind int8

// The kinds.
const (
	MatchTerms  MatchKind = iota + 1 // a value of the field is one of Values
	MatchRange                       // a value of the field lies between From and To
	MatchPrefix                      // a value of the field begins with the first of Values
	MatchExists                      // the field has a value
	MatchBool                        // parts match
)

// A Match says which rows a search finds. Nil finds all.
type Match struct {
	Kind                   MatchKind
	Field                  Field
	Values                 []plainbuffer.Cell
	From, To               *plainbuffer.Cell // nil is no bound
	IncludeFrom, IncludeTo bool
	// Must must all match, MustNot may not, and of Should at least Least.
	Must, MustNot, Should []*Match
	Least                 int
}

// matches says whether the row of a key and of its cells is found.
func (m *Match) matches(key, cells []plainbuffer.Cell) bool {
	if m == nil {
		return true
	}
	if m.Kind == MatchBool {
		for _, part := range m.Must {
			if !part.matches(key, cells) {
				return false
			}
		}
		for _, part := range m.MustNot {
			if part.matches(key, cells) {
				return false
			}
		}
		n := 0
		for _, part := range m.Should {
			if n < m.Least && part.matches(key, cells) {
				n++
			}
		}
		return n >= m.Least
	}
	c := m.Field.column(key, cells)
	switch {
	case c == nil:
		return false
	case m.Kind == MatchExists:
		return !m.Field.Comparable || len(m.Field.values(c)) > 0
	}
	return slices.ContainsFunc(m.Field.values(c), m.holds)
}

// holds says whether one value of the field is what m asks for.
func (m *Match) holds(v plainbuffer.Cell) bool {
	switch m.Kind {
	case MatchPrefix:
		return bytes.HasPrefix(v.Data, m.Values[0].Data)
	case MatchRange:
		if m.From != nil {
			if c := compareValues(&v, m.From); c < 0 || c == 0 && !m.IncludeFrom {
				return false
			}
		}
		if m.To != nil {
			if c := compareValues(&v, m.To); c > 0 || c == 0 && !m.IncludeTo {
				return false
			}
		}
		return true
	}
	return slices.ContainsFunc(m.Values, func(x plainbuffer.Cell) bool { return compareValues(&v, &x) == 0 })
}

// column is the newest cell of the field's column, or nil. Cells stand in the order of
// rows.
func (f *Field) column(key, cells []plainbuffer.Cell) *plainbuffer.Cell {
	for i := range key {
		if string(key[i].Name) == f.Name {
			return &key[i]
		}
	}
	at, found := slices.BinarySearchFunc(cells, f.Name, func(c plainbuffer.Cell, name string) int {
		return cmp.Compare(string(c.Name), name)
	})
	if !found {
		return nil
	}
	return &cells[at]
}

// values are those of a column: none where it has another type than the field.
func (f *Field) values(c *plainbuffer.Cell) []plainbuffer.Cell {
	if !f.Array {
		if c.Type != f.Type {
			return nil
		}
		return []plainbuffer.Cell{*c}
	}
	var elements []any
	decoder := json.NewDecoder(bytes.NewReader(c.Data))
	decoder.UseNumber()
	if c.Type != plainbuffer.String || decoder.Decode(&elements) != nil {
		return nil
	}
	var out []plainbuffer.Cell
	for _, e := range elements {
		if v, ok := f.element(e); ok {
			out = append(out, v)
		}
	}
	return out
}

// element is an element of an array as a value of the field's type.
func (f *Field) element(e any) (v plainbuffer.Cell, ok bool) {
	v = plainbuffer.Cell{Type: f.Type, HasValue: true}
	switch e := e.(type) {
	case string:
		v.Data = []byte(e)
		return v, f.Type == plainbuffer.String
	case bool:
		v.Data = []byte{0}
		if e {
			v.Data[0] = 1
		}
		return v, f.Type == plainbuffer.Boolean
	case json.Number:
		if f.Type == plainbuffer.Integer {
			n, err := e.Int64()
			v.Data = binary.LittleEndian.AppendUint64(nil, uint64(n))
			return v, err == nil
		}
		n, err := e.Float64()
		v.Data = binary.LittleEndian.AppendUint64(nil, math.Float64bits(n))
		return v, err == nil && f.Type == plainbuffer.Double
	}
	return v, false
}

// compareValues compares values of the same type, and numbers of both.
func compareValues(a, b *plainbuffer.Cell) int {
	switch {
	case a.Type == plainbuffer.Integer && b.Type == plainbuffer.Integer:
		return cmp.Compare(a.Int(), b.Int())
	case isNumber(a) && isNumber(b):
		return cmp.Compare(number(a), number(b))
	}
	return bytes.Compare(a.Data, b.Data)
}

func isNumber(c *plainbuffer.Cell) bool {
	return c.Type == plainbuffer.Integer || c.Type == plainbuffer.Double
}

func number(c *plainbuffer.Cell) float64 {
	if c.Type == plainbuffer.Integer {
		return float64(c.Int())
	}
	return c.Double()
}

// A SearchOrder is one of the orders of a search: what it leaves equal, the next one
// decides, and the key in the end.
type SearchOrder struct {
	Key      bool // by the whole key, and not by a field
	Field    Field
	Backward bool
	// Greatest takes the greatest value of an array and not the least.
	Greatest bool
	// Rows without a value come last, or First, or stand where they would with the value
	// Missing.
	First   bool
	Missing *plainbuffer.Cell
}

// A SearchValue is that of a row in an order. Rank is below 0 for rows that come first
// for want of a value, above 0 for those that come last.
type SearchValue struct {
	Rank  int8
	Value plainbuffer.Cell
}

// of is the row's value in the order.
func (o *SearchOrder) of(key, cells []plainbuffer.Cell) SearchValue {
	var best *plainbuffer.Cell
	if c := o.Field.column(key, cells); c != nil {
		for _, v := range o.Field.values(c) {
			if best == nil || (compareValues(&v, best) > 0) == o.Greatest {
				best = &v
			}
		}
	}
	switch {
	case best != nil:
	case o.Missing != nil:
		best = o.Missing
	case o.First:
		return SearchValue{Rank: -1}
	default:
		return SearchValue{Rank: 1}
	}
	return SearchValue{Value: plainbuffer.Cell{Type: best.Type, Data: bytes.Clone(best.Data), HasValue: true}}
}

// A hit is a row that a search with orders has found.
type hit struct {
	key    []byte // as stored, without the table's prefix
	values []SearchValue
}

// compareHits orders hits, by their keys in the end if that is wanted.
func compareHits(orders []SearchOrder, a, b *hit, keys bool) int {
	for i := range orders {
		o, c := &orders[i], 0
		if o.Key {
			c = bytes.Compare(a.key, b.key)
		} else {
			x, y := &a.values[i], &b.values[i]
			if c = cmp.Compare(x.Rank, y.Rank); c != 0 {
				return c
			}
			if x.Rank != 0 {
				continue
			}
			c = compareValues(&x.Value, &y.Value)
		}
		if c != 0 {
			if o.Backward {
				return -c
			}
			return c
		}
	}
	if !keys {
		return 0
	}
	return bytes.Compare(a.key, b.key)
}
