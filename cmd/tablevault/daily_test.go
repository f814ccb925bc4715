package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/vault"
)

// slowWrites makes every batch that is written to a table take its time.
func slowWrites(t *testing.T, s *stack.Stack, name string, d time.Duration) {
	t.Helper()
	s.Tablestore.SetFault(func(op, table string, _ int) *ots.Fault {
		if op == "BatchWriteRow" {
			return &ots.Fault{Delay: d}
		}
		return nil
	})
	t.Cleanup(func() { s.Tablestore.SetFault(nil) })
}

// said runs a command that must end with a code, and returns what it wrote.
func said(t *testing.T, code int, args ...string) (out, errs string) {
	t.Helper()
	got, out, errs := tablevaultRun(t, args...)
	if got != code {
		t.Fatalf("tablevault %s: exit %d, want %d\n%s%s", strings.Join(args, " "), got, code, out, errs)
	}
	return out, errs
}

// contains fails the test unless a text has all words.
func contains(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("nothing says %q:\n%s", w, text)
		}
	}
}

// TestCancel gives up a backup and a restore that run, by the beginnings of their ids:
// they end, say why, and leave what they are said to leave.
func TestCancel(t *testing.T) {
	s, dir, client := begin(t, func(c *stack.Config) { c.Memory = true })
	fillSlow(t, client, "orders")
	id := slowly(t, s, dir, "orders", ots.Fault{Delay: 20 * time.Second})
	out, _ := said(t, 0, "__complete", "cancel", "--stack", dir, "")
	contains(t, out, string(id)+"\tbackup of local/orders\n")
	out, _ = said(t, 0, "cancel", "--stack", dir, string(id[:20]), "--reason", "the wrong table")
	contains(t, out, "backup "+string(id)+" of local/orders is given up")
	var list status.Backups
	must(t, &list, "list", "--stack", dir)
	if len(list.Backups) != 1 || len(list.Running) != 0 || list.Backups[0].State != vault.Void || list.Backups[0].RecoveryPoint != nil {
		t.Errorf("%+v", list)
	}
	out, _ = said(t, 0, "show", "--stack", dir, string(id))
	contains(t, out, "void", "the wrong table")
	s.Tablestore.SetFault(nil)

	var backups struct{ Backups []status.Backup }
	must(t, &backups, "backup", "--stack", dir, "--table", "local/orders")
	if backups.Backups[0].ID == id {
		t.Errorf("a backup that was given up was gone on with")
	}
	slowWrites(t, s, "copy", 20*time.Second)
	site, err := openSite(dir)
	if err != nil {
		t.Fatal(err)
	}
	var r restore.Progress
	if err := site.call(t.Context(), function.Command{Kind: function.KindRestore, Table: "local/orders", To: "local/copy"}, &r); err != nil {
		t.Fatal(err)
	}
	var restores status.Restores
	must(t, &restores, "list", "--stack", dir, "--restores")
	if len(restores.Restores) != 1 || restores.Restores[0].Restore != r.Restore || restores.Restores[0].State != restore.StateLoading ||
		restores.Restores[0].Source != "local/orders" || restores.Restores[0].Table != "local/copy" || restores.Restores[0].Backup != backups.Backups[0].ID {
		t.Errorf("%+v", restores)
	}
	out, _ = said(t, 0, "list", "--stack", dir, "--restores", "--table", "local/co*")
	contains(t, out, string(r.Restore), "local/copy", "loading", "loaded 0 of 6 rows (0 %)")
	contains(t, out, "RESULT")
	if out, _ = said(t, 0, "list", "--stack", dir, "--restores", "--table", "local/other"); strings.Contains(out, "local/copy") || !strings.Contains(out, "no restore of or into local/other") {
		t.Error(out)
	}
	out, _ = said(t, 0, "show", "--stack", dir, string(r.Restore))
	contains(t, out, "loading", "0 loaded and 0 compared", string(backups.Backups[0].ID)+" of local/orders")
	if out, _ = said(t, 0, "__complete", "cancel", "--stack", dir, "2"); !strings.HasPrefix(out, string(r.Restore)+"\trestore\n:") {
		t.Errorf("offered are %s", out)
	}

	out, _ = said(t, 0, "cancel", "--stack", dir, string(r.Restore))
	contains(t, out, "restore "+string(r.Restore)+" is given up", "The table local/copy stays as it is", "drop it")
	s.Tablestore.SetFault(nil)
	out, errs := said(t, exitFailed, "show", "--watch", "--stack", dir, string(r.Restore))
	contains(t, out+errs, "cancelled by a person", "failed")
	must(t, &restores, "list", "--stack", dir, "--restores")
	if restores.Restores[0].State != restore.StateFailed || restores.Restores[0].Ended.IsZero() {
		t.Errorf("%+v", restores)
	}
	if tables, err := client.ListTable(); err != nil || len(tables.TableNames) != 2 {
		t.Errorf("%v: %v", tables, err)
	}
	// A restore that has ended is not given up.
	var done restoreResult
	must(t, &done, "restore", "--stack", dir, "--table", "local/orders", "--to", "local/other")
	_, errs = said(t, exitFailed, "cancel", "--stack", dir, string(done.Restore))
	contains(t, errs, string(done.Restore), "nothing to give up")
	_, errs = said(t, exitFailed, "cancel", "--stack", dir, "20200101T000000Z-00000000")
	contains(t, errs, "20200101T000000Z-00000000")
}

