package vaulttest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	//lint:ignore SA1019 the official SDK's messages are of this API
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/tablestore"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// A tally is what the service answered to the requests of one operation.
type tally struct {
	requests, refused int // refused whole
	settled, late     int // both, without those of the time in which workers learn
	rows, rowsRefused int // of batches
	rowsSettled       int // both, without those of that time
	rowsLate          int
	units             int64 // as the service counts them
	// bySecond are the units of each second since the counting began.
	bySecond map[int]int64
}

// learning is the time in which workers learn what the service gives.
const learning = 10 * time.Second

// most is the most units that any n seconds in a row have.
func (c *tally) most(n int) int64 {
	most := int64(0)
	for at := range c.bySecond {
		sum := int64(0)
		for i := range n {
			sum += c.bySecond[at+i]
		}
		most = max(most, sum)
	}
	return most
}

// count counts what happened, and again if the workers had settled.
func (c *tally) count(all, late *int, settled bool) {
	if *all++; settled {
		*late++
	}
}

// A counter is a transport that keeps the tallies of what passes through it.
type counter struct {
	next  http.RoundTripper
	mu    sync.Mutex
	began time.Time
	ops   map[string]*tally
}

// reset begins to count anew.
func (c *counter) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began, c.ops = time.Now(), map[string]*tally{}
}

// since is when it began to count.
func (c *counter) since() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.began
}

func (c *counter) of(op string) *tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tally(op)
}

func (c *counter) tally(op string) *tally {
	if c.ops[op] == nil {
		c.ops[op] = &tally{bySecond: map[int]int64{}}
	}
	return c.ops[op]
}

func (c *counter) RoundTrip(q *http.Request) (*http.Response, error) {
	res, err := c.next.RoundTrip(q)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.tally(strings.TrimPrefix(q.URL.Path, "/"))
	settled := time.Since(c.began) > learning
	n.count(&n.requests, &n.settled, settled)
	if res.StatusCode != http.StatusOK {
		n.count(&n.refused, &n.late, settled)
		return res, nil
	}
	units := int64(0)
	switch q.URL.Path {
	case "/GetRange":
		var answer otsprotocol.GetRangeResponse
		if err := proto.Unmarshal(body, &answer); err != nil {
			return nil, err
		}
		units = int64(answer.Consumed.CapacityUnit.GetRead())
	case "/BatchWriteRow":
		var answer otsprotocol.BatchWriteRowResponse
		if err := proto.Unmarshal(body, &answer); err != nil {
			return nil, err
		}
		for _, t := range answer.Tables {
			for _, r := range t.Rows {
				n.count(&n.rows, &n.rowsSettled, settled)
				if !r.GetIsOk() {
					n.count(&n.rowsRefused, &n.rowsLate, settled)
				}
				units += int64(r.GetConsumed().GetCapacityUnit().GetWrite())
			}
		}
	}
	n.units += units
	n.bySecond[int(time.Since(c.began)/time.Second)] += units
	return res, nil
}

// A service is a vault, a Tablestore server and functions that run side by side,
// in a test's own time.
type service struct {
	*vaulttest.World
	server *ots.Server
	client *tablestore.Client
	wire   *counter
	limit  time.Duration // of an invocation
	twice  bool          // each delivery comes twice

	all      sync.WaitGroup
	mu       sync.Mutex
	failures []error
	replies  int // invocations
}

