package oss

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tablevault/tablevault/local/ots/kv"
)

// validKey reports whether a name is one that an object can have.
func validKey(key string) bool {
	return len(key) <= maxKey && utf8.ValidString(key) && key[0] != '/' && key[0] != '\\'
}

// storageClasses are those that can be asked for.
var storageClasses = map[string]bool{"Standard": true, "IA": true, "Archive": true, "ColdArchive": true, "DeepColdArchive": true}

// class is the storage class that a version has.
func (v version) class() string { return cmp.Or(v.Header["X-Oss-Storage-Class"], "Standard") }

// header takes from a request what is kept with its object and answered with it.
func (c *call) header() (map[string]string, error) {
	kept := map[string]string{}
	for name, values := range c.r.Header {
		switch lower := strings.ToLower(name); {
		case strings.HasPrefix(lower, "x-oss-meta-"):
		case lower == "x-oss-object-acl" && values[0] != "default" && values[0] != "private":
			return nil, notImplemented("x-oss-object-acl: " + values[0])
		case lower == "x-oss-tagging":
			return nil, notImplemented("x-oss-tagging")
		case lower == "x-oss-server-side-encryption":
			if v := values[0]; v != "AES256" && v != "KMS" && v != "SM4" {
				return nil, invalidArgument("The encryption method is not AES256, KMS or SM4.")
			}
		case lower == "x-oss-server-side-encryption-key-id":
			if c.r.Header.Get("X-Oss-Server-Side-Encryption") != "KMS" {
				return nil, invalidArgument("A key is given for an encryption method other than KMS.")
			}
		case lower == "x-oss-storage-class":
			if !storageClasses[values[0]] {
				return nil, invalidArgument("The storage class is not valid.")
			}
		case lower == "content-type", lower == "cache-control", lower == "content-disposition", lower == "content-encoding", lower == "expires":
		default:
			continue
		}
		kept[name] = values[0]
	}
	return kept, nil
}

// readBody stores the body of a request, if it is what the request says.
func (c *call) readBody() (content, error) {
	const most = 5 << 30
	if c.r.ContentLength > most {
		return content{}, errLarge
	}
	written, err := c.s.store.write(io.LimitReader(c.r.Body, most+1))
	var local *os.PathError
	switch {
	case errors.As(err, &local):
		return content{}, err
	case err != nil:
		return content{}, errCut
	}
	refuse := func(err *Error) (content, error) {
		c.s.store.remove(written.file)
		return content{}, err
	}
	switch given := c.r.Header.Get("Content-Md5"); {
	case written.Size > most:
		return refuse(errLarge)
	case c.r.ContentLength >= 0 && written.Size != c.r.ContentLength:
		return refuse(errCut)
	case given != "" && given != base64.StdEncoding.EncodeToString(written.md5[:]):
		return refuse(errDigest)
	}
	return written, nil
}

// place makes a version the newest of the call's object, as far as the bucket lets it,
// and returns the files that have no name any more, and the version's id. It is called in
// an update.
func (c *call) place(w kv.Writer, b bucket, v version, forbid bool) (old []file, id string, err error) {
	if isGone(w) {
		return nil, "", noSuchBucket(c.bucket)
	}
	key := objectKey(c.object)
	var before versioned
	if _, err := get(w, key, &before); err != nil {
		return nil, "", err
	}
	newest, exists := before.newest()
	switch {
	case b.Versioning == "" && exists && (forbid || b.forbids(c.object)):
		return nil, "", errExists
	case b.Versioning == "" && exists && b.protects(newest.Modified, c.now):
		return nil, "", errImmutable
	}
	switch b.Versioning {
	case "Enabled":
		v.ID = newUploadID()
	case "Suspended":
		v.ID = "null"
	}
	kept := before.Versions[:0:0]
	for _, o := range before.Versions {
		if b.Versioning == "Enabled" || b.Versioning == "Suspended" && o.ID != "null" && o.ID != "" {
			kept = append(kept, o)
			continue
		}
		old = append(old, o.Files...)
	}
	return old, v.ID, put(w, key, versioned{append(kept, v)})
}

// newest returns the version that stands for the object, if it does.
func (v versioned) newest() (version, bool) {
	if n := len(v.Versions); n > 0 && !v.Versions[n-1].Deleted {
		return v.Versions[n-1], true
	}
	return version{}, false
}

