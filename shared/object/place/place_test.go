package place_test

import (
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/object/place"
)

// Spellings of one place have one key, and other places others. A bucket's name is
// nothing without the store that it is in, be it of OSS or of S3.
func TestKey(t *testing.T) {
	seen := map[string]string{}
	for _, same := range [][]string{
		{"oss://b/p", "oss://b/p/", "oss://b//p//", "oss://b/p?region=x", "oss://b/p/?region=x&endpoint=oss-cn-x-internal.aliyuncs.com",
			"oss://b/p?endpoint=http://oss-cn-x.aliyuncs.com", "oss://b/p?endpoint=OSS-cn-x.aliyuncs.com:443", "oss://b/p?endpoint=oss-cn-x.aliyuncs.com."},
		{"oss://b/p?endpoint=http://127.0.0.1:1", "oss://b/p?region=x&path_style=true&endpoint=http://127.0.0.1:1/"},
		{"oss://b/p?endpoint=https://127.0.0.1:2"},
		{"oss://b/p?endpoint=evil.example", "oss://b/p?endpoint=https://EVIL.example:443"},
		{"oss://b/p?endpoint=oss-cn-x.aliyuncs.com.evil.example"},
		{"oss://b/p?endpoint=b.oss-cn-x.aliyuncs.com"},
		{"oss://b/p?endpoint=oss-cn-x.aliyuncs.com:8443"},
		{"s3://b/p", "s3://b/p?region=eu-west-1", "s3://b/p?endpoint=s3.eu-west-1.amazonaws.com", "s3://b/p?endpoint=https://s3.dualstack.eu-west-1.amazonaws.com"},
		{"s3://b/p?endpoint=https://x"}, {"s3://b/p?endpoint=https://y&region=z"}, {"s3://b/p?endpoint=evil.s3.eu-west-1.amazonaws.com"},
		{"s3://b/q"}, {"s3://b"},
		{"file:///b/p", "file:///b//p/", "file:///b/./p", "file:///b/x/../p", "file://localhost/b/p", "file:/b/p"},
		{"no address"}, {"oss://b/p?secret=x"},
	} {
		for _, a := range same {
			if key := place.Key(a); key != place.Key(same[0]) || !place.IsKey(key) {
				t.Errorf("%s has the key %s, and %s has %s", a, key, same[0], place.Key(same[0]))
			}
		}
		if other := seen[place.Key(same[0])]; other != "" {
			t.Errorf("%s has the key of %s", same[0], other)
		}
		seen[place.Key(same[0])] = same[0]
	}
}

// What can't be read is refused with what is wrong, and without what was written.
func TestParseRefuses(t *testing.T) {
	for address, want := range map[string]string{
		"":                                       "want oss://",
		"/hunter2":                               "want oss://",
		"gs://hunter2/p":                         "want oss://",
		"hunter2":                                "want oss://",
		"oss://hunter2:%zz@b/p":                  "want oss://",
		"oss://b:hunter2/p":                      "want oss://",
		"oss://LTAI:hunter2@b/p":                 "before an @",
		"s3://hunter2@b/p":                       "before an @",
		"oss:///hunter2":                         "names no bucket",
		"oss:hunter2":                            "names no bucket",
		"oss://b/p#hunter2":                      "fragment",
		"oss://b/../hunter2":                     "prefix",
		"oss://b/x//hunter2":                     "prefix",
		"oss://b/p?AccessKeySecret=hunter2":      `unknown parameter`,
		"oss://b/p?hunter2":                      `unknown parameter "something"`,
		"oss://b/p?LTAI5hunter2=1":               `unknown parameter "something"`,
		"oss://b/p?region=hunter2&region=x":      "region stands there 2 times",
		"oss://b/p?region=":                      "region is empty",
		"oss://b/p?%zz=hunter2":                  "parameters can't be read",
		"oss://b/p?endpoint=u:hunter2@h":         "endpoint: want a host",
		"oss://b/p?endpoint=https://h?k=hunter2": "endpoint: want a host",
		"s3://b/p?encryption=hunter2":            `unknown parameter "encryption"`,
		"file://":                                "not absolute",
		"file://hunter2/p":                       "three slashes",
		"file:hunter2":                           "not absolute",
		"file:///p?hunter2":                      "%3F",
		"file:///":                               "root of this machine",
		"file:////":                              "root of this machine",
		"file:///./x/..":                         "root of this machine",
		"file://hunter2@/p":                      "before an @",
	} {
		p, err := place.Parse(address)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q) = %+v, %v, want an error that says %q", address, p, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") || strings.Contains(place.Plain(address), "hunter2") {
			t.Errorf("of %q people see %v and %s", address, err, place.Plain(address))
		}
	}
}

// TestApart keeps two vaults from lying in one place, or one inside the other.
func TestApart(t *testing.T) {
	for _, c := range []struct {
		a, b  string
		apart bool
	}{
		{"oss://b/p?region=x", "oss://b/q", true},
		{"oss://b/p", "oss://b/pq", true},
		{"oss://b/p", "s3://b/p", true},
		{"oss://b/p", "oss://b/p?endpoint=h", true},
		{"oss://b/p", "oss://b/p/?region=x", false},
		{"oss://b/p", "oss://b/p/twin", false},
		{"oss://b/p/twin", "oss://b/p", false},
		{"oss://b", "oss://b/twin", false},
		{"file:///v", "file:///v/./", false},
		{"file:///v", "file:///w/../v/twin", false},
		{"file:///v", "file:///vault", true},
		{"file:///v", "no address", false},
	} {
		if err := place.CheckApart(c.a, c.b); (err == nil) != c.apart {
			t.Errorf("CheckApart(%s, %s): %v", c.a, c.b, err)
		}
	}
}

// Only who names an endpoint means it.
func TestSame(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"oss://b/p", "oss://b/p/?region=x&endpoint=http://127.0.0.1:1", true},
		{"oss://b/p?endpoint=http://127.0.0.1:2", "oss://b/p?endpoint=http://127.0.0.1:1", false},
		{"oss://b/p", "oss://b/q", false},
		{"file:///v/", "file:///v", true},
		{"no address", "no address", false},
	} {
		if place.Same(c.a, c.b) != c.same {
			t.Errorf("Same(%s, %s) is %v", c.a, c.b, !c.same)
		}
	}
}
