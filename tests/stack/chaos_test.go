package stack_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/tablevault/tablevault"
	"github.com/tablevault/tablevault/local/fc"
	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/object/address"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table"
	client "github.com/tablevault/tablevault/shared/tablestore"
	"github.com/tablevault/tablevault/shared/vault"
)

var (
	chaosSeeds = flag.Int("chaos.seeds", 1, "how many seeds TestChaos runs")
	chaosSeed  = flag.Uint64("chaos.seed", 0, "the one seed that TestChaos runs")
)

// The size of a run, and its bounds.
const (
	chaosSegments = 200
	chaosRows     = 8 // of a segment
	chaosTime     = 4 * time.Minute
	// A segment is delivered by its first start, by the host's retries, by second
	// deliveries, and by each tick that finds it dead.
	chaosDeliveries = 60
	// How many further seeds there are where each run has failed.
	chaosReplica = 3
)

var binaries = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tablevault-stack-test-")
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "../../functions/...")
	if out, err := build.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("build the functions: %w\n%s", err, out), os.RemoveAll(dir))
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	if dir := os.Getenv("TEST_STACK_IN"); dir != "" {
		reads, err := strconv.Atoi(os.Getenv("TEST_STACK_READS"))
		if err != nil {
			panic(err)
		}
		os.Exit(stackUntilKilled(dir, os.Getenv("TEST_STACK_BIN"), reads))
	}
	flag.Parse()
	code := m.Run()
	if dir, err := binaries(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// workers makes the functions go by a policy of so many workers, by which nothing is due.
func workers(t *testing.T, c *fc.Config, n int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tablevault.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "tables: none/none\nevery: weekly\nkeep: 1 week\nworkers: %d\n", n), 0o600); err != nil {
		t.Fatal(err)
	}
	if c.Env == nil {
		c.Env = map[string]string{}
	}
	c.Env["TABLEVAULT_POLICY"] = file
}

// begin starts a stack in memory whose functions have short time limits.
func begin(t *testing.T, timeout int, host func(*fc.Config)) (*stack.Stack, string, *tablestore.TableStoreClient) {
	t.Helper()
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	deployment := tablevault.Deployment
	for _, limit := range []string{"timeout: 900", "timeout: 300"} {
		if !bytes.Contains(deployment, []byte(limit)) {
			t.Fatalf("s.yaml has no %q", limit)
		}
		deployment = bytes.ReplaceAll(deployment, []byte(limit), fmt.Appendf(nil, "timeout: %d", timeout))
	}
	dir := t.TempDir()
	name := filepath.Join(dir, "functions.log")
	log, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := stack.Start(t.Context(), stack.Config{Dir: dir, BinDir: bin, Deployment: deployment, Policies: tablevault.Policies(), Memory: true, Log: log, Host: host})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := errors.Join(s.Close(), log.Close())
		if err != nil {
			t.Error(err)
		}
		if t.Failed() {
			text, _ := os.ReadFile(name)
			t.Logf("the functions' log ends with\n%s", text[max(0, len(text)-20_000):])
		}
	})
	return s, dir, tablestore.NewClient(s.Info.Tablestore, s.Instance, s.AccessKeyID, s.AccessKeySecret)
}

