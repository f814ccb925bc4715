//go:build linux || darwin

package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tablevault/tablevault/shared/object"
)

// List yields the objects whose names begin with prefix and are greater than after, in
// order. It reads only folders that can hold such, one at a time, and holds the names of
// that folder and of those it is in.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		w := walk{s, ctx, prefix, after, yield}
		if err := w.all(); err != nil && err != errEnough {
			if errors.Is(err, fs.ErrInvalid) {
				err = fmt.Errorf("list: %w", err)
			} else {
				err = fmt.Errorf("list %s in %s: %w", prefix, s.dir, err)
			}
			yield(object.Info{}, err)
		}
	}
}

// errEnough ends a walk whose yield wants no more.
var errEnough = errors.New("enough was listed")

// walk is one use of a listing.
type walk struct {
	*Store
	ctx           context.Context
	prefix, after string
	yield         func(object.Info, error) bool
}

// entry is an object, or a folder of objects, whose name then ends in a slash. In the
// order of their names, all that is in a folder comes where the folder is.
type entry struct {
	name string
	path string
}

func (w *walk) all() error {
	for _, err := range []error{object.ValidPrefix(w.prefix), object.ValidPrefix(w.after), w.ctx.Err(), w.gone()} {
		if err != nil {
			return err
		}
	}
	// Nothing above the last folder in the prefix is of interest.
	if i := strings.LastIndexByte(w.prefix, '/'); i >= 0 {
		return w.folder(entry{w.prefix[:i+1], w.names.path(w.prefix[:i])})
	}
	return w.folder(entry{"", "."})
}

// folder yields what is in a folder.
func (w *walk) folder(in entry) error {
	entries, err := w.entries(nil, in)
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	// A file that is made anew while a folder is read can be met twice.
	entries = slices.Compact(entries)
	for _, e := range entries {
		if strings.HasSuffix(e.name, "/") {
			err = w.folder(e)
		} else {
			err = w.object(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// entries appends the entries of a folder that matter to this listing, unsorted, with
// those of folders in it that continue long elements: they belong between the others.
func (w *walk) entries(entries []entry, in entry) ([]entry, error) {
	if err := w.ctx.Err(); err != nil {
		return nil, err
	}
	folder, err := openFolderIn(w.root, in.path)
	if err == unix.ENOENT || err == unix.ENOTDIR && in.path != "." {
		return entries, nil // not there, or removed meanwhile
	}
	if err != nil {
		return nil, fmt.Errorf("open the folder %s: %w", in.path, err)
	}
	defer folder.Close()
	for {
		files, err := folder.ReadDir(512)
		if err == io.EOF || cause(err) == unix.ENOENT && in.path != "." {
			return entries, nil // at its end, or removed, being empty
		}
		if err != nil {
			return nil, fmt.Errorf("read the folder %s: %w", in.path, cause(err))
		}
		for _, file := range files {
			path := in.path + "/" + file.Name()
			if in.path == "." {
				if path = file.Name(); path == tmp || path == folded {
					continue
				}
			}
			text, more, ok := piece(file.Name())
			e := entry{in.name + text, path}
			if !ok {
				e.name = in.name + file.Name()
			} else if file.IsDir() && !more {
				e.name += "/"
			}
			if !w.wants(e.name, file.IsDir()) {
				continue
			}
			if err := w.foreign(e, file, more, ok); err != nil {
				return nil, err
			}
			if more {
				entries, err = w.entries(entries, e)
				if err != nil {
					return nil, err
				}
			} else {
				entries = append(entries, e)
			}
		}
	}
}

// wants reports whether an object, or anything whose name begins with that of a folder,
// is to be listed.
func (w *walk) wants(name string, folder bool) bool {
	if folder {
		return (strings.HasPrefix(name, w.prefix) || strings.HasPrefix(w.prefix, name)) &&
			(name > w.after || strings.HasPrefix(w.after, name))
	}
	return strings.HasPrefix(name, w.prefix) && name > w.after
}

// foreign returns an error for what no store of this kind put there. To pass over it
// could be to pass over objects, such as those of a directory that was copied with its
// names changed.
func (w *walk) foreign(e entry, file fs.DirEntry, more, ok bool) error {
	switch {
	case !file.IsDir() && !file.Type().IsRegular():
		return fmt.Errorf("%s is neither a file nor a folder; move it away", e.path)
	case !ok, more && !file.IsDir(), object.ValidPrefix(e.name) != nil:
		return fmt.Errorf("the file name %q is not that of an object; move it away", e.path)
	}
	if more {
		// What the element goes on with decides whether it is cut here; what is in the
		// folder is looked at in turn.
		return nil
	}
	name := strings.TrimSuffix(e.name, "/")
	if path := w.names.path(name); path != e.path {
		return fmt.Errorf("the file name %q is not how the object %q is written here, which is %q; move it away, or copy the directory "+
			"together with its file %s", e.path, name, path, folded)
	}
	return nil
}

// object yields one object.
func (w *walk) object(e entry) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	st, err := statIn(w.root, e.path)
	if err == unix.ENOENT || err == unix.ENOTDIR || err == nil && kind(st) != unix.S_IFREG {
		return nil // deleted meanwhile
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", e.path, err)
	}
	if !w.yield(object.Info{Name: e.name, Size: st.Size, Modified: modified(st)}, nil) {
		return errEnough
	}
	return nil
}
