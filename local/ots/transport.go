package ots

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
)

// RoundTrip serves a request without a network: the server can be the transport of a
// client. A connection that a fault cuts is an error that wraps io.ErrUnexpectedEOF; the
// URL's host does not matter.
//
//	config.Transport = server
func (s *Server) RoundTrip(r *http.Request) (res *http.Response, err error) {
	w := &recorder{header: http.Header{}}
	if r.Body == nil {
		r.Body = http.NoBody
	}
	defer r.Body.Close()
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			res, err = nil, fmt.Errorf("%s: the connection was cut: %w", r.URL.Path, io.ErrUnexpectedEOF)
		default:
			panic(p)
		}
	}()
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	s.ServeHTTP(w, r)
	return &http.Response{
		Status:        fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)),
		StatusCode:    w.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        w.header,
		Body:          io.NopCloser(&w.body),
		ContentLength: int64(w.body.Len()),
		Request:       r,
	}, nil
}

// A recorder keeps an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header         { return w.header }
func (w *recorder) WriteHeader(status int)      { w.status = status }
func (w *recorder) Write(b []byte) (int, error) { return w.body.Write(b) }
