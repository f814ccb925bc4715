package tablestore

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	protov1 "github.com/golang/protobuf/proto"
	"google.golang.org/protobuf/proto"

	"github.com/tablevault/tablevault/shared/retry"
)

// An answer is the service's to one request.
type answer struct {
	body []byte
	sum  string    // the service's checksum of the body, empty if it sent none
	time time.Time // the service's date, zero if it sent none
}

// tooLarge is an answer that the caller has no room for.
type tooLarge struct {
	size int64 // -1 if the service did not say
}

func (e *tooLarge) Error() string {
	return fmt.Sprintf("an answer of %d bytes, more than there is room for", e.size)
}

// maxAnswer bounds the answers that are not read into a buffer of the caller's.
const maxAnswer = 64 << 20

// attempt sends a request once. The answer is read into into, which grows up to limit
// bytes. body is not read any more when it returns.
func (c *Client) attempt(ctx context.Context, op, name string, body, into []byte, limit int) (answer, error) {
	creds, err := c.config.Credentials(ctx)
	if err != nil {
		return answer{}, fmt.Errorf("credentials for %s: %w", c, err)
	}
	// The transport may go on reading a body after it returned, until it closes it.
	var readers sync.WaitGroup
	defer readers.Wait()
	once, cancel := context.WithTimeoutCause(ctx, c.config.Retry.Attempt, fmt.Errorf("it took longer than %s", c.config.Retry.Attempt))
	defer cancel()
	open := func() (io.ReadCloser, error) {
		readers.Add(1)
		return &payload{Reader: bytes.NewReader(body), closed: sync.OnceFunc(readers.Done)}, nil
	}
	first, _ := open()
	r := (&http.Request{
		Method:        http.MethodPost,
		URL:           &url.URL{Scheme: c.endpoint.Scheme, Host: c.endpoint.Host, Path: "/" + op},
		Host:          c.endpoint.Host,
		Header:        c.header(op, body, creds, time.Now()),
		Body:          first,
		GetBody:       open,
		ContentLength: int64(len(body)),
	}).WithContext(once)
	res, err := c.config.Transport.RoundTrip(r)
	if err != nil {
		return answer{}, c.failed(ctx, once, op, name, err)
	}
	defer res.Body.Close()
	a := answer{time: serverTime(res.Header), sum: res.Header.Get("X-Ots-Contentmd5")}
	if res.StatusCode/100 != 2 {
		return a, c.refused(op, name, res)
	}
	a.body, err = readBody(res, into, limit)
	var large *tooLarge
	if errors.As(err, &large) {
		return a, err
	}
	if err != nil {
		return a, c.failed(ctx, once, op, name, err)
	}
	if len(a.body) <= smallAnswer {
		if err := a.verify(); err != nil {
			return a, c.broken(op, name, err)
		}
	}
	return a, nil
}

// smallAnswer is the size up to which every answer is held against its checksum. In pages
// of rows, which are larger, each row and the key that goes on have checksums of their
// own; see [scan.send] for what is left.
const smallAnswer = 64 << 10

// verify holds an answer against the service's checksum, if there is one.
func (a *answer) verify() error {
	if a.sum == "" {
		return nil
	}
	sum := md5.Sum(a.body)
	if got := base64.StdEncoding.EncodeToString(sum[:]); got != a.sum {
		return fmt.Errorf("%d bytes with the checksum %s, whose sender says %s", len(a.body), got, a.sum)
	}
	return nil
}

// payload is a request's body.
type payload struct {
	*bytes.Reader
	closed func()
}

func (p *payload) Close() error {
	p.closed()
	return nil
}

// failed is the error of an attempt that ended without an answer.
func (c *Client) failed(ctx, once context.Context, op, name string, err error) error {
	if ended := ctx.Err(); ended != nil {
		return fmt.Errorf("%s of table %q: %w", op, name, ended)
	}
	if once.Err() != nil {
		err = context.Cause(once)
	}
	return c.network(op, name, err)
}

// refused reads the error that an answer carries.
func (c *Client) refused(op, name string, res *http.Response) error {
	e := &Error{Op: op, Table: name, Status: res.StatusCode, RequestID: res.Header.Get("X-Ots-Requestid"), endpoint: c.endpoint.String()}
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return c.network(op, name, err)
	}
	var said otsprotocol.Error
	if err := protov1.Unmarshal(body, &said); err == nil && said.GetCode() != "" {
		e.Code, e.Message = said.GetCode(), said.GetMessage()
	} else {
		e.Message = string(body)
	}
	e.judge()
	return e
}

// readBody reads an answer into into, or into new memory if that is too small, and
// returns a *tooLarge if it has more than limit bytes.
func readBody(res *http.Response, into []byte, limit int) ([]byte, error) {
	if res.ContentLength > int64(limit) {
		return nil, &tooLarge{res.ContentLength}
	}
	b := into[:0]
	if n := int(res.ContentLength); n > cap(b) {
		b = make([]byte, 0, n)
	}
	for {
		room := b[len(b):min(cap(b), limit)]
		if len(room) == 0 && len(b) < limit {
			b = slices.Grow(b, 4<<10)
			continue
		}
		var spare [1]byte
		full := len(room) == 0
		if full {
			room = spare[:]
		}
		n, err := res.Body.Read(room)
		if full && n > 0 {
			return nil, &tooLarge{-1}
		}
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// serverTime is the date of an answer, whose fraction of a second may have any length.
func serverTime(h http.Header) time.Time {
	if t, err := time.Parse("2006-01-02T15:04:05Z", h.Get("X-Ots-Date")); err == nil {
		return t
	}
	t, _ := http.ParseTime(h.Get("Date"))
	return t
}

// ask sends a message until there is an answer or can be none. The answer is decoded into
// into, and its bytes are returned for what that does not know.
func (c *Client) ask(ctx context.Context, op, name string, request, into protov1.Message) (raw []byte, err error) {
	a, err := c.askDated(ctx, op, name, request, into)
	return a.body, err
}

// askDated is ask for whoever wants to know the answer's date, too.
func (c *Client) askDated(ctx context.Context, op, name string, request, into protov1.Message) (a answer, err error) {
	body, err := encode(request)
	if err != nil {
		return answer{}, fmt.Errorf("%s of table %q: %w", op, name, err)
	}
	_, err = c.do(ctx, func(*retry.Call) error {
		got, err := c.attempt(ctx, op, name, body, nil, maxAnswer)
		if err != nil {
			return err
		}
		if err := decode(got.body, into); err != nil {
			return c.broken(op, name, err)
		}
		a = got
		return nil
	})
	return a, err
}

// change is ask for what changes something, of which the answer says nothing more. doubt
// says that the change may have been made beside an error, or more than once.
func (c *Client) change(ctx context.Context, op, name string, request protov1.Message) (doubt bool, err error) {
	body, err := encode(request)
	if err != nil {
		return false, fmt.Errorf("%s of table %q: %w", op, name, err)
	}
	return c.send(ctx, op, name, body)
}

// send sends a request, of whose answer nothing is read, as change does.
func (c *Client) send(ctx context.Context, op, name string, body []byte) (doubt bool, err error) {
	return c.do(ctx, func(*retry.Call) error {
		_, err := c.attempt(ctx, op, name, body, nil, maxAnswer)
		return err
	})
}

func encode(m protov1.Message) ([]byte, error) { return proto.Marshal(protov1.MessageV2(m)) }

// decode reads a message and leaves it to its reader to miss fields.
func decode(b []byte, m protov1.Message) error {
	return proto.UnmarshalOptions{AllowPartial: true}.Unmarshal(b, protov1.MessageV2(m))
}
