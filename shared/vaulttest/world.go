// Package vaulttest is a small world for tests: a vault and an instance in memory, a
// clock under the test's hand, and the functions, which take up what each other submit.
package vaulttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/backup"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/mem"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/restore"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/table/tabletest"
	"github.com/tablevault/tablevault/shared/vault"
	"github.com/tablevault/tablevault/shared/verify"
)

var (
	SourceID = vault.TableID{Region: "local", Instance: "prod", Table: "orders"}
	TargetID = vault.TableID{Region: "local", Instance: "prod", Table: "orders_copy"}
)

// Day is the hour at which every test begins.
var Day = time.Date(2026, 11, 20, 2, 14, 0, 0, time.UTC)

// World is a vault, an instance and the functions, in one process.
type World struct {
	T      testing.TB
	Store  object.Store
	Repo   *repository.Repository
	Tables *tabletest.Tables
	// Instance is what the functions work on, tables if it is nil.
	Instance table.Instance
	// Staging is the instance that restores go to, Instance if it is nil.
	Staging *tabletest.Tables
	// Hop is how long an invocation works before it is to stop, counted in looks at its
	// clock; 0 for as long as it takes.
	Hop int
	// Workers is how many segments of a restore may be worked on at a time, 0 for any
	// number.
	Workers int
	// Tell is after how long invocations tell how far they have come, 0 for never.
	Tell time.Duration
	// Pokes has those looks carried out that workers ask for who find nothing left to do;
	// without it they are dropped, and tests look by themselves. Looks at requests are
	// carried out in any case.
	Pokes bool
	// Once drops work that was submitted before, as the platform does by the ids of
	// tasks.
	Once bool
	// Policy is the text by which a tick goes that a worker asks for.
	Policy string
	// Quiet keeps failures of invocations out of the test's log.
	Quiet    bool
	Manifest *vault.Manifest
	// Replicas are the stores of replicas, by their addresses.
	Replicas map[string]object.Store
	// ledger, if there is one, sees what each invocation asks of the store, and the
	// records tell of it.
	Ledger *Ledger

	mu    sync.Mutex
	Now   time.Time
	Queue []fanout.Work
	known map[fanout.Work]bool
	last  error // of the newest invocation that failed
}

// NewWorld is a world with an empty vault and no table.
func NewWorld(t testing.TB) *World {
	t.Helper()
	w := &World{T: t, Tables: tabletest.New(), Now: Day}
	w.Tables.Now = w.Clock
	w.Store = &mem.Store{Now: w.Clock}
	var err error
	if w.Repo, err = repository.Init(t.Context(), w.Store, Day); err != nil {
		t.Fatal(err)
	}
	return w
}

// Clock is the time of everything in the world.
func (w *World) Clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Now
}

// Advance moves the clock on.
func (w *World) Advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.Now = w.Now.Add(d)
}

// Submit queues work for Work.
func (w *World) Submit(_ context.Context, work fanout.Work) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.Once {
		id := work
		id.Rate, id.ReadUnits, id.WriteUnits = 0, 0, 0
		if w.known[id] {
			return nil
		}
		if w.known == nil {
			w.known = map[fanout.Work]bool{}
		}
		w.known[id] = true
	}
	if work.After == "" || work.Verb == fanout.VerbRestore && work.Request != "" || w.Pokes {
		w.Queue = append(w.Queue, work)
	}
	return nil
}

// Take takes the work that has been queued longest.
func (w *World) Take() (fanout.Work, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.Queue) == 0 {
		return fanout.Work{}, false
	}
	work := w.Queue[0]
	w.Queue = w.Queue[1:]
	return work, true
}

// Requests numbers the invocations.
var Requests atomic.Int64

// Run is an invocation with ten minutes to go.
func (w *World) Run() fanout.Run {
	begin := w.Clock()
	run := fanout.Run{Request: fmt.Sprint("request ", Requests.Add(1)), Until: begin.Add(10 * time.Minute), Tell: w.Tell, Now: w.Clock}
	if w.Hop > 0 {
		looks := 0
		var mu sync.Mutex
		run.Stop, run.Until = begin.Add(9*time.Minute), begin.Add(9*time.Minute+time.Second)
		run.Now = func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			if looks++; looks > w.Hop {
				return begin.Add(9 * time.Minute)
			}
			return begin
		}
	}
	return run
}

// Log is nobody's.
func (w *World) Log() *slog.Logger { return slog.New(slog.DiscardHandler) }

// worked is the instance that the functions work on.
func (w *World) worked() table.Instance {
	if w.Instance != nil {
		return w.Instance
	}
	return w.Tables
}

