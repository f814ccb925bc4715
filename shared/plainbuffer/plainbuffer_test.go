package plainbuffer_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/plainbuffer/plainbuffertest"
	"github.com/tablevault/tablevault/shared/table"
)

// rows scans a whole block. The rows are copies but for their slices, which are the
// block's.
func rows(block []byte) ([]plainbuffer.Row, error) {
	return all(plainbuffer.NewScanner(block))
}

func all(s *plainbuffer.Scanner) ([]plainbuffer.Row, error) {
	var found []plainbuffer.Row
	for {
		var row plainbuffer.Row
		if err := s.Next(&row); err == io.EOF {
			return found, nil
		} else if err != nil {
			return found, err
		}
		found = append(found, row)
	}
}

// one scans a block of one row.
func one(t *testing.T, block []byte) plainbuffer.Row {
	t.Helper()
	found, err := rows(block)
	if err != nil || len(found) != 1 {
		t.Fatalf("%d rows in % x: %v", len(found), block, err)
	}
	return found[0]
}

// build is the block of some rows.
func build(list ...plainbuffer.Row) []byte {
	w := plainbuffer.Builder{Buf: plainbuffer.AppendHeader(nil)}
	for i := range list {
		plainbuffertest.Append(&w, &list[i])
	}
	return w.Buf
}

// TestVectors holds scanner and builder against bytes that Tablestore's own encoders
// made.
func TestVectors(t *testing.T) {
	name := func(s string) *plainbuffer.Name {
		n := plainbuffer.NewName([]byte(s))
		return &n
	}
	for _, c := range []struct {
		name, wire string
		build      func(w *plainbuffer.Builder)
		cells      int
		deleted    bool
	}{
		{
			"a key", "7500000001030403000000706b3105060000000301000000610a1909ea",
			func(w *plainbuffer.Builder) { w.End(false) }, 0, false,
		},
		{
			"a row", "7500000001030403000000706b3105060000000301000000610a19020304010000006305090000000001000000000000000702000000000000000ab709bc",
			func(w *plainbuffer.Builder) {
				w.Attributes()
				w.Integer(name("c"), 1, 2)
				w.End(false)
			}, 1, false,
		},
		{
			"a deletion", "7500000001030403000000706b3105060000000301000000610a190809ed",
			func(w *plainbuffer.Builder) { w.End(true) }, 0, true,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := plainbuffer.Builder{Buf: plainbuffer.AppendHeader(nil)}
			w.Begin()
			w.KeyBytes(name("pk1"), plainbuffer.String, []byte("a"))
			c.build(&w)
			if got := hex.EncodeToString(w.Buf); got != c.wire {
				t.Fatalf("built\n%s, want\n%s", got, c.wire)
			}
			row := one(t, w.Buf)
			if len(row.Key) != 1 || string(row.Key[0].Name) != "pk1" || row.Key[0].Type != plainbuffer.String || string(row.Key[0].Data) != "a" {
				t.Errorf("the key is %+v", row.Key)
			}
			if len(row.Cells) != c.cells || row.Delete != c.deleted || row.Irregular || row.HasExtension {
				t.Errorf("the row is %+v", row)
			}
			for i := range row.Cells {
				if v := &row.Cells[i]; string(v.Name) != "c" || v.Int() != 1 || !v.HasTimestamp || v.Timestamp != 2 || v.Op != plainbuffer.NoOp {
					t.Errorf("the cell is %+v", v)
				}
			}
			if !bytes.Equal(row.Raw, w.Buf[plainbuffer.HeaderSize:]) || row.Checksum != w.Buf[len(w.Buf)-1] {
				t.Errorf("raw % x with the checksum 0x%02x", row.Raw, row.Checksum)
			}
		})
	}
}

// TestChecksum holds the table-driven checksum against the check value of the polynomial,
// and against the definition on every length and cut.
func TestChecksum(t *testing.T) {
	if got := plainbuffer.Checksum(0, []byte("123456789")); got != 0xF4 {
		t.Errorf(`the checksum of "123456789" is 0x%02x, want 0xf4`, got)
	}
	if got := plainbuffer.Checksum(0x5A, nil); got != 0x5A {
		t.Errorf("nothing changes 0x5a into 0x%02x", got)
	}
	bitwise := func(crc byte, data []byte) byte {
		for _, b := range data {
			crc ^= b
			for range 8 {
				over := crc&0x80 != 0
				crc <<= 1
				if over {
					crc ^= 0x07
				}
			}
		}
		return crc
	}
	rng := plainbuffertest.Rand(t)
	for n := range 100 {
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		start := byte(rng.Uint32())
		want := bitwise(start, data)
		for cut := range n + 1 {
			if got := plainbuffer.Checksum(plainbuffer.Checksum(start, data[:cut]), data[cut:]); got != want {
				t.Fatalf("the checksum of %x from 0x%02x on, cut at %d, is 0x%02x, want 0x%02x", data, start, cut, got, want)
			}
		}
	}
}

