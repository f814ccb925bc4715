package kv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// A folder's log is a row of segments, files that hold one record after the
// other. A record is what was committed at once:
//
//	uint32  bytes of the payload
//	uint32  CRC-32C of the number and the payload
//	uint64  number, one more than that of the record before
//	payload steps
//
// A step is a byte for its kind and, with lengths as varints, a name or a key,
// and a value. A step in a space follows one that names the space.
const (
	stepSpace  = 1 // name: what follows is in this space
	stepPut    = 2 // lengths of the key and of the value, key, value
	stepDelete = 3 // key
	stepDrop   = 4 // the space goes

	recordHead = 16

	// segmentSize is the size at which a segment ends. One record may be larger.
	segmentSize = 64 << 20

	segmentSuffix = ".log"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged is what is wrong with a log that was not merely cut short.
var errDamaged = errors.New("the log is damaged")

// A segment is a file of the log. Its bytes are read through its mapping, which
// has what was written to the file.
type segment struct {
	id   uint32
	file *os.File
	data []byte // the mapping
	size int    // of the records
	live int    // bytes of entries that are in force
}

func segmentName(dir string, id uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%010d%s", id, segmentSuffix))
}

// segments returns the numbers of the log's segments, in order.
func segments(dir string) ([]uint32, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var ids []uint32
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), segmentSuffix)
		if id, err := strconv.ParseUint(digits, 10, 32); ok && err == nil {
			ids = append(ids, uint32(id))
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// createSegment makes an empty segment with room for so many bytes.
func createSegment(dir string, id uint32, room int) (*segment, error) {
	f, err := os.OpenFile(segmentName(dir, id), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	s := &segment{id: id, file: f}
	if err := errors.Join(s.resize(room), syncDir(dir)); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

func openSegment(dir string, id uint32) (*segment, error) {
	f, err := os.OpenFile(segmentName(dir, id), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	s := &segment{id: id, file: f}
	info, err := f.Stat()
	if err == nil {
		err = s.mapFile(int(info.Size()))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// resize sets the size of the file and maps it. What is beyond its records is
// zero then.
func (s *segment) resize(size int) error {
	if err := errors.Join(s.unmap(), s.file.Truncate(int64(s.size)), s.file.Truncate(int64(size))); err != nil {
		return err
	}
	return s.mapFile(size)
}

func (s *segment) mapFile(size int) (err error) {
	if size == 0 {
		return nil
	}
	if s.data, err = syscall.Mmap(int(s.file.Fd()), 0, size, syscall.PROT_READ, syscall.MAP_SHARED); err != nil {
		err = fmt.Errorf("map %s: %w", s.file.Name(), err)
	}
	return err
}

func (s *segment) unmap() error {
	if s.data == nil {
		return nil
	}
	data := s.data
	s.data = nil
	return syscall.Munmap(data)
}

// end cuts the room off that the segment does not need any more. Its entries
// stay readable.
func (s *segment) end() error {
	return errors.Join(s.file.Truncate(int64(s.size)), s.file.Sync())
}

func (s *segment) close() error { return errors.Join(s.unmap(), s.file.Close()) }

func (s *segment) remove() error { return errors.Join(s.close(), os.Remove(s.file.Name())) }

// write appends a record, of whose head there is room at the start of b, and
// waits until it is durable.
func (s *segment) write(b []byte, number uint64) error {
	binary.LittleEndian.PutUint32(b, uint32(len(b)-recordHead))
	binary.LittleEndian.PutUint64(b[8:], number)
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
	if _, err := s.file.WriteAt(b, int64(s.size)); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return errUnsynced{err}
	}
	s.size += len(b)
	return nil
}

// errUnsynced is an error after which nobody knows what the file holds.
type errUnsynced struct{ error }

func (e errUnsynced) Unwrap() error { return e.error }

// record returns the number and the payload of the record at a place. There is
// none where the bytes are no whole record.
func (s *segment) record(at int) (number uint64, payload []byte, ok bool) {
	if len(s.data)-at < recordHead {
		return 0, nil, false
	}
	head := s.data[at : at+recordHead]
	n := uint64(binary.LittleEndian.Uint32(head))
	if n == 0 || n > uint64(len(s.data)-at-recordHead) {
		return 0, nil, false
	}
	end := at + recordHead + int(n)
	if crc32.Checksum(s.data[at+8:end], castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
		return 0, nil, false
	}
	return binary.LittleEndian.Uint64(head[8:]), s.data[at+recordHead : end : end], true
}

// brokenOff says whether the bytes at a place, where no whole record stands, are what
// is left of the last one, during whose writing the process or the machine died:
// nothing follows it then.
func (s *segment) brokenOff(at int) bool {
	rest := s.data[at:]
	if len(rest) < recordHead {
		return true
	}
	n := uint64(binary.LittleEndian.Uint32(rest))
	if n == 0 || n > uint64(len(rest)-recordHead) {
		return true
	}
	for _, b := range rest[recordHead+int(n):] {
		if b != 0 {
			return false
		}
	}
	return true
}

// A step is one of a payload.
type step struct {
	kind byte
	name []byte // the space's, or the key
	// The value of a put stands at the place at of the payload.
	at, size int
}

// steps calls fn with each step of a payload.
func steps(payload []byte, fn func(step) error) error {
	for at := 0; at < len(payload); {
		st := step{kind: payload[at]}
		at++
		length := func() int {
			n, k := binary.Uvarint(payload[at:])
			if k <= 0 || n > uint64(len(payload)) {
				at = len(payload) + 1
				return 0
			}
			at += k
			return int(n)
		}
		var n int
		switch st.kind {
		case stepSpace, stepDelete:
			n = length()
		case stepPut:
			if n = length(); at <= len(payload) {
				st.size = length()
			}
		case stepDrop:
		default:
			return fmt.Errorf("%w: a step of the unknown kind %d", errDamaged, st.kind)
		}
		if at > len(payload) || n+st.size > len(payload)-at {
			return fmt.Errorf("%w: a step is cut short", errDamaged)
		}
		st.name = payload[at : at+n : at+n]
		st.at = at + n
		at = st.at + st.size
		if err := fn(st); err != nil {
			return err
		}
	}
	return nil
}

func appendStep(b []byte, kind byte, name []byte) []byte {
	b = binary.AppendUvarint(append(b, kind), uint64(len(name)))
	return append(b, name...)
}

// appendPut appends a put and returns the place of its value.
func appendPut(b, key, value []byte) ([]byte, int) {
	b = binary.AppendUvarint(append(b, stepPut), uint64(len(key)))
	b = binary.AppendUvarint(b, uint64(len(value)))
	b = append(b, key...)
	return append(b, value...), len(b) // before the value
}
