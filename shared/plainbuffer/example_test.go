package plainbuffer_test

import (
	"errors"
	"fmt"
	"io"

	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// exampleBlock is two rows of a table with the key (user, id).
func exampleBlock() []byte {
	user, id := plainbuffer.NewName([]byte("user")), plainbuffer.NewName([]byte("id"))
	city, paid := plainbuffer.NewName([]byte("city")), plainbuffer.NewName([]byte("paid"))
	w := plainbuffer.Builder{Buf: plainbuffer.AppendHeader(nil)}
	for i, name := range []string{"ann", "bob"} {
		w.Begin()
		w.KeyBytes(&user, plainbuffer.String, []byte(name))
		w.KeyInteger(&id, int64(i+7))
		w.Attributes()
		w.Bytes(&city, plainbuffer.String, []byte("Hangzhou"), 1_700_000_000_000)
		w.Boolean(&paid, i == 0, 1_700_000_000_000)
		w.End(false)
	}
	return w.Buf
}

func ExampleScanner() {
	s := plainbuffer.NewScanner(exampleBlock())
	var row plainbuffer.Row
	for {
		err := s.Next(&row)
		if err == io.EOF {
			break
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s %d:", row.Key[0].Data, row.Key[1].Int())
		for i := range row.Cells {
			c := &row.Cells[i]
			fmt.Printf(" %s (%s)", c.Name, c.Type)
		}
		fmt.Println()
	}
	// Output:
	// ann 7: city (string) paid (boolean)
	// bob 8: city (string) paid (boolean)
}

// A bit that was turned on its way is an error, never another row.
func ExampleScanner_corrupt() {
	block := exampleBlock()
	block[25] ^= 1 // in "ann"
	var row plainbuffer.Row
	err := plainbuffer.NewScanner(block).Next(&row)
	fmt.Println(errors.Is(err, plainbuffer.ErrCorrupt))
	fmt.Println(err)
	// Output:
	// true
	// corrupt PlainBuffer at byte 5: the checksum of cell "user" is 0xa2, its bytes give 0xc9
}

func ExampleBuilder() {
	name, column := plainbuffer.NewName([]byte("pk1")), plainbuffer.NewName([]byte("c"))
	w := plainbuffer.Builder{Buf: plainbuffer.AppendHeader(nil)}
	w.Begin()
	w.KeyBytes(&name, plainbuffer.String, []byte("a"))
	w.Attributes()
	w.Integer(&column, 1, 2)
	w.End(false)
	fmt.Printf("%x\n", w.Buf)
	// Output:
	// 7500000001030403000000706b3105060000000301000000610a19020304010000006305090000000001000000000000000702000000000000000ab709bc
}

func ExampleCompareKeys() {
	s := plainbuffer.NewScanner(exampleBlock())
	var ann, bob plainbuffer.Row
	if err := errors.Join(s.Next(&ann), s.Next(&bob)); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(plainbuffer.CompareKeys(ann.Key, bob.Key), plainbuffer.CompareKeys(bob.Key, ann.Key[:1]))
	// Output:
	// -1 1
}

func ExampleMeasure() {
	e, err := plainbuffer.Measure(exampleBlock()[plainbuffer.HeaderSize:])
	fmt.Println(e.Bytes, e.Data, e.Cells, err)
	// Output:
	// 120 50 2 <nil>
}
