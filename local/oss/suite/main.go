// Command suite runs ossutil and the official SDKs of other languages against the local OSS, prints what became of each
// check, and fails if one failed.
//
//	go run ./local/oss/suite [-ossutil] [-python] [-node] [-java]
//
// Each is installed in a scratch folder first: ossutil is built from its module, the SDKs come by pip, npm and Maven. What
// can't be had is skipped, with the reason. The official Go SDK is what the tests of package oss use.
package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/tablevault/tablevault/local/oss"
)

//go:embed node/check.js node/package.json node/package-lock.json python/check.py python/requirements.txt java/pom.xml java/Check.java
var files embed.FS

// A client is one that others wrote. Its commands run in a folder of its own.
type client struct {
	name    string
	tools   []string // without which it can't be had
	install [][]string
	run     []string // prints a line for each check, "PASS" or "FAIL" first
	// steps are the checks of a client that is no language.
	steps func(ctx context.Context, server *oss.Server, dir string, out io.Writer)
}

var clients = []client{
	{
		name: "ossutil", tools: []string{"go"},
		install: [][]string{{"go", "build", "-C", "MODULE/local/oss/suite/ossutil", "-o", "DIR/ossutil", "github.com/aliyun/ossutil"}},
		steps:   useOssutil,
	},
	{
		name: "python", tools: []string{"python3"},
		install: [][]string{
			{"python3", "-m", "venv", "sdk"},
			{"sdk/bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"},
		},
		run: []string{"sdk/bin/python", "check.py"},
	},
	{
		name: "node", tools: []string{"node", "npm"},
		install: [][]string{{"npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"}},
		run:     []string{"node", "check.js"},
	},
	{
		name: "java", tools: []string{"java", "mvn"},
		install: [][]string{{"mvn", "--quiet", "--batch-mode", "dependency:copy-dependencies", "-DoutputDirectory=sdk"}},
		run:     []string{"java", "-cp", "sdk/*", "Check.java"},
	},
}

func main() {
	chosen := map[string]*bool{}
	for _, c := range clients {
		chosen[c.name] = flag.Bool(c.name, false, "check with this client")
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, chosen); err != nil {
		fmt.Fprintln(os.Stderr, "suite:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, chosen map[string]*bool) (err error) {
	scratch, err := os.MkdirTemp("", "oss-suite-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	server, err := oss.Start(oss.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	var bad []error
	for _, c := range clients {
		if *chosen[c.name] {
			bad = append(bad, c.check(ctx, server, filepath.Join(scratch, c.name), out))
		}
	}
	return errors.Join(bad...)
}

// verdict is the beginning of a line that a check prints.
var verdict = regexp.MustCompile(`(?m)^(PASS|FAIL) `)

// check installs the client in dir and runs its checks. Where the client can't be had, that is said and no error.
func (c *client) check(ctx context.Context, server *oss.Server, dir string, out io.Writer) error {
	if err := c.prepare(ctx, dir); err != nil {
		fmt.Fprintf(out, "SKIP  %s: %v\n%s: 0 passed, 0 failed, 1 skipped\n\n", c.name, err, c.name)
		return nil
	}
	var lines bytes.Buffer
	both := io.MultiWriter(out, &lines)
	var ended error
	if c.steps != nil {
		c.steps(ctx, server, dir, both)
	} else {
		cmd := command(ctx, dir, c.run)
		cmd.Env = append(os.Environ(), "OSS_ENDPOINT="+server.URL(), "OSS_REGION="+oss.DefaultRegion,
			"OSS_ACCESS_KEY_ID="+oss.DefaultKeyID, "OSS_ACCESS_KEY_SECRET="+oss.DefaultKeySecret)
		cmd.Stdout, cmd.Stderr = both, out
		ended = cmd.Run()
	}
	passed, failed := 0, 0
	for _, m := range verdict.FindAllStringSubmatch(lines.String(), -1) {
		if m[1] == "PASS" {
			passed++
		} else {
			failed++
		}
	}
	if ended != nil && failed == 0 || passed+failed == 0 {
		fmt.Fprintf(out, "FAIL  %s: %v\n", c.name, ended)
		failed++
	}
	fmt.Fprintf(out, "%s: %d passed, %d failed, 0 skipped\n\n", c.name, passed, failed)
	if failed > 0 {
		return fmt.Errorf("%s: %d of %d checks fail", c.name, failed, passed+failed)
	}
	return nil
}

// prepare puts the client and its files into dir.
func (c *client) prepare(ctx context.Context, dir string) error {
	for _, tool := range c.tools {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	located, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find this module: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if c.run != nil {
		own, err := fs.Sub(files, c.name)
		if err == nil {
			err = os.CopyFS(dir, own)
		}
		if err != nil {
			return err
		}
	}
	places := strings.NewReplacer("MODULE", strings.TrimSpace(string(located)), "DIR", dir)
	for _, args := range c.install {
		filled := make([]string, len(args))
		for i, arg := range args {
			filled[i] = places.Replace(arg)
		}
		if text, err := command(ctx, dir, filled).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, text)
		}
	}
	return nil
}

// command is a command in a folder, of whose files its program may be one.
func command(ctx context.Context, dir string, args []string) *exec.Cmd {
	name := args[0]
	if strings.Contains(name, "/") {
		name = filepath.Join(dir, name)
	}
	cmd := exec.CommandContext(ctx, name, args[1:]...)
	cmd.Dir = dir
	return cmd
}
