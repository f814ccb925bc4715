package tablestore

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/retry"
	"github.com/tablevault/tablevault/shared/table"
)

// Bounds of what a stream may answer, far above what there can be.
const (
	maxShards = 1 << 20
	// maxTokens is how often a search may answer that it is not over.
	maxTokens = 10_000
)

// The bounds of a page of records: the memory that it may take, and how many records to
// ask for where those that the service chose to send take more.
const (
	maxRecordBytes = 16 << 20
	fewerRecords   = 100
)

// describeAgain is how often a table's stream is looked up whose id is not valid any more
// by the time that its shards are asked for.
const describeAgain = 3

// DescribeStream tells of a table's stream and its shards.
func (c *Client) DescribeStream(ctx context.Context, name string) (table.ChangeStream, error) {
	for try := 1; ; try++ {
		id, err := c.streamID(ctx, name)
		if err != nil {
			return table.ChangeStream{}, err
		}
		if id == "" {
			return table.ChangeStream{}, fmt.Errorf("stream of table %q: %w", name, table.ErrNoStream)
		}
		s, err := c.describeStream(ctx, name, id)
		if try < describeAgain && errors.Is(err, table.ErrNoStream) {
			continue
		}
		return s, err
	}
}

// streamID is the id of a table's stream, "" if it has none.
func (c *Client) streamID(ctx context.Context, name string) (string, error) {
	var said otsprotocol.ListStreamResponse
	if _, err := c.ask(ctx, "ListStream", name, &otsprotocol.ListStreamRequest{TableName: &name}, &said); err != nil {
		return "", err
	}
	var id string
	for _, s := range said.Streams {
		switch {
		case s.TableName != nil && s.GetTableName() != name:
			return "", fmt.Errorf("streams of table %q: the service lists one of table %q", name, s.GetTableName())
		case s.GetStreamId() == "":
			return "", fmt.Errorf("streams of table %q: the service lists one without an id", name)
		case id != "" && id != s.GetStreamId():
			return "", fmt.Errorf("streams of table %q: the service lists %q and %q", name, id, s.GetStreamId())
		}
		id = s.GetStreamId()
	}
	return id, nil
}

func (c *Client) describeStream(ctx context.Context, name, id string) (table.ChangeStream, error) {
	fault := func(format string, args ...any) (table.ChangeStream, error) {
		return table.ChangeStream{}, fmt.Errorf("stream %q of table %q: %w", id, name, fmt.Errorf(format, args...))
	}
	out := table.ChangeStream{ID: id}
	seen := map[string]bool{}
	request := &otsprotocol.DescribeStreamRequest{StreamId: &id}
	for first := true; ; first = false {
		var said otsprotocol.DescribeStreamResponse
		a, err := c.askDated(ctx, "DescribeStream", name, request, &said)
		if err != nil {
			return table.ChangeStream{}, err
		}
		if said.GetStreamId() != id || said.GetTableName() != name {
			return fault("the service describes stream %q of table %q", said.GetStreamId(), said.GetTableName())
		}
		if first {
			out.Created, out.ExpirationHours, out.ServerTime = said.GetCreationTime(), said.GetExpirationTime(), a.time
		}
		out.Active = said.GetStreamStatus() == otsprotocol.StreamStatus_STREAM_ACTIVE
		for _, s := range said.Shards {
			shard := table.StreamShard{ID: s.GetShardId()}
			for _, parent := range []string{s.GetParentId(), s.GetParentSiblingId()} {
				if parent != "" {
					shard.Parents = append(shard.Parents, parent)
				}
			}
			if shard.ID == "" || seen[shard.ID] {
				return fault("the service lists shard %q twice, or without an id", shard.ID)
			}
			seen[shard.ID] = true
			out.Shards = append(out.Shards, shard)
		}
		next := said.GetNextShardId()
		switch {
		case next == "":
			return out, nil
		case len(said.Shards) == 0 || seen[next]:
			return fault("the shards go on at %q, which is not beyond those that were listed", next)
		case len(out.Shards) > maxShards:
			return fault("more than %d shards", maxShards)
		}
		request.InclusiveStartShardId = &next
	}
}

