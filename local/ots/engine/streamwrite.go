package engine

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"github.com/tablevault/tablevault/local/ots/kv"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// streamHeader begins a stored record of a stream, which is
//
//	byte    what the change did, an Op
//	int64   when it was written, in microseconds of the server's own clock
//	uint32  bytes of the row
//	        the row as a block, with its extension
//	        the row before the change as a block, if there is one
const streamHeader = 1 + 8 + 4

// A changeLog turns the changes of one request into records of the table's stream. It
// writes them in the update that changes the rows.
type changeLog struct {
	on       bool
	table    *Table
	stream   *StreamSettings
	behavior StreamBehavior
	// last is where each shard that the request touches has its last record: those that
	// the update has written are not always to be read back in it.
	last    map[int]position
	staged  [][2][]byte
	row     plainbuffer.Row
	cells   []plainbuffer.Cell
	builder plainbuffer.Builder
}

// begin makes l ready for a request.
func (l *changeLog) begin(t *Table, d *Definition, now time.Time) {
	if l.on = d.Stream.Enabled && d.Stream.active(now); !l.on {
		return
	}
	l.table, l.stream, l.behavior = t, &d.Stream, t.engine.behavior().Stream
	clear(l.last)
	l.staged = l.staged[:0]
}

// end lets go of what the request needed.
func (l *changeLog) end() {
	clear(l.staged)
	clear(l.cells)
	l.table, l.stream, l.staged, l.cells, l.row = nil, nil, l.staged[:0], l.cells[:0], plainbuffer.Row{}
}

// wantsOld says whether the record of a change depends on the row's former state.
func (l *changeLog) wantsOld(c *Change) bool {
	return l.on && (len(l.stream.Columns) > 0 || l.behavior.SkipNoops && c.Op == Delete)
}

// evictions are those of sorted cells that trim would drop, as operations, if the stream
// is to tell.
func (w *writer) evictions(cells []plainbuffer.Cell) []plainbuffer.Cell {
	if !w.log.on || !w.log.behavior.Evictions {
		return nil
	}
	var out []plainbuffer.Cell
	named := 0
	for i := range cells {
		if named++; i == 0 || !bytes.Equal(cells[i].Name, cells[i-1].Name) {
			named = 1
		}
		if named > int(w.options.MaxVersions) || cells[i].Timestamp < w.expiry {
			out = append(out, plainbuffer.Cell{Name: cells[i].Name, Op: plainbuffer.DeleteOne, Timestamp: cells[i].Timestamp, HasTimestamp: true})
		}
	}
	return out
}

// stage prepares the records of a change that takes a row from old to next; nil is none.
// Nothing is written before flush, since a write may move old.
func (w *writer) stage(s kv.Writer, c *Change, old, next record) error {
	l := &w.log
	if !l.on || l.behavior.SkipNoops && old == nil && next == nil {
		return nil
	}
	op, cells := c.Op, c.Row.Cells
	l.cells = l.cells[:0]
	switch {
	case op == Delete:
		cells = nil
	case c.auto:
		// The row is new, whatever it was made with.
		op = Put
		if _, err := plainbuffer.Scan(next.row(), &l.row); err != nil {
			return err
		}
		cells = l.row.Cells
	case op == Put && c.given != nil:
		cells = c.given
	case op == Update:
		for _, cell := range cells {
			if cell.Op == plainbuffer.Increment && !l.behavior.Increments {
				cell = w.sum(cell)
			}
			l.cells = append(l.cells, cell)
		}
		cells = l.cells
	}
	origin, err := w.origin(old)
	if err != nil {
		return err
	}
	w.log.add(w, s, op, c.key, c.Row.Key, cells, origin)
	if len(c.evicted) == 0 {
		return nil
	}
	// What goes is older than what the columns have by now.
	if origin, err = w.origin(next); err != nil {
		return err
	}
	w.log.add(w, s, Update, c.key, c.Row.Key, c.evicted, origin)
	return nil
}

// sum is the cell that an increment made. No other operation of a change is on its
// column.
func (w *writer) sum(c plainbuffer.Cell) plainbuffer.Cell {
	for i := range w.added {
		if bytes.Equal(w.added[i].Name, c.Name) {
			return w.added[i]
		}
	}
	return c
}

// origin is the row as it was, with the newest versions of the columns that the stream
// keeps.
func (w *writer) origin(old record) ([]byte, error) {
	l := &w.log
	if len(l.stream.Columns) == 0 || old == nil {
		return nil, nil
	}
	var row plainbuffer.Row
	if _, err := plainbuffer.Scan(old.row(), &row); err != nil {
		return nil, err
	}
	return newest(&row, l.stream.Columns, w.expiry), nil
}

