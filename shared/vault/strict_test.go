package vault

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/table"
)

// forged is a document as someone makes it who knows the format.
func forged(t *testing.T, name string, d Document) []byte {
	t.Helper()
	before, err := head(d, name)
	if err != nil {
		t.Fatal(err)
	}
	body, err := compact(d)
	if err != nil {
		t.Fatal(err)
	}
	return resealed(string(before) + string(body))
}

// strict has a document changed in one way after the other, each of which must be
// refused, by the reader as by the writer.
func strict[D any, P interface {
	*D
	Document
}](t *testing.T, example string, changes map[string]func(P)) {
	t.Helper()
	name := placeOf(examples()[example])
	for what, change := range changes {
		d := examples()[example].(P)
		change(d)
		if err := Decode(name, forged(t, name, d), P(new(D))); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s with %s: %v", example, what, err)
		}
		if _, err := Encode(name, d); err == nil {
			t.Errorf("%s with %s is written", example, what)
		}
	}
}

// TestValuesThatCantBe forges documents that are well made, and say what can't be.
func TestValuesThatCantBe(t *testing.T) {
	long := make([]byte, maxKeyValue+1)
	strict(t, "split", map[string]func(*Slot){
		"no children":              func(s *Slot) { s.Split.Children = nil },
		"too many":                 func(s *Slot) { s.Split.Children = make([]Segment, MaxChildren+1) },
		"a child without bounds":   func(s *Slot) { s.Split.Children[0].Bounds = nil },
		"a child with one bound":   func(s *Slot) { s.Split.Children[0].Bounds = s.Split.Children[0].Bounds[:1] },
		"a child of another":       func(s *Slot) { s.Split.Children[0].ID = "000009.00" },
		"a child with another id":  func(s *Slot) { s.Split.Children[0].ID = s.Segment.Child(1) },
		"bounds out of order":      func(s *Slot) { b := s.Split.Children[0].Bounds; b[0], b[1] = b[1], b[0] },
		"equal bounds":             func(s *Slot) { b := s.Split.Children[0].Bounds; b[0] = b[1] },
		"a bound of fewer columns": func(s *Slot) { b := s.Split.Children[0].Bounds; b[0] = b[0][:1] },
		"bounds of fewer columns":  func(s *Slot) { b := s.Split.Children[0].Bounds; b[0], b[1] = b[0][:1], b[1][:1] },
		"a bound of no columns":    func(s *Slot) { s.Split.Children[0].Bounds[0] = table.Key{} },
		"a bound that is too long": func(s *Slot) { s.Split.Children[0].Bounds[0] = table.Key{table.Binary(long), table.Min()} },
		"no lanes":                 func(s *Slot) { s.Split.Closed = nil },
		"lanes out of order":       func(s *Slot) { s.Split.Closed[1] = table.Key{table.Min(), table.Min()} },
		"a part as well":           func(s *Slot) { s.Part = exampleSlot().Part },
		"another slot's number":    func(s *Slot) { s.Slot++ },
		"a slot below 0":           func(s *Slot) { s.Slot = -1 },
		"another segment":          func(s *Slot) { s.Segment = "000001" },
		"what is no segment":       func(s *Slot) { s.Segment = "-1" },
		"a usage below 0":          func(s *Slot) { s.Usage.Open = -1 },
	})
	strict(t, "slot", map[string]func(*Slot){
		"neither":  func(s *Slot) { s.Part = nil },
		"no lanes": func(s *Slot) { s.Part.Lanes = nil },
		"another backup's shard": func(s *Slot) {
			s.Part.Shard.Name = Backup{examplePlan().Table, NewBackupID(day, "y")}.Shard(s.Segment, "aa")
		},
		"another segment's shard": func(s *Slot) {
			s.Part.Shard.Name = Backup{examplePlan().Table, examplePlan().Backup}.Shard("000000", "aa")
		},
		"another backup's shard and index": func(s *Slot) {
			s.Part.Shard.Name = Backup{examplePlan().Table, NewBackupID(day, "y")}.Shard(s.Segment, "aa")
			s.Part.Index.Name = Index(s.Part.Shard.Name)
		},
		"another segment's shard and index": func(s *Slot) {
			s.Part.Shard.Name = Backup{examplePlan().Table, examplePlan().Backup}.Shard("000000", "aa")
			s.Part.Index.Name = Index(s.Part.Shard.Name)
		},
		"another index":           func(s *Slot) { s.Part.Index.Name += "x" },
		"a size below 0":          func(s *Slot) { s.Part.Shard.Bytes = -1 },
		"a short digest":          func(s *Slot) { s.Part.Shard.SHA256 = s.Part.Shard.SHA256[1:] },
		"a checksum of no kind":   func(s *Slot) { s.Part.Shard.Checksum = "00000000" },
		"fewer rows walked":       func(s *Slot) { s.Part.Walked-- },
		"rows below 0":            func(s *Slot) { s.Part.Rows, s.Part.Walked, s.Part.Lanes[0].Rows = -1, -1, -1 },
		"other rows in the lanes": func(s *Slot) { s.Part.Lanes[0].Rows-- },
		"a lane that goes back":   func(s *Slot) { l := &s.Part.Lanes[0]; l.From, l.Next = l.Next, l.From },
		"rows in an empty lane":   func(s *Slot) { s.Part.Lanes[0].Next = s.Part.Lanes[0].From },
		"lanes that overlap": func(s *Slot) {
			s.Part.Lanes = append(s.Part.Lanes, Lane{s.Part.Lanes[0].From, s.Part.Lanes[0].Next, 0})
		},
		"an end before the first": func(s *Slot) { s.Part.Latest = s.Part.First.Add(-time.Second) },
		"one date":                func(s *Slot) { s.Part.First = time.Time{} },
		"raw bytes below 0":       func(s *Slot) { s.Part.RawBytes = -1 },
		"an unknown brake":        func(s *Slot) { s.Part.Pace = &Pace{Reason: "mood"} },
	})
	strict(t, "group", map[string]func(*Group){
		"other totals":             func(g *Group) { g.Totals.Rows++; g.Totals.Walked++ },
		"another group":            func(g *Group) { g.Group = 1 },
		"another group's segment":  func(g *Group) { g.Segments[0].Segment.ID = "000256" },
		"another segment's slot":   func(g *Group) { g.Segments[0].Slots[0].Segment = "000000" },
		"a slot in another place":  func(g *Group) { g.Segments[0].Slots[0].Slot = 1 },
		"a segment without bounds": func(g *Group) { g.Segments[0].Segment.Bounds = nil },
		"a slot that is neither":   func(g *Group) { g.Segments[0].Slots[0].Part = nil },
		"a shard of another backup's": func(g *Group) {
			g.Segments[0].Slots[0].Part.Shard.Name = Backup{examplePlan().Table, NewBackupID(day, "y")}.Shard("000001", "aa")
		},
	})
	strict(t, "manifest", map[string]func(*Manifest){
		"no plan":     func(m *Manifest) { m.Plan = nil },
		"no groups":   func(m *Manifest) { m.Groups = nil },
		"no segments": func(m *Manifest) { m.Segments = 0 },
		"another backup's plan": func(m *Manifest) {
			m.Plan = &Object{Backup{m.Table, NewBackupID(day, "y")}.Plan(), 1, m.Plan.SHA256, ""}
		},
		"another table's roll-up":  func(m *Manifest) { m.Groups[0].Name = Backup{TableID{"local", "prod", "other"}, m.Backup}.Group(0) },
		"another order":            func(m *Manifest) { m.Groups = append(m.Groups, m.Groups[0]) },
		"another state":            func(m *Manifest) { m.State = "sealee" },
		"another kind":             func(m *Manifest) { m.Kind = "gull" },
		"no instant":               func(m *Manifest) { m.Sealed = time.Time{} },
		"an instant elsewhere":     func(m *Manifest) { m.Sealed = m.Sealed.In(time.FixedZone("", 3600)) },
		"neither fuzzy nor exact":  func(m *Manifest) { m.Fuzzy = false },
		"fuzzy and exact":          func(m *Manifest) { m.ConsistentAt = &m.Sealed },
		"a reason":                 func(m *Manifest) { m.Reason = "r" },
		"rows that nobody walked":  func(m *Manifest) { m.Totals.Walked-- },
		"stored bytes below 0":     func(m *Manifest) { m.Totals.StoredBytes = -1 },
		"more objects than parts":  func(m *Manifest) { m.Totals.Objects++ },
		"another table":            func(m *Manifest) { m.Table.Table = "other" },
		"a table that is a path":   func(m *Manifest) { m.Table.Table = "a/b" },
		"a parent without a hash":  func(m *Manifest) { m.Parent = &Parent{Backup: m.Backup} },
		"requests fewer than none": func(m *Manifest) { m.Usage.Create = -1 },
	})
	strict(t, "proof", map[string]func(*Proof){
		"another verdict":           func(p *Proof) { p.Verdict = OK },
		"no verdict":                func(p *Proof) { p.Verdict = "" },
		"another restore":           func(p *Proof) { p.Restore = NewRestoreID(day, "y") },
		"another depth":             func(p *Proof) { p.Depth = "deep" },
		"rows below 0":              func(p *Proof) { p.Check.Rows = -1 },
		"more differences":          func(p *Proof) { p.Check.Differences = append(p.Check.Differences, p.Check.Differences[0]) },
		"a difference of no kind":   func(p *Proof) { p.Check.Differences[0].Kind = "odd" },
		"an infinite key":           func(p *Proof) { p.Check.Differences[0].Key[0] = table.Max() },
		"another backup's manifest": func(p *Proof) { p.Manifest.Name = Backup{p.Table, NewBackupID(day, "y")}.Manifest() },
	})
}

