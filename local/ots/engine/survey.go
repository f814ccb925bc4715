package engine

import (
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// A Survey reads puts of the usual form as they come: all that is checked and counted of
// such a row's cells is known then, and no cell is made.
type Survey struct {
	rows plainbuffer.PutScanner
}

// Reset forgets what is of the memory of rows that were read.
func (s *Survey) Reset() {
	s.rows.ValidName = validColumnName
	s.rows.Reset()
}

// Read reads c's row from its block if c is a put of the usual form. False is no refusal:
// c may be any other change, and its row may be wrong.
func (s *Survey) Read(c *Change, block []byte) bool {
	var sum plainbuffer.Summary
	c.usual = c.Op == Put && s.rows.Scan(block, &c.Row, &sum) &&
		sum.Cells <= MaxWriteColumns && sum.Longest <= MaxValueLength && sum.Newest < maxTimestamp
	if c.usual {
		c.summary = summary{oldest: sum.Oldest, newest: sum.Newest, cells: sum.Cells, data: sum.Data, versions: sum.Versions}
	}
	return c.usual
}

func validColumnName(name []byte) bool { return checkColumnName(name) == nil }

// scan makes the cells of a put of the usual form.
func (c *Change) scan() *Error {
	if _, err := plainbuffer.Scan(c.Row.Raw, &c.Row); err != nil {
		return AsError(err)
	}
	return nil
}
