package shard

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/plainbuffer/plainbuffertest"
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

// cell adds a random cell to a row.
func cell(w *plainbuffer.Builder, rng *rand.Rand, name string, t plainbuffer.Type, ts int64) {
	c := plainbuffertest.Cell(rng, name, t, ts)
	w.Cell(&c)
}

var types = plainbuffertest.Types

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

// everything is rows of all shapes beside each other, the long ones left out.
func everything(rng *rand.Rand, i int, w *plainbuffer.Builder) {
	names := slices.Sorted(maps.Keys(shapes))
	for {
		if name := names[rng.IntN(len(names))]; name != "long values" {
			shapes[name](rng, i, w)
			return
		}
	}
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
	return readFrom(bytes.NewReader(file))
}

// readFrom is read. Tests that read very many shards give it a bufio.Reader of their own,
// since a Reader's costs more memory than those shards have.
func readFrom(src io.Reader) (map[int][]byte, Summary, error) {
	r, err := NewReader(src)
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

// TestRoundTrip: rows of every shape come back byte for byte, through the whole file and
// through the index.
func TestRoundTrip(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	all := maps.Clone(shapes)
	all["everything"] = everything
	for name, s := range all {
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

// TestPieces: a row of 12 MB and 3,000 columns goes through in pieces between ordinary
// rows, with the digest of the whole.
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

// TestPrefixes: every prefix of a shard is corrupt, and so is a shard with a byte more.
func TestPrefixes(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	file, index := write(t, block(8, rng, shapes["versions"]), block(5, rng, shapes["ever-changing columns"]))
	in := bufio.NewReaderSize(nil, readBuffer)
	for n := range len(file) {
		in.Reset(bytes.NewReader(file[:n]))
		if _, _, err := readFrom(in); !errors.Is(err, ErrCorrupt) {
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
	if len(file) < 4000 { // the header alone has more than half of that
		t.Fatalf("a shard of %d bytes tests too little", len(file))
	}
}

// TestFlips: whatever bit is turned, the shard is corrupt by itself, or all that it says
// is as it was: its header, its rows, its lanes.
func TestFlips(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	file, index := write(t, block(5, rng, everything), block(3, rng, shapes["versions"]))
	wantRows, wantSum, err := read(file)
	if err != nil {
		t.Fatal(err)
	}
	harmless := 0
	in := bufio.NewReaderSize(nil, readBuffer)
	flips(file, func(bit int, bad []byte) {
		in.Reset(bytes.NewReader(bad))
		rows, sum, err := readFrom(in)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Fatalf("bit %d: %v", bit, err)
			}
			return
		}
		harmless++
		if r, err := NewReader(bytes.NewReader(bad)); err != nil || !reflect.DeepEqual(r.Header, testHeader) ||
			!reflect.DeepEqual(rows, wantRows) || !reflect.DeepEqual(sum, wantSum) {
			t.Fatalf("bit %d of %d changes what the shard says and is not seen", bit, len(file)*8)
		}
	})
	// Some bits of a compressed frame mean nothing: the unused one of its
	// descriptor, what pads a table or a stream to whole bytes.
	if harmless > 16*int(wantSum.Blocks+1) {
		t.Errorf("%d of %d bits mean nothing", harmless, len(file)*8)
	}
	t.Logf("%d of %d bits of the shard mean nothing", harmless, len(file)*8)

	_, want, err := ReadIndex(bytes.NewReader(index))
	if err != nil {
		t.Fatal(err)
	}
	flips(index, func(bit int, bad []byte) {
		h, got, err := ReadIndex(bytes.NewReader(bad))
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Fatalf("bit %d of the index: %v", bit, err)
		}
		if err == nil && (!reflect.DeepEqual(h, testHeader) || !reflect.DeepEqual(got, want)) {
			t.Fatalf("bit %d of %d changes what the index says and is not seen", bit, len(index)*8)
		}
	})
}

func flips(file []byte, try func(bit int, bad []byte)) {
	bad := bytes.Clone(file)
	for i := range len(file) * 8 {
		bad[i/8] ^= 1 << (i % 8)
		try(i, bad)
		bad[i/8] ^= 1 << (i % 8)
	}
}

// TestVersion: a file of a later version is no corrupt file.
func TestVersion(t *testing.T) {
	h := bytes.Replace(must(testHeader.encode()), []byte(`"format":2`), []byte(`"format":3`), 1)
	for _, later := range []string{schema, `{"type":"record","name":"Other","fields":[]}`} {
		file, _ := appendFileHeader(nil, later, pair{headerKey, h})
		_, err := NewReader(bytes.NewReader(file))
		if !errors.Is(err, ErrVersion) || errors.Is(err, ErrCorrupt) {
			t.Fatalf("version 3: %v", err)
		}
		for _, part := range []string{"3", "2"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not name version %s", err, part)
			}
		}
		index, _ := appendFileHeader(nil, later, pair{headerKey, h}, pair{totalsKey, nil})
		if _, _, err := ReadIndex(bytes.NewReader(index)); !errors.Is(err, ErrVersion) {
			t.Errorf("an index of version 2: %v", err)
		}
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// TestBounds: a record that claims more than there is room for is refused before the room
// is made.
func TestBounds(t *testing.T) {
	z := newCompressor(zstd.SpeedFastest)
	defer z.Close()
	record := func(rest ...[]byte) []byte {
		b := []byte{kindRows, 0, 0, 2, 0} // one row
		b = append(b, make([]byte, 16)...)
		b = append(b, 2, 0) // its checksum
		for _, r := range rest {
			b = append(b, r...)
		}
		return b
	}
	many := func(n, size int) []byte {
		return append(append(beginArray(nil, n, n*size), make([]byte, n*size)...), 0)
	}
	keys := append(beginArray(nil, 3, 9), make([]byte, 10)...)
	column := 8 // name, type and six arrays, all empty
	for name, data := range map[string][]byte{
		"a bomb":                z.EncodeAll(make([]byte, 1<<28), nil),
		"groups":                z.EncodeAll(record(keys, []byte{0}, many(1<<20, 3)), nil),
		"columns":               z.EncodeAll(record(keys, []byte{0}, beginArray(nil, 1, 2+4+1<<20*column), []byte{2, 0}, many(1<<20, column)), nil),
		"a dictionary":          z.EncodeAll(record(keys, []byte{0, 0}, many(1<<20, 1), many(1<<20, 1)), nil),
		"more items than bytes": z.EncodeAll(record(beginArray(nil, 1<<30, 4), []byte{0, 0, 0, 0, 0}), nil),
	} {
		d := newDecoder(testSchema, 7)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := d.decode(data, new(Rows))
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 4*maxRecord {
			t.Errorf("%s: %d MiB were allocated", name, got>>20)
		}
	}
}

// TestMemory: an encoder keeps some megabytes, and after a long row gives back what that
// took.
func TestMemory(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	e := NewEncoder(Options{Schema: testSchema, Seed: 7})
	e.Reset(0)
	encode := func(page []byte) {
		t.Helper()
		e.Reset(0)
		s := plainbuffer.NewScanner(page)
		var row plainbuffer.Row
		for {
			err := s.Next(&row)
			full := err == io.EOF
			if err == nil {
				full, err = e.Add(&row)
			}
			if err != nil && err != io.EOF {
				t.Fatal(err)
			}
			if full {
				if _, err := e.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			if err == io.EOF {
				return
			}
		}
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	pages := [][]byte{block(8000, rng, everything), block(1000, rng, shapes["ever-changing columns"])}
	long := block(1, rng, func(rng *rand.Rand, i int, w *plainbuffer.Builder) {
		w.Attributes()
		for c := range 3 {
			n := plainbuffer.NewName(fmt.Appendf(nil, "c%d", c))
			w.Bytes(&n, plainbuffer.Blob, make([]byte, 2<<20), 1)
		}
	})
	before := heap()
	f := NewEncoder(Options{Schema: testSchema, Seed: 7})
	e = f
	for range 3 {
		for _, p := range pages {
			encode(p)
		}
	}
	ordinary := heap() - before
	encode(long)
	encode(pages[0])
	after := heap() - before
	t.Logf("an encoder keeps %d KiB, and %d KiB after a long row", ordinary>>10, after>>10)
	if ordinary > 8<<20 || after > 10<<20 {
		t.Errorf("an encoder keeps %d KiB, and %d KiB after a long row; want at most 8 and 10 MiB", ordinary>>10, after>>10)
	}
	runtime.KeepAlive(pages)
	runtime.KeepAlive(long)
	runtime.KeepAlive(e)
}

// TestAllocations: neither an encoder nor a reader allocates for each row.
func TestAllocations(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	for _, name := range []string{"same columns", "versions", "types that change", "ever-changing columns"} {
		const rows = 2000
		page := block(rows, rng, shapes[name])
		e := NewEncoder(Options{Schema: testSchema, Seed: 7})
		var row plainbuffer.Row
		s := plainbuffer.NewScanner(nil)
		var data [][]byte
		encode := func() {
			e.Reset(0)
			s.Reset(page)
			data = data[:0]
			for {
				err := s.Next(&row)
				full := err == io.EOF
				if !full {
					if full, _ = e.Add(&row); !full {
						continue
					}
				}
				if b, _ := e.Flush(); b != nil {
					data = append(data, b.data)
				}
				if err == io.EOF {
					return
				}
			}
		}
		for range 5 {
			encode() // until each column's arrays have grown
		}
		if n := testing.AllocsPerRun(3, encode); n > rows/10 {
			t.Errorf("%s: %.0f allocations to encode %d rows", name, n, rows)
		}
		last := bytes.Clone(data[len(data)-1])
		d := newDecoder(testSchema, 7)
		var out Rows
		if n := testing.AllocsPerRun(3, func() {
			if err := d.decode(last, &out); err != nil {
				t.Fatal(err)
			}
		}); out.Len() < 100 || n > float64(out.Len())/20 {
			t.Errorf("%s: %.0f allocations to decode %d rows", name, n, out.Len())
		}
	}
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

// FuzzRecord reads records that were not compressed, so that the fuzzer gets past the
// compression.
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

// TestPagesAreFreed: between blocks an encoder holds on to nothing of the pages whose
// rows it had.
func TestPagesAreFreed(t *testing.T) {
	e := NewEncoder(Options{Schema: testSchema, Seed: 7})
	freed := make(chan string, 2*len(shapes))
	encode := func(name string, page []byte) {
		runtime.AddCleanup(&page[0], func(name string) { freed <- name }, name)
		e.Reset(0)
		s := plainbuffer.NewScanner(page)
		var row plainbuffer.Row
		for s.Next(&row) == nil {
			if _, err := e.Add(&row); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := e.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	rng := plainbuffertest.Rand(t)
	want := 0
	for name, s := range shapes {
		if name != "long values" { // they fill a block before the page ends
			encode(name, block(100, rng, s))
			want++
		}
	}
	for deadline := time.Now().Add(5 * time.Second); want > 0; {
		runtime.GC()
		select {
		case <-freed:
			want--
		case <-time.After(10 * time.Millisecond):
			if time.Now().After(deadline) {
				t.Fatalf("%d pages are kept", want)
			}
		}
	}
	runtime.KeepAlive(e)
}
