// Package verify proves backups: a whole one, at a depth that is asked for, also against
// the rows of a table; its copy in another vault; and each segment of it.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/tablevault/tablevault/shared/backup/coverage"
	"github.com/tablevault/tablevault/shared/compare"
	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/guard"
	"github.com/tablevault/tablevault/shared/object"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/sealed"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/throttle"
	"github.com/tablevault/tablevault/shared/vault"
)

// Verifier proves backups.
type Verifier struct {
	Repo *repository.Repository
	// Tables is the instance of the table that is compared with; nil where
	// nothing is compared.
	Tables table.Instance
	Log    *slog.Logger
	// Memory bounds the pages in flight, in bytes; 0 means DefaultMemory.
	Memory int64
	Now    func() time.Time
}

// How deep a verification goes; each does what the one before it does.
const (
	// DepthObjects asks the store for each object, its size and its checksum.
	DepthObjects = "objects"
	// DepthRead reads every object, and proves of every shard that its
	// checksums, order, counts and digests are as recorded.
	DepthRead = "read"
	// DepthRows compares with the rows of a table, in both directions.
	DepthRows = "rows"
)

// Request says what is to be verified.
type Request struct {
	Backup vault.Backup
	// Restore, if there is one, says which backup and which table are compared,
	// and which rows the service refused.
	Restore vault.RestoreID
	// Against is the table that is compared with, at DepthRows; nil means the
	// restore's target, or the table that was backed up.
	Against *vault.TableID
	Depth   string
	// ReadUnits is what may be read of that table per second, in read units; 0 for as
	// much as there is.
	ReadUnits float64
	// Progress is told now and then what was found so far. It is called by one
	// goroutine at a time.
	Progress func(vault.Check)
}

// segmentsInFlight is how many segments one process verifies at a time.
const segmentsInFlight = 4

// Verify verifies a whole backup in this process. What is wrong with the backup
// is in the proof; the error is about what kept it from being verified.
func (v *Verifier) Verify(ctx context.Context, run fanout.Run, req Request) (*vault.Proof, error) {
	switch req.Depth {
	case DepthObjects, DepthRead, DepthRows:
	default:
		return nil, fmt.Errorf("verify: depth %q: want objects, read or rows", req.Depth)
	}
	if err := (vault.Budget{ReadUnits: req.ReadUnits}).Validate(); err != nil {
		return nil, table.Invalidf("verify: %w", err)
	}
	proof, err := v.verify(ctx, run, req)
	if err != nil && req.Restore != "" {
		return nil, fmt.Errorf("verify restore %s: %w", req.Restore, err)
	}
	if err != nil {
		return nil, fmt.Errorf("verify backup %s of %s: %w", req.Backup.ID, req.Backup.Table, err)
	}
	proof.Usage = v.Repo.TakeUsage()
	return proof, nil
}

