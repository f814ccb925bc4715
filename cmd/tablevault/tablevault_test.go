package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/tablevault/tablevault"
	"github.com/tablevault/tablevault/local/ram"
	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// binariesVariable names, in the environment of a test that runs in a process of its own,
// where the functions are that were built for all.
const binariesVariable = "TEST_BINARIES"

// TestMain builds the functions once.
func TestMain(m *testing.M) {
	os.Exit(func() int {
		if binDir = os.Getenv(binariesVariable); binDir != "" {
			return m.Run()
		}
		dir, clean, err := binaries(context.Background())
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer clean()
		binDir = dir
		return m.Run()
	}())
}

var binDir string

// begin starts a stack in a directory of the test's.
func begin(t *testing.T, change func(*stack.Config)) (*stack.Stack, string, *tablestore.TableStoreClient) {
	t.Helper()
	dir := t.TempDir()
	var log tail
	c := stack.Config{Dir: dir, BinDir: binDir, Deployment: tablevault.Deployment, Policies: tablevault.Policies(), Log: &log}
	if change != nil {
		change(&c)
	}
	s, err := stack.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the functions' log ends with\n%s", log.last)
		}
	})
	return s, dir, tablestore.NewClient(s.Info.Tablestore, s.Instance, s.AccessKeyID, s.AccessKeySecret)
}

// tablevaultRun runs the command as a person would, and returns its exit code and what it
// wrote.
func tablevaultRun(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	code = run(ctx, args, &o, &e)
	return code, o.String(), e.String()
}

// must runs a command that must succeed and reads its JSON.
func must(t *testing.T, into any, args ...string) {
	t.Helper()
	code, out, errs := tablevaultRun(t, append(args, "--json")...)
	if code != 0 {
		t.Fatalf("tablevault %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		t.Fatalf("tablevault %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// backedUp backs a table up.
func backedUp(t *testing.T, dir, table string) status.Backup {
	t.Helper()
	var all backupsMade
	must(t, &all, "backup", "--stack", dir, "--table", table)
	if len(all.Backups) != 1 {
		t.Fatalf("a backup of %s: %+v", table, all)
	}
	return all.Backups[0]
}

// TestDemo runs the demo on less data.
func TestDemo(t *testing.T) {
	var out, errs bytes.Buffer
	err := runDemo(t.Context(), &streams{out: &out, err: &errs}, demoData{orders: 2000, events: 500, wide: 1})
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out.String(), errs.String())
	}
	for _, want := range []string{"3 missing, 1 extra, 1 changed", "in both directions", "verify says: corrupt", "Nothing is left behind"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the demo does not say %q:\n%s", want, out.String())
		}
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "tablevault-demo-*")); len(left) > 0 {
		t.Errorf("the demo leaves %v behind", left)
	}
}

// TestEveryValueComesBack writes tables through the official SDK and nothing else, backs
// them up, restores them, and compares what the SDK reads: every key, column, timestamp,
// type and value.
func TestEveryValueComesBack(t *testing.T) {
	_, dir, client := begin(t, nil)
	cases := map[string]func(*testing.T, *tablestore.TableStoreClient, string){
		"empty": func(t *testing.T, c *tablestore.TableStoreClient, name string) { makeTable(t, c, name) },
		"one_row": func(t *testing.T, c *tablestore.TableStoreClient, name string) {
			makeTable(t, c, name)
			putRow(t, c, name, "k", 1, nil, 1)
		},
		"extremes": extremes,
		"wide":     wideRow,
	}
	for name, fill := range cases {
		t.Run(name, func(t *testing.T) {
			fill(t, client, name)
			want := everything(t, client, name)
			var backups struct{ Backups []status.Backup }
			must(t, &backups, "backup", "--stack", dir, "--table", "local/"+name)
			if len(backups.Backups) != 1 || backups.Backups[0].Rows != int64(len(want)) {
				t.Fatalf("%d rows in the table: %+v", len(want), backups)
			}
			var restored restoreResult
			must(t, &restored, "restore", "--stack", dir, "--table", "local/"+name, "--to", "local/"+name+"_copy")
			if restored.Verdict != "ok" || restored.Rows != int64(len(want)) || restored.Quarantined != 0 {
				t.Fatalf("restore: %+v", restored)
			}
			var verified verifyResult
			must(t, &verified, "verify", "--stack", dir, "--backup", string(backups.Backups[0].ID), "--against", "local/"+name+"_copy")
			if verified.Verdict != "ok" {
				t.Fatalf("verify: %+v", verified)
			}
			got := everything(t, client, name+"_copy")
			if len(got) != len(want) {
				t.Fatalf("%d rows come back of %d", len(got), len(want))
			}
			for k, v := range want {
				if got[k] != v {
					t.Errorf("row %.100s comes back as %.300s, it was %.300s", k, got[k], v)
				}
			}
		})
	}
}

