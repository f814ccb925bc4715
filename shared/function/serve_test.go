package function

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/fc-runtime-go-sdk/fc"
	"github.com/aliyun/fc-runtime-go-sdk/fc/messages"
	"github.com/aliyun/fc-runtime-go-sdk/fccontext"

	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// exported is a reply that counts.
type exported struct {
	Rows int `json:"rows"`
}

func (e exported) LogValue() slog.Value { return slog.GroupValue(slog.Int("rows", e.Rows)) }

// deniedError is an error type of another package that knows what it means.
type deniedError struct{}

func (deniedError) Error() string   { return "no permission on table orders" }
func (deniedError) Permanent() bool { return true }
func (deniedError) Hint() string    { return "allow ots:GetRange" }

func server(verbs Verbs, log *bytes.Buffer) *Server {
	return &Server{Verbs: verbs, Log: log, Env: Env{Margin: 30 * time.Second, Vault: "oss://b", MemoryMB: 512, Lanes: 8, Account: "1", Region: "r"}, Client: NewClient()}
}

func invocationContext(t *testing.T, timeout time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	return fccontext.NewContext(ctx, &fccontext.FcContext{
		RequestID:   "req-1",
		Function:    fccontext.Function{Name: "tablevault-export", Timeout: int(timeout.Seconds())},
		Credentials: fccontext.Credentials{AccessKeyId: "LTAI1", AccessKeySecret: "s3cr3t", SecurityToken: "t0ken"},
		RetryCount:  2,
	})
}

