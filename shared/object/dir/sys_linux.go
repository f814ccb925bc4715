package dir

import (
	"os"

	"golang.org/x/sys/unix"
)

// renameIn moves a file to another folder, unless the name is taken there.
func renameIn(from *os.File, old string, to *os.File, name string) error {
	return in(from, func(fromFD int) error {
		return in(to, func(toFD int) error {
			return unix.Renameat2(fromFD, old, toFD, name, unix.RENAME_NOREPLACE)
		})
	})
}
