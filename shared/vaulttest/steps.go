package vaulttest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io/fs"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/verify"
)

// Backup backs the source up.
func (w *World) Backup(s vault.Settings) *vault.Manifest {
	w.T.Helper()
	plan, err := w.Planner().Plan(w.T.Context(), backup.PlanRequest{Table: SourceID, Kind: vault.Full, At: w.Clock(), Trigger: "test", New: true, Settings: s})
	if err != nil {
		w.T.Fatal(err)
	}
	for range 100 {
		progress, err := w.Planner().Tick(w.T.Context(), w.Run(), vault.Backup{Table: plan.Table, ID: plan.Backup})
		if err != nil {
			w.T.Fatal(err)
		}
		if progress.Manifest != nil {
			return progress.Manifest
		}
		w.Work()
	}
	w.T.Fatal("the backup does not end")
	return nil
}

// Request asks for a restore of a backup into the target.
func (w *World) Request(m *vault.Manifest) restore.Request {
	return restore.Request{Backup: vault.Backup{Table: m.Table, ID: m.Backup}, Target: TargetID, At: w.Clock()}
}

// Begin begins a restore.
func (w *World) Begin(m *vault.Manifest) *vault.RestorePlan {
	w.T.Helper()
	plan, err := w.Restorer().Begin(w.T.Context(), w.Run(), w.Request(m))
	if err != nil {
		w.T.Fatal(err)
	}
	return plan
}

// Finish drives a restore until it is done or has failed for good.
func (w *World) Finish(id vault.RestoreID) restore.Progress {
	w.T.Helper()
	for range 200 {
		progress, err := w.Restorer().Tick(w.T.Context(), w.Run(), id)
		if err != nil {
			w.T.Fatal(err)
		}
		if progress.State == restore.StateDone || progress.State == backup.StateFailed {
			return progress
		}
		if progress.Dispatched == 0 {
			w.Advance(time.Minute)
		}
		w.Work()
	}
	w.T.Fatal("the restore does not end")
	return restore.Progress{}
}

// Restore restores a backup into the target.
func (w *World) Restore(m *vault.Manifest) restore.Progress {
	w.T.Helper()
	return w.Finish(w.Begin(m).Restore)
}

// Proved fails the test unless a restore was proved with a verdict.
func (w *World) Proved(p restore.Progress, want vault.Verdict) {
	w.T.Helper()
	if p.Proof == nil {
		w.T.Fatalf("no proof: %+v; %v", p, w.last)
	}
	if p.Proof.Verdict != want {
		w.T.Fatalf("verdict %s, want %s: %+v", p.Proof.Verdict, want, p.Proof.Check)
	}
}

// Same fails the test unless both tables have the same rows.
func (w *World) Same(a, b string) {
	w.T.Helper()
	as, bs := w.Tables.Rows(a), w.Tables.Rows(b)
	if len(as) != len(bs) {
		w.T.Fatalf("%s has %d rows, %s has %d", a, len(as), b, len(bs))
	}
	if len(as) == 0 {
		w.T.Log("both tables are empty")
	}
	schema := Definition().Schema
	for i := range as {
		if x, y := tabletest.Encode(schema, as[i]), tabletest.Encode(schema, bs[i]); !bytes.Equal(x, y) {
			w.T.Fatalf("row %d: %s has %v with %d cells, %s has %v with %d, or other ones", i, a, as[i].Key, len(as[i].Cells), b, bs[i].Key, len(bs[i].Cells))
		}
	}
}

// Long is set by CI: larger runs of what the tests do anyway.
var Long = flag.Bool("fanout.long", false, "run the fan-out tests at full size")

// Cut is an instance that proposes the given split points.
type Cut struct {
	table.Instance
	Points []table.Key
}

func (c Cut) SplitPoints(context.Context, string, table.Schema, int64) ([]table.Key, error) {
	return c.Points, nil
}

