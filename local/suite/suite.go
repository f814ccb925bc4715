// Package suite runs clients that others wrote against the local servers.
package suite

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// A Client is one that others wrote. Its commands run in a folder of its own.
type Client struct {
	Name  string
	Tools []string // without which it can't be had
	// Install are commands. MODULE in them is where this module is, DIR the client's
	// folder.
	Install [][]string
}

// The SDKs of other languages, of the versions that the clients' files say.
var (
	Node = Client{
		Name: "node", Tools: []string{"node", "npm"},
		Install: [][]string{{"npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"}},
	}
	Python = Client{
		Name: "python", Tools: []string{"python3"},
		Install: [][]string{
			{"python3", "-m", "venv", "sdk"},
			{"sdk/bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"},
		},
	}
	Java = Client{
		Name: "java", Tools: []string{"java", "mvn"},
		Install: [][]string{{"mvn", "--quiet", "--batch-mode", "dependency:copy-dependencies", "-DoutputDirectory=sdk"}},
	}
)

// Check installs the client in dir, with the files of its name's folder in files if that
// is not nil, and has its checks carried out. Where the client can't be had, that is said
// and no error.
func (c *Client) Check(ctx context.Context, files fs.FS, dir string, out io.Writer, checks func(*Tally)) error {
	if err := c.prepare(ctx, files, dir); err != nil {
		fmt.Fprintf(out, "SKIP  %s: %v\n%s: 0 passed, 0 failed, 1 skipped\n\n", c.Name, err, c.Name)
		return nil
	}
	t := &Tally{name: c.Name, out: out}
	checks(t)
	passed, failed := t.count()
	if passed+failed == 0 {
		fmt.Fprintf(out, "FAIL  %s: nothing was checked\n", c.Name)
		failed++
	}
	fmt.Fprintf(out, "%s: %d passed, %d failed, 0 skipped\n\n", c.Name, passed, failed)
	if failed > 0 {
		return fmt.Errorf("%s: %d of %d checks fail", c.Name, failed, passed+failed)
	}
	return nil
}

// prepare puts the client and its files into dir.
func (c *Client) prepare(ctx context.Context, files fs.FS, dir string) error {
	for _, tool := range c.Tools {
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
	if files != nil {
		own, err := fs.Sub(files, c.Name)
		if err == nil {
			err = os.CopyFS(dir, own)
		}
		if err != nil {
			return err
		}
	}
	places := strings.NewReplacer("MODULE", strings.TrimSpace(string(located)), "DIR", dir)
	for _, args := range c.Install {
		filled := make([]string, len(args))
		for i, arg := range args {
			filled[i] = places.Replace(arg)
		}
		if text, err := Command(ctx, dir, filled).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, text)
		}
	}
	return nil
}

// Command is a command in a folder, of whose files its program may be one.
func Command(ctx context.Context, dir string, args []string) *exec.Cmd {
	name := args[0]
	if strings.Contains(name, "/") {
		name = filepath.Join(dir, name)
	}
	cmd := exec.CommandContext(ctx, name, args[1:]...)
	cmd.Dir = dir
	return cmd
}

// A Tally prints what it is written, and counts the checks: each is a line with "PASS" or
// "FAIL" first.
type Tally struct {
	name  string
	out   io.Writer
	lines bytes.Buffer
}

func (t *Tally) Write(p []byte) (int, error) {
	t.lines.Write(p)
	return t.out.Write(p)
}

// Run runs a command that prints checks. One that fails without a check that does is one.
func (t *Tally) Run(ctx context.Context, dir string, args, environment []string) {
	_, before := t.count()
	cmd := Command(ctx, dir, args)
	cmd.Env, cmd.Stdout, cmd.Stderr = environment, t, t.out
	err := cmd.Run()
	if _, failed := t.count(); err != nil && failed == before {
		fmt.Fprintf(t, "FAIL  %s %s: %v\n", t.name, strings.Join(args, " "), err)
	}
}

// verdict is the beginning of a line that a check prints.
var verdict = regexp.MustCompile(`(?m)^(PASS|FAIL) `)

func (t *Tally) count() (passed, failed int) {
	for _, m := range verdict.FindAllSubmatch(t.lines.Bytes(), -1) {
		if string(m[1]) == "PASS" {
			passed++
		} else {
			failed++
		}
	}
	return passed, failed
}
