package engine

import (
	"bytes"
	"math"

	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// A Survey looks at puts right after they are scanned, while their cells are at
// hand, and finds those of the usual form: all that is checked and counted of
// such a row's cells later is known then. It remembers names, since rows mostly
// carry the same.
type Survey struct {
	key   [][]byte // names of the key columns of the row before
	names []surveyedName
}

// A surveyedName is a name that a cell may have, as the cell of a row before at
// the same place had it.
type surveyedName struct {
	name []byte
	// repeats says that the cell before had the name too; otherwise that one's
	// came before it in order.
	repeats bool
}

// Reset forgets the names, whose memory is of the rows that were scanned.
func (s *Survey) Reset() { s.key, s.names = s.key[:0], s.names[:0] }

// Look notes whether c is a put of the usual form: all cells have a timestamp
// and a value that a put may have, and they stand in order. Nothing is wrong
// with one that is not.
func (s *Survey) Look(c *Change) {
	c.usual = c.Op == Put && s.look(c.Row.Key, c.Row.Cells, &c.summary)
}

func (s *Survey) look(key, cells []plainbuffer.Cell, sum *summary) bool {
	if len(cells) == 0 || len(cells) > MaxWriteColumns {
		return false
	}
	s.sameKey(key)
	*sum = newSummary()
	known := true // the name before is the one that is remembered
	last := int64(0)
	for i := range cells {
		cell := &cells[i]
		if !cell.HasTimestamp || !cell.HasValue || cell.Op != plainbuffer.NoOp || uint64(cell.Timestamp) >= maxTimestamp {
			return false
		}
		switch cell.Type {
		case plainbuffer.String, plainbuffer.Blob:
			if len(cell.Data) > MaxValueLength {
				return false
			}
		case plainbuffer.Double:
			if v := cell.Double(); math.IsNaN(v) || math.IsInf(v, 0) {
				return false
			}
		case plainbuffer.Integer, plainbuffer.Boolean:
		default:
			return false
		}
		matches := i < len(s.names) && bytes.Equal(s.names[i].name, cell.Name)
		if !matches || !known {
			var previous []byte
			if i > 0 {
				previous = cells[i-1].Name
			}
			if !s.learn(i, key, previous, cell.Name) {
				return false
			}
		}
		known = matches
		if s.names[i].repeats {
			if cell.Timestamp >= last {
				return false
			}
			sum.named++
			sum.versions = max(sum.versions, sum.named)
		} else {
			sum.named = 1
		}
		last = cell.Timestamp
		sum.data += len(cell.Name) + len(cell.Data)
		sum.oldest, sum.newest = min(sum.oldest, last), max(sum.newest, last)
	}
	sum.cells, sum.versions = len(cells), max(sum.versions, 1)
	return true
}

// learn remembers the name of cell i, unless it can't follow the one before or
// is none that a cell may have.
func (s *Survey) learn(i int, key []plainbuffer.Cell, previous, name []byte) bool {
	s.names = s.names[:min(i, len(s.names))]
	if checkColumnName(name) != nil {
		return false
	}
	for k := range key {
		if bytes.Equal(key[k].Name, name) {
			return false
		}
	}
	order := -1
	if i > 0 {
		order = bytes.Compare(previous, name)
	}
	if order > 0 {
		return false
	}
	s.names = append(s.names, surveyedName{name, order == 0})
	return true
}

// sameKey forgets the names where the key columns are others than the row's
// before, of which a cell's name may be one.
func (s *Survey) sameKey(key []plainbuffer.Cell) {
	same := len(s.key) == len(key)
	for i := range key {
		same = same && bytes.Equal(s.key[i], key[i].Name)
	}
	if same {
		return
	}
	s.Reset()
	for i := range key {
		s.key = append(s.key, key[i].Name)
	}
}
