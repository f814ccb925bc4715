package ots

import (
	"bytes"
	"cmp"
	"compress/zlib"
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tablevault/tablevault/local/ots/engine"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// maxBody is the largest request.
const maxBody = 5 << 20

// A call is one request on its way.
type call struct {
	server *Server
	ctx    context.Context // the request's
	op     string
	path   string
	header http.Header
	key    *Key // nil until the request is known to be the key's
	body   []byte
	whole  bool // the body was read to its end
	fault  *Fault
	answer []byte // from start on
	start  int
	frame  *frame
}

// A frame is the memory of a call, used again by later ones.
type frame struct {
	body    []byte
	sum     summing
	answer  []byte
	batch   batchRequest
	scanner plainbuffer.Scanner
	survey  engine.Survey
	changes []engine.Change
	groups  []engine.Group
	table   []byte // parts of an answer
	row     []byte
}

var frames = sync.Pool{New: func() any { return new(frame) }}

// maxFrame is the most memory that is kept of a call.
const maxFrame = 16 << 20

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.working.Add(1)
	defer s.working.Done()
	f := frames.Get().(*frame)
	f.scanner.Reset(nil) // what it knows is of the memory of an earlier call
	c := &call{server: s, ctx: r.Context(), path: r.URL.Path, op: strings.TrimPrefix(r.URL.Path, "/"), header: r.Header, frame: f}
	err := c.read(r)
	if err == nil {
		err = c.serve()
	}
	c.reply(w, r, err)
	if cap(f.body)+cap(f.answer) <= maxFrame {
		frames.Put(f)
	}
}

// read takes in the request and checks all that does not depend on its operation.
func (c *call) read(r *http.Request) *engine.Error {
	if r.Method != http.MethodPost {
		return engine.Refusal(engine.CodeMethodNotAllowed)
	}
	for _, name := range []string{headerDate, headerVersion, headerKeyID, headerInstance, headerMD5} {
		if c.header.Get(name) == "" {
			return invalid("Missing header: '%s'.", strings.ToLower(name))
		}
	}
	if c.header.Get(headerSignature) == "" && c.header.Get(headerSignatureV4) == "" {
		return invalid("Missing header: '%s'.", strings.ToLower(headerSignature))
	}
	if v := c.header.Get(headerVersion); v != "2015-12-31" && !strings.HasPrefix(c.path, "/tunnel/") {
		return invalid("Unsupported api version: '%s'.", v)
	}
	if r.ContentLength > maxBody {
		return engine.Refusal(engine.CodeRequestTooLarge)
	}
	if err := c.readBody(r); err != nil {
		return err
	}
	if err := c.authenticate(); err != nil {
		return err
	}
	sum := c.server.sums.sum(c.body, &c.frame.sum)
	if got := base64.StdEncoding.EncodeToString(sum[:]); got != c.header.Get(headerMD5) {
		return denied("Mismatch between MD5 value of request body and x-ots-contentmd5 in header.")
	}
	return c.inflate()
}

func (c *call) readBody(r *http.Request) *engine.Error {
	buf := c.frame.body[:0]
	// A byte more than the body, so that its end is seen without growing.
	if n := int(r.ContentLength) + 1; n > cap(buf) {
		buf = make([]byte, 0, n)
	}
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if len(buf) > maxBody {
			return engine.Refusal(engine.CodeRequestTooLarge)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return engine.Refusal(engine.CodeRequestTimeout)
		}
	}
	c.frame.body, c.body, c.whole = buf, buf, true
	return nil
}

