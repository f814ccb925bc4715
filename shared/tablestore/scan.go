package tablestore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/retry"
	"github.com/tablevault/tablevault/shared/table"
)

const (
	// firstRows is what a scan asks for before it knows how large rows are, pageRows what
	// the service gives at most.
	firstRows = 100
	pageRows  = 5000
	// sampleRows is how many rows of a page tell how large its rows are.
	sampleRows = 64
	// unknownRow is the size of a row, in bytes, until one was seen.
	unknownRow = 4 << 10
)

// Scan reads a range of a table with all columns and versions.
//
// An answer is read straight into the caller's buffer. How many rows a request asks for
// follows from their sizes, so that answers fill most of the buffer and few are larger; a
// row that is larger by itself comes in pieces.
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
	limit  int       // rows to ask for, as far as the buffer has room
	aim    int       // bytes to ask for, 0 for no aim
	asked  int       // rows that were asked for last
	perRow float64   // bytes of a row, as far as is known
	wide   *wideRow  // the row that is being read in pieces, nil between rows
	served time.Time // the date of the last answer

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
			return table.Page{}, table.Invalidf("scan table %q: %w", s.table, err)
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
			return s.cut(ctx, a, page, buf)
		}
		if page.Next != nil && page.Next.Compare(s.at) <= 0 {
			return table.Page{}, s.fault("the page from %v goes on at %v, which is not beyond it", s.at, page.Next)
		}
		page.Block = a.rows
		s.adapt(a.rows, page.Next != nil, cap(buf))
		return page, nil
	}
}

// cut takes a page whose last row the service did not send to its end. If there are rows
// before it, they are the page, and the row is read anew; else it is the first piece of
// that row.
func (s *scan) cut(ctx context.Context, a rangeAnswer, page table.Page, buf []byte) (table.Page, error) {
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
	page, over, err := s.tokenPiece(a, page)
	if err != nil || over {
		return page, err
	}
	return s.piece(ctx, buf)
}

// send reads one answer into buf. It returns a *tooLarge if that has no room for it.
func (s *scan) send(ctx context.Context, r *rangeRequest, buf []byte) (rangeAnswer, table.Page, error) {
	s.body = r.append(s.body[:0])
	var a rangeAnswer
	_, err := s.client.do(ctx, func(*retry.Call) error {
		got, err := s.client.attempt(ctx, "GetRange", s.table, s.body, buf[:0], cap(buf))
		if err != nil {
			return err
		}
		if a, err = s.read(&got); err == nil {
			s.served = got.time
		}
		return err
	})
	if err != nil {
		return rangeAnswer{}, table.Page{}, err
	}
	return a, table.Page{ServerTime: s.served, ReadUnits: a.units}, nil
}

// read takes an answer apart. Rows and keys have checksums of their own; that there is no
// key to go on from, which ends the range, is only as sure as the whole answer's
// checksum.
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

// nextKey copies the key that an answer names as the one to go on from, nil at the
// range's end.
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

// adapt chooses how many rows to ask for next. The size of a row is the greater of what
// the page's first rows say, and what follows if the page has as many rows as were asked
// for. It falls by half at most, since where one answer did not fit, the next may not.
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

// A wideRow is a row that is read in pieces: by the service's token, if it cut the row,
// and by slices of columns and versions where an answer does not fit.
type wideRow struct {
	first bool
	// What is known after the first piece: the row's key, and a range that begins with it
	// and holds hardly anything else.
	key        table.Key
	start, end []byte
	// The key that follows the row, nil at the range's end, once known says so.
	next  table.Key
	known bool
	token []byte
	// The last cell that was read. Inside says that its column may have older versions,
	// ended that nothing is left of the row.
	column    []byte
	timestamp int64
	inside    bool
	ended     bool
	columns   int // to ask for in one request
	versions  int // to ask for in one request
}

func newWideRow() *wideRow {
	return &wideRow{first: true, columns: firstColumns, versions: firstVersions}
}

const (
	firstColumns  = 64
	firstVersions = 64
	// maxColumns is far above what a buffer holds, and below what any service takes for a
	// mistake.
	maxColumns = 10000
)