// newService returns a service whose answers take latency.
func newService(t *testing.T, latency time.Duration) *service {
	t.Helper()
	server, err := ots.New(ots.Config{Now: time.Now, Fault: func(string, string, int) *ots.Fault { return &ots.Fault{Delay: latency} }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &service{World: vaulttest.NewWorld(t), server: server, wire: &counter{next: server}, limit: 2 * time.Minute}
	s.wire.reset()
	s.Store = &mem.Store{}
	if s.Repo, err = repository.Init(t.Context(), s.Store, time.Now()); err != nil {
		t.Fatal(err)
	}
	s.client, err = tablestore.New(tablestore.Config{
		Endpoint: "http://local", Instance: "local", Transport: s.wire,
		Credentials: func(context.Context) (tablestore.Credentials, error) {
			return tablestore.Credentials{ID: ots.DefaultKeyID, Secret: ots.DefaultKeySecret}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Instance = s.client
	return s
}

// keys makes a table of so many integer keys, whose rows have a cell of size
// bytes.
func (s *service) keys(rows, size int) {
	s.T.Helper()
	def := vaulttest.Definition()
	def.Schema = vaulttest.IntKey
	if err := s.client.Create(s.T.Context(), def); err != nil {
		s.T.Fatal(err)
	}
	batch := s.client.NewBatch()
	flush := func() {
		result, err := s.client.Write(s.T.Context(), def.Name, batch)
		if err != nil || len(result.Refused) > 0 {
			s.T.Fatalf("%+v, %v", result.Refused, err)
		}
		batch.Reset()
	}
	random := rand.New(rand.NewPCG(1, 1))
	text := make([]byte, size)
	for i := range rows {
		for k := range text {
			text[k] = byte('!' + random.IntN(90))
		}
		row := tabletest.Encode(vaulttest.IntKey, tabletest.Row{Key: table.Key{table.Integer(int64(i))}, Cells: []plainbuffer.Cell{tabletest.Cell("c", time.Now().UnixMilli(), string(text))}})
		if !batch.Add(row, table.Put) {
			flush()
			batch.Add(row, table.Put)
		}
	}
	flush()
}

// read is the table as printed rows.
func (s *service) read(name string) map[string]string {
	s.T.Helper()
	rows := map[string]string{}
	scan := s.client.Scan(name, vaulttest.IntKey, vaulttest.IntKey.Whole())
	buf := make([]byte, 0, 4<<20)
	for {
		page, err := scan.Next(s.T.Context(), buf)
		if err == io.EOF {
			return rows
		}
		if err != nil {
			s.T.Fatal(err)
		}
		scanner := plainbuffer.NewScanner(page.Block)
		var row plainbuffer.Row
		for scanner.Next(&row) == nil {
			rows[table.KeyOf(row.Key).String()] = vaulttest.PrintCells(row.Cells)
		}
	}
}

// Submit runs the work beside what runs.
func (s *service) Submit(_ context.Context, w fanout.Work) error {
	if w.After != "" {
		return nil // the test looks by itself
	}
	s.deliver(w, 0)
	if s.twice {
		s.deliver(w, 1) // a retry, which does not leave the segment to the first
	}
	return nil
}

func (s *service) deliver(w fanout.Work, retry int) {
	s.all.Go(func() {
		now := time.Now()
		run := fanout.Run{Request: fmt.Sprint("request ", vaulttest.Requests.Add(1)), Retry: retry, Now: time.Now, Stop: now.Add(s.limit - 10*time.Second), Until: now.Add(s.limit)}
		ctx, cancel := context.WithDeadline(s.T.Context(), run.Until)
		defer cancel()
		var err error
		switch w.Verb {
		case fanout.VerbExport:
			e := s.Exporter()
			e.Work, e.Encoders = s, 1
			_, err = e.Export(ctx, run, w)
		case fanout.VerbImport:
			i := s.Importer()
			i.Work = s
			_, err = i.Import(ctx, run, w)
		case fanout.VerbVerify:
			v := s.Verifier()
			v.Now, v.Work = time.Now, s
			_, err = v.VerifySegment(ctx, run, w)
		default:
			err = errors.New("unexpected work")
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.replies++
		if err != nil {
			s.failures = append(s.failures, fmt.Errorf("%s %s: %w", w.Verb, w.Segment, err))
		}
	})
}

// backUp plans a backup and looks every few seconds until it is sealed. It returns
// the paces that were seen on the way.
func (s *service) backUp(workers int, settings vault.Settings, points ...table.Key) (*vault.Manifest, []*fanout.Pace) {
	s.T.Helper()
	p := s.Planner()
	p.Work, p.Now, p.Workers = s, time.Now, workers
	p.Tables = vaulttest.Cut{Instance: s.client, Points: points}
	plan, err := p.Plan(s.T.Context(), backup.PlanRequest{Table: vaulttest.SourceID, Kind: vault.Full, At: time.Now(), Trigger: "test", New: true, Settings: settings})
	if err != nil {
		s.T.Fatal(err)
	}
	p.Tables = s.client
	var seen []*fanout.Pace
	for range 1000 {
		progress, err := p.Tick(s.T.Context(), fanout.Run{Request: "r", Now: time.Now}, vault.Backup{Table: plan.Table, ID: plan.Backup})
		if err != nil {
			s.T.Fatal(err)
		}
		if progress.LastError != "" {
			s.T.Errorf("%s", progress.LastError)
		}
		if progress.Manifest != nil {
			s.all.Wait()
			return progress.Manifest, seen
		}
		if progress.Pace != nil {
			seen = append(seen, progress.Pace)
		}
		time.Sleep(3 * time.Second)
	}
	s.T.Fatal("the backup does not end")
	return nil, nil
}

// bringBack restores a backup and looks every few seconds until that is done. It
// returns the paces that were seen on the way, and how long loading took.
func (s *service) bringBack(workers int, m *vault.Manifest, budget vault.Budget) (p restore.Progress, seen []*fanout.Pace, loading time.Duration) {
	s.T.Helper()
	i := s.Importer()
	i.Work, i.Workers = s, workers
	run := func() fanout.Run { return fanout.Run{Request: "r", Now: time.Now} }
	begun := time.Now()
	plan, err := i.Begin(s.T.Context(), run(), restore.Request{Backup: vault.Backup{Table: m.Table, ID: m.Backup}, Target: vaulttest.TargetID, At: begun, Budget: budget})
	if err != nil {
		s.T.Fatal(err)
	}
	for range 1000 {
		p, err := i.Tick(s.T.Context(), run(), plan.Restore)
		if err != nil {
			s.T.Fatal(err)
		}
		if p.LastError != "" {
			s.T.Errorf("%s", p.LastError)
		}
		if p.State == restore.StateLoading {
			loading = time.Since(begun)
		}
		if p.State == restore.StateDone || p.State == backup.StateFailed {
			s.all.Wait()
			return p, seen, loading
		}
		if p.Pace != nil {
			seen = append(seen, p.Pace)
		}
		time.Sleep(3 * time.Second)
	}
	s.T.Fatal("the restore does not end")
	return p, nil, 0
}

// calm checks that no invocation failed and no failure was noted under prefix.
func (s *service) calm(prefix string) {
	s.T.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, err := range s.failures {
		s.T.Error(err)
	}
	for info, err := range s.Store.List(s.T.Context(), prefix, "") {
		if err != nil {
			s.T.Fatal(err)
		}
		if strings.Contains(info.Name, "failures/") {
			s.T.Errorf("a failure is noted: %s", info.Name)
		}
	}
}

// TestThrottledReads backs a table up whose server has fewer read units than the
// workers could use, and says so in the service's ways.
func TestThrottledReads(t *testing.T) {
	const rows, size, capacity = 6000, 2000, 100
	for _, code := range []string{engine.CodeNotEnoughCapacity, engine.CodeServerBusy} {
		t.Run(code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newService(t, 10*time.Millisecond)
				s.keys(rows, size)
				want := s.read(vaulttest.SourceID.Table)
				s.server.Engine().SetBehavior(engine.Behavior{ReadCapacity: capacity, ThrottleCode: code})
				s.wire.reset()
				begun := time.Now()
				m, seen := s.backUp(4, vault.Settings{Lanes: 4, PartBytes: 128 << 10}, vaulttest.Cuts(rows, 16)...)
				took := time.Since(begun)
				s.server.Engine().SetBehavior(engine.Behavior{})
				n := s.wire.of("GetRange")
				t.Logf("%v: %d requests, %d refused, %d of %d after %v; %d units, at most %d in 10 s", took, n.requests, n.refused, n.late, n.settled, learning, n.units, n.most(10))
				// Sixteen readers that know nothing are refused some times at first; then one
				// request in ten.
				if n.refused == 0 || n.refused > n.requests/5 || n.late > n.settled/10 {
					t.Errorf("%d of %d requests were refused, %d of %d after %v", n.refused, n.requests, n.late, n.settled, learning)
				}
				// What the service gives is used.
				if best := time.Duration(n.units/capacity) * time.Second; took > 2*best {
					t.Errorf("it took %v for %v of units", took, best)
				}
				throttled := 0
				for _, p := range seen {
					if p.Reason == vault.PacedByService && p.Throttled > 0 && p.Workers > 0 {
						throttled++
					}
				}
				if throttled == 0 {
					t.Errorf("no look says that the service throttles: %v", seen)
				}
				s.calm("")
				if got := vaulttest.Contents(t, s.Repo, m); !maps.Equal(got, want) {
					t.Errorf("%d rows of %d", len(got), len(want))
				}
			})
		})
	}
}

// TestReadBudget backs a table up with a budget of read units, through short
// invocations and with more segments than workers: by the service's account no
// ten seconds in a row have more than the budget, and a single one no more than
// twice of it: requests come when they come.
func TestReadBudget(t *testing.T) {
	const rows, size, budget, workers = 4000, 2000, 60, 4
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, 10*time.Millisecond)
		s.limit = 20 * time.Second
		s.keys(rows, size)
		want := s.read(vaulttest.SourceID.Table)
		s.wire.reset()
		begun := time.Now()
		m, seen := s.backUp(workers, vault.Settings{Lanes: 4, PartBytes: 128 << 10, ReadUnits: budget}, vaulttest.Cuts(rows, 32)...)
		took := time.Since(begun)
		n := s.wire.of("GetRange")
		t.Logf("%v in %d invocations: %d requests, %d units, at most %d in 1 s, %d in 3 s, %d in 10 s", took, s.replies, n.requests, n.units, n.most(1), n.most(3), n.most(10))
		for seconds, most := range map[int]int64{1: 2 * budget, 3: 4 * budget, 10: 10 * budget, 30: 30 * budget} {
			if n.most(seconds) > most {
				t.Errorf("%d units in %d s: want at most %d", n.most(seconds), seconds, most)
			}
		}
		if best := time.Duration(n.units/budget) * time.Second; took > best*3/2 {
			t.Errorf("it took %v for %v of units", took, best)
		}
		held := 0
		for _, p := range seen {
			if p.Reason == vault.PacedByBudget && p.ReadUnits > 0 && p.ReadUnits <= budget {
				held++
			}
		}
		if held == 0 {
			t.Errorf("no look says that the budget holds the workers: %v", seen)
		}
		s.calm("")
		if got := vaulttest.Contents(t, s.Repo, m); !maps.Equal(got, want) {
			t.Errorf("%d rows of %d", len(got), len(want))
		}
	})
}

