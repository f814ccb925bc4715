package ots_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// seedRequests are good requests of the operations that take bytes.
func seedRequests() map[string]proto.Message {
	ignore := &otsprotocol.Condition{RowExistence: otsprotocol.RowExistenceExpectation_IGNORE.Enum()}
	row := block([]plainbuffer.Cell{keyCell("pk1", "a")}, plainbuffer.Cell{Name: []byte("c"), Type: plainbuffer.String, Data: []byte("v"), HasValue: true})
	return map[string]proto.Message{
		"PutRow":    &otsprotocol.PutRowRequest{TableName: proto.String("t"), Row: row, Condition: ignore},
		"UpdateRow": &otsprotocol.UpdateRowRequest{TableName: proto.String("t"), RowChange: row, Condition: ignore},
		"DeleteRow": &otsprotocol.DeleteRowRequest{TableName: proto.String("t"), PrimaryKey: key("a").Build(true), Condition: ignore},
		"GetRow":    &otsprotocol.GetRowRequest{TableName: proto.String("t"), PrimaryKey: key("a").Build(false), MaxVersions: proto.Int32(1), Token: make([]byte, 12)},
		"GetRange": &otsprotocol.GetRangeRequest{TableName: proto.String("t"), Direction: otsprotocol.Direction_FORWARD.Enum(), MaxVersions: proto.Int32(1),
			InclusiveStartPrimaryKey: key(lowest).Build(false), ExclusiveEndPrimaryKey: key(highest).Build(false), ColumnsToGet: []string{"c"},
			DataBlockTypeHint: otsprotocol.DataBlockType_DBT_SIMPLE_ROW_MATRIX.Enum()},
		"BatchGetRow": &otsprotocol.BatchGetRowRequest{Tables: []*otsprotocol.TableInBatchGetRowRequest{{TableName: proto.String("t"), PrimaryKey: [][]byte{key("a").Build(false)}, MaxVersions: proto.Int32(1)}}},
		"BatchWriteRow": &otsprotocol.BatchWriteRowRequest{Tables: []*otsprotocol.TableInBatchWriteRowRequest{{TableName: proto.String("t"),
			Rows: []*otsprotocol.RowInBatchWriteRowRequest{{Type: otsprotocol.OperationType_UPDATE.Enum(), RowChange: row, Condition: ignore}}}}},
		"CreateTable": &otsprotocol.CreateTableRequest{
			TableMeta:          &otsprotocol.TableMeta{TableName: proto.String("u"), PrimaryKey: []*otsprotocol.PrimaryKeySchema{{Name: proto.String("pk"), Type: otsprotocol.PrimaryKeyType_STRING.Enum()}}},
			ReservedThroughput: &otsprotocol.ReservedThroughput{CapacityUnit: &otsprotocol.CapacityUnit{}},
			TableOptions:       &otsprotocol.TableOptions{TimeToLive: proto.Int32(-1), MaxVersions: proto.Int32(1)}},
		"UpdateTable":              &otsprotocol.UpdateTableRequest{TableName: proto.String("t"), TableOptions: &otsprotocol.TableOptions{MaxVersions: proto.Int32(2)}},
		"DescribeTable":            &otsprotocol.DescribeTableRequest{TableName: proto.String("t")},
		"ComputeSplitPointsBySize": &otsprotocol.ComputeSplitPointsBySizeRequest{TableName: proto.String("t"), SplitSize: proto.Int64(1)},
		"CreateIndex": &otsprotocol.CreateIndexRequest{MainTableName: proto.String("t"), IndexMeta: &otsprotocol.IndexMeta{Name: proto.String("i"), PrimaryKey: []string{"c"},
			IndexType: otsprotocol.IndexType_IT_GLOBAL_INDEX.Enum(), IndexUpdateMode: otsprotocol.IndexUpdateMode_IUM_ASYNC_INDEX.Enum()}},
		"AddDefinedColumn":  &otsprotocol.AddDefinedColumnRequest{TableName: proto.String("t"), Columns: []*otsprotocol.DefinedColumnSchema{{Name: proto.String("d"), Type: otsprotocol.DefinedColumnType_DCT_BLOB.Enum()}}},
		"CreateSearchIndex": &otsprotocol.CreateSearchIndexRequest{TableName: proto.String("t"), IndexName: proto.String("s"), Schema: &otsprotocol.IndexSchema{}},
		"Search":            &otsprotocol.SearchRequest{TableName: proto.String("t"), IndexName: proto.String("s"), SearchQuery: []byte{}},
		"UpdateSearchIndex": &otsprotocol.UpdateSearchIndexRequest{TableName: proto.String("t"), IndexName: proto.String("s"), TimeToLive: proto.Int32(-1),
			QueryFlowWeight: []*otsprotocol.QueryFlowWeight{{IndexName: proto.String("s"), Weight: proto.Int32(100)}}},
		"DropIndex":             &otsprotocol.DropIndexRequest{MainTableName: proto.String("t"), IndexName: proto.String("i")},
		"StartLocalTransaction": &otsprotocol.StartLocalTransactionRequest{TableName: proto.String("t"), Key: key("a").Build(false)},
		"CommitTransaction":     &otsprotocol.CommitTransactionRequest{TransactionId: proto.String("0123456789abcdef0123456789abcdef")},
		"AbortTransaction":      &otsprotocol.AbortTransactionRequest{TransactionId: proto.String("0123456789abcdef0123456789abcdef")},
		"ListStream":            &otsprotocol.ListStreamRequest{TableName: proto.String("t")},
		"DescribeStream":        &otsprotocol.DescribeStreamRequest{StreamId: proto.String("s"), InclusiveStartShardId: proto.String("s"), ShardLimit: proto.Int32(1)},
		"GetShardIterator":      &otsprotocol.GetShardIteratorRequest{StreamId: proto.String("s"), ShardId: proto.String("s"), Timestamp: proto.Int64(1), Token: proto.String("t")},
		"GetStreamRecord":       &otsprotocol.GetStreamRecordRequest{ShardIterator: proto.String("i"), Limit: proto.Int32(1), TableName: proto.String("t")},
		"ListSearchIndex":       &otsprotocol.ListSearchIndexRequest{TableName: proto.String("t")},
		"DescribeSearchIndex":   &otsprotocol.DescribeSearchIndexRequest{TableName: proto.String("t"), IndexName: proto.String("s"), IncludeSyncStat: proto.Bool(true)},
		"DeleteSearchIndex":     &otsprotocol.DeleteSearchIndexRequest{TableName: proto.String("t"), IndexName: proto.String("s")},
		"ComputeSplits":         &otsprotocol.ComputeSplitsRequest{TableName: proto.String("t"), SearchIndexSplitsOptions: &otsprotocol.SearchIndexSplitsOptions{IndexName: proto.String("s")}},
		"ParallelScan":          &otsprotocol.ParallelScanRequest{TableName: proto.String("t"), IndexName: proto.String("s"), ScanQuery: []byte{}},
	}
}

