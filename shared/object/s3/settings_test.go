package s3_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	local "github.com/tablevault/tablevault/local/s3"
	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/object"
	shared "github.com/tablevault/tablevault/shared/object/bucket"
	"github.com/tablevault/tablevault/shared/object/s3"
)

type address = shared.Address

// Each part of an address is found where it belongs.
func TestParse(t *testing.T) {
	for address, want := range map[string]s3.Config{
		"s3://bucket?region=eu-central-1":                             {Address: address{Bucket: "bucket", Region: "eu-central-1"}},
		"s3://bucket/a/b%20c/?region=r":                               {Address: address{Bucket: "bucket", Prefix: "a/b c", Region: "r"}},
		"s3://bucket?region=r&endpoint=minio.example.com:9000":        {Address: address{Bucket: "bucket", Region: "r", Endpoint: "https://minio.example.com:9000"}},
		"s3://bucket?region=r&endpoint=http://127.0.0.1:9000":         {Address: address{Bucket: "bucket", Region: "r", Endpoint: "http://127.0.0.1:9000", PathStyle: true}},
		"s3://bucket?region=r&endpoint=localhost:9000":                {Address: address{Bucket: "bucket", Region: "r", Endpoint: "https://localhost:9000", PathStyle: true}},
		"s3://bucket?region=r&endpoint=[::1]:9&path_style=false":      {Address: address{Bucket: "bucket", Region: "r", Endpoint: "https://[::1]:9"}},
		"s3://bu.cket?region=r&path_style=true":                       {Address: address{Bucket: "bu.cket", Region: "r", PathStyle: true}},
		"s3://bucket?region=r&kms_key=arn:aws:kms:r:1:key/2":          {Address: address{Bucket: "bucket", Region: "r", KMSKey: "arn:aws:kms:r:1:key/2"}},
		"s3://bucket?region=r&storage_class=STANDARD_IA":              {Address: address{Bucket: "bucket", Region: "r", StorageClass: "STANDARD_IA"}},
		"s3://bucket?region=r&lock=compliance&retain=30d":             {Address: address{Bucket: "bucket", Region: "r"}, Lock: "COMPLIANCE", Retain: 720 * time.Hour},
		"s3://bucket?region=r&path_style=true&endpoint=s3.aws.com%3A": {Address: address{Bucket: "bucket", Region: "r", Endpoint: "https://s3.aws.com:", PathStyle: true}},
	} {
		got, err := s3.Parse(address)
		if err != nil {
			t.Errorf("Parse(%s): %v", address, err)
		} else if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("Parse(%s):\n got %+v\nwant %+v", address, got, want)
		}
	}
}

// What is wrong with an address is told with what to write instead.
func TestParseRefuses(t *testing.T) {
	for address, want := range map[string]string{
		"s3://bucket":                                           "add ?region=",
		"s3://bucket?region=":                                   "region is empty",
		"s3://bucket?region=a&region=b":                         "2 times",
		"s3://bucket?region=eu/x":                               "eu-central-1",
		"s3://?region=r":                                        "names no bucket",
		"s3:bucket?region=r":                                    "names no bucket",
		"oss://bucket?region=r":                                 "want s3://",
		"s3://id:secret@bucket?region=r":                        "AWS_ACCESS_KEY_ID",
		"s3://Bucket?region=r":                                  "lower case",
		"s3://b?region=r":                                       "3 to 63",
		"s3://10.0.0.1?region=r":                                "can't be the name",
		"s3://bucket:9000?region=r":                             "can't be the name",
		"s3://bu.cket?region=r":                                 "path_style=true",
		"s3://bucket/a//b?region=r":                             "single slashes",
		"s3://bucket/../b?region=r":                             "no element . or ..",
		"s3://bucket/x#y?region=r":                              "%23",
		"s3://bucket/" + strings.Repeat("p", 256) + "?region=r": "the prefix has 256 bytes",
		"s3://bucket?regoin=r":                                  `unknown parameter "regoin"`,
		"s3://bucket?region=r&endpoint=ftp://h":                 "http://",
		"s3://bucket?region=r&endpoint=https://h/path":          "want a host",
		"s3://bucket?region=r&endpoint=https://u@h":             "want a host",
		"s3://bucket?region=r&path_style=1":                     "true or false",
		"s3://bucket?region=r&storage_class=GLACIER":            "read at once",
		"s3://bucket?region=r&lock=compliance":                  "go together",
		"s3://bucket?region=r&retain=1d":                        "go together",
		"s3://bucket?region=r&lock=legal&retain=1d":             "governance or compliance",
		"s3://bucket?region=r&lock=governance&retain=1h":        "days",
		"s3://bucket?region=%zz":                                "can't be read",
		"\x7f":                                                  "want s3://",
	} {
		if _, err := s3.Parse(address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q): %v, want an error that says %q", address, err, want)
		}
	}
}

