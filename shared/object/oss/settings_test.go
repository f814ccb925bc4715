package oss_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"

	local "github.com/tablevault/tablevault/local/oss"
	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/bucket"
	"github.com/tablevault/tablevault/shared/object/objecttest"
	"github.com/tablevault/tablevault/shared/object/oss"
)

type address = bucket.Address

// Each part of an address is found where it belongs.
func TestParse(t *testing.T) {
	for text, want := range map[string]oss.Config{
		"oss://bucket?region=cn-hangzhou":                      {Address: address{Bucket: "bucket", Region: "cn-hangzhou"}},
		"oss://bucket/a/b%20c/?region=r":                       {Address: address{Bucket: "bucket", Prefix: "a/b c", Region: "r"}},
		"oss://bucket?region=r&endpoint=oss-r-internal.x.com":  {Address: address{Bucket: "bucket", Region: "r", Endpoint: "https://oss-r-internal.x.com"}},
		"oss://bucket?region=r&endpoint=http://127.0.0.1:9000": {Address: address{Bucket: "bucket", Region: "r", Endpoint: "http://127.0.0.1:9000", PathStyle: true}},
		"oss://bucket?region=r&endpoint=127.0.0.1":             {Address: address{Bucket: "bucket", Region: "r", Endpoint: "https://127.0.0.1", PathStyle: true}},
		"oss://bucket?region=r&path_style=true":                {Address: address{Bucket: "bucket", Region: "r", PathStyle: true}},
		"oss://bucket?region=r&kms_key=k":                      {Address: address{Bucket: "bucket", Region: "r", KMSKey: "k"}, Encryption: "KMS"},
		"oss://bucket?region=r&encryption=SM4":                 {Address: address{Bucket: "bucket", Region: "r"}, Encryption: "SM4"},
		"oss://bucket?region=r&storage_class=IA&retention=30d": {Address: address{Bucket: "bucket", Region: "r", StorageClass: "IA"}, RetentionDays: 30},
		"oss://bucket?region=r&part_size=16&parallel=2":        {Address: address{Bucket: "bucket", Region: "r", PartSize: 16 << 20, Parallel: 2}},
	} {
		got, err := oss.Parse(text)
		if err != nil {
			t.Errorf("Parse(%s): %v", text, err)
		} else if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("Parse(%s):\n got %+v\nwant %+v", text, got, want)
		}
	}
}

// What is wrong with an address is told with what to write instead.
func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"oss://bucket":                                           "add ?region=",
		"oss://bucket?region=":                                   "region is empty",
		"oss://bucket?region=a&region=b":                         "2 times",
		"oss://bucket?region=oss-cn-hangzhou":                    "without oss-, such as cn-hangzhou",
		"oss://bucket?region=cn/x":                               "cn-hangzhou",
		"oss://?region=r":                                        "names no bucket",
		"s3://bucket?region=r":                                   "want oss://",
		"oss://id:secret@bucket?region=r":                        "ALIBABA_CLOUD_ACCESS_KEY_ID",
		"oss://Bucket?region=r":                                  "lower case",
		"oss://b?region=r":                                       "3 to 63",
		"oss://bu.cket?region=r":                                 "can't be the name",
		"oss://bucket/a//b?region=r":                             "single slashes",
		"oss://bucket/x#y?region=r":                              "%23",
		"oss://bucket/" + strings.Repeat("p", 256) + "?region=r": "the prefix has 256 bytes",
		"oss://bucket?regoin=r":                                  `unknown parameter "regoin"; known are encryption, endpoint`,
		"oss://bucket?region=r&endpoint=ftp://h":                 "http://",
		"oss://bucket?region=r&path_style=1":                     "true or false",
		"oss://bucket?region=r&storage_class=Archive":            "read at once",
		"oss://bucket?region=r&encryption=DES":                   "AES256, KMS or SM4",
		"oss://bucket?region=r&encryption=AES256&kms_key=k":      "encryption=KMS",
		"oss://bucket?region=r&retention=30":                     "1d to 25550d",
		"oss://bucket?region=r&retention=30000d":                 "1d to 25550d",
		"oss://bucket?region=r&part_size=0":                      "from 1 to 1024",
		"oss://bucket?region=r&parallel=many":                    "from 1 to 64",
		"oss://bucket?region=%zz":                                "can't be read",
	} {
		if _, err := oss.Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q): %v, want an error that says %q", text, err, want)
		}
	}
}

