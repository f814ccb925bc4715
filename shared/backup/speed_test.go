package backup_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	sdk "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	//lint:ignore SA1019 the official SDK's messages are of this API
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object/dir"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/plainbuffer/plainbuffertest"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/sidebyside"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/tablestore"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/verify"
)

// tape is a transport without a network. It plays the answers back that a server gave to
// the same requests, and answers writes by saying that every row was taken. So what is
// measured is the client, whichever it is.
type tape struct {
	next http.RoundTripper // asked what the tape does not know yet; nil once it is complete

	mu      sync.Mutex
	seed    maphash.Seed
	answers map[uint64]taped
	written map[int]taped // by the number of rows
}

type taped struct {
	header http.Header
	body   []byte
}

func newTape() *tape {
	return &tape{next: http.DefaultTransport, seed: maphash.MakeSeed(), answers: map[uint64]taped{}, written: map[int]taped{}}
}

func (t *tape) RoundTrip(q *http.Request) (*http.Response, error) {
	if q.URL.Path == "/BatchWriteRow" {
		var rows rowCounter
		if _, err := io.Copy(&rows, q.Body); err != nil {
			return nil, err
		}
		q.Body.Close()
		return t.took(rows.n).answer(q), nil
	}
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return nil, err
	}
	q.Body.Close()
	var h maphash.Hash
	h.SetSeed(t.seed)
	h.WriteString(q.URL.Path)
	h.Write(body)
	t.mu.Lock()
	a, ok := t.answers[h.Sum64()]
	t.mu.Unlock()
	if !ok {
		if t.next == nil {
			return nil, fmt.Errorf("%s: a request that was not made before", q.URL.Path)
		}
		live := q.Clone(q.Context())
		live.Body = io.NopCloser(bytes.NewReader(body))
		res, err := t.next.RoundTrip(live)
		if err != nil {
			return nil, err
		}
		defer res.Body.Close()
		if a.body, err = io.ReadAll(res.Body); err != nil {
			return nil, err
		}
		if a.header = res.Header; res.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s: %s: %q", q.URL.Path, res.Status, a.body)
		}
		t.mu.Lock()
		t.answers[h.Sum64()] = a
		t.mu.Unlock()
	}
	return a.answer(q), nil
}

func (a taped) answer(q *http.Request) *http.Response {
	return &http.Response{StatusCode: http.StatusOK, Header: a.header, ContentLength: int64(len(a.body)), Body: io.NopCloser(bytes.NewReader(a.body)), Request: q}
}

// took is the answer to a write of n rows.
func (t *tape) took(n int) taped {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, ok := t.written[n]
	if !ok {
		unit := &otsprotocol.ConsumedCapacity{CapacityUnit: &otsprotocol.CapacityUnit{Read: proto.Int32(0), Write: proto.Int32(1)}}
		rows := make([]*otsprotocol.RowInBatchWriteRowResponse, n)
		for i := range rows {
			rows[i] = &otsprotocol.RowInBatchWriteRowResponse{IsOk: proto.Bool(true), Consumed: unit}
		}
		body, err := proto.Marshal(&otsprotocol.BatchWriteRowResponse{Tables: []*otsprotocol.TableInBatchWriteRowResponse{{TableName: proto.String("t"), Rows: rows}}})
		if err != nil {
			panic(err) // the message is complete
		}
		sum := md5.Sum(body)
		a = taped{http.Header{"X-Ots-Requestid": {"1"}, "X-Ots-Contentmd5": {base64.StdEncoding.EncodeToString(sum[:])}}, body}
		t.written[n] = a
	}
	return a
}

// rowCounter counts the rows of a BatchWriteRow request that is written to it in one
// piece, as a transport that copies it to its connection would.
type rowCounter struct{ n int }

func (c *rowCounter) Write(b []byte) (int, error) {
	// Field 1 of the request is a table's rows, field 2 of those a row.
	err := fields(b, func(tag uint64, table []byte) error {
		if tag != 1<<3|2 {
			return nil
		}
		return fields(table, func(tag uint64, _ []byte) error {
			if tag == 2<<3|2 {
				c.n++
			}
			return nil
		})
	})
	return len(b), err
}

// fields calls do for each field of a message; data is nil for numbers.
func fields(b []byte, do func(tag uint64, data []byte) error) error {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		v, m := binary.Uvarint(b[max(n, 0):])
		if n <= 0 || m <= 0 {
			return errors.New("a malformed message")
		}
		b = b[n+m:]
		var data []byte
		if tag&7 == 2 {
			if v > uint64(len(b)) {
				return errors.New("a message that is cut short")
			}
			data, b = b[:v], b[v:]
		}
		if err := do(tag, data); err != nil {
			return err
		}
	}
	return nil
}

