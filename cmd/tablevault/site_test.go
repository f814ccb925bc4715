package main

import (
	"os"
	"testing"

	"github.com/tablevault/tablevault/local/stack"
)

// TestStackByPolicy: beside a policy, its vault need not be named again; one that
// is named counts.
func TestStackByPolicy(t *testing.T) {
	s, _, client := begin(t, func(c *stack.Config) { c.Memory, c.Vault = true, stack.Bucket })
	makeTable(t, client, "orders")
	environment(t, s)
	must(t, new(any), "backup", "--table", "local/orders")
	t.Chdir(t.TempDir())
	t.Setenv("TABLEVAULT_VAULT", "")
	if code, _, errs := tablevaultRun(t, "list"); code != exitFailed {
		t.Errorf("without a vault: exit %d\n%s", code, errs)
	}
	text := "vault: " + s.Vault + "\ntables: local/orders\nevery: hourly\nkeep: 72 hours\n"
	if err := os.WriteFile("tablevault.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var list struct{ Backups []backupResult }
	must(t, &list, "list")
	if len(list.Backups) != 1 {
		t.Errorf("%+v", list)
	}
	t.Setenv("TABLEVAULT_VAULT", s.OSS.Address("another", "vault"))
	if code, _, _ := tablevaultRun(t, "list"); code != exitFailed {
		t.Errorf("another vault: exit %d", code)
	}
}
