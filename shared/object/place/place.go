// Package place tells what the address of an object store names, without opening it.
//
// Addresses are typed by people, and now and then with a key in them that belongs
// elsewhere. So errors of this package name what is wrong and never the value that is,
// and [Place.String] has nothing of an address but what names its place.
package place

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Place is what an address names: a folder, or a prefix in a bucket. Two spellings of one
// place are equal where the spelling tells; two addresses may be of one place all the
// same, through a symbolic link or a second name of a host.
type Place struct {
	// Scheme is file, oss or s3.
	Scheme string
	// Bucket is empty for a folder.
	Bucket string
	// Path is a folder, absolute and clean, or the prefix in a bucket, with no slash at
	// either end.
	Path string
	// Endpoint is the host and the port of a store that is not the service's own: names
	// of buckets are unique in the service, and among the stores that speak its protocol
	// only together with the store.
	Endpoint string
}

// parameters are those of an address by its scheme; packages oss and s3 have their
// meaning.
var parameters = map[string][]string{
	"oss": {"encryption", "endpoint", "kms_key", "parallel", "part_size", "path_style", "region", "retention", "storage_class"},
	"s3":  {"endpoint", "kms_key", "lock", "parallel", "part_size", "path_style", "region", "retain", "storage_class"},
}

// want says what an address looks like.
const want = "want oss://bucket/prefix?region=…, s3://bucket/prefix?region=… or file:///folder"

// Parse reads an address. The values of parameters are checked by whoever opens it.
func Parse(address string) (Place, error) {
	u, err := url.Parse(address)
	if err != nil {
		return Place{}, errors.New(want)
	}
	switch {
	case u.User != nil:
		return Place{}, errors.New("it has a user or a key before an @, where none belongs; " + want)
	case u.Fragment != "" || strings.HasSuffix(address, "#"):
		return Place{}, errors.New(`it has a fragment; a "#" in a path is written %23; ` + want)
	case u.Scheme == "file":
		return folder(u)
	case u.Scheme == "oss" || u.Scheme == "s3":
		return bucket(u)
	}
	return Place{}, errors.New(want)
}

func folder(u *url.URL) (Place, error) {
	switch {
	case u.Host != "" && u.Host != "localhost":
		return Place{}, errors.New("it names a host; a folder of this machine is written with three slashes, file:///folder")
	case u.RawQuery != "" || u.ForceQuery:
		return Place{}, errors.New(`it has a query; a "?" in the path of a folder is written %3F`)
	case u.Opaque != "" || !path.IsAbs(u.Path):
		return Place{}, errors.New("its path is not absolute; write file:///folder")
	case strings.ContainsRune(u.Path, 0):
		return Place{}, errors.New("its path has a zero byte")
	}
	p := Place{Scheme: "file", Path: path.Clean(u.Path)}
	if p.Path == "/" {
		return Place{}, errors.New("it is the root of this machine's files; name a folder for the vault alone, such as file:///srv/vault")
	}
	return p, nil
}

func bucket(u *url.URL) (Place, error) {
	p := Place{Scheme: u.Scheme, Bucket: u.Host, Path: strings.Trim(u.Path, "/")}
	if u.Opaque != "" || p.Bucket == "" || u.Port() != "" {
		return Place{}, fmt.Errorf("it names no bucket; want %s://bucket/prefix?region=…", u.Scheme)
	}
	if p.Path != "" && (path.Clean(p.Path) != p.Path || strings.HasPrefix(p.Path, "..")) {
		return Place{}, errors.New("its prefix has an element that is empty, . or .. and that names no object")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Place{}, errors.New("its parameters can't be read: want name=value, with & between them")
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		switch {
		case !slices.Contains(parameters[u.Scheme], name):
			return Place{}, Unknown(name, parameters[u.Scheme])
		case len(query[name]) > 1:
			return Place{}, fmt.Errorf("its parameter %s stands there %d times", name, len(query[name]))
		case query[name][0] == "":
			return Place{}, fmt.Errorf("its parameter %s is empty", name)
		}
	}
	if endpoint := query.Get("endpoint"); endpoint != "" {
		full, err := Endpoint(endpoint)
		if err != nil {
			return Place{}, fmt.Errorf("its parameter endpoint: %w", err)
		}
		p.Endpoint = host(full, u.Scheme)
	}
	return p, nil
}

// plainName is how a parameter's name looks that is no key by mistake.
var plainName = regexp.MustCompile(`^[A-Za-z][a-z_]{0,23}$`)

