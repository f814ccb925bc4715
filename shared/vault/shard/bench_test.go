package shard

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
)

// benchShape is rows like those of some real table, in pages of about 4 MB.
type benchShape struct {
	name   string
	schema table.Schema
	pages  [][]byte
	rows   int
	bytes  int
}

var benchSchema = table.Schema{{Name: "pk1", Type: table.StringKey}, {Name: "pk2", Type: table.IntegerKey}}

var benchWords = bytes.Fields([]byte(`the order was shipped from warehouse to customer after payment by card and
	confirmed on arrival with signature status pending retry error none region north south east west item quantity
	price discount total currency invoice reference note returned damaged replaced closed open`))

func words(b []byte, rng *rand.Rand, n int) []byte {
	for len(b) < n {
		b = append(b, benchWords[rng.IntN(len(benchWords))]...)
		b = append(b, ' ')
	}
	return b[:n]
}

func digits(b []byte, rng *rand.Rand, n int) []byte {
	for range n {
		b = append(b, "0123456789abcdef"[rng.IntN(16)])
	}
	return b
}

// benchRow builds the cells of the i-th row.
type benchRow func(w *plainbuffer.Builder, rng *rand.Rand, i int, name func(string) *plainbuffer.Name)

func makeShape(name string, rows, perPage int, row benchRow) benchShape {
	s := benchShape{name: name, schema: benchSchema, rows: rows}
	rng := rand.New(rand.NewPCG(1, uint64(len(name))))
	names := map[string]*plainbuffer.Name{}
	intern := func(n string) *plainbuffer.Name {
		if names[n] == nil {
			p := plainbuffer.NewName([]byte(n))
			names[n] = &p
		}
		return names[n]
	}
	w := plainbuffer.Builder{Buf: plainbuffer.AppendHeader(nil)}
	for i := range rows {
		w.Begin()
		w.KeyBytes(intern("pk1"), plainbuffer.String, fmt.Appendf(nil, "user%08d", i/10*37))
		w.KeyInteger(intern("pk2"), int64(i%10*1000)+rng.Int64N(1000))
		w.Attributes()
		row(&w, rng, i, intern)
		w.End(false)
		if i%perPage == perPage-1 || i == rows-1 {
			s.bytes += len(w.Buf)
			s.pages = append(s.pages, w.Buf)
			w.Buf = plainbuffer.AppendHeader(nil)
		}
	}
	return s
}

