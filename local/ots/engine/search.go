package engine

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/tablevault/tablevault/local/ots/kv"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// A SearchIndex is what is kept of a search index: how it was asked for. Its
// contents are the table's.
type SearchIndex struct {
	Table   string
	Name    string
	Schema  []byte // the protocol's message, as it was given
	Source  string // the index of the table whose next shape it is, "" if none
	TTL     int32
	Created int64 // seconds
	ReadyAt int64 // microseconds: until then it is being built
	// Weights share the queries of an index out between it and the one made of
	// it. They are kept, and nothing more.
	Weights []SearchWeight `json:",omitempty"`
}

// A SearchWeight is how many of a hundred queries go to an index.
type SearchWeight struct {
	Index  string
	Weight int32
}

// Building says whether the index is still being filled.
func (x *SearchIndex) Building(now time.Time) bool { return now.UnixMicro() < x.ReadyAt }

// search is the place of a search index, or -1.
func (d *Definition) search(name string) int {
	return slices.IndexFunc(d.Searches, func(x SearchIndex) bool { return x.Name == name })
}

var errNoSearch = &Error{CodeObjectNotExist, "Requested search index does not exist."}

// checkSearch refuses a search index that the table can't have with its options.
func (e *Engine) checkSearch(x *SearchIndex, o *Options) *Error {
	switch {
	case x.TTL == 0 || x.TTL < -1:
		return invalid("TimeToLive cannot be 0 or less than -1.")
	case o.TTL >= 0 && (x.TTL < 0 || x.TTL > o.TTL):
		return invalid("Table TTL must not be less than the TTL of its search index: %s.", x.Name)
	case x.TTL >= 0 && o.AllowUpdate && !e.behavior().SearchTTLWithUpdates:
		return invalid("Don't support allow update operation on table with search index: %s that has ttl", x.Name)
	}
	return nil
}