// TestIDs: an id is whole, a beginning or the latest, wherever one is taken, and what a
// restore and a verification are called is said before they end.
func TestIDs(t *testing.T) {
	_, dir, client := begin(t, func(c *stack.Config) { c.Memory = true })
	makeTable(t, client, "orders")
	putRow(t, client, "orders", "a", 1, nil, 5)
	var first, second struct{ Backups []status.Backup }
	must(t, &first, "backup", "--stack", dir, "--table", "local/orders")
	must(t, &second, "backup", "--stack", dir, "--table", "local/orders", "--new")
	newest := string(second.Backups[0].ID)

	out, errs := said(t, 0, "restore", "--stack", dir, "--backup", "latest", "--to", "local/copy")
	contains(t, strings.SplitAfter(out, "\n")[0], "proved: 1 row compared, 0 differ\n")
	restoreID := regexp.MustCompile(`^restore (\S+) of backup ` + newest + ` of local/orders into local/copy\n`).FindStringSubmatch(errs)
	if restoreID == nil {
		t.Fatalf("the restore's id is not said first: %s", errs)
	}
	contains(t, out, "restore "+restoreID[1]+": local/copy is backup "+newest+" of local/orders")
	if strings.Contains(out, "requests to the store") {
		t.Errorf("nobody has asked for this: %s", out)
	}
	out, errs = said(t, 0, "verify", "--stack", dir, "--restore", restoreID[1][:24], "-v")
	contains(t, strings.SplitAfter(out, "\n")[0], "proved: 1 row compared, 0 differ\n")
	contains(t, out, "requests to the store", "by restore "+restoreID[1])
	verification := regexp.MustCompile(`^verification (\S+) of restore ` + restoreID[1] + `\n`).FindStringSubmatch(errs)
	if verification == nil {
		t.Fatalf("the verification's id is not said first: %s", errs)
	}
	out, _ = said(t, 0, "show", "--stack", dir, verification[1])
	contains(t, out, "proved: 1 row compared, 0 differ\n")
	out, _ = said(t, 0, "show", "--watch", "--stack", dir, verification[1])
	contains(t, out, "verification "+verification[1]+"  done  proved: 1 row compared, 0 differ")
	out, _ = said(t, 0, "show", "--watch", "--stack", dir, restoreID[1])
	contains(t, out, "restore "+restoreID[1]+"  done")
	out, _ = said(t, 0, "verify", "--stack", dir, "--backup", "latest:local/orders", "--depth", "objects")
	contains(t, strings.SplitAfter(out, "\n")[0], "5 objects present, rows not read\n")
	out, _ = said(t, 0, "verify", "--stack", dir, "--backup", newest[:25])
	contains(t, strings.SplitAfter(out, "\n")[0], "proved: 1 row read, 0 damaged\n")
	out, _ = said(t, 0, "show", "--stack", dir, "latest")
	contains(t, out, newest, "in 2 objects", "1, in 1 part")
	putRow(t, client, "orders", "b", 1, nil, 5)
	out, _ = said(t, exitDiffers, "verify", "--stack", dir, "--backup", "latest:local/orders", "--against", "local/orders")
	contains(t, strings.SplitAfter(out, "\n")[0], "differs: 1 row compared, 1 differ: 0 missing, 1 extra, 0 changed\n")

	// The list begins with the newest; --latest is that alone.
	var list status.Backups
	must(t, &list, "list", "--stack", dir, "--table", "local/ord*")
	if len(list.Backups) != 2 || list.Backups[0].ID != second.Backups[0].ID || list.Backups[0].RecoveryPoint == nil {
		t.Errorf("%+v", list)
	}
	out, _ = said(t, 0, "list", "--stack", dir, "--latest")
	if strings.Count(out, "local/orders") != 1 || !regexp.MustCompile(newest+` +local/orders +full +sealed +1 +\S+ kB +\d+ s +\d+ s +2`).MatchString(out) {
		t.Errorf("%s", out)
	}
	// What a shell offers.
	makeTable(t, client, "new") // of which there is no backup
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"__complete", "show", "--stack", dir, newest[:20]}, newest},
		{[]string{"__complete", "cancel", "--stack", dir, ""}, ":36"}, // of what has ended nothing is given up
		{[]string{"__complete", "verify", "--stack", dir, "--depth", ""}, "objects\nread\nrows\n:36"},
		{[]string{"__complete", "verify", "--stack", dir, "--against", "local/c"}, "local/copy\n"},
		{[]string{"__complete", "backup", "--stack", dir, "--table", "lo"}, "local/copy\nlocal/new\nlocal/orders\n"},
		{[]string{"__complete", "backup", "--stack", dir, "--table", "local/n"}, "local/new\n"},
		{[]string{"__complete", "backup", "--stack", dir, "--table", "elsewhere/"}, ":4"},
		{[]string{"__complete", "verify", "--stack", dir, "--restore", ""}, restoreID[1]},
		{[]string{"__complete", "restore", "--stack", dir, "--table", "lo"}, "local/orders"},
		{[]string{"__complete", "restore", "--stack", filepath.Join(dir, "none"), "--table", "lo"}, ":4"},
	} {
		out, _ := said(t, 0, c.args...)
		contains(t, out, c.want)
		if strings.HasPrefix(c.want, ":") && !strings.HasPrefix(out, c.want) {
			t.Errorf("%v offers %s", c.args, out)
		}
	}
}

