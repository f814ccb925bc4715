package core_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/tablestore"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// TestWholeJobUnderEverySwitch backs up, restores and verifies tables of the local
// Tablestore under each answer that the service may give where its answer is not known,
// or is its own to choose. Whatever it is, the copy has every row of the source as it is
// read, its settings, and a proof.
func TestWholeJobUnderEverySwitch(t *testing.T) {
	t.Parallel()
	b := func(b engine.Behavior) ots.Config { return ots.Config{Behavior: b} }
	const ms = time.Millisecond
	for name, config := range map[string]ots.Config{
		"every default":                          {},
		"PutRow needs attributes":                b(engine.Behavior{Writes: engine.WriteBehavior{RefuseEmptyPut: true}}),
		"PutRow takes one version of a column":   b(engine.Behavior{Writes: engine.WriteBehavior{RefusePutVersions: true}}),
		"both":                                   b(engine.Behavior{Writes: engine.WriteBehavior{RefuseEmptyPut: true, RefusePutVersions: true}}),
		"columns are counted, not versions":      b(engine.Behavior{Writes: engine.WriteBehavior{CountColumns: true}}),
		"strings are UTF-8":                      b(engine.Behavior{Writes: engine.WriteBehavior{RequireUTF8: true}}),
		"windows of seconds":                     b(engine.Behavior{Writes: engine.WriteBehavior{SecondsWindow: true}}),
		"timestamps on tables with indexes":      b(engine.Behavior{Writes: engine.WriteBehavior{IndexedTimestamps: true}}),
		"versions are kept until they are swept": b(engine.Behavior{Writes: engine.WriteBehavior{KeepVersions: true}}),
		"rows go with their last cell":           b(engine.Behavior{Reads: engine.ReadBehavior{HideExpiredRows: true}}),
		"tokens in wide rows":                    b(engine.Behavior{Reads: engine.ReadBehavior{Tokens: engine.TokensWide, PageSize: 30_000}}),
		"tokens anywhere":                        b(engine.Behavior{Reads: engine.ReadBehavior{Tokens: engine.TokensAnywhere, PageSize: 30_000}}),
		"documented limits":                      b(engine.Behavior{Reads: engine.ReadBehavior{DocumentedLimits: true}}),
		"split points of few columns":            b(engine.Behavior{Partitions: engine.PartitionBehavior{SplitPoints: engine.SplitAtParts}}),
		"split points between rows":              b(engine.Behavior{Partitions: engine.PartitionBehavior{SplitPoints: engine.SplitBetween}}),
		"whole keys of indexes":                  b(engine.Behavior{Indexes: engine.IndexBehavior{FullKeys: true}}),
		"indexes among the tables":               b(engine.Behavior{Indexes: engine.IndexBehavior{Listed: true}}),
		"search indexes with a TTL":              b(engine.Behavior{Indexes: engine.IndexBehavior{SearchTTLWithUpdates: true}}),
		"capacity can't be reserved":             b(engine.Behavior{Capacity: engine.CapacityBehavior{Reserve: engine.ReserveInvalid}}),
		"capacity may not be reserved":           b(engine.Behavior{Capacity: engine.CapacityBehavior{Reserve: engine.ReserveForbidden}}),
		"TTL of a day at least":                  b(engine.Behavior{Tables: engine.TableBehavior{MinTTL: 86400}}),
		"transactions everywhere":                b(engine.Behavior{Transactions: engine.TransactionBehavior{ByDefault: true}}),
		"no streams beside global indexes":       b(engine.Behavior{Stream: engine.StreamBehavior{NoGlobalIndexes: true}}),
		"a new table is not ready":               b(engine.Behavior{Tables: engine.TableBehavior{ReadyDelay: 30 * ms}}),
		"a new table has no partition":           b(engine.Behavior{Tables: engine.TableBehavior{ReadyDelay: 30 * ms, ReadyCode: engine.CodePartitionNotReady}}),
		"a new table does not exist":             b(engine.Behavior{Tables: engine.TableBehavior{ReadyDelay: 30 * ms, ReadyCode: engine.CodeObjectNotExist}}),
		"options act late":                       b(engine.Behavior{Tables: engine.TableBehavior{OptionsDelay: 30 * ms}}),
		"indexes take their time":                b(engine.Behavior{Indexes: engine.IndexBehavior{Delay: 30 * ms}}),
		"streams take their time":                b(engine.Behavior{Stream: engine.StreamBehavior{Delay: 30 * ms}}),
		"short pages":                            b(engine.Behavior{Reads: engine.ReadBehavior{PageRows: 3}}),
		"small pages":                            b(engine.Behavior{Reads: engine.ReadBehavior{PageSize: 10_000}}),
		"partitions split by themselves":         b(engine.Behavior{Partitions: engine.PartitionBehavior{SplitSize: 50_000}}),
		"ten operations on tables a second":      b(engine.Behavior{Tables: engine.TableBehavior{Operations: 10}}),
		"throttled":                              b(engine.Behavior{Capacity: engine.CapacityBehavior{Read: 1000, Write: 2000}}),
		"throttled, exhausted":                   b(engine.Behavior{Capacity: engine.CapacityBehavior{Read: 1000, Write: 2000, ThrottleCode: engine.CodeCapacityExhausted}}),
		"throttled, by the flow":                 b(engine.Behavior{Capacity: engine.CapacityBehavior{Read: 1000, Write: 2000, ThrottleCode: engine.CodeFlowControl}}),
		"throttled, with another status": {
			Behavior: engine.Behavior{Capacity: engine.CapacityBehavior{Read: 1000, Write: 2000, ThrottleCode: engine.CodeOperationThrottled}},
			Statuses: map[string]int{engine.CodeOperationThrottled: 429},
		},
		"answers signed in version 4": {SignV4Answers: true},
		"answers without a checksum":  {AnswerMD5: ots.AnswerMD5Never},
		"another type of content":     {ContentType: "application/octet-stream"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for name, make := range map[string]func(*provingGround){"rows": (*provingGround).rows, "settings": (*provingGround).settings} {
				t.Run(name, func(t *testing.T) {
					p := newProvingGround(t, config)
					make(p)
					p.job()
				})
			}
		})
	}
}

