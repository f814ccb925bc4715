package shard

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/linkedin/goavro/v2"

	"github.com/tablevault/tablevault/shared/plainbuffer"
)

var update = flag.Bool("update", false, "write the golden files anew")

// goldenShards are files of every encoding there is, by name, with their indexes.
func goldenShards(t testing.TB) map[string][2][]byte {
	t.Helper()
	files := map[string][2][]byte{}
	for name, s := range shapes {
		rng := rand.New(rand.NewPCG(1, 1))
		n := 30
		if name == "long values" {
			n = 2
		}
		file, index := write(t, block(n, rng, s), nil, block(3, rng, s))
		files[strings.ReplaceAll(name, " ", "-")] = [2][]byte{file, index}
	}
	file, index := write(t)
	files["no-lanes"] = [2][]byte{file, index}
	file, index = write(t, nil, nil)
	files["no-rows"] = [2][]byte{file, index}
	file, index = pieces(t)
	files["pieces"] = [2][]byte{file, index}
	return files
}

// pieces makes a shard with a row in three pieces between two whole ones, a fourth that
// was put together, and a fifth whose last piece has the key alone.
func pieces(t testing.TB) (file, index []byte) {
	t.Helper()
	var out, ix bytes.Buffer
	w, err := NewWriter(&out, testHeader)
	if err != nil {
		t.Fatal(err)
	}
	e := NewEncoder(Options{Schema: testSchema, Seed: testHeader.Seed})
	e.Reset(0)
	for i, parts := range []int{0, 3, 0, 1, 2} {
		for p := range max(parts, 1) {
			b := plainbuffer.Builder{}
			b.Begin()
			rowKey(&b, i)
			columns := 3
			if i == 4 && p == 1 {
				columns = 0
			} else {
				b.Attributes()
			}
			for c := range columns {
				n := plainbuffer.NewName(fmt.Appendf(nil, "column-%d-%d", p, c))
				b.Bytes(&n, plainbuffer.String, fmt.Appendf(nil, "value %d", c), 5)
			}
			b.End(false)
			var row plainbuffer.Row
			if _, err = plainbuffer.Scan(b.Buf, &row); err == nil {
				if parts == 0 {
					_, err = e.Add(&row)
				} else {
					_, err = e.AddPiece(&row, p == 0, p == parts-1)
				}
			}
			var block *Block
			if err == nil {
				block, err = e.Flush()
			}
			if err == nil {
				err = w.Append(block)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	whole := testSchema.Whole()
	if _, err := w.Finish([]Lane{{From: whole.Start, Next: whole.End, Rows: 5}}); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteIndex(&ix); err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), ix.Bytes()
}

type lineJSON struct {
	Lane       int         `json:"lane"`
	Raw        *[]byte     `json:"raw,omitempty"`
	Key        []valueJSON `json:"key,omitempty"`
	Cells      *[][3]any   `json:"cells,omitempty"`
	Continues  bool        `json:"continues,omitempty"`
	Unfinished bool        `json:"unfinished,omitempty"`
}

type valueJSON map[string]any

func valueOf(c *plainbuffer.Cell) valueJSON {
	switch c.Type {
	case plainbuffer.Integer:
		return valueJSON{"integer": strconv.FormatInt(c.Int(), 10)}
	case plainbuffer.Double:
		b := slices.Clone(c.Data)
		slices.Reverse(b)
		return valueJSON{"double": hex.EncodeToString(b)}
	case plainbuffer.Boolean:
		return valueJSON{"boolean": c.Bool()}
	case plainbuffer.String:
		return valueJSON{"string": base64.StdEncoding.EncodeToString(c.Data)}
	}
	return valueJSON{"binary": base64.StdEncoding.EncodeToString(c.Data)}
}

// lines prints a shard as readers/python/read_shard.py does.
func lines(t testing.TB, file []byte) []byte {
	t.Helper()
	r, err := NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	e := NewEncoder(Options{Schema: r.Header.Schema})
	var out bytes.Buffer
	var rows Rows
	var row plainbuffer.Row
	for err = r.Next(&rows); err == nil; err = r.Next(&rows) {
		for i := range rows.Len() {
			if _, err := plainbuffer.Scan(rows.Row(i), &row); err != nil {
				t.Fatal(err)
			}
			line := lineJSON{Lane: rows.Lane, Continues: rows.Continues, Unfinished: rows.Unfinished}
			if !e.regular(&row) {
				line.Raw = &row.Raw
			} else {
				for i := range row.Key {
					line.Key = append(line.Key, valueOf(&row.Key[i]))
				}
				cells := [][3]any{}
				for i := range row.Cells {
					c := &row.Cells[i]
					cells = append(cells, [3]any{base64.StdEncoding.EncodeToString(c.Name), c.Timestamp, valueOf(c)})
				}
				line.Cells = &cells
			}
			b, err := json.Marshal(line)
			if err != nil {
				t.Fatal(err)
			}
			out.Write(append(b, '\n'))
		}
	}
	if err != io.EOF {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestGolden: shards that were written once are read for good, and equal rows still make
// the same files. When the writer's choices change on purpose, run with -update into a
// new folder beside the old one, which must still be read.
func TestGolden(t *testing.T) {
	const folder = "testdata/v2"
	files := goldenShards(t)
	if *update {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, f := range files {
			for ext, data := range map[string][]byte{"shard": f[0], "index": f[1], "jsonl": lines(t, f[0])} {
				if ext == "jsonl" && len(data) > 1<<20 {
					continue // the long values say nothing to a reader of the file
				}
				if err := os.WriteFile(filepath.Join(folder, name+"."+ext), data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	golden, err := filepath.Glob(folder + "/*.shard")
	if err != nil || len(golden) != len(files) {
		t.Fatalf("%d golden shards, want %d: %v", len(golden), len(files), err)
	}
	for _, path := range golden {
		name := strings.TrimSuffix(filepath.Base(path), ".shard")
		t.Run(name, func(t *testing.T) {
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			index, err := os.ReadFile(strings.TrimSuffix(path, "shard") + "index")
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(strings.TrimSuffix(path, "shard") + "jsonl")
			if err != nil && name != "long-values" {
				t.Fatal(err)
			}
			if got := lines(t, file); want != nil && !bytes.Equal(got, want) {
				t.Errorf("the rows are not those of %s.jsonl:\n%.2000s", name, got)
			}
			if _, _, err := ReadIndex(bytes.NewReader(index)); err != nil {
				t.Error(err)
			}
			if !bytes.Equal(file, files[name][0]) || !bytes.Equal(index, files[name][1]) {
				t.Error("the same rows make another file now")
			}
		})
	}
}

// TestPython: a reader in another language, over a stock Avro library, finds the same
// rows in every golden shard.
func TestPython(t *testing.T) {
	python := os.Getenv("TEST_PYTHON")
	if python == "" {
		python = "python3"
	}
	if out, err := exec.CommandContext(t.Context(), python, "-c", "import fastavro, zstandard").CombinedOutput(); err != nil {
		if os.Getenv("TEST_PYTHON") != "" {
			t.Fatalf("TEST_PYTHON=%s: %v: %s", python, err, out)
		}
		t.Skipf("no %s with the modules of readers/python/requirements.txt: set TEST_PYTHON to one", python)
	}
	files := goldenShards(t)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		t.Run(name, func(t *testing.T) {
			file := files[name][0]
			path := filepath.Join(t.TempDir(), "shard")
			if err := os.WriteFile(path, file, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), python, "../../../readers/python/read_shard.py", path).Output()
			if err != nil {
				var exit *exec.ExitError
				if e, ok := err.(*exec.ExitError); ok {
					exit = e
					t.Fatalf("%v: %s", err, exit.Stderr)
				}
				t.Fatal(err)
			}
			got, want := bytes.Split(out, []byte("\n")), bytes.Split(lines(t, file), []byte("\n"))
			if len(got) != len(want) {
				t.Fatalf("%d rows, want %d", len(got)-1, len(want)-1)
			}
			for i := range want {
				if !bytes.Equal(got[i], want[i]) {
					t.Fatalf("row %d:\n%.400s\nwant\n%.400s", i, got[i], want[i])
				}
			}
			// A cut shard is one to other readers, too.
			if err := os.WriteFile(path, file[:len(file)-40], 0o600); err != nil {
				t.Fatal(err)
			}
			if exec.CommandContext(t.Context(), python, "../../../readers/python/read_shard.py", path).Run() == nil {
				t.Error("a shard without its end is read without an error")
			}
		})
	}
}

// TestGoavro: another library opens the container and finds the same arrays.
func TestGoavro(t *testing.T) {
	for name, f := range goldenShards(t) {
		r, err := goavro.NewOCFReader(bytes.NewReader(uncompressed(t, f[0])))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if h, err := decodeHeader(r.MetaData()[headerKey]); err != nil || h.Segment != testHeader.Segment {
			t.Errorf("%s: header %+v: %v", name, h, err)
		}
		own, err := NewReader(bytes.NewReader(f[0]))
		if err != nil {
			t.Fatal(err)
		}
		ended := false
		for r.Scan() {
			datum, err := r.Read()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			record := datum.(map[string]any)
			var rows Rows
			err = own.Next(&rows)
			if record["kind"] == int32(kindEnd) {
				sum := own.Summary()
				if err != io.EOF || record["rows"] != sum.Rows || record["blocks"] != sum.Blocks ||
					!bytes.Equal(record["digest"].([]byte), sum.Digest.Append(nil)) || len(record["lanes"].([]any)) != len(sum.Lanes) {
					t.Errorf("%s: end mark %v, want %+v: %v", name, record, sum, err)
				}
				ended = true
				continue
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			checkArrays(t, name, record, &rows)
		}
		if r.Err() != nil || !ended {
			t.Errorf("%s: end mark %t: %v", name, ended, r.Err())
		}
	}
}

// uncompressed is a shard with the codec null: goavro does not know zstandard.
func uncompressed(t testing.TB, file []byte) []byte {
	t.Helper()
	r, err := NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	meta, err := r.Header.encode()
	if err != nil {
		t.Fatal(err)
	}
	out, sync := appendFileHeader(nil, schema, pair{headerKey, meta})
	out = bytes.Replace(out, []byte("\x12zstandard"), []byte("\x08null"), 1)
	for {
		data, err := r.frame()
		if err != nil {
			return out // at the end; what is cut shows in what goavro reads
		}
		record, err := r.decoder.zstd.DecodeAll(data, nil)
		if err != nil {
			t.Fatal(err)
		}
		out = appendBytes(appendLong(out, 1), record)
		out = append(out, sync[:]...)
	}
}

// checkArrays holds the arrays that a library found against the rows that are made of
// them.
func checkArrays(t *testing.T, name string, record map[string]any, rows *Rows) {
	t.Helper()
	if record["rows"] != int64(rows.Len()) || record["lane"] != int32(rows.Lane) ||
		!bytes.Equal(record["digest"].([]byte), rows.Digest.Append(nil)) {
		t.Errorf("%s: %v rows in lane %v, want %d in %d", name, record["rows"], record["lane"], rows.Len(), rows.Lane)
	}
	// How many cells there are of each type, and all bytes that values take.
	count := func(v any) int { return len(v.([]any)) }
	size := func(v any) (n int) {
		for _, e := range v.([]any) {
			n += len(e.([]byte))
		}
		return n
	}
	var got, want [4]int
	add := func(c map[string]any) {
		got[0] += count(c["integers"])
		got[1] += count(c["doubles"])
		got[2] += count(c["booleans"])
		got[3] += size(c["values"])
	}
	for _, g := range record["groups"].([]any) {
		for _, c := range g.(map[string]any)["columns"].([]any) {
			add(c.(map[string]any))
		}
	}
	add(record["mixed"].(map[string]any))
	raw := 0
	var row plainbuffer.Row
	e := NewEncoder(Options{Schema: testSchema})
	sums := record["checksums"].([]byte)
	var firstKeys int64
	for i := range rows.Len() {
		if _, err := plainbuffer.Scan(rows.Row(i), &row); err != nil {
			t.Fatal(err)
		}
		if sums[i] != row.Checksum {
			t.Errorf("%s: row %d has the checksum %x, want %x", name, i, sums[i], row.Checksum)
		}
		if !e.regular(&row) {
			raw += len(row.Raw)
			continue
		}
		firstKeys = row.Key[1].Int()
		for j := range row.Cells {
			c := &row.Cells[j]
			if k := valueArray(c.Type); k == 3 {
				want[k] += len(c.Data)
			} else {
				want[k]++
			}
		}
	}
	if got != want || size(record["raw"]) != raw {
		t.Errorf("%s: arrays of %v and %d raw bytes, want %v and %d", name, got, size(record["raw"]), want, raw)
	}
	// The deltas of an integer key add up to its last value.
	var sum int64
	for _, v := range record["keys"].([]any)[1].(map[string]any)["integers"].([]any) {
		sum += v.(int64)
	}
	if sum != firstKeys {
		t.Errorf("%s: the second column of the key ends at %d, want %d", name, sum, firstKeys)
	}
}
