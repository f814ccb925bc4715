package dir

import (
	"os"

	"golang.org/x/sys/unix"
)

// renameIn would move a file to another folder, unless the name is taken there. The file
// systems of this system that have no links do not promise that.
func renameIn(from *os.File, old string, to *os.File, name string) error {
	return unix.ENOTSUP
}
