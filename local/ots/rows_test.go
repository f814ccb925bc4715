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
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

const (
	text    = tablestore.PrimaryKeyType_STRING
	integer = tablestore.PrimaryKeyType_INTEGER
	binary  = tablestore.PrimaryKeyType_BINARY
)

// TestCellsOfARow writes every type of value and reads it back.
func TestCellsOfARow(t *testing.T) {
	t.Parallel()
	c := connect(otstest.Run(t, ots.Config{}))
	create(t, c, tablestore.TableOption{MaxVersion: 3, DeviationCellVersionInSec: anyTime}, text, integer, binary)
	pk := key("", int64(math.MinInt64), []byte{0, 255})
	cells := []cell{
		{"", nil, 0}, {"binary", []byte{0, 1, 255}, 7}, {"bool", true, 0}, {"double", -0.5, 1}, {"empty", "", 1},
		{"int", int64(math.MaxInt64), 9}, {"text", "x\x00y", 9}, {"公司", "new\nline", 9},
	}[1:]
	ok(t, update(c, pk, cells...))
	got, found := get(t, c, pk)
	if !found {
		t.Fatal("no row")
	}
	equal(t, "cells", got, cells)

	// A put takes every former column and version with it, whatever their
	// timestamps.
	ok(t, put(c, pk, cell{"int", int64(1), 2}))
	got, _ = get(t, c, pk)
	equal(t, "cells after a put", got, []cell{{"int", int64(1), 2}})
}

func TestVersions(t *testing.T) {
	t.Parallel()
	c := connect(otstest.Run(t, ots.Config{}))
	create(t, c, tablestore.TableOption{MaxVersion: 3, DeviationCellVersionInSec: anyTime}, text)
	pk := key("a")
	ok(t, update(c, pk, cell{"c", "0", 0}, cell{"c", "3", 3}, cell{"c", "1", 1}, cell{"c", "2", 2}, cell{"b", "x", 5}))
	got, _ := get(t, c, pk)
	equal(t, "names ascend, timestamps descend, three are kept", got,
		[]cell{{"b", "x", 5}, {"c", "3", 3}, {"c", "2", 2}, {"c", "1", 1}})

	ok(t, update(c, pk, cell{"c", "again", 2}))
	got, _ = get(t, c, pk)
	equal(t, "the same timestamp is the same version", got,
		[]cell{{"b", "x", 5}, {"c", "3", 3}, {"c", "again", 2}, {"c", "1", 1}})

	got, _ = get(t, c, pk, func(q *tablestore.SingleRowQueryCriteria) { q.MaxVersion = 1 })
	equal(t, "the newest", got, []cell{{"b", "x", 5}, {"c", "3", 3}})

	inRange := func(q *tablestore.SingleRowQueryCriteria) {
		q.MaxVersion, q.TimeRange = 0, &tablestore.TimeRange{Start: 1, End: 3}
	}
	got, _ = get(t, c, pk, inRange)
	equal(t, "from 1 to below 3", got, []cell{{"c", "again", 2}, {"c", "1", 1}})
	got, _ = get(t, c, pk, inRange, func(q *tablestore.SingleRowQueryCriteria) { q.MaxVersion = 1 })
	equal(t, "the newest of those", got, []cell{{"c", "again", 2}})
	got, found := get(t, c, pk, func(q *tablestore.SingleRowQueryCriteria) {
		q.MaxVersion, q.TimeRange = 0, &tablestore.TimeRange{Start: 100, End: 200}
	})
	if !found || got != nil {
		t.Errorf("a row with no version in the range = %v, %v, want its key alone", got, found)
	}

	// Lowering MaxVersions hides at once; raising it shows what was not
	// dropped by a write meanwhile.
	option := &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1, DeviationCellVersionInSec: anyTime}
	_, err := c.UpdateTable(&tablestore.UpdateTableRequest{TableName: "t", TableOption: option})
	ok(t, err)
	got, _ = get(t, c, pk)
	equal(t, "with MaxVersions 1", got, []cell{{"b", "x", 5}, {"c", "3", 3}})
	if rows := page(t, c, key(lowest), key(highest)).Rows; len(rows) != 1 || len(rows[0].Columns) != 2 {
		t.Errorf("a range shows %d rows", len(rows))
	}
	option.MaxVersion = 2
	_, err = c.UpdateTable(&tablestore.UpdateTableRequest{TableName: "t", TableOption: option})
	ok(t, err)
	got, _ = get(t, c, pk)
	equal(t, "with MaxVersions 2", got, []cell{{"b", "x", 5}, {"c", "3", 3}, {"c", "again", 2}})
}