// TestTypedCells: what the builder's methods for single types write is what Cell writes
// of the same value.
func TestTypedCells(t *testing.T) {
	rng := plainbuffertest.Rand(t)
	seen := map[plainbuffer.Type]int{}
	for range 500 {
		row := plainbuffertest.Row(rng)
		w := plainbuffer.Builder{Buf: plainbuffer.AppendHeader(nil)}
		w.Begin()
		var name plainbuffer.Name
		for i := range row.Key {
			c := &row.Key[i]
			name.Set(c.Name)
			if c.Type == plainbuffer.Integer {
				w.KeyInteger(&name, c.Int())
			} else {
				w.KeyBytes(&name, c.Type, c.Data)
			}
		}
		if len(row.Cells) > 0 {
			w.Attributes()
		}
		for i := range row.Cells {
			c := &row.Cells[i]
			seen[c.Type]++
			name.Set(c.Name)
			switch c.Type {
			case plainbuffer.Integer:
				w.Integer(&name, c.Int(), c.Timestamp)
			case plainbuffer.Double:
				w.Double(&name, c.Double(), c.Timestamp)
			case plainbuffer.Boolean:
				w.Boolean(&name, c.Bool(), c.Timestamp)
			default:
				w.Bytes(&name, c.Type, c.Data, c.Timestamp)
			}
		}
		w.End(false)
		if want := build(row); !bytes.Equal(w.Buf, want) {
			t.Fatalf("built\n% x, want\n% x", w.Buf, want)
		}
	}
	for _, typ := range plainbuffertest.Types {
		if seen[typ] == 0 {
			t.Errorf("no cell was of type %s", typ)
		}
	}
}

// samples are blocks of rows of every kind that a table or a write has.
func samples() map[string][]byte {
	rng := rand.New(rand.NewPCG(7, 7))
	attributes := plainbuffer.Row{Key: plainbuffertest.Key(rng)}
	for i, typ := range plainbuffertest.Types {
		attributes.Cells = append(attributes.Cells, plainbuffertest.Cell(rng, fmt.Sprint("column", i), typ, int64(i)*1_700_000_000_000))
	}
	key := []plainbuffer.Cell{{Name: []byte("pk1"), HasValue: true, Type: plainbuffer.String, Data: []byte("a")}}
	operations := plainbuffer.Row{Key: key, Cells: []plainbuffer.Cell{
		{Name: []byte("all"), Op: plainbuffer.DeleteAll},
		{Name: []byte("one"), Op: plainbuffer.DeleteOne, HasTimestamp: true, Timestamp: 5},
		{Name: []byte("sum"), HasValue: true, Type: plainbuffer.Integer, Data: make([]byte, 8), Op: plainbuffer.Increment},
		{Name: []byte("now"), HasValue: true, Type: plainbuffer.String, Data: []byte("x")},
		{Name: []byte("null"), HasValue: true, Type: plainbuffer.Null},
	}}
	bounds := plainbuffer.Row{Key: []plainbuffer.Cell{
		{Name: []byte("a"), HasValue: true, Type: plainbuffer.InfMin},
		{Name: []byte("b"), HasValue: true, Type: plainbuffer.InfMax},
		{Name: []byte("c"), HasValue: true, Type: plainbuffer.AutoIncrement},
	}}
	blocks := map[string][]byte{
		"attributes":    build(attributes),
		"operations":    build(operations),
		"bounds":        build(bounds),
		"a deletion":    build(plainbuffer.Row{Key: key, Delete: true}),
		"a key":         build(plainbuffer.Row{Key: key}),
		"several rows":  build(attributes, plainbuffer.Row{Key: key}, plainbuffer.Row{Key: key, Delete: true}, operations),
		"unusual names": build(plainbuffer.Row{Key: key, Cells: []plainbuffer.Cell{plainbuffertest.Cell(rng, "", plainbuffer.String, 0), plainbuffertest.Cell(rng, "\x00公司\xff", plainbuffer.Blob, math.MaxInt64)}}),
	}
	for i := range 20 {
		blocks[fmt.Sprint("random ", i)] = build(plainbuffertest.Row(rng))
	}
	return blocks
}

