package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
)

// retryPolicy says how often and how soon a request is tried again.
type retryPolicy struct {
	attempts    int
	first, most time.Duration // the first pause, which doubles up to the longest
	limit       time.Duration // of one attempt, but for those that read a body
}

var defaultRetry = retryPolicy{attempts: 8, first: 50 * time.Millisecond, most: 5 * time.Second, limit: 3 * time.Minute}

// ErrExpired is matched by the error of a request whose session token has expired, and whose credentials were not renewed
// by the time it was tried again. Whoever has new ones can go on.
var ErrExpired = errors.New("the session token has expired")

// renewals is how often a request with an expired token is tried, in case its credentials are just being renewed.
const renewals = 3

// Conditions of a bucket that are no conditions of the port.
var (
	errNoKeys   = errors.New("there are no keys for S3; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN if they are temporary")
	errNoUpload = errors.New("the upload is not there any more")
)

// do makes a request, again as long as that may help, up to the policy's attempts and the end of ctx. The error matches
// the port's conditions.
//
// doubt says that an attempt may have taken effect at the store although its answer did not say so. After an error the
// request may then have been done all the same, and after none it may have been done more than once.
func (s *Store) do(ctx context.Context, request func(context.Context) error) (doubt bool, err error) {
	pause := s.retry.first
	for attempt := 1; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return doubt, err
		}
		err := s.try(ctx, request)
		if err == nil {
			return doubt, nil
		}
		if cause := ctx.Err(); cause != nil {
			return true, fmt.Errorf("%w: %w", cause, brief(err))
		}
		again, reached := judge(err)
		doubt = doubt || reached
		if code, _ := codeOf(err); expired(code) && attempt >= renewals {
			again = false
		}
		if !again || attempt >= s.retry.attempts {
			return doubt, s.explain(err, attempt)
		}
		timer := time.NewTimer(pause/2 + rand.N(pause/2+1))
		select {
		case <-ctx.Done():
			timer.Stop()
			return doubt, fmt.Errorf("%w: %w", ctx.Err(), brief(err))
		case <-timer.C:
		}
		pause = min(2*pause, s.retry.most)
	}
}

// try makes a request once.
func (s *Store) try(ctx context.Context, request func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.retry.limit)
	defer cancel()
	return request(ctx)
}

// expired reports whether a code says that the session token is too old.
func expired(code string) bool { return code == "ExpiredToken" || code == "ExpiredTokenException" }

// judge says whether a request that failed may be tried again, and whether it may have taken effect.
func judge(err error) (again, reached bool) {
	if errors.Is(err, errNoKeys) {
		return false, false
	}
	var refused *credentialsError
	if errors.As(err, &refused) {
		return false, false
	}
	code, status := codeOf(err)
	switch code {
	case "ConditionalRequestConflict", "OperationAborted", // another request for the same name is under way
		"RequestTimeout",                                                                                           // the body did not come in time
		"RequestTimeTooSkewed",                                                                                     // the SDK corrects its clock by the answer
		"BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch", "InvalidDigest", "IncompleteBody", // it changed on its way
		"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "BandwidthLimitExceeded",
		"ExpiredToken", "ExpiredTokenException": // the next request asks for credentials anew
		return true, false
	}
	switch {
	case status == http.StatusTooManyRequests:
		return true, false
	case status == http.StatusNotImplemented:
		return false, false
	case status >= 500:
		return true, true
	case status >= 400 || status >= 300:
		return false, false
	default:
		// There was no answer, or none that can be understood.
		return true, true
	}
}

// codeOf returns the store's own code of an error, if it has one, and the HTTP status, zero if there was no answer.
func codeOf(err error) (code string, status int) {
	var api smithy.APIError
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) && answer.Response != nil && answer.Response.Response != nil {
		status = answer.HTTPStatusCode()
	}
	return code, status
}

