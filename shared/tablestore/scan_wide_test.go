package tablestore_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	//lint:ignore SA1019 the official SDK's messages are of this API
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/tablestore"
)

// between stands between a client and the local Tablestore. It sees each request for a
// range, which it may change, and each answer; said says whether it changed that.
type between struct {
	next  http.RoundTripper
	asked func(*otsprotocol.GetRangeRequest)
	said  func(*otsprotocol.GetRangeRequest, *otsprotocol.GetRangeResponse) bool
}

func (b *between) RoundTrip(q *http.Request) (*http.Response, error) {
	if q.URL.Path != "/GetRange" {
		return b.next.RoundTrip(q)
	}
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return nil, err
	}
	q.Body.Close()
	var request otsprotocol.GetRangeRequest
	if err := proto.Unmarshal(body, &request); err != nil {
		return nil, err
	}
	if b.asked != nil {
		b.asked(&request)
	}
	again := q.Clone(q.Context())
	again.Body = io.NopCloser(bytes.NewReader(body))
	res, err := b.next.RoundTrip(again)
	if err != nil || b.said == nil || res.StatusCode != http.StatusOK {
		return res, err
	}
	defer res.Body.Close()
	if body, err = io.ReadAll(res.Body); err != nil {
		return nil, err
	}
	var answer otsprotocol.GetRangeResponse
	if err := proto.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	if b.said(&request, &answer) {
		if body, err = proto.Marshal(&answer); err != nil {
			return nil, err
		}
	}
	res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	res.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return res, nil
}

// through is a client of the server behind b.
func through(t testing.TB, s *ots.Server, b *between) *tablestore.Client {
	t.Helper()
	b.next = s
	return connect(t, s, func(config *tablestore.Config) { config.Transport = b })
}

// keepsLimits fails the test where a request has a key or a name of a column that is
// longer than the service allows.
func keepsLimits(t testing.TB) func(*otsprotocol.GetRangeRequest) {
	return func(q *otsprotocol.GetRangeRequest) {
		for _, k := range [][]byte{q.InclusiveStartPrimaryKey, q.ExclusiveEndPrimaryKey} {
			var row plainbuffer.Row
			if err := plainbuffer.ScanKey(k, &row); err != nil {
				t.Error(err)
			}
			for _, c := range row.Key {
				if c.Type != plainbuffer.Integer && len(c.Data) > table.MaxKeyBytes {
					t.Errorf("a bound of %d bytes in %q", len(c.Data), c.Name)
				}
			}
		}
		for _, name := range []string{q.GetStartColumn(), q.GetEndColumn()} {
			if len(name) > table.MaxNameBytes {
				t.Errorf("a column's name of %d bytes", len(name))
			}
		}
	}
}

// longRow is a row of a key with one column, without a block's header.
func longRow(t plainbuffer.Type, key string, cells ...plainbuffer.Cell) []byte {
	name := plainbuffer.Cell{Name: []byte("key"), HasValue: true, Type: t, Data: []byte(key)}
	return build([]plainbuffer.Cell{name}, cells)
}

