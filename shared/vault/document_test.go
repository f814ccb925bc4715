package vault

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/table"
)

var update = flag.Bool("update", false, "write the golden files anew")

var day = time.Date(2026, 11, 20, 2, 14, 0, 0, time.UTC)

func examplePlan() *Plan {
	id := TableID{"local", "prod", "orders"}
	schema := table.Schema{{Name: "user", Type: table.StringKey}, {Name: "id", Type: table.IntegerKey, AutoIncrement: true}}
	mid := table.Key{table.String("m<&>"), table.Min()}
	whole := schema.Whole()
	return &Plan{
		Backup: NewBackupID(day, "manual", id.Path(), "full"), Table: id, Kind: Full, Created: day, Trigger: "manual",
		Command: "0.1.0", Endpoint: "http://127.0.0.1:1",
		Definition: table.Definition{
			Name: "orders", Schema: schema,
			Options:        table.Options{TTL: table.NoTTL, MaxVersions: 3, Deviation: 86400, AllowUpdate: true},
			DefinedColumns: []table.DefinedColumn{{Name: "c", Type: "double"}},
			Indexes:        []table.Index{{Name: "by_c", Key: []string{"c", "user", "id"}, Type: "global", Ready: true, Raw: []byte{1, 2}}},
			Stream:         &table.Stream{ID: "s", ExpirationHours: 24},
		},
		Settings:   Settings{SegmentBytes: 1 << 20, Lanes: 2, PartBytes: 1 << 20},
		Encryption: Encryption{Mode: "none"},
		Segments: []Segment{
			{ID: NewSegmentID(0), Bounds: []table.Key{whole.Start, {table.String("a"), table.Integer(-1)}, mid}},
			{ID: NewSegmentID(1), Bounds: []table.Key{mid, whole.End}},
		},
	}
}

func exampleSlot() *Slot {
	p := examplePlan()
	sha := strings.Repeat("0123456789abcdef", 4)
	b := Backup{p.Table, p.Backup}
	return &Slot{Segment: p.Segments[1].ID, Start: 1, Part: &Part{
		Shard: Object{Name: b.Shard(p.Segments[1].ID, "aa"), Bytes: 10, SHA256: sha, Checksum: "crc32c:00000000"},
		Index: Object{Name: Index(b.Shard(p.Segments[1].ID, "aa")), Bytes: 3, SHA256: sha, Checksum: "crc32c:00000000"},
		Rows:  2, Walked: 2, RawBytes: 99, ReadUnits: 1,
		Lanes: []Lane{{From: p.Segments[1].Bounds[0], Next: p.Segments[1].Bounds[1], Rows: 2}},
		First: day, Latest: day.Add(time.Second), Last: true,
	}}
}

func exampleDrill() *Drill {
	p := examplePlan()
	id := NewDrillID(p.Table, day)
	return &Drill{
		DrillID: id, Rule: "default", Backup: p.Backup, RecoveryPoint: day.Add(-40 * time.Minute),
		Target: TableID{"local", "staging", id.Target("drill")}, Request: id.Request(), Workers: 7, Began: day.Add(time.Minute), Until: day.Add(24 * time.Hour),
	}
}

