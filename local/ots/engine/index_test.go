package engine

import (
	"slices"
	"testing"

	"github.com/tablevault/tablevault/local/ots/kv"
	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// TestSweep opens a store in which the drop of an index was cut short between the
// definition and the rows.
func TestSweep(t *testing.T) {
	store := kv.Memory()
	open := func() *Engine {
		t.Helper()
		e, err := Open(store, Config{})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	e := open()
	if err := e.CreateTable(&Definition{
		Name: "t", Key: []KeyColumn{{Name: "k", Type: plainbuffer.Integer}}, Defined: []DefinedColumn{{Name: "d", Type: plainbuffer.Integer}},
		Options: Options{TTL: -1, MaxVersions: 1, AllowUpdate: true},
		Indexes: []Index{{Name: "a", Key: []string{"d"}}, {Name: "b", Key: []string{"d"}}, {Name: "c", Key: []string{"d"}}},
	}); err != nil {
		t.Fatal(err)
	}
	number := func(name string, n byte) plainbuffer.Cell {
		return plainbuffer.Cell{Name: []byte(name), Type: plainbuffer.Integer, Data: []byte{n, 0, 0, 0, 0, 0, 0, 0}, HasValue: true}
	}
	for n := range byte(20) {
		c := &Change{Op: Put, Row: plainbuffer.Row{Key: []plainbuffer.Cell{number("k", n)}, Cells: []plainbuffer.Cell{number("d", n)}}}
		if err := e.Write("t", c); err != nil {
			t.Fatal(err)
		}
	}
	table := e.find("t")
	space := table.definition().Space
	count := func() map[byte]int {
		t.Helper()
		n := map[byte]int{}
		if err := store.View(space, func(r kv.Reader) error {
			r.Ascend([]byte{prefixIndex}, func(key, _ []byte) bool { n[key[indexPrefixSize-1]]++; return true })
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(); len(n) != 3 {
		t.Fatalf("indexes hold %v", n)
	}
	// What DropIndex does first, and no more, to the first and the last.
	next := table.definition().clone()
	gone := []*Table{e.find("a"), e.find("c")}
	next.Indexes = next.Indexes[1:2]
	if err := e.replace(table, next, nil, gone); err != nil {
		t.Fatal(err)
	}
	e = open()
	kept := e.find("t").definition().Indexes[0].Prefix[indexPrefixSize-1]
	if n := count(); len(n) != 1 || n[kept] != 20 {
		t.Errorf("after opening indexes hold %v", n)
	}
	if e.find("a") != nil || e.find("b") == nil {
		t.Error("an index that was dropped is a table")
	}
}

// storing calls do before it stores definitions.
type storing struct {
	kv.Store
	do func()
}

func (s *storing) Update(space string, fn func(kv.Writer) error) error {
	if space == metaSpace {
		s.do()
	}
	return s.Store.Update(space, fn)
}

// TestDropIsStoredFirst: writes go by a definition without an index only when it is
// stored. If they did before, and a kill came in between, the index would be there again
// and lack them.
func TestDropIsStoredFirst(t *testing.T) {
	store := &storing{kv.Memory(), func() {}}
	e, err := Open(store, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.CreateTable(&Definition{
		Name: "t", Key: []KeyColumn{{Name: "k", Type: plainbuffer.Integer}}, Defined: []DefinedColumn{{Name: "d", Type: plainbuffer.Integer}},
		Options: Options{TTL: -1, MaxVersions: 1, AllowUpdate: true},
		Indexes: []Index{{Name: "a", Key: []string{"d"}}},
	}); err != nil {
		t.Fatal(err)
	}
	has := func() bool {
		return slices.ContainsFunc(e.find("t").definition().Indexes, func(x Index) bool { return x.Name == "a" })
	}
	stored := 0
	store.do = func() {
		stored++
		if !has() {
			t.Error("writes go by a definition that is not stored")
		}
	}
	if err := e.DropIndex("t", "a"); err != nil {
		t.Fatal(err)
	}
	if stored == 0 || has() || e.find("a") != nil {
		t.Errorf("%d definitions were stored; the index is there: %t", stored, has())
	}
}