// TestScanWideRowsAtTheLimits reads rows that come in pieces where the key, or the names
// of columns, have the greatest length that the service allows, and others directly
// before and behind them.
func TestScanWideRowsAtTheLimits(t *testing.T) {
	const size = 24 << 10
	full := func(end string) string { return strings.Repeat("k", table.MaxKeyBytes-len(end)) + end }
	name := func(end string) string { return strings.Repeat("n", table.MaxNameBytes-len(end)) + end }
	value := make([]byte, 900)
	var columns, versions, names []plainbuffer.Cell
	for i := range 100 {
		columns = append(columns, cell(fmt.Sprintf("column%04d", i), int64(i), value))
		versions = append(versions, cell("v", int64(500-i), value))
	}
	for _, end := range []string{"\x00", "a", "b", "\x7f", "\u00bf", "\uffff", "\xff", "\xff\xff", strings.Repeat("\xff", table.MaxNameBytes)} {
		for i := range 20 {
			names = append(names, cell(name(end), int64(100-i), value))
		}
	}
	slices.SortStableFunc(names, func(a, b plainbuffer.Cell) int { return table.CompareCells(&a, &b) })
	for _, keys := range []struct {
		name string
		kind table.KeyType
		wide []string // keys of wide rows, in order
		next []string // of small rows
	}{
		{"one byte less", table.StringKey, []string{full("k")[1:]}, []string{full("k")[1:] + "\x00", full("k")}},
		{"full", table.StringKey, []string{full("a"), full("b")}, []string{full("A"), full("c"), "z"}},
		{"the next code point is longer", table.StringKey, []string{full("\x7f")}, []string{full("\x7e"), strings.Repeat("k", 1022) + "l"}},
		{"strings that are no text between texts", table.StringKey, []string{full("\x7f"), full("\xff")}, []string{full("\x80"), full("\xc0"), full("\xff")[:1023] + "\xfe"}},
		{"the greatest text", table.StringKey, []string{strings.Repeat("\U0010ffff", 256)}, []string{"a"}},
		{"the greatest string", table.StringKey, []string{strings.Repeat("\xff", 1024)}, []string{"a"}},
		{"binary", table.BinaryKey, []string{full("\x7f"), full("\xff\xff")}, []string{full("\x80"), strings.Repeat("k", 1021) + "l"}},
		{"the greatest binary", table.BinaryKey, []string{strings.Repeat("\xff", 1024)}, []string{strings.Repeat("\xff", 1023)}},
	} {
		for shape, cells := range map[string][]plainbuffer.Cell{"columns": columns, "versions": versions, "names": names} {
			t.Run(keys.name+" "+shape, func(t *testing.T) {
				s := otstest.Run(t, ots.Config{AnswerMD5: ots.AnswerMD5Never})
				def := definition()
				def.Schema = table.Schema{{Name: "key", Type: keys.kind}}
				def.Options.MaxVersions = 1000
				b := &between{}
				c := through(t, s, b)
				create(t, c, def)
				kind := keys.kind.Wire()
				rows := map[string][]byte{}
				for _, k := range keys.wide {
					rows[k] = longRow(kind, k, cells...)
				}
				for _, k := range keys.next {
					rows[k] = longRow(kind, k, cell("c", 1, "x"))
				}
				order := append(slices.Clone(keys.wide), keys.next...)
				slices.Sort(order)
				var want [][]byte
				for _, k := range order {
					want = append(want, rows[k])
				}
				write(t, c, "t", table.Update, want...)
				b.asked = keepsLimits(t)
				for mode, behavior := range map[string]engine.Behavior{
					"slices":              {},
					"tokens, then slices": {Reads: engine.ReadBehavior{Tokens: engine.TokensWide, PageSize: size - 2<<10}},
					"tokens":              {Reads: engine.ReadBehavior{Tokens: engine.TokensAnywhere, PageSize: 7_000}},
				} {
					s.Engine().SetBehavior(behavior)
					got, _ := collect(t, c.Scan("t", def.Schema, def.Schema.Whole()), size)
					same(t, got, want)
					for i, k := range order {
						if pieces := got[i].pieces; slices.Contains(keys.wide, k) && pieces < 3 {
							t.Errorf("%s: a wide row in %d pieces", mode, pieces)
						}
					}
				}
			})
		}
	}
}

