package restore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
	"github.com/tablevault/tablevault/shared/verify"
)

// sink takes batches and keeps nothing, so that what is measured is the
// import.
type sink struct {
	table.Instance
}

type sinkBatch struct {
	n, size int
}

func (s *sink) NewBatch() table.Batch { return new(sinkBatch) }

func (b *sinkBatch) Add(row []byte, _ table.WriteOp) bool {
	if b.n == 200 || b.size+len(row) > 4<<20 {
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

// medium fills the source with rows of about 600 bytes: two key columns, ten
// attributes.
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

// BenchmarkImport is the work of an import function but for the network: read,
// check, decode, batch.
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

// TestImportMemory imports tables of two sizes and compares the heaps' peaks above what the vault itself takes.
func TestImportMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("it samples the heap for seconds")
	}
	peak := func(rows int) int64 {
		w := vaulttest.NewWorld(t)
		medium(w, rows)
		m := w.Backup(vault.Settings{})
		plan := w.Begin(m)
		w.Tables.Drop(vaulttest.SourceID.Table)
		runtime.GC()
		var before runtime.MemStats
		runtime.ReadMemStats(&before)
		most := uint64(0)
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				var now runtime.MemStats
				runtime.ReadMemStats(&now)
				most = max(most, now.HeapAlloc)
			}
		}()
		l := w.Loader()
		l.Tables = &sink{Instance: w.Tables}
		for _, s := range plan.Segments {
			if _, err := l.Load(t.Context(), w.Run(), fanout.Work{Restore: plan.Restore, Segment: s.ID}); err != nil {
				t.Fatal(err)
			}
		}
		close(stop)
		<-done
		return int64(most) - int64(before.HeapAlloc)
	}
	small, large := peak(10_000), peak(60_000)
	t.Logf("the heap grows by %d KiB for 10,000 rows, by %d KiB for 60,000", small>>10, large>>10)
	if large > 64<<20 || large > 2*small+(16<<20) {
		t.Errorf("the heap grows by %d bytes for 10,000 rows, by %d for 60,000", small, large)
	}
}
