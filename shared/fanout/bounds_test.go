package fanout

import (
	"errors"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// TestProveBounds: logs that cover the table, chain to their ends and belong to
// segments of other bounds than the plan's are not what was planned.
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