// TestScanTokenThenSlices has the service cut a row, and then send answers that do not
// fit: the scan goes on by slices, and asks what follows the row, but only where its key
// does not tell.
func TestScanTokenThenSlices(t *testing.T) {
	for _, test := range []struct {
		end  string
		kind table.KeyType
		asks int
	}{
		{"a", table.StringKey, 1},
		{"\x7f", table.StringKey, 1},
		{"", table.StringKey, 0},
		{"a", table.BinaryKey, 0},
		{"\x7f", table.BinaryKey, 0},
	} {
		t.Run(fmt.Sprintf("%s %q", test.kind, test.end), func(t *testing.T) {
			s := otstest.Run(t, ots.Config{AnswerMD5: ots.AnswerMD5Never})
			def := definition()
			def.Schema = table.Schema{{Name: "key", Type: test.kind}}
			b := &between{}
			c := through(t, s, b)
			create(t, c, def)
			full := strings.Repeat("k", table.MaxKeyBytes-1)
			var cells []plainbuffer.Cell
			for i := range 120 {
				cells = append(cells, cell(fmt.Sprintf("column%04d", i), 1, make([]byte, 500)))
			}
			kind := test.kind.Wire()
			want := [][]byte{longRow(kind, full+test.end, cells...), longRow(kind, full+"\x80", cell("c", 1, "x")), longRow(kind, "z", cell("c", 1, "x"))}
			write(t, c, "t", table.Put, want...)
			tokens, asks := 0, 0
			b.asked = func(q *otsprotocol.GetRangeRequest) {
				keepsLimits(t)(q)
				if columnsOf(t, q) == 1 && q.GetMaxVersions() == 1 {
					asks++
				}
			}
			b.said = func(q *otsprotocol.GetRangeRequest, a *otsprotocol.GetRangeResponse) bool {
				if len(q.Token) > 0 {
					// What comes after the first piece has no room.
					s.Engine().SetBehavior(engine.Behavior{})
				}
				if len(a.NextToken) > 0 {
					tokens++
					s.Engine().SetBehavior(engine.Behavior{Reads: engine.ReadBehavior{Tokens: engine.TokensWide, PageSize: 60_000}})
				}
				return false
			}
			s.Engine().SetBehavior(engine.Behavior{Reads: engine.ReadBehavior{Tokens: engine.TokensWide, PageSize: 10_000}})
			got, _ := collect(t, c.Scan("t", def.Schema, def.Schema.Whole()), 20_000)
			same(t, got, want)
			if tokens == 0 || got[0].pieces < 4 || asks != test.asks {
				t.Errorf("%d tokens, %d pieces, asked %d times what follows, want %d", tokens, got[0].pieces, asks, test.asks)
			}
		})
	}
}

// TestScanChangesBetweenPieces has a row deleted, or made anew, or its neighbours, once
// its first piece was read. What was read ends as a row, and no other is missed.
func TestScanChangesBetweenPieces(t *testing.T) {
	var cells []plainbuffer.Cell
	for i := range 60 {
		cells = append(cells, cell(fmt.Sprintf("column%04d", i), 1, make([]byte, 500)))
	}
	full := strings.Repeat("k", table.MaxKeyBytes-1) + "\x7f"
	str := plainbuffer.String
	small := func(key string) []byte { return longRow(str, key, cell("c", 1, "x")) }
	deleted := func(t *testing.T, s *ots.Server, key string) {
		gone := longRow(str, key)
		change := engine.Change{Op: engine.Delete}
		if _, err := plainbuffer.Scan(gone, &change.Row); err != nil {
			t.Fatal(err)
		}
		if err := s.Engine().BatchWrite([]engine.Group{{Table: "t", Changes: []engine.Change{change}}}, false); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		change func(t *testing.T, s *ots.Server, c *tablestore.Client)
		others []string // small rows that must be there in the end, beside the wide one
	}{
		"deleted": {func(t *testing.T, s *ots.Server, c *tablestore.Client) { deleted(t, s, full) }, []string{"a", "z"}},
		"deleted, and one follows": {func(t *testing.T, s *ots.Server, c *tablestore.Client) {
			deleted(t, s, full)
			write(t, c, "t", table.Put, small(full[:1023]+"\x80"))
		}, []string{"a", full[:1023] + "\x80", "z"}},
		"made anew": {func(t *testing.T, s *ots.Server, c *tablestore.Client) {
			deleted(t, s, full)
			write(t, c, "t", table.Put, longRow(str, full, cell("zz", 9, int64(5))))
		}, []string{"a", "z"}},
		"all deleted": {func(t *testing.T, s *ots.Server, c *tablestore.Client) {
			deleted(t, s, full)
			deleted(t, s, "z")
		}, []string{"a"}},
	} {
		for mode, behavior := range map[string]engine.Behavior{
			"slices": {},
			"tokens": {Reads: engine.ReadBehavior{Tokens: engine.TokensWide, PageSize: 8_000}},
		} {
			t.Run(name+" "+mode, func(t *testing.T) {
				s := otstest.Run(t, ots.Config{AnswerMD5: ots.AnswerMD5Never})
				def := definition()
				def.Schema = table.Schema{{Name: "key", Type: table.StringKey}}
				c := connect(t, s)
				create(t, c, def)
				write(t, c, "t", table.Put, small("a"), longRow(str, full, cells...), small("z"))
				s.Engine().SetBehavior(behavior)
				changed := false
				scan := pieceHook{c.Scan("t", def.Schema, def.Schema.Whole()), func(page table.Page) {
					if page.Piece && page.First && !changed {
						changed = true
						test.change(t, s, c)
					}
				}}
				rows, _, err := tryCollect(t.Context(), scan, make([]byte, 12_000))
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, r := range rows {
					var row plainbuffer.Row
					if _, err := plainbuffer.Scan(r.raw, &row); err != nil {
						t.Fatal(err)
					}
					got = append(got, string(row.Key[0].Data))
					if r.pieces > 0 && !table.Canonical(row.Cells) {
						t.Error("a row whose cells are not in order")
					}
				}
				want := append([]string{full}, test.others...)
				slices.Sort(want)
				if !slices.Equal(got, want) || !changed {
					t.Errorf("rows %.20q, want %.20q", got, want)
				}
			})
		}
	}
}