// TestDeletesActByArrival proves that a delete hides nothing that is written after it,
// whatever the timestamps.
func TestDeletesActByArrival(t *testing.T) {
	t.Parallel()
	c := connect(otstest.Run(t, ots.Config{}))
	create(t, c, tablestore.TableOption{MaxVersion: 3, DeviationCellVersionInSec: anyTime}, text)
	pk := key("a")
	full := []cell{{"c", "1", 1}, {"c", "0", 0}, {"d", "1", 1}, {"d", "0", 0}}
	steps := []struct {
		name string
		do   func() error
		want []cell
	}{
		{"write", func() error { return update(c, pk, full...) }, full},
		{"delete version 0", func() error { return update(c, pk, cell{"c", deleteOne, 0}) }, []cell{{"c", "1", 1}, {"d", "1", 1}, {"d", "0", 0}}},
		{"delete a version that is not there", func() error { return update(c, pk, cell{"c", deleteOne, 77}) }, []cell{{"c", "1", 1}, {"d", "1", 1}, {"d", "0", 0}}},
		{"write it back", func() error { return update(c, pk, cell{"c", "0", 0}) }, full},
		{"delete a column", func() error { return update(c, pk, cell{"d", deleteAll, 0}) }, []cell{{"c", "1", 1}, {"c", "0", 0}}},
		{"write an old version of it", func() error { return update(c, pk, cell{"d", "0", 0}) }, []cell{{"c", "1", 1}, {"c", "0", 0}, {"d", "0", 0}}},
		{"delete and write in one", func() error { return update(c, pk, cell{"c", deleteAll, 0}, cell{"c", "new", 0}) }, []cell{{"c", "new", 0}, {"d", "0", 0}}},
		{"delete the row", func() error { return remove(c, pk) }, nil},
		{"write an old version", func() error { return update(c, pk, cell{"c", "0", 0}) }, []cell{{"c", "0", 0}}},
	}
	for _, s := range steps {
		ok(t, s.do())
		got, _ := get(t, c, pk)
		equal(t, s.name, got, s.want)
	}
}

func TestEmptyRows(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	create(t, c, tablestore.TableOption{DeviationCellVersionInSec: anyTime}, text)
	found := func(pk *tablestore.PrimaryKey) bool {
		_, there := get(t, c, pk)
		return there
	}
	ok(t, put(c, key("a")))
	if !found(key("a")) {
		t.Error("a put of a key alone makes no row")
	}
	ok(t, update(c, key("b"), cell{"c", "v", 1}))
	ok(t, update(c, key("b"), cell{"c", deleteAll, 0}))
	if !found(key("b")) {
		t.Error("a row goes with its last column")
	}
	ok(t, update(c, key("c"), cell{"c", deleteAll, 0}))
	if found(key("c")) {
		t.Error("an update that only deletes makes a row")
	}
	if got := keysOf(page(t, c, key(lowest), key(highest)).Rows); got != "a b" {
		t.Errorf("the range has %q", got)
	}
	ok(t, remove(c, key("a")))
	if found(key("a")) {
		t.Error("an empty row is not deleted")
	}

	s.Engine().SetBehavior(engine.Behavior{Writes: engine.WriteBehavior{RefuseEmptyPut: true}})
	want(t, put(c, key("d")), 400, badParameter, "Attribute column is missing.")
	batch := &tablestore.BatchWriteRowRequest{}
	batch.AddRowChange(putChange(key("d")))
	_, err := c.BatchWriteRow(batch)
	want(t, err, 400, badParameter, "Attribute column is missing.")
}

func TestTimestampWindow(t *testing.T) {
	t.Parallel()
	now := newClock(time.UnixMilli(1_700_000_000_123))
	s := otstest.Run(t, ots.Config{Now: now.now})
	c := connect(s)
	create(t, c, tablestore.TableOption{MaxVersion: 10}, text)
	const day = 86_400_000
	at := now.millis()
	outside := func(ts, low, high int64) string {
		return fmt.Sprintf("Invalid timestamp. Cell:c. Timestamp:%d. MinTimestamp:%d. MaxTimestamp:%d.", ts, low, high)
	}
	ok(t, put(c, key("a"), cell{"c", "v", at - day}))
	ok(t, put(c, key("a"), cell{"c", "v", at + day - 1}))
	want(t, put(c, key("a"), cell{"c", "v", at - day - 1}), 400, badParameter, outside(at-day-1, at-day, at+day))
	want(t, put(c, key("a"), cell{"c", "v", at + day}), 400, badParameter, outside(at+day, at-day, at+day))
	want(t, update(c, key("a"), cell{"c", "v", 1}), 400, badParameter, outside(1, at-day, at+day))

	// In a batch the row is refused alone.
	batch := &tablestore.BatchWriteRowRequest{}
	batch.AddRowChange(putChange(key("x"), cell{"c", "v", 1}))
	batch.AddRowChange(putChange(key("y"), cell{"c", "v", at}))
	res, err := c.BatchWriteRow(batch)
	ok(t, err)
	rows := res.TableToRowsResult["t"]
	if rows[0].IsSucceed || rows[0].Error.Code != badParameter || rows[0].Error.Message != outside(1, at-day, at+day) || !rows[1].IsSucceed {
		t.Errorf("rows %+v", rows)
	}

	// TTL narrows the window, a great deviation opens it.
	option := &tablestore.TableOption{TimeToAlive: 3600, MaxVersion: 10, DeviationCellVersionInSec: 86400}
	set := func() {
		_, err := c.UpdateTable(&tablestore.UpdateTableRequest{TableName: "t", TableOption: option})
		ok(t, err)
	}
	set()
	want(t, put(c, key("a"), cell{"c", "v", at - 3_600_001}), 400, badParameter, outside(at-3_600_001, at-3_600_000, at+day))
	option.TimeToAlive, option.DeviationCellVersionInSec = -1, anyTime
	set()
	for _, ts := range []int64{0, 1, at, math.MaxInt64/1000 - 1} {
		ok(t, update(c, key("b"), cell{"c", "v", ts}))
	}
	got, _ := get(t, c, key("b"))
	if len(got) != 4 {
		t.Errorf("%d versions", len(got))
	}
	want(t, update(c, key("b"), cell{"c", "v", math.MaxInt64 / 1000}), 400, badParameter, "Timestamp must be in range [0, INT64_MAX/1000).")

	// With the switch, a change of the options takes its time.
	s.Engine().SetBehavior(engine.Behavior{Tables: engine.TableBehavior{OptionsDelay: time.Minute}})
	option.DeviationCellVersionInSec = 100
	set()
	ok(t, put(c, key("a"), cell{"c", "v", 1}))
	now.advance(time.Minute)
	if err := put(c, key("a"), cell{"c", "v", 1}); err == nil {
		t.Error("the option is not in force after its delay")
	}
}

