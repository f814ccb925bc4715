package kv

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// fileName is the file in a store's folder.
const fileName = "tablestore.db"

// pageSize is that of new files. Each page that a commit touches is written by a call of
// its own, and rows mostly come in batches of neighbours: in larger pages they take a
// quarter less time than in those of the system, and at random keys no more.
const pageSize = 16 << 10

// Open returns the store of a folder, which it makes if need be. Only one process can
// have it open.
//
// Updates that arrive while another is being made durable wait for it and then share one
// transaction and one fsync. A reader sees what is durable, and never waits for a writer.
func Open(dir string) (Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the store: %w", err)
	}
	name := filepath.Join(dir, fileName)
	db, err := bbolt.Open(name, 0o600, &bbolt.Options{
		Timeout:      2 * time.Second,
		PageSize:     pageSize,
		FreelistType: bbolt.FreelistMapType,
		// The list of free pages is found again at opening, instead of being
		// written with each commit.
		NoFreelistSync: true,
	})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("open %s: another process has it open", name)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	if err := syncDir(dir); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &file{db: db}, nil
}

// syncDir makes the name of the new file durable.
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
	db *bbolt.DB

	mu      sync.Mutex
	waiting []*update
	busy    bool // some update leads
}

// An update waits until it is told that it is done or that it leads.
type update struct {
	space string
	fn    func(Writer) error
	err   error
	lead  bool
	woken chan struct{}
}

// maxShared bounds the updates of one transaction, whose memory grows with the pages that
// it touches.
const maxShared = 256

func (f *file) Update(space string, fn func(Writer) error) error {
	u := &update{space: space, fn: fn, woken: make(chan struct{}, 1)}
	f.mu.Lock()
	f.waiting = append(f.waiting, u)
	follows := f.busy
	f.busy = true
	f.mu.Unlock()
	if !follows {
		// Those that are ready to run come as far as here, and share the commit.
		runtime.Gosched()
	} else if <-u.woken; !u.lead {
		return u.err
	}
	// The leader is the first that waits: it commits itself with those behind.
	f.mu.Lock()
	n := min(len(f.waiting), maxShared)
	group := f.waiting[:n:n]
	f.waiting = f.waiting[n:]
	f.mu.Unlock()

	f.commit(group)
	for _, other := range group[1:] {
		other.woken <- struct{}{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.busy = len(f.waiting) > 0; f.busy {
		f.waiting[0].lead = true
		f.waiting[0].woken <- struct{}{}
	}
	return u.err
}

// commit makes a group of updates in one transaction.
func (f *file) commit(group []*update) {
	tx, err := f.db.Begin(true)
	if err == nil {
		for _, u := range group {
			u.err = u.run(tx)
		}
		err = tx.Commit()
	}
	if err != nil {
		err = fmt.Errorf("commit to the store: %w", err)
		for _, u := range group {
			u.err = errors.Join(u.err, err)
		}
	}
}

// run calls the update's function. A panic in it is that update's error: the others of
// the group have nothing to do with it.
func (u *update) run(tx *bbolt.Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("update of %s: panic: %v", u.space, p)
		}
	}()
	b, err := tx.CreateBucketIfNotExists([]byte(u.space))
	if err != nil {
		return fmt.Errorf("update of %s: %w", u.space, err)
	}
	w := &bucket{b: b}
	if err := u.fn(w); err != nil {
		return err
	}
	return w.err
}

func (f *file) View(space string, fn func(Reader) error) error {
	return f.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(space))
		if b == nil {
			return fn(&tree{})
		}
		return fn(&bucket{b: b})
	})
}

func (f *file) Drop(space string) error {
	err := f.db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte(space)) })
	if err != nil && !errors.Is(err, berrors.ErrBucketNotFound) {
		return fmt.Errorf("drop %s: %w", space, err)
	}
	return nil
}

func (f *file) Close() error { return f.db.Close() }

// A bucket is a space in a transaction.
type bucket struct {
	b       *bbolt.Bucket
	err     error // the first of a write
	written bool
}

func (b *bucket) Get(key []byte) []byte { return b.b.Get(key) }

func (b *bucket) Put(key, value []byte) {
	if !b.written {
		b.written = true
		// Pages that keys in order leave behind are not written to again, so
		// they are left full; others have room for the keys between theirs.
		b.b.FillPercent = bbolt.DefaultFillPercent
		if last, _ := b.b.Cursor().Last(); bytes.Compare(key, last) > 0 {
			b.b.FillPercent = 1
		}
	}
	if err := b.b.Put(key, value); err != nil && b.err == nil {
		b.err = fmt.Errorf("put a key of %d bytes: %w", len(key), err)
	}
}

func (b *bucket) Delete(key []byte) {
	if err := b.b.Delete(key); err != nil && b.err == nil {
		b.err = fmt.Errorf("delete a key of %d bytes: %w", len(key), err)
	}
}

func (b *bucket) Ascend(from []byte, fn func(key, value []byte) bool) {
	c := b.b.Cursor()
	for k, v := c.Seek(from); k != nil && fn(k, v); k, v = c.Next() {
	}
}

func (b *bucket) Descend(below []byte, fn func(key, value []byte) bool) {
	c := b.b.Cursor()
	var k, v []byte
	if below != nil {
		k, _ = c.Seek(below)
	}
	if k == nil {
		k, v = c.Last()
	} else {
		k, v = c.Prev()
	}
	for ; k != nil && fn(k, v); k, v = c.Prev() {
	}
}
