package restore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/objectfault"
	"github.com/tablevault/tablevault/shared/object/objectmeter"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
	"github.com/tablevault/tablevault/shared/verify"
)

func TestLateDeliveryTouchesNothing(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 200)
	m := w.Backup(vaulttest.Small)
	plan := w.Begin(m)
	w.Proved(w.Finish(plan.Restore), vault.OK)
	// The table is handed over, and its owner writes.
	w.Tables.Delete(vaulttest.TargetID.Table, w.Tables.Rows(vaulttest.TargetID.Table)[5].Key)
	writes := w.Tables.Calls("Write")
	for _, s := range plan.Segments {
		for _, start := range []int{0, 7} {
			reply, err := w.Loader().Load(t.Context(), w.Run(), fanout.Work{Verb: fanout.VerbImport, Restore: plan.Restore, Segment: s.ID, Start: start})
			if err != nil || !reply.Closed {
				t.Fatalf("a late delivery of segment %s: %+v, %v", s.ID, reply, err)
			}
		}
	}
	if n := w.Tables.Calls("Write") - writes; n != 0 {
		t.Errorf("%d batches were written to a table that was handed over", n)
	}
}

// TestClosingStopsWriters closes a restore while its writers are at work: a second later,
// nothing more is written after the batch that is being written.
func TestClosingStopsWriters(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 3000)
	m := w.Backup(vault.Settings{})
	plan := w.Begin(m)
	w.Tables.Fault = func(c tabletest.Call) error {
		if c.Name != "Write" || c.After {
			return nil
		}
		switch c.N {
		case 2:
			if _, err := restore.GiveUp(t.Context(), w.Repo, w.Run(), plan.Restore, "enough"); err != nil {
				t.Error(err)
			}
		case 5:
			w.Advance(time.Second)
		}
		return nil
	}
	l := w.Loader()
	l.Memory = 1 // one writer
	reply, err := l.Load(t.Context(), w.Run(), fanout.Work{Verb: fanout.VerbImport, Restore: plan.Restore, Segment: plan.Segments[0].ID})
	if err != nil || !reply.Closed {
		t.Fatalf("%+v, %v", reply, err)
	}
	if n := w.Tables.Calls("Write"); n != 6 {
		t.Errorf("%d batches were written, want the 6 that had begun", n)
	}
	if p := w.Finish(plan.Restore); p.State != backup.StateFailed || p.LastError != "enough" {
		t.Errorf("%+v", p)
	}
}

// TestHandOverWaitsForWriters holds a start open that has noted itself: the restore is
// not closed before it has ended, or its deadline has passed.
func TestHandOverWaitsForWriters(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 50)
	m := w.Backup(vault.Settings{})
	plan := w.Begin(m)
	tick := func() restore.Progress {
		t.Helper()
		p, err := w.Restorer().Tick(t.Context(), w.Run(), plan.Restore)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	tick()
	end := loadedBesideAWriter(w)
	w.Queue = nil
	if p := tick(); p.State != restore.StateVerifying || !strings.Contains(p.Waiting, "start 0 of segment 000000") {
		t.Fatalf("with a writer at work: %+v", p)
	}
	watchedWaiting(w, plan.Restore, "start 0 of segment 000000")
	w.Advance(9 * time.Minute)
	if p := tick(); p.Waiting == "" {
		t.Fatalf("before the writer's deadline: %+v", p)
	}
	end()
	watchedWaiting(w, plan.Restore, "")
	if p := tick(); p.Waiting != "" || p.Dispatched == 0 {
		t.Fatalf("after the writer has ended: %+v", p)
	}
	w.Proved(w.Finish(plan.Restore), vault.OK)
	w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
}

