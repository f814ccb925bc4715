//go:build linux || darwin

package dir

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// folders keeps open the folders that objects were lately created in, each known to be
// durable up to the root.
//
// A path alone would not do: a folder may be removed, being empty, and made again by a
// process that has not made it durable yet. Nothing can be created in a removed folder
// that is held open, so the open file tells.
type folders struct {
	root *folder
	sync func(folder *os.File) error

	mu   sync.Mutex
	open map[string]*folder // by path relative to the root
}

// folder is an open folder. Its counters are guarded by folders.mu.
type folder struct {
	*os.File
	path    string
	users   int
	dropped bool // to be closed by its last user
}

// mostFolders is the number of folders kept open. A process works in few at a time.
const mostFolders = 64

// errStale is returned when a folder was removed while it was being entered: it is to be
// tried again.
var errStale = errors.New("the folder was removed")

func newFolders(root *os.File, sync func(*os.File) error) *folders {
	return &folders{root: &folder{File: root, path: "."}, sync: sync, open: make(map[string]*folder)}
}

// hold returns an open durable folder, which it makes if need be. The caller releases it.
func (f *folders) hold(path string) (*folder, error) {
	if path == "." {
		return f.root, nil
	}
	f.mu.Lock()
	held, ok := f.open[path]
	if ok {
		held.users++
	}
	f.mu.Unlock()
	if ok {
		return held, nil
	}
	up, base := parent(path)
	above, err := f.hold(up)
	if err != nil {
		return nil, err
	}
	defer f.release(above)
	if err := mkdirIn(above.File, base); err == unix.ENOENT {
		f.drop(above)
		return nil, errStale
	} else if err != nil && err != unix.EEXIST {
		return nil, fmt.Errorf("make the folder %s: %w", path, err)
	}
	file, err := openFolderIn(above.File, base)
	switch err {
	case nil:
	case unix.ENOENT:
		return nil, errStale
	case unix.ENOTDIR, unix.ELOOP:
		return nil, fmt.Errorf("%s is no folder: a name can't be an object and a folder of others", path)
	default:
		return nil, fmt.Errorf("open the folder %s: %w", path, err)
	}
	// Whoever made the folder may not have come to this yet.
	if err := f.sync(above.File); err != nil {
		file.Close()
		return nil, fmt.Errorf("make the folder %s durable: %w", path, err)
	}
	return f.add(&folder{File: file, path: path, users: 1}), nil
}

// add keeps a folder, of which its caller is a user, unless another goroutine just did:
// then it returns that one.
func (f *folders) add(opened *folder) *folder {
	f.mu.Lock()
	defer f.mu.Unlock()
	if before, ok := f.open[opened.path]; ok {
		opened.Close()
		before.users++
		return before
	}
	if len(f.open) >= mostFolders {
		for _, other := range f.open {
			f.close(other)
		}
	}
	f.open[opened.path] = opened
	return opened
}

// drop makes hold open the folder anew. Its caller is a user and still releases it.
func (f *folders) drop(stale *folder) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.close(stale)
}

func (f *folders) release(used *folder) {
	if used == f.root {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	used.users--
	if used.dropped && used.users == 0 {
		used.Close()
	}
}

// close closes a folder now or after its last use. The caller holds mu.
func (f *folders) close(kept *folder) {
	if kept == f.root || kept.dropped {
		return
	}
	kept.dropped = true
	delete(f.open, kept.path)
	if kept.users == 0 {
		kept.Close()
	}
}
