package s3

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// Kind is what a fault does to a request.
type Kind string

// The kinds of faults.
const (
	// The connection is cut: before the server is asked, while a body is on its way up or
	// down, or after the server did the work.
	CutBefore Kind = "cut before"
	CutMidway Kind = "cut midway"
	CutAfter  Kind = "cut after"

	// The answer is 500 InternalError, the work not done or done; or 503 SlowDown.
	ErrorBefore Kind = "500 before"
	ErrorAfter  Kind = "500 after"
	SlowDown    Kind = "503"

	// The answer comes late.
	Slow Kind = "slow"

	// The server does not accept the session token, or the clock.
	Expired Kind = "expired token"
	Skewed  Kind = "clock skew"

	// The key may not do that.
	Denied Kind = "denied"

	// The server says that others are just creating the same name.
	Conflict Kind = "conflict"

	// The answer has another checksum than the server gave.
	WrongChecksum Kind = "wrong checksum"
)

// Every as a Call strikes every request that matches.
const Every = -1

// Fault strikes one request, or every one.
type Fault struct {
	Kind  Kind
	Call  int                         // the number of the request among those that match, from 0 on; or Every
	Match func(r *http.Request) bool  // which requests are meant; nil means all
	Apart func(a *http.Response) bool // which answers are meant, for CutMidway and WrongChecksum; nil means all

	mu    sync.Mutex
	calls int
	fired int
}

// Fired reports how often the fault struck.
func (f *Fault) Fired() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired
}

// Reached reports whether the request was made that the fault is to strike.
func (f *Fault) Reached() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls > max(f.Call, 0)
}

func (f *Fault) String() string {
	if f.Call == Every {
		return fmt.Sprintf("every request: %s", f.Kind)
	}
	return fmt.Sprintf("request %d: %s", f.Call, f.Kind)
}

func (f *Fault) enters(r *http.Request) bool {
	if f.Match != nil && !f.Match(r) {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	return f.Call == Every || f.Call == f.calls-1
}

func (f *Fault) strike() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fired++
}

// Proxy stands between a client and the server.
type Proxy struct {
	// URL is where the client is to go.
	URL string

	target    *url.URL
	transport *http.Transport

	mu     sync.Mutex
	faults []*Fault
	seen   []string
}

// Proxy returns a proxy before the server, which ends with the test.
func (s *Server) Proxy(t testing.TB) *Proxy {
	t.Helper()
	target, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{target: target, transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16}}
	front := httptest.NewServer(p)
	t.Cleanup(func() {
		front.CloseClientConnections()
		front.Close()
		p.transport.CloseIdleConnections()
	})
	p.URL = front.URL
	return p
}

// Set puts these faults in the place of those that were there.
func (p *Proxy) Set(faults ...*Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults, p.seen = faults, nil
}

// Seen returns the requests since the faults were set.
func (p *Proxy) Seen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.seen...)
}

func (p *Proxy) enter(r *http.Request) *Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = append(p.seen, r.Method+" "+r.URL.RequestURI())
	var first *Fault
	for _, f := range p.faults {
		if f.enters(r) && first == nil {
			first = f
		}
	}
	return first
}

var errCut = errors.New("cut")

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fault := p.enter(r)
	kind := Kind("")
	if fault != nil {
		kind = fault.Kind
	}
	if kind == CutBefore {
		fault.strike()
		cut(w)
		return
	}
	if refused, ok := refusals[kind]; ok {
		fault.strike()
		if kind == Skewed {
			// A client that sets its clock by this is still one that the server takes.
			w.Header().Set("Date", time.Now().Add(10*time.Minute).UTC().Format(http.TimeFormat))
		}
		refused.answer(w, r)
		return
	}
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.RequestURI = p.target.Scheme, p.target.Host, ""
	out.Header.Del("Expect")
	if r.ContentLength == 0 {
		out.Body = nil
	}
	if kind == CutMidway && r.ContentLength > 1 {
		fault.strike()
		out.Body = &broken{io.LimitReader(r.Body, r.ContentLength/2)}
		if a, err := p.transport.RoundTrip(out); err == nil {
			a.Body.Close()
		}
		cut(w)
		return
	}
	a, err := p.transport.RoundTrip(out)
	if err != nil {
		cut(w)
		return
	}
	defer a.Body.Close()
	if fault != nil && fault.Apart != nil && !fault.Apart(a) {
		kind = ""
	}
	switch kind {
	case CutAfter:
		fault.strike()
		io.Copy(io.Discard, a.Body)
		cut(w)
		return
	case ErrorAfter:
		fault.strike()
		io.Copy(io.Discard, a.Body)
		refusals[ErrorBefore].answer(w, r)
		return
	case Slow:
		fault.strike()
		select {
		case <-time.After(100 * time.Millisecond):
		case <-r.Context().Done():
			return
		}
	case WrongChecksum:
		for name := range a.Header {
			if strings.HasPrefix(name, "X-Amz-Checksum-") && name != "X-Amz-Checksum-Type" {
				fault.strike()
				a.Header.Set(name, "AAAAAA==")
			}
		}
	}
	for name, values := range a.Header {
		w.Header()[name] = values
	}
	if a.ContentLength >= 0 {
		w.Header().Set("Content-Length", fmt.Sprint(a.ContentLength))
	}
	w.WriteHeader(a.StatusCode)
	if kind == CutMidway && r.Method == http.MethodGet {
		half, _ := io.ReadAll(a.Body)
		if len(half) > 1 {
			fault.strike()
			w.Write(half[:len(half)/2])
			http.NewResponseController(w).Flush()
			cut(w)
			return
		}
		w.Write(half)
		return
	}
	io.Copy(w, a.Body)
}

// broken is a body that breaks where it ends.
type broken struct{ io.Reader }

func (b *broken) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		err = errCut
	}
	return n, err
}

func (b *broken) Close() error { return nil }

// cut closes the connection, whatever was said on it so far.
func cut(w http.ResponseWriter) {
	connection, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	connection.Close()
}

// A refusal is an error as S3 answers it.
type refusal struct {
	status        int
	code, message string
}

// refusals are the answers of the faults that keep a request from the server.
var refusals = map[Kind]refusal{
	ErrorBefore: {http.StatusInternalServerError, "InternalError", "We encountered an internal error. Please try again."},
	SlowDown:    {http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate."},
	Expired:     {http.StatusBadRequest, "ExpiredToken", "The provided token has expired."},
	Denied:      {http.StatusForbidden, "AccessDenied", "Access Denied."},
	Conflict:    {http.StatusConflict, "ConditionalRequestConflict", "A conflicting conditional operation is in progress against this resource."},
	Skewed:      {http.StatusForbidden, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large."},
}

func (e refusal) answer(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(e.status)
	if r.Method != http.MethodHead {
		fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code><Message>%s</Message><RequestId>PROXY</RequestId></Error>", e.code, e.message)
	}
}
