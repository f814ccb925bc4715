package s3_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	local "github.com/tablevault/tablevault/local/s3"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/objecttest"
	"github.com/tablevault/tablevault/shared/object/s3"
)

// big is one byte more than a part.
const big = 5<<20 + 1

// eventuallyNoUploads fails if the server, which may still be working on a request that
// was cut, keeps an upload.
func eventuallyNoUploads(t *testing.T, server *local.Server) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		n, err := server.Uploads(t.Context(), "vault")
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%d uploads are left behind", n)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// One fault at any request of any kind is made good, or told: nothing is half there,
// nothing is created twice, and no part of an upload is left behind.
func TestOneFault(t *testing.T) {
	t.Parallel()
	server, config := bucket(t, local.Plain)
	direct := open(t, config)
	proxy := server.Proxy(t)
	config.Endpoint = proxy.URL
	store := open(t, config).Hurry()
	// What the store asks the bucket once, it has asked after the first run.
	for _, run := range []string{"first", "second"} {
		proxy.Set()
		if err := objecttest.Work(t.Context(), store, run, big); err != nil {
			t.Fatal(err)
		}
	}
	requests := proxy.Seen()
	stride := 1
	if !objecttest.Full() {
		stride = 4
		t.Logf("every fourth request is struck; all are with TEST_STORES=full")
	}
	t.Logf("%d requests", len(requests))
	if len(requests) < 15 {
		t.Fatalf("the work makes only %d requests: %q", len(requests), requests)
	}
	for _, kind := range []local.Kind{
		local.CutBefore, local.CutMidway, local.CutAfter, local.ErrorBefore, local.ErrorAfter, local.SlowDown, local.Slow, local.Expired,
		local.Skewed, local.WrongChecksum,
	} {
		t.Run(string(kind), func(t *testing.T) {
			fired := 0
			for call := rand.N(stride); ; call += stride {
				fault := &local.Fault{Kind: kind, Call: call}
				proxy.Set(fault)
				run := fmt.Sprintf("%s/%d", kind, call)
				err := objecttest.Work(t.Context(), store, run, big)
				seen := proxy.Seen()
				proxy.Set()
				if !fault.Reached() {
					break
				}
				fired += min(fault.Fired(), 1)
				told := err != nil && kind == local.WrongChecksum && strings.Contains(err.Error(), "checksum")
				if err != nil && !told {
					t.Errorf("%v, %s: %v", fault, seen[min(call, len(seen)-1)], err)
				}
				objecttest.Whole(t, direct, run, big)
				eventuallyNoUploads(t, server)
			}
			if least := map[local.Kind]int{local.WrongChecksum: 4, local.CutMidway: 6}[kind]; fired < max(least/stride, 1) || least == 0 && fired < len(requests)/stride {
				t.Errorf("only %d of %d requests were struck", fired, len(requests))
			}
		})
	}
}

// matching is requests of a method that do or do not have a parameter.
func matching(method, has, hasNot string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		q := r.URL.Query()
		return r.Method == method && (has == "" || q.Has(has)) && (hasNot == "" || !q.Has(hasNot))
	}
}

