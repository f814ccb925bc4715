package ots_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/search"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ots/otstest"
)

// searchAll are all rows of a search index, in the order in which it gives them.
func searchAll(t testing.TB, s *ots.Server, index string) []*tablestore.Row {
	t.Helper()
	res, err := matchAll(inProcess(s), index, wish{limit: 100})
	ok(t, err)
	if int(res.TotalCount) != len(res.Rows) {
		t.Errorf("%d rows of %d", len(res.Rows), res.TotalCount)
	}
	return res.Rows
}

// searchable makes a table "t" with fields of every type that queries compare, and
// others, in a search index "s".
func searchable(t testing.TB, c *tablestore.TableStoreClient) {
	t.Helper()
	create(t, c, tablestore.TableOption{}, integer, text)
	field := func(name string, kind tablestore.FieldType, with ...func(*tablestore.FieldSchema)) *tablestore.FieldSchema {
		f := &tablestore.FieldSchema{FieldName: &name, FieldType: kind, Index: proto.Bool(true), EnableSortAndAgg: proto.Bool(kind != tablestore.FieldType_TEXT)}
		for _, w := range with {
			w(f)
		}
		return f
	}
	array := func(f *tablestore.FieldSchema) { f.IsArray = proto.Bool(true) }
	ok(t, createSearch(c, "s", &tablestore.IndexSchema{FieldSchemas: []*tablestore.FieldSchema{
		field("pk1", tablestore.FieldType_LONG), field("pk2", tablestore.FieldType_KEYWORD),
		field("k", tablestore.FieldType_KEYWORD), field("l", tablestore.FieldType_LONG), field("d", tablestore.FieldType_DOUBLE), field("b", tablestore.FieldType_BOOLEAN),
		field("ks", tablestore.FieldType_KEYWORD, array), field("ls", tablestore.FieldType_LONG, array), field("ds", tablestore.FieldType_DOUBLE, array), field("bs", tablestore.FieldType_BOOLEAN, array),
		field("text", tablestore.FieldType_TEXT), field("date", tablestore.FieldType_DATE, func(f *tablestore.FieldSchema) { f.DateFormats = []string{"yyyy"} }),
		field("hidden", tablestore.FieldType_LONG, func(f *tablestore.FieldSchema) { f.Index = proto.Bool(false) }),
		field("unsorted", tablestore.FieldType_LONG, func(f *tablestore.FieldSchema) { f.EnableSortAndAgg = proto.Bool(false) }),
		field("virtual", tablestore.FieldType_KEYWORD, func(f *tablestore.FieldSchema) {
			f.IsVirtualField, f.SourceFieldNames = proto.Bool(true), []string{"k"}
		}),
	}}))
}

func find(c *tablestore.TableStoreClient, q search.SearchQuery) (*tablestore.SearchResponse, error) {
	return c.Search(&tablestore.SearchRequest{TableName: "t", IndexName: "s", SearchQuery: q})
}

