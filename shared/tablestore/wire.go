package tablestore

import (
	"cmp"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// The messages of the data plane are written and read by hand, so that rows are
// copied neither on their way out of a page nor into a batch.

// rangeAnswer is GetRangeResponse. Its bytes are slices of the answer.
type rangeAnswer struct {
	rows  []byte // field 2
	next  []byte // field 3: where the range goes on, nil at its end
	token []byte // field 4: where the row of next goes on, empty if it is whole
	units int64  // field 1
}

// rangeRequest is GetRangeRequest with what the scans use of it.
type rangeRequest struct {
	table      string
	start, end []byte // keys as blocks
	limit      int
	versions   int32
	before     int64  // only timestamps below, if > 0
	from, to   []byte // names of columns, from inclusive, to exclusive; nil is no bound
	columns    int    // at most so many columns of each row, if > 0
	token      []byte
}

func (r *rangeRequest) append(b []byte) []byte {
	b = appendString(b, 1, r.table)
	b = appendVarint(b, 2, 0) // forward
	if r.before > 0 {
		var window []byte
		window = appendVarint(window, 1, 0)
		window = appendVarint(window, 2, uint64(r.before))
		b = appendBytes(b, 4, window)
	}
	b = appendVarint(b, 5, uint64(r.versions))
	b = appendVarint(b, 6, uint64(r.limit))
	b = appendBytes(b, 7, r.start)
	b = appendBytes(b, 8, r.end)
	if r.columns > 0 {
		var page, filter []byte
		page = appendVarint(page, 1, 0) // offset
		page = appendVarint(page, 2, uint64(r.columns))
		filter = appendVarint(filter, 1, filterPagination)
		filter = appendBytes(filter, 2, page)
		b = appendBytes(b, 10, filter)
	}
	if r.from != nil {
		b = appendBytes(b, 11, r.from)
	}
	if r.to != nil {
		b = appendBytes(b, 12, r.to)
	}
	if len(r.token) > 0 {
		b = appendBytes(b, 13, r.token)
	}
	b = appendVarint(b, 15, blockPlainBuffer)
	b = appendVarint(b, 16, 1) // whole keys
	return appendVarint(b, 17, compressNone)
}

const (
	filterPagination = 3
	blockPlainBuffer = 0
	compressNone     = 0
)

var errWire = errors.New("malformed message")

func parseRange(b []byte) (rangeAnswer, error) {
	var a rangeAnswer
	f := fields{rest: b}
	whole := 0 // bits of the fields that every answer has
	for f.next() {
		switch f.tag {
		case 1<<3 | asBytes:
			a.units, _ = f.consumed()
			whole |= 1
		case 2<<3 | asBytes:
			a.rows = f.data
			whole |= 2
		case 3<<3 | asBytes:
			a.next = f.data
		case 4<<3 | asBytes:
			a.token = f.data
		case 5<<3 | asInt:
			if f.v != blockPlainBuffer {
				return a, fmt.Errorf("rows in the format %d, which was not asked for", f.v)
			}
		case 6<<3 | asInt:
			if f.v != compressNone {
				return a, fmt.Errorf("rows compressed by %d, which was not asked for", f.v)
			}
		}
	}
	if len(a.next) == 0 {
		a.next = nil
	}
	if f.err == nil && whole != 3 {
		// Without this, an empty answer would be the end of a range.
		f.err = errors.New("a page that lacks its rows or their cost")
	}
	return a, f.err
}

// rowAnswer is RowInBatchWriteRowResponse.
type rowAnswer struct {
	ok            bool
	code, message []byte
	units         int64
}

// batchAnswer reads BatchWriteRowResponse row by row.
type batchAnswer struct {
	tables, rows fields
}

// next reads the next row's answer. It returns false after the last and where the message
// is malformed.
func (a *batchAnswer) next(r *rowAnswer) bool {
	for {
		for a.rows.next() {
			if a.rows.tag == 2<<3|asBytes {
				a.rows.err = r.parse(a.rows.data)
				return a.rows.err == nil
			}
		}
		if a.rows.err != nil || !a.tables.next() {
			return false
		}
		if a.tables.tag == 1<<3|asBytes {
			a.rows = fields{rest: a.tables.data}
		}
	}
}

func (a *batchAnswer) err() error { return cmp.Or(a.rows.err, a.tables.err) }

func (r *rowAnswer) parse(b []byte) error {
	*r = rowAnswer{}
	f := fields{rest: b}
	for f.next() {
		switch f.tag {
		case 1<<3 | asInt:
			r.ok = f.v != 0
		case 2<<3 | asBytes:
			e := fields{rest: f.data}
			for e.next() {
				switch e.tag {
				case 1<<3 | asBytes:
					r.code = e.data
				case 2<<3 | asBytes:
					r.message = e.data
				}
			}
			if e.err != nil {
				return e.err
			}
		case 3<<3 | asBytes:
			_, r.units = f.consumed()
		}
	}
	return f.err
}

// fields walks the fields of a message.
type fields struct {
	rest []byte
	tag  uint64 // the field's number and, in the low three bits, its form
	v    uint64 // of a field asInt
	data []byte // of a field asBytes
	err  error
}

// Forms of fields.
const (
	asInt   = uint64(protowire.VarintType)
	asBytes = uint64(protowire.BytesType)
)

// next reads a field. It returns false after the last and at an error.
func (f *fields) next() bool {
	if len(f.rest) == 0 || f.err != nil {
		return false
	}
	f.v, f.data = 0, nil
	number, kind, n := protowire.ConsumeTag(f.rest)
	if n < 0 {
		f.err = errWire
		return false
	}
	f.tag, f.rest = uint64(number)<<3|uint64(kind), f.rest[n:]
	switch kind {
	case protowire.VarintType:
		f.v, n = protowire.ConsumeVarint(f.rest)
	case protowire.BytesType:
		f.data, n = protowire.ConsumeBytes(f.rest)
	default:
		n = protowire.ConsumeFieldValue(number, kind, f.rest)
	}
	if n < 0 {
		f.err = errWire
		return false
	}
	f.rest = f.rest[n:]
	return true
}

// consumed reads the field as ConsumedCapacity{capacity_unit{read, write}}.
func (f *fields) consumed() (read, write int64) {
	c := fields{rest: f.data}
	for c.next() {
		if c.tag != 1<<3|asBytes {
			continue
		}
		u := fields{rest: c.data}
		for u.next() {
			switch u.tag {
			case 1<<3 | asInt:
				read = int64(int32(u.v))
			case 2<<3 | asInt:
				write = int64(int32(u.v))
			}
		}
		c.err = u.err
	}
	if c.err != nil {
		f.err = c.err
	}
	return read, write
}

// rawFields are the values of a field of a message, as they were sent.
func rawFields(b []byte, field protowire.Number) (values [][]byte, err error) {
	f := fields{rest: b}
	for f.next() {
		if f.tag == uint64(field)<<3|asBytes {
			values = append(values, f.data)
		}
	}
	return values, f.err
}

func appendVarint(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

func appendBytes(b []byte, field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}

func appendString(b []byte, field protowire.Number, v string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), v)
}