// TestFlips: no bit of a block can turn without being seen, be it in what the checksums
// cover or in what holds it together.
func TestFlips(t *testing.T) {
	tried := 0
	for name, block := range samples() {
		if _, err := rows(block); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		bad := bytes.Clone(block)
		for bit := range len(block) * 8 {
			bad[bit/8] ^= 1 << (bit % 8)
			if found, err := rows(bad); err == nil {
				t.Errorf("%s: with bit %d of byte %d turned, %d rows are taken from % x", name, bit%8, bit/8, len(found), bad)
			} else if !errors.Is(err, plainbuffer.ErrCorrupt) {
				t.Errorf("%s: bit %d: %v", name, bit, err)
			}
			bad[bit/8] ^= 1 << (bit % 8)
			tried++
		}
	}
	if tried < 10_000 {
		t.Fatalf("only %d flips were tried", tried)
	}
}

// TestFlipsOfRecords: the checksums do not cover the extension of a stream's record, in
// the service's own definition. A flip there changes the place that it names or is
// refused; every other flip is refused.
func TestFlipsOfRecords(t *testing.T) {
	want := plainbuffer.Row{
		Key:   []plainbuffer.Cell{{Name: []byte("pk1"), HasValue: true, Type: plainbuffer.String, Data: []byte("a")}},
		Cells: []plainbuffer.Cell{{Name: []byte("all"), Op: plainbuffer.DeleteAll}},
		Extension: plainbuffer.Extension{
			Epoch: -1, Timestamp: 1_700_000_000_000_000, RowIndex: 3,
		}, HasExtension: true,
	}
	block := build(want)
	if got := one(t, block); got.Extension != want.Extension || !got.HasExtension {
		t.Fatalf("the extension %+v comes back as %+v", want.Extension, got.Extension)
	}
	taken := 0
	bad := bytes.Clone(block)
	for bit := range len(block) * 8 {
		bad[bit/8] ^= 1 << (bit % 8)
		if found, err := rows(bad); err == nil {
			taken++
			if got := found[0]; len(found) != 1 || got.Extension == want.Extension || plainbuffer.CompareKeys(got.Key, want.Key) != 0 || !reflect.DeepEqual(got.Cells, want.Cells) {
				t.Errorf("bit %d changes more than the extension: %+v", bit, got)
			}
		}
		bad[bit/8] ^= 1 << (bit % 8)
	}
	if numbers := 32 + 63 + 32; taken != numbers {
		t.Errorf("%d flips are taken, want the %d of the extension's numbers, a time before the epoch left out", taken, numbers)
	}
}

// TestTruncations: a block that stops is refused, unless it stops between two rows.
func TestTruncations(t *testing.T) {
	tried := 0
	for name, block := range samples() {
		whole, err := rows(block)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		ends := map[int]int{0: 0, plainbuffer.HeaderSize: 0}
		at := plainbuffer.HeaderSize
		for i, r := range whole {
			at += len(r.Raw)
			ends[at] = i + 1
		}
		for n := range len(block) {
			found, err := rows(block[:n])
			if want, ok := ends[n]; ok {
				if err != nil || len(found) != want {
					t.Errorf("%s: %d rows, and %v, in the %d bytes of %d rows", name, len(found), err, n, want)
				}
			} else if !errors.Is(err, plainbuffer.ErrCorrupt) {
				t.Errorf("%s: the first %d bytes of %d: %v", name, n, len(block), err)
			}
			tried++
		}
		if found, err := rows(append(bytes.Clone(block), 0)); err == nil {
			t.Errorf("%s: with a byte more, %d rows are taken", name, len(found))
		}
	}
	if tried < 1000 {
		t.Fatalf("only %d truncations were tried", tried)
	}
}

