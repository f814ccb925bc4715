// Package ots is a Tablestore server: the service's wire protocol over HTTP in front of
// the tables of package engine, in memory or in a folder.
//
//	server, err := ots.Start(ots.Config{})
//	…
//	defer server.Close()
//	client := tablestore.NewClient(server.URL(), "local", ots.DefaultKeyID, ots.DefaultKeySecret)
//
// It verifies what the service verifies, and answers in the service's words; a test has
// the clock, the faults and the rows in its hand. What is left out is refused by name.
package ots

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/local/ots/kv"
	"github.com/tablevault/tablevault/local/ram"
)

// The key pair of a server that is given none.
const (
	DefaultKeyID     = "local"
	DefaultKeySecret = "local-secret"
)

// Config is how a server is set up. The zero value is a server in memory, on a free port,
// for any instance and the default key pair.
type Config struct {
	Addr string // host:port to listen on, 127.0.0.1:0 if empty
	Dir  string // where the tables are kept; in memory if empty

	// Instances are the names that are served, any if there are none.
	Instances []string
	// Keys may sign requests; the default pair if there are none.
	Keys []Key

	// Authority, if given, knows more keys, and says what each may do.
	Authority *ram.Authority
	// Region and Account stand in the names of resources that it is asked about; "local"
	// and "0" if empty.
	Region, Account string

	// Now is the server's clock: of timestamps, TTL, windows, and of the date in each
	// answer. The system's if nil.
	Now func() time.Time
	// MaxSkew is how far the date of a request may be off. If it is 0, that is 15 minutes
	// by the system's clock and any with a clock of the test's; below 0 it is any.
	MaxSkew time.Duration

	// Behavior is what the service is free to do.
	Behavior engine.Behavior
	// Statuses are the HTTP statuses of errors by their codes, where they shall be others
	// than the service's, as far as those are known.
	Statuses map[string]int
	// ContentType is the answers' x-ots-contenttype, "protocol buffer" if empty.
	ContentType string
	// SignV4Answers signs answers to requests with a signature of version 4 in its way.
	// By default they are signed as those to version 1 are.
	SignV4Answers bool
	// AnswerMD5 says which answers carry their checksum.
	AnswerMD5 AnswerMD5
	// Fault is called for each request that is about to be served. See [Server.SetFault].
	Fault FaultFunc
}

// AnswerMD5 says which answers carry x-ots-contentmd5. Summing takes more time than all
// else that serving a large page does.
type AnswerMD5 int

// The choices.
const (
	// AnswerMD5Auto leaves it out of large answers to the Go SDK, which never looks at
	// it; every other client checks it.
	AnswerMD5Auto AnswerMD5 = iota
	AnswerMD5Always
	AnswerMD5Never
)

// A Key is a pair that signs requests.
type Key struct {
	ID, Secret string
	// Token, if given, must come with each request: a temporary credential.
	Token string
	// Expires, if given, is when the key stops being taken.
	Expires time.Time
	// Deny lists what the key may not do.
	Deny []Rule
}

// A Rule names operations on tables by patterns in the form of path.Match; an empty one
// is any. A request about no table matches an empty pattern only.
type Rule struct {
	Operation string
	Table     string
}

// A Server is a running Tablestore.
type Server struct {
	config   Config
	engine   *engine.Engine
	listener net.Listener
	http     *http.Server
	served   chan struct{}
	working  sync.WaitGroup // requests
	sums     summer
	keys     atomic.Pointer[map[string]Key]
	fault    atomic.Pointer[FaultFunc]
	mu       sync.Mutex
	calls    map[string]int
}

// Start opens the tables and begins to serve.
func Start(config Config) (*Server, error) {
	s, err := New(config)
	if err != nil {
		return nil, err
	}
	addr := config.Addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	if s.listener, err = net.Listen("tcp", addr); err != nil {
		return nil, errors.Join(fmt.Errorf("serve tablestore: %w", err), s.engine.Close())
	}
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	s.served = make(chan struct{})
	go func() {
		defer close(s.served)
		// It ends with Close, or with a listener that broke, which the next
		// request shows.
		_ = s.http.Serve(s.listener)
	}()
	return s, nil
}

// New is Start without a listener: the server is a handler. Close is needed all the same.
func New(config Config) (*Server, error) {
	store := kv.Memory()
	if config.Dir != "" {
		var err error
		if store, err = kv.Open(config.Dir); err != nil {
			return nil, fmt.Errorf("open the tables of %s: %w", config.Dir, err)
		}
	}
	e, err := engine.Open(store, engine.Config{Now: config.Now, Behavior: config.Behavior})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	s := &Server{config: config, engine: e, calls: map[string]int{}}
	keys := config.Keys
	if len(keys) == 0 {
		keys = []Key{{ID: DefaultKeyID, Secret: DefaultKeySecret}}
	}
	s.SetKeys(keys...)
	s.SetFault(config.Fault)
	return s, nil
}

// URL is the endpoint, without a slash at its end.
func (s *Server) URL() string { return "http://" + s.Addr() }

// Addr is the host and port that the server listens on.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Engine is the tables behind the server, for a look or a change past the wire.
func (s *Server) Engine() *engine.Engine { return s.engine }

// SetKeys replaces the key pairs.
func (s *Server) SetKeys(keys ...Key) {
	m := make(map[string]Key, len(keys))
	for _, k := range keys {
		m[k.ID] = k
	}
	s.keys.Store(&m)
}

// SetFault replaces the fault function; nil is none.
func (s *Server) SetFault(f FaultFunc) { s.fault.Store(&f) }

// Close cuts all connections, waits for the work under way, and closes the tables.
func (s *Server) Close() error {
	var err error
	if s.http != nil {
		err = s.http.Close()
		<-s.served
	}
	s.working.Wait()
	s.sums.close()
	return errors.Join(err, s.engine.Close())
}

func (s *Server) now() time.Time {
	if s.config.Now != nil {
		return s.config.Now()
	}
	return time.Now()
}