func (c *call) forbidsOverwrite() bool {
	return strings.EqualFold(c.r.Header.Get("X-Oss-Forbid-Overwrite"), "true")
}

func (c *call) putObject() error {
	b, err := c.getBucket()
	if err != nil {
		return err
	}
	header, err := c.header()
	if err != nil {
		return err
	}
	written, err := c.readBody()
	if err != nil {
		return err
	}
	v, id, err := c.keep(b, header, written)
	if err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("ETag", v.ETag)
	c.setCRC(v.CRC)
	setVersion(h, id)
	h.Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusOK)
	return nil
}

// keep makes what was written the call's object, and returns the version and its id.
func (c *call) keep(b bucket, header map[string]string, written content) (v version, id string, err error) {
	v = version{Size: written.Size, CRC: written.crc, ETag: written.etag(), Modified: c.now.Truncate(time.Second), Header: header, Type: "Normal",
		Files: []file{written.file}}
	var old []file
	err = c.s.store.records.Update(bucketSpace(c.bucket), func(w kv.Writer) (err error) {
		old, id, err = c.place(w, b, v, c.forbidsOverwrite())
		return err
	})
	if err != nil {
		c.s.store.remove(written.file)
		return version{}, "", err
	}
	c.s.store.remove(old...)
	c.created(v)
	return v, id, nil
}

// created tells who listens of a new object.
func (c *call) created(v version) {
	if tell := c.s.config.Created; tell != nil {
		tell(Created{Event: "oss:ObjectCreated:" + c.operation, Bucket: c.bucket, Object: c.object, ETag: strings.Trim(v.ETag, `"`), Size: v.Size, At: v.Modified})
	}
}

func setVersion(h http.Header, id string) {
	if id != "" {
		h.Set("X-Oss-Version-Id", id)
	}
}

// setCRC answers with a checksum, or with another if that is the fault.
func (c *call) setCRC(crc uint64) {
	if c.fault != nil && c.fault.WrongChecksum {
		crc ^= 1 << 17
	}
	c.w.Header().Set("X-Oss-Hash-Crc64ecma", strconv.FormatUint(crc, 10))
}

// find returns a version of an object, the newest one if no id is given.
func (c *call) find(bucket, object, id string) (v version, err error) {
	var all versioned
	found := false
	err = c.s.store.records.View(bucketSpace(bucket), func(r kv.Reader) error {
		found, err = get(r, objectKey(object), &all)
		return err
	})
	if err != nil {
		return version{}, err
	}
	if id != "" {
		for _, v := range all.Versions {
			if (v.ID == id || v.ID == "" && id == "null") && !v.Deleted {
				return v, nil
			}
		}
		return version{}, &Error{http.StatusNotFound, "NoSuchVersion", "The specified version does not exist.", map[string]string{"Key": object, "VersionId": id}}
	}
	if found {
		if v, found = all.newest(); found {
			return v, nil
		}
	}
	return version{}, noSuchKey(object)
}

// conditions holds the conditions of a request, whose headers begin with a prefix,
// against a version. A source that has not changed is refused, too, by the service.
func (c *call) conditions(prefix string, v version) error {
	same := func(tag string) bool { return strings.Trim(tag, `"`) == strings.Trim(v.ETag, `"`) }
	// A date that can't be read is none.
	since := func(name string) (time.Time, bool) {
		date, err := http.ParseTime(c.r.Header.Get(prefix + name))
		return date, err == nil
	}
	if tag := c.r.Header.Get(prefix + "If-Match"); tag != "" && !same(tag) {
		return preconditionFailed(prefix + "If-Match")
	}
	if date, given := since("If-Unmodified-Since"); given && v.Modified.After(date) {
		return preconditionFailed(prefix + "If-Unmodified-Since")
	}
	if tag := c.r.Header.Get(prefix + "If-None-Match"); tag != "" && same(tag) {
		return errUnchanged
	}
	if date, given := since("If-Modified-Since"); given && !v.Modified.After(date) {
		return errUnchanged
	}
	return nil
}

