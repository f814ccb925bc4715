package ots_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// crashChurn makes the process that a crash test kills split and merge the
// partitions of its table all the time.
const crashChurn = "OTS_TEST_CRASH_CHURN"

// churn splits and merges at random, for good.
func churn(s *ots.Server) {
	partitions := -1
	for {
		time.Sleep(time.Duration(rand.IntN(15)) * time.Millisecond)
		d, err := s.Engine().Definition("t")
		if err != nil {
			continue
		}
		if partitions = len(d.Splits) + 1; partitions > 1 && rand.IntN(2) == 0 {
			_ = s.Engine().MergePartitions("t", rand.IntN(partitions-1))
			continue
		}
		_ = s.Engine().SplitPartition("t", []plainbuffer.Cell{integerCell("pk1", int64(rand.IntN(80))), integerCell("pk2", int64(rand.IntN(scribbleKeys)))})
	}
}

// TestStreamKill kills a durable server, again and again, while clients write
// and partitions split and merge. Each time the rows that a reader has made from
// the stream, with the iterators that it had before the kill, are those of the
// table, and so are those of a reader who begins anew; and each write that was
// acknowledged is a record. Every start turns other switches.
func TestStreamKill(t *testing.T) {
	for _, behavior := range []engine.Behavior{{}, {KeepVersions: true}} {
		t.Run(fmt.Sprint("keep versions ", behavior.KeepVersions), func(t *testing.T) { killStreams(t, behavior) })
	}
}

func killStreams(t *testing.T, behavior engine.Behavior) {
	const clients = 8
	switches := []engine.StreamBehavior{
		{},
		{Increments: true, ResetEpochs: true},
		{SkipNoops: true, Evictions: true, Skew: time.Second},
		{DeleteMarks: true, Page: 7, Seeks: 1},
	}
	rounds := len(switches) - 1
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	dir := t.TempDir()
	var f *follower
	var acknowledged atomic.Int64
	type numbered struct {
		mu  sync.Mutex
		put map[string]bool // keys of rows that were put once each
	}
	sure := numbered{put: map[string]bool{}}
	for round := range rounds + 1 {
		behavior.Stream = switches[round]
		text, err := json.Marshal(behavior)
		ok(t, err)
		cmd, url := startProcess(t, dir, crashChurn+"=1", crashBehavior+"="+string(text))
		if round == 0 {
			createStreamed(t, connectTo(url), 2, -1, false, false, []string{"c0"})
		}
		w := &wire{t: t, url: url, transport: http.DefaultTransport}
		if f == nil {
			r := newReplica(t, 2, -1)
			r.origins, r.lazy = []string{"c0"}, behavior.KeepVersions
			f = follow(w, w.stream("t"), r)
		}
		f.wire = w
		f.drain()
		table := dumpTable(w, 2)
		same(t, fmt.Sprintf("the replica after %d kills", round), f.replica.dump(0), table)
		again := follow(w, f.stream, f.replica.empty())
		again.replica.origins = f.replica.origins
		again.drain()
		same(t, fmt.Sprintf("a new replica after %d kills", round), again.replica.dump(0), table)
		if len(again.seen) != len(f.seen) {
			t.Fatalf("after %d kills one reader has %d records, another %d", round, len(f.seen), len(again.seen))
		}
		records := map[string]int{}
		for _, c := range again.seen {
			if c.action == otsprotocol.ActionType_PUT_ROW && c.row.Key[0].Int() >= 1000 {
				records[c.key()]++
			}
		}
		for key := range sure.put {
			if records[key] != 1 {
				t.Fatalf("after %d kills there are %d records of %s, whose put was acknowledged", round, records[key], key)
			}
		}
		if round == rounds {
			ok(t, cmd.Process.Kill())
			_ = cmd.Wait()
			break
		}
		var wg sync.WaitGroup
		for i := range clients {
			hand := &scribbler{t: t, c: connectTo(url), rng: rand.New(rand.NewPCG(seed, uint64(100*round+i))), now: func() int64 { return time.Now().UnixMilli() }, part: i}
			wg.Go(func() {
				for n := 0; ; n++ {
					if hand.step() != nil {
						return
					}
					row := key(1000+i, 1000*round+n)
					if put(hand.c, row) != nil {
						return
					}
					acknowledged.Add(2)
					sure.mu.Lock()
					sure.put[fmt.Sprintf("pk1=%d pk2=%d", 1000+i, 1000*round+n)] = true
					sure.mu.Unlock()
				}
			})
		}
		time.Sleep(time.Duration(150+70*round) * time.Millisecond)
		f.drain() // while they write
		ok(t, cmd.Process.Kill())
		_ = cmd.Wait()
		wg.Wait()
	}
	t.Logf("%d writes were acknowledged, %d records of %d shards, %d of which ended, %v", acknowledged.Load(), len(f.seen), len(f.shards), f.ends, f.replica.kinds)
	if acknowledged.Load() < 30 || f.ends < 3 {
		t.Error("too little happened")
	}
}

// TestStreamConcurrent has clients write, partitions split and merge, and a
// reader follow, all at the same time.
func TestStreamConcurrent(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := start(t, ots.Config{})
	createStreamed(t, inProcess(s), 1, -1, false, true, nil)
	w := wireTo(t, s)
	f := follow(w, w.stream("t"), newReplica(t, 1, -1))
	var wg sync.WaitGroup
	for i := range 4 {
		hand := &scribbler{t: t, c: inProcess(s), rng: rand.New(rand.NewPCG(seed, uint64(i))), now: func() int64 { return time.Now().UnixMilli() }, part: i, plain: true}
		wg.Go(func() {
			for range 300 {
				if err := hand.step(); err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	rng := rand.New(rand.NewPCG(seed, 100))
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		d, err := s.Engine().Definition("t")
		if err != nil {
			t.Fatal(err)
		}
		if n := len(d.Splits); n > 0 && rng.IntN(2) == 0 {
			_ = s.Engine().MergePartitions("t", rng.IntN(n))
		} else {
			_ = s.Engine().SplitPartition("t", []plainbuffer.Cell{integerCell("pk1", int64(rng.IntN(40)))})
		}
		f.drain()
	}
	f.drain()
	same(t, "the replica", f.replica.dump(0), dumpTable(w, 2))
	if f.ends < 3 || len(f.seen) < 500 {
		t.Errorf("%d records, %d shards ended", len(f.seen), f.ends)
	}
}
