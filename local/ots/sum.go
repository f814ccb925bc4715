package ots

import (
	"crypto/md5"
	"runtime"
	"sync"

	md5simd "github.com/minio/md5-simd"
)

// A summer makes the MD5 sums of requests' bodies, which with small rows take more time
// than any other step of a batch does. Those of requests that wait for the processor
// together are made side by side, in a third of the time. A request that comes alone does
// not wait for others.
type summer struct {
	mu      sync.Mutex
	waiting []*summing
	busy    bool // one of those that wait collects the others, or sums for them
	lanes   md5simd.Server
	hashers [sumLanes]md5simd.Hasher
}

const (
	// sumLanes is how many sums are made side by side, and sumLeast how many it takes to
	// gain by that.
	sumLanes, sumLeast = 8, 3
	// sumChunk is how much of a body is handed over at a time, and sumSize the size of
	// bodies for which that is worth while.
	sumChunk, sumSize = 32 << 10, 16 << 10
)

// A summing is a body whose sum is wanted.
type summing struct {
	body  []byte
	sum   [md5.Size]byte
	woken chan sumTurn
}

// A sumTurn is what one that waits is told.
type sumTurn int

const (
	sumDone  sumTurn = iota // its sum is made
	sumAlone                // to make its own
	sumLead                 // to sum for all that wait
)

// sum is the sum of a body. w is memory for it to use.
func (s *summer) sum(body []byte, w *summing) [md5.Size]byte {
	if len(body) < sumSize {
		return md5.Sum(body)
	}
	// The memory may come from another server's request, whose clock was its own; a
	// channel made in a test's bubble is of no use outside of it.
	w.body, w.woken = body, make(chan sumTurn, 1)
	s.mu.Lock()
	s.waiting = append(s.waiting, w)
	follows := s.busy
	s.busy = true
	s.mu.Unlock()
	if follows {
		switch <-w.woken {
		case sumDone:
			return w.sum
		case sumAlone:
			return md5.Sum(body)
		}
	} else {
		// Those that are ready to run come as far as here.
		runtime.Gosched()
	}

	s.mu.Lock()
	n := min(len(s.waiting), sumLanes)
	group := append(make([]*summing, 0, sumLanes), s.waiting[:n]...)
	s.waiting = append(s.waiting[:0], s.waiting[n:]...)
	if n < sumLeast {
		s.busy = false
	}
	s.mu.Unlock()
	if n < sumLeast {
		for _, other := range group[1:] {
			other.woken <- sumAlone
		}
		return md5.Sum(body)
	}
	s.sumAll(group)
	for _, other := range group[1:] {
		other.woken <- sumDone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy = len(s.waiting) > 0; s.busy {
		s.waiting[0].woken <- sumLead
	}
	return w.sum
}

// sumAll makes the sums of a group, for one caller at a time.
func (s *summer) sumAll(group []*summing) {
	if s.lanes == nil {
		s.lanes = md5simd.NewServer()
		for i := range s.hashers {
			s.hashers[i] = s.lanes.NewHash()
		}
	}
	longest := 0
	for i, w := range group {
		s.hashers[i].Reset()
		longest = max(longest, len(w.body))
	}
	for at := 0; at < longest; at += sumChunk {
		for i, w := range group {
			if at < len(w.body) {
				// It never fails.
				_, _ = s.hashers[i].Write(w.body[at:min(at+sumChunk, len(w.body))])
			}
		}
	}
	for i, w := range group {
		s.hashers[i].Sum(w.sum[:0])
	}
}

// close ends what makes sums. No request is served any more.
func (s *summer) close() {
	if s.lanes == nil {
		return
	}
	for _, h := range s.hashers {
		h.Close()
	}
	s.lanes.Close()
}
