package restore

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tablevault/tablevault/shared/fanout"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// plan makes a restore's plan.
func (p *Planner) plan(ctx context.Context, run fanout.Run, req Request, id vault.RestoreID, m *vault.Manifest, manifest vault.Object) (*vault.RestorePlan, error) {
	source, err := p.Repo.PlanOf(ctx, m)
	if err != nil {
		return nil, err
	}
	plan := &vault.RestorePlan{
		Restore: id, Created: run.Now().UTC(), Command: vault.Program, Backup: m.Backup, Manifest: manifest,
		Source: m.Table, Target: req.Target, Endpoint: p.Endpoint, Definition: source.Definition,
		Replicas: req.Replicas, Budget: req.Budget,
		RecoveryPoint: m.RecoveryPoint().UTC(), Instant: req.Instant.UTC(),
	}
	if !plan.Instant.IsZero() {
		plan.Notes = append(plan.Notes, fmt.Sprintf("what was there at %s was asked for: backup %s is the newest whose recovery point is not later, %s, which is %s earlier; what was written between the two is not in it",
			plan.Instant.Format(time.RFC3339), plan.Backup, plan.RecoveryPoint.Format(time.RFC3339), plan.Instant.Sub(plan.RecoveryPoint).Round(time.Second)))
	}
	plan.Definition.Name = req.Target.Table
	plan.Definition.Raw, plan.Definition.Identity, plan.Definition.LocalTransactions = nil, table.Identity{}, req.LocalTransactions
	plan.Definition.Schema = slices.Clone(plan.Definition.Schema)
	for k := range plan.Definition.Schema {
		if c := &plan.Definition.Schema[k]; c.AutoIncrement {
			// The service makes the values of such a column and takes none, so
			// rows would change their identity.
			c.AutoIncrement = false
			plan.Notes = append(plan.Notes, fmt.Sprintf("key column %q was auto-increment and is a plain integer here, so that rows keep their keys", c.Name))
		}
	}
	plan.Notes = append(plan.Notes, untold(&plan.Definition)...)
	if t := plan.Definition.Throughput; t != (table.Throughput{}) {
		// It is paid by the hour from the moment that the table exists.
		plan.Definition.Throughput = table.Throughput{}
		plan.Notes = append(plan.Notes, fmt.Sprintf("nothing is reserved here; the source had reserved %d read and %d write units", t.Read, t.Write))
	}
	if ttl := plan.Definition.Options.TTL; ttl > 0 {
		plan.Notes = append(plan.Notes, ttlNote(time.Duration(ttl)*time.Second, m.RecoveryPoint(), plan.Created))
	}
	if m.Fuzzy {
		plan.Notes = append(plan.Notes, fmt.Sprintf("the backup was read row by row from %s to %s and is no single instant's image",
			m.Totals.First.UTC().Format(time.RFC3339), m.Totals.Latest.UTC().Format(time.RFC3339)))
	}
	// How many segments hold rows, and about what the reading of the largest lane cost.
	hold, largest := 0, int64(0)
	for g, err := range p.Repo.Groups(ctx, m) {
		if err != nil {
			return nil, err
		}
		for s := range g.Segments {
			log := &g.Segments[s]
			rows, units := int64(0), [vault.MaxLanes]int64{}
			for _, slot := range log.Slots {
				if slot.Part == nil {
					continue
				}
				rows += slot.Part.Rows
				for i, lane := range slot.Part.Lanes {
					units[i] += slot.Part.ReadUnits * lane.Rows / max(slot.Part.Rows, 1)
				}
			}
			if largest = max(largest, slices.Max(units[:])); rows > 0 {
				hold++
			}
			plan.Segments = append(plan.Segments, vault.RestoreSegment{ID: log.Segment.ID, Group: g.Group, Rows: rows})
		}
	}
	return plan, p.divide(plan, hold, largest)
}

// untold says what of a table its description does not tell, so that no copy can be known
// to have it.
func untold(def *table.Definition) (notes []string) {
	if !def.LocalTransactions {
		notes = append(notes, "the service does not tell whether a table takes local transactions, which is set when it is made: this one does not; if the source does, restore with --local-transactions")
	}
	if len(def.Indexes) > 0 {
		notes = append(notes, "each index has an entry for every row, and is made on the fewest columns that give it its key: the service does not tell whether one was made without the rows of before, or on columns that it would have added")
	}
	return notes
}

// The bounds of what a worker is given of a budget.
const (
	// leastShare is in write units per second: a worker has to write a block of a
	// mebibyte, up to twenty thousand rows, in its function's time.
	leastShare = 50
	// A lane is compared in one invocation: in fastComparison by as few workers as that
	// takes, and in slowComparison at least.
	fastComparison, slowComparison = 3 * time.Minute, 10 * time.Minute
)

// divide fixes over how many workers the budget of a restore is divided: all that there
// may be, or fewer, where each would be given too little to come to an end. hold is the
// number of segments that hold rows, largest what the reading of one of their lanes has
// cost at most, in read units.
func (p *Planner) divide(plan *vault.RestorePlan, hold int, largest int64) error {
	over := func(segments int, workers float64) int {
		if p.Workers > 0 {
			segments = min(segments, p.Workers)
		}
		return max(1, int(min(float64(segments), workers)))
	}
	if units := plan.Budget.WriteUnits; units > 0 {
		plan.Loaders = over(hold, units/leastShare)
	}
	if units := plan.Budget.ReadUnits; units > 0 {
		least := float64(largest) / slowComparison.Seconds()
		if units < least {
			return table.Invalidf("a budget of %g read units per second: the largest range of the backup takes %d, and is compared in one invocation: want at least %.0f",
				units, largest, math.Ceil(least))
		}
		plan.Comparers = over(len(plan.Segments), units*fastComparison.Seconds()/float64(max(largest, 1)))
	}
	return nil
}
