package core_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	//lint:ignore SA1019 the official SDK's messages are of this API
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/access"
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

// best is how long the units take at a rate.
func (c *tally) best(rate int64) time.Duration { return time.Duration(c.units/rate) * time.Second }

func (c *tally) String() string {
	return fmt.Sprintf("%d requests, %d refused, %d of %d after %v; %d rows, %d refused, %d of %d; %d units, at most %d in 1 s, %d in 3 s, %d in 10 s",
		c.requests, c.refused, c.late, c.settled, learning, c.rows, c.rowsRefused, c.rowsLate, c.rowsSettled, c.units, c.most(1), c.most(3), c.most(10))
}

// within checks that no seconds in a row have more units than a budget gives, and a few
// of them not many more: requests come when they come.
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

// learnt checks that requests were refused: some, since workers know nothing at first,
// and then one in ten at most.
func (c *tally) learnt(t *testing.T) {
	t.Helper()
	if c.refused == 0 || c.refused > c.requests/5 || c.late > c.settled/10 {
		t.Errorf("%d of %d requests were refused, %d of %d after %v", c.refused, c.requests, c.late, c.settled, learning)
	}
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

// A service is a vault, a Tablestore server and functions that run side by side, in a
// test's own time.
type service struct {
	*vaulttest.World
	server *ots.Server
	client *tablestore.Client
	wire   *counter
	limit  time.Duration // of an invocation
	twice  bool          // each delivery comes twice

	// What is measured: when that began, the paces that looks have seen, how long it took
	// until all was loaded, and until all was done.
	begun         time.Time
	seen          []*fanout.Pace
	loading, took time.Duration

	all      sync.WaitGroup
	mu       sync.Mutex
	failures []error
	replies  int // invocations
}

// latency is how long the service takes for an answer.
const latency = 10 * time.Millisecond

// serve runs a test of a service, on a clock of its own. Nothing fails in it.
func serve(t *testing.T, test func(t *testing.T, s *service)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		test(t, s)
		s.calm()
	})
}

func newService(t *testing.T) *service {
	t.Helper()
	server := otstest.New(t, ots.Config{Now: time.Now, Fault: func(string, string, int) *ots.Fault { return &ots.Fault{Delay: latency} }})
	s := &service{World: vaulttest.NewWorld(t), server: server, wire: &counter{next: server}, limit: 2 * time.Minute}
	s.wire.reset()
	s.Store = &mem.Store{}
	var err error
	if s.Repo, err = repository.Init(t.Context(), s.Store, time.Now()); err != nil {
		t.Fatal(err)
	}
	s.client, err = tablestore.New(tablestore.Config{
		Endpoint: "http://local", Instance: "local", Transport: s.wire,
		Credentials: access.Key{ID: ots.DefaultKeyID, Secret: ots.DefaultKeySecret}.Provider(),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Instance = s.client
	return s
}

// behave has the server behave in some way from now on.
func (s *service) behave(b engine.Behavior) { s.server.Engine().SetBehavior(b) }

// refuse has the service refuse rows of the batches of which when says so: one in step of
// their first rows.
func (s *service) refuse(code string, rows, step int, when func(n int) bool) {
	s.server.SetFault(func(op, _ string, n int) *ots.Fault {
		f := &ots.Fault{Delay: latency}
		if op == "BatchWriteRow" && when(n) {
			f.Rows = map[int]*engine.Error{}
			for i := 0; i < rows; i += step {
				f.Rows[i] = engine.Refusal(code)
			}
		}
		return f
	})
}

// measure begins to measure anew.
func (s *service) measure() {
	s.wire.reset()
	s.begun, s.seen = time.Now(), nil
}

// keys makes a table of so many integer keys, whose rows have a cell of size bytes.
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
			l := s.Loader()
			l.Work = s
			_, err = l.Load(ctx, run, w)
		case fanout.VerbVerify:
			c := s.Checker()
			c.Work = s
			_, err = c.Check(ctx, run, w)
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

// backUp plans a backup and looks every few seconds until it is sealed.
func (s *service) backUp(workers int, settings vault.Settings, points ...table.Key) *vault.Manifest {
	s.T.Helper()
	p := s.Planner()
	p.Work, p.Now, p.Workers = s, time.Now, workers
	p.Tables = vaulttest.Cut{Instance: s.client, Points: points}
	plan, err := p.Plan(s.T.Context(), backup.PlanRequest{Table: vaulttest.SourceID, Kind: vault.Full, At: time.Now(), Trigger: "test", New: true, Settings: settings})
	if err != nil {
		s.T.Fatal(err)
	}
	p.Tables = s.client
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
			s.took = time.Since(s.begun)
			return progress.Manifest
		}
		if progress.Pace != nil {
			s.seen = append(s.seen, progress.Pace)
		}
		time.Sleep(3 * time.Second)
	}
	s.T.Fatal("the backup does not end")
	return nil
}