// Unknown is the error about a parameter that is none of the known.
func Unknown(name string, known []string) error {
	if !plainName.MatchString(name) {
		name = "something" // it may be a value without its name
	}
	return fmt.Errorf("unknown parameter %q; known are %s", name, strings.Join(slices.Sorted(slices.Values(known)), ", "))
}

// Endpoint completes and checks the address of a store: https:// stands before a host
// alone.
func Endpoint(v string) (string, error) {
	if !strings.Contains(v, "://") {
		v = "https://" + v
	}
	u, err := url.Parse(v)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" ||
		u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.User != nil {
		return "", errors.New("want a host, a host:port, or with http:// before it")
	}
	return u.Scheme + "://" + u.Host, nil
}

// service are the hosts of the services themselves, through which a bucket is the same
// whichever it is reached by. No bucket's name can stand before the first dot of one.
var service = map[string]*regexp.Regexp{
	"oss": regexp.MustCompile(`^(vpc100-)?oss-[a-z0-9-]+\.aliyuncs\.com$`),
	"s3":  regexp.MustCompile(`^s3([.-](fips|dualstack))*([.-][a-z]{2}(-[a-z]+)+-[0-9]+)?\.amazonaws\.com(\.cn)?$`),
}

// host is the host and the port of an endpoint; empty for the service's own.
func host(endpoint, scheme string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return endpoint
	}
	name, port := strings.TrimSuffix(strings.ToLower(u.Hostname()), "."), u.Port()
	usual := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	if port == "" {
		port = usual
	}
	if port == usual && service[scheme].MatchString(name) {
		return ""
	}
	return net.JoinHostPort(name, port)
}

// String is the place as an address, with the endpoint of a store that is not the
// service's own. It is fit for errors and logs, whatever stood in the address, and for
// nothing that opens it.
func (p Place) String() string {
	u := url.URL{Scheme: p.Scheme, Host: p.Bucket, Path: p.Path}
	if p.Bucket != "" && p.Path != "" {
		u.Path = "/" + p.Path
	}
	if p.Endpoint != "" {
		u.RawQuery = "endpoint=" + p.Endpoint
	}
	return u.String()
}

// Key is what tells the place from others in names of objects and in commands: sixteen
// hexadecimal digits, the first of the SHA-256 of its String.
func (p Place) Key() string { return key(p.String()) }

func key(place string) string {
	sum := sha256.Sum256([]byte(place))
	return hex.EncodeToString(sum[:8])
}

// keyForm is how keys look.
var keyForm = regexp.MustCompile(`^[0-9a-f]{16}$`)

// IsKey says whether text looks like a key.
func IsKey(text string) bool { return keyForm.MatchString(text) }

// Key is the key of the place that an address names. What is no address has one, too,
// which no address has.
func Key(address string) string {
	p, err := Parse(address)
	if err != nil {
		return key("no address: " + address)
	}
	return p.Key()
}

// Plain is an address as people may see it anywhere.
func Plain(address string) string {
	p, err := Parse(address)
	if err != nil {
		return "an address that can't be read"
	}
	return p.String()
}

// holds says whether one place is in another, or is it.
func (p Place) holds(o Place) bool {
	if p.Scheme != o.Scheme || p.Bucket != o.Bucket || p.Endpoint != o.Endpoint {
		return false
	}
	return p.Path == "" || p.Path == o.Path || strings.HasPrefix(o.Path, p.Path+"/")
}

// CheckApart returns an error if two addresses name one place, or one of them a place
// inside the other's.
func CheckApart(a, b string) error {
	p, err := Parse(a)
	if err != nil {
		return err
	}
	o, err := Parse(b)
	if err != nil {
		return err
	}
	switch {
	case p == o:
		return fmt.Errorf("%s is the vault itself, not a further one", p)
	case p.holds(o) || o.holds(p):
		return fmt.Errorf("%s and %s lie one inside the other: name a place beside it", p, o)
	}
	return nil
}

// Same says whether two addresses name the same bucket and prefix, or folder. One that
// names no endpoint is taken to be at the other's.
func Same(a, b string) bool {
	p, err := Parse(a)
	if err != nil {
		return false
	}
	o, err := Parse(b)
	if err != nil {
		return false
	}
	if p.Endpoint == "" || o.Endpoint == "" {
		p.Endpoint, o.Endpoint = "", ""
	}
	return p == o
}