// heard is a stream that opens a gate when it has been told something.
type heard struct {
	mu   sync.Mutex
	text bytes.Buffer
	want *regexp.Regexp
	gate chan struct{}
	open bool
}

func (h *heard) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text.Write(b)
	if !h.open && h.want.Match(h.text.Bytes()) {
		h.open = true
		close(h.gate)
	}
	return len(b), nil
}

// TestProgressLines: off a terminal each look is a line, with rows and speed, while a
// single part is being made. The server holds its answers back until that was said.
func TestProgressLines(t *testing.T) {
	s, dir, client := begin(t, func(c *stack.Config) { c.Memory = true })
	fillSlow(t, client, "orders")
	// follow runs a command; of the calls of a kind the first pass, the others wait until
	// the command says what it must.
	follow := func(call string, pass int32, want string, args ...string) string {
		t.Helper()
		h := &heard{want: regexp.MustCompile(want), gate: make(chan struct{})}
		var calls atomic.Int32
		s.Tablestore.SetFault(func(op, _ string, _ int) *ots.Fault {
			if op == call && calls.Add(1) > pass {
				select {
				case <-h.gate:
				case <-time.After(time.Minute):
				}
			}
			return nil
		})
		defer s.Tablestore.SetFault(nil)
		var out bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		code := runWith(ctx, &streams{out: &out, err: h, every: time.Millisecond}, append(args, "--stack", dir))
		h.mu.Lock()
		defer h.mu.Unlock()
		if code != 0 || !h.open {
			t.Fatalf("exit %d, and %s was said: %t\n%s%s", code, want, h.open, out.String(), h.text.String())
		}
		return h.text.String()
	}
	// Nothing to go by at first; then the backup before. One lane, one part: no record
	// is there before the end. Two looks for cuts come before the pages.
	told := follow("GetRange", 4, `(?m)^local/orders: [1-5] rows?, \d+ rows/s; 1 at work$|(?m)^local/orders: [1-5] rows?; 1 at work$`, "backup", "--table", "local/orders", "--lanes", "1")
	if strings.Contains(told, "left") {
		t.Errorf("there is nothing to go by, and yet: %s", told)
	}
	follow("GetRange", 4, `local/orders: [1-5] of about 6 rows \(\d+ %\)`, "backup", "--table", "local/orders", "--lanes", "1", "--new")
	follow("GetRange", 2, `read [0-5] of 6 rows \(\d+ %\)`, "verify", "--backup", "latest", "--against", "local/orders")
	told = follow("BatchWriteRow", 1, `local/copy: loaded [1-5] of 6 rows \(\d+ %\)`, "restore", "--backup", "latest", "--to", "local/copy")
	if strings.Contains(told, "about 0 s") {
		t.Errorf("0 s are no estimate: %s", told)
	}
}

