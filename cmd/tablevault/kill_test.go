package main

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tablevault/tablevault"
	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/status"
)

// kills is how many function processes TestKills kills.
const kills = 20

// TestKills kills function processes at random moments during a backup and a restore, and
// gives the same command again whenever it fails. In the end the backup is sealed, the
// copy is proved, and it equals the table.
func TestKills(t *testing.T) {
	if testing.Short() {
		t.Skip("twenty kills take half a minute")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	// A killed worker counts as working until the platform would have ended it;
	// nobody waits a quarter of an hour for that here.
	deployment := bytes.ReplaceAll(tablevault.Deployment, []byte("timeout: 900"), []byte("timeout: 10"))
	s, dir, client := begin(t, func(c *stack.Config) { c.Deployment, c.Memory = deployment, true })
	data := demoData{orders: 20_000, events: 10, wide: 1}
	if err := data.load(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	var killed atomic.Int64
	stop := make(chan struct{})
	stopped := make(chan struct{})
	limit := atomic.Int64{}
	limit.Store(kills / 2)
	go func() {
		defer close(stopped)
		rng := rand.New(rand.NewPCG(seed, 0))
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(rng.IntN(60)) * time.Millisecond):
			}
			running := s.Host.Instances()
			if len(running) == 0 || killed.Load() >= limit.Load() {
				continue
			}
			if err := s.Host.Kill(running[rng.IntN(len(running))].PID); err == nil {
				killed.Add(1)
			}
		}
	}()
	// again gives a command until it succeeds; what stays killed is no success.
	again := func(into any, args ...string) {
		t.Helper()
		deadline := time.Now().Add(90 * time.Second)
		for {
			code, out, errs := tablevaultRun(t, append(args, "--json")...)
			if code == 0 {
				if err := json.Unmarshal([]byte(out), into); err != nil {
					t.Fatal(err)
				}
				return
			}
			if strings.TrimSpace(errs) == "" || time.Now().After(deadline) {
				t.Fatalf("tablevault %s: exit %d after %d kills\n%s%s", strings.Join(args, " "), code, killed.Load(), out, errs)
			}
		}
	}
	var last struct{ Backups []status.Backup }
	for killed.Load() < kills/2 {
		again(&last, "backup", "--stack", dir, "--table", "local/orders", "--part-bytes", "20000")
	}
	id := string(last.Backups[0].ID)
	limit.Store(kills)
	n := 0
	var restored restoreResult
	for n == 0 || killed.Load() < kills && n < 10 {
		n++
		again(&restored, "restore", "--stack", dir, "--backup", id, "--to", "local/copy"+strings.Repeat("x", n))
		if restored.Verdict != "ok" || restored.Rows != int64(data.orders+data.wide+1) {
			t.Fatalf("%+v", restored)
		}
	}
	close(stop)
	<-stopped
	if killed.Load() < kills {
		t.Errorf("only %d processes were killed", killed.Load())
	}
	var verified verifyResult
	must(t, &verified, "verify", "--stack", dir, "--backup", id, "--against", restored.Table)
	if verified.Verdict != "ok" {
		t.Errorf("%+v", verified)
	}
	t.Logf("%d kills, %d restores", killed.Load(), n)
}
