package s3

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/tablevault/tablevault/shared/object"
)

// Open opens an object. A stream that breaks off is taken up again where it broke.
func (s *Store) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, object.Info, error) {
	if err := object.ValidName(name); err != nil {
		return nil, object.Info{}, fmt.Errorf("open: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, object.Info{}, fmt.Errorf("open %s: %w", name, err)
	}
	r, info, err := s.open(ctx, name, off, n)
	if err != nil {
		return nil, object.Info{}, fmt.Errorf("open %s: %w", name, err)
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
			return nil, info, errors.New("the store has no CRC-32C of the whole object: tablevault did not write it")
		}
		return http.NoBody, info, nil
	}
	body, info, tag, err := s.get(ctx, name, off, n, "")
	var rng *rangeError
	if errors.As(err, &rng) {
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

// rangeError is that the store has nothing at an offset.
type rangeError struct{ error }

func (e *rangeError) Unwrap() error { return e.error }

// get asks for n bytes from off on, or for all to the end if n < 0, of the object that has a tag, or of any.
func (s *Store) get(ctx context.Context, name string, off, n int64, tag string) (io.ReadCloser, object.Info, string, error) {
	input := &s3.GetObjectInput{Bucket: &s.config.Bucket, Key: s.key(name)}
	if tag != "" {
		input.IfMatch = &tag
	}
	switch last := off + n - 1; {
	case n < 0 && off > 0, n > 0 && last < off: // the end is beyond every object
		input.Range = aws.String(fmt.Sprintf("bytes=%d-", off))
	case n > 0:
		input.Range = aws.String(fmt.Sprintf("bytes=%d-%d", off, last))
	}
	// The answer's context lives as long as its body is read.
	bodyCtx, cancel := context.WithCancel(ctx)
	var out *s3.GetObjectOutput
	_, err := s.do(ctx, func(attempt context.Context) error {
		stop := context.AfterFunc(attempt, cancel)
		defer stop()
		var err error
		out, err = s.client.GetObject(bodyCtx, input)
		if _, status := codeOf(err); status == http.StatusRequestedRangeNotSatisfiable {
			err = &rangeError{err}
		}
		return err
	})
	if err != nil {
		cancel()
		return nil, object.Info{}, "", err
	}
	body := &stallReader{body: out.Body, cancel: cancel, limit: stallLimit}
	info := object.Info{Name: name, Modified: date(out.LastModified)}
	switch {
	case out.ContentRange != nil:
		var from, to int64
		if _, err := fmt.Sscanf(*out.ContentRange, "bytes %d-%d/%d", &from, &to, &info.Size); err != nil || from != off {
			body.Close()
			return nil, info, "", fmt.Errorf("asked for bytes from %d on, the store sent %q", off, *out.ContentRange)
		}
	case input.Range == nil && out.ContentLength != nil:
		info.Size = *out.ContentLength
	default:
		body.Close()
		return nil, info, "", errors.New("the store did not say how many bytes it sends, or from where")
	}
	return body, info, aws.ToString(out.ETag), nil
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
	if errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
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

// writerKey is where an object's metadata says which call of Create wrote it.
const writerKey = "tablevault-writer"

// head asks the store for an object's records, and returns who wrote it, too.
func (s *Store) head(ctx context.Context, name string) (info object.Info, writer string, err error) {
	var out *s3.HeadObjectOutput
	_, err = s.do(ctx, func(ctx context.Context) (err error) {
		out, err = s.client.HeadObject(ctx, &s3.HeadObjectInput{
			Bucket: &s.config.Bucket, Key: s.key(name), ChecksumMode: types.ChecksumModeEnabled,
		})
		if _, status := codeOf(err); status == http.StatusBadRequest || status == http.StatusForbidden {
			err = s.reason(ctx, name, err)
		}
		return err
	})
	if err != nil {
		return object.Info{}, "", err
	}
	info = object.Info{Name: name, Size: aws.ToInt64(out.ContentLength), Modified: date(out.LastModified)}
	if out.ChecksumCRC32C != nil && out.ChecksumType != types.ChecksumTypeComposite {
		if info.Checksum, err = checksum(*out.ChecksumCRC32C); err != nil {
			return object.Info{}, "", err
		}
	}
	return info, out.Metadata[writerKey], nil
}

// reason asks for the first byte of an object whose records were refused: the answer to HEAD has no body, and so does not
// say whether it was the token, the clock or the right to read.
func (s *Store) reason(ctx context.Context, name string, refused error) error {
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.config.Bucket, Key: s.key(name), Range: aws.String("bytes=0-0")})
	if err == nil {
		out.Body.Close()
	}
	if _, status := codeOf(err); err == nil || status == http.StatusRequestedRangeNotSatisfiable {
		return errors.New("the store refused an object's records and then sent the object")
	}
	if code, _ := codeOf(err); code == "" {
		return refused
	}
	return err
}

// checksum turns what the store calls a CRC-32C into what the port does.
func checksum(encoded string) (string, error) {
	sum, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(sum) != 4 {
		return "", fmt.Errorf("the store says that the CRC-32C is %q", encoded)
	}
	return "crc32c:" + hex.EncodeToString(sum), nil
}

// date is a date of the store, of which some answers have more than the seconds.
func date(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Second)
}

// List lists objects, a thousand with each request.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		if err := errors.Join(object.ValidPrefix(prefix), object.ValidPrefix(after)); err != nil {
			yield(object.Info{}, fmt.Errorf("list: %w", err))
			return
		}
		input := &s3.ListObjectsV2Input{Bucket: &s.config.Bucket, Prefix: s.key(prefix), MaxKeys: aws.Int32(int32(s.page))}
		if after != "" {
			input.StartAfter = s.key(after)
		}
		for {
			var page *s3.ListObjectsV2Output
			_, err := s.do(ctx, func(ctx context.Context) (err error) {
				page, err = s.client.ListObjectsV2(ctx, input)
				return err
			})
			if err != nil {
				yield(object.Info{}, fmt.Errorf("list %s: %w", prefix, err))
				return
			}
			for _, o := range page.Contents {
				if err := ctx.Err(); err != nil {
					yield(object.Info{}, fmt.Errorf("list %s: %w", prefix, err))
					return
				}
				name := aws.ToString(o.Key)[min(len(s.prefix), len(aws.ToString(o.Key))):]
				if object.ValidName(name) != nil {
					continue // a folder that a console made, or another's object
				}
				if !yield(object.Info{Name: name, Size: aws.ToInt64(o.Size), Modified: date(o.LastModified)}, nil) {
					return
				}
			}
			if !aws.ToBool(page.IsTruncated) {
				break
			}
			if aws.ToString(page.NextContinuationToken) == "" {
				yield(object.Info{}, fmt.Errorf("list %s: the store says that there is more, and not where", prefix))
				return
			}
			input.ContinuationToken, input.StartAfter = page.NextContinuationToken, nil
		}
		if err := ctx.Err(); err != nil {
			yield(object.Info{}, fmt.Errorf("list %s: %w", prefix, err))
		}
	}
}