// FuzzServe sends bytes as the body of every operation: the answer is a good one or one
// of the service's errors, never a broken connection, and not much larger than a page.
func FuzzServe(f *testing.F) {
	s := otstest.New(f, ots.Config{})
	create(f, inProcess(s), tablestore.TableOption{DeviationCellVersionInSec: anyTime}, tablestore.PrimaryKeyType_STRING)
	ok(f, put(inProcess(s), key("a"), cell{"c", "v", 1}))
	for op, m := range seedRequests() {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(op, b)
	}
	f.Fuzz(func(t *testing.T, op string, body []byte) {
		for _, c := range []byte(op) {
			if c < 'A' || c > 'z' {
				return
			}
		}
		if op == "DeleteTable" {
			return
		}
		serve(t, s, op, body)
	})
}

func serve(t *testing.T, s *ots.Server, op string, body []byte) int {
	t.Helper()
	res, err := s.RoundTrip(requestBytes(t, "http://in-process", op, body))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if len(answer) > 5<<20+len(body) {
		t.Fatalf("an answer of %d bytes", len(answer))
	}
	if res.StatusCode >= 500 {
		t.Fatalf("%s of %x is answered %d: %s", op, body, res.StatusCode, answer)
	}
	if res.StatusCode != 200 {
		var e otsprotocol.Error
		if err := proto.Unmarshal(answer, &e); err != nil || e.GetCode() == "" {
			t.Fatalf("the answer %d is no error of the service: %q", res.StatusCode, answer)
		}
	}
	return res.StatusCode
}

