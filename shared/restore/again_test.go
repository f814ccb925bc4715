package restore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// TestGivenAgain gives the command of a restore again after that has ended: what it came
// to is told, as long as its table stands; nothing is written, and no other table is
// taken for it.
func TestGivenAgain(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 20)
	m := w.Backup(vault.Settings{})
	w.Advance(time.Hour)
	other := w.Backup(vault.Settings{})
	done := w.Restore(m)
	w.Proved(done, vault.OK)
	again := func(m *vault.Manifest, change func(*restore.Request)) (*vault.RestorePlan, error) {
		w.Advance(time.Minute) // a command that is given again has another time
		req := w.Request(m)
		if change != nil {
			change(&req)
		}
		return w.Restorer().Begin(t.Context(), w.Run(), req)
	}
	refused := func(err error, texts ...string) {
		t.Helper()
		if !errors.Is(err, table.ErrExist) {
			t.Fatalf("%v", err)
		}
		for _, text := range texts {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("the error does not say %q: %v", text, err)
			}
		}
	}
	before := len(w.Tables.Rows(vaulttest.TargetID.Table))
	// Also with a budget, which it does not need any more.
	for _, change := range []func(*restore.Request){nil, func(r *restore.Request) { r.Budget.WriteUnits = 100 }} {
		plan, err := again(m, change)
		if err != nil || plan.Restore != done.Restore {
			t.Fatalf("%+v, %v; want restore %s", plan, err, done.Restore)
		}
		if p := w.Look(plan.Restore); p.State != restore.StateDone || p.Proof == nil || !p.Proof.At.Before(w.Clock()) {
			t.Errorf("%+v", p)
		}
	}
	_, err := again(other, nil)
	refused(err, "restore "+string(done.Restore)+" has made it of backup "+string(m.Backup), "asks for backup "+string(other.Backup), "another name")
	_, err = again(m, func(r *restore.Request) { r.New = true })
	refused(err, "proved it at 2026-", "drop it first")
	_, err = again(m, func(r *restore.Request) { r.Own = true })
	refused(err, "proved it at 2026-")
	if n := len(w.Tables.Rows(vaulttest.TargetID.Table)); n != before || w.Exists(vault.ClaimName(vaulttest.TargetID, 1)) {
		t.Errorf("%d rows of %d, or a second claim", n, before)
	}
	dropAndMake(w)
	_, err = again(m, nil)
	refused(err, "not the one that restore "+string(done.Restore)+" has made", "drop it first")
	untouched(w)
	w.Tables.Drop(vaulttest.TargetID.Table)
	plan, err := again(m, nil)
	if err != nil || plan.Restore == done.Restore {
		t.Fatalf("after the table was dropped: %+v, %v", plan, err)
	}
	// That one is given up, and its table stays.
	if _, err := restore.GiveUp(t.Context(), w.Repo, w.Run(), plan.Restore, "the wrong day"); err != nil {
		t.Fatal(err)
	}
	_, err = again(m, nil)
	refused(err, "restore "+string(plan.Restore)+" has made it, and was given up: the wrong day", "drop it")
}

// TestGivenAgainNameless does not take a table for the restored one where the service
// tells no table from another of its name.
func TestGivenAgainNameless(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Tables.Nameless = true
	w.Fill(vaulttest.Definition(), 5)
	m := w.Backup(vault.Settings{})
	w.Proved(w.Restore(m), vault.OK)
	w.Advance(time.Minute)
	if _, err := w.Restorer().Begin(t.Context(), w.Run(), w.Request(m)); !errors.Is(err, table.ErrExist) || !strings.Contains(err.Error(), "the service does not tell") {
		t.Errorf("%v", err)
	}
}

// TestAnotherKindOfTableInOneSecond gives two commands in one second, of which the second
// wants a table that takes local transactions: it is not told that it has one.
func TestAnotherKindOfTableInOneSecond(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 5)
	m := w.Backup(vault.Settings{})
	req := w.Request(m)
	done, err := w.Restorer().Begin(t.Context(), w.Run(), req)
	if err != nil {
		t.Fatal(err)
	}
	w.Proved(w.Finish(done.Restore), vault.OK)
	again, err := w.Restorer().Begin(t.Context(), w.Run(), req)
	if err != nil || again.Restore != done.Restore {
		t.Errorf("the same command: %+v, %v", again, err)
	}
	req.LocalTransactions = true
	if _, err := w.Restorer().Begin(t.Context(), w.Run(), req); !errors.Is(err, table.ErrExist) || !strings.Contains(err.Error(), "without local transactions") {
		t.Errorf("another kind of table: %v", err)
	}
}

