package function

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/retry"
)

// answer is one answer of a stand-in for the service.
type answer struct {
	status  int
	headers map[string]string
	body    string
	hang    bool // answer never
	drop    bool // break the connection
}

// standIn answers each request with the next of its answers, and with the last one for
// ever.
type standIn struct {
	*Invoker
	requests atomic.Int32
	last     atomic.Pointer[http.Request]
	body     atomic.Pointer[string]
}

func serve(t *testing.T, answers ...answer) *standIn {
	t.Helper()
	s := &standIn{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		text := string(body)
		s.last.Store(r)
		s.body.Store(&text)
		n := int(s.requests.Add(1))
		a := answers[min(n, len(answers))-1]
		switch {
		case a.hang:
			<-r.Context().Done()
			return
		case a.drop:
			panic(http.ErrAbortHandler)
		}
		for k, v := range a.headers {
			w.Header().Set(k, v)
		}
		w.WriteHeader(a.status)
		io.WriteString(w, a.body)
	}))
	t.Cleanup(server.Close)
	var err error
	s.Invoker, err = NewInvoker(InvokerConfig{Endpoint: server.URL, Region: "local",
		Credentials: access.Key{ID: "LTAI1", Secret: "s3cr3t", Token: "t0ken"}.Provider()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func refusal(status int, code, message string) answer {
	return answer{status: status, headers: map[string]string{"Content-Type": "application/json"},
		body: fmt.Sprintf(`{"Code":%q,"Message":%q,"RequestId":"r"}`, code, message)}
}

var ping = Command{Kind: KindPing}

func TestInvokerInvoke(t *testing.T) {
	for name, test := range map[string]struct {
		answers  []answer
		want     string
		fail     func(error) bool
		mentions string
		requests int32
	}{
		"reply": {answers: []answer{{status: 200, body: `{"ok":true,"reply":{"rows":7}}`}}, want: `{"rows":7}`, requests: 1},
		"handled failure": {answers: []answer{{status: 200, body: `{"ok":false,"error":{"type":"Permanent","message":"denied","hint":"allow it","function":"f"}}`}},
			fail: func(err error) bool {
				var f *Failure
				return errors.As(err, &f) && f.Type == TypePermanent && IsPermanent(err) && hint(err) == ""
			}, mentions: "f: denied (allow it)", requests: 1},
		"retriable failure": {answers: []answer{{status: 200, headers: map[string]string{"X-Fc-Error-Type": "HandledInvocationError", "X-Fc-Request-Id": "r9"},
			body: `{"errorMessage":"f ping: reset","errorType":"Retriable"}`}},
			fail: func(err error) bool {
				var f *Failure
				return errors.As(err, &f) && f.Type == TypeRetriable && f.Request == "r9" && !IsPermanent(err)
			}, mentions: "f ping: reset", requests: 1},
		"crash": {answers: []answer{{status: 200, headers: map[string]string{"X-Fc-Error-Type": "UnhandledInvocationError", "X-Fc-Log-Result": "RkMgSW52b2tlIFN0YXJ0CmZhdGFsIGVycm9yOiBvdXQgb2YgbWVtb3J5CgpGQyBJbnZva2UgRW5kCg=="},
			body: `{"errorMessage":"process exited"}`}},
			fail: func(err error) bool {
				var f *Failure
				return errors.As(err, &f) && f.Type == TypeCrash && !IsPermanent(err)
			}, mentions: "process exited; its last words: fatal error: out of memory", requests: 1},
		"unknown function": {answers: []answer{refusal(404, "FunctionNotFound", "no function f")},
			fail: func(err error) bool {
				var c *CallError
				return errors.As(err, &c) && c.Status == 404 && c.Code == "FunctionNotFound" && IsPermanent(err) && strings.Contains(hint(err), "deploy")
			}, mentions: "no function f", requests: 1},
		"throttled twice": {answers: []answer{refusal(429, "ResourceExhausted", "busy"), refusal(503, "ResourceThrottled", "busy"), {status: 200, body: `{"ok":true,"reply":1}`}},
			want: "1", requests: 3},
		"error without a body": {answers: []answer{{status: 502}},
			fail: func(err error) bool {
				var c *CallError
				return errors.As(err, &c) && c.Status == 502 && c.Code == "Bad Gateway" && !IsPermanent(err)
			}, requests: 1},
		"error that is no JSON": {answers: []answer{{status: 500, body: "<html>oops</html>"}},
			fail: func(err error) bool { var c *CallError; return errors.As(err, &c) && c.Status == 500 }, requests: 1},
		"broken connection": {answers: []answer{{drop: true}}, fail: func(err error) bool { return !IsPermanent(err) }, mentions: "invoke f", requests: 1},
		"another program":   {answers: []answer{{status: 200, body: `"hello"`}}, mentions: "no answer of these functions", requests: 1},
		"empty object":      {answers: []answer{{status: 200, body: `{}`}}, mentions: "neither", requests: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, test.answers...)
			got, err := s.Invoke(t.Context(), "f", ping)
			if test.want != "" {
				if err != nil || string(got) != test.want {
					t.Errorf("got %s, %v", got, err)
				}
			} else if err == nil || !strings.Contains(err.Error(), test.mentions) || test.fail != nil && !test.fail(err) {
				t.Errorf("got %s, %T: %v", got, err, err)
			}
			// net/http itself repeats no POST, and neither does the client.
			if n := s.requests.Load(); n != test.requests {
				t.Errorf("%d requests, want %d", n, test.requests)
			}
		})
	}
}

