package s3

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/tablevault/tablevault/shared/object/bucket"
)

// Protection asks the bucket what it does to keep objects: whether it has versions, where
// what is overwritten stays beneath, and Object Lock, which keeps versions from being
// deleted. S3 itself refuses nobody who may write to overwrite.
func (s *Store) Protection(ctx context.Context) (bucket.Protection, error) {
	var p bucket.Protection
	versions, err := s.versions(ctx)
	told, err := p.Asked("s3:GetBucketVersioning", err)
	switch {
	case err != nil:
		return p, fmt.Errorf("ask %s whether it has versions: %w", s.config.Bucket, err)
	case versions == types.BucketVersioningStatusEnabled:
		p.Overwriting = "keeps what is overwritten as an older version"
	case told:
		p.Flaws = append(p.Flaws, bucket.Flaw{About: "overwriting",
			Text: "only the writers' own promise keeps objects from being overwritten: who steals a key of a function can overwrite backups",
			Fix:  "enable the bucket's versions, which Object Lock needs as well"})
	}

	has, byDefault, err := s.objectLock(ctx)
	told, err = p.Asked("s3:GetBucketObjectLockConfiguration", err)
	asks := locked(s.config.Lock, fmt.Sprintf("%d days", s.config.Retain/(24*time.Hour)))
	const fix = "write lock=compliance&retain=30d into the vault's address, or give the bucket a default retention"
	switch {
	case err != nil:
		return p, fmt.Errorf("ask %s for its Object Lock: %w", s.config.Bucket, err)
	case told && !has && asks != "":
		p.Flaws = append(p.Flaws, bucket.Flaw{About: "deleting", Fatal: true,
			Text: "the vault's address asks for locked objects, and the bucket has no Object Lock: nothing is written there",
			Fix:  "give the bucket Object Lock, or take lock and retain out of the address"})
	case asks != "":
		p.Deleting = asks
	case byDefault != "":
		p.Deleting = byDefault
	case told && has:
		p.Flaws = append(p.Flaws, bucket.Flaw{About: "deleting",
			Text: "the bucket has Object Lock, and new objects are not locked: nothing says for how long", Fix: fix})
	case told:
		p.Flaws = append(p.Flaws, bucket.Flaw{About: "deleting",
			Text: "whoever has a key that may delete, deletes", Fix: "give the bucket Object Lock, and " + fix})
	}
	return p, nil
}

// objectLock asks whether the bucket has Object Lock, and what it does by default with
// new objects: the rest of a sentence that begins with it, empty if it does nothing.
func (s *Store) objectLock(ctx context.Context) (has bool, byDefault string, err error) {
	var out *s3.GetObjectLockConfigurationOutput
	_, err = s.do(ctx, func(ctx context.Context) (err error) {
		out, err = s.client.GetObjectLockConfiguration(ctx, &s3.GetObjectLockConfigurationInput{Bucket: &s.config.Bucket})
		return err
	})
	switch code, _ := codeOf(err); {
	case code == "ObjectLockConfigurationNotFoundError" || code == "NotImplemented":
		return false, "", nil
	case err != nil:
		return false, "", err
	case out.ObjectLockConfiguration == nil || out.ObjectLockConfiguration.ObjectLockEnabled != types.ObjectLockEnabledEnabled:
		return false, "", nil
	}
	rule := out.ObjectLockConfiguration.Rule
	if rule == nil || rule.DefaultRetention == nil {
		return true, "", nil
	}
	r := rule.DefaultRetention
	if years := aws.ToInt32(r.Years); years > 0 {
		return true, locked(string(r.Mode), fmt.Sprintf("%d years", years)), nil
	}
	return true, locked(string(r.Mode), fmt.Sprintf("%d days", aws.ToInt32(r.Days))), nil
}

// locked is what a mode of Object Lock does, empty for none.
func locked(mode, retain string) string {
	if mode == "" {
		return ""
	}
	text := fmt.Sprintf("locks each object for %s (%s)", retain, strings.ToLower(mode))
	if mode == string(types.ObjectLockModeGovernance) {
		text += ", which those can lift who may bypass that"
	}
	return text
}
