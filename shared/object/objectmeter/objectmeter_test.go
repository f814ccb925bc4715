package objectmeter_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/objectmeter"
	"github.com/tablevault/tablevault/shared/object/objecttest"
)

func TestStore(t *testing.T) {
	objecttest.Run(t, func(t *testing.T) object.Store { return objectmeter.New(&mem.Store{}) })
}

// Each call is counted where it belongs, failed or not, and bytes as far as they were
// asked for.
func TestUsage(t *testing.T) {
	inner := &mem.Store{}
	for i := range 2*objectmeter.Page + 1 {
		inner.Replace(fmt.Sprintf("page/%05d", i), nil)
	}
	s := objectmeter.New(inner)
	want := object.Usage{}
	check := func(doing string) {
		t.Helper()
		if got := s.Usage(); got != want {
			t.Errorf("after %s: %+v, want %+v", doing, got, want)
		}
	}
	check("nothing")

	for range 2 {
		s.Create(t.Context(), "a", strings.NewReader("12345678")) // the second is refused, having been read
	}
	want.Create, want.Written = 2, 16
	check("creating")

	r, _, err := s.Open(t.Context(), "a", 2, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 4)); err != nil {
		t.Error(err)
	}
	s.Open(t.Context(), "missing", 0, -1)
	want.Open, want.Read = 2, 4
	check("reading four bytes")

	if _, err := object.Stat(t.Context(), s, "a"); err != nil {
		t.Error(err)
	}
	want.Stat = 1
	check("Stat")

	for _, c := range []struct {
		prefix        string
		take          int
		names, expect int64
	}{
		{"nothing", -1, 0, 1},
		{"page/", 1, 1, 1},
		{"page/", objectmeter.Page, objectmeter.Page, 1},
		{"page/", objectmeter.Page + 1, objectmeter.Page + 1, 2},
		{"page/", -1, 2*objectmeter.Page + 1, 3},
		{"page/00", -1, objectmeter.Page, 1},
	} {
		names := int64(0)
		for _, err := range s.List(t.Context(), c.prefix, "") {
			if err != nil {
				t.Fatal(err)
			}
			if names++; names == int64(c.take) {
				break
			}
		}
		if names != c.names {
			t.Errorf("%d names, want %d", names, c.names)
		}
		want.List += c.expect
		check(fmt.Sprintf("listing %d names", names))
	}

	before := s.Usage()
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	want.Delete = 1
	check("deleting")
	if got, want := s.Usage().Sub(before), (object.Usage{Delete: 1}); got != want {
		t.Errorf("the delete alone: %+v, want %+v", got, want)
	}
}

// On the wire every request counts where it belongs, with the bytes of its content,
// whether of OSS or of S3.
func TestTransport(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/missing" {
			w.WriteHeader(http.StatusNotFound)
		}
		if r.Method != http.MethodHead {
			io.WriteString(w, "0123456789")
		}
	}))
	defer server.Close()
	for _, c := range []struct {
		method, path, body string
		want               object.Usage
	}{
		{"PUT", "/a", "1234", object.Usage{Create: 1, Written: 4}},
		{"POST", "/a?uploads", "", object.Usage{Create: 1}},
		{"PUT", "/a?partNumber=1&uploadId=u", "123", object.Usage{Create: 1, Written: 3}},
		{"POST", "/a?uploadId=u", "<xml/>", object.Usage{Create: 1, Written: 6}},
		{"DELETE", "/a?uploadId=u", "", object.Usage{Delete: 1}},
		{"DELETE", "/a?versionId=v", "", object.Usage{Delete: 1}},
		{"GET", "/a", "", object.Usage{Open: 1, Read: 10}},
		{"GET", "/missing", "", object.Usage{Open: 1}},
		{"HEAD", "/a", "", object.Usage{Stat: 1}},
		{"GET", "/a?uploadId=u", "", object.Usage{Stat: 1}},
		{"GET", "/?versioning", "", object.Usage{Stat: 1}},
		{"GET", "/?list-type=2&prefix=x", "", object.Usage{List: 1}},
		{"GET", "/?uploads&prefix=x", "", object.Usage{List: 1}},
		{"GET", "/?versions", "", object.Usage{List: 1}},
	} {
		var meter objectmeter.Meter
		client := &http.Client{Transport: meter.Transport(http.DefaultTransport)}
		r, err := http.NewRequestWithContext(t.Context(), c.method, server.URL+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		if got := meter.Usage(); got != c.want {
			t.Errorf("%s %s counts as %+v, want %+v", c.method, c.path, got, c.want)
		}
	}
}
