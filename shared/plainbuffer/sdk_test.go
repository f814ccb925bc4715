package plainbuffer_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"reflect"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/plainbuffer/plainbuffertest"
)

// value is a cell's value as the official SDK has it.
func value(c *plainbuffer.Cell) any {
	switch c.Type {
	case plainbuffer.Integer:
		return c.Int()
	case plainbuffer.Double:
		return c.Double()
	case plainbuffer.Boolean:
		return c.Bool()
	case plainbuffer.String:
		return string(c.Data)
	}
	return append([]byte{}, c.Data...)
}

func sdkKey(cells []plainbuffer.Cell) *tablestore.PrimaryKey {
	pk := new(tablestore.PrimaryKey)
	for i := range cells {
		c := &cells[i]
		switch c.Type {
		case plainbuffer.InfMin:
			pk.AddPrimaryKeyColumnWithMinValue(string(c.Name))
		case plainbuffer.InfMax:
			pk.AddPrimaryKeyColumnWithMaxValue(string(c.Name))
		case plainbuffer.AutoIncrement:
			pk.AddPrimaryKeyColumnWithAutoIncrement(string(c.Name))
		default:
			pk.AddPrimaryKeyColumn(string(c.Name), value(c))
		}
	}
	return pk
}

// encodeSDK is a row in the SDK's encoding.
func encodeSDK(row *plainbuffer.Row) []byte {
	if row.Delete || row.Key[0].Type == plainbuffer.InfMin || row.Key[0].Type == plainbuffer.InfMax {
		return sdkKey(row.Key).Build(row.Delete)
	}
	change := &tablestore.UpdateRowChange{PrimaryKey: sdkKey(row.Key)}
	for i := range row.Cells {
		c := &row.Cells[i]
		name := string(c.Name)
		switch {
		case c.Op == plainbuffer.DeleteAll:
			change.DeleteColumn(name)
		case c.Op == plainbuffer.DeleteOne:
			change.DeleteColumnWithTimestamp(name, c.Timestamp)
		case c.Op == plainbuffer.Increment:
			change.IncrementColumn(name, c.Int())
		case c.HasTimestamp:
			change.PutColumnWithTimestamp(name, value(c), c.Timestamp)
		default:
			change.PutColumn(name, value(c))
		}
	}
	return change.Serialize()
}

// change is a random row as it is written: with operations, cells without a timestamp,
// deletions, or a bound of a range.
func change(rng *rand.Rand) plainbuffer.Row {
	row := plainbuffertest.Row(rng)
	switch rng.IntN(10) {
	case 0:
		row.Delete, row.Cells = true, nil
		return row
	case 1:
		bound := []plainbuffer.Type{plainbuffer.InfMin, plainbuffer.InfMax}[rng.IntN(2)]
		for i := range row.Key {
			row.Key[i].Type, row.Key[i].Data = bound, nil
		}
		row.Cells = nil
		return row
	}
	for i := range row.Cells {
		c := &row.Cells[i]
		switch rng.IntN(8) {
		case 0:
			*c = plainbuffer.Cell{Name: c.Name, Op: plainbuffer.DeleteAll}
		case 1:
			*c = plainbuffer.Cell{Name: c.Name, Op: plainbuffer.DeleteOne, HasTimestamp: true, Timestamp: c.Timestamp}
		case 2:
			*c = plainbuffer.Cell{Name: c.Name, Op: plainbuffer.Increment, HasValue: true, Type: plainbuffer.Integer, Data: plainbuffertest.Data(rng, plainbuffer.Integer)}
		case 3:
			c.HasTimestamp, c.Timestamp = false, 0
		}
	}
	return row
}

