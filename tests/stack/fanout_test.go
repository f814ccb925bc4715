package stack_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/tablevault/tablevault/local/fc"
	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

var long = vaulttest.Long

// latency makes each page of a table wait: then reading is bound by latency, as it is in
// the cloud, and not by the processors that all share here.
func latency(s *stack.Stack, d time.Duration) {
	s.Tablestore.SetFault(func(op, _ string, _ int) *ots.Fault {
		if op == "GetRange" {
			return &ots.Fault{Delay: d}
		}
		return nil
	})
}

// back backs a planned table up and returns its manifest.
func back(t *testing.T, s *stack.Stack, id vault.BackupID) *vault.Manifest {
	t.Helper()
	most := 4 * time.Minute
	if *long {
		most = 15 * time.Minute
	}
	ctx, cancel := context.WithTimeout(t.Context(), most)
	defer cancel()
	p := drive(ctx, t, caller(t, s), function.Command{Kind: function.KindTick, Backup: string(id)},
		func(p backup.Progress) bool { return p.State != backup.StateRunning })
	if p.State != backup.StateSealed {
		t.Fatalf("%+v", p)
	}
	return p.Manifest
}

// TestThreeSeconds backs up a table that takes many times as long to read as the
// function's time limit of three seconds: through continuations, none of which runs into
// the limit.
func TestThreeSeconds(t *testing.T) {
	takes := 6 * time.Second
	if *long {
		takes = time.Minute
	}
	const page, wait = 20, 250 * time.Millisecond
	var mu sync.Mutex
	hops, retries := 0, 0
	s, _, tables := begin(t, 3, func(c *fc.Config) {
		workers(t, c, 1)
		c.Fault = func(d fc.Delivery) fc.Fault {
			var cmd function.Command
			if json.Unmarshal(d.Payload, &cmd) == nil && cmd.Kind == function.KindExport {
				mu.Lock()
				defer mu.Unlock()
				hops++
				retries += d.Retry
			}
			return fc.Fault{}
		}
	})
	s.Tablestore.Engine().SetBehavior(engine.Behavior{Reads: engine.ReadBehavior{PageRows: page}})
	rows := int(takes/wait) * page
	fill(t, tables, "orders", rows, rand.New(rand.NewPCG(1, 1)))
	source := content(t, tables, "orders")
	latency(s, wait)
	id := plan(t, s, "orders", vault.Settings{Lanes: 1})
	begun := time.Now()
	m := back(t, s, id)
	took := time.Since(begun)
	latency(s, 0)
	if m.Totals.Rows != int64(rows) || len(source) != rows {
		t.Errorf("%d rows of %d", m.Totals.Rows, rows)
	}
	// Two thirds of the time are for work, less what it takes to start.
	if least := int(takes / (2 * time.Second)); hops < least || hops > 4*least || retries > 0 {
		t.Errorf("%d invocations and %d retries for %v of pages: want %d to %d, and none", hops, retries, takes, least, 4*least)
	}
	if took < takes {
		t.Errorf("%v of pages came in %v", takes, took)
	}
	if failures := objects(t, s, vault.Backup{Table: m.Table, ID: m.Backup}.Log().Failures("")); len(failures) > 0 {
		t.Errorf("it went wrong on the way: %v", failures)
	}
	t.Logf("%v of pages in %v, through %d invocations of at most 3s", takes, took.Round(time.Second), hops)
}

