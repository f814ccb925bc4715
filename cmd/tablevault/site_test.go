package main

import (
	"os"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/status"
)

// TestStackByPolicy: beside a policy, its vault need not be named again; one that is
// named counts.
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
	var list struct{ Backups []status.Backup }
	must(t, &list, "list")
	if len(list.Backups) != 1 {
		t.Errorf("%+v", list)
	}
	t.Setenv("TABLEVAULT_VAULT", s.OSS.Address("another", "vault"))
	if code, _, _ := tablevaultRun(t, "list"); code != exitFailed {
		t.Errorf("another vault: exit %d", code)
	}
}

// TestVaultAlone: what reads the vault asks for nothing but the vault; what calls a
// function says which settings are missing, by the names that docs/operations.md has.
func TestVaultAlone(t *testing.T) {
	s, dir, client := begin(t, nil)
	makeTable(t, client, "orders")
	must(t, new(any), "backup", "--stack", dir, "--table", "local/orders")
	environment(t, s)
	for _, name := range []string{"TABLEVAULT_REGION", "TABLEVAULT_ACCOUNT", "TABLEVAULT_FC_ENDPOINT", "TABLEVAULT_TABLESTORE_ENDPOINT", "ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET"} {
		t.Setenv(name, "")
	}
	t.Chdir(t.TempDir())
	prune := []string{"prune", "--table", "local/orders", "--keep", "72h"}
	calls := [][]string{{"backup", "--table", "local/orders"}, {"restore", "--table", "local/orders", "--to", "local/copy"}, {"verify", "--backup", "latest:local/orders"}}
	for _, args := range [][]string{{"list"}, {"list", "--table", "local/orders"}, {"list", "--restores"}, {"show", "latest:local/orders"}, {"show", "--watch", "latest:local/orders"}} {
		if code, out, errs := tablevaultRun(t, args...); code != 0 || !strings.Contains(out, "local/orders") && args[len(args)-1] != "--restores" {
			t.Errorf("%v: exit %d\n%s%s", args, code, out, errs)
		}
	}
	for _, args := range append(calls, prune) {
		code, out, errs := tablevaultRun(t, args...)
		if code != exitFailed || !strings.Contains(errs, "TABLEVAULT_REGION") || strings.Contains(errs, " FC_") {
			t.Errorf("%v: exit %d\n%s%s", args, code, out, errs)
		}
	}
	t.Setenv("TABLEVAULT_REGION", "local")
	if code, out, errs := tablevaultRun(t, prune...); code != 0 || !strings.Contains(out, "Nothing was changed") {
		t.Errorf("%v: exit %d\n%s%s", prune, code, out, errs)
	}
}
