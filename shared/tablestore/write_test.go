package tablestore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/tablestore"
)

// TestBatchLimits fills batches to the service's limits exactly, and shows that the
// service draws them where the batch does.
func TestBatchLimits(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(t, s)
	create(t, c, definition())

	t.Run("rows", func(t *testing.T) {
		b := c.NewBatch()
		for i := range 200 {
			if !b.Add(row("u", int64(i), cell("x", 1, "y")), table.Put) {
				t.Fatalf("row %d does not fit", i)
			}
		}
		if b.Add(row("u", 200, cell("x", 1, "y")), table.Put) {
			t.Error("201 rows fit")
		}
		if b.Len() != 200 {
			t.Errorf("%d rows", b.Len())
		}
		if _, err := c.Write(t.Context(), "t", b); err != nil {
			t.Error(err)
		}
	})

	// user, n and their values, and a column, its timestamp and its value.
	const others = 4 + 1 + 1 + 8 + 1 + 8
	sized := func(n int64, size int) []byte { return row("u", n, cell("x", 1, strings.Repeat("z", size-others))) }
	t.Run("bytes", func(t *testing.T) {
		b := c.NewBatch()
		if !b.Add(sized(0, 2<<20), table.Put) || !b.Add(sized(1, 1<<20), table.Put) {
			t.Fatal("rows do not fit")
		}
		if b.Add(sized(2, 1<<20+1), table.Put) {
			t.Error("a byte more than 4 MiB fits")
		}
		if !b.Add(sized(2, 1<<20), table.Put) {
			t.Error("4 MiB do not fit")
		}
		result, err := c.Write(t.Context(), "t", b)
		if err != nil || len(result.Refused) > 0 {
			t.Errorf("the service says %v, %+v to 4 MiB", err, result.Refused)
		}
		if result.WriteUnits != 512+256+256 {
			t.Errorf("%d units", result.WriteUnits)
		}
		if time.Since(result.ServerTime).Abs() > time.Minute {
			t.Errorf("the service's time is %v", result.ServerTime)
		}
	})

	t.Run("cells", func(t *testing.T) {
		var cells []plainbuffer.Cell
		for i := range 1025 {
			cells = append(cells, cell(fmt.Sprintf("c%04d", i), 1, true))
		}
		b := c.NewBatch()
		if b.Add(row("u", 1, cells...), table.Put) {
			t.Error("1,025 cells fit")
		}
		if !b.Add(row("u", 1, cells[:1024]...), table.Put) {
			t.Error("1,024 cells do not fit")
		}
		if result, err := c.Write(t.Context(), "t", b); err != nil || len(result.Refused) > 0 {
			t.Errorf("the service says %v, %+v to 1,024 cells", err, result.Refused)
		}
	})

	t.Run("body", func(t *testing.T) {
		// Cells of one byte take thirty on the wire.
		var cells []plainbuffer.Cell
		for i := range 1024 {
			cells = append(cells, cell(fmt.Sprintf("c%04d", i), 1, true))
		}
		b := c.NewBatch()
		n := 0
		for b.Add(row("u", int64(n), cells...), table.Put) {
			n++
		}
		if n < 130 || n == 200 {
			t.Errorf("%d rows of 1,024 small cells", n)
		}
		if result, err := c.Write(t.Context(), "t", b); err != nil || len(result.Refused) > 0 {
			t.Errorf("the service says %v, %+v", err, result.Refused)
		}
	})

	t.Run("no row", func(t *testing.T) {
		b := c.NewBatch()
		for _, bad := range [][]byte{nil, []byte("row"), append(row("u", 1), 0)} {
			if b.Add(bad, table.Put) {
				t.Errorf("% x fits", bad)
			}
		}
		result, err := c.Write(t.Context(), "t", b)
		if err != nil || len(result.Refused) > 0 {
			t.Errorf("an empty batch: %v, %+v", err, result)
		}
	})
}