// documents are the JSON that commands print, by the command.
func documents(t *testing.T, dir string) map[string]map[string]any {
	t.Helper()
	docs := map[string]map[string]any{}
	for _, c := range []struct {
		code int
		args []string
	}{
		{0, []string{"backup", "--table", "local/orders"}},
		{0, []string{"restore", "--table", "local/orders", "--to", "local/copy"}},
		{0, []string{"verify", "--backup", "latest", "--against", "local/copy"}},
		{0, []string{"list"}}, {0, []string{"list", "--restores"}}, {0, []string{"show", "latest"}},
		{0, []string{"prune", "--table", "local/orders", "--keep", "72h"}}, {0, []string{"version"}}, {0, []string{"doctor"}},
		{exitFailed, []string{"restore", "--table", "local/orders", "--to", "local/copy2", "--at", "2001-01-01T00:00:00Z"}},
		{exitUsage, []string{"list", "--no-such-flag"}},
	} {
		args := append([]string{}, c.args...)
		if args[0] != "version" {
			args = append(args, "--stack", dir)
		}
		out, _ := said(t, c.code, append(args, "--json")...)
		if !strings.HasPrefix(out, `{"version":1,`) || strings.Count(out, "\n") != 1 {
			t.Errorf("%v: no line of JSON that begins with its version: %s", c.args, out)
		}
		doc := map[string]any{}
		if err := json.Unmarshal([]byte(out), &doc); err != nil {
			t.Fatalf("%v: %v", c.args, err)
		}
		docs[strings.Join(c.args, " ")] = doc
	}
	return docs
}

// TestJSON: each document has what docs/json.md says, and nothing that it does not.
func TestJSON(t *testing.T) {
	_, dir, client := begin(t, func(c *stack.Config) { c.Memory = true })
	makeTable(t, client, "orders")
	putRow(t, client, "orders", "a", 1, nil, 5)
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "json.md"))
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(string(page), -1) {
		documented[m[1]] = true
	}
	var walk func(about string, v any)
	seen := 0
	walk = func(about string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, below := range v {
				seen++
				if !documented[k] {
					t.Errorf("%s: the field %q is not documented", about, k)
				}
				if id, ok := below.(string); ok && k == "backup" && !regexp.MustCompile(`^\d{8}T\d{6}Z-[0-9a-f]{8}$`).MatchString(id) {
					t.Errorf("%s: the backup %q is no id", about, id)
				}
				if name, ok := below.(string); ok && (k == "table" || k == "source") && strings.Count(name, "/") != 1 {
					t.Errorf("%s: the table %q is not instance/table", about, name)
				}
				walk(about+"."+k, below)
			}
		case []any:
			for _, below := range v {
				walk(about, below)
			}
		}
	}
	docs := documents(t, dir)
	for about, doc := range docs {
		walk(about, doc)
	}
	if seen < 100 {
		t.Errorf("only %d fields were looked at", seen)
	}
	for name, want := range map[string][]string{
		"backup --table local/orders":                                             {"backups"},
		"restore --table local/orders --to local/copy":                            {"restore", "backup", "table", "target", "source", "rows", "quarantined", "proof", "verdict"},
		"verify --backup latest --against local/copy":                             {"verdict", "rows", "missing", "extra", "changed", "expired", "changed_since", "verification", "backup", "table"},
		"restore --table local/orders --to local/copy2 --at 2001-01-01T00:00:00Z": {"error", "exit_code"},
		"list --no-such-flag":                                                     {"error", "exit_code"},
		"list":                                                                    {"backups", "running", "drills"},
		"list --restores":                                                         {"restores", "older"},
	} {
		for _, field := range want {
			if _, ok := docs[name][field]; !ok {
				t.Errorf("%s has no %q: %v", name, field, docs[name])
			}
		}
	}
	b := docs["backup --table local/orders"]["backups"].([]any)[0].(map[string]any)
	for _, field := range []string{"id", "backup", "table", "kind", "rows", "bytes", "consistent_at"} {
		if _, ok := b[field]; !ok {
			t.Errorf("a backup has no %q: %v", field, b)
		}
	}
	if b["id"] != b["backup"] {
		t.Errorf("%v and %v", b["id"], b["backup"])
	}
	if code := docs["list --no-such-flag"]["exit_code"]; code != float64(exitUsage) {
		t.Errorf("%v", code)
	}
}

