package table

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/plainbuffer/plainbuffertest"
)

// ordered are values in their order, for columns of each type.
var ordered = map[KeyType][]Value{
	IntegerKey: {Min(), Integer(math.MinInt64), Integer(-1), Integer(0), Integer(1), Integer(math.MaxInt64), Max()},
	StringKey:  {Min(), String(""), String("\x00"), String("a"), String("a\x00"), String("b"), String("é"), String("\xff\xfe"), Max()},
	BinaryKey:  {Min(), Binary(nil), Binary([]byte{0}), Binary([]byte{0, 0}), Binary([]byte{0x7f}), Binary([]byte{0x80}), Max()},
}

func TestOrderJSONAndWire(t *testing.T) {
	for kind, values := range ordered {
		schema := Schema{{Name: "k", Type: kind}}
		for i, v := range values {
			for j, w := range values {
				if got := v.Compare(w); got != sign(i-j) {
					t.Errorf("%s: %v against %v is %d", kind, v, w, got)
				}
			}
			data, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			var back Value
			if err := json.Unmarshal(data, &back); err != nil || back.Compare(v) != 0 || back.Type != v.Type {
				t.Errorf("%v is %s in JSON, and %v again: %v", v, data, back, err)
			}
			wire, err := schema.AppendKey(nil, Key{v})
			if err != nil {
				t.Fatal(err)
			}
			key, err := schema.ParseKey(wire)
			if err != nil || !key.Equal(Key{v}) {
				t.Errorf("%v is %x on the wire, and %v again: %v", v, wire, key, err)
			}
		}
	}
}

func sign(n int) int { return min(1, max(-1, n)) }

func TestValueJSONIsStrict(t *testing.T) {
	for _, bad := range []string{
		`{}`, `{"integer":1,"string":"a"}`, `{"integer":1.5}`, `{"integer":9223372036854775808}`, `{"bound":"none"}`,
		`{"blob":"aa"}`, `{"string64":"YQ=="}`, `5`, `null`, `{"binary":"%"}`,
	} {
		var v Value
		if err := json.Unmarshal([]byte(bad), &v); err == nil {
			t.Errorf("%s is read as %v", bad, v)
		}
	}
}

func TestNextIsTheLeastGreater(t *testing.T) {
	for kind, values := range ordered {
		for _, v := range values[1 : len(values)-1] {
			n := Key{v}.Next()
			if n.Compare(Key{v}) <= 0 {
				t.Errorf("%s: %v is followed by %v", kind, v, n)
			}
			for _, w := range values {
				if w.Compare(v) > 0 && n.Compare(Key{w}) > 0 {
					t.Errorf("%s: %v lies between %v and its next, %v", kind, w, v, n)
				}
			}
		}
	}
}

// TestNextKeepsTheLimit: the successor of a value of the greatest length is none that the
// service refuses, and nothing that it may hold lies in between.
func TestNextKeepsTheLimit(t *testing.T) {
	full := func(end string) string { return strings.Repeat("k", MaxKeyBytes-len(end)) + end }
	cut := func(n int, end string) string { return strings.Repeat("k", MaxKeyBytes-n) + end }
	top := strings.Repeat("\U0010ffff", MaxKeyBytes/4)
	for _, c := range []struct{ value, next Value }{
		{String(full("a")), String(full("b"))},
		{String(full("a")[1:]), String(full("a")[1:] + "\x00")},
		{String(full("\x7f")), String(cut(2, "l"))}, // the next code point has a byte more
		{String(full("\u07ff")), String(cut(3, "l"))},
		{String(full("\ud7ff")), String(full("\ue000"))},
		{String(full("\uffff")), String(cut(4, "l"))},
		{String(full("a\U0010ffff")), String(cut(5, "b"))},
		{String(top), Max()},
		{String(full("\xff")), String(cut(2, "l"))}, // no text
		{Binary([]byte(full("\x7f"))), Binary([]byte(full("\x80")))},
		{Binary([]byte(full("\xff\xff"))), Binary([]byte(cut(3, "l")))},
		{Binary(bytes.Repeat([]byte{0xff}, MaxKeyBytes)), Max()},
	} {
		k := Key{Integer(7), c.value}
		if got := k.Next(); !got.Equal(Key{Integer(7), c.next}) || len(got[1].Bytes) > MaxKeyBytes {
			t.Errorf("…%.20q is followed by %d bytes …%.20q, want …%.20q", tail(c.value), len(got[1].Bytes), tail(got[1]), tail(c.next))
		}
		if k[1].Compare(c.value) != 0 {
			t.Errorf("…%.20q was changed", tail(c.value))
		}
	}
	for at, want := range map[string]string{"": "\x00", "ab": "ab\x00", "abc": "abd", "ab\xff": "ac", "\xff\xff\xff": ""} {
		if got := string(Successor([]byte(at), 3)); got != want {
			t.Errorf("%q is followed by %q, want %q", at, got, want)
		}
	}
}

