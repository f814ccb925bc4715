package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vault/shard"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// stored are the objects of a backup below a folder of its name.
func stored(w *vaulttest.World, b vault.Backup, folder string) (names []string) {
	w.T.Helper()
	for info, err := range w.Store.List(w.T.Context(), strings.TrimSuffix(b.Plan(), "plan.json")+folder, "") {
		if err != nil {
			w.T.Fatal(err)
		}
		names = append(names, info.Name)
	}
	return names
}

// TestWhatDoesNotReadBackIsNotStored: a block that is not what was walked fails the part
// for good, by name, and nothing of the part is kept, whatever came before it.
func TestWhatDoesNotReadBackIsNotStored(t *testing.T) {
	broken := fmt.Errorf("rows: %w: a bit", shard.ErrReadBack)
	for name, flush := range map[string]func(n int, e *shard.Encoder) (*shard.Block, error){
		"a block that does not read back": func(n int, e *shard.Encoder) (*shard.Block, error) {
			if n == 2 {
				return nil, broken
			}
			return e.Flush()
		},
		"a block that is lost": func(n int, e *shard.Encoder) (*shard.Block, error) {
			b, err := e.Flush()
			if n == 2 {
				return nil, err
			}
			return b, err
		},
		"a block of fewer rows": func(n int, e *shard.Encoder) (*shard.Block, error) {
			b, err := e.Flush()
			if n == 2 && err == nil {
				fewer := *b
				fewer.Rows--
				b = &fewer
			}
			return b, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := vaulttest.NewWorld(t)
			w.Keyed(vaulttest.IntKey, vaulttest.Ints(1000))
			p := w.Planner()
			b := w.Plan(p, vault.Settings{Lanes: 1})
			vaulttest.TickBackup(w, p, b)
			work, _ := w.Take()
			e := w.Exporter()
			e.Memory = 1 // pages as small as they may be
			e.Tables = smallPages{w.Tables, 4 << 10}
			blocks := 0
			e.FlushBy(func(encoder *shard.Encoder) (*shard.Block, error) {
				block, err := flush(blocks, encoder)
				if block != nil || err != nil || blocks == 2 {
					blocks++
				}
				return block, err
			})
			_, err := e.Export(t.Context(), w.Run(), work)
			if !errors.Is(err, shard.ErrReadBack) || blocks != 3 {
				t.Fatalf("after %d blocks: %v", blocks, err)
			}
			for _, part := range []string{"segment " + string(work.Segment), "block 2", work.Table.String()} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not name the %s", err, part)
				}
			}
			if names := append(stored(w, b, "shards/"), stored(w, b, "slots/")...); len(names) > 0 {
				t.Errorf("%q are kept", names)
			}
			var note vault.Note
			if _, err := w.Repo.Read(t.Context(), b.Log().Failure(work.Segment, work.Start), &note); err != nil || !note.Permanent {
				t.Errorf("the note says %+v, %v", note, err)
			}
		})
	}
}

// smallPages is an instance whose pages have little room.
type smallPages struct {
	table.Instance
	size int
}

func (s smallPages) Scan(name string, schema table.Schema, r table.Range) table.Scan {
	return smallScan{s.Instance.Scan(name, schema, r), s.size}
}

type smallScan struct {
	table.Scan
	size int
}

func (s smallScan) Next(ctx context.Context, buf []byte) (table.Page, error) {
	return s.Scan.Next(ctx, buf[:0:min(s.size, cap(buf))])
}

// astray is an instance that sends other rows than those that were asked for.
type astray struct {
	table.Instance
	scan func(schema table.Schema, r table.Range) func() (table.Page, error)
}

func (a astray) Scan(_ string, schema table.Schema, r table.Range) table.Scan {
	return astrayScan(a.scan(schema, r))
}

type astrayScan func() (table.Page, error)

func (s astrayScan) Aim(int)                                          {}
func (s astrayScan) Next(context.Context, []byte) (table.Page, error) { return s() }

