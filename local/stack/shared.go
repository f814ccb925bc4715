package stack

import (
	"io"
	"sync"
)

// Shared returns a writer to to for several goroutines, which write one at a time.
func Shared(to io.Writer) io.Writer { return &shared{to: to} }

type shared struct {
	mu sync.Mutex
	to io.Writer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.to.Write(p)
}
