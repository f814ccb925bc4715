package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/vault"
)

// TestUsageIsNamed: what a command was called with wrongly is a matter of usage, and
// named as the person has given it.
func TestUsageIsNamed(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"backup", "--table", "local/orders", "--segment-bytes", "1KiB"}, "--segment-bytes is 1024 bytes: want at least 1MiB"},
		{[]string{"backup", "--table", "local/orders", "--lanes", "99"}, "--lanes 99: want 1 to 16"},
		{[]string{"backup", "--table", "local/orders", "--lanes", "-1"}, "--lanes -1: want 1 to 16"},
		{[]string{"cancel"}, "wants that of the backup or the restore to give up; `tablevault list` and `tablevault list --restores`"},
		{[]string{"copy", "--to", "far"}, "`tablevault copy` wants that of the backup to copy"},
		{[]string{"cancel", "a", "b"}, `"b" is one argument too many`},
		{[]string{"show", "a", "b"}, `"b" is one argument too many`},
	} {
		_, errs := said(t, exitUsage, c.args...)
		contains(t, errs, c.want)
	}
}

// TestDamagedHeader damages vault.json: whoever meets it is sent to doctor.
func TestDamagedHeader(t *testing.T) {
	_, dir, client := begin(t, nil)
	makeTable(t, client, "orders")
	putRow(t, client, "orders", "k", 1, nil, 1)
	must(t, new(any), "backup", "--stack", dir, "--table", "local/orders")
	header := filepath.Join(dir, "vault", vault.HeaderName)
	if err := os.Chmod(header, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(header, 20); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"list"}, {"backup", "--table", "local/orders"}, {"restore", "--table", "local/orders", "--to", "local/copy"}, {"prune", "--table", "local/orders", "--keep", "72h"},
	} {
		code, _, errs := tablevaultRun(t, append(args, "--stack", dir)...)
		if code == 0 {
			t.Errorf("%v: exit 0", args)
		}
		contains(t, errs, vault.HeaderName, "`tablevault doctor` says how to put it back")
	}
}

// TestInterrupted interrupts a restore and a backup that wait for slow functions: the
// command says that they go on, and how to look at them.
func TestInterrupted(t *testing.T) {
	s, dir, client := begin(t, nil)
	makeTable(t, client, "orders")
	putRow(t, client, "orders", "k", 1, nil, 1)
	must(t, new(any), "backup", "--stack", dir, "--table", "local/orders")
	slowWrites(t, s, "copy", time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	out := &signalled{when: "restore ", do: cancel}
	if code := runWith(ctx, &streams{out: out, err: out}, []string{"restore", "--stack", dir, "--table", "local/orders", "--to", "local/copy"}); code != exitFailed {
		t.Errorf("exit %d", code)
	}
	contains(t, out.String(), "interrupted; restore ", "goes on by itself", "`tablevault show ", " --watch --stack "+dir+"`")
	if strings.Contains(out.String(), "context canceled") {
		t.Error(out.String())
	}
}

// TestBrokenOff interrupts a verification, a comparison with a copy and a copy that
// functions are at: the command says so, and what stands.
func TestBrokenOff(t *testing.T) {
	dir := t.TempDir()
	var interrupt context.CancelFunc
	calls := 0
	functions := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if calls++; calls == 1 {
			_, _ = io.WriteString(w, `{"ok":true,"reply":{"target":"s3://twin/vault","objects":1200,"bytes":3400000,"next":{"group":1}}}`)
			return
		}
		interrupt()
	}))
	defer functions.Close()
	info, err := json.Marshal(stack.Info{Functions: functions.URL, Vault: "file://" + filepath.ToSlash(dir), AccessKeyID: "id", AccessKeySecret: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "local.json"), info, 0o600); err != nil {
		t.Fatal(err)
	}
	const id = "20261120T101400Z-0a1b2c3d"
	for _, c := range []struct {
		calls int // that count as made: after the first one is interrupted
		args  []string
		want  []string
	}{
		{1, []string{"verify", "--backup", id}, []string{"interrupted; ", "`tablevault show ", " --watch --stack " + dir + "`"}},
		{1, []string{"verify", "--backup", id, "--twin", "twin"}, []string{"interrupted; nothing is left behind"}},
		{0, []string{"copy", id, "--to", "twin"}, []string{"interrupted; the copy of backup " + id, "1,200 objects, 3.4 MB, copied by then, stay"}},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		interrupt, calls = cancel, c.calls
		var out, errs bytes.Buffer
		if code := run(ctx, append(c.args, "--stack", dir), &out, &errs); code != exitFailed || out.Len() > 0 {
			t.Errorf("%v: exit %d, %s", c.args, code, out.String())
		}
		contains(t, errs.String(), c.want...)
		if strings.Contains(errs.String(), "context canceled") {
			t.Error(errs.String())
		}
	}
}

// signalled calls a function once something is written.
type signalled struct {
	bytes.Buffer
	when string
	do   func()
}

func (s *signalled) Write(p []byte) (int, error) {
	if strings.Contains(string(p), s.when) {
		s.do()
	}
	return s.Buffer.Write(p)
}

// TestStoppedStack asks of a stack with a bucket whose process was killed, so that nobody
// answers where it says: list and doctor say how to start it.
func TestStoppedStack(t *testing.T) {
	dir := t.TempDir()
	const nobody = "http://127.0.0.1:1"
	info, err := json.Marshal(stack.Info{Vault: "oss://tablevault/vault?region=local&endpoint=" + nobody, Tablestore: nobody, Functions: nobody, AccessKeyID: "id", AccessKeySecret: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "local.json"), info, 0o600); err != nil {
		t.Fatal(err)
	}
	start := "start `tablevault local --dir " + dir + "`"
	_, errs := said(t, exitFailed, "list", "--stack", dir)
	contains(t, errs, start)
	seen := map[string]bool{}
	_, d := doctorRun(t, "--stack", dir)
	for _, f := range d.Checks {
		if f.Check == "network" || f.Check == "vault" {
			if seen[f.Check] = true; f.Fix != start {
				t.Errorf("%+v", f)
			}
		}
	}
	if len(seen) != 2 {
		t.Errorf("%+v", d)
	}
}
