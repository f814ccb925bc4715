package tablestore_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/tablestore"
)

// streamDefinition is the table of streams' tests.
func streamDefinition() table.Definition {
	return table.Definition{
		Name:    "t",
		Schema:  table.Schema{{Name: "n", Type: table.IntegerKey}},
		Options: table.Options{TTL: table.NoTTL, MaxVersions: 1, Deviation: table.WidestDeviation, AllowUpdate: true},
	}
}

// A streamServer is a server in the test's hand, and what changes its table.
type streamServer struct {
	*ots.Server
	t      *testing.T
	client *tablestore.Client
	writer *sdk.TableStoreClient
	skew   atomic.Int64 // of the server's clock, in nanoseconds
}

func newStreamServer(t *testing.T, config ots.Config, with ...func(*tablestore.Config)) *streamServer {
	t.Helper()
	s := &streamServer{t: t}
	config.Now = s.now
	s.Server = otstest.Run(t, config)
	s.client = connect(t, s.Server, with...)
	s.writer = sdk.NewClient(s.URL(), "local", ots.DefaultKeyID, ots.DefaultKeySecret)
	create(t, s.client, streamDefinition())
	return s
}

func (s *streamServer) now() time.Time { return time.Now().Add(time.Duration(s.skew.Load())) }

func (s *streamServer) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *streamServer) engineOK(err *engine.Error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *streamServer) change(kind table.RecordKind, n int64, value string) {
	s.t.Helper()
	key := &sdk.PrimaryKey{}
	key.AddPrimaryKeyColumn("n", n)
	ignore := &sdk.RowCondition{RowExistenceExpectation: sdk.RowExistenceExpectation_IGNORE}
	var err error
	switch kind {
	case table.RecordPut:
		c := &sdk.PutRowChange{TableName: "t", PrimaryKey: key, Condition: ignore}
		c.AddColumn("c", value)
		_, err = s.writer.PutRow(&sdk.PutRowRequest{PutRowChange: c})
	case table.RecordUpdate:
		c := &sdk.UpdateRowChange{TableName: "t", PrimaryKey: key, Condition: ignore}
		c.PutColumn("c", value)
		_, err = s.writer.UpdateRow(&sdk.UpdateRowRequest{UpdateRowChange: c})
	case table.RecordDelete:
		_, err = s.writer.DeleteRow(&sdk.DeleteRowRequest{DeleteRowChange: &sdk.DeleteRowChange{TableName: "t", PrimaryKey: key, Condition: ignore}})
	}
	s.ok(err)
}

func (s *streamServer) put(n int, value string) { s.change(table.RecordPut, int64(n), value) }

func (s *streamServer) setStream(on bool) {
	s.t.Helper()
	if on {
		s.ok(s.client.SetStream(s.t.Context(), "t", table.Stream{ExpirationHours: 24}))
		return
	}
	_, err := s.writer.UpdateTable(&sdk.UpdateTableRequest{TableName: "t", StreamSpec: &sdk.StreamSpecification{}})
	s.ok(err)
}

func (s *streamServer) bed() tabletest.StreamBed {
	return tabletest.StreamBed{
		Streams: s.client, Table: "t",
		Change:    s.change,
		SetStream: s.setStream,
		Split: func(n int64) {
			s.t.Helper()
			at := plainbuffer.Cell{Name: []byte("n"), HasValue: true, Type: plainbuffer.Integer, Data: binary.LittleEndian.AppendUint64(nil, uint64(n))}
			s.engineOK(s.Engine().SplitPartition("t", []plainbuffer.Cell{at}))
		},
		Merge: func() { s.t.Helper(); s.engineOK(s.Engine().MergePartitions("t", 0)) },
		Trim:  func() { s.t.Helper(); s.engineOK(s.Engine().TrimStream("t", s.now())) },
		Drop: func() {
			s.t.Helper()
			_, err := s.writer.DeleteTable(&sdk.DeleteTableRequest{TableName: "t"})
			s.ok(err)
		},
		Make: func() { s.t.Helper(); create(s.t, s.client, streamDefinition()) },
		Pass: func(d time.Duration) { s.skew.Add(int64(d)) },
		Now:  s.now,
	}
}