// TestQueries has each kind of query find what it is to find.
func TestQueries(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	searchable(t, c)
	for i, row := range [][]cell{
		{{"k", "apple", -1}, {"l", int64(5), -1}, {"d", 0.5, -1}, {"b", true, -1}, {"ks", `["x","y"]`, -1}, {"ls", `[1, 9]`, -1}, {"text", "some text", -1}},
		{{"k", "apples", -1}, {"l", int64(-3), -1}, {"d", 5.0, -1}, {"b", false, -1}, {"ks", `["y"]`, -1}, {"ds", `[0.5]`, -1}, {"date", "2026", -1}},
		{{"k", "pear", -1}, {"l", int64(7), -1}, {"bs", `[true]`, -1}, {"ks", `[]`, -1}},
		{{"k", int64(5), -1}, {"l", "5", -1}, {"d", int64(5), -1}, {"ks", "no array", -1}}, // nothing of it has the field's type
		{},
	} {
		ok(t, put(c, key(i, fmt.Sprint("key", i)), row...))
	}
	all := &search.MatchAllQuery{}
	term := func(field string, v any) search.Query { return &search.TermQuery{FieldName: field, Term: v} }
	between := func(field string, from, to any, lower, upper bool) search.Query {
		return &search.RangeQuery{FieldName: field, From: from, To: to, IncludeLower: lower, IncludeUpper: upper}
	}
	one, two := int32(1), int32(2)
	for name, test := range map[string]struct {
		query search.Query
		want  string
	}{
		"all":                      {all, "0 1 2 3 4"},
		"term of a keyword":        {term("k", "apple"), "0"},
		"term of a long":           {term("l", int64(-3)), "1"},
		"term of a long, a double": {term("l", 7.0), "2"},
		"term of a double":         {term("d", 0.5), "0"},
		"term of a double, a long": {term("d", int64(5)), "1"},
		"term of a boolean":        {term("b", false), "1"},
		"term of a key":            {term("pk2", "key3"), "3"},
		"term of the first key":    {term("pk1", int64(4)), "4"},
		"term of an array":         {term("ks", "y"), "0 1"},
		"term of longs":            {term("ls", int64(9)), "0"},
		"term of doubles":          {term("ds", 0.5), "1"},
		"term of booleans":         {term("bs", true), "2"},
		"no such term":             {term("k", "plum"), ""},
		"terms":                    {&search.TermsQuery{FieldName: "k", Terms: []any{"pear", "apple", "plum"}}, "0 2"},
		"terms of an array":        {&search.TermsQuery{FieldName: "ks", Terms: []any{"x", "z"}}, "0"},
		"from":                     {between("l", int64(5), nil, true, false), "0 2"},
		"above":                    {between("l", int64(5), nil, false, false), "2"},
		"to":                       {between("l", nil, int64(5), false, true), "0 1"},
		"below":                    {between("l", nil, int64(5), false, false), "1"},
		"between":                  {between("l", int64(-3), int64(7), false, false), "0"},
		"between keywords":         {between("k", "apple", "b", false, false), "1"},
		"between doubles":          {between("d", 0.25, 5.0, true, true), "0 1"},
		"between longs of arrays":  {between("ls", int64(8), int64(10), true, true), "0"},
		"between keys":             {between("pk1", int64(1), int64(3), true, false), "1 2"},
		"between nothing":          {between("l", int64(7), int64(5), true, true), ""},
		"without bounds":           {between("l", nil, nil, false, false), "0 1 2"},
		"prefix":                   {&search.PrefixQuery{FieldName: "k", Prefix: "app"}, "0 1"},
		"prefix of a key":          {&search.PrefixQuery{FieldName: "pk2", Prefix: "key4"}, "4"},
		"prefix of an array":       {&search.PrefixQuery{FieldName: "ks", Prefix: "x"}, "0"},
		"empty prefix":             {&search.PrefixQuery{FieldName: "k"}, "0 1 2"},
		"exists":                   {&search.ExistsQuery{FieldName: "d"}, "0 1"},
		"exists as text":           {&search.ExistsQuery{FieldName: "text"}, "0"},
		"exists as a date":         {&search.ExistsQuery{FieldName: "date"}, "1"},
		"exists as an array":       {&search.ExistsQuery{FieldName: "ks"}, "0 1"},
		"not":                      {&search.BoolQuery{MustNotQueries: []search.Query{term("k", "apple"), term("l", int64(7))}}, "1 3 4"},
		"and":                      {&search.BoolQuery{MustQueries: []search.Query{term("ks", "y")}, FilterQueries: []search.Query{term("b", true)}}, "0"},
		"or":                       {&search.BoolQuery{ShouldQueries: []search.Query{term("k", "apple"), term("l", int64(7))}}, "0 2"},
		"or, if it likes":          {&search.BoolQuery{MustQueries: []search.Query{all}, ShouldQueries: []search.Query{term("k", "apple")}}, "0 1 2 3 4"},
		"or, and one of them":      {&search.BoolQuery{MustQueries: []search.Query{all}, ShouldQueries: []search.Query{term("k", "apple"), term("k", "pear")}, MinimumShouldMatch: &one}, "0 2"},
		"two of them":              {&search.BoolQuery{ShouldQueries: []search.Query{term("k", "apple"), term("ks", "y"), term("b", false)}, MinimumShouldMatch: &two}, "0 1"},
		"nothing":                  {&search.BoolQuery{}, "0 1 2 3 4"},
		"constant score":           {&search.ConstScoreQuery{Filter: term("k", "pear")}, "2"},
		"in each other":            {&search.BoolQuery{MustQueries: []search.Query{&search.BoolQuery{ShouldQueries: []search.Query{term("k", "pear"), &search.BoolQuery{MustNotQueries: []search.Query{&search.ExistsQuery{FieldName: "k"}}}}}}}, "2 3 4"},
	} {
		t.Run(name, func(t *testing.T) {
			res, err := find(c, search.NewSearchQuery().SetQuery(test.query).SetGetTotalCount(true))
			ok(t, err)
			if got := firstKeys(res.Rows); got != test.want || res.TotalCount != int64(len(res.Rows)) || !res.IsAllSuccess {
				t.Errorf("found %q, %d in all, want %q", got, res.TotalCount, test.want)
			}
			if len(res.SearchHits) != len(res.Rows) || len(res.Rows) > 0 && res.SearchHits[0].Row != res.Rows[0] {
				t.Errorf("%d hits of %d rows", len(res.SearchHits), len(res.Rows))
			}
			scan := search.NewScanQuery().SetQuery(test.query).SetLimit(10)
			scanned, err := c.ParallelScan((&tablestore.ParallelScanRequest{}).SetTableName("t").SetIndexName("s").SetScanQuery(scan))
			ok(t, err)
			if got := firstKeys(scanned.Rows); got != test.want {
				t.Errorf("a scan finds %q, want %q", got, test.want)
			}
		})
	}
	// A filter beside the query takes from what it finds.
	res, err := find(c, search.NewSearchQuery().SetQuery(term("ks", "y")).SetSearchFilter(&search.SearchFilter{Query: term("b", false)}).SetGetTotalCount(true))
	ok(t, err)
	if got := firstKeys(res.Rows); got != "1" || res.TotalCount != 1 {
		t.Errorf("filtered: %q of %d", got, res.TotalCount)
	}
}

