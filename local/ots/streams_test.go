package ots_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

const trimmed = "Requested stream data is already trimmed or does not exist."

// refused fails unless an operation is refused with the code and text.
func (w *wire) refused(op string, m proto.Message, code, message string) {
	w.t.Helper()
	switch e := w.ask(op, m, &otsprotocol.ListTableResponse{}); {
	case e == nil:
		w.t.Errorf("%s is not refused, want %s %q", op, code, message)
	case e.GetCode() != code || e.GetMessage() != message:
		w.t.Errorf("%s is refused with %s %q, want %s %q", op, e.GetCode(), e.GetMessage(), code, message)
	}
}

func iteratorRequest(stream, shard string) *otsprotocol.GetShardIteratorRequest {
	return &otsprotocol.GetShardIteratorRequest{StreamId: &stream, ShardId: &shard}
}

func recordsRequest(iterator string) *otsprotocol.GetStreamRecordRequest {
	return &otsprotocol.GetStreamRecordRequest{ShardIterator: &iterator}
}

// all reads a shard from an iterator to where it is caught up or ends.
func (w *wire) all(iterator string) (out []*change, next string) {
	w.t.Helper()
	for {
		page, next := w.page(iterator, 0)
		out = append(out, page...)
		if next == "" || len(page) == 0 {
			return out, next
		}
		iterator = next
	}
}

// oldest is an iterator at the beginning of the shard of a number.
func (w *wire) oldest(shard int) string {
	w.t.Helper()
	id := w.stream("t")
	return w.iterator(id, shardID(id, shard), -1)
}

func shardID(stream string, n int) string { return fmt.Sprintf("%s_shard_%d", stream, n) }

// setStream turns the stream of table "t" on or off, which the answer has to say, with
// the stream's id.
func setStream(t testing.TB, c *tablestore.TableStoreClient, hours int32) error {
	t.Helper()
	res, err := c.UpdateTable(&tablestore.UpdateTableRequest{TableName: "t", StreamSpec: &tablestore.StreamSpecification{EnableStream: hours != 0, ExpirationTime: hours}})
	if err != nil {
		return err
	}
	listed, err := c.ListStream(&tablestore.ListStreamRequest{TableName: proto.String("t")})
	ok(t, err)
	told := ""
	for _, s := range listed.Streams {
		told += string(*s.Id)
	}
	if d := res.StreamDetails; d.EnableStream != (hours != 0) || hours != 0 && string(*d.StreamId) != told || hours == 0 && told != "" {
		t.Errorf("a stream of %d hours is answered %+v, and the streams are %q", hours, d, told)
	}
	return nil
}

// streamed is a server with a table "t", whose stream is on, and a clock that stands
// still.
func streamed(t *testing.T, behavior engine.Behavior, columns ...string) (*ots.Server, *wire, *tablestore.TableStoreClient, *clock) {
	t.Helper()
	now := newClock(time.UnixMilli(1_700_000_000_000))
	s := otstest.Run(t, ots.Config{Now: now.now, Behavior: behavior})
	c := inProcess(s)
	createStreamed(t, c, 2, -1, false, false, columns)
	return s, wireTo(t, s), c, now
}

