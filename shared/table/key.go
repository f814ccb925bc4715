package table

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// A Value is one column of a key: an integer, a string, a blob, or, in the bounds of
// ranges, one of the infinities.
type Value struct {
	Type  plainbuffer.Type
	Int   int64  // if Type is Integer
	Bytes []byte // if Type is String or Blob
}

// Integer, String, Binary, Min and Max make values.
func Integer(v int64) Value { return Value{Type: plainbuffer.Integer, Int: v} }

// String makes a value of type string.
func String(s string) Value { return Value{Type: plainbuffer.String, Bytes: []byte(s)} }

// Binary makes a value of type binary; it keeps b.
func Binary(b []byte) Value { return Value{Type: plainbuffer.Blob, Bytes: b} }

// Min is less than every value of a column.
func Min() Value { return Value{Type: plainbuffer.InfMin} }

// Max is greater than every value of a column.
func Max() Value { return Value{Type: plainbuffer.InfMax} }

// Compare orders two values of one column.
func (v Value) Compare(w Value) int {
	if v.Type != w.Type {
		return cmp.Compare(v.rank(), w.rank())
	}
	switch v.Type {
	case plainbuffer.Integer:
		return cmp.Compare(v.Int, w.Int)
	case plainbuffer.String, plainbuffer.Blob:
		return bytes.Compare(v.Bytes, w.Bytes)
	}
	return 0
}

func (v Value) rank() int {
	switch v.Type {
	case plainbuffer.InfMin:
		return -1
	case plainbuffer.InfMax:
		return 0x100
	}
	return int(v.Type)
}

// String prints a value for people: "text", 42, 0xbeef, -inf, +inf.
func (v Value) String() string {
	switch v.Type {
	case plainbuffer.Integer:
		return strconv.FormatInt(v.Int, 10)
	case plainbuffer.String:
		return strconv.Quote(string(v.Bytes))
	case plainbuffer.Blob:
		return "0x" + hex.EncodeToString(v.Bytes)
	}
	return v.Type.String()
}

// valueJSON is the form of a value in the vault's documents. Strings that are not UTF-8,
// which JSON cannot hold, stand as base64.
type valueJSON struct {
	Integer  *int64  `json:"integer,omitempty"`
	String   *string `json:"string,omitempty"`
	String64 *[]byte `json:"string64,omitempty"`
	Binary   *[]byte `json:"binary,omitempty"`
	Bound    string  `json:"bound,omitempty"`
}

// MarshalJSON writes {"integer":42}, {"string":"a"}, {"string64":"/w=="},
// {"binary":"3q0="} or {"bound":"min"|"max"}.
func (v Value) MarshalJSON() ([]byte, error) {
	var j valueJSON
	switch v.Type {
	case plainbuffer.Integer:
		j.Integer = &v.Int
	case plainbuffer.String:
		if utf8.Valid(v.Bytes) {
			s := string(v.Bytes)
			j.String = &s
		} else {
			j.String64 = &v.Bytes
		}
	case plainbuffer.Blob:
		b := v.Bytes
		if b == nil {
			b = []byte{}
		}
		j.Binary = &b
	case plainbuffer.InfMin:
		j.Bound = "min"
	case plainbuffer.InfMax:
		j.Bound = "max"
	default:
		return nil, fmt.Errorf("a key cannot hold a value of type %s", v.Type)
	}
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(j); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(buf.Bytes()), nil
}

// UnmarshalJSON reads what MarshalJSON writes and nothing else.
func (v *Value) UnmarshalJSON(data []byte) error {
	var j valueJSON
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&j); err != nil {
		return fmt.Errorf("key value %.80s: %w", data, err)
	}
	n := 0
	if j.Integer != nil {
		*v, n = Integer(*j.Integer), n+1
	}
	if j.String != nil {
		*v, n = String(*j.String), n+1
	}
	if j.String64 != nil {
		*v, n = Value{Type: plainbuffer.String, Bytes: *j.String64}, n+1
		if utf8.Valid(*j.String64) {
			return fmt.Errorf("key value %.80s: base64 of text that is UTF-8", data)
		}
	}
	if j.Binary != nil {
		*v, n = Binary(*j.Binary), n+1
	}
	switch j.Bound {
	case "":
	case "min":
		*v, n = Min(), n+1
	case "max":
		*v, n = Max(), n+1
	default:
		return fmt.Errorf("key value %.80s: a bound is min or max", data)
	}
	if n != 1 {
		return fmt.Errorf("key value %.80s: want exactly one of integer, string, string64, binary, bound", data)
	}
	return nil
}

