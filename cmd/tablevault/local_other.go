//go:build !unix

package main

import (
	"runtime"

	"github.com/spf13/cobra"
)

// The local stack runs functions as processes that it starts, kills and locks files
// against, in ways that Unix has.

func localCommand(s *streams) *cobra.Command { return unavailable("local") }
func demoCommand(s *streams) *cobra.Command  { return unavailable("demo") }

// unavailable is a command that this system does not have.
func unavailable(name string) *cobra.Command {
	return &cobra.Command{
		Use:                name,
		Short:              "Not available on " + runtime.GOOS + ": the local stack runs on Linux and macOS",
		DisableFlagParsing: true,
		Args:               cobra.ArbitraryArgs,
		RunE: func(*cobra.Command, []string) error {
			return usage("`tablevault %s` is not available on %s: the local stack runs on Linux and macOS; all other commands work here", name, runtime.GOOS)
		},
	}
}
