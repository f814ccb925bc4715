package restore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// lateService carries out its first batch after its client has given it up, when late is
// called.
type lateService struct {
	table.Instance
	// answer is what the client hears of that batch, or what it waits for.
	answer func(ctx context.Context, b table.Batch) (table.WriteResult, error)
	writes atomic.Int64
	late   func()
}

// copied is a batch whose rows can be written again.
type copied struct {
	table.Batch
	rows []copiedRow
}

type copiedRow struct {
	raw []byte
	op  table.WriteOp
}

func (c *copied) Add(row []byte, op table.WriteOp) bool {
	if !c.Batch.Add(row, op) {
		return false
	}
	c.rows = append(c.rows, copiedRow{bytes.Clone(row), op})
	return true
}

func (c *copied) Reset() { c.Batch.Reset(); c.rows = nil }

func (s *lateService) NewBatch() table.Batch { return &copied{Batch: s.Instance.NewBatch()} }

func (s *lateService) Write(ctx context.Context, name string, b table.Batch) (table.WriteResult, error) {
	c := b.(*copied)
	if s.writes.Add(1) > 1 {
		return s.Instance.Write(ctx, name, c.Batch)
	}
	again := s.Instance.NewBatch()
	for _, r := range c.rows {
		again.Add(r.raw, r.op)
	}
	s.late = func() { s.Instance.Write(context.Background(), name, again) }
	return s.answer(ctx, c.Batch)
}

// TestBatchInDoubt gives up a batch that is carried out later, in every way in which a
// start may come to an end then. The table is not handed over before the start's time is
// over, so that the late batch meets no owner's row.
func TestBatchInDoubt(t *testing.T) {
	hang := func(ctx context.Context, _ table.Batch) (table.WriteResult, error) {
		<-ctx.Done()
		return table.WriteResult{}, fmt.Errorf("%w (%w)", table.ErrUnavailable, ctx.Err())
	}
	for _, c := range []struct {
		name   string
		answer func(*lateService) func(context.Context, table.Batch) (table.WriteResult, error)
		// short gives the invocation little time, of the machine's.
		short bool
		doubt bool
	}{
		{name: "time is up", short: true, doubt: true,
			answer: func(*lateService) func(context.Context, table.Batch) (table.WriteResult, error) { return hang }},
		{name: "the connection breaks", doubt: true,
			answer: func(*lateService) func(context.Context, table.Batch) (table.WriteResult, error) {
				return func(context.Context, table.Batch) (table.WriteResult, error) {
					return table.WriteResult{InDoubt: true}, table.ErrUnavailable
				}
			}},
		{name: "an error that nobody knows", doubt: true,
			answer: func(*lateService) func(context.Context, table.Batch) (table.WriteResult, error) {
				return func(context.Context, table.Batch) (table.WriteResult, error) {
					return table.WriteResult{}, errors.New("connection reset")
				}
			}},
		{name: "it is sent again, and taken", doubt: true,
			answer: func(s *lateService) func(context.Context, table.Batch) (table.WriteResult, error) {
				return func(ctx context.Context, b table.Batch) (table.WriteResult, error) {
					result, err := s.Instance.Write(ctx, vaulttest.TargetID.Table, b)
					result.InDoubt = true
					return result, err
				}
			}},
		{name: "it is refused for its time",
			answer: func(*lateService) func(context.Context, table.Batch) (table.WriteResult, error) {
				return func(context.Context, table.Batch) (table.WriteResult, error) {
					return table.WriteResult{}, table.ErrThrottled
				}
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := vaulttest.NewWorld(t)
			w.Tables.Make(vaulttest.Definition())
			for i := range 100 {
				w.Tables.Put(vaulttest.SourceID.Table, tabletest.Row{
					Key:   table.Key{table.String("u"), table.Binary(nil), table.Integer(int64(i))},
					Cells: []plainbuffer.Cell{tabletest.Cell("n", vaulttest.Day.UnixMilli()-int64(i), "written today")},
				})
			}
			plan := w.Begin(w.Backup(vault.Settings{}))
			s := &lateService{Instance: w.Tables}
			s.answer = c.answer(s)
			l := w.Loader()
			l.Tables, l.Memory = s, 1
			run := w.Run()
			if c.short {
				// Contexts go by the machine's clock, notes by the world's.
				run.Stop, run.Until = w.Clock().Add(20*time.Millisecond), w.Clock().Add(60*time.Millisecond)
			}
			first, err := l.Load(t.Context(), run, fanout.Work{Verb: fanout.VerbImport, Restore: plan.Restore, Segment: plan.Segments[0].ID})
			t.Logf("the start with the batch: %+v, %v", first, err)
			if s.late == nil {
				t.Fatal("nothing was written")
			}
			waits := fmt.Sprintf("start 0 of segment 000000 (request %s)", run.Request)
			var p restore.Progress
			waited := false
			for range 1000 {
				w.Work()
				if p = w.Look(plan.Restore); p.State == restore.StateDone {
					break
				}
				if p.Waiting != "" {
					waited = true
					s.late()
					if !strings.Contains(p.Waiting, waits) {
						t.Errorf("it waits for: %s", p.Waiting)
					}
				}
				w.Advance(5 * time.Second)
			}
			w.Proved(p, vault.OK)
			if waited != c.doubt || c.doubt && !w.Clock().After(run.Until.Add(10*time.Second)) {
				t.Errorf("it waited: %t, want %t; proved at %s, the start had until %s", waited, c.doubt, w.Clock(), run.Until)
			}
			w.Same(vaulttest.SourceID.Table, vaulttest.TargetID.Table)
		})
	}
}
