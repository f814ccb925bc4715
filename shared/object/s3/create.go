package s3

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/bucket"
	"github.com/tablevault/tablevault/shared/object/crc"
	"github.com/tablevault/tablevault/shared/object/multipart"
)

// Create creates an object, in one request if it is short and in parts if it is long. The
// store refuses it if the name is taken, and refuses every part that came in other than
// it was sent; the whole is compared with what the store says about it afterwards.
func (s *Store) Create(ctx context.Context, name string, r io.Reader) (object.Info, error) {
	if err := object.Check(ctx, "create", name, ""); err != nil {
		return object.Info{}, err
	}
	t := &creation{s: s, name: name, writer: bucket.NewWriter(), sums: map[int]uint32{}}
	size, err := s.uploads.Upload(ctx, r, t)
	if t.strays {
		// An upload whose id was lost can only be found by its object's name.
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), bucket.AbortTimeout)
		defer cancel()
		if serr := t.abortUploads(within); serr != nil && err != nil {
			err = fmt.Errorf("%w; and an upload may be left behind: %w", err, serr)
		}
	}
	if err != nil {
		return object.Info{}, fmt.Errorf("create %s: %w", name, err)
	}
	if t.unread() {
		return object.Info{Name: name, Size: size, Checksum: checksum(t.sum)}, nil
	}
	info, _, err := s.head(ctx, name)
	switch streamed := checksum(t.sum); {
	case errors.Is(err, fs.ErrNotExist):
		return object.Info{}, fmt.Errorf("create %s: the store took it, and does not have it", name)
	case err != nil:
		return object.Info{}, fmt.Errorf("create %s: the store took it; ask what it has: %w", name, err)
	case info.Size != size || info.Checksum != streamed:
		return object.Info{}, fmt.Errorf("create %s: the store has %d bytes with the checksum %q, streamed were %d with %s",
			name, info.Size, info.Checksum, size, streamed)
	}
	return info, nil
}

// creation is one object that is being created.
type creation struct {
	s      *Store
	name   string
	writer string // random, and kept with the object, so that it is known whose it is
	sum    uint32 // of the whole, once it was sent
	strays bool   // there may be an upload of which the id is not known

	mu   sync.Mutex
	sums map[int]uint32 // of the parts by their numbers
}

var _ multipart.Creation = (*creation)(nil)

func (t *creation) unread() bool { return t.s.config.Unread != nil && t.s.config.Unread(t.name) }

// Put stores the object in one request.
func (t *creation) Put(ctx context.Context, body *multipart.Body) error {
	s := t.s
	sum := crc32.New(castagnoli)
	if _, err := body.WriteTo(sum); err != nil {
		return err
	}
	t.sum = sum.Sum32()
	input := &s3.PutObjectInput{
		Bucket: &s.config.Bucket, Key: s.key(t.name), IfNoneMatch: aws.String("*"),
		ContentLength: aws.Int64(body.Size()), ChecksumCRC32C: encode(t.sum),
		Metadata: map[string]string{bucket.WriterKey: t.writer},
	}
	input.ServerSideEncryption, input.SSEKMSKeyId = s.config.encryption()
	input.StorageClass = s.config.class(t.name)
	input.ObjectLockMode, input.ObjectLockRetainUntilDate = s.config.retention()
	doubt, err := s.do(ctx, func(ctx context.Context) error {
		input.Body = body.Reader()
		_, err := s.client.PutObject(ctx, input)
		return err
	})
	return t.settle(ctx, doubt, err)
}

// Begin begins an upload.
func (t *creation) Begin(ctx context.Context) (string, error) {
	s := t.s
	input := &s3.CreateMultipartUploadInput{
		Bucket: &s.config.Bucket, Key: s.key(t.name),
		ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c, ChecksumType: types.ChecksumTypeFullObject,
		Metadata: map[string]string{bucket.WriterKey: t.writer},
	}
	input.ServerSideEncryption, input.SSEKMSKeyId = s.config.encryption()
	input.StorageClass = s.config.class(t.name)
	input.ObjectLockMode, input.ObjectLockRetainUntilDate = s.config.retention()
	var out *s3.CreateMultipartUploadOutput
	doubt, err := s.do(ctx, func(ctx context.Context) (err error) {
		out, err = s.client.CreateMultipartUpload(ctx, input)
		return err
	})
	t.strays = doubt
	if err != nil {
		return "", fmt.Errorf("begin an upload: %w", err)
	}
	return aws.ToString(out.UploadId), nil
}