// TestRefusals: bytes with right checksums that the grammar does not allow, and what the
// errors say.
func TestRefusals(t *testing.T) {
	key := "010304010000006b05010000000a" // of one column k, +inf
	crc := func(parts ...string) string {
		return hex.EncodeToString([]byte{plainbuffer.Checksum(0, []byte(strings.Join(parts, "")))})
	}
	bare := key + "0a" + crc("k\x0a")
	for _, c := range []struct{ name, wire, want string }{
		{"no header", "74000000", "no header"},
		{"half a header", "7500", "no header"},
		{"no row", "7500000002", "no row tag"},
		{"no key", "750000000109" + "00", "without a key"},
		{"no name", "750000000103", "without a name"},
		{"a long name", "75000000010304ffffffff6b", "a name of 4294967295 bytes"},
		{"a long value", "75000000010304010000006b05ffffffff0a", "a value of 4294967295 bytes"},
		{"an empty value", "75000000010304010000006b05000000000a00", "a value of 0 bytes"},
		{"a short number", "75000000010304010000006b05080000000000000000000000", "a number of 7 bytes"},
		{"a third boolean", "75000000010304010000006b05020000000202", "a boolean"},
		{"two lengths", "75000000010304010000006b0506000000030200000061", "two lengths"},
		{"an unknown type", "75000000010304010000006b050100000008", "unknown value type 0x08"},
		{"a bound with bytes", "75000000010304010000006b05020000000a00", "a value +inf with 1 bytes"},
		{"an unknown operation", "75000000010304010000006b0602", "unknown operation 0x02"},
		{"half a timestamp", "75000000010304010000006b07000000", "a timestamp cut short"},
		{"the cell's checksum", "75000000" + key + "0aff", "checksum of cell"},
		{"the row's checksum", "75000000" + bare + "09ff", "the row's checksum"},
		{"no end", "75000000" + bare + "08", "no checksum of the row"},
		{"another extension", "75000000" + bare + "0b180000000c140000000d00000000" + strings.Repeat("0", 40), "unknown extension"},
	} {
		t.Run(c.name, func(t *testing.T) {
			block, err := hex.DecodeString(c.wire)
			if err != nil {
				t.Fatal(err)
			}
			found, err := rows(block)
			if !errors.Is(err, plainbuffer.ErrCorrupt) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%d rows, error %v; want it to say %q", len(found), err, c.want)
			}
		})
	}
}

// TestIrregular: a row that has the attributes' tag and no attribute is taken, and says
// that it would be built without the tag.
func TestIrregular(t *testing.T) {
	w := plainbuffer.Builder{Buf: plainbuffer.AppendHeader(nil)}
	w.Begin()
	n := plainbuffer.NewName([]byte("k"))
	w.KeyInteger(&n, 5)
	w.Attributes()
	w.End(false)
	row := one(t, w.Buf)
	if !row.Irregular || len(row.Cells) != 0 {
		t.Errorf("the row is %+v", row)
	}
	row = one(t, build(row))
	if row.Irregular {
		t.Error("built anew it is irregular again")
	}
}

// TestEmptyBlocks: no bytes, and a header alone, hold no rows.
func TestEmptyBlocks(t *testing.T) {
	for _, block := range [][]byte{nil, {}, plainbuffer.AppendHeader(nil)} {
		if found, err := rows(block); err != nil || len(found) != 0 {
			t.Errorf("% x: %d rows, %v", block, len(found), err)
		}
	}
}

