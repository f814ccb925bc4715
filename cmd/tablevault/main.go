// Command tablevault backs up, restores and proves Tablestore tables.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

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

// exit is an error with an exit code. Its text is empty where the result has been printed
// already.
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

// streams are where a command writes to, and how.
type streams struct {
	out, err io.Writer
	json     bool
	verbose  bool
	// every is how often progress is told off a terminal, 0 for the default.
	every time.Duration
	// printed says that a document was written.
	printed bool
	// terminal is the width of the terminal that out is, nil if it is none.
	terminal func() int
}

// jsonVersion is that of the documents that commands print (docs/json.md). It grows when
// a field goes or means something else, and not when one is added.
const jsonVersion = 1

// print writes a command's result: as JSON, or as what human writes.
func (s *streams) print(result any, human func(io.Writer)) error {
	if !s.json {
		human(s.out)
		return nil
	}
	return s.document(result)
}

// document writes a line of JSON: an object that says its version first.
func (s *streams) document(result any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(result); err != nil {
		return err
	}
	rest, ok := bytes.CutPrefix(b.Bytes(), []byte("{"))
	if !ok {
		panic(fmt.Sprintf("tablevault: %T is no object in JSON", result))
	}
	comma := ","
	if bytes.HasPrefix(rest, []byte("}")) {
		comma = ""
	}
	s.printed = true
	_, err := fmt.Fprintf(s.out, "{\"version\":%d%s%s", jsonVersion, comma, rest)
	return err
}

// failed is the JSON of a command that has no result.
type failed struct {
	Error    string `json:"error"`
	ExitCode int    `json:"exit_code"`
}

// checked remembers the first error of a writer.
type checked struct {
	to  io.Writer
	err error
}

func (w *checked) Write(b []byte) (int, error) {
	n, err := w.to.Write(b)
	if w.err == nil {
		w.err = err
	}
	return n, err
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the command with its arguments; it returns the exit code.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	return runWith(ctx, &streams{out: out, err: errs}, args)
}

// runWith is run with streams of the caller's.
func runWith(ctx context.Context, s *streams, args []string) int {
	out, errs := &checked{to: s.out}, s.err
	// Where a terminal is written to, it has to be seen as one.
	s.terminal, s.out = terminalOf(s.out), out
	code := execute(ctx, s, args, errs)
	if out.err != nil {
		fmt.Fprintln(errs, "tablevault: the output could not be written:", out.err)
		if code == 0 {
			code = exitFailed
		}
	}
	return code
}

func execute(ctx context.Context, s *streams, args []string, errs io.Writer) int {
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
	root.SetOut(s.out)
	root.SetErr(errs)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exit{exitUsage, err} })
	root.PersistentFlags().BoolVar(&s.json, "json", false, "print one JSON document instead of text")
	root.PersistentFlags().BoolVarP(&s.verbose, "verbose", "v", false, "say more: what was asked of the store, and the like")
	root.AddCommand(demoCommand(s), localCommand(s), initCommand(s), doctorCommand(s), backupCommand(s), listCommand(s), showCommand(s), cancelCommand(s),
		restoreCommand(s), verifyCommand(s), copyCommand(s), pruneCommand(s), versionCommand(s))
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
	text := plain(err)
	if text == "" {
		return code
	}
	if (s.json || slices.Contains(args, "--json")) && !s.printed {
		if err := s.document(failed{text, code}); err != nil {
			fmt.Fprintln(errs, "tablevault:", err)
		}
	}
	fmt.Fprintln(errs, "tablevault:", text)
	if code == exitUsage {
		fmt.Fprintln(errs, "Run `tablevault --help`, or with a command `tablevault COMMAND --help`.")
	}
	return code
}

// plain is an error for people: that there is something not, and then that it does not
// exist, is the same.
func plain(err error) string {
	text, cut := strings.CutSuffix(err.Error(), ": "+fs.ErrNotExist.Error())
	if cut && !strings.Contains(text, "there is no") {
		return err.Error()
	}
	return text
}

// usage is an error in how a command was called.
func usage(format string, args ...any) error {
	return &exit{exitUsage, fmt.Errorf(format, args...)}
}
