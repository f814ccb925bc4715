package oss

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-oss-go-sdk/oss"

	"github.com/tablevault/tablevault/local/ram"
)

// start starts a server with a bucket named vault, under a clock of the test's.
func start(t testing.TB, c Config, b BucketConfig) *Server {
	t.Helper()
	s, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.CreateBucket("vault", b); err != nil {
		t.Fatal(err)
	}
	return s
}

// client is the SDK's, as it comes but for what is given.
func client(t testing.TB, s *Server, key Key, options ...oss.ClientOption) *oss.Client {
	t.Helper()
	c, err := oss.New(s.URL(), key.ID, key.Secret, append([]oss.ClientOption{oss.SecurityToken(key.Token)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func vault(t testing.TB, s *Server, options ...oss.ClientOption) *oss.Bucket {
	t.Helper()
	b, err := client(t, s, Key{ID: DefaultKeyID, Secret: DefaultKeySecret}, options...).Bucket("vault")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// code is the service's word for an error, or what it is if it has none.
func code(err error) string {
	var refused oss.ServiceError
	if errors.As(err, &refused) {
		return refused.Code
	}
	return fmt.Sprint(err)
}

func wantCode(t *testing.T, doing string, err error, want string) {
	t.Helper()
	if code(err) != want {
		t.Errorf("%s: %v, want %s", doing, err, want)
	}
}

var v4 = []oss.ClientOption{oss.AuthVersion(oss.AuthV4), oss.Region(DefaultRegion)}

// Both versions of signatures are verified, over all that they cover: objects of all
// names, parameters and headers.
func TestSignatures(t *testing.T) {
	s := start(t, Config{}, BucketConfig{})
	for name, options := range map[string][]oss.ClientOption{
		"v1": nil, "v4": v4, "v4 with headers": append(v4[:2:2], oss.AdditionalHeaders([]string{"host", "user-agent"})),
	} {
		t.Run(name, func(t *testing.T) {
			b := vault(t, s, options...)
			for _, key := range []string{"a", "a/b c", "é/+%&=?#'\"", "日本語/~!*()", "a//b", " "} {
				content := "content of " + key
				if err := b.PutObject(key, strings.NewReader(content), oss.Meta("one", "two"), oss.ContentType("text/x")); err != nil {
					t.Errorf("%q: %v", key, err)
					continue
				}
				r, err := b.GetObject(key)
				if err != nil {
					t.Errorf("%q: %v", key, err)
					continue
				}
				got, err := io.ReadAll(r)
				if err != nil || string(got) != content {
					t.Errorf("%q: %q, %v", key, got, err)
				}
				h, err := b.GetObjectDetailedMeta(key)
				if err != nil || h.Get("X-Oss-Meta-One") != "two" || h.Get("Content-Type") != "text/x" {
					t.Errorf("%q: %v, %v", key, h, err)
				}
			}
			if _, err := b.ListObjectsV2(oss.Prefix("a/b "), oss.MaxKeys(5), oss.StartAfter("+")); err != nil {
				t.Error(err)
			}
			if u, err := b.InitiateMultipartUpload("up/load"); err != nil {
				t.Error(err)
			} else if err := b.AbortMultipartUpload(u); err != nil {
				t.Error(err)
			}
			wrong := client(t, s, Key{ID: DefaultKeyID, Secret: "wrong"}, options...)
			_, err := wrong.GetBucketInfo("vault")
			wantCode(t, "wrong secret", err, "SignatureDoesNotMatch")
			unknown := client(t, s, Key{ID: "nobody", Secret: "wrong"}, options...)
			_, err = unknown.GetBucketInfo("vault")
			wantCode(t, "unknown key", err, "InvalidAccessKeyId")
		})
	}
	other := vault(t, s, oss.AuthVersion(oss.AuthV4), oss.Region("cn-elsewhere"))
	wantCode(t, "signed for another region", other.PutObject("x", strings.NewReader("")), "InvalidArgument")
	for name, change := range map[string]func(*http.Request){
		"nothing changed":    func(*http.Request) {},
		"another method":     func(r *http.Request) { r.Method = "DELETE" },
		"another object":     func(r *http.Request) { r.URL.Path += "x" },
		"another parameter":  func(r *http.Request) { r.URL.RawQuery = "versionId=1" },
		"another oss header": func(r *http.Request) { r.Header.Set("X-Oss-Meta-Two", "3") },
		"another type":       func(r *http.Request) { r.Header.Set("Content-Type", "text/y") },
		"another date":       func(r *http.Request) { r.Header.Set("Date", time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)) },
	} {
		for version, options := range map[string][]oss.ClientOption{"v1": nil, "v4": v4} {
			b := vault(t, s, append(options[:len(options):len(options)], oss.HTTPClient(&http.Client{Transport: changing(change)}))...)
			want := "SignatureDoesNotMatch"
			if name == "nothing changed" {
				want = "<nil>"
			}
			wantCode(t, version+", "+name, b.PutObject("signed", strings.NewReader("x")), want)
		}
	}
}

// changing changes requests on their way.
type changing func(*http.Request)

func (c changing) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	c(r)
	return http.DefaultTransport.RoundTrip(r)
}

// Temporary keys come with their token until their end, keys do not do what they are
// denied, and dates are near the clock.
func TestKeys(t *testing.T) {
	now := time.Now()
	sts := Key{ID: "STS.1", Secret: "s", Token: "token", Expires: now.Add(time.Hour)}
	s := start(t, Config{Now: func() time.Time { return now }, Keys: []Key{sts, {ID: "k", Secret: "s", Deny: []string{"DeleteObject"}}}}, BucketConfig{})
	info := func(k Key) error { _, err := client(t, s, k).GetBucketInfo("vault"); return err }
	wantCode(t, "a token", info(sts), "<nil>")
	wantCode(t, "no token", info(Key{ID: sts.ID, Secret: sts.Secret}), "InvalidAccessKeyId")
	wantCode(t, "another token", info(Key{ID: sts.ID, Secret: sts.Secret, Token: "other"}), "InvalidSecurityToken")
	wantCode(t, "a token too many", info(Key{ID: "k", Secret: "s", Token: "other"}), "InvalidSecurityToken")
	b, err := client(t, s, Key{ID: "k", Secret: "s"}).Bucket("vault")
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, "what is allowed", b.PutObject("a", strings.NewReader("")), "<nil>")
	wantCode(t, "what is denied", b.DeleteObject("a"), "AccessDenied")
	now = now.Add(14 * time.Minute)
	wantCode(t, "a clock off by less than 15 minutes", info(sts), "<nil>")
	now = now.Add(2 * time.Minute)
	wantCode(t, "a clock off by more", info(sts), "RequestTimeTooSkewed")
	// A key of an authority does what its role's policy says.
	authority := ram.New(ram.Config{Owner: ram.Key{ID: "owner", Secret: "o"}})
	policy, err := ram.ParsePolicy([]byte(`{"Version":"1","Statement":[
		{"Effect":"Allow","Action":["oss:PutObject","oss:GetObject"],"Resource":"acs:oss:*:7:vault/pre/*"},
		{"Effect":"Allow","Action":"oss:ListObjects","Resource":"acs:oss:*:7:vault","Condition":{"StringLike":{"oss:Prefix":"pre/*"}}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	authority.SetPolicies("writer", policy)
	s = start(t, Config{Authority: authority, Account: "7"}, BucketConfig{})
	k := authority.Assume("writer", time.Hour)
	if b, err = client(t, s, Key{ID: k.ID, Secret: k.Secret, Token: k.Token}).Bucket("vault"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "put", b.PutObject("pre/a", strings.NewReader("")), "<nil>")
	u, err := b.InitiateMultipartUpload("pre/b")
	wantCode(t, "begin", err, "<nil>")
	wantCode(t, "abort", b.AbortMultipartUpload(u), "AccessDenied")
	wantCode(t, "put elsewhere", b.PutObject("other/a", strings.NewReader("")), "AccessDenied")
	_, err = b.ListObjectsV2(oss.Prefix("pre/"))
	wantCode(t, "list", err, "<nil>")
	_, err = b.ListObjectsV2(oss.Prefix("other/"))
	wantCode(t, "list elsewhere", err, "AccessDenied")
	authority.Expire("writer")
	_, err = b.GetObject("pre/a")
	wantCode(t, "after its end", err, "SecurityTokenExpired")
}

// An object is overwritten unless that is forbidden, and in a bucket with versions also
// if it is forbidden.
func TestForbidOverwrite(t *testing.T) {
	for versioning, want := range map[string]string{"": "FileAlreadyExists", "Enabled": "<nil>", "Suspended": "<nil>"} {
		s := start(t, Config{}, BucketConfig{Versioning: versioning})
		b := vault(t, s)
		forbid := oss.ForbidOverWrite(true)
		upload := func(content string) error {
			u, err := b.InitiateMultipartUpload("a")
			if err != nil {
				return err
			}
			p, err := b.UploadPart(u, strings.NewReader(content), int64(len(content)), 1)
			if err != nil {
				return err
			}
			_, err = b.CompleteMultipartUpload(u, []oss.UploadPart{p}, forbid)
			return err
		}
		// Whoever begins an upload says nothing about its completion.
		late := func() error {
			begun, err := b.InitiateMultipartUpload("b", forbid)
			if err != nil {
				return err
			}
			p, err := b.UploadPart(begun, strings.NewReader("5"), 1, 1)
			if err != nil {
				return err
			}
			if err := b.PutObject("b", strings.NewReader("6")); err != nil {
				return err
			}
			_, err = b.CompleteMultipartUpload(begun, []oss.UploadPart{p})
			return err
		}
		for _, doing := range []struct {
			name string
			do   func() error
			want string
		}{
			{"first put", func() error { return b.PutObject("a", strings.NewReader("1"), forbid) }, "<nil>"},
			{"overwriting put", func() error { return b.PutObject("a", strings.NewReader("2")) }, "<nil>"},
			{"forbidden put", func() error { return b.PutObject("a", strings.NewReader("3"), forbid) }, want},
			{"forbidden begin", func() error { _, err := b.InitiateMultipartUpload("a", forbid); return err }, want},
			{"forbidden completion", func() error { return upload("4") }, want},
			{"completion of what was forbidden at its beginning only", late, "<nil>"},
		} {
			wantCode(t, fmt.Sprintf("versioning %q, %s", versioning, doing.name), doing.do(), doing.want)
		}
		h, err := b.GetObjectDetailedMeta("a")
		if err != nil || (h.Get("X-Oss-Version-Id") != "") != (versioning != "") {
			t.Errorf("versioning %q: %v, %v", versioning, h, err)
		}
	}
}

// Versions stay, and a deletion hides them.
func TestVersions(t *testing.T) {
	s := start(t, Config{}, BucketConfig{Versioning: "Enabled"})
	b := vault(t, s)
	var ids []string
	for _, content := range []string{"one", "two"} {
		var h http.Header
		if err := b.PutObject("a", strings.NewReader(content), oss.GetResponseHeader(&h)); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, h.Get("X-Oss-Version-Id"))
	}
	read := func(options ...oss.Option) string {
		r, err := b.GetObject("a", options...)
		if err != nil {
			return code(err)
		}
		got, _ := io.ReadAll(r)
		return string(got)
	}
	if err := b.DeleteObject("a"); err != nil {
		t.Fatal(err)
	}
	for want, options := range map[string][]oss.Option{"NoSuchKey": nil, "one": {oss.VersionId(ids[0])}, "two": {oss.VersionId(ids[1])}, "NoSuchVersion": {oss.VersionId("x")}} {
		if got := read(options...); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if l, err := b.ListObjectsV2(); err != nil || len(l.Objects) != 0 {
		t.Errorf("listed: %v, %v", l.Objects, err)
	}
	if err := b.DeleteObject("a", oss.VersionId(ids[1])); err != nil {
		t.Error(err)
	}
	if got := read(oss.VersionId(ids[1])); got != "NoSuchVersion" {
		t.Errorf("a deleted version: %s", got)
	}
	if v, err := b.Client.GetBucketVersioning("vault"); err != nil || v.Status != "Enabled" {
		t.Errorf("versioning: %v, %v", v, err)
	}
	if err := b.Client.SetBucketVersioning("vault", oss.VersioningConfig{Status: "Suspended"}); err != nil {
		t.Error(err)
	}
	if i, err := b.Client.GetBucketInfo("vault"); err != nil || i.BucketInfo.Versioning != "Suspended" || i.BucketInfo.Location != "oss-local" {
		t.Errorf("info: %+v, %v", i, err)
	}
}

// A retention policy keeps what it covers for its time, and can be given up only before
// it is locked.
func TestRetention(t *testing.T) {
	now := time.Now()
	s := start(t, Config{Now: func() time.Time { return now }}, BucketConfig{})
	pass := func(d time.Duration) *oss.Bucket {
		now = now.Add(d)
		return vault(t, s, oss.HTTPClient(&http.Client{Transport: dated(func() time.Time { return now })}))
	}
	b := pass(0)
	b.PutObject("a", strings.NewReader("1"))
	_, err := b.Client.GetBucketWorm("vault")
	wantCode(t, "no policy", err, "NoSuchWORMConfiguration")
	_, err = b.Client.InitiateBucketWorm("vault", 2)
	wantCode(t, "begin", err, "<nil>")
	wantCode(t, "delete", b.DeleteObject("a"), "FileImmutable")
	wantCode(t, "overwrite", b.PutObject("a", strings.NewReader("2")), "FileImmutable")
	wantCode(t, "create", b.PutObject("b", strings.NewReader("2")), "<nil>")
	wantCode(t, "give up", b.Client.AbortBucketWorm("vault"), "<nil>")
	wantCode(t, "delete without a policy", b.DeleteObject("b"), "<nil>")
	id, err := b.Client.InitiateBucketWorm("vault", 2)
	wantCode(t, "begin again", err, "<nil>")
	wantCode(t, "lock", b.Client.CompleteBucketWorm("vault", id), "<nil>")
	wantCode(t, "give up what is locked", b.Client.AbortBucketWorm("vault"), "WORMConfigurationLocked")
	if w, err := b.Client.GetBucketWorm("vault"); err != nil || w.State != "Locked" || w.RetentionPeriodInDays != 2 || w.WormId != id {
		t.Errorf("policy: %+v, %v", w, err)
	}
	b = pass(47 * time.Hour)
	wantCode(t, "delete before the end", b.DeleteObject("a"), "FileImmutable")
	wantCode(t, "extend", b.Client.ExtendBucketWorm("vault", 3, id), "<nil>")
	b = pass(2 * time.Hour)
	wantCode(t, "delete after the old end", b.DeleteObject("a"), "FileImmutable")
	b = pass(24 * time.Hour)
	wantCode(t, "delete after the end", b.DeleteObject("a"), "<nil>")
}

// A bucket's rules keep writers from overwriting that do not care themselves; deleting is
// another matter.
func TestOverwriteRules(t *testing.T) {
	s := start(t, Config{}, BucketConfig{})
	b := vault(t, s, oss.AuthVersion(oss.AuthV4), oss.Region(DefaultRegion))
	rules := func(method, document string) (string, error) {
		r, err := b.Client.Conn.Do(method, "vault", "", map[string]any{"overwriteConfig": nil}, nil, strings.NewReader(document), 0, nil)
		if err != nil {
			return "", err
		}
		defer r.Close()
		body, err := io.ReadAll(r)
		return string(body), err
	}
	const document = "<OverwriteConfiguration><Rule><ID>kept</ID><Action>forbid</Action><Prefix>kept/</Prefix><Suffix>.json</Suffix></Rule>" +
		"<Rule><Action>forbid</Action><Prefix>others/</Prefix><Principals><Principal>277</Principal></Principals></Rule></OverwriteConfiguration>"
	if _, err := rules("GET", ""); code(err) != "NoSuchOverwriteConfiguration" {
		t.Errorf("no rules: %v", err)
	}
	for name, wrong := range map[string]string{
		"no rules": "<OverwriteConfiguration></OverwriteConfiguration>", "action": strings.Replace(document, "forbid", "allow", 1),
		"twice": strings.ReplaceAll(document, "<Rule><Action>", "<Rule><ID>kept</ID><Action>"), "long": strings.Replace(document, "kept/", strings.Repeat("k", 1024), 1),
	} {
		if _, err := rules("PUT", wrong); code(err) != "MalformedXML" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := rules("PUT", document); err != nil {
		t.Fatal(err)
	}
	if got, err := rules("GET", ""); err != nil || !strings.Contains(got, "<ID>kept</ID><Action>forbid</Action><Prefix>kept/</Prefix><Suffix>.json</Suffix></Rule>") ||
		!strings.Contains(got, "<Principal>277</Principal>") {
		t.Errorf("%s, %v", got, err)
	}
	for key, want := range map[string]string{"kept/a.json": "FileAlreadyExists", "kept/a.txt": "<nil>", "beside/a.json": "<nil>", "others/a.json": "<nil>"} {
		wantCode(t, "create "+key, b.PutObject(key, strings.NewReader("1")), "<nil>")
		wantCode(t, "overwrite "+key, b.PutObject(key, strings.NewReader("2")), want)
		_, err := b.InitiateMultipartUpload(key)
		wantCode(t, "begin an upload of "+key, err, want)
	}
	// An upload that was begun before the object was there does not end after it.
	u, err := b.InitiateMultipartUpload("kept/b.json")
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.UploadPart(u, strings.NewReader("3"), 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, "create", b.PutObject("kept/b.json", strings.NewReader("1")), "<nil>")
	_, err = b.CompleteMultipartUpload(u, []oss.UploadPart{p})
	wantCode(t, "complete", err, "FileAlreadyExists")
	wantCode(t, "delete", b.DeleteObject("kept/a.json"), "<nil>")
	if _, err := rules("DELETE", ""); err != nil {
		t.Error(err)
	}
	wantCode(t, "overwrite without rules", b.PutObject("kept/b.json", strings.NewReader("2")), "<nil>")
}

// dated gives requests the date of another clock, and signs them anew.
type dated func() time.Time

func (d dated) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Date", d().UTC().Format(http.TimeFormat))
	c := &call{r: httptest.NewRequest(r.Method, r.URL.String(), nil), s: &Server{}}
	c.r.Header = r.Header
	if err := c.parse(); err != nil {
		return nil, err
	}
	signature, _ := c.signatureV1(authorization{}, DefaultKeySecret)
	r.Header.Set("Authorization", "OSS "+DefaultKeyID+":"+signature)
	return http.DefaultTransport.RoundTrip(r)
}

// Uploads in parts: what is wrong is named, what is listed is what was sent, and the
// whole has the checksum of the whole.
func TestMultipart(t *testing.T) {
	s := start(t, Config{}, BucketConfig{})
	b := vault(t, s)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	whole := make([]byte, 700_000)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(whole)
	u, err := b.InitiateMultipartUpload("a/b", oss.ServerSideEncryption("KMS"), oss.ServerSideEncryptionKeyID("key"), oss.ObjectStorageClass(oss.StorageIA))
	if err != nil {
		t.Fatal(err)
	}
	cuts := []int{0, 200_000, 310_000, 699_999, 700_000}
	var parts []oss.UploadPart
	for i := range len(cuts) - 1 {
		piece := whole[cuts[i]:cuts[i+1]]
		p, err := b.UploadPart(u, bytes.NewReader(piece), int64(len(piece)), 10*(i+1))
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, p)
	}
	_, err = b.UploadPart(u, strings.NewReader("x"), 1, 10001)
	wantCode(t, "part 10001", err, "InvalidArgument")
	_, err = b.UploadPart(u, strings.NewReader("x"), 1, 1, oss.ServerSideEncryption("AES256"))
	wantCode(t, "an encrypted part", err, "InvalidArgument")
	_, err = b.UploadPart(oss.InitiateMultipartUploadResult{Key: "a/b", UploadID: "none"}, strings.NewReader("x"), 1, 1)
	wantCode(t, "a part of nothing", err, "NoSuchUpload")
	listed, err := b.ListUploadedParts(u, oss.MaxParts(3))
	if err != nil || !listed.IsTruncated || len(listed.UploadedParts) != 3 || listed.NextPartNumberMarker != "30" || listed.UploadedParts[2].Size != 389_999 {
		t.Errorf("listed: %+v, %v", listed, err)
	}
	uploads, err := b.ListMultipartUploads()
	if err != nil || len(uploads.Uploads) != 1 || uploads.Uploads[0].Key != "a/b" || uploads.Uploads[0].UploadID != u.UploadID {
		t.Errorf("uploads: %+v, %v", uploads, err)
	}
	complete := func(parts ...oss.UploadPart) error {
		// The SDK sorts them, so the order is under test elsewhere.
		_, err := b.CompleteMultipartUpload(u, parts)
		return err
	}
	wantCode(t, "nothing", complete(), "MalformedXML")
	wantCode(t, "a part that is not there", complete(oss.UploadPart{PartNumber: 7, ETag: parts[0].ETag}), "InvalidPart")
	wantCode(t, "another tag", complete(oss.UploadPart{PartNumber: 10, ETag: parts[1].ETag}), "InvalidPart")
	_, err = b.UploadPart(u, strings.NewReader("short"), 5, 1)
	if err != nil {
		t.Fatal(err)
	}
	short, _ := b.UploadPart(u, strings.NewReader("short"), 5, 1)
	wantCode(t, "a short part", complete(short, parts[0]), "EntityTooSmall")
	var h http.Header
	if _, err := b.CompleteMultipartUpload(u, parts, oss.GetResponseHeader(&h)); err != nil {
		t.Fatal(err)
	}
	want := strconv.FormatUint(crc64.Checksum(whole, crc64.MakeTable(crc64.ECMA)), 10)
	if got := h.Get("X-Oss-Hash-Crc64ecma"); got != want {
		t.Errorf("checksum %s, want %s", got, want)
	}
	wantCode(t, "completed", complete(parts...), "NoSuchUpload")
	if n, err := s.Uploads("vault"); n != 0 || err != nil {
		t.Errorf("%d uploads, %v", n, err)
	}
	if files, err := s.store.files(); err != nil || files != len(parts) {
		t.Errorf("%d files, %v", files, err)
	}
	h, err = b.GetObjectDetailedMeta("a/b")
	if err != nil || h.Get("X-Oss-Server-Side-Encryption") != "KMS" || h.Get("X-Oss-Server-Side-Encryption-Key-Id") != "key" ||
		h.Get("X-Oss-Storage-Class") != "IA" || h.Get("X-Oss-Object-Type") != "Multipart" || h.Get("X-Oss-Hash-Crc64ecma") != want {
		t.Errorf("%v, %v", h, err)
	}
	for range 50 {
		from := rand.IntN(len(whole))
		to := from + rand.IntN(len(whole)-from)
		r, err := b.GetObject("a/b", oss.Range(int64(from), int64(to)))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, whole[from:to+1]) {
			t.Fatalf("%d to %d: %d bytes, %v", from, to, len(got), err)
		}
	}
}

// Without the standard behaviour a range that can't be served is answered with the whole
// object.
func TestRanges(t *testing.T) {
	for _, c := range []struct {
		value       string
		size        int64
		standard    bool
		first, last int64 // -1: not served
	}{
		{"bytes=0-4", 10, false, 0, 4}, {"bytes=5-", 10, false, 5, 9}, {"bytes=-3", 10, false, 7, 9}, {"bytes=9-9", 10, false, 9, 9},
		{"bytes=5-10", 10, false, -1, 0}, {"bytes=5-10", 10, true, 5, 9}, {"bytes=5-9223372036854775807", 10, true, 5, 9},
		{"bytes=10-", 10, true, -1, 0}, {"bytes=10-12", 10, true, -1, 0}, {"bytes=-11", 10, true, 0, 9}, {"bytes=-11", 10, false, -1, 0},
		{"bytes=-0", 10, true, -1, 0}, {"bytes=0-0", 0, true, -1, 0}, {"bytes=4-3", 10, true, -1, 0}, {"bytes=a-b", 10, true, -1, 0},
		{"0-4", 10, true, -1, 0}, {"bytes=-", 10, true, -1, 0}, {"bytes=1-2,4-5", 10, true, -1, 0}, {"bytes=+1-2", 10, true, -1, 0},
		{"bytes=99999999999999999999-", 10, true, -1, 0},
	} {
		first, last, ok := parseRange(c.value, c.size, c.standard)
		if ok != (c.first >= 0) || ok && (first != c.first || last != c.last) {
			t.Errorf("%+v: %d to %d, %v", c, first, last, ok)
		}
	}
	s := start(t, Config{}, BucketConfig{})
	b := vault(t, s)
	b.PutObject("a", strings.NewReader("0123456789"))
	for _, c := range []struct {
		options []oss.Option
		want    string
	}{
		{[]oss.Option{oss.Range(8, 20)}, "0123456789"},
		{[]oss.Option{oss.Range(8, 20), oss.RangeBehavior("standard")}, "89"},
		{[]oss.Option{oss.Range(10, 20), oss.RangeBehavior("standard")}, "InvalidRange"},
		{[]oss.Option{oss.IfMatch("other")}, "PreconditionFailed"},
	} {
		got := ""
		if r, err := b.GetObject("a", c.options...); err != nil {
			got = code(err)
		} else {
			all, _ := io.ReadAll(r)
			got = string(all)
		}
		if got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

// Pages of a listing come one after the other, with prefix, delimiter and a name to start
// after.
func TestList(t *testing.T) {
	s := start(t, Config{}, BucketConfig{})
	b := vault(t, s)
	keys := []string{"a", "a/", "a/b", "a/b/c", "a/d", "b", "é/x", "é/y"}
	for _, k := range keys {
		if err := b.PutObject(k, strings.NewReader(k)); err != nil {
			t.Fatal(err)
		}
	}
	list := func(options ...oss.Option) (got []string, pages int) {
		token := ""
		for {
			with := options
			if token != "" {
				with = append(options[:len(options):len(options)], oss.ContinuationToken(token))
			}
			l, err := b.ListObjectsV2(with...)
			if err != nil {
				t.Fatal(err)
			}
			pages++
			for _, o := range l.Objects {
				got = append(got, o.Key)
				if o.Size != int64(len(o.Key)) {
					t.Errorf("%s has %d bytes", o.Key, o.Size)
				}
			}
			for _, p := range l.CommonPrefixes {
				got = append(got, p+"*")
			}
			if !l.IsTruncated {
				return got, pages
			}
			token = l.NextContinuationToken
		}
	}
	for _, c := range []struct {
		options []oss.Option
		want    string
		pages   int
	}{
		{nil, strings.Join(keys, " "), 1},
		{[]oss.Option{oss.MaxKeys(3)}, strings.Join(keys, " "), 3},
		{[]oss.Option{oss.Prefix("a/")}, "a/ a/b a/b/c a/d", 1},
		{[]oss.Option{oss.Prefix("a/"), oss.StartAfter("a/b")}, "a/b/c a/d", 1},
		{[]oss.Option{oss.Delimiter("/")}, "a b a/* é/*", 1},
		{[]oss.Option{oss.Delimiter("/"), oss.MaxKeys(1)}, "a a/* b é/*", 4},
		{[]oss.Option{oss.Prefix("a/"), oss.Delimiter("/")}, "a/ a/b a/d a/b/*", 1},
		{[]oss.Option{oss.Prefix("none")}, "", 1},
	} {
		got, pages := list(c.options...)
		if strings.Join(got, " ") != c.want || pages != c.pages {
			t.Errorf("%v: %q in %d pages, want %q in %d", c.options, got, pages, c.want, c.pages)
		}
	}
	for _, bad := range []oss.Option{oss.MaxKeys(0), oss.MaxKeys(1001), oss.ContinuationToken("%")} {
		_, err := b.ListObjectsV2(bad)
		wantCode(t, "a bad parameter", err, "InvalidArgument")
	}
	for _, k := range []string{"u/1", "u/1", "u/2", "v"} {
		if _, err := b.InitiateMultipartUpload(k); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]int{}
	for key, id, pages := "", "", 0; ; pages++ {
		l, err := b.ListMultipartUploads(oss.Prefix("u/"), oss.MaxUploads(1), oss.KeyMarker(key), oss.UploadIDMarker(id))
		if err != nil || pages > 5 {
			t.Fatal(pages, err)
		}
		for _, u := range l.Uploads {
			seen[u.Key]++
		}
		if !l.IsTruncated {
			break
		}
		key, id = l.NextKeyMarker, l.NextUploadIDMarker
	}
	if seen["u/1"] != 2 || seen["u/2"] != 1 || len(seen) != 2 {
		t.Errorf("uploads in pages: %v", seen)
	}
}

// What is not there, not allowed or not known is refused in the service's words; an
// answer to HEAD says it in a header.
func TestRefusals(t *testing.T) {
	s := start(t, Config{}, BucketConfig{})
	if err := s.CreateBucket("elsewhere", BucketConfig{Region: "cn-far"}); err != nil {
		t.Fatal(err)
	}
	b := vault(t, s)
	_, err := b.GetObject("none")
	wantCode(t, "GET of nothing", err, "NoSuchKey")
	_, err = b.GetObjectDetailedMeta("none")
	wantCode(t, "HEAD of nothing", err, "NoSuchKey")
	none, _ := b.Client.Bucket("none-such")
	wantCode(t, "no bucket", none.PutObject("a", strings.NewReader("")), "NoSuchBucket")
	far, _ := b.Client.Bucket("elsewhere")
	err = far.PutObject("a", strings.NewReader(""))
	var refused oss.ServiceError
	if !errors.As(err, &refused) || refused.Code != "AccessDenied" || refused.Endpoint != "oss-cn-far.aliyuncs.com" || refused.RequestID == "" {
		t.Errorf("elsewhere: %v", err)
	}
	wantCode(t, "appending", func() error { _, err := b.AppendObject("a", strings.NewReader("x"), 0); return err }(), "NotImplemented")
	wantCode(t, "tagging", b.PutObjectTagging("a", oss.Tagging{}), "NotImplemented")
	wantCode(t, "a public object", b.PutObject("a", strings.NewReader("x"), oss.ObjectACL(oss.ACLPublicRead)), "NotImplemented")
	wantCode(t, "a public bucket", b.Client.CreateBucket("public", oss.ACL(oss.ACLPublicRead)), "NotImplemented")
	wantCode(t, "what is left out, of no bucket", none.PutObjectTagging("a", oss.Tagging{}), "NoSuchBucket")
	_, err = b.Client.GetBucketLifecycle("none-such")
	wantCode(t, "what is left out, of a bucket that is not there", err, "NoSuchBucket")
	_, err = b.Client.GetBucketLifecycle("vault")
	wantCode(t, "what is left out", err, "NotImplemented")
	wantCode(t, "another digest", b.PutObject("a", strings.NewReader("x"), oss.ContentMD5("AAAA")), "InvalidDigest")
	wantCode(t, "another class", b.PutObject("a", strings.NewReader("x"), oss.ObjectStorageClass("Cheap")), "InvalidArgument")
	wantCode(t, "a key without KMS", b.PutObject("a", strings.NewReader("x"), oss.ServerSideEncryptionKeyID("k")), "InvalidArgument")
	if l, err := b.ListObjectsV2(); err != nil || len(l.Objects) > 0 {
		t.Errorf("refused puts left %v, %v", l.Objects, err)
	}
	if files, err := s.store.files(); err != nil || files > 0 {
		t.Errorf("refused puts left %d files, %v", files, err)
	}
	answer, err := http.Get(s.URL() + "/vault/a")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	var document struct {
		XMLName                          xml.Name `xml:"Error"`
		Code, Message, RequestId, HostId string
	}
	if err := xml.Unmarshal(body, &document); err != nil || answer.StatusCode != 403 || document.Code != "AccessDenied" ||
		document.RequestId != answer.Header.Get("X-Oss-Request-Id") || document.HostId == "" {
		t.Errorf("without a signature: %d, %s, %v", answer.StatusCode, body, err)
	}
}

// What was answered survives the process; what was not, and its files, do not.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	s, err := Start(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CreateBucket("vault", BucketConfig{}); err != nil {
		t.Fatal(err)
	}
	b := vault(t, s)
	if err := b.PutObject("a", strings.NewReader("content"), oss.Meta("k", "v")); err != nil {
		t.Fatal(err)
	}
	u, err := b.InitiateMultipartUpload("m")
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.UploadPart(u, strings.NewReader("part"), 4, 1)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := b.GetObjectDetailedMeta("a")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join(dir, "content", "stray")
	if err := os.WriteFile(stray, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err = Start(Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if found, err := s.HasBucket("vault"); !found || err != nil {
		t.Fatal(found, err)
	}
	b = vault(t, s)
	after, err := b.GetObjectDetailedMeta("a")
	for _, h := range []string{"ETag", "Last-Modified", "X-Oss-Hash-Crc64ecma", "X-Oss-Meta-K", "Content-Length"} {
		if err != nil || before.Get(h) == "" || before.Get(h) != after.Get(h) {
			t.Errorf("%s was %q, is %q, %v", h, before.Get(h), after.Get(h), err)
		}
	}
	if _, err := b.CompleteMultipartUpload(u, []oss.UploadPart{p}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(stray); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file without a record: %v", err)
	}
	if r, err := b.GetObject("m"); err != nil {
		t.Error(err)
	} else if got, err := io.ReadAll(r); err != nil || string(got) != "part" {
		t.Errorf("%q, %v", got, err)
	}
}

// Faults strike where they are aimed, before or after the work.
func TestFaults(t *testing.T) {
	s := start(t, Config{}, BucketConfig{})
	b := vault(t, s)
	exists := func(key string) bool {
		s.SetFault(nil)
		_, err := b.GetObjectDetailedMeta(key)
		return err == nil
	}
	for i, c := range []struct {
		fault Fault
		done  bool // the put has its effect
		want  string
	}{
		{Fault{Err: &Error{Status: 503, Code: "ServiceUnavailable"}}, false, "ServiceUnavailable"},
		{Fault{Err: &Error{Code: "InternalError"}, After: true}, true, "InternalError"},
		{Fault{Cut: CutSilent}, false, "EOF"},
		{Fault{Cut: CutSilent, After: true}, true, "EOF"},
		{Fault{Cut: CutMiddle}, true, "EOF"},
		{Fault{Delay: time.Millisecond}, true, "<nil>"},
		{Fault{Delay: time.Millisecond, After: true}, true, "<nil>"},
		{Fault{WrongChecksum: true}, true, "crc of DoPutObject is inconsistent"},
	} {
		key := fmt.Sprint(i)
		s.SetFault(func(r Request) *Fault {
			if r.Operation != "PutObject" || r.Object != key {
				return nil
			}
			return &c.fault
		})
		err := b.PutObject(key, strings.NewReader("content"))
		if !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%+v: %v, want %s", c.fault, err, c.want)
		}
		if got := exists(key); got != c.done {
			t.Errorf("%+v: done: %v", c.fault, got)
		}
	}
	s.SetFault(func(r Request) *Fault { return &Fault{Cut: CutMiddle} })
	r, err := b.GetObject("5")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); string(got) != "con" || err != io.ErrUnexpectedEOF {
		t.Errorf("half an answer: %q, %v", got, err)
	}
	if s.Calls("PutObject") != 8 || s.Calls("") < 16 {
		t.Errorf("%d and %d calls", s.Calls("PutObject"), s.Calls(""))
	}
}

// No header, path, query or document, whatever it is, makes the server panic or answer
// with anything but a document of its own; what parses as an authorization is written
// back the same.
func FuzzRequest(f *testing.F) {
	s := start(f, Config{Now: func() time.Time { return time.Date(2026, 11, 20, 2, 14, 0, 0, time.UTC) }}, BucketConfig{})
	const scope = "OSS4-HMAC-SHA256 Credential=local/20261120/local/oss/aliyun_v4_request,"
	for _, seed := range [][6]string{
		{"GET", "/vault/a%2Fb", "versionId=1", "OSS local:AAAA", "bytes=0-1", ""},
		{"POST", "/vault/a", "uploadId=0", scope + "AdditionalHeaders=host;range,Signature=00", "", "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"x\"</ETag></Part></CompleteMultipartUpload>"},
		{"PUT", "/vault/", "versioning", scope + "Signature=", "", "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"},
		{"POST", "/vault/", "worm", "OSS :", "", "<InitiateWormConfiguration><RetentionPeriodInDays>1</RetentionPeriodInDays></InitiateWormConfiguration>"},
		{"GET", "/vault", "list-type=2&max-keys=0&continuation-token=%25&encoding-type=x", "OSS4-HMAC-SHA256 Credential=a/b/c/d/e", "bytes=-5", ""},
		{"PUT", "/vault/%zz", "partNumber=-1&uploadId=", "", "", "x"},
		{"HEAD", "//", "%zz", "OSS", "", ""},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3], seed[4], seed[5])
	}
	f.Fuzz(func(t *testing.T, method, path, query, authorization, ranges, body string) {
		if a, err := parseAuthorization(authorization); err == nil && a.v4 {
			again := algorithmV4 + " Credential=" + a.keyID + "/" + a.day + "/" + a.region + "/oss/aliyun_v4_request,"
			if a.additional != nil {
				again += "AdditionalHeaders=" + strings.Join(a.additional, ";") + ","
			}
			if b, err := parseAuthorization(again + "Signature=" + a.signature); err != nil || fmt.Sprint(a) != fmt.Sprint(b) {
				t.Errorf("%q is %+v, and then %+v, %v", authorization, a, b, err)
			}
		}
		r, err := http.NewRequest("GET", "http://server/", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		u, err := r.URL.Parse(path + "?" + query)
		if err != nil || method == "" || strings.ContainsAny(method, " \r\n") {
			return
		}
		r.Method, r.URL, r.Host = method, u, "server"
		r.Header.Set("Authorization", authorization)
		r.Header.Set("Range", ranges)
		r.Header.Set("X-Oss-Range-Behavior", "standard")
		r.Header.Set("Date", "Fri, 20 Nov 2026 02:14:00 GMT")
		// Signed as it must be, so that the request gets past the guard.
		c := &call{s: s, r: r, now: s.config.Now()}
		if c.parse() == nil {
			for _, sign := range []bool{false, true} {
				if sign {
					signature, _ := c.signatureV1(unsignedYet, DefaultKeySecret)
					r.Header.Set("Authorization", "OSS "+DefaultKeyID+":"+signature)
				}
				serveOne(t, s, r)
			}
			return
		}
		serveOne(t, s, r)
	})
}

// unsignedYet is the header of a request that is to be signed by version 1.
var unsignedYet authorization

func serveOne(t *testing.T, s *Server, r *http.Request) {
	t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code >= 500 && w.Code != http.StatusNotImplemented {
		t.Errorf("%s %s: %d %s", r.Method, r.URL, w.Code, w.Body)
	}
	if w.Code >= 400 && r.Method != http.MethodHead {
		var document struct {
			XMLName xml.Name `xml:"Error"`
			Code    string
		}
		if err := xml.Unmarshal(w.Body.Bytes(), &document); err != nil || document.Code == "" {
			t.Errorf("%s %s: %d %q: %v", r.Method, r.URL, w.Code, w.Body, err)
		}
	}
}

// No range is served that is not within the object.
func FuzzRange(f *testing.F) {
	for _, seed := range []string{"bytes=0-4", "bytes=-3", "bytes=5-", "bytes=9-1", "bytes=9223372036854775807-"} {
		f.Add(seed, int64(10), true)
		f.Add(seed, int64(0), false)
	}
	f.Fuzz(func(t *testing.T, value string, size int64, standard bool) {
		if size < 0 {
			return
		}
		first, last, ok := parseRange(value, size, standard)
		if ok && (first < 0 || last < first || last >= size) {
			t.Errorf("%q of %d bytes: %d to %d", value, size, first, last)
		}
	})
}