// piece reads the next piece of the wide row.
func (s *scan) piece(ctx context.Context, buf []byte) (table.Page, error) {
	w := s.wide
	for len(w.token) > 0 {
		request := rangeRequest{table: s.table, start: w.start, end: s.end, limit: 1, versions: math.MaxInt32, token: w.token}
		a, page, err := s.send(ctx, &request, buf)
		var large *tooLarge
		if errors.As(err, &large) {
			// The cell that was read last says where to go on, without the token.
			w.token, w.inside = nil, true
			break
		}
		if err != nil {
			return table.Page{}, err
		}
		if page.Next, err = s.nextKey(a.next); err != nil {
			return table.Page{}, err
		}
		page, over, err := s.tokenPiece(a, page)
		if err != nil || over {
			return page, err
		}
	}
	switch {
	case w.ended:
		return s.gone(ctx, table.Page{}, buf)
	case w.inside && w.timestamp > 0:
		return s.olderVersions(ctx, buf)
	}
	return s.columns(ctx, buf)
}

// tokenPiece takes a piece that the service cut, or the last after such ones. It is not
// over a page if the service has sent no cell of a row that goes on.
func (s *scan) tokenPiece(a rangeAnswer, page table.Page) (_ table.Page, over bool, err error) {
	w := s.wide
	if bytes.Equal(w.token, a.token) {
		return table.Page{}, false, s.fault("row %v: the service goes on where it was", w.key)
	}
	cells, err := s.take(a.rows)
	if err != nil {
		return table.Page{}, false, err
	}
	w.token = bytes.Clone(a.token)
	switch {
	case cells < 0 && w.known:
		// The row is gone, and the answer is about another.
		page, err = s.finish(page, nil)
		return page, true, err
	case len(w.token) > 0 && (cells < 0 || !page.Next.Equal(w.key)):
		return table.Page{}, false, s.fault("row %v is cut, and the service goes on at %v", w.key, page.Next)
	case len(w.token) > 0 && cells == 0:
		return table.Page{}, false, nil
	case len(w.token) > 0:
		return s.unfinished(page, a.rows), true, nil
	case cells < 0:
		a.rows = nil // the row is gone
	}
	w.next, w.known = page.Next, true
	page, err = s.finish(page, a.rows)
	return page, true, err
}

