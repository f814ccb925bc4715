package oss

import (
	"context"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"strconv"
	"time"

	"github.com/aliyun/aliyun-oss-go-sdk/oss"

	"github.com/tablevault/tablevault/shared/object"
)

// Open opens an object. A stream that breaks off is taken up again where it broke.
func (s *Store) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, object.Info, error) {
	if err := s.check(ctx, "open", name); err != nil {
		return nil, object.Info{}, err
	}
	r, info, err := s.open(ctx, name, off, n)
	if err != nil {
		return nil, object.Info{}, fmt.Errorf("open %s in %s: %w", name, s, err)
	}
	return r, info, nil
}

func (s *Store) open(ctx context.Context, name string, off, n int64) (io.ReadCloser, object.Info, error) {
	if n == 0 || off < 0 {
		info, _, err := s.head(ctx, name)
		switch {
		case err != nil:
			return nil, info, err
		case off < 0 || off > info.Size:
			return nil, info, outside(off, info.Size)
		case info.Checksum == "":
			info.Checksum, err = s.compute(ctx, name, info.Size)
		}
		return http.NoBody, info, err
	}
	body, info, tag, err := s.get(ctx, name, off, n, "")
	if errors.Is(err, errRange) {
		// Nothing begins there: the object ends there, or before.
		info, _, err := s.head(ctx, name)
		switch {
		case err != nil:
			return nil, info, err
		case off > info.Size:
			return nil, info, outside(off, info.Size)
		case off < info.Size:
			return nil, info, fmt.Errorf("the store refused to read from byte %d of %d", off, info.Size)
		}
		return http.NoBody, info, nil
	}
	if err != nil {
		return nil, info, err
	}
	left := info.Size - off
	if n > 0 {
		left = min(left, n)
	}
	return &reader{s: s, ctx: ctx, name: name, off: off, left: left, tag: tag, body: body}, info, nil
}

func outside(off, size int64) error {
	return fmt.Errorf("%w: %d of %d bytes", object.ErrRange, off, size)
}

// compute reads an object of which the store has no checksum, as it has of some that were copied.
func (s *Store) compute(ctx context.Context, name string, size int64) (string, error) {
	if size == 0 {
		return checksum(0), nil
	}
	body, _, err := s.open(ctx, name, 0, -1)
	if err != nil {
		return "", err
	}
	defer body.Close()
	sum := crc64.New(ecma)
	if _, err := io.Copy(sum, body); err != nil {
		return "", err
	}
	return checksum(sum.Sum64()), nil
}

// get asks for n bytes from off on, or for all to the end if n < 0, of the object that has a tag, or of any. The error
// matches errRange if nothing begins there.
func (s *Store) get(ctx context.Context, name string, off, n int64, tag string) (io.ReadCloser, object.Info, string, error) {
	var options []oss.Option
	if tag != "" {
		options = append(options, oss.IfMatch(tag))
	}
	// Without the standard's behaviour, the store answers a range beyond the end with the whole object.
	ranged := true
	switch last := off + n - 1; {
	case n < 0 && off > 0, n > 0 && last < off: // the end is beyond every object
		options = append(options, oss.NormalizedRange(strconv.FormatInt(off, 10)+"-"), oss.RangeBehavior("standard"))
	case n > 0:
		options = append(options, oss.Range(off, last), oss.RangeBehavior("standard"))
	default:
		ranged = false
	}
	// The answer's context lives as long as its body is read.
	bodyCtx, cancel := context.WithCancel(ctx)
	var out *oss.Response
	_, err := s.do(ctx, name, func(attempt context.Context, b *oss.Bucket) error {
		stop := context.AfterFunc(attempt, cancel)
		defer stop()
		got, err := b.DoGetObject(&oss.GetObjectRequest{ObjectKey: s.key(name)}, append(options, oss.WithContext(bodyCtx)))
		switch _, status := codeOf(err); {
		case status == http.StatusRequestedRangeNotSatisfiable:
			return fmt.Errorf("%w: %w", errRange, brief(err))
		case status == http.StatusPreconditionFailed:
			return fmt.Errorf("%w: %w", errChanged, brief(err))
		case err != nil:
			return err
		}
		out = got.Response
		return nil
	})
	if err != nil {
		cancel()
		return nil, object.Info{}, "", err
	}
	body := &stallReader{body: out.Body, cancel: cancel, limit: stallLimit}
	info := object.Info{Name: name}
	fail := func(err error) (io.ReadCloser, object.Info, string, error) {
		body.Close()
		return nil, object.Info{}, "", err
	}
	if info.Modified, err = modified(out.Headers); err != nil {
		return fail(err)
	}
	if !ranged {
		if info.Size, err = strconv.ParseInt(out.Headers.Get("Content-Length"), 10, 64); err != nil || info.Size < 0 {
			return fail(errors.New("the store did not say how many bytes it sends"))
		}
		return body, info, out.Headers.Get("ETag"), nil
	}
	var from, to int64
	told := out.Headers.Get("Content-Range")
	if _, err := fmt.Sscanf(told, "bytes %d-%d/%d", &from, &to, &info.Size); err != nil || from != off || info.Size <= off {
		return fail(fmt.Errorf("asked for bytes from %d on, the store sent %q", off, told))
	}
	return body, info, out.Headers.Get("ETag"), nil
}

// reader reads a part of an object, and asks for the rest when the stream breaks off.
type reader struct {
	s    *Store
	ctx  context.Context
	name string
	off  int64
	left int64
	tag  string
	body io.ReadCloser // nil after it broke
	// broken counts the streams in a row that broke before they delivered anything.
	broken int
	err    error
}

