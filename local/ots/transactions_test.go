package ots_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ots/otstest"
)

const (
	noSession    = "Session not exist or may be timeout."
	conflictText = "Data is being modified by the other request."
)

// createWith is create for tables with local transactions, and what with adds.
func createWith(t testing.TB, c *tablestore.TableStoreClient, name string, with func(*tablestore.CreateTableRequest), types ...tablestore.PrimaryKeyType) {
	t.Helper()
	req := &tablestore.CreateTableRequest{
		TableMeta:          &tablestore.TableMeta{TableName: name},
		TableOption:        &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
		ReservedThroughput: &tablestore.ReservedThroughput{},
		EnableLocalTxn:     proto.Bool(true),
	}
	for i, kind := range types {
		req.TableMeta.AddPrimaryKeyColumn(fmt.Sprintf("pk%d", i+1), kind)
	}
	if with != nil {
		with(req)
	}
	_, err := c.CreateTable(req)
	ok(t, err)
}

func begin(t testing.TB, c *tablestore.TableStoreClient, partition any) string {
	t.Helper()
	res, err := c.StartLocalTransaction(&tablestore.StartLocalTransactionRequest{TableName: "t", PrimaryKey: key(partition)})
	ok(t, err)
	return *res.TransactionId
}

func commit(c *tablestore.TableStoreClient, id string) error {
	_, err := c.CommitTransaction(&tablestore.CommitTransactionRequest{TransactionId: &id})
	return err
}

func abort(c *tablestore.TableStoreClient, id string) error {
	_, err := c.AbortTransaction(&tablestore.AbortTransactionRequest{TransactionId: &id})
	return err
}

func putIn(c *tablestore.TableStoreClient, id string, pk *tablestore.PrimaryKey, cells ...cell) error {
	change := putChange(pk, cells...)
	change.TransactionId = &id
	_, err := c.PutRow(&tablestore.PutRowRequest{PutRowChange: change})
	return err
}

func updateIn(c *tablestore.TableStoreClient, id string, pk *tablestore.PrimaryKey, cells ...cell) error {
	change := updateChange(pk, cells...)
	change.TransactionId = &id
	_, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: change})
	return err
}

func removeIn(c *tablestore.TableStoreClient, id string, pk *tablestore.PrimaryKey) error {
	change := deleteChange(pk)
	change.TransactionId = &id
	_, err := c.DeleteRow(&tablestore.DeleteRowRequest{DeleteRowChange: change})
	return err
}

// rowsIn is the keys and values of a range as a transaction sees it, "" for none, read in
// pages of two rows, and put into the order of keys.
func rowsIn(t testing.TB, c *tablestore.TableStoreClient, id string, from, to *tablestore.PrimaryKey, direction tablestore.Direction) string {
	t.Helper()
	var all []string
	for from != nil {
		p := page(t, c, from, to, func(q *tablestore.RangeRowQueryCriteria) {
			q.Direction, q.Limit = direction, 2
			if id != "" {
				q.TransactionId = &id
			}
		})
		for _, r := range p.Rows {
			all = append(all, keyText(r.PrimaryKey)+fmt.Sprint(cellValues(r.Columns)))
		}
		from = p.NextStartPrimaryKey
	}
	if direction == tablestore.BACKWARD {
		slices.Reverse(all)
	}
	return strings.Join(all, " ")
}

