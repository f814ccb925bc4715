package kv

import "sync"

// Memory returns a store that keeps everything in the process.
//
// A space is a tree of packed leaves without pointers, so that ten million small rows
// cost the garbage collector next to nothing and little more memory than their bytes.
// Readers of a space share a lock, its writer has it alone.
func Memory() Store {
	return &memory{spaces: map[string]*space{}}
}

type memory struct {
	mu     sync.RWMutex
	spaces map[string]*space
}

type space struct {
	mu   sync.RWMutex
	tree tree
}

func (m *memory) find(name string) *space {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.spaces[name]
}

func (m *memory) View(name string, fn func(Reader) error) error {
	s := m.find(name)
	if s == nil {
		return fn(&tree{})
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return fn(&s.tree)
}

func (m *memory) Update(name string, fn func(Writer) error) error {
	s := m.find(name)
	if s == nil {
		m.mu.Lock()
		if s = m.spaces[name]; s == nil {
			s = new(space)
			m.spaces[name] = s
		}
		m.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return fn(&s.tree)
}

func (m *memory) Drop(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.spaces, name)
	return nil
}

func (m *memory) Close() error { return nil }
