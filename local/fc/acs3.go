package fc

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	algorithm = "ACS3-HMAC-SHA256"
	maxSkew   = 15 * time.Minute
)

// signedHeaders are those that a signature must cover. What the service's own headers
// (x-fc-…) say is not signed by its client.
func signedHeaders() []string {
	return []string{"host", "x-acs-action", "x-acs-content-sha256", "x-acs-date", "x-acs-signature-nonce", "x-acs-version"}
}

var errUnknownKey = errors.New("invalid access key ID")

// verifier checks the signatures of the third version of the vendor's request signing. It
// refuses stale requests and ones that it has seen.
type verifier struct {
	// secret returns the secret of a key that came with a token or with none. The error
	// matches errUnknownKey if there is no such key.
	secret func(id, token string) (string, error)

	mu     sync.Mutex
	nonces map[string]time.Time // by key id and nonce
	swept  time.Time
}

func newVerifier(secret func(id, token string) (string, error)) *verifier {
	return &verifier{secret: secret, nonces: make(map[string]time.Time)}
}

// verify returns the id of the key that signed r with body.
func (v *verifier) verify(r *http.Request, body []byte, now time.Time) (string, error) {
	rest, ok := strings.CutPrefix(r.Header.Get("Authorization"), algorithm+" ")
	if !ok {
		return "", errors.New("the request is not signed with " + algorithm)
	}
	fields := make(map[string]string)
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		fields[name] = value
	}
	id := fields["Credential"]
	secret, err := v.secret(id, r.Header.Get("x-acs-security-token"))
	if err != nil {
		return "", err
	}
	names := strings.Split(fields["SignedHeaders"], ";")
	for _, name := range signedHeaders() {
		if !slices.Contains(names, name) {
			return "", fmt.Errorf("the header %s is not signed", name)
		}
	}
	date, err := time.Parse("2006-01-02T15:04:05Z", r.Header.Get("x-acs-date"))
	if err != nil {
		return "", fmt.Errorf("the header x-acs-date: %w", err)
	}
	if skew := now.Sub(date).Abs(); skew > maxSkew {
		return "", fmt.Errorf("the request's date is %v from the host's", skew.Round(time.Second))
	}
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	if r.Header.Get("x-acs-content-sha256") != hash {
		return "", errors.New("the body is not the one that was signed")
	}
	want := hex.EncodeToString(sign(secret, canonical(r, names, hash)))
	if !hmac.Equal([]byte(want), []byte(fields["Signature"])) {
		return "", errors.New("the signature is wrong: check the secret")
	}
	if !v.fresh(id+" "+r.Header.Get("x-acs-signature-nonce"), now) {
		return "", errors.New("the request was sent before: its nonce is used up")
	}
	return id, nil
}

// fresh reports whether a nonce is new, and remembers it for as long as its request could
// be sent again.
func (v *verifier) fresh(nonce string, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if now.Sub(v.swept) > time.Minute {
		for n, seen := range v.nonces {
			if now.Sub(seen) > 2*maxSkew {
				delete(v.nonces, n)
			}
		}
		v.swept = now
	}
	if _, ok := v.nonces[nonce]; ok {
		return false
	}
	v.nonces[nonce] = now
	return true
}

// canonical is the text whose hash is signed.
func canonical(r *http.Request, names []string, hash string) string {
	var b strings.Builder
	path := r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	b.WriteString(r.Method + "\n" + unreserved(path) + "\n" + canonicalQuery(r.URL.Query()) + "\n")
	for _, name := range names {
		values := slices.Clone(r.Header.Values(name))
		if name == "host" {
			values = []string{r.Host}
		}
		for i := range values {
			values[i] = strings.TrimSpace(values[i])
		}
		slices.Sort(values)
		b.WriteString(name + ":" + strings.Join(values, ",") + "\n")
	}
	b.WriteString("\n" + strings.Join(names, ";") + "\n" + hash)
	return b.String()
}

func canonicalQuery(query url.Values) string {
	pairs := make([]string, 0, len(query))
	for name, values := range query {
		for _, value := range values {
			pairs = append(pairs, unreserved(url.QueryEscape(name))+"="+unreserved(url.QueryEscape(value)))
		}
	}
	slices.Sort(pairs)
	return strings.Join(pairs, "&")
}

func unreserved(escaped string) string {
	return strings.NewReplacer("+", "%20", "*", "%2A", "%7E", "~").Replace(escaped)
}

func sign(secret, canonical string) []byte {
	sum := sha256.Sum256([]byte(canonical))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(algorithm + "\n" + hex.EncodeToString(sum[:])))
	return mac.Sum(nil)
}
