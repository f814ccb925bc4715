package ots_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
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

func describe(t testing.TB, c *tablestore.TableStoreClient, name string) *tablestore.DescribeTableResponse {
	t.Helper()
	d, err := c.DescribeTable(&tablestore.DescribeTableRequest{TableName: name})
	ok(t, err)
	return d
}

// TestTables follows a table from its making to its drop; what becomes of its stream is
// in TestStreamLifecycle.
func TestTables(t *testing.T) {
	t.Parallel()
	c := connect(otstest.Run(t, ots.Config{}))
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

// TestRefusedTables lists what no table can be. What a table can have too much of is in
// TestLimitsOfTables, how often it can be changed in TestTableOperations.
func TestRefusedTables(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{})
	for _, test := range []struct {
		name   string
		change func(r *otsprotocol.CreateTableRequest)
		text   string
	}{
		{"name with a hyphen", func(r *otsprotocol.CreateTableRequest) { r.TableMeta.TableName = proto.String("a-b") }, "Invalid table name: 'a-b'."},
		{"name with a digit first", func(r *otsprotocol.CreateTableRequest) { r.TableMeta.TableName = proto.String("1a") }, "Invalid table name: '1a'."},
		{"key column twice", func(r *otsprotocol.CreateTableRequest) {
			r.TableMeta.PrimaryKey = append(r.TableMeta.PrimaryKey, r.TableMeta.PrimaryKey[0])
		}, "Duplicated primary key name: 'pk1'."},
		{"first column made by the service", func(r *otsprotocol.CreateTableRequest) {
			r.TableMeta.PrimaryKey[0].Type, r.TableMeta.PrimaryKey[0].Option = otsprotocol.PrimaryKeyType_INTEGER.Enum(), otsprotocol.PrimaryKeyOption_AUTO_INCREMENT.Enum()
		}, "First primary key can't be auto increment, table: t."},
		{"no TTL", func(r *otsprotocol.CreateTableRequest) { r.TableOptions.TimeToLive = nil }, "Time-to-live is missing while creating table."},
		{"no MaxVersions", func(r *otsprotocol.CreateTableRequest) { r.TableOptions.MaxVersions = nil }, "MaxVersions is missing while creating table."},
	} {
		t.Run(test.name, func(t *testing.T) {
			refusedWith(t, send(t, s, "CreateTable", creation("t", test.change), nil), badParameter, test.text)
		})
	}
	refusedWith(t, send(t, s, "CreateTable", creation("t"), nil), "", "")
	_, err := connect(s).UpdateTable(&tablestore.UpdateTableRequest{TableName: "t", TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1, UpdateFullRow: proto.Bool(true)}})
	if err == nil || !strings.Contains(err.Error(), "contain updateFullRow") {
		t.Errorf("an update of update_full_row: %v", err)
	}
	for i := range engine.MaxTables - 1 {
		refusedWith(t, send(t, s, "CreateTable", creation(fmt.Sprint("t", i)), nil), "", "")
	}
	refusedWith(t, send(t, s, "CreateTable", creation("more"), nil), "OTSQuotaExhausted", "Number of tables exceeds the quota:64.")
}

func TestDefinedColumns(t *testing.T) {
	t.Parallel()
	c := connect(otstest.Run(t, ots.Config{}))
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

// TestSplits proves that the ranges between split points cover the table once and are of
// about the size that was asked for.
func TestSplits(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{})
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
	s := otstest.Run(t, ots.Config{Behavior: engine.Behavior{Partitions: engine.PartitionBehavior{SplitSize: 1 << 20}}})
	c := connect(s)
	create(t, c, tablestore.TableOption{}, text)
	for i := range 400 {
		ok(t, put(c, key(fmt.Sprintf("%04d", i)), cell{"c", strings.Repeat("v", 10_000), -1}))
	}
	var d *otsprotocol.DescribeTableResponse
	await(t, "4 MB in partitions of at most 1 MiB are cut three times", func() bool {
		ok(t, put(c, key("0000"), cell{"c", strings.Repeat("v", 300_000), -1}))
		d = describeRaw(t, s, "t")
		return len(d.ShardSplits) >= 3
	})
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

func describeRaw(t testing.TB, s *ots.Server, name string) *otsprotocol.DescribeTableResponse {
	t.Helper()
	d := new(otsprotocol.DescribeTableResponse)
	if err := send(t, s, "DescribeTable", &otsprotocol.DescribeTableRequest{TableName: &name}, d); err != nil {
		t.Fatal(err)
	}
	return d
}
