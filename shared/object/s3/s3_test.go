package s3_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	local "github.com/tablevault/tablevault/local/s3"
	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/objecttest"
	"github.com/tablevault/tablevault/shared/object/s3"
)

// bucket starts a server with one bucket and returns how to open stores in it.
func bucket(t *testing.T, locking local.Locking) (*local.Server, s3.Config) {
	t.Helper()
	server := local.RunT(t)
	if err := server.CreateBucket(t.Context(), "vault", locking); err != nil {
		t.Fatal(err)
	}
	config, err := s3.Parse("s3://vault?region=" + local.Region + "&endpoint=" + server.URL)
	if err != nil {
		t.Fatal(err)
	}
	config.Credentials = access.Key{ID: server.KeyID, Secret: server.Secret}.Provider()
	return server, config
}

func open(t *testing.T, c s3.Config) *s3.Store {
	t.Helper()
	store, err := s3.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func wantNoUploads(t *testing.T, server *local.Server) {
	t.Helper()
	if n, err := server.Uploads(t.Context(), "vault"); err != nil || n != 0 {
		t.Errorf("%d uploads are left behind, %v", n, err)
	}
}

// The store keeps the port's promises over the wire, in a plain bucket and in one with
// versions.
func TestStore(t *testing.T) {
	for name, locking := range map[string]local.Locking{"plain": local.Plain, "with versions": local.Locked} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if locking == local.Locked && !objecttest.Full() {
				t.Skip("with versions: with TEST_STORES=full")
			}
			server, config := bucket(t, locking)
			config.Transport = patient{http.DefaultTransport.(*http.Transport).Clone()}
			stores := 0
			objecttest.Run(t, func(t *testing.T) object.Store {
				stores++
				c := config
				c.Prefix = fmt.Sprintf("prefix %d/é", stores)
				store, limits := open(t, c), objecttest.Limits{Element: 255}
				if !objecttest.Full() {
					limits.Page = 100
					store.Pages(limits.Page)
				}
				return objecttest.Limited(store, limits)
			})
			wantNoUploads(t, server)
		})
	}
}

// patient sends a request again that the server refuses since a folder was just deleted
// in which it was to put a file, which a bucket, having no folders, does not do.
type patient struct{ http.RoundTripper }

func (p patient) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	small := r.Body != nil && r.ContentLength > 0 && r.ContentLength < 1<<20
	if small {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		r.Body.Close()
	}
	for tries := 0; ; tries++ {
		if small {
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		answer, err := p.RoundTripper.RoundTrip(r)
		if err != nil || answer.StatusCode != http.StatusConflict || tries == 20 || r.ContentLength > 0 && !small {
			return answer, err
		}
		said, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		answer.Body = io.NopCloser(bytes.NewReader(said))
		if err != nil || !bytes.Contains(said, []byte("<Code>ExistingObjectIsDirectory</Code>")) {
			return answer, err
		}
		time.Sleep(time.Millisecond)
	}
}
