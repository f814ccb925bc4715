package ots_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ots/otstest"
)

// TestFaults makes one write under each fault, and looks what the client hears and
// whether the row is there.
func TestFaults(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	create(t, c, tablestore.TableOption{}, text)
	busy := &engine.Error{Code: engine.CodeServerBusy, Message: "busy"}
	for _, test := range []struct {
		name   string
		fault  ots.Fault
		status int // 0 for a broken connection, 200 for none
		there  bool
	}{
		{"refused before", ots.Fault{Err: busy}, 503, false},
		{"refused after", ots.Fault{Err: busy, After: true}, 503, true},
		{"cut before", ots.Fault{Cut: ots.CutSilent}, 0, false},
		{"cut after", ots.Fault{Cut: ots.CutSilent, After: true}, 0, true},
		{"cut in the answer", ots.Fault{Cut: ots.CutMiddle}, 0, true},
		{"another server's answer", ots.Fault{Err: busy, Status: 502, Body: []byte("<html>")}, 502, false},
		{"late", ots.Fault{Delay: 50 * time.Millisecond}, 200, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			ok(t, remove(c, key("a")))
			var strikes atomic.Int64
			s.SetFault(func(op, table string, n int) *ots.Fault {
				if op != "PutRow" || table != "t" {
					return nil
				}
				strikes.Add(1)
				return &test.fault
			})
			began := time.Now()
			err := put(c, key("a"), cell{"c", "v", -1})
			s.SetFault(nil)
			if strikes.Load() != 1 {
				t.Fatalf("the fault struck %d times", strikes.Load())
			}
			var refused *tablestore.OtsError
			switch {
			case test.status == 200:
				ok(t, err)
				if time.Since(began) < test.fault.Delay {
					t.Error("the answer is not late")
				}
			case test.status == 0:
				if err == nil || errors.As(err, &refused) {
					t.Errorf("error %v, want a broken connection", err)
				}
			case !errors.As(err, &refused) || refused.HttpStatusCode != test.status:
				t.Errorf("error %v, want status %d", err, test.status)
			}
			if _, there := get(t, c, key("a")); there != test.there {
				t.Errorf("the row is there: %v", there)
			}
		})
	}
}

func TestFaultsOfRows(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	create(t, c, tablestore.TableOption{}, text)
	for _, after := range []bool{false, true} {
		batch := &tablestore.BatchWriteRowRequest{}
		for _, name := range []string{"a", "b", "c"} {
			ok(t, remove(c, key(name)))
			batch.AddRowChange(putChange(key(name), cell{"c", "v", -1}))
		}
		s.SetFault(func(op, table string, n int) *ots.Fault {
			return &ots.Fault{After: after, Rows: map[int]*engine.Error{1: {Code: engine.CodeStorageServerBusy, Message: "busy"}}}
		})
		res, err := c.BatchWriteRow(batch)
		s.SetFault(nil)
		ok(t, err)
		rows := res.TableToRowsResult["t"]
		if !rows[0].IsSucceed || rows[1].IsSucceed || rows[1].Error.Code != "OTSStorageServerBusy" || !rows[2].IsSucceed {
			t.Errorf("after %v: rows %+v", after, rows)
		}
		got := keysOf(page(t, c, key(lowest), key(highest)).Rows)
		if rows := map[bool]string{false: "a c", true: "a b c"}[after]; got != rows {
			t.Errorf("after %v: the table has %q, want %q", after, got, rows)
		}
	}
}

// TestCallsAreNumbered proves that a number means the same request each time.
func TestCallsAreNumbered(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	create(t, c, tablestore.TableOption{}, text)
	s.SetFault(func(op, table string, n int) *ots.Fault {
		if op == "PutRow" && n == 2 {
			return ots.Refuse(engine.CodeTimeout, "third")
		}
		return nil
	})
	var got []string
	for range 4 {
		if err := put(c, key("a")); err != nil {
			got = append(got, strings.Fields(err.Error())[0])
		} else {
			got = append(got, "ok")
		}
	}
	equal(t, "answers", got, []string{"ok", "ok", "OTSTimeout", "ok"})
	if n := s.Calls("PutRow"); n != 4 {
		t.Errorf("%d calls are counted", n)
	}
}