// A fault that stays is told as what it is, and what the server did all the same is found
// out.
func TestLastingFaults(t *testing.T) {
	t.Parallel()
	server, config := bucket(t, local.Plain)
	direct := open(t, config)
	proxy := server.Proxy(t)
	config.Endpoint = proxy.URL
	store := open(t, config).Hurry()
	put, begin := matching("PUT", "", "uploadId"), matching("POST", "uploads", "")
	part, complete := matching("PUT", "partNumber", ""), matching("POST", "uploadId", "")
	head, abort := matching("HEAD", "", ""), matching("DELETE", "uploadId", "")
	for i, c := range []struct {
		name  string
		size  int
		match func(*http.Request) bool
		kind  local.Kind
		is    error  // what the error matches
		says  string // and says; neither means that there is none
		there bool   // whether the object is
	}{
		{"put, never arrives", 10, put, local.CutBefore, nil, "4 attempts", false},
		{"put, breaks", 10, put, local.CutMidway, nil, "4 attempts", false},
		{"put, done and never answered", 10, put, local.CutAfter, nil, "", true},
		{"put, done and answered with an error", 10, put, local.ErrorAfter, nil, "", true},
		{"put, overload", 10, put, local.SlowDown, nil, "SlowDown", false},
		{"put, internal error", 10, put, local.ErrorBefore, nil, "InternalError", false},
		{"put, expired", 10, put, local.Expired, s3.ErrExpired, "", false},
		{"put, skewed", 10, put, local.Skewed, nil, "clock", false},
		{"begin, never arrives", big, begin, local.CutBefore, nil, "4 attempts", false},
		{"begin, done and never answered", big, begin, local.CutAfter, nil, "4 attempts", false},
		{"part, never arrives", big, part, local.CutBefore, nil, "4 attempts", false},
		{"part, breaks", big, part, local.CutMidway, nil, "4 attempts", false},
		{"part, done and never answered", big, part, local.CutAfter, nil, "4 attempts", false},
		{"part, expired", big, part, local.Expired, s3.ErrExpired, "", false},
		{"complete, never arrives", big, complete, local.CutBefore, nil, "4 attempts", false},
		{"complete, done and never answered", big, complete, local.CutAfter, nil, "", true},
		{"complete, done and answered with an error", big, complete, local.ErrorAfter, nil, "", true},
		{"complete, overload", big, complete, local.SlowDown, nil, "SlowDown", false},
		{"head, wrong checksum", 10, head, local.WrongChecksum, nil, "crc32c:00000000", true},
		{"head, wrong checksum of parts", big, head, local.WrongChecksum, nil, "crc32c:00000000", true},
		{"head, never answered", 10, head, local.CutAfter, nil, "the store took it", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := fmt.Sprintf("lasting/%d", i)
			content := objecttest.Content(name, c.size)
			fault := &local.Fault{Kind: c.kind, Call: local.Every, Match: c.match}
			proxy.Set(fault)
			_, err := store.Create(t.Context(), name, bytes.NewReader(content))
			proxy.Set()
			if fault.Fired() == 0 {
				t.Error("the fault did not strike")
			}
			switch good := c.is == nil && c.says == ""; {
			case good && err != nil:
				t.Errorf("Create: %v, want none", err)
			case good:
			case err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), name):
				t.Errorf("Create: %v, want an error of %s that matches %v and says %q", err, name, c.is, c.says)
			case errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission):
				t.Errorf("Create: %v, which it is not", err)
			}
			got, err := object.ReadAll(t.Context(), direct, name, big)
			if there := err == nil && bytes.Equal(got, content); there != c.there || !there && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("there are %d bytes, %v; want the object: %v", len(got), err, c.there)
			}
			eventuallyNoUploads(t, server)
		})
	}
	t.Run("abort, never arrives", func(t *testing.T) {
		proxy.Set(&local.Fault{Kind: local.ErrorBefore, Call: local.Every, Match: part}, &local.Fault{Kind: local.CutBefore, Call: local.Every, Match: abort})
		_, err := store.Create(t.Context(), "left", bytes.NewReader(objecttest.Content("left", big)))
		proxy.Set()
		if err == nil || !strings.Contains(err.Error(), "may be left behind") {
			t.Errorf("Create: %v, want it to say that parts may be left behind", err)
		}
		found := 0
		for upload, err := range direct.Unfinished(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if upload.Name != "left" || time.Since(upload.Begun) > time.Minute {
				t.Errorf("found %+v", upload)
			}
			for range 2 {
				if err := direct.Abort(t.Context(), upload); err != nil {
					t.Error(err)
				}
			}
			found++
		}
		if found != 1 {
			t.Errorf("%d unfinished uploads are found, want the one", found)
		}
		wantNoUploads(t, server)
	})
	t.Run("open, breaks", func(t *testing.T) {
		proxy.Set(&local.Fault{Kind: local.CutMidway, Call: local.Every, Match: func(r *http.Request) bool { return r.Method == "GET" }})
		defer proxy.Set()
		name := "lasting/2" // whole there: each stream gets half of what is left through
		got, err := object.ReadAll(t.Context(), store, name, 10)
		if err != nil || !bytes.Equal(got, objecttest.Content(name, 10)) {
			t.Errorf("ReadAll: %q, %v", got, err)
		}
	})
}