// TestStreamLifecycle turns a stream on, off and on again, and proves what a stream that
// is being enabled misses, that another has another id, and what the ids and iterators of
// the former are answered.
func TestStreamLifecycle(t *testing.T) {
	now := newClock(time.UnixMilli(1_700_000_000_000))
	s := otstest.Run(t, ots.Config{Now: now.now, Behavior: engine.Behavior{Stream: engine.StreamBehavior{Delay: time.Second}}})
	c, w := inProcess(s), wireTo(t, s)
	create(t, c, tablestore.TableOption{}, integer, integer)
	ok(t, put(c, key(0, 0), cell{"c", int64(0), -1}))
	for hours, text := range map[int32]string{-1: "[1, 168]", 169: "[1, 168]"} {
		want(t, setStream(t, c, hours), 400, badParameter, "Stream expiration time must be in range: "+text+".")
	}
	ok(t, setStream(t, c, 24))
	id := w.stream("t")
	status := func() otsprotocol.StreamStatus {
		var res otsprotocol.DescribeStreamResponse
		w.must("DescribeStream", &otsprotocol.DescribeStreamRequest{StreamId: &id}, &res)
		if res.GetTableName() != "t" || res.GetExpirationTime() != 24 || res.GetStreamId() != id || res.GetCreationTime() != now.micros.Load() && res.GetStreamStatus() != otsprotocol.StreamStatus_STREAM_ACTIVE || len(res.Shards) != 1 {
			t.Errorf("the stream is described as %v", &res)
		}
		return res.GetStreamStatus()
	}
	if got := status(); got != otsprotocol.StreamStatus_STREAM_ENABLING {
		t.Errorf("a new stream is %v", got)
	}
	ok(t, put(c, key(0, 1), cell{"c", int64(0), -1}))
	now.advance(time.Second)
	if got := status(); got != otsprotocol.StreamStatus_STREAM_ACTIVE {
		t.Errorf("a stream that is a second old is %v", got)
	}
	ok(t, put(c, key(0, 2), cell{"c", int64(0), -1}))
	records, next := w.all(w.oldest(0))
	if len(records) != 1 || records[0].key() != "pk1=0 pk2=2" {
		t.Errorf("the records are %v", records)
	}

	// Retention and columns change, the stream stays.
	ok(t, setStream(t, c, 24))
	if w.stream("t") != id {
		t.Error("an update of the retention makes another stream")
	}
	ok(t, setStream(t, c, 0))
	gone := func() {
		t.Helper()
		w.refused("DescribeStream", &otsprotocol.DescribeStreamRequest{StreamId: &id}, badParameter, "Invalid stream id: "+id+".")
		w.refused("GetShardIterator", iteratorRequest(id, shardID(id, 0)), badParameter, "Invalid stream id: "+id+".")
		w.refused("GetStreamRecord", recordsRequest(next), engine.CodeTrimmedData, trimmed)
		s.Engine().SetBehavior(engine.Behavior{Stream: engine.StreamBehavior{Delay: time.Second, LostIterators: true}})
		w.refused("GetStreamRecord", recordsRequest(next), badParameter, "Invalid stream id: "+id+".")
		s.Engine().SetBehavior(engine.Behavior{Stream: engine.StreamBehavior{Delay: time.Second}})
	}
	gone()
	var list otsprotocol.ListStreamResponse
	w.must("ListStream", &otsprotocol.ListStreamRequest{TableName: proto.String("t")}, &list)
	if len(list.Streams) != 0 {
		t.Errorf("a table without a stream has %v", list.Streams)
	}

	// The clock stands still, and even steps back: the id is another all the same.
	now.advance(-time.Minute)
	ok(t, setStream(t, c, 1))
	second := w.stream("t")
	if second == id {
		t.Errorf("the second stream is called as the first: %s", id)
	}
	gone()
	now.advance(time.Minute)
	if records, _ := w.all(w.oldest(0)); len(records) != 0 {
		t.Errorf("a new stream has %v", records)
	}
	w.refused("GetShardIterator", iteratorRequest(second, shardID(id, 0)), badParameter, "Invalid shard id: "+shardID(id, 0)+".")
	w.refused("GetShardIterator", iteratorRequest(second, shardID(second, 1)), badParameter, "Invalid shard id: "+shardID(second, 1)+".")

	// A table of the same name is another, and so is its stream.
	id, next = second, w.oldest(0)
	_, err := c.DeleteTable(&tablestore.DeleteTableRequest{TableName: "t"})
	ok(t, err)
	gone()
	createStreamed(t, c, 1, -1, false, false, nil)
	if w.stream("t") == id {
		t.Error("the stream of a new table is called as that of the former")
	}
	gone()
}

