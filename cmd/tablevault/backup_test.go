package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/vault"
)

// TestOneTableOfAPattern has one of the tables that a pattern names be such that no
// backup of it can be made: what became of the others is told, as text and as JSON.
func TestOneTableOfAPattern(t *testing.T) {
	_, dir, client := begin(t, nil)
	for _, name := range []string{"zzm_a", "zzm_b", "zzm_c"} {
		makeTable(t, client, name)
		putRow(t, client, name, "k", 1, nil, 1)
	}
	// The folder of its plans is a file.
	id := vault.TableID{Region: "local", Instance: "local", Table: "zzm_b"}
	plans := filepath.Dir(filepath.Join(dir, "vault", vault.Backup{Table: id, ID: "20261120T021400Z-0a1b2c3d"}.Plan()))
	if err := os.MkdirAll(filepath.Dir(plans), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(plans, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := tablevaultRun(t, "backup", "--stack", dir, "--table", "local/zzm*", "--json")
	var made backupsMade
	if err := json.Unmarshal([]byte(out), &made); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var tables []string
	for _, b := range made.Backups {
		tables = append(tables, b.Table)
	}
	if code != exitFailed || strings.Join(tables, " ") != "local/zzm_a local/zzm_c" || len(made.Failures) != 1 || made.Failures[0].Table != "local/zzm_b" || made.Failures[0].Error == "" {
		t.Errorf("exit %d: %+v", code, made)
	}
	if !strings.Contains(errs, "local/zzm_b: ") {
		t.Errorf("%s", errs)
	}
	code, out, errs = tablevaultRun(t, "backup", "--stack", dir, "--table", "local/zzm*")
	if code != exitFailed || !strings.Contains(out, "local/zzm_a") || !strings.Contains(out, "local/zzm_c") || strings.Contains(out, "zzm_b") || !strings.Contains(errs, "local/zzm_b: ") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
}
