package bucket

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tablevault/tablevault/shared/object"
)

// Address is what every address of a bucket can say.
type Address struct {
	// Bucket is the bucket's name, and Prefix what stands before every object's name, with no slash at either end. It
	// may be empty.
	Bucket, Prefix string
	// Region is the bucket's region. It is part of what is signed.
	Region string
	// Endpoint is the address of the store with its scheme; empty means the region's public one, over https.
	Endpoint string
	// PathStyle puts the bucket's name into the path and not before the endpoint's name.
	PathStyle bool

	// KMSKey is the id of the key that the store encrypts new objects with; empty means the bucket's default.
	KMSKey string
	// StorageClass is that of new objects that are big and rarely read; empty means the bucket's default.
	StorageClass string

	// PartSize is the length in bytes of the parts in which objects are sent, and Parallel how many are sent at once; zero
	// means what package multipart does by default. An object has at most ten thousand parts.
	PartSize int64
	Parallel int
}

// Parse reads an address, scheme://bucket/prefix?parameter=value. The parameters are region, endpoint, path_style, kms_key,
// storage_class, part_size in MiB and parallel, and those of more, which are called with their values. keys says, in an
// error, where keys belong instead.
func Parse(address, scheme, keys string, more map[string]func(string) error) (Address, error) {
	u, err := url.Parse(address)
	if err != nil {
		var cause *url.Error
		if errors.As(err, &cause) {
			err = cause.Err
		}
		return Address{}, err
	}
	a := Address{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/")}
	switch {
	case u.Scheme != scheme:
		return a, fmt.Errorf("the scheme is %q, want %s://bucket/prefix?region=…", u.Scheme, scheme)
	case u.User != nil:
		return a, errors.New("keys do not belong in an address; set " + keys)
	case u.Fragment != "":
		return a, errors.New(`it has a fragment; a "#" in the prefix is written %23`)
	case u.Opaque != "" || a.Bucket == "":
		return a, fmt.Errorf("it names no bucket, want %s://bucket/prefix?region=…", scheme)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return a, fmt.Errorf("its parameters: %w", err)
	}
	a.PathStyle = local(query.Get("endpoint"))
	known := map[string]func(string) error{
		"region":   func(v string) error { a.Region = v; return nil },
		"endpoint": func(v string) (err error) { a.Endpoint, err = endpoint(v); return err },
		"path_style": func(v string) error {
			if v != "true" && v != "false" {
				return errors.New("want true or false")
			}
			a.PathStyle = v == "true"
			return nil
		},
		"kms_key":       func(v string) error { a.KMSKey = v; return nil },
		"storage_class": func(v string) error { a.StorageClass = v; return nil },
		"part_size": func(v string) error {
			mib, err := number(v, 1, 1024)
			a.PartSize = int64(mib) << 20
			return err
		},
		"parallel": func(v string) (err error) { a.Parallel, err = number(v, 1, 64); return err },
	}
	maps.Copy(known, more)
	for _, name := range slices.Sorted(maps.Keys(query)) {
		set, values := known[name], query[name]
		switch {
		case set == nil:
			return a, fmt.Errorf("unknown parameter %q; known are %s", name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		case len(values) > 1:
			return a, fmt.Errorf("the parameter %s stands there %d times", name, len(values))
		case values[0] == "":
			return a, fmt.Errorf("the parameter %s is empty", name)
		}
		if err := set(values[0]); err != nil {
			return a, fmt.Errorf("%s=%s: %w", name, values[0], err)
		}
	}
	return a, nil
}

// Check finds what is wrong with an address in a store whose keys have at most so many bytes, and whose regions are called
// like the example.
func (a Address) Check(maxKey int, example string) error {
	longest := maxKey - object.MaxName - 1
	switch {
	case a.Region == "":
		return fmt.Errorf("the region is missing; add ?region=, such as region=%s", example)
	case strings.ContainsAny(a.Region, "/ .:@?#,"):
		return fmt.Errorf("region=%s: want a region's name such as %s", a.Region, example)
	case len(a.Prefix) > longest:
		return fmt.Errorf("the prefix has %d bytes, at most %d are allowed", len(a.Prefix), longest)
	}
	if a.Prefix != "" {
		if err := object.ValidName(a.Prefix); err != nil {
			return fmt.Errorf("the prefix: %w", err)
		}
	}
	return nil
}

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
func local(v string) bool {
	complete, err := endpoint(v)
	if err != nil {
		return false
	}
	u, err := url.Parse(complete)
	return err == nil && (net.ParseIP(u.Hostname()) != nil || u.Hostname() == "localhost")
}

// Days reads a number of days such as 30d.
func Days(v string, most int) (int, error) {
	text, ok := strings.CutSuffix(v, "d")
	n, err := strconv.Atoi(text)
	if !ok || err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("want a number of days from 1d to %dd", most)
	}
	return n, nil
}

func number(v string, least, most int) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("want a number from %d to %d", least, most)
	}
	return n, nil
}
