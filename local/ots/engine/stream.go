package engine

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tablevault/tablevault/local/ots/kv"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// MaxStreamHours is the longest retention of a stream.
const MaxStreamHours = 168

// MaxStreamPage is the most records of a page of a stream.
const MaxStreamPage = 1000

// StreamBehavior is what is not known of the service's streams, or what the service is
// free to do with them. The zero value is the default.
type StreamBehavior struct {
	// Delay is how long a new stream is being enabled. Until then it keeps no records of
	// changes.
	Delay time.Duration
	// Lag is how long a record stays invisible to readers.
	Lag time.Duration
	// Page makes pages shorter than MaxStreamPage records.
	Page int
	// MaxLimit refuses reads that ask for more records than it. By default any limit is
	// taken, and a page has no more records than it can have.
	MaxLimit int
	// ShardPage is the most shards in one answer of DescribeStream, any number if 0.
	ShardPage int
	// Seeks is how many answers a search for a timestamp gives that hold a token instead
	// of the iterator.
	Seeks int
	// LostIterators answers an iterator of a stream that is gone as the stream's id is
	// answered, as invalid. By default what it leads to is trimmed.
	LostIterators bool
	// StrictStart refuses an iterator at a time before the retention's, even where
	// nothing was trimmed since. By default only what was lost is refused.
	StrictStart bool
	// Increments shows increments as they were asked for, as an operation with what is
	// added. By default a record has the result, as a put of a cell.
	Increments bool
	// SkipNoops leaves out records of changes that changed nothing: a delete of a row
	// that is not there, an update that only deletes from such a row. By default they are
	// records as others are.
	SkipNoops bool
	// Evictions makes records of versions that went because there are newer ones or
	// because they expired: updates that delete single versions. By default nothing tells
	// that they went.
	Evictions bool
	// DeleteMarks puts the mark of a deletion into the row of a delete's record. By
	// default it is a key and no more.
	DeleteMarks bool
	// ResetEpochs lets the epochs of a shard begin at 0. By default they go on from those
	// of its parents.
	ResetEpochs bool
	// Skew is how much the clock is behind on the machine that every other partition
	// moves to, or ahead if it is below 0: of the two that a split makes, one is.
	Skew time.Duration
	// Late stamps every LateEvery-th record of a table so much before it is written, or
	// every one if LateEvery is 0: a reader may have been told of an instant after the
	// stamp that the shard has no more. Where the record before it has a later stamp,
	// another epoch begins.
	Late      time.Duration
	LateEvery int
	// ChildDelay is how long after the split or merge of a shard its children stay
	// unknown to DescribeStream and GetShardIterator; of the two that a split makes, the
	// second stays so twice as long. They have records of changes from the beginning. By
	// default they are known when their parent is closed.
	ChildDelay time.Duration
	// EmptyPages is how many pages without records come before each that has some, and
	// before the end of a closed shard. Each of them has another iterator and says that
	// there may be more.
	EmptyPages int
	// TellMore lets each page say whether there may be more records. By default only
	// those of EmptyPages do.
	TellMore bool
	// MovingIterators gives a reader who is caught up another iterator than the one that
	// he came with. By default it is the same.
	MovingIterators bool
	// IteratorLife is how long an iterator is of use after it was made. By default it is
	// so as long as no record behind it was trimmed. StaleIterator is the code with which
	// an older one is refused, CodeTrimmedData if it is empty.
	IteratorLife  time.Duration
	StaleIterator string
	// NoGlobalIndexes keeps streams and global indexes from being on one table.
	NoGlobalIndexes bool
}

// A Shard is the log of one partition, from when it was made until it is split, merged,
// or the stream ends.
type Shard struct {
	// Parents are the shard that was split, or the two that were merged.
	Parents []int `json:",omitempty"`
	// Skew is what the clock of its machine is ahead, in microseconds.
	Skew int64 `json:",omitempty"`
	// Opened and Closed are microseconds, Closed 0 while it is open.
	Opened int64 `json:",omitempty"`
	Closed int64 `json:",omitempty"`
	// Second says that it is the second child of a split.
	Second bool `json:",omitempty"`
}

