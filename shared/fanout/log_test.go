package fanout

import (
	"errors"
	"strings"
	"testing"

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

// proved is the backup that these tests prove.
var proved = vault.Backup{Table: vault.TableID{Region: "local", Instance: "prod", Table: "t"}, ID: "20261120T000000Z-00000000"}

// TestProve proves a plan of two segments, one of them split, and refuses each
// way of being incomplete.
func TestProve(t *testing.T) {
	whole := oneInteger.Whole()
	build := func() (*vault.Plan, *vault.Group) {
		s := twoLanes()
		plan := &vault.Plan{
			Backup: proved.ID, Table: proved.Table,
			Definition: table.Definition{Name: "t", Schema: oneInteger},
			Segments:   []vault.Segment{s},
		}
		l := NewSegmentLog(s)
		group := &vault.Group{}
		finish := func(l *SegmentLog, slots ...*vault.Slot) {
			t.Helper()
			for _, slot := range slots {
				if slot.Part != nil {
					slot.Part.Shard.Name = proved.Shard(slot.Segment, "x")
					slot.Part.Index.Name = vault.Index(slot.Part.Shard.Name)
				}
				if err := l.Add(slot); err != nil {
					t.Fatal(err)
				}
				if slot.Part != nil {
					group.Totals.AddPart(slot.Part)
				}
			}
			group.Segments = append(group.Segments, vault.SegmentLog{Segment: l.Segment, Slots: l.Slots})
		}
		c := vault.Segment{ID: s.ID.Child(0), Bounds: []table.Key{at(10), at(100)}}
		first := part(l, at(10), whole.End, false)
		finish(l, first, &vault.Slot{Segment: s.ID, Slot: 1, Split: &vault.Split{Closed: []table.Key{at(10), whole.End}, Children: []vault.Segment{c}}})
		finish(NewSegmentLog(c), &vault.Slot{Segment: c.ID, Part: &vault.Part{
			Last: true, Rows: 3, Walked: 3, Lanes: []vault.Lane{{From: at(10), Next: at(100), Rows: 3}},
		}})
		return plan, group
	}
	plan, group := build()
	totals, n, err := Prove(plan, []*vault.Group{group})
	if err != nil || n != 2 || totals.Rows != 5 {
		t.Fatalf("%d segments, %d rows: %v", n, totals.Rows, err)
	}
	for name, change := range map[string]func(*vault.Plan, *vault.Group){
		"another backup's shard": func(_ *vault.Plan, g *vault.Group) {
			other := vault.Backup{Table: proved.Table, ID: "20261120T000000Z-00000001"}
			g.Segments[1].Slots[0].Part.Shard.Name = other.Shard(g.Segments[1].Segment.ID, "x")
			g.Segments[1].Slots[0].Part.Index.Name = vault.Index(g.Segments[1].Slots[0].Part.Shard.Name)
		},
		"another segment's shard": func(_ *vault.Plan, g *vault.Group) {
			g.Segments[1].Slots[0].Part.Shard, g.Segments[1].Slots[0].Part.Index = g.Segments[0].Slots[0].Part.Shard, g.Segments[0].Slots[0].Part.Index
		},
		"another index":       func(_ *vault.Plan, g *vault.Group) { g.Segments[1].Slots[0].Part.Index.Name += "x" },
		"what is no shard":    func(_ *vault.Plan, g *vault.Group) { g.Segments[1].Slots[0].Part.Shard.Name = vault.HeaderName },
		"a child is missing":  func(_ *vault.Plan, g *vault.Group) { g.Segments = g.Segments[:1] },
		"the parent is":       func(_ *vault.Plan, g *vault.Group) { g.Segments = g.Segments[1:] },
		"a slot is missing":   func(_ *vault.Plan, g *vault.Group) { g.Segments[0].Slots = g.Segments[0].Slots[:1] },
		"a segment twice":     func(_ *vault.Plan, g *vault.Group) { g.Segments = append(g.Segments, g.Segments[1]) },
		"totals":              func(_ *vault.Plan, g *vault.Group) { g.Totals.Rows++ },
		"the digest":          func(_ *vault.Plan, g *vault.Group) { g.Totals.Digest.Add(table.DigestOf([16]byte{1})) },
		"bounds of the child": func(_ *vault.Plan, g *vault.Group) { g.Segments[1].Segment.Bounds[1] = at(99) },
		"the plan's bounds":   func(p *vault.Plan, _ *vault.Group) { p.Segments[0].Bounds = []table.Key{at(0), at(100), whole.End} },
		"the wrong group":     func(_ *vault.Plan, g *vault.Group) { g.Group = 1 },
		"a plan of one more": func(p *vault.Plan, _ *vault.Group) {
			p.Segments = append(p.Segments, vault.Segment{ID: "000001", Bounds: twoLanes().Bounds})
		},
		"an unknown stranger": func(_ *vault.Plan, g *vault.Group) {
			g.Segments = append(g.Segments, vault.SegmentLog{Segment: vault.Segment{ID: "000009", Bounds: twoLanes().Bounds}})
		},
	} {
		plan, group := build()
		change(plan, group)
		if _, _, err := Prove(plan, []*vault.Group{group}); !errors.Is(err, vault.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := Prove(plan, nil); err == nil {
		t.Error("no group at all is proved")
	}
	if _, _, err := Prove(plan, []*vault.Group{group, {Group: 1}}); err == nil || !strings.Contains(err.Error(), "the plan has 1") {
		t.Errorf("a group more: %v", err)
	}

	// The sums of what is there are right, so that nothing but the check itself sees it.
	for name, c := range map[string]struct {
		change func(*vault.Plan, *vault.Group)
		said   string
	}{
		"what is left, without who has it": {func(_ *vault.Plan, g *vault.Group) {
			g.Segments = g.Segments[:1]
			g.Segments[0].Slots = g.Segments[0].Slots[:1]
		}, "has not ended"},
		"a segment twice": {func(_ *vault.Plan, g *vault.Group) { g.Segments = append(g.Segments, g.Segments[1]) }, "stands twice"},
		"a stranger": {func(_ *vault.Plan, g *vault.Group) {
			l := NewSegmentLog(vault.Segment{ID: "000009", Bounds: []table.Key{at(10), at(100)}})
			slot := *g.Segments[1].Slots[0].Part
			slot.Shard.Name = proved.Shard("000009", "x")
			slot.Index.Name = vault.Index(slot.Shard.Name)
			g.Segments = append(g.Segments, vault.SegmentLog{Segment: l.Segment, Slots: []vault.Slot{{Segment: "000009", Part: &slot}}})
		}, "are accounted for"},
		"lanes that meet elsewhere": {func(p *vault.Plan, _ *vault.Group) {
			p.Segments[0].Bounds = []table.Key{whole.Start, at(99), whole.End}
		}, "other bounds"},
		"fewer lanes": {func(p *vault.Plan, _ *vault.Group) { p.Segments[0].Bounds = []table.Key{whole.Start, whole.End} }, "other bounds"},
		"more lanes":  {func(p *vault.Plan, _ *vault.Group) { p.Segments[0].Bounds = append(p.Segments[0].Bounds, whole.End) }, "other bounds"},
	} {
		plan, group := build()
		c.change(plan, group)
		group.Totals = vault.Totals{}
		for _, l := range group.Segments {
			for i := range l.Slots {
				if p := l.Slots[i].Part; p != nil {
					group.Totals.AddPart(p)
				}
			}
		}
		if _, _, err := Prove(plan, []*vault.Group{group}); !errors.Is(err, vault.ErrCorrupt) || !strings.Contains(err.Error(), c.said) {
			t.Errorf("%s: %v, want %q", name, err, c.said)
		}
	}
}

// TestProveSums has parts whose counts sum up to more than there can be, within a group,
// where four of them come to nothing again, and over two groups.
func TestProveSums(t *testing.T) {
	const quarter = int64(1) << 62
	prove := func(units map[int]int64) error {
		whole := oneInteger.Whole()
		plan := &vault.Plan{Backup: proved.ID, Table: proved.Table, Definition: table.Definition{Name: "t", Schema: oneInteger}}
		groups := []*vault.Group{{Group: 0}, {Group: 1}}
		for i := range vault.GroupSize + 1 {
			s := vault.Segment{ID: vault.NewSegmentID(i), Bounds: []table.Key{at(int64(i)), at(int64(i + 1))}}
			switch i {
			case 0:
				s.Bounds[0] = whole.Start
			case vault.GroupSize:
				s.Bounds[1] = whole.End
			}
			plan.Segments = append(plan.Segments, s)
			p := &vault.Part{Last: true, ReadUnits: units[i], Lanes: []vault.Lane{{From: s.Bounds[0], Next: s.Bounds[1]}}}
			p.Shard.Name = proved.Shard(s.ID, "x")
			p.Index.Name = vault.Index(p.Shard.Name)
			g := groups[s.ID.Group()]
			g.Segments = append(g.Segments, vault.SegmentLog{Segment: s, Slots: []vault.Slot{{Segment: s.ID, Part: p}}})
			g.Totals.AddPart(p)
		}
		_, _, err := Prove(plan, groups)
		return err
	}
	if err := prove(map[int]int64{0: quarter}); err != nil {
		t.Fatal(err)
	}
	for want, units := range map[string]map[int]int64{
		"the parts of group 0 sum up to more":  {0: quarter, 1: quarter, 2: quarter, 3: quarter},
		"the parts of 2 groups sum up to more": {0: quarter, vault.GroupSize: quarter},
	} {
		if err := prove(units); !errors.Is(err, vault.ErrCorrupt) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
