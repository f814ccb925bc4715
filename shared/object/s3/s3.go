// Package s3 keeps immutable objects in a bucket of S3, or of a store that speaks its protocol.
//
// A name is decided by the store: objects are put, and uploads completed, on the condition that there is none of the name
// (If-None-Match: *). What was stored is compared with what was streamed by asking the store for the object's size and
// its CRC-32C, which S3 keeps of the whole object however many parts it came in.
//
//	config, err := s3.Parse("s3://bucket/prefix?region=eu-central-1")
//	config.Credentials = credentials
//	store, err := s3.Open(ctx, config)
//
// The role needs s3:ListBucket on the bucket, without which S3 does not tell a missing object from a forbidden one,
// s3:GetObject, s3:PutObject and s3:AbortMultipartUpload on the objects, and whoever deletes s3:DeleteObject,
// s3:GetBucketVersioning, and in a bucket with versions s3:ListBucketVersions and s3:DeleteObjectVersion.
//
// An upload whose process is killed leaves its parts, for which the bucket's owner pays: [Store.Unfinished] finds them,
// and a lifecycle rule of the bucket (AbortIncompleteMultipartUpload) removes them by itself.
package s3

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/bucket"
	"github.com/tablevault/tablevault/shared/object/multipart"
)

// Credentials is an access key, with a session token if it is a temporary one.
type Credentials struct {
	ID, Secret, Token string
}

// Config says which bucket, and how to keep objects there.
type Config struct {
	// Bucket is the bucket's name, and Prefix what stands before every object's name, with no slash at either end. It
	// may be empty.
	Bucket, Prefix string
	// Region is the bucket's region.
	Region string
	// Endpoint is the address of the store, such as https://minio.example.com:9000; empty means Amazon's in the region.
	Endpoint string
	// PathStyle puts the bucket's name into the path and not before the endpoint's name.
	PathStyle bool

	// KMSKey is the id or ARN of the KMS key that new objects are encrypted with; empty means the bucket's default.
	KMSKey string
	// StorageClass is that of new objects for which Cold is true; empty means the bucket's default, STANDARD.
	StorageClass string
	// Cold says which objects are big and rarely read. None if it is nil.
	Cold func(name string) bool
	// Lock is the Object Lock mode of new objects, GOVERNANCE or COMPLIANCE, and Retain for how long it holds. Empty means
	// what the bucket does by default.
	Lock   string
	Retain time.Duration

	// Credentials are asked for with every request, so they may change at any time.
	Credentials func(context.Context) (Credentials, error)
	// Transport carries the requests; nil means one of the store's own.
	Transport http.RoundTripper
}

// storageClasses are those that can be read without being restored first.
var storageClasses = []types.StorageClass{
	types.StorageClassStandard, types.StorageClassStandardIa, types.StorageClassOnezoneIa,
	types.StorageClassIntelligentTiering, types.StorageClassGlacierIr,
}

// bucketName is what S3 allows as the name of a bucket.
var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// Parse reads an address, s3://bucket/prefix with these parameters:
//
//	region         the bucket's region, required
//	endpoint       the store, if it is not Amazon's: host, host:port, or with http:// before it, which is not encrypted
//	path_style     true or false; the default is true with an endpoint that is an IP address or localhost
//	kms_key        id or ARN of the KMS key that new objects are encrypted with
//	storage_class  of the data objects: STANDARD, STANDARD_IA, ONEZONE_IA, INTELLIGENT_TIERING or GLACIER_IR
//	lock           Object Lock of new objects, governance or compliance, for as long as
//	retain         says, in days: 30d
//
// The parameters of the Config that an address does not have are left for the caller.
func Parse(address string) (Config, error) {
	u, err := url.Parse(address)
	if err != nil {
		var cause *url.Error
		if errors.As(err, &cause) {
			err = cause.Err
		}
		return Config{}, fmt.Errorf("address of a bucket %q: %w", address, err)
	}
	c, err := parse(u)
	if err != nil {
		return Config{}, fmt.Errorf("address of a bucket %q: %w", address, err)
	}
	return c, nil
}