func TestTTL(t *testing.T) {
	t.Parallel()
	for _, hide := range []bool{false, true} {
		t.Run(fmt.Sprintf("hide rows %v", hide), func(t *testing.T) {
			now := newClock(time.UnixMilli(1_700_000_000_000))
			s := otstest.Run(t, ots.Config{Now: now.now, Behavior: engine.Behavior{Reads: engine.ReadBehavior{HideExpiredRows: hide}}})
			c := connect(s)
			create(t, c, tablestore.TableOption{MaxVersion: 5, TimeToAlive: 100}, text)
			at := now.millis()
			ok(t, put(c, key("a"), cell{"c", "old", at - 50_000}, cell{"c", "new", at}))
			ok(t, put(c, key("b"), cell{"c", "old", at - 50_000}))
			ok(t, put(c, key("e")))
			now.advance(50 * time.Second)
			got, _ := get(t, c, key("a"))
			equal(t, "at the edge", got, []cell{{"c", "new", at}, {"c", "old", at - 50_000}})
			now.advance(time.Second)
			got, _ = get(t, c, key("a"))
			equal(t, "after it", got, []cell{{"c", "new", at}})
			_, found := get(t, c, key("b"))
			if found == hide {
				t.Errorf("a row whose cells have expired is visible: %v", found)
			}
			rows := "a b e"
			if hide {
				rows = "a e"
			}
			if got := keysOf(page(t, c, key(lowest), key(highest)).Rows); got != rows {
				t.Errorf("the range has %q, want %q", got, rows)
			}
			// Existence is what a read shows.
			change := putChange(key("b"), cell{"c", "v", -1})
			change.SetCondition(absent)
			_, err := c.PutRow(&tablestore.PutRowRequest{PutRowChange: change})
			if (err == nil) != hide {
				t.Errorf("a put that expects no row: %v", err)
			}
			// A longer TTL shows what is still there.
			_, err = c.UpdateTable(&tablestore.UpdateTableRequest{TableName: "t", TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 5}})
			ok(t, err)
			got, _ = get(t, c, key("a"))
			equal(t, "without a TTL", got, []cell{{"c", "new", at}, {"c", "old", at - 50_000}})
		})
	}
}

