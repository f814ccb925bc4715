package fanout

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/tablevault/tablevault/shared/vault"
)

// Pace says what holds workers back.
type Pace struct {
	// Reason is one of the Paced constants of package vault; where workers have several,
	// the one that is least of their own making.
	Reason string `json:"reason"`
	// Workers is how many are held back, ReadUnits the rate that they are held to
	// together, in read units per second; WriteUnits the same of a restore's.
	Workers    int     `json:"workers"`
	ReadUnits  float64 `json:"read_units_per_second,omitempty"`
	WriteUnits float64 `json:"write_units_per_second,omitempty"`
	// Throttled counts the answers, for the newest parts, by which the service wanted
	// fewer requests.
	Throttled int64 `json:"throttled,omitempty"`
}

// String is the pace for people.
func (p *Pace) String() string {
	if p == nil {
		return ""
	}
	rate, units := p.ReadUnits, "read"
	if p.WriteUnits > 0 {
		rate, units = p.WriteUnits, "write"
	}
	why := map[string]string{
		vault.PacedByBudget: "the budget of " + units + " units", vault.PacedByService: "the service's throttling", vault.PacedByLatency: "slow answers",
	}[p.Reason]
	if rate == 0 {
		return fmt.Sprintf("%d workers were held back by %s", p.Workers, cmp.Or(why, p.Reason))
	}
	return fmt.Sprintf("%d workers are held to %.0f %s units/s by %s", p.Workers, rate, units, cmp.Or(why, p.Reason))
}

// Of adds the pace of a worker; either may be nil.
func (p *Pace) Of(worker *vault.Pace) *Pace {
	if worker == nil {
		return p
	}
	return p.add(&Pace{Reason: worker.Reason, Workers: 1, ReadUnits: worker.ReadUnits, WriteUnits: worker.WriteUnits, Throttled: worker.Throttled})
}

// add adds another pace; either may be nil.
func (p *Pace) add(o *Pace) *Pace {
	if p == nil || o == nil {
		return cmp.Or(p, o)
	}
	order := []string{vault.PacedByBudget, vault.PacedByLatency, vault.PacedByService}
	sum := &Pace{Reason: p.Reason, Workers: p.Workers + o.Workers, ReadUnits: p.ReadUnits + o.ReadUnits,
		WriteUnits: p.WriteUnits + o.WriteUnits, Throttled: p.Throttled + o.Throttled}
	if slices.Index(order, o.Reason) > slices.Index(order, p.Reason) {
		sum.Reason = o.Reason
	}
	return sum
}
