package core_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	sdk "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/plainbuffer/plainbuffertest"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
	"github.com/tablevault/tablevault/shared/verify"
)

// A wideModel is a table of the local Tablestore with rows wider than pages, and all that
// was ever written to it.
type wideModel struct {
	*provingGround
	rng  *rand.Rand
	def  table.Definition
	page int // room for a page, 0 for as much as there is

	mu   sync.Mutex
	rows map[string]*wideRow // by the printed key
	// change, if it is not nil, is called between the pieces of a row.
	change func(key table.Key)
	pieces int
}

// wideRow is what became of a row.
type wideRow struct {
	key     table.Key
	ever    map[string]bool // the cells that it ever had, printed
	changed bool            // between its pieces
}

func newWideModel(t *testing.T, rng *rand.Rand, def table.Definition, page int) *wideModel {
	m := &wideModel{provingGround: newProvingGround(t, ots.Config{}), rng: rng, def: def, page: page, rows: map[string]*wideRow{}}
	m.Instance = pieceByPiece{m.client, m}
	m.must(m.client.Create(t.Context(), def))
	return m
}

// pieceByPiece is an instance whose pages have the model's room, and which lets the model
// change rows between their pieces.
type pieceByPiece struct {
	table.Instance
	m *wideModel
}

func (p pieceByPiece) Scan(name string, schema table.Schema, r table.Range) table.Scan {
	return pieceScan{p.Instance.Scan(name, schema, r), p.m}
}

// NewBatch is a batch that must not have updates of nothing, which the service refuses.
func (p pieceByPiece) NewBatch() table.Batch { return fullBatch{p.Instance.NewBatch(), p.m} }

func (p pieceByPiece) Write(ctx context.Context, name string, b table.Batch) (table.WriteResult, error) {
	return p.Instance.Write(ctx, name, b.(fullBatch).Batch)
}

type fullBatch struct {
	table.Batch
	m *wideModel
}

func (b fullBatch) Add(raw []byte, op table.WriteOp) bool {
	var row plainbuffer.Row
	if _, err := plainbuffer.Scan(raw, &row); err != nil || op == table.Update && len(row.Cells) == 0 {
		b.m.T.Errorf("an update of nothing, or %v", err)
	}
	return b.Batch.Add(raw, op)
}

type pieceScan struct {
	table.Scan
	m *wideModel
}

func (s pieceScan) Next(ctx context.Context, buf []byte) (table.Page, error) {
	if s.m.page > 0 {
		buf = buf[:0:min(s.m.page, cap(buf))]
	}
	page, err := s.Scan.Next(ctx, buf)
	if err == nil && page.Piece && !page.Last {
		s.m.mu.Lock()
		defer s.m.mu.Unlock()
		s.m.pieces++
		if s.m.change != nil {
			s.m.change(page.Next)
		}
	}
	return page, err
}

// write has the server carry out one change, and the model remember it.
func (m *wideModel) write(op engine.Op, key table.Key, cells ...plainbuffer.Cell) {
	m.T.Helper()
	row := m.rows[key.String()]
	if row == nil {
		row = &wideRow{key: key, ever: map[string]bool{}}
		m.rows[key.String()] = row
	}
	for first := true; first || len(cells) > 0; first = false {
		n := min(len(cells), engine.MaxWriteColumns)
		change := engine.Change{Op: op}
		if _, err := plainbuffer.Scan(tabletest.Encode(m.def.Schema, tabletest.Row{Key: key, Cells: cells[:n]}), &change.Row); err != nil {
			m.T.Fatal(err)
		}
		changes := []engine.Change{change}
		if err := m.server.Engine().BatchWrite([]engine.Group{{Table: m.def.Name, Changes: changes}}, false); err != nil {
			m.T.Fatal(err)
		}
		if err := changes[0].Outcome.Err; err != nil {
			m.T.Fatalf("row %.60s: %v", key, err)
		}
		for i := range cells[:n] {
			row.ever[vaulttest.PrintCells(cells[i:i+1])] = true
		}
		cells, op = cells[n:], engine.Update
	}
}

