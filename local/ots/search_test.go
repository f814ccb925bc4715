package ots_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/search"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ots/otstest"
)

// fields is a schema of keyword fields.
func fields(names ...string) *tablestore.IndexSchema {
	s := &tablestore.IndexSchema{}
	for _, n := range names {
		s.FieldSchemas = append(s.FieldSchemas, &tablestore.FieldSchema{FieldName: proto.String(n), FieldType: tablestore.FieldType_KEYWORD})
	}
	return s
}

func createSearch(c *tablestore.TableStoreClient, name string, schema *tablestore.IndexSchema, with ...func(*tablestore.CreateSearchIndexRequest)) error {
	r := &tablestore.CreateSearchIndexRequest{TableName: "t", IndexName: name, IndexSchema: schema}
	for _, w := range with {
		w(r)
	}
	_, err := c.CreateSearchIndex(r)
	return err
}

func describeSearch(t testing.TB, s *ots.Server, name string) *otsprotocol.DescribeSearchIndexResponse {
	t.Helper()
	d := new(otsprotocol.DescribeSearchIndexResponse)
	r := &otsprotocol.DescribeSearchIndexRequest{TableName: proto.String("t"), IndexName: &name, IncludeSyncStat: proto.Bool(true)}
	if err := send(t, s, "DescribeSearchIndex", r, d); err != nil {
		t.Fatal(err)
	}
	return d
}

// A wish is a search of all rows and what else is asked for.
type wish struct {
	limit, offset int32 // a limit of 0 is not given
	token         []byte
	columns       *tablestore.ColumnsToGet
	sort          search.Sorter
	query         search.Query
	collapse      string
	average       string
}

func matchAll(c *tablestore.TableStoreClient, index string, w wish) (*tablestore.SearchResponse, error) {
	q := search.NewSearchQuery().SetQuery(&search.MatchAllQuery{}).SetGetTotalCount(true).SetOffset(w.offset).SetToken(w.token)
	if w.limit != 0 {
		q.SetLimit(w.limit)
	}
	if w.sort != nil {
		q.SetSort(&search.Sort{Sorters: []search.Sorter{w.sort}})
	}
	if w.query != nil {
		q.SetQuery(w.query)
	}
	if w.collapse != "" {
		q.SetCollapse(&search.Collapse{FieldName: w.collapse})
	}
	if w.average != "" {
		q.Aggregation(search.NewAvgAggregation("a", w.average))
	}
	return c.Search(&tablestore.SearchRequest{TableName: "t", IndexName: index, SearchQuery: q, ColumnsToGet: w.columns})
}

