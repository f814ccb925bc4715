package tablestore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/tablestore"
)

// connect returns a client that does not wait long.
func connect(t testing.TB, s *ots.Server, with ...func(*tablestore.Config)) *tablestore.Client {
	t.Helper()
	return connectAt(t, s.URL(), with...)
}

func connectAt(t testing.TB, endpoint string, with ...func(*tablestore.Config)) *tablestore.Client {
	t.Helper()
	config := tablestore.Config{
		Endpoint:    endpoint,
		Instance:    "local",
		Credentials: access.Key{ID: ots.DefaultKeyID, Secret: ots.DefaultKeySecret}.Provider(),
		Retry:       tablestore.Retry{First: time.Millisecond, Longest: 20 * time.Millisecond, Total: 2 * time.Second, Unreachable: 200 * time.Millisecond, Window: time.Second},
		Log:         slog.New(slog.DiscardHandler),
	}
	for _, w := range with {
		w(&config)
	}
	c, err := tablestore.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

// inBubble runs a test against a server that is called as a handler, without a network,
// so that all of it goes by the clock of a synctest bubble: pauses cost nothing, and how
// long something took does not depend on the machine.
func inBubble(t *testing.T, config ots.Config, test func(t *testing.T, s *ots.Server, connect func(...func(*tablestore.Config)) *tablestore.Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := otstest.New(t, config)
		test(t, s, func(with ...func(*tablestore.Config)) *tablestore.Client {
			return connectAt(t, "http://local", append([]func(*tablestore.Config){
				func(config *tablestore.Config) { config.Transport = direct{s} },
			}, with...)...)
		})
	})
}