func TestConditions(t *testing.T) {
	t.Parallel()
	c := connect(otstest.Run(t, ots.Config{}))
	create(t, c, tablestore.TableOption{MaxVersion: 3, DeviationCellVersionInSec: anyTime}, text)
	value := func(name string, op tablestore.ComparatorType, v any) *tablestore.SingleColumnCondition {
		return tablestore.NewSingleColumnCondition(name, op, v)
	}
	missing := value("none", tablestore.CT_EQUAL, "v")
	drop := value("none", tablestore.CT_EQUAL, "v")
	drop.FilterIfMissing = true
	older := value("n", tablestore.CT_EQUAL, int64(1))
	latest := value("n", tablestore.CT_EQUAL, int64(1))
	latest.LatestVersionOnly = true
	not := tablestore.NewCompositeColumnCondition(tablestore.LO_NOT)
	not.AddFilter(value("s", tablestore.CT_EQUAL, "b"))
	and := tablestore.NewCompositeColumnCondition(tablestore.LO_AND)
	and.AddFilter(value("s", tablestore.CT_EQUAL, "b"))
	and.AddFilter(value("n", tablestore.CT_GREATER_THAN, int64(5)))
	or := tablestore.NewCompositeColumnCondition(tablestore.LO_OR)
	or.AddFilter(value("s", tablestore.CT_EQUAL, "b"))
	or.AddFilter(value("n", tablestore.CT_GREATER_THAN, int64(5)))
	regex := value("t", tablestore.CT_GREATER_EQUAL, int64(42))
	regex.TransferRule = &tablestore.ValueTransferRule{Regex: `n=(\d+)`, Cast_type: tablestore.Variant_INTEGER}
	regexNo := value("t", tablestore.CT_GREATER_THAN, int64(42))
	regexNo.TransferRule = regex.TransferRule

	for _, test := range []struct {
		name   string
		filter tablestore.ColumnFilter
		match  bool
	}{
		{"equal", value("s", tablestore.CT_EQUAL, "b"), true},
		{"not equal", value("s", tablestore.CT_NOT_EQUAL, "b"), false},
		{"greater", value("s", tablestore.CT_GREATER_THAN, "a"), true},
		{"greater or equal", value("s", tablestore.CT_GREATER_EQUAL, "b"), true},
		{"less", value("s", tablestore.CT_LESS_THAN, "b"), false},
		{"less or equal", value("s", tablestore.CT_LESS_EQUAL, "b"), true},
		{"integers by sign", value("negative", tablestore.CT_LESS_THAN, int64(0)), true},
		{"doubles", value("d", tablestore.CT_GREATER_THAN, 1.25), true},
		{"booleans", value("bool", tablestore.CT_EQUAL, true), true},
		{"blobs", value("blob", tablestore.CT_EQUAL, []byte{255}), true},
		{"another type", value("s", tablestore.CT_NOT_EQUAL, int64(1)), false},
		{"missing column matches", missing, true},
		{"missing column is dropped", drop, false},
		{"any version", older, true},
		{"latest version only", latest, false},
		{"not", not, false},
		{"and", and, false},
		{"or", or, true},
		{"key column", value("pk1", tablestore.CT_EQUAL, "a"), true},
		{"regex", regex, true},
		{"regex that does not match", regexNo, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			ok(t, put(c, key("a"), cell{"s", "b", 1}, cell{"n", int64(1), 1}, cell{"n", int64(2), 2}, cell{"negative", int64(-1), 1},
				cell{"d", 1.5, 1}, cell{"bool", true, 1}, cell{"blob", []byte{255}, 1}, cell{"t", "x n=42", 1}))
			_, found := get(t, c, key("a"), func(q *tablestore.SingleRowQueryCriteria) { q.Filter = test.filter })
			if found != test.match {
				t.Errorf("as a filter it keeps the row: %v", found)
			}
			change := deleteChange(key("a"))
			change.SetColumnCondition(test.filter)
			_, err := c.DeleteRow(&tablestore.DeleteRowRequest{DeleteRowChange: change})
			if test.match {
				ok(t, err)
			} else {
				want(t, err, 403, "OTSConditionCheckFail", "Condition check failed.")
			}
		})
	}
	t.Run("existence", func(t *testing.T) {
		for _, there := range []bool{false, true} {
			for _, expectation := range []tablestore.RowExistenceExpectation{ignore, exist, absent} {
				ok(t, remove(c, key("e")))
				if there {
					ok(t, put(c, key("e")))
				}
				change := updateChange(key("e"), cell{"c", "v", 1})
				change.SetCondition(expectation)
				_, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: change})
				if good := expectation == ignore || (expectation == exist) == there; good != (err == nil) {
					t.Errorf("row there %v, expectation %v: %v", there, expectation, err)
				}
			}
		}
	})
}

func TestIncrement(t *testing.T) {
	t.Parallel()
	c := connect(otstest.Run(t, ots.Config{}))
	create(t, c, tablestore.TableOption{}, text)
	add := func(by int64) (int64, error) {
		change := &tablestore.UpdateRowChange{TableName: "t", PrimaryKey: key("a")}
		change.SetCondition(ignore)
		change.IncrementColumn("n", by)
		change.SetReturnIncrementValue()
		change.AppendIncrementColumnToReturn("n")
		res, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: change})
		if err != nil {
			return 0, err
		}
		if len(res.Columns) != 1 {
			t.Fatalf("%d columns are returned", len(res.Columns))
		}
		return res.Columns[0].Value.(int64), nil
	}
	sum := int64(0)
	for _, by := range []int64{5, -7, 0, math.MaxInt64} {
		sum += by
		got, err := add(by)
		ok(t, err)
		if got != sum {
			t.Errorf("sum %d, want %d", got, sum)
		}
	}
	_, err := add(10)
	want(t, err, 400, badParameter, "Increment of column 'n' overflows.")
	ok(t, put(c, key("a"), cell{"n", "text", -1}))
	_, err = add(1)
	want(t, err, 400, badParameter, "Increment of column 'n' whose type is VT_STRING.")
}

