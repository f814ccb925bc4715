package oss

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// maxSkew is how far the date of a request may be off the server's.
	maxSkew = 15 * time.Minute

	algorithmV4 = "OSS4-HMAC-SHA256"
	dateV4      = "20060102T150405Z"
	dayV4       = "20060102"
)

// maxLife is how long a URL that is signed by version 4 is good at most.
const maxLife = 7 * 24 * time.Hour

// authenticate finds the key that signed the request, and checks the signature, the date,
// the token and what the key may do, in the order in which the service does.
func (c *call) authenticate() error {
	a, err := c.signed()
	if err != nil {
		return err
	}
	key, known := c.s.key(a.keyID)
	if !known || key.Token != "" && a.token == "" {
		return &Error{http.StatusForbidden, "InvalidAccessKeyId", "The OSS Access Key Id you provided does not exist in our records.",
			map[string]string{"OSSAccessKeyId": a.keyID}}
	}
	if err := c.checkDate(a); err != nil {
		return err
	}
	var want, text string
	if a.v4 {
		want, text = c.signatureV4(a, key.Secret)
	} else {
		want, text = c.signatureV1(a, key.Secret)
	}
	if !hmac.Equal([]byte(want), []byte(a.signature)) {
		return &Error{http.StatusForbidden, "SignatureDoesNotMatch",
			"The request signature we calculated does not match the signature you provided. Check your key and signing method.",
			map[string]string{"OSSAccessKeyId": a.keyID, "SignatureProvided": a.signature, "StringToSign": text}}
	}
	switch {
	case key.Token != a.token:
		return &Error{http.StatusForbidden, "InvalidSecurityToken", "The security token you provided is invalid.", nil}
	case !key.Expires.IsZero() && !c.now.Before(key.Expires):
		return &Error{http.StatusForbidden, "SecurityTokenExpired", "The security token you provided has expired.", nil}
	}
	c.key = key
	return c.authorize()
}

// key is the key of an id: one of the server's own, or of the authority's.
func (s *Server) key(id string) (Key, bool) {
	if key, ok := (*s.keys.Load())[id]; ok || s.config.Authority == nil {
		return key, ok
	}
	k, ok := s.config.Authority.Lookup(id)
	return Key{ID: k.ID, Secret: k.Secret, Token: k.Token, Expires: k.Expires}, ok
}

// actions are the names that policies have for operations, where these are not the
// operations' own.
var actions = map[string]string{
	"InitiateMultipartUpload": "PutObject", "UploadPart": "PutObject", "CompleteMultipartUpload": "PutObject",
	"CopyObject": "PutObject", "UploadPartCopy": "PutObject",
	"HeadObject": "GetObject", "GetObjectMeta": "GetObject", "ListObjectsV2": "ListObjects",
}

// authorize says whether the key may do what is asked.
func (c *call) authorize() error {
	if c.operation == "DeleteMultipleObjects" && !slices.Contains(c.key.Deny, c.operation) {
		return nil // each object is asked about, once it is known which they are
	}
	return c.allowed(c.operation, c.bucket, c.object)
}

// allowed asks the authority whether the key may carry out an operation. The server's own
// keys may do everything but what they are denied.
func (c *call) allowed(operation, bucket, object string) error {
	denied := &Error{http.StatusForbidden, "AccessDenied", "You have no right to access this object because of bucket acl.", nil}
	if _, own := (*c.s.keys.Load())[c.key.ID]; own || c.s.config.Authority == nil {
		if slices.Contains(c.key.Deny, operation) {
			return denied
		}
		return nil
	}
	action := "oss:" + cmp.Or(actions[operation], operation)
	resource := "acs:oss:" + c.s.config.Region + ":" + c.s.owner().ID + ":" + cmp.Or(bucket, "*")
	if object != "" {
		resource += "/" + object
	}
	if err := c.s.config.Authority.Authorize(c.key.ID, action, resource, map[string]string{"oss:Prefix": c.query.Get("prefix")}); err != nil {
		return denied
	}
	return nil
}

