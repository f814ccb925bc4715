package ots_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

func describe(t testing.TB, c *tablestore.TableStoreClient, name string) *tablestore.DescribeTableResponse {
	t.Helper()
	d, err := c.DescribeTable(&tablestore.DescribeTableRequest{TableName: name})
	ok(t, err)
	return d
}

func TestTables(t *testing.T) {
	t.Parallel()
	now := newClock(time.UnixMilli(1_700_000_000_000))
	s := start(t, ots.Config{Now: now.now})
	c := connect(s)
	meta := &tablestore.TableMeta{TableName: "t"}
	meta.AddPrimaryKeyColumn("pk1", text)
	meta.AddPrimaryKeyColumn("pk2", binary)
	meta.AddPrimaryKeyColumnOption("pk3", integer, tablestore.AUTO_INCREMENT)
	meta.AddDefinedColumn("d", tablestore.DefinedColumn_DOUBLE)
	request := &tablestore.CreateTableRequest{
		TableMeta:          meta,
		TableOption:        &tablestore.TableOption{TimeToAlive: 86400, MaxVersion: 7, DeviationCellVersionInSec: 99, AllowUpdate: proto.Bool(false)},
		ReservedThroughput: &tablestore.ReservedThroughput{Readcap: 3, Writecap: 4},
		StreamSpec:         &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: 24, OriginColumnsToGet: []string{"d"}},
	}
	_, err := c.CreateTable(request)
	ok(t, err)
	_, err = c.CreateTable(request)
	want(t, err, 409, "OTSObjectAlreadyExist", "Requested table already exists.")

	d := describe(t, c, "t")
	if got := fmt.Sprint(len(d.TableMeta.SchemaEntry), *d.TableMeta.SchemaEntry[2].Name, *d.TableMeta.SchemaEntry[2].Option, d.TableMeta.DefinedColumns[0].Name,
		d.TableOption.TimeToAlive, d.TableOption.MaxVersion, d.TableOption.DeviationCellVersionInSec, *d.TableOption.AllowUpdate, *d.TableOption.UpdateFullRow,
		d.ReservedThroughput.Readcap, d.ReservedThroughput.Writecap, d.StreamDetails.EnableStream, d.StreamDetails.ExpirationTime, d.StreamDetails.OriginColumnsToGet); got !=
		"3pk31d86400 7 99 false false 3 4 true 24 [d]" {
		t.Errorf("description %s", got)
	}

	// What is not given stays.
	updated, err := c.UpdateTable(&tablestore.UpdateTableRequest{TableName: "t", ReservedThroughput: &tablestore.ReservedThroughput{Readcap: 1, Writecap: 1}})
	ok(t, err)
	if updated.TableOption.TimeToAlive != 86400 || updated.ReservedThroughput.Readcap != 1 || !updated.StreamDetails.EnableStream {
		t.Errorf("update answers %+v", updated)
	}
	first := *d.StreamDetails.StreamId
	stream := func(spec *tablestore.StreamSpecification) *tablestore.StreamDetails {
		t.Helper()
		res, err := c.UpdateTable(&tablestore.UpdateTableRequest{TableName: "t", StreamSpec: spec})
		ok(t, err)
		return res.StreamDetails
	}
	if stream(&tablestore.StreamSpecification{EnableStream: false}).EnableStream {
		t.Error("the stream is on")
	}
	listed, err := c.ListStream(&tablestore.ListStreamRequest{TableName: proto.String("t")})
	ok(t, err)
	if len(listed.Streams) != 0 {
		t.Errorf("%d streams of a table without one", len(listed.Streams))
	}
	now.advance(time.Second)
	again := stream(&tablestore.StreamSpecification{EnableStream: true, ExpirationTime: 168})
	if *again.StreamId == first {
		t.Error("a stream that is turned on again has its old id")
	}
	listed, err = c.ListStream(&tablestore.ListStreamRequest{TableName: proto.String("t")})
	ok(t, err)
	if len(listed.Streams) != 1 || string(*listed.Streams[0].Id) != string(*again.StreamId) {
		t.Errorf("streams %v", listed.Streams)
	}

	names, err := c.ListTable()
	ok(t, err)
	equal(t, "tables", names.TableNames, []string{"t"})
	_, err = c.DeleteTable(&tablestore.DeleteTableRequest{TableName: "t"})
	ok(t, err)
	_, err = c.DeleteTable(&tablestore.DeleteTableRequest{TableName: "t"})
	want(t, err, 404, "OTSObjectNotExist", "Requested table does not exist.")
	want(t, put(c, key("a")), 404, "OTSObjectNotExist", "Requested table does not exist.")
	_, err = c.DescribeTable(&tablestore.DescribeTableRequest{TableName: "t"})
	want(t, err, 404, "OTSObjectNotExist", "Requested table does not exist.")
	// A table of the same name has none of the former rows.
	create(t, c, tablestore.TableOption{}, text)
	ok(t, put(c, key("a")))
	_, err = c.DeleteTable(&tablestore.DeleteTableRequest{TableName: "t"})
	ok(t, err)
	create(t, c, tablestore.TableOption{}, text)
	if rows := page(t, c, key(lowest), key(highest)).Rows; len(rows) != 0 {
		t.Errorf("a new table has %d rows", len(rows))
	}
}

