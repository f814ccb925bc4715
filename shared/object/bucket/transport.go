package bucket

import (
	"net"
	"net/http"
	"time"
)

// Transport is a pool of connections as a store of objects wants it: many at a time to
// one host, with time limits for everything but a body, and with answers as they were
// sent.
func Transport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
		ResponseHeaderTimeout: time.Minute,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       30 * time.Second,
		// What is stored is compressed already, and a decoded answer would not have the
		// length it announced.
		DisableCompression: true,
		WriteBufferSize:    64 << 10,
		ReadBufferSize:     64 << 10,
	}
}

// Client makes requests over a transport, or over one of its own if that is nil. It
// follows no redirection: a bucket that is elsewhere is a wrong setting, and its
// signature would be, too.
func Client(transport http.RoundTripper) *http.Client {
	if transport == nil {
		transport = Transport()
	}
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}