// Plan plans a full of the source, cut at the given keys.
func (w *World) Plan(p *backup.Planner, settings vault.Settings, points ...table.Key) vault.Backup {
	w.T.Helper()
	p.Tables = Cut{w.Tables, points}
	plan, err := p.Plan(w.T.Context(), backup.PlanRequest{Table: SourceID, Kind: vault.Full, At: w.Clock(), Trigger: "test", New: true, Settings: settings})
	if err != nil {
		w.T.Fatal(err)
	}
	return vault.Backup{Table: SourceID, ID: plan.Backup}
}

// Sealed works and looks until the backup is sealed.
func (w *World) Sealed(p *backup.Planner, b vault.Backup) *vault.Manifest {
	w.T.Helper()
	for range 200 {
		w.Work()
		progress := TickBackup(w, p, b)
		if progress.State != backup.StateRunning {
			if progress.State != backup.StateSealed {
				w.T.Fatalf("%+v", progress)
			}
			return progress.Manifest
		}
		if progress.Dispatched == 0 {
			w.Advance(11 * time.Minute)
		}
	}
	w.T.Fatal("the backup does not end")
	return nil
}

// CutInto backs up a table of so many segments of so many rows each.
func (w *World) CutInto(segments, rows int) *vault.Manifest {
	w.T.Helper()
	w.Keyed(IntKey, Ints(segments*rows))
	p := w.Planner()
	m := w.Sealed(p, w.Plan(p, vault.Settings{Lanes: 1}, Cuts(segments*rows, segments)...))
	if m.Segments != segments {
		w.T.Fatalf("%d segments", m.Segments)
	}
	return m
}

// Look looks at a restore.
func (w *World) Look(id vault.RestoreID) restore.Progress {
	w.T.Helper()
	p, err := w.Restorer().Tick(w.T.Context(), w.Run(), id)
	if err != nil {
		w.T.Fatal(err)
	}
	return p
}

func (w *World) Verify(m *vault.Manifest, depth string) *vault.Proof {
	w.T.Helper()
	proof, err := w.Verifier().Verify(w.T.Context(), verify.Request{Backup: vault.Backup{Table: m.Table, ID: m.Backup}, Depth: depth})
	if err != nil {
		w.T.Fatal(err)
	}
	return proof
}

// Parts are the objects that a backup consists of.
func (w *World) Parts(m *vault.Manifest) []vault.Object {
	w.T.Helper()
	objects := append([]vault.Object{*m.Plan}, m.Groups...)
	for g, err := range w.Repo.Groups(w.T.Context(), m) {
		if err != nil {
			w.T.Fatal(err)
		}
		for _, s := range g.Segments {
			for _, slot := range s.Slots {
				objects = append(objects, slot.Part.Shard, slot.Part.Index)
			}
		}
	}
	return objects
}

// MarkIn marks a backup in a store, as prune does.
func (w *World) MarkIn(store object.Store, b vault.Backup) {
	w.T.Helper()
	data, err := vault.Encode(b.Mark(), &vault.Mark{Backup: b.ID, Table: b.Table, At: w.Clock(), Command: vault.Program, Reason: "test"})
	if err == nil {
		_, err = store.Create(w.T.Context(), b.Mark(), strings.NewReader(string(data)))
	}
	if err != nil {
		w.T.Fatal(err)
	}
}

// In has the vault be in a store, as an invocation opens it.
func (w *World) In(store object.Store) {
	w.T.Helper()
	repo, err := repository.Open(w.T.Context(), store)
	if err != nil {
		w.T.Fatal(err)
	}
	w.Store, w.Repo = store, repo
}

// Remove takes objects out of the vault.
func (w *World) Remove(names ...string) {
	w.T.Helper()
	for _, name := range names {
		if err := w.Store.Delete(w.T.Context(), name); err != nil {
			w.T.Fatal(err)
		}
	}
}

// Exists says whether the vault has an object.
func (w *World) Exists(name string) bool {
	w.T.Helper()
	_, err := object.Stat(w.T.Context(), w.Store, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.T.Fatal(err)
	}
	return err == nil
}

func TickBackup(w *World, p *backup.Planner, b vault.Backup) backup.Progress {
	w.T.Helper()
	progress, err := p.Tick(w.T.Context(), w.Run(), b)
	if err != nil {
		w.T.Fatal(err)
	}
	return progress
}
