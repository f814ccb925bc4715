package main

import (
	"cmp"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tablevault/tablevault/shared/vault"
)

// build is which build of the program this is: the JSON of `tablevault version`.
type build struct {
	Program string `json:"program"`
	// Commit is empty where the build knows none.
	Commit   string `json:"commit,omitempty"`
	At       string `json:"commit_time,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Format   int    `json:"vault_format"`
	Go       string `json:"go"`
	System   string `json:"system"`
}

// buildOf reads what a build says of itself, nil if it says nothing.
func buildOf(info *debug.BuildInfo) build {
	b := build{Program: vault.Program, Format: vault.Format}
	if info == nil {
		return b
	}
	b.Go = info.GoVersion
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	b.Commit, b.At, b.Modified = settings["vcs.revision"], settings["vcs.time"], settings["vcs.modified"] == "true"
	if parts := strings.Split(info.Main.Version, "-"); len(parts) >= 3 && len(parts[len(parts)-1]) == 12 && b.Commit == "" {
		b.Commit = parts[len(parts)-1] // installed by a version that names a commit
	}
	b.System = strings.Trim(settings["GOOS"]+"/"+settings["GOARCH"], "/")
	return b
}

func (b build) String() string {
	commit := "of an unknown commit: it was built without version control (-buildvcs=false, or outside of a repository)"
	if b.Commit != "" {
		commit = "commit " + b.Commit
		if b.At != "" {
			commit += " of " + b.At
		}
		if b.Modified {
			commit += ", with changes that are not committed"
		}
	}
	return fmt.Sprintf("tablevault %s, %s\nvault format %d; %s %s", b.Program, commit, b.Format, cmp.Or(b.Go, "an unknown Go"), b.System)
}

func versionCommand(s *streams) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say which version, commit and format this is",
		RunE: func(*cobra.Command, []string) error {
			info, _ := debug.ReadBuildInfo()
			b := buildOf(info)
			return s.print(b, func(w io.Writer) { fmt.Fprintln(w, b) })
		},
	}
}
