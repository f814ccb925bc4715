//go:build linux || darwin

// Package dir keeps objects as the files of a directory.
//
//	store, err := dir.Open(ctx, "/srv/objects")
//
// The object backups/prod/1 is the file backups/prod/1; only what a file name can't hold
// is escaped. Create writes a temporary file in the folder %tmp of the root, makes it
// durable, gives it its name with link, which fails if the name is taken where rename
// would replace, and makes the name durable: two fsyncs an object, and one more for each
// folder it is the first to use. Delete makes its effect durable, too, and removes
// folders that it empties. Dates and ages are the file system's.
//
// A crash at any moment leaves whole objects, and at most a temporary file and empty
// folders, which are no objects and are not listed. Open removes temporary files that are
// old and that no process holds.
//
// The directory belongs to the store. Files and folders are made for their owner alone,
// since they may hold a table's rows. A listing that meets what can't be an object, such
// as a symbolic link, fails rather than pass over it. Any number of processes may use a
// directory at the same time; over a network file system they rely on its link being
// exclusive, as that of NFS is.
package dir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tablevault/tablevault/shared/object"
)

const (
	// tmp is the folder in the root where objects are written before they get their
	// names.
	tmp = "%tmp"

	// folded is the empty file in the root which says that the names in this directory
	// are written for a file system that takes two names for one, also after the
	// directory was copied to one that does not.
	folded = "%folded"

	// staleAge is how old a temporary file must be for Open to remove it. Files in use
	// are locked, whatever their age; the age covers the moment between the making of a
	// file and its locking.
	staleAge = time.Hour
)

// Store keeps objects in a directory. Its folders are kept open for as long as it is
// used, and closed by the garbage collector.
type Store struct {
	dir     string // absolute, for errors
	root    *os.File
	tmp     *os.File
	names   names
	folders *folders
	buffers sync.Pool // of *[]byte, which content is streamed through

	// fsync makes durable what was written to a file, or the names in a folder. Tests
	// have a disk of their own for it.
	fsync func(*os.File) error

	readOnly error // what is in the way of Create, or nil

	// linkless says that the file system has no links, and a rename that does not replace
	// is used in their place.
	linkless bool
}

var _ object.Store = (*Store)(nil)

// Open returns the store in a directory, which exists, and removes from it what writers
// left that died more than an hour ago. A directory that can't be written to, being full,
// protected or on a file system without links, is opened all the same, since it may be
// needed for reading; Create then returns what is in the way.
func Open(ctx context.Context, path string) (*Store, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open the directory %s: %w", path, err)
	}
	s := &Store{dir: abs}
	if err := s.open(ctx, folds); err != nil {
		return nil, fmt.Errorf("open the directory %s: %w", abs, err)
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, folds func(folder *os.File, trial string) bool) error {
	err := ctx.Err()
	if err != nil {
		return err
	}
	s.root, err = os.OpenFile(s.dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w; create it first (mkdir -p %s) or correct the path", cause(err), s.dir)
	case errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%w; name the directory that holds the objects", cause(err))
	case err != nil:
		return cause(err)
	}
	if s.fsync == nil {
		s.fsync = (*os.File).Sync
	}
	s.folders = newFolders(s.root, s.syncFolder)
	s.buffers.New = func() any {
		buffer := make([]byte, 128<<10)
		return &buffer
	}
	if _, err := statIn(s.root, folded); err == nil {
		s.names.folded = true
	} else if err != unix.ENOENT {
		return fmt.Errorf("look for its file %s: %w", folded, err)
	}
	err = s.prepare(ctx, folds)
	for _, readable := range []error{errNoPlacing, fs.ErrPermission, unix.EROFS, unix.ENOSPC, unix.EDQUOT} {
		if errors.Is(err, readable) {
			s.readOnly = err
			return nil
		}
	}
	return err
}

// prepare makes ready for writing, and finds out by a trial what the file system can do.
func (s *Store) prepare(ctx context.Context, folds func(folder *os.File, trial string) bool) error {
	err := mkdirIn(s.root, tmp)
	if err != nil && err != unix.EEXIST {
		return s.writeError("make its folder "+tmp, err)
	}
	if s.tmp, err = openFolderIn(s.root, tmp); err != nil {
		return fmt.Errorf("open its folder %s: %w", tmp, err)
	}
	trial, err := s.newTemporary()
	if err != nil {
		return err
	}
	defer trial.remove()
	if !s.names.folded && folds(s.tmp, trial.name) {
		if err := s.foldNames(); err != nil {
			return err
		}
	}
	if err := s.tryPlacing(trial); err != nil {
		return err
	}
	st, err := statOf(trial.File)
	if err != nil {
		return err
	}
	return s.removeStale(ctx, modified(st).Add(-staleAge))
}

// errNoPlacing is about a file system that has no way to give a file a name without
// taking it from another.
var errNoPlacing = errors.New("its file system can neither link a file nor rename it without replacing another, " +
	"and one is needed for objects that are never overwritten; use another file system")

// tryPlacing finds out how this file system gives a file a name that must not be taken.
func (s *Store) tryPlacing(trial *temporary) error {
	placed := trial.name + ".placed"
	defer removeIn(s.tmp, placed)
	linkErr := linkIn(s.tmp, trial.name, s.tmp, placed)
	if linkErr == nil {
		return nil
	}
	s.linkless = true
	if err := renameIn(s.tmp, trial.name, s.tmp, placed); err != nil {
		return fmt.Errorf("%w (link: %w, rename: %w)", errNoPlacing, linkErr, err)
	}
	return nil
}

