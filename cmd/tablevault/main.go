// Command tablevault backs up, restores and proves Tablestore tables.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/tablevault/tablevault/shared/vault"
)

// The exit codes.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitDiffers     = 3
	exitQuarantined = 4
)

// exit is an error with an exit code. Its text is empty where the result has
// been printed already.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exit) Unwrap() error { return e.err }

// streams are where a command reads from and writes to.
type streams struct {
	out, err io.Writer
	json     bool
}

// print writes a command's result: as JSON, or as what human writes.
func (s *streams) print(result any, human func(io.Writer)) error {
	if !s.json {
		human(s.out)
		return nil
	}
	e := json.NewEncoder(s.out)
	e.SetEscapeHTML(false)
	return e.Encode(result)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the command with its arguments; it returns the exit code.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	s := &streams{out: out, err: errs}
	root := &cobra.Command{
		Use:           "tablevault",
		Short:         "Backup, restore and proof for Alibaba Cloud Tablestore",
		Version:       vault.Program,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errs)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exit{exitUsage, err} })
	root.PersistentFlags().BoolVar(&s.json, "json", false, "print one JSON document instead of text")
	root.AddCommand(demoCommand(s), localCommand(s), initCommand(s), doctorCommand(s), backupCommand(s), listCommand(s), showCommand(s), restoreCommand(s), verifyCommand(s), copyCommand(s), pruneCommand(s))
	for _, c := range append(root.Commands(), root) {
		if c.Args == nil {
			c.Args = cobra.NoArgs
		}
		args := c.Args
		c.Args = func(cmd *cobra.Command, a []string) error {
			if err := args(cmd, a); err != nil {
				return &exit{exitUsage, err}
			}
			return nil
		}
	}
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var e *exit
	code := exitFailed
	switch {
	case errors.As(err, &e):
		code = e.code
	case errors.Is(err, vault.ErrCorrupt):
		code = exitDiffers
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(errs, "tablevault:", text)
		if code == exitUsage {
			fmt.Fprintln(errs, "Run `tablevault --help`, or with a command `tablevault COMMAND --help`.")
		}
	}
	return code
}

// usage is an error in how a command was called.
func usage(format string, args ...any) error {
	return &exit{exitUsage, fmt.Errorf(format, args...)}
}
