package ots

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
)

// The protocol's headers, spelled as in an http.Header: looking them up takes no time for
// spelling then. In signatures and messages they are in lower case.
const (
	headerPrefix      = "X-Ots-"
	headerDate        = "X-Ots-Date"
	headerVersion     = "X-Ots-Apiversion"
	headerKeyID       = "X-Ots-Accesskeyid"
	headerInstance    = "X-Ots-Instancename"
	headerMD5         = "X-Ots-Contentmd5"
	headerToken       = "X-Ots-Ststoken"
	headerSignature   = "X-Ots-Signature"
	headerSignatureV4 = "X-Ots-Signaturev4"
	headerRegion      = "X-Ots-Signregion"
	headerSignDate    = "X-Ots-Signdate"
	headerRequestID   = "X-Ots-Requestid"
	headerContentType = "X-Ots-Contenttype"
	headerZip         = "X-Ots-Request-Compress-Type"
	headerZipSize     = "X-Ots-Request-Compress-Size"
	headerAnswerZip   = "X-Ots-Response-Compress-Type"
	headerAnswerSize  = "X-Ots-Response-Compress-Size"
)

// appendHeaders appends what both signatures cover of the headers: a line for each of the
// protocol's but the signatures themselves, in order of their names.
func appendHeaders(b []byte, h http.Header) []byte {
	var room [16]string
	names := room[:0]
	for name, values := range h {
		if len(name) > len(headerPrefix) && strings.EqualFold(name[:len(headerPrefix)], headerPrefix) && name != headerSignature && name != headerSignatureV4 && len(values) > 0 {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		for i := range min(len(a), len(b)) {
			if c := cmp.Compare(lower(a[i]), lower(b[i])); c != 0 {
				return c
			}
		}
		return cmp.Compare(len(a), len(b))
	})
	for _, name := range names {
		for i := range len(name) {
			b = append(b, lower(name[i]))
		}
		b = append(b, ':')
		b = append(b, strings.TrimSpace(h[name][0])...)
		b = append(b, '\n')
	}
	return b
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

func sum1(key string, text []byte) []byte {
	m := hmac.New(sha1.New, []byte(key))
	m.Write(text)
	return m.Sum(nil)
}

func sum256(key, text []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(text)
	return m.Sum(nil)
}

// signedWell checks a request's signature of either version.
func signedWell(path string, h http.Header, secret string) bool {
	text := append(make([]byte, 0, 512), path...)
	text = append(text, "\nPOST\n\n"...)
	text = appendHeaders(text, h)
	if got := h.Get(headerSignatureV4); got != "" {
		key := signingKey(secret, h.Get(headerSignDate), h.Get(headerRegion))
		return signs(got, sum256(key, append(text, "ots"...)))
	}
	return signs(h.Get(headerSignature), sum1(secret, text))
}

// signs says whether a signature is a sum.
func signs(signature string, sum []byte) bool {
	return hmac.Equal([]byte(signature), []byte(base64.StdEncoding.EncodeToString(sum)))
}

// signingKey is the key of signatures of version 4 for a day and a region.
func signingKey(secret, date, region string) []byte {
	k := sum256([]byte("aliyun_v4"+secret), []byte(date))
	k = sum256(k, []byte(region))
	k = sum256(k, []byte("ots"))
	k = sum256(k, []byte("aliyun_v4_request"))
	return []byte(base64.StdEncoding.EncodeToString(k))
}

// answerText is what the signature of an answer covers, whose headers are complete.
func answerText(path string, h http.Header) []byte {
	return append(appendHeaders(make([]byte, 0, 512), h), path...)
}

// answerSignatureV4 is answerSignature with the hash and the key of requests of version
// 4.
func answerSignatureV4(path string, h http.Header, key []byte) string {
	return base64.StdEncoding.EncodeToString(sum256(key, answerText(path, h)))
}

// answerSignature signs an answer, whose headers are complete.
func answerSignature(path string, h http.Header, secret string) string {
	return base64.StdEncoding.EncodeToString(sum1(secret, answerText(path, h)))
}
