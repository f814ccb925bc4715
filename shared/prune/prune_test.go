package prune_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/objectfault"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/prune"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

func decodePolicy(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Decode("tablevault.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// prunerOf goes by a policy, with the default grace.
func prunerOf(w *vaulttest.World, text string) *prune.Pruner {
	w.T.Helper()
	return &prune.Pruner{
		Repo: w.Repo, Policy: decodePolicy(w.T, text), Region: "local", Grace: prune.DefaultGrace, Now: w.Clock, Log: w.Log(),
	}
}

// pruned is a run that must succeed.
func pruned(w *vaulttest.World, text string) *prune.Report {
	w.T.Helper()
	return prunedBy(w, prunerOf(w, text), true)
}

func prunedBy(w *vaulttest.World, p *prune.Pruner, apply bool) *prune.Report {
	w.T.Helper()
	r, err := p.Prune(w.T.Context(), apply)
	if err == nil && len(r.Failures) > 0 {
		err = errors.New(strings.Join(r.Failures, "; "))
	}
	if err != nil {
		w.T.Fatal(err)
	}
	return r
}

// fake is a backup whose shards nobody reads. It stands in the vault as a sealed one
// does, by the world's clock.
type fake struct {
	vault.Backup
	point   time.Time
	content map[string]string // by name
}

// fakeOf makes a backup; point is its recovery point, a zero one makes it void.
func fakeOf(w *vaulttest.World, b vault.Backup, point time.Time, parent *vault.Parent) fake {
	w.T.Helper()
	f := fake{b, point, map[string]string{}}
	log := b.Log()
	names := []string{
		vault.Opened(b.Table, b.ID), b.Plan(), b.Group(0), log.Slot("000000", 0), log.Start("000000", 0), log.Done("000000"),
		b.Shard("000000", "aa"), vault.Index(b.Shard("000000", "aa")), b.Shard("000000", "orphan"),
	}
	for _, name := range names {
		f.content[name] = "content of " + name
	}
	m := vaulttest.SealedAt(b, w.Clock(), point)
	m.Parent = parent
	if point.IsZero() {
		m = &vault.Manifest{Backup: b.ID, Table: b.Table, Kind: vault.Full, State: vault.Void, Sealed: w.Clock(), Reason: "test"}
	}
	data, err := vault.Encode(b.Manifest(), m)
	if err != nil {
		w.T.Fatal(err)
	}
	f.content[b.Manifest()] = string(data)
	for _, name := range slices.Sorted(maps.Keys(f.content)) {
		if _, err := w.Store.Create(w.T.Context(), name, strings.NewReader(f.content[name])); err != nil {
			w.T.Fatal(err)
		}
	}
	return f
}

// restoreOf is the plan of a restore of a backup.
func restoreOf(id vault.RestoreID, m *vault.Manifest) *vault.RestorePlan {
	def := vaulttest.Definition()
	return &vault.RestorePlan{
		Restore: id, Created: vaulttest.Day, Backup: m.Backup, Manifest: vaulttest.Named(vault.ManifestName(m.Table, m.Backup)), Source: m.Table,
		Target: vault.TableID{Region: "local", Instance: "prod", Table: def.Name}, Definition: def,
	}
}

// hoursOf makes an hourly backup of a table for each of the last n hours, as the rule of
// a policy does; the world's clock stands behind them.
func hoursOf(w *vaulttest.World, text string, t vault.TableID, n int) []fake {
	w.T.Helper()
	rule := decodePolicy(w.T, text).Rules[0]
	var all []fake
	for range n {
		due := rule.Every.Due(w.Clock())
		all = append(all, fakeOf(w, rule.Backup(t, due), w.Clock(), nil))
		w.Advance(time.Hour)
	}
	return all
}

// wholeOf says whether all objects of a backup are there as they were written.
func wholeOf(w *vaulttest.World, f fake) error {
	for name, want := range f.content {
		data, err := object.ReadAll(w.T.Context(), w.Store, name, 1<<20)
		if err != nil {
			return err
		}
		if string(data) != want {
			return fmt.Errorf("%s is %q", name, data)
		}
	}
	return nil
}

// leftOf are the names of all objects of a backup, its mark included.
func leftOf(w *vaulttest.World, b vault.Backup) (names []string) {
	for name := range vaulttest.ContentOf(w.T, w.Store, "") {
		if strings.Contains(name, b.Table.Path()+"/"+string(b.ID)) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// action is what a run did with a backup.
func action(r *prune.Report, b vault.Backup) prune.BackupReport {
	for _, t := range r.Tables {
		for _, p := range t.Backups {
			if t.Table == b.Table.String() && p.Backup == b.ID {
				return p
			}
		}
	}
	return prune.BackupReport{}
}

// TestPrune follows the backups of a hundred hours, of which 72 are kept, from the dry
// run to the day on which their marks are gone.
func TestPrune(t *testing.T) {
	w := vaulttest.NewWorld(t)
	all := hoursOf(w, vaulttest.Hourly, vaulttest.SourceID, 100)
	before := vaulttest.ContentOf(t, w.Store, "")
	dry := prunedBy(w, prunerOf(w, vaulttest.Hourly), false)
	if after := vaulttest.ContentOf(t, w.Store, ""); !maps.Equal(before, after) || dry.Apply || dry.Deleted.Backups != 0 {
		t.Fatal("a dry run changes something")
	}
	// Those of more than 72 hours, but for the one that was the newest then.
	var due []fake
	for i, f := range all {
		a := action(dry, f.Backup)
		switch old := !f.point.After(w.Clock().Add(-72 * time.Hour)); {
		case !old && (a.Action != prune.Keep || i < 99 && !strings.Contains(a.Reason, "not older than 72 hours")),
			old && i == 28 && (a.Action != prune.Keep || !strings.Contains(a.Reason, "72 hours begin")),
			old && i < 28 && (a.Action != prune.Mark || a.Reason != "older than 72 hours" || a.Bytes != 1000):
			t.Errorf("backup %d: %+v", i, a)
		case old && i < 28:
			due = append(due, f)
		}
	}
	if len(due) != 28 || dry.Marked.Backups != 28 || dry.Marked.Bytes != 28_000 {
		t.Fatalf("%d are due; %+v", len(due), dry.Marked)
	}

	r := pruned(w, vaulttest.Hourly)
	if r.Marked.Backups != 28 || r.Deleted.Backups != 0 || !action(r, due[0].Backup).Done {
		t.Fatalf("%+v", r.Marked)
	}
	for _, f := range all {
		if err := wholeOf(w, f); err != nil {
			t.Error(err)
		}
	}
	if found, err := w.Repo.Latest(t.Context(), vaulttest.SourceID, due[27].point); err == nil {
		t.Errorf("%s is marked, and found", found.Backup)
	}
	if len(vaulttest.ContentOf(t, w.Store, vault.ClockPrefix)) != 0 {
		t.Error("what told the date is left")
	}

	w.Advance(prune.DefaultGrace - time.Second)
	r = pruned(w, "tables: prod/*\nevery: hourly\nkeep: 96 hours\nsegment_size: 1 MiB\nlanes: 3")
	if a := action(r, due[0].Backup); r.Deleted.Backups != 0 || r.Marked.Backups != 0 || a.Action != prune.Wait || a.Done {
		t.Errorf("before the grace is over: %+v, %+v", r.Deleted, a)
	}
	w.Advance(time.Second)
	dry = prunedBy(w, prunerOf(w, vaulttest.Hourly), false)
	if a := action(dry, due[0].Backup); a.Action != prune.Delete || a.Objects != 10 || a.Bytes == 0 || dry.Deleted.Backups != 28 {
		t.Errorf("%+v, %+v", a, dry.Deleted)
	}
	// Who keeps for longer by now keeps what is marked, too.
	r = pruned(w, strings.Replace(vaulttest.Hourly, "72 hours", "200 hours", 1))
	if a := action(r, due[0].Backup); r.Deleted.Backups != 0 || a.Action != prune.Keep || !strings.Contains(a.Reason, "it is marked") {
		t.Errorf("kept for longer: %+v, %+v", r.Deleted, a)
	}
	r = pruned(w, vaulttest.Hourly)
	if a := action(r, due[0].Backup); r.Deleted.Backups != 28 || !a.Done || a.Objects != 10 {
		t.Errorf("%+v, %+v", r.Deleted, a)
	}
	for _, f := range due {
		if left := leftOf(w, f.Backup); !slices.Equal(left, []string{f.Gone(), f.Mark()}) {
			t.Errorf("%v are left", left)
		}
	}
	for _, f := range all[28:] {
		if err := wholeOf(w, f); err != nil {
			t.Error(err)
		}
	}
	if p := w.Tick(vaulttest.Hourly); len(p.Backups) != 0 || len(p.Reports) == 0 {
		t.Errorf("the planner goes on with %+v", p.Backups)
	}

	w.Advance(prune.DefaultSettle - time.Second)
	pruned(w, vaulttest.Hourly)
	if !w.Exists(due[0].Mark()) {
		t.Error("the mark goes too early")
	}
	w.Advance(time.Second)
	if a := action(pruned(w, vaulttest.Hourly), due[0].Backup); a.Action != prune.Forget || !a.Done || len(leftOf(w, due[0].Backup)) != 0 {
		t.Errorf("%+v, left %v", a, leftOf(w, due[0].Backup))
	}
}

// TestPruneHolds says for each reason that a backup stays for.
func TestPruneHolds(t *testing.T) {
	manual := func(at time.Time, what string) vault.Backup {
		return vault.Backup{Table: vaulttest.SourceID, ID: vault.NewBackupID(at, what)}
	}
	long := 1000 * time.Hour
	for _, c := range []struct {
		name, policy, reason string
		// make makes the backup that is meant; a newer one is made after it.
		make func(w *vaulttest.World) vault.Backup
		only bool // nothing newer is made
	}{
		{name: "the last one", policy: vaulttest.Hourly, reason: "the newest recovery point", only: true,
			make: func(w *vaulttest.World) vault.Backup { return fakeOf(w, manual(w.Clock(), "a"), w.Clock(), nil).Backup }},
		{name: "no rule", policy: "tables: prod/other*\nevery: hourly\nkeep: 72 hours", reason: "no rule of the policy",
			make: func(w *vaulttest.World) vault.Backup { return fakeOf(w, manual(w.Clock(), "a"), w.Clock(), nil).Backup }},
		{name: "no keep", policy: "tables: prod/*\nevery: hourly", reason: "for ever",
			make: func(w *vaulttest.World) vault.Backup { return fakeOf(w, manual(w.Clock(), "a"), w.Clock(), nil).Backup }},
		{name: "open", policy: vaulttest.Hourly, reason: "it has not ended",
			make: func(w *vaulttest.World) vault.Backup {
				b := manual(w.Clock(), "a")
				if _, err := w.Store.Create(w.T.Context(), vault.Opened(b.Table, b.ID), strings.NewReader("")); err != nil {
					w.T.Fatal(err)
				}
				return b
			}},
		{name: "at least", policy: "tables: prod/*\nevery: hourly\nkeep: {for: 72 hours, at_least: 4}", reason: "one of the newest 4",
			make: func(w *vaulttest.World) vault.Backup {
				b := fakeOf(w, manual(w.Clock(), "a"), w.Clock(), nil).Backup
				w.Advance(time.Hour)
				fakeOf(w, manual(w.Clock(), "b"), w.Clock(), nil)
				return b
			}},
		{name: "the last of its rule", policy: vaulttest.Hourly, reason: "the newest that the rule default has begun",
			make: func(w *vaulttest.World) vault.Backup {
				b := hoursOf(w, vaulttest.Hourly, vaulttest.SourceID, 1)[0].Backup
				fakeOf(w, manual(w.Clock(), "b"), w.Clock(), nil)
				return b
			}},
		{name: "a parent", policy: vaulttest.Hourly, reason: "the parent of",
			make: func(w *vaulttest.World) vault.Backup {
				b := fakeOf(w, manual(w.Clock(), "a"), w.Clock(), nil).Backup
				w.Advance(long)
				child := fakeOf(w, manual(w.Clock(), "b"), w.Clock(), &vault.Parent{Backup: b.ID, SHA256: strings.Repeat("0", 64)})
				w.Advance(long)
				fakeOf(w, manual(w.Clock(), "c"), w.Clock(), nil)
				w.Advance(long)
				fakeOf(w, manual(w.Clock(), "d"), w.Clock(), &vault.Parent{Backup: child.ID, SHA256: strings.Repeat("0", 64)})
				return b
			}, only: true},
		{name: "to be copied", policy: vaulttest.HourlyCopied, reason: "not copied to s3://twin/vault yet",
			make: func(w *vaulttest.World) vault.Backup {
				return hoursOf(w, vaulttest.HourlyCopied, vaulttest.SourceID, 3)[0].Backup
			}},
		{name: "being copied", policy: vaulttest.HourlyCopied, reason: "being copied to s3://twin/vault",
			make: func(w *vaulttest.World) vault.Backup {
				b := fakeOf(w, manual(w.Clock(), "a"), w.Clock(), nil).Backup
				if _, err := w.Store.Create(w.T.Context(), b.Copying(place.Key(vaulttest.ReplicaAddress)).Start("000000", 0), strings.NewReader("")); err != nil {
					w.T.Fatal(err)
				}
				return b
			}},
		{name: "a restore", policy: vaulttest.Hourly, reason: "uses it",
			make: func(w *vaulttest.World) vault.Backup {
				w.Fill(vaulttest.Definition(), 10)
				m := w.Backup(vaulttest.Small)
				w.Begin(m)
				return vaulttest.BackupOf(m)
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := vaulttest.NewWorld(t)
			b := c.make(w)
			if !c.only {
				w.Advance(long)
				fakeOf(w, manual(w.Clock().Add(time.Second), "older"), w.Clock(), nil)
				w.Advance(long)
				fakeOf(w, manual(w.Clock().Add(time.Second), "newer"), w.Clock(), nil)
			}
			for range 4 {
				w.Advance(prune.DefaultSettle)
				if a := action(pruned(w, c.policy), b); a.Action != prune.Keep || !strings.Contains(a.Reason, c.reason) {
					t.Fatalf("%+v", a)
				}
			}
			if w.Exists(b.Mark()) || !w.Exists(vault.Opened(b.Table, b.ID)) {
				t.Error("it was marked, or has gone")
			}
		})
	}
}

// TestPruneEnds: a backup goes once what held it is over.
func TestPruneEnds(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 10)
	m := w.Backup(vaulttest.Small)
	plan := w.Begin(m)
	fakeOf(w, vault.Backup{Table: vaulttest.SourceID, ID: vault.NewBackupID(w.Clock().Add(time.Hour), "void")}, time.Time{}, nil)
	w.Advance(100 * time.Hour)
	fakeOf(w, vault.Backup{Table: vaulttest.SourceID, ID: vault.NewBackupID(w.Clock(), "newer")}, w.Clock(), nil)
	w.Advance(100 * time.Hour)
	if r := pruned(w, vaulttest.Hourly); r.Marked.Backups != 1 { // the one that was given up
		t.Errorf("%+v", r)
	}
	if p := w.Finish(plan.Restore); p.State != restore.StateDone {
		t.Fatalf("%+v", p)
	}
	pruned(w, vaulttest.Hourly)
	w.Advance(prune.DefaultGrace)
	if r := pruned(w, vaulttest.Hourly); r.Deleted.Backups != 2 || len(w.Manifests("orders")) != 1 {
		t.Errorf("%+v", r)
	}
}

// TestPruneAsks has a table and a time given by a person: no other table is touched.
func TestPruneAsks(t *testing.T) {
	w := vaulttest.NewWorld(t)
	other := vault.TableID{Region: "local", Instance: "prod", Table: "other"}
	mine := hoursOf(w, vaulttest.Hourly, vaulttest.SourceID, 10)
	theirs := hoursOf(w, vaulttest.Hourly, other, 10)
	abroad := vault.TableID{Region: "elsewhere", Instance: "prod", Table: "orders"}
	theirs = append(theirs, fakeOf(w, vault.Backup{Table: abroad, ID: vault.NewBackupID(vaulttest.Day, "a")}, vaulttest.Day, nil), fakeOf(w, vault.Backup{Table: abroad, ID: vault.NewBackupID(vaulttest.Day.Add(1), "b")}, vaulttest.Day.Add(1), nil))
	p := &prune.Pruner{Repo: w.Repo, Region: "local", Tables: []policy.Pattern{{Instance: "prod", Table: "ord*"}}, Keep: 15 * time.Hour,
		Grace: time.Hour, Now: w.Clock, Log: w.Log()}
	prunedBy(w, p, true)
	w.Advance(time.Hour)
	// By now one more is due, and is marked.
	if r := prunedBy(w, p, true); r.Deleted.Backups != 5 || len(r.Tables) != 1 {
		t.Errorf("%+v", r)
	}
	for _, f := range append(theirs, mine[6:]...) {
		if err := wholeOf(w, f); err != nil {
			t.Error(err)
		}
	}
}

// TestPruneClock: while this machine's clock is not the store's, nothing is marked or
// deleted, and both are told.
func TestPruneClock(t *testing.T) {
	for _, off := range []time.Duration{6 * time.Minute, -6 * time.Minute} {
		w := vaulttest.NewWorld(t)
		hoursOf(w, vaulttest.Hourly, vaulttest.SourceID, 100)
		before := vaulttest.ContentOf(t, w.Store, "")
		p := prunerOf(w, vaulttest.Hourly)
		p.Now = func() time.Time { return w.Clock().Add(off) }
		_, err := p.Prune(t.Context(), true)
		if err == nil || !strings.Contains(err.Error(), w.Clock().UTC().Format(time.RFC3339)) || !strings.Contains(err.Error(), p.Now().UTC().Format(time.RFC3339)) {
			t.Errorf("%v", err)
		}
		if !maps.Equal(before, vaulttest.ContentOf(t, w.Store, "")) {
			t.Error("something was changed")
		}
	}
}

// TestPruneUnreadable: what can't be read might need others, so nothing of its table
// goes; other tables are pruned. A restore whose plan can't be read stops the run.
func TestPruneUnreadable(t *testing.T) {
	w := vaulttest.NewWorld(t)
	other := vault.TableID{Region: "local", Instance: "prod", Table: "other"}
	broken := hoursOf(w, vaulttest.Hourly, vaulttest.SourceID, 80)
	hoursOf(w, vaulttest.Hourly, other, 80)
	w.Store.(*mem.Store).Replace(broken[40].Manifest(), []byte("{"))
	p := prunerOf(w, vaulttest.Hourly)
	r, err := p.Prune(t.Context(), true)
	if err != nil || len(r.Failures) != 1 || !strings.Contains(r.Failures[0], string(broken[40].ID)) {
		t.Fatalf("%v, %v", r.Failures, err)
	}
	for b := range must(w.Repo.Marks(t.Context(), nil)) {
		if b.Table != other {
			t.Errorf("%s of %s is marked", b.ID, b.Table)
		}
	}
	if r.Marked.Backups == 0 {
		t.Error("the other table was not pruned")
	}
	restore := vault.Restore{ID: vault.NewRestoreID(vaulttest.Day, "x")}
	if _, err := w.Store.Create(t.Context(), restore.Restoring(), strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	w.Advance(prune.DefaultGrace)
	before := vaulttest.ContentOf(t, w.Store, "")
	if _, err := p.Prune(t.Context(), true); err == nil || !strings.Contains(err.Error(), string(restore.ID)) {
		t.Errorf("%v", err)
	}
	if !maps.Equal(before, vaulttest.ContentOf(t, w.Store, "")) {
		t.Error("something was changed")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestLateDeliveries: what a delivery writes that outlived its backup is no recovery
// point, and goes with the next run, as long as the mark stands.
func TestLateDeliveries(t *testing.T) {
	w := vaulttest.NewWorld(t)
	all := hoursOf(w, vaulttest.Hourly, vaulttest.SourceID, 80)
	pruned(w, vaulttest.Hourly)
	w.Advance(prune.DefaultGrace)
	pruned(w, vaulttest.Hourly)
	f := all[0]
	late := map[string]string{
		"seal":   f.Manifest(),
		"export": f.Shard("000000", "late"),
		"note":   f.Log().Failure("000000", 0),
		"copy":   f.Copying("0a1b").Start("000000", 0),
	}
	for who, name := range late {
		if _, err := w.Store.Create(t.Context(), name, strings.NewReader(f.content[f.Manifest()])); err != nil {
			t.Fatal(err)
		}
		if m, err := w.Repo.Latest(t.Context(), vaulttest.SourceID, f.point); err == nil {
			t.Errorf("%s: %s is a recovery point", who, m.Backup)
		}
		if _, err := w.Restorer().Begin(t.Context(), w.Run(), restore.Request{Backup: f.Backup, Target: vaulttest.TargetID, At: w.Clock()}); err == nil {
			t.Errorf("%s: it is restored", who)
		}
		if a := action(pruned(w, vaulttest.Hourly), f.Backup); a.Action != prune.Delete || !a.Done || a.Objects != 1 {
			t.Errorf("%s: %+v", who, a)
		}
		if w.Exists(name) {
			t.Errorf("%s is left", name)
		}
	}
	// On the day on which the mark would go, something comes once more.
	w.Advance(prune.DefaultSettle)
	if _, err := w.Store.Create(t.Context(), late["export"], strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	pruned(w, vaulttest.Hourly)
	if w.Exists(late["export"]) || !w.Exists(f.Mark()) {
		t.Error("the mark went before what had come")
	}
	pruned(w, vaulttest.Hourly)
	if left := leftOf(w, f.Backup); len(left) != 0 {
		t.Errorf("%v are left", left)
	}
}

// TestPruneModel prunes random histories at random times, and holds them against what
// could be restored if nothing had ever been deleted: from where the window begins, every
// instant gives the same backup, whole.
func TestPruneModel(t *testing.T) {
	for _, text := range []string{
		vaulttest.Hourly,
		"tables: prod/*\nevery: hourly\nkeep: {for: 30 hours, at_least: 4}\n",
		"rules:\n- {name: often, tables: prod/*, every: hourly, keep: 20 hours}\n- {name: rare, tables: prod/*, every: daily, keep: 90 hours}\n",
	} {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		modelPrune(t, text, rand.New(rand.NewPCG(seed, 1)))
	}
}

func modelPrune(t *testing.T, text string, random *rand.Rand) {
	w := vaulttest.NewWorld(t)
	p := decodePolicy(t, text)
	window := p.Rules[0].Keep.For // the shortest
	tables := []vault.TableID{vaulttest.SourceID, vaulttest.TargetID}
	sealed := map[vault.TableID][]fake{}
	held := map[vault.RestoreID]fake{}
	deleted, marked, forgotten, compared := 0, 0, 0, 0
	for step := range 600 {
		id := tables[random.IntN(len(tables))]
		switch n := random.IntN(20); {
		case n < 9: // a backup, that may have begun long before it is sealed
			rule := p.Rules[random.IntN(len(p.Rules))]
			b := rule.Backup(id, rule.Every.Due(w.Clock().Add(-time.Duration(random.IntN(8))*time.Hour)))
			if random.IntN(4) == 0 {
				b.ID = vault.NewBackupID(w.Clock(), "manual", fmt.Sprint(step))
			}
			if w.Exists(vault.Opened(id, b.ID)) || w.Exists(b.Mark()) {
				break
			}
			if random.IntN(8) == 0 {
				fakeOf(w, b, time.Time{}, nil)
				break
			}
			sealed[id] = append(sealed[id], fakeOf(w, b, w.Clock().Add(-time.Duration(random.IntN(180))*time.Minute), nil))
		case n < 10: // a restore, as it stands once it is begun
			m, err := w.Repo.Latest(t.Context(), id, w.Clock().Add(-time.Duration(random.IntN(200))*time.Hour))
			if err != nil {
				break
			}
			r := vault.Restore{ID: vault.NewRestoreID(w.Clock(), fmt.Sprint(step))}
			data, err := vault.Encode(r.Plan(), restoreOf(r.ID, m))
			if err != nil {
				t.Fatal(err)
			}
			for name, content := range map[string]string{r.Plan(): string(data), r.Restoring(): ""} {
				if _, err := w.Store.Create(t.Context(), name, strings.NewReader(content)); err != nil {
					t.Fatal(err)
				}
			}
			held[r.ID] = sealed[id][slices.IndexFunc(sealed[id], func(f fake) bool { return f.ID == m.Backup })]
		case n < 11:
			for r := range held {
				if _, err := w.Store.Create(t.Context(), vault.Restore{ID: r}.Restored(), strings.NewReader("")); err != nil {
					t.Fatal(err)
				}
				delete(held, r)
				break
			}
		case n < 17:
			w.Advance(time.Duration(random.IntN(300)) * time.Minute)
		default:
			r := pruned(w, text)
			deleted, marked = deleted+r.Deleted.Backups, marked+r.Marked.Backups
			for _, table := range r.Tables {
				for _, b := range table.Backups {
					if b.Action == prune.Forget {
						forgotten++
					}
				}
			}
		}
		if step%20 != 0 {
			continue
		}
		for r, f := range held {
			if err := wholeOf(w, f); err != nil {
				t.Fatalf("step %d: restore %s reads what is gone: %v", step, r, err)
			}
		}
		for id, all := range sealed {
			instants := []time.Time{{}, w.Clock().Add(-window)}
			for _, f := range all {
				if f.point.After(w.Clock().Add(-window)) {
					instants = append(instants, f.point)
				}
			}
			for _, at := range instants {
				var want *fake
				for i, f := range all {
					if (at.IsZero() || !f.point.After(at)) && (want == nil || cmp.Or(f.point.Compare(want.point), strings.Compare(string(f.ID), string(want.ID))) > 0) {
						want = &all[i]
					}
				}
				if want == nil {
					continue
				}
				compared++
				got, err := w.Repo.Latest(t.Context(), id, at)
				if err != nil || got.Backup != want.ID {
					t.Fatalf("step %d: at %v of %s: %+v, %v; without prune it is %s", step, at, id, got, err, want.ID)
				}
				if err := wholeOf(w, *want); err != nil {
					t.Fatalf("step %d: %v", step, err)
				}
			}
		}
	}
	t.Logf("%d instants compared; %d marked, %d deleted, %d forgotten", compared, marked, deleted, forgotten)
	if compared < 100 || marked < 10 || deleted < 10 || forgotten == 0 {
		t.Error("the history has too little in it")
	}
}

// pruneFixture is a vault in which one run has something to mark, to delete and to
// forget; it returns the backups that are kept.
func pruneFixture(t testing.TB) (w *vaulttest.World, kept, due []fake) {
	w = vaulttest.NewWorld(t)
	const text = "tables: prod/*\nevery: hourly\nkeep: 5 hours"
	all := hoursOf(w, text, vaulttest.SourceID, 3)
	w.Advance(6 * time.Hour)
	all = append(all, hoursOf(w, text, vaulttest.SourceID, 1)...)
	w.Advance(6 * time.Hour)
	pruned(w, text)
	w.Advance(prune.DefaultGrace)
	pruned(w, text) // the first three are gone
	w.Advance(prune.DefaultSettle - prune.DefaultGrace)
	all = append(all, hoursOf(w, text, vaulttest.SourceID, 1)...)
	w.Advance(6 * time.Hour)
	pruned(w, text) // the fourth is marked
	w.Advance(prune.DefaultGrace)
	all = append(all, hoursOf(w, text, vaulttest.SourceID, 2)...)
	w.Advance(5 * time.Hour)
	all = append(all, hoursOf(w, text, vaulttest.SourceID, 1)...)
	fakeOf(w, vault.Backup{Table: vaulttest.SourceID, ID: vault.NewBackupID(vaulttest.Day, "void")}, time.Time{}, nil)
	return w, all[5:], all[:5]
}

const fixturePolicy = "tables: prod/*\nevery: hourly\nkeep: 5 hours"

// TestPruneFaults fails each call to the store in turn, before and after it took effect.
// Whatever the run came to, no backup that is kept has lost anything, and further runs
// bring it to its end.
func TestPruneFaults(t *testing.T) {
	w, _, _ := pruneFixture(t)
	counts := map[prune.Action]int{}
	for _, b := range pruned(w, fixturePolicy).Tables[0].Backups {
		counts[b.Action]++
	}
	for _, a := range []prune.Action{prune.Keep, prune.Mark, prune.Delete, prune.Forget} {
		if counts[a] == 0 {
			t.Fatalf("nothing to %s: %v", a, counts)
		}
	}
	fired, failed := 0, 0
	for fault := range objectfault.EachCall() {
		w, kept, due := pruneFixture(t)
		p := prunerOf(w, fixturePolicy)
		faulty := objectfault.New(w.Store, fault)
		var err error
		if p.Repo, err = repository.Open(t.Context(), faulty); err == nil {
			var r *prune.Report
			if r, err = p.Prune(t.Context(), true); err == nil && len(r.Failures) > 0 {
				err = errors.New(r.Failures[0])
			}
		}
		if fault.Fired() {
			fired++
		}
		if err != nil {
			failed++
		}
		check := func() {
			t.Helper()
			for _, f := range kept {
				if err := wholeOf(w, f); err != nil {
					t.Fatalf("%v: %v", fault, err)
				}
			}
		}
		check()
		pruned(w, fixturePolicy)
		check()
		for range 3 {
			w.Advance(prune.DefaultGrace)
			kept = hoursOf(w, fixturePolicy, vaulttest.SourceID, 1) // the others grow old
			pruned(w, fixturePolicy)
			check()
		}
		for _, f := range due {
			if left := leftOf(w, f.Backup); slices.ContainsFunc(left, func(n string) bool { return !strings.HasPrefix(n, vault.MarkPrefix) }) {
				t.Fatalf("%v: %v are left", fault, left)
			}
		}
	}
	t.Logf("%d faults, %d of them told", fired, failed)
	if fired < 100 || failed < fired/2 {
		t.Error("too few faults")
	}
}

// TestPruneRefused: a store that keeps an object is told by the object's name, nothing of
// that backup goes that has to go after it, nothing counts as deleted that is there, and
// the others go.
func TestPruneRefused(t *testing.T) {
	for _, what := range []string{"opened/", "manifests/", "plans/", ".shard"} {
		w := vaulttest.NewWorld(t)
		all := hoursOf(w, vaulttest.Hourly, vaulttest.SourceID, 80)
		pruned(w, vaulttest.Hourly)
		w.Advance(prune.DefaultGrace)
		held := all[3]
		p := prunerOf(w, vaulttest.Hourly)
		p.Repo = must(repository.Open(t.Context(), objectfault.New(w.Store, &objectfault.Fault{
			Op: objectfault.Delete, Call: objectfault.Every, When: objectfault.Before, Err: fs.ErrPermission,
			Match: func(name string) bool { return strings.Contains(name, string(held.ID)) && strings.Contains(name, what) },
		})))
		r, err := p.Prune(t.Context(), true)
		if err != nil || len(r.Failures) != 1 || !strings.Contains(r.Failures[0], string(held.ID)) || !strings.Contains(r.Failures[0], what) ||
			!strings.Contains(r.Failures[0], "docs/ram/prune.json") {
			t.Fatalf("%s: %v, %v", what, r.Failures, err)
		}
		if a := action(r, held.Backup); a.Done || a.Error == "" || r.Deleted.Backups != 7 || w.Exists(held.Gone()) {
			t.Errorf("%s: %+v, %+v", what, a, r.Deleted)
		}
		// What stands before it in the order is gone, what comes after it is there.
		if what == "manifests/" || what == "opened/" {
			for name := range held.content {
				if strings.HasPrefix(name, vault.ShardPrefix) && !w.Exists(name) {
					t.Errorf("%s: %s is gone", what, name)
				}
			}
		}
		if w.Exists(held.Manifest()) != (what == "manifests/" || what == "opened/") {
			t.Errorf("%s: the manifest", what)
		}
		if r := pruned(w, vaulttest.Hourly); r.Deleted.Backups != 1 {
			t.Errorf("%s: then %+v", what, r.Deleted)
		}
	}
}

// TestPruneStaleWord: what says since when nothing is left of a backup says nothing of
// one that was marked again since.
func TestPruneStaleWord(t *testing.T) {
	w := vaulttest.NewWorld(t)
	all := hoursOf(w, vaulttest.Hourly, vaulttest.SourceID, 80)
	if _, err := w.Store.Create(t.Context(), all[0].Gone(), strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		pruned(w, vaulttest.Hourly)
		w.Advance(prune.DefaultGrace)
	}
	pruned(w, vaulttest.Hourly)
	if !w.Exists(all[0].Mark()) || len(leftOf(w, all[0].Backup)) != 2 {
		t.Errorf("%v are left", leftOf(w, all[0].Backup))
	}
}

// TestPruneKeptMarks: that the store keeps the mark of what is gone is no failure, and a
// mark that is taken away while a run goes on stops it before it deletes.
func TestPruneKeptMarks(t *testing.T) {
	w := vaulttest.NewWorld(t)
	all := hoursOf(w, vaulttest.Hourly, vaulttest.SourceID, 80)
	pruned(w, vaulttest.Hourly)
	w.Advance(prune.DefaultGrace)
	p := prunerOf(w, vaulttest.Hourly)
	taken := all[2]
	p.Repo = must(repository.Open(t.Context(), stepped{w.Store, func(call string) {
		if call == "delete "+all[1].Plan() {
			w.Remove(taken.Mark())
		}
	}}))
	if r := prunedBy(w, p, true); r.Deleted.Backups != 7 || action(r, taken.Backup).Done || action(r, taken.Backup).Action != prune.Keep {
		t.Errorf("%+v, %+v", r.Deleted, action(r, taken.Backup))
	}
	if err := wholeOf(w, taken); err != nil {
		t.Error(err)
	}
	w.Advance(prune.DefaultSettle)
	p.Repo = must(repository.Open(t.Context(), objectfault.New(w.Store, &objectfault.Fault{
		Op: objectfault.Delete, Call: objectfault.Every, When: objectfault.Before, Err: fs.ErrPermission,
		Match: func(name string) bool { return strings.HasPrefix(name, vault.MarkPrefix) },
	})))
	if a := action(prunedBy(w, p, true), all[0].Backup); a.Action != prune.Wait || a.Done || !w.Exists(all[0].Gone()) || !w.Exists(all[0].Mark()) {
		t.Errorf("%+v", a)
	}
}

// TestPrunesSideBySide runs several at the same time, over and over.
func TestPrunesSideBySide(t *testing.T) {
	for range 20 {
		w, kept, due := pruneFixture(t)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if r, err := prunerOf(w, fixturePolicy).Prune(t.Context(), true); err != nil || len(r.Failures) > 0 {
					t.Errorf("%v, %v", r.Failures, err)
				}
			})
		}
		all.Wait()
		for _, f := range kept {
			if err := wholeOf(w, f); err != nil {
				t.Error(err)
			}
		}
		for _, f := range due[:4] {
			if left := leftOf(w, f.Backup); slices.ContainsFunc(left, func(n string) bool { return !strings.HasPrefix(n, vault.MarkPrefix) }) {
				t.Errorf("%v are left", left)
			}
		}
	}
}

// stepped is a store in which some calls wait for their turn.
type stepped struct {
	object.Store
	turn func(call string)
}

func (s stepped) Create(ctx context.Context, name string, r io.Reader) (object.Info, error) {
	s.turn("create " + name)
	return s.Store.Create(ctx, name, r)
}

func (s stepped) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, object.Info, error) {
	s.turn("open " + name)
	return s.Store.Open(ctx, name, off, n)
}

func (s stepped) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		s.turn("list " + prefix)
		s.Store.List(ctx, prefix, after)(yield)
	}
}

func (s stepped) Delete(ctx context.Context, name string) error {
	s.turn("delete " + name)
	return s.Store.Delete(ctx, name)
}

// schedule runs two pieces of work in turns: choices says, step by step, whose turn it is
// as long as both have one; beyond its end it is the first's. It returns which choices
// there were.
func schedule(choices []int, works [2]func(turn func())) (taken []int) {
	type event struct {
		who  int
		over bool
	}
	events := make(chan event)
	var grants [2]chan struct{}
	for who, work := range works {
		grants[who] = make(chan struct{})
		go func() {
			work(func() {
				events <- event{who, false}
				<-grants[who]
			})
			events <- event{who, true}
		}()
	}
	waiting, over := [2]bool{}, [2]bool{}
	await := func(who int) {
		for !waiting[who] && !over[who] {
			e := <-events
			waiting[e.who], over[e.who] = !e.over, e.over
		}
	}
	await(0)
	await(1)
	for !over[0] || !over[1] {
		who := 0
		switch {
		case over[0]:
			who = 1
		case over[1]:
		default:
			if len(taken) < len(choices) {
				who = choices[len(taken)]
			}
			taken = append(taken, who)
		}
		waiting[who] = false
		grants[who] <- struct{}{}
		await(who)
	}
	return taken
}

// TestRestoreBesidePrune drives a restore's beginning and two runs of prune, with no
// grace between them, through every order of the steps by which they meet. Either the
// restore is refused, or the backup stays as it is until the restore has ended.
func TestRestoreBesidePrune(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 3)
	m := w.Backup(vault.Settings{Lanes: 1})
	w.Advance(100 * time.Hour)
	fakeOf(w, vault.Backup{Table: vaulttest.SourceID, ID: vault.NewBackupID(w.Clock(), "newer")}, w.Clock(), nil)
	w.Advance(100 * time.Hour)
	base := vaulttest.ContentOf(t, w.Store, "")
	mine := map[string]string{}
	for name, content := range base {
		if strings.Contains(name, string(m.Backup)) {
			mine[name] = content
		}
	}
	request := w.Request(m)
	began, refused, runs, steps := 0, 0, 0, 0
	for choices := []int{}; choices != nil; {
		store := &mem.Store{Now: w.Clock}
		for name, content := range base {
			if _, err := store.Create(t.Context(), name, strings.NewReader(content)); err != nil {
				t.Fatal(err)
			}
		}
		var begin error
		var plan *vault.RestorePlan
		gate := func(turn func(), calls ...string) func(string) {
			return func(call string) {
				for _, c := range calls {
					if strings.HasPrefix(call, c) || strings.HasSuffix(call, c) {
						turn()
						return
					}
				}
			}
		}
		b := vaulttest.BackupOf(m)
		taken := schedule(choices, [2]func(func()){
			func(turn func()) {
				planner := w.Restorer()
				planner.Repo = must(repository.Open(t.Context(), stepped{store, gate(turn, "open "+b.Mark(), "create "+vault.RestoringPrefix, "open "+b.Plan(), "/created/")}))
				plan, begin = planner.Begin(t.Context(), w.Run(), request)
			},
			func(turn func()) {
				for range 2 {
					p := prunerOf(w, vaulttest.Hourly)
					p.Grace = 0
					p.Repo = must(repository.Open(t.Context(), stepped{store, gate(turn, "list "+vault.MarkPrefix, "list "+vault.RestoringPrefix, "create "+b.Mark(), "delete "+b.Manifest(), "delete "+b.Plan())}))
					if r, err := p.Prune(t.Context(), true); err != nil || len(r.Failures) > 0 {
						t.Errorf("%v: %v, %v", choices, r, err)
					}
				}
			},
		})
		runs, steps = runs+1, max(steps, len(taken))
		now := vaulttest.ContentOf(t, store, "")
		switch {
		case begin == nil:
			began++
			for name, content := range mine {
				if now[name] != content {
					t.Fatalf("%v: the restore goes on, and %s is gone", taken, name)
				}
			}
			if _, ok := now[vault.Restore{ID: plan.Restore}.Created()]; !ok {
				t.Fatalf("%v: there is no table", taken)
			}
		case errors.Is(begin, repository.ErrMarked), errors.Is(begin, fs.ErrNotExist):
			refused++
		default:
			t.Fatalf("%v: %v", taken, begin)
		}
		w.Tables.Drop(vaulttest.TargetID.Table)
		// The next order: the last choice that can be another is.
		choices = slices.Clone(taken)
		for len(choices) > 0 && choices[len(choices)-1] == 1 {
			choices = choices[:len(choices)-1]
		}
		if len(choices) == 0 {
			break
		}
		choices[len(choices)-1] = 1
	}
	t.Logf("%d orders of at most %d steps: %d restores began, %d were refused", runs, steps, began, refused)
	if began == 0 || refused == 0 || runs < 100 {
		t.Error("not all outcomes were seen")
	}
}

