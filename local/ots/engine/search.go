package engine

import (
	"cmp"
	"slices"
	"time"
)

// A SearchIndex is what is kept of a search index: how it was asked for. Its
// contents are the table's.
type SearchIndex struct {
	Table   string
	Name    string
	Schema  []byte // the protocol's message, as it was given
	Source  string
	TTL     int32
	Created int64 // seconds
	ReadyAt int64 // microseconds: until then it is being built
}

// Building says whether the index is still being filled.
func (x *SearchIndex) Building(now time.Time) bool { return now.UnixMicro() < x.ReadyAt }

// CreateSearchIndex keeps x as an index of the table.
func (e *Engine) CreateSearchIndex(table string, x SearchIndex) *Error {
	return e.change(table, func(d *Definition) *Error {
		if err := checkIndexName(x.Name); err != nil {
			return invalid("Invalid index name: '%s'.", x.Name)
		}
		if slices.ContainsFunc(d.Searches, func(y SearchIndex) bool { return y.Name == x.Name }) {
			return refuse(CodeObjectAlreadyExist, "Requested search index already exists.")
		}
		if x.TTL == 0 || x.TTL < -1 {
			return invalid("TimeToLive cannot be 0 or less than -1.")
		}
		if d.Options.TTL >= 0 && (x.TTL < 0 || x.TTL > d.Options.TTL) {
			return invalid("The TTL of search index must not be greater than the TTL of its table.")
		}
		now := e.now()
		x.Table, x.Created = d.Name, now.Unix()
		if delay := e.behavior().IndexDelay; delay > 0 {
			x.ReadyAt = now.Add(delay).UnixMicro()
		}
		d.Searches = append(slices.Clone(d.Searches), x)
		return nil
	})
}

// DeleteSearchIndex forgets an index.
func (e *Engine) DeleteSearchIndex(table, name string) *Error {
	return e.change(table, func(d *Definition) *Error {
		n := len(d.Searches)
		d.Searches = slices.DeleteFunc(slices.Clone(d.Searches), func(x SearchIndex) bool { return x.Name == name })
		if len(d.Searches) == n {
			return refuse(CodeObjectNotExist, "Requested search index does not exist.")
		}
		return nil
	})
}

// SearchIndex returns an index.
func (e *Engine) SearchIndex(table, name string) (*SearchIndex, *Error) {
	t := e.find(table)
	if t == nil {
		return nil, errNoTable
	}
	for _, x := range t.definition().Searches {
		if x.Name == name {
			return &x, nil
		}
	}
	return nil, refuse(CodeObjectNotExist, "Requested search index does not exist.")
}

// SearchIndexes returns the indexes of a table, or of all for "", by table and
// name.
func (e *Engine) SearchIndexes(table string) ([]SearchIndex, *Error) {
	if table != "" {
		t := e.find(table)
		if t == nil {
			return nil, errNoTable
		}
		return t.definition().Searches, nil
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	var out []SearchIndex
	for _, t := range e.tables {
		out = append(out, t.definition().Searches...)
	}
	slices.SortFunc(out, func(a, b SearchIndex) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// Count returns the number of a table's rows and their bytes on disk.
func (e *Engine) Count(table string) (rows, size int64, _ *Error) {
	t := e.find(table)
	if t == nil {
		return 0, 0, errNoTable
	}
	d := t.definition()
	options := t.options(d, e.now())
	err := t.walk(d, func(_ []byte, rec record) error {
		rows++
		size += int64(rec.stored(&options))
		return nil
	})
	return rows, size, AsError(err)
}
