package kv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// lockName is the file in a store's folder that the process holds which has it
// open.
const lockName = "lock"

// Open returns the store of a folder, which it makes if need be. Only one
// process can have it open.
//
// A space is a log on disk and, in memory, an ordered index of where each key's
// value stands in the log: a write costs what writing its bytes once does,
// whether keys arrive in order or not. Updates that arrive while others are being
// made durable wait for them and then share one record and one fsync. A reader
// sees what is durable. It waits for a writer no longer than the index takes.
func Open(dir string) (Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the store: %w", err)
	}
	f, err := openFile(dir, segmentSize)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// openFile is Open with segments of a size.
func openFile(dir string, room int) (*file, error) {
	lock, err := lockFolder(dir)
	if err != nil {
		return nil, err
	}
	f := &file{dir: dir, lock: lock, room: room, segments: map[uint32]*segment{}, spaces: map[string]*tree{}}
	if err := f.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open the store of %s: %w", dir, err), f.Close())
	}
	return f, nil
}

func lockFolder(dir string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the store: %w", err)
	}
	// A process that was killed lets go a moment later.
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return lock, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(deadline) {
			break
		}
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = errors.New("another process has it open")
	}
	return nil, errors.Join(fmt.Errorf("open the store of %s: %w", dir, err), lock.Close())
}

// syncDir makes the names of new files durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync the folder of the store: %w", err)
	}
	if err := d.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync the folder of the store: %w", err), d.Close())
	}
	return d.Close()
}

type file struct {
	dir  string
	lock *os.File
	room int // of a segment, for records

	// mu is held, shared, by readers, and alone while what they see changes. The
	// update that leads reads without it.
	mu       sync.RWMutex
	spaces   map[string]*tree // of locations
	segments map[uint32]*segment

	// What follows is the leader's.
	active *segment // the last one, nil if the next record begins one
	first  uint32   // number of the first segment
	next   uint32   // and of the next one
	number uint64   // of the next record
	buf    []byte   // the record that is being made
	drafts map[string]*draft
	last   string // the space of the last step
	broken error

	queue   sync.Mutex
	waiting []*update
	busy    bool // some update leads
}

// A location is where a value stands in the log, as the index has it.
type location [12]byte

// Segments that are none: a value in the record that is being made, and a key
// that it removes.
const (
	inRecord = ^uint32(0)
	removed  = ^uint32(0) - 1
)

func at(segment uint32, offset, size int) (l location) {
	binary.LittleEndian.PutUint32(l[:], segment)
	binary.LittleEndian.PutUint32(l[4:], uint32(offset))
	binary.LittleEndian.PutUint32(l[8:], uint32(size))
	return l
}

func whence(l []byte) (segment uint32, offset, size int) {
	return binary.LittleEndian.Uint32(l), int(binary.LittleEndian.Uint32(l[4:])), int(binary.LittleEndian.Uint32(l[8:]))
}

// entryCost is about what an entry takes of the log.
func entryCost(key []byte, size int) int { return len(key) + size + 4 }

// value returns the value at a location.
func (f *file) value(l []byte) []byte {
	id, offset, size := whence(l)
	data := f.buf
	if id != inRecord {
		data = f.segments[id].data
	}
	return data[offset : offset+size : offset+size]
}

// load reads the log.
func (f *file) load() error {
	ids, err := segments(f.dir)
	if err != nil {
		return err
	}
	for i, id := range ids {
		s, err := openSegment(f.dir, id)
		if err != nil {
			return err
		}
		f.segments[id] = s
		if i == 0 {
			f.first = id
		}
		f.next = id + 1
		if err := f.replay(s, i == 0); err != nil {
			return fmt.Errorf("%s: %w", s.file.Name(), err)
		}
		if s.size == len(s.data) {
			continue
		}
		if i < len(ids)-1 || !s.brokenOff(s.size) {
			return fmt.Errorf("%s: %w: there is no whole record at byte %d of %d", s.file.Name(), errDamaged, s.size, len(s.data))
		}
		// The process was killed. Nobody was told that what it was writing is
		// durable.
		if err := s.end(); err != nil {
			return err
		}
	}
	if len(ids) == 0 {
		return nil
	}
	if s := f.segments[f.next-1]; s.size < f.room {
		if err := s.resize(f.room); err != nil {
			return err
		}
		f.active = s
	}
	return nil
}