// enable makes s, which is how a stream was asked for, a new stream of the table.
func (e *Engine) enable(s *StreamSettings, d *Definition, now time.Time) *Error {
	if err := s.check(); err != nil {
		return err
	}
	if e.behavior().Stream.NoGlobalIndexes {
		for i := range d.Indexes {
			if !d.Indexes[i].Local {
				return invalid("Stream is not supported on table with global index.")
			}
		}
	}
	s.EnableTime = now.UnixMicro()
	s.ActiveAt = 0
	if delay := e.behavior().Stream.Delay; delay > 0 {
		s.ActiveAt = now.Add(delay).UnixMicro()
	}
	// Ids differ though the clock may stand still or step back.
	e.lastStream = max(e.lastStream+1, s.EnableTime)
	s.Number = e.lastStream
	s.ID = fmt.Sprintf("%s_%d", d.Name, s.Number)
	s.Shards, s.Open = nil, nil
	for range len(d.Splits) + 1 {
		s.Open = append(s.Open, s.add(e, now))
	}
	return nil
}

func (s *StreamSettings) check() *Error {
	if s.Hours < 1 || s.Hours > MaxStreamHours {
		return invalid("Stream expiration time must be in range: [1, %d].", MaxStreamHours)
	}
	for _, name := range s.Columns {
		if err := checkColumnName([]byte(name)); err != nil {
			return err
		}
	}
	return nil
}

// add makes another shard and returns its number.
func (s *StreamSettings) add(e *Engine, now time.Time, parents ...int) int {
	n := len(s.Shards)
	shard := Shard{Parents: parents, Opened: now.UnixMicro()}
	if n%2 == 1 {
		shard.Skew = -e.behavior().Stream.Skew.Microseconds()
	}
	s.Shards = append(s.Shards, shard)
	return n
}

// split closes the shard of a partition and opens two.
func (s *StreamSettings) split(e *Engine, partition int, now time.Time) {
	if !s.Enabled {
		return
	}
	parent := s.close(partition, now)
	first, second := s.add(e, now, parent), s.add(e, now, parent)
	s.Shards[second].Second = true
	s.Open = slices.Replace(slices.Clone(s.Open), partition, partition+1, first, second)
}

// merge closes the shards of a partition and of the one that follows, and opens one.
func (s *StreamSettings) merge(e *Engine, partition int, now time.Time) {
	if !s.Enabled {
		return
	}
	first, second := s.close(partition, now), s.close(partition+1, now)
	s.Open = slices.Replace(slices.Clone(s.Open), partition, partition+2, s.add(e, now, first, second))
}

func (s *StreamSettings) close(partition int, now time.Time) int {
	n := s.Open[partition]
	s.Shards = slices.Clone(s.Shards)
	s.Shards[n].Closed = now.UnixMicro()
	return n
}

// updateStream turns the stream of a table on, off, or changes its retention and columns.
// A stream that is turned on again is a new one.
func (e *Engine) updateStream(d *Definition, s *StreamSettings, now time.Time) *Error {
	if !s.Enabled {
		d.Stream = StreamSettings{}
		return nil
	}
	if d.Stream.Enabled {
		if err := s.check(); err != nil {
			return err
		}
		d.Stream.Hours, d.Stream.Columns = s.Hours, s.Columns
		return nil
	}
	next := StreamSettings{Enabled: true, Hours: s.Hours, Columns: s.Columns}
	if err := e.enable(&next, d, now); err != nil {
		return err
	}
	d.Stream = next
	return nil
}

// forgetStreams removes the records of all streams that a table had.
func (t *Table) forgetStreams(space string) *Error {
	for _, prefix := range []byte{prefixStream, prefixTrimmed} {
		if err := t.purge(space, []byte{prefix}); err != nil {
			return AsError(err)
		}
	}
	return nil
}

// SkewClock sets how far the clock of the machine of a partition, counted from 0, is
// ahead from now on, or behind if it is below 0.
func (e *Engine) SkewClock(table string, partition int, by time.Duration) *Error {
	return e.change(table, func(d *Definition) *Error {
		if !d.Stream.Enabled {
			return invalid("The table has no stream.")
		}
		if partition < 0 || partition >= len(d.Stream.Open) {
			return invalid("There is no partition %d.", partition)
		}
		d.Stream.Shards = slices.Clone(d.Stream.Shards)
		d.Stream.Shards[d.Stream.Open[partition]].Skew = by.Microseconds()
		return nil
	})
}

// A StreamDescription is a table's stream.
type StreamDescription struct {
	StreamSettings
	Table  string
	Active bool // it keeps records
	// Listed are the numbers of the shards that have records or may get some.
	Listed []int
}