// A provingGround is a world whose instance is the local Tablestore. The rows are made in
// the model that a world has, and written to the server.
type provingGround struct {
	*vaulttest.World
	server   *ots.Server
	client   *tablestore.Client
	behavior engine.Behavior
}

func newProvingGround(t *testing.T, config ots.Config) *provingGround {
	t.Helper()
	p := &provingGround{World: vaulttest.NewWorld(t), behavior: config.Behavior}
	p.Now = time.Now() // as the server's clock has it
	// The source is made in peace; only what it keeps of versions is the switch's.
	config.Behavior = engine.Behavior{Writes: engine.WriteBehavior{KeepVersions: p.behavior.Writes.KeepVersions}}
	var err error
	p.server = otstest.New(t, config)
	p.client, err = tablestore.New(tablestore.Config{
		Endpoint: "http://in-process", Instance: "local", Transport: p.server, SignV4: config.SignV4Answers, Region: "local",
		Credentials: access.Key{ID: ots.DefaultKeyID, Secret: ots.DefaultKeySecret}.Provider(),
		Retry:       tablestore.Retry{First: time.Millisecond, Longest: 20 * time.Millisecond},
	})
	p.must(err)
	p.Instance = p.client
	return p
}

func (p *provingGround) must(err error) {
	p.T.Helper()
	if err != nil {
		p.T.Fatal(err)
	}
}

// load makes the table on the server and writes the model's rows to it.
func (p *provingGround) load(def table.Definition) {
	p.T.Helper()
	open := def
	open.Options.Deviation = table.WidestDeviation
	p.must(p.client.Create(p.T.Context(), open))
	rows := p.Tables.Rows(def.Name)
	for batch := range slices.Chunk(rows, engine.MaxBatchRows) {
		changes := make([]engine.Change, len(batch))
		for i, r := range batch {
			changes[i].Op = engine.Put
			if _, err := plainbuffer.Scan(tabletest.Encode(def.Schema, r), &changes[i].Row); err != nil {
				p.T.Fatal(err)
			}
		}
		if err := p.server.Engine().BatchWrite([]engine.Group{{Table: def.Name, Changes: changes}}, false); err != nil {
			p.T.Fatal(err)
		}
		for i := range changes {
			if err := changes[i].Outcome.Err; err != nil {
				p.T.Fatalf("row %v: %v", batch[i].Key, err)
			}
		}
	}
}

// rows makes a table with versions, rows without cells, keys at every extreme, timestamps
// of every age, and a row that is wider than small pages.
func (p *provingGround) rows() {
	p.T.Helper()
	p.Fill(vaulttest.Definition(), 200)
	wide := tabletest.Row{Key: table.Key{table.String("wide"), table.Binary(nil), table.Integer(0)}}
	for c := range 1000 {
		wide.Cells = append(wide.Cells, tabletest.Cell(fmt.Sprintf("column%04d", c/4), int64(7-c%4), strings.Repeat("w", 50)))
	}
	p.Tables.Put(vaulttest.SourceID.Table, wide)
	p.load(vaulttest.Definition())
	p.must(p.client.SetOptions(p.T.Context(), vaulttest.SourceID.Table, vaulttest.Definition().Options))
}

