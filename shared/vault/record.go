package vault

import "github.com/tablevault/tablevault/shared/object"

// Record is a document that tells what was asked of the store since the record before it.
type Record interface {
	Document
	// Told is where it tells that; nil if it does not.
	Told() *object.Usage
}

// Told is what the worker asked since its last slot.
func (s *Slot) Told() *object.Usage { return &s.Usage }

// Told is what the slots tell, and the look that rolled them up.
func (g *Group) Told() *object.Usage { return &g.Usage }

// Told is what the groups tell, and the look that sealed; a backup that is given up tells
// nothing.
func (m *Manifest) Told() *object.Usage {
	if m.State == Void {
		return nil
	}
	return &m.Usage
}

// Told is what the worker asked since its last entry.
func (l *Loaded) Told() *object.Usage { return &l.Usage }

// Told is what the verification asked.
func (p *Proof) Told() *object.Usage { return &p.Usage }

// Told is what loading the segment and comparing it asked.
func (c *SegmentCheck) Told() *object.Usage { return &c.Usage }

// Told is what the comparison asked so far.
func (c *Compared) Told() *object.Usage { return &c.Usage }

// Told is what the checks tell, and the look that rolled them up.
func (g *CheckedGroup) Told() *object.Usage { return &g.Usage }