func benchShapes() []benchShape {
	ts := func(rng *rand.Rand, i int) int64 { return 1_760_000_000_000 + int64(i)*37 + rng.Int64N(5000) }
	var buf []byte
	return []benchShape{
		makeShape("small", 40000, 10000, func(w *plainbuffer.Builder, rng *rand.Rand, i int, name func(string) *plainbuffer.Name) {
			t := ts(rng, i)
			w.Double(name("amount"), float64(rng.IntN(1000000))/100, t)
			w.Bytes(name("city"), plainbuffer.String, benchWords[rng.IntN(len(benchWords))], t)
			w.Integer(name("created_at"), t*1000+rng.Int64N(1000), t)
			w.Bytes(name("email"), plainbuffer.String, append(words(buf[:0], rng, 12), "@example.com"...), t)
			w.Boolean(name("is_active"), rng.IntN(4) > 0, t)
			w.Integer(name("quantity"), rng.Int64N(100), t)
			w.Bytes(name("status"), plainbuffer.String, benchWords[rng.IntN(6)], t)
			w.Bytes(name("trace_id"), plainbuffer.String, digits(buf[:0], rng, 16), t)
		}),
		makeShape("medium", 6672, 1668, func(w *plainbuffer.Builder, rng *rand.Rand, i int, name func(string) *plainbuffer.Name) {
			t := ts(rng, i)
			for c := range 20 {
				n := name(fmt.Sprintf("attribute_%02d", c))
				switch c % 5 {
				case 0:
					w.Integer(n, rng.Int64N(1<<40), t)
				case 1:
					w.Double(n, rng.Float64(), t)
				case 2:
					w.Bytes(n, plainbuffer.String, words(buf[:0], rng, 200+rng.IntN(100)), t)
				case 3:
					w.Bytes(n, plainbuffer.String, fmt.Appendf(nil, `{"id":%d,"kind":"%s","tags":["%s","%s"],"hash":"%s"}`, rng.IntN(1e6),
						benchWords[rng.IntN(20)], benchWords[rng.IntN(20)], benchWords[rng.IntN(20)], digits(nil, rng, 20)), t)
				default:
					b := make([]byte, 16)
					for k := range b {
						b[k] = byte(rng.Uint32())
					}
					w.Bytes(n, plainbuffer.Blob, b, t)
				}
			}
		}),
		makeShape("wide", 252, 63, func(w *plainbuffer.Builder, rng *rand.Rand, i int, name func(string) *plainbuffer.Name) {
			b := words(nil, rng, 48<<10)
			for range 16 << 10 {
				b = append(b, byte(rng.Uint32()))
			}
			w.Bytes(name("body"), plainbuffer.Blob, b, ts(rng, i))
			w.Bytes(name("name"), plainbuffer.String, words(nil, rng, 20), ts(rng, i))
		}),
		makeShape("multiver", 18672, 4668, func(w *plainbuffer.Builder, rng *rand.Rand, i int, name func(string) *plainbuffer.Name) {
			for c, n := range []string{"balance", "flag", "note", "score"} {
				t := ts(rng, i)
				for range 5 {
					switch c {
					case 0:
						w.Integer(name(n), rng.Int64N(1e6), t)
					case 1:
						w.Boolean(name(n), rng.IntN(2) == 0, t)
					case 2:
						w.Bytes(name(n), plainbuffer.String, words(buf[:0], rng, 10), t)
					default:
						w.Double(name(n), float64(rng.IntN(1000)), t)
					}
					t -= 60000 + rng.Int64N(10000)
				}
			}
		}),
		makeShape("differing", 16000, 4000, func(w *plainbuffer.Builder, rng *rand.Rand, i int, name func(string) *plainbuffer.Name) {
			t := ts(rng, i)
			for c := range 40 {
				if rng.IntN(2) == 0 {
					continue
				}
				n := name(fmt.Sprintf("field_%02d", c))
				switch c % 3 {
				case 0:
					w.Integer(n, rng.Int64N(1e6), t)
				case 1:
					w.Bytes(n, plainbuffer.String, words(buf[:0], rng, 12), t)
				default:
					w.Double(n, float64(rng.IntN(1000))/10, t)
				}
			}
		}),
		makeShape("sparse", 16000, 4000, func(w *plainbuffer.Builder, rng *rand.Rand, i int, name func(string) *plainbuffer.Name) {
			t := ts(rng, i)
			for c := range 200 {
				if rng.IntN(12) != 0 {
					continue
				}
				n := name(fmt.Sprintf("field_%03d", c))
				switch c % 3 {
				case 0:
					w.Integer(n, rng.Int64N(1e6), t)
				case 1:
					w.Bytes(n, plainbuffer.String, words(buf[:0], rng, 12), t)
				default:
					w.Double(n, float64(rng.IntN(1000))/10, t)
				}
			}
		}),
		makeShape("kinds", 16000, 4000, func(w *plainbuffer.Builder, rng *rand.Rand, i int, name func(string) *plainbuffer.Name) {
			t := ts(rng, i)
			kind := rng.IntN(40)
			w.Integer(name("a_common"), rng.Int64N(1e6), t)
			for c := range 10 {
				n := name(fmt.Sprintf("kind%d_%02d", kind, c))
				switch (c + kind) % 3 {
				case 0:
					w.Integer(n, rng.Int64N(1e6), t)
				case 1:
					w.Bytes(n, plainbuffer.String, words(buf[:0], rng, 12), t)
				default:
					w.Double(n, float64(rng.IntN(1000))/10, t)
				}
			}
		}),
		makeShape("strangers", 16000, 4000, func(w *plainbuffer.Builder, rng *rand.Rand, i int, name func(string) *plainbuffer.Name) {
			t := ts(rng, i)
			at := rng.IntN(100)
			for range 20 {
				w.Bytes(name(fmt.Sprintf("event_%06d", at)), plainbuffer.String, words(buf[:0], rng, 12), t)
				at += 1 + rng.IntN(2000)
			}
		}),
	}
}

