//go:build unix && !linux

package fc

import (
	"context"
	"os/exec"
	"syscall"
)

// ownGroup puts the process into a group of its own, so that it can be killed with its
// children. Only Linux has a signal for the host's own death.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func killGroup(pid int) { _ = syscall.Kill(-pid, syscall.SIGKILL) }

// freezeGroup stops a process and its children, thawGroup lets them go on.
func freezeGroup(pid int) { _ = syscall.Kill(-pid, syscall.SIGSTOP) }
func thawGroup(pid int)   { _ = syscall.Kill(-pid, syscall.SIGCONT) }

func spawner(context.Context) func(func() error) error {
	return func(start func() error) error { return start() }
}

func peakMemory(int) int64 { return 0 }
