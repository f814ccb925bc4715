package ots_test

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// TestLimitsOfRows holds each limit of a row against every operation that takes one, at
// the limit and one beyond it.
func TestLimitsOfRows(t *testing.T) {
	t.Parallel()
	c := connect(otstest.Run(t, ots.Config{}))
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
	t.Parallel()
	s := otstest.Run(t, ots.Config{})
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
	t.Parallel()
	s := otstest.Run(t, ots.Config{})
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

// TestBrokenCells flips each bit of a put's row: none is accepted as another row.
func TestBrokenCells(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{})
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
	t.Parallel()
	c := connect(otstest.Run(t, ots.Config{}))
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
	t.Parallel()
	now := newClock(time.UnixMilli(1_700_000_000_000))
	s := otstest.Run(t, ots.Config{Now: now.now, Behavior: engine.Behavior{Capacity: engine.CapacityBehavior{Write: 10, Read: 3}}})
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

// TestLimitsOfTables holds each limit of a table, of its settings and of what a request
// may hold against the wire, at the limit and one beyond it.
func TestLimitsOfTables(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{})
	type request = otsprotocol.CreateTableRequest
	column := func(i int) *otsprotocol.PrimaryKeySchema {
		return &otsprotocol.PrimaryKeySchema{Name: proto.String(fmt.Sprint("pk", i)), Type: otsprotocol.PrimaryKeyType_STRING.Enum()}
	}
	key := func(n int) func(*request) {
		return func(r *request) {
			r.TableMeta.PrimaryKey = nil
			for i := range n {
				r.TableMeta.PrimaryKey = append(r.TableMeta.PrimaryKey, column(i))
			}
		}
	}
	name := func(n int) func(*request) {
		return func(r *request) { r.TableMeta.TableName = proto.String(strings.Repeat("n", n)) }
	}
	keyName := func(n int) func(*request) {
		return func(r *request) { r.TableMeta.PrimaryKey[0].Name = proto.String(strings.Repeat("n", n)) }
	}
	defined := func(n int) func(*request) {
		return func(r *request) {
			for i := range n {
				r.TableMeta.DefinedColumn = append(r.TableMeta.DefinedColumn, &otsprotocol.DefinedColumnSchema{Name: proto.String(fmt.Sprint("d", i)), Type: otsprotocol.DefinedColumnType_DCT_STRING.Enum()})
			}
		}
	}
	ttl := func(n int32) func(*request) {
		return func(r *request) { r.TableOptions.TimeToLive = &n }
	}
	versions := func(n int32) func(*request) {
		return func(r *request) { r.TableOptions.MaxVersions = &n }
	}
	deviation := func(n int64) func(*request) {
		return func(r *request) { r.TableOptions.DeviationCellVersionInSec = &n }
	}
	capacity := func(read, write int32) func(*request) {
		return func(r *request) {
			r.ReservedThroughput.CapacityUnit = &otsprotocol.CapacityUnit{Read: &read, Write: &write}
		}
	}
	stream := func(hours int32) func(*request) {
		return func(r *request) {
			r.StreamSpec = &otsprotocol.StreamSpecification{EnableStream: proto.Bool(true), ExpirationTime: &hours}
		}
	}
	const (
		keyCount = "The number of primary key columns must be in range: [1, 4]."
		window   = "The maximum deviation must be in range [0, INT64_MAX/1000000]."
		badTTL   = "TimeToLive cannot be 0 or less than -1."
		hours    = "Stream expiration time must be in range: [1, 168]."
	)
	for _, test := range []struct {
		name string
		in   func(*request)
		out  func(*request)
		text string
	}{
		{"name of a table", name(255), name(256), "Invalid table name: '" + strings.Repeat("n", 256) + "'."},
		{"name of no byte", name(1), name(0), "Invalid table name: ''."},
		{"name of a key's column", keyName(255), keyName(256), "Invalid column name: '" + strings.Repeat("n", 256) + "'."},
		{"columns of a key", key(4), key(5), keyCount},
		{"columns of no key", key(1), key(0), keyCount},
		{"defined columns", defined(32), defined(33), "The number of defined columns must be in range: [0, 32]."},
		{"least TTL", ttl(1), ttl(0), badTTL},
		{"no TTL", ttl(-1), ttl(-2), badTTL},
		{"versions", versions(1), versions(0), "The maximum versions cannot be less than or equal to 0."},
		{"most versions", versions(math.MaxInt32), versions(-1), "The maximum versions cannot be less than or equal to 0."},
		{"deviation", deviation(math.MaxInt64 / 1000000), deviation(math.MaxInt64/1000000 + 1), window},
		{"least deviation", deviation(0), deviation(-1), window},
		{"read units", capacity(100000, 0), capacity(100001, 0), "Read capacity unit must be in range: [0, 100000]."},
		{"write units", capacity(0, 100000), capacity(0, 100001), "Write capacity unit must be in range: [0, 100000]."},
		{"negative units", capacity(0, 0), capacity(0, -1), "Invalid Capacity Unit:-1. Capacity Unit must be nonnegative."},
		{"hours of a stream", stream(168), stream(169), hours},
		{"least hours of a stream", stream(1), stream(0), hours},
	} {
		t.Run(test.name, func(t *testing.T) {
			refusedWith(t, send(t, s, "CreateTable", creation("t", test.out), nil), badParameter, test.text)
			r := creation("t", test.in)
			if err := send(t, s, "CreateTable", r, nil); err != nil {
				t.Fatalf("at the limit: %v", err)
			}
			if err := send(t, s, "DeleteTable", &otsprotocol.DeleteTableRequest{TableName: r.TableMeta.TableName}, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSizesOfRequests holds the bytes of writes and of requests against their limits.
func TestSizesOfRequests(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	create(t, c, tablestore.TableOption{DeviationCellVersionInSec: anyTime}, text)
	// Two names of one byte, two timestamps, and the key beside the values.
	values := func(total int) []cell {
		rest := total - len("pk1") - len("a") - 2*(1+8)
		return []cell{{"c", strings.Repeat("v", 2<<20), 1}, {"d", strings.Repeat("v", rest-2<<20), 1}}
	}
	const most = 4 << 20
	for op, write := range map[string]func(cells []cell) error{
		"PutRow":    func(cells []cell) error { return put(c, key("a"), cells...) },
		"UpdateRow": func(cells []cell) error { return update(c, key("a"), cells...) },
	} {
		t.Run(op, func(t *testing.T) {
			ok(t, write(values(most)))
			want(t, write(values(most+1)), 400, badParameter, fmt.Sprintf("The total data size of %s request exceeds the limit, limit size: 4194304, data size: 4194305.", op))
		})
	}
	for size, code := range map[int]string{5 << 20: badParameter, 5<<20 + 1: "OTSRequestBodyTooLarge"} {
		t.Run(fmt.Sprint(size, " bytes"), func(t *testing.T) {
			res, err := http.DefaultClient.Do(requestBytes(t, s.URL(), "PutRow", make([]byte, size)))
			ok(t, err)
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			ok(t, err)
			var got otsprotocol.Error
			ok(t, proto.Unmarshal(body, &got))
			if got.GetCode() != code {
				t.Errorf("the answer is %v, want %s", &got, code)
			}
			if code == badParameter {
				return
			}
			if res.StatusCode != 413 || got.GetMessage() != "The size of POST data is too large." {
				t.Errorf("the answer is %d %v", res.StatusCode, &got)
			}
		})
	}
}

// TestTableOperations holds the number of operations on tables in a second against the
// limit.
func TestTableOperations(t *testing.T) {
	t.Parallel()
	now := newClock(time.UnixMilli(1_700_000_000_000))
	s := otstest.Run(t, ots.Config{Now: now.now, Behavior: engine.Behavior{Tables: engine.TableBehavior{Operations: 10}}})
	c := connect(s)
	for second := range 2 {
		for i := range 10 {
			if _, err := c.ListTable(); err != nil {
				t.Fatalf("operation %d of second %d: %v", i, second, err)
			}
			now.advance(50 * time.Millisecond)
		}
		_, err := c.ListTable()
		want(t, err, 403, "OTSQuotaExhausted", "Too frequent table operations.")
		now.advance(time.Second)
	}
}

// TestUnitsAtTheirEdges proves at which byte another capacity unit begins: a unit is 4
// KiB of names and values, and of eight bytes for each version where the table keeps
// several or lets them expire.
func TestUnitsAtTheirEdges(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		options tablestore.TableOption
		version int // bytes of a version where rows are kept
	}{
		"one version":      {tablestore.TableOption{}, 0},
		"several versions": {tablestore.TableOption{MaxVersion: 2}, 8},
		"a TTL":            {tablestore.TableOption{TimeToAlive: 86400}, 8},
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(otstest.Run(t, ots.Config{}))
			create(t, c, test.options, text)
			// A row of so many bytes: pk1, its value, c, its value, a version.
			row := func(name string, size int) *tablestore.PutRowChange {
				return putChange(key(name), cell{"c", strings.Repeat("v", size-len("pk1")-len(name)-len("c")-test.version), -1})
			}
			for size, units := range map[int]int32{100: 1, 4096: 1, 4097: 2, 8192: 2, 8193: 3} {
				res, err := c.PutRow(&tablestore.PutRowRequest{PutRowChange: row("a", size)})
				ok(t, err)
				if got := res.ConsumedCapacityUnit; got.Write != units || got.Read != 0 {
					t.Errorf("to put %d bytes costs %+v, want %d written", size, got, units)
				}
			}
			batch := &tablestore.BatchWriteRowRequest{}
			batch.AddRowChange(row("a", 4097))
			batch.AddRowChange(row("b", 50))
			batch.AddRowChange(deleteChange(key("c")))
			res, err := c.BatchWriteRow(batch)
			ok(t, err)
			var costs []int32
			for _, r := range res.TableToRowsResult["t"] {
				costs = append(costs, r.ConsumedCapacityUnit.Write)
			}
			equal(t, "units of a batch's rows", costs, []int32{2, 1, 1})
			// A range counts its rows together, and what it reads: names and
			// values.
			total := 4097 + 50 - 2*test.version
			for extra, units := range map[int]int32{4096*2 - total: 2, 4096*2 - total + 1: 3} {
				ok(t, put(c, key("c"), cell{"c", strings.Repeat("v", extra-5), -1}))
				if got := page(t, c, key(lowest), key(highest)).ConsumedCapacityUnit; got.Read != units || got.Write != 0 {
					t.Errorf("a range of %d bytes costs %+v, want %d read", total+extra, got, units)
				}
			}
		})
	}
}