// TestMutatedRequests does for a moment what FuzzServe does for long.
func TestMutatedRequests(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	s := otstest.New(t, ots.Config{})
	create(t, inProcess(s), tablestore.TableOption{DeviationCellVersionInSec: anyTime}, tablestore.PrimaryKeyType_STRING)
	good, bad := 0, 0
	for op, m := range seedRequests() {
		b, err := proto.Marshal(m)
		ok(t, err)
		for range 300 {
			c := append([]byte(nil), b...)
			for range 1 + rng.IntN(3) {
				if len(c) == 0 {
					break
				}
				switch at := rng.IntN(len(c)); rng.IntN(4) {
				case 0:
					c = c[:at]
				case 1:
					c = append(c[:at], c[at+1:]...)
				default:
					c[at] ^= 1 << rng.IntN(8)
				}
			}
			if serve(t, s, op, c) == 200 {
				good++
			} else {
				bad++
			}
		}
	}
	if good == 0 || bad == 0 {
		t.Errorf("%d good answers, %d refusals", good, bad)
	}
}

// TestMessageBounds sends messages that a decoder without bounds dies of, or takes a
// hundred times their memory for. It counts the process's allocations, so no test runs
// beside it.
func TestMessageBounds(t *testing.T) {
	s := otstest.New(t, ots.Config{})
	create(t, inProcess(s), tablestore.TableOption{}, text)
	// nested is n fields of a number in one another, within those of path.
	nested := func(n int, number byte, path ...byte) []byte {
		var heads [][]byte
		size := 0
		for i := range n + len(path) {
			tag := number
			if i >= n {
				tag = path[len(path)-1-(i-n)]
			}
			head := append([]byte{tag<<3 | 2}, varint(size)...)
			heads, size = append(heads, head), size+len(head)
		}
		slices.Reverse(heads)
		return slices.Concat(heads...)
	}
	named := func(numbers ...byte) (b []byte) {
		for _, n := range numbers {
			b = append(b, n<<3|2, 1, 't')
		}
		return b
	}
	const levels, many = "more than 100 messages in one another", "more than 100000 fields"
	for name, test := range map[string]struct {
		op   string
		body []byte
		text string
	}{
		"fields of fields":   {"CreateSearchIndex", append(named(1, 2), nested(1_000_000, 8, 3, 1)...), levels},
		"many fields":        {"CreateSearchIndex", append(append(named(1, 2), 3<<3|2, 0x80, 0x88, 0x7A), bytes.Repeat([]byte{1<<3 | 2, 0}, 1_000_000)...), many},
		"many columns":       {"GetRow", append(named(1), bytes.Repeat([]byte{3<<3 | 2, 0}, 2_000_000)...), many},
		"groups":             {"DescribeTable", append(named(1), bytes.Repeat([]byte{15<<3 | 3}, 5_000_000)...), "a field is of an unknown kind"},
		"a query of queries": {"Search", append(append(named(1, 2), 4<<3|2, 0x80, 0x88, 0x7A), bytes.Repeat([]byte{11<<3 | 2, 0}, 1_000_000)...), many},
	} {
		t.Run(name, func(t *testing.T) {
			if test.op == "Search" {
				ok(t, createSearch(inProcess(s), "t", fields("c")))
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			res, err := s.RoundTrip(requestBytes(t, "http://in-process", test.op, test.body))
			runtime.ReadMemStats(&after)
			ok(t, err)
			var refusal otsprotocol.Error
			answer, err := io.ReadAll(res.Body)
			ok(t, err)
			ok(t, proto.Unmarshal(answer, &refusal))
			if res.StatusCode != 400 || refusal.GetCode() != badParameter || !strings.Contains(refusal.GetMessage(), test.text) {
				t.Errorf("answered %d, %v", res.StatusCode, &refusal)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > 64<<20 {
				t.Errorf("%d bytes take %d MiB", len(test.body), took>>20)
			}
		})
	}
}