// TestWriteAgain lets rows fail for a while: they alone are sent again.
func TestWriteAgain(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(t, s)
	create(t, c, definition())
	s.SetFault(func(op, _ string, n int) *ots.Fault {
		if op != "BatchWriteRow" {
			return nil
		}
		switch n {
		case 0:
			return ots.Refuse(engine.CodeServerBusy, "busy")
		case 1:
			return &ots.Fault{Cut: ots.CutSilent, After: true}
		case 2:
			return &ots.Fault{Cut: ots.CutMiddle}
		case 3:
			return &ots.Fault{Rows: map[int]*engine.Error{
				1: {Code: engine.CodeNotEnoughCapacity, Message: "slow down"},
				2: {Code: engine.CodeOutOfColumnCount, Message: "too many"},
				3: {Code: engine.CodeRowConflict, Message: "somebody else"},
			}}
		case 4: // rows 1 and 3
			return &ots.Fault{Rows: map[int]*engine.Error{
				0: {Code: engine.CodeConditionCheckFail, Message: "no"},
				1: {Code: engine.CodeTimeout, Message: "late"},
			}, After: true}
		}
		return nil
	})
	b := c.NewBatch()
	var want [][]byte
	for i := range 5 {
		want = append(want, row("u", int64(i), cell("x", 7, "y")))
		b.Add(want[i], table.Put)
	}
	result, err := c.Write(t.Context(), "t", b)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(result.Refused); got != "[{1 OTSConditionCheckFail no} {2 OTSOutOfColumnCountLimit too many}]" {
		t.Errorf("refused: %s", got)
	}
	if n := s.Calls("BatchWriteRow"); n != 6 {
		t.Errorf("%d requests, want 6", n)
	}
	rows, _ := collect(t, c.Scan("t", definition().Schema, definition().Schema.Whole()), 1<<20)
	same(t, rows, want)
}

// TestWriteGivesUp shows the errors of writes that do not succeed.
func TestWriteGivesUp(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{})
	c := connect(t, s, func(config *tablestore.Config) { config.Retry.Total = 50 * time.Millisecond })
	create(t, c, definition())
	b := c.NewBatch()
	b.Add(row("u", 1), table.Put)
	for code, want := range map[string]error{
		engine.CodeServerBusy:         table.ErrUnavailable,
		engine.CodeInternal:           table.ErrUnavailable,
		engine.CodeFlowControl:        table.ErrThrottled,
		engine.CodeCapacityExhausted:  table.ErrThrottled,
		engine.CodeOperationThrottled: table.ErrThrottled,
		engine.CodeNoPermission:       table.ErrPermission,
		engine.CodeObjectNotExist:     table.ErrNotExist,
	} {
		for _, fault := range []*ots.Fault{ots.Refuse(code, "no"), {Rows: map[int]*engine.Error{0: {Code: code, Message: "no"}}}} {
			s.SetFault(func(string, string, int) *ots.Fault { return fault })
			_, err := c.Write(t.Context(), "t", b)
			var e *tablestore.Error
			if !errors.Is(err, want) || !errors.As(err, &e) || e.Code != code || e.Op != "BatchWriteRow" || e.Table != "t" {
				t.Errorf("%s: %v, want %v", code, err, want)
			}
		}
	}
	s.SetFault(nil)
	if _, err := c.Write(t.Context(), "none", b); !errors.Is(err, table.ErrNotExist) {
		t.Errorf("missing table: %v", err)
	}
	s.SetFault(func(string, string, int) *ots.Fault { return ots.Refuse(engine.CodeParameterInvalid, "never") })
	if _, err := c.Write(t.Context(), "t", b); !errors.Is(err, table.ErrInvalid) {
		t.Errorf("invalid request: %v", err)
	}
}

