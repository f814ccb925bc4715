package plainbuffer_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/plainbuffer/plainbuffertest"
	"github.com/tablevault/tablevault/shared/sidebyside"
)

// walk scans pages and returns their number of rows.
func walk(s *plainbuffer.Scanner, row *plainbuffer.Row, pages [][]byte) (rows int, err error) {
	for _, p := range pages {
		s.Reset(p)
		for {
			if err := s.Next(row); err == io.EOF {
				break
			} else if err != nil {
				return rows, err
			}
			rows++
		}
	}
	return rows, nil
}

func forShapes(b *testing.B, do func(b *testing.B, pages [][]byte, bytes, rows int)) {
	for _, shape := range plainbuffertest.Shapes() {
		b.Run(shape.Name, func(b *testing.B) {
			pages := shape.Pages(4)
			bytes := 0
			for _, p := range pages {
				bytes += len(p)
			}
			do(b, pages, bytes, 4*shape.PerPage)
		})
	}
}

// BenchmarkScanner walks pages and verifies every checksum.
func BenchmarkScanner(b *testing.B) {
	forShapes(b, func(b *testing.B, pages [][]byte, bytes, _ int) {
		b.SetBytes(int64(bytes))
		b.ReportAllocs()
		s := plainbuffer.NewScanner(nil)
		var row plainbuffer.Row
		for b.Loop() {
			if _, err := walk(s, &row, pages); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkBuilder walks pages and builds their rows anew, cell by cell.
func BenchmarkBuilder(b *testing.B) {
	forShapes(b, func(b *testing.B, pages [][]byte, bytes, _ int) {
		b.SetBytes(int64(bytes))
		b.ReportAllocs()
		s := plainbuffer.NewScanner(nil)
		var row plainbuffer.Row
		w := plainbuffer.Builder{Buf: make([]byte, 0, 5<<20)}
		for b.Loop() {
			for _, p := range pages {
				s.Reset(p)
				w.Buf = plainbuffer.AppendHeader(w.Buf[:0])
				for s.Next(&row) == nil {
					plainbuffertest.Append(&w, &row)
				}
				if len(w.Buf) != len(p) {
					b.Fatalf("%d bytes are built from %d", len(w.Buf), len(p))
				}
			}
		}
	})
}

// pagesInTurn is a transport that answers with one page after the other.
type pagesInTurn struct {
	answers []answer
	next    int
}

func (p *pagesInTurn) RoundTrip(r *http.Request) (*http.Response, error) {
	a := p.answers[p.next%len(p.answers)]
	p.next++
	return a.RoundTrip(r)
}

// BenchmarkScannerBesideSDK holds a walk over pages, every checksum verified, against
// what the official SDK takes to decode the same answers, none verified.
func BenchmarkScannerBesideSDK(b *testing.B) {
	forShapes(b, func(b *testing.B, pages [][]byte, _, rows int) {
		var transport pagesInTurn
		for _, p := range pages {
			transport.answers = append(transport.answers, answerTo(&otsprotocol.GetRangeResponse{Consumed: consumed(), Rows: p}))
		}
		config := tablestore.NewDefaultTableStoreConfig()
		config.Transport = &transport
		client := tablestore.NewClientWithConfig("http://127.0.0.1", "instance", "id", "secret", "", config)
		start, end := new(tablestore.PrimaryKey), new(tablestore.PrimaryKey)
		for _, k := range []string{"pk1", "pk2"} {
			start.AddPrimaryKeyColumnWithMinValue(k)
			end.AddPrimaryKeyColumnWithMaxValue(k)
		}
		request := &tablestore.GetRangeRequest{RangeRowQueryCriteria: &tablestore.RangeRowQueryCriteria{
			TableName: "t", StartPrimaryKey: start, EndPrimaryKey: end, MaxVersion: 1,
		}}
		s := plainbuffer.NewScanner(nil)
		var row plainbuffer.Row
		times := sidebyside.Measure(b, 7,
			sidebyside.Here("walk", func() error {
				n, err := walk(s, &row, pages)
				if err == nil && n != rows {
					err = fmt.Errorf("%d rows of %d", n, rows)
				}
				return err
			}),
			sidebyside.Here("sdk", func() error {
				got := 0
				for range pages {
					res, err := client.GetRange(request)
					if err != nil {
						return err
					}
					got += len(res.Rows)
				}
				if got != rows {
					return fmt.Errorf("%d rows of %d", got, rows)
				}
				return nil
			}))
		times.Report(b, "walk", "sdk")
		b.ReportMetric(testing.AllocsPerRun(3, func() { walk(s, &row, pages) })/float64(rows), "allocs/row")
	})
}
