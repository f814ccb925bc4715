package status_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/status"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// TestFind: what the beginning of an id means, of which kinds, and what it does not.
func TestFind(t *testing.T) {
	w := vaulttest.NewWorld(t)
	m := w.CutInto(2, 10)
	w.Advance(time.Hour)
	r := w.Restore(m)
	id := vault.VerificationID("20261120T040000Z-0a1b2c3d")
	if err := w.Repo.Mark(t.Context(), vault.Told{}.Name(vault.Verification{ID: id}.Progress())); err != nil {
		t.Fatal(err)
	}
	all := []status.Kind{status.BackupKind, status.RestoreKind, status.VerificationKind}
	for _, c := range []struct {
		text  string
		kinds []status.Kind
		want  string
		err   error
	}{
		{string(m.Backup), all, string(m.Backup), nil},
		{string(m.Backup)[:14], all, string(m.Backup), nil},
		{string(r.Restore)[:14], all, string(r.Restore), nil},
		{"20261120T04", all, string(id), nil},
		{"20261120T04", all[:2], "", fs.ErrNotExist},
		{"2026", all, "", status.ErrAmbiguous},
		{"latest", all, string(m.Backup), nil},
		{"latest", all[1:], string(r.Restore), nil},
		{"latest", all[2:], string(id), nil},
		{"latest:prod/orders", all, string(m.Backup), nil},
		{"latest:prod/others", all, "", fs.ErrNotExist},
		{"latest:prod/orders", all[1:], "", status.ErrForm},
		{"oldest", all, "", status.ErrForm},
		{"first:prod/orders", all, "", status.ErrForm},
		{"", all, "", status.ErrForm},
		{"../x", all, "", status.ErrForm},
		{"20200101T000000Z-00000000", all, "", fs.ErrNotExist},
	} {
		ref, err := status.Find(t.Context(), w.Repo, c.text, c.kinds...)
		if ref.ID != c.want || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%q among %v: %q, %v; want %q, %v", c.text, c.kinds, ref.ID, err, c.want, c.err)
		}
	}
}

// every is all tables.
var every = status.Tables{Match: func(string) bool { return true }}

