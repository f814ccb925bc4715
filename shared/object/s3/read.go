package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/bucket"
)

// Open opens an object. A stream that breaks off is taken up again where it broke.
func (s *Store) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, object.Info, error) {
	if err := object.Check(ctx, "open", name, ""); err != nil {
		return nil, object.Info{}, err
	}
	r, info, err := s.open(ctx, name, off, n)
	if err != nil {
		return nil, object.Info{}, fmt.Errorf("open %s: %w", name, err)
	}
	return r, info, nil
}

func (s *Store) open(ctx context.Context, name string, off, n int64) (io.ReadCloser, object.Info, error) {
	r, info, err := bucket.Open(ctx, source{s}, name, off, n, s.retry.Attempts)
	if err == nil && n == 0 && info.Checksum == "" {
		err = errors.New("the store has no CRC-32C of the whole object: tablevault did not write it")
	}
	return r, info, err
}

// source is the bucket as it is read.
type source struct{ s *Store }

func (b source) Head(ctx context.Context, name string) (object.Info, error) {
	info, _, err := b.s.head(ctx, name)
	return info, err
}

func (b source) Get(ctx context.Context, name string, off, n int64, tag string) (io.ReadCloser, object.Info, string, error) {
	s := b.s
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
		switch _, status := codeOf(err); status {
		case http.StatusRequestedRangeNotSatisfiable:
			return fmt.Errorf("%w: %w", bucket.ErrRange, brief(err))
		case http.StatusPreconditionFailed:
			return fmt.Errorf("%w: %w", bucket.ErrChanged, brief(err))
		}
		return err
	})
	if err != nil {
		cancel()
		return nil, object.Info{}, "", err
	}
	body := bucket.Body(out.Body, cancel)
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
		if info.Checksum, err = decode(*out.ChecksumCRC32C); err != nil {
			return object.Info{}, "", err
		}
	}
	return info, out.Metadata[bucket.WriterKey], nil
}

// reason asks for the first byte of an object whose records were refused: the answer to
// HEAD has no body, and so does not say whether it was the token, the clock or the right
// to read.
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