// CreateSearchIndex keeps x as an index of the table.
func (e *Engine) CreateSearchIndex(table string, x SearchIndex) *Error {
	return e.change(table, func(d *Definition) *Error {
		if err := checkIndexName(x.Name); err != nil {
			return invalid("Invalid index name: '%s'.", x.Name)
		}
		if d.Base != "" {
			return invalid("Can't create search index on index table.")
		}
		if d.search(x.Name) >= 0 {
			return refuse(CodeObjectAlreadyExist, "Requested search index already exists.")
		}
		if x.Source != "" {
			at := d.search(x.Source)
			if at < 0 {
				return errNoSearch
			}
			if x.Schema == nil {
				x.Schema = d.Searches[at].Schema
			}
		}
		if err := e.checkSearch(&x, &d.Options); err != nil {
			return err
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
		at := d.search(name)
		if at < 0 {
			return errNoSearch
		}
		d.Searches = slices.Delete(slices.Clone(d.Searches), at, at+1)
		for i := range d.Searches {
			x := &d.Searches[i]
			if x.Source == name {
				x.Source = ""
			}
			x.Weights = slices.DeleteFunc(slices.Clone(x.Weights), func(w SearchWeight) bool { return w.Index == name })
		}
		return nil
	})
}

// SearchChange is what UpdateSearchIndex changes; what is not given stays.
type SearchChange struct {
	TTL     *int32
	Weights []SearchWeight
	// Switch names the index made of this one, with which it changes places.
	Switch string
}

// UpdateSearchIndex changes an index.
func (e *Engine) UpdateSearchIndex(table, name string, c *SearchChange) *Error {
	return e.change(table, func(d *Definition) *Error {
		at := d.search(name)
		if at < 0 {
			return errNoSearch
		}
		if c.TTL == nil && c.Switch == "" && len(c.Weights) == 0 {
			return invalid("Nothing is given to update search index: '%s'.", name)
		}
		d.Searches = slices.Clone(d.Searches)
		x := &d.Searches[at]
		set(&x.TTL, c.TTL)
		if err := e.checkSearch(x, &d.Options); err != nil {
			return err
		}
		sum := int32(0)
		for _, w := range c.Weights {
			other := d.search(w.Index)
			if other < 0 || other != at && d.Searches[other].Source != name {
				return invalid("Index: '%s' in query flow weight is neither search index: '%s' nor made of it.", w.Index, name)
			}
			if w.Weight < 0 || w.Weight > 100 {
				return invalid("The query flow weight of index: '%s' must be in range: [0, 100].", w.Index)
			}
			sum += w.Weight
		}
		if len(c.Weights) > 0 {
			if sum != 100 {
				return invalid("The sum of query flow weights must be 100, not %d.", sum)
			}
			x.Weights = c.Weights
		}
		if c.Switch != "" {
			other := d.search(c.Switch)
			if other < 0 || d.Searches[other].Source != name {
				return invalid("Search index: '%s' can't be switched with '%s', which is not made of it.", name, c.Switch)
			}
			y := &d.Searches[other]
			x.Schema, y.Schema = y.Schema, x.Schema
			x.ReadyAt, y.ReadyAt = y.ReadyAt, x.ReadyAt
			x.Weights = nil
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
	d := t.definition()
	at := d.search(name)
	if at < 0 {
		return nil, errNoSearch
	}
	return &d.Searches[at], nil
}

// SearchBrother is the name of the index that x was made of or else that was
// made of x, "" if there is none.
func (e *Engine) SearchBrother(x *SearchIndex) string {
	if x.Source != "" {
		return x.Source
	}
	if t := e.find(x.Table); t != nil {
		for _, y := range t.definition().Searches {
			if y.Source == x.Name {
				return y.Name
			}
		}
	}
	return ""
}

// SearchIndexes returns the indexes of a table, or of all for "", by table and
// name.
func (e *Engine) SearchIndexes(table string) ([]SearchIndex, *Error) {
	var out []SearchIndex
	if table != "" {
		t := e.find(table)
		if t == nil {
			return nil, errNoTable
		}
		out = slices.Clone(t.definition().Searches)
	} else {
		e.mu.RLock()
		defer e.mu.RUnlock()
		for _, t := range e.tables {
			out = append(out, t.definition().Searches...)
		}
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

// A SearchQuery asks for all rows of a search index, a page at a time, in the
// order of their keys. A page ends at its limit or, as those of a range do, with
// the row before it has too many bytes.
type SearchQuery struct {
	All      bool     // every column of the row
	Columns  []string // or these
	Backward bool
	// After is the Next of the page before, nil for the first, of which Offset
	// rows are left out.
	After  []byte
	Offset int
	Limit  int
	Count  bool // also how many rows there are
}

// A SearchPage is part of an answer to a search.
type SearchPage struct {
	Rows  [][]byte // blocks of one row each
	Next  []byte   // nil if there are no more
	Total int64    // -1 if it was not asked for
	Read  int      // capacity units
}

// Search returns a page of rows: the newest version of each column, as the table
// has them. An index that is being built has none yet.
func (e *Engine) Search(table, index string, q *SearchQuery) (*SearchPage, *Error) {
	if n := len(q.Columns); n > MaxReadColumns {
		return nil, tooManyColumns(MaxReadColumns, n)
	}
	x, err := e.SearchIndex(table, index)
	if err != nil {
		return nil, err
	}
	t, err := e.ready(table)
	if err != nil {
		return nil, err
	}
	now := e.now()
	if err := t.allowRead(now); err != nil {
		return nil, err
	}
	page := &SearchPage{Total: -1, Read: 1}
	if q.Count {
		page.Total = 0
	}
	if x.Building(now) {
		return page, nil
	}
	d := t.definition()
	query := &Query{MaxVersions: 1}
	if !q.All {
		// A column of the key keeps rows that have none of the others.
		query.Columns = append(slices.Clone(q.Columns), d.Key[0].Name)
	}
	r := t.reader(d, query)
	if x.TTL >= 0 {
		r.expiry, r.hide = max(r.expiry, (&Options{TTL: x.TTL}).expiry(r.now)), true
	}
	if q.Count {
		if err := t.walk(d, func(_ []byte, rec record) error {
			if !r.hide || !rec.gone(r.expiry) {
				page.Total++
			}
			return nil
		}); err != nil {
			return nil, AsError(err)
		}
	}
	skip, size, most := q.Offset, 0, e.pageSize()
	var failed error
	var last []byte
	visit := func(key, value []byte) bool {
		rec := record(value)
		if !bytes.HasPrefix(key, d.Prefix) {
			return false
		}
		if r.hide && rec.gone(r.expiry) {
			return true
		}
		if skip > 0 {
			skip--
			return true
		}
		if len(page.Rows) == q.Limit {
			page.Next = last
			return false
		}
		var row []byte
		var n int
		if row, _, n, _, failed = r.serve(plainbuffer.AppendHeader(nil), rec, nil); failed != nil {
			return false
		}
		if size+n > most && len(page.Rows) > 0 {
			page.Next = last
			return false
		}
		page.Rows = append(page.Rows, row)
		size += n
		last = append(last[:0], key[len(d.Prefix):]...)
		return true
	}
	if q.Limit > 0 {
		failed = e.store.View(d.Space, func(s kv.Reader) error {
			from := append(slices.Clone(d.Prefix), q.After...)
			switch {
			case q.Backward && q.After == nil:
				s.Descend(append(from, markMax), visit)
			case q.Backward:
				s.Descend(from, visit)
			case q.After == nil:
				s.Ascend(from, visit)
			default:
				s.Ascend(append(from, 0), visit)
			}
			return failed
		})
		page.Read = units(size)
	}
	t.spend(page.Read, 0)
	return page, AsError(failed)
}
