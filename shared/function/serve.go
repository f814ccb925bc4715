package function

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aliyun/fc-runtime-go-sdk/fc"
	"github.com/aliyun/fc-runtime-go-sdk/fc/messages"
	"github.com/aliyun/fc-runtime-go-sdk/fccontext"

	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/vault"
)

// Keys of the lines that an invocation logs.
const (
	KeyRequest  = "request"
	KeyFunction = "function"
	KeyKind     = "kind"
	KeyTable    = "table"
	KeyBackup   = "backup"
	KeyRestore  = "restore"
	KeySegment  = "segment"
	KeySource   = "source"
	KeyRetry    = "retry"
	KeyLeft     = "left"     // time to the deadline
	KeyDuration = "duration" // of the verb
	KeyCounts   = "counts"   // what the reply counted
	KeyStore    = "store"    // requests to the store of the vault, and bytes
	KeyReplica  = "further"  // the same of a replica
	KeyError    = "error"
)

// Handler runs one verb. ctx ends at the invocation's deadline; work ends before, at
// [Invocation.Stop]. The reply is marshalled as JSON; if it is a [slog.LogValuer], what
// it says is logged as the invocation's counts. Under at-least-once delivery a Handler
// may run twice, also at the same time.
type Handler func(ctx context.Context, inv *Invocation, cmd Command) (any, error)

// Verbs are the handlers of a function by the kind of command they serve. [KindPing] is
// served without being listed.
type Verbs map[Kind]Handler

// Invocation is what a Handler knows besides its command.
type Invocation struct {
	RequestID string
	Function  string // deployed name
	Region    string
	Account   string
	Retry     int // deliveries of this event before this one, as the platform counts
	Origin    Origin
	// Work ends at Stop. What remains until the Deadline, when the platform kills the
	// invocation, is for closing: flush, record, invoke the next.
	Stop, Deadline time.Time
	Credentials    access.Key
	Env            Env
	Log            *slog.Logger

	client  *http.Client
	counts  *counts
	secrets *strings.Replacer
}

// counts are what the last line of an invocation's log has beside what the reply counted.
type counts struct {
	mu   sync.Mutex
	args []any
}

// Count adds counts to the line that is logged when the invocation has ended, well or
// badly, as they are by then.
func (inv *Invocation) Count(name string, counts slog.LogValuer) {
	if inv.counts == nil {
		return // nothing will be logged
	}
	inv.counts.mu.Lock()
	defer inv.counts.mu.Unlock()
	inv.counts.args = append(inv.counts.args, slog.Any(name, counts))
}

// TableRegion is the region of the tables: the function's, or "local" on one machine.
func (inv *Invocation) TableRegion() string { return cmp.Or(inv.Region, "local") }

// Table is a table that a command names as instance/table.
func (inv *Invocation) Table(name string) (vault.TableID, error) {
	return vault.ParseTable(inv.TableRegion(), name)
}

// Endpoint is the address of an instance.
func (inv *Invocation) Endpoint(instance string) string {
	return inv.Env.Tablestore(instance, inv.TableRegion())
}

// Instant is when the invocation was triggered, now where its event does not tell, or
// tells of an instant that is still to come.
func (inv *Invocation) Instant() time.Time {
	at, told := inv.Origin.Instant(time.Now())
	if !told && !inv.Origin.Time.IsZero() {
		inv.Log.Warn("the event is of an instant that is still to come: this tick is for now", "time", inv.Origin.Time)
	}
	return at
}

// tell is after how long a worker first tells how far it has come.
const tell = time.Second

// Run is what a verb knows of the invocation.
func (inv *Invocation) Run() fanout.Run {
	return fanout.Run{
		Request: inv.RequestID, Stop: inv.Stop, Until: inv.Deadline, Retry: inv.Retry, Tell: tell, Hide: inv.Hide, Now: time.Now,
	}
}

// Invoker returns a client for the functions beside this one, signing with the
// invocation's credentials.
func (inv *Invocation) Invoker() (*Invoker, error) {
	return NewInvoker(InvokerConfig{
		Endpoint:    inv.Env.FCEndpoint,
		Account:     inv.Account,
		Region:      inv.Region,
		Credentials: inv.Credentials.Provider(),
		Client:      inv.client,
	})
}

// Answer is the body of every successful response. Reply holds what the verb returned if
// OK, and Error says what failed for good if not. An event that held several commands has
// their answers in Answers instead, in order, and OK only if all are.
type Answer struct {
	OK      bool            `json:"ok"`
	Reply   json.RawMessage `json:"reply,omitempty"`
	Error   *Failure        `json:"error,omitempty"`
	Answers []Answer        `json:"answers,omitempty"`
}

// Serve reads the environment and serves verbs until the platform ends the process. It is
// all that a function's main does, and does not return.
func Serve(verbs Verbs) {
	env, err := ReadEnv(os.Environ())
	s := &Server{Verbs: verbs, Env: env, EnvError: err, Log: os.Stdout, Client: NewClient()}
	fc.Start(s.Invoke)
}