// Streams returns the stream of a table if it has one, or all for "".
func (e *Engine) Streams(table string) ([]StreamDescription, *Error) {
	if table != "" {
		t := e.find(table)
		if t == nil {
			return nil, errNoTable
		}
		var out []StreamDescription
		if d := t.definition(); d.Stream.Enabled {
			out = append(out, e.describeStream(d))
		}
		return out, nil
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	var out []StreamDescription
	for _, t := range e.tables {
		if d := t.definition(); d.Stream.Enabled {
			out = append(out, e.describeStream(d))
		}
	}
	slices.SortFunc(out, func(a, b StreamDescription) int { return cmp.Compare(a.Table, b.Table) })
	return out, nil
}

func (e *Engine) describeStream(d *Definition) StreamDescription {
	now, delay := e.now(), e.behavior().Stream.ChildDelay
	s := StreamDescription{StreamSettings: d.Stream, Table: d.Name, Active: d.Stream.active(now)}
	for n := range s.Shards {
		if !s.forgotten(n, now) && s.Shards[n].known(now, delay) {
			s.Listed = append(s.Listed, n)
		}
	}
	return s
}

func (s *StreamSettings) active(now time.Time) bool { return now.UnixMicro() >= s.ActiveAt }

// horizon is the least timestamp, in microseconds, that is kept at the time.
func (s *StreamSettings) horizon(now time.Time) int64 {
	return max(0, now.Add(-time.Duration(s.Hours)*time.Hour).UnixMicro())
}

// forgotten says whether the shard was closed so long ago that nothing of it is kept.
func (s *StreamSettings) forgotten(shard int, now time.Time) bool {
	closed := s.Shards[shard].Closed
	return closed != 0 && closed < s.horizon(now)
}

// known says whether the shard can be found, where children are known so late.
func (s *Shard) known(now time.Time, delay time.Duration) bool {
	if len(s.Parents) == 0 || delay <= 0 {
		return true
	}
	if s.Second {
		delay *= 2
	}
	return now.UnixMicro() >= s.Opened+delay.Microseconds()
}

// ShardID is how the shard of a number is called.
func (s *StreamSettings) ShardID(number int) string {
	return s.ID + "_shard_" + strconv.Itoa(number)
}

// shard is the number of a shard, which may be forgotten.
func (s *StreamSettings) shard(id string) (int, *Error) {
	if digits, ok := strings.CutPrefix(id, s.ID+"_shard_"); ok {
		n, err := strconv.Atoi(digits)
		if err == nil && n >= 0 && n < len(s.Shards) && s.ShardID(n) == id {
			return n, nil
		}
	}
	return 0, invalid("Invalid shard id: %s.", id)
}

// Stream returns the stream of an id.
func (e *Engine) Stream(id string) (*StreamDescription, *Error) {
	_, d := e.findStream(id)
	if d == nil {
		return nil, noStream(id)
	}
	s := e.describeStream(d)
	return &s, nil
}

func noStream(id string) *Error { return invalid("Invalid stream id: %s.", id) }

func (e *Engine) findStream(id string) (*Table, *Definition) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, t := range e.tables {
		if d := t.definition(); d.Stream.Enabled && d.Stream.ID == id {
			return t, d
		}
	}
	return nil, nil
}

// ShardPage is the shards of a stream from one on, which is the first for "", up to a
// limit of 0 for any. next is the one that follows them.
func (e *Engine) ShardPage(s *StreamDescription, from string, limit int) (shards []int, next string, _ *Error) {
	if limit < 0 {
		return nil, "", invalid("Invalid shard limit: %d.", limit)
	}
	shards = s.Listed
	if from != "" {
		n, err := s.shard(from)
		if err != nil {
			return nil, "", err
		}
		at, _ := slices.BinarySearch(shards, n)
		shards = shards[at:]
	}
	if page := e.behavior().Stream.ShardPage; page > 0 && (limit == 0 || page < limit) {
		limit = page
	}
	if limit > 0 && limit < len(shards) {
		next = s.ShardID(shards[limit])
		shards = shards[:limit]
	}
	return shards, next, nil
}

// partition is the number of the partition that holds a stored key.
func (d *Definition) partition(key []byte) int {
	at, found := slices.BinarySearchFunc(d.Splits, key, bytes.Compare)
	if found {
		at++
	}
	return at
}

// A position is the place of a record in its shard, as the last bytes of its key: the
// epoch, the timestamp in microseconds and the row index, each big endian. The zero
// position is before all.
type position [16]byte

func (p position) epoch() int32 {
	return int32(uint32(p[0])<<24 | uint32(p[1])<<16 | uint32(p[2])<<8 | uint32(p[3]))
}
func (p position) timestamp() int64 { return int64(bigEndian(p[4:12])) }
func (p position) row() int32       { return int32(bigEndian(p[12:16])) }

