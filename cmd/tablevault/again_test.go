package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/vault"
)

// TestRestoreAgain restores a table with a TTL as it was at an instant, and gives the
// command again: what is said before, after, and the second time, in text and JSON.
func TestRestoreAgain(t *testing.T) {
	_, dir, client := begin(t, func(c *stack.Config) { c.Memory = true })
	makeTable(t, client, "orders")
	_, err := client.UpdateTable(&tablestore.UpdateTableRequest{
		TableName: "orders", TableOption: &tablestore.TableOption{TimeToAlive: 86400, MaxVersion: 10, DeviationCellVersionInSec: 86400 * 10000},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(5) {
		putRow(t, client, "orders", "k", i, nil, time.Now().Add(-12*time.Hour).UnixMilli())
	}
	id := backedUp(t, dir, "local/orders").ID
	at := time.Now().UTC().Format(time.RFC3339Nano)
	command := []string{"restore", "--stack", dir, "--table", "local/orders", "--at", at, "--to", "local/copy"}
	code, out, errs := tablevaultRun(t, append(command, "--json")...)
	var first restoreResult
	if err := json.Unmarshal([]byte(out), &first); err != nil || code != 0 {
		t.Fatalf("exit %d, %v: %s%s", code, err, out, errs)
	}
	if first.ExpiringRows != 5 || first.ExpiredRows != 0 || first.Backup != id || first.Before ||
		first.At.Format(time.RFC3339Nano) != at || first.Earlier == nil || *first.Earlier < 0 || first.RecoveryPoint.IsZero() {
		t.Errorf("%s", out)
	}
	contains(t, errs, "note: the table gets a TTL of 1 day", "note: what was there at ", "backup "+string(id)+" is the newest")
	out, _ = said(t, 0, command...)
	contains(t, out, "proved: 5 rows compared", "restored and proved before", "nothing was done now", "before the instant that was asked for",
		"5 more rows with all their cells, 5 more cells in all, will be within a day")
	var second restoreResult
	if must(t, &second, command...); !second.Before || second.Restore != first.Restore || second.Verdict != vault.OK || !second.Proved.Equal(first.Proved) {
		t.Errorf("%+v", second)
	}
}

// TestBackupOfAnotherTable names a backup, and beside it a table that is not the
// backup's: nothing is restored, and nothing is verified.
func TestBackupOfAnotherTable(t *testing.T) {
	_, dir, client := begin(t, func(c *stack.Config) { c.Memory = true })
	makeTable(t, client, "orders")
	id := string(backedUp(t, dir, "local/orders").Backup)
	for _, event := range []string{
		`{"kind":"restore","backup":"` + id + `","table":"local/other","to":"local/copy"}`,
		`{"kind":"verify","backup":"` + id + `","table":"local/other"}`,
	} {
		var cmd function.Command
		if err := json.Unmarshal([]byte(event), &cmd); err != nil {
			t.Fatal(err)
		}
		s, err := openSite(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.call(t.Context(), cmd, new(json.RawMessage)); err == nil || !strings.Contains(err.Error(), "is of local/orders, not of local/other") {
			t.Errorf("%s: %v", event, err)
		}
	}
}

// TestRestoreTakesTransactions restores a table into one that takes local transactions,
// and into one that does not, which is said.
func TestRestoreTakesTransactions(t *testing.T) {
	_, dir, client := begin(t, func(c *stack.Config) { c.Memory = true })
	makeTable(t, client, "orders")
	putRow(t, client, "orders", "k", 1, nil, 1)
	backedUp(t, dir, "local/orders")
	start := func(name string) error {
		key := new(tablestore.PrimaryKey)
		key.AddPrimaryKeyColumn("s", "k")
		_, err := client.StartLocalTransaction(&tablestore.StartLocalTransactionRequest{TableName: name, PrimaryKey: key})
		return err
	}
	command := []string{"restore", "--stack", dir, "--table", "local/orders", "--to", "local/without"}
	out, _ := said(t, 0, command...)
	contains(t, out, "note: the service does not tell whether a table takes local transactions", "--local-transactions")
	if err := start("without"); err == nil {
		t.Error("a table takes local transactions that says it does not")
	}
	_, errs := said(t, exitFailed, append(command, "--local-transactions")...)
	contains(t, errs, "local/without", "without local transactions", "drop it")
	out, _ = said(t, 0, "restore", "--stack", dir, "--table", "local/orders", "--to", "local/with", "--local-transactions")
	if strings.Contains(out, "local transactions") {
		t.Errorf("%s", out)
	}
	if err := start("with"); err != nil {
		t.Error(err)
	}
}

// TestDamagedIndex gives a restore of a backup with a damaged index, twice: each time it
// is named, nothing is made, and the exit code is that of corruption.
func TestDamagedIndex(t *testing.T) {
	s, dir, client := begin(t, func(c *stack.Config) { c.Memory = true })
	makeTable(t, client, "orders")
	putRow(t, client, "orders", "k", 1, nil, 1)
	backedUp(t, dir, "local/orders")
	folder := strings.TrimPrefix(s.Vault, "file://")
	var name string
	err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".index") {
			name = path
		}
		return err
	})
	if err != nil || name == "" {
		t.Fatalf("no index: %v", err)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, errs := said(t, exitDiffers, "restore", "--stack", dir, "--table", "local/orders", "--to", "local/copy")
		contains(t, errs, filepath.Base(name), "nothing was made", "another one", "--also")
	}
	list, err := client.ListTable()
	if err != nil || len(list.TableNames) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}
