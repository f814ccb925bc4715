package sealed_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/sealed"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
	"github.com/tablevault/tablevault/shared/verify"
)

// forgeGroup changes a backup's roll-up, and has the manifest name what it is then, as
// whoever forges both does.
func forgeGroup(t *testing.T, w *vaulttest.World, m *vault.Manifest, change func(*vault.Group)) *vault.Manifest {
	t.Helper()
	b, store := vaulttest.BackupOf(m), w.Store.(*mem.Store)
	var group vault.Group
	if err := w.Repo.ReadExact(t.Context(), m.Groups[0], &group); err != nil {
		t.Fatal(err)
	}
	change(&group)
	group.Totals = vault.Totals{}
	for _, l := range group.Segments {
		for _, slot := range l.Slots {
			if slot.Part != nil {
				group.Totals.AddPart(slot.Part)
			}
		}
	}
	store.Replace(b.Group(0), vaulttest.Forge(b.Group(0), &group))
	o, err := w.Repo.Read(t.Context(), b.Group(0), new(vault.Group))
	if err != nil {
		t.Fatal(err)
	}
	forged := *m
	forged.Groups, forged.Totals = []vault.Object{o}, group.Totals
	store.Replace(b.Manifest(), vaulttest.Forge(b.Manifest(), &forged))
	return &forged
}

// TestShardIsItsRecords: shards and their records are read as they were written, and do
// not say the same of their rows. Whoever reads the shards says which it is.
func TestShardIsItsRecords(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(segments []vault.SegmentLog)
		said   string
	}{
		{"as they are", func([]vault.SegmentLog) {}, ""},
		{"another digest", func(s []vault.SegmentLog) { d := &s[0].Slots[0].Part.Digest; d.Add(*d) }, "the part's record says"},
		{"another bound of a lane", func(s []vault.SegmentLog) {
			// The row that the second part begins with is the first's, by the records.
			a, b := s[0].Slots[0].Part, s[0].Slots[1].Part
			a.Lanes[1].Next = a.Lanes[1].Next.Next()
			b.Lanes[1].From = a.Lanes[1].Next
		}, "the part's record says"},
		{"an earlier bound of a lane", func(s []vault.SegmentLog) {
			// The last row of the first part is beyond it, by the records.
			a, b := s[0].Slots[0].Part, s[0].Slots[1].Part
			a.Lanes[1].Next = vaulttest.Definition().Schema.Pad(table.Key{table.String("u000001")})
			b.Lanes[1].From = a.Lanes[1].Next
		}, "are outside of lane 1"},
		{"another count of a lane", func(s []vault.SegmentLog) {
			lanes := s[0].Slots[0].Part.Lanes
			lanes[0].Rows, lanes[1].Rows = lanes[0].Rows+1, lanes[1].Rows-1
		}, "the part's record says"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, m := vaulttest.CopyWorld(t, 900)
			forged := forgeGroup(t, w, m, func(g *vault.Group) { c.change(g.Segments) })
			proof := w.Verify(forged, verify.DepthRead)
			if c.said == "" {
				if proof.Verdict != vault.OK {
					t.Errorf("%+v", proof)
				}
				return
			}
			said := false
			for _, f := range proof.Check.Findings {
				said = said || strings.Contains(f.Reason, c.said)
			}
			if proof.Verdict != vault.Corrupt || !said {
				t.Errorf("%s: %+v, want %q", proof.Verdict, proof.Check.Findings, c.said)
			}
		})
	}
}

// TestLogThatDoesNotEnd: a roll-up without the end of a segment's log is no segment.
func TestLogThatDoesNotEnd(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 900)
	forged := forgeGroup(t, w, m, func(g *vault.Group) {
		log := &g.Segments[0]
		log.Slots = log.Slots[:len(log.Slots)-1]
	})
	_, manifest, err := w.Repo.Manifest(t.Context(), vaulttest.BackupOf(forged))
	if err != nil {
		t.Fatal(err)
	}
	segments := sealed.Segments{Repo: w.Repo, ID: vaulttest.BackupOf(forged), Manifest: manifest}
	if s, err := segments.Of(t.Context(), "000000"); !errors.Is(err, vault.ErrCorrupt) || !strings.Contains(err.Error(), "does not end") {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestSegmentThatIsNone reads no segment that the backup does not have.
func TestSegmentThatIsNone(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 900)
	_, manifest, err := w.Repo.Manifest(t.Context(), vaulttest.BackupOf(m))
	if err != nil {
		t.Fatal(err)
	}
	segments := sealed.Segments{Repo: w.Repo, ID: vaulttest.BackupOf(m), Manifest: manifest}
	for _, id := range []vault.SegmentID{"000255", "000256"} { // of its group, and of another one
		if s, err := segments.Of(t.Context(), id); err == nil || !strings.Contains(err.Error(), "has no segment "+string(id)) {
			t.Errorf("%s: %+v, %v", id, s, err)
		}
	}
}

// TestShardOfAnother: a shard, and an index, whose bytes are those of their records are
// of another segment, as their headers say; or the index is of another part of that
// segment, as its entries do.
func TestShardOfAnother(t *testing.T) {
	for name, c := range map[string]struct {
		of    func(*vault.Part) *vault.Object
		parts bool // of one segment
		said  string
	}{
		"shard":                 {func(p *vault.Part) *vault.Object { return &p.Shard }, false, "it says that it is segment 000001"},
		"index":                 {func(p *vault.Part) *vault.Object { return &p.Index }, false, "it says that it is segment 000001"},
		"index of another part": {func(p *vault.Part) *vault.Object { return &p.Index }, true, "is not about that block"},
	} {
		var w *vaulttest.World
		var m *vault.Manifest
		if c.parts {
			w, m = vaulttest.CopyWorld(t, 900)
		} else {
			w = vaulttest.NewWorld(t)
			m = w.CutInto(2, 200)
		}
		store := w.Store.(*mem.Store)
		forged := forgeGroup(t, w, m, func(g *vault.Group) {
			// What the last part has lies under the first one's name.
			a, b := c.of(g.Segments[0].Slots[0].Part), c.of(g.Segments[len(g.Segments)-1].Slots[len(g.Segments[0].Slots)-1].Part)
			store.Replace(a.Name, []byte(vaulttest.ContentOf(t, store, b.Name)[b.Name]))
			under := a.Name
			*a = *b
			a.Name = under
		})
		proof := w.Verify(forged, verify.DepthRead)
		said := false
		for _, f := range proof.Check.Findings {
			said = said || strings.Contains(f.Reason, c.said)
		}
		if proof.Verdict != vault.Corrupt || !said {
			t.Errorf("%s: %s: %+v", name, proof.Verdict, proof.Check.Findings)
		}
	}
}