// SeekOldest returns an iterator at a shard's oldest record.
func (c *Client) SeekOldest(ctx context.Context, at table.ShardName) (string, error) {
	return c.seek(ctx, at, nil)
}

// SeekTime returns an iterator at a shard's first record of a time or later.
func (c *Client) SeekTime(ctx context.Context, at table.ShardName, micros int64) (string, error) {
	return c.seek(ctx, at, &micros)
}

// seek asks until the service has found the place: each answer before has a token to ask
// with again.
func (c *Client) seek(ctx context.Context, at table.ShardName, micros *int64) (string, error) {
	request := &otsprotocol.GetShardIteratorRequest{StreamId: &at.Stream, ShardId: &at.Shard, Timestamp: micros}
	for range maxTokens {
		var said otsprotocol.GetShardIteratorResponse
		if _, err := c.ask(ctx, "GetShardIterator", at.Table, request, &said); err != nil {
			return "", c.lost(ctx, at, err)
		}
		if said.GetNextToken() != "" {
			request.Token = said.NextToken
			continue
		}
		if said.GetShardIterator() == "" {
			return "", shardFault(at, "the service has neither an iterator nor a token")
		}
		return said.GetShardIterator(), nil
	}
	return "", shardFault(at, "after %d answers the service has not found the place", maxTokens)
}

// shardFault is an answer that contradicts itself or the request.
func shardFault(at table.ShardName, format string, args ...any) error {
	return fmt.Errorf("shard %q of the stream of table %q: %w", at.Shard, at.Table, fmt.Errorf(format, args...))
}

// lost finds out why a shard can't be read: what the service says of records that are
// trimmed it also says of streams that are gone, and of a stream that is gone the same
// whether there is another or none.
func (c *Client) lost(ctx context.Context, at table.ShardName, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.condition {
	case table.ErrTrimmed, table.ErrNoStream, table.ErrNoShard, table.ErrIterator:
	default:
		return err
	}
	id, failed := c.streamID(ctx, at.Table)
	if failed != nil {
		return failed
	}
	because := *e
	switch {
	case id == "":
		because.condition = table.ErrNoStream
	case id != at.Stream:
		because.condition = table.ErrStreamReplaced
	case e.condition == table.ErrNoStream:
		// The service lists the stream, and refuses it.
		because.condition = table.ErrUnavailable
	}
	return &because
}

// ReadRecords reads a page of a shard's records.
func (c *Client) ReadRecords(ctx context.Context, at table.ShardName, iterator string, limit int, page *table.RecordPage) error {
	for {
		err := c.readRecords(ctx, at, iterator, limit, page)
		var large *tooLarge
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &large):
			return c.lost(ctx, at, err)
		case limit == 1:
			return shardFault(at, "a single record: %w", err)
		case limit <= 0:
			limit = fewerRecords
		default:
			limit /= 2
		}
	}
}

