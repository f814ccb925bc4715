package shard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
)

var testSchema = table.Schema{
	{Name: "p", Type: table.StringKey}, {Name: "q", Type: table.IntegerKey}, {Name: "r", Type: table.BinaryKey},
}

var testHeader = Header{Vault: "v", Backup: "b", Table: "local/i/t", Segment: "000000", Schema: testSchema, Seed: 7}

// rowKey is the i-th key, in order.
func rowKey(w *plainbuffer.Builder, i int) {
	names := []plainbuffer.Name{plainbuffer.NewName([]byte("p")), plainbuffer.NewName([]byte("q")), plainbuffer.NewName([]byte("r"))}
	w.KeyBytes(&names[0], plainbuffer.String, fmt.Appendf(nil, "user-%06d", i/7))
	w.KeyInteger(&names[1], int64(i%7)-3)
	w.KeyBytes(&names[2], plainbuffer.Blob, []byte{byte(i), 0xff})
}

// shape builds the cells of a row.
type shape func(rng *rand.Rand, i int, w *plainbuffer.Builder)

func cell(w *plainbuffer.Builder, rng *rand.Rand, name string, t plainbuffer.Type, ts int64) {
	n := plainbuffer.NewName([]byte(name))
	switch t {
	case plainbuffer.Integer:
		v := rng.Int64()
		switch rng.IntN(4) {
		case 0:
			v = math.MinInt64
		case 1:
			v = math.MaxInt64
		case 2:
			v = rng.Int64N(100)
		}
		w.Integer(&n, v, ts)
	case plainbuffer.Double:
		w.Double(&n, []float64{0, math.Copysign(0, -1), 1.5, math.MaxFloat64, math.SmallestNonzeroFloat64}[rng.IntN(5)], ts)
	case plainbuffer.Boolean:
		w.Boolean(&n, rng.IntN(2) == 0, ts)
	default:
		b := make([]byte, rng.IntN(60))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		w.Bytes(&n, t, b, ts)
	}
}

var types = []plainbuffer.Type{plainbuffer.Integer, plainbuffer.Double, plainbuffer.Boolean, plainbuffer.String, plainbuffer.Blob}

var shapes = map[string]shape{
	"same columns": func(rng *rand.Rand, i int, w *plainbuffer.Builder) {
		w.Attributes()
		for c, t := range types {
			cell(w, rng, fmt.Sprintf("c%d", c), t, 1_700_000_000_000+int64(i))
		}
	},
	"versions": func(rng *rand.Rand, i int, w *plainbuffer.Builder) {
		w.Attributes()
		for c, t := range types {
			for v := range 1 + rng.IntN(4) {
				cell(w, rng, fmt.Sprintf("c%d", c), t, 1_700_000_000_000-int64(v*(1+rng.IntN(1000))))
			}
		}
	},
	"types that change": func(rng *rand.Rand, i int, w *plainbuffer.Builder) {
		w.Attributes()
		for c := range 3 {
			cell(w, rng, fmt.Sprintf("c%d", c), types[rng.IntN(len(types))], int64(rng.IntN(3)))
		}
	},
	"ever-changing columns": func(rng *rand.Rand, i int, w *plainbuffer.Builder) {
		w.Attributes()
		for c := range 200 {
			if rng.IntN(10) == 0 || c == 0 {
				cell(w, rng, fmt.Sprintf("c%03d\xff", c), types[c%len(types)], int64(rng.IntN(1e6)))
			}
		}
	},
	"keys alone": func(*rand.Rand, int, *plainbuffer.Builder) {},
	"now and then empty": func(rng *rand.Rand, i int, w *plainbuffer.Builder) {
		if rng.IntN(3) > 0 {
			w.Attributes()
			cell(w, rng, "", plainbuffer.String, 0)
			cell(w, rng, "公司", plainbuffer.Integer, math.MaxInt64/1000-1)
		}
	},
	"irregular": func(rng *rand.Rand, i int, w *plainbuffer.Builder) {
		w.Attributes()
		switch rng.IntN(5) {
		case 0: // the tag alone
		case 1:
			w.Cell(&plainbuffer.Cell{Name: []byte("a"), Op: plainbuffer.DeleteAll})
		case 2:
			w.Cell(&plainbuffer.Cell{Name: []byte("a"), HasValue: true, Type: plainbuffer.String, Data: []byte("x")})
		case 3:
			w.Cell(&plainbuffer.Cell{Name: []byte("a"), HasValue: true, Type: plainbuffer.Null, HasTimestamp: true})
		default:
			cell(w, rng, "a", plainbuffer.String, 5)
		}
	},
	"long values": func(rng *rand.Rand, i int, w *plainbuffer.Builder) {
		w.Attributes()
		n := plainbuffer.NewName([]byte("long"))
		for v, size := range []int{chunk, 2*chunk - 1, chunk - 1} {
			if i%50 == 0 {
				w.Bytes(&n, plainbuffer.String, bytes.Repeat([]byte{byte(i + v)}, size), int64(100-v))
			}
		}
		cell(w, rng, "z", plainbuffer.Integer, 1)
	},
}

