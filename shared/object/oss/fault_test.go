package oss_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	local "github.com/tablevault/tablevault/local/oss"
	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/objecttest"
	"github.com/tablevault/tablevault/shared/object/oss"
)

// part is the length of the parts in these tests, the least that OSS takes, and long is a
// byte more than two.
const (
	part = 100 << 10
	long = 2*part + 1
)

// inParts is a store in the server's bucket that sends small parts.
func inParts(t testing.TB, server *local.Server, prefix string) oss.Config {
	t.Helper()
	c := configure(t, server, prefix, "")
	c.PartSize = part
	return c
}

// wantWhole fails if an object that the work creates is there with other content, or an
// upload is left.
func wantWhole(t *testing.T, server *local.Server, s *oss.Store, run string) {
	t.Helper()
	server.SetFault(nil)
	objecttest.Whole(t, s, run, long)
	wantNoUploads(t, server)
}

func wantNoUploads(t *testing.T, server *local.Server) {
	t.Helper()
	if n, err := server.Uploads("vault"); n != 0 || err != nil {
		t.Errorf("%d uploads are left behind, %v", n, err)
	}
}

// kinds are the faults.
func kinds() map[string]local.Fault {
	failed := &local.Error{Status: 500, Code: "InternalError", Message: "We encountered an internal error. Please try again."}
	busy := &local.Error{Status: 503, Code: "ServiceUnavailable", Message: "Please reduce your request rate."}
	return map[string]local.Fault{
		"expired token":     {Err: &local.Error{Status: 403, Code: "SecurityTokenExpired", Message: "The security token you provided has expired."}},
		"cut before":        {Cut: local.CutSilent},
		"cut after":         {Cut: local.CutSilent, After: true},
		"cut in the answer": {Cut: local.CutMiddle},
		"500 before":        {Err: failed},
		"500 after":         {Err: failed, After: true},
		"503 before":        {Err: busy},
		"503 after":         {Err: busy, After: true},
		"slow before":       {Delay: 5 * time.Millisecond},
		"slow after":        {Delay: 5 * time.Millisecond, After: true},
		"wrong checksum":    {WrongChecksum: true},
	}
}

// One fault at any request of any kind is made good: the work succeeds, what a call was
// told is so, and no part of an upload is left behind.
func TestOneFault(t *testing.T) {
	t.Parallel()
	server := serve(t, local.Config{}, local.BucketConfig{})
	s := open(t, inParts(t, server, "p")).Hurry()
	server.ResetCalls()
	if err := objecttest.Work(t.Context(), s, "first", long); err != nil {
		t.Fatal(err)
	}
	requests := server.Calls("")
	if requests < 15 {
		t.Fatalf("only %d requests are made", requests)
	}
	stride := 1
	if !objecttest.Full() {
		stride = 3
		t.Logf("every third request is struck; all are with TEST_STORES=full")
	}
	struck, want := 0, 0
	for name, fault := range kinds() {
		for at := rand.N(stride); at < requests; at += stride {
			want++
			run := fmt.Sprintf("%s at %d", name, at)
			var operation string
			server.ResetCalls()
			server.SetFault(func(r local.Request) *local.Fault {
				if r.Total != at {
					return nil
				}
				operation = r.Operation
				struck++
				return &fault
			})
			if err := objecttest.Work(t.Context(), s, run, long); err != nil {
				t.Errorf("%s, %s: %v", run, operation, err)
			}
			wantWhole(t, server, s, run)
		}
	}
	if struck != want || want < requests/stride*len(kinds()) {
		t.Errorf("%d faults struck, want %d", struck, want)
	}
}

// An operation that fails each time is told, by an error that is not that of a taken or a
// missing name; nothing is half there, no part is left behind, and the work can be done
// afterwards.
func TestLastingFault(t *testing.T) {
	t.Parallel()
	server := serve(t, local.Config{}, local.BucketConfig{})
	c := inParts(t, server, "p")
	var mu sync.Mutex // requests come side by side
	struck := map[string]bool{}
	for name, fault := range kinds() {
		for _, operation := range []string{"PutObject", "InitiateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "HeadObject", "GetObject", "ListObjectsV2", "DeleteObject"} {
			run := name + ", " + operation
			s := open(t, c).Hurry()
			server.SetFault(func(r local.Request) *local.Fault {
				if r.Operation != operation {
					return nil
				}
				mu.Lock()
				defer mu.Unlock()
				struck[operation] = true
				return &fault
			})
			err := objecttest.Work(t.Context(), s, run, long)
			switch {
			case err != nil && (strings.HasPrefix(err.Error(), "wrong") || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist)):
				t.Errorf("%s: %v", run, err)
			case err == nil && fault.Err != nil && operation != "PutObject" && operation != "CompleteMultipartUpload":
				// Those two, done and denied, are found by reading back.
				t.Errorf("%s was not told", run)
			}
			if name == "wrong checksum" && operation == "HeadObject" && (err == nil || !strings.Contains(err.Error(), "streamed were")) {
				t.Errorf("%s: %v", run, err)
			}
			wantWhole(t, server, s, run)
			if err := objecttest.Work(t.Context(), s, run+", again", long); err != nil {
				t.Errorf("after %s: %v", run, err)
			}
		}
	}
	if len(struck) != 8 {
		t.Errorf("only %v failed", struck)
	}
}

