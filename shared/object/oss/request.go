package oss

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"

	"github.com/aliyun/aliyun-oss-go-sdk/oss"

	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/object/bucket"
	"github.com/tablevault/tablevault/shared/retry"
)

// ErrExpired is matched by the error of a request whose security token has expired, and
// whose credentials were not renewed by the time it was tried again. Whoever has new ones
// can go on.
var ErrExpired = errors.New("the security token has expired")

// renewals is how often a request with a token that is not taken is tried, in case its
// credentials are just being renewed.
const renewals = 3

// Conditions of a bucket that are no conditions of the port.
var (
	errNoKeys = errors.New("there are no keys for OSS; set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, " +
		"and ALIBABA_CLOUD_SECURITY_TOKEN if they are temporary; a function gets them with its role")
	errNoUpload = errors.New("the upload is not there any more")
	errChecksum = errors.New("the store received other bytes than were sent")
)

// do makes a request, with the credentials of the moment, as often as it takes: see
// [bucket.Do]. name is the object that it is about, if it is about one that may be
// missing.
func (s *Store) do(ctx context.Context, name string, request func(context.Context, *oss.Bucket) error) (doubt bool, err error) {
	j := &judge{s: s, name: name}
	return bucket.Do(ctx, s.retry, j, func(ctx context.Context) error {
		b, now, err := s.handle(ctx)
		j.renewed, j.used = now != j.used, now
		if err != nil {
			return err
		}
		return request(ctx, b)
	})
}

// judge knows the errors of one request.
type judge struct {
	s       *Store
	name    string
	used    access.Key // with the last attempt
	renewed bool       // since the attempt before
}

var _ bucket.Judge = (*judge)(nil)

// stale reports whether a code is about credentials that may just have been replaced.
func stale(code string) bool {
	return code == "SecurityTokenExpired" || code == "InvalidSecurityToken" || code == "InvalidAccessKeyId"
}

// Judge gives a token that is not taken a few attempts, and more when it was renewed.
func (j *judge) Judge(err error, attempt int) retry.Verdict {
	if code, _ := codeOf(err); stale(code) && attempt >= renewals && !j.renewed {
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
	if errors.Is(err, errChecksum) {
		return retry.Again | retry.Doubt
	}
	if errors.Is(err, bucket.ErrRange) || errors.Is(err, bucket.ErrChanged) || errors.Is(err, ErrVersions) {
		return retry.Doubt
	}
	code, status := codeOf(err)
	switch code {
	case "RequestTimeout", "IncompleteBody", // the body did not come in time, or not whole
		"InvalidDigest", "BadDigest", // it changed on its way
		"TooManyRequests", "QpsLimitExceeded", "DownloadTrafficRateLimitExceeded", "UploadTrafficRateLimitExceeded", "SlowDown",
		"SecurityTokenExpired", "InvalidSecurityToken", "InvalidAccessKeyId": // the next request asks for credentials anew
		return retry.Again
	}
	return bucket.JudgeStatus(status)
}

// codeOf returns the store's own code of an error, if it has one, and the HTTP status,
// zero if there was no answer.
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

// Explain turns the last error of a request into what the port calls it, or into what to
// do about it.
func (j *judge) Explain(err error, attempts int) error {
	s, name := j.s, j.name
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
	case status == 0 && attempts > 1, status >= 500, errors.Is(err, errChecksum):
		return fmt.Errorf("%d attempts: %w", attempts, short)
	}
	return short
}

// where is the store, for people.
func (s *Store) where() string {
	return fmt.Sprintf("%s, region %s", s.config.Endpoint, s.config.Region)
}

// deniedError is that the role may not do what was asked.
type deniedError struct{ cause error }

func (e *deniedError) Error() string {
	return "the role may not do that: " + e.cause.Error()
}
func (e *deniedError) Is(target error) bool { return target == fs.ErrPermission }
func (e *deniedError) Unwrap() error        { return e.cause }

// Brief is what an error comes down to.
func (j *judge) Brief(err error) error { return brief(err) }

// brief is what an error of the SDK comes down to: the store's own words and the number
// of the request, or what broke.
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
		return bucket.Said(text+")", err)
	}
	var syntax *xml.SyntaxError
	if err == io.EOF || errors.As(err, &syntax) {
		return fmt.Errorf("the answer broke off: %w", io.ErrUnexpectedEOF)
	}
	return err
}
