package plainbuffer_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"testing"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/plainbuffer/plainbuffertest"
)

// FuzzScanner: whatever the bytes, the scanner ends, without a panic and without a look
// at what lies behind them; what it takes, the builder writes again byte for byte.
func FuzzScanner(f *testing.F) {
	for _, block := range samples() {
		f.Add(block)
		f.Add(block[:len(block)-1])
	}
	f.Add(append(plainbuffer.AppendHeader(nil), rowOfAllKinds()...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, block []byte) {
		// The block in memory that ends with it, and in memory that goes on with
		// what would suit a scanner that read too far.
		exact := append(make([]byte, 0, len(block)), block...)
		more := append(bytes.Clone(block), bytes.Repeat([]byte{9, 0, 1, 3, 4, 0, 0, 0, 0, 10}, 30)...)[:len(block)]
		found, err := rows(exact)
		same, sameErr := rows(more)
		if (err == nil) != (sameErr == nil) || err != nil && err.Error() != sameErr.Error() || !reflect.DeepEqual(found, same) {
			t.Fatalf("%+v and %v; with other bytes behind the block %+v and %v", found, err, same, sameErr)
		}
		if err != nil && !errors.Is(err, plainbuffer.ErrCorrupt) {
			t.Fatalf("error %v", err)
		}
		at := plainbuffer.HeaderSize
		var again plainbuffer.Builder
		for i := range found {
			row := &found[i]
			if !bytes.Equal(row.Raw, block[at:at+len(row.Raw)]) {
				t.Fatalf("row %d is % x, it stands at byte %d as % x", i, row.Raw, at, block[at:at+len(row.Raw)])
			}
			at += len(row.Raw)
			again.Buf = again.Buf[:0]
			plainbuffertest.Append(&again, row)
			if row.Irregular == bytes.Equal(again.Buf, row.Raw) {
				t.Fatalf("row %d, irregular %t, is % x; built anew % x", i, row.Irregular, row.Raw, again.Buf)
			}
			if _, err := plainbuffer.Measure(row.Raw); err != nil {
				t.Fatalf("row %d can be scanned and not measured: %v", i, err)
			}
		}
		if err == nil && at != len(block) && len(block) > 0 {
			t.Fatalf("%d rows take %d bytes of %d", len(found), at, len(block))
		}
	})
}

// FuzzCompareKeys: keys that were scanned have the order of their decoded values, however
// alike they are.
func FuzzCompareKeys(f *testing.F) {
	f.Add(uint16(0), "a", int64(1), []byte{1}, "a", int64(2), []byte{1})
	f.Add(uint16(0), "a", int64(-1), []byte{}, "a\x00", int64(1), []byte{0})
	f.Add(uint16(0o1234), "", int64(0), []byte{0x80}, "", int64(0), []byte{0x7f})
	f.Fuzz(func(t *testing.T, kinds uint16, s1 string, n1 int64, b1 []byte, s2 string, n2 int64, b2 []byte) {
		key := func(s string, n int64, b []byte) []plainbuffer.Cell {
			cells := []plainbuffer.Cell{
				{Name: []byte("s"), HasValue: true, Type: plainbuffer.String, Data: []byte(s)},
				{Name: []byte("n"), HasValue: true, Type: plainbuffer.Integer, Data: binary.LittleEndian.AppendUint64(nil, uint64(n))},
				{Name: []byte("b"), HasValue: true, Type: plainbuffer.Blob, Data: b},
			}
			for i := range cells {
				switch kinds & 7 {
				case 1:
					cells[i].Type, cells[i].Data = plainbuffer.InfMin, nil
				case 2:
					cells[i].Type, cells[i].Data = plainbuffer.InfMax, nil
				}
				kinds >>= 3
			}
			row := one(t, build(plainbuffer.Row{Key: cells}))
			return row.Key[:3-kinds&1]
		}
		a := key(s1, n1, b1)
		b := key(s2, n2, b2)
		order(t, a, b)
		if order(t, a, a) != 0 {
			t.Fatal("a key differs from itself")
		}
	})
}