func TestRefusedTables(t *testing.T) {
	t.Parallel()
	s := start(t, ots.Config{})
	c := connect(s)
	column := func(name string, kind otsprotocol.PrimaryKeyType) *otsprotocol.PrimaryKeySchema {
		return &otsprotocol.PrimaryKeySchema{Name: &name, Type: &kind}
	}
	good := func() *otsprotocol.CreateTableRequest {
		return &otsprotocol.CreateTableRequest{
			TableMeta:          &otsprotocol.TableMeta{TableName: proto.String("t"), PrimaryKey: []*otsprotocol.PrimaryKeySchema{column("pk", otsprotocol.PrimaryKeyType_STRING)}},
			ReservedThroughput: &otsprotocol.ReservedThroughput{CapacityUnit: &otsprotocol.CapacityUnit{Read: proto.Int32(0), Write: proto.Int32(0)}},
			TableOptions:       &otsprotocol.TableOptions{TimeToLive: proto.Int32(-1), MaxVersions: proto.Int32(1)},
		}
	}
	auto := otsprotocol.PrimaryKeyOption_AUTO_INCREMENT
	for _, test := range []struct {
		name   string
		change func(r *otsprotocol.CreateTableRequest)
		text   string
	}{
		{"name with a hyphen", func(r *otsprotocol.CreateTableRequest) { r.TableMeta.TableName = proto.String("a-b") }, "Invalid table name: 'a-b'."},
		{"name with a digit first", func(r *otsprotocol.CreateTableRequest) { r.TableMeta.TableName = proto.String("1a") }, "Invalid table name: '1a'."},
		{"no name", func(r *otsprotocol.CreateTableRequest) { r.TableMeta.TableName = proto.String("") }, "Invalid table name: ''."},
		{"long name", func(r *otsprotocol.CreateTableRequest) {
			r.TableMeta.TableName = proto.String(strings.Repeat("a", 256))
		}, "Invalid table name: '" + strings.Repeat("a", 256) + "'."},
		{"no key", func(r *otsprotocol.CreateTableRequest) { r.TableMeta.PrimaryKey = nil }, "The number of primary key columns must be in range: [1, 4]."},
		{"key of five", func(r *otsprotocol.CreateTableRequest) {
			for _, n := range "abcd" {
				r.TableMeta.PrimaryKey = append(r.TableMeta.PrimaryKey, column(string(n), otsprotocol.PrimaryKeyType_STRING))
			}
		}, "The number of primary key columns must be in range: [1, 4]."},
		{"key column twice", func(r *otsprotocol.CreateTableRequest) {
			r.TableMeta.PrimaryKey = append(r.TableMeta.PrimaryKey, column("pk", otsprotocol.PrimaryKeyType_STRING))
		}, "Duplicated primary key name: 'pk'."},
		{"first column made by the service", func(r *otsprotocol.CreateTableRequest) {
			r.TableMeta.PrimaryKey[0].Type, r.TableMeta.PrimaryKey[0].Option = otsprotocol.PrimaryKeyType_INTEGER.Enum(), &auto
		}, "First primary key can't be auto increment, table: t."},
		{"no TTL", func(r *otsprotocol.CreateTableRequest) { r.TableOptions.TimeToLive = nil }, "Time-to-live is missing while creating table."},
		{"no MaxVersions", func(r *otsprotocol.CreateTableRequest) { r.TableOptions.MaxVersions = nil }, "MaxVersions is missing while creating table."},
		{"TTL 0", func(r *otsprotocol.CreateTableRequest) { r.TableOptions.TimeToLive = proto.Int32(0) }, "TimeToLive cannot be 0 or less than -1."},
		{"deviation", func(r *otsprotocol.CreateTableRequest) {
			r.TableOptions.DeviationCellVersionInSec = proto.Int64(anyTime + 1)
		}, "The maximum deviation must be in range [0, INT64_MAX/1000000]."},
		{"defined columns", func(r *otsprotocol.CreateTableRequest) {
			for i := range 33 {
				r.TableMeta.DefinedColumn = append(r.TableMeta.DefinedColumn, &otsprotocol.DefinedColumnSchema{Name: proto.String(fmt.Sprint("d", i)), Type: otsprotocol.DefinedColumnType_DCT_STRING.Enum()})
			}
		}, "The number of defined columns must be in range: [0, 32]."},
		{"stream retention", func(r *otsprotocol.CreateTableRequest) {
			r.StreamSpec = &otsprotocol.StreamSpecification{EnableStream: proto.Bool(true), ExpirationTime: proto.Int32(169)}
		}, "Stream expiration time must be in range: [1, 168]."},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := good()
			test.change(r)
			err := send(t, s, "CreateTable", r, nil)
			if err.GetCode() != badParameter || err.GetMessage() != test.text {
				t.Errorf("error %v, want %q", err, test.text)
			}
		})
	}
	if err := send(t, s, "CreateTable", good(), nil); err != nil {
		t.Errorf("a good table is refused: %v", err)
	}
	_, err := c.UpdateTable(&tablestore.UpdateTableRequest{TableName: "t", TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1, UpdateFullRow: proto.Bool(true)}})
	if err == nil || !strings.Contains(err.Error(), "contain updateFullRow") {
		t.Errorf("an update of update_full_row: %v", err)
	}
	for i := range engine.MaxTables - 1 {
		r := good()
		r.TableMeta.TableName = proto.String(fmt.Sprint("t", i))
		if err := send(t, s, "CreateTable", r, nil); err != nil {
			t.Fatal(err)
		}
	}
	r := good()
	r.TableMeta.TableName = proto.String("more")
	if err := send(t, s, "CreateTable", r, nil); err.GetCode() != "OTSQuotaExhausted" || err.GetMessage() != "Number of tables exceeds the quota:64." {
		t.Errorf("table 65: %v", err)
	}
	s.Engine().SetBehavior(engine.Behavior{TableOperations: 2})
	var last error
	for range 3 {
		_, last = c.ListTable()
	}
	want(t, last, 403, "OTSQuotaExhausted", "Too frequent table operations.")
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	now := newClock(time.UnixMilli(1_700_000_000_000))
	s := start(t, ots.Config{Now: now.now, Behavior: engine.Behavior{ReadyDelay: time.Minute}})
	c := connect(s)
	create(t, c, tablestore.TableOption{}, text)
	want(t, put(c, key("a")), 404, "OTSTableNotReady", "The table is not ready.")
	var d otsprotocol.DescribeTableResponse
	if err := send(t, s, "DescribeTable", &otsprotocol.DescribeTableRequest{TableName: proto.String("t")}, &d); err != nil || d.GetTableStatus() != otsprotocol.TableStatus_LOADING {
		t.Errorf("status %v, %v", d.TableStatus, err)
	}
	now.advance(time.Minute)
	ok(t, put(c, key("a")))
}

