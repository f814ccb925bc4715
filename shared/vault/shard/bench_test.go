package shard

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	zstdlib "github.com/klauspost/compress/zstd"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/plainbuffer/plainbuffertest"
	"github.com/tablevault/tablevault/shared/sidebyside"
	"github.com/tablevault/tablevault/shared/table"
)

// benchTable is some pages of a table, as they come from the service.
type benchTable struct {
	pages [][]byte
	rows  int
	bytes int
}

var benchHeader = Header{
	Vault: "v", Backup: "b", Table: "t", Segment: "s", Seed: 1,
	Schema: table.Schema{{Name: "pk1", Type: table.StringKey}, {Name: "pk2", Type: table.IntegerKey}},
}

// forShapes runs a benchmark on four pages of each shape.
func forShapes(b *testing.B, do func(b *testing.B, t benchTable)) {
	for _, shape := range plainbuffertest.Shapes() {
		b.Run(shape.Name, func(b *testing.B) {
			t := benchTable{pages: shape.Pages(4), rows: 4 * shape.PerPage}
			for _, p := range t.pages {
				t.bytes += len(p)
			}
			do(b, t)
		})
	}
}

// store is the storage half of an export: walk, check, encode, compress, hash. It returns
// the size of what is stored.
func (t benchTable) store(e *Encoder, out io.Writer) (int64, error) {
	w, err := NewWriter(io.MultiWriter(sha256.New(), out), benchHeader)
	if err != nil {
		return 0, err
	}
	err = t.encode(e, func(b *Block) error { return w.Append(b) })
	if err != nil {
		return 0, err
	}
	whole := benchHeader.Schema.Whole()
	_, err = w.Finish([]Lane{{From: whole.Start, Next: whole.End, Rows: int64(t.rows)}})
	return w.Bytes(), err
}

// encode walks, checks, encodes and compresses.
func (t benchTable) encode(e *Encoder, block func(*Block) error) error {
	e.Reset(0)
	var row plainbuffer.Row
	s := plainbuffer.NewScanner(nil)
	flush := func() error {
		b, err := e.Flush()
		if err != nil || b == nil {
			return err
		}
		return block(b)
	}
	for _, p := range t.pages {
		s.Reset(p)
		for {
			err := s.Next(&row)
			full := err == io.EOF
			if err == nil {
				full, err = e.Add(&row)
			}
			if err != nil && err != io.EOF {
				return err
			}
			if full {
				if err := flush(); err != nil {
					return err
				}
			}
			if err == io.EOF {
				break
			}
		}
	}
	return nil
}

// shard is the table as a shard.
func (t benchTable) shard(b *testing.B) []byte {
	b.Helper()
	var file bytes.Buffer
	if _, err := t.store(NewEncoder(Options{Schema: benchHeader.Schema, Seed: benchHeader.Seed}), &file); err != nil {
		b.Fatal(err)
	}
	return file.Bytes()
}

// verify reads a shard as a deep verification does: hash, decompress, put every row
// together, check every checksum and digest.
func (t benchTable) verify(file []byte, rows *Rows) error {
	r, err := NewReader(io.TeeReader(bytes.NewReader(file), sha256.New()))
	if err != nil {
		return err
	}
	for err = r.Next(rows); err == nil; err = r.Next(rows) {
	}
	if err != io.EOF {
		return err
	}
	if n := r.Summary().Rows; n != int64(t.rows) {
		return fmt.Errorf("%d rows of %d", n, t.rows)
	}
	return nil
}

// BenchmarkEncoder walks pages and makes compressed blocks of them.
func BenchmarkEncoder(b *testing.B) {
	forShapes(b, func(b *testing.B, t benchTable) {
		b.SetBytes(int64(t.bytes))
		e := NewEncoder(Options{Schema: benchHeader.Schema, Seed: benchHeader.Seed})
		encode := func() {
			if err := t.encode(e, func(*Block) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
		for b.Loop() {
			encode()
		}
		b.ReportMetric(testing.AllocsPerRun(1, encode)/float64(t.rows), "allocs/row")
	})
}

// BenchmarkReader reads a shard and checks all there is to check.
func BenchmarkReader(b *testing.B) {
	forShapes(b, func(b *testing.B, t benchTable) {
		b.SetBytes(int64(t.bytes))
		file := t.shard(b)
		var rows Rows
		verify := func() {
			if err := t.verify(file, &rows); err != nil {
				b.Fatal(err)
			}
		}
		for b.Loop() {
			verify()
		}
		b.ReportMetric(testing.AllocsPerRun(1, verify)/float64(t.rows), "allocs/row")
	})
}

// BenchmarkStorageBesideZstd holds the storage half of an export against the command zstd
// -1 on the same rows, in time and in what is left of them, and deep verification against
// the storage half. The compressor that shards are written with, on the same rows alone,
// tells what of it is the library's. Where the command is not installed, its ratios are
// left out, and the log says so.
//
//	go test -run '^$' -bench BesideZstd -benchtime 1x -cpu 1 ./shared/vault/shard
func BenchmarkStorageBesideZstd(b *testing.B) {
	zstd, missing := exec.LookPath("zstd")
	forShapes(b, func(b *testing.B, t benchTable) {
		file := t.shard(b)
		e := NewEncoder(Options{Schema: benchHeader.Schema, Seed: benchHeader.Seed})
		var rows Rows
		store := func() error {
			_, err := t.store(e, io.Discard)
			return err
		}
		verify := func() error { return t.verify(file, &rows) }
		works := []sidebyside.Work{sidebyside.Here("store", store), sidebyside.Here("verify", verify)}
		path := filepath.Join(b.TempDir(), "rows")
		if missing == nil {
			if err := os.WriteFile(path, bytes.Join(t.pages, nil), 0o600); err != nil {
				b.Fatal(err)
			}
			z, out := newCompressor(zstdlib.SpeedFastest), []byte(nil)
			works = append(works, sidebyside.Command("zstd-1", zstd, "-1", "--single-thread", "-q", "-c", path),
				sidebyside.Here("zstd-go", func() error {
					for _, p := range t.pages {
						for c := range slices.Chunk(p, BlockBytes) {
							out = z.EncodeAll(c, out[:0])
						}
					}
					return nil
				}))
		}
		times := sidebyside.Measure(b, 9, works...)
		times.Report(b, "verify", "store")
		if missing == nil {
			times.Report(b, "store", "zstd-1")
			times.Report(b, "zstd-go", "zstd-1")
			compressed, err := exec.Command(zstd, "-1", "-q", "-c", path).Output()
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(len(file))/float64(len(compressed)), "bytes/zstd-1")
		} else {
			b.Logf("the ratios to zstd -1 are left out: %v", missing)
		}
		b.ReportMetric(float64(t.bytes)/float64(len(file)), "raw/stored")
		for name, do := range map[string]func() error{"store": store, "verify": verify} {
			b.ReportMetric(testing.AllocsPerRun(1, func() {
				if err := do(); err != nil {
					b.Fatal(err)
				}
			})/float64(t.rows), name+"-allocs/row")
		}
	})
}
