package oss

import (
	"bytes"
	"encoding/base64"
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

// header takes from a request what is kept with its object and answered with it.
func (c *call) header() (map[string]string, error) {
	kept := map[string]string{}
	for name, values := range c.r.Header {
		switch lower := strings.ToLower(name); {
		case strings.HasPrefix(lower, "x-oss-meta-"):
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
		return refuse(&Error{http.StatusBadRequest, "InvalidDigest", "The Content-MD5 you specified was invalid.", nil})
	}
	return written, nil
}

// place makes a version the newest of the call's object, as far as the bucket lets it, and returns the files that have
// no name any more, and the version's id. It is called in an update.
func (c *call) place(w kv.Writer, b bucket, v version, forbid bool) (old []file, id string, err error) {
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
	v := version{Size: written.Size, CRC: written.crc, ETag: written.etag(), Modified: c.now.Truncate(time.Second), Header: header, Type: "Normal",
		Files: []file{written.file}}
	var old []file
	var id string
	err = c.s.store.records.Update(bucketSpace(c.bucket), func(w kv.Writer) (err error) {
		old, id, err = c.place(w, b, v, c.forbidsOverwrite())
		return err
	})
	if err != nil {
		c.s.store.remove(written.file)
		return err
	}
	c.s.store.remove(old...)
	c.created(v)
	h := c.w.Header()
	h.Set("ETag", v.ETag)
	c.setCRC(v.CRC)
	setVersion(h, id)
	h.Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusOK)
	return nil
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

// find returns the version that a request is about.
func (c *call) find() (v version, err error) {
	var all versioned
	found := false
	err = c.s.store.records.View(bucketSpace(c.bucket), func(r kv.Reader) error {
		found, err = get(r, objectKey(c.object), &all)
		return err
	})
	if err != nil {
		return version{}, err
	}
	if id := c.query.Get("versionId"); id != "" {
		for _, v := range all.Versions {
			if (v.ID == id || v.ID == "" && id == "null") && !v.Deleted {
				return v, nil
			}
		}
		return version{}, &Error{http.StatusNotFound, "NoSuchVersion", "The specified version does not exist.", map[string]string{"Key": c.object, "VersionId": id}}
	}
	if found {
		if v, found = all.newest(); found {
			return v, nil
		}
	}
	return version{}, noSuchKey(c.object)
}

// getObject answers GET and HEAD.
func (c *call) getObject() error {
	v, err := c.find()
	if err != nil {
		return err
	}
	if tag := c.r.Header.Get("If-Match"); tag != "" && strings.Trim(tag, `"`) != strings.Trim(v.ETag, `"`) {
		return &Error{http.StatusPreconditionFailed, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.",
			map[string]string{"Condition": "If-Match"}}
	}
	for _, class := range []string{"Archive", "ColdArchive", "DeepColdArchive"} {
		if v.Header["X-Oss-Storage-Class"] == class && c.r.Method == http.MethodGet {
			return &Error{http.StatusForbidden, "InvalidObjectState", "The operation is not valid for the object's state.", nil}
		}
	}
	h := c.w.Header()
	for name, value := range v.Header {
		h.Set(name, value)
	}
	if h.Get("X-Oss-Storage-Class") == "" {
		h.Set("X-Oss-Storage-Class", "Standard")
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

// send answers with a range of the content. What breaks after the first byte breaks the connection.
func (c *call) send(v version, from, to int64, status int) error {
	begun := false
	begin := func() {
		if !begun {
			c.w.WriteHeader(status)
			begun = true
		}
	}
	for _, f := range v.Files {
		if from >= f.Size || to <= 0 {
			from, to = max(from-f.Size, 0), to-f.Size
			continue
		}
		err := func() error {
			opened, err := c.s.store.open(f)
			if errors.Is(err, os.ErrNotExist) && !begun {
				return noSuchKey(c.object) // deleted since it was found
			}
			if err != nil {
				return err
			}
			defer opened.Close()
			begin()
			_, err = io.Copy(c.w, io.NewSectionReader(opened, from, min(to, f.Size)-from))
			return err
		}()
		if err != nil {
			if begun {
				panic(http.ErrAbortHandler)
			}
			return err
		}
		from, to = 0, to-f.Size
	}
	begin()
	return nil
}

// parseRange parses a range of an object of size bytes, and reports whether it can be served: one of "bytes=a-b",
// "bytes=a-" and "bytes=-n". A range that goes beyond the end can be served, up to the end, only by the standard; without
// it the service answers it with the whole object.
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
	b, err := c.getBucket()
	if err != nil {
		return err
	}
	var old []file
	var marker string
	err = c.s.store.records.Update(bucketSpace(c.bucket), func(w kv.Writer) error {
		key := objectKey(c.object)
		var all versioned
		if found, err := get(w, key, &all); err != nil || !found {
			return err
		}
		var kept []version
		switch id := c.query.Get("versionId"); {
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
		return err
	}
	c.s.store.remove(old...)
	if marker != "" {
		c.w.Header().Set("X-Oss-Delete-Marker", "true")
		setVersion(c.w.Header(), marker)
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// Replace puts content in the place of an object's, as a damaged disk would: without a word about it in the records,
// checksum and size included, if tell is not set; and with them if it is.
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
