package fc

import (
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"
)

// Delivery is one delivery of an event to a function.
type Delivery struct {
	Function  string
	TaskID    string // empty if Sync
	RequestID string
	Payload   []byte
	Retry     int  // 0 for the first
	Sync      bool // a caller waits for the answer
}

// Fault is what goes wrong with a delivery. The first four are for asynchronous ones
// only.
type Fault struct {
	Drop       bool          // never deliver it; a host that resumes the task does
	Twice      bool          // deliver it once more,
	TwiceAfter time.Duration // that much later
	Delay      time.Duration // deliver it that much later

	KillAfter  time.Duration // kill the instance that long after it got the event; zero does not
	Stall      time.Duration // freeze the instance for that long,
	StallAfter time.Duration // that long after it got the event
	Skew       time.Duration // tell the function a deadline that is later, or earlier, by that much
}

// CallFault is what goes wrong with a call of the API.
type CallFault struct {
	Status int  // refuse it with this HTTP status and do nothing; zero does not
	Cut    bool // do what it asks for, and cut the connection instead of answering
}

// strike arranges what a fault does to the instance, and returns what undoes it when the
// call has ended.
func (i *instance) strike(f Fault) (lift func()) {
	if f.KillAfter <= 0 && f.Stall <= 0 {
		return func() {}
	}
	var mu sync.Mutex
	var timers []*time.Timer
	over := false
	after := func(d time.Duration, do func()) {
		mu.Lock()
		defer mu.Unlock()
		if over {
			return
		}
		timers = append(timers, time.AfterFunc(d, func() {
			mu.Lock()
			defer mu.Unlock()
			if !over {
				do()
			}
		}))
	}
	if f.KillAfter > 0 {
		after(f.KillAfter, i.kill)
	}
	frozen := false
	if f.Stall > 0 {
		after(f.StallAfter, func() { frozen = true; i.signal(freezeGroup) })
		after(f.StallAfter+f.Stall, func() { frozen = false; i.signal(thawGroup) })
	}
	return func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		for _, t := range timers {
			t.Stop()
		}
		if frozen {
			i.signal(thawGroup)
		}
	}
}

// signal does something to the process group while it exists.
func (i *instance) signal(send func(pid int)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.pid != 0 && i.exit == "" {
		send(i.pid)
	}
}

// Chaos makes deliveries and calls go wrong at random: each field but Seed, Longest and
// Skip is the probability of its fault. What goes wrong with a delivery depends on the
// seed, its function, its event, its retry and how often just that was asked, and on
// nothing else, so that a seed means the same in each run as far as the run does the
// same.
type Chaos struct {
	Seed uint64
	// Longest bounds how late, how long and by how much: a delay, a stall, the time to a
	// kill and to a second delivery are anything up to it.
	Longest time.Duration
	// Skip leaves a delivery alone.
	Skip func(Delivery) bool

	Drop, Twice, Late, Kill, Stall, Skew float64 // of deliveries
	Busy, Broken, Lost                   float64 // of calls: answered 429, answered 500, done and not answered

	mu    sync.Mutex
	asked map[uint64]uint64
	count map[string]int
}

// Fault is a [Config.Fault].
func (c *Chaos) Fault(d Delivery) Fault {
	if c.Skip != nil && c.Skip(d) {
		return Fault{}
	}
	random, hit := c.draw(d.Function, string(d.Payload), byte(d.Retry))
	some := func() time.Duration { return time.Duration(random.Int64N(int64(max(c.Longest, 1)))) + 1 }
	var f Fault
	if hit("stall", c.Stall) {
		f.Stall, f.StallAfter = some(), some()/4
	}
	if hit("kill", c.Kill) {
		// Any moment of a short life is as likely as any of a long one.
		f.KillAfter = max(some()>>random.IntN(10), 1)
	}
	if hit("skew", c.Skew) {
		f.Skew = some() - c.Longest/2
	}
	if d.Sync {
		return f
	}
	f.Drop = hit("drop", c.Drop)
	if hit("twice", c.Twice) {
		f.Twice, f.TwiceAfter = true, some()
		if random.IntN(2) == 0 {
			f.TwiceAfter = 0
		}
	}
	if hit("late", c.Late) {
		f.Delay = some()
	}
	return f
}

// CallFault is a [Config.CallFault].
func (c *Chaos) CallFault(function string) CallFault {
	_, hit := c.draw("call", function, 0)
	switch {
	case hit("busy", c.Busy):
		return CallFault{Status: 429}
	case hit("broken", c.Broken):
		return CallFault{Status: 500}
	case hit("lost", c.Lost):
		return CallFault{Cut: true}
	}
	return CallFault{}
}

// Count returns how often each fault was made, by its name in lower case.
func (c *Chaos) Count() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]int, len(c.count))
	for name, n := range c.count {
		out[name] = n
	}
	return out
}

// draw returns the random numbers of one delivery or call, and the function that throws
// the dice for one fault and counts it.
func (c *Chaos) draw(a, b string, n byte) (*rand.Rand, func(string, float64) bool) {
	h := fnv.New64a()
	h.Write(binary.LittleEndian.AppendUint64(nil, c.Seed))
	h.Write([]byte(a + "\x00" + b))
	h.Write([]byte{0, n})
	key := h.Sum64()
	c.mu.Lock()
	if c.asked == nil {
		c.asked, c.count = make(map[uint64]uint64), make(map[string]int)
	}
	c.asked[key]++
	random := rand.New(rand.NewPCG(key, c.asked[key]))
	c.mu.Unlock()
	return random, func(name string, p float64) bool {
		if random.Float64() >= p {
			return false
		}
		c.mu.Lock()
		c.count[name]++
		c.mu.Unlock()
		return true
	}
}