// TestWriteWindow writes old timestamps before a raised deviation acts, and to a table
// that never takes them.
func TestWriteWindow(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{Behavior: engine.Behavior{Tables: engine.TableBehavior{OptionsDelay: 300 * time.Millisecond}}})
	c := connect(t, s)
	def := definition()
	def.Options.Deviation = 86400
	create(t, c, def)
	b := c.NewBatch()
	b.Add(row("u", 1, cell("x", 0, "y")), table.Put)
	b.Add(row("u", 2, cell("x", time.Now().UnixMilli(), "y")), table.Put)
	began := time.Now()
	result, err := c.Write(t.Context(), "t", b)
	if err != nil || len(result.Refused) != 1 || result.Refused[0].Index != 0 || !strings.Contains(result.Refused[0].Message, "Invalid timestamp") {
		t.Fatalf("%v, %+v", err, result.Refused)
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("it was refused after %s, want the whole window of 1 s", took)
	}
	// Raised by somebody who does not wait for it to act.
	widest := definition().Options.Deviation
	if _, err := s.Engine().UpdateTable("t", &engine.OptionsChange{Deviation: &widest}); err != nil {
		t.Fatal(err)
	}
	if result, err = c.Write(t.Context(), "t", b); err != nil || len(result.Refused) > 0 {
		t.Errorf("after the deviation was raised: %v, %+v", err, result.Refused)
	}
}

func TestWriteKeyOnly(t *testing.T) {
	for _, refuse := range []bool{false, true} {
		t.Run(fmt.Sprint(refuse), func(t *testing.T) {
			s := otstest.Run(t, ots.Config{Behavior: engine.Behavior{Writes: engine.WriteBehavior{RefuseEmptyPut: refuse}}})
			c := connect(t, s)
			create(t, c, definition())
			// The second row has cells that the put has to remove.
			write(t, c, "t", table.Put, row("u", 2, cell("x", 1, "old")))
			rows := [][]byte{row("u", 1), row("u", 2), row("u", 3, cell("x", 1, "y")), row("u", 4)}
			s.SetFault(func(op, _ string, n int) *ots.Fault {
				if n%2 == 0 {
					return &ots.Fault{Rows: map[int]*engine.Error{0: {Code: engine.CodeServerBusy, Message: "busy"}}}
				}
				return nil
			})
			b := c.NewBatch()
			for _, r := range rows {
				b.Add(r, table.Put)
			}
			for range 2 {
				result, err := c.Write(t.Context(), "t", b)
				if err != nil || len(result.Refused) > 0 {
					t.Fatalf("%v, %+v", err, result.Refused)
				}
				got, _ := collect(t, c.Scan("t", definition().Schema, definition().Schema.Whole()), 1<<20)
				same(t, got, rows)
			}
		})
	}
}

