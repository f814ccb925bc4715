package compare_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tablevault/tablevault/shared/compare"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/sealed"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/throttle"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// scans is an instance whose scans a test makes otherwise.
type scans struct {
	*tabletest.Tables
	scan func(n int, r table.Range, s table.Scan) table.Scan
	n    atomic.Int64
}

func (s *scans) Scan(name string, schema table.Schema, r table.Range) table.Scan {
	return s.scan(int(s.n.Add(1)), r, s.Tables.Scan(name, schema, r))
}

// before is a scan before each page of which something is done.
type before struct {
	table.Scan
	do func(ctx context.Context) error
}

func (b before) Next(ctx context.Context, buf []byte) (table.Page, error) {
	if err := b.do(ctx); err != nil {
		return table.Page{}, err
	}
	return b.Scan.Next(ctx, buf)
}

// compared compares the only segment of a backup of the source with it.
func compared(ctx context.Context, t *testing.T, w *vaulttest.World, m *vault.Manifest, in table.Instance) (compare.Found, error) {
	t.Helper()
	_, manifest, err := w.Repo.Manifest(t.Context(), vaulttest.BackupOf(m))
	if err != nil {
		t.Fatal(err)
	}
	segments := sealed.Segments{Repo: w.Repo, ID: vaulttest.BackupOf(m), Manifest: manifest}
	segment, err := segments.Of(t.Context(), "000000")
	if err != nil {
		t.Fatal(err)
	}
	def, err := w.Tables.Describe(t.Context(), vaulttest.SourceID.Table)
	if err != nil {
		t.Fatal(err)
	}
	c, err := compare.New(segment.Backup.Plan.Definition.Schema, in, def, 0, throttle.ForReads(0))
	if err != nil {
		t.Fatal(err)
	}
	count := func(found *vault.Check, d vault.Difference) { found.Differ(d, false) }
	return c.Segment(ctx, &compare.Comparison{Segment: segment, Sink: count}, new(vault.Check))
}

// TestPagesThatDoNotComeInTime keeps what was compared when time is up in the middle of a
// page; what is wrong beside that, and a comparison that has come to the end of no lane,
// is an error.
func TestPagesThatDoNotComeInTime(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 400)
	m := w.Backup(vault.Settings{Lanes: 2}) // as many as may be asked for before there is an answer
	never := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	slowly := func(context.Context) error { time.Sleep(200 * time.Millisecond); return nil } // the shards are read by then
	refused := errors.New("refused")
	for _, c := range []struct {
		name        string
		first, rest func(ctx context.Context) error
		lanes       []int
		err         error
	}{
		{"all but the first lane", slowly, never, []int{0}, nil},
		{"all lanes", never, never, nil, context.DeadlineExceeded},
		{"a lane that is refused", slowly, func(context.Context) error { time.Sleep(500 * time.Millisecond); return refused }, nil, refused},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			found, err := compared(ctx, t, w, m, &scans{Tables: w.Tables, scan: func(_ int, r table.Range, s table.Scan) table.Scan {
				if r.Start.Equal(vaulttest.Definition().Schema.Whole().Start) {
					return before{s, c.first}
				}
				return before{s, c.rest}
			}})
			if !errors.Is(err, c.err) || !slices.Equal(found.Lanes, c.lanes) || found.Cut != (c.err == nil) {
				t.Errorf("%s: %+v, %v; want lanes %v, %v", c.name, found, err, c.lanes, c.err)
			}
		})
	}
}

// TestTableReadOnceMore compares with a table that has a row too many when it is summed
// up and none when it is read row by row: it counts as it was then. Where cells expire,
// sums leave some out, and the count is that of the sums.
func TestTableReadOnceMore(t *testing.T) {
	for _, ttl := range []int32{table.NoTTL, 365 * 86400} {
		w := vaulttest.NewWorld(t)
		def := vaulttest.Definition()
		def.Options.TTL = ttl
		w.Tables.Make(def)
		row := func(i int64) tabletest.Row {
			return tabletest.Row{Key: table.Key{table.String("u"), table.Binary(nil), table.Integer(i)}, Cells: []plainbuffer.Cell{tabletest.Cell("c", vaulttest.Day.UnixMilli(), i)}}
		}
		for i := range int64(50) {
			w.Tables.Put(def.Name, row(i))
		}
		m := w.Backup(vault.Settings{Lanes: 1})
		extra := row(99)
		w.Tables.Put(def.Name, extra)
		sums := 1
		if ttl != table.NoTTL {
			sums = 2 // the first page is read for its date
		}
		found, err := compared(t.Context(), t, w, m, &scans{Tables: w.Tables, scan: func(n int, _ table.Range, s table.Scan) table.Scan {
			if n == sums+1 {
				w.Tables.Delete(def.Name, extra.Key)
			}
			return s
		}})
		got := found.Check
		if err != nil || got.Extra+got.Missing+got.Changed != 0 || got.Rows != 50 {
			t.Fatalf("with a TTL of %d: %+v, %v", ttl, got, err)
		}
		if asRead := got.Target == 50 && got.TargetDigest == got.Digest; asRead != (ttl == table.NoTTL) {
			t.Errorf("with a TTL of %d, the table has %d rows, and the digest %s; the backup has %d, %s", ttl, got.Target, got.TargetDigest, got.Rows, got.Digest)
		}
	}
}
