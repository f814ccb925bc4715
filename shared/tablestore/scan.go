package tablestore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
)

const (
	// firstRows is what a scan asks for before it knows how large rows are,
	// pageRows what the service gives at most.
	firstRows = 100
	pageRows  = 5000
	// sampleRows is how many rows of a page tell how large its rows are.
	sampleRows = 64
	// unknownRow is the size of a row, in bytes, until one was seen.
	unknownRow = 4 << 10
)

// Scan reads a range of a table with all columns and versions.
//
// An answer is read straight into the caller's buffer. How many rows a request
// asks for follows from their sizes, so that answers fill most of the buffer
// and few are larger; a row that is larger by itself comes in pieces.
func (c *Client) Scan(name string, schema table.Schema, r table.Range) table.Scan {
	return &scan{client: c, table: name, schema: schema, whole: r, at: r.Start, limit: firstRows}
}

type scan struct {
	client *Client
	table  string
	schema table.Schema
	whole  table.Range
	at     table.Key // where the range goes on
	end    []byte    // the end of the range as a block, nil before the first page
	done   bool
	limit  int      // rows to ask for, as far as the buffer has room
	aim    int      // bytes to ask for, 0 for no aim
	asked  int      // rows that were asked for last
	perRow float64  // bytes of a row, as far as is known
	wide   *wideRow // the row that is being read in pieces, nil between rows

	start, body []byte // of requests
	scanner     plainbuffer.Scanner
	row         plainbuffer.Row
}

func (s *scan) Aim(bytes int) { s.aim = bytes }

// want is how many rows to ask for.
func (s *scan) want() int {
	if s.aim <= 0 {
		return s.limit
	}
	return max(1, min(s.limit, int(float64(s.aim)/cmp.Or(s.perRow, unknownRow))))
}

func (s *scan) Next(ctx context.Context, buf []byte) (table.Page, error) {
	if s.done {
		return table.Page{}, io.EOF
	}
	if s.end == nil {
		if err := s.begin(); err != nil {
			return table.Page{}, fmt.Errorf("scan table %q: %w: %w", s.table, table.ErrInvalid, err)
		}
	}
	var page table.Page
	var err error
	if s.wide != nil {
		page, err = s.piece(ctx, buf)
	} else {
		page, err = s.page(ctx, buf)
	}
	if err != nil {
		return table.Page{}, err
	}
	s.at, s.done = page.Next, page.Next == nil
	return page, nil
}

func (s *scan) begin() (err error) {
	if err := s.whole.Validate(s.schema); err != nil {
		return err
	}
	s.end, err = s.schema.AppendKey(nil, s.whole.End)
	return err
}

// page reads whole rows, or the first piece of a row too large for buf.
func (s *scan) page(ctx context.Context, buf []byte) (table.Page, error) {
	var err error
	if s.start, err = s.schema.AppendKey(s.start[:0], s.at); err != nil {
		return table.Page{}, fmt.Errorf("scan table %q: %w", s.table, err)
	}
	for {
		s.asked = s.want()
		request := rangeRequest{table: s.table, start: s.start, end: s.end, limit: s.asked, versions: math.MaxInt32}
		a, page, err := s.send(ctx, &request, buf)
		var large *tooLarge
		if errors.As(err, &large) {
			if s.limit = s.asked; s.limit == 1 {
				s.wide = newWideRow()
				return s.piece(ctx, buf)
			}
			s.shrink(large.size, cap(buf))
			continue
		}
		if err != nil {
			return table.Page{}, err
		}
		if page.Next, err = s.nextKey(a.next); err != nil {
			return table.Page{}, err
		}
		if len(a.token) > 0 {
			return s.cut(a, page)
		}
		if page.Next != nil && page.Next.Compare(s.at) <= 0 {
			return table.Page{}, s.fault("the page from %v goes on at %v, which is not beyond it", s.at, page.Next)
		}
		page.Block = a.rows
		s.adapt(a.rows, page.Next != nil, cap(buf))
		return page, nil
	}
}

