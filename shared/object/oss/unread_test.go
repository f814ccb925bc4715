package oss_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"

	local "github.com/tablevault/tablevault/local/oss"
	"github.com/tablevault/tablevault/shared/object"
)

// TestUnread creates objects with a key that may not read them, in one request and in
// parts, with one fault at each request in turn. It asks for nothing that it has no right
// to; what it is told is created is there as it was sent; and but for an answer that
// tells of other bytes it is made good.
func TestUnread(t *testing.T) {
	server := serve(t, local.Config{}, local.BucketConfig{})
	c := inParts(t, server, "p")
	owner := open(t, c)
	c.Unread = func(name string) bool { return strings.HasPrefix(name, "shards/") }
	s := open(t, c).Hurry()
	content := make([]byte, long)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	faults := kinds()
	faults["none"] = local.Fault{}
	for name, fault := range faults {
		for _, size := range []int{part / 2, long} {
			// Begin, three parts and the end, with a request more for each that is made
			// good.
			for at := range 6 {
				what := fmt.Sprintf("shards/%s/%d/%d", strings.ReplaceAll(name, " ", "-"), size, at)
				asked := false
				server.ResetCalls()
				server.SetFault(func(r local.Request) *local.Fault {
					if r.Operation == "HeadObject" || r.Operation == "GetObject" {
						asked = true
						return &local.Fault{Err: &local.Error{Status: 403, Code: "AccessDenied", Message: "no right to read"}}
					}
					if r.Total != at || name == "none" {
						return nil
					}
					return &fault
				})
				info, err := s.Create(t.Context(), what, bytes.NewReader(content[:size]))
				server.SetFault(nil)
				if asked {
					t.Errorf("%s is read", what)
				}
				if err != nil {
					if name != "wrong checksum" {
						t.Errorf("%s: %v", what, err)
					}
					continue
				}
				got, err := object.ReadAll(t.Context(), owner, what, long)
				is, serr := object.Stat(t.Context(), owner, what)
				if err != nil || serr != nil || !bytes.Equal(got, content[:size]) || info.Checksum != is.Checksum || info.Size != is.Size || info.Name != what {
					t.Errorf("%s: %+v, there is %+v, %v, %v", what, info, is, err, serr)
				}
				if _, err := s.Create(t.Context(), what, bytes.NewReader(content[:1])); !errors.Is(err, fs.ErrExist) {
					t.Errorf("%s is taken, and created again: %v", what, err)
				}
			}
		}
	}
	wantNoUploads(t, server)
}