// TestSearchSchemas reads a definition as it was given, byte for byte, with fields that
// no version of the messages knows, also after a restart.
func TestSearchSchemas(t *testing.T) {
	dir := t.TempDir()
	schema, err := proto.Marshal(&otsprotocol.IndexSchema{
		FieldSchemas: []*otsprotocol.FieldSchema{
			{FieldName: proto.String("text"), FieldType: otsprotocol.FieldType_TEXT.Enum(), Analyzer: proto.String("fuzzy"), AnalyzerParameter: []byte{8, 1, 16, 7}, EnableHighlighting: proto.Bool(true)},
			{FieldName: proto.String("date"), FieldType: otsprotocol.FieldType_DATE.Enum(), DateFormats: []string{"yyyy-MM-dd", "epoch_micros"}},
			{FieldName: proto.String("n"), FieldType: otsprotocol.FieldType_NESTED.Enum(), FieldSchemas: []*otsprotocol.FieldSchema{{FieldName: proto.String("v"), FieldType: otsprotocol.FieldType_VECTOR.Enum(),
				VectorOptions: &otsprotocol.VectorOptions{DataType: otsprotocol.VectorDataType_VD_FLOAT_32.Enum(), Dimension: proto.Int32(4), MetricType: otsprotocol.VectorMetricType_VM_COSINE.Enum()}}}},
			{FieldName: proto.String("virtual"), FieldType: otsprotocol.FieldType_KEYWORD.Enum(), IsVirtualField: proto.Bool(true), SourceFieldNames: []string{"text"}},
		},
		IndexSetting: &otsprotocol.IndexSetting{RoutingFields: []string{"pk1"}, RoutingPartitionSize: proto.Int32(2)},
		IndexSort:    &otsprotocol.Sort{Sorter: []*otsprotocol.Sorter{{PkSort: &otsprotocol.PrimaryKeySort{Order: otsprotocol.SortOrder_SORT_ORDER_DESC.Enum()}}}},
	})
	ok(t, err)
	// A field of number 900, and one of number 901 with bytes.
	schema = append(schema, 0xA0, 0x38, 0x07, 0xAA, 0x38, 0x02, 'h', 'i')
	head, err := proto.Marshal(&otsprotocol.CreateSearchIndexRequest{TableName: proto.String("t"), IndexName: proto.String("s"), TimeToLive: proto.Int32(86400)})
	ok(t, err)
	// The schema comes in two parts, which make one.
	body := append(slices.Clone(head), 3<<3|2, 8)
	body = append(body, schema[len(schema)-8:]...)
	body = append(body, 3<<3|2)
	body = append(append(body, varint(len(schema)-8)...), schema[:len(schema)-8]...)
	wanted := append(slices.Clone(schema[len(schema)-8:]), schema[:len(schema)-8]...)
	for round := range 2 {
		s, err := ots.Start(ots.Config{Dir: dir})
		ok(t, err)
		if round == 0 {
			create(t, connect(s), tablestore.TableOption{TimeToAlive: 86400, AllowUpdate: new(bool)}, text)
			if status := serve(t, s, "CreateSearchIndex", body); status != 200 {
				t.Fatalf("answered %d", status)
			}
		}
		request, err := proto.Marshal(&otsprotocol.DescribeSearchIndexRequest{TableName: proto.String("t"), IndexName: proto.String("s")})
		ok(t, err)
		res, err := s.RoundTrip(requestBytes(t, "http://in-process", "DescribeSearchIndex", request))
		ok(t, err)
		var answer bytes.Buffer
		_, err = answer.ReadFrom(res.Body)
		ok(t, err)
		if res.StatusCode != 200 || !bytes.HasPrefix(answer.Bytes(), append(append([]byte{1<<3 | 2}, varint(len(wanted))...), wanted...)) {
			t.Errorf("round %d: the schema does not come back as it was given: %d, %q", round, res.StatusCode, answer.Bytes())
		}
		if d := describeSearch(t, s, "s"); d.GetTimeToLive() != 86400 || len(d.Schema.FieldSchemas) != 4 || d.Schema.IndexSetting.GetRoutingPartitionSize() != 2 {
			t.Errorf("round %d: described as %v", round, d)
		}
		ok(t, s.Close())
	}
}

func varint(n int) []byte { return proto.EncodeVarint(uint64(n)) }