func block(n int, rng *rand.Rand, s shape) []byte {
	w := plainbuffer.Builder{Buf: plainbuffer.AppendHeader(nil)}
	for i := range n {
		w.Begin()
		rowKey(&w, i)
		s(rng, i, &w)
		w.End(false)
	}
	return w.Buf
}

// write makes a shard of blocks, one per lane, and returns it with its index.
func write(t testing.TB, blocks ...[]byte) (file, index []byte) {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, testHeader)
	if err != nil {
		t.Fatal(err)
	}
	e := NewEncoder(Options{Schema: testSchema, Seed: testHeader.Seed})
	var lanes []Lane
	for lane, b := range blocks {
		e.Reset(lane)
		l := Lane{From: testSchema.Whole().Start, Next: testSchema.Whole().End}
		flush := func() {
			b, err := e.Flush()
			if err != nil {
				t.Fatal(err)
			}
			if b != nil {
				if err := w.Append(b); err != nil {
					t.Fatal(err)
				}
			}
		}
		s := plainbuffer.NewScanner(b)
		var row plainbuffer.Row
		for {
			if err := s.Next(&row); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			full, err := e.Add(&row)
			if err != nil {
				t.Fatal(err)
			}
			l.Rows++
			if full {
				flush()
			}
		}
		flush()
		lanes = append(lanes, l)
	}
	if _, err := w.Finish(lanes); err != nil {
		t.Fatal(err)
	}
	var ix bytes.Buffer
	if err := w.WriteIndex(&ix); err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), ix.Bytes()
}

// read reads a whole shard and returns the rows of each lane.
func read(file []byte) (map[int][]byte, Summary, error) {
	r, err := NewReader(bytes.NewReader(file))
	if err != nil {
		return nil, Summary{}, err
	}
	lanes := map[int][]byte{}
	var rows Rows
	for {
		err := r.Next(&rows)
		if err == io.EOF {
			return lanes, r.Summary(), nil
		}
		if err != nil {
			return nil, Summary{}, err
		}
		lanes[rows.Lane] = append(lanes[rows.Lane], rows.Buf...)
	}
}

