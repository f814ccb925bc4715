package fanout

import (
	"errors"
	"io/fs"

	"github.com/tablevault/tablevault/shared/repository"
	"github.com/tablevault/tablevault/shared/table"
	"github.com/tablevault/tablevault/shared/vault"
)

// Permanent says whether trying the same again can't help: the function then reports the
// error as handled, since the platform would bill three retries.
func Permanent(err error) bool {
	for _, mark := range []error{
		table.ErrNotExist, table.ErrExist, table.ErrPermission, table.ErrInvalid, fs.ErrPermission, vault.ErrVersion, vault.ErrCorrupt,
		ErrStarts, ErrNoStart, errIdle, repository.ErrMarked,
	} {
		if errors.Is(err, mark) {
			return true
		}
	}
	return false
}

// Errors of segments that trying again can't mend.
var (
	ErrStarts = errors.New("too many starts")
	// ErrNoStart is about work that nothing which was begun can have dispatched.
	ErrNoStart = errors.New("no start before it")
	errIdle    = errors.New("no start comes further")
)

// ForGood marks an error as one that trying again is not to mend, whatever it is.
func ForGood(err error) error { return forGood{err} }

type forGood struct{ error }

func (f forGood) Unwrap() error   { return f.error }
func (f forGood) Permanent() bool { return true }
