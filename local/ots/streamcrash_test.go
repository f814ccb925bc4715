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
	"github.com/tablevault/tablevault/local/ots/otstest"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// churn splits or merges at random, once.
func churn(s *ots.Server) {
	d, err := s.Engine().Definition("t")
	if err != nil {
		return // not made yet
	}
	if n := len(d.Splits); n > 0 && rand.IntN(2) == 0 {
		_ = s.Engine().MergePartitions("t", rand.IntN(n))
		return
	}
	_ = s.Engine().SplitPartition("t", []plainbuffer.Cell{integerCell("pk1", int64(rand.IntN(80))), integerCell("pk2", int64(rand.IntN(scribbleKeys)))})
}

// TestStreamKill kills a durable server, again and again, while clients write and
// partitions split and merge. Each time the rows that a reader has made from the stream,
// with the iterators that it had before the kill, are those of the table, and so are
// those of a reader who begins anew; and each write that was acknowledged is a record.
// Every start turns other switches. How much is written and split in a round is counted,
// not timed.
func TestStreamKill(t *testing.T) {
	for _, behavior := range []engine.Behavior{{}, {Writes: engine.WriteBehavior{KeepVersions: true}}} {
		t.Run(fmt.Sprint("keep versions ", behavior.Writes.KeepVersions), func(t *testing.T) { killStreams(t, behavior) })
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
	rounds, writes, churns := len(switches)-1, int64(150), int64(5)
	if *longKills {
		rounds, writes, churns = 5*len(switches)-1, 1500, 25
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	dir := t.TempDir()
	var f *follower
	var acknowledged, churned atomic.Int64
	var mu sync.Mutex
	sure := map[string]bool{} // keys of rows that were put once each
	for round := range rounds + 1 {
		behavior.Stream = switches[round%len(switches)]
		text, err := json.Marshal(behavior)
		ok(t, err)
		p := startProcess(t, dir, crashBehavior+"="+string(text))
		if round == 0 {
			createStreamed(t, connectTo(p.url), 2, -1, false, false, []string{"c0"})
		}
		w := &wire{t: t, url: p.url, transport: http.DefaultTransport}
		if f == nil {
			r := newReplica(t, 2, -1)
			r.origins, r.lazy = []string{"c0"}, behavior.Writes.KeepVersions
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
			if c.action == otsprotocol.ActionType_PUT_ROW {
				records[c.key()]++
			}
		}
		for key := range sure {
			if records[key] != 1 {
				t.Fatalf("after %d kills there are %d records of %s, whose put was acknowledged", round, records[key], key)
			}
		}
		if round == rounds {
			p.kill(t)
			break
		}
		// So many writes, so many partitions: a reader comes to an end among them.
		turn := make(chan struct{}, 1)
		var writers, churner sync.WaitGroup
		for i := range clients {
			hand := &scribbler{t: t, c: connectTo(p.url), rng: rand.New(rand.NewPCG(seed, uint64(100*round+i))), now: func() int64 { return time.Now().UnixMilli() }, part: i}
			writers.Go(func() {
				// No scribbler's key begins so high, and none comes twice.
				for first, n := 1000*(round+1)+i, 0; ; n++ {
					if hand.step() != nil || put(hand.c, key(first, n)) != nil {
						return
					}
					if acknowledged.Add(2)%16 == 0 {
						select {
						case turn <- struct{}{}:
						default:
						}
					}
					mu.Lock()
					sure[fmt.Sprintf("pk1=%d pk2=%d", first, n)] = true
					mu.Unlock()
				}
			})
		}
		churner.Go(func() {
			for range turn {
				if p.churn() != nil {
					return
				}
				churned.Add(1)
			}
		})
		written, split := acknowledged.Load(), churned.Load()
		await(t, "half is written", func() bool { return acknowledged.Load() >= written+writes/2 })
		f.read() // while they write
		await(t, "all is written", func() bool { return acknowledged.Load() >= written+writes && churned.Load() >= split+churns })
		p.kill(t)
		writers.Wait()
		close(turn)
		churner.Wait()
	}
	t.Logf("%d writes were acknowledged, %d splits and merges made, %d records of %d shards, %d of which ended, %v", acknowledged.Load(), churned.Load(), len(f.seen), len(f.shards), f.ends, f.replica.kinds)
	if f.ends < 3 {
		t.Errorf("%d shards ended", f.ends)
	}
}

// TestStreamConcurrent has clients write, partitions split and merge, and a reader
// follow, all at the same time.
func TestStreamConcurrent(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := otstest.Run(t, ots.Config{})
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
	for n, running := 0, true; running || n < 20; n++ {
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
	if f.ends < 3 || len(f.seen) < 400 {
		t.Errorf("%d records, %d shards ended", len(f.seen), f.ends)
	}
}