// direct carries requests to a handler by calling it. A handler that aborts has cut the
// connection.
type direct struct{ handler http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	whole := d.serve(rec, r)
	if err := r.Body.Close(); err != nil {
		return nil, err
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if !whole {
		return nil, io.ErrUnexpectedEOF
	}
	return rec.Result(), nil
}

func (d direct) serve(w http.ResponseWriter, r *http.Request) (whole bool) {
	defer func() {
		if cut := recover(); cut != nil && cut != http.ErrAbortHandler {
			panic(cut)
		}
	}()
	d.handler.ServeHTTP(w, r)
	return true
}

// definition is a table "t" with two key columns that takes every timestamp.
func definition() table.Definition {
	return table.Definition{
		Name:    "t",
		Schema:  table.Schema{{Name: "user", Type: table.StringKey}, {Name: "n", Type: table.IntegerKey}},
		Options: table.Options{TTL: table.NoTTL, MaxVersions: 1, Deviation: table.WidestDeviation, AllowUpdate: true},
	}
}

func create(t testing.TB, c *tablestore.Client, def table.Definition) {
	t.Helper()
	if err := c.Create(t.Context(), def); err != nil {
		t.Fatal(err)
	}
}

// row builds a row of definition's schema without a block's header.
func row(user string, n int64, cells ...plainbuffer.Cell) []byte {
	var b plainbuffer.Builder
	b.Begin()
	name := plainbuffer.NewName([]byte("user"))
	b.KeyBytes(&name, plainbuffer.String, []byte(user))
	name = plainbuffer.NewName([]byte("n"))
	b.KeyInteger(&name, n)
	if len(cells) > 0 {
		b.Attributes()
	}
	for i := range cells {
		b.Cell(&cells[i])
	}
	b.End(false)
	return b.Buf
}

var cell = tabletest.Cell

// write writes rows in as many batches as it takes, and fails on refusals.
func write(t testing.TB, c *tablestore.Client, name string, op table.WriteOp, rows ...[]byte) {
	t.Helper()
	b := c.NewBatch()
	flush := func() {
		t.Helper()
		result, err := c.Write(t.Context(), name, b)
		if err != nil {
			t.Fatal(err)
		}
		if len(result.Refused) > 0 {
			t.Fatalf("refused: %+v", result.Refused)
		}
		b.Reset()
	}
	for i, r := range rows {
		if b.Add(r, op) {
			continue
		}
		if b.Len() == 0 {
			t.Fatalf("row %d of %d bytes does not fit into an empty batch", i, len(r))
		}
		flush()
		if !b.Add(r, op) {
			t.Fatalf("row %d of %d bytes does not fit into an empty batch", i, len(r))
		}
	}
	if b.Len() > 0 {
		flush()
	}
}

// A collected row is a row whose pieces were put together.
type collected struct {
	raw    []byte
	pieces int
}

// collect scans a range to its end and checks what the port promises of pages.
func collect(t testing.TB, scan table.Scan, size int) (rows []collected, pages int) {
	t.Helper()
	rows, pages, err := tryCollect(t.Context(), scan, make([]byte, size))
	if err != nil {
		t.Fatal(err)
	}
	return rows, pages
}

func tryCollect(ctx context.Context, scan table.Scan, buf []byte) (rows []collected, pages int, _ error) {
	var open []plainbuffer.Cell // of the row that is being put together
	var key []plainbuffer.Cell
	pieces := 0
	for {
		page, err := scan.Next(ctx, buf)
		if errors.Is(err, io.EOF) {
			if pieces > 0 {
				return rows, pages, errors.New("the scan ended inside of a row")
			}
			return rows, pages, nil
		}
		if err != nil {
			return rows, pages, err
		}
		pages++
		if page.ServerTime.IsZero() {
			return rows, pages, errors.New("a page without a date")
		}
		if page.Piece {
			if page.First != (pieces == 0) {
				return rows, pages, fmt.Errorf("piece %d says First is %t", pieces, page.First)
			}
		} else if pieces > 0 {
			return rows, pages, errors.New("a page inside of a row")
		}
		s := plainbuffer.NewScanner(page.Block)
		for n := 0; ; n++ {
			var r plainbuffer.Row
			err := s.Next(&r)
			if err == io.EOF {
				if page.Piece && n != 1 {
					return rows, pages, fmt.Errorf("%d pieces in a page", n)
				}
				break
			}
			if err != nil {
				return rows, pages, err
			}
			k := table.KeyOf(r.Key)
			if !page.Piece {
				if page.Next != nil && k.Compare(page.Next) >= 0 {
					return rows, pages, fmt.Errorf("row %v in a page to %v", k, page.Next)
				}
				rows = append(rows, collected{raw: bytes.Clone(r.Raw)})
				continue
			}
			if !page.Last && len(r.Cells) == 0 {
				return rows, pages, fmt.Errorf("a piece of row %v without a cell, which is not its last", k)
			}
			if pieces == 0 {
				key, open = cloneCells(r.Key), nil
			}
			open = append(open, cloneCells(r.Cells)...)
			pieces++
			if !page.Last {
				if !k.Equal(page.Next) {
					return rows, pages, fmt.Errorf("a piece of row %v goes on at %v", k, page.Next)
				}
				continue
			}
			if page.Next != nil && k.Compare(page.Next) >= 0 {
				return rows, pages, fmt.Errorf("row %v ends before %v", k, page.Next)
			}
			rows = append(rows, collected{raw: build(key, open), pieces: pieces})
			pieces = 0
		}
	}
}

func cloneCells(cells []plainbuffer.Cell) []plainbuffer.Cell {
	out := make([]plainbuffer.Cell, len(cells))
	for i, c := range cells {
		c.Name, c.Data = bytes.Clone(c.Name), bytes.Clone(c.Data)
		out[i] = c
	}
	return out
}

func build(key, cells []plainbuffer.Cell) []byte {
	var b plainbuffer.Builder
	b.Begin()
	for i := range key {
		b.Cell(&key[i])
	}
	if len(cells) > 0 {
		b.Attributes()
	}
	for i := range cells {
		b.Cell(&cells[i])
	}
	b.End(false)
	return b.Buf
}

// same fails unless the rows are those wanted, byte for byte.
func same(t testing.TB, got []collected, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d rows, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i].raw, want[i]) {
			t.Fatalf("row %d is\n%.200x\nwant\n%.200x", i, got[i].raw, want[i])
		}
	}
}