// broken is a stream that nobody reads.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, fs.ErrClosed }

// TestOutputBroken: what could not be written was not done well.
func TestOutputBroken(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"version", "--json"}, {"--help"}, {"init", "--schema"}} {
		var errs bytes.Buffer
		if code := run(t.Context(), args, broken{}, &errs); code != exitFailed || !strings.Contains(errs.String(), fs.ErrClosed.Error()) {
			t.Errorf("%v: exit %d: %s", args, code, errs.String())
		}
	}
}

// TestDamageIsThree: exit code 3 wherever data is damaged.
func TestDamageIsThree(t *testing.T) {
	s, dir, client := begin(t, func(c *stack.Config) { c.Memory = true })
	makeTable(t, client, "orders")
	putRow(t, client, "orders", "a", 1, nil, 5)
	id := backedUp(t, dir, "local/orders").ID
	b := vault.Backup{Table: vault.TableID{Region: "local", Instance: "local", Table: "orders"}, ID: id}
	folder := strings.TrimPrefix(s.Vault, "file://")
	for _, c := range []struct {
		what, under string
		commands    [][]string
	}{
		{"a shard", b.Shards(), [][]string{{"verify", "--backup", string(id)}, {"restore", "--backup", string(id), "--to", "local/a"}, {"restore", "--backup", string(id), "--to", "local/a"}}},
		{"a roll-up", b.Groups(), [][]string{{"verify", "--backup", string(id)}, {"restore", "--backup", string(id), "--to", "local/b"}}},
		{"the plan", b.Plan(), [][]string{{"show", string(id)}, {"verify", "--backup", string(id)}, {"restore", "--backup", string(id), "--to", "local/c"}}},
		{"the manifest", b.Manifest(), [][]string{{"list"}, {"list", "--latest"}, {"show", string(id)}, {"verify", "--backup", string(id)}, {"restore", "--backup", string(id), "--to", "local/d"}}},
	} {
		t.Run(c.what, func(t *testing.T) {
			mend := flipAll(t, filepath.Join(folder, filepath.FromSlash(c.under)))
			defer mend()
			for _, args := range c.commands {
				code, out, errs := tablevaultRun(t, append(args, "--stack", dir)...)
				if code != exitDiffers {
					t.Errorf("%v: exit %d, want 3\n%s%s", args, code, out, errs)
				}
			}
		})
	}
}