// fill makes a table of integer keys with rows of random cells, some of several versions.
func fill(t *testing.T, c *tablestore.TableStoreClient, name string, rows int, random *rand.Rand) {
	t.Helper()
	meta := &tablestore.TableMeta{TableName: name}
	meta.AddPrimaryKeyColumn("id", tablestore.PrimaryKeyType_INTEGER)
	_, err := c.CreateTable(&tablestore.CreateTableRequest{
		TableMeta: meta, ReservedThroughput: &tablestore.ReservedThroughput{},
		TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 3, DeviationCellVersionInSec: 86400 * 36500},
	})
	if err != nil {
		t.Fatal(err)
	}
	for first := 0; first < rows; first += 100 {
		batch := &tablestore.BatchWriteRowRequest{}
		for id := first; id < min(first+100, rows); id++ {
			pk := new(tablestore.PrimaryKey)
			pk.AddPrimaryKeyColumn("id", int64(id))
			change := &tablestore.UpdateRowChange{TableName: name, PrimaryKey: pk}
			change.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
			for v := range 1 + random.IntN(3) {
				change.PutColumnWithTimestamp("n", random.Int64(), int64(1_700_000_000_000+v))
			}
			change.PutColumnWithTimestamp("text", strings.Repeat("x", random.IntN(200)), 1_700_000_000_000)
			batch.AddRowChange(change)
		}
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
	}
}

// content reads a table into texts by key: every version of every cell.
func content(t *testing.T, c *tablestore.TableStoreClient, name string) map[string]string {
	t.Helper()
	from, to := new(tablestore.PrimaryKey), new(tablestore.PrimaryKey)
	from.AddPrimaryKeyColumnWithMinValue("id")
	to.AddPrimaryKeyColumnWithMaxValue("id")
	out := make(map[string]string)
	for from != nil {
		page, err := c.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: &tablestore.RangeRowQueryCriteria{
			TableName: name, StartPrimaryKey: from, EndPrimaryKey: to, MaxVersion: 1 << 30, Direction: tablestore.FORWARD}})
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range page.Rows {
			var text strings.Builder
			for _, cell := range row.Columns {
				fmt.Fprintf(&text, "%s@%d=%v ", cell.ColumnName, cell.Timestamp, cell.Value)
			}
			key := fmt.Sprint(row.PrimaryKey.PrimaryKeys[0].Value)
			if _, twice := out[key]; twice {
				t.Errorf("row %s stands twice in %s", key, name)
			}
			out[key] = text.String()
		}
		from = page.NextStartPrimaryKey
	}
	return out
}

// cut is an instance that proposes the given split points.
type cut struct {
	table.Instance
	points []table.Key
}

func (c cut) SplitPoints(context.Context, string, table.Schema, int64) ([]table.Key, error) {
	return c.points, nil
}

