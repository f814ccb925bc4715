package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/tablevault/tablevault/shared/object/bucket"
	"github.com/tablevault/tablevault/shared/retry"
)

// ErrExpired is matched by the error of a request whose session token has expired, and
// whose credentials were not renewed by the time it was tried again. Whoever has new ones
// can go on.
var ErrExpired = errors.New("the session token has expired")

// renewals is how often a request with an expired token is tried, in case its credentials
// are just being renewed.
const renewals = 3

// Conditions of a bucket that are no conditions of the port.
var (
	errNoKeys   = errors.New("there are no keys for S3; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN if they are temporary")
	errNoUpload = errors.New("the upload is not there any more")
)

// do makes a request as often as it takes: see [bucket.Do].
func (s *Store) do(ctx context.Context, request func(context.Context) error) (doubt bool, err error) {
	return bucket.Do(ctx, s.retry, judge{s}, request)
}

// judge knows the errors of a store.
type judge struct{ s *Store }

var _ bucket.Judge = judge{}

// expired reports whether a code says that the session token is too old.
func expired(code string) bool { return code == "ExpiredToken" || code == "ExpiredTokenException" }

// Judge gives an expired token a few attempts.
func (j judge) Judge(err error, attempt int) retry.Verdict {
	if code, _ := codeOf(err); expired(code) && attempt >= renewals {
		return 0
	}
	return judgeOne(err)
}

// judgeOne says what an error means by itself.
func judgeOne(err error) retry.Verdict {
	var refused *bucket.CredentialsError
	if errors.Is(err, errNoKeys) || errors.As(err, &refused) {
		return 0
	}
	if errors.Is(err, bucket.ErrRange) || errors.Is(err, bucket.ErrChanged) {
		return retry.Doubt
	}
	code, status := codeOf(err)
	switch code {
	case "ConditionalRequestConflict", "OperationAborted", // another request for the same name is under way
		"RequestTimeout",                                                                                           // the body did not come in time
		"RequestTimeTooSkewed",                                                                                     // the SDK corrects its clock by the answer
		"BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch", "InvalidDigest", "IncompleteBody", // it changed on its way
		"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "BandwidthLimitExceeded",
		"ExpiredToken", "ExpiredTokenException": // the next request asks for credentials anew
		return retry.Again
	}
	return bucket.JudgeStatus(status)
}

// codeOf returns the store's own code of an error, if it has one, and the HTTP status,
// zero if there was no answer.
func codeOf(err error) (code string, status int) {
	var api smithy.APIError
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	if answer := answerOf(err); answer != nil {
		status = answer.HTTPStatusCode()
	}
	return code, status
}

// answerOf is the answer that an error is about, nil if there was none.
func answerOf(err error) *awshttp.ResponseError {
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) && answer.Response != nil && answer.Response.Response != nil {
		return answer
	}
	return nil
}

// Explain turns the last error of a request into what the port calls it, or into what to
// do about it.
func (j judge) Explain(err error, attempts int) error {
	s := j.s
	code, status := codeOf(err)
	short := brief(err)
	if errors.Is(err, bucket.ErrRange) || errors.Is(err, bucket.ErrChanged) {
		return err
	}
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
	case status == 0 && attempts > 1, status >= 500:
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
	if answer := answerOf(err); answer != nil {
		if region := answer.Response.Header.Get("X-Amz-Bucket-Region"); region != "" {
			return fmt.Errorf("it is in %s, write region=%s: %w", region, region, short)
		}
	}
	return short
}

// Brief is what an error comes down to.
func (j judge) Brief(err error) error { return brief(err) }

// brief is what an error of the SDK comes down to: the store's own words and the number
// of the request, or what broke.
func brief(err error) error {
	var api smithy.APIError
	if answer := answerOf(err); answer != nil && errors.As(err, &api) {
		id := ""
		if answer.RequestID != "" {
			id = ", request " + answer.RequestID
		}
		message := api.ErrorMessage()
		if message != "" {
			message = ": " + strings.TrimSuffix(message, ".")
		}
		return bucket.Said(fmt.Sprintf("%s%s (status %d%s)", api.ErrorCode(), message, answer.HTTPStatusCode(), id), err)
	}
	var operation *smithy.OperationError
	if errors.As(err, &operation) && operation.Err != nil {
		return operation.Err
	}
	return err
}
