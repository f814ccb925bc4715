package oss

import (
	"context"
	"fmt"
	"time"
)

// OpenHurried is Open of a store that waits little between attempts.
func OpenHurried(ctx context.Context, c Config) (*Store, error) {
	s, err := New(c)
	if err != nil {
		return nil, err
	}
	if err := s.Hurry().probe(ctx); err != nil {
		return nil, fmt.Errorf("open %s: %w", s, err)
	}
	return s, nil
}

// Hurry makes a store wait little between attempts, and little for an answer.
func (s *Store) Hurry() *Store {
	s.retry.First, s.retry.Most, s.retry.Limit = time.Millisecond, 4*time.Millisecond, 5*time.Second
	return s
}

// Pages makes a store list so many names with each request.
func (s *Store) Pages(names int) { s.page = names }
