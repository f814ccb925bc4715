package oss

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"hash/crc64"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tablevault/tablevault/local/ots/kv"
	"github.com/tablevault/tablevault/shared/object/crc"
)

const (
	maxParts    = 10000
	minPartSize = 100 << 10 // of all parts but the last
)

func (c *call) initiateMultipartUpload() error {
	b, err := c.getBucket()
	if err != nil {
		return err
	}
	header, err := c.header()
	if err != nil {
		return err
	}
	u := upload{Key: c.object, ID: newUploadID(), Initiated: c.now, Header: header}
	err = c.s.store.records.Update(bucketSpace(c.bucket), func(w kv.Writer) error {
		if isGone(w) {
			return noSuchBucket(c.bucket)
		}
		var before versioned
		if _, err := get(w, objectKey(c.object), &before); err != nil {
			return err
		}
		if _, exists := before.newest(); exists && (c.forbidsOverwrite() || b.forbids(c.object)) && b.Versioning == "" {
			return errExists
		}
		return put(w, uploadKey(u.Key, u.ID), u)
	})
	if err != nil {
		return err
	}
	return c.answer(struct {
		XMLName               xml.Name `xml:"InitiateMultipartUploadResult"`
		Bucket, Key, UploadId string
	}{Bucket: c.bucket, Key: c.object, UploadId: u.ID})
}

// getUpload reads the upload that a request names. An id of an odd length can't be one,
// and could be taken for another's with a part's number.
func (c *call) getUpload(r kv.Reader) (u upload, err error) {
	id := c.query.Get("uploadId")
	if len(id) == uploadIDLength {
		if found, err := get(r, uploadKey(c.object, id), &u); err != nil || found {
			return u, err
		}
	}
	return u, noSuchUpload(id)
}

func (c *call) partNumber() (int, error) {
	number, err := strconv.Atoi(c.query.Get("partNumber"))
	if err != nil || number < 1 || number > maxParts {
		return 0, invalidArgument("Part number must be an integer between 1 and 10000, inclusive.")
	}
	return number, nil
}

func (c *call) uploadPart() error {
	number, err := c.partNumber()
	if err != nil {
		return err
	}
	for name := range c.r.Header {
		if strings.HasPrefix(name, "X-Oss-Server-Side-Encryption") {
			return invalidArgument("The encryption is given where the upload begins, not with its parts.")
		}
	}
	if err := c.uploadExists(); err != nil {
		return err
	}
	written, err := c.readBody()
	if err != nil {
		return err
	}
	p, err := c.keepPart(number, written)
	if err != nil {
		return err
	}
	c.w.Header().Set("ETag", p.ETag)
	c.setCRC(p.CRC)
	c.w.Header().Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusOK)
	return nil
}

// uploadExists is a look before a body is read: those for uploads that are not there
// would be stored for nothing.
func (c *call) uploadExists() error {
	return c.s.store.records.View(bucketSpace(c.bucket), func(r kv.Reader) error {
		_, err := c.getUpload(r)
		return err
	})
}

// keepPart makes what was written a part of the upload that the request names, in the
// place of one of its number.
func (c *call) keepPart(number int, written content) (part, error) {
	p := part{Number: number, Size: written.Size, CRC: written.crc, ETag: written.etag(), Modified: c.now, File: written.Name}
	var before part
	err := c.s.store.records.Update(bucketSpace(c.bucket), func(w kv.Writer) error {
		u, err := c.getUpload(w)
		if err != nil {
			return err
		}
		key := partKey(u.ID, number)
		if _, err := get(w, key, &before); err != nil {
			return err
		}
		return put(w, key, p)
	})
	if err != nil {
		c.s.store.remove(written.file)
		return part{}, err
	}
	if before.File != "" {
		c.s.store.remove(file{Name: before.File})
	}
	return p, nil
}

// partsOf returns the parts of an upload in order.
func partsOf(r kv.Reader, id string) (parts []part, err error) {
	prefix := string(partKey(id, 0)[:1+len(id)])
	r.Ascend([]byte(prefix), func(key, _ []byte) bool {
		if !strings.HasPrefix(string(key), prefix) {
			return false
		}
		var p part
		if _, err = get(r, key, &p); err != nil {
			return false
		}
		parts = append(parts, p)
		return true
	})
	return parts, err
}

type completeDocument struct {
	XMLName xml.Name `xml:"CompleteMultipartUpload"`
	Part    []struct {
		PartNumber int
		ETag       string
	}
}