func denied(format string, args ...any) *engine.Error {
	return &engine.Error{Code: engine.CodeAuthFailed, Message: fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) *engine.Error {
	return &engine.Error{Code: engine.CodeParameterInvalid, Message: fmt.Sprintf(format, args...)}
}

// authenticate finds out whose request it is.
func (c *call) authenticate() *engine.Error {
	s := c.server
	key, ok := s.key(c.header.Get(headerKeyID))
	if !ok {
		return denied("The AccessKeyID does not exist.")
	}
	if !signedWell(c.path, c.header, key.Secret) {
		return denied("Signature mismatch.")
	}
	c.key = &key
	if c.header.Get(headerToken) != key.Token {
		return denied("The security token is invalid.")
	}
	now := s.now()
	if !key.Expires.IsZero() && !now.Before(key.Expires) {
		return denied("The security token is expired.")
	}
	given := c.header.Get(headerDate)
	date, err := time.Parse("2006-01-02T15:04:05Z", given)
	if err != nil {
		return invalid("Invalid date format: '%s'.", given)
	}
	skew := s.config.MaxSkew
	if skew == 0 && s.config.Now == nil {
		skew = 15 * time.Minute
	}
	if off := now.Sub(date).Abs(); skew > 0 && off > skew {
		return denied("Mismatch between system time and x-ots-date: %s.", given)
	}
	if c.header.Get(headerSignatureV4) != "" {
		day := c.header.Get(headerSignDate)
		if day != date.UTC().Format("20060102") {
			return denied("Mismatch between x-ots-signdate: %s and x-ots-date: %s.", day, given)
		}
	}
	instance := c.header.Get(headerInstance)
	for _, name := range s.config.Instances {
		if name == instance {
			return nil
		}
	}
	if len(s.config.Instances) > 0 {
		return denied("The instance is not found.")
	}
	return nil
}

// inflate undoes the request's compression.
func (c *call) inflate() *engine.Error {
	switch kind := c.header.Get(headerZip); kind {
	case "":
		return nil
	case "deflate":
	default:
		return invalid("Unsupported compress type: '%s'.", kind)
	}
	size, err := strconv.Atoi(c.header.Get(headerZipSize))
	if err != nil || size < 0 {
		return invalid("Invalid header: '%s'.", strings.ToLower(headerZipSize))
	}
	if size > maxBody {
		return engine.Refusal(engine.CodeRequestTooLarge)
	}
	z, err := zlib.NewReader(bytes.NewReader(c.body))
	if err != nil {
		return invalid("Invalid compressed body: %v.", err)
	}
	raw, err := io.ReadAll(io.LimitReader(z, int64(size)+1))
	if err != nil {
		return invalid("Invalid compressed body: %v.", err)
	}
	if len(raw) != size {
		return invalid("Invalid compressed body: it holds %d bytes, the header says %d.", len(raw), size)
	}
	c.body = raw
	return nil
}

// enterAny is enter for a request that may be of no table, "".
func (c *call) enterAny(table string) *engine.Error {
	if table == "" {
		return c.enter()
	}
	return c.enter(table)
}

// enter is called by each operation once it knows its tables: it asks for permission and
// lets a fault strike.
func (c *call) enter(tables ...string) *engine.Error {
	first := ""
	if len(tables) > 0 {
		first = tables[0]
	}
	for _, rule := range c.key.Deny {
		if len(tables) == 0 && rule.matches(c.op, "") {
			return engine.Refusal(engine.CodeNoPermission)
		}
		for _, t := range tables {
			if rule.matches(c.op, t) {
				return engine.Refusal(engine.CodeNoPermission)
			}
		}
	}
	if err := c.authorize(tables); err != nil {
		return err
	}
	n := c.server.count(c.op)
	f := *c.server.fault.Load()
	if f == nil {
		return nil
	}
	if c.fault = f(c.op, first, n); c.fault == nil {
		return nil
	}
	if c.fault.Delay > 0 {
		wait := time.NewTimer(c.fault.Delay)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-c.ctx.Done():
			// Nobody waits for the answer any more.
			return engine.Refusal(engine.CodeRequestTimeout)
		}
	}
	if !c.fault.After && c.fault.Cut != CutMiddle && (c.fault.Err != nil || c.fault.Cut != CutNone) {
		return c.faultError()
	}
	return nil
}

func (c *call) faultError() *engine.Error {
	if c.fault.Err != nil {
		return c.fault.Err
	}
	return &engine.Error{Code: engine.CodeInternal, Message: "The connection is cut."}
}

