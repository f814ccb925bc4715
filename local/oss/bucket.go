package oss

import (
	"cmp"
	"crypto/md5"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tablevault/tablevault/local/ots/kv"
)

// BucketConfig is how a bucket is made.
type BucketConfig struct {
	// Region is where the bucket is, the server's own if empty. The server answers about
	// a bucket of another region that it is elsewhere.
	Region string
	// Versioning is empty for a bucket without versions, or Enabled or Suspended.
	Versioning string
	// RetentionDays, if given, is how long objects are kept from deletion and overwriting
	// by a locked policy.
	RetentionDays int
	// Overwrite are the rules that forbid to overwrite objects.
	Overwrite []OverwriteRule
}

// bucket is the record of one.
type bucket struct {
	Region     string
	Created    time.Time
	Versioning string          `json:",omitempty"`
	Worm       *worm           `json:",omitempty"`
	Overwrite  []OverwriteRule `json:",omitempty"`
}

// worm is a retention policy: it takes effect at once, and ends after a day unless it is
// locked by then.
type worm struct {
	ID      string
	Locked  bool
	Days    int
	Created time.Time
}

const unlockedFor = 24 * time.Hour

// inForce reports whether a policy protects objects now.
func (w *worm) inForce(now time.Time) bool {
	return w != nil && (w.Locked || now.Before(w.Created.Add(unlockedFor)))
}

// protects reports whether a bucket's policy protects what was modified at a time.
func (b bucket) protects(modified, now time.Time) bool {
	return b.Worm.inForce(now) && now.Before(modified.AddDate(0, 0, b.Worm.Days))
}

// CreateBucket makes a bucket. That there is one of that name is an error.
func (s *Server) CreateBucket(name string, c BucketConfig) error {
	if !validBucket(name) {
		return fmt.Errorf("create bucket %q: not a bucket's name", name)
	}
	now := s.config.Now().UTC()
	b := bucket{Region: c.Region, Versioning: c.Versioning, Created: now, Overwrite: c.Overwrite}
	if b.Region == "" {
		b.Region = s.config.Region
	}
	if c.RetentionDays > 0 {
		b.Worm = &worm{ID: newUploadID(), Locked: true, Days: c.RetentionDays, Created: now}
	}
	err := s.store.records.Update(bucketsSpace, func(w kv.Writer) error {
		if w.Get([]byte(name)) != nil {
			return fmt.Errorf("create bucket %s: it exists", name)
		}
		return put(w, []byte(name), b)
	})
	if err != nil {
		return err
	}
	return s.store.revive(name)
}

// HasBucket reports whether there is a bucket of that name.
func (s *Server) HasBucket(name string) (found bool, err error) {
	err = s.store.records.View(bucketsSpace, func(r kv.Reader) error {
		found = r.Get([]byte(name)) != nil
		return nil
	})
	return found, err
}

// getBucket reads the record of the call's bucket.
func (c *call) getBucket() (b bucket, err error) {
	found := false
	err = c.s.store.records.View(bucketsSpace, func(r kv.Reader) error {
		found, err = get(r, []byte(c.bucket), &b)
		return err
	})
	if err == nil && !found {
		err = noSuchBucket(c.bucket)
	}
	return b, err
}

// located refuses requests about buckets of other regions.
func (c *call) located() error {
	if c.operation == "PutBucket" {
		return nil
	}
	b, err := c.getBucket()
	if err != nil {
		return err
	}
	if b.Region != c.s.config.Region {
		return &Error{http.StatusForbidden, "AccessDenied",
			"The bucket you are attempting to access must be addressed using the specified endpoint. Please send all future requests to this endpoint.",
			map[string]string{"Bucket": c.bucket, "Endpoint": "oss-" + b.Region + ".aliyuncs.com"}}
	}
	return nil
}

func (c *call) putBucket() error {
	if list := cmp.Or(c.r.Header.Get("X-Oss-Acl"), "private"); list != "private" {
		return notImplemented("x-oss-acl: " + list)
	}
	if err := c.s.CreateBucket(c.bucket, BucketConfig{}); err != nil {
		return &Error{http.StatusConflict, "BucketAlreadyExists", "The requested bucket name is not available.", map[string]string{"BucketName": c.bucket}}
	}
	c.w.WriteHeader(http.StatusOK)
	return nil
}

// changeBucket changes the record of the call's bucket.
func (c *call) changeBucket(change func(b *bucket) error) error {
	return c.s.store.records.Update(bucketsSpace, func(w kv.Writer) error {
		var b bucket
		if found, err := get(w, []byte(c.bucket), &b); err != nil || !found {
			return noSuchBucket(c.bucket)
		}
		if err := change(&b); err != nil {
			return err
		}
		return put(w, []byte(c.bucket), b)
	})
}

// owner is who owns buckets and objects: the account.
type owner struct{ ID, DisplayName string }

func (s *Server) owner() *owner {
	id := cmp.Or(s.config.Account, "0")
	return &owner{id, id}
}

