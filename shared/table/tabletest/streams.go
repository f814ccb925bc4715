package tabletest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
)

// A StreamBed is a table that the contract of streams is tested with. Its key is one
// integer, it has one partition, and no stream yet.
type StreamBed struct {
	Streams table.Streams
	Table   string
	// Change makes a change of a row that leaves a record of the kind: a put and an
	// update write one cell, "c".
	Change func(kind table.RecordKind, key int64, value string)
	// SetStream turns the stream on, or off.
	SetStream func(on bool)
	// Split cuts the partition of a key before it, Merge puts the first two together.
	Split func(key int64)
	Merge func()
	// Trim has the service forget all records that there are.
	Trim func()
	// Drop removes the table, and Make makes it again.
	Drop, Make func()
	// Pass lets time pass, by the service's clock.
	Pass func(d time.Duration)
	Now  func() time.Time
}

// A bed is a StreamBed of one test.
type bed struct {
	*testing.T
	StreamBed
}

// TestStreams holds what serves streams to the port's contract.
func TestStreams(t *testing.T, begin func(t *testing.T) StreamBed) {
	for name, test := range map[string]func(bed){
		"Describe": bed.describe,
		"Records":  bed.records,
		"Limit":    bed.limit,
		"Time":     bed.time,
		"Lineage":  bed.lineage,
		"Trimmed":  bed.trimmed,
		"Gone":     bed.gone,
		"Unknown":  bed.unknown,
	} {
		t.Run(name, func(t *testing.T) { test(bed{t, begin(t)}) })
	}
}

// on turns the stream on and returns it.
func (b bed) on() table.ChangeStream {
	b.Helper()
	b.SetStream(true)
	return b.stream()
}

