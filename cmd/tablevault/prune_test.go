package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/object/dir"
	"github.com/tablevault/tablevault/shared/prune"
	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// TestPruneJob takes a backup whose time is over from the dry run to its deletion, by the
// command alone, beside one that stays and is verified in the end.
func TestPruneJob(t *testing.T) {
	_, folder, client := begin(t, func(c *stack.Config) { c.Memory = true })
	makeTable(t, client, "orders")
	putRow(t, client, "orders", "a", 1, nil, 5)
	var backups struct{ Backups []status.Backup }
	must(t, &backups, "backup", "--stack", folder, "--table", "local/orders")
	stays := string(backups.Backups[0].ID)

	// An older one, as it would stand there: its shards are read by nobody.
	store, err := dir.Open(t.Context(), filepath.Join(folder, "vault"))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-240 * time.Hour).UTC().Truncate(time.Second)
	id := vault.TableID{Region: "local", Instance: "local", Table: "orders"}
	var old []vault.Backup
	for n := range 2 {
		b := vault.Backup{Table: id, ID: vault.NewBackupID(at.Add(time.Duration(n)*time.Hour), "old")}
		old = append(old, b)
		m := vaulttest.SealedAt(b, b.ID.Time(), b.ID.Time())
		m.Totals.StoredBytes = 1_200_000
		manifest, err := vault.Encode(b.Manifest(), m)
		if err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string]string{
			vault.Opened(id, b.ID): "", b.Manifest(): string(manifest), b.Plan(): "plan", b.Group(0): "group", b.Shard("000000", "aa"): "rows",
		} {
			if _, err := store.Create(t.Context(), name, strings.NewReader(content)); err != nil {
				t.Fatal(err)
			}
		}
	}
	gone, kept := old[0], old[1]
	inVault := func(name string) string { return filepath.Join(folder, "vault", filepath.FromSlash(name)) }
	run := func(into *prune.Report, more ...string) {
		t.Helper()
		*into = prune.Report{}
		must(t, into, append([]string{"prune", "--stack", folder, "--table", "local/ord*", "--keep", "72h"}, more...)...)
	}

	var r prune.Report
	if run(&r); r.Apply || r.Marked.Backups != 1 || r.Deleted.Backups != 0 || len(r.Tables) != 1 || len(r.Tables[0].Backups) != 3 {
		t.Fatalf("%+v", r)
	}
	code, out, errs := tablevaultRun(t, "prune", "--stack", folder, "--table", "local/orders", "--keep", "72h")
	for _, want := range []string{
		"local/orders: kept 72 hours", "mark  " + string(gone.ID), "1.2 MB", "older than 72 hours", "keep  " + string(kept.ID), "72 hours begin",
		"the newest recovery point", "Nothing was changed. With --apply 1 backup (1.2 MB) would be marked, and 0 backups (0 B)",
	} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("exit %d, %s: no %q in\n%s", code, errs, want, out)
		}
	}
	if run(&r, "--apply"); r.Marked.Backups != 1 || r.Deleted.Backups != 0 {
		t.Errorf("%+v", r)
	}
	backups.Backups = nil
	must(t, &backups, "list", "--stack", folder)
	if len(backups.Backups) != 3 || backups.Backups[2].Marked == nil || backups.Backups[1].Marked != nil {
		t.Errorf("%+v", backups)
	}
	if _, out, _ := tablevaultRun(t, "list", "--stack", folder); !strings.Contains(out, "none: marked for deletion since 2") {
		t.Errorf("list: %s", out)
	}
	for _, args := range [][]string{
		{"restore", "--backup", string(gone.ID), "--to", "local/copy"}, {"restore", "--table", "local/orders", "--at", at.Format(time.RFC3339), "--to", "local/copy"},
		{"verify", "--backup", string(gone.ID)},
	} {
		if code, _, errs := tablevaultRun(t, append(args, "--stack", folder)...); code != 1 || !strings.Contains(errs, "marked for deletion") && !strings.Contains(errs, "no sealed backup") {
			t.Errorf("%v: exit %d, %s", args, code, errs)
		}
	}

	// The mark's file is as old as the grace.
	before := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(inVault(gone.Mark()), before, before); err != nil {
		t.Fatal(err)
	}
	if run(&r, "--apply", "--grace", "48h"); r.Deleted.Backups != 0 {
		t.Errorf("%+v", r)
	}
	if run(&r, "--apply"); r.Deleted.Backups != 1 || r.Marked.Backups != 0 {
		t.Errorf("%+v", r)
	}
	for _, name := range []string{gone.Manifest(), vault.Opened(id, gone.ID), gone.Plan(), gone.Shard("000000", "aa")} {
		if _, err := os.Stat(inVault(name)); !os.IsNotExist(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(inVault(kept.Shard("000000", "aa"))); err != nil {
		t.Error(err)
	}
	var verified verifyResult
	must(t, &verified, "verify", "--stack", folder, "--backup", stays, "--depth", "read")
	if verified.Verdict != vault.OK || verified.Rows != 1 {
		t.Errorf("%+v", verified)
	}
}

// TestPruneIsAskedWell holds that prune does nothing where it is not clear what it is to
// go by.
func TestPruneIsAskedWell(t *testing.T) {
	_, folder, _ := begin(t, func(c *stack.Config) { c.Memory = true })
	other := filepath.Join(t.TempDir(), "other.yaml")
	if err := os.WriteFile(other, []byte("vault: oss://other/vault\ntables: local/*\nevery: hourly\nkeep: 72 hours\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "--policy"},
		{[]string{"--table", "local/orders"}, exitUsage, "--policy"},
		{[]string{"--keep", "72h"}, exitUsage, "--keep goes with --table"},
		{[]string{"--table", "orders", "--keep", "72h"}, exitUsage, "instance/table"},
		{[]string{"--table", "*/*", "--keep", "72h"}, exitUsage, "instance/table"},
		{[]string{"--table", "local/[", "--keep", "72h"}, exitUsage, "local/["},
		{[]string{"--table", "local/*", "--keep", "a while"}, exitUsage, "a while"},
		{[]string{"--table", "local/*", "--keep", "72h", "--grace", "5m"}, exitUsage, "at least 1h"},
		{[]string{"--policy", other, "--apply"}, exitFailed, "oss://other/vault"},
		{[]string{"--policy", other + "x"}, exitFailed, "other.yamlx"},
	} {
		code, out, errs := tablevaultRun(t, append([]string{"prune", "--stack", folder}, c.args...)...)
		if code != c.code || !strings.Contains(errs, c.want) || out != "" {
			t.Errorf("%v: exit %d, %s%s", c.args, code, out, errs)
		}
	}
}

// TestPruneByTheStack: without --policy the stack's own is gone by, whatever vault that
// is for elsewhere.
func TestPruneByTheStack(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tablevault.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("vault: oss://other/vault\ntables: local/*\nevery: hourly\nkeep: 72 hours\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	_, folder, client := begin(t, func(c *stack.Config) { c.Memory, c.Policy = true, file })
	makeTable(t, client, "orders")
	backedUp(t, folder, "local/orders")
	var r prune.Report
	must(t, &r, "prune", "--stack", folder)
	if len(r.Tables) != 1 || r.Tables[0].Keep != "72 hours" {
		t.Errorf("%+v", r)
	}
	if _, d := doctorRun(t, "--stack", folder); !strings.Contains(d.String(), "ok policy : "+file+" has 1 rule") {
		t.Error(d)
	}
	// By its name it is anybody's.
	if code, _, errs := tablevaultRun(t, "prune", "--stack", folder, "--policy", file); code != exitFailed || !strings.Contains(errs, "oss://other/vault") {
		t.Errorf("exit %d, %s", code, errs)
	}
	write("keeps: 3\n")
	if code, _, errs := tablevaultRun(t, "prune", "--stack", folder, "--table", "local/orders", "--keep", "72h"); code != exitFailed || !strings.Contains(errs, "keeps") {
		t.Errorf("exit %d, %s", code, errs)
	}
}
