package table

import (
	"errors"
	"fmt"
)

// What a service may answer about a table, as conditions that callers test with
// errors.Is. The adapter's errors keep the service's own code and text.
var (
	ErrNotExist   = errors.New("the table does not exist")
	ErrExist      = errors.New("the table exists")
	ErrPermission = errors.New("permission denied")
	ErrAuth       = errors.New("the service refused the credentials")
	// ErrInvalid is a request that the service will refuse each time.
	ErrInvalid = errors.New("the service refused the request")
	// ErrUnavailable is a service that could not be reached, or did not do the work, for
	// as long as the caller's context let it be tried.
	ErrUnavailable = errors.New("the service is unavailable")
	// ErrThrottled is ErrUnavailable's sibling: the service is there, and the caller asks
	// too much of it.
	ErrThrottled = errors.New("the service is throttling")
	// ErrNoStream is a table whose change stream is off.
	ErrNoStream = errors.New("the table has no stream")
	// ErrStreamReplaced is a table whose change stream is another than the one that was
	// named: it was turned off and on again, or the table was made anew.
	ErrStreamReplaced = errors.New("the table has another stream")
	// ErrNoShard is a shard that a stream does not have, or does not show yet.
	ErrNoShard = errors.New("the stream has no such shard")
	// ErrTrimmed is a place in a shard behind which records are kept no longer. The
	// service may say the same of an iterator that is merely too old.
	ErrTrimmed = errors.New("the stream's records are trimmed")
	// ErrIterator is an iterator that the service takes for none.
	ErrIterator = errors.New("the stream's iterator is of no use")
)

// Invalidf is an error that matches ErrInvalid, and does not say of a service that it has
// refused what no service was asked.
func Invalidf(format string, args ...any) error { return &invalid{fmt.Errorf(format, args...)} }

type invalid struct{ err error }

func (e *invalid) Error() string   { return e.err.Error() }
func (e *invalid) Unwrap() []error { return []error{e.err, ErrInvalid} }
