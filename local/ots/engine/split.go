package engine

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"

	"github.com/tablevault/tablevault/local/ots/kv"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// Splits are the ranges that ComputeSplits proposes: before, between and after the
// points.
type Splits struct {
	Key    []KeyColumn
	Points [][]byte // keys as blocks, increasing
	// Partitions names, for each range, the partition that it begins in.
	Partitions []int
	Read       int // capacity units
}

// The least unit of sizes and the default.
const (
	minSplitUnit     = 1 << 20
	defaultSplitUnit = 100 << 20
)

// ComputeSplits cuts a table into ranges of about size units of bytes, by the sizes that
// its rows have on disk. unit is 0 if not given; limit bounds the number of points if it
// is not 0.
func (e *Engine) ComputeSplits(table string, size, unit int64, limit int) (*Splits, *Error) {
	if unit == 0 {
		unit = defaultSplitUnit
	}
	switch {
	case size <= 0:
		return nil, invalid("The split_size should be greater than 0.")
	case unit < minSplitUnit:
		return nil, invalid("The split_size_unit_in_byte should be greater equal than: %d", minSplitUnit)
	case limit < 0:
		return nil, invalid("The split_point_limit should be greater than 0.")
	case size > (1<<62)/unit:
		size = (1 << 62) / unit
	}
	t, err := e.ready(table)
	if err != nil {
		return nil, err
	}
	d := t.definition()
	if err := t.readable(d); err != nil {
		return nil, err
	}
	out := &Splits{Key: d.Key, Partitions: []int{0}, Read: 1 + len(d.Splits)}
	target := size * unit
	options := t.options(d, e.now())
	var row, last plainbuffer.Row
	var lastRow []byte // of the row before, if it is needed
	kind := t.engine.behavior().Partitions.SplitPoints
	var sum int64
	failed := t.walk(d, func(key []byte, rec record) error {
		if limit > 0 && len(out.Points) == limit {
			return nil
		}
		n := int64(rec.stored(&options))
		if sum > 0 && sum+n > target {
			if _, err := plainbuffer.Scan(rec.row(), &row); err != nil {
				return err
			}
			point := row.Key
			if kind != SplitAtRows {
				if _, err := plainbuffer.Scan(lastRow, &last); err != nil {
					return err
				}
				point = splitPoint(kind, last.Key, row.Key)
			}
			out.Points = append(out.Points, KeyBlock(point))
			out.Partitions = append(out.Partitions, d.partition(key))
			sum = 0
		}
		sum += n
		if kind != SplitAtRows {
			lastRow = append(lastRow[:0], rec.row()...)
		}
		return nil
	})
	return out, AsError(failed)
}

// splitPoint is a key above last and not above next that is not simply next.
func splitPoint(kind SplitPoints, last, next []plainbuffer.Cell) []plainbuffer.Cell {
	if kind == SplitAtParts {
		for i := range next {
			if plainbuffer.CompareKeys(last[:i+1], next[:i+1]) != 0 {
				return next[:i+1]
			}
		}
		return next
	}
	c := last[len(last)-1]
	switch {
	case c.Type == plainbuffer.Integer && c.Int() < math.MaxInt64:
		c.Data = binary.LittleEndian.AppendUint64(nil, uint64(c.Int()+1))
	case c.Type != plainbuffer.Integer && len(c.Data) < MaxKeyLength:
		c.Data = append(slices.Clip(c.Data), 0)
	default:
		return next
	}
	return append(slices.Clone(last[:len(last)-1]), c)
}

// walkStep is the number of rows between which a walk lets writers in.
const walkStep = 20000

// walk calls fn with each row of a table, not all in one view.
func (t *Table) walk(d *Definition, fn func(key []byte, rec record) error) error {
	from := slices.Clone(d.Prefix)
	for {
		n := 0
		var last []byte
		err := t.engine.store.View(d.Space, func(r kv.Reader) error {
			var failed error
			r.Ascend(from, func(key, value []byte) bool {
				if !bytes.HasPrefix(key, d.Prefix) {
					return false
				}
				if failed = fn(key, record(value)); failed != nil {
					return false
				}
				if n++; n == walkStep {
					last = append(bytes.Clone(key), 0)
					return false
				}
				return true
			})
			return failed
		})
		if err != nil || last == nil {
			return err
		}
		from = last
	}
}

// decodeSplit turns the stored form of a key, or of the beginning of one, back into its
// columns. What is missing is the least value.
func (d *Definition) decodeSplit(b []byte) []plainbuffer.Cell {
	b = b[len(d.Prefix):]
	var out []plainbuffer.Cell
	for i := range d.Key {
		c := plainbuffer.Cell{Name: []byte(d.Key[i].Name), HasValue: true, Type: d.Key[i].Type}
		if len(b) == 0 || b[0] != markValue {
			break
		}
		b = b[1:]
		if c.Type == plainbuffer.Integer {
			if len(b) < 8 {
				break
			}
			c.Data = binary.LittleEndian.AppendUint64(nil, binary.BigEndian.Uint64(b)^1<<63)
			b = b[8:]
		} else {
			c.Data = []byte{}
			for len(b) >= 2 && !(b[0] == 0 && b[1] == 0) {
				c.Data = append(c.Data, b[0])
				if b[0] == 0 {
					b = b[1:]
				}
				b = b[1:]
			}
			b = b[min(2, len(b)):]
		}
		out = append(out, c)
	}
	return out
}
