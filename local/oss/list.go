package oss

import (
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

// tokens is how a place in a listing is written: without what a URL escapes, since the SDK unescapes it.
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
}

type listedPrefix struct{ Prefix string }

type listDocument struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	Name, Prefix          string
	StartAfter            string `xml:",omitempty"`
	ContinuationToken     string `xml:",omitempty"`
	MaxKeys               int
	Delimiter             string `xml:",omitempty"`
	EncodingType          string `xml:",omitempty"`
	IsTruncated           bool
	NextContinuationToken string `xml:",omitempty"`
	KeyCount              int
	Contents              []listedObject
	CommonPrefixes        []listedPrefix
}

func (c *call) listObjects() error {
	limit, err := c.limit("max-keys", defaultKeys)
	if err != nil {
		return err
	}
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
	prefix, delimiter := q.Get("prefix"), q.Get("delimiter")
	d := listDocument{
		Name: c.bucket, Prefix: encode(prefix), StartAfter: encode(q.Get("start-after")), ContinuationToken: q.Get("continuation-token"),
		MaxKeys: limit, Delimiter: encode(delimiter), EncodingType: encoding,
	}
	last := ""
	err = c.s.store.records.View(bucketSpace(c.bucket), func(r kv.Reader) (bad error) {
		r.Ascend(objectKey(max(prefix, after)), func(key, value []byte) bool {
			name := string(key[1:])
			if key[0] != objectRecord || !strings.HasPrefix(name, prefix) {
				return false
			}
			if name <= after {
				return true
			}
			var all versioned
			if _, bad = get(r, key, &all); bad != nil {
				return false
			}
			v, there := all.newest()
			if !there {
				return true
			}
			common := ""
			if i := strings.Index(name[len(prefix):], delimiter); delimiter != "" && i >= 0 {
				common = name[:len(prefix)+i+len(delimiter)]
				if strings.HasPrefix(after, common) || len(d.CommonPrefixes) > 0 && d.CommonPrefixes[len(d.CommonPrefixes)-1].Prefix == encode(common) {
					last = name
					return true
				}
			}
			if d.KeyCount == limit {
				d.IsTruncated = true
				d.NextContinuationToken = tokens.EncodeToString([]byte(last))
				return false
			}
			last = name
			d.KeyCount++
			if common != "" {
				d.CommonPrefixes = append(d.CommonPrefixes, listedPrefix{encode(common)})
				return true
			}
			class := v.Header["X-Oss-Storage-Class"]
			if class == "" {
				class = "Standard"
			}
			d.Contents = append(d.Contents, listedObject{
				Key: encode(name), LastModified: isoTime(v.Modified), ETag: v.ETag, Type: v.Type, Size: v.Size, StorageClass: class,
			})
			return true
		})
		return bad
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
	if c.query.Has("delimiter") {
		return invalidArgument("Listing uploads by a delimiter is not implemented here.")
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