// authorization is a parsed Authorization header, or what stands for it in a URL.
type authorization struct {
	v4         bool
	url        bool
	token      string
	expires    string // of a URL: the end in seconds of Unix, or of version 4 the seconds that it is good for
	keyID      string
	day        string   // of the scope
	region     string   // of the scope
	additional []string // names of further signed headers, in lower case
	signature  string
}

// parseAuthorization parses the header's value, of version 1, "OSS id:signature", or 4,
// "OSS4-HMAC-SHA256
// Credential=id/day/region/oss/aliyun_v4_request,AdditionalHeaders=a;b,Signature=hex".
func parseAuthorization(value string) (a authorization, err error) {
	invalid := func(why string) (authorization, error) {
		return authorization{}, invalidArgument("The authorization header is invalid: " + why + ".")
	}
	scheme, rest, _ := strings.Cut(value, " ")
	switch scheme {
	case "OSS":
		var ok bool
		a.keyID, a.signature, ok = strings.Cut(strings.TrimSpace(rest), ":")
		if !ok || a.keyID == "" || a.signature == "" {
			return invalid("want OSS id:signature")
		}
		return a, nil
	case algorithmV4:
		a.v4 = true
	default:
		return invalid("unknown signature version")
	}
	credential := ""
	for field := range strings.SplitSeq(rest, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		if !ok {
			return invalid("a field has no value")
		}
		switch name {
		case "Credential":
			credential = value
		case "AdditionalHeaders":
			a.additional = strings.Split(strings.ToLower(value), ";")
		case "Signature":
			a.signature = value
		default:
			return invalid("unknown field")
		}
	}
	scope := strings.Split(credential, "/")
	if len(scope) < 5 || a.signature == "" {
		return invalid("want a credential with its scope, and a signature")
	}
	// An id may have slashes of its own.
	n := len(scope)
	a.keyID, a.day, a.region = strings.Join(scope[:n-4], "/"), scope[n-4], scope[n-3]
	if scope[n-2] != "oss" || scope[n-1] != "aliyun_v4_request" || a.keyID == "" {
		return invalid("the scope is not that of a request to oss")
	}
	return a, nil
}

// signing are the parameters by which a URL is signed, of both versions.
var signing = []string{"OSSAccessKeyId", "Signature", "Expires", "security-token",
	"x-oss-signature-version", "x-oss-credential", "x-oss-date", "x-oss-expires", "x-oss-additional-headers", "x-oss-signature", "x-oss-security-token"}

// unsigned is a query without the parameters by which it is signed.
func unsigned(query url.Values) url.Values {
	query = maps.Clone(query)
	for _, name := range signing {
		query.Del(name)
	}
	return query
}

// signed finds what a request is signed with, in its header or in its URL.
func (c *call) signed() (authorization, error) {
	q := c.query
	if header := c.r.Header.Get("Authorization"); header != "" {
		a, err := parseAuthorization(header)
		a.token = c.r.Header.Get("X-Oss-Security-Token")
		return a, err
	}
	switch {
	case q.Has("x-oss-signature-version"):
		if version := q.Get("x-oss-signature-version"); version != algorithmV4 {
			return authorization{}, invalidArgument("The signature version " + version + " of the URL is unknown.")
		}
		a, err := parseAuthorization(algorithmV4 + " Credential=" + q.Get("x-oss-credential") + ",Signature=" + q.Get("x-oss-signature"))
		if names := q.Get("x-oss-additional-headers"); names != "" {
			a.additional = strings.Split(strings.ToLower(names), ";")
		}
		a.url, a.token, a.expires = true, q.Get("x-oss-security-token"), q.Get("x-oss-expires")
		return a, err
	case q.Has("Signature") && q.Has("OSSAccessKeyId"):
		return authorization{url: true, keyID: q.Get("OSSAccessKeyId"), signature: q.Get("Signature"), token: q.Get("security-token"), expires: q.Get("Expires")}, nil
	}
	return authorization{}, &Error{http.StatusForbidden, "AccessDenied", "Anonymous access is forbidden for this operation.", nil}
}

