package oss

import (
	"encoding/xml"
	"net/http"
	"slices"
	"strings"
)

// OverwriteRule forbids that objects are overwritten: those whose names begin with Prefix
// and end with Suffix, by anyone, or by those of Principals, where * stands for all. It
// is the bucket's, so no writer can do without it.
type OverwriteRule struct {
	ID         string
	Action     string      // forbid, the only one there is
	Prefix     string      `xml:",omitempty"`
	Suffix     string      `xml:",omitempty"`
	Principals *Principals `xml:",omitempty"`
}

// Principals are users and roles.
type Principals struct{ Principal []string }

const (
	maxOverwriteRules = 100
	maxKey            = 1023 // bytes
)

// forbids reports whether one of a bucket's rules is about an object of that name. Who
// principals are is not known here: a rule for some of them is taken to be for others
// than this server's keys.
func (b bucket) forbids(key string) bool {
	return slices.ContainsFunc(b.Overwrite, func(r OverwriteRule) bool {
		return strings.HasPrefix(key, r.Prefix) && strings.HasSuffix(key, r.Suffix) && (r.Principals == nil || slices.Contains(r.Principals.Principal, "*"))
	})
}

type overwriteDocument struct {
	XMLName xml.Name        `xml:"OverwriteConfiguration"`
	Rule    []OverwriteRule `xml:",omitempty"`
}

func (c *call) getBucketOverwriteConfig() error {
	b, err := c.getBucket()
	if err != nil {
		return err
	}
	if len(b.Overwrite) == 0 {
		return &Error{http.StatusNotFound, "NoSuchOverwriteConfiguration", "The overwrite configuration does not exist.", map[string]string{"BucketName": c.bucket}}
	}
	return c.answer(overwriteDocument{Rule: b.Overwrite})
}

func (c *call) putBucketOverwriteConfig() error {
	var d overwriteDocument
	if err := c.document(&d); err != nil {
		return err
	}
	if len(d.Rule) == 0 || len(d.Rule) > maxOverwriteRules {
		return malformedXML("Rule")
	}
	ids := map[string]bool{}
	for i := range d.Rule {
		r := &d.Rule[i]
		if r.ID == "" {
			r.ID = newUploadID()
		}
		if r.Action != "forbid" || ids[r.ID] || len(r.Prefix) > maxKey || len(r.Suffix) > maxKey {
			return malformedXML("Rule")
		}
		ids[r.ID] = true
	}
	if err := c.changeBucket(func(b *bucket) error { b.Overwrite = d.Rule; return nil }); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusOK)
	return nil
}

func (c *call) deleteBucketOverwriteConfig() error {
	if err := c.changeBucket(func(b *bucket) error { b.Overwrite = nil; return nil }); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