// TestStreamRecords proves what each kind of change leaves in the stream, cell by cell.
func TestStreamRecords(t *testing.T) {
	const ms = 1_700_000_000_000
	at := fmt.Sprintf("@%d", ms)
	increment := func(c *tablestore.TableStoreClient) error {
		change := updateChange(key(1, 1))
		change.IncrementColumn("n", 5)
		_, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: change})
		return err
	}
	batch := func(atomic bool, changes ...tablestore.RowChange) func(c *tablestore.TableStoreClient) error {
		return func(c *tablestore.TableStoreClient) error {
			req := &tablestore.BatchWriteRowRequest{IsAtomic: atomic}
			for _, change := range changes {
				req.AddRowChange(change)
			}
			_, err := c.BatchWriteRow(req)
			return err
		}
	}
	conditional := deleteChange(key(1, 1))
	conditional.SetCondition(absent)
	row := func(cells ...cell) func(*tablestore.TableStoreClient) error {
		return func(c *tablestore.TableStoreClient) error { return put(c, key(1, 1), cells...) }
	}
	change := func(cells ...cell) func(*tablestore.TableStoreClient) error {
		return func(c *tablestore.TableStoreClient) error { return update(c, key(1, 1), cells...) }
	}
	drop := func(c *tablestore.TableStoreClient) error { return remove(c, key(1, 1)) }
	tests := map[string]struct {
		stream engine.StreamBehavior
		do     []func(*tablestore.TableStoreClient) error
		want   []string
	}{
		"put, versions sorted": {
			do:   []func(*tablestore.TableStoreClient) error{row(cell{"d", "x", -1}, cell{"c", int64(1), 5}, cell{"c", int64(2), 6})},
			want: []string{"PUT_ROW pk1=1 pk2=1: c@6=2 c@5=1 d" + at + "=x"},
		},
		"put of more versions than the table keeps": {
			do:   []func(*tablestore.TableStoreClient) error{row(cell{"c", int64(1), 1}, cell{"c", int64(2), 2}, cell{"c", int64(3), 3})},
			want: []string{"PUT_ROW pk1=1 pk2=1: c@3=3 c@2=2 c@1=1"},
		},
		"put of a key": {
			do:   []func(*tablestore.TableStoreClient) error{row()},
			want: []string{"PUT_ROW pk1=1 pk2=1: "},
		},
		"update in the order of the request": {
			do:   []func(*tablestore.TableStoreClient) error{change(cell{"c", deleteAll, 0}, cell{"c", int64(1), 0}, cell{"b", deleteOne, 0}, cell{"a", true, -1})},
			want: []string{"UPDATE_ROW pk1=1 pk2=1: c all gone c@0=1 b gone@0 a" + at + "=boolean:01"},
		},
		"increments as results": {
			do:   []func(*tablestore.TableStoreClient) error{row(cell{"n", int64(2), 1}), increment},
			want: []string{"PUT_ROW pk1=1 pk2=1: n@1=2", "UPDATE_ROW pk1=1 pk2=1: n" + at + "=7"},
		},
		"increments as operations": {
			stream: engine.StreamBehavior{Increments: true},
			do:     []func(*tablestore.TableStoreClient) error{row(cell{"n", int64(2), 1}), increment},
			want:   []string{"PUT_ROW pk1=1 pk2=1: n@1=2", "UPDATE_ROW pk1=1 pk2=1: n plus" + at + "=5"},
		},
		"changes that change nothing": {
			do:   []func(*tablestore.TableStoreClient) error{drop, change(cell{"c", deleteAll, 0})},
			want: []string{"DELETE_ROW pk1=1 pk2=1: ", "UPDATE_ROW pk1=1 pk2=1: c all gone"},
		},
		"changes that change nothing, left out": {
			stream: engine.StreamBehavior{SkipNoops: true},
			do:     []func(*tablestore.TableStoreClient) error{drop, change(cell{"c", deleteAll, 0}), row(), drop},
			want:   []string{"PUT_ROW pk1=1 pk2=1: ", "DELETE_ROW pk1=1 pk2=1: "},
		},
		"a delete with its mark": {
			stream: engine.StreamBehavior{DeleteMarks: true},
			do:     []func(*tablestore.TableStoreClient) error{drop},
			want:   []string{"DELETE_ROW pk1=1 pk2=1:  marked"},
		},
		"versions that go": {
			stream: engine.StreamBehavior{Evictions: true},
			do:     []func(*tablestore.TableStoreClient) error{row(cell{"c", int64(1), 1}, cell{"c", int64(2), 2}), change(cell{"c", int64(3), 3})},
			want:   []string{"PUT_ROW pk1=1 pk2=1: c@2=2 c@1=1", "UPDATE_ROW pk1=1 pk2=1: c@3=3", "UPDATE_ROW pk1=1 pk2=1: c gone@1"},
		},
		"a version that went and is written anew": {
			stream: engine.StreamBehavior{Evictions: true},
			do: []func(*tablestore.TableStoreClient) error{
				row(cell{"c", int64(1), 1}, cell{"c", int64(2), 2}),
				func(c *tablestore.TableStoreClient) error {
					_, err := c.UpdateTable(&tablestore.UpdateTableRequest{TableName: "t", TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1, DeviationCellVersionInSec: anyTime}})
					return err
				},
				change(cell{"c", deleteOne, 2}, cell{"c", int64(9), 1}),
			},
			want: []string{"PUT_ROW pk1=1 pk2=1: c@2=2 c@1=1", "UPDATE_ROW pk1=1 pk2=1: c gone@2 c@1=9"},
		},
		"a batch, each row on its own": {
			do: []func(*tablestore.TableStoreClient) error{batch(false, putChange(key(1, 1), cell{"c", int64(1), 1}), conditional, putChange(key(1, 2)), deleteChange(key(2, 1)))},
			// Of rows that stand twice, those with conditions are refused.
			want: []string{"PUT_ROW pk1=1 pk2=2: ", "DELETE_ROW pk1=2 pk2=1: "},
		},
		"an atomic batch that fails": {
			do:   []func(*tablestore.TableStoreClient) error{row(), batch(true, putChange(key(1, 2)), conditional), batch(true, putChange(key(1, 3)), deleteChange(key(1, 1)))},
			want: []string{"PUT_ROW pk1=1 pk2=1: ", "PUT_ROW pk1=1 pk2=3: ", "DELETE_ROW pk1=1 pk2=1: "},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, w, c, _ := streamed(t, engine.Behavior{Stream: test.stream})
			for _, do := range test.do {
				ok(t, do(c))
			}
			records, _ := w.all(w.oldest(0))
			var got []string
			for i, r := range records {
				text := r.String()
				if r.row.Delete {
					text += " marked"
				}
				got = append(got, text)
				// The clock stands still: only the row index tells records apart.
				if e := r.row.Extension; e != (plainbuffer.Extension{Timestamp: ms * 1000, RowIndex: int32(i)}) {
					t.Errorf("record %d is at %+v", i, e)
				}
			}
			equal(t, "records", got, test.want)
			// The SDK reads them too.
			iterator := w.oldest(0)
			res, err := c.GetStreamRecord(&tablestore.GetStreamRecordRequest{ShardIterator: (*tablestore.ShardIterator)(&iterator)})
			ok(t, err)
			if len(res.Records) != len(got) {
				t.Errorf("the SDK reads %d records of %d", len(res.Records), len(got))
			}
		})
	}
}

// TestStreamRefusedWrites proves that a change that is refused leaves nothing.
func TestStreamRefusedWrites(t *testing.T) {
	_, w, c, _ := streamed(t, engine.Behavior{})
	change := putChange(key(1, 1), cell{"c", "text", -1})
	change.SetCondition(exist)
	if _, err := c.PutRow(&tablestore.PutRowRequest{PutRowChange: change}); err == nil {
		t.Error("a condition that fails is met")
	}
	ok(t, put(c, key(1, 2), cell{"c", "text", -1}))
	sum := updateChange(key(1, 2))
	sum.IncrementColumn("c", 1)
	if _, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: sum}); err == nil {
		t.Error("text is incremented")
	}
	if records, _ := w.all(w.oldest(0)); len(records) != 1 {
		t.Errorf("the records are %v", records)
	}
}

