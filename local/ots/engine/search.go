package engine

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/tablevault/tablevault/local/ots/kv"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// A SearchIndex is what is kept of a search index: how it was asked for. Its contents are
// the table's.
type SearchIndex struct {
	Table   string
	Name    string
	Schema  []byte // the protocol's message, as it was given
	Source  string // the index of the table whose next shape it is, "" if none
	TTL     int32
	Created int64 // seconds
	ReadyAt int64 // microseconds: until then it is being built
	// Weights share the queries of an index out between it and the one made of it. They
	// are kept, and nothing more.
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

// errNoSearch is what operations on indexes answer: the service has one text for whatever
// is not there.
var errNoSearch = errNoTable

// checkSearch refuses a search index that the table can't have with its options.
func (e *Engine) checkSearch(x *SearchIndex, o *Options) *Error {
	switch {
	case x.TTL == 0 || x.TTL < -1:
		return invalid("TimeToLive cannot be 0 or less than -1.")
	case o.TTL >= 0 && (x.TTL < 0 || x.TTL > o.TTL):
		return invalid("[table ttl] must be bigger than or equal search index ttl, but table ttl is %d and search index ttl is [%s:%d]", o.TTL, x.Name, x.TTL)
	case x.TTL >= 0 && o.AllowUpdate && !e.behavior().Indexes.SearchTTLWithUpdates:
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
		if delay := e.behavior().Indexes.Delay; delay > 0 {
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

// SearchBrother is the name of the index that x was made of or else that was made of x,
// "" if there is none.
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

// SearchIndexes returns the indexes of a table, or of all for "", by table and name.
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

// A SearchQuery asks for rows of a search index, a page at a time, in the order of their
// keys or in orders of its own. A page ends at its limit or, as those of a range do, with
// the row before it has too many bytes.
type SearchQuery struct {
	Match    *Match   // nil for all rows
	All      bool     // every column of the row
	Columns  []string // or these
	Backward bool     // from the last key on, without Orders
	Orders   []SearchOrder
	// Loose says that a page begins behind all rows that the orders have as equal to the
	// last of the page before, though some were not in it: the service does so where the
	// key is not to decide between them.
	Loose bool
	// After is the Next of the page before, nil for the first, of which Offset rows are
	// left out. Values are that page's.
	After  []byte
	Values []SearchValue
	Offset int
	Limit  int
	Count  bool // also how many rows there are
}

// A SearchPage is part of an answer to a search.
type SearchPage struct {
	Rows   [][]byte      // blocks of one row each
	Next   []byte        // nil if there are no more
	Values []SearchValue // of the last row, in the orders
	Total  int64         // -1 if it was not asked for
	Read   int           // capacity units
}

// A searcher makes one page.
type searcher struct {
	query  *SearchQuery
	def    *Definition
	reader *reader
	space  kv.Reader
	page   *SearchPage
	size   int // bytes of the page
	most   int
	row    plainbuffer.Row
	cells  []plainbuffer.Cell
}

// Search returns a page of rows: the newest version of each column, as the table has
// them, or had them before the lag of indexes. An index that is being built has none yet.
// Every row is looked at.
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
	s := &searcher{query: q, def: d, reader: r, page: page, most: e.pageSize()}
	failed := e.store.View(d.Space, func(space kv.Reader) error {
		s.space = t.lagging(space, d.Prefix, now)
		if q.Count {
			if err := s.each(nil, false, func([]byte, record) (bool, error) {
				page.Total++
				return true, nil
			}); err != nil {
				return err
			}
		}
		if q.Limit == 0 {
			return nil
		}
		if len(q.Orders) > 0 {
			return s.ordered()
		}
		return s.byKey()
	})
	page.Read = units(s.size)
	t.spend(page.Read, 0)
	return page, AsError(failed)
}

// each calls fn with the rows that the search finds behind a key, nil for none, in the
// order of keys or against it, until it returns false.
func (s *searcher) each(after []byte, backward bool, fn func(key []byte, rec record) (bool, error)) error {
	var failed error
	visit := func(key, value []byte) (more bool) {
		rec := record(value)
		if !bytes.HasPrefix(key, s.def.Prefix) {
			return false
		}
		if s.reader.hide && rec.gone(s.reader.expiry) {
			return true
		}
		if s.query.Match != nil || len(s.query.Orders) > 0 {
			if failed = s.scan(rec); failed != nil {
				return false
			}
			if !s.query.Match.matches(s.row.Key, s.cells) {
				return true
			}
		}
		more, failed = fn(key[len(s.def.Prefix):], rec)
		return more && failed == nil
	}
	from := append(slices.Clone(s.def.Prefix), after...)
	switch {
	case backward && after == nil:
		s.space.Descend(append(from, markMax), visit)
	case backward:
		s.space.Descend(from, visit)
	case after == nil:
		s.space.Ascend(from, visit)
	default:
		s.space.Ascend(append(from, 0), visit)
	}
	return failed
}

// scan reads a row: the newest versions that are alive stand in s.cells.
func (s *searcher) scan(rec record) error {
	if _, err := plainbuffer.Scan(rec.row(), &s.row); err != nil {
		return err
	}
	s.cells = s.cells[:0]
	for i := range s.row.Cells {
		c := &s.row.Cells[i]
		if c.Timestamp >= s.reader.expiry && (i == 0 || !bytes.Equal(c.Name, s.row.Cells[i-1].Name)) {
			s.cells = append(s.cells, *c)
		}
	}
	return nil
}

// byKey fills the page in the order of keys.
func (s *searcher) byKey() error {
	skip := s.query.Offset
	var last []byte
	return s.each(s.query.After, s.query.Backward, func(key []byte, rec record) (bool, error) {
		if skip > 0 {
			skip--
			return true, nil
		}
		if added, err := s.add(rec); err != nil || !added {
			s.page.Next = last
			return false, err
		}
		last = append(last[:0], key...)
		return true, nil
	})
}

// ordered fills the page in the query's orders.
func (s *searcher) ordered() error {
	q := s.query
	after := &hit{key: q.After, values: q.Values}
	var hits []*hit
	err := s.each(nil, false, func(key []byte, rec record) (bool, error) {
		h := &hit{key: bytes.Clone(key), values: make([]SearchValue, len(q.Orders))}
		for i := range q.Orders {
			if !q.Orders[i].Key {
				h.values[i] = q.Orders[i].of(s.row.Key, s.cells)
			}
		}
		if q.After == nil || compareHits(q.Orders, h, after, !q.Loose) > 0 {
			hits = append(hits, h)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(hits, func(a, b *hit) int { return compareHits(q.Orders, a, b, true) })
	hits = hits[min(q.Offset, len(hits)):]
	for i, h := range hits {
		added, err := s.add(record(s.space.Get(append(slices.Clone(s.def.Prefix), h.key...))))
		if err != nil {
			return err
		}
		if !added {
			s.page.Next, s.page.Values = hits[i-1].key, hits[i-1].values
			return nil
		}
	}
	return nil
}

// add puts a row into the page, unless it is full.
func (s *searcher) add(rec record) (bool, error) {
	if len(s.page.Rows) == s.query.Limit {
		return false, nil
	}
	row, _, n, _, err := s.reader.serve(plainbuffer.AppendHeader(nil), rec, nil)
	if err != nil || s.size+n > s.most && len(s.page.Rows) > 0 {
		return false, err
	}
	s.page.Rows = append(s.page.Rows, row)
	s.size += n
	return true, nil
}