// TestHotPartition backs up two tables of as many rows with as many workers: one whose
// rows lie evenly under its partition keys, and one of which nine in ten have the same.
// The service's split points lie between partition keys, so that the one has a segment of
// nine tenths; it is split where its worker stands. The server's pages wait, so that time
// is what the workers' reading takes, as it would be where one partition's own throughput
// is not the limit.
func TestHotPartition(t *testing.T) {
	const workersOf = 8
	rows, page, wait := 960, 8, 100*time.Millisecond
	if *long {
		rows, page, wait = 9600, 8, 150*time.Millisecond
	}
	s, _, tables := begin(t, 60, func(c *fc.Config) {
		c.MaxInstances, c.MaxTotal = workersOf, 2*workersOf+2
		c.Env = map[string]string{"TABLEVAULT_SPLIT_AFTER": "1s"}
		workers(t, c, workersOf)
	})
	s.Tablestore.Engine().SetBehavior(engine.Behavior{Reads: engine.ReadBehavior{PageRows: page}})
	var points []table.Key
	for p := 1; p < workersOf; p++ {
		points = append(points, table.Key{table.String(fmt.Sprint("p", p)), table.Min()})
	}
	times := map[string]time.Duration{}
	for _, name := range []string{"even", "skewed"} {
		of := make([]int, workersOf)
		for p := range of {
			of[p] = rows / workersOf
			if name == "skewed" {
				if of[p] = rows / 10 / (workersOf - 1); p == 0 {
					of[p] = rows - rows/10/(workersOf-1)*(workersOf-1)
				}
			}
		}
		fillPartitions(t, tables, name, of)
		latency(s, wait)
		id := plan(t, s, name, vault.Settings{Lanes: 1}, points...)
		begun := time.Now()
		m := back(t, s, id)
		times[name] = time.Since(begun)
		latency(s, 0)
		if m.Totals.Rows != int64(rows) {
			t.Errorf("%s: %d rows of %d", name, m.Totals.Rows, rows)
		}
		t.Logf("%s: %v in %d segments", name, times[name].Round(10*time.Millisecond), m.Segments)
		if split := m.Segments > workersOf; split != (name == "skewed") {
			t.Errorf("%s has %d segments", name, m.Segments)
		}
		// What was split restores whole.
		if name == "skewed" && !*long {
			p := bringBack(t, s, id)
			if p.Proof == nil || p.Proof.Verdict != vault.OK || !maps.Equal(partitions(t, tables, "copy"), partitions(t, tables, name)) {
				t.Errorf("%+v", p)
			}
		}
	}
	ratio := float64(times["skewed"]) / float64(times["even"])
	t.Logf("a table with nine tenths of its rows under one partition key takes %.2f times as long as an even one", ratio)
	// In the short form starting processes takes longer than reading.
	if *long && ratio > 1.3 {
		t.Errorf("a ratio of %.2f: want at most 1.3", ratio)
	}
}

// fillPartitions makes a table with so many rows under each partition key.
func fillPartitions(t *testing.T, c *tablestore.TableStoreClient, name string, of []int) {
	t.Helper()
	meta := &tablestore.TableMeta{TableName: name}
	meta.AddPrimaryKeyColumn("p", tablestore.PrimaryKeyType_STRING)
	meta.AddPrimaryKeyColumn("n", tablestore.PrimaryKeyType_INTEGER)
	_, err := c.CreateTable(&tablestore.CreateTableRequest{
		TableMeta: meta, ReservedThroughput: &tablestore.ReservedThroughput{},
		TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1, DeviationCellVersionInSec: 86400},
	})
	if err != nil {
		t.Fatal(err)
	}
	batch := &tablestore.BatchWriteRowRequest{}
	flush := func() {
		t.Helper()
		answer, err := c.BatchWriteRow(batch)
		if err != nil {
			t.Fatal(err)
		}
		for _, results := range answer.TableToRowsResult {
			for _, r := range results {
				if !r.IsSucceed {
					t.Fatalf("%+v", r.Error)
				}
			}
		}
		batch = &tablestore.BatchWriteRowRequest{}
	}
	n := 0
	for p, rows := range of {
		for id := range rows {
			pk := new(tablestore.PrimaryKey)
			pk.AddPrimaryKeyColumn("p", fmt.Sprint("p", p))
			pk.AddPrimaryKeyColumn("n", int64(id))
			change := &tablestore.PutRowChange{TableName: name, PrimaryKey: pk}
			change.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
			change.AddColumn("text", strings.Repeat("x", 50))
			batch.AddRowChange(change)
			if n++; n%200 == 0 {
				flush()
			}
		}
	}
	if n%200 > 0 {
		flush()
	}
}

