// Package functiontest invokes functions in tests as the platform does.
package functiontest

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/aliyun/fc-runtime-go-sdk/fccontext"

	"github.com/tablevault/tablevault/shared/function"
)

// Role is a key of a function's role, whose secret and token tests look for where they
// must not stand.
var Role = function.Credentials{ID: "STS.role", Secret: "secret-of-the-role", Token: "token-of-the-role"}

// Call is one invocation.
type Call struct {
	// Verbs are the function's.
	Verbs function.Verbs
	// Environ is its environment, as function.ReadEnv reads it.
	Environ []string
	// Key is that of its role.
	Key function.Credentials
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
