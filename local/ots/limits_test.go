package ots_test

import (
	"fmt"
	"math"
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

// TestLimitsOfRows holds each limit of a row against every operation that takes
// one, at the limit and one beyond it.
func TestLimitsOfRows(t *testing.T) {
	c := connect(start(t, ots.Config{}))
	create(t, c, tablestore.TableOption{MaxVersion: 5, DeviationCellVersionInSec: anyTime}, text)
	columns := func(n int) (cells []cell) {
		for i := range n {
			cells = append(cells, cell{fmt.Sprintf("c%04d", i), int64(i), 1})
		}
		return cells
	}
	const columnCount = "The number of attribute columns exceeds the limit, limit count: 1024, column count: 1025."
	for _, test := range []struct {
		name  string
		key   string
		cells []cell
		text  string // "" for none
	}{
		{"longest key", strings.Repeat("k", 1024), []cell{{"c", "v", 1}}, ""},
		{"longer key", strings.Repeat("k", 1025), []cell{{"c", "v", 1}}, "The length of primary key column: 'pk1' exceeds the MaxLength:1024 with CurrentLength:1025."},
		{"longest string", "a", []cell{{"c", strings.Repeat("v", 2<<20), 1}}, ""},
		{"longer string", "a", []cell{{"attr", strings.Repeat("v", 2<<20+1), 1}}, "The length of attribute column: 'attr' exceeds the MaxLength:2097152 with CurrentLength:2097153."},
		{"longest blob", "a", []cell{{"c", make([]byte, 2<<20), 1}}, ""},
		{"longer blob", "a", []cell{{"attr", make([]byte, 2<<20+1), 1}}, "The length of attribute column: 'attr' exceeds the MaxLength:2097152 with CurrentLength:2097153."},
		{"most columns", "a", columns(1024), ""},
		{"more columns", "a", columns(1025), columnCount},
		{"longest name", "a", []cell{{strings.Repeat("n", 255), "v", 1}}, ""},
		{"longer name", "a", []cell{{strings.Repeat("n", 256), "v", 1}}, "Invalid column name: '" + strings.Repeat("n", 256) + "'."},
		{"number sign", "a", []cell{{"#abc", "v", 1}}, "Invalid column name: '#abc'."},
		{"unusual names", "a", []cell{{"\n", "v", 1}, {".abc", "v", 1}, {"公司", "v", 1}}, ""},
		{"key's name", "a", []cell{{"pk1", "v", 1}}, "Duplicated attribute column name with primary key column: 'pk1' while OP row."},
		{"not a number", "a", []cell{{"c", math.NaN(), 1}}, "NaN can't be set to double value."},
		{"latest time", "a", []cell{{"c", "v", math.MaxInt64/1000 - 1}}, ""},
		{"later time", "a", []cell{{"c", "v", math.MaxInt64 / 1000}}, "Timestamp must be in range [0, INT64_MAX/1000)."},
	} {
		t.Run(test.name, func(t *testing.T) {
			check := func(err error, doing string) {
				t.Helper()
				if test.text == "" {
					ok(t, err)
				} else {
					want(t, err, 400, badParameter, strings.ReplaceAll(test.text, "OP", doing))
				}
			}
			check(put(c, key(test.key), test.cells...), "putting")
			check(update(c, key(test.key), test.cells...), "updating")
			for doing, change := range map[string]tablestore.RowChange{"putting": putChange(key(test.key), test.cells...), "updating": updateChange(key(test.key), test.cells...)} {
				batch := &tablestore.BatchWriteRowRequest{}
				batch.AddRowChange(change)
				_, err := c.BatchWriteRow(batch)
				check(err, doing)
			}
			if test.text == "" {
				if got, _ := get(t, c, key(test.key)); len(got) != len(test.cells) {
					t.Errorf("%d cells are read, want %d", len(got), len(test.cells))
				}
				return
			}
			if strings.HasPrefix(test.text, "The length of primary key") {
				check(remove(c, key(test.key)), "")
				_, err := tryPage(c, key(test.key), key(highest))
				check(err, "")
			}
			if _, found := get(t, c, key("a")); found && test.key == "a" {
				ok(t, remove(c, key("a")))
			}
		})
	}
	ok(t, remove(c, key("a")))
	ok(t, update(c, key("a"), columns(1024)...))
	more := columns(2048)[1024:]
	ok(t, update(c, key("a"), more...))
	if got, _ := get(t, c, key("a")); len(got) != 2048 {
		t.Errorf("a row that grew has %d cells", len(got))
	}
}

func TestInfinitiesInKeys(t *testing.T) {
	s := start(t, ots.Config{})
	c := connect(s)
	create(t, c, tablestore.TableOption{}, text)
	for b, text := range map[bound]string{lowest: "VT_INF_MIN is an invalid type for the primary key.", highest: "VT_INF_MAX is an invalid type for the primary key."} {
		// In puts the SDK would send the placeholder of a key to be made.
		condition := &otsprotocol.Condition{RowExistence: otsprotocol.RowExistenceExpectation_IGNORE.Enum()}
		for op, m := range map[string]proto.Message{
			"PutRow":    &otsprotocol.PutRowRequest{TableName: proto.String("t"), Row: key(b).Build(false), Condition: condition},
			"UpdateRow": &otsprotocol.UpdateRowRequest{TableName: proto.String("t"), RowChange: key(b).Build(false), Condition: condition},
		} {
			if err := send(t, s, op, m, nil); err.GetCode() != badParameter || err.GetMessage() != text {
				t.Errorf("%s is answered %v", op, err)
			}
		}
		want(t, remove(c, key(b)), 400, badParameter, text)
		_, err := c.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: &tablestore.SingleRowQueryCriteria{TableName: "t", PrimaryKey: key(b), MaxVersion: 1}})
		want(t, err, 400, badParameter, text)
	}
}