// TestRowsOutOfTheRangeAreRefused: neither a row before the range nor one at its end or
// beyond, nor pieces that are not of one row, are taken for its rows.
func TestRowsOutOfTheRangeAreRefused(t *testing.T) {
	key := func(k int) table.Key { return table.Key{table.Integer(int64(k))} }
	page := func(keys ...int) []byte {
		block := plainbuffer.AppendHeader(nil)
		for _, k := range keys {
			block = append(block, tabletest.Encode(vaulttest.IntKey, tabletest.Row{Key: key(k), Cells: []plainbuffer.Cell{tabletest.Cell("c", 1, k)}})...)
		}
		return block
	}
	whole := func(next table.Key, keys ...int) table.Page {
		return table.Page{Block: page(keys...), Next: next, ServerTime: vaulttest.Day}
	}
	piece := func(next table.Key, first, last bool, keys ...int) table.Page {
		return table.Page{Block: page(keys...), Next: next, Piece: true, First: first, Last: last, ServerTime: vaulttest.Day}
	}
	end := func(next table.Key, k int) table.Page {
		block := append(plainbuffer.AppendHeader(nil), tabletest.Encode(vaulttest.IntKey, tabletest.Row{Key: key(k)})...)
		return table.Page{Block: block, Next: next, Piece: true, Last: true, ServerTime: vaulttest.Day}
	}
	// The segment goes from 10 to 20.
	for name, test := range map[string]struct {
		pages []table.Page
		want  string
	}{
		"a row at the end":                {[]table.Page{whole(nil, 12, 20)}, "holds the row (20)"},
		"a row beyond the end":            {[]table.Page{whole(nil, 12, 25)}, "holds the row (25)"},
		"a row where the page ends":       {[]table.Page{whole(key(15), 12, 15)}, "holds the row (15)"},
		"a row beyond the page":           {[]table.Page{whole(key(15), 12, 16)}, "holds the row (16)"},
		"a row before the range":          {[]table.Page{whole(nil, 9, 12)}, "begins with the row (9)"},
		"a row before the page":           {[]table.Page{whole(key(15), 12), whole(nil, 14)}, "begins with the row (14)"},
		"a page that goes back":           {[]table.Page{whole(key(15), 12), whole(key(15))}, "the service says that (15) is next"},
		"a page beyond the end":           {[]table.Page{whole(key(25), 12)}, "the service says that (25) is next"},
		"rows that are not in order":      {[]table.Page{whole(nil, 14, 12)}, "not in order"},
		"a wide row at the end":           {[]table.Page{piece(key(20), true, false, 20), piece(nil, false, true, 20)}, "(20)"},
		"a wide row that does not go on":  {[]table.Page{piece(key(12), true, false, 12), end(key(12), 12)}, "holds the row (12)"},
		"a piece that goes on elsewhere":  {[]table.Page{piece(key(13), true, false, 12)}, "goes on at (13)"},
		"two pieces at a time":            {[]table.Page{piece(nil, true, true, 12, 13)}, "2 pieces of a row"},
		"pieces of two rows":              {[]table.Page{piece(key(12), true, false, 12), piece(key(14), false, true, 13)}, "not in order"},
		"a wide row that has no next":     {[]table.Page{piece(key(12), true, false, 12), whole(nil, 15)}, "among the pieces of another"},
		"the middle of a row":             {[]table.Page{piece(key(15), false, true, 12)}, "out of place"},
		"a scan that ends without saying": {[]table.Page{whole(key(15), 12)}, "without saying"},
	} {
		t.Run(name, func(t *testing.T) {
			w := vaulttest.NewWorld(t)
			w.Quiet = true
			w.Keyed(vaulttest.IntKey, vaulttest.Ints(30))
			p := w.Planner()
			b := w.Plan(p, vault.Settings{Lanes: 1}, key(10), key(20))
			vaulttest.TickBackup(w, p, b)
			for {
				work, ok := w.Take()
				if !ok {
					t.Fatal("nobody works on the second segment")
				}
				if work.Segment != "000001" {
					continue
				}
				e := w.Exporter()
				e.Tables = astray{w.Tables, func(table.Schema, table.Range) func() (table.Page, error) {
					n := 0
					return func() (table.Page, error) {
						if n == len(test.pages) {
							return table.Page{}, io.EOF
						}
						n++
						return test.pages[n-1], nil
					}
				}}
				_, err := e.Export(t.Context(), w.Run(), work)
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("error %v, want %q", err, test.want)
				}
				break
			}
			// What was read before a page that did not come is kept, of a page that is
			// wrong nothing.
			kept := len(stored(w, b, "slots/000001/"))
			if late := strings.Contains(test.want, "says") || strings.Contains(test.want, "saying"); kept > 1 || kept == 1 && !late {
				t.Errorf("%d slots are kept", kept)
			}
		})
	}
}