func bigEndian(b []byte) (v uint64) {
	for _, x := range b {
		v = v<<8 | uint64(x)
	}
	return v
}

func positionOf(epoch int32, timestamp int64, row int32) (p position) {
	for i := range 4 {
		p[i] = byte(uint32(epoch) >> (24 - 8*i))
		p[12+i] = byte(uint32(row) >> (24 - 8*i))
	}
	for i := range 8 {
		p[4+i] = byte(uint64(timestamp) >> (56 - 8*i))
	}
	return p
}

// after is the place of a record that follows p and was written when its machine's clock
// showed the time.
func (p position) after(timestamp int64) position {
	switch last := p.timestamp(); {
	case p == position{} || timestamp > last:
		return positionOf(p.epoch(), timestamp, 0)
	case timestamp == last:
		return positionOf(p.epoch(), last, p.row()+1)
	}
	// The clock stepped back.
	return positionOf(p.epoch()+1, timestamp, 0)
}

func (p position) extension() plainbuffer.Extension {
	return plainbuffer.Extension{Epoch: p.epoch(), Timestamp: p.timestamp(), RowIndex: p.row()}
}

// shardPrefix begins the keys of a shard's records, or of what is known of those that
// were trimmed.
func shardPrefix(kind byte, stream int64, shard int) []byte {
	b := make([]byte, 1, 13+len(position{}))
	b[0] = kind
	for i := range 8 {
		b = append(b, byte(uint64(stream)>>(56-8*i)))
	}
	for i := range 4 {
		b = append(b, byte(uint32(shard)>>(24-8*i)))
	}
	return b
}

// A shardLog is the stored records of one shard.
type shardLog struct {
	reader  kv.Reader
	prefix  []byte
	trimmed []byte // the key of what is known of the trimmed
}

func openLog(r kv.Reader, s *StreamSettings, shard int) *shardLog {
	return &shardLog{
		reader:  r,
		prefix:  shardPrefix(prefixStream, s.Number, shard),
		trimmed: shardPrefix(prefixTrimmed, s.Number, shard),
	}
}

func (l *shardLog) key(p position) []byte { return append(slices.Clip(l.prefix), p[:]...) }

func (l *shardLog) place(key []byte) (p position) {
	copy(p[:], key[len(l.prefix):])
	return p
}

// ascend calls fn with the records behind a position.
func (l *shardLog) ascend(after position, fn func(p position, value []byte) bool) {
	l.reader.Ascend(append(l.key(after), 0), func(key, value []byte) bool {
		return bytes.HasPrefix(key, l.prefix) && fn(l.place(key), value)
	})
}

// before is the place of the last record before a key of the shard, or nil for all of it.
func (l *shardLog) before(key []byte) (p position, ok bool) {
	if key == nil {
		key = l.key(position{})
		for i := len(l.prefix); i < len(key); i++ {
			key[i] = 0xFF
		}
	}
	l.reader.Descend(key, func(found, _ []byte) bool {
		if ok = bytes.HasPrefix(found, l.prefix); ok {
			p = l.place(found)
		}
		return false
	})
	return p, ok
}

// at is the place of the first record whose timestamp is not before the given one.
// Timestamps grow within an epoch, so that it asks once for each.
func (l *shardLog) at(timestamp int64) (p position, ok bool) {
	from := positionOf(0, timestamp, 0)
	for {
		ok = false
		l.reader.Ascend(l.key(from), func(key, _ []byte) bool {
			if ok = bytes.HasPrefix(key, l.prefix); ok {
				p = l.place(key)
			}
			return false
		})
		if !ok || p.epoch() == from.epoch() {
			return p, ok
		}
		from = positionOf(p.epoch(), timestamp, 0)
	}
}

// gone is the place of the last record that is out of reach, and the greatest timestamp
// of those that are no longer stored.
func (l *shardLog) gone(horizon int64) (last position, latest int64) {
	if v := l.reader.Get(l.trimmed); len(v) == len(last)+8 {
		copy(last[:], v)
		latest = int64(bigEndian(v[len(last):]))
	}
	var key []byte
	if first, ok := l.at(horizon); ok {
		key = l.key(first)
	}
	if p, ok := l.before(key); ok {
		last = p
	}
	return last, latest
}

// last is the place of the newest record that the shard ever had.
func (l *shardLog) last() position {
	if p, ok := l.before(nil); ok {
		return p
	}
	p, _ := l.gone(0)
	return p
}