func (v *Verifier) verify(ctx context.Context, run fanout.Run, req Request) (*vault.Proof, error) {
	var restore *vault.RestorePlan
	if req.Restore != "" {
		var err error
		if restore, err = v.Repo.RestorePlan(ctx, req.Restore); err != nil {
			return nil, err
		}
		req.Backup = vault.Backup{Table: restore.Source, ID: restore.Backup}
	}
	// A restore that has not ended holds its backup.
	held := restore != nil
	if held {
		if _, err := v.Repo.RestoreProof(ctx, req.Restore); err == nil {
			held = false
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if !held {
		if err := v.Repo.CheckNotMarked(ctx, req.Backup); err != nil {
			return nil, err
		}
	}
	manifest, o, err := v.Repo.Manifest(ctx, req.Backup)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("it is not sealed, or not in this vault: `tablevault list` shows those that are: %w", err)
	}
	if errors.Is(err, vault.ErrCorrupt) {
		proof := &vault.Proof{
			Backup: req.Backup.ID, Table: req.Backup.Table, Restore: req.Restore, Depth: req.Depth, At: v.Now().UTC(),
			Manifest: vault.Object{Name: req.Backup.Manifest()}, Verdict: vault.Corrupt,
		}
		proof.Check.Find(proof.Manifest.Name, err)
		return proof, nil
	}
	if err != nil {
		return nil, err
	}
	if manifest.State != vault.Sealed {
		return nil, fmt.Errorf("it was given up: %s", manifest.Reason)
	}
	proof := &vault.Proof{
		Backup: manifest.Backup, Table: manifest.Table, Restore: req.Restore, Depth: req.Depth, At: v.Now().UTC(), Manifest: o,
	}
	if restore != nil && restore.Manifest.SHA256 != o.SHA256 {
		proof.Check.Find(o.Name, fmt.Errorf("its sha256 is %s, the restore was planned from one of %s", o.SHA256, restore.Manifest.SHA256))
	}
	w := &verification{Verifier: v, req: req, restore: restore, check: &proof.Check}
	if err := w.run(ctx, manifest); err != nil {
		return nil, err
	}
	if req.Depth == DepthRows {
		proof.Target = w.target.String()
		proof.Notes = append(proof.Notes, w.notes...)
		if w.comparer != nil { // nil if the backup's plan can't be read
			proof.Pace = w.reads.Take()
		}
		if restore == nil {
			proof.Notes = append(proof.Notes, "rows that were written after the backup are differences too: without the table's change stream they can't be told apart")
		}
	}
	if manifest.Fuzzy {
		proof.Notes = append(proof.Notes, fmt.Sprintf("the backup was read row by row from %s to %s and is no single instant's image",
			manifest.Totals.First.UTC().Format(time.RFC3339), manifest.Totals.Latest.UTC().Format(time.RFC3339)))
	}
	proof.Notes = append(proof.Notes, repository.ReplacedNotes(proof.Check.Replaced, v.Repo.Replaced())...)
	proof.Notes = append(proof.Notes, v.Repo.ReplicaErrors()...)
	if n := proof.Check.SizeOnly; n > 0 {
		proof.Notes = append(proof.Notes, fmt.Sprintf("of %d objects only the size was compared with the store: it keeps checksums of another kind than the recorded ones, and no record of a copy", n))
	}
	if req.Depth != DepthObjects && proof.Check.Corrupted == 0 {
		if err := proof.Check.Holds(&manifest.Totals); err != nil {
			proof.Check.Find(o.Name, err)
		}
	}
	proof.Verdict = proof.Check.Verdict()
	v.Log.Info("verified", "backup", proof.Backup, "restore", proof.Restore, "depth", proof.Depth, "verdict", proof.Verdict, "rows", proof.Check.Rows)
	return proof, nil
}

// Compare says whether a backup's copy in another vault, at address, is the same
// as the backup here. The documents are read there and compared by hash; of
// shards and indexes the other store is asked for the size and the checksum, and
// none is read.
func (v *Verifier) Compare(ctx context.Context, run fanout.Run, b vault.Backup, address string, store object.Store) (*vault.Proof, error) {
	err := repository.CheckApart(ctx, v.Repo.Store(), store, place.Key(address))
	var proof *vault.Proof
	if err == nil {
		proof, err = v.compare(ctx, run, b, store)
	}
	if err != nil {
		return nil, fmt.Errorf("compare backup %s of %s with its copy in %s: %w", b.ID, b.Table, address, err)
	}
	proof.Verdict = proof.Check.Verdict()
	proof.Notes = append(proof.Notes, fmt.Sprintf("of the copy in %s; its shards were not read", address))
	return proof, nil
}

func (v *Verifier) compare(ctx context.Context, run fanout.Run, b vault.Backup, store object.Store) (*vault.Proof, error) {
	_, here, err := v.Repo.Manifest(ctx, b)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("it is not sealed, or not in this vault: `tablevault list` shows those that are: %w", err)
	}
	if err != nil {
		return nil, err
	}
	if err := v.Repo.CheckNotMarked(ctx, b); err != nil {
		return nil, err
	}
	other, err := repository.Open(ctx, store)
	if err != nil {
		return nil, err
	}
	if other.Header.ID != v.Repo.Header.ID {
		return nil, fmt.Errorf("that vault is another one, %s and not %s", other.Header.ID, v.Repo.Header.ID)
	}
	there := *v
	there.Repo = other
	proof, err := there.verify(ctx, run, Request{Backup: b, Depth: DepthObjects})
	if errors.Is(err, fs.ErrNotExist) {
		proof = &vault.Proof{Backup: b.ID, Table: b.Table, Depth: DepthObjects, At: v.Now().UTC(), Manifest: here}
		proof.Check.Find(here.Name, errors.New("it is not there: the copy is not complete"))
		return proof, nil
	}
	if err != nil {
		return nil, err
	}
	if proof.Manifest.SHA256 != "" && proof.Manifest.SHA256 != here.SHA256 {
		proof.Check.Find(here.Name, fmt.Errorf("its sha256 is %s there, %s here", proof.Manifest.SHA256, here.SHA256))
	}
	return proof, nil
}