// TestStreamIterators finds records by time, token and limit.
func TestStreamIterators(t *testing.T) {
	for _, seeks := range []int{0, 3} {
		t.Run(fmt.Sprint("tokens ", seeks), func(t *testing.T) {
			_, w, c, now := streamed(t, engine.Behavior{Stream: engine.StreamBehavior{Seeks: seeks}})
			began := now.micros.Load()
			for i := range 20 {
				ok(t, put(c, key(0, i)))
				if i%2 == 1 {
					now.advance(time.Second)
				}
			}
			id := w.stream("t")
			shard := shardID(id, 0)
			for name, test := range map[string]struct{ at, first int64 }{
				"before all":        {0, 0},
				"the first":         {began, 0},
				"between":           {began + 1, 2},
				"the last's":        {began + 9_000_000, 18},
				"behind the last's": {began + 9_000_001, 20},
				"in the future":     {began + 1e12, 20},
			} {
				records, next := w.all(w.iterator(id, shard, test.at))
				if len(records) != 20-int(test.first) || next == "" {
					t.Errorf("%s: %d records", name, len(records))
				} else if len(records) > 0 && records[0].key() != fmt.Sprintf("pk1=0 pk2=%d", test.first) {
					t.Errorf("%s: the first record is %v", name, records[0])
				}
			}
			// An iterator with a limit leads behind just so many records.
			iterator := w.oldest(0)
			for i, limit := range []int32{7, 1, 5} {
				records, next := w.page(iterator, limit)
				if len(records) != int(limit) {
					t.Errorf("page %d has %d records, want %d", i, len(records), limit)
				}
				iterator = next
			}
			records, next := w.page(iterator, 100)
			if len(records) != 7 || records[0].key() != "pk1=0 pk2=13" {
				t.Errorf("the rest is %v", records)
			}
			// At the end it stays, and goes on with what comes.
			if records, again := w.page(next, 0); len(records) != 0 || again != next {
				t.Errorf("a reader that is caught up gets %v and goes on at %s, not %s", records, again, next)
			}
			ok(t, put(c, key(0, 20)))
			if records, _ := w.page(next, 0); len(records) != 1 {
				t.Errorf("the new records are %v", records)
			}
		})
	}
}

// TestStreamRefusals sends what no stream takes.
func TestStreamRefusals(t *testing.T) {
	s, w, c, _ := streamed(t, engine.Behavior{Stream: engine.StreamBehavior{MaxLimit: 50, Seeks: 1}})
	id := w.stream("t")
	shard := shardID(id, 0)
	iterator := w.oldest(0)
	token := func(stream, shard, token string) *otsprotocol.GetShardIteratorRequest {
		r := iteratorRequest(stream, shard)
		r.Token = &token
		return r
	}
	limited := func(limit int32) *otsprotocol.GetStreamRecordRequest {
		r := recordsRequest(iterator)
		r.Limit = &limit
		return r
	}
	other := recordsRequest(iterator)
	other.TableName = proto.String("u")
	early := iteratorRequest(id, shard)
	early.Timestamp = proto.Int64(-1)
	flipped := "A" + iterator[1:]
	for name, test := range map[string]struct {
		op      string
		m       proto.Message
		message string
	}{
		"no stream":            {"DescribeStream", &otsprotocol.DescribeStreamRequest{StreamId: proto.String("none")}, "Invalid stream id: none."},
		"no shards":            {"DescribeStream", &otsprotocol.DescribeStreamRequest{StreamId: &id, ShardLimit: proto.Int32(0)}, "Invalid shard limit: 0."},
		"from no shard":        {"DescribeStream", &otsprotocol.DescribeStreamRequest{StreamId: &id, InclusiveStartShardId: proto.String("x")}, "Invalid shard id: x."},
		"iterator of none":     {"GetShardIterator", iteratorRequest("none", shard), "Invalid stream id: none."},
		"a shard's other name": {"GetShardIterator", iteratorRequest(id, shardID(id, 0)+"0"), "Invalid shard id: " + shard + "0."},
		"before time":          {"GetShardIterator", early, "Invalid timestamp: -1."},
		"token":                {"GetShardIterator", token(id, shard, "x"), "Invalid token: 'x'."},
		"token, no token":      {"GetShardIterator", token(id, shard, iterator), "Invalid token: '" + iterator + "'."},
		"no iterator":          {"GetStreamRecord", recordsRequest(""), "Invalid shard iterator: ''."},
		"another iterator":     {"GetStreamRecord", recordsRequest(flipped), "Invalid shard iterator: '" + flipped + "'."},
		"no records":           {"GetStreamRecord", limited(0), "Invalid limit: 0."},
		"too many records":     {"GetStreamRecord", limited(51), "Invalid limit: 51."},
		"of another table":     {"GetStreamRecord", other, "Invalid table name: 'u': the shard iterator is of another table."},
	} {
		t.Run(name, func(t *testing.T) {
			(&wire{t: t, url: w.url, transport: w.transport}).refused(test.op, test.m, badParameter, test.message)
		})
	}
	if e := s.Engine().SplitPartition("t", nil); e == nil {
		t.Error("a partition is split at no key")
	}
	s.SetKeys(ots.Key{ID: ots.DefaultKeyID, Secret: ots.DefaultKeySecret, Deny: []ots.Rule{{Operation: "Get*", Table: "t"}}})
	for op, m := range map[string]proto.Message{"GetShardIterator": iteratorRequest(id, shard), "GetStreamRecord": recordsRequest(iterator)} {
		if e := w.ask(op, m, nil); e.GetCode() != engine.CodeNoPermission {
			t.Errorf("%s is answered %v without permission", op, e)
		}
	}
	s.SetKeys(ots.Key{ID: ots.DefaultKeyID, Secret: ots.DefaultKeySecret})
	s.SetFault(func(op, table string, n int) *ots.Fault {
		if strings.Contains(op, "Stream") && table == "t" {
			return ots.Refuse(engine.CodeServerBusy, "Server is busy.")
		}
		return nil
	})
	_, err := c.GetStreamRecord(&tablestore.GetStreamRecordRequest{ShardIterator: (*tablestore.ShardIterator)(&iterator)})
	want(t, err, http.StatusServiceUnavailable, engine.CodeServerBusy, "Server is busy.")
}