// TestSearchIndexes makes indexes of two tables, lists and describes them, and shows that
// a table can go only after its own.
func TestSearchIndexes(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	create(t, c, tablestore.TableOption{}, text)
	createWith(t, c, "u", nil, text)
	ok(t, createSearch(c, "s", fields("c")))
	ok(t, createSearch(c, "r", fields("c")))
	ok(t, createSearch(c, "s", fields("c"), func(r *tablestore.CreateSearchIndexRequest) { r.TableName = "u" }))
	for table, wanted := range map[string][]string{"t": {"t r", "t s"}, "u": {"u s"}, "": {"t r", "t s", "u s"}} {
		listed, err := c.ListSearchIndex(&tablestore.ListSearchIndexRequest{TableName: table})
		ok(t, err)
		var got []string
		for _, x := range listed.IndexInfo {
			got = append(got, x.TableName+" "+x.IndexName)
		}
		equal(t, "indexes of "+table, got, wanted)
	}
	_, err := c.ListSearchIndex(&tablestore.ListSearchIndexRequest{TableName: "none"})
	want(t, err, 404, "OTSObjectNotExist", "Requested table does not exist.")
	d, err := c.DescribeSearchIndex(&tablestore.DescribeSearchIndexRequest{TableName: "t", IndexName: "s", IncludeSyncStat: proto.Bool(true)})
	ok(t, err)
	if len(d.Schema.FieldSchemas) != 1 || *d.Schema.FieldSchemas[0].FieldName != "c" || d.SyncStat == nil || d.SyncStat.SyncPhase != tablestore.SyncPhase_INCR {
		t.Errorf("description %+v", d)
	}
	for _, index := range []string{"s", "r"} {
		_, err = c.DeleteTable(&tablestore.DeleteTableRequest{TableName: "t"})
		want(t, err, 400, badParameter, "Table[t] who has at least one search index cannot be deleted.")
		_, err = c.DeleteSearchIndex(&tablestore.DeleteSearchIndexRequest{TableName: "t", IndexName: index})
		ok(t, err)
		_, err = c.DescribeSearchIndex(&tablestore.DescribeSearchIndexRequest{TableName: "t", IndexName: index})
		want(t, err, 404, "OTSObjectNotExist", "Requested table does not exist.")
	}
	_, err = c.DeleteTable(&tablestore.DeleteTableRequest{TableName: "t"})
	ok(t, err)
}

// TestSearchPages reads all rows in pages, forward and backward, in each way to ask for
// columns.
func TestSearchPages(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	create(t, c, tablestore.TableOption{MaxVersion: 3, DeviationCellVersionInSec: anyTime}, text, integer)
	ok(t, createSearch(c, "s", fields("a", "none")))
	var keys []string
	for i := range 57 {
		k := key(fmt.Sprint("p\x00", i%4)[:2+i%2], i)
		keys = append(keys, keyText(k))
		if i%5 == 0 {
			ok(t, put(c, k))
		} else {
			ok(t, put(c, k, cell{"a", "old", 1}, cell{"a", "new", 2}, cell{"b", int64(i), 1}))
		}
	}
	sortKeys := page(t, c, key(lowest, lowest), key(highest, highest)).Rows
	keys = keys[:0]
	for _, r := range sortKeys {
		keys = append(keys, keyText(r.PrimaryKey))
	}
	for range 40 {
		backward, offset := rng.IntN(2) == 0, rng.IntN(3)*rng.IntN(40)
		var got []string
		var token []byte
		for first := true; first || token != nil; first = false {
			limit := int32(1 + rng.IntN(100))
			w := wish{limit: limit, token: token}
			if first {
				w.offset = int32(offset)
				if backward {
					w.sort = &search.PrimaryKeySort{Order: search.SortOrder_DESC.Enum()}
				}
			}
			res, err := matchAll(c, "s", w)
			ok(t, err)
			if res.TotalCount != 57 || !res.IsAllSuccess {
				t.Errorf("%d rows, all %v", res.TotalCount, res.IsAllSuccess)
			}
			if token = res.NextToken; token != nil && len(res.Rows) != int(limit) {
				t.Errorf("a page of %d rows has a token though %d were asked for", len(res.Rows), limit)
			}
			for _, r := range res.Rows {
				if len(r.Columns) != 0 {
					t.Errorf("columns %v that nobody asked for", cellsOf(r.Columns))
				}
				got = append(got, keyText(r.PrimaryKey))
			}
		}
		wanted := slices.Clone(keys)
		if backward {
			slices.Reverse(wanted)
		}
		equal(t, fmt.Sprintf("rows from %d on, backward %v", offset, backward), got, wanted[min(offset, len(wanted)):])
	}
	for _, test := range []struct {
		name    string
		columns *tablestore.ColumnsToGet
		want    string
	}{
		{"all", &tablestore.ColumnsToGet{ReturnAll: true}, "[a@2=new b@1=1]"},
		{"of the index", &tablestore.ColumnsToGet{ReturnAllFromIndex: true}, "[a@2=new]"},
		{"named", &tablestore.ColumnsToGet{Columns: []string{"b"}}, "[b@1=1]"},
		{"none", &tablestore.ColumnsToGet{}, "[]"},
	} {
		rows := 0
		res, err := matchAll(c, "s", wish{columns: test.columns, limit: 100})
		ok(t, err)
		for _, r := range res.Rows {
			if r.PrimaryKey.PrimaryKeys[1].Value == int64(1) {
				rows++
				if got := fmt.Sprint(cellsOf(r.Columns)); got != test.want {
					t.Errorf("%s: columns %s, want %s", test.name, got, test.want)
				}
			}
		}
		if rows != 1 || len(res.Rows) != 57 {
			t.Errorf("%s: %d rows, %d of the key", test.name, len(res.Rows), rows)
		}
	}
	// A scan in parts: there is one.
	splits, err := c.ComputeSplits((&tablestore.ComputeSplitsRequest{}).SetTableName("t").SetSearchIndexSplitsOptions(tablestore.SearchIndexSplitsOptions{IndexName: "s"}))
	ok(t, err)
	if splits.SplitsSize != 1 || len(splits.SessionId) == 0 {
		t.Errorf("splits %+v", splits)
	}
	var got []string
	scan := search.NewScanQuery().SetQuery(&search.MatchAllQuery{}).SetLimit(10).SetMaxParallel(1)
	for more := true; more; {
		res, err := c.ParallelScan((&tablestore.ParallelScanRequest{}).SetTableName("t").SetIndexName("s").SetSessionId(splits.SessionId).SetScanQuery(scan).SetColumnsToGet(&tablestore.ColumnsToGet{ReturnAllFromIndex: true}))
		ok(t, err)
		for _, r := range res.Rows {
			got = append(got, keyText(r.PrimaryKey))
		}
		scan.SetToken(res.NextToken)
		more = res.NextToken != nil
	}
	equal(t, "scanned rows", got, keys)
}

