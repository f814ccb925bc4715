package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/dir"
	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/vault"
)

func TestInit(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tablevault.yaml")
	code, out, errs := tablevaultRun(t, "init", "--file", file, "--table", "local/*", "--vault", "")
	if code != 0 || !strings.Contains(out, "local/*") {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	if p, err := readPolicy(file); err != nil || p.Rules[0].Keep.For != 72*time.Hour {
		t.Fatalf("%+v: %v", p, err)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if code, _, errs = tablevaultRun(t, "init", "--file", file, "--table", "local/x"); code != exitFailed || !strings.Contains(errs, "not overwritten") {
		t.Fatalf("exit %d: %s", code, errs)
	}
	if after, err := os.ReadFile(file); err != nil || string(after) != string(before) {
		t.Errorf("the file was changed: %v\n%s", err, after)
	}
	for _, args := range [][]string{{"init"}, {"init", "--file", file + "2", "--table", "local"}, {"init", "--file", file + "2", "--table", "a/b", "--vault", "bucket"}} {
		if code, _, errs = tablevaultRun(t, args...); code != exitUsage {
			t.Errorf("%v: exit %d: %s", args, code, errs)
		}
	}
	if code, out, _ = tablevaultRun(t, "init", "--schema"); code != 0 || !strings.Contains(out, `"title": "tablevault.yaml"`) {
		t.Errorf("exit %d: %s", code, out)
	}
}

// TestPolicyOnTheStack fires the planner's timer on the local stack: what the policy
// wants is backed up, once per hour whatever ticks come, and a request in the vault
// restores it, with the budget that it names, as the command line does.
func TestPolicyOnTheStack(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tablevault.yaml")
	if code, _, errs := tablevaultRun(t, "init", "--file", file, "--table", "local/ord*", "--vault", "oss://not/here"); code != 0 {
		t.Fatal(errs)
	}
	st, folder, client := begin(t, func(c *stack.Config) { c.Policy = file })
	makeTable(t, client, "orders")
	makeTable(t, client, "others")
	for i := range int64(20) {
		putRow(t, client, "orders", "k", i, nil, 1)
	}
	var backups struct{ Backups []status.Backup }
	// What is to come counts as now, so that all ticks are of the past.
	hour := time.Now().Truncate(time.Hour).Add(-6 * time.Hour)
	tick := func(at time.Time) {
		t.Helper()
		if err := st.Host.Fire("tablevault-plan", "tick", at); err != nil {
			t.Fatal(err)
		}
	}
	list := func() int {
		backups.Backups = nil
		if _, err := os.Stat(filepath.Join(folder, "vault", "vault.json")); err != nil {
			return 0
		}
		must(t, &backups, "list", "--stack", folder)
		return len(backups.Backups)
	}
	passed := time.Duration(0)
	until := func(what string, done func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !done(); {
			if time.Now().After(end) {
				t.Fatalf("%s does not happen; the vault has %+v", what, backups.Backups)
			}
			// Each at its own instant, as timers are: one that is delivered twice
			// hands a restore on once.
			passed += time.Second
			tick(hour.Add(passed))
			time.Sleep(100 * time.Millisecond)
		}
	}
	until("the first backup", func() bool { return list() == 1 })
	tick(hour)
	tick(hour.Add(5 * time.Minute))
	hour = hour.Add(3 * time.Hour)
	until("the second backup", func() bool { return list() == 2 })
	for _, b := range backups.Backups {
		if b.Table != "local/orders" || b.Rows != 20 || b.State != vault.Sealed {
			t.Errorf("%+v", b)
		}
	}

	store, err := dir.Open(t.Context(), filepath.Join(folder, "vault"))
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string, d vault.Document) error {
		data, err := object.ReadAll(t.Context(), store, name, 1<<20)
		if err != nil {
			return err
		}
		return vault.Decode(name, data, d)
	}
	ask := func(name, request string) *vault.Answer {
		t.Helper()
		if _, err := store.Create(t.Context(), "requests/"+name+".json", strings.NewReader(request)); err != nil {
			t.Fatal(err)
		}
		answer := new(vault.Answer)
		until("the answer", func() bool { return read("answers/requests/"+name+".json", answer) == nil })
		return answer
	}
	planned := func(id vault.RestoreID, want vault.Budget) {
		t.Helper()
		var plan vault.RestorePlan
		if err := read(vault.Restore{ID: id}.Plan(), &plan); err != nil || plan.Budget != want {
			t.Errorf("the plan has %s, want %s: %v", plan.Budget, want, err)
		}
	}
	answer := ask("copy", `{"kind":"restore","table":"local/orders","to":"local/copy","settings":{"write_units":500}}`)
	if !answer.OK || answer.Rows != 20 || answer.Target != "local/copy" {
		t.Errorf("%+v", answer)
	}
	planned(answer.Restore, vault.Budget{WriteUnits: 500})
	for name, bad := range map[string]struct{ settings, want string }{
		"unknown":  {`{"write_unit":500}`, `unknown field "write_unit"`},
		"negative": {`{"read_units":-1}`, "want 1 to"},
		"text":     {`{"read_units":"many"}`, "settings of a command of kind restore"},
	} {
		if answer := ask(name, `{"kind":"restore","table":"local/orders","to":"local/other","settings":`+bad.settings+`}`); answer.OK || !strings.Contains(answer.Error, bad.want) {
			t.Errorf("%s: %+v", name, answer)
		}
	}
	var restored restoreResult
	must(t, &restored, "restore", "--stack", folder, "--table", "local/orders", "--to", "local/paced", "--write-units", "5000", "--read-units", "4000")
	if restored.Verdict != vault.OK || restored.Rows != 20 {
		t.Errorf("%+v", restored)
	}
	planned(restored.Restore, vault.Budget{ReadUnits: 4000, WriteUnits: 5000})
	var verified verifyResult
	must(t, &verified, "verify", "--stack", folder, "--restore", string(restored.Restore), "--read-units", "40")
	if verified.Verdict != vault.OK || verified.Pace == nil || verified.Pace.Reason != vault.PacedByBudget || verified.Pace.ReadUnits != 40 {
		t.Errorf("%+v", verified)
	}
}
