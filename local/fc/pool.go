package fc

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/tablevault/tablevault/local/fc/deployment"
)

var (
	errClosing = errors.New("the function host is closing")
	errBusy    = errors.New("all instances are busy")
)

// pool is one function with its instances. The host's lock guards it, but for the queue,
// which has its own.
type pool struct {
	function deployment.Function
	limit    int
	count    int         // instances that exist or are being started
	idle     []*instance // warm, longest idle first
	queue    *queue
}

// acquire returns an instance of p for the caller alone: the one that was used last, or a
// new one, or, if all that may exist are busy, the next that comes free if wait is set
// and else [errBusy]. The caller gives it back with release. An error that is neither
// errBusy, errClosing nor ctx's says why an instance could not be started.
func (h *Host) acquire(ctx context.Context, p *pool, wait bool) (*instance, error) {
	for {
		h.mu.Lock()
		if h.closing {
			h.mu.Unlock()
			return nil, errClosing
		}
		for len(p.idle) > 0 {
			i := p.idle[len(p.idle)-1]
			p.idle = p.idle[:len(p.idle)-1]
			if !i.isGone() {
				h.mu.Unlock()
				return i, nil
			}
		}
		evicted := false
		if p.count < p.limit {
			if h.total < h.config.MaxTotal {
				p.count++
				h.total++
				h.mu.Unlock()
				return h.start(p)
			}
			evicted = h.evict(p)
		}
		changed := h.changed
		h.mu.Unlock()
		if !wait && !evicted {
			return nil, errBusy
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// evict ends the longest idle instance of another function to make room, and reports
// whether there was one. h.mu is held.
func (h *Host) evict(but *pool) bool {
	var oldest *pool
	for _, p := range h.pools {
		if p != but && len(p.idle) > 0 && (oldest == nil || p.idle[0].idleSince.Before(oldest.idle[0].idleSince)) {
			oldest = p
		}
	}
	if oldest == nil {
		return false
	}
	oldest.idle[0].kill()
	oldest.idle = slices.Delete(oldest.idle, 0, 1)
	return true
}

// release gives an instance back. One that is not healthy, or any if the host runs cold,
// is ended.
func (h *Host) release(i *instance, healthy bool) {
	h.mu.Lock()
	keep := healthy && !h.config.Cold && !h.closing && !i.isGone()
	if keep {
		i.pool.idle = append(i.pool.idle, i)
		h.notify()
	}
	h.mu.Unlock()
	if !keep {
		i.kill()
		<-i.gone // its place is free when this returns
	}
}

// forget takes an instance whose process is gone off the books.
func (h *Host) forget(i *instance) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.instances, i.token)
	i.pool.count--
	h.total--
	i.pool.idle = slices.DeleteFunc(i.pool.idle, func(x *instance) bool { return x == i })
	h.notify()
}

// reapIdle ends instances that were idle for too long, so that state which leaks from one
// invocation to the next does not live for ever.
func (h *Host) reapIdle() {
	ticker := time.NewTicker(max(h.config.Idle/4, 10*time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-ticker.C:
		}
		h.mu.Lock()
		for _, p := range h.pools {
			for len(p.idle) > 0 && time.Since(p.idle[0].idleSince) > h.config.Idle {
				p.idle[0].kill()
				p.idle = slices.Delete(p.idle, 0, 1)
			}
		}
		h.mu.Unlock()
	}
}
