package shard

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/klauspost/compress/zstd"

	"github.com/tablevault/tablevault/shared/table"
)

// An Entry says where a block of a shard stands and what it holds.
type Entry struct {
	// Offset is where the Avro block begins, Size the size of its record.
	Offset, Size int64
	Lane         int
	Rows         int
	First, Last  []byte // keys, as PlainBuffer
	CRC32C       uint32 // of the record as it is stored
}

// indexSchema is the Avro schema of an index object.
const indexSchema = `{"type":"record","name":"Entry","namespace":"tablevault","fields":[` +
	`{"name":"offset","type":"long"},` +
	`{"name":"size","type":"long"},` +
	`{"name":"lane","type":"int"},` +
	`{"name":"rows","type":"int"},` +
	`{"name":"first","type":"bytes"},` +
	`{"name":"last","type":"bytes"},` +
	`{"name":"crc32c","type":"long"}]}`

// maxIndex bounds an index object's entries, encoded.
const maxIndex = 64 << 20

// WriteIndex writes the index object of what was appended.
func (w *Writer) WriteIndex(dst io.Writer) error {
	b, sync := appendFileHeader(nil, indexSchema, metadataKey, w.header)
	var items []byte
	for _, e := range w.index {
		items = appendLong(items, e.Offset)
		items = appendLong(items, e.Size)
		items = appendLong(items, int64(e.Lane))
		items = appendLong(items, int64(e.Rows))
		items = appendBytes(items, e.First)
		items = appendBytes(items, e.Last)
		items = appendLong(items, int64(e.CRC32C))
	}
	if len(items) > maxIndex {
		return fmt.Errorf("shard: an index of %d bytes, want at most %d: end parts earlier", len(items), maxIndex)
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true))
	if err != nil {
		return fmt.Errorf("shard: %w", err)
	}
	defer z.Close()
	data := z.EncodeAll(items, nil)
	b = appendLong(b, int64(len(w.index)))
	b = appendLong(b, int64(len(data)))
	b = append(b, data...)
	b = append(b, sync[:]...)
	_, err = dst.Write(b)
	return err
}

// ReadIndex reads an index object.
func ReadIndex(src io.Reader) (Header, []Entry, error) {
	in := bufio.NewReader(src)
	meta, sync, err := readFileHeader(in, indexSchema, metadataKey)
	if err != nil {
		return Header{}, nil, err
	}
	h, err := decodeHeader(meta)
	if err != nil {
		return Header{}, nil, err
	}
	count, err := readLong(in)
	if err != nil {
		return h, nil, stops(err)
	}
	size, err := readLong(in)
	if err != nil {
		return h, nil, stops(err)
	}
	if count < 0 || size < 0 || size > maxIndex {
		return h, nil, corrupt("an index of %d entries in %d bytes", count, size)
	}
	data, err := io.ReadAll(io.LimitReader(in, size+int64(len(sync))))
	if err != nil {
		return h, nil, err
	}
	if int64(len(data)) != size+int64(len(sync)) || [16]byte(data[size:]) != sync {
		return h, nil, corrupt("an index without its end")
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		return h, nil, corrupt("bytes after the index")
	}
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxIndex))
	if err != nil {
		return h, nil, fmt.Errorf("shard: %w", err)
	}
	defer z.Close()
	items, err := z.DecodeAll(data[:size], nil)
	if err != nil {
		return h, nil, corrupt("the index does not decompress: %v", err)
	}
	c := cursor{b: items}
	var entries []Entry
	for range count {
		e := Entry{
			Offset: int64(c.int(0, math.MaxInt64)), Size: int64(c.int(1, maxRecord)), Lane: c.int(0, math.MaxInt32),
			Rows: c.int(0, math.MaxInt32), First: c.bytes(), Last: c.bytes(), CRC32C: uint32(c.int(0, math.MaxUint32)),
		}
		if c.bad {
			return h, nil, corrupt("an entry of the index")
		}
		for _, k := range [][]byte{e.First, e.Last} {
			if _, err := h.Schema.ParseKey(k); err != nil {
				return h, nil, corrupt("a key of the index: %v", err)
			}
		}
		entries = append(entries, e)
	}
	if !c.done() {
		return h, nil, corrupt("bytes after the entries")
	}
	return h, entries, nil
}

// FrameSize bounds the bytes that a block takes in the file from its Offset on.
func (e Entry) FrameSize() int64 { return e.Size + 32 }

// A BlockReader reads single blocks of a shard that its index has found. The
// blocks of a lane are read in their order, since a row may go on from one to
// the next.
type BlockReader struct {
	header  Header
	decoder *decoder
	sync    [16]byte
}

// NewBlockReader returns a reader of blocks of shards with the given header.
func NewBlockReader(h Header) (*BlockReader, error) {
	meta, err := h.encode()
	if err != nil {
		return nil, fmt.Errorf("shard: %w", err)
	}
	_, sync := appendFileHeader(nil, schema, metadataKey, meta)
	return &BlockReader{h, newDecoder(h.Schema, h.Seed), sync}, nil
}

// Read reads the block at src, which begins at the entry's offset.
func (r *BlockReader) Read(src io.Reader, e Entry, rows *Rows) error {
	in := Reader{src: bufio.NewReaderSize(io.LimitReader(src, e.FrameSize()), 4<<10), sync: r.sync, decoder: r.decoder}
	data, err := in.frame()
	if err != nil {
		return err
	}
	if int64(len(data)) != e.Size || crc(data) != e.CRC32C {
		return corrupt("the block at byte %d is not the one in the index", e.Offset)
	}
	if err := r.decoder.decode(data, rows); err != nil {
		return err
	}
	if rows.end != nil || rows.Lane != e.Lane {
		return corrupt("the block at byte %d is of another lane than in the index", e.Offset)
	}
	return nil
}

// Keys are the entry's least and greatest key.
func (e Entry) Keys(s table.Schema) (first, last table.Key, err error) {
	if first, err = s.ParseKey(e.First); err != nil {
		return nil, nil, err
	}
	last, err = s.ParseKey(e.Last)
	return first, last, err
}