// TestStreamTrimming lets records expire and proves that only a reader who has lost some
// is told so.
func TestStreamTrimming(t *testing.T) {
	for name, test := range map[string]struct {
		strict  bool
		removed bool // the records are out of the store, too
	}{"expired": {}, "removed": {removed: true}, "strict": {strict: true}} {
		t.Run(name, func(t *testing.T) {
			s, w, c, now := streamed(t, engine.Behavior{Stream: engine.StreamBehavior{StrictStart: test.strict}})
			id := w.stream("t")
			shard := shardID(id, 0)
			began := now.micros.Load()
			for i := range 10 {
				ok(t, put(c, key(0, i)))
				now.advance(time.Hour)
			}
			oldest := w.oldest(0)
			records, fourth := w.page(oldest, 4)
			if len(records) != 4 {
				t.Fatalf("%d records", len(records))
			}
			_, tenth := w.page(fourth, 6)
			// The fifth record is 24 hours old and the last that is kept no more.
			now.advance(18*time.Hour + time.Microsecond)
			if test.removed {
				if err := s.Engine().TrimStream("t", now.now().Add(-24*time.Hour)); err != nil {
					t.Fatal(err)
				}
			}
			for name, lost := range map[string]string{"oldest": oldest, "fourth": fourth} {
				_, err := c.GetStreamRecord(&tablestore.GetStreamRecordRequest{ShardIterator: (*tablestore.ShardIterator)(&lost)})
				if err == nil {
					t.Fatalf("the iterator at the %s is of use", name)
				}
				want(t, err, http.StatusNotFound, "OTSTrimmedDataAccess", trimmed)
			}
			if records, _ := w.all(w.oldest(0)); len(records) != 5 || records[0].key() != "pk1=0 pk2=5" {
				t.Errorf("the oldest are %v", records)
			}
			for at, n := range map[int64]int{began + 4*3600e6 + 1: 5, began + 5*3600e6: 5, began + 9*3600e6: 1} {
				if at < now.micros.Load()-24*3600e6 && test.strict {
					m := iteratorRequest(id, shard)
					m.Timestamp = &at
					w.refused("GetShardIterator", m, engine.CodeTrimmedData, trimmed)
				} else if records, _ := w.all(w.iterator(id, shard, at)); len(records) != n {
					t.Errorf("from %d on there are %v", at, records)
				}
			}
			for _, at := range []int64{0, began, began + 4*3600e6} {
				m := iteratorRequest(id, shard)
				m.Timestamp = &at
				w.refused("GetShardIterator", m, engine.CodeTrimmedData, trimmed)
			}
			// Whoever has read all of them lost nothing, however late.
			now.advance(100 * time.Hour)
			if records, next := w.page(tenth, 0); len(records) != 0 || next != tenth {
				t.Errorf("a reader who is caught up gets %v and goes on at %s", records, next)
			}
			// A record that comes later brings the store into order and is found
			// behind the trimmed.
			ok(t, put(c, key(0, 99)))
			if records, _ := w.page(tenth, 0); len(records) != 1 || records[0].row.Extension.Epoch != 0 {
				t.Errorf("the new records are %v", records)
			}
			// A clock that stands where it stood gets another epoch, though no
			// record is left.
			if err := s.Engine().TrimStream("t", now.now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			now.advance(-time.Minute)
			ok(t, put(c, key(0, 100)))
			if records, _ := w.all(w.oldest(0)); len(records) != 1 || records[0].row.Extension.Epoch != 1 {
				t.Errorf("behind the trimmed there is %v", records)
			}
		})
	}
}

// TestStreamRetention changes the retention of a stream.
func TestStreamRetention(t *testing.T) {
	_, w, c, now := streamed(t, engine.Behavior{})
	iterator := w.oldest(0)
	ok(t, put(c, key(0, 0)))
	now.advance(3 * time.Hour)
	ok(t, setStream(t, c, 2))
	w.refused("GetStreamRecord", recordsRequest(iterator), engine.CodeTrimmedData, trimmed)
	ok(t, setStream(t, c, 4))
	if records, _ := w.page(iterator, 0); len(records) != 1 {
		t.Errorf("with more retention there are %v", records)
	}
}

// TestStreamShards splits and merges partitions and proves the lineage of their shards:
// closed ones end, children have the rest, each key has one shard at a time.
func TestStreamShards(t *testing.T) {
	for _, reset := range []bool{false, true} {
		t.Run(fmt.Sprint("epochs anew ", reset), func(t *testing.T) {
			s, w, c, now := streamed(t, engine.Behavior{Stream: engine.StreamBehavior{ResetEpochs: reset, Skew: time.Second}})
			id := w.stream("t")
			write := func(i int) {
				t.Helper()
				ok(t, put(c, key(i, i)))
			}
			split := func(at int64) {
				t.Helper()
				if err := s.Engine().SplitPartition("t", []plainbuffer.Cell{integerCell("pk1", at)}); err != nil {
					t.Fatal(err)
				}
			}
			write(1)
			write(9)
			unread := w.oldest(0)
			split(5)
			write(2)
			write(8)
			write(5)
			if err := s.Engine().MergePartitions("t", 0); err != nil {
				t.Fatal(err)
			}
			write(3)
			split(7)
			write(7)

			var lineage []string
			for _, shard := range w.shards(id) {
				lineage = append(lineage, strings.ReplaceAll(fmt.Sprintf("%s from %s %s", shard.GetShardId(), shard.GetParentId(), shard.GetParentSiblingId()), id+"_shard_", ""))
			}
			equal(t, "shards", lineage, []string{"0 from  ", "1 from 0 ", "2 from 0 ", "3 from 1 2", "4 from 3 ", "5 from 3 "})
			epochs := [][]int32{{0, 0}, {1}, {0, 0}, {1}, {}, {1}}
			if reset {
				epochs = [][]int32{{0, 0}, {0}, {0, 0}, {0}, {}, {0}}
			}
			for n, keys := range []string{"1 9", "2", "8 5", "3", "", "7"} {
				iterator := w.oldest(n)
				if n == 0 {
					iterator = unread
				}
				records, next := w.all(iterator)
				var got []string
				var at []int32
				for _, r := range records {
					got = append(got, fmt.Sprint(r.row.Key[0].Int()))
					at = append(at, r.row.Extension.Epoch)
					// Every other shard has its clock behind.
					if want := now.micros.Load() - int64(n%2)*1e6; r.row.Extension.Timestamp != want {
						t.Errorf("shard %d has a record of %d, want %d", n, r.row.Extension.Timestamp, want)
					}
				}
				if strings.Join(got, " ") != keys || (next == "") != (n < 4) {
					t.Errorf("shard %d has the keys %q and goes on at %q", n, got, next)
				}
				equal(t, fmt.Sprint("epochs of shard ", n), at, epochs[n])
			}
			// A closed shard whose records have expired is no longer listed, and
			// its iterators are of no use.
			_, end := w.page(w.oldest(5), 0)
			now.advance(24*time.Hour + time.Microsecond)
			if got := w.shards(id); len(got) != 2 || got[0].GetParentId() != shardID(id, 3) {
				t.Errorf("the shards are %v", got)
			}
			w.refused("GetShardIterator", iteratorRequest(id, shardID(id, 3)), engine.CodeTrimmedData, trimmed)
			w.refused("GetStreamRecord", recordsRequest(unread), engine.CodeTrimmedData, trimmed)
			if records, _ := w.page(end, 0); len(records) != 0 {
				t.Errorf("the records are %v", records)
			}
		})
	}
}

// TestStreamLineage splits and merges for long without a write: the first record after it
// is behind those from before, and is not looked for along every path.
func TestStreamLineage(t *testing.T) {
	s, w, c, now := streamed(t, engine.Behavior{})
	ok(t, put(c, key(0, 0)))
	for range 50 {
		ok(t, engineError(s.Engine().SplitPartition("t", []plainbuffer.Cell{integerCell("pk1", 5)})))
		ok(t, engineError(s.Engine().MergePartitions("t", 0)))
	}
	now.advance(-time.Second)
	ok(t, put(c, key(0, 1)))
	shards := w.shards(w.stream("t"))
	if len(shards) != 151 {
		t.Errorf("%d shards", len(shards))
	}
	if records, _ := w.all(w.oldest(150)); len(records) != 1 || records[0].row.Extension.Epoch != 1 {
		t.Errorf("the records are %v", records)
	}
	// The clock stepped back; what was written before is to be read all the same.
	if records, _ := w.all(w.oldest(0)); len(records) != 1 {
		t.Errorf("the first records are %v", records)
	}
}

// TestStreamSkew sets the clock of one partition's machine.
func TestStreamSkew(t *testing.T) {
	s, w, c, now := streamed(t, engine.Behavior{})
	var got []string
	for _, by := range []time.Duration{time.Second, -time.Second, -2 * time.Second, 0} {
		if err := s.Engine().SkewClock("t", 0, by); err != nil {
			t.Fatal(err)
		}
		ok(t, put(c, key(0, 0)))
	}
	records, _ := w.all(w.oldest(0))
	for _, r := range records {
		e := r.row.Extension
		got = append(got, fmt.Sprint(e.Epoch, " ", (e.Timestamp-now.micros.Load())/1e6))
	}
	equal(t, "epochs and seconds", got, []string{"0 1", "1 -1", "2 -2", "2 0"})
	// The first record that is not before a time is found in the order of the
	// shard, in whichever epoch it is.
	id := w.stream("t")
	for off, n := range map[int64]int{-3e6: 4, 0: 4, 1e6: 4, 1e6 + 1: 0} {
		if records, _ := w.all(w.iterator(id, shardID(id, 0), now.micros.Load()+off)); len(records) != n {
			t.Errorf("from %d on there are %d records, want %d", off, len(records), n)
		}
	}
	if s.Engine().SkewClock("t", 1, 0) == nil || s.Engine().SkewClock("none", 0, 0) == nil {
		t.Error("a clock that is not there is set")
	}
}

// TestStreamSizes proves that partitions that grow too large split with their shards,
// while clients write, and that those that got small merge.
func TestStreamSizes(t *testing.T) {
	s := otstest.Run(t, ots.Config{Behavior: engine.Behavior{Partitions: engine.PartitionBehavior{SplitSize: 20_000, MergeSize: 4_000}}})
	c := inProcess(s)
	createStreamed(t, c, 1, -1, false, false, nil)
	w := wireTo(t, s)
	r := newReplica(t, 1, -1)
	f := follow(w, w.stream("t"), r)
	deadline := time.Now().Add(2 * time.Minute)
	rows := 0
	for i := 0; f.ends < 3; i++ {
		if time.Now().After(deadline) {
			t.Fatalf("%d writes split %d shards", i, f.ends)
		}
		rows++
		ok(t, put(c, key(i%7, i), cell{"c", strings.Repeat("x", 100), -1}))
		if i%50 == 0 {
			f.drain()
		}
	}
	f.drain()
	same(t, "the replica", r.dump(0), dumpTable(w, 2))
	for i := range rows {
		ok(t, remove(c, key(i%7, i)))
	}
	for partitions := 0; partitions != 1; {
		d, err := s.Engine().Definition("t")
		ok(t, engineError(err))
		if partitions = len(d.Splits) + 1; time.Now().After(deadline) {
			t.Fatalf("an empty table has %d partitions", partitions)
		}
		ok(t, put(c, key(0, 0), cell{"c", strings.Repeat("x", 100), -1}))
	}
	f.drain()
	same(t, "the replica", r.dump(0), dumpTable(w, 2))
	merged := 0
	for _, shard := range w.shards(f.stream) {
		if shard.ParentSiblingId != nil {
			merged++
		}
	}
	if merged < 3 {
		t.Errorf("%d shards come from merges", merged)
	}
}

// TestStreamLag hides records until they have been there for a while.
func TestStreamLag(t *testing.T) {
	s, w, c, now := streamed(t, engine.Behavior{Stream: engine.StreamBehavior{Lag: time.Second}})
	iterator := w.oldest(0)
	ok(t, put(c, key(0, 0)))
	if err := s.Engine().SplitPartition("t", []plainbuffer.Cell{integerCell("pk1", 0)}); err != nil {
		t.Fatal(err)
	}
	// A closed shard has not ended as long as something is to come.
	if records, next := w.page(iterator, 0); len(records) != 0 || next != iterator {
		t.Errorf("at once there are %v, then %q", records, next)
	}
	now.advance(time.Second)
	if records, next := w.page(iterator, 0); len(records) != 1 || next != "" {
		t.Errorf("a second later there are %v, then %q", records, next)
	}
}

// TestStreamPages proves the bounds of pages: records and bytes.
func TestStreamPages(t *testing.T) {
	_, w, c, _ := streamed(t, engine.Behavior{})
	for i := range 1005 {
		ok(t, put(c, key(0, i)))
	}
	records, next := w.page(w.oldest(0), 5000)
	if len(records) != engine.MaxStreamPage {
		t.Errorf("a page has %d records", len(records))
	}
	if records, _ := w.page(next, 0); len(records) != 5 {
		t.Errorf("the second page has %d records", len(records))
	}
	for i := range 6 {
		ok(t, put(c, key(1, i), cell{"c", strings.Repeat("x", 1<<20), -1}))
	}
	_, next = w.page(next, 5)
	if records, _ := w.page(next, 0); len(records) != 3 {
		t.Errorf("a page has %d records of a MiB", len(records))
	}
}

// TestStreamCapacity proves what a read costs.
func TestStreamCapacity(t *testing.T) {
	_, w, c, _ := streamed(t, engine.Behavior{})
	iterator := w.oldest(0)
	for _, want := range []int32{1, 3} {
		var res otsprotocol.GetStreamRecordResponse
		w.must("GetStreamRecord", recordsRequest(iterator), &res)
		if got := res.GetConsumed().GetCapacityUnit(); got.GetRead() != want || got.GetWrite() != 0 {
			t.Errorf("%d records cost %v, want %d", len(res.StreamRecords), got, want)
		}
		ok(t, put(c, key(0, 0), cell{"c", strings.Repeat("x", 9000), -1}))
	}
}

// TestStreamIndexes keeps streams and global indexes apart, where the switch says so.
func TestStreamIndexes(t *testing.T) {
	const stream, index = "Stream is not supported on table with global index.", "Global index is not supported on table with stream."
	for _, apart := range []bool{false, true} {
		t.Run(fmt.Sprint("apart ", apart), func(t *testing.T) {
			s := otstest.Run(t, ots.Config{Behavior: engine.Behavior{Stream: engine.StreamBehavior{NoGlobalIndexes: apart}}})
			c := inProcess(s)
			meta := &tablestore.TableMeta{TableName: "t"}
			meta.AddPrimaryKeyColumn("pk1", integer)
			meta.AddDefinedColumn("c0", tablestore.DefinedColumn_INTEGER)
			_, err := c.CreateTable(&tablestore.CreateTableRequest{TableMeta: meta, TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1}, ReservedThroughput: &tablestore.ReservedThroughput{}})
			ok(t, err)
			check := func(err error, message string) {
				t.Helper()
				if apart {
					want(t, err, 400, badParameter, message)
				} else {
					ok(t, err)
				}
			}
			create := func(name string) error {
				_, err := c.CreateIndex(&tablestore.CreateIndexRequest{MainTableName: "t", IndexMeta: &tablestore.IndexMeta{IndexName: name, Primarykey: []string{"c0"}}})
				return err
			}
			ok(t, create("i"))
			check(setStream(t, c, 24), stream)
			_, err = c.DeleteIndex(&tablestore.DeleteIndexRequest{MainTableName: "t", IndexName: "i"})
			ok(t, err)
			ok(t, setStream(t, c, 24))
			check(create("j"), index)
		})
	}
}