// TestSearchPageSizes ends pages before they have too many bytes.
func TestSearchPageSizes(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := inProcess(s)
	create(t, c, tablestore.TableOption{}, integer)
	ok(t, createSearch(c, "s", fields("c")))
	for i := range 5 {
		ok(t, put(c, key(i), cell{"c", strings.Repeat("x", 1500<<10), -1}, cell{"d", strings.Repeat("x", 1500<<10), -1}))
	}
	for _, test := range []struct {
		name    string
		columns *tablestore.ColumnsToGet
		pages   []int
	}{
		{"keys", nil, []int{5}},
		{"two to a page", &tablestore.ColumnsToGet{ReturnAllFromIndex: true}, []int{2, 2, 1}},
		{"one to a page", &tablestore.ColumnsToGet{ReturnAll: true}, []int{1, 1, 1, 1, 1}},
	} {
		var got []int
		rows := ""
		var token []byte
		for len(got) == 0 || token != nil {
			res, err := matchAll(c, "s", wish{columns: test.columns, token: token})
			ok(t, err)
			got, token = append(got, len(res.Rows)), res.NextToken
			for _, r := range res.Rows {
				rows += keyText(r.PrimaryKey)
			}
		}
		equal(t, test.name, got, test.pages)
		if rows != "01234" {
			t.Errorf("%s: the rows are %s", test.name, rows)
		}
	}
}

