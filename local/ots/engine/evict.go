package engine

import (
	"bytes"
	"slices"

	"github.com/tablevault/tablevault/local/ots/kv"
)

// evictStep is the number of rows that are looked at before writers get their turn.
const evictStep = 500

// Evict drops from the rows of a table all versions that no read shows, because there are
// enough newer ones or because they have expired, and the rows that are hidden. The
// service does so at times of its own.
func (e *Engine) Evict(table string) *Error {
	t, err := e.ready(table)
	if err != nil {
		return err
	}
	for from := t.definition().Prefix; from != nil; {
		if from, err = t.evict(from); err != nil {
			return err
		}
	}
	return nil
}

// evict does one step, and returns where the next begins.
func (t *Table) evict(from []byte) (next []byte, _ *Error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	def := t.definition()
	if t.gone.Load() || def.Base != "" {
		return nil, errNoTable
	}
	w := t.writer(def, t.engine.now())
	defer w.release()
	err := t.engine.store.Update(def.Space, func(s kv.Writer) error {
		var found []*Change
		var rows []record
		n := 0
		s.Ascend(from, func(key, value []byte) bool {
			if !bytes.HasPrefix(key, def.Prefix) {
				return false
			}
			if n++; n > evictStep {
				next = bytes.Clone(key)
				return false
			}
			if rec := record(value); !rec.whole(w.options.MaxVersions, w.expiry) {
				found = append(found, &Change{Op: Update, key: bytes.Clone(key)})
				rows = append(rows, slices.Clone(rec))
			}
			return true
		})
		for i, c := range found {
			if err := w.drop(s, c, rows[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return next, AsError(err)
}

// drop takes from a row what no read shows.
func (w *writer) drop(s kv.Writer, c *Change, old record) error {
	if err := w.scanOld(old); err != nil {
		return err
	}
	c.Row.Key = w.old.Key
	var next record
	gone := w.evictions(w.old.Cells)
	if w.hide && old.gone(w.expiry) {
		c.Op, gone = Delete, nil
	} else {
		start := len(w.arena)
		w.arena = appendRecord(w.arena, w.old.Key, w.kept)
		next = record(w.arena[start:len(w.arena):len(w.arena)])
	}
	if w.log.on && w.log.behavior.Evictions {
		origin, err := w.origin(old)
		if err != nil {
			return err
		}
		w.log.add(w, s, c.Op, c.key, c.Row.Key, gone, origin)
	}
	// Not returned as it is: a nil *Error would be an error.
	if err := w.follow(s, c, old, next); err != nil {
		return err
	}
	return nil
}
