package shard

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

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

// totalsJSON is what an index's entries add up to.
type totalsJSON struct {
	Blocks int64 `json:"blocks"`
	Rows   int64 `json:"rows"`
	Bytes  int64 `json:"bytes"` // of the shard, up to its end mark
}

// maxIndex bounds an index object's entries, encoded, and maxEntries their number: a
// reader keeps more memory for an entry than it may take, compressed, in the object.
const (
	maxIndex   = 16 << 20
	maxEntries = 1 << 16
)

// fullIndex is the size of an index's entries, and fullEntries their number, at which a
// shard should end. Rows that compress very well would make more blocks than an index may
// have.
const (
	fullIndex   = maxIndex / 2
	fullEntries = maxEntries / 2
)

// appendTo appends the entry as it stands in an index.
func (e *Entry) appendTo(b []byte) []byte {
	b = appendLong(b, e.Offset)
	b = appendLong(b, e.Size)
	b = appendLong(b, int64(e.Lane))
	b = appendLong(b, int64(e.Rows))
	b = appendBytes(b, e.First)
	b = appendBytes(b, e.Last)
	return appendLong(b, int64(e.CRC32C))
}

// WriteIndex writes the index object of what was appended.
func (w *Writer) WriteIndex(dst io.Writer) error {
	if w.blocksEnd == 0 {
		return errors.New("shard: an index of a shard that is not finished")
	}
	totals, err := json.Marshal(totalsJSON{w.ledger.sum.Blocks, w.ledger.sum.Rows, w.blocksEnd})
	if err != nil {
		return fmt.Errorf("shard: %w", err)
	}
	b, sync := appendFileHeader(nil, indexSchema, pair{headerKey, w.header}, pair{totalsKey, totals})
	items := make([]byte, 0, w.indexBytes)
	for i := range w.index {
		items = w.index[i].appendTo(items)
	}
	if len(items) > maxIndex || len(w.index) > maxEntries {
		return fmt.Errorf("shard: an index of %d entries in %d bytes, want at most %d in %d: end parts earlier", len(w.index), len(items), maxEntries, maxIndex)
	}
	z := newCompressor(zstd.SpeedDefault)
	defer z.Close()
	data := z.EncodeAll(items, nil)
	b = appendLong(b, int64(len(w.index)))
	b = appendLong(b, int64(len(data)))
	b = append(b, data...)
	b = append(b, sync[:]...)
	if err := w.readBackIndex(b); err != nil {
		return err
	}
	_, err = dst.Write(b)
	return err
}

// readBackIndex reads an index object and holds it against the blocks.
func (w *Writer) readBackIndex(object []byte) error {
	_, entries, err := ReadIndex(bytes.NewReader(object))
	if err != nil {
		return fmt.Errorf("%w: the index: %v", ErrReadBack, err)
	}
	if !slices.EqualFunc(entries, w.index, func(a, b Entry) bool { return a.equal(&b) }) {
		return fmt.Errorf("%w: the index has other entries", ErrReadBack)
	}
	return nil
}

// ReadIndex reads an index object.
func ReadIndex(src io.Reader) (Header, []Entry, error) {
	in := bufio.NewReader(src)
	meta, sync, err := readFileHeader(in, indexSchema, headerKey, totalsKey)
	if err != nil {
		return Header{}, nil, err
	}
	h, err := decodeHeader(meta[0])
	if err != nil {
		return Header{}, nil, err
	}
	var totals totalsJSON
	if err := strictJSON(meta[1], &totals); err != nil {
		return h, nil, corrupt("the index's totals: %v", err)
	}
	count, err := readLong(in)
	if err != nil {
		return h, nil, stops(err)
	}
	size, err := readLong(in)
	if err != nil {
		return h, nil, stops(err)
	}
	if count < 0 || count > maxEntries || size < 0 || size > maxIndex {
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
	entries := make([]Entry, 0, count)
	var rows int64
	end := h.size()
	last := map[int]table.Key{}
	for i := range count {
		e := Entry{
			Offset: int64(c.int(end, end)), Size: int64(c.int(1, maxRecord)), Lane: c.int(0, maxLanes-1),
			Rows: c.int(0, maxRaw), First: c.bytes(), Last: c.bytes(), CRC32C: uint32(c.int(0, math.MaxUint32)),
		}
		if c.bad {
			return h, nil, corrupt("entry %d of the index", i)
		}
		first, next, err := e.Keys(h.Schema)
		if err != nil {
			return h, nil, corrupt("entry %d of the index: %v", i, err)
		}
		if before := last[e.Lane]; first.Compare(next) > 0 || before != nil && before.Compare(first) > 0 {
			return h, nil, corrupt("entry %d of the index is not in order: %v to %v after %v", i, first, next, before)
		}
		last[e.Lane] = next
		rows += int64(e.Rows)
		end += e.FrameSize()
		entries = append(entries, e)
	}
	if got := (totalsJSON{count, rows, end}); !c.done() || got != totals {
		return h, nil, corrupt("the index has %+v, it says %+v", got, totals)
	}
	return h, entries, nil
}

// size is the number of bytes of a shard's header.
func (h Header) size() int64 {
	meta, err := h.encode()
	if err != nil {
		return 0 // it was decoded
	}
	b, _ := appendFileHeader(nil, schema, pair{headerKey, meta})
	return int64(len(b))
}

// FrameSize is the number of bytes that the block takes in the file from its Offset on.
func (e Entry) FrameSize() int64 { return int64(longSize(1)+longSize(e.Size)) + e.Size + 16 }

// A BlockReader reads single blocks of a shard that its index has found. The blocks of a
// lane are read in their order, since a row may go on from one to the next.
type BlockReader struct {
	decoder *decoder
	sync    [16]byte
}

// NewBlockReader returns a reader of blocks of shards with the given header.
func NewBlockReader(h Header) (*BlockReader, error) {
	meta, err := h.encode()
	if err != nil {
		return nil, fmt.Errorf("shard: %w", err)
	}
	_, sync := appendFileHeader(nil, schema, pair{headerKey, meta})
	return &BlockReader{newDecoder(h.Schema, h.Seed), sync}, nil
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