// TestTransactions shows what a transaction and others see of its changes, until it ends
// and then.
func TestTransactions(t *testing.T) {
	for name, dir := range map[string]bool{"memory": false, "file": true} {
		t.Run(name, func(t *testing.T) {
			config := ots.Config{}
			if dir {
				config.Dir = t.TempDir()
			}
			c := connect(otstest.Run(t, config))
			createWith(t, c, "t", nil, text, integer)
			for i := range 5 {
				ok(t, put(c, key("a", i), cell{"v", int64(i), -1}))
			}
			ok(t, put(c, key("b", 0), cell{"v", "other", -1}))
			all := func(id string) string {
				t.Helper()
				forward := rowsIn(t, c, id, key("a", lowest), key("a", highest), tablestore.FORWARD)
				if backward := rowsIn(t, c, id, key("a", highest), key("a", lowest), tablestore.BACKWARD); backward != forward {
					t.Errorf("backward it is %s, forward %s", backward, forward)
				}
				return forward
			}
			const before = "a,0[0] a,1[1] a,2[2] a,3[3] a,4[4]"
			for _, test := range []struct {
				name  string
				end   func(*tablestore.TableStoreClient, string) error
				after string
			}{
				{"abort", abort, before},
				{"commit", commit, "a,-1[first] a,0[0 new] a,2[two] a,4[4] a,9[last]"},
			} {
				id := begin(t, c, "a")
				if got := all(id); got != before {
					t.Errorf("%s: at its beginning the transaction sees %s", test.name, got)
				}
				ok(t, putIn(c, id, key("a", -1), cell{"v", "first", -1}))
				ok(t, updateIn(c, id, key("a", 0), cell{"w", "new", -1}))
				ok(t, removeIn(c, id, key("a", 1)))
				ok(t, putIn(c, id, key("a", 2), cell{"v", "one", -1}))
				ok(t, putIn(c, id, key("a", 2), cell{"v", "two", -1}))
				ok(t, removeIn(c, id, key("a", 3)))
				ok(t, putIn(c, id, key("a", 9), cell{"v", "last", -1}))
				ok(t, removeIn(c, id, key("a", 77)))
				if got := all(id); got != "a,-1[first] a,0[0 new] a,2[two] a,4[4] a,9[last]" {
					t.Errorf("%s: the transaction sees %s", test.name, got)
				}
				if got := all(""); got != before {
					t.Errorf("%s: others see %s", test.name, got)
				}
				cells, found := get(t, c, key("a", 2), func(q *tablestore.SingleRowQueryCriteria) { q.TransactionId = &id })
				if !found || cells[0].Value != "two" {
					t.Errorf("%s: the transaction reads %v", test.name, cells)
				}
				if _, found := get(t, c, key("a", 3), func(q *tablestore.SingleRowQueryCriteria) { q.TransactionId = &id }); found {
					t.Errorf("%s: a row that the transaction removed is read", test.name)
				}
				// Others can't write to the key, alone or in a batch, and can
				// to every other.
				want(t, put(c, key("a", 50)), 409, "OTSRowOperationConflict", conflictText)
				want(t, update(c, key("a", 1), cell{"v", "x", -1}), 409, "OTSRowOperationConflict", conflictText)
				want(t, remove(c, key("a", 0)), 409, "OTSRowOperationConflict", conflictText)
				_, err := c.StartLocalTransaction(&tablestore.StartLocalTransactionRequest{TableName: "t", PrimaryKey: key("a")})
				want(t, err, 409, "OTSRowOperationConflict", conflictText)
				batch := &tablestore.BatchWriteRowRequest{}
				batch.AddRowChange(putChange(key("a", 60)))
				batch.AddRowChange(putChange(key("b", 0), cell{"v", test.name, -1}))
				res, err := c.BatchWriteRow(batch)
				ok(t, err)
				if r := res.TableToRowsResult["t"]; r[0].IsSucceed || r[0].Error.Code != "OTSRowOperationConflict" || !r[1].IsSucceed {
					t.Errorf("%s: the rows of a batch are answered %+v", test.name, r)
				}
				// A condition is held against what the transaction sees.
				conditional := putChange(key("a", 3))
				conditional.SetCondition(exist)
				conditional.TransactionId = &id
				_, err = c.PutRow(&tablestore.PutRowRequest{PutRowChange: conditional})
				want(t, err, 403, "OTSConditionCheckFail", "Condition check failed.")

				ok(t, test.end(c, id))
				if got := all(""); got != test.after {
					t.Errorf("%s: after it others see %s", test.name, got)
				}
				for _, end := range []func(*tablestore.TableStoreClient, string) error{commit, abort} {
					want(t, end(c, id), 404, "OTSSessionNotExist", noSession)
				}
				want(t, putIn(c, id, key("a", 0)), 404, "OTSSessionNotExist", noSession)
				ok(t, put(c, key("a", 70)))
				ok(t, remove(c, key("a", 70)))
			}
		})
	}
}

