package tablestore

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"time"

	"github.com/tablevault/tablevault/shared/access"
)

const apiVersion = "2015-12-31"

// header makes the headers of a request and signs them. What is signed is the path, the
// method, and a line for each of the protocol's headers in the order of their names.
func (c *Client) header(op string, body []byte, creds access.Key, now time.Time) http.Header {
	now = now.UTC()
	sum := md5.Sum(body)
	h := make(http.Header, 12)
	text := make([]byte, 0, 512)
	text = append(text, '/')
	text = append(text, op...)
	text = append(text, "\nPOST\n\n"...)
	sign := func(name, canonical, value string) {
		h[canonical] = []string{value}
		text = append(text, name...)
		text = append(text, ':')
		text = append(text, value...)
		text = append(text, '\n')
	}
	day := now.Format("20060102")
	sign("x-ots-accesskeyid", "X-Ots-Accesskeyid", creds.ID)
	sign("x-ots-apiversion", "X-Ots-Apiversion", apiVersion)
	sign("x-ots-contentmd5", "X-Ots-Contentmd5", base64.StdEncoding.EncodeToString(sum[:]))
	sign("x-ots-date", "X-Ots-Date", now.Format("2006-01-02T15:04:05.000Z"))
	sign("x-ots-instancename", "X-Ots-Instancename", c.config.Instance)
	if c.config.SignV4 {
		sign("x-ots-signdate", "X-Ots-Signdate", day)
		sign("x-ots-signregion", "X-Ots-Signregion", c.config.Region)
	}
	if creds.Token != "" {
		sign("x-ots-ststoken", "X-Ots-Ststoken", creds.Token)
	}
	if c.config.SignV4 {
		text = append(text, "ots"...)
		h["X-Ots-Signaturev4"] = []string{base64.StdEncoding.EncodeToString(sum256(signingKey(creds.Secret, day, c.config.Region), text))}
	} else {
		m := hmac.New(sha1.New, []byte(creds.Secret))
		m.Write(text)
		h["X-Ots-Signature"] = []string{base64.StdEncoding.EncodeToString(m.Sum(nil))}
	}
	h["User-Agent"] = []string{"tablevault"}
	h["Content-Type"] = []string{"application/x-protobuf"}
	// A page has to be measured before it is read, so it must come as it is.
	h["Accept-Encoding"] = []string{"identity"}
	return h
}

// signingKey is the key of signatures of version 4 on one day in one region: the text,
// not the bytes, of the last sum.
func signingKey(secret, day, region string) []byte {
	k := sum256([]byte("aliyun_v4"+secret), []byte(day))
	k = sum256(k, []byte(region))
	k = sum256(k, []byte("ots"))
	k = sum256(k, []byte("aliyun_v4_request"))
	return []byte(base64.StdEncoding.EncodeToString(k))
}

func sum256(key, text []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(text)
	return m.Sum(nil)
}
