package coverage

import (
	"errors"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// TestProveBounds: logs that cover the table, chain to their ends and belong to segments
// of other bounds than the plan's are not what was planned.
func TestProveBounds(t *testing.T) {
	whole := oneInteger.Whole()
	segments := func(mid ...table.Key) []vault.Segment {
		return []vault.Segment{
			{ID: vault.NewSegmentID(0), Bounds: []table.Key{whole.Start, mid[0]}}, {ID: vault.NewSegmentID(1), Bounds: append(mid, whole.End)},
		}
	}
	plan := &vault.Plan{Backup: proved.ID, Table: proved.Table, Definition: table.Definition{Name: "t", Schema: oneInteger}, Segments: segments(at(50))}
	for name, c := range map[string]struct {
		segments []vault.Segment
		ok       bool
	}{
		"the plan's":     {segments(at(50)), true},
		"another cut":    {segments(at(40)), false},
		"a lane more":    {segments(at(50), at(60)), false},
		"the first half": {[]vault.Segment{segments(at(40))[0], segments(at(50))[1]}, false},
		"a key too many": {[]vault.Segment{segments(at(50))[0], segments(at(51))[1]}, false},
	} {
		group := &vault.Group{}
		for _, s := range c.segments {
			l := NewSegmentLog(s)
			p := &vault.Part{Last: true, Shard: vault.Object{Name: proved.Shard(s.ID, "x")}, Index: vault.Object{Name: vault.Index(proved.Shard(s.ID, "x"))}}
			for _, lane := range s.Lanes() {
				p.Lanes = append(p.Lanes, vault.Lane{From: lane.Start, Next: lane.End})
			}
			if err := l.Add(&vault.Slot{Segment: s.ID, Part: p}); err != nil {
				t.Fatal(err)
			}
			group.Totals.AddPart(p)
			group.Segments = append(group.Segments, vault.SegmentLog{Segment: s, Slots: l.Slots})
		}
		_, _, err := Prove(plan, []*vault.Group{group})
		if c.ok != (err == nil) || !c.ok && (!errors.Is(err, vault.ErrCorrupt) || !strings.Contains(err.Error(), "bounds")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// proved is the backup that these tests prove.
var proved = vault.Backup{Table: vault.TableID{Region: "local", Instance: "prod", Table: "t"}, ID: "20261120T000000Z-00000000"}

// TestProve proves a plan of two segments, one of them split, and refuses each way of
// being incomplete.
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
