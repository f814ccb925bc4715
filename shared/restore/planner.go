package restore

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// Planner begins restores of backups, and does what is due of each until it is proved and
// its table handed over, or it is given up.
type Planner struct {
	Repo *repository.Repository
	// Tables is the instance that the target is in, Endpoint its address.
	Tables   table.Instance
	Endpoint string
	Work     fanout.Dispatcher
	Log      *slog.Logger
	// Since is when a person gave the command anew: segments that failed for good before
	// it are tried again.
	Since time.Time
	// Workers is how many segments may be worked on at a time, 0 for any number.
	Workers int
	// Request is the name of the request that has asked for the restore, empty if a
	// person has, who watches it. The last of the workers on a phase of it has the
	// request looked at, so that the next phase need not wait for the planner's tick.
	Request string
	// Known are replicas that backups are copied to, named by their addresses. A restore
	// reads from those that hold a copy of its backup what is damaged or gone here,
	// without being asked to.
	Known []repository.Replica
}

// Request says what is to be restored, and where.
type Request struct {
	Backup vault.Backup
	Target vault.TableID
	// At is when the restore was asked for; with the backup and the target it makes the
	// restore's id, so that two deliveries of one request make one restore.
	At time.Time
	// Instant is what was asked for, of which Backup is the newest; zero where the backup
	// was named, or the newest of all.
	Instant time.Time
	// New begins a restore even if one of the same backup into the same table is open,
	// whose table must be gone.
	New bool
	// Own refuses to go on with a restore that something else asked for.
	Own bool
	// Replicas are the keys of replicas that hold copies of the backup.
	Replicas []string
	// Budget bounds what is asked of the target. A restore that is gone on with keeps its
	// own; another one here is refused.
	Budget vault.Budget
	// LocalTransactions has the table take local transactions. Whether the source does,
	// the service does not tell.
	LocalTransactions bool
}

// The states of a restore.
const (
	StateLoading   = "loading"
	StateVerifying = "verifying"
	StateClosing   = "closing"
	StateDone      = "done"
	StateFailed    = "failed"
)

// Progress is how far a restore has come.
type Progress struct {
	Restore vault.RestoreID `json:"restore"`
	// Backup is what it brings back, to RecoveryPoint.
	Backup        vault.BackupID `json:"backup,omitempty"`
	RecoveryPoint time.Time      `json:"recovery_point,omitzero"`
	// State is "loading", "verifying", "closing", "done" or "failed".
	State    string `json:"state"`
	Segments int    `json:"segments"`
	Loaded   int    `json:"loaded"`
	Checked  int    `json:"checked"`
	// Rows is the number of rows in the backup, LoadedRows of those in the segments that
	// are loaded.
	Rows       int64 `json:"rows"`
	LoadedRows int64 `json:"loaded_rows"`
	// Live counts the segments that are being worked on, Dispatched those that this tick
	// started.
	Live       int `json:"live"`
	Dispatched int `json:"dispatched"`
	// Pace says what holds the live workers back, nil if nothing does.
	Pace *fanout.Pace `json:"pace,omitempty"`
	// Waiting says what the restore waits for, if it is not its segments, and Silent
	// which of the live workers nothing was heard of for a while.
	Waiting   string       `json:"waiting,omitempty"`
	Silent    string       `json:"silent,omitempty"`
	Proof     *vault.Proof `json:"proof,omitempty"`
	LastError string       `json:"last_error,omitempty"`
	// Corrupt says that the last error is about an object of the vault that is not as it
	// was written.
	Corrupt bool `json:"corrupt,omitempty"`
	// Notes say, from the beginning, where the table is not to be as the source was.
	Notes []string `json:"notes,omitempty"`
	// Since is the planner's, for the ticks that follow a person's command.
	Since time.Time `json:"since,omitzero"`
	// over says that nothing comes after this, whatever is mended.
	over bool
}

// planned takes over what the restore's plan says.
func (p *Progress) planned(plan *vault.RestorePlan) {
	p.Backup, p.RecoveryPoint, p.Segments, p.Notes = plan.Backup, plan.RecoveryPoint, len(plan.Segments), plan.Notes
	for _, s := range plan.Segments {
		p.Rows += s.Rows
	}
}

// gaveUp says that the restore was given up, and why.
func (p *Progress) gaveUp(reason string) {
	p.State, p.LastError, p.over = StateFailed, reason, true
}

// ended says that the restore has ended, and how its proof finds it.
func (p *Progress) ended(proof *vault.Proof) {
	p.Proof, p.Loaded, p.LoadedRows, p.Checked, p.State, p.over = proof, p.Segments, p.Rows, p.Segments, StateDone, true
	if proof.Verdict != vault.OK && proof.Verdict != vault.Quarantined {
		p.State = StateFailed
		p.LastError = fmt.Sprintf("verdict %s: %d missing, %d extra, %d changed, %d corrupt; drop the table and restore again, or another backup",
			proof.Verdict, proof.Check.Missing, proof.Check.Extra, proof.Check.Changed, proof.Check.Corrupted)
	}
}

// GiveUp ends a restore: after it, none of its workers writes a row. It returns the
// closing record that stands, which may be that of a restore that was completed.
func GiveUp(ctx context.Context, repo *repository.Repository, run fanout.Run, id vault.RestoreID, reason string) (*vault.Closed, error) {
	c := &vault.Closed{Restore: id, At: run.Now().UTC(), Reason: reason}
	if _, err := repo.Win(ctx, vault.Restore{ID: id}.Closed(), c); err != nil {
		return nil, fmt.Errorf("give up restore %s: %w", id, err)
	}
	return c, nil
}