func TestLimitsOfBatches(t *testing.T) {
	s := start(t, ots.Config{})
	c := connect(s)
	create(t, c, tablestore.TableOption{}, text)
	write := func(changes ...tablestore.RowChange) error {
		batch := &tablestore.BatchWriteRowRequest{}
		for _, x := range changes {
			batch.AddRowChange(x)
		}
		res, err := c.BatchWriteRow(batch)
		if err == nil {
			for _, r := range res.TableToRowsResult["t"] {
				if !r.IsSucceed {
					return fmt.Errorf("row: %s", r.Error.Message)
				}
			}
		}
		return err
	}
	var rows []tablestore.RowChange
	for i := range 201 {
		rows = append(rows, putChange(key(fmt.Sprint(i)), cell{"c", "v", -1}))
	}
	ok(t, write(rows[:200]...))
	want(t, write(rows...), 400, badParameter, "Rows count exceeds the upper limit: 200.")

	// A row counts the bytes of its names and values, and eight for a
	// timestamp that is given.
	now := time.Now().UnixMilli()
	sized := func(n, size int) tablestore.RowChange {
		return putChange(key(fmt.Sprintf("%0100d", n)), cell{strings.Repeat("n", 50), strings.Repeat("v", size-3-100-50-8), now})
	}
	exactly := []tablestore.RowChange{sized(0, 1<<20), sized(1, 1<<20), sized(2, 1<<20), sized(3, 1<<20)}
	ok(t, write(exactly...))
	exactly[3] = sized(3, 1<<20+1)
	want(t, write(exactly...), 400, badParameter, "The total data size of BatchWriteRow request exceeds the limit, limit size: 4194304, data size: 4194305.")

	reads := &tablestore.MultiRowQueryCriteria{TableName: "t", MaxVersion: 1}
	for i := range 101 {
		reads.AddRow(key(fmt.Sprint(i)))
	}
	_, err := c.BatchGetRow(&tablestore.BatchGetRowRequest{MultiRowQueryCriteria: []*tablestore.MultiRowQueryCriteria{reads}})
	want(t, err, 400, badParameter, "Rows count exceeds the upper limit: 100.")

	table := func(rows ...*otsprotocol.RowInBatchWriteRowRequest) *otsprotocol.TableInBatchWriteRowRequest {
		return &otsprotocol.TableInBatchWriteRowRequest{TableName: proto.String("t"), Rows: rows}
	}
	row := &otsprotocol.RowInBatchWriteRowRequest{
		Type:      otsprotocol.OperationType_PUT.Enum(),
		RowChange: block([]plainbuffer.Cell{keyCell("pk1", "a")}),
		Condition: &otsprotocol.Condition{RowExistence: otsprotocol.RowExistenceExpectation_IGNORE.Enum()},
	}
	for _, test := range []struct {
		name string
		op   string
		m    proto.Message
		text string
	}{
		{"no table", "BatchWriteRow", &otsprotocol.BatchWriteRowRequest{}, "No row is specified in BatchWriteRow."},
		{"no row", "BatchWriteRow", &otsprotocol.BatchWriteRowRequest{Tables: []*otsprotocol.TableInBatchWriteRowRequest{table()}}, "No operation is specified for table: 't'."},
		{"a table twice", "BatchWriteRow", &otsprotocol.BatchWriteRowRequest{Tables: []*otsprotocol.TableInBatchWriteRowRequest{table(row), table(row)}}, "Duplicated table name: 't'."},
		{"no read", "BatchGetRow", &otsprotocol.BatchGetRowRequest{}, "No row specified in the request of BatchGetRow."},
		{"no versions", "BatchGetRow", &otsprotocol.BatchGetRowRequest{Tables: []*otsprotocol.TableInBatchGetRowRequest{{TableName: proto.String("t"), PrimaryKey: [][]byte{row.RowChange}}}}, "No version condition is specified while querying row."},
		{"no versions of a row", "GetRow", &otsprotocol.GetRowRequest{TableName: proto.String("t"), PrimaryKey: row.RowChange}, "No version condition is specified."},
		{"limit 0", "GetRange", &otsprotocol.GetRangeRequest{TableName: proto.String("t"), Direction: otsprotocol.Direction_FORWARD.Enum(), MaxVersions: proto.Int32(1), Limit: proto.Int32(0),
			InclusiveStartPrimaryKey: key(lowest).Build(false), ExclusiveEndPrimaryKey: key(highest).Build(false)}, "The limit must be greater than 0."},
		{"matrix of no column", "GetRange", &otsprotocol.GetRangeRequest{TableName: proto.String("t"), Direction: otsprotocol.Direction_FORWARD.Enum(), MaxVersions: proto.Int32(1),
			DataBlockTypeHint:        otsprotocol.DataBlockType_DBT_SIMPLE_ROW_MATRIX.Enum(),
			InclusiveStartPrimaryKey: key(lowest).Build(false), ExclusiveEndPrimaryKey: key(highest).Build(false)}, "DBT_SIMPLE_ROW_MATRIX need at least one column to get."},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := send(t, s, test.op, test.m, nil)
			if err.GetCode() != badParameter || err.GetMessage() != test.text {
				t.Errorf("error %v, want %q", err, test.text)
			}
		})
	}
}

