package oss

import (
	"bytes"
	"crypto/md5"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tablevault/tablevault/local/ots/kv"
)

// store keeps what the server keeps: content in files with names of their own, and
// records in a kv.Store, where a space holds one bucket. The first byte of a record's key
// says what it is.
type store struct {
	dir      string // of the files
	volatile bool   // nothing is made durable, and the folder goes with the store
	records  kv.Store
	buffers  sync.Pool // of *[]byte

	mu    sync.Mutex
	small map[string][]byte // short content of a volatile store, by the names that its files would have
}

// short is the length of the longest content that a volatile store keeps in memory:
// making a file takes longer than all else that a request does.
const short = 64 << 10

const (
	objectRecord = 'o' // then the object's name
	uploadRecord = 'u' // then the object's name, a zero byte, and the upload's id
	partRecord   = 'p' // then the upload's id, and the part's number in five digits

	bucketsSpace = "buckets"
)

// versioned is an object with its versions, the newest last. In a bucket without versions
// there is one.
type versioned struct {
	Versions []version
}

// version is one version of an object. Its content is the files one after the other.
type version struct {
	ID       string `json:",omitempty"` // "null" or empty outside versioned buckets
	Deleted  bool   `json:",omitempty"` // a delete marker
	Size     int64
	CRC      uint64
	ETag     string
	Modified time.Time
	Header   map[string]string `json:",omitempty"` // as given, and answered again
	Type     string            // Normal or Multipart
	Files    []file            `json:",omitempty"`
}

type file struct {
	Name string
	Size int64
}

// upload is a multipart upload that was begun.
type upload struct {
	Key       string
	ID        string
	Initiated time.Time
	Header    map[string]string `json:",omitempty"`
}

// part is a part of an upload.
type part struct {
	Number   int
	Size     int64
	CRC      uint64
	ETag     string
	Modified time.Time
	File     string
}

func objectKey(name string) []byte { return append([]byte{objectRecord}, name...) }

func uploadKey(name, id string) []byte {
	return append([]byte{uploadRecord}, name+"\x00"+id...)
}

func partKey(id string, number int) []byte {
	return append([]byte{partRecord}, fmt.Sprintf("%s%05d", id, number)...)
}

// uploadIDLength is that of every id, so that ids and numbers can stand side by side in a
// key.
const uploadIDLength = 32

func newUploadID() string { return strings.ToUpper(newName()) }