// Part stores a part. A part that is stored twice, since an answer was lost, is the same
// part.
func (t *creation) Part(ctx context.Context, upload string, number int, body *multipart.Body) (string, error) {
	s := t.s
	sum := crc32.New(castagnoli)
	if _, err := body.WriteTo(sum); err != nil {
		return "", err
	}
	var out *s3.UploadPartOutput
	_, err := s.do(ctx, func(ctx context.Context) (err error) {
		out, err = s.client.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: &s.config.Bucket, Key: s.key(t.name), UploadId: &upload, PartNumber: aws.Int32(int32(number)),
			ContentLength: aws.Int64(body.Size()), ChecksumCRC32C: encode(sum.Sum32()), Body: body.Reader(),
		})
		return err
	})
	if err != nil {
		return "", fmt.Errorf("part %d: %w", number, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sums[number] = sum.Sum32()
	return aws.ToString(out.ETag), nil
}

// Complete makes the parts the object.
func (t *creation) Complete(ctx context.Context, upload string, parts []multipart.Part) error {
	s := t.s
	var size int64
	t.sum = 0
	completed := make([]types.CompletedPart, len(parts))
	for i, p := range parts {
		size += p.Size
		t.sum = crc.Combine(crc32.Castagnoli, t.sum, t.sums[p.Number], p.Size)
		completed[i] = types.CompletedPart{PartNumber: aws.Int32(int32(p.Number)), ETag: &p.Tag, ChecksumCRC32C: encode(t.sums[p.Number])}
	}
	doubt, err := s.do(ctx, func(ctx context.Context) error {
		_, err := s.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: &s.config.Bucket, Key: s.key(t.name), UploadId: &upload, IfNoneMatch: aws.String("*"),
			ChecksumCRC32C: encode(t.sum), ChecksumType: types.ChecksumTypeFullObject, MpuObjectSize: &size,
			MultipartUpload: &types.CompletedMultipartUpload{Parts: completed},
		})
		return err
	})
	if errors.Is(err, errNoUpload) && !t.unread() {
		// Either an earlier attempt completed it, or another's object came first and the
		// store dropped the upload.
		doubt = true
	}
	return t.settle(ctx, doubt, err)
}

// settle finds out who has the name, if the answers leave open whether this call has it.
func (t *creation) settle(ctx context.Context, doubt bool, err error) error {
	if t.unread() {
		if doubt && (errors.Is(err, fs.ErrExist) || errors.Is(err, errNoUpload)) {
			return nil // an earlier attempt took the name, or completed the upload
		}
		return err
	}
	return bucket.Settle(ctx, doubt, err, t.writer, func() (string, error) {
		_, writer, err := t.s.head(ctx, t.name)
		return writer, err
	})
}

// Abort gives an upload up, and makes sure that no part which was on its way outlives it.
func (t *creation) Abort(ctx context.Context, upload string) error {
	return t.s.abort(ctx, t.name, upload)
}

// abortUploads gives up whatever uploads of the object there are. One of another writer
// of the same name loses its parts too, and is told so: it would have lost the name, or
// both fail and try again.
func (t *creation) abortUploads(ctx context.Context) error {
	for upload, err := range t.s.unfinished(ctx, *t.s.key(t.name)) {
		if err != nil {
			return err
		}
		if upload.Name != t.name {
			continue
		}
		if err := t.s.abort(ctx, upload.Name, upload.ID); err != nil {
			return err
		}
	}
	return nil
}

// abort gives an upload up with all its parts. That there is none is no error.
func (s *Store) abort(ctx context.Context, name, upload string) error {
	for {
		_, err := s.do(ctx, func(ctx context.Context) error {
			_, err := s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{
				Bucket: &s.config.Bucket, Key: s.key(name), UploadId: &upload,
			})
			return err
		})
		if err != nil && !errors.Is(err, errNoUpload) {
			return fmt.Errorf("abort the upload of %s: %w", name, err)
		}
		// A part that was on its way while the upload was aborted can outlive it.
		_, err = s.do(ctx, func(ctx context.Context) error {
			_, err := s.client.ListParts(ctx, &s3.ListPartsInput{Bucket: &s.config.Bucket, Key: s.key(name), UploadId: &upload, MaxParts: aws.Int32(1)})
			return err
		})
		if errors.Is(err, errNoUpload) || errors.Is(err, fs.ErrPermission) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("ask for the parts of %s: %w", name, err)
		}
	}
}

func (c Config) encryption() (types.ServerSideEncryption, *string) {
	if c.KMSKey == "" {
		return "", nil
	}
	return types.ServerSideEncryptionAwsKms, &c.KMSKey
}

func (c Config) class(name string) types.StorageClass {
	if c.Cold == nil || !c.Cold(name) {
		return ""
	}
	return types.StorageClass(c.StorageClass)
}

func (c Config) retention() (types.ObjectLockMode, *time.Time) {
	if c.Lock == "" {
		return "", nil
	}
	return types.ObjectLockMode(c.Lock), aws.Time(time.Now().Add(c.Retain).UTC().Truncate(time.Second))
}