func examples() map[string]Document {
	p := examplePlan()
	slot := exampleSlot()
	b := Backup{p.Table, p.Backup}
	named := func(name string) Object { return Object{Name: name, Bytes: 1, SHA256: slot.Part.Shard.SHA256} }
	o, plan, group := named(b.Manifest()), named(b.Plan()), named(b.Group(0))
	restore := NewRestoreID(day, "x")
	proof := Restore{restore}.Proof()
	var totals Totals
	totals.AddPart(slot.Part)
	used := object.Usage{Create: 5, Open: 4, Stat: 3, List: 2, Delete: 1, Written: 60, Read: 50}
	usedSlot := *slot
	usedSlot.Usage = used
	drill := exampleDrill()
	target := p.Definition
	target.Name = "copy"
	copied := TableID{"local", "prod", "copy"}
	return map[string]Document{
		"vault": &Header{ID: "0123456789abcdef0123456789abcdef", Created: day, Seed: 0xfeed, Signers: []string{}},
		"plan":  p,
		"slot":  slot,
		"split": &Slot{Segment: p.Segments[0].ID, Slot: 1, Split: &Split{
			Closed:   []table.Key{p.Segments[0].Bounds[1], p.Segments[0].Bounds[1]},
			Children: []Segment{{ID: p.Segments[0].ID.Child(0), Bounds: []table.Key{p.Segments[0].Bounds[1], p.Segments[0].Bounds[2]}}},
		}},
		"note":  &Note{Segment: "000001", Start: 2, Request: "r", Began: day, Until: day.Add(time.Minute), Error: "e", Permanent: true},
		"group": &Group{Segments: []SegmentLog{{Segment: p.Segments[1], Slots: []Slot{*slot}}}, Totals: totals},
		"manifest": &Manifest{Backup: p.Backup, Table: p.Table, Kind: Full, State: Sealed, Sealed: day, Plan: &plan, Groups: []Object{group},
			Totals: totals, Segments: 2, Fuzzy: true},
		"void": &Manifest{Backup: p.Backup, Table: p.Table, Kind: Full, State: Void, Sealed: day, Reason: "given up"},
		"restore-plan": &RestorePlan{Restore: NewRestoreID(day, "x"), Created: day, Backup: p.Backup, Manifest: o, Source: p.Table,
			Target: copied, Definition: target, Segments: []RestoreSegment{{ID: "000001", Rows: 2}}},
		"loaded":        &Loaded{Segment: "000001", Rows: 2, Last: true},
		"quarantine":    &Quarantine{Segment: "000001", Rows: []Refused{{Key: p.Segments[0].Bounds[1], Row: []byte{1}, Code: "c", Reason: "r"}}},
		"note-in-doubt": &Note{Segment: "000001", Start: 2, Began: day, Until: day.Add(time.Minute), Error: "e", InDoubt: true},
		"made": &Made{
			Restore: NewRestoreID(day, "x"), Target: TableID{"local", "prod", "copy"}, Identity: table.Identity{Created: 1_795_140_840_000_000, ID: "i"},
			Options: table.Options{TTL: table.NoTTL, MaxVersions: 5, Deviation: table.WidestDeviation, AllowUpdate: true},
		},
		"made-nameless": &Made{Restore: NewRestoreID(day, "x"), Target: TableID{"local", "prod", "copy"}, Options: table.Options{TTL: table.NoTTL, MaxVersions: 1}},
		"check-at":      &SegmentCheck{Segment: "000001", Check: Check{Rows: 2}, At: day},
		"closed":        &Closed{Restore: NewRestoreID(day, "x"), At: day},
		"claim":         &Claim{Restore: NewRestoreID(day, "x"), Backup: p.Backup, At: day},
		"proof": &Proof{Backup: p.Backup, Table: p.Table, Restore: restore, Depth: "rows", At: day, Verdict: Differs, Manifest: o,
			Check: Check{Rows: 2, Missing: 1, Differences: []Difference{{Kind: "missing", Key: p.Segments[0].Bounds[1]}}}},
		"accepted": &Accepted{Request: "requests/a.json", Restore: NewRestoreID(day, "x"), Backup: p.Backup, Table: p.Table, Target: copied, At: day},
		"answer": &Answer{Request: "requests/a.json", At: day, OK: true, Restore: NewRestoreID(day, "x"), Backup: p.Backup, Table: "prod/orders",
			Target: "prod/copy", Rows: 2, Verdict: OK, Proof: proof, Notes: []string{"n"}},
		"refused": &Answer{Request: "requests/a.json", At: day, Error: "e"},
		"mark":    &Mark{Backup: p.Backup, Table: p.Table, At: day, Command: "0.1.0", Reason: "older than 72 hours"},
		"ask":     &Ask{Segment: "000001.02", Children: 8, At: day},
		"copied": &Copied{Backup: p.Backup, Table: p.Table, Group: 1, Record: 2, Manifest: slot.Part.Shard.SHA256,
			Objects: []Object{slot.Part.Shard, slot.Part.Index}, Last: true},
		"copy-note": &CopyNote{Backup: p.Backup, Table: p.Table, Replica: "s3://other/vault", At: day, Objects: 4, Bytes: 13,
			Manifest: slot.Part.Shard.SHA256},
		"copying":  &Note{Segment: "000256", Start: 1, Request: "r", Began: day, Until: day.Add(time.Minute), Replica: "s3://other/vault", Rate: 1 << 20},
		"replaced": &SegmentCheck{Segment: "000001", Check: Check{Rows: 2, SizeOnly: 1, Replaced: []Finding{{Object: o.Name, Reason: "r"}}}},
		"restore-also": &RestorePlan{Restore: NewRestoreID(day, "y"), Created: day, Backup: p.Backup, Manifest: o, Source: p.Table,
			Target: copied, Definition: target, Replicas: []string{"0123456789abcdef"}},
		"restore-paced": &RestorePlan{Restore: NewRestoreID(day, "z"), Created: day, Backup: p.Backup, Manifest: o, Source: p.Table,
			Target: copied, Definition: target, Budget: Budget{ReadUnits: 800, WriteUnits: 500}, Loaders: 10, Comparers: 2},
		"accepted-paced": &Accepted{Request: "requests/a.json", Restore: NewRestoreID(day, "x"), Backup: p.Backup, Table: p.Table, Target: copied, At: day,
			Budget: Budget{WriteUnits: 500}},
		"check-settled": &SegmentCheck{Segment: "000001", Check: Check{Rows: 2}, Settled: true},
		"compared": &Compared{Segment: "000001", Slot: 1, Start: 2, Compared: []int{0, 3}, Check: Check{Rows: 2},
			Pace: &Pace{Reason: PacedByBudget, ReadUnits: 8, WaitedMS: 7}, Usage: used},
		"checked-group": &CheckedGroup{Group: 1, Check: Check{Rows: 2}, Unsettled: []SegmentID{"000256"}, Usage: used, Latest: day},
		"check-paced":   &SegmentCheck{Segment: "000001", Check: Check{Rows: 2}, Pace: &Pace{Reason: PacedByService, ReadUnits: 99.5, WaitedMS: 7, Throttled: 3}},
		"proof-paced": &Proof{Backup: p.Backup, Table: p.Table, Restore: restore, Depth: "rows", At: day, Verdict: OK, Manifest: o,
			Pace: &Pace{Reason: PacedByBudget, ReadUnits: 800, WaitedMS: 7}},
		"check":      &SegmentCheck{Segment: "000001", Check: Check{Rows: 2}},
		"slot-used":  &usedSlot,
		"group-used": &Group{Segments: []SegmentLog{{Segment: p.Segments[1], Slots: []Slot{usedSlot}}}, Totals: totals, Usage: used},
		"manifest-used": &Manifest{Backup: p.Backup, Table: p.Table, Kind: Full, State: Sealed, Sealed: day, Plan: &plan, Groups: []Object{group},
			Totals: totals, Segments: 2, Fuzzy: true, Usage: used},
		"loaded-used": &Loaded{Segment: "000001", Rows: 2, Last: true, Usage: used},
		"check-used":  &SegmentCheck{Segment: "000001", Check: Check{Rows: 2}, Usage: used},
		"drill":       drill,
		"drill-end": &DrillEnd{Drill: *drill, Ended: day.Add(12 * time.Minute), OK: true, Restore: NewRestoreID(day, "x"), Rows: 2,
			Proof: Restore{ID: NewRestoreID(day, "x")}.Proof(), Verdict: OK, Notes: []string{"n"}},
		"drill-failed": &DrillEnd{Drill: *drill, Ended: day.Add(12 * time.Minute), Error: "e", Restore: restore, Quarantined: 1},
		"drill-drop":   &DrillDrop{DrillID: drill.DrillID, Target: drill.Target, Restore: NewRestoreID(day, "x"), At: day.Add(time.Hour)},
		"drill-left":   &DrillDrop{DrillID: drill.DrillID, Target: drill.Target, At: day.Add(time.Hour), Left: "nothing was made"},
		"proof-used":   &Proof{Backup: p.Backup, Table: p.Table, Restore: restore, Depth: "read", At: day, Verdict: OK, Manifest: o, Usage: used},
	}
}

