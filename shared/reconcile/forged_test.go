package reconcile_test

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/backup/coverage"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// begun is a world with a backup whose segments were dispatched and not begun.
func begun(t *testing.T) (*vaulttest.World, vault.Backup, *vault.Plan) {
	t.Helper()
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 60)
	w.Tick(vaulttest.Hourly)
	work := w.Drain()[0]
	b := vault.Backup{Table: work.Table, ID: work.Backup}
	plan, _, err := w.Repo.Plan(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return w, b, plan
}

// voided has the next backup be due: the tick says what is wrong with the one that was
// begun, which is given up, and the next one is sealed.
func voided(t *testing.T, w *vaulttest.World, what string) {
	t.Helper()
	w.Advance(time.Hour)
	if reply := w.Tick(vaulttest.Hourly); !vaulttest.Said(reply, what) {
		t.Errorf("nothing is said: %+v", reply)
	}
	w.Work()
	w.Tick(vaulttest.Hourly)
	want(t, begunOf(w, "orders"), []string{"02:00 void", "03:00 sealed"})
}

// TestForgedSlots has the key of export in a thief's hand: slots whose checksums are
// right, and that can't be. No tick ends otherwise than with a report, and nothing is
// sealed.
func TestForgedSlots(t *testing.T) {
	key := table.Key{table.String("m"), table.Min(), table.Min()}
	for what, forge := range map[string]func(b vault.Backup, s vault.Segment, slot *vault.Slot){
		"a child without bounds": func(_ vault.Backup, s vault.Segment, slot *vault.Slot) {
			slot.Split.Children = []vault.Segment{{ID: s.ID.Child(0)}}
		},
		"no children": func(_ vault.Backup, _ vault.Segment, slot *vault.Slot) { slot.Split.Children = nil },
		"a child of another": func(_ vault.Backup, s vault.Segment, slot *vault.Slot) {
			slot.Split.Children = []vault.Segment{{ID: "000009.00", Bounds: s.Bounds}}
		},
		"a child without an id": func(_ vault.Backup, s vault.Segment, slot *vault.Slot) {
			slot.Split.Children = []vault.Segment{{ID: "-1", Bounds: s.Bounds}}
		},
		"bounds out of order": func(_ vault.Backup, s vault.Segment, slot *vault.Slot) {
			slot.Split.Children = []vault.Segment{{ID: s.ID.Child(0), Bounds: []table.Key{key, key}}}
		},
		"bounds of no column": func(_ vault.Backup, s vault.Segment, slot *vault.Slot) {
			slot.Split.Children = []vault.Segment{{ID: s.ID.Child(0), Bounds: []table.Key{{}, {}}}}
		},
		"bounds of one column": func(_ vault.Backup, s vault.Segment, slot *vault.Slot) {
			slot.Split.Children = []vault.Segment{{ID: s.ID.Child(0), Bounds: []table.Key{key[:1], key}}}
		},
		"no lanes closed":        func(_ vault.Backup, s vault.Segment, slot *vault.Slot) { slot.Split.Closed = nil },
		"neither part nor split": func(_ vault.Backup, _ vault.Segment, slot *vault.Slot) { slot.Split = nil },
		"a part of no lanes":     func(_ vault.Backup, _ vault.Segment, slot *vault.Slot) { slot.Split, slot.Part = nil, &vault.Part{} },
		"a part of another's shard": func(b vault.Backup, s vault.Segment, slot *vault.Slot) {
			other := b
			other.ID = vault.NewBackupID(vaulttest.Day, "other")
			shard := vaulttest.Named(other.Shard(s.ID, "aa"))
			slot.Split, slot.Part = nil, &vault.Part{Shard: shard, Index: vaulttest.Named(vault.Index(shard.Name)), Lanes: []vault.Lane{{From: s.Bounds[0], Next: s.Bounds[1]}}}
		},
	} {
		t.Run(what, func(t *testing.T) {
			w, b, plan := begun(t)
			s := plan.Segments[0]
			slot := &vault.Slot{Segment: s.ID, Split: &vault.Split{Children: []vault.Segment{{ID: s.ID.Child(0), Bounds: s.Bounds}}}}
			for _, lane := range s.Lanes() {
				slot.Split.Closed = append(slot.Split.Closed, lane.Start)
			}
			forge(b, s, slot)
			name := b.Log().Slot(s.ID, 0)
			if _, err := w.Store.Create(t.Context(), name, bytes.NewReader(vaulttest.Forge(name, slot))); err != nil {
				t.Fatal(err)
			}
			for _, s := range plan.Segments {
				if err := w.Repo.Mark(t.Context(), b.Log().Done(s.ID)); err != nil {
					t.Fatal(err)
				}
			}
			reply, err := w.Reconciler(vaulttest.Hourly).Tick(t.Context(), w.Run(), w.Clock())
			if err == nil && !vaulttest.Said(reply, "corrupt") && (len(reply.Backups) == 0 || !strings.Contains(reply.Backups[0].Progress.LastError, "corrupt")) {
				t.Errorf("nothing is said: %+v", reply)
			}
			if sealed, err := w.Repo.Exists(t.Context(), b.Manifest()); err != nil || sealed {
				t.Errorf("it is sealed: %v", err)
			}
		})
	}
}