// TestThrottledWrites restores a table whose server has fewer write units than the
// workers could use, and refuses some rows of batches that it takes otherwise.
func TestThrottledWrites(t *testing.T) {
	const rows, size, capacity = 6000, 2000, 150
	for _, code := range []string{engine.CodeNotEnoughCapacity, engine.CodeServerBusy} {
		t.Run(code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newService(t, 10*time.Millisecond)
				s.keys(rows, size)
				want := s.read(vaulttest.SourceID.Table)
				// Parts of a few dozen rows, so that looks see some of each segment.
				s.server.Engine().SetBehavior(engine.Behavior{PageRows: 50})
				m, _ := s.backUp(4, vault.Settings{Lanes: 1, PartBytes: 64 << 10}, vaulttest.Cuts(rows, 12)...)
				s.server.Engine().SetBehavior(engine.Behavior{WriteCapacity: capacity, ThrottleCode: code})
				s.server.SetFault(func(op, _ string, n int) *ots.Fault {
					f := &ots.Fault{Delay: 10 * time.Millisecond}
					if op == "BatchWriteRow" && n%11 == 5 && time.Since(s.wire.since()) < learning {
						f.Rows = map[int]*engine.Error{}
						for i := 0; i < 200; i += 3 {
							f.Rows[i] = engine.Refusal(code)
						}
					}
					return f
				})
				s.wire.reset()
				p, seen, took := s.bringBack(4, m, vault.Budget{})
				s.server.Engine().SetBehavior(engine.Behavior{})
				n := s.wire.of("BatchWriteRow")
				t.Logf("%v: %d requests, %d refused, %d of %d after %v; %d rows, %d refused, %d of %d; %d units, at most %d in 10 s", took, n.requests, n.refused, n.late, n.settled, learning,
					n.rows, n.rowsRefused, n.rowsLate, n.rowsSettled, n.units, n.most(10))
				// About one row in six is sent again, and later one in twelve; without a pace
				// it is two in three.
				if n.rowsRefused == 0 || n.rowsRefused > n.rows/3 || n.rowsLate > n.rowsSettled/5 {
					t.Errorf("%d of %d rows were refused, %d of %d after %v", n.rowsRefused, n.rows, n.rowsLate, n.rowsSettled, learning)
				}
				if best := time.Duration(n.units/capacity) * time.Second; took > 2*best {
					t.Errorf("it took %v for %v of units", took, best)
				}
				if p.Proof == nil || p.Proof.Verdict != vault.OK || p.Proof.Check.Rows != rows {
					t.Errorf("%+v", p)
				}
				throttled := 0
				for _, p := range seen {
					if p.Reason == vault.PacedByService && p.Throttled > 0 && p.WriteUnits > 0 && p.ReadUnits == 0 {
						throttled++
					}
				}
				if throttled == 0 {
					t.Errorf("no look says that the service throttles: %v", seen)
				}
				s.calm("")
				if got := s.read(vaulttest.TargetID.Table); !maps.Equal(got, want) {
					t.Errorf("%d rows of %d", len(got), len(want))
				}
			})
		})
	}
}