func TestAutoIncrement(t *testing.T) {
	t.Parallel()
	c := connect(otstest.Run(t, ots.Config{}))
	meta := &tablestore.TableMeta{TableName: "t"}
	meta.AddPrimaryKeyColumn("pk1", text)
	meta.AddPrimaryKeyColumnOption("pk2", integer, tablestore.AUTO_INCREMENT)
	_, err := c.CreateTable(&tablestore.CreateTableRequest{TableMeta: meta, TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1}, ReservedThroughput: &tablestore.ReservedThroughput{}})
	ok(t, err)
	d, err := c.DescribeTable(&tablestore.DescribeTableRequest{TableName: "t"})
	ok(t, err)
	if o := d.TableMeta.SchemaEntry[1].Option; o == nil || *o != tablestore.AUTO_INCREMENT {
		t.Error("the description does not show the option")
	}
	insert := func(expectation tablestore.RowExistenceExpectation) (int64, error) {
		change := putChange(key("p", automatic), cell{"c", "v", -1})
		change.SetCondition(expectation)
		change.SetReturnPk()
		res, err := c.PutRow(&tablestore.PutRowRequest{PutRowChange: change})
		if err != nil {
			return 0, err
		}
		return res.PrimaryKey.PrimaryKeys[1].Value.(int64), nil
	}
	var last int64
	for range 10 {
		n, err := insert(ignore)
		ok(t, err)
		if n <= last {
			t.Errorf("key %d after %d", n, last)
		}
		last = n
	}
	if n := len(page(t, c, key(lowest, lowest), key(highest, highest)).Rows); n != 10 {
		t.Errorf("%d rows", n)
	}
	_, err = insert(exist)
	want(t, err, 400, badParameter, "Invalid expect:EXPECT_EXIST when modify row with pk auto increment.")
	want(t, remove(c, key("p", automatic)), 400, badParameter, "Invalid row to delete which with pk auto increment.")
	want(t, put(c, key("p", last+1)), 403, "OTSConditionCheckFail", "Condition check failed.")
	ok(t, update(c, key("p", last), cell{"c", "changed", -1}))
	ok(t, remove(c, key("p", last)))
	_, err = c.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: &tablestore.SingleRowQueryCriteria{TableName: "t", PrimaryKey: key("p", automatic), MaxVersion: 1}})
	want(t, err, 400, badParameter, "PKAutoIncr can't be used for read operations.")
	change := putChange(key("p", last), cell{"c", "v", -1})
	change.SetCondition(absent)
	_, err = c.PutRow(&tablestore.PutRowRequest{PutRowChange: change})
	want(t, err, 400, badParameter, "Invalid expect: EXPECT_NOT_EXIST when modify a specific row for table with pk auto increment.")
}

func TestRange(t *testing.T) {
	t.Parallel()
	c := connect(otstest.Run(t, ots.Config{}))
	create(t, c, tablestore.TableOption{DeviationCellVersionInSec: anyTime}, text, integer)
	for _, s := range []string{"a", "a\x00", "a\x00b", "aa", "b", ""} {
		for _, n := range []int{-1, 0, 1} {
			ok(t, put(c, key(s, n), cell{"c", "v", 1}))
		}
	}
	backward := func(q *tablestore.RangeRowQueryCriteria) { q.Direction = tablestore.BACKWARD }
	limit := func(n int32) func(*tablestore.RangeRowQueryCriteria) {
		return func(q *tablestore.RangeRowQueryCriteria) { q.Limit = n }
	}
	for _, test := range []struct {
		name     string
		from, to *tablestore.PrimaryKey
		with     []func(*tablestore.RangeRowQueryCriteria)
		rows     string
		next     string
	}{
		{name: "one partition key", from: key("a", lowest), to: key("a", highest), rows: "a,-1 a,0 a,1", next: "none"},
		{name: "start is in, end is out", from: key("a", -1), to: key("a", 1), rows: "a,-1 a,0", next: "none"},
		{name: "zero bytes in keys", from: key("a", 1), to: key("aa", lowest), rows: "a,1 a\x00,-1 a\x00,0 a\x00,1 a\x00b,-1 a\x00b,0 a\x00b,1", next: "none"},
		{name: "mixed bounds", from: key("aa", highest), to: key("b", 0), rows: "b,-1", next: "none"},
		{name: "backward", from: key("a", 0), to: key("", 0), with: []func(*tablestore.RangeRowQueryCriteria){backward}, rows: "a,0 a,-1 ,1", next: "none"},
		{name: "backward from the end", from: key(highest, highest), to: key("aa", highest), with: []func(*tablestore.RangeRowQueryCriteria){backward}, rows: "b,1 b,0 b,-1", next: "none"},
		{name: "limit", from: key("a", lowest), to: key(highest, highest), with: []func(*tablestore.RangeRowQueryCriteria){limit(2)}, rows: "a,-1 a,0", next: "a,1"},
		{name: "limit that is the range", from: key("a", lowest), to: key("a", highest), with: []func(*tablestore.RangeRowQueryCriteria){limit(3)}, rows: "a,-1 a,0 a,1", next: "none"},
		{name: "limit backward", from: key("a", highest), to: key(lowest, lowest), with: []func(*tablestore.RangeRowQueryCriteria){limit(1), backward}, rows: "a,1", next: "a,0"},
		{name: "nothing", from: key("x", lowest), to: key("y", lowest), rows: "", next: "none"},
	} {
		t.Run(test.name, func(t *testing.T) {
			res := page(t, c, test.from, test.to, test.with...)
			if got := keysOf(res.Rows); got != test.rows {
				t.Errorf("rows %q, want %q", got, test.rows)
			}
			if got := keyText(res.NextStartPrimaryKey); got != test.next {
				t.Errorf("next %q, want %q", got, test.next)
			}
		})
	}
	_, err := tryPage(c, key("b", 0), key("a", 0))
	want(t, err, 400, badParameter, "Begin key must less than end key in FORWARD")
	_, err = tryPage(c, key("b", 0), key("b", 0))
	want(t, err, 400, badParameter, "Begin key must less than end key in FORWARD")
	_, err = tryPage(c, key("a", 0), key("b", 0), backward)
	want(t, err, 400, badParameter, "Begin key must more than end key in BACKWARD")
	_, err = tryPage(c, key("a"), key("b"))
	want(t, err, 400, badKey, "Validate PK size fail. Input: 1, Meta: 2.")
}

