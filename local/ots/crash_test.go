package ots_test

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/tablevault/tablevault/local/ots"
)

// The environment of the process that a crash test kills: where it keeps its
// tables, and how it behaves.
const (
	crashDir      = "OTS_TEST_CRASH_DIR"
	crashBehavior = "OTS_TEST_CRASH_BEHAVIOR"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		// It must not outlive a test that is killed.
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
		config := ots.Config{Dir: dir}
		err := json.Unmarshal([]byte(cmp.Or(os.Getenv(crashBehavior), "{}")), &config.Behavior)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		s, err := ots.Start(config)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(s.URL())
		if os.Getenv(crashChurn) != "" {
			churn(s)
		}
		select {}
	}
	os.Exit(m.Run())
}

// startProcess runs a durable server as a process of its own.
func startProcess(t *testing.T, dir string, env ...string) (cmd *exec.Cmd, url string) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), crashDir+"="+dir), env...)
	cmd.Stderr = os.Stderr
	_, err := cmd.StdinPipe() // open for as long as this process is there
	ok(t, err)
	out, err := cmd.StdoutPipe()
	ok(t, err)
	ok(t, cmd.Start())
	url, err = bufio.NewReader(out).ReadString('\n')
	ok(t, err)
	return cmd, strings.TrimSpace(url)
}

func connectTo(url string) *tablestore.TableStoreClient {
	config := tablestore.NewDefaultTableStoreConfig()
	config.RetryTimes = 0
	return tablestore.NewClientWithConfig(url, "local", ots.DefaultKeyID, ots.DefaultKeySecret, "", config)
}

// TestKill kills a durable server while ten clients write, again and again after
// some number of writes, and proves that every write that was acknowledged is
// there.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	type written struct {
		mu   sync.Mutex
		last [10]int // per writer, of the rows that it wrote in order
	}
	var w written
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	acknowledged := 0
	for round := range 4 {
		cmd, url := startProcess(t, dir)
		c := connectTo(url)
		if round == 0 {
			create(t, c, tablestore.TableOption{}, integer, integer)
		}
		for i, last := range w.last {
			// Rows up to the last are there, each with its value; one more may
			// be, whose answer was lost.
			n := 0
			from := key(i, 0)
			for from != nil {
				p := page(t, c, from, key(i, highest))
				for _, r := range p.Rows {
					if got := r.PrimaryKey.PrimaryKeys[1].Value.(int64); got != int64(n) || r.Columns[0].Value.(int64) != int64(n) {
						t.Fatalf("round %d: row %d of writer %d is %d with %v", round, n, i, got, r.Columns[0].Value)
					}
					n++
				}
				from = p.NextStartPrimaryKey
			}
			if n != last && n != last+1 {
				t.Fatalf("round %d: writer %d has %d rows, %d were acknowledged", round, i, n, last)
			}
			w.last[i] = n
		}
		if round == 3 {
			ok(t, cmd.Process.Kill())
			_ = cmd.Wait()
			break
		}
		var wg sync.WaitGroup
		enough, target := make(chan struct{}), acknowledged+50+rng.IntN(500)
		for i := range w.last {
			wg.Go(func() {
				for {
					w.mu.Lock()
					n := w.last[i]
					w.mu.Unlock()
					if put(c, key(i, n), cell{"v", int64(n), -1}) != nil {
						return
					}
					w.mu.Lock()
					w.last[i]++
					if acknowledged++; acknowledged == target {
						close(enough)
					}
					w.mu.Unlock()
				}
			})
		}
		ended := make(chan struct{})
		go func() { wg.Wait(); close(ended) }()
		select {
		case <-enough:
		case <-ended:
			t.Fatalf("round %d: the writers ended before the server was killed", round)
		}
		ok(t, cmd.Process.Kill())
		_ = cmd.Wait()
		<-ended
	}
	t.Logf("%d writes were acknowledged", acknowledged)
}

// TestRestart proves that everything but the clock's own is kept: tables,
// options, indexes, counters.
func TestRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	describeAll := func(s *ots.Server) string {
		return describeRaw(t, s, "t").String()
	}
	var before string
	for round := range 2 {
		s, err := ots.Start(ots.Config{Dir: dir})
		ok(t, err)
		c := connect(s)
		if round == 0 {
			meta := &tablestore.TableMeta{TableName: "t"}
			meta.AddPrimaryKeyColumn("pk1", text)
			meta.AddPrimaryKeyColumnOption("pk2", integer, tablestore.AUTO_INCREMENT)
			meta.AddDefinedColumn("d", tablestore.DefinedColumn_STRING)
			_, err := c.CreateTable(&tablestore.CreateTableRequest{TableMeta: meta,
				TableOption:        &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1, DeviationCellVersionInSec: 77},
				ReservedThroughput: &tablestore.ReservedThroughput{Readcap: 1},
				StreamSpec:         &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: 3},
				IndexMetas:         []*tablestore.IndexMeta{{IndexName: "i", Primarykey: []string{"d"}}}})
			ok(t, err)
			ok(t, put(c, key("a", automatic), cell{"d", "v", -1}))
			before = describeAll(s)
		} else {
			if after := describeAll(s); after != before {
				t.Errorf("the description was %s and is %s", before, after)
			}
			ok(t, put(c, key("a", automatic), cell{"d", "v", -1}))
			if n := len(page(t, c, key("a", lowest), key("a", highest)).Rows); n != 2 {
				t.Errorf("%d rows", n)
			}
		}
		ok(t, s.Close())
	}
}