// TestBrokenCells flips each bit of a put's row: none is accepted as another
// row.
func TestBrokenCells(t *testing.T) {
	s := start(t, ots.Config{})
	create(t, connect(s), tablestore.TableOption{DeviationCellVersionInSec: anyTime}, text)
	good := block([]plainbuffer.Cell{keyCell("pk1", "a")}, plainbuffer.Cell{Name: []byte("c"), Type: plainbuffer.String, Data: []byte("value"), HasValue: true, Timestamp: 5, HasTimestamp: true})
	flips := 0
	for i := range good {
		for bit := range 8 {
			bad := append([]byte(nil), good...)
			bad[i] ^= 1 << bit
			err := send(t, s, "PutRow", &otsprotocol.PutRowRequest{
				TableName: proto.String("t"), Row: bad,
				Condition: &otsprotocol.Condition{RowExistence: otsprotocol.RowExistenceExpectation_IGNORE.Enum()},
			}, nil)
			if err == nil {
				t.Errorf("bit %d of byte %d can be flipped", bit, i)
			}
			flips++
		}
	}
	if flips == 0 {
		t.Fatal("no bit was flipped")
	}
}

// TestConsumed proves what operations cost.
func TestConsumed(t *testing.T) {
	c := connect(start(t, ots.Config{}))
	create(t, c, tablestore.TableOption{}, text)
	cost := func(u *tablestore.ConsumedCapacityUnit) [2]int { return [2]int{int(u.Read), int(u.Write)} }
	big := strings.Repeat("v", 4096)
	puts, err := c.PutRow(&tablestore.PutRowRequest{PutRowChange: putChange(key("a"), cell{"c", big, -1})})
	ok(t, err)
	got := [][2]int{cost(puts.ConsumedCapacityUnit)}
	conditional := putChange(key("a"), cell{"c", "v", -1})
	conditional.SetCondition(exist)
	puts, err = c.PutRow(&tablestore.PutRowRequest{PutRowChange: conditional})
	ok(t, err)
	got = append(got, cost(puts.ConsumedCapacityUnit))
	updates, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: updateChange(key("a"), cell{"d", big, -1})})
	ok(t, err)
	got = append(got, cost(updates.ConsumedCapacityUnit))
	reads, err := c.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: &tablestore.SingleRowQueryCriteria{TableName: "t", PrimaryKey: key("a"), MaxVersion: 1}})
	ok(t, err)
	got = append(got, cost(reads.ConsumedCapacityUnit))
	reads, err = c.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: &tablestore.SingleRowQueryCriteria{TableName: "t", PrimaryKey: key("none"), MaxVersion: 1}})
	ok(t, err)
	got = append(got, cost(reads.ConsumedCapacityUnit))
	deletes, err := c.DeleteRow(&tablestore.DeleteRowRequest{DeleteRowChange: deleteChange(key("a"))})
	ok(t, err)
	got = append(got, cost(deletes.ConsumedCapacityUnit))
	equal(t, "units", got, [][2]int{{0, 2}, {1, 1}, {0, 2}, {2, 0}, {1, 0}, {0, 1}})

	for i := range 10 {
		ok(t, put(c, key(fmt.Sprint(i)), cell{"c", strings.Repeat("v", 400), -1}))
	}
	// Ten rows of 3+1+1+400 bytes are under 4 KiB; rows that a filter drops
	// cost as much.
	f := tablestore.NewSingleColumnCondition("c", tablestore.CT_EQUAL, "never")
	for _, with := range []func(*tablestore.RangeRowQueryCriteria){
		func(*tablestore.RangeRowQueryCriteria) {},
		func(q *tablestore.RangeRowQueryCriteria) { q.Filter = f },
	} {
		if got := page(t, c, key(lowest), key(highest), with).ConsumedCapacityUnit.Read; got != 1 {
			t.Errorf("a range costs %d", got)
		}
	}
}

