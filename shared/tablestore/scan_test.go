package tablestore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/tablestore"
)

func TestScanEmpty(t *testing.T) {
	c := connect(t, otstest.Run(t, ots.Config{}))
	create(t, c, definition())
	rows, pages := collect(t, c.Scan("t", definition().Schema, definition().Schema.Whole()), 1<<20)
	if len(rows) != 0 || pages != 1 {
		t.Errorf("%d rows in %d pages, want none in one", len(rows), pages)
	}
}

// TestScanRows reads rows of very different sizes, and times 0 and far ahead, with
// buffers of all sizes and pages as short as the service likes.
func TestScanRows(t *testing.T) {
	s := otstest.Run(t, ots.Config{AnswerMD5: ots.AnswerMD5Never})
	c := connect(t, s)
	def := definition()
	create(t, c, def)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	var want [][]byte
	for i := range 3000 {
		cells := []plainbuffer.Cell{
			cell("at", 0, int64(i)),
			cell("flag", 1, i%2 == 0),
			cell("text", math.MaxInt32, strings.Repeat("x", rng.IntN(200))),
		}
		switch {
		case i%100 == 7:
			cells = nil
		case i%500 == 13:
			cells = append(cells, cell("wide", 5, make([]byte, 60_000+rng.IntN(100_000))))
		}
		want = append(want, row(fmt.Sprintf("u%03d", i/10), int64(i%10), cells...))
	}
	write(t, c, "t", table.Put, want...)
	for name, behavior := range map[string]engine.Behavior{
		"plain":           {},
		"short pages":     {Reads: engine.ReadBehavior{PageRows: 17}},
		"small pages":     {Reads: engine.ReadBehavior{PageSize: 50_000}},
		"tokens":          {Reads: engine.ReadBehavior{PageSize: 70_000, Tokens: engine.TokensWide}},
		"tokens anywhere": {Reads: engine.ReadBehavior{PageSize: 9_000, Tokens: engine.TokensAnywhere}},
	} {
		s.Engine().SetBehavior(behavior)
		for _, size := range []int{210_000, 1 << 20, 4 << 20} {
			t.Run(fmt.Sprintf("%s %d", name, size), func(t *testing.T) {
				rows, pages := collect(t, c.Scan("t", def.Schema, def.Schema.Whole()), size)
				same(t, rows, want)
				t.Logf("%d pages", pages)
			})
		}
	}
}

// TestScanWideRow reads a row of 12 MB and 3,000 columns between two small ones through a
// buffer of 1 MiB, and the same a sixteenth as large in all the ways that a service may
// send it.
func TestScanWideRow(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		scale    int
		behavior engine.Behavior
	}{
		"12 MB":                 {1, engine.Behavior{}},
		"slices":                {16, engine.Behavior{}},
		"tokens, then slices":   {16, engine.Behavior{Reads: engine.ReadBehavior{Tokens: engine.TokensWide, PageSize: 256 << 10}}},
		"tokens anywhere":       {16, engine.Behavior{Reads: engine.ReadBehavior{Tokens: engine.TokensAnywhere, PageSize: 20_000}}},
		"slices with tokens":    {16, engine.Behavior{Reads: engine.ReadBehavior{Tokens: engine.TokensAnywhere, PageSize: 60_000}}},
		"a token for each cell": {16, engine.Behavior{Reads: engine.ReadBehavior{Tokens: engine.TokensAnywhere, PageSize: 3_000}}},
	} {
		if underRace && test.scale == 1 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			s := otstest.Run(t, ots.Config{AnswerMD5: ots.AnswerMD5Never})
			c := connect(t, s)
			def := definition()
			create(t, c, def)
			rng := rand.New(rand.NewPCG(1, 2))
			var cells []plainbuffer.Cell
			for i := range 3000 / min(test.scale, 4) {
				size := rng.IntN(8_000 / test.scale * min(test.scale, 4))
				if i == 500 {
					size = 900_000 / test.scale
				}
				data := make([]byte, size)
				for k := range data {
					data[k] = byte(rng.Uint32())
				}
				cells = append(cells, cell(fmt.Sprintf("column%04d", i), int64(i), data))
			}
			before, wide, after := row("a", 1), row("b", 1, cells...), row("c", 1, cell("x", 5, "y"))
			write(t, c, "t", table.Put, before, after)
			for at := 0; at < len(cells); at += 250 {
				write(t, c, "t", table.Update, row("b", 1, cells[at:at+250]...))
			}
			s.Engine().SetBehavior(test.behavior)
			n := s.Calls("GetRange")
			rows, _ := collect(t, c.Scan("t", def.Schema, def.Schema.Whole()), 1<<20/test.scale)
			same(t, rows, [][]byte{before, wide, after})
			t.Logf("%d bytes in %d pieces and %d requests", len(wide), rows[1].pieces, s.Calls("GetRange")-n)
			if rows[1].pieces < 12 {
				t.Errorf("%d pieces", rows[1].pieces)
			}
		})
	}
}

