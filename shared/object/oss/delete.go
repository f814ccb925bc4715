package oss

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/http"
	"strings"
	"time"

	"github.com/aliyun/aliyun-oss-go-sdk/oss"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/bucket"
)

// Delete deletes an object. The error matches fs.ErrPermission if the bucket's retention
// policy keeps it.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := object.Check(ctx, "delete", name, " in "+s.String()); err != nil {
		return err
	}
	if errors.Is(s.readOnly, ErrVersions) {
		// It would hide the object, and delete nothing.
		return fmt.Errorf("delete %s in %s: %w", name, s, s.readOnly)
	}
	_, err := s.do(ctx, name, func(ctx context.Context, b *oss.Bucket) error {
		var answer http.Header
		err := b.DeleteObject(s.key(name), oss.WithContext(ctx), oss.GetResponseHeader(&answer))
		return versions(answer, err)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete %s in %s: %w", name, s, err)
	}
	return nil
}

// Unfinished yields the uploads that are under way or were left behind. The one tells
// itself from the other by its age alone: no function works for longer than a day. It
// takes oss:ListMultipartUploads.
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
		key, id := "", ""
		for {
			var page oss.ListMultipartUploadResult
			_, err := s.do(ctx, "", func(ctx context.Context, b *oss.Bucket) (err error) {
				options := []oss.Option{oss.WithContext(ctx), oss.MaxUploads(s.page)}
				if prefix != "" {
					options = append(options, oss.Prefix(prefix))
				}
				if key != "" {
					options = append(options, oss.KeyMarker(key), oss.UploadIDMarker(id))
				}
				page, err = b.ListMultipartUploads(options...)
				return err
			})
			if err != nil {
				yield(bucket.Upload{}, fmt.Errorf("list the unfinished uploads of %s: %w", s, err))
				return
			}
			for _, u := range page.Uploads {
				name, ok := strings.CutPrefix(u.Key, s.prefix)
				if !ok || object.ValidName(name) != nil {
					continue
				}
				if !yield(bucket.Upload{Name: name, ID: u.UploadID, Begun: u.Initiated.UTC().Truncate(time.Second)}, nil) {
					return
				}
			}
			if !page.IsTruncated || page.NextKeyMarker == "" {
				return
			}
			key, id = page.NextKeyMarker, page.NextUploadIDMarker
		}
	}
}