// shard0 turns the stream on and returns its shard and the shard's beginning.
func (s *streamServer) shard0() (at table.ShardName, iterator string) {
	s.t.Helper()
	s.setStream(true)
	d, err := s.client.DescribeStream(s.t.Context(), "t")
	s.ok(err)
	at = table.ShardName{Table: "t", Stream: d.ID, Shard: d.Shards[0].ID}
	iterator, err = s.client.SeekOldest(s.t.Context(), at)
	s.ok(err)
	return at, iterator
}

// TestStreamContract holds the adapter to the port's contract, over the wire, whatever
// the service is free to do.
func TestStreamContract(t *testing.T) {
	for name, behavior := range map[string]engine.StreamBehavior{
		"plain":      {},
		"told":       {TellMore: true},
		"small":      {Page: 2, ShardPage: 1, Seeks: 3},
		"empty":      {EmptyPages: 2, TellMore: true, Page: 3},
		"moving":     {MovingIterators: true, EmptyPages: 1, IteratorLife: time.Hour},
		"lost":       {LostIterators: true, StrictStart: true},
		"epochs":     {ResetEpochs: true, DeleteMarks: true},
		"everything": {Page: 1, ShardPage: 1, Seeks: 1, EmptyPages: 1, TellMore: true, MovingIterators: true, LostIterators: true, DeleteMarks: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := ots.Config{Behavior: engine.Behavior{Stream: behavior}}
			if name == "plain" {
				config.AnswerMD5 = ots.AnswerMD5Never
			}
			tabletest.TestStreams(t, func(t *testing.T) tabletest.StreamBed { return newStreamServer(t, config).bed() })
		})
	}
}

// TestStreamRetry puts failures in the way of every request of a stream. It goes on where
// they pass, and says so where the service wants fewer requests.
func TestStreamRetry(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fault     *ots.Fault
		throttled bool
		end       error // nil if it goes on
	}{
		"busy":      {ots.Refuse(engine.CodeServerBusy, ""), true, nil},
		"throttled": {ots.Refuse(engine.CodeNotEnoughCapacity, ""), true, nil},
		"internal":  {ots.Refuse(engine.CodeInternal, ""), false, nil},
		"cut":       {&ots.Fault{Cut: ots.CutMiddle}, false, nil},
		"silent":    {&ots.Fault{Cut: ots.CutSilent}, false, nil},
		"forbidden": {ots.Refuse(engine.CodeNoPermission, ""), false, table.ErrPermission},
	} {
		t.Run(name, func(t *testing.T) {
			var failing atomic.Pointer[string]
			s := newStreamServer(t, ots.Config{Fault: func(op, _ string, _ int) *ots.Fault {
				if f := failing.Load(); f != nil && *f == op {
					failing.Store(nil)
					return test.fault
				}
				return nil
			}})
			at, iterator := s.shard0()
			s.put(1, "x")
			var page table.RecordPage
			for op, call := range map[string]func(ctx context.Context) error{
				"ListStream":       func(ctx context.Context) error { _, err := s.client.DescribeStream(ctx, "t"); return err },
				"DescribeStream":   func(ctx context.Context) error { _, err := s.client.DescribeStream(ctx, "t"); return err },
				"GetShardIterator": func(ctx context.Context) error { _, err := s.client.SeekTime(ctx, at, 1); return err },
				"GetStreamRecord":  func(ctx context.Context) error { return s.client.ReadRecords(ctx, at, iterator, 0, &page) },
			} {
				failing.Store(&op)
				told := 0
				err := call(table.OnThrottled(t.Context(), func() { told++ }))
				if !errors.Is(err, test.end) || (err != nil) != (test.end != nil) || failing.Load() != nil {
					t.Errorf("%s: %v, want %v", op, err, test.end)
				}
				if (told > 0) != test.throttled {
					t.Errorf("%s: told %d times of too many requests", op, told)
				}
			}
			if test.end == nil && len(page.Records) != 1 {
				t.Errorf("%d records", len(page.Records))
			}
		})
	}
}

// bending is a transport that changes the answers of one operation.
type bending struct {
	op   string
	bend func(body []byte) []byte // nil leaves it
}

func (b *bending) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil || b.bend == nil || r.URL.Path != "/"+b.op || res.StatusCode != http.StatusOK {
		return res, err
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if err := res.Body.Close(); err != nil {
		return nil, err
	}
	body = b.bend(body)
	res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return res, nil
}