func firstKeys(rows []*tablestore.Row) string {
	var out []string
	for _, r := range rows {
		out = append(out, fmt.Sprint(r.PrimaryKey.PrimaryKeys[0].Value))
	}
	return strings.Join(out, " ")
}

// TestRefusedSearchQueries: what a query can't be, and what is left out, by its name.
func TestRefusedSearchQueries(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	searchable(t, c)
	term := func(field string, v any) search.Query { return &search.TermQuery{FieldName: field, Term: v} }
	for text, q := range map[string]search.Query{
		"[term query] field: none does not exist":                                     term("none", "x"),
		"[exists query] field: none does not exist":                                   &search.ExistsQuery{FieldName: "none"},
		"failed to query index, please check if 'Index' is enabled for query fields.": term("hidden", int64(1)),
		"[term query] the value of field: k is of another type":                       term("k", int64(1)),
		"[terms query] the value of field: b is of another type":                      &search.TermsQuery{FieldName: "b", Terms: []any{"x"}},
		"[range query] the value of field: l is of another type":                      &search.RangeQuery{FieldName: "l", From: "a"},
		"[prefix query] field: l is no keyword":                                       &search.PrefixQuery{FieldName: "l", Prefix: "a"},
		"The number of terms of a terms query must be in range: [1, 1024], not 0.":    &search.TermsQuery{FieldName: "k"},
		"The number of terms of a terms query must be in range: [1, 1024], not 1025.": &search.TermsQuery{FieldName: "k", Terms: slices.Repeat([]any{"x"}, 1025)},
		"The number of queries in a bool query must not exceed 1024, not 1025.":       &search.BoolQuery{MustQueries: slices.Repeat([]search.Query{&search.MatchAllQuery{}}, 1025)},
		"The minimum_should_match of a bool query must not be negative: -1.":          &search.BoolQuery{MinimumShouldMatch: proto.Int32(-1)},
		"Queries are nested in more than 32 levels.":                                  nestedQuery(33),
	} {
		_, err := find(c, search.NewSearchQuery().SetQuery(q))
		want(t, err, 400, badParameter, text)
	}
	_, err := find(c, search.NewSearchQuery().SetQuery(nestedQuery(32)))
	ok(t, err)
	left := func(what string) string {
		return "Unsupported operation: " + what + " is left out of the local server."
	}
	for text, q := range map[string]search.Query{
		left("a Search with a MATCH_QUERY"):                          &search.MatchQuery{FieldName: "text", Text: "x"},
		left("a Search with a WILDCARD_QUERY"):                       &search.WildcardQuery{FieldName: "k", Value: "*"},
		left("a Search with a NESTED_QUERY"):                         &search.NestedQuery{Path: "n", Query: &search.MatchAllQuery{}, ScoreMode: search.ScoreMode_Avg},
		left("a Search with a MATCH_PHRASE_QUERY"):                   &search.BoolQuery{ShouldQueries: []search.Query{&search.MatchPhraseQuery{FieldName: "text", Text: "x"}}},
		left("a Search with a term query on the TEXT field 'text'"):  term("text", "x"),
		left("a Search with a range query on the DATE field 'date'"): &search.RangeQuery{FieldName: "date", From: "2026"},
		left("a Search with the virtual field 'virtual'"):            term("virtual", "x"),
	} {
		_, err := find(c, search.NewSearchQuery().SetQuery(q))
		want(t, err, 400, "OTSUnsupportOperation", text)
	}
	desc := search.SortOrder_DESC
	for text, sorter := range map[string]search.Sorter{
		left("a Search that sorts by anything but fields and the primary key"):                                &search.ScoreSort{Order: &desc},
		left("a Search that sorts by a nested field, a missing field or an average"):                          &search.FieldSort{FieldName: "l", MissingField: proto.String("d")},
		left("a Search with a sort query on the DATE field 'date'"):                                           &search.FieldSort{FieldName: "date"},
		"[sort query] field: none does not exist":                                                             &search.FieldSort{FieldName: "none"},
		"[field_sort] field:unsorted must enable enable_sort_and_agg, but enable_sort_and_agg is not enabled": &search.FieldSort{FieldName: "unsorted"},
		"[sort query] the value of field: l is of another type":                                               &search.FieldSort{FieldName: "l", MissingValue: "x"},
	} {
		_, err := matchAll(c, "s", wish{sort: sorter})
		code := badParameter
		if strings.HasPrefix(text, "Unsupported") {
			code = "OTSUnsupportOperation"
		}
		want(t, err, 400, code, text)
	}
}

