// Package otstest runs local Tablestores for tests.
package otstest

import (
	"testing"

	"github.com/tablevault/tablevault/local/ots"
)

// Run starts a server on a port of its own, which is closed when the test ends.
func Run(t testing.TB, config ots.Config) *ots.Server {
	t.Helper()
	return open(t, ots.Start, config)
}

// New returns a server without a network, which is closed when the test ends: it is
// called as a handler, or is a client's transport.
func New(t testing.TB, config ots.Config) *ots.Server {
	t.Helper()
	return open(t, ots.New, config)
}

func open(t testing.TB, with func(ots.Config) (*ots.Server, error), config ots.Config) *ots.Server {
	t.Helper()
	s, err := with(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
