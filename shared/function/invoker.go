package function

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"

	api "github.com/alibabacloud-go/fc-20230330/v4/client"

	openapi "github.com/alibabacloud-go/darabonba-openapi/v2/utils"
	"github.com/alibabacloud-go/tea/dara"
	"github.com/alibabacloud-go/tea/tea"

	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/retry"
)

const (
	submitTimeout = 30 * time.Second // one attempt of an asynchronous invocation
	submitTries   = 6                // attempts against server errors and broken connections
	maxAnswer     = 32 << 20
)

// backoff is the pauses between the attempts of a call.
var backoff = retry.Policy{First: 500 * time.Millisecond, Most: 30 * time.Second}

// InvokerConfig says how to reach the Function Compute API.
type InvokerConfig struct {
	// Endpoint is a base address such as http://127.0.0.1:8080. Empty means the account's
	// invocation endpoint in the region, for which Account and Region are needed.
	Endpoint string
	Account  string
	Region   string

	// Credentials are asked for before every request.
	Credentials access.Provider

	// Client makes the requests; nil means [NewClient]. It should have no overall
	// timeout: a synchronous invocation lasts as long as the function runs.
	Client *http.Client
}

// Invoker calls functions. It is safe for use by several goroutines.
type Invoker struct {
	config   InvokerConfig
	protocol string
	host     string
}

// NewInvoker returns an Invoker, or what the configuration lacks.
func NewInvoker(config InvokerConfig) (*Invoker, error) {
	v := &Invoker{config: config}
	if config.Endpoint == "" {
		if config.Account == "" || config.Region == "" {
			return nil, errors.New("invoke functions: neither an endpoint nor account and region are known: set TABLEVAULT_FC_ENDPOINT, or FC_ACCOUNT_ID and FC_REGION")
		}
		v.protocol, v.host = "https", config.Account+"."+config.Region+".fc.aliyuncs.com"
	} else {
		u, err := parseAddress(config.Endpoint)
		if err != nil {
			return nil, fmt.Errorf("invoke functions: their address: %w", err)
		}
		v.protocol, v.host = u.Scheme, u.Host
	}
	if config.Credentials == nil {
		return nil, errors.New("invoke functions: no credentials")
	}
	if config.Client == nil {
		v.config.Client = NewClient()
	}
	return v, nil
}

// NewClient returns an HTTP client for invokers: connecting is bounded, waiting for a
// function's answer is left to the context.
func NewClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     60 * time.Second,
	}}
}

// CallError is an invocation that the API refused, so that the function did not run.
type CallError struct {
	Function string
	Status   int    // HTTP status
	Code     string // such as FunctionNotFound, SignatureNotMatch, ResourceExhausted
	Message  string
}