func (b bed) stream() table.ChangeStream {
	b.Helper()
	s, err := b.Streams.DescribeStream(b.Context(), b.Table)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func (b bed) shard(s table.ChangeStream, n int) table.ShardName {
	return table.ShardName{Table: b.Table, Stream: s.ID, Shard: s.Shards[n].ID}
}

func (b bed) oldest(at table.ShardName) string {
	b.Helper()
	iterator, err := b.Streams.SeekOldest(b.Context(), at)
	if err != nil {
		b.Fatal(err)
	}
	return iterator
}

func (b bed) put(keys ...int64) {
	b.Helper()
	for _, k := range keys {
		b.Change(table.RecordPut, k, fmt.Sprint("v", k))
	}
}

// read reads from an iterator to where the shard is caught up or ends, into one page, and
// tells the records. It holds each page to what holds for all.
func (b bed) read(at table.ShardName, iterator string, limit int) (records []string, next string) {
	b.Helper()
	var page table.RecordPage
	var last table.Position
	for range 1000 {
		before := b.Now()
		if err := b.Streams.ReadRecords(b.Context(), at, iterator, limit, &page); err != nil {
			b.Fatal(err)
		}
		if limit > 0 && len(page.Records) > limit {
			b.Fatalf("%d records, and at most %d were asked for", len(page.Records), limit)
		}
		if page.ServerTime.Before(before.Truncate(time.Second)) || page.ServerTime.After(b.Now()) {
			b.Errorf("the page's date is %s, the service's clock showed %s", page.ServerTime, before)
		}
		if page.ReadUnits < 1 {
			b.Errorf("the page cost %d units", page.ReadUnits)
		}
		for _, r := range page.Records {
			if len(records) > 0 && r.At.Compare(last) <= 0 {
				b.Errorf("the record at %+v follows the one at %+v", r.At, last)
			}
			last = r.At
			records = append(records, b.tell(r))
		}
		switch {
		case page.Next == "" && page.CaughtUp():
			b.Error("a shard that has ended is caught up")
		case page.Next == "" || page.CaughtUp():
			return records, page.Next
		case len(page.Records) > 0 && page.Next == iterator:
			b.Fatal("a page with records goes on where it began")
		}
		iterator = page.Next
	}
	b.Fatalf("after %d records the shard has no end", len(records))
	return nil, ""
}

// stamps are the timestamps of a shard's records.
func (b bed) stamps(at table.ShardName) (out []int64) {
	b.Helper()
	page := table.RecordPage{Next: b.oldest(at)}
	for page.Next != "" && !page.CaughtUp() || out == nil {
		if err := b.Streams.ReadRecords(b.Context(), at, page.Next, 0, &page); err != nil {
			b.Fatal(err)
		}
		for _, r := range page.Records {
			out = append(out, r.At.Timestamp)
		}
	}
	return out
}

// tell is a record in short: "put 1 c=v1".
func (b bed) tell(r table.Record) string {
	b.Helper()
	var row plainbuffer.Row
	n, err := plainbuffer.Scan(r.Row, &row)
	if err != nil || n != len(r.Row) {
		b.Fatalf("a record of %d bytes has a row of %d: %v", len(r.Row), n, err)
	}
	if e := (table.Position{Epoch: row.Extension.Epoch, Timestamp: row.Extension.Timestamp, Row: row.Extension.RowIndex}); !row.HasExtension || e != r.At {
		b.Errorf("the row's place is %+v, the record's %+v", e, r.At)
	}
	out := []string{r.Kind.String(), fmt.Sprint(row.Key[0].Int())}
	for i := range row.Cells {
		out = append(out, fmt.Sprintf("%s=%s", row.Cells[i].Name, row.Cells[i].Data))
	}
	return strings.Join(out, " ")
}

func (b bed) same(what string, got, want []string) {
	b.Helper()
	if strings.Join(got, ", ") != strings.Join(want, ", ") {
		b.Errorf("%s: %q, want %q", what, got, want)
	}
}

// refused holds that a shard can't be sought or read for one reason, and for no other.
func (b bed) refused(what string, at table.ShardName, iterator string, want error) {
	b.Helper()
	_, oldest := b.Streams.SeekOldest(b.Context(), at)
	_, later := b.Streams.SeekTime(b.Context(), at, b.Now().UnixMicro())
	var page table.RecordPage
	read := b.Streams.ReadRecords(b.Context(), at, iterator, 0, &page)
	for how, err := range map[string]error{"sought": oldest, "sought by time": later, "read": read} {
		b.is(fmt.Sprint(what, ", ", how), err, want)
	}
}

func (b bed) is(what string, err, want error) {
	b.Helper()
	for _, reason := range []error{table.ErrNoStream, table.ErrStreamReplaced, table.ErrNoShard, table.ErrTrimmed, table.ErrIterator, table.ErrNotExist} {
		if errors.Is(err, reason) != (reason == want) {
			b.Errorf("%s: %v, want %v", what, err, want)
		}
	}
}

func (b bed) describe() {
	_, err := b.Streams.DescribeStream(b.Context(), b.Table)
	b.is("the stream of a table without one", err, table.ErrNoStream)
	_, err = b.Streams.DescribeStream(b.Context(), "none")
	b.is("the stream of no table", err, table.ErrNotExist)
	before := b.Now()
	s := b.on()
	if s.ID == "" || !s.Active || s.ExpirationHours < 1 || len(s.Shards) != 1 || len(s.Shards[0].Parents) != 0 ||
		s.Created < before.UnixMicro() || s.Created > b.Now().UnixMicro() || s.ServerTime.Before(before.Truncate(time.Second)) || s.ServerTime.After(b.Now()) {
		b.Errorf("a new stream is %+v", s)
	}
}

func (b bed) records() {
	b.put(0) // before there is a stream
	s := b.on()
	at := b.shard(s, 0)
	records, next := b.read(at, b.oldest(at), 0)
	b.same("a new stream", records, nil)
	b.put(1, 2)
	b.Change(table.RecordUpdate, 1, "w")
	b.Change(table.RecordDelete, 2, "")
	want := []string{"put 1 c=v1", "put 2 c=v2", "update 1 c=w", "delete 2"}
	records, last := b.read(at, next, 0)
	b.same("the records", records, want)
	records, _ = b.read(at, last, 0)
	b.same("the records behind the last", records, nil)
	b.put(3)
	records, _ = b.read(at, last, 0)
	b.same("what came later", records, []string{"put 3 c=v3"})
	// What was read once can be read again.
	records, _ = b.read(at, next, 0)
	b.same("the records, again", records, append(want, "put 3 c=v3"))
}

func (b bed) limit() {
	s := b.on()
	at := b.shard(s, 0)
	var want []string
	for i := range int64(7) {
		b.put(i)
		want = append(want, fmt.Sprintf("put %d c=v%d", i, i))
	}
	for limit := 1; limit <= 8; limit++ {
		records, _ := b.read(at, b.oldest(at), limit)
		b.same(fmt.Sprint("by ", limit), records, want)
	}
	// A limit leads to a place right behind its last record, and another reader's page is
	// another's memory.
	var first, second table.RecordPage
	first.Next = b.oldest(at)
	for n := 0; n == 0; n = len(first.Records) {
		if err := b.Streams.ReadRecords(b.Context(), at, first.Next, 3, &first); err != nil {
			b.Fatal(err)
		}
	}
	kept := bytes.Clone(first.Records[0].Row)
	second.Next = first.Next
	for n := 0; n == 0; n = len(second.Records) {
		if err := b.Streams.ReadRecords(b.Context(), at, second.Next, 1, &second); err != nil {
			b.Fatal(err)
		}
	}
	if got := b.tell(second.Records[0]); got != want[len(first.Records)] {
		b.Errorf("behind %d records stands %q", len(first.Records), got)
	}
	if !bytes.Equal(first.Records[0].Row, kept) {
		b.Error("a page changes when another is read")
	}
}

func (b bed) time() {
	s := b.on()
	at := b.shard(s, 0)
	var want []string
	for i := range int64(5) {
		b.Pass(time.Second)
		b.put(i)
		want = append(want, fmt.Sprintf("put %d c=v%d", i, i))
	}
	for i, stamp := range b.stamps(at) {
		for off, from := range map[int64]int{-1: i, 0: i, 1: i + 1} {
			iterator, err := b.Streams.SeekTime(b.Context(), at, stamp+off)
			if err != nil {
				b.Fatal(err)
			}
			records, _ := b.read(at, iterator, 0)
			b.same(fmt.Sprintf("from record %d's time %+d µs on", i, off), records, want[from:])
		}
	}
}

func (b bed) lineage() {
	b.on()
	b.put(1, 9)
	b.Split(5)
	b.put(2, 8)
	s := b.stream()
	if len(s.Shards) != 3 {
		b.Fatalf("after a split the shards are %+v", s.Shards)
	}
	parent, low, high := b.shard(s, 0), b.shard(s, 1), b.shard(s, 2)
	for _, child := range s.Shards[1:] {
		b.same("the parents of a split's child", child.Parents, []string{parent.Shard})
	}
	records, next := b.read(parent, b.oldest(parent), 0)
	b.same("the parent's records", records, []string{"put 1 c=v1", "put 9 c=v9"})
	if next != "" {
		b.Error("a shard that is split has no end")
	}
	records, _ = b.read(low, b.oldest(low), 0)
	b.same("the first child's records", records, []string{"put 2 c=v2"})
	records, next = b.read(high, b.oldest(high), 0)
	b.same("the second child's records", records, []string{"put 8 c=v8"})
	b.Merge()
	b.put(3)
	// An iterator of before leads to the end.
	if records, next = b.read(high, next, 0); len(records) > 0 || next != "" {
		b.Errorf("a shard that is merged goes on with %q", records)
	}
	s = b.stream()
	if len(s.Shards) != 4 {
		b.Fatalf("after a merge the shards are %+v", s.Shards)
	}
	b.same("the parents of a merge's child", s.Shards[3].Parents, []string{low.Shard, high.Shard})
	merged := b.shard(s, 3)
	records, _ = b.read(merged, b.oldest(merged), 0)
	b.same("the merge's records", records, []string{"put 3 c=v3"})
}

func (b bed) trimmed() {
	s := b.on()
	at := b.shard(s, 0)
	first, began := b.oldest(at), b.Now()
	b.put(1, 2)
	_, last := b.read(at, first, 0)
	b.Pass(time.Second)
	b.Trim()
	b.Pass(time.Second)
	b.put(3)
	var page table.RecordPage
	b.is("an iterator before what is trimmed", b.Streams.ReadRecords(b.Context(), at, first, 0, &page), table.ErrTrimmed)
	_, err := b.Streams.SeekTime(b.Context(), at, began.UnixMicro())
	b.is("a time before what is trimmed", err, table.ErrTrimmed)
	// Whoever had read them lost nothing, and the oldest says nothing of them.
	for what, iterator := range map[string]string{"behind the trimmed": last, "the oldest": b.oldest(at)} {
		records, _ := b.read(at, iterator, 0)
		b.same(what, records, []string{"put 3 c=v3"})
	}
}

func (b bed) gone() {
	s := b.on()
	at := b.shard(s, 0)
	iterator := b.oldest(at)
	b.put(1)
	b.SetStream(false)
	b.refused("a stream that is off", at, iterator, table.ErrNoStream)
	b.Pass(time.Second)
	second := b.on()
	if second.ID == s.ID {
		b.Fatal("a stream that was off and on again is the same")
	}
	b.refused("a stream that was off and on again", at, iterator, table.ErrStreamReplaced)
	at = b.shard(second, 0)
	iterator = b.oldest(at)
	b.Drop()
	b.refused("the stream of a table that is gone", at, iterator, table.ErrNotExist)
	b.Make()
	b.refused("the stream of a table that was made anew without one", at, iterator, table.ErrNoStream)
	b.Pass(time.Second)
	b.on()
	b.refused("the stream of a table that was made anew", at, iterator, table.ErrStreamReplaced)
}

func (b bed) unknown() {
	s := b.on()
	at := b.shard(s, 0)
	other := at
	other.Shard += "x"
	_, err := b.Streams.SeekOldest(b.Context(), other)
	b.is("a shard that is none", err, table.ErrNoShard)
	other = at
	other.Stream += "x"
	_, err = b.Streams.SeekOldest(b.Context(), other)
	b.is("a stream that is none", err, table.ErrStreamReplaced)
	var page table.RecordPage
	b.is("an iterator that is none", b.Streams.ReadRecords(b.Context(), at, "x", 0, &page), table.ErrIterator)
}