// instance is a server with one table "t", and clients of it whose data plane goes past
// the tape.
type instance struct {
	*tablestore.Client                    // live
	taped              *tablestore.Client // for rows
	sdk                *sdk.TableStoreClient
	tape               *tape
	server             *ots.Server
	rows, bytes        int
}

func (i *instance) Scan(name string, s table.Schema, r table.Range) table.Scan {
	return i.taped.Scan(name, s, r)
}
func (i *instance) NewBatch() table.Batch { return i.taped.NewBatch() }
func (i *instance) Write(ctx context.Context, name string, b table.Batch) (table.WriteResult, error) {
	return i.taped.Write(ctx, name, b)
}

// newInstance makes a table of so many pages of a shape.
func newInstance(b *testing.B, shape plainbuffertest.Shape, pages int) *instance {
	b.Helper()
	server := otstest.Run(b, ots.Config{})
	e := server.Engine()
	err := e.CreateTable(&engine.Definition{
		Name:    "t",
		Key:     []engine.KeyColumn{{Name: "pk1", Type: plainbuffer.String}, {Name: "pk2", Type: plainbuffer.Integer}},
		Options: engine.Options{TTL: -1, MaxVersions: 10, Deviation: table.WidestDeviation, AllowUpdate: true},
	})
	if err != nil {
		b.Fatal(err)
	}
	i := &instance{tape: newTape(), server: server, rows: pages * shape.PerPage}
	s := plainbuffer.NewScanner(nil)
	for _, p := range shape.Pages(pages) {
		i.bytes += len(p) - plainbuffer.HeaderSize
		s.Reset(p)
		for done := false; !done; {
			var changes []engine.Change
			for len(changes) < 200 {
				c := engine.Change{Op: engine.Put}
				if done = s.Next(&c.Row) != nil; done {
					break
				}
				changes = append(changes, c)
			}
			if len(changes) == 0 {
				break
			}
			if err := e.BatchWrite([]engine.Group{{Table: "t", Changes: changes}}, false); err != nil {
				b.Fatal(err)
			}
			for k := range changes {
				if err := changes[k].Outcome.Err; err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	connect := func(transport http.RoundTripper) *tablestore.Client {
		c, err := tablestore.New(tablestore.Config{
			Endpoint: server.URL(), Instance: "local", Transport: transport,
			Credentials: access.Key{ID: ots.DefaultKeyID, Secret: ots.DefaultKeySecret}.Provider(),
		})
		if err != nil {
			b.Fatal(err)
		}
		return c
	}
	i.Client, i.taped = connect(nil), connect(i.tape)
	b.Cleanup(i.Client.CloseIdle)
	config := sdk.NewDefaultTableStoreConfig()
	config.Transport = i.tape
	i.sdk = sdk.NewClientWithConfig(server.URL(), "local", ots.DefaultKeyID, ots.DefaultKeySecret, "", config)
	return i
}

// read reads the table with the official SDK, as a script would.
func (i *instance) read(row func(*sdk.Row) error) error {
	start, end := new(sdk.PrimaryKey), new(sdk.PrimaryKey)
	for _, k := range []string{"pk1", "pk2"} {
		start.AddPrimaryKeyColumnWithMinValue(k)
		end.AddPrimaryKeyColumnWithMaxValue(k)
	}
	for n := 0; ; {
		res, err := i.sdk.GetRange(&sdk.GetRangeRequest{RangeRowQueryCriteria: &sdk.RangeRowQueryCriteria{
			TableName: "t", StartPrimaryKey: start, EndPrimaryKey: end, MaxVersion: 10, Direction: sdk.FORWARD,
		}})
		if err != nil {
			return err
		}
		for _, r := range res.Rows {
			if err := row(r); err != nil {
				return err
			}
		}
		n += len(res.Rows)
		if start = res.NextStartPrimaryKey; start == nil {
			if n != i.rows {
				return fmt.Errorf("%d rows of %d", n, i.rows)
			}
			return nil
		}
	}
}

// script is what a user's own export does: the SDK, CSV, gzip, a file.
func (i *instance) script(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	z := gzip.NewWriter(file)
	w := csv.NewWriter(z)
	var record []string
	text := func(v any) string {
		switch v := v.(type) {
		case string:
			return v
		case []byte:
			return base64.StdEncoding.EncodeToString(v)
		}
		return fmt.Sprint(v)
	}
	err = i.read(func(r *sdk.Row) error {
		record = record[:0]
		for _, k := range r.PrimaryKey.PrimaryKeys {
			record = append(record, text(k.Value))
		}
		for _, c := range r.Columns {
			record = append(record, c.ColumnName, fmt.Sprint(c.Timestamp), text(c.Value))
		}
		return w.Write(record)
	})
	if err != nil {
		return err
	}
	w.Flush()
	if err := errors.Join(w.Error(), z.Close(), file.Sync()); err != nil {
		return err
	}
	return file.Close()
}

// workshop is a vault in a directory.
type workshop struct {
	*instance
	repo *repository.Repository
	n    int // of plans
}

// pages is how large the tables are, in pages of 4 MB: what an invocation costs whatever
// its rows are is little beside that, as it is in a real one.
const pages = 16

func newWorkshop(b *testing.B, shape plainbuffertest.Shape) *workshop {
	b.Helper()
	store, err := dir.Open(b.Context(), b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	repo, err := repository.Init(b.Context(), store, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	return &workshop{instance: newInstance(b, shape, pages), repo: repo}
}

// Submit does nothing: the workshop's hands work off what is planned.
func (w *workshop) Submit(context.Context, fanout.Work) error { return nil }

func (w *workshop) run() fanout.Run { return fanout.Run{Request: "bench", Now: time.Now} }

var benchID = vault.TableID{Region: "local", Instance: "local", Table: "t"}

func (w *workshop) planner() *backup.Planner {
	return &backup.Planner{Repo: w.repo, Tables: w, Work: w, Log: slog.New(slog.DiscardHandler), Now: time.Now}
}

// export plans and exports the table, in eight lanes.
func (w *workshop) export(ctx context.Context) (vault.Backup, error) { return w.exportBy(ctx, false) }

// exportBy is export, and unproved without reading back what was encoded.
func (w *workshop) exportBy(ctx context.Context, unproved bool) (vault.Backup, error) {
	w.n++
	plan, err := w.planner().Plan(ctx, backup.PlanRequest{
		Table: benchID, Kind: vault.Full, At: time.Now(), Trigger: fmt.Sprint("bench ", w.n), New: true,
	})
	if err != nil {
		return vault.Backup{}, err
	}
	e := &backup.Exporter{Repo: w.repo, Tables: w, Work: w, Log: slog.New(slog.DiscardHandler), Unproved: unproved}
	rows := 0
	for _, s := range plan.Segments {
		reply, err := e.Export(ctx, w.run(), fanout.Work{Verb: fanout.VerbExport, Table: benchID, Backup: plan.Backup, Segment: s.ID})
		if err != nil {
			return vault.Backup{}, err
		}
		rows += int(reply.Rows)
	}
	if rows != w.rows {
		return vault.Backup{}, fmt.Errorf("%d rows of %d are exported", rows, w.rows)
	}
	return vault.Backup{Table: benchID, ID: plan.Backup}, nil
}

// seal exports the table and seals the backup.
func (w *workshop) seal(ctx context.Context) (vault.Backup, error) {
	b, err := w.export(ctx)
	if err != nil {
		return b, err
	}
	progress, err := w.planner().Tick(ctx, w.run(), b)
	if err == nil && progress.Manifest == nil {
		err = fmt.Errorf("the backup is not sealed: %+v", progress)
	}
	return b, err
}

func forSpeedShapes(b *testing.B, do func(b *testing.B, w *workshop)) {
	for _, name := range []string{"small", "medium", "wide", "versions", "differing"} {
		b.Run(name, func(b *testing.B) {
			w := newWorkshop(b, plainbuffertest.ShapeOf(name))
			b.SetBytes(int64(w.bytes))
			do(b, w)
		})
	}
}

// mallocs is how many allocations do makes for each of the table's rows.
func (w *workshop) mallocs(b *testing.B, do func() error) float64 {
	b.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := do(); err != nil {
		b.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(w.rows)
}

// BenchmarkExportBesideSDK holds an export, from the plan to the files in the vault,
// against a script that reads the table with the official SDK and writes CSV through gzip
// into a file, against the SDK's decoder alone, and against a verification that reads
// every row of the backup. None of them waits for a network.
//
//	go test -run '^$' -bench ExportBeside -benchtime 1x -cpu 1 ./shared/backup
func BenchmarkExportBesideSDK(b *testing.B) {
	forSpeedShapes(b, func(b *testing.B, w *workshop) {
		export := func() error {
			_, err := w.export(b.Context())
			return err
		}
		path := filepath.Join(b.TempDir(), "rows.csv.gz")
		script := func() error { return w.script(path) }
		decode := func() error { return w.read(func(*sdk.Row) error { return nil }) }
		for _, do := range []func() error{export, decode} { // all requests, for the tape
			if err := do(); err != nil {
				b.Fatal(err)
			}
		}
		sealed, err := w.seal(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		verifier := &verify.Verifier{Repo: w.repo, Log: slog.New(slog.DiscardHandler), Now: time.Now}
		verify := func() error {
			proof, err := verifier.Verify(b.Context(), verify.Request{Backup: sealed, Depth: verify.DepthRead})
			if err == nil && (proof.Verdict != vault.OK || proof.Check.Rows != int64(w.rows)) {
				err = fmt.Errorf("of %d rows: %+v", w.rows, proof)
			}
			return err
		}
		times := sidebyside.Measure(b, 7, sidebyside.Here("script", script), sidebyside.Here("export", export),
			sidebyside.Here("sdk", decode), sidebyside.Here("verify", verify))
		times.Report(b, "script", "export")
		times.Report(b, "sdk", "export")
		times.Report(b, "export", "verify")
		b.ReportMetric(w.mallocs(b, export), "allocs/row")
	})
}

// BenchmarkExportBesideUnproved holds an export against the same one that does not read
// back what it has encoded.
//
//	go test -run '^$' -bench ExportBesideUnproved -benchtime 1x -cpu 1 ./shared/backup
func BenchmarkExportBesideUnproved(b *testing.B) {
	forSpeedShapes(b, func(b *testing.B, w *workshop) {
		export := func(unproved bool) func() error {
			return func() error {
				_, err := w.exportBy(b.Context(), unproved)
				return err
			}
		}
		if err := export(false)(); err != nil { // all requests, for the tape
			b.Fatal(err)
		}
		times := sidebyside.Measure(b, 7, sidebyside.Here("export", export(false)), sidebyside.Here("unproved", export(true)))
		times.Report(b, "export", "unproved")
		b.ReportMetric(w.mallocs(b, export(false)), "allocs/row")
	})
}

// BenchmarkImportBesideSDK holds an import, from the files in the vault to the requests,
// against what the official SDK takes to make requests of values that it has in memory,
// and to send them. None of them waits for a network.
//
//	go test -run '^$' -bench ImportBeside -benchtime 1x -cpu 1 ./shared/backup
func BenchmarkImportBesideSDK(b *testing.B) {
	forSpeedShapes(b, func(b *testing.B, w *workshop) {
		source, err := w.seal(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		load := func(measure func(func() error) (time.Duration, error)) (time.Duration, error) {
			w.n++
			p := &restore.Planner{Repo: w.repo, Tables: w, Work: w, Log: slog.New(slog.DiscardHandler)}
			l := &restore.Loader{Repo: w.repo, Tables: w, Work: w, Log: p.Log}
			target := benchID
			target.Table = fmt.Sprint("copy", w.n)
			plan, err := p.Begin(b.Context(), w.run(), restore.Request{Backup: source, Target: target, At: time.Now()})
			if err != nil {
				return 0, err
			}
			return measure(func() error {
				rows := 0
				for _, s := range plan.Segments {
					reply, err := l.Load(b.Context(), w.run(), fanout.Work{Restore: plan.Restore, Segment: s.ID})
					if err != nil {
						return err
					}
					rows += int(reply.Rows)
				}
				if rows != w.rows {
					return fmt.Errorf("%d rows of %d are imported", rows, w.rows)
				}
				return nil
			})
		}
		var rows []*sdk.Row
		if err := w.read(func(r *sdk.Row) error { rows = append(rows, r); return nil }); err != nil {
			b.Fatal(err)
		}
		times := sidebyside.Measure(b, 7,
			sidebyside.Here("sdk", func() error { return w.write(rows) }),
			sidebyside.Work{Name: "import", Do: func() (time.Duration, error) { return load(sidebyside.CPU) }})
		times.Report(b, "sdk", "import")
		var allocs float64
		if _, err := load(func(do func() error) (time.Duration, error) {
			allocs = w.mallocs(b, do)
			return 0, nil
		}); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(allocs, "allocs/row")
	})
}

// write writes rows with the official SDK, in batches as large as the service takes them.
func (i *instance) write(rows []*sdk.Row) error {
	for len(rows) > 0 {
		request := new(sdk.BatchWriteRowRequest)
		n, size := 0, 0
		for ; n < len(rows) && n < 200 && size < 3<<20; n++ {
			change := &sdk.PutRowChange{TableName: "t", PrimaryKey: rows[n].PrimaryKey, Condition: &sdk.RowCondition{RowExistenceExpectation: sdk.RowExistenceExpectation_IGNORE}}
			for _, c := range rows[n].Columns {
				change.AddColumnWithTimestamp(c.ColumnName, c.Value, c.Timestamp)
				switch v := c.Value.(type) {
				case string:
					size += len(v)
				case []byte:
					size += len(v)
				}
			}
			request.AddRowChange(change)
		}
		if _, err := i.sdk.BatchWriteRow(request); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}
