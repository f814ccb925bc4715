//go:build unix

package fc

import (
	"os"
	"syscall"
)

// lockFile takes a file for this process alone until it is closed or the process
// ends, or returns an error if another has it.
func lockFile(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
