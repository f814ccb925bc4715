package drill_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/drill"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
)

// TestDrill rehearses a restore by ticks alone: it waits for the first sealed backup,
// restores it into a table of its own, records what came of it, and leaves nothing
// behind.
func TestDrill(t *testing.T) {
	w := newWorld(t, 40)
	if s := w.tick(daily); !reports(s, "waits for the first sealed backup") || s.Begun != 0 {
		t.Errorf("%+v", s)
	}
	w.is("")
	w.work()
	w.Advance(10 * time.Minute)
	began := w.Clock()
	if s := w.tick(daily); s.Begun != 1 || s.Open != 1 {
		t.Fatalf("%+v", s)
	}
	w.work()
	target := w.first().Drill.Target
	if !strings.HasPrefix(target.Table, "drill_orders_20261120T000000Z_") || target.Instance != "staging" {
		t.Errorf("target %v", target)
	}
	w.left(target.Table)
	w.settle(daily)
	w.is("20T00:00 proved dropped")
	w.left()

	d, m := w.first(), w.latest("orders")
	e := d.End
	if d.Drill.Backup != m.Backup || d.Drill.RecoveryPoint != m.RecoveryPoint().UTC() || d.Drill.Began != began || d.Drill.Rule != "default" || e.Rows != 40 || e.Verdict != vault.OK {
		t.Errorf("%+v\n%+v", d.Drill, e)
	}
	proof, err := w.Repo.RestoreProof(t.Context(), e.Restore)
	if err != nil || proof.Verdict != vault.OK || proof.Target != target.String() || e.Proof != (vault.Restore{ID: e.Restore}).Proof() {
		t.Errorf("%+v, %v", proof, err)
	}
	if e.RTO() <= 0 || e.RTO() > 10*time.Minute || e.Ended != proof.At || e.RPO() != began.Sub(m.RecoveryPoint()) {
		t.Errorf("RTO %v, RPO %v", e.RTO(), e.RPO())
	}
	// Nothing more today, and one tomorrow, of a newer backup.
	w.settle(daily)
	w.is("20T00:00 proved dropped")
	w.Advance(24 * time.Hour)
	w.seal()
	w.settle(daily)
	w.is("20T00:00 proved dropped, 21T00:00 proved dropped")
	if w.drills("orders")[1].Drill.Backup == d.Drill.Backup {
		t.Error("the same backup is restored again")
	}
}

func TestWorkers(t *testing.T) {
	for most, want := range map[int]int{1: 1, 7: 1, 8: 1, 60: 7, 800: 100} {
		p := policy.Default()
		p.Workers.Most = most
		if got := drill.Workers(p); got != want || got*drill.AtOnce > max(most/2, drill.AtOnce) {
			t.Errorf("of %d workers a drill has %d, want %d", most, got, want)
		}
	}
}