func makeTable(t *testing.T, c *tablestore.TableStoreClient, name string) {
	t.Helper()
	meta := &tablestore.TableMeta{TableName: name}
	meta.AddPrimaryKeyColumn("s", tablestore.PrimaryKeyType_STRING)
	meta.AddPrimaryKeyColumn("i", tablestore.PrimaryKeyType_INTEGER)
	meta.AddPrimaryKeyColumn("b", tablestore.PrimaryKeyType_BINARY)
	_, err := c.CreateTable(&tablestore.CreateTableRequest{
		TableMeta:          meta,
		TableOption:        &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 10, DeviationCellVersionInSec: math.MaxInt64 / 1_000_000},
		ReservedThroughput: &tablestore.ReservedThroughput{},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func key(s string, i int64, b []byte) *tablestore.PrimaryKey {
	k := new(tablestore.PrimaryKey)
	k.AddPrimaryKeyColumn("s", s)
	k.AddPrimaryKeyColumn("i", i)
	k.AddPrimaryKeyColumn("b", b)
	return k
}

func putRow(t *testing.T, c *tablestore.TableStoreClient, name, s string, i int64, b []byte, ts int64) {
	t.Helper()
	if b == nil {
		b = []byte{}
	}
	u := &tablestore.UpdateRowChange{TableName: name, PrimaryKey: key(s, i, b)}
	u.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	u.PutColumnWithTimestamp("v", fmt.Sprint(s, i), ts)
	if _, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: u}); err != nil {
		t.Fatal(err)
	}
}

// extremes has keys at every end, columns with names of every kind, every type at its
// limits, versions, timestamp 0, and a row without a cell.
func extremes(t *testing.T, c *tablestore.TableStoreClient, name string) {
	makeTable(t, c, name)
	for _, s := range []string{"", "\x00", "a", "é", strings.Repeat("z", 1024)} {
		for _, i := range []int64{math.MinInt64, -1, 0, math.MaxInt64} {
			for _, b := range [][]byte{{}, {0}, bytes.Repeat([]byte{0xff}, 1024)} {
				putRow(t, c, name, s, i, b, 5)
			}
		}
	}
	u := &tablestore.UpdateRowChange{TableName: name, PrimaryKey: key("values", 0, []byte{1})}
	u.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	for n, v := range map[string]any{
		"least": int64(math.MinInt64), "greatest": int64(math.MaxInt64), "zero": 0.0, "minus zero": math.Copysign(0, -1), "tiny": math.SmallestNonzeroFloat64,
		"huge": -math.MaxFloat64, "yes": true, "no": false, "empty text": "", "empty bytes": []byte{}, "公司": "杭州", ".abc": "dot", "new\nline": "line\n",
		`"quoted'`: `{"json":1}`, "_": "x", strings.Repeat("n", 255): "long name", "bytes": []byte{0, 255, 128}, "big": strings.Repeat("y", 2<<20),
	} {
		u.PutColumnWithTimestamp(n, v, 1_700_000_000_000)
	}
	for ts := range int64(5) {
		u.PutColumnWithTimestamp("versions", ts, ts)
	}
	u.PutColumnWithTimestamp("types", "text", 2)
	u.PutColumnWithTimestamp("types", int64(1), 1)
	u.PutColumnWithTimestamp("types", true, 0)
	if _, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: u}); err != nil {
		t.Fatal(err)
	}
	putRow(t, c, name, "no cell", 0, nil, 1)
	d := &tablestore.UpdateRowChange{TableName: name, PrimaryKey: key("no cell", 0, []byte{})}
	d.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	d.DeleteColumn("v")
	if _, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: d}); err != nil {
		t.Fatal(err)
	}
}