// accessList is the only access list that there is: who is not the owner does what
// policies say.
type accessList struct{ Grant string }

func (c *call) getBucketInfo() error {
	b, err := c.getBucket()
	if err != nil {
		return err
	}
	type info struct {
		Name, Location, CreationDate, ExtranetEndpoint, IntranetEndpoint, StorageClass, DataRedundancyType string
		Versioning                                                                                         string `xml:",omitempty"`
		Owner                                                                                              *owner
		AccessControlList                                                                                  accessList
		Comment                                                                                            string
	}
	return c.answer(struct {
		XMLName xml.Name `xml:"BucketInfo"`
		Bucket  info
	}{Bucket: info{Name: c.bucket, Location: "oss-" + b.Region, CreationDate: isoTime(b.Created), ExtranetEndpoint: "oss-" + b.Region + ".aliyuncs.com",
		IntranetEndpoint: "oss-" + b.Region + "-internal.aliyuncs.com", StorageClass: "Standard", DataRedundancyType: "LRS", Versioning: b.Versioning,
		Owner: c.s.owner(), AccessControlList: accessList{"private"}}})
}

// getACL answers with the access list of a bucket, or of an object, which has its
// bucket's.
func (c *call) getACL() error {
	grant := "private"
	if c.object != "" {
		grant = "default"
		if _, err := c.find(c.bucket, c.object, c.query.Get("versionId")); err != nil {
			return err
		}
	}
	return c.answer(struct {
		XMLName           xml.Name `xml:"AccessControlPolicy"`
		Owner             *owner
		AccessControlList accessList
	}{Owner: c.s.owner(), AccessControlList: accessList{grant}})
}

type listedBucket struct {
	CreationDate, ExtranetEndpoint, IntranetEndpoint, Location, Name, Region, StorageClass string
}

// listBuckets lists the buckets of all regions, as the service does.
func (c *call) listBuckets() error {
	limit, err := c.limit("max-keys", defaultKeys)
	if err != nil {
		return err
	}
	prefix, marker := c.query.Get("prefix"), c.query.Get("marker")
	d := struct {
		XMLName        xml.Name `xml:"ListAllMyBucketsResult"`
		Prefix, Marker string   `xml:",omitempty"`
		MaxKeys        int      `xml:",omitempty"`
		IsTruncated    bool
		NextMarker     string `xml:",omitempty"`
		Owner          *owner
		Buckets        struct{ Bucket []listedBucket }
	}{Prefix: prefix, Marker: marker, MaxKeys: limit, Owner: c.s.owner()}
	err = c.s.store.records.View(bucketsSpace, func(r kv.Reader) (bad error) {
		r.Ascend([]byte(max(prefix, marker)), func(key, _ []byte) bool {
			name := string(key)
			if name <= marker {
				return true
			}
			if !strings.HasPrefix(name, prefix) {
				return false
			}
			var b bucket
			if _, bad = get(r, key, &b); bad != nil {
				return false
			}
			if len(d.Buckets.Bucket) == limit {
				d.IsTruncated = true
				d.NextMarker = d.Buckets.Bucket[limit-1].Name
				return false
			}
			d.Buckets.Bucket = append(d.Buckets.Bucket, listedBucket{CreationDate: isoTime(b.Created), ExtranetEndpoint: "oss-" + b.Region + ".aliyuncs.com",
				IntranetEndpoint: "oss-" + b.Region + "-internal.aliyuncs.com", Location: "oss-" + b.Region, Name: name, Region: b.Region, StorageClass: "Standard"})
			return true
		})
		return bad
	})
	if err != nil {
		return err
	}
	return c.answer(d)
}

// goneRecord says in a bucket's space that the bucket is gone, so that a request which
// found it before leaves nothing there.
var goneRecord = []byte{'g'}

func isGone(r kv.Reader) bool { return r.Get(goneRecord) != nil }

// deleteBucket deletes a bucket that holds nothing.
func (c *call) deleteBucket() error {
	err := c.s.store.records.Update(bucketSpace(c.bucket), func(w kv.Writer) error {
		empty := true
		w.Ascend(nil, func(key, _ []byte) bool {
			empty = key[0] == goneRecord[0]
			return empty
		})
		if !empty {
			return &Error{http.StatusConflict, "BucketNotEmpty", "The bucket you tried to delete is not empty.", map[string]string{"BucketName": c.bucket}}
		}
		w.Put(goneRecord, []byte{1})
		return nil
	})
	if err != nil {
		return err
	}
	err = c.s.store.records.Update(bucketsSpace, func(w kv.Writer) error {
		w.Delete([]byte(c.bucket))
		return nil
	})
	if err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (c *call) getBucketLocation() error {
	b, err := c.getBucket()
	if err != nil {
		return err
	}
	return c.answer(struct {
		XMLName  xml.Name `xml:"LocationConstraint"`
		Location string   `xml:",chardata"`
	}{Location: "oss-" + b.Region})
}

type versioningDocument struct {
	XMLName xml.Name `xml:"VersioningConfiguration"`
	Status  string   `xml:",omitempty"`
}

func (c *call) getBucketVersioning() error {
	b, err := c.getBucket()
	if err != nil {
		return err
	}
	return c.answer(versioningDocument{Status: b.Versioning})
}

func (c *call) putBucketVersioning() error {
	var d versioningDocument
	if err := c.document(&d); err != nil {
		return err
	}
	if d.Status != "Enabled" && d.Status != "Suspended" {
		return malformedXML("Status")
	}
	if err := c.changeBucket(func(b *bucket) error { b.Versioning = d.Status; return nil }); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusOK)
	return nil
}

