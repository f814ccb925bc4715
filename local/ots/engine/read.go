package engine

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"

	"github.com/tablevault/tablevault/local/ots/kv"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// A Query says what of a row is read.
type Query struct {
	Columns     []string // none for all
	MaxVersions int32    // 0 if not given
	// From and To bound the timestamps, To exclusive, if HasTime.
	From, To int64
	HasTime  bool
	Filter   *Filter
	// StartColumn and EndColumn bound the names, the second exclusive. Nil is no bound.
	StartColumn, EndColumn []byte
	Token                  []byte // where inside the first row to go on
	Batch                  bool   // one of several in a request, which has words of its own
	Transaction            string // the id of the local transaction that reads, if one does
}

// A Page is part of a range.
type Page struct {
	Next  []byte // the key to go on from as a block, nil at the range's end
	Token []byte // where inside the row of Next, if that row was cut
	Rows  int
	Read  int // capacity units
}

// RangeQuery asks for a page of a range. Backward goes from Start down to End.
type RangeQuery struct {
	Query
	Start, End []plainbuffer.Cell // inclusive, exclusive
	Backward   bool
	Limit      int // 0 for none
}

// A reader serves rows of one table for one query.
type reader struct {
	query    *Query
	options  Options
	hide     bool
	entries  bool // the rows are an index's, which are gone with what they index
	now      int64
	expiry   int64
	limit    int32 // versions of a column that the query asks for
	versions int32 // versions that a record may have to be served as it is
	all      bool  // every column and no filter: a whole record is the answer
	columns  map[string]struct{}
	keyNamed bool // a key column stands in Columns
	page     *Filter
	row      plainbuffer.Row
	kept     []plainbuffer.Cell
	builder  plainbuffer.Builder
	budget   int // bytes of cells that one row may give before it is cut
}

// CheckQuery refuses a query that no table would answer.
func (e *Engine) CheckQuery(q *Query) *Error {
	if e.behavior().Reads.DocumentedLimits {
		return q.check(documentedReadColumns, documentedFilters)
	}
	return q.check(MaxReadColumns, MaxFilters)
}

func tooManyColumns(limit, n int) *Error {
	return invalid("The number of columns from the request exceeds the limit, limit count: %d, column count: %d.", limit, n)
}

func (q *Query) check(columns, filters int) *Error {
	if len(q.Columns) > columns {
		return tooManyColumns(columns, len(q.Columns))
	}
	for _, c := range q.Columns {
		if err := checkColumnName([]byte(c)); err != nil {
			return err
		}
	}
	if q.MaxVersions == 0 && !q.HasTime {
		if q.Batch {
			return invalid("No version condition is specified while querying row.")
		}
		return invalid("No version condition is specified.")
	}
	if q.MaxVersions < 0 {
		return invalid("Invalid max versions: %d. Reason: Max versions must be positive.", q.MaxVersions)
	}
	if q.HasTime && (q.From < 0 || q.To < q.From) {
		return invalid("Invalid time range: [%d, %d).", q.From, q.To)
	}
	if q.Filter != nil {
		if err := q.Filter.check(filters); err != nil {
			return err
		}
	}
	return nil
}

func (t *Table) reader(def *Definition, q *Query) *reader {
	now := t.engine.now()
	behavior := t.engine.behavior()
	r := &reader{query: q, options: t.options(def, now), now: now.UnixMilli(), hide: behavior.Reads.HideExpiredRows, entries: def.Base != "", budget: math.MaxInt}
	if behavior.Reads.Tokens != TokensOff {
		r.budget = t.engine.pageSize()
	}
	r.expiry = r.options.expiry(r.now)
	r.limit = math.MaxInt32
	if q.MaxVersions > 0 {
		r.limit = q.MaxVersions
	}
	r.versions = min(r.limit, r.options.MaxVersions)
	r.page = q.Filter.page()
	r.all = len(q.Columns) == 0 && q.Filter == nil && !q.HasTime && q.StartColumn == nil && q.EndColumn == nil
	if len(q.Columns) > 0 {
		r.columns = make(map[string]struct{}, len(q.Columns))
		for _, c := range q.Columns {
			r.columns[c] = struct{}{}
			r.keyNamed = r.keyNamed || def.isKey(c)
		}
	}
	return r
}