func (c *call) completeMultipartUpload() error {
	b, err := c.getBucket()
	if err != nil {
		return err
	}
	var d completeDocument
	if err := c.document(&d); err != nil {
		return err
	}
	if len(d.Part) == 0 || len(d.Part) > maxParts {
		return malformedXML("Part")
	}
	v := version{Modified: c.now.Truncate(time.Second), Type: "Multipart"}
	var old []file
	var id string
	err = c.s.store.records.Update(bucketSpace(c.bucket), func(w kv.Writer) error {
		u, err := c.getUpload(w)
		if err != nil {
			return err
		}
		parts, err := partsOf(w, u.ID)
		if err != nil {
			return err
		}
		chosen, err := choose(parts, d)
		if err != nil {
			return err
		}
		v.assemble(chosen)
		v.Header = u.Header
		if old, id, err = c.place(w, b, v, c.forbidsOverwrite()); err != nil {
			return err
		}
		w.Delete(uploadKey(u.Key, u.ID))
		for _, p := range parts {
			w.Delete(partKey(u.ID, p.Number))
			if !slices.ContainsFunc(chosen, func(o part) bool { return o.Number == p.Number }) {
				old = append(old, file{Name: p.File})
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.s.store.remove(old...)
	c.created(v)
	c.setCRC(v.CRC)
	setVersion(c.w.Header(), id)
	return c.answer(struct {
		XMLName                     xml.Name `xml:"CompleteMultipartUploadResult"`
		Location, Bucket, Key, ETag string
	}{Location: "http://" + c.r.Host + c.r.URL.EscapedPath(), Bucket: c.bucket, Key: c.object, ETag: v.ETag})
}

// choose returns the parts that a document lists, which come in order and are those that
// were stored.
func choose(parts []part, d completeDocument) (chosen []part, err error) {
	invalid := func(why string, number int) *Error {
		return &Error{http.StatusBadRequest, "InvalidPart", why, map[string]string{"PartNumber": strconv.Itoa(number)}}
	}
	for i, listed := range d.Part {
		if i > 0 && listed.PartNumber <= d.Part[i-1].PartNumber {
			return nil, &Error{http.StatusBadRequest, "InvalidPartOrder", "The list of parts was not in ascending order.", nil}
		}
		at, found := slices.BinarySearchFunc(parts, listed.PartNumber, func(p part, number int) int { return p.Number - number })
		if !found || strings.Trim(listed.ETag, `"`) != strings.Trim(parts[at].ETag, `"`) {
			return nil, invalid("One or more of the specified parts could not be found or the specified entity tag might not have matched the part's entity tag.",
				listed.PartNumber)
		}
		if parts[at].Size < minPartSize && i < len(d.Part)-1 {
			return nil, &Error{http.StatusBadRequest, "EntityTooSmall", "Your proposed upload smaller than the minimum allowed size.",
				map[string]string{"MinSizeAllowed": strconv.Itoa(minPartSize), "ProposedSize": strconv.FormatInt(parts[at].Size, 10), "PartNumber": strconv.Itoa(listed.PartNumber)}}
		}
		chosen = append(chosen, parts[at])
	}
	return chosen, nil
}

// assemble makes a version of parts.
func (v *version) assemble(parts []part) {
	sum := md5.New()
	for _, p := range parts {
		v.CRC = crc.Combine(crc64.ECMA, v.CRC, p.CRC, p.Size)
		v.Size += p.Size
		v.Files = append(v.Files, file{Name: p.File, Size: p.Size})
		sum.Write([]byte(p.ETag))
	}
	v.ETag = fmt.Sprintf(`"%s-%d"`, strings.ToUpper(hex.EncodeToString(sum.Sum(nil))), len(parts))
}

func (c *call) abortMultipartUpload() error {
	var old []file
	err := c.s.store.records.Update(bucketSpace(c.bucket), func(w kv.Writer) error {
		u, err := c.getUpload(w)
		if err != nil {
			return err
		}
		parts, err := partsOf(w, u.ID)
		if err != nil {
			return err
		}
		w.Delete(uploadKey(u.Key, u.ID))
		for _, p := range parts {
			w.Delete(partKey(u.ID, p.Number))
			old = append(old, file{Name: p.File})
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.s.store.remove(old...)
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// Uploads counts the multipart uploads of a bucket that were begun and neither completed
// nor aborted.
func (s *Server) Uploads(bucket string) (count int, err error) {
	err = s.store.records.View(bucketSpace(bucket), func(r kv.Reader) error {
		r.Ascend([]byte{uploadRecord}, func(key, _ []byte) bool {
			if key[0] != uploadRecord {
				return false
			}
			count++
			return true
		})
		return nil
	})
	return count, err
}