// cut takes a page whose last row the service did not send to its end. If there
// are rows before it, they are the page, and the row is read anew; else it is
// the first piece of that row.
func (s *scan) cut(a rangeAnswer, page table.Page) (table.Page, error) {
	rows, last := 0, 0
	s.scanner.Reset(a.rows)
	for {
		at := s.scanner.Offset()
		err := s.scanner.Next(&s.row)
		if err == io.EOF {
			break
		}
		if err != nil {
			return table.Page{}, s.fault("the page from %v: %w", s.at, err)
		}
		rows, last = rows+1, max(at, plainbuffer.HeaderSize)
	}
	if rows == 0 {
		return table.Page{}, s.fault("the page from %v ends inside of a row that it has nothing of", s.at)
	}
	key := table.KeyOf(s.row.Key)
	if page.Next == nil || !page.Next.Equal(key) {
		return table.Page{}, s.fault("the page from %v ends inside of the row %v and goes on at %v", s.at, key, page.Next)
	}
	if rows > 1 {
		if key.Compare(s.at) <= 0 {
			return table.Page{}, s.fault("the page from %v goes on at %v, which is not beyond it", s.at, key)
		}
		page.Block = a.rows[:last]
		return page, nil
	}
	s.wide = newWideRow()
	return s.tokenPiece(a, page)
}

// send reads one answer into buf. It returns a *tooLarge if that has no room
// for it.
func (s *scan) send(ctx context.Context, r *rangeRequest, buf []byte) (rangeAnswer, table.Page, error) {
	s.body = r.append(s.body[:0])
	t := s.client.tries()
	for {
		got, err := s.client.attempt(ctx, "GetRange", s.table, s.body, buf[:0], cap(buf))
		if err == nil {
			var a rangeAnswer
			if a, err = s.read(&got); err == nil {
				return a, table.Page{ServerTime: got.time, ReadUnits: a.units}, nil
			}
		}
		if err := t.again(ctx, err); err != nil {
			return rangeAnswer{}, table.Page{}, err
		}
	}
}

// read takes an answer apart. Rows and keys have checksums of their own; that
// there is no key to go on from, which ends the range, is only as sure as the
// whole answer's checksum.
func (s *scan) read(got *answer) (rangeAnswer, error) {
	a, err := parseRange(got.body)
	if err == nil && a.next == nil {
		err = got.verify()
	}
	if err != nil {
		return a, s.client.broken("GetRange", s.table, err)
	}
	return a, nil
}

// nextKey copies the key that an answer names as the one to go on from, nil at
// the range's end.
func (s *scan) nextKey(block []byte) (table.Key, error) {
	if block == nil {
		return nil, nil
	}
	k, err := s.schema.ParseKey(block)
	if err != nil {
		return nil, s.fault("the key to go on from %v: %w", s.at, err)
	}
	switch c := k.Compare(s.whole.End); {
	case c == 0:
		return nil, nil
	case c > 0:
		return nil, s.fault("the page from %v goes on at %v, beyond the range's end %v", s.at, k, s.whole.End)
	}
	return k, nil
}

// fault is an answer that contradicts itself or the request.
func (s *scan) fault(format string, args ...any) error {
	return fmt.Errorf("scan table %q: %w", s.table, fmt.Errorf(format, args...))
}

// shrink asks for fewer rows after an answer that did not fit.
func (s *scan) shrink(size int64, room int) {
	half := s.limit / 2
	if size > 0 {
		// The service may have sent fewer rows than it was asked for; then this
		// is not enough, and it happens again.
		half = min(half, int(float64(s.limit)*fill*float64(room)/float64(size)))
	}
	s.limit = max(1, half)
	s.perRow = max(s.perRow, fill*float64(room)/float64(s.limit))
}

// fill is the share of a buffer that answers should fill.
const fill = 0.8

// adapt chooses how many rows to ask for next. The size of a row is the
// greater of what the page's first rows say, and what follows if the page has
// as many rows as were asked for. It falls by half at most, since where one
// answer did not fit, the next may not.
func (s *scan) adapt(block []byte, more bool, room int) {
	if !more || len(block) == 0 {
		return
	}
	rows := 0
	s.scanner.Reset(block)
	for rows < sampleRows && s.scanner.Next(&s.row) == nil {
		rows++
	}
	if rows == 0 {
		return
	}
	now := max(float64(s.scanner.Offset())/float64(rows), float64(len(block))/float64(s.asked))
	s.perRow = max(now, s.perRow/2)
	s.limit = max(1, min(int(fill*float64(room)/s.perRow), 4*s.limit, pageRows))
}

// A wideRow is a row that is read in pieces: by the service's token, if it cut
// the row, and by slices of columns and versions where an answer does not fit.
type wideRow struct {
	first bool
	// What is known after the first piece: the row's key, the range that holds
	// nothing else, and the key that follows it.
	key        table.Key
	start, end []byte
	next       table.Key
	token      []byte
	// The last cell that was read. Inside says that its column may have older
	// versions.
	column    []byte
	timestamp int64
	inside    bool
	columns   int // to ask for in one request
	versions  int // to ask for in one request
}

