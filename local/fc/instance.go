package fc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The service's words for how an invocation failed: by an error that the function
// returned, or by a panic, an exit, a crash or the deadline.
const (
	handledError   = "HandledInvocationError"
	unhandledError = "UnhandledInvocationError"
)

// call is one delivery of an event to an instance.
type call struct {
	id       string // request id
	payload  []byte
	retry    int
	deadline time.Time // as the function is told
	key      Key
	tail     *tail

	once   sync.Once
	done   chan struct{} // closed when result is there
	result outcome
}

// outcome is how a call ended.
type outcome struct {
	body       []byte
	errorType  string // empty after success
	log        []byte // the last of what it printed
	duration   time.Duration
	peakMemory int64 // bytes, of the instance
	instance   string
}

func newCall(id string, payload []byte, retry int) *call {
	return &call{id: id, payload: payload, retry: retry, tail: newTail(), done: make(chan struct{})}
}

// finish sets the outcome; only the first counts.
func (c *call) finish(body []byte, errorType string) {
	c.once.Do(func() {
		c.result = outcome{body: body, errorType: errorType}
		close(c.done)
	})
}

// errorBody is the JSON of an error that the host reports in the function's name.
func errorBody(format string, args ...any) []byte {
	body, err := json.Marshal(map[string]string{"errorMessage": fmt.Sprintf(format, args...)})
	if err != nil {
		panic("fc: " + err.Error()) // strings always marshal
	}
	return body
}

// instance is one process of a function, which serves one call at a time.
type instance struct {
	host   *Host
	pool   *pool
	number int
	id     string
	token  string // the prefix of its runtime API, which nobody else knows
	key    Key    // in its environment, as old as the instance
	dir    string

	work   chan *call    // handed to the next poll
	ready  chan struct{} // closed at the first poll
	first  sync.Once
	gone   chan struct{} // closed when the process has been waited for
	logged chan struct{} // closed when its output has been read

	mu        sync.Mutex
	pid       int    // zero before the start
	exit      string // how it ended; set before gone is closed
	said      string // the last line that it printed before it asked for work
	current   *call
	served    int
	idleSince time.Time
}

// start runs a new process of p's function and waits until it asks for work. The caller
// has counted it.
func (h *Host) start(p *pool) (*instance, error) {
	h.mu.Lock()
	h.started++
	i := &instance{
		host: h, pool: p, number: h.started, id: fmt.Sprintf("c-%d", h.started), token: token(16), key: h.keyFor(p),
		work: make(chan *call), ready: make(chan struct{}), gone: make(chan struct{}), logged: make(chan struct{}),
	}
	i.dir = filepath.Join(h.dir, i.id)
	// Known before the process runs, so that its first poll is answered; Close
	// either sees it here or has set closing before.
	if h.closing {
		h.mu.Unlock()
		h.forget(i)
		return nil, errClosing
	}
	h.instances[i.token] = i
	h.mu.Unlock()

	if err := i.run(); err != nil {
		i.mu.Lock()
		i.exit = err.Error()
		i.mu.Unlock()
		close(i.logged)
		h.forget(i)
		close(i.gone)
		return nil, fmt.Errorf("start an instance of %s: %w", p.function.Name, err)
	}
	timer := time.NewTimer(h.config.InitTimeout)
	defer timer.Stop()
	select {
	case <-i.ready:
		return i, nil
	case <-i.gone:
		return nil, fmt.Errorf("the instance of %s ended before it asked for work: %s; %s", p.function.Name, i.exit, i.unready())
	case <-timer.C:
		i.kill()
		<-i.gone
		return nil, fmt.Errorf("the instance of %s did not ask for work within %v; it waits for something before it does, or the machine is overloaded", p.function.Name, h.config.InitTimeout)
	}
}

// unready says what to do about an instance that has not come to ask for work, once its
// process is gone.
func (i *instance) unready() string {
	advice := "build the functions anew, or run " + executable(i.host.config, i.pool.function) + " by hand, which must say that FC_RUNTIME_API is missing and no more"
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case strings.HasPrefix(i.exit, "signal: "):
		return "it was killed from outside or for want of memory, and the next invocation starts another"
	case i.said == "":
		return "it printed nothing: " + advice
	}
	return fmt.Sprintf("the last line it printed is %q: %s", i.said, advice)
}

