package engine

import (
	"slices"

	"github.com/tablevault/tablevault/local/ots/kv"
)

// A draft is changes that a space does not have yet. A nil value removes its key. The
// draft keeps keys and values as they are given.
type draft struct {
	values map[string][]byte
	keys   []string // of values, in order once sorted
	sorted bool
}

func (d *draft) set(key, value []byte) {
	if d.values == nil {
		d.values = map[string][]byte{}
	}
	if _, ok := d.values[string(key)]; !ok {
		k := string(key)
		d.keys, d.sorted = append(d.keys, k), false
		d.values[k] = value
		return
	}
	d.values[string(key)] = value
}

// order returns the keys in order.
func (d *draft) order() []string {
	if !d.sorted {
		slices.Sort(d.keys)
		d.sorted = true
	}
	return d.keys
}

// write makes the changes in the space.
func (d *draft) write(s kv.Writer) {
	for _, k := range d.order() {
		if v := d.values[k]; v != nil {
			s.Put([]byte(k), v)
		} else {
			s.Delete([]byte(k))
		}
	}
}

// A layer is a space as it would be with the changes of a draft, to which its own writes
// go.
type layer struct {
	below kv.Reader
	draft *draft
}

var _ kv.Writer = layer{}

func (l layer) Put(key, value []byte) {
	if value == nil {
		value = []byte{}
	}
	l.draft.set(key, value)
}

func (l layer) Delete(key []byte) { l.draft.set(key, nil) }

func (l layer) Get(key []byte) []byte {
	if v, ok := l.draft.values[string(key)]; ok {
		return v
	}
	return l.below.Get(key)
}

func (l layer) Ascend(from []byte, fn func(key, value []byte) bool) {
	drafted := l.draft.order()
	at, _ := slices.BinarySearch(drafted, string(from))
	// emit hands out what is drafted before a key, nil for all of it.
	emit := func(before []byte) bool {
		for ; at < len(drafted) && (before == nil || drafted[at] < string(before)); at++ {
			if v := l.draft.values[drafted[at]]; v != nil && !fn([]byte(drafted[at]), v) {
				return false
			}
		}
		return true
	}
	going := true
	l.below.Ascend(from, func(key, value []byte) bool {
		if going = emit(key); !going {
			return false
		}
		if at < len(drafted) && drafted[at] == string(key) {
			value = l.draft.values[drafted[at]]
			at++
			if value == nil {
				return true
			}
		}
		going = fn(key, value)
		return going
	})
	if going {
		emit(nil)
	}
}

func (l layer) Descend(below []byte, fn func(key, value []byte) bool) {
	drafted := l.draft.order()
	at := len(drafted)
	if below != nil {
		at, _ = slices.BinarySearch(drafted, string(below))
	}
	// emit hands out what is drafted behind a key, nil for all of it.
	emit := func(behind []byte) bool {
		for ; at > 0 && (behind == nil || drafted[at-1] > string(behind)); at-- {
			if v := l.draft.values[drafted[at-1]]; v != nil && !fn([]byte(drafted[at-1]), v) {
				return false
			}
		}
		return true
	}
	going := true
	l.below.Descend(below, func(key, value []byte) bool {
		if going = emit(key); !going {
			return false
		}
		if at > 0 && drafted[at-1] == string(key) {
			value = l.draft.values[drafted[at-1]]
			at--
			if value == nil {
				return true
			}
		}
		going = fn(key, value)
		return going
	})
	if going {
		emit(nil)
	}
}
