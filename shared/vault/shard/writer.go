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
	header []byte // as the file holds it
	sync   [16]byte
	offset int64
	sum    Summary
	lanes  map[int]laneState
	index  []Entry
	// blocksEnd is where the end mark begins; 0 before Finish.
	blocksEnd int64
	frame     []byte
}

type laneState struct {
	last  table.Key
	rows  int64
	inRow bool
}

// NewWriter begins a shard.
func NewWriter(dst io.Writer, h Header) (*Writer, error) {
	meta, err := h.encode()
	if err != nil {
		return nil, fmt.Errorf("shard: %w", err)
	}
	w := &Writer{dst: dst, schema: h.Schema, header: meta, lanes: map[int]laneState{}}
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

// Append writes a block. The blocks of a lane come in the order of their keys;
// those of several lanes may alternate.
func (w *Writer) Append(b *Block) error {
	if b.Lane < 0 || b.Lane >= maxLanes {
		return fmt.Errorf("shard: lane %d, want 0 to %d", b.Lane, maxLanes-1)
	}
	l := w.lanes[b.Lane]
	continues := b.flags&flagContinues != 0
	if continues != l.inRow {
		return fmt.Errorf("shard: lane %d: a piece of a row out of place", b.Lane)
	}
	if l.last != nil {
		if c := l.last.Compare(b.First); c > 0 || (c == 0) != continues {
			return fmt.Errorf("the rows are not in order: lane %d has %v after %v", b.Lane, b.First, l.last)
		}
	}
	first, err := w.schema.AppendKey(nil, b.First)
	if err != nil {
		return fmt.Errorf("shard: %w", err)
	}
	last, err := w.schema.AppendKey(nil, b.Last)
	if err != nil {
		return fmt.Errorf("shard: %w", err)
	}
	w.index = append(w.index, Entry{
		Offset: w.offset, Size: int64(len(b.data)), Lane: b.Lane, Rows: b.Rows, First: first, Last: last,
		CRC32C: crc(b.data),
	})
	l.last, l.inRow = b.Last, b.flags&flagUnfinished != 0
	l.rows += int64(b.Rows)
	w.lanes[b.Lane] = l
	w.sum.Rows += int64(b.Rows)
	w.sum.Blocks++
	w.sum.Digest.Add(b.Digest)
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
		return w.sum, fmt.Errorf("shard: %d lanes, want at most %d", len(lanes), maxLanes)
	}
	w.sum.Lanes = lanes
	for i, l := range w.lanes {
		if i < 0 || i >= len(lanes) || lanes[i].Rows != l.rows || l.inRow {
			return w.sum, fmt.Errorf("shard: lane %d has %d rows, of %d lanes that were said", i, l.rows, len(lanes))
		}
	}
	b := appendLong(nil, kindEnd)
	b = appendLong(b, 0)
	b = appendLong(b, 0)
	b = appendLong(b, w.sum.Rows)
	b = appendLong(b, w.sum.Blocks)
	b = w.sum.Digest.Append(b)
	for range 1 + emptyArrays {
		b = append(b, 0)
	}
	var items []byte
	for i, l := range lanes {
		if _, wrote := w.lanes[i]; l.Rows != 0 && !wrote {
			return w.sum, fmt.Errorf("shard: lane %d has no rows, %d were said", i, l.Rows)
		}
		for _, k := range []table.Key{l.From, l.Next} {
			key, err := w.schema.AppendKey(nil, k)
			if err != nil {
				return w.sum, fmt.Errorf("shard: lane %d: %w", i, err)
			}
			items = appendBytes(items, key)
		}
		items = appendLong(items, l.Rows)
	}
	b = (&array{items, len(lanes)}).appendTo(b)
	z := newCompressor(zstd.SpeedFastest)
	defer z.Close()
	w.blocksEnd = w.offset
	return w.sum, w.write(z.EncodeAll(b, nil))
}