// explain turns the last error of a request into what the port calls it, or into what to do about it.
func (s *Store) explain(err error, attempts int) error {
	code, status := codeOf(err)
	short := brief(err)
	switch code {
	case "NoSuchKey", "NotFound":
		return fs.ErrNotExist
	case "NoSuchUpload":
		return errNoUpload
	case "PreconditionFailed":
		return fs.ErrExist
	case "NoSuchBucket":
		return fmt.Errorf("there is no bucket %s at %s", s.config.Bucket, s.where())
	case "ExpiredToken", "ExpiredTokenException":
		return fmt.Errorf("%w: %w", ErrExpired, short)
	case "InvalidAccessKeyId", "InvalidToken", "InvalidClientTokenId", "UnrecognizedClientException",
		"XAdminUserNotFound": // versitygw's
		return fmt.Errorf("%w: the store does not know the access key: %w", fs.ErrPermission, short)
	case "SignatureDoesNotMatch":
		return fmt.Errorf("%w: the secret does not belong to the access key: %w", fs.ErrPermission, short)
	case "AccessDenied", "Forbidden", "AllAccessDisabled":
		return fmt.Errorf("%w: %w", fs.ErrPermission, short)
	case "RequestTimeTooSkewed":
		return fmt.Errorf("this machine's clock is off by more than the store allows: %w", short)
	case "AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException", "MovedPermanently", "TemporaryRedirect":
		return fmt.Errorf("the bucket is not in %s: %w", s.where(), elsewhere(err, short))
	case "ConditionalRequestConflict":
		return fmt.Errorf("others kept creating it at the same time: %w", short)
	case "BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch":
		return fmt.Errorf("the store received other bytes than were sent, %d times: %w", attempts, short)
	case "NotImplemented":
		return fmt.Errorf("the store can't do what a vault needs, conditional writes and full-object checksums: %w", short)
	case "KMS.NotFoundException", "KMS.DisabledException", "KMS.KMSInvalidStateException", "KMS.InvalidKeyUsageException":
		return fmt.Errorf("the KMS key %s can't be used: %w", s.config.KMSKey, short)
	}
	switch {
	case status == http.StatusPreconditionFailed:
		return fs.ErrExist
	case status == http.StatusForbidden:
		return fmt.Errorf("%w: %w", fs.ErrPermission, short)
	case status >= 300 && status < 400:
		return fmt.Errorf("the bucket is not in %s: %w", s.where(), elsewhere(err, short))
	case status == 0 && attempts > 1:
		return fmt.Errorf("%d attempts: %w", attempts, short)
	case status >= 500:
		return fmt.Errorf("%d attempts: %w", attempts, short)
	}
	return short
}

// where is the store, for people.
func (s *Store) where() string {
	if s.config.Endpoint != "" {
		return fmt.Sprintf("region %s of %s", s.config.Region, s.config.Endpoint)
	}
	return "region " + s.config.Region
}

// elsewhere adds the bucket's region, if the store told it.
func elsewhere(err, short error) error {
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) && answer.Response != nil && answer.Response.Response != nil {
		if region := answer.Response.Header.Get("X-Amz-Bucket-Region"); region != "" {
			return fmt.Errorf("it is in %s, write region=%s: %w", region, region, short)
		}
	}
	return short
}

// brief is what an error of the SDK comes down to: the store's own words and the number of the request, or what broke.
func brief(err error) error {
	var api smithy.APIError
	var answer *awshttp.ResponseError
	hasAnswer := errors.As(err, &answer) && answer.Response != nil && answer.Response.Response != nil
	if errors.As(err, &api) && hasAnswer {
		id := ""
		if answer.RequestID != "" {
			id = ", request " + answer.RequestID
		}
		message := api.ErrorMessage()
		if message != "" {
			message = ": " + strings.TrimSuffix(message, ".")
		}
		return &storeError{fmt.Sprintf("%s%s (status %d%s)", api.ErrorCode(), message, answer.HTTPStatusCode(), id), err}
	}
	var operation *smithy.OperationError
	if errors.As(err, &operation) && operation.Err != nil {
		return operation.Err
	}
	return err
}

// storeError says in few words what a store answered.
type storeError struct {
	text  string
	cause error
}

func (e *storeError) Error() string { return e.text }
func (e *storeError) Unwrap() error { return e.cause }

// credentialsError is that the credentials could not be had, which no second try mends.
type credentialsError struct{ cause error }

func (e *credentialsError) Error() string { return "credentials: " + e.cause.Error() }
func (e *credentialsError) Unwrap() error { return e.cause }
