package ots_test

import (
	"bufio"
	"cmp"
	"encoding/json"
	"flag"
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

// The environment of the process that a crash test kills: where it keeps its tables, and
// how it behaves.
const (
	crashDir      = "OTS_TEST_CRASH_DIR"
	crashBehavior = "OTS_TEST_CRASH_BEHAVIOR"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
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
		for in := bufio.NewReader(os.Stdin); ; fmt.Println() {
			if _, err := in.ReadByte(); err != nil {
				// It must not outlive a test that is killed.
				os.Exit(0)
			}
			churn(s)
		}
	}
	os.Exit(m.Run())
}

// longKills is there for those who changed what a kill may hurt.
var longKills = flag.Bool("kills.long", false, "tests that kill the server do so more often, and write more before")

// A process is a durable server of its own, to be killed.
type process struct {
	url string
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Reader
}

// startProcess runs a durable server as a process of its own.
func startProcess(t *testing.T, dir string, env ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(append(os.Environ(), crashDir+"="+dir), env...)
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe() // open for as long as this process is there
	ok(t, err)
	out, err := p.cmd.StdoutPipe()
	ok(t, err)
	ok(t, p.cmd.Start())
	p.in, p.out = in, bufio.NewReader(out)
	url, err := p.out.ReadString('\n')
	ok(t, err)
	p.url = strings.TrimSpace(url)
	return p
}

// churn has the process split or merge partitions of its table, and waits for it.
func (p *process) churn() error {
	if _, err := p.in.Write([]byte{1}); err != nil {
		return err
	}
	_, err := p.out.ReadByte()
	return err
}

func (p *process) kill(t *testing.T) {
	t.Helper()
	ok(t, p.cmd.Process.Kill())
	_, _ = p.cmd.Process.Wait()
}

func connectTo(url string) *tablestore.TableStoreClient {
	config := tablestore.NewDefaultTableStoreConfig()
	config.RetryTimes = 0
	return tablestore.NewClientWithConfig(url, "local", ots.DefaultKeyID, ots.DefaultKeySecret, "", config)
}

// TestKill kills a durable server while ten clients write, again and again after some
// number of writes, and proves that every write that was acknowledged is there.
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
		p := startProcess(t, dir)
		c := connectTo(p.url)
		if round == 0 {
			create(t, c, tablestore.TableOption{}, integer, integer)
		}
		for i, last := range w.last {
			// Rows up to the last are there, each with its value; one more may
			// be, whose answer was lost.
			n := 0
			from := key(i, 0)
			for from != nil {
				rows := page(t, c, from, key(i, highest))
				for _, r := range rows.Rows {
					if got := r.PrimaryKey.PrimaryKeys[1].Value.(int64); got != int64(n) || r.Columns[0].Value.(int64) != int64(n) {
						t.Fatalf("round %d: row %d of writer %d is %d with %v", round, n, i, got, r.Columns[0].Value)
					}
					n++
				}
				from = rows.NextStartPrimaryKey
			}
			if n != last && n != last+1 {
				t.Fatalf("round %d: writer %d has %d rows, %d were acknowledged", round, i, n, last)
			}
			w.last[i] = n
		}
		if round == 3 {
			p.kill(t)
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
		p.kill(t)
		<-ended
	}
	t.Logf("%d writes were acknowledged", acknowledged)
}

// TestRestart proves that everything but the clock's own is kept: tables, options,
// indexes, counters.
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
