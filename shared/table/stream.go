package table

import (
	"cmp"
	"context"
	"time"
)

// Streams are the change streams of an instance's tables: each change of a row is a
// record in the log of a shard. A partition writes one shard at a time; where it is split
// or merged, its shard is closed and others, its children, go on. Whoever reads the
// parents of a shard to their ends before the shard has the records of each key in the
// order of its changes.
//
// Errors match the conditions of this package. ErrNoStream and ErrStreamReplaced say that
// the stream that was named is gone, ErrNoShard that it has no such shard or does not
// show it yet; ErrTrimmed and ErrIterator that a reader can't go on where he was, and
// that a search by time tells whether something was lost. Every method tries again what
// may succeed, until ctx ends.
type Streams interface {
	// DescribeStream tells of a table's stream and of the shards that it shows.
	DescribeStream(ctx context.Context, name string) (ChangeStream, error)
	// SeekOldest returns an iterator at the first record of a shard that is kept. What
	// was trimmed before it is passed over without a word.
	SeekOldest(ctx context.Context, at ShardName) (iterator string, err error)
	// SeekTime returns an iterator at the first record of a shard that is stamped at or
	// after a time, in microseconds since 1970, or at the shard's end.
	SeekTime(ctx context.Context, at ShardName, micros int64) (iterator string, err error)
	// ReadRecords reads some of the records behind an iterator into page, at most limit
	// if that is above 0. Beside an error page has no meaning.
	ReadRecords(ctx context.Context, at ShardName, iterator string, limit int, page *RecordPage) error
}

// A ChangeStream is what is known of a table's stream.
type ChangeStream struct {
	ID              string
	Created         int64 // microseconds since 1970
	ExpirationHours int32
	// Active says that changes become records; a new stream takes its time.
	Active bool
	// Shards are those that have records or may get some, each once. Their parents may
	// have expired, and children of a closed one may show later, one by one.
	Shards []StreamShard
	// ServerTime is the service's date before any of the shards was looked up.
	ServerTime time.Time
}

// A StreamShard is one shard of a stream.
type StreamShard struct {
	ID string
	// Parents are none, the shard that was split, or the two that were merged.
	Parents []string
}

// A ShardName says which shard is meant.
type ShardName struct{ Table, Stream, Shard string }

// A RecordPage is what one request of a stream brought. Its memory is used again by the
// next request that reads into it.
type RecordPage struct {
	Records []Record
	// Next is where the shard goes on, "" at the end of a closed one.
	Next string
	// More says that the service expects more records behind Next: then none here does
	// not mean that there are none.
	More bool
	// ServerTime is the service's date of the answer.
	ServerTime time.Time
	// ReadUnits is what the page cost.
	ReadUnits int64
	// Buffer holds the rows.
	Buffer []byte
}

// CaughtUp says that the shard had no other record when the page was read, and may have
// some later.
func (p *RecordPage) CaughtUp() bool { return len(p.Records) == 0 && p.Next != "" && !p.More }

// A Record is one change of one row.
type Record struct {
	Kind RecordKind
	// At is the record's place in its shard, after those of all records before it.
	At Position
	// Row is the record as PlainBuffer without a block's header, the service's own bytes:
	// the row's key, its cells with their operations, and the place. It stays as it is
	// until the page is read into again.
	Row []byte
}

// RecordKind is what a change did.
type RecordKind byte

// The kinds. A put replaces the row, an update changes some of its cells, a delete
// removes it.
const (
	RecordPut RecordKind = iota + 1
	RecordUpdate
	RecordDelete
)

func (k RecordKind) String() string {
	switch k {
	case RecordPut:
		return "put"
	case RecordUpdate:
		return "update"
	case RecordDelete:
		return "delete"
	}
	return "unknown"
}

// A Position is the place of a record in its shard. The epoch grows where the clock of
// the shard's machine steps back, the row index where records share a microsecond.
type Position struct {
	Epoch     int32
	Timestamp int64 // microseconds since 1970, by the clock of the shard's machine
	Row       int32
}

// Compare orders the positions of one shard.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Epoch, q.Epoch), cmp.Compare(p.Timestamp, q.Timestamp), cmp.Compare(p.Row, q.Row))
}