// job backs the table up, reads the backup, restores it and compares, and holds the copy
// against the table as the SDK shows both.
func (m *wideModel) job() {
	t := m.T
	t.Helper()
	sealed := m.Backup(vaulttest.Small)
	m.mu.Lock()
	m.change = nil
	m.mu.Unlock()
	if proof := m.Verify(sealed, verify.DepthRead); proof.Verdict != vault.OK || proof.Check.Rows != sealed.Totals.Rows {
		t.Fatalf("the backup is read as %+v", proof.Check)
	}
	m.Proved(m.Restore(sealed), vault.OK)
	m.server.Engine().SetBehavior(engine.Behavior{})
	source, target := m.bySDK(vaulttest.SourceID.Table), m.bySDK(vaulttest.TargetID.Table)
	if int64(len(target)) != sealed.Totals.Rows {
		t.Errorf("the copy has %d rows, the backup %d", len(target), sealed.Totals.Rows)
	}
	changed := 0
	for name, row := range m.rows {
		got, ok := target[name]
		switch {
		case !row.changed:
			if want := source[name]; !ok || !slices.Equal(got, want) {
				t.Fatalf("row %.60s has %d cells, want %d, or other ones", name, len(got), len(want))
			}
		case ok:
			changed++
			for _, cell := range got {
				if !row.ever[cell] {
					t.Fatalf("row %.60s has a cell that it never had: %.80s", name, cell)
				}
			}
		}
	}
	for name := range target {
		if m.rows[name] == nil {
			t.Fatalf("a row that never was: %.60s", name)
		}
	}
	t.Logf("%d rows, %d pieces, %d rows that changed between theirs", len(target), m.pieces, changed)
}

// bySDK reads a table with the official SDK: the printed cells of each row, by its
// printed key.
func (m *wideModel) bySDK(name string) map[string][]string {
	m.T.Helper()
	config := sdk.NewDefaultTableStoreConfig()
	config.Transport = m.server
	client := sdk.NewClientWithConfig("http://in-process", "local", ots.DefaultKeyID, ots.DefaultKeySecret, "", config)
	start, end := new(sdk.PrimaryKey), new(sdk.PrimaryKey)
	for _, c := range m.def.Schema {
		start.AddPrimaryKeyColumnWithMinValue(c.Name)
		end.AddPrimaryKeyColumnWithMaxValue(c.Name)
	}
	rows := map[string][]string{}
	for start != nil {
		answer, err := client.GetRange(&sdk.GetRangeRequest{RangeRowQueryCriteria: &sdk.RangeRowQueryCriteria{
			TableName: name, StartPrimaryKey: start, EndPrimaryKey: end, Direction: sdk.FORWARD, MaxVersion: 1 << 30, Limit: 5000,
		}})
		m.must(err)
		for _, row := range answer.Rows {
			var key table.Key
			for i, c := range row.PrimaryKey.PrimaryKeys {
				switch v := c.Value.(type) {
				case int64:
					key = append(key, table.Integer(v))
				case string:
					key = append(key, table.String(v))
				case []byte:
					key = append(key, table.Binary(v))
				default:
					m.T.Fatalf("key column %d is a %T", i, v)
				}
			}
			var cells []string
			for _, c := range row.Columns {
				cell := tabletest.Cell(c.ColumnName, c.Timestamp, c.Value)
				cells = append(cells, vaulttest.PrintCells([]plainbuffer.Cell{cell}))
			}
			rows[key.String()] = cells
		}
		start = answer.NextStartPrimaryKey
	}
	return rows
}

// wideEnds are ends of values at which the next value has another length, or is no text.
var wideEnds = []string{"\x00", "a", "b", "\x7f", "\u00bf", "\ud7ff", "\uffff", "\xff", "\xff\xff", "\U0010ffff"}

