package vaulttest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vault/shard"
)

// Small are settings by which a few hundred rows make several segments, each of several
// lanes and parts.
var Small = vault.Settings{SegmentBytes: 1 << 20, Lanes: 3, PartBytes: 40 << 10}

// Definition is the source's: a key of three columns, and five versions.
func Definition() table.Definition {
	return table.Definition{
		Name: SourceID.Table,
		Schema: table.Schema{
			{Name: "user", Type: table.StringKey}, {Name: "blob", Type: table.BinaryKey}, {Name: "id", Type: table.IntegerKey},
		},
		Options: table.Options{TTL: table.NoTTL, MaxVersions: 5, Deviation: 86400, AllowUpdate: true},
	}
}

// Fill makes the source: n rows of every type of value, some with several versions, some
// without cells, a wide one, and keys at every extreme.
func (w *World) Fill(def table.Definition, n int) {
	w.T.Helper()
	w.Tables.Make(def)
	seed := rand.Uint64()
	w.T.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	text := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = 'a' + byte(random.IntN(26))
		}
		return string(b)
	}
	// Timestamps from 1970 to a year ahead: only a table that is wide open
	// takes them.
	stamp := func() int64 {
		return []int64{0, 1, Day.UnixMilli(), Day.UnixMilli() - random.Int64N(1<<40), Day.AddDate(1, 0, 0).UnixMilli()}[random.IntN(5)]
	}
	for i := range n {
		r := tabletest.Row{Key: table.Key{table.String(fmt.Sprintf("u%06d", i)), table.Binary([]byte{byte(i), 0xff}), table.Integer(int64(i) - 50)}}
		if i%17 != 0 {
			r.Cells = append(r.Cells,
				tabletest.Cell("count", stamp(), int64(i)), tabletest.Cell("price", stamp(), random.Float64()),
				tabletest.Cell("paid", stamp(), i%2 == 0), tabletest.Cell("name", stamp(), text(random.IntN(200))),
				tabletest.Cell("raw", stamp(), []byte(text(random.IntN(100)))))
		}
		if i%5 == 0 {
			for v := range random.IntN(5) {
				r.Cells = append(r.Cells, tabletest.Cell("state", int64(v), text(5)))
			}
		}
		if i%7 == 0 {
			r.Cells = append(r.Cells, tabletest.Cell("only"+text(8), stamp(), ""), tabletest.Cell("公司 \n.", stamp(), "x"))
		}
		w.Tables.Put(def.Name, r)
	}
	longest := strings.Repeat("\xf4\x8f\xbf\xbf", 256)
	for _, k := range []table.Key{
		{table.String(""), table.Binary([]byte{}), table.Integer(math.MinInt64)},
		{table.String("\x00"), table.Binary([]byte{0}), table.Integer(0)},
		{table.String(longest), table.Binary(bytes.Repeat([]byte{0xff}, 1024)), table.Integer(math.MaxInt64)},
	} {
		w.Tables.Put(def.Name, tabletest.Row{Key: k})
	}
	for _, k := range []table.Key{
		{table.String(""), table.Binary([]byte{}), table.Integer(math.MinInt64 + 1)},
		{table.String(longest), table.Binary(bytes.Repeat([]byte{0xff}, 1024)), table.Integer(math.MaxInt64 - 1)},
	} {
		w.Tables.Put(def.Name, tabletest.Row{Key: k, Cells: []plainbuffer.Cell{tabletest.Cell("a", 5, "b")}})
	}
}

// WideRow has more cells, and more bytes, than a request takes.
func WideRow() tabletest.Row {
	r := tabletest.Row{Key: table.Key{table.String("wide"), table.Binary(nil), table.Integer(0)}}
	for c := range 1200 {
		r.Cells = append(r.Cells, tabletest.Cell(fmt.Sprintf("column%04d", c), 7, strings.Repeat("w", 3600)))
	}
	return r
}