func TestDefinedColumns(t *testing.T) {
	t.Parallel()
	c := connect(start(t, ots.Config{}))
	create(t, c, tablestore.TableOption{}, text)
	add := func(name string, kind tablestore.DefinedColumnType) error {
		_, err := c.AddDefinedColumn(&tablestore.AddDefinedColumnRequest{TableName: "t", DefinedColumns: []*tablestore.DefinedColumnSchema{{Name: name, ColumnType: kind}}})
		return err
	}
	ok(t, put(c, key("a"), cell{"d", "text", -1}))
	ok(t, add("d", tablestore.DefinedColumn_INTEGER))
	want(t, put(c, key("b"), cell{"d", "text", -1}), 400, badParameter, "Invalid column type for column d expect VT_INTEGER actual VT_STRING")
	ok(t, put(c, key("b"), cell{"d", int64(1), -1}))
	if got := describe(t, c, "t").TableMeta.DefinedColumns; len(got) != 1 || got[0].ColumnType != tablestore.DefinedColumn_INTEGER {
		t.Errorf("defined columns %v", got)
	}
	_, err := c.DeleteDefinedColumn(&tablestore.DeleteDefinedColumnRequest{TableName: "t", DefinedColumns: []string{"d"}})
	ok(t, err)
	ok(t, put(c, key("b"), cell{"d", "text", -1}))
}

