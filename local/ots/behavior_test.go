package ots_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/common"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// TestSwitchesOfWrites makes one write under each switch and without it.
func TestSwitchesOfWrites(t *testing.T) {
	t.Parallel()
	now := newClock(time.UnixMilli(1_700_000_000_750))
	at := now.millis()
	s := otstest.Run(t, ots.Config{Now: now.now})
	c := connect(s)
	create(t, c, tablestore.TableOption{MaxVersion: 2000, DeviationCellVersionInSec: 100}, text)
	versions := func(n int) (cells []cell) {
		for i := range n {
			cells = append(cells, cell{"c", "v", at - int64(i)})
		}
		return cells
	}
	window := func(low, high int64) string {
		return fmt.Sprintf("Invalid timestamp. Cell:c. Timestamp:%d. MinTimestamp:%d. MaxTimestamp:%d.", at-100_000-1, low, high)
	}
	for _, test := range []struct {
		name     string
		behavior engine.Behavior
		do       func() error
		without  string // the error, "" for none
		with     string
	}{
		{"PutRow of several versions", engine.Behavior{Writes: engine.WriteBehavior{RefusePutVersions: true}},
			func() error { return put(c, key("a"), versions(2)...) },
			"", "Duplicated attribute column name while putting row."},
		{"UpdateRow of several versions", engine.Behavior{Writes: engine.WriteBehavior{RefusePutVersions: true}},
			func() error { return update(c, key("a"), versions(2)...) }, "", ""},
		{"1025 versions of a column", engine.Behavior{Writes: engine.WriteBehavior{CountColumns: true}},
			func() error { return update(c, key("a"), versions(1025)...) },
			"The number of attribute columns exceeds the limit, limit count: 1024, column count: 1025.", ""},
		{"a string that is no UTF-8", engine.Behavior{Writes: engine.WriteBehavior{RequireUTF8: true}},
			func() error { return put(c, key("a"), cell{"c", "\xff", at}) },
			"", "Value of column 'c' must be UTF8 encoding."},
		{"a millisecond before the window", engine.Behavior{Writes: engine.WriteBehavior{SecondsWindow: true}},
			func() error { return put(c, key("a"), cell{"c", "v", at - 100_000 - 1}) },
			window(at-100_000, at+100_000), ""},
		{"a second before the window", engine.Behavior{},
			func() error { return put(c, key("a"), cell{"c", "v", at - 100_000 - 1}) },
			window(at-100_000, at+100_000), window(at-100_000, at+100_000)},
	} {
		t.Run(test.name, func(t *testing.T) {
			for i, behavior := range []engine.Behavior{{}, test.behavior} {
				s.Engine().SetBehavior(behavior)
				err := test.do()
				if message := []string{test.without, test.with}[i]; message != "" {
					want(t, err, 400, badParameter, message)
				} else {
					ok(t, err)
				}
			}
		})
	}
	s.Engine().SetBehavior(engine.Behavior{Writes: engine.WriteBehavior{SecondsWindow: true}})
	ok(t, put(c, key("a"), cell{"c", "v", at - 100_750}))
	if err := put(c, key("a"), cell{"c", "v", at - 100_751}); err == nil {
		t.Error("a second before the window is in it")
	}
	if err := put(c, key("a"), cell{"c", "v", at + 99_250}); err == nil {
		t.Error("the window's end is in it")
	}
}