// value is a value of a key of a column: at a limit often.
func (m *wideModel) value(t table.KeyType) table.Value {
	rng := m.rng
	if t == table.IntegerKey {
		return table.Integer([]int64{-1 << 63, -1, 0, 1<<63 - 1, rng.Int64N(5)}[rng.IntN(5)])
	}
	text := m.name(table.MaxKeyBytes)
	if t == table.BinaryKey {
		return table.Binary([]byte(text))
	}
	return table.String(text)
}

// name is a name, or a value of a key, of any length up to the most.
func (m *wideModel) name(most int) string {
	n := []int{most, most, most - 1, 1 + m.rng.IntN(12)}[m.rng.IntN(4)]
	end := wideEnds[m.rng.IntN(len(wideEnds))]
	if len(end) > n {
		end = end[:n]
	}
	return strings.Repeat("k", n-len(end)) + end
}

// cells are those of a row of about so many bytes, in order: versions, types that change
// from one to the next, names and times at the limits.
func (m *wideModel) cells(size int) (cells []plainbuffer.Cell) {
	rng := m.rng
	most := max(m.page/2-2*table.MaxKeyBytes, 100)
	for size > 0 {
		name := fmt.Sprintf("c%03d", rng.IntN(400))
		if rng.IntN(6) == 0 {
			name = m.name(table.MaxNameBytes)
		}
		kind := types[rng.IntN(len(types))]
		ts := []int64{0, 1, vaulttest.Day.UnixMilli(), math.MaxInt64/1000 - 1, rng.Int64N(1000)}[rng.IntN(5)]
		for range 1 + rng.IntN(2)*rng.IntN(int(m.def.Options.MaxVersions)) {
			if rng.IntN(3) == 0 {
				kind = types[rng.IntN(len(types))]
			}
			c := plainbuffertest.Cell(rng, name, kind, ts)
			if f := c.Double(); math.IsInf(f, 0) || math.IsNaN(f) {
				c = tabletest.Cell(name, ts, math.Copysign(0, -1)) // the service takes no other
			}
			if len(c.Data) > 8 && rng.IntN(2) == 0 {
				c.Data = bytes.Repeat(c.Data[:1], 1+rng.IntN(most))
			}
			size -= len(name) + len(c.Data) + 30
			cells = append(cells, c)
			if ts--; ts < 0 {
				break
			}
		}
	}
	slices.SortStableFunc(cells, func(a, b plainbuffer.Cell) int { return table.CompareCells(&a, &b) })
	return slices.CompactFunc(cells, func(a, b plainbuffer.Cell) bool { return table.CompareCells(&a, &b) == 0 })
}

var types = plainbuffertest.Types

// changes is what may happen to a row between its pieces.
func (m *wideModel) changes(key table.Key) {
	rng := m.rng
	if rng.IntN(3) > 0 {
		return
	}
	row := m.rows[key.String()]
	row.changed = true
	switch rng.IntN(5) {
	case 0:
		m.write(engine.Delete, key)
	case 1:
		m.write(engine.Delete, key)
		m.write(engine.Put, key, m.cells(2*m.page)...)
	case 2:
		m.write(engine.Put, key, m.cells(100)...)
	case 3:
		m.write(engine.Put, key)
	case 4:
		m.write(engine.Update, key, m.cells(m.page/2)...)
	}
}

