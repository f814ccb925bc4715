// Package verify proves backups: a whole one, at a depth that is asked for, also against
// the rows of a table; its copy in another vault; and each segment of it.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// Verifier proves backups.
type Verifier struct {
	Repo *repository.Repository
	// Tables is the instance of the table that is compared with; nil where nothing is
	// compared.
	Tables table.Instance
	Log    *slog.Logger
	Now    func() time.Time
}

// How deep a verification goes; each does what the one before it does.
const (
	// DepthObjects asks the store for each object, its size and its checksum.
	DepthObjects = "objects"
	// DepthRead reads every object, and proves of every shard that its checksums, order,
	// counts and digests are as recorded.
	DepthRead = "read"
	// DepthRows compares with the rows of a table, in both directions.
	DepthRows = "rows"
)

// Request says what is to be verified.
type Request struct {
	Backup vault.Backup
	// Restore, if there is one, says which backup and which table are compared, and which
	// rows the service refused.
	Restore vault.RestoreID
	// Against is the table that is compared with, at DepthRows; nil means the restore's
	// target, or the table that was backed up.
	Against *vault.TableID
	Depth   string
	// ReadUnits is what may be read of that table per second, in read units; 0 for as
	// much as there is.
	ReadUnits float64
}

// Verify verifies a whole backup in this process. What is wrong with the backup is in the
// proof; the error is about what kept it from being verified.
func (v *Verifier) Verify(ctx context.Context, req Request) (*vault.Proof, error) {
	switch req.Depth {
	case DepthObjects, DepthRead, DepthRows:
	default:
		return nil, fmt.Errorf("verify: depth %q: want objects, read or rows", req.Depth)
	}
	if err := (vault.Budget{ReadUnits: req.ReadUnits}).Validate(); err != nil {
		return nil, table.Invalidf("verify: %w", err)
	}
	proof, err := v.verify(ctx, req)
	if err != nil && req.Restore != "" {
		return nil, fmt.Errorf("verify restore %s: %w", req.Restore, err)
	}
	if err != nil {
		return nil, fmt.Errorf("verify backup %s of %s: %w", req.Backup.ID, req.Backup.Table, err)
	}
	proof.Usage = v.Repo.TakeUsage()
	return proof, nil
}

func (v *Verifier) verify(ctx context.Context, req Request) (*vault.Proof, error) {
	var restore *vault.RestorePlan
	if req.Restore != "" {
		var err error
		if restore, err = v.Repo.RestorePlan(ctx, req.Restore); err != nil {
			return nil, err
		}
		req.Backup = vault.Backup{Table: restore.Source, ID: restore.Backup}
	}
	if err := v.kept(ctx, req); err != nil {
		return nil, err
	}
	proof := &vault.Proof{
		Backup: req.Backup.ID, Table: req.Backup.Table, Restore: req.Restore, Depth: req.Depth, At: v.Now().UTC(),
		Manifest: vault.Object{Name: req.Backup.Manifest()},
	}
	manifest, o, err := v.Repo.Manifest(ctx, req.Backup)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notSealed(err)
	}
	if errors.Is(err, vault.ErrCorrupt) {
		proof.Check.Find(proof.Manifest.Name, err)
		proof.Verdict = vault.Corrupt
		return proof, nil
	}
	if err != nil {
		return nil, err
	}
	if manifest.State != vault.Sealed {
		return nil, fmt.Errorf("it was given up: %s", manifest.Reason)
	}
	proof.Manifest = o
	if restore != nil && restore.Manifest.SHA256 != o.SHA256 {
		proof.Check.Find(o.Name, fmt.Errorf("its sha256 is %s, the restore was planned from one of %s", o.SHA256, restore.Manifest.SHA256))
	}
	w := &whole{verifier: v, repo: v.Repo, req: req, restore: restore, check: &proof.Check}
	if err := w.run(ctx, manifest); err != nil {
		return nil, err
	}
	if req.Depth == DepthRows {
		proof.Target = w.target.String()
		if w.comparer != nil { // nil if the backup's plan can't be read
			proof.Pace = w.reads.Take()
		}
	}
	proof.Notes = v.notes(w, manifest)
	if req.Depth != DepthObjects && proof.Check.Corrupted == 0 {
		if err := proof.Check.Holds(&manifest.Totals); err != nil {
			proof.Check.Find(o.Name, err)
		}
	}
	proof.Verdict = proof.Check.Verdict()
	v.Log.Info("verified", "backup", proof.Backup, "restore", proof.Restore, "depth", proof.Depth, "verdict", proof.Verdict, "rows", proof.Check.Rows)
	return proof, nil
}

// kept refuses a backup that is marked for deletion, unless it is verified for a restore
// that has not ended, which holds it.
func (v *Verifier) kept(ctx context.Context, req Request) error {
	if req.Restore != "" {
		if _, err := v.Repo.RestoreProof(ctx, req.Restore); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
	}
	return v.Repo.CheckNotMarked(ctx, req.Backup)
}

// notSealed says of a manifest that is not there what that means.
func notSealed(err error) error {
	return fmt.Errorf("it is not sealed, or not in this vault: `tablevault list` shows those that are: %w", err)
}

// notes say what has to be known beside the numbers of a proof.
func (v *Verifier) notes(w *whole, m *vault.Manifest) []string {
	notes := w.notes
	if w.req.Depth == DepthRows && w.restore == nil {
		notes = append(notes, "rows that were written after the backup are differences too: without the table's change stream they can't be told apart")
	}
	if m.Fuzzy {
		notes = append(notes, fmt.Sprintf("the backup was read row by row from %s to %s and is no single instant's image",
			m.Totals.First.UTC().Format(time.RFC3339), m.Totals.Latest.UTC().Format(time.RFC3339)))
	}
	notes = append(notes, repository.ReplacedNotes(w.check.Replaced, v.Repo.Replaced())...)
	notes = append(notes, v.Repo.ReplicaErrors()...)
	if n := w.check.SizeOnly; n > 0 {
		notes = append(notes, fmt.Sprintf("of %d objects only the size was compared with the store: it keeps checksums of another kind than the recorded ones, and no record of a copy", n))
	}
	return notes
}