func TestRefusedTransactions(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	createWith(t, c, "t", nil, text, integer)
	createWith(t, c, "u", nil, text)
	createWith(t, c, "plain", func(r *tablestore.CreateTableRequest) { r.EnableLocalTxn = nil }, text)
	try := func(table string, pk *tablestore.PrimaryKey) error {
		_, err := c.StartLocalTransaction(&tablestore.StartLocalTransactionRequest{TableName: table, PrimaryKey: pk})
		return err
	}
	want(t, try("plain", key("a")), 400, badParameter, "Try to call method using explicit transaction on explicit-transaction-disabled table.")
	want(t, try("t", key("a", 1)), 400, badParameter, "StartLocalTransaction support only one primary key.")
	want(t, try("", key("a")), 400, badParameter, "Invalid table name: ''.")
	want(t, try("none", key("a")), 404, "OTSObjectNotExist", "Requested table does not exist.")
	want(t, try("t", key(1)), 400, badKey, "Validate PK type fail. Input: VT_INTEGER, Meta: VT_STRING.")
	want(t, try("t", key(lowest)), 400, badParameter, "VT_INF_MIN is an invalid type for the primary key.")

	id := begin(t, c, "a")
	scope := func(key string) string {
		return "Data out of scope of transaction. Transaction PartKey:a. Data PartKey:" + key
	}
	want(t, putIn(c, id, key("b", 1)), 400, "OTSDataOutOfRange", scope("b"))
	want(t, removeIn(c, id, key("b", 1)), 400, "OTSDataOutOfRange", scope("b"))
	_, err := c.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: &tablestore.SingleRowQueryCriteria{TableName: "t", PrimaryKey: key("b", 1), MaxVersion: 1, TransactionId: &id}})
	want(t, err, 400, "OTSDataOutOfRange", scope("b"))
	for _, bounds := range []struct {
		from, to *tablestore.PrimaryKey
		text     string
	}{
		{key("a", lowest), key("b", lowest), scope("b")},
		{key(lowest, lowest), key("a", highest), scope("VT_INF_MIN")},
		{key("a", lowest), key(highest, highest), scope("VT_INF_MAX")},
	} {
		_, err := tryPage(c, bounds.from, bounds.to, func(q *tablestore.RangeRowQueryCriteria) { q.TransactionId = &id })
		want(t, err, 400, "OTSDataOutOfRange", bounds.text)
	}
	other := putChange(key("a"))
	other.TableName, other.TransactionId = "u", &id
	_, err = c.PutRow(&tablestore.PutRowRequest{PutRowChange: other})
	want(t, err, 400, badParameter, "TransactionID is invalid.")
	for _, fake := range []string{"fake_transaction_id", strings.Repeat("F", 32), strings.Repeat("0", 33)} {
		want(t, putIn(c, fake, key("a", 1)), 400, badParameter, "TransactionID is invalid.")
		want(t, commit(c, fake), 400, badParameter, "TransactionID is invalid.")
	}
	want(t, commit(c, ""), 400, badParameter, "TransactionID is invalid.")
	want(t, abort(c, ""), 400, badParameter, "TransactionID is invalid.")
	unknown := strings.Repeat("0", 32)
	want(t, putIn(c, unknown, key("a", 1)), 404, "OTSSessionNotExist", noSession)
	want(t, commit(c, unknown), 404, "OTSSessionNotExist", noSession)

	// What was refused has not hurt it. What follows the table's end has.
	ok(t, putIn(c, id, key("a", 1), cell{"v", "v", -1}))
	_, err = c.DeleteTable(&tablestore.DeleteTableRequest{TableName: "t"})
	ok(t, err)
	want(t, commit(c, id), 404, "OTSSessionNotExist", noSession)

	s.Engine().SetBehavior(engine.Behavior{Transactions: engine.TransactionBehavior{ByDefault: true}})
	createWith(t, c, "v", func(r *tablestore.CreateTableRequest) { r.EnableLocalTxn = nil }, text)
	ok(t, try("v", key("a")))
}