// partitions reads such a table: its cells by key.
func partitions(t *testing.T, c *tablestore.TableStoreClient, name string) map[string]string {
	t.Helper()
	from, to := new(tablestore.PrimaryKey), new(tablestore.PrimaryKey)
	for _, k := range []string{"p", "n"} {
		from.AddPrimaryKeyColumnWithMinValue(k)
		to.AddPrimaryKeyColumnWithMaxValue(k)
	}
	out := map[string]string{}
	for from != nil {
		page, err := c.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: &tablestore.RangeRowQueryCriteria{
			TableName: name, StartPrimaryKey: from, EndPrimaryKey: to, MaxVersion: 1, Direction: tablestore.FORWARD}})
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range page.Rows {
			key := fmt.Sprint(row.PrimaryKey.PrimaryKeys[0].Value, " ", row.PrimaryKey.PrimaryKeys[1].Value)
			for _, cell := range row.Columns {
				out[key] += fmt.Sprint(cell.ColumnName, "@", cell.Timestamp, "=", cell.Value, " ")
			}
		}
		from = page.NextStartPrimaryKey
	}
	return out
}

// TestTenThousandSegments plans, dispatches and seals a backup of that many segments of a
// row each, and restores it: 200 in the short form. All of them are worked off by a few
// invocations, which go on with what nobody has begun.
func TestTenThousandSegments(t *testing.T) {
	segments := 200
	if *long {
		segments = 10_000
	}
	const workersOf = 8
	var mu sync.Mutex
	invocations := map[function.Kind]int{}
	s, _, tables := begin(t, 60, func(c *fc.Config) {
		c.MaxInstances, c.MaxTotal = workersOf, workersOf+4
		workers(t, c, workersOf)
		c.Fault = func(d fc.Delivery) fc.Fault {
			var cmd function.Command
			if err := json.Unmarshal(d.Payload, &cmd); err == nil && cmd.Segment != "" {
				mu.Lock()
				defer mu.Unlock()
				invocations[cmd.Kind]++
			}
			return fc.Fault{}
		}
	})
	fill(t, tables, "orders", segments, rand.New(rand.NewPCG(1, 1)))
	points := make([]table.Key, segments-1)
	for i := range points {
		points[i] = table.Key{table.Integer(int64(i + 1))}
	}
	begun := time.Now()
	id := plan(t, s, "orders", vault.Settings{Lanes: 1}, points...)
	planned := time.Since(begun)
	if planned > 30*time.Second {
		t.Errorf("planned in %v", planned)
	}
	m := back(t, s, id)
	if m.Totals.Rows != int64(segments) || m.Segments != segments {
		t.Errorf("%d rows in %d segments, want %d", m.Totals.Rows, m.Segments, segments)
	}
	sealed := time.Since(begun)
	p := bringBack(t, s, id)
	if p.Proof == nil || p.Proof.Verdict != vault.OK || p.Proof.Check.Rows != int64(segments) {
		t.Errorf("%+v", p)
	}
	mu.Lock()
	defer mu.Unlock()
	took := time.Since(begun)
	// As many as there are workers, more as time limits end them, and those for
	// which a look sent while a worker was between two segments.
	most := workersOf * (6 + int(took/(10*time.Second)))
	for _, kind := range []function.Kind{function.KindExport, function.KindImport, function.KindVerify} {
		if n := invocations[kind]; n < workersOf || n > most {
			t.Errorf("%d invocations to %s, want %d to %d", n, kind, workersOf, most)
		}
	}
	t.Logf("%d segments: planned in %v, sealed after %v, restored after %v, through invocations %v", segments, planned.Round(time.Millisecond), sealed.Round(time.Millisecond), took.Round(time.Millisecond), invocations)
}

// bringBack restores a backup to local/copy.
func bringBack(t *testing.T, s *stack.Stack, id vault.BackupID) restore.Progress {
	t.Helper()
	v := caller(t, s)
	most := 2 * time.Minute
	if *long {
		most = 15 * time.Minute
	}
	ctx, cancel := context.WithTimeout(t.Context(), most)
	defer cancel()
	begun := drive(ctx, t, v, function.Command{Kind: function.KindRestore, Backup: string(id), To: "local/copy"},
		func(p restore.Progress) bool { return p.Restore != "" })
	return drive(ctx, t, v, function.Command{Kind: function.KindRestore, Restore: string(begun.Restore)},
		func(p restore.Progress) bool {
			return p.State == restore.StateDone || p.State == backup.StateFailed
		})
}
