package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/vault"
)

// TestDamagedManifest damages the newest manifest of three: list has all three and exits
// with the code of corruption, a restore of the newest names the next older, which is
// restored, and doctor fails.
func TestDamagedManifest(t *testing.T) {
	_, dir, client := begin(t, nil)
	makeTable(t, client, "orders")
	putRow(t, client, "orders", "k", 1, nil, 1)
	var made []vault.BackupID
	for range 3 {
		var r struct{ Backups []status.Backup }
		must(t, &r, "backup", "--stack", dir, "--table", "local/orders", "--new")
		made = append(made, r.Backups[0].ID)
	}
	manifest := filepath.Join(dir, "vault", vault.ManifestName(vault.TableID{Region: "local", Instance: "local", Table: "orders"}, made[2]))
	content, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(manifest, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(manifest, content[:len(content)-3], 0o600); err != nil {
		t.Fatal(err)
	}
	// So do a backup that runs, and a drill, of which nothing can be read.
	open := vault.Backup{Table: vault.TableID{Region: "local", Instance: "local", Table: "orders"}, ID: "20261120T021400Z-0a1b2c3d"}
	drill := vault.NewDrillID(open.Table, time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC))
	for name, content := range map[string]string{vault.Opened(open.Table, open.ID): "", open.Plan(): "{", drill.Begun(): "{"} {
		file := filepath.Join(dir, "vault", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	code, out, errs := tablevaultRun(t, "list", "--stack", dir, "--json")
	var l status.Backups
	if err := json.Unmarshal([]byte(out), &l); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if code != exitDiffers || !strings.Contains(errs, "1 of 3 backups can't be restored") || len(l.Backups) != 3 {
		t.Errorf("exit %d: %s, %+v", code, errs, l.Backups)
	}
	if len(l.Running) != 1 || l.Running[0].State != "failed" || !strings.Contains(l.Running[0].LastError, "corrupt") {
		t.Errorf("%+v", l.Running)
	}
	if len(l.Drills) != 1 || l.Drills[0].State != status.DrillFailed || !strings.Contains(l.Drills[0].Error, "corrupt") {
		t.Errorf("%+v", l.Drills)
	}
	for _, b := range l.Backups {
		if want := b.ID == made[2]; (b.State == "corrupt") != want || (b.Error != "") != want {
			t.Errorf("%+v", b)
		}
	}
	if code, out, _ := tablevaultRun(t, "list", "--stack", dir); code != exitDiffers || strings.Count(out, string(made[0])) != 1 || !strings.Contains(out, "corrupt object") {
		t.Errorf("exit %d: %s", code, out)
	}
	code, _, errs = tablevaultRun(t, "restore", "--stack", dir, "--table", "local/orders", "--to", "local/copy")
	if code != exitDiffers || !strings.Contains(errs, string(made[2])) || !strings.Contains(errs, "--backup "+string(made[1])) {
		t.Errorf("exit %d: %s", code, errs)
	}
	var r restoreResult
	must(t, &r, "restore", "--stack", dir, "--backup", string(made[1]), "--to", "local/copy")
	if r.Rows != 1 || r.Verdict != vault.OK {
		t.Errorf("%+v", r)
	}
	if code, out, _ := tablevaultRun(t, "doctor", "--stack", dir); code != exitFailed || !strings.Contains(out, "manifest "+string(made[2])) {
		t.Errorf("exit %d: %s", code, out)
	}
	other := filepath.Join(t.TempDir(), "tablevault.yaml")
	if err := os.WriteFile(other, []byte("tables: local/x*\nevery: hourly\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, _ = tablevaultRun(t, "doctor", "--stack", dir, "--policy", other)
	if code != exitFailed || !strings.Contains(out, "manifest "+string(made[2])) || !strings.Contains(out, "no recovery point at all of a table that the policy wants") {
		t.Errorf("by a policy for other tables: exit %d: %s", code, out)
	}
}

// TestDamagedRestore damages the proof of a restore, and then its plan: it is among the
// restores of its table, with what its name tells, and the exit code is that of
// corruption.
func TestDamagedRestore(t *testing.T) {
	_, dir, client := begin(t, nil)
	makeTable(t, client, "orders")
	putRow(t, client, "orders", "k", 1, nil, 1)
	must(t, &struct{}{}, "backup", "--stack", dir, "--table", "local/orders")
	var made restoreResult
	must(t, &made, "restore", "--stack", dir, "--table", "local/orders", "--to", "local/copy")
	r := vault.Restore{ID: made.Restore}
	for _, name := range []string{r.Proof(), r.Plan()} {
		file := filepath.Join(dir, "vault", filepath.FromSlash(name))
		if err := os.Chmod(file, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, 20); err != nil {
			t.Fatal(err)
		}
		code, out, errs := tablevaultRun(t, "list", "--stack", dir, "--restores", "--table", "local/copy")
		if code != exitDiffers || !strings.Contains(out, string(made.Restore)) || !strings.Contains(out, name) || strings.Contains(out, "days") {
			t.Errorf("%s is damaged: exit %d: %s%s", name, code, out, errs)
		}
		var l status.Restores
		_, out, _ = tablevaultRun(t, "list", "--stack", dir, "--restores", "--json", "--table", "local/copy")
		if err := json.Unmarshal([]byte(out), &l); err != nil || len(l.Restores) != 1 {
			t.Fatalf("%v: %s", err, out)
		}
		if r := l.Restores[0]; !r.Corrupt || r.Begun.IsZero() || (r.Target == "local/copy") != (name == vault.Restore{ID: made.Restore}.Proof()) {
			t.Errorf("%s is damaged: %+v", name, r)
		}
		if code, out, errs := tablevaultRun(t, "list", "--stack", dir, "--restores", "--table", "local/other"); (code == exitDiffers) != (name == r.Plan()) {
			t.Errorf("%s is damaged: exit %d: %s%s", name, code, out, errs)
		}
	}
}