// TestTransactionTime moves the clock past the life of transactions.
func TestTransactionTime(t *testing.T) {
	now := newClock(time.UnixMilli(1_700_000_000_000))
	s := otstest.Run(t, ots.Config{Now: now.now})
	c := connect(s)
	createWith(t, c, "t", nil, text, integer)
	id := begin(t, c, "a")
	for range 59 {
		now.advance(time.Second)
		ok(t, putIn(c, id, key("a", 1), cell{"v", now.millis(), -1}))
	}
	now.advance(999 * time.Millisecond)
	want(t, put(c, key("a", 1)), 409, "OTSRowOperationConflict", conflictText)
	now.advance(time.Millisecond)
	want(t, putIn(c, id, key("a", 1)), 404, "OTSSessionNotExist", noSession)
	want(t, commit(c, id), 404, "OTSSessionNotExist", noSession)
	if got := rowsIn(t, c, "", key(lowest, lowest), key(highest, highest), tablestore.FORWARD); got != "" {
		t.Errorf("a transaction that ran out has left %s", got)
	}
	// The key is free for others as soon as the time is over.
	for _, use := range []func() error{
		func() error { return put(c, key("a", 1)) },
		func() error { return abort(c, begin(t, c, "a")) },
	} {
		id := begin(t, c, "a")
		now.advance(time.Minute)
		ok(t, use())
		want(t, commit(c, id), 404, "OTSSessionNotExist", noSession)
	}
	// A cell has the time at which it was written, not that of the commit.
	id = begin(t, c, "a")
	written := now.millis()
	ok(t, putIn(c, id, key("a", 2), cell{"v", "v", -1}))
	now.advance(10 * time.Second)
	ok(t, commit(c, id))
	if got, _ := get(t, c, key("a", 2)); len(got) != 1 || got[0].Time != written {
		t.Errorf("the cell is %v, written at %d", got, written)
	}
	s.Engine().SetBehavior(engine.Behavior{Transactions: engine.TransactionBehavior{Life: time.Second}})
	id = begin(t, c, "a")
	now.advance(time.Second)
	want(t, commit(c, id), 404, "OTSSessionNotExist", noSession)
}

func TestTransactionSize(t *testing.T) {
	c := connect(otstest.Run(t, ots.Config{}))
	createWith(t, c, "t", nil, text, integer)
	id := begin(t, c, "a")
	// A row of key 3+1+3+8, name 1 and value.
	value := func(size int) string { return strings.Repeat("v", size-16) }
	ok(t, putIn(c, id, key("a", 1), cell{"v", value(2 << 20), -1}))
	ok(t, putIn(c, id, key("a", 2), cell{"v", value(2<<20 - 100), -1}))
	err := putIn(c, id, key("a", 3), cell{"v", value(101), -1})
	want(t, err, 400, "OTSOutOfTransactionDataSizeLimit", "The total data size of transaction exceeds the limit, limit size: 4194304, data size: 4194305.")
	// What a condition refused does not count.
	conditional := putChange(key("a", 3), cell{"v", value(100), -1})
	conditional.SetCondition(exist)
	conditional.TransactionId = &id
	_, err = c.PutRow(&tablestore.PutRowRequest{PutRowChange: conditional})
	want(t, err, 403, "OTSConditionCheckFail", "Condition check failed.")
	ok(t, putIn(c, id, key("a", 3), cell{"v", value(100), -1}))
	ok(t, commit(c, id))
	if n := len(page(t, c, key("a", lowest), key("a", highest)).Rows); n != 3 {
		t.Errorf("the table has %d rows", n)
	}
}