func newWideRow() *wideRow {
	return &wideRow{first: true, columns: firstColumns, versions: firstVersions}
}

const (
	firstColumns  = 64
	firstVersions = 64
	// maxColumns is far above what a buffer holds, and below what any service
	// takes for a mistake.
	maxColumns = 10000
)

// piece reads the next piece of the wide row.
func (s *scan) piece(ctx context.Context, buf []byte) (table.Page, error) {
	w := s.wide
	if len(w.token) > 0 {
		request := rangeRequest{table: s.table, start: w.start, end: s.end, limit: 1, versions: math.MaxInt32, token: w.token}
		a, page, err := s.send(ctx, &request, buf)
		var large *tooLarge
		if err == nil {
			if page.Next, err = s.nextKey(a.next); err != nil {
				return table.Page{}, err
			}
			return s.tokenPiece(a, page)
		}
		if !errors.As(err, &large) {
			return table.Page{}, err
		}
		// The cell that was read last says where to go on, without the token.
		w.token, w.inside = nil, true
	}
	if w.inside && w.timestamp > 0 {
		return s.olderVersions(ctx, buf)
	}
	return s.columns(ctx, buf)
}

// tokenPiece takes a piece that the service cut, or the last after such ones.
func (s *scan) tokenPiece(a rangeAnswer, page table.Page) (table.Page, error) {
	w := s.wide
	if bytes.Equal(w.token, a.token) {
		return table.Page{}, s.fault("row %v: the service goes on where it was", w.key)
	}
	cells, err := s.take(a.rows)
	if err != nil {
		return table.Page{}, err
	}
	if cells < 0 {
		// The row is gone.
		return s.finish(page, nil, nil)
	}
	w.token = bytes.Clone(a.token)
	w.next = page.Next
	if len(w.token) > 0 {
		if !page.Next.Equal(w.key) {
			return table.Page{}, s.fault("row %v is cut, and the service goes on at %v", w.key, page.Next)
		}
		// Should the row end by slices, they do not tell what follows it.
		w.next = s.following(w.key)
		return s.unfinished(page, a.rows), nil
	}
	return s.finish(page, a.rows, w.next)
}

// following is the first key after k, nil if the range ends there.
func (s *scan) following(k table.Key) table.Key {
	if n := k.Next(); n.Compare(s.whole.End) < 0 {
		return n
	}
	return nil
}

// columns reads the next columns with all their versions.
func (s *scan) columns(ctx context.Context, buf []byte) (table.Page, error) {
	w := s.wide
	request := rangeRequest{table: s.table, start: w.start, end: w.end, limit: 1, versions: math.MaxInt32}
	if w.key == nil {
		request.start, request.end = s.start, s.end
	}
	if w.column != nil {
		request.from = append(bytes.Clone(w.column), 0)
	}
	for {
		request.columns = w.columns
		a, page, err := s.send(ctx, &request, buf)
		var large *tooLarge
		switch {
		case err == nil:
			return s.tookColumns(a, page, &request, len(a.rows), cap(buf))
		case !errors.As(err, &large):
			return table.Page{}, err
		case w.columns > 1:
			w.columns /= 2
			continue
		case request.versions > 1:
			// A single column does not fit: its newest version alone, and the
			// others after that.
			request.versions = 1
			continue
		}
		return table.Page{}, s.noRoom(large, cap(buf))
	}
}

func (s *scan) tookColumns(a rangeAnswer, page table.Page, request *rangeRequest, size, room int) (table.Page, error) {
	w := s.wide
	if w.first {
		var err error
		if w.next, err = s.nextKey(a.next); err != nil {
			return table.Page{}, err
		}
	}
	cells, err := s.take(a.rows)
	if err != nil {
		return table.Page{}, err
	}
	if cells < 0 {
		return s.finish(page, nil, w.next)
	}
	columns := 0
	for i := range s.row.Cells {
		if i == 0 || !bytes.Equal(s.row.Cells[i].Name, s.row.Cells[i-1].Name) {
			columns++
		}
	}
	asked := request.columns
	w.columns = grown(w.columns, size, room, maxColumns)
	// The last column is whole if the request counted columns, as it says. As
	// many cells as columns were asked for leave open whether it counted cells;
	// then older versions are asked for to be sure. A page that the service cut
	// leaves it open too.
	w.inside = cells > 0 && (request.versions == 1 || cells == asked || len(a.token) > 0)
	if len(a.token) == 0 && request.versions > 1 && columns < asked && (cells < asked || cells > asked) {
		return s.finish(page, a.rows, w.next)
	}
	if cells == 0 {
		return table.Page{}, s.fault("row %v: a piece without cells is said to be no end", w.key)
	}
	return s.unfinished(page, a.rows), nil
}