// TestStreamDamage changes bytes of answers on their way: what is sent again is read as
// if nothing had been.
func TestStreamDamage(t *testing.T) {
	for name, large := range map[string]bool{"small": false, "large": true} {
		t.Run(name, func(t *testing.T) {
			b := &bending{op: "GetStreamRecord"}
			s := newStreamServer(t, ots.Config{AnswerMD5: ots.AnswerMD5Always}, func(c *tablestore.Config) { c.Transport = b })
			at, iterator := s.shard0()
			value := "value"
			if large {
				value = strings.Repeat("v", 40<<10)
			}
			s.put(1, value)
			s.put(2, value)
			var page table.RecordPage
			s.ok(s.client.ReadRecords(t.Context(), at, iterator, 0, &page))
			records := func() []byte {
				var all []byte
				for _, r := range page.Records {
					all = append(fmt.Appendf(all, "%s at %+v ", r.Kind, r.At), r.Row...)
				}
				return all
			}
			clean, bits := records(), 8*len(page.Buffer)
			step := max(1, bits/100)
			for bit := 0; bit < bits; bit += 3 { // some of each byte
				// All that stands before and behind the rows, and a few bits of those.
				if bit > 100 && bit < bits-800 && bit%step > 2 {
					continue
				}
				bent := false
				b.bend = func(body []byte) []byte {
					if !bent {
						body[bit/8] ^= 1 << (bit % 8)
					}
					bent = true
					return body
				}
				s.ok(s.client.ReadRecords(t.Context(), at, iterator, 0, &page))
				next := page.Next
				if !bent || !bytes.Equal(records(), clean) {
					t.Fatalf("bit %d was flipped, and %d records were taken", bit, len(page.Records))
				}
				// The server knows a damaged iterator.
				s.ok(s.client.ReadRecords(t.Context(), at, next, 1, &page))
			}
		})
	}
}

