package table

import (
	"errors"
	"fmt"
)

// What a service may answer about a table, as conditions that callers test
// with errors.Is. The adapter's errors keep the service's own code and text.
var (
	ErrNotExist   = errors.New("the table does not exist")
	ErrExist      = errors.New("the table exists")
	ErrPermission = errors.New("permission denied")
	ErrAuth       = errors.New("the service refused the credentials")
	// ErrInvalid is a request that the service will refuse each time.
	ErrInvalid = errors.New("the service refused the request")
	// ErrUnavailable is a service that could not be reached, or did not do the
	// work, for as long as the caller's context let it be tried.
	ErrUnavailable = errors.New("the service is unavailable")
	// ErrThrottled is ErrUnavailable's sibling: the service is there, and the
	// caller asks too much of it.
	ErrThrottled = errors.New("the service is throttling")
)

// Invalidf is an error that matches ErrInvalid, and does not say of a service that it has
// refused what no service was asked.
func Invalidf(format string, args ...any) error { return &invalid{fmt.Errorf(format, args...)} }

type invalid struct{ err error }

func (e *invalid) Error() string   { return e.err.Error() }
func (e *invalid) Unwrap() []error { return []error{e.err, ErrInvalid} }
