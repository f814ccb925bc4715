package engine

import (
	"time"

	"github.com/tablevault/tablevault/local/ots/kv"
)

// Phase is how far the build of an index is.
type Phase int8

// The phases.
const (
	PhaseFull Phase = 1 // base data is being indexed
	PhaseIncr Phase = 2 // the index is complete
)

// An Index is a secondary index of a table.
type Index struct {
	Name    string
	Key     []string // indexed columns, then the rest of the table's key
	Columns []string // attributes that it carries
	Local   bool
	Sync    bool
	ReadyAt int64 // microseconds: until then it is being built
	ID      int64
}

func (x *Index) phase(now time.Time) Phase {
	if now.UnixMicro() < x.ReadyAt {
		return PhaseFull
	}
	return PhaseIncr
}

// watched says whether a change of a row has consequences elsewhere.
func (t *Table) watched(d *Definition) bool { return len(d.Indexes) > 0 }

// changed follows a change of a row.
func (t *Table) changed(w *writer, s kv.Writer, c *Change, old, next record) {}

func (e *Engine) addIndex(t *Table, x Index, now time.Time) (*Table, *Error) {
	return nil, invalid("CreateIndex is not supported.")
}

// CreateIndex makes an index of a table.
func (e *Engine) CreateIndex(table string, x Index, base bool) *Error {
	return invalid("CreateIndex is not supported.")
}

// DropIndex removes an index of a table.
func (e *Engine) DropIndex(table, name string) *Error {
	return invalid("DropIndex is not supported.")
}