// wideRow has one row of 12 MB in 3,000 columns between two small ones.
func wideRow(t *testing.T, c *tablestore.TableStoreClient, name string) {
	makeTable(t, c, name)
	putRow(t, c, name, "a", 0, nil, 1)
	putRow(t, c, name, "z", 0, nil, 1)
	for part := range 6 {
		u := &tablestore.UpdateRowChange{TableName: name, PrimaryKey: key("wide", 0, []byte{})}
		u.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
		for i := range 500 {
			n := part*500 + i
			u.PutColumnWithTimestamp(fmt.Sprintf("column-%05d", n), strings.Repeat(fmt.Sprintf("%08x", n*2654435761), 512), int64(n))
		}
		if _, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: u}); err != nil {
			t.Fatal(err)
		}
	}
}

// everything reads a table through the SDK, and prints each row. Wide rows are read in
// slices of columns, since the SDK reads no row in parts.
func everything(t *testing.T, c *tablestore.TableStoreClient, name string) map[string]string {
	t.Helper()
	rows := map[string]string{}
	start, end := new(tablestore.PrimaryKey), new(tablestore.PrimaryKey)
	for _, n := range []string{"s", "i", "b"} {
		start.AddPrimaryKeyColumnWithMinValue(n)
		end.AddPrimaryKeyColumnWithMaxValue(n)
	}
	for start != nil {
		res, err := c.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: &tablestore.RangeRowQueryCriteria{
			TableName: name, StartPrimaryKey: start, EndPrimaryKey: end, Direction: tablestore.FORWARD, MaxVersion: math.MaxInt32,
		}})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range res.Rows {
			var k, v strings.Builder
			for _, p := range r.PrimaryKey.PrimaryKeys {
				fmt.Fprintf(&k, "%s=%T %v;", p.ColumnName, p.Value, p.Value)
			}
			for _, col := range r.Columns {
				value := col.Value
				if f, ok := value.(float64); ok {
					value = math.Float64bits(f) // minus zero is not zero
				}
				fmt.Fprintf(&v, "%q@%d %T %v;", col.ColumnName, col.Timestamp, col.Value, value)
			}
			rows[k.String()] = v.String()
		}
		start = res.NextStartPrimaryKey
	}
	return rows
}

