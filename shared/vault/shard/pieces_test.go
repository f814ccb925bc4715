package shard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/tablevault/tablevault/shared/plainbuffer"
	"github.com/tablevault/tablevault/shared/table"
)

// pieceCell is a cell of a row in pieces.
func pieceCell(name string, ts int64, t plainbuffer.Type, data string) plainbuffer.Cell {
	return plainbuffer.Cell{Name: []byte(name), HasValue: true, Type: t, Data: []byte(data), HasTimestamp: true, Timestamp: ts}
}

// encoded is a row or a piece of one as it is scanned.
func encoded(t testing.TB, i int, bareTag bool, cells ...plainbuffer.Cell) *plainbuffer.Row {
	t.Helper()
	b := plainbuffer.Builder{}
	b.Begin()
	rowKey(&b, i)
	if len(cells) > 0 || bareTag {
		b.Attributes()
	}
	for k := range cells {
		b.Cell(&cells[k])
	}
	b.End(false)
	row := new(plainbuffer.Row)
	if _, err := plainbuffer.Scan(b.Buf, row); err != nil {
		t.Fatal(err)
	}
	return row
}

// manyColumns are more columns than a record's groups may have.
func manyColumns(name string) []plainbuffer.Cell {
	cells := make([]plainbuffer.Cell, maxColumns+5)
	for i := range cells {
		cells[i] = pieceCell(fmt.Sprintf("%s%06d", name, i), int64(i), plainbuffer.String, "v")
	}
	return cells
}

// TestPiecesOfEveryKind: whatever the pieces of a row look like, and wherever their cells
// stand in a record, they come back, between other rows, and the digest is that of the
// whole row.
func TestPiecesOfEveryKind(t *testing.T) {
	long := strings.Repeat("n", maxName+1)
	str, integer := plainbuffer.String, plainbuffer.Integer
	eight := "\x01\x02\x03\x04\x05\x06\x07\x08"
	for name, pieces := range map[string][][]plainbuffer.Cell{
		"the last has the key alone": {{pieceCell("a", 1, str, "x")}, {}},
		"columns, then the key":      {{pieceCell("a", 1, str, "x")}, {pieceCell("b", 1, str, "x")}, {}},
		"more columns than a group":  {manyColumns("a"), manyColumns("b"), {pieceCell("c", 1, str, "x")}},
		"types that change": {
			{pieceCell("a", 9, integer, eight), pieceCell("a", 8, str, "x"), pieceCell("a", 7, integer, eight)},
			{pieceCell("a", 6, str, "y"), pieceCell("a", 5, integer, eight), pieceCell("b", 7, str, "z")},
		},
		"names that are too long for columns": {
			{pieceCell(long, 2, str, "x")}, {pieceCell(long, 1, str, "y")}, {pieceCell(long+"z", 1, str, "y")}, {},
		},
		"cells without a time": {
			{{Name: []byte("a"), HasValue: true, Type: str, Data: []byte("x")}}, {{Name: []byte("b"), HasValue: true, Type: str, Data: []byte("x")}},
		},
		"versions from piece to piece": {{pieceCell("a", 3, str, "x")}, {pieceCell("a", 2, str, "x")}, {pieceCell("a", 1, str, "x")}},
		"empty values":                 {{pieceCell("", 0, str, "")}, {pieceCell("a", 0, plainbuffer.Blob, "")}},
	} {
		for _, bareTag := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %t", name, bareTag), func(t *testing.T) {
				var out bytes.Buffer
				w, err := NewWriter(&out, testHeader)
				if err != nil {
					t.Fatal(err)
				}
				e := NewEncoder(Options{Schema: testSchema, Seed: testHeader.Seed})
				e.Reset(0)
				var want []byte
				var digest table.Digest
				hasher := table.NewHasher(testHeader.Seed)
				flush := func(row *plainbuffer.Row, err error) {
					t.Helper()
					if err != nil {
						t.Fatal(err)
					}
					want = append(want, row.Raw...)
					b, err := e.Flush()
					if err == nil {
						err = w.Append(b)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				for i := range 3 {
					whole := encoded(t, i, false, manyColumns("w")[:10*i]...)
					if i == 1 {
						var all []plainbuffer.Cell
						for p, cells := range pieces {
							row := encoded(t, i, bareTag, cells...)
							all = append(all, row.Cells...)
							_, err := e.AddPiece(row, p == 0, p == len(pieces)-1)
							flush(row, err)
						}
						digest.Add(hasher.Row(&plainbuffer.Row{Key: whole.Key, Cells: all}))
						continue
					}
					_, err := e.Add(whole)
					flush(whole, err)
					digest.Add(hasher.Row(whole))
				}
				sum, err := w.Finish([]Lane{{From: testSchema.Whole().Start, Next: testSchema.Whole().End, Rows: 3}})
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
				if !bytes.Equal(lanes[0], want) || got.Rows != 3 {
					t.Errorf("%d rows, %d bytes of %d come back", got.Rows, len(lanes[0]), len(want))
				}
			})
		}
	}
}