// loadedBesideAWriter has a delivery of the command at hand hang in its first batch, and
// another one load the segment. What it returns waits for the first to end.
func loadedBesideAWriter(w *vaulttest.World) (end func()) {
	w.T.Helper()
	hang, hung, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	w.Tables.Fault = func(c tabletest.Call) error {
		if c.Name == "Write" && !c.After && first.CompareAndSwap(false, true) {
			close(hung)
			<-hang
		}
		return nil
	}
	work := w.Queue[0]
	w.Queue = nil
	go func() {
		defer close(done)
		if _, err := w.Loader().Load(w.T.Context(), w.Run(), work); err != nil {
			w.T.Error(err)
		}
	}()
	<-hung
	again := w.Run()
	again.Retry = 1 // or it would leave the segment to the first
	if reply, err := w.Loader().Load(w.T.Context(), again, work); err != nil || !reply.Done || reply.Start != 1 {
		w.T.Fatalf("%+v, %v", reply, err)
	}
	return func() {
		close(hang)
		<-done
	}
}

func TestTwoWorkersOnOneSegment(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 2000)
	w.Tables.Put(vaulttest.SourceID.Table, vaulttest.WideRow())
	w.Tables.PageRows = 50
	m := w.Backup(vaulttest.Small)
	plan := w.Begin(m)
	w.Hop = 20
	if _, err := w.Restorer().Tick(t.Context(), w.Run(), plan.Restore); err != nil {
		t.Fatal(err)
	}
	for n := 0; len(w.Queue) > 0; n++ {
		if n > 1000 {
			t.Fatal("the work does not end")
		}
		var both sync.WaitGroup
		work, _ := w.Take()
		for retry := range 2 {
			both.Go(func() {
				run := w.Run()
				run.Retry = retry // so that neither leaves the segment to the other
				if _, err := w.Loader().Load(t.Context(), run, work); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
	}
	w.Hop = 0
	p := w.Finish(plan.Restore)
	w.Proved(p, vault.OK)
	w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
}

// TestObeysTheWinner lets another execution win each slot that an import works for, while
// its writers are at work: it goes on from what the slots say.
func TestObeysTheWinner(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 2000)
	w.Tables.PageRows = 50
	m := w.Backup(vault.Settings{SegmentBytes: 64 << 20, Lanes: 3, PartBytes: 40 << 10})
	plan := w.Begin(m)
	work := fanout.Work{Verb: fanout.VerbImport, Restore: plan.Restore, Segment: plan.Segments[0].ID}
	var inside atomic.Bool
	var lost atomic.Int64
	w.Tables.Fault = func(c tabletest.Call) error {
		if c.Name != "Write" || c.After || !inside.CompareAndSwap(false, true) {
			return nil
		}
		run := w.Run()
		run.Retry = 1
		run.Stop = run.Now() // one entry, then stop
		reply, err := w.Loader().Load(t.Context(), run, work)
		if err != nil || !reply.Continued && !reply.Done {
			t.Errorf("the other execution: %+v, %v", reply, err)
		}
		lost.Add(1)
		if lost.Load() < 3 {
			inside.Store(false)
		}
		return nil
	}
	reply, err := w.Loader().Load(t.Context(), w.Run(), work)
	if err != nil || !reply.Done {
		t.Fatalf("%+v, %v", reply, err)
	}
	if lost.Load() < 3 {
		t.Fatalf("%d slots were lost", lost.Load())
	}
	w.Proved(w.Finish(plan.Restore), vault.OK)
	w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
}

// TestImportKeepsWhatWasWritten breaks off in the middle of a part: the blocks before the
// break are not written again.
func TestImportKeepsWhatWasWritten(t *testing.T) {
	setting := func(t *testing.T) (*vaulttest.World, *vault.RestorePlan, fanout.Work) {
		w := vaulttest.NewWorld(t)
		w.Fill(vaulttest.Definition(), 800)
		w.Tables.PageRows = 40 // a block each, and a batch
		plan := w.Begin(w.Backup(vault.Settings{}))
		return w, plan, fanout.Work{Verb: fanout.VerbImport, Restore: plan.Restore, Segment: plan.Segments[0].ID}
	}
	resume := func(t *testing.T, w *vaulttest.World, plan *vault.RestorePlan) {
		t.Helper()
		before := w.Tables.Calls("Write")
		w.Proved(w.Finish(plan.Restore), vault.OK)
		w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
		if n := w.Tables.Calls("Write") - before; n > 15 {
			t.Errorf("%d batches were written after 10 of some 22 had been", n)
		}
	}
	t.Run("an error", func(t *testing.T) {
		w, plan, work := setting(t)
		w.Tables.Fault = func(c tabletest.Call) error {
			if c.Name == "Write" && c.N >= 10 && !c.After {
				return table.ErrUnavailable
			}
			return nil
		}
		l := w.Loader()
		l.Memory = 1 // one writer, so that the blocks are written in their order
		reply, err := l.Load(t.Context(), w.Run(), work)
		if !errors.Is(err, table.ErrUnavailable) || reply.Rows == 0 {
			t.Fatalf("%+v, %v", reply, err)
		}
		w.Tables.Fault = nil
		resume(t, w, plan)
	})
	t.Run("an error, once", func(t *testing.T) {
		w, plan, work := setting(t)
		w.Tables.Fault = func(c tabletest.Call) error {
			if c.Name == "Write" && c.N == 10 && !c.After {
				return table.ErrUnavailable
			}
			return nil
		}
		l := w.Loader()
		l.Memory = 1
		reply, err := l.Load(t.Context(), w.Run(), work)
		if !errors.Is(err, table.ErrUnavailable) || reply.Rows == 0 || !w.Exists((vault.Restore{ID: plan.Restore}).Log().Failure(work.Segment, 0)) {
			t.Fatalf("%+v, %v", reply, err)
		}
		resume(t, w, plan)
	})
	t.Run("a batch that does not come back", func(t *testing.T) {
		w, plan, work := setting(t)
		l := w.Loader()
		l.Memory = 1
		l.Tables = &hanging{Instance: w.Tables, after: 10}
		// Contexts go by the machine's clock, and the world's stands still by itself.
		begun := time.Now()
		run := w.Run()
		run.Stop, run.Until = w.Clock().Add(300*time.Millisecond), w.Clock().Add(900*time.Millisecond)
		run.Now = func() time.Time { return w.Clock().Add(time.Since(begun)) }
		reply, err := l.Load(t.Context(), run, work)
		if err != nil || !reply.Continued || reply.Rows == 0 {
			t.Fatalf("%+v, %v", reply, err)
		}
		resume(t, w, plan)
	})
}

// hanging takes some batches, and then keeps its caller waiting.
type hanging struct {
	table.Instance
	after int
}

func (h *hanging) Write(ctx context.Context, name string, b table.Batch) (table.WriteResult, error) {
	if h.after--; h.after < 0 {
		<-ctx.Done()
		return table.WriteResult{}, ctx.Err()
	}
	return h.Instance.Write(ctx, name, b)
}

func TestQuarantine(t *testing.T) {
	bad := func(share int64) func(string, *plainbuffer.Row, table.WriteOp) (string, string) {
		return func(name string, row *plainbuffer.Row, op table.WriteOp) (string, string) {
			if id := row.Key[2].Int(); name == vaulttest.TargetID.Table && id%share == 0 && id > -1<<40 && id < 1<<40 {
				return "OTSParameterInvalid", "Invalid column name."
			}
			return "", ""
		}
	}
	t.Run("some rows", func(t *testing.T) {
		w := vaulttest.NewWorld(t)
		w.Fill(vaulttest.Definition(), 1000)
		w.Tables.PageRows = 100
		m := w.Backup(vaulttest.Small)
		w.Tables.Refuse = bad(100)
		plan := w.Begin(m)
		p := w.Finish(plan.Restore)
		w.Proved(p, vault.Quarantined)
		if p.State != restore.StateDone {
			t.Errorf("%+v", p)
		}
		want := int64(len(w.Tables.Rows(vaulttest.SourceID.Table)) - len(w.Tables.Rows(vaulttest.TargetID.Table)))
		if want == 0 || p.Proof.Check.Quarantined != want || p.Proof.Check.Missing != want {
			t.Errorf("%d rows are not there, the proof says %+v", want, p.Proof.Check)
		}
		proof, err := w.Verifier().Verify(t.Context(), verify.Request{Restore: plan.Restore, Depth: verify.DepthRows})
		if err != nil || proof.Verdict != vault.Quarantined {
			t.Errorf("verified again: %+v, %v", proof, err)
		}
		// One more row that is missing is no quarantined one.
		w.Tables.Delete(vaulttest.TargetID.Table, w.Tables.Rows(vaulttest.TargetID.Table)[7].Key)
		proof, err = w.Verifier().Verify(t.Context(), verify.Request{Restore: plan.Restore, Depth: verify.DepthRows})
		if err != nil || proof.Verdict != vault.Differs {
			t.Errorf("with a row too few: %+v, %v", proof, err)
		}
	})
	t.Run("every row", func(t *testing.T) {
		w := vaulttest.NewWorld(t)
		w.Fill(vaulttest.Definition(), 1000)
		m := w.Backup(vault.Settings{})
		w.Tables.Refuse = func(name string, _ *plainbuffer.Row, _ table.WriteOp) (string, string) {
			return "OTSParameterInvalid", "Invalid column name."
		}
		p := w.Restore(m)
		if p.State != backup.StateFailed || !strings.Contains(p.LastError, "Invalid column name.") || !strings.Contains(p.LastError, "took none") {
			t.Errorf("%+v", p)
		}
	})
	t.Run("too many rows", func(t *testing.T) {
		w := vaulttest.NewWorld(t)
		w.Fill(vaulttest.Definition(), 4000)
		m := w.Backup(vault.Settings{})
		w.Tables.Refuse = bad(2)
		p := w.Restore(m)
		if p.State != backup.StateFailed || !strings.Contains(p.LastError, "more than 1000") {
			t.Errorf("%+v", p)
		}
	})
	t.Run("a request is refused whole", func(t *testing.T) {
		w := vaulttest.NewWorld(t)
		w.Fill(vaulttest.Definition(), 300)
		m := w.Backup(vault.Settings{})
		refuse := bad(60)
		tables := &wholeRefuser{Instance: w.Tables, refuse: refuse}
		plan := w.Begin(m)
		l := w.Loader()
		l.Tables = tables
		if _, err := l.Load(t.Context(), w.Run(), fanout.Work{Verb: fanout.VerbImport, Restore: plan.Restore, Segment: "000000"}); err != nil {
			t.Fatal(err)
		}
		p := w.Finish(plan.Restore)
		w.Proved(p, vault.Quarantined)
		if want := int64(len(w.Tables.Rows(vaulttest.SourceID.Table)) - len(w.Tables.Rows(vaulttest.TargetID.Table))); want == 0 || p.Proof.Check.Quarantined != want {
			t.Errorf("%d rows are not there, the proof says %+v", want, p.Proof.Check)
		}
	})
	t.Run("a piece of a wide row", func(t *testing.T) {
		w := vaulttest.NewWorld(t)
		w.Fill(vaulttest.Definition(), 100)
		w.Tables.Put(vaulttest.SourceID.Table, vaulttest.WideRow())
		m := w.Backup(vault.Settings{})
		w.Tables.Refuse = func(name string, row *plainbuffer.Row, op table.WriteOp) (string, string) {
			for _, c := range row.Cells {
				if name == vaulttest.TargetID.Table && string(c.Name) == "column0700" {
					return "OTSParameterInvalid", "no"
				}
			}
			return "", ""
		}
		p := w.Restore(m)
		w.Proved(p, vault.Quarantined)
		if c := p.Proof.Check; c.Quarantined != 1 || c.Changed != 1 || c.Missing != 0 {
			t.Errorf("%+v", c)
		}
	})
}

// wholeRefuser refuses a request for one of its rows, as a service does that checks a row
// before it looks at any.
type wholeRefuser struct {
	table.Instance
	refuse func(string, *plainbuffer.Row, table.WriteOp) (string, string)
}

type spiedBatch struct {
	table.Batch
	rows [][]byte
}

func (b *spiedBatch) Add(row []byte, op table.WriteOp) bool {
	if !b.Batch.Add(row, op) {
		return false
	}
	b.rows = append(b.rows, row)
	return true
}

func (b *spiedBatch) Reset() {
	b.Batch.Reset()
	b.rows = nil
}

func (w *wholeRefuser) NewBatch() table.Batch { return &spiedBatch{Batch: w.Instance.NewBatch()} }

func (w *wholeRefuser) Write(ctx context.Context, name string, b table.Batch) (table.WriteResult, error) {
	spied := b.(*spiedBatch)
	var row plainbuffer.Row
	for _, raw := range spied.rows {
		if _, err := plainbuffer.Scan(raw, &row); err != nil {
			return table.WriteResult{}, err
		}
		if code, message := w.refuse(name, &row, table.Put); code != "" {
			return table.WriteResult{}, fmt.Errorf("%s: %s: %w", code, message, table.ErrInvalid)
		}
	}
	return w.Instance.Write(ctx, name, spied.Batch)
}

func TestImportOfACorruptShardFails(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 100)
	m := w.Backup(vault.Settings{})
	plan := w.Begin(m)
	shard := w.Parts(m)[1+len(m.Groups)]
	repo, err := repository.Open(t.Context(), &vaulttest.Bent{Store: w.Store, Name: shard.Name, Bend: func(b []byte) []byte {
		b[len(b)/2] ^= 1
		return b
	}})
	if err != nil {
		t.Fatal(err)
	}
	whole := w.Repo
	w.Repo = repo
	p := w.Finish(plan.Restore)
	if p.State != backup.StateFailed || !strings.Contains(p.LastError, shard.Name) {
		t.Errorf("%+v", p)
	}
	w.Repo = whole
}