// TestTellsOfAnotherPlace forges each document under another name, its envelope too: what
// is in it tells where it should stand.
func TestTellsOfAnotherPlace(t *testing.T) {
	for example, d := range examples() {
		switch d.(type) {
		case *Claim, *Quarantine:
			continue // their names have a number, or a random text, that is not in them
		}
		name := placeOf(d)
		at := len(strings.TrimSuffix(name, ".json")) - 1
		other := name[:at] + string(name[at]^1) + name[at+1:]
		err := Decode(other, forged(t, other, d), fresh(d))
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "it tells of what stands under") {
			t.Errorf("%s of %s under %s: %v", example, name, other, err)
		}
	}
	strict(t, "restore-plan", map[string]func(*RestorePlan){
		"another backup's manifest": func(p *RestorePlan) { p.Manifest.Name = ManifestName(p.Source, NewBackupID(day, "y")) },
	})
	strict(t, "answer", map[string]func(*Answer){
		"another restore's proof": func(a *Answer) { a.Proof = Restore{NewRestoreID(day, "y")}.Proof() },
	})
}

// TestClipped: a text that is longer than a document may hold is cut when it is written,
// also within a character, and what is no UTF-8 is written as what is read.
func TestClipped(t *testing.T) {
	for _, text := range []string{string(make([]byte, 100<<10)), "\xff\xfe", string([]byte{'e', 0xc3}), "x" + strings.Repeat("ü", 50<<10)} {
		n := &Note{Segment: "000001", Start: 2, Began: day, Until: day.Add(time.Minute), Error: text}
		name := placeOf(n)
		data, err := Encode(name, n)
		if err != nil {
			t.Fatal(err)
		}
		var back Note
		if err := Decode(name, data, &back); err != nil || len(back.Error) > maxText || back.Error == "" || n.Error != text {
			t.Errorf("%d bytes become %d: %v", len(text), len(back.Error), err)
		}
	}
}
