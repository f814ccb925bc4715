// Package address opens the object store that an address names.
//
//	store, err := address.Open(ctx, "file:///srv/objects", address.Config{})
package address

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"

	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/bucket"
	"github.com/tablevault/tablevault/shared/object/dir"
	"github.com/tablevault/tablevault/shared/object/objectmeter"
	"github.com/tablevault/tablevault/shared/object/oss"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/object/s3"
)

// Config is what opening a store needs beside its address.
type Config struct {
	// Credentials are asked for before each request to a bucket of OSS, and S3 before
	// each to one of S3, so that they can change under way. What the address does not
	// need may be nil.
	Credentials, S3 access.Provider
	// Meter, if given, counts what is asked of the store.
	Meter *objectmeter.Meter
	// Cold says which objects of a bucket are big and rarely read: the storage class of
	// the address is for them alone. Unread says which are created by a key that has no
	// right to read them. Nil means none.
	Cold, Unread func(name string) bool
}

// Open opens the store at an address, of which the scheme says the kind:
//
//	file:///abs/path        a directory, see package dir
//	oss://bucket/prefix     a bucket of Alibaba Cloud OSS, see oss.Parse for its parameters
//	s3://bucket/prefix      a bucket of S3, see s3.Parse for its parameters
func Open(ctx context.Context, address string, config Config) (object.Store, error) {
	at, err := place.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("address of an object store: %w", err)
	}
	switch at.Scheme {
	case "file":
		folder := filepath.FromSlash(at.Path)
		if err := alone(folder); err != nil {
			return nil, fmt.Errorf("open %s: %w", at, err)
		}
		store, err := dir.Open(ctx, folder)
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
			return nil, fmt.Errorf("open %s: no keys for S3 were given", at)
		}
		c.Cold, c.Unread, c.Transport = config.Cold, config.Unread, config.transport()
		c.Credentials = config.S3
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
			return nil, fmt.Errorf("open %s: no keys for OSS were given", at)
		}
		c.Cold, c.Unread, c.Transport = config.Cold, config.Unread, config.transport()
		c.Credentials = config.Credentials
		store, err := oss.Open(ctx, c)
		if err != nil {
			return nil, err
		}
		return store, nil
	}
	return nil, fmt.Errorf("open %s: nothing keeps objects there", at)
}

// transport is how a bucket is reached.
func (c Config) transport() http.RoundTripper {
	if c.Meter == nil {
		return nil
	}
	return c.Meter.Transport(bucket.Transport())
}

// File returns the address of the directory with an absolute path.
func File(path string) string {
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(path)}).String()
}

// taken are folders of the system's, which are no store's own.
var taken = []string{"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/opt", "/proc", "/root", "/run", "/sbin", "/sys", "/tmp",
	"/usr", "/usr/local", "/var", "/var/lib", "/var/tmp", "/Applications", "/Library", "/System", "/Users"}

// alone is an error about a folder that can't be a store's own, whatever it is called
// here: a folder of the system, a person's home, or one that this is in. What belongs to
// others would lie among the objects, and a store's folder is cleared of what is left
// over.
func alone(folder string) error {
	is, err := os.Stat(folder)
	if err != nil {
		return nil // whoever opens it says so
	}
	others := taken
	if home, err := os.UserHomeDir(); err == nil && filepath.IsAbs(home) {
		for ; home != filepath.Dir(home); home = filepath.Dir(home) {
			others = append(slices.Clip(others), home)
		}
	}
	for _, other := range others {
		if o, err := os.Stat(other); err == nil && os.SameFile(is, o) {
			return fmt.Errorf("it is %s, which holds more than a vault: name a folder for the vault alone, such as %s", other, filepath.Join(other, "tablevault"))
		}
	}
	return nil
}
