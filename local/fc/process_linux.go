package fc

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// ownGroup puts the process into a group of its own, so that it can be killed with its
// children, and has the kernel kill it if the host dies.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func killGroup(pid int) { _ = syscall.Kill(-pid, syscall.SIGKILL) }

// freezeGroup stops a process and its children, thawGroup lets them go on.
func freezeGroup(pid int) { _ = syscall.Kill(-pid, syscall.SIGSTOP) }
func thawGroup(pid int)   { _ = syscall.Kill(-pid, syscall.SIGCONT) }

// spawner returns a function that runs starts on one thread which lives as long as ctx:
// the kernel sends the parent-death signal when the thread that started the process ends,
// not when its process does.
func spawner(ctx context.Context) func(func() error) error {
	type job struct {
		start func() error
		done  chan error
	}
	jobs := make(chan job)
	go func() {
		// Never unlocked: the thread ends with the goroutine. By then the host has
		// killed all instances anyhow.
		runtime.LockOSThread()
		for {
			select {
			case j := <-jobs:
				j.done <- j.start()
			case <-ctx.Done():
				return
			}
		}
	}()
	return func(start func() error) error {
		j := job{start, make(chan error, 1)}
		select {
		case jobs <- j:
			return <-j.done
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// peakMemory returns the largest resident size that the process ever had.
func peakMemory(pid int) int64 {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	_, rest, ok := bytes.Cut(status, []byte("VmHWM:"))
	if !ok {
		return 0
	}
	line, _, _ := strings.Cut(string(rest), "\n")
	kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(line), "kB")), 10, 64)
	if err != nil {
		return 0
	}
	return kb << 10
}