// placeOf is the name that an example stands under.
func placeOf(d Document) string {
	p := examplePlan()
	b, r := Backup{p.Table, p.Backup}, Restore{NewRestoreID(day, "x")}
	switch d := d.(type) {
	case *Header:
		return HeaderName
	case *Plan:
		return b.Plan()
	case *Slot:
		return b.Log().Slot(d.Segment, d.Slot)
	case *Group:
		return b.Group(d.Group)
	case *Manifest:
		return b.Manifest()
	case *Note:
		if d.Replica != "" {
			return b.Copying(place.Key(d.Replica)).Start(d.Segment, d.Start)
		}
		return b.Log().Failure(d.Segment, d.Start)
	case *Ask:
		return b.Log().Ask(d.Segment)
	case *RestorePlan:
		return Restore{d.Restore}.Plan()
	case *Loaded:
		return r.Log().Slot(d.Segment, d.Slot)
	case *Quarantine:
		return r.Quarantine(d.Segment, "aa")
	case *Closed:
		return r.Closed()
	case *Claim:
		return ClaimName(p.Table, 0)
	case *Made:
		return r.Created()
	case *Proof:
		return r.Proof()
	case *SegmentCheck:
		return r.Check(d.Segment)
	case *Compared:
		return r.Verify().Slot(d.Segment, d.Slot)
	case *CheckedGroup:
		return r.Group(d.Group)
	case *Accepted:
		return AcceptedName(d.Request)
	case *Answer:
		return AnswerName(d.Request)
	case *Mark:
		return b.Mark()
	case *Copied:
		return b.Copied(d.Group, d.Record)
	case *CopyNote:
		return b.CopyNote(place.Key(d.Replica))
	case *Drill:
		return d.Begun()
	case *DrillEnd:
		return d.Drill.Ended()
	case *DrillDrop:
		return d.Dropped()
	}
	panic(fmt.Sprintf("%T", d))
}

