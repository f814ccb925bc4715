package tablestore

import (
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
	err := eachField(b, func(n protowire.Number, v uint64, data []byte) (err error) {
		switch n {
		case 1:
			a.units, _, err = parseConsumed(data)
			return err
		case 2:
			a.rows = data
		case 3:
			a.next = data
		case 4:
			a.token = data
		case 5:
			if v != blockPlainBuffer {
				return fmt.Errorf("rows in the format %d, which was not asked for", v)
			}
		case 6:
			if v != compressNone {
				return fmt.Errorf("rows compressed by %d, which was not asked for", v)
			}
		}
		return nil
	})
	if len(a.next) == 0 {
		a.next = nil
	}
	return a, err
}

// parseConsumed reads ConsumedCapacity{capacity_unit{read, write}}.
func parseConsumed(b []byte) (read, write int64, err error) {
	err = eachField(b, func(n protowire.Number, _ uint64, data []byte) error {
		if n != 1 {
			return nil
		}
		return eachField(data, func(n protowire.Number, v uint64, _ []byte) error {
			switch n {
			case 1:
				read = int64(int32(v))
			case 2:
				write = int64(int32(v))
			}
			return nil
		})
	})
	return read, write, err
}

// rowAnswer is RowInBatchWriteRowResponse.
type rowAnswer struct {
	ok            bool
	code, message []byte
	units         int64
}

// parseBatch calls each for every row of BatchWriteRowResponse, in order.
func parseBatch(b []byte, each func(i int, r *rowAnswer) error) (rows int, err error) {
	err = eachField(b, func(n protowire.Number, _ uint64, inTable []byte) error {
		if n != 1 {
			return nil
		}
		return eachField(inTable, func(n protowire.Number, _ uint64, data []byte) error {
			if n != 2 {
				return nil
			}
			r, err := parseRow(data)
			if err != nil {
				return err
			}
			rows++
			return each(rows-1, &r)
		})
	})
	return rows, err
}

func parseRow(b []byte) (rowAnswer, error) {
	var r rowAnswer
	err := eachField(b, func(n protowire.Number, v uint64, data []byte) (err error) {
		switch n {
		case 1:
			r.ok = v != 0
		case 2:
			return eachField(data, func(n protowire.Number, _ uint64, data []byte) error {
				switch n {
				case 1:
					r.code = data
				case 2:
					r.message = data
				}
				return nil
			})
		case 3:
			_, r.units, err = parseConsumed(data)
		}
		return err
	})
	return r, err
}

// eachField calls each for every field of a message: v is set for numbers, data
// for bytes.
func eachField(b []byte, each func(n protowire.Number, v uint64, data []byte) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errWire
		}
		b = b[n:]
		var v uint64
		var data []byte
		switch kind {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			data, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return errWire
		}
		b = b[n:]
		if err := each(number, v, data); err != nil {
			return err
		}
	}
	return nil
}

// rawFields are the values of a field of a message, as they were sent.
func rawFields(b []byte, field protowire.Number) (values [][]byte, err error) {
	err = eachField(b, func(n protowire.Number, _ uint64, data []byte) error {
		if n == field {
			values = append(values, data)
		}
		return nil
	})
	return values, err
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
