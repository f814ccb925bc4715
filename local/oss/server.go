// Package oss is an object store of Alibaba Cloud OSS on this machine: the service's wire
// protocol over HTTP in front of a folder.
//
//	server, err := oss.Start(oss.Config{Dir: dir})
//	…
//	defer server.Close()
//	server.CreateBucket("vault", oss.BucketConfig{})
//
// It verifies what the service verifies (signatures of versions 1 and 4, in the
// Authorization header or in the URL, security tokens, dates), keeps what the service
// keeps (checksums, metadata, encryption and storage class as they were asked for,
// versions, retention), and answers in the service's words. A test has the clock, the
// keys and the faults in its hand. A request that it does not know is refused by name:
// forms, appending, tagging, access lists other than private ones, and the settings of a
// bucket other than its versions, its retention and its rules against overwriting are not
// there. Encryption and storage classes are names only.
//
// Content lies in files of the folder, what is known of it in one file that is written
// with transactions: what was answered survives the end of the process and of the
// machine.
package oss

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tablevault/tablevault/local/ram"
)

// The key pair of a server that is given none, and the region of one that is given none.
const (
	DefaultKeyID     = "local"
	DefaultKeySecret = "local-secret"
	DefaultRegion    = "local"
)

// Config is how a server is set up. The zero value is a server on a free port that
// forgets everything at its Close.
type Config struct {
	Addr string // host:port to listen on, 127.0.0.1:0 if empty
	Dir  string // where all is kept; a temporary folder, and nothing made durable, if empty

	// Region is where the server is, and what signatures of version 4 are for.
	Region string
	// Domain is the name under which buckets are addressed as bucket.Domain, beside the
	// service's own endpoints, and the server's address with the bucket in the path; none
	// if empty.
	Domain string
	// Keys may sign requests; the default pair if there are neither keys nor an
	// authority.
	Keys []Key
	// Authority, if given, knows more keys, and says what each may do.
	Authority *ram.Authority
	// Account is the owner of the buckets in the names of resources, 0 if empty.
	Account string
	// Now is the server's clock, the system's if nil.
	Now func() time.Time
	// Fault is called for each request. See [Server.SetFault].
	Fault FaultFunc
	// Created, if given, is told of each object that was created, before who created it
	// is: what a trigger goes by. It is called from several requests at a time.
	Created func(Created)
}

// Created is an object that was just created.
type Created struct {
	Event  string // as triggers have it, such as oss:ObjectCreated:PutObject
	Bucket string
	Object string
	ETag   string // without quotes
	Size   int64
	At     time.Time
}

// A Key is a pair that signs requests.
type Key struct {
	ID, Secret string
	// Token, if given, must come with each request: a temporary credential.
	Token string
	// Expires, if given, is when the key stops being taken.
	Expires time.Time
	// Deny lists the operations, such as PutObject, that the key may not do.
	Deny []string
}

// Server is a running object store.
type Server struct {
	config   Config
	store    *store
	listener net.Listener
	http     *http.Server
	served   chan struct{}
	working  sync.WaitGroup // requests
	keys     atomic.Pointer[map[string]Key]
	fault    atomic.Pointer[FaultFunc]
	started  string
	requests atomic.Int64

	mu    sync.Mutex
	calls map[string]int
}

// Start opens the folder and begins to serve.
func Start(config Config) (*Server, error) {
	if config.Region == "" {
		config.Region = DefaultRegion
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Addr == "" {
		config.Addr = "127.0.0.1:0"
	}
	if len(config.Keys) == 0 && config.Authority == nil {
		config.Keys = []Key{{ID: DefaultKeyID, Secret: DefaultKeySecret}}
	}
	s := &Server{config: config, calls: make(map[string]int), started: fmt.Sprintf("%08X", config.Now().Unix())}
	s.SetKeys(config.Keys...)
	s.SetFault(config.Fault)
	var err error
	if s.store, err = openStore(config.Dir); err != nil {
		return nil, fmt.Errorf("open the objects of %s: %w", config.Dir, err)
	}
	if s.listener, err = net.Listen("tcp", config.Addr); err != nil {
		return nil, errors.Join(fmt.Errorf("serve objects: %w", err), s.store.close())
	}
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	s.served = make(chan struct{})
	go func() {
		defer close(s.served)
		// It ends with Close, or with a listener that broke, which the next request
		// shows.
		_ = s.http.Serve(s.listener)
	}()
	return s, nil
}

// URL is the server's address, http://127.0.0.1:PORT.
func (s *Server) URL() string { return "http://" + s.listener.Addr().String() }

// Address is the vault address of a bucket of this server, with a prefix or none.
func (s *Server) Address(bucket, prefix string) string {
	u := url.URL{Scheme: "oss", Host: bucket, RawQuery: url.Values{"region": {s.config.Region}, "endpoint": {s.URL()}}.Encode()}
	if prefix != "" {
		u.Path = "/" + prefix
	}
	return u.String()
}

// SetKeys replaces the keys that may sign.
func (s *Server) SetKeys(keys ...Key) {
	byID := make(map[string]Key, len(keys))
	for _, k := range keys {
		byID[k.ID] = k
	}
	s.keys.Store(&byID)
}

// Close ends the connections, waits for the requests under way, and closes the folder.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.served
	s.working.Wait()
	return errors.Join(err, s.store.close())
}

