package table

import "errors"

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
