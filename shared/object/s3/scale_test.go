package s3_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	local "github.com/tablevault/tablevault/local/s3"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/objecttest"
)

// Of two writers of one name one wins, also with a body in parts.
func TestTwoWriters(t *testing.T) {
	t.Parallel()
	server, config := bucket(t, local.Plain)
	objecttest.TwoWriters(t, [2]object.Store{open(t, config), open(t, config)}, big)
	wantNoUploads(t, server)
}

// An answer that others are just creating the same name is tried again, in one request
// and in parts.
func TestConflict(t *testing.T) {
	t.Parallel()
	server, config := bucket(t, local.Plain)
	proxy := server.Proxy(t)
	config.Endpoint = proxy.URL
	store := open(t, config).Hurry()
	for _, c := range []struct {
		size  int
		match func(*http.Request) bool
	}{{10, matching("PUT", "", "uploadId")}, {big, matching("POST", "uploadId", "")}} {
		fault := &local.Fault{Kind: local.Conflict, Call: 0, Match: c.match}
		proxy.Set(fault)
		name := fmt.Sprint("conflict/", c.size)
		if _, err := store.Create(t.Context(), name, strings.NewReader(strings.Repeat("x", c.size))); err != nil || fault.Fired() != 1 {
			t.Errorf("Create of %d bytes after %d conflicts: %v", c.size, fault.Fired(), err)
		}
		proxy.Set(&local.Fault{Kind: local.Conflict, Call: local.Every, Match: c.match})
		_, err := store.Create(t.Context(), name+"/always", strings.NewReader(strings.Repeat("x", c.size)))
		if err == nil || errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "others kept creating it") {
			t.Errorf("Create of %d bytes with conflicts only: %v", c.size, err)
		}
		proxy.Set()
	}
	eventuallyNoUploads(t, server)
}

// Streaming takes no more memory for two gigabytes than for ten parts.
func TestMemory(t *testing.T) {
	_, config := bucket(t, local.Plain)
	objecttest.Memory(t, open(t, config), 64<<20)
}
