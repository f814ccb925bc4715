package bucket

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

// Retry says how often and how soon a request is tried again.
type Retry struct {
	Attempts    int
	First, Most time.Duration // the first pause, which doubles up to the longest
	Limit       time.Duration // of one attempt, but for those that read a body
}

// DefaultRetry bridges some ten seconds of a store's silence.
func DefaultRetry() Retry {
	return Retry{Attempts: 8, First: 50 * time.Millisecond, Most: 5 * time.Second, Limit: 3 * time.Minute}
}

// Judge knows the errors of a store.
type Judge interface {
	// Judge says whether a request that failed may be tried again, the attempts being counted from 1 on, and whether it
	// may have taken effect.
	Judge(err error, attempt int) (again, reached bool)
	// Explain turns the last error of a request into what the port calls it, or into what to do about it.
	Explain(err error, attempts int) error
	// Brief says in few words what an error comes down to.
	Brief(err error) error
}

// Do makes a request, again as long as that may help, up to the policy's attempts and the end of ctx. The error is as the
// judge explains it, or matches that of ctx.
//
// doubt says that an attempt may have taken effect at the store although its answer did not say so. After an error the
// request may then have been done all the same, and after none it may have been done more than once.
func (r Retry) Do(ctx context.Context, j Judge, request func(context.Context) error) (doubt bool, err error) {
	pause := r.First
	for attempt := 1; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return doubt, err
		}
		err := r.try(ctx, request)
		if err == nil {
			return doubt, nil
		}
		if cause := ctx.Err(); cause != nil {
			return true, fmt.Errorf("%w: %w", cause, j.Brief(err))
		}
		again, reached := j.Judge(err, attempt)
		doubt = doubt || reached
		if !again || attempt >= r.Attempts {
			return doubt, j.Explain(err, attempt)
		}
		timer := time.NewTimer(pause/2 + rand.N(pause/2+1))
		select {
		case <-ctx.Done():
			timer.Stop()
			return doubt, fmt.Errorf("%w: %w", ctx.Err(), j.Brief(err))
		case <-timer.C:
		}
		pause = min(2*pause, r.Most)
	}
}

// try makes a request once.
func (r Retry) try(ctx context.Context, request func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, r.Limit)
	defer cancel()
	return request(ctx)
}

// JudgeStatus judges a request by the HTTP status of its answer alone, zero if there was no answer, or none that can be
// understood.
func JudgeStatus(status int) (again, reached bool) {
	switch {
	case status == http.StatusTooManyRequests:
		return true, false
	case status == http.StatusNotImplemented:
		return false, false
	case status >= 500:
		return true, true
	case status >= 300:
		return false, false
	default:
		return true, true
	}
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