// run starts the process and the goroutines that follow it to its end.
func (i *instance) run() error {
	h, f := i.host, i.pool.function
	if err := os.Mkdir(i.dir, 0o700); err != nil {
		return err
	}
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := exec.Command(executable(h.config, f))
	cmd.Dir = h.config.BinDir
	cmd.Env = i.environment()
	cmd.Stdout, cmd.Stderr = in, in
	ownGroup(cmd)
	// Under the lock, so that a kill either comes before the start or finds the
	// process.
	i.mu.Lock()
	if i.exit != "" {
		err = errors.New(i.exit)
	} else if err = h.spawn(cmd.Start); err == nil {
		i.pid = cmd.Process.Pid
	}
	i.mu.Unlock()
	if err != nil {
		return errors.Join(err, in.Close(), out.Close(), os.RemoveAll(i.dir))
	}
	in.Close()
	go func() {
		defer close(i.logged)
		i.readLog(out)
		out.Close()
	}()
	go func() {
		err := cmd.Wait()
		killGroup(i.pid) // what it left behind
		select {
		case <-i.logged:
		case <-time.After(time.Second):
			out.Close() // a child in a group of its own holds the pipe
		}
		_ = os.RemoveAll(i.dir)
		i.mu.Lock()
		i.exit = "exit status 0"
		if err != nil {
			i.exit = err.Error()
		}
		i.mu.Unlock()
		h.forget(i)
		close(i.gone)
	}()
	return nil
}

// environment is what the process sees: what the platform sets, what the s.yaml says, and
// what the host was told; nothing of the host's own.
func (i *instance) environment() []string {
	h, f := i.host, i.pool.function
	memory := strconv.Itoa(f.MemoryMB)
	env := map[string]string{
		"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": i.dir, "TMPDIR": i.dir, "LANG": "C.UTF-8", "TZ": "UTC",
		"FC_RUNTIME_API":                  strings.TrimPrefix(h.url, "http://") + runtimePrefix + i.token,
		"FC_FUNC_CODE_PATH":               h.config.BinDir,
		"FC_ACCOUNT_ID":                   h.config.Account,
		"FC_REGION":                       h.config.Region,
		"FC_FUNCTION_NAME":                f.Name,
		"FC_FUNCTION_HANDLER":             f.Handler,
		"FC_FUNCTION_MEMORY_SIZE":         memory,
		"FC_TIMEOUT":                      strconv.Itoa(int(f.Timeout / time.Second)),
		"FC_INSTANCE_ID":                  i.id,
		"FC_FUNCTION_VERSION":             "LATEST",
		"ALIBABA_CLOUD_ACCESS_KEY_ID":     i.key.ID,
		"ALIBABA_CLOUD_ACCESS_KEY_SECRET": i.key.Secret,
		"ALIBABA_CLOUD_SECURITY_TOKEN":    i.key.Token,
	}
	for name, value := range f.Environment {
		env[name] = value
	}
	env[h.config.EndpointVariable] = h.url
	for name, value := range h.config.Env {
		env[name] = value
	}
	out := make([]string, 0, len(env))
	for name, value := range env {
		out = append(out, name+"="+value)
	}
	return out
}

// kill ends the process and its children at once. It does not wait.
func (i *instance) kill() {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.exit != "": // it has been waited for
	case i.pid == 0:
		i.exit = "killed before it was started"
	default:
		killGroup(i.pid)
	}
}

func (i *instance) isGone() bool {
	select {
	case <-i.gone:
		return true
	default:
		return false
	}
}

func (i *instance) view() (Instance, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.pid == 0 || i.exit != "" {
		return Instance{}, false
	}
	v := Instance{ID: i.id, Function: i.pool.function.Name, PID: i.pid, Served: i.served, PeakMemory: peakMemory(i.pid)}
	if i.current != nil {
		v.RequestID = i.current.id
	}
	return v, true
}

// inFlight returns the call of a request id if it is the one in flight.
func (i *instance) inFlight(id string) *call {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.current != nil && i.current.id == id {
		return i.current
	}
	return nil
}