// TestStreamRestart proves that streams, shards and iterators outlive the server.
func TestStreamRestart(t *testing.T) {
	now := newClock(time.UnixMilli(1_700_000_000_000))
	config := ots.Config{Dir: t.TempDir(), Now: now.now}
	var iterator, id string
	for round := range 4 {
		s, err := ots.New(config)
		ok(t, err)
		c, w := inProcess(s), wireTo(t, s)
		if round == 0 {
			createStreamed(t, c, 1, -1, false, false, nil)
			iterator, id = w.oldest(0), w.stream("t")
		} else {
			records, next := w.page(iterator, 0)
			if len(records) != 1 || records[0].row.Extension.RowIndex != int32(round-1) || w.stream("t") != id {
				t.Errorf("after restart %d there is %v", round, records)
			}
			iterator = next
		}
		ok(t, put(c, key(0, round)))
		ok(t, s.Close())
	}
}

// FuzzIterator holds the parser of iterators against its inverse.
func FuzzIterator(f *testing.F) {
	f.Add("")
	f.Add("aQ")
	f.Add((&engine.Iterator{Stream: "t_1", Shard: 3}).String())
	f.Fuzz(func(t *testing.T, text string) {
		if it, err := engine.ParseIterator(text); err == nil && it.String() != text {
			t.Errorf("%q is read and written as %q", text, it)
		}
	})
}

