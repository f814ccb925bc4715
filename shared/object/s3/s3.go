// Package s3 keeps immutable objects in a bucket of S3, or of a store that speaks its
// protocol.
//
// A name is decided by the store: objects are put, and uploads completed, on the
// condition that there is none of the name (If-None-Match: *). What was stored is
// compared with what was streamed by asking the store for the object's size and its
// CRC-32C, which S3 keeps of the whole object however many parts it came in.
//
//	config, err := s3.Parse("s3://bucket/prefix?region=eu-central-1")
//	config.Credentials = credentials
//	store, err := s3.Open(ctx, config)
//
// The role needs s3:ListBucket on the bucket, without which S3 does not tell a missing
// object from a forbidden one, s3:GetObject, s3:PutObject and s3:AbortMultipartUpload on
// the objects, and whoever deletes s3:DeleteObject, s3:GetBucketVersioning, and in a
// bucket with versions s3:ListBucketVersions and s3:DeleteObjectVersion. Whoever asks
// what protects the bucket needs s3:GetBucketVersioning and
// s3:GetBucketObjectLockConfiguration.
//
// An upload whose process is killed leaves its parts, for which the bucket's owner pays:
// [Store.Unfinished] finds them, and a lifecycle rule of the bucket
// (AbortIncompleteMultipartUpload) removes them by itself.
package s3

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"

	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/bucket"
	"github.com/tablevault/tablevault/shared/object/multipart"
	"github.com/tablevault/tablevault/shared/retry"
)

// Config says which bucket, and how to keep objects there.
type Config struct {
	bucket.Address

	// Cold says which objects are big and rarely read, and have the storage class. None
	// if it is nil.
	Cold func(name string) bool

	// Unread says which objects are created by a key that has no right to read them. The
	// store compares what they hold with the checksum that comes with them, and as nobody
	// else may create one of their names, a name that is taken after an answer was lost
	// is this call's. None if it is nil.
	Unread func(name string) bool
	// Lock is the Object Lock mode of new objects, GOVERNANCE or COMPLIANCE, and Retain
	// for how long it holds. Empty means what the bucket does by default.
	Lock   string
	Retain time.Duration

	// Credentials are asked for with every request, so they may change at any time.
	Credentials access.Provider
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
//	part_size      of the parts in which objects are sent, in MiB: 5, which is the least
//	parallel       parts that are sent at once: 4
//
// The parameters of the Config that an address does not have are left for the caller.
func Parse(address string) (Config, error) {
	var c Config
	a, err := bucket.Parse(address, "s3", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", map[string]func(string) error{
		"lock": func(v string) error { c.Lock = strings.ToUpper(v); return nil },
		"retain": func(v string) error {
			days, err := bucket.Days(v, 36500)
			c.Retain = time.Duration(days) * 24 * time.Hour
			return err
		},
	})
	if c.Address = a; err == nil {
		err = c.check()
	}
	if err != nil {
		return Config{}, fmt.Errorf("address of a bucket: %w", err)
	}
	return c, nil
}

// check finds what is wrong with a configuration by itself.
func (c Config) check() error {
	switch {
	case !bucketName.MatchString(c.Bucket) || strings.Contains(c.Bucket, "..") || net.ParseIP(c.Bucket) != nil:
		return errors.New("what it names can't be the name of a bucket: want 3 to 63 lower case letters, digits, dots and hyphens")
	case c.PartSize > 0 && c.PartSize < leastPart:
		return fmt.Errorf("part_size=%d: S3 takes parts of 5 MiB and more", c.PartSize>>20)
	case c.StorageClass != "" && !slices.Contains(storageClasses, types.StorageClass(c.StorageClass)):
		return fmt.Errorf("its parameter storage_class: want one that can be read at once: %v", storageClasses)
	case c.Lock != "" && c.Lock != string(types.ObjectLockModeGovernance) && c.Lock != string(types.ObjectLockModeCompliance):
		return errors.New("its parameter lock: want governance or compliance")
	case (c.Lock == "") != (c.Retain == 0):
		return errors.New("lock and retain go together, such as lock=compliance&retain=30d")
	case strings.Contains(c.Bucket, ".") && !c.PathStyle && !strings.HasPrefix(c.Endpoint, "http://"):
		return errors.New("a bucket with a dot in its name has no valid certificate of its own; add path_style=true")
	}
	return c.Address.Check(maxKey, "eu-central-1")
}

// maxKey is the length of the longest key of an object in bytes.
const maxKey = 1024

// leastPart is the length of the shortest part but the last in bytes.
const leastPart = 5 << 20

// Store is a bucket.
type Store struct {
	config Config
	prefix string // of keys, ending with a slash unless it is empty
	client *s3.Client
	retry  retry.Policy

	uploads *multipart.Uploads
	page    int // names that one request lists

	mu        sync.Mutex
	versioned *bool // whether the bucket may keep versions, once it was asked
}

var _ object.Store = (*Store)(nil)

// Open opens a bucket, and asks it for the first name it lists, so that whatever is wrong
// with bucket, region, endpoint or credentials is told at once.
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
		// Each request is tried once here: what may be tried again is decided in one
		// place, by do.
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
		// TLS and the checksum guard the body already, so it is not hashed a third time
		// for the signature.
		options.APIOptions = append(options.APIOptions, func(stack *middleware.Stack) error {
			if _, ok := stack.Finalize.Get("ComputePayloadHash"); !ok {
				return nil
			}
			return v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware(stack)
		})
	}
	s := &Store{config: c, client: s3.New(options), retry: bucket.DefaultRetry(), uploads: multipart.New(multipart.Config{PartSize: c.PartSize, Parallel: c.Parallel}), page: 1000}
	if c.Prefix != "" {
		s.prefix = c.Prefix + "/"
	}
	return s, nil
}

// credentials are those of one request, as the SDK wants them.
func (c Config) credentials(ctx context.Context) (aws.Credentials, error) {
	now, err := c.Credentials(ctx)
	if err != nil {
		return aws.Credentials{}, &bucket.CredentialsError{Cause: err}
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
