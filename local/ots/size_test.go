package ots_test

import (
	le "encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// sizeRows is how many rows TestSize loads, and sizeDir the folder for those of the
// durable store.
const (
	sizeRows = "OTS_TEST_ROWS"
	sizeDir  = "OTS_TEST_SIZE_DIR"
)

// sizeLimit is what ten million small rows may take, of memory or of disk.
const sizeLimit = 8 << 30

// TestSize loads small rows, of two key columns and eight attributes, about 200 bytes of
// names and values and 400 in PlainBuffer, and proves that ten million of them fit into 8
// GiB: of memory, all that the process takes for them, or of disk. Without the
// environment's word it loads few.
func TestSize(t *testing.T) {
	rows := 10_000
	if v := os.Getenv(sizeRows); v != "" {
		var err error
		if rows, err = strconv.Atoi(v); err != nil {
			t.Fatalf("%s: %v", sizeRows, err)
		}
	}
	if rows >= 1_000_000 {
		// As an operator would with GOMEMLIMIT: the collector's slack is not
		// part of what the rows need.
		defer debug.SetMemoryLimit(debug.SetMemoryLimit(sizeLimit - 512<<20))
	}
	// A row is worth this much at ten million of them; a small table has a
	// fixed cost besides.
	limit := int64(sizeLimit/10_000_000)*int64(rows) + 64<<20
	for _, test := range []struct {
		name   string
		random bool // the keys arrive in no order
		file   bool
	}{{"memory in order", false, false}, {"memory at random", true, false}, {"file in order", false, true}, {"file at random", true, true}} {
		t.Run(test.name, func(t *testing.T) {
			config := ots.Config{}
			if test.file {
				root := os.Getenv(sizeDir)
				if root == "" {
					root = t.TempDir()
				}
				config.Dir = filepath.Join(root, strings.ReplaceAll(test.name, " ", "-"))
			}
			debug.FreeOSMemory()
			before := memory(t, "VmRSS:")
			s, err := ots.New(config)
			ok(t, err)
			began := time.Now()
			loadSmall(t, s, rows, test.random)
			took := time.Since(began)
			var used int64
			if test.file {
				info, err := os.Stat(filepath.Join(config.Dir, "tablestore.db"))
				ok(t, err)
				used = info.Size()
			} else {
				debug.FreeOSMemory()
				used = memory(t, "VmRSS:") - before
			}
			peak := memory(t, "VmHWM:")
			t.Logf("%d rows in %v: %.2f GiB, %d bytes a row; peak memory of the process %.2f GiB",
				rows, took.Round(time.Millisecond), float64(used)/(1<<30), used/int64(rows), float64(peak)/(1<<30))
			if used > limit {
				t.Errorf("%d rows take %d bytes, at most %d are good", rows, used, limit)
			}
			ok(t, s.Close())
			if test.file {
				ok(t, os.RemoveAll(config.Dir))
			}
			s = nil
			debug.FreeOSMemory()
		})
	}
}

// loadSmall fills the table "small" past the wire.
func loadSmall(t *testing.T, s *ots.Server, rows int, random bool) {
	t.Helper()
	ok(t, engineError(s.Engine().CreateTable(&engine.Definition{
		Name:    "small",
		Key:     []engine.KeyColumn{{Name: "pk1", Type: plainbuffer.String}, {Name: "pk2", Type: plainbuffer.Integer}},
		Options: engine.Options{TTL: -1, MaxVersions: 1, Deviation: engine.DefaultDeviation, AllowUpdate: true},
	})))
	rng := rand.New(rand.NewPCG(1, 2))
	now := time.Now().UnixMilli()
	var b plainbuffer.Builder
	scanner := plainbuffer.NewScanner(nil)
	changes := make([]engine.Change, 200)
	for at := 0; at < rows; at += len(changes) {
		b.Buf = plainbuffer.AppendHeader(b.Buf[:0])
		n := min(len(changes), rows-at)
		for i := range n {
			id := at + i
			if random {
				// An odd factor permutes the 32-bit numbers.
				id = int(uint32(id) * 2654435761)
			}
			appendSmall(&b, id, now, rng)
		}
		scanner.Reset(b.Buf)
		for i := range n {
			changes[i].Op = engine.Put
			ok(t, scanner.Next(&changes[i].Row))
		}
		ok(t, engineError(s.Engine().BatchWrite([]engine.Group{{Table: "small", Changes: changes[:n]}}, false)))
		for i := range n {
			ok(t, engineError(changes[i].Outcome.Err))
		}
	}
}

// appendSmall builds a small row.
func appendSmall(b *plainbuffer.Builder, id int, now int64, rng *rand.Rand) {
	cell := func(name string, kind plainbuffer.Type, data []byte) *plainbuffer.Cell {
		return &plainbuffer.Cell{Name: []byte(name), Type: kind, Data: data, HasValue: true, Timestamp: now, HasTimestamp: true}
	}
	key := func(name string, kind plainbuffer.Type, data []byte) *plainbuffer.Cell {
		return &plainbuffer.Cell{Name: []byte(name), Type: kind, Data: data, HasValue: true}
	}
	number := func(n uint64) []byte { return le.LittleEndian.AppendUint64(nil, n) }
	words := func(n int) []byte {
		out := make([]byte, n)
		for i := range out {
			out[i] = "etaoin shrdlu"[rng.IntN(13)]
		}
		return out
	}
	b.Begin()
	b.Cell(key("pk1", plainbuffer.String, fmt.Appendf(nil, "user%010d", id)))
	b.Cell(key("pk2", plainbuffer.Integer, number(uint64(id))))
	b.Attributes()
	b.Cell(cell("amount", plainbuffer.Double, number(math.Float64bits(rng.Float64()))))
	b.Cell(cell("city", plainbuffer.String, words(12)))
	b.Cell(cell("count", plainbuffer.Integer, number(rng.Uint64())))
	b.Cell(cell("email", plainbuffer.String, words(24)))
	b.Cell(cell("flag", plainbuffer.Boolean, []byte{byte(id & 1)}))
	b.Cell(cell("name", plainbuffer.String, words(16)))
	b.Cell(cell("note", plainbuffer.String, words(40)))
	b.Cell(cell("state", plainbuffer.String, words(8)))
	b.End(false)
}

// memory is what the system says of the process's memory: VmRSS is what it has, VmHWM the
// most that it ever had. Where the system does not tell it is 0.
func memory(t *testing.T, what string) int64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, what); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	return 0
}