func nestedQuery(levels int) search.Query {
	var q search.Query = &search.MatchAllQuery{}
	for range levels - 1 {
		q = &search.BoolQuery{MustQueries: []search.Query{q}}
	}
	return q
}

// A document is a row of the model that TestQueryModel holds the server against.
type document struct {
	id     int64
	k      *string
	l      *int64
	d      *float64
	ks     []string
	tagged bool // it has ks
}

func (d *document) cells() (out []cell) {
	if d.k != nil {
		out = append(out, cell{"k", *d.k, -1})
	}
	if d.l != nil {
		out = append(out, cell{"l", *d.l, -1})
	}
	if d.d != nil {
		out = append(out, cell{"d", *d.d, -1})
	}
	if d.tagged {
		tags, _ := json.Marshal(append([]string{}, d.ks...))
		out = append(out, cell{"ks", string(tags), -1})
	}
	return out
}

var words = []string{"a", "ab", "abc", "b", "ba", "c", ""}

// randomQuery is a query, and what it asks of a document.
func randomQuery(rng *rand.Rand, depth int) (search.Query, func(*document) bool) {
	word, n := words[rng.IntN(len(words))], int64(rng.IntN(9)-4)
	switch rng.IntN(9 - min(depth, 2)) {
	case 0:
		return &search.TermQuery{FieldName: "k", Term: word}, func(d *document) bool { return d.k != nil && *d.k == word }
	case 1:
		return &search.TermQuery{FieldName: "ks", Term: word}, func(d *document) bool { return slices.Contains(d.ks, word) }
	case 2:
		other := words[rng.IntN(len(words))]
		return &search.TermsQuery{FieldName: "k", Terms: []any{word, other}}, func(d *document) bool { return d.k != nil && (*d.k == word || *d.k == other) }
	case 3:
		lower, upper, to := rng.IntN(2) == 0, rng.IntN(2) == 0, n+int64(rng.IntN(4))
		return &search.RangeQuery{FieldName: "l", From: n, To: to, IncludeLower: lower, IncludeUpper: upper}, func(d *document) bool {
			return d.l != nil && (*d.l > n || lower && *d.l == n) && (*d.l < to || upper && *d.l == to)
		}
	case 4:
		return &search.RangeQuery{FieldName: "d", From: float64(n) / 2}, func(d *document) bool { return d.d != nil && *d.d > float64(n)/2 }
	case 5:
		return &search.PrefixQuery{FieldName: "k", Prefix: word}, func(d *document) bool { return d.k != nil && strings.HasPrefix(*d.k, word) }
	case 6:
		return &search.ExistsQuery{FieldName: "l"}, func(d *document) bool { return d.l != nil }
	}
	q := &search.BoolQuery{}
	var must, not, should []func(*document) bool
	for range rng.IntN(4) {
		sub, holds := randomQuery(rng, depth+1)
		switch rng.IntN(4) {
		case 0:
			q.MustQueries, must = append(q.MustQueries, sub), append(must, holds)
		case 1:
			q.FilterQueries, must = append(q.FilterQueries, sub), append(must, holds)
		case 2:
			q.MustNotQueries, not = append(q.MustNotQueries, sub), append(not, holds)
		default:
			q.ShouldQueries, should = append(q.ShouldQueries, sub), append(should, holds)
		}
	}
	least := 0
	if len(should) > 0 && len(must) == 0 {
		least = 1
	}
	if rng.IntN(3) == 0 {
		least = rng.IntN(len(should) + 1)
		q.MinimumShouldMatch = proto.Int32(int32(least))
	}
	return q, func(d *document) bool {
		count := func(all []func(*document) bool) (n int) {
			for _, holds := range all {
				if holds(d) {
					n++
				}
			}
			return n
		}
		return count(must) == len(must) && count(not) == 0 && count(should) >= least
	}
}