// getObject answers GET and HEAD.
func (c *call) getObject() error {
	v, err := c.find(c.bucket, c.object, c.query.Get("versionId"))
	if err != nil {
		return err
	}
	if err := c.conditions("", v); err != nil {
		return err
	}
	for _, class := range []string{"Archive", "ColdArchive", "DeepColdArchive"} {
		if v.class() == class && c.r.Method == http.MethodGet {
			return &Error{http.StatusForbidden, "InvalidObjectState", "The operation is not valid for the object's state.", nil}
		}
	}
	h := c.w.Header()
	for name, value := range v.Header {
		h.Set(name, value)
	}
	h.Set("X-Oss-Storage-Class", v.class())
	for _, asked := range headersAsked {
		if value := c.query.Get(asked); value != "" {
			h.Set(strings.TrimPrefix(asked, "response-"), value)
		}
	}
	h.Set("ETag", v.ETag)
	h.Set("Last-Modified", v.Modified.UTC().Format(http.TimeFormat))
	h.Set("Accept-Ranges", "bytes")
	h.Set("X-Oss-Object-Type", v.Type)
	c.setCRC(v.CRC)
	setVersion(h, v.ID)
	from, to, status := int64(0), v.Size, http.StatusOK
	if given := c.r.Header.Get("Range"); given != "" && c.r.Method == http.MethodGet {
		standard := strings.EqualFold(c.r.Header.Get("X-Oss-Range-Behavior"), "standard")
		first, last, ok := parseRange(given, v.Size, standard)
		switch {
		case ok:
			from, to, status = first, last+1, http.StatusPartialContent
			h.Set("Content-Range", "bytes "+strconv.FormatInt(first, 10)+"-"+strconv.FormatInt(last, 10)+"/"+strconv.FormatInt(v.Size, 10))
		case standard:
			return &Error{http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "The requested range cannot be satisfied.",
				map[string]string{"ActualObjectSize": strconv.FormatInt(v.Size, 10), "RangeRequested": given}}
		}
	}
	h.Set("Content-Length", strconv.FormatInt(to-from, 10))
	if c.r.Method == http.MethodHead {
		c.w.WriteHeader(status)
		return nil
	}
	return c.send(v, from, to, status)
}

// send answers with a range of the content. What breaks after the first byte breaks the
// connection.
func (c *call) send(v version, from, to int64, status int) error {
	begun := false
	begin := func() {
		if !begun {
			c.w.WriteHeader(status)
			begun = true
		}
	}
	err := c.s.store.parts(v, from, to, func(part io.Reader) error {
		begin()
		_, err := io.Copy(c.w, part)
		return err
	})
	switch {
	case err != nil && begun:
		panic(http.ErrAbortHandler)
	case errors.Is(err, os.ErrNotExist):
		return noSuchKey(c.object) // deleted since it was found
	case err != nil:
		return err
	}
	begin()
	return nil
}

// parseRange parses a range of an object of size bytes, and reports whether it can be
// served: one of "bytes=a-b", "bytes=a-" and "bytes=-n". A range that goes beyond the end
// can be served, up to the end, only by the standard; without it the service answers it
// with the whole object.
func parseRange(value string, size int64, standard bool) (first, last int64, ok bool) {
	value, ok = strings.CutPrefix(value, "bytes=")
	from, to, dash := strings.Cut(value, "-")
	if !ok || !dash || size == 0 {
		return 0, 0, false
	}
	number := func(text string) (int64, bool) {
		for _, c := range []byte(text) {
			if c < '0' || c > '9' {
				return 0, false
			}
		}
		n, err := strconv.ParseInt(text, 10, 64)
		return n, err == nil
	}
	if from == "" {
		n, good := number(to)
		if !good || n == 0 || n > size && !standard {
			return 0, 0, false
		}
		return max(size-n, 0), size - 1, true
	}
	first, good := number(from)
	if !good || first >= size {
		return 0, 0, false
	}
	if to == "" {
		return first, size - 1, true
	}
	last, good = number(to)
	if !good || last < first || last >= size && !standard {
		return 0, 0, false
	}
	return first, min(last, size-1), true
}

