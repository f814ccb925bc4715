package engine

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"regexp"
	"slices"
	"strconv"

	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// Comparison is how a filter compares a column with its value.
type Comparison int8

// The comparisons.
const (
	Equal          Comparison = 1
	NotEqual       Comparison = 2
	Greater        Comparison = 3
	GreaterOrEqual Comparison = 4
	Less           Comparison = 5
	LessOrEqual    Comparison = 6
)

// Logic joins filters.
type Logic int8

// The ways to join filters; zero is a filter by itself.
const (
	Not Logic = 1
	And Logic = 2
	Or  Logic = 3
)

// A Filter decides whether a row is kept: by one column's value or by other filters. A
// page filter, which stands alone or among the parts of an And, does not decide but cuts
// the row's columns.
type Filter struct {
	Logic Logic
	Parts []*Filter

	Compare     Comparison
	Column      string
	Value       plainbuffer.Cell // Type and Data
	DropMissing bool             // a row without the column does not match
	LatestOnly  bool             // else any version may match
	// Pattern, if given, takes the part of a string that its first group matches, or the
	// whole match, and Cast turns it into an integer, double, string or blob before it is
	// compared.
	Pattern *regexp.Regexp
	Cast    plainbuffer.Type

	Page          bool
	Offset, Limit int
}

// Count is the number of filters in f.
func (f *Filter) Count() int {
	n := 1
	for _, p := range f.Parts {
		n += p.Count()
	}
	return n
}

// Check refuses a filter that cannot be.
func (f *Filter) Check() *Error { return f.check(MaxFilters) }

// check is Check with another limit.
func (f *Filter) check(most int) *Error {
	if f.Count() > most {
		return invalid("The count of filter exceeds the max: %d.", most)
	}
	return f.checkPart(true)
}

func (f *Filter) checkPart(top bool) *Error {
	if f.Page {
		if !top {
			return invalid("ColumnPaginationFilter can't be nested in an OR or NOT filter.")
		}
		if f.Offset < 0 {
			return invalid("Offset in ColumnPaginationFilter must be greater than or equal to 0.")
		}
		if f.Limit <= 0 {
			return invalid("Limit in ColumnPaginationFilter must be greater than 0.")
		}
		return nil
	}
	switch f.Logic {
	case 0:
		if f.Compare < Equal || f.Compare > LessOrEqual {
			return invalid("Invalid relation operator: %d.", f.Compare)
		}
		return checkColumnName([]byte(f.Column))
	case Not:
		if len(f.Parts) != 1 {
			return invalid("Invalid NOT operator: the number of sub-filters must be 1.")
		}
	case And, Or:
		if len(f.Parts) < 2 {
			return invalid("Invalid AND/OR operator: the number of sub-filters must be 2.")
		}
	default:
		return invalid("Invalid logical operator of filter: %d.", f.Logic)
	}
	for _, p := range f.Parts {
		if err := p.checkPart(top && f.Logic == And); err != nil {
			return err
		}
	}
	return nil
}

// HasPage says whether f or a part of it is a page filter.
func (f *Filter) HasPage() bool { return f.page() != nil }

// page returns the page filter in f, or nil.
func (f *Filter) page() *Filter {
	if f == nil || f.Page {
		return f
	}
	for _, p := range f.Parts {
		if q := p.page(); q != nil {
			return q
		}
	}
	return nil
}

// Match says whether f keeps the row. Cells stand in the order of rows.
func (f *Filter) Match(key, cells []plainbuffer.Cell) bool {
	if f.Page {
		return true
	}
	switch f.Logic {
	case Not:
		return !f.Parts[0].Match(key, cells)
	case And:
		for _, p := range f.Parts {
			if !p.Match(key, cells) {
				return false
			}
		}
		return true
	case Or:
		for _, p := range f.Parts {
			if p.Match(key, cells) {
				return true
			}
		}
		return false
	}
	for i := range key {
		if string(key[i].Name) == f.Column {
			return f.matchValue(&key[i])
		}
	}
	at, _ := slices.BinarySearchFunc(cells, f.Column, func(c plainbuffer.Cell, name string) int {
		return cmp.Compare(string(c.Name), name)
	})
	found := false
	for ; at < len(cells) && string(cells[at].Name) == f.Column; at++ {
		found = true
		if f.matchValue(&cells[at]) {
			return true
		}
		if f.LatestOnly {
			return false
		}
	}
	return !found && !f.DropMissing
}

func (f *Filter) matchValue(c *plainbuffer.Cell) bool {
	value := plainbuffer.Cell{Type: c.Type, Data: c.Data}
	if f.Pattern != nil {
		if c.Type != plainbuffer.String {
			return false
		}
		m := f.Pattern.FindSubmatch(c.Data)
		if m == nil {
			return false
		}
		part := m[0]
		if len(m) > 1 {
			part = m[1]
		}
		var ok bool
		if value, ok = cast(part, f.Cast); !ok {
			return false
		}
	}
	if value.Type != f.Value.Type {
		return false
	}
	var c3 int
	switch value.Type {
	case plainbuffer.Integer:
		c3 = cmp.Compare(value.Int(), f.Value.Int())
	case plainbuffer.Double:
		c3 = cmp.Compare(value.Double(), f.Value.Double())
	default:
		c3 = bytes.Compare(value.Data, f.Value.Data)
	}
	switch f.Compare {
	case Equal:
		return c3 == 0
	case NotEqual:
		return c3 != 0
	case Greater:
		return c3 > 0
	case GreaterOrEqual:
		return c3 >= 0
	case Less:
		return c3 < 0
	}
	return c3 <= 0
}

func cast(text []byte, t plainbuffer.Type) (plainbuffer.Cell, bool) {
	c := plainbuffer.Cell{Type: t, Data: text}
	switch t {
	case plainbuffer.Integer:
		v, err := strconv.ParseInt(string(text), 10, 64)
		if err != nil {
			return c, false
		}
		c.Data = binary.LittleEndian.AppendUint64(nil, uint64(v))
	case plainbuffer.Double:
		v, err := strconv.ParseFloat(string(text), 64)
		if err != nil {
			return c, false
		}
		c.Data = binary.LittleEndian.AppendUint64(nil, math.Float64bits(v))
	}
	return c, true
}