// TestDocumentedLimits proves the lower limits of reads.
func TestDocumentedLimits(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	create(t, c, tablestore.TableOption{}, text)
	columns := func(n int) func(*tablestore.RangeRowQueryCriteria) {
		return func(q *tablestore.RangeRowQueryCriteria) {
			for i := range n {
				q.ColumnsToGet = append(q.ColumnsToGet, fmt.Sprint("c", i))
			}
		}
	}
	filters := func(n int) func(*tablestore.RangeRowQueryCriteria) {
		and := tablestore.NewCompositeColumnCondition(tablestore.LO_AND)
		for range n - 1 {
			and.AddFilter(tablestore.NewSingleColumnCondition("c", tablestore.CT_EQUAL, "v"))
		}
		return func(q *tablestore.RangeRowQueryCriteria) { q.Filter = and }
	}
	for documented, limit := range map[bool][2]int{false: {1024, 32}, true: {128, 10}} {
		s.Engine().SetBehavior(engine.Behavior{Reads: engine.ReadBehavior{DocumentedLimits: documented}})
		page(t, c, key(lowest), key(highest), columns(limit[0]))
		page(t, c, key(lowest), key(highest), filters(limit[1]))
		_, err := tryPage(c, key(lowest), key(highest), columns(limit[0]+1))
		want(t, err, 400, badParameter, fmt.Sprintf("The number of columns from the request exceeds the limit, limit count: %d, column count: %d.", limit[0], limit[0]+1))
		_, err = tryPage(c, key(lowest), key(highest), filters(limit[1]+1))
		want(t, err, 400, badParameter, fmt.Sprintf("The count of filter exceeds the max: %d.", limit[1]))
	}
}

// TestKindsOfSplitPoints proves that the ranges between points of every kind hold the
// rows of the table once.
func TestKindsOfSplitPoints(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	create(t, c, tablestore.TableOption{}, text, integer)
	const rows = 60
	for i := range rows {
		ok(t, put(c, key(fmt.Sprint("p", i/15), i*10), cell{"c", strings.Repeat("v", 100_000), -1}))
	}
	points := map[engine.SplitPoints]string{}
	for kind, columns := range map[engine.SplitPoints][]int{engine.SplitAtRows: {2}, engine.SplitAtParts: {1, 2}, engine.SplitBetween: {2}} {
		s.Engine().SetBehavior(engine.Behavior{Partitions: engine.PartitionBehavior{SplitPoints: kind}})
		var res otsprotocol.ComputeSplitPointsBySizeResponse
		if err := send(t, s, "ComputeSplitPointsBySize", &otsprotocol.ComputeSplitPointsBySizeRequest{TableName: proto.String("t"), SplitSize: proto.Int64(1), SplitSizeUnitInByte: proto.Int64(1 << 20)}, &res); err != nil {
			t.Fatal(err)
		}
		if len(res.SplitPoints) < 4 {
			t.Fatalf("kind %d: %d points", kind, len(res.SplitPoints))
		}
		from, n := key(lowest, lowest), 0
		for _, p := range append(res.SplitPoints, nil) {
			to := key(highest, highest)
			if p != nil {
				var row plainbuffer.Row
				ok(t, plainbuffer.ScanKey(p, &row))
				if !slices.Contains(columns, len(row.Key)) {
					t.Errorf("kind %d: a point of %d columns", kind, len(row.Key))
				}
				to = key(string(row.Key[0].Data), lowest)
				if len(row.Key) == 2 {
					to = key(string(row.Key[0].Data), row.Key[1].Int())
				}
				points[kind] += keyText(to) + " "
			}
			n += len(page(t, c, from, to).Rows)
			from = to
		}
		if n != rows {
			t.Errorf("kind %d: the ranges have %d rows, want %d", kind, n, rows)
		}
	}
	if points[engine.SplitAtRows] == points[engine.SplitAtParts] || points[engine.SplitAtRows] == points[engine.SplitBetween] {
		t.Errorf("the kinds do not differ: %v", points)
	}
}

// TestReadyCodes proves that a new table refuses reads and writes with any of the
// service's errors while it is being loaded, and serves then.
func TestReadyCodes(t *testing.T) {
	t.Parallel()
	for code, status := range map[string]int{"": 404, engine.CodePartitionNotReady: 503, engine.CodeObjectNotExist: 404} {
		now := newClock(time.UnixMilli(1_700_000_000_000))
		s := otstest.Run(t, ots.Config{Now: now.now, Behavior: engine.Behavior{Tables: engine.TableBehavior{ReadyDelay: time.Minute, ReadyCode: code}}})
		c := connect(s)
		create(t, c, tablestore.TableOption{}, text)
		if code == "" {
			code = engine.CodeTableNotReady
		}
		want(t, put(c, key("a")), status, code, engine.Text(code))
		_, err := tryPage(c, key(lowest), key(highest))
		want(t, err, status, code, engine.Text(code))
		if got := describeRaw(t, s, "t").GetTableStatus(); got != otsprotocol.TableStatus_LOADING {
			t.Errorf("status %v", got)
		}
		now.advance(time.Minute)
		ok(t, put(c, key("a")))
	}
}

