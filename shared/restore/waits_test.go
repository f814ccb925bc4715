package restore_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/vaulttest"
)

// loaded is a world with a restore of which every segment is loaded, and none compared.
func loaded(t *testing.T) (*vaulttest.World, vault.Restore) {
	t.Helper()
	w := vaulttest.NewWorld(t)
	w.Fill(vaulttest.Definition(), 50)
	plan := w.Begin(w.Backup(vault.Settings{}))
	w.Look(plan.Restore)
	w.Work()
	return w, vault.Restore{ID: plan.Restore}
}

// TestComparingWaitsForLoading: while a start may still write rows, nothing is compared.
func TestComparingWaitsForLoading(t *testing.T) {
	w, r := loaded(t)
	log := fanout.NewLog(w.Repo, r.Log())
	if mine, err := log.Claim(t.Context(), vault.Note{Segment: "000000", Start: 1}, w.Run()); err != nil || !mine {
		t.Fatal(mine, err)
	}
	if p := w.Look(r.ID); p.State != restore.StateVerifying || !strings.Contains(p.Waiting, "it waits: ") || p.Dispatched != 0 || len(w.Queue) != 0 {
		t.Errorf("%+v, and %v is dispatched", p, w.Queue)
	}
	if err := w.Repo.Mark(t.Context(), r.Log().End("000000", 1)); err != nil {
		t.Fatal(err)
	}
	if p := w.Look(r.ID); p.Waiting != "" || p.Dispatched != 1 {
		t.Errorf("once it has ended: %+v", p)
	}
}

// TestChecksAreGatheredLater: a look whose time is up leaves the checks to the next one.
func TestChecksAreGatheredLater(t *testing.T) {
	w, r := loaded(t)
	w.Look(r.ID)
	w.Work()
	late := w.Run()
	late.Stop = w.Clock()
	p, err := w.Restorer().Tick(t.Context(), late, r.ID)
	if err != nil || p.State != restore.StateVerifying || !strings.Contains(p.Waiting, "1 groups of checks to gather") || p.Proof != nil {
		t.Errorf("%+v, %v", p, err)
	}
	w.Proved(w.Look(r.ID), vault.OK)
}

// unseen is a store in which nobody may read the notes about copies.
type unseen struct{ object.Store }

func (s unseen) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, object.Info, error) {
	if strings.HasPrefix(name, vault.CopyNotesPrefix) {
		return nil, object.Info{}, fmt.Errorf("AccessDenied: %w", fs.ErrPermission)
	}
	return s.Store.Open(ctx, name, off, n)
}

// TestReplicasThatAreKnown: of the replicas that are known, a restore reads from those
// that have a copy, and goes without where it may not be seen which do.
func TestReplicasThatAreKnown(t *testing.T) {
	for _, c := range []struct {
		name           string
		copied, unseen bool
	}{{"a copy", true, false}, {"none", false, false}, {"nobody may see", true, true}} {
		w := vaulttest.NewWorld(t)
		w.Fill(vaulttest.Definition(), 60)
		m, far := w.Backup(vaulttest.Small), &mem.Store{}
		if c.copied {
			w.CopyAll(m, far)
		}
		if c.unseen {
			w.In(unseen{w.Store})
		}
		p := w.Restorer()
		p.Known = []repository.Replica{vaulttest.ReplicaAt(far)}
		plan, err := p.Begin(t.Context(), w.Run(), w.Request(m))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if want := c.copied && !c.unseen; (len(plan.Replicas) == 1) != want {
			t.Errorf("%s: it reads from %v", c.name, plan.Replicas)
		}
		w.Proved(w.Finish(plan.Restore), vault.OK)
	}
}

// TestRequestForNothing answers a request for a backup, or for the newest of a table,
// where there is none.
func TestRequestForNothing(t *testing.T) {
	w := vaulttest.NewWorld(t)
	for name, content := range map[string]string{
		"requests/table.json":  `{"table":"prod/orders","to":"prod/copy"}`,
		"requests/backup.json": `{"backup":"20261120T021400Z-00000000","to":"prod/copy"}`,
	} {
		if _, err := w.Store.Create(t.Context(), name, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		if p, err := w.Requests().Serve(t.Context(), w.Run(), name); err != nil || p.Answer == nil || p.Answer.OK || p.Answer.Error == "" {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

// outOfRange is an instance that refuses a row which no batch has.
type outOfRange struct {
	table.Instance
	index func(rows int) int
}

func (s *outOfRange) Write(ctx context.Context, name string, b table.Batch) (table.WriteResult, error) {
	result, err := s.Instance.Write(ctx, name, b)
	result.Refused = append(slices.Clone(result.Refused), table.Refusal{Index: s.index(b.Len()), Code: "OTSParameterInvalid"})
	return result, err
}

// TestRefusalOfNoRow ends in an error where the service refuses a row that was not sent.
func TestRefusalOfNoRow(t *testing.T) {
	for _, index := range []func(int) int{func(int) int { return -1 }, func(rows int) int { return rows }} {
		w := vaulttest.NewWorld(t)
		w.Fill(vaulttest.Definition(), 10)
		plan := w.Begin(w.Backup(vault.Settings{}))
		l := w.Loader()
		l.Tables = &outOfRange{w.Tables, index}
		_, err := l.Load(t.Context(), w.Run(), fanout.Work{Verb: fanout.VerbImport, Restore: plan.Restore, Segment: "000000"})
		if err == nil || !strings.Contains(err.Error(), "the service refused row") {
			t.Errorf("%v", err)
		}
	}
}