// TestStreamBelievesNothing gives a reader pages that can't be. What is no answer is
// asked for again; what contradicts itself ends the call.
func TestStreamBelievesNothing(t *testing.T) {
	type pageAnswer = otsprotocol.GetStreamRecordResponse
	for name, test := range map[string]struct {
		bend func(*pageAnswer)
		want string
	}{
		"another kind":   {func(a *pageAnswer) { a.StreamRecords[0].ActionType = otsprotocol.ActionType(4).Enum() }, "unknown kind"},
		"no row":         {func(a *pageAnswer) { a.StreamRecords[1].Record = []byte{} }, "record 1"},
		"a flipped cell": {func(a *pageAnswer) { a.StreamRecords[0].Record[40] ^= 1 }, "record 0"},
		"no place":       {func(a *pageAnswer) { a.StreamRecords[0].Record = block(row("u", 1)) }, "no place"},
		"two rows": {func(a *pageAnswer) {
			r := a.StreamRecords[0]
			r.Record = append(r.Record, a.StreamRecords[1].Record[4:]...)
		}, "more than one row"},
		"of another table":  {func(a *pageAnswer) { a.StreamRecords[0].TableName = []byte("u") }, `table "u"`},
		"in another order":  {func(a *pageAnswer) { r := a.StreamRecords; r[0], r[1] = r[1], r[0] }, "follows"},
		"twice":             {func(a *pageAnswer) { a.StreamRecords[1] = a.StreamRecords[0] }, "follows"},
		"on where it began": {nil, "goes on where it was"},
		"nothing at all":    {func(a *pageAnswer) { *a = pageAnswer{} }, "neither a checksum nor a cost"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &bending{op: "GetStreamRecord"}
			s := newStreamServer(t, ots.Config{AnswerMD5: ots.AnswerMD5Never}, func(c *tablestore.Config) {
				c.Transport, c.Retry.Total = b, 50*time.Millisecond
			})
			at, iterator := s.shard0()
			s.put(1, "x")
			s.put(2, "y")
			bend := test.bend
			if bend == nil {
				bend = func(a *pageAnswer) { a.NextShardIterator = &iterator }
			}
			b.bend = func(body []byte) []byte {
				var a pageAnswer
				s.ok(proto.Unmarshal(body, &a))
				bend(&a)
				out, err := proto.Marshal(&a)
				s.ok(err)
				return out
			}
			var page table.RecordPage
			err := s.client.ReadRecords(t.Context(), at, iterator, 0, &page)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

// TestDescribeStreamBelievesNothing gives a reader lists that can't be.
func TestDescribeStreamBelievesNothing(t *testing.T) {
	type listAnswer = otsprotocol.ListStreamResponse
	type shardsAnswer = otsprotocol.DescribeStreamResponse
	for name, test := range map[string]struct {
		list   func(*listAnswer)
		shards func(*shardsAnswer)
		want   string
	}{
		"two streams": {func(a *listAnswer) {
			a.Streams = append(a.Streams, &otsprotocol.Stream{StreamId: proto.String("x"), TableName: proto.String("t"), CreationTime: proto.Int64(1)})
		}, nil, "lists"},
		"of another table":  {func(a *listAnswer) { a.Streams[0].TableName = proto.String("u") }, nil, `one of table "u"`},
		"no id":             {func(a *listAnswer) { a.Streams[0].StreamId = proto.String("") }, nil, "without an id"},
		"another stream":    {nil, func(a *shardsAnswer) { a.StreamId = proto.String("x") }, `describes stream "x"`},
		"another's":         {nil, func(a *shardsAnswer) { a.TableName = proto.String("u") }, `of table "u"`},
		"a shard twice":     {nil, func(a *shardsAnswer) { a.Shards = append(a.Shards, a.Shards[0]) }, "twice"},
		"a shard of no id":  {nil, func(a *shardsAnswer) { a.Shards[0].ShardId = proto.String("") }, "without an id"},
		"on where it began": {nil, func(a *shardsAnswer) { a.NextShardId = a.Shards[0].ShardId }, "not beyond"},
		"on with nothing":   {nil, func(a *shardsAnswer) { a.Shards, a.NextShardId = nil, proto.String("x") }, "not beyond"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &bending{op: "DescribeStream"}
			s := newStreamServer(t, ots.Config{AnswerMD5: ots.AnswerMD5Never}, func(c *tablestore.Config) { c.Transport = b })
			s.setStream(true)
			var a proto.Message = &shardsAnswer{}
			bend := func() { test.shards(a.(*shardsAnswer)) }
			if test.list != nil {
				b.op, a = "ListStream", &listAnswer{}
				bend = func() { test.list(a.(*listAnswer)) }
			}
			b.bend = func(body []byte) []byte {
				s.ok(proto.Unmarshal(body, a))
				bend()
				out, err := proto.Marshal(a)
				s.ok(err)
				return out
			}
			_, err := s.client.DescribeStream(t.Context(), "t")
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

// TestStreamIteratorAges reads with iterators that are too old though nothing was
// trimmed: the error says that they are of no use, and whoever seeks by time goes on.
func TestStreamIteratorAges(t *testing.T) {
	for code, want := range map[string]error{"": table.ErrTrimmed, engine.CodeParameterInvalid: table.ErrIterator} {
		t.Run(fmt.Sprintf("code %q", code), func(t *testing.T) {
			s := newStreamServer(t, ots.Config{Behavior: engine.Behavior{Stream: engine.StreamBehavior{IteratorLife: time.Minute, StaleIterator: code}}})
			at, iterator := s.shard0()
			s.put(1, "x")
			var page table.RecordPage
			s.ok(s.client.ReadRecords(t.Context(), at, iterator, 0, &page))
			last, old := page.Records[0].At, page.Next
			s.skew.Add(int64(2 * time.Minute))
			if err := s.client.ReadRecords(t.Context(), at, old, 0, &page); !errors.Is(err, want) {
				t.Errorf("error %v, want %v", err, want)
			}
			again, err := s.client.SeekTime(t.Context(), at, last.Timestamp)
			s.ok(err)
			s.ok(s.client.ReadRecords(t.Context(), at, again, 0, &page))
			if len(page.Records) != 1 || page.Records[0].At != last {
				t.Errorf("sought anew, the records are %+v", page.Records)
			}
		})
	}
}

// TestStreamLateChild looks for the children of a closed shard, which are not known yet:
// that is no hole.
func TestStreamLateChild(t *testing.T) {
	s := newStreamServer(t, ots.Config{Behavior: engine.Behavior{Stream: engine.StreamBehavior{ChildDelay: time.Minute}}})
	at, iterator := s.shard0()
	s.bed().Split(5)
	var page table.RecordPage
	s.ok(s.client.ReadRecords(t.Context(), at, iterator, 0, &page))
	if page.Next != "" || page.CaughtUp() {
		t.Errorf("a closed shard goes on: %+v", page)
	}
	for n := 1; n <= 3; n++ {
		d, err := s.client.DescribeStream(t.Context(), "t")
		s.ok(err)
		if len(d.Shards) != n {
			t.Errorf("after %d minutes the shards are %+v", n-1, d.Shards)
		}
		if n == 1 {
			child := table.ShardName{Table: "t", Stream: at.Stream, Shard: strings.TrimSuffix(at.Shard, "0") + "1"}
			if _, err := s.client.SeekOldest(t.Context(), child); !errors.Is(err, table.ErrNoShard) {
				t.Errorf("the child is sought: %v", err)
			}
		}
		s.skew.Add(int64(time.Minute))
	}
}

// TestStreamLooksAgain has the service refuse a stream that it lists. Whoever looks the
// stream up looks again; whoever reads it is told to come later, not that it is gone.
func TestStreamLooksAgain(t *testing.T) {
	refuse := map[string]int{}
	var mu sync.Mutex
	s := newStreamServer(t, ots.Config{Fault: func(op, _ string, _ int) *ots.Fault {
		mu.Lock()
		defer mu.Unlock()
		if refuse[op] == 0 {
			return nil
		}
		refuse[op]--
		return ots.Refuse(engine.CodeParameterInvalid, "Invalid stream id: x.")
	}})
	at, iterator := s.shard0()
	set := func(op string, n int) {
		mu.Lock()
		defer mu.Unlock()
		refuse[op] = n
	}
	set("DescribeStream", 2)
	_, err := s.client.DescribeStream(t.Context(), "t")
	s.ok(err)
	set("DescribeStream", 3)
	if _, err := s.client.DescribeStream(t.Context(), "t"); !errors.Is(err, table.ErrNoStream) {
		t.Errorf("a stream that is refused each time: %v", err)
	}
	set("GetStreamRecord", 1)
	var page table.RecordPage
	if err := s.client.ReadRecords(t.Context(), at, iterator, 0, &page); !errors.Is(err, table.ErrUnavailable) || errors.Is(err, table.ErrNoStream) {
		t.Errorf("a stream that is listed, and refused: %v", err)
	}
	// What can't be found out is no reason.
	s.setStream(false)
	s.SetFault(func(op, _ string, _ int) *ots.Fault {
		if op == "ListStream" {
			return ots.Refuse(engine.CodeNoPermission, "")
		}
		return nil
	})
	if err := s.client.ReadRecords(t.Context(), at, iterator, 0, &page); !errors.Is(err, table.ErrPermission) || errors.Is(err, table.ErrTrimmed) {
		t.Errorf("a stream that may not be looked up: %v", err)
	}
}

// oversized answers reads of more than most records with more bytes than there is room
// for, and notes how many were asked for.
type oversized struct {
	most  int32
	asked []int32
}

func (o *oversized) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Path != "/GetStreamRecord" {
		return http.DefaultTransport.RoundTrip(r)
	}
	again, err := r.GetBody()
	if err != nil {
		return nil, err
	}
	defer again.Close()
	body, err := io.ReadAll(again)
	if err != nil {
		return nil, err
	}
	var m otsprotocol.GetStreamRecordRequest
	if err := proto.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	o.asked = append(o.asked, m.GetLimit())
	res, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && (m.Limit == nil || m.GetLimit() > o.most) {
		res.ContentLength = 1 << 30
	}
	return res, err
}

// TestStreamPageTooLarge asks for fewer records where an answer is larger than a page's
// memory.
func TestStreamPageTooLarge(t *testing.T) {
	for most, want := range map[int32]struct {
		asked   string
		records int
	}{
		30: {"[0 100 50 25]", 25},
		1:  {"[0 100 50 25 12 6 3 1]", 1},
		0:  {"[0 100 50 25 12 6 3 1]", -1},
	} {
		o := &oversized{most: most}
		s := newStreamServer(t, ots.Config{}, func(c *tablestore.Config) { c.Transport = o })
		at, iterator := s.shard0()
		for i := range 40 {
			s.put(i, "x")
		}
		var page table.RecordPage
		err := s.client.ReadRecords(t.Context(), at, iterator, 0, &page)
		if want.records < 0 {
			if err == nil || !strings.Contains(err.Error(), "a single record") {
				t.Errorf("at most %d: %v", most, err)
			}
		} else if err != nil || len(page.Records) != want.records {
			t.Errorf("at most %d: %d records, %v", most, len(page.Records), err)
		}
		if got := fmt.Sprint(o.asked); got != want.asked {
			t.Errorf("at most %d: asked for %s, want %s", most, got, want.asked)
		}
	}
}