// TestQueryModel makes random queries of random rows, in random orders and pages, and
// compares what is found with a model that knows no index, no PlainBuffer and no
// protocol.
func TestQueryModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	s := otstest.Run(t, ots.Config{})
	c := inProcess(s)
	searchable(t, c)
	maybe := func(n int) bool { return rng.IntN(n) > 0 }
	var documents []*document
	for id := range int64(80) {
		d := &document{id: id}
		if maybe(4) {
			d.k = &words[rng.IntN(len(words))]
		}
		if maybe(4) {
			d.l = proto.Int64(int64(rng.IntN(9) - 4))
		}
		if maybe(4) {
			d.d = proto.Float64(float64(rng.IntN(9)-4) / 2)
		}
		if d.tagged = maybe(2); d.tagged {
			for range rng.IntN(4) {
				d.ks = append(d.ks, words[rng.IntN(len(words))])
			}
		}
		documents = append(documents, d)
		ok(t, put(c, key(id, "x"), d.cells()...))
	}
	found, pages := 0, 0
	for range 250 {
		query, holds := randomQuery(rng, 0)
		var want []*document
		for _, d := range documents {
			if holds(d) {
				want = append(want, d)
			}
		}
		sorters, compare := randomSort(rng)
		slices.SortStableFunc(want, compare)
		offset := rng.IntN(3) * rng.IntN(20)
		var wanted []string
		for _, d := range want[min(offset, len(want)):] {
			wanted = append(wanted, fmt.Sprint(d.id))
		}
		var got []string
		var token []byte
		for first := true; first || token != nil; first = false {
			q := search.NewSearchQuery().SetQuery(query).SetGetTotalCount(true).SetLimit(int32(1 + rng.IntN(30)))
			if first {
				q.SetOffset(int32(offset))
				if sorters != nil {
					q.SetSort(&search.Sort{Sorters: sorters})
				}
			} else {
				q.SetToken(token)
			}
			res, err := find(c, q)
			ok(t, err)
			if int(res.TotalCount) != len(want) {
				t.Fatalf("%d rows in all, want %d", res.TotalCount, len(want))
			}
			if len(res.Rows) > 0 {
				got = append(got, strings.Fields(firstKeys(res.Rows))...)
			}
			token = res.NextToken
			pages++
		}
		if strings.Join(got, " ") != strings.Join(wanted, " ") {
			text, _ := json.Marshal(query)
			t.Fatalf("%s by %d sorters from %d on finds %v, want %v", text, len(sorters), offset, got, wanted)
		}
		found += len(got)
	}
	t.Logf("%d rows found in %d pages", found, pages)
	if found < 1000 || pages < 300 {
		t.Errorf("too little: %d rows found in %d pages", found, pages)
	}
}

