package fanout

import "time"

// Margin is what an invocation keeps for closing before the platform ends it: flush the
// encoders, store the part and its index, win the slot, invoke the next. It is measured
// at each part, and never more than a third of the time.
type Margin struct {
	until time.Time
	// given is what the run came with; it holds until something was measured.
	given, third, closing time.Duration
}

const (
	// marginFactor is how many times the longest closing lately is kept: the next part
	// may be larger, and the store slower.
	marginFactor = 3
	leastMargin  = time.Second
)

// NewMargin is what a run came with, until something was measured.
func NewMargin(run Run) Margin {
	if run.Stop.IsZero() {
		return Margin{}
	}
	return Margin{until: run.Until, given: run.Until.Sub(run.Stop), third: max(0, run.Until.Sub(run.Now())/3)}
}

// Widen keeps the most time for closing and the least for work, until something was
// measured: starts have come to nothing.
func (m *Margin) Widen() { m.closing = m.third }

// Closed takes the time of a closing into account; long ones are forgotten by halves.
func (m *Margin) Closed(took time.Duration) { m.closing = max(took, m.closing/2, 1) }

// Stop is when to stop; zero for never.
func (m *Margin) Stop() time.Time {
	if m.until.IsZero() {
		return time.Time{}
	}
	keep := m.given
	if m.closing > 0 {
		keep = max(leastMargin, marginFactor*m.closing)
	}
	return m.until.Add(-min(keep, m.third))
}