// A context that ends while a request hangs ends the call with its error, and the upload
// that was begun with it: the abort has a context of its own.
func TestContextEnds(t *testing.T) {
	t.Parallel()
	server := serve(t, local.Config{}, local.BucketConfig{})
	s := open(t, inParts(t, server, "")).Hurry()
	for i, operation := range []string{"PutObject", "InitiateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "HeadObject"} {
		for _, after := range []bool{false, true} {
			ctx, cancel := context.WithCancel(t.Context())
			server.SetFault(func(r local.Request) *local.Fault {
				if r.Operation != operation {
					return nil
				}
				cancel() // long before the answer
				return &local.Fault{Delay: 500 * time.Millisecond, After: after}
			})
			name := fmt.Sprintf("%d-%v", i, after)
			size := long
			if operation == "PutObject" {
				size = 100
			}
			_, err := s.Create(ctx, name, bytes.NewReader(objecttest.Content(name, size)))
			if !errors.Is(err, context.Canceled) || errors.Is(err, fs.ErrExist) {
				t.Errorf("%s: %v", operation, err)
			}
			server.SetFault(nil)
			// A request that hung may come to its end after the call.
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
				if n, _ := server.Uploads("vault"); n == 0 || time.Now().After(deadline) {
					break
				}
			}
			wantNoUploads(t, server)
			if got, err := object.ReadAll(t.Context(), s, name, long); err != nil && !errors.Is(err, fs.ErrNotExist) ||
				err == nil && !bytes.Equal(got, objecttest.Content(name, size)) {
				t.Errorf("%s: neither whole nor missing: %d bytes, %v", operation, len(got), err)
			}
			cancel()
		}
	}
}

// A clock that is off, a token that has expired and a role without rights are named as
// what they are, whatever request they are met in.
func TestRefusedEverywhere(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	skew := time.Duration(0)
	key := local.Key{ID: "STS.x", Secret: "s", Token: "t"}
	server := serve(t, local.Config{Keys: []local.Key{key}, Now: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return time.Now().Add(skew)
	}}, local.BucketConfig{})
	c := inParts(t, server, "")
	c.Credentials = keys(key.ID, key.Secret, key.Token)
	s := open(t, c).Hurry()
	content := objecttest.Content("there", long)
	if _, err := s.Create(t.Context(), "there", bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	denied := key
	denied.Deny = []string{"PutObject", "InitiateMultipartUpload", "GetObject", "HeadObject", "ListObjectsV2", "DeleteObject"}
	expired := key
	expired.Expires = time.Now().Add(-time.Minute)
	for name, c := range map[string]struct {
		set  func()
		want error
		text string
	}{
		"skew":    {func() { mu.Lock(); skew = 20 * time.Minute; mu.Unlock() }, nil, "clock is off"},
		"expired": {func() { server.SetKeys(expired) }, oss.ErrExpired, "has expired"},
		"denied":  {func() { server.SetKeys(denied) }, fs.ErrPermission, "may not do that"},
		"unknown": {func() { server.SetKeys() }, fs.ErrPermission, "does not know the access key"},
		"secret":  {func() { server.SetKeys(local.Key{ID: key.ID, Secret: "other", Token: "t"}) }, fs.ErrPermission, "the secret does not belong"},
	} {
		c.set()
		for doing, do := range map[string]func() error{
			"create small": func() error { _, err := s.Create(t.Context(), "new", strings.NewReader("x")); return err },
			"create long":  func() error { _, err := s.Create(t.Context(), "new", bytes.NewReader(content)); return err },
			"open":         func() error { _, _, err := s.Open(t.Context(), "there", 0, -1); return err },
			"stat":         func() error { _, err := object.Stat(t.Context(), s, "there"); return err },
			"list": func() error {
				for _, err := range s.List(t.Context(), "", "") {
					return err
				}
				return nil
			},
			"delete": func() error { return s.Delete(t.Context(), "there") },
		} {
			err := do()
			if err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), c.text) ||
				c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%s, %s: %v, want %q", name, doing, err, c.text)
			}
		}
		mu.Lock()
		skew = 0
		mu.Unlock()
		server.SetKeys(key)
	}
	if got, err := object.ReadAll(t.Context(), s, "there", long); err != nil || !bytes.Equal(got, content) {
		t.Errorf("afterwards: %d bytes, %v", len(got), err)
	}
	if _, err := object.Stat(t.Context(), s, "new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was refused: %v", err)
	}
	wantNoUploads(t, server)
}