// restored is the instance that restores go to.
func (w *World) restored() table.Instance {
	if w.Staging != nil {
		return w.Staging
	}
	return w.worked()
}

// opened is the vault as an invocation of a kind opens it.
func (w *World) opened(kind string) *repository.Repository {
	if w.Ledger == nil {
		return w.Repo
	}
	return w.Ledger.Open(w.T, kind)
}

// Planner, Exporter, Restorer, Loader, Checker and Verifier are the functions, as an
// invocation makes them.
func (w *World) Planner() *backup.Planner {
	return &backup.Planner{Repo: w.opened("plan"), Tables: w.worked(), Work: w, Log: w.Log(), Now: w.Clock}
}

func (w *World) Exporter() *backup.Exporter {
	return &backup.Exporter{Repo: w.opened("export"), Tables: w.worked(), Work: w, Log: w.Log()}
}

func (w *World) Restorer() *restore.Planner {
	return &restore.Planner{Repo: w.opened("import"), Tables: w.restored(), Work: w, Log: w.Log(), Workers: w.Workers}
}

func (w *World) Loader() *restore.Loader {
	return &restore.Loader{Repo: w.opened("import"), Tables: w.restored(), Work: w, Log: w.Log()}
}

func (w *World) Checker() *restore.Checker {
	c := &restore.Checker{Repo: w.opened("verify"), Tables: w.restored(), Log: w.Log()}
	if w.Pokes {
		c.Work = w
	}
	return c
}

func (w *World) Verifier() *verify.Verifier {
	return &verify.Verifier{Repo: w.opened("verify"), Tables: w.restored(), Log: w.Log(), Now: w.Clock}
}

// Work carries out what is queued, and what that queues.
func (w *World) Work() {
	w.T.Helper()
	for n := 0; ; n++ {
		work, ok := w.Take()
		if !ok {
			return
		}
		if n > 10_000 {
			w.T.Fatal("the work does not end")
		}
		err := w.Do(work)
		if err != nil {
			if !w.Quiet {
				w.T.Logf("%s %s start %d: %v", work.Verb, work.Segment, work.Start, err)
			}
			w.last = err
		}
	}
}

// Do has a function carry out what it is submitted, in an invocation of its own.
func (w *World) Do(work fanout.Work) (err error) {
	switch work.Verb {
	case fanout.VerbExport:
		_, err = w.Exporter().Export(w.T.Context(), w.Run(), work)
	case fanout.VerbImport:
		_, err = w.Loader().Load(w.T.Context(), w.Run(), work)
	case fanout.VerbVerify:
		_, err = w.Checker().Check(w.T.Context(), w.Run(), work)
	case fanout.VerbCopy:
		address := w.AddressOf(work.Replica)
		c := w.Replicator(w.Replicas[address])
		c.Address = address
		_, err = c.Copy(w.T.Context(), w.Run(), work)
	case fanout.VerbSeal:
		_, err = w.Planner().Tick(w.T.Context(), w.Run(), vault.Backup{Table: work.Table, ID: work.Backup})
	case fanout.VerbTick:
		_, err = w.Reconciler(w.Policy).Tick(w.T.Context(), w.Run(), w.Clock())
	case fanout.VerbRestore:
		if work.Request != "" {
			_, err = w.Requests().Serve(w.T.Context(), w.Run(), work.Request)
		} else {
			_, err = w.Restorer().Tick(w.T.Context(), w.Run(), work.Restore)
		}
	}
	return err
}

// AddressOf is the address of a replica with a key.
func (w *World) AddressOf(key string) string {
	for address := range w.Replicas {
		if place.Key(address) == key {
			return address
		}
	}
	w.T.Fatalf("no further vault has the key %s", key)
	return ""
}

// Bent is a store in which one object's bytes come out otherwise, and whose records do
// not show it.
type Bent struct {
	object.Store
	Name string
	Bend func([]byte) []byte
}

func (b *Bent) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, object.Info, error) {
	if name != b.Name || n == 0 {
		return b.Store.Open(ctx, name, off, n)
	}
	content, err := object.ReadAll(ctx, b.Store, name, 1<<30)
	if err != nil {
		return nil, object.Info{}, err
	}
	content = b.Bend(bytes.Clone(content))
	content = content[min(off, int64(len(content))):]
	if n > 0 {
		content = content[:min(n, int64(len(content)))]
	}
	return io.NopCloser(bytes.NewReader(content)), object.Info{Name: name, Size: int64(len(content))}, nil
}

// ErrDead is what everything answers to an invocation that was killed.
var ErrDead = errors.New("killed")
