package engine

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/tablevault/tablevault/local/ots/kv"
)

var errTrimmed = &Error{CodeTrimmedData, "Requested stream data is already trimmed or does not exist."}

// An Iterator is a place in a shard, between two records. It is of use as long as the
// record behind it is kept.
type Iterator struct {
	Stream string
	Shard  int
	after  position
	made   int64  // microseconds
	turns  uint32 // how often a reader came who was caught up, where iterators move
	empty  uint32 // pages without records since the last that had some, of EmptyPages
}

// The kinds of what is sealed.
const (
	sealedIterator = 'a'
	sealedSeek     = 't'
)

// seal makes text of a kind, a shard, 16 bytes, others and a stream's id.
func seal(kind byte, shard int, place position, other []byte, stream string) string {
	b := append(make([]byte, 0, 48+len(stream)), kind)
	b = binary.BigEndian.AppendUint32(b, uint32(shard))
	b = append(b, place[:]...)
	b = append(b, other...)
	b = append(b, stream...)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return base64.RawURLEncoding.EncodeToString(b)
}

// unseal takes apart what seal made; other is as long as it was there.
func unseal(text string, kind byte, other []byte) (shard int, place position, stream string, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < 1+4+len(place)+len(other)+4 || b[0] != kind {
		return 0, place, "", false
	}
	n := len(b) - 4
	if crc32.ChecksumIEEE(b[:n]) != binary.BigEndian.Uint32(b[n:]) {
		return 0, place, "", false
	}
	copy(place[:], b[5:])
	rest := b[5+len(place) : n]
	return int(binary.BigEndian.Uint32(b[1:])), place, string(rest[copy(other, rest):]), true
}

// iteratorSize is the bytes of what an iterator has beside its place.
const iteratorSize = 8 + 4 + 4

func (i *Iterator) String() string {
	other := binary.BigEndian.AppendUint64(make([]byte, 0, iteratorSize), uint64(i.made))
	other = binary.BigEndian.AppendUint32(other, i.turns)
	other = binary.BigEndian.AppendUint32(other, i.empty)
	return seal(sealedIterator, i.Shard, i.after, other, i.Stream)
}

// ParseIterator is the inverse of String.
func ParseIterator(text string) (*Iterator, *Error) {
	var other [iteratorSize]byte
	shard, place, stream, ok := unseal(text, sealedIterator, other[:])
	if !ok {
		return nil, invalid("Invalid shard iterator: '%s'.", text)
	}
	return &Iterator{
		Stream: stream, Shard: shard, after: place,
		made:  int64(binary.BigEndian.Uint64(other[:])),
		turns: binary.BigEndian.Uint32(other[8:]),
		empty: binary.BigEndian.Uint32(other[12:]),
	}, nil
}

// stale is the error of an iterator that is too old, if it is.
func (i *Iterator) stale(now time.Time, b *StreamBehavior) *Error {
	if b.IteratorLife <= 0 || now.UnixMicro()-i.made <= b.IteratorLife.Microseconds() {
		return nil
	}
	if b.StaleIterator == "" || b.StaleIterator == CodeTrimmedData {
		return errTrimmed
	}
	return &Error{b.StaleIterator, fmt.Sprintf("Invalid shard iterator: '%s'.", i)}
}

// A Seek says where an iterator shall begin: at the oldest record, at the first whose
// timestamp is not before a time, or where the search of a token goes on.
type Seek struct {
	Timestamp *int64 // microseconds
	Token     string
}

// ShardIterator returns an iterator of a shard, or, while it is still searching, the
// token to ask with again.
func (e *Engine) ShardIterator(stream, shard string, seek Seek) (_ *Iterator, token string, _ *Error) {
	t, d := e.findStream(stream)
	if d == nil {
		return nil, "", noStream(stream)
	}
	s := &d.Stream
	n, err := s.shard(shard)
	if err != nil {
		return nil, "", err
	}
	now := e.now()
	behavior := e.behavior().Stream
	if seek.Timestamp != nil && *seek.Timestamp < 0 {
		return nil, "", invalid("Invalid timestamp: %d.", *seek.Timestamp)
	}
	steps := behavior.Seeks
	if seek.Token != "" {
		of, place, id, ok := unseal(seek.Token, sealedSeek, nil)
		if !ok || of != n || id != stream {
			return nil, "", invalid("Invalid token: '%s'.", seek.Token)
		}
		at := place.timestamp()
		seek.Timestamp, steps = &at, int(place.row())
	}
	if s.forgotten(n, now) {
		return nil, "", errTrimmed
	}
	if !s.Shards[n].known(now, behavior.ChildDelay) {
		return nil, "", invalid("Invalid shard id: %s.", shard)
	}
	if seek.Timestamp != nil && steps > 0 {
		return nil, seal(sealedSeek, n, positionOf(0, *seek.Timestamp, int32(steps-1)), nil, stream), nil
	}
	it := &Iterator{Stream: stream, Shard: n, made: now.UnixMicro()}
	horizon := s.horizon(now)
	failed := t.engine.store.View(d.Space, func(r kv.Reader) error {
		l := openLog(r, s, n)
		gone, latest := l.gone(horizon)
		it.after = gone
		if seek.Timestamp == nil {
			return nil
		}
		at := *seek.Timestamp
		if behavior.StrictStart && at < horizon {
			return errTrimmed
		}
		if latest >= at && latest > 0 {
			return errTrimmed
		}
		var key []byte
		if first, ok := l.at(at); ok {
			if bytes.Compare(first[:], gone[:]) <= 0 {
				return errTrimmed
			}
			key = l.key(first)
		}
		if p, ok := l.before(key); ok {
			it.after = p
		}
		return nil
	})
	if failed != nil {
		return nil, "", AsError(failed)
	}
	return it, "", nil
}

