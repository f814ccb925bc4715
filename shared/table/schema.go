// Package table says what a Tablestore table is: its schema, options and indexes, the
// order of its keys, ranges of keys, and the digest by which two sets of rows are
// compared.
//
// It knows rows as PlainBuffer and nothing of networks or files.
package table

import (
	"fmt"

	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// KeyColumn is one column of a primary key.
type KeyColumn struct {
	Name string `json:"name"`
	// Type is "integer", "string" or "binary".
	Type KeyType `json:"type"`
	// AutoIncrement says that the service makes the values.
	AutoIncrement bool `json:"auto_increment,omitempty"`
}

// KeyType is the type of a key's column.
type KeyType string

// The types that a key's column can have.
const (
	IntegerKey KeyType = "integer"
	StringKey  KeyType = "string"
	BinaryKey  KeyType = "binary"
)

// Wire is the type of the column's values in PlainBuffer.
func (t KeyType) Wire() plainbuffer.Type {
	switch t {
	case IntegerKey:
		return plainbuffer.Integer
	case StringKey:
		return plainbuffer.String
	}
	return plainbuffer.Blob
}

// Schema is a primary key: one to four columns, the first of which decides the partition.
type Schema []KeyColumn

// MaxKeyColumns is the service's limit.
const MaxKeyColumns = 4

// Validate says what is wrong with a schema.
func (s Schema) Validate() error {
	if len(s) == 0 || len(s) > MaxKeyColumns {
		return fmt.Errorf("a primary key of %d columns: want 1 to %d", len(s), MaxKeyColumns)
	}
	seen := map[string]bool{}
	for i, c := range s {
		switch {
		case c.Name == "":
			return fmt.Errorf("primary key column %d has no name", i+1)
		case seen[c.Name]:
			return fmt.Errorf("primary key column %q stands twice", c.Name)
		case c.Type != IntegerKey && c.Type != StringKey && c.Type != BinaryKey:
			return fmt.Errorf("primary key column %q has the type %q: want integer, string or binary", c.Name, c.Type)
		case c.AutoIncrement && (i == 0 || c.Type != IntegerKey):
			return fmt.Errorf("primary key column %q cannot be auto-increment: it is the first, or no integer", c.Name)
		}
		seen[c.Name] = true
	}
	return nil
}

// Whole is the range of all keys.
func (s Schema) Whole() Range {
	var r Range
	for range s {
		r.Start = append(r.Start, Min())
		r.End = append(r.End, Max())
	}
	return r
}

// Pad completes a bound that is shorter than the schema; what is missing means the least
// value.
func (s Schema) Pad(k Key) Key {
	k = k[:len(k):len(k)]
	for len(k) < len(s) {
		k = append(k, Min())
	}
	return k
}

// CheckBound says whether k can bound a range of the schema: a value of the column's
// type, or an infinity, for each column.
func (s Schema) CheckBound(k Key) error {
	if len(k) != len(s) {
		return fmt.Errorf("key %v has %d columns, the schema %d", k, len(k), len(s))
	}
	for i, v := range k {
		if v.Type != s[i].Type.Wire() && v.Type != plainbuffer.InfMin && v.Type != plainbuffer.InfMax {
			return fmt.Errorf("key %v: column %q is %s, the schema has %s", k, s[i].Name, v.Type, s[i].Type)
		}
	}
	return nil
}

// CheckKey says whether a scanned row has a key of the schema: the same names and types
// in the same order.
func (s Schema) CheckKey(cells []plainbuffer.Cell) error {
	if len(cells) != len(s) {
		return fmt.Errorf("a row with %d key columns, the schema has %d", len(cells), len(s))
	}
	for i := range cells {
		c := &cells[i]
		if string(c.Name) != s[i].Name || c.Type != s[i].Type.Wire() || !c.HasValue || c.HasTimestamp || c.Op != plainbuffer.NoOp {
			return fmt.Errorf("a row whose key column %d is %q %s, the schema has %q %s", i+1, c.Name, c.Type, s[i].Name, s[i].Type)
		}
	}
	return nil
}

// AppendKey appends k as a PlainBuffer block of one row, as requests carry keys.
func (s Schema) AppendKey(b []byte, k Key) ([]byte, error) {
	if err := s.CheckBound(k); err != nil {
		return b, err
	}
	w := plainbuffer.Builder{Buf: plainbuffer.AppendHeader(b)}
	w.Begin()
	for i, v := range k {
		name := plainbuffer.NewName([]byte(s[i].Name))
		switch v.Type {
		case plainbuffer.Integer:
			w.KeyInteger(&name, v.Int)
		case plainbuffer.String, plainbuffer.Blob:
			w.KeyBytes(&name, v.Type, v.Bytes)
		default:
			w.KeyBound(&name, v.Type)
		}
	}
	w.End(false)
	return w.Buf, nil
}

// ParseKey reads what AppendKey writes. A key shorter than the schema is padded, as split
// points may be sent.
func (s Schema) ParseKey(block []byte) (Key, error) {
	var row plainbuffer.Row
	if err := plainbuffer.ScanKey(block, &row); err != nil {
		return nil, fmt.Errorf("key %s: %w", hex64(block), err)
	}
	if len(row.Key) > len(s) {
		return nil, fmt.Errorf("a key with %d columns, the schema has %d", len(row.Key), len(s))
	}
	for i := range row.Key {
		if string(row.Key[i].Name) != s[i].Name {
			return nil, fmt.Errorf("a key whose column %d is %q, the schema has %q", i+1, row.Key[i].Name, s[i].Name)
		}
	}
	k := s.Pad(KeyOf(row.Key))
	return k, s.CheckBound(k)
}
