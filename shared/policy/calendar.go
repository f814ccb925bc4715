package policy

import (
	"math/bits"
	"time"
	_ "time/tzdata" // schedules name zones, and the platform may know none

	"github.com/robfig/cron/v3"
)

// calendar finds the instants of a cron expression, day by day of its zone.
//
// The library that parses it goes hour by hour of whatever the clock shows: where clocks
// change, it has no instant for the day, or two.
type calendar struct {
	*cron.SpecSchedule
	// byClock says that the hours are fixed: each local time of a day that the expression
	// names is one instant. Otherwise each instant at which the clock shows one of these
	// times is.
	byClock bool
}

// farthest is for how many days an instant is looked for: from one 29 February to the
// next, over a year that has none.
const farthest = 9 * 366

// starBit is set by the library in fields of days that are wildcards.
const starBit = 1 << 63

// due is the latest instant that is not after t, zero if there was none for long.
func (c *calendar) due(t time.Time) (due time.Time) {
	today := dayOf(t.In(c.Location))
	// Where clocks go back over midnight, the days on both sides have instants between
	// each other's.
	for back := -1; back < farthest && (due.IsZero() || back <= 1); back++ {
		for _, at := range c.instants(today.AddDate(0, 0, -back)) {
			if !at.After(t) && at.After(due) {
				due = at
			}
		}
	}
	return due
}

// next is the first instant after t, zero if there is none for long.
func (c *calendar) next(t time.Time) (next time.Time) {
	today := dayOf(t.In(c.Location))
	for on := -1; on < farthest && (next.IsZero() || on <= 1); on++ {
		for _, at := range c.instants(today.AddDate(0, 0, on)) {
			if at.After(t) && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	return next
}

// dayOf is the day of a local time, as midnight in UTC. Days, and what clocks show on
// them, are counted so: there every day has 24 hours.
func dayOf(local time.Time) time.Time {
	y, m, d := local.Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

// instants are those of a day, in no order.
func (c *calendar) instants(day time.Time) (all []time.Time) {
	if !c.names(day) {
		return nil
	}
	changes := changesAround(day, c.Location)
	second := time.Duration(bits.TrailingZeros64(c.Second)) * time.Second
	for h := range 24 {
		if c.Hour&(1<<h) == 0 {
			continue
		}
		for m := range 60 {
			if c.Minute&(1<<m) == 0 {
				continue
			}
			shown := day.Add(time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + second)
			if c.byClock {
				all = append(all, first(shown, changes))
			} else {
				all = append(all, each(shown, changes)...)
			}
		}
	}
	return all
}

// names says whether the expression is about a day.
func (c *calendar) names(day time.Time) bool {
	if c.Month&(1<<day.Month()) == 0 {
		return false
	}
	dom, dow := c.Dom&(1<<day.Day()) != 0, c.Dow&(1<<day.Weekday()) != 0
	if c.Dom&starBit != 0 || c.Dow&starBit != 0 {
		return dom && dow
	}
	return dom || dow
}

// period is a time in which clocks are ahead of UTC by the same.
type period struct {
	begin time.Time // zero for long ago
	ahead time.Duration
}

// changesAround are the periods from well before a day until well after it. No clock was
// ever set by more than a day.
func changesAround(day time.Time, zone *time.Location) (all []period) {
	const well = 50 * time.Hour
	for at := day.Add(-well); ; {
		local := at.In(zone)
		_, ahead := local.Zone()
		begin, end := local.ZoneBounds()
		if all == nil {
			begin = time.Time{}
		}
		all = append(all, period{begin, time.Duration(ahead) * time.Second})
		if end.IsZero() || end.After(day.Add(24*time.Hour+well)) {
			return all
		}
		at = end
	}
}

// first is the first instant at which clocks show a time, or, if that is skipped, a later
// one.
func first(shown time.Time, changes []period) time.Time {
	for i, p := range changes {
		at := shown.Add(-p.ahead)
		if at.Before(p.begin) {
			return p.begin // the clocks have skipped it
		}
		if i+1 == len(changes) || at.Before(changes[i+1].begin) {
			return at
		}
	}
	panic("policy: a zone without an end")
}

// each are the instants at which clocks show a time: none if it is skipped, two if it
// comes twice.
func each(shown time.Time, changes []period) (all []time.Time) {
	for i, p := range changes {
		if at := shown.Add(-p.ahead); !at.Before(p.begin) && (i+1 == len(changes) || at.Before(changes[i+1].begin)) {
			all = append(all, at)
		}
	}
	return all
}