// call is one request.
type call struct {
	s         *Server
	w         http.ResponseWriter
	r         *http.Request
	id        string
	operation string
	bucket    string
	object    string
	query     url.Values
	key       Key
	now       time.Time
	fault     *Fault
}

// ServeHTTP serves one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.working.Add(1)
	defer s.working.Done()
	w = plainly{w}
	c := &call{s: s, w: w, r: r, id: fmt.Sprintf("%s%016X", s.started, s.requests.Add(1)), now: s.config.Now().UTC()}
	w.Header().Set("Server", "AliyunOSS")
	w.Header().Set("Date", c.now.Format(http.TimeFormat))
	w.Header().Set("X-Oss-Request-Id", c.id)
	w.Header().Set("X-Oss-Server-Time", "0")
	if err := c.serve(); err != nil {
		c.refuse(err)
	}
}

// plainly is an answer with the names of the service's headers in lower case, as it
// writes them: not all clients take them otherwise.
type plainly struct{ http.ResponseWriter }

func (p plainly) WriteHeader(status int) {
	h := p.Header()
	for name, values := range h {
		if strings.HasPrefix(name, "X-Oss-") {
			delete(h, name)
			h[strings.ToLower(name)] = values
		}
	}
	p.ResponseWriter.WriteHeader(status)
}

