package tablestore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/tablestore"
)

// full is a table with everything.
func full() table.Definition {
	return table.Definition{
		Name: "t_" + strings.Repeat("x", 120),
		Schema: table.Schema{
			{Name: "pk1", Type: table.StringKey},
			{Name: "pk2", Type: table.BinaryKey},
			{Name: "pk3", Type: table.IntegerKey, AutoIncrement: true},
		},
		DefinedColumns: []table.DefinedColumn{
			{Name: "i", Type: "integer"}, {Name: "d", Type: "double"}, {Name: "b", Type: "boolean"},
			{Name: "s", Type: "string"}, {Name: "x", Type: "binary"},
		},
		Options:    table.Options{TTL: table.NoTTL, MaxVersions: 1, Deviation: 0, AllowUpdate: true},
		Encryption: &table.Encryption{KeyType: "byok", KeyID: "key", RoleARN: "acs:ram::1:role/r"},
	}
}

// TestDescribe makes a table with everything and reads it back, in both forms in which a
// service may tell the keys of indexes.
func TestDescribe(t *testing.T) {
	for name, behavior := range map[string]engine.Behavior{"indexes as asked for": {}, "indexes with whole keys": {Indexes: engine.IndexBehavior{FullKeys: true}}} {
		t.Run(name, func(t *testing.T) { describeEverything(t, behavior) })
	}
}