// held counts the paces of a reason that hold workers to a rate of units, at most
// to most, if that is not zero.
func held(seen []*fanout.Pace, reason string, writes bool, most float64) (n int) {
	for _, p := range seen {
		units, others := p.ReadUnits, p.WriteUnits
		if writes {
			units, others = others, units
		}
		if p.Reason == reason && p.Workers > 0 && units > 0 && others == 0 && (most == 0 || units <= most) {
			n++
		}
	}
	return n
}

// within checks that no seconds in a row have more units than a budget gives, and a
// few of them not many more: requests come when they come.
func (c *tally) within(t *testing.T, budget int64) {
	t.Helper()
	for seconds, most := range map[int]int64{1: 2 * budget, 3: 4 * budget, 10: 10 * budget, 30: 30 * budget} {
		if c.most(seconds) > most {
			t.Errorf("%d units in %d s: want at most %d", c.most(seconds), seconds, most)
		}
	}
	if c.units < 12*budget {
		t.Errorf("%d units in all are too few to tell", c.units)
	}
}

// TestRestoreBudgets restores a table with a budget of write units for loading and
// one of read units for comparing, through short invocations and with more segments
// than workers: by the service's account no ten seconds in a row have more.
func TestRestoreBudgets(t *testing.T) {
	const rows, size, writes, reads, workers = 6000, 2000, 200, 80, 4
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, 10*time.Millisecond)
		s.keys(rows, size)
		want := s.read(vaulttest.SourceID.Table)
		s.server.Engine().SetBehavior(engine.Behavior{PageRows: 50})
		m, _ := s.backUp(workers, vault.Settings{Lanes: 2, PartBytes: 64 << 10}, vaulttest.Cuts(rows, 64)...)
		s.server.Engine().SetBehavior(engine.Behavior{})
		s.limit = 20 * time.Second
		s.wire.reset()
		begun := time.Now()
		p, seen, loading := s.bringBack(workers, m, vault.Budget{ReadUnits: reads, WriteUnits: writes})
		took := time.Since(begun)
		w, r := s.wire.of("BatchWriteRow"), s.wire.of("GetRange")
		t.Logf("loaded in %v, all in %v, in %d invocations: %d batches, %d units, at most %d in 1 s, %d in 3 s, %d in 10 s; %d pages, %d units, at most %d, %d and %d",
			loading, took, s.replies, w.requests, w.units, w.most(1), w.most(3), w.most(10), r.requests, r.units, r.most(1), r.most(3), r.most(10))
		w.within(t, writes)
		r.within(t, reads)
		if best := time.Duration(w.units/writes) * time.Second; loading > best*3/2 {
			t.Errorf("loading took %v for %v of units", loading, best)
		}
		if best := time.Duration(r.units/reads) * time.Second; took-loading > best*3/2+10*time.Second {
			t.Errorf("comparing took %v for %v of units", took-loading, best)
		}
		if held(seen, vault.PacedByBudget, true, writes) == 0 || held(seen, vault.PacedByBudget, false, reads) == 0 {
			t.Errorf("no look says that the budgets hold the workers: %v", seen)
		}
		if p.Proof == nil || p.Proof.Verdict != vault.OK || p.Proof.Check.Rows != rows {
			t.Errorf("%+v", p)
		}
		s.calm("")
		if got := s.read(vaulttest.TargetID.Table); !maps.Equal(got, want) {
			t.Errorf("%d rows of %d", len(got), len(want))
		}
	})
}

