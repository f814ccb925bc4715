// Package tablestore is the adapter to Tablestore: one instance's tables behind the port
// of package backup, over the service's wire protocol.
//
//	client, err := tablestore.New(tablestore.Config{
//		Endpoint:    "https://shop.cn-hangzhou.ots.aliyuncs.com",
//		Instance:    "shop",
//		Credentials: credentials, // asked for every request
//	})
//	scan := client.Scan("orders", def.Schema, def.Schema.Whole())
//
// Requests are the messages of the official SDK's package otsprotocol. They are sent by
// this package and not by the SDK's client, which knows no context, drops what it does
// not know of an answer, panics on answers that lack optional fields, and gives up on a
// busy service after two seconds.
//
// Every method goes on trying what may succeed, as [Retry] says, until its context ends.
// Errors are of type [*Error] and match the conditions of package table.
package tablestore

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/table"
)

// Config is how an instance is reached.
type Config struct {
	Endpoint string // http:// or https:// and a host
	Instance string
	// Credentials is called for every request, from several at a time.
	Credentials access.Provider
	// Region is needed for SignV4 only.
	Region string
	// SignV4 signs with version 4, HMAC-SHA256 with a key of the day and the region,
	// instead of version 1, HMAC-SHA1.
	SignV4 bool
	// Transport carries the requests; nil means one of the client's own.
	Transport http.RoundTripper
	Retry     Retry
	Log       *slog.Logger // of what is tried again; nil means nowhere
}

// Client is one instance. It is safe for concurrent use.
type Client struct {
	config   Config // with its defaults
	endpoint *url.URL
}

// New returns the client of an instance. It sends nothing.
func New(config Config) (*Client, error) {
	u, err := url.Parse(config.Endpoint)
	switch {
	case config.Instance != "" && !table.IsInstanceName(config.Instance):
		return nil, fmt.Errorf("tablestore: %.80q is no name of an instance: want letters, digits and hyphens", config.Instance)
	case config.Endpoint == "":
		return nil, fmt.Errorf("tablestore: no endpoint: give it as https://INSTANCE.REGION.ots.aliyuncs.com")
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("tablestore: the endpoint is no address: give it as https://INSTANCE.REGION.ots.aliyuncs.com")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.User != nil:
		return nil, fmt.Errorf("tablestore: the endpoint has more than a scheme and a host: remove the rest")
	case config.Instance == "":
		return nil, fmt.Errorf("tablestore: no name of an instance for its endpoint")
	case config.Credentials == nil:
		return nil, fmt.Errorf("tablestore: no credentials for instance %s", config.Instance)
	case config.SignV4 && config.Region == "":
		return nil, fmt.Errorf("tablestore: signatures of version 4 for instance %s need its region", config.Instance)
	}
	config.Retry = config.Retry.withDefaults()
	if config.Transport == nil {
		config.Transport = newTransport()
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{config: config, endpoint: &url.URL{Scheme: u.Scheme, Host: u.Host}}, nil
}

// newTransport is a transport whose buffers suit pages of megabytes and whose idle
// connections end before the service ends them.
func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConns:        256,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     25 * time.Second,
		DisableCompression:  true,
		ReadBufferSize:      64 << 10,
		WriteBufferSize:     64 << 10,
	}
}

// String names the instance for people.
func (c *Client) String() string { return c.config.Instance + " at " + c.endpoint.String() }

// CloseIdle closes the connections that no request uses.
func (c *Client) CloseIdle() {
	if t, ok := c.config.Transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}