// TestRestores: the newest come first, and one whose record is damaged is among them.
func TestRestores(t *testing.T) {
	w := vaulttest.NewWorld(t)
	m := w.CutInto(2, 10)
	first := w.Restore(m)
	w.Tables.Drop(vaulttest.TargetID.Table)
	w.Advance(time.Hour)
	second := w.Restore(m)
	l, err := status.ListRestores(t.Context(), w.Repo, every, 1, w.Clock)
	if err != nil || l.Older != 1 || len(l.Restores) != 1 || l.Restores[0].Restore != second.Restore || l.Restores[0].State != restore.StateDone || l.Damaged() != 0 {
		t.Errorf("%+v: %v", l, err)
	}
	name := vault.Restore{ID: first.Restore}.Plan()
	plan, err := object.ReadAll(t.Context(), w.Store, name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	bent, err := repository.Open(t.Context(), &vaulttest.Bent{Store: w.Store, Name: name, Bend: func([]byte) []byte { return bytes.Clone(plan[:len(plan)/2]) }})
	if err != nil {
		t.Fatal(err)
	}
	l, err = status.ListRestores(t.Context(), bent, every, 0, w.Clock)
	if err != nil {
		t.Fatal(err)
	}
	all := l.Restores
	if l.Older != 0 || l.Damaged() != 1 || len(all) != 2 || all[0].Restore != second.Restore || all[1].Restore != first.Restore ||
		all[1].State != status.Unreadable || !all[1].Corrupt || all[1].Begun.Format("20060102T150405Z") != string(first.Restore)[:16] || !strings.Contains(all[1].LastError, name) {
		t.Errorf("%+v", l)
	}
}

// TestVerificationLost: one that says nothing for longer than a function works is lost,
// and one that never was is not there.
func TestVerificationLost(t *testing.T) {
	w := vaulttest.NewWorld(t)
	of := vault.Verification{ID: "20261120T021400Z-0a1b2c3d"}
	watch := status.WatchVerification(w.Repo, of.ID, w.Clock)
	if _, err := watch.Look(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	for n, rows := range []int64{0, 500} {
		if err := w.Repo.Mark(t.Context(), vault.Told{Number: n, Rows: rows}.Name(of.Progress())); err != nil {
			t.Fatal(err)
		}
	}
	w.Advance(10 * time.Second)
	if v, err := watch.Look(t.Context()); err != nil || v.State != status.Running || v.Rows != 500 || v.RowsPerSecond != 50 {
		t.Errorf("%+v: %v", v, err)
	}
	w.Advance(20 * time.Minute)
	if v, err := watch.Look(t.Context()); err != nil || v.State != status.Lost {
		t.Errorf("%+v: %v", v, err)
	}
}

// TestListBackups lists what has ended, however it did, what runs, and of which tables
// there is anything.
func TestListBackups(t *testing.T) {
	w := vaulttest.NewWorld(t)
	now := func() time.Time { return w.Clock() }
	put := func(b vault.Backup, m *vault.Manifest) {
		t.Helper()
		if err := w.Repo.Mark(t.Context(), vault.Opened(b.Table, b.ID)); err != nil {
			t.Fatal(err)
		}
		if m == nil {
			return
		}
		if _, err := w.Repo.Win(t.Context(), b.Manifest(), m); err != nil {
			t.Fatal(err)
		}
	}
	sealed := func(t vault.TableID) vault.Backup {
		b := vault.Backup{Table: t, ID: vault.NewBackupID(w.Clock(), t.Table)}
		put(b, vaulttest.SealedAt(b, w.Clock(), w.Clock()))
		w.Advance(time.Hour)
		return b
	}
	other := vault.TableID{Region: "local", Instance: "prod", Table: "other"}
	var damaged, first, second, marked, replica vault.Backup
	for _, b := range []*vault.Backup{&damaged, &first, &second, &marked} {
		*b = sealed(vaulttest.SourceID)
	}
	replica = sealed(other)
	void := vault.Backup{Table: other, ID: vault.NewBackupID(w.Clock(), "void")}
	put(void, &vault.Manifest{Backup: void.ID, Table: other, Kind: vault.Full, State: vault.Void, Sealed: w.Clock().Add(time.Minute), Reason: "test"})
	w.MarkIn(w.Store, marked)
	w.Store.(*mem.Store).Replace(damaged.Manifest(), []byte("{"))
	w.Fill(vaulttest.Definition(), 10)
	open := w.Plan(w.Planner(), vaulttest.Small)

	l, err := status.ListBackups(t.Context(), w.Repo, every, false, now)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range l.Backups {
		got = append(got, fmt.Sprintf("%s %s %t %t", b.ID, b.State, b.RecoveryPoint != nil, b.Marked != nil))
	}
	want := []string{
		string(void.ID) + " void false false", string(replica.ID) + " sealed true false", string(marked.ID) + " sealed false true",
		string(second.ID) + " sealed true false", string(first.ID) + " sealed true false", string(damaged.ID) + " corrupt false false",
	}
	if !slices.Equal(got, want) || l.Damaged() != 1 || !strings.Contains(l.Backups[5].Error, damaged.Manifest()) || l.Backups[0].Took() != time.Minute {
		t.Errorf("%q, want %q", got, want)
	}
	if len(l.Running) != 1 || l.Running[0].Backup != open.ID || l.Running[0].State != backup.StateRunning {
		t.Errorf("%+v", l.Running)
	}
	latest, err := status.ListBackups(t.Context(), w.Repo, every, true, now)
	if err != nil || len(latest.Running) != 0 || len(latest.Backups) != 3 || latest.Backups[0].ID != replica.ID || latest.Backups[1].ID != second.ID || latest.Backups[2].ID != damaged.ID {
		t.Errorf("%+v: %v", latest, err)
	}
	of := func(table string) status.Tables {
		return status.Tables{Text: table, Match: func(name string) bool { return name == table }}
	}
	if l, err := status.ListBackups(t.Context(), w.Repo, of("prod/other"), false, now); err != nil || len(l.Backups) != 2 || len(l.Running) != 0 {
		t.Errorf("%+v: %v", l, err)
	}
	if _, err := status.ListBackups(t.Context(), w.Repo, of("prod/others"), false, now); err == nil || err.Error() != "there is no backup of prod/others; the vault has backups of prod/orders, prod/other" {
		t.Error(err)
	}
}

// TestDescribe tells all of a backup, of one that was given up the reason, and of one
// that runs that it does.
func TestDescribe(t *testing.T) {
	w := vaulttest.NewWorld(t)
	m := w.CutInto(2, 10)
	d, err := status.Describe(t.Context(), w.Repo, vaulttest.BackupOf(m), w.Clock())
	if err != nil || d.ID != m.Backup || d.Segments != 2 || d.Parts != m.Totals.Parts || d.Digest != m.Totals.Digest.String() || d.Settings == nil || d.Encrypt == nil ||
		!slices.Equal(d.Key, []string{"k integer"}) || len(d.Copies)+len(d.Drills) != 0 {
		t.Errorf("%+v: %v", d, err)
	}
	w.Advance(time.Hour)
	open := w.Plan(w.Planner(), vaulttest.Small)
	if _, err := status.Describe(t.Context(), w.Repo, open, w.Clock()); err == nil || !strings.Contains(err.Error(), "is not sealed") {
		t.Error(err)
	}
	if _, err := w.Planner().Void(t.Context(), open, "by hand"); err != nil {
		t.Fatal(err)
	}
	if d, err := status.Describe(t.Context(), w.Repo, open, w.Clock()); err != nil || d.State != vault.Void || d.Reason != "by hand" || d.RecoveryPoint != nil || d.Settings != nil {
		t.Errorf("%+v: %v", d, err)
	}
}

// TestLooks looks at all that runs, sums backups up, and goes on when it has ended.
func TestLooks(t *testing.T) {
	w := vaulttest.NewWorld(t)
	if none, err := status.WatchAll(t.Context(), w.Repo, w.Clock); err != nil || !none.Empty() {
		t.Errorf("%v", err)
	}
	m := w.CutInto(2, 10)
	w.Advance(time.Hour)
	r := w.Begin(m)
	open := w.Plan(w.Planner(), vaulttest.Small)
	// One that was marked, by somebody who died before there was a plan.
	died := vault.Backup{Table: vaulttest.SourceID, ID: vault.NewBackupID(w.Clock(), "died")}
	if err := w.Repo.Mark(t.Context(), vault.Opened(died.Table, died.ID)); err != nil {
		t.Fatal(err)
	}
	// One whose plan is damaged, which can't go on.
	w.Advance(time.Hour)
	damaged := w.Plan(w.Planner(), vaulttest.Small)
	w.Store.(*mem.Store).Replace(damaged.Plan(), []byte("{"))
	all, err := status.WatchAll(t.Context(), w.Repo, w.Clock)
	if err != nil || all.Empty() {
		t.Fatal(err)
	}
	l, err := all.Look(t.Context())
	if err != nil || !l.Running() || len(l.Backups) != 1 || l.Backups[0].Backup != open.ID || len(l.Restores) != 1 || l.Restores[0].Restore != r.Restore || l.Verifications == nil {
		t.Errorf("%+v: %v", l, err)
	}
	w.Sealed(w.Planner(), open)
	w.Finish(r.Restore)
	l, err = all.Look(t.Context())
	if err != nil || l.Running() || l.Backups[0].State != backup.StateSealed || l.Total.Rows != l.Backups[0].Totals.Rows || l.Total.Rows != 20 || l.Total.Done != l.Total.Segments ||
		l.Backups[0].Manifest != nil || l.Restores[0].State != restore.StateDone {
		t.Errorf("%+v: %v", l, err)
	}
	for _, ref := range []status.Ref{{Kind: status.BackupKind, ID: string(m.Backup)}, {Kind: status.RestoreKind, ID: string(r.Restore)}, {Kind: status.BackupKind, ID: string(died.ID)}, {Kind: status.RestoreKind, ID: string(m.Backup)}} {
		want := int64(0)
		if ref.ID == string(m.Backup) && ref.Kind == status.BackupKind || ref.ID == string(r.Restore) {
			want = m.Totals.Rows
		}
		if rows := status.Rows(t.Context(), w.Repo, ref); rows != want {
			t.Errorf("%+v: %d rows, want %d", ref, rows, want)
		}
	}
	one, err := status.WatchOne(w.Repo, status.Ref{Kind: status.RestoreKind, ID: string(r.Restore)}, w.Clock).Look(t.Context())
	if err != nil || len(one.Backups) != 0 || len(one.Restores) != 1 {
		t.Errorf("%+v: %v", one, err)
	}
}

// TestTotal: what is left of backups that run side by side is what is left of the
// slowest.
func TestTotal(t *testing.T) {
	short, long := 3.0, 8.0
	var sum status.Total
	for _, left := range []*float64{nil, &long, &short} {
		sum.Add(&backup.Watched{Left: left, RowsPerSecond: 2, Progress: backup.Progress{Segments: 4, Done: 1, Live: 2, Usage: object.Usage{List: 1}}})
	}
	if *sum.Left != long || sum.RowsPerSecond != 6 || sum.Segments != 12 || sum.Done != 3 || sum.Live != 6 || sum.Usage.List != 3 {
		t.Errorf("%+v", sum)
	}
}

// TestKnown: which tables are to have recovery points and rehearsals, by what is known.
func TestKnown(t *testing.T) {
	p, err := policy.Decode("f", []byte("every: hourly\nkeep: 72 hours\nrules:\n- {name: a, tables: prod/or*, drill: {every: weekly, to: staging/drill}}\n- {name: b, tables: [prod/*, far/*]}"))
	if err != nil {
		t.Fatal(err)
	}
	id := func(region, instance, name string) vault.TableID {
		return vault.TableID{Region: region, Instance: instance, Table: name}
	}
	s := status.Known{Region: "local", Policy: p, Tables: map[string][]string{"prod": {"orders", "new"}, "staging": {"x"}}, Backups: map[vault.TableID][]vault.BackupID{
		id("local", "prod", "orders"): nil, id("local", "prod", "dropped"): nil, id("local", "far", "unlisted"): nil, id("local", "old", "unwanted"): nil, id("elsewhere", "prod", "orders"): nil,
	}}
	names := func(all []vault.TableID) (paths []string) {
		for _, t := range all {
			paths = append(paths, t.Path())
		}
		return paths
	}
	if got, want := s.Instances(), []string{"far", "old", "prod", "staging"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got, want := names(s.BackedUp()), []string{"elsewhere/prod/orders", "local/far/unlisted", "local/prod/new", "local/prod/orders"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	rehearsed := maps.Collect(s.Rehearsed())
	if len(rehearsed) != 1 || rehearsed[id("local", "prod", "orders")] != p.Rules[0] {
		t.Errorf("%v", rehearsed)
	}
	if !s.Wanted("prod", "new") || s.Wanted("old", "unwanted") {
		t.Error("what the policy wants")
	}
	s.Policy = nil
	if len(s.BackedUp()) != 5 || len(maps.Collect(s.Rehearsed())) != 0 || s.Wanted("prod", "new") {
		t.Errorf("without a policy: %v", names(s.BackedUp()))
	}
}

// TestRecoveryPoint: a backup that is marked is none, one that is damaged is named, and
// its name tells an instant to who may read no manifest.
func TestRecoveryPoint(t *testing.T) {
	w := vaulttest.NewWorld(t)
	var all []vault.Backup
	for range 4 {
		b := vault.Backup{Table: vaulttest.SourceID, ID: vault.NewBackupID(w.Clock(), "x")}
		if _, err := w.Repo.Win(t.Context(), b.Manifest(), vaulttest.SealedAt(b, w.Clock(), w.Clock())); err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
		w.Advance(time.Hour)
	}
	w.MarkIn(w.Store, all[3])
	w.MarkIn(w.Store, all[0])
	for _, b := range []vault.Backup{all[0], all[2]} {
		w.Store.(*mem.Store).Replace(b.Manifest(), []byte("{"))
	}
	ended, err := status.Ended(t.Context(), w.Store)
	if err != nil || len(ended[vaulttest.SourceID]) != 4 {
		t.Fatalf("%v: %v", ended, err)
	}
	s := status.Known{Region: "local", Backups: ended}
	at, damaged, err := s.RecoveryPoint(t.Context(), w.Repo, vaulttest.SourceID)
	if err != nil || !at.Equal(all[1].ID.Time()) || len(damaged) != 1 || damaged[0].Backup != all[2] {
		t.Errorf("%v, %v: %v", at, damaged, err)
	}
	now := all[2].ID.Time()
	if ahead := s.Ahead(vaulttest.SourceID, now); !slices.Equal(ahead, []string{string(all[3].ID)}) || !s.Named(vaulttest.SourceID, now).Equal(now) {
		t.Errorf("%v, %v", ahead, s.Named(vaulttest.SourceID, now))
	}
	if at, damaged, err := s.RecoveryPoint(t.Context(), w.Repo, vaulttest.TargetID); err != nil || !at.IsZero() || len(damaged) != 0 || !s.Named(vaulttest.TargetID, now).IsZero() {
		t.Errorf("%v, %v: %v", at, damaged, err)
	}
}

// TestOverdue: what has been due for two days counts, and what stays at the window's
// beginning does not, nor what no rule has made.
func TestOverdue(t *testing.T) {
	p, err := policy.Decode("f", []byte("tables: prod/*\nevery: hourly\nkeep: 72 hours\n"))
	if err != nil {
		t.Fatal(err)
	}
	now := vaulttest.Day
	due := p.Rules[0].Every.Due(now)
	for hours, want := range map[int]int{10: 0, 119: 0, 121: 0, 130: 9} {
		var ids []vault.BackupID
		for n := range 10 {
			ids = append(ids, vault.NewBackupID(due.Add(time.Duration(n-1000)*time.Hour), "manual"))
		}
		for n := range hours {
			ids = append(ids, p.Rules[0].Backup(vaulttest.SourceID, due.Add(time.Duration(n-hours)*time.Hour)).ID)
		}
		s := status.Known{Region: "local", Policy: p, Backups: map[vault.TableID][]vault.BackupID{vaulttest.SourceID: ids}}
		if n, oldest := s.Overdue(now); n != want || want > 0 && !oldest.Equal(due.Add(-130*time.Hour)) {
			t.Errorf("%d hours: %d, the oldest of %v", hours, n, oldest)
		}
	}
}