// Parsing any address ends in a configuration that a store can be made of, or in an
// error.
func FuzzParse(f *testing.F) {
	for _, address := range []string{
		"s3://bucket/prefix?region=eu-central-1", "s3://bucket?region=r&endpoint=http://127.0.0.1:1&path_style=true", "s3://", "s3://b%00?region=r",
		"s3://bucket?region=r&lock=compliance&retain=30d&kms_key=k&storage_class=GLACIER_IR", "s3://bucket/%2e%2e/x?region=r;",
	} {
		f.Add(address)
	}
	f.Fuzz(func(t *testing.T, address string) {
		c, err := s3.Parse(address)
		if err != nil {
			return
		}
		c.Credentials = access.Key{}.Provider()
		if _, err := s3.New(c); err != nil {
			t.Errorf("Parse(%q) is %+v, of which New says: %v", address, c, err)
		}
	})
}

// A wrong setting is told when the store is opened, with what is wrong.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	server, config := bucket(t, local.Plain)
	for _, c := range []struct {
		name   string
		change func(*s3.Config)
		says   string
		is     error
	}{
		{"no such bucket", func(c *s3.Config) { c.Bucket = "nobodys" }, "there is no bucket nobodys", nil},
		{"unknown key", func(c *s3.Config) { c.Credentials = keys("AKIDNOBODY", server.Secret, "") }, "does not know the access key", fs.ErrPermission},
		{"wrong secret", func(c *s3.Config) { c.Credentials = keys(server.KeyID, "wrong", "") }, "the secret does not belong", fs.ErrPermission},
		{"no keys", func(c *s3.Config) { c.Credentials = keys("", "", "") }, "AWS_ACCESS_KEY_ID", nil},
		{"keys fail", func(c *s3.Config) {
			c.Credentials = func(context.Context) (access.Key, error) { return access.Key{}, errNoSTS }
		}, "no answer from STS", errNoSTS},
		{"wrong region", func(c *s3.Config) { c.Region = "eu-north-1" }, "not in region eu-north-1", nil},
		{"TLS to a plain port", func(c *s3.Config) { c.Endpoint = strings.Replace(c.Endpoint, "http:", "https:", 1) }, "HTTPS", nil},
		{"nobody there", func(c *s3.Config) { c.Endpoint = "http://127.0.0.1:1" }, "connection refused", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			changed := config
			c.change(&changed)
			started := time.Now()
			_, err := s3.Open(t.Context(), changed)
			if err == nil || !strings.Contains(err.Error(), c.says) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("Open: %v, want an error that says %q and matches %v", err, c.says, c.is)
			}
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
				t.Errorf("Open: %v matches a condition of an object", err)
			}
			if took := time.Since(started); took > 20*time.Second {
				t.Errorf("it took %v to say so", took)
			}
		})
	}
}

var errNoSTS = errors.New("no answer from STS")

func keys(id, secret, token string) access.Provider {
	return access.Key{ID: id, Secret: secret, Token: token}.Provider()
}

// Credentials are asked for with each request: those that change under way are used, and
// a token that expires while it is being renewed costs nothing but another try.
func TestCredentialsChange(t *testing.T) {
	t.Parallel()
	server, config := bucket(t, local.Plain)
	proxy := server.Proxy(t)
	config.Endpoint = proxy.URL
	var mu sync.Mutex
	current, asked := access.Key{ID: "OLD", Secret: "old"}, 0
	config.Credentials = func(context.Context) (access.Key, error) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		return current, nil
	}
	store, err := s3.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := object.ReadAll(t.Context(), store, "a", 10); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("read with keys that nobody knows: %v", err)
	}
	mu.Lock()
	current, asked = access.Key{ID: server.KeyID, Secret: server.Secret}, 0
	mu.Unlock()
	proxy.Set(&local.Fault{Kind: local.Expired, Call: 0})
	if _, err := store.Create(t.Context(), "a", strings.NewReader("x")); err != nil {
		t.Errorf("Create with new keys, the first request answered with an expired token: %v", err)
	}
	if requests := len(proxy.Seen()); asked != requests || requests != 3 {
		t.Errorf("%d requests were made with keys that were asked for %d times", requests, asked)
	}
}

