package ots_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// shapes are rows as the project's measurements use them.
func shapes(n int) map[string]func(i int) *tablestore.PutRowChange {
	text := func(rng *rand.Rand, n int) string {
		const words = "the quick brown fox jumps over lazy dogs and runs "
		b := make([]byte, n)
		for i := range b {
			b[i] = words[rng.IntN(len(words))]
		}
		return string(b)
	}
	base := time.Now().UnixMilli()
	row := func(i int, fill func(rng *rand.Rand, add func(name string, v any))) *tablestore.PutRowChange {
		rng := rand.New(rand.NewPCG(uint64(i), 7))
		pk := &tablestore.PrimaryKey{}
		pk.AddPrimaryKeyColumn("pk1", fmt.Sprintf("user%08d", i))
		pk.AddPrimaryKeyColumn("pk2", int64(i))
		c := &tablestore.PutRowChange{TableName: "bench", PrimaryKey: pk}
		c.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
		fill(rng, func(name string, v any) { c.AddColumnWithTimestamp(name, v, base) })
		return c
	}
	return map[string]func(int) *tablestore.PutRowChange{
		"small": func(i int) *tablestore.PutRowChange {
			return row(i, func(rng *rand.Rand, add func(string, any)) {
				add("amount", rng.Float64())
				add("city", text(rng, 12))
				add("count", rng.Int64())
				add("email", text(rng, 24))
				add("flag", rng.IntN(2) == 0)
				add("name", text(rng, 16))
				add("note", text(rng, 40))
				add("state", text(rng, 8))
			})
		},
		"medium": func(i int) *tablestore.PutRowChange {
			return row(i, func(rng *rand.Rand, add func(string, any)) {
				for c := range 20 {
					name := fmt.Sprintf("column_%02d", c)
					switch c % 4 {
					case 0:
						add(name, rng.Int64())
					case 1:
						add(name, rng.Float64())
					default:
						add(name, text(rng, 160))
					}
				}
			})
		},
	}
}

// fill loads n rows of a shape past the wire.
func fill(t testing.TB, s *ots.Server, n int, shape func(int) *tablestore.PutRowChange) (size int64) {
	t.Helper()
	err := s.Engine().CreateTable(&engine.Definition{
		Name:    "bench",
		Key:     []engine.KeyColumn{{Name: "pk1", Type: plainbuffer.String}, {Name: "pk2", Type: plainbuffer.Integer}},
		Options: engine.Options{TTL: -1, MaxVersions: 1, Deviation: engine.DefaultDeviation, AllowUpdate: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < n; i += 200 {
		changes := make([]engine.Change, min(200, n-i))
		for j := range changes {
			block := shape(i + j).Serialize()
			changes[j].Op = engine.Put
			if err := plainbuffer.NewScanner(block).Next(&changes[j].Row); err != nil {
				t.Fatal(err)
			}
			size += int64(len(block) - plainbuffer.HeaderSize)
		}
		if err := s.Engine().BatchWrite([]engine.Group{{Table: "bench", Changes: changes}}, false); err != nil {
			t.Fatal(err)
		}
		for j := range changes {
			if changes[j].Outcome.Err != nil {
				t.Fatal(changes[j].Outcome.Err)
			}
		}
	}
	return size
}

// discard is a ResponseWriter that keeps nothing.
type discard struct {
	header http.Header
	n      int64
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(b []byte) (int, error) { d.n += int64(len(b)); return len(b), nil }

// BenchmarkGetRange serves full pages: as a handler, which is the server's own cost, and
// over loopback, with a client that only reads the bytes.
func BenchmarkGetRange(b *testing.B) {
	bound := func(t plainbuffer.Type) []byte {
		return engine.KeyBlock([]plainbuffer.Cell{{Name: []byte("pk1"), Type: t, HasValue: true}, {Name: []byte("pk2"), Type: t, HasValue: true}})
	}
	for _, name := range []string{"small", "medium"} {
		for _, store := range []string{"memory", "file"} {
			config := ots.Config{}
			if store == "file" {
				config.Dir = b.TempDir()
			}
			s := otstest.Run(b, config)
			fill(b, s, 6000, shapes(0)[name])
			req := request(b, s.URL(), "GetRange", &otsprotocol.GetRangeRequest{
				TableName:                proto.String("bench"),
				Direction:                otsprotocol.Direction_FORWARD.Enum(),
				MaxVersions:              proto.Int32(1 << 30),
				InclusiveStartPrimaryKey: bound(plainbuffer.InfMin),
				ExclusiveEndPrimaryKey:   bound(plainbuffer.InfMax),
			})
			for _, sums := range []string{"md5", "no md5"} {
				r := req.Clone(b.Context())
				if sums == "no md5" {
					r.Header.Set("User-Agent", "aliyun-tablestore-sdk-golang/4.0.2")
				}
				b.Run(name+"/"+store+"/handler/"+sums, func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						r.Body, _ = req.GetBody()
						w := &discard{header: http.Header{}}
						s.ServeHTTP(w, r)
						if w.status != 200 {
							b.Fatal(w.status)
						}
						b.SetBytes(w.n)
					}
				})
			}
			b.Run(name+"/"+store+"/loopback/no md5", func(b *testing.B) {
				r := req.Clone(b.Context())
				r.Header.Set("User-Agent", "aliyun-tablestore-sdk-golang/4.0.2")
				for b.Loop() {
					r.Body, _ = req.GetBody()
					res, err := http.DefaultClient.Do(r)
					if err != nil {
						b.Fatal(err)
					}
					n, err := io.Copy(io.Discard, res.Body)
					if err != nil {
						b.Fatal(err)
					}
					res.Body.Close()
					b.SetBytes(n)
				}
			})
		}
	}
}

// BenchmarkBatchWriteRow takes batches of 200 rows in key order.
func BenchmarkBatchWriteRow(b *testing.B) {
	for _, name := range []string{"small", "medium"} {
		for _, store := range []string{"memory", "file"} {
			config := ots.Config{}
			if store == "file" {
				config.Dir = b.TempDir()
			}
			s := otstest.Run(b, config)
			fill(b, s, 1, shapes(0)[name])
			var requests []*http.Request
			var size int64
			for i := range 50 {
				t := &otsprotocol.TableInBatchWriteRowRequest{TableName: proto.String("bench")}
				for j := range 200 {
					block := shapes(0)[name](i*200 + j).Serialize()
					size += int64(len(block))
					t.Rows = append(t.Rows, &otsprotocol.RowInBatchWriteRowRequest{
						Type:      otsprotocol.OperationType_PUT.Enum(),
						RowChange: block,
						Condition: &otsprotocol.Condition{RowExistence: otsprotocol.RowExistenceExpectation_IGNORE.Enum()},
					})
				}
				requests = append(requests, request(b, s.URL(), "BatchWriteRow", &otsprotocol.BatchWriteRowRequest{Tables: []*otsprotocol.TableInBatchWriteRowRequest{t}}))
			}
			b.Run(name+"/"+store, func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(size / 50)
				i := 0
				for b.Loop() {
					r := requests[i%len(requests)]
					i++
					r.Body, _ = r.GetBody()
					w := httptest.NewRecorder()
					s.ServeHTTP(w, r)
					if w.Code != 200 {
						b.Fatal(w.Code, w.Body)
					}
				}
			})
		}
	}
}
