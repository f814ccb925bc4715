package tablestore_test

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/tablestore"
)

// keyBytes is a key of definition's schema as answers have it.
func keyBytes(t *testing.T, user string, n int64) []byte {
	t.Helper()
	b, err := definition().Schema.AppendKey(nil, table.Key{table.String(user), table.Integer(n)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// block is rows as answers have them.
func block(rows ...[]byte) []byte {
	return append(plainbuffer.AppendHeader(nil), bytes.Join(rows, nil)...)
}

// TestScanOfPagesBelievesNothing gives a scan pages that can't be: it would never end, or
// leave rows out, or take some twice.
func TestScanOfPagesBelievesNothing(t *testing.T) {
	for name, test := range map[string]struct {
		bend func(*otsprotocol.GetRangeResponse)
		want string
	}{
		"goes on where it began": {func(a *otsprotocol.GetRangeResponse) { a.NextStartPrimaryKey = keyBytes(t, "b", 1) }, "not beyond it"},
		"cut, with nothing": {func(a *otsprotocol.GetRangeResponse) {
			a.Rows, a.NextToken, a.NextStartPrimaryKey = []byte{}, []byte("x"), keyBytes(t, "b", 2)
		}, "that it has nothing of"},
		"cut, and goes on elsewhere": {func(a *otsprotocol.GetRangeResponse) {
			a.Rows, a.NextToken, a.NextStartPrimaryKey = block(row("b", 2), row("b", 3)), []byte("x"), keyBytes(t, "b", 4)
		}, "goes on at"},
		"cut, and goes on where it began": {func(a *otsprotocol.GetRangeResponse) {
			a.Rows, a.NextToken, a.NextStartPrimaryKey = block(row("b", 2), row("b", 1)), []byte("x"), keyBytes(t, "b", 1)
		}, "not beyond it"},
	} {
		t.Run(name, func(t *testing.T) {
			s := otstest.Run(t, ots.Config{AnswerMD5: ots.AnswerMD5Never})
			b := &between{}
			c := through(t, s, b)
			create(t, c, definition())
			write(t, c, "t", table.Put, row("b", 1), row("b", 2), row("b", 3), row("b", 4))
			bent := false
			b.said = func(_ *otsprotocol.GetRangeRequest, a *otsprotocol.GetRangeResponse) bool {
				if bent {
					return false // so that a scan that takes it comes to an end
				}
				bent = true
				test.bend(a)
				return true
			}
			r := table.Range{Start: table.Key{table.String("b"), table.Integer(1)}, End: table.Key{table.String("c"), table.Min()}}
			_, _, err := tryCollect(t.Context(), c.Scan("t", definition().Schema, r), make([]byte, 12_000))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

// TestPiecesBelieveNothing gives a scan pieces of a wide row that can't be.
func TestPiecesBelieveNothing(t *testing.T) {
	var cells []plainbuffer.Cell
	for i := range 60 {
		cells = append(cells, cell("column"+strconv.Itoa(1000+i), 1, make([]byte, 500)))
	}
	for name, test := range map[string]struct {
		piece int // which piece is bent
		bend  func(*otsprotocol.GetRangeResponse)
		want  string
	}{
		"cut, with nothing": {0, func(a *otsprotocol.GetRangeResponse) { a.Rows, a.NextToken = []byte{}, []byte("x") }, "that it has nothing of"},
		"cut, with the key alone": {1, func(a *otsprotocol.GetRangeResponse) {
			a.Rows, a.NextToken = block(row("b", 1)), []byte("x")
		}, "no end"},
		"two rows":                        {0, func(a *otsprotocol.GetRangeResponse) { a.Rows = block(row("b", 1, cells[0]), row("b", 2)) }, "more than the one row"},
		"the columns of the piece before": {1, func(a *otsprotocol.GetRangeResponse) { a.Rows = block(row("b", 1, cells[0])) }, "does not come after"},
	} {
		t.Run(name, func(t *testing.T) {
			s := otstest.Run(t, ots.Config{AnswerMD5: ots.AnswerMD5Never})
			b := &between{}
			c := through(t, s, b)
			create(t, c, definition())
			write(t, c, "t", table.Put, row("b", 1, cells...), row("c", 5))
			piece := 0
			b.said = func(q *otsprotocol.GetRangeRequest, a *otsprotocol.GetRangeResponse) bool {
				if columnsOf(t, q) == 0 || len(a.Rows) > 12_000 {
					return false // a page that is not taken
				}
				if piece++; piece != test.piece+1 {
					return false
				}
				test.bend(a)
				return true
			}
			r := table.Range{Start: table.Key{table.String("b"), table.Min()}, End: table.Key{table.String("d"), table.Min()}}
			_, _, err := tryCollect(t.Context(), c.Scan("t", definition().Schema, r), make([]byte, 12_000))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

// batchAnswers stands between a client and a server, and changes the answers to batches.
type batchAnswers struct {
	next http.RoundTripper
	bend func(*otsprotocol.BatchWriteRowResponse)
	more []byte // behind the answer
}

func (b *batchAnswers) RoundTrip(q *http.Request) (*http.Response, error) {
	res, err := b.next.RoundTrip(q)
	if err != nil || q.URL.Path != "/BatchWriteRow" || res.StatusCode != http.StatusOK {
		return res, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	var answer otsprotocol.BatchWriteRowResponse
	if err := proto.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	b.bend(&answer)
	if body, err = proto.Marshal(&answer); err != nil {
		return nil, err
	}
	body = append(body, b.more...)
	res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	res.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return res, nil
}

// TestWriteBelievesNothing has answers to a batch be about more rows than were sent, or
// fewer, or end in the middle: a row that an answer does not tell of is not written.
func TestWriteBelievesNothing(t *testing.T) {
	for name, test := range map[string]struct {
		batchAnswers
		want string
	}{
		"more rows": {batchAnswers{bend: func(a *otsprotocol.BatchWriteRowResponse) {
			a.Tables[0].Rows = append(a.Tables[0].Rows, a.Tables[0].Rows[0])
		}}, "more rows than the 2"},
		"fewer rows": {batchAnswers{bend: func(a *otsprotocol.BatchWriteRowResponse) { a.Tables[0].Rows = a.Tables[0].Rows[:1] }}, "about 1 rows"},
		"cut short":  {batchAnswers{bend: func(*otsprotocol.BatchWriteRowResponse) {}, more: []byte{0x0a, 9, 1}}, "BatchWriteRow"},
	} {
		t.Run(name, func(t *testing.T) {
			s := otstest.Run(t, ots.Config{AnswerMD5: ots.AnswerMD5Never})
			b := &test.batchAnswers
			b.next = http.DefaultTransport
			c := connect(t, s, func(config *tablestore.Config) {
				config.Transport = b
				config.Retry.Total = config.Retry.First // an answer that can't be read is asked for again
			})
			create(t, c, definition())
			batch := c.NewBatch()
			batch.Add(row("a", 1), table.Put)
			batch.Add(row("a", 2), table.Put)
			if result, err := c.Write(t.Context(), "t", batch); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%+v, %v, want %q", result, err, test.want)
			}
		})
	}
	c := connect(t, otstest.Run(t, ots.Config{}))
	if _, err := c.Write(t.Context(), "t", tabletest.New().NewBatch()); err == nil || !strings.Contains(err.Error(), "one of the client's own") {
		t.Errorf("a batch of others: %v", err)
	}
}