// FuzzSearch sends queries: the answer is a page of the table's rows or one of the
// service's errors, and a token that was answered leads on.
func FuzzSearch(f *testing.F) {
	s := otstest.New(f, ots.Config{})
	c := inProcess(s)
	create(f, c, tablestore.TableOption{}, text)
	ok(f, createSearch(c, "s", fields("c")))
	for _, k := range []string{"a", "b", "c"} {
		ok(f, put(c, key(k), cell{"c", "v", -1}))
	}
	all := &otsprotocol.Query{Type: otsprotocol.QueryType_MATCH_ALL_QUERY.Enum(), Query: []byte{}}
	for _, m := range []proto.Message{
		&otsprotocol.SearchQuery{Query: all, Limit: proto.Int32(2), GetTotalCount: proto.Bool(true)},
		&otsprotocol.SearchQuery{Query: all, Offset: proto.Int32(2), Sort: &otsprotocol.Sort{Sorter: []*otsprotocol.Sorter{{PkSort: &otsprotocol.PrimaryKeySort{Order: otsprotocol.SortOrder_SORT_ORDER_DESC.Enum()}}}}},
		&otsprotocol.SearchQuery{Query: all, Token: []byte{1, 3, 'b'}},
		&otsprotocol.SearchQuery{Query: &otsprotocol.Query{Type: otsprotocol.QueryType_TERM_QUERY.Enum()}},
		&otsprotocol.SearchQuery{Query: all, Aggs: &otsprotocol.Aggregations{Aggs: []*otsprotocol.Aggregation{{Name: proto.String("a")}}}},
		&otsprotocol.ScanQuery{Query: all, Limit: proto.Int32(2), MaxParallel: proto.Int32(1)},
	} {
		b, err := proto.Marshal(m)
		ok(f, err)
		_, scan := m.(*otsprotocol.ScanQuery)
		f.Add(scan, b, int32(otsprotocol.ColumnReturnType_RETURN_ALL_FROM_INDEX), "c")
	}
	f.Fuzz(func(t *testing.T, scan bool, query []byte, kind int32, column string) {
		if !utf8.ValidString(column) {
			return
		}
		w := wireTo(t, s)
		columns := &otsprotocol.ColumnsToGet{ReturnType: otsprotocol.ColumnReturnType(kind).Enum(), ColumnNames: []string{column}}
		for range 5 {
			var token []byte
			var rows int
			if scan {
				var res otsprotocol.ParallelScanResponse
				if err := w.ask("ParallelScan", &otsprotocol.ParallelScanRequest{TableName: proto.String("t"), IndexName: proto.String("s"), ColumnsToGet: columns, ScanQuery: query}, &res); err != nil {
					return
				}
				token, rows = res.NextToken, len(res.Rows)
			} else {
				var res otsprotocol.SearchResponse
				if err := w.ask("Search", &otsprotocol.SearchRequest{TableName: proto.String("t"), IndexName: proto.String("s"), ColumnsToGet: columns, SearchQuery: query}, &res); err != nil {
					return
				}
				token, rows = res.NextToken, len(res.Rows)
			}
			if rows > 3 {
				t.Fatalf("a page of %d rows", rows)
			}
			if token == nil {
				return
			}
			var rest proto.Message = &otsprotocol.SearchQuery{Query: all, Token: token, Limit: proto.Int32(1)}
			if scan {
				rest = &otsprotocol.ScanQuery{Query: all, Token: token, Limit: proto.Int32(1)}
			}
			var err error
			query, err = proto.Marshal(rest)
			ok(t, err)
		}
		t.Fatal("the pages do not end")
	})
}

