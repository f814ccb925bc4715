package ots

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
)

const (
	headerPrefix      = "x-ots-"
	headerDate        = "x-ots-date"
	headerVersion     = "x-ots-apiversion"
	headerKeyID       = "x-ots-accesskeyid"
	headerInstance    = "x-ots-instancename"
	headerMD5         = "x-ots-contentmd5"
	headerToken       = "x-ots-ststoken"
	headerSignature   = "x-ots-signature"
	headerSignatureV4 = "x-ots-signaturev4"
	headerRegion      = "x-ots-signregion"
	headerSignDate    = "x-ots-signdate"
	headerRequestID   = "x-ots-requestid"
	headerContentType = "x-ots-contenttype"
	headerZip         = "x-ots-request-compress-type"
	headerZipSize     = "x-ots-request-compress-size"
	headerAnswerZip   = "x-ots-response-compress-type"
)

// headerLines is what both signatures cover of the headers: those of the
// protocol but the signatures themselves, in order of their names.
func headerLines(h http.Header) string {
	var lines []string
	for name, values := range h {
		name = strings.ToLower(name)
		if !strings.HasPrefix(name, headerPrefix) || name == headerSignature || name == headerSignatureV4 || len(values) == 0 {
			continue
		}
		lines = append(lines, name+":"+strings.TrimSpace(values[0])+"\n")
	}
	// A colon comes after the hyphen that a longer name would have there, so
	// the names are compared, not the lines.
	slices.SortFunc(lines, func(a, b string) int {
		return strings.Compare(a[:strings.IndexByte(a, ':')], b[:strings.IndexByte(b, ':')])
	})
	return strings.Join(lines, "")
}

func sum1(key, text string) []byte {
	m := hmac.New(sha1.New, []byte(key))
	m.Write([]byte(text))
	return m.Sum(nil)
}

func sum256(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// signedWell checks a request's signature of either version.
func signedWell(path string, h http.Header, secret string) bool {
	text := path + "\nPOST\n\n" + headerLines(h)
	if got := h.Get(headerSignatureV4); got != "" {
		want := base64.StdEncoding.EncodeToString(sum256([]byte(signingKey(secret, h.Get(headerSignDate), h.Get(headerRegion))), text+"ots"))
		return hmac.Equal([]byte(got), []byte(want))
	}
	want := base64.StdEncoding.EncodeToString(sum1(secret, text))
	return hmac.Equal([]byte(h.Get(headerSignature)), []byte(want))
}

// signingKey is the key of signatures of version 4 for a day and a region.
func signingKey(secret, date, region string) string {
	k := sum256([]byte("aliyun_v4"+secret), date)
	k = sum256(k, region)
	k = sum256(k, "ots")
	k = sum256(k, "aliyun_v4_request")
	return base64.StdEncoding.EncodeToString(k)
}

// answerSignatureV4 is answerSignature with the hash and the key of requests of
// version 4.
func answerSignatureV4(path string, h http.Header, key string) string {
	return base64.StdEncoding.EncodeToString(sum256([]byte(key), headerLines(h)+path))
}

// answerSignature signs an answer, whose headers are complete.
func answerSignature(path string, h http.Header, secret string) string {
	return base64.StdEncoding.EncodeToString(sum1(secret, headerLines(h)+path))
}
