package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/tablevault/tablevault/local/stack"
)

// TestLocal runs the command until it is ready. Its output is one line of JSON;
// its error stream tells how to connect, with values that do connect.
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