// TestPruneCosts counts the calls to the store of a run that finds nothing to do: seven
// lists, and a read for each backup of the tables that have a retention.
func TestPruneCosts(t *testing.T) {
	w := vaulttest.NewWorld(t)
	hoursOf(w, vaulttest.Hourly, vault.TableID{Region: "local", Instance: "elsewhere", Table: "orders"}, 30)
	hoursOf(w, vaulttest.Hourly, vaulttest.SourceID, 70)
	store := objectfault.New(w.Store)
	p := prunerOf(w, vaulttest.Hourly)
	p.Repo = must(repository.Open(t.Context(), store))
	prunedBy(w, p, true)
	if lists, reads := store.Calls(objectfault.List), store.Calls(objectfault.Open); lists != 7 || reads != 1+70 || store.Calls(objectfault.Create)+store.Calls(objectfault.Delete) != 0 {
		t.Errorf("a run in which nothing is due: %d lists, %d reads", lists, reads)
	}
}

// TestPruneReplica prunes a vault that holds copies. What is copied there again after
// that is whole again: no record vouches for what was deleted.
func TestPruneReplica(t *testing.T) {
	w, m := vaulttest.CopyWorld(t, 600)
	replica := &mem.Store{Now: w.Clock}
	w.CopyAll(m, replica)
	for range 2 {
		w.Advance(100 * time.Hour)
		w.CopyAll(w.Backup(vaulttest.Small), replica)
	}
	p := &prune.Pruner{Repo: must(repository.Open(t.Context(), replica)), Region: "local", Tables: []policy.Pattern{{Instance: "prod", Table: "*"}},
		Keep: 72 * time.Hour, Grace: prune.DefaultGrace, Now: w.Clock, Log: w.Log()}
	prunedBy(w, p, true)
	if _, err := w.Replicator(replica).Copy(t.Context(), w.Run(), vaulttest.CopyWork(m, 0)); !errors.Is(err, repository.ErrMarked) {
		t.Errorf("copied to where it is marked: %v", err)
	}
	w.Advance(prune.DefaultGrace)
	if r := prunedBy(w, p, true); r.Deleted.Backups != 1 {
		t.Fatalf("%+v", r.Deleted)
	}
	w.Advance(prune.DefaultSettle)
	prunedBy(w, p, true)
	for name := range vaulttest.ContentOf(t, replica, "") {
		if strings.Contains(name, string(m.Backup)) {
			t.Errorf("%s is left", name)
		}
	}
	if reply := w.CopyAll(m, replica); !reply.Done {
		t.Errorf("%+v", reply)
	}
	w.IsReplica(m, replica)
}

