package shard

import (
	"bytes"
	"encoding/json"
	"errors"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/tablevault/tablevault/shared/table"
)

// TestIndexBomb reads small index objects that hold as much as they can: of those with
// more than an index may have nothing is kept, and no index takes much memory.
func TestIndexBomb(t *testing.T) {
	h := Header{Vault: "v", Backup: "b", Table: "t", Segment: "s", Schema: table.Schema{{Name: "k", Type: table.IntegerKey}}}
	key, err := h.Schema.AppendKey(nil, table.Key{table.Integer(1)})
	if err != nil {
		t.Fatal(err)
	}
	meta, err := h.encode()
	if err != nil {
		t.Fatal(err)
	}
	object := func(entries int64) []byte {
		var items []byte
		end := h.size()
		for range entries {
			for _, v := range []int64{end, 1, 0, 0} {
				items = appendLong(items, v)
			}
			items = appendLong(appendBytes(appendBytes(items, key), key), 0)
			end += Entry{Size: 1}.FrameSize()
		}
		totals, err := json.Marshal(totalsJSON{entries, 0, end})
		if err != nil {
			t.Fatal(err)
		}
		b, sync := appendFileHeader(nil, indexSchema, pair{headerKey, meta}, pair{totalsKey, totals})
		z := newCompressor(zstd.SpeedDefault)
		defer z.Close()
		data := z.EncodeAll(items, nil)
		b = appendLong(appendLong(b, entries), int64(len(data)))
		return append(append(b, data...), sync[:]...)
	}
	for _, c := range []struct {
		entries int64
		ok      bool
		most    uint64 // bytes allocated
	}{{1, true, 1 << 20}, {maxEntries, true, 96 << 20}, {maxEntries + 1, false, 1 << 20}, {1 << 20, false, 1 << 20}} {
		b := object(c.entries)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, entries, err := ReadIndex(bytes.NewReader(b))
		runtime.ReadMemStats(&after)
		if c.ok != (err == nil) || !c.ok && !errors.Is(err, ErrCorrupt) || c.ok && int64(len(entries)) != c.entries {
			t.Errorf("%d entries: %d, %v", c.entries, len(entries), err)
		}
		if grew := after.TotalAlloc - before.TotalAlloc; grew > c.most {
			t.Errorf("%d entries in %d bytes: %d bytes were allocated, want at most %d", c.entries, len(b), grew, c.most)
		}
	}
	// What decompresses to more than an index may have, with a number that is allowed.
	totals, err := json.Marshal(totalsJSON{1, 0, 0})
	if err != nil {
		t.Fatal(err)
	}
	b, sync := appendFileHeader(nil, indexSchema, pair{headerKey, meta}, pair{totalsKey, totals})
	z := newCompressor(zstd.SpeedDefault)
	defer z.Close()
	data := z.EncodeAll(make([]byte, 4*maxIndex), nil)
	b = append(append(appendLong(appendLong(b, 1), int64(len(data))), data...), sync[:]...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err = ReadIndex(bytes.NewReader(b))
	runtime.ReadMemStats(&after)
	if grew := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, ErrCorrupt) || grew > 4*maxIndex {
		t.Errorf("%d bytes that decompress to %d: %v, and %d bytes were allocated", len(b), 4*maxIndex, err, grew)
	}
}

// TestFullIndex: a shard is full before its index has more entries than a reader takes.
func TestFullIndex(t *testing.T) {
	w := &Writer{index: make([]Entry, fullEntries-1)}
	if w.Full() {
		t.Error("full before it is")
	}
	w.index = append(w.index, Entry{})
	if !w.Full() {
		t.Error("not full")
	}
}