func parse(u *url.URL) (Config, error) {
	c := Config{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/")}
	switch {
	case u.Scheme != "s3":
		return c, fmt.Errorf("the scheme is %q, want s3://bucket/prefix?region=…", u.Scheme)
	case u.User != nil:
		return c, errors.New("keys do not belong in an address; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	case u.Fragment != "":
		return c, errors.New(`it has a fragment; a "#" in the prefix is written %23`)
	case u.Opaque != "" || c.Bucket == "":
		return c, errors.New("it names no bucket, want s3://bucket/prefix?region=…")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return c, fmt.Errorf("its parameters: %w", err)
	}
	pathStyle := ""
	known := map[string]func(string) error{
		"region":     func(v string) error { c.Region = v; return nil },
		"endpoint":   func(v string) (err error) { c.Endpoint, err = endpoint(v); return err },
		"path_style": func(v string) error { pathStyle = v; return nil },
		"kms_key":    func(v string) error { c.KMSKey = v; return nil },
		"storage_class": func(v string) error {
			c.StorageClass = v
			return nil
		},
		"lock":   func(v string) error { c.Lock = strings.ToUpper(v); return nil },
		"retain": func(v string) (err error) { c.Retain, err = days(v); return err },
	}
	for name, values := range query {
		set := known[name]
		switch {
		case set == nil:
			return c, fmt.Errorf("unknown parameter %q; known are endpoint, kms_key, lock, path_style, region, retain and storage_class", name)
		case len(values) > 1:
			return c, fmt.Errorf("the parameter %s stands there %d times", name, len(values))
		case values[0] == "":
			return c, fmt.Errorf("the parameter %s is empty", name)
		}
		if err := set(values[0]); err != nil {
			return c, fmt.Errorf("%s=%s: %w", name, values[0], err)
		}
	}
	switch pathStyle {
	case "":
		c.PathStyle = local(c.Endpoint)
	case "true", "false":
		c.PathStyle = pathStyle == "true"
	default:
		return c, fmt.Errorf("path_style=%s: want true or false", pathStyle)
	}
	return c, c.check()
}

// check finds what is wrong with a configuration by itself.
func (c Config) check() error {
	switch {
	case !bucketName.MatchString(c.Bucket) || strings.Contains(c.Bucket, "..") || net.ParseIP(c.Bucket) != nil:
		return fmt.Errorf("%q can't be the name of a bucket: 3 to 63 lower case letters, digits, dots and hyphens", c.Bucket)
	case c.Region == "":
		return errors.New("the region is missing; add ?region=, such as region=eu-central-1")
	case strings.ContainsAny(c.Region, "/ .:@?#"):
		return fmt.Errorf("region=%s: want a region's name such as eu-central-1", c.Region)
	case len(c.Prefix) > maxKey-object.MaxName-1:
		return fmt.Errorf("the prefix has %d bytes, at most %d are allowed", len(c.Prefix), maxKey-object.MaxName-1)
	case c.StorageClass != "" && !slices.Contains(storageClasses, types.StorageClass(c.StorageClass)):
		return fmt.Errorf("storage_class=%s: want one that can be read at once: %v", c.StorageClass, storageClasses)
	case c.Lock != "" && c.Lock != string(types.ObjectLockModeGovernance) && c.Lock != string(types.ObjectLockModeCompliance):
		return fmt.Errorf("lock=%s: want governance or compliance", strings.ToLower(c.Lock))
	case (c.Lock == "") != (c.Retain == 0):
		return errors.New("lock and retain go together, such as lock=compliance&retain=30d")
	case strings.Contains(c.Bucket, ".") && !c.PathStyle && !strings.HasPrefix(c.Endpoint, "http://"):
		return errors.New("a bucket with a dot in its name has no valid certificate of its own; add path_style=true")
	}
	if c.Prefix != "" {
		if err := object.ValidName(c.Prefix); err != nil {
			return fmt.Errorf("the prefix: %w", err)
		}
	}
	return nil
}

// maxKey is the length of the longest key of an object in bytes.
const maxKey = 1024

// endpoint completes and checks the address of a store.
func endpoint(v string) (string, error) {
	if !strings.Contains(v, "://") {
		v = "https://" + v
	}
	u, err := url.Parse(v)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" ||
		u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", errors.New("want a host, a host:port, or with http:// before it")
	}
	return u.Scheme + "://" + u.Host, nil
}

// local reports whether an endpoint's name can't have a bucket's name before it.
func local(endpoint string) bool {
	u, err := url.Parse(endpoint)
	return err == nil && (net.ParseIP(u.Hostname()) != nil || u.Hostname() == "localhost")
}

// days reads a number of days such as 30d.
func days(v string) (time.Duration, error) {
	number, ok := strings.CutSuffix(v, "d")
	n, err := strconv.Atoi(number)
	if !ok || err != nil || n < 1 || n > 36500 {
		return 0, errors.New("want a number of days from 1d to 36500d")
	}
	return time.Duration(n) * 24 * time.Hour, nil
}

// Store is a bucket.
type Store struct {
	config Config
	prefix string // of keys, ending with a slash unless it is empty
	client *s3.Client
	retry  retryPolicy

	uploads *multipart.Uploads
	page    int // names that one request lists

	mu        sync.Mutex
	versioned *bool // whether the bucket may keep versions, once it was asked
}

var _ object.Store = (*Store)(nil)

// Open opens a bucket, and asks it for the first name it lists, so that whatever is wrong with bucket, region, endpoint
// or credentials is told at once.
func Open(ctx context.Context, c Config) (*Store, error) {
	s, err := New(c)
	if err != nil {
		return nil, err
	}
	_, err = s.do(ctx, func(ctx context.Context) error {
		_, err := s.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &s.config.Bucket, Prefix: &s.prefix, MaxKeys: aws.Int32(1)})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", c.Bucket, err)
	}
	return s, nil
}

