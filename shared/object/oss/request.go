package oss

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/aliyun/aliyun-oss-go-sdk/oss"
)

// retryPolicy says how often and how soon a request is tried again.
type retryPolicy struct {
	attempts    int
	first, most time.Duration // the first pause, which doubles up to the longest
	limit       time.Duration // of one attempt, but for those that read a body
}

var defaultRetry = retryPolicy{attempts: 8, first: 50 * time.Millisecond, most: 5 * time.Second, limit: 3 * time.Minute}

// ErrExpired is matched by the error of a request whose security token has expired, and whose credentials were not renewed
// by the time it was tried again. Whoever has new ones can go on.
var ErrExpired = errors.New("the security token has expired")

// renewals is how often a request with a token that is not taken is tried, in case its credentials are just being renewed.
const renewals = 3

// Conditions of a bucket that are no conditions of the port.
var (
	errNoKeys = errors.New("there are no keys for OSS; set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, " +
		"and ALIBABA_CLOUD_SECURITY_TOKEN if they are temporary; a function gets them with its role")
	errNoUpload = errors.New("the upload is not there any more")
	errRange    = errors.New("the store has nothing there")
	errChanged  = errors.New("the object is not what it was")
	errChecksum = errors.New("the store received other bytes than were sent")
)

// do makes a request, again as long as that may help, up to the policy's attempts and the end of ctx. The error matches
// the port's conditions; name is the object that the request is about, if it is about one that may be missing.
//
// doubt says that an attempt may have taken effect at the store although its answer did not say so. After an error the
// request may then have been done all the same, and after none it may have been done more than once.
func (s *Store) do(ctx context.Context, name string, request func(context.Context, *oss.Bucket) error) (doubt bool, err error) {
	pause := s.retry.first
	var used Credentials
	for attempt := 1; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return doubt, err
		}
		bucket, now, err := s.bucket(ctx)
		changed := attempt > 1 && now != used
		used = now
		if err == nil {
			err = s.try(ctx, bucket, request)
		}
		if err == nil {
			return doubt, nil
		}
		if cause := ctx.Err(); cause != nil {
			return true, fmt.Errorf("%w: %w", cause, brief(err))
		}
		again, reached := judge(err)
		doubt = doubt || reached
		if code, _ := codeOf(err); stale(code) && attempt >= renewals && !changed {
			again = false
		}
		if !again || attempt >= s.retry.attempts {
			return doubt, s.explain(name, err, attempt)
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
func (s *Store) try(ctx context.Context, bucket *oss.Bucket, request func(context.Context, *oss.Bucket) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.retry.limit)
	defer cancel()
	return request(ctx, bucket)
}

// stale reports whether a code is about credentials that may just have been replaced.
func stale(code string) bool {
	return code == "SecurityTokenExpired" || code == "InvalidSecurityToken" || code == "InvalidAccessKeyId"
}

// judge says whether a request that failed may be tried again, and whether it may have taken effect.
func judge(err error) (again, reached bool) {
	var refused *credentialsError
	if errors.Is(err, errNoKeys) || errors.As(err, &refused) {
		return false, false
	}
	if errors.Is(err, errChecksum) {
		return true, true
	}
	if errors.Is(err, errRange) || errors.Is(err, errChanged) || errors.Is(err, ErrVersions) {
		return false, true
	}
	code, status := codeOf(err)
	switch code {
	case "RequestTimeout", "IncompleteBody", // the body did not come in time, or not whole
		"InvalidDigest", "BadDigest", // it changed on its way
		"TooManyRequests", "QpsLimitExceeded", "DownloadTrafficRateLimitExceeded", "UploadTrafficRateLimitExceeded", "SlowDown",
		"SecurityTokenExpired", "InvalidSecurityToken", "InvalidAccessKeyId": // the next request asks for credentials anew
		return true, false
	}
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
		// There was no answer, or none that can be understood.
		return true, true
	}
}