// openVault opens the stack's vault.
func openVault(t *testing.T, s *stack.Stack) *repository.Repository {
	t.Helper()
	store, err := address.Open(t.Context(), s.Vault, address.Config{})
	if err != nil {
		t.Fatal(err)
	}
	repo, err := repository.Init(t.Context(), store, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

// plan plans a backup of a table, cut at the given keys.
func plan(t *testing.T, s *stack.Stack, name string, settings vault.Settings, points ...table.Key) vault.BackupID {
	t.Helper()
	tables, err := client.New(client.Config{Endpoint: s.Info.Tablestore, Instance: s.Instance,
		Credentials: access.Key{ID: s.AccessKeyID, Secret: s.AccessKeySecret}.Provider()})
	if err != nil {
		t.Fatal(err)
	}
	p := &backup.Planner{Repo: openVault(t, s), Tables: cut{tables, points}, Endpoint: s.Info.Tablestore, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	made, err := p.Plan(t.Context(), backup.PlanRequest{Table: vault.TableID{Region: "local", Instance: s.Instance, Table: name},
		Kind: vault.Full, At: time.Now(), Trigger: "test", New: true, Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	if len(made.Segments) != len(points)+1 {
		t.Fatalf("%d segments, want %d", len(made.Segments), len(points)+1)
	}
	return made.Backup
}

// caller invokes functions as a person would.
func caller(t *testing.T, s *stack.Stack) *function.Invoker {
	t.Helper()
	v, err := function.NewInvoker(function.InvokerConfig{Endpoint: s.Functions,
		Credentials: access.Key{ID: s.AccessKeyID, Secret: s.AccessKeySecret}.Provider()})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// drive gives a command until state says that it has come to its end, whatever happens to
// the single calls.
func drive[R any](ctx context.Context, t *testing.T, v *function.Invoker, cmd function.Command, over func(R) bool) R {
	t.Helper()
	var last R
	for {
		body, err := v.Invoke(ctx, "tablevault-"+string(cmd.Kind.Function()), cmd)
		var failure *function.Failure
		switch {
		case err == nil:
			last = *new(R)
			if err := json.Unmarshal(body, &last); err != nil {
				t.Fatalf("%s: %v", body, err)
			}
			if over(last) {
				return last
			}
		case errors.As(err, &failure) && failure.Permanent():
			t.Fatalf("%+v: %v", cmd, err)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("it hangs: %s; the last answer was %+v, the last error %v", cmd.Kind, last, err)
		}
	}
}

// TestChaos backs a table of 200 segments up and restores it while deliveries are
// dropped, doubled and late, instances are killed, frozen and told wrong deadlines, and
// calls are refused, broken and not answered. The backup is sealed and proved with the
// right content, or has failed with a record that says why; nothing hangs, no row is
// restored twice, and deliveries are bounded. Then every delivery that was made is made
// again, and one for every segment, to a table that has gone on: not one cell of it
// changes.
func TestChaos(t *testing.T) {
	seeds := []uint64{*chaosSeed}
	if *chaosSeed == 0 {
		seeds = nil
		n := *chaosSeeds
		if testing.Short() {
			n = min(n, 1)
		}
		for i := range n {
			seeds = append(seeds, uint64(time.Now().UnixNano())+uint64(i))
		}
	}
	var proved atomic.Int32
	run := func(seeds []uint64) {
		t.Run("seeds", func(t *testing.T) {
			for _, seed := range seeds {
				t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
					t.Parallel() // most of it is waiting
					if chaos(t, seed) {
						proved.Add(1)
					}
				})
			}
		})
	}
	run(seeds)
	// A run may end in a failure that is recorded. A product that does nothing else
	// must not pass.
	for further := 0; proved.Load() == 0 && further < chaosReplica && !t.Failed(); further++ {
		run([]uint64{seeds[0] + uint64(len(seeds)+further)})
	}
	if proved.Load() == 0 {
		t.Error("no run came to a proof")
	}
}

// chaos does one run and tells whether it came to a proof.
func chaos(t *testing.T, seed uint64) (proved bool) {
	random := rand.New(rand.NewPCG(seed, 0))
	// Each kind is so likely that a run without one of them is a fault of the host's.
	wild := &fc.Chaos{Seed: seed, Longest: time.Second,
		Drop: 0.05, Twice: 0.1, Late: 0.1, Kill: 0.1, Stall: 0.05, Skew: 0.1, Busy: 0.06, Broken: 0.06, Lost: 0.06}
	var calm bool // set once the chaos is over
	var mu sync.Mutex
	deliveries := map[string]int{}       // by function, kind and segment
	payloads := map[string]fc.Delivery{} // of imports and exports, by event
	s, _, tables := begin(t, 3, func(c *fc.Config) {
		c.Backoff = func(n int) time.Duration { return 20 * time.Millisecond << min(n, 5) }
		c.Env = map[string]string{"TABLEVAULT_REDISPATCH": "2s"}
		// Much of the time is spent waiting: for frozen instances, for late
		// deliveries, for time limits. All segments are dispatched at once, so that
		// each has a delivery of its own to go wrong.
		c.MaxInstances, c.MaxTotal = 16, 40
		workers(t, c, chaosSegments)
		c.Fault = func(d fc.Delivery) fc.Fault {
			var cmd function.Command
			if err := json.Unmarshal(d.Payload, &cmd); err != nil {
				t.Errorf("an event that is no command: %s", d.Payload)
			}
			mu.Lock()
			defer mu.Unlock()
			if cmd.Segment != "" {
				deliveries[fmt.Sprint(d.Function, " ", cmd.Restore, " ", cmd.Segment)]++
				if cmd.Kind == function.KindExport || cmd.Kind == function.KindImport {
					payloads[string(d.Payload)] = d
				}
			}
			if calm {
				return fc.Fault{}
			}
			return wild.Fault(d)
		}
		c.CallFault = func(name string) fc.CallFault {
			mu.Lock()
			defer mu.Unlock()
			if calm {
				return fc.CallFault{}
			}
			return wild.CallFault(name)
		}
	})
	fill(t, tables, "orders", chaosSegments*chaosRows, random)
	source := content(t, tables, "orders")
	if len(source) != chaosSegments*chaosRows {
		t.Fatalf("%d rows", len(source))
	}
	var points []table.Key
	for i := 1; i < chaosSegments; i++ {
		points = append(points, table.Key{table.Integer(int64(i * chaosRows))})
	}
	id := plan(t, s, "orders", vault.Settings{Lanes: 1}, points...)
	ctx, cancel := context.WithTimeout(t.Context(), chaosTime)
	defer cancel()
	v := caller(t, s)
	start := time.Now()
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		most := 0
		for what, n := range deliveries {
			most = max(most, n)
			if n > chaosDeliveries {
				t.Errorf("%s was delivered %d times", what, n)
			}
		}
		t.Logf("%v; faults %v; at most %d deliveries of a segment, %d of them all", time.Since(start).Round(time.Millisecond), wild.Count(), most, total(deliveries))
	}()

	sealed := drive(ctx, t, v, function.Command{Kind: function.KindTick, Backup: string(id)}, func(p backup.Progress) bool { return p.State != backup.StateRunning })
	t.Logf("%s after %v", sealed.State, time.Since(start).Round(time.Millisecond))
	if sealed.State == backup.StateFailed {
		if sealed.LastError == "" {
			t.Error("it failed, and no record says why")
		}
		t.Logf("failed: %s", sealed.LastError)
		return false
	}
	if sealed.State != backup.StateSealed || sealed.Manifest.Totals.Rows != int64(len(source)) || sealed.Manifest.Segments < chaosSegments {
		t.Fatalf("%+v", sealed)
	}

	var restored restore.Progress
	command := function.Command{Kind: function.KindRestore, Backup: string(id), To: "local/copy"}
	begun := drive(ctx, t, v, command, func(p restore.Progress) bool { return p.Restore != "" })
	command = function.Command{Kind: function.KindRestore, Restore: string(begun.Restore)}
	restored = drive(ctx, t, v, command, func(p restore.Progress) bool {
		return p.State == restore.StateDone || p.State == backup.StateFailed
	})
	t.Logf("%s after %v", restored.State, time.Since(start).Round(time.Millisecond))
	if restored.State == backup.StateFailed {
		if restored.LastError == "" {
			t.Error("it failed, and no record says why")
		}
		t.Logf("failed: %s", restored.LastError)
		return false
	}
	if restored.Proof == nil || restored.Proof.Verdict != vault.OK || restored.Proof.Check.Rows != int64(len(source)) {
		t.Errorf("%+v", restored.Proof)
	}
	if copied := content(t, tables, "copy"); !maps.Equal(copied, source) {
		t.Errorf("the copy has %d rows, the table %d; %d of them are not the same", len(copied), len(source), differing(source, copied))
	}
	zombies(ctx, t, s, tables, &mu, &calm, payloads)
	for name, n := range wild.Count() {
		if n == 0 {
			t.Errorf("the fault %s was never made", name)
		}
	}
	if len(wild.Count()) < 9 {
		t.Errorf("only the faults %v were made", wild.Count())
	}
	return !t.Failed()
}

// zombies lets the application of the restored table write, and delivers all that was
// ever delivered once more.
func zombies(ctx context.Context, t *testing.T, s *stack.Stack, tables *tablestore.TableStoreClient, mu *sync.Mutex, calm *bool, payloads map[string]fc.Delivery) {
	t.Helper()
	mu.Lock()
	*calm = true
	late := everySegment(t, payloads)
	mu.Unlock()
	for id := range 100 {
		pk := new(tablestore.PrimaryKey)
		pk.AddPrimaryKeyColumn("id", int64(id*7))
		change := &tablestore.UpdateRowChange{TableName: "copy", PrimaryKey: pk}
		change.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
		if id%3 == 0 {
			if _, err := tables.DeleteRow(&tablestore.DeleteRowRequest{DeleteRowChange: deletion("copy", pk)}); err != nil {
				t.Fatal(err)
			}
			continue
		}
		change.PutColumn("application", "was here")
		if _, err := tables.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: change}); err != nil {
			t.Fatal(err)
		}
	}
	before, held := content(t, tables, "copy"), backups(t, s)
	ids := map[string]string{}
	for n, d := range late {
		task := fmt.Sprintf("zombie_%d", n)
		if _, err := s.Host.Submit(d.Function, task, d.Payload, 0); err != nil {
			t.Fatal(err)
		}
		ids[task] = d.Function
	}
	for task, name := range ids {
		for {
			got, err := s.Host.Task(name, task)
			if err != nil {
				t.Fatal(err)
			}
			if got.Status == fc.Succeeded {
				break
			}
			if got.Status.Ended() {
				t.Fatalf("%+v", got)
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("a late delivery hangs: %+v", got)
			}
		}
	}
	if after := content(t, tables, "copy"); !maps.Equal(before, after) {
		t.Errorf("late deliveries changed %d rows", differing(before, after))
	}
	if now := backups(t, s); !slices.Equal(held, now) {
		t.Errorf("late deliveries left %d objects among the backups, there were %d", len(now), len(held))
	}
	if len(late) < 2*chaosSegments {
		t.Errorf("only %d late deliveries", len(late))
	}
}

// everySegment adds to deliveries of imports and exports such a delivery of every
// segment, since most were begun by a worker that had time left.
func everySegment(t *testing.T, payloads map[string]fc.Delivery) []fc.Delivery {
	t.Helper()
	all, kinds := maps.Clone(payloads), map[function.Kind]bool{}
	for _, d := range payloads {
		var cmd function.Command
		if err := json.Unmarshal(d.Payload, &cmd); err != nil {
			t.Fatal(err)
		}
		if kinds[cmd.Kind] {
			continue
		}
		kinds[cmd.Kind] = true
		for i := range chaosSegments {
			cmd.Segment, cmd.Start = string(vault.NewSegmentID(i)), 0
			payload, err := json.Marshal(cmd)
			if err != nil {
				t.Fatal(err)
			}
			d.Payload = payload
			all[string(payload)] = d
		}
	}
	return slices.Collect(maps.Values(all))
}

// objects are the names in the vault that begin with prefix.
func objects(t *testing.T, s *stack.Stack, prefix string) (names []string) {
	t.Helper()
	for info, err := range openVault(t, s).Store().List(t.Context(), prefix, "") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, info.Name)
	}
	return names
}

// backups are the names of all objects of backups.
func backups(t *testing.T, s *stack.Stack) (names []string) {
	t.Helper()
	for _, prefix := range []string{vault.PlanPrefix, vault.ShardPrefix, vault.GroupPrefix, "slots/", "done/", "asks/", "starts/", "failures/", "progress/"} {
		names = append(names, objects(t, s, prefix)...)
	}
	return names
}

func deletion(name string, pk *tablestore.PrimaryKey) *tablestore.DeleteRowChange {
	d := &tablestore.DeleteRowChange{TableName: name, PrimaryKey: pk}
	d.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	return d
}

func differing(a, b map[string]string) int {
	n := 0
	for k, v := range a {
		if b[k] != v {
			n++
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			n++
		}
	}
	return n
}

func total(counts map[string]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}