func (c *call) deleteObject() error {
	marker, err := c.delete(c.object, c.query.Get("versionId"))
	if err != nil {
		return err
	}
	if marker != "" {
		c.w.Header().Set("X-Oss-Delete-Marker", "true")
		setVersion(c.w.Header(), marker)
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// delete deletes an object, or one version of it, and returns the id of the delete marker
// that it has left.
func (c *call) delete(object, id string) (marker string, err error) {
	b, err := c.getBucket()
	if err != nil {
		return "", err
	}
	var old []file
	err = c.s.store.records.Update(bucketSpace(c.bucket), func(w kv.Writer) error {
		key := objectKey(object)
		var all versioned
		if found, err := get(w, key, &all); err != nil || !found {
			return err
		}
		var kept []version
		switch {
		case id != "":
			for _, v := range all.Versions {
				if v.ID != id && (v.ID != "" || id != "null") {
					kept = append(kept, v)
					continue
				}
				if b.protects(v.Modified, c.now) {
					return errImmutable
				}
				old = append(old, v.Files...)
			}
		case b.Versioning == "":
			if newest, ok := all.newest(); ok && b.protects(newest.Modified, c.now) {
				return errImmutable
			}
			for _, v := range all.Versions {
				old = append(old, v.Files...)
			}
		default:
			kept = all.Versions
			marker = "null"
			if b.Versioning == "Enabled" {
				marker = newUploadID()
			}
			kept = append(kept, version{ID: marker, Deleted: true, Modified: c.now.Truncate(time.Second)})
		}
		if len(kept) == 0 {
			w.Delete(key)
			return nil
		}
		return put(w, key, versioned{kept})
	})
	if err != nil {
		return "", err
	}
	c.s.store.remove(old...)
	return marker, nil
}

// maxDeletes is how many objects one request deletes at most.
const maxDeletes = 1000

type deleteDocument struct {
	XMLName xml.Name `xml:"Delete"`
	Quiet   bool
	Object  []struct{ Key, VersionId string }
}

type deletedObject struct {
	Key                   string
	VersionId             string `xml:",omitempty"`
	DeleteMarker          bool   `xml:",omitempty"`
	DeleteMarkerVersionId string `xml:",omitempty"`
}

// deleteObjects deletes several objects, each by a right of its own. The first that may
// not be deleted ends it.
func (c *call) deleteObjects() error {
	var d deleteDocument
	if err := c.document(&d); err != nil {
		return err
	}
	if len(d.Object) == 0 || len(d.Object) > maxDeletes {
		return malformedXML("Object")
	}
	if c.query.Get("encoding-type") == "" && c.r.Header.Get("Encoding-Type") != "" { // where some clients have it
		c.query.Set("encoding-type", c.r.Header.Get("Encoding-Type"))
	}
	encode, encoding, err := c.encoder()
	if err != nil {
		return err
	}
	for _, o := range d.Object {
		if o.Key == "" || !validKey(o.Key) {
			return malformedXML("Key")
		}
		if err := c.allowed("DeleteObject", c.bucket, o.Key); err != nil {
			return err
		}
	}
	out := struct {
		XMLName      xml.Name `xml:"DeleteResult"`
		EncodingType string   `xml:",omitempty"`
		Deleted      []deletedObject
	}{EncodingType: encoding}
	for _, o := range d.Object {
		marker, err := c.delete(o.Key, o.VersionId)
		if err != nil {
			return err
		}
		if !d.Quiet {
			out.Deleted = append(out.Deleted, deletedObject{encode(o.Key), o.VersionId, marker != "", marker})
		}
	}
	return c.answer(out)
}

// Replace puts content in the place of an object's, as a damaged disk would: without a
// word about it in the records, checksum and size included, if tell is not set; and with
// them if it is.
func (s *Server) Replace(bucketName, key string, content []byte, tell bool) error {
	written, err := s.store.write(bytes.NewReader(content))
	if err != nil {
		return err
	}
	return s.store.records.Update(bucketSpace(bucketName), func(w kv.Writer) error {
		var all versioned
		if found, err := get(w, objectKey(key), &all); err != nil || !found {
			return errors.Join(err, noSuchKey(key))
		}
		v := &all.Versions[len(all.Versions)-1]
		v.Files = []file{written.file}
		if tell {
			v.Size, v.CRC, v.ETag = written.Size, written.crc, written.etag()
		}
		return put(w, objectKey(key), all)
	})
}
