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

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/bucket"
)

// Protection asks the bucket what it does to keep objects.
func (s *Store) Protection(ctx context.Context) (bucket.Protection, error) {
	var p bucket.Protection
	ask := func(action string, request func(context.Context, *oss.Bucket) error) error {
		_, err := s.do(ctx, "", request)
		if _, err = p.Asked("oss:"+action, err); err != nil {
			return fmt.Errorf("%s of %s: %w", action, s, err)
		}
		return nil
	}
	var versions string
	err := ask("GetBucketVersioning", func(ctx context.Context, b *oss.Bucket) error {
		v, err := b.Client.GetBucketVersioning(s.config.Bucket, oss.WithContext(ctx))
		versions = v.Status
		return err
	})
	if err != nil {
		return p, err
	}
	if versions != "" {
		// Neither a rule nor a retention policy is of use to a bucket that is not
		// written.
		p.Flaws = []bucket.Flaw{{About: "versions", Fatal: true,
			Text: "the bucket has versions (" + versions + "), and in such a one OSS does not refuse to overwrite: nothing is written there",
			Fix:  "use a bucket in which versions were never enabled"}}
		return p, nil
	}
	var policy oss.WormConfiguration
	err = ask("GetBucketWorm", func(ctx context.Context, b *oss.Bucket) (err error) {
		policy, err = b.Client.GetBucketWorm(s.config.Bucket, oss.WithContext(ctx))
		if code, _ := codeOf(err); code == "NoSuchWORMConfiguration" {
			return nil
		}
		return err
	})
	if err != nil {
		return p, err
	}
	rule := false
	err = ask("GetBucketOverwriteConfig", func(ctx context.Context, b *oss.Bucket) (err error) {
		rule, err = s.forbids(ctx, b)
		return err
	})
	if err != nil {
		return p, err
	}
	days := fmt.Sprintf("keeps each object for %d days", policy.RetentionPeriodInDays)
	switch {
	case policy.State == "Locked":
		p.Overwriting, p.Deleting = days, days
	case policy.State == "InProgress":
		days += " as long as its policy is there"
		p.Overwriting, p.Deleting = days, days
		p.Flaws = append(p.Flaws, bucket.Flaw{About: "retention",
			Text: fmt.Sprintf("the retention policy of %d days is not locked: it ends 24 hours after it was made", policy.RetentionPeriodInDays),
			Fix:  "lock it (ossutil worm complete)"})
	case rule:
		p.Overwriting, p.Deleting = "forbids to overwrite", bucket.Lets+"those delete who may, which no function's role may"
	case len(p.Unknown) == 0:
		p.Flaws = append(p.Flaws, bucket.Flaw{About: "overwriting",
			Text: "only the writers' own promise keeps objects from being overwritten: who steals a key of a function can overwrite backups",
			Fix:  "make a rule against overwriting, or a retention policy"})
	}
	return p, nil
}

// forbids asks whether a rule of the bucket forbids everyone to overwrite what is under
// the prefix.
func (s *Store) forbids(ctx context.Context, b *oss.Bucket) (bool, error) {
	r, err := b.Client.Conn.DoWithContext(ctx, http.MethodGet, s.config.Bucket, "", map[string]any{"overwriteConfig": nil}, nil, nil, 0, nil)
	if _, status := codeOf(err); status == http.StatusNotFound {
		return false, nil // there are no rules
	}
	if err != nil {
		return false, err
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return false, err
	}
	var rules struct {
		Rule []struct {
			Action, Prefix, Suffix string
			Principals             *struct{ Principal []string }
		}
	}
	if err := xml.Unmarshal(text, &rules); err != nil {
		return false, err
	}
	for _, r := range rules.Rule {
		everyone := r.Principals == nil || slices.Contains(r.Principals.Principal, "*")
		if r.Action == "forbid" && r.Suffix == "" && everyone && strings.HasPrefix(s.prefix, r.Prefix) {
			return true, nil
		}
	}
	return false, nil
}

// Overwrite puts content in the place of an object without asking the store to refuse, to
// see whether the bucket does by itself, and reports whether it kept what was there. The
// error matches fs.ErrPermission if the role may not write.
func (s *Store) Overwrite(ctx context.Context, name string, content []byte) (kept bool, err error) {
	if err := object.Check(ctx, "overwrite", name, " in "+s.String()); err != nil {
		return false, err
	}
	_, err = s.do(ctx, name, func(ctx context.Context, b *oss.Bucket) error {
		return b.PutObject(s.key(name), bytes.NewReader(content), oss.WithContext(ctx))
	})
	if code, _ := codeOf(err); code == "FileImmutable" || errors.Is(err, fs.ErrExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("overwrite %s in %s: %w", name, s, err)
	}
	return false, nil
}
