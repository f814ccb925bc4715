package ots

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/golang/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/tablevault/tablevault/local/ots/engine"
)

// What a message from the network may have. Its decoder calls itself for each level,
// which for a request full of them is more stack than a process may have, and takes a
// hundred times the bytes of a field that is an empty message.
const (
	maxLevels = 100
	maxFields = 100_000
	// smallMessage is the size of those that can't do harm whatever they have.
	smallMessage = 64 << 10
)

// unmarshal decodes a message from the network.
func unmarshal(b []byte, m proto.Message) error {
	if len(b) > smallMessage {
		fields := 0
		if err := tame(b, proto.MessageReflect(m).Descriptor(), 1, &fields); err != nil {
			return err
		}
	}
	return proto.Unmarshal(b, m)
}

// tame fails if a message, which is on a level of another or on the first, has more
// levels or fields than it may.
func tame(b []byte, kind protoreflect.MessageDescriptor, level int, fields *int) error {
	if level > maxLevels {
		return fmt.Errorf("more than %d messages in one another", maxLevels)
	}
	return each(b, func(number uint64, wire int, _ uint64, data []byte) error {
		if *fields++; *fields > maxFields {
			return fmt.Errorf("more than %d fields", maxFields)
		}
		if wire != wireBytes {
			return nil
		}
		if f := kind.Fields().ByNumber(protoreflect.FieldNumber(number)); f != nil && f.Message() != nil {
			return tame(data, f.Message(), level+1, fields)
		}
		return nil
	})
}

// A batch of writes is the one request that is decoded by hand: its rows stay
// slices of the body.

// batchRequest is a BatchWriteRowRequest.
type batchRequest struct {
	tables      []batchTable
	rows        []batchRow // of all tables
	transaction string
	atomic      bool
}

type batchTable struct {
	name string
	rows []batchRow
}

type batchRow struct {
	op        engine.Op
	block     []byte
	existence engine.Existence
	filter    []byte
	returns   engine.Return
	columns   []string
}

// The kinds of fields.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireGroup   = 3
	wireFixed32 = 5
)

var errTruncated = errors.New("a field is cut short")

// uvarint is binary.Uvarint, quick where the number is one of most.
func uvarint(b []byte) (uint64, int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	return binary.Uvarint(b)
}

// field reads the next field of a message: its number, its kind, and its value as a
// number or as bytes.
func field(b []byte) (number uint64, kind int, value uint64, data, rest []byte, err error) {
	tag, n := uvarint(b)
	if n <= 0 || tag>>3 == 0 || tag>>3 > math.MaxInt32>>2 {
		return 0, 0, 0, nil, nil, errors.New("a field has no valid tag")
	}
	b = b[n:]
	number, kind = tag>>3, int(tag&7)
	switch kind {
	case wireVarint:
		if value, n = uvarint(b); n <= 0 {
			return 0, 0, 0, nil, nil, errTruncated
		}
		return number, kind, value, nil, b[n:], nil
	case wireFixed64, wireFixed32:
		size := 8
		if kind == wireFixed32 {
			size = 4
		}
		if len(b) < size {
			return 0, 0, 0, nil, nil, errTruncated
		}
		return number, kind, 0, nil, b[size:], nil
	case wireBytes:
		size, n := uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return 0, 0, 0, nil, nil, errTruncated
		}
		end := n + int(size)
		return number, kind, 0, b[n:end:end], b[end:], nil
	}
	return 0, 0, 0, nil, nil, errors.New("a field is of an unknown kind")
}

