package bucket

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/tablevault/tablevault/shared/retry"
)

// DefaultRetry bridges some ten seconds of a store's silence. The time of one attempt is
// not that of reading a body.
func DefaultRetry() retry.Policy {
	return retry.Policy{Attempts: 8, First: 50 * time.Millisecond, Most: 5 * time.Second, Limit: 3 * time.Minute}
}

// Judge knows the errors of a store.
type Judge interface {
	// Judge says what the error of a request means, the attempts being counted from 1 on.
	Judge(err error, attempt int) retry.Verdict
	// Explain turns the last error of a request into what the port calls it, or into what
	// to do about it.
	Explain(err error, attempts int) error
	// Brief says in few words what an error comes down to.
	Brief(err error) error
}

// Do makes a request, again as long as that may help, up to the policy's attempts and the
// end of ctx. The error is as the judge explains it, or matches that of ctx.
//
// doubt says that an attempt may have taken effect at the store although its answer did
// not say so. After an error the request may then have been done all the same, and after
// none it may have been done more than once.
func Do(ctx context.Context, p retry.Policy, j Judge, request func(context.Context) error) (doubt bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	call := retry.Call{Policy: p, Judge: j.Judge}
	end := call.Do(ctx, request)
	switch {
	case end.Stopped != nil:
		err = fmt.Errorf("%w: %w", end.Stopped, j.Brief(end.Err))
	case end.Err != nil:
		err = j.Explain(end.Err, end.Attempts)
	}
	return end.Doubt, err
}

// JudgeStatus judges a request by the HTTP status of its answer alone, zero if there was
// no answer, or none that can be understood.
func JudgeStatus(status int) retry.Verdict {
	switch {
	case status == http.StatusTooManyRequests:
		return retry.Again
	case status >= 300 && status < 500, status == http.StatusNotImplemented:
		return 0
	}
	return retry.Again | retry.Doubt
}

// Said is an error in a store's own words, with the one that carried them.
func Said(words string, err error) error { return &said{words, err} }

type said struct {
	words string
	err   error
}

func (e *said) Error() string { return e.words }
func (e *said) Unwrap() error { return e.err }

// CredentialsError is that the credentials could not be had, which no second try mends.
type CredentialsError struct{ Cause error }

func (e *CredentialsError) Error() string { return "credentials: " + e.Cause.Error() }
func (e *CredentialsError) Unwrap() error { return e.Cause }