// New returns the store of a bucket, without asking it anything.
func New(c Config) (*Store, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("bucket %s: %w", c.Bucket, err)
	}
	if c.Credentials == nil {
		return nil, fmt.Errorf("bucket %s: no credentials", c.Bucket)
	}
	options := s3.Options{
		Region:       c.Region,
		UsePathStyle: c.PathStyle,
		Credentials:  aws.CredentialsProviderFunc(c.credentials),
		HTTPClient:   bucket.Client(c.Transport),
		// Each request is tried once here: what may be tried again is decided in one place, by do.
		Retryer: aws.NopRetryer{},
		// Checksums are given with each body, and compared for whole objects.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
		Logger:                     logging.Nop{},
	}
	if c.Endpoint != "" {
		options.BaseEndpoint = &c.Endpoint
	}
	if !strings.HasPrefix(c.Endpoint, "http://") {
		// TLS and the checksum guard the body already, so it is not hashed a third time for the signature.
		options.APIOptions = append(options.APIOptions, func(stack *middleware.Stack) error {
			if _, ok := stack.Finalize.Get("ComputePayloadHash"); !ok {
				return nil
			}
			return v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware(stack)
		})
	}
	s := &Store{config: c, client: s3.New(options), retry: defaultRetry, uploads: multipart.New(multipart.Config{}), page: 1000}
	if c.Prefix != "" {
		s.prefix = c.Prefix + "/"
	}
	return s, nil
}

// credentials are those of one request, as the SDK wants them.
func (c Config) credentials(ctx context.Context) (aws.Credentials, error) {
	now, err := c.Credentials(ctx)
	if err != nil {
		return aws.Credentials{}, &credentialsError{err}
	}
	if now.ID == "" || now.Secret == "" {
		return aws.Credentials{}, errNoKeys
	}
	return aws.Credentials{AccessKeyID: now.ID, SecretAccessKey: now.Secret, SessionToken: now.Token}, nil
}

// key is the bucket's name of an object.
func (s *Store) key(name string) *string {
	key := s.prefix + name
	return &key
}