// A token that ends in the middle of an upload ends it without a trace if there is no
// other, and is replaced if there is.
func TestTokenEndsUnderWay(t *testing.T) {
	t.Parallel()
	key := func(n int) local.Key {
		return local.Key{ID: fmt.Sprint("STS.", n), Secret: "s", Token: fmt.Sprint("t", n)}
	}
	for _, renewed := range []bool{false, true} {
		server := serve(t, local.Config{Keys: []local.Key{key(0)}}, local.BucketConfig{})
		var mu sync.Mutex
		current := 0
		c := inParts(t, server, "")
		c.Credentials = func(context.Context) (access.Key, error) {
			mu.Lock()
			defer mu.Unlock()
			k := key(current)
			return access.Key{ID: k.ID, Secret: k.Secret, Token: k.Token}, nil
		}
		s := open(t, c).Hurry()
		server.SetFault(func(r local.Request) *local.Fault {
			if r.Operation == "UploadPart" && r.N == 1 {
				old := key(0)
				old.Expires = time.Now().Add(-time.Second)
				server.SetKeys(old, key(1))
				if renewed {
					mu.Lock()
					current = 1
					mu.Unlock()
				}
			}
			return nil
		})
		content := objecttest.Content("long", 6*part)
		_, err := s.Create(t.Context(), "long", bytes.NewReader(content))
		if renewed {
			if err != nil {
				t.Errorf("with new credentials: %v", err)
			}
			if got, err := object.ReadAll(t.Context(), s, "long", 6*part); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			wantNoUploads(t, server)
			continue
		}
		// Nor can the upload be aborted without a token: that is told.
		if !errors.Is(err, oss.ErrExpired) || !strings.Contains(err.Error(), "may be left behind") {
			t.Errorf("without new credentials: %v", err)
		}
		mu.Lock()
		current = 1
		mu.Unlock()
		if _, err := object.Stat(t.Context(), s, "long"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the object: %v", err)
		}
		found := 0
		for u, err := range s.Unfinished(t.Context()) {
			if err != nil || u.Name != "long" || u.Begun.IsZero() {
				t.Fatalf("%+v, %v", u, err)
			}
			found++
			if err := s.Abort(t.Context(), u); err != nil {
				t.Error(err)
			}
		}
		if found != 1 {
			t.Errorf("%d unfinished uploads found", found)
		}
		wantNoUploads(t, server)
	}
}

// Of two writers of one name one wins, also with a body in parts.
func TestTwoWriters(t *testing.T) {
	t.Parallel()
	server := serve(t, local.Config{}, local.BucketConfig{})
	objecttest.TwoWriters(t, [2]object.Store{open(t, inParts(t, server, "")), open(t, inParts(t, server, ""))}, long)
	wantNoUploads(t, server)
}

// Also while connections are cut, before and after the work is done, at most one is told
// that it won, and then it did.
func TestTwoWritersBehindACutLine(t *testing.T) {
	t.Parallel()
	server := serve(t, local.Config{}, local.BucketConfig{})
	stores := []*oss.Store{open(t, inParts(t, server, "")).Hurry(), open(t, inParts(t, server, "")).Hurry()}
	server.SetFault(func(r local.Request) *local.Fault {
		switch r.Total % 5 {
		case 1:
			return &local.Fault{Cut: local.CutSilent, After: true}
		case 3:
			return &local.Fault{Cut: local.CutSilent}
		}
		return nil
	})
	won := 0
	for round := range 60 {
		name := fmt.Sprint("race/", round)
		size := 100
		if round%4 == 0 {
			size = part + 1
		}
		// Equal content: only whose it is tells the winner.
		content := objecttest.Content(name, size)
		errs := make([]error, 2)
		var both sync.WaitGroup
		for i := range 2 {
			both.Go(func() { _, errs[i] = stores[i].Create(t.Context(), name, bytes.NewReader(content)) })
		}
		both.Wait()
		if errs[0] == nil && errs[1] == nil {
			t.Fatalf("round %d: both won", round)
		}
		for _, err := range errs {
			if err == nil {
				won++
			}
		}
	}
	if won < 50 {
		t.Errorf("only %d of 60 races were won", won)
	}
	server.SetFault(nil)
	wantNoUploads(t, server)
}
