package oss

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"sync"

	"github.com/aliyun/aliyun-oss-go-sdk/oss"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/bucket"
	"github.com/tablevault/tablevault/shared/object/crc"
	"github.com/tablevault/tablevault/shared/object/multipart"
)

// Create creates an object, in one request if it is short and in parts if it is long. The
// store refuses it if the name is taken. A short body comes with its MD5, so that the
// store refuses it if it changed on its way; of each part the CRC-64 that the store
// answers is compared before the parts become the object; and the whole is compared with
// what the store says about it afterwards.
func (s *Store) Create(ctx context.Context, name string, r io.Reader) (object.Info, error) {
	if err := object.Check(ctx, "create", name, " in "+s.String()); err != nil {
		return object.Info{}, err
	}
	if s.readOnly != nil {
		return object.Info{}, fmt.Errorf("create %s in %s: %w", name, s, s.readOnly)
	}
	info, err := s.create(ctx, name, r)
	if err != nil {
		return object.Info{}, fmt.Errorf("create %s in %s: %w", name, s, err)
	}
	return info, nil
}

func (s *Store) create(ctx context.Context, name string, r io.Reader) (object.Info, error) {
	t := &creation{s: s, name: name, writer: bucket.NewWriter(), sums: map[int]uint64{}}
	size, err := s.uploads.Upload(ctx, r, t)
	if t.strays {
		// An upload whose id was lost can only be found by its object's name.
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), bucket.AbortTimeout)
		defer cancel()
		if serr := t.abortUploads(within, err == nil || errors.Is(err, fs.ErrExist)); serr != nil && err != nil {
			err = fmt.Errorf("%w; and an upload may be left behind: %w", err, serr)
		}
	}
	if err != nil {
		return object.Info{}, err
	}
	if t.unread() {
		return t.told(size)
	}
	return s.confirm(ctx, t, size)
}

// told compares an object that can't be asked about with what the store said when it took
// it. Where that answer was lost, the checksums of its parts, or of the body, are what is
// known.
func (t *creation) told(size int64) (object.Info, error) {
	streamed := checksum(t.sum)
	if t.said != "" && t.said != strconv.FormatUint(t.sum, 10) {
		return object.Info{}, fmt.Errorf("the store took something with the CRC-64 %s, streamed were %d bytes with %s", t.said, size, streamed)
	}
	return object.Info{Name: t.name, Size: size, Checksum: streamed}, nil
}

// confirm asks the store what it has, until that is what was streamed or has been
// something else several times.
func (s *Store) confirm(ctx context.Context, t *creation, size int64) (object.Info, error) {
	const looks = 3
	streamed := checksum(t.sum)
	for look := 1; ; look++ {
		info, writer, err := s.head(ctx, t.name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = errors.New("the store took it, and does not have it")
		case err != nil:
			return object.Info{}, fmt.Errorf("the store took it; ask what it has: %w", err)
		case info.Size == size && info.Checksum == streamed && writer == t.writer:
			return info, nil
		case writer != t.writer:
			err = errors.New("the store took it, and has another's in its place")
		default:
			err = fmt.Errorf("the store has %d bytes with the checksum %q, streamed were %d with %s", info.Size, info.Checksum, size, streamed)
		}
		if look == looks {
			return object.Info{}, err
		}
	}
}

// checksum is a CRC-64 as the port writes it.
func checksum(sum uint64) string { return fmt.Sprintf("crc64ecma:%016x", sum) }

// creation is one object that is being created.
type creation struct {
	s      *Store
	name   string
	writer string // random, and kept with the object, so that it is known whose it is
	sum    uint64 // of the whole, once it was sent
	said   string // the CRC-64 that the store answered when it took the whole; empty if that answer was lost
	strays bool   // there may be an upload of which the id is not known

	mu   sync.Mutex
	sums map[int]uint64 // of the parts by their numbers
}

var _ multipart.Creation = (*creation)(nil)

func (t *creation) unread() bool { return t.s.config.Unread != nil && t.s.config.Unread(t.name) }

// options are those of a request that begins an object.
func (t *creation) options(ctx context.Context, more ...oss.Option) []oss.Option {
	c := t.s.config
	options := append(more, oss.WithContext(ctx), oss.ForbidOverWrite(true), oss.ContentType("application/octet-stream"), oss.Meta(bucket.WriterKey, t.writer))
	if c.Encryption != "" {
		options = append(options, oss.ServerSideEncryption(c.Encryption))
	}
	if c.KMSKey != "" {
		options = append(options, oss.ServerSideEncryptionKeyID(c.KMSKey))
	}
	if c.StorageClass != "" && c.Cold != nil && c.Cold(t.name) {
		options = append(options, oss.ObjectStorageClass(oss.StorageClassType(c.StorageClass)))
	}
	return options
}

// Put stores the object in one request.
func (t *creation) Put(ctx context.Context, body *multipart.Body) error {
	digest, sum := md5.New(), crc.Sum64(0)
	if _, err := body.WriteTo(io.MultiWriter(digest, &sum)); err != nil {
		return err
	}
	t.sum = uint64(sum)
	var answer http.Header
	doubt, err := t.s.do(ctx, "", func(ctx context.Context, b *oss.Bucket) error {
		err := b.PutObject(t.s.key(t.name), sized(body), t.options(ctx, oss.GetResponseHeader(&answer),
			oss.ContentMD5(base64.StdEncoding.EncodeToString(digest.Sum(nil))))...)
		return versions(answer, err)
	})
	return t.settle(ctx, doubt, answer, err)
}

// sized is a reader of a body in a form whose length the SDK sees; otherwise it would
// send chunks.
func sized(body *multipart.Body) io.Reader {
	return &io.LimitedReader{R: body.Reader(), N: body.Size()}
}