// Objects under Object Lock are created, read and listed as others are, and not deleted.
func TestLock(t *testing.T) {
	t.Parallel()
	server, config := bucket(t, local.Locked)
	config.Lock, config.Retain = "GOVERNANCE", 24*time.Hour
	config.Prefix = "locked"
	store := open(t, config)
	for name, size := range map[string]int{"small": 10, "long": big} {
		if _, err := store.Create(t.Context(), name, strings.NewReader(strings.Repeat("x", size))); err != nil {
			t.Fatal(err)
		}
		head, err := server.Client().HeadObject(t.Context(), &sdk.HeadObjectInput{Bucket: aws.String("vault"), Key: aws.String("locked/" + name)})
		if err != nil {
			t.Fatal(err)
		}
		left := time.Until(aws.ToTime(head.ObjectLockRetainUntilDate))
		if head.ObjectLockMode != types.ObjectLockModeGovernance || left < 23*time.Hour || left > 25*time.Hour {
			t.Errorf("%s has lock %q for another %v", name, head.ObjectLockMode, left)
		}
		if err := store.Delete(t.Context(), name); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("Delete of a locked object: %v, want fs.ErrPermission", err)
		}
		if got, err := object.ReadAll(t.Context(), store, name, big); err != nil || len(got) != size {
			t.Errorf("after a refused Delete: %d bytes, %v", len(got), err)
		}
		if _, err := store.Create(t.Context(), name, strings.NewReader("other")); !errors.Is(err, fs.ErrExist) {
			t.Errorf("second Create: %v", err)
		}
	}
	config.Lock, config.Retain, config.Prefix = "", 0, "free"
	free := open(t, config)
	for range 2 {
		if _, err := free.Create(t.Context(), "a", strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		if err := free.Delete(t.Context(), "a"); err != nil {
			t.Errorf("Delete of an object that is not locked: %v", err)
		}
	}
	versions, err := server.Client().ListObjectVersions(t.Context(), &sdk.ListObjectVersionsInput{Bucket: aws.String("vault"), Prefix: aws.String("free/")})
	if err != nil || len(versions.Versions)+len(versions.DeleteMarkers) > 0 {
		t.Errorf("a deleted object left %d versions and %d markers, %v", len(versions.Versions), len(versions.DeleteMarkers), err)
	}
}

// answering takes every request, remembers its headers, and answers as if all were well.
type answering struct {
	mu   sync.Mutex
	seen map[string]http.Header // by what the request is
}

func (a *answering) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	what, body := r.Method, ""
	switch q := r.URL.Query(); {
	case q.Has("uploads"):
		what, body = "begin", "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
	case q.Has("partNumber"):
		what = "part"
	case q.Has("uploadId"):
		what, body = "complete", "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen[what] = r.Header
	return &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Etag": {`"e"`}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// What an address says of encryption, class and lock stands in the requests that begin an
// object, with one that forbids to overwrite in those that end it.
func TestAskedFor(t *testing.T) {
	config, err := s3.Parse("s3://vault?region=r&kms_key=key-1&storage_class=STANDARD_IA&lock=compliance&retain=3d")
	if err != nil {
		t.Fatal(err)
	}
	wire := &answering{seen: map[string]http.Header{}}
	config.Credentials, config.Transport = keys("id", "secret", "token"), wire
	config.Cold = func(name string) bool { return strings.HasPrefix(name, "cold") }
	store, err := s3.New(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cold", "warm"} {
		class := map[string]string{"cold": "STANDARD_IA"}[name]
		for _, size := range []int{10, big} {
			// There is no server that could confirm it.
			if _, err := store.Create(t.Context(), name, strings.NewReader(strings.Repeat("x", size))); err == nil || !strings.Contains(err.Error(), "the store has") {
				t.Errorf("Create: %v", err)
			}
		}
		for _, what := range []string{"PUT", "begin"} {
			h := wire.seen[what]
			until, err := time.Parse(time.RFC3339, h.Get("X-Amz-Object-Lock-Retain-Until-Date"))
			if h.Get("X-Amz-Server-Side-Encryption") != "aws:kms" || h.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id") != "key-1" || h.Get("X-Amz-Storage-Class") != class ||
				h.Get("X-Amz-Object-Lock-Mode") != "COMPLIANCE" || err != nil || time.Until(until).Round(time.Hour) != 72*time.Hour {
				t.Errorf("%s, %s: %v", name, what, h)
			}
		}
		for _, what := range []string{"PUT", "complete"} {
			if h := wire.seen[what]; h.Get("If-None-Match") != "*" || h.Get("X-Amz-Security-Token") != "token" {
				t.Errorf("%s, %s: %v", name, what, h)
			}
		}
		if h := wire.seen["part"]; h.Get("X-Amz-Checksum-Crc32c") == "" || h.Get("X-Amz-Content-Sha256") != "UNSIGNED-PAYLOAD" {
			t.Errorf("%s, part: %v", name, h)
		}
	}
}
