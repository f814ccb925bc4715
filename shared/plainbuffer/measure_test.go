package plainbuffer_test

import (
	"errors"
	"testing"

	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// measured checks Measure against Scan.
func measured(t *testing.T, b []byte) {
	t.Helper()
	e, err := plainbuffer.Measure(b)
	if err != nil && !errors.Is(err, plainbuffer.ErrCorrupt) {
		t.Fatalf("error %v", err)
	}
	if e.Bytes > len(b) {
		t.Fatalf("%d bytes of %d", e.Bytes, len(b))
	}
	var row plainbuffer.Row
	n, scanErr := plainbuffer.Scan(b, &row)
	if scanErr != nil {
		return // Measure looks at less
	}
	if err != nil {
		t.Fatalf("Scan takes what Measure does not: %v", err)
	}
	want := plainbuffer.Extent{Bytes: n, Cells: len(row.Cells)}
	for _, cells := range [][]plainbuffer.Cell{row.Key, row.Cells} {
		for i := range cells {
			want.Data += len(cells[i].Name) + len(cells[i].Data)
			if cells[i].HasTimestamp {
				want.Data += 8
			}
		}
	}
	if e != want {
		t.Fatalf("%+v, want %+v", e, want)
	}
}

// rowOfAllKinds is a row with a cell of each kind.
func rowOfAllKinds() []byte {
	var b plainbuffer.Builder
	b.Begin()
	for _, c := range []plainbuffer.Cell{
		{Name: []byte("s"), HasValue: true, Type: plainbuffer.String, Data: []byte("text")},
		{Name: []byte("i"), HasValue: true, Type: plainbuffer.Integer, Data: make([]byte, 8)},
		{Name: []byte("m"), HasValue: true, Type: plainbuffer.InfMax},
	} {
		b.Cell(&c)
	}
	b.Attributes()
	for _, c := range []plainbuffer.Cell{
		{Name: []byte("b"), HasValue: true, Type: plainbuffer.Blob, HasTimestamp: true},
		{Name: []byte("d"), HasValue: true, Type: plainbuffer.Double, Data: make([]byte, 8), HasTimestamp: true, Timestamp: 5},
		{Name: []byte("t"), HasValue: true, Type: plainbuffer.Boolean, Data: []byte{1}},
		{Name: []byte("x"), Op: plainbuffer.DeleteAll},
		{Name: []byte("y"), Op: plainbuffer.DeleteOne, HasTimestamp: true, Timestamp: 9},
	} {
		b.Cell(&c)
	}
	b.EndRecord(true, plainbuffer.Extension{Epoch: 1, Timestamp: 2, RowIndex: 3})
	return b.Buf
}

func TestMeasure(t *testing.T) {
	row := rowOfAllKinds()
	measured(t, row)
	measured(t, append(row, "more"...))
	if e, err := plainbuffer.Measure(row); err != nil || e.Cells != 5 || e.Bytes != len(row) {
		t.Errorf("%+v, %v", e, err)
	}
	for n := range row {
		if e, err := plainbuffer.Measure(row[:n]); err == nil {
			t.Errorf("the first %d bytes of a row of %d are %+v", n, len(row), e)
		}
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = plainbuffer.Measure(row) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzMeasure(f *testing.F) {
	f.Add(rowOfAllKinds())
	f.Fuzz(measured)
}