// Parsing any address ends in a configuration that a store can be made of, or in an
// error.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"oss://bucket/prefix?region=cn-hangzhou", "oss://bucket?region=r&endpoint=http://127.0.0.1:1&path_style=true", "oss://", "oss://b%00?region=r",
		"oss://bucket?region=r&retention=30d&kms_key=k&storage_class=IA&part_size=1&parallel=64", "oss://bucket/%2e%2e/x?region=r;",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := oss.Parse(text)
		if err != nil {
			return
		}
		c.Credentials = keys("", "", "")
		if _, err := oss.New(c); err != nil {
			t.Errorf("Parse(%q) is %+v, of which New says: %v", text, c, err)
		}
	})
}

// A wrong setting is told when the store is opened, with what is wrong.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	server := serve(t, local.Config{}, local.BucketConfig{})
	if err := server.CreateBucket("elsewhere", local.BucketConfig{Region: "cn-beijing"}); err != nil {
		t.Fatal(err)
	}
	errNoSTS := errors.New("no answer from STS")
	for _, c := range []struct {
		name   string
		change func(*oss.Config)
		says   string
		is     error
	}{
		{"no such bucket", func(c *oss.Config) { c.Bucket = "nobodys" }, "there is no bucket nobodys", nil},
		{"unknown key", func(c *oss.Config) { c.Credentials = keys("nobody", "x", "") }, "does not know the access key", fs.ErrPermission},
		{"wrong secret", func(c *oss.Config) { c.Credentials = keys(local.DefaultKeyID, "wrong", "") }, "the secret does not belong", fs.ErrPermission},
		{"no keys", func(c *oss.Config) { c.Credentials = keys("", "", "") }, "ALIBABA_CLOUD_ACCESS_KEY_ID", nil},
		{"keys fail", func(c *oss.Config) {
			c.Credentials = func(context.Context) (access.Key, error) { return access.Key{}, errNoSTS }
		}, "no answer from STS", errNoSTS},
		{"wrong region", func(c *oss.Config) { c.Region = "cn-north-1" }, "the bucket is not at", nil},
		{"a bucket of another region", func(c *oss.Config) { c.Bucket = "elsewhere" }, "its endpoint is oss-cn-beijing.aliyuncs.com", nil},
		{"TLS to a plain port", func(c *oss.Config) { c.Endpoint = strings.Replace(c.Endpoint, "http:", "https:", 1) }, "HTTPS", nil},
		{"nobody there", func(c *oss.Config) { c.Endpoint = "http://127.0.0.1:1" }, "connection refused", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			config := configure(t, server, "", "")
			c.change(&config)
			_, err := oss.OpenHurried(t.Context(), config)
			if err == nil || !strings.Contains(err.Error(), c.says) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("Open: %v, want an error that says %q and matches %v", err, c.says, c.is)
			}
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
				t.Errorf("Open: %v matches a condition of an object", err)
			}
		})
	}
}

// wantReadOnly fails unless what is in the bucket can be read, and nothing be created,
// which is told without a request.
func wantReadOnly(t *testing.T, server *local.Server, s *oss.Store, says string) {
	t.Helper()
	if got, err := object.ReadAll(t.Context(), s, "old", 10); err != nil || string(got) != "old" {
		t.Errorf("read what is there: %q, %v", got, err)
	}
	server.ResetCalls()
	for _, size := range []int{3, 6 << 20} {
		_, err := s.Create(t.Context(), "new", strings.NewReader(strings.Repeat("x", size)))
		if err == nil || !strings.Contains(err.Error(), says) || errors.Is(err, fs.ErrExist) {
			t.Errorf("Create: %v, want an error that says %q", err, says)
		}
	}
	if n := server.Calls(""); n != 0 {
		t.Errorf("%d requests were made", n)
	}
}

