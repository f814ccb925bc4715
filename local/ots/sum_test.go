package ots

import (
	"crypto/md5"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// TestSums: whoever sums beside whom, each gets the sum of its own body.
func TestSums(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var s summer
	var wg sync.WaitGroup
	for n := range uint64(12) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, n))
			body := make([]byte, 300_000)
			for i := range body {
				body[i] = byte(rng.Uint32())
			}
			var w summing
			for range 60 {
				at := rng.IntN(len(body))
				part := body[at : at+rng.IntN(len(body)-at)]
				if got := s.sum(part, &w); got != md5.Sum(part) {
					t.Errorf("the sum of %d bytes is %x, want %x", len(part), got, md5.Sum(part))
				}
			}
		})
	}
	wg.Wait()
	s.close()
}

// TestSumsBesideEachOther sums groups of every size, of bodies that end at and around the
// edges of chunks and blocks.
func TestSumsBesideEachOther(t *testing.T) {
	t.Parallel()
	var s summer
	body := make([]byte, 3*sumChunk)
	for i := range body {
		body[i] = byte(i * i >> 3)
	}
	for n := range sumLanes + 1 {
		var group []*summing
		for i := range n {
			size := (i*7%4)*sumChunk/2 + i - 3
			group = append(group, &summing{body: body[i : i+max(size, 0)]})
		}
		s.sumAll(group)
		for i, w := range group {
			if w.sum != md5.Sum(w.body) {
				t.Errorf("body %d of %d, %d bytes: the sum is %x, want %x", i, n, len(w.body), w.sum, md5.Sum(w.body))
			}
		}
	}
	s.close()
}
