package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"strings"
	"testing"

	"github.com/tablevault/tablevault"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/plainbuffer/plainbuffertest"
)

var large = flag.Bool("large", false, "BenchmarkMemory takes a table of 2 GB too, which needs some minutes and 8 GB of memory")

// BenchmarkMemory backs a table up, restores it and proves the copy, through
// function processes as they are deployed, and reports the most memory that a
// process of each function had: the high-water mark of its resident set, in
// MiB. The table is one segment of eight lanes, so that one process of each
// function works on all of it, with eight ranges in flight.
//
//	go test -run '^$' -bench Memory -benchtime 1x ./cmd/tablevault -large
func BenchmarkMemory(b *testing.B) {
	const mega = 1_000_000
	cases := []struct {
		name  string
		shape string
		bytes int // of rows, as PlainBuffer
		wide  int // rows of 12 MB beside them
	}{
		{"small rows/100MB", "small", 100 * mega, 0},
		{"medium rows/100MB", "medium", 100 * mega, 0},
		{"blobs of 64 KB/100MB", "wide", 100 * mega, 0},
		{"small rows and one of 12 MB/100MB", "small", 100 * mega, 1},
		{"small rows/2GB", "small", 2000 * mega, 0},
		{"medium rows/2GB", "medium", 2000 * mega, 0},
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			if c.bytes > 1000*mega && !*large {
				b.Skip("it needs -large")
			}
			b.SetBytes(int64(c.bytes))
			for b.Loop() {
				peaks := measureMemory(b, c.shape, c.bytes, c.wide)
				for _, f := range []string{"export", "import", "verify", "plan"} {
					b.ReportMetric(float64(peaks["tablevault-"+f])/(1<<20), f+"-MiB")
				}
			}
		})
	}
}

// measureMemory is the peak of each function, by its name.
func measureMemory(b *testing.B, shape string, size, wide int) map[string]int64 {
	b.Helper()
	b.StopTimer()
	dir := b.TempDir()
	var log tail
	s, err := stack.Start(b.Context(), stack.Config{Dir: dir, BinDir: binDir, Deployment: tablevault.Deployment, Policies: tablevault.Policies(), Memory: true, Log: &log})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	rows := fillTable(b, s, shape, size, wide)
	b.StartTimer()
	command := func(args ...string) {
		b.Helper()
		var out, errs bytes.Buffer
		if code := run(context.WithoutCancel(b.Context()), append(args, "--stack", dir, "--json"), &out, &errs); code != 0 {
			b.Fatalf("tablevault %s: exit %d\n%s%s\n%s", strings.Join(args, " "), code, out.String(), errs.String(), log.last)
		}
	}
	command("backup", "--table", "local/t", "--segment-bytes", fmt.Sprint(size+size/10))
	peaks := map[string]int64{}
	look := func() {
		for _, i := range s.Host.Instances() {
			peaks[i.Function] = max(peaks[i.Function], i.PeakMemory)
		}
	}
	look()
	if err := s.Tablestore.Engine().DeleteTable("t"); err != nil {
		b.Fatal(err)
	}
	command("restore", "--table", "local/t", "--to", "local/copy")
	look()
	b.StopTimer()
	defer b.StartTimer()
	if len(peaks) != 4 {
		b.Fatalf("functions %v worked, want four", peaks)
	}
	b.Logf("%d rows", rows)
	return peaks
}

// fillTable makes the table t and returns its number of rows.
func fillTable(b *testing.B, s *stack.Stack, shape string, size, wide int) int {
	b.Helper()
	e := s.Tablestore.Engine()
	err := e.CreateTable(&engine.Definition{
		Name:    "t",
		Key:     []engine.KeyColumn{{Name: "pk1", Type: plainbuffer.String}, {Name: "pk2", Type: plainbuffer.Integer}},
		Options: engine.Options{TTL: -1, MaxVersions: 5, Deviation: wideDeviation, AllowUpdate: true},
	})
	if err != nil {
		b.Fatal(err)
	}
	var w plainbuffer.Builder
	scanner := plainbuffer.NewScanner(nil)
	rows := 0
	put := func() {
		scanner.ResetRows(w.Buf)
		var changes []engine.Change
		for {
			c := engine.Change{Op: engine.Put}
			if scanner.Next(&c.Row) != nil {
				break
			}
			changes = append(changes, c)
		}
		err := e.BatchWrite([]engine.Group{{Table: "t", Changes: changes}}, false)
		for i := range changes {
			if err == nil {
				err = changes[i].Outcome.Err
			}
		}
		if err != nil {
			b.Fatal(err)
		}
		rows += len(changes)
		w.Buf = w.Buf[:0]
	}
	m := plainbuffertest.ShapeOf(shape).Maker()
	for done := 0; done < size; {
		for at := 0; at < 200 && len(w.Buf) < 1<<20 && done+len(w.Buf) < size; at++ {
			m.Append(&w)
		}
		done += len(w.Buf)
		put()
	}
	for i := range wide {
		pk1, pk2 := plainbuffer.NewName([]byte("pk1")), plainbuffer.NewName([]byte("pk2"))
		value := bytes.Repeat([]byte("wide row "), 4096/9)
		// In four updates: a request has a limit of its own.
		for part := range 4 {
			w.Begin()
			w.KeyBytes(&pk1, plainbuffer.String, fmt.Appendf(nil, "user%08d-wide", 1000*i))
			w.KeyInteger(&pk2, 0)
			w.Attributes()
			for c := range 750 {
				n := plainbuffer.NewName(fmt.Appendf(nil, "column-%05d", part*750+c))
				w.Bytes(&n, plainbuffer.String, value, 5)
			}
			w.End(false)
			var change engine.Change
			if _, err := plainbuffer.Scan(w.Buf, &change.Row); err != nil {
				b.Fatal(err)
			}
			change.Op = engine.Update
			changes := []engine.Change{change}
			if err := e.BatchWrite([]engine.Group{{Table: "t", Changes: changes}}, false); err != nil || changes[0].Outcome.Err != nil {
				b.Fatal(err, changes[0].Outcome.Err)
			}
			w.Buf = nil
		}
		rows++
	}
	return rows
}
