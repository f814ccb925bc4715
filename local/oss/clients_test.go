package oss

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-oss-go-sdk/oss"

	"github.com/tablevault/tablevault/local/ots/kv"
	"github.com/tablevault/tablevault/local/ram"
)

// What follows is what clients ask for that the vault does not: ossutil and the SDKs of
// other languages, which the suite beside this package runs.

func putObject(t *testing.T, b *oss.Bucket, key, content string, options ...oss.Option) {
	t.Helper()
	if err := b.PutObject(key, strings.NewReader(content), options...); err != nil {
		t.Fatal(err)
	}
}

func getObject(t *testing.T, b *oss.Bucket, key string, options ...oss.Option) string {
	t.Helper()
	r, err := b.GetObject(key, options...)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// watching carries requests.
type watching func(*http.Request) (*http.Response, error)

func (w watching) RoundTrip(r *http.Request) (*http.Response, error) { return w(r) }

// TestConditions: an object is answered, or it has not changed, or a condition failed,
// whatever the method.
func TestConditions(t *testing.T) {
	now := time.Date(2026, 11, 20, 2, 14, 0, 0, time.UTC)
	s := start(t, Config{Now: func() time.Time { return now }}, BucketConfig{})
	status := 0 // of the last answer, which the SDK does not always tell
	b := vault(t, s, oss.HTTPClient(&http.Client{Transport: watching(func(r *http.Request) (*http.Response, error) {
		answer, err := dated(func() time.Time { return now }).RoundTrip(r)
		if err == nil {
			status = answer.StatusCode
		}
		return answer, err
	})}))
	putObject(t, b, "a", "content")
	h, err := b.GetObjectDetailedMeta("a")
	if err != nil {
		t.Fatal(err)
	}
	tag, modified := h.Get("ETag"), now
	const unchanged, failed = 304, 412
	for _, c := range []struct {
		name   string
		option []oss.Option
		want   int
	}{
		{"the same tag", []oss.Option{oss.IfMatch(tag)}, 200},
		{"another tag", []oss.Option{oss.IfMatch(`"0"`)}, failed},
		{"not the same tag", []oss.Option{oss.IfNoneMatch(tag)}, unchanged},
		{"not another tag", []oss.Option{oss.IfNoneMatch(`"0"`)}, 200},
		{"modified since before", []oss.Option{oss.IfModifiedSince(modified.Add(-time.Second))}, 200},
		{"modified since then", []oss.Option{oss.IfModifiedSince(modified)}, unchanged},
		{"unmodified since before", []oss.Option{oss.IfUnmodifiedSince(modified.Add(-time.Second))}, failed},
		{"unmodified since then", []oss.Option{oss.IfUnmodifiedSince(modified)}, 200},
		{"all that hold", []oss.Option{oss.IfMatch(tag), oss.IfUnmodifiedSince(modified), oss.IfModifiedSince(modified.Add(-time.Second))}, 200},
		{"a date that is none", []oss.Option{oss.SetHeader("If-Unmodified-Since", "yesterday")}, 200},
	} {
		r, err := b.GetObject("a", c.option...)
		if err == nil {
			r.Close()
		}
		if status != c.want {
			t.Errorf("GET %s: %d, want %d", c.name, status, c.want)
		}
		if _, err = b.GetObjectDetailedMeta("a", c.option...); status != c.want || (err == nil) != (c.want == 200) {
			t.Errorf("HEAD %s: %d, want %d: %v", c.name, status, c.want, err)
		}
	}
}

// TestSignedURLs: a URL is good for what was signed, until its end, with both versions
// and with temporary keys.
func TestSignedURLs(t *testing.T) {
	var off time.Duration // of the server's clock
	sts := Key{ID: "STS.1", Secret: "s", Token: "to/k+en="}
	s := start(t, Config{Keys: []Key{{ID: "k", Secret: "s"}, sts}, Now: func() time.Time { return time.Now().Add(off) }}, BucketConfig{})
	get := func(method, address, kind, body string) (int, string, http.Header) {
		t.Helper()
		r, err := http.NewRequest(method, address, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if kind != "" {
			r.Header.Set("Content-Type", kind)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		content, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(content), answer.Header
	}
	for version, options := range map[string][]oss.ClientOption{"v1": nil, "v4": v4} {
		for _, key := range []Key{{ID: "k", Secret: "s"}, sts} {
			t.Run(version+" "+key.ID, func(t *testing.T) {
				b, err := client(t, s, key, options...).Bucket("vault")
				if err != nil {
					t.Fatal(err)
				}
				sign := func(method oss.HTTPMethod, options ...oss.Option) string {
					address, err := b.SignURL("a/é+ b", method, 600, options...)
					if err != nil {
						t.Fatal(err)
					}
					return address
				}
				if status, body, _ := get("PUT", sign(oss.HTTPPut, oss.ContentType("text/x")), "text/x", "by a URL"); status != 200 {
					t.Fatalf("%d %s", status, body)
				}
				if status, _, _ := get("PUT", sign(oss.HTTPPut, oss.ContentType("text/x")), "text/y", "by a URL"); status != 403 {
					t.Errorf("another type: %d", status)
				}
				address := sign(oss.HTTPGet, oss.ResponseContentType("text/z"))
				if status, body, h := get("GET", address, "", ""); status != 200 || body != "by a URL" || h.Get("Content-Type") != "text/z" {
					t.Errorf("%d %s %v", status, body, h)
				}
				for name, other := range map[string]string{
					"another object": strings.Replace(address, "vault/a", "vault/b", 1), "another answer": strings.Replace(address, "text%2Fz", "text%2Fw", 1),
				} {
					if other == address {
						t.Fatalf("%s is the same", name)
					}
					if status, body, _ := get("GET", other, "", ""); status != 403 || !strings.Contains(body, "SignatureDoesNotMatch") {
						t.Errorf("%s: %d %s", name, status, body)
					}
				}
				if status, body, _ := get("DELETE", address, "", ""); status != 403 || !strings.Contains(body, "SignatureDoesNotMatch") {
					t.Errorf("another method: %d %s", status, body)
				}
				if key.Token != "" {
					without, err := url.Parse(address)
					if err != nil {
						t.Fatal(err)
					}
					q := without.Query()
					q.Del("security-token")
					q.Del("x-oss-security-token")
					without.RawQuery = q.Encode()
					if status, body, _ := get("GET", without.String(), "", ""); status != 403 || !strings.Contains(body, "InvalidAccessKeyId") {
						t.Errorf("without its token: %d %s", status, body)
					}
				}
				off = 9 * time.Minute
				if status, body, _ := get("GET", address, "", ""); status != 200 {
					t.Errorf("before its end: %d %s", status, body)
				}
				off = 11 * time.Minute
				if status, body, _ := get("GET", address, "", ""); status != 403 || !strings.Contains(body, "Request has expired") {
					t.Errorf("after its end: %d %s", status, body)
				}
				off = 0
			})
		}
	}
}

// TestDateOfTheService: a client that can't set Date says it in x-oss-date, and signs
// that.
func TestDateOfTheService(t *testing.T) {
	s := start(t, Config{}, BucketConfig{})
	for name, change := range map[string]func(*http.Request){
		"<nil>": func(*http.Request) {},
		"SignatureDoesNotMatch": func(r *http.Request) {
			r.Header.Set("X-Oss-Date", time.Now().Add(time.Minute).UTC().Format(http.TimeFormat))
		},
		"RequestTimeTooSkewed": func(r *http.Request) {
			r.Header.Set("X-Oss-Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
		},
	} {
		b := vault(t, s, oss.HTTPClient(&http.Client{Transport: changing(func(r *http.Request) {
			r.Header.Del("Date")
			r.Header.Set("X-Oss-Date", time.Now().UTC().Format(http.TimeFormat))
			c := &call{r: r, s: s}
			if err := c.parse(); err != nil {
				t.Error(err)
			}
			signature, text := c.signatureV1(unsignedYet, DefaultKeySecret)
			if !strings.Contains(text, r.Header.Get("X-Oss-Date")+"\nx-oss-date:") {
				t.Errorf("signed is %q", text)
			}
			r.Header.Set("Authorization", "OSS "+DefaultKeyID+":"+signature)
			change(r)
		})}))
		wantCode(t, name, b.PutObject("a", strings.NewReader("x")), name)
	}
}

// TestNamesOnTheWire: the service's headers are in lower case, dates are of whole
// seconds, and a bucket in the name of the service's host is found.
func TestNamesOnTheWire(t *testing.T) {
	s := start(t, Config{Now: func() time.Time { return time.Now().Truncate(time.Second).Add(123 * time.Millisecond) }}, BucketConfig{})
	b := vault(t, s)
	putObject(t, b, "a", "content", oss.Meta("color", "red"))
	address, err := b.SignURL("a", oss.HTTPGet, 60)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	path := strings.TrimPrefix(address, s.URL()+"/vault")
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: vault.oss-cn-hangzhou-internal.aliyuncs.com:80\r\nConnection: close\r\n\r\n", path)
	answer, err := io.ReadAll(bufio.NewReader(conn))
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(string(answer), "\r\n\r\ncontent") {
		t.Fatalf("%s, %v", answer, err)
	}
	for _, header := range []string{"\r\nx-oss-meta-color: red\r\n", "\r\nx-oss-request-id: ", "\r\nx-oss-hash-crc64ecma: "} {
		if !strings.Contains(string(answer), header) {
			t.Errorf("%s has no %q", answer, header)
		}
	}
	u, err := b.InitiateMultipartUpload("b")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.UploadPart(u, strings.NewReader("x"), 1, 1); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"", "b?uploadId=" + u.UploadID, "?bucketInfo", "?versions", "?uploads"} {
		body := raw(t, b, "GET", what, "")
		if strings.Contains(body, "123Z") || !strings.Contains(body, ".000Z<") {
			t.Errorf("%s: %s", what, body)
		}
	}
}

// raw sends a request for which the SDK has no call, and returns the answer's body.
func raw(t *testing.T, b *oss.Bucket, method, path, body string) string {
	t.Helper()
	object, query, _ := strings.Cut(path, "?")
	parameters := map[string]any{}
	values, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	for name := range values {
		parameters[name] = nil
		if values.Get(name) != "" {
			parameters[name] = values.Get(name)
		}
	}
	answer, err := b.Client.Conn.Do(method, b.BucketName, object, parameters, nil, strings.NewReader(body), 0, nil)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestListVersion1 lists as the first version does, page by page, with owners.
func TestListVersion1(t *testing.T) {
	s := start(t, Config{Account: "7"}, BucketConfig{})
	b := vault(t, s)
	keys := []string{"a", "a/", "a/b", "a/b/c", "a/d", "b", "é/x", "é/y"}
	for _, k := range keys {
		putObject(t, b, k, k)
	}
	for _, c := range []struct {
		options []oss.Option
		want    string
		pages   int
	}{
		{nil, strings.Join(keys, " "), 1},
		{[]oss.Option{oss.MaxKeys(3)}, strings.Join(keys, " "), 3},
		{[]oss.Option{oss.Prefix("a/"), oss.Marker("a/b")}, "a/b/c a/d", 1},
		{[]oss.Option{oss.Delimiter("/"), oss.MaxKeys(1)}, "a a/* b é/*", 4},
		{[]oss.Option{oss.Prefix("none")}, "", 1},
	} {
		var got []string
		pages := 0
		for marker := ""; ; {
			options := c.options
			if pages > 0 {
				options = append(slices.Clone(options), oss.Marker(marker))
			}
			l, err := b.ListObjects(options...)
			if err != nil {
				t.Fatal(err)
			}
			pages++
			for _, o := range l.Objects {
				got = append(got, o.Key)
				if o.Owner.ID != "7" || o.Size != int64(len(o.Key)) || o.Type != "Normal" || o.StorageClass != "Standard" || o.LastModified.IsZero() {
					t.Errorf("%+v", o)
				}
			}
			for _, p := range l.CommonPrefixes {
				got = append(got, p+"*")
			}
			if !l.IsTruncated {
				break
			}
			marker = l.NextMarker
		}
		if strings.Join(got, " ") != c.want || pages != c.pages {
			t.Errorf("%v: %q in %d pages, want %q in %d", c.options, got, pages, c.want, c.pages)
		}
	}
	_, err := b.ListObjects(oss.MaxKeys(0))
	wantCode(t, "a bad parameter", err, "InvalidArgument")
}

// TestBuckets: buckets are made, listed and told of; one is deleted when it is empty, and
// takes nothing from then on, also from who had found it before.
func TestBuckets(t *testing.T) {
	dir := t.TempDir()
	s, err := Start(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	c := client(t, s, Key{ID: DefaultKeyID, Secret: DefaultKeySecret})
	for _, name := range []string{"bucket-a", "bucket-b", "other"} {
		wantCode(t, "create "+name, c.CreateBucket(name), "<nil>")
	}
	wantCode(t, "create twice", c.CreateBucket("other"), "BucketAlreadyExists")
	var names []string
	for marker := ""; ; {
		l, err := c.ListBuckets(oss.Prefix("bucket-"), oss.MaxKeys(1), oss.Marker(marker))
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range l.Buckets {
			names = append(names, b.Name)
			if b.Location != "oss-"+DefaultRegion || b.CreationDate.IsZero() || l.Owner.ID != "0" {
				t.Errorf("%+v of %+v", b, l.Owner)
			}
		}
		if !l.IsTruncated {
			break
		}
		marker = l.NextMarker
	}
	if strings.Join(names, " ") != "bucket-a bucket-b" {
		t.Errorf("listed are %v", names)
	}
	info, err := c.GetBucketInfo("other")
	if err != nil || info.BucketInfo.Owner.ID != "0" || info.BucketInfo.ACL != "private" {
		t.Errorf("%+v, %v", info, err)
	}
	if acl, err := c.GetBucketACL("other"); err != nil || acl.ACL != "private" || acl.Owner.ID != "0" {
		t.Errorf("%+v, %v", acl, err)
	}
	b, err := c.Bucket("other")
	if err != nil {
		t.Fatal(err)
	}
	putObject(t, b, "a", "x")
	if acl, err := b.GetObjectACL("a"); err != nil || acl.ACL != "default" {
		t.Errorf("%+v, %v", acl, err)
	}
	_, err = b.GetObjectACL("none")
	wantCode(t, "the access list of nothing", err, "NoSuchKey")
	wantCode(t, "delete with an object", c.DeleteBucket("other"), "BucketNotEmpty")
	wantCode(t, "delete the object", b.DeleteObject("a"), "<nil>")
	u, err := b.InitiateMultipartUpload("a")
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, "delete with an upload", c.DeleteBucket("other"), "BucketNotEmpty")
	wantCode(t, "abort", b.AbortMultipartUpload(u), "<nil>")
	// A request that has found the bucket stores its body while the bucket is deleted.
	body, more := io.Pipe()
	late := make(chan error)
	go func() { late <- b.PutObject("late", body) }()
	if _, err := more.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	for files := 0; files == 0; time.Sleep(time.Millisecond) { // until its body is being stored
		if files, err = s.store.files(); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, "delete", c.DeleteBucket("other"), "<nil>")
	more.Close()
	wantCode(t, "what comes late", <-late, "NoSuchBucket")
	wantCode(t, "delete twice", c.DeleteBucket("other"), "NoSuchBucket")
	wantCode(t, "create anew", c.CreateBucket("other"), "<nil>")
	if l, err := b.ListObjects(); err != nil || len(l.Objects) > 0 {
		t.Errorf("a new bucket has %v, %v", l.Objects, err)
	}
	putObject(t, b, "a", "y")
	// A process that ended while it made a bucket anew has left it closed.
	if err := s.store.records.Update(bucketSpace("other"), func(w kv.Writer) error {
		w.Put(goneRecord, []byte{1})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Start(Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if b, err = client(t, s, Key{ID: DefaultKeyID, Secret: DefaultKeySecret}).Bucket("other"); err != nil {
		t.Fatal(err)
	}
	putObject(t, b, "b", "z")
	if got := getObject(t, b, "a") + getObject(t, b, "b"); got != "yz" {
		t.Errorf("it holds %q", got)
	}
}

// TestDeleteMany: many objects go at once, those that are not there, too; a retention
// policy and the rights of the key hold for each.
func TestDeleteMany(t *testing.T) {
	s := start(t, Config{}, BucketConfig{})
	b := vault(t, s)
	for _, k := range []string{"a", "é/b+c d", "<&>", "kept"} {
		putObject(t, b, k, k)
	}
	r, err := b.DeleteObjects([]string{"a", "é/b+c d", "<&>", "none"})
	if err != nil || strings.Join(r.DeletedObjects, "|") != "a|é/b+c d|<&>|none" {
		t.Errorf("%q, %v", r.DeletedObjects, err)
	}
	if r, err = b.DeleteObjects([]string{"none"}, oss.DeleteObjectsQuiet(true)); err != nil || len(r.DeletedObjects) > 0 {
		t.Errorf("quietly: %q, %v", r.DeletedObjects, err)
	}
	if l, err := b.ListObjects(); err != nil || len(l.Objects) != 1 || l.Objects[0].Key != "kept" {
		t.Errorf("left are %+v, %v", l.Objects, err)
	}
	if files, err := s.store.files(); err != nil || files != 1 {
		t.Errorf("%d files are left, %v", files, err)
	}
	locked := start(t, Config{}, BucketConfig{RetentionDays: 1})
	lb := vault(t, locked)
	putObject(t, lb, "a", "x")
	_, err = lb.DeleteObjects([]string{"a"})
	wantCode(t, "what is kept", err, "FileImmutable")
	if getObject(t, lb, "a") != "x" {
		t.Error("what is kept is gone")
	}

	authority := ram.New(ram.Config{Owner: ram.Key{ID: "owner", Secret: "o"}})
	policy, err := ram.ParsePolicy([]byte(`{"Version":"1","Statement":[{"Effect":"Allow","Action":["oss:PutObject","oss:GetObject","oss:DeleteObject"],"Resource":"acs:oss:*:*:vault/mine/*"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	authority.SetPolicies("cleaner", policy)
	s = start(t, Config{Authority: authority}, BucketConfig{})
	k := authority.Assume("cleaner", time.Hour)
	own, err := client(t, s, Key{ID: "owner", Secret: "o"}).Bucket("vault")
	if err != nil {
		t.Fatal(err)
	}
	if b, err = client(t, s, Key{ID: k.ID, Secret: k.Secret, Token: k.Token}).Bucket("vault"); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"mine/a", "mine/b", "others/c"} {
		putObject(t, own, key, key)
	}
	_, err = b.DeleteObjects([]string{"mine/a", "others/c"})
	wantCode(t, "one that it may not delete", err, "AccessDenied")
	if got := getObject(t, own, "mine/a") + getObject(t, own, "others/c"); got != "mine/aothers/c" {
		t.Errorf("there is %q", got)
	}
	_, err = b.DeleteObjects([]string{"mine/a", "mine/b"})
	wantCode(t, "what it may delete", err, "<nil>")
	_, err = b.CopyObject("others/c", "mine/d")
	wantCode(t, "a copy of what it may not read", err, "AccessDenied")
	putObject(t, own, "mine/e", "e")
	_, err = b.CopyObject("mine/e", "others/e")
	wantCode(t, "a copy to where it may not write", err, "AccessDenied")
	_, err = b.CopyObject("mine/e", "mine/f")
	wantCode(t, "a copy", err, "<nil>")
	_, err = b.Client.ListBuckets()
	wantCode(t, "a list of the buckets", err, "AccessDenied")
	wantCode(t, "a bucket's deletion", b.Client.DeleteBucket("vault"), "AccessDenied")
}

// TestCopies: a copy has the content, and the headers of the one or the other; it keeps
// to what holds for every write.
func TestCopies(t *testing.T) {
	s := start(t, Config{}, BucketConfig{})
	b := vault(t, s)
	if err := s.CreateBucket("source", BucketConfig{}); err != nil {
		t.Fatal(err)
	}
	from, err := b.Client.Bucket("source")
	if err != nil {
		t.Fatal(err)
	}
	const key = "é/a+b c?d"
	putObject(t, from, key, "content", oss.Meta("color", "red"), oss.ContentType("text/x"))
	for _, c := range []struct {
		name        string
		options     []oss.Option
		color, kind string
		class       string
	}{
		{"as it is", nil, "red", "text/x", "Standard"},
		{"kept otherwise", []oss.Option{oss.ObjectStorageClass("IA")}, "red", "text/x", "IA"},
		{"with headers that do not count", []oss.Option{oss.Meta("color", "blue")}, "red", "text/x", "Standard"},
		{"with others", []oss.Option{oss.MetadataDirective("REPLACE"), oss.Meta("color", "blue"), oss.ContentType("text/y")}, "blue", "text/y", "Standard"},
	} {
		r, err := b.CopyObjectFrom("source", key, "copy", c.options...)
		if err != nil || r.ETag == "" || r.LastModified.IsZero() {
			t.Errorf("%s: %+v, %v", c.name, r, err)
			continue
		}
		h, err := b.GetObjectDetailedMeta("copy")
		if err != nil || h.Get("X-Oss-Meta-Color") != c.color || h.Get("Content-Type") != c.kind || h.Get("X-Oss-Storage-Class") != c.class {
			t.Errorf("%s: %v, %v", c.name, h, err)
		}
	}
	copied := func(options ...oss.Option) error {
		_, err := b.CopyObjectFrom("source", key, "copy", options...)
		return err
	}
	h, err := from.GetObjectDetailedMeta(key)
	if err != nil {
		t.Fatal(err)
	}
	tag := h.Get("ETag")
	wantCode(t, "forbidden", copied(oss.ForbidOverWrite(true)), "FileAlreadyExists")
	wantCode(t, "another tag", copied(oss.CopySourceIfMatch(`"0"`)), "PreconditionFailed")
	wantCode(t, "the tag", copied(oss.CopySourceIfMatch(tag)), "<nil>")
	wantCode(t, "a directive that is none", copied(oss.MetadataDirective("MOVE")), "InvalidArgument")
	_, err = b.CopyObjectFrom("source", "none", "copy")
	wantCode(t, "a copy of nothing", err, "NoSuchKey")
	_, err = b.CopyObjectFrom("no-such-bucket", "a", "copy")
	wantCode(t, "a copy from no bucket", err, "NoSuchBucket")
	// The copy is its own: it outlives its source.
	if err := from.DeleteObject(key); err != nil {
		t.Fatal(err)
	}
	if got := getObject(t, b, "copy"); got != "content" {
		t.Errorf("the copy is %q", got)
	}

	big := strings.Repeat("0123456789", 30_000)
	putObject(t, from, "big", big)
	u, err := b.InitiateMultipartUpload("parts")
	if err != nil {
		t.Fatal(err)
	}
	var parts []oss.UploadPart
	for n, at := range []int64{0, 200_000} {
		p, err := b.UploadPartCopy(u, "source", "big", at, min(200_000, int64(len(big))-at), n+1)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, p)
	}
	_, err = b.UploadPartCopy(u, "source", "big", int64(len(big)), 1, 3)
	wantCode(t, "a part from beyond the end", err, "InvalidArgument")
	if listed, err := b.ListUploadedParts(u); err != nil || len(listed.UploadedParts) != 2 || listed.UploadedParts[1].Size != 100_000 {
		t.Errorf("%+v, %v", listed, err)
	}
	if _, err := b.CompleteMultipartUpload(u, parts); err != nil {
		t.Fatal(err)
	}
	if getObject(t, b, "parts") != big {
		t.Error("it is not what was copied in parts")
	}
	if files, err := s.store.files(); err != nil || files != 4 {
		t.Errorf("%d files for 4 contents, %v", files, err)
	}
}

// TestListVersions lists the versions of each object, the newest first, or the only one
// as null.
func TestListVersions(t *testing.T) {
	for versioning, want := range map[string]string{"": "a:2 b:x", "Enabled": "a:deleted a:2 a:1 a:0 b:x"} {
		s := start(t, Config{}, BucketConfig{Versioning: versioning})
		b := vault(t, s)
		for n := range 3 {
			putObject(t, b, "a", strconv.Itoa(n))
		}
		putObject(t, b, "b", "x")
		if versioning != "" {
			if err := b.DeleteObject("a"); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for marker, pages := "", 0; ; pages++ {
			l, err := b.ListObjectVersions(oss.MaxKeys(1), oss.KeyMarker(marker))
			if err != nil || pages > 1 {
				t.Fatal(pages, err)
			}
			for _, d := range l.ObjectDeleteMarkers {
				got = append(got, d.Key+":deleted")
				if !d.IsLatest || d.VersionId == "" || d.Owner.ID != "0" {
					t.Errorf("%+v", d)
				}
			}
			for i, v := range l.ObjectVersions {
				got = append(got, v.Key+":"+getObject(t, b, v.Key, oss.VersionId(v.VersionId)))
				if v.IsLatest != (i == 0 && len(l.ObjectDeleteMarkers) == 0) || (v.VersionId == "null") != (versioning == "") || v.Size != 1 {
					t.Errorf("%+v", v)
				}
			}
			if !l.IsTruncated {
				break
			}
			marker = l.NextKeyMarker
		}
		if strings.Join(got, " ") != want {
			t.Errorf("versioning %q: %q, want %q", versioning, got, want)
		}
	}
}

// TestDocumentsAreChecked: a document comes as its digest says.
func TestDocumentsAreChecked(t *testing.T) {
	s := start(t, Config{}, BucketConfig{})
	b := vault(t, s)
	body, err := xml.Marshal(deleteDocument{Object: []struct{ Key, VersionId string }{{Key: "a"}}})
	if err != nil {
		t.Fatal(err)
	}
	putObject(t, b, "a", "x")
	_, err = b.Client.Conn.Do("POST", "vault", "", map[string]any{"delete": nil}, map[string]string{"Content-MD5": "AAAA"}, bytes.NewReader(body), 0, nil)
	wantCode(t, "another digest", err, "InvalidDigest")
	if getObject(t, b, "a") != "x" {
		t.Error("it is gone")
	}
}

// TestDocument: docs/object-stores.md names each operation that is there, and no other.
func TestDocument(t *testing.T) {
	source, err := os.ReadFile("server.go")
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile(filepath.Join("..", "..", "docs", "object-stores.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(document), "| of | there is |")
	table, _, _ = strings.Cut(table, "\n\n")
	there := map[string]bool{}
	for _, m := range regexp.MustCompile(`return "(\w+)", \(\*call\)`).FindAllStringSubmatch(string(source), -1) {
		if !regexp.MustCompile("Versioning$|Worm$|OverwriteConfig$").MatchString(m[1]) { // the settings, which the table names otherwise
			there[m[1]] = true
		}
	}
	named := map[string]bool{}
	for _, name := range regexp.MustCompile(`\b(?:[A-Z][a-z]+){2,}(?:V2)?\b`).FindAllString(table, -1) {
		named[name] = true
	}
	if len(there) < 20 || !maps.Equal(there, named) {
		t.Errorf("there are %v\nthe document names %v", slices.Sorted(maps.Keys(there)), slices.Sorted(maps.Keys(named)))
	}
}
