package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/vault"
)

// TestDamagedManifest damages the newest manifest of three: list has all three and
// exits with the code of corruption, a restore of the newest names the next older,
// which is restored, and doctor fails.
func TestDamagedManifest(t *testing.T) {
	_, dir, client := begin(t, nil)
	makeTable(t, client, "orders")
	putRow(t, client, "orders", "k", 1, nil, 1)
	var made []vault.BackupID
	for range 3 {
		var r struct{ Backups []backupResult }
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
	code, out, errs := tablevaultRun(t, "list", "--stack", dir, "--json")
	var l listing
	if err := json.Unmarshal([]byte(out), &l); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if code != exitDiffers || !strings.Contains(errs, "1 of 3 backups can't be restored") || len(l.Backups) != 3 {
		t.Errorf("exit %d: %s, %+v", code, errs, l.Backups)
	}
	for _, b := range l.Backups {
		if want := b.ID == made[2]; (b.State == "corrupt") != want || (b.Error != "") != want {
			t.Errorf("%+v", b)
		}
	}
	if code, out, _ := tablevaultRun(t, "list", "--stack", dir); code != exitDiffers || strings.Count(out, "\n") != 4 || !strings.Contains(out, "corrupt object") {
		t.Errorf("exit %d: %s", code, out)
	}
	code, _, errs = tablevaultRun(t, "restore", "--stack", dir, "--table", "local/orders", "--to", "local/copy")
	if code == 0 || !strings.Contains(errs, string(made[2])) || !strings.Contains(errs, "--backup "+string(made[1])) {
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
}