// TestHugeNote: a note of 100 MB, which the role of export may write, costs a tick no
// more than any other one.
func TestHugeNote(t *testing.T) {
	w, b, plan := begun(t)
	s := plan.Segments[0].ID
	run := w.Run()
	if _, err := w.Repo.Create(t.Context(), b.Log().Start(s, 0), &vault.Note{Segment: s, Began: run.Now(), Until: run.Until}); err != nil {
		t.Fatal(err)
	}
	name := b.Log().Failure(s, 0)
	if _, err := w.Store.Create(t.Context(), name, bytes.NewReader(make([]byte, 100<<20))); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	reply, err := w.Reconciler(vaulttest.Hourly).Tick(t.Context(), w.Run(), w.Clock())
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	if len(reply.Backups) != 1 || !strings.Contains(reply.Backups[0].Progress.LastError, name) {
		t.Errorf("nothing is said of %s: %+v", name, reply)
	}
	if grew := (after.TotalAlloc - before.TotalAlloc) >> 20; grew > 16 {
		t.Errorf("the tick has allocated %d MiB", grew)
	}
}

// TestForgedNumbers has names of starts that nobody makes: they keep the segment from
// nothing. After a start of the greatest number none can be begun; so the backup has
// failed, and the rule begins the next when that is due.
func TestForgedNumbers(t *testing.T) {
	for _, name := range []string{"5.json", "0000005.json", "000005", "-00005.json", "+00005.json", "1000000.json", "9223372036854775807.json"} {
		w, b, plan := begun(t)
		log, s := b.Log(), plan.Segments[0].ID
		for _, folder := range []string{log.Starts(s), log.Failures(s), log.Slots(s)} {
			put(t, w, folder+name, "{}")
		}
		w.Tick(vaulttest.Hourly)
		w.Work()
		w.Tick(vaulttest.Hourly)
		if sealed, err := w.Repo.Exists(t.Context(), b.Manifest()); err != nil || !sealed {
			t.Errorf("%s keeps the backup from being sealed: %v", name, err)
		}
	}
	w, b, plan := begun(t)
	s := plan.Segments[0].ID
	if _, err := w.Repo.Create(t.Context(), b.Log().Start(s, vault.MaxNumber), &vault.Note{Segment: s, Start: vault.MaxNumber, Began: w.Clock(), Until: w.Clock()}); err != nil {
		t.Fatal(err)
	}
	voided(t, w, "too many starts")
}

// TestForgedSplitMark has the mark of a split that no log bears out: its children are
// none that a worker finds. The backup has failed, and the rule begins the next.
func TestForgedSplitMark(t *testing.T) {
	w, b, plan := begun(t)
	put(t, w, b.Log().Split(plan.Segments[0].ID, 2), "")
	w.Tick(vaulttest.Hourly)
	w.Work()
	// A child may not have begun yet: no log is read for that.
	if reply := w.Tick(vaulttest.Hourly); vaulttest.Said(reply, "is marked as split") {
		t.Errorf("it is looked at too early: %+v", reply)
	}
	want(t, begunOf(w, "orders"), []string{"02:00 open"})
	voided(t, w, "is marked as split into 2, and its log is not")
}

// TestForgedSums has parts whose counts are more than can be counted, or that were read
// in the far future: the backup is not sealed, and the rule goes on with the next.
func TestForgedSums(t *testing.T) {
	for what, forge := range map[string]func(*vault.Part){
		"more than there can be": func(p *vault.Part) { p.ReadUnits, p.RawBytes = 1<<62, 1<<62 },
		"still to come": func(p *vault.Part) {
			p.First = time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
			p.Latest = p.First
		},
	} {
		t.Run(what, func(t *testing.T) {
			w, b, plan := begun(t)
			s := plan.Segments[0]
			l := coverage.NewSegmentLog(s)
			for slot := range 2 {
				part := &vault.Part{Last: slot == 1}
				for i, lane := range s.Lanes() {
					to := lane.End
					if slot == 0 && i > 0 {
						to = lane.Start
					}
					part.Lanes = append(part.Lanes, vault.Lane{From: l.Next[i], Next: to})
				}
				for i, name := range []string{b.Shard(s.ID, fmt.Sprint("a", slot)), vault.Index(b.Shard(s.ID, fmt.Sprint("a", slot)))} {
					info, err := w.Store.Create(t.Context(), name, strings.NewReader("x"))
					if err != nil {
						t.Fatal(err)
					}
					o := vaulttest.Named(name)
					o.Checksum = info.Checksum
					*[]*vault.Object{&part.Shard, &part.Index}[i] = o
				}
				forge(part)
				entry := &vault.Slot{Segment: s.ID, Slot: slot, Part: part}
				if err := l.Add(entry); err != nil {
					t.Fatal(err)
				}
				if _, err := w.Repo.Create(t.Context(), b.Log().Slot(s.ID, slot), entry); err != nil {
					t.Fatal(err)
				}
			}
			for _, s := range plan.Segments {
				if err := w.Repo.Mark(t.Context(), b.Log().Done(s.ID)); err != nil {
					t.Fatal(err)
				}
			}
			voided(t, w, what)
		})
	}
}
