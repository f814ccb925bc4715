// Package address opens the object store that an address names.
//
//	store, err := address.Open(ctx, "file:///srv/vault", address.Config{})
package address

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/bucket"
	"github.com/tablevault/tablevault/shared/object/dir"
	"github.com/tablevault/tablevault/shared/object/objectmeter"
	"github.com/tablevault/tablevault/shared/object/oss"
	"github.com/tablevault/tablevault/shared/object/s3"
)

// Config is what opening a store needs beside its address.
type Config struct {
	// Credentials are asked for before each request to a bucket of OSS, and S3 before each to one of S3, so that they can
	// change under way. What the address does not need may be nil.
	Credentials, S3 func(context.Context) (Credentials, error)
	// Meter, if given, counts what is asked of the store.
	Meter *objectmeter.Meter
}

// Credentials sign the requests to a bucket. Token is empty unless they are temporary.
type Credentials struct {
	ID, Secret, Token string
}

// Open opens the store at an address, of which the scheme says the kind:
//
//	file:///abs/path        a directory, see package dir
//	oss://bucket/prefix     a bucket of Alibaba Cloud OSS, see oss.Parse for its parameters
//	s3://bucket/prefix      a bucket of S3, see s3.Parse for its parameters
func Open(ctx context.Context, address string, config Config) (object.Store, error) {
	u, err := url.Parse(address)
	if err != nil {
		var cause *url.Error
		if errors.As(err, &cause) {
			err = cause.Err
		}
		return nil, fmt.Errorf("address of an object store %q: %w", address, err)
	}
	switch u.Scheme {
	case "file":
		path, err := path(u)
		if err != nil {
			return nil, fmt.Errorf("address of an object store %q: %w", address, err)
		}
		store, err := dir.Open(ctx, path)
		if err != nil {
			return nil, err
		}
		if config.Meter != nil {
			return config.Meter.Store(store), nil
		}
		return store, nil
	case "s3":
		c, err := s3.Parse(address)
		if err != nil {
			return nil, err
		}
		if config.S3 == nil {
			return nil, fmt.Errorf("address of an object store %q: no keys for S3 were given", address)
		}
		c.Cold, c.Transport = data, config.transport()
		c.Credentials = func(ctx context.Context) (s3.Credentials, error) {
			now, err := config.S3(ctx)
			return s3.Credentials(now), err
		}
		store, err := s3.Open(ctx, c)
		if err != nil {
			return nil, err
		}
		return store, nil
	case "oss":
		c, err := oss.Parse(address)
		if err != nil {
			return nil, err
		}
		if config.Credentials == nil {
			return nil, fmt.Errorf("address of an object store %q: no keys for OSS were given", address)
		}
		c.Cold, c.Transport = data, config.transport()
		c.Credentials = func(ctx context.Context) (oss.Credentials, error) {
			now, err := config.Credentials(ctx)
			return oss.Credentials(now), err
		}
		store, err := oss.Open(ctx, c)
		if err != nil {
			return nil, err
		}
		return store, nil
	case "":
		return nil, fmt.Errorf("address of an object store %q: no scheme; a directory is written file:///path", address)
	default:
		return nil, fmt.Errorf("address of an object store %q: unknown scheme %q; known are file, oss and s3", address, u.Scheme)
	}
}

// transport is how a bucket is reached.
func (c Config) transport() http.RoundTripper {
	if c.Meter == nil {
		return nil
	}
	return c.Meter.Transport(bucket.Transport())
}

// data reports whether an object of a vault is rows, which are most of its bytes and read in a restore only, and not one
// of the small documents that every run reads. A storage class with a price on reading is for them alone.
func data(name string) bool { return strings.Contains(name, "/shards/") }

// File returns the address of the directory with an absolute path.
func File(path string) string {
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(path)}).String()
}

// path returns the path of a file address.
func path(u *url.URL) (string, error) {
	switch {
	case u.Host != "" && u.Host != "localhost":
		return "", fmt.Errorf("it names the host %q; a directory of this machine is written with three slashes, file:///%s", u.Host, u.Host+u.Path)
	case u.User != nil:
		return "", errors.New("it has a user, which a directory has not")
	case u.RawQuery != "" || u.ForceQuery:
		return "", errors.New(`it has a query; a "?" in the path is written %3F`)
	case u.Fragment != "":
		return "", errors.New(`it has a fragment; a "#" in the path is written %23`)
	case u.Opaque != "" || !strings.HasPrefix(u.Path, "/"):
		return "", fmt.Errorf("its path is not absolute; write file:///%s if it begins at the root", u.Opaque)
	case strings.ContainsRune(u.Path, 0):
		return "", errors.New("its path has a zero byte")
	}
	return filepath.Clean(filepath.FromSlash(u.Path)), nil
}
