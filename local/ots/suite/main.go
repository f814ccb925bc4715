// Command suite runs the official Go SDK's own test suites, as they are in the module
// cache, against the local Tablestore, prints what became of each test, and fails if one
// failed that is not documented as left out, or passed that is.
//
//	go run ./local/ots/suite [-v] [-node] [-python] [-java]
//
// With -node, -python and -java it also installs the official SDK of that language, in a
// scratch folder, with npm, pip or Maven, and runs over it the first program of
// docs/local-tablestore.md and the checks that are here. An SDK that can't be had is
// skipped, with the reason.
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

// leftOut lists the tests that need what the server does not have: a name, a space, and
// the reason on each line. They are run, and must not pass, but for those whose reason
// begins with notRun. A test that is neither run nor listed is an error.
//
//go:embed leftout.txt
var leftOut string

// notRun begins the reason of a test that is not run at all.
const notRun = "not run: "

// suites are the SDK's packages that have a client. All of their tests are run.
var suites = []string{"./tablestore", "./tunnel", "./tunnel/restore"}

func main() {
	verbose := flag.Bool("v", false, "print the suites' own output")
	chosen := map[string]*bool{}
	for _, c := range clients {
		chosen[c.Name] = flag.Bool(c.Name, false, "check with the SDK of this language too")
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
	for i, folder := range suites {
		binary := filepath.Join(scratch, fmt.Sprintf("suite%d.test", i))
		if err := build(ctx, strings.TrimSpace(string(located)), folder, binary, server.URL()); err != nil {
			return err
		}
		faults, err := runSuite(ctx, binary, scratch, folder, known, seen, verbose, out)
		if err != nil {
			return fmt.Errorf("run %s: %w", folder, err)
		}
		bad = append(bad, faults...)
	}
	document, _, err := readDocument(ctx)
	if err != nil {
		return err
	}
	for _, c := range clients {
		if !*chosen[c.Name] {
			continue
		}
		if err := c.check(ctx, server, document, filepath.Join(scratch, c.Name), out); err != nil {
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

// runSuite runs the tests of a package and says what became of each. It returns what is
// not as the list of those left out has it, and notes the tests it saw.
func runSuite(ctx context.Context, binary, dir, folder string, known map[string]string, seen map[string]bool, verbose bool, out io.Writer) (bad []string, _ error) {
	all, err := listTests(ctx, binary, dir)
	if err != nil {
		return nil, err
	}
	missing := map[string]bool{}
	var chosen []string
	omitted := 0
	for _, name := range all {
		seen[name] = true
		if reason := known[name]; strings.HasPrefix(reason, notRun) {
			fmt.Fprintf(out, "SKIP  %s  %s\n", name, reason)
			omitted++
			continue
		}
		missing[name] = true
		chosen = append(chosen, name)
	}
	results, err := execute(ctx, binary, dir, chosen, verbose, out)
	if err != nil {
		return nil, err
	}
	passed, failed := 0, 0
	for _, r := range results {
		delete(missing, r.name)
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
	for name := range missing {
		bad = append(bad, name+" was to be run and has no verdict")
	}
	fmt.Fprintf(out, "%s: %d passed, %d failed, %d skipped, of %d tests\n\n", folder, passed, failed+len(missing), omitted, len(all))
	if passed == 0 {
		bad = append(bad, folder+" has no test that passes")
	}
	return bad, nil
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

// build compiles a package's tests in the module's own folder, with the server's address
// in the variables that the SDK has for it.
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

// A line of gocheck is "PASS: file.go:1: Suite.Test\t0.1s", one of package testing is
// "--- PASS: Test (0.1s)".
var (
	checkLine   = regexp.MustCompile(`^(PASS|FAIL|PANIC|SKIP|MISS): \S+: (\w+\.\w+)`)
	testingLine = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\w+)`)
	fixture     = regexp.MustCompile(`\.(SetUp|TearDown)(Suite|Test)$`)
)

// runners are the tests that do nothing but run gocheck.
var runners = []string{"TestApi", "Test"}

// listTests are the tests of a binary: gocheck's by suite and name, and package testing's
// own.
func listTests(ctx context.Context, binary, dir string) ([]string, error) {
	var all []string
	for _, args := range [][]string{{"-test.list", "."}, {"-test.run", "^(" + strings.Join(runners, "|") + ")$", "-check.list"}} {
		cmd := exec.CommandContext(ctx, binary, args...)
		cmd.Dir = dir
		text, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("list the tests: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); testName.MatchString(line) && !slices.Contains(runners, line) {
				all = append(all, line)
			}
		}
	}
	return all, nil
}

var testName = regexp.MustCompile(`^(Test\w*|\w+\.Test\w+)$`)

// execute runs some of a binary's tests.
func execute(ctx context.Context, binary, dir string, names []string, verbose bool, out io.Writer) ([]result, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	tests, suites := slices.Clone(runners), []string{"none"}
	for _, name := range names {
		if strings.Contains(name, ".") {
			suites = append(suites, regexp.QuoteMeta(name))
		} else {
			tests = append(tests, name)
		}
	}
	cmd := exec.CommandContext(ctx, binary, "-test.v", "-test.run", "^("+strings.Join(tests, "|")+")$", "-check.vv", "-check.f", "^("+strings.Join(suites, "|")+")$")
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
		return nil, fmt.Errorf("no test ran: %w\n%s", failed, text.Bytes())
	}
	return results, lines.Err()
}