// fresh is an empty document of the same type.
func fresh(d Document) Document {
	return reflect.New(reflect.TypeOf(d).Elem()).Interface().(Document)
}

// TestGolden holds today's bytes of every document against those that were written
// before: they are what vaults hold.
func TestGolden(t *testing.T) {
	for name, d := range examples() {
		t.Run(name, func(t *testing.T) {
			data, err := Encode(placeOf(d), d)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", "v2", name+".json")
			if *update {
				if err := os.WriteFile(file, data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(data, want) {
				t.Errorf("%s is written as\n%s\nit was\n%s", name, data, want)
			}
			again := fresh(d)
			if err := Decode(placeOf(d), want, again); err != nil {
				t.Fatal(err)
			}
			if back, err := Encode(placeOf(again), again); err != nil || !bytes.Equal(back, want) {
				t.Errorf("%s decodes to another document: %v\n%s", name, err, back)
			}
		})
	}
}

// resealed gives a document that was changed the checksum of what it is now: it is
// forged, not damaged.
func resealed(document string) []byte {
	signed := document
	if at := len(document) - sumTail; at >= 0 && strings.HasPrefix(document[at:], sumIntro) {
		signed = document[:at]
	}
	return fmt.Appendf(nil, "%s%s%x%s", signed, sumIntro, sha256.Sum256([]byte(signed)), sumOutro)
}

func TestDecodeIsStrict(t *testing.T) {
	b := Backup{examplePlan().Table, examplePlan().Backup}
	data, err := Encode(b.Plan(), examplePlan())
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	replaced := func(from, to string) string { return strings.Replace(text, from, to, 1) }
	body := text[strings.Index(text, bodyIntro)+len(bodyIntro) : len(text)-sumTail]
	cases := []struct {
		name string
		data string
		want error // where its checksum is right
	}{
		{"unknown field", replaced(`"trigger"`, `"trigged"`), ErrCorrupt},
		{"another field's case", replaced(`"trigger"`, `"Trigger"`), ErrCorrupt},
		{"a field twice", replaced(`"trigger":"manual"`, `"trigger":"manual","trigger":"manual"`), ErrCorrupt},
		{"a field less", replaced(`"trigger":"manual",`, ``), ErrCorrupt},
		{"space", replaced(`"trigger":`, `"trigger": `), ErrCorrupt},
		{"another escape", replaced(`m<&>`, `m\u003c&>`), ErrCorrupt},
		{"more in the body", replaced(body, body+"{}"), ErrCorrupt},
		{"no name", replaced(nameIntro+`"`+b.Plan()+`"`, ""), ErrCorrupt},
		{"another name", replaced(`"name":"plans/`, `"name":"plan/`), ErrCorrupt},
		{"newer version", replaced(`"format":2`, `"format":3`), ErrVersion},
		{"the version before", replaced(`"format":2`, `"format":1`), ErrVersion},
		{"no version", replaced(`"format":2,`, ``), ErrVersion},
		{"other document", replaced(`"document":"plan"`, `"document":"slot"`), ErrCorrupt},
		{"gap between segments", replaced(`"m<&>"`, `"n"`), ErrCorrupt},
		{"wrong type in a bound", replaced(`{"string":"a"}`, `{"integer":1}`), ErrCorrupt},
		{"encrypted", replaced(`"mode":"none"`, `"mode":"age"`), ErrCorrupt},
		{"not in UTC", replaced(`"created":"2026-11-20T02:14:00Z"`, `"created":"2026-11-20T10:14:00+08:00"`), ErrCorrupt},
		{"another backup's", replaced(string(b.ID), "20261120T021500Z-7b0c98e6"), ErrCorrupt},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.data == text {
				t.Fatal("the case changes nothing")
			}
			if err := Decode(b.Plan(), resealed(c.data), new(Plan)); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if err := Decode(b.Plan(), []byte(c.data), new(Plan)); !errors.Is(err, ErrCorrupt) {
				t.Errorf("with the checksum of before: %v", err)
			}
		})
	}
	for what, data := range map[string]string{"empty": "", "cut": text[:len(text)/2], "more after it": text + "{}", "without its newline": text[:len(text)-1], "not checked": text[:len(text)-sumTail]} {
		if err := Decode(b.Plan(), []byte(data), new(Plan)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestUnreleased: what the format was before the first release is told by its name.
func TestUnreleased(t *testing.T) {
	for _, old := range []string{"{\"document\":\"vault\",\"format\":1,\"body\":{\"id\":\"v\",\"created\":\"2026-11-20T02:14:00Z\",\"digest_seed\":\"000000000000feed\",\"signers\":[]}}\n"} {
		err := Decode(HeaderName, []byte(old), new(Header))
		if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "never released") || !strings.Contains(err.Error(), "new vault") {
			t.Errorf("format 1: %v", err)
		}
	}
}

// TestRecordsAreStrict changes one thing at a time in the records of copies and of drills
// and in marks.
func TestRecordsAreStrict(t *testing.T) {
	sha := exampleSlot().Part.Shard.SHA256
	for _, c := range []struct{ document, from, to string }{
		{"copied", `"backup":"2026`, `"backup":"x2026`},
		{"copied", `"group":1`, `"group":-1`},
		{"copied", `"record":2`, `"record":-2`},
		{"copied", `"manifest":"` + sha, `"manifest":"` + sha[1:]},
		{"copied", `"sha256":"` + sha, `"sha256":"` + sha[1:]},
		{"copied", `"checksum":"crc32c:00000000"`, `"checksum":""`},
		{"copied", `"last"`, `"lost"`},
		{"copy-note", `"target":"s3://other/vault"`, `"target":""`},
		{"copy-note", `"manifest":"` + sha, `"manifest":"` + sha[1:]},
		{"copy-note", `"bytes"`, `"byte"`},
		{"mark", `"backup":"2026`, `"backup":"x2026`},
		{"mark", `"table":"local/prod/orders",`, ``},
		{"mark", `"table":"local/prod/orders"`, `"table":"prod/orders"`},
		{"mark", `"reason"`, `"reasons"`},
		{"drill", `"table":"local/prod/orders",`, ``},
		{"drill", `"due":"2026-11-20T02:14:00Z"`, `"due":"2026-11-20T02:14:00.5Z"`},
		{"drill", `"due":"2026-11-20T02:14:00Z"`, `"due":"2026-11-20T10:14:00+08:00"`},
		{"drill", `"backup":"2026`, `"backup":"x2026`},
		{"drill", `"target":"local/staging/`, `"target":"`},
		{"drill", `"request":"drill-requests/`, `"request":"drills/requests/`},
		{"drill", `"workers":7`, `"workers":0`},
		{"drill-end", `"ok":true`, `"ok":false`},
		{"drill-end", `"verdict":"ok"`, `"verdict":"differs"`},
		{"drill-end", `"restore":"2026`, `"restore":"x2026`},
		{"drill-end", `"backup":"2026`, `"backup":"x2026`},
		{"drill-failed", `"error":"e"`, `"error":""`},
		{"drill-drop", `"target":"local/staging/`, `"target":"`},
		{"drill-left", `"left"`, `"lost"`},
	} {
		d := examples()[c.document]
		data, err := Encode(placeOf(d), d)
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.Replace(string(data), c.from, c.to, 1)
		if changed == string(data) {
			t.Fatalf("%s: %s changes nothing", c.document, c.from)
		}
		if err := Decode(placeOf(d), resealed(changed), fresh(d)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s with %s: %v", c.document, c.to, err)
		}
	}
}

// FuzzDecode forges the body of a document of each kind, with the right head and the
// right checksum: what is read is what would be written, and nothing panics.
func FuzzDecode(f *testing.F) {
	type place struct {
		name string
		of   Document
		head []byte
	}
	var places []place
	all := examples()
	for _, example := range slices.Sorted(maps.Keys(all)) {
		d := all[example]
		name := placeOf(d)
		data, err := Encode(name, d)
		if err != nil {
			f.Fatal(err)
		}
		before, err := head(d, name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(len(places)), data[len(before):len(data)-sumTail])
		places = append(places, place{name, d, before})
	}
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		at := places[int(which)%len(places)]
		forged := resealed(string(at.head) + string(body))
		d := fresh(at.of)
		if Decode(at.name, forged, d) != nil {
			return
		}
		if once, err := Encode(at.name, d); err != nil || !bytes.Equal(once, forged) {
			t.Fatalf("is read, and is written otherwise: %v\n%s\n%s", err, forged, once)
		}
	})
}