// TestScanBufferTooSmall has a cell that no buffer of the caller's can hold.
func TestScanBufferTooSmall(t *testing.T) {
	c := connect(t, otstest.Run(t, ots.Config{}))
	def := definition()
	create(t, c, def)
	write(t, c, "t", table.Put, row("a", 1), row("b", 1, cell("a", 1, "x"), cell("b", 1, make([]byte, 900_000)), cell("c", 1, "x")))
	rows, _, err := tryCollect(t.Context(), c.Scan("t", def.Schema, def.Schema.Whole()), make([]byte, 256<<10))
	if err == nil || !strings.Contains(err.Error(), "want at least 900") || !strings.Contains(err.Error(), `after column "a" of row ("b", 1)`) {
		t.Errorf("error %v", err)
	}
	same(t, rows, [][]byte{row("a", 1)})
}

// TestScanVersions reads columns with more versions than a buffer holds.
func TestScanVersions(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{AnswerMD5: ots.AnswerMD5Never})
	c := connect(t, s)
	def := definition()
	def.Options.MaxVersions = 10_000
	create(t, c, def)
	var cells []plainbuffer.Cell
	add := func(name string, versions, size int) {
		for i := versions - 1; i >= 0; i-- {
			cells = append(cells, cell(name, int64(i), bytes.Repeat([]byte{byte(i)}, size)))
		}
	}
	add("a", 1, 10)
	add("b", 1500, 100)
	add("c", 2, 100)
	add("d", 64, 10)
	add("e", 100, 2000)
	add("f", 1, 1)
	wide := row("b", 1, cells...)
	for at := 0; at < len(cells); at += 1000 {
		write(t, c, "t", table.Update, row("b", 1, cells[at:min(at+1000, len(cells))]...))
	}
	write(t, c, "t", table.Put, row("a", 1), row("b", 2))
	for name, behavior := range map[string]engine.Behavior{
		"slices": {},
		"tokens": {Reads: engine.ReadBehavior{Tokens: engine.TokensAnywhere, PageSize: 8_000}},
	} {
		s.Engine().SetBehavior(behavior)
		for _, size := range []int{16 << 10, 64 << 10, 4 << 20} {
			t.Run(fmt.Sprintf("%s %d", name, size), func(t *testing.T) {
				rows, _ := collect(t, c.Scan("t", def.Schema, def.Schema.Whole()), size)
				same(t, rows, [][]byte{row("a", 1), wide, row("b", 2)})
				t.Logf("%d pieces", rows[1].pieces)
			})
		}
	}
}

func TestScanErrors(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(t, s)
	def := definition()
	create(t, c, def)
	buf := make([]byte, 1<<20)
	scan := func(c *tablestore.Client, name string, schema table.Schema) error {
		_, err := c.Scan(name, schema, schema.Whole()).Next(t.Context(), buf)
		return err
	}
	s.SetKeys(ots.Key{ID: ots.DefaultKeyID, Secret: ots.DefaultKeySecret, Deny: []ots.Rule{{Operation: "GetRange", Table: "secret"}}})
	def.Name = "secret"
	if err := scan(c, "secret", def.Schema); !errors.Is(err, table.ErrPermission) || !strings.Contains(err.Error(), "grant ots:GetRange") {
		t.Errorf("permission: %v", err)
	}
	if err := scan(c, "none", def.Schema); !errors.Is(err, table.ErrNotExist) || !strings.Contains(err.Error(), `table "none"`) {
		t.Errorf("missing table: %v", err)
	}
	if err := scan(c, "t", table.Schema{{Name: "other", Type: table.StringKey}, {Name: "n", Type: table.IntegerKey}}); !errors.Is(err, table.ErrInvalid) {
		t.Errorf("other schema: %v", err)
	}
	r := def.Schema.Whole()
	r.End = r.Start
	if _, err := c.Scan("t", def.Schema, r).Next(t.Context(), buf); !errors.Is(err, table.ErrInvalid) {
		t.Errorf("empty range: %v", err)
	}
	bad := connect(t, s, func(config *tablestore.Config) {
		config.Credentials = access.Key{ID: ots.DefaultKeyID, Secret: "wrong"}.Provider()
	})
	if err := scan(bad, "t", def.Schema); !errors.Is(err, table.ErrAuth) {
		t.Errorf("wrong secret: %v", err)
	}
	broken := errors.New("no credentials today")
	none := connect(t, s, func(config *tablestore.Config) {
		config.Credentials = func(context.Context) (access.Key, error) { return access.Key{}, broken }
	})
	if err := scan(none, "t", def.Schema); !errors.Is(err, broken) {
		t.Errorf("no credentials: %v", err)
	}
}
