package engine

import (
	"cmp"
	"math"
	"sync"
	"time"
)

// A meter throttles one table at so many capacity units per second.
type meter struct {
	mu          sync.Mutex
	read, write bucket
}

// A bucket holds the units of up to one second. Work that began with units left is done
// whatever it costs, so that a bucket may owe some.
type bucket struct {
	units float64
	at    time.Time
}

func (b *bucket) open(rate int, now time.Time) bool {
	if b.at.IsZero() {
		b.units = float64(rate)
	}
	b.units = min(float64(rate), b.units+max(0, now.Sub(b.at).Seconds())*float64(rate))
	b.at = now
	return b.units > 0
}

// allowRead and allowWrite refuse work while the table's units are used up.
func (t *Table) allowRead(now time.Time) *Error {
	return t.allow(&t.meter.read, t.engine.behavior().Capacity.Read, now)
}

func (t *Table) allowWrite(now time.Time) *Error {
	return t.allow(&t.meter.write, t.engine.behavior().Capacity.Write, now)
}

// allow refuses work that a bucket, filled at a rate, has no units for.
func (t *Table) allow(b *bucket, rate int, now time.Time) *Error {
	if rate <= 0 {
		return nil
	}
	t.meter.mu.Lock()
	defer t.meter.mu.Unlock()
	if !b.open(rate, now) {
		return Refusal(cmp.Or(t.engine.behavior().Capacity.ThrottleCode, CodeNotEnoughCapacity))
	}
	return nil
}

// readLeft is how many units a read that was allowed may still cost, at least one.
func (t *Table) readLeft() int {
	if t.engine.behavior().Capacity.Read <= 0 {
		return math.MaxInt
	}
	t.meter.mu.Lock()
	defer t.meter.mu.Unlock()
	return max(1, int(math.Ceil(t.meter.read.units)))
}

// spend takes what work has cost.
func (t *Table) spend(read, write int) {
	b := t.engine.behavior()
	if b.Capacity.Read <= 0 && b.Capacity.Write <= 0 {
		return
	}
	t.meter.mu.Lock()
	defer t.meter.mu.Unlock()
	t.meter.read.units -= float64(read)
	t.meter.write.units -= float64(write)
}
