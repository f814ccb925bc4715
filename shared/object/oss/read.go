package oss

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"
	"time"

	"github.com/aliyun/aliyun-oss-go-sdk/oss"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/bucket"
	"github.com/tablevault/tablevault/shared/object/crc"
)

// Open opens an object. A stream that breaks off is taken up again where it broke.
func (s *Store) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, object.Info, error) {
	if err := object.Check(ctx, "open", name, " in "+s.String()); err != nil {
		return nil, object.Info{}, err
	}
	r, info, err := s.open(ctx, name, off, n)
	if err != nil {
		return nil, object.Info{}, fmt.Errorf("open %s in %s: %w", name, s, err)
	}
	return r, info, nil
}

func (s *Store) open(ctx context.Context, name string, off, n int64) (io.ReadCloser, object.Info, error) {
	r, info, err := bucket.Open(ctx, source{s}, name, off, n, s.retry.Attempts)
	if err == nil && n == 0 && info.Checksum == "" {
		info.Checksum, err = s.compute(ctx, name, info.Size)
	}
	return r, info, err
}

// source is the bucket as it is read.
type source struct{ s *Store }

func (b source) Head(ctx context.Context, name string) (object.Info, error) {
	info, _, err := b.s.head(ctx, name)
	return info, err
}

// compute reads an object of which the store has no checksum, as it has of some that were
// copied.
func (s *Store) compute(ctx context.Context, name string, size int64) (string, error) {
	if size == 0 {
		return checksum(0), nil
	}
	body, _, err := s.open(ctx, name, 0, -1)
	if err != nil {
		return "", err
	}
	defer body.Close()
	var sum crc.Sum64
	if _, err := io.Copy(&sum, body); err != nil {
		return "", err
	}
	return checksum(uint64(sum)), nil
}

func (b source) Get(ctx context.Context, name string, off, n int64, tag string) (io.ReadCloser, object.Info, string, error) {
	s := b.s
	var options []oss.Option
	if tag != "" {
		options = append(options, oss.IfMatch(tag))
	}
	// Without the standard's behaviour, the store answers a range beyond the end with the
	// whole object.
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
			return fmt.Errorf("%w: %w", bucket.ErrRange, brief(err))
		case status == http.StatusPreconditionFailed:
			return fmt.Errorf("%w: %w", bucket.ErrChanged, brief(err))
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
	body := bucket.Body(out.Body, cancel)
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
	return info, answer.Get(oss.HTTPHeaderOssMetaPrefix + bucket.WriterKey), nil
}

// modified is the date of an object in an answer, of which some have more than the
// seconds.
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
			// The SDK unescapes the token for the next page, which the service need not
			// have escaped; a key is sure.
			from = append(begin[:len(begin):len(begin)], oss.StartAfter(page.Objects[len(page.Objects)-1].Key))
		}
		if err := ctx.Err(); err != nil {
			fail(err)
		}
	}
}
