// Package shard is the file of rows in a vault: an Avro object container file with the
// codec zstandard, whose every record is one block of about 1 MiB of rows, laid out in
// columns.
//
// Each block holds rows of one lane, in key order. Rows with the same list of (column,
// type) form a group and share the arrays of its columns; rows that share nothing stand
// in arrays of their own; what can't be said in columns at all stands as bytes. However
// they stand, rows come back byte for byte as Tablestore sent them. The last record is an
// end mark with the totals: a shard that just stops is corrupt.
//
// docs/format.md describes the layout field by field. An [Encoder] makes blocks, a
// [Writer] puts them into a file, a [Reader] gives rows back and believes nothing.
package shard

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"

	"github.com/tablevault/tablevault/shared/table"
)

// Format is the version of the layout that this package writes and reads.
const Format = 2

// ErrCorrupt matches errors about files that are not what was written.
var ErrCorrupt = errors.New("corrupt shard")

// ErrVersion matches errors about files of a version that is not known here.
var ErrVersion = errors.New("unknown shard version")

const (
	// BlockBytes is the size of rows, as PlainBuffer, at which a block is full.
	BlockBytes = 1 << 20
	// MaxRow bounds a row, or a piece of one. Wider rows come in pieces.
	MaxRow = 8 << 20
	// maxRaw bounds the rows of a block: it takes one more row while it is not full.
	maxRaw = BlockBytes + MaxRow
	// maxRecord bounds a record before compression: what a block's rows need at most,
	// with room for the headers of arrays.
	maxRecord = 2 * maxRaw
	// maxHeader bounds the metadata of a file.
	maxHeader = 1 << 20
	// chunk is the length of an array's entry that goes on in the next: no bytes value in
	// the file is longer.
	chunk = 1 << 20

	// maxColumns bounds the columns of all groups of a record together, and maxMixed the
	// columns that its mixed rows have: a reader keeps some memory for each.
	maxColumns = 1 << 13
	maxMixed   = 1 << 16
	// maxName bounds the names of columns, and the values of keys, that stand in columns.
	// The service allows 255 and 1024 bytes; rows with longer ones stand as bytes.
	maxName = 1 << 12
	// maxLanes bounds the lanes of a shard.
	maxLanes = 1 << 10
)

// The kinds of records.
const (
	kindRows = 0
	kindEnd  = 1
)

// The flags of records.
const (
	// flagContinues: the record is one piece of a row that the lane's record before it
	// began.
	flagContinues = 1
	// flagUnfinished: the record is one piece of a row that goes on in the lane's next
	// record.
	flagUnfinished = 2
	// flagCanonical: the rows were put together from several answers, and are encoded
	// anew.
	flagCanonical = 4

	knownFlags = flagContinues | flagUnfinished | flagCanonical
)

// Where a row stands, in the order array; 0 and up are groups.
const (
	inMixed = -1
	inRaw   = -2
)

// schema is the Avro schema of the records, as it stands in every file.
const schema = `{"type":"record","name":"Block","namespace":"tablevault","fields":[` +
	`{"name":"kind","type":"int"},` +
	`{"name":"lane","type":"int"},` +
	`{"name":"flags","type":"int"},` +
	`{"name":"rows","type":"long"},` +
	`{"name":"blocks","type":"long"},` +
	`{"name":"digest","type":{"type":"fixed","name":"Digest","size":16}},` +
	`{"name":"checksums","type":"bytes"},` +
	`{"name":"keys","type":{"type":"array","items":{"type":"record","name":"Key","fields":[` +
	`{"name":"integers","type":{"type":"array","items":"long"}},` +
	`{"name":"shared","type":{"type":"array","items":"int"}},` +
	`{"name":"values","type":{"type":"array","items":"bytes"}}]}}},` +
	`{"name":"order","type":{"type":"array","items":"int"}},` +
	`{"name":"groups","type":{"type":"array","items":{"type":"record","name":"Group","fields":[` +
	`{"name":"rows","type":"int"},` +
	`{"name":"times","type":{"type":"array","items":"long"}},` +
	`{"name":"columns","type":{"type":"array","items":{"type":"record","name":"Column","fields":[` +
	`{"name":"name","type":"bytes"},` +
	`{"name":"type","type":"int"},` +
	`{"name":"counts","type":{"type":"array","items":"int"}},` +
	`{"name":"times","type":{"type":"array","items":"long"}},` +
	`{"name":"integers","type":{"type":"array","items":"long"}},` +
	`{"name":"doubles","type":{"type":"array","items":"double"}},` +
	`{"name":"booleans","type":{"type":"array","items":"boolean"}},` +
	`{"name":"values","type":{"type":"array","items":"bytes"}}]}}}]}}},` +
	`{"name":"mixed","type":{"type":"record","name":"Mixed","fields":[` +
	`{"name":"names","type":{"type":"array","items":"bytes"}},` +
	`{"name":"types","type":{"type":"array","items":"int"}},` +
	`{"name":"counts","type":{"type":"array","items":"int"}},` +
	`{"name":"columns","type":{"type":"array","items":"int"}},` +
	`{"name":"times","type":{"type":"array","items":"long"}},` +
	`{"name":"integers","type":{"type":"array","items":"long"}},` +
	`{"name":"doubles","type":{"type":"array","items":"double"}},` +
	`{"name":"booleans","type":{"type":"array","items":"boolean"}},` +
	`{"name":"values","type":{"type":"array","items":"bytes"}}]}},` +
	`{"name":"raw","type":{"type":"array","items":"bytes"}},` +
	`{"name":"lanes","type":{"type":"array","items":{"type":"record","name":"Lane","fields":[` +
	`{"name":"from","type":"bytes"},` +
	`{"name":"next","type":"bytes"},` +
	`{"name":"rows","type":"long"}]}}}]}`

