// Package fc is a function host: it runs the built function binaries on this machine as
// Function Compute would, configured by the same s.yaml.
//
// It has two faces on one loopback listener. To a function's process it is the runtime
// API: the process asks for work, and posts an answer or an error. To callers it is the
// API that invokes functions, with signatures verified, synchronous and asynchronous, so
// that the service's own client works unchanged.
//
// What the service promises, the host promises, and no more: an instance is one process
// that serves one invocation at a time, is reused while it is warm, and is killed with
// its whole process group at the deadline; an asynchronous invocation is delivered at
// least once and retried as configured; a synchronous one is never retried; instances are
// capped, and beyond the cap callers are told so. A function that crashes, exits, hangs
// or never answers fails its invocation and nothing else.
//
//	host, err := fc.Start(ctx, fc.Config{
//		Functions: d.Functions, // of deployment.Parse
//		BinDir:    "target/bin",
//		Timers:    true,
//		Log:       os.Stderr,
//	})
//	…
//	defer host.Close()
//
// Tests hold it by the hand: [Host.Instances], [Host.Kill], [Host.Fire], [Config.Fault]
// and [Config.CallFault] kill, freeze, repeat, drop and delay, and [Chaos] does all that
// at random. Object triggers are fired by whoever keeps the objects, through
// [Host.ObjectCreated], or by the host itself, which watches the folders of
// [Config.Buckets]; events of a bus by [Host.Publish].
//
// Not here: HTTP triggers, lifecycle hooks, versions and aliases, provisioned instances,
// limits on memory and CPU, and calls that change functions.
package fc

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tablevault/tablevault/local/fc/deployment"
	"github.com/tablevault/tablevault/local/ram"
)

// Limits of the service that the host keeps.
const (
	maxSyncPayload  = 32 << 20
	maxAsyncPayload = 128 << 10
	maxResponse     = 32 << 20
	maxLogTail      = 4 << 10
)

// Key is an access key, with a token if it is a temporary one.
type Key = ram.Key

// Config says what is run and how. Functions and BinDir are required.
type Config struct {
	// Functions are those of the s.yaml.
	Functions []deployment.Function

	// BinDir holds the executables: the last element of each function's handler.
	BinDir string

	// Listen is a loopback address; default 127.0.0.1 and any free port.
	Listen string

	// Region and Account are told to the functions; default "local" and "0".
	Region  string
	Account string

	// Key signs for callers of the host and is handed to the functions. Without one it is
	// generated; see [Host.Key].
	Key Key

	// Authority knows keys and permissions; default one that knows Key, its owner, and
	// lets everybody do everything. If it is given, its owner must be Key.
	Authority *ram.Authority

	// TemporaryKeys gives each instance, in its environment, and each invocation, in its
	// headers, a key of its own instead of Key: one of the function's role, valid for
	// KeyLife; default 36 hours, as the service's.
	TemporaryKeys bool
	KeyLife       time.Duration

	// Env is set in every instance, over what the s.yaml says.
	Env map[string]string

	// EndpointVariable names the variable in which instances find the host's URL; default
	// TABLEVAULT_FC_ENDPOINT.
	EndpointVariable string

	// Timers switches the timers of the s.yaml on.
	Timers bool

	// Cold ends an instance after each invocation.
	Cold bool

	// MaxInstances caps the instances of each function that reserves none; default
	// 4. MaxTotal caps them all; default 16.
	MaxInstances int
	MaxTotal     int

	// Idle is how long a warm instance is kept; default three minutes.
	Idle time.Duration

	// InitTimeout is how long a process may take to ask for work; default 20 s.
	InitTimeout time.Duration

	// Grace is how long after the deadline an answer is still waited for before the
	// instance is killed; default 200 ms.
	Grace time.Duration

	// Backoff returns the pause before retry n, from 1, of an asynchronous invocation;
	// default 100 ms, doubling up to 10 s.
	Backoff func(n int) time.Duration

	// Tasks keeps asynchronous invocations; default [NewMemoryTasks]. One of [OpenTasks]
	// survives the host.
	Tasks Tasks

	// Buckets are folders by the name of the bucket that they stand for, whose new files
	// fire object triggers as new objects would; they are looked through every
	// WatchEvery, default half a second.
	Buckets    map[string]string
	WatchEvery time.Duration

	// Tell sends the envelope of an ended invocation to a destination that is no
	// function, by its ARN; nil means that the log says so and no more.
	Tell func(arn string, envelope []byte) error

	// Fault is asked before each delivery what goes wrong with it; nil means nothing
	// does. CallFault is asked before each invocation through the API, and before it is
	// known whether there will be a delivery.
	Fault     func(Delivery) Fault
	CallFault func(function string) CallFault

	// TempDir is where the instances' temporary folders are made; default the system's.
	// [Host.Close] leaves nothing there, a killed host does.
	TempDir string

	// Log takes what the functions print and what the host has to say, a line each with
	// the function and the request in front; default discards it.
	Log io.Writer
}

