package ots

import (
	"encoding/json"
	"slices"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// The service's limits of queries: how many stand side by side in a BoolQuery, how many
// terms in a TermsQuery; and how deep queries are nested here.
const (
	maxBoolParts  = 1024
	maxTerms      = 1024
	maxQueryDepth = 32
)

// leftOutOfSearch refuses what a search is not answered for.
func leftOutOfSearch(what string) *engine.Error {
	return &engine.Error{Code: engine.CodeUnsupported, Message: "Unsupported operation: " + what + " is left out of the local server."}
}

// A queryReader turns queries of a search index into the engine's.
type queryReader struct {
	what   string // whose queries they are
	schema *otsprotocol.IndexSchema
	depth  int
}

// match is what a query asks of rows, nil for all.
func (r *queryReader) match(q *otsprotocol.Query) (*engine.Match, *engine.Error) {
	if q == nil {
		return nil, leftOutOfSearch(r.what + " without a query")
	}
	if r.depth++; r.depth > maxQueryDepth {
		return nil, invalid("Queries are nested in more than %d levels.", maxQueryDepth)
	}
	defer func() { r.depth-- }()
	switch q.GetType() {
	case otsprotocol.QueryType_MATCH_ALL_QUERY:
		return nil, nil
	case otsprotocol.QueryType_TERM_QUERY:
		var m otsprotocol.TermQuery
		if err := r.parse(q, &m); err != nil {
			return nil, err
		}
		return r.terms("term", m.GetFieldName(), [][]byte{m.Term})
	case otsprotocol.QueryType_TERMS_QUERY:
		var m otsprotocol.TermsQuery
		if err := r.parse(q, &m); err != nil {
			return nil, err
		}
		if n := len(m.Terms); n == 0 || n > maxTerms {
			return nil, invalid("The number of terms of a terms query must be in range: [1, %d], not %d.", maxTerms, n)
		}
		return r.terms("terms", m.GetFieldName(), m.Terms)
	case otsprotocol.QueryType_RANGE_QUERY:
		return r.between(q)
	case otsprotocol.QueryType_PREFIX_QUERY:
		var m otsprotocol.PrefixQuery
		if err := r.parse(q, &m); err != nil {
			return nil, err
		}
		f, _, err := r.comparable("prefix", m.GetFieldName())
		if err != nil {
			return nil, err
		}
		if f.Type != plainbuffer.String {
			return nil, invalid("[prefix query] field: %s is no keyword", f.Name)
		}
		return &engine.Match{Kind: engine.MatchPrefix, Field: f, Values: []plainbuffer.Cell{{Type: plainbuffer.String, Data: []byte(m.GetPrefix())}}}, nil
	case otsprotocol.QueryType_EXISTS_QUERY:
		var m otsprotocol.ExistsQuery
		if err := r.parse(q, &m); err != nil {
			return nil, err
		}
		s, err := r.field("exists", m.GetFieldName())
		if err != nil {
			return nil, err
		}
		return &engine.Match{Kind: engine.MatchExists, Field: fieldOf(s)}, nil
	case otsprotocol.QueryType_BOOL_QUERY:
		return r.all(q)
	case otsprotocol.QueryType_CONST_SCORE_QUERY:
		var m otsprotocol.ConstScoreQuery
		if err := r.parse(q, &m); err != nil {
			return nil, err
		}
		return r.match(m.Filter)
	}
	return nil, leftOutOfSearch(r.what + " with a " + q.GetType().String())
}

func (r *queryReader) parse(q *otsprotocol.Query, m proto.Message) *engine.Error {
	if err := unmarshal(q.Query, m); err != nil {
		return invalid("Failed to parse the %s: %v.", q.GetType(), err)
	}
	return nil
}

// field is the schema of a field of the index that may be asked for.
func (r *queryReader) field(query, name string) (*otsprotocol.FieldSchema, *engine.Error) {
	at := slices.IndexFunc(r.schema.GetFieldSchemas(), func(f *otsprotocol.FieldSchema) bool { return f.GetFieldName() == name })
	if at < 0 {
		return nil, invalid("[%s query] field: %s does not exist", query, name)
	}
	f := r.schema.FieldSchemas[at]
	if f.Index != nil && !f.GetIndex() {
		return nil, invalid("failed to query index, please check if 'Index' is enabled for query fields.")
	}
	if f.GetIsVirtualField() {
		return nil, leftOutOfSearch(r.what + " with the virtual field '" + name + "'")
	}
	return f, nil
}

// fieldOf is a field as the engine compares it.
func fieldOf(s *otsprotocol.FieldSchema) engine.Field {
	f := engine.Field{Name: s.GetFieldName(), Array: s.GetIsArray(), Comparable: true}
	switch s.GetFieldType() {
	case otsprotocol.FieldType_LONG:
		f.Type = plainbuffer.Integer
	case otsprotocol.FieldType_DOUBLE:
		f.Type = plainbuffer.Double
	case otsprotocol.FieldType_BOOLEAN:
		f.Type = plainbuffer.Boolean
	case otsprotocol.FieldType_KEYWORD:
		f.Type = plainbuffer.String
	default:
		f.Comparable = false
	}
	return f
}

// comparable is a field whose values can be compared, and its schema.
func (r *queryReader) comparable(query, name string) (f engine.Field, s *otsprotocol.FieldSchema, err *engine.Error) {
	if s, err = r.field(query, name); err != nil {
		return f, nil, err
	}
	if f = fieldOf(s); !f.Comparable {
		return f, nil, leftOutOfSearch(r.what + " with a " + query + " query on the " + s.GetFieldType().String() + " field '" + name + "'")
	}
	return f, s, nil
}

// value is one of a query, which must be of a type that the field has.
func (r *queryReader) value(query string, f engine.Field, variant []byte) (plainbuffer.Cell, *engine.Error) {
	v, ok := parseVariant(variant)
	if !ok {
		return v, invalid("[%s query] the value of field: %s is invalid", query, f.Name)
	}
	number := func(t plainbuffer.Type) bool { return t == plainbuffer.Integer || t == plainbuffer.Double }
	if v.Type != f.Type && !(number(v.Type) && number(f.Type)) {
		return v, invalid("[%s query] the value of field: %s is of another type", query, f.Name)
	}
	v.Data = slices.Clone(v.Data)
	return v, nil
}

func (r *queryReader) terms(query, name string, variants [][]byte) (*engine.Match, *engine.Error) {
	f, _, err := r.comparable(query, name)
	if err != nil {
		return nil, err
	}
	m := &engine.Match{Kind: engine.MatchTerms, Field: f}
	for _, b := range variants {
		v, err := r.value(query, f, b)
		if err != nil {
			return nil, err
		}
		m.Values = append(m.Values, v)
	}
	return m, nil
}

func (r *queryReader) between(q *otsprotocol.Query) (*engine.Match, *engine.Error) {
	var m otsprotocol.RangeQuery
	if err := r.parse(q, &m); err != nil {
		return nil, err
	}
	f, _, err := r.comparable("range", m.GetFieldName())
	if err != nil {
		return nil, err
	}
	out := &engine.Match{Kind: engine.MatchRange, Field: f, IncludeFrom: m.GetIncludeLower(), IncludeTo: m.GetIncludeUpper()}
	for _, bound := range []struct {
		variant []byte
		to      **plainbuffer.Cell
	}{{m.RangeFrom, &out.From}, {m.RangeTo, &out.To}} {
		if len(bound.variant) == 0 {
			continue
		}
		v, err := r.value("range", f, bound.variant)
		if err != nil {
			return nil, err
		}
		*bound.to = &v
	}
	return out, nil
}

// all is a BoolQuery. Without another number, one of its should queries must match where
// nothing else must.
func (r *queryReader) all(q *otsprotocol.Query) (*engine.Match, *engine.Error) {
	var m otsprotocol.BoolQuery
	if err := r.parse(q, &m); err != nil {
		return nil, err
	}
	out := &engine.Match{Kind: engine.MatchBool}
	for _, part := range []struct {
		queries []*otsprotocol.Query
		to      *[]*engine.Match
	}{{m.MustQueries, &out.Must}, {m.FilterQueries, &out.Must}, {m.MustNotQueries, &out.MustNot}, {m.ShouldQueries, &out.Should}} {
		if n := len(part.queries); n > maxBoolParts {
			return nil, invalid("The number of queries in a bool query must not exceed %d, not %d.", maxBoolParts, n)
		}
		for _, sub := range part.queries {
			match, err := r.match(sub)
			if err != nil {
				return nil, err
			}
			*part.to = append(*part.to, match)
		}
	}
	switch {
	case m.MinimumShouldMatch != nil:
		out.Least = int(m.GetMinimumShouldMatch())
		if out.Least < 0 {
			return nil, invalid("The minimum_should_match of a bool query must not be negative: %d.", out.Least)
		}
	case len(out.Must) == 0 && len(out.Should) > 0:
		out.Least = 1
	}
	return out, nil
}

// The values that stand for the place of rows without one.
const (
	firstWhenMissing = "_first"
	lastWhenMissing  = "_last"
)

// orders are those of a search, none for that of the keys, and whether that is from the
// last key on.
func (r *queryReader) orders(given *otsprotocol.Sort) (_ []engine.SearchOrder, backward bool, _ *engine.Error) {
	sorters := given.GetSorter()
	if len(sorters) == 0 {
		sorters = r.schema.GetIndexSort().GetSorter()
	}
	var out []engine.SearchOrder
	for _, s := range sorters {
		o, err := r.order(s)
		if err != nil {
			return nil, false, err
		}
		if o != nil {
			out = append(out, *o)
		}
	}
	switch {
	case len(out) == 0:
		return nil, false, nil
	case out[0].Key:
		// Nothing is left for the others to decide.
		return nil, out[0].Backward, nil
	}
	return out, false, nil
}

// order is one sorter, nil for one that changes nothing.
func (r *queryReader) order(s *otsprotocol.Sorter) (*engine.SearchOrder, *engine.Error) {
	switch {
	case s.PkSort != nil:
		return &engine.SearchOrder{Key: true, Backward: s.PkSort.GetOrder() == otsprotocol.SortOrder_SORT_ORDER_DESC}, nil
	case s.FieldSort == nil:
		return nil, leftOutOfSearch(r.what + " that sorts by anything but fields and the primary key")
	}
	fs := s.FieldSort
	if fs.NestedFilter != nil || fs.MissingField != nil || fs.GetMode() == otsprotocol.SortMode_SORT_MODE_AVG {
		return nil, leftOutOfSearch(r.what + " that sorts by a nested field, a missing field or an average")
	}
	f, schema, err := r.comparable("sort", fs.GetFieldName())
	if err != nil {
		return nil, err
	}
	if !schema.GetSortAndAgg() {
		return nil, invalid("[field_sort] field:%s must enable enable_sort_and_agg, but enable_sort_and_agg is not enabled", f.Name)
	}
	o := &engine.SearchOrder{Field: f, Backward: fs.GetOrder() == otsprotocol.SortOrder_SORT_ORDER_DESC}
	o.Greatest = o.Backward
	if fs.Mode != nil {
		o.Greatest = fs.GetMode() == otsprotocol.SortMode_SORT_MODE_MAX
	}
	if len(fs.MissingValue) == 0 {
		return o, nil
	}
	v, ok := parseVariant(fs.MissingValue)
	switch {
	case ok && v.Type == plainbuffer.String && string(v.Data) == firstWhenMissing:
		o.First = true
	case ok && v.Type == plainbuffer.String && string(v.Data) == lastWhenMissing:
	default:
		missing, err := r.value("sort", f, fs.MissingValue)
		if err != nil {
			return nil, err
		}
		o.Missing = &missing
	}
	return o, nil
}

// A searchPlace is where a search goes on that is not in the order of keys: its token is
// 2 and the place. That of a search in the order of keys is its direction, 1 for
// backward, and the stored key of the last row.
type searchPlace struct {
	Sort   []byte // the search's orders, as they were given
	Key    []byte
	Values []searchPlaceValue
}

type searchPlaceValue struct {
	Rank int8   `json:",omitempty"`
	Type int8   `json:",omitempty"`
	Data []byte `json:",omitempty"`
}

func searchToken(sq *engine.SearchQuery, given *otsprotocol.Sort, page *engine.SearchPage) ([]byte, *engine.Error) {
	if page.Next == nil {
		return nil, nil
	}
	if len(sq.Orders) == 0 {
		token := make([]byte, 1, 1+len(page.Next))
		if sq.Backward {
			token[0] = 1
		}
		return append(token, page.Next...), nil
	}
	sort, err := proto.Marshal(given)
	if err != nil {
		return nil, engine.AsError(err)
	}
	place := searchPlace{Sort: sort, Key: page.Next}
	for _, v := range page.Values {
		place.Values = append(place.Values, searchPlaceValue{v.Rank, int8(v.Value.Type), v.Value.Data})
	}
	text, err := json.Marshal(place)
	if err != nil {
		return nil, engine.AsError(err)
	}
	return append([]byte{2}, text...), nil
}

// goOn makes sq go on where the page of a token ended, and returns the orders that the
// token has.
func (r *queryReader) goOn(sq *engine.SearchQuery, token []byte) (*otsprotocol.Sort, *engine.Error) {
	broken := invalid("The token of search is invalid.")
	if len(token) < 2 || token[0] > 2 {
		return nil, broken
	}
	if token[0] < 2 {
		sq.Backward, sq.After = token[0] == 1, token[1:]
		return nil, nil
	}
	var place searchPlace
	sort := new(otsprotocol.Sort)
	if json.Unmarshal(token[1:], &place) != nil || len(place.Key) == 0 || unmarshal(place.Sort, sort) != nil {
		return nil, broken
	}
	orders, _, err := r.orders(sort)
	if err != nil || len(orders) == 0 || len(orders) != len(place.Values) {
		return nil, broken
	}
	sq.Orders, sq.After = orders, place.Key
	for i, v := range place.Values {
		value := engine.SearchValue{Rank: v.Rank, Value: plainbuffer.Cell{Type: plainbuffer.Type(v.Type), Data: v.Data, HasValue: true}}
		if v.Rank == 0 && !orders[i].Key {
			size := map[plainbuffer.Type]int{plainbuffer.Integer: 8, plainbuffer.Double: 8, plainbuffer.Boolean: 1, plainbuffer.String: len(v.Data)}
			if n, ok := size[value.Value.Type]; !ok || n != len(v.Data) {
				return nil, broken
			}
		}
		sq.Values = append(sq.Values, value)
	}
	return sort, nil
}
