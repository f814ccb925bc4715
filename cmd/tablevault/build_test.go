package main

import (
	"os"
	"os/exec"
	"testing"
)

// TestBuildsElsewhere builds the command for the systems that people type on.
func TestBuildsElsewhere(t *testing.T) {
	if testing.Short() {
		t.Skip("without a warm cache a build takes a minute")
	}
	for _, system := range []string{"windows", "darwin"} {
		t.Run(system, func(t *testing.T) {
			build := exec.CommandContext(t.Context(), "go", "build", "-o", os.DevNull, ".")
			build.Env = append(os.Environ(), "GOOS="+system, "GOARCH=amd64", "CGO_ENABLED=0")
			if out, err := build.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
