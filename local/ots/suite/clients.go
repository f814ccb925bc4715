package main

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/tablevault/tablevault/local/ots"
	"github.com/tablevault/tablevault/local/suite"
)

//go:embed node/check.js node/suite.js node/leftout.txt node/package.json node/package-lock.json python/requirements.txt python/check.py java/pom.xml java/Check.java
var clientFiles embed.FS

// A client is the SDK of another language. Its commands run in a folder that has its
// files of clientFiles.
type client struct {
	suite.Client
	language string     // as the document marks its program
	hello    string     // the file that the document's program becomes
	run      []string   // the command that runs it
	checks   [][]string // which print a line for each check
}

var clients = []client{
	{
		Client: suite.Node, language: "js", hello: "hello.js",
		run:    []string{"node", "hello.js"},
		checks: [][]string{{"node", "check.js"}, {"node", "suite.js"}},
	},
	{
		Client: suite.Python, language: "python", hello: "hello.py",
		run:    []string{"sdk/bin/python", "hello.py"},
		checks: [][]string{{"sdk/bin/python", "check.py"}},
	},
	{
		Client: suite.Java, language: "java", hello: "Hello.java",
		run:    []string{"java", "-cp", "sdk/*", "Hello.java"},
		checks: [][]string{{"java", "-cp", "sdk/*", "Check.java"}},
	},
}

// check installs the SDK in dir, and runs the document's program and the checks against
// the server.
func (c *client) check(ctx context.Context, server *ots.Server, document, dir string, out io.Writer) error {
	return c.Check(ctx, clientFiles, dir, out, func(t *suite.Tally) {
		if text, err := c.sayHello(ctx, server, document, dir); err != nil {
			fmt.Fprintf(t, "FAIL  %s hello\n", c.Name)
			fmt.Fprintf(out, "%v\n%s\n", err, text)
		} else {
			fmt.Fprintf(t, "PASS  %s hello\n", c.Name)
		}
		for _, args := range c.checks {
			t.Run(ctx, dir, args, environment(server))
		}
	})
}

// sayHello runs the document's program, which must print what it read. Where it does not,
// text is all that it printed.
func (c *client) sayHello(ctx context.Context, server *ots.Server, document, dir string) (text []byte, err error) {
	found := programs(document, c.language)
	if len(found) != 1 {
		return nil, fmt.Errorf("the document has %d programs in %s, not one", len(found), c.language)
	}
	if err := os.WriteFile(filepath.Join(dir, c.hello), []byte(found[0]), 0o600); err != nil {
		return nil, err
	}
	cmd := suite.Command(ctx, dir, c.run)
	cmd.Env = environment(server)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	text, err = cmd.Output()
	if got := strings.ToLower(string(text)); err == nil && got != "hello from "+c.Name+"\n" {
		err = fmt.Errorf("it prints %q", text)
	}
	return append(text, errs.Bytes()...), err
}