// TestScanOfARowThatIsGone has a row that is too large for a page be deleted before its
// first piece is asked for: there is no such row, and all others are there.
func TestScanOfARowThatIsGone(t *testing.T) {
	var cells []plainbuffer.Cell
	for i := range 60 {
		cells = append(cells, cell(fmt.Sprintf("column%04d", i), 1, make([]byte, 500)))
	}
	for _, others := range [][][]byte{{}, {row("a", 1), row("c", 1)}, {row("a", 1)}, {row("c", 1)}} {
		s := otstest.Run(t, ots.Config{AnswerMD5: ots.AnswerMD5Never})
		b := &between{}
		c := through(t, s, b)
		create(t, c, definition())
		write(t, c, "t", table.Put, append([][]byte{row("b", 1, cells...)}, others...)...)
		deleted := false
		b.asked = func(q *otsprotocol.GetRangeRequest) {
			if columnsOf(t, q) == 0 || deleted {
				return
			}
			deleted = true
			change := engine.Change{Op: engine.Delete}
			if _, err := plainbuffer.Scan(row("b", 1), &change.Row); err != nil {
				t.Fatal(err)
			}
			if err := s.Engine().BatchWrite([]engine.Group{{Table: "t", Changes: []engine.Change{change}}}, false); err != nil {
				t.Fatal(err)
			}
		}
		rows, _ := collect(t, c.Scan("t", definition().Schema, definition().Schema.Whole()), 12_000)
		same(t, rows, others)
		if !deleted {
			t.Error("no piece was asked for")
		}
	}
}

// pieceHook shows each page before its reader has it.
type pieceHook struct {
	table.Scan
	seen func(table.Page)
}

func (h pieceHook) Next(ctx context.Context, buf []byte) (table.Page, error) {
	page, err := h.Scan.Next(ctx, buf)
	if err == nil {
		page.Block = bytes.Clone(page.Block)
		h.seen(page)
	}
	return page, err
}

// TestScanPagingThatCountsCells has a service whose filter for some columns counts cells
// instead: a column's older versions come all the same.
func TestScanPagingThatCountsCells(t *testing.T) {
	s := otstest.Run(t, ots.Config{AnswerMD5: ots.AnswerMD5Never})
	def := definition()
	def.Options.MaxVersions = 100
	paged := 0
	b := &between{said: func(q *otsprotocol.GetRangeRequest, a *otsprotocol.GetRangeResponse) bool {
		n := columnsOf(t, q)
		if n == 0 {
			return false
		}
		s := plainbuffer.NewScanner(a.Rows)
		var row plainbuffer.Row
		if s.Next(&row) != nil || len(row.Cells) <= n {
			return false
		}
		paged++
		a.Rows = append(plainbuffer.AppendHeader(nil), build(row.Key, row.Cells[:n])...)
		return true
	}}
	c := through(t, s, b)
	create(t, c, def)
	var cells []plainbuffer.Cell
	for i := range 40 {
		for v := range 1 + i%9*3 {
			cells = append(cells, cell(fmt.Sprintf("column%04d", i), int64(100-v), make([]byte, 300)))
		}
	}
	want := [][]byte{row("a", 1, cells...), row("b", 1)}
	write(t, c, "t", table.Put, want...)
	for _, size := range []int{4 << 10, 16 << 10, 40 << 10} {
		got, _ := collect(t, c.Scan("t", def.Schema, def.Schema.Whole()), size)
		same(t, got, want)
	}
	if paged == 0 {
		t.Error("no page was cut by cells")
	}
}

