package ots_test

import (
	le "encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// refusedWith fails unless a request of the wire is refused so; "" is not at all.
func refusedWith(t testing.TB, got *otsprotocol.Error, code, text string) {
	t.Helper()
	if got.GetCode() != code || got.GetMessage() != text {
		t.Errorf("answer %q %q, want %q %q", got.GetCode(), got.GetMessage(), code, text)
	}
}

// creation is a request for a table of one key column.
func creation(name string, change ...func(*otsprotocol.CreateTableRequest)) *otsprotocol.CreateTableRequest {
	req := &otsprotocol.CreateTableRequest{
		TableMeta: &otsprotocol.TableMeta{TableName: &name, PrimaryKey: []*otsprotocol.PrimaryKeySchema{
			{Name: proto.String("pk1"), Type: otsprotocol.PrimaryKeyType_STRING.Enum()},
		}},
		TableOptions:       &otsprotocol.TableOptions{TimeToLive: proto.Int32(-1), MaxVersions: proto.Int32(1)},
		ReservedThroughput: &otsprotocol.ReservedThroughput{CapacityUnit: &otsprotocol.CapacityUnit{}},
	}
	for _, c := range change {
		c(req)
	}
	return req
}

// TestRefusedUpdates: a table that allows no updates, updates without cells, and options
// without any.
func TestRefusedUpdates(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	no := false
	create(t, c, tablestore.TableOption{AllowUpdate: &no}, text)
	ok(t, put(c, key("a"), cell{"c", "v", -1}))
	const text = "UpdateRow is not allowed on a table whose allow_update is false."
	want(t, update(c, key("a"), cell{"c", "w", -1}), 400, badParameter, text)
	res, err := c.BatchWriteRow(batchOf(updateChange(key("a"), cell{"c", "w", -1}), putChange(key("b"))))
	ok(t, err)
	rows := res.TableToRowsResult["t"]
	if rows[0].IsSucceed || rows[0].Error.Message != text || !rows[1].IsSucceed {
		t.Errorf("in a batch: %+v", rows)
	}
	s.Engine().SetBehavior(engine.Behavior{Writes: engine.WriteBehavior{RefusedUpdate: engine.CodeUnsupported}})
	want(t, update(c, key("a"), cell{"c", "w", -1}), 400, "OTSUnsupportOperation", text)
	if got, _ := get(t, c, key("a")); len(got) != 1 || got[0].Value != "v" {
		t.Errorf("the row has %v", got)
	}
	want(t, update(c, key("a")), 400, badParameter, "Invalid update row request: missing cells in request.")
	refusedWith(t, send(t, s, "UpdateTable", &otsprotocol.UpdateTableRequest{TableName: proto.String("t"), TableOptions: &otsprotocol.TableOptions{}}, nil),
		badParameter, "No parameter is specified in table options.")
}

// TestMissingSearchIndexes has what each operation says of a search index that is not
// there.
func TestMissingSearchIndexes(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	create(t, c, tablestore.TableOption{}, text)
	table, none := proto.String("t"), proto.String("none")
	const noTable = "Requested table does not exist."
	for _, test := range []struct {
		op         string
		req        proto.Message
		code, text string
	}{
		{"DescribeSearchIndex", &otsprotocol.DescribeSearchIndexRequest{TableName: table, IndexName: none}, "OTSObjectNotExist", noTable},
		{"UpdateSearchIndex", &otsprotocol.UpdateSearchIndexRequest{TableName: table, IndexName: none, TimeToLive: proto.Int32(-1)}, "OTSObjectNotExist", noTable},
		{"DeleteSearchIndex", &otsprotocol.DeleteSearchIndexRequest{TableName: table, IndexName: none}, "OTSObjectNotExist", noTable},
		{"DeleteSearchIndex", &otsprotocol.DeleteSearchIndexRequest{TableName: none, IndexName: none}, "OTSObjectNotExist", noTable},
		{"Search", &otsprotocol.SearchRequest{TableName: table, IndexName: none}, "OTSMetaNotMatch", "search index [none] does not exist"},
		{"Search", &otsprotocol.SearchRequest{TableName: none, IndexName: none}, badParameter, "table [none] does not exist"},
		{"ParallelScan", &otsprotocol.ParallelScanRequest{TableName: table, IndexName: none}, "OTSMetaNotMatch", "search index [none] does not exist"},
		{"ComputeSplits", &otsprotocol.ComputeSplitsRequest{TableName: table, SearchIndexSplitsOptions: &otsprotocol.SearchIndexSplitsOptions{IndexName: none}}, "OTSMetaNotMatch", "search index [none] does not exist"},
		{"ComputeSplits", &otsprotocol.ComputeSplitsRequest{TableName: none, SearchIndexSplitsOptions: &otsprotocol.SearchIndexSplitsOptions{IndexName: none}}, badParameter, "table [none] does not exist"},
		{"ComputeSplits", &otsprotocol.ComputeSplitsRequest{TableName: table}, badParameter, "[search index splits options] must not be null"},
		{"ComputeSplits", &otsprotocol.ComputeSplitsRequest{TableName: table, SearchIndexSplitsOptions: &otsprotocol.SearchIndexSplitsOptions{}}, badParameter, "[search index splits options] must not be null"},
	} {
		t.Run(test.op, func(t *testing.T) { refusedWith(t, send(t, s, test.op, test.req, nil), test.code, test.text) })
	}
	s.Engine().SetBehavior(engine.Behavior{Indexes: engine.IndexBehavior{MissingSearch: engine.CodeObjectNotExist}})
	refusedWith(t, send(t, s, "Search", &otsprotocol.SearchRequest{TableName: table, IndexName: none}, nil), "OTSObjectNotExist", noTable)
}

func searchField(name string, kind otsprotocol.FieldType, fields ...*otsprotocol.FieldSchema) *otsprotocol.FieldSchema {
	return &otsprotocol.FieldSchema{FieldName: &name, FieldType: kind.Enum(), FieldSchemas: fields}
}

func makeSearch(t testing.TB, s *ots.Server, name string, fields ...*otsprotocol.FieldSchema) {
	t.Helper()
	refusedWith(t, trySearch(t, s, name, fields...), "", "")
}

func trySearch(t testing.TB, s *ots.Server, name string, fields ...*otsprotocol.FieldSchema) *otsprotocol.Error {
	t.Helper()
	return send(t, s, "CreateSearchIndex", &otsprotocol.CreateSearchIndexRequest{TableName: proto.String("t"), IndexName: &name, Schema: &otsprotocol.IndexSchema{FieldSchemas: fields}}, nil)
}

// TestSearchFields refuses fields that no index can have, and takes every type.
func TestSearchFields(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	create(t, connect(s), tablestore.TableOption{}, text)
	keyword := func(name string) *otsprotocol.FieldSchema { return searchField(name, otsprotocol.FieldType_KEYWORD) }
	for _, test := range []struct {
		text   string
		fields []*otsprotocol.FieldSchema
	}{
		{"Invalid field name: '' of search index: 'i'.", []*otsprotocol.FieldSchema{keyword("")}},
		{"Duplicated field name: 'a' of search index: 'i'.", []*otsprotocol.FieldSchema{keyword("a"), keyword("b"), searchField("a", otsprotocol.FieldType_LONG)}},
		{"Duplicated field name: 'a' of search index: 'i'.", []*otsprotocol.FieldSchema{searchField("n", otsprotocol.FieldType_NESTED, keyword("a"), keyword("a"))}},
		{"Invalid type of field: 'a' of search index: 'i'.", []*otsprotocol.FieldSchema{{FieldName: proto.String("a")}}},
		{"Invalid type of field: 'a' of search index: 'i'.", []*otsprotocol.FieldSchema{searchField("a", 0)}},
		{"Invalid type of field: 'a' of search index: 'i'.", []*otsprotocol.FieldSchema{searchField("a", 99)}},
		{"Field: 'a' of search index: 'i' has fields, and is not nested.", []*otsprotocol.FieldSchema{searchField("a", otsprotocol.FieldType_LONG, keyword("b"))}},
		{"Nested field: 'a' of search index: 'i' has no fields.", []*otsprotocol.FieldSchema{searchField("a", otsprotocol.FieldType_NESTED)}},
	} {
		refusedWith(t, trySearch(t, s, "i", test.fields...), badParameter, test.text)
	}
	var all []*otsprotocol.FieldSchema
	for kind := otsprotocol.FieldType_LONG; kind <= otsprotocol.FieldType_JSON; kind++ {
		f := searchField(fmt.Sprint("f", kind), kind)
		if kind == otsprotocol.FieldType_NESTED {
			f.FieldSchemas = []*otsprotocol.FieldSchema{keyword("f1"), keyword("f2")}
		}
		all = append(all, f)
	}
	makeSearch(t, s, "i", all...)
}

// TestDescribedSort: an index without an order of its own is described with that of the
// primary key, unless it has nested fields.
func TestDescribedSort(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	create(t, connect(s), tablestore.TableOption{}, text)
	a := searchField("a", otsprotocol.FieldType_KEYWORD)
	nested := searchField("n", otsprotocol.FieldType_NESTED, searchField("b", otsprotocol.FieldType_LONG))
	byKey := func(order otsprotocol.SortOrder) *otsprotocol.Sort {
		return &otsprotocol.Sort{Sorter: []*otsprotocol.Sorter{{PkSort: &otsprotocol.PrimaryKeySort{Order: &order}}}}
	}
	up, down := byKey(otsprotocol.SortOrder_SORT_ORDER_ASC), byKey(otsprotocol.SortOrder_SORT_ORDER_DESC)
	for _, test := range []struct {
		name   string
		schema *otsprotocol.IndexSchema
		want   *otsprotocol.Sort
	}{
		{"none", &otsprotocol.IndexSchema{FieldSchemas: []*otsprotocol.FieldSchema{a}}, up},
		{"nested", &otsprotocol.IndexSchema{FieldSchemas: []*otsprotocol.FieldSchema{a, nested}}, nil},
		{"given", &otsprotocol.IndexSchema{FieldSchemas: []*otsprotocol.FieldSchema{a}, IndexSort: down}, down},
	} {
		refusedWith(t, send(t, s, "CreateSearchIndex", &otsprotocol.CreateSearchIndexRequest{TableName: proto.String("t"), IndexName: &test.name, Schema: test.schema}, nil), "", "")
		var res otsprotocol.DescribeSearchIndexResponse
		refusedWith(t, send(t, s, "DescribeSearchIndex", &otsprotocol.DescribeSearchIndexRequest{TableName: proto.String("t"), IndexName: &test.name}, &res), "", "")
		if got := res.Schema.GetIndexSort(); !proto.Equal(got, test.want) {
			t.Errorf("%s is described as sorted by %v, want %v", test.name, got, test.want)
		}
		if n := len(res.Schema.FieldSchemas); n != len(test.schema.FieldSchemas) {
			t.Errorf("%s is described with %d fields", test.name, n)
		}
	}
}

// TestOptionsOfKeys: only the option AUTO_INCREMENT makes keys.
func TestOptionsOfKeys(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	refusedWith(t, send(t, s, "CreateTable", creation("t", func(r *otsprotocol.CreateTableRequest) {
		none := otsprotocol.PrimaryKeyOption(0)
		r.TableMeta.PrimaryKey[0].Option = &none
		r.TableMeta.PrimaryKey = append(r.TableMeta.PrimaryKey, &otsprotocol.PrimaryKeySchema{Name: proto.String("pk2"), Type: otsprotocol.PrimaryKeyType_INTEGER.Enum(), Option: &none})
	}), nil), "", "")
	for _, k := range describeRaw(t, s, "t").TableMeta.PrimaryKey {
		if k.Option != nil {
			t.Errorf("column %s is described with the option %v", k.GetName(), k.GetOption())
		}
	}
	c := connect(s)
	ok(t, put(c, key("a", 7)))
	if _, there := get(t, c, key("a", 7)); !there {
		t.Error("a row with a key of its own is not there")
	}
}

// variant is a value as ranges of partitions have it.
func variant(v any) []byte {
	switch v := v.(type) {
	case string:
		return append(le.LittleEndian.AppendUint32([]byte{byte(plainbuffer.String)}, uint32(len(v))), v...)
	case int:
		return le.LittleEndian.AppendUint64([]byte{byte(plainbuffer.Integer)}, uint64(v))
	case plainbuffer.Type:
		return []byte{byte(v)}
	}
	panic("no variant")
}

func partitionRanges(points ...any) []*otsprotocol.PartitionRange {
	var out []*otsprotocol.PartitionRange
	from := variant(plainbuffer.InfMin)
	for _, p := range append(points, plainbuffer.InfMax) {
		to := variant(p)
		out = append(out, &otsprotocol.PartitionRange{Begin: from, End: to})
		from = to
	}
	return out
}

// TestPartitionsOfNewTables: a table begins with the partitions that are asked for, and
// its stream with a shard for each.
func TestPartitionsOfNewTables(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	with := func(name string, ranges []*otsprotocol.PartitionRange) *otsprotocol.Error {
		return send(t, s, "CreateTable", creation(name, func(r *otsprotocol.CreateTableRequest) {
			r.Partitions = ranges
			r.StreamSpec = &otsprotocol.StreamSpecification{EnableStream: proto.Bool(true), ExpirationTime: proto.Int32(24)}
		}), nil)
	}
	refusedWith(t, with("t", partitionRanges("a", "b", "c", "d", "e")), "", "")
	d := describeRaw(t, s, "t")
	var got []string
	for _, split := range d.ShardSplits {
		var row plainbuffer.Row
		ok(t, plainbuffer.ScanKey(split, &row))
		got = append(got, cellsText(row.Key))
	}
	equal(t, "the splits", got, []string{"pk1=a", "pk1=b", "pk1=c", "pk1=d", "pk1=e"})
	w := wireTo(t, s)
	if n := len(w.shards(w.stream("t"))); n != 6 {
		t.Errorf("the stream has %d shards", n)
	}
	c := connect(s)
	for _, k := range []string{"", "a", "bb", "z"} {
		ok(t, put(c, key(k)))
	}
	if got := keysOf(page(t, c, key(lowest), key(highest)).Rows); got != " a bb z" {
		t.Errorf("the rows are %q", got)
	}
	refusedWith(t, with("nine", partitionRanges("1", "2", "3", "4", "5", "6", "7", "8", "9")), "", "")
	refusedWith(t, with("ten", partitionRanges("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")), badParameter, "The count of partitions cannot be greater than 10")
	refusedWith(t, with("no", partitionRanges("b", "a")), badParameter, "Partitions must be in the order of their keys: 'a'.")
	refusedWith(t, with("no", partitionRanges("a", "a")), badParameter, "Partitions must be in the order of their keys: 'a'.")
	refusedWith(t, with("no", partitionRanges(1)), badKey, "Validate PK type fail. Input: VT_INTEGER, Meta: VT_STRING.")
	refusedWith(t, with("no", partitionRanges(strings.Repeat("x", 1025))), badParameter, "The length of primary key column: 'pk1' exceeds the MaxLength:1024 with CurrentLength:1025.")
	refusedWith(t, with("no", partitionRanges("a", "b")[:2]), badParameter, "The last partition does not end at VT_INF_MAX.")
	refusedWith(t, with("no", partitionRanges("a", "b")[1:]), badParameter, "Partition 0 does not begin where the one before ends.")
	gap := partitionRanges("a", "b")
	gap[1].Begin = variant("aa")
	refusedWith(t, with("no", gap), badParameter, "Partition 1 does not begin where the one before ends.")
	broken := partitionRanges("a", "b")
	broken[0].End, broken[1].Begin = []byte{9}, []byte{9}
	refusedWith(t, with("no", broken), badParameter, "The end of partition 0 is no value of a primary key column.")
}

// TestStreamsOfLongNames reads the stream of a table of the longest name.
func TestStreamsOfLongNames(t *testing.T) {
	for _, length := range []int{238, 239, 255} {
		s := otstest.Run(t, ots.Config{Behavior: engine.Behavior{Stream: engine.StreamBehavior{Seeks: 1}}})
		name := strings.Repeat("n", length)
		refusedWith(t, send(t, s, "CreateTable", creation(name, func(r *otsprotocol.CreateTableRequest) {
			r.StreamSpec = &otsprotocol.StreamSpecification{EnableStream: proto.Bool(true), ExpirationTime: proto.Int32(24)}
		}), nil), "", "")
		change := putChange(key("a"), cell{"c", "v", -1})
		change.TableName = name
		_, err := connect(s).PutRow(&tablestore.PutRowRequest{PutRowChange: change})
		ok(t, err)
		if err := s.Engine().SplitPartition(name, []plainbuffer.Cell{keyCell("pk1", "m")}); err != nil {
			t.Fatal(err)
		}
		w := wireTo(t, s)
		id := w.stream(name)
		shards := w.shards(id)
		if len(shards) != 3 {
			t.Fatalf("%d shards", len(shards))
		}
		for _, at := range []int64{-1, 0} {
			if records, next := w.page(w.iterator(id, shards[0].GetShardId(), at), 0); len(records) != 1 || next != "" {
				t.Errorf("a name of %d bytes: from %d on there are %v, then %q", length, at, records, next)
			}
		}
	}
}

// TestRepeatedReads: a row that is named twice in a BatchGetRow is read twice, or the
// request is refused, as the switch says.
func TestRepeatedReads(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	create(t, c, tablestore.TableOption{}, text)
	ok(t, put(c, key("a"), cell{"c", "v", -1}))
	read := func() (*tablestore.BatchGetRowResponse, error) {
		criteria := &tablestore.MultiRowQueryCriteria{TableName: "t", MaxVersion: 1}
		for _, k := range []string{"a", "b", "a"} {
			criteria.AddRow(key(k))
		}
		return c.BatchGetRow(&tablestore.BatchGetRowRequest{MultiRowQueryCriteria: []*tablestore.MultiRowQueryCriteria{criteria}})
	}
	res, err := read()
	ok(t, err)
	rows := res.TableToRowsResult["t"]
	if len(rows) != 3 || len(rows[0].Columns) != 1 || len(rows[2].Columns) != 1 || len(rows[1].Columns) != 0 {
		t.Errorf("rows %+v", rows)
	}
	s.Engine().SetBehavior(engine.Behavior{Reads: engine.ReadBehavior{RefuseRepeats: true}})
	_, err = read()
	want(t, err, 400, badParameter, "Duplicate rows detected in MultiGet.")
}

// TestDescribedIndexKeys: an index that was asked for with columns of the table's key is
// described with them, and its rows are the same as without.
func TestDescribedIndexKeys(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	createDefined(t, c, func(r *tablestore.CreateTableRequest) {
		r.IndexMetas = []*tablestore.IndexMeta{indexMeta("short", false, []string{"int"}, nil), indexMeta("long", false, []string{"int", "pk2"}, nil), indexMeta("all", false, []string{"int", "pk1", "pk2"}, nil)}
	})
	described := func() (all []string) {
		for _, x := range describe(t, c, "t").IndexMetas {
			all = append(all, fmt.Sprint(x.IndexName, x.Primarykey))
		}
		return all
	}
	equal(t, "as asked for", described(), []string{"short[int]", "long[int pk2]", "all[int pk1 pk2]"})
	s.Engine().SetBehavior(engine.Behavior{Indexes: engine.IndexBehavior{FullKeys: true}})
	equal(t, "in full", described(), []string{"short[int pk1 pk2]", "long[int pk2 pk1]", "all[int pk1 pk2]"})
}

// TestOldVersions: a client of another version of the API is told so.
func TestOldVersions(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	for version, text := range map[string]string{"2014-08-08": "Unsupported api version: '2014-08-08'.", "2015-12-31": ""} {
		r := request(t, "http://in-process", "ListTable", &otsprotocol.ListTableRequest{})
		r.Header.Set("x-ots-apiversion", version)
		sign(t, r, ots.DefaultKeySecret)
		res, err := s.RoundTrip(r)
		ok(t, err)
		body, err := io.ReadAll(res.Body)
		ok(t, err)
		refused := new(otsprotocol.Error)
		if text != "" {
			ok(t, proto.Unmarshal(body, refused))
		}
		if refused.GetMessage() != text || (res.StatusCode == 200) != (text == "") {
			t.Errorf("version %s is answered %d %v", version, res.StatusCode, refused)
		}
	}
}