// serve appends to b what the query wants of a row. It reports whether the row is in the
// answer, the bytes that reading it counts, and, where the row was cut, the token that
// goes on.
func (r *reader) serve(b []byte, rec record, token []byte) (_ []byte, present bool, size int, cut []byte, err error) {
	if r.hide && rec.gone(r.expiry) || r.entries && rec.newest() < r.expiry {
		return b, false, rec.key(), nil, nil
	}
	if r.all && token == nil && rec.size() <= r.budget && rec.whole(r.versions, r.expiry) {
		return append(b, rec.row()...), true, rec.size(), nil, nil
	}
	if _, err := plainbuffer.Scan(rec.row(), &r.row); err != nil {
		return b, false, 0, nil, err
	}
	r.choose()
	size = rec.key() + dataSize(r.kept)
	if r.query.Filter != nil && !r.query.Filter.Match(r.row.Key, r.kept) {
		return b, false, size, nil, nil
	}
	if len(r.kept) == 0 && !r.bare() {
		return b, false, size, nil, nil
	}
	if r.page != nil {
		r.kept = pageOf(r.kept, r.page.Offset, r.page.Limit)
	}
	kept := r.kept
	if token != nil {
		if kept, err = after(kept, token); err != nil {
			return b, false, 0, nil, err
		}
	}
	if kept, cut = r.fit(kept); token != nil || cut != nil {
		size = rec.key() + dataSize(kept)
	}
	r.builder.Buf = b
	r.builder.Begin()
	for i := range r.row.Key {
		r.builder.Cell(&r.row.Key[i])
	}
	if len(kept) > 0 {
		r.builder.Attributes()
	}
	for i := range kept {
		r.builder.Cell(&kept[i])
	}
	r.builder.End(false)
	b, r.builder.Buf = r.builder.Buf, nil
	return b, true, size, cut, nil
}

// choose leaves in r.kept the cells that the query names and that are alive.
func (r *reader) choose() {
	q := r.query
	r.kept = r.kept[:0]
	cells := r.row.Cells
	taken, wanted := int32(0), true
	for i := range cells {
		c := &cells[i]
		if i == 0 || !bytes.Equal(c.Name, cells[i-1].Name) {
			taken = 0
			wanted = r.wants(c.Name)
		}
		// The table's MaxVersions counts the versions that are stored, the
		// query's those that it asks for.
		if !wanted || taken >= r.limit || c.Timestamp < r.expiry || r.beyond(cells, i) {
			continue
		}
		if q.HasTime && (c.Timestamp < q.From || c.Timestamp >= q.To) {
			continue
		}
		taken++
		r.kept = append(r.kept, *c)
	}
}

// beyond says whether the cell at i is older than the table's newest MaxVersions versions
// of its column.
func (r *reader) beyond(cells []plainbuffer.Cell, i int) bool {
	n := int(r.options.MaxVersions)
	return i >= n && bytes.Equal(cells[i-n].Name, cells[i].Name)
}

func (r *reader) wants(name []byte) bool {
	q := r.query
	if q.StartColumn != nil && bytes.Compare(name, q.StartColumn) < 0 {
		return false
	}
	if q.EndColumn != nil && bytes.Compare(name, q.EndColumn) >= 0 {
		return false
	}
	if r.columns == nil {
		return true
	}
	_, ok := r.columns[string(name)]
	return ok
}

// bare says whether a row of which no cell is read is in the answer, with its key alone:
// always, unless columns were named and none of the key's.
func (r *reader) bare() bool { return r.columns == nil || r.keyNamed }

func dataSize(cells []plainbuffer.Cell) int {
	n := 0
	for i := range cells {
		n += len(cells[i].Name) + len(cells[i].Data)
	}
	return n
}

// pageOf is limit columns from the offset on, with all their versions.
func pageOf(cells []plainbuffer.Cell, offset, limit int) []plainbuffer.Cell {
	n, start := 0, len(cells)
	for i := range cells {
		if i > 0 && bytes.Equal(cells[i].Name, cells[i-1].Name) {
			continue
		}
		if n == offset {
			start = i
		}
		if n == offset+limit {
			return cells[start:i]
		}
		n++
	}
	return cells[start:]
}

// fit returns the cells that one page may carry of a row and the token for the others. At
// least one goes.
func (r *reader) fit(cells []plainbuffer.Cell) ([]plainbuffer.Cell, []byte) {
	if r.budget == math.MaxInt {
		return cells, nil
	}
	size := 0
	for i := range cells {
		size += len(cells[i].Name) + len(cells[i].Data)
		if size > r.budget && i > 0 {
			return cells[:i], token(&cells[i])
		}
	}
	return cells, nil
}

// A token is the timestamp and the name of the cell to go on from.
func token(c *plainbuffer.Cell) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(c.Timestamp))
	return append(b, c.Name...)
}

func after(cells []plainbuffer.Cell, token []byte) ([]plainbuffer.Cell, error) {
	if len(token) < 9 {
		return nil, invalid("Invalid token.")
	}
	from := plainbuffer.Cell{Timestamp: int64(binary.BigEndian.Uint64(token)), Name: token[8:]}
	i, _ := slices.BinarySearchFunc(cells, from, func(a, b plainbuffer.Cell) int { return compareCells(&a, &b) })
	return cells[i:], nil
}

