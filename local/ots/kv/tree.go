package kv

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sort"
)

const (
	// leafSize is the size at which a leaf is split. Inserting moves half a leaf on
	// average, which takes about a microsecond.
	leafSize = 32 << 10

	// branchSize is the number of leaves at which a branch is split.
	branchSize = 1024

	// entryHeader is the two lengths before a key and its value.
	entryHeader = 8
)

// A tree is an ordered map in three levels: the tree has branches, a branch has leaves, a
// leaf has entries packed into one block of bytes. No branch and no leaf is empty.
type tree struct {
	branches []*branch
	// The leaf of the last Put: the keys of a batch mostly follow one another.
	lastBranch, lastLeaf int
}

type branch struct {
	leaves []*leaf
}

// A leaf holds entries in key order: key length, value length, key, value.
type leaf struct {
	buf     []byte
	offsets []uint32
	// next is the place after the entry that was inserted last.
	next int
}

func (l *leaf) key(i int) []byte {
	at := l.offsets[i]
	n := binary.LittleEndian.Uint32(l.buf[at:])
	at += entryHeader
	return l.buf[at : at+n : at+n]
}

func (l *leaf) entry(i int) (key, value []byte) {
	at := l.offsets[i]
	k := binary.LittleEndian.Uint32(l.buf[at:])
	v := binary.LittleEndian.Uint32(l.buf[at+4:])
	at += entryHeader
	return l.buf[at : at+k : at+k], l.buf[at+k : at+k+v : at+k+v]
}

