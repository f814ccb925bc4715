package ots_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// A streamReader reads the stream of table "t" with the SDK's client.
type streamReader struct {
	t      testing.TB
	server *ots.Server
	client *tablestore.TableStoreClient
	now    *clock
	id     tablestore.StreamId
}

func readStreamed(t *testing.T, behavior engine.StreamBehavior) *streamReader {
	t.Helper()
	s, _, c, now := streamed(t, engine.Behavior{Stream: behavior})
	r := &streamReader{t: t, server: s, client: c, now: now}
	name := "t"
	streams, err := c.ListStream(&tablestore.ListStreamRequest{TableName: &name})
	ok(t, err)
	r.id = *streams.Streams[0].Id
	return r
}

// shards are the numbers of the shards that the stream shows.
func (r *streamReader) shards() string {
	r.t.Helper()
	res, err := r.client.DescribeStream(&tablestore.DescribeStreamRequest{StreamId: &r.id})
	ok(r.t, err)
	var out []string
	for _, s := range res.Shards {
		out = append(out, strings.TrimPrefix(string(*s.SelfShard), string(r.id)+"_shard_"))
	}
	return strings.Join(out, " ")
}

func (r *streamReader) seek(shard int) (*tablestore.ShardIterator, error) {
	id := tablestore.ShardId(shardID(string(r.id), shard))
	res, err := r.client.GetShardIterator(&tablestore.GetShardIteratorRequest{StreamId: &r.id, ShardId: &id})
	if err != nil {
		return nil, err
	}
	return res.ShardIterator, nil
}

func (r *streamReader) oldest(shard int) *tablestore.ShardIterator {
	r.t.Helper()
	it, err := r.seek(shard)
	ok(r.t, err)
	return it
}

func (r *streamReader) read(it *tablestore.ShardIterator) *tablestore.GetStreamRecordResponse {
	r.t.Helper()
	res, err := r.client.GetStreamRecord(&tablestore.GetStreamRecordRequest{ShardIterator: it})
	ok(r.t, err)
	return res
}

// pages reads from an iterator to where the reader is caught up or the shard ends, and
// says of each page how many records it has, whether there is another iterator, "same" or
// none, and what is said of more.
func (r *streamReader) pages(it *tablestore.ShardIterator) (out []string, next *tablestore.ShardIterator) {
	r.t.Helper()
	for range 20 {
		res := r.read(it)
		way, more := "on", "untold"
		switch {
		case res.NextShardIterator == nil:
			way = "end"
		case *res.NextShardIterator == *it:
			way = "same"
		}
		if res.MayMoreRecord != nil {
			more = fmt.Sprint(*res.MayMoreRecord)
		}
		out = append(out, fmt.Sprintf("%d %s %s", len(res.Records), way, more))
		if it = res.NextShardIterator; it == nil || len(res.Records) == 0 && more != "true" {
			return out, it
		}
	}
	r.t.Fatalf("the shard has no end: %q", out)
	return nil, nil
}

func (r *streamReader) put(keys ...int) {
	r.t.Helper()
	for _, k := range keys {
		ok(r.t, put(r.client, key(k, k)))
	}
}

func (r *streamReader) split(at int64) {
	r.t.Helper()
	ok(r.t, engineError(r.server.Engine().SplitPartition("t", []plainbuffer.Cell{integerCell("pk1", at)})))
}