// Server carries out invocations. [Serve] makes one; tests call Invoke.
type Server struct {
	Verbs    Verbs
	Env      Env
	EnvError error        // what is wrong with the environment: then every command is answered with it
	Log      io.Writer    // JSON lines
	Client   *http.Client // the connections of invokers, kept from one invocation to the next
}

// Invoke carries out one delivery. Its error is what the platform retries on; a failure
// for good is in the answer. It never panics.
func (s *Server) Invoke(ctx context.Context, event []byte) (answer json.RawMessage, err error) {
	fctx, ok := fccontext.FromContext(ctx) // once: each call writes to the shared context
	if !ok {
		fctx = &fccontext.FcContext{}
	}
	inv := s.invocation(ctx, fctx)

	events, err := Decode(event)
	if err != nil {
		return s.refuse(inv, TypeBadRequest, err)
	}
	if s.EnvError != nil {
		return s.refuse(inv, TypeBadSettings, s.EnvError)
	}
	answers := make([]Answer, 0, len(events))
	all := true
	for _, e := range events {
		a, err := s.run(ctx, inv, e)
		if err != nil {
			// The whole event is delivered again: verbs repeat harmlessly.
			return nil, err
		}
		all = all && a.OK
		answers = append(answers, a)
	}
	if len(answers) == 1 {
		return json.Marshal(answers[0])
	}
	return json.Marshal(Answer{OK: all, Answers: answers})
}

func (s *Server) invocation(ctx context.Context, fctx *fccontext.FcContext) *Invocation {
	now := time.Now()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = now.Add(time.Hour)
	}
	inv := &Invocation{
		RequestID: fctx.RequestID,
		Function:  cmp.Or(fctx.Function.Name, s.Env.Function),
		Region:    cmp.Or(fctx.Region, s.Env.Region),
		Account:   cmp.Or(fctx.AccountId, s.Env.Account),
		Retry:     fctx.RetryCount,
		Stop:      stop(now, deadline, s.Env.Margin),
		Deadline:  deadline,
		Credentials: access.Key{
			ID: fctx.Credentials.AccessKeyId, Secret: fctx.Credentials.AccessKeySecret, Token: fctx.Credentials.SecurityToken},
		Env:    s.Env,
		client: s.Client,
	}
	if inv.Credentials.IsZero() {
		inv.Credentials = s.Env.Credentials
	}
	inv.secrets = secrets(inv.Credentials, s.Env.Credentials, s.Env.S3)
	log := slog.New(slog.NewJSONHandler(s.Log, &slog.HandlerOptions{Level: s.Env.LogLevel, ReplaceAttr: inv.plain}))
	inv.Log = log.With(KeyRequest, inv.RequestID, KeyFunction, inv.Function)
	return inv
}

// stop is when work ends: a margin before the deadline, but at most a third of the whole
// time, so that a short function still works.
func stop(start, deadline time.Time, margin time.Duration) time.Time {
	return deadline.Add(-max(0, min(margin, deadline.Sub(start)/3)))
}

// plain logs durations as people write them; slog's JSON has nanoseconds. And it hides
// secrets.
func (inv *Invocation) plain(_ []string, a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindDuration:
		a.Value = slog.StringValue(a.Value.Duration().Round(time.Millisecond).String())
	case slog.KindString:
		a.Value = slog.StringValue(inv.Hide(a.Value.String()))
	case slog.KindAny:
		if err, ok := a.Value.Any().(error); ok {
			a.Value = slog.StringValue(inv.Hide(err.Error()))
		}
	}
	return a
}

// secrets replaces what nobody is to read of keys.
func secrets(keys ...access.Key) *strings.Replacer {
	var pairs []string
	for _, c := range keys {
		for _, s := range []string{c.Secret, c.Token} {
			if s != "" {
				pairs = append(pairs, s, "(hidden)")
			}
		}
	}
	return strings.NewReplacer(pairs...)
}

// Hide takes the secrets of the invocation's keys out of a text that will be logged,
// answered or stored. No error of ours has one, but one may quote a server, or a proxy
// before it, that gives back what it was sent.
func (inv *Invocation) Hide(text string) string {
	if inv.secrets == nil {
		return text
	}
	return inv.secrets.Replace(text)
}

// refuse answers an event that cannot be run. It is handled: the same event would be
// refused again.
func (s *Server) refuse(inv *Invocation, kind string, err error) (json.RawMessage, error) {
	inv.Log.Error("refused", KeyError, err.Error())
	return json.Marshal(Answer{Error: &Failure{
		Type: kind, Message: err.Error(), Hint: hint(err), Function: inv.Function, Request: inv.RequestID}})
}