// search returns the place of the first key that is not below the given one, and whether
// it is equal.
func (l *leaf) search(key []byte) (int, bool) {
	lo, hi := 0, len(l.offsets)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch c := bytes.Compare(l.key(mid), key); {
		case c == 0:
			return mid, true
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return lo, false
}

// find returns the place of the leaf that has the key if any does: the last one whose
// first key is not above it, or the first of all.
func (t *tree) find(key []byte) (b, l int) {
	b = sort.Search(len(t.branches), func(i int) bool {
		return bytes.Compare(t.branches[i].leaves[0].key(0), key) > 0
	})
	b = max(b-1, 0)
	leaves := t.branches[b].leaves
	l = sort.Search(len(leaves), func(i int) bool {
		return bytes.Compare(leaves[i].key(0), key) > 0
	})
	return b, max(l-1, 0)
}

// findNear is find, which looks first at the leaf of the last Put and at the one behind
// it.
func (t *tree) findNear(key []byte) (b, l int) {
	if b, l = t.lastBranch, t.lastLeaf; b < len(t.branches) {
		// Keys that arrive in order go on in the leaf behind.
		for end := min(l+2, len(t.branches[b].leaves)); l < end; l++ {
			if t.covers(b, l, key) {
				t.lastLeaf = l
				return b, l
			}
		}
	}
	t.lastBranch, t.lastLeaf = t.find(key)
	return t.lastBranch, t.lastLeaf
}

// covers says whether a leaf is the one that find finds. It may miss that where the key
// is below all others.
func (t *tree) covers(b, l int, key []byte) bool {
	leaves := t.branches[b].leaves
	if bytes.Compare(leaves[l].key(0), key) > 0 {
		return false
	}
	switch {
	case l+1 < len(leaves):
		return bytes.Compare(leaves[l+1].key(0), key) > 0
	case b+1 < len(t.branches):
		return bytes.Compare(t.branches[b+1].leaves[0].key(0), key) > 0
	}
	return true
}

// searchNear is search, which looks first behind the entry that was inserted last.
func (l *leaf) searchNear(key []byte) (int, bool) {
	if i := l.next; 0 < i && i <= len(l.offsets) && bytes.Compare(l.key(i-1), key) < 0 {
		if i == len(l.offsets) {
			return i, false
		}
		if c := bytes.Compare(l.key(i), key); c >= 0 {
			return i, c == 0
		}
	}
	return l.search(key)
}

func (t *tree) Get(key []byte) []byte {
	if len(t.branches) == 0 {
		return nil
	}
	b, l := t.find(key)
	leaf := t.branches[b].leaves[l]
	i, ok := leaf.search(key)
	if !ok {
		return nil
	}
	_, value := leaf.entry(i)
	return value
}

func (t *tree) Ascend(from []byte, fn func(key, value []byte) bool) {
	if len(t.branches) == 0 {
		return
	}
	var b, l, i int
	if from != nil {
		b, l = t.find(from)
		i, _ = t.branches[b].leaves[l].search(from)
	}
	for ; b < len(t.branches); b, l = b+1, 0 {
		leaves := t.branches[b].leaves
		for ; l < len(leaves); l, i = l+1, 0 {
			leaf := leaves[l]
			for ; i < len(leaf.offsets); i++ {
				if !fn(leaf.entry(i)) {
					return
				}
			}
		}
	}
}

func (t *tree) Descend(below []byte, fn func(key, value []byte) bool) {
	if len(t.branches) == 0 {
		return
	}
	b := len(t.branches) - 1
	l := len(t.branches[b].leaves) - 1
	i := len(t.branches[b].leaves[l].offsets)
	if below != nil {
		b, l = t.find(below)
		i, _ = t.branches[b].leaves[l].search(below)
	}
	for {
		leaf := t.branches[b].leaves[l]
		for i--; i >= 0; i-- {
			if !fn(leaf.entry(i)) {
				return
			}
		}
		if l--; l < 0 {
			if b--; b < 0 {
				return
			}
			l = len(t.branches[b].leaves) - 1
		}
		i = len(t.branches[b].leaves[l].offsets)
	}
}

func (t *tree) Put(key, value []byte) {
	if len(t.branches) == 0 {
		l := new(leaf)
		l.insert(0, key, value)
		t.branches = []*branch{{leaves: []*leaf{l}}}
		return
	}
	b, at := t.findNear(key)
	l := t.branches[b].leaves[at]
	i, ok := l.searchNear(key)
	if ok {
		if l.replace(i, value) {
			return
		}
		l.remove(i)
	}
	size := entryHeader + len(key) + len(value)
	if len(l.buf)+size <= leafSize || len(l.offsets) == 0 {
		l.insert(i, key, value)
		return
	}
	if i < len(l.offsets) {
		cut := l.middle()
		if i == l.next && i > 0 {
			// Keys arrive in order in front of these, which are out of the way
			// then.
			cut = i
		}
		if cut > 0 {
			next := l.split(cut)
			t.add(b, at+1, next)
			if i > cut {
				l, i = next, i-cut
			} else {
				b, at = t.find(key) // a branch may have been split
			}
		}
	}
	if i < len(l.offsets) || len(l.buf)+size <= leafSize {
		l.insert(i, key, value)
		return
	}
	// Keys that arrive in order leave full leaves behind.
	next := newLeaf(size)
	next.offsets = make([]uint32, 0, len(l.offsets)+1)
	next.insert(0, key, value)
	t.add(b, at+1, next)
}

func (t *tree) Delete(key []byte) {
	if len(t.branches) == 0 {
		return
	}
	b, at := t.find(key)
	leaves := t.branches[b].leaves
	l := leaves[at]
	i, ok := l.search(key)
	if !ok {
		return
	}
	l.remove(i)
	if len(l.offsets) > 0 {
		if at+1 < len(leaves) && len(l.buf)+len(leaves[at+1].buf) < leafSize/2 {
			l.append(leaves[at+1])
			t.removeLeaf(b, at+1)
		}
		return
	}
	t.removeLeaf(b, at)
}

// add puts a leaf at the place at of branch b.
func (t *tree) add(b, at int, l *leaf) {
	br := t.branches[b]
	br.leaves = slices.Insert(br.leaves, at, l)
	if len(br.leaves) < branchSize {
		return
	}
	cut := len(br.leaves) / 2
	if at == len(br.leaves)-1 {
		cut = at
	}
	next := &branch{leaves: slices.Clone(br.leaves[cut:])}
	clear(br.leaves[cut:])
	br.leaves = br.leaves[:cut]
	t.branches = slices.Insert(t.branches, b+1, next)
}

func (t *tree) removeLeaf(b, at int) {
	br := t.branches[b]
	br.leaves = slices.Delete(br.leaves, at, at+1)
	if len(br.leaves) == 0 {
		t.branches = slices.Delete(t.branches, b, b+1)
	}
}

// newLeaf has room for one entry of the size and, usually, for others.
func newLeaf(size int) *leaf {
	return &leaf{buf: make([]byte, 0, max(leafSize, size))}
}

// insert puts an entry at place i.
func (l *leaf) insert(i int, key, value []byte) {
	at := uint32(len(l.buf))
	if i < len(l.offsets) {
		at = l.offsets[i]
	}
	size := entryHeader + len(key) + len(value)
	old := len(l.buf)
	l.buf = slices.Grow(l.buf, size)[:old+size]
	copy(l.buf[int(at)+size:], l.buf[at:old])
	p := l.buf[at:]
	binary.LittleEndian.PutUint32(p, uint32(len(key)))
	binary.LittleEndian.PutUint32(p[4:], uint32(len(value)))
	copy(p[entryHeader:], key)
	copy(p[entryHeader+len(key):], value)
	l.offsets = slices.Insert(l.offsets, i, at)
	l.next = i + 1
	for j := i + 1; j < len(l.offsets); j++ {
		l.offsets[j] += uint32(size)
	}
}

// replace sets the value of entry i if the leaf stays within its size.
func (l *leaf) replace(i int, value []byte) bool {
	at := int(l.offsets[i])
	k := int(binary.LittleEndian.Uint32(l.buf[at:]))
	v := int(binary.LittleEndian.Uint32(l.buf[at+4:]))
	diff := len(value) - v
	if diff > 0 && len(l.buf)+diff > leafSize && len(l.offsets) > 1 {
		return false
	}
	start := at + entryHeader + k
	old := len(l.buf)
	switch {
	case diff > 0:
		l.buf = slices.Grow(l.buf, diff)[:old+diff]
		copy(l.buf[start+v+diff:], l.buf[start+v:old])
	case diff < 0:
		copy(l.buf[start+len(value):], l.buf[start+v:])
		l.buf = l.buf[:old+diff]
	}
	copy(l.buf[start:], value)
	binary.LittleEndian.PutUint32(l.buf[at+4:], uint32(len(value)))
	if diff != 0 {
		for j := i + 1; j < len(l.offsets); j++ {
			l.offsets[j] = uint32(int(l.offsets[j]) + diff)
		}
	}
	return true
}

func (l *leaf) remove(i int) {
	at := l.offsets[i]
	end := uint32(len(l.buf))
	if i+1 < len(l.offsets) {
		end = l.offsets[i+1]
	}
	l.buf = append(l.buf[:at], l.buf[end:]...)
	l.offsets = slices.Delete(l.offsets, i, i+1)
	for j := i; j < len(l.offsets); j++ {
		l.offsets[j] -= end - at
	}
}

// middle returns the entry at which a split leaves about half of the bytes on either
// side, or 0 for a leaf that cannot be split.
func (l *leaf) middle() int {
	if len(l.offsets) < 2 {
		return 0
	}
	half := uint32(len(l.buf) / 2)
	i := sort.Search(len(l.offsets), func(i int) bool { return l.offsets[i] >= half })
	return min(max(i, 1), len(l.offsets)-1)
}

// split moves the entries from cut on to a leaf of their own.
func (l *leaf) split(cut int) *leaf {
	at := l.offsets[cut]
	next := newLeaf(len(l.buf) - int(at))
	next.buf = append(next.buf, l.buf[at:]...)
	next.offsets = make([]uint32, 0, len(l.offsets))
	for _, o := range l.offsets[cut:] {
		next.offsets = append(next.offsets, o-at)
	}
	l.buf, l.offsets = l.buf[:at], l.offsets[:cut]
	if cap(l.buf) > 2*leafSize {
		l.buf = append(make([]byte, 0, max(leafSize, len(l.buf))), l.buf...)
	}
	return next
}

// append moves the entries of the leaf that follows to the end of l.
func (l *leaf) append(next *leaf) {
	at := uint32(len(l.buf))
	l.buf = append(l.buf, next.buf...)
	for _, o := range next.offsets {
		l.offsets = append(l.offsets, o+at)
	}
}
