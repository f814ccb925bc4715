package tabletest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
)

var _ table.Instance = (*tabletest.Tables)(nil)

func definition() table.Definition {
	return table.Definition{
		Name:    "t",
		Schema:  table.Schema{{Name: "pk", Type: table.StringKey}, {Name: "n", Type: table.IntegerKey}},
		Options: table.Options{TTL: table.NoTTL, MaxVersions: 2, Deviation: table.WidestDeviation, AllowUpdate: true},
	}
}

func key(s string, n int64) table.Key { return table.Key{table.String(s), table.Integer(n)} }

// read reads a range with a buffer of the given size and joins what it brings.
func read(t *testing.T, tables *tabletest.Tables, size int) []tabletest.Row {
	t.Helper()
	schema := definition().Schema
	scan := tables.Scan("t", schema, schema.Whole())
	var rows []tabletest.Row
	open := false
	for {
		page, err := scan.Next(t.Context(), make([]byte, 0, size))
		if err == io.EOF {
			return rows
		}
		if err != nil {
			t.Fatal(err)
		}
		s := plainbuffer.NewScanner(page.Block)
		var row plainbuffer.Row
		for {
			if err := s.Next(&row); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if open != (page.Piece && !page.First) {
				t.Fatalf("page %+v while a row is open: %t", page, open)
			}
			if !open {
				rows = append(rows, tabletest.Row{Key: table.KeyOf(row.Key)})
			}
			last := &rows[len(rows)-1]
			last.Cells = append(last.Cells, row.Cells...)
			open = page.Piece && !page.Last
		}
	}
}

func TestScanBringsEveryRowWhateverTheBuffer(t *testing.T) {
	tables := tabletest.New()
	tables.Make(definition())
	wide := tabletest.Row{Key: key("wide", 0)}
	for i := range 500 {
		wide.Cells = append(wide.Cells, tabletest.Cell(fmt.Sprintf("c%03d", i), int64(i), bytes.Repeat([]byte{byte(i)}, i)))
	}
	tables.Put("t", wide, tabletest.Row{Key: key("", math.MinInt64)}, tabletest.Row{Key: key("\xff", math.MaxInt64)})
	for i := range 100 {
		tables.Put("t", tabletest.Row{Key: key("a", int64(i)), Cells: []plainbuffer.Cell{
			tabletest.Cell("v", 3, i), tabletest.Cell("v", 2, "old"), tabletest.Cell("v", 1, "older")}})
	}
	want := tables.Rows("t")
	if len(want) != 103 || len(want[1].Cells) != 2 {
		t.Fatalf("%d rows, %d cells in the second: want 103 rows, 2 versions of each column", len(want), len(want[1].Cells))
	}
	for _, size := range []int{1 << 10, 4 << 10, 1 << 20} {
		got := read(t, tables, size)
		if len(got) != len(want) {
			t.Fatalf("buffer of %d bytes: %d rows, want %d", size, len(got), len(want))
		}
		for i := range got {
			g, w := tabletest.Encode(definition().Schema, got[i]), tabletest.Encode(definition().Schema, want[i])
			if !bytes.Equal(g, w) {
				t.Fatalf("buffer of %d bytes: row %d is %v with %d cells, want %v with %d", size, i, got[i].Key, len(got[i].Cells), want[i].Key, len(want[i].Cells))
			}
		}
	}
}