// run carries out one command: an answer, or the error that fails the invocation.
func (s *Server) run(ctx context.Context, shared *Invocation, e Event) (Answer, error) {
	inv := *shared
	inv.Origin, inv.counts = e.Origin, new(counts)
	cmd := e.Command
	for _, about := range []struct{ key, value string }{
		{KeyKind, string(cmd.Kind)}, {KeyTable, cmd.Table}, {KeyBackup, cmd.Backup}, {KeyRestore, cmd.Restore}, {KeySegment, cmd.Segment}} {
		if about.value != "" {
			inv.Log = inv.Log.With(about.key, about.value)
		}
	}
	begin := time.Now()
	inv.Log.Info("start", KeySource, e.Origin.Source, KeyRetry, inv.Retry, KeyLeft, inv.Deadline.Sub(begin))

	reply, err := s.call(ctx, &inv, cmd)
	inv.counts.mu.Lock() // a goroutine that the verb left behind could still add to them
	defer inv.counts.mu.Unlock()
	var body json.RawMessage
	if err == nil {
		body, err = marshal(reply)
		body = json.RawMessage(inv.Hide(string(body)))
	}
	took := time.Since(begin)
	if err == nil {
		args := append([]any{KeyDuration, took}, inv.counts.args...)
		if counts, ok := reply.(slog.LogValuer); ok {
			args = append(args, KeyCounts, counts)
		}
		inv.Log.Info("done", args...)
		return Answer{OK: true, Reply: body}, nil
	}

	failure := &Failure{
		Type: failureType(ctx, err), Message: inv.Hide(err.Error()), Hint: hint(err), Function: inv.Function, Request: inv.RequestID,
		Kind: cmd.Kind, Table: cmd.Table, Backup: cmd.Backup, Restore: cmd.Restore, Segment: cmd.Segment}
	var p *guard.Panic
	if errors.As(err, &p) {
		failure.Type = TypePanic
		inv.Log.Error("panic", KeyError, p.Error(), "stack", string(p.Stack))
	}
	var refused *notServed
	if errors.As(err, &refused) {
		failure.Type = TypeBadRequest
	}
	inv.Log.Error("failed", append([]any{KeyDuration, took, "type", failure.Type, KeyError, failure.Message}, inv.counts.args...)...)
	if failure.Permanent() {
		return Answer{Error: failure}, nil
	}
	// By value: the runtime takes the type and the message only from the struct itself.
	return Answer{}, messages.InvokeResponse_Error{Type: failure.Type, Message: failure.Error()}
}

// marshal encodes a reply. A verb whose reply is no JSON is broken for good.
func marshal(reply any) (json.RawMessage, error) {
	body, err := json.Marshal(reply)
	if err != nil {
		return nil, Permanent(fmt.Errorf("marshal reply: %w", err))
	}
	return body, nil
}

// call runs the verb and turns its panic into an error.
func (s *Server) call(ctx context.Context, inv *Invocation, cmd Command) (reply any, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if handler := s.Verbs[cmd.Kind]; handler != nil {
		err = guard.Do(func() (err error) {
			reply, err = handler(ctx, inv, cmd)
			return err
		})
		return reply, err
	}
	if cmd.Kind == KindPing {
		return pong(inv), nil
	}
	return nil, &notServed{inv.Function, cmd.Kind, s.Verbs.kinds()}
}

func (v Verbs) kinds() []Kind {
	return slices.DeleteFunc(Kinds(), func(k Kind) bool { return v[k] == nil && k != KindPing })
}

// Pong is the reply to a ping.
type Pong struct {
	Function  string `json:"function"`
	Request   string `json:"request"`
	Region    string `json:"region"`
	Account   string `json:"account"`
	Vault     string `json:"vault"`
	MemoryMB  int    `json:"memory_mb"`
	Lanes     int    `json:"lanes"`
	AccessKey string `json:"access_key"` // id only
	Temporary bool   `json:"temporary"`  // the key has a security token
	Envelope  int    `json:"envelope"`   // highest version of a command that is read
	Go        string `json:"go"`
	LeftMS    int64  `json:"left_ms"` // to the deadline
}

func pong(inv *Invocation) Pong {
	return Pong{
		Function: inv.Function, Request: inv.RequestID, Region: inv.Region, Account: inv.Account,
		Vault: place.Plain(inv.Env.Vault), MemoryMB: inv.Env.MemoryMB, Lanes: inv.Env.Lanes,
		AccessKey: inv.Credentials.ID, Temporary: inv.Credentials.Token != "",
		Envelope: Version, Go: runtime.Version(), LeftMS: time.Until(inv.Deadline).Milliseconds(),
	}
}

type notServed struct {
	function string
	kind     Kind
	serves   []Kind
}

func (n *notServed) Error() string {
	return fmt.Sprintf("function %s does not serve %s; it serves %s", n.function, n.kind, joined(n.serves))
}

func (n *notServed) Permanent() bool { return true }
