package coverage

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

var oneInteger = table.Schema{{Name: "k", Type: table.IntegerKey}}

func at(n int64) table.Key { return table.Key{table.Integer(n)} }

// twoLanes is [-inf, 100) and [100, +inf).
func twoLanes() vault.Segment {
	whole := oneInteger.Whole()
	return vault.Segment{ID: "000000", Bounds: []table.Key{whole.Start, at(100), whole.End}}
}

// part makes the slot that goes on where l stands, up to a and b.
func part(l *SegmentLog, a, b table.Key, last bool) *vault.Slot {
	p := &vault.Part{Last: last}
	for i, next := range []table.Key{a, b} {
		lane := vault.Lane{From: l.Next[i], Next: next}
		if !lane.From.Equal(next) {
			lane.Rows = 1
		}
		p.Rows += lane.Rows
		p.Lanes = append(p.Lanes, lane)
	}
	p.Walked = p.Rows
	return &vault.Slot{Segment: l.Segment.ID, Slot: len(l.Slots), Part: p}
}

func TestLogChains(t *testing.T) {
	whole := oneInteger.Whole()
	l := NewSegmentLog(twoLanes())
	for i, s := range []func() *vault.Slot{
		func() *vault.Slot { return part(l, at(10), at(100), false) },
		func() *vault.Slot { return part(l, at(100), at(150), false) },
		func() *vault.Slot { return part(l, at(100), whole.End, true) },
	} {
		if err := l.Add(s()); err != nil {
			t.Fatalf("slot %d: %v", i, err)
		}
	}
	if !l.Ended {
		t.Fatal("the log has not ended")
	}
	if err := l.Add(part(l, at(100), whole.End, true)); err == nil {
		t.Fatal("a slot after the end is taken")
	}
}

