package tablestore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/tablestore"
)

// benchRows are n rows of eight small columns.
func benchRows(n int) [][]byte {
	var rows [][]byte
	for i := range n {
		rows = append(rows, row(fmt.Sprintf("user%08d", i), int64(i),
			cell("amount", 1, 1.5*float64(i)), cell("city", 1, "twelve bytes"), cell("count", 1, i), cell("email", 1, "somebody@somewhere.org"),
			cell("flag", 1, true), cell("name", 1, "sixteen letters!"), cell("note", 1, "a note that has about forty letters here"), cell("state", 1, "finished")))
	}
	return rows
}

// replay answers every request with the last answer of its operation that a server gave,
// so that only the client is measured.
type replay struct {
	answers map[string]recorded
}

type recorded struct {
	header http.Header
	body   []byte
}

func (r *replay) RoundTrip(q *http.Request) (*http.Response, error) {
	if _, err := io.Copy(io.Discard, q.Body); err != nil {
		return nil, err
	}
	if err := q.Body.Close(); err != nil {
		return nil, err
	}
	a := r.answers[q.URL.Path]
	return &http.Response{StatusCode: 200, Header: a.header, ContentLength: int64(len(a.body)), Body: io.NopCloser(bytes.NewReader(a.body)), Request: q}, nil
}

// record lets do run against a server and keeps the answers.
type record struct {
	replay
}

func (r *record) RoundTrip(q *http.Request) (*http.Response, error) {
	res, err := http.DefaultTransport.RoundTrip(q)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	r.answers[q.URL.Path] = recorded{res.Header, body}
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res, nil
}

func BenchmarkScan(b *testing.B) {
	s := otstest.Run(b, ots.Config{AnswerMD5: ots.AnswerMD5Never})
	c := connect(b, s)
	def := definition()
	create(b, c, def)
	const n = 5000
	rows := benchRows(n)
	write(b, c, "t", table.Put, rows...)
	size := 0
	for _, r := range rows {
		size += len(r)
	}
	buf := make([]byte, 4<<20)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		scan := c.Scan("t", def.Schema, def.Schema.Whole())
		got := 0
		for {
			page, err := scan.Next(b.Context(), buf)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			got += max(0, len(page.Block)-plainbuffer.HeaderSize)
		}
		if got != size {
			b.Fatalf("%d bytes of %d", got, size)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkScanPage is a page of 2,000 rows without a network and a server.
func BenchmarkScanPage(b *testing.B) {
	s := otstest.Run(b, ots.Config{AnswerMD5: ots.AnswerMD5Never})
	tape := &record{replay{map[string]recorded{}}}
	def := definition()
	c := connect(b, s, func(config *tablestore.Config) { config.Transport = tape })
	create(b, c, def)
	rows := benchRows(2001)
	write(b, c, "t", table.Put, rows...)
	buf := make([]byte, 4<<20)
	scan := c.Scan("t", def.Schema, def.Schema.Whole())
	for range 3 { // 100, 400, 1,501 rows
		if _, err := scan.Next(b.Context(), buf); err != nil {
			b.Fatal(err)
		}
	}
	c = connect(b, s, func(config *tablestore.Config) { config.Transport = &tape.replay })
	b.SetBytes(int64(len(tape.answers["/GetRange"].body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Scan("t", def.Schema, def.Schema.Whole()).Next(b.Context(), buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWrite fills and sends batches of 200 rows without a network and a server.
func BenchmarkWrite(b *testing.B) {
	s := otstest.Run(b, ots.Config{})
	tape := &record{replay{map[string]recorded{}}}
	c := connect(b, s, func(config *tablestore.Config) { config.Transport = tape })
	create(b, c, definition())
	rows := benchRows(200)
	write(b, c, "t", table.Put, rows...)
	c = connect(b, s, func(config *tablestore.Config) { config.Transport = &tape.replay })
	size := 0
	for _, r := range rows {
		size += len(r)
	}
	batch := c.NewBatch()
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		batch.Reset()
		for _, r := range rows {
			if !batch.Add(r, table.Put) {
				b.Fatal("it does not fit")
			}
		}
		if _, err := c.Write(b.Context(), "t", batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(200*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