// TestThrottledComparison compares a restored table whose server has fewer read units
// than the workers could use.
func TestThrottledComparison(t *testing.T) {
	const rows, size, capacity = 6000, 2000, 100
	for _, code := range []string{engine.CodeNotEnoughCapacity, engine.CodeServerBusy} {
		t.Run(code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newService(t, 10*time.Millisecond)
				s.keys(rows, size)
				m, _ := s.backUp(4, vault.Settings{Lanes: 4, PartBytes: 128 << 10}, vaulttest.Cuts(rows, 64)...)
				s.server.Engine().SetBehavior(engine.Behavior{ReadCapacity: capacity, ThrottleCode: code})
				s.wire.reset()
				begun := time.Now()
				p, seen, loading := s.bringBack(4, m, vault.Budget{})
				took := time.Since(begun) - loading
				n := s.wire.of("GetRange")
				t.Logf("%v: %d requests, %d refused, %d of %d after %v; %d units, at most %d in 10 s", took, n.requests, n.refused, n.late, n.settled, learning, n.units, n.most(10))
				if n.refused == 0 || n.refused > n.requests/5 || n.late > n.settled/10 {
					t.Errorf("%d of %d requests were refused, %d of %d after %v", n.refused, n.requests, n.late, n.settled, learning)
				}
				if best := time.Duration(n.units/capacity) * time.Second; took > 2*best {
					t.Errorf("it took %v for %v of units", took, best)
				}
				if held(seen, vault.PacedByService, false, 0) == 0 {
					t.Errorf("no look says that the service throttles: %v", seen)
				}
				if p.Proof == nil || p.Proof.Verdict != vault.OK || p.Proof.Check.Rows != rows {
					t.Errorf("%+v", p)
				}
				s.calm("")
			})
		})
	}
}