// FuzzStreamReads asks for iterators and reads from them: the answer is one of the
// service's errors or leads on, and ends at the stream's last record.
func FuzzStreamReads(f *testing.F) {
	now := newClock(time.UnixMilli(1_700_000_000_000))
	s := otstest.New(f, ots.Config{Now: now.now, Behavior: engine.Behavior{Stream: engine.StreamBehavior{Seeks: 2}}})
	c := inProcess(s)
	createStreamed(f, c, 1, -1, false, false, nil)
	const records = 5
	for i := range records {
		ok(f, put(c, key(0, i)))
	}
	w := wireTo(f, s)
	id := w.stream("t")
	shard, iterator := shardID(id, 0), w.oldest(0)
	var seek otsprotocol.GetShardIteratorResponse
	ask := iteratorRequest(id, shard)
	ask.Timestamp = proto.Int64(1_700_000_000_000_000)
	w.must("GetShardIterator", ask, &seek)
	f.Add(shard, "", int64(0), "", int32(0))
	f.Add(shard, seek.GetNextToken(), int64(0), "", int32(1))
	f.Add("", "", int64(0), iterator, int32(2))
	f.Fuzz(func(t *testing.T, shard, token string, at int64, iterator string, limit int32) {
		if !utf8.ValidString(shard) || !utf8.ValidString(token) || !utf8.ValidString(iterator) {
			return
		}
		w := wireTo(t, s)
		for tokens := 0; iterator == ""; tokens++ {
			r := iteratorRequest(id, shard)
			if token != "" {
				r.Token = &token
			} else {
				r.Timestamp = &at
			}
			var res otsprotocol.GetShardIteratorResponse
			if w.ask("GetShardIterator", r, &res) != nil {
				return
			}
			if iterator, token = res.GetShardIterator(), res.GetNextToken(); iterator == "" && token == "" || tokens > 3 {
				t.Fatalf("no iterator after %d tokens", tokens)
			}
		}
		for read := 0; ; {
			r := recordsRequest(iterator)
			if limit != 0 {
				r.Limit = &limit
			}
			var res otsprotocol.GetStreamRecordResponse
			if w.ask("GetStreamRecord", r, &res) != nil {
				return
			}
			if len(res.StreamRecords) == 0 {
				return
			}
			if read += len(res.StreamRecords); read > records {
				t.Fatalf("%d records of %d", read, records)
			}
			iterator = res.GetNextShardIterator()
		}
	})
}