// Host runs functions. Its methods may be called from several goroutines.
type Host struct {
	config   Config
	url      string
	dir      string // temporary files of the instances
	server   *http.Server
	verifier *verifier
	log      *lineLog
	slices   *logSlices
	spawn    func(func() error) error // runs a start where the parent-death signal is safe

	ctx    context.Context // ends when the host closes
	cancel context.CancelFunc
	work   sync.WaitGroup // dispatchers, timers, tasks
	served chan struct{}  // closed when the listener's goroutine ends

	closed     sync.Once
	closeError error

	// stops is held while it is decided whether a task is delivered or stopped.
	stops   sync.Mutex
	running map[string]*instance // by function and task

	mu        sync.Mutex
	pools     map[string]*pool
	instances map[string]*instance // by token
	total     int                  // instances that exist or are being started
	started   int                  // instances ever
	changed   chan struct{}        // closed and replaced when an instance came free or ended
	closing   bool
}

// Start checks that every function's executable is there and serves them until
// [Host.Close], or until ctx ends.
func Start(ctx context.Context, config Config) (*Host, error) {
	config = withDefaults(config)
	if err := check(config); err != nil {
		return nil, fmt.Errorf("start function host: %w", err)
	}
	bin, err := filepath.Abs(config.BinDir)
	if err != nil {
		return nil, fmt.Errorf("start function host: %w", err)
	}
	config.BinDir = bin
	listener, err := net.Listen("tcp", config.Listen)
	if err != nil {
		return nil, fmt.Errorf("start function host: %w", err)
	}
	dir, err := os.MkdirTemp(config.TempDir, "tablevault-fc-")
	if err != nil {
		listener.Close()
		return nil, fmt.Errorf("start function host: %w", err)
	}
	h := &Host{
		config: config, url: "http://" + listener.Addr().String(), dir: dir,
		log:       &lineLog{to: config.Log},
		slices:    newLogSlices(),
		pools:     make(map[string]*pool),
		instances: make(map[string]*instance),
		running:   make(map[string]*instance),
		changed:   make(chan struct{}),
		served:    make(chan struct{}),
	}
	h.verifier = newVerifier(h.secret)
	h.ctx, h.cancel = context.WithCancel(ctx)
	h.spawn = spawner(h.ctx)
	for _, f := range config.Functions {
		p := &pool{function: f, limit: config.MaxInstances, queue: newQueue()}
		if f.Reserved > 0 {
			p.limit = f.Reserved
		}
		h.pools[f.Name] = p
	}
	if err := h.resume(); err != nil {
		h.cancel()
		return nil, errors.Join(fmt.Errorf("start function host: %w", err), listener.Close(), os.RemoveAll(dir))
	}
	h.server = &http.Server{
		Handler: h.handler(),
		// Functions hold a poll open for as long as there is no work, so nothing
		// but the headers has a time limit.
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(slog.NewTextHandler(h.log.writer("host"), nil), slog.LevelWarn),
	}
	go func() {
		defer close(h.served)
		if err := h.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			h.log.print("host", "stopped listening: "+err.Error())
		}
	}()
	for _, p := range h.pools {
		h.work.Go(func() { h.dispatch(p) })
		if config.Timers {
			for _, t := range p.function.Timers {
				if t.Enabled {
					h.work.Go(func() { h.tick(p, t) })
				}
			}
		}
	}
	h.work.Go(h.reapIdle)
	for bucket, folder := range config.Buckets {
		h.work.Go(func() { h.watch(bucket, folder) })
	}
	context.AfterFunc(ctx, func() { _ = h.Close() })
	return h, nil
}

func withDefaults(c Config) Config {
	text := func(to *string, value string) {
		if *to == "" {
			*to = value
		}
	}
	text(&c.Listen, "127.0.0.1:0")
	text(&c.Region, "local")
	text(&c.Account, "0")
	text(&c.EndpointVariable, "TABLEVAULT_FC_ENDPOINT")
	duration := func(to *time.Duration, value time.Duration) {
		if *to == 0 {
			*to = value
		}
	}
	duration(&c.Idle, 3*time.Minute)
	duration(&c.InitTimeout, 20*time.Second)
	duration(&c.Grace, 200*time.Millisecond)
	duration(&c.KeyLife, 36*time.Hour)
	duration(&c.WatchEvery, 500*time.Millisecond)
	if c.MaxInstances == 0 {
		c.MaxInstances = 4
	}
	if c.MaxTotal == 0 {
		c.MaxTotal = 16
	}
	if c.Key == (Key{}) {
		c.Key = Key{ID: "LTAI" + token(8), Secret: token(16)}
	}
	if c.Backoff == nil {
		c.Backoff = func(n int) time.Duration { return min(100*time.Millisecond<<min(n-1, 10), 10*time.Second) }
	}
	if c.Tasks == nil {
		c.Tasks = NewMemoryTasks()
	}
	if c.Authority == nil {
		c.Authority = ram.New(ram.Config{Owner: c.Key})
	}
	if c.Log == nil {
		c.Log = io.Discard
	}
	return c
}