// A Key is the values of a primary key in schema order. The bounds of ranges are keys
// that may hold Min and Max.
type Key []Value

// Compare orders two keys of one schema, column by column.
func (k Key) Compare(l Key) int {
	for i := range min(len(k), len(l)) {
		if c := k[i].Compare(l[i]); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(k), len(l))
}

// Equal says whether both keys are the same.
func (k Key) Equal(l Key) bool { return len(k) == len(l) && k.Compare(l) == 0 }

// String prints a key for people: ("a", 42).
func (k Key) String() string {
	parts := make([]string, len(k))
	for i, v := range k {
		parts[i] = v.String()
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// Clone returns a key that shares no memory with k.
func (k Key) Clone() Key {
	c := slices.Clone(k)
	for i := range c {
		c[i].Bytes = bytes.Clone(c[i].Bytes)
	}
	return c
}

// KeyOf copies the key of a scanned row.
func KeyOf(cells []plainbuffer.Cell) Key {
	k := make(Key, len(cells))
	for i := range cells {
		c := &cells[i]
		k[i].Type = c.Type
		switch c.Type {
		case plainbuffer.Integer:
			k[i].Int = c.Int()
		case plainbuffer.String, plainbuffer.Blob:
			k[i].Bytes = bytes.Clone(c.Data)
			if k[i].Bytes == nil {
				k[i].Bytes = []byte{}
			}
		}
	}
	return k
}

// CompareCells orders k and the key of a scanned row without copying it.
func (k Key) CompareCells(cells []plainbuffer.Cell) int {
	for i := range min(len(k), len(cells)) {
		c := &cells[i]
		v := Value{Type: c.Type, Bytes: c.Data}
		if c.Type == plainbuffer.Integer {
			v.Int = c.Int()
		}
		if r := k[i].Compare(v); r != 0 {
			return r
		}
	}
	return cmp.Compare(len(k), len(cells))
}

// The service's limits of the bytes of a value in a key, and of a column's name.
const (
	MaxKeyBytes  = 1024
	MaxNameBytes = 255
)

// Next is the least key after k that the service allows: the same with its last value's
// successor. An integer's is one more, a string's or blob's has a zero byte more, or,
// where it has the greatest length, is the least that is greater; the successor of the
// greatest value is the greatest bound.
//
// The successor of a text is a text, since the service may refuse another bound. Where it
// holds strings that are none, some may lie between a text of the greatest length and
// that.
func (k Key) Next() Key {
	n := k.Clone()
	last := &n[len(n)-1]
	switch last.Type {
	case plainbuffer.Integer:
		if last.Int == 1<<63-1 {
			*last = Max()
		} else {
			last.Int++
		}
	case plainbuffer.String, plainbuffer.Blob:
		if last.Type == plainbuffer.String && len(last.Bytes) >= MaxKeyBytes && utf8.Valid(last.Bytes) {
			last.Bytes = nextText(last.Bytes)
		} else {
			last.Bytes = Successor(last.Bytes, MaxKeyBytes)
		}
		if last.Bytes == nil {
			*last = Max()
		}
	}
	return n
}

// Successor is the least string after b of at most so many bytes, nil if there is none.
func Successor(b []byte, most int) []byte {
	if len(b) < most {
		return append(b[:len(b):len(b)], 0)
	}
	b = bytes.Clone(b[:most])
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] < 0xff {
			b[i]++
			return b[:i+1]
		}
	}
	return nil
}

// nextText is the least text after b, a text, that is not longer and does not begin with
// it; nil if there is none.
func nextText(b []byte) []byte {
	for end := len(b); end > 0; {
		last, size := utf8.DecodeLastRune(b[:end])
		end -= size
		next := last + 1
		if next == surrogates {
			next = afterSurrogates
		}
		if next <= utf8.MaxRune && end+utf8.RuneLen(next) <= len(b) {
			return utf8.AppendRune(bytes.Clone(b[:end]), next)
		}
	}
	return nil
}

// No text has the code points between these.
const (
	surrogates      = 0xd800
	afterSurrogates = 0xe000
)

// hex64 prints raw bytes in errors.
func hex64(b []byte) string {
	if len(b) > 48 {
		return base64.StdEncoding.EncodeToString(b[:48]) + "…"
	}
	return base64.StdEncoding.EncodeToString(b)
}