// columnsOf is how many columns a request asks for, 0 for all.
func columnsOf(t testing.TB, q *otsprotocol.GetRangeRequest) int {
	t.Helper()
	if len(q.Filter) == 0 {
		return 0
	}
	var filter otsprotocol.Filter
	var page otsprotocol.ColumnPaginationFilter
	if err := proto.Unmarshal(q.Filter, &filter); err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(filter.Filter, &page); err != nil {
		t.Fatal(err)
	}
	return int(page.GetLimit())
}

// TestScanEndIsSummed: that a page is the last of a range is only believed if the whole
// answer is as it was sent, however large it is.
func TestScanEndIsSummed(t *testing.T) {
	s := otstest.Run(t, ots.Config{AnswerMD5: ots.AnswerMD5Always})
	cut := 0
	b := &between{said: func(_ *otsprotocol.GetRangeRequest, a *otsprotocol.GetRangeResponse) bool {
		if a.NextStartPrimaryKey == nil || cut > 0 {
			return false
		}
		if len(a.Rows) <= 64<<10 {
			t.Errorf("a page of %d bytes, whose answer is summed in any case", len(a.Rows))
		}
		cut++
		a.NextStartPrimaryKey = nil
		return true
	}}
	c := through(t, s, b)
	create(t, c, definition())
	var want [][]byte
	for i := range 40 {
		want = append(want, row(fmt.Sprintf("u%03d", i), 1, cell("c", 1, make([]byte, 10_000))))
	}
	write(t, c, "t", table.Put, want...)
	s.Engine().SetBehavior(engine.Behavior{Reads: engine.ReadBehavior{PageRows: 10}})
	got, _ := collect(t, c.Scan("t", definition().Schema, definition().Schema.Whole()), 1<<20)
	same(t, got, want)
	if cut != 1 {
		t.Error("no answer was cut")
	}
}

