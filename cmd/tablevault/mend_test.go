package main

import (
	"strings"
	"testing"

	"github.com/tablevault/tablevault/local/ram"
	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/status"
)

// TestMended takes a permission away under a backup, and another under a restore. Each
// ends with an error that names it; once it is given back, the same command goes on at
// once and completes what it began.
func TestMended(t *testing.T) {
	s, dir, client := begin(t, func(c *stack.Config) { c.Memory = true })
	makeTable(t, client, "orders")
	for i := range 5 {
		putRow(t, client, "orders", "k", int64(i), nil, 5)
	}
	role := func(name, statement string) {
		t.Helper()
		policy, err := ram.ParsePolicy([]byte(`{"Version":"1","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}` + statement + `]}`))
		if err != nil {
			t.Fatal(err)
		}
		s.Authority.SetPolicies(name, policy)
	}
	refused := func(want string, args ...string) {
		t.Helper()
		code, out, errs := tablevaultRun(t, args...)
		if code != exitFailed || !strings.Contains(errs, want) || !strings.Contains(errs, "same command again") {
			t.Fatalf("tablevault %s: exit %d, want %d and %s\n%s%s", strings.Join(args, " "), code, exitFailed, want, out, errs)
		}
	}

	role("tablevault-export", `,{"Effect":"Deny","Action":"ots:GetRange","Resource":"*"}`)
	command := []string{"backup", "--stack", dir, "--table", "local/orders"}
	refused("GetRange", command...)
	refused("GetRange", command...) // and nothing goes on as long as nothing is mended
	role("tablevault-export", "")
	var backups struct{ Backups []status.Backup }
	must(t, &backups, command...)
	if len(backups.Backups) != 1 || backups.Backups[0].Rows != 5 {
		t.Fatalf("%+v", backups)
	}

	role("tablevault-import", `,{"Effect":"Deny","Action":"ots:BatchWriteRow","Resource":"*"}`)
	command = []string{"restore", "--stack", dir, "--table", "local/orders", "--to", "local/copy"}
	refused("BatchWriteRow", command...)
	role("tablevault-import", "")
	var restored restoreResult
	must(t, &restored, command...)
	if restored.Verdict != "ok" || restored.Rows != 5 {
		t.Fatalf("%+v", restored)
	}
}
