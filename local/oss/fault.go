package oss

import (
	"net/http"
	"strconv"
	"time"
)

// Request is what a FaultFunc is told of a request.
type Request struct {
	Operation string // PutObject, for example
	Bucket    string
	Object    string
	N         int // the requests of that operation before this one, since the server began or [Server.ResetCalls]
	Total     int // the same of all operations
}

// A FaultFunc may answer with what shall go wrong in a request, or nil. It is called from
// several requests at a time.
type FaultFunc func(r Request) *Fault

// A Fault is what goes wrong in one request.
type Fault struct {
	// Delay comes before the work, or, with After, before the answer.
	Delay time.Duration
	// Err, if given, is the answer; with the status 0 it gets 500.
	Err *Error
	// Cut ends the connection instead of answering.
	Cut Cut
	// After lets the work be done before Err or Cut come into play.
	After bool
	// WrongChecksum answers with another CRC-64 than that of what was stored.
	WrongChecksum bool
}

// Cut is how a connection ends.
type Cut int

// The ways.
const (
	CutNone   Cut = iota
	CutSilent     // without a byte of an answer
	CutMiddle     // in the middle of the answer's body, or before it if it has none; the work is done
)

// SetFault replaces the function that makes requests go wrong; nil for none.
func (s *Server) SetFault(f FaultFunc) { s.fault.Store(&f) }

// Calls is the number of requests of an operation since the server began or ResetCalls;
// with "", of all operations.
func (s *Server) Calls(operation string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[operation]
}

// ResetCalls makes the counts begin anew.
func (s *Server) ResetCalls() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.calls)
}

// strike counts a request and asks what goes wrong in it.
func (s *Server) strike(c *call) *Fault {
	r := Request{Operation: c.operation, Bucket: c.bucket, Object: c.object}
	s.mu.Lock()
	r.N, r.Total = s.calls[c.operation], s.calls[""]
	s.calls[c.operation]++
	s.calls[""]++
	s.mu.Unlock()
	if f := *s.fault.Load(); f != nil {
		return f(r)
	}
	return nil
}

// misbehave serves a request with its fault.
func (c *call) misbehave(work func(*call) error) error {
	f := c.fault
	if !f.After {
		if err := c.wait(f.Delay); err != nil {
			return err
		}
	}
	if f.Err == nil && f.Cut == CutNone {
		if !f.After || f.Delay == 0 {
			return c.work(work)
		}
		w := &late{ResponseWriter: c.w, call: c}
		c.w = w
		return c.work(work)
	}
	if f.After || f.Cut == CutMiddle {
		answer := c.w
		switch {
		case f.Cut == CutMiddle:
			c.w = &half{ResponseWriter: answer}
		default:
			c.w = &dropped{header: http.Header{}}
		}
		if err := c.work(work); err != nil {
			c.w = answer
			return err
		}
		c.w = answer
		if err := c.wait(f.Delay); err != nil {
			return err
		}
	}
	if f.Cut != CutNone {
		panic(http.ErrAbortHandler)
	}
	err := *f.Err
	if err.Status == 0 {
		err.Status = http.StatusInternalServerError
	}
	return &err
}

// wait waits unless the client goes away.
func (c *call) wait(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-c.r.Context().Done():
		return errCut
	}
}

// dropped is an answer that nobody gets.
type dropped struct{ header http.Header }

func (d *dropped) Header() http.Header         { return d.header }
func (d *dropped) Write(p []byte) (int, error) { return len(p), nil }
func (d *dropped) WriteHeader(int)             {}

// late is an answer that comes after the fault's delay.
type late struct {
	http.ResponseWriter
	call *call
}

func (l *late) WriteHeader(status int) {
	// Who went away does not get it.
	_ = l.call.wait(l.call.fault.Delay)
	l.ResponseWriter.WriteHeader(status)
}

// half is an answer that breaks off in the middle of its body.
type half struct {
	http.ResponseWriter
	left int64
}

func (h *half) WriteHeader(status int) {
	length, _ := strconv.ParseInt(h.Header().Get("Content-Length"), 10, 64)
	h.left = length / 2
	h.ResponseWriter.WriteHeader(status)
}

func (h *half) Write(p []byte) (int, error) {
	n := min(int64(len(p)), h.left)
	if n > 0 {
		if _, err := h.ResponseWriter.Write(p[:n]); err != nil {
			return 0, err
		}
		h.left -= n
	}
	if n < int64(len(p)) {
		if f, ok := h.ResponseWriter.(http.Flusher); ok {
			f.Flush()
		}
		panic(http.ErrAbortHandler)
	}
	return len(p), nil
}