// A StreamRecord is one change of one row.
type StreamRecord struct {
	Op     Op
	Row    []byte // a block of one row with an extension
	Origin []byte // the row as it was, or nil
}

// A StreamPage is some records of a shard.
type StreamPage struct {
	Records []StreamRecord
	Next    *Iterator // nil at the end of a closed shard
	More    *bool     // whether there may be more records, nil if that is not told
	Read    int       // capacity units
}

// StreamTable is the table of a stream, or "" if there is none.
func (e *Engine) StreamTable(stream string) string {
	if _, d := e.findStream(stream); d != nil {
		return d.Name
	}
	return ""
}

// ReadStream returns the records behind an iterator, up to a limit of 0 for any.
func (e *Engine) ReadStream(it *Iterator, limit int) (*StreamPage, *Error) {
	behavior := e.behavior().Stream
	if limit < 0 || behavior.MaxLimit > 0 && limit > behavior.MaxLimit {
		return nil, invalid("Invalid limit: %d.", limit)
	}
	most := MaxStreamPage
	if behavior.Page > 0 {
		most = min(most, behavior.Page)
	}
	if limit > 0 {
		most = min(most, limit)
	}
	t, d := e.findStream(it.Stream)
	switch {
	case d != nil:
	case behavior.LostIterators:
		return nil, noStream(it.Stream)
	default:
		return nil, errTrimmed
	}
	s := &d.Stream
	now := e.now()
	if it.Shard >= len(s.Shards) || s.forgotten(it.Shard, now) {
		return nil, errTrimmed
	}
	if err := it.stale(now, &behavior); err != nil {
		return nil, err
	}
	if err := t.allowRead(now); err != nil {
		return nil, err
	}
	next := *it
	page := &StreamPage{Next: &next}
	visible := int64(math.MaxInt64)
	if behavior.Lag > 0 {
		visible = now.Add(-behavior.Lag).UnixMicro()
	}
	room := e.pageSize()
	more, hidden := false, false // records that are not in the page, those that nobody may see yet
	var all []byte               // the values of the page, one behind the other
	var ends []int
	failed := e.store.View(d.Space, func(r kv.Reader) error {
		l := openLog(r, s, it.Shard)
		if gone, _ := l.gone(s.horizon(now)); bytes.Compare(gone[:], it.after[:]) > 0 {
			return errTrimmed
		}
		l.ascend(it.after, func(p position, value []byte) bool {
			if len(value) < streamHeader {
				return true
			}
			written := int64(binary.BigEndian.Uint64(value[1:]))
			hidden = written > visible
			if more = hidden || len(ends) == most || len(all) > 0 && len(all)+len(value) > room; more {
				return false
			}
			all = append(all, value...)
			ends = append(ends, len(all))
			next.after = p
			return true
		})
		return nil
	})
	if failed != nil {
		return nil, AsError(failed)
	}
	// The definition was read before the records: a shard that was closed then
	// has no others.
	ended := !more && s.Shards[it.Shard].Closed != 0
	if (len(ends) > 0 || ended) && int(it.empty) < behavior.EmptyPages {
		return it.emptyPage(t, now), nil
	}
	page.Records = make([]StreamRecord, len(ends))
	start := 0
	for i, end := range ends {
		page.Records[i] = parseStreamRecord(all[start:end:end])
		start = end
	}
	switch {
	case ended:
		page.Next = nil
	case len(ends) > 0:
		next.made, next.turns, next.empty = now.UnixMicro(), 0, 0
	case behavior.MovingIterators:
		next.made = now.UnixMicro()
		next.turns++
	}
	if behavior.TellMore {
		there := more && !hidden
		page.More = &there
	}
	page.Read = units(len(all))
	t.spend(page.Read, 0)
	return page, nil
}

// emptyPage is a page without records though there are some, or though it is the shard's
// end.
func (i *Iterator) emptyPage(t *Table, now time.Time) *StreamPage {
	next, more := *i, true
	next.made = now.UnixMicro()
	next.empty++
	page := &StreamPage{Next: &next, More: &more, Read: units(0)}
	t.spend(page.Read, 0)
	return page
}

// parseStreamRecord takes a stored record apart.
func parseStreamRecord(value []byte) StreamRecord {
	n := streamHeader + int(binary.BigEndian.Uint32(value[9:]))
	record := StreamRecord{Op: Op(value[0]), Row: value[streamHeader:n]}
	if n < len(value) {
		record.Origin = value[n:]
	}
	return record
}