// TestScanOfWideRowsBelievesNothing: pieces that are out of order, or of a row that was
// not asked for, and a service that does not go on, end the scan with an error.
func TestScanOfWideRowsBelievesNothing(t *testing.T) {
	var cells []plainbuffer.Cell
	for i := range 60 {
		cells = append(cells, cell(fmt.Sprintf("column%04d", i), 1, make([]byte, 500)))
	}
	key := func(user string, n int64) []byte {
		b, err := definition().Schema.AppendKey(nil, table.Key{table.String(user), table.Integer(n)})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	first := func(a *otsprotocol.GetRangeResponse) (r plainbuffer.Row) {
		if err := plainbuffer.NewScanner(a.Rows).Next(&r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	var token []byte
	for name, test := range map[string]struct {
		tokens bool
		bend   func(q *otsprotocol.GetRangeRequest, a *otsprotocol.GetRangeResponse) bool
		want   string
	}{
		"cells out of order": {false, func(_ *otsprotocol.GetRangeRequest, a *otsprotocol.GetRangeResponse) bool {
			r := first(a)
			if len(r.Cells) < 2 {
				return false
			}
			r.Cells[0], r.Cells[1] = r.Cells[1], r.Cells[0]
			a.Rows = append(plainbuffer.AppendHeader(nil), build(r.Key, r.Cells)...)
			return true
		}, "cells that are not in order"},
		"a row before the range": {false, func(_ *otsprotocol.GetRangeRequest, a *otsprotocol.GetRangeResponse) bool {
			a.Rows = append(plainbuffer.AppendHeader(nil), row("a", 1, first(a).Cells...)...)
			return true
		}, "not in the range"},
		"a row at its end": {false, func(_ *otsprotocol.GetRangeRequest, a *otsprotocol.GetRangeResponse) bool {
			a.Rows = append(plainbuffer.AppendHeader(nil), row("c", 5, first(a).Cells...)...)
			return true
		}, "not in the range"},
		"the same row next": {false, func(q *otsprotocol.GetRangeRequest, a *otsprotocol.GetRangeResponse) bool {
			a.NextStartPrimaryKey = key("b", 1)
			return true
		}, "not beyond it"},
		"the same token again": {true, func(q *otsprotocol.GetRangeRequest, a *otsprotocol.GetRangeResponse) bool {
			if token == nil {
				token = bytes.Clone(a.NextToken)
			}
			a.NextToken, a.NextStartPrimaryKey = token, key("b", 1)
			return true
		}, "goes on where it was"},
	} {
		t.Run(name, func(t *testing.T) {
			s := otstest.Run(t, ots.Config{AnswerMD5: ots.AnswerMD5Never})
			b := &between{}
			c := through(t, s, b)
			create(t, c, definition())
			write(t, c, "t", table.Put, row("a", 1), row("b", 1, cells...), row("c", 5), row("d", 1))
			if test.tokens {
				s.Engine().SetBehavior(engine.Behavior{Reads: engine.ReadBehavior{Tokens: engine.TokensWide, PageSize: 8_000}})
			}
			b.said = func(q *otsprotocol.GetRangeRequest, a *otsprotocol.GetRangeResponse) bool {
				if !test.tokens && columnsOf(t, q) == 0 || len(a.Rows) > 12_000 {
					return false // a page that is not taken
				}
				return test.bend(q, a)
			}
			r := table.Range{Start: table.Key{table.String("b"), table.Min()}, End: table.Key{table.String("c"), table.Integer(5)}}
			_, _, err := tryCollect(t.Context(), c.Scan("t", definition().Schema, r), make([]byte, 12_000))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

// bareOnce stands between a client and a server, and once sends the key alone where the
// server goes on with a token.
type bareOnce struct {
	between
	mu    sync.Mutex
	later []byte
	head  http.Header
}

func (b *bareOnce) RoundTrip(q *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return nil, err
	}
	q.Body.Close()
	q = q.Clone(q.Context())
	q.Body = io.NopCloser(bytes.NewReader(body))
	var request otsprotocol.GetRangeRequest
	if q.URL.Path != "/GetRange" || proto.Unmarshal(body, &request) != nil || string(request.Token) != "later" {
		return b.between.RoundTrip(q)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return &http.Response{StatusCode: http.StatusOK, Header: b.head, ContentLength: int64(len(b.later)), Body: io.NopCloser(bytes.NewReader(b.later)), Request: q}, nil
}

// TestScanOfABareCut has the service cut a row after its key: that is no piece, and the
// scan goes on to the next.
func TestScanOfABareCut(t *testing.T) {
	s := otstest.Run(t, ots.Config{AnswerMD5: ots.AnswerMD5Never})
	b := &bareOnce{head: http.Header{"Date": {"Fri, 20 Nov 2026 02:14:00 GMT"}}}
	b.next = s
	c := connect(t, s, func(config *tablestore.Config) { config.Transport = b })
	create(t, c, definition())
	var cells []plainbuffer.Cell
	for i := range 60 {
		cells = append(cells, cell(fmt.Sprintf("column%04d", i), 1, make([]byte, 500)))
	}
	want := [][]byte{row("b", 1, cells...), row("c", 5)}
	write(t, c, "t", table.Put, want...)
	s.Engine().SetBehavior(engine.Behavior{Reads: engine.ReadBehavior{Tokens: engine.TokensWide, PageSize: 8_000}})
	b.said = func(_ *otsprotocol.GetRangeRequest, a *otsprotocol.GetRangeResponse) bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.later != nil || len(a.NextToken) == 0 {
			return false
		}
		var err error
		if b.later, err = proto.Marshal(a); err != nil {
			t.Error(err)
		}
		a.Rows, a.NextToken = append(plainbuffer.AppendHeader(nil), row("b", 1)...), []byte("later")
		return true
	}
	rows, _ := collect(t, c.Scan("t", definition().Schema, definition().Schema.Whole()), 12_000)
	same(t, rows, want)
	if b.later == nil {
		t.Error("no row was cut")
	}
}