// TestSplits proves that the ranges between split points cover the table once
// and are of about the size that was asked for.
func TestSplits(t *testing.T) {
	t.Parallel()
	s := start(t, ots.Config{})
	c := connect(s)
	create(t, c, tablestore.TableOption{}, text, integer)
	split := func(size int64) *tablestore.ComputeSplitPointsBySizeResponse {
		t.Helper()
		res, err := c.ComputeSplitPointsBySize(&tablestore.ComputeSplitPointsBySizeRequest{TableName: "t", SplitSize: size, SplitSizeUnitInByte: proto.Int64(1 << 20)})
		ok(t, err)
		return res
	}
	if n := len(split(1).Splits); n != 1 {
		t.Errorf("an empty table has %d ranges", n)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	const rows, size = 1000, 10_000
	for i := 0; i < rows; i += 200 {
		batch := &tablestore.BatchWriteRowRequest{}
		for range 200 {
			batch.AddRowChange(putChange(key(fmt.Sprintf("%08x", rng.Uint32()), int64(rng.Uint64())), cell{"c", strings.Repeat("v", size), -1}))
		}
		_, err := c.BatchWriteRow(batch)
		ok(t, err)
	}
	ok(t, engineError(s.Engine().SplitPartition("t", []plainbuffer.Cell{{Type: plainbuffer.String, Data: []byte("8"), HasValue: true}})))
	res := split(2)
	if n := len(res.Splits); n < 4 || n > 6 {
		t.Errorf("10 MB in ranges of 2 MiB are %d ranges", n)
	}
	total := 0
	locations := map[string]bool{}
	for i, r := range res.Splits {
		n := len(page(t, c, r.LowerBound, r.UpperBound).Rows)
		next := page(t, c, r.LowerBound, r.UpperBound).NextStartPrimaryKey
		for next != nil {
			p := page(t, c, next, r.UpperBound)
			n, next = n+len(p.Rows), p.NextStartPrimaryKey
		}
		if bytes := n * size; i+1 < len(res.Splits) && (bytes < 1_900_000 || bytes > 2<<20) {
			t.Errorf("range %d has %d bytes", i, bytes)
		}
		total += n
		locations[r.Location] = true
		if i > 0 && keyText(res.Splits[i-1].UpperBound) != keyText(r.LowerBound) {
			t.Errorf("range %d begins at %s, the one before ends at %s", i, keyText(r.LowerBound), keyText(res.Splits[i-1].UpperBound))
		}
	}
	if total != rows {
		t.Errorf("the ranges have %d rows, want %d", total, rows)
	}
	if len(locations) != 2 {
		t.Errorf("the ranges are in %d places, want 2 for two partitions", len(locations))
	}
	for name, test := range map[string]struct {
		request tablestore.ComputeSplitPointsBySizeRequest
		text    string
	}{
		"size 0": {tablestore.ComputeSplitPointsBySizeRequest{TableName: "t"}, "The split_size should be greater than 0."},
		"unit":   {tablestore.ComputeSplitPointsBySizeRequest{TableName: "t", SplitSize: 1, SplitSizeUnitInByte: proto.Int64(1<<20 - 1)}, "The split_size_unit_in_byte should be greater equal than: 1048576"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.ComputeSplitPointsBySize(&test.request)
			want(t, err, 400, badParameter, test.text)
		})
	}
}

// engineError is an engine's error as an error, nil if there is none.
func engineError(err *engine.Error) error {
	if err == nil {
		return nil
	}
	return err
}