// TestThrottledRanges proves that a range ends its page where the capacity does, and goes
// on when there is more.
func TestThrottledRanges(t *testing.T) {
	t.Parallel()
	now := newClock(time.UnixMilli(1_700_000_000_000))
	s := otstest.Run(t, ots.Config{Now: now.now, Statuses: map[string]int{engine.CodeOperationThrottled: 429}})
	c := connect(s)
	create(t, c, tablestore.TableOption{}, integer)
	const rows = 50
	for i := range rows {
		ok(t, put(c, key(i), cell{"c", strings.Repeat("v", 4000), -1}))
	}
	s.Engine().SetBehavior(engine.Behavior{Capacity: engine.CapacityBehavior{Read: 10, ThrottleCode: engine.CodeOperationThrottled}})
	from, read, pages, refused := key(lowest), 0, 0, 0
	for from != nil {
		res, err := tryPage(c, from, key(highest))
		if err != nil {
			want(t, err, 429, "OTSOperationThrottled", engine.Text(engine.CodeOperationThrottled))
			refused++
			now.advance(time.Second)
			continue
		}
		if n := len(res.Rows); n == 0 || n > 11 {
			t.Fatalf("a page of %d rows", n)
		}
		read, pages, from = read+len(res.Rows), pages+1, res.NextStartPrimaryKey
	}
	if read != rows || pages < 5 || refused < 4 {
		t.Errorf("%d rows in %d pages, %d refused", read, pages, refused)
	}
}

// TestReservedCapacity proves what becomes of capacity that is asked for.
func TestReservedCapacity(t *testing.T) {
	t.Parallel()
	now := newClock(time.Unix(1_700_000_000, 0))
	s := otstest.Run(t, ots.Config{Now: now.now})
	c := connect(s)
	make := func(name string, read, write int) error {
		meta := &tablestore.TableMeta{TableName: name}
		meta.AddPrimaryKeyColumn("pk1", text)
		_, err := c.CreateTable(&tablestore.CreateTableRequest{TableMeta: meta, TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
			ReservedThroughput: &tablestore.ReservedThroughput{Readcap: read, Writecap: write}})
		return err
	}
	change := func(read, write int) error {
		_, err := c.UpdateTable(&tablestore.UpdateTableRequest{TableName: "t", ReservedThroughput: &tablestore.ReservedThroughput{Readcap: read, Writecap: write}})
		return err
	}
	ok(t, make("t", 0, 0))
	want(t, make("u", -1, 0), 400, badParameter, "Invalid Capacity Unit:-1. Capacity Unit must be nonnegative.")
	s.Engine().SetBehavior(engine.Behavior{Capacity: engine.CapacityBehavior{Reserve: engine.ReserveInvalid}})
	want(t, make("u", 1, 0), 400, badParameter, "Can not reserve read capacity unit on capacity cluster.")
	want(t, make("u", 0, 1), 400, badParameter, "Can not reserve write capacity unit on capacity cluster.")
	want(t, change(1, 1), 400, "OTSForbiddenUpdateCapacityUnit", "Your instance is forbidden to update capacity unit.")
	ok(t, make("u", 0, 0))
	s.Engine().SetBehavior(engine.Behavior{Capacity: engine.CapacityBehavior{Reserve: engine.ReserveForbidden}})
	want(t, make("w", 1, 0), 400, "OTSForbiddenUpdateCapacityUnit", "Your instance is forbidden to update capacity unit.")
	s.Engine().SetBehavior(engine.Behavior{Capacity: engine.CapacityBehavior{ReserveInterval: 2 * time.Minute}})
	now.advance(2 * time.Minute)
	ok(t, change(1, 1))
	now.advance(time.Minute)
	want(t, change(2, 1), 403, "OTSTooFrequentReservedThroughputAdjustment", "Capacity unit adjustment is too frequent.")
	ok(t, change(1, 1))
	now.advance(time.Minute)
	ok(t, change(2, 1))
}

