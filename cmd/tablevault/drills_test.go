package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/drill"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/vault"
)

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 0: "0 s", 12 * time.Second: "12 s", 59*time.Second + 400*time.Millisecond: "59 s", time.Minute: "1 min", 12*time.Minute + 30*time.Second: "12 min",
		time.Hour: "1 h", 3*time.Hour + 20*time.Minute: "3 h 20 min", 47*time.Hour + 59*time.Minute: "47 h 59 min", 48 * time.Hour: "2 days", 71 * time.Hour: "2 days",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

// TestDoctorsDrills says how each thing is told that may be known of a table's newest
// drill.
func TestDoctorsDrills(t *testing.T) {
	p, err := policy.Decode("f", []byte("tables: prod/*\nevery: hourly\ndrill: {every: weekly, to: staging/drill}"))
	if err != nil {
		t.Fatal(err)
	}
	rule, now := p.Rules[0], time.Date(2026, 11, 20, 10, 14, 0, 0, time.UTC)
	due := rule.Drill.Every.Due(now)
	id := vault.TableID{Region: "local", Instance: "prod", Table: "orders"}
	const week, hour = 7 * 24 * time.Hour, time.Hour
	begun := func(due, began time.Time) *drill.State {
		d := vault.NewDrillID(id, due)
		return &drill.State{Drill: vault.Drill{DrillID: d, Backup: vault.NewBackupID(began, "x"), RecoveryPoint: began.Add(-40 * time.Minute),
			Target: vault.TableID{Region: "local", Instance: "staging", Table: d.Target("drill")}, Request: d.Request(), Workers: 1, Began: began, Until: began.Add(drill.Bound)}}
	}
	ended := func(s *drill.State, err string) *drill.State {
		s.End = &vault.DrillEnd{Drill: s.Drill, Ended: s.Drill.Began.Add(12 * time.Minute), OK: err == "", Error: err, Rows: 1234567, Verdict: vault.OK, Restore: "r"}
		return s
	}
	dropped := func(s *drill.State, left string) *drill.State {
		s.Drop = &vault.DrillDrop{DrillID: s.Drill.DrillID, Target: s.Drill.Target, At: s.End.Ended, Left: left}
		return s
	}
	old := []vault.BackupID{vault.NewBackupID(now.Add(-9*24*hour), "x")}
	for _, c := range []struct {
		name  string
		state *drill.State
		ids   []vault.BackupID
		level status.Level
		text  string
		fix   string
	}{
		{name: "none, no backup", level: status.Fine, text: "there was none yet"},
		{name: "none, a new table", ids: []vault.BackupID{vault.NewBackupID(now, "x")}, level: status.Fine, text: "there was none yet"},
		{name: "none for long", ids: old, level: status.Warning, text: "one is due since", fix: "docs/ram/drill-plan.json"},
		{name: "under way", state: begun(due, now.Add(-3*hour)), level: status.Fine, text: "under way for 3 h, into staging/drill_orders_"},
		{name: "does not end", state: begun(due, now.Add(-30*hour)), level: status.Warning, text: "was to end by", fix: "planner"},
		{name: "proved", state: dropped(ended(begun(due, now.Add(-50*hour)), ""), ""), level: status.Fine,
			text: "proved 2 days ago: 1,234,567 rows back in 12 min (RTO), recovery point 40 min old (RPO)"},
		{name: "proved just now", state: ended(begun(due, now.Add(-13*time.Minute)), ""), level: status.Fine, text: "proved 1 min ago"},
		{name: "not dropped", state: ended(begun(due, now.Add(-5*hour)), ""), level: status.Warning, text: "is not dropped", fix: "docs/ram/drill-plan.json"},
		{name: "left", state: dropped(ended(begun(due, now.Add(-5*hour)), ""), "another table"), level: status.Warning, text: "was left: another table", fix: "by hand"},
		{name: "overdue", state: dropped(ended(begun(due.Add(-week), due.Add(-week)), ""), ""), level: status.Warning, text: "one more is due since", fix: "planner"},
		{name: "failed", state: ended(begun(due, now.Add(-5*hour)), "no room"), level: status.Failure, text: "failed 4 h 48 min ago: no room", fix: "examine staging/drill_orders_"},
		{name: "failed, dropped", state: dropped(ended(begun(due, now.Add(-5*hour)), "no room"), ""), level: status.Failure, text: "no room", fix: "look at what restore r has left"},
	} {
		d := &doctor{known: status.Known{Backups: map[vault.TableID][]vault.BackupID{id: c.ids}}}
		l, text, fix := d.drill(id, rule, c.state, now)
		if l != c.level || !strings.Contains(text, c.text) || !strings.Contains(fix, c.fix) || (fix == "") != (l == status.Fine) {
			t.Errorf("%s: %s %q → %q", c.name, l, text, fix)
		}
	}
}