// TestWrongPieces: what is no row is refused by the encoder, and by the decoder where an
// encoder lets it pass.
func TestWrongPieces(t *testing.T) {
	a, b, c := pieceCell("a", 1, plainbuffer.String, "x"), pieceCell("b", 1, plainbuffer.String, "x"), pieceCell("c", 1, plainbuffer.String, "x")
	type piece struct {
		row         *plainbuffer.Row
		first, last bool
	}
	gone := plainbuffer.Builder{}
	gone.Begin()
	rowKey(&gone, 1)
	gone.End(true)
	deleted := new(plainbuffer.Row)
	if _, err := plainbuffer.Scan(gone.Buf, deleted); err != nil {
		t.Fatal(err)
	}
	for name, pieces := range map[string][]piece{
		"the first has the key alone":       {{encoded(t, 1, false), true, false}},
		"one between has the key alone":     {{encoded(t, 1, false, a), true, false}, {encoded(t, 1, true), false, false}},
		"cells in another order":            {{encoded(t, 1, false, b, a), true, false}},
		"pieces in another order":           {{encoded(t, 1, false, b), true, false}, {encoded(t, 1, false, a), false, true}},
		"a cell twice":                      {{encoded(t, 1, false, a, b), true, false}, {encoded(t, 1, false, b, c), false, true}},
		"another key":                       {{encoded(t, 1, false, a), true, false}, {encoded(t, 2, false, b), false, true}},
		"a piece of no row":                 {{encoded(t, 1, false, a), false, true}},
		"a whole row in another":            {{encoded(t, 1, false, a), true, false}, {encoded(t, 2, false, a), true, true}},
		"two rows that begin":               {{encoded(t, 1, false, a), true, false}, {encoded(t, 2, false, a), true, false}},
		"the end of a change, not of a row": {{encoded(t, 1, false, a), true, false}, {deleted, false, true}},
	} {
		e := NewEncoder(Options{Schema: testSchema, Seed: 7})
		e.Reset(0)
		d := newDecoder(testSchema, 7)
		var rows Rows
		var refused, unread error
		for i, p := range pieces {
			_, err := e.AddPiece(p.row, p.first, p.last)
			last := i == len(pieces)-1
			if err != nil && !last || err == nil && last {
				t.Errorf("%s: piece %d: %v", name, i, err)
			}
			refused = err

			// The same by an encoder that does not know the rule.
			lax := NewEncoder(Options{Schema: testSchema, Seed: 7, Unproved: true})
			lax.Reset(0)
			lax.last = append(lax.last, p.row.Key...)
			lax.first = table.KeyOf(p.row.Key)
			lax.put(p.row)
			lax.flags = flagCanonical
			if !p.first {
				lax.flags |= flagContinues
			}
			if !p.last {
				lax.flags |= flagUnfinished
			}
			if err == nil {
				lax.digest = e.digest
				if _, err := e.Flush(); err != nil {
					t.Errorf("%s: piece %d: %v", name, i, err)
				}
			}
			block, err := lax.Flush()
			if err != nil {
				t.Fatal(err)
			}
			if unread = d.decode(block.data, &rows); unread != nil && !last {
				t.Errorf("%s: piece %d: %v", name, i, unread)
			}
		}
		if refused == nil || !errors.Is(unread, ErrCorrupt) || strings.Contains(unread.Error(), "digest") {
			t.Errorf("%s: the encoder says %v, the decoder %v", name, refused, unread)
		}
	}
}

