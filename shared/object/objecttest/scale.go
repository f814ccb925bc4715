package objecttest

import (
	"encoding/binary"
	"io"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/object"
)

// Memory streams two gigabytes into a store and back, a hundred megabytes unless tests are run in full, and fails if the
// heap of this process grows over most bytes meanwhile. Nothing else may run beside it.
func Memory(t *testing.T, s object.Store, most uint64) {
	t.Helper()
	size := int64(100 << 20)
	if Full() {
		size = 2 << 30
	}
	runtime.GC()
	var heap, held uint64 // the greatest of the live heap, and of what the process has for it
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		var m runtime.MemStats
		for {
			runtime.ReadMemStats(&m)
			heap, held = max(heap, m.HeapAlloc), max(held, m.HeapSys-m.HeapReleased)
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	begun := time.Now()
	info, err := s.Create(t.Context(), "large", &Noise{Left: size})
	if err != nil || info.Size != size {
		t.Fatalf("Create: %+v, %v", info, err)
	}
	wrote := time.Since(begun)
	begun = time.Now()
	r, _, err := s.Open(t.Context(), "large", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, r)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	if err != nil || n != size {
		t.Fatalf("read %d bytes: %v", n, err)
	}
	read := time.Since(begun)
	close(stop)
	watch.Wait()
	mb := func(took time.Duration) float64 { return float64(size) / 1e6 / took.Seconds() }
	t.Logf("%d MB written at %.0f MB/s and read at %.0f MB/s; the live heap had at most %.1f MiB, the process held at most %.1f MiB for it",
		size/1e6, mb(wrote), mb(read), float64(heap)/(1<<20), float64(held)/(1<<20))
	if heap > most {
		t.Errorf("the live heap grew to %d bytes, at most %d are expected", heap, most)
	}
}

// Throughput compares how fast two ways of storing so many bytes are, in turns and in one run, and fails if the first is
// slower than the second by more than the noise of a shared machine. Each call stores under a name of its own. It is the
// time that passes which counts, since an upload is waiting for the most part; package sidebyside counts that of processors.
func Throughput(t *testing.T, size int64, ours, theirs func(round int) error) {
	t.Helper()
	const rounds = 5
	var took [2][]time.Duration
	for round := range rounds + 1 {
		for w, store := range []func(int) error{ours, theirs} {
			begun := time.Now()
			if err := store(round); err != nil {
				t.Fatal(err)
			}
			if round > 0 { // the first warms up
				took[w] = append(took[w], time.Since(begun))
			}
		}
	}
	mb := func(all []time.Duration) float64 {
		slices.Sort(all)
		return float64(size) / 1e6 / all[len(all)/2].Seconds()
	}
	mine, sdks := mb(took[0]), mb(took[1])
	t.Logf("%d MB, median of %d: the store %.0f MB/s, the SDK's uploader %.0f MB/s, ratio %.2f", size/1e6, rounds, mine, sdks, mine/sdks)
	if mine < 0.9*sdks {
		t.Errorf("the store is slower than the SDK's uploader by more than the noise of a shared machine")
	}
}

// Noise delivers so many bytes, which differ from one another in each kilobyte, at next to no cost.
type Noise struct {
	Left  int64
	count uint64
}

func (n *Noise) Read(p []byte) (int, error) {
	if n.Left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), n.Left)]
	for at := 0; at+8 <= len(p); at += 1024 {
		n.count++
		binary.LittleEndian.PutUint64(p[at:], n.count*0x9e3779b97f4a7c15)
	}
	n.Left -= int64(len(p))
	return len(p), nil
}