// mortal is a store that is there for so many more calls.
type mortal struct {
	object.Store
	left *atomic.Int64
}

func (m *mortal) dies() error {
	if m.left.Add(-1) < 0 {
		return vaulttest.ErrDead
	}
	return nil
}

func (m *mortal) Create(ctx context.Context, name string, r io.Reader) (object.Info, error) {
	if err := m.dies(); err != nil {
		return object.Info{}, err
	}
	info, err := m.Store.Create(ctx, name, r)
	if m.left.Load() <= 0 {
		return object.Info{}, vaulttest.ErrDead // it was stored, and nobody heard
	}
	return info, err
}

func (m *mortal) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, object.Info, error) {
	if err := m.dies(); err != nil {
		return nil, object.Info{}, err
	}
	return m.Store.Open(ctx, name, off, n)
}

func (m *mortal) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	if err := m.dies(); err != nil {
		return func(yield func(object.Info, error) bool) { yield(object.Info{}, err) }
	}
	return m.Store.List(ctx, prefix, after)
}

// TestKilledAnywhere kills invocations of every kind at random calls, before and after
// they took effect. The same commands, given again, complete the restore.
func TestKilledAnywhere(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 4))
	killed := 0
	for n := range 8 {
		w := vaulttest.NewWorld(t)
		var m *vault.Manifest
		if n%2 == 0 {
			w.Fill(vaulttest.Definition(), 600)
			w.Tables.Put(vaulttest.SourceID.Table, vaulttest.WideRow())
			w.Tables.PageRows = 60
			m = w.Backup(vaulttest.Small)
		} else {
			// Two workers go on from segment to segment.
			w.Workers = 2
			m = w.CutInto(9, 5)
		}
		left := new(atomic.Int64)
		left.Store(1 << 40)
		w.Tables.Fault = func(tabletest.Call) error {
			if left.Add(-1) < 0 {
				return vaulttest.ErrDead
			}
			return nil
		}
		store := w.Store
		repo, err := repository.Open(t.Context(), &mortal{store, left})
		if err != nil {
			t.Fatal(err)
		}
		w.Repo = repo
		var id vault.RestoreID
		for n := 0; ; n++ {
			if n > 5000 {
				t.Fatal("the restore does not end")
			}
			left.Store(int64(random.IntN(40)))
			if random.IntN(3) == 0 || n > 200 {
				left.Store(1 << 40)
			}
			work, ok := w.Take()
			var progress restore.Progress
			var err error
			switch {
			case id == "":
				var plan *vault.RestorePlan
				if plan, err = w.Restorer().Begin(t.Context(), w.Run(), w.Request(m)); err == nil {
					id = plan.Restore
				}
			case !ok:
				if progress, err = w.Restorer().Tick(t.Context(), w.Run(), id); err == nil && progress.Dispatched == 0 {
					w.Advance(2 * time.Minute)
				}
			case work.Verb == fanout.VerbImport:
				_, err = w.Loader().Load(t.Context(), w.Run(), work)
			default:
				_, err = w.Checker().Check(t.Context(), w.Run(), work)
			}
			if errors.Is(err, vaulttest.ErrDead) {
				killed++
			} else if err != nil {
				t.Fatal(err)
			}
			if progress.State == backup.StateFailed {
				t.Fatalf("%+v", progress)
			}
			if progress.State == restore.StateDone {
				left.Store(1 << 40)
				w.Proved(progress, vault.OK)
				w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
				break
			}
		}
	}
	if killed < 20 {
		t.Fatalf("%d invocations were killed", killed)
	}
	t.Logf("%d invocations were killed", killed)
}