// TestRoundTrip: rows of every shape come back byte for byte, through the
// whole file and through the index.
func TestRoundTrip(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for name, s := range shapes {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			blocks := [][]byte{block(600, rng, s), block(0, rng, s), block(1, rng, s), block(100, rng, s)}
			file, index := write(t, blocks...)
			lanes, sum, err := read(file)
			if err != nil {
				t.Fatal(err)
			}
			for i, b := range blocks {
				if !bytes.Equal(lanes[i], b[plainbuffer.HeaderSize:]) {
					t.Fatalf("lane %d does not come back: %d bytes of %d", i, len(lanes[i]), len(b))
				}
			}
			if sum.Rows != 701 || len(sum.Lanes) != 4 {
				t.Errorf("%d rows in %d lanes", sum.Rows, len(sum.Lanes))
			}
			h, entries, err := ReadIndex(bytes.NewReader(index))
			if err != nil {
				t.Fatal(err)
			}
			if int64(len(entries)) != sum.Blocks {
				t.Fatalf("%d entries for %d blocks", len(entries), sum.Blocks)
			}
			r, err := NewBlockReader(h)
			if err != nil {
				t.Fatal(err)
			}
			got := map[int][]byte{}
			var rows Rows
			for _, e := range entries {
				if err := r.Read(bytes.NewReader(file[e.Offset:]), e, &rows); err != nil {
					t.Fatal(err)
				}
				first, last, err := e.Keys(testSchema)
				if err != nil || !first.Equal(rows.First) || !last.Equal(rows.Last) || e.Rows != rows.Len() {
					t.Errorf("entry of %d rows from %v to %v, block of %d from %v to %v: %v", e.Rows, first, last, rows.Len(), rows.First, rows.Last, err)
				}
				got[rows.Lane] = append(got[rows.Lane], rows.Buf...)
			}
			for i, b := range blocks {
				if !bytes.Equal(got[i], b[plainbuffer.HeaderSize:]) {
					t.Errorf("lane %d does not come back through the index", i)
				}
			}
		})
	}
}

// TestEqualRowsMakeEqualFiles: golden files are stable.
func TestEqualRowsMakeEqualFiles(t *testing.T) {
	for name, s := range shapes {
		a, ai := write(t, block(50, rand.New(rand.NewPCG(1, 1)), s))
		b, bi := write(t, block(50, rand.New(rand.NewPCG(1, 1)), s))
		if !bytes.Equal(a, b) || !bytes.Equal(ai, bi) {
			t.Errorf("%s: two files of the same rows differ", name)
		}
	}
}