func TestLogRefuses(t *testing.T) {
	whole := oneInteger.Whole()
	for name, change := range map[string]func(*vault.Slot){
		"another segment":       func(s *vault.Slot) { s.Segment = "000001" },
		"another slot":          func(s *vault.Slot) { s.Slot++ },
		"a gap":                 func(s *vault.Slot) { s.Part.Lanes[0].From = at(11) },
		"an overlap":            func(s *vault.Slot) { s.Part.Lanes[0].From = at(9) },
		"a lane less":           func(s *vault.Slot) { s.Part.Lanes = s.Part.Lanes[:1] },
		"beyond the lane's end": func(s *vault.Slot) { s.Part.Lanes[0].Next = at(101) },
		"backwards":             func(s *vault.Slot) { s.Part.Lanes[0].Next = at(9) },
		"rows that do not sum":  func(s *vault.Slot) { s.Part.Rows++ },
		"rows that were lost":   func(s *vault.Slot) { s.Part.Walked++ },
		"last too early":        func(s *vault.Slot) { s.Part.Last = true },
		"no lane further": func(s *vault.Slot) {
			for i := range s.Part.Lanes {
				s.Part.Lanes[i].Next, s.Part.Lanes[i].Rows = s.Part.Lanes[i].From, 0
			}
			s.Part.Rows, s.Part.Walked = 0, 0
		},
		"rows in nothing": func(s *vault.Slot) { s.Part.Lanes[1].Rows++; s.Part.Rows++; s.Part.Walked++ },
	} {
		l := NewSegmentLog(twoLanes())
		if err := l.Add(part(l, at(10), at(100), false)); err != nil {
			t.Fatal(err)
		}
		s := part(l, at(20), at(100), false)
		change(s)
		if err := l.Add(s); !errors.Is(err, vault.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	l := NewSegmentLog(twoLanes())
	if err := l.Add(part(l, at(100), whole.End, false)); err == nil {
		t.Error("an end that does not say so is taken")
	}
}

func TestSplitCoversWhatIsLeft(t *testing.T) {
	whole := oneInteger.Whole()
	id := vault.SegmentID("000000")
	child := func(i int, bounds ...table.Key) vault.Segment {
		return vault.Segment{ID: id.Child(i), Bounds: bounds}
	}
	cases := []struct {
		name     string
		closed   []table.Key
		children []vault.Segment
		want     string
	}{
		{"one per lane", []table.Key{at(10), at(150)}, []vault.Segment{child(0, at(10), at(100)), child(1, at(150), whole.End)}, ""},
		{"lanes cut again", []table.Key{at(10), at(150)}, []vault.Segment{child(0, at(10), at(50), at(100)), child(1, at(150), at(151)), child(2, at(151), whole.End)}, ""},
		{"a gap", []table.Key{at(10), at(150)}, []vault.Segment{child(0, at(11), at(100)), child(1, at(150), whole.End)}, "left over is"},
		{"a lane left out", []table.Key{at(10), at(150)}, []vault.Segment{child(0, at(10), at(100))}, "leave out lane 1"},
		{"too much", []table.Key{at(10), at(150)}, []vault.Segment{child(0, at(10), at(100)), child(1, at(150), whole.End), child(2, at(1), at(2))}, "nothing was left"},
		{"closed elsewhere", []table.Key{at(9), at(150)}, []vault.Segment{child(0, at(10), at(100)), child(1, at(150), whole.End)}, "closes lane 0"},
		{"over the lane's end", []table.Key{at(10), at(150)}, []vault.Segment{child(0, at(10), at(101)), child(1, at(150), whole.End)}, "left over is"},
		{"no bounds", []table.Key{at(10), at(150)}, []vault.Segment{child(0)}, "has 0 bounds"},
		{"one bound", []table.Key{at(10), at(150)}, []vault.Segment{child(0, at(10))}, "has 1 bounds"},
		{"wrong name", []table.Key{at(10), at(150)}, []vault.Segment{child(1, at(10), at(100)), child(0, at(150), whole.End)}, "child 0 is"},
	}
	for _, c := range cases {
		l := NewSegmentLog(twoLanes())
		if err := l.Add(part(l, at(10), at(150), false)); err != nil {
			t.Fatal(err)
		}
		err := l.Add(&vault.Slot{Segment: id, Slot: 1, Split: &vault.Split{Closed: c.closed, Children: c.children}})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if c.want == "" && !l.Ended {
			t.Errorf("%s: the log has not ended", c.name)
		}
	}
}

// TestSplitOfOtherLanes: a split that closes more lanes than there are, or fewer, or
// leaves nobody to go on, is refused.
func TestSplitOfOtherLanes(t *testing.T) {
	segment := twoLanes()
	l := NewSegmentLog(segment)
	lanes := segment.Lanes()
	for closed := range 4 {
		if closed == len(lanes) {
			continue
		}
		s := &vault.Split{Children: []vault.Segment{{ID: "000000.00", Bounds: segment.Bounds}}}
		for range closed {
			s.Closed = append(s.Closed, lanes[0].Start)
		}
		if err := l.checkSplit(s, lanes); err == nil || !strings.Contains(err.Error(), "lanes into") {
			t.Errorf("%d lanes closed: %v", closed, err)
		}
	}
}

// TestFindSegmentRefuses gives ids that no planner makes, which once were an index into
// the plan's segments.
func TestFindSegmentRefuses(t *testing.T) {
	repo, err := repository.Init(t.Context(), &mem.Store{}, time.Unix(1_800_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	plan := &vault.Plan{Segments: []vault.Segment{twoLanes()}}
	for _, id := range []vault.SegmentID{"", "-1", "+0", "0", "zz", "99999999999999999999", "000001", "-00001", "00000 ", "000000.", "-00001.00", "000000.00"} {
		if s, err := FindSegment(t.Context(), repo, plan, vault.Log{}, id); err == nil || !strings.Contains(err.Error(), string(id)) {
			t.Errorf("segment %q: %+v, %v", id, s, err)
		}
	}
	if s, err := FindSegment(t.Context(), repo, plan, vault.Log{}, "000000"); err != nil || s.ID != "000000" {
		t.Errorf("%+v, %v", s, err)
	}
}