// TestSealedBeforeItsRecoveryPoint refuses a manifest that was sealed long before the
// instant that it brings back: it would be the newest for ever.
func TestSealedBeforeItsRecoveryPoint(t *testing.T) {
	m := examples()["manifest"].(*Manifest)
	later := day.Add(ClocksApart)
	for _, after := range []time.Duration{0, time.Second} {
		m.Totals.First, m.Totals.Latest = later.Add(after), later.Add(after)
		if _, err := Encode(placeOf(m), m); (err == nil) != (after == 0) {
			t.Errorf("%s after the clocks can be apart: %v", after, err)
		}
	}
}

func TestNames(t *testing.T) {
	p := examplePlan()
	b := Backup{p.Table, p.Backup}
	if got, ok := ParseManifestName(b.Manifest()); !ok || got != b {
		t.Errorf("manifest name %s parses to %v %v", b.Manifest(), got, ok)
	}
	if _, ok := ParseManifestName(SignatureName(b.Manifest())); ok {
		t.Error("a signature's name parses as a manifest's")
	}
	if got, ok := ParseOpened(Opened(p.Table, p.Backup)); !ok || got != b {
		t.Errorf("opened mark parses to %v %v", got, ok)
	}
	if s := NewSegmentID(513).Child(3).Child(0); s != "000513.03.00" || s.Group() != 2 {
		t.Errorf("child %s of group %d", s, s.Group())
	}
	again := NewBackupID(day, "manual", p.Table.Path(), "full")
	if again != p.Backup {
		t.Errorf("one trigger makes two ids, %s and %s", again, p.Backup)
	}
	if later := NewBackupID(day.Add(time.Second), "a"); later <= p.Backup {
		t.Errorf("the later id %s sorts before %s", later, p.Backup)
	}
	for _, bad := range []string{"", "x", "../../etc", string(p.Backup) + "/", "20261120T021400Z-XXXXXXXX"} {
		if _, err := ParseBackupID(bad); err == nil {
			t.Errorf("backup id %q is accepted", bad)
		}
	}
	if s := GroupID(2); s.Group() != 2 || s != "000512" {
		t.Errorf("the first segment of group 2 is %s", s)
	}
	if back, target, ok := ParseCopyNote(b.CopyNote("0a1b")); !ok || back != b || target != "0a1b" {
		t.Errorf("%s parses to %v %v %v", b.CopyNote("0a1b"), back, target, ok)
	}
	if back, segment, ok := ParseShard(Index(b.Shard("000001.02", "aa"))); !ok || back != b || segment != "000001.02" {
		t.Errorf("an index parses to %v %v %v", back, segment, ok)
	}
	for _, bad := range []string{"", b.Plan(), b.Manifest(), b.Copied(0, 0), b.Copyings(), b.CopyNotes(), "x/" + b.CopyNote("0a1b")} {
		if _, _, ok := ParseCopyNote(bad); ok {
			t.Errorf("%q parses as a note about a copy", bad)
		}
		if _, _, ok := ParseShard(bad); ok {
			t.Errorf("%q parses as a shard", bad)
		}
	}
	for _, gone := range []bool{false, true} {
		name := map[bool]string{false: b.Mark(), true: b.Gone()}[gone]
		if back, is, ok := ParseMark(name); !ok || back != b || is != gone {
			t.Errorf("%s parses to %v %v %v", name, back, is, ok)
		}
	}
	copying := b.Copying("0a1b").Start("000000", 3)
	if back, target, ok := ParseCopying(copying); !ok || back != b || target != "0a1b" {
		t.Errorf("%s parses to %v %v %v", copying, back, target, ok)
	}
	for _, bad := range []string{"", b.Manifest(), b.Plan(), ClockPrefix + "0a1b", MarkPrefix + string(b.ID) + ".json", "x/" + b.Mark(), b.Mark() + ".json", strings.TrimSuffix(b.Mark(), ".json"), b.CopyNotes()} {
		if _, _, ok := ParseMark(bad); ok {
			t.Errorf("%q parses as a mark", bad)
		}
		if _, _, ok := ParseCopying(bad); ok {
			t.Errorf("%q parses as one that reports a copy", bad)
		}
	}
	for _, bad := range []string{"", "1", "000001.", "000001.1", "000001/.."} {
		if _, err := ParseSegmentID(bad); err == nil {
			t.Errorf("segment id %q is accepted", bad)
		}
	}
}
