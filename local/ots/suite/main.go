// Command suite runs the official Go SDK's own test suites, as they are in the
// module cache, against the local Tablestore, prints what became of each test,
// and fails if one failed that is not documented as left out, or passed that is.
//
//	go run ./local/ots/suite [-v] [-node] [-python] [-java]
//
// With -node, -python and -java it also installs the official SDK of that
// language, in a scratch folder, with npm, pip or Maven, and runs over it the
// first program of docs/local-tablestore.md and the checks that are here. An SDK
// that can't be had is skipped, with the reason.
package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tablevault/tablevault/local/ots"
)

const module = "github.com/aliyun/aliyun-tablestore-go-sdk"

// leftOut lists the tests that need what the server does not have: a name, a
// space, and the reason on each line.
//
//go:embed leftout.txt
var leftOut string

// suites are the packages of the SDK and what of them is run: all that talks to
// a server, but the suite of time series, and of that of search the tests of
// queries. Both are left out.
var suites = []struct{ folder, run, filter string }{
	{"./tablestore", "^(TestApi|Test_WriteAndReadOtsData)$", "^(TableStoreSuite|SearchSuite.Test(ComputeSplits|ParallelScan|CreateSearchIndex|Update))"},
	{"./tunnel/restore", "^Test$", "."},
}

func main() {
	verbose := flag.Bool("v", false, "print the suites' own output")
	chosen := map[string]*bool{}
	for _, c := range clients {
		chosen[c.name] = flag.Bool(c.name, false, "check with the SDK of this language too")
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, *verbose, chosen); err != nil {
		fmt.Fprintln(os.Stderr, "suite:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, verbose bool, chosen map[string]*bool) (err error) {
	known, err := parseLeftOut(leftOut)
	if err != nil {
		return err
	}
	located, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return fmt.Errorf("find the SDK in the module cache: %w", err)
	}
	scratch, err := os.MkdirTemp("", "ots-suite-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	server, err := ots.Start(ots.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()

	var bad []string
	seen := map[string]bool{}
	for i, s := range suites {
		binary := filepath.Join(scratch, fmt.Sprintf("suite%d.test", i))
		if err := build(ctx, strings.TrimSpace(string(located)), s.folder, binary, server.URL()); err != nil {
			return err
		}
		results, err := execute(ctx, binary, scratch, s.run, s.filter, verbose, out)
		if err != nil {
			return fmt.Errorf("run %s: %w", s.folder, err)
		}
		passed, failed, omitted := 0, 0, 0
		for _, r := range results {
			seen[r.name] = true
			reason, expected := known[r.name]
			switch {
			case r.verdict == "PASS" && expected:
				bad = append(bad, r.name+" passes and stands on the list of those left out")
			case r.verdict != "PASS" && !expected:
				bad = append(bad, r.name+" does not pass")
			}
			switch {
			case r.verdict == "PASS":
				passed++
			case expected:
				omitted++
				fmt.Fprintf(out, "SKIP  %s  left out: %s\n", r.name, reason)
				continue
			default:
				failed++
			}
			fmt.Fprintf(out, "%-5s %s\n", r.verdict, r.name)
		}
		fmt.Fprintf(out, "%s: %d passed, %d failed, %d skipped\n\n", s.folder, passed, failed, omitted)
		if passed == 0 {
			bad = append(bad, s.folder+" has no test that passes")
		}
	}
	document, _, err := readDocument(ctx)
	if err != nil {
		return err
	}
	for _, c := range clients {
		if !*chosen[c.name] {
			continue
		}
		if err := c.check(ctx, server, document, filepath.Join(scratch, c.name), out); err != nil {
			bad = append(bad, err.Error())
		}
	}
	for name := range known {
		if !seen[name] {
			bad = append(bad, name+" stands on the list of those left out and was not run")
		}
	}
	if len(bad) > 0 {
		slices.Sort(bad)
		return errors.New(strings.Join(bad, "\n       "))
	}
	return nil
}

func parseLeftOut(text string) (map[string]string, error) {
	known := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, reason, ok := strings.Cut(line, " ")
		if !ok {
			return nil, fmt.Errorf("leftout.txt: %q has no reason", line)
		}
		known[name] = strings.TrimSpace(reason)
	}
	return known, nil
}

// build compiles a package's tests in the module's own folder, with the
// server's address in the variables that the SDK has for it.
func build(ctx context.Context, dir, folder, binary, url string) error {
	var flags []string
	for name, value := range map[string]string{
		"OtsEndpoint":  url,
		"InstanceName": "local",
		"OtsAccessId":  ots.DefaultKeyID,
		"OtsAccessKey": ots.DefaultKeySecret,
		"Region":       "local",
	} {
		flags = append(flags, "-X "+module+"/testConfig."+name+"="+value)
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, "-ldflags", strings.Join(flags, " "), folder)
	cmd.Dir = dir
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the tests of %s: %w\n%s", folder, err, text)
	}
	return nil
}

type result struct{ name, verdict string }

// A line of gocheck is "PASS: file.go:1: Suite.Test\t0.1s", one of package
// testing is "--- PASS: Test (0.1s)".
var (
	checkLine   = regexp.MustCompile(`^(PASS|FAIL|PANIC|SKIP|MISS): \S+: (\w+\.\w+)`)
	testingLine = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\w+)`)
	fixture     = regexp.MustCompile(`\.(SetUp|TearDown)(Suite|Test)$`)
)

// runners are the tests that do nothing but run gocheck.
var runners = []string{"TestApi", "Test"}

func execute(ctx context.Context, binary, dir, run, filter string, verbose bool, out io.Writer) ([]result, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.v", "-test.run", run, "-check.vv", "-check.f", filter)
	cmd.Dir = dir
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	failed := cmd.Run()
	var exit *exec.ExitError
	if failed != nil && !errors.As(failed, &exit) {
		return nil, failed
	}
	if verbose {
		if _, err := out.Write(text.Bytes()); err != nil {
			return nil, err
		}
	}
	var results []result
	lines := bufio.NewScanner(&text)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		m := checkLine.FindStringSubmatch(lines.Text())
		if m == nil {
			m = testingLine.FindStringSubmatch(lines.Text())
		}
		if m == nil || slices.Contains(runners, m[2]) || fixture.MatchString(m[2]) && m[1] == "PASS" {
			continue
		}
		results = append(results, result{m[2], m[1]})
	}
	if len(results) == 0 {
		return nil, fmt.Errorf("no test ran: %w", failed)
	}
	return results, lines.Err()
}