// TestPartitions proves that a table that grows is cut, and where.
func TestPartitions(t *testing.T) {
	t.Parallel()
	s := start(t, ots.Config{Behavior: engine.Behavior{SplitSize: 1 << 20}})
	c := connect(s)
	create(t, c, tablestore.TableOption{}, text)
	for i := range 400 {
		ok(t, put(c, key(fmt.Sprintf("%04d", i)), cell{"c", strings.Repeat("v", 10_000), -1}))
	}
	var d otsprotocol.DescribeTableResponse
	deadline := time.Now().Add(5 * time.Second)
	for len(d.ShardSplits) < 3 && time.Now().Before(deadline) {
		ok(t, put(c, key("0000"), cell{"c", strings.Repeat("v", 300_000), -1}))
		d = otsprotocol.DescribeTableResponse{}
		if err := send(t, s, "DescribeTable", &otsprotocol.DescribeTableRequest{TableName: proto.String("t")}, &d); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.ShardSplits) < 3 {
		t.Fatalf("%d cuts of 4 MB in partitions of at most 1 MiB", len(d.ShardSplits))
	}
	var last []byte
	for _, p := range d.ShardSplits {
		var row plainbuffer.Row
		ok(t, plainbuffer.ScanKey(p, &row))
		if bytes.Compare(row.Key[0].Data, last) <= 0 {
			t.Errorf("cut %s after %s", row.Key[0].Data, last)
		}
		last = slices.Clone(row.Key[0].Data)
	}
	ok(t, engineError(s.Engine().MergePartitions("t", 0)))
}