// verification is one run over a whole backup.
type verification struct {
	*Verifier
	req      Request
	restore  *vault.RestorePlan
	target   vault.TableID
	backup   *sealed.Backup
	comparer *compare.Comparer
	reads    *throttle.Throttle // of the comparison
	notes    []string

	mu    sync.Mutex
	check *vault.Check
}

func (w *verification) run(ctx context.Context, m *vault.Manifest) error {
	plan, err := w.Repo.PlanOf(ctx, m)
	if repository.Corrupt(err) {
		// Without the plan's schema, no shard can be read.
		w.check.Find(m.Plan.Name, err)
		return nil
	}
	if err != nil {
		return err
	}
	w.check.Objects += 2 // the manifest and the plan
	w.check.Bytes += m.Plan.Bytes
	w.backup = &sealed.Backup{Repo: w.Repo, ID: w.req.Backup, Manifest: m, Plan: plan}
	if w.req.Depth == DepthRows {
		if err := w.against(ctx); err != nil {
			return err
		}
	}
	// Roll-ups are read one by one; each can name tens of thousands of objects.
	groups := make([]*vault.Group, 0, len(m.Groups))
	for _, o := range m.Groups {
		var g vault.Group
		if err := w.Repo.ReadExact(ctx, o, &g); repository.Corrupt(err) {
			w.check.Find(o.Name, err)
			continue
		} else if err != nil {
			return err
		}
		w.check.Objects++
		w.check.Bytes += o.Bytes
		groups = append(groups, &g)
	}
	if len(groups) == len(m.Groups) {
		// That the ranges meet and cover the key space.
		totals, segments, err := coverage.Prove(plan, groups)
		if err == nil && (totals != m.Totals || segments != m.Segments) {
			err = fmt.Errorf("it says %d rows in %d segments, its parts have %d in %d, or other sums", m.Totals.Rows, m.Segments, totals.Rows, segments)
		}
		if err != nil {
			w.check.Find(w.req.Backup.Manifest(), err)
		}
	}
	work, wctx := guard.WithContext(ctx)
	work.SetLimit(segmentsInFlight)
	for _, g := range groups {
		for s := range g.Segments {
			log := &g.Segments[s]
			work.Go(func() error { return w.segment(wctx, log) })
		}
	}
	return work.Wait()
}

// against finds the table that is compared with.
func (w *verification) against(ctx context.Context) error {
	w.target = w.req.Backup.Table
	if w.restore != nil {
		w.target = w.restore.Target
	}
	if w.req.Against != nil {
		w.target = *w.req.Against
	}
	if w.Tables == nil {
		return fmt.Errorf("comparing with %s needs the instance's endpoint and credentials", w.target)
	}
	memory := w.Memory
	if memory == 0 {
		memory = fanout.DefaultMemory
	}
	def, err := w.Tables.Describe(ctx, w.target.Table)
	if err != nil {
		return fmt.Errorf("compare with %s: %w", w.target, err)
	}
	if w.restore != nil && w.target == w.restore.Target {
		made, err := w.Repo.Made(ctx, w.restore.Restore)
		if err != nil {
			return err
		}
		if made != nil && def.Identity.Other(made.Identity) {
			w.notes = append(w.notes, fmt.Sprintf("%s is another table than the one that the restore has made: this one is %s, that one was %s", w.target, def.Identity, made.Identity))
		}
	}
	w.reads = throttle.ForReads(w.req.ReadUnits)
	w.comparer, err = compare.New(w.backup.Plan.Definition.Schema, w.Tables, def, memory/segmentsInFlight, w.reads)
	return err
}

func (w *verification) segment(ctx context.Context, s *vault.SegmentLog) error {
	var check vault.Check
	segment, err := w.backup.Segment(s)
	if err != nil {
		return w.found(vault.Check{Corrupted: 1, Findings: []vault.Finding{{Object: w.req.Backup.Group(s.Segment.ID.Group()), Reason: err.Error()}}})
	}
	var loaded Loading
	if w.restore != nil && w.comparer != nil {
		if loaded, err = ReadLoading(ctx, w.Repo, vault.Restore{ID: w.restore.Restore}, segment.ID(), &check); err != nil {
			return err
		}
	}
	if _, err := Segment(ctx, w.req.Depth, w.comparer, &compare.Comparison{Segment: segment, Sink: loaded.Count}, &check); err != nil {
		return fmt.Errorf("segment %s: %w", segment.ID(), err)
	}
	return w.found(check)
}

func (w *verification) found(check vault.Check) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.check.Add(check)
	if w.req.Progress != nil {
		w.req.Progress(*w.check)
	}
	return nil
}