// TestSDKEncoding: a row that we build is, byte for byte, what the official SDK builds of
// the same values, and what the SDK builds is scanned to those values.
func TestSDKEncoding(t *testing.T) {
	rng := plainbuffertest.Rand(t)
	ops, types := map[plainbuffer.Op]int{}, map[plainbuffer.Type]int{}
	for range 3000 {
		want := change(rng)
		for _, c := range want.Cells {
			ops[c.Op]++
			if c.HasValue {
				types[c.Type]++
			}
		}
		ours, theirs := build(want), encodeSDK(&want)
		if !bytes.Equal(ours, theirs) {
			t.Fatalf("%+v is\n% x, in the SDK's encoding\n% x", want, ours, theirs)
		}
		got := one(t, theirs)
		if !sameCells(got.Key, want.Key) || !sameCells(got.Cells, want.Cells) || got.Delete != want.Delete {
			t.Fatalf("the SDK's encoding of\n%+v is scanned as\n%+v", want, got)
		}
	}
	for _, op := range []plainbuffer.Op{plainbuffer.NoOp, plainbuffer.DeleteAll, plainbuffer.DeleteOne, plainbuffer.Increment} {
		if ops[op] == 0 {
			t.Errorf("no cell had the operation %d", op)
		}
	}
	for _, typ := range plainbuffertest.Types {
		if types[typ] == 0 {
			t.Errorf("no cell was of type %s", typ)
		}
	}
}

func sameCells(a, b []plainbuffer.Cell) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		if !bytes.Equal(x.Name, y.Name) || !bytes.Equal(x.Data, y.Data) {
			return false
		}
		x.Name, x.Data, y.Name, y.Data = nil, nil, nil, nil
		if !reflect.DeepEqual(x, y) {
			return false
		}
	}
	return true
}

// answer is a transport that answers every request with one message.
type answer []byte

func answerTo(m proto.Message) answer {
	body, err := proto.Marshal(m)
	if err != nil {
		panic(err) // the tests' messages are complete
	}
	return body
}

func (a answer) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"X-Ots-Requestid": {"1"}},
		Body: io.NopCloser(bytes.NewReader(a)), ContentLength: int64(len(a)), Request: r,
	}, nil
}

func sdkClient(m proto.Message) *tablestore.TableStoreClient {
	config := tablestore.NewDefaultTableStoreConfig()
	config.Transport = answerTo(m)
	return tablestore.NewClientWithConfig("http://127.0.0.1", "instance", "id", "secret", "", config)
}

func consumed() *otsprotocol.ConsumedCapacity {
	return &otsprotocol.ConsumedCapacity{CapacityUnit: &otsprotocol.CapacityUnit{Read: proto.Int32(1), Write: proto.Int32(0)}}
}

// TestSDKReadsRows: the official SDK reads a page of rows that we built, and has their
// values.
func TestSDKReadsRows(t *testing.T) {
	rng := plainbuffertest.Rand(t)
	var list []plainbuffer.Row
	for range 500 {
		list = append(list, plainbuffertest.Row(rng))
	}
	client := sdkClient(&otsprotocol.GetRangeResponse{Consumed: consumed(), Rows: build(list...)})
	res, err := client.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: &tablestore.RangeRowQueryCriteria{
		TableName: "t", StartPrimaryKey: sdkKey(list[0].Key), EndPrimaryKey: sdkKey(list[0].Key), MaxVersion: 1,
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Rows) != len(list) {
		t.Fatalf("the SDK reads %d rows of %d", len(res.Rows), len(list))
	}
	for i, got := range res.Rows {
		want := &list[i]
		if len(got.PrimaryKey.PrimaryKeys) != len(want.Key) || len(got.Columns) != len(want.Cells) {
			t.Fatalf("row %d: the SDK reads %+v of %+v", i, got, want)
		}
		for j, k := range got.PrimaryKey.PrimaryKeys {
			if c := &want.Key[j]; k.ColumnName != string(c.Name) || !sameValue(k.Value, value(c)) {
				t.Errorf("row %d: the SDK reads the key column %+v of %+v", i, k, c)
			}
		}
		for j, k := range got.Columns {
			if c := &want.Cells[j]; k.ColumnName != string(c.Name) || k.Timestamp != c.Timestamp || !sameValue(k.Value, value(c)) {
				t.Errorf("row %d: the SDK reads the column %+v of %+v", i, k, c)
			}
		}
	}
}

