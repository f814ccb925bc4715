package bucket

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/place"
)

// Address is what every address of a bucket can say.
type Address struct {
	// Bucket is the bucket's name, and Prefix what stands before every object's name,
	// with no slash at either end. It may be empty.
	Bucket, Prefix string
	// Region is the bucket's region. It is part of what is signed.
	Region string
	// Endpoint is the address of the store with its scheme; empty means the region's
	// public one, over https.
	Endpoint string
	// PathStyle puts the bucket's name into the path and not before the endpoint's name.
	PathStyle bool

	// KMSKey is the id of the key that the store encrypts new objects with; empty means
	// the bucket's default.
	KMSKey string
	// StorageClass is that of new objects that are big and rarely read; empty means the
	// bucket's default.
	StorageClass string

	// PartSize is the length in bytes of the parts in which objects are sent, and
	// Parallel how many are sent at once; zero means what package multipart does by
	// default. An object has at most ten thousand parts.
	PartSize int64
	Parallel int
}

// Parse reads an address, scheme://bucket/prefix?parameter=value. The parameters are
// region, endpoint, path_style, kms_key, storage_class, part_size in MiB and parallel,
// and those of more, which are called with their values. keys says, in an error, where
// keys belong instead. No error has a value of the address, which may be a key in the
// wrong place.
func Parse(address, scheme, keys string, more map[string]func(string) error) (Address, error) {
	u, err := url.Parse(address)
	if err != nil {
		return Address{}, fmt.Errorf("want %s://bucket/prefix?region=…", scheme)
	}
	a := Address{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/")}
	switch {
	case u.Scheme != scheme:
		return a, fmt.Errorf("the scheme is another, want %s://bucket/prefix?region=…", scheme)
	case u.User != nil:
		return a, errors.New("keys do not belong in an address; set " + keys)
	case u.Fragment != "":
		return a, errors.New(`it has a fragment; a "#" in the prefix is written %23`)
	case u.Opaque != "" || a.Bucket == "":
		return a, fmt.Errorf("it names no bucket, want %s://bucket/prefix?region=…", scheme)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return a, errors.New("its parameters can't be read: want name=value, with & between them")
	}
	a.PathStyle = local(query.Get("endpoint"))
	known := map[string]func(string) error{
		"region":   func(v string) error { a.Region = v; return nil },
		"endpoint": func(v string) (err error) { a.Endpoint, err = place.Endpoint(v); return err },
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
			return a, place.Unknown(name, slices.Collect(maps.Keys(known)))
		case len(values) > 1:
			return a, fmt.Errorf("the parameter %s stands there %d times", name, len(values))
		case values[0] == "":
			return a, fmt.Errorf("the parameter %s is empty", name)
		}
		if err := set(values[0]); err != nil {
			return a, fmt.Errorf("its parameter %s: %w", name, err)
		}
	}
	return a, nil
}

// regionForm is how names of regions look, and keys do not.
var regionForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,40}$`)

// Check finds what is wrong with an address in a store whose keys have at most so many
// bytes, and whose regions are called like the example.
func (a Address) Check(maxKey int, example string) error {
	longest := maxKey - object.MaxName - 1
	switch {
	case a.Region == "":
		return fmt.Errorf("the region is missing; add ?region=, such as region=%s", example)
	case !regionForm.MatchString(a.Region):
		return fmt.Errorf("its parameter region: want a region's name such as %s", example)
	case len(a.Prefix) > longest:
		return fmt.Errorf("the prefix has %d bytes, at most %d are allowed", len(a.Prefix), longest)
	}
	if a.Prefix != "" {
		if err := object.ValidName(a.Prefix); err != nil {
			return errors.New("the prefix is no object's name: want elements with single slashes between them, and no element . or .. among them")
		}
	}
	return nil
}

// local reports whether an endpoint's name can't have a bucket's name before it.
func local(v string) bool {
	complete, err := place.Endpoint(v)
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
