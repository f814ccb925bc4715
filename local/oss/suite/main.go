// Command suite runs ossutil and the official SDKs of other languages against the local
// OSS, prints what became of each check, and fails if one failed.
//
//	go run ./local/oss/suite [-ossutil] [-python] [-node] [-java]
//
// Each is installed in a scratch folder first: ossutil is built from its module, the SDKs
// come by pip, npm and Maven. What can't be had is skipped, with the reason. The official
// Go SDK is what the tests of package oss use.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/tablevault/tablevault/local/oss"
	"github.com/tablevault/tablevault/local/suite"
)

//go:embed node/check.js node/package.json node/package-lock.json python/check.py python/requirements.txt java/pom.xml java/Check.java
var files embed.FS

// A client is checked by a command or, if it is no language's SDK, by steps.
type client struct {
	suite.Client
	run   []string // prints a line for each check
	steps func(ctx context.Context, server *oss.Server, dir string, out io.Writer)
}

var clients = []client{
	{
		Client: suite.Client{
			Name: "ossutil", Tools: []string{"go"},
			Install: [][]string{{"go", "build", "-C", "MODULE/local/oss/suite/ossutil", "-o", "DIR/ossutil", "github.com/aliyun/ossutil"}},
		},
		steps: useOssutil,
	},
	{Client: suite.Python, run: []string{"sdk/bin/python", "check.py"}},
	{Client: suite.Node, run: []string{"node", "check.js"}},
	{Client: suite.Java, run: []string{"java", "-cp", "sdk/*", "Check.java"}},
}

func main() {
	chosen := map[string]*bool{}
	for _, c := range clients {
		chosen[c.Name] = flag.Bool(c.Name, false, "check with this client")
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
		if *chosen[c.Name] {
			bad = append(bad, c.check(ctx, server, filepath.Join(scratch, c.Name), out))
		}
	}
	return errors.Join(bad...)
}

// check installs the client in dir and runs its checks.
func (c *client) check(ctx context.Context, server *oss.Server, dir string, out io.Writer) error {
	if c.steps != nil {
		return c.Check(ctx, nil, dir, out, func(t *suite.Tally) { c.steps(ctx, server, dir, t) })
	}
	environment := append(os.Environ(), "OSS_ENDPOINT="+server.URL(), "OSS_REGION="+oss.DefaultRegion,
		"OSS_ACCESS_KEY_ID="+oss.DefaultKeyID, "OSS_ACCESS_KEY_SECRET="+oss.DefaultKeySecret)
	return c.Check(ctx, files, dir, out, func(t *suite.Tally) { t.Run(ctx, dir, c.run, environment) })
}