// TestEveryCallFails fails each call of the store and of the tables in turn, before and
// after it took effect, and goes on as the platform would.
func TestEveryCallFails(t *testing.T) {
	restored := func(w *vaulttest.World) restore.Progress {
		w.T.Helper()
		for range 50 {
			plan, err := w.Restorer().Begin(t.Context(), w.Run(), w.Request(w.Manifest))
			if err != nil {
				continue
			}
			for range 50 {
				p, err := w.Restorer().Tick(t.Context(), w.Run(), plan.Restore)
				if err != nil {
					continue
				}
				if p.State == restore.StateDone || p.State == backup.StateFailed {
					return p
				}
				if p.Dispatched == 0 {
					w.Advance(2 * time.Minute)
				}
				w.Work()
			}
		}
		w.T.Fatal("the restore does not end")
		return restore.Progress{}
	}
	// The backup is made once, and copied for each run.
	fill := func(w *vaulttest.World) {
		def := vaulttest.Definition()
		def.DefinedColumns = []table.DefinedColumn{{Name: "name", Type: "string"}}
		def.Stream = &table.Stream{ExpirationHours: 24}
		w.Tables.Make(def)
		for i := range 60 {
			w.Tables.Put(def.Name, tabletest.Row{Key: table.Key{table.String("k"), table.Binary(nil), table.Integer(int64(i))},
				Cells: []plainbuffer.Cell{tabletest.Cell("name", int64(i), strings.Repeat("n", 100))}})
		}
		w.Tables.PageRows = 20
	}
	original := vaulttest.NewWorld(t)
	fill(original)
	// One worker goes on from segment to segment.
	p := original.Planner()
	at := func(i int64) table.Key { return table.Key{table.String("k"), table.Binary(nil), table.Integer(i)} }
	manifest := original.Sealed(p, original.Plan(p, vault.Settings{Lanes: 2, PartBytes: 1}, at(20), at(40)))
	setting := func(t *testing.T) *vaulttest.World {
		t.Helper()
		w := &vaulttest.World{T: t, Tables: tabletest.New(), Now: original.Clock(), Quiet: true, Manifest: manifest, Workers: 1}
		w.Tables.Now = w.Clock
		w.Store = &mem.Store{Now: w.Clock}
		for info, err := range original.Store.List(t.Context(), "", "") {
			if err != nil {
				t.Fatal(err)
			}
			content, err := object.ReadAll(t.Context(), original.Store, info.Name, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Store.Create(t.Context(), info.Name, bytes.NewReader(content)); err != nil {
				t.Fatal(err)
			}
		}
		fill(w)
		var err error
		if w.Repo, err = repository.Open(t.Context(), w.Store); err != nil {
			t.Fatal(err)
		}
		return w
	}
	t.Run("store", func(t *testing.T) {
		runs := 0
		for fault := range objectfault.EachCall() {
			runs++
			w := setting(t)
			// A fault that strikes the opening is none of the restore's.
			if repo, err := repository.Open(t.Context(), objectfault.New(w.Store, fault)); err == nil {
				w.Repo = repo
			}
			p := restored(w)
			w.Proved(p, vault.OK)
			w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
		}
		if runs < 100 {
			t.Fatalf("%d calls failed", runs)
		}
		t.Logf("%d calls failed", runs)
	})
	t.Run("tables", func(t *testing.T) {
		runs := 0
		for _, method := range []string{"Describe", "Create", "Write", "Scan", "AddDefinedColumns", "SetOptions", "SetStream"} {
			for n := 0; ; n++ {
				reached := false
				for _, after := range []bool{false, true} {
					w := setting(t)
					first := w.Tables.Calls(method)
					w.Tables.Fault = func(c tabletest.Call) error {
						if c.Name == method && c.N == first+n && c.After == after {
							reached = true
							return fmt.Errorf("injected: %w", table.ErrUnavailable)
						}
						return nil
					}
					p := restored(w)
					w.Proved(p, vault.OK)
					w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
				}
				if !reached {
					break
				}
				runs++
			}
		}
		if runs < 12 {
			t.Fatalf("%d calls failed", runs)
		}
		t.Logf("%d calls failed", runs)
	})
}

// TestLooksOfLoading counts what an import asks the store before its batches, one after
// the other: whether the restore is open each time, and whether another has won its slot
// once for each.
func TestLooksOfLoading(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 3000)
	w.Tables.PageRows = 30
	plan := w.Begin(w.Backup(vault.Settings{PartBytes: 100 << 10}))
	meter := objectmeter.New(w.Store)
	repo, err := repository.Open(t.Context(), meter)
	if err != nil {
		t.Fatal(err)
	}
	l := w.Loader()
	l.Repo, l.Memory = repo, 1 // one writer
	before := w.Tables.Calls("Write")
	reply, err := l.Load(t.Context(), w.Run(), fanout.Work{Verb: fanout.VerbImport, Restore: plan.Restore, Segment: plan.Segments[0].ID})
	if err != nil || !reply.Done {
		t.Fatalf("%+v, %v", reply, err)
	}
	batches := int64(w.Tables.Calls("Write") - before)
	slots := int64(0)
	for _, err := range w.Store.List(t.Context(), vault.Restore{ID: plan.Restore}.Log().Slots(plan.Segments[0].ID), "") {
		if err != nil {
			t.Fatal(err)
		}
		slots++
	}
	c := meter.Usage()
	t.Logf("%d batches, %d slots: %+v", batches, slots, c)
	if slots < 3 || batches < 10*slots || c.Stat > batches+slots {
		t.Errorf("%d questions for %d batches and %d slots", c.Stat, batches, slots)
	}
}