func TestInvokerSubmit(t *testing.T) {
	for name, test := range map[string]struct {
		answers  []answer
		fails    string
		requests int32
	}{
		"accepted":                {answers: []answer{{status: 202}}, requests: 1},
		"known task":              {answers: []answer{refusal(409, "AsyncTaskAlreadyExists", "task r_1 exists")}, requests: 1},
		"known task, older":       {answers: []answer{refusal(400, "InvalidArgument", "task r_1 already exists")}, requests: 1},
		"other bad request":       {answers: []answer{refusal(400, "InvalidArgument", "no such qualifier")}, fails: "qualifier", requests: 1},
		"denied":                  {answers: []answer{refusal(403, "AccessDenied", "not you")}, fails: "not you", requests: 1},
		"throttled, then known":   {answers: []answer{refusal(429, "ResourceExhausted", "busy"), refusal(409, "", "")}, requests: 2},
		"broken, then known":      {answers: []answer{{drop: true}, refusal(409, "", "")}, requests: 2},
		"server error, then fine": {answers: []answer{{status: 500}, {status: 202}}, requests: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, test.answers...)
			err := s.Submit(t.Context(), "f", "r_1", ping)
			if test.fails == "" && err != nil || test.fails != "" && (err == nil || !strings.Contains(err.Error(), test.fails)) {
				t.Errorf("got %v", err)
			}
			if n := s.requests.Load(); n != test.requests {
				t.Errorf("%d requests, want %d", n, test.requests)
			}
			r := s.last.Load()
			if r.Header.Get("X-Fc-Invocation-Type") != "Async" || r.Header.Get("X-Fc-Async-Task-Id") != "r_1" ||
				r.URL.Path != "/2023-03-30/functions/f/invocations" || *s.body.Load() != `{"v":1,"kind":"ping"}` ||
				r.Header.Get("X-Acs-Security-Token") != "t0ken" || !strings.Contains(r.Header.Get("Authorization"), "ACS3-HMAC-SHA256 Credential=LTAI1,") {
				t.Errorf("%s %s %v %s", r.Method, r.URL, r.Header, *s.body.Load())
			}
		})
	}
}