// Flush is for what breaks off in the middle.
func (p plainly) Flush() {
	if f, ok := p.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// serve does what is asked, or returns why not.
func (c *call) serve() error {
	if err := c.parse(); err != nil {
		return err
	}
	operation, work := c.route()
	c.operation = operation
	if c.fault = c.s.strike(c); c.fault != nil {
		return c.misbehave(work)
	}
	return c.work(work)
}

func (c *call) work(work func(*call) error) error {
	if err := c.authenticate(); err != nil {
		return err
	}
	if c.bucket != "" {
		if err := c.located(); err != nil {
			return err
		}
	}
	if work == nil {
		return notImplemented(c.operation)
	}
	return work(c)
}

// parse takes the bucket and the object out of the host and the path, in which a slash of
// the object's name may be escaped.
func (c *call) parse() error {
	path := c.r.URL.EscapedPath()
	if !strings.HasPrefix(path, "/") {
		return invalidArgument("The path is not absolute.")
	}
	path = path[1:]
	if bucket, ok := c.s.named(c.r.Host); ok {
		c.bucket = bucket
	} else {
		c.bucket, path, _ = strings.Cut(path, "/")
	}
	var err error
	if c.object, err = url.PathUnescape(path); err != nil {
		return invalidArgument("The path can't be decoded.")
	}
	if c.query, err = url.ParseQuery(c.r.URL.RawQuery); err != nil {
		return invalidArgument("The query can't be decoded.")
	}
	if c.bucket != "" && !validBucket(c.bucket) {
		return &Error{http.StatusBadRequest, "InvalidBucketName", "The specified bucket is not valid.", map[string]string{"BucketName": c.bucket}}
	}
	if c.object != "" && !validKey(c.object) {
		return &Error{http.StatusBadRequest, "InvalidObjectName", "The specified object is not valid.", nil}
	}
	return nil
}

// endpoints are the service's own. A client that is given an IP address sends the name of
// one for the host all the same.
var endpoints = regexp.MustCompile(`^(.+)\.oss-[a-z0-9-]+\.aliyuncs\.com(:[0-9]+)?$`)

// named returns the bucket that the name of the host says.
func (s *Server) named(host string) (bucket string, ok bool) {
	if s.config.Domain != "" {
		if bucket, ok := strings.CutSuffix(host, "."+s.config.Domain); ok {
			return bucket, true
		}
	}
	if m := endpoints.FindStringSubmatch(host); m != nil {
		return m[1], true
	}
	return "", false
}

// route names what is asked for, and returns what does it.
func (c *call) route() (operation string, work func(*call) error) {
	query := unsigned(c.query)
	has := query.Has
	copies := c.r.Header.Get("X-Oss-Copy-Source") != ""
	switch method := c.r.Method; {
	case c.bucket == "" && method == "GET" && only(query, "prefix", "marker", "max-keys"):
		return "ListBuckets", (*call).listBuckets
	case c.bucket == "":
		return method + " of the service with " + parameters(query), nil
	case c.object == "":
		switch {
		case method == "GET" && has("bucketInfo"):
			return "GetBucketInfo", (*call).getBucketInfo
		case method == "GET" && has("location"):
			return "GetBucketLocation", (*call).getBucketLocation
		case method == "GET" && has("versioning"):
			return "GetBucketVersioning", (*call).getBucketVersioning
		case method == "PUT" && has("versioning"):
			return "PutBucketVersioning", (*call).putBucketVersioning
		case method == "GET" && has("worm"):
			return "GetBucketWorm", (*call).getBucketWorm
		case method == "POST" && has("worm"):
			return "InitiateBucketWorm", (*call).initiateBucketWorm
		case method == "DELETE" && has("worm"):
			return "AbortBucketWorm", (*call).abortBucketWorm
		case method == "POST" && has("wormExtend"):
			return "ExtendBucketWorm", (*call).extendBucketWorm
		case method == "POST" && has("wormId"):
			return "CompleteBucketWorm", (*call).completeBucketWorm
		case method == "GET" && has("overwriteConfig"):
			return "GetBucketOverwriteConfig", (*call).getBucketOverwriteConfig
		case method == "PUT" && has("overwriteConfig"):
			return "PutBucketOverwriteConfig", (*call).putBucketOverwriteConfig
		case method == "DELETE" && has("overwriteConfig"):
			return "DeleteBucketOverwriteConfig", (*call).deleteBucketOverwriteConfig
		case method == "GET" && has("uploads"):
			return "ListMultipartUploads", (*call).listMultipartUploads
		case method == "GET" && has("acl"):
			return "GetBucketAcl", (*call).getACL
		case method == "GET" && has("versions"):
			return "ListObjectVersions", (*call).listObjectVersions
		case method == "GET" && query.Get("list-type") == "2":
			return "ListObjectsV2", (*call).listObjectsV2
		case method == "GET" && only(query, "prefix", "marker", "delimiter", "max-keys", "encoding-type"):
			return "ListObjects", (*call).listObjects
		case method == "POST" && has("delete"):
			return "DeleteMultipleObjects", (*call).deleteObjects
		case method == "PUT" && len(query) == 0:
			return "PutBucket", (*call).putBucket
		case method == "DELETE" && len(query) == 0:
			return "DeleteBucket", (*call).deleteBucket
		}
		return method + " of a bucket with " + parameters(query), nil
	}
	switch method := c.r.Method; {
	case method == "POST" && has("uploads"):
		return "InitiateMultipartUpload", (*call).initiateMultipartUpload
	case method == "PUT" && has("uploadId") && has("partNumber") && copies:
		return "UploadPartCopy", (*call).uploadPartCopy
	case method == "PUT" && has("uploadId") && has("partNumber"):
		return "UploadPart", (*call).uploadPart
	case method == "POST" && has("uploadId"):
		return "CompleteMultipartUpload", (*call).completeMultipartUpload
	case method == "DELETE" && has("uploadId"):
		return "AbortMultipartUpload", (*call).abortMultipartUpload
	case method == "GET" && has("uploadId"):
		return "ListParts", (*call).listParts
	case method == "GET" && has("acl") && only(query, "acl", "versionId"):
		return "GetObjectAcl", (*call).getACL
	case only(query, "versionId"):
		switch {
		case method == "PUT" && len(query) == 0 && copies:
			return "CopyObject", (*call).copyObject
		case method == "PUT" && len(query) == 0:
			return "PutObject", (*call).putObject
		case method == "GET":
			return "GetObject", (*call).getObject
		case method == "HEAD":
			return "HeadObject", (*call).getObject
		case method == "DELETE":
			return "DeleteObject", (*call).deleteObject
		}
	case method == "GET" && only(query, append(headersAsked, "versionId")...):
		return "GetObject", (*call).getObject
	case method == "HEAD" && only(query, "versionId", "objectMeta"):
		return "GetObjectMeta", (*call).getObject
	}
	return c.r.Method + " of an object with " + parameters(query), nil
}

// headersAsked are the parameters of a request that say what headers its answer shall
// have.
var headersAsked = []string{"response-content-type", "response-content-language", "response-expires", "response-cache-control",
	"response-content-disposition", "response-content-encoding"}

// only reports whether a query has no other parameters than these.
func only(query url.Values, names ...string) bool {
	known := 0
	for _, name := range names {
		if query.Has(name) {
			known++
		}
	}
	return known == len(query)
}

func parameters(query url.Values) string {
	if len(query) == 0 {
		return "no parameters"
	}
	names := make([]string, 0, len(query))
	for name := range query {
		names = append(names, name)
	}
	return strings.Join(sorted(names), ", ")
}

// validBucket reports whether a name is one that a bucket can have.
func validBucket(name string) bool {
	if len(name) < 3 || len(name) > 63 || name[0] == '-' || name[len(name)-1] == '-' {
		return false
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// temporary makes the folder of a server that keeps nothing.
func temporary() (string, error) { return os.MkdirTemp("", "tablevault-oss-") }