// TestForeignSegments gives commands for segments that the restore does not have, and for
// starts that nothing can have dispatched: they leave no word that somebody would wait
// for.
func TestForeignSegments(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Quiet = true
	w.Fill(vaulttest.Definition(), 100)
	plan := w.Begin(w.Backup(vaulttest.Small))
	objects := func() (n int) {
		for _, err := range w.Store.List(t.Context(), vault.Restores, "") {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		return n
	}
	before := objects()
	for _, c := range []struct {
		segment vault.SegmentID
		start   int
	}{{"999999", 0}, {"-1", 0}, {"000000.00", 0}, {plan.Segments[0].ID, 500}} {
		work := fanout.Work{Verb: fanout.VerbImport, Restore: plan.Restore, Segment: c.segment, Start: c.start}
		if _, err := w.Loader().Load(t.Context(), w.Run(), work); !fanout.Permanent(err) {
			t.Errorf("import %+v: %v", c, err)
		}
		work.Verb = fanout.VerbVerify
		if _, err := w.Checker().Check(t.Context(), w.Run(), work); !fanout.Permanent(err) {
			t.Errorf("verify %+v: %v", c, err)
		}
	}
	if n := objects(); n != before {
		t.Errorf("%d objects, %d before", n, before)
	}
	w.Proved(w.Finish(plan.Restore), vault.OK)
}

// TestComparedOnce has logs of comparisons that say what they can't: a lane twice, and
// one that the segment does not have. None of them counts, nor is read without an end;
// what no segment can have is not even written.
func TestComparedOnce(t *testing.T) {
	for _, log := range [][][]int{{{0}, {0}}, {{vault.MaxLanes - 1}}, {{99}}, {{-1}}, {{}}} {
		w := vaulttest.NewWorld(t)
		w.Quiet = true
		w.Fill(vaulttest.Definition(), 100)
		plan := w.Begin(w.Backup(vaulttest.Small))
		r, s := vault.Restore{ID: plan.Restore}, plan.Segments[0].ID
		refused := false
		for i, lanes := range log {
			_, err := w.Repo.Create(t.Context(), r.Verify().Slot(s, i), &vault.Compared{Segment: s, Slot: i, Compared: lanes})
			if refused = err != nil; refused && len(lanes) > 0 && lanes[0] >= 0 && lanes[0] < vault.MaxLanes {
				t.Fatal(err)
			}
		}
		if refused {
			continue
		}
		_, err := w.Checker().Check(t.Context(), w.Run(), fanout.Work{Verb: fanout.VerbVerify, Restore: plan.Restore, Segment: s})
		if !errors.Is(err, vault.ErrCorrupt) || !strings.Contains(err.Error(), "compare") {
			t.Errorf("%v: %v", log, err)
		}
	}
}

// TestStopsBetweenBlocks has time run out in the middle of a part: the worker keeps what
// it has written, and hands over.
func TestStopsBetweenBlocks(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 800)
	w.Tables.PageRows = 40 // a block each, and a batch
	plan := w.Begin(w.Backup(vault.Settings{}))
	run := w.Run()
	run.Stop = w.Clock().Add(time.Minute)
	w.Tables.Fault = func(c tabletest.Call) error {
		if c.Name == "Write" && c.N == 5 && !c.After {
			w.Advance(time.Minute)
		}
		return nil
	}
	l := w.Loader()
	l.Memory = 1 // one writer, so that the blocks are written in their order
	work := fanout.Work{Verb: fanout.VerbImport, Restore: plan.Restore, Segment: plan.Segments[0].ID}
	reply, err := l.Load(t.Context(), run, work)
	if n := w.Tables.Calls("Write"); err != nil || !reply.Continued || reply.Done || n < 6 || n > 8 {
		t.Fatalf("%d batches: %+v, %v", n, reply, err)
	}
	var entry vault.Loaded
	if _, err := w.Repo.Read(t.Context(), (vault.Restore{ID: plan.Restore}).Log().Slot(work.Segment, 0), &entry); err != nil || entry.Block < 6 || entry.Last {
		t.Errorf("%+v, %v", entry, err)
	}
	w.Proved(w.Finish(plan.Restore), vault.OK)
	w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
}

