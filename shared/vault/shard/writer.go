package shard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/tablevault/tablevault/shared/table"
)

func strictJSON(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("bytes after it")
	}
	return nil
}

func crc(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// A Writer writes a shard. It serves one goroutine at a time.
type Writer struct {
	dst    io.Writer
	schema table.Schema
	seed   uint64
	header []byte // as the file holds it
	sync   [16]byte
	offset int64
	ledger ledger
	index  []Entry
	// indexBytes is the size of the index's entries, encoded.
	indexBytes int
	// blocksEnd is where the end mark begins; 0 before Finish.
	blocksEnd int64
	frame     []byte
}

// NewWriter begins a shard.
func NewWriter(dst io.Writer, h Header) (*Writer, error) {
	meta, err := h.encode()
	if err != nil {
		return nil, fmt.Errorf("shard: %w", err)
	}
	if _, err := decodeHeader(meta); err != nil {
		return nil, fmt.Errorf("%w: the header: %v", ErrReadBack, err)
	}
	w := &Writer{dst: dst, schema: h.Schema, seed: h.Seed, header: meta, ledger: newLedger()}
	w.frame, w.sync = appendFileHeader(nil, schema, pair{headerKey, meta})
	return w, w.flush()
}

func (w *Writer) flush() error {
	n, err := w.dst.Write(w.frame)
	w.offset += int64(n)
	return err
}

// Bytes is how many bytes the shard has so far.
func (w *Writer) Bytes() int64 { return w.offset }

// Blocks is how many blocks the shard has so far.
func (w *Writer) Blocks() int64 { return w.ledger.sum.Blocks }

// Full says that the shard should end, since its index is large: well before there can be
// none.
func (w *Writer) Full() bool { return w.indexBytes >= fullIndex || len(w.index) >= fullEntries }

// Append writes a block. The blocks of a lane come in the order of their keys; those of
// several lanes may alternate.
func (w *Writer) Append(b *Block) error {
	if b.Lane < 0 || b.Lane >= maxLanes {
		return fmt.Errorf("shard: lane %d, want 0 to %d", b.Lane, maxLanes-1)
	}
	if len(b.data) > maxRecord {
		return fmt.Errorf("shard: a block of %d bytes, want at most %d", len(b.data), maxRecord)
	}
	if err := w.ledger.add(b.account()); err != nil {
		return fmt.Errorf("shard: %w", err)
	}
	first, err := w.schema.AppendKey(nil, b.First)
	if err != nil {
		return fmt.Errorf("shard: %w", err)
	}
	last, err := w.schema.AppendKey(nil, b.Last)
	if err != nil {
		return fmt.Errorf("shard: %w", err)
	}
	e := Entry{
		Offset: w.offset, Size: int64(len(b.data)), Lane: b.Lane, Rows: b.Rows, First: first, Last: last,
		CRC32C: crc(b.data),
	}
	w.index = append(w.index, e)
	w.frame = e.appendTo(w.frame[:0]) // until the block is written
	w.indexBytes += len(w.frame)
	return w.write(b.data)
}

func (w *Writer) write(data []byte) error {
	w.frame = appendLong(w.frame[:0], 1)
	w.frame = appendLong(w.frame, int64(len(data)))
	w.frame = append(w.frame, data...)
	w.frame = append(w.frame, w.sync[:]...)
	return w.flush()
}

// Finish writes the end mark. lanes says what the shard covers, lane by lane.
func (w *Writer) Finish(lanes []Lane) (Summary, error) {
	if len(lanes) > maxLanes {
		return w.ledger.sum, fmt.Errorf("shard: %d lanes, want at most %d", len(lanes), maxLanes)
	}
	mark := w.ledger.sum
	mark.Lanes = lanes
	if err := w.ledger.ends(&mark); err != nil {
		return mark, fmt.Errorf("shard: %w", err)
	}
	b, err := appendEnd(w.schema, &mark)
	if err != nil {
		return mark, err
	}
	z := newCompressor(zstd.SpeedFastest)
	defer z.Close()
	data := z.EncodeAll(b, nil)
	if err := w.readBackEnd(data, &mark); err != nil {
		return mark, err
	}
	w.blocksEnd, w.ledger.sum = w.offset, mark
	return mark, w.write(data)
}

// appendEnd is the record of an end mark.
func appendEnd(schema table.Schema, mark *Summary) ([]byte, error) {
	b := appendLong(nil, kindEnd)
	b = appendLong(b, 0)
	b = appendLong(b, 0)
	b = appendLong(b, mark.Rows)
	b = appendLong(b, mark.Blocks)
	b = mark.Digest.Append(b)
	for range 1 + emptyArrays {
		b = append(b, 0)
	}
	var items []byte
	for i, l := range mark.Lanes {
		for _, k := range []table.Key{l.From, l.Next} {
			key, err := schema.AppendKey(nil, k)
			if err != nil {
				return nil, fmt.Errorf("shard: lane %d: %w", i, err)
			}
			items = appendBytes(items, key)
		}
		items = appendLong(items, l.Rows)
	}
	return (&array{items, len(mark.Lanes)}).appendTo(b), nil
}
