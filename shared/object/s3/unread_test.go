package s3_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	local "github.com/tablevault/tablevault/local/s3"
	"github.com/tablevault/tablevault/shared/object"
)

// unreading notes what is asked of the objects under a prefix, and loses the answer of
// one request that changes them.
type unreading struct {
	http.RoundTripper
	prefix string
	lost   int // the number of the request whose answer is lost
	n      int
	reads  []string
}

func (u *unreading) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.Contains(r.URL.Path, u.prefix) {
		return u.RoundTripper.RoundTrip(r)
	}
	if (r.Method == http.MethodHead || r.Method == http.MethodGet) && !r.URL.Query().Has("uploadId") {
		u.reads = append(u.reads, r.Method+" "+r.URL.String())
	}
	answer, err := u.RoundTripper.RoundTrip(r)
	u.n++
	if err == nil && u.n-1 == u.lost {
		answer.Body.Close()
		return nil, errors.New("the test's hand: the answer is lost")
	}
	return answer, err
}

// TestUnread creates objects with a key that may not read them, in one request and in
// parts, and loses the answer of each request in turn: what it is told is created is
// there as it was sent, and nothing was asked for that it has no right to.
func TestUnread(t *testing.T) {
	const part = 5 << 20
	server, config := bucket(t, local.Plain)
	owner := open(t, config)
	content := bytes.Repeat([]byte("shard "), part/4)
	wire := &unreading{RoundTripper: http.DefaultTransport.(*http.Transport).Clone(), prefix: "/shards/"}
	config.Transport = wire
	config.Unread = func(name string) bool { return strings.HasPrefix(name, "shards/") }
	s := open(t, config).Hurry()
	for _, size := range []int{10, len(content)} {
		for lost := -1; lost < 5; lost++ {
			name := fmt.Sprintf("shards/%d/%d", size, lost+1)
			wire.lost, wire.n = lost, 0
			info, err := s.Create(t.Context(), name, bytes.NewReader(content[:size]))
			wire.lost = -1
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			got, err := object.ReadAll(t.Context(), owner, name, int64(len(content)))
			is, serr := object.Stat(t.Context(), owner, name)
			if err != nil || serr != nil || !bytes.Equal(got, content[:size]) || info.Checksum != is.Checksum || info.Size != is.Size {
				t.Errorf("%s: %+v, there is %+v, %v, %v", name, info, is, err, serr)
			}
			if _, err := s.Create(t.Context(), name, bytes.NewReader(content[:1])); !errors.Is(err, fs.ErrExist) {
				t.Errorf("%s is taken, and created again: %v", name, err)
			}
		}
	}
	if len(wire.reads) > 0 {
		t.Errorf("it was read: %v", wire.reads)
	}
	wantNoUploads(t, server)
}