// replay puts the records of a segment into the index.
func (f *file) replay(s *segment, first bool) error {
	for {
		number, payload, ok := s.record(s.size)
		if !ok {
			return nil
		}
		if !(first && s.size == 0) && number != f.number {
			return fmt.Errorf("%w: record %d stands where %d is expected", errDamaged, number, f.number)
		}
		f.number = number + 1
		start := s.size + recordHead
		var t *tree
		var space string
		err := steps(payload, func(st step) error {
			switch st.kind {
			case stepSpace:
				space = string(st.name)
				t = f.spaces[space]
			case stepDrop:
				f.forget(space)
				t = nil
			case stepPut:
				if t == nil {
					t = new(tree)
					f.spaces[space] = t
				}
				f.index(t, st.name, at(s.id, start+st.at, st.size))
			case stepDelete:
				if t != nil {
					f.unindex(t, st.name)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		s.size = start + len(payload)
	}
}

// index sets the location of a key.
func (f *file) index(t *tree, key []byte, l location) {
	var room location
	if was := t.swap(key, l[:], room[:0]); len(was) > 0 {
		f.release(key, was)
	}
	id, _, size := whence(l[:])
	f.segments[id].live += entryCost(key, size)
}

// unindex removes a key.
func (f *file) unindex(t *tree, key []byte) {
	if was := t.Get(key); was != nil {
		f.release(key, was)
		t.Delete(key)
	}
}

// release takes account of an entry that is in force no more.
func (f *file) release(key, l []byte) {
	id, _, size := whence(l)
	f.segments[id].live -= entryCost(key, size)
}

// forget removes a space.
func (f *file) forget(space string) {
	if t := f.spaces[space]; t != nil {
		t.Ascend(nil, func(key, l []byte) bool { f.release(key, l); return true })
		delete(f.spaces, space)
	}
}

// An update waits until it is told that it is done or that it leads.
type update struct {
	space string
	fn    func(Writer) error
	err   error
	lead  bool
	woken chan struct{}
}

// Bounds of the updates of one record.
const (
	maxShared     = 256
	maxSharedSize = 16 << 20
)

func (f *file) Update(space string, fn func(Writer) error) error {
	u := &update{space: space, fn: fn, woken: make(chan struct{}, 1)}
	f.queue.Lock()
	f.waiting = append(f.waiting, u)
	if f.busy {
		f.queue.Unlock()
		if <-u.woken; !u.lead {
			return u.err
		}
		f.queue.Lock()
	}
	f.busy = true
	// The leader is the first that waits: it commits itself with those behind.
	group := f.waiting[:min(len(f.waiting), maxShared)]
	f.queue.Unlock()

	group = group[:f.commit(group)]

	f.queue.Lock()
	defer f.queue.Unlock()
	for _, other := range group[1:] {
		other.woken <- struct{}{}
	}
	f.waiting = f.waiting[len(group):]
	clear(group)
	if f.busy = len(f.waiting) > 0; f.busy {
		f.waiting[0].lead = true
		f.waiting[0].woken <- struct{}{}
	}
	return u.err
}

// commit makes updates in one record, as many as it has room for, and returns
// their number.
func (f *file) commit(group []*update) int {
	f.buf, f.last = append(f.buf[:0], make([]byte, recordHead)...), ""
	f.drafts = map[string]*draft{}
	n := 0
	for n < len(group) && len(f.buf) < maxSharedSize {
		group[n].err = f.run(group[n])
		n++
	}
	err := f.finish()
	if err != nil {
		err = fmt.Errorf("commit to the store: %w", err)
		for _, u := range group[:n] {
			u.err = errors.Join(u.err, err)
		}
	}
	if cap(f.buf) > 2*maxSharedSize {
		f.buf = nil
	}
	f.drafts = nil
	return n
}

// run calls the update's function. A panic in it is that update's error: the
// others of the group have nothing to do with it.
func (f *file) run(u *update) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("update of %s: panic: %v", u.space, p)
		}
	}()
	d := f.drafts[u.space]
	if d == nil {
		d = &draft{view: view{file: f, tree: f.spaces[u.space]}, space: u.space}
		if d.tree == nil {
			d.tree = new(tree)
		}
		f.drafts[u.space] = d
	}
	return u.fn(d)
}

// finish makes the record durable and shows it to readers.
func (f *file) finish() error {
	if f.broken != nil {
		return f.broken
	}
	if len(f.buf) == recordHead {
		return nil
	}
	if err := f.reclaim(); err != nil {
		return err
	}
	at, err := f.append(f.buf)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for space, d := range f.drafts {
		f.apply(space, d, at)
	}
	return nil
}

// append writes a record at the end of the log and returns its place in the
// active segment.
func (f *file) append(record []byte) (int, error) {
	if s := f.active; s != nil && s.size+len(record) > max(f.room, len(s.data)) {
		if err := s.end(); err != nil {
			return 0, err
		}
		f.active = nil
	}
	if f.active == nil {
		s, err := createSegment(f.dir, f.next, max(f.room, len(record)))
		if err != nil {
			return 0, err
		}
		f.mu.Lock()
		f.segments[s.id] = s
		f.mu.Unlock()
		f.active = s
		f.next++
	}
	s := f.active
	place := s.size
	err := s.write(record, f.number)
	var unsynced errUnsynced
	switch {
	case errors.As(err, &unsynced):
		f.broken = fmt.Errorf("the store is of no use until it is opened again: %w", err)
		return 0, f.broken
	case err != nil:
		// What was written of it must not stand behind a shorter record.
		return 0, errors.Join(err, s.file.Truncate(int64(s.size)), s.file.Truncate(int64(len(s.data))))
	}
	f.number++
	return place, nil
}

// apply puts what a draft has into the index; its record stands at a place of
// the active segment.
func (f *file) apply(space string, d *draft, place int) {
	if d.dropped {
		f.forget(space)
	}
	t := f.spaces[space]
	if t == nil {
		t = new(tree)
		f.spaces[space] = t
	}
	d.steps.Ascend(nil, func(key, l []byte) bool {
		if id, offset, size := whence(l); id == removed {
			f.unindex(t, key)
		} else {
			f.index(t, key, at(f.active.id, place+offset, size))
		}
		return true
	})
}

// reclaim frees the first segment if, beside what two segments hold, the log is
// mostly of no use any more. What is in force of it is written again, at the end.
// It is always the first: what removes a key stands behind all that it removes.
func (f *file) reclaim() error {
	size, live := 0, 0
	for _, s := range f.segments {
		size += s.size
		live += s.live
	}
	s := f.segments[f.first]
	if size < 2*live+2*f.room || s == nil || s == f.active {
		return nil
	}
	if err := f.move(s); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.segments, s.id)
	for f.first++; f.segments[f.first] == nil && f.first < f.next; f.first++ {
	}
	return s.remove()
}