func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// export is the storage half of an export: walk, check, encode, compress, hash.
func export(e *Encoder, s benchShape, header Header, sum hash.Hash, out io.Writer) (int64, error) {
	w, err := NewWriter(io.MultiWriter(sum, out), header)
	if err != nil {
		return 0, err
	}
	e.Reset(0)
	var row plainbuffer.Row
	sc := plainbuffer.NewScanner(nil)
	flush := func() error {
		b, err := e.Flush()
		if err != nil || b == nil {
			return err
		}
		return w.Append(b)
	}
	for _, p := range s.pages {
		sc.Reset(p)
		for sc.Next(&row) == nil {
			full, err := e.Add(&row)
			if err != nil {
				return 0, err
			}
			if full {
				if err := flush(); err != nil {
					return 0, err
				}
			}
		}
		if err := flush(); err != nil {
			return 0, err
		}
	}
	_, err = w.Finish([]Lane{{From: s.schema.Whole().Start, Next: s.schema.Whole().End, Rows: int64(s.rows)}})
	return w.Bytes(), err
}

func BenchmarkExport(b *testing.B) {
	cli, _ := exec.LookPath("zstd")
	for _, s := range benchShapes() {
		b.Run(s.name, func(b *testing.B) {
			header := Header{Vault: "v", Backup: "b", Table: "t", Segment: "s", Schema: s.schema, Seed: 1}
			e := NewEncoder(Options{Schema: s.schema, Seed: 1})
			z, _ := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
			sum := sha256.New()
			b.SetBytes(int64(s.bytes))
			b.ReportAllocs()
			var ours, fastest, cliTime time.Duration
			var stored, fastestBytes, cliBytes int64
			var dst []byte
			file := filepath.Join(b.TempDir(), "rows")
			if cli != "" {
				f, _ := os.Create(file)
				for _, p := range s.pages {
					f.Write(p)
				}
				f.Close()
			}
			var err error
			for b.Loop() {
				start := cpu()
				if stored, err = export(e, s, header, sum, io.Discard); err != nil {
					b.Fatal(err)
				}
				ours += cpu() - start
				b.StopTimer()
				start = cpu()
				fastestBytes = 0
				for _, p := range s.pages {
					for len(p) > 0 {
						n := min(len(p), 1<<20)
						dst = z.EncodeAll(p[:n], dst[:0])
						fastestBytes += int64(len(dst))
						p = p[n:]
					}
				}
				fastest += cpu() - start
				if cli != "" {
					cmd := exec.Command(cli, "-1", "-T1", "--single-thread", "-q", "-c", file)
					var out bytes.Buffer
					cmd.Stdout = &out
					if err := cmd.Run(); err != nil {
						b.Fatal(err)
					}
					cliBytes = int64(out.Len())
					cliTime += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(stored)/float64(fastestBytes), "stored/fastest")
			b.ReportMetric(float64(ours)/float64(fastest), "cpu/fastest")
			b.ReportMetric(float64(s.bytes)*float64(b.N)/1e6/ours.Seconds(), "MB/cpu_s")
			if cli != "" {
				b.ReportMetric(float64(stored)/float64(cliBytes), "stored/zstd-1")
				b.ReportMetric(float64(ours)/float64(cliTime), "cpu/zstd-1")
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	for _, s := range benchShapes() {
		b.Run(s.name, func(b *testing.B) {
			header := Header{Vault: "v", Backup: "b", Table: "t", Segment: "s", Schema: s.schema, Seed: 1}
			var file bytes.Buffer
			e := NewEncoder(Options{Schema: s.schema, Seed: 1})
			if _, err := export(e, s, header, sha256.New(), &file); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(s.bytes))
			b.ReportAllocs()
			var ours, exported time.Duration
			var rows Rows
			sum := sha256.New()
			for b.Loop() {
				start := cpu()
				r, err := NewReader(io.TeeReader(bytes.NewReader(file.Bytes()), sum))
				if err != nil {
					b.Fatal(err)
				}
				for err = r.Next(&rows); err == nil; err = r.Next(&rows) {
				}
				if err != io.EOF {
					b.Fatal(err)
				}
				ours += cpu() - start
				b.StopTimer()
				start = cpu()
				if _, err := export(e, s, header, sum, io.Discard); err != nil {
					b.Fatal(err)
				}
				exported += cpu() - start
				b.StartTimer()
			}
			b.ReportMetric(float64(s.bytes)*float64(b.N)/1e6/ours.Seconds(), "MB/cpu_s")
			b.ReportMetric(float64(exported)/float64(ours), "export/verify")
		})
	}
}
