//go:build linux || darwin

package dir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// The calls below are about names in an open folder, so that a folder that was removed,
// and perhaps made anew, is never taken for the other. They give bare errnos, for their
// callers to say what was being done.

// in calls with the descriptor of an open folder, again after each interruption.
func in(folder *os.File, call func(fd int) error) error {
	conn, err := folder.SyscallConn()
	if err != nil {
		return err
	}
	controlErr := conn.Control(func(fd uintptr) {
		for {
			if err = call(int(fd)); err != unix.EINTR {
				return
			}
		}
	})
	if controlErr != nil {
		return controlErr
	}
	return err
}

// openIn opens a file or a folder, or makes a file, but follows no symbolic link that has
// the name.
func openIn(folder *os.File, path string, flags int) (*os.File, error) {
	var opened int
	err := in(folder, func(fd int) (err error) {
		opened, err = unix.Openat(fd, path, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(opened), filepath.Join(folder.Name(), path)), nil
}

func openFolderIn(folder *os.File, path string) (*os.File, error) {
	return openIn(folder, path, unix.O_RDONLY|unix.O_DIRECTORY)
}

func statIn(folder *os.File, path string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := in(folder, func(fd int) error { return unix.Fstatat(fd, path, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return st, err
}

func statOf(file *os.File) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := in(file, func(fd int) error { return unix.Fstat(fd, &st) })
	return st, err
}

// kind returns what a file is, to be compared with unix.S_IFREG and its likes.
func kind(st unix.Stat_t) uint32 { return uint32(st.Mode) & unix.S_IFMT }

func mkdirIn(folder *os.File, path string) error {
	return in(folder, func(fd int) error { return unix.Mkdirat(fd, path, 0o700) })
}

func removeIn(folder *os.File, path string) error {
	return in(folder, func(fd int) error { return unix.Unlinkat(fd, path, 0) })
}

func rmdirIn(folder *os.File, path string) error {
	return in(folder, func(fd int) error { return unix.Unlinkat(fd, path, unix.AT_REMOVEDIR) })
}

// linkIn gives a file of one folder a second name in another, unless that is taken.
func linkIn(from *os.File, old string, to *os.File, name string) error {
	return in(from, func(fromFD int) error {
		return in(to, func(toFD int) error { return unix.Linkat(fromFD, old, toFD, name, 0) })
	})
}

// lock takes the lock of a file, which its process loses with its end, or fails if
// another holds it.
func lock(file *os.File) error {
	return in(file, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
}

// syncFolder makes the names in a folder durable. Some network file systems can't and
// need not.
func (s *Store) syncFolder(folder *os.File) error {
	err := s.fsync(folder)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return err
}

// cause strips an error of the path that package os puts before it.
func cause(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}

// parent returns the folder of a path relative to the root, "." being the root itself.
func parent(path string) (folder, base string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return ".", path
	}
	return path[:i], path[i+1:]
}