// foldNames makes a directory that holds nothing yet one with folded names.
func (s *Store) foldNames() error {
	root, err := openFolderIn(s.root, ".")
	if err != nil {
		return err
	}
	defer root.Close()
	files, err := root.Readdirnames(-1)
	if err != nil {
		return cause(err)
	}
	for _, file := range files {
		if file != tmp && file != folded {
			return fmt.Errorf("its file system takes names that differ in case or in the form of accents for one, and what it holds (%.60q) "+
				"was not written for that; use an empty directory or another file system", file)
		}
	}
	marker, err := openIn(s.root, folded, unix.O_WRONLY|unix.O_CREAT)
	if err != nil {
		return s.writeError("make its file "+folded, err)
	}
	marker.Close()
	if err := s.syncFolder(s.root); err != nil {
		return s.writeError("make its file "+folded+" durable", err)
	}
	s.names.folded = true
	return nil
}

// folds reports whether the file system takes two different names for one, by looking for
// a file that exists under names it does not have. A file system that refuses a name
// counts as one of these.
func folds(folder *os.File, trial string) bool {
	if _, err := statIn(folder, strings.ToUpper(trial)); err == nil {
		return true
	}
	composed, decomposed := trial+"-\u00e9", trial+"-e\u0301"
	file, err := openIn(folder, composed, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return true
	}
	defer file.Close()
	defer removeIn(folder, composed)
	_, err = statIn(folder, decomposed)
	return err == nil
}

// removeStale removes temporary files last written to before a time, unless a process
// still holds them. What it can't remove does no harm and is left.
func (s *Store) removeStale(ctx context.Context, before time.Time) error {
	folder, err := openFolderIn(s.root, tmp)
	if err != nil {
		return fmt.Errorf("open its folder %s: %w", tmp, err)
	}
	defer folder.Close()
	files, err := folder.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("list its folder %s: %w", tmp, cause(err))
	}
	for _, file := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		st, err := statIn(folder, file)
		if err != nil || kind(st) != unix.S_IFREG || !modified(st).Before(before) {
			continue
		}
		held, err := openIn(folder, file, unix.O_RDWR)
		if err != nil {
			continue
		}
		if lock(held) == nil {
			removeIn(folder, file)
		}
		held.Close()
	}
	return nil
}

// temporary is a file that is being written, locked so that no other process removes it
// as stale.
type temporary struct {
	*os.File
	name   string
	folder *os.File
}

func (s *Store) newTemporary() (*temporary, error) {
	// Lower case, for folds to look for it in upper case.
	name := "new-" + strings.ToLower(rand.Text())
	file, err := openIn(s.tmp, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	switch {
	case err == unix.ENOENT:
		return nil, fmt.Errorf("its folder %s is gone; it was removed while in use", tmp)
	case err != nil:
		return nil, s.writeError("make a temporary file in "+tmp, err)
	}
	// Where files can't be locked, removeStale can't either, and leaves them all.
	_ = lock(file)
	return &temporary{file, name, s.tmp}, nil
}

// remove gives the file up. An object that it became keeps its content.
func (t *temporary) remove() {
	removeIn(t.folder, t.name)
	t.Close()
}

// Delete removes an object, if there is one, and the folders that become empty.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := object.Check(ctx, "delete", name, " in "+s.dir); err != nil {
		return err
	}
	if err := s.remove(s.names.path(name)); err != nil {
		return fmt.Errorf("delete %s in %s: %w", name, s.dir, err)
	}
	return nil
}

func (s *Store) remove(path string) error {
	switch err := removeIn(s.root, path); err {
	case nil:
	case unix.ENOENT, unix.ENOTDIR:
		if err := s.gone(); err != nil {
			return err
		}
	default:
		// The errno for a folder, which is no object, differs between systems.
		if st, statErr := statIn(s.root, path); statErr == nil && kind(st) == unix.S_IFDIR {
			return nil
		}
		return err
	}
	folder, _ := parent(path)
	return s.settle(folder)
}

// settle makes it durable that something was removed from a folder, and removes the
// folder and those it is in, as far as they are empty. It does so also when another
// process removed it, whose own call may still be on its way.
func (s *Store) settle(path string) error {
	for {
		for path != "." {
			// A Create that was about to use the folder finds it gone, and makes it
			// again.
			if err := rmdirIn(s.root, path); err != nil && err != unix.ENOENT {
				break
			}
			path, _ = parent(path)
		}
		folder, err := openFolderIn(s.root, path)
		if err == unix.ENOENT && path != "." {
			continue
		}
		if err == unix.ENOTDIR {
			return nil // an object by now, so all that was below it is gone
		}
		if err != nil {
			return fmt.Errorf("open its folder: %w", err)
		}
		defer folder.Close()
		if err := s.syncFolder(folder); err != nil {
			return s.writeError("make it durable", err)
		}
		return nil
	}
}

// gone returns an error if the directory itself was removed: then that a name is missing
// in it says nothing.
func (s *Store) gone() error {
	st, err := statOf(s.root)
	if err != nil {
		return err
	}
	if st.Nlink == 0 {
		return errors.New("the directory was removed while in use")
	}
	return nil
}

// writeError says what could not be written, and what can be done about it.
func (s *Store) writeError(doing string, err error) error {
	err = cause(err)
	hint := ""
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		hint = "; free some space there and run this again"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EROFS):
		hint = "; it must be writable"
	}
	return fmt.Errorf("%s: %w%s", doing, err, hint)
}

// modified returns the date of an object: the last write to the file, before it got its
// name.
func modified(st unix.Stat_t) time.Time {
	return time.Unix(st.Mtim.Unix())
}