func TestSecondaryIndexes(t *testing.T) {
	t.Parallel()
	now := newClock(time.UnixMilli(1_700_000_000_000))
	s := start(t, ots.Config{Now: now.now, Behavior: engine.Behavior{IndexDelay: time.Minute}})
	c := connect(s)
	meta := &tablestore.TableMeta{TableName: "t"}
	meta.AddPrimaryKeyColumn("pk1", text)
	meta.AddPrimaryKeyColumn("pk2", integer)
	meta.AddDefinedColumn("city", tablestore.DefinedColumn_STRING)
	meta.AddDefinedColumn("age", tablestore.DefinedColumn_INTEGER)
	_, err := c.CreateTable(&tablestore.CreateTableRequest{TableMeta: meta, TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1}, ReservedThroughput: &tablestore.ReservedThroughput{}})
	ok(t, err)
	person := func(name string, n int64, city string, age int64) {
		t.Helper()
		ok(t, put(c, key(name, n), cell{"city", city, -1}, cell{"age", age, -1}, cell{"other", "x", -1}))
	}
	person("ann", 1, "rome", 40)
	person("bob", 1, "bern", 50)
	ok(t, put(c, key("cid", 1), cell{"age", int64(1), -1}))

	index := &tablestore.IndexMeta{IndexName: "by-city", Primarykey: []string{"city"}, DefinedColumns: []string{"age"}, IndexType: tablestore.IT_GLOBAL_INDEX}
	build := func(meta *tablestore.IndexMeta, base bool) error {
		_, err := c.CreateIndex(&tablestore.CreateIndexRequest{MainTableName: "t", IndexMeta: meta, IncludeBaseData: base})
		return err
	}
	ok(t, build(index, true))
	indexed := func() string {
		t.Helper()
		res, err := c.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: &tablestore.RangeRowQueryCriteria{
			TableName: "by-city", MaxVersion: 1, Direction: tablestore.FORWARD,
			StartPrimaryKey: bounds(lowest, "city", "pk1", "pk2"), EndPrimaryKey: bounds(highest, "city", "pk1", "pk2"),
		}})
		if err != nil {
			return err.Error()
		}
		var all []string
		for _, r := range res.Rows {
			all = append(all, keyText(r.PrimaryKey)+fmt.Sprint(cellValues(r.Columns)))
		}
		return strings.Join(all, " ")
	}
	d := describe(t, c, "t").IndexMetas
	if len(d) != 1 || d[0].IndexName != "by-city" || fmt.Sprint(d[0].Primarykey, d[0].DefinedColumns) != "[city] [age]" {
		t.Errorf("index %+v", d)
	}
	s.Engine().SetBehavior(engine.Behavior{IndexDelay: time.Minute, FullIndexKeys: true})
	if d := describe(t, c, "t").IndexMetas; fmt.Sprint(d[0].Primarykey) != "[city pk1 pk2]" {
		t.Errorf("with full keys it is %v", d[0].Primarykey)
	}
	phase := func() otsprotocol.IndexSyncPhase {
		var d otsprotocol.DescribeTableResponse
		if err := send(t, s, "DescribeTable", &otsprotocol.DescribeTableRequest{TableName: proto.String("t")}, &d); err != nil {
			t.Fatal(err)
		}
		return d.IndexMetas[0].GetIndexSyncPhase()
	}
	if phase() != otsprotocol.IndexSyncPhase_ISP_FULL {
		t.Error("the index is complete at once")
	}
	if got := indexed(); !strings.Contains(got, "Disallow read index table in building base state") {
		t.Errorf("a read while it is built: %s", got)
	}
	now.advance(time.Minute)
	for phase() != otsprotocol.IndexSyncPhase_ISP_INCR {
		time.Sleep(time.Millisecond)
	}
	for _, step := range []struct {
		name string
		do   func() error
		want string
	}{
		{"base data", func() error { return nil }, "bern,bob,1[50] rome,ann,1[40]"},
		{"a new row", func() error {
			return put(c, key("dan", 2), cell{"city", "bern", -1})
		}, "bern,bob,1[50] bern,dan,2[] rome,ann,1[40]"},
		{"a row moves", func() error { return update(c, key("ann", 1), cell{"city", "aachen", -1}) }, "aachen,ann,1[40] bern,bob,1[50] bern,dan,2[]"},
		{"a carried column", func() error { return update(c, key("dan", 2), cell{"age", int64(3), -1}) }, "aachen,ann,1[40] bern,bob,1[50] bern,dan,2[3]"},
		{"the indexed column goes", func() error { return update(c, key("bob", 1), cell{"city", deleteAll, 0}) }, "aachen,ann,1[40] bern,dan,2[3]"},
		{"the row goes", func() error { return remove(c, key("ann", 1)) }, "bern,dan,2[3]"},
		{"the row is replaced", func() error { return put(c, key("dan", 2), cell{"city", "bern", -1}) }, "bern,dan,2[]"},
	} {
		ok(t, step.do())
		if got := indexed(); got != step.want {
			t.Errorf("%s: %q, want %q", step.name, got, step.want)
		}
	}
	change := putChange(key("x", 1), cell{"c", "v", now.millis()})
	_, err = c.PutRow(&tablestore.PutRowRequest{PutRowChange: change})
	want(t, err, 400, badParameter, fmt.Sprintf("Timestamp is not allowed on a table with index. Cell:c. Timestamp:%d.", now.millis()))
	batch := &tablestore.BatchWriteRowRequest{}
	batch.AddRowChange(putChange(key("x", 1), cell{"c", "v", -1}))
	batch.AddRowChange(putChange(key("x", 1), cell{"c", "w", -1}))
	res, err := c.BatchWriteRow(batch)
	ok(t, err)
	for _, r := range res.TableToRowsResult["t"] {
		if r.IsSucceed {
			t.Error("a repeated row is written to a table with an index")
		}
	}
	direct := &tablestore.PutRowChange{TableName: "by-city", PrimaryKey: &tablestore.PrimaryKey{}}
	direct.PrimaryKey.AddPrimaryKeyColumn("city", "x")
	direct.SetCondition(ignore)
	_, err = c.PutRow(&tablestore.PutRowRequest{PutRowChange: direct})
	want(t, err, 400, badParameter, "Can't write index table directly.")
	names, err := c.ListTable()
	ok(t, err)
	equal(t, "tables", names.TableNames, []string{"t"})
	s.Engine().SetBehavior(engine.Behavior{ListIndexTables: true})
	names, err = c.ListTable()
	ok(t, err)
	equal(t, "tables", names.TableNames, []string{"by-city", "t"})
	_, err = c.DeleteIndex(&tablestore.DeleteIndexRequest{MainTableName: "t", IndexName: "by-city"})
	ok(t, err)
	if got := indexed(); !strings.Contains(got, "OTSObjectNotExist") {
		t.Errorf("a read after it is dropped: %s", got)
	}
	ok(t, put(c, key("x", 1), cell{"c", "v", now.millis()}))

	const count = "The number of primary key columns must be in range: [1, 4] in index."
	for name, test := range map[string]struct {
		meta tablestore.IndexMeta
		text string
	}{
		"no column":        {tablestore.IndexMeta{IndexName: "i"}, count},
		"unknown column":   {tablestore.IndexMeta{IndexName: "i", Primarykey: []string{"none"}}, "Primary key: 'none' of index: 'i' is neither primary key nor defined column."},
		"carries a column": {tablestore.IndexMeta{IndexName: "i", Primarykey: []string{"city"}, DefinedColumns: []string{"other"}}, "Attribute column: 'other' of index: 'i' is not a defined column."},
	} {
		t.Run(name, func(t *testing.T) { want(t, build(&test.meta, false), 400, badParameter, test.text) })
	}
	for i := range 5 {
		ok(t, build(&tablestore.IndexMeta{IndexName: fmt.Sprint("i", i), Primarykey: []string{"city"}}, false))
	}
	want(t, build(&tablestore.IndexMeta{IndexName: "i5", Primarykey: []string{"city"}}, false), 400, badParameter, "Number of index per table exceeds the quota:5.")
}