// maxDocument is the length of the longest document that is read, the list of ten
// thousand parts.
const maxDocument = 4 << 20

// document reads the body of a request as XML.
func (c *call) document(to any) error {
	body, err := io.ReadAll(io.LimitReader(c.r.Body, maxDocument+1))
	if err != nil {
		return errCut
	}
	if len(body) > maxDocument {
		return errLarge
	}
	if given := c.r.Header.Get("Content-Md5"); given != "" {
		if sum := md5.Sum(body); given != base64.StdEncoding.EncodeToString(sum[:]) {
			return errDigest
		}
	}
	if err := xml.Unmarshal(body, to); err != nil {
		return malformedXML(err.Error())
	}
	return nil
}

func errNoWorm(bucket string) error {
	return &Error{http.StatusNotFound, "NoSuchWORMConfiguration", "The WORM Configuration does not exist.", map[string]string{"BucketName": bucket}}
}

func (c *call) getBucketWorm() error {
	b, err := c.getBucket()
	if err != nil {
		return err
	}
	if b.Worm == nil {
		return errNoWorm(c.bucket)
	}
	state := "InProgress"
	switch {
	case b.Worm.Locked:
		state = "Locked"
	case !b.Worm.inForce(c.now):
		state = "Expired"
	}
	return c.answer(struct {
		XMLName               xml.Name `xml:"WormConfiguration"`
		WormId, State         string
		RetentionPeriodInDays int
		CreationDate          string
		ExpirationDate        string
	}{WormId: b.Worm.ID, State: state, RetentionPeriodInDays: b.Worm.Days, CreationDate: isoTime(b.Worm.Created),
		ExpirationDate: isoTime(b.Worm.Created.Add(unlockedFor))})
}

// maxRetention is seventy years.
const maxRetention = 70 * 365

type wormDocument struct {
	RetentionPeriodInDays string
}

func (d wormDocument) days() (int, error) {
	days, err := strconv.Atoi(d.RetentionPeriodInDays)
	if err != nil || days < 1 || days > maxRetention {
		return 0, invalidArgument("The retention period is not a number of days from 1 to 25550.")
	}
	return days, nil
}

func (c *call) initiateBucketWorm() error {
	var d wormDocument
	if err := c.document(&d); err != nil {
		return err
	}
	days, err := d.days()
	if err != nil {
		return err
	}
	id := newUploadID()
	err = c.changeBucket(func(b *bucket) error {
		if b.Worm.inForce(c.now) {
			return &Error{http.StatusConflict, "WORMConfigurationLocked", "The WORM Configuration is locked or in progress.", nil}
		}
		b.Worm = &worm{ID: id, Days: days, Created: c.now}
		return nil
	})
	if err != nil {
		return err
	}
	c.w.Header().Set("X-Oss-Worm-Id", id)
	c.w.WriteHeader(http.StatusOK)
	return nil
}

// changeWorm changes the policy that a request names.
func (c *call) changeWorm(change func(b *bucket) error) error {
	err := c.changeBucket(func(b *bucket) error {
		if b.Worm == nil || !b.Worm.inForce(c.now) || c.query.Has("wormId") && b.Worm.ID != c.query.Get("wormId") {
			return errNoWorm(c.bucket)
		}
		return change(b)
	})
	if err != nil {
		return err
	}
	status := http.StatusOK
	if c.r.Method == http.MethodDelete {
		status = http.StatusNoContent
	}
	c.w.WriteHeader(status)
	return nil
}

func (c *call) completeBucketWorm() error {
	return c.changeWorm(func(b *bucket) error { b.Worm.Locked = true; return nil })
}

func (c *call) abortBucketWorm() error {
	return c.changeWorm(func(b *bucket) error {
		if b.Worm.Locked {
			return &Error{http.StatusConflict, "WORMConfigurationLocked", "The WORM Configuration is locked.", nil}
		}
		b.Worm = nil
		return nil
	})
}

func (c *call) extendBucketWorm() error {
	var d wormDocument
	if err := c.document(&d); err != nil {
		return err
	}
	days, err := d.days()
	if err != nil {
		return err
	}
	return c.changeWorm(func(b *bucket) error {
		if !b.Worm.Locked || days < b.Worm.Days {
			return invalidArgument("Only a locked retention period can be extended, and none can be shortened.")
		}
		b.Worm.Days = days
		return nil
	})
}
