package backup_test

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// short is a store that says of shards that it has a byte less than it was sent.
type short struct{ object.Store }

func (s short) Create(ctx context.Context, name string, r io.Reader) (object.Info, error) {
	info, err := s.Store.Create(ctx, name, r)
	if strings.HasSuffix(name, ".shard") {
		info.Size--
	}
	return info, err
}

// exporting is a world with a planned backup of one lane, and the work that exports it.
func exporting(t *testing.T) (*vaulttest.World, vault.Backup, fanout.Work) {
	t.Helper()
	w := vaulttest.NewWorld(t)
	w.Quiet = true
	w.Fill(vaulttest.Definition(), 100)
	b := w.Plan(w.Planner(), vault.Settings{Lanes: 1})
	return w, b, fanout.Work{Verb: fanout.VerbExport, Table: b.Table, Backup: b.ID, Segment: "000000"}
}

// TestStoreThatKeptLess: a shard of which the store has fewer bytes than were sent is no
// part of a backup.
func TestStoreThatKeptLess(t *testing.T) {
	w, b, work := exporting(t)
	repo, err := repository.Open(t.Context(), short{w.Store.(*mem.Store)})
	if err != nil {
		t.Fatal(err)
	}
	e := w.Exporter()
	e.Repo = repo
	if reply, err := e.Export(t.Context(), w.Run(), work); err == nil || !strings.Contains(err.Error(), "the store has") {
		t.Errorf("%+v, %v", reply, err)
	}
	if w.Exists(b.Log().Slot(work.Segment, 0)) {
		t.Error("a part of it was noted")
	}
}

// TestLostSlot has a second worker store the part that a first one reads: who loses the
// slot says so, and goes on with nothing.
func TestLostSlot(t *testing.T) {
	w, _, work := exporting(t)
	var winner error
	once := false
	w.Tables.Fault = func(c tabletest.Call) error {
		if !once && c.Name == "Scan" {
			once = true
			again := w.Run()
			again.Retry = 1 // else it would give way to the first
			_, winner = w.Exporter().Export(t.Context(), again, work)
		}
		return nil
	}
	reply, err := w.Exporter().Export(t.Context(), w.Run(), work)
	if err != nil || winner != nil || !once || !reply.Superseded || reply.Done {
		t.Errorf("%+v, %v, %v", reply, err, winner)
	}
}