// add stages one record.
func (l *changeLog) add(w *writer, s kv.Writer, op Op, stored []byte, key, cells []plainbuffer.Cell, origin []byte) {
	shard := l.stream.Open[w.def.partition(stored)]
	last, ok := l.last[shard]
	if !ok {
		last = l.stream.last(s, shard, l.behavior.ResetEpochs)
	}
	now := l.table.engine.now().UnixMicro()
	at := last.after(max(0, now+l.stream.Shards[shard].Skew-l.late()))
	if l.last == nil {
		l.last = map[int]position{}
	}
	l.last[shard] = at

	start := len(w.arena)
	w.arena = append(w.arena, shardPrefix(prefixStream, l.stream.Number, shard)...)
	w.arena = append(w.arena, at[:]...)
	value := len(w.arena)
	w.arena = append(w.arena, byte(op))
	w.arena = binary.BigEndian.AppendUint64(w.arena, uint64(now))
	w.arena = append(w.arena, 0, 0, 0, 0)
	l.builder.Buf = plainbuffer.AppendHeader(w.arena)
	b := &l.builder
	b.Begin()
	for i := range key {
		b.Cell(&key[i])
	}
	if len(cells) > 0 {
		b.Attributes()
	}
	for i := range cells {
		cell := cells[i]
		if cell.Op == plainbuffer.DeleteAll {
			cell.HasTimestamp = false
		} else {
			cell.HasTimestamp = true
		}
		b.Cell(&cell)
	}
	b.EndRecord(op == Delete && l.behavior.DeleteMarks, at.extension())
	w.arena, b.Buf = b.Buf, nil
	binary.BigEndian.PutUint32(w.arena[value+9:], uint32(len(w.arena)-value-streamHeader))
	w.arena = append(w.arena, origin...)
	l.staged = append(l.staged, [2][]byte{w.arena[start:value:value], w.arena[value:len(w.arena):len(w.arena)]})
}

// late is by how many microseconds the next record's stamp is before its time.
func (l *changeLog) late() int64 {
	if l.behavior.Late <= 0 || l.table.streamed.Add(1)%int64(max(1, l.behavior.LateEvery)) != 0 {
		return 0
	}
	return l.behavior.Late.Microseconds()
}

// flush writes what is staged.
func (l *changeLog) flush(s kv.Writer) {
	for _, pair := range l.staged {
		s.Put(pair[0], pair[1])
	}
	clear(l.staged)
	l.staged = l.staged[:0]
}

// last is the place behind which the next record of a shard goes. A shard without records
// begins behind those of its nearest ancestors that have some, or anew.
func (s *StreamSettings) last(r kv.Reader, shard int, anew bool) position {
	p := openLog(r, s, shard).last()
	if p != (position{}) || anew {
		return p
	}
	// Where partitions split and merge by turns, an ancestor is so by many ways.
	asked := map[int]bool{}
	for left := s.Shards[shard].Parents; len(left) > 0; {
		n := left[0]
		left = left[1:]
		if asked[n] {
			continue
		}
		asked[n] = true
		q := openLog(r, s, n).last()
		if q == (position{}) {
			left = append(slices.Clip(left), s.Shards[n].Parents...)
		} else if bytes.Compare(q[:], p[:]) > 0 {
			p = q
		}
	}
	return p
}

// trimStep is the number of records that are removed before writers get their turn.
const trimStep = 1000

// trims is into how many parts the retention of a stream is cut: so often its expired
// records are removed.
const trims = 48

// expireStream removes records that are out of reach, in the background, if it is time
// to.
func (t *Table) expireStream(d *Definition, now time.Time) {
	if !d.Stream.Enabled {
		return
	}
	due := t.trimDue.Load()
	if now.UnixMicro() < due || !t.trimDue.CompareAndSwap(due, now.Add(time.Duration(d.Stream.Hours)*time.Hour/trims).UnixMicro()) {
		return
	}
	t.engine.builds.Go(func() {
		// A store that fails shows it to the next write.
		_ = t.trim(d, d.Stream.horizon(now))
	})
}

// TrimStream removes the records of a table's stream from before a time, as their expiry
// does.
func (e *Engine) TrimStream(table string, until time.Time) *Error {
	t := e.find(table)
	if t == nil {
		return errNoTable
	}
	d := t.definition()
	if !d.Stream.Enabled {
		return invalid("The table has no stream.")
	}
	return AsError(t.trim(d, until.UnixMicro()))
}

// trim removes the records of all shards up to the first of each that is not before the
// horizon.
func (t *Table) trim(d *Definition, horizon int64) error {
	for shard := range d.Stream.Shards {
		for more := true; more && !t.gone.Load() && !t.engine.closing.Load(); {
			err := t.engine.store.Update(d.Space, func(w kv.Writer) error {
				more = false
				if !t.definition().Stream.is(&d.Stream) {
					return nil
				}
				l := openLog(w, &d.Stream, shard)
				_, latest := l.gone(0)
				end, bounded := l.at(horizon)
				var keys [][]byte
				l.ascend(position{}, func(p position, _ []byte) bool {
					if bounded && p == end || len(keys) == trimStep {
						more = len(keys) == trimStep
						return false
					}
					keys = append(keys, l.key(p))
					latest = max(latest, p.timestamp())
					return true
				})
				if len(keys) == 0 {
					return nil
				}
				last := l.place(keys[len(keys)-1])
				w.Put(l.trimmed, binary.BigEndian.AppendUint64(last[:], uint64(latest)))
				for _, key := range keys {
					w.Delete(key)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// is says whether both are the same stream.
func (s *StreamSettings) is(other *StreamSettings) bool {
	return s.Enabled && s.Number == other.Number
}