func TestColumnsOfARead(t *testing.T) {
	t.Parallel()
	c := connect(otstest.Run(t, ots.Config{}))
	create(t, c, tablestore.TableOption{DeviationCellVersionInSec: anyTime}, text)
	ok(t, put(c, key("a"), cell{"c1", "1", 1}, cell{"c2", "2", 1}, cell{"c3", "3", 1}, cell{"d", "4", 1}))
	ok(t, put(c, key("b"), cell{"d", "4", 1}))
	ok(t, put(c, key("e")))
	for _, test := range []struct {
		name string
		with func(*tablestore.RangeRowQueryCriteria)
		rows string
		a    []cell
	}{
		{"named", func(q *tablestore.RangeRowQueryCriteria) { q.ColumnsToGet = []string{"c3", "c1", "c1"} }, "a", []cell{{"c1", "1", 1}, {"c3", "3", 1}}},
		{"named with the key", func(q *tablestore.RangeRowQueryCriteria) { q.ColumnsToGet = []string{"c1", "pk1"} }, "a b e", []cell{{"c1", "1", 1}}},
		{"slice", func(q *tablestore.RangeRowQueryCriteria) {
			q.StartColumn, q.EndColumn = proto.String("c2"), proto.String("d")
		}, "a b e", []cell{{"c2", "2", 1}, {"c3", "3", 1}}},
		{"page of columns", func(q *tablestore.RangeRowQueryCriteria) {
			q.Filter = &tablestore.PaginationFilter{Offset: 1, Limit: 2}
		}, "a b e", []cell{{"c2", "2", 1}, {"c3", "3", 1}}},
		{"filter", func(q *tablestore.RangeRowQueryCriteria) {
			f := tablestore.NewSingleColumnCondition("c1", tablestore.CT_EQUAL, "1")
			f.FilterIfMissing = true
			q.Filter = f
		}, "a", []cell{{"c1", "1", 1}, {"c2", "2", 1}, {"c3", "3", 1}, {"d", "4", 1}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			res := page(t, c, key(lowest), key(highest), test.with)
			if got := keysOf(res.Rows); got != test.rows {
				t.Fatalf("rows %q, want %q", got, test.rows)
			}
			equal(t, "columns of a", cellsOf(res.Rows[0].Columns), test.a)
		})
	}
	// A filter may leave no row in a page that has a next one.
	f := tablestore.NewSingleColumnCondition("d", tablestore.CT_EQUAL, "never")
	res := page(t, c, key(lowest), key(highest), func(q *tablestore.RangeRowQueryCriteria) { q.Filter = f })
	if got := keysOf(res.Rows); got != "e" {
		t.Errorf("a filter keeps %q", got)
	}
}

// TestPageLimits proves where pages end: at 5000 rows, and before the row that would make
// 4 MiB too many.
func TestPageLimits(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	create(t, c, tablestore.TableOption{}, integer)
	load := func(n int, size int) {
		for i := 0; i < n; i += 200 {
			batch := &tablestore.BatchWriteRowRequest{}
			for j := i; j < min(n, i+200); j++ {
				batch.AddRowChange(putChange(key(j), cell{"attr", strings.Repeat("a", size), -1}))
			}
			res, err := c.BatchWriteRow(batch)
			ok(t, err)
			for _, r := range res.TableToRowsResult["t"] {
				if !r.IsSucceed {
					t.Fatal(r.Error)
				}
			}
		}
	}
	load(5000, 11)
	res := page(t, c, key(lowest), key(highest))
	if len(res.Rows) != 5000 || res.NextStartPrimaryKey != nil {
		t.Errorf("5000 rows: a page of %d and next %s", len(res.Rows), keyText(res.NextStartPrimaryKey))
	}
	ok(t, put(c, key(5000), cell{"attr", "v", -1}))
	res = page(t, c, key(lowest), key(highest))
	if len(res.Rows) != 5000 || keyText(res.NextStartPrimaryKey) != "5000" {
		t.Errorf("5001 rows: a page of %d and next %s", len(res.Rows), keyText(res.NextStartPrimaryKey))
	}
	// A key counts 3+8, an attribute 4+2000: 2081 rows are the first to exceed 4 MiB.
	const fit = 4 << 20 / 2015
	_, err := c.DeleteTable(&tablestore.DeleteTableRequest{TableName: "t"})
	ok(t, err)
	create(t, c, tablestore.TableOption{}, integer)
	load(fit, 2000)
	res = page(t, c, key(lowest), key(highest))
	if len(res.Rows) != fit || res.NextStartPrimaryKey != nil {
		t.Errorf("%d rows: a page of %d and next %s", fit, len(res.Rows), keyText(res.NextStartPrimaryKey))
	}
	ok(t, put(c, key(fit), cell{"attr", strings.Repeat("a", 2000), -1}))
	res = page(t, c, key(lowest), key(highest))
	if len(res.Rows) != fit || keyText(res.NextStartPrimaryKey) != fmt.Sprint(fit) {
		t.Errorf("%d rows: a page of %d and next %s", fit+1, len(res.Rows), keyText(res.NextStartPrimaryKey))
	}
	if got := res.ConsumedCapacityUnit.Read; got != (fit*2015+4095)/4096 {
		t.Errorf("%d capacity units", got)
	}
	// Pages may be shorter.
	s.Engine().SetBehavior(engine.Behavior{Reads: engine.ReadBehavior{PageRows: 7}})
	res = page(t, c, key(lowest), key(highest))
	if len(res.Rows) != 7 || keyText(res.NextStartPrimaryKey) != "7" {
		t.Errorf("a short page has %d rows and next %s", len(res.Rows), keyText(res.NextStartPrimaryKey))
	}
}

