package main

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/status"
)

// smallDisk is set where TestDiskFull has file systems of its own.
const smallDisk = "TEST_SMALL_DISK"

// TestDiskFull backs a table up into a vault whose disk is too small for it. The error
// says what could not be written, why, and what to do; once there is room, the same
// command completes the backup, and a restore of it is proved.
//
// It runs in a process with a mount namespace of its own, so that it may mount.
func TestDiskFull(t *testing.T) {
	if os.Getenv(smallDisk) != "" {
		diskFull(t)
		return
	}
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestDiskFull$", "-test.v")
	c.Env = append(os.Environ(), smallDisk+"=1", binariesVariable+"="+binDir)
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := c.CombinedOutput()
	if c.ProcessState == nil {
		t.Skipf("a process can't have file systems of its own here: %v", err)
	}
	t.Logf("%s", out)
	switch {
	case err != nil:
		t.Fatal(err)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skip("no file system to be had")
	case !strings.Contains(string(out), "--- PASS: TestDiskFull"):
		t.Fatal("the test did not run")
	}
}

func diskFull(t *testing.T) {
	var vault string
	mount := func(flags uintptr, size string) {
		t.Helper()
		if err := syscall.Mount("tmpfs", vault, "tmpfs", flags, "mode=0700,size="+size); err != nil {
			t.Skipf("mount: %v", err)
		}
	}
	_, dir, client := begin(t, func(c *stack.Config) {
		c.Memory = true
		vault = filepath.Join(c.Dir, "vault")
		if err := os.MkdirAll(vault, 0o700); err != nil {
			t.Fatal(err)
		}
		mount(0, "2m")
	})
	t.Cleanup(func() { syscall.Unmount(vault, syscall.MNT_DETACH) })
	makeTable(t, client, "orders")
	noise := rand.New(rand.NewPCG(1, 2))
	const rows = 40
	for i := range rows {
		value := make([]byte, 100_000)
		for k := range value {
			value[k] = byte(noise.Uint32())
		}
		u := &tablestore.UpdateRowChange{TableName: "orders", PrimaryKey: key("k", int64(i), []byte{})}
		u.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
		u.PutColumn("v", value)
		if _, err := client.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: u}); err != nil {
			t.Fatal(err)
		}
	}
	command := []string{"backup", "--stack", dir, "--table", "local/orders"}
	code, out, errs := tablevaultRun(t, command...)
	if code != exitFailed {
		t.Errorf("exit %d, want %d\n%s%s", code, exitFailed, out, errs)
	}
	for _, want := range []string{"local/orders", "segment", "shards/", "no space left on device", "free some space"} {
		if !strings.Contains(errs, want) {
			t.Errorf("the message does not say %q:\n%s", want, errs)
		}
	}
	t.Logf("with a full disk:\n%s", errs)
	var listed struct{ Backups []status.Backup }
	must(t, &listed, "list", "--stack", dir)
	if len(listed.Backups) != 0 {
		t.Errorf("there is a backup: %+v", listed)
	}
	mount(syscall.MS_REMOUNT, "64m")
	var backups struct{ Backups []status.Backup }
	must(t, &backups, command...)
	if len(backups.Backups) != 1 || backups.Backups[0].Rows != rows {
		t.Fatalf("%+v", backups)
	}
	var restored restoreResult
	must(t, &restored, "restore", "--stack", dir, "--table", "local/orders", "--to", "local/copy")
	if restored.Verdict != "ok" || restored.Rows != rows {
		t.Fatalf("%+v", restored)
	}
}
