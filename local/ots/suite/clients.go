package main

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/tablevault/tablevault/local/ots"
)

//go:embed node/check.js node/suite.js node/leftout.txt node/package.json node/package-lock.json python/requirements.txt python/check.py java/pom.xml java/Check.java
var clientFiles embed.FS

// A client is the SDK of another language. Its commands run in a folder that has
// its files of clientFiles.
type client struct {
	name     string
	language string // as the document marks its program
	tools    []string
	install  [][]string
	hello    string     // the file that the document's program becomes
	run      []string   // the command that runs it
	checks   [][]string // which print a line for each check, "PASS" or "FAIL" first
}

var clients = []client{
	{
		name: "node", language: "js",
		tools:   []string{"node", "npm"},
		install: [][]string{{"npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"}},
		hello:   "hello.js",
		run:     []string{"node", "hello.js"},
		checks:  [][]string{{"node", "check.js"}, {"node", "suite.js"}},
	},
	{
		name: "python", language: "python",
		tools: []string{"python3"},
		install: [][]string{
			{"python3", "-m", "venv", "sdk"},
			{"sdk/bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"},
		},
		hello:  "hello.py",
		run:    []string{"sdk/bin/python", "hello.py"},
		checks: [][]string{{"sdk/bin/python", "check.py"}},
	},
	{
		name: "java", language: "java",
		tools:   []string{"java", "mvn"},
		install: [][]string{{"mvn", "--quiet", "--batch-mode", "dependency:copy-dependencies", "-DoutputDirectory=sdk"}},
		hello:   "Hello.java",
		run:     []string{"java", "-cp", "sdk/*", "Hello.java"},
		checks:  [][]string{{"java", "-cp", "sdk/*", "Check.java"}},
	},
}

// verdict is the beginning of a line that a check prints.
var verdict = regexp.MustCompile(`(?m)^(PASS|FAIL) `)

// check installs the SDK in dir, and runs the document's program and the checks
// against the server. Where the SDK can't be had, that is said and no error.
func (c *client) check(ctx context.Context, server *ots.Server, document, dir string, out io.Writer) error {
	if err := c.prepare(ctx, dir); err != nil {
		fmt.Fprintf(out, "SKIP  %s: %v\n%s: 0 passed, 0 failed, 1 skipped\n\n", c.name, err, c.name)
		return nil
	}
	passed, failed := 0, 0
	say := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	if text, err := c.sayHello(ctx, server, document, dir); err != nil {
		say("FAIL  %s hello\n%v\n%s", c.name, err, text)
		failed++
	} else {
		say("PASS  %s hello", c.name)
		passed++
	}
	for _, args := range c.checks {
		var lines bytes.Buffer
		cmd := command(ctx, dir, args)
		cmd.Env = environment(server)
		cmd.Stdout, cmd.Stderr = io.MultiWriter(out, &lines), out
		err := cmd.Run()
		before := failed
		for _, m := range verdict.FindAllStringSubmatch(lines.String(), -1) {
			if m[1] == "PASS" {
				passed++
			} else {
				failed++
			}
		}
		if err != nil && failed == before {
			say("FAIL  %s %s: %v", c.name, strings.Join(args, " "), err)
			failed++
		}
	}
	say("%s: %d passed, %d failed, 0 skipped\n", c.name, passed, failed)
	if failed > 0 {
		return fmt.Errorf("%s: %d of %d checks fail", c.name, failed, passed+failed)
	}
	return nil
}

// prepare puts the SDK and the client's files into dir.
func (c *client) prepare(ctx context.Context, dir string) error {
	for _, tool := range c.tools {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	files, err := fs.Sub(clientFiles, c.name)
	if err != nil {
		return err
	}
	if err := os.CopyFS(dir, files); err != nil {
		return err
	}
	for _, args := range c.install {
		if text, err := command(ctx, dir, args).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, text)
		}
	}
	return nil
}

// sayHello runs the document's program, which must print what it read. Where it
// does not, text is all that it printed.
func (c *client) sayHello(ctx context.Context, server *ots.Server, document, dir string) (text []byte, err error) {
	found := programs(document, c.language)
	if len(found) != 1 {
		return nil, fmt.Errorf("the document has %d programs in %s, not one", len(found), c.language)
	}
	if err := os.WriteFile(filepath.Join(dir, c.hello), []byte(found[0]), 0o600); err != nil {
		return nil, err
	}
	cmd := command(ctx, dir, c.run)
	cmd.Env = environment(server)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	text, err = cmd.Output()
	if got := strings.ToLower(string(text)); err == nil && got != "hello from "+c.name+"\n" {
		err = fmt.Errorf("it prints %q", text)
	}
	return append(text, errs.Bytes()...), err
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
