package oss

import (
	"cmp"
	"encoding/base64"
	"encoding/xml"
	"strconv"
	"strings"

	"github.com/tablevault/tablevault/local/ots/kv"
)

const (
	defaultKeys = 100
	mostKeys    = 1000
)

// tokens is how a place in a listing is written: without what a URL escapes, since the
// SDK unescapes it.
var tokens = base64.RawURLEncoding

// limit reads how many entries are wanted at most.
func (c *call) limit(parameter string, standard int) (int, error) {
	text := c.query.Get(parameter)
	if text == "" {
		return standard, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > mostKeys {
		return 0, invalidArgument("Argument " + parameter + " must be an integer between 1 and 1000.")
	}
	return n, nil
}

// encoder returns how names are written in the answer.
func (c *call) encoder() (encode func(string) string, encoding string, err error) {
	switch encoding = c.query.Get("encoding-type"); encoding {
	case "":
		return func(s string) string { return s }, "", nil
	case "url":
		return escapeURL, encoding, nil
	default:
		return nil, "", invalidArgument("Invalid Encoding Method specified in Request.")
	}
}

type listedObject struct {
	Key, LastModified, ETag, Type string
	Size                          int64
	StorageClass                  string
	Owner                         *owner `xml:",omitempty"`
}

type listedPrefix struct{ Prefix string }

// listing walks the objects of a bucket in order of their names.
type listing struct {
	prefix, delimiter string
	after             string // an object's name, or a common prefix, beyond which the walk begins
	limit             int
	deleted           bool // also those of which the newest version is a delete marker
}

// walk calls object for each object and common for each common prefix, which together are
// at most limit. It returns the last name that it came to, and whether there are more.
func (l listing) walk(r kv.Reader, object func(name string, v versioned), common func(prefix string)) (last string, more bool, bad error) {
	n, group := 0, ""
	r.Ascend(objectKey(max(l.prefix, l.after)), func(key, _ []byte) bool {
		name := string(key[1:])
		if key[0] != objectRecord || !strings.HasPrefix(name, l.prefix) {
			return false
		}
		if name <= l.after {
			return true
		}
		var all versioned
		if _, bad = get(r, key, &all); bad != nil {
			return false
		}
		if _, there := all.newest(); !there && !l.deleted {
			return true
		}
		in := ""
		if i := strings.Index(name[len(l.prefix):], l.delimiter); l.delimiter != "" && i >= 0 {
			in = name[:len(l.prefix)+i+len(l.delimiter)]
			if strings.HasPrefix(l.after, in) || group == in {
				return true
			}
		}
		if n == l.limit {
			more = true
			return false
		}
		n++
		if group = in; in != "" {
			last = in
			common(in)
			return true
		}
		last = name
		object(name, all)
		return true
	})
	return last, more, bad
}

// listedAs is how the newest version of an object stands in a listing.
func listedAs(name string, v version) listedObject {
	return listedObject{Key: name, LastModified: isoTime(v.Modified), ETag: v.ETag, Type: v.Type, Size: v.Size, StorageClass: v.class()}
}

type listDocument struct {
	XMLName        xml.Name `xml:"ListBucketResult"`
	Name, Prefix   string
	MaxKeys        int
	Delimiter      string
	EncodingType   string `xml:",omitempty"`
	IsTruncated    bool
	Contents       []listedObject
	CommonPrefixes []listedPrefix

	// Version 1. Marker is there also where it is empty.
	Marker     *string `xml:",omitempty"`
	NextMarker string  `xml:",omitempty"`

	// Version 2.
	StartAfter            string `xml:",omitempty"`
	ContinuationToken     string `xml:",omitempty"`
	NextContinuationToken string `xml:",omitempty"`
	KeyCount              *int   `xml:",omitempty"`
}

// listNow lists the objects as they are now into a document.
func (c *call) listNow(d *listDocument, encode func(string) string, after string, owned bool) (last string, err error) {
	l := listing{prefix: c.query.Get("prefix"), delimiter: c.query.Get("delimiter"), after: after}
	if l.limit, err = c.limit("max-keys", defaultKeys); err != nil {
		return "", err
	}
	d.Name, d.Prefix, d.MaxKeys, d.Delimiter = c.bucket, encode(l.prefix), l.limit, encode(l.delimiter)
	err = c.s.store.records.View(bucketSpace(c.bucket), func(r kv.Reader) (err error) {
		last, d.IsTruncated, err = l.walk(r, func(name string, all versioned) {
			v, _ := all.newest()
			o := listedAs(encode(name), v)
			if owned {
				o.Owner = c.s.owner()
			}
			d.Contents = append(d.Contents, o)
		}, func(prefix string) { d.CommonPrefixes = append(d.CommonPrefixes, listedPrefix{encode(prefix)}) })
		return err
	})
	return last, err
}

// listObjects is version 1, which goes on after a name.
func (c *call) listObjects() error {
	encode, encoding, err := c.encoder()
	if err != nil {
		return err
	}
	marker := encode(c.query.Get("marker"))
	d := listDocument{EncodingType: encoding, Marker: &marker}
	last, err := c.listNow(&d, encode, c.query.Get("marker"), true)
	if err != nil {
		return err
	}
	if d.IsTruncated {
		d.NextMarker = encode(last)
	}
	return c.answer(d)
}

// listObjectsV2 is version 2, which goes on after a token.
func (c *call) listObjectsV2() error {
	encode, encoding, err := c.encoder()
	if err != nil {
		return err
	}
	q := c.query
	after := q.Get("start-after")
	if token := q.Get("continuation-token"); token != "" {
		last, err := tokens.DecodeString(token)
		if err != nil {
			return invalidArgument("The continuation token provided is incorrect.")
		}
		after = string(last)
	}
	d := listDocument{EncodingType: encoding, StartAfter: encode(q.Get("start-after")), ContinuationToken: q.Get("continuation-token")}
	last, err := c.listNow(&d, encode, after, q.Get("fetch-owner") == "true")
	if err != nil {
		return err
	}
	n := len(d.Contents) + len(d.CommonPrefixes)
	d.KeyCount = &n
	if d.IsTruncated {
		d.NextContinuationToken = tokens.EncodeToString([]byte(last))
	}
	return c.answer(d)
}

type listedVersion struct {
	Key, VersionId string
	IsLatest       bool
	LastModified   string
	ETag           string `xml:",omitempty"`
	Type           string `xml:",omitempty"`
	Size           *int64 `xml:",omitempty"`
	StorageClass   string `xml:",omitempty"`
	Owner          *owner
}

// listObjectVersions lists all versions, the newest of each object first. The only
// version of an object in a bucket without versions is null. It goes on after a whole
// object, so that an object's versions come in one answer.
func (c *call) listObjectVersions() error {
	encode, encoding, err := c.encoder()
	if err != nil {
		return err
	}
	if c.query.Get("version-id-marker") != "" {
		return notImplemented("version-id-marker, since an object's versions come in one answer")
	}
	l := listing{prefix: c.query.Get("prefix"), delimiter: c.query.Get("delimiter"), after: c.query.Get("key-marker"), deleted: true}
	if l.limit, err = c.limit("max-keys", defaultKeys); err != nil {
		return err
	}
	d := struct {
		XMLName                                  xml.Name `xml:"ListVersionsResult"`
		Name, Prefix, KeyMarker, VersionIdMarker string
		MaxKeys                                  int
		Delimiter                                string
		EncodingType                             string `xml:",omitempty"`
		IsTruncated                              bool
		NextKeyMarker, NextVersionIdMarker       string `xml:",omitempty"`
		Version                                  []listedVersion
		DeleteMarker                             []listedVersion
		CommonPrefixes                           []listedPrefix
	}{Name: c.bucket, Prefix: encode(l.prefix), KeyMarker: encode(l.after), MaxKeys: l.limit, Delimiter: encode(l.delimiter), EncodingType: encoding}
	err = c.s.store.records.View(bucketSpace(c.bucket), func(r kv.Reader) error {
		last, more, err := l.walk(r, func(name string, all versioned) {
			for i := len(all.Versions) - 1; i >= 0; i-- {
				v := all.Versions[i]
				out := listedVersion{Key: encode(name), VersionId: cmp.Or(v.ID, "null"), IsLatest: i == len(all.Versions)-1, LastModified: isoTime(v.Modified), Owner: c.s.owner()}
				if v.Deleted {
					d.DeleteMarker = append(d.DeleteMarker, out)
					continue
				}
				out.ETag, out.Type, out.Size, out.StorageClass = v.ETag, v.Type, &v.Size, v.class()
				d.Version = append(d.Version, out)
			}
		}, func(prefix string) { d.CommonPrefixes = append(d.CommonPrefixes, listedPrefix{encode(prefix)}) })
		if d.IsTruncated = more; more {
			d.NextKeyMarker = encode(last)
		}
		return err
	})
	if err != nil {
		return err
	}
	return c.answer(d)
}

type listedUpload struct {
	Key, UploadId, StorageClass, Initiated string
}

type uploadsDocument struct {
	XMLName                                   xml.Name `xml:"ListMultipartUploadsResult"`
	Bucket, KeyMarker, UploadIdMarker         string
	NextKeyMarker, NextUploadIdMarker, Prefix string
	EncodingType                              string `xml:",omitempty"`
	MaxUploads                                int
	IsTruncated                               bool
	Upload                                    []listedUpload
}

func (c *call) listMultipartUploads() error {
	limit, err := c.limit("max-uploads", mostKeys)
	if err != nil {
		return err
	}
	encode, encoding, err := c.encoder()
	if err != nil {
		return err
	}
	if c.query.Get("delimiter") != "" {
		return notImplemented("delimiter of ListMultipartUploads")
	}
	prefix, keyMarker, idMarker := c.query.Get("prefix"), c.query.Get("key-marker"), c.query.Get("upload-id-marker")
	if keyMarker == "" {
		idMarker = ""
	}
	d := uploadsDocument{
		Bucket: c.bucket, KeyMarker: encode(keyMarker), UploadIdMarker: idMarker, Prefix: encode(prefix), MaxUploads: limit, EncodingType: encoding,
	}
	err = c.s.store.records.View(bucketSpace(c.bucket), func(r kv.Reader) (bad error) {
		r.Ascend(append([]byte{uploadRecord}, max(prefix, keyMarker)...), func(key, value []byte) bool {
			if key[0] != uploadRecord || !strings.HasPrefix(string(key[1:]), prefix) {
				return false
			}
			var u upload
			if _, bad = get(r, key, &u); bad != nil {
				return false
			}
			// Without an id, the marker is past all uploads of its key.
			if keyMarker != "" && (u.Key < keyMarker || u.Key == keyMarker && (idMarker == "" || u.ID <= idMarker)) {
				return true
			}
			if len(d.Upload) == limit {
				d.IsTruncated = true
				return false
			}
			d.Upload = append(d.Upload, listedUpload{encode(u.Key), u.ID, "Standard", isoTime(u.Initiated)})
			d.NextKeyMarker, d.NextUploadIdMarker = encode(u.Key), u.ID
			return true
		})
		return bad
	})
	if err != nil {
		return err
	}
	return c.answer(d)
}

type listedPart struct {
	PartNumber         int
	LastModified, ETag string
	HashCrc64ecma      uint64
	Size               int64
}

func (c *call) listParts() error {
	limit, err := c.limit("max-parts", mostKeys)
	if err != nil {
		return err
	}
	encode, encoding, err := c.encoder()
	if err != nil {
		return err
	}
	marker := 0
	if text := c.query.Get("part-number-marker"); text != "" {
		if marker, err = strconv.Atoi(text); err != nil || marker < 0 {
			return invalidArgument("Argument part-number-marker must be an integer.")
		}
	}
	var parts []part
	err = c.s.store.records.View(bucketSpace(c.bucket), func(r kv.Reader) error {
		u, err := c.getUpload(r)
		if err == nil {
			parts, err = partsOf(r, u.ID)
		}
		return err
	})
	if err != nil {
		return err
	}
	d := struct {
		XMLName               xml.Name `xml:"ListPartsResult"`
		Bucket, Key, UploadId string
		EncodingType          string `xml:",omitempty"`
		PartNumberMarker      int
		NextPartNumberMarker  int
		MaxParts              int
		IsTruncated           bool
		Part                  []listedPart
	}{Bucket: c.bucket, Key: encode(c.object), UploadId: c.query.Get("uploadId"), EncodingType: encoding, PartNumberMarker: marker, MaxParts: limit}
	for _, p := range parts {
		if p.Number <= marker {
			continue
		}
		if len(d.Part) == limit {
			d.IsTruncated = true
			break
		}
		d.Part = append(d.Part, listedPart{p.Number, isoTime(p.Modified), p.ETag, p.CRC, p.Size})
		d.NextPartNumberMarker = p.Number
	}
	return c.answer(d)
}