// date returns the text that stands for the request's date in what is signed, and the
// date.
func (c *call) date(a authorization) (text string, date time.Time, ok bool) {
	text = c.r.Header.Get("X-Oss-Date")
	switch {
	case a.url && a.v4:
		text = c.query.Get("x-oss-date")
	case text == "":
		text = c.r.Header.Get("Date")
		date, err := http.ParseTime(text)
		return text, date, err == nil
	}
	layout := http.TimeFormat
	if a.v4 {
		layout = dateV4
	}
	date, err := time.Parse(layout, text)
	return text, date, err == nil
}

// checkDate holds the request's date against the clock, and the scope of a signature
// against both.
func (c *call) checkDate(a authorization) error {
	if a.url && !a.v4 {
		end, err := strconv.ParseInt(a.expires, 10, 64)
		if err != nil {
			return &Error{http.StatusForbidden, "AccessDenied", "Invalid date (should be seconds since epoch).", nil}
		}
		return c.good(time.Unix(end, 0))
	}
	_, date, ok := c.date(a)
	if !ok {
		return &Error{http.StatusForbidden, "AccessDenied", "OSS authentication requires a valid Date.", nil}
	}
	skewed := c.now.Sub(date) < -maxSkew
	if a.url {
		seconds, err := strconv.Atoi(a.expires)
		life := time.Duration(seconds) * time.Second
		if err != nil || seconds < 1 || life > maxLife {
			return invalidArgument("The parameter x-oss-expires is not a number of seconds from 1 to 604800.")
		}
		if err := c.good(date.Add(life)); err != nil {
			return err
		}
	} else {
		skewed = skewed || c.now.Sub(date) > maxSkew
	}
	switch {
	case skewed:
		return &Error{http.StatusForbidden, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.",
			map[string]string{"MaxAllowedSkewMilliseconds": "900000", "RequestTime": isoTime(date), "ServerTime": isoTime(c.now)}}
	case a.v4 && a.day != date.UTC().Format(dayV4):
		return invalidArgument("Invalid signing date in Authorization header.")
	case a.v4 && a.region != c.s.config.Region:
		return invalidArgument("Invalid signing region in Authorization header.")
	}
	return nil
}

// good refuses a URL that was good until an end which is over.
func (c *call) good(end time.Time) error {
	if !c.now.After(end) {
		return nil
	}
	return &Error{http.StatusForbidden, "AccessDenied", "Request has expired.", map[string]string{"Expires": isoTime(end), "ServerTime": isoTime(c.now)}}
}

// isoTime writes a time as the service's documents do: of whole seconds, without which a
// client or two can't read it.
func isoTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05") + ".000Z" }

// signedV1 are the parameters that a signature of version 1 covers.
var signedV1 = []string{
	"acl", "append", "asyncFetch", "bucketInfo", "callback", "callback-var", "cname", "comp", "continuation-token", "cors", "delete",
	"encryption", "endTime", "img", "inventory", "inventoryId", "lifecycle", "live", "location", "logging", "metaQuery", "objectMeta",
	"partNumber", "policy", "position", "qos", "qosInfo", "referer", "replication", "replicationLocation", "replicationProgress",
	"requestPayment", "resourceGroup", "response-cache-control", "response-content-disposition", "response-content-encoding",
	"response-content-language", "response-content-type", "response-expires", "restore", "rtc", "security-token", "sequential", "startTime",
	"stat", "status", "style", "styleName", "symlink", "tagging", "transferAcceleration", "uploadId", "uploads", "versionId", "versioning",
	"versions", "vod", "website", "worm", "wormExtend", "wormId", "x-oss-process", "x-oss-request-payer", "x-oss-traffic-limit",
}

