// Package functiontest invokes functions in tests as the platform does.
package functiontest

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aliyun/fc-runtime-go-sdk/fccontext"

	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/function"
)

// Role is a key of a function's role, whose secret and token tests look for where they
// must not stand.
var Role = access.Key{ID: "STS.role", Secret: "secret-of-the-role", Token: "token-of-the-role"}

// Call is one invocation.
type Call struct {
	// Verbs are the function's.
	Verbs function.Verbs
	// Environ is its environment, as function.ReadEnv reads it.
	Environ []string
	// Key is that of its role.
	Key access.Key
	// Request is the platform's id of the invocation.
	Request string
	Event   string
}

// Do invokes the function, which has a minute, and returns its answer, what it has
// logged, and its error.
func (c Call) Do(t testing.TB) (answer []byte, log string, err error) {
	t.Helper()
	env, err := function.ReadEnv(c.Environ)
	if err != nil {
		t.Fatal(err)
	}
	var lines bytes.Buffer
	s := &function.Server{Verbs: c.Verbs, Env: env, Log: &lines, Client: function.NewClient()}
	platform := &fccontext.FcContext{RequestID: c.Request, AccountId: env.Account, Region: env.Region}
	platform.Credentials = fccontext.Credentials{AccessKeyId: c.Key.ID, AccessKeySecret: c.Key.Secret, SecurityToken: c.Key.Token}
	ctx, cancel := context.WithTimeout(fccontext.NewContext(t.Context(), platform), time.Minute)
	defer cancel()
	answer, err = s.Invoke(ctx, []byte(c.Event))
	return answer, lines.String(), err
}

// Policy writes a policy, and returns the variable of a function's environment that names
// the file.
func Policy(t testing.TB, text string) (variable string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tablevault.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return "TABLEVAULT_POLICY=" + file
}

// Store is a server that counts who comes and has nothing for anybody, as the endpoint
// parameter of an object store's address.
func Store(t testing.TB) (endpoint string, came *atomic.Int32) {
	came = new(atomic.Int32)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		came.Add(1)
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(server.Close)
	return "endpoint=" + url.QueryEscape(server.URL), came
}
