package engine

import (
	"bytes"
	"sync"
	"time"

	"github.com/tablevault/tablevault/local/ots/kv"
)

// A past is what the keys of a table's space had before they were last written, for as
// long as an index that is behind its table shows it. It lives in memory alone.
type past struct {
	mu      sync.Mutex
	changes []pastChange // in the order in which they were made
}

// A pastChange is one key before one change.
type pastChange struct {
	at    int64 // microseconds
	key   string
	value []byte // nil if the key was not there
}

// add notes what a key has before it is changed, and forgets what no index shows any
// more.
func (p *past) add(at int64, key, value []byte, lag time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	shown := at - lag.Microseconds()
	n := 0
	for n < len(p.changes) && p.changes[n].at <= shown {
		n++
	}
	// The memory of what is forgotten goes when there is more of it than of the rest.
	if p.changes = p.changes[n:]; cap(p.changes) > 2*len(p.changes)+64 {
		p.changes = append([]pastChange(nil), p.changes...)
	}
	p.changes = append(p.changes, pastChange{at, string(key), bytes.Clone(value)})
}

// since is what keys of a prefix had at a time, as changes of what they have now.
func (p *past) since(at int64, prefix []byte) *draft {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := new(draft)
	for i := range p.changes {
		c := &p.changes[i]
		if _, known := d.values[c.key]; c.at > at && !known && len(c.key) >= len(prefix) && c.key[:len(prefix)] == string(prefix) {
			d.set([]byte(c.key), c.value)
		}
	}
	return d
}

// A noting is a space whose former state is noted as it changes.
type noting struct {
	kv.Writer
	past *past
	at   int64
	lag  time.Duration
}

func (n noting) Put(key, value []byte) {
	n.past.add(n.at, key, n.Get(key), n.lag)
	n.Writer.Put(key, value)
}

func (n noting) Delete(key []byte) {
	n.past.add(n.at, key, n.Get(key), n.lag)
	n.Writer.Delete(key)
}

// behind says whether the table has indexes that are not updated with it.
func (d *Definition) behind() bool {
	for i := range d.Indexes {
		if !d.Indexes[i].Sync {
			return true
		}
	}
	return len(d.Searches) > 0
}

// lagging is the space as an index of a prefix shows it, which is behind its table:
// prefix is the index's, or the table's own for a search index.
func (t *Table) lagging(r kv.Reader, prefix []byte, now time.Time) kv.Reader {
	lag := t.engine.behavior().Indexes.Lag
	if lag <= 0 {
		return r
	}
	if d := t.past.since(now.Add(-lag).UnixMicro(), prefix); len(d.values) > 0 {
		return layer{below: r, draft: d}
	}
	return r
}

// shown is the space as a read of t sees it: as it is, unless t is an index that is
// behind its table.
func (t *Table) shown(d *Definition, r kv.Reader) kv.Reader {
	if d.Base == "" {
		return r
	}
	base := t.engine.find(d.Base)
	if base == nil {
		return r
	}
	indexes := base.definition().Indexes
	for i := range indexes {
		if indexes[i].Name == d.Name && !indexes[i].Sync {
			return base.lagging(r, d.Prefix, t.engine.now())
		}
	}
	return r
}
