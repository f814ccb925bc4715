package fc

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tablevault/tablevault/local/fc/deployment"
)

var taskID = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,127}$`)

// apiError is a refusal by the API.
type apiError struct {
	status int
	code   string
	text   string
}

func (e *apiError) Error() string { return e.code + ": " + e.text }

func refuse(status int, code, format string, args ...any) error {
	return &apiError{status, code, fmt.Sprintf(format, args...)}
}

// handler serves both faces.
func (h *Host) handler() http.Handler {
	mux := http.NewServeMux()
	h.runtimeRoutes(mux)
	const functions = "/2023-03-30/functions/{function}/"
	mux.Handle("POST "+functions+"invocations", h.api(maxSyncPayload, h.invoke))
	mux.Handle("GET "+functions+"async-tasks", h.api(0, h.listTasks))
	mux.Handle("GET "+functions+"async-tasks/{task}", h.api(0, h.getTask))
	mux.Handle("PUT "+functions+"async-tasks/{task}/stop", h.api(maxDocument, h.stopTask))
	mux.Handle("GET /2023-03-30/functions", h.api(0, h.listFunctions))
	mux.Handle("GET /2023-03-30/functions/{function}", h.api(0, h.getFunction))
	for _, old := range []string{"2016-08-15", "2021-04-06"} {
		mux.HandleFunc("/"+old+"/", oldVersion(old))
	}
	mux.Handle("/", h.api(maxSyncPayload, func(_ http.ResponseWriter, r *http.Request, _, _ string, _ []byte) error {
		return refuse(http.StatusNotImplemented, "NotImplemented", "%s %s: the local host invokes functions, tells about them and their tasks, and stops tasks, no more", r.Method, r.URL.Path)
	}))
	return mux
}

// api wraps a call of the API: it reads the body, verifies the signature, and turns an
// error into the JSON that the service's client expects.
func (h *Host) api(limit int64, serve func(w http.ResponseWriter, r *http.Request, caller, requestID string, body []byte) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := newRequestID()
		w.Header().Set("X-Fc-Request-Id", id)
		err := func() error {
			body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
			if err != nil {
				return refuse(http.StatusBadRequest, "InvalidArgument", "read the body: %v", err)
			}
			if int64(len(body)) > limit {
				return refuse(http.StatusBadRequest, "EntityTooLarge", "a body of more than %d bytes", limit)
			}
			caller, err := h.verifier.verify(r, body, time.Now())
			if errors.Is(err, errUnknownKey) {
				return refuse(http.StatusForbidden, "InvalidAccessKeyID", "%v", err)
			}
			if err != nil {
				return refuse(http.StatusForbidden, "SignatureNotMatch", "%v", err)
			}
			return serve(w, r, caller, id, body)
		}()
		if err == nil {
			return
		}
		var refused *apiError
		if !errors.As(err, &refused) {
			refused = &apiError{http.StatusInternalServerError, "InternalServerError", err.Error()}
		}
		writeJSON(w, refused.status, map[string]string{"Code": refused.code, "Message": refused.text, "RequestId": id})
	})
}

// maxDocument is the length of the longest body of a call that is no invocation.
const maxDocument = 64 << 10

// oldVersion tells a client of the API before the functions' own, which has them in
// services, signs otherwise and reads errors otherwise, what it needs.
func oldVersion(version string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := newRequestID()
		text := fmt.Sprintf("'%s' against '%s' is not supported: version %s of the API is that of Function Compute 2.0, with services; "+
			"the local host speaks 2023-03-30, of 3.0, as the SDKs named fc-20230330 do", r.URL.Path, r.Method, version)
		w.Header().Set("X-Fc-Request-Id", id)
		writeJSON(w, http.StatusBadRequest, map[string]string{
			"ErrorCode": "PathNotSupported", "ErrorMessage": text, "Code": "PathNotSupported", "Message": text, "RequestId": id})
	}
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // an error means that the caller is gone
}

// find returns the function that a request names, if the caller may carry out the action
// on it.
func (h *Host) find(r *http.Request, caller, action string) (*pool, error) {
	name := r.PathValue("function")
	if err := h.config.Authority.Authorize(caller, action, h.arn(name), nil); err != nil {
		return nil, refuse(http.StatusForbidden, "AccessDenied", "%v", err)
	}
	if q := r.URL.Query().Get("qualifier"); q != "" && q != "LATEST" {
		return nil, refuse(http.StatusNotFound, "VersionNotFound", "version or alias %q: the local host has LATEST only", q)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.pools[name]
	if p == nil {
		names := make([]string, 0, len(h.config.Functions))
		for _, f := range h.config.Functions {
			names = append(names, f.Name)
		}
		return nil, refuse(http.StatusNotFound, "FunctionNotFound", "there is no function %q; there are %s", name, strings.Join(names, ", "))
	}
	return p, nil
}

// invoke serves InvokeFunction.
func (h *Host) invoke(w http.ResponseWriter, r *http.Request, caller, id string, body []byte) error {
	p, err := h.find(r, caller, "fc:InvokeFunction")
	if err != nil {
		return err
	}
	if h.config.CallFault != nil {
		fault := h.config.CallFault(p.function.Name)
		if fault.Status != 0 {
			return refuse(fault.Status, "Fault", "the test's hand refuses the call")
		}
		if fault.Cut {
			defer panic(http.ErrAbortHandler) // when all has been done
		}
	}
	switch kind := r.Header.Get("X-Fc-Invocation-Type"); kind {
	case "", "Sync":
		return h.invokeSync(w, r, p, id, body)
	case "Async":
		return h.invokeAsync(w, r, p, body)
	default:
		return refuse(http.StatusBadRequest, "InvalidArgument", "invocation type %q: want Sync or Async", kind)
	}
}

func (h *Host) invokeAsync(w http.ResponseWriter, r *http.Request, p *pool, body []byte) error {
	if len(body) > maxAsyncPayload {
		return refuse(http.StatusBadRequest, "EntityTooLarge", "an asynchronous event of %d bytes, at most %d", len(body), maxAsyncPayload)
	}
	task := r.Header.Get("X-Fc-Async-Task-Id")
	if task != "" && !taskID.MatchString(task) {
		return refuse(http.StatusBadRequest, "InvalidArgument", "task id %q: want at most 128 letters, digits, _ and -, no digit or - first", task)
	}
	var delay time.Duration
	if text := r.Header.Get("X-Fc-Async-Delay"); text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil || seconds < 1 || seconds >= 3600 {
			return refuse(http.StatusBadRequest, "InvalidArgument", "delay %q: want 1 to 3599 seconds", text)
		}
		delay = time.Duration(seconds) * time.Second
	}
	if task == "" {
		task = newTaskID()
	}
	id, err := h.Submit(p.function.Name, task, body, delay)
	switch {
	case errors.Is(err, fs.ErrExist):
		return refuse(http.StatusConflict, "AsyncTaskAlreadyExists", "function %s has a task %s", p.function.Name, task)
	case errors.Is(err, errClosing):
		return refuse(http.StatusServiceUnavailable, "ServiceUnavailable", "%v", err)
	case err != nil:
		return err
	}
	w.Header().Set("X-Fc-Request-Id", id)
	w.Header().Set("X-Fc-Async-Task-Id", task)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (h *Host) invokeSync(w http.ResponseWriter, r *http.Request, p *pool, id string, body []byte) error {
	var fault Fault
	if h.config.Fault != nil {
		fault = h.config.Fault(Delivery{Function: p.function.Name, RequestID: id, Payload: body, Sync: true})
	}
	i, err := h.acquire(r.Context(), p, false)
	c := newCall(id, body, 0)
	switch {
	case err == nil:
		// To its end, also if the caller leaves.
		h.release(i, i.serve(c, fault))
	case errors.Is(err, errBusy):
		return refuse(http.StatusTooManyRequests, "ResourceExhausted", "all %d instances of %s, or all %d of the host, are busy", p.limit, p.function.Name, h.config.MaxTotal)
	case errors.Is(err, errClosing):
		return refuse(http.StatusServiceUnavailable, "ServiceUnavailable", "%v", err)
	default:
		c.finish(errorBody("%v", err), unhandledError)
	}
	out := c.result
	header := w.Header()
	if out.errorType != "" {
		header.Set("X-Fc-Error-Type", out.errorType)
	}
	if r.Header.Get("X-Fc-Log-Type") == "Tail" {
		header.Set("X-Fc-Log-Result", base64.StdEncoding.EncodeToString(out.log))
	}
	header.Set("X-Fc-Invocation-Duration", strconv.FormatInt(out.duration.Milliseconds(), 10))
	header.Set("X-Fc-Max-Memory-Usage", strconv.FormatFloat(float64(out.peakMemory)/(1<<20), 'f', 2, 64))
	header.Set("X-Fc-Instance-Id", out.instance)
	header.Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(out.body) // an error means that the caller is gone
	return nil
}

// taskView is a task as the API shows it; times are in milliseconds. Duration is that of
// a task that has ended, which may be none.
type taskView struct {
	TaskID       string `json:"taskId"`
	RequestID    string `json:"requestId"`
	FunctionARN  string `json:"functionArn"`
	Qualifier    string `json:"qualifier"`
	InstanceID   string `json:"instanceId,omitempty"`
	Status       Status `json:"status"`
	Started      int64  `json:"startedTime,omitempty"`
	Ended        int64  `json:"endTime,omitempty"`
	Duration     *int64 `json:"durationMs,omitempty"`
	Retried      int    `json:"alreadyRetriedTimes"`
	ErrorMessage string `json:"taskErrorMessage,omitempty"`
}

func (h *Host) viewTask(t Task) taskView {
	v := taskView{
		TaskID: t.ID, RequestID: t.RequestID, Qualifier: "LATEST", InstanceID: t.Instance, Status: t.Status, Retried: t.Retries, ErrorMessage: t.Error,
		FunctionARN: h.arn(t.Function),
	}
	if !t.Started.IsZero() {
		v.Started = t.Started.UnixMilli()
	}
	if !t.Ended.IsZero() {
		v.Ended = t.Ended.UnixMilli()
		took := max(0, v.Ended-v.Started)
		v.Duration = &took
	}
	return v
}

func (h *Host) getTask(w http.ResponseWriter, r *http.Request, caller, _ string, _ []byte) error {
	p, err := h.find(r, caller, "fc:GetAsyncTask")
	if err != nil {
		return err
	}
	t, err := h.config.Tasks.Get(p.function.Name, r.PathValue("task"))
	if errors.Is(err, fs.ErrNotExist) {
		return refuse(http.StatusNotFound, "AsyncTaskNotFound", "function %s has no task %q", p.function.Name, r.PathValue("task"))
	}
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, h.viewTask(t))
	return nil
}

func (h *Host) stopTask(w http.ResponseWriter, r *http.Request, caller, _ string, _ []byte) error {
	p, err := h.find(r, caller, "fc:StopAsyncTask")
	if err != nil {
		return err
	}
	err = h.Stop(p.function.Name, r.PathValue("task"))
	if errors.Is(err, fs.ErrNotExist) {
		return refuse(http.StatusNotFound, "AsyncTaskNotFound", "function %s has no task %q", p.function.Name, r.PathValue("task"))
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// functionView is a function as the API shows it, as far as the s.yaml says it.
type functionView struct {
	Name        string            `json:"functionName"`
	ARN         string            `json:"functionArn"`
	Description string            `json:"description,omitempty"`
	Runtime     string            `json:"runtime"`
	Handler     string            `json:"handler"`
	Role        string            `json:"role,omitempty"`
	CPU         float64           `json:"cpu,omitempty"`
	MemoryMB    int               `json:"memorySize"`
	DiskMB      int               `json:"diskSize,omitempty"`
	Timeout     int               `json:"timeout"` // seconds
	Environment map[string]string `json:"environmentVariables,omitempty"`
	State       string            `json:"state"`
}

func (h *Host) viewFunction(f deployment.Function) functionView {
	return functionView{Name: f.Name, ARN: h.arn(f.Name), Description: f.Description, Runtime: "go1", Handler: f.Handler, Role: f.Role, CPU: f.CPU,
		MemoryMB: f.MemoryMB, DiskMB: f.DiskMB, Timeout: int(f.Timeout / time.Second), Environment: f.Environment, State: "Active"}
}

func (h *Host) getFunction(w http.ResponseWriter, r *http.Request, caller, _ string, _ []byte) error {
	p, err := h.find(r, caller, "fc:GetFunction")
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, h.viewFunction(p.function))
	return nil
}

func (h *Host) listFunctions(w http.ResponseWriter, r *http.Request, caller, _ string, _ []byte) error {
	if err := h.config.Authority.Authorize(caller, "fc:ListFunctions", h.arn("*"), nil); err != nil {
		return refuse(http.StatusForbidden, "AccessDenied", "%v", err)
	}
	limit, err := pageSize(r)
	if err != nil {
		return err
	}
	query := r.URL.Query()
	all := slices.Clone(h.config.Functions)
	slices.SortFunc(all, func(a, b deployment.Function) int { return strings.Compare(a.Name, b.Name) })
	out := struct {
		Functions []functionView `json:"functions"`
		Next      string         `json:"nextToken,omitempty"` // the name that the next page begins with
	}{Functions: []functionView{}}
	for _, f := range all {
		if f.Name < query.Get("nextToken") || !strings.HasPrefix(f.Name, query.Get("prefix")) || query.Get("functionName") != "" && f.Name != query.Get("functionName") {
			continue
		}
		if len(out.Functions) == limit {
			out.Next = f.Name
			break
		}
		out.Functions = append(out.Functions, h.viewFunction(f))
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}

// pageSize reads how many entries a call wants at most.
func pageSize(r *http.Request) (int, error) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return 20, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 100 {
		return 0, refuse(http.StatusBadRequest, "InvalidArgument", "limit %q: want 1 to 100", text)
	}
	return n, nil
}

func (h *Host) listTasks(w http.ResponseWriter, r *http.Request, caller, _ string, _ []byte) error {
	p, err := h.find(r, caller, "fc:ListAsyncTasks")
	if err != nil {
		return err
	}
	query := r.URL.Query()
	limit, err := pageSize(r)
	if err != nil {
		return err
	}
	after := 0
	if text := query.Get("nextToken"); text != "" {
		if after, err = strconv.Atoi(text); err != nil || after < 0 {
			return refuse(http.StatusBadRequest, "InvalidArgument", "nextToken %q", text)
		}
	}
	out := struct {
		Tasks []taskView `json:"tasks"`
		Next  string     `json:"nextToken,omitempty"`
	}{Tasks: []taskView{}}
	at := 0
	for t, err := range h.config.Tasks.All(p.function.Name) {
		if err != nil {
			return err
		}
		at++
		if at <= after || !strings.HasPrefix(t.ID, query.Get("prefix")) || query.Get("status") != "" && query.Get("status") != string(t.Status) {
			continue
		}
		if len(out.Tasks) == limit {
			out.Next = strconv.Itoa(at - 1)
			break
		}
		out.Tasks = append(out.Tasks, h.viewTask(t))
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}