// TestDamagedIndexes flips a bit of an index: before the restore has begun, nothing is
// made and the object is named; after, it is named before a row of its segment is
// written. A shard that is damaged is named too, and by the command that is given again.
func TestDamagedIndexes(t *testing.T) {
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	world := func(object int) (*vaulttest.World, *vault.Manifest, vault.Object) {
		w := vaulttest.NewWorld(t)
		w.Quiet = true
		w.Fill(vaulttest.Definition(), 20)
		m := w.Backup(vault.Settings{})
		parts := w.Parts(m) // the plan, a roll-up, a shard, an index
		return w, m, parts[len(parts)-object]
	}
	damage := func(w *vaulttest.World, o vault.Object) {
		w.In(&vaulttest.Bent{Store: w.Store, Name: o.Name, Bend: flip})
	}

	w, m, index := world(1)
	plain := w.Store
	damage(w, index)
	_, err := w.Restorer().Begin(t.Context(), w.Run(), w.Request(m))
	if !errors.Is(err, vault.ErrCorrupt) || !strings.Contains(err.Error(), index.Name) || !strings.Contains(err.Error(), "nothing was made") || !strings.Contains(err.Error(), "--also") {
		t.Errorf("%v", err)
	}
	if _, err := w.Tables.Describe(t.Context(), vaulttest.TargetID.Table); !errors.Is(err, table.ErrNotExist) || w.Exists(vault.ClaimName(vaulttest.TargetID, 0)) {
		t.Errorf("something was made: %v", err)
	}
	// Once it is mended, or another backup named, nothing is in the way.
	w.In(plain)
	w.Proved(w.Restore(m), vault.OK)

	w, m, index = world(1)
	plan := w.Begin(m)
	damage(w, index)
	p := w.Finish(plan.Restore)
	if n := len(w.Tables.Rows(vaulttest.TargetID.Table)); p.State != restore.StateFailed || !strings.Contains(p.LastError, index.Name) || n > 0 {
		t.Errorf("%d rows were written before it was said: %+v", n, p)
	}
	// A replica can't be given to it any more, and it says what to do.
	req := w.Request(m)
	req.Replicas = []string{"0123456789abcdef"}
	_, err = w.Restorer().Begin(t.Context(), w.Run(), req)
	if !errors.Is(err, table.ErrInvalid) || !strings.Contains(err.Error(), "drop prod/orders_copy") || !strings.Contains(err.Error(), "--new beside --also") {
		t.Errorf("%v", err)
	}

	// What is damaged after it was loaded is found when it is compared.
	w, m, index = world(1)
	plan = w.Begin(m)
	w.Look(plan.Restore)
	w.Work()
	damage(w, index)
	w.Proved(w.Finish(plan.Restore), vault.Corrupt)
	w.Advance(time.Minute)
	_, err = w.Restorer().Begin(t.Context(), w.Run(), w.Request(m))
	if !errors.Is(err, vault.ErrCorrupt) || !strings.Contains(err.Error(), index.Name) || !strings.Contains(err.Error(), "found 1 object of backup "+string(m.Backup)+" damaged") {
		t.Errorf("%v", err)
	}
}

// readOnly is a store that may not be written.
type readOnly struct{ object.Store }

func (readOnly) Create(context.Context, string, io.Reader) (object.Info, error) {
	return object.Info{}, fmt.Errorf("AccessDenied: %w", fs.ErrPermission)
}

// TestVaultThatMayBeReadOnly says what to do where the vault may not be written, and
// makes no table.
func TestVaultThatMayBeReadOnly(t *testing.T) {
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 5)
	m := w.Backup(vault.Settings{})
	w.In(readOnly{w.Store})
	_, err := w.Restorer().Begin(t.Context(), w.Run(), w.Request(m))
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "may not be written") || !strings.Contains(err.Error(), "vault.json with them") {
		t.Errorf("%v", err)
	}
	if _, err := w.Tables.Describe(t.Context(), vaulttest.TargetID.Table); !errors.Is(err, table.ErrNotExist) {
		t.Errorf("a table was made: %v", err)
	}
}