// TestTokens reads rows that do not fit into a page, in pages that end inside of them.
func TestTokens(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	create(t, c, tablestore.TableOption{MaxVersion: 2, DeviationCellVersionInSec: anyTime}, text)
	wide := func(n int) (cells []cell) {
		for i := range n {
			cells = append(cells, cell{fmt.Sprintf("c%04d", i), strings.Repeat("x", 100), 2}, cell{fmt.Sprintf("c%04d", i), "old", 1})
		}
		return cells
	}
	rows := map[string][]cell{"a": wide(1), "b": wide(40), "c": wide(3), "d": nil}
	for name, cells := range rows {
		ok(t, put(c, key(name), cells...))
	}
	for name, tokens := range map[string]engine.Tokens{"wide": engine.TokensWide, "anywhere": engine.TokensAnywhere} {
		t.Run(name, func(t *testing.T) {
			s.Engine().SetBehavior(engine.Behavior{Reads: engine.ReadBehavior{Tokens: tokens, PageSize: 1000}})
			got := map[string][]cell{}
			req := &otsprotocol.GetRangeRequest{
				TableName:                proto.String("t"),
				Direction:                otsprotocol.Direction_FORWARD.Enum(),
				MaxVersions:              proto.Int32(5),
				InclusiveStartPrimaryKey: key(lowest).Build(false),
				ExclusiveEndPrimaryKey:   key(highest).Build(false),
			}
			cut := 0
			for range 1000 {
				var res otsprotocol.GetRangeResponse
				if err := send(t, s, "GetRange", req, &res); err != nil {
					t.Fatal(err)
				}
				scanner := plainbuffer.NewScanner(res.Rows)
				var row plainbuffer.Row
				var last string
				for scanner.Next(&row) == nil {
					last = string(row.Key[0].Data)
					if got[last] == nil {
						got[last] = []cell{}
					}
					for _, x := range row.Cells {
						got[last] = append(got[last], cell{string(x.Name), string(x.Data), x.Timestamp})
					}
				}
				if res.NextToken != nil {
					cut++
					var next plainbuffer.Row
					ok(t, plainbuffer.ScanKey(res.NextStartPrimaryKey, &next))
					if string(next.Key[0].Data) != last {
						t.Fatalf("a page ends inside of %q and its next key is %q", last, next.Key[0].Data)
					}
				}
				if res.NextStartPrimaryKey == nil {
					break
				}
				req.InclusiveStartPrimaryKey, req.Token = res.NextStartPrimaryKey, res.NextToken
			}
			if cut == 0 {
				t.Error("no page ended inside of a row")
			}
			if len(got) != len(rows) {
				t.Errorf("%d rows, want %d", len(got), len(rows))
			}
			for name, cells := range rows {
				equal(t, "row "+name, got[name], cells)
			}
			// A single row is followed in the same way.
			var cells []cell
			one := &otsprotocol.GetRowRequest{TableName: proto.String("t"), PrimaryKey: key("b").Build(false), MaxVersions: proto.Int32(5)}
			for range 1000 {
				var res otsprotocol.GetRowResponse
				if err := send(t, s, "GetRow", one, &res); err != nil {
					t.Fatal(err)
				}
				var row plainbuffer.Row
				ok(t, plainbuffer.NewScanner(res.Row).Next(&row))
				for _, x := range row.Cells {
					cells = append(cells, cell{string(x.Name), string(x.Data), x.Timestamp})
				}
				if one.Token = res.NextToken; one.Token == nil {
					break
				}
			}
			equal(t, "row b by itself", cells, rows["b"])
		})
	}
}

