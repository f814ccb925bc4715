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
)

// source is the version that a request copies from: /bucket/object, escaped, with
// ?versionId=id or without.
func (c *call) source() (v version, err error) {
	path, query, _ := strings.Cut(strings.TrimPrefix(c.r.Header.Get("X-Oss-Copy-Source"), "/"), "?")
	parameters, err := url.ParseQuery(query)
	if err != nil || !only(parameters, "versionId") {
		return version{}, invalidArgument("The parameters of the copy source are not valid.")
	}
	// As parameters are: some clients write a space as a plus, and all of them a plus as
	// %2B.
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

// content is a range of what a version holds.
func (s *store) content(v version, from, to int64) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		err := s.parts(v, from, to, func(part io.Reader) error {
			_, err := io.Copy(w, part)
			return err
		})
		if errors.Is(err, os.ErrNotExist) {
			err = errDeleted // since it was found
		}
		w.CloseWithError(err)
	}()
	return r
}

// copyObject makes an object of another's content, with its headers or with those of the
// request.
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
	body := c.s.store.content(from, 0, from.Size)
	defer body.Close()
	written, err := c.s.store.write(body)
	if err != nil {
		return err
	}
	v, id, err := c.keep(b, header, written)
	if err != nil {
		return err
	}
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
	first, last := int64(0), from.Size-1
	if given := c.r.Header.Get("X-Oss-Copy-Source-Range"); given != "" {
		var ok bool
		if first, last, ok = parseRange(given, from.Size, false); !ok {
			return invalidArgument("The range of the copy source can't be served.")
		}
	}
	body := c.s.store.content(from, first, last+1)
	defer body.Close()
	written, err := c.s.store.write(body)
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
