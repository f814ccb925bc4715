package table

import "sync"

// The bounds of a page's buffer. The service sends at most 4 MB of values and names in a
// page, and the scan asks for fewer rows if they do not fit. A single cell must: the
// largest is 2 MiB, beside its name and its row's key.
const (
	MinPage = 2<<20 + 64<<10
	MaxPage = 4 << 20
)

// Pages keeps the buffers of pages. A sync.Pool would free them at each garbage
// collection, and new ones would have to be cleared.
type Pages struct {
	mu   sync.Mutex
	free [][]byte
}

// Get returns a buffer of at most size bytes, and at least MinPage: the memory for pages
// is shared anew by those who read at a time, and what they had before serves as well as
// long as it does not exceed a share. Buffers that do are dropped.
func (p *Pages) Get(size int) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.free) > 0 {
		last := len(p.free) - 1
		b := p.free[last]
		p.free[last], p.free = nil, p.free[:last]
		if cap(b) <= size {
			return b
		}
	}
	return make([]byte, 0, size)
}

// Put takes a buffer back.
func (p *Pages) Put(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, b[:0])
}