// TestRestoreBudgetIsDivided gives each worker of a restore its share, has never more
// workers than that was divided over, and refuses a budget by which there would be no
// end, or that is not the restore's.
func TestRestoreBudgetIsDivided(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Keyed(vaulttest.IntKey, vaulttest.Ints(100))
	points := []table.Key{}
	for i := 1; i < 10; i++ {
		points = append(points, table.Key{table.Integer(int64(i * 10))})
	}
	p := w.Planner()
	quick := func() (time.Duration, bool) { return 0, false }
	w.Instance = vaulttest.Busy{Instance: w.Tables, Units: 1000, Answer: quick}
	m := w.Sealed(p, w.Plan(p, vault.Settings{Lanes: 1}, points...))
	w.Instance = nil
	ask := func(b vault.Budget) (*vault.RestorePlan, error) {
		req := w.Request(m)
		req.Budget = b
		i := w.Importer()
		i.Workers = 4
		return i.Begin(t.Context(), w.Run(), req)
	}
	for _, b := range []vault.Budget{{ReadUnits: -1}, {WriteUnits: 0.5}, {WriteUnits: math.NaN()}, {ReadUnits: math.Inf(1)}} {
		if _, err := ask(b); !errors.Is(err, table.ErrInvalid) || !strings.Contains(err.Error(), "units per second") {
			t.Errorf("%s: %v", b, err)
		}
	}
	// No segment could be compared; the target is free for another restore.
	if _, err := ask(vault.Budget{ReadUnits: 1}); !errors.Is(err, table.ErrInvalid) || !strings.Contains(err.Error(), "want at least 2") {
		t.Errorf("%v", err)
	}
	w.Advance(time.Second)
	plan, err := ask(vault.Budget{ReadUnits: 16, WriteUnits: 150})
	if err != nil {
		t.Fatal(err)
	}
	if plan.Loaders != 3 || plan.Comparers != 2 {
		t.Errorf("%d workers load, %d compare", plan.Loaders, plan.Comparers)
	}
	w.Advance(time.Second)
	if again, err := ask(vault.Budget{}); err != nil || again.Restore != plan.Restore {
		t.Errorf("without a budget: %+v, %v", again, err)
	}
	if _, err := ask(vault.Budget{WriteUnits: 150}); !errors.Is(err, table.ErrInvalid) || !strings.Contains(err.Error(), "a budget of 150 write and 16 read units/s") {
		t.Errorf("with another budget: %v", err)
	}
	look := func(live, workers int) []fanout.Work {
		t.Helper()
		i := w.Importer()
		i.Workers = 50 // by now, the policy allows more
		progress, err := i.Tick(t.Context(), w.Run(), plan.Restore)
		if err != nil || progress.Live != live || progress.Dispatched != workers {
			t.Fatalf("%+v, %v", progress, err)
		}
		return w.Drain()
	}
	queue := look(0, 3)
	for _, work := range queue {
		if work.Verb != fanout.VerbImport || work.WriteUnits != 50 || work.ReadUnits != 0 {
			t.Errorf("%+v", work)
		}
	}
	for _, work := range queue {
		if err := vaulttest.BeginAndDie(w, work); err != nil {
			t.Fatal(err)
		}
	}
	look(3, 0)
	w.Advance(11 * time.Minute)
	queue = look(0, 3)
	w.Queue = queue
	w.Work()
	for _, work := range look(0, 2) {
		if work.Verb != fanout.VerbVerify || work.ReadUnits != 8 || work.WriteUnits != 0 {
			t.Errorf("%+v", work)
		}
	}
}