func (c *Client) readRecords(ctx context.Context, at table.ShardName, iterator string, limit int, page *table.RecordPage) error {
	body := appendString(make([]byte, 0, 16+len(iterator)), 1, iterator)
	if limit > 0 {
		body = appendVarint(body, 2, uint64(limit))
	}
	_, err := c.do(ctx, func(*retry.Call) error {
		a, err := c.attempt(ctx, "GetStreamRecord", at.Table, body, page.Buffer[:0], maxRecordBytes)
		if err != nil {
			return err
		}
		if err := readRecordPage(&a, at.Table, iterator, page); err != nil {
			return c.broken("GetStreamRecord", at.Table, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := 1; i < len(page.Records); i++ {
		if before, r := page.Records[i-1].At, page.Records[i].At; r.Compare(before) <= 0 {
			return shardFault(at, "the record at %+v follows the one at %+v", r, before)
		}
	}
	if page.Next == iterator && len(page.Records) > 0 {
		return shardFault(at, "after %d records the service goes on where it was", len(page.Records))
	}
	return nil
}

// readRecordPage takes an answer apart. Only rows have checksums of their own: where they
// belong and what was done to them is as sure as the whole answer's checksum.
func readRecordPage(a *answer, name, iterator string, page *table.RecordPage) error {
	if len(a.body) > smallAnswer {
		if err := a.verify(); err != nil {
			return err
		}
	}
	page.Buffer, page.ServerTime = a.body, a.time
	costs, err := parseRecords(a.body, name, iterator, page)
	if err == nil && page.Next == "" && !costs && a.sum == "" {
		// An empty body would be the end of a shard.
		err = errors.New("the end of a shard with neither a checksum nor a cost")
	}
	if err != nil {
		return err
	}
	return checkRecords(page)
}

// parseRecords is GetStreamRecordResponse. costs says that it has what it costs. An
// iterator that is the former one is no new text.
func parseRecords(b []byte, name, iterator string, page *table.RecordPage) (costs bool, err error) {
	page.Records, page.Next, page.More, page.ReadUnits = page.Records[:0], "", false, 0
	f := fields{rest: b}
	for f.next() {
		switch f.tag {
		case 1<<3 | asBytes:
			var r table.Record
			if r, err = parseRecord(f.data, name); err != nil {
				return false, fmt.Errorf("record %d: %w", len(page.Records), err)
			}
			page.Records = append(page.Records, r)
		case 2<<3 | asBytes:
			if page.Next = iterator; string(f.data) != iterator {
				page.Next = string(f.data)
			}
		case 3<<3 | asBytes:
			page.ReadUnits, _ = f.consumed()
			costs = true
		case 4<<3 | asInt:
			page.More = f.v != 0
		}
	}
	return costs, f.err
}

// parseRecord is StreamRecord without the row as it was before. Row is a block.
func parseRecord(b []byte, name string) (r table.Record, err error) {
	f := fields{rest: b}
	for f.next() {
		switch f.tag {
		case 1<<3 | asInt:
			if f.v < uint64(otsprotocol.ActionType_PUT_ROW) || f.v > uint64(otsprotocol.ActionType_DELETE_ROW) {
				return r, fmt.Errorf("an unknown kind, %d", f.v)
			}
			r.Kind = kinds[f.v]
		case 2<<3 | asBytes:
			r.Row = f.data
		case 4<<3 | asBytes:
			if string(f.data) != name {
				return r, fmt.Errorf("a row of table %.255q", f.data)
			}
		}
	}
	if f.err == nil && (r.Kind == 0 || r.Row == nil) {
		f.err = errors.New("no kind or no row")
	}
	return r, f.err
}

// kinds are what changes did, by the wire's numbers.
var kinds = [...]table.RecordKind{
	otsprotocol.ActionType_PUT_ROW:    table.RecordPut,
	otsprotocol.ActionType_UPDATE_ROW: table.RecordUpdate,
	otsprotocol.ActionType_DELETE_ROW: table.RecordDelete,
}

// A recordScanner is what it takes to look at records.
type recordScanner struct {
	scanner plainbuffer.Scanner
	row     plainbuffer.Row
}

var recordScanners = sync.Pool{New: func() any { return new(recordScanner) }}

// checkRecords takes each record's row out of its block, with all checksums compared, and
// its place out of the row.
func checkRecords(page *table.RecordPage) error {
	s := recordScanners.Get().(*recordScanner)
	defer recordScanners.Put(s)
	s.scanner.Reset(nil) // the names of another page are gone
	for i := range page.Records {
		r := &page.Records[i]
		s.scanner.Continue(r.Row)
		if err := s.scanner.Next(&s.row); err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
		if s.scanner.Offset() != len(r.Row) {
			return fmt.Errorf("record %d has more than one row", i)
		}
		if !s.row.HasExtension {
			return fmt.Errorf("record %d has no place in its shard", i)
		}
		e := s.row.Extension
		r.At = table.Position{Epoch: e.Epoch, Timestamp: e.Timestamp, Row: e.RowIndex}
		r.Row = s.row.Raw
	}
	return nil
}
