package repository

import (
	"sync"

	"github.com/tablevault/tablevault/shared/object"
)

// Meter has each record that is written from now on tell what was asked of the store
// since the record before. meter counts that, for this repository alone.
func (r *Repository) Meter(meter interface{ Usage() object.Usage }) { r.untold.meter = meter }

// untold is what was asked of the store and stands in no record.
type untold struct {
	meter interface{ Usage() object.Usage } // nil where nobody counts

	mu   sync.Mutex
	told object.Usage
}

// TakeUsage returns what was asked of the store and stands in no record, and counts it as
// told.
func (r *Repository) TakeUsage() object.Usage {
	u := &r.untold
	if u.meter == nil {
		return object.Usage{}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.meter.Usage()
	since := now.Sub(u.told)
	u.told = now
	return since
}

// giveBack makes untold again what was taken and not told.
func (u *untold) giveBack(since object.Usage) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.told = u.told.Sub(since)
}