// TestComparisonGoesOn compares segments that no invocation could compare at the rate
// that the budget leaves, and one of which has lost rows: what each has come to the end
// of is kept, and the next goes on. Two that compare the same do not count it twice.
func TestComparisonGoesOn(t *testing.T) {
	const rows, size, reads, workers = 6000, 2000, 100, 2
	for _, test := range []struct {
		name  string
		lost  int
		twice bool
	}{{"as it is", 0, false}, {"rows lost", 3, false}, {"each twice", 0, true}} {
		t.Run(test.name, func(t *testing.T) {
			lost := test.lost
			synctest.Test(t, func(t *testing.T) {
				s := newService(t, 10*time.Millisecond)
				s.keys(rows, size)
				m, _ := s.backUp(workers, vault.Settings{Lanes: 8}, vaulttest.Cuts(rows, 24)...)
				if m.Segments != 3 {
					t.Fatalf("%d segments", m.Segments)
				}
				// A segment is a thousand units, a lane an eighth of it; a worker has ten
				// seconds of fifty units each.
				s.limit, s.twice = 20*time.Second, test.twice
				s.wire.reset()
				var once atomic.Bool
				s.server.SetFault(func(op, _ string, _ int) *ots.Fault {
					f := &ots.Fault{Delay: 10 * time.Millisecond}
					if op == "BatchWriteRow" && lost > 0 && once.CompareAndSwap(false, true) {
						f.Rows = map[int]*engine.Error{}
						for i := range lost {
							f.Rows[i] = engine.Refusal("OTSParameterInvalid")
						}
					}
					return f
				})
				p, seen, loading := s.bringBack(workers, m, vault.Budget{ReadUnits: reads})
				n := s.wire.of("GetRange")
				t.Logf("loaded after %v, %d invocations, %d pages of %d units", loading, s.replies, n.requests, n.units)
				if !test.twice {
					n.within(t, reads)
				}
				if s.replies < 9 {
					t.Errorf("%d invocations", s.replies)
				}
				verdict := vault.OK
				if lost > 0 {
					verdict = vault.Quarantined
				}
				if p.Proof == nil || p.Proof.Verdict != verdict || p.Proof.Check.Rows != rows || p.Proof.Check.Target != rows-int64(lost) || p.Proof.Check.Missing != int64(lost) {
					t.Errorf("%+v", p)
				}
				if c := p.Proof.Check; c.Digest != m.Totals.Digest || c.Objects != 2*int64(m.Totals.Parts) {
					t.Errorf("digest %s of %s, %d objects of %d parts", c.Digest, m.Totals.Digest, c.Objects, m.Totals.Parts)
				}
				if held(seen, vault.PacedByBudget, false, reads) == 0 {
					t.Errorf("no look says that the budget holds the workers: %v", seen)
				}
				slots := 0
				for info, err := range s.Store.List(t.Context(), vault.Restore{ID: p.Restore}.Verify().Slots(""), "") {
					if err != nil {
						t.Fatal(err)
					}
					if slots++; !strings.HasSuffix(info.Name, ".json") {
						t.Error(info.Name)
					}
				}
				if slots < 3 {
					t.Errorf("%d entries of comparisons", slots)
				}
				s.calm("")
			})
		})
	}
}