// TestSearchPhases follows an index while it is built and while its rows expire.
func TestSearchPhases(t *testing.T) {
	now := newClock(time.UnixMilli(1_700_000_000_000))
	s := otstest.Run(t, ots.Config{Now: now.now, Behavior: engine.Behavior{Indexes: engine.IndexBehavior{Delay: time.Minute}}})
	c := connect(s)
	create(t, c, tablestore.TableOption{AllowUpdate: new(bool)}, text)
	ok(t, put(c, key("a"), cell{"c", "v", -1}))
	ok(t, createSearch(c, "s", fields("c"), func(r *tablestore.CreateSearchIndexRequest) { r.TimeToLive = proto.Int32(100) }))
	look := func() string {
		t.Helper()
		d := describeSearch(t, s, "s")
		res, err := matchAll(c, "s", wish{})
		ok(t, err)
		// The status is a field that the Go SDK does not know.
		return fmt.Sprintf("%x ", d.XXX_unrecognized) + fmt.Sprint(d.SyncStat.GetSyncPhase(), " ", res.TotalCount, " ", len(res.Rows), " ", res.NextToken)
	}
	if got := look(); got != "42020801 FULL 0 0 []" {
		t.Errorf("at first: %s", got)
	}
	now.advance(time.Minute)
	if got := look(); got != "42020803 INCR 1 1 []" {
		t.Errorf("when it is built: %s", got)
	}
	if d := describeSearch(t, s, "s"); d.GetCreateTime() != 1_700_000_000 || d.MeteringInfo.GetRowCount() != 1 || d.SyncStat.GetCurrentSyncTimestamp() != now.millis() {
		t.Errorf("described as %v", d)
	}
	for _, without := range []bool{false, true} {
		r := &otsprotocol.DescribeSearchIndexRequest{TableName: proto.String("t"), IndexName: proto.String("s")}
		if without {
			r.IncludeSyncStat = proto.Bool(false)
		}
		var d otsprotocol.DescribeSearchIndexResponse
		wireTo(t, s).must("DescribeSearchIndex", r, &d)
		if (d.SyncStat == nil) != without {
			t.Errorf("without its state, asked %v: %v", without, d.SyncStat)
		}
	}
	// Newer SDKs have another field for the wish to count.
	for tracked, total := range map[int32]int64{-1: -1, 1<<31 - 1: 1} {
		b, err := proto.Marshal(&otsprotocol.SearchQuery{Query: &otsprotocol.Query{Type: otsprotocol.QueryType_MATCH_ALL_QUERY.Enum()}})
		ok(t, err)
		b = append(append(b, 13<<3), proto.EncodeVarint(uint64(tracked))...)
		var res otsprotocol.SearchResponse
		wireTo(t, s).must("Search", &otsprotocol.SearchRequest{TableName: proto.String("t"), IndexName: proto.String("s"), SearchQuery: b}, &res)
		if res.GetTotalHits() != total {
			t.Errorf("tracking %d: %d rows", tracked, res.GetTotalHits())
		}
	}
	now.advance(41 * time.Second)
	ok(t, put(c, key("b"), cell{"c", "v", -1}))
	if got := look(); got != "42020803 INCR 1 1 []" {
		t.Errorf("when a row has expired: %s", got)
	}
	if rows := page(t, c, key(lowest), key(highest)).Rows; len(rows) != 2 {
		t.Errorf("the table has %s", keysOf(rows))
	}
}

