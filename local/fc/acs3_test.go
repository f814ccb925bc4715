package fc

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

var signedAt = time.Date(2026, 11, 20, 2, 14, 0, 0, time.UTC)

// signed returns a request signed as the client does it, after edit.
func signed(t *testing.T, target string, body string, edit func(*http.Request)) *http.Request {
	t.Helper()
	r := httptest.NewRequest("POST", target, strings.NewReader(body))
	sum := sha256.Sum256([]byte(body))
	for name, value := range map[string]string{
		"x-acs-action": "InvokeFunction", "x-acs-version": "2023-03-30", "x-acs-date": signedAt.Format("2006-01-02T15:04:05Z"),
		"x-acs-signature-nonce": t.Name(), "x-acs-content-sha256": hex.EncodeToString(sum[:]), "content-type": " application/octet-stream ",
	} {
		r.Header.Set(name, value)
	}
	if edit != nil {
		edit(r)
	}
	names := []string{"content-type", "host", "x-acs-action", "x-acs-content-sha256", "x-acs-date", "x-acs-signature-nonce", "x-acs-version"}
	if r.Header.Get("x-acs-security-token") != "" {
		names = append(names, "x-acs-security-token")
	}
	r.Header.Set("Authorization", algorithm+" Credential=id,SignedHeaders="+strings.Join(names, ";")+",Signature="+
		hex.EncodeToString(sign("secret", canonical(r, names, r.Header.Get("x-acs-content-sha256")))))
	return r
}

func testVerifier() *verifier {
	return newVerifier(func(id, token string) (string, error) {
		switch {
		case id != "id":
			return "", errUnknownKey
		case token != "" && token != "token":
			return "", errors.New("another token")
		}
		return "secret", nil
	})
}

func TestVerify(t *testing.T) {
	const plain = "http://host:1/2023-03-30/functions/f/invocations"
	for name, test := range map[string]struct {
		target string
		before func(*http.Request) // signed with
		after  func(*http.Request) // changed after
		at     time.Duration
		want   string // of the error; empty if it is good
	}{
		"good":              {target: plain},
		"query":             {target: plain + "?qualifier=LATEST&a=b+c*~%2F&e="},
		"odd path":          {target: "http://host:1/2023-03-30/functions/a%2Fb%20c*~/async-tasks/x"},
		"token":             {target: plain, before: func(r *http.Request) { r.Header.Set("x-acs-security-token", "token") }},
		"a quarter's skew":  {target: plain, at: 15 * time.Minute},
		"service's headers": {target: plain, after: func(r *http.Request) { r.Header.Set("x-fc-invocation-type", "Async") }},

		"unsigned":        {target: plain, after: func(r *http.Request) { r.Header.Del("Authorization") }, want: "not signed with"},
		"other algorithm": {target: plain, after: func(r *http.Request) { r.Header.Set("Authorization", "ACS3-RSA-SHA256 Credential=id") }, want: "not signed with"},
		"unknown key":     {target: plain, after: replace("Authorization", "Credential=id", "Credential=di"), want: "invalid access key ID"},
		"wrong token":     {target: plain, before: func(r *http.Request) { r.Header.Set("x-acs-security-token", "nekot") }, want: "token"},
		"wrong signature": {target: plain, after: replace("Authorization", "Signature=", "Signature=00"), want: "signature is wrong"},
		"no signature":    {target: plain, after: func(r *http.Request) { r.Header.Set("Authorization", algorithm+" Credential=id") }, want: "not signed"},
		"date not signed": {target: plain, after: replace("Authorization", "x-acs-date;", ""), want: "x-acs-date is not signed"},
		"other path":      {target: plain, after: func(r *http.Request) { r.URL.Path = "/2023-03-30/functions/g/invocations" }, want: "signature is wrong"},
		"other query":     {target: plain, after: func(r *http.Request) { r.URL.RawQuery = "qualifier=x" }, want: "signature is wrong"},
		"other method":    {target: plain, after: func(r *http.Request) { r.Method = "PUT" }, want: "signature is wrong"},
		"other host":      {target: plain, after: func(r *http.Request) { r.Host = "elsewhere" }, want: "signature is wrong"},
		"other body":      {target: plain, after: func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("{ }")) }, want: "body"},
		"other date":      {target: plain, after: func(r *http.Request) { r.Header.Set("x-acs-date", "2026-11-20T02:14:01Z") }, want: "signature is wrong"},
		"no date":         {target: plain, before: func(r *http.Request) { r.Header.Set("x-acs-date", "now") }, want: "x-acs-date"},
		"stale":           {target: plain, at: 15*time.Minute + time.Second, want: "from the host's"},
		"from the future": {target: plain, at: -15*time.Minute - time.Second, want: "from the host's"},
	} {
		t.Run(name, func(t *testing.T) {
			r := signed(t, test.target, `{}`, test.before)
			if test.after != nil {
				test.after(r)
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			id, err := testVerifier().verify(r, body, signedAt.Add(test.at))
			switch {
			case test.want == "" && (err != nil || id != "id"):
				t.Errorf("refused: %v", err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("error %v does not mention %q", err, test.want)
			}
		})
	}
}

func replace(header, old, new string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(header, strings.Replace(r.Header.Get(header), old, new, 1)) }
}

// TestVerifyRefusesReplays: a request is good once, and a nonce is remembered for as long
// as its request could pass.
func TestVerifyRefusesReplays(t *testing.T) {
	v := testVerifier()
	r := signed(t, "http://host:1/", "", nil)
	if _, err := v.verify(r, nil, signedAt.Add(-maxSkew)); err != nil {
		t.Fatal(err)
	}
	for _, later := range []time.Duration{0, maxSkew} {
		if _, err := v.verify(r, nil, signedAt.Add(later)); err == nil || !strings.Contains(err.Error(), "nonce") {
			t.Errorf("%v later: %v", later, err)
		}
	}
	other := signed(t, "http://host:1/", "", func(r *http.Request) {
		r.Header.Set("x-acs-signature-nonce", "another")
		r.Header.Set("x-acs-date", signedAt.Add(time.Hour).Format("2006-01-02T15:04:05Z"))
	})
	if _, err := v.verify(other, nil, signedAt.Add(time.Hour)); err != nil || len(v.nonces) != 1 {
		t.Errorf("%v, %d nonces", err, len(v.nonces))
	}
}

// FuzzVerify: no header makes it panic, and nothing but the signed request passes.
func FuzzVerify(f *testing.F) {
	f.Add(algorithm+" Credential=id,SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version,Signature=00", "n", "2026-11-20T02:14:00Z", []byte("{}"))
	f.Add(algorithm+" ,,=,;", "", "", []byte(nil))
	f.Fuzz(func(t *testing.T, authorization, nonce, date string, body []byte) {
		r := httptest.NewRequest("POST", "http://host:1/x", bytes.NewReader(body))
		r.Header = http.Header{"Authorization": {authorization}, "X-Acs-Signature-Nonce": {nonce}, "X-Acs-Date": {date}}
		if _, err := testVerifier().verify(r, body, signedAt); err == nil {
			t.Error("passed")
		}
	})
}