func bounds(b bound, names ...string) *tablestore.PrimaryKey {
	pk := &tablestore.PrimaryKey{}
	for _, n := range names {
		if b == lowest {
			pk.AddPrimaryKeyColumnWithMinValue(n)
		} else {
			pk.AddPrimaryKeyColumnWithMaxValue(n)
		}
	}
	return pk
}

func cellValues(columns []*tablestore.AttributeColumn) (out []any) {
	for _, c := range columns {
		out = append(out, c.Value)
	}
	return out
}

// TestIndexBuildBesideWriters proves that an index that is built while rows are
// written has exactly what the table has.
func TestIndexBuildBesideWriters(t *testing.T) {
	t.Parallel()
	s := start(t, ots.Config{})
	c := connect(s)
	meta := &tablestore.TableMeta{TableName: "t"}
	meta.AddPrimaryKeyColumn("pk1", integer)
	meta.AddDefinedColumn("v", tablestore.DefinedColumn_INTEGER)
	_, err := c.CreateTable(&tablestore.CreateTableRequest{TableMeta: meta, TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1}, ReservedThroughput: &tablestore.ReservedThroughput{}})
	ok(t, err)
	for i := 0; i < 4000; i += 200 {
		batch := &tablestore.BatchWriteRowRequest{}
		for j := range 200 {
			batch.AddRowChange(putChange(key(i+j), cell{"v", int64(i), -1}))
		}
		_, err := c.BatchWriteRow(batch)
		ok(t, err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		rng := rand.New(rand.NewPCG(3, 4))
		for range 600 {
			n := key(rng.IntN(5000))
			if rng.IntN(3) == 0 {
				if err := remove(c, n); err != nil {
					t.Error(err)
				}
			} else if err := put(c, n, cell{"v", int64(rng.IntN(100)), -1}); err != nil {
				t.Error(err)
			}
		}
	}()
	_, err = c.CreateIndex(&tablestore.CreateIndexRequest{MainTableName: "t", IncludeBaseData: true, IndexMeta: &tablestore.IndexMeta{IndexName: "by_v", Primarykey: []string{"v"}}})
	ok(t, err)
	<-done
	for describeRaw(t, s, "t").IndexMetas[0].GetIndexSyncPhase() != otsprotocol.IndexSyncPhase_ISP_INCR {
		time.Sleep(time.Millisecond)
	}
	collect := func(table string, key, value func(r *plainbuffer.Row) string) []string {
		var out []string
		err := s.Engine().Rows(table, func(raw []byte) bool {
			var r plainbuffer.Row
			if _, err := plainbuffer.Scan(raw, &r); err != nil {
				t.Error(err)
			}
			out = append(out, key(&r)+"="+value(&r))
			return true
		})
		ok(t, engineError(err))
		slices.Sort(out)
		return out
	}
	rows := collect("t", func(r *plainbuffer.Row) string { return fmt.Sprint(r.Key[0].Int()) }, func(r *plainbuffer.Row) string { return fmt.Sprint(r.Cells[0].Int()) })
	entries := collect("by_v", func(r *plainbuffer.Row) string { return fmt.Sprint(r.Key[1].Int()) }, func(r *plainbuffer.Row) string { return fmt.Sprint(r.Key[0].Int()) })
	if len(rows) < 3000 || !slices.Equal(rows, entries) {
		t.Errorf("the table has %d rows, the index %d, or they differ", len(rows), len(entries))
	}
}

func describeRaw(t testing.TB, s *ots.Server, name string) *otsprotocol.DescribeTableResponse {
	t.Helper()
	d := new(otsprotocol.DescribeTableResponse)
	if err := send(t, s, "DescribeTable", &otsprotocol.DescribeTableRequest{TableName: &name}, d); err != nil {
		t.Fatal(err)
	}
	return d
}