func (e *CallError) Error() string {
	text := fmt.Sprintf("invoke %s: %d %s", e.Function, e.Status, e.Code)
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

// Permanent reports whether the same call would be refused again: all client errors are
// for good but throttling.
func (e *CallError) Permanent() bool {
	return e.Status >= 400 && e.Status < 500 && e.Status != http.StatusTooManyRequests && e.Status != http.StatusRequestTimeout
}

// Hint is what to do about the refusals that configuration causes.
func (e *CallError) Hint() string {
	switch {
	case e.Status == http.StatusNotFound:
		return "deploy the functions, or set TABLEVAULT_FUNCTION_PREFIX to their prefix"
	case e.Status == http.StatusForbidden:
		return "allow fc:InvokeFunction on the function to this role, and check its key"
	}
	return ""
}

// throttled reports that the function did not run for want of room, and that the same
// call may succeed later.
func (e *CallError) throttled() bool {
	return e.Status == http.StatusTooManyRequests || e.Code == "ResourceThrottled" || e.Code == "ResourceExhausted"
}

// duplicate reports that the task id is taken. The service answers 409; older
// descriptions of it say 400.
func (e *CallError) duplicate() bool {
	if e.Status == http.StatusConflict {
		return true
	}
	text := strings.ToLower(e.Code + " " + e.Message)
	return e.Status == http.StatusBadRequest &&
		(strings.Contains(text, "exist") || strings.Contains(text, "duplicate") || strings.Contains(text, "conflict"))
}

// Invoke runs cmd in function, which is a deployed name ([Env.Name]), and waits for the
// answer: the verb's reply as JSON. The error is a [*Failure] if the function ran and
// failed, and a [*CallError] if it was refused. Throttling is waited out with growing
// pauses until ctx ends; nothing else is retried, since whether the function ran may not
// be known.
func (v *Invoker) Invoke(ctx context.Context, function string, cmd Command) ([]byte, error) {
	event, err := cmd.Encode()
	if err != nil {
		return nil, fmt.Errorf("invoke %s: %w", function, err)
	}
	if err := checkFunctionName(function); err != nil {
		return nil, fmt.Errorf("invoke %s: %w", function, err)
	}
	call := retry.Call{Policy: backoff, Judge: func(err error, _ int) retry.Verdict { return throttled(err) }}
	var res *response
	end := call.Do(ctx, func(ctx context.Context) (err error) {
		res, err = v.call(ctx, function, event, "")
		return err
	})
	if err := ended(ctx, end); err != nil {
		return nil, err
	}
	return open(function, cmd, res)
}

// throttled is the judgement of a call that is made again only if the function did not
// run for want of room.
func throttled(err error) retry.Verdict {
	var refused *CallError
	if errors.As(err, &refused) && refused.throttled() {
		return retry.Again
	}
	return 0
}

// ended is the error of a call, which also says why it was not waited any longer.
func ended(ctx context.Context, end retry.End) error {
	if end.Stopped != nil && !errors.Is(end.Err, end.Stopped) {
		return fmt.Errorf("%w (gave up waiting: %w)", end.Err, context.Cause(ctx))
	}
	return end.Err
}

// Submit hands cmd to function to be run later, at least once. A task id makes that safe
// to repeat: a submit whose task id the service already knows succeeds ([TaskID] makes
// ids), and only then server errors and broken connections are retried. Throttling is
// waited out with growing pauses until ctx ends.
func (v *Invoker) Submit(ctx context.Context, function, taskID string, cmd Command) error {
	event, err := cmd.Encode()
	if err != nil {
		return fmt.Errorf("submit to %s: %w", function, err)
	}
	if err := checkFunctionName(function); err != nil {
		return fmt.Errorf("submit to %s: %w", function, err)
	}
	if !taskIDs.MatchString(taskID) {
		return fmt.Errorf("submit to %s: task id %q: want at most 128 letters, digits, _ and -, no digit or - first", function, taskID)
	}
	call := retry.Call{Policy: backoff, Judge: submitted}
	call.Policy.Limit = submitTimeout
	end := call.Do(ctx, func(ctx context.Context) error {
		_, err := v.call(ctx, function, event, taskID)
		var refused *CallError
		if errors.As(err, &refused) && refused.duplicate() {
			return nil
		}
		return err
	})
	return ended(ctx, end)
}

// submitted is the judgement of a call with a task id. Where the connection broke, it is
// not known whether the task was taken.
func submitted(err error, attempt int) retry.Verdict {
	var refused *CallError
	if v := throttled(err); v != 0 || errors.As(err, &refused) && refused.Permanent() || attempt >= submitTries {
		return v
	}
	return retry.Again | retry.Doubt
}

type response struct {
	body      []byte
	errorType string // of a function that ran and failed
	requestID string
	logTail   string
}

// call makes one request: asynchronous if it has a task id.
func (v *Invoker) call(ctx context.Context, function string, event []byte, taskID string) (*response, error) {
	credentials, err := v.config.Credentials(ctx)
	if err != nil {
		return nil, fmt.Errorf("invoke %s: credentials: %w", function, err)
	}
	if credentials.ID == "" || credentials.Secret == "" {
		return nil, fmt.Errorf("invoke %s: no access key: give the function a role, or set one", function)
	}
	// The client's own constructor takes credentials once, so there is a client
	// per request; connections live in http.
	exchange := &exchange{client: v.config.Client}
	client, err := api.NewClient(&openapi.Config{
		AccessKeyId:     &credentials.ID,
		AccessKeySecret: &credentials.Secret,
		SecurityToken:   &credentials.Token,
		Endpoint:        &v.host,
		Protocol:        &v.protocol,
		RegionId:        &v.config.Region,
		HttpClient:      exchange,
	})
	if err != nil {
		return nil, fmt.Errorf("invoke %s: %w", function, err)
	}
	headers := &api.InvokeFunctionHeaders{}
	if taskID == "" {
		headers.SetXFcInvocationType("Sync").SetXFcLogType("Tail")
	} else {
		headers.SetXFcInvocationType("Async").SetXFcAsyncTaskId(taskID)
	}
	res, err := client.InvokeFunctionWithContext(ctx, &function,
		&api.InvokeFunctionRequest{Body: bytes.NewReader(event)}, headers, &dara.RuntimeOptions{})
	if err != nil {
		return nil, exchange.wrap(function, err)
	}
	out := &response{}
	if closer, ok := res.Body.(io.Closer); ok {
		defer closer.Close()
	}
	if res.Body != nil {
		out.body, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
		if err != nil {
			return nil, fmt.Errorf("invoke %s: read answer: %w", function, err)
		}
		if len(out.body) > maxAnswer {
			return nil, fmt.Errorf("invoke %s: answer exceeds %d bytes", function, maxAnswer)
		}
	}
	// The client hands headers on in lower case.
	out.errorType = dara.StringValue(res.Headers["x-fc-error-type"])
	out.requestID = dara.StringValue(res.Headers["x-fc-request-id"])
	if tail, err := base64.StdEncoding.DecodeString(dara.StringValue(res.Headers["x-fc-log-result"])); err == nil {
		out.logTail = string(tail)
	}
	return out, nil
}

// exchange makes one request for the client and remembers the status, which the client
// loses when an error's body is not the JSON it expects. It also keeps the client from
// the HTTP client that it would share with all others of the process, whose timeout it
// sets while requests are under way.
type exchange struct {
	client *http.Client
	status int
}

func (e *exchange) Call(req *http.Request, _ *http.Transport) (*http.Response, error) {
	res, err := e.client.Do(req)
	if err == nil {
		e.status = res.StatusCode
	}
	return res, err
}

func (e *exchange) wrap(function string, err error) error {
	if e.status < 400 {
		return fmt.Errorf("invoke %s: %w", function, err)
	}
	out := &CallError{Function: function, Status: e.status}
	var sdk *tea.SDKError
	if errors.As(err, &sdk) && tea.StringValue(sdk.Code) != "<nil>" { // the client's word for a body without a code
		out.Code = tea.StringValue(sdk.Code)
		out.Message = strings.TrimPrefix(tea.StringValue(sdk.Message), fmt.Sprintf("code: %d, ", e.status))
	}
	if out.Code == "" {
		out.Code = http.StatusText(e.status)
	}
	return out
}

// open takes a synchronous answer apart.
func open(function string, cmd Command, res *response) ([]byte, error) {
	if res.errorType != "" {
		var body struct {
			Message string `json:"errorMessage"`
			Type    string `json:"errorType"`
		}
		if err := json.Unmarshal(res.body, &body); err != nil || body.Message == "" {
			body.Message = clip(res.body, 1024)
		}
		switch body.Type {
		case TypeRetriable, TypeDeadline, TypePanic:
			// The function wrote the message, and it names everything.
			return nil, &Failure{Type: body.Type, Message: body.Message, Request: res.requestID}
		}
		if last := lastLine(res.logTail); last != "" {
			body.Message += "; its last words: " + last
		}
		return nil, &Failure{
			Type: TypeCrash, Message: body.Message, Hint: "give the same command again, it goes on where this one was; if it ends so again, give the function more memory or time",
			Function: function, Request: res.requestID, Kind: cmd.Kind, Table: cmd.Table, Backup: cmd.Backup, Restore: cmd.Restore, Segment: cmd.Segment,
		}
	}
	var answer Answer
	if err := json.Unmarshal(res.body, &answer); err != nil {
		return nil, fmt.Errorf("invoke %s: request %s: answer is no answer of these functions: %w", function, res.requestID, err)
	}
	if answer.OK {
		return answer.Reply, nil
	}
	if answer.Error == nil {
		return nil, fmt.Errorf("invoke %s: request %s: answer is neither a reply nor an error", function, res.requestID)
	}
	return nil, answer.Error
}

// lastLine returns the last line of a log tail that a function, not its runtime, wrote.
func lastLine(tail string) string {
	lines := strings.Split(tail, "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		line := strings.TrimSpace(lines[i])
		if line != "" && !strings.HasPrefix(line, "FC Invoke ") {
			return clip([]byte(line), 300)
		}
	}
	return ""
}

// taskIDs and functionNames are what the service accepts.
var (
	taskIDs       = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,127}$`)
	functionNames = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,63}$`)
)

func checkFunctionName(name string) error {
	if !functionNames.MatchString(name) {
		return fmt.Errorf("%q is no function name: want at most 64 letters, digits, _ and -, no digit or - first", name)
	}
	return nil
}

// TaskID returns the id of a task that parts identify, such as a backup, a segment, a
// slot and the number of the start: "r_" and a hash, within the service's alphabet.
// Different parts give different ids, however they are cut.
func TaskID(parts ...any) string {
	h := sha256.New()
	for _, part := range parts {
		text := fmt.Sprint(part)
		fmt.Fprintf(h, "%d:%s,", len(text), text)
	}
	return "r_" + hex.EncodeToString(h.Sum(nil)[:20])
}