// settings makes a table with a TTL, of whose cells some have expired, and with every
// setting that a table can have.
func (p *provingGround) settings() {
	p.T.Helper()
	ctx := p.T.Context()
	def := vaulttest.Definition()
	def.Options.MaxVersions = 1
	p.Tables.Make(def)
	now := time.Now().UnixMilli()
	const day, ttl = 86_400_000, 10
	for i := range 100 {
		r := tabletest.Row{Key: table.Key{table.String("u"), table.Binary(nil), table.Integer(int64(i))}}
		for c, value := range []plainbuffer.Cell{tabletest.Cell("count", 0, i), tabletest.Cell("name", 0, "n"), tabletest.Cell("price", 0, 1.5)} {
			// Half a day keeps every cell from expiring while the test runs.
			value.Timestamp = now - (int64(i+c*7)%(2*ttl))*day - day/2
			r.Cells = append(r.Cells, value)
		}
		p.Tables.Put(def.Name, r)
	}
	p.load(def)
	p.must(p.client.AddDefinedColumns(ctx, def.Name, []table.DefinedColumn{{Name: "name", Type: "string"}, {Name: "count", Type: "integer"}}))
	options := table.Options{TTL: ttl * 86400, MaxVersions: 1, Deviation: 3600, AllowUpdate: p.behavior.Indexes.SearchTTLWithUpdates}
	if !options.AllowUpdate {
		p.must(p.client.CreateIndex(ctx, def, table.Index{Name: "by_name", Key: []string{"name", "user", "blob", "id"}, Columns: []string{"count"}, Type: "global"}))
	}
	if options.AllowUpdate || !p.behavior.Stream.NoGlobalIndexes {
		p.must(p.client.SetStream(ctx, def.Name, table.Stream{ExpirationHours: 48}))
	}
	units := int32(10)
	if _, err := p.server.Engine().UpdateTable(def.Name, &engine.OptionsChange{Read: &units, Write: &units}); err != nil {
		p.T.Fatal(err)
	}
	p.must(p.client.SetOptions(ctx, def.Name, options))
	// An IndexSchema of one field: the indexed keyword "name".
	schema := []byte("\x0a\x0a\x0a\x04name\x10\x04\x28\x01")
	p.server.Engine().SetBehavior(engine.Behavior{Indexes: engine.IndexBehavior{SearchTTLWithUpdates: true}})
	p.must(p.client.CreateSearchIndex(ctx, def.Name, table.SearchIndex{Name: "find", Schema: schema, TTL: 5 * 86400}))
}

// job is a backup, a restore and its proof, under the switch.
func (p *provingGround) job() {
	p.T.Helper()
	p.server.Engine().SetBehavior(p.behavior)
	m := p.Backup(vaulttest.Small)
	progress := p.Restore(m)
	p.Proved(progress, vault.OK)
	// From here on the server is looked at, not tried.
	p.server.Engine().SetBehavior(engine.Behavior{Reads: engine.ReadBehavior{HideExpiredRows: p.behavior.Reads.HideExpiredRows}})
	source, target := p.read(vaulttest.SourceID.Table), p.read(vaulttest.TargetID.Table)
	if len(source) == 0 || int64(len(source)) != m.Totals.Rows {
		p.T.Errorf("the source shows %d rows, the manifest has %d", len(source), m.Totals.Rows)
	}
	vaulttest.Same(p.T, target, source)
	want, err := p.client.Describe(p.T.Context(), vaulttest.SourceID.Table)
	p.must(err)
	got, err := p.client.Describe(p.T.Context(), vaulttest.TargetID.Table)
	p.must(err)
	if settings(got) != settings(want) {
		p.T.Errorf("the copy has settings %s\nwant %s", settings(got), settings(want))
	}
}

// settings prints what a copy has in common with its source.
func settings(d table.Definition) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v %v %+v", d.Schema, d.DefinedColumns, d.Options)
	for _, x := range d.Indexes {
		fmt.Fprintf(&b, " index %v %v %s", x.Key, x.Columns, x.Type)
	}
	for _, x := range d.SearchIndexes {
		fmt.Fprintf(&b, " search index %d %x", x.TTL, x.Schema)
	}
	if d.Stream != nil {
		fmt.Fprintf(&b, " stream of %d hours", d.Stream.ExpirationHours)
	}
	return b.String()
}

// read is a table as the server shows it, whatever the product's own reader makes of it.
func (p *provingGround) read(name string) map[string]string {
	p.T.Helper()
	bounds := [2][]plainbuffer.Cell{}
	for i, kind := range []plainbuffer.Type{plainbuffer.InfMin, plainbuffer.InfMax} {
		for _, c := range vaulttest.Definition().Schema {
			bounds[i] = append(bounds[i], plainbuffer.Cell{Name: []byte(c.Name), Type: kind, HasValue: true})
		}
	}
	rows := map[string]string{}
	q := engine.RangeQuery{Query: engine.Query{MaxVersions: 1 << 30}, Start: bounds[0], End: bounds[1]}
	block, page, err := p.server.Engine().Range(name, &q, plainbuffer.AppendHeader(nil))
	if err != nil || page.Next != nil {
		p.T.Fatalf("read %s: %v, the next page is at %x", name, err, page.Next)
	}
	s := plainbuffer.NewScanner(block)
	for {
		var row plainbuffer.Row
		err := s.Next(&row)
		if errors.Is(err, io.EOF) {
			return rows
		}
		p.must(err)
		rows[table.KeyOf(row.Key).String()] = vaulttest.PrintCells(row.Cells)
	}
}