func tail(v Value) []byte { return v.Bytes[max(0, len(v.Bytes)-8):] }

// TestHashersAreOpenBetweenPieces: a row that is hashed in pieces is not touched by
// others that are hashed meanwhile.
func TestHashersAreOpenBetweenPieces(t *testing.T) {
	row := func(name string) *plainbuffer.Row {
		return &plainbuffer.Row{
			Key:   []plainbuffer.Cell{{Name: []byte("k"), HasValue: true, Type: plainbuffer.String, Data: []byte(name)}},
			Cells: []plainbuffer.Cell{{Name: []byte(name), HasValue: true, Type: plainbuffer.Blob, Data: bytes.Repeat([]byte(name), 100_000)}},
		}
	}
	a, b := row("a"), row("b")
	h := NewHasher(3)
	want, other := h.Row(a), h.Row(b)
	for range 2 {
		h.Begin(a.Key)
		if h.Row(b) != other || h.Form(nil) == (Digest{}) {
			t.Error("another row has another digest between the pieces of one")
		}
		h.Cells(a.Cells)
		h.Row(b)
		if h.End() != want {
			t.Error("a row has another digest if others are hashed between its pieces")
		}
	}
}

func TestCovers(t *testing.T) {
	schema := Schema{{Name: "k", Type: IntegerKey}}
	whole := schema.Whole()
	at := func(n int64) Key { return Key{Integer(n)} }
	cases := []struct {
		name  string
		parts []Range
		want  string // part of the error; empty for none
	}{
		{"one", []Range{whole}, ""},
		{"three", []Range{{whole.Start, at(0)}, {at(0), at(5)}, {at(5), whole.End}}, ""},
		{"none", nil, "gap"},
		{"gap", []Range{{whole.Start, at(0)}, {at(1), whole.End}}, "gap [(0), (1))"},
		{"overlap", []Range{{whole.Start, at(2)}, {at(1), whole.End}}, "inside the range before"},
		{"empty part", []Range{{whole.Start, at(2)}, {at(2), at(2)}, {at(2), whole.End}}, "holds no key"},
		{"short", []Range{{whole.Start, at(2)}}, "at the end"},
		{"long", []Range{{whole.Start, whole.End}, {whole.End, append(whole.End, Min())}}, "beyond"},
	}
	for _, c := range cases {
		err := Covers(whole, c.parts)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestSchemaRefuses(t *testing.T) {
	for name, s := range map[string]Schema{
		"no column":        {},
		"five":             {{Name: "a", Type: StringKey}, {Name: "b", Type: StringKey}, {Name: "c", Type: StringKey}, {Name: "d", Type: StringKey}, {Name: "e", Type: StringKey}},
		"twice":            {{Name: "a", Type: StringKey}, {Name: "a", Type: StringKey}},
		"unknown type":     {{Name: "a", Type: "float"}},
		"first increments": {{Name: "a", Type: IntegerKey, AutoIncrement: true}},
		"no name":          {{Type: StringKey}},
	} {
		if s.Validate() == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// TestDigest holds the digest against its promises on random rows: the sum does not
// depend on order, on cuts, on the order of cells, or on whether a row comes in pieces,
// and it changes with everything that a row is.
func TestDigest(t *testing.T) {
	rng := plainbuffertest.Rand(t)
	h := NewHasher(42)
	var rows []plainbuffer.Row
	for i := range 200 {
		rows = append(rows, randomRow(rng, i))
	}
	var all Digest
	for i := range rows {
		all.Add(h.Row(&rows[i]))
	}
	var shuffled Digest
	for _, i := range rng.Perm(len(rows)) {
		row := rows[i]
		cells := row.Cells
		h.Begin(row.Key)
		for len(cells) > 0 {
			n := 1 + rng.IntN(len(cells))
			h.Cells(cells[:n])
			cells = cells[n:]
		}
		d := h.End()
		if one := h.Row(&row); one != d {
			t.Fatalf("row %d in pieces has the digest %v, whole %v", i, d, one)
		}
		turned := row
		turned.Cells = append([]plainbuffer.Cell{}, row.Cells...)
		rng.Shuffle(len(turned.Cells), func(i, j int) { turned.Cells[i], turned.Cells[j] = turned.Cells[j], turned.Cells[i] })
		if h.Row(&turned) != d {
			t.Fatalf("row %d changes with the order of its cells", i)
		}
		shuffled.Add(d)
	}
	if all != shuffled {
		t.Fatalf("the sum is %v in one order and %v in another", all, shuffled)
	}
	row := rows[7]
	one := h.Row(&row)
	for name, change := range map[string]func(*plainbuffer.Row){
		"key":       func(r *plainbuffer.Row) { r.Key[0].Data = []byte("other") },
		"value":     func(r *plainbuffer.Row) { r.Cells[0].Data = []byte("other") },
		"name":      func(r *plainbuffer.Row) { r.Cells[0].Name = []byte("A") },
		"timestamp": func(r *plainbuffer.Row) { r.Cells[0].Timestamp++ },
		"type":      func(r *plainbuffer.Row) { r.Cells[0].Type ^= plainbuffer.String ^ plainbuffer.Blob },
		"cell gone": func(r *plainbuffer.Row) { r.Cells = r.Cells[1:] },
	} {
		changed := plainbuffer.Row{
			Key:   append([]plainbuffer.Cell{}, row.Key...),
			Cells: append([]plainbuffer.Cell{}, row.Cells...),
		}
		change(&changed)
		if h.Row(&changed) == one {
			t.Errorf("the digest does not see a change of the %s", name)
		}
	}
	if NewHasher(43).Row(&row) == one {
		t.Error("the digest does not depend on the seed")
	}
	text, _ := all.MarshalText()
	var back Digest
	if err := back.UnmarshalText(text); err != nil || back != all {
		t.Errorf("%s is read as %v: %v", text, back, err)
	}
}

// randomRow is a canonical row with at least one cell, and a key of its own.
func randomRow(rng *rand.Rand, i int) plainbuffer.Row {
	row := plainbuffertest.Row(rng)
	for len(row.Cells) == 0 {
		row = plainbuffertest.Row(rng)
	}
	row.Key[0] = plainbuffer.Cell{Name: []byte("k"), HasValue: true, Type: plainbuffer.Blob, Data: []byte{byte(i >> 8), byte(i)}}
	return row
}

func TestExpired(t *testing.T) {
	o := Options{TTL: 10}
	if o.Expired(90_000, 100_000) || !o.Expired(89_999, 100_000) || (Options{TTL: NoTTL}).Expired(0, math.MaxInt64) {
		t.Error("a cell expires when its timestamp is more than the TTL ago, and never without one")
	}
}

// TestInvalidf: what this program finds invalid matches, and is not told as the word of a
// service.
func TestInvalidf(t *testing.T) {
	err := fmt.Errorf("restore: %w", Invalidf("the key has %d columns: %w", 2, io.EOF))
	if !errors.Is(err, ErrInvalid) || !errors.Is(err, io.EOF) || err.Error() != "restore: the key has 2 columns: EOF" {
		t.Error(err)
	}
}
