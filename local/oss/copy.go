package oss

import (
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/tablevault/tablevault/local/ots/kv"
)

// source is the version that a request copies from: /bucket/object, escaped, with ?versionId=id or without.
func (c *call) source() (v version, err error) {
	path, query, _ := strings.Cut(strings.TrimPrefix(c.r.Header.Get("X-Oss-Copy-Source"), "/"), "?")
	parameters, err := url.ParseQuery(query)
	if err != nil || !only(parameters, "versionId") {
		return version{}, invalidArgument("The parameters of the copy source are not valid.")
	}
	// As parameters are: some clients write a space as a plus, and all of them a plus as %2B.
	if path, err = url.QueryUnescape(path); err != nil {
		return version{}, invalidArgument("The copy source can't be decoded.")
	}
	bucket, object, _ := strings.Cut(path, "/")
	if !validBucket(bucket) || object == "" || !validKey(object) {
		return version{}, invalidArgument("Copy Source must mention the source bucket and key: /sourcebucket/sourcekey.")
	}
	if err := c.allowed("GetObject", bucket, object); err != nil {
		return version{}, err
	}
	from := *c
	from.bucket = bucket
	if err := from.located(); err != nil {
		return version{}, err
	}
	if v, err = c.find(bucket, object, parameters.Get("versionId")); err != nil {
		return version{}, err
	}
	return v, c.conditions("X-Oss-Copy-Source-", v)
}

// content is what a version holds, in the order of its files.
func (s *store) content(v version) io.ReadCloser {
	r, w := io.Pipe()
	go func() { w.CloseWithError(s.copyTo(w, v)) }()
	return r
}

func (s *store) copyTo(w io.Writer, v version) error {
	for _, f := range v.Files {
		opened, err := s.open(f)
		if errors.Is(err, os.ErrNotExist) {
			return errDeleted // since it was found
		}
		if err != nil {
			return err
		}
		_, err = io.Copy(w, io.NewSectionReader(opened, 0, f.Size))
		if err := errors.Join(err, opened.Close()); err != nil {
			return err
		}
	}
	return nil
}

// copyObject makes an object of another's content, with its headers or with those of the request.
func (c *call) copyObject() error {
	b, err := c.getBucket()
	if err != nil {
		return err
	}
	from, err := c.source()
	if err != nil {
		return err
	}
	header, err := c.header()
	if err != nil {
		return err
	}
	switch directive := c.r.Header.Get("X-Oss-Metadata-Directive"); directive {
	case "", "COPY":
		// Only how it is kept can be said anew.
		kept := maps.Clone(from.Header)
		for _, name := range []string{"X-Oss-Server-Side-Encryption", "X-Oss-Server-Side-Encryption-Key-Id", "X-Oss-Storage-Class"} {
			delete(kept, name)
			if value := header[name]; value != "" {
				kept[name] = value
			}
		}
		header = kept
	case "REPLACE":
	default:
		return invalidArgument("The metadata directive is not COPY or REPLACE.")
	}
	body := c.s.store.content(from)
	defer body.Close()
	written, err := c.s.store.write(body)
	if err != nil {
		return err
	}
	v := version{Size: written.Size, CRC: written.crc, ETag: written.etag(), Modified: c.now.Truncate(time.Second), Header: header, Type: "Normal", Files: []file{written.file}}
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
	setVersion(c.w.Header(), id)
	setSource(c.w.Header(), from)
	c.w.Header().Set("ETag", v.ETag)
	c.setCRC(v.CRC)
	return c.answer(struct {
		XMLName            xml.Name `xml:"CopyObjectResult"`
		LastModified, ETag string
	}{LastModified: isoTime(v.Modified), ETag: v.ETag})
}

func setSource(h http.Header, from version) {
	if from.ID != "" {
		h.Set("X-Oss-Copy-Source-Version-Id", from.ID)
	}
}

// uploadPartCopy makes a part of another object's content, or of a range of it.
func (c *call) uploadPartCopy() error {
	number, err := c.partNumber()
	if err != nil {
		return err
	}
	if err := c.uploadExists(); err != nil {
		return err
	}
	from, err := c.source()
	if err != nil {
		return err
	}
	body := io.ReadCloser(c.s.store.content(from))
	defer body.Close()
	part := io.Reader(body)
	if given := c.r.Header.Get("X-Oss-Copy-Source-Range"); given != "" {
		first, last, ok := parseRange(given, from.Size, false)
		if !ok {
			return invalidArgument("The range of the copy source can't be served.")
		}
		if _, err := io.CopyN(io.Discard, body, first); err != nil {
			return err
		}
		part = io.LimitReader(body, last-first+1)
	}
	written, err := c.s.store.write(part)
	if err != nil {
		return err
	}
	p, err := c.keepPart(number, written)
	if err != nil {
		return err
	}
	setSource(c.w.Header(), from)
	c.w.Header().Set("ETag", p.ETag) // where some clients look for it
	c.setCRC(p.CRC)
	return c.answer(struct {
		XMLName            xml.Name `xml:"CopyPartResult"`
		LastModified, ETag string
	}{LastModified: isoTime(p.Modified), ETag: p.ETag})
}