// each calls fn with each field that is a number or bytes. Fields of an expected number
// and another kind are passed over, as unknown ones are.
func each(b []byte, fn func(number uint64, kind int, value uint64, data []byte) error) error {
	for len(b) > 0 {
		number, kind, value, data, rest, err := field(b)
		if err != nil {
			return err
		}
		if err := fn(number, kind, value, data); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

var errMissing = errors.New("a required field is missing")

// parse reads a message over r, whose memory it uses again. What it keeps are slices of
// b.
func (r *batchRequest) parse(b []byte) error {
	r.tables, r.rows = r.tables[:0], r.rows[:0]
	r.transaction, r.atomic = "", false
	// Rows of one table stand together: their places are kept until r.rows has its final
	// memory.
	var starts [16]int
	first := starts[:0]
	err := each(b, func(number uint64, kind int, value uint64, data []byte) error {
		switch {
		case number == 1 && kind == wireBytes:
			first = append(first, len(r.rows))
			return r.parseTable(data)
		case number == 2 && kind == wireBytes:
			r.transaction = string(data)
		case number == 3 && kind == wireVarint:
			r.atomic = value != 0
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range r.tables {
		end := len(r.rows)
		if i+1 < len(first) {
			end = first[i+1]
		}
		r.tables[i].rows = r.rows[first[i]:end:end]
	}
	return nil
}

func (r *batchRequest) parseTable(b []byte) error {
	t := batchTable{}
	named := false
	err := each(b, func(number uint64, kind int, _ uint64, data []byte) error {
		switch {
		case number == 1 && kind == wireBytes:
			t.name, named = string(data), true
		case number == 2 && kind == wireBytes:
			r.rows = append(r.rows, batchRow{})
			return r.rows[len(r.rows)-1].parse(data)
		}
		return nil
	})
	if err == nil && !named {
		err = errMissing
	}
	r.tables = append(r.tables, t)
	return err
}

// plainPut is the block of a row that is a put without a condition and asks for nothing,
// in the form in which nearly all rows come; nil if b has another.
func plainPut(b []byte) []byte {
	const head, tail = "\x08\x01\x12", "\x1a\x02\x08\x00" // type, block; a condition that is none
	if len(b) < len(head)+binary.MaxVarintLen32+len(tail) || string(b[:len(head)]) != head || string(b[len(b)-len(tail):]) != tail {
		return nil
	}
	b = b[len(head) : len(b)-len(tail)]
	size, n := uvarint(b)
	if n <= 0 || n > binary.MaxVarintLen32 || size != uint64(len(b)-n) {
		return nil
	}
	return b[n:len(b):len(b)]
}

func (r *batchRow) parse(b []byte) error {
	typed, conditioned := false, false
	if block := plainPut(b); block != nil {
		r.op, r.block = engine.Put, block
		return nil
	}
	for len(b) > 0 {
		number, kind, value, data, rest, err := field(b)
		if err != nil {
			return err
		}
		switch {
		case number == 1 && kind == wireVarint:
			if value < uint64(engine.Put) || value > uint64(engine.Delete) {
				return errors.New("an unknown type of operation")
			}
			r.op, typed = engine.Op(value), true
		case number == 2 && kind == wireBytes:
			r.block = data
		case number == 3 && kind == wireBytes:
			conditioned = true
			err = r.parseCondition(data)
		case number == 4 && kind == wireBytes:
			err = r.parseReturn(data)
		}
		if err != nil {
			return err
		}
		b = rest
	}
	if !typed || !conditioned || r.block == nil {
		return errMissing
	}
	return nil
}

func (r *batchRow) parseCondition(b []byte) error {
	found := false
	for len(b) > 0 {
		number, kind, value, data, rest, err := field(b)
		if err != nil {
			return err
		}
		switch {
		case number == 1 && kind == wireVarint:
			if value > uint64(engine.ExpectNotExist) {
				return errors.New("an unknown expectation of a row")
			}
			r.existence, found = engine.Existence(value), true
		case number == 2 && kind == wireBytes:
			r.filter = data
		}
		b = rest
	}
	if !found {
		return errMissing
	}
	return nil
}

func (r *batchRow) parseReturn(b []byte) error {
	return each(b, func(number uint64, kind int, value uint64, data []byte) error {
		switch {
		case number == 1 && kind == wireVarint:
			if value > uint64(engine.ReturnAfter) {
				return errors.New("an unknown type of return content")
			}
			r.returns = engine.Return(value)
		case number == 2 && kind == wireBytes:
			r.columns = append(r.columns, string(data))
		}
		return nil
	})
}

// The fields of answers that are written by hand.

func appendTag(b []byte, field, kind int) []byte {
	return binary.AppendUvarint(b, uint64(field<<3|kind))
}

func appendVarint(b []byte, field int, v uint64) []byte {
	return binary.AppendUvarint(appendTag(b, field, wireVarint), v)
}

func appendBytes(b []byte, field int, v []byte) []byte {
	b = binary.AppendUvarint(appendTag(b, field, wireBytes), uint64(len(v)))
	return append(b, v...)
}

func appendString(b []byte, field int, v string) []byte {
	b = binary.AppendUvarint(appendTag(b, field, wireBytes), uint64(len(v)))
	return append(b, v...)
}

func appendError(b []byte, err *engine.Error) []byte {
	return appendString(appendString(b, 1, err.Code), 2, err.Message)
}

// appendConsumed appends a ConsumedCapacity as a field.
func appendConsumed(b []byte, field, read, write int) []byte {
	var unit, consumed [32]byte
	u := appendVarint(appendVarint(unit[:0], 1, uint64(read)), 2, uint64(write))
	return appendBytes(b, field, appendBytes(consumed[:0], 1, u))
}
