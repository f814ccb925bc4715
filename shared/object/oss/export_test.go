package oss

import "time"

// Hurry makes a store wait little between attempts, and little for an answer.
func (s *Store) Hurry() *Store {
	s.retry.First, s.retry.Most, s.retry.Limit = time.Millisecond, 4*time.Millisecond, 5*time.Second
	return s
}

// Pages makes a store list so many names with each request.
func (s *Store) Pages(names int) { s.page = names }