// TestTransactionBatch writes batches within a transaction, which the Go SDK can't send.
func TestTransactionBatch(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	createWith(t, c, "t", nil, text, integer)
	createWith(t, c, "u", nil, text, integer)
	ok(t, put(c, key("a", 5), cell{"v", "old", -1}))
	id := begin(t, c, "a")
	write := func(atomic bool, table string, rows ...*otsprotocol.RowInBatchWriteRowRequest) string {
		t.Helper()
		res := new(otsprotocol.BatchWriteRowResponse)
		refused := send(t, s, "BatchWriteRow", &otsprotocol.BatchWriteRowRequest{
			TransactionId: &id, IsAtomic: &atomic,
			Tables: []*otsprotocol.TableInBatchWriteRowRequest{{TableName: &table, Rows: rows}},
		}, res)
		if refused != nil {
			return refused.GetCode()
		}
		var codes []string
		for _, r := range res.Tables[0].Rows {
			codes = append(codes, r.Error.GetCode())
		}
		return strings.Join(codes, ",")
	}
	row := func(expect otsprotocol.RowExistenceExpectation, partition string, n int64) *otsprotocol.RowInBatchWriteRowRequest {
		return &otsprotocol.RowInBatchWriteRowRequest{
			Type:      otsprotocol.OperationType_PUT.Enum(),
			RowChange: putChange(key(partition, n), cell{"v", fmt.Sprint("n", n), -1}).Serialize(),
			Condition: &otsprotocol.Condition{RowExistence: &expect},
		}
	}
	const ignored, missing = otsprotocol.RowExistenceExpectation_IGNORE, otsprotocol.RowExistenceExpectation_EXPECT_EXIST
	for _, test := range []struct {
		name   string
		atomic bool
		table  string
		rows   []*otsprotocol.RowInBatchWriteRowRequest
		codes  string
	}{
		{"rows", false, "t", []*otsprotocol.RowInBatchWriteRowRequest{row(ignored, "a", 1), row(missing, "a", 2), row(ignored, "b", 3)}, ",OTSConditionCheckFail,OTSDataOutOfRange"},
		{"all of them", true, "t", []*otsprotocol.RowInBatchWriteRowRequest{row(ignored, "a", 3), row(ignored, "a", 4)}, ","},
		{"none of them", true, "t", []*otsprotocol.RowInBatchWriteRowRequest{row(ignored, "a", 5), row(missing, "a", 6)}, "OTSConditionCheckFail,OTSConditionCheckFail"},
		{"another table", false, "u", []*otsprotocol.RowInBatchWriteRowRequest{row(ignored, "a", 7)}, "OTSParameterInvalid"},
	} {
		if got := write(test.atomic, test.table, test.rows...); got != test.codes {
			t.Errorf("%s: answered %q, want %q", test.name, got, test.codes)
		}
	}
	ok(t, commit(c, id))
	if got := rowsIn(t, c, "", key(lowest, lowest), key(highest, highest), tablestore.FORWARD); got != "a,1[n1] a,3[n3] a,4[n4] a,5[old]" {
		t.Errorf("the table has %s", got)
	}
}