// bringBack restores a backup and looks every few seconds until that is done.
func (s *service) bringBack(workers int, m *vault.Manifest, budget vault.Budget) restore.Progress {
	s.T.Helper()
	planner := s.Restorer()
	planner.Work, planner.Workers = s, workers
	run := func() fanout.Run { return fanout.Run{Request: "r", Now: time.Now} }
	begun := time.Now()
	plan, err := planner.Begin(s.T.Context(), run(), restore.Request{Backup: vault.Backup{Table: m.Table, ID: m.Backup}, Target: vaulttest.TargetID, At: begun, Budget: budget})
	if err != nil {
		s.T.Fatal(err)
	}
	for range 1000 {
		p, err := planner.Tick(s.T.Context(), run(), plan.Restore)
		if err != nil {
			s.T.Fatal(err)
		}
		if p.LastError != "" {
			s.T.Errorf("%s", p.LastError)
		}
		if p.State == restore.StateLoading {
			s.loading = time.Since(begun)
		}
		if p.State == restore.StateDone || p.State == backup.StateFailed {
			s.all.Wait()
			s.took = time.Since(begun)
			return p
		}
		if p.Pace != nil {
			s.seen = append(s.seen, p.Pace)
		}
		time.Sleep(3 * time.Second)
	}
	s.T.Fatal("the restore does not end")
	return restore.Progress{}
}

// calm checks that no invocation failed and no failure was noted.
func (s *service) calm() {
	s.T.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, err := range s.failures {
		s.T.Error(err)
	}
	for info, err := range s.Store.List(s.T.Context(), "", "") {
		if err != nil {
			s.T.Fatal(err)
		}
		if strings.Contains(info.Name, "failures/") {
			s.T.Errorf("a failure is noted: %s", info.Name)
		}
	}
}

// heldBack checks that a look has seen workers held back for a reason, to a rate of read
// or write units, at most to most, if that is not zero.
func (s *service) heldBack(reason string, writes bool, most float64) {
	s.T.Helper()
	for _, p := range s.seen {
		units, others := p.ReadUnits, p.WriteUnits
		if writes {
			units, others = others, units
		}
		if p.Reason == reason && p.Workers > 0 && (reason != vault.PacedByService || p.Throttled > 0) && units > 0 && others == 0 && (most == 0 || units <= most) {
			return
		}
	}
	s.T.Errorf("no look says that workers are held back for the reason %q: %v", reason, s.seen)
}

// quick checks that what the service gives was used.
func quick(t *testing.T, took, most time.Duration) {
	t.Helper()
	if took > most {
		t.Errorf("it took %v, want at most %v", took, most)
	}
}

// proved checks that a restore of so many rows was proved.
func proved(t *testing.T, p restore.Progress, rows int64) {
	t.Helper()
	if p.Proof == nil || p.Proof.Verdict != vault.OK || p.Proof.Check.Rows != rows {
		t.Errorf("%+v", p)
	}
}

// documents counts the objects under a prefix, each of which is a document.
func (s *service) documents(prefix string) (n int) {
	s.T.Helper()
	for info, err := range s.Store.List(s.T.Context(), prefix, "") {
		if err != nil {
			s.T.Fatal(err)
		}
		if n++; !strings.HasSuffix(info.Name, ".json") {
			s.T.Error(info.Name)
		}
	}
	return n
}