// reply sends the answer.
func (c *call) reply(w http.ResponseWriter, r *http.Request, err *engine.Error) {
	body, status := c.answer[c.start:], http.StatusOK
	if err == nil && c.fault != nil && c.fault.Err != nil {
		err = c.fault.Err
	}
	if err != nil {
		status = cmp.Or(c.server.config.Statuses[err.Code], statusOf(err))
		body = appendError(nil, err)
	}
	if f := c.fault; f != nil {
		if f.Cut == CutSilent {
			panic(http.ErrAbortHandler)
		}
		if f.Status != 0 {
			status = f.Status
		}
		if f.Body != nil {
			body = f.Body
		}
	}
	if c.header.Get(headerAnswerZip) == "deflate" && status == http.StatusOK && len(body) > 0 {
		if zipped, size := deflate(body), len(body); len(zipped) < size {
			body = zipped
			w.Header().Set(headerAnswerZip, "deflate")
			w.Header().Set(headerAnswerSize, strconv.Itoa(size))
		}
	}
	h := w.Header()
	h.Set(headerRequestID, requestID())
	h.Set(headerContentType, cmp.Or(c.server.config.ContentType, "protocol buffer"))
	h.Set(headerDate, c.server.now().UTC().Format("2006-01-02T15:04:05.000000Z"))
	h.Set("Content-Type", "application/x-protobuf")
	if c.sums(len(body)) {
		sum := md5.Sum(body)
		h.Set(headerMD5, base64.StdEncoding.EncodeToString(sum[:]))
	}
	if c.key != nil {
		h.Set("Authorization", "OTS "+c.key.ID+":"+c.signature(h))
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if !c.whole {
		// What is left of the body stands in the way of another request.
		h.Set("Connection", "close")
	}
	w.WriteHeader(status)
	if c.fault != nil && c.fault.Cut == CutMiddle {
		_, _ = w.Write(body[:len(body)/2])
		if flusher, ok := w.(http.Flusher); ok {
			flusher.Flush()
		}
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body)
}

// signature signs an answer, whose headers are complete.
func (c *call) signature(h http.Header) string {
	if c.server.config.SignV4Answers && c.header.Get(headerSignatureV4) != "" {
		return answerSignatureV4(c.path, h, signingKey(c.key.Secret, c.header.Get(headerSignDate), c.header.Get(headerRegion)))
	}
	return answerSignature(c.path, h, c.key.Secret)
}

// smallAnswer is the size up to which the checksum costs nothing worth saving.
const smallAnswer = 64 << 10

func (c *call) sums(size int) bool {
	switch c.server.config.AnswerMD5 {
	case AnswerMD5Always:
		return true
	case AnswerMD5Never:
		return false
	}
	return size <= smallAnswer || !strings.HasPrefix(c.header.Get("User-Agent"), "aliyun-tablestore-sdk-golang")
}

func deflate(b []byte) []byte {
	var out bytes.Buffer
	z := zlib.NewWriter(&out)
	_, _ = z.Write(b)
	_ = z.Close()
	return out.Bytes()
}

// requestID is a random UUID.
func requestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0F|0x40, b[8]&0x3F|0x80
	text := make([]byte, 0, 36)
	for i, part := range [][]byte{b[:4], b[4:6], b[6:8], b[8:10], b[10:]} {
		if i > 0 {
			text = append(text, '-')
		}
		text = hex.AppendEncode(text, part)
	}
	return string(text)
}

// statusOf is the HTTP status of an error.
func statusOf(err *engine.Error) int {
	switch err.Code {
	case engine.CodeAuthFailed, engine.CodeNoPermission, engine.CodeConditionCheckFail, engine.CodeQuotaExhausted,
		engine.CodeNotEnoughCapacity, engine.CodeCapacityExhausted, engine.CodeOperationThrottled, engine.CodeThroughputTooOften:
		return http.StatusForbidden
	case engine.CodeObjectNotExist, engine.CodeTableNotReady, engine.CodeTrimmedData, engine.CodeSessionNotExist:
		return http.StatusNotFound
	case engine.CodeObjectAlreadyExist, engine.CodeRowConflict, engine.CodeSessionBusy:
		return http.StatusConflict
	case engine.CodeRequestTooLarge:
		return http.StatusRequestEntityTooLarge
	case engine.CodeRequestTimeout:
		return http.StatusRequestTimeout
	case engine.CodeMethodNotAllowed:
		return http.StatusMethodNotAllowed
	case engine.CodeFlowControl:
		return http.StatusTooManyRequests
	case engine.CodeInternal:
		return http.StatusInternalServerError
	case engine.CodePartitionNotReady, engine.CodeServerBusy, engine.CodeStorageServerBusy, engine.CodeServerUnavailable, engine.CodeTimeout:
		return http.StatusServiceUnavailable
	}
	return http.StatusBadRequest
}
