package objecttest

import (
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/sidebyside"
)

// Memory streams two gigabytes into a store and back, a hundred megabytes unless tests
// are run in full, and fails if the heap of this process grows over most bytes meanwhile.
// Nothing else may run beside it.
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

// BesideUploader stores so many bytes with a store and with an SDK's own uploader, in
// turns and in one run, and reports how long the uploader takes for what the store takes
// a second for: by the clock, and in CPU time of this process. remove removes what was
// stored.
func BesideUploader(b *testing.B, size int64, store, uploader, remove func(name string) error) {
	b.Helper()
	const rounds = 7
	cpu := sidebyside.Times{}
	work := func(kind string, create func(string) error) sidebyside.Work {
		n := 0
		do := func() error {
			n++
			name := fmt.Sprintf("%s/%d", kind, n)
			if err := create(name); err != nil {
				return err
			}
			return remove(name)
		}
		if err := do(); err != nil { // the first warms up
			b.Fatal(err)
		}
		return sidebyside.Work{Name: kind, Do: func() (time.Duration, error) {
			begun := time.Now()
			took, err := sidebyside.CPU(do)
			cpu[kind] = append(cpu[kind], took)
			return time.Since(begun), err
		}}
	}
	b.SetBytes(2 * size)
	clock := sidebyside.Measure(b, rounds, work("uploader", uploader), work("store", store))
	b.ReportMetric(clock.Ratio("uploader", "store"), "uploader/store-clock")
	b.ReportMetric(cpu.Ratio("uploader", "store"), "uploader/store-cpu")
}

// Noise delivers so many bytes, which differ from one another in each kilobyte, at next
// to no cost.
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