func newName() string {
	var b [uploadIDLength / 2]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// openStore opens the store of a folder, or a new one in a temporary folder.
func openStore(dir string) (*store, error) {
	s := &store{volatile: dir == "", records: kv.Memory(), small: map[string][]byte{}}
	s.buffers.New = func() any {
		b := make([]byte, 256<<10)
		return &b
	}
	var err error
	if s.volatile {
		s.dir, err = temporary()
		return s, err
	}
	s.dir = filepath.Join(dir, "content")
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	if s.records, err = kv.Open(filepath.Join(dir, "records")); err != nil {
		return nil, err
	}
	if err := s.tidy(); err != nil {
		return nil, errors.Join(err, s.records.Close())
	}
	return s, nil
}

// tidy puts in order what the process before may have left half done when it ended.
func (s *store) tidy() error {
	var buckets []string
	err := s.records.View(bucketsSpace, func(r kv.Reader) error {
		r.Ascend(nil, func(key, _ []byte) bool {
			buckets = append(buckets, string(key))
			return true
		})
		return nil
	})
	if err != nil {
		return err
	}
	for _, bucket := range buckets {
		if err := s.revive(bucket); err != nil {
			return err
		}
	}
	return s.sweep(buckets)
}

// revive lets a bucket that is there take objects, though one of its name was deleted.
func (s *store) revive(bucket string) error {
	return s.records.Update(bucketSpace(bucket), func(w kv.Writer) error {
		w.Delete(goneRecord)
		return nil
	})
}

// sweep removes the files that no record names: what was on its way when the process
// before ended.
func (s *store) sweep(buckets []string) error {
	named := map[string]bool{}
	for _, bucket := range buckets {
		var bad error
		err := s.records.View(bucketSpace(bucket), func(r kv.Reader) error {
			r.Ascend(nil, func(key, value []byte) bool {
				switch key[0] {
				case objectRecord:
					var v versioned
					bad = json.Unmarshal(value, &v)
					for _, version := range v.Versions {
						for _, f := range version.Files {
							named[f.Name] = true
						}
					}
				case partRecord:
					var p part
					bad = json.Unmarshal(value, &p)
					named[p.File] = true
				}
				return bad == nil
			})
			return nil
		})
		if err = errors.Join(err, bad); err != nil {
			return fmt.Errorf("read the records of bucket %s: %w", bucket, err)
		}
	}
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if !named[f.Name()] {
			if err := os.Remove(filepath.Join(s.dir, f.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *store) close() error {
	err := s.records.Close()
	if s.volatile {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

func bucketSpace(bucket string) string { return "bucket-" + bucket }

// content is a file that was written.
type content struct {
	file
	crc uint64
	md5 [md5.Size]byte
}

func (c content) etag() string { return `"` + strings.ToUpper(hex.EncodeToString(c.md5[:])) + `"` }

// write stores a body under a new name, durably, and returns what it is.
func (s *store) write(body io.Reader) (c content, err error) {
	c.Name = newName()
	path := filepath.Join(s.dir, c.Name)
	var f *os.File
	defer func() {
		if f == nil {
			return
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			os.Remove(path)
		}
	}()
	buffer := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(buffer)
	table, sum := crc64.MakeTable(crc64.ECMA), md5.New()
	for end := false; !end; {
		n, err := io.ReadFull(body, *buffer)
		end = err == io.EOF || err == io.ErrUnexpectedEOF
		if err != nil && !end {
			return content{}, err
		}
		p := (*buffer)[:n]
		c.crc = crc64.Update(c.crc, table, p)
		sum.Write(p)
		c.Size += int64(n)
		if end && s.volatile && c.Size <= short {
			s.mu.Lock()
			s.small[c.Name] = bytes.Clone(p)
			s.mu.Unlock()
			break
		}
		if f == nil {
			if f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
				return content{}, err
			}
		}
		if _, err := f.Write(p); err != nil {
			return content{}, err
		}
	}
	sum.Sum(c.md5[:0])
	if s.volatile {
		return c, nil
	}
	if err := f.Sync(); err != nil {
		return content{}, err
	}
	return c, s.syncDir()
}

// open opens a file. The error matches fs.ErrNotExist if it was removed.
func (s *store) open(f file) (interface {
	io.ReaderAt
	io.Closer
}, error) {
	s.mu.Lock()
	p, ok := s.small[f.Name]
	s.mu.Unlock()
	if ok {
		return struct {
			io.ReaderAt
			io.Closer
		}{bytes.NewReader(p), io.NopCloser(nil)}, nil
	}
	return os.Open(filepath.Join(s.dir, f.Name))
}

// parts calls read with what lies in a range of a version's content, from file to file.
func (s *store) parts(v version, from, to int64, read func(part io.Reader) error) error {
	for _, f := range v.Files {
		if from < f.Size && to > 0 {
			if err := s.part(f, from, min(to, f.Size), read); err != nil {
				return err
			}
		}
		from, to = max(from-f.Size, 0), to-f.Size
	}
	return nil
}

func (s *store) part(f file, from, to int64, read func(part io.Reader) error) error {
	opened, err := s.open(f)
	if err != nil {
		return err
	}
	return errors.Join(read(io.NewSectionReader(opened, from, to-from)), opened.Close())
}

// files counts the files.
func (s *store) files() (int, error) {
	onDisk, err := os.ReadDir(s.dir)
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(onDisk) + len(s.small), err
}

// syncDir makes the names of new files durable.
func (s *store) syncDir() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// remove removes files that no record names any more. One that stays is swept at the next
// start.
func (s *store) remove(files ...file) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range files {
		if _, ok := s.small[f.Name]; ok {
			delete(s.small, f.Name)
			continue
		}
		os.Remove(filepath.Join(s.dir, f.Name))
	}
}

// get reads a record and reports whether it is there.
func get(r kv.Reader, key []byte, to any) (bool, error) {
	value := r.Get(key)
	if value == nil {
		return false, nil
	}
	if err := json.Unmarshal(value, to); err != nil {
		return false, fmt.Errorf("read the record %q: %w", key, err)
	}
	return true, nil
}

// put writes a record.
func put(w kv.Writer, key []byte, record any) error {
	value, err := json.Marshal(record)
	if err == nil {
		w.Put(key, value)
	}
	return err
}