// TestDoctorFindsDrills looks at the records in a vault: of tables that are to be
// rehearsed there is a line each, and of others where a table was left behind.
func TestDoctorFindsDrills(t *testing.T) {
	p, err := policy.Decode("f", []byte("every: hourly\nrules:\n- {name: a, tables: prod/or*, drill: {every: weekly, to: staging/drill}}\n- {name: b, tables: prod/*}"))
	if err != nil {
		t.Fatal(err)
	}
	repo, err := repository.Init(t.Context(), &mem.Store{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	fail := func(region, instance, name string) {
		t.Helper()
		id := vault.NewDrillID(vault.TableID{Region: region, Instance: instance, Table: name}, now)
		d := vault.Drill{DrillID: id, Backup: vault.NewBackupID(now, "x"), RecoveryPoint: now, Target: vault.TableID{Region: region, Instance: "staging", Table: id.Target("drill")},
			Request: id.Request(), Workers: 1, Began: now, Until: now.Add(time.Hour)}
		for name, doc := range map[string]vault.Document{id.Begun(): &d, id.Ended(): &vault.DrillEnd{Drill: d, Ended: now, Error: "no room"}} {
			if _, err := repo.Win(t.Context(), name, doc); err != nil {
				t.Fatal(err)
			}
		}
	}
	fail("local", "prod", "orders")
	fail("local", "prod", "others") // only rule b is about it
	fail("local", "unknown", "t")   // whose tables could not be listed
	fail("elsewhere", "prod", "others")
	d := &doctor{repo: repo, known: status.Known{Region: "local", Policy: p, Tables: map[string][]string{"prod": {"orders", "ordinary", "others"}}}}
	d.drills(t.Context())
	var got []string
	for _, f := range d.found {
		got = append(got, fmt.Sprintf("%s %s %.24s", f.Level, f.About, f.Text))
	}
	want := []string{
		"warning prod/others no further drill of it i", "failure prod/orders failed 0 s ago: no room", "ok prod/ordinary there was none yet; the ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	// A record that says proved, and no proof.
	forged := vault.NewDrillID(vault.TableID{Region: "local", Instance: "prod", Table: "ordinary"}, now)
	end := vault.DrillEnd{
		Drill: vault.Drill{DrillID: forged, Backup: vault.NewBackupID(now, "x"), RecoveryPoint: now, Target: vault.TableID{Region: "local", Instance: "staging", Table: forged.Target("drill")},
			Request: forged.Request(), Workers: 1, Began: now, Until: now.Add(time.Hour)},
		Ended: now, OK: true, Verdict: vault.OK, Restore: vault.NewRestoreID(now, "x"), Proof: vault.Restore{ID: vault.NewRestoreID(now, "x")}.Proof(), Rows: 7,
	}
	for name, doc := range map[string]vault.Document{forged.Begun(): &end.Drill, forged.Ended(): &end} {
		if _, err := repo.Win(t.Context(), name, doc); err != nil {
			t.Fatal(err)
		}
	}
	d.found = nil
	if d.drills(t.Context()); !slices.ContainsFunc(d.found, func(f status.Finding) bool {
		return f.About == "prod/ordinary" && f.Level == status.Failure && strings.Contains(f.Text, "but that is not proved: there is no restore")
	}) {
		t.Errorf("%+v", d.found)
	}
	p.Rules[0].Drill = nil
	d.found = nil
	if d.drills(t.Context()); len(d.found) != 0 {
		t.Errorf("without drills: %+v", d.found)
	}
}

// TestDrillOnTheStack has a restore rehearsed by the planner's timer alone, through the
// functions, and the commands tell of it.
func TestDrillOnTheStack(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tablevault.yaml")
	if err := os.WriteFile(file, []byte("tables: local/ord*\nevery: hourly\nkeep: 72 hours\ndrill: {every: daily, to: local/drill}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	st, folder, client := begin(t, func(c *stack.Config) {
		c.Policy, c.Drills = file, []string{"drill"}
	})
	makeTable(t, client, "orders")
	for i := range int64(20) {
		putRow(t, client, "orders", "k", i, nil, 1)
	}
	var list status.Backups
	at := time.Now().Truncate(time.Hour)
	for end := time.Now().Add(30 * time.Second); len(list.Drills) == 0 || list.Drills[0].Dropped.IsZero(); {
		if time.Now().After(end) {
			t.Fatalf("no drill comes to its end: %+v", list.Drills)
		}
		at = at.Add(time.Second)
		if err := st.Host.Fire("tablevault-plan", "tick", at); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		if _, err := os.Stat(filepath.Join(folder, "vault", "vault.json")); err == nil {
			list = status.Backups{}
			must(t, &list, "list", "--stack", folder)
		}
	}
	d := list.Drills[0]
	if d.Table != "local/orders" || d.State != status.DrillProved || d.Rows != 20 || d.RTO <= 0 || d.RPO < 0 || d.Verdict != vault.OK || d.Left != "" || len(list.Drills) != 1 {
		t.Errorf("%+v", list.Drills)
	}
	tables, err := client.ListTable()
	if err != nil || !slices.Equal(tables.TableNames, []string{"orders"}) {
		t.Errorf("the instance has %v, %v", tables, err)
	}
	var s status.Details
	must(t, &s, "show", "--stack", folder, string(d.Backup))
	if len(s.Drills) != 1 || s.Drills[0].Target != d.Target {
		t.Errorf("%+v", s.Drills)
	}
	const said = "20 rows back in "
	for _, args := range [][]string{{"list"}, {"show", string(d.Backup)}} {
		if code, out, errs := tablevaultRun(t, append(args, "--stack", folder)...); code != 0 || !strings.Contains(out, said) {
			t.Errorf("%v: exit %d\n%s%s", args, code, out, errs)
		}
	}
	code, diagnosis := doctorRun(t, "--stack", folder, "--policy", file)
	if code != 0 || !strings.Contains(diagnosis.String(), "ok drill local/orders: proved ") || !strings.Contains(diagnosis.String(), said) {
		t.Errorf("exit %d\n%s", code, diagnosis)
	}
}