// TestWideRows backs tables of random wide rows up, restores and compares them. Keys,
// names and values have the greatest lengths there are; columns change their types from
// version to version; rows are deleted and rewritten between their pieces. The copy has
// what the table has, as the official SDK shows both, and of a row that changed while it
// was read, nothing that it never had.
func TestWideRows(t *testing.T) {
	t.Parallel()
	runs := 6
	if *vaulttest.Long {
		runs = 200
	}
	for run := range runs {
		t.Run(fmt.Sprint(run), func(t *testing.T) {
			t.Parallel()
			rng := plainbuffertest.Rand(t)
			def := vaulttest.Definition()
			def.Schema = nil
			for i := range 1 + rng.IntN(4) {
				kind := []table.KeyType{table.StringKey, table.StringKey, table.BinaryKey, table.IntegerKey}[rng.IntN(4)]
				def.Schema = append(def.Schema, table.KeyColumn{Name: fmt.Sprint("k", i), Type: kind})
			}
			def.Options.Deviation = table.WidestDeviation
			def.Options.MaxVersions = 1 + rng.Int32N(60)
			m := newWideModel(t, rng, def, 12<<10+rng.IntN(20<<10))
			for i := range 4 + rng.IntN(12) {
				var key table.Key
				for _, c := range def.Schema {
					key = append(key, m.value(c.Type))
				}
				size := 0
				switch i % 3 {
				case 0:
					size = m.page + rng.IntN(4*m.page)
				case 1:
					size = rng.IntN(2000)
				}
				m.write(engine.Put, key, m.cells(size)...)
			}
			if run%2 == 1 {
				m.change = m.changes
			}
			behavior := []engine.Behavior{
				{}, {Reads: engine.ReadBehavior{PageRows: 1 + rng.IntN(5)}},
				{Reads: engine.ReadBehavior{Tokens: engine.TokensWide, PageSize: 2000 + rng.IntN(2*m.page)}},
				{Reads: engine.ReadBehavior{Tokens: engine.TokensAnywhere, PageSize: 2000 + rng.IntN(2*m.page)}},
			}[rng.IntN(4)]
			t.Logf("%v, %d versions, pages of %d bytes, %+v", def.Schema, def.Options.MaxVersions, m.page, behavior)
			m.server.Engine().SetBehavior(behavior)
			m.job()
		})
	}
}

// TestWideRowsAtFullSize is TestWideRows with rows wider than pages of the size that they
// have.
func TestWideRowsAtFullSize(t *testing.T) {
	t.Parallel()
	value := func(n int) []byte { return bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n] }
	column := func(n, size int) (cells []plainbuffer.Cell) {
		for i := range n {
			cells = append(cells, tabletest.Cell(fmt.Sprintf("column%06d", i), int64(i), value(size)))
		}
		return cells
	}
	var versions, kinds []plainbuffer.Cell
	for i := range 32 {
		versions = append(versions, tabletest.Cell("v", int64(1000-i), value(100_000)))
		if i%2 == 0 {
			kinds = append(kinds, tabletest.Cell("v", int64(1000-i), string(value(200_000))))
		} else {
			kinds = append(kinds, tabletest.Cell("v", int64(1000-i), int64(i)))
		}
	}
	longest := strings.Repeat("k", table.MaxKeyBytes)
	const eight = 3 << 20 // what eight lanes have for a page
	for name, test := range map[string]struct {
		page  int
		key   string
		cells []plainbuffer.Cell
		long  bool // not in every run
	}{
		"seven columns of 1 MiB":      {0, "k", column(7, 1<<20), false},
		"ten columns of 1 MiB":        {0, "k", column(10, 1<<20), true},
		"60,000 columns of 100 bytes": {0, "k", column(60_000, 100), false},
		"the longest key":             {eight, longest, column(2, 1_700_000), false},
		"the longest key, versions":   {eight, longest, versions, true},
		"the longest key, many types": {eight, longest, kinds, true},
		"the largest cells":           {table.MinPage, longest, column(3, 2<<20), true},
	} {
		if test.long && !*vaulttest.Long {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			def := vaulttest.Definition()
			def.Schema = table.Schema{{Name: "k", Type: table.StringKey}}
			def.Options.MaxVersions, def.Options.Deviation = 100, table.WidestDeviation
			m := newWideModel(t, nil, def, test.page)
			for _, key := range []string{"a", test.key, "z"} {
				cells := []plainbuffer.Cell{tabletest.Cell("c", 1, "x")}
				if key == test.key {
					cells = test.cells
				}
				m.write(engine.Put, table.Key{table.String(key)}, cells[:1]...)
				for c := range slices.Chunk(cells[1:], 1000) {
					for one := range slices.Chunk(c, max(1, 3<<20/(len(c[0].Data)+50))) {
						m.write(engine.Update, table.Key{table.String(key)}, one...)
					}
				}
			}
			m.job()
			if m.pieces == 0 {
				t.Error("no row came in pieces")
			}
		})
	}
}
