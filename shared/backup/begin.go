package backup

import (
	"context"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/vault"
)

// Reply is what the planner says of one backup.
type Reply struct {
	Backup vault.BackupID `json:"backup"`
	Table  string         `json:"table"`
	Progress
}

// resumed is the age at which the plan of a command that a person gave counts as found
// and not as made just now: what its dead workers left is then dispatched at once.
const resumed = 5 * time.Second

// Begin plans a backup that was asked for, or finds the one that is open, and starts its
// workers.
func (p *Planner) Begin(ctx context.Context, run fanout.Run, req PlanRequest) (Reply, error) {
	plan, err := p.Plan(ctx, req)
	if err != nil {
		return Reply{}, err
	}
	again := *p
	again.Since = p.Now()
	if again.Since.Sub(plan.Created) > resumed {
		again.Stale = resumed
	}
	return again.Look(ctx, run, vault.Backup{Table: req.Table, ID: plan.Backup})
}

// Look is a tick of a backup, and says which one it is of.
func (p *Planner) Look(ctx context.Context, run fanout.Run, b vault.Backup) (Reply, error) {
	progress, err := p.Tick(ctx, run, b)
	return Reply{b.ID, b.Table.String(), progress}, err
}