// TestTransactionConsequences shows that indexes, the stream and the keys that the
// service makes follow a transaction when it is committed, and not before.
func TestTransactionConsequences(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	createWith(t, c, "t", func(r *tablestore.CreateTableRequest) {
		r.TableMeta.AddPrimaryKeyColumnOption("pk2", integer, tablestore.AUTO_INCREMENT)
		r.TableMeta.AddDefinedColumn("d", tablestore.DefinedColumn_STRING)
		r.IndexMetas = []*tablestore.IndexMeta{{IndexName: "i", Primarykey: []string{"d"}}}
		r.StreamSpec = &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: 24}
	}, text)
	insert := func(id, d string) int64 {
		t.Helper()
		change := putChange(key("a", automatic), cell{"d", d, -1})
		change.SetReturnPk()
		if id != "" {
			change.TransactionId = &id
		}
		res, err := c.PutRow(&tablestore.PutRowRequest{PutRowChange: change})
		ok(t, err)
		return res.PrimaryKey.PrimaryKeys[1].Value.(int64)
	}
	indexed := func() (n int) {
		t.Helper()
		ok(t, engineError(s.Engine().Rows("i", func([]byte) bool { n++; return true })))
		return n
	}
	records := func() (kinds []string) {
		t.Helper()
		streams, err := c.ListStream(&tablestore.ListStreamRequest{TableName: proto.String("t")})
		ok(t, err)
		d, err := c.DescribeStream(&tablestore.DescribeStreamRequest{StreamId: streams.Streams[0].Id})
		ok(t, err)
		at, err := c.GetShardIterator(&tablestore.GetShardIteratorRequest{StreamId: streams.Streams[0].Id, ShardId: d.Shards[0].SelfShard})
		ok(t, err)
		res, err := c.GetStreamRecord(&tablestore.GetStreamRecordRequest{ShardIterator: at.ShardIterator})
		ok(t, err)
		for _, r := range res.Records {
			text := fmt.Sprint(r.Type)
			for _, col := range r.Columns {
				text += fmt.Sprint(" ", *col.Name, "=", col.Value)
			}
			kinds = append(kinds, text)
		}
		return kinds
	}
	first := insert("", "before")
	id := begin(t, c, "a")
	second := insert(id, "within")
	third := insert(id, "within")
	if second <= first || third <= second {
		t.Errorf("keys %d, %d, %d do not grow", first, second, third)
	}
	for range 2 {
		increment := updateChange(key("a", second))
		increment.IncrementColumn("n", 5)
		increment.TransactionId = &id
		_, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: increment})
		ok(t, err)
	}
	ok(t, removeIn(c, id, key("a", third)))
	ok(t, updateIn(c, id, key("a", first), cell{"d", deleteAll, 0}))
	if n, kinds := indexed(), records(); n != 1 || len(kinds) != 1 {
		t.Errorf("before the commit the index has %d rows, the stream %v", n, kinds)
	}
	ok(t, commit(c, id))
	if n := indexed(); n != 1 {
		t.Errorf("after it the index has %d rows", n)
	}
	put, update, gone := tablestore.AT_Put, tablestore.AT_Update, tablestore.AT_Delete
	equal(t, "records", records(), []string{
		fmt.Sprint(put, " d=before"), fmt.Sprint(put, " d=within"), fmt.Sprint(put, " d=within"),
		fmt.Sprint(update, " n=5"), fmt.Sprint(update, " n=10"), fmt.Sprint(gone), fmt.Sprint(update, " d=<nil>"),
	})
	if fourth := insert("", "after"); fourth <= third {
		t.Errorf("key %d after %d", fourth, third)
	}
}

// TestTransactionsEndWithTheServer shows that only what was committed outlives the
// server.
func TestTransactionsEndWithTheServer(t *testing.T) {
	dir := t.TempDir()
	var id string
	for round := range 2 {
		s, err := ots.New(ots.Config{Dir: dir})
		ok(t, err)
		c := inProcess(s)
		if round == 0 {
			createWith(t, c, "t", nil, text, integer)
			done := begin(t, c, "b")
			ok(t, putIn(c, done, key("b", 1), cell{"v", "kept", -1}))
			ok(t, commit(c, done))
			id = begin(t, c, "a")
			ok(t, putIn(c, id, key("a", 1), cell{"v", "lost", -1}))
		} else {
			want(t, commit(c, id), 404, "OTSSessionNotExist", noSession)
			if got := rowsIn(t, c, "", key(lowest, lowest), key(highest, highest), tablestore.FORWARD); got != "b,1[kept]" {
				t.Errorf("after a restart the table has %s", got)
			}
			ok(t, put(c, key("a", 1)))
		}
		ok(t, s.Close())
	}
}