// TestPieces: a row of 12 MB and 3,000 columns goes through in pieces between
// ordinary rows, with the digest of the whole.
func TestPieces(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	var out bytes.Buffer
	w, err := NewWriter(&out, testHeader)
	if err != nil {
		t.Fatal(err)
	}
	e := NewEncoder(Options{Schema: testSchema, Seed: testHeader.Seed})
	e.Reset(0)
	var want []byte
	hasher := table.NewHasher(testHeader.Seed)
	var digest table.Digest
	put := func(i int, pieces int) {
		var whole []plainbuffer.Cell
		for p := range pieces {
			b := plainbuffer.Builder{}
			b.Begin()
			rowKey(&b, i)
			b.Attributes()
			for c := range 3000 / pieces {
				n := plainbuffer.NewName(fmt.Appendf(nil, "column-%05d", p*3000/pieces+c))
				v := make([]byte, 4096)
				for j := range v {
					v[j] = "0123456789abcdef"[rng.IntN(16)]
				}
				b.Bytes(&n, plainbuffer.String, v, 5)
			}
			b.End(false)
			want = append(want, b.Buf...)
			var row plainbuffer.Row
			if _, err := plainbuffer.Scan(b.Buf, &row); err != nil {
				t.Fatal(err)
			}
			whole = append(whole, row.Cells...)
			if pieces == 1 {
				_, err = e.Add(&row)
			} else {
				_, err = e.AddPiece(&row, p == 0, p == pieces-1)
			}
			if err != nil {
				t.Fatal(err)
			}
			block, err := e.Flush()
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Append(block); err != nil {
				t.Fatal(err)
			}
			if p == pieces-1 {
				digest.Add(hasher.Row(&plainbuffer.Row{Key: row.Key, Cells: whole}))
			}
		}
	}
	put(1, 10)
	put(2, 3)
	sum, err := w.Finish([]Lane{{From: testSchema.Whole().Start, Next: testSchema.Whole().End, Rows: 2}})
	if err != nil {
		t.Fatal(err)
	}
	if sum.Digest != digest {
		t.Errorf("the digest of rows in pieces is %v, of whole rows %v", sum.Digest, digest)
	}
	lanes, got, err := read(out.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(lanes[0], want) || got.Rows != 2 {
		t.Errorf("%d rows, %d bytes of %d come back", got.Rows, len(lanes[0]), len(want))
	}
}

func TestOrderIsKept(t *testing.T) {
	e := NewEncoder(Options{Schema: testSchema})
	e.Reset(0)
	add := func(i int) error {
		w := plainbuffer.Builder{}
		w.Begin()
		rowKey(&w, i)
		w.End(false)
		var row plainbuffer.Row
		if _, err := plainbuffer.Scan(w.Buf, &row); err != nil {
			t.Fatal(err)
		}
		_, err := e.Add(&row)
		return err
	}
	if err := add(5); err != nil {
		t.Fatal(err)
	}
	if add(5) == nil {
		t.Error("a key twice is taken")
	}
	if add(4) == nil {
		t.Error("a key before the last is taken")
	}
}

// TestPrefixes: every prefix of a shard is corrupt, and so is a shard with a
// byte more.
func TestPrefixes(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	file, index := write(t, block(20, rng, shapes["versions"]), block(20, rng, shapes["ever-changing columns"]))
	for n := range len(file) {
		if _, _, err := read(file[:n]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("the first %d bytes of %d: %v", n, len(file), err)
		}
	}
	for n := range len(index) {
		if _, _, err := ReadIndex(bytes.NewReader(index[:n])); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("the first %d bytes of an index of %d: %v", n, len(index), err)
		}
	}
	if _, _, err := read(append(bytes.Clone(file), 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a byte more: %v", err)
	}
	if len(file) < 1000 {
		t.Fatalf("a shard of %d bytes tests too little", len(file))
	}
}

// TestFlips: whatever bit is turned, the rows either come back as they were or
// the shard is corrupt by itself.
func TestFlips(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	file, _ := write(t, block(6, rng, shapes["versions"]), block(4, rng, shapes["ever-changing columns"]), block(4, rng, shapes["irregular"]))
	want, _, err := read(file)
	if err != nil {
		t.Fatal(err)
	}
	harmless := 0
	for i := range len(file) * 8 {
		bad := bytes.Clone(file)
		bad[i/8] ^= 1 << (i % 8)
		got, _, err := read(bad)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Fatalf("bit %d: %v", i, err)
			}
			continue
		}
		harmless++
		for lane := range want {
			if !bytes.Equal(got[lane], want[lane]) {
				t.Fatalf("bit %d of %d changes rows and is not seen", i, len(file)*8)
			}
		}
	}
	t.Logf("%d of %d bits change nothing that is read", harmless, len(file)*8)
}

func FuzzReader(f *testing.F) {
	for _, s := range shapes {
		file, index := write(f, block(3, rand.New(rand.NewPCG(1, 1)), s))
		if len(file) < 1<<16 {
			f.Add(file)
			f.Add(index)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		read(data)
		ReadIndex(bytes.NewReader(data))
	})
}

// FuzzRecord reads records that were not compressed, so that the fuzzer gets
// past the compression.
func FuzzRecord(f *testing.F) {
	e := NewEncoder(Options{Schema: testSchema, Seed: 7})
	for _, s := range shapes {
		e.Reset(0)
		sc := plainbuffer.NewScanner(block(3, rand.New(rand.NewPCG(1, 1)), s))
		var row plainbuffer.Row
		for full := false; !full && sc.Next(&row) == nil; {
			var err error
			if full, err = e.Add(&row); err != nil {
				f.Fatal(err)
			}
		}
		if _, err := e.Flush(); err != nil {
			f.Fatal(err)
		}
		if len(e.record) < 1<<16 {
			f.Add(bytes.Clone(e.record))
		}
	}
	d := newDecoder(testSchema, 7)
	f.Fuzz(func(t *testing.T, record []byte) {
		var rows Rows
		clear(d.pieces)
		if d.decodeRecord(record, &rows) == nil && rows.end == nil {
			// What is taken is whole rows whose digest is the record's.
			var row plainbuffer.Row
			for i := range rows.Len() {
				if n, err := plainbuffer.Scan(rows.Row(i), &row); err != nil || n != len(rows.Row(i)) {
					t.Fatalf("row %d of a good record: %v", i, err)
				}
			}
		}
	})
}
