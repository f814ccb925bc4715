package engine

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/plainbuffer"
)

// TestSurvey holds what a survey finds of random puts against the checks and counts that
// look at each cell by itself, and sees both verdicts.
func TestSurvey(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	names := []string{"", "#a", "a", "b", "c", "k", "k2"}
	types := []plainbuffer.Type{plainbuffer.Integer, plainbuffer.Double, plainbuffer.Boolean, plainbuffer.String, plainbuffer.Blob, plainbuffer.Null}
	one := func(n int) bool { return random.IntN(n) == 0 }
	cell := func(odd int) plainbuffer.Cell {
		c := plainbuffer.Cell{Name: []byte(names[2+random.IntN(3)]), HasValue: true, HasTimestamp: true, Timestamp: random.Int64N(4), Type: types[random.IntN(5)]}
		if one(odd) {
			c.Name = []byte(names[random.IntN(len(names))])
		}
		switch c.HasValue, c.HasTimestamp = !one(odd), !one(odd); {
		case one(odd):
			c.Type = types[random.IntN(len(types))]
		case one(odd):
			c.Op = plainbuffer.Increment
		case one(odd):
			c.Timestamp = -random.Int64N(2)*math.MaxInt64 + maxTimestamp
		}
		c.Data = make([]byte, random.IntN(4))
		switch c.Type {
		case plainbuffer.Double, plainbuffer.Integer:
			c.Data = make([]byte, 8)
			if one(odd) {
				c.Data[6], c.Data[7] = 0xF0, 0x7F
			}
		case plainbuffer.Boolean:
			c.Data = make([]byte, 1)
		case plainbuffer.Null:
			c.Data = nil
		}
		if c.Type == plainbuffer.Blob && one(10*odd) {
			c.Data = make([]byte, MaxValueLength+1)
		}
		return c
	}
	e := &Engine{}
	e.SetBehavior(Behavior{})
	var s Survey
	s.Reset()
	usual, unusual := 0, 0
	for range 50_000 {
		key := []plainbuffer.Cell{{Name: []byte(names[5+random.IntN(2)]), HasValue: true, Type: plainbuffer.String, Data: []byte("v")}}
		var cells []plainbuffer.Cell
		odd := 4 + random.IntN(40)
		for range random.IntN(5) {
			cells = append(cells, cell(odd))
		}
		if !one(4) {
			slices.SortStableFunc(cells, func(a, b plainbuffer.Cell) int { return compareCells(&a, &b) })
		}
		if one(10) {
			s.Reset()
		}
		b := plainbuffer.Builder{Buf: plainbuffer.AppendHeader(nil)}
		b.Begin()
		b.Cell(&key[0])
		if len(cells) > 0 {
			b.Attributes()
		}
		for i := range cells {
			b.Cell(&cells[i])
		}
		b.End(false)
		c := Change{Op: Put}
		s.Read(&c, b.Buf)
		slow := Change{Op: Put, Row: plainbuffer.Row{Key: key, Cells: cells}}
		err := e.checkChange(&slow)
		want := err == nil && len(cells) > 0
		sum := newSummary()
		var previous *plainbuffer.Cell
		for i := range cells {
			want = want && cells[i].HasTimestamp && (previous == nil || compareCells(previous, &cells[i]) < 0)
			sum.add(&cells[i], previous)
			previous = &cells[i]
		}
		if c.usual != want {
			t.Fatalf("usual %v, want %v (%v) of %s", c.usual, want, err, fmt.Sprint(cells))
		}
		if !want {
			unusual++
			continue
		}
		usual++
		sum.named = 0
		if c.summary != sum {
			t.Fatalf("%+v, want %+v of %v", c.summary, sum, cells)
		}
		if err := e.checkChange(&c); err != nil || c.size != slow.size {
			t.Fatalf("size %d, %v, want %d", c.size, err, slow.size)
		}
	}
	if min(usual, unusual) < 5000 {
		t.Fatalf("%d puts of the usual form, %d others", usual, unusual)
	}
}