// randomSort are sorters, nil for none, and how they compare documents. Those that are
// equal stay in the order of keys.
func randomSort(rng *rand.Rand) ([]search.Sorter, func(a, b *document) int) {
	order := func() (search.SortOrder, int) {
		if rng.IntN(2) == 0 {
			return search.SortOrder_ASC, 1
		}
		return search.SortOrder_DESC, -1
	}
	byKey := func(a, b *document) int { return cmp.Compare(a.id, b.id) }
	if rng.IntN(4) == 0 {
		return nil, byKey
	}
	var sorters []search.Sorter
	compare := byKey
	// From the last sorter to the first.
	for _, which := range rng.Perm(4)[:1+rng.IntN(3)] {
		o, sign := order()
		next := compare
		var sorter search.Sorter
		var by func(a, b *document) int
		missing := 1 // behind
		switch which {
		case 0:
			sorter, by = &search.PrimaryKeySort{Order: &o}, func(a, b *document) int { return sign * cmp.Compare(a.id, b.id) }
		case 1:
			f := search.NewFieldSort("k", o)
			if rng.IntN(2) == 0 {
				f.MissingValue, missing = search.FirstWhenMissing, -1
			}
			sorter, by = f, func(a, b *document) int { return comparePointers(a.k, b.k, sign, missing) }
		case 2:
			f := search.NewFieldSort("l", o)
			var instead *int64
			if rng.IntN(2) == 0 {
				instead = proto.Int64(int64(rng.IntN(9) - 4))
				f.MissingValue = *instead
			}
			value := func(d *document) *int64 {
				if d.l == nil {
					return instead
				}
				return d.l
			}
			sorter, by = f, func(a, b *document) int { return comparePointers(value(a), value(b), sign, 1) }
		default:
			f := search.NewFieldSort("ks", o)
			greatest := sign < 0
			if rng.IntN(2) == 0 {
				mode := search.SortMode_Min
				if greatest = rng.IntN(2) == 0; greatest {
					mode = search.SortMode_Max
				}
				f.Mode = &mode
			}
			value := func(d *document) *string {
				if len(d.ks) == 0 {
					return nil
				}
				v := slices.Min(d.ks)
				if greatest {
					v = slices.Max(d.ks)
				}
				return &v
			}
			sorter, by = f, func(a, b *document) int { return comparePointers(value(a), value(b), sign, 1) }
		}
		sorters = slices.Insert(sorters, 0, sorter)
		compare = func(a, b *document) int { return cmp.Or(by(a, b), next(a, b)) }
	}
	return sorters, compare
}

func comparePointers[T cmp.Ordered](a, b *T, sign, missing int) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return missing
	case b == nil:
		return -missing
	}
	return sign * cmp.Compare(*a, *b)
}

// TestSearchTokens refuses tokens that no search has given, and those of an order in a
// scan.
func TestSearchTokens(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := inProcess(s)
	searchable(t, c)
	for i := range 3 {
		ok(t, put(c, key(i, "x"), cell{"l", int64(-i), -1}))
	}
	res, err := find(c, search.NewSearchQuery().SetQuery(&search.MatchAllQuery{}).SetLimit(1).SetSort(&search.Sort{Sorters: []search.Sorter{search.NewFieldSort("l", search.SortOrder_ASC)}}))
	ok(t, err)
	if got := firstKeys(res.Rows); got != "2" {
		t.Errorf("first comes %s", got)
	}
	token := string(res.NextToken)
	try := func(token string) error {
		_, err := find(c, search.NewSearchQuery().SetQuery(&search.MatchAllQuery{}).SetToken([]byte(token)))
		return err
	}
	ok(t, try(token))
	broken := []string{"\x02", "\x02{}", "\x02nothing", "\x03" + token[1:], token[:len(token)-1]}
	for _, change := range []func(map[string]any){
		func(m map[string]any) { delete(m, "Key") },
		func(m map[string]any) { m["Values"] = nil },
		func(m map[string]any) { m["Values"] = []any{map[string]any{"Type": 0, "Data": "AAA="}} },
		func(m map[string]any) { m["Values"] = []any{map[string]any{"Type": 6, "Data": ""}} },
		func(m map[string]any) { m["Sort"] = "////" },
		func(m map[string]any) { m["Sort"] = "" },
	} {
		var m map[string]any
		ok(t, json.Unmarshal([]byte(token[1:]), &m))
		change(m)
		text, err := json.Marshal(m)
		ok(t, err)
		broken = append(broken, "\x02"+string(text))
	}
	for _, b := range broken {
		want(t, try(b), 400, badParameter, "The token of search is invalid.")
	}
	scan := search.NewScanQuery().SetQuery(&search.MatchAllQuery{}).SetToken([]byte(token))
	_, err = c.ParallelScan((&tablestore.ParallelScanRequest{}).SetTableName("t").SetIndexName("s").SetScanQuery(scan))
	want(t, err, 400, badParameter, "The token of scan is invalid.")
	if err := send(t, s, "Search", &otsprotocol.SearchRequest{TableName: proto.String("t"), IndexName: proto.String("s")}, nil); err.GetCode() != engine.CodeUnsupported {
		t.Errorf("a Search without a query is answered %v", err)
	}
}