type IterKeys func(put func(table.Key))

// Keyed makes a table whose rows have the given keys, one short cell each.
func (w *World) Keyed(schema table.Schema, keys IterKeys) int {
	w.T.Helper()
	def := Definition()
	def.Schema = schema
	w.Tables.Make(def)
	n := 0
	keys(func(k table.Key) {
		w.Tables.Put(def.Name, tabletest.Row{Key: k, Cells: []plainbuffer.Cell{tabletest.Cell("c", 1, n)}})
		n++
	})
	return n
}

// Ints makes a table of so many integers.
func Ints(n int) IterKeys {
	return func(put func(table.Key)) {
		for i := range n {
			put(table.Key{table.Integer(int64(i))})
		}
	}
}

var IntKey = table.Schema{{Name: "k", Type: table.IntegerKey}}

// Cuts are n-1 keys that cut the keys below rows evenly.
func Cuts(rows, n int) (points []table.Key) {
	for i := 1; i < n; i++ {
		points = append(points, table.Key{table.Integer(int64(i * rows / n))})
	}
	return points
}

// Contents reads a sealed backup back, as the rows of the model.
func Contents(t testing.TB, repo *repository.Repository, m *vault.Manifest) map[string]string {
	t.Helper()
	rows := map[string]string{}
	for g, err := range repo.Groups(t.Context(), m) {
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range g.Segments {
			for _, slot := range s.Slots {
				if slot.Part == nil {
					continue
				}
				f, _, err := repo.Store().Open(t.Context(), slot.Part.Shard.Name, 0, -1)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				r, err := shard.NewReader(f)
				if err != nil {
					t.Fatal(err)
				}
				var block shard.Rows
				for {
					err := r.Next(&block)
					if err == io.EOF {
						break
					}
					if err != nil {
						t.Fatal(err)
					}
					for i := range block.Len() {
						add(t, rows, block.Row(i), block.Continues)
					}
				}
			}
		}
	}
	return rows
}

func add(t testing.TB, rows map[string]string, raw []byte, continues bool) {
	t.Helper()
	var row plainbuffer.Row
	if _, err := plainbuffer.Scan(raw, &row); err != nil {
		t.Fatal(err)
	}
	key := table.KeyOf(row.Key).String()
	if _, twice := rows[key]; twice != continues {
		t.Fatalf("row %s stands twice, or goes on without a beginning", key)
	}
	rows[key] += PrintCells(row.Cells)
}

// PrintCells prints the cells of a row.
func PrintCells(cells []plainbuffer.Cell) string {
	var b strings.Builder
	for i := range cells {
		c := &cells[i]
		fmt.Fprintf(&b, "%q@%d %v %x;", c.Name, c.Timestamp, c.Type, c.Data)
	}
	return b.String()
}

// Same fails the test unless both have the same rows.
func Same(t testing.TB, got, want map[string]string) {
	t.Helper()
	for k, v := range want {
		if g, ok := got[k]; !ok || g != v {
			t.Fatalf("row %s is %.200q in the backup, %.200q in the table", k, g, v)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d rows in the backup, %d in the table", len(got), len(want))
	}
}

// Busy is an instance whose pages cost what they are said to, take their time, and may be
// throttled.
type Busy struct {
	table.Instance
	Units  int64
	Answer func() (time.Duration, bool)
}

// Scan scans slowly.
func (b Busy) Scan(name string, schema table.Schema, r table.Range) table.Scan {
	return slowScan{b.Instance.Scan(name, schema, r), b}
}

type slowScan struct {
	table.Scan
	b Busy
}

func (s slowScan) Next(ctx context.Context, buf []byte) (table.Page, error) {
	page, err := s.Scan.Next(ctx, buf)
	took, throttled := s.b.Answer()
	time.Sleep(took)
	page.ReadUnits = s.b.Units
	if throttled {
		table.Throttled(ctx)
	}
	return page, err
}
