//go:build linux || darwin

package dir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tablevault/tablevault/shared/object"
)

// Open reads n bytes of an object from byte off on. With n == 0 it reads the whole file
// for its checksum: what the disk gives back is the only record of what is stored.
func (s *Store) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, object.Info, error) {
	if err := object.Check(ctx, "open", name, " in "+s.dir); err != nil {
		return nil, object.Info{}, err
	}
	r, info, err := s.openRange(ctx, name, off, n)
	if err != nil {
		return nil, object.Info{}, fmt.Errorf("open %s in %s: %w", name, s.dir, err)
	}
	return r, info, nil
}

func (s *Store) openRange(ctx context.Context, name string, off, n int64) (_ io.ReadCloser, _ object.Info, err error) {
	// Without waiting for a writer, should it be a pipe.
	file, err := openIn(s.root, s.names.path(name), unix.O_RDONLY|unix.O_NONBLOCK)
	switch err {
	case nil:
	case unix.ENOENT, unix.ENOTDIR:
		if err := s.gone(); err != nil {
			return nil, object.Info{}, err
		}
		return nil, object.Info{}, fs.ErrNotExist
	case unix.ELOOP:
		return nil, object.Info{}, errNoFile
	default:
		return nil, object.Info{}, err
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	st, err := statOf(file)
	if err != nil {
		return nil, object.Info{}, err
	}
	switch {
	case kind(st) == unix.S_IFDIR:
		return nil, object.Info{}, fs.ErrNotExist
	case kind(st) != unix.S_IFREG:
		return nil, object.Info{}, errNoFile
	case off < 0 || off > st.Size:
		return nil, object.Info{}, fmt.Errorf("from byte %d of %d on: %w", off, st.Size, object.ErrRange)
	}
	info := object.Info{Name: name, Size: st.Size, Modified: modified(st)}
	if n == 0 {
		if info.Checksum, err = s.checksum(ctx, file, st.Size); err != nil {
			return nil, object.Info{}, err
		}
		return io.NopCloser(bytes.NewReader(nil)), info, file.Close()
	}
	end := st.Size
	if n > 0 && n < end-off {
		end = off + n
	}
	return &reader{ctx, file, off, end}, info, nil
}

// errNoFile is about a name under which there is something other than a file or a folder.
var errNoFile = errors.New("it is no regular file; move it away")

// checksum reads a file to its end.
func (s *Store) checksum(ctx context.Context, file *os.File, size int64) (string, error) {
	pooled := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(pooled)
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	// Hidden behind a struct, the hash and the reader have no other methods, and the
	// buffer is used.
	n, err := io.CopyBuffer(struct{ io.Writer }{sum}, struct{ io.Reader }{&reader{ctx, file, 0, size}}, *pooled)
	if err != nil {
		return "", fmt.Errorf("read it from byte %d on: %w", n, cause(err))
	}
	return checksum(sum.Sum32()), nil
}

// reader reads a range of a file for as long as its context lasts.
type reader struct {
	ctx      context.Context
	file     *os.File
	pos, end int64
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if r.pos >= r.end {
		return 0, io.EOF
	}
	if left := r.end - r.pos; int64(len(p)) > left {
		p = p[:left]
	}
	n, err := r.file.ReadAt(p, r.pos)
	r.pos += int64(n)
	if err == io.EOF {
		// The file was longer when it was opened.
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (r *reader) Close() error { return r.file.Close() }
