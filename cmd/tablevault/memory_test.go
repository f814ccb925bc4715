package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/plainbuffer/plainbuffertest"
	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/vault"
)

var large = flag.Bool("large", false, "BenchmarkMemory takes tables of 2 GB too, which needs ten minutes and 8 GB of memory")

// lanes is how many ranges a function of BenchmarkMemory has in flight.
const lanes = 8

// BenchmarkMemory backs tables up, restores them and proves the copies, through function
// processes as they are deployed, and reports the most memory that a process of each
// function had, in MiB: the high-water mark of its resident set, VmHWM, which counts the
// pages of the program file as well; files-MiB is what those take in the export function.
// Each table is one segment of eight lanes, so that one process of each function works on
// all of it, with eight ranges in flight.
//
// Of ordinary rows no function may take more than 64 MiB, and of 2 GB no more than a
// tenth above what it takes of 100 MB, which is reported as export-growth and
// import-growth. What a row of 12 MB and 3,000 columns costs is reported as the
// difference to a table without it.
//
//	go test -run '^$' -bench Memory -benchtime 1x -timeout 60m ./cmd/tablevault -large
func BenchmarkMemory(b *testing.B) {
	const mega = 1_000_000
	for _, shape := range []string{"small", "medium", "wide"} {
		b.Run(shape, func(b *testing.B) {
			for b.Loop() {
				of := measureMemory(b, shape, 100*mega, 0)
				of.report(b)
				of.holdTo(b, 64<<20)
				if !*large || shape == "wide" {
					continue
				}
				more := measureMemory(b, shape, 2000*mega, 0)
				more.holdTo(b, 64<<20)
				for _, f := range []string{"export", "import"} {
					growth := float64(more[f].peak) / float64(of[f].peak)
					b.ReportMetric(growth, f+"-growth")
					if growth > 1.1 {
						b.Errorf("%s takes %.1f MiB for 100 MB, %.1f MiB for 2 GB", f, mib(of[f].peak), mib(more[f].peak))
					}
				}
			}
		})
	}
	b.Run("a row of 12 MB", func(b *testing.B) {
		for b.Loop() {
			without, with := measureMemory(b, "small", 100*mega, 0), measureMemory(b, "small", 100*mega, 1)
			with.report(b)
			for _, f := range []string{"export", "import", "verify"} {
				b.ReportMetric(mib(with[f].peak-without[f].peak), f+"-more-MiB")
			}
		}
	})
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// footprint is the memory of a process, in bytes.
type footprint struct {
	peak  int64 // of all that was resident
	files int64 // of that, pages of files, as the program's own
}

// footprints are those of the processes that had the most, by their function.
type footprints map[string]footprint

func (f footprints) report(b *testing.B) {
	for _, name := range []string{"export", "import", "verify", "plan"} {
		b.ReportMetric(mib(f[name].peak), name+"-MiB")
	}
	b.ReportMetric(mib(f["export"].files), "files-MiB")
}

func (f footprints) holdTo(b *testing.B, most int64) {
	b.Helper()
	for name, of := range f {
		if of.peak > most {
			b.Errorf("%s takes %.1f MiB, want at most %.1f", name, mib(of.peak), mib(most))
		}
	}
}

// look takes note of the processes that there are.
func (f footprints) look(s *stack.Stack) {
	for _, i := range s.Host.Instances() {
		name := strings.TrimPrefix(i.Function, "tablevault-")
		of := f[name]
		of.peak = max(of.peak, i.PeakMemory)
		of.files = max(of.files, residentFiles(i.PID))
		f[name] = of
	}
}

// watch looks until stop is called, so that no process ends unseen.
func (f footprints) watch(s *stack.Stack) (stop func()) {
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			f.look(s)
			select {
			case <-over:
				f.look(s)
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return func() {
		close(over)
		<-done
	}
}

// residentFiles is how much of a process's memory is pages of files; zero where the
// system does not tell.
func residentFiles(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "RssFile:")
	var kib int64
	fmt.Sscan(rest, &kib)
	return kib << 10
}

// measureMemory backs a table of so many bytes up and restores it.
func measureMemory(b *testing.B, shape string, size, wide int) footprints {
	b.Helper()
	b.StopTimer()
	defer b.StartTimer()
	dir := b.TempDir()
	var log tail
	s, err := stack.Start(b.Context(), stack.Config{Dir: dir, BinDir: binDir, Deployment: tablevault.Deployment, Policies: tablevault.Policies(), Memory: true, Log: &log})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	rows, logical := fillTable(b, s, shape, size, wide)
	b.StartTimer()
	defer b.StopTimer()
	command := func(into any, args ...string) {
		b.Helper()
		var out, errs bytes.Buffer
		if code := run(context.WithoutCancel(b.Context()), append(args, "--stack", dir, "--json"), &out, &errs); code != 0 {
			b.Fatalf("tablevault %s: exit %d\n%s%s\n%s", strings.Join(args, " "), code, out.String(), errs.String(), log.last)
		}
		if err := json.Unmarshal(out.Bytes(), into); err != nil {
			b.Fatal(err)
		}
	}
	found := footprints{}
	stop := found.watch(s)
	var backups struct{ Backups []status.Backup }
	// The service cuts tables by whole MiB of names and values. A wide row is cut
	// off by itself.
	lane := (logical/(lanes-wide) + 1<<20 - 1) &^ (1<<20 - 1)
	command(&backups, "backup", "--table", "local/t", "--segment-bytes", fmt.Sprint(lane*lanes))
	checkLanes(b, dir, backups.Backups[0].ID)
	if err := s.Tablestore.Engine().DeleteTable("t"); err != nil {
		b.Fatal(err)
	}
	var restored restoreResult
	command(&restored, "restore", "--table", "local/t", "--to", "local/copy")
	stop()
	if len(found) != 4 {
		b.Fatalf("functions %v worked, want four", found)
	}
	if restored.Rows != int64(rows) || restored.Verdict != "ok" {
		b.Fatalf("of %d rows: %+v", rows, restored)
	}
	return found
}

// checkLanes fails unless a backup is of one segment and all its lanes.
func checkLanes(b *testing.B, dir string, id vault.BackupID) {
	b.Helper()
	_, repo, err := openVault(b.Context(), dir)
	if err != nil {
		b.Fatal(err)
	}
	found, err := repo.FindBackup(b.Context(), id)
	if err != nil {
		b.Fatal(err)
	}
	plan, _, err := repo.Plan(b.Context(), found)
	if err != nil {
		b.Fatal(err)
	}
	if n := len(plan.Segments); n != 1 {
		b.Fatalf("the table is %d segments, want one", n)
	}
	if n := len(plan.Segments[0].Lanes()); n != lanes {
		b.Fatalf("%d ranges are in flight, want %d", n, lanes)
	}
}

// fillTable makes the table t and returns its number of rows, and the size of the names
// and values of those of the shape.
func fillTable(b *testing.B, s *stack.Stack, shape string, size, wide int) (rows, logical int) {
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
	put := func() {
		scanner.ResetRows(w.Buf)
		var changes []engine.Change
		for {
			c := engine.Change{Op: engine.Put}
			if scanner.Next(&c.Row) != nil {
				break
			}
			changes = append(changes, c)
			extent, err := plainbuffer.Measure(c.Row.Raw)
			if err != nil {
				b.Fatal(err)
			}
			logical += extent.Data
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
			// Before all others, so that it is cut off by itself.
			w.KeyBytes(&pk1, plainbuffer.String, fmt.Appendf(nil, "a wide row %08d", i))
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
	return rows, logical
}