// TestSearchUpdates changes indexes, and makes the next shape of one.
func TestSearchUpdates(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	create(t, c, tablestore.TableOption{AllowUpdate: new(bool)}, text)
	ok(t, createSearch(c, "s", fields("old")))
	ok(t, createSearch(c, "s_reindex", fields("new"), func(r *tablestore.CreateSearchIndexRequest) { r.SourceIndexName = proto.String("s") }))
	change := func(name string, with func(*tablestore.UpdateSearchIndexRequest)) error {
		r := &tablestore.UpdateSearchIndexRequest{TableName: "t", IndexName: name}
		with(r)
		_, err := c.UpdateSearchIndex(r)
		return err
	}
	shape := func(name string) string {
		d := describeSearch(t, s, name)
		out := fmt.Sprintf("%s of %q for %d", d.Schema.FieldSchemas[0].GetFieldName(), d.GetBrotherIndexName(), d.GetTimeToLive())
		for _, w := range d.QueryFlowWeight {
			out += fmt.Sprintf(", %s %d", w.GetIndexName(), w.GetWeight())
		}
		return out
	}
	weigh := func(weights ...int32) func(*tablestore.UpdateSearchIndexRequest) {
		return func(r *tablestore.UpdateSearchIndexRequest) {
			for i, w := range weights {
				r.QueryFlowWeights = append(r.QueryFlowWeights, &tablestore.QueryFlowWeight{IndexName: []string{"s", "s_reindex", "none"}[i], Weight: w})
			}
		}
	}
	turn := func(to string) func(*tablestore.UpdateSearchIndexRequest) {
		return func(r *tablestore.UpdateSearchIndexRequest) { r.SwitchIndexName = &to }
	}
	equal(t, "shapes", []string{shape("s"), shape("s_reindex")}, []string{`old of "s_reindex" for -1`, `new of "s" for -1`})
	ok(t, change("s", func(r *tablestore.UpdateSearchIndexRequest) { r.TimeToLive = proto.Int32(7) }))
	ok(t, change("s", weigh(20, 80)))
	equal(t, "shapes", []string{shape("s"), shape("s_reindex")}, []string{`old of "s_reindex" for 7, s 20, s_reindex 80`, `new of "s" for -1`})
	for what, err := range map[string]error{
		"Nothing is given to update search index: 's'.":                                   change("s", func(*tablestore.UpdateSearchIndexRequest) {}),
		"The query flow weight of index: 's' must be in range: [0, 100].":                 change("s", weigh(101)),
		"The sum of query flow weights must be 100, not 99.":                              change("s", weigh(20, 79)),
		"Index: 'none' in query flow weight is neither search index: 's' nor made of it.": change("s", weigh(0, 0, 100)),
		"Search index: 's' can't be switched with 'none', which is not made of it.":       change("s", turn("none")),
		"Search index: 's_reindex' can't be switched with 's', which is not made of it.":  change("s_reindex", turn("s")),
		"TimeToLive cannot be 0 or less than -1.":                                         change("s", func(r *tablestore.UpdateSearchIndexRequest) { r.TimeToLive = proto.Int32(0) }),
	} {
		want(t, err, 400, badParameter, what)
	}
	ok(t, change("s", turn("s_reindex")))
	equal(t, "shapes", []string{shape("s"), shape("s_reindex")}, []string{`new of "s_reindex" for 7`, `old of "s" for -1`})
	_, err := c.DeleteSearchIndex(&tablestore.DeleteSearchIndexRequest{TableName: "t", IndexName: "s"})
	ok(t, err)
	equal(t, "shape", []string{shape("s_reindex")}, []string{`old of "" for -1`})
	want(t, change("s", weigh(100)), 404, "OTSObjectNotExist", "Requested table does not exist.")
}