// recorder notes in which order objects are deleted.
type recorder struct {
	object.Store
	mu      sync.Mutex
	deleted []string
}

func (r *recorder) Delete(ctx context.Context, name string) error {
	r.mu.Lock()
	r.deleted = append(r.deleted, name)
	r.mu.Unlock()
	return r.Store.Delete(ctx, name)
}

// TestPruneOrder deletes what says that a backup was begun, its manifest, the records
// that vouch for a copy's objects and its plan one after the other, and everything else
// only then: who dies in between leaves nothing that could be sealed again.
func TestPruneOrder(t *testing.T) {
	w := vaulttest.NewWorld(t)
	b := hoursOf(w, vaulttest.Hourly, vaulttest.SourceID, 80)[0].Backup
	if _, err := w.Store.Create(t.Context(), b.Copied(0, 0), strings.NewReader("record")); err != nil {
		t.Fatal(err)
	}
	pruned(w, vaulttest.Hourly)
	w.Advance(prune.DefaultGrace)
	store := &recorder{Store: w.Store}
	p := prunerOf(w, vaulttest.Hourly)
	var err error
	if p.Repo, err = repository.Open(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	prunedBy(w, p, true)
	var names []string
	for _, name := range store.deleted {
		if strings.Contains(name, b.Table.Path()+"/"+string(b.ID)) {
			names = append(names, name)
		}
	}
	first := []string{vault.Opened(b.Table, b.ID), b.Manifest(), b.Copied(0, 0), b.Plan()}
	if len(names) < 10 || !slices.Equal(names[:len(first)], first) {
		t.Errorf("deleted in the order %v, want first %v", names, first)
	}
}

// TestPruneBesideLease has a restore claim a backup of which a run that died has deleted
// the manifest, because its list of restores was late, or on which something came when
// all was gone: nothing more is deleted before the restore has ended.
func TestPruneBesideLease(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 10)
	m := w.Backup(vaulttest.Small)
	b, plan := vaulttest.BackupOf(m), w.Begin(m)
	w.Advance(100 * time.Hour)
	fakeOf(w, vault.Backup{Table: vaulttest.SourceID, ID: vault.NewBackupID(w.Clock(), "newer")}, w.Clock(), nil)
	w.Advance(100 * time.Hour)
	fakeOf(w, vault.Backup{Table: vaulttest.SourceID, ID: vault.NewBackupID(w.Clock(), "newest")}, w.Clock(), nil)
	w.Advance(100 * time.Hour)
	put := func(name string, content []byte) {
		t.Helper()
		if _, err := w.Store.Create(t.Context(), name, bytes.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(names ...string) {
		t.Helper()
		for _, name := range names {
			if err := w.Store.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(b.Mark(), must(vault.Encode(b.Mark(), &vault.Mark{Backup: b.ID, Table: b.Table, At: w.Clock(), Reason: "test"})))
	remove(vault.Opened(b.Table, b.ID), b.Manifest())
	w.Advance(2 * prune.DefaultGrace)
	waits := func() {
		t.Helper()
		before := leftOf(w, b)
		if a := action(pruned(w, vaulttest.Hourly), b); a.Action != prune.Wait || !strings.Contains(a.Reason, "uses it") {
			t.Errorf("%+v", a)
		}
		if after := leftOf(w, b); !slices.Equal(before, after) || len(after) < 2 {
			t.Errorf("%v are left of %v", after, before)
		}
	}
	goes := func() {
		t.Helper()
		put(vault.Restore{ID: plan.Restore}.Restored(), nil)
		if a := action(pruned(w, vaulttest.Hourly), b); a.Action != prune.Delete || !a.Done {
			t.Errorf("%+v", a)
		}
		if left := leftOf(w, b); !slices.Equal(left, []string{b.Gone(), b.Mark()}) {
			t.Errorf("%v are left", left)
		}
	}
	waits()
	goes()
	remove(vault.Restore{ID: plan.Restore}.Restored())
	put(b.Shard("000000", "late"), []byte("late"))
	waits()
	goes()
}

// TestPruneReadsNotes goes by what a note about a copy says, and not by its name: only
// one about this backup, as it is, at the policy's address lets it go.
func TestPruneReadsNotes(t *testing.T) {
	const third = "oss://third/vault"
	for name, c := range map[string]struct {
		change func(*vault.CopyNote)
		raw    string
		says   string // empty if it goes
	}{
		"good":             {change: func(*vault.CopyNote) {}},
		"another spelling": {change: func(n *vault.CopyNote) { n.Replica = "s3://twin//vault/?region=eu-central-1" }},
		"another vault":    {change: func(n *vault.CopyNote) { n.Replica = "s3://evil/vault" }, says: "it tells of what stands under"},
		"another endpoint": {change: func(n *vault.CopyNote) { n.Replica = vaulttest.ReplicaAddress + "?endpoint=evil.example" }, says: "it tells of what stands under"},
		"another manifest": {change: func(n *vault.CopyNote) { n.Manifest = strings.Repeat("0", 64) }, says: "is about another manifest"},
		"another backup":   {change: func(n *vault.CopyNote) { n.Backup = vault.NewBackupID(time.Unix(0, 0), "x") }, says: "it tells of what stands under"},
		"another table":    {change: func(n *vault.CopyNote) { n.Table.Table = "other" }, says: "it tells of what stands under"},
		"no note":          {raw: "x", says: "not known to be copied"},
		"empty":            {raw: " ", says: "not known to be copied"},
	} {
		t.Run(name, func(t *testing.T) {
			w := vaulttest.NewWorld(t)
			b := hoursOf(w, vaulttest.HourlyCopied, vaulttest.SourceID, 80)[0].Backup
			_, named, err := w.Repo.Manifest(t.Context(), b)
			if err != nil {
				t.Fatal(err)
			}
			for _, address := range []string{vaulttest.ReplicaAddress, third} {
				n := &vault.CopyNote{Backup: b.ID, Table: b.Table, Replica: address, At: w.Clock(), Manifest: named.SHA256}
				if address == vaulttest.ReplicaAddress && c.change != nil {
					c.change(n)
				}
				content := vaulttest.Forge(b.CopyNote(place.Key(address)), n)
				if address == vaulttest.ReplicaAddress && c.raw != "" {
					content = []byte(c.raw)
				}
				if _, err := w.Store.Create(t.Context(), b.CopyNote(place.Key(address)), bytes.NewReader(content)); err != nil {
					t.Fatal(err)
				}
			}
			a := action(pruned(w, vaulttest.HourlyCopied), b)
			if goes := a.Action == prune.Mark && a.Done; goes != (c.says == "") || !strings.Contains(a.Reason, c.says) {
				t.Errorf("%+v", a)
			}
		})
	}
}

// TestPruneIDsOfTheFuture has a backup of a rule be named by an instant that is still to
// come. It is as old as what it holds; and the newest that the rule has begun is another
// one, which stays, so that the planner does not begin it again.
func TestPruneIDsOfTheFuture(t *testing.T) {
	w := vaulttest.NewWorld(t)
	rule := decodePolicy(t, vaulttest.Hourly).Rules[0]
	forged := fakeOf(w, rule.Backup(vaulttest.SourceID, time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)), w.Clock(), nil)
	last := fakeOf(w, rule.Backup(vaulttest.SourceID, w.Clock().Add(-time.Hour).Truncate(time.Hour)), time.Time{}, nil) // given up
	w.Advance(time.Hour)
	newest := fakeOf(w, vault.Backup{Table: vaulttest.SourceID, ID: vault.NewBackupID(w.Clock(), "by hand")}, w.Clock(), nil)
	w.Advance(100 * 24 * time.Hour)
	pruned(w, vaulttest.Hourly)
	if !w.Exists(forged.Mark()) {
		t.Error("what is named by 2099 is kept for ever")
	}
	if w.Exists(newest.Mark()) || w.Exists(last.Mark()) {
		t.Errorf("marked are the newest: %t, and the last that the rule has begun: %t", w.Exists(newest.Mark()), w.Exists(last.Mark()))
	}
}
