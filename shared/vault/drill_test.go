package vault

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

var tableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,254}$`)

// TestDrillNames holds that each drill has names of its own: records that parse back, a
// request that is one, and a table that the service takes.
func TestDrillNames(t *testing.T) {
	seen := map[string]DrillID{}
	long := strings.Repeat("x", 255)
	for _, table := range []TableID{
		{"local", "prod", "orders"}, {"local", "prod", "orders_"}, {"local", "prod2", "orders"}, {"other", "prod", "orders"},
		{"local", "prod", long}, {"local", "prod", long[:254] + "y"}, {"local", "prod", long[:32]},
	} {
		for _, due := range []time.Time{day, day.Add(time.Second), day.Add(7 * 24 * time.Hour)} {
			d := NewDrillID(table, due.In(time.FixedZone("east", 8*3600)))
			for what, name := range map[string]string{DrillBegun: d.Begun(), DrillEnded: d.Ended(), DrillDropped: d.Dropped()} {
				if back, is, ok := ParseDrillName(name); !ok || back != d || is != what {
					t.Errorf("%s parses to %v %s %v", name, back, is, ok)
				}
				if !strings.HasPrefix(name, DrillsOf(table)) || len(name) > 768 {
					t.Errorf("record %s", name)
				}
			}
			if err := ParseRequestName(d.Request()); err != nil || !strings.HasPrefix(d.Request(), DrillRequests) {
				t.Errorf("request %s: %v", d.Request(), err)
			}
			to := "drill" + strings.Repeat("z", 59)
			target := d.Target(to)
			if !tableName.MatchString(target) || !strings.HasPrefix(target, to+"_") || len(target) > 130 {
				t.Errorf("target %s", target)
			}
			for _, name := range []string{d.Begun(), d.Request(), target} {
				if other, taken := seen[name]; taken {
					t.Errorf("%s is a name of %v and of %v", name, other, d)
				}
				seen[name] = d
			}
		}
	}
	if len(seen) != 7*3*3 {
		t.Errorf("%d names", len(seen))
	}
	good := NewDrillID(TableID{"local", "prod", "orders"}, day).Begun()
	for _, bad := range []string{
		"", Drills, strings.TrimPrefix(good, Drills), good + "/", good + "x", strings.Replace(good, "begun", "other", 1), strings.Replace(good, "/orders", "", 1),
		strings.Replace(good, "prod", "", 1), strings.Replace(good, "20261120", "20261320", 1), "x/" + good,
	} {
		if d, _, ok := ParseDrillName(bad); ok {
			t.Errorf("%q parses as a record of %v", bad, d)
		}
	}
}

func TestDrillTimes(t *testing.T) {
	e := examples()["drill-end"].(*DrillEnd)
	if e.RTO() != 11*time.Minute || e.RPO() != 41*time.Minute {
		t.Errorf("RTO %v, RPO %v", e.RTO(), e.RPO())
	}
	// The five minutes after which somebody notices that all is compared do not count.
	e.Compared, e.Closed = e.Ended.Add(-7*time.Minute), e.Ended.Add(-2*time.Minute)
	if e.RTO() != 6*time.Minute {
		t.Errorf("RTO %v", e.RTO())
	}
	// Clocks that differ don't shorten it.
	for _, of := range []func(){
		func() { e.Compared = e.Drill.Began.Add(-time.Second) },
		func() { e.Compared = e.Closed.Add(time.Second) },
		func() { e.Closed = e.Ended.Add(time.Second) },
	} {
		before := *e
		if of(); e.RTO() != 11*time.Minute {
			t.Errorf("RTO %v of %+v", e.RTO(), e)
		}
		*e = before
	}
}

// FuzzDrillName: a name that parses is the name that the drill's record has.
func FuzzDrillName(f *testing.F) {
	d := exampleDrill().DrillID
	for _, name := range []string{d.Begun(), d.Ended(), d.Dropped(), Drills, d.Request()} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if d, what, ok := ParseDrillName(name); ok && d.record(what) != name {
			t.Errorf("%q is the record %s of %v", name, what, d)
		}
	})
}