// versions refuses an answer that tells of a version.
func versions(answer http.Header, err error) error {
	if err == nil && answer.Get("X-Oss-Version-Id") != "" {
		return ErrVersions
	}
	return err
}

// Begin begins an upload.
func (t *creation) Begin(ctx context.Context) (string, error) {
	var begun oss.InitiateMultipartUploadResult
	doubt, err := t.s.do(ctx, "", func(ctx context.Context, b *oss.Bucket) (err error) {
		begun, err = b.InitiateMultipartUpload(t.s.key(t.name), t.options(ctx)...)
		if err == nil && begun.UploadID == "" {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
	t.strays = doubt
	switch {
	case errors.Is(err, fs.ErrExist):
		return "", err
	case err != nil:
		return "", fmt.Errorf("begin an upload: %w", err)
	}
	return begun.UploadID, nil
}

// Part stores a part. A part that is stored twice, since an answer was lost or told of
// other bytes, is the same part.
func (t *creation) Part(ctx context.Context, upload string, number int, body *multipart.Body) (string, error) {
	var sum crc.Sum64
	if _, err := body.WriteTo(&sum); err != nil {
		return "", err
	}
	var part oss.UploadPart
	_, err := t.s.do(ctx, "", func(ctx context.Context, b *oss.Bucket) (err error) {
		var answer http.Header
		part, err = b.UploadPart(t.upload(upload), body.Reader(), body.Size(), number, oss.WithContext(ctx), oss.GetResponseHeader(&answer))
		if err != nil {
			return err
		}
		if has := answer.Get(oss.HTTPHeaderOssCRC64); has != strconv.FormatUint(uint64(sum), 10) {
			return fmt.Errorf("%w: their CRC-64 is %d, the store says %s", errChecksum, sum, has)
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("part %d: %w", number, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sums[number] = uint64(sum)
	return part.ETag, nil
}

func (t *creation) upload(id string) oss.InitiateMultipartUploadResult {
	return oss.InitiateMultipartUploadResult{Bucket: t.s.config.Bucket, Key: t.s.key(t.name), UploadID: id}
}

// Complete makes the parts the object.
func (t *creation) Complete(ctx context.Context, upload string, parts []multipart.Part) error {
	t.sum = 0
	listed := make([]oss.UploadPart, len(parts))
	for i, p := range parts {
		t.sum = crc.Combine(crc64.ECMA, t.sum, t.sums[p.Number], p.Size)
		listed[i] = oss.UploadPart{PartNumber: p.Number, ETag: p.Tag}
	}
	var answer http.Header
	doubt, err := t.s.do(ctx, "", func(ctx context.Context, b *oss.Bucket) error {
		_, err := b.CompleteMultipartUpload(t.upload(upload), listed, oss.WithContext(ctx), oss.ForbidOverWrite(true), oss.GetResponseHeader(&answer))
		return versions(answer, err)
	})
	if errors.Is(err, errNoUpload) && !t.unread() {
		// Either an earlier attempt completed it, or another writer gave it up, having
		// won the name.
		doubt = true
	}
	return t.settle(ctx, doubt, answer, err)
}

// settle finds out who has the name, if the answers leave open whether this call has it.
func (t *creation) settle(ctx context.Context, doubt bool, answer http.Header, err error) error {
	switch {
	case errors.Is(err, ErrVersions):
		return err
	case err == nil:
		t.said = answer.Get(oss.HTTPHeaderOssCRC64)
		if t.said == "" && t.unread() {
			return errors.New("the store took it, and does not say with which checksum")
		}
		return nil
	case t.unread():
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

// abortUploads gives up uploads of the object whose id was lost. Once the name is
// decided, all of them can go: none can win any more. Before, only those without parts
// can be this call's; another writer of the same name that has just begun loses its own
// as well, and is told.
func (t *creation) abortUploads(ctx context.Context, decided bool) error {
	for upload, err := range t.s.unfinished(ctx, t.s.key(t.name)) {
		if err != nil {
			return err
		}
		if upload.Name != t.name {
			continue
		}
		if !decided {
			empty, err := t.s.empty(ctx, upload)
			if err != nil {
				return err
			}
			if !empty {
				continue
			}
		}
		if err := t.s.abort(ctx, upload.Name, upload.ID); err != nil {
			return err
		}
	}
	return nil
}

// empty reports whether an upload has no parts.
func (s *Store) empty(ctx context.Context, u bucket.Upload) (bool, error) {
	var listed oss.ListUploadedPartsResult
	_, err := s.do(ctx, "", func(ctx context.Context, b *oss.Bucket) (err error) {
		listed, err = b.ListUploadedParts(oss.InitiateMultipartUploadResult{Key: s.key(u.Name), UploadID: u.ID}, oss.WithContext(ctx), oss.MaxParts(1))
		return err
	})
	if errors.Is(err, errNoUpload) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask for the parts of an upload of %s: %w", u.Name, err)
	}
	return len(listed.UploadedParts) == 0, nil
}

// abort gives an upload up with all its parts. That there is none is no error. A part
// that was on its way while the upload was aborted can outlive it, so it is aborted until
// the store does not know it.
func (s *Store) abort(ctx context.Context, name, upload string) error {
	const times = 5
	for range times {
		_, err := s.do(ctx, "", func(ctx context.Context, b *oss.Bucket) error {
			return b.AbortMultipartUpload(oss.InitiateMultipartUploadResult{Key: s.key(name), UploadID: upload}, oss.WithContext(ctx))
		})
		if errors.Is(err, errNoUpload) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("abort the upload of %s: %w", name, err)
		}
	}
	return nil
}
