package s3

import "time"

// Hurry makes a store try again soon, and not often.
func (s *Store) Hurry() *Store {
	s.retry = retryPolicy{attempts: 4, first: time.Millisecond, most: 4 * time.Millisecond, limit: 10 * time.Second}
	return s
}

// Pages makes a store list so many names with each request.
func (s *Store) Pages(names int) { s.page = names }