func TestInvoke(t *testing.T) {
	const segment = `{"kind":"export","table":"prod/orders","backup":"20261120T021400Z-0a1b2c3d","segment":"000007"}`
	for name, test := range map[string]struct {
		handler   Handler
		event     string
		answer    string // exact, if OK or handled
		errorType string // of an unhandled failure
		message   string // it must mention
		log       []string
	}{
		"reply": {
			handler: func(context.Context, *Invocation, Command) (any, error) { return exported{Rows: 7}, nil },
			answer:  `{"ok":true,"reply":{"rows":7}}`,
			log:     []string{`"msg":"start"`, `"retry":2`, `"source":"direct"`, `"msg":"done"`, `"counts":{"rows":7}`, `"segment":"000007"`, `"request":"req-1"`},
		},
		"retriable": {
			handler:   func(context.Context, *Invocation, Command) (any, error) { return nil, errors.New("connection reset") },
			errorType: TypeRetriable, message: "tablevault-export export table prod/orders backup 20261120T021400Z-0a1b2c3d segment 000007: connection reset",
			log: []string{`"msg":"failed"`, `"type":"Retriable"`, "connection reset"},
		},
		"permanent mark": {
			handler: func(context.Context, *Invocation, Command) (any, error) {
				return nil, fmt.Errorf("export: %w", Permanent(errors.New("stream trimmed")))
			},
			answer: `{"ok":false,"error":{"type":"Permanent","message":"export: stream trimmed","function":"tablevault-export","request":"req-1","kind":"export","table":"prod/orders","backup":"20261120T021400Z-0a1b2c3d","segment":"000007"}}`,
			log:    []string{`"msg":"failed"`, `"type":"Permanent"`},
		},
		"corrupt": {
			handler: func(context.Context, *Invocation, Command) (any, error) {
				return nil, Permanent(fmt.Errorf("read x: %w", vault.ErrCorrupt))
			},
			answer: `{"ok":false,"error":{"type":"Corrupt","message":"read x: corrupt object","function":"tablevault-export","request":"req-1","kind":"export","table":"prod/orders","backup":"20261120T021400Z-0a1b2c3d","segment":"000007"}}`,
		},
		"permanent by behaviour": {
			handler: func(context.Context, *Invocation, Command) (any, error) {
				return nil, fmt.Errorf("export: %w", deniedError{})
			},
			answer: `{"ok":false,"error":{"type":"Permanent","message":"export: no permission on table orders","hint":"allow ots:GetRange","function":"tablevault-export","request":"req-1","kind":"export","table":"prod/orders","backup":"20261120T021400Z-0a1b2c3d","segment":"000007"}}`,
		},
		"panic": {
			handler: func(_ context.Context, _ *Invocation, cmd Command) (any, error) {
				var none []int
				return none[len(cmd.Segment)], nil
			},
			errorType: TypePanic, message: "index out of range",
			log: []string{`"msg":"panic"`, "serve_test.go"},
		},
		"panic with an error": {
			handler:   func(context.Context, *Invocation, Command) (any, error) { panic(Permanent(errors.New("boom"))) },
			errorType: TypePanic, message: "boom",
		},
		"counts of what was used": {
			handler: func(_ context.Context, inv *Invocation, _ Command) (any, error) {
				inv.Count(KeyStore, exported{Rows: 2})
				return nil, errors.New("broke")
			},
			errorType: TypeRetriable, message: "broke", log: []string{`"error":"broke","store":{"rows":2}`},
		},
		"deadline": {
			handler: func(ctx context.Context, _ *Invocation, _ Command) (any, error) {
				return nil, fmt.Errorf("read: %w", context.DeadlineExceeded)
			},
			errorType: TypeDeadline, message: "deadline",
		},
		"reply that is no JSON": {
			handler: func(context.Context, *Invocation, Command) (any, error) { return func() {}, nil },
			answer:  `{"ok":false,"error":{"type":"Permanent","message":"marshal reply: json: unsupported type: func()","function":"tablevault-export","request":"req-1","kind":"export","table":"prod/orders","backup":"20261120T021400Z-0a1b2c3d","segment":"000007"}}`,
		},
		"bad event": {
			event:  `{"hello":"world"}`,
			answer: `{"ok":false,"error":{"type":"BadRequest","message":"event of an unknown shape with the keys [hello]; a command has a kind: tick, backup, void, export, restore, import, verify, copy, ping","function":"tablevault-export","request":"req-1"}}`,
			log:    []string{`"msg":"refused"`},
		},
		"another function's kind": {
			event:  `{"kind":"tick"}`,
			answer: `{"ok":false,"error":{"type":"BadRequest","message":"function tablevault-export does not serve tick; it serves export, ping","function":"tablevault-export","request":"req-1","kind":"tick"}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			if test.handler == nil {
				test.handler = func(context.Context, *Invocation, Command) (any, error) {
					t.Error("the handler ran")
					return nil, nil
				}
			}
			if test.event == "" {
				test.event = segment
			}
			s := server(Verbs{KindExport: test.handler}, &log)
			answer, err := s.Invoke(invocationContext(t, time.Minute), []byte(test.event))
			if test.errorType != "" {
				envelope, ok := err.(messages.InvokeResponse_Error) // not errors.As: the runtime asserts, too
				if !ok {
					t.Fatalf("error is %T: %v, answer %s", err, err, answer)
				}
				if envelope.Type != test.errorType || !strings.Contains(envelope.Message, test.message) {
					t.Errorf("got %s: %s", envelope.Type, envelope.Message)
				}
			} else if err != nil || string(answer) != test.answer {
				t.Errorf("got  %s, %v\nwant %s", answer, err, test.answer)
			}
			for _, want := range test.log {
				if !strings.Contains(log.String(), want) {
					t.Errorf("log lacks %s:\n%s", want, log.String())
				}
			}
			if s := log.String(); strings.Contains(s, "s3cr3t") || strings.Contains(s, "t0ken") {
				t.Errorf("log has a secret:\n%s", s)
			}
		})
	}
}

func TestInvokePing(t *testing.T) {
	var log bytes.Buffer
	answer, err := server(nil, &log).Invoke(invocationContext(t, time.Minute), []byte(`{"kind":"ping"}`))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		OK    bool
		Reply Pong
	}
	if err := json.Unmarshal(answer, &got); err != nil {
		t.Fatal(err)
	}
	if !got.OK || got.Reply.AccessKey != "LTAI1" || !got.Reply.Temporary || got.Reply.Function != "tablevault-export" ||
		got.Reply.Region != "r" || got.Reply.LeftMS < 50_000 {
		t.Errorf("%+v", got)
	}
	if strings.Contains(string(answer), "s3cr3t") {
		t.Error("ping tells a secret")
	}
}

func TestInvokeWithBadSettings(t *testing.T) {
	var log bytes.Buffer
	s := server(nil, &log)
	_, s.EnvError = ReadEnv(nil)
	answer, err := s.Invoke(invocationContext(t, time.Minute), []byte(`{"kind":"ping"}`))
	if err != nil || !strings.Contains(string(answer), `"type":"BadSettings"`) || !strings.Contains(string(answer), "TABLEVAULT_VAULT") {
		t.Errorf("%s, %v", answer, err)
	}
}

// TestInvokeSeveral: each command of a batch is run and answered; a retriable failure of
// one fails the delivery, so that all are delivered again.
func TestInvokeSeveral(t *testing.T) {
	var ran []string
	fail := ""
	var log bytes.Buffer
	s := server(Verbs{KindBackup: func(_ context.Context, inv *Invocation, cmd Command) (any, error) {
		ran = append(ran, cmd.Table+" "+inv.Origin.Key())
		if cmd.Table == fail {
			return nil, errors.New("throttled")
		}
		if cmd.Table == "p/denied" {
			return nil, Permanent(errors.New("denied"))
		}
		return nil, nil
	}}, &log)
	const event = `[{"specversion":"1.0","id":"1","source":"s","data":{"kind":"backup","table":"p/a"}},
		{"specversion":"1.0","id":"1","source":"s","data":{"kind":"backup","table":"p/a"}},
		{"specversion":"1.0","id":"2","source":"s","data":{"kind":"backup","table":"p/denied"}},
		{"specversion":"1.0","id":"3","source":"s","data":{"kind":"backup","table":"p/b"}}]`
	answer, err := s.Invoke(invocationContext(t, time.Minute), []byte(event))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(ran, ", "); got != "p/a cloudevent/s/1, p/denied cloudevent/s/2, p/b cloudevent/s/3" {
		t.Error(got)
	}
	var got Answer
	if err := json.Unmarshal(answer, &got); err != nil {
		t.Fatal(err)
	}
	if got.OK || len(got.Answers) != 3 || !got.Answers[0].OK || got.Answers[1].OK || !got.Answers[2].OK {
		t.Errorf("%s", answer)
	}
	fail = "p/b"
	if _, err := s.Invoke(invocationContext(t, time.Minute), []byte(event)); err == nil {
		t.Error("a retriable failure in a batch was answered as success")
	}
}

func TestInvokeUsesTheEnvironmentsCredentialsLast(t *testing.T) {
	var log bytes.Buffer
	var got access.Key
	s := server(Verbs{KindTick: func(_ context.Context, inv *Invocation, _ Command) (any, error) {
		got = inv.Credentials
		return nil, nil
	}}, &log)
	s.Env.Credentials = access.Key{ID: "env"}
	if _, err := s.Invoke(invocationContext(t, time.Minute), []byte(`{"kind":"tick"}`)); err != nil || got.ID != "LTAI1" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := s.Invoke(t.Context(), []byte(`{"kind":"tick"}`)); err != nil || got.ID != "env" {
		t.Errorf("%v, %v", got, err)
	}
}

// TestStop: work ends at the margin, closing goes on to the deadline, and the margin is
// at most a third.
func TestStop(t *testing.T) {
	for name, test := range map[string]struct{ timeout, want, margin time.Duration }{
		"long":    {15 * time.Minute, 30 * time.Second, 30 * time.Second},
		"short":   {3 * time.Second, 30 * time.Second, time.Second},
		"no time": {-time.Second, 30 * time.Second, 0},
		"none":    {time.Minute, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			deadline := now.Add(test.timeout)
			if margin := deadline.Sub(stop(now, deadline, test.want)); margin != test.margin {
				t.Errorf("margin %v, want %v", margin, test.margin)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		ctx, cancel := context.WithDeadline(t.Context(), begin.Add(3*time.Second))
		defer cancel()
		deadline, _ := ctx.Deadline()
		run := (&Invocation{Stop: stop(begin, deadline, 30*time.Second), Deadline: deadline}).Run()
		for !run.Stopping() {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(begin); took != 2*time.Second || ctx.Err() != nil {
			t.Errorf("work ended after %v, closing by %v", took, ctx.Err())
		}
		<-ctx.Done()
		if took := time.Since(begin); took != 3*time.Second || run.Until != deadline {
			t.Errorf("closing ended after %v, and was to until %v", took, run.Until)
		}
	})
}

func TestPermanent(t *testing.T) {
	if Permanent(nil) != nil || IsPermanent(nil) || IsPermanent(errors.New("x")) {
		t.Error("nothing is permanent by itself")
	}
	cause := errors.New("cause")
	err := fmt.Errorf("a: %w", Permanent(cause))
	if !IsPermanent(err) || !errors.Is(err, cause) || err.Error() != "a: cause" {
		t.Error(err)
	}
}

// TestFailuresOfVerbs: which failures of a verb are for good is told here, whether or not
// the verb has marked them.
func TestFailuresOfVerbs(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		ctx  context.Context
		err  error
		want string
	}{
		{t.Context(), errors.New("x"), TypeRetriable},
		{t.Context(), Permanent(errors.New("x")), TypePermanent},
		{t.Context(), table.Invalidf("x"), TypePermanent},
		{t.Context(), fmt.Errorf("a: %w", table.ErrPermission), TypePermanent},
		{t.Context(), errors.Join(errors.New("x"), fmt.Errorf("a: %w", vault.ErrCorrupt)), TypeCorrupt},
		{ended, errors.New("x"), TypeDeadline},
		{ended, table.Invalidf("x"), TypePermanent},
	} {
		if got := failureType(c.ctx, c.err); got != c.want {
			t.Errorf("%v is %s, want %s", c.err, got, c.want)
		}
	}
}

// TestRuntimeTakesTheHandler: the runtime accepts Invoke's shape, and its own marshalling
// leaves the answer as it is.
func TestRuntimeTakesTheHandler(t *testing.T) {
	var log bytes.Buffer
	out, err := fc.NewHandler(server(nil, &log).Invoke).Invoke(invocationContext(t, time.Minute), []byte(`{"kind":"ping"}`))
	if err != nil || !strings.HasPrefix(string(out), `{"ok":true,"reply":{"function":"tablevault-export"`) {
		t.Errorf("%s, %v", out, err)
	}
	if out, err := fc.NewHandler(server(nil, &log).Invoke).Invoke(invocationContext(t, time.Minute), nil); err != nil || !strings.Contains(string(out), "empty") {
		t.Errorf("%s, %v", out, err)
	}
}

// TestSecretsAreHidden has a verb log, answer and fail with the secrets of its keys:
// nobody reads them.
func TestSecretsAreHidden(t *testing.T) {
	env, err := ReadEnv([]string{"TABLEVAULT_VAULT=oss://b/p?region=x", "AWS_SECRET_ACCESS_KEY=secret-of-s3", "AWS_SESSION_TOKEN=token-of-s3"})
	if err != nil {
		t.Fatal(err)
	}
	for _, fails := range []bool{false, true} {
		var log bytes.Buffer
		s := &Server{Env: env, Log: &log, Verbs: Verbs{KindTick: func(_ context.Context, inv *Invocation, _ Command) (any, error) {
			all := strings.Join([]string{inv.Credentials.Secret, inv.Credentials.Token, inv.Env.S3.Secret, inv.Env.S3.Token}, " ")
			inv.Log.With("with", all).Info("said "+all, "text", all, "error", errors.New(all), slog.Group("in", "a", all))
			if fails {
				return nil, Permanent(errors.New(all))
			}
			return map[string]string{"last_error": all}, nil
		}}}
		answer, err := s.Invoke(invocationContext(t, time.Minute), []byte(`{"kind":"tick"}`))
		if err != nil {
			t.Fatal(err)
		}
		said := log.String() + string(answer)
		for _, secret := range []string{"secret-of-s3", "token-of-s3", "secret", "token"} {
			fctx, _ := fccontext.FromContext(invocationContext(t, time.Minute))
			if secret == "secret" {
				secret = fctx.Credentials.AccessKeySecret
			}
			if secret == "token" {
				secret = fctx.Credentials.SecurityToken
			}
			if secret == "" || strings.Contains(said, secret) {
				t.Errorf("%q is told: %s", secret, said)
			}
		}
		if !strings.Contains(said, "(hidden)") {
			t.Errorf("nothing was hidden: %s", said)
		}
	}
}
