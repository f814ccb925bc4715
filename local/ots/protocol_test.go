package ots_test

import (
	"bytes"
	"compress/zlib"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/common"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/golang/protobuf/proto"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/ots/otstest"
)

func TestRefusedRequests(t *testing.T) {
	t.Parallel()
	keys := []ots.Key{
		{ID: ots.DefaultKeyID, Secret: ots.DefaultKeySecret},
		{ID: "temporary", Secret: "s", Token: "token", Expires: time.Now().Add(time.Hour)},
		{ID: "expired", Secret: "s", Token: "token", Expires: time.Now().Add(-time.Second)},
	}
	s := otstest.Run(t, ots.Config{Keys: keys, Instances: []string{"local"}})
	for _, test := range []struct {
		name    string
		change  func(r *http.Request)
		secret  string
		status  int
		code    string
		message string
	}{
		{name: "wrong secret", secret: "wrong", status: 403, code: "OTSAuthFailed", message: "Signature mismatch."},
		{
			name:   "unknown key",
			change: func(r *http.Request) { r.Header.Set("x-ots-accesskeyid", "nobody") },
			status: 403, code: "OTSAuthFailed", message: "The AccessKeyID does not exist.",
		},
		{
			name:   "missing date",
			change: func(r *http.Request) { r.Header.Del("x-ots-date") },
			status: 400, code: badParameter, message: "Missing header: 'x-ots-date'.",
		},
		{
			name: "old date",
			change: func(r *http.Request) {
				r.Header.Set("x-ots-date", time.Now().Add(-16*time.Minute).UTC().Format("2006-01-02T15:04:05.000Z"))
			},
			status: 403, code: "OTSAuthFailed", message: "Mismatch between system time and x-ots-date: DATE.",
		},
		{
			name: "date of an hour ahead",
			change: func(r *http.Request) {
				r.Header.Set("x-ots-date", time.Now().Add(time.Hour).UTC().Format("2006-01-02T15:04:05Z"))
			},
			status: 403, code: "OTSAuthFailed", message: "Mismatch between system time and x-ots-date: DATE.",
		},
		{
			name:   "wrong checksum",
			change: func(r *http.Request) { r.Header.Set("x-ots-contentmd5", "1B2M2Y8AsgTpgAmY7PhCfA==") },
			status: 403, code: "OTSAuthFailed", message: "Mismatch between MD5 value of request body and x-ots-contentmd5 in header.",
		},
		{
			name:   "another instance",
			change: func(r *http.Request) { r.Header.Set("x-ots-instancename", "elsewhere") },
			status: 403, code: "OTSAuthFailed", message: "The instance is not found.",
		},
		{
			name:   "temporary key without its token",
			change: func(r *http.Request) { r.Header.Set("x-ots-accesskeyid", "temporary") },
			secret: "s", status: 403, code: "OTSAuthFailed", message: "The security token is invalid.",
		},
		{
			name: "expired token",
			change: func(r *http.Request) {
				r.Header.Set("x-ots-accesskeyid", "expired")
				r.Header.Set("x-ots-ststoken", "token")
			},
			secret: "s", status: 403, code: "OTSAuthFailed", message: "The security token is expired.",
		},
		{
			name:   "unknown operation",
			change: func(r *http.Request) { r.URL.Path = "/MakeCoffee" },
			status: 400, code: badParameter, message: "Unsupported operation: 'MakeCoffee'.",
		},
		{
			name:   "operation that is left out",
			change: func(r *http.Request) { r.URL.Path = "/SQLQuery" },
			status: 400, code: "OTSUnsupportOperation", message: "Unsupported operation: 'SQLQuery' is left out of the local server.",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := request(t, s.URL(), "ListTable", &otsprotocol.ListTableRequest{})
			if test.change != nil {
				test.change(r)
			}
			if r.Header.Get("x-ots-date") != "" {
				secret := test.secret
				if secret == "" {
					secret = ots.DefaultKeySecret
				}
				sign(t, r, secret)
			}
			res, err := http.DefaultClient.Do(r)
			ok(t, err)
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			ok(t, err)
			var got otsprotocol.Error
			ok(t, proto.Unmarshal(body, &got))
			message := strings.ReplaceAll(test.message, "DATE", r.Header.Get("x-ots-date"))
			if res.StatusCode != test.status || got.GetCode() != test.code || got.GetMessage() != message {
				t.Errorf("answer %d %s %q, want %d %s %q", res.StatusCode, got.GetCode(), got.GetMessage(), test.status, test.code, message)
			}
		})
	}
	t.Run("method", func(t *testing.T) {
		res, err := http.Get(s.URL() + "/ListTable")
		ok(t, err)
		res.Body.Close()
		if res.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("GET is answered %d", res.StatusCode)
		}
	})
	t.Run("too large", func(t *testing.T) {
		res, err := http.DefaultClient.Do(requestBytes(t, s.URL(), "PutRow", make([]byte, 5<<20+1)))
		ok(t, err)
		res.Body.Close()
		if res.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("a body of 5 MiB and a byte is answered %d", res.StatusCode)
		}
	})
	t.Run("garbage", func(t *testing.T) {
		res, err := http.DefaultClient.Do(requestBytes(t, s.URL(), "GetRange", []byte("garbage")))
		ok(t, err)
		res.Body.Close()
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("garbage is answered %d", res.StatusCode)
		}
	})
}

