package fanout_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/vault"
)

// TestTeller: what is done is told soon, then ever more rarely, and once a minute where
// nothing has been done since; of several starts the newest is heard.
func TestTeller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		repo, err := repository.Init(t.Context(), &mem.Store{Now: time.Now}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		log := vault.Backup{Table: vault.TableID{Region: "local", Instance: "prod", Table: "orders"}, ID: "20261120T101400Z-0a1b2c3d"}.Log()
		told := func() (names []string) {
			for info, err := range repo.Store().List(t.Context(), log.Progress(""), "") {
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, strings.TrimPrefix(info.Name, log.Progress("000300")))
			}
			return names
		}
		tell := fanout.NewTeller(t.Context(), repo, fanout.Run{Tell: time.Second}, log.Progress("000300"), 2, 100, 1000)
		ctx := tell.With(context.Background())
		fanout.Come(context.Background(), 7, 7) // nobody's
		time.Sleep(1500 * time.Millisecond)
		if got := told(); len(got) != 0 {
			t.Errorf("before anything was done, %q was told", got)
		}
		fanout.Come(ctx, 5, 50)
		for range 10 {
			time.Sleep(time.Minute)
		}
		fanout.Come(ctx, 1, 10)
		time.Sleep(time.Minute)
		got := told()
		if n := len(got); n < 10 || n > 13 || got[0] != "000002-0001-105-1050" || !strings.HasSuffix(got[n-2], "-105-1050") || !strings.HasSuffix(got[n-1], "-106-1060") {
			t.Errorf("told %q", got)
		}
		n := len(told())
		for range 900 {
			fanout.Come(ctx, 1, 1)
			time.Sleep(time.Second)
		}
		if got := len(told()) - n; got < 25 || got > 45 {
			t.Errorf("told %d times in 15 minutes", got)
		}
		tell.End()
		n = len(told())
		fanout.Come(ctx, 1, 1)
		time.Sleep(time.Hour)
		if len(told()) != n {
			t.Error("told after its end")
		}
		// Of the start that took over, and of another segment of the group before.
		for _, name := range []string{
			vault.Told{Start: 3, Number: 1, Rows: 104, Bytes: 1}.Name(log.Progress("000300")),
			vault.Told{Start: 0, Number: 1, Rows: 9, Bytes: 1}.Name(log.Progress("000255")), log.Progress("000301") + "000001-0001-x-1",
		} {
			if err := repo.Mark(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		in, err := fanout.NewLog(repo, log).ToldIn(t.Context(), 1)
		if err != nil || len(in) != 1 || in["000300"] != (vault.Told{Start: 3, Number: 1, Rows: 104, Bytes: 1}) {
			t.Errorf("%+v: %v", in, err)
		}
		silent := fanout.NewTeller(t.Context(), repo, fanout.Run{}, log.Progress("000302"), 0, 0, 0)
		silent.Add(1, 1)
		time.Sleep(time.Hour)
		silent.End()
		if in, _ := fanout.NewLog(repo, log).ToldIn(t.Context(), 1); len(in) != 1 {
			t.Errorf("one that is not to tell tells %+v", in)
		}
	})
}

// TestSpeed: a speed is that of the last half minute, and nobody guesses 0 s.
func TestSpeed(t *testing.T) {
	began := time.Unix(1000, 0)
	var s fanout.Speed
	for i := int64(1); i <= 100; i++ { // 10 rows per second, and 100 after a minute
		rows := 10 * i
		if i > 60 {
			rows = 600 + 100*(i-60)
		}
		got, size := s.Look(began, began.Add(time.Duration(i)*time.Second), rows, 2*rows)
		if want := 10.0; i <= 60 && (got != want || size != 2*want) {
			t.Fatalf("after %d s it is %g, %g", i, got, size)
		}
		if i == 100 && (got != 100 || size != 200) {
			t.Errorf("in the end it is %g, %g", got, size)
		}
	}
	// What is gone on with after a night is not measured by the night.
	late := fanout.Speed{}
	late.Look(began, began.Add(10*time.Hour), 1000, 0)
	if got, _ := late.Look(began, began.Add(10*time.Hour+time.Second), 1010, 0); got != 10 {
		t.Errorf("%g", got)
	}
	// What is told of in bursts, half a minute apart, is not taken for what is done in
	// the seconds between two looks.
	bursts := fanout.Speed{}
	for i := range int64(120) {
		got, _ := bursts.Look(began, began.Add(10*time.Hour+time.Duration(i)*2*time.Second), 600*(i/15), 0)
		if i > 15 && (got < 10 || got > 40) {
			t.Errorf("%d s after the first look it is %g, and 20 are done", 2*i, got)
		}
	}
	for _, c := range []struct {
		expected, done int64
		per            float64
		want           float64
	}{{100, 50, 10, 5}, {100, 99, 10, 0}, {100, 100, 10, 0}, {0, 100, 10, 0}, {100, 200, 10, 0}, {100, 0, 0, 0}} {
		left := fanout.Left(c.expected, c.done, c.per)
		if (left == nil) != (c.want == 0) || left != nil && *left != c.want {
			t.Errorf("%+v: %v", c, left)
		}
	}
}
