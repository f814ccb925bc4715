package s3_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	local "github.com/tablevault/tablevault/local/s3"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/objecttest"
)

// Of two writers of one name one wins, also with a body in parts.
func TestTwoWriters(t *testing.T) {
	t.Parallel()
	server, config := bucket(t, local.Plain)
	objecttest.TwoWriters(t, [2]object.Store{open(t, config), open(t, config)}, big)
	wantNoUploads(t, server)
}

// An answer that others are just creating the same name is tried again, in one request and in parts.
func TestConflict(t *testing.T) {
	t.Parallel()
	server, config := bucket(t, local.Plain)
	proxy := server.Proxy(t)
	config.Endpoint = proxy.URL
	store := open(t, config).Hurry()
	for _, c := range []struct {
		size  int
		match func(*http.Request) bool
	}{{10, matching("PUT", "", "uploadId")}, {big, matching("POST", "uploadId", "")}} {
		fault := &local.Fault{Kind: local.Conflict, Call: 0, Match: c.match}
		proxy.Set(fault)
		name := fmt.Sprint("conflict/", c.size)
		if _, err := store.Create(t.Context(), name, strings.NewReader(strings.Repeat("x", c.size))); err != nil || fault.Fired() != 1 {
			t.Errorf("Create of %d bytes after %d conflicts: %v", c.size, fault.Fired(), err)
		}
		proxy.Set(&local.Fault{Kind: local.Conflict, Call: local.Every, Match: c.match})
		_, err := store.Create(t.Context(), name+"/always", strings.NewReader(strings.Repeat("x", c.size)))
		if err == nil || errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "others kept creating it") {
			t.Errorf("Create of %d bytes with conflicts only: %v", c.size, err)
		}
		proxy.Set()
	}
	eventuallyNoUploads(t, server)
}

// Streaming takes no more memory for two gigabytes than for ten parts.
func TestMemory(t *testing.T) {
	size, most := int64(2<<30), uint64(64<<20)
	if !objecttest.Full() {
		size = 100 << 20
		t.Log("100 MB are streamed; 2 GB with TEST_STORES=full")
	}
	_, config := bucket(t, local.Plain)
	store := open(t, config)
	runtime.GC()
	stop := make(chan struct{})
	var peak, largest uint64
	var watch sync.WaitGroup
	watch.Go(func() {
		var m runtime.MemStats
		for {
			runtime.ReadMemStats(&m)
			peak, largest = max(peak, m.HeapAlloc), max(largest, m.HeapSys-m.HeapReleased)
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	started := time.Now()
	info, err := store.Create(t.Context(), "large", &noise{left: size})
	wrote := time.Since(started)
	if err != nil || info.Size != size {
		t.Fatalf("Create: %+v, %v", info, err)
	}
	started = time.Now()
	r, _, err := store.Open(t.Context(), "large", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, r)
	r.Close()
	read := time.Since(started)
	if err != nil || n != size {
		t.Fatalf("read %d bytes: %v", n, err)
	}
	close(stop)
	watch.Wait()
	mb := func(took time.Duration) float64 { return float64(size) / 1e6 / took.Seconds() }
	t.Logf("%d MB written at %.0f MB/s and read at %.0f MB/s; live heap at most %.1f MiB, heap at most %.1f MiB",
		size/1e6, mb(wrote), mb(read), float64(peak)/(1<<20), float64(largest)/(1<<20))
	if peak > most {
		t.Errorf("the live heap grew to %d bytes, at most %d are expected", peak, most)
	}
}

// noise delivers so many bytes, which differ from part to part.
type noise struct {
	left   int64
	source *rand.ChaCha8
}

func (n *noise) Read(p []byte) (int, error) {
	if n.left == 0 {
		return 0, io.EOF
	}
	if n.source == nil {
		n.source = rand.NewChaCha8([32]byte{1})
	}
	p = p[:min(int64(len(p)), n.left)]
	n.source.Read(p[:min(8, len(p))])
	n.left -= int64(len(p))
	return len(p), nil
}