// Header says what a shard is part of. It stands in the file's metadata.
type Header struct {
	Vault   string
	Backup  string
	Table   string
	Segment string
	Schema  table.Schema
	// Seed is the seed of the rows' digests.
	Seed uint64
}

// headerJSON is a header as the file holds it.
type headerJSON struct {
	Format  int          `json:"format"`
	Vault   string       `json:"vault"`
	Backup  string       `json:"backup"`
	Table   string       `json:"table"`
	Segment string       `json:"segment"`
	Seed    string       `json:"seed"`
	Key     table.Schema `json:"key"`
}

// The keys of the metadata, beside Avro's own.
const (
	headerKey = "tablevault.shard"
	totalsKey = "tablevault.index" // of indexes
)

func (h Header) encode() ([]byte, error) {
	if err := h.Schema.Validate(); err != nil {
		return nil, err
	}
	return json.Marshal(headerJSON{Format, h.Vault, h.Backup, h.Table, h.Segment, fmt.Sprintf("%016x", h.Seed), h.Schema})
}

func decodeHeader(data []byte) (Header, error) {
	var version struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return Header{}, fmt.Errorf("%w: header: %w", ErrCorrupt, err)
	}
	if version.Format != Format {
		return Header{}, fmt.Errorf("%w %d, this command reads %d: use a newer tablevault for a newer one; version 1 was never released", ErrVersion, version.Format, Format)
	}
	var j headerJSON
	if err := strictJSON(data, &j); err != nil {
		return Header{}, fmt.Errorf("%w: header: %w", ErrCorrupt, err)
	}
	h := Header{Vault: j.Vault, Backup: j.Backup, Table: j.Table, Segment: j.Segment, Schema: j.Key}
	if n, err := fmt.Sscanf(j.Seed, "%016x", &h.Seed); n != 1 || err != nil || len(j.Seed) != 16 {
		return Header{}, fmt.Errorf("%w: header: seed %.40q", ErrCorrupt, j.Seed)
	}
	if same, err := h.encode(); err != nil || !bytes.Equal(same, data) {
		return Header{}, fmt.Errorf("%w: header: not as it is written: %w", ErrCorrupt, cmp.Or(err, errors.New("other JSON of the same meaning")))
	}
	return h, nil
}

// A Lane says what a shard covers of one lane: the rows from From, inclusive, to Next,
// exclusive.
type Lane struct {
	From, Next table.Key
	Rows       int64
}

// Summary is the totals of a shard.
type Summary struct {
	Rows   int64
	Blocks int64
	Digest table.Digest
	Lanes  []Lane
}

// magic begins every Avro object container file.
const magic = "Obj\x01"

// pair is one entry of a file's metadata.
type pair struct {
	key   string
	value []byte
}

// appendFileHeader appends a container file's header and returns the sync marker, which
// is derived from it, so that equal rows make equal files.
func appendFileHeader(b []byte, schema string, metadata ...pair) ([]byte, [16]byte) {
	start := len(b)
	b = append(b, magic...)
	b = appendLong(b, int64(2+len(metadata)))
	b = appendBytes(b, []byte("avro.codec"))
	b = appendBytes(b, []byte("zstandard"))
	b = appendBytes(b, []byte("avro.schema"))
	b = appendBytes(b, []byte(schema))
	for _, p := range metadata {
		b = appendBytes(b, []byte(p.key))
		b = appendBytes(b, p.value)
	}
	b = appendLong(b, 0)
	sum := sha256.Sum256(b[start:])
	sync := [16]byte(sum[:16])
	return append(b, sync[:]...), sync
}

// appendLong appends an Avro int or long: zigzag, base 128.
func appendLong(b []byte, v int64) []byte {
	u := uint64(v)<<1 ^ uint64(v>>63)
	if u < 0x80 {
		return append(b, byte(u))
	}
	return appendLonger(b, u)
}

func appendLonger(b []byte, u uint64) []byte {
	for u >= 0x80 {
		b = append(b, byte(u)|0x80)
		u >>= 7
	}
	return append(b, byte(u))
}

// longSize is the number of bytes that appendLong appends.
func longSize(v int64) int {
	u := uint64(v)<<1 ^ uint64(v>>63)
	return (bits.Len64(u|1) + 6) / 7
}

func appendBytes(b, v []byte) []byte {
	return append(appendLong(b, int64(len(v))), v...)
}
