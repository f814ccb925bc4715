package shard

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A Reader reads a shard from its beginning to its end, believing nothing: what it gives
// out has been checked against the checksums that Tablestore sent, the record's digest,
// and, by the time it returns io.EOF, the end mark. It serves one goroutine.
type Reader struct {
	Header Header

	src     *bufio.Reader
	decoder *decoder
	sync    [16]byte
	data    []byte
	ledger  ledger
	ended   bool
	offset  int64 // of the block
	size    int64 // of the block at hand
}

// readBuffer is the size of a Reader's buffer. A record is read past it.
const readBuffer = 64 << 10

// NewReader reads the header of a shard.
func NewReader(src io.Reader) (*Reader, error) {
	r := &Reader{src: bufio.NewReaderSize(src, readBuffer), ledger: newLedger()}
	values, sync, err := readFileHeader(r.src, schema, headerKey)
	if err != nil {
		return nil, err
	}
	if r.Header, err = decodeHeader(values[0]); err != nil {
		return nil, err
	}
	r.sync, r.offset = sync, r.Header.size()
	r.decoder = newDecoder(r.Header.Schema, r.Header.Seed)
	return r, nil
}

// readFileHeader reads a container file's header as this package writes it and no other,
// and returns the metadata under keys.
func readFileHeader(src *bufio.Reader, schema string, keys ...string) ([][]byte, [16]byte, error) {
	var sync [16]byte
	read := &recorder{src: src}
	if !bytes.Equal(read.take(len(magic)), []byte(magic)) {
		if read.err != nil && !errors.Is(read.err, io.ErrUnexpectedEOF) {
			return nil, sync, read.err
		}
		return nil, sync, corrupt("it does not begin as an Avro container file")
	}
	count := read.long()
	meta := map[string][]byte{}
	for range min(count, 16) {
		name := read.bytes()
		meta[string(name)] = read.bytes()
		if read.err != nil {
			break
		}
	}
	read.long()
	read.take(len(sync))
	if read.err != nil {
		return nil, sync, read.corrupt("header")
	}
	var pairs []pair
	var values [][]byte
	for _, k := range keys {
		pairs = append(pairs, pair{k, meta[k]})
		values = append(values, meta[k])
	}
	want, sync := appendFileHeader(nil, schema, pairs...)
	if !bytes.Equal(want, read.all) {
		// Another version has another schema: say so, if the header can.
		if _, err := decodeHeader(meta[headerKey]); errors.Is(err, ErrVersion) {
			return nil, sync, err
		}
		return nil, sync, corrupt("its header is not one of version %d", Format)
	}
	return values, sync, nil
}

// recorder reads a header and remembers its bytes.
type recorder struct {
	src *bufio.Reader
	all []byte
	err error
}

func (r *recorder) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || len(r.all)+n > maxHeader {
		r.err = corrupt("its header is longer than %d bytes", maxHeader)
		return nil
	}
	at := len(r.all)
	r.all = append(r.all, make([]byte, n)...)
	if _, err := io.ReadFull(r.src, r.all[at:]); err != nil {
		r.err = unexpected(err)
		return nil
	}
	return r.all[at:]
}

func (r *recorder) long() int64 {
	var v uint64
	for shift := 0; shift < 64; shift += 7 {
		b := r.take(1)
		if b == nil {
			return 0
		}
		v |= uint64(b[0]&0x7f) << shift
		if b[0] < 0x80 {
			return int64(v>>1) ^ -int64(v&1)
		}
	}
	r.err = corrupt("a number of more than 64 bits")
	return 0
}

func (r *recorder) bytes() []byte {
	n := r.long()
	if n < 0 || n > maxHeader {
		r.err = corrupt("its header is longer than %d bytes", maxHeader)
		return nil
	}
	return r.take(int(n))
}

func (r *recorder) corrupt(where string) error {
	if errors.Is(r.err, io.ErrUnexpectedEOF) {
		return corrupt("it stops in its %s", where)
	}
	return r.err
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Next reads the next block into rows. It returns io.EOF after the end mark, if the
// totals are right and nothing follows.
func (r *Reader) Next(rows *Rows) error {
	if r.ended {
		return io.EOF
	}
	data, err := r.frame()
	if err == nil {
		err = r.decoder.decode(data, rows)
	}
	if err != nil {
		return r.at(err)
	}
	if rows.end != nil {
		return r.finish(rows.end)
	}
	if err := r.ledger.add(rows.account()); err != nil {
		return r.at(corrupt("%v", err))
	}
	r.offset += r.size
	return nil
}

func (r *Reader) at(err error) error {
	return fmt.Errorf("block %d, at byte %d: %w", r.ledger.sum.Blocks, r.offset, err)
}

// Summary is the shard's totals; they are right once Next has returned io.EOF.
func (r *Reader) Summary() Summary { return r.ledger.sum }

// frame reads one Avro block: the count 1, the size, the record, the marker.
func (r *Reader) frame() ([]byte, error) {
	count, err := readLong(r.src)
	if err != nil {
		return nil, stops(err)
	}
	size, err := readLong(r.src)
	if err != nil {
		return nil, stops(err)
	}
	if count != 1 || size <= 0 || size > maxRecord {
		return nil, corrupt("an Avro block of %d records in %d bytes", count, size)
	}
	n := int(size) + len(r.sync)
	if cap(r.data) < n {
		r.data = make([]byte, n)
	}
	r.data = r.data[:n]
	if _, err := io.ReadFull(r.src, r.data); err != nil {
		return nil, stops(unexpected(err))
	}
	if [16]byte(r.data[size:]) != r.sync {
		return nil, corrupt("no marker after the record")
	}
	r.size = int64(longSize(count) + longSize(size) + n)
	return r.data[:size], nil
}

func stops(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return corrupt("it stops without an end mark")
	}
	return err
}

func readLong(src io.ByteReader) (int64, error) {
	v, err := binary.ReadUvarint(src)
	if err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return 0, err
		}
		return 0, corrupt("a number of more than 64 bits")
	}
	return int64(v>>1) ^ -int64(v&1), nil
}

func (r *Reader) finish(end *Summary) error {
	if err := r.ledger.ends(end); err != nil {
		return r.at(corrupt("%v", err))
	}
	if _, err := r.src.ReadByte(); err != io.EOF {
		if err != nil {
			return err
		}
		return r.at(corrupt("bytes after the end mark"))
	}
	r.ledger.sum.Lanes = end.Lanes
	r.ended = true
	return io.EOF
}