func TestLeastTTL(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{Behavior: engine.Behavior{Tables: engine.TableBehavior{MinTTL: 86400}}})
	c := connect(s)
	create(t, c, tablestore.TableOption{TimeToAlive: 86400}, text)
	set := func(ttl int) error {
		_, err := c.UpdateTable(&tablestore.UpdateTableRequest{TableName: "t", TableOption: &tablestore.TableOption{TimeToAlive: ttl, MaxVersion: 1}})
		return err
	}
	want(t, set(86399), 400, badParameter, "TimeToLive must be -1 or not less than 86400.")
	ok(t, set(-1))
	s.Engine().SetBehavior(engine.Behavior{})
	ok(t, set(1))
}

// TestAnswersToVersion4 proves both ways to sign the answer to a request that is signed
// in version 4, and the header that may have any value.
func TestAnswersToVersion4(t *testing.T) {
	t.Parallel()
	for _, v4 := range []bool{false, true} {
		s := otstest.Run(t, ots.Config{SignV4Answers: v4, ContentType: "application/x-protobuf"})
		var answer *http.Response
		config := tablestore.NewDefaultTableStoreConfig()
		config.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			res, err := s.RoundTrip(r)
			answer = res
			return res, err
		})
		credentials := common.CreateByCredentials(&common.DefaultCredentials{AccessKeyID: ots.DefaultKeyID, AccessKeySecret: ots.DefaultKeySecret}, "cn-hangzhou")
		_, err := tablestore.NewClientWithCredentialsProvider("http://in-process", "local", credentials, config).ListTable()
		ok(t, err)
		var lines []string
		for name := range answer.Header {
			if name := strings.ToLower(name); strings.HasPrefix(name, "x-ots-") {
				lines = append(lines, name+":"+answer.Header.Get(name)+"\n")
			}
		}
		slices.Sort(lines)
		signed := strings.Join(lines, "") + "/ListTable"
		sum := func(key, text string) string {
			m := hmac.New(sha256.New, []byte(key))
			m.Write([]byte(text))
			return string(m.Sum(nil))
		}
		k := sum("aliyun_v4"+ots.DefaultKeySecret, answer.Request.Header.Get("x-ots-signdate"))
		for _, part := range []string{"cn-hangzhou", "ots", "aliyun_v4_request"} {
			k = sum(k, part)
		}
		signature := base64.StdEncoding.EncodeToString([]byte(sum(base64.StdEncoding.EncodeToString([]byte(k)), signed)))
		if same := answer.Header.Get("Authorization") == "OTS "+ots.DefaultKeyID+":"+signature; same != v4 {
			t.Errorf("signed in version 4: %v, want %v", same, v4)
		}
		if got := answer.Header.Get("x-ots-contenttype"); got != "application/x-protobuf" {
			t.Errorf("content type %q", got)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestRefusedQueries proves the words of queries that cannot be.
func TestRefusedQueries(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{})
	create(t, connect(s), tablestore.TableOption{}, text)
	number := func(n int64) *int64 { return &n }
	marked := key("a").Build(true)
	filter := func(f tablestore.ColumnFilter) []byte { return f.Serialize() }
	not := tablestore.NewCompositeColumnCondition(tablestore.LO_NOT)
	not.AddFilter(tablestore.NewSingleColumnCondition("c", tablestore.CT_EQUAL, "v"))
	not.AddFilter(tablestore.NewSingleColumnCondition("c", tablestore.CT_EQUAL, "v"))
	and := tablestore.NewCompositeColumnCondition(tablestore.LO_AND)
	and.AddFilter(tablestore.NewSingleColumnCondition("c", tablestore.CT_EQUAL, "v"))
	for _, test := range []struct {
		name   string
		change func(*otsprotocol.GetRowRequest)
		text   string
	}{
		{"start without end", func(r *otsprotocol.GetRowRequest) { r.TimeRange = &otsprotocol.TimeRange{StartTime: number(1)} }, "Start and end time must be given at the same time."},
		{"specific time and versions", func(r *otsprotocol.GetRowRequest) {
			r.TimeRange = &otsprotocol.TimeRange{SpecificTime: number(1)}
		}, "Specific tiemstamp and max versions cannot be given at the same time."},
		{"specific time and range", func(r *otsprotocol.GetRowRequest) {
			r.MaxVersions, r.TimeRange = nil, &otsprotocol.TimeRange{SpecificTime: number(1), StartTime: number(1), EndTime: number(2)}
		}, "Specific tiemstamp and time range cannot be given at the same time."},
		{"all three", func(r *otsprotocol.GetRowRequest) {
			r.TimeRange = &otsprotocol.TimeRange{SpecificTime: number(1), StartTime: number(1), EndTime: number(2)}
		}, "Specific timestamp, time range and max versions cannot be given at the same time."},
		{"negative time", func(r *otsprotocol.GetRowRequest) {
			r.MaxVersions, r.TimeRange = nil, &otsprotocol.TimeRange{SpecificTime: number(-1)}
		}, "Specific timestamp cannot be less than 0."},
		{"no versions at all", func(r *otsprotocol.GetRowRequest) { r.MaxVersions = proto.Int32(0) }, "Invalid max versions: 0. Reason: Max versions must be positive."},
		{"a key to be deleted", func(r *otsprotocol.GetRowRequest) { r.PrimaryKey = marked }, "Delete marker cannot be given."},
		{"broken filter", func(r *otsprotocol.GetRowRequest) { r.Filter = []byte{1} }, "Deserialize filter failed."},
		{"NOT of two", func(r *otsprotocol.GetRowRequest) { r.Filter = filter(not) }, "Invalid NOT operator: the number of sub-filters must be 1."},
		{"AND of one", func(r *otsprotocol.GetRowRequest) { r.Filter = filter(and) }, "Invalid AND/OR operator: the number of sub-filters must be 2."},
		{"page before the first column", func(r *otsprotocol.GetRowRequest) {
			r.Filter = filter(&tablestore.PaginationFilter{Offset: -1, Limit: 1})
		}, "Offset in ColumnPaginationFilter must be greater than or equal to 0."},
		{"page of nothing", func(r *otsprotocol.GetRowRequest) { r.Filter = filter(&tablestore.PaginationFilter{}) }, "Limit in ColumnPaginationFilter must be greater than 0."},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := &otsprotocol.GetRowRequest{TableName: proto.String("t"), PrimaryKey: key("a").Build(false), MaxVersions: proto.Int32(1)}
			test.change(r)
			err := send(t, s, "GetRow", r, nil)
			if err.GetCode() != badParameter || err.GetMessage() != test.text {
				t.Errorf("error %v, want %q", err, test.text)
			}
		})
	}
	ignored := &otsprotocol.Condition{RowExistence: otsprotocol.RowExistenceExpectation_IGNORE.Enum()}
	for name, test := range map[string]struct {
		op   string
		m    proto.Message
		text string
	}{
		"delete without its mark": {"DeleteRow", &otsprotocol.DeleteRowRequest{TableName: proto.String("t"), PrimaryKey: key("a").Build(false), Condition: ignored}, "Invalid request of delete row: missing RowDeleteMarker in request."},
		"put with a mark":         {"PutRow", &otsprotocol.PutRowRequest{TableName: proto.String("t"), Row: marked, Condition: ignored}, "Invalid request of put/update row: unexpected RowDeleteMarker in request."},
		"a put that increments": {"PutRow", &otsprotocol.PutRowRequest{TableName: proto.String("t"), Condition: ignored,
			Row: block([]plainbuffer.Cell{keyCell("pk1", "a")}, plainbuffer.Cell{Name: []byte("c"), Op: plainbuffer.DeleteAll})}, "OpType cannot be given for column name:c in PutRow."},
		"delete of no version": {"UpdateRow", &otsprotocol.UpdateRowRequest{TableName: proto.String("t"), Condition: ignored,
			RowChange: block([]plainbuffer.Cell{keyCell("pk1", "a")}, plainbuffer.Cell{Name: []byte("c"), Op: plainbuffer.DeleteOne})}, "Timestamp must be given when type is DELETE_ONE_VERSION."},
	} {
		t.Run(name, func(t *testing.T) {
			err := send(t, s, test.op, test.m, nil)
			if err.GetCode() != badParameter || err.GetMessage() != test.text {
				t.Errorf("error %v, want %q", err, test.text)
			}
		})
	}
}