// move writes what is in force of a segment again.
func (f *file) move(s *segment) error {
	record := make([]byte, recordHead)
	type entry struct {
		space string
		key   []byte
		l     location
	}
	var entries []entry
	flush := func() error {
		if len(entries) == 0 {
			return nil
		}
		place, err := f.append(record)
		if err != nil {
			return err
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, e := range entries {
			_, offset, size := whence(e.l[:])
			f.index(f.spaces[e.space], e.key, at(f.active.id, place+offset, size))
		}
		record, entries = record[:recordHead], entries[:0]
		return nil
	}
	for place := 0; place < s.size; {
		_, payload, ok := s.record(place)
		if !ok {
			return fmt.Errorf("%s: %w: there is no whole record at byte %d", s.file.Name(), errDamaged, place)
		}
		start := place + recordHead
		var space string
		named := false
		err := steps(payload, func(st step) error {
			if st.kind == stepSpace {
				space, named = string(st.name), false
			}
			if st.kind != stepPut || f.spaces[space] == nil {
				return nil
			}
			l := at(s.id, start+st.at, st.size)
			if !bytes.Equal(f.spaces[space].Get(st.name), l[:]) {
				return nil
			}
			if !named {
				record, named = appendStep(record, stepSpace, []byte(space)), true
			}
			var offset int
			record, offset = appendPut(record, st.name, payload[st.at:st.at+st.size])
			entries = append(entries, entry{space, st.name, at(inRecord, offset, st.size)})
			return nil
		})
		if err != nil {
			return err
		}
		place = start + len(payload)
		if len(record) >= maxSharedSize {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

func (f *file) View(space string, fn func(Reader) error) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	t := f.spaces[space]
	if t == nil {
		return fn(&tree{})
	}
	return fn(&view{file: f, tree: t})
}

func (f *file) Drop(space string) error {
	err := f.Update(space, func(w Writer) error {
		w.(*draft).drop()
		return nil
	})
	if err != nil {
		return fmt.Errorf("drop %s: %w", space, err)
	}
	return nil
}

func (f *file) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	if f.active != nil && f.broken == nil {
		errs = append(errs, f.active.end())
	}
	for _, s := range f.segments {
		errs = append(errs, s.close())
	}
	f.segments, f.spaces, f.active = nil, nil, nil
	f.broken = errors.New("the store is closed")
	return errors.Join(append(errs, f.lock.Close())...)
}

// A view is a space as readers see it.
type view struct {
	file *file
	tree *tree
}

func (v *view) Get(key []byte) []byte {
	if l := v.tree.Get(key); l != nil {
		return v.file.value(l)
	}
	return nil
}

func (v *view) Ascend(from []byte, fn func(key, value []byte) bool) {
	v.tree.Ascend(from, func(key, l []byte) bool { return fn(key, v.file.value(l)) })
}

func (v *view) Descend(below []byte, fn func(key, value []byte) bool) {
	v.tree.Descend(below, func(key, l []byte) bool { return fn(key, v.file.value(l)) })
}

// A draft is a space with what the updates of a record have changed in it.
type draft struct {
	view    // without those
	space   string
	steps   tree // locations in the record
	dropped bool
}

var _ Writer = (*draft)(nil)

// enter names the space in the record.
func (d *draft) enter() *file {
	f := d.file
	if f.last != d.space || len(f.buf) == recordHead {
		f.buf, f.last = appendStep(f.buf, stepSpace, []byte(d.space)), d.space
	}
	return f
}

func (d *draft) Put(key, value []byte) {
	f := d.enter()
	var offset int
	f.buf, offset = appendPut(f.buf, key, value)
	l := at(inRecord, offset, len(value))
	d.steps.Put(key, l[:])
}

func (d *draft) Delete(key []byte) {
	f := d.enter()
	f.buf = appendStep(f.buf, stepDelete, key)
	l := at(removed, 0, 0)
	d.steps.Put(key, l[:])
}

func (d *draft) drop() {
	f := d.enter()
	f.buf = append(f.buf, stepDrop)
	d.steps, d.tree, d.dropped = tree{}, new(tree), true
}

func (d *draft) Get(key []byte) []byte {
	l := d.steps.Get(key)
	if l == nil {
		return d.view.Get(key)
	}
	if id, _, _ := whence(l); id == removed {
		return nil
	}
	return d.file.value(l)
}

func (d *draft) Ascend(from []byte, fn func(key, value []byte) bool) {
	below, above := d.tree.seek(from), d.steps.seek(from)
	for {
		key, l := d.tree.following(&below)
		changed, to := d.steps.following(&above)
		if key == nil && changed == nil {
			return
		}
		order := 1
		switch {
		case changed == nil:
			order = -1
		case key != nil:
			order = bytes.Compare(key, changed)
		}
		if order <= 0 {
			below.entry++
		}
		if order >= 0 {
			above.entry++
			key, l = changed, to
		}
		if id, _, _ := whence(l); id != removed && !fn(key, d.file.value(l)) {
			return
		}
	}
}

func (d *draft) Descend(from []byte, fn func(key, value []byte) bool) {
	below, above := d.tree.seekBelow(from), d.steps.seekBelow(from)
	for {
		key, l := d.tree.preceding(&below)
		changed, to := d.steps.preceding(&above)
		if key == nil && changed == nil {
			return
		}
		order := 1
		switch {
		case changed == nil:
			order = -1
		case key != nil:
			order = bytes.Compare(changed, key)
		}
		if order <= 0 {
			below.entry--
		}
		if order >= 0 {
			above.entry--
			key, l = changed, to
		}
		if id, _, _ := whence(l); id != removed && !fn(key, d.file.value(l)) {
			return
		}
	}
}