// TestInvokerJudges: throttling is waited out for ever; with a task id what is in doubt
// is tried six times, and without one never.
func TestInvokerJudges(t *testing.T) {
	broken := errors.New("connection reset")
	for _, test := range []struct {
		err     error
		invoke  retry.Verdict
		early   retry.Verdict // of the first five attempts to submit
		sixth   retry.Verdict
		hundred retry.Verdict
	}{
		{broken, 0, retry.Again | retry.Doubt, 0, 0},
		{&CallError{Status: 500}, 0, retry.Again | retry.Doubt, 0, 0},
		{&CallError{Status: 408}, 0, retry.Again | retry.Doubt, 0, 0},
		{&CallError{Status: 403}, 0, 0, 0, 0},
		{&CallError{Status: 429}, retry.Again, retry.Again, retry.Again, retry.Again},
		{&CallError{Status: 503, Code: "ResourceThrottled"}, retry.Again, retry.Again, retry.Again, retry.Again},
		{fmt.Errorf("submit: %w", &CallError{Status: 403, Code: "ResourceExhausted"}), retry.Again, retry.Again, retry.Again, retry.Again},
	} {
		if got := throttled(test.err); got != test.invoke {
			t.Errorf("invoke, %v: %b, want %b", test.err, got, test.invoke)
		}
		for attempt, want := range map[int]retry.Verdict{1: test.early, 5: test.early, 6: test.sixth, 100: test.hundred} {
			if got := submitted(test.err, attempt); got != want {
				t.Errorf("attempt %d to submit, %v: %b, want %b", attempt, test.err, got, want)
			}
		}
	}
}

// TestInvokerEndsWithItsContext: neither a hanging answer nor throttling outlasts the
// context, and the error says both what happened and why it gave up.
func TestInvokerEndsWithItsContext(t *testing.T) {
	for name, a := range map[string]answer{"hang": {hang: true}, "throttled": refusal(429, "ResourceExhausted", "busy")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, a)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			begin := time.Now()
			_, err := s.Invoke(ctx, "f", ping)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("invoke: %v", err)
			}
			err = s.Submit(ctx, "f", "r_1", ping)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("submit: %v", err)
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestInvokerRefusesBeforeSending(t *testing.T) {
	s := serve(t, answer{status: 200})
	for name, err := range map[string]error{
		"function": func() error { _, err := s.Invoke(t.Context(), "a/b", ping); return err }(),
		"command":  func() error { _, err := s.Invoke(t.Context(), "f", Command{}); return err }(),
		"task id":  s.Submit(t.Context(), "f", "1/2", ping),
		"empty id": s.Submit(t.Context(), "f", "", ping),
		"submit":   s.Submit(t.Context(), "f", "r_1", Command{Kind: "x"}),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if n := s.requests.Load(); n != 0 {
		t.Errorf("%d requests", n)
	}
	s.config.Credentials = access.Key{}.Provider()
	if _, err := s.Invoke(t.Context(), "f", ping); err == nil || !strings.Contains(err.Error(), "access key") {
		t.Error(err)
	}
}

func TestNewInvoker(t *testing.T) {
	keys := access.Key{ID: "a", Secret: "b"}.Provider()
	v, err := NewInvoker(InvokerConfig{Account: "100", Region: "cn-hangzhou", Credentials: keys})
	if err != nil || v.protocol+"://"+v.host != "https://100.cn-hangzhou.fc.aliyuncs.com" {
		t.Errorf("%+v, %v", v, err)
	}
	for name, config := range map[string]InvokerConfig{
		"nowhere":        {Credentials: keys},
		"no scheme":      {Endpoint: "127.0.0.1:80", Credentials: keys},
		"no credentials": {Endpoint: "http://127.0.0.1:80"},
	} {
		if _, err := NewInvoker(config); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestTaskID(t *testing.T) {
	seen := map[string][]any{}
	for _, parts := range [][]any{{}, {""}, {"", ""}, {"a"}, {"a", "b"}, {"ab"}, {"a", "", "b"}, {"a,1:b"}, {"b/1", "000007", 3, 1}, {"b/1", "000007", 3, 2}, {"b/1", "000007", 31}} {
		id := TaskID(parts...)
		if !taskIDs.MatchString(id) {
			t.Errorf("%v: %q", parts, id)
		}
		if other, ok := seen[id]; ok {
			t.Errorf("%v and %v agree", parts, other)
		}
		seen[id] = parts
		if TaskID(parts...) != id {
			t.Errorf("%v: not stable", parts)
		}
	}
}