// TestWriteInDoubt puts every kind of failure in the way of a batch, once and for good.
// The result says whether a request may still be carried out: where there was no answer,
// or one by which the service does not know; not where it has refused, or not come to it.
func TestWriteInDoubt(t *testing.T) {
	for name, test := range map[string]struct {
		fault *ots.Fault
		doubt bool
		final bool // nothing is tried again
	}{
		"cut":             {fault: &ots.Fault{Cut: ots.CutSilent}, doubt: true},
		"too slow":        {fault: &ots.Fault{Delay: time.Minute}, doubt: true},
		"internal":        {fault: ots.Refuse(engine.CodeInternal, ""), doubt: true},
		"timeout":         {fault: ots.Refuse(engine.CodeTimeout, ""), doubt: true},
		"unavailable":     {fault: ots.Refuse(engine.CodeServerUnavailable, ""), doubt: true},
		"proxy":           {fault: &ots.Fault{Err: &engine.Error{Code: "x"}, Status: 502, Body: []byte("<html>bad gateway")}, doubt: true},
		"unknown, 500":    {fault: &ots.Fault{Err: &engine.Error{Code: "OTSNew"}, Status: 500}, doubt: true},
		"busy":            {fault: ots.Refuse(engine.CodeServerBusy, "")},
		"flow control":    {fault: ots.Refuse(engine.CodeFlowControl, "")},
		"partition":       {fault: ots.Refuse(engine.CodePartitionNotReady, "")},
		"not ready":       {fault: ots.Refuse(engine.CodeTableNotReady, "")},
		"conflict":        {fault: ots.Refuse(engine.CodeRowConflict, "")},
		"permission":      {fault: ots.Refuse(engine.CodeNoPermission, ""), final: true},
		"not found":       {fault: ots.Refuse(engine.CodeObjectNotExist, ""), final: true},
		"a row's timeout": {fault: &ots.Fault{Rows: map[int]*engine.Error{0: engine.Refusal(engine.CodeTimeout)}}, doubt: true},
		"a row is busy":   {fault: &ots.Fault{Rows: map[int]*engine.Error{0: engine.Refusal(engine.CodeServerBusy)}}},
		"rows of both kinds": {fault: &ots.Fault{Rows: map[int]*engine.Error{
			0: engine.Refusal(engine.CodeTimeout), 1: engine.Refusal(engine.CodeServerBusy),
		}}, doubt: true},
	} {
		for _, always := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, always %t", name, always), func(t *testing.T) {
				inBubble(t, ots.Config{}, func(t *testing.T, s *ots.Server, connect func(...func(*tablestore.Config)) *tablestore.Client) {
					create(t, connect(), definition())
					c := connect(func(config *tablestore.Config) {
						if always {
							config.Retry.Total = 50 * time.Millisecond
						}
						if test.fault.Delay > 0 {
							config.Retry.Attempt = 100 * time.Millisecond
						}
					})
					s.SetFault(func(op, _ string, n int) *ots.Fault {
						if op == "BatchWriteRow" && (n == 0 || always) {
							return test.fault
						}
						return nil
					})
					b := c.NewBatch()
					b.Add(row("u", 1, cell("x", 1, "y")), table.Put)
					b.Add(row("u", 2, cell("x", 1, "y")), table.Put)
					result, err := c.Write(t.Context(), "t", b)
					if failed := always || test.final; (err != nil) != failed || result.InDoubt != test.doubt {
						t.Errorf("in doubt: %t, want %t; %v", result.InDoubt, test.doubt, err)
					}
				})
			})
		}
	}
	t.Run("its context ends", func(t *testing.T) {
		s := otstest.Run(t, ots.Config{})
		create(t, connect(t, s), definition())
		c := connect(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		s.SetFault(func(string, string, int) *ots.Fault {
			cancel()
			return &ots.Fault{Delay: time.Hour} // which ends with the request
		})
		b := c.NewBatch()
		b.Add(row("u", 1, cell("x", 1, "y")), table.Put)
		if result, err := c.Write(ctx, "t", b); err == nil || !result.InDoubt {
			t.Errorf("%+v, %v", result, err)
		}
	})
}

// TestBeforeRetry has calls ask before they try again, and end with what they are told.
func TestBeforeRetry(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(t, s)
	create(t, c, definition())
	first := s.Calls("BatchWriteRow")
	s.SetFault(func(string, string, int) *ots.Fault { return ots.Refuse(engine.CodeTableNotReady, "") })
	over := errors.New("over")
	asked := 0
	ctx := table.BeforeRetry(t.Context(), func(context.Context) error {
		if asked++; asked == 3 {
			return over
		}
		return nil
	})
	b := c.NewBatch()
	b.Add(row("u", 1, cell("x", 1, "y")), table.Put)
	if _, err := c.Write(ctx, "t", b); !errors.Is(err, over) {
		t.Errorf("%v", err)
	}
	if n := s.Calls("BatchWriteRow") - first; n != 3 {
		t.Errorf("%d requests, want 3", n)
	}
}

// TestIdentity makes a table twice: the descriptions tell one from the other, and not
// from what it was before its settings were changed.
func TestIdentity(t *testing.T) {
	s := otstest.Run(t, ots.Config{})
	c := connect(t, s)
	describe := func() table.Identity {
		t.Helper()
		def, err := c.Describe(t.Context(), "t")
		if err != nil {
			t.Fatal(err)
		}
		return def.Identity
	}
	def := definition()
	create(t, c, def)
	first := describe()
	def.Options.MaxVersions = 7
	if err := c.SetOptions(t.Context(), "t", def.Options); err != nil {
		t.Fatal(err)
	}
	if err := c.SetStream(t.Context(), "t", table.Stream{ExpirationHours: 24}); err != nil {
		t.Fatal(err)
	}
	if now := describe(); !first.Known() || now != first {
		t.Errorf("%s, then %s", first, now)
	}
	if err := c.DropTable(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	create(t, c, def)
	if now := describe(); !now.Known() || !first.Other(now) {
		t.Errorf("%s, and, made anew, %s", first, now)
	}
}