func TestAcceptedSignatures(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{Keys: []ots.Key{{ID: "id", Secret: "secret"}, {ID: "sts", Secret: "secret", Token: "token"}}})
	for name, credentials := range map[string]common.Credentials{
		"v1":             &common.DefaultCredentials{AccessKeyID: "id", AccessKeySecret: "secret"},
		"v1 temporary":   &common.DefaultCredentials{AccessKeyID: "sts", AccessKeySecret: "secret", SecurityToken: "token"},
		"v4":             common.CreateByCredentials(&common.DefaultCredentials{AccessKeyID: "id", AccessKeySecret: "secret"}, "cn-hangzhou").GetCredentials(),
		"v4 temporary":   common.CreateByCredentials(&common.DefaultCredentials{AccessKeyID: "sts", AccessKeySecret: "secret", SecurityToken: "token"}, "cn-hangzhou").GetCredentials(),
		"v4 of a region": common.CreateByCredentials(&common.DefaultCredentials{AccessKeyID: "id", AccessKeySecret: "secret"}, "us-west-1").GetCredentials(),
	} {
		t.Run(name, func(t *testing.T) {
			config := tablestore.NewDefaultTableStoreConfig()
			config.RetryTimes = 0
			c := tablestore.NewClientWithCredentialsProvider(s.URL(), "local", provider{credentials}, config)
			if _, err := c.ListTable(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("v4 with a wrong secret", func(t *testing.T) {
		c := common.CreateByCredentials(&common.DefaultCredentials{AccessKeyID: "id", AccessKeySecret: "wrong"}, "cn-hangzhou")
		_, err := tablestore.NewClientWithCredentialsProvider(s.URL(), "local", c, nil).ListTable()
		want(t, err, 403, "OTSAuthFailed", "Signature mismatch.")
	})
}

type provider struct{ c common.Credentials }

func (p provider) GetCredentials() common.Credentials { return p.c }

// TestAnswers proves what strict clients check of each answer, by their own rules: the
// headers, the checksum of the body, and the signature.
func TestAnswers(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{})
	create(t, connect(s), tablestore.TableOption{}, tablestore.PrimaryKeyType_STRING)
	for _, test := range []struct {
		op     string
		m      proto.Message
		status int
		empty  bool
	}{
		{"ListTable", &otsprotocol.ListTableRequest{}, 200, false},
		{"DescribeTable", &otsprotocol.DescribeTableRequest{TableName: proto.String("none")}, 404, false},
		{"DeleteTable", &otsprotocol.DeleteTableRequest{TableName: proto.String("t")}, 200, true},
	} {
		t.Run(test.op, func(t *testing.T) {
			res, err := http.DefaultClient.Do(request(t, s.URL(), test.op, test.m))
			ok(t, err)
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			ok(t, err)
			if res.StatusCode != test.status || (len(body) == 0) != test.empty {
				t.Fatalf("status %d and %d bytes", res.StatusCode, len(body))
			}
			h := res.Header
			sum := md5.Sum(body)
			if got := h.Get("x-ots-contentmd5"); got != base64.StdEncoding.EncodeToString(sum[:]) {
				t.Errorf("checksum %q", got)
			}
			if id := h.Get("x-ots-requestid"); !regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(id) {
				t.Errorf("request id %q", id)
			}
			date, err := time.Parse("2006-01-02T15:04:05.000000Z", h.Get("x-ots-date"))
			if err != nil || time.Since(date).Abs() > time.Minute {
				t.Errorf("date %q: %v", h.Get("x-ots-date"), err)
			}
			if h.Get("x-ots-contenttype") == "" {
				t.Error("no content type")
			}
			var lines []string
			for name := range h {
				if name := strings.ToLower(name); strings.HasPrefix(name, "x-ots-") {
					lines = append(lines, name+":"+h.Get(name))
				}
			}
			slices.Sort(lines)
			mac := hmac.New(sha1.New, []byte(ots.DefaultKeySecret))
			fmt.Fprintf(mac, "%s\n/%s", strings.Join(lines, "\n"), test.op)
			if got, want := h.Get("Authorization"), "OTS "+ots.DefaultKeyID+":"+base64.StdEncoding.EncodeToString(mac.Sum(nil)); got != want {
				t.Errorf("authorization %q, want %q", got, want)
			}
		})
	}
}

func TestCompression(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{})
	c := connect(s)
	create(t, c, tablestore.TableOption{}, tablestore.PrimaryKeyType_STRING)
	ok(t, put(c, key("a"), cell{"c", strings.Repeat("text ", 1000), -1}))
	body, err := proto.Marshal(&otsprotocol.DescribeTableRequest{TableName: proto.String("t")})
	ok(t, err)
	deflate := func(b []byte) []byte {
		var out bytes.Buffer
		z := zlib.NewWriter(&out)
		_, err := z.Write(b)
		ok(t, err)
		ok(t, z.Close())
		return out.Bytes()
	}
	do := func(body []byte, op, size string) (*http.Response, []byte) {
		r := requestBytes(t, s.URL(), op, deflate(body))
		r.Header.Set("x-ots-request-compress-type", "deflate")
		r.Header.Set("x-ots-request-compress-size", size)
		r.Header.Set("x-ots-response-compress-type", "deflate")
		sign(t, r, ots.DefaultKeySecret)
		// The SDK signs a fixed list of headers, which lacks these.
		resign(r)
		res, err := http.DefaultClient.Do(r)
		ok(t, err)
		defer res.Body.Close()
		answer, err := io.ReadAll(res.Body)
		ok(t, err)
		return res, answer
	}
	res, answer := do(body, "DescribeTable", fmt.Sprint(len(body)))
	if res.StatusCode != 200 {
		t.Fatalf("status %d: %s", res.StatusCode, answer)
	}
	if res.Header.Get("x-ots-response-compress-type") == "deflate" {
		z, err := zlib.NewReader(bytes.NewReader(answer))
		ok(t, err)
		answer, err = io.ReadAll(z)
		ok(t, err)
	}
	var d otsprotocol.DescribeTableResponse
	ok(t, proto.Unmarshal(answer, &d))
	if d.TableMeta.GetTableName() != "t" {
		t.Errorf("description of %q", d.TableMeta.GetTableName())
	}
	if res, _ := do(body, "DescribeTable", fmt.Sprint(len(body)-1)); res.StatusCode != 400 {
		t.Errorf("a wrong size is answered %d", res.StatusCode)
	}
	if res, _ := do(make([]byte, 6<<20), "DescribeTable", fmt.Sprint(6<<20)); res.StatusCode != 413 {
		t.Errorf("a body that inflates beyond the limit is answered %d", res.StatusCode)
	}
}

// resign signs all headers, as the clients of other languages do.
func resign(r *http.Request) {
	var lines []string
	for name := range r.Header {
		if name := strings.ToLower(name); strings.HasPrefix(name, "x-ots-") && name != "x-ots-signature" {
			lines = append(lines, name+":"+r.Header.Get(name)+"\n")
		}
	}
	slices.Sort(lines)
	mac := hmac.New(sha1.New, []byte(ots.DefaultKeySecret))
	fmt.Fprintf(mac, "%s\nPOST\n\n%s", r.URL.Path, strings.Join(lines, ""))
	r.Header.Set("x-ots-signature", base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

func TestPermissions(t *testing.T) {
	t.Parallel()
	s := otstest.Run(t, ots.Config{Keys: []ots.Key{
		{ID: ots.DefaultKeyID, Secret: ots.DefaultKeySecret},
		{ID: "reader", Secret: "s", Deny: []ots.Rule{{Operation: "*Table", Table: "?*"}, {Operation: "*Write*"}, {Operation: "PutRow", Table: "t"}}},
	}})
	owner, reader := connect(s), connectAs(s, "reader", "s", "")
	create(t, owner, tablestore.TableOption{}, tablestore.PrimaryKeyType_STRING)
	const denied = "You have no permission to access the requested resource, please contact the resource owner."
	want(t, put(reader, key("a")), 403, "OTSNoPermissionAccess", denied)
	_, err := reader.DescribeTable(&tablestore.DescribeTableRequest{TableName: "t"})
	want(t, err, 403, "OTSNoPermissionAccess", denied)
	batch := &tablestore.BatchWriteRowRequest{}
	batch.AddRowChange(putChange(key("a"), cell{"c", "v", -1}))
	_, err = reader.BatchWriteRow(batch)
	want(t, err, 403, "OTSNoPermissionAccess", denied)
	if _, err := reader.ListTable(); err != nil {
		t.Error(err)
	}
	ok(t, put(owner, key("a"), cell{"c", "v", -1}))
	if _, found := get(t, reader, key("a")); !found {
		t.Error("a key that may read does not see the row")
	}
}