func TestBatches(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	create(t, c, tablestore.TableOption{MaxVersion: 100, DeviationCellVersionInSec: anyTime}, text)
	write := func(atomic bool, changes ...tablestore.RowChange) []tablestore.RowResult {
		t.Helper()
		batch := &tablestore.BatchWriteRowRequest{IsAtomic: atomic}
		for _, x := range changes {
			batch.AddRowChange(x)
		}
		res, err := c.BatchWriteRow(batch)
		ok(t, err)
		return res.TableToRowsResult["t"]
	}
	codes := func(rows []tablestore.RowResult) (out []string) {
		for _, r := range rows {
			if r.IsSucceed {
				out = append(out, "ok")
			} else {
				out = append(out, r.Error.Code+" "+r.Error.Message)
			}
		}
		return out
	}
	t.Run("the same row many times", func(t *testing.T) {
		var changes []tablestore.RowChange
		for i := range 10 {
			changes = append(changes, updateChange(key("a"), cell{fmt.Sprintf("c%d", i), "v", int64(i)}))
		}
		changes = append(changes, updateChange(key("a"), cell{"c3", deleteAll, 0}), updateChange(key("a"), cell{"c0", "last", 0}))
		write(false, changes...)
		got, _ := get(t, c, key("a"))
		if len(got) != 9 || got[0] != (cell{"c0", "last", 0}) {
			t.Errorf("cells %v", got)
		}
	})
	t.Run("the same row with a condition", func(t *testing.T) {
		checked := putChange(key("b"))
		checked.SetCondition(absent)
		const text = "OTSParameterInvalid Repeated rows do not support row exist expectation check in BatchModify."
		equal(t, "answers", codes(write(false, checked, putChange(key("b")), putChange(key("c")))), []string{text, text, "ok"})
	})
	t.Run("rows fail alone", func(t *testing.T) {
		checked := putChange(key("c"))
		checked.SetCondition(absent)
		bad := putChange(key(int64(5)), cell{"c", "v", 1})
		equal(t, "answers", codes(write(false, checked, putChange(key("d")), bad)), []string{
			"OTSConditionCheckFail Condition check failed.", "ok", "OTSInvalidPK Validate PK type fail. Input: VT_INTEGER, Meta: VT_STRING."})
	})
	t.Run("atomic over partitions", func(t *testing.T) {
		const text = "OTSDataOutOfRange Data out of scope of atomic. Atomic PartKey:0. Data PartKey:1"
		equal(t, "answers", codes(write(true, putChange(key("0")), putChange(key("1")))), []string{text, text})
		if _, found := get(t, c, key("0")); found {
			t.Error("a row was written")
		}
	})
	t.Run("atomic with one that fails", func(t *testing.T) {
		create2(t, c, "two")
		first, second := putChange(key("p", "1")), putChange(key("p", "2"))
		first.TableName, second.TableName = "two", "two"
		second.SetCondition(exist)
		batch := &tablestore.BatchWriteRowRequest{IsAtomic: true}
		batch.AddRowChange(first)
		batch.AddRowChange(second)
		res, err := c.BatchWriteRow(batch)
		ok(t, err)
		if got := codes(res.TableToRowsResult["two"]); got[0] == "ok" || got[1] == "ok" {
			t.Errorf("answers %v", got)
		}
		second.SetCondition(absent)
		res, err = c.BatchWriteRow(batch)
		ok(t, err)
		equal(t, "answers", codes(res.TableToRowsResult["two"]), []string{"ok", "ok"})
	})
	t.Run("unknown table", func(t *testing.T) {
		unknown := putChange(key("a"))
		unknown.TableName = "unknown"
		batch := &tablestore.BatchWriteRowRequest{}
		batch.AddRowChange(unknown)
		batch.AddRowChange(putChange(key("a")))
		res, err := c.BatchWriteRow(batch)
		ok(t, err)
		equal(t, "answers", codes(res.TableToRowsResult["unknown"]), []string{"OTSObjectNotExist Requested table does not exist."})
		equal(t, "answers", codes(res.TableToRowsResult["t"]), []string{"ok"})
	})
	t.Run("reads", func(t *testing.T) {
		ok(t, put(c, key("r"), cell{"c", "v", 1}))
		criteria := &tablestore.MultiRowQueryCriteria{TableName: "t", MaxVersion: 1}
		for _, name := range []string{"r", "none", "r"} {
			criteria.AddRow(key(name))
		}
		res, err := c.BatchGetRow(&tablestore.BatchGetRowRequest{MultiRowQueryCriteria: []*tablestore.MultiRowQueryCriteria{criteria}})
		ok(t, err)
		rows := res.TableToRowsResult["t"]
		if len(rows) != 3 || len(rows[0].Columns) != 1 || len(rows[1].PrimaryKey.PrimaryKeys) != 0 || !rows[1].IsSucceed || len(rows[2].Columns) != 1 {
			t.Errorf("rows %+v", rows)
		}
	})
}

// create2 makes a table with a key of two strings.
func create2(t *testing.T, c *tablestore.TableStoreClient, name string) {
	t.Helper()
	meta := &tablestore.TableMeta{TableName: name}
	meta.AddPrimaryKeyColumn("pk1", text)
	meta.AddPrimaryKeyColumn("pk2", text)
	_, err := c.CreateTable(&tablestore.CreateTableRequest{TableMeta: meta, TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1}, ReservedThroughput: &tablestore.ReservedThroughput{}})
	ok(t, err)
}
