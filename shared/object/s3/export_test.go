package s3

import (
	"time"

	"github.com/tablevault/tablevault/shared/retry"
)

// Hurry makes a store try again soon, and not often.
func (s *Store) Hurry() *Store {
	s.retry = retry.Policy{Attempts: 4, First: time.Millisecond, Most: 4 * time.Millisecond, Limit: 10 * time.Second}
	return s
}

// Pages makes a store list so many names with each request.
func (s *Store) Pages(names int) { s.page = names }