// TestNoDrill asks the vault and the instances for nothing where no drill is wanted.
func TestNoDrill(t *testing.T) {
	w := sealed(t, 1)
	w.Repo = nil
	before := w.Tables.Calls("Tables")
	s, err := w.rehearser("tables: prod/*\nevery: hourly\n").Tick(t.Context(), w.Run(), w.Clock())
	if err != nil || s.Open != 0 || w.Tables.Calls("Tables") != before {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestMissedTicks switches the timer off for days: one drill makes up for all. A tick of
// the past that comes late begins nothing.
func TestMissedTicks(t *testing.T) {
	w := newWorld(t, 5)
	w.settle(daily)
	w.Advance(5 * 24 * time.Hour)
	w.settle(daily)
	w.is("20T00:00 proved dropped, 25T00:00 proved dropped")
	if _, err := w.rehearser(daily).Tick(t.Context(), w.Run(), day.Add(2*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	w.is("20T00:00 proved dropped, 25T00:00 proved dropped")
}

// TestDrillOfTheFuture has the record of a drill stand in the vault that is named by an
// instant which is still to come, ended or not, and has a tick be of one: drills go on,
// and whoever asks for the newest drill is told of one that was.
func TestDrillOfTheFuture(t *testing.T) {
	begins, ends := time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2099, 1, 2, 0, 0, 0, 0, time.UTC)
	for _, over := range []bool{true, false} {
		w := newWorld(t, 5)
		w.settle(daily)
		orders := id("orders")
		future := vault.NewDrillID(orders, begins)
		d := vault.Drill{
			DrillID: future, Rule: "default", Backup: "20261120T020000Z-0a1b2c3d", Target: staging("drill_x"),
			Request: future.Request(), Workers: 1, RecoveryPoint: w.Clock(), Began: w.Clock(), Until: ends,
		}
		records := map[string]vault.Document{future.Begun(): &d}
		if over {
			records[future.Ended()] = &vault.DrillEnd{Drill: d, Ended: w.Clock(), Error: "it never was"}
			records[future.Dropped()] = &vault.DrillDrop{DrillID: future, Target: d.Target, At: w.Clock()}
		}
		for name, d := range records {
			if _, err := w.Repo.Create(t.Context(), name, d); err != nil {
				t.Fatal(err)
			}
		}
		w.Advance(24 * time.Hour)
		s, err := w.rehearser(daily).Tick(t.Context(), w.Run(), ends)
		if err != nil || s.Begun != 1 || s.Open != 1 || len(s.Reports) == 0 || !strings.Contains(s.Reports[0].Text, "still to come") {
			t.Errorf("over: %t: %+v, %v", over, s, err)
		}
		newest, err := drill.Newest(t.Context(), w.Repo, &orders, w.Clock())
		if err != nil || len(newest) != 1 || newest[0].Drill.Due.Year() != 2026 {
			t.Errorf("over: %t: the newest is %+v, %v", over, newest, err)
		}
		of, err := drill.Of(t.Context(), w.Repo, orders, 1, w.Clock())
		if err != nil || len(of) != 1 || of[0].Drill.Due.Year() != 2026 {
			t.Errorf("over: %t: the newest is %+v, %v", over, of, err)
		}
	}
}

// TestOverlappingTicks runs ticks side by side, with all of their work doubled.
func TestOverlappingTicks(t *testing.T) {
	w := sealed(t, 30)
	for range 12 {
		var ticks sync.WaitGroup
		for i := range 3 {
			r := w.rehearser(daily)
			ticks.Go(func() {
				if _, err := r.Tick(t.Context(), w.Run(), w.Clock().Add(time.Duration(i)*time.Second)); err != nil {
					t.Error(err)
				}
			})
		}
		ticks.Wait()
		w.work()
		w.Advance(time.Minute)
	}
	w.is("20T00:00 proved dropped")
	w.left()
	if n := w.Staging.Calls("Create"); n > 2 {
		t.Errorf("%d tables were made", n)
	}
}

// TestAtOnce has several tables due: no more drills are under way than may be, and those
// that have waited longest come first.
func TestAtOnce(t *testing.T) {
	w := newWorld(t, 0)
	names := []string{"orders"}
	for i := range 2 * drill.AtOnce {
		names = append(names, fmt.Sprintf("t%d", i))
		w.make(names[i+1], i)
	}
	w.seal()
	s := w.tick(daily)
	if s.Open != drill.AtOnce || s.Waiting != drill.AtOnce+1 {
		t.Fatalf("%+v", s)
	}
	w.settle(daily)
	for _, name := range names {
		if said := w.said(name); said != "20T00:00 proved dropped" {
			t.Errorf("the drills of %s: %q", name, said)
		}
	}
	// One more table, and a new day: the new one comes first.
	w.make("zz", 1)
	w.Advance(24 * time.Hour)
	w.seal()
	if w.tick(daily); w.said("zz") != "21T00:00 open" {
		t.Errorf("the table that was never rehearsed has %q", w.said("zz"))
	}
	w.settle(daily)
	if said := w.said(names[len(names)-1]); said != "20T00:00 proved dropped, 21T00:00 proved dropped" {
		t.Errorf("the drills of the last: %q", said)
	}

	// When time is up, what is due waits.
	w.Advance(24 * time.Hour)
	w.seal()
	r := w.rehearser(daily)
	run := w.Run()
	run.Stop = w.Clock()
	if s, err := r.Tick(t.Context(), run, w.Clock()); err != nil || s.Waiting != len(names)+1 || s.Begun != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestSeveralRules has two rules want drills of one table: each is done justice by
// whichever drill comes first.
func TestSeveralRules(t *testing.T) {
	w := newWorld(t, 3)
	const both = "every: hourly\nrules:\n- {name: a, tables: prod/*, drill: {every: weekly, to: staging/w}}\n" +
		"- {name: b, tables: prod/orders, drill: {every: daily, to: staging/d}}\n"
	w.settle(both)
	w.Advance(3 * 24 * time.Hour) // Monday
	w.settle(both)
	w.Advance(24 * time.Hour)
	w.settle(both)
	var got []string
	for _, d := range w.drills("orders") {
		got = append(got, d.Drill.Due.Format("Mon")+" "+d.Drill.Rule)
	}
	if want := []string{"Mon a", "Fri b", "Mon a", "Tue b"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	w.left()
}

// TestTableInTheWay never restores into a table that is there, nor drops it.
func TestTableInTheWay(t *testing.T) {
	w := newWorld(t, 3)
	target := w.inTheWay("orders")
	w.settle(daily)
	w.is("20T00:00 failed")
	w.failed("exists")
	w.tomorrow("20T00:00 failed left, 21T00:00 proved dropped", target)
}

// TestRestoreFails keeps the table of a drill that failed, until the next drill begins.
func TestRestoreFails(t *testing.T) {
	w := newWorld(t, 50)
	w.refuse()
	w.settle(daily)
	w.is("20T00:00 failed")
	target := w.first().Drill.Target.Table
	w.left(target)
	if e := w.failed("OTSParameterInvalid"); strings.Contains(e.Error, "under another name") || e.Restore == "" {
		t.Errorf("%+v", e)
	}
	w.mend()
	w.settle(daily)
	w.left(target)
	w.tomorrow("20T00:00 failed dropped, 21T00:00 proved dropped")
	// Its late deliveries find the restore closed.
	w.Advance(time.Hour)
	w.work()
	w.left()
}

// TestVerdicts fails a drill whose table is not what the backup holds: other rows, and
// rows that are missing because the service refuses them.
func TestVerdicts(t *testing.T) {
	target := ordersDrill.Target("drill")
	for verdict, spoil := range map[vault.Verdict]func(w *world){
		vault.Differs: func(w *world) {
			w.Staging.Fault = func(c tabletest.Call) error {
				if c.Name == "Scan" && !c.After {
					w.Staging.Put(target, tabletest.Row{Key: table.Key{table.Integer(1 << 40)}})
				}
				return nil
			}
		},
		vault.Quarantined: func(w *world) {
			w.Staging.Refuse = func(_ string, row *plainbuffer.Row, _ table.WriteOp) (string, string) {
				if row.Key[0].Int() == 7 {
					return "OTSParameterInvalid", "no sevens"
				}
				return "", ""
			}
		},
	} {
		t.Run(string(verdict), func(t *testing.T) {
			w := sealed(t, 200)
			spoil(w)
			w.settle(daily)
			w.is("20T00:00 failed")
			w.left(target)
			if e := w.failed(string(verdict)); e.Verdict != verdict || e.Proof == "" {
				t.Errorf("%+v", e)
			}
			w.mend()
			w.tomorrow("20T00:00 failed dropped, 21T00:00 proved dropped")
		})
	}
}

// TestBound ends a drill whose restore comes to nothing, at each point at which it may be
// stuck, and lets none of its late deliveries make a table or write a row.
func TestBound(t *testing.T) {
	for looks, becomes := range []string{"left", "dropped", "dropped"} {
		t.Run(fmt.Sprintf("after %d looks", looks), func(t *testing.T) {
			w := sealed(t, 10)
			w.tick(daily)
			w.Drain()
			for range looks {
				if _, err := w.Requests().Serve(t.Context(), w.Run(), w.first().Drill.Request); err != nil {
					t.Fatal(err)
				}
			}
			late := w.Drain()
			w.Advance(23 * time.Hour)
			if s := w.tick(daily); s.Failed != 0 || s.Open != 1 {
				t.Fatalf("%+v", s)
			}
			late = append(late, w.Drain()...)
			w.Advance(2 * time.Hour)
			s := w.tick(daily)
			if s.Failed != 1 || !reports(s, "it had not ended by 2026-11-21T02:14") {
				t.Fatalf("%+v", s)
			}
			w.Queue = append(w.Queue, late...)
			w.work()
			if looks == 0 {
				w.left()
			} else if rows := w.Staging.Rows(w.first().Drill.Target.Table); len(rows) != 0 {
				t.Errorf("late deliveries have written %d rows", len(rows))
			}
			// The next one is due already, and waits until nothing is on its way.
			if s := w.tick(daily); s.Begun != 0 || !reports(s, "waits until 2026-11-21T04:14") {
				t.Errorf("%+v", s)
			}
			w.Advance(2 * time.Hour)
			w.settle(daily)
			w.is("20T00:00 failed " + becomes + ", 21T00:00 proved dropped")
			w.left()
		})
	}
}

// TestDropFails tries again until the table is gone, and begins no other drill of the
// table before.
func TestDropFails(t *testing.T) {
	w := newWorld(t, 4)
	w.deny("DropTable", fmt.Errorf("denied: %w", table.ErrPermission))
	w.settle(daily)
	w.is("20T00:00 proved")
	if s := w.tick(daily); !reports(s, "denied") {
		t.Errorf("%+v", s)
	}
	w.Advance(24 * time.Hour)
	w.settle(daily)
	w.is("20T00:00 proved")
	w.mend()
	w.settle(daily)
	w.is("20T00:00 proved dropped, 21T00:00 proved dropped")
	w.left()
}

// TestAnotherTable leaves a table alone that stands under a drill's name and is not the
// one that its restore made.
func TestAnotherTable(t *testing.T) {
	w := newWorld(t, 4)
	w.deny("DropTable", errors.New("not now"))
	w.settle(daily)
	w.mend()
	target := w.inTheWay("orders")
	w.settle(daily)
	w.is("20T00:00 proved left")
	w.left(target)
	if d := w.first().Drop; !strings.Contains(d.Left, "not known to be the one") {
		t.Errorf("%+v", d)
	}
}

// TestUnnotedTable has a restore die between making its table and noting that: the table
// is the drill's, as long as it is as it was made.
func TestUnnotedTable(t *testing.T) {
	target := ordersDrill.Target("drill")
	for _, test := range []struct {
		name    string
		written bool
		becomes string
		left    []string
	}{
		{"as it was made", false, "dropped", nil},
		{"written to", true, "left", []string{target}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := sealed(t, 4)
			dead := false
			w.Staging.Fault = func(c tabletest.Call) error {
				if dead = dead || c.Name == "Create" && c.After; dead {
					return fmt.Errorf("denied: %w", table.ErrPermission)
				}
				return nil
			}
			w.settle(daily)
			w.is("20T00:00 failed")
			w.mend()
			w.left(target)
			if test.written {
				w.Staging.Put(target, tabletest.Row{Key: table.Key{table.Integer(1)}})
			}
			w.tomorrow("20T00:00 failed "+test.becomes+", 21T00:00 proved dropped", test.left...)
		})
	}
}

// TestExpiring proves a restore of a table whose rows expire: what is left out on both
// sides is no difference.
func TestExpiring(t *testing.T) {
	w := newWorld(t, 20)
	def, err := w.Tables.Describe(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	def.Options.TTL, def.Indexes, def.Options.AllowUpdate = 86400, nil, false
	w.Tables.Make(def)
	for i := range 20 {
		w.Tables.Put("orders", tabletest.Row{Key: table.Key{table.Integer(int64(i))}, Cells: []plainbuffer.Cell{tabletest.Cell("n", day.Add(time.Duration(-i)*2*time.Hour).UnixMilli(), i)}})
	}
	w.seal()
	w.Advance(20 * time.Hour)
	w.settle(daily)
	if e := w.first().End; e == nil || !e.OK {
		t.Errorf("%+v", e)
	}
}

// TestGoneTables rehearses no table that is gone, goes on with what was begun, and says
// which instances can't be asked.
func TestGoneTables(t *testing.T) {
	w := sealed(t, 4)
	w.tick(daily)
	w.Tables.Drop("orders")
	w.settle(daily)
	w.is("20T00:00 proved dropped")
	w.tomorrow("20T00:00 proved dropped")
	if s := w.tick("tables: [dev/*, prod/*]\nevery: hourly\ndrill: {every: daily, to: staging/drill}"); !reports(s, "can't be listed: no instance dev") {
		t.Errorf("%+v", s)
	}
}

// TestPrune deletes no backup that a drill under way restores, and the records of drills
// say what they said when their backups are gone.
func TestPrune(t *testing.T) {
	w := sealed(t, 20)
	w.tick(daily)
	d := w.first()
	// The restore is planned, and loads nothing for days.
	if _, err := w.Requests().Serve(t.Context(), w.Run(), d.Drill.Request); err != nil {
		t.Fatal(err)
	}
	late := w.Drain()
	sixHours := func() {
		for range 6 {
			w.Advance(time.Hour)
			w.seal()
		}
		w.prune()
	}
	sixHours()
	w.Queue = append(w.Queue, late...)
	w.Advance(time.Hour)
	w.settle(daily)
	w.is("20T00:00 proved dropped")
	sixHours()
	if _, _, err := w.Repo.Manifest(t.Context(), vault.Backup{Table: id("orders"), ID: d.Drill.Backup}); err == nil {
		t.Errorf("backup %s is still there: nothing was pruned", d.Drill.Backup)
	}
	w.is("20T00:00 proved dropped")
	if e := w.first().End; e.Rows != 20 {
		t.Errorf("%+v", e)
	}
}

// TestRTO rehearses with ticks five minutes apart. The drill goes on from phase to phase
// by itself, and its answer has the planner look at once; where nobody tells that all is
// compared, a tick finds out. Either way, nobody's waiting counts.
func TestRTO(t *testing.T) {
	for _, test := range []struct {
		blind bool
		most  time.Duration
	}{
		{false, time.Minute},
		// Comparisons are begun by a tick, too, and that time counts: nothing is ready
		// then.
		{true, 6 * time.Minute},
	} {
		t.Run(fmt.Sprintf("blind: %t", test.blind), func(t *testing.T) {
			w := sealed(t, 40)
			w.blind = test.blind
			began := w.Clock()
			for n := 0; w.said("orders") != "20T00:00 proved dropped"; n++ {
				if n > 20 {
					t.Fatal(w.said("orders"))
				}
				w.tick(daily)
				w.work()
				if !test.blind && n == 0 && w.ticks != 1 {
					t.Errorf("the drill's answer had %d ticks follow", w.ticks)
				}
				w.Advance(5 * time.Minute)
			}
			e := w.first().End
			took, rto := e.Ended.Sub(e.Drill.Began), e.RTO()
			if test.blind == (took < 5*time.Minute) || e.Drill.Began.Before(began) {
				t.Errorf("it took %v, as ticks find out", took)
			}
			if rto <= 0 || rto > test.most || e.Compared.IsZero() {
				t.Errorf("RTO %v of %v: %+v", rto, took, e)
			}
		})
	}
}
