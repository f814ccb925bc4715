package s3_test

import (
	"testing"

	"github.com/tablevault/tablevault/local/s3"
)

// The server keeps buckets with and without locks, and versions where asked.
func TestServer(t *testing.T) {
	server := s3.RunT(t)
	for name, locking := range map[string]s3.Locking{"plain": s3.Plain, "locked": s3.Locked} {
		if err := server.CreateBucket(t.Context(), name, locking); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.SetVersioning(t.Context(), "plain", true); err != nil {
		t.Fatal(err)
	}
	if n, err := server.Uploads(t.Context(), "plain"); err != nil || n != 0 {
		t.Errorf("%d uploads, %v", n, err)
	}
}