// TestScanKey: a bound is a key and nothing else.
func TestScanKey(t *testing.T) {
	blocks := samples()
	for name, ok := range map[string]bool{"a key": true, "bounds": true, "attributes": false, "several rows": false} {
		var row plainbuffer.Row
		if err := plainbuffer.ScanKey(blocks[name], &row); (err == nil) != ok || err != nil && !errors.Is(err, plainbuffer.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, block := range [][]byte{nil, plainbuffer.AppendHeader(nil)} {
		if err := plainbuffer.ScanKey(block, new(plainbuffer.Row)); !errors.Is(err, plainbuffer.ErrCorrupt) {
			t.Errorf("% x: %v", block, err)
		}
	}
}

// TestResetForgets: a scanner that is used again does not go by the names of a block
// whose memory has become another's.
func TestResetForgets(t *testing.T) {
	rng := plainbuffertest.Rand(t)
	s := plainbuffer.NewScanner(nil)
	memory := make([]byte, 1<<16)
	for range 200 {
		want := build(plainbuffertest.Row(rng), plainbuffertest.Row(rng))
		n := copy(memory, want)
		s.Reset(memory[:n])
		found, err := all(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := build(found...); !bytes.Equal(got, want) {
			t.Fatalf("% x comes back as % x", want, got)
		}
		if s.Offset() != n {
			t.Fatalf("the scanner ends at %d of %d", s.Offset(), n)
		}
		s.ResetRows(memory[plainbuffer.HeaderSize:n])
		if found, err = all(s); err != nil || len(found) != 2 {
			t.Fatalf("%d rows without a header: %v", len(found), err)
		}
	}
}

// TestOrder holds the order of keys that are not decoded against that of the decoded
// values.
func TestOrder(t *testing.T) {
	rng := plainbuffertest.Rand(t)
	equal, differ := 0, 0
	for range 20_000 {
		a := plainbuffertest.Key(rng)
		b := make([]plainbuffer.Cell, len(a))
		for i, c := range a {
			b[i] = c
			switch rng.IntN(4) {
			case 0:
				b[i].Data = plainbuffertest.Data(rng, c.Type)
			case 1:
				b[i].Type, b[i].Data = []plainbuffer.Type{plainbuffer.InfMin, plainbuffer.InfMax}[rng.IntN(2)], nil
			}
		}
		b = b[:1+rng.IntN(len(b))]
		if order(t, a, b) == 0 {
			equal++
		} else {
			differ++
		}
	}
	if equal == 0 || differ == 0 {
		t.Errorf("%d pairs were equal, %d differed", equal, differ)
	}
}

// order compares two keys, and fails if comparing them decoded, or turned round, says
// something else.
func order(t *testing.T, a, b []plainbuffer.Cell) int {
	t.Helper()
	got := plainbuffer.CompareKeys(a, b)
	if want := decodedOrder(a, b); got != want {
		t.Fatalf("%v against %v is %d, decoded %d", table.KeyOf(a), table.KeyOf(b), got, want)
	}
	if want := table.KeyOf(a).Compare(table.KeyOf(b)); got != want {
		t.Fatalf("%v against %v is %d, as keys of a table %d", table.KeyOf(a), table.KeyOf(b), got, want)
	}
	if back := plainbuffer.CompareKeys(b, a); back != -got {
		t.Fatalf("%v against %v is %d, the other way %d", table.KeyOf(a), table.KeyOf(b), got, back)
	}
	return got
}

// decodedOrder is the order of keys as the service documents it, over values of Go's
// types.
func decodedOrder(a, b []plainbuffer.Cell) int {
	bound := map[plainbuffer.Type]int{plainbuffer.InfMin: -1, plainbuffer.InfMax: 1}
	for i := range min(len(a), len(b)) {
		x, y := &a[i], &b[i]
		if p, q := bound[x.Type], bound[y.Type]; p != 0 || q != 0 {
			if p != q {
				return sign(p - q)
			}
			continue
		}
		switch x.Type {
		case plainbuffer.Integer:
			if x.Int() != y.Int() {
				if x.Int() < y.Int() {
					return -1
				}
				return 1
			}
		default:
			if c := strings.Compare(string(x.Data), string(y.Data)); c != 0 {
				return c
			}
		}
	}
	return sign(len(a) - len(b))
}

func sign(n int) int { return min(1, max(-1, n)) }

// TestAllocations: neither a walk nor a build allocates for a row.
func TestAllocations(t *testing.T) {
	rng := plainbuffertest.Rand(t)
	var list []plainbuffer.Row
	for range 200 {
		list = append(list, plainbuffertest.Row(rng))
	}
	block := build(list...)
	s := plainbuffer.NewScanner(nil)
	var row plainbuffer.Row
	walk := func() {
		s.Reset(block)
		n := 0
		for s.Next(&row) == nil {
			n++
		}
		if n != len(list) {
			t.Fatalf("%d rows of %d", n, len(list))
		}
	}
	walk() // until the row's slices have grown
	if n := testing.AllocsPerRun(10, walk); n != 0 {
		t.Errorf("a walk over %d rows makes %v allocations", len(list), n)
	}
	key, name := plainbuffer.NewName([]byte("key")), plainbuffer.NewName([]byte("column"))
	w := plainbuffer.Builder{Buf: make([]byte, 0, 2*len(block))}
	if n := testing.AllocsPerRun(10, func() {
		w.Buf = plainbuffer.AppendHeader(w.Buf[:0])
		for i := range list {
			plainbuffertest.Append(&w, &list[i])
		}
		if !bytes.Equal(w.Buf, block) {
			t.Fatal("another block is built")
		}
		w.Buf = w.Buf[:0]
		for i := range list {
			w.Begin()
			w.KeyInteger(&key, int64(i))
			w.KeyBytes(&key, plainbuffer.String, list[i].Key[0].Data)
			w.Attributes()
			w.Integer(&name, 5, 1)
			w.Double(&name, 5, 2)
			w.Boolean(&name, true, 3)
			w.Bytes(&name, plainbuffer.Blob, list[i].Key[0].Data, 4)
			name.Set([]byte("other"))
			w.End(false)
		}
	}); n != 0 {
		t.Errorf("building %d rows makes %v allocations", 2*len(list), n)
	}
}
