package oss

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"

	"github.com/aliyun/aliyun-oss-go-sdk/oss"
)

// Protection is what a bucket does itself to keep objects, whoever asks.
type Protection struct {
	// Versions is Enabled or Suspended where the bucket has versions, else empty.
	Versions string
	// Retention is the state of the retention policy, Locked or InProgress, or empty without one in force; Days is for how
	// long it keeps objects.
	Retention string
	Days      int
	// Rule says that the bucket forbids everyone to overwrite what is under the prefix.
	Rule bool
	// Unknown are the actions that the role may not do, so that what they would tell is not known.
	Unknown []string
}

// Protects says whether the bucket keeps objects from being overwritten.
func (p Protection) Protects() bool { return p.Rule || p.Retention != "" }

// Protection asks the bucket what it does to keep objects.
func (s *Store) Protection(ctx context.Context) (Protection, error) {
	var p Protection
	asked := func(action string, request func(context.Context, *oss.Bucket) error) error {
		_, err := s.do(ctx, "", request)
		var denied *deniedError
		if errors.As(err, &denied) {
			p.Unknown = append(p.Unknown, "oss:"+action)
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s of %s: %w", action, s, err)
		}
		return nil
	}
	err := asked("GetBucketVersioning", func(ctx context.Context, b *oss.Bucket) error {
		v, err := b.Client.GetBucketVersioning(s.config.Bucket, oss.WithContext(ctx))
		p.Versions = v.Status
		return err
	})
	if err != nil {
		return p, err
	}
	err = asked("GetBucketWorm", func(ctx context.Context, b *oss.Bucket) error {
		w, err := b.Client.GetBucketWorm(s.config.Bucket, oss.WithContext(ctx))
		if code, _ := codeOf(err); code == "NoSuchWORMConfiguration" {
			return nil
		}
		if err == nil && (w.State == "Locked" || w.State == "InProgress") {
			p.Retention, p.Days = w.State, w.RetentionPeriodInDays
		}
		return err
	})
	if err != nil {
		return p, err
	}
	var rules struct {
		Rule []struct {
			Action, Prefix, Suffix string
			Principals             *struct{ Principal []string }
		}
	}
	err = asked("GetBucketOverwriteConfig", func(ctx context.Context, b *oss.Bucket) error {
		r, err := b.Client.Conn.DoWithContext(ctx, http.MethodGet, s.config.Bucket, "", map[string]any{"overwriteConfig": nil}, nil, nil, 0, nil)
		if _, status := codeOf(err); status == http.StatusNotFound {
			return nil // there are no rules
		}
		if err != nil {
			return err
		}
		defer r.Close()
		text, err := io.ReadAll(io.LimitReader(r, 1<<20))
		if err != nil {
			return err
		}
		return xml.Unmarshal(text, &rules)
	})
	for _, r := range rules.Rule {
		everyone := r.Principals == nil || slices.Contains(r.Principals.Principal, "*")
		if r.Action == "forbid" && r.Suffix == "" && everyone && strings.HasPrefix(s.prefix, r.Prefix) {
			p.Rule = true
		}
	}
	return p, err
}

// Overwrite puts content in the place of an object without asking the store to refuse, to see whether the bucket does by
// itself. The error matches fs.ErrExist or fs.ErrPermission if it does; nil means that the object has been overwritten.
func (s *Store) Overwrite(ctx context.Context, name string, content []byte) error {
	if err := s.check(ctx, "overwrite", name); err != nil {
		return err
	}
	_, err := s.do(ctx, name, func(ctx context.Context, b *oss.Bucket) error {
		return b.PutObject(s.key(name), bytes.NewReader(content), oss.WithContext(ctx))
	})
	if err != nil {
		return fmt.Errorf("overwrite %s in %s: %w", name, s, err)
	}
	return nil
}

// Denied says whether an error is that the role may not do what was asked, rather than that the bucket keeps an object.
func Denied(err error) bool {
	var denied *deniedError
	return errors.As(err, &denied) && errors.Is(err, fs.ErrPermission)
}
