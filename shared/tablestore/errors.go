package tablestore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/tablevault/tablevault/shared/retry"
	"github.com/tablevault/tablevault/shared/table"
)

// An Error is a request that the service refused or that did not reach it.
type Error struct {
	Op        string // the service's name of the operation
	Table     string // empty if the request was about none
	Code      string // the service's, empty if the request had no answer of its
	Message   string
	RequestID string
	Status    int // of HTTP, 0 if there was no answer; 200 for a row of a batch

	endpoint  string
	cause     error
	condition error
	verdict   retry.Verdict
	tried     time.Duration // for how long, if that was not once
}

// What errors mean.
const (
	final       retry.Verdict = 0                          // the same request fails again
	unavailable               = retry.Again | retry.Doubt  // the service or the network did not do its work
	unreachable               = retry.Again | retry.Away   // nothing answers at the endpoint
	throttling                = retry.Again | retry.Slower // the service wants fewer requests, and did nothing
	busy                      = throttling | retry.Doubt   // the same, and may have done its work
)

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Table != "" {
		fmt.Fprintf(&b, " of table %q", e.Table)
	}
	switch {
	case e.Code != "":
		fmt.Fprintf(&b, ": %s: %s", e.Code, strings.TrimSuffix(e.Message, "."))
	case e.Status != 0:
		fmt.Fprintf(&b, ": HTTP status %d from %s, which is no answer of the service: %.120q", e.Status, e.endpoint, e.Message)
	default:
		fmt.Fprintf(&b, ": no answer of %s: %v", e.endpoint, e.cause)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " (request %s)", e.RequestID)
	}
	if e.tried > 0 {
		fmt.Fprintf(&b, " after %s of trying", e.tried.Round(100*time.Millisecond))
	}
	if hint := e.hint(); hint != "" {
		b.WriteString(": " + hint)
	}
	return b.String()
}

// hint is the next step.
func (e *Error) hint() string {
	switch {
	case e.Status == 0 && e.verdict == final:
		return "check the endpoint's certificate"
	case e.Code == "" && e.condition == table.ErrUnavailable:
		return "check the endpoint and the network"
	case e.condition == table.ErrPermission:
		return "grant ots:" + e.Op + " on it to the credentials' user or role"
	case e.condition == table.ErrAuth && strings.Contains(e.Message, "system time"):
		return "set the clock of this machine"
	case e.condition == table.ErrAuth:
		return "check the access key, its token and the instance's name"
	case e.condition == table.ErrNotExist:
		return "check the table's name and the instance"
	case e.condition == table.ErrThrottled:
		return "raise the table's throughput or run fewer functions at a time"
	case e.condition == table.ErrUnavailable:
		return "try again later"
	case e.condition == table.ErrNoStream, e.condition == table.ErrStreamReplaced:
		return e.condition.Error()
	}
	return ""
}

// Is matches the conditions of package table.
func (e *Error) Is(target error) bool { return e.condition != nil && target == e.condition }

// Unwrap is the network's error, if that was it.
func (e *Error) Unwrap() error { return e.cause }

// Messages of the service by which errors of one code are told apart.
const (
	textTooFrequent  = "Too frequent table operations"
	textBadTimestamp = "Invalid timestamp"
	textNoAttributes = "Attribute column is missing"
	textNoCells      = "missing cells in request"
	textUnsupported  = "Unsupported operation"
	textNoStream     = "Invalid stream id"
	textNoShard      = "Invalid shard id"
	textNoIterator   = "Invalid shard iterator"
)

// judge sets what an answer of the service means and what is to be done.
func (e *Error) judge() {
	switch e.Code {
	case "OTSNotEnoughCapacityUnit", "OTSCapacityUnitExhausted", "OTSFlowControl", "OTSOperationThrottled",
		"OTSTooFrequentReservedThroughputAdjustment":
		e.condition, e.verdict = table.ErrThrottled, throttling
	case "OTSQuotaExhausted":
		e.condition = table.ErrInvalid
		if strings.Contains(e.Message, textTooFrequent) {
			e.condition, e.verdict = table.ErrThrottled, throttling
		}
	case "OTSServerBusy", "OTSStorageServerBusy":
		e.condition, e.verdict = table.ErrUnavailable, busy
	case "OTSServerUnavailable", "OTSTimeout", "OTSInternalServerError",
		"OTSTableNotReady", "OTSPartitionUnavailable", "OTSRowOperationConflict", "OTSRequestTimeout":
		e.condition, e.verdict = table.ErrUnavailable, unavailable
	case "OTSAuthFailed":
		e.condition = table.ErrAuth
	case "OTSNoPermissionAccess":
		e.condition = table.ErrPermission
	case "OTSObjectNotExist":
		e.condition = table.ErrNotExist
	case "OTSObjectAlreadyExist":
		e.condition = table.ErrExist
	case "OTSTrimmedDataAccess":
		e.condition = table.ErrTrimmed
	default:
		e.judgeStatus()
		e.judgeStream()
	}
}

// judgeStream tells apart what requests of streams are refused for with one code.
func (e *Error) judgeStream() {
	if e.Code != "OTSParameterInvalid" {
		return
	}
	switch {
	case strings.HasPrefix(e.Message, textNoStream):
		e.condition = table.ErrNoStream
	case strings.HasPrefix(e.Message, textNoShard):
		e.condition = table.ErrNoShard
	case strings.HasPrefix(e.Message, textNoIterator):
		e.condition = table.ErrIterator
	}
}

// judgeStatus judges by the HTTP status, for codes that this version does not know and
// answers that are not the service's, but a proxy's or a balancer's.
func (e *Error) judgeStatus() {
	switch {
	case e.Status == http.StatusTooManyRequests:
		e.condition, e.verdict = table.ErrThrottled, throttling
	case e.Status >= 500 || e.Status == http.StatusRequestTimeout:
		e.condition, e.verdict = table.ErrUnavailable, unavailable
	case e.Code == "":
		e.condition = table.ErrUnavailable
	default:
		e.condition = table.ErrInvalid
	}
}

// inDoubt says whether the request of an attempt that failed may still be carried out: it
// has no answer, or the service says that it does not know. An answer by which the
// service has not come to it, or is busy, ends the request.
func inDoubt(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	}
	switch e.Code {
	case "OTSTableNotReady", "OTSPartitionUnavailable", "OTSRowOperationConflict", "OTSParameterInvalid":
		return false
	}
	return e.verdict == unavailable
}

// network is the error of a request that has no answer.
func (c *Client) network(op, name string, err error) *Error {
	e := &Error{Op: op, Table: name, endpoint: c.endpoint.String(), cause: err, condition: table.ErrUnavailable, verdict: unavailable}
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &certificate):
		e.verdict = final
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.As(err, &dns):
		e.verdict = unreachable
	}
	return e
}

// broken is an answer that cannot be read.
func (c *Client) broken(op, name string, err error) *Error {
	return c.network(op, name, fmt.Errorf("an answer that cannot be read: %w", err))
}