func (r *reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if err := r.ctx.Err(); err != nil {
		r.err = fmt.Errorf("read %s: %w", r.name, err)
		return 0, r.err
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	if r.body == nil {
		body, _, _, err := r.s.get(r.ctx, r.name, r.off, r.left, r.tag)
		if err != nil {
			r.err = fmt.Errorf("read %s from byte %d on: %w", r.name, r.off, gone(err))
			return 0, r.err
		}
		r.body = body
	}
	n, err := r.body.Read(p[:min(int64(len(p)), r.left)])
	r.off += int64(n)
	r.left -= int64(n)
	if n > 0 {
		r.broken = 0
	}
	if r.left == 0 || err == nil {
		return n, nil
	}
	// It broke off. What was delivered is right; the rest is asked for with the next Read.
	r.body.Close()
	r.body = nil
	if cause := r.ctx.Err(); cause != nil {
		r.err = fmt.Errorf("read %s: %w", r.name, cause)
		return n, r.err
	}
	if r.broken++; r.broken >= r.s.retry.attempts {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		r.err = fmt.Errorf("read %s from byte %d on: %d streams broke off: %w", r.name, r.off, r.broken, err)
		return n, r.err
	}
	return n, nil
}

// gone says that what is asked for anew is not what was opened.
func gone(err error) error {
	if errors.Is(err, errChanged) || errors.Is(err, errRange) || errors.Is(err, fs.ErrNotExist) {
		return errors.New("the object was deleted meanwhile")
	}
	return err
}

func (r *reader) Close() error {
	if r.err == nil {
		r.err = fmt.Errorf("read %s: %w", r.name, fs.ErrClosed)
	}
	if r.body == nil {
		return nil
	}
	body := r.body
	r.body = nil
	// What the store still says, having been hung up on, does not matter any more.
	body.Close()
	return nil
}

// stallLimit is how long a stream may deliver nothing before it counts as broken.
const stallLimit = time.Minute

// stallReader breaks a stream that delivers nothing for too long.
type stallReader struct {
	body   io.ReadCloser
	cancel context.CancelFunc
	limit  time.Duration
}

func (r *stallReader) Read(p []byte) (int, error) {
	timer := time.AfterFunc(r.limit, r.cancel)
	defer timer.Stop()
	return r.body.Read(p)
}

func (r *stallReader) Close() error {
	r.cancel()
	return r.body.Close()
}

// head asks the store for an object's records, and returns who wrote it, too.
func (s *Store) head(ctx context.Context, name string) (info object.Info, writer string, err error) {
	var answer http.Header
	_, err = s.do(ctx, name, func(ctx context.Context, b *oss.Bucket) (err error) {
		answer, err = b.GetObjectDetailedMeta(s.key(name), oss.WithContext(ctx))
		return err
	})
	if err != nil {
		return object.Info{}, "", err
	}
	info.Name = name
	if info.Size, err = strconv.ParseInt(answer.Get("Content-Length"), 10, 64); err != nil || info.Size < 0 {
		return object.Info{}, "", fmt.Errorf("the store says that it has %q bytes", answer.Get("Content-Length"))
	}
	if info.Modified, err = modified(answer); err != nil {
		return object.Info{}, "", err
	}
	if told := answer.Get(oss.HTTPHeaderOssCRC64); told != "" {
		sum, err := strconv.ParseUint(told, 10, 64)
		if err != nil {
			return object.Info{}, "", fmt.Errorf("the store says that the CRC-64 is %q", told)
		}
		info.Checksum = checksum(sum)
	}
	return info, answer.Get(oss.HTTPHeaderOssMetaPrefix + writerKey), nil
}

// modified is the date of an object in an answer, of which some have more than the seconds.
func modified(answer http.Header) (time.Time, error) {
	date, err := http.ParseTime(answer.Get("Last-Modified"))
	if err != nil {
		return time.Time{}, fmt.Errorf("the store says that it was modified %q", answer.Get("Last-Modified"))
	}
	return date.UTC(), nil
}

// List lists objects, a thousand with each request.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		if err := errors.Join(object.ValidPrefix(prefix), object.ValidPrefix(after)); err != nil {
			yield(object.Info{}, fmt.Errorf("list: %w", err))
			return
		}
		fail := func(err error) { yield(object.Info{}, fmt.Errorf("list %s in %s: %w", prefix, s, err)) }
		begin := []oss.Option{oss.MaxKeys(s.page)}
		if key := s.key(prefix); key != "" {
			begin = append(begin, oss.Prefix(key))
		}
		from := begin
		if after != "" {
			from = append(begin[:len(begin):len(begin)], oss.StartAfter(s.key(after)))
		}
		for {
			var page oss.ListObjectsResultV2
			_, err := s.do(ctx, "", func(ctx context.Context, b *oss.Bucket) (err error) {
				page, err = b.ListObjectsV2(append(from[:len(from):len(from)], oss.WithContext(ctx))...)
				return err
			})
			if err != nil {
				fail(err)
				return
			}
			for _, o := range page.Objects {
				if err := ctx.Err(); err != nil {
					fail(err)
					return
				}
				name := o.Key[min(len(s.prefix), len(o.Key)):]
				if object.ValidName(name) != nil {
					continue // a folder that a console made, or another's object
				}
				if !yield(object.Info{Name: name, Size: o.Size, Modified: o.LastModified.UTC().Truncate(time.Second)}, nil) {
					return
				}
			}
			if !page.IsTruncated {
				break
			}
			if len(page.Objects) == 0 {
				fail(errors.New("the store says that there is more, and not where"))
				return
			}
			// The SDK unescapes the token for the next page, which the service need not have escaped; a key is sure.
			from = append(begin[:len(begin):len(begin)], oss.StartAfter(page.Objects[len(page.Objects)-1].Key))
		}
		if err := ctx.Err(); err != nil {
			fail(err)
		}
	}
}
