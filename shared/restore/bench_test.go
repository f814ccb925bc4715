package restore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
	"github.com/tablevault/tablevault/shared/verify"
)

// sink takes batches and keeps nothing, so that what is measured is the import.
type sink struct {
	table.Instance
}

// sinkRows is how many rows a batch of a sink takes.
const sinkRows = 200

type sinkBatch struct {
	n, size int
}

func (s *sink) NewBatch() table.Batch { return new(sinkBatch) }

func (b *sinkBatch) Add(row []byte, _ table.WriteOp) bool {
	if b.n == sinkRows || b.size+len(row) > 4<<20 {
		return false
	}
	b.n, b.size = b.n+1, b.size+len(row)
	return true
}
func (b *sinkBatch) Len() int { return b.n }
func (b *sinkBatch) Reset()   { *b = sinkBatch{} }

func (s *sink) Write(context.Context, string, table.Batch) (table.WriteResult, error) {
	return table.WriteResult{}, nil
}

// weighing is a sink that weighs, at every tenth batch, what is alive of the heap.
type weighing struct {
	sink
	mu      sync.Mutex
	batches int
	most    int64
}

func (s *weighing) Write(context.Context, string, table.Batch) (table.WriteResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.batches++; s.batches%10 == 0 {
		s.most = max(s.most, liveHeap())
	}
	return table.WriteResult{}, nil
}

// liveHeap is the size of what a collection leaves of the heap, in bytes.
func liveHeap() int64 {
	runtime.GC()
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	return int64(now.HeapAlloc)
}

// medium fills the source with rows of about 600 bytes: two key columns, ten attributes.
func medium(w *vaulttest.World, rows int) {
	def := vaulttest.Definition()
	def.Schema = table.Schema{{Name: "user", Type: table.StringKey}, {Name: "id", Type: table.IntegerKey}}
	w.Tables.Make(def)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range rows {
		r := tabletest.Row{Key: table.Key{table.String(fmt.Sprintf("user%06d", i/10)), table.Integer(int64(i))}}
		for c := range 10 {
			at := vaulttest.Day.UnixMilli() - random.Int64N(1<<30)
			if c%2 == 0 {
				r.Cells = append(r.Cells, tabletest.Cell(fmt.Sprintf("column%d", c), at, random.Int64N(1<<40)))
			} else {
				r.Cells = append(r.Cells, tabletest.Cell(fmt.Sprintf("column%d", c), at, strings.Repeat(fmt.Sprint(random.Int64N(1e9)), 6)))
			}
		}
		w.Tables.Put(def.Name, r)
	}
}

// BenchmarkImport is the work of an import function but for the network: read, check,
// decode, batch.
func BenchmarkImport(b *testing.B) {
	w := vaulttest.NewWorld(b)
	medium(w, 100_000)
	m := w.Backup(vault.Settings{})
	b.SetBytes(m.Totals.RawBytes)
	b.ReportAllocs()
	plan := w.Begin(m)
	for n := 0; b.Loop(); n++ {
		l := w.Loader()
		l.Tables = &sink{Instance: w.Tables}
		// Each run is of a restore of its own.
		b.StopTimer()
		if n > 0 {
			req := w.Request(m)
			req.Target.Table = fmt.Sprintf("copy%d", n)
			var err error
			if plan, err = w.Restorer().Begin(b.Context(), w.Run(), req); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		for _, s := range plan.Segments {
			if _, err := l.Load(b.Context(), w.Run(), fanout.Work{Restore: plan.Restore, Segment: s.ID}); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkVerify verifies a backup without a table to compare with.
func BenchmarkVerify(b *testing.B) {
	w := vaulttest.NewWorld(b)
	medium(w, 100_000)
	m := w.Backup(vault.Settings{})
	for _, depth := range []string{verify.DepthObjects, verify.DepthRead} {
		b.Run(depth, func(b *testing.B) {
			b.SetBytes(m.Totals.RawBytes)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := w.Verifier().Verify(b.Context(), verify.Request{Backup: vault.Backup{Table: m.Table, ID: m.Backup}, Depth: depth}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestImportMemory loads a table that is many times as large as what may be in flight,
// and weighs the heap meanwhile.
func TestImportMemory(t *testing.T) {
	const rows, memory = 60_000, 4 << 20
	w := vaulttest.NewWorld(t)
	medium(w, rows)
	m := w.Backup(vault.Settings{})
	if m.Totals.RawBytes < 8*memory {
		t.Fatalf("the table has %d bytes only", m.Totals.RawBytes)
	}
	plan := w.Begin(m)
	w.Tables.Drop(vaulttest.SourceID.Table)
	before := liveHeap()
	l, tables := w.Loader(), &weighing{sink: sink{Instance: w.Tables}}
	l.Tables, l.Memory = tables, memory
	for _, s := range plan.Segments {
		if _, err := l.Load(t.Context(), w.Run(), fanout.Work{Restore: plan.Restore, Segment: s.ID}); err != nil {
			t.Fatal(err)
		}
	}
	if tables.batches < rows/sinkRows {
		t.Fatalf("%d rows went in %d batches", rows, tables.batches)
	}
	// Beside the rows in flight there are the buffers that are kept for them, and those
	// of the decoder.
	grew := tables.most - before
	t.Logf("the heap grows by %d KiB", grew>>10)
	if grew > 4*memory {
		t.Errorf("the heap grows by %d bytes, of which %d may be in flight", grew, memory)
	}
}