// Get appends one row to b, without a block's header. Found is false if the row is not
// there or the query leaves it out.
func (e *Engine) Get(table string, key []plainbuffer.Cell, q *Query, b []byte) (_ []byte, page Page, _ *Error) {
	if err := CheckTableName(table); err != nil {
		return b, page, err
	}
	if err := e.CheckKey(table, key); err != nil {
		return b, page, err
	}
	if err := e.CheckQuery(q); err != nil {
		return b, page, err
	}
	t, err := e.ready(table)
	if err != nil {
		return b, page, err
	}
	def := t.definition()
	if err := t.readable(def); err != nil {
		return b, page, err
	}
	if err := def.checkKey(key, false); err != nil {
		return b, page, err
	}
	tx, err := e.use(q.Transaction)
	if err != nil {
		return b, page, err
	}
	defer tx.release()
	if err := tx.on(t, key); err != nil {
		return b, page, err
	}
	if err := t.allowRead(e.now()); err != nil {
		return b, page, err
	}
	r := t.reader(def, q)
	stored := appendKey(slices.Clone(def.Prefix), key)
	failed := e.store.View(def.Space, func(s kv.Reader) error {
		rec := record(t.shown(def, tx.see(s)).Get(stored))
		if rec == nil {
			page.Read = 1
			return nil
		}
		var present bool
		var size int
		var err error
		b, present, size, page.Token, err = r.serve(b, rec, q.Token)
		if present {
			page.Rows = 1
		}
		page.Read = units(size)
		return err
	})
	t.spend(page.Read, 0)
	return b, page, AsError(failed)
}

// Range appends a page of rows to b, without a block's header.
func (e *Engine) Range(table string, q *RangeQuery, b []byte) (_ []byte, page Page, _ *Error) {
	if err := CheckTableName(table); err != nil {
		return b, page, err
	}
	columns := e.keyColumns(table)
	if err := checkKeyValues(q.Start, columns, true); err != nil {
		return b, page, err
	}
	if err := checkKeyValues(q.End, columns, true); err != nil {
		return b, page, err
	}
	if q.Limit < 0 {
		return b, page, invalid("The limit must be greater than 0.")
	}
	if err := e.CheckQuery(&q.Query); err != nil {
		return b, page, err
	}
	t, err := e.ready(table)
	if err != nil {
		return b, page, err
	}
	def := t.definition()
	if err := t.readable(def); err != nil {
		return b, page, err
	}
	if err := def.checkKey(q.Start, false); err != nil {
		return b, page, err
	}
	if err := def.checkKey(q.End, false); err != nil {
		return b, page, err
	}
	tx, err := e.use(q.Transaction)
	if err != nil {
		return b, page, err
	}
	defer tx.release()
	if err := tx.on(t, q.Start, q.End); err != nil {
		return b, page, err
	}
	r := t.reader(def, &q.Query)
	start := appendKey(slices.Clone(def.Prefix), q.Start)
	end := appendKey(slices.Clone(def.Prefix), q.End)
	switch c := bytes.Compare(start, end); {
	case !q.Backward && c >= 0:
		return b, page, invalid("Begin key must less than end key in FORWARD")
	case q.Backward && c <= 0:
		return b, page, invalid("Begin key must more than end key in BACKWARD")
	}
	if err := t.allowRead(e.now()); err != nil {
		return b, page, err
	}
	maxRows, maxSize := e.pageRows(), e.pageSize()
	if left := t.readLeft(); left < maxSize/4096 {
		maxSize = left * 4096
	}
	inRow := e.behavior().Reads.Tokens == TokensAnywhere
	scanned, size := 0, 0
	var failed error
	visit := func(key, value []byte) bool {
		rec := record(value)
		if !q.Backward && bytes.Compare(key, end) >= 0 || q.Backward && bytes.Compare(key, end) <= 0 {
			return false
		}
		full := scanned >= maxRows || q.Limit > 0 && page.Rows >= q.Limit
		if full {
			page.Next, failed = nextKey(rec, &r.row)
			return false
		}
		var from []byte
		if scanned == 0 && bytes.Equal(key, start) {
			from = q.Token
		}
		if inRow {
			r.budget = max(maxSize-size, 1)
		}
		at := len(b)
		var present bool
		var n int
		var cut []byte
		if b, present, n, cut, failed = r.serve(b, rec, from); failed != nil {
			return false
		}
		if size+n > maxSize && scanned > 0 && !(inRow && cut != nil) {
			b = b[:at]
			page.Next, failed = nextKey(rec, &r.row)
			return false
		}
		scanned++
		size += n
		if present {
			page.Rows++
		}
		if cut != nil {
			page.Token = cut
			page.Next, failed = nextKey(rec, &r.row)
			return false
		}
		return true
	}
	viewed := e.store.View(def.Space, func(s kv.Reader) error {
		s = t.shown(def, tx.see(s))
		if q.Backward {
			s.Descend(append(start, 0), visit)
		} else {
			s.Ascend(start, visit)
		}
		return failed
	})
	page.Read = units(size)
	t.spend(page.Read, 0)
	return b, page, AsError(viewed)
}

func nextKey(rec record, row *plainbuffer.Row) ([]byte, error) {
	if _, err := plainbuffer.Scan(rec.row(), row); err != nil {
		return nil, err
	}
	return KeyBlock(row.Key), nil
}