// TestStreamLateChildren splits and merges, and looks for the children, which are known
// at once, or one after the other.
func TestStreamLateChildren(t *testing.T) {
	for _, test := range []struct {
		delay time.Duration
		// What is listed at once, and each second thereafter, of a split and of the merge
		// that follows.
		split, merge []string
	}{
		{0, []string{"0 1 2", "0 1 2", "0 1 2"}, []string{"0 1 2 3", "0 1 2 3"}},
		{time.Second, []string{"0", "0 1", "0 1 2"}, []string{"0 1 2", "0 1 2 3"}},
	} {
		t.Run(test.delay.String(), func(t *testing.T) {
			r := readStreamed(t, engine.StreamBehavior{ChildDelay: test.delay})
			r.put(1, 9)
			look := func(want []string) {
				t.Helper()
				for i, w := range want {
					if i > 0 {
						r.now.advance(time.Second)
					}
					if got := r.shards(); got != w {
						t.Errorf("after %d s the shards are %q, want %q", i, got, w)
					}
				}
			}
			r.split(5)
			r.put(2, 8)
			// The parent has ended, whether its children are known or not.
			if got, _ := r.pages(r.oldest(0)); got[len(got)-1] != "2 end untold" {
				t.Errorf("the parent's pages are %q", got)
			}
			if test.delay > 0 {
				_, err := r.seek(1)
				want(t, err, http.StatusBadRequest, badParameter, "Invalid shard id: "+shardID(string(r.id), 1)+".")
			}
			look(test.split)
			// They have what was written before they were known.
			for shard := 1; shard <= 2; shard++ {
				if n := len(r.read(r.oldest(shard)).Records); n != 1 {
					t.Errorf("shard %d has %d records", shard, n)
				}
			}
			ok(t, engineError(r.server.Engine().MergePartitions("t", 0)))
			look(test.merge)
		})
	}
}

// TestStreamEmptyPages reads pages without records that are not the end, what pages say
// of more, and iterators that move though nothing is there.
func TestStreamEmptyPages(t *testing.T) {
	for name, test := range map[string]struct {
		behavior engine.StreamBehavior
		open     []string // the pages of an open shard with three records
		idle     string   // the next page
		closed   []string // the rest when it is closed
	}{
		"off":    {engine.StreamBehavior{Page: 2}, []string{"2 on untold", "1 on untold", "0 same untold"}, "0 same untold", []string{"0 end untold"}},
		"told":   {engine.StreamBehavior{Page: 2, TellMore: true}, []string{"2 on true", "1 on false", "0 same false"}, "0 same false", []string{"0 end false"}},
		"empty":  {engine.StreamBehavior{Page: 2, EmptyPages: 1}, []string{"0 on true", "2 on untold", "0 on true", "1 on untold", "0 same untold"}, "0 same untold", []string{"0 on true", "0 end untold"}},
		"moving": {engine.StreamBehavior{Page: 2, MovingIterators: true}, []string{"2 on untold", "1 on untold", "0 on untold"}, "0 on untold", []string{"0 end untold"}},
		"all": {engine.StreamBehavior{Page: 2, EmptyPages: 2, TellMore: true, MovingIterators: true},
			[]string{"0 on true", "0 on true", "2 on true", "0 on true", "0 on true", "1 on false", "0 on false"}, "0 on false", []string{"0 on true", "0 on true", "0 end false"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := readStreamed(t, test.behavior)
			r.put(1, 2, 3)
			pages, next := r.pages(r.oldest(0))
			equal(t, "pages", pages, test.open)
			pages, next = r.pages(next)
			equal(t, "pages of who is caught up", pages, []string{test.idle})
			r.split(2)
			pages, _ = r.pages(next)
			equal(t, "pages of who is caught up with a closed shard", pages, test.closed)
		})
	}
	// What nobody may see yet is no more.
	r := readStreamed(t, engine.StreamBehavior{TellMore: true, EmptyPages: 1, Lag: time.Second})
	r.put(1)
	pages, next := r.pages(r.oldest(0))
	equal(t, "pages while the record is hidden", pages, []string{"0 same false"})
	r.now.advance(time.Second)
	pages, _ = r.pages(next)
	equal(t, "pages when it is not", pages, []string{"0 on true", "1 on false", "0 same false"})
}