// codeOf returns the store's own code of an error, if it has one, and the HTTP status, zero if there was no answer.
func codeOf(err error) (code string, status int) {
	var refused oss.ServiceError
	if errors.As(err, &refused) {
		return refused.Code, refused.StatusCode
	}
	var unexpected oss.UnexpectedStatusCodeError
	if errors.As(err, &unexpected) {
		return "", unexpected.Got()
	}
	return "", 0
}

// explain turns the last error of a request into what the port calls it, or into what to do about it.
func (s *Store) explain(name string, err error, attempts int) error {
	code, status := codeOf(err)
	short := brief(err)
	var refused oss.ServiceError
	errors.As(err, &refused)
	switch code {
	case "NoSuchKey", "SymlinkTargetNotExist":
		return fs.ErrNotExist
	case "NoSuchUpload":
		return errNoUpload
	case "FileAlreadyExists", "ObjectAlreadyExists":
		return fs.ErrExist
	case "FileImmutable":
		return fmt.Errorf("%w: the bucket's retention policy keeps it: %w", fs.ErrPermission, short)
	case "NoSuchBucket":
		return fmt.Errorf("there is no bucket %s at %s: %w", s.config.Bucket, s.where(), short)
	case "SecurityTokenExpired":
		return fmt.Errorf("%w: %w", ErrExpired, short)
	case "InvalidAccessKeyId", "InvalidSecurityToken":
		return fmt.Errorf("%w: the store does not know the access key: %w", fs.ErrPermission, short)
	case "SignatureDoesNotMatch":
		return fmt.Errorf("%w: the secret does not belong to the access key: %w", fs.ErrPermission, short)
	case "RequestTimeTooSkewed":
		return fmt.Errorf("this machine's clock is off by more than the 15 minutes that the store allows: %w", short)
	case "InvalidObjectState":
		return fmt.Errorf("it is archived, and has to be thawed before it can be read: %w", short)
	case "InvalidBucketName":
		return fmt.Errorf("the store takes no bucket %s: %w", s.config.Bucket, short)
	case "AccessDenied":
		if refused.Endpoint != "" {
			return fmt.Errorf("the bucket is not at %s; its endpoint is %s: %w", s.where(), refused.Endpoint, short)
		}
		return &deniedError{short}
	case "InvalidArgument":
		if strings.Contains(refused.Message, "region") {
			return fmt.Errorf("the bucket is not at %s: %w", s.where(), short)
		}
	}
	switch {
	case code == "" && status == http.StatusNotFound && name != "":
		return fs.ErrNotExist
	case code == "" && status == http.StatusForbidden:
		return &deniedError{short}
	case status >= 300 && status < 400:
		return fmt.Errorf("the bucket is not at %s: %w", s.where(), short)
	case status == 0 && attempts > 1, status >= 500:
		return fmt.Errorf("%d attempts: %w", attempts, short)
	case errors.Is(err, errChecksum):
		return fmt.Errorf("%d attempts: %w", attempts, short)
	}
	return short
}

// where is the store, for people.
func (s *Store) where() string {
	return fmt.Sprintf("%s, region %s", s.endpoint, s.config.Region)
}

// deniedError is that the role may not do what was asked.
type deniedError struct{ cause error }

func (e *deniedError) Error() string {
	return "the role may not do that: " + e.cause.Error()
}
func (e *deniedError) Is(target error) bool { return target == fs.ErrPermission }
func (e *deniedError) Unwrap() error        { return e.cause }

// brief is what an error of the SDK comes down to: the store's own words and the number of the request, or what broke.
func brief(err error) error {
	var refused oss.ServiceError
	if errors.As(err, &refused) {
		text := refused.Code
		if text == "" {
			text = http.StatusText(refused.StatusCode)
		}
		if refused.Message != "" {
			text += ": " + strings.TrimSuffix(refused.Message, ".")
		}
		text += fmt.Sprintf(" (status %d", refused.StatusCode)
		if refused.RequestID != "" {
			text += ", request " + refused.RequestID
		}
		return &storeError{text + ")", err}
	}
	var syntax *xml.SyntaxError
	if err == io.EOF || errors.As(err, &syntax) {
		return fmt.Errorf("the answer broke off: %w", io.ErrUnexpectedEOF)
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