// handle is the SDK's handle of the server's bucket, for what a test does beside the
// store.
func handle(t testing.TB, server *local.Server, options ...sdk.ClientOption) *sdk.Bucket {
	t.Helper()
	options = append(options, sdk.AuthVersion(sdk.AuthV4), sdk.Region(local.DefaultRegion))
	client, err := sdk.New(server.URL(), local.DefaultKeyID, local.DefaultKeySecret, options...)
	if err != nil {
		t.Fatal(err)
	}
	b, err := client.Bucket("vault")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// In a bucket with versions, enabled or suspended, nothing is created and nothing
// deleted.
func TestVersions(t *testing.T) {
	t.Parallel()
	for _, versioning := range []string{"Enabled", "Suspended"} {
		server := serve(t, local.Config{}, local.BucketConfig{Versioning: versioning})
		if err := handle(t, server).PutObject("old", strings.NewReader("old")); err != nil {
			t.Fatal(err)
		}
		s := open(t, configure(t, server, "", ""))
		wantReadOnly(t, server, s, "versioning: "+versioning)
		if _, err := s.Create(t.Context(), "new", strings.NewReader("x")); !errors.Is(err, oss.ErrVersions) {
			t.Errorf("Create: %v, want ErrVersions", err)
		}
		if err := s.Delete(t.Context(), "old"); !errors.Is(err, oss.ErrVersions) {
			t.Errorf("Delete: %v, want ErrVersions", err)
		}
	}
}

// Versions that are enabled after the bucket was opened are seen in the answer to the
// next write, which is an error.
func TestVersionsEnabledMeanwhile(t *testing.T) {
	t.Parallel()
	server := serve(t, local.Config{}, local.BucketConfig{})
	s := open(t, inParts(t, server, ""))
	if err := handle(t, server).Client.SetBucketVersioning("vault", sdk.VersioningConfig{Status: "Enabled"}); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{3, long} {
		if _, err := s.Create(t.Context(), fmt.Sprint(size), strings.NewReader(strings.Repeat("x", size))); !errors.Is(err, oss.ErrVersions) {
			t.Errorf("Create of %d bytes: %v, want ErrVersions", size, err)
		}
	}
}

// A bucket that does not tell whether it has versions is not written to.
func TestVersionsNotTold(t *testing.T) {
	t.Parallel()
	server := serve(t, local.Config{Keys: []local.Key{
		{ID: local.DefaultKeyID, Secret: local.DefaultKeySecret, Deny: []string{"GetBucketVersioning"}}}}, local.BucketConfig{})
	if err := handle(t, server).PutObject("old", strings.NewReader("old")); err != nil {
		t.Fatal(err)
	}
	wantReadOnly(t, server, open(t, configure(t, server, "", "")), "allow oss:GetBucketVersioning")
}

// Where objects are to be kept, the bucket must have a locked policy of at least so many
// days. Under it objects are created, read and listed as elsewhere, and not deleted.
func TestRetention(t *testing.T) {
	t.Parallel()
	server := serve(t, local.Config{}, local.BucketConfig{})
	b := handle(t, server)
	if err := b.PutObject("old", strings.NewReader("old")); err != nil {
		t.Fatal(err)
	}
	opened := func() *oss.Store { return open(t, configure(t, server, "", "&retention=30d&part_size=1")) }
	wantReadOnly(t, server, opened(), "has no retention policy")
	id, err := b.Client.InitiateBucketWorm("vault", 20)
	if err != nil {
		t.Fatal(err)
	}
	wantReadOnly(t, server, opened(), "for 20 days and InProgress")
	if err := b.Client.CompleteBucketWorm("vault", id); err != nil {
		t.Fatal(err)
	}
	wantReadOnly(t, server, opened(), "for 20 days and Locked")
	if err := b.Client.ExtendBucketWorm("vault", 30, id); err != nil {
		t.Fatal(err)
	}
	s := opened()
	if err := objecttest.Work(t.Context(), s, "locked", 1<<20+1); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "delete locked/short") {
		t.Errorf("all but deleting works: %v", err)
	}
}

// Each object is encrypted and classed as the address says, whether it goes in one
// request or in parts.
func TestKeptAsAsked(t *testing.T) {
	t.Parallel()
	server := serve(t, local.Config{}, local.BucketConfig{})
	c := configure(t, server, "p", "&kms_key=key-1&storage_class=IA")
	c.PartSize = part
	c.Cold = func(name string) bool { return strings.HasPrefix(name, "cold") }
	s := open(t, c)
	b := handle(t, server)
	for _, name := range []string{"cold/short", "cold/long", "warm/short", "warm/long"} {
		size, class := 3, ""
		if strings.HasSuffix(name, "long") {
			size = long
		}
		if strings.HasPrefix(name, "cold") {
			class = "IA"
		}
		if _, err := s.Create(t.Context(), name, strings.NewReader(strings.Repeat("x", size))); err != nil {
			t.Fatal(err)
		}
		h, err := b.GetObjectDetailedMeta("p/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if h.Get(sdk.HTTPHeaderOssServerSideEncryption) != "KMS" || h.Get(sdk.HTTPHeaderOssServerSideEncryptionKeyID) != "key-1" {
			t.Errorf("%s is encrypted %v", name, h)
		}
		if got := h.Get(sdk.HTTPHeaderOssStorageClass); got != class && class+got != "Standard" {
			t.Errorf("%s is in class %q, want %q", name, got, class)
		}
	}
}