// serve has the instance carry out a call, and reports whether it may serve another. The
// caller has it to itself.
func (i *instance) serve(c *call, fault Fault) (healthy bool) {
	timeout := i.pool.function.Timeout
	begin := time.Now()
	c.deadline = begin.Add(timeout + fault.Skew)
	c.key = i.host.keyFor(i.pool)
	defer i.strike(fault)()
	i.mu.Lock()
	i.current = c
	i.served++
	i.mu.Unlock()
	late := time.NewTimer(timeout + i.host.config.Grace)
	defer late.Stop()

	healthy = true
	handed := i.work // nil once the call is handed over
	for waiting := true; waiting; {
		select {
		case handed <- c:
			handed = nil
		case <-c.done:
			waiting = false
		case <-i.gone:
			healthy, waiting = false, false
		case <-late.C:
			i.host.log.print(i.pool.function.Name+" "+c.id, fmt.Sprintf("killed: it did not answer within %v", timeout))
			c.finish(errorBody("Function timed out after %v", timeout), unhandledError)
			i.kill()
			<-i.gone
			healthy, waiting = false, false
		}
	}
	took := time.Since(begin)
	if !healthy {
		i.mu.Lock()
		exit := i.exit
		i.mu.Unlock()
		c.finish(errorBody("Process exited unexpectedly before completing request (duration: %v, %s)", took.Round(time.Millisecond), exit), unhandledError)
	} else {
		// The end line was printed before the answer was posted; it has only to be
		// read.
		select {
		case <-c.tail.ended:
		case <-i.logged:
		case <-time.After(200 * time.Millisecond):
		}
	}
	<-c.done
	i.mu.Lock()
	i.current = nil
	i.idleSince = time.Now()
	pid := i.pid
	i.mu.Unlock()
	c.result.log, c.result.duration, c.result.instance = c.tail.bytes(), took, i.id
	i.host.slices.add(c.id, c.result.log)
	if healthy {
		c.result.peakMemory = peakMemory(pid)
	}
	return healthy
}

// runtimePrefix begins the path of every instance's runtime API; its token and the API's
// own path follow.
const runtimePrefix = "/runtime/"

func (h *Host) runtimeRoutes(mux *http.ServeMux) {
	const api = runtimePrefix + "{token}/2020-11-11/runtime/invocation/"
	with := func(serve func(*instance, http.ResponseWriter, *http.Request)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			h.mu.Lock()
			i := h.instances[r.PathValue("token")]
			h.mu.Unlock()
			if i == nil {
				http.Error(w, "no such instance", http.StatusNotFound)
				return
			}
			serve(i, w, r)
		}
	}
	mux.HandleFunc("GET "+api+"next", with((*instance).next))
	mux.HandleFunc("POST "+api+"{id}/response", with((*instance).response))
	mux.HandleFunc("POST "+api+"{id}/error", with((*instance).failure))
}

// next answers a poll when there is work.
func (i *instance) next(w http.ResponseWriter, r *http.Request) {
	i.first.Do(func() { close(i.ready) })
	select {
	case c := <-i.work:
		f, config := i.pool.function, i.host.config
		for name, value := range map[string]string{
			"x-fc-request-id":        c.id,
			"x-fc-function-deadline": strconv.FormatInt(c.deadline.UnixMilli(), 10),
			"x-fc-function-timeout":  strconv.Itoa(int(max(1, f.Timeout/time.Second))),
			"x-fc-function-name":     f.Name,
			"x-fc-function-handler":  f.Handler,
			"x-fc-function-memory":   strconv.Itoa(f.MemoryMB),
			"x-fc-access-key-id":     c.key.ID,
			"x-fc-access-key-secret": c.key.Secret,
			"x-fc-security-token":    c.key.Token,
			"x-fc-region":            config.Region,
			"x-fc-account-id":        config.Account,
			"x-fc-qualifier":         "LATEST",
			"x-fc-version-id":        "LATEST",
			"x-fc-retry-count":       strconv.Itoa(c.retry),
			"Content-Type":           "application/octet-stream",
		} {
			w.Header().Set(name, value)
		}
		// An error means that the process is dying, which its end will tell.
		_, _ = w.Write(c.payload)
	case <-i.gone:
	case <-r.Context().Done():
	}
}

// response takes a success, and ignores one of a request that is not in flight.
func (i *instance) response(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxResponse+1))
	if err != nil {
		return // the process died while it wrote
	}
	c := i.inFlight(r.PathValue("id"))
	switch {
	case c == nil:
		i.host.log.print(i.pool.function.Name+" "+i.id, "a response to request "+r.PathValue("id")+", which is not in flight, is ignored")
	case len(body) > maxResponse:
		c.finish(errorBody("the response exceeds %d bytes", maxResponse), unhandledError)
	default:
		c.finish(body, "")
	}
}

// failure takes an error. A stack trace shows that it was a panic.
func (i *instance) failure(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxResponse))
	if err != nil {
		return
	}
	c := i.inFlight(r.PathValue("id"))
	if c == nil {
		i.host.log.print(i.pool.function.Name+" "+i.id, "an error of request "+r.PathValue("id")+", which is not in flight, is ignored")
		return
	}
	var shape struct {
		StackTrace []json.RawMessage `json:"stackTrace"`
	}
	kind := handledError
	if json.Unmarshal(body, &shape) != nil || len(shape.StackTrace) > 0 {
		kind = unhandledError
	}
	c.finish(body, kind)
}