// columns reads the next columns with all their versions.
func (s *scan) columns(ctx context.Context, buf []byte) (table.Page, error) {
	w := s.wide
	request := rangeRequest{table: s.table, start: w.start, end: w.end, limit: 1, versions: math.MaxInt32}
	if w.key == nil {
		request.start, request.end = s.start, s.end
	}
	if w.column != nil {
		if request.from = table.Successor(w.column, table.MaxNameBytes); request.from == nil {
			return s.gone(ctx, table.Page{}, buf) // no column has a greater name
		}
	}
	for {
		request.columns = w.columns
		a, page, err := s.send(ctx, &request, buf)
		var large *tooLarge
		switch {
		case err == nil:
			return s.tookColumns(ctx, a, page, &request, buf)
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

func (s *scan) tookColumns(ctx context.Context, a rangeAnswer, page table.Page, request *rangeRequest, buf []byte) (table.Page, error) {
	w := s.wide
	if w.key == nil && len(a.token) == 0 {
		// The whole range was asked for, so that the answer tells what follows.
		var err error
		if w.next, err = s.nextKey(a.next); err != nil {
			return table.Page{}, err
		}
		w.known = true
	}
	cells, err := s.take(a.rows)
	if err != nil {
		return table.Page{}, err
	}
	cut := len(a.token) > 0
	if cells < 0 || cells == 0 && !cut {
		if w.key == nil && cut {
			return table.Page{}, s.fault("the page from %v ends inside of a row that it has nothing of", s.at)
		}
		return s.gone(ctx, page, buf)
	}
	if cells == 0 {
		return table.Page{}, s.fault("row %v: a piece without cells is said to be no end", w.key)
	}
	columns := 0
	for i := range s.row.Cells {
		if i == 0 || !bytes.Equal(s.row.Cells[i].Name, s.row.Cells[i-1].Name) {
			columns++
		}
	}
	asked := request.columns
	w.columns = grown(w.columns, len(a.rows), cap(buf), maxColumns)
	// The last column is whole if the request counted columns, as it says. As
	// many cells as columns were asked for leave open whether it counted cells;
	// then older versions are asked for to be sure. A page that the service cut
	// leaves it open too.
	w.inside = request.versions == 1 || cells == asked || cut
	w.ended = !cut && request.versions > 1 && columns < asked && cells != asked
	if w.ended && w.known {
		return s.finish(page, a.rows)
	}
	return s.unfinished(page, a.rows), nil
}

// gone ends a row of which nothing is left: it has no more columns, or is not there any
// more. The page is what the last answer brought, if there was one.
func (s *scan) gone(ctx context.Context, page table.Page, buf []byte) (table.Page, error) {
	if !s.wide.known {
		if err := s.follow(ctx, &page, buf); err != nil {
			return table.Page{}, err
		}
	}
	return s.finish(page, nil)
}

// follow finds the key that follows the wide row, asking the service where no key can be
// made that is certain to.
func (s *scan) follow(ctx context.Context, page *table.Page, buf []byte) error {
	w := s.wide
	if w.next, w.known = w.key.Next(), true; w.next.Compare(s.whole.End) >= 0 {
		w.next = nil
	}
	if last := &w.key[len(w.key)-1]; last.Type != plainbuffer.String || len(last.Bytes) < table.MaxKeyBytes {
		return nil
	}
	request := rangeRequest{table: s.table, start: w.start, end: s.end, limit: 1, versions: 1, columns: 1}
	a, answer, err := s.send(ctx, &request, buf)
	if err != nil {
		return err
	}
	page.ServerTime, page.ReadUnits = answer.ServerTime, page.ReadUnits+answer.ReadUnits
	next, err := s.nextKey(a.next)
	if err != nil {
		return err
	}
	cells, err := s.row1(a.rows)
	switch {
	case err != nil:
		return err
	case cells >= 0 && w.key.CompareCells(s.row.Key) < 0:
		w.next = table.KeyOf(s.row.Key) // the row is gone, this one follows
	case len(a.token) == 0:
		w.next = next
	}
	return nil
}

// olderVersions reads versions of the last column below the last cell.
func (s *scan) olderVersions(ctx context.Context, buf []byte) (table.Page, error) {
	w := s.wide
	request := rangeRequest{table: s.table, start: w.start, end: w.end, limit: 1,
		before: w.timestamp, from: w.column, to: table.Successor(w.column, table.MaxNameBytes)}
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

// grown is how many columns or versions to ask for after so many filled size of room
// bytes.
func grown(n, size, room, most int) int {
	if size == 0 {
		return n
	}
	return max(1, min(int(fill*float64(n)*float64(room)/float64(size)), 4*n, most))
}

// row1 scans an answer that has one row at most into s.row and returns the number of its
// cells, -1 if there is no row.
func (s *scan) row1(rows []byte) (int, error) {
	s.scanner.Reset(rows)
	err := s.scanner.Next(&s.row)
	if err == io.EOF {
		return -1, nil
	}
	if err != nil {
		return 0, s.fault("a piece of row %v: %w", s.wide.key, err)
	}
	if s.scanner.Offset() != len(rows) {
		return 0, s.fault("more than the one row %v that was asked for", table.KeyOf(s.row.Key))
	}
	if err := s.schema.CheckKey(s.row.Key); err != nil {
		return 0, s.fault("%w", err)
	}
	if s.at.CompareCells(s.row.Key) > 0 || s.whole.End.CompareCells(s.row.Key) <= 0 {
		return 0, s.fault("row %v, which is not in the range from %v to %v", table.KeyOf(s.row.Key), s.at, s.whole.End)
	}
	return len(s.row.Cells), nil
}

// take scans a piece into s.row, checks that it is of the row and comes after what was
// read of it, and returns the number of its cells, -1 if there is no row. Where another
// row stands instead, that is known to be next.
func (s *scan) take(rows []byte) (int, error) {
	w := s.wide
	cells, err := s.row1(rows)
	if cells < 0 || err != nil {
		return cells, err
	}
	if w.key == nil {
		w.key = table.KeyOf(s.row.Key)
		if w.start, err = s.schema.AppendKey(nil, w.key); err != nil {
			return 0, s.fault("%w", err)
		}
		if w.end, err = s.schema.AppendKey(nil, w.key.Next()); err != nil {
			return 0, s.fault("%w", err)
		}
	} else if w.key.CompareCells(s.row.Key) != 0 {
		w.next, w.known = table.KeyOf(s.row.Key), true
		return -1, nil
	}
	if cells == 0 {
		return 0, nil
	}
	if !table.Canonical(s.row.Cells) {
		return 0, s.fault("row %v: cells that are not in order", w.key)
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

// finish is the last piece of the row, of which nothing but the key is left if block is
// nil. If the row was gone before its first piece was read, the page has no rows.
func (s *scan) finish(page table.Page, block []byte) (table.Page, error) {
	w := s.wide
	s.wide, s.limit = nil, 1
	page.Next = w.next
	if page.ServerTime.IsZero() {
		page.ServerTime = s.served
	}
	from := w.key
	if from == nil {
		from = s.at
	}
	if w.next != nil && w.next.Compare(from) <= 0 {
		return table.Page{}, s.fault("after row %v the service goes on at %v, which is not beyond it", from, w.next)
	}
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
