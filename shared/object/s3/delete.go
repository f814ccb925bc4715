package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/bucket"
)

// Delete deletes an object, and in a bucket with versions all of its versions. The error
// matches fs.ErrPermission if the object is locked.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := object.Check(ctx, "delete", name, ""); err != nil {
		return err
	}
	versioned, err := s.hasVersions(ctx)
	if err != nil {
		return fmt.Errorf("delete %s: ask whether the bucket has versions: %w", name, err)
	}
	if versioned {
		err = s.deleteVersions(ctx, name)
	} else {
		err = s.deleteVersion(ctx, name, nil)
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

// hasVersions asks, once, whether the bucket keeps versions, or kept them. Without them a
// plain delete is one request, and with them it would hide the object and delete nothing.
func (s *Store) hasVersions(ctx context.Context) (bool, error) {
	s.mu.Lock()
	known := s.versioned
	s.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	status, err := s.versions(ctx)
	if err != nil {
		return false, err
	}
	versioned := status != ""
	s.mu.Lock()
	defer s.mu.Unlock()
	s.versioned = &versioned
	return versioned, nil
}

// versions asks whether the bucket keeps versions, or kept them. It is empty if it never
// did.
func (s *Store) versions(ctx context.Context) (types.BucketVersioningStatus, error) {
	var out *s3.GetBucketVersioningOutput
	_, err := s.do(ctx, func(ctx context.Context) (err error) {
		out, err = s.client.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &s.config.Bucket})
		return err
	})
	switch code, _ := codeOf(err); {
	case err == nil:
		return out.Status, nil
	case code == "NotImplemented" || code == "VersioningNotConfigured":
		return "", nil // the store has no versions at all
	default:
		return "", err
	}
}

// deleteVersion deletes one version, or in a bucket without any the object.
func (s *Store) deleteVersion(ctx context.Context, name string, version *string) error {
	_, err := s.do(ctx, func(ctx context.Context) error {
		_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.config.Bucket, Key: s.key(name), VersionId: version})
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// deleteVersions deletes all versions of an object, the newest last, so that no older one
// shows up in between, and nothing has changed for readers if one is locked.
func (s *Store) deleteVersions(ctx context.Context, name string) error {
	key := *s.key(name)
	input := &s3.ListObjectVersionsInput{Bucket: &s.config.Bucket, Prefix: &key}
	var versions []*string
	for more := true; more; {
		var page *s3.ListObjectVersionsOutput
		_, err := s.do(ctx, func(ctx context.Context) (err error) {
			page, err = s.client.ListObjectVersions(ctx, input)
			return err
		})
		if err != nil {
			return fmt.Errorf("list its versions: %w", err)
		}
		// Keys come in order, so the object's own come first; a marker and a version of
		// one key have their dates.
		type dated struct {
			id     *string
			date   time.Time
			latest bool
		}
		var found []dated
		more = aws.ToBool(page.IsTruncated)
		for _, v := range page.Versions {
			if aws.ToString(v.Key) == key {
				found = append(found, dated{v.VersionId, aws.ToTime(v.LastModified), aws.ToBool(v.IsLatest)})
			} else {
				more = false
			}
		}
		for _, m := range page.DeleteMarkers {
			if aws.ToString(m.Key) == key {
				found = append(found, dated{m.VersionId, aws.ToTime(m.LastModified), aws.ToBool(m.IsLatest)})
			} else {
				more = false
			}
		}
		slices.SortStableFunc(found, func(a, b dated) int {
			if a.latest != b.latest {
				if a.latest {
					return -1
				}
				return 1
			}
			return b.date.Compare(a.date)
		})
		for _, f := range found {
			versions = append(versions, f.id)
		}
		input.KeyMarker, input.VersionIdMarker = page.NextKeyMarker, page.NextVersionIdMarker
	}
	for _, version := range slices.Backward(versions) {
		if err := s.deleteVersion(ctx, name, version); err != nil {
			return err
		}
	}
	return nil
}

// Unfinished yields the uploads that are under way or were left behind. The one tells
// itself from the other by its age alone: no function works for longer than a day. It
// takes s3:ListBucketMultipartUploads.
func (s *Store) Unfinished(ctx context.Context) iter.Seq2[bucket.Upload, error] {
	return s.unfinished(ctx, s.prefix)
}

// Abort gives up an upload that was left behind, with what it has stored. That it is gone
// already is no error.
func (s *Store) Abort(ctx context.Context, u bucket.Upload) error {
	return s.abort(ctx, u.Name, u.ID)
}

func (s *Store) unfinished(ctx context.Context, prefix string) iter.Seq2[bucket.Upload, error] {
	return func(yield func(bucket.Upload, error) bool) {
		input := &s3.ListMultipartUploadsInput{Bucket: &s.config.Bucket, Prefix: &prefix}
		for {
			var page *s3.ListMultipartUploadsOutput
			_, err := s.do(ctx, func(ctx context.Context) (err error) {
				page, err = s.client.ListMultipartUploads(ctx, input)
				return err
			})
			if err != nil {
				yield(bucket.Upload{}, fmt.Errorf("list unfinished uploads: %w", err))
				return
			}
			for _, u := range page.Uploads {
				name, ok := strings.CutPrefix(aws.ToString(u.Key), s.prefix)
				if !ok || object.ValidName(name) != nil {
					continue
				}
				if !yield(bucket.Upload{Name: name, ID: aws.ToString(u.UploadId), Begun: date(u.Initiated)}, nil) {
					return
				}
			}
			if !aws.ToBool(page.IsTruncated) {
				return
			}
			input.KeyMarker, input.UploadIdMarker = page.NextKeyMarker, page.NextUploadIdMarker
		}
	}
}