// TestBadInput: each error names the thing, and the exit code tells its kind.
func TestBadInput(t *testing.T) {
	s, dir, client := begin(t, func(c *stack.Config) { c.Memory = true })
	policy, err := ram.ParsePolicy([]byte(`{"Version":"1","Statement":[
		{"Effect":"Allow","Action":"*","Resource":"*"},
		{"Effect":"Deny","Action":"ots:GetRange","Resource":"acs:ots:*:*:instance/local/table/secret"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	s.Authority.SetPolicies("tablevault-export", policy)
	makeTable(t, client, "orders")
	putRow(t, client, "orders", "a", 1, nil, 5)
	makeTable(t, client, "secret")
	putRow(t, client, "secret", "a", 1, nil, 5)
	var backups struct{ Backups []status.Backup }
	must(t, &backups, "backup", "--stack", dir, "--table", "local/orders")
	id := string(backups.Backups[0].ID)

	elsewhere := t.TempDir()
	copyStack := func(name string, change func(*stack.Info)) string {
		t.Helper()
		d := filepath.Join(elsewhere, name)
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
		info := s.Info
		change(&info)
		data, err := json.Marshal(info)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "local.json"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		return d
	}
	wrongKey := copyStack("key", func(i *stack.Info) { i.AccessKeySecret = "wrong" })
	unreachable := copyStack("gone", func(i *stack.Info) { i.Functions = "http://127.0.0.1:1" })
	noVault := copyStack("vault", func(i *stack.Info) { i.Vault = "file://" + filepath.Join(elsewhere, "none") })
	newer := filepath.Join(elsewhere, "newer")
	if err := os.CopyFS(newer, os.DirFS(filepath.Join(dir, "vault"))); err != nil {
		t.Fatal(err)
	}
	rewrite(t, filepath.Join(newer, "vault.json"), `"format":2`, `"format":9`)
	newerVault := copyStack("newer-stack", func(i *stack.Info) { i.Vault = "file://" + newer })
	cut := filepath.Join(elsewhere, "cut")
	if err := os.CopyFS(cut, os.DirFS(filepath.Join(dir, "vault"))); err != nil {
		t.Fatal(err)
	}
	truncate(t, cut, "manifests")
	cutVault := copyStack("cut-stack", func(i *stack.Info) { i.Vault = "file://" + cut })

	cases := []struct {
		name string
		args []string
		code int
		want []string // all of them in the message
	}{
		{"no such command", []string{"bakcup"}, 2, []string{"bakcup"}},
		{"no such flag", []string{"backup", "--tabel", "x"}, 2, []string{"tabel"}},
		{"no table", []string{"backup", "--stack", dir}, 2, []string{"--table"}},
		{"no instance", []string{"backup", "--stack", dir, "--table", "orders"}, 2, []string{"orders", "instance/table"}},
		{"unknown table", []string{"backup", "--stack", dir, "--table", "local/nothing"}, 1, []string{"nothing"}},
		{"pattern without a match", []string{"backup", "--stack", dir, "--table", "local/x*"}, 1, []string{"x*", "orders"}},
		{"no permission", []string{"backup", "--stack", dir, "--table", "local/secret"}, 1, []string{"secret", "GetRange"}},
		{"wrong key", []string{"backup", "--stack", wrongKey, "--table", "local/orders"}, 1, []string{"ignature"}},
		{"no stack", []string{"backup", "--stack", filepath.Join(elsewhere, "nowhere"), "--table", "local/orders"}, 1, []string{"nowhere", "tablevault local"}},
		{"unreachable", []string{"backup", "--stack", unreachable, "--table", "local/orders"}, 1, []string{"127.0.0.1:1"}},
		{"no vault", []string{"list", "--stack", noVault}, 1, []string{"none"}},
		{"newer vault", []string{"list", "--stack", newerVault}, 1, []string{"format 9", "newer tablevault"}},
		{"truncated vault", []string{"list", "--stack", cutVault}, 3, []string{"1 of 1 backup", "can't be restored", "doctor"}},
		{"target exists", []string{"restore", "--stack", dir, "--table", "local/orders", "--to", "local/secret"}, 1, []string{"secret", "another name"}},
		{"no target", []string{"restore", "--stack", dir, "--table", "local/orders"}, 2, []string{"--to"}},
		{"time without offset", []string{"restore", "--stack", dir, "--table", "local/orders", "--to", "local/x", "--at", "2026-11-20T10:14:00"}, 2, []string{"--at", "offset"}},
		{"an instant to come", []string{"restore", "--stack", dir, "--table", "local/orders", "--to", "local/x", "--at", "2126-11-20T10:14:00+08:00"}, 2, []string{"--at", "2126-11-20T02:14:00Z is still to come", "none for the newest"}},
		{"budget below one", []string{"restore", "--stack", dir, "--table", "local/orders", "--to", "local/x", "--write-units", "0.5"}, 2, []string{"--write-units", "want 1 to"}},
		{"budget without a table", []string{"verify", "--stack", dir, "--backup", id, "--read-units", "5"}, 2, []string{"--read-units", "--against"}},
		{"before the first backup", []string{"restore", "--stack", dir, "--table", "local/orders", "--to", "local/x", "--at", "2001-01-01T00:00:00Z"}, 1, []string{"orders", "2001"}},
		{"unknown backup", []string{"verify", "--stack", dir, "--backup", "20200101T000000Z-00000000"}, 1, []string{"20200101T000000Z-00000000", "tablevault list"}},
		{"no id", []string{"show", "--stack", dir, "newest"}, 2, []string{"newest", "latest:INSTANCE/TABLE"}},
		{"latest of several tables", []string{"show", "--stack", dir, "latest"}, 2, []string{"local/orders, local/secret", "latest:local/"}},
		{"latest of no table", []string{"show", "--stack", dir, "latest:local/nothing"}, 1, []string{"local/nothing", "the vault has backups of local/orders, local/secret"}},
		{"the beginning of no id", []string{"show", "--stack", dir, "1999"}, 1, []string{"1999", "tablevault list"}},
		{"the beginning of several ids", []string{"verify", "--stack", dir, "--backup", id[:2]}, 2, []string{id[:2], "several", id + " (backup of local/orders)"}},
		{"no backup id to restore", []string{"restore", "--stack", dir, "--backup", "x", "--to", "local/x"}, 2, []string{`"x"`, "20261120T101400Z-0a1b2c3d"}},
		{"a pattern that no backup has", []string{"list", "--stack", dir, "--table", "local/zz*"}, 1, []string{"local/zz*", "local/orders, local/secret"}},
		{"restores, and the latest", []string{"list", "--stack", dir, "--restores", "--latest"}, 2, []string{"--latest", "--restores"}},
		{"a limit of backups", []string{"list", "--stack", dir, "--limit", "3"}, 2, []string{"--limit", "--restores"}},
		{"an age below 0", []string{"doctor", "--stack", dir, "--max-age", "-1s"}, 2, []string{"--max-age", "26h"}},
		{"the newest restore of a table", []string{"verify", "--stack", dir, "--restore", "latest:local/orders"}, 2, []string{"latest:local/orders", `or "latest"`}},
		{"a pause without a watch", []string{"show", "--stack", dir, id, "--every", "1s"}, 2, []string{"--every", "--watch"}},
		{"objects against a table", []string{"verify", "--stack", dir, "--backup", id, "--depth", "objects", "--against", "local/orders"}, 2, []string{"--depth objects", "--against"}},
		{"reading against a table", []string{"verify", "--stack", dir, "--backup", id, "--depth", "read", "--against", "local/orders"}, 2, []string{"--depth read", "--against"}},
		{"a budget for objects", []string{"verify", "--stack", dir, "--restore", id, "--depth", "objects", "--read-units", "5"}, 2, []string{"--read-units"}},
		{"no number of bytes", []string{"backup", "--stack", dir, "--table", "local/orders", "--segment-bytes", "much"}, 2, []string{"much", "1GiB"}},
		{"cancel the latest", []string{"cancel", "--stack", dir, "latest"}, 2, []string{"latest", "beginning"}},
		{"cancel what is sealed", []string{"cancel", "--stack", dir, id}, 1, []string{id, "sealed", "prune"}},
		{"unknown depth", []string{"verify", "--stack", dir, "--backup", id, "--depth", "deep"}, 2, []string{"deep"}},
		{"differences", []string{"verify", "--stack", dir, "--backup", id, "--against", "local/orders"}, 3, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "differences" {
				putRow(t, client, "orders", "b", 2, nil, 5)
			}
			code, out, errs := tablevaultRun(t, c.args...)
			if code != c.code {
				t.Errorf("exit %d, want %d\n%s%s", code, c.code, out, errs)
			}
			for _, w := range c.want {
				if !strings.Contains(errs, w) {
					t.Errorf("the message does not say %q:\n%s", w, errs)
				}
			}
			if strings.Contains(errs, s.AccessKeySecret) {
				t.Error("the message holds the secret")
			}
		})
	}
	// What failed left nothing that a good command trips over.
	must(t, &backups, "backup", "--stack", dir, "--table", "local/orders", "--new")
	if backups.Backups[0].Rows != 2 {
		t.Errorf("%+v", backups)
	}
}

func rewrite(t *testing.T, file, from, to string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(data), from, to, 1)
	if changed == string(data) {
		t.Fatalf("%s does not hold %s", file, from)
	}
	if err := os.WriteFile(file, vaulttest.Resealed([]byte(changed)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// truncate cuts every file under a folder of a vault in half.
func truncate(t *testing.T, vault, folder string) {
	t.Helper()
	n := 0
	err := filepath.Walk(filepath.Join(vault, folder), func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		n++
		return os.Truncate(path, info.Size()/2)
	})
	if err != nil || n == 0 {
		t.Fatalf("%d files cut: %v", n, err)
	}
}
