package fc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	openapi "github.com/alibabacloud-go/darabonba-openapi/v2/utils"
	api "github.com/alibabacloud-go/fc-20230330/v4/client"
	"github.com/alibabacloud-go/tea/dara"
	"github.com/alibabacloud-go/tea/tea"

	"github.com/tablevault/tablevault/local/fc/deployment"
	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/function"
)

// binaries is the folder with the test function, which TestMain builds.
var binaries string

func TestMain(m *testing.M) {
	if dir := os.Getenv("TEST_HOST_IN"); dir != "" {
		hostUntilKilled(dir, os.Getenv("TEST_HOST_TASKS"))
		return
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "tablevault-fc-test-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binaries = dir
		build := exec.Command("go", "build", "-o", filepath.Join(dir, "function"), "./testdata/function")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the test function: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// define returns a function of the test binary.
func define(name string, timeout time.Duration, env map[string]string) deployment.Function {
	all := map[string]string{"TABLEVAULT_VAULT": "file:///nowhere", "TABLEVAULT_FUNCTION_PREFIX": "test-"}
	for k, v := range env {
		all[k] = v
	}
	return deployment.Function{Name: name, Handler: "bin/function", MemoryMB: 512, Timeout: timeout, Environment: all,
		Async: deployment.Async{Retries: 2, MaxAge: time.Hour}}
}

// hosted is a running host with what a test looks at.
type hosted struct {
	*Host
	*function.Invoker
	notes string
	log   *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// run starts a host with the functions test-main and test-other, or those of the
// configuration.
func run(t *testing.T, config Config) *hosted {
	t.Helper()
	h := &hosted{notes: t.TempDir(), log: &lockedBuffer{}}
	if config.Functions == nil {
		config.Functions = []deployment.Function{define("test-main", 10*time.Second, nil), define("test-other", 10*time.Second, nil)}
	}
	config.BinDir = binaries
	config.Log = h.log
	if config.Env == nil {
		config.Env = map[string]string{}
	}
	config.Env["TEST_NOTES"] = h.notes
	if config.Backoff == nil {
		config.Backoff = func(int) time.Duration { return 10 * time.Millisecond }
	}
	var err error
	if h.Host, err = Start(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of the host:\n%s", h.log)
		}
	})
	key := h.Key()
	h.Invoker, err = function.NewInvoker(function.InvokerConfig{Endpoint: h.URL(), Region: "local",
		Credentials: access.Key{ID: key.ID, Secret: key.Secret}.Provider()})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// reply mirrors what the test function tells.
type reply struct {
	PID     int               `json:"pid"`
	Calls   int               `json:"calls"`
	Retry   int               `json:"retry"`
	Key     string            `json:"key"`
	LeftMS  int64             `json:"left_ms"`
	Margin  int64             `json:"margin_ms"`
	Child   int               `json:"child"`
	Env     map[string]string `json:"env"`
	Padding string            `json:"padding"`
}

func tick(settings string) function.Command {
	return function.Command{Kind: function.KindTick, Settings: json.RawMessage(settings)}
}

func (h *hosted) tick(t *testing.T, settings string) reply {
	t.Helper()
	r, err := h.try(t, settings)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (h *hosted) try(t *testing.T, settings string) (reply, error) {
	body, err := h.Invoke(t.Context(), "test-main", tick(settings))
	var r reply
	if err == nil {
		err = json.Unmarshal(body, &r)
	}
	return r, err
}

func (h *hosted) submit(t *testing.T, id, settings string) {
	t.Helper()
	if err := h.Invoker.Submit(t.Context(), "test-main", id, tick(settings)); err != nil {
		t.Fatal(err)
	}
}

// task waits until a task has ended, or has the status.
func (h *hosted) task(t *testing.T, id string, until Status) Task {
	t.Helper()
	var task Task
	eventually(t, "task "+id+" "+string(until), func() bool {
		var err error
		task, err = h.config.Tasks.Get("test-main", id)
		return err == nil && (task.Status == until || task.Status.Ended())
	})
	if task.Status != until {
		t.Fatalf("task %s is %s, want %s: %s", id, task.Status, until, task.Error)
	}
	return task
}

func (h *hosted) readNotes(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(h.notes, "notes"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.FieldsFunc(string(data), func(r rune) bool { return r == '\n' })
}

// open lets those go on that wait at a gate.
func (h *hosted) open(t *testing.T, gate string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(h.notes, "open-"+gate), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// alive reports whether a process exists and is no zombie.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return runtime.GOOS != "linux"
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

// plainClient makes the client's requests: its own way of making them writes to a client
// that all share, which is a data race.
type plainClient struct{ *http.Client }

func (p plainClient) Call(r *http.Request, _ *http.Transport) (*http.Response, error) { return p.Do(r) }

// client is the service's own client.
func (h *hosted) client(t *testing.T, id, secret string) *api.Client {
	t.Helper()
	c, err := api.NewClient(&openapi.Config{AccessKeyId: &id, AccessKeySecret: &secret, Protocol: dara.String("http"),
		Endpoint: dara.String(strings.TrimPrefix(h.URL(), "http://")), HttpClient: plainClient{&http.Client{}}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSync(t *testing.T) {
	h := run(t, Config{Key: Key{ID: "fixed", Secret: "pair"}})
	body, err := h.Invoke(t.Context(), "test-main", function.Command{Kind: function.KindPing})
	if err != nil {
		t.Fatal(err)
	}
	var pong function.Pong
	if err := json.Unmarshal(body, &pong); err != nil {
		t.Fatal(err)
	}
	if pong.Function != "test-main" || pong.Region != "local" || pong.Account != "0" || pong.AccessKey != "fixed" || pong.Temporary ||
		pong.MemoryMB != 512 || pong.Vault != "file:///nowhere" || pong.LeftMS < 8000 || pong.LeftMS > 10000 {
		t.Errorf("%+v", pong)
	}
	// A third of ten seconds is kept, since that is less than the usual margin.
	if r := h.tick(t, `{}`); r.Margin < 3000 || r.Margin > 3334 {
		t.Errorf("margin %d ms", r.Margin)
	}
	if r := h.tick(t, `{"do":"pad","bytes":5000000}`); len(r.Padding) != 5000000 {
		t.Errorf("%d bytes", len(r.Padding))
	}
}

// TestRealClient: headers and bodies as the service's client sees them.
func TestRealClient(t *testing.T) {
	h := run(t, Config{Key: Key{ID: "fixed", Secret: "pair"}})
	client := h.client(t, "fixed", "pair")
	invoke := func(settings string) (*api.InvokeFunctionResponse, string) {
		t.Helper()
		event := fmt.Sprintf(`{"kind":"tick","settings":%s}`, settings)
		res, err := client.InvokeFunctionWithContext(t.Context(), dara.String("test-main"),
			&api.InvokeFunctionRequest{Body: strings.NewReader(event), Qualifier: dara.String("LATEST")},
			(&api.InvokeFunctionHeaders{}).SetXFcInvocationType("Sync").SetXFcLogType("Tail"), &dara.RuntimeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, string(body)
	}
	res, body := invoke(`{"do":"print","bytes":1000}`)
	if *res.StatusCode != 200 || res.Headers["x-fc-error-type"] != nil || !strings.HasPrefix(body, `{"ok":true,"reply":{"pid":`) {
		t.Errorf("%v %v %s", *res.StatusCode, res.Headers, body)
	}
	id := dara.StringValue(res.Headers["x-fc-request-id"])
	tail, err := base64.StdEncoding.DecodeString(dara.StringValue(res.Headers["x-fc-log-result"]))
	if err != nil {
		t.Fatal(err)
	}
	// The last 4 KiB, to the end line of this very request.
	if len(tail) != maxLogTail || !strings.Contains(string(tail), "line 999\n") || strings.Contains(string(tail), "line 1\n") ||
		!strings.HasSuffix(string(tail), "FC Invoke End RequestId: "+id+"\n") {
		t.Errorf("%d bytes of log:\n%s", len(tail), tail)
	}
	if ms, err := strconv.Atoi(dara.StringValue(res.Headers["x-fc-invocation-duration"])); err != nil || ms > 10000 {
		t.Error(res.Headers)
	}
	if mb, err := strconv.ParseFloat(dara.StringValue(res.Headers["x-fc-max-memory-usage"]), 64); err != nil || runtime.GOOS == "linux" && (mb < 1 || mb > 200) {
		t.Error(res.Headers)
	}

	res, body = invoke(`{"do":"fail"}`)
	if *res.StatusCode != 200 || dara.StringValue(res.Headers["x-fc-error-type"]) != handledError ||
		body != `{"errorMessage":"test-main tick: it did not work","errorType":"Retriable"}` {
		t.Errorf("%v %v %s", *res.StatusCode, res.Headers, body)
	}
	res, body = invoke(`{"do":"refuse"}`)
	if res.Headers["x-fc-error-type"] != nil || !strings.HasPrefix(body, `{"ok":false,"error":{"type":"Permanent","message":"it will never work"`) {
		t.Errorf("%v %s", res.Headers, body)
	}
	res, body = invoke(`{"do":"exit"}`)
	if *res.StatusCode != 200 || dara.StringValue(res.Headers["x-fc-error-type"]) != unhandledError || !strings.Contains(body, "exit status 7") {
		t.Errorf("%v %v %s", *res.StatusCode, res.Headers, body)
	}
}

// TestFunctionsAreTold: the service's client lists functions, in pages, and asks for one.
func TestFunctionsAreTold(t *testing.T) {
	f := define("test-main", 10*time.Second, map[string]string{"SETTING": "one"})
	f.Role, f.CPU, f.DiskMB = "acs:ram::1:role/worker", 0.5, 512
	h := run(t, Config{Key: Key{ID: "fixed", Secret: "pair"}, Functions: []deployment.Function{define("test-other", 10*time.Second, nil), f, define("more", time.Minute, nil)}})
	client := h.client(t, "fixed", "pair")
	list := func(prefix string, limit int32) (names []string) {
		t.Helper()
		for token := (*string)(nil); ; {
			page, err := client.ListFunctionsWithOptions(&api.ListFunctionsRequest{Prefix: &prefix, Limit: &limit, NextToken: token, FcVersion: dara.String("v3")}, nil, &dara.RuntimeOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range page.Body.Functions {
				names = append(names, *f.FunctionName)
			}
			if len(page.Body.Functions) > int(limit) {
				t.Errorf("%d functions in a page of %d", len(page.Body.Functions), limit)
			}
			if token = page.Body.NextToken; token == nil {
				return names
			}
		}
	}
	if got := list("", 1); !slices.Equal(got, []string{"more", "test-main", "test-other"}) {
		t.Errorf("%q", got)
	}
	if got := list("test-", 100); !slices.Equal(got, []string{"test-main", "test-other"}) {
		t.Errorf("%q", got)
	}
	got, err := client.GetFunctionWithOptions(dara.String("test-main"), &api.GetFunctionRequest{Qualifier: dara.String("LATEST")}, nil, &dara.RuntimeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b := got.Body
	if *b.FunctionArn != "acs:fc:local:0:functions/test-main" || *b.Runtime != "go1" || *b.Timeout != 10 || *b.MemorySize != 512 || *b.Cpu != 0.5 ||
		*b.Role != f.Role || *b.EnvironmentVariables["SETTING"] != "one" || *b.Handler != "bin/function" {
		t.Errorf("%v", b)
	}
	var sdk *tea.SDKError
	if _, err = client.GetFunctionWithOptions(dara.String("none"), &api.GetFunctionRequest{}, nil, &dara.RuntimeOptions{}); !errors.As(err, &sdk) || *sdk.Code != "FunctionNotFound" {
		t.Errorf("%v", err)
	}
	limit := int32(101)
	if _, err = client.ListFunctionsWithOptions(&api.ListFunctionsRequest{Limit: &limit}, nil, &dara.RuntimeOptions{}); !errors.As(err, &sdk) || *sdk.Code != "InvalidArgument" {
		t.Errorf("%v", err)
	}
}

// TestStop: the service's client stops a task that waits, one that is to be tried again,
// and one that runs, with its instance; what has ended stays as it is, also for the next
// host.
func TestStop(t *testing.T) {
	tasks := NewMemoryTasks()
	f := define("test-main", 10*time.Second, nil)
	f.Async.Retries = 1
	config := Config{Key: Key{ID: "fixed", Secret: "pair"}, Tasks: tasks, Functions: []deployment.Function{f, define("test-other", time.Second, nil)}, MaxInstances: 1,
		Backoff: func(int) time.Duration { return time.Hour }}
	h := run(t, config)
	client := h.client(t, "fixed", "pair")
	stop := func(id string) error {
		res, err := client.StopAsyncTaskWithOptions(dara.String("test-main"), &id, &api.StopAsyncTaskRequest{}, nil, &dara.RuntimeOptions{})
		if err == nil && *res.StatusCode != 204 {
			t.Errorf("%s: %d", id, *res.StatusCode)
		}
		return err
	}
	h.submit(t, "done", `{}`)
	h.task(t, "done", Succeeded)
	h.submit(t, "again", `{"do":"fail"}`)
	h.task(t, "again", Retrying)
	h.submit(t, "runs", `{"do":"child","note":"runs"}`)
	h.task(t, "runs", Succeeded)
	h.submit(t, "runs-long", `{"do":"sleep","millis":60000,"note":"runs-long"}`)
	eventually(t, "it has begun", func() bool { return strings.Contains(strings.Join(h.readNotes(t), " "), "note=runs-long") })
	running := h.task(t, "runs-long", Running)
	h.submit(t, "waits", `{"note":"waits"}`)
	for _, id := range []string{"done", "again", "waits", "runs-long", "waits"} {
		if err := stop(id); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	for id, want := range map[string]Status{"done": Succeeded, "again": Stopped, "waits": Stopped, "runs-long": Stopped} {
		if task := h.task(t, id, want); task.Ended.IsZero() || task.Payload != nil {
			t.Errorf("%+v", task)
		}
	}
	eventually(t, "its instance is gone", func() bool {
		for _, i := range h.Instances() {
			if i.ID == running.Instance {
				return false
			}
		}
		return true
	})
	got, err := client.GetAsyncTaskWithOptions(dara.String("test-main"), dara.String("runs-long"), &api.GetAsyncTaskRequest{}, nil, &dara.RuntimeOptions{})
	if err != nil || *got.Body.Status != "Stopped" || *got.Body.AlreadyRetriedTimes != 0 {
		t.Errorf("%v, %v", got, err)
	}
	var sdk *tea.SDKError
	if err := stop("none"); !errors.As(err, &sdk) || *sdk.StatusCode != 404 || *sdk.Code != "AsyncTaskNotFound" {
		t.Errorf("%v", err)
	}
	// The place of the instance is free, and what was stopped does not take it.
	h.submit(t, "after", `{"note":"after"}`)
	h.task(t, "after", Succeeded)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	// A host that died before the instance did.
	half, err := tasks.Get("test-main", "runs-long")
	if err != nil {
		t.Fatal(err)
	}
	half.ID, half.Status, half.Ended = "half", Stopping, time.Time{}
	if err := tasks.Add(half); err != nil {
		t.Fatal(err)
	}
	next := run(t, config)
	next.task(t, "half", Stopped)
	next.submit(t, "last", `{"note":"last"}`)
	next.task(t, "last", Succeeded)
	for _, notes := range [][]string{h.readNotes(t), next.readNotes(t)} {
		if text := strings.Join(notes, " "); strings.Contains(text, "note=waits") || strings.Count(text, "note=runs-long") > 1 {
			t.Errorf("what was stopped was delivered: %s", text)
		}
	}
}

// TestOldClient: a client of the API before this one, whose requests are signed
// otherwise, is told what it needs where it looks for it.
func TestOldClient(t *testing.T) {
	h := run(t, Config{})
	for _, path := range []string{"/2016-08-15/services/s/functions/f/invocations", "/2021-04-06/services"} {
		res, err := http.Post(h.URL()+path, "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		var body map[string]string
		err = json.NewDecoder(res.Body).Decode(&body)
		res.Body.Close()
		if err != nil || res.StatusCode != 400 || body["ErrorCode"] != "PathNotSupported" || body["Code"] != body["ErrorCode"] ||
			!strings.Contains(body["ErrorMessage"], "2.0") || !strings.Contains(body["ErrorMessage"], "fc-20230330") || body["Message"] != body["ErrorMessage"] {
			t.Errorf("%s: %d %v, %v", path, res.StatusCode, body, err)
		}
	}
}

// TestTaskIDsAreTold: an answer to an asynchronous invocation has the task's id, also one
// that the host has given it.
func TestTaskIDsAreTold(t *testing.T) {
	h := run(t, Config{Key: Key{ID: "fixed", Secret: "pair"}})
	client := h.client(t, "fixed", "pair")
	for _, given := range []string{"", "mine"} {
		headers := (&api.InvokeFunctionHeaders{}).SetXFcInvocationType("Async")
		if given != "" {
			headers.SetXFcAsyncTaskId(given)
		}
		res, err := client.InvokeFunctionWithContext(t.Context(), dara.String("test-main"),
			&api.InvokeFunctionRequest{Body: strings.NewReader(`{"kind":"ping"}`)}, headers, &dara.RuntimeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		id := dara.StringValue(res.Headers["x-fc-async-task-id"])
		if given != "" && id != given || !taskID.MatchString(id) {
			t.Errorf("given %q, told %q", given, id)
		}
		if task := h.task(t, id, Succeeded); task.RequestID != dara.StringValue(res.Headers["x-fc-request-id"]) {
			t.Errorf("%+v", task)
		}
	}
}

func TestRefusals(t *testing.T) {
	h := run(t, Config{Key: Key{ID: "fixed", Secret: "pair"}})
	call := func(client *api.Client, name string, body []byte, headers *api.InvokeFunctionHeaders, qualifier *string) error {
		_, err := client.InvokeFunctionWithContext(t.Context(), &name, &api.InvokeFunctionRequest{Body: bytes.NewReader(body), Qualifier: qualifier}, headers, &dara.RuntimeOptions{})
		return err
	}
	good := h.client(t, "fixed", "pair")
	sync := func() *api.InvokeFunctionHeaders { return &api.InvokeFunctionHeaders{} }
	async := func() *api.InvokeFunctionHeaders {
		return (&api.InvokeFunctionHeaders{}).SetXFcInvocationType("Async")
	}
	if err := call(good, "test-main", []byte(`{"kind":"ping"}`), async().SetXFcAsyncTaskId("a"), nil); err != nil {
		t.Error(err)
	}
	for name, test := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"unknown function":   {call(good, "test-none", nil, sync(), nil), 404, "FunctionNotFound"},
		"odd name":           {call(good, "a/b c", nil, sync(), nil), 404, "FunctionNotFound"},
		"unknown version":    {call(good, "test-main", nil, sync(), dara.String("prod")), 404, "VersionNotFound"},
		"unknown key":        {call(h.client(t, "other", "pair"), "test-main", nil, sync(), nil), 403, "InvalidAccessKeyID"},
		"wrong secret":       {call(h.client(t, "fixed", "pear"), "test-main", nil, sync(), nil), 403, "SignatureNotMatch"},
		"long event":         {call(good, "test-main", make([]byte, maxAsyncPayload+1), async(), nil), 400, "EntityTooLarge"},
		"very long event":    {call(good, "test-main", make([]byte, maxSyncPayload+1), sync(), nil), 400, "EntityTooLarge"},
		"task id":            {call(good, "test-main", nil, async().SetXFcAsyncTaskId("1/2"), nil), 400, "InvalidArgument"},
		"kind of invocation": {call(good, "test-main", nil, sync().SetXFcInvocationType("Never"), nil), 400, "InvalidArgument"},
		"task id again":      {call(good, "test-main", []byte(`{"kind":"ping"}`), async().SetXFcAsyncTaskId("a"), nil), 409, "AsyncTaskAlreadyExists"},
	} {
		t.Run(name, func(t *testing.T) {
			var sdk *tea.SDKError
			if !errors.As(test.err, &sdk) || *sdk.StatusCode != test.status || *sdk.Code != test.code {
				t.Errorf("%T: %v", test.err, test.err)
			}
		})
	}
	_, err := good.DeleteFunction(dara.String("test-main"))
	var sdk *tea.SDKError
	if !errors.As(err, &sdk) || *sdk.StatusCode != 501 || !strings.Contains(*sdk.Message, "DELETE /2023-03-30/functions/test-main") {
		t.Errorf("an unsupported call: %v", err)
	}
}

// TestFailures: whatever a function does wrong, the invocation fails with the right
// words, and the next one works.
func TestFailures(t *testing.T) {
	h := run(t, Config{Functions: []deployment.Function{define("test-main", time.Minute, nil), define("test-stillborn", time.Second, map[string]string{"TEST_MODE": "stillborn"})}})
	// Those whose time limit is reached, with time for an answer and with none, and one
	// that never asks for work.
	brief := func(f deployment.Function, grace, init time.Duration) *hosted {
		return run(t, Config{Functions: []deployment.Function{f}, Grace: grace, InitTimeout: init})
	}
	patient := brief(define("test-main", time.Second, nil), time.Minute, 0)
	strict := brief(define("test-main", time.Second, nil), time.Millisecond, 0)
	for name, test := range map[string]struct {
		on                      *hosted
		settings, kind, message string
	}{
		"error":            {h, `{"do":"fail"}`, function.TypeRetriable, "it did not work"},
		"permanent":        {h, `{"do":"refuse"}`, function.TypePermanent, "it will never work"},
		"panic":            {h, `{"do":"panic"}`, function.TypePanic, "panic: oh"},
		"panic elsewhere":  {h, `{"do":"panic-elsewhere"}`, function.TypeCrash, "exit status 2"},
		"exit":             {h, `{"do":"exit"}`, function.TypeCrash, "exit status 7"},
		"bad settings":     {h, `{"do":7}`, function.TypePermanent, "cannot unmarshal"},
		"deadline obeyed":  {patient, `{"do":"wait","millis":60000}`, function.TypeDeadline, "deadline"},
		"deadline ignored": {strict, `{"do":"sleep","millis":60000}`, function.TypeCrash, "timed out after 1s"},
		"hangs for good":   {strict, `{"do":"stop"}`, function.TypeCrash, "timed out after 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := test.on.try(t, test.settings)
			var failure *function.Failure
			if !errors.As(err, &failure) || failure.Type != test.kind || !strings.Contains(failure.Message, test.message) {
				t.Errorf("%T: %v", err, err)
			}
			if r := test.on.tick(t, `{}`); r.PID == 0 {
				t.Error("the next one failed, too")
			}
		})
	}
	deaf := brief(define("test-deaf", time.Second, map[string]string{"TEST_MODE": "deaf"}), 0, 200*time.Millisecond)
	for name, test := range map[string]struct {
		on      *hosted
		message string
	}{
		"test-deaf":      {deaf, "did not ask for work within 200ms; it waits"},
		"test-stillborn": {h, `ended before it asked for work: exit status 3; the last line it printed is "no configuration": build the functions anew`},
	} {
		_, err := test.on.Invoke(t.Context(), name, function.Command{Kind: function.KindPing})
		var failure *function.Failure
		if !errors.As(err, &failure) || failure.Type != function.TypeCrash || failure.Hint == "" || !strings.Contains(failure.Message, test.message) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if log := h.log.String(); !strings.Contains(log, "test-stillborn c-") || !strings.Contains(log, "| no configuration\n") {
		t.Error("what it said before it died is not in the log")
	}
}

// TestBudget: work ends at the margin, with time left.
func TestBudget(t *testing.T) {
	h := run(t, Config{Functions: []deployment.Function{define("test-main", 1500*time.Millisecond, nil)}})
	if r := h.tick(t, `{"do":"work"}`); r.LeftMS <= 0 || r.LeftMS > 500 {
		t.Errorf("%d ms left of the 500", r.LeftMS)
	}
}

func TestAsync(t *testing.T) {
	h := run(t, Config{})
	t.Run("succeeds", func(t *testing.T) {
		h.submit(t, "ok", `{"note":"ok"}`)
		h.submit(t, "ok", `{"note":"not again"}`) // the same task
		if task := h.task(t, "ok", Succeeded); task.Retries != 0 || task.Payload != nil {
			t.Errorf("%+v", task)
		}
	})
	t.Run("retries until it succeeds", func(t *testing.T) {
		h.submit(t, "later", `{"do":"fail-until","until":2,"note":"later"}`)
		if task := h.task(t, "later", Succeeded); task.Retries != 2 {
			t.Errorf("%+v", task)
		}
	})
	t.Run("gives up", func(t *testing.T) {
		h.submit(t, "never", `{"do":"fail","note":"never"}`)
		if task := h.task(t, "never", Failed); task.Retries != 2 || !strings.Contains(task.Error, "it did not work") {
			t.Errorf("%+v", task)
		}
	})
	t.Run("retries crashes", func(t *testing.T) {
		h.submit(t, "crash", `{"do":"exit","note":"crash"}`)
		if task := h.task(t, "crash", Failed); task.Retries != 2 || !strings.Contains(task.Error, "exit status 7") {
			t.Errorf("%+v", task)
		}
	})
	t.Run("does not retry what is handled", func(t *testing.T) {
		h.submit(t, "handled", `{"do":"refuse","note":"handled"}`)
		if task := h.task(t, "handled", Succeeded); task.Retries != 0 {
			t.Errorf("%+v", task)
		}
	})
	want := map[string]int{"ok": 1, "later": 3, "never": 3, "crash": 3, "handled": 1}
	got := map[string]int{}
	for _, note := range h.readNotes(t) {
		got[note[strings.Index(note, "note=")+5:]]++
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("deliveries: %v, want %v", got, want)
	}

	client := h.client(t, h.Key().ID, h.Key().Secret)
	task, err := client.GetAsyncTask(dara.String("test-main"), dara.String("later"), &api.GetAsyncTaskRequest{})
	if err != nil || *task.Body.Status != "Succeeded" || *task.Body.AlreadyRetriedTimes != 2 || *task.Body.DurationMs < 0 {
		t.Errorf("%v, %v", task, err)
	}
	var sdk *tea.SDKError
	if _, err := client.GetAsyncTask(dara.String("test-main"), dara.String("none"), &api.GetAsyncTaskRequest{}); !errors.As(err, &sdk) || *sdk.StatusCode != 404 {
		t.Errorf("%v", err)
	}
	var ids []string
	request := &api.ListAsyncTasksRequest{Limit: dara.Int32(2)}
	for {
		page, err := client.ListAsyncTasks(dara.String("test-main"), request)
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range page.Body.Tasks {
			ids = append(ids, *task.TaskId)
		}
		if page.Body.NextToken == nil {
			break
		}
		request.NextToken = page.Body.NextToken
	}
	if strings.Join(ids, " ") != "ok later never crash handled" {
		t.Errorf("listed %v", ids)
	}
	page, err := client.ListAsyncTasks(dara.String("test-main"), &api.ListAsyncTasksRequest{Status: dara.String("Failed"), Prefix: dara.String("n")})
	if err != nil || len(page.Body.Tasks) != 1 || *page.Body.Tasks[0].TaskId != "never" {
		t.Errorf("%v, %v", page, err)
	}
}

// TestFunctionsCallFunctions: with the key that they are handed, and a task id that makes
// the second submit harmless.
func TestFunctionsCallFunctions(t *testing.T) {
	for name, temporary := range map[string]bool{"fixed key": false, "temporary keys": true} {
		t.Run(name, func(t *testing.T) {
			h := run(t, Config{TemporaryKeys: temporary})
			r := h.tick(t, `{"do":"call","note":"first"}`)
			if temporary != strings.HasPrefix(r.Key, "STS.") {
				t.Errorf("key %s", r.Key)
			}
			if key, ok := h.LookupKey(r.Key); !ok || temporary != (key.Token != "") {
				t.Errorf("%v, %v", key, ok)
			}
			eventually(t, "the submitted tick", func() bool { return len(h.readNotes(t)) == 2 })
			if notes := strings.Join(h.readNotes(t), " "); !strings.Contains(notes, "note=next") {
				t.Error(notes)
			}
			if !temporary {
				return
			}
			// Each invocation has a key of its own.
			if again := h.tick(t, `{}`); again.Key == r.Key {
				t.Errorf("%+v after %+v", again, r)
			}
		})
	}
}

func TestCaps(t *testing.T) {
	h := run(t, Config{MaxInstances: 2, MaxTotal: 3})
	var busy, fine atomic.Int32
	var wait sync.WaitGroup
	client := h.client(t, h.Key().ID, h.Key().Secret)
	for range 5 {
		wait.Go(func() {
			_, err := client.InvokeFunctionWithContext(t.Context(), dara.String("test-main"),
				&api.InvokeFunctionRequest{Body: strings.NewReader(`{"kind":"tick","settings":{"do":"gate","note":"caps"}}`)}, &api.InvokeFunctionHeaders{}, &dara.RuntimeOptions{})
			var sdk *tea.SDKError
			switch {
			case err == nil:
				fine.Add(1)
			case errors.As(err, &sdk) && *sdk.StatusCode == 429 && *sdk.Code == "ResourceExhausted":
				busy.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	eventually(t, "all but two are refused", func() bool { return busy.Load() == 3 || t.Failed() })
	h.open(t, "caps")
	wait.Wait()
	if fine.Load() != 2 || busy.Load() != 3 {
		t.Errorf("%d ran and %d were refused", fine.Load(), busy.Load())
	}
	// The other function takes the third place, and then one of the idle ones.
	for range 2 {
		if _, err := h.Invoke(t.Context(), "test-other", function.Command{Kind: function.KindPing}); err != nil {
			t.Fatal(err)
		}
	}
	h.submit(t, "a", `{"do":"gate","note":"a"}`)
	h.submit(t, "b", `{"do":"gate","note":"b"}`)
	h.task(t, "a", Running)
	h.task(t, "b", Running)
	if n := len(h.Instances()); n != 3 {
		t.Errorf("%d instances", n)
	}
	// A third waits for its turn.
	h.submit(t, "c", `{"do":"answer"}`)
	h.open(t, "a")
	a, c := h.task(t, "a", Succeeded), h.task(t, "c", Succeeded)
	if c.Instance != a.Instance {
		t.Errorf("c ran on %s, and a, which made room, on %s", c.Instance, a.Instance)
	}
	h.open(t, "b")
	h.task(t, "b", Succeeded)
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.pools["test-main"]; p.count > 2 || h.total > 3 {
		t.Errorf("%d of the function, %d in all", p.count, h.total)
	}
}

// TestEviction: when all places are taken, an idle instance of another function gives
// way, also to a synchronous call.
func TestEviction(t *testing.T) {
	h := run(t, Config{MaxTotal: 1})
	first := h.tick(t, `{}`)
	if _, err := h.Invoke(t.Context(), "test-other", function.Command{Kind: function.KindPing}); err != nil {
		t.Fatal(err)
	}
	if alive(first.PID) {
		t.Error("the idle instance lives on")
	}
	if all := h.Instances(); len(all) != 1 || all[0].Function != "test-other" {
		t.Errorf("%+v", all)
	}
}

func TestWarmAndCold(t *testing.T) {
	t.Run("warm", func(t *testing.T) {
		h := run(t, Config{})
		first, second := h.tick(t, `{}`), h.tick(t, `{}`)
		if first.PID != second.PID || second.Calls != 2 {
			t.Errorf("%+v, %+v", first, second)
		}
		// A failure that leaves the process alone keeps it.
		_, _ = h.try(t, `{"do":"panic"}`)
		if third := h.tick(t, `{}`); third.PID != first.PID || third.Calls != 4 {
			t.Errorf("%+v", third)
		}
	})
	t.Run("cold", func(t *testing.T) {
		h := run(t, Config{Cold: true, MaxInstances: 1})
		first, second := h.tick(t, `{}`), h.tick(t, `{}`)
		if first.PID == second.PID || second.Calls != 1 || alive(first.PID) {
			t.Errorf("%+v, %+v", first, second)
		}
		if n := len(h.Instances()); n != 0 {
			t.Errorf("%d instances", n)
		}
	})
	t.Run("idle", func(t *testing.T) {
		h := run(t, Config{Idle: 50 * time.Millisecond})
		r := h.tick(t, `{}`)
		eventually(t, "the idle instance ends", func() bool { return !alive(r.PID) && len(h.Instances()) == 0 })
		if r := h.tick(t, `{}`); r.Calls != 1 {
			t.Errorf("%+v", r)
		}
	})
}

// TestKill: a killed instance fails its invocation with its children, and an asynchronous
// one runs again.
func TestKill(t *testing.T) {
	h := run(t, Config{})
	t.Run("asynchronous", func(t *testing.T) {
		h.submit(t, "k", `{"do":"gate","note":"k"}`)
		task := h.task(t, "k", Running)
		eventually(t, "it has begun", func() bool { return len(h.readNotes(t)) == 1 })
		if err := h.KillRequest(task.RequestID); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it comes again", func() bool { return len(h.readNotes(t)) == 2 })
		h.open(t, "k")
		if task := h.task(t, "k", Succeeded); task.Retries != 1 {
			t.Errorf("%+v", task)
		}
	})
	t.Run("synchronous", func(t *testing.T) {
		child := h.tick(t, `{"do":"child"}`)
		result := make(chan error, 1)
		go func() {
			_, err := h.try(t, `{"do":"wait","millis":60000}`)
			result <- err
		}()
		var pid int
		eventually(t, "an instance is busy", func() bool {
			for _, i := range h.Instances() {
				if i.RequestID != "" {
					pid = i.PID
				}
			}
			return pid != 0
		})
		if pid != child.PID || !alive(child.Child) {
			t.Fatalf("busy is %d, the parent of %d is %d", pid, child.Child, child.PID)
		}
		if err := h.Kill(pid); err != nil {
			t.Fatal(err)
		}
		var failure *function.Failure
		if err := <-result; !errors.As(err, &failure) || failure.Type != function.TypeCrash || !strings.Contains(failure.Message, "signal: killed") {
			t.Errorf("%v", err)
		}
		eventually(t, "the child is dead", func() bool { return !alive(child.Child) })
	})
	if err := h.Kill(os.Getpid()); err == nil {
		t.Error("it would kill a stranger")
	}
	if err := h.KillRequest("none"); err == nil {
		t.Error("it killed for a request that is none")
	}
}

func TestFaults(t *testing.T) {
	var asked atomic.Int32
	h := run(t, Config{Fault: func(d Delivery) Fault {
		asked.Add(1)
		var cmd function.Command
		if err := json.Unmarshal(d.Payload, &cmd); err != nil {
			t.Error(err)
		}
		switch {
		case strings.Contains(string(cmd.Settings), "twice"):
			return Fault{Twice: true}
		case strings.Contains(string(cmd.Settings), "drop"):
			return Fault{Drop: true}
		case strings.Contains(string(cmd.Settings), "delay"):
			return Fault{Delay: 100 * time.Millisecond}
		case strings.Contains(string(cmd.Settings), "kill") && d.Retry == 0:
			return Fault{KillAfter: 50 * time.Millisecond}
		}
		return Fault{}
	}})
	for _, id := range []string{"twice", "drop", "delay", "kill"} {
		h.submit(t, id, fmt.Sprintf(`{"do":"gate","note":%q}`, id))
	}
	for _, id := range []string{"twice", "drop", "delay"} {
		h.open(t, id)
	}
	eventually(t, "one is killed, since it does not end by itself", func() bool {
		task, err := h.config.Tasks.Get("test-main", "kill")
		return err == nil && task.Retries > 0
	})
	h.open(t, "kill")
	h.task(t, "twice", Succeeded)
	if kill := h.task(t, "kill", Succeeded); kill.Retries != 1 {
		t.Errorf("%+v", kill)
	}
	if delay := h.task(t, "delay", Succeeded); delay.Started.Sub(delay.Enqueued) < 100*time.Millisecond {
		t.Errorf("%+v", delay)
	}
	if drop, err := h.config.Tasks.Get("test-main", "drop"); err != nil || drop.Status != Enqueued {
		t.Errorf("%+v, %v", drop, err)
	}
	got := map[string]int{}
	eventually(t, "both deliveries", func() bool {
		clear(got)
		for _, note := range h.readNotes(t) {
			got[note[strings.Index(note, "note=")+5:]]++
		}
		return got["twice"] == 2
	})
	// One that is killed may not have come so far as to say so.
	if got["drop"] != 0 || got["kill"] < 1 || got["kill"] > 2 || got["delay"] != 1 || asked.Load() != 5 {
		t.Errorf("deliveries %v, asked %d times", got, asked.Load())
	}
}

// TestExpiry: an event that waited too long is dropped.
func TestExpiry(t *testing.T) {
	tasks := NewMemoryTasks()
	for id, age := range map[string]time.Duration{"late": 2 * time.Hour, "soon": time.Minute} {
		waited := Task{ID: id, Function: "test-main", RequestID: id, Payload: fmt.Appendf(nil, `{"kind":"tick","settings":{"note":%q}}`, id), Status: Enqueued, Enqueued: time.Now().Add(-age)}
		if err := tasks.Add(waited); err != nil {
			t.Fatal(err)
		}
	}
	h := run(t, Config{Tasks: tasks}) // whose functions take events of an hour
	h.task(t, "late", Expired)
	h.task(t, "soon", Succeeded)
	if notes := strings.Join(h.readNotes(t), " "); strings.Contains(notes, "note=late") {
		t.Error(notes)
	}
}

// TestQueueOutlivesTheHost: what was not done is done by the next host with the same
// store. What an instance had when its host ended comes again with a retry count, as
// after a crash, and takes none of the function's own retries.
func TestQueueOutlivesTheHost(t *testing.T) {
	tasks := NewMemoryTasks()
	const hosts = 4 // more than the function has retries
	for n := range hosts {
		h := run(t, Config{Tasks: tasks, MaxInstances: 1})
		if n == 0 {
			h.submit(t, "a", `{"do":"wait","millis":60000,"note":"a"}`)
		}
		eventually(t, "it has begun", func() bool {
			notes := strings.Join(h.readNotes(t), "\n") + "\n"
			return strings.Contains(notes, fmt.Sprintf("retry=%d note=a\n", n))
		})
		if n == hosts-1 {
			h.submit(t, "b", `{"note":"b"}`)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		if a, err := tasks.Get("test-main", "a"); err != nil || a.Status.Ended() || a.Retries != n || a.Lost != n {
			t.Fatalf("%+v, %v", a, err)
		}
	}
	if b, err := tasks.Get("test-main", "b"); err != nil || b.Status != Enqueued || b.Retries != 0 {
		t.Fatalf("what no instance had: %+v, %v", b, err)
	}
	last := run(t, Config{Tasks: tasks, MaxInstances: 2})
	last.task(t, "b", Succeeded)
	failed := last.task(t, "a", Running)
	for range 3 { // the first delivery that fails, and both retries
		eventually(t, "it has begun", func() bool { return last.KillRequest(failed.RequestID) == nil })
		eventually(t, "it is seen", func() bool {
			now, err := tasks.Get("test-main", "a")
			return err == nil && (now.Retries > failed.Retries || now.Status.Ended())
		})
		failed, _ = tasks.Get("test-main", "a")
	}
	if failed := last.task(t, "a", Failed); failed.Retries != hosts+2 || failed.Lost != hosts {
		t.Errorf("%+v", failed)
	}
}

// soon is a schedule for tests: the service's are no finer than a minute.
type soon time.Duration

func (s soon) Next(t time.Time) time.Time { return t.Add(time.Duration(s)) }

func TestTimers(t *testing.T) {
	f := define("test-main", 10*time.Second, nil)
	f.Timers = []deployment.Timer{
		{Name: "often", Schedule: soon(50 * time.Millisecond), Enabled: true},
		{Name: "off", Schedule: soon(time.Millisecond), Payload: `{"kind":"tick","settings":{"note":"off"}}`},
	}
	t.Run("on", func(t *testing.T) {
		h := run(t, Config{Functions: []deployment.Function{f}, Timers: true})
		eventually(t, "three ticks", func() bool { return len(h.readNotes(t)) >= 3 })
		for _, note := range h.readNotes(t) {
			if !strings.Contains(note, " timer/often/2") {
				t.Error(note)
			}
		}
	})
	t.Run("off", func(t *testing.T) {
		h := run(t, Config{Functions: []deployment.Function{f}})
		at := time.Date(2026, 11, 20, 10, 15, 0, 0, time.FixedZone("", 8*3600))
		if err := h.Fire("test-main", "off", at); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the one tick", func() bool { return len(h.readNotes(t)) > 0 })
		if notes := h.readNotes(t); len(notes) != 1 || !strings.HasSuffix(notes[0], " timer/off/2026-11-20T02:15:00Z retry=0 note=off") {
			t.Errorf("%q", notes)
		}
		for _, name := range []string{"none", ""} {
			if err := h.Fire("test-main", name, at); err == nil {
				t.Errorf("fired %q", name)
			}
		}
		if err := h.Fire("test-none", "off", at); err == nil {
			t.Error("fired a function that is none")
		}
	})
}

// TestObjectCreated: an object that matches a trigger is told in the service's form.
func TestObjectCreated(t *testing.T) {
	f := define("test-main", 10*time.Second, nil)
	f.Objects = []deployment.ObjectTrigger{{Name: "r", Bucket: "b", Events: []string{"oss:ObjectCreated:PutObject"}, Prefix: "requests/", Suffix: ".json"}}
	h := run(t, Config{Functions: []deployment.Function{f}})
	put := Object{Event: "oss:ObjectCreated:PutObject", Bucket: "b", Key: "requests/a.json", ETag: "E", Size: 7, Created: time.Now()}
	other := []Object{put, put, put, put}
	other[0].Bucket = "c"
	other[1].Key = "shards/a.json"
	other[2].Key = "requests/a.txt"
	other[3].Event = "oss:ObjectCreated:CopyObject"
	for _, o := range append(other, put) {
		if err := h.ObjectCreated(o); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the restore", func() bool { return len(h.readNotes(t)) > 0 })
	if notes := h.readNotes(t); len(notes) != 1 || !strings.HasSuffix(notes[0], " object/b/requests/a.json/E retry=0 note=oss://b/requests/a.json") {
		t.Errorf("%q", notes)
	}
}

// TestDestinations: the outcome of an asynchronous invocation is told to the function
// that is named for it, once it is final.
func TestDestinations(t *testing.T) {
	f := define("test-main", 10*time.Second, nil)
	f.Async.OnFailure = "acs:fc:local::functions/test-other"
	f.Async.OnSuccess = "acs:mns:local:0:/queues/q/messages"
	h := run(t, Config{Functions: []deployment.Function{f, define("test-other", 10*time.Second, nil)}})
	h.submit(t, "good", `{}`)
	h.task(t, "good", Succeeded)
	h.submit(t, "bad", `{"do":"exit"}`)
	bad := h.task(t, "bad", Failed)
	eventually(t, "the report", func() bool { return len(h.readNotes(t)) >= 5 })
	last := h.readNotes(t)[4]
	for _, want := range []string{" destination/" + bad.RequestID + " ", "note=" + unhandledError + ` {"v":1,"kind":"tick","settings":{"do":"exit"}} {"errorMessage":"Process exited`} {
		if !strings.Contains(last, want) {
			t.Errorf("%s lacks %s", last, want)
		}
	}
	if !strings.Contains(h.log.String(), "task good: acs:mns:local:0:/queues/q/messages is not told") {
		t.Error("the queue that was not told is not in the log")
	}
}

// TestKilledAtRandom: whatever is killed whenever, each task ends, none runs after it
// ended, and the books are right afterwards.
func TestKilledAtRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	f := define("test-main", 10*time.Second, nil)
	f.Async.Retries = 8
	h := run(t, Config{Functions: []deployment.Function{f, define("test-other", 10*time.Second, nil)}, MaxInstances: 4, MaxTotal: 5,
		Fault: func(d Delivery) Fault { return Fault{Twice: len(d.TaskID)%2 == 0 && d.Retry == 0} }})
	const tasks = 60
	for n := range tasks {
		h.submit(t, fmt.Sprintf("t%d", n), fmt.Sprintf(`{"do":"wait","millis":%d,"note":"t%d"}`, random.IntN(60), n))
	}
	kills := 0
	killed := map[int]bool{} // by process id
	left := func() int {
		n := 0
		for task, err := range h.config.Tasks.All("test-main") {
			if err != nil {
				t.Fatal(err)
			}
			if !task.Status.Ended() {
				n++
			}
		}
		return n
	}
	eventually(t, "all tasks end", func() bool {
		time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
		if all := h.Instances(); len(all) > 0 && kills < 2*tasks {
			if pid := all[random.IntN(len(all))].PID; h.Kill(pid) == nil {
				killed[pid] = true
				kills++
			}
		}
		return left() == 0
	})
	if kills == 0 {
		t.Fatal("nothing was killed")
	}
	succeeded, retries := 0, 0
	for task := range h.config.Tasks.All("test-main") {
		if task.Status == Succeeded {
			succeeded++
		} else if !strings.Contains(task.Error, "signal: killed") && !strings.Contains(task.Error, "before it asked for work") {
			t.Errorf("%+v", task)
		}
		retries += task.Retries
	}
	t.Logf("%d kills, %d of %d tasks succeeded with %d retries", kills, succeeded, tasks, retries)
	if succeeded == 0 || retries == 0 {
		t.Error("the kills hit nothing, or everything")
	}
	// One that was killed is there until the host has heard of it.
	eventually(t, "none is there that was killed", func() bool {
		return !slices.ContainsFunc(h.Instances(), func(i Instance) bool { return killed[i.PID] })
	})
	eventually(t, "the books agree", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		count := 0
		for _, p := range h.pools {
			count += p.count
		}
		return h.total == count && len(h.instances) == count && count <= 5
	})
	for range 4 {
		h.tick(t, `{}`)
	}
}

// TestEnvironment: an instance sees the platform's variables, the deployment's and the
// host's, and nothing else.
func TestEnvironment(t *testing.T) {
	t.Setenv("TEST_SECRET_OF_THE_HOST", "x")
	h := run(t, Config{Region: "cn-test", Account: "42", Env: map[string]string{"TABLEVAULT_LANES": "3"}})
	env := h.tick(t, `{"do":"env"}`).Env
	for name, want := range map[string]string{
		"FC_FUNCTION_NAME": "test-main", "FC_REGION": "cn-test", "FC_ACCOUNT_ID": "42", "FC_FUNCTION_MEMORY_SIZE": "512", "FC_FUNCTION_HANDLER": "bin/function",
		"FC_FUNC_CODE_PATH": binaries, "TABLEVAULT_VAULT": "file:///nowhere", "TABLEVAULT_LANES": "3", "TABLEVAULT_FC_ENDPOINT": h.URL(), "ALIBABA_CLOUD_ACCESS_KEY_ID": h.Key().ID,
	} {
		if env[name] != want {
			t.Errorf("%s=%s, want %s", name, env[name], want)
		}
	}
	if _, ok := env["TEST_SECRET_OF_THE_HOST"]; ok {
		t.Error("the host's environment is seen")
	}
	if info, err := os.Stat(env["TMPDIR"]); err != nil || !info.IsDir() {
		t.Error(err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(env["TMPDIR"]); err == nil {
		t.Error("the temporary folder is left")
	}
}

// TestLog: each line has its function and request in front.
func TestLog(t *testing.T) {
	h := run(t, Config{})
	h.submit(t, "p", `{"do":"print","bytes":3}`)
	task := h.task(t, "p", Succeeded)
	prefix := "test-main " + task.RequestID + " | "
	var mine []string
	for line := range strings.SplitSeq(h.log.String(), "\n") {
		if text, ok := strings.CutPrefix(line, prefix); ok {
			mine = append(mine, text)
		}
	}
	if len(mine) != 7 || mine[0] != "FC Invoke Start RequestId: "+task.RequestID || !strings.Contains(mine[1], `"msg":"start"`) || mine[2] != "line 0" ||
		mine[4] != "line 2" || !strings.Contains(mine[5], `"counts":{"calls":1}`) || mine[6] != "FC Invoke End RequestId: "+task.RequestID {
		t.Errorf("%q", mine)
	}
}

// TestLateAnswers: an answer to a request that is not in flight is taken and ignored; a
// stranger is not served.
func TestLateAnswers(t *testing.T) {
	h := run(t, Config{})
	h.tick(t, `{}`)
	h.mu.Lock()
	var token string
	for token = range h.instances {
	}
	h.mu.Unlock()
	post := func(path string) int {
		t.Helper()
		res, err := http.Post(h.URL()+path, "application/json", strings.NewReader(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	if got := post("/runtime/" + token + "/2020-11-11/runtime/invocation/none/response"); got != 200 {
		t.Error(got)
	}
	if got := post("/runtime/" + token + "/2020-11-11/runtime/invocation/none/error"); got != 200 {
		t.Error(got)
	}
	if got := post("/runtime/guessed/2020-11-11/runtime/invocation/none/response"); got != 404 {
		t.Error(got)
	}
	h.tick(t, `{}`)
}

// TestClose: no process is left, callers are answered, and nothing is served.
func TestClose(t *testing.T) {
	h := run(t, Config{})
	child := h.tick(t, `{"do":"child"}`)
	result := make(chan error, 1)
	go func() {
		_, err := h.try(t, `{"do":"sleep","millis":60000}`)
		result <- err
	}()
	h.submit(t, "a", `{"do":"sleep","millis":60000}`)
	h.task(t, "a", Running)
	eventually(t, "two are busy", func() bool {
		busy := 0
		for _, i := range h.Instances() {
			if i.RequestID != "" {
				busy++
			}
		}
		return busy == 2
	})
	instances := h.Instances()
	begin := time.Now()
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 30*time.Second { // half of what the functions would sleep
		t.Errorf("closing took %v", took)
	}
	for _, i := range instances {
		if alive(i.PID) {
			t.Errorf("%+v lives on", i)
		}
	}
	eventually(t, "the child is dead", func() bool { return !alive(child.Child) })
	if err := <-result; err == nil {
		t.Error("the call in flight succeeded")
	}
	if _, err := h.Host.Submit("test-main", "", nil, 0); err == nil {
		t.Error("a closed host takes work")
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}

func TestStartRefuses(t *testing.T) {
	f := define("test-main", time.Second, nil)
	missing := f
	missing.Handler = "bin/none"
	untimed := f
	untimed.Timeout = 0
	if err := os.WriteFile(filepath.Join(binaries, "plain"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	plain := f
	plain.Handler = "plain"
	for name, test := range map[string]struct {
		config Config
		want   string
	}{
		"no functions":  {Config{}, "no functions"},
		"no executable": {Config{Functions: []deployment.Function{missing}}, "build the functions into"},
		"a plain file":  {Config{Functions: []deployment.Function{plain}}, "no executable file"},
		"no timeout":    {Config{Functions: []deployment.Function{untimed}}, "no timeout"},
		"one name":      {Config{Functions: []deployment.Function{f, f}}, "two functions"},
		"open to all":   {Config{Functions: []deployment.Function{f}, Listen: "0.0.0.0:0"}, "this machine only"},
		"no port":       {Config{Functions: []deployment.Function{f}, Listen: "127.0.0.1"}, "listen address"},
		"half a key":    {Config{Functions: []deployment.Function{f}, Key: Key{ID: "x"}}, "secret"},
	} {
		t.Run(name, func(t *testing.T) {
			test.config.BinDir = binaries
			h, err := Start(t.Context(), test.config)
			if err == nil {
				h.Close()
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q does not mention %q", err, test.want)
			}
		})
	}
	if s := fmt.Sprintf("%v %+v %#v", Key{ID: "i", Secret: "hidden"}, Key{ID: "i", Secret: "hidden"}, Key{ID: "i", Secret: "hidden"}); strings.Contains(s, "hidden") {
		t.Error(s)
	}
}

// TestContextEndsTheHost: a host whose context ends closes by itself.
func TestContextEndsTheHost(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	h, err := Start(ctx, Config{Functions: []deployment.Function{define("test-main", time.Second, nil)}, BinDir: binaries})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Submit("test-main", "", []byte(`{"kind":"tick","settings":{"do":"sleep","millis":60000}}`), 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an instance", func() bool { return len(h.Instances()) == 1 })
	pid := h.Instances()[0].PID
	cancel()
	eventually(t, "the process is dead", func() bool { return !alive(pid) })
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}

// hostUntilKilled is the body of the process that TestHostKilled kills: it hosts a
// function, says its process id and waits.
//
// With a file of tasks, it takes tasks until then, and says the id of each that it has
// taken.
func hostUntilKilled(dir, tasks string) {
	if tasks != "" {
		takeUntilKilled(dir, tasks)
		return
	}
	h, err := Start(context.Background(), Config{Functions: []deployment.Function{define("test-main", time.Minute, nil)}, BinDir: dir, TempDir: os.Getenv("TEST_HOST_TEMP")})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if _, err := h.Submit("test-main", "", []byte(`{"kind":"tick","settings":{"do":"sleep","millis":60000}}`), 0); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for {
		for _, i := range h.Instances() {
			if i.RequestID != "" {
				fmt.Println(i.PID)
				select {}
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestHostKilled: a host that is killed at once takes its functions with it, which would
// else ask for work for ever.
func TestHostKilled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has a signal for the parent's death")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	host := exec.Command(self)
	host.Env = append(os.Environ(), "TEST_HOST_IN="+binaries, "TEST_HOST_TEMP="+t.TempDir())
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("the host said %q", line)
	}
	if !alive(pid) {
		t.Fatal("the function is not running")
	}
	if err := host.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = host.Wait()
	eventually(t, "the function is dead", func() bool { return !alive(pid) })
}

func BenchmarkInvoke(b *testing.B) {
	for _, cold := range []bool{false, true} {
		b.Run(fmt.Sprintf("cold=%v", cold), func(b *testing.B) {
			h, err := Start(b.Context(), Config{Functions: []deployment.Function{define("test-main", time.Minute, nil)}, BinDir: binaries, Cold: cold})
			if err != nil {
				b.Fatal(err)
			}
			defer h.Close()
			key := h.Key()
			invoker, err := function.NewInvoker(function.InvokerConfig{Endpoint: h.URL(), Credentials: access.Key{ID: key.ID, Secret: key.Secret}.Provider()})
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := invoker.Invoke(b.Context(), "test-main", function.Command{Kind: function.KindPing}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
