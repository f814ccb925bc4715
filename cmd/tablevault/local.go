//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tablevault/tablevault"
	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/stack"
	"github.com/tablevault/tablevault/shared/policy"
)

func localCommand(s *streams) *cobra.Command {
	var dir, policyFile, keeper, addr, bin string
	var timers bool
	c := &cobra.Command{
		Use:   "local --dir DIR",
		Short: "Run the local stack in the foreground: Tablestore, vault and function host",
		Long: "Run the local stack until it is interrupted. When it is ready it prints one line of JSON that says how to reach\n" +
			"it, and writes the same to DIR/local.json; for a person it tells how to connect on the error stream. Its state\n" +
			"and its ports survive a restart.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return usage("--dir is missing: name a directory for the stack's state")
			}
			switch keeper {
			case "", string(stack.Directory), string(stack.Bucket):
			default:
				return usage("--vault %s: want dir or oss", keeper)
			}
			if addr != "" {
				if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
					return usage("--tablestore %q: want HOST:PORT, for example 127.0.0.1:8087", addr)
				}
			}
			return runLocal(cmd.Context(), s, stack.Config{
				Dir: dir, Vault: stack.Keeper(keeper), Timers: timers, BinDir: bin,
				Tablestore: func(c *ots.Config) { c.Addr = addr },
			}, policyFile)
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "directory that keeps the stack's state")
	c.Flags().StringVar(&keeper, "vault", "", "what keeps the vault: dir, a directory, or oss, a bucket of a local OSS; default what kept it before, or dir")
	completeWords(c, "vault", string(stack.Directory), string(stack.Bucket))
	c.Flags().StringVar(&addr, "tablestore", "", "HOST:PORT that the Tablestore listens on; default the port that it had before, or a free one of this machine")
	c.Flags().StringVar(&bin, "functions", "", "directory of the functions' binaries; default beside this command, or else they are built from the module here")
	c.Flags().StringVar(&policyFile, "policy", "", "the policy to go by, a tablevault.yaml; it also fires the timers")
	c.Flags().BoolVar(&timers, "timers", false, "fire the timers of s.yaml")
	return c
}

func runLocal(ctx context.Context, s *streams, c stack.Config, policyFile string) error {
	if policyFile != "" {
		file, err := filepath.Abs(policyFile)
		if err != nil {
			return err
		}
		p, err := readPolicy(file)
		if err != nil {
			return err
		}
		for _, r := range p.Rules {
			if r.Drill == nil {
				continue
			}
			if instance, name := r.Drill.Place(); instance == stack.Instance && !slices.Contains(c.Drills, name) {
				c.Drills = append(c.Drills, name)
			}
		}
		c.Timers, c.Policy = true, file
	}
	// The stack's log, what takes its time and the help share the stream.
	s = &streams{out: s.out, err: stack.Shared(s.err), json: s.json}
	waits := s.patience()
	defer waits.over()
	if c.BinDir == "" {
		waits.step("building the functions")
		bin, clean, err := binaries(ctx)
		if err != nil {
			return err
		}
		defer clean()
		c.BinDir = bin
	}
	before, _ := stack.Find(c.Dir) // if there was none, nothing has changed
	c.Step = waits.step
	c.Deployment, c.Policies, c.Log = tablevault.Deployment, tablevault.Policies(), s.err
	st, err := stack.Start(ctx, c)
	waits.over()
	if listen := new(net.OpError); errors.As(err, &listen) && listen.Op == "listen" {
		err = fmt.Errorf("%w: name another address with --tablestore, or leave that out for a free port", err)
	}
	if err != nil {
		return err
	}
	if before.Tablestore != "" && before.Tablestore != st.Info.Tablestore {
		fmt.Fprintf(s.err, "Tablestore was at %s before.\n", before.Tablestore)
	}
	connectHelp(s.err, &st.Info)
	if err := json.NewEncoder(s.out).Encode(st.Info); err != nil {
		return errors.Join(err, st.Close())
	}
	<-ctx.Done()
	return st.Close()
}

// connectHelp tells a person how to reach the Tablestore from the SDKs.
func connectHelp(w io.Writer, i *stack.Info) {
	fmt.Fprintf(w, "Tablestore is at %s, instance %q. For programs that read their environment:\n\n", i.Tablestore, i.Instance)
	fmt.Fprintf(w, "  export TABLESTORE_ENDPOINT=%s TABLESTORE_INSTANCE=%s\n", i.Tablestore, i.Instance)
	fmt.Fprintf(w, "  export TABLESTORE_ACCESS_KEY_ID=%s TABLESTORE_ACCESS_KEY_SECRET=%s\n\n", i.AccessKeyID, i.AccessKeySecret)
	for _, sdk := range []struct{ language, format string }{
		{"Go", "tablestore.NewClient(%[1]q, %[2]q, %[3]q, %[4]q)"},
		{"Node", "new TableStore.Client({endpoint: %[1]q, instancename: %[2]q, accessKeyId: %[3]q, secretAccessKey: %[4]q})"},
		{"Python", "tablestore.OTSClient(%[1]q, %[3]q, %[4]q, %[2]q)"},
		{"Java", "new SyncClient(%[1]q, %[3]q, %[4]q, %[2]q)"},
	} {
		fmt.Fprintf(w, "  %-7s ", sdk.language)
		fmt.Fprintf(w, sdk.format+"\n", i.Tablestore, i.Instance, i.AccessKeyID, i.AccessKeySecret)
	}
	fmt.Fprintln(w, "\nA first program for each is in docs/local-tablestore.md.")
}

// readPolicy reads a policy that a person names.
func readPolicy(file string) (*policy.Policy, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the policy: %w; `tablevault init` writes a first one", err)
	}
	p, err := policy.Decode(file, data)
	if err != nil {
		return nil, &exit{exitUsage, err}
	}
	return p, nil
}

// functions are the binaries that the host runs.
var functions = []string{"plan", "export", "import", "verify"}

// binaries finds the functions: beside this command if it was installed with them, else
// built from the module that the working directory is in, with the flags of `go run`.
// clean removes what was built.
func binaries(ctx context.Context) (dir string, clean func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, fmt.Errorf("find the functions: %w", err)
	}
	beside := filepath.Dir(self)
	if complete(beside) {
		return beside, func() {}, nil
	}
	module, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Path}} {{.Dir}}").Output()
	path, root, _ := strings.Cut(strings.TrimSpace(string(module)), " ")
	if err != nil || path != modulePath {
		return "", nil, fmt.Errorf("the functions' binaries (%s) are not beside %s: build them there with `go build -o %s %s/functions/...`",
			strings.Join(functions, ", "), self, beside, modulePath)
	}
	if dir, err = os.MkdirTemp("", "tablevault-bin-"); err != nil {
		return "", nil, err
	}
	clean = func() { os.RemoveAll(dir) }
	build := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator), "./functions/...")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		clean()
		return "", nil, fmt.Errorf("build the functions: %w\n%s", err, out)
	}
	return dir, clean, nil
}

const modulePath = "github.com/tablevault/tablevault"

func complete(dir string) bool {
	for _, f := range functions {
		info, err := os.Stat(filepath.Join(dir, f))
		if err != nil || !info.Mode().IsRegular() {
			return false
		}
	}
	return true
}