// TestStreamIteratorLife lets iterators age while everything behind them is kept.
func TestStreamIteratorLife(t *testing.T) {
	for name, test := range map[string]struct {
		behavior engine.StreamBehavior
		status   int // of an iterator that is older than a minute, 0 if it is of use
		code     string
		text     string // "%s" is the iterator
		idle     bool   // who reads all the time, and finds nothing, is refused as well
	}{
		"off":     {behavior: engine.StreamBehavior{}},
		"trimmed": {engine.StreamBehavior{IteratorLife: time.Minute}, 404, engine.CodeTrimmedData, trimmed, true},
		"moving":  {engine.StreamBehavior{IteratorLife: time.Minute, MovingIterators: true}, 404, engine.CodeTrimmedData, trimmed, false},
		"invalid": {engine.StreamBehavior{IteratorLife: time.Minute, StaleIterator: badParameter}, 400, badParameter, "Invalid shard iterator: '%s'.", true},
	} {
		t.Run(name, func(t *testing.T) {
			r := readStreamed(t, test.behavior)
			try := func(what string, it *tablestore.ShardIterator, refused bool) {
				t.Helper()
				_, err := r.client.GetStreamRecord(&tablestore.GetStreamRecordRequest{ShardIterator: it})
				if !refused {
					ok(t, err)
					return
				}
				if err == nil {
					t.Fatalf("%s is of use", what)
				}
				want(t, err, test.status, test.code, strings.ReplaceAll(test.text, "%s", string(*it)))
			}
			r.put(1)
			first := r.oldest(0)
			r.now.advance(time.Minute)
			try("an iterator of a minute", first, false)
			_, next := r.pages(first)
			r.now.advance(time.Microsecond)
			try("an older one", first, test.status != 0)
			try("one that a page with records led to", next, false)
			for range 4 {
				r.now.advance(20 * time.Second)
				if _, err := r.client.GetStreamRecord(&tablestore.GetStreamRecordRequest{ShardIterator: next}); err == nil {
					next = r.read(next).NextShardIterator
				}
			}
			try("one of who finds nothing", next, test.idle)
			// The records are there, and whoever seeks anew has them.
			if n := len(r.read(r.oldest(0)).Records); n != 1 {
				t.Errorf("there are %d records", n)
			}
		})
	}
}

// TestStreamLateRecords stamps records before the answer that said that there are none of
// then.
func TestStreamLateRecords(t *testing.T) {
	for name, test := range map[string]struct {
		behavior engine.StreamBehavior
		stamps   []string // epochs, and milliseconds after the first record's time
	}{
		"off":   {engine.StreamBehavior{}, []string{"0 0", "0 10000", "0 20000", "0 30000"}},
		"every": {engine.StreamBehavior{Late: 15 * time.Second}, []string{"0 -15000", "0 -5000", "0 5000", "0 15000"}},
		"third": {engine.StreamBehavior{Late: 15 * time.Second, LateEvery: 3}, []string{"0 0", "0 10000", "1 5000", "1 30000"}},
		"fresh": {engine.StreamBehavior{Late: 5 * time.Second, LateEvery: 2}, []string{"0 0", "0 5000", "0 20000", "0 25000"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := readStreamed(t, test.behavior)
			began := r.now.micros.Load()
			it := r.oldest(0)
			var stamps []string
			for i := range 4 {
				// The reader was told at this instant that there is nothing else.
				pages, next := r.pages(it)
				equal(t, "pages", pages, []string{"0 same untold"})
				promised := r.now.micros.Load()
				r.put(i)
				res := r.read(next)
				if len(res.Records) != 1 {
					t.Fatalf("%d records", len(res.Records))
				}
				at := res.Records[0].Info
				late := strings.Contains(name, "every") || name == "third" && i == 2 || name == "fresh" && i%2 == 1
				if (at.Timestamp < promised) != late {
					t.Errorf("record %d is stamped %d, the answer before it is of %d", i, at.Timestamp, promised)
				}
				stamps = append(stamps, fmt.Sprint(at.Epoch, " ", (at.Timestamp-began)/1000))
				it = res.NextShardIterator
				r.now.advance(10 * time.Second)
			}
			equal(t, "stamps", stamps, test.stamps)
		})
	}
}

// TestStreamClocksApart writes to two partitions whose clocks differ by what the switch
// says, the second behind or ahead of the server's.
func TestStreamClocksApart(t *testing.T) {
	for _, skew := range []time.Duration{0, time.Minute, -time.Minute} {
		t.Run(skew.String(), func(t *testing.T) {
			r := readStreamed(t, engine.StreamBehavior{Skew: skew})
			r.split(5)
			r.put(1, 9)
			for shard, want := range map[int]int64{1: -skew.Microseconds(), 2: 0} {
				res := r.read(r.oldest(shard))
				if len(res.Records) != 1 || res.Records[0].Info.Timestamp-r.now.micros.Load() != want {
					t.Errorf("shard %d has %v, want one %d µs off %d", shard, res.Records, want, r.now.micros.Load())
				}
			}
		})
	}
}