func TestWriteKeepsTheServicesRules(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	tests := []struct {
		name   string
		change func(*table.Definition)
		op     table.WriteOp
		cells  []plainbuffer.Cell
		code   string
	}{
		{"put", nil, table.Put, []plainbuffer.Cell{tabletest.Cell("a", 0, 1)}, ""},
		{"no cells", nil, table.Put, nil, ""},
		{"old timestamp", func(d *table.Definition) { d.Options.Deviation = 86400 }, table.Put, []plainbuffer.Cell{tabletest.Cell("a", 1, 1)}, "OTSParameterInvalid"},
		{"expired timestamp", func(d *table.Definition) { d.Options.TTL = 86400 }, table.Put, []plainbuffer.Cell{tabletest.Cell("a", 1, 1)}, "OTSParameterInvalid"},
		{"auto-increment", func(d *table.Definition) { d.Schema[1].AutoIncrement = true }, table.Put, nil, "OTSConditionCheckFail"},
		{"update where none are allowed", func(d *table.Definition) { d.Options.AllowUpdate = false }, table.Update, nil, "OTSParameterInvalid"},
		{"defined type", func(d *table.Definition) { d.DefinedColumns = []table.DefinedColumn{{Name: "a", Type: "string"}} }, table.Put, []plainbuffer.Cell{tabletest.Cell("a", 1, 1)}, "OTSParameterInvalid"},
		{"timestamp beside an index", func(d *table.Definition) { d.Indexes = []table.Index{{Name: "i"}} }, table.Put, []plainbuffer.Cell{tabletest.Cell("a", 1, 1)}, "OTSParameterInvalid"},
		{"column name", nil, table.Put, []plainbuffer.Cell{tabletest.Cell("#a", 1, 1)}, "OTSParameterInvalid"},
		{"not a number", nil, table.Put, []plainbuffer.Cell{tabletest.Cell("a", 1, math.NaN())}, "OTSParameterInvalid"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tables := tabletest.New()
			tables.Now = func() time.Time { return now }
			def := definition()
			if test.change != nil {
				test.change(&def)
			}
			tables.Make(def)
			batch := tables.NewBatch()
			if !batch.Add(tabletest.Encode(def.Schema, tabletest.Row{Key: key("k", 1), Cells: test.cells}), test.op) {
				t.Fatal("the row does not fit into an empty batch")
			}
			result, err := tables.Write(t.Context(), "t", batch)
			if err != nil {
				t.Fatal(err)
			}
			code := ""
			if len(result.Refused) > 0 {
				code = result.Refused[0].Code
			}
			if code != test.code {
				t.Errorf("refused with %q, want %q: %+v", code, test.code, result)
			}
			if got := len(tables.Rows("t")) == 1; got != (test.code == "") {
				t.Errorf("the row is there: %t", got)
			}
		})
	}
}

func TestUpdateAddsAndPutReplaces(t *testing.T) {
	tables := tabletest.New()
	tables.Make(definition())
	steps := []struct {
		op    table.WriteOp
		cells []plainbuffer.Cell
		want  int
	}{
		{table.Put, []plainbuffer.Cell{tabletest.Cell("a", 1, 1)}, 1},
		{table.Update, []plainbuffer.Cell{tabletest.Cell("b", 1, 1)}, 2},
		{table.Update, []plainbuffer.Cell{tabletest.Cell("b", 1, 1)}, 2},
		{table.Update, []plainbuffer.Cell{tabletest.Cell("a", 2, 1), tabletest.Cell("a", 3, 1)}, 3}, // two versions of a
		{table.Put, nil, 0},
	}
	for i, step := range steps {
		batch := tables.NewBatch()
		batch.Add(tabletest.Encode(definition().Schema, tabletest.Row{Key: key("k", 1), Cells: step.cells}), step.op)
		if _, err := tables.Write(t.Context(), "t", batch); err != nil {
			t.Fatal(err)
		}
		if got := tables.Rows("t"); len(got) != 1 || len(got[0].Cells) != step.want {
			t.Fatalf("step %d: %+v, want one row of %d cells", i, got, step.want)
		}
	}
}

func TestFaultsComeBeforeAndAfter(t *testing.T) {
	broken := errors.New("broken")
	for _, after := range []bool{false, true} {
		tables := tabletest.New()
		tables.Fault = func(c tabletest.Call) error {
			if c.Name == "Create" && c.N == 0 && c.After == after {
				return broken
			}
			return nil
		}
		if err := tables.Create(t.Context(), definition()); !errors.Is(err, broken) {
			t.Fatalf("after %t: %v", after, err)
		}
		err := tables.Create(t.Context(), definition())
		if got := errors.Is(err, table.ErrExist); got != after {
			t.Errorf("fault after %t, then %v", after, err)
		}
	}
}