func TestThrottling(t *testing.T) {
	now := newClock(time.UnixMilli(1_700_000_000_000))
	s := start(t, ots.Config{Now: now.now, Behavior: engine.Behavior{WriteCapacity: 10, ReadCapacity: 3}})
	c := connect(s)
	create(t, c, tablestore.TableOption{}, text)
	const text = "Remaining capacity unit is not enough."
	writes := 0
	for put(c, key("a"), cell{"c", "v", -1}) == nil {
		if writes++; writes > 100 {
			break
		}
	}
	if writes != 10 {
		t.Errorf("%d writes in a second, want 10", writes)
	}
	want(t, put(c, key("a")), 403, "OTSNotEnoughCapacityUnit", text)
	batch := &tablestore.BatchWriteRowRequest{}
	batch.AddRowChange(putChange(key("a")))
	res, err := c.BatchWriteRow(batch)
	ok(t, err)
	if r := res.TableToRowsResult["t"][0]; r.IsSucceed || r.Error.Code != "OTSNotEnoughCapacityUnit" {
		t.Errorf("a row of a batch is answered %+v", r)
	}
	for range 3 {
		page(t, c, key(lowest), key(highest))
	}
	_, err = tryPage(c, key(lowest), key(highest))
	want(t, err, 403, "OTSNotEnoughCapacityUnit", text)
	now.advance(500 * time.Millisecond)
	ok(t, put(c, key("a"), cell{"c", "v", -1}))
	page(t, c, key(lowest), key(highest))
}