// TestReadBack: whatever goes wrong between the rows and the bytes of a block, the block
// is none.
func TestReadBack(t *testing.T) {
	fill := func(e *Encoder) {
		e.Reset(3)
		for i := range 5 {
			if _, err := e.Add(encoded(t, i, false, pieceCell("a", 5, plainbuffer.String, "value"), pieceCell("b", 5, plainbuffer.Integer, "\x01\x02\x03\x04\x05\x06\x07\x08"))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, bend := range map[string]func(e *Encoder){
		"a value":              func(e *Encoder) { e.groups[0].columns[0].values.items[2] ^= 1 },
		"a name":               func(e *Encoder) { e.groups[0].columns[0].name = []byte("c") },
		"a time":               func(e *Encoder) { e.groups[0].times.items[0] ^= 2 },
		"a key":                func(e *Encoder) { e.keys[1].integers.items[3] ^= 2 },
		"a row less":           func(e *Encoder) { e.rows-- },
		"a checksum":           func(e *Encoder) { e.checksums[2] ^= 1 },
		"the digest":           func(e *Encoder) { e.digest.Add(e.digest) },
		"the first key":        func(e *Encoder) { e.first = table.KeyOf(e.last) },
		"the last key":         func(e *Encoder) { e.last = encoded(t, 0, false).Key },
		"a row that was sent":  func(e *Encoder) { e.proof.sent[1] = e.proof.sent[2] },
		"more than was sent":   func(e *Encoder) { e.proof.sent = e.proof.sent[:4] },
		"fewer than were sent": func(e *Encoder) { e.proof.sent = append(e.proof.sent, e.proof.sent[0]) },
		"the flags":            func(e *Encoder) { e.flags = flagUnfinished },
		"flags of a part":      func(e *Encoder) { e.flags = 8 },
	} {
		e := NewEncoder(Options{Schema: testSchema, Seed: 7})
		fill(e)
		bend(e)
		b, err := e.Flush()
		if !errors.Is(err, ErrReadBack) || errors.Is(err, ErrCorrupt) || b != nil {
			t.Errorf("%s is another: %v", name, err)
			continue
		}
		if !strings.Contains(err.Error(), "of lane 3 from (") {
			t.Errorf("%s: %v", name, err)
		}
		// What follows is not touched by it.
		fill(e)
		if _, err := e.Flush(); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
	}
}

// TestReadBackOfTheBlock: a block that says something else than its record is none.
func TestReadBackOfTheBlock(t *testing.T) {
	e := NewEncoder(Options{Schema: testSchema, Seed: 7})
	e.Reset(3)
	for i := range 3 {
		if _, err := e.Add(encoded(t, i, false)); err != nil {
			t.Fatal(err)
		}
	}
	sent := append([][]byte{}, e.proof.sent...)
	block, err := e.Flush()
	if err != nil {
		t.Fatal(err)
	}
	p := newProof(Options{Schema: testSchema, Seed: 7})
	p.sent = sent
	if err := p.read(block); err != nil {
		t.Fatal(err)
	}
	for name, bend := range map[string]func(b *Block){
		"lane": func(b *Block) { b.Lane++ }, "rows": func(b *Block) { b.Rows-- }, "digest": func(b *Block) { b.Digest.Add(b.Digest) },
		"first": func(b *Block) { b.First = b.Last }, "last": func(b *Block) { b.Last = b.First },
		"canonical": func(b *Block) { b.flags = flagCanonical }, "continues": func(b *Block) { b.flags = flagContinues },
		"unfinished": func(b *Block) { b.flags, b.Rows = flagUnfinished, 0 },
		"cut":        func(b *Block) { b.data = b.data[:len(b.data)-1] },
	} {
		bent := *block
		bend(&bent)
		if err := p.read(&bent); !errors.Is(err, ErrReadBack) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	w, err := NewWriter(new(bytes.Buffer), testHeader)
	if err == nil {
		err = w.Append(block)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := w.readBackEnd(block.data, &w.ledger.sum); !errors.Is(err, ErrReadBack) {
		t.Errorf("rows for an end mark: %v", err)
	}
	sum := Summary{Rows: 1, Lanes: []Lane{{From: testSchema.Whole().Start, Next: testSchema.Whole().End, Rows: 1}}}
	mark := newCompressor(zstd.SpeedFastest).EncodeAll(must(appendEnd(testSchema, &sum)), nil)
	other := sum
	other.Digest.Add(block.Digest)
	if err := w.readBackEnd(mark, &other); !errors.Is(err, ErrReadBack) {
		t.Errorf("another end mark: %v", err)
	}
	if err := w.readBackEnd(mark, &sum); err != nil {
		t.Error(err)
	}
	p.sent = [][]byte{}
	if err := p.read(&Block{data: mark, Digest: sum.Digest}); !errors.Is(err, ErrReadBack) {
		t.Errorf("an end mark for a block: %v", err)
	}
}

// TestWriterKeepsRowsTogether: a block that goes on with no row, or begins another in the
// middle of one, is refused, and a shard does not end inside of a row.
func TestWriterKeepsRowsTogether(t *testing.T) {
	var blocks []*Block
	e := NewEncoder(Options{Schema: testSchema, Seed: testHeader.Seed})
	e.Reset(0)
	for i := range 3 {
		row := encoded(t, 1, false, pieceCell(fmt.Sprint(i), 1, plainbuffer.String, "x"))
		if _, err := e.AddPiece(row, i == 0, i == 2); err != nil {
			t.Fatal(err)
		}
		b, err := e.Flush()
		if err != nil {
			t.Fatal(err)
		}
		kept := *b
		kept.data = bytes.Clone(b.data)
		blocks = append(blocks, &kept)
	}
	e.Reset(0)
	if _, err := e.Add(encoded(t, 2, false)); err != nil {
		t.Fatal(err)
	}
	next, err := e.Flush()
	if err != nil {
		t.Fatal(err)
	}
	for name, order := range map[string][]*Block{
		"no first piece": {blocks[2]}, "no last piece": {blocks[0], next}, "a first piece twice": {blocks[0], blocks[0]}, "no end": {blocks[0], blocks[1]},
	} {
		w, err := NewWriter(new(bytes.Buffer), testHeader)
		if err != nil {
			t.Fatal(err)
		}
		for i, b := range order {
			if err = w.Append(b); err != nil && i < len(order)-1 {
				t.Fatal(err)
			}
		}
		if err == nil {
			_, err = w.Finish([]Lane{{From: testSchema.Whole().Start, Next: testSchema.Whole().End, Rows: w.ledger.sum.Rows}})
		}
		if err == nil {
			t.Errorf("%s: the shard is written", name)
		}
	}
}

// TestReadBackIndex: an index that a reader does not take for the blocks is none.
func TestReadBackIndex(t *testing.T) {
	for name, bend := range map[string]func(e *Entry){
		"offset": func(e *Entry) { e.Offset++ },
		"size":   func(e *Entry) { e.Size-- },
		"rows":   func(e *Entry) { e.Rows++ },
		"lane":   func(e *Entry) { e.Lane = maxLanes },
		"first":  func(e *Entry) { e.First, e.Last = e.Last, e.First },
		"last":   func(e *Entry) { e.Last = e.Last[:len(e.Last)-1] },
	} {
		var out, index bytes.Buffer
		w, err := NewWriter(&out, testHeader)
		if err != nil {
			t.Fatal(err)
		}
		e := NewEncoder(Options{Schema: testSchema, Seed: testHeader.Seed})
		e.Reset(0)
		for i := range 6 {
			if _, err = e.Add(encoded(t, i, false)); err == nil && i%2 == 1 {
				var b *Block
				if b, err = e.Flush(); err == nil {
					err = w.Append(b)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Finish([]Lane{{From: testSchema.Whole().Start, Next: testSchema.Whole().End, Rows: 6}}); err != nil {
			t.Fatal(err)
		}
		bend(&w.index[1])
		if err := w.WriteIndex(&index); !errors.Is(err, ErrReadBack) || index.Len() > 0 {
			t.Errorf("another %s: %v, %d bytes were written", name, err, index.Len())
		}
	}
}

// TestWriterKnowsWhatReadersTake: what an end mark must not say is refused when it is
// written.
func TestWriterKnowsWhatReadersTake(t *testing.T) {
	whole := testSchema.Whole()
	key := func(i int) table.Key { return table.KeyOf(encoded(t, i, false).Key) }
	for name, lanes := range map[string][]Lane{
		"no lane":           {},
		"a row too many":    {{From: whole.Start, Next: whole.End, Rows: 3}},
		"from a later key":  {{From: key(1), Next: whole.End, Rows: 2}},
		"to the last row":   {{From: whole.Start, Next: key(1), Rows: 2}},
		"rows of no blocks": {{From: whole.Start, Next: whole.End, Rows: 2}, {From: whole.End, Next: whole.End, Rows: 1}},
		"backwards":         {{From: whole.Start, Next: whole.End, Rows: 2}, {From: whole.End, Next: whole.Start}},
	} {
		w, err := NewWriter(new(bytes.Buffer), testHeader)
		if err != nil {
			t.Fatal(err)
		}
		e := NewEncoder(Options{Schema: testSchema, Seed: testHeader.Seed})
		e.Reset(0)
		for i := range 2 {
			if _, err := e.Add(encoded(t, i, false)); err != nil {
				t.Fatal(err)
			}
		}
		b, err := e.Flush()
		if err == nil {
			err = w.Append(b)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Finish(lanes); err == nil {
			t.Errorf("%s: the end mark is written", name)
		}
	}
}

// TestFramesTellTheirSize: every zstd frame says how large its content is, the shortest
// too, and has a checksum. Some readers of Avro take no other.
func TestFramesTellTheirSize(t *testing.T) {
	least := uint64(1 << 62)
	for name, files := range goldenShards(t) {
		for _, file := range files {
			in := bytes.NewReader(file)
			if bytes.Contains(file, []byte(schema)) {
				in.Seek(int64(testHeader.size()), io.SeekStart)
			} else {
				n := bytes.Index(file, []byte("}\x00")) + 2 + 16 // behind the totals and the marker
				in.Seek(int64(n), io.SeekStart)
			}
			for in.Len() > 0 {
				if _, err := readLong(in); err != nil {
					t.Fatal(err)
				}
				size, err := readLong(in)
				if err != nil {
					t.Fatal(err)
				}
				data := make([]byte, size+16)
				if _, err := io.ReadFull(in, data); err != nil {
					t.Fatal(err)
				}
				if size == 0 {
					continue // an index without entries
				}
				var h zstd.Header
				if err := h.Decode(data); err != nil || !h.HasFCS || !h.HasCheckSum {
					t.Errorf("%s: a frame of %d bytes with the header %+v, %v", name, size, h, err)
				}
				least = min(least, h.FrameContentSize)
			}
		}
	}
	if least >= 256 {
		t.Errorf("the shortest content has %d bytes: none shorter than 256 was looked at", least)
	}
}

// TestFull: a shard says that it should end long before its index can't be written, and
// knows how large that is.
func TestFull(t *testing.T) {
	w, err := NewWriter(io.Discard, testHeader)
	if err != nil {
		t.Fatal(err)
	}
	long := bytes.Repeat([]byte("k"), maxName)
	e := NewEncoder(Options{Schema: testSchema, Seed: testHeader.Seed})
	e.Reset(0)
	names := []plainbuffer.Name{plainbuffer.NewName([]byte("p")), plainbuffer.NewName([]byte("q")), plainbuffer.NewName([]byte("r"))}
	n := 0
	for ; !w.Full(); n++ {
		b := plainbuffer.Builder{}
		b.Begin()
		b.KeyBytes(&names[0], plainbuffer.String, long)
		b.KeyInteger(&names[1], int64(n))
		b.KeyBytes(&names[2], plainbuffer.Blob, long)
		b.End(false)
		var row plainbuffer.Row
		if _, err := plainbuffer.Scan(b.Buf, &row); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Add(&row); err != nil {
			t.Fatal(err)
		}
		block, err := e.Flush()
		if err == nil {
			err = w.Append(block)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Finish([]Lane{{From: testSchema.Whole().Start, Next: testSchema.Whole().End, Rows: int64(n)}}); err != nil {
		t.Fatal(err)
	}
	var index bytes.Buffer
	if err := w.WriteIndex(&index); err != nil {
		t.Fatal(err)
	}
	if entry := 4 * maxName; w.indexBytes < n*entry || w.indexBytes > fullIndex+2*entry || w.Bytes() > fullIndex {
		t.Errorf("%d blocks of %d bytes, an index of %d", n, w.Bytes(), w.indexBytes)
	}
	_, entries, err := ReadIndex(&index)
	if err != nil || len(entries) != n {
		t.Errorf("%d entries of %d, %v", len(entries), n, err)
	}
}
