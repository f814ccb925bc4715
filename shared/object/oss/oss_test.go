package oss_test

import (
	"testing"

	local "github.com/tablevault/tablevault/local/oss"
	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/objecttest"
	"github.com/tablevault/tablevault/shared/object/oss"
)

// serve starts a server with a bucket named vault.
func serve(t testing.TB, c local.Config, b local.BucketConfig) *local.Server {
	t.Helper()
	server, err := local.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := server.CreateBucket("vault", b); err != nil {
		t.Fatal(err)
	}
	return server
}

// keys hands out a pair of the server's.
func keys(id, secret, token string) access.Provider {
	return access.Key{ID: id, Secret: secret, Token: token}.Provider()
}

// configure is how a prefix in the server's bucket is reached, changed by what stands in
// an address.
func configure(t testing.TB, server *local.Server, prefix, parameters string) oss.Config {
	t.Helper()
	c, err := oss.Parse(server.Address("vault", prefix) + parameters)
	if err != nil {
		t.Fatal(err)
	}
	c.Credentials = keys(local.DefaultKeyID, local.DefaultKeySecret, "")
	return c
}

func open(t testing.TB, c oss.Config) *oss.Store {
	t.Helper()
	s, err := oss.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The contract holds over the wire, with a prefix and without, in small parts and pages,
// too.
func TestStore(t *testing.T) {
	t.Parallel()
	t.Run("prefix", func(t *testing.T) {
		t.Parallel()
		objecttest.Run(t, func(t *testing.T) object.Store {
			s := open(t, configure(t, serve(t, local.Config{}, local.BucketConfig{}), "a prefix/é+%", "&part_size=1"))
			s.Pages(100)
			return objecttest.Limited(s, objecttest.Limits{Page: 100})
		})
	})
	t.Run("bucket", func(t *testing.T) {
		t.Parallel()
		objecttest.Run(t, func(t *testing.T) object.Store {
			return open(t, configure(t, serve(t, local.Config{}, local.BucketConfig{}), "", ""))
		})
	})
}
