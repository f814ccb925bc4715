// Package oss keeps immutable objects in a bucket of Alibaba Cloud OSS.
//
// A name is decided by the store: objects are put, and uploads completed, with
// x-oss-forbid-overwrite. What was stored is compared with what was streamed by asking
// the store for the object's size and its CRC-64, which OSS keeps of the whole object
// however many parts it came in.
//
//	config, err := oss.Parse("oss://bucket/prefix?region=cn-hangzhou")
//	config.Credentials = credentials
//	store, err := oss.Open(ctx, config)
//
// In a bucket with versions, also where they are suspended, OSS ignores
// x-oss-forbid-overwrite. So such a bucket is opened for reading only: Create and Delete
// return an error that matches [ErrVersions]. It is seen when the bucket is opened, and
// again in each answer about an object that was written.
//
// The role needs oss:GetBucketVersioning and oss:ListObjects on the bucket,
// oss:GetObject, oss:PutObject and oss:AbortMultipartUpload on the objects, and whoever
// deletes oss:DeleteObject. With oss:ListMultipartUploads on the bucket and oss:ListParts
// on the objects Create also finds an upload of its own of which the id was lost with an
// answer.
//
// An upload whose process is killed leaves its parts, for which the bucket's owner pays:
// [Store.Unfinished] finds them, and a lifecycle rule of the bucket
// (AbortMultipartUpload) removes them by itself.
package oss

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/aliyun/aliyun-oss-go-sdk/oss"

	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/bucket"
	"github.com/tablevault/tablevault/shared/object/multipart"
	"github.com/tablevault/tablevault/shared/retry"
)

// Config says which bucket, and how to keep objects there.
type Config struct {
	bucket.Address

	// Encryption is how new objects are encrypted by the store, AES256, KMS or SM4; empty
	// means the bucket's default.
	Encryption string
	// Cold says which objects are big and rarely read, and have the storage class. None
	// if it is nil.
	Cold func(name string) bool

	// Unread says which objects are created by a key that has no right to read them.
	// Asking about an object is reading it, to the service. What they hold is compared
	// with the checksum in the answer that the store has taken them, and as nobody else
	// may create one of their names, a name that is taken after an answer was lost is
	// this call's. None if it is nil.
	Unread func(name string) bool
	// RetentionDays is for how many days at least the bucket's retention policy, locked,
	// must keep objects from being deleted; otherwise the bucket is opened for reading
	// only. Zero means that it need have no policy.
	RetentionDays int

	// Credentials are asked for before every request, so they may change at any time.
	Credentials access.Provider
	// Transport carries the requests; nil means one of the store's own.
	Transport http.RoundTripper
}

// The values that Config takes. Objects of the archive classes can't be read before they
// are thawed.
var (
	storageClasses = []string{"Standard", "IA"}
	encryptions    = []string{"AES256", "KMS", "SM4"}
)