// TestRefusedSearches lists what a search index can't be, and what is left out.
func TestRefusedSearches(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	create(t, c, tablestore.TableOption{}, text)
	ok(t, createSearch(c, "s", fields("c")))
	ttl := func(n int32) func(*tablestore.CreateSearchIndexRequest) {
		return func(r *tablestore.CreateSearchIndexRequest) { r.TimeToLive = &n }
	}
	want(t, createSearch(c, "s", fields("c")), 409, "OTSObjectAlreadyExist", "Requested search index already exists.")
	want(t, createSearch(c, "1", fields("c")), 400, badParameter, "Invalid index name: '1'.")
	if err := send(t, s, "CreateSearchIndex", &otsprotocol.CreateSearchIndexRequest{TableName: proto.String("t"), IndexName: proto.String("x")}, nil); err.GetMessage() != "The schema of search index: 'x' is missing." {
		t.Errorf("without a schema: %v", err)
	}
	want(t, createSearch(c, "x", fields("c"), ttl(0)), 400, badParameter, "TimeToLive cannot be 0 or less than -1.")
	want(t, createSearch(c, "x", fields("c"), ttl(86400)), 400, badParameter, "Don't support allow update operation on table with search index: x that has ttl")
	want(t, createSearch(c, "x", fields("c"), func(r *tablestore.CreateSearchIndexRequest) { r.TableName = "none" }), 404, "OTSObjectNotExist", "Requested table does not exist.")
	want(t, createSearch(c, "x", fields("c"), func(r *tablestore.CreateSearchIndexRequest) { r.SourceIndexName = proto.String("none") }), 404, "OTSObjectNotExist", "Requested table does not exist.")
	s.Engine().SetBehavior(engine.Behavior{Indexes: engine.IndexBehavior{SearchTTLWithUpdates: true}})
	ok(t, createSearch(c, "x", fields("c"), ttl(86400)))
	s.Engine().SetBehavior(engine.Behavior{})
	_, err := c.UpdateTable(&tablestore.UpdateTableRequest{TableName: "t", TableOption: &tablestore.TableOption{TimeToAlive: 86399, MaxVersion: 1, AllowUpdate: new(bool)}})
	want(t, err, 400, badParameter, "[table ttl] must be bigger than or equal search index ttl, but table ttl is 86399 and search index ttl is [s:-1]")

	many := make([]string, 1001)
	for i := range many {
		many[i] = fmt.Sprint("f", i)
	}
	want(t, createSearch(c, "y", fields(many...)), 400, badParameter, "The number of fields of search index: 'y' exceeds the limit: 1000.")
	deep := fields("f")
	for range 5 {
		deep.FieldSchemas = []*tablestore.FieldSchema{{FieldName: proto.String("n"), FieldType: tablestore.FieldType_NESTED, FieldSchemas: deep.FieldSchemas}}
	}
	ok(t, createSearch(c, "y", deep))
	deep.FieldSchemas = []*tablestore.FieldSchema{{FieldName: proto.String("n"), FieldType: tablestore.FieldType_NESTED, FieldSchemas: deep.FieldSchemas}}
	want(t, createSearch(c, "z", deep), 400, badParameter, "The fields of search index: 'z' are nested in more than 5 levels.")

	for name, w := range map[string]wish{
		"that collapses":  {collapse: "c"},
		"that aggregates": {average: "c"},
	} {
		_, err := matchAll(c, "s", w)
		if err == nil || !strings.Contains(err.Error(), "OTSUnsupportOperation") || !strings.Contains(err.Error(), name) {
			t.Errorf("a search %s is answered %v", name, err)
		}
	}
	for what, w := range map[string]wish{
		"The limit of search must be in range: [0, 1000].":                                                 {limit: 1001},
		"The limit of search must be in range: [0, 100].":                                                  {limit: 101, columns: &tablestore.ColumnsToGet{Columns: []string{"none"}}},
		"The offset plus limit of search must be in range: [0, 100000].":                                   {offset: 99991},
		"The token of search is invalid.":                                                                  {token: []byte{2, 3}},
		"The offset of search can't be given with a token.":                                                {token: []byte{0, 3}, offset: 1},
		"The number of columns from the request exceeds the limit, limit count: 1024, column count: 1025.": {columns: &tablestore.ColumnsToGet{Columns: make([]string, 1025)}},
	} {
		_, err := matchAll(c, "s", w)
		want(t, err, 400, badParameter, what)
	}
	for _, w := range []wish{
		{limit: 1000}, {limit: 1000, columns: &tablestore.ColumnsToGet{ReturnAllFromIndex: true}},
		{limit: 1000, columns: &tablestore.ColumnsToGet{Columns: []string{"c"}}}, {limit: 100, columns: &tablestore.ColumnsToGet{ReturnAll: true}},
	} {
		_, err := matchAll(c, "s", w)
		ok(t, err)
	}
	// What the SDK can't say.
	all, err := proto.Marshal(&otsprotocol.SearchQuery{Query: &otsprotocol.Query{Type: otsprotocol.QueryType_MATCH_ALL_QUERY.Enum()}})
	ok(t, err)
	for message, r := range map[string]*otsprotocol.SearchRequest{
		"a Search of some routing values": {SearchQuery: all, RoutingValues: [][]byte{{1}}},
		"a Search without a query":        {},
	} {
		r.TableName, r.IndexName = proto.String("t"), proto.String("s")
		if err := send(t, s, "Search", r, nil); err.GetCode() != engine.CodeUnsupported || !strings.Contains(err.GetMessage(), message) {
			t.Errorf("%s is answered %v", message, err)
		}
	}
}
