package ots

import (
	"path"
	"time"

	"github.com/tablevault/tablevault/local/ots/engine"
)

// A FaultFunc may answer with what shall go wrong in a request, or nil. op is the
// operation, table the first table it names or "", and n counts, from 0, the requests of
// that operation since the server began. It is called from several requests at a time.
type FaultFunc func(op, table string, n int) *Fault

// A Fault is what goes wrong in one request.
type Fault struct {
	// Delay comes before the work. It ends early, with nothing done, when the client goes
	// away.
	Delay time.Duration
	// Err, if given, is the answer.
	Err *engine.Error
	// Status replaces the HTTP status of Err; Body its message, for an answer that is not
	// the service's own.
	Status int
	Body   []byte
	// Rows are the answers for single rows of a batch, by their place among all of its
	// rows.
	Rows map[int]*engine.Error
	// After lets the work be done, before Err, Rows and Cut come into play.
	After bool
	// Cut ends the connection instead of answering.
	Cut Cut
}

// Cut is how a connection ends.
type Cut int

// The ways.
const (
	CutNone   Cut = iota
	CutSilent     // without a byte of an answer
	CutMiddle     // in the middle of the answer's body; the work is done
)

// Refuse is a fault that answers with an error of the code instead of working, in the
// service's words if there is no message.
func Refuse(code, message string) *Fault {
	if message == "" {
		message = engine.Text(code)
	}
	return &Fault{Err: &engine.Error{Code: code, Message: message}}
}

// count numbers the requests of an operation.
func (s *Server) count(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.calls[op]
	s.calls[op]++
	return n
}

// Calls is the number of requests of an operation that came as far as to name their
// table.
func (s *Server) Calls(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[op]
}

func (r Rule) matches(op, table string) bool {
	return match(r.Operation, op) && match(r.Table, table)
}

func match(pattern, name string) bool {
	if pattern == "" {
		return true
	}
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}
