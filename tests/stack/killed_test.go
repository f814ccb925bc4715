package stack_test

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/tablevault/tablevault"
	"github.com/tablevault/tablevault/local/fc"
	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/function"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// stackUntilKilled runs a stack whose Tablestore answers so many reads of ranges and then
// no more, and says when it is there.
func stackUntilKilled(dir, bin string, reads int) int {
	policy := filepath.Join(dir, "tablevault.yaml")
	if err := os.WriteFile(policy, []byte(oneWorker), 0o600); err != nil {
		fmt.Println(err)
		return 1
	}
	_, err := stack.Start(context.Background(), stack.Config{
		Dir: dir, BinDir: bin, Deployment: tablevault.Deployment, Policies: tablevault.Policies(), Log: os.Stderr,
		Host: func(c *fc.Config) { c.Env = map[string]string{"TABLEVAULT_POLICY": policy} },
		Tablestore: func(c *ots.Config) {
			c.Fault = func(op, _ string, n int) *ots.Fault {
				if op == "GetRange" && n >= reads {
					return &ots.Fault{Delay: time.Hour}
				}
				return nil
			}
		},
	})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	select {}
}

// oneWorker is a policy by which nothing is due.
const oneWorker = "tables: none/none\nevery: weekly\nkeep: 1 week\nworkers: 1\n"

// TestHostKilled kills the whole stack, functions and all, while a worker reads the
// segment of its command, or one that it went on to. On the next stack the backup goes on
// at once: a worker with its time limit of a quarter of an hour counts as dead when its
// event comes again.
func TestHostKilled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only on Linux do the functions die with their host")
	}
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const segments, rows = 3, 30
	for reads := range 2 {
		t.Run(fmt.Sprint("after segment ", reads), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			host := exec.Command(self)
			host.Env = append(os.Environ(), "TEST_STACK_IN="+dir, "TEST_STACK_BIN="+bin, fmt.Sprint("TEST_STACK_READS=", reads))
			out, err := host.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := host.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = host.Process.Kill() // twice, where the test comes so far
				_ = host.Wait()
			}()
			if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
				t.Fatalf("%s, %v", line, err)
			}
			info, err := stack.Find(dir)
			if err != nil {
				t.Fatal(err)
			}
			s := &stack.Stack{Info: info}
			tables := tablestore.NewClient(s.Info.Tablestore, s.Instance, s.AccessKeyID, s.AccessKeySecret)
			fill(t, tables, "orders", rows, rand.New(rand.NewPCG(1, 1)))
			id := plan(t, s, "orders", vault.Settings{Lanes: 1}, table.Key{table.Integer(10)}, table.Key{table.Integer(20)})
			log := vault.Backup{Table: vault.TableID{Region: "local", Instance: s.Instance, Table: "orders"}, ID: id}.Log()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			drive(ctx, t, caller(t, s), function.Command{Kind: function.KindTick, Backup: string(id)},
				func(backup.Progress) bool { return len(objects(t, s, log.Starts(""))) == reads+1 })
			if err := host.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = host.Wait()
			held := openSegments(t, s, log, segments)
			if len(held) != 1 {
				t.Fatalf("the worker was at work on segments %q, want one", held)
			}

			next, err := stack.Start(t.Context(), stack.Config{Dir: dir, BinDir: bin, Deployment: tablevault.Deployment, Policies: tablevault.Policies(),
				Host: func(c *fc.Config) { workers(t, c, 1) }})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := next.Close(); err != nil {
					t.Error(err)
				}
			}()
			p := drive(ctx, t, caller(t, next), function.Command{Kind: function.KindTick, Backup: string(id)},
				func(p backup.Progress) bool { return p.State != backup.StateRunning })
			if p.State != backup.StateSealed || p.Manifest.Totals.Rows != rows {
				t.Errorf("%+v", p)
			}
			begun := maps.Collect(func(yield func(string, bool) bool) {
				for _, name := range objects(t, next, log.Starts("")) {
					yield(name, true)
				}
			})
			for i := range segments {
				id := vault.NewSegmentID(i)
				for start, want := range []bool{true, id == held[0], false} {
					if name := log.Start(id, start); begun[name] != want {
						t.Errorf("%s: %t, want %t", name, begun[name], want)
					}
				}
			}
		})
	}
}

// openSegments are the segments that were begun and have no part: what a worker goes on
// to is drawn by lot.
func openSegments(t *testing.T, s *stack.Stack, log vault.Log, segments int) (open []vault.SegmentID) {
	t.Helper()
	for i := range segments {
		id := vault.NewSegmentID(i)
		if len(objects(t, s, log.Starts(id))) > 0 && len(objects(t, s, log.Slots(id))) == 0 {
			open = append(open, id)
		}
	}
	return open
}