// signatureV1 is the base64 of an HMAC-SHA1 over method, content headers, date, the
// headers of the service in order, and the unescaped resource. The date is that of
// x-oss-date where there is one, and of a URL its end. The text that was signed is
// returned for the error message.
func (c *call) signatureV1(a authorization, secret string) (signature, text string) {
	date, _, _ := c.date(a)
	if a.url {
		date = a.expires
	}
	resource := "/"
	if c.bucket != "" {
		resource = "/" + c.bucket + "/" + c.object
	}
	var signed []string
	for name, values := range c.query {
		if _, found := slices.BinarySearch(signedV1, name); !found {
			continue
		}
		if values[0] != "" {
			name += "=" + values[0]
		}
		signed = append(signed, name)
	}
	if len(signed) > 0 {
		resource += "?" + strings.Join(sorted(signed), "&")
	}
	text = c.r.Method + "\n" + c.r.Header.Get("Content-Md5") + "\n" + c.r.Header.Get("Content-Type") + "\n" + date + "\n" +
		c.headerLines(func(name string) bool { return strings.HasPrefix(name, "x-oss-") }) + resource
	m := hmac.New(sha1.New, []byte(secret))
	m.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(m.Sum(nil)), text
}

// signatureV4 is the hex of an HMAC-SHA256, with a key derived from the scope, over the
// hash of the canonical request.
func (c *call) signatureV4(a authorization, secret string) (signature, text string) {
	date, _, _ := c.date(a)
	path := "/"
	if c.bucket != "" {
		path = "/" + c.bucket + "/" + strings.ReplaceAll(escapeURL(c.object), "%2F", "/")
	}
	var query []string
	for name, values := range c.query {
		if name == "x-oss-signature" {
			continue // of a URL
		}
		name = escapeURL(name)
		if values[0] != "" {
			name += "=" + escapeURL(values[0])
		}
		query = append(query, name)
	}
	// A name that another begins with comes first, also where it has a value.
	slices.SortFunc(query, func(a, b string) int {
		a, _, _ = strings.Cut(a, "=")
		b, _, _ = strings.Cut(b, "=")
		return strings.Compare(a, b)
	})
	additional := sorted(slices.Clone(a.additional))
	payload := c.r.Header.Get("X-Oss-Content-Sha256")
	if payload == "" {
		payload = "UNSIGNED-PAYLOAD"
	}
	canonical := c.r.Method + "\n" + path + "\n" + strings.Join(query, "&") + "\n" +
		c.headerLines(func(name string) bool {
			return strings.HasPrefix(name, "x-oss-") || name == "content-type" || name == "content-md5" || slices.Contains(additional, name)
		}) + "\n" + strings.Join(additional, ";") + "\n" + payload
	hash := sha256.Sum256([]byte(canonical))
	scope := a.day + "/" + a.region + "/oss/aliyun_v4_request"
	text = algorithmV4 + "\n" + date + "\n" + scope + "\n" + hex.EncodeToString(hash[:])
	key := []byte("aliyun_v4" + secret)
	for _, part := range []string{a.day, a.region, "oss", "aliyun_v4_request"} {
		key = sum256(key, part)
	}
	return hex.EncodeToString(sum256(key, text)), text
}

// headerLines are the signed headers, a line each, in order of their names.
func (c *call) headerLines(signed func(name string) bool) string {
	lines := map[string]string{}
	if signed("host") {
		lines["host"] = c.r.Host
	}
	if signed("content-length") && c.r.ContentLength >= 0 {
		lines["content-length"] = c.r.Header.Get("Content-Length")
	}
	for name, values := range c.r.Header {
		if name = strings.ToLower(name); signed(name) {
			lines[name] = strings.TrimSpace(values[0])
		}
	}
	names := make([]string, 0, len(lines))
	for name := range lines {
		names = append(names, name)
	}
	var text strings.Builder
	for _, name := range sorted(names) {
		text.WriteString(name + ":" + lines[name] + "\n")
	}
	return text.String()
}

// escapeURL escapes all but letters, digits and -_.~ .
func escapeURL(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }

func sum256(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}