func check(c Config) error {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("listen address %q: %w", c.Listen, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("listen address %q is not on this machine only: whoever reaches the host runs functions", c.Listen)
	}
	if len(c.Functions) == 0 {
		return errors.New("no functions")
	}
	if c.Key.ID == "" || c.Key.Secret == "" {
		return errors.New("the key needs an id and a secret")
	}
	if k, ok := c.Authority.Lookup(c.Key.ID); !ok || k != c.Key {
		return errors.New("the authority does not know the host's key")
	}
	names := make(map[string]bool)
	for _, f := range c.Functions {
		if names[f.Name] {
			return fmt.Errorf("two functions are called %s", f.Name)
		}
		names[f.Name] = true
		if f.Timeout <= 0 {
			return fmt.Errorf("function %s has no timeout", f.Name)
		}
		info, err := os.Stat(executable(c, f))
		switch {
		case err != nil:
			return fmt.Errorf("function %s: its executable is missing: %w: build the functions into %s", f.Name, err, c.BinDir)
		case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
			return fmt.Errorf("function %s: %s is no executable file", f.Name, executable(c, f))
		}
	}
	return nil
}

func executable(c Config, f deployment.Function) string {
	return filepath.Join(c.BinDir, filepath.Base(f.Handler))
}

// URL returns the base address of both faces.
func (h *Host) URL() string { return h.url }

// Key returns the key that signs for callers.
func (h *Host) Key() Key { return h.config.Key }

// LookupKey returns the key of an id: the host's own, or a temporary one.
func (h *Host) LookupKey(id string) (Key, bool) { return h.config.Authority.Lookup(id) }

func (h *Host) secret(id, token string) (string, error) {
	k, ok := h.LookupKey(id)
	switch {
	case !ok:
		return "", fmt.Errorf("%w %q: the host's own, and those it gave its functions, are known here", errUnknownKey, id)
	case k.Token != token:
		return "", fmt.Errorf("the security token is not that of the access key %q", id)
	case !k.Expires.IsZero() && !time.Now().Before(k.Expires):
		return "", fmt.Errorf("the access key %q has expired at %v", id, k.Expires.UTC().Format(time.RFC3339))
	}
	return k.Secret, nil
}

// keyFor returns the key that a function is handed now.
func (h *Host) keyFor(p *pool) Key {
	if !h.config.TemporaryKeys {
		return h.config.Key
	}
	return h.config.Authority.Assume(p.function.RoleName(), h.config.KeyLife)
}

// Close stops the work, kills the instances, waits until their processes are gone, and
// only then closes the listener: a function whose host does not answer asks again without
// pause. Invocations in flight fail. It may be called more than once.
func (h *Host) Close() error {
	h.closed.Do(func() { h.closeError = h.close() })
	return h.closeError
}

func (h *Host) close() error {
	h.mu.Lock()
	h.closing = true
	instances := slices.Collect(maps.Values(h.instances))
	h.mu.Unlock()
	h.cancel()
	for _, i := range instances {
		i.kill()
	}
	for _, i := range instances {
		<-i.gone
	}
	h.work.Wait()
	// The processes are gone, so what is still being answered ends by itself.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(h.ctx), 2*time.Second)
	defer cancel()
	err := h.server.Shutdown(ctx)
	if err != nil {
		err = h.server.Close()
	}
	<-h.served
	return errors.Join(err, os.RemoveAll(h.dir))
}

// Instance is a process that serves a function.
type Instance struct {
	ID         string
	Function   string
	PID        int
	RequestID  string // of the invocation in flight, or empty
	Served     int    // invocations so far, including the one in flight
	PeakMemory int64  // bytes; zero where the system does not tell
}

// Instances returns the instances that have a process, oldest first.
func (h *Host) Instances() []Instance {
	h.mu.Lock()
	all := slices.Collect(maps.Values(h.instances))
	h.mu.Unlock()
	slices.SortFunc(all, func(a, b *instance) int { return a.number - b.number })
	out := make([]Instance, 0, len(all))
	for _, i := range all {
		if view, ok := i.view(); ok {
			out = append(out, view)
		}
	}
	return out
}

// Kill kills the instance of a process id, with SIGKILL and with all its children.
func (h *Host) Kill(pid int) error {
	return h.killWhere(fmt.Sprintf("process id %d", pid), func(v Instance) bool { return v.PID == pid })
}

// KillRequest kills the instance that serves a request.
func (h *Host) KillRequest(id string) error {
	return h.killWhere("request "+id, func(v Instance) bool { return v.RequestID == id })
}

func (h *Host) killWhere(what string, is func(Instance) bool) error {
	h.mu.Lock()
	all := slices.Collect(maps.Values(h.instances))
	h.mu.Unlock()
	for _, i := range all {
		if view, ok := i.view(); ok && is(view) {
			i.kill()
			return nil
		}
	}
	return fmt.Errorf("kill: no instance with %s", what)
}

// notify wakes whoever waits for an instance. h.mu is held.
func (h *Host) notify() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// token returns n random bytes in hex.
func token(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// newRequestID returns an id in the form of a UUID.
func newRequestID() string {
	t := token(16)
	return t[:8] + "-" + t[8:12] + "-" + t[12:16] + "-" + t[16:20] + "-" + t[20:]
}