// flipAll flips a bit in each file under a path, but in indexes, and returns what mends
// them.
func flipAll(t *testing.T, path string) (mend func()) {
	t.Helper()
	before := map[string][]byte{}
	err := filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(name, ".index") {
			return err
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		before[name] = bytes.Clone(data)
		data[len(data)/2] ^= 1
		return errors.Join(os.Chmod(name, 0o600), os.WriteFile(name, data, 0o600))
	})
	if err != nil || len(before) == 0 {
		t.Fatalf("%d files: %v", len(before), err)
	}
	return func() {
		for name, data := range before {
			if err := os.WriteFile(name, data, 0o600); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestDoctorWrites: doctor says whether the vault can be written, and leaves nothing.
func TestDoctorWrites(t *testing.T) {
	s, dir, client := begin(t, func(c *stack.Config) { c.Memory = true })
	makeTable(t, client, "orders")
	putRow(t, client, "orders", "a", 1, nil, 5)
	backedUp(t, dir, "local/orders")
	folder := strings.TrimPrefix(s.Vault, "file://")
	out, _ := said(t, 0, "doctor", "--stack", dir)
	if !regexp.MustCompile(`(?m)^ok +write +an object was written, and removed`).MatchString(out) || strings.Contains(out, "change stream") {
		t.Errorf("%s", out)
	}
	if left, _ := os.ReadDir(filepath.Join(folder, "clock")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	// A file where a folder should be stands for whatever keeps a disk from being
	// written.
	if err := errors.Join(os.RemoveAll(filepath.Join(folder, "clock")), os.WriteFile(filepath.Join(folder, "clock"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	out, _ = said(t, exitFailed, "doctor", "--stack", dir)
	if !regexp.MustCompile(`(?m)^failure +write .*\n.*→ make room on the disk`).MatchString(out) {
		t.Errorf("%s", out)
	}
}

// TestVersion: a build says its commit, or that it knows none.
func TestVersion(t *testing.T) {
	for _, c := range []struct {
		info *debug.BuildInfo
		want string
	}{
		{nil, "of an unknown commit: it was built without version control"},
		{&debug.BuildInfo{GoVersion: "go1.26", Main: debug.Module{Version: "(devel)"}}, "of an unknown commit: it was built without version control"},
		{&debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.time", Value: "2026-11-20T10:14:00Z"}, {Key: "vcs.modified", Value: "true"}}},
			"commit abc of 2026-11-20T10:14:00Z, with changes"},
		{&debug.BuildInfo{Main: debug.Module{Version: "v0.1.1-0.20261120101400-0a1b2c3d4e5f"}}, "commit 0a1b2c3d4e5f\n"},
	} {
		if got := buildOf(c.info).String(); !strings.Contains(got, c.want) || !strings.Contains(got, "tablevault "+vault.Program) {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	out, _ := said(t, 0, "version")
	contains(t, out, vault.Program, fmt.Sprint("vault format ", vault.Format))
}

// TestBytesFlag: numbers of bytes are read as people write them.
func TestBytesFlag(t *testing.T) {
	for text, want := range map[string]int64{
		"1GiB": 1 << 30, "512MiB": 512 << 20, "1.5GiB": 3 << 29, "64MB": 64_000_000, "64 MB": 64_000_000, "1048576": 1 << 20, "10k": 10_000, "10KiB": 10 << 10, "5B": 5,
		"": -1, "GiB": -1, "-1": -1, "1XB": -1, "1e9": -1, "99999999999TiB": -1,
	} {
		var b bytesValue
		if err := b.Set(text); (err != nil) != (want < 0) || want >= 0 && int64(b) != want {
			t.Errorf("%q: %d, %v", text, b, err)
		}
	}
}

// TestSaidOnce: an error is said once, and names the file that it is about.
func TestSaidOnce(t *testing.T) {
	_, dir, _ := begin(t, func(c *stack.Config) { c.Memory = true })
	_, errs := said(t, exitFailed, "backup", "--stack", dir, "--table", "local/nothing")
	if n := strings.Count(errs, "local/nothing"); n != 1 || strings.Contains(errs, "tablevault-plan") {
		t.Errorf("the table is named %d times: %s", n, errs)
	}
	_, errs = said(t, exitFailed, "show", "--stack", dir, "2026")
	if strings.Contains(errs, fs.ErrNotExist.Error()) {
		t.Errorf("it says twice that there is none: %s", errs)
	}
	if got := plain(fmt.Errorf("open x: %w", fs.ErrNotExist)); got != "open x: file does not exist" {
		t.Error(got)
	}
	_, errs = said(t, exitFailed, "backup", "--stack", dir, "--table", "local/x*")
	contains(t, errs, "it has no table")
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	_, errs = said(t, exitFailed, "prune", "--stack", dir, "--policy", missing)
	contains(t, errs, "read the policy", missing, "tablevault init --file "+missing)
	other := filepath.Join(t.TempDir(), "other.yaml")
	out, _ := said(t, 0, "init", "--table", "prod/*", "--file", other)
	contains(t, out, other, "s deploy packs tablevault.yaml: copy it to that", "tablevault doctor --policy "+other)
}