// olderVersions reads versions of the last column below the last cell.
func (s *scan) olderVersions(ctx context.Context, buf []byte) (table.Page, error) {
	w := s.wide
	request := rangeRequest{table: s.table, start: w.start, end: w.end, limit: 1,
		before: w.timestamp, from: w.column, to: append(bytes.Clone(w.column), 0)}
	for {
		request.versions = int32(w.versions)
		a, page, err := s.send(ctx, &request, buf)
		var large *tooLarge
		switch {
		case err == nil:
		case !errors.As(err, &large):
			return table.Page{}, err
		case w.versions > 1:
			w.versions /= 2
			continue
		default:
			return table.Page{}, s.noRoom(large, cap(buf))
		}
		size := len(a.rows)
		cells, err := s.take(a.rows)
		if err != nil {
			return table.Page{}, err
		}
		w.versions = grown(w.versions, size, cap(buf), math.MaxInt32)
		w.inside = len(a.token) > 0 || cells == int(request.versions)
		if cells <= 0 {
			// Nothing older: on to the next columns.
			w.inside = false
			return s.columns(ctx, buf)
		}
		return s.unfinished(page, a.rows), nil
	}
}

// grown is how many columns or versions to ask for after so many filled size of
// room bytes.
func grown(n, size, room, most int) int {
	if size == 0 {
		return n
	}
	return max(1, min(int(fill*float64(n)*float64(room)/float64(size)), 4*n, most))
}

// take scans a piece into s.row, checks that it is of the row and comes after
// what was read of it, and returns the number of its cells, -1 if there is no
// row.
func (s *scan) take(rows []byte) (int, error) {
	w := s.wide
	s.scanner.Reset(rows)
	err := s.scanner.Next(&s.row)
	if err == io.EOF {
		return -1, nil
	}
	if err != nil {
		return 0, s.fault("a piece of row %v: %w", w.key, err)
	}
	if s.scanner.Offset() != len(rows) {
		return 0, s.fault("more than the one row %v that was asked for", table.KeyOf(s.row.Key))
	}
	if w.key == nil {
		if err := s.schema.CheckKey(s.row.Key); err != nil {
			return 0, s.fault("%w", err)
		}
		w.key = table.KeyOf(s.row.Key)
		if w.start, err = s.schema.AppendKey(nil, w.key); err != nil {
			return 0, s.fault("%w", err)
		}
		if w.end, err = s.schema.AppendKey(nil, w.key.Next()); err != nil {
			return 0, s.fault("%w", err)
		}
	} else if w.key.CompareCells(s.row.Key) != 0 {
		return 0, s.fault("row %v where a piece of row %v was asked for", table.KeyOf(s.row.Key), w.key)
	}
	if len(s.row.Cells) == 0 {
		return 0, nil
	}
	head, tail := &s.row.Cells[0], &s.row.Cells[len(s.row.Cells)-1]
	if w.column != nil {
		if c := bytes.Compare(head.Name, w.column); c < 0 || c == 0 && head.Timestamp >= w.timestamp {
			return 0, s.fault("row %v: the cell %q at %d does not come after %q at %d", w.key, head.Name, head.Timestamp, w.column, w.timestamp)
		}
	}
	w.column, w.timestamp = append(w.column[:0], tail.Name...), tail.Timestamp
	if w.column == nil {
		w.column = []byte{}
	}
	return len(s.row.Cells), nil
}

// unfinished is a piece that others follow.
func (s *scan) unfinished(page table.Page, block []byte) table.Page {
	w := s.wide
	page.Piece, page.First, page.Block, page.Next = true, w.first, block, w.key
	w.first = false
	return page
}

// finish is the last piece of the row, of which nothing but the key is left if
// block is nil. If the row was gone before its first piece was read, the page
// has no rows.
func (s *scan) finish(page table.Page, block []byte, next table.Key) (table.Page, error) {
	w := s.wide
	s.wide, s.limit = nil, 1
	page.Next = next
	if w.key == nil {
		return page, nil
	}
	page.Piece, page.First, page.Last, page.Block = true, w.first, true, block
	if block == nil {
		page.Block = w.start
	}
	return page, nil
}

func (s *scan) noRoom(large *tooLarge, room int) error {
	return s.fault("a single cell after column %q of row %v makes an answer of %d bytes: a page buffer of %d bytes is too small, want at least %d", s.wide.column, s.wide.key, large.size, room, max(large.size, int64(room)+1))
}