// bucketName is what OSS allows as the name of a bucket.
var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$`)

// Parse reads an address, oss://bucket/prefix with these parameters:
//
//	region          the bucket's region, such as cn-hangzhou, required
//	endpoint        the store, if it is not the region's public one: a host such as oss-cn-hangzhou-internal.aliyuncs.com,
//	                host:port, or with http:// before it, which is not encrypted
//	path_style      true or false; the default is false but for an endpoint that is an IP address or localhost
//	encryption      of new objects by the store: AES256, KMS or SM4
//	kms_key         id of the key for encryption=KMS, which it implies
//	storage_class   of the data objects: Standard or IA
//	retention       for how long, such as 30d, the bucket's locked retention policy must at least keep objects
//	part_size       of the parts in which objects are sent, in MiB: 5
//	parallel        parts that are sent at once: 4
//
// What else a Config has is left for the caller.
func Parse(address string) (Config, error) {
	var c Config
	a, err := bucket.Parse(address, "oss", "ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET", map[string]func(string) error{
		"encryption": func(v string) error { c.Encryption = v; return nil },
		"retention":  func(v string) (err error) { c.RetentionDays, err = bucket.Days(v, 25550); return err },
	})
	if c.Address = a; err == nil {
		if c.KMSKey != "" && c.Encryption == "" {
			c.Encryption = "KMS"
		}
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
	case !bucketName.MatchString(c.Bucket):
		return errors.New("what it names can't be the name of a bucket: want 3 to 63 lower case letters, digits and hyphens")
	case strings.HasPrefix(c.Region, "oss-"):
		return errors.New("its parameter region: want the region without oss-, such as cn-hangzhou")
	case c.StorageClass != "" && !slices.Contains(storageClasses, c.StorageClass):
		return errors.New("its parameter storage_class: want one that can be read at once, Standard or IA")
	case c.Encryption != "" && !slices.Contains(encryptions, c.Encryption):
		return errors.New("its parameter encryption: want AES256, KMS or SM4")
	case c.KMSKey != "" && c.Encryption != "KMS":
		return errors.New("its parameter kms_key goes with encryption=KMS, and not with another")
	}
	return c.Address.Check(maxKey, "cn-hangzhou")
}

// maxKey is the length of the longest key of an object in bytes.
const maxKey = 1023

// Store is a bucket.
type Store struct {
	config  Config
	prefix  string // of keys, ending with a slash unless it is empty
	http    *http.Client
	retry   retry.Policy
	uploads *multipart.Uploads
	page    int // names that one request lists

	readOnly error // what is in the way of Create and Delete, or nil
}

var _ object.Store = (*Store)(nil)

// ErrVersions is matched by the error about a bucket that keeps versions, in which OSS
// does not refuse to overwrite.
var ErrVersions = errors.New("the bucket has versions, enabled or suspended, and OSS does not refuse to overwrite in it; use a bucket in which versions were never enabled")

// Open opens a bucket, and asks it whether it keeps versions and, if the Config wants a
// retention policy, for that, so that whatever is wrong with bucket, region, endpoint or
// credentials is told at once. A bucket in which names can't be decided, or objects not
// kept, as they must be is opened all the same, since it may be needed for reading;
// Create and Delete then return what is in the way.
func Open(ctx context.Context, c Config) (*Store, error) {
	s, err := New(c)
	if err != nil {
		return nil, err
	}
	if err := s.probe(ctx); err != nil {
		return nil, fmt.Errorf("open %s: %w", s, err)
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
	if c.Endpoint == "" {
		c.Endpoint = "https://oss-" + c.Region + ".aliyuncs.com"
	}
	s := &Store{config: c, retry: bucket.DefaultRetry(), page: 1000,
		uploads: multipart.New(multipart.Config{PartSize: c.PartSize, Parallel: c.Parallel})}
	if c.Prefix != "" {
		s.prefix = c.Prefix + "/"
	}
	s.http = bucket.Client(c.Transport)
	return s, nil
}

// probe finds out what the bucket is like.
func (s *Store) probe(ctx context.Context) error {
	_, err := s.do(ctx, "", func(ctx context.Context, b *oss.Bucket) error {
		v, err := b.Client.GetBucketVersioning(s.config.Bucket, oss.WithContext(ctx))
		if err == nil && v.Status != "" {
			s.readOnly = fmt.Errorf("%w (versioning: %s)", ErrVersions, v.Status)
		}
		return err
	})
	var denied *deniedError
	if errors.As(err, &denied) {
		// Versions are seen in the answers to what is written, too, but by then it is
		// written.
		s.readOnly = fmt.Errorf("whether the bucket has versions is not told: allow oss:GetBucketVersioning on it: %w", err)
		err = nil
	}
	if err != nil || s.config.RetentionDays == 0 || s.readOnly != nil {
		return err
	}
	var policy oss.WormConfiguration
	_, err = s.do(ctx, "", func(ctx context.Context, b *oss.Bucket) (err error) {
		policy, err = b.Client.GetBucketWorm(s.config.Bucket, oss.WithContext(ctx))
		return err
	})
	const remedy = "lock one with `ossutil worm init` and `worm complete`, or take retention out of the address"
	switch code, _ := codeOf(err); {
	case code == "NoSuchWORMConfiguration":
		s.readOnly = fmt.Errorf("objects are to be kept for %d days, and the bucket has no retention policy; %s", s.config.RetentionDays, remedy)
	case err != nil:
		return fmt.Errorf("ask for its retention policy: %w", err)
	case policy.State != "Locked" || policy.RetentionPeriodInDays < s.config.RetentionDays:
		s.readOnly = fmt.Errorf("objects are to be kept for %d days, and the bucket's retention policy is for %d days and %s; %s",
			s.config.RetentionDays, policy.RetentionPeriodInDays, policy.State, remedy)
	}
	return nil
}

// String is the bucket and prefix.
func (s *Store) String() string {
	return "oss://" + strings.TrimSuffix(s.config.Bucket+"/"+s.prefix, "/")
}

// handle is the SDK's for one request, with the credentials of the moment. The SDK asks
// for credentials without a context, so it is given them.
func (s *Store) handle(ctx context.Context) (*oss.Bucket, access.Key, error) {
	now, err := s.config.Credentials(ctx)
	if err != nil {
		return nil, now, &bucket.CredentialsError{Cause: err}
	}
	if now.ID == "" || now.Secret == "" {
		return nil, now, errNoKeys
	}
	client, err := oss.New(s.config.Endpoint, now.ID, now.Secret, oss.SecurityToken(now.Token), oss.HTTPClient(s.http),
		oss.AuthVersion(oss.AuthV4), oss.Region(s.config.Region), oss.ForcePathStyle(s.config.PathStyle), oss.UserAgent("tablevault"),
		// Checksums are compared here, for the whole object, too.
		oss.EnableCRC(false), oss.EnableMD5(false))
	if err != nil {
		return nil, now, err
	}
	return &oss.Bucket{Client: *client, BucketName: s.config.Bucket}, now, nil
}

// key is the bucket's name of an object.
func (s *Store) key(name string) string { return s.prefix + name }