// TestCutThatCannotBeFound: where a segment is to be split and the looks for a place
// fail, or take too long, it is read without. Where the invocation ends meanwhile, that
// is what it says.
func TestCutThatCannotBeFound(t *testing.T) {
	for name, test := range map[string]struct {
		look func(ctx context.Context, end func()) error
		log  string
		err  string
	}{
		"refused": {
			look: func(context.Context, func()) error { return fmt.Errorf("look: %w", table.ErrInvalid) },
			log:  "where to split can't be found",
		},
		"too slow": {
			look: func(ctx context.Context, _ func()) error { <-ctx.Done(); return ctx.Err() },
			log:  "there is no time to split",
		},
		"the end of the invocation": {
			look: func(ctx context.Context, end func()) error { end(); return ctx.Err() },
			err:  "split: ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := vaulttest.NewWorld(t)
			rows := w.Keyed(vaulttest.IntKey, vaulttest.Ints(1500))
			p := w.Planner()
			settings := vault.Settings{Lanes: 1, PartBytes: 1}
			w.Instance = smallPages{w.Tables, 4 << 10}
			b, next := lagging(w, p, settings)
			asked := 0
			ctx, end := context.WithCancel(t.Context())
			defer end()
			w.Instance = looking{w.Instance, func(ctx context.Context) error {
				if asked++; asked == 2 { // the first is the part's own
					return test.look(ctx, end)
				}
				return nil
			}}
			run := w.Run()
			if name == "too slow" {
				run.Until = run.Now().Add(1500 * time.Millisecond)
				run.Stop = run.Until.Add(-500 * time.Millisecond)
			}
			var log bytes.Buffer
			e := w.Exporter()
			e.Log = slog.New(slog.NewTextHandler(&log, nil))
			if _, err := e.Export(ctx, run, next); test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Fatalf("%v, want %q", err, test.err)
			}
			if got := log.String(); !strings.Contains(got, test.log) || test.log == "" && got != "" {
				t.Errorf("the log says %q, want %q", got, test.log)
			}
			if test.err != "" {
				return
			}
			w.Instance = nil
			m := w.Sealed(p, b)
			if m.Totals.Rows != int64(rows) || len(rowsBySegment(w, m)) != 1 || asked < 2 {
				t.Errorf("%d rows in %d segments after %d looks", m.Totals.Rows, len(rowsBySegment(w, m)), asked)
			}
		})
	}
}

// looking is an instance that looks before each scan begins, which it may refuse.
type looking struct {
	table.Instance
	look func(ctx context.Context) error
}

func (l looking) Scan(name string, schema table.Schema, of table.Range) table.Scan {
	return &lookingScan{l.Instance.Scan(name, schema, of), l.look}
}

type lookingScan struct {
	table.Scan
	look func(ctx context.Context) error // nil when it has
}

func (s *lookingScan) Next(ctx context.Context, buf []byte) (table.Page, error) {
	if look := s.look; look != nil {
		s.look = nil
		if err := look(ctx); err != nil {
			return table.Page{}, err
		}
	}
	return s.Scan.Next(ctx, buf)
}

// TestPartsEndBeforeTheirIndexIsFull: rows that compress very well, with long keys, make
// an index grow faster than the shard. Parts end for it, whatever they may hold.
func TestPartsEndBeforeTheirIndexIsFull(t *testing.T) {
	w := vaulttest.NewWorld(t)
	schema := table.Schema{{Name: "a", Type: table.StringKey}, {Name: "b", Type: table.StringKey}, {Name: "c", Type: table.StringKey}, {Name: "d", Type: table.IntegerKey}}
	long := table.String(strings.Repeat("k", table.MaxKeyBytes))
	const rows = 2000
	w.Keyed(schema, func(put func(table.Key)) {
		for i := range rows {
			put(table.Key{long, long, long, table.Integer(int64(i))})
		}
	})
	w.Instance = smallPages{w.Tables, 4 << 10} // a page has one row, and so has a block
	m := w.Backup(vault.Settings{Lanes: 1, PartBytes: 1 << 40})
	if m.Totals.Rows != rows || m.Totals.Parts != 2 {
		t.Errorf("%d rows in %d parts", m.Totals.Rows, m.Totals.Parts)
	}
}