// TestNothingAfterItsTime has a machine stand still while a worker writes, until the
// invocation's time is over, and go on then: whoever hands the table over waits no longer
// for this worker, and it writes nothing more.
func TestNothingAfterItsTime(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 800)
	w.Tables.PageRows = 40
	plan := w.Begin(w.Backup(vault.Settings{}))
	w.Tables.Fault = func(c tabletest.Call) error {
		if c.Name == "Write" && c.N == 5 && !c.After {
			w.Advance(11 * time.Minute)
		}
		return nil
	}
	l := w.Loader()
	l.Memory = 1 // one writer
	_, err := l.Load(t.Context(), w.Run(), fanout.Work{Verb: fanout.VerbImport, Restore: plan.Restore, Segment: plan.Segments[0].ID})
	if err == nil || !strings.Contains(err.Error(), "the invocation's time was over") {
		t.Errorf("%v", err)
	}
	if n := w.Tables.Calls("Write"); n != 6 {
		t.Errorf("%d batches were written, want the 6 that had begun", n)
	}
	w.Tables.Fault = nil
	w.Proved(w.Finish(plan.Restore), vault.OK)
}

// TestLogOfLoadingThatCantBe: an entry that is about a part that the segment does not
// have is no place to go on from, which would leave rows out.
func TestLogOfLoadingThatCantBe(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Quiet = true
	w.Fill(vaulttest.Definition(), 100)
	plan := w.Begin(w.Backup(vaulttest.Small))
	r, s := vault.Restore{ID: plan.Restore}, plan.Segments[0].ID
	if _, err := w.Repo.Create(t.Context(), r.Log().Slot(s, 0), &vault.Loaded{Segment: s, Part: 99, Block: 1}); err != nil {
		t.Fatal(err)
	}
	_, err := w.Loader().Load(t.Context(), w.Run(), fanout.Work{Verb: fanout.VerbImport, Restore: plan.Restore, Segment: s})
	if !errors.Is(err, vault.ErrCorrupt) || !strings.Contains(err.Error(), "of part 99") {
		t.Errorf("%v", err)
	}
}