// TestSDKReadsRecords: the official SDK reads records of a stream that we built.
func TestSDKReadsRecords(t *testing.T) {
	rng := plainbuffertest.Rand(t)
	var list []plainbuffer.Row
	var records []*otsprotocol.GetStreamRecordResponse_StreamRecord
	for range 500 {
		row := plainbuffertest.Row(rng)
		for i := range row.Cells {
			c := &row.Cells[i]
			switch rng.IntN(4) {
			case 0:
				*c = plainbuffer.Cell{Name: c.Name, Op: plainbuffer.DeleteAll}
			case 1:
				// The SDK tells this operation by its timestamp, which 0 is not.
				*c = plainbuffer.Cell{Name: c.Name, Op: plainbuffer.DeleteOne, HasTimestamp: true, Timestamp: c.Timestamp + 1}
			}
		}
		row.HasExtension = true
		row.Extension = plainbuffer.Extension{Epoch: int32(rng.Uint32()), Timestamp: rng.Int64(), RowIndex: int32(rng.Uint32())}
		list = append(list, row)
		records = append(records, &otsprotocol.GetStreamRecordResponse_StreamRecord{
			ActionType: otsprotocol.ActionType_UPDATE_ROW.Enum(), Record: build(row),
		})
	}
	client := sdkClient(&otsprotocol.GetStreamRecordResponse{StreamRecords: records})
	iterator := tablestore.ShardIterator("i")
	res, err := client.GetStreamRecord(&tablestore.GetStreamRecordRequest{ShardIterator: &iterator})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Records) != len(list) {
		t.Fatalf("the SDK reads %d records of %d", len(res.Records), len(list))
	}
	for i, got := range res.Records {
		want := &list[i]
		if info := (plainbuffer.Extension{Epoch: got.Info.Epoch, Timestamp: got.Info.Timestamp, RowIndex: got.Info.RowIndex}); info != want.Extension {
			t.Errorf("record %d: the SDK reads the extension %+v of %+v", i, info, want.Extension)
		}
		if len(got.Columns) != len(want.Cells) {
			t.Fatalf("record %d: the SDK reads %d columns of %d", i, len(got.Columns), len(want.Cells))
		}
		for j, k := range got.Columns {
			c := &want.Cells[j]
			kind := map[plainbuffer.Op]tablestore.RecordColumnType{
				plainbuffer.NoOp: tablestore.RCT_Put, plainbuffer.DeleteAll: tablestore.RCT_DeleteAllVersions, plainbuffer.DeleteOne: tablestore.RCT_DeleteOneVersion,
			}[c.Op]
			if *k.Name != string(c.Name) || k.Type != kind || c.HasTimestamp && *k.Timestamp != c.Timestamp || c.HasValue && !sameValue(k.Value, value(c)) {
				t.Errorf("record %d: the SDK reads the column %v of %+v", i, k, c)
			}
		}
	}
}

// sameValue compares values of the SDK's types, doubles bit by bit.
func sameValue(a, b any) bool {
	x, ok := a.(float64)
	if !ok {
		return reflect.DeepEqual(a, b)
	}
	y, ok := b.(float64)
	return ok && math.Float64bits(x) == math.Float64bits(y)
}

// TestSDKAcceptsWhatWeRefuse shows why rows are scanned here: the SDK takes a page with a
// wrong value.
func TestSDKAcceptsWhatWeRefuse(t *testing.T) {
	row := plainbuffer.Row{
		Key:   []plainbuffer.Cell{{Name: []byte("k"), HasValue: true, Type: plainbuffer.Integer, Data: make([]byte, 8)}},
		Cells: []plainbuffer.Cell{{Name: []byte("c"), HasValue: true, Type: plainbuffer.Integer, Data: binary.LittleEndian.AppendUint64(nil, 0x0102030405060708), HasTimestamp: true}},
	}
	block := build(row)
	block[bytes.Index(block, row.Cells[0].Data)] ^= 1
	client := sdkClient(&otsprotocol.GetRangeResponse{Consumed: consumed(), Rows: block})
	res, err := client.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: &tablestore.RangeRowQueryCriteria{
		TableName: "t", StartPrimaryKey: sdkKey(row.Key), EndPrimaryKey: sdkKey(row.Key), MaxVersion: 1,
	}})
	if err != nil || fmt.Sprint(res.Rows[0].Columns[0].Value) != fmt.Sprint(0x0102030405060709) {
		t.Errorf("the SDK has come to check: %v", err)
	}
	if _, err := rows(block); err == nil {
		t.Error("the scanner takes it too")
	}
}
