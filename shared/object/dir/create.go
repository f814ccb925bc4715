//go:build linux || darwin

package dir

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/tablevault/tablevault/shared/object"
)

// Create stores all of r under name. See the package for the steps.
func (s *Store) Create(ctx context.Context, name string, r io.Reader) (object.Info, error) {
	if err := object.Check(ctx, "create", name, " in "+s.dir); err != nil {
		return object.Info{}, err
	}
	info, err := s.create(ctx, name, r)
	if err != nil {
		return object.Info{}, fmt.Errorf("create %s in %s: %w", name, s.dir, err)
	}
	return info, nil
}

func (s *Store) create(ctx context.Context, name string, r io.Reader) (object.Info, error) {
	path := s.names.path(name)
	// Who comes late need not write anything. Who comes at the same time is told by
	// placing the file.
	if st, err := statIn(s.root, path); err == nil && kind(st) == unix.S_IFREG {
		folder, _ := parent(path)
		return object.Info{}, s.taken(folder)
	}
	if s.readOnly != nil {
		return object.Info{}, fmt.Errorf("it was opened for reading only: %w", s.readOnly)
	}
	file, err := s.newTemporary()
	if err != nil {
		return object.Info{}, err
	}
	defer file.remove()
	size, sum, err := s.write(ctx, file, r)
	if err != nil {
		return object.Info{}, err
	}
	if err := s.fsync(file.File); err != nil {
		return object.Info{}, s.writeError("make it durable", err)
	}
	st, err := statOf(file.File)
	if err != nil {
		return object.Info{}, err
	}
	if st.Size != size {
		return object.Info{}, fmt.Errorf("its temporary file has %d bytes after %d were written", st.Size, size)
	}
	if err := ctx.Err(); err != nil {
		return object.Info{}, err
	}
	if err := s.place(ctx, file, path); err != nil {
		return object.Info{}, err
	}
	return object.Info{Name: name, Size: size, Checksum: checksum(sum), Modified: modified(st)}, nil
}

// write streams r into a file and returns its length and CRC-32C.
func (s *Store) write(ctx context.Context, file *temporary, r io.Reader) (size int64, sum uint32, err error) {
	pooled := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(pooled)
	buffer := *pooled
	table := crc32.MakeTable(crc32.Castagnoli)
	for empty, end := 0, false; !end; {
		n := 0
		for n < len(buffer) && !end {
			if err := ctx.Err(); err != nil {
				return 0, 0, err
			}
			m, err := r.Read(buffer[n:])
			n += m
			switch {
			case err == io.EOF:
				end = true
			case err != nil:
				return 0, 0, fmt.Errorf("read its content: %w", err)
			case m > 0:
				empty = 0
			default:
				if empty++; empty == 100 {
					return 0, 0, fmt.Errorf("read its content: %w", io.ErrNoProgress)
				}
			}
		}
		if _, err := file.Write(buffer[:n]); err != nil {
			return 0, 0, s.writeError(fmt.Sprintf("write from byte %d on", size), err)
		}
		size += int64(n)
		sum = crc32.Update(sum, table, buffer[:n])
	}
	return size, sum, nil
}

// place gives a file its path, durably, or returns an error that matches fs.ErrExist if
// there is an object already.
func (s *Store) place(ctx context.Context, file *temporary, path string) error {
	up, base := parent(path)
	for {
		err := s.placeIn(file, up, base)
		if err == nil {
			return nil
		}
		if !errors.Is(err, errStale) {
			if !errors.Is(err, fs.ErrExist) {
				s.settle(up) // folders made for nothing
			}
			return err
		}
		// Between the making of a folder and the placing, someone else's Delete removed
		// it, being empty.
		for _, check := range []func() error{ctx.Err, s.gone, file.gone} {
			if err := check(); err != nil {
				return err
			}
		}
	}
}

// placeIn is one try of place. It returns errStale if what it relied on was removed under
// it.
func (s *Store) placeIn(file *temporary, up, base string) error {
	folder, err := s.folders.hold(up)
	if err == errStale {
		return err
	}
	if err != nil {
		return s.writeError("its folder", err)
	}
	defer s.folders.release(folder)

	if s.linkless {
		err = renameIn(s.tmp, file.name, folder.File, base)
	} else {
		err = linkIn(s.tmp, file.name, folder.File, base)
	}
	switch err {
	case nil:
	case unix.ENOENT:
		s.folders.drop(folder)
		return errStale
	case unix.EEXIST:
		if err := s.occupied(file, folder, base); err != nil {
			return err
		}
	default:
		return s.writeError("give it its name", err)
	}
	if err := s.syncFolder(folder.File); err != nil {
		return s.writeError("make its name durable", err)
	}
	return nil
}

// occupied says what stands where a file could not be placed. It returns nil if that is
// the file itself.
func (s *Store) occupied(file *temporary, folder *folder, base string) error {
	// NFS repeats a request whose answer was lost, and then hands on the answer to the
	// repetition.
	if st, err := statOf(file.File); err == nil && st.Nlink > 1 {
		return nil
	}
	st, err := statIn(folder.File, base)
	switch {
	case err == unix.ENOENT:
		return errStale
	case err != nil:
		return fmt.Errorf("look at what has its name: %w", err)
	case kind(st) == unix.S_IFREG:
		return s.taken(folder.path)
	case kind(st) == unix.S_IFDIR:
		// A crash can leave a folder that nothing was placed in.
		if err := rmdirIn(folder.File, base); err == nil || err == unix.ENOENT {
			return errStale
		}
		return errors.New("it is a folder: a name can't be an object and a folder of others")
	default:
		return errors.New("what has its name is neither a file nor a folder; move it away")
	}
}

// taken returns an error that matches fs.ErrExist, once the object that has the name is
// durable there: whoever is told of it may build on it, and its creator may not have come
// so far.
func (s *Store) taken(path string) error {
	folder, err := openFolderIn(s.root, path)
	if err == unix.ENOENT {
		return fs.ErrExist // and deleted meanwhile
	}
	if err != nil {
		return fmt.Errorf("open its folder: %w", err)
	}
	defer folder.Close()
	if err := s.syncFolder(folder); err != nil {
		return s.writeError("make the one that exists durable", err)
	}
	return fs.ErrExist
}

// gone returns an error if the file has no name any more.
func (t *temporary) gone() error {
	st, err := statOf(t.File)
	if err == nil && st.Nlink == 0 {
		err = fmt.Errorf("its temporary file %s/%s was removed", tmp, t.name)
	}
	return err
}

func checksum(sum uint32) string { return fmt.Sprintf("crc32c:%08x", sum) }