// TestTransfers moves amounts between the rows of a few partition keys, in transactions
// of many clients, some of which break off, while others read the partitions and try to
// write to them. No amount is lost or made, and no reader sees half a transfer.
func TestTransfers(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := otstest.New(t, ots.Config{})
	c := inProcess(s)
	createWith(t, c, "t", nil, integer, integer)
	const partitions, rows, each = 2, 4, 100
	for p := range partitions {
		for r := range rows {
			ok(t, put(c, key(p, r), cell{"v", int64(each), -1}))
		}
	}
	balances := func(c *tablestore.TableStoreClient, p int, id *string) (out []int64, err error) {
		res, err := tryPage(c, key(p, 0), key(p, rows), func(q *tablestore.RangeRowQueryCriteria) { q.TransactionId = id })
		if err != nil {
			return nil, err
		}
		for _, r := range res.Rows {
			out = append(out, r.Columns[0].Value.(int64))
		}
		return out, nil
	}
	var committed, aborted, conflicts, looks atomic.Int64
	expect := func(err error, codes ...string) bool {
		if err == nil {
			return true
		}
		var e *tablestore.OtsError
		if errors.As(err, &e) {
			for _, code := range codes {
				if e.Code == code {
					conflicts.Add(1)
					return false
				}
			}
		}
		t.Error(err)
		return false
	}
	var wg sync.WaitGroup
	for worker := range 6 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(worker)))
			c := inProcess(s)
			for range 200 {
				p := rng.IntN(partitions)
				switch worker {
				case 0:
					sum := int64(0)
					got, err := balances(c, p, nil)
					if expect(err) {
						for _, n := range got {
							sum += n
						}
						if sum != rows*each {
							t.Errorf("partition %d holds %v", p, got)
						}
						looks.Add(1)
					}
					continue
				case 1:
					// Adding nothing, by reading and writing back, is right only
					// when nobody is in between.
					n := int64(rng.IntN(rows))
					increment := updateChange(key(p, n))
					increment.IncrementColumn("v", 0)
					_, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: increment})
					expect(err, "OTSRowOperationConflict")
					continue
				}
				res, err := c.StartLocalTransaction(&tablestore.StartLocalTransactionRequest{TableName: "t", PrimaryKey: key(p)})
				if !expect(err, "OTSRowOperationConflict") {
					continue
				}
				id := res.TransactionId
				got, err := balances(c, p, id)
				if !expect(err) {
					continue
				}
				from, to, amount := rng.IntN(rows), rng.IntN(rows), int64(rng.IntN(20))
				got[from] -= amount
				got[to] += amount
				for n, v := range got {
					expect(putIn(c, *id, key(p, n), cell{"v", v, -1}))
				}
				runtime.Gosched() // others come in between, on one processor, too
				if rng.IntN(4) == 0 {
					expect(abort(c, *id))
					aborted.Add(1)
				} else {
					expect(commit(c, *id))
					committed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	for p := range partitions {
		got, err := balances(c, p, nil)
		ok(t, err)
		sum := int64(0)
		for _, n := range got {
			sum += n
		}
		if sum != rows*each {
			t.Errorf("in the end partition %d holds %v", p, got)
		}
	}
	t.Logf("%d committed, %d aborted, %d conflicts, %d looks", committed.Load(), aborted.Load(), conflicts.Load(), looks.Load())
	if committed.Load() < 50 || aborted.Load() == 0 || conflicts.Load() == 0 || looks.Load() == 0 {
		t.Error("too little came about")
	}
}
