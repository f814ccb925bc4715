package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/vault"
)

// TestLocal runs the command until it is ready. Its output is one line of JSON; its error
// stream tells how to connect, with values that do connect.
func TestLocal(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out := &announcer{first: make(chan struct{})}
	var errs bytes.Buffer
	code := make(chan int)
	go func() { code <- run(ctx, []string{"local", "--dir", t.TempDir(), "--tablestore", addr}, out, &errs) }()
	select {
	case <-out.first:
	case c := <-code:
		t.Fatalf("exit %d: %s", c, errs.String())
	}
	var info stack.Info
	line, rest, _ := bytes.Cut(out.Bytes(), []byte("\n"))
	if err := json.Unmarshal(line, &info); err != nil || len(rest) > 0 {
		t.Errorf("standard output is no line of JSON: %v\n%s", err, out.String())
	}
	if info.Tablestore != "http://"+addr {
		t.Errorf("the Tablestore is at %s, not %s", info.Tablestore, addr)
	}
	if _, err := tablestore.NewClient(info.Tablestore, info.Instance, info.AccessKeyID, info.AccessKeySecret).ListTable(); err != nil {
		t.Error(err)
	}
	cancel()
	if c := <-code; c != 0 {
		t.Errorf("exit %d after an interrupt", c)
	}

	help := errs.String()
	for _, want := range []string{"Go", "Node", "Python", "Java"} {
		line := regexp.MustCompile(`(?m)^ +` + want + ` .*$`).FindString(help)
		for _, value := range []string{info.Tablestore, info.Instance, info.AccessKeyID, info.AccessKeySecret} {
			if !strings.Contains(line, `"`+value+`"`) {
				t.Errorf("the line for %s lacks %q: %q", want, value, line)
			}
		}
	}
	for name, value := range map[string]string{
		"TABLESTORE_ENDPOINT": info.Tablestore, "TABLESTORE_INSTANCE": info.Instance,
		"TABLESTORE_ACCESS_KEY_ID": info.AccessKeyID, "TABLESTORE_ACCESS_KEY_SECRET": info.AccessKeySecret,
	} {
		if !regexp.MustCompile(`(?m)^ +export .*\b` + name + "=" + regexp.QuoteMeta(value) + `( |$)`).MatchString(help) {
			t.Errorf("no line exports %s=%s:\n%s", name, value, help)
		}
	}
}

// An announcer is a buffer that tells when it is written to for the first time.
type announcer struct {
	bytes.Buffer
	first chan struct{}
	once  sync.Once
}

func (a *announcer) Write(b []byte) (int, error) {
	defer a.once.Do(func() { close(a.first) })
	return a.Buffer.Write(b)
}

// startLocal runs the command until it is ready, and returns what it announces and what
// ends it.
func startLocal(t *testing.T, args ...string) (info stack.Info, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out := &announcer{first: make(chan struct{})}
	var errs bytes.Buffer
	code := make(chan int, 1)
	go func() { code <- run(ctx, append([]string{"local", "--functions", binDir}, args...), out, &errs) }()
	select {
	case <-out.first:
	case c := <-code:
		cancel()
		t.Fatalf("exit %d: %s", c, errs.String())
	}
	if err := json.Unmarshal(out.Bytes(), &info); err != nil {
		t.Errorf("%v: %s", err, out.String())
	}
	return info, sync.OnceFunc(func() {
		cancel()
		if c := <-code; c != 0 {
			t.Errorf("exit %d after an interrupt: %s", c, errs.String())
		}
	})
}

// TestLocalRefuses: what keeps the stack from starting is said, with the next step.
func TestLocalRefuses(t *testing.T) {
	dir := t.TempDir()
	info, stop := startLocal(t, "--dir", dir)
	defer stop()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"a folder in use", []string{"--dir", dir}, exitFailed, []string{dir, "in use", info.Tablestore, fmt.Sprint(os.Getpid()), "another directory"}},
		{"a taken port", []string{"--dir", t.TempDir(), "--tablestore", strings.TrimPrefix(info.Tablestore, "http://")}, exitFailed, []string{"address already in use", "--tablestore"}},
		{"an address that is not here", []string{"--dir", t.TempDir(), "--tablestore", "192.0.2.1:8087"}, exitFailed, []string{"192.0.2.1:8087", "--tablestore"}},
		{"no address", []string{"--dir", t.TempDir(), "--tablestore", "8087"}, exitUsage, []string{"8087", "HOST:PORT"}},
		{"a file for a folder", []string{"--dir", file}, exitFailed, []string{file}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := tablevaultRun(t, append([]string{"local", "--functions", binDir}, c.args...)...)
			if code != c.code || out != "" {
				t.Errorf("exit %d, want %d\n%s%s", code, c.code, out, errs)
			}
			for _, w := range c.want {
				if !strings.Contains(errs, w) {
					t.Errorf("the message does not say %q:\n%s", w, errs)
				}
			}
		})
	}
	// Nothing of that has disturbed the one that runs.
	if _, err := tablestore.NewClient(info.Tablestore, info.Instance, info.AccessKeyID, info.AccessKeySecret).ListTable(); err != nil {
		t.Error(err)
	}
}

// TestLocalPorts: programs that know a stack's addresses find it there when it is started
// again, unless another process has its ports by then.
func TestLocalPorts(t *testing.T) {
	dir := t.TempDir()
	var before, after stack.Info
	for range 5 { // others on this machine might take a port in between
		var stop func()
		before, stop = startLocal(t, "--dir", dir, "--vault", "oss")
		stop()
		after, stop = startLocal(t, "--dir", dir)
		stop()
		if after == before {
			break
		}
	}
	if after != before {
		t.Fatalf("it was %+v, and is %+v", before, after)
	}
	taken, err := net.Listen("tcp", strings.TrimPrefix(before.Functions, "http://"))
	if err != nil {
		t.Skipf("another process has the port: %v", err)
	}
	defer taken.Close()
	again, stop := startLocal(t, "--dir", dir)
	stop()
	if again.Functions == before.Functions || again.AccessKeySecret != before.AccessKeySecret {
		t.Errorf("it was %+v, and is %+v", before, again)
	}
}

// TestLocalRequest puts a request where docs/operations.md says that requests lie, into a
// vault that a directory keeps: it is found at once, by no timer.
func TestLocalRequest(t *testing.T) {
	_, dir, client := begin(t, func(c *stack.Config) { c.Memory = true })
	makeTable(t, client, "orders")
	putRow(t, client, "orders", "a", 1, nil, 5)
	made := backedUp(t, dir, "local/orders")
	_, repo, err := openVault(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	const request = "requests/again.restore.json"
	if _, err := repo.Store().Create(t.Context(), request, strings.NewReader(`{"kind":"restore","table":"local/orders","to":"local/again"}`)); err != nil {
		t.Fatal(err)
	}
	var accepted vault.Accepted
	for until := time.Now().Add(time.Minute); ; {
		_, err := repo.Read(t.Context(), vault.AcceptedName(request), &accepted)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || time.Now().After(until) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if accepted.Backup != made.ID || accepted.Target.String() != "local/again" {
		t.Errorf("%+v", accepted)
	}
}

// TestPatience: what takes its time is told, what is quick is not.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var errs bytes.Buffer
		w := (&streams{err: &errs}).patience()
		w.step("quick")
		time.Sleep(time.Second / 2)
		w.step("slow")
		time.Sleep(2 * time.Second)
		w.step("never told")
		w.over()
		time.Sleep(2 * time.Second)
		if errs.String() != "slow …\n" {
			t.Errorf("%q", errs.String())
		}
	})
}