func describeEverything(t *testing.T, behavior engine.Behavior) {
	s := otstest.Run(t, ots.Config{Behavior: behavior})
	c := connect(t, s)
	want := full()
	create(t, c, want)
	ctx := t.Context()
	want.Stream = &table.Stream{ExpirationHours: 24, OriginColumns: []string{"i", "s"}}
	indexes := []table.Index{
		{Name: "i1", Key: []string{"i", "pk1", "pk2", "pk3"}, Columns: []string{"s"}, Type: "global"},
		{Name: "i2", Key: []string{"pk1", "s", "pk2", "pk3"}, Type: "local", Sync: true},
		{Name: "i3", Key: []string{"s", "pk2", "pk1", "pk3"}, Columns: []string{"d", "b"}, Type: "global"},
	}
	for _, x := range indexes {
		if err := c.CreateIndex(ctx, want, x); err != nil {
			t.Fatal(err)
		}
	}
	schema, err := proto.Marshal(&otsprotocol.IndexSchema{FieldSchemas: []*otsprotocol.FieldSchema{
		{FieldName: proto.String("s"), FieldType: otsprotocol.FieldType_KEYWORD.Enum(), Index: proto.Bool(true)},
		{FieldName: proto.String("n"), FieldType: otsprotocol.FieldType_NESTED.Enum(), FieldSchemas: []*otsprotocol.FieldSchema{
			{FieldName: proto.String("l"), FieldType: otsprotocol.FieldType_LONG.Enum()},
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	schema = append(schema, 0xf8, 0x3f, 1) // a field 1023 that nobody knows yet
	if err := c.CreateSearchIndex(ctx, want.Name, table.SearchIndex{Name: "find", Schema: schema, TTL: -1}); err != nil {
		t.Fatal(err)
	}
	if err := c.SetStream(ctx, want.Name, *want.Stream); err != nil {
		t.Fatal(err)
	}

	got, err := c.Describe(ctx, want.Name)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Raw) == 0 || got.Stream == nil || got.Stream.ID == "" || got.Stream.Enabled == 0 || !got.Identity.Known() {
		t.Fatalf("got %+v", got)
	}
	got.Raw, got.Stream.ID, got.Stream.Enabled, got.Identity = nil, "", 0, table.Identity{}
	for i := range got.Indexes {
		var m otsprotocol.IndexMeta
		if err := proto.Unmarshal(got.Indexes[i].Raw, &m); err != nil || m.GetName() != got.Indexes[i].Name {
			t.Errorf("raw index %d: %v, %v", i, &m, err)
		}
		got.Indexes[i].Raw = nil
		indexes[i].Ready = true
	}
	want.Indexes = indexes
	want.SearchIndexes = []table.SearchIndex{{
		Name: "find", Schema: schema, TTL: -1,
		Fields: []table.SearchField{{Name: "s", Type: "keyword"}, {Name: "n", Type: "nested"}, {Name: "n.l", Type: "long"}},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}

	// What was described can be made again from its description.
	got.Name = "copy"
	create(t, c, got)
	for _, x := range got.Indexes {
		x.Name = "copy_" + x.Name
		if err := c.CreateIndex(ctx, got, x); err != nil {
			t.Error(err)
		}
	}
	names, err := c.Tables(ctx)
	if err != nil || !slices.Contains(names, "copy") || !slices.Contains(names, want.Name) || !slices.IsSorted(names) {
		t.Errorf("tables %q, %v", names, err)
	}
}

func TestDescribeWithoutSearch(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(t, s)
	create(t, c, definition())
	for _, code := range []string{engine.CodeUnsupported, engine.CodeParameterInvalid, engine.CodeNoPermission} {
		s.SetFault(func(op, _ string, _ int) *ots.Fault {
			if op == "ListSearchIndex" {
				return ots.Refuse(code, "Unsupported operation: 'ListSearchIndex'.")
			}
			return nil
		})
		got, err := c.Describe(t.Context(), "t")
		if code == engine.CodeNoPermission {
			if !errors.Is(err, table.ErrPermission) {
				t.Errorf("%s: %v", code, err)
			}
			continue
		}
		if err != nil || got.Name != "t" || got.SearchIndexes != nil {
			t.Errorf("%s: %v, %+v", code, err, got)
		}
	}
	if _, err := c.Describe(t.Context(), "none"); !errors.Is(err, table.ErrNotExist) {
		t.Errorf("missing table: %v", err)
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{Behavior: engine.Behavior{Tables: engine.TableBehavior{ReadyDelay: 300 * time.Millisecond}}})
	c := connect(t, s)
	def := definition()
	begun := time.Now()
	create(t, c, def)
	if took := time.Since(begun); took < 250*time.Millisecond {
		t.Errorf("it serves after %s", took)
	}
	write(t, c, "t", table.Put, row("u", 1))
	if err := c.Create(t.Context(), def); !errors.Is(err, table.ErrExist) {
		t.Errorf("again: %v", err)
	}
	// The answer is lost, the table is there.
	s.Engine().SetBehavior(engine.Behavior{})
	lose := func(op, _ string, n int) *ots.Fault {
		if strings.HasPrefix(op, "Create") && n%2 == 1 {
			return &ots.Fault{Cut: ots.CutSilent, After: true}
		}
		return nil
	}
	// Requests of CreateTable were two so far: the next even one passes.
	s.SetFault(func(op, name string, n int) *ots.Fault { return lose(op, name, n+1) })
	def.Name = "lost"
	if err := c.Create(t.Context(), def); err != nil {
		t.Errorf("lost answer: %v", err)
	}
	// The same, but what is there is another table.
	other := def
	other.Options.MaxVersions = 7
	s.SetFault(func(op, _ string, n int) *ots.Fault {
		if op == "CreateTable" && n%2 == 0 {
			return &ots.Fault{Cut: ots.CutSilent}
		}
		return nil
	})
	if err := c.Create(t.Context(), other); !errors.Is(err, table.ErrExist) {
		t.Errorf("other table: %v", err)
	}
	s.SetFault(nil)
	// Whoever may not read may still create.
	s.SetKeys(ots.Key{ID: ots.DefaultKeyID, Secret: ots.DefaultKeySecret, Deny: []ots.Rule{{Operation: "GetRange", Table: "*"}}})
	def.Name = "unread"
	create(t, c, def)

	for name, change := range map[string]func(*table.Definition){
		"no schema":        func(d *table.Definition) { d.Schema = nil },
		"no versions":      func(d *table.Definition) { d.Options.MaxVersions = 0 },
		"unknown type":     func(d *table.Definition) { d.DefinedColumns = []table.DefinedColumn{{Name: "x", Type: "money"}} },
		"unknown key type": func(d *table.Definition) { d.Encryption = &table.Encryption{KeyType: "rot13"} },
		"name":             func(d *table.Definition) { d.Name = "no-hyphen" },
	} {
		bad := definition()
		change(&bad)
		if err := c.Create(t.Context(), bad); !errors.Is(err, table.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCreateWaits: the service may deny for a while that a new table exists, which is
// waited for; any other refusal of a look at it is told at once.
func TestCreateWaits(t *testing.T) {
	inBubble(t, ots.Config{}, func(t *testing.T, s *ots.Server, connect func(...func(*tablestore.Config)) *tablestore.Client) {
		c := connect()
		for _, op := range []string{"DescribeTable", "GetRange"} {
			for code, want := range map[string]error{engine.CodeObjectNotExist: nil, engine.CodeAuthFailed: table.ErrAuth} {
				def := definition()
				def.Name = op + "_" + code
				first := s.Calls(op)
				s.SetFault(func(called, _ string, n int) *ots.Fault {
					if called == op && n < first+5 {
						return ots.Refuse(code, "")
					}
					return nil
				})
				begun := time.Now()
				err := c.Create(t.Context(), def)
				took := time.Since(begun)
				if !errors.Is(err, want) || want == nil && (err != nil || took < 50*time.Millisecond) || want != nil && took > 0 {
					t.Errorf("%s says %s: after %s %v", op, code, took, err)
				}
			}
		}
	})
}

// TestLostChanges loses the answer to a change, and has it refused when it is made again.
// It is an error unless a look at the table says that the change was made.
func TestLostChanges(t *testing.T) {
	def := definition()
	def.DefinedColumns = []table.DefinedColumn{{Name: "old", Type: "string"}}
	index := table.Index{Name: "i", Key: []string{"old", "user", "n"}, Type: "global"}
	for op, do := range map[string]func(ctx context.Context, c *tablestore.Client) error{
		"CreateTable": func(ctx context.Context, c *tablestore.Client) error {
			other := def
			other.Name = "other"
			return c.Create(ctx, other)
		},
		"UpdateTable": func(ctx context.Context, c *tablestore.Client) error {
			return c.SetStream(ctx, "t", table.Stream{ExpirationHours: 7})
		},
		"AddDefinedColumn": func(ctx context.Context, c *tablestore.Client) error {
			return c.AddDefinedColumns(ctx, "t", []table.DefinedColumn{{Name: "new", Type: "string"}})
		},
		"CreateIndex": func(ctx context.Context, c *tablestore.Client) error { return c.CreateIndex(ctx, def, index) },
	} {
		refusal := engine.CodeParameterInvalid
		if strings.HasPrefix(op, "Create") {
			refusal = engine.CodeObjectAlreadyExist
		}
		for name, test := range map[string]struct {
			lost, made, unseen, other bool
			want                      error
		}{
			"made":                    {lost: true, made: true},
			"not made":                {lost: true, want: conditionOf(refusal)},
			"not made, not lost":      {want: conditionOf(refusal)},
			"made, and can't be seen": {lost: true, made: true, unseen: true, want: table.ErrPermission},
			"another stream":          {lost: true, other: true, want: table.ErrInvalid},
		} {
			if test.other && op != "UpdateTable" {
				continue
			}
			if op == "CreateTable" && name == "not made" {
				test.want = table.ErrNotExist // of the look
			}
			if test.unseen && refusal == engine.CodeParameterInvalid {
				test.want = table.ErrInvalid // the refusal says more than that it can't be seen
			}
			t.Run(op+" "+name, func(t *testing.T) {
				inBubble(t, ots.Config{}, func(t *testing.T, s *ots.Server, connect func(...func(*tablestore.Config)) *tablestore.Client) {
					c := connect()
					create(t, c, def)
					if test.other {
						if err := c.SetStream(t.Context(), "t", table.Stream{ExpirationHours: 3}); err != nil {
							t.Fatal(err)
						}
					}
					first, refused := s.Calls(op), false
					s.SetFault(func(called, _ string, n int) *ots.Fault {
						switch {
						case called == "DescribeTable" && test.unseen && refused:
							return ots.Refuse(engine.CodeNoPermission, "")
						case called != op:
							return nil
						case n == first && test.lost:
							return &ots.Fault{Cut: ots.CutSilent, After: test.made}
						}
						refused = true
						return ots.Refuse(refusal, "")
					})
					if err := do(t.Context(), c); !errors.Is(err, test.want) || test.want == nil && err != nil {
						t.Errorf("%v, want %v", err, test.want)
					}
				})
			})
		}
	}
}

// conditionOf is what a code comes to.
func conditionOf(code string) error {
	if code == engine.CodeObjectAlreadyExist {
		return table.ErrExist
	}
	return table.ErrInvalid
}

// bent stands between a client and a server, and changes the descriptions of tables.
type bent struct {
	next http.RoundTripper
	bend func(*otsprotocol.DescribeTableResponse)
}

func (b *bent) RoundTrip(q *http.Request) (*http.Response, error) {
	res, err := b.next.RoundTrip(q)
	if err != nil || q.URL.Path != "/DescribeTable" || res.StatusCode != http.StatusOK {
		return res, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	var answer otsprotocol.DescribeTableResponse
	if err := proto.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	b.bend(&answer)
	if body, err = proto.Marshal(&answer); err != nil {
		return nil, err
	}
	res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	res.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return res, nil
}

// TestDescribeOfALaterService: a table with columns of types that came later is told as
// that, and not taken for another.
func TestDescribeOfALaterService(t *testing.T) {
	s := otstest.Run(t, ots.Config{AnswerMD5: ots.AnswerMD5Never})
	create(t, connect(t, s), full())
	for want, bend := range map[string]func(*otsprotocol.DescribeTableResponse){
		`key column "pk2" has the type 9, which this version does not know`: func(d *otsprotocol.DescribeTableResponse) {
			d.TableMeta.PrimaryKey[1].Type = otsprotocol.PrimaryKeyType(9).Enum()
		},
		`defined column "d" has the type 99, which this version does not know`: func(d *otsprotocol.DescribeTableResponse) {
			d.TableMeta.DefinedColumn[1].Type = otsprotocol.DefinedColumnType(99).Enum()
		},
	} {
		c := connect(t, s, func(config *tablestore.Config) { config.Transport = &bent{s, bend} })
		if _, err := c.Describe(t.Context(), full().Name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestDescribeBesideADrop: a search index that is gone when it is asked for is none of
// the table's; one that may not be seen is.
func TestDescribeBesideADrop(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(t, s)
	create(t, c, definition())
	schema, err := proto.Marshal(&otsprotocol.IndexSchema{FieldSchemas: []*otsprotocol.FieldSchema{{FieldName: proto.String("s"), FieldType: otsprotocol.FieldType_KEYWORD.Enum()}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"b", "a", "c"} {
		if err := c.CreateSearchIndex(t.Context(), "t", table.SearchIndex{Name: name, Schema: schema}); err != nil {
			t.Fatal(err)
		}
	}
	for code, want := range map[string]error{engine.CodeObjectNotExist: nil, engine.CodeNoPermission: table.ErrPermission} {
		first := s.Calls("DescribeSearchIndex")
		s.SetFault(func(op, _ string, n int) *ots.Fault {
			if op == "DescribeSearchIndex" && n == first {
				return ots.Refuse(code, "")
			}
			return nil
		})
		got, err := c.Describe(t.Context(), "t")
		if !errors.Is(err, want) || want == nil && (err != nil || len(got.SearchIndexes) != 2) {
			t.Errorf("%s: %+v, %v", code, got.SearchIndexes, err)
		}
	}
}

func TestSetOptions(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(t, s)
	create(t, c, definition())
	for _, o := range []table.Options{
		{TTL: table.NoTTL, MaxVersions: 3, Deviation: table.WidestDeviation, AllowUpdate: true},
		{TTL: 86400 * 3, MaxVersions: 3, Deviation: 0, AllowUpdate: true},
		{TTL: 86400, MaxVersions: 1, Deviation: 86400, AllowUpdate: false},
		{TTL: 86400, MaxVersions: 1, Deviation: 86400, AllowUpdate: false},
	} {
		if err := c.SetOptions(t.Context(), "t", o); err != nil {
			t.Fatalf("%+v: %v", o, err)
		}
		got, err := c.Describe(t.Context(), "t")
		if err != nil || got.Options != o {
			t.Errorf("options %+v, %v; want %+v", got.Options, err, o)
		}
	}
	if n := s.Calls("UpdateTable"); n != 3 {
		t.Errorf("%d changes, want 3", n)
	}
	o := table.Options{TTL: -5, MaxVersions: 1, Deviation: 86400}
	if err := c.SetOptions(t.Context(), "t", o); !errors.Is(err, table.ErrInvalid) {
		t.Errorf("TTL -5: %v", err)
	}
	o = table.Options{TTL: 86400, MaxVersions: 1, Deviation: 86400, UpdateFullRow: true}
	if err := c.SetOptions(t.Context(), "t", o); !errors.Is(err, table.ErrInvalid) {
		t.Errorf("update_full_row: %v", err)
	}
}

func TestRowVersions(t *testing.T) {
	c := connect(t, otstest.Run(t, ots.Config{}))
	def := definition()
	def.Options.UpdateFullRow = true
	create(t, c, def)
	def.Options.Deviation = 86400
	if err := c.SetOptions(t.Context(), "t", def.Options); err != nil {
		t.Fatal(err)
	}
	got, err := c.Describe(t.Context(), "t")
	if err != nil || got.Options != def.Options {
		t.Errorf("%+v, %v; want %+v", got.Options, err, def.Options)
	}
}

func TestAddDefinedColumns(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(t, s)
	create(t, c, definition())
	columns := []table.DefinedColumn{{Name: "a", Type: "string"}, {Name: "b", Type: "double"}}
	if err := c.AddDefinedColumns(t.Context(), "t", columns[:1]); err != nil {
		t.Fatal(err)
	}
	s.SetFault(func(op, _ string, n int) *ots.Fault {
		if op == "AddDefinedColumn" && n == 1 {
			return &ots.Fault{Cut: ots.CutSilent, After: true}
		}
		return nil
	})
	for range 2 {
		if err := c.AddDefinedColumns(t.Context(), "t", columns); err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.Describe(t.Context(), "t")
	if err != nil || !slices.Equal(got.DefinedColumns, columns) {
		t.Errorf("%v, %v; want %v", got.DefinedColumns, err, columns)
	}
	if err := c.AddDefinedColumns(t.Context(), "t", []table.DefinedColumn{{Name: "x", Type: "y"}}); !errors.Is(err, table.ErrInvalid) {
		t.Errorf("unknown type: %v", err)
	}
}

func TestCreateIndex(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{Behavior: engine.Behavior{Indexes: engine.IndexBehavior{Delay: 400 * time.Millisecond}}})
	c := connect(t, s)
	def := definition()
	def.DefinedColumns = []table.DefinedColumn{{Name: "city", Type: "string"}}
	create(t, c, def)
	write(t, c, "t", table.Put, row("a", 1, cell("city", time.Now().UnixMilli(), "x")), row("b", 2, cell("city", time.Now().UnixMilli(), "w")))
	index := table.Index{Name: "by_city", Key: []string{"city", "user", "n"}, Type: "global"}
	began := time.Now()
	s.SetFault(func(op, _ string, n int) *ots.Fault {
		if op == "CreateIndex" && n == 0 {
			return &ots.Fault{Cut: ots.CutSilent, After: true}
		}
		return nil
	})
	if err := c.CreateIndex(t.Context(), def, index); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("it is built after %s", took)
	}
	if err := c.CreateIndex(t.Context(), def, index); !errors.Is(err, table.ErrExist) {
		t.Errorf("again: %v", err)
	}
	schema := table.Schema{{Name: "city", Type: table.StringKey}, {Name: "user", Type: table.StringKey}, {Name: "n", Type: table.IntegerKey}}
	rows, _ := collect(t, c.Scan("by_city", schema, schema.Whole()), 1<<20)
	if len(rows) != 2 {
		t.Errorf("%d rows in the index, want 2", len(rows))
	}
	// A table with an index takes no timestamps; each row is refused.
	b := c.NewBatch()
	b.Add(row("c", 1, cell("city", time.Now().UnixMilli(), "x")), table.Put)
	if result, err := c.Write(t.Context(), "t", b); err != nil || len(result.Refused) != 1 {
		t.Errorf("%+v, %v", result, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	index.Name = "late"
	if err := c.CreateIndex(ctx, def, index); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("out of time: %v", err)
	}
	index.Name, index.Type = "odd", "square"
	if err := c.CreateIndex(t.Context(), def, index); !errors.Is(err, table.ErrInvalid) {
		t.Errorf("unknown type: %v", err)
	}
}

func TestSplitPoints(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(t, s)
	def := definition()
	create(t, c, def)
	points, err := c.SplitPoints(t.Context(), "t", def.Schema, 1<<20)
	if err != nil || len(points) != 0 {
		t.Errorf("an empty table: %v, %v", points, err)
	}
	var rows [][]byte
	for i := range 1000 {
		rows = append(rows, row(fmt.Sprintf("u%02d", i/50), int64(i), cell("x", 1, make([]byte, 8_000))))
	}
	write(t, c, "t", table.Put, rows...)
	for _, size := range []int64{1, 1 << 20, 3 << 20} {
		points, err := c.SplitPoints(t.Context(), "t", def.Schema, size)
		if err != nil || len(points) < 2 {
			t.Fatalf("size %d: %v, %v", size, points, err)
		}
		whole := def.Schema.Whole()
		var parts []table.Range
		at := whole.Start
		for _, p := range append(points, whole.End) {
			parts = append(parts, table.Range{Start: at, End: p})
			at = p
		}
		if err := table.Covers(whole, parts); err != nil {
			t.Error(err)
		}
		var all []collected
		for _, r := range parts {
			if err := r.Validate(def.Schema); err != nil {
				t.Fatal(err)
			}
			rows, _ := collect(t, c.Scan("t", def.Schema, r), 1<<20)
			all = append(all, rows...)
		}
		same(t, all, rows)
	}
	if _, err := c.SplitPoints(t.Context(), "none", def.Schema, 1<<20); !errors.Is(err, table.ErrNotExist) {
		t.Errorf("missing table: %v", err)
	}
}
